"""Whom the desk could ring about a number ahead, whom it has rung, and who has seen whose telephone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from engine.records.request_keys import KeyUse, use_key

LISTED_MAX: Final = 1_000
"""Numbers of one department and day. More are nobody's to ring."""
TRIES_MAX: Final = 10


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
    pool: asyncpg.Pool, department_ids: Collection[str], first: datetime, end: datetime, now: datetime
) -> tuple[list[Ahead], int]:
    """Those that begin in [first, end) and after `now`, the earliest LISTED_MAX, and how many there are.

    Who has said that he will come is left out. Who has said that he will not is there until his number is
    given back: it might have failed.
    """
    rows = await pool.fetch(
        "select a.id, a.patient_id, p.name, ap.phone, a.schedule_id, a.slot_id, a.number, a.starts_at,"
        "       a.department_id, count(*) over () as all_of_them"
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
    found = [
        Ahead(
            row["id"].bytes,
            row["patient_id"].bytes,
            row["name"],
            row["phone"],
            row["schedule_id"],
            row["slot_id"],
            row["number"],
            row["starts_at"],
            row["department_id"],
        )
        for row in rows
    ]
    return found, (rows[0]["all_of_them"] if rows else 0)


async def calls_about(pool: asyncpg.Pool, appointment_ids: Collection[bytes]) -> dict[bytes, list[Call]]:
    """By number, latest first, TRIES_MAX of each at most."""
    rows = await pool.fetch(
        "select appointment_id, outcome, note, by_name, at from ("
        "  select c.*, s.name as by_name,"
        "         row_number() over (partition by c.appointment_id order by c.at desc, c.id desc) as n"
        "    from no_show_call c join staff s on s.id = c.by where c.appointment_id = any ($1::uuid[])) c"
        " where n <= $2 order by at desc, id desc",
        [UUID(bytes=one) for one in appointment_ids],
        TRIES_MAX,
    )
    found: dict[bytes, list[Call]] = {}
    for row in rows:
        one = row["appointment_id"].bytes
        found.setdefault(one, []).append(
            Call(one, Outcome(row["outcome"]), row["note"], row["by_name"], row["at"])
        )
    return found


async def note_call(
    connection: asyncpg.Connection,
    appointment_id: bytes,
    outcome: Outcome,
    note: str,
    staff_id: bytes,
    key: str,
    now: datetime,
) -> bool:
    """Writes that somebody was rung; again with the same key, nothing. False: the key is another call's."""
    async with connection.transaction():
        asked = ("no_show_call", appointment_id.hex(), outcome.value, note)
        use = await use_key(connection, staff_id, key, asked, now)
        if use is KeyUse.FIRST:
            await connection.execute(
                "insert into no_show_call (appointment_id, outcome, note, by, at)"
                " values ($1, $2, $3, $4, $5)",
                UUID(bytes=appointment_id),
                outcome.value,
                note,
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
