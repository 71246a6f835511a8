"""Waiting times, whatever the clinic: finite, in order, no nonsense; what was seen adds up in any order."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.calibration import BINS, DISTANCE_MAX, KNOTS, NORMAL, Calibration, Gathering, quantile
from engine.domain.service_times import (
    NOTHING_SEEN,
    Pace,
    ServiceModel,
    Tally,
    Visit,
    learn,
    tally,
    tally_of_plain,
)
from engine.domain.waiting_time import Arrivals, Estimate, Room, Waiting, estimates, forecasts

KINDS = ("first", "return", "report")
DOCTORS = ("a", "b", "c", "d")

kind = st.sampled_from(KINDS)
doctor = st.sampled_from(DOCTORS)
seconds = st.floats(-100, 20_000)
visit = st.builds(
    Visit,
    department_id=st.sampled_from(("0304", "0401")),
    practitioner_id=doctor,
    kind=kind,
    service_seconds=seconds,
    pause_seconds=st.floats(0, 9_000),
    since_open_seconds=st.floats(-1_000, 40_000),
)
days = st.lists(st.lists(visit, max_size=12), max_size=6)
room = st.builds(
    Room,
    department_id=st.sampled_from(("0304", "9999")),
    practitioner_id=doctor,
    since_open_seconds=st.floats(-7_200, 40_000),
    serving=st.none() | kind,
    elapsed_seconds=st.floats(0, 20_000),
    paused=st.booleans(),
    pace=st.builds(Pace, st.floats(-0.7, 0.7), st.floats(0, 1)),
)
waiting = st.builds(
    Waiting,
    kind=kind | st.just("unheard of"),
    practitioner_id=st.none() | doctor,
    chance=st.floats(0, 1),
    due_seconds=st.just(0.0) | st.floats(0, 20_000),
)
arrivals = st.builds(Arrivals, st.floats(0, 0.05), kind)
correction = st.lists(st.tuples(st.integers(1, 30), st.floats(-6, 6)), max_size=60).map(
    lambda seen: calibration(seen).correction()
)


def calibration(seen: list[tuple[int, float]]) -> Calibration:
    gathered = Gathering()
    for distance, z in seen:
        gathered.add(distance, z)
    return gathered.calibration()


def learned(of: list[list[Visit]]) -> ServiceModel:
    seen = NOTHING_SEEN
    for day in of:
        seen += tally(day, ServiceModel())
    return learn(seen)


@given(days, st.lists(room, max_size=5), st.lists(waiting, max_size=12), arrivals, correction)
def test_everybody_is_told_something_sensible(of, rooms, queue, going_before, put_right) -> None:  # type: ignore[no-untyped-def]
    told = estimates(forecasts(learned(of), rooms, queue, going_before), queue, put_right)
    open_doctors = {one.practitioner_id for one in rooms}
    here: dict[str | None, Estimate] = {}
    for person, one in zip(queue, told, strict=True):
        possible = bool(rooms) if person.practitioner_id is None else person.practitioner_id in open_doctors
        assert (one is not None) == possible
        if one is None:
            continue
        assert 0 < one.p10_seconds <= one.p50_seconds <= one.p90_seconds < math.inf
        if person.due_seconds <= 0:
            before = here.get(person.practitioner_id, one)
            here[person.practitioner_id] = one
            assert before.p10_seconds <= one.p10_seconds
            assert before.p50_seconds <= one.p50_seconds
            assert before.p90_seconds <= one.p90_seconds


@given(days, room, st.lists(kind, min_size=1, max_size=10), kind)
def test_one_more_ahead_makes_the_mean_later(of, door, kinds, more) -> None:  # type: ignore[no-untyped-def]
    model = learned(of)

    def mean(ahead: list[str]) -> float:
        last = forecasts(model, [door], [Waiting(one) for one in [*ahead, "first"]])[-1]
        assert last is not None
        return last.mu + last.sigma**2 / 2

    assert mean([*kinds, more]) > mean(kinds)


@given(days, st.lists(room, min_size=1, max_size=4), st.lists(waiting, max_size=10), st.integers(0, 9))
def test_who_stands_behind_changes_nothing(of, rooms, queue, n) -> None:  # type: ignore[no-untyped-def]
    model = learned(of)
    assert forecasts(model, rooms, queue)[:n] == forecasts(model, rooms, queue[:n])


@given(days, st.lists(room, min_size=1, max_size=4), st.lists(waiting, max_size=8))
def test_who_goes_before_later_makes_nobody_earlier(of, rooms, queue) -> None:  # type: ignore[no-untyped-def]
    model = learned(of)
    plain = forecasts(model, rooms, queue)
    for calm, busy in zip(plain, forecasts(model, rooms, queue, Arrivals(0.001, "first")), strict=True):
        if calm is not None and busy is not None:
            assert busy.mu + busy.sigma**2 / 2 >= calm.mu + calm.sigma**2 / 2 - 1e-9


@given(days, st.randoms(use_true_random=False))
def test_the_order_of_days_does_not_matter_and_neither_does_storing_them(of, chance) -> None:  # type: ignore[no-untyped-def]
    tallies = [tally(day, ServiceModel()) for day in of]
    straight = sum(tallies, NOTHING_SEEN)
    chance.shuffle(tallies)
    other = sum(tallies, NOTHING_SEEN)
    assert_alike(straight, other)
    assert tally_of_plain(straight.plain()) == straight
    assert learn(tally_of_plain(straight.plain())) == learn(straight)


def assert_alike(one: Tally, other: Tally) -> None:
    assert set(one.services) == set(other.services)
    for cell, sums in one.services.items():
        same = other.services[cell]
        assert (sums.n, sums.total, sums.squares) == pytest.approx((same.n, same.total, same.squares))
    assert (one.pairs, one.products) == pytest.approx((other.pairs, other.products), abs=1e-6)


@given(days)
def test_what_is_learned_is_possible(of) -> None:  # type: ignore[no-untyped-def]
    model = learned(of)
    assert model.days_differ > 0 and model.practitioners_differ > 0
    for level in (model.everywhere, *model.by_kind.values(), *model.by_doctor.values()):
        assert 20 < math.exp(level.mu) < 4 * 3_600
        assert level.variance > 0 and level.doubt > 0
    for pause in model.pauses.values():
        assert 0 <= pause.chance <= 1 and pause.mean >= 0 and pause.variance >= 0


@given(room, st.floats(0, 20_000), st.floats(1, 20_000))
def test_time_that_passes_never_puts_the_end_earlier(door: Room, elapsed: float, more: float) -> None:
    """Of what has lasted long, more is left than was expected of it; it never "should be over by now"."""
    model, queue = ServiceModel(), [Waiting("first")]
    now = replace(door, serving="first", elapsed_seconds=elapsed, since_open_seconds=elapsed)
    later = replace(now, elapsed_seconds=elapsed + more, since_open_seconds=elapsed + more)
    first, second = (forecasts(model, [one], queue)[0] for one in (now, later))
    assert first is not None and second is not None
    ends = [math.exp(one.mu + one.sigma**2 / 2) for one in (first, second)]
    assert ends[1] + more >= ends[0] * (1 - 1e-6) - 1


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(-9, 9)), max_size=80), st.integers(1, 40))
def test_a_correction_is_in_order_and_adds_up(seen: list[tuple[int, float]], at: int) -> None:
    whole = calibration(seen)
    lower, middle, upper = whole.correction().at(at)
    assert -4 <= lower <= middle <= upper <= 4
    parts = calibration(seen[::2]) + calibration(seen[1::2])
    for mine, theirs in zip(whole.counts, parts.counts, strict=True):
        assert mine == pytest.approx(theirs)
    assert sum(map(sum, whole.counts)) == pytest.approx(len(seen))


@given(st.lists(st.floats(0, 10), min_size=BINS, max_size=BINS).filter(any))
def test_quantiles_rise_with_their_level(counts: list[float]) -> None:
    for low, high in pairwise(quantile(counts, level / 20) for level in range(21)):
        assert low <= high + 1e-9


def test_the_knots_are_in_order() -> None:
    assert list(KNOTS) == sorted(set(KNOTS)) and KNOTS[-1] == DISTANCE_MAX
    assert sum(NORMAL) == pytest.approx(1)
