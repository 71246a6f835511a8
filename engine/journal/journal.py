"""The journal: where events become facts. `postgres.py` is the real one, `memory.py` the same in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import Plan
from engine.domain.refusal import Reason


class Fenced(Exception):
    """Another process took this shard over: whoever sees this is a zombie and must end."""


@dataclass(slots=True)
class AppointmentRow:
    """The appointment as its table shows it."""

    id: bytes
    schedule_id: str
    slot_id: str
    seat: int
    capacity: int
    number: int
    patient_id: bytes
    account_id: bytes
    status: int
    reason: str | None
    fee_fen: int
    starts_at: int
    hold_until: int
    at: int


@dataclass(slots=True)
class StatusChange:
    id: bytes
    status: int
    reason: str | None
    at: int


@dataclass(slots=True)
class Entry:
    """One event with all that is written in its transaction."""

    stream: str
    event: s.Event
    at: int
    gains: tuple[s.Claim, ...] = ()
    drops: tuple[s.Claim, ...] = ()
    row: AppointmentRow | None = None
    change: StatusChange | None = None
    version: int = 0  # given when its batch is cut


Loss = tuple[Entry, Reason]
"""An entry that may not stand, and what its caller is told."""

Compensate = Callable[[list[Loss]], list[Entry]]
"""Takes the entries whose claims were lost, undoes them in memory, gives the entries that undo them."""

LOST_CLAIM: Final = {
    s.Scope.DEPARTMENT_DAY: Reason.ALREADY_BOOKED,
    s.Scope.PATIENT_TIME: Reason.TIME_CONFLICT,
}


@dataclass(slots=True)
class Loaded:
    events: list[s.Event]
    plan: Plan | None  # what the catalog published, for a day that has no events yet


class Journal(Protocol):
    async def take_over(self) -> int:
        """Raises the shard's epoch, which fences every earlier owner off. Load only after this."""

    async def last_seq(self) -> int:
        """The shard's last journal number."""

    async def fenced(self) -> int:
        """How often a zombie of this shard was kept from writing."""

    async def load(self, streams: list[str]) -> dict[str, Loaded]:
        """What each actor is made of again."""

    async def append(self, entries: list[Entry], compensate: Compensate) -> int:
        """Makes the entries facts, all or none, with their claims and projections; gives the last number.

        Entries that lose a claim are undone by `compensate` in the same transaction. Raises Fenced when the
        epoch has passed on; after any other exception the outcome is unknown and the process must end.
        """


def enact(schedule: s.Schedule, key: ScheduleKey, event: s.Event, now: int) -> Entry:
    """Applies an event and says what its transaction must write: claims and projection, from the state."""
    drops: tuple[s.Claim, ...] = ()
    if isinstance(event, s.SeatReleased):
        drops = s.claims_of(schedule, event.appointment_id, key.day)
    s.apply(schedule, event)
    entry = Entry(key.stream, event, now, drops=drops)
    match event:
        case s.SeatHeld():
            entry.gains = s.claims_of(schedule, event.appointment_id, key.day)
            entry.row = _row(schedule, key, event, now)
        case s.SeatBooked():
            entry.gains = s.claims_of(schedule, event.appointment_id, key.day)
            entry.change = StatusChange(event.appointment_id, s.Status.BOOKED, None, now)
        case s.SeatReleased():
            entry.change = StatusChange(event.appointment_id, s.Status.CANCELLED, event.reason, now)
        case s.ScheduleOpened():
            pass
    return entry


def _row(schedule: s.Schedule, key: ScheduleKey, event: s.SeatHeld, now: int) -> AppointmentRow:
    slot = schedule.slots[event.clock]
    return AppointmentRow(
        id=event.appointment_id,
        schedule_id=key.schedule_id,
        slot_id=key.slot_id(event.clock),
        seat=event.seat,
        capacity=slot.capacity,
        number=slot.first_number + event.seat,
        patient_id=event.patient_id,
        account_id=event.account_id,
        status=s.Status.PENDING,
        reason=None,
        fee_fen=slot.session.fee_fen,
        starts_at=slot.starts_at,
        hold_until=event.hold_until,
        at=now,
    )


@dataclass(slots=True)
class Writes:
    """A batch folded into one write a row: what the database sees is the last word on each."""

    gains: dict[tuple[int, bytes], s.Claim]
    drops: dict[tuple[int, bytes, bytes], s.Claim]
    rows: dict[bytes, AppointmentRow]
    changes: dict[bytes, StatusChange]
    opened: list[tuple[ScheduleKey, Plan]]


def fold(entries: list[Entry]) -> Writes:
    """Entries must not compete with each other for a claim: see `rivals`."""
    writes = Writes({}, {}, {}, {}, [])
    for entry in entries:
        for claim in entry.drops:
            held = writes.gains.get((claim.scope, claim.key))
            if held is not None and held.owner == claim.owner:
                del writes.gains[claim.scope, claim.key]
            writes.drops[claim.scope, claim.key, claim.owner] = claim
        for claim in entry.gains:
            writes.gains[claim.scope, claim.key] = claim
        if entry.row is not None:
            writes.rows[entry.row.id] = entry.row
        if entry.change is not None:
            row = writes.rows.get(entry.change.id)
            if row is not None:
                row.status, row.reason = entry.change.status, entry.change.reason
            else:
                writes.changes[entry.change.id] = entry.change
        if isinstance(entry.event, s.ScheduleOpened):
            writes.opened.append((ScheduleKey.of_stream(entry.stream), entry.event.plan))
    return writes


def rivals(entries: list[Entry]) -> list[Loss]:
    """Entries that want what an earlier entry of the same batch has: a claim, or an appointment's id."""
    owners: dict[tuple[int, bytes], bytes] = {}
    ids: set[bytes] = set()
    losers: list[Loss] = []
    for entry in entries:
        for claim in entry.drops:
            if owners.get((claim.scope, claim.key)) == claim.owner:
                del owners[claim.scope, claim.key]
        if entry.row is not None and entry.row.id in ids:
            losers.append((entry, Reason.KEY_REUSED))
            continue
        taken = [c for c in entry.gains if owners.get((c.scope, c.key), c.owner) != c.owner]
        if taken:
            losers.append((entry, LOST_CLAIM[taken[0].scope]))
            continue
        owners.update({(c.scope, c.key): c.owner for c in entry.gains})
        if entry.row is not None:
            ids.add(entry.row.id)
    return losers
