"""What a change of a day would do, without doing it: decided on a copy, and the two compared.

Pure. What lies outside the day (the patients' other visits, free seats elsewhere) is looked up by whoever
shows this.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.limits import SLOT_MS
from engine.domain.policy import Policy
from engine.domain.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Affected:
    """A number that somebody holds, before and after."""

    appointment_id: bytes
    patient_id: bytes
    status: int  # before
    effect: str  # moved | room | suspended | released | substitute | restored | added
    number: int
    clock: str  # before
    starts_at: int
    new_clock: str
    new_starts_at: int


@dataclass(frozen=True, slots=True)
class SlotChange:
    """A slot that is not as before. A new one had no seats; a moved one keeps its line."""

    clock: str  # after
    starts_at: int
    was: str  # its clock before; "" for a new one
    capacity: int  # seats that are in use or may be had: the blocked ones left out
    new_capacity: int
    free: int  # to be had by somebody, so 0 in a session that is not open
    new_free: int


@dataclass(frozen=True, slots=True)
class Preview:
    revision: int  # after
    refusal: Refusal | None
    affected: tuple[Affected, ...] = ()
    slots: tuple[SlotChange, ...] = ()

    @property
    def seats_opened(self) -> int:
        return sum(max(0, slot.new_free - slot.free) for slot in self.slots)

    @property
    def seats_closed(self) -> int:
        return sum(max(0, slot.free - slot.new_free) for slot in self.slots)


def preview(state: s.Schedule, commands: Sequence[s.Structural], now: int, policy: Policy) -> Preview:
    """What these commands, one after the other, would do to the day. The first refusal ends it.

    Chance is left out: it moves the moment at which a returned number is free again, and nothing else here.
    """
    after = deepcopy(state)
    for command in commands:
        outcome = s.decide(after, command, now, policy)
        if isinstance(outcome, Refusal):
            return Preview(state.revision, outcome)
        for event in outcome:
            s.apply(after, event)
    return Preview(after.revision, None, _affected(state, after), _slots(state, after, now))


def _affected(before: s.Schedule, after: s.Schedule) -> tuple[Affected, ...]:
    found = []
    for appointment_id, new in after.appointments.items():
        old = before.appointments.get(appointment_id)
        if old is not None and old.status > s.Status.FULFILLED:
            continue
        effect = _effect(before, after, old, new)
        if effect is None:
            continue
        new_slot = after.slots[new.clock]
        slot = new_slot if old is None else before.slots[old.clock]
        found.append(
            Affected(
                appointment_id,
                new.patient_id,
                (old or new).status,
                effect,
                seats.number_of(new_slot, new.seat),
                slot.clock,
                slot.starts_at,
                new_slot.clock,
                new_slot.starts_at,
            )
        )
    return tuple(sorted(found, key=lambda one: (one.starts_at, one.number)))


def _effect(
    before: s.Schedule, after: s.Schedule, old: s.Appointment | None, new: s.Appointment
) -> str | None:
    """The gravest thing that happens to a number; None: nothing."""
    if old is None:
        return "added"
    if new.status is s.Status.CANCELLED:
        return "released"
    was, now = before.slots[old.clock].session, after.slots[new.clock].session
    if new.fate != old.fate:
        return "suspended" if new.fate else "restored"
    if was.substitute_id != now.substitute_id and new.status is s.Status.BOOKED:
        return "substitute"
    if old.clock != new.clock:
        return "moved"
    return "room" if was.room_id != now.room_id else None


def _slots(before: s.Schedule, after: s.Schedule, now: int) -> tuple[SlotChange, ...]:
    found = []
    of_number = {(slot.session.period, slot.first_number): slot for slot in before.slots.values()}
    for slot in sorted(after.slots.values(), key=lambda slot: slot.starts_at):
        # A slot keeps its numbers wherever it goes.
        old = of_number.get((slot.session.period, slot.first_number))
        change = SlotChange(
            slot.clock,
            slot.starts_at,
            "" if old is None else old.clock,
            0 if old is None else _in_use(old),
            _in_use(slot),
            0 if old is None else _free(old, now),
            _free(slot, now),
        )
        if old is None or (change.was, change.capacity, change.free) != (
            change.clock,
            change.new_capacity,
            change.new_free,
        ):
            found.append(change)
    return tuple(found)


def _in_use(slot: seats.Slot) -> int:
    return slot.capacity - slot.blocked.bit_count()


def _free(slot: seats.Slot, now: int) -> int:
    is_open = slot.session.status == "open" and slot.starts_at + SLOT_MS > now
    return seats.free(slot).bit_count() if is_open else 0
