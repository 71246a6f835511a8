"""Who is away is left alone; who fails now and then is not."""

import random

from actors.breaker import FAILURES_MAX, OUTCOMES, PAUSE_SECONDS_MAX, Breaker, State


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock, chance: float = 1.0) -> Breaker:
    breaker = Breaker(clock, lambda: chance)
    for _ in range(FAILURES_MAX):
        breaker.heard(True)
    return breaker


def test_a_quarter_of_failures_stops_nobody() -> None:
    lots = random.Random(7)
    breaker = Breaker(Clock(), lots.random)
    for _ in range(200_000):
        breaker.heard(lots.random() < 0.25)
        assert breaker.state is State.CLOSED
    assert breaker.room(64, 0) == 64


def test_away_is_left_alone_and_then_asked_by_one() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert breaker.state is State.OPEN
    assert breaker.room(64, 3) == 0
    clock.now += 0.5
    assert breaker.state is State.HALF_OPEN
    assert breaker.room(64, 3) == 0, "what is under way still may tell"
    assert breaker.room(64, 0) == 1
    breaker.began()
    assert breaker.room(64, 1) == 0
    assert breaker.room(64, 0) == 0
    assert breaker.heard(False), "they are back"
    assert breaker.state is State.CLOSED
    assert breaker.room(64, 0) == 64


def test_the_pause_grows_to_its_end() -> None:
    clock = Clock()
    breaker = opened(clock)
    pauses = []
    for _ in range(12):
        began = clock.now
        while breaker.state is State.OPEN:
            clock.now += 0.25
        pauses.append(clock.now - began)
        assert breaker.room(8, 0) == 1
        breaker.began()
        assert not breaker.heard(True)
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == PAUSE_SECONDS_MAX


def test_those_under_way_when_it_opened_do_not_prolong_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(OUTCOMES):
        breaker.heard(True)
    clock.now += 0.5
    assert breaker.room(8, 0) == 1


def test_a_late_success_ends_it_too() -> None:
    breaker = opened(Clock())
    assert breaker.heard(False)
    assert breaker.state is State.CLOSED
    assert not breaker.heard(True), "one failure alone opens nothing"
    assert breaker.state is State.CLOSED


def test_chance_shortens_the_pause_to_a_half_at_most() -> None:
    clock = Clock()
    breaker = opened(clock, chance=0.0)
    clock.now += 0.25
    assert breaker.state is State.HALF_OPEN
