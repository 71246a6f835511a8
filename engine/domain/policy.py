"""What the hospital decided about numbers. Data, not code."""

from dataclasses import dataclass

from engine.domain.limits import HOLD_SECONDS_DEFAULT, HOLD_SECONDS_MAX


@dataclass(frozen=True, slots=True)
class Policy:
    hold_seconds: int = HOLD_SECONDS_DEFAULT
    active_appointments_max: int = 10  # pending and booked, a patient, over all departments
    account_holds_max: int = 5  # unpaid numbers an account may hold at one time

    def __post_init__(self) -> None:
        assert 0 < self.hold_seconds <= HOLD_SECONDS_MAX
        assert self.active_appointments_max > 0
        assert self.account_holds_max > 0
