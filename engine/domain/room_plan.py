"""How a department's day of waiting begins: its queues, from who is on duty and what the hospital decided."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from engine.domain import waiting_room as w
from engine.domain.waiting_terms import WaitingTerms

GENERAL: Final = "general"
"""The queue of everybody who waits for no practitioner of his own choice, and of those who have no queue."""

LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without I and O, which are read as 1 and 0."""


@dataclass(frozen=True, slots=True)
class RoomPlan:
    department_id: str
    day: str  # yyyy-mm-dd
    closes_at: int  # ms: the end of the last session, or of the day where there is none
    practitioners: tuple[str, ...] = ()  # who see patients that day, in the order of their sessions


def opening(plan: RoomPlan, terms: WaitingTerms, now: int) -> list[w.Event]:
    """The first events of the day. Each practitioner has a queue and a prefix of its own, so that a booked
    number is called as it was booked; those who walk in get numbers behind the booked ones."""
    walk_ins = terms.walk_ins
    events: list[w.Event] = [
        w.DayOpened(b"", plan.department_id, plan.day, plan.closes_at, now),
        _queue(
            GENERAL, w.VISIT, walk_ins.general_prefix, walk_ins.general_first, walk_ins.general_last, "", now
        ),
    ]
    taken = {walk_ins.general_prefix, *(queue.prefix for queue in terms.queues)}
    prefixes = (prefix for prefix in _prefixes() if prefix not in taken)
    for practitioner_id in plan.practitioners:
        first, last = walk_ins.first, walk_ins.last
        events.append(_queue(practitioner_id, w.VISIT, next(prefixes), first, last, practitioner_id, now))
    events += [_queue(q.queue_id, q.kind, q.prefix, q.first, q.last, "", now) for q in terms.queues]
    return events


def _queue(
    queue_id: str, kind: str, prefix: str, first: int, last: int, practitioner_id: str, now: int
) -> w.QueueSet:
    return w.QueueSet(b"", queue_id, kind, prefix, first, last, practitioner_id, "", now)


def _prefixes() -> Iterator[str]:
    yield from LETTERS
    yield from (one + two for one in LETTERS for two in LETTERS)
