"""How failures lock and are forgotten, by any clock."""

from datetime import UTC, datetime, timedelta

import pytest

from engine.domain.lockout import NONE, OF_AN_ADDRESS, Failures, Rule, counted, is_locked, uncounted

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
RULE = Rule(3, timedelta(minutes=15), timedelta(hours=1), timedelta(days=1))


def after(times: int, failures: Failures = NONE, now: datetime = NOW) -> Failures:
    for _ in range(times):
        failures = counted(failures, RULE, now)
    return failures


def test_the_last_of_them_locks_and_none_before() -> None:
    assert not is_locked(after(2), NOW)
    assert after(3).locked_until == NOW + RULE.lock


def test_a_lock_ends_when_it_said_so_however_much_is_tried() -> None:
    locked = after(3)
    assert after(50, locked) == locked
    assert is_locked(locked, NOW + RULE.lock - timedelta(microseconds=1))
    assert not is_locked(locked, NOW + RULE.lock)


def test_each_lock_is_twice_as_long_up_to_the_longest() -> None:
    failures, now, lengths = NONE, NOW, []
    for _ in range(5):
        failures = after(3, failures, now)
        assert failures.locked_until is not None
        lengths.append(failures.locked_until - now)
        now = failures.locked_until
        assert not is_locked(after(2, failures, now), now)  # then there are three again, not one
    assert lengths == [timedelta(minutes=m) for m in (15, 30, 60, 60, 60)]


@pytest.mark.parametrize(("quiet", "length"), [(timedelta(days=1), 15), (timedelta(hours=23), 30)])
def test_after_a_quiet_day_it_begins_anew(quiet: timedelta, length: int) -> None:
    locked = after(3)
    assert locked.locked_until is not None
    now = locked.locked_until + quiet
    assert after(3, locked, now).locked_until == now + timedelta(minutes=length)
    # Mistyped twice yesterday is forgotten as well.
    assert after(1, after(2), NOW + timedelta(days=1)).count == 1


def test_what_was_no_failure_is_taken_back_and_others_stay() -> None:
    before = after(2)
    mine = after(1, before)
    assert uncounted(mine, mine, before) == before
    later = Failures(2, 0, None, NOW)
    assert uncounted(later, after(1), NONE).count == 1
    locked = after(3)
    assert uncounted(locked, after(1), NONE) == locked  # somebody else's guesses locked it meanwhile


def test_five_failures_lock_for_fifteen_minutes() -> None:
    assert (OF_AN_ADDRESS.failures_max, OF_AN_ADDRESS.lock) == (5, timedelta(minutes=15))
