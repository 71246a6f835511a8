"""One practitioner's day: who holds which number.

Pure: no I/O, no clock, no chance. `decide` says what should happen, `apply` makes it so; replaying the
journal through `apply` rebuilds the state. Times are int milliseconds since the epoch (UTC), ids 16 bytes.

Every seat is exactly one of free, held, booked; `conservation_error` recounts that from two sides.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import assert_never

from engine.domain.limits import HOLD_CLAIM_GRACE_MS, HOLD_SECONDS_MAX
from engine.domain.planning import Plan, Session
from engine.domain.refusal import Reason, Refusal

# Commands: what someone asks for. Each carries the id that makes its retry harmless.


@dataclass(frozen=True, slots=True)
class OpenSchedule:
    """Takes the published plan over from the catalog: the first thing that ever happens to a day."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class HoldSeat:
    appointment_id: bytes
    clock: str  # the slot, hhmm
    patient_id: bytes
    account_id: bytes
    hold_seconds: int


@dataclass(frozen=True, slots=True)
class ConfirmAppointment:
    appointment_id: bytes
    account_id: bytes


@dataclass(frozen=True, slots=True)
class CancelAppointment:
    appointment_id: bytes
    account_id: bytes


@dataclass(frozen=True, slots=True)
class ExpireHolds:
    pass


Command = OpenSchedule | HoldSeat | ConfirmAppointment | CancelAppointment | ExpireHolds


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


@dataclass(frozen=True, slots=True)
class SeatBooked:
    appointment_id: bytes


@dataclass(frozen=True, slots=True)
class SeatReleased:
    appointment_id: bytes
    reason: str  # cancelled | expired | lost_claim


Event = ScheduleOpened | SeatHeld | SeatBooked | SeatReleased


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


@dataclass(slots=True)
class Slot:
    clock: str  # this very string is shared by the slot's appointments
    starts_at: int
    capacity: int
    first_number: int  # 序号 of seat 0
    session: Session
    taken: int = 0  # a bit a seat: held or booked


@dataclass(slots=True)
class Appointment:
    clock: str
    seat: int
    patient_id: bytes
    account_id: bytes
    hold_until: int
    status: Status = Status.PENDING
    reason: str = ""


@dataclass(slots=True)
class Schedule:
    slots: dict[str, Slot] = field(default_factory=dict)
    appointments: dict[bytes, Appointment] = field(default_factory=dict)
    """Every number ever given on this day, so that a retry finds its first answer."""
    active: dict[bytes, bytes] = field(default_factory=dict)
    """patient + department -> the one appointment that holds a seat."""
    holds: dict[bytes, int] = field(default_factory=dict)
    """pending appointment -> when it ends."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller learns when a command succeeded, also the second time."""

    appointment_id: bytes
    clock: str
    number: int
    hold_until: int
    status: int


# Decide: guards, cheapest first, the happy line last. Changes nothing.


def decide(schedule: Schedule, command: Command, now: int) -> list[Event] | Refusal:
    match command:
        case HoldSeat():
            return _hold_seat(schedule, command, now)
        case ConfirmAppointment():
            return _confirm(schedule, command, now)
        case CancelAppointment():
            return _cancel(schedule, command, now)
        case ExpireHolds():
            return _expired(schedule, now)
        case OpenSchedule():
            return [] if schedule.slots else [ScheduleOpened(command.plan)]
        case _:
            assert_never(command)


def _hold_seat(schedule: Schedule, command: HoldSeat, now: int) -> list[Event] | Refusal:
    known = schedule.appointments.get(command.appointment_id)
    if known is not None:
        same = known.clock == command.clock and known.patient_id == command.patient_id
        return [] if same else Refusal(Reason.KEY_REUSED)
    slot = schedule.slots.get(command.clock)
    if slot is None:
        return Refusal(Reason.NO_SUCH_SLOT)
    if slot.starts_at <= now:
        return Refusal(Reason.SLOT_PAST)
    owner = schedule.active.get(_active_key(command.patient_id, slot))
    is_full = remaining(slot) == 0
    # Read-time expiry: a hold that has ended is free, whether or not the sweeper has come by.
    ended = (
        [
            appointment_id
            for appointment_id, until in schedule.holds.items()
            if until <= now
            and (appointment_id == owner or schedule.appointments[appointment_id].clock == command.clock)
        ]
        if owner is not None or is_full
        else []
    )
    if owner is not None and owner not in ended:
        return Refusal(Reason.ALREADY_BOOKED, {"appointment_id": owner.hex()})
    freed = [a.seat for a in map(schedule.appointments.__getitem__, ended) if a.clock == command.clock]
    if is_full and not freed:
        return Refusal(Reason.SLOT_FULL)
    seat = min([_free_seat(slot), *freed])
    hold_until = min(now + min(command.hold_seconds, HOLD_SECONDS_MAX) * 1000, slot.starts_at)
    held = SeatHeld(
        command.appointment_id,
        command.clock,
        seat,
        command.patient_id,
        command.account_id,
        hold_until,
    )
    return [*(SeatReleased(a, "expired") for a in ended), held]


def _confirm(schedule: Schedule, command: ConfirmAppointment, now: int) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None or appointment.account_id != command.account_id:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.status is Status.BOOKED:
        return []
    if appointment.status is not Status.PENDING:
        expired = appointment.reason == "expired"
        return Refusal(Reason.HOLD_EXPIRED if expired else Reason.ALREADY_CANCELLED)
    if appointment.hold_until <= now:
        return Refusal(Reason.HOLD_EXPIRED)
    return [SeatBooked(command.appointment_id)]


def _cancel(schedule: Schedule, command: CancelAppointment, now: int) -> list[Event] | Refusal:
    appointment = schedule.appointments.get(command.appointment_id)
    if appointment is None or appointment.account_id != command.account_id:
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment.status is Status.CANCELLED:
        return []
    if schedule.slots[appointment.clock].starts_at <= now:
        return Refusal(Reason.SLOT_PAST)
    expired = appointment.status is Status.PENDING and appointment.hold_until <= now
    return [SeatReleased(command.appointment_id, "expired" if expired else "cancelled")]


def _expired(schedule: Schedule, now: int) -> list[Event]:
    return [SeatReleased(a, "expired") for a, until in schedule.holds.items() if until <= now]


# Apply: never refuses; by now the event is a fact. Asserts only what decide guaranteed.


def apply(schedule: Schedule, event: Event) -> None:
    match event:
        case SeatHeld():
            slot = schedule.slots[event.clock]
            assert event.seat < slot.capacity
            assert not slot.taken >> event.seat & 1
            slot.taken |= 1 << event.seat
            schedule.appointments[event.appointment_id] = Appointment(
                slot.clock,
                event.seat,
                event.patient_id,
                event.account_id,
                event.hold_until,
            )
            schedule.active[_active_key(event.patient_id, slot)] = event.appointment_id
            schedule.holds[event.appointment_id] = event.hold_until
        case SeatBooked():
            schedule.appointments[event.appointment_id].status = Status.BOOKED
            del schedule.holds[event.appointment_id]
        case SeatReleased():
            appointment = schedule.appointments[event.appointment_id]
            assert appointment.status <= Status.FULFILLED
            slot = schedule.slots[appointment.clock]
            slot.taken &= ~(1 << appointment.seat)
            appointment.status = Status.CANCELLED
            appointment.reason = event.reason
            del schedule.active[_active_key(appointment.patient_id, slot)]
            schedule.holds.pop(event.appointment_id, None)
            if event.reason == "lost_claim":
                # It was never granted, so its id is as free as after any refusal.
                del schedule.appointments[event.appointment_id]
        case ScheduleOpened():
            for session in event.plan:
                first_number = 1
                for planned in session.slots:
                    schedule.slots[planned.clock] = Slot(
                        planned.clock, planned.starts_at, planned.capacity, first_number, session
                    )
                    first_number += planned.capacity
        case _:
            assert_never(event)


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
        schedule.slots[appointment.clock].first_number + appointment.seat,
        appointment.hold_until,
        appointment.status,
    )


def remaining(slot: Slot) -> int:
    """Free seats. A hold past its time counts as taken until the sweeper's second is over."""
    return slot.capacity - slot.taken.bit_count()


def next_expiry(schedule: Schedule) -> int | None:
    return min(schedule.holds.values(), default=None)


def slots_touched(schedule: Schedule, event: Event) -> list[str]:
    """Slots whose free seats an applied event changed."""
    match event:
        case SeatHeld():
            return [event.clock]
        case SeatReleased():
            # One that lost its claim is forgotten; its slot was touched by the hold in the same batch.
            appointment = schedule.appointments.get(event.appointment_id)
            return [] if appointment is None else [appointment.clock]
        case SeatBooked() | ScheduleOpened():
            return []
        case _:
            assert_never(event)


def conservation_error(schedule: Schedule) -> int:
    """Seats that are in no state, or in two. Must read 0: seat bits and appointments tell the same story."""
    told = dict.fromkeys(schedule.slots, 0)
    twice = 0
    for appointment in schedule.appointments.values():
        if appointment.status <= Status.FULFILLED:
            bit = 1 << appointment.seat
            twice += bool(told[appointment.clock] & bit)
            told[appointment.clock] |= bit
    return twice + sum(
        (told[clock] ^ slot.taken).bit_count() + (slot.taken >> slot.capacity).bit_count()
        for clock, slot in schedule.slots.items()
    )


# Claims: what must be unique beyond this actor. The journal grants or denies them with the events.


class Scope(IntEnum):
    DEPARTMENT_DAY = 1  # one number per patient, department and day
    PATIENT_TIME = 2  # one patient, one place at a time


@dataclass(frozen=True, slots=True)
class Claim:
    scope: Scope
    key: bytes
    owner: bytes
    expires_at: int | None  # ms; None: for good


def claims_of(schedule: Schedule, appointment_id: bytes, day: str) -> tuple[Claim, Claim]:
    appointment = schedule.appointments[appointment_id]
    slot = schedule.slots[appointment.clock]
    pending = appointment.status is Status.PENDING
    expires_at = appointment.hold_until + HOLD_CLAIM_GRACE_MS if pending else None
    return claims_wanted(slot, appointment.patient_id, appointment_id, day, expires_at)


def claims_wanted(
    slot: Slot, patient_id: bytes, owner: bytes, day: str, expires_at: int | None
) -> tuple[Claim, Claim]:
    department = slot.session.department_id
    return (
        Claim(Scope.DEPARTMENT_DAY, patient_id + f"{department}/{day}".encode(), owner, expires_at),
        Claim(Scope.PATIENT_TIME, patient_id + slot.starts_at.to_bytes(8, "big"), owner, expires_at),
    )


def _active_key(patient_id: bytes, slot: Slot) -> bytes:
    return patient_id + slot.session.department_id.encode()


def _free_seat(slot: Slot) -> int:
    """The lowest free seat; the capacity itself when there is none."""
    taken = slot.taken
    return (~taken & (taken + 1)).bit_length() - 1
