"""How long a consultation takes: learned per practitioner and visit kind, from finished ones.

The model is log-normal: consultation times have been found so wherever they were looked at (Cayirli and
Veral 2003; the real ones of docs/WAITING_TIME.md too). In logarithms of seconds

    time = level(practitioner, kind) + course(stretch of the session) + pace(practitioner, today) + rest

* The level is drawn towards the department's and that towards the hospital's (empirical Bayes; Efron and
  Morris 1975): n consultations of variance s2 outweigh the prior by n to s2 / t2, where t2 is how far
  practitioners differ, estimated by moments (DerSimonian and Laird 1986) beside a few assumed ones.
* The course is how the same practitioner quickens or slows while a session goes on; drawn towards nothing
  in the same way, level by level. Level and course are fitted in turns (backfitting; Hastie and Tibshirani).
* The pace is what makes successive consultations of one day alike. Its variance is the mean product of two
  different residuals of one day, each against what was known that morning; its value is learned during the day.

Between two consultations there may be a pause: with some probability, and then log-normal too.

A `Tally` is all that must be kept: sums, which add up day by day and fade by a factor.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import erfc, exp, expm1, log, sqrt
from typing import Final

STRETCH_SECONDS: Final = 1_800
STRETCHES: Final = 12
"""Half hours since the session began; the last one has no end."""
SERVICE_SECONDS_MIN: Final = 20.0
SERVICE_SECONDS_MAX: Final = 4 * 3_600.0
"""Outside of these nobody was served, or nobody pressed the button; such a visit teaches nothing."""
PAUSE_SECONDS_MIN: Final = 1.0
PAUSE_SECONDS_MAX: Final = 2 * 3_600.0

# What is assumed before anything was seen, and how many consultations (or groups) would outweigh it.
ASSUMED_SECONDS: Final = 600.0
ASSUMED_VARIANCE: Final = 0.2  # of the logarithm: nine in ten between half and twice the median
ASSUMED_PAUSES: Final = 0.1
ASSUMED_PAUSE_SECONDS: Final = 300.0
ASSUMED_PAUSE_VARIANCE: Final = 1.0
DEPARTMENTS_DIFFER: Final = 0.09  # variance of their levels: by a third
PRACTITIONERS_DIFFER: Final = 0.04  # by a fifth
DAYS_DIFFER: Final = 0.01  # by a tenth
COURSES_DIFFER: Final = 0.005
PRIOR_VISITS: Final = 30.0
PRIOR_GROUPS: Final = 4.0
PRIOR_PAIRS: Final = 2_000.0
SWEEPS: Final = 4


@dataclass(frozen=True, slots=True)
class Visit:
    """A consultation that is over."""

    department_id: str
    practitioner_id: str
    kind: str
    service_seconds: float
    pause_seconds: float  # until the next one was served, where somebody waited for that; else 0
    since_open_seconds: float  # from the beginning of the session to the beginning of this


@dataclass(frozen=True, slots=True)
class Sums:
    """Of logarithms: how many, their sum, the sum of their squares."""

    n: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def times(self, factor: float) -> "Sums":
        return Sums(self.n * factor, self.total * factor, self.squares * factor)


NONE_SEEN: Final = Sums()
Cell = tuple[str, str, str, int]
"""Department, practitioner, kind, stretch."""
Doctor = tuple[str, str]
"""Department and practitioner: the same person may work differently elsewhere."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What some days have shown. `passes`: consultations after which a pause was possible."""

    services: Mapping[Cell, Sums] = field(default_factory=dict)
    pauses: Mapping[Doctor, Sums] = field(default_factory=dict)
    passes: Mapping[Doctor, float] = field(default_factory=dict)
    pairs: float = 0.0
    products: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        services, pauses, passes = dict(self.services), dict(self.pauses), dict(self.passes)
        for cell, sums in other.services.items():
            services[cell] = services.get(cell, NONE_SEEN) + sums
        for doctor, sums in other.pauses.items():
            pauses[doctor] = pauses.get(doctor, NONE_SEEN) + sums
        for doctor, n in other.passes.items():
            passes[doctor] = passes.get(doctor, 0.0) + n
        return Tally(services, pauses, passes, self.pairs + other.pairs, self.products + other.products)

    def faded(self, factor: float) -> "Tally":
        """Everything counts `factor` of what it did: old days step back behind new ones."""
        return Tally(
            {cell: sums.times(factor) for cell, sums in self.services.items()},
            {doctor: sums.times(factor) for doctor, sums in self.pauses.items()},
            {doctor: n * factor for doctor, n in self.passes.items()},
            self.pairs * factor,
            self.products * factor,
        )

    def plain(self) -> dict[str, list[list[str | int | float]]]:
        """As lists of strings and numbers, to be stored; `tally_of_plain` reads it."""
        return {
            "services": [[*cell, s.n, s.total, s.squares] for cell, s in self.services.items()],
            "pauses": [[*doctor, s.n, s.total, s.squares] for doctor, s in self.pauses.items()],
            "passes": [[*doctor, n] for doctor, n in self.passes.items()],
            "pairs": [[self.pairs, self.products]],
        }


NOTHING_SEEN: Final = Tally()


def tally_of_plain(plain: Mapping[str, Sequence[Sequence[str | int | float]]]) -> Tally:
    def sums(row: Sequence[str | int | float]) -> Sums:
        n, total, squares = (float(value) for value in row[-3:])
        return Sums(n, total, squares)

    pairs, products = (float(value) for value in plain["pairs"][0])
    return Tally(
        {(str(r[0]), str(r[1]), str(r[2]), int(r[3])): sums(r) for r in plain["services"]},
        {(str(r[0]), str(r[1])): sums(r) for r in plain["pauses"]},
        {(str(r[0]), str(r[1])): float(r[2]) for r in plain["passes"]},
        pairs,
        products,
    )


def stretch(since_open_seconds: float) -> int:
    return min(STRETCHES - 1, max(0, int(since_open_seconds // STRETCH_SECONDS)))


def counts(visit: Visit) -> bool:
    return SERVICE_SECONDS_MIN <= visit.service_seconds <= SERVICE_SECONDS_MAX


def tally(visits: Iterable[Visit], model: "ServiceModel") -> Tally:
    """One day's. `model` is the one of that morning, which had not seen it: the pace is measured against it."""
    services: dict[Cell, Sums] = {}
    pauses: dict[Doctor, Sums] = {}
    passes: dict[Doctor, float] = {}
    paces: dict[Doctor, Sums] = {}
    for visit in visits:
        if not counts(visit):
            continue
        doctor = (visit.department_id, visit.practitioner_id)
        cell = (*doctor, visit.kind, stretch(visit.since_open_seconds))
        services[cell] = services.get(cell, NONE_SEEN) + _one(log(visit.service_seconds))
        residual = model.residual(visit)
        paces[doctor] = paces.get(doctor, NONE_SEEN) + _one(residual)
        if visit.pause_seconds <= PAUSE_SECONDS_MAX:
            passes[doctor] = passes.get(doctor, 0.0) + 1.0
            if visit.pause_seconds >= PAUSE_SECONDS_MIN:
                pauses[doctor] = pauses.get(doctor, NONE_SEEN) + _one(log(visit.pause_seconds))
    return Tally(
        services,
        pauses,
        passes,
        pairs=sum(s.n * (s.n - 1) for s in paces.values()),
        products=sum(s.total**2 - s.squares for s in paces.values()),
    )


def _one(value: float) -> Sums:
    return Sums(1.0, value, value * value)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A time whose logarithm has this mean and variance."""

    mu: float
    variance: float

    @property
    def mean(self) -> float:
        return exp(self.mu + self.variance / 2)

    @property
    def square(self) -> float:
        """The mean of its square."""
        return exp(2 * self.mu + 2 * self.variance)

    def left(self, elapsed: float) -> tuple[float, float]:
        """Mean and variance of what is left of it after `elapsed` seconds: its partial moments."""
        if elapsed <= 0:
            return self.mean, self.square - self.mean**2
        sigma = sqrt(self.variance)
        at = (self.mu - log(elapsed)) / sigma
        alive = _above(-at)
        if alive < 1e-9:  # far beyond anything seen; it will take about as long again
            return elapsed, elapsed * elapsed
        first = self.mean * _above(-at - sigma) / alive
        second = self.square * _above(-at - 2 * sigma) / alive
        return max(0.0, first - elapsed), max(0.0, second - first * first)


def _above(z: float) -> float:
    """The chance that a standard normal is above z."""
    return 0.5 * erfc(z / sqrt(2))


@dataclass(frozen=True, slots=True)
class Pause:
    """Between two consultations: how often, and how long then."""

    chance: float
    time: LogNormal

    @property
    def mean(self) -> float:
        return self.chance * self.time.mean

    @property
    def variance(self) -> float:
        return self.chance * self.time.square - self.mean**2


@dataclass(frozen=True, slots=True)
class Level:
    """The logarithm of a time: where it is believed to be, the variance of that belief, and of single times."""

    mu: float
    doubt: float
    variance: float


@dataclass(frozen=True, slots=True)
class Pace:
    """What one practitioner's consultations of today have shown: their residuals, added up."""

    n: float = 0.0
    total: float = 0.0

    def after(self, residual: float) -> "Pace":
        return Pace(self.n + 1.0, self.total + residual)


NO_PACE: Final = Pace()

Course = tuple[float, ...]
"""What is added to the level, in each stretch."""
FLAT: Final[Course] = (0.0,) * STRETCHES
UNSEEN: Final = Level(log(ASSUMED_SECONDS), DEPARTMENTS_DIFFER, ASSUMED_VARIANCE)
UNSEEN_PAUSE: Final = Pause(ASSUMED_PAUSES, LogNormal(log(ASSUMED_PAUSE_SECONDS), ASSUMED_PAUSE_VARIANCE))


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """What is believed of one hospital's consultations. Whoever is unknown is as the next bigger group is."""

    everywhere: Level = UNSEEN
    by_kind: Mapping[str, Level] = field(default_factory=dict)
    by_department: Mapping[tuple[str, str], Level] = field(default_factory=dict)  # department, kind
    by_doctor: Mapping[tuple[str, str, str], Level] = field(default_factory=dict)  # with the kind
    courses: Mapping[Doctor | str | None, Course] = field(default_factory=dict)  # None: everywhere
    pauses: Mapping[Doctor | str | None, Pause] = field(default_factory=dict)
    practitioners_differ: float = PRACTITIONERS_DIFFER
    days_differ: float = DAYS_DIFFER

    def level(self, department_id: str, practitioner_id: str, kind: str) -> Level:
        known = self.by_doctor.get((department_id, practitioner_id, kind))
        if known is not None:
            return known
        at = self.by_department.get((department_id, kind))
        more = self.practitioners_differ
        if at is None:
            at, more = self.by_kind.get(kind, self.everywhere), more + DEPARTMENTS_DIFFER
        return Level(at.mu, at.doubt + more, at.variance)

    def course(self, department_id: str, practitioner_id: str) -> Course:
        return _nearest(self.courses, department_id, practitioner_id) or FLAT

    def pause(self, department_id: str, practitioner_id: str) -> Pause:
        return _nearest(self.pauses, department_id, practitioner_id) or UNSEEN_PAUSE

    def residual(self, visit: Visit) -> float:
        """By how much the logarithm of its time was above what was expected."""
        level = self.level(visit.department_id, visit.practitioner_id, visit.kind)
        course = self.course(visit.department_id, visit.practitioner_id)
        return log(visit.service_seconds) - level.mu - course[stretch(visit.since_open_seconds)]

    def today(self, pace: Pace, level: Level) -> tuple[float, float]:
        """How much slower than usual the practitioner is today, in logarithms: mean and variance."""
        weight = level.variance / self.days_differ
        return pace.total / (pace.n + weight), level.variance / (pace.n + weight)


def _nearest[T](of: Mapping[Doctor | str | None, T], department_id: str, practitioner_id: str) -> T | None:
    return of.get((department_id, practitioner_id)) or of.get(department_id) or of.get(None)


def learn(seen: Tally) -> ServiceModel:
    """The model of all that was seen."""
    return ServiceModel()
