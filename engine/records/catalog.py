"""What the hospital is and what it has published: plain rows, read and written with SQL.

Gateways keep a Catalog and the ScheduleRows of their horizon in memory and read them anew when PostgreSQL
notifies `catalog` with the new version.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from sys import intern
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg
import orjson

from engine.domain.calendar import Holiday, SessionOverride, SessionTemplate, plan_day
from engine.domain.eligibility import DepartmentRule
from engine.domain.ids import ScheduleKey
from engine.domain.places import Place
from engine.domain.planning import (
    Plan,
    PlannedSlot,
    Session,
    Share,
    Stage,
    plan_as_data,
    plan_from_data,
)
from engine.domain.policy import Policy
from engine.records.catalog_version import announce_change, lock_catalog
from engine.records.policies import load_policy

_DAY_MS: Final = 86_400_000
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Hospital:
    name: str
    name_en: str
    timezone: str  # an IANA name

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


NOT_IMPORTED: Final = Hospital("", "", "Asia/Shanghai")
"""What an empty database says of itself."""


@dataclass(frozen=True, slots=True)
class Campus:
    name: str
    latitude: float | None = None  # degrees of GCJ-02; both or none
    longitude: float | None = None
    position: int = 0

    @property
    def place(self) -> Place | None:
        """None: nobody has said where it is."""
        if self.latitude is None or self.longitude is None:
            return None
        return Place(self.latitude, self.longitude)


@dataclass(frozen=True, slots=True)
class Department:
    id: str
    parent_id: str | None  # None: of the first level
    name: str
    name_en: str
    campus: str
    location: str
    intro: str
    sex: str | None  # whom it sees: male | female | None (everybody)
    age_min: int | None  # full years, inclusive
    age_max: int | None
    position: int

    @property
    def rule(self) -> DepartmentRule:
        return DepartmentRule(self.sex, self.age_min, self.age_max)


@dataclass(frozen=True, slots=True)
class Practitioner:
    id: str
    name: str
    title: str  # chief | associate_chief | attending | resident
    department_id: str
    specialty: str
    intro: str
    position: int


@dataclass(frozen=True, slots=True)
class Room:
    id: str
    name: str
    department_id: str


@dataclass(frozen=True, slots=True)
class NumberClass:
    id: str
    name: str
    fee_fen: int


@dataclass(frozen=True, slots=True)
class Catalog:
    """Dicts are by id; departments and practitioners in the hospital's own order."""

    version: int
    hospital: Hospital
    departments: Mapping[str, Department]
    practitioners: Mapping[str, Practitioner]
    rooms: Mapping[str, Room]
    number_classes: Mapping[str, NumberClass]
    campuses: Mapping[str, Campus] = field(default_factory=dict)
    """By name, in the hospital's own order."""

    def place_of(self, department_id: str) -> Place | None:
        """Where a department is: its campus. None where there is no such department, or nobody has said."""
        department = self.departments.get(department_id)
        campus = None if department is None else self.campuses.get(department.campus)
        return None if campus is None else campus.place


@dataclass(frozen=True, slots=True)
class SessionOutline:
    """A session without its date, so that equal weeks share one object. Slots: see `SlotOutline`."""

    period: str
    department_id: str
    number_class_id: str
    room_id: str | None
    fee_fen: int
    slots: "tuple[SlotOutline, ...]"
    shares: tuple[Share, ...] = ()  # stages are relative too, like the slots
    runs: "tuple[tuple[tuple[int, int], ...], ...]" = ()  # each slot's; empty where there are no shares
    status: str = "open"
    substitute_id: str | None = None


SlotOutline = tuple[str, int, int]
"""clock (hhmm local), start in ms after the date's midnight in UTC (may be negative), capacity."""


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One practitioner's day as published. Small: 21,000 of them lie in every gateway's memory."""

    practitioner_id: str
    day: date
    opened: bool  # an actor has taken it over and knows better
    sessions: tuple[SessionOutline, ...]
    id: str = field(init=False, compare=False, repr=False)  # kept: readers ask for it all the time

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.key.schedule_id)

    @property
    def key(self) -> ScheduleKey:
        return ScheduleKey(self.practitioner_id, self.day.isoformat())

    @property
    def midnight_utc(self) -> int:
        """ms since the epoch; add a SlotOutline's start to it."""
        return (self.day.toordinal() - _EPOCH_ORDINAL) * _DAY_MS

    @property
    def plan(self) -> Plan:
        midnight = self.midnight_utc
        return tuple(
            Session(
                s.period,
                s.department_id,
                s.number_class_id,
                s.room_id,
                s.fee_fen,
                tuple(
                    PlannedSlot(clock, midnight + start, capacity, runs)
                    for (clock, start, capacity), runs in zip(
                        s.slots, s.runs or ((),) * len(s.slots), strict=True
                    )
                ),
                _moved(s.shares, midnight),
                s.status,
                s.substitute_id,
            )
            for s in self.sessions
        )


def schedule_row(practitioner_id: str, day: date, opened: bool, plan: Plan) -> ScheduleRow:
    """A day that has become known by itself. Many of them share their parts: see `load_schedules`."""
    midnight = (day.toordinal() - _EPOCH_ORDINAL) * _DAY_MS
    return ScheduleRow(practitioner_id, day, opened, tuple(_outline(s, midnight) for s in plan))


def _outline(session: Session, midnight: int) -> SessionOutline:
    return SessionOutline(
        intern(session.period),
        intern(session.department_id),
        intern(session.number_class_id),
        None if session.room_id is None else intern(session.room_id),
        session.fee_fen,
        tuple((intern(s.clock), s.starts_at - midnight, s.capacity) for s in session.slots),
        _moved(session.shares, -midnight),
        tuple(s.runs for s in session.slots) if session.shares else (),
        intern(session.status),
        session.substitute_id,
    )


def _moved(shares: tuple[Share, ...], ms: int) -> tuple[Share, ...]:
    return tuple(
        Share(share.pool, tuple(Stage(stage.at + ms, stage.channels) for stage in share.stages))
        for share in shares
    )


async def load_catalog(connection: asyncpg.Connection) -> Catalog:
    """All of one moment, so every id that a row names is there. Not for use inside a transaction."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        version = await connection.fetchval("select version from catalog_version")
        hospital = await connection.fetchrow("select name, name_en, timezone from hospital")
        departments = await connection.fetch(
            "select id, parent_id, name, name_en, campus, location, intro, sex, age_min, age_max, position"
            " from department order by position, id"
        )
        practitioners = await connection.fetch(
            "select id, name, title, department_id, specialty, intro, position"
            " from practitioner order by position, id"
        )
        rooms = await connection.fetch("select id, name, department_id from room order by id")
        classes = await connection.fetch("select id, name, fee_fen from number_class order by fee_fen, id")
        campuses = await connection.fetch(
            "select name, latitude, longitude, position from campus order by position, name"
        )
    return Catalog(
        version,
        NOT_IMPORTED if hospital is None else Hospital(*hospital),
        {row["id"]: Department(*row) for row in departments},
        {row["id"]: Practitioner(*row) for row in practitioners},
        {row["id"]: Room(*row) for row in rooms},
        {row["id"]: NumberClass(*row) for row in classes},
        {row["name"]: Campus(*row) for row in campuses},
    )


async def load_schedules(
    connection: asyncpg.Connection, from_day: date, to_day: date | None = None
) -> list[ScheduleRow]:
    """What is published from `from_day` to `to_day`, both included (None: no end), by day and practitioner.

    Equal strings, slots and sessions are one object, and rows come through a cursor: the JSON of three
    weeks of a large hospital never lies in memory at once.
    """
    slots_shared: dict[tuple[SlotOutline, ...], tuple[SlotOutline, ...]] = {}
    sessions_shared: dict[SessionOutline, SessionOutline] = {}
    weeks_shared: dict[tuple[SessionOutline, ...], tuple[SessionOutline, ...]] = {}
    days_shared: dict[date, date] = {}
    rows = []
    async with connection.transaction():
        # ::text, so that it matters to nobody whether the connection decodes jsonb by itself.
        async for practitioner_id, day, opened, plan in connection.cursor(
            "select practitioner_id, day, opened, plan::text from schedule"
            " where day >= $1 and ($2::date is null or day <= $2) order by day, practitioner_id",
            from_day,
            to_day,
            prefetch=500,
        ):
            midnight = (day.toordinal() - _EPOCH_ORDINAL) * _DAY_MS
            outlines = []
            for session in plan_from_data(orjson.loads(plan)):
                outline = _outline(session, midnight)
                if outline not in sessions_shared:
                    slots = outline.slots
                    sessions_shared[outline] = replace(outline, slots=slots_shared.setdefault(slots, slots))
                outlines.append(sessions_shared[outline])
            sessions = tuple(outlines)
            rows.append(
                ScheduleRow(
                    intern(practitioner_id),
                    days_shared.setdefault(day, day),
                    opened,
                    weeks_shared.setdefault(sessions, sessions),
                )
            )
    return rows


async def load_plan(connection: asyncpg.Connection, schedule_id: str) -> Plan | None:
    """What a schedule's actor opens with; None when nothing of that id is published."""
    plan = await connection.fetchval("select plan::text from schedule where id = $1", schedule_id)
    return None if plan is None else plan_from_data(orjson.loads(plan))


@dataclass(frozen=True, slots=True)
class Published:
    changed: int  # schedules inserted, rewritten or deleted
    kept: int  # opened schedules that the templates would have otherwise


async def publish_schedules(connection: asyncpg.Connection, first_day: date, days: int) -> int:
    """Makes `schedule` say what templates and policy say, from `first_day` on; tells how many rows changed.

    Missing days are added for `days` days. Days that are already there, also later ones, are rewritten or
    taken away when their clinic is another or gone, or opens otherwise; opened days never. When nothing
    changed, nobody is told.
    """
    async with connection.transaction():
        published = await write_schedules(connection, first_day, days)
        if published.changed:
            await announce_change(connection)
    return published.changed


async def write_schedules(connection: asyncpg.Connection, first_day: date, days: int) -> Published:
    """publish_schedules without the announcement; inside the caller's transaction."""
    await lock_catalog(connection)
    week = await _load_week(connection, first_day)
    horizon = [first_day + timedelta(n) for n in range(days)]
    beyond = await connection.fetch(
        "select distinct day from schedule where day >= $1 order by day", first_day + timedelta(days)
    )
    changed = kept = 0
    for day in [*horizon, *(row["day"] for row in beyond)]:
        plans = list(week.plans(day))
        arguments = (
            [ScheduleKey(practitioner_id, day.isoformat()).schedule_id for practitioner_id, _ in plans],
            [orjson.dumps(plan_as_data(plan)).decode() for _, plan in plans],
        )
        # Only rows that differ are touched: a row lock on the others would stop their actors' commits.
        changed += await _count(connection, _REWRITE, *arguments)
        changed += await _count(connection, _WITHDRAW, day, arguments[0])
        if day < first_day + timedelta(days):
            practitioner_ids = [practitioner_id for practitioner_id, _ in plans]
            changed += await _count(connection, _ADD, *arguments, practitioner_ids, day)
        kept += await connection.fetchval(_KEPT, *arguments, day)
    return Published(changed, kept)


_REWRITE: Final = """
update schedule s set plan = u.plan::jsonb
  from unnest($1::text[], $2::text[]) as u (id, plan)
 where s.id = u.id and not s.opened and s.plan is distinct from u.plan::jsonb
"""
_WITHDRAW: Final = "delete from schedule where day = $1 and not opened and not (id = any ($2::text[]))"
_ADD: Final = """
insert into schedule (id, practitioner_id, day, plan)
select u.id, u.practitioner_id, $4::date, u.plan::jsonb
  from unnest($1::text[], $2::text[], $3::text[]) as u (id, plan, practitioner_id)
 where not exists (select from schedule s where s.id = u.id)
"""
_KEPT: Final = """
select count(*)
  from schedule s left join unnest($1::text[], $2::text[]) as u (id, plan) on s.id = u.id
 where s.day = $3 and s.opened and s.plan is distinct from u.plan::jsonb
"""


@dataclass(frozen=True, slots=True)
class _Week:
    """Everything that plan_day wants, by practitioner."""

    zone: ZoneInfo
    templates: Mapping[str, list[SessionTemplate]]
    overrides: Mapping[str, dict[tuple[date, str], SessionOverride]]
    holidays: Mapping[date, Holiday]
    class_fees_fen: Mapping[str, int]
    policy: Policy

    def plans(self, day: date) -> Iterator[tuple[str, Plan]]:
        """Every practitioner who has a clinic on `day`."""
        for practitioner_id, templates in self.templates.items():
            overrides = self.overrides.get(practitioner_id, {})
            plan = plan_day(
                day, templates, overrides, self.holidays, self.class_fees_fen, self.zone, self.policy
            )
            if plan is not None:
                yield practitioner_id, plan


async def _load_week(connection: asyncpg.Connection, first_day: date) -> _Week:
    templates: dict[str, list[SessionTemplate]] = defaultdict(list)
    for row in await connection.fetch(
        "select practitioner_id, weekday, period, starts, ends, capacity, number_class_id, department_id,"
        " room_id, fee_fen from session_template"
    ):
        templates[row["practitioner_id"]].append(SessionTemplate(*row))
    overrides: dict[str, dict[tuple[date, str], SessionOverride]] = defaultdict(dict)
    for row in await connection.fetch(
        "select practitioner_id, day, period, closed, starts, ends, capacity"
        " from session_override where day >= $1",
        first_day,
    ):
        overrides[row["practitioner_id"]][row["day"], row["period"]] = SessionOverride(*row)
    holidays = await connection.fetch("select day, name, works_as from holiday where day >= $1", first_day)
    classes = await connection.fetch("select id, fee_fen from number_class")
    timezone = await connection.fetchval("select timezone from hospital")
    return _Week(
        ZoneInfo(timezone or NOT_IMPORTED.timezone),
        templates,
        overrides,
        {row["day"]: Holiday(*row) for row in holidays},
        {row["id"]: row["fee_fen"] for row in classes},
        await load_policy(connection, Policy()),  # pools and openings are never of the settings
    )


async def _count(connection: asyncpg.Connection, statement: str, *arguments: object) -> int:
    """Rows that a statement wrote, from its command tag ('UPDATE 3', 'INSERT 0 3')."""
    return int((await connection.execute(statement, *arguments)).rpartition(" ")[2])
