"""Keeping forecasts honest: what past ones were worth corrects the next, and is shown.

A forecast of a waiting time is a log-normal distribution; what came of it is a z: by how many of its own
standard deviations the logarithm was off. Were the forecasts perfect, the z of many would be standard
normal. They are not (successive consultations are alike, pauses have long tails), so the z that were seen,
by how far ahead the forecast looked, take the normal's place: the forecast's P90 lies where nine in ten of
the past z lay. That is the recalibration of Kuleshov, Fenner and Ermon (2018); in the words of conformal
prediction (Romano et al. 2019, Barber et al. 2023), the z is the score, normalised and weighted by age.

Only forecasts whose outcome is known take part; so nothing of the future, nor of the same day if the caller
adds it at night, can leak in. All is counts in bins: they add up, and fade by a factor.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import erf, log, sqrt
from typing import Final

KNOTS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 21)
"""Distances (people ahead for each open room) at which z are gathered; between two, both share."""
DISTANCE_MAX: Final = KNOTS[-1]
STEPS: Final = 4
"""Between one distance and the next: with three rooms, the second in the queue is 1.33 turns away."""
Z_MAX: Final = 4.0
BINS: Final = 160
WIDTH: Final = 2 * Z_MAX / BINS
PRIOR_FORECASTS: Final = 60.0
"""So many, as at the knot before (at the first: perfect ones), are believed in before any was seen."""
LEVELS: Final = (0.1, 0.5, 0.9)
KEPT: Final = 0.98
"""What a day's counts keep of their weight with every day that follows: half of it for 34 days."""

Counts = tuple[float, ...]


@cache
def _share(distance: float) -> tuple[tuple[int, float], ...]:
    """Which knots a distance belongs to, and how much to each: linear in the logarithm."""
    if distance <= KNOTS[0]:
        return ((0, 1.0),)
    if distance >= DISTANCE_MAX:
        return ((len(KNOTS) - 1, 1.0),)
    right = bisect_right(KNOTS, distance)
    low, high = KNOTS[right - 1], KNOTS[right]
    upper = log(distance / low) / log(high / low)
    return ((right - 1, 1.0 - upper), (right, upper)) if upper else ((right - 1, 1.0),)


def _normal() -> Counts:
    edges = [0.5 * (1 + erf((-Z_MAX + n * WIDTH) / sqrt(2))) for n in range(BINS + 1)]
    edges[0], edges[-1] = 0.0, 1.0
    return tuple(above - below for below, above in zip(edges, edges[1:], strict=False))


NORMAL: Final = _normal()


def quantile(counts: Sequence[float], level: float) -> float:
    """The z below which `level` of the counted lie, straight within a bin."""
    wanted, below = level * sum(counts), 0.0
    for n, count in enumerate(counts):
        if count > 0 and below + count >= wanted:
            return -Z_MAX + (n + (wanted - below) / count) * WIDTH
        below += count
    return Z_MAX


@dataclass(frozen=True, slots=True)
class Correction:
    """The z of P10, P50 and P90 at every distance up to DISTANCE_MAX, by steps; index 0 stands for 1."""

    lower: tuple[float, ...]
    middle: tuple[float, ...]
    upper: tuple[float, ...]

    def at(self, distance: float) -> tuple[float, float, float]:
        index = _step(distance)
        return self.lower[index], self.middle[index], self.upper[index]


def _step(distance: float) -> int:
    return round((min(max(distance, 1.0), DISTANCE_MAX) - 1) * STEPS)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The z of past forecasts, counted by knot."""

    counts: tuple[Counts, ...] = ((0.0,) * BINS,) * len(KNOTS)

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(
            tuple(
                tuple(a + b for a, b in zip(mine, theirs, strict=True))
                for mine, theirs in zip(self.counts, other.counts, strict=True)
            )
        )

    def faded(self, factor: float) -> "Calibration":
        return Calibration(tuple(tuple(count * factor for count in counts) for counts in self.counts))

    def correction(self) -> Correction:
        before, found = NORMAL, []
        for counts in self.counts:
            # What is little known at this distance is believed to be as at the one before.
            knot = [count + PRIOR_FORECASTS * prior for count, prior in zip(counts, before, strict=True)]
            n = sum(knot)
            before = tuple(count / n for count in knot)
            found.append([quantile(before, level) for level in LEVELS])
        lower, middle, upper = (_between(knots) for knots in zip(*found, strict=True))
        return Correction(lower, middle, upper)

    def plain(self) -> list[list[float]]:
        """As lists of numbers, to be stored: `Calibration(tuple(map(tuple, plain)))` reads it."""
        return [list(counts) for counts in self.counts]


def _between(knots: Sequence[float]) -> tuple[float, ...]:
    steps = range((DISTANCE_MAX - 1) * STEPS + 1)
    return tuple(sum(weight * knots[n] for n, weight in _share(1 + step / STEPS)) for step in steps)


UNCORRECTED: Final = Calibration().correction()


class Gathering:
    """Counts z as they become known, to make a `Calibration` of (a day's, say)."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [[0.0] * BINS for _ in KNOTS]

    def add(self, distance: float, z: float) -> None:
        n = min(BINS - 1, max(0, int((z + Z_MAX) / WIDTH)))
        for knot, weight in _share(1 + _step(distance) / STEPS):
            self._counts[knot][n] += weight

    def calibration(self) -> Calibration:
        return Calibration(tuple(tuple(counts) for counts in self._counts))


@dataclass(frozen=True, slots=True)
class Score:
    """How good estimates were: sums over them, in seconds, that add up day by day."""

    n: int = 0
    below_p10: int = 0
    below_p50: int = 0
    below_p90: int = 0
    error: float = 0.0  # of P50: how much too long
    absolute_error: float = 0.0
    pinball_p50: float = 0.0
    pinball_p90: float = 0.0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.n + other.n,
            self.below_p10 + other.below_p10,
            self.below_p50 + other.below_p50,
            self.below_p90 + other.below_p90,
            self.error + other.error,
            self.absolute_error + other.absolute_error,
            self.pinball_p50 + other.pinball_p50,
            self.pinball_p90 + other.pinball_p90,
        )

    @property
    def coverage_p10(self) -> float | None:
        return self.below_p10 / self.n if self.n else None

    @property
    def coverage_p50(self) -> float | None:
        return self.below_p50 / self.n if self.n else None

    @property
    def coverage_p90(self) -> float | None:
        return self.below_p90 / self.n if self.n else None

    @property
    def mean_absolute_error_seconds(self) -> float | None:
        return self.absolute_error / self.n if self.n else None

    @property
    def bias_seconds(self) -> float | None:
        return self.error / self.n if self.n else None


def score(p10_seconds: float, p50_seconds: float, p90_seconds: float, waited_seconds: float) -> Score:
    """Of one estimate."""
    return Score(
        n=1,
        below_p10=int(waited_seconds <= p10_seconds),
        below_p50=int(waited_seconds <= p50_seconds),
        below_p90=int(waited_seconds <= p90_seconds),
        error=p50_seconds - waited_seconds,
        absolute_error=abs(p50_seconds - waited_seconds),
        pinball_p50=pinball(0.5, p50_seconds, waited_seconds),
        pinball_p90=pinball(0.9, p90_seconds, waited_seconds),
    )


def pinball(level: float, foretold: float, came: float) -> float:
    """The loss that only the true quantile makes smallest (Koenker and Bassett 1978)."""
    return (came - foretold) * level if came >= foretold else (foretold - came) * (1 - level)


@dataclass(frozen=True, slots=True)
class Report:
    """Scores by day and by distance; distances beyond DISTANCE_MAX count as that."""

    scores: Mapping[tuple[str, int], Score] = field(default_factory=dict)

    def after(self, day: str, distance: float, scored: Score) -> "Report":
        key = (day, min(max(round(distance), 1), DISTANCE_MAX))
        return Report({**self.scores, key: self.scores.get(key, Score()) + scored})

    def __add__(self, other: "Report") -> "Report":
        merged = dict(self.scores)
        for key, scored in other.scores.items():
            merged[key] = merged.get(key, Score()) + scored
        return Report(merged)

    def by_distance(self, since: str = "") -> dict[int, Score]:
        """Over the days from `since` on (ISO dates)."""
        found: dict[int, Score] = {}
        for (day, distance), scored in self.scores.items():
            if day >= since:
                found[distance] = found.get(distance, Score()) + scored
        return dict(sorted(found.items()))

    def by_day(self, since: str = "") -> dict[str, Score]:
        found: dict[str, Score] = {}
        for (day, _), scored in self.scores.items():
            if day >= since:
                found[day] = found.get(day, Score()) + scored
        return dict(sorted(found.items()))
