"""Once a day, what the waiting rooms of the day before have shown is learned: docs/WAITING_TIME.md.

A day is played again from the journal: its turns teach how long turns take, and its forecasts, made anew with
what was known that morning, teach what forecasts are worth. Days are learned in their order, each once; days
that were missed are made up for. All of that takes a core for seconds to minutes, so it runs in a process of
its own, behind everything else (`xinglin waiting-times learn`). A gateway only looks whether it is due.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg
from aiohttp import web

from engine.domain import calibration as calibrating
from engine.domain import service_times
from engine.domain.calibration import Calibration, Score
from engine.domain.ids import RoomKey
from engine.domain.no_show_night import Night
from engine.domain.planning import Plan
from engine.domain.policy import Policy
from engine.domain.service_times import Sums, Tally, tally
from engine.domain.service_times import learn as model_of
from engine.journal.streams import read_room
from engine.records import expected as bookings
from engine.records import no_show_models
from engine.records import service_times as records
from engine.records.catalog import load_catalog
from engine.records.service_times import Learned
from engine.views.forecasting import Known, duties_of, expected_of, shared
from engine.views.foretold import Lived, relive
from web import keys
from web.own_process import run_command

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 600.0
NIGHT_HOUR: Final = 2  # of the hospital's clock: a day is over by then, and its late evening too
LEARN_SECONDS_MAX: Final = 3_600.0
NICE: Final = 10
FADED: Final = 0.02
"""Sums of fewer turns say nothing any more: whoever has not worked for years is forgotten."""


@dataclass(frozen=True, slots=True)
class LearnedDay:
    """What a day has brought."""

    day: date
    departments: int
    visits: int
    told: int
    score: Score


async def learn_nightly(app: web.Application, database_url: str) -> None:
    """A round: harmless when done twice."""
    over = is_over(datetime.now(UTC).astimezone(app[keys.ZONE]))
    if await records.days_to_learn(app[keys.POOL], over):
        await run_command("waiting-times", "learn", database_url=database_url, seconds_max=LEARN_SECONDS_MAX)


def is_over(now: datetime) -> date:
    """Days before this one may be learned. `now` in the hospital's zone."""
    today = now.date()
    return today if now.hour >= NIGHT_HOUR else today - timedelta(days=1)


async def learn(connection: asyncpg.Connection, policy: Policy, now: datetime) -> list[LearnedDay]:
    """All days that are over and were not learned yet, one after the other."""
    zone = (await load_catalog(connection)).hospital.zone
    found = []
    for day in await records.days_to_learn(connection, is_over(now.astimezone(zone))):
        learned = await learn_day(connection, policy, day, zone, now)
        if learned is not None:
            found.append(learned)
    return found


async def learn_day(
    connection: asyncpg.Connection, policy: Policy, day: date, zone: ZoneInfo, now: datetime
) -> LearnedDay | None:
    """Of one day; None where it had been learned before. One department is in memory at a time."""
    before = await records.latest(connection, day)
    model = model_of(before.seen)
    hospital = sum(before.calibrations.values(), Calibration())
    night = (await no_show_models.latest(connection, day)).night
    plans = await bookings.plans_of(connection, day)
    calibrations = {
        department_id: calibration.faded(calibrating.KEPT)
        for department_id, calibration in before.calibrations.items()
    }
    seen, visits, told = Tally(), 0, 0
    scores: dict[str, dict[int, Score]] = {}
    departments = await records.departments_of(connection, day)
    for department_id in departments:
        own = before.calibrations.get(department_id, Calibration())
        known = Known(model, shared(hospital, own))
        lived = await _relive(
            connection, policy, RoomKey(department_id, day.isoformat()), known, night, plans, zone
        )
        seen += tally(lived.visits, model)
        calibrations[department_id] = (
            calibrations.get(department_id, Calibration()) + lived.gathered.calibration()
        )
        scores[department_id] = lived.scores
        visits += len(lived.visits)
        told += lived.told
    learned = Learned(day, without_faded(before.seen.faded(service_times.KEPT) + seen), calibrations)
    if not await records.keep(connection, learned, now, visits, told, scores):
        return None
    score = sum((one for by in scores.values() for one in by.values()), Score())
    return LearnedDay(day, len(departments), visits, told, score)


async def _relive(
    connection: asyncpg.Connection,
    policy: Policy,
    key: RoomKey,
    known: Known,
    night: Night,
    plans: Mapping[str, Plan],
    zone: ZoneInfo,
) -> Lived:
    department_id = key.department_id
    there = {
        schedule_id: plan
        for schedule_id, plan in plans.items()
        if any(session.department_id == department_id for session in plan)
    }
    booked = await bookings.bookings_of(connection, department_id, list(there))
    missed = await bookings.chances_of_absence(connection, night, booked, date.fromisoformat(key.day), zone)
    duties = duties_of(department_id, ((id_.rpartition("-")[0], plan) for id_, plan in there.items()))
    known = Known(known.model, known.correction, expected_of(booked, there, missed), duties)
    events = await read_room(connection, key)
    return relive(events, policy.waiting_of(department_id).rules, known)


def without_faded(seen: Tally) -> Tally:
    def kept(sums: Sums) -> bool:
        return sums.n >= FADED

    return Tally(
        {cell: sums for cell, sums in seen.services.items() if kept(sums)},
        {doctor: sums for doctor, sums in seen.pauses.items() if kept(sums)},
        {doctor: n for doctor, n in seen.passes.items() if n >= FADED},
        seen.pairs,
        seen.products,
    )
