"""How long a consultation takes: learned per practitioner and visit kind, from finished ones.

The model is log-normal: consultation times are skewed to the right, and log-normal in many studies (Cayirli
and Veral 2003 review them; the real ones of docs/WAITING_TIME.md are). In logarithms of seconds

    time = level(practitioner, kind) + course(stretch of the session) + pace(practitioner, today) + rest

* The level is drawn towards the department's and that towards the hospital's (empirical Bayes; Efron and
  Morris 1975): n consultations of variance s2 outweigh the prior by n to s2 / t2, where t2 is how far
  practitioners differ, estimated by moments (DerSimonian and Laird 1986) beside a few assumed ones.
* The course is how the same practitioner quickens or slows while a session goes on; drawn towards nothing
  in the same way, group by group. Level and course are fitted in turns (backfitting).
* The pace is what makes the consultations of one day alike. Its variance is the mean product of two different
  residuals of one day, each against what was known that morning; its value is learned while the day goes on.

Between two consultations there may be a pause: with some probability, and then log-normal too.

A `Tally` is all that must be kept: sums, which add up day by day and fade by a factor.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import erfc, exp, log, sqrt
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
PACE_KEPT: Final = 0.9  # of it, from one consultation to the next
COURSES_DIFFER: Final = 0.005
PRIOR_VISITS: Final = 30.0
PRIOR_PAUSES: Final = 10.0
PRIOR_GROUPS: Final = 4.0
PRIOR_PAIRS: Final = 2_000.0
KEPT: Final = 0.995
"""What a day's sums keep of their weight with every day that follows: half of it for 140 days."""
SPREAD_MIN: Final = 1e-4  # no two are quite the same
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
    """How many, their sum, that of their squares: logarithms of services, seconds of pauses."""

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
    """One day's. `model` is that morning's, which had not seen it: the pace is measured against it."""
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
                pauses[doctor] = pauses.get(doctor, NONE_SEEN) + _one(visit.pause_seconds)
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
    """Of a time's logarithm: what it is believed to be, the variance of that belief, that of single times."""

    mu: float
    doubt: float
    variance: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How much slower than usual (in logarithms) one practitioner is now, as today's consultations show:
    what is believed, and the variance of that belief as a part of `days_differ` (1: nothing is known)."""

    slower: float = 0.0
    doubt: float = 1.0


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
        of = self.courses
        return of.get((department_id, practitioner_id)) or of.get(department_id) or of.get(None) or FLAT

    def pause(self, department_id: str, practitioner_id: str) -> Pause:
        of = self.pauses
        known = of.get((department_id, practitioner_id)) or of.get(department_id) or of.get(None)
        return known or UNSEEN_PAUSE

    def residual(self, visit: Visit) -> float:
        """By how much the logarithm of its time was above what was expected."""
        level = self.level(visit.department_id, visit.practitioner_id, visit.kind)
        course = self.course(visit.department_id, visit.practitioner_id)
        return log(visit.service_seconds) - level.mu - course[stretch(visit.since_open_seconds)]

    def after(self, pace: Pace, visit: Visit) -> Pace:
        """The pace once this consultation is over: one step of a Kalman filter (Kalman 1960)."""
        if not counts(visit):
            return pace
        noise = self.level(visit.department_id, visit.practitioner_id, visit.kind).variance / self.days_differ
        slower = pace.slower * PACE_KEPT
        doubt = 1.0 - (1.0 - pace.doubt) * PACE_KEPT**2
        gain = doubt / (doubt + noise)
        return Pace(slower + gain * (self.residual(visit) - slower), doubt * (1.0 - gain))


def learn(seen: Tally) -> ServiceModel:
    """The model of all that was seen."""
    courses: dict[Doctor | str | None, Course] = {}
    levels = _levels(seen.services, courses)
    for _ in range(SWEEPS):
        courses = _courses(seen.services, levels)
        levels = _levels(seen.services, courses)
    days = (PRIOR_PAIRS * DAYS_DIFFER + seen.products) / (PRIOR_PAIRS + seen.pairs)
    return ServiceModel(
        levels.everywhere,
        levels.by_kind,
        levels.by_department,
        levels.by_doctor,
        courses,
        _pauses(seen),
        levels.practitioners_differ,
        max(days, SPREAD_MIN),
    )


def _levels(services: Mapping[Cell, Sums], courses: Mapping[Doctor | str | None, Course]) -> ServiceModel:
    """The levels, when the courses are as given."""
    by_doctor: dict[tuple[str, str, str], Sums] = {}
    for (department, practitioner, kind, at), sums in services.items():
        course = courses.get((department, practitioner), FLAT)[at]
        flat = Sums(sums.n, sums.total - sums.n * course, _squares_around(sums, course))
        key = (department, practitioner, kind)
        by_doctor[key] = by_doctor.get(key, NONE_SEEN) + flat
    by_department: dict[tuple[str, str], Sums] = {}
    by_kind: dict[str, Sums] = {}
    for (department, _, kind), sums in by_doctor.items():
        by_department[department, kind] = by_department.get((department, kind), NONE_SEEN) + sums
        by_kind[kind] = by_kind.get(kind, NONE_SEEN) + sums
    within = _within(by_doctor.values())
    everywhere = _drawn(sum(by_kind.values(), NONE_SEEN), UNSEEN, within / PRIOR_VISITS, within)
    # A kind of visit is not like another: it is believed after a few.
    kinds = {kind: _drawn(sums, everywhere, DEPARTMENTS_DIFFER, within) for kind, sums in by_kind.items()}
    differ = _differ(((kind, sums) for (_, kind), sums in by_department.items()), within, DEPARTMENTS_DIFFER)
    departments = {key: _drawn(sums, kinds[key[1]], differ, within) for key, sums in by_department.items()}
    differ = _differ(
        (((department, kind), sums) for (department, _, kind), sums in by_doctor.items()),
        within,
        PRACTITIONERS_DIFFER,
    )
    doctors = {
        key: _drawn(sums, departments[key[0], key[2]], differ, within) for key, sums in by_doctor.items()
    }
    return ServiceModel(everywhere, kinds, departments, doctors, practitioners_differ=differ)


def _squares_around(sums: Sums, middle: float) -> float:
    return sums.squares - 2 * middle * sums.total + sums.n * middle * middle


def _within(groups: Iterable[Sums]) -> float:
    """The variance of single times about their practitioner's own mean."""
    squares, freedom = PRIOR_VISITS * ASSUMED_VARIANCE, PRIOR_VISITS
    for sums in groups:
        if sums.n > 1:
            squares += _squares_around(sums, sums.total / sums.n)
            freedom += sums.n - 1
    return squares / freedom


def _drawn(sums: Sums, parent: Level, differ: float, within: float) -> Level:
    """A group's level, drawn towards its parent's: the mean of a normal posterior, and its variance."""
    weight = within / differ
    mu = (sums.total + weight * parent.mu) / (sums.n + weight)
    doubt = within / (sums.n + weight) + (weight / (sums.n + weight)) ** 2 * parent.doubt
    own = max(0.0, _squares_around(sums, mu))
    return Level(mu, doubt, (own + PRIOR_VISITS * parent.variance) / (sums.n + PRIOR_VISITS))


def _differ(groups: Iterable[tuple[object, Sums]], within: float, assumed: float) -> float:
    """The variance between groups that have the same parent (DerSimonian and Laird's moments), beside
    PRIOR_GROUPS that differ as assumed."""
    families: dict[object, list[Sums]] = {}
    for parent, sums in groups:
        if sums.n > 0:
            families.setdefault(parent, []).append(sums)
    found, freedom = 0.0, 0
    for members in families.values():
        n = sum(sums.n for sums in members)
        spare = n - sum(sums.n**2 for sums in members) / n
        if len(members) < 2 or spare <= 0:
            continue
        mean = sum(sums.total for sums in members) / n
        q = sum(sums.n * (sums.total / sums.n - mean) ** 2 for sums in members)
        found += (len(members) - 1) * (q - (len(members) - 1) * within) / spare
        freedom += len(members) - 1
    return max(SPREAD_MIN, (PRIOR_GROUPS * assumed + max(0.0, found)) / (PRIOR_GROUPS + freedom))


def _courses(services: Mapping[Cell, Sums], levels: ServiceModel) -> dict[Doctor | str | None, Course]:
    """What is left of each stretch when the levels are as given, group by group."""
    left: dict[Doctor | str | None, list[Sums]] = {}
    for (department, practitioner, kind, at), sums in services.items():
        mu = levels.by_doctor[department, practitioner, kind].mu
        rest = Sums(sums.n, sums.total - sums.n * mu)
        group: Doctor | str | None
        for group in (None, department, (department, practitioner)):
            row = left.setdefault(group, [NONE_SEEN] * STRETCHES)
            row[at] = row[at] + rest
    weight = levels.everywhere.variance / COURSES_DIFFER
    courses: dict[Doctor | str | None, Course] = {}
    # The bigger groups come first: `left` was filled in that order for each, but not across them.
    for group in sorted(left, key=lambda group: 0 if group is None else 1 if isinstance(group, str) else 2):
        parent = None if group is None or isinstance(group, str) else group[0]
        towards = FLAT if group is None else courses[parent]
        courses[group] = tuple(
            (sums.total + weight * before) / (sums.n + weight)
            for sums, before in zip(left[group], towards, strict=True)
        )
    return courses


def _pauses(seen: Tally) -> dict[Doctor | str | None, Pause]:
    groups: dict[Doctor | str | None, tuple[float, Sums]] = {}
    for (department, practitioner), passes in seen.passes.items():
        sums = seen.pauses.get((department, practitioner), NONE_SEEN)
        group: Doctor | str | None
        for group in (None, department, (department, practitioner)):
            n, so_far = groups.get(group, (0.0, NONE_SEEN))
            groups[group] = (n + passes, so_far + sums)
    pauses: dict[Doctor | str | None, Pause] = {}
    for group in sorted(groups, key=lambda group: 0 if group is None else 1 if isinstance(group, str) else 2):
        parent = None if group is None or isinstance(group, str) else group[0]
        pauses[group] = _pause(*groups[group], UNSEEN_PAUSE if group is None else pauses[parent])
    return pauses


def _pause(passes: float, sums: Sums, towards: Pause) -> Pause:
    chance = (sums.n + PRIOR_VISITS * towards.chance) / (passes + PRIOR_VISITS)
    n = sums.n + PRIOR_PAUSES
    mean = (sums.total + PRIOR_PAUSES * towards.time.mean) / n
    square = (sums.squares + PRIOR_PAUSES * towards.time.square) / n
    variance = max(SPREAD_MIN, log(square / mean**2))
    return Pause(min(1.0, chance), LogNormal(log(mean) - variance / 2, variance))
