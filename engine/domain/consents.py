"""What somebody agrees to, and which of it a hospital will not do without.

A consent is of one kind, to one version of one text, by an account: for all whom it acts for, or for one
patient. What stands is a set of kinds, kept as bits, so that the booking path reads one number.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

GUARDED_YEARS: Final = 14
"""Below this age a guardian agrees for the child (PIPL 31)."""


class ConsentKind(StrEnum):
    """In the order of their bits, which engine/migrations/0023_privacy.sql knows as well."""

    PRIVACY_POLICY = "privacy_policy"
    HEALTH_DATA = "health_data"  # separate consent for sensitive data (PIPL 28, 29)
    GUARDIAN = "guardian"  # for one child under 14, by whoever brings it up
    MESSAGES = "messages"
    RESEARCH = "research"
    CROSS_BORDER = "cross_border"  # PIPL 39


ALL: Final = -1
"""Every bit: asks nothing, as where a member of the staff books, who asks in person."""


def bits(kinds: Iterable[str]) -> int:
    order = list(ConsentKind)
    return sum(1 << order.index(ConsentKind(kind)) for kind in set(kinds))


def kinds_of(standing: int) -> tuple[ConsentKind, ...]:
    return tuple(kind for n, kind in enumerate(ConsentKind) if standing >> n & 1)


def is_guarded(age: int | None) -> bool:
    """Whether somebody else must agree for a person of so many full years. None: nobody knows; no."""
    return age is not None and age < GUARDED_YEARS


def missing(required: Iterable[ConsentKind], standing: int, age: int | None) -> tuple[ConsentKind, ...]:
    """What is wanted and does not stand. A guardian is asked for children alone."""
    guarded = is_guarded(age)
    wanted = [kind for kind in required if kind is not ConsentKind.GUARDIAN or guarded]
    return kinds_of(bits(wanted) & ~standing)
