"""How many wrong guesses somebody gets, and how long they then wait.

A lock that anybody can set off by mistyping somebody else's password is a way to keep a doctor out of work.
So failures are counted by where they come from: five from one address lock this username at that address,
longer each time. Only beside that all the addresses from which the person has never signed in are counted
together, for guesses that come from everywhere: these lock the strangers out, and never the address of
their own.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    failures_max: int
    """In a row; the last of them locks."""
    lock: timedelta
    """The first lock; each that follows is twice as long as the one before."""
    lock_max: timedelta
    forgotten_after: timedelta
    """As long without a failure, and all begins anew."""


OF_AN_ADDRESS: Final = Rule(5, timedelta(minutes=15), timedelta(hours=4), timedelta(days=1))
OF_STRANGERS: Final = Rule(50, timedelta(hours=1), timedelta(hours=8), timedelta(days=1))
"""NIST SP 800-63B, 5.2.2 allows a hundred."""
OF_CODES: Final = Rule(5, timedelta(minutes=15), timedelta(hours=4), timedelta(days=1))
"""Of a second factor, from wherever they come: to get there one must know the password."""
FAMILIAR: Final = timedelta(days=90)
"""An address from which somebody signed in is theirs as long."""


@dataclass(frozen=True, slots=True)
class Failures:
    count: int = 0
    """Since the last success or lock."""
    locks: int = 0
    """In a row."""
    locked_until: datetime | None = None
    last_at: datetime | None = None


NONE: Final = Failures()


def is_locked(failures: Failures, now: datetime) -> bool:
    return failures.locked_until is not None and failures.locked_until > now


def counted(failures: Failures, rule: Rule, now: datetime) -> Failures:
    """With one failure more. Where it is locked already, nothing is counted: a lock ends when it said so."""
    if is_locked(failures, now):
        return failures
    before = failures
    if before.last_at is None or now - max(before.last_at, before.locked_until or before.last_at) >= (
        rule.forgotten_after
    ):
        before = NONE
    count = 1 if before.locked_until is not None else before.count + 1
    if count < rule.failures_max:
        return Failures(count, before.locks, None, now)
    length = min(rule.lock_max, rule.lock * 2**before.locks)
    return Failures(count, before.locks + 1, now + length, now)


def uncounted(failures: Failures, mine: Failures, before: Failures) -> Failures:
    """Takes the failure `mine` back that was counted upon `before`: it turned out to be none.

    Others may have been counted since; they stay.
    """
    if failures == mine:
        return before
    if failures.locked_until is not None:
        return failures
    return Failures(max(0, failures.count - 1), failures.locks, None, failures.last_at)
