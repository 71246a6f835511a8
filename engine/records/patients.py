"""Accounts (logins) and patients (people).

One identity, that is one document, is one patient row, whichever accounts book for it: facts such as missed
visits follow the person. Ids go in and come out as 16 bytes.
"""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from engine.records.identity import IdType, Person, is_same_name

ACCOUNT_PATIENTS_MAX: Final = 10


class PeopleRefusal(StrEnum):
    """Why a patient was not added; web/errors.py has the words."""

    IDENTITY_MISMATCH = "identity_mismatch"
    TOO_MANY_PATIENTS = "too_many_patients"


@dataclass(frozen=True, slots=True)
class NewPatient:
    person: Person
    relation: str


@dataclass(frozen=True, slots=True)
class Patient:
    """A person as one account knows them: relation and phone are that account's."""

    id: bytes
    name: str
    id_type: IdType
    id_number: str
    phone: str
    relation: str
    birth_date: date | None
    sex: str | None


async def account_of_openid(conn: asyncpg.Connection, openid: str, new_id: bytes, now: datetime) -> bytes:
    """The account that this openid signs in to; it is `new_id` the first time, however many ask at once."""
    known = await conn.fetchval("select id from account where openid = $1", openid)
    if known is None:
        known = await conn.fetchval(
            "insert into account (id, openid, created_at) values ($1, $2, $3)"
            " on conflict (openid) do nothing returning id",
            UUID(bytes=new_id),
            openid,
            now,
        )
    if known is None:  # another sign-in was faster, and has committed: on conflict waited for it
        known = await conn.fetchval("select id from account where openid = $1", openid)
    assert known is not None
    return _bytes(known)


async def add_patient(
    conn: asyncpg.Connection, account_id: bytes, patient: NewPatient, new_id: bytes, now: datetime
) -> Patient | PeopleRefusal:
    """Makes a person one of the account's patients; again, the same with the newest phone and relation."""
    person = patient.person
    account = UUID(bytes=account_id)
    async with conn.transaction():
        # One at a time for an account, so that the count below holds.
        await conn.execute("select from account where id = $1 for update", account)
        known = await _by_identity(conn, person)
        if known is None:
            if await _count(conn, account) >= ACCOUNT_PATIENTS_MAX:
                return PeopleRefusal.TOO_MANY_PATIENTS
            await conn.execute(
                "insert into patient (id, id_type, id_number, name, birth_date, sex, created_at)"
                " values ($1, $2, $3, $4, $5, $6, $7) on conflict (id_type, id_number) do nothing",
                UUID(bytes=new_id),
                person.id_type.value,
                person.id_number,
                person.name,
                person.birth_date,
                person.sex,
                now,
            )
            # Ours, or that of another account which was faster.
            known = await _by_identity(conn, person)
            assert known is not None
        if not _is_same(known, person):
            return PeopleRefusal.IDENTITY_MISMATCH
        linked = await conn.fetchval(
            "select true from account_patient where account_id = $1 and patient_id = $2", account, known["id"]
        )
        if not linked and await _count(conn, account) >= ACCOUNT_PATIENTS_MAX:
            return PeopleRefusal.TOO_MANY_PATIENTS
        await conn.execute(
            "insert into account_patient (account_id, patient_id, relation, phone, created_at)"
            " values ($1, $2, $3, $4, $5)"
            " on conflict (account_id, patient_id)"
            " do update set relation = excluded.relation, phone = excluded.phone",
            account,
            known["id"],
            patient.relation,
            person.phone,
            now,
        )
        birth_date, sex = known["birth_date"] or person.birth_date, known["sex"] or person.sex
        if (birth_date, sex) != (known["birth_date"], known["sex"]):
            await conn.execute(
                "update patient set birth_date = coalesce(birth_date, $2), sex = coalesce(sex, $3)"
                " where id = $1",
                known["id"],
                birth_date,
                sex,
            )
        return Patient(
            _bytes(known["id"]),
            known["name"],
            person.id_type,
            person.id_number,
            person.phone,
            patient.relation,
            birth_date,
            sex,
        )


async def patients_of(conn: asyncpg.Connection, account_id: bytes) -> list[Patient]:
    """In the order in which they were added."""
    rows = await conn.fetch(
        "select p.id, p.name, p.id_type, p.id_number, a.phone, a.relation, p.birth_date, p.sex"
        "  from account_patient a join patient p on p.id = a.patient_id"
        " where a.account_id = $1 order by a.created_at, p.id",
        UUID(bytes=account_id),
    )
    return [
        Patient(
            _bytes(row["id"]),
            row["name"],
            IdType(row["id_type"]),
            row["id_number"],
            row["phone"],
            row["relation"],
            row["birth_date"],
            row["sex"],
        )
        for row in rows
    ]


async def _by_identity(conn: asyncpg.Connection, person: Person) -> asyncpg.Record | None:
    return await conn.fetchrow(
        "select id, name, birth_date, sex from patient where id_type = $1 and id_number = $2",
        person.id_type.value,
        person.id_number,
    )


async def _count(conn: asyncpg.Connection, account: UUID) -> int:
    count: int = await conn.fetchval("select count(*) from account_patient where account_id = $1", account)
    return count


def _is_same(known: asyncpg.Record, person: Person) -> bool:
    """What is known of this identity and what was typed may leave things out, but not disagree."""
    return (
        is_same_name(known["name"], person.name)
        and (None in (known["birth_date"], person.birth_date) or known["birth_date"] == person.birth_date)
        and (None in (known["sex"], person.sex) or known["sex"] == person.sex)
    )


def _bytes(value: UUID | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.bytes
