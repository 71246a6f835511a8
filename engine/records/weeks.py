"""One practitioner's week, and the days that are not as the week has them, as the desk changes them.

Days on which nothing happened yet follow the week; days that an actor has taken over keep their plan, and
`follow` says what would have to be done there. `xinglin import` makes the week what the files say.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson

from engine.domain.calendar import (
    PERIODS,
    Holiday,
    SessionOverride,
    SessionTemplate,
    hours_of,
    plan_day,
    sessions_on,
)
from engine.domain.ids import ScheduleKey
from engine.domain.planning import Plan, Session, plan_from_data
from engine.domain.policy import Policy
from engine.records.catalog import NOT_IMPORTED, write_schedules
from engine.records.catalog_version import announce_change, lock_catalog
from engine.records.hospital_rules import collide
from engine.records.policies import load_policy


@dataclass(frozen=True, slots=True)
class PublishedDay:
    day: date
    opened: bool
    plan: Plan
    booked: int  # numbers that hold a seat


@dataclass(frozen=True, slots=True)
class Week:
    practitioner_id: str
    templates: tuple[SessionTemplate, ...]
    overrides: Mapping[tuple[date, str], SessionOverride]
    holidays: Mapping[date, Holiday]
    class_fees_fen: Mapping[str, int]
    zone: ZoneInfo
    policy: Policy
    published: Mapping[date, PublishedDay]
    changed_by: str | None  # who changed it last, at the desk

    @property
    def revision(self) -> str:
        """Of what can be changed here: equal weeks have equal revisions, whoever made them."""
        told = [*sorted(map(repr, map(astuple, self.templates)))]
        told += sorted(repr(astuple(one)) for one in self.overrides.values())
        return hashlib.blake2b("\n".join(told).encode(), digest_size=8).hexdigest()

    def plan(self, day: date) -> Plan | None:
        return plan_day(
            day,
            self.templates,
            self.overrides,
            self.holidays,
            self.class_fees_fen,
            self.zone,
            self.policy,
        )


@dataclass(frozen=True, slots=True)
class Needed:
    """What somebody would have to ask the actor of an opened day for."""

    command: str  # of policy.APPROVABLE
    period: str


@dataclass(frozen=True, slots=True)
class FollowedDay:
    """What the change does to one date."""

    day: date
    schedule_id: str
    effect: str  # added | rewritten | withdrawn | kept: opened, and not as the week would have it
    booked: int
    plan: Plan | None  # as the week has it now
    needed: tuple[Needed, ...] = ()


class WeekChanged(Exception):
    """The week is not the one that was looked at."""

    def __init__(self, week: Week) -> None:
        super().__init__(week.revision)
        self.week = week


async def load_week(connection: asyncpg.Connection, practitioner_id: str, today: date) -> Week:
    """Overrides, holidays and published days from today on."""
    templates = await connection.fetch(
        "select practitioner_id, weekday, period, starts, ends, capacity, number_class_id, department_id,"
        " room_id, fee_fen from session_template where practitioner_id = $1",
        practitioner_id,
    )
    overrides = await connection.fetch(
        "select practitioner_id, day, period, closed, starts, ends, capacity from session_override"
        " where practitioner_id = $1 and day >= $2",
        practitioner_id,
        today,
    )
    holidays = await connection.fetch("select day, name, works_as from holiday where day >= $1", today)
    classes = await connection.fetch("select id, fee_fen from number_class")
    timezone = await connection.fetchval("select timezone from hospital")
    days = await connection.fetch(
        "select s.day, s.opened, s.plan::text, (select count(*) from appointment a"
        "   where a.schedule_id = s.id and a.status <= 4)::int as booked"
        "  from schedule s where s.practitioner_id = $1 and s.day >= $2 order by s.day",
        practitioner_id,
        today,
    )
    changed_by = await connection.fetchval(
        "select s.name from week_change w join staff s on s.id = w.by"
        " where w.practitioner_id = $1 order by w.id desc limit 1",
        practitioner_id,
    )
    return Week(
        practitioner_id,
        tuple(
            sorted(
                (SessionTemplate(*row) for row in templates),
                key=lambda t: (t.weekday, PERIODS.index(t.period)),
            )
        ),
        {(row["day"], row["period"]): SessionOverride(*row) for row in overrides},
        {row["day"]: Holiday(*row) for row in holidays},
        {row["id"]: row["fee_fen"] for row in classes},
        ZoneInfo(timezone or NOT_IMPORTED.timezone),
        await load_policy(connection, Policy()),
        {
            row["day"]: PublishedDay(
                row["day"], row["opened"], plan_from_data(orjson.loads(row["plan"])), row["booked"]
            )
            for row in days
        },
        changed_by,
    )


def with_templates(week: Week, templates: Iterable[SessionTemplate]) -> Week:
    found = sorted(templates, key=lambda t: (t.weekday, PERIODS.index(t.period)))
    return replace(week, templates=tuple(found))


def with_override(week: Week, override: SessionOverride) -> Week:
    """One that says nothing takes the day's earlier one away."""
    overrides = dict(week.overrides)
    overrides.pop((override.day, override.period), None)
    if override.closed or (override.starts, override.ends, override.capacity) != (None, None, None):
        overrides[override.day, override.period] = override
    return replace(week, overrides=overrides)


Wrong = tuple[int, str]
"""Which template (0 for an override), and a code of web/faults.py."""


def wrong_templates(templates: Sequence[SessionTemplate]) -> list[Wrong]:
    """What is wrong with the hours of a week: ids are looked up by whoever has the catalog."""
    found: list[Wrong] = []
    for n, one in enumerate(templates):
        if one.starts >= one.ends:
            found.append((n, "invalid_times"))
            continue
        for other in templates[:n]:
            if other.weekday != one.weekday or other.starts >= other.ends:
                continue
            if other.period == one.period:
                found.append((n, "session_twice"))
            elif collide(_hours(one), _hours(other)):
                found.append((n, "session_overlap"))
    return found


def wrong_override(week: Week, override: SessionOverride) -> list[Wrong]:
    """`week` as it would be with it."""
    day = override.day
    sessions = sessions_on(day, week.templates, week.holidays)
    mine = next((t for t in sessions if t.period == override.period), None)
    changes = (override.starts, override.ends, override.capacity) != (None, None, None)
    if mine is None:
        return [(0, "no_such_session")]
    if override.closed and changes:
        return [(0, "closed_with_hours")]
    starts, ends, capacity = hours_of(mine, override)
    if starts >= ends:
        return [(0, "invalid_times")]
    for other in sessions:
        begin, end, seats = hours_of(other, week.overrides.get((day, other.period)))
        if other is mine or not capacity or not seats:
            continue
        if collide((override.period, starts, ends), (other.period, begin, end)):
            return [(0, "session_overlap")]
    return []


def follow(week: Week, today: date, days: int) -> list[FollowedDay]:
    """What publishing would do to every date that is not as `week` has it, and only to these."""
    dates = {today + timedelta(n) for n in range(days)} | set(week.published)
    found = []
    for day in sorted(dates):
        plan, is_now = week.plan(day), week.published.get(day)
        needed: tuple[Needed, ...] = ()
        if is_now is None:
            if plan is None or day >= today + timedelta(days):
                continue
            effect = "added"
        elif plan == is_now.plan:
            continue
        elif is_now.opened:
            effect, needed = "kept", tuple(_needed(is_now.plan, plan or ()))
            if not needed:
                continue
        else:
            effect = "withdrawn" if plan is None else "rewritten"
        key = ScheduleKey(week.practitioner_id, day.isoformat())
        booked = 0 if is_now is None else is_now.booked
        found.append(FollowedDay(day, key.schedule_id, effect, booked, plan, needed))
    return found


def _needed(now: Plan, wanted: Plan) -> list[Needed]:
    """From the day as it runs to the day as the week has it; who may book when is left as it is."""
    by_period = {session.period: session for session in now}
    found = []
    for session in wanted:
        runs = by_period.pop(session.period, None)
        if runs is None or runs.status == "suspended":
            found.append(Needed("open_session" if runs is None else "resume", session.period))
            continue
        clocks, wishes = [x.clock for x in runs.slots], [x.clock for x in session.slots]
        if wishes[0] != clocks[0] or runs.room_id != session.room_id:
            found.append(Needed("move_session", session.period))
        if len(wishes) > len(clocks):
            found.append(Needed("open_session", session.period))
        if len(wishes) < len(clocks) or _capacities(runs) != _capacities(session)[: len(clocks)]:
            found.append(Needed("change_capacity", session.period))
    found += [Needed("suspend", x.period) for x in by_period.values() if x.status != "suspended"]
    return found


def _capacities(session: Session) -> list[int]:
    return [slot.capacity for slot in session.slots]


@dataclass(frozen=True, slots=True)
class WeekChange:
    """Who makes it, and why."""

    revision: str  # that was looked at
    note: str
    staff_id: bytes
    now: datetime
    templates: tuple[SessionTemplate, ...] | None = None  # all of them
    override: SessionOverride | None = None

    def on(self, week: Week) -> Week:
        if self.templates is not None:
            return with_templates(week, self.templates)
        assert self.override is not None
        return with_override(week, self.override)


async def write_week(
    connection: asyncpg.Connection, week: Week, change: WeekChange, today: date, days: int
) -> None:
    """Writes `change.on(week)` and publishes. Within the caller's transaction, which began with `lock_week`.

    Raises WeekChanged with nothing written when `week` is not the one that was looked at."""
    if week.revision != change.revision:
        raise WeekChanged(week)
    after = change.on(week)
    override = change.override
    if override is None:
        await connection.execute(
            "delete from session_template where practitioner_id = $1", week.practitioner_id
        )
        await connection.executemany(
            "insert into session_template (practitioner_id, weekday, period, starts, ends, capacity,"
            " number_class_id, department_id, room_id, fee_fen)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            [astuple(template) for template in after.templates],
        )
    else:
        await connection.execute(
            "delete from session_override where practitioner_id = $1 and day = $2 and period = $3",
            week.practitioner_id,
            override.day,
            override.period,
        )
        if (override.day, override.period) in after.overrides:
            await connection.execute(
                "insert into session_override (practitioner_id, day, period, closed, starts, ends, capacity)"
                " values ($1, $2, $3, $4, $5, $6, $7)",
                *astuple(override),
            )
    await connection.execute(
        "insert into week_change (practitioner_id, kind, day, period, before, after, note, by, at)"
        " values ($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7, $8, $9)",
        week.practitioner_id,
        "templates" if override is None else "override",
        None if override is None else override.day,
        None if override is None else override.period,
        _told(week, override),
        _told(after, override),
        change.note,
        UUID(bytes=change.staff_id),
        change.now,
    )
    published = await write_schedules(connection, today, days)
    if published.changed:
        await announce_change(connection)


@dataclass(frozen=True, slots=True)
class WeekChangeRecord:
    id: int
    kind: str  # templates | override
    day: date | None  # of an override
    period: str | None
    before: object
    after: object
    note: str
    by_name: str
    at: datetime


async def week_changes(
    connection: asyncpg.Connection, practitioner_id: str, before: int | None, limit: int
) -> list[WeekChangeRecord]:
    """Latest first. `before` pages on from the last one's id."""
    rows = await connection.fetch(
        "select w.id, w.kind, w.day, w.period, w.before::text, w.after::text, w.note, s.name as by_name, w.at"
        "  from week_change w join staff s on s.id = w.by"
        " where w.practitioner_id = $1 and ($2::bigint is null or w.id < $2) order by w.id desc limit $3",
        practitioner_id,
        before,
        limit,
    )
    return [
        WeekChangeRecord(
            row["id"],
            row["kind"],
            row["day"],
            row["period"],
            orjson.loads(row["before"]),
            orjson.loads(row["after"]),
            row["note"],
            row["by_name"],
            row["at"],
        )
        for row in rows
    ]


async def lock_week(connection: asyncpg.Connection) -> None:
    """One change of the catalog at a time, until the caller's transaction ends."""
    await lock_catalog(connection)


def _told(week: Week, override: SessionOverride | None) -> str:
    if override is None:
        return orjson.dumps(list(week.templates)).decode()
    return orjson.dumps(week.overrides.get((override.day, override.period))).decode()


def _hours(template: SessionTemplate) -> tuple[str, time, time]:
    return template.period, template.starts, template.ends
