"""Whom the desk could ring about a number ahead, whom it has rung, and who has seen whose telephone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from engine.records.request_keys import KeyUse, use_key
from engine.records.sealed_people import contact_key, contact_key_of, name_of, phone_of
from engine.vault.vault import Vault

LISTED_MAX: Final = 1_000
"""Numbers of one department and day. More are nobody's to ring."""
TRIES_MAX: Final = 10
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NOTE: Final = "no_show_call.note"


def note_row(appointment_id: bytes, at: datetime) -> bytes:
    """What stands for the id of a row: the real one is not known before it is written."""
    return appointment_id + ((at - _EPOCH) // timedelta(microseconds=1)).to_bytes(8, "big")


class Outcome(StrEnum):
    WILL_COME = "will_come"
    WILL_NOT_COME = "will_not_come"
    NOT_REACHED = "not_reached"


@dataclass(frozen=True, slots=True)
class Ahead:
    """A booked number whose patient has not said that he will come."""

    appointment_id: bytes
    patient_id: bytes
    patient_name: str
    phone: str | None  # of the account that booked, for this patient; None: it has no right any more
    schedule_id: str
    slot_id: str
    number: int
    starts_at: datetime
    department_id: str


@dataclass(frozen=True, slots=True)
class Call:
    appointment_id: bytes
    outcome: Outcome
    note: str
    by_name: str
    at: datetime


async def ahead(
    pool: asyncpg.Pool,
    vault: Vault,
    department_ids: Collection[str],
    first: datetime,
    end: datetime,
    now: datetime,
) -> tuple[list[Ahead], int]:
    """Those that begin in [first, end) and after `now`, the earliest LISTED_MAX, and how many there are.

    Who has said that he will come is left out. Who has said that he will not is there until his number is
    given back: it might have failed.
    """
    rows = await pool.fetch(
        "select a.id, a.patient_id, p.record_key, p.contact_key, p.name, ap.account_id, ap.phone,"
        "       a.schedule_id, a.slot_id, a.number, a.starts_at, a.department_id,"
        "       count(*) over () as all_of_them"
        "  from appointment a join patient p on p.id = a.patient_id"
        "  left join account_patient ap"
        "    on ap.account_id = a.account_id and ap.patient_id = a.patient_id and ap.revoked_at is null"
        " where a.status = 2 and a.fate is null and not a.will_come and a.department_id = any ($1::text[])"
        "   and a.starts_at >= $2 and a.starts_at < $3 and a.starts_at > $4"
        " order by a.starts_at, a.id limit $5",
        list(department_ids),
        first,
        end,
        now,
        LISTED_MAX,
    )
    found = [_ahead(vault, row) for row in rows]
    return found, (rows[0]["all_of_them"] if rows else 0)


def _ahead(vault: Vault, row: asyncpg.Record) -> Ahead:
    patient_id, account_id = row["patient_id"].bytes, row["account_id"]
    phone = None
    if account_id is not None:
        phone = phone_of(vault, account_id.bytes, patient_id, row["contact_key"], row["phone"])
    return Ahead(
        row["id"].bytes,
        patient_id,
        name_of(vault, patient_id, row["record_key"], row["name"]),
        phone,
        row["schedule_id"],
        row["slot_id"],
        row["number"],
        row["starts_at"],
        row["department_id"],
    )


async def calls_about(
    pool: asyncpg.Pool, vault: Vault, appointment_ids: Collection[bytes]
) -> dict[bytes, list[Call]]:
    """By number, latest first, TRIES_MAX of each at most."""
    rows = await pool.fetch(
        "select appointment_id, outcome, note, by_name, at, patient_id, contact_key from ("
        "  select c.*, s.name as by_name, p.id as patient_id, p.contact_key,"
        "         row_number() over (partition by c.appointment_id order by c.at desc, c.id desc) as n"
        "    from no_show_call c join staff s on s.id = c.by"
        "    join appointment a on a.id = c.appointment_id join patient p on p.id = a.patient_id"
        "   where c.appointment_id = any ($1::uuid[])) c"
        " where n <= $2 order by at desc, id desc",
        [UUID(bytes=one) for one in appointment_ids],
        TRIES_MAX,
    )
    found: dict[bytes, list[Call]] = {}
    for row in rows:
        one = row["appointment_id"].bytes
        key = contact_key(row["patient_id"].bytes, row["contact_key"])
        note = vault.open(key, NOTE, note_row(one, row["at"]), row["note"]) or ""
        found.setdefault(one, []).append(Call(one, Outcome(row["outcome"]), note, row["by_name"], row["at"]))
    return found


async def note_call(
    connection: asyncpg.Connection,
    vault: Vault,
    appointment_id: bytes,
    outcome: Outcome,
    note: str,
    staff_id: bytes,
    key: str,
    now: datetime,
) -> bool:
    """Writes that somebody was rung; again with the same key, nothing. False: the key is another call's."""
    async with connection.transaction():
        print_of_note = vault.index("request_key.fingerprint", note).hex()
        asked = ("no_show_call", appointment_id.hex(), outcome.value, print_of_note)
        use = await use_key(connection, staff_id, key, asked, now)
        if use is KeyUse.FIRST:
            sealed = None
            if note:
                patient_id = await connection.fetchval(
                    "select patient_id from appointment where id = $1", UUID(bytes=appointment_id)
                )
                key_ = await contact_key_of(connection, vault, patient_id.bytes)
                sealed = vault.seal(key_, NOTE, note_row(appointment_id, now), note)
            await connection.execute(
                "insert into no_show_call (appointment_id, outcome, note, by, at)"
                " values ($1, $2, $3, $4, $5)",
                UUID(bytes=appointment_id),
                outcome.value,
                sealed,
                UUID(bytes=staff_id),
                now,
            )
    return use is not KeyUse.OTHER


async def note_look(
    pool: asyncpg.Pool,
    staff_id: bytes,
    department_id: str,
    day: date,
    patient_ids: Collection[bytes],
    in_full: bool,
    now: datetime,
) -> None:
    """Whose names and numbers were shown to whom."""
    await pool.execute(
        "insert into calling_list_look (staff_id, at, department_id, day, patient_ids, in_full)"
        " values ($1, $2, $3, $4, $5, $6)",
        UUID(bytes=staff_id),
        now,
        department_id,
        day,
        [UUID(bytes=one) for one in patient_ids],
        in_full,
    )


async def waiting_at(pool: asyncpg.Pool, department_ids: Collection[str]) -> Mapping[str, int]:
    """Schedule -> wishes that wait for a seat there."""
    rows = await pool.fetch(
        "select s.key, count(*)::int as wishes from wish w, jsonb_each(w.schedules) s"
        " where w.status = 'waiting' and w.until > now() and w.department_id = any ($1::text[]) group by 1",
        list(department_ids),
    )
    return {row["key"]: row["wishes"] for row in rows}
