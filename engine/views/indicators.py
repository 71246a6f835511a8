"""A hospital's indicators: counts folded from schedules' events, and what a dashboard makes of counts.

Pure. The fold knows of a practitioner's day only what it takes to say, of each of its numbers, in which cells
it counts (engine/records/indicators.py); what an event changes is the difference.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import Session
from engine.domain.policy import Channel
from engine.records.indicators import (
    ARRIVED,
    BOOKED,
    CANCELLED,
    CHANGED,
    CONFIRMED,
    FULFILLED,
    LAPSED,
    NOSHOW,
    PENDING,
    TAKEN,
    Cell,
    Counts,
    Queue,
)

FOLDED: Final = (
    s.ScheduleOpened,
    s.SessionOpened,
    s.SessionMoved,
    s.SeatHeld,
    s.SeatBooked,
    s.SeatReleased,
    s.SeatRestored,
    s.AttendanceRecorded,
)
"""Events that change a count, or what is needed for one. Of the others only their place is of interest."""

_NAMES: Final = {
    int(s.Status.PENDING): PENDING,
    int(s.Status.BOOKED): BOOKED,
    int(s.Status.ARRIVED): ARRIVED,
    int(s.Status.FULFILLED): FULFILLED,
    int(s.Status.NOSHOW): NOSHOW,
}
_STANDS: Final = (s.Status.BOOKED, s.Status.ARRIVED, s.Status.FULFILLED, s.Status.NOSHOW)


@dataclass(slots=True)
class _Number:
    department_id: str
    channel: int
    taken_on: date | None  # None: a change brought it
    status: int = s.Status.PENDING
    reason: str = ""
    was_booked: bool = False

    @property
    def is_confirmed(self) -> bool:
        if self.status == s.Status.CANCELLED:
            # What expired never was: its confirmation came too late, and was taken back at once.
            return self.was_booked and self.reason != "expired"
        return self.status in _STANDS

    @property
    def name(self) -> str:
        if self.status != s.Status.CANCELLED:
            return _NAMES[self.status]
        if not self.is_confirmed:
            return LAPSED
        return CHANGED if self.reason == "changed" else CANCELLED


_Standing = tuple[str, bool, str, int, date | None]
"""What a number counts as: its name, whether it is confirmed, department, channel, and when it was taken."""


@dataclass(slots=True)
class CountedDay:
    """One practitioner's day, as far as it is counted: `fold` its events, then `settle`."""

    key: ScheduleKey
    version: int = 0
    """Events of its stream that are in it."""
    _departments: dict[str, str] = field(default_factory=dict)  # clock -> department
    _numbers: dict[bytes, _Number] = field(default_factory=dict)
    _before: dict[bytes, _Standing | None] = field(default_factory=dict)
    """What the numbers that have changed counted as when last it was settled."""

    def __len__(self) -> int:
        return len(self._numbers)

    def fold(self, event: object, on: date | None) -> None:
        """The next event of the stream; `on` is the day on which it happened, and needed of SeatHeld alone.
        Events that are not FOLDED may come as None."""
        self.version += 1
        match event:
            case s.SeatHeld():
                self._touch(event.appointment_id)
                self._numbers[event.appointment_id] = _Number(
                    self._departments[event.clock], event.channel, None if event.replaces else on
                )
            case s.SeatBooked() | s.SeatReleased() | s.SeatRestored() | s.AttendanceRecorded():
                self._touch(event.appointment_id)
                self._change(self._numbers[event.appointment_id], event)
            case s.ScheduleOpened():
                for session in event.plan:
                    self._open(session)
            case s.SessionOpened():
                self._open(event.session)
            case s.SessionMoved():
                moved = {new: self._departments.pop(old) for old, new, _ in event.moves}
                self._departments |= moved
            case _:
                pass

    def settle(self, counts: Counts) -> None:
        """Adds what has changed since the last time. In a rush thousands of numbers change alike, so cells
        are made for each kind of change, not for each number."""
        changes = Counter((before, self._standing(number)) for number, before in self._before.items())
        for (before, after), times in changes.items():
            if before != after:
                was = () if before is None else self._cells(before)
                now = () if after is None else self._cells(after)
                for cell in was:
                    if cell not in now:
                        counts[cell] = counts.get(cell, 0) - times
                for cell in now:
                    if cell not in was:
                        counts[cell] = counts.get(cell, 0) + times
        self._before.clear()

    def _change(
        self, number: _Number, event: s.SeatBooked | s.SeatReleased | s.SeatRestored | s.AttendanceRecorded
    ) -> None:
        match event:
            case s.SeatBooked():
                number.status, number.reason, number.was_booked = s.Status.BOOKED, "", True
            case s.SeatReleased() if event.reason == "lost_claim":
                del self._numbers[event.appointment_id]  # as if it had never been
            case s.SeatReleased():
                number.status, number.reason = s.Status.CANCELLED, event.reason
            case _:
                number.status, number.reason = event.status, ""

    def _open(self, session: Session) -> None:
        for slot in session.slots:
            self._departments[slot.clock] = sys.intern(session.department_id)

    def _touch(self, appointment_id: bytes) -> None:
        if appointment_id not in self._before:
            self._before[appointment_id] = self._standing(appointment_id)

    def _standing(self, appointment_id: bytes) -> _Standing | None:
        number = self._numbers.get(appointment_id)
        if number is None:
            return None
        return number.name, number.is_confirmed, number.department_id, number.channel, number.taken_on

    def _cells(self, standing: _Standing) -> tuple[Cell, ...]:
        name, is_confirmed, department_id, channel, taken_on = standing
        who = self.key.practitioner_id
        visit = Cell(_day_of(self.key.day), department_id, who, channel, name)
        if taken_on is None:
            return (visit,)
        taken = Cell(taken_on, department_id, who, channel, TAKEN)
        if not is_confirmed:
            return visit, taken
        return visit, taken, Cell(taken_on, department_id, who, channel, CONFIRMED)


_DAYS: dict[str, date] = {}
_DAYS_MAX: Final = 1_000


def _day_of(day: str) -> date:
    found = _DAYS.get(day)
    if found is None:
        if len(_DAYS) >= _DAYS_MAX:
            _DAYS.clear()
        found = _DAYS[day] = date.fromisoformat(day)
    return found


# What a dashboard shows.

_CHANNELS: Final = {int(channel): str(channel.name).lower() for channel in Channel if channel.name}


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at. `departments` None: all of them."""

    day: date
    departments: frozenset[str] | None


def summary(
    scope: Scope, counts: Counts, queues: Mapping[str, Queue], seats: Mapping[str, int]
) -> dict[str, Any]:
    """The indicators of a day. `seats` are those that practitioners offer; `queues` of today, else empty.

    Nested dicts of plain values, with ids and channels for keys, so that two can be compared (`difference`).
    """
    whole: Counts = {}
    by: dict[str, dict[str, Counts]] = {
        kind: defaultdict(dict) for kind in ("channels", "departments", "practitioners")
    }
    for cell, count in counts.items():
        if cell.day != scope.day or not (
            scope.departments is None or cell.department_id in scope.departments
        ):
            continue
        for part in (
            whole,
            by["channels"][_CHANNELS.get(cell.channel, str(cell.channel))],
            by["departments"][cell.department_id],
            by["practitioners"][cell.practitioner_id],
        ):
            cell_ = Cell(cell.day, "", "", 0, cell.name)
            part[cell_] = part.get(cell_, 0) + count
    mine = {id: queue for id, queue in queues.items() if scope.departments is None or id in scope.departments}
    departments = {
        id: {
            **_numbers(scope.day, by["departments"].get(id, {})),
            "waiting": _waiting([mine[id]] if id in mine else []),
        }
        for id in sorted({*by["departments"], *mine})
    }
    return {
        **_numbers(scope.day, whole),
        "payment_rate": None,  # no money is moved yet
        "waiting": _waiting(mine.values()),
        "channels": {id: _numbers(scope.day, part) for id, part in sorted(by["channels"].items())},
        "departments": departments,
        "practitioners": {
            id: _load(_numbers(scope.day, by["practitioners"].get(id, {})), seats.get(id))
            for id in sorted({*by["practitioners"], *seats})
        },
    }


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be laid over the old one (RFC 7396): None takes a key away."""
    found: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inner := difference(before, value):
                found[key] = inner
        elif key not in old or before != value:
            found[key] = value
    return found


def _numbers(day: date, counts: Counts) -> dict[str, Any]:
    def of(*names: str) -> int:
        return sum(counts.get(Cell(day, "", "", 0, name), 0) for name in names)

    taken, confirmed, seen, missed = of(TAKEN), of(CONFIRMED), of(ARRIVED, FULFILLED), of(NOSHOW)
    return {
        "registrations": {
            "taken": taken,
            "confirmed": confirmed,
            "confirmation_rate": _rate(confirmed, taken),
            "expected": of(BOOKED, ARRIVED, FULFILLED, NOSHOW),
            "pending": of(PENDING),
        },
        "outpatients": {"total": seen, "arrived": of(ARRIVED), "fulfilled": of(FULFILLED)},
        "given_back": {"cancelled": of(CANCELLED), "changed": of(CHANGED), "lapsed": of(LAPSED)},
        "no_shows": {"total": missed, "rate": _rate(missed, seen + missed)},
    }


def _load(numbers: dict[str, Any], seats: int | None) -> dict[str, Any]:
    expected = numbers["registrations"]["expected"]
    given = 0 if seats is None else seats
    return {**numbers, "load": {"seats": given, "booked": expected, "rate": _rate(expected, given)}}


def _waiting(queues: Iterable[Queue]) -> dict[str, Any]:
    """Whole minutes, so that a dashboard is told of what it would show."""
    found = list(queues)
    first, seen = sum(q.first for q in found), sum(q.seen for q in found)
    return {
        "now": sum(q.waiting for q in found),
        "called": sum(q.called for q in found),
        "mean_minutes": sum(q.waited for q in found) // 60 // first if first else 0,
        "max_minutes": max((q.waited_max for q in found), default=0) // 60,
        "walk_ins": sum(q.walk_ins for q in found),
        "seen": seen,
        "seen_mean_minutes": sum(q.seen_waited for q in found) // 60 // seen if seen else 0,
    }


def _rate(part: int, whole: int) -> float:
    """0 of nothing."""
    return round(part / whole, 4) if whole else 0.0
