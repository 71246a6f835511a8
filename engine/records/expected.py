"""Who is booked for a department's day, and how likely each is not to come: for waiting times."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson

from engine.domain.no_show_night import Night
from engine.domain.planning import Plan, plan_from_data
from engine.records import no_show_models


@dataclass(frozen=True, slots=True)
class Booking:
    """A number that was booked, whatever became of it. Times in ms."""

    appointment_id: bytes
    patient_id: bytes
    schedule_id: str
    clock: str  # of its slot
    starts_at: int
    number: int
    visit: int
    booked_at: int
    given_up_at: int | None  # cancelled, moved or marked as absent; None: it stands
    way_minutes: int | None  # what the patient says that the way takes


async def plans_of(executor: asyncpg.Pool | asyncpg.Connection, day: date) -> dict[str, Plan]:
    """By schedule: all practitioners' days, as they are published or have been changed since."""
    rows = await executor.fetch("select id, plan::text as plan from schedule where day = $1", day)
    return {row["id"]: plan_from_data(orjson.loads(row["plan"])) for row in rows}


async def bookings_of(
    executor: asyncpg.Pool | asyncpg.Connection, department_id: str, schedule_ids: Sequence[str]
) -> list[Booking]:
    """By time. Holds that ran out were never meant."""
    rows = await executor.fetch(
        "select a.id, a.patient_id, a.schedule_id, a.slot_id, a.starts_at, a.number, a.visit, a.created_at,"
        "       case when a.status >= 5 then a.updated_at end as given_up_at, w.minutes"
        "  from appointment a left join way w on w.appointment_id = a.id"
        " where a.schedule_id = any ($2::text[]) and a.department_id = $1"
        "   and a.status >= 2 and a.reason is distinct from 'expired' order by a.starts_at, a.number, a.id",
        department_id,
        list(schedule_ids),
    )
    return [
        Booking(
            row["id"].bytes,
            row["patient_id"].bytes,
            row["schedule_id"],
            row["slot_id"].rpartition("-")[2],
            _ms(row["starts_at"]),
            row["number"],
            row["visit"],
            _ms(row["created_at"]),
            None if row["given_up_at"] is None else _ms(row["given_up_at"]),
            row["minutes"],
        )
        for row in rows
    ]


async def chances_of_absence(
    pool: asyncpg.Pool | asyncpg.Connection,
    night: Night,
    bookings: Iterable[Booking],
    day: date,
    zone: ZoneInfo,
) -> dict[bytes, float]:
    """As they were on the midnight before the day, by what a night had learned until then: neither the day
    nor what came later can be seen in them."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    patients = {one.appointment_id: one.patient_id for one in bookings}
    told = await no_show_models.chances(pool, night, patients, zone, midnight)
    return {appointment_id: one.chance for appointment_id, one in told.items()}


async def keep_way(
    executor: asyncpg.Pool | asyncpg.Connection, appointment_id: bytes, minutes: int, now: datetime
) -> None:
    """How long the way takes; said again, it is as said last."""
    await executor.execute(
        "insert into way (appointment_id, minutes, told_at) values ($1, $2, $3)"
        " on conflict (appointment_id) do update set minutes = excluded.minutes, told_at = excluded.told_at",
        UUID(bytes=appointment_id),
        minutes,
        now,
    )


async def way_of(executor: asyncpg.Pool | asyncpg.Connection, appointment_id: bytes) -> int | None:
    found: int | None = await executor.fetchval(
        "select minutes from way where appointment_id = $1", UUID(bytes=appointment_id)
    )
    return found


async def departments_with_bookings(
    executor: asyncpg.Pool | asyncpg.Connection, day: date, zone: ZoneInfo
) -> list[str]:
    """Those with a number of that day that stands, or with somebody in the waiting room."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    rows = await executor.fetch(
        "select distinct department_id from appointment"
        " where status = 2 and starts_at >= $1 and starts_at < $2"
        " union select distinct department_id from ticket where day = $3 and status < 8",
        midnight,
        midnight + timedelta(days=1),
        day,
    )
    return sorted(row["department_id"] for row in rows)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
