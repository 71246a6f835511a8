"""The journal: where events become facts. `postgres.py` is the real one, `memory.py` the same in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from engine.domain import schedule as s
from engine.domain.claims import Claim, Scope
from engine.domain.ids import RoomKey, ScheduleKey
from engine.domain.limits import CHANGE_CLAIM_MS
from engine.domain.messages import Event
from engine.domain.planning import Plan, plan_as_data
from engine.domain.refusal import Reason
from engine.domain.room_plan import RoomPlan
from engine.domain.seats import number_of, plan_of


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
    department_id: str = ""
    number_class_id: str = ""
    channel: int = 1
    visit: int = 0


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
    event: Event
    at: int
    gains: tuple[Claim, ...] = ()
    drops: tuple[Claim, ...] = ()
    row: AppointmentRow | None = None
    change: StatusChange | None = None
    more: "More | None" = None
    atom: int = 0  # entries of one atom stand or fall together; 0: by itself
    version: int = 0  # given when its batch is cut


@dataclass(slots=True)
class More:
    """What few events write beside appointment and claims. Plain data: it travels as one JSON document."""

    plans: dict[str, list[object]] = field(default_factory=dict)
    """schedule -> its plan as it is now."""
    unfree: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """schedule -> slot -> seats that are blocked or cooling."""
    held: list[list[object]] = field(default_factory=list)
    """[appointment, replaces, wish, changes, by] of seats that were held for a reason."""
    moved: list[list[object]] = field(default_factory=list)
    """[appointment, slot, start] after a session moved."""
    fates: list[list[object]] = field(default_factory=list)
    """[appointment, fate, successor]."""
    successors: list[list[object]] = field(default_factory=list)
    """[appointment, the one that came in its place]."""
    coming: list[str] = field(default_factory=list)
    """Appointments whose patients said that they will come."""
    wishes: list[list[object]] = field(default_factory=list)
    """[wish, status, appointment]."""
    yields: list[list[object]] = field(default_factory=list)
    """[scope, key, owner, expires] of claims that are taken only where nobody else has them."""
    errands: list[list[object]] = field(default_factory=list)
    """[kind, key, data]: what has to be done next by others; see actors/errands.py."""
    tickets: dict[str, list[object]] = field(default_factory=dict)
    """ticket -> its row as it is now: see rooms.py."""
    bills: dict[str, list[object]] = field(default_factory=dict)
    """bill -> its row as it is now: see bills.py, for this and the next three."""
    payments: dict[str, list[object]] = field(default_factory=dict)
    refunds: dict[str, list[object]] = field(default_factory=dict)
    postings: list[list[object]] = field(default_factory=list)
    """[bill, version, place, at, account, fen]."""
    due: list[list[object]] = field(default_factory=list)
    """As `errands`, with a fourth: in how many ms."""

    def add(self, other: "More") -> None:
        self.plans |= other.plans
        self.unfree |= other.unfree
        self.held += other.held
        self.moved += other.moved
        self.fates += other.fates
        self.successors += other.successors
        self.coming += other.coming
        self.wishes += other.wishes
        self.yields += other.yields
        self.errands += other.errands
        self.tickets |= other.tickets
        self.bills |= other.bills
        self.payments |= other.payments
        self.refunds |= other.refunds
        self.postings += other.postings
        self.due += other.due


Loss = tuple[Entry, Reason]
"""An entry that may not stand, and what its caller is told."""

Compensate = Callable[[list[Loss]], list[Entry]]
"""Takes the entries whose claims were lost, undoes them in memory, gives the entries that undo them."""

LOST_CLAIM: Final = {
    Scope.DEPARTMENT_DAY: Reason.ALREADY_BOOKED,
    Scope.PATIENT_TIME: Reason.TIME_CONFLICT,
    Scope.MOVE: Reason.CHANGE_GIVEN_UP,
    Scope.WISH: Reason.ALREADY_BOOKED,
}


@dataclass(slots=True)
class Loaded:
    events: list[Any]  # of the actor's own kind
    plan: Plan | None = None  # what the catalog published, for a practitioner's day that has no events yet
    room: RoomPlan | None = None  # the same for a department's


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
    """Applies an event and says what its transaction must write: claims and projections, from the state."""
    match event:
        case s.SeatHeld():
            s.apply(schedule, event)
            return Entry(
                key.stream,
                event,
                now,
                s.claims_of(schedule, event.appointment_id, key.day),
                row=_row(schedule, key, event, now),
                more=_held_for(event),
            )
        case s.SeatBooked():
            appointment = schedule.appointments[event.appointment_id]
            drops = _of_the_past(event.appointment_id, appointment)
            s.apply(schedule, event)
            change = StatusChange(event.appointment_id, s.Status.BOOKED, None, now)
            gains = s.claims_of(schedule, event.appointment_id, key.day)
            entry = Entry(key.stream, event, now, gains, drops, change=change)
            if appointment.replaces:
                # They came with the hold or with the number that was given up. There is no way back from
                # here: one that is missing (the session has moved) is taken if it can be had.
                entry.gains, entry.more = (), More(yields=_yielding(gains))
            if appointment.fate:
                entry.more = _with(entry.more, _affected([event.appointment_id]))
            if appointment.wish_id:
                met: list[object] = [appointment.wish_id.hex(), "met", event.appointment_id.hex()]
                entry.more = _with(entry.more, More(wishes=[met]))
            return entry
        case s.SeatReleased():
            return _enact_release(schedule, key, event, now)
        case s.SeatRestored():
            s.apply(schedule, event)
            change = StatusChange(event.appointment_id, event.status, None, now)
            more = _unfree(schedule, key)
            # Its own again: nobody else could have them meanwhile (see `rivals`); what it lacked it lacks.
            more.yields = _yielding(s.claims_of(schedule, event.appointment_id, key.day))
            return Entry(key.stream, event, now, change=change, more=more)
        case s.AttendanceRecorded():
            appointment = schedule.appointments[event.appointment_id]
            before = s.claims_of(schedule, event.appointment_id, key.day)
            was = appointment.status
            s.apply(schedule, event)
            change = StatusChange(event.appointment_id, event.status, None, now)
            missed = event.status == s.Status.NOSHOW
            gains = before if was is s.Status.NOSHOW else ()
            return Entry(key.stream, event, now, gains, before if missed else (), change=change)
        case _:
            return _enact_the_rest(schedule, key, event, now)


def _enact_release(schedule: s.Schedule, key: ScheduleKey, event: s.SeatReleased, now: int) -> Entry:
    appointment = schedule.appointments[event.appointment_id]
    drops = s.claims_of(schedule, event.appointment_id, key.day)
    gains = s.claims_passed(schedule, event, key.day)
    more = None
    if event.appointment_id in schedule.changes and event.reason != "lost_claim":
        # Whoever gives a change up must be the first to say so: the other side may just be making it.
        until = now + CHANGE_CLAIM_MS
        gains = (Claim(Scope.MOVE, event.appointment_id, event.appointment_id, until),)
        more = More(
            errands=[["change_ended", event.appointment_id.hex(), {"of": appointment.replaces.hex()}]]
        )
    if event.successor:
        more = More(successors=[[event.appointment_id.hex(), event.successor.hex()]])
    if appointment.status is s.Status.ARRIVED:
        room = RoomKey(schedule.slots[appointment.clock].session.department_id, key.day)
        left: list[object] = ["leave_ticket", event.appointment_id.hex(), {"room": room.stream}]
        more = _with(more, More(errands=[left]))
    s.apply(schedule, event)
    change = StatusChange(event.appointment_id, s.Status.CANCELLED, event.reason, now)
    entry = Entry(key.stream, event, now, gains, drops, change=change, more=more)
    if event.cooling_until:
        entry.more = _with(more, _unfree(schedule, key))
    if appointment.wish_id in schedule.wishes and event.reason != "lost_claim":
        entry.more = _with(entry.more, More(wishes=[[appointment.wish_id.hex(), "waiting", None]]))
    return entry


def _of_the_past(appointment_id: bytes, appointment: s.Appointment) -> tuple[Claim, ...]:
    """Claims that have served once the number is booked."""
    drops = []
    if appointment.wish_id:
        drops.append(Claim(Scope.WISH, appointment.wish_id, appointment_id, None))
    if appointment.replaces:
        drops.append(Claim(Scope.MOVE, appointment_id, appointment.replaces, None))
    return tuple(drops)


def _held_for(event: s.SeatHeld) -> More | None:
    if not (event.replaces or event.wish_id or event.by):
        return None
    more = More(
        held=[
            [
                event.appointment_id.hex(),
                event.replaces.hex() or None,
                event.wish_id.hex() or None,
                event.changes,
                event.by,
            ]
        ]
    )
    if event.wish_id:
        more.wishes = [[event.wish_id.hex(), "offered", event.appointment_id.hex()]]
    return more


def _enact_the_rest(schedule: s.Schedule, key: ScheduleKey, event: s.Event, now: int) -> Entry:
    """Changes of the day itself, of fates and of wishes: rare, and each with its own projection."""
    entry = Entry(key.stream, event, now)
    if isinstance(event, s.SessionMoved):
        return _enact_move(schedule, key, event, now)
    fates = _fates(schedule) if isinstance(event, s.SessionStatusSet) else {}
    s.apply(schedule, event)
    match event:
        case s.SessionOpened() | s.SeatsAdded() | s.SessionSubstituted():
            entry.more = More(plans=_plan(schedule, key))
        case s.SeatsBlocked() | s.SeatsUnblocked() | s.CoolingEnded():
            entry.more = _unfree(schedule, key)
        case s.SessionStatusSet():
            after = _fates(schedule)
            changed = [
                appointment_id for appointment_id, fate in after.items() if fate != fates[appointment_id]
            ]
            entry.more = _affected([a for a in changed if after[a] == s.AFFECTED])
            entry.more.fates += [[a.hex(), None, None] for a in changed if not after[a]]
            entry.more.plans = _plan(schedule, key)
        case s.FateDecided():
            entry.more = More(fates=[[event.appointment_id.hex(), event.fate, event.successor.hex() or None]])
        case s.AttendanceConfirmed():
            entry.more = More(coming=[event.appointment_id.hex()])
        case s.WishAdded():
            entry.more = More(wishes=[[event.wish_id.hex(), "waiting", None]])
        case s.WishEnded():
            entry.more = More(
                errands=[["wish_ended", event.wish_id.hex(), {"reason": event.reason, "at": key.stream}]]
            )
        case _:
            pass
    if isinstance(event, s.SessionOpened) or (isinstance(event, s.ScheduleOpened) and schedule.revision):
        # Somebody opened a session by hand; of published days the catalog tells.
        entry.more = _with(entry.more, More(errands=[["match_wishes", key.schedule_id, {}]]))
    return entry


def _enact_move(schedule: s.Schedule, key: ScheduleKey, event: s.SessionMoved, now: int) -> Entry:
    entry = Entry(key.stream, event, now)
    before = {
        appointment_id: s.claims_wanted(schedule.slots[a.clock], a.patient_id, appointment_id, key.day, None)
        for appointment_id, a in schedule.appointments.items()
    }
    s.apply(schedule, event)
    entry.more = More(plans=_plan(schedule, key), unfree=_unfree(schedule, key).unfree)
    clocks = {new for _, new, _ in event.moves}
    for appointment_id, had in before.items():
        appointment = schedule.appointments[appointment_id]
        slot = schedule.slots[appointment.clock]
        if slot.clock not in clocks:
            continue
        # Those that were cancelled go along: they show what became of the slot that they were in.
        entry.more.moved.append([appointment_id.hex(), key.slot_id(slot.clock), slot.starts_at])
        if appointment.status > s.Status.FULFILLED:
            continue
        keys = {(c.scope, c.key) for c in had}
        has = [c for c in s.claims_of(schedule, appointment_id, key.day) if c.scope is not Scope.WISH]
        kept = {(c.scope, c.key) for c in has}
        entry.drops += tuple(c for c in had if c.scope is Scope.PATIENT_TIME and (c.scope, c.key) not in kept)
        # Who has another visit at the new time now has two: the hospital's doing, and no reason to fail.
        entry.more.yields += _yielding(tuple(c for c in has if (c.scope, c.key) not in keys))
    return entry


def _fates(schedule: s.Schedule) -> dict[bytes, str]:
    return {appointment_id: a.fate for appointment_id, a in schedule.appointments.items()}


def _affected(appointment_ids: list[bytes]) -> More:
    """Somebody has to look after these."""
    return More(
        fates=[[a.hex(), s.AFFECTED, None] for a in appointment_ids],
        errands=[["rehome", a.hex(), {}] for a in appointment_ids],
    )


def _yielding(claims: tuple[Claim, ...]) -> list[list[object]]:
    return [[int(c.scope), c.key.hex(), c.owner.hex(), c.expires_at] for c in claims]


def _plan(schedule: s.Schedule, key: ScheduleKey) -> dict[str, list[object]]:
    return {key.schedule_id: plan_as_data(plan_of(schedule.slots))}


def _unfree(schedule: s.Schedule, key: ScheduleKey) -> More:
    return More(unfree={key.schedule_id: s.unfree(schedule)})


def _with(more: More | None, other: More) -> More:
    if more is not None:
        other.add(more)
    return other


def _row(schedule: s.Schedule, key: ScheduleKey, event: s.SeatHeld, now: int) -> AppointmentRow:
    slot = schedule.slots[event.clock]
    schedule_id = key.schedule_id
    return AppointmentRow(
        id=event.appointment_id,
        schedule_id=schedule_id,
        slot_id=f"{schedule_id}-{event.clock}",
        seat=event.seat,
        capacity=slot.capacity,
        number=number_of(slot, event.seat),
        patient_id=event.patient_id,
        account_id=event.account_id,
        status=s.Status.PENDING,
        reason=None,
        fee_fen=slot.session.fee_fen,
        starts_at=slot.starts_at,
        hold_until=event.hold_until,
        at=now,
        department_id=slot.session.department_id,
        number_class_id=slot.session.number_class_id,
        channel=event.channel,
        visit=event.visit,
    )


@dataclass(slots=True)
class Writes:
    """A batch folded into one write a row: what the database sees is the last word on each."""

    gains: dict[tuple[int, bytes], Claim]
    drops: dict[tuple[int, bytes, bytes], Claim]
    rows: dict[bytes, AppointmentRow]
    changes: dict[bytes, StatusChange]
    opened: list[tuple[ScheduleKey, Plan]]
    more: More | None = None


def is_contested(entry: Entry) -> bool:
    """A release that another actor may forestall: the claim says whether it was."""
    return any(claim.scope is Scope.MOVE for claim in entry.gains)


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
        if entry.more is not None:
            if writes.more is None:
                writes.more = More()
            writes.more.add(entry.more)
        if isinstance(entry.event, s.ScheduleOpened):
            writes.opened.append((ScheduleKey.of_stream(entry.stream), entry.event.plan))
    return writes


def rivals(entries: list[Entry]) -> list[Loss]:
    """Entries that want what an earlier entry of the same batch has: a claim, or an appointment's id. With
    one entry of an atom all of it is lost, and what it had is there for others.

    What a change gives back is not there for others before it is known that the change was made."""
    losers = _rivals(entries)
    atoms: dict[int, Reason] = {}
    while more := {entry.atom: reason for entry, reason in losers if entry.atom}:
        atoms |= more
        losers = _rivals([e for e in entries if e.atom not in atoms])
    return [*losers, *((e, atoms[e.atom]) for e in entries if e.atom in atoms)]


def with_atoms(entries: list[Entry], losers: list[Loss]) -> list[Loss]:
    """The losers, and all that stand or fall with them."""
    atoms = {entry.atom: reason for entry, reason in losers if entry.atom}
    if not atoms:
        return losers
    lost = {id(entry) for entry, _ in losers}
    return losers + [(e, atoms[e.atom]) for e in entries if e.atom in atoms and id(e) not in lost]


def _rivals(entries: list[Entry]) -> list[Loss]:
    owners: dict[tuple[int, bytes], bytes] = {}
    ids: set[bytes] = set()
    losers: list[Loss] = []
    kept_back = {
        (claim.scope, claim.key): (claim.owner, *(gain.owner for gain in entry.gains))
        for entry in entries
        if is_contested(entry)
        for claim in entry.drops
    }
    for entry in entries:
        for claim in entry.drops:
            if owners.get((claim.scope, claim.key)) == claim.owner:
                del owners[claim.scope, claim.key]
        if entry.row is not None and entry.row.id in ids:
            losers.append((entry, Reason.KEY_REUSED))
            continue
        taken = [
            c
            for c in entry.gains
            if owners.get((c.scope, c.key), c.owner) != c.owner
            or c.owner not in kept_back.get((c.scope, c.key), (c.owner,))
        ]
        if taken:
            losers.append((entry, LOST_CLAIM[taken[0].scope]))
            continue
        owners.update({(c.scope, c.key): c.owner for c in entry.gains})
        if entry.row is not None:
            ids.add(entry.row.id)
    return losers
