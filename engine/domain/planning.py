"""What a practitioner's day looks like before anybody books: the plan that an actor opens with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine.domain.limits import SLOT_MS


@dataclass(frozen=True, slots=True)
class Stage:
    """From `at` (ms) on a share is open to these channels, until its next stage."""

    at: int
    channels: int  # engine.domain.policy.Channel


@dataclass(frozen=True, slots=True)
class Share:
    """Seats of a session that open alike: of one pool, at one time. Closed before its first stage."""

    pool: str
    stages: tuple[Stage, ...]

    def channels(self, now: int) -> int:
        """Who may have a seat of it at this moment; 0: nobody."""
        found = 0
        for stage in self.stages:
            if stage.at > now:
                break
            found = stage.channels
        return found


@dataclass(frozen=True, slots=True)
class PlannedSlot:
    clock: str  # hhmm in the hospital's zone
    starts_at: int  # ms since the epoch, UTC
    capacity: int
    runs: tuple[tuple[int, int], ...] = ()
    """(share, seats), in the order of the seats; they make the capacity. Empty: a session without shares."""


@dataclass(frozen=True, slots=True)
class Session:
    period: str  # morning | afternoon | night
    department_id: str
    number_class_id: str
    room_id: str | None
    fee_fen: int
    slots: tuple[PlannedSlot, ...]
    shares: tuple[Share, ...] = ()  # empty: open to everybody as soon as it is published
    status: str = "open"  # open | paused | suspended
    substitute_id: str | None = None  # 替诊: the practitioner who really holds it


Plan = tuple[Session, ...]


def plan_as_data(plan: Plan) -> list[object]:
    """As it lies in `schedule.plan` and in the journal: lists of lists, fields only ever added."""
    return [session_as_data(session) for session in plan]


def session_as_data(s: Session) -> list[object]:
    """What is as it is by default is left out at the end: old plans and simple ones are short."""
    slots = [
        [t.clock, t.starts_at, t.capacity, *([list(map(list, t.runs))] if t.runs else [])] for t in s.slots
    ]
    data: list[object] = [s.period, s.department_id, s.number_class_id, s.room_id, s.fee_fen, slots]
    more: list[object] = [
        [[share.pool, [[stage.at, stage.channels] for stage in share.stages]] for share in s.shares],
        s.status,
        s.substitute_id,
    ]
    while more and more[-1] == _LEFT_OUT[len(more) - 1]:
        more.pop()
    return data + more


_LEFT_OUT: Final[tuple[object, ...]] = ([], "open", None)


def plan_from_data(data: Iterable[Sequence[Any]]) -> Plan:
    return tuple(map(session_from_data, data))


def session_from_data(data: Sequence[Any]) -> Session:
    period, department_id, number_class_id, room_id, fee_fen, slots, *more = data
    optional: list[Any] = [*more, *_LEFT_OUT[len(more) :]]
    shares, status, substitute_id = optional
    return Session(
        period,
        department_id,
        number_class_id,
        room_id,
        fee_fen,
        tuple(
            PlannedSlot(
                clock, starts_at, capacity, tuple((share, seats) for run in runs for share, seats in run)
            )
            for clock, starts_at, capacity, *runs in slots
        ),
        tuple(Share(pool, tuple(Stage(at, who) for at, who in stages)) for pool, stages in shares),
        status,
        substitute_id,
    )


def overlapping(plan: Plan) -> tuple[PlannedSlot, PlannedSlot] | None:
    """The first two slots of a day that run at one time, or None."""
    slots = sorted((slot for session in plan for slot in session.slots), key=lambda s: s.starts_at)
    for earlier, later in zip(slots, slots[1:], strict=False):
        if later.starts_at < earlier.starts_at + SLOT_MS:
            return earlier, later
    return None
