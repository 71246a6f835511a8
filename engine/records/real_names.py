"""Who is verified, who waits for the register, and how often an account has asked amiss."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, Literal
from uuid import UUID

import asyncpg

from engine.records.identity import IdType, Person, is_same_name
from engine.records.sealed_people import ID_NUMBER, id_index, name_of, record_key
from engine.vault.vault import Vault

GUESSES_A_DAY: Final = 5
"""Times an account may give a name and a number that do not belong together, within 24 hours."""
_DAY: Final = timedelta(days=1)
_UNDER_WAY: Final = timedelta(minutes=1)

State = Literal["unverified", "verified", "refused"]


@dataclass(frozen=True, slots=True)
class Verification:
    state: State
    at: datetime | None
    by: str | None  # "register", or the clerk's user name
    ask_at: datetime | None  # when the register is asked; None: not by itself


AS_IT_IS: Final = Verification("unverified", None, None, None)
"""Changes nothing of a person who is there."""


class Known(Enum):
    NOBODY = "nobody"
    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    ANOTHER = "another"  # the number is known here, and another name with it


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody whom the register is to be asked about."""

    id: bytes
    name: str
    id_type: IdType
    id_number: str
    tries: int


async def begin_guess(conn: asyncpg.Connection, account_id: bytes, guess_id: bytes, now: datetime) -> bool:
    """False: the account has tried too often. What is under way counts, so many at once do not get by."""
    async with conn.transaction():
        await conn.execute("select from account where id = $1 for update", UUID(bytes=account_id))
        tried = await conn.fetchval(
            "select count(*) from identity_guess where account_id = $1 and at > $2 and (missed or at > $3)",
            UUID(bytes=account_id),
            now - _DAY,
            now - _UNDER_WAY,
        )
        if tried >= GUESSES_A_DAY:
            return False
        await conn.execute(
            "insert into identity_guess (id, account_id, at) values ($1, $2, $3)",
            UUID(bytes=guess_id),
            UUID(bytes=account_id),
            now,
        )
    return True


async def note_miss(conn: asyncpg.Connection, guess_id: bytes) -> None:
    """They do not: it counts for a day."""
    await conn.execute("update identity_guess set missed = true where id = $1", UUID(bytes=guess_id))


async def end_guess(conn: asyncpg.Connection, guess_id: bytes) -> None:
    """It was none: name and number belong together, as far as anybody knows."""
    await conn.execute("delete from identity_guess where id = $1", UUID(bytes=guess_id))


async def forget_guesses(conn: asyncpg.Connection, now: datetime) -> None:
    await conn.execute("delete from identity_guess where at < $1", now - _DAY)


async def known_as(conn: asyncpg.Connection, vault: Vault, person: Person) -> Known:
    row = await conn.fetchrow(
        "select p.id, coalesce(p.name, k.name) as name, p.record_key, p.verification"
        "  from patient p left join kept_identity k on k.patient_id = p.id where p.id_index = $1",
        id_index(vault, person.id_type, person.id_number),
    )
    if row is None:
        return Known.NOBODY
    if not is_same_name(name_of(vault, row["id"].bytes, row["record_key"], row["name"]), person.name):
        return Known.ANOTHER
    return Known.VERIFIED if row["verification"] == "verified" else Known.UNVERIFIED


async def waiting(conn: asyncpg.Connection, vault: Vault, now: datetime, limit: int) -> list[Waiting]:
    """Who has waited longest first. Who was forgotten waits no more."""
    rows = await conn.fetch(
        "select id, name, id_type, id_number, record_key, verify_tries from patient"
        " where verify_at <= $1 and record_key is not null and name is not null and id_number is not null"
        " order by verify_at limit $2",
        now,
        limit,
    )
    found = []
    for row in rows:
        id_ = row["id"].bytes
        number = vault.open(record_key(id_, row["record_key"]), ID_NUMBER, id_, row["id_number"])
        name = name_of(vault, id_, row["record_key"], row["name"])
        found.append(Waiting(id_, name, IdType(row["id_type"]), number or "", row["verify_tries"]))
    return found


async def again_at(conn: asyncpg.Connection, patient_id: bytes, at: datetime) -> None:
    await conn.execute(
        "update patient set verify_at = $2, verify_tries = verify_tries + 1"
        " where id = $1 and verify_at is not null",
        UUID(bytes=patient_id),
        at,
    )


async def settle(
    conn: asyncpg.Connection, patient_id: bytes, verification: Verification, now: datetime
) -> bool:
    """What the register said later. False: somebody has settled it meanwhile. Who has added a person whose
    name was wrong has guessed amiss, if late. Call it in a transaction."""
    settled = await conn.fetchval(
        "update patient set verification = $2, verified_at = $3, verified_by = $4, verify_at = $5"
        " where id = $1 and verification <> 'verified' returning true",
        UUID(bytes=patient_id),
        verification.state,
        verification.at,
        verification.by,
        verification.ask_at,
    )
    if settled and verification.state == "refused":
        await conn.execute(
            "insert into identity_guess (id, account_id, at, missed)"
            " select gen_random_uuid(), account_id, $2, true from account_patient where patient_id = $1",
            UUID(bytes=patient_id),
            now,
        )
    return bool(settled)


async def seen_at_desk(
    conn: asyncpg.Connection, patient_id: bytes, username: str, is_right: bool, now: datetime
) -> bool:
    """A clerk has looked at the papers. False: there is no such patient."""
    found = await conn.fetchval(
        "update patient set verification = $2, verified_at = $3, verified_by = $4, verify_at = null"
        " where id = $1 returning true",
        UUID(bytes=patient_id),
        "verified" if is_right else "refused",
        now if is_right else None,
        username,
    )
    return bool(found)


@dataclass(frozen=True, slots=True)
class Checked:
    """Somebody, as a desk sees them."""

    name: str
    id_type: IdType
    id_number: str
    verification: Verification


async def verification_of(conn: asyncpg.Connection, vault: Vault, patient_id: bytes) -> Checked | None:
    row = await conn.fetchrow(
        "select name, id_type, id_number, record_key, verification, verified_at, verified_by, verify_at"
        "  from patient where id = $1",
        UUID(bytes=patient_id),
    )
    if row is None:
        return None
    number = vault.open(record_key(patient_id, row["record_key"]), ID_NUMBER, patient_id, row["id_number"])
    return Checked(
        name_of(vault, patient_id, row["record_key"], row["name"]),
        IdType(row["id_type"]),
        number or "",
        Verification(row["verification"], row["verified_at"], row["verified_by"], row["verify_at"]),
    )
