"""Forecasts of waiting times, of one gateway: made when somebody looks, from copies of the waiting rooms.

What the past has taught is read when there is something newer; who is booked and not here yet, at most twice
a minute for a department that somebody looks at. Neither is waited for by `of`: it tells by what is known,
and the next time by what has been read meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg

from engine.database import AWAY
from engine.domain.calibration import UNCORRECTED, Calibration, Correction
from engine.domain.ids import RoomKey
from engine.domain.service_times import ServiceModel
from engine.domain.service_times import learn as model_of
from engine.records import expected as bookings
from engine.records import service_times as records
from engine.records.no_show_models import Nights
from engine.records.service_times import Learned
from engine.views.availability import Availability
from engine.views.forecasting import Duty, Expected, Known, Told, duties_of, expected_of, shared, tell
from web.queues.copies import Copies, Copy

log = logging.getLogger(__name__)

PAST_LOOK_SECONDS: Final = 60.0
CROWD_MS: Final = 30_000  # who is booked is read again after so long
STALE_MS: Final = 15_000  # a forecast is made anew after so long, though nothing has happened
AGAIN_MS: Final = 400  # and not sooner than that, however much happens
KEPT_MAX: Final = 512  # departments of which something is remembered


@dataclass(frozen=True, slots=True)
class Past:
    """What the days before have taught."""

    today: date  # for which it holds
    day: date | None = None  # the last one that it knows; None: none
    model: ServiceModel = ServiceModel()
    hospital: Correction = UNCORRECTED
    departments: Mapping[str, Correction] = field(default_factory=dict)

    def correction(self, department_id: str) -> Correction:
        return self.departments.get(department_id, self.hospital)


def past_of(learned: Learned, today: date) -> Past:
    """Takes up to a second of a core where the hospital is big."""
    hospital = sum(learned.calibrations.values(), Calibration())
    return Past(
        today,
        learned.day,
        model_of(learned.seen),
        shared(hospital, Calibration()),
        {id_: shared(hospital, own) for id_, own in learned.calibrations.items()},
    )


@dataclass(slots=True)
class _Crowd:
    """Who is booked for a department's day."""

    read_at: int
    expected: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    version: int
    at: int
    told: Told


class Forecasts:
    """`now` in ms."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        copies: Copies,
        availability: Availability,
        nights: Nights,
        zone: ZoneInfo,
        now: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._copies = copies
        self._availability = availability
        self._nights = nights
        self._zone = zone
        self._now = now
        self._past = Past(date.min)
        self._crowds: dict[str, _Crowd] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._missed: dict[bytes, float] = {}
        self._missed_day = ""
        self._made: dict[str, _Made] = {}

    def today(self) -> str:
        return self._date().isoformat()

    async def run(self) -> None:
        """Follows what the nights learn, for as long as it is awaited."""
        while True:
            try:
                await self.learn()
            except AWAY as error:
                log.warning("what was learned of waiting times could not be read: %s", error)
            await asyncio.sleep(PAST_LOOK_SECONDS)

    async def learn(self) -> None:
        """What was known this morning: the days before today, and never today or tomorrow."""
        today = self._date()
        day = await records.last_day(self._pool, today)
        if (today, day) == (self._past.today, self._past.day):
            return
        if day == self._past.day:
            self._past = replace(self._past, today=today)
            return
        learned = await records.latest(self._pool, today)
        self._past = await asyncio.to_thread(past_of, learned, today)

    def of(self, copy: Copy, ticket_id: bytes = b"") -> Told | None:
        """Of this moment. None: it is not today's waiting room, and nobody knows another day. A ticket that
        has just come is in it, where it is named, however fresh the last forecast is."""
        if copy.key.day != self.today():
            return None
        stream, now = copy.key.stream, self._now()
        crowd = self._crowds.get(stream)
        if crowd is None or now - crowd.read_at >= CROWD_MS:
            self._read(copy.key)
        made = self._made.get(stream)
        if made is not None:
            age, is_same = now - made.at, made.version == copy.version
            is_there = not ticket_id or ticket_id in made.told.tickets
            if 0 <= age < (STALE_MS if is_same else AGAIN_MS if is_there else 0):
                return made.told
        told = tell(copy.room, self._copies.rules(copy.key), now, self.known(copy.key))
        self._made.pop(stream, None)
        self._made[stream] = _Made(copy.version, now, told)
        while len(self._made) > KEPT_MAX:
            del self._made[next(iter(self._made))]
        return told

    async def ready(self, copy: Copy, ticket_id: bytes = b"") -> Told | None:
        """As `of`, with who is booked as it is now or was some seconds ago: waits until that is read."""
        crowd = self._crowds.get(copy.key.stream)
        if copy.key.day == self.today() and (crowd is None or self._now() - crowd.read_at >= CROWD_MS):
            await asyncio.shield(self._read(copy.key))
            self._made.pop(copy.key.stream, None)
        return self.of(copy, ticket_id)

    def known(self, key: RoomKey) -> Known:
        crowd = self._crowds.get(key.stream)
        expected = () if crowd is None else crowd.expected
        return Known(self._past.model, self._past.correction(key.department_id), expected, self.duties(key))

    def duties(self, key: RoomKey) -> tuple[Duty, ...]:
        """As the catalog and the actors tell them."""
        day = date.fromisoformat(key.day)
        rows = self._availability.schedules(department_id=key.department_id, first=day, last=day)
        return duties_of(key.department_id, ((row.practitioner_id, row.plan) for row in rows))

    def expected(self, key: RoomKey) -> tuple[Expected, ...]:
        """Who is booked, as far as it is known here."""
        crowd = self._crowds.get(key.stream)
        return () if crowd is None else crowd.expected

    def way_minutes(self, key: RoomKey, appointment_id: bytes) -> int | None:
        """How long the way of a booked patient takes, where he has said it."""
        return next((x.way_minutes for x in self.expected(key) if x.appointment_id == appointment_id), None)

    def forget(self, key: RoomKey) -> None:
        """Something was booked, or said, that the next one to look should know."""
        self._crowds.pop(key.stream, None)

    # Who is booked.

    def _read(self, key: RoomKey) -> asyncio.Task[None]:
        task = self._reading.get(key.stream)
        if task is None:
            task = self._reading[key.stream] = asyncio.create_task(self._read_crowd(key))
            task.add_done_callback(lambda _: self._reading.pop(key.stream, None))
            task.add_done_callback(_look_at_it)
        return task

    async def _read_crowd(self, key: RoomKey) -> None:
        day = date.fromisoformat(key.day)
        rows = self._availability.schedules(department_id=key.department_id, first=day, last=day)
        plans = {row.id: row.plan for row in rows}
        read_at = self._now()
        found = await bookings.bookings_of(self._pool, key.department_id, list(plans))
        missed = await self._absences(found, day)
        self._crowds.pop(key.stream, None)
        self._crowds[key.stream] = _Crowd(read_at, expected_of(found, plans, missed))
        while len(self._crowds) > KEPT_MAX:
            del self._crowds[next(iter(self._crowds))]

    async def _absences(self, found: list[bookings.Booking], day: date) -> dict[bytes, float]:
        """Chances hold for the day: each is reckoned once."""
        if self._missed_day != day.isoformat():
            self._missed, self._missed_day = {}, day.isoformat()
        new = [one for one in found if one.appointment_id not in self._missed and one.given_up_at is None]
        if new:
            night = (await self._nights.latest()).night
            self._missed |= await bookings.chances_of_absence(self._pool, night, new, day, self._zone)
        return self._missed

    def _date(self) -> date:
        return datetime.fromtimestamp(self._now() / 1000, UTC).astimezone(self._zone).date()


def _look_at_it(task: asyncio.Task[None]) -> None:
    """Where nobody waited for it, its failure is told here."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.warning("who is booked could not be read: %s", error)
