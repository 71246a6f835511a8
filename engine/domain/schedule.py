"""One practitioner's day: who holds which number, and what becomes of it.

Pure: no I/O, no clock, no chance. `decide` says what should happen, `apply` makes it so; replaying the
journal through `apply` rebuilds the state. Times are int milliseconds since the epoch (UTC), ids 16 bytes.

Every seat is exactly one of free, held, booked, blocked, cooling; `conservation_error` recounts that from two
sides. `decide` alone reads the policy; what it decided stands in the event, so `apply` never has to.
"""

import copy
import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, assert_never

from engine.domain import claims, seats, waitlist
from engine.domain.claims import Claim, Scope
from engine.domain.limits import (
    COMMANDS_REMEMBERED,
    GROUP_MAX,
    HOLD_CLAIM_GRACE_MS,
    HOLD_SECONDS_MAX,
    OFFER_SECONDS_MAX,
    SEATS_ADDED_MAX,
    SLOT_CAPACITY_MAX,
    SLOT_MS,
)
from engine.domain.planning import Plan, Session, overlapping
from engine.domain.policy import SELF_SERVICE, Channel, Fate, Policy, Return, Terms
from engine.domain.refusal import Reason, Refusal
from engine.domain.seats import RunningSession, Slot, number_of, run_session
from engine.domain.waitlist import Wish

# Plain ints: what travels and what the store takes; and IntFlag takes its time for every `&`.
MINI_PROGRAM: Final = int(Channel.MINI_PROGRAM)
DOCTOR: Final = int(Channel.DOCTOR)
ALONE: Final = int(SELF_SERVICE)
PRIVILEGED: Final = int(Channel.DOCTOR | Channel.MANAGEMENT)

# Commands: what someone asks for. Each carries the id that makes its retry harmless. `by` names a member of
# staff who asks for somebody else ("" is the account itself): staff are not held to the cut-offs.


@dataclass(frozen=True, slots=True)
class OpenSchedule:
    """Takes the published plan over from the catalog: the first thing that ever happens to a day."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class HoldSeat:
    """A number for a patient. With `replaces` it is the first step of a change: see docs/ARCHITECTURE.md."""

    appointment_id: bytes
    clock: str  # the slot, hhmm
    patient_id: bytes
    account_id: bytes
    hold_seconds: int = 0  # 0: what the policy says
    channel: int = MINI_PROGRAM
    visit: int = 0  # 0 first, 1 follow-up
    by: str = ""
    replaces: bytes = b""  # the booked appointment that is given up for this one
    waives: int = 0  # the shard fills in which claims that one holds and passes on (1 day, 2 time)
    changes: int = 0  # how often this booking has been changed, this change included


@dataclass(frozen=True, slots=True)
class HoldGroup:
    """Numbers at neighbouring times for several people, all or none."""

    members: tuple[tuple[bytes, bytes], ...]  # (appointment, patient)
    clock: str  # where they would like to be
    account_id: bytes
    hold_seconds: int = 0
    channel: int = MINI_PROGRAM
    visit: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True)
class ConfirmAppointment:
    appointment_id: bytes
    account_id: bytes
    by: str = ""


@dataclass(frozen=True, slots=True)
class CancelAppointment:
    appointment_id: bytes
    account_id: bytes
    by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class LeaveFor:
    """The second step of a change: gives the old number up for one that is held already."""

    appointment_id: bytes
    successor: bytes
    account_id: bytes
    to_department: str
    same_day: bool
    to_starts_at: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class SettleChange:
    """The third step, or what ends a change that was left half done. `left` says, from the journal's claim,
    whether the old number was given up."""

    appointment_id: bytes
    left: bool


@dataclass(frozen=True, slots=True)
class ExpireHolds:
    """What time alone brings: holds end, returned numbers come back, wishes end."""


@dataclass(frozen=True, slots=True)
class JoinWaitlist:
    wish_id: bytes
    account_id: bytes
    patient_ids: tuple[bytes, ...]
    clocks: tuple[str, ...]
    priority: int
    since: int
    until: int
    seed: bytes
    replaces: bytes = b""
    waives: int = 0
    visit: int = 0


@dataclass(frozen=True, slots=True)
class LeaveWaitlist:
    wish_id: bytes
    reason: str  # withdrawn | met | lapsed | closed | penalty


@dataclass(frozen=True, slots=True)
class OfferSeats:
    """Gives what is free to whoever waits: one wish at a time, asked again until nothing happens."""


@dataclass(frozen=True, slots=True)
class RecordAttendance:
    appointment_id: bytes
    status: int  # ARRIVED | FULFILLED | NOSHOW | BOOKED (has not arrived after all)
    by: str


@dataclass(frozen=True, slots=True)
class OpenSession:
    command_id: bytes
    expected: int  # the revision that was looked at; -1: whatever it is
    by: str
    note: str
    session: Session


@dataclass(frozen=True, slots=True)
class ChangeCapacity:
    command_id: bytes
    expected: int
    by: str
    note: str
    period: str
    clock: str  # "": every slot of the session that has not begun
    delta: int  # seats a slot, more or fewer


@dataclass(frozen=True, slots=True)
class AddSeats:
    """加号 for a count: seats beyond the plan, for some channels only."""

    command_id: bytes
    expected: int
    by: str
    note: str
    clock: str
    count: int
    channels: int


@dataclass(frozen=True, slots=True)
class AddPatient:
    """加号 for one patient: a seat beyond the plan, booked at once."""

    command_id: bytes
    expected: int
    by: str
    note: str
    clock: str
    appointment_id: bytes
    patient_id: bytes
    account_id: bytes
    visit: int = 0


@dataclass(frozen=True, slots=True)
class MoveSession:
    """Another time of the day, another room, or both."""

    command_id: bytes
    expected: int
    by: str
    note: str
    period: str
    moves: tuple[tuple[str, str, int], ...]  # (clock, new clock, new start); empty: the room alone
    room_id: str | None


@dataclass(frozen=True, slots=True)
class SetSessionStatus:
    """Pause, resume, or call off (停诊)."""

    command_id: bytes
    expected: int
    by: str
    note: str
    period: str
    status: str  # open | paused | suspended
    reason: str  # coded: why


@dataclass(frozen=True, slots=True)
class SubstituteSession:
    """替诊: another practitioner holds the session; whoever is booked is asked to agree."""

    command_id: bytes
    expected: int
    by: str
    note: str
    period: str
    practitioner_id: str | None  # None: the practitioner holds it after all


@dataclass(frozen=True, slots=True)
class ConfirmAttendance:
    """Says that the patient will come."""

    appointment_id: bytes
    account_id: bytes


@dataclass(frozen=True, slots=True)
class ReleaseUnconfirmed:
    """Gives a number back whose patient was asked whether he comes, and did not answer in time."""

    appointment_id: bytes


@dataclass(frozen=True, slots=True)
class AnswerSubstitute:
    appointment_id: bytes
    account_id: bytes
    accepted: bool


@dataclass(frozen=True, slots=True)
class DecideFate:
    """What becomes of a number whose session was called off. Decided once."""

    appointment_id: bytes
    fate: str  # offered | refunded | waitlisted; moved comes with LeaveFor
    successor: bytes = b""  # the appointment or the wish


Structural = (
    OpenSession | ChangeCapacity | AddSeats | AddPatient | MoveSession | SetSessionStatus | SubstituteSession
)
Command = (
    OpenSchedule
    | HoldSeat
    | HoldGroup
    | ConfirmAppointment
    | CancelAppointment
    | LeaveFor
    | SettleChange
    | ExpireHolds
    | JoinWaitlist
    | LeaveWaitlist
    | OfferSeats
    | RecordAttendance
    | ConfirmAttendance
    | ReleaseUnconfirmed
    | AnswerSubstitute
    | DecideFate
    | Structural
)


# Events: what happened. These are the bytes in the journal; fields are only ever added.


@dataclass(frozen=True, slots=True)
class ScheduleOpened:
    plan: Plan


@dataclass(frozen=True, slots=True)
class SeatHeld:
    appointment_id: bytes
    clock: str
    seat: int  # from 0, within the slot
    patient_id: bytes
    account_id: bytes
    hold_until: int
    channel: int = MINI_PROGRAM
    visit: int = 0
    by: str = ""
    replaces: bytes = b""
    waives: int = 0
    changes: int = 0
    wish_id: bytes = b""


@dataclass(frozen=True, slots=True)
class SeatBooked:
    appointment_id: bytes
    by: str = ""


@dataclass(frozen=True, slots=True)
class SeatReleased:
    appointment_id: bytes
    reason: str  # cancelled | excused | expired | changed | suspended | substitute_declined | …
    by: str = ""
    note: str = ""
    cooling_until: int = 0  # the seat is free again from then on; 0: at once
    successor: bytes = b""  # changed: the appointment that came in its place
    passes: int = 0  # changed: claims that go to the successor (1 day, 2 time)


@dataclass(frozen=True, slots=True)
class SeatRestored:
    """A release that lost its claim is undone: as if it had never been."""

    appointment_id: bytes
    status: int


@dataclass(frozen=True, slots=True)
class CoolingEnded:
    clock: str
    seats: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScheduleRevised:
    """Somebody changed the day itself; what exactly follows."""

    command_id: bytes
    by: str
    note: str


@dataclass(frozen=True, slots=True)
class SessionOpened:
    session: Session


@dataclass(frozen=True, slots=True)
class SeatsAdded:
    clock: str
    count: int
    channels: int  # 0: as the slot's first seats
    pool: str = ""


@dataclass(frozen=True, slots=True)
class SeatsBlocked:
    clock: str
    seats: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SeatsUnblocked:
    clock: str
    seats: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SessionMoved:
    period: str
    moves: tuple[tuple[str, str, int], ...]
    room_id: str | None


@dataclass(frozen=True, slots=True)
class SessionStatusSet:
    period: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class SessionSubstituted:
    period: str
    practitioner_id: str | None


@dataclass(frozen=True, slots=True)
class SubstituteAnswered:
    appointment_id: bytes
    accepted: bool


@dataclass(frozen=True, slots=True)
class FateDecided:
    appointment_id: bytes
    fate: str
    successor: bytes = b""


@dataclass(frozen=True, slots=True)
class AttendanceRecorded:
    appointment_id: bytes
    status: int
    by: str


@dataclass(frozen=True, slots=True)
class AttendanceConfirmed:
    appointment_id: bytes


@dataclass(frozen=True, slots=True)
class WishAdded:
    wish_id: bytes
    account_id: bytes
    patient_ids: tuple[bytes, ...]
    clocks: tuple[str, ...]
    priority: int
    since: int
    until: int
    seed: bytes
    replaces: bytes = b""
    waives: int = 0
    visit: int = 0


@dataclass(frozen=True, slots=True)
class WishEnded:
    wish_id: bytes
    reason: str  # met | lapsed | withdrawn | closed | penalty


Event = (
    ScheduleOpened
    | SeatHeld
    | SeatBooked
    | SeatReleased
    | SeatRestored
    | CoolingEnded
    | ScheduleRevised
    | SessionOpened
    | SeatsAdded
    | SeatsBlocked
    | SeatsUnblocked
    | SessionMoved
    | SessionStatusSet
    | SessionSubstituted
    | SubstituteAnswered
    | FateDecided
    | AttendanceRecorded
    | AttendanceConfirmed
    | WishAdded
    | WishEnded
)


# State.


class Status(IntEnum):
    """FHIR's words for an appointment. Up to FULFILLED the seat is taken."""

    PENDING = 1
    BOOKED = 2
    ARRIVED = 3
    FULFILLED = 4
    CANCELLED = 5
    NOSHOW = 6
    WAITLIST = 7


AFFECTED = "affected"
"""The fate, until it is decided, of a booked number whose session was called off."""


@dataclass(slots=True)
class Appointment:
    clock: str
    seat: int
    patient_id: bytes
    account_id: bytes
    hold_until: int
    status: Status = Status.PENDING
    reason: str = ""
    channel: int = MINI_PROGRAM
    visit: int = 0
    replaces: bytes = b""
    waives: int = 0
    changes: int = 0
    wish_id: bytes = b""
    successor: bytes = b""
    fate: str = ""
    consent: bool | None = None  # to a substitute
    will_come: bool = False


@dataclass(slots=True)
class Schedule:
    slots: dict[str, Slot] = field(default_factory=dict)
    appointments: dict[bytes, Appointment] = field(default_factory=dict)
    """Every number ever given on this day, so that a retry finds its first answer."""
    active: dict[bytes, bytes] = field(default_factory=dict)
    """patient + department -> the appointment that holds a seat (the older one, while one is changed)."""
    holds: dict[bytes, int] = field(default_factory=dict)
    """pending appointment -> when it ends by itself."""
    changes: dict[bytes, int] = field(default_factory=dict)
    """The same for seats held for a change from another actor: a claim must settle these, not time alone."""
    cooling: dict[tuple[str, int], int] = field(default_factory=dict)
    """(slot, seat) -> when it may be had again."""
    wishes: dict[bytes, Wish] = field(default_factory=dict)
    wishes_ended: set[bytes] = field(default_factory=set)
    """Those that wait no more, so that a retry does not make them wait again."""
    revision: int = 0
    """How often the day itself was changed."""
    revised_by: str = ""
    commands: dict[bytes, int] = field(default_factory=dict)
    """The last commands that changed the day, and the revision that each made."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller learns when a command succeeded, also the second time."""

    appointment_id: bytes
    clock: str
    number: int
    hold_until: int
    status: int


@dataclass(frozen=True, slots=True)
class Many:
    """The answers of a group, in the order of its members."""

    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Revised:
    """The day was changed."""

    revision: int
    appointment: Answer | None = None  # of an added patient


@dataclass(frozen=True, slots=True)
class Waiting:
    """A wish on this day's waiting list. Position 0: it waits no more."""

    wish_id: bytes
    position: int
    length: int


Reply = Answer | Many | Revised | Waiting

DEFAULT = Policy()
_NO_WISH = 4  # of `waives`: the first of a group holds the wish's claim for all


# Decide: guards, cheapest first, the happy line last. Changes nothing.


def decide(
    schedule: Schedule, command: Command, now: int, policy: Policy = DEFAULT, chance: int = 0
) -> list[Event] | Refusal:
    """`chance` is any number nobody can guess: returned numbers come back at a moment drawn from it."""
    match command:
        case HoldSeat():
            return _hold_seat(schedule, command, now, policy, chance)
        case ConfirmAppointment():
            return _confirm(schedule, command, now)
        case CancelAppointment():
            return _cancel(schedule, command, now, policy, chance)
        case ExpireHolds():
            return _expired(schedule, now, policy, chance)
        case HoldGroup():
            return _without_ended(schedule, command, now, policy, chance)
        case LeaveFor():
            return _leave(schedule, command, now, policy, chance)
        case SettleChange():
            return _settle(schedule, command, now, policy, chance)
        case JoinWaitlist():
            return _join(schedule, command, now, policy)
        case LeaveWaitlist():
            return [WishEnded(command.wish_id, command.reason)] if command.wish_id in schedule.wishes else []
        case OfferSeats():
            return _offer(schedule, now, policy)
        case RecordAttendance():
            return _attend(schedule, command, now)
        case ConfirmAttendance():
            return _confirm_attendance(schedule, command, now)
        case ReleaseUnconfirmed():
            return _release_unconfirmed(schedule, command, now, policy, chance)
        case AnswerSubstitute():
            return _answer_substitute(schedule, command, now, policy, chance)
        case DecideFate():
            return _decide_fate(schedule, command)
        case OpenSchedule():
            return [] if schedule.slots else [ScheduleOpened(command.plan)]
        case (
            OpenSession()
            | ChangeCapacity()
            | AddSeats()
            | AddPatient()
            | MoveSession()
            | SetSessionStatus()
            | SubstituteSession()
        ):
            return _without_ended(schedule, command, now, policy, chance)
        case _:
            assert_never(command)


def _without_ended(
    schedule: Schedule, command: HoldGroup | Structural, now: int, policy: Policy, chance: int
) -> list[Event] | Refusal:
    """Read-time expiry for what is rare: as if the sweeper had come by, on a copy where it matters."""
    ended = _expired(schedule, now, policy, chance)
    if ended:
        schedule = copy.deepcopy(schedule)
        for event in ended:
            apply(schedule, event)
    if isinstance(command, HoldGroup):
        outcome = _hold_group(schedule, command, now, policy)
    else:
        outcome = _revise(schedule, command, now)
    return [*ended, *outcome] if outcome and not isinstance(outcome, Refusal) else outcome


def _hold_seat(
    schedule: Schedule, command: HoldSeat, now: int, policy: Policy, chance: int
) -> list[Event] | Refusal:
    known = schedule.appointments.get(command.appointment_id)
    if known is not None:
        same = (
            known.patient_id == command.patient_id
            and known.replaces == command.replaces
            and (known.clock == command.clock or command.clock in schedule.slots[known.clock].formerly)
        )
        return [] if same else Refusal(Reason.KEY_REUSED)
    slot = schedule.slots.get(command.clock)
    if slot is None:
        return Refusal(Reason.NO_SUCH_SLOT)
    session = slot.session
    terms = policy.terms_of(session.department_id, session.number_class_id)
    closed = _closed(slot, command.channel, now, terms)
    if closed is not None:
        return closed
    limit = terms.follow_ups_max if command.visit else terms.first_visits_max
    if limit is not None and _visits(schedule, session, command.visit, now) >= limit:
        return Refusal(Reason.VISIT_LIMIT, {"limit": limit})
    owner = schedule.active.get(_active_key(command.patient_id, slot))
    if owner == command.replaces:
        owner = None
    open_seats = seats.seats_for(slot, command.channel, now)
    among = open_seats & ~(slot.taken | slot.blocked | slot.cooling)
    events: list[Event] = []
    if owner is not None or not among:
        # Read-time expiry: a hold that has ended is free, whether or not the sweeper has come by.
        for appointment_id, until in schedule.holds.items():
            if until > now:
                continue
            appointment = schedule.appointments[appointment_id]
            if appointment_id != owner and appointment.clock != command.clock:
                continue
            released = _ended(schedule, appointment_id, now, policy, chance)
            events.append(released)
            events += _lapse(schedule, appointment_id, "expired")
            if appointment_id == owner:
                owner = None
            if appointment.clock == command.clock and not released.cooling_until:
                among |= 1 << appointment.seat & open_seats
        if owner is not None:
            return Refusal(Reason.ALREADY_BOOKED, {"appointment_id": owner.hex()})
        ended = _cooled(schedule, slot, now)
        if ended:
            events.append(CoolingEnded(slot.clock, tuple(seats.indices(ended))))
            among |= ended & open_seats
    if schedule.wishes:
        among = _unclaimed(schedule, slot, command.channel, among, now, terms)
    seat = seats.choose(slot, command.channel, now, among)
    if seat < 0:
        return _full(slot, command.channel, now, open_seats)
    events.append(
        SeatHeld(
            command.appointment_id,
            command.clock,
            seat,
            command.patient_id,
            command.account_id,
            _hold_until(slot, command, now, terms),
            command.channel,
            command.visit,
            command.by,
            command.replaces,
            command.waives,
            command.changes,
        )
    )
    return events


def _closed(slot: Slot, channel: int, now: int, terms: Terms) -> Refusal | None:
    """Why nobody may book here now, however many seats are free."""
    alone = channel & ALONE
    if (slot.starts_at if alone else slot.starts_at + SLOT_MS) <= now:
        return Refusal(Reason.SLOT_PAST)
    session = slot.session
    if session.status != "open":
        return Refusal(Reason.SESSION_PAUSED if session.status == "paused" else Reason.SESSION_SUSPENDED)
    if alone and slot.starts_at - terms.closes_minutes * 60_000 <= now:
        return Refusal(Reason.BOOKING_CLOSED)
    return None


def _visits(schedule: Schedule, session: RunningSession, visit: int, now: int) -> int:
    """First visits, or follow-ups, that have a seat of this session. A hold that has ended has none."""
    ended = sum(
        until <= now
        and (appointment := schedule.appointments[appointment_id]).visit == visit
        and schedule.slots[appointment.clock].session is session
        for appointment_id, until in schedule.holds.items()
    )
    return session.visits[visit] - ended


def _full(slot: Slot, channel: int, now: int, open_seats: int) -> Refusal:
    """No seat: because none is left, or because none is released to this channel yet."""
    at = None if open_seats else seats.opens_at(slot, channel, now)
    return Refusal(Reason.SLOT_FULL) if at is None else Refusal(Reason.NOT_RELEASED, {"opens_at": at})


def _hold_until(slot: Slot, command: HoldSeat | HoldGroup, now: int, terms: Terms) -> int:
    seconds = command.hold_seconds or terms.hold_seconds
    if seconds > HOLD_SECONDS_MAX:
        changing = isinstance(command, HoldSeat) and command.replaces
        seconds = min(seconds, OFFER_SECONDS_MAX if changing else HOLD_SECONDS_MAX)
    last = slot.starts_at if command.channel & ALONE else slot.starts_at + SLOT_MS
    ends = now + seconds * 1000
    return ends if ends < last else last


def _hold_group(schedule: Schedule, command: HoldGroup, now: int, policy: Policy) -> list[Event] | Refusal:
    known = [schedule.appointments.get(appointment_id) for appointment_id, _ in command.members]
    if any(a is not None for a in known):
        same = all(
            a is not None and a.patient_id == patient_id
            for a, (_, patient_id) in zip(known, command.members, strict=True)
        )
        return [] if same else Refusal(Reason.KEY_REUSED)
    patients = {patient_id for _, patient_id in command.members}
    if not 0 < len(patients) == len(command.members) <= GROUP_MAX:
        return Refusal(Reason.TOO_LARGE, {"limit": GROUP_MAX})
    first = schedule.slots.get(command.clock)
    if first is None:
        return Refusal(Reason.NO_SUCH_SLOT)
    terms = policy.terms_of(first.session.department_id, first.session.number_class_id)
    closed = _closed(first, command.channel, now, terms)
    if closed is not None:
        return closed
    limit = terms.follow_ups_max if command.visit else terms.first_visits_max
    if limit is not None and first.session.visits[command.visit] + len(command.members) > limit:
        return Refusal(Reason.VISIT_LIMIT, {"limit": limit})
    for _, patient_id in command.members:
        owner = schedule.active.get(_active_key(patient_id, first))
        if owner is not None:
            return Refusal(
                Reason.ALREADY_BOOKED, {"appointment_id": owner.hex(), "patient_id": patient_id.hex()}
            )
    found = waitlist.together(
        schedule.slots.values(),
        first,
        len(command.members),
        command.channel,
        now,
        {
            slot.clock: 0
            if _closed(slot, command.channel, now, terms)
            else _unclaimed(
                schedule,
                slot,
                command.channel,
                seats.seats_for(slot, command.channel, now) & seats.free(slot),
                now,
                terms,
            )
            for slot in schedule.slots.values()
            if slot.session is first.session
        },
    )
    if found is None:
        return Refusal(Reason.GROUP_DOES_NOT_FIT)
    return [
        SeatHeld(
            appointment_id,
            slot.clock,
            seat,
            patient_id,
            command.account_id,
            _hold_until(slot, command, now, terms),
            command.channel,
            command.visit,
            command.by,
        )
        for (appointment_id, patient_id), (slot, seat) in zip(command.members, found, strict=True)
    ]


def _unclaimed(schedule: Schedule, slot: Slot, channel: int, among: int, now: int, terms: Terms) -> int:
    """Those of the seats `among` that nobody who waits will be offered: who waits comes first. A doctor's and
    the management's numbers are others."""
    if not among or not schedule.wishes or channel & PRIVILEGED:
        return among
    contested = among & seats.seats_for(slot, MINI_PROGRAM, now)
    if not contested:
        return among
    wanted = 0
    for wish in schedule.wishes.values():
        if _could_have(schedule, wish, slot, now, terms) and (
            len(wish.patient_ids) == 1 or _places(schedule, wish, slot, now, terms, {slot.clock: contested})
        ):
            wanted += len(wish.patient_ids)
    return among if contested.bit_count() > wanted else among & ~contested


def _confirm(schedule: Schedule, command: ConfirmAppointment, now: int) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None or appointment.account_id != command.account_id:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if Status.BOOKED <= appointment.status <= Status.FULFILLED:
        return []
    if appointment.status is not Status.PENDING:
        expired = appointment.reason == "expired"
        return Refusal(Reason.HOLD_EXPIRED if expired else Reason.ALREADY_CANCELLED)
    if appointment.hold_until <= now:
        return Refusal(Reason.HOLD_EXPIRED)
    if appointment.replaces:
        return Refusal(Reason.CHANGE_UNSETTLED)
    return _booked(schedule, command.appointment_id, command.by)


def _booked(schedule: Schedule, appointment_id: bytes, by: str = "") -> list[Event]:
    """A number that was offered to somebody who waited meets the wish."""
    wish_id = schedule.appointments[appointment_id].wish_id
    ends = [WishEnded(wish_id, "met")] if wish_id in schedule.wishes else []
    return [SeatBooked(appointment_id, by), *ends]


def _cancel(
    schedule: Schedule, command: CancelAppointment, now: int, policy: Policy, chance: int
) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None or appointment.account_id != command.account_id:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.status in (Status.CANCELLED, Status.NOSHOW):
        return []
    if appointment.status is Status.FULFILLED:
        return Refusal(Reason.WRONG_STATE, {"status": appointment.status})
    slot = schedule.slots[appointment.clock]
    if slot.starts_at <= now:
        return Refusal(Reason.SLOT_PAST)
    terms = policy.terms_of(slot.session.department_id, slot.session.number_class_id)
    last = slot.starts_at - terms.cancel_minutes * 60_000
    if not command.by and appointment.status is not Status.PENDING and last <= now and not _is_excused(slot):
        return Refusal(Reason.CANCEL_TOO_LATE, {"until": last})
    expired = appointment.status is Status.PENDING and appointment.hold_until <= now
    # Whom the hospital itself has put out has given nothing back that he should be blamed for.
    freely = "excused" if appointment.status is Status.BOOKED and _is_excused(slot) else "cancelled"
    reason = "expired" if expired else freely
    released = _release(
        schedule, command.appointment_id, reason, now, terms, chance, command.by, command.note
    )
    fate = [FateDecided(command.appointment_id, Fate.REFUNDED)] if _is_affected(appointment) else []
    return [
        *fate,
        released,
        *_lapse(schedule, command.appointment_id, reason),
        *([] if expired else _rest_of_the_offer(schedule, command, now, policy, chance)),
    ]


def _rest_of_the_offer(
    schedule: Schedule, command: CancelAppointment, now: int, policy: Policy, chance: int
) -> list[Event]:
    """A group is offered its seats together and declines them together."""
    wish = schedule.wishes.get(schedule.appointments[command.appointment_id].wish_id)
    if wish is None or command.appointment_id not in wish.offered:
        return []
    found: list[Event] = []
    for appointment_id in wish.offered:
        if appointment_id != command.appointment_id:
            session = schedule.slots[schedule.appointments[appointment_id].clock].session
            terms = policy.terms_of(session.department_id, session.number_class_id)
            found.append(
                _release(schedule, appointment_id, "cancelled", now, terms, chance, command.by, command.note)
            )
    return found


def _is_excused(slot: Slot) -> bool:
    """The hospital itself changed the session: whoever cannot come then may cancel to the last."""
    return slot.session.status == "suspended" or slot.session.substitute_id is not None or bool(slot.formerly)


def _is_affected(appointment: Appointment) -> bool:
    return appointment.fate in (AFFECTED, Fate.OFFERED)


def _lapse(schedule: Schedule, appointment_id: bytes, reason: str) -> list[Event]:
    """An offer that nobody took up ends its wish; one that was declined leaves it waiting."""
    wish = schedule.wishes.get(schedule.appointments[appointment_id].wish_id)
    if wish is None or reason != "expired" or wish.offered[:1] != [appointment_id]:
        return []
    return [WishEnded(wish.wish_id, "lapsed")]


def _release(
    schedule: Schedule,
    appointment_id: bytes,
    reason: str,
    now: int,
    terms: Terms,
    chance: int,
    by: str = "",
    note: str = "",
) -> SeatReleased:
    """The policy says when the seat may be had again; who waits for it does not have to wait for that."""
    appointment = schedule.appointments[appointment_id]
    slot = schedule.slots[appointment.clock]
    returned = terms.returned
    until = 0
    if (
        returned.mode is not Return.AT_ONCE
        and slot.starts_at > now
        and not any(_could_have(schedule, wish, slot, now, terms) for wish in schedule.wishes.values())
    ):
        until = now + returned.seconds_min * 1000
        if returned.mode is Return.RANDOM:
            window = max(1, (returned.seconds_max - returned.seconds_min) * 1000)
            drawn = hashlib.blake2b(appointment_id, digest_size=8, key=chance.to_bytes(8, "big")).digest()
            until += int.from_bytes(drawn, "big") % window
    return SeatReleased(appointment_id, reason, by, note, until if until > now else 0)


def _ended(schedule: Schedule, appointment_id: bytes, now: int, policy: Policy, chance: int) -> SeatReleased:
    session = schedule.slots[schedule.appointments[appointment_id].clock].session
    terms = policy.terms_of(session.department_id, session.number_class_id)
    return _release(schedule, appointment_id, "expired", now, terms, chance)


def _could_have(schedule: Schedule, wish: Wish, slot: Slot, now: int, terms: Terms) -> bool:
    """Whether this slot may be offered to this wish now, if it has seats."""
    limit = terms.follow_ups_max if wish.visit else terms.first_visits_max
    return (
        terms.waitlist.enabled
        and waitlist.fits(wish, slot, now, terms.waitlist.closes_minutes * 60_000)
        and (limit is None or slot.session.visits[wish.visit] + len(wish.patient_ids) <= limit)
        and all(
            schedule.active.get(_active_key(patient_id, slot), wish.replaces) == wish.replaces
            for patient_id in wish.patient_ids
        )
    )


def _cooled(schedule: Schedule, slot: Slot, now: int) -> int:
    """Seats of a slot whose time to cool has passed."""
    if not slot.cooling:
        return 0
    return seats.bits(
        [s for (clock, s), until in schedule.cooling.items() if clock == slot.clock and until <= now]
    )


def _expired(schedule: Schedule, now: int, policy: Policy, chance: int) -> list[Event]:
    events: list[Event] = []
    for appointment_id, until in schedule.holds.items():
        if until <= now:
            events.append(_ended(schedule, appointment_id, now, policy, chance))
            events += _lapse(schedule, appointment_id, "expired")
    if schedule.cooling:
        for slot in schedule.slots.values():
            if ended := _cooled(schedule, slot, now):
                events.append(CoolingEnded(slot.clock, tuple(seats.indices(ended))))
    events += [
        WishEnded(w.wish_id, "closed") for w in schedule.wishes.values() if w.until <= now and not w.offered
    ]
    return events


def _leave(
    schedule: Schedule, command: LeaveFor, now: int, policy: Policy, chance: int
) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None or appointment.account_id != command.account_id:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.reason == "changed" and appointment.successor == command.successor:
        return []
    if appointment.status is Status.PENDING:
        return Refusal(Reason.NOT_BOOKED)
    # Who has come in vain to a session that is called off may go elsewhere.
    arrived = appointment.status is Status.ARRIVED and _is_affected(appointment)
    if appointment.status is not Status.BOOKED and not arrived:
        return Refusal(Reason.ALREADY_CANCELLED)
    slot = schedule.slots[appointment.clock]
    terms = policy.terms_of(slot.session.department_id, slot.session.number_class_id)
    if not command.by and not _is_affected(appointment) and not _is_excused(slot):
        last = slot.starts_at - terms.change_minutes * 60_000
        if last <= now:
            return Refusal(Reason.CHANGE_TOO_LATE, {"until": last})
        if appointment.changes >= terms.changes_max:
            return Refusal(Reason.TOO_MANY_CHANGES, {"limit": terms.changes_max})
    here = schedule.appointments.get(command.successor)
    if here is not None and (
        here.status is not Status.PENDING
        or here.hold_until <= now
        or here.replaces != command.appointment_id
        or here.patient_id != appointment.patient_id
    ):
        return Refusal(Reason.CHANGE_GIVEN_UP)
    passes = int(command.same_day and command.to_department == slot.session.department_id) | 2 * int(
        command.to_starts_at == slot.starts_at
    )
    plain = _release(schedule, command.appointment_id, "changed", now, terms, chance, command.by)
    released = SeatReleased(
        plain.appointment_id, plain.reason, plain.by, "", plain.cooling_until, command.successor, passes
    )
    fate = (
        [FateDecided(command.appointment_id, Fate.MOVED, command.successor)]
        if _is_affected(appointment)
        else []
    )
    booked = [] if here is None else _booked(schedule, command.successor, command.by)
    return [*fate, released, *booked]


def _settle(
    schedule: Schedule, command: SettleChange, now: int, policy: Policy, chance: int
) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.status is not Status.PENDING:
        return []
    if command.left:
        return _booked(schedule, command.appointment_id)
    if appointment.hold_until > now:
        return []
    return [
        _ended(schedule, command.appointment_id, now, policy, chance),
        *_lapse(schedule, command.appointment_id, "expired"),
    ]


def _join(schedule: Schedule, command: JoinWaitlist, now: int, policy: Policy) -> list[Event] | Refusal:
    if command.wish_id in schedule.wishes or command.wish_id in schedule.wishes_ended:
        return []
    if not 0 < len(set(command.patient_ids)) == len(command.patient_ids) <= GROUP_MAX:
        return Refusal(Reason.TOO_LARGE, {"limit": GROUP_MAX})
    if command.replaces and len(command.patient_ids) > 1:
        return Refusal(Reason.TOO_LARGE, {"limit": 1})
    slots = [s for s in schedule.slots.values() if not command.clocks or s.clock in command.clocks]
    if not slots:
        return Refusal(Reason.NO_SUCH_SLOT)
    found = [policy.terms_of(s.session.department_id, s.session.number_class_id).waitlist for s in slots]
    still = [
        s for s, terms in zip(slots, found, strict=True)
        if terms.enabled and now < s.starts_at - terms.closes_minutes * 60_000
    ]  # fmt: skip
    if not still or command.until <= now:
        return Refusal(Reason.WAITLIST_CLOSED)
    if len(schedule.wishes) >= max(terms.length_max for terms in found):
        return Refusal(Reason.WAITLIST_FULL, {"limit": max(terms.length_max for terms in found)})
    return [
        WishAdded(
            command.wish_id,
            command.account_id,
            command.patient_ids,
            command.clocks,
            command.priority,
            command.since,
            command.until,
            command.seed,
            command.replaces,
            command.waives,
            command.visit,
        )
    ]


def _offer(schedule: Schedule, now: int, policy: Policy) -> list[Event]:
    """Seats for the first in the queue for whom there are any."""
    free = _offerable(schedule, now, policy)
    if not free:
        return []
    by_time = sorted(schedule.slots.values(), key=lambda slot: slot.starts_at)
    for wish in waitlist.queue(wish for wish in schedule.wishes.values() if not wish.offered):
        for slot in by_time:
            terms = policy.terms_of(slot.session.department_id, slot.session.number_class_id)
            if not _could_have(schedule, wish, slot, now, terms):
                continue
            found = _places(schedule, wish, slot, now, terms, free)
            if found is None:
                continue
            until = now + terms.waitlist.offer_seconds * 1000
            return [
                SeatHeld(
                    waitlist.offer_id(wish, member),
                    where.clock,
                    seat,
                    patient_id,
                    wish.account_id,
                    min(until, where.starts_at),
                    visit=wish.visit,
                    replaces=wish.replaces,
                    waives=wish.waives | (_NO_WISH if member else 0),
                    wish_id=wish.wish_id,
                )
                for member, (patient_id, (where, seat)) in enumerate(
                    zip(wish.patient_ids, found, strict=True)
                )
            ]
    return []


def _offerable(schedule: Schedule, now: int, policy: Policy) -> dict[str, int]:
    """Free seats for those who wait, by slot; slots without one are left out."""
    found = {
        clock: seats.seats_for(slot, MINI_PROGRAM, now) & seats.free(slot)
        for clock, slot in schedule.slots.items()
        if slot.starts_at > now
    }
    return {clock: mask for clock, mask in found.items() if mask}


def _places(
    schedule: Schedule, wish: Wish, slot: Slot, now: int, terms: Terms, free: dict[str, int]
) -> list[tuple[Slot, int]] | None:
    """Seats for all of a wish in and around a slot. `free`: seats by slot; what is missing is looked up."""
    if len(wish.patient_ids) == 1:
        seat = seats.choose(slot, MINI_PROGRAM, now, free.get(slot.clock, 0))
        return None if seat < 0 else [(slot, seat)]
    usable = {
        each.clock: free[each.clock]
        if each.clock in free
        else seats.seats_for(each, MINI_PROGRAM, now) & seats.free(each)
        for each in schedule.slots.values()
        if each.session is slot.session
        and waitlist.fits(wish, each, now, terms.waitlist.closes_minutes * 60_000)
    }
    return waitlist.together(schedule.slots.values(), slot, len(wish.patient_ids), MINI_PROGRAM, now, usable)


_ATTENDANCE: dict[int, tuple[Status, ...]] = {
    Status.ARRIVED: (Status.BOOKED, Status.NOSHOW),
    Status.FULFILLED: (Status.ARRIVED, Status.BOOKED),
    Status.NOSHOW: (Status.BOOKED,),
    Status.BOOKED: (Status.ARRIVED,),
}
"""Status -> those that it may follow."""


def _attend(schedule: Schedule, command: RecordAttendance, now: int) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.status == command.status:
        return []
    if appointment.status not in _ATTENDANCE.get(command.status, ()):
        return Refusal(Reason.WRONG_STATE, {"status": appointment.status})
    if _is_affected(appointment):
        return Refusal(Reason.SESSION_SUSPENDED)
    slot = schedule.slots[appointment.clock]
    if command.status == Status.NOSHOW and now < slot.starts_at:
        return Refusal(Reason.WRONG_STATE, {"status": appointment.status})
    if appointment.status is Status.NOSHOW:
        if not seats.free(slot) >> appointment.seat & 1:
            return Refusal(Reason.SLOT_FULL)
        owner = schedule.active.get(_active_key(appointment.patient_id, slot))
        if owner is not None:
            return Refusal(Reason.ALREADY_BOOKED, {"appointment_id": owner.hex()})
    return [AttendanceRecorded(command.appointment_id, command.status, command.by)]


def _confirm_attendance(schedule: Schedule, command: ConfirmAttendance, now: int) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None or appointment.account_id != command.account_id:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.will_come:
        return []
    if appointment.status is not Status.BOOKED:
        return Refusal(Reason.WRONG_STATE, {"status": appointment.status})
    if schedule.slots[appointment.clock].starts_at <= now:
        return Refusal(Reason.SLOT_PAST)
    return [AttendanceConfirmed(command.appointment_id)]


def _release_unconfirmed(
    schedule: Schedule, command: ReleaseUnconfirmed, now: int, policy: Policy, chance: int
) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.status is not Status.BOOKED or appointment.will_come or appointment.fate:
        return []
    slot = schedule.slots[appointment.clock]
    terms = policy.terms_of(slot.session.department_id, slot.session.number_class_id)
    asked = terms.attendance
    if asked is None or not slot.starts_at - asked.by_minutes * 60_000 <= now < slot.starts_at:
        return []
    return [_release(schedule, command.appointment_id, "unconfirmed", now, terms, chance)]


def _answer_substitute(
    schedule: Schedule, command: AnswerSubstitute, now: int, policy: Policy, chance: int
) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None or appointment.account_id != command.account_id:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.consent is command.accepted:
        return []
    slot = schedule.slots[appointment.clock]
    if slot.session.substitute_id is None:
        return Refusal(Reason.NO_SUBSTITUTE)
    if appointment.status is not Status.BOOKED:
        return Refusal(Reason.WRONG_STATE, {"status": appointment.status})
    if slot.starts_at <= now:
        return Refusal(Reason.SLOT_PAST)
    answered = SubstituteAnswered(command.appointment_id, command.accepted)
    if command.accepted:
        return [answered]
    terms = policy.terms_of(slot.session.department_id, slot.session.number_class_id)
    fate = [FateDecided(command.appointment_id, Fate.REFUNDED)] if _is_affected(appointment) else []
    released = _release(schedule, command.appointment_id, "substitute_declined", now, terms, chance)
    return [answered, *fate, released]


def _decide_fate(schedule: Schedule, command: DecideFate) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if command.fate not in (Fate.OFFERED, Fate.REFUNDED, Fate.WAITLISTED):
        return Refusal(Reason.WRONG_STATE, {"fate": command.fate})
    if not appointment.fate:
        return Refusal(Reason.NOT_SUSPENDED)
    if (appointment.fate, appointment.successor) == (command.fate, command.successor):
        return []
    if not _is_affected(appointment):
        return Refusal(Reason.FATE_DECIDED, {"fate": appointment.fate})
    decided = FateDecided(command.appointment_id, command.fate, command.successor)
    if command.fate == Fate.OFFERED:
        return [decided]
    return [decided, SeatReleased(command.appointment_id, "suspended")]


# Changes of the day itself.


def _revise(schedule: Schedule, command: Structural, now: int) -> list[Event] | Refusal:
    if command.command_id in schedule.commands:
        taken_back = isinstance(command, AddPatient) and command.appointment_id not in schedule.appointments
        return Refusal(Reason.ALREADY_BOOKED) if taken_back else []
    if command.expected not in (-1, schedule.revision):
        return Refusal(Reason.STALE_REVISION, {"revision": schedule.revision, "by": schedule.revised_by})
    match command:
        case OpenSession():
            outcome = _open_session(schedule, command, now)
        case ChangeCapacity():
            outcome = _change_capacity(schedule, command, now)
        case AddSeats():
            outcome = _add_seats(schedule, command.clock, command.count, command.channels, now)
        case AddPatient():
            outcome = _add_patient(schedule, command, now)
        case MoveSession():
            outcome = _move_session(schedule, command, now)
        case SetSessionStatus():
            outcome = _set_status(schedule, command, now)
        case SubstituteSession():
            outcome = _substitute(schedule, command, now)
        case _:
            assert_never(command)
    if isinstance(outcome, Refusal):
        return outcome
    return [ScheduleRevised(command.command_id, command.by, command.note), *outcome]


def _open_session(schedule: Schedule, command: OpenSession, now: int) -> list[Event] | Refusal:
    session = command.session
    if not session.slots or min(slot.starts_at for slot in session.slots) <= now:
        return Refusal(Reason.IN_THE_PAST)
    if any(not 0 < slot.capacity <= SLOT_CAPACITY_MAX for slot in session.slots):
        return Refusal(Reason.TOO_LARGE, {"limit": SLOT_CAPACITY_MAX})
    mine = _slots_of(schedule, session.period)
    if mine and mine[0].session.status == "suspended":
        return Refusal(Reason.SESSION_SUSPENDED)
    if mine and (mine[0].session.department_id, mine[0].session.number_class_id, mine[0].session.fee_fen) != (
        session.department_id,
        session.number_class_id,
        session.fee_fen,
    ):
        return Refusal(Reason.SESSIONS_OVERLAP, {"period": session.period})
    clash = overlapping((*seats.plan_of(schedule.slots), session))
    if clash is not None:
        return Refusal(Reason.SESSIONS_OVERLAP, {"clock": clash[0].clock, "other": clash[1].clock})
    if not schedule.slots:
        return [ScheduleOpened((session,))]
    return [SessionOpened(session)]


def _change_capacity(schedule: Schedule, command: ChangeCapacity, now: int) -> list[Event] | Refusal:
    mine = _slots_of(schedule, command.period)
    if not mine:
        return Refusal(Reason.NO_SUCH_SESSION)
    chosen = [s for s in mine if s.clock == command.clock or not command.clock]
    if not chosen:
        return Refusal(Reason.NO_SUCH_SLOT)
    ahead = [s for s in chosen if s.starts_at > now]
    if not ahead:
        return Refusal(Reason.IN_THE_PAST)
    events: list[Event] = []
    for slot in ahead:
        if command.delta < 0:
            free = seats.indices(seats.free(slot) | slot.cooling)
            if len(free) < -command.delta:
                least = slot.taken.bit_count()
                return Refusal(Reason.BELOW_SOLD, {"clock": slot.clock, "sold": least})
            events.append(SeatsBlocked(slot.clock, tuple(free[command.delta :])))
            continue
        again = seats.indices(slot.blocked)[: command.delta]
        if again:
            events.append(SeatsUnblocked(slot.clock, tuple(again)))
        more = command.delta - len(again)
        if more > SEATS_ADDED_MAX or slot.capacity + more > SLOT_CAPACITY_MAX:
            return Refusal(Reason.TOO_LARGE, {"limit": SEATS_ADDED_MAX})
        if more:
            events.append(SeatsAdded(slot.clock, more, 0))
    return events


def _add_seats(schedule: Schedule, clock: str, count: int, channels: int, now: int) -> list[Event] | Refusal:
    slot = schedule.slots.get(clock)
    if slot is None:
        return Refusal(Reason.NO_SUCH_SLOT)
    if slot.starts_at + SLOT_MS <= now:
        return Refusal(Reason.IN_THE_PAST)
    if slot.session.status == "suspended":
        return Refusal(Reason.SESSION_SUSPENDED)
    if not 0 < count <= SEATS_ADDED_MAX or slot.capacity + count > SLOT_CAPACITY_MAX:
        return Refusal(Reason.TOO_LARGE, {"limit": SEATS_ADDED_MAX})
    return [SeatsAdded(clock, count, channels, "added")]


def _add_patient(schedule: Schedule, command: AddPatient, now: int) -> list[Event] | Refusal:
    if command.appointment_id in schedule.appointments:
        return Refusal(Reason.KEY_REUSED)
    added = _add_seats(schedule, command.clock, 1, DOCTOR, now)
    if isinstance(added, Refusal):
        return added
    slot = schedule.slots[command.clock]
    owner = schedule.active.get(_active_key(command.patient_id, slot))
    if owner is not None:
        return Refusal(Reason.ALREADY_BOOKED, {"appointment_id": owner.hex()})
    return [
        *added,
        SeatHeld(
            command.appointment_id,
            command.clock,
            slot.capacity,
            command.patient_id,
            command.account_id,
            slot.starts_at + SLOT_MS,
            DOCTOR,
            command.visit,
            command.by,
        ),
        SeatBooked(command.appointment_id, command.by),
    ]


def _move_session(schedule: Schedule, command: MoveSession, now: int) -> list[Event] | Refusal:
    mine = _slots_of(schedule, command.period)
    if not mine:
        return Refusal(Reason.NO_SUCH_SESSION)
    moved = SessionMoved(command.period, command.moves, command.room_id)
    if not command.moves:
        return [moved]
    if min(slot.starts_at for slot in mine) <= now or min(at for _, _, at in command.moves) <= now:
        return Refusal(Reason.IN_THE_PAST)
    if sorted(clock for clock, _, _ in command.moves) != sorted(slot.clock for slot in mine):
        return Refusal(Reason.NO_SUCH_SLOT)
    others = [(s.clock, s.starts_at) for s in schedule.slots.values() if s.session.period != command.period]
    clocks = [*(clock for clock, _ in others), *(new for _, new, _ in command.moves)]
    if len(set(clocks)) < len(clocks):
        return Refusal(Reason.SESSIONS_OVERLAP)
    times = sorted([*others, *((clock, at) for _, clock, at in command.moves)], key=lambda each: each[1])
    for (clock, at), (other, later) in zip(times, times[1:], strict=False):
        if later < at + SLOT_MS:
            return Refusal(Reason.SESSIONS_OVERLAP, {"clock": clock, "other": other})
    return [moved]


def _set_status(schedule: Schedule, command: SetSessionStatus, now: int) -> list[Event] | Refusal:
    mine = _slots_of(schedule, command.period)
    if not mine:
        return Refusal(Reason.NO_SUCH_SESSION)
    if max(slot.starts_at for slot in mine) + SLOT_MS <= now:
        return Refusal(Reason.IN_THE_PAST)
    if command.status not in ("open", "paused", "suspended"):
        return Refusal(Reason.WRONG_STATE, {"status": command.status})
    events: list[Event] = [SessionStatusSet(command.period, command.status, command.reason)]
    if command.status == "suspended":
        # Nobody has paid for these yet, so nobody has to be looked after.
        clocks = {slot.clock for slot in mine}
        events += [
            SeatReleased(appointment_id, "suspended", command.by)
            for appointment_id in schedule.holds
            if schedule.appointments[appointment_id].clock in clocks
        ]
    return events


def _substitute(schedule: Schedule, command: SubstituteSession, now: int) -> list[Event] | Refusal:
    mine = _slots_of(schedule, command.period)
    if not mine:
        return Refusal(Reason.NO_SUCH_SESSION)
    if max(slot.starts_at for slot in mine) + SLOT_MS <= now:
        return Refusal(Reason.IN_THE_PAST)
    if mine[0].session.status == "suspended":
        return Refusal(Reason.SESSION_SUSPENDED)
    return [SessionSubstituted(command.period, command.practitioner_id)]


def _slots_of(schedule: Schedule, period: str) -> list[Slot]:
    mine = [slot for slot in schedule.slots.values() if slot.session.period == period]
    return sorted(mine, key=lambda slot: slot.starts_at)


# Apply: never refuses; by now the event is a fact. Asserts only what decide guaranteed.


def apply(schedule: Schedule, event: Event) -> None:
    match event:
        case SeatHeld():
            _apply_held(schedule, event)
        case SeatBooked():
            appointment = schedule.appointments[event.appointment_id]
            appointment.status = Status.BOOKED
            schedule.holds.pop(event.appointment_id, None)
            schedule.changes.pop(event.appointment_id, None)
            if appointment.replaces:
                slot = schedule.slots[appointment.clock]
                schedule.active[_active_key(appointment.patient_id, slot)] = event.appointment_id
                if slot.session.status == "suspended":  # called off while the change was on its way
                    appointment.fate = AFFECTED
        case SeatReleased():
            _apply_released(schedule, event)
        case ScheduleOpened():
            for session in event.plan:
                run_session(session, schedule.slots)
        case SeatRestored():
            _apply_restored(schedule, event)
        case CoolingEnded():
            schedule.slots[event.clock].cooling &= ~seats.bits(event.seats)
            for seat in event.seats:
                del schedule.cooling[event.clock, seat]
        case ScheduleRevised():
            schedule.revision += 1
            schedule.revised_by = event.by
            schedule.commands[event.command_id] = schedule.revision
            if len(schedule.commands) > COMMANDS_REMEMBERED:
                del schedule.commands[next(iter(schedule.commands))]
        case SessionOpened():
            run_session(event.session, schedule.slots)
        case SeatsAdded():
            seats.add_seats(
                schedule.slots, schedule.slots[event.clock], event.count, event.channels, event.pool
            )
        case SeatsBlocked():
            slot = schedule.slots[event.clock]
            slot.cooling &= ~seats.bits(event.seats)
            slot.blocked |= seats.bits(event.seats)
            for seat in event.seats:
                schedule.cooling.pop((event.clock, seat), None)
        case SeatsUnblocked():
            schedule.slots[event.clock].blocked &= ~seats.bits(event.seats)
        case SessionMoved():
            _apply_moved(schedule, event)
        case SessionStatusSet():
            _apply_status(schedule, event)
        case SessionSubstituted():
            for slot in _slots_of(schedule, event.period):
                slot.session.substitute_id = event.practitioner_id
            for appointment in schedule.appointments.values():
                if schedule.slots[appointment.clock].session.period == event.period:
                    appointment.consent = None
        case SubstituteAnswered():
            schedule.appointments[event.appointment_id].consent = event.accepted
        case FateDecided():
            appointment = schedule.appointments[event.appointment_id]
            appointment.fate, appointment.successor = event.fate, event.successor
        case AttendanceRecorded():
            _apply_attendance(schedule, event)
        case AttendanceConfirmed():
            schedule.appointments[event.appointment_id].will_come = True
        case WishAdded():
            schedule.wishes[event.wish_id] = Wish(
                event.wish_id,
                event.account_id,
                event.patient_ids,
                event.clocks,
                event.priority,
                event.since,
                event.until,
                event.seed,
                event.replaces,
                event.waives,
                event.visit,
            )
        case WishEnded():
            schedule.wishes.pop(event.wish_id, None)
            schedule.wishes_ended.add(event.wish_id)
        case _:
            assert_never(event)


def _apply_held(schedule: Schedule, event: SeatHeld) -> None:
    slot = schedule.slots[event.clock]
    assert event.seat < slot.capacity
    assert not (slot.taken | slot.blocked | slot.cooling) >> event.seat & 1
    slot.taken |= 1 << event.seat
    slot.session.visits[event.visit] += 1
    schedule.appointments[event.appointment_id] = Appointment(
        slot.clock,
        event.seat,
        event.patient_id,
        event.account_id,
        event.hold_until,
        Status.PENDING,
        "",
        event.channel,
        event.visit,
        event.replaces,
        event.waives,
        event.changes,
        event.wish_id,
    )
    if event.replaces:
        schedule.active.setdefault(_active_key(event.patient_id, slot), event.appointment_id)
    else:
        schedule.active[_active_key(event.patient_id, slot)] = event.appointment_id
    if event.replaces and event.replaces not in schedule.appointments:
        schedule.changes[event.appointment_id] = event.hold_until
    else:
        schedule.holds[event.appointment_id] = event.hold_until
    if event.wish_id and (wish := schedule.wishes.get(event.wish_id)) is not None:
        wish.offered.append(event.appointment_id)
        wish.offers += 1


def _apply_released(schedule: Schedule, event: SeatReleased) -> None:
    appointment = schedule.appointments[event.appointment_id]
    assert appointment.status <= Status.FULFILLED
    slot = schedule.slots[appointment.clock]
    slot.taken &= ~(1 << appointment.seat)
    slot.session.visits[appointment.visit] -= 1
    if event.cooling_until:
        slot.cooling |= 1 << appointment.seat
        schedule.cooling[appointment.clock, appointment.seat] = event.cooling_until
    appointment.status = Status.CANCELLED
    appointment.reason = event.reason
    if event.successor:
        appointment.successor = event.successor
    _forget_active(schedule, event.appointment_id, appointment, slot)
    schedule.holds.pop(event.appointment_id, None)
    schedule.changes.pop(event.appointment_id, None)
    if appointment.wish_id and (wish := schedule.wishes.get(appointment.wish_id)) is not None:
        if event.appointment_id in wish.offered:
            wish.offered.remove(event.appointment_id)
        wish.skips.add(appointment.clock)
    if event.reason == "lost_claim":
        # It was never granted, so its id is as free as after any refusal.
        del schedule.appointments[event.appointment_id]


def _forget_active(schedule: Schedule, appointment_id: bytes, appointment: Appointment, slot: Slot) -> None:
    """The patient holds no seat in this department any more, unless a change has brought another one."""
    key = _active_key(appointment.patient_id, slot)
    if schedule.active.get(key) != appointment_id:
        return
    del schedule.active[key]
    for other_id in (*schedule.holds, *schedule.changes):
        other = schedule.appointments[other_id]
        if (
            other.replaces == appointment_id
            and _active_key(other.patient_id, schedule.slots[other.clock]) == key
        ):
            schedule.active[key] = other_id


def _apply_restored(schedule: Schedule, event: SeatRestored) -> None:
    appointment = schedule.appointments[event.appointment_id]
    slot = schedule.slots[appointment.clock]
    assert not (slot.taken | slot.blocked) >> appointment.seat & 1
    slot.taken |= 1 << appointment.seat
    slot.cooling &= ~(1 << appointment.seat)
    schedule.cooling.pop((appointment.clock, appointment.seat), None)
    slot.session.visits[appointment.visit] += 1
    appointment.status = Status(event.status)
    appointment.reason = ""
    appointment.successor = b""
    schedule.active[_active_key(appointment.patient_id, slot)] = event.appointment_id
    if event.status == Status.PENDING:
        away = appointment.replaces and appointment.replaces not in schedule.appointments
        (schedule.changes if away else schedule.holds)[event.appointment_id] = appointment.hold_until


def _apply_moved(schedule: Schedule, event: SessionMoved) -> None:
    mine = _slots_of(schedule, event.period)
    mine[0].session.room_id = event.room_id
    to = {clock: (new, at) for clock, new, at in event.moves}
    for slot in mine:
        if slot.clock in to:
            del schedule.slots[slot.clock]
    for slot in mine:
        if slot.clock in to:
            old = slot.clock
            slot.clock, slot.starts_at = to[old]
            slot.formerly |= {old}
            schedule.slots[slot.clock] = slot
    for appointment in schedule.appointments.values():
        if appointment.clock in to:
            appointment.clock = schedule.slots[to[appointment.clock][0]].clock
    # All at once: a slot may move to where the next one was.
    schedule.cooling = {
        (to[clock][0] if clock in to else clock, seat): until
        for (clock, seat), until in schedule.cooling.items()
    }


def _apply_status(schedule: Schedule, event: SessionStatusSet) -> None:
    clocks = set()
    for slot in _slots_of(schedule, event.period):
        slot.session.status = event.status
        clocks.add(slot.clock)
    for appointment in schedule.appointments.values():
        if appointment.clock in clocks and appointment.status in (Status.BOOKED, Status.ARRIVED):
            if event.status == "suspended":
                appointment.fate = appointment.fate or AFFECTED
            elif appointment.fate:  # the session is held after all, and this number with it
                appointment.fate, appointment.successor = "", b""


def _apply_attendance(schedule: Schedule, event: AttendanceRecorded) -> None:
    appointment = schedule.appointments[event.appointment_id]
    slot = schedule.slots[appointment.clock]
    before, appointment.status = appointment.status, Status(event.status)
    if appointment.status is Status.NOSHOW:
        slot.taken &= ~(1 << appointment.seat)
        slot.session.visits[appointment.visit] -= 1
        _forget_active(schedule, event.appointment_id, appointment, slot)
    elif before is Status.NOSHOW:
        slot.taken |= 1 << appointment.seat
        slot.session.visits[appointment.visit] += 1
        schedule.active[_active_key(appointment.patient_id, slot)] = event.appointment_id


def replay(events: list[Event]) -> Schedule:
    schedule = Schedule()
    for event in events:
        apply(schedule, event)
    return schedule


# What others may ask of the state.


def answer(schedule: Schedule, appointment_id: bytes) -> Answer:
    appointment = schedule.appointments[appointment_id]
    return Answer(
        appointment_id,
        appointment.clock,
        number_of(schedule.slots[appointment.clock], appointment.seat),
        appointment.hold_until,
        appointment.status,
    )


def reply_to(schedule: Schedule, command: Command) -> Reply:
    """What whoever asked learns from the state, the first time and every time."""
    match command:
        case HoldSeat() | ConfirmAppointment() | CancelAppointment() | LeaveFor() | SettleChange():
            return answer(schedule, command.appointment_id)
        case RecordAttendance() | AnswerSubstitute() | DecideFate() | ConfirmAttendance():
            return answer(schedule, command.appointment_id)
        case ReleaseUnconfirmed():
            return answer(schedule, command.appointment_id)
        case HoldGroup():
            return Many(tuple(answer(schedule, appointment_id) for appointment_id, _ in command.members))
        case JoinWaitlist() | LeaveWaitlist():
            waits = command.wish_id in schedule.wishes
            at = waitlist.position(schedule.wishes, command.wish_id) if waits else 0
            return Waiting(command.wish_id, at, len(schedule.wishes))
        case AddPatient():
            return Revised(schedule.commands[command.command_id], answer(schedule, command.appointment_id))
        case OpenSession() | ChangeCapacity() | AddSeats() | MoveSession() | SetSessionStatus():
            return Revised(schedule.commands[command.command_id])
        case SubstituteSession():
            return Revised(schedule.commands[command.command_id])
        case OpenSchedule() | ExpireHolds() | OfferSeats():
            return Revised(schedule.revision)
        case _:
            assert_never(command)


def next_wake(schedule: Schedule) -> int | None:
    """When time alone changes something here: a hold ends, a seat has cooled, a wish ends, seats open."""
    moments = [*schedule.holds.values(), *schedule.changes.values(), *schedule.cooling.values()]
    moments += [wish.until for wish in schedule.wishes.values() if not wish.offered]
    return min(moments, default=None)


def next_opening(schedule: Schedule, now: int) -> int | None:
    """When seats open to those who wait for them; None where nobody waits."""
    if not schedule.wishes:
        return None
    found = (seats.opens_at(slot, MINI_PROGRAM, now) for slot in schedule.slots.values())
    return min((at for at in found if at is not None), default=None)


def slots_touched(schedule: Schedule, event: Event) -> list[str]:
    """Slots whose free seats an applied event changed."""
    match event:
        case SeatHeld() | CoolingEnded() | SeatsBlocked() | SeatsUnblocked():
            return [event.clock] if event.clock in schedule.slots else []
        case SeatReleased() | SeatRestored() | AttendanceRecorded():
            # One that lost its claim is forgotten; its slot was touched by the hold in the same batch.
            appointment = schedule.appointments.get(event.appointment_id)
            return [] if appointment is None else [appointment.clock]
        case _:
            return []


def changes_shape(event: Event) -> bool:
    """Whether those who show the day must read its plan anew."""
    return isinstance(
        event, SessionOpened | SeatsAdded | SessionMoved | SessionStatusSet | SessionSubstituted
    )


def unfree(schedule: Schedule) -> dict[str, list[int]]:
    """Seats that are neither free nor given to anybody, by slot: what no appointment tells."""
    return {
        clock: seats.indices(slot.blocked | slot.cooling)
        for clock, slot in schedule.slots.items()
        if slot.blocked | slot.cooling
    }


def conservation_error(schedule: Schedule) -> int:
    """Seats that are in no state, or in two. Must read 0: seat bits and appointments tell the same story."""
    told = dict.fromkeys(schedule.slots, 0)
    twice = 0
    for appointment in schedule.appointments.values():
        if appointment.status <= Status.FULFILLED:
            bit = 1 << appointment.seat
            twice += bool(told[appointment.clock] & bit)
            told[appointment.clock] |= bit
    cooling = dict.fromkeys(schedule.slots, 0)
    for clock, seat in schedule.cooling:
        cooling[clock] |= 1 << seat
    return twice + sum(
        (told[clock] ^ slot.taken).bit_count()
        + (cooling[clock] ^ slot.cooling).bit_count()
        + seats.conservation_error(slot)
        for clock, slot in schedule.slots.items()
    )


# Claims: what must be unique beyond this actor. The journal grants or denies them with the events.


def claims_of(schedule: Schedule, appointment_id: bytes, day: str) -> tuple[Claim, ...]:
    """Those that this appointment holds by itself; one that changes another's waives what that one holds."""
    appointment = schedule.appointments[appointment_id]
    slot = schedule.slots[appointment.clock]
    pending = appointment.status is Status.PENDING
    lasts = not pending or appointment.replaces
    expires_at = None if lasts else appointment.hold_until + HOLD_CLAIM_GRACE_MS
    wanted = claims_wanted(slot, appointment.patient_id, appointment_id, day, expires_at)
    if not pending:
        return wanted
    if appointment.wish_id:
        wanted = (*wanted, Claim(Scope.WISH, appointment.wish_id, appointment_id, expires_at))
    if appointment.waives:
        wanted = tuple(c for n, c in enumerate(wanted) if not appointment.waives >> n & 1)
    return wanted


def claims_wanted(
    slot: Slot, patient_id: bytes, owner: bytes, day: str, expires_at: int | None
) -> tuple[Claim, ...]:
    """In the order of the bits of `waives`."""
    return (
        claims.of_department_day(patient_id, slot.session.department_id, day, owner, expires_at),
        claims.of_time(patient_id, slot.starts_at, owner, expires_at),
    )


def claims_passed(schedule: Schedule, event: SeatReleased, day: str) -> tuple[Claim, ...]:
    """What a number that is given up leaves to its successor; to one at another actor with the mark of it."""
    if not event.successor:
        return ()
    appointment = schedule.appointments[event.appointment_id]
    slot = schedule.slots[appointment.clock]
    mine = claims_wanted(slot, appointment.patient_id, event.successor, day, None)
    passed = tuple(c for n, c in enumerate(mine) if event.passes >> n & 1)
    if event.successor in schedule.appointments:
        return passed
    return (*passed, Claim(Scope.MOVE, event.successor, event.appointment_id, None))


def _active_key(patient_id: bytes, slot: Slot) -> bytes:
    return patient_id + slot.session.department_id.encode()
