"""Where a wish could be met: which slots of which published days would do, and why others would not."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.domain.eligibility import DepartmentRule, Facts, check
from engine.domain.policy import Policy, Waitlist
from engine.domain.refusal import Refusal
from engine.records.catalog import Catalog, ScheduleRow, SessionOutline
from engine.records.wishes import Member, Places, Wanted

NO_SESSION: Final = "no_session"
"""Nobody who is wanted holds a clinic on these days."""
NOT_AT_THESE_TIMES: Final = "not_at_these_times"
NOT_EARLIER: Final = "not_earlier"
OVER: Final = "over"
"""It has begun, or its list has closed."""
NO_WAITLIST: Final = "no_waitlist"
SUSPENDED: Final = "suspended"
BOOKED: Final = "booked_each_day"
"""Whoever waits has a number in that department on each of these days, or another one at these times."""


@dataclass(frozen=True, slots=True)
class Found:
    places: Places
    why_not: str | Refusal = ""
    """Where there are none: what took the last one away."""


@dataclass(frozen=True, slots=True)
class _Slot:
    row: ScheduleRow
    session: SessionOutline
    clock: str
    starts_at: int


def find_places(
    rows: Iterable[ScheduleRow],
    catalog: Catalog,
    policy: Policy,
    wanted: Wanted,
    members: Collection[Member],
    now: int,
) -> Found:
    """Of these published days. Whether seats are free there does not matter: those are offered at once."""
    departments = below(catalog, wanted.department_id)
    days = [row for row in rows if _is_wanted(row, catalog, wanted, departments)]
    slots = [
        _Slot(row, session, clock, row.midnight_utc + start)
        for row in days
        for session in row.sessions
        for clock, start, _ in session.slots
    ]
    mine = [slot for slot in slots if slot.session.department_id in departments]
    steps: list[tuple[str, Callable[[_Slot], bool]]] = [
        (NO_SESSION, lambda slot: True),
        (NOT_AT_THESE_TIMES, lambda slot: _is_at(slot, wanted)),
        (NOT_EARLIER, lambda slot: wanted.before is None or slot.starts_at < wanted.before),
        (OVER, lambda slot: now < closes_at(policy, slot.session, slot.starts_at)),
        (SUSPENDED, lambda slot: slot.session.status != "suspended"),
        (NO_WAITLIST, lambda slot: _terms(policy, slot.session).enabled),
    ]
    for why, suits in steps:
        mine = [slot for slot in mine if suits(slot)]
        if not mine:
            return Found({}, why)
    refusal: Refusal | None = None
    allowed = []
    for slot in mine:
        refused = _refused(slot, catalog, policy, members, now)
        refusal = refusal or refused
        if refused is None:
            allowed.append(slot)
    if not allowed:
        assert refusal is not None
        return Found({}, refusal)
    chosen = [slot for slot in allowed if _has_time(slot, members)]
    if not chosen:
        return Found({}, BOOKED)
    places: Places = {}
    for slot in chosen:
        places.setdefault(slot.row.id, []).append(slot.clock)
    for row in days:
        ahead = [slot.clock for slot in slots if slot.row is row and slot.starts_at > now]
        if _is_open_ended(wanted) and places.get(row.id) == ahead:
            places[row.id] = []  # any of the day, also those that come or move later
    return Found(places)


def below(catalog: Catalog, department_id: str) -> set[str]:
    """The department and those below it."""
    return {d.id for d in catalog.departments.values() if department_id in (d.id, d.parent_id)}


def closes_at(policy: Policy, session: SessionOutline, starts_at: int) -> int:
    """When nobody is offered a seat of this slot any more (ms)."""
    return starts_at - _terms(policy, session).closes_minutes * 60_000


def clocks_of(row: ScheduleRow, clocks: Sequence[str]) -> set[str]:
    """Which slots `clocks` of a place mean."""
    return {clock for s in row.sessions for clock, _, _ in s.slots if not clocks or clock in clocks}


def _terms(policy: Policy, session: SessionOutline) -> Waitlist:
    return policy.terms_of(session.department_id, session.number_class_id).waitlist


def _is_wanted(row: ScheduleRow, catalog: Catalog, wanted: Wanted, departments: set[str]) -> bool:
    person = catalog.practitioners.get(row.practitioner_id)
    return (
        wanted.first_day <= row.day <= wanted.last_day
        and (not wanted.practitioner_ids or row.practitioner_id in wanted.practitioner_ids)
        and (wanted.title is None or (person is not None and person.title == wanted.title))
        and any(session.department_id in departments for session in row.sessions)
    )


def _is_at(slot: _Slot, wanted: Wanted) -> bool:
    return (
        (not wanted.periods or slot.session.period in wanted.periods)
        and (wanted.not_before is None or slot.clock >= wanted.not_before)
        and (wanted.not_after is None or slot.clock <= wanted.not_after)
    )


def _is_open_ended(wanted: Wanted) -> bool:
    return not wanted.periods and (wanted.not_before, wanted.not_after, wanted.before) == (None, None, None)


def _refused(
    slot: _Slot, catalog: Catalog, policy: Policy, members: Collection[Member], now: int
) -> Refusal | None:
    """Of its department's rules; the rest is of the people themselves, and the same for every slot."""
    department = catalog.departments.get(slot.session.department_id)
    rule = DepartmentRule() if department is None else department.rule
    for member in members:
        person = Facts(
            is_of_account=True,
            birth_date=member.birth_date,
            sex=member.sex,
            is_verified=member.is_verified,
        )
        refusal = check(person, rule, policy, slot.row.day, now)
        if refusal is not None:
            return Refusal(refusal.reason, {**refusal.detail, "patient_id": member.patient_id.hex()})
    return None


def _has_time(slot: _Slot, members: Collection[Member]) -> bool:
    day = slot.row.id[-8:]
    return not any(
        (department_id == slot.session.department_id and when == day) or starts_at == slot.starts_at
        for member in members
        for department_id, when, starts_at in member.visits
    )
