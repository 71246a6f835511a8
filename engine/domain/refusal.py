"""Why a command was refused. An ordinary answer, not an exception."""

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Stable codes: clients act on them, web/errors.py gives each its status and its words."""

    NO_SUCH_SCHEDULE = "no_such_schedule"
    NO_SUCH_SLOT = "no_such_slot"
    NO_SUCH_APPOINTMENT = "no_such_appointment"
    SLOT_PAST = "slot_past"
    SLOT_FULL = "slot_full"
    KEY_REUSED = "key_reused"
    ALREADY_BOOKED = "already_booked"
    TIME_CONFLICT = "time_conflict"
    HOLD_EXPIRED = "hold_expired"
    ALREADY_CANCELLED = "already_cancelled"
    NOT_ELIGIBLE = "not_eligible"
    BUSY = "busy"
    TOO_LATE = "too_late"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    detail: dict[str, str | int | None] = field(default_factory=dict)
    """What helps: the rule that refused, the appointment in the way, when it ends."""
