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
    NOT_RELEASED = "not_released"
    BOOKING_CLOSED = "booking_closed"
    SESSION_PAUSED = "session_paused"
    SESSION_SUSPENDED = "session_suspended"
    VISIT_LIMIT = "visit_limit"
    GROUP_DOES_NOT_FIT = "group_does_not_fit"
    CANCEL_TOO_LATE = "cancel_too_late"
    CHANGE_TOO_LATE = "change_too_late"
    TOO_MANY_CHANGES = "too_many_changes"
    NOT_BOOKED = "not_booked"
    CHANGE_UNSETTLED = "change_unsettled"
    CHANGE_GIVEN_UP = "change_given_up"
    STALE_REVISION = "stale_revision"
    NO_SUCH_SESSION = "no_such_session"
    SESSIONS_OVERLAP = "sessions_overlap"
    BELOW_SOLD = "below_sold"
    IN_THE_PAST = "in_the_past"
    TOO_LARGE = "too_large"
    FATE_DECIDED = "fate_decided"
    NOT_SUSPENDED = "not_suspended"
    NO_SUBSTITUTE = "no_substitute"
    WRONG_STATE = "wrong_state"
    NO_SUCH_WISH = "no_such_wish"
    WAITLIST_CLOSED = "waitlist_closed"
    WAITLIST_FULL = "waitlist_full"
    BUSY = "busy"
    TOO_LATE = "too_late"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    detail: dict[str, str | int | None] = field(default_factory=dict)
    """What helps: the rule that refused, the appointment in the way, when it ends."""
