"""The load is what the quoted figures say: totals, peaks, and the same again for the same seed."""

import os

# Locust would put gevent under everything that other tests import.
os.environ.setdefault("LOCUST_SKIP_MONKEY_PATCH", "1")

from collections import Counter

import pytest

from benchmarks import shapes
from benchmarks.shapes import BrowseHeavy, MondayPeak, Morning, ReleaseRush

QUARTERS = 18  # 07:30 to 12:00
PEAK_QUARTER = 4  # 08:30


def test_the_busiest_quarter_hour_of_a_monday_is_half_past_eight() -> None:
    morning = shapes.monday_morning()
    assert len(morning.weights) == QUARTERS
    assert max(range(QUARTERS), key=morning.weights.__getitem__) == PEAK_QUARTER
    assert max(morning.weights) == pytest.approx(3491 * 0.04891)
    assert shapes.real_peak_per_second() == pytest.approx(0.18972, abs=1e-5)


def test_a_mondays_morning_has_44_percent_of_its_visits() -> None:
    assert sum(shapes.monday_morning().weights) == pytest.approx(3491 * 0.44154)


@pytest.mark.parametrize(
    ("weekday", "factor"), [("Tuesday", 1.018), ("Wednesday", 1.007), ("Thursday", 0.957), ("Friday", 0.881)]
)
def test_weekdays_differ_by_their_factors(weekday: str, factor: float) -> None:
    monday, other = sum(shapes.monday_morning().weights), sum(shapes.weekday_morning(weekday).weights)
    assert monday / other == pytest.approx(1.249 / factor, rel=1e-3)


def test_people_book_at_the_hours_quoted() -> None:
    assert shapes.booking_morning().weights == (0.0143, 0.1738, 0.1389, 0.116, 0.1, 0.0766)


@pytest.mark.parametrize("shape", [MondayPeak, BrowseHeavy])
def test_the_peak_is_as_asked_and_the_rest_in_proportion(shape: type[Morning]) -> None:
    load = shape(seconds=90, peak_requests_per_second=800, seed=1)
    peak = 800 / shape.requests_per_journey
    steps = len(shape.curve.weights)
    width = 90 / steps
    counts = Counter(int(at / width) for at in load.starts())
    for step, weight in enumerate(shape.curve.weights):
        assert counts[step] == pytest.approx(peak * width * weight / max(shape.curve.weights), abs=1)
        assert load.rate((step + 0.5) * width) * width == pytest.approx(counts[step], abs=1)
    assert max(counts.values()) == pytest.approx(peak * width, abs=1)
    assert load.rate(-0.1) == load.rate(90.0) == 0


def test_a_monday_in_25_seconds_in_numbers() -> None:
    # 100 journeys/s x 25 s / 18 quarters at the peak, and 0.44154 / 0.04891 times that in all.
    load = MondayPeak(seconds=25, peak_requests_per_second=100 * MondayPeak.requests_per_journey, seed=1)
    assert len(load.starts()) == round(100 * 25 / 18 * 0.44154 / 0.04891) == 1254


def test_the_same_seed_gives_the_same_journeys_and_another_seed_as_many() -> None:
    one, same, other = (MondayPeak(25, 500, seed).starts() for seed in (1, 1, 2))
    assert one == same == sorted(one)
    assert one != other
    assert len(one) == len(other)


def test_a_release_is_one_instant_for_the_whole_crowd() -> None:
    rush = ReleaseRush(seconds=24, crowd=500, waves=3)
    assert Counter(rush.starts()) == {3.0: 500, 11.0: 500, 19.0: 500}
    assert rush.phones == 500


def test_lead_times_and_no_shows_are_those_quoted() -> None:
    weights = shapes.lead_weights(14)
    assert len(weights) == 14
    assert weights[:4] == [0.3489, 0.0472, 0.0608, 0.0248]
    assert sum(weights[4:8]) == pytest.approx(0.1584)
    assert sum(weights[8:]) == pytest.approx(0.1088 * 6 / 7)
    assert [shapes.no_show_rate(lead) for lead in (0, 1, 7, 8, 90)] == [0.0465, 0.2135, 0.252, 0.3047, 0.2845]


def test_phones_come_first_and_go_when_all_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    load = MondayPeak(seconds=25, peak_requests_per_second=700, seed=1)
    now = 0.0
    monkeypatch.setattr(load, "get_run_time", lambda: now)
    assert load.tick() == (load.phones, shapes.PHONES_PER_SECOND)
    assert load.clock_starts >= load.phones / shapes.PHONES_PER_SECOND
    now = load.clock_starts + load.seconds + shapes.DRAIN_SECONDS
    assert load.tick() is not None
    now += 0.1
    assert load.tick() is None
