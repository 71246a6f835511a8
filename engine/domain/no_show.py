"""Who will not come (爽约): a chance for every appointment, learned from the hospital's own past.

The model is a score card (评分卡), an additive logistic regression whose every part can be read: each thing
that is known of an appointment falls into one cell of one table, each cell has points, and

    chance = 1 / (1 + exp(-(intercept + the points of all cells)))

Points are logarithms of odds. They are fitted table by table in turns (cyclic Newton steps on the penalised
likelihood: backfitting; Hastie and Tibshirani 1986; the tables of pairs are those of Lou, Caruana, Gehrke and
Hooker 2013). `PRIOR` draws each cell towards 0, so that a cell with few appointments says little, and one
that was never seen nothing (ridge; the normal prior of a random effect).

No future gets in. All that is known of an appointment is asked of a `Past` *as of a moment*: bookings made
by then, and outcomes of days that were over by then. Learning asks as of the same moment as foretelling:
`horizon_days` before the visit at 00:00, or when it was booked if that was later.

Times are the hospital's own; they need not be aware, but all of them alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from math import exp, log
from typing import Any, Final

PRIOR: Final = 30.0
"""How much a cell must have shown to count half, as a sum of p (1 - p): with a fifth missed, 190 rows."""
KEPT: Final = 0.99
"""What an appointment keeps of its weight with every day that follows: half of it for 69 days."""
LEVEL_KEPT: Final = 0.9
LEVEL_PRIOR: Final = 100.0
"""The intercept follows the level of the last days: half forgotten in a week. Points are slower, for they
need many rows; the level needs few, and drifts with weather, holidays and epidemics."""
SWEEPS: Final = 12
SWEEPS_AGAIN: Final = 4
"""From yesterday's points there is not far to go."""
STILL: Final = 0.002
"""Points that move by less in a sweep are there."""
UNKNOWN: Final = "?"  # the cell of what is not known, also where a trait is not given
STEP_MAX: Final = 2.0
SCORE_MAX: Final = 12.0
ROWS_MAX: Final = 200_000
"""The latest; older ones would add time and little else."""
TOGETHER: Final = timedelta(minutes=2)
"""Bookings of one patient this close were made in one go."""

_LEADS: Final = (1, 2, 3, 4, 6, 8, 11, 15, 19, 22, 29, 36, 50, 70)
_AGES: Final = (1, 4, 8, 13, 16, 19, 23, 27, 31, 36, 41, 46, 51, 56, 61, 66, 71, 77, 84)
_LEADS_COARSE: Final = (1, 3, 8, 22)
_AGES_COARSE: Final = (13, 19, 31, 46, 61, 77)
_SINCE: Final = (2, 4, 8, 15, 29, 61)


@dataclass(frozen=True, slots=True)
class Appointment:
    """One row of the hospital's table. `traits`: whatever else it knows, as names and values (department,
    channel, district, reminded …); each name gets a table of its own."""

    id: str
    patient_id: str
    booked_at: datetime
    day: date
    minute: int | None = None  # of the day; None where only the day is known
    age: int | None = None
    sex: str | None = None
    traits: Mapping[str, str] = field(default_factory=dict)
    missed: bool | None = None  # None: not over, or cancelled


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an appointment at a moment. A hospital may ask its own database for them."""

    lead_days: int
    booked_hour: int
    booked_weekday: int
    weekday: int
    hour: int | None
    age: int | None
    sex: str | None
    ahead: int = 0  # earlier appointments that were booked on an earlier day
    ahead_missed: int = 0
    same_day: int = 0  # those that were booked on their day
    same_day_missed: int = 0
    last_missed: bool | None = None
    days_since: int | None = None
    others_that_day: int = 0
    others_later: int = 0
    in_one_go: int = 0  # other bookings made together with this
    traits: Mapping[str, str] = field(default_factory=dict)


def asked_at(one: Appointment, horizon_days: int) -> datetime:
    """The moment as of which an appointment is foretold."""
    midnight = datetime.combine(one.day - timedelta(horizon_days), time(), one.booked_at.tzinfo)
    return max(one.booked_at, midnight)


class Past:
    """All appointments by patient, read only as of a moment. Grows with `add`; an id that comes again
    replaces what was there, for outcomes come later than bookings."""

    def __init__(self, appointments: Iterable[Appointment] = ()) -> None:
        self._of: dict[str, dict[str, Appointment]] = {}
        for one in appointments:
            self.add(one)

    def add(self, one: Appointment) -> None:
        self._of.setdefault(one.patient_id, {})[one.id] = one

    def facts(self, one: Appointment, at: datetime) -> Facts:
        """`one` itself teaches nothing, and nothing that was not known at `at` does."""
        today = at.date()
        counts = [0, 0, 0, 0]  # booked ahead, of these missed; booked on the day, of these missed
        that_day = later = in_one_go = 0
        last: Appointment | None = None
        for other in self._of.get(one.patient_id, {}).values():
            if other.booked_at > at or other.id == one.id:
                continue
            if abs(other.booked_at - one.booked_at) <= TOGETHER:
                in_one_go += 1
            if other.day == one.day:
                that_day += 1
            elif other.day > one.day:
                later += 1
            if other.missed is None or other.day >= today or other.day >= one.day:
                continue
            at_once = 2 * (other.booked_at.date() == other.day)
            counts[at_once] += 1
            counts[at_once + 1] += other.missed
            if last is None or (other.day, other.id) > (last.day, last.id):
                last = other
        return Facts(
            (one.day - one.booked_at.date()).days,
            one.booked_at.hour,
            one.booked_at.weekday(),
            one.day.weekday(),
            None if one.minute is None else one.minute // 60,
            one.age,
            one.sex,
            counts[0],
            counts[1],
            counts[2],
            counts[3],
            None if last is None else last.missed,
            None if last is None else (one.day - last.day).days,
            that_day,
            later,
            in_one_go,
            one.traits,
        )


# Cells.


def _bin(value: int | None, edges: Sequence[int]) -> str:
    """The lower edge of the bin; below the first one 0."""
    if value is None:
        return UNKNOWN
    lower = 0
    for edge in edges:
        if value < edge:
            break
        lower = edge
    return str(lower)


def _record(n: int, missed: int) -> str:
    """So many of so many; long records by their share alone."""
    return f"{missed}/{n}" if n <= 4 else f"{round(4 * missed / n)}/4 of many"


def cells(facts: Facts) -> dict[str, str]:
    """For each table the cell into which this appointment falls."""
    lead = _bin(facts.lead_days, _LEADS)
    near = _bin(facts.lead_days, _LEADS_COARSE)
    age = _bin(facts.age, _AGES_COARSE)
    ahead = _record(facts.ahead, facts.ahead_missed)
    same_day = _record(facts.same_day, facts.same_day_missed)
    last = "none" if facts.last_missed is None else "missed" if facts.last_missed else "came"
    found = {
        "lead": lead,
        "age": _bin(facts.age, _AGES),
        "sex": facts.sex or UNKNOWN,
        "weekday": str(facts.weekday),
        "hour": UNKNOWN if facts.hour is None else str(facts.hour),
        "booked_hour": str(facts.booked_hour),
        "booked_weekday": str(facts.booked_weekday),
        "record": ahead,
        "record_same_day": same_day,
        "last": f"{last} {_bin(facts.days_since, _SINCE)}",
        "that_day": str(min(3, facts.others_that_day)),
        "later": str(min(4, facts.others_later)),
        "in_one_go": str(min(4, facts.in_one_go)),
        "lead x age": f"{near} x {age}",
        "lead x record": f"{near} x {ahead}",
        "lead x last": f"{near} x {last}",
        "lead x record_same_day": f"{near} x {same_day}",
        "lead x that_day": f"{near} x {min(2, facts.others_that_day)}",
        "lead x booked_hour": f"{near} x {facts.booked_hour // 2 * 2}",
    }
    for name, value in facts.traits.items():
        found[f"trait {name}"] = value
    return found


# The model.


@dataclass(frozen=True, slots=True)
class Model:
    """Points by table and cell. What is in no table has none."""

    intercept: float
    tables: Mapping[str, Mapping[str, float]]
    horizon_days: int = 0
    learned_from: int = 0

    def score(self, facts: Facts) -> float:
        total, found = self.intercept, cells(facts)
        for name, table in self.tables.items():
            total += table.get(found.get(name, UNKNOWN), 0.0)
        return total

    def chance(self, facts: Facts) -> float:
        """Of not coming."""
        return _chance(self.score(facts))

    def reasons(self, facts: Facts, most: int = 3) -> list[tuple[str, str, float]]:
        """The tables that speak loudest, their cells and points; above 0: less likely to come."""
        found = cells(facts)
        said = [(name, cell, self.tables.get(name, {}).get(cell, 0.0)) for name, cell in found.items()]
        return sorted(said, key=lambda one: (-abs(one[2]), one[0]))[:most]

    def plain(self) -> dict[str, object]:
        """As strings and numbers, to be stored; `model_of_plain` reads it."""
        return {
            "intercept": self.intercept,
            "horizon_days": self.horizon_days,
            "learned_from": self.learned_from,
            "tables": {name: dict(table) for name, table in self.tables.items()},
        }


def _chance(score: float) -> float:
    return 1.0 / (1.0 + exp(-max(-SCORE_MAX, min(SCORE_MAX, score))))


def learn(
    appointments: Iterable[Appointment],
    until: date,
    *,
    horizon_days: int = 0,
    before: Model | None = None,
    kept: float = KEPT,
    prior: float = PRIOR,
    level_kept: float = LEVEL_KEPT,
) -> Model:
    """What the days before `until` have shown. `before`: yesterday's model, from where it is not far.

    Appointments of `until` and later, and outcomes not known, may be among them: they teach nothing.
    """
    everything = list(appointments)
    past = Past(everything)
    over = [one for one in everything if one.missed is not None and one.day < until]
    over.sort(key=lambda one: (one.day, one.id))
    over = over[-ROWS_MAX:]
    seen = [cells(past.facts(one, asked_at(one, horizon_days))) for one in over]
    missed = [1.0 if one.missed else 0.0 for one in over]
    weights = [kept ** (until - one.day).days for one in over]
    recent = [level_kept ** (until - one.day).days for one in over]
    return _fit(seen, missed, weights, recent, horizon_days, before, prior)


def _fit(
    seen: Sequence[Mapping[str, str]],
    missed: Sequence[float],
    weights: Sequence[float],
    recent: Sequence[float],
    horizon_days: int,
    before: Model | None,
    prior: float,
) -> Model:
    total = sum(weights)
    share = (sum(w * y for w, y in zip(weights, missed, strict=True)) + 0.2) / (total + 1)
    intercept = log(share / (1 - share)) if before is None else before.intercept
    names = sorted({name for row in seen for name in row})
    columns: dict[str, tuple[list[int], list[str], list[float]]] = {}
    scores = [intercept] * len(seen)
    for name in names:
        numbers: dict[str, int] = {}
        column = [numbers.setdefault(row.get(name, UNKNOWN), len(numbers)) for row in seen]
        start = {} if before is None else before.tables.get(name, {})
        points = [start.get(cell, 0.0) for cell in numbers]
        columns[name] = (column, list(numbers), points)
        if start:
            scores = [score + points[at] for score, at in zip(scores, column, strict=True)]
    for _ in range(SWEEPS if before is None else SWEEPS_AGAIN):
        moved = 0.0
        for column, _cells, points in columns.values():
            steps = _steps(column, points, scores, missed, weights, prior)
            points[:] = [at + step for at, step in zip(points, steps, strict=True)]
            scores = [score + steps[at] for score, at in zip(scores, column, strict=True)]
            moved = max(moved, max(map(abs, steps), default=0.0))
        (step,) = _steps([0] * len(scores), [0.0], scores, missed, weights, 1e-6)
        intercept += step
        scores = [score + step for score in scores]
        if moved < STILL:
            break
    level = [0.0]
    for _ in range(3):
        (step,) = _steps([0] * len(scores), level, scores, missed, recent, LEVEL_PRIOR)
        level[0] += step
        scores = [score + step for score in scores]
    intercept += level[0]
    tables = {name: dict(zip(cells_, points, strict=True)) for name, (_, cells_, points) in columns.items()}
    return Model(intercept, tables, horizon_days, len(seen))


def _steps(
    column: Sequence[int],
    points: Sequence[float],
    scores: Sequence[float],
    missed: Sequence[float],
    weights: Sequence[float],
    prior: float,
) -> list[float]:
    """One Newton step for each cell of a table: they do not touch one another, for each row is in one."""
    slope = [-prior * at for at in points]
    bend = [prior] * len(points)
    for at, score, y, weight in zip(column, scores, missed, weights, strict=True):
        p = 1.0 / (1.0 + exp(-score))
        slope[at] += weight * (y - p)
        bend[at] += weight * p * (1.0 - p)
    return [max(-STEP_MAX, min(STEP_MAX, s / b)) for s, b in zip(slope, bend, strict=True)]


# Whom to ring.


@dataclass(frozen=True, slots=True)
class Callee:
    """An appointment of the days that are rung for. `refill`: the chance that its seat, given back now, is
    taken by somebody else (`engine.domain.odds` knows how many wait)."""

    appointment_id: str
    patient_id: str
    chance: float  # of not coming
    refill: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes of a call to somebody who would not have come. Assumed until the hospital has counted."""

    reached: float = 0.6
    comes: float = 0.35  # of those reached
    gives_back: float = 0.35


@dataclass(frozen=True, slots=True)
class Call:
    patient_id: str
    appointment_ids: tuple[str, ...]
    gain: float  # seats that are used and would not have been, expected


UNCOUNTED: Final = Answer()


def calling_list(callees: Iterable[Callee], calls_max: int, answer: Answer = UNCOUNTED) -> list[Call]:
    """The calls worth most, best first. One call settles all appointments of a patient."""
    of: dict[str, list[Callee]] = {}
    for one in callees:
        of.setdefault(one.patient_id, []).append(one)
    calls = [
        Call(
            patient_id,
            tuple(one.appointment_id for one in theirs),
            sum(
                one.chance * answer.reached * (answer.comes + answer.gives_back * one.refill)
                for one in theirs
            ),
        )
        for patient_id, theirs in of.items()
    ]
    calls.sort(key=lambda call: (-call.gain, call.patient_id))
    return calls[:calls_max]


def absences_differ(sessions: Iterable[Sequence[tuple[float, bool]]]) -> float:
    """Variance of the log-odds that all people of one session have in common: chances that were told, and who
    missed. By moments; 0 where they miss as if independent. Chances must not have learned from these days."""
    beyond = possible = 0.0
    for people in sessions:
        variance = sum(chance * (1 - chance) for chance, _ in people)
        beyond += sum(missed - chance for chance, missed in people) ** 2 - variance
        possible += variance * variance
    return max(0.0, beyond / possible) if possible > 0 else 0.0


# Stored and read.


def model_of_plain(plain: Mapping[str, Any]) -> Model:
    """Raises KeyError, TypeError or ValueError where that is no model."""
    return Model(
        float(plain["intercept"]),
        {
            str(name): {str(cell): float(points) for cell, points in table.items()}
            for name, table in plain["tables"].items()
        },
        int(plain["horizon_days"]),
        int(plain["learned_from"]),
    )
