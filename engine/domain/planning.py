"""What a practitioner's day looks like before anybody books: the plan that an actor opens with."""

from dataclasses import dataclass

from engine.domain.limits import SLOT_MS


@dataclass(frozen=True, slots=True)
class PlannedSlot:
    clock: str  # hhmm in the hospital's zone
    starts_at: int  # ms since the epoch, UTC
    capacity: int


@dataclass(frozen=True, slots=True)
class Session:
    period: str  # morning | afternoon | night
    department_id: str
    number_class_id: str
    room_id: str | None
    fee_fen: int
    slots: tuple[PlannedSlot, ...]


Plan = tuple[Session, ...]


def plan_as_data(plan: Plan) -> list[object]:
    """As it lies in `schedule.plan` and in the journal: lists of lists, fields only ever added."""
    return [
        [
            s.period,
            s.department_id,
            s.number_class_id,
            s.room_id,
            s.fee_fen,
            [[slot.clock, slot.starts_at, slot.capacity] for slot in s.slots],
        ]
        for s in plan
    ]


def plan_from_data(data: list[list[object]]) -> Plan:
    return tuple(
        Session(
            period,  # type: ignore[arg-type]
            department_id,  # type: ignore[arg-type]
            number_class_id,  # type: ignore[arg-type]
            room_id,  # type: ignore[arg-type]
            fee_fen,  # type: ignore[arg-type]
            tuple(PlannedSlot(*slot) for slot in slots),  # type: ignore[attr-defined]
        )
        for period, department_id, number_class_id, room_id, fee_fen, slots in data
    )


def overlapping(plan: Plan) -> tuple[PlannedSlot, PlannedSlot] | None:
    """The first two slots of a day that run at one time, or None."""
    slots = sorted((slot for session in plan for slot in session.slots), key=lambda s: s.starts_at)
    for earlier, later in zip(slots, slots[1:], strict=False):
        if later.starts_at < earlier.starts_at + SLOT_MS:
            return earlier, later
    return None
