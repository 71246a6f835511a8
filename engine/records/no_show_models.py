"""What the nights have learned of no-shows: read from the appointment table, kept in `no_show_model`.

The table is read once a night, row by row in one snapshot, the latest ROWS_MAX visits of the last DAYS days.
What nobody had meant is no booking here: holds that ran out. What the hospital called off has no outcome.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson

from engine.domain.eligibility import full_years
from engine.domain.no_show import ROWS_MAX, Appointment, Facts, Past, asked_at
from engine.domain.no_show_night import (
    HORIZON_DAYS,
    UNLEARNED,
    Night,
    Share,
    Visit,
    judged_of_plain,
    model_or_none,
    plain_of_judged,
    rates_of_plain,
    share_of,
)
from engine.domain.policy import Channel
from engine.domain.schedule import Status

DAYS: Final = 730
KEPT: Final = 30
"""Nights. What is older has been overtaken."""
PREFETCH: Final = 2_000
AT_ONCE: Final = 50
"""Visits that are read, or chances that are told, before others have their turn: about two milliseconds."""
REASONS_MAX: Final = 3

_OUTCOME: Final = {Status.ARRIVED: False, Status.FULFILLED: False, Status.NOSHOW: True}
_VISITS: Final = {0: "first", 1: "follow_up"}

_VISIT: Final = """
select a.id, a.patient_id, a.created_at, a.starts_at, a.status, a.fate, a.schedule_id, a.department_id,
       a.number_class_id, a.channel, a.visit, p.birth_date, p.sex
  from appointment a join patient p on p.id = a.patient_id
 where a.status >= 2 and a.reason is distinct from 'expired'"""


@dataclass(frozen=True, slots=True)
class Learned:
    """A night as it is kept."""

    id: int
    learned_at: datetime | None  # None: there was no night yet
    night: Night


async def visits(connection: asyncpg.Connection, zone: ZoneInfo, today: date) -> AsyncIterator[Visit]:
    """Latest first, those ahead among them: they tell how much somebody has booked."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        async for row in connection.cursor(
            f"{_VISIT} and a.starts_at >= $1 order by a.starts_at desc, a.id limit $2",
            datetime(today.year, today.month, today.day, tzinfo=zone) - timedelta(DAYS),
            ROWS_MAX,
            prefetch=PREFETCH,
        ):
            yield _visit(row, zone)


async def visits_of(
    pool: asyncpg.Pool, patient_ids: Collection[bytes], since: datetime, zone: ZoneInfo
) -> list[Visit]:
    """All that these people have booked for a time after `since`: what a chance is told by."""
    rows = await pool.fetch(
        f"{_VISIT} and a.patient_id = any ($1::uuid[]) and a.starts_at >= $2"
        " order by a.starts_at desc limit $3",
        [UUID(bytes=one) for one in patient_ids],
        since,
        ROWS_MAX,
    )
    found = []
    for n, row in enumerate(rows, 1):
        found.append(_visit(row, zone))
        if not n % AT_ONCE:
            await asyncio.sleep(0)
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """A booked number's chance of not being kept, and what that rests on."""

    visit: Visit
    chance: float
    facts: Facts
    share: Share | None  # where no model is used
    reasons: Sequence[
        tuple[str, str, float]
    ]  # table, cell, points: what speaks loudest; none without a model


async def chances(
    pool: asyncpg.Pool, night: Night, patients: Mapping[bytes, bytes], zone: ZoneInfo, now: datetime
) -> dict[bytes, Told]:
    """By number. `patients`: appointment -> its patient, of numbers that are booked; one that is not there
    any more is left out. Others have their turn between: call it with as many as you like."""
    if not patients:
        return {}
    visits = await visits_of(pool, set(patients.values()), now - timedelta(DAYS), zone)
    past = Past(visit.one for visit in visits)
    of = {visit.one.id: visit for visit in visits}
    horizon = HORIZON_DAYS if night.model is None else night.model.horizon_days
    local = now.astimezone(zone)
    told = {}
    for n, appointment_id in enumerate(patients, 1):
        visit = of.get(appointment_id.hex())
        if visit is not None:
            facts = past.facts(visit.one, min(asked_at(visit.one, horizon), local))
            if night.model is None:
                share = share_of(night.rates, visit)
                told[appointment_id] = Told(visit, share.chance, facts, share, ())
            else:
                reasons = night.model.reasons(facts, REASONS_MAX)
                told[appointment_id] = Told(visit, night.model.chance(facts), facts, None, reasons)
        if not n % AT_ONCE:
            await asyncio.sleep(0)
    return told


async def keep(connection: asyncpg.Connection, night: Night, learned_at: datetime) -> int:
    """Writes it, and lets the oldest go beyond KEPT; gives its id."""
    async with connection.transaction():
        model_id: int = await connection.fetchval(
            "insert into no_show_model"
            " (learned_at, first_day, until, rows, missed, why, judged, absences_differ, rates, data)"
            " values ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9::jsonb, $10::jsonb) returning id",
            learned_at,
            night.first_day,
            night.until,
            night.rows,
            night.missed,
            night.why,
            None if night.judged is None else _json(plain_of_judged(night.judged)),
            night.absences_differ,
            _json(night.rates.plain()),
            None if night.model is None else _json(night.model.plain()),
        )
        await connection.execute(
            "delete from no_show_model where id <="
            " (select id from no_show_model order by id desc offset $1 limit 1)",
            KEPT,
        )
    return model_id


class Nights:
    """The last night, read again when there is a later one: a model is a quarter of a megabyte of text."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._known = Learned(0, None, UNLEARNED)

    async def latest(self) -> Learned:
        last = await self._pool.fetchval("select max(id) from no_show_model")
        if last is not None and last != self._known.id:
            self._known = await latest(self._pool)
        return self._known


async def latest(executor: asyncpg.Pool | asyncpg.Connection, until: date | None = None) -> Learned:
    """The last night's, or the last that knew of no day from `until` on; where there was none yet, one that
    knows nothing."""
    row = await executor.fetchrow(
        "select id, learned_at, first_day, until, rows, missed, why, judged::text, absences_differ,"
        " rates::text, data::text from no_show_model where $1::date is null or until <= $1"
        " order by id desc limit 1",
        until,
    )
    return Learned(0, None, UNLEARNED) if row is None else _learned(row)


async def nights(connection: asyncpg.Connection) -> list[Learned]:
    """Latest first, without what they have learned."""
    rows = await connection.fetch(
        "select id, learned_at, first_day, until, rows, missed, why, judged::text, absences_differ,"
        " '[]' as rates, null as data from no_show_model order by id desc"
    )
    return [_learned(row) for row in rows]


async def last_learned_at(pool: asyncpg.Pool) -> datetime | None:
    found: datetime | None = await pool.fetchval("select max(learned_at) from no_show_model")
    return found


def _learned(row: asyncpg.Record) -> Learned:
    judged = row["judged"]
    return Learned(
        row["id"],
        row["learned_at"],
        Night(
            row["until"],
            row["first_day"],
            row["rows"],
            row["missed"],
            model_or_none(None if row["data"] is None else orjson.loads(row["data"])),
            row["why"],
            None if judged is None else judged_of_plain(orjson.loads(judged)),
            row["absences_differ"],
            rates_of_plain(orjson.loads(row["rates"])),
        ),
    )


def _visit(row: asyncpg.Record, zone: ZoneInfo) -> Visit:
    starts_at = row["starts_at"].astimezone(zone)
    booked_at = row["created_at"].astimezone(zone)
    born = row["birth_date"]
    return Visit(
        Appointment(
            row["id"].hex,
            row["patient_id"].hex,
            # Who was put on the list at the door was booked then, not after the visit began.
            min(booked_at, starts_at),
            starts_at.date(),
            starts_at.hour * 60 + starts_at.minute,
            None if born is None else full_years(born, starts_at.date()),
            row["sex"],
            {
                "department": row["department_id"],
                "number_class": row["number_class_id"],
                "channel": _channel(row["channel"]),
                "visit": _VISITS.get(row["visit"], "first"),
            },
            None if row["fate"] is not None else _OUTCOME.get(row["status"]),
        ),
        row["schedule_id"],
        row["department_id"],
        row["schedule_id"].rpartition("-")[0],
    )


def _channel(number: int) -> str:
    try:
        return (Channel(number).name or str(number)).lower()
    except ValueError:
        return str(number)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
