"""From a week's habit to one date: which sessions a practitioner holds that day, and when their slots start.

Holidays and 调休 move a date to another weekday or close it; overrides close or change one session of one
date. What has no clinic has no plan.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from engine.domain.limits import SLOT_MINUTES
from engine.domain.planning import Plan, PlannedSlot, Session
from engine.domain.policy import Policy
from engine.domain.release import release

PERIODS: Final = ("morning", "afternoon", "night")  # in the order of the day

EMERGENCY: Final = "emergency"
"""The number class whose sessions are held on closed holidays too."""

WITHOUT_POLICY: Final = Policy()
"""Every seat is open to everybody as soon as it is published."""


@dataclass(frozen=True, slots=True)
class SessionTemplate:
    """One session of a practitioner's week. Slots of SLOT_MINUTES from `starts` up to `ends`, both local."""

    practitioner_id: str
    weekday: int  # ISO, Monday is 1
    period: str  # one of PERIODS
    starts: time
    ends: time
    capacity: int  # seats a slot
    number_class_id: str
    department_id: str
    room_id: str | None
    fee_fen: int | None  # None: the class's fee


@dataclass(frozen=True, slots=True)
class SessionOverride:
    """One session of one date that is not as the week has it. None: as in the week."""

    practitioner_id: str
    day: date
    period: str
    closed: bool
    starts: time | None
    ends: time | None
    capacity: int | None


@dataclass(frozen=True, slots=True)
class Holiday:
    day: date
    name: str
    works_as: int | None  # 调休: worked as this ISO weekday; None: closed


def sessions_on(
    day: date, templates: Iterable[SessionTemplate], holidays: Mapping[date, Holiday]
) -> list[SessionTemplate]:
    """The templates of one practitioner that apply on `day`, in the order of the day; no overrides yet."""
    holiday = holidays.get(day)
    closed = holiday is not None and holiday.works_as is None
    weekday = day.isoweekday() if holiday is None or holiday.works_as is None else holiday.works_as
    return sorted(
        (t for t in templates if t.weekday == weekday and (not closed or t.number_class_id == EMERGENCY)),
        key=lambda t: PERIODS.index(t.period),
    )


def plan_day(
    day: date,
    templates: Iterable[SessionTemplate],
    overrides: Mapping[tuple[date, str], SessionOverride],
    holidays: Mapping[date, Holiday],
    class_fees_fen: Mapping[str, int],
    zone: ZoneInfo,
    policy: Policy = WITHOUT_POLICY,
) -> Plan | None:
    """One practitioner's `day`, with the shares that the policy makes; None when there is no clinic.

    `templates` and `overrides` (by day and period) are that practitioner's, valid as the hospital files
    demand: known classes, times on the half hour, sessions of a day that do not overlap.
    """
    plan = []
    for template in sessions_on(day, templates, holidays):
        override = overrides.get((day, template.period))
        starts, ends, capacity = hours_of(template, override)
        if capacity == 0:
            continue
        slots = tuple(
            PlannedSlot(clock, starts_at, capacity)
            for clock, starts_at in slot_starts(day, starts, ends, zone)
        )
        if not slots:
            continue
        fee_fen = class_fees_fen[template.number_class_id] if template.fee_fen is None else template.fee_fen
        session = Session(
            template.period,
            template.department_id,
            template.number_class_id,
            template.room_id,
            fee_fen,
            slots,
        )
        terms = policy.terms_of(template.department_id, template.number_class_id)
        plan.append(release(session, terms, day, zone))
    return tuple(plan) or None


def hours_of(template: SessionTemplate, override: SessionOverride | None) -> tuple[time, time, int]:
    """Start, end and seats a slot, once the date's override has had its say; 0 seats when it is closed."""
    if override is None:
        return template.starts, template.ends, template.capacity
    return (
        override.starts or template.starts,
        override.ends or template.ends,
        0 if override.closed else override.capacity or template.capacity,
    )


@lru_cache(maxsize=4096)  # a day's few working hours are shared by a thousand practitioners
def slot_starts(day: date, starts: time, ends: time, zone: ZoneInfo) -> tuple[tuple[str, int], ...]:
    """(hhmm, ms since the epoch) of every slot that ends by `ends`.

    Daylight saving: a local time that does not exist that day is left out; of one that comes twice, the
    first (fold=0) counts.
    """
    found = []
    minutes, last = starts.hour * 60 + starts.minute, ends.hour * 60 + ends.minute - SLOT_MINUTES
    for minute in range(minutes, last + 1, SLOT_MINUTES):
        local = datetime.combine(day, time(minute // 60, minute % 60))
        utc = local.replace(tzinfo=zone).astimezone(UTC)
        if utc.astimezone(zone).replace(tzinfo=None, fold=0) == local:
            found.append((local.strftime("%H%M"), (utc - _EPOCH) // timedelta(milliseconds=1)))
    return tuple(found)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
