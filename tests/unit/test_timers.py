"""Timers nudge: each key once, at the earliest time set, never before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.timers import TICK_SECONDS, Timers
from tests.support.stores import Clock
from tests.support.virtual_time import virtual

NOW = 1_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


def test_nothing_is_due_before_its_time(clock: Clock) -> None:
    timers = Timers(clock)
    timers.set("a", NOW + 10)
    clock.advance(ms=9)
    assert timers.due() == []
    clock.advance(ms=1)
    assert timers.due() == ["a"]
    assert timers.due() == [], "a key came twice"


def test_the_earlier_of_two_times_counts(clock: Clock) -> None:
    timers = Timers(clock)
    timers.set("a", NOW + 20)
    timers.set("a", NOW + 10)
    timers.set("a", NOW + 30)
    clock.advance(ms=10)
    assert timers.due() == ["a"]
    clock.advance(ms=100)
    assert timers.due() == []


def test_a_key_may_be_set_again_after_it_came(clock: Clock) -> None:
    timers = Timers(clock)
    timers.set("a", NOW)
    assert timers.due() == ["a"]
    timers.set("a", NOW + 5)
    assert timers.due() == []
    clock.advance(ms=5)
    assert timers.due() == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=20), st.integers(0, 20))
def test_what_is_due_is_what_a_dict_says(sets: list[tuple[str, int]], after: int) -> None:
    clock = Clock(NOW)
    timers = Timers(clock)
    earliest: dict[str, int] = {}
    for key, when in sets:
        timers.set(key, NOW + when)
        earliest[key] = min(when, earliest.get(key, when))
    clock.advance(ms=after)
    due = timers.due()
    assert sorted(due) == sorted(key for key, when in earliest.items() if when <= after)
    assert [earliest[key] for key in due] == sorted(earliest[key] for key in due), "the earliest first"


@virtual
async def test_running_timers_fire_within_a_tick() -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    timers = Timers(lambda: int(loop.time() * 1000))
    fired: list[tuple[str, float]] = []

    async def fire(keys: list[str]) -> None:
        fired.extend((key, loop.time()) for key in keys)

    start = loop.time()
    for seconds in (0.1, 3.0, 1000.0):
        timers.set(str(seconds), int((start + seconds) * 1000))
    running = asyncio.create_task(timers.run(fire))
    await asyncio.sleep(1001)
    running.cancel()
    assert [key for key, _ in fired] == ["0.1", "3.0", "1000.0"]
    for key, at in fired:
        assert float(key) - 0.002 <= at - start <= float(key) + TICK_SECONDS + 0.002
