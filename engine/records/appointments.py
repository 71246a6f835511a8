"""Reads of the appointment table. Only the journal writes it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from engine.domain.planning import plan_from_data
from engine.records.catalog import ScheduleRow, schedule_row
from engine.records.sealed_people import name_of
from engine.vault.vault import Vault

_COLUMNS: Final = (
    "a.id, a.schedule_id, a.slot_id, a.number, a.patient_id, a.account_id, a.status, a.reason, a.fee_fen,"
    " a.starts_at, a.hold_until, a.created_at, a.updated_at, a.department_id, a.channel, a.replaces,"
    " a.successor, a.wish_id, a.changes, a.fate, a.booked_by, a.will_come, a.number_class_id,"
    " p.record_key, p.name as patient_name"
)


@dataclass(frozen=True, slots=True)
class AppointmentRecord:
    id: bytes
    schedule_id: str
    slot_id: str
    number: int
    patient_id: bytes
    patient_name: str
    account_id: bytes
    status: int
    reason: str | None
    fee_fen: int
    starts_at: datetime
    hold_until: datetime
    created_at: datetime
    updated_at: datetime
    department_id: str
    channel: int
    replaces: bytes | None  # the appointment that this one changes, or is offered for
    successor: bytes | None  # what came, or would come, in its place
    wish_id: bytes | None
    changes: int
    will_come: bool  # the patient said so when asked
    number_class_id: str
    booked_by: str  # staff or "system", for somebody else; "": the account itself
    fate: str | None  # once its session was called off: engine/domain/policy.py Fate, or "affected"


async def appointment(
    pool: asyncpg.Pool, vault: Vault, appointment_id: bytes, account_id: bytes
) -> AppointmentRecord | None:
    """None when there is no such appointment of this account: whether others have it is not told. Nor is what
    came of it, where the patient does not let the account see visits."""
    row = await pool.fetchrow(
        f"select {_COLUMNS} from appointment a join patient p on p.id = a.patient_id"
        f" where a.id = $1 and a.account_id = $2 and {_SHOWN}",
        appointment_id.hex(),
        account_id.hex(),
    )
    return None if row is None else _record(vault, row)


async def any_appointment(
    pool: asyncpg.Pool, vault: Vault, appointment_id: bytes
) -> AppointmentRecord | None:
    """Whosever it is: for the hospital's own work."""
    row = await pool.fetchrow(
        f"select {_COLUMNS} from appointment a join patient p on p.id = a.patient_id where a.id = $1",
        appointment_id.hex(),
    )
    return None if row is None else _record(vault, row)


async def appointments_by_id(
    pool: asyncpg.Pool, vault: Vault, ids: list[bytes]
) -> dict[bytes, AppointmentRecord]:
    """Those of them that there are, whosever they are."""
    rows = await pool.fetch(
        f"select {_COLUMNS} from appointment a join patient p on p.id = a.patient_id where a.id = any ($1)",
        [UUID(bytes=one) for one in ids],
    )
    return {row["id"].bytes: _record(vault, row) for row in rows}


async def held_in_place_of(
    pool: asyncpg.Pool, vault: Vault, appointment_id: bytes
) -> AppointmentRecord | None:
    """What is held for somebody instead of this appointment, and not decided yet."""
    row = await pool.fetchrow(
        f"select {_COLUMNS} from appointment a join patient p on p.id = a.patient_id"
        " where a.replaces = $1 and a.status = 1 limit 1",
        appointment_id.hex(),
    )
    return None if row is None else _record(vault, row)


# Arrived, fulfilled, missed: visits. What is ahead or given up is the account's own doing.
_SHOWN: Final = (
    "(a.status not in (3, 4, 6) or not exists (select from account_patient h"
    " where h.account_id = a.account_id and h.patient_id = a.patient_id and not h.may_see))"
)


async def appointments_of(
    pool: asyncpg.Pool,
    vault: Vault,
    account_id: bytes,
    statuses: list[int] | None,
    before: datetime | None,
    limit: int,
) -> list[AppointmentRecord]:
    """Newest first, without what the account may not see. `before` pages on from the last's created_at."""
    rows = await pool.fetch(
        f"select {_COLUMNS} from appointment a join patient p on p.id = a.patient_id"
        " where a.account_id = $1 and ($2::smallint[] is null or a.status = any ($2))"
        f"   and ($3::timestamptz is null or a.created_at < $3) and {_SHOWN}"
        " order by a.created_at desc, a.id limit $4",
        account_id.hex(),
        statuses,
        before,
        limit,
    )
    return [_record(vault, row) for row in rows]


def _record(vault: Vault, row: asyncpg.Record) -> AppointmentRecord:
    patient_id = row["patient_id"].bytes
    return AppointmentRecord(
        id=row["id"].bytes,
        schedule_id=row["schedule_id"],
        slot_id=row["slot_id"],
        number=row["number"],
        patient_id=patient_id,
        patient_name=name_of(vault, patient_id, row["record_key"], row["patient_name"]),
        account_id=row["account_id"].bytes,
        status=row["status"],
        reason=row["reason"],
        fee_fen=row["fee_fen"],
        starts_at=row["starts_at"],
        hold_until=row["hold_until"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        department_id=row["department_id"],
        channel=row["channel"],
        replaces=_bytes(row["replaces"]),
        successor=_bytes(row["successor"]),
        wish_id=_bytes(row["wish_id"]),
        changes=row["changes"],
        will_come=row["will_come"],
        number_class_id=row["number_class_id"],
        booked_by=row["booked_by"],
        fate=row["fate"],
    )


def _bytes(value: UUID | None) -> bytes | None:
    return None if value is None else value.bytes


@dataclass(frozen=True, slots=True)
class Affected:
    """A number whose session was called off."""

    id: UUID
    patient_id: UUID
    slot_id: str
    patient_name: str
    fate: str
    successor: UUID | None
    fee_fen: int
    updated_at: datetime


async def affected_of(pool: asyncpg.Pool, vault: Vault, schedule_id: str) -> list[Affected]:
    """By time and number."""
    rows = await pool.fetch(
        "select a.id, a.slot_id, a.patient_id, p.record_key, p.name, a.fate, a.successor, a.fee_fen,"
        "       a.updated_at"
        "  from appointment a join patient p on p.id = a.patient_id"
        " where a.schedule_id = $1 and a.fate is not null order by a.starts_at, a.number",
        schedule_id,
    )
    return [
        Affected(
            row["id"],
            row["patient_id"],
            row["slot_id"],
            name_of(vault, row["patient_id"].bytes, row["record_key"], row["name"]),
            row["fate"],
            row["successor"],
            row["fee_fen"],
            row["updated_at"],
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A booked number whose patient has not said that he will come."""

    id: bytes
    schedule_id: str
    department_id: str
    number_class_id: str
    starts_at: datetime
    created_at: datetime


async def unanswered(pool: asyncpg.Pool, within_minutes: int) -> list[Unanswered]:
    """Those of the next so many minutes."""
    rows = await pool.fetch(
        "select id, schedule_id, department_id, number_class_id, starts_at, created_at from appointment"
        " where status = 2 and not will_come and fate is null"
        "   and starts_at > now() and starts_at < now() + make_interval(mins => $1) order by starts_at",
        within_minutes,
    )
    return [Unanswered(row["id"].bytes, *row[1:]) for row in rows]


async def not_come(pool: asyncpg.Pool, after_minutes: int, days: int, limit: int) -> list[tuple[bytes, str]]:
    """Booked numbers of the last `days`, with their schedules, whose time is over by so long and who never
    arrived. What the hospital called off is none of them, and who has a ticket of the waiting room has
    arrived, even if this number has not heard of it yet."""
    rows = await pool.fetch(
        "select id, schedule_id from appointment a"
        " where status = 2 and starts_at < now() - make_interval(mins => $1) and fate is null"
        "   and starts_at > now() - make_interval(days => $2)"
        "   and not exists (select from ticket t where t.appointment_id = a.id) order by starts_at limit $3",
        after_minutes,
        days,
        limit,
    )
    return [(row["id"].bytes, row["schedule_id"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Taken:
    """Seats that are not free, the opened days' plans, and the journal numbers up to which all that is so."""

    seats: dict[str, int]
    """slot -> how many of its seats are not free; slots that are wholly free are left out"""
    seqs: dict[int, tuple[int, int]]
    """shard -> (epoch, seq)"""
    which: dict[str, list[int]] = field(default_factory=dict)
    """slot -> which seats these are, where its schedule has shares"""
    rows: list[ScheduleRow] = field(default_factory=list)
    """The opened days, from yesterday on (UTC), as their actors have them"""


async def seats_taken(pool: asyncpg.Pool) -> Taken:
    """One consistent snapshot of all slots that are not over."""
    seats: dict[str, int] = {}
    which: dict[str, list[int]] = {}
    rows: list[ScheduleRow] = []
    shared: set[str] = set()  # schedules with shares
    unfree: dict[str, dict[str, list[int]]] = {}
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        shards = await connection.fetch("select id, epoch, seq from shard")
        async for schedule_id, practitioner_id, day, plan, kept in connection.cursor(
            "select id, practitioner_id, day, plan::text, unfree::text from schedule"
            " where opened and day >= (now() at time zone 'utc')::date - 1",
            prefetch=500,
        ):
            row = schedule_row(practitioner_id, day, True, plan_from_data(orjson.loads(plan)))
            rows.append(row)
            if any(session.shares for session in row.sessions):
                shared.add(schedule_id)
            if kept is not None:
                unfree[schedule_id] = orjson.loads(kept)
        counted = await connection.fetch(
            "select slot_id, count(*)::int as taken from appointment"
            " where status <= 4 and starts_at > now() group by slot_id"
        )
        if shared:
            for slot_id, indices in await connection.fetch(
                "select slot_id, array_agg(seat::int) from appointment"
                " where status <= 4 and starts_at > now() and schedule_id = any ($1) group by slot_id",
                list(shared),
            ):
                which[slot_id] = indices
    seats.update(counted)
    for schedule_id, clocks in unfree.items():
        for clock, indices in clocks.items():
            slot_id = f"{schedule_id}-{clock}"
            if indices:
                seats[slot_id] = seats.get(slot_id, 0) + len(indices)
            if schedule_id in shared:
                which.setdefault(slot_id, []).extend(indices)
    return Taken(seats, {row["id"]: (row["epoch"], row["seq"]) for row in shards}, which, rows)
