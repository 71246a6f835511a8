"""What the load looks like over time: three locust shapes, built from the figures of arrivals.json.

The load is open: each shape says at which second each *journey* begins (one person who books), and nobody
waits for the system to be ready for them. Locust's users are only the phones that journeys are made on; a
shape asks for as many as may be needed at once. Times are seconds since the clock started, rates are journeys
a second. Everything is a function of the arguments: the same seed gives the same journeys.
"""

import json
import random
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from locust import LoadTestShape

FIGURES: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "arrivals.json").read_text())
QUARTER_SECONDS: Final = 15 * 60

PHONES_PER_SECOND: Final = 200  # how fast locust makes users: more would stall it
SETTLE_SECONDS: Final = 1.0  # between the last phone and the first journey
DRAIN_SECONDS: Final = 12.0  # the longest that the last journey may take


@dataclass(frozen=True, slots=True)
class Curve:
    """A rate that is constant within each of equally long steps."""

    weights: tuple[float, ...]
    """Journeys of each step, in any unit."""

    @property
    def peak_share(self) -> float:
        """The largest step's share of everything."""
        return max(self.weights) / sum(self.weights)

    def total(self, seconds: float, peak_per_second: float) -> int:
        """Journeys in all, when the curve is squeezed into so many seconds with so high a peak."""
        return round(peak_per_second * seconds / len(self.weights) / self.peak_share)

    def rate(self, second: float, seconds: float, peak_per_second: float) -> float:
        step = int(second / seconds * len(self.weights))
        inside = 0 <= second < seconds
        return peak_per_second * self.weights[step] / max(self.weights) if inside else 0.0

    def starts(self, seconds: float, peak_per_second: float, seed: int) -> list[float]:
        """When each journey begins. Each step has its exact share (largest remainder); within a step the
        times are uniform and independent, as a Poisson process' are once their number is known."""
        chance = random.Random(seed)
        width = seconds / len(self.weights)
        counts = _apportioned(self.weights, self.total(seconds, peak_per_second))
        return sorted(
            (step + chance.random()) * width for step, count in enumerate(counts) for _ in range(count)
        )


def monday_morning() -> Curve:
    """07:30 to 12:00 by quarter hours: visits of an average Monday that begin in each."""
    return weekday_morning("Monday")


def weekday_morning(weekday: str) -> Curve:
    """The days of a working week share one profile and differ in how many come."""
    arrivals = FIGURES["arrivals"]
    visits = arrivals["visits_per_day"][weekday]
    return Curve(tuple(visits * share for share in arrivals["share_by_quarter_hour"].values()))


def booking_morning() -> Curve:
    """06:00 to 12:00 by the hour: the share of a day's bookings that are made in each."""
    return Curve(tuple(FIGURES["booking_hours"]["share_by_hour"][str(hour)] for hour in range(6, 12)))


def real_peak_per_second() -> float:
    """Visits a second in the busiest quarter hour of that hospital's Monday: what a peak is a multiple of."""
    return max(monday_morning().weights) / QUARTER_SECONDS


def lead_weights(days: int) -> list[float]:
    """The share of bookings made so many days ahead, for 0 to `days` - 1; a row's share is spread evenly."""
    weights = [0.0] * days
    for row in FIGURES["lead_days"]["rows"]:
        last = days if row["last"] is None else row["last"]
        for lead in range(row["first"], min(last, days - 1) + 1):
            weights[lead] = row["share"] / (last - row["first"] + 1)
    return weights


def no_show_rate(lead: int) -> float:
    """The probability that somebody who booked `lead` days ahead does not come."""
    rows = FIGURES["lead_days"]["rows"]
    rate: float = rows[bisect_right([row["first"] for row in rows], lead) - 1]["no_show"]
    return rate


class Journeys(LoadTestShape):
    """Phones first, then the clock starts and journeys begin by themselves. Locust calls `tick`."""

    abstract: ClassVar[bool] = True
    title: ClassVar[str]
    requests_per_journey: ClassVar[float]
    """Measured; turns a peak of requests into one of journeys."""
    seconds: float
    phones: int

    @abstractmethod
    def starts(self) -> list[float]:
        """The second at which each journey begins, ascending."""

    @abstractmethod
    def rate(self, second: float) -> float:
        """Journeys a second that are meant to begin."""

    @property
    def clock_starts(self) -> float:
        """Seconds from locust's start to second 0 of the shape."""
        return self.phones / PHONES_PER_SECOND + SETTLE_SECONDS

    def tick(self) -> tuple[int, float] | None:
        over = self.get_run_time() > self.clock_starts + self.seconds + DRAIN_SECONDS
        return None if over else (self.phones, PHONES_PER_SECOND)


class Morning(Journeys):
    abstract: ClassVar[bool] = True
    reads: ClassVar[int]
    """Of each person before they book."""
    journey_seconds_max: ClassVar[float]
    """How long a journey takes when all is well, with some to spare: phones = peak x this."""
    curve: ClassVar[Curve]
    morning: ClassVar[tuple[float, float]]
    """The hours that the curve covers."""

    def __init__(self, seconds: float, peak_requests_per_second: float, seed: int) -> None:
        super().__init__()
        self.seconds = seconds
        self.peak = peak_requests_per_second / self.requests_per_journey
        self.phones = max(10, round(self.peak * self.journey_seconds_max))
        self.seed = seed

    def starts(self) -> list[float]:
        return self.curve.starts(self.seconds, self.peak, self.seed)

    def rate(self, second: float) -> float:
        return self.curve.rate(second, self.seconds, self.peak)


class MondayPeak(Morning):
    """A Monday morning, 07:30 to 12:00, squeezed into `seconds`: everybody looks around, books, and some
    cancel. The arrivals at one hospital's door stand for the demand for numbers, which nobody publishes."""

    abstract = False
    title = "Monday peak"
    requests_per_journey = 7.0
    reads = 4
    journey_seconds_max = 4.0
    curve = monday_morning()
    morning = (7.5, 12.0)


class BrowseHeavy(Morning):
    """A morning of looking: 20 reads to one booking, at the hours at which people book (06:00 to 12:00)."""

    abstract = False
    title = "Browse-heavy morning"
    requests_per_journey = 20.7
    reads = 20
    journey_seconds_max = 8.0
    curve = booking_morning()
    morning = (6.0, 12.0)


class ReleaseRush(Journeys):
    """Numbers are released and a whole crowd wants the same few famous doctors at the same instant.

    `waves` releases, `seconds / waves` apart, each of other doctors.
    """

    abstract = False
    title = "Release rush"
    requests_per_journey = 4.0
    first_release: Final = 3.0  # seconds: before it, the crowd looks at the slots

    def __init__(self, seconds: float, crowd: int, waves: int) -> None:
        super().__init__()
        self.seconds = seconds
        self.phones = self.crowd = crowd
        self.waves = waves

    def releases(self) -> list[float]:
        return [self.first_release + wave * self.seconds / self.waves for wave in range(self.waves)]

    def starts(self) -> list[float]:
        return [at for at in self.releases() for _ in range(self.crowd)]

    def rate(self, second: float) -> float:
        """Of the whole second in which a release falls."""
        return float(self.crowd) if any(int(at) == int(second) for at in self.releases()) else 0.0


def _apportioned(weights: Sequence[float], total: int) -> list[int]:
    """`total` split like the weights, in whole numbers: the largest remainders get what is left over."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(x) for x in exact]
    by_remainder = sorted(range(len(exact)), key=lambda n: (counts[n] - exact[n], n))
    for n in by_remainder[: total - sum(counts)]:
        counts[n] += 1
    return counts
