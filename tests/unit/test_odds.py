"""The chance of a waiting list: what it must never say, and whether it comes true in a simulated hospital."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.odds import (
    ASSUMED,
    NOTHING_SEEN,
    SEATS_MAX,
    STRETCHES,
    Place,
    Rates,
    Returns,
    Seen,
    at_least,
    chance,
    comes_back,
    learn,
)
from tests.support.no_shows import REAL
from web.no_shows import read

probability = st.floats(0, 1)
place = st.builds(Place, st.integers(0, 4), st.lists(probability, max_size=12).map(tuple), st.integers(0, 8))
TOLERANCE = 1e-9


@given(st.lists(probability, max_size=7), st.integers(0, 8))
def test_at_least_is_the_sum_over_all_ways(chances: list[float], wanted: int) -> None:
    exact = sum(
        math.prod(p if happens else 1 - p for p, happens in zip(chances, way, strict=True))
        for way in product((True, False), repeat=len(chances))
        if sum(way) >= wanted
    )
    assert at_least(chances, wanted) == pytest.approx(exact, abs=TOLERANCE)


@given(st.lists(place, max_size=4), st.integers(1, 4), st.integers(0, 8))
def test_a_chance_is_one(places: list[Place], people: int, ahead: int) -> None:
    assert 0 <= chance(places, people, ahead) <= 1


@given(st.lists(place, min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 8), st.data())
def test_it_falls_with_everybody_who_stands_ahead(
    places: list[Place], people: int, ahead: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, len(places) - 1))
    more = [replace(p, ahead=p.ahead + 1) if n == i else p for i, p in enumerate(places)]
    assert chance(more, people, ahead + 1) <= chance(places, people, ahead) + TOLERANCE
    assert chance(places, people + 1, ahead) <= chance(places, people, ahead) + TOLERANCE


@given(st.lists(place, min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 8), probability)
def test_it_grows_with_every_seat_and_every_place(
    places: list[Place], people: int, ahead: int, p: float
) -> None:
    before = chance(places, people, ahead)
    first, *rest = places
    assert chance([replace(first, taken=(*first.taken, p)), *rest], people, ahead) >= before - TOLERANCE
    assert chance([replace(first, free=first.free + 1), *rest], people, ahead) >= before - TOLERANCE
    assert chance([*places, Place(0, (p,), 0)], people, ahead) >= before - TOLERANCE


@given(st.lists(place, max_size=3), st.integers(1, 4), st.integers(0, 8))
def test_who_is_next_at_a_free_seat_is_certain(places: list[Place], people: int, ahead: int) -> None:
    assert chance([*places, Place(people, (), 0)], people, ahead) == 1


def test_nowhere_there_is_none() -> None:
    assert chance([], 1, 0) == 0
    assert chance([Place(0, (0.5,) * 3, 3)], 1, 3) == 0


def test_a_crowd_of_seats_is_looked_at_in_part_and_never_overrated() -> None:
    many = [0.01] * (SEATS_MAX * 3)
    assert at_least(many, 3) == at_least(many[:SEATS_MAX], 3)
    assert at_least([*many, 0.9], 3) > at_least(many, 3)


def test_seats_come_back_by_the_hours_that_are_left() -> None:
    flat: Rates = (0.01,) * len(ASSUMED)
    assert comes_back(flat, 10, 2) == pytest.approx(1 - math.exp(-0.08))
    assert comes_back(flat, 400, 0) == pytest.approx(1 - math.exp(-4.0))
    assert comes_back(flat, 1, 2) == 0  # the list has closed
    last_day: Rates = (0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0)  # 12 to 24 hours before
    assert comes_back(last_day, 24, 0) == comes_back(last_day, 300, 12)
    assert comes_back(last_day, 12, 0) == 0


def test_what_is_rare_borrows_from_the_rest() -> None:
    stretches = len(ASSUMED)
    often = Seen((50_000.0,) * stretches, (1_000,) * stretches)
    rare = Seen((10.0,) * stretches, (0,) * stretches)
    learned = learn({"expert": often, "special": rare})
    assert learned.of("expert")[0] == pytest.approx(0.02, rel=0.1)
    assert learned.of("special")[0] == pytest.approx(learned.everywhere[0], rel=0.02)
    assert learned.of("unheard of") == learned.everywhere
    assert learn({}).everywhere == ASSUMED == learn({"x": NOTHING_SEEN}).everywhere
    assert Returns().of("expert") == ASSUMED


# Does it come true? A hospital whose true rates nobody is told: half of its history is learned from, wishes
# of the other half are foretold, and what happened is compared. `frailty`: sessions differ, so that seats are
# not independent; then the chance may be wrong, and this says by how much. No public data has the moments of
# cancels; the lead times are those of real appointments where the file is there (docs/WAITLIST.md).

TRUE: Rates = (0.0004, 0.0008, 0.004, 0.005, 0.003, 0.001, 0.0005, 0.0003)
SEATS, CLOSES = 12, 2.0


def returned_at(rng: random.Random, taken: float, faster: float) -> float | None:
    """Hours before the visit at which a seat comes back that was taken `taken` hours before; None: never."""
    left = rng.expovariate(1.0)
    for n in range(len(TRUE) - 1, -1, -1):
        hours = max(0.0, min(STRETCHES[n + 1], taken) - STRETCHES[n])
        rate = TRUE[n] * faster
        if rate * hours > left:
            return min(STRETCHES[n + 1], taken) - left / rate
        left -= rate * hours
    return None


Tenths = list[tuple[float, float, int]]


def calibration(
    seed: int, frailty: float, sessions: int = 3_000, leads: list[float] | None = None
) -> tuple[float, Tenths]:
    """Mean squared error, and by tenths of the chance: (foretold, came true, how many)."""
    rng = random.Random(seed)
    hours, returns = [0.0] * len(TRUE), [0] * len(TRUE)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    learned = Returns()
    for session in range(2 * sessions):
        faster = rng.gammavariate(1 / frailty, frailty) if frailty else 1.0
        seats = []
        for _ in range(SEATS):
            taken = rng.choice(leads) if leads else 24 * (1 + rng.expovariate(1 / 6))
            seats.append((taken, returned_at(rng, taken, faster)))
        if session < sessions:
            for taken, back in seats:
                for n in range(len(TRUE)):
                    hours[n] += max(0.0, min(STRETCHES[n + 1], taken) - max(STRETCHES[n], back or 0.0))
                    returns[n] += back is not None and STRETCHES[n] <= back < STRETCHES[n + 1]
            continue
        if session == sessions:
            learned = learn({"expert": Seen(tuple(hours), tuple(returns))})
        now, ahead = 6 + rng.random() * 150, rng.randrange(4)
        here = [back for taken, back in seats if taken > now and (back is None or back < now)]
        seat = comes_back(learned.of("expert"), now, CLOSES)
        foretold = chance([Place(0, (seat,) * len(here), ahead)], 1, ahead)
        came = sum(back is not None and back > CLOSES for back in here) > ahead
        bins[min(9, int(foretold * 10))].append((foretold, came))
    error = sum((f - c) ** 2 for b in bins for f, c in b) / sum(map(len, bins))
    return error, [
        (sum(f for f, _ in b) / len(b), sum(c for _, c in b) / len(b), len(b)) for b in bins if len(b) >= 60
    ]


def test_what_is_foretold_comes_true_as_often() -> None:
    error, tenths = calibration(seed=1, frailty=0.0)
    assert len(tenths) >= 7
    for foretold, true, n in tenths:
        assert abs(foretold - true) < 4 * math.sqrt(foretold * (1 - foretold) / n) + 0.02, tenths
    assert error < 0.16


def test_where_seats_return_together_it_errs_by_a_bounded_much() -> None:
    _, tenths = calibration(seed=2, frailty=0.3)
    of = sum(n for _, _, n in tenths)
    assert sum(abs(foretold - true) * n for foretold, true, n in tenths) / of < 0.05, tenths
    assert max(abs(foretold - true) for foretold, true, _ in tenths) < 0.2, tenths


def real_leads() -> list[float]:
    """Hours from the booking to a visit at ten, of the public data set, where that was a day or more."""
    rows = read(REAL, 20_000).rows
    leads = [(datetime.combine(r.day, time(10), UTC) - r.scheduled).total_seconds() / 3600 for r in rows]
    return [hours for hours in leads if hours > 24]


@pytest.mark.skipif(not REAL.exists(), reason="the data set is not here")
def test_it_comes_true_with_the_lead_times_of_real_appointments() -> None:
    _, tenths = calibration(seed=1, frailty=0.0, leads=real_leads())
    for foretold, true, n in tenths:
        assert abs(foretold - true) < 4 * math.sqrt(foretold * (1 - foretold) / n) + 0.02, tenths
