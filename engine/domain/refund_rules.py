"""How much of a paid bill goes back when its seat is given up: full, in part, or none.

The hospital's fault (停诊, no seat left for a late payment) is always full. Else it depends on the department
and number class, and on how long before the visit the seat was given up. The rules that held when the bill
was made hold for it: they stand in its first event. Parts of a fen go to the patient.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MINUTE_MS = 60_000


class Cause(StrEnum):
    """Why a seat is gone for good, or for now."""

    EXPIRED = "expired"  # its hold ended unpaid: a late payment may have it again
    FULL = "full"  # a late payment came, and no seat was left in the slot
    CANCELLED = "cancelled"  # by the patient
    EXCUSED = "excused"  # given up for a reason that the hospital accepts
    SUSPENDED = "suspended"  # 停诊, or a substitute was declined
    NO_SHOW = "no_show"


_OF_REASON = {
    "expired": Cause.EXPIRED,
    "excused": Cause.EXCUSED,
    "unconfirmed": Cause.EXCUSED,  # taken back by the hospital, from somebody who did not answer
    "suspended": Cause.SUSPENDED,
    "substitute_declined": Cause.SUSPENDED,
}


def cause_of(reason: str) -> Cause:
    """Of a number that was given up, by the reason in its row; "changed" is a move, and none of these."""
    return _OF_REASON.get(reason, Cause.CANCELLED)


IN_FULL = frozenset((Cause.FULL, Cause.EXCUSED, Cause.SUSPENDED))


@dataclass(frozen=True, slots=True)
class RefundTerms:
    """Of one department and number class."""

    tiers: tuple[tuple[int, int], ...] = ((0, 100),)
    """(minutes before the visit, percent), the longest time first: who cancels so long before gets so much.
    Later than the last one: nothing."""
    no_show_percent: int = 0

    def __post_init__(self) -> None:
        minutes = [tier[0] for tier in self.tiers]
        assert minutes == sorted(set(minutes), reverse=True)
        assert all(0 <= percent <= 100 for _, percent in self.tiers)
        assert 0 <= self.no_show_percent <= 100


@dataclass(frozen=True, slots=True)
class RefundRules:
    terms: Mapping[tuple[str, str], RefundTerms] = field(default_factory=dict)
    """(department, class) -> terms; "" stands for all."""

    def terms_of(self, department_id: str, number_class_id: str) -> RefundTerms:
        """The most particular that there are, in the order of Policy.terms_of."""
        for key in ((department_id, number_class_id), (department_id, ""), ("", number_class_id), ("", "")):
            found = self.terms.get(key)
            if found is not None:
                return found
        return RefundTerms()


def percent_back(terms: RefundTerms, cause: str, starts_at: int, at: int) -> int:
    """Of what was paid. `at`: when the seat was given up; `starts_at`: the visit begins (0: no visit)."""
    if cause in IN_FULL or not starts_at:
        return 100
    if cause == Cause.NO_SHOW:
        return terms.no_show_percent
    for minutes, percent in terms.tiers:
        if starts_at - at >= minutes * MINUTE_MS:
            return percent
    return 0


def part(fen: int, percent: int) -> int:
    """Rounded up: a part of a fen goes to the patient."""
    return -(-fen * percent // 100)
