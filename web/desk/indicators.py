"""A hospital's indicators of a day, and live: see docs/INDICATORS.md for what each of them means.

While somebody watches, the gateway reads what has changed once a second, and tells each topic's watchers what
is other than what they were told last.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import Annotated, Any, Final

import asyncpg
import orjson
from aiohttp import web
from pydantic import Field

from engine.records import indicators as records
from engine.records.catalog import Department, ScheduleRow
from engine.records.indicators import Counts, Queue
from engine.records.staff import Staff, looks_after
from engine.views.availability import Availability
from engine.views.indicators import Scope, difference, summary
from web import keys
from web.desk.actors import must_be
from web.errors import DATABASE_AWAY, Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IsoDate, Request, Word
from web.rights.matrix import TOPICS
from web.stream import Stream, Who

log = logging.getLogger(__name__)

TOPIC: Final = "indicators"
ALL: Final = "all"
LOOK_SECONDS: Final = 1.0

Rate = Annotated[float, Field(description="0 到 1；分母为 0 时为 0 / from 0 to 1; 0 of nothing")]


class IndicatorsQuery(Request):
    day: Annotated[IsoDate | None, Field(description="缺省为今天 / today when absent")] = None
    department: Annotated[
        Word | None,
        Field(description="含下级科室；缺省为可见的全部 / with those below; all of yours when absent"),
    ] = None


@dataclass(frozen=True, slots=True)
class RegistrationsAnswer:
    taken: Annotated[int, Field(description="当日取号 / numbers taken on this day, changes apart")]
    confirmed: Annotated[int, Field(description="其中已确认 / those of them that were confirmed")]
    confirmation_rate: Rate
    expected: Annotated[int, Field(description="当日就诊的有效号 / numbers for this day that stand")]
    pending: Annotated[int, Field(description="当日就诊的占号 / numbers for this day that are held")]


@dataclass(frozen=True, slots=True)
class OutpatientsAnswer:
    total: int
    arrived: Annotated[int, Field(description="已到，未诊毕 / arrived, not through")]
    fulfilled: Annotated[int, Field(description="已诊毕 / seen")]


@dataclass(frozen=True, slots=True)
class GivenBackAnswer:
    cancelled: Annotated[int, Field(description="确认后退号 / after they were confirmed")]
    changed: Annotated[int, Field(description="改签走 / for another number")]
    lapsed: Annotated[int, Field(description="未确认即失效 / before they were confirmed")]


@dataclass(frozen=True, slots=True)
class NoShowsAnswer:
    total: int
    rate: Rate


@dataclass(frozen=True, slots=True)
class WaitingAnswer:
    now: Annotated[int, Field(description="正在候诊 / in the hall or at a door")]
    called: Annotated[int, Field(description="已叫号或就诊中 / called or being seen")]
    mean_minutes: Annotated[int, Field(description="初诊候诊者已等 / so far, of those nobody has seen yet")]
    max_minutes: int
    walk_ins: Annotated[int, Field(description="现场取号 / came without an appointment")]
    seen: Annotated[int, Field(description="已开始就诊 / whom somebody has begun to see")]
    seen_mean_minutes: Annotated[int, Field(description="从签到到开始就诊 / from check-in until then")]


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """The numbers of a channel."""

    registrations: RegistrationsAnswer
    outpatients: OutpatientsAnswer
    given_back: GivenBackAnswer
    no_shows: NoShowsAnswer


@dataclass(frozen=True, slots=True)
class DepartmentPartAnswer(PartAnswer):
    waiting: WaitingAnswer


@dataclass(frozen=True, slots=True)
class LoadAnswer:
    seats: Annotated[int, Field(description="开放的号数 / seats offered; 0 of a day long gone")]
    booked: int
    rate: Rate


@dataclass(frozen=True, slots=True)
class PractitionerPartAnswer(PartAnswer):
    load: LoadAnswer


@dataclass(frozen=True, slots=True)
class IndicatorsAnswer(PartAnswer):
    day: date
    department_id: str | None
    version: Annotated[int, Field(description="计到哪一步 / grows with what is counted")]
    payment_rate: Annotated[
        float | None, Field(description="尚无支付，恒为 null / null until money is moved")
    ]
    waiting: Annotated[WaitingAnswer, Field(description="仅今天 / of today alone")]
    channels: dict[str, PartAnswer]
    departments: dict[str, DepartmentPartAnswer]
    practitioners: dict[str, PractitionerPartAnswer]


Document = dict[str, Any]
"""An IndicatorsAnswer as plain data."""


@dataclass(slots=True)
class _Today:
    """What is known of today while somebody watches."""

    day: date
    version: int
    counts: Counts
    queues: Mapping[str, Queue]


class IndicatorBoard:
    """Of one gateway. Also the stream's source of indicators/all and indicators/<department>."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        availability: Availability,
        stream: Stream,
        zone: tzinfo,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._availability = availability
        self._stream = stream
        self._zone = zone
        self._now = now
        self._today: _Today | None = None
        self._told: dict[str, Document] = {}
        self._reading = asyncio.Lock()
        stream.sources[TOPIC] = self

    @property
    def day(self) -> date:
        """Today, at the hospital."""
        return self._now().astimezone(self._zone).date()

    async def of(self, day: date, department_id: str | None) -> Document:
        """As it is in the table now."""
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            version, _ = await records.versions(connection)
            counts = await records.of_day(connection, day)
            queues = await records.queues(connection, day, self._now()) if day == self.day else {}
        return self._document(_Today(day, version, counts, queues), department_id)

    async def run(self) -> None:
        """Tells those who watch what has changed; reads nothing while nobody does."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            topics = self._stream.watched(TOPIC)
            self._told = {topic: told for topic, told in self._told.items() if topic in topics}
            if not topics:
                self._today = None
                continue
            try:
                today = await self._read()
            except (*DATABASE_AWAY, OSError, asyncpg.PostgresError) as error:
                log.warning("indicators could not be read: %s", error)
                continue  # what they see stays
            for topic, told in self._told.items():
                new = self._document(today, _department(topic.partition("/")[2]))
                changes = difference(told, new)
                changes.pop("version", None)
                self._told[topic] = new
                if changes:
                    self._stream.say(
                        topic,
                        orjson.dumps({"patch": topic, "changes": changes, "version": new["version"]}),
                    )

    def rows(self, name: str, who: Who) -> list[ScheduleRow]:
        """No schedules. Raises Problem."""
        self.visible(must_be(who, TOPICS["indicators"]), _department(name))
        return []

    async def snapshot(self, topic: str, name: str) -> bytes:
        """What was told last, so that all who watch are told the same changes from here on."""
        told = self._told.get(topic)
        if told is None:
            today = self._today or await self._read()
            told = self._told.setdefault(topic, self._document(today, _department(name)))
        return orjson.dumps({"snapshot": topic, **told})

    def visible(self, staff: Staff, department_id: str | None) -> str | None:
        """What they may look at of what they ask for. Raises Problem."""
        departments: Mapping[str, Department] = self._availability.catalog.departments
        if department_id is None:
            if staff.department_id is not None or staff.campus is not None:
                raise Problem(Fault.FORBIDDEN)
            return None
        if department_id not in departments:
            raise Problem(Fault.NO_SUCH_DEPARTMENT)
        if not looks_after(staff, department_id, departments):
            raise Problem(Fault.FORBIDDEN)
        return department_id

    async def _read(self) -> _Today:
        """What has changed since the last time, laid over what is known."""
        async with self._reading:
            known, day = self._today, self.day
            if known is None or known.day != day:
                known = _Today(day, -1, {}, {})
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read"),
            ):
                version, counted = await records.versions(connection)
                counts = known.counts
                if known.version < counted:  # counted anew: what is there no more would else stay
                    counts = await records.of_day(connection, day)
                elif known.version < version:
                    counts = counts | await records.of_day(connection, day, known.version)
                queues = await records.queues(connection, day, self._now())
            self._today = _Today(day, version, counts, queues)
            return self._today

    def _document(self, today: _Today, department_id: str | None) -> Document:
        of = None
        if department_id is not None:
            of = frozenset(self._availability.departments_below(department_id))
        seats: dict[str, int] = {}
        for row in self._availability.schedules(department_id, first=today.day, last=today.day):
            for session in row.sessions:
                if (of is None or session.department_id in of) and session.status != "suspended":
                    offered = sum(capacity for _, _, capacity in session.slots)
                    seats[row.practitioner_id] = seats.get(row.practitioner_id, 0) + offered
        return {
            "day": today.day.isoformat(),
            "department_id": department_id,
            "version": today.version,
            **summary(Scope(today.day, of), today.counts, today.queues, seats),
        }


def _department(name: str) -> str | None:
    return None if name == ALL else name


@api.route(
    "GET",
    "/api/v1/desk/indicators",
    zh="医院运营指标",
    tags=["desk"],
    errors=[Fault.NO_SUCH_DEPARTMENT, Fault.DATABASE_DOWN],
    answer=IndicatorsAnswer,
)
async def read_indicators(request: web.Request, *, staff: Staff, query: IndicatorsQuery) -> bytes:
    """Registrations, outpatients, cancellations, no-shows and waiting of a day, whole and in parts.

    Staff of a department see that department and those below it.
    """
    board = request.app[keys.INDICATOR_BOARD]
    department_id = board.visible(staff, query.department or staff.department_id)
    return orjson.dumps(await board.of(query.day or board.day, department_id))
