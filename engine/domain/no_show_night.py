"""One night's learning: who did not come, how well that could have been told before, what is used from now.

A model is used when it has shown that it knows something: learned without the latest week, it must have told
that week better than one share for everybody would have (by Brier's score). Else, and where too few visits
are known, the plain share is told, drawn towards the bigger group's where it rests on few.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

from engine.domain.no_show import Appointment, Model, Past, absences_differ, asked_at, learn, model_of_plain

ROWS_MIN: Final = 2_000
MISSED_MIN: Final = 100
"""Of fewer visits, absences or arrivals no model is learned: a hospital that notes only one of the two shows
no difference between people."""
JUDGED_DAYS: Final = 7
JUDGED_ROWS_MIN: Final = 200
BINS: Final = 10
HORIZON_DAYS: Final = 1
"""Chances are told as of the midnight a day before the visit's: a list for tomorrow is rung today."""
RATES_DAYS: Final = 56
ASSUMED_SHARE: Final = 0.1
"""Before anything was seen. Published shares lie between 5 and 30 %; who assumes fewer absences adds fewer
seats, so this is on the careful side."""
PRIOR_ROWS: Final = 100.0
"""So many visits outweigh what was assumed …"""
PRIOR_ROWS_OF_GROUP: Final = 50.0
"""… and so many what the bigger group shows."""
ASSUMED_DIFFER: Final = 0.117
"""Of one session's log-odds: docs/NO_SHOWS.md. Used until this hospital has shown its own."""
SESSIONS_MIN: Final = 50


@dataclass(frozen=True, slots=True)
class Visit:
    """An appointment and where it is."""

    one: Appointment
    schedule_id: str
    department_id: str
    practitioner_id: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What chances were worth that had been told before."""

    since: date
    rows: int
    missed: int
    auc: float
    brier: float
    brier_of_share: float  # of telling everybody the share of the time before
    bins: tuple[tuple[float, float, int], ...]  # told, seen, how many; from low chances to high ones


Cell = tuple[str, str, int, int]
"""Department, practitioner, weekday (Monday is 0), hour."""


@dataclass(frozen=True, slots=True)
class Share:
    """Of those booked, who do not come. `rows`: visits of the smallest group that has any."""

    chance: float
    rows: int
    group: str  # session | practitioner | department | hospital | assumed: that group


@dataclass(frozen=True, slots=True)
class Rates:
    """Visits and absences (expected ones, where a model tells them) of the latest weeks, by group: the
    beginnings of a Cell, from the hospital's () to the whole."""

    sums: Mapping[tuple[object, ...], tuple[int, float]] = field(default_factory=dict)

    def share(self, department_id: str, practitioner_id: str, weekday: int, hour: int) -> Share:
        whole = (department_id, practitioner_id, weekday, hour)
        chance, rows, group = ASSUMED_SHARE, 0, "assumed"
        for name, key, prior in (
            ("hospital", (), PRIOR_ROWS),
            ("department", whole[:1], PRIOR_ROWS_OF_GROUP),
            ("practitioner", whole[:2], PRIOR_ROWS_OF_GROUP),
            ("session", whole, PRIOR_ROWS_OF_GROUP),
        ):
            n, missed = self.sums.get(key, (0, 0.0))
            chance = (missed + prior * chance) / (n + prior)
            if n:
                rows, group = n, name
        return Share(chance, rows, group)

    def plain(self) -> list[list[Any]]:
        return [[*cell, *told] for cell, told in self.sums.items() if len(cell) == 4]


def rates_of_cells(cells: Mapping[Cell, tuple[int, float]]) -> Rates:
    sums: dict[tuple[object, ...], tuple[int, float]] = {}
    for cell, (n, missed) in cells.items():
        for size in (0, 1, 2, 4):
            before = sums.get(cell[:size], (0, 0.0))
            sums[cell[:size]] = before[0] + n, before[1] + missed
    return Rates(sums)


def rates_of_plain(plain: Iterable[Sequence[Any]]) -> Rates:
    return rates_of_cells(
        {(str(d), str(p), int(w), int(h)): (int(n), float(m)) for d, p, w, h, n, m in plain}
    )


@dataclass(frozen=True, slots=True)
class Night:
    until: date  # the day it was learned on: it knows of the days before
    first_day: date | None
    rows: int
    missed: int
    model: Model | None
    why: str | None  # there is none: too_few | not_judged | no_better
    judged: Judged | None
    absences_differ: float
    rates: Rates


UNLEARNED: Final = Night(date.min, None, 0, 0, None, "too_few", None, ASSUMED_DIFFER, Rates())


def share_of(rates: Rates, one: Visit) -> Share:
    return rates.share(*_cell(one))


def learn_night(visits: Iterable[Visit], today: date) -> Night:
    """What all days before `today` have shown. Later visits, and those whose outcome is not known, are
    bookings that others may be told by, and teach nothing."""
    everything = list(visits)
    over = [v for v in everything if v.one.missed is not None and v.one.day < today]
    missed = sum(bool(v.one.missed) for v in over)
    first_day = min((v.one.day for v in over), default=None)
    model: Model | None = None
    judged: Judged | None = None
    why: str | None = "too_few"
    differ = ASSUMED_DIFFER
    past = Past(v.one for v in everything)
    if len(over) >= ROWS_MIN and min(missed, len(over) - missed) >= MISSED_MIN:
        appointments = [v.one for v in everything]
        since = today - timedelta(JUDGED_DAYS)
        earlier = learn(appointments, since, horizon_days=HORIZON_DAYS)
        told = [(v, _told(earlier, past, v.one)) for v in over if v.one.day >= since]
        before = [bool(v.one.missed) for v in over if v.one.day < since]
        judged = _judge(since, [(chance, bool(v.one.missed)) for v, chance in told], before)
        if judged is None:
            why = "not_judged"
        elif judged.brier >= judged.brier_of_share:
            why = "no_better"
        else:
            why = None
            model = learn(appointments, today, horizon_days=HORIZON_DAYS, before=earlier)
            differ = _differ(told)
    return Night(
        today, first_day, len(over), missed, model, why, judged, differ, _rates(over, today, model, past)
    )


def _told(model: Model, past: Past, one: Appointment) -> float:
    return model.chance(past.facts(one, asked_at(one, model.horizon_days)))


def _judge(since: date, told: Sequence[tuple[float, bool]], before: Sequence[bool]) -> Judged | None:
    missed = sum(one for _, one in told)
    if len(told) < JUDGED_ROWS_MIN or not 0 < missed < len(told) or not before:
        return None
    share = sum(before) / len(before)
    ranked = sorted(told)
    parts = [ranked[n * len(ranked) // BINS : (n + 1) * len(ranked) // BINS] for n in range(BINS)]
    return Judged(
        since,
        len(told),
        missed,
        auc(told),
        sum((chance - one) ** 2 for chance, one in told) / len(told),
        sum((share - one) ** 2 for _, one in told) / len(told),
        tuple(
            (
                sum(chance for chance, _ in part) / len(part),
                sum(one for _, one in part) / len(part),
                len(part),
            )
            for part in parts
        ),
    )


def auc(told: Iterable[tuple[float, bool]]) -> float:
    """The chance that of one who missed and one who came the former was told more (ties count half)."""
    ranked = sorted(told)
    at = 0
    ranks = 0.0
    missed = sum(one for _, one in ranked)
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        ranks += (at + end + 1) / 2 * sum(one for _, one in ranked[at:end])
        at = end
    return (ranks - missed * (missed + 1) / 2) / (missed * (len(ranked) - missed))


def _differ(told: Iterable[tuple[Visit, float]]) -> float:
    sessions: dict[str, list[tuple[float, bool]]] = {}
    for visit, chance in told:
        sessions.setdefault(visit.schedule_id, []).append((chance, bool(visit.one.missed)))
    return absences_differ(sessions.values()) if len(sessions) >= SESSIONS_MIN else ASSUMED_DIFFER


def _rates(over: Iterable[Visit], today: date, model: Model | None, past: Past) -> Rates:
    cells: dict[Cell, tuple[int, float]] = {}
    since = today - timedelta(RATES_DAYS)
    for visit in over:
        if visit.one.day < since:
            continue
        chance = float(bool(visit.one.missed)) if model is None else _told(model, past, visit.one)
        cell = _cell(visit)
        n, missed = cells.get(cell, (0, 0.0))
        cells[cell] = n + 1, missed + chance
    return rates_of_cells(cells)


def _cell(visit: Visit) -> Cell:
    one = visit.one
    return visit.department_id, visit.practitioner_id, one.day.weekday(), (one.minute or 0) // 60


# Stored and read.


def plain_of_judged(judged: Judged) -> dict[str, Any]:
    return {
        "since": judged.since.isoformat(),
        "rows": judged.rows,
        "missed": judged.missed,
        "auc": judged.auc,
        "brier": judged.brier,
        "brier_of_share": judged.brier_of_share,
        "bins": [list(one) for one in judged.bins],
    }


def judged_of_plain(plain: Mapping[str, Any]) -> Judged:
    return Judged(
        date.fromisoformat(plain["since"]),
        int(plain["rows"]),
        int(plain["missed"]),
        float(plain["auc"]),
        float(plain["brier"]),
        float(plain["brier_of_share"]),
        tuple((float(told), float(seen), int(n)) for told, seen, n in plain["bins"]),
    )


def model_or_none(plain: Mapping[str, Any] | None) -> Model | None:
    return None if plain is None else model_of_plain(plain)
