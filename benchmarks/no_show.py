"""How well are no-shows foretold, and what is that worth? On real appointments, judged on later weeks.

    make bench-no-show          # or: python -m benchmarks.no_show [--file FILE]

The data: "Medical Appointment No Shows" (Kaggle, joniarroba/noshowappointments): 110,521 usable appointments
of public clinics in Vitória, Brazil, on 27 days of 2016, outside the repository. Days until 20 May are
learned from; the days from 24 May to 8 June are foretold. The sessions that try out 加号 take their
consultations from HanguData (see benchmarks/eta.py). More: docs/NO_SHOWS.md.
"""

import argparse
import csv
import gzip
import json
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from math import log, sqrt
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy
from numpy.typing import NDArray

from benchmarks import eta
from engine.domain import no_show
from engine.domain.no_show import (
    Appointment,
    Callee,
    Facts,
    Model,
    Past,
    asked_at,
    calling_list,
    cells,
    learn,
)
from engine.domain.overbooking import Limit, Outlook, Slot, Template, largest, outlook
from engine.domain.service_times import NOTHING_SEEN, LogNormal, tally
from engine.domain.service_times import learn as learn_times
from web.no_shows import read

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "KaggleV2-May-2016.csv.gz"
RESULTS: Final = Path(__file__).parent / "results"
JUDGED_FROM: Final = date(2016, 5, 24)  # the first day after 20 May
REMINDED_DAYS: Final = 3  # no message was sent to whoever booked later than this before the day
CONDITIONS: Final = {
    "Hipertension": "hypertension",
    "Diabetes": "diabetes",
    "Alcoholism": "alcoholism",
    "Handcap": "handicap",
}
POVERTY: Final = frozenset({"district", "scholarship"})
"""Traits that are left out of what decides who shares a seat; their worth is shown."""

Numbers = NDArray[Any]


def appointments(file: Path) -> list[Appointment]:
    """The rows that `web.no_shows` reads without complaint, in the order of their days."""
    good = {row.appointment_id: row for row in read(file).rows}
    with gzip.open(file, "rt", encoding="utf-8-sig", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["AppointmentID"] in good]
    reminded = Counter(good[row["AppointmentID"]].day for row in rows if row["SMS_received"] == "1")
    found = []
    for row in rows:
        read_row = good[row["AppointmentID"]]
        if row["SMS_received"] == "1":
            reminder = "sent"
        elif (read_row.day - read_row.scheduled.date()).days < REMINDED_DAYS:
            reminder = "too soon"
        else:  # on 9, 13 and 16 to 20 May nobody was sent a message
            reminder = "not sent" if reminded[read_row.day] else "nobody that day"
        traits = {name: row[column] for column, name in CONDITIONS.items()}
        traits |= {
            "reminder": reminder,
            "district": read_row.neighbourhood,
            "scholarship": row["Scholarship"],
        }
        found.append(
            Appointment(
                read_row.appointment_id,
                read_row.patient,
                read_row.scheduled,
                read_row.day,
                None,  # the data has no time of day
                read_row.age,
                read_row.sex,
                traits,
                row["No-show"] == "Yes",
            )
        )
    return sorted(found, key=lambda one: (one.day, one.id))


def without(names: frozenset[str], everything: Sequence[Appointment]) -> list[Appointment]:
    return [
        replace(one, traits={name: value for name, value in one.traits.items() if name not in names})
        for one in everything
    ]


# Foretelling.


@dataclass(frozen=True, slots=True)
class Told:
    """Chances that were told for appointments, and what came of them."""

    of: list[Appointment]
    facts: list[Facts]
    chance: Numbers
    missed: Numbers

    def where(self, chosen: Numbers) -> "Told":
        at = numpy.flatnonzero(chosen)
        return Told([self.of[n] for n in at], [self.facts[n] for n in at], self.chance[at], self.missed[at])

    @property
    def ahead(self) -> Numbers:
        """Booked before their day."""
        return numpy.array([facts.lead_days > 0 for facts in self.facts])


def _told(
    past: Past, days: Sequence[Appointment], chance: Callable[[Facts], float], horizon_days: int
) -> Told:
    facts = [past.facts(one, asked_at(one, horizon_days)) for one in days]
    return Told(
        list(days),
        facts,
        numpy.array([chance(one) for one in facts]),
        numpy.array([bool(one.missed) for one in days], float),
    )


def frozen(
    everything: Sequence[Appointment], horizon_days: int = 0, level_kept: float = no_show.LEVEL_KEPT
) -> tuple[Told, Model]:
    """Learned once, before the first judged day."""
    until = JUDGED_FROM - timedelta(horizon_days)
    model = learn(everything, until, horizon_days=horizon_days, level_kept=level_kept)
    judged = [one for one in everything if one.day >= JUDGED_FROM]
    return _told(Past(everything), judged, model.chance, horizon_days), model


def nightly(
    everything: Sequence[Appointment], horizon_days: int = 0, level_kept: float = no_show.LEVEL_KEPT
) -> Told:
    """Learned anew before each judged day, from the day before: what production does."""
    past, model, parts = Past(everything), None, []
    for day in sorted({one.day for one in everything if one.day >= JUDGED_FROM}):
        until = day - timedelta(horizon_days)
        known = [one for one in everything if one.day < until]
        # `past` may hold the future: `facts` does not look at it (tests/unit/test_no_show.py).
        model = learn(known, until, horizon_days=horizon_days, before=model, level_kept=level_kept)
        today = [one for one in everything if one.day == day]
        parts.append(_told(past, today, model.chance, horizon_days))
    return Told(
        [one for part in parts for one in part.of],
        [one for part in parts for one in part.facts],
        numpy.concatenate([part.chance for part in parts]),
        numpy.concatenate([part.missed for part in parts]),
    )


def by_lead(everything: Sequence[Appointment]) -> Told:
    """The baseline: the share that missed among those booked as many days before."""
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    past = Past(everything)
    for one in everything:
        if one.day < JUDGED_FROM:
            count = counted[cells(past.facts(one, one.booked_at))["lead"]]
            count[0] += 1
            count[1] += bool(one.missed)

    def chance(facts: Facts) -> float:
        n, missed = counted[cells(facts)["lead"]]
        return (missed + 0.2) / (n + 1)

    return _told(past, [one for one in everything if one.day >= JUDGED_FROM], chance, 0)


# Judging.


@dataclass(frozen=True, slots=True)
class Judged:
    method: str
    n: int
    auc: float
    auc_interval: tuple[float, float]  # 95 %, days drawn again
    auc_ahead: float  # among those booked before their day
    auc_same_day: float
    brier: float
    brier_skill: float  # against telling everybody the judged days' own share
    log_loss: float
    ece: float
    slope: float  # 1: chances are as far apart as they should be
    told: float
    missed: float


def auc(chance: Numbers, missed: Numbers) -> float:
    """The chance that of one who missed and one who came the former was told more (ties count half)."""
    _, place, count = numpy.unique(chance, return_inverse=True, return_counts=True)
    rank = (numpy.cumsum(count) - (count - 1) / 2)[place]
    n = missed.sum()
    return float((rank[missed == 1].sum() - n * (n + 1) / 2) / (n * (len(missed) - n)))


def bins(chance: Numbers, missed: Numbers, n: int = 20) -> list[tuple[float, float, int]]:
    """Told, observed and how many, for n equal shares of the appointments."""
    parts = numpy.array_split(numpy.argsort(chance, kind="stable"), n)
    return [(float(chance[at].mean()), float(missed[at].mean()), len(at)) for at in parts]


def ece(chance: Numbers, missed: Numbers) -> float:
    return sum(abs(told - seen) * n for told, seen, n in bins(chance, missed)) / len(chance)


def _slope(chance: Numbers, missed: Numbers) -> float:
    """Of the logistic regression of what happened on the logit that was told (Cox 1958)."""
    x = numpy.stack([numpy.ones_like(chance), numpy.log(chance / (1 - chance))], axis=1)
    at = numpy.array([0.0, 1.0])
    for _ in range(20):
        p = 1 / (1 + numpy.exp(-x @ at))
        at = at + numpy.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (missed - p))
    return float(at[1])


def judge(method: str, told: Told) -> Judged:
    chance, missed, ahead = told.chance, told.missed, told.ahead
    days = sorted({one.day for one in told.of})
    number = {day: n for n, day in enumerate(days)}
    of_day = numpy.array([number[one.day] for one in told.of])
    at_day = [numpy.flatnonzero(of_day == n) for n in range(len(days))]
    draws = numpy.random.default_rng(2016).integers(0, len(days), (200, len(days)))
    again = []
    for draw in draws:
        at = numpy.concatenate([at_day[n] for n in draw])
        again.append(auc(chance[at], missed[at]))
    low, high = numpy.quantile(again, (0.025, 0.975))
    share = missed.mean()
    return Judged(
        method,
        len(missed),
        auc(chance, missed),
        (float(low), float(high)),
        auc(chance[ahead], missed[ahead]),
        auc(chance[~ahead], missed[~ahead]),
        float(((chance - missed) ** 2).mean()),
        float(1 - ((chance - missed) ** 2).mean() / (share * (1 - share))),
        float(-(missed * numpy.log(chance) + (1 - missed) * numpy.log(1 - chance)).mean()),
        ece(chance, missed),
        _slope(chance, missed),
        float(chance.mean()),
        float(share),
    )


def caught(told: Told, shares: Sequence[float]) -> dict[float, tuple[float, float]]:
    """For each share of all booked ahead that is rung: the share of no-shows on the list, and of the list
    that would not have come. The lists are made day by day."""
    found = {}
    ahead = told.where(told.ahead)
    by_day: dict[date, list[int]] = defaultdict(list)
    for n, one in enumerate(ahead.of):
        by_day[one.day].append(n)
    for share in shares:
        rung: list[int] = []
        for numbers in by_day.values():
            calls = calling_list(
                [Callee(str(n), str(n), float(ahead.chance[n])) for n in numbers],
                round(share * len(numbers)),
            )
            rung += [int(call.patient_id) for call in calls]
        hits = ahead.missed[rung].sum()
        found[share] = (float(hits / ahead.missed.sum()), float(hits / len(rung)))
    return found


def groups(told: Told, size: int) -> list[list[int]]:
    """People of one district and day who had booked ahead, so many at a time: nobody says which clinic."""
    of: dict[tuple[date, str], list[int]] = defaultdict(list)
    for n, one in enumerate(told.of):
        if told.facts[n].lead_days > 0:
            of[one.day, one.traits["district"]].append(n)
    return [
        numbers[at : at + size]
        for _, numbers in sorted(of.items())
        for at in range(0, len(numbers) - size + 1, size)
    ]


def dispersion(told: Told, size: int) -> float:
    """How much the number of those who miss varies, by what it would if they were independent."""
    squares = variances = 0.0
    for numbers in groups(told, size):
        chance = told.chance[numbers]
        squares += float((told.missed[numbers].sum() - chance.sum()) ** 2)
        variances += float((chance * (1 - chance)).sum())
    return squares / variances


def in_common(fair: Sequence[Appointment], everything: Sequence[Appointment], size: int) -> float:
    """The variance of log-odds that people of one session share: of 16 to 20 May, foretold on the 15th."""
    week = (date(2016, 5, 16), date(2016, 5, 20))
    model = learn(fair, week[0])
    told = _told(Past(fair), [one for one in fair if week[0] <= one.day <= week[1]], model.chance, 0)
    told = replace(told, of=[one for one in everything if week[0] <= one.day <= week[1]])
    return no_show.absences_differ(
        [(float(told.chance[n]), bool(told.missed[n])) for n in numbers] for numbers in groups(told, size)
    )


def reminder(everything: Sequence[Appointment]) -> dict[str, tuple[int, float]]:
    """Who booked three days ahead or earlier: how many, and the share that missed, by what the day's
    reminders were. On seven days of May the messages failed for everybody, whoever they were."""
    days = {one.day for one in everything if one.traits["reminder"] == "sent"}
    first, last = date(2016, 5, 9), date(2016, 5, 25)
    counted: dict[str, list[int]] = {"sent on that day": [0, 0], "nobody that day": [0, 0]}
    for one in everything:
        if one.traits["reminder"] != "too soon" and first <= one.day <= last:
            count = counted["sent on that day" if one.day in days else "nobody that day"]
            count[0] += 1
            count[1] += bool(one.missed)
    return {name: (n, missed / n) for name, (n, missed) in counted.items()}


# Safe 加号.

SLOTS: Final = 8
PLACES: Final = 2
SLOT_MINUTES: Final = 30
LIMIT: Final = Limit(wait_minutes=45, chance=0.15)


@dataclass(frozen=True, slots=True)
class Clinic:
    """What a session is made of: learned from 2018, tried out with the sessions of 2019."""

    service: LogNormal
    days_differ: float
    turns: list[list[float]]  # minutes, consultation and pause, real sequences


def clinic(file: Path) -> Clinic:
    days = eta.read(file)
    learned = [day for day in days if day.year != eta.JUDGED_YEAR]
    seen = NOTHING_SEEN
    for day in learned:
        visits = [session.visit(n) for session in day.sessions for n in range(len(session.starts))]
        seen = seen + tally(visits, learn_times(seen))
    model = learn_times(seen)
    turns = [_turns(session) for day in learned for session in day.sessions]
    minutes = numpy.array([turn for session in turns for turn in session])
    # Moments of all turns, without what whole days have in common.
    mean, square = float(minutes.mean()) * 60, float((minutes**2).mean()) * 3_600
    variance = log(square / mean**2) - model.days_differ
    later = [_turns(session) for day in days if day.year == eta.JUDGED_YEAR for session in day.sessions]
    return Clinic(LogNormal(log(mean) - variance / 2, variance), model.days_differ, later)


PAUSE_MINUTES_MAX: Final = 10.0  # a longer one was a break, or nobody was there


def _turns(session: eta.Session) -> list[float]:
    found = []
    for n, service in enumerate(session.services[:-1]):
        pause = session.starts[n + 1] - session.starts[n] - service
        found.append(service / 60 + min(PAUSE_MINUTES_MAX, max(0.0, pause / 60)))
    return found


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    added: list[int]
    promised: float = 0.0  # share of all who come that wait longer than the limit
    seen: float = 0.0
    longer: float = 0.0
    wait_minutes: float = 0.0
    idle_minutes: float = 0.0
    overtime_minutes: float = 0.0
    worst_promised: float = 0.0  # P(wait > limit) of each session's worst place
    worst: float = 0.0  # the same, as it was
    worst_interval: float = 0.0  # give or take, 95 %, by sessions


def template_of(chances: Sequence[float], clinic_: Clinic, differ: float) -> Template:
    slots, places, minutes = SLOTS, PLACES, SLOT_MINUTES
    return Template(
        tuple(
            Slot(8 * 60 + minutes * n, tuple(chances[n * places : (n + 1) * places])) for n in range(slots)
        ),
        8 * 60 + minutes * slots,
        clinic_.service,
        clinic_.days_differ,
        differ,
    )


def play(
    template: Template,
    extras: Sequence[int],
    come: Sequence[bool],
    others: Iterator[bool],
    turns: list[float],
) -> tuple[list[list[float]], list[bool], float, float]:
    """One day of it: how long each place of each slot waits (also where nobody sits), who came, idle and
    overtime minutes."""
    here, turn = iter(come), iter(turns)
    free, idle = float(template.slots[0].start_minute), 0.0
    waits: list[list[float]] = []
    came: list[bool] = []
    for slot, extra in zip(template.slots, extras, strict=True):
        idle += max(0.0, slot.start_minute - free)
        free = max(free, slot.start_minute)
        waits.append([])
        for place in range(len(slot.absent) + extra):
            waits[-1].append(free - slot.start_minute)
            comes = next(here) if place < len(slot.absent) else next(others)
            came.append(comes)
            if comes:
                free += next(turn)
    return waits, came, idle, max(0.0, free - template.end_minute)


def tried_out(told: Told, clinic_: Clinic, limit: Limit, differ: float, most: int, plays: int) -> list[Rule]:
    """Real outcomes, real consultations: the plan alone, ours, and as many for every session as would miss
    on average. Those who were booked on their day fill the added seats."""
    rng = Random(20160524)
    same_day = told.where(~told.ahead)
    extra_absent = float(same_day.chance.mean())
    late = [not missed for missed in same_day.missed]
    chosen = groups(told, SLOTS * PLACES)
    rng.shuffle(chosen)
    del chosen[most:]
    average = float(told.chance[told.ahead].mean())
    usual = template_of([average] * (SLOTS * PLACES), clinic_, differ)
    one_for_all = largest(usual, limit, extra_absent)
    filled = round(average * SLOTS * PLACES)
    evenly = tuple((n + 1) * filled // SLOTS - n * filled // SLOTS for n in range(SLOTS))
    names = (
        "the plan alone",
        "ours, by each one's chance",
        "the same, as if independent",
        "ours, by the average",
        "as many as miss, evenly",
    )
    found = []
    for name in names:
        totals: dict[str, float] = defaultdict(float)
        added: list[int] = []
        kept: list[float] = []
        draw = Random(7)
        for numbers in chosen:
            chances = [float(told.chance[n]) for n in numbers]
            template = template_of(chances, clinic_, 0.0 if name == names[2] else differ)
            if name == names[0]:
                extras: tuple[int, ...] = (0,) * SLOTS
            elif name in names[1:3]:
                n, looks = largest(template, limit, extra_absent)
                extras = looks[n].extras
            elif name == names[3]:
                extras = one_for_all[1][one_for_all[0]].extras
            else:
                extras = evenly
            added.append(sum(extras))
            foreseen = outlook(template, extras, limit.wait_minutes, extra_absent)
            totals["promised"] += foreseen.share * foreseen.seen * plays
            totals["expected"] += foreseen.seen * plays
            totals["worst"] += foreseen.worst * plays
            worst = max(range(SLOTS), key=lambda slot: foreseen.long_waits[slot])  # noqa: B023
            come = [not told.missed[n] for n in numbers]
            too_long = 0
            for _ in range(plays):
                turns = list(draw.choice(clinic_.turns))
                while len(turns) < SLOTS * PLACES + sum(extras):
                    turns += draw.choice(clinic_.turns)
                others = iter([draw.choice(late) for _ in range(sum(extras))])
                waits, came, idle, overtime = play(template, extras, come, others, turns)
                flat = [wait for slot in waits for wait in slot]
                waited = [wait for wait, here in zip(flat, came, strict=True) if here]
                totals["seen"] += len(waited)
                totals["longer"] += sum(wait > limit.wait_minutes for wait in waited)
                totals["waited"] += sum(waited)
                totals["idle"] += idle
                totals["overtime"] += overtime
                too_long += waits[worst][-1] > limit.wait_minutes
            kept.append(too_long / plays)
        days = len(chosen) * plays
        found.append(
            Rule(
                name,
                added,
                totals["promised"] / totals["expected"],
                totals["seen"] / days,
                totals["longer"] / totals["seen"],
                totals["waited"] / totals["seen"],
                totals["idle"] / days,
                totals["overtime"] / days,
                totals["worst"] / days,
                float(numpy.mean(kept)),
                float(1.96 * numpy.std(kept) / sqrt(len(kept))),
            )
        )
    return found


# Showing.


def cost(model: Model, everything: Sequence[Appointment]) -> dict[str, float]:
    """Seconds to learn all days from nothing and from yesterday's model; microseconds to foretell one."""
    last = max(one.day for one in everything) + timedelta(1)
    began = time.perf_counter()
    whole = learn(everything, last)
    anew = time.perf_counter() - began
    began = time.perf_counter()
    learn(everything, last, before=whole)
    again = time.perf_counter() - began
    past, some = Past(everything), everything[:5_000]
    began = time.perf_counter()
    facts = [past.facts(one, asked_at(one, 0)) for one in some]
    asked = time.perf_counter() - began
    began = time.perf_counter()
    for one in facts:
        model.chance(one)
    told = time.perf_counter() - began
    return {
        "learn_seconds": anew,
        "learn_again_seconds": again,
        "facts_microseconds": asked / len(some) * 1e6,
        "chance_microseconds": told / len(some) * 1e6,
        "points": sum(len(table) for table in whole.tables.values()),
    }


def show(judged: Sequence[Judged]) -> None:
    columns = ("AUC", "its 95 %", "ahead", "same day", "Brier", "skill", "ECE", "slope", "told", "missed")
    print(f"{'':44}" + "".join(f"{column:>13}" for column in columns))
    for one in judged:
        texts = (
            f"{one.auc:.4f}",
            "{:.3f}-{:.3f}".format(*one.auc_interval),
            f"{one.auc_ahead:.4f}",
            f"{one.auc_same_day:.4f}",
            f"{one.brier:.4f}",
            f"{one.brier_skill:.3f}",
            f"{one.ece:.4f}",
            f"{one.slope:.3f}",
            f"{one.told:.4f}",
            f"{one.missed:.4f}",
        )
        print(f"{one.method:44}" + "".join(f"{text:>13}" for text in texts))


def show_card(model: Model) -> None:
    print("\nThe score card (points; above 0: less likely to come)")
    for name in ("lead", "record", "reminder", "age", "that_day"):
        table = model.tables.get(name) or model.tables[f"trait {name}"]
        told = sorted(table.items(), key=lambda entry: (len(entry[0]), entry[0]))
        print(f"  {name:9}" + "  ".join(f"{cell} {points:+.2f}" for cell, points in told))


def draw(
    told: Told,
    base: Told,
    looks: Sequence[Outlook],
    limit: Limit,
    where: str,
    file: Path,
) -> None:
    """Reliability, ROC, what a calling list catches, and 加号 with its price."""
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure, ((reliable, roc), (lists, safe)) = pyplot.subplots(
            2, 2, figsize=(12, 10), layout="constrained"
        )
        figure.suptitle(f"Xinglin · no-shows foretold, {JUDGED_FROM} to 2016-06-08\n{where}", fontsize=12)
        for one, label, colour in (
            (told.where(told.ahead), "booked ahead", "#0072B2"),
            (told.where(~told.ahead), "booked on the day", "#D55E00"),
        ):
            seen = bins(one.chance, one.missed)
            x, y = [100 * a for a, _, _ in seen], [100 * b for _, b, _ in seen]
            error = [196 * sqrt(b * (1 - b) / n) for _, b, n in seen]
            reliable.errorbar(x, y, error, fmt="o", markersize=4, capsize=2, color=colour, label=label)
        reliable.plot([0, 60], [0, 60], color="black", linewidth=0.8)
        reliable.set(
            title="Reliability: twentieths, 95 % intervals",
            xlabel="told, %",
            ylabel="did not come, %",
            xlim=(0, 60),
            ylim=(0, 60),
        )
        reliable.legend()
        for one, label, colour in ((told, "score card", "#0072B2"), (base, "days ahead alone", "#E69F00")):
            order = numpy.argsort(-one.chance, kind="stable")
            missed = one.missed[order]
            up = numpy.cumsum(missed) / missed.sum()
            right = numpy.cumsum(1 - missed) / (1 - missed).sum()
            roc.plot(right, up, color=colour, label=f"{label}: {auc(one.chance, one.missed):.3f}")
        roc.plot([0, 1], [0, 1], color="black", linewidth=0.8)
        roc.set(
            title="ROC, all appointments", xlabel="came, share told more", ylabel="missed, share told more"
        )
        roc.legend(loc="lower right")
        shares = [n / 50 for n in range(1, 51)]
        hits = caught(told, shares)
        lists.plot(
            [100 * s for s in shares], [100 * hits[s][0] for s in shares], color="#0072B2", label="ours"
        )
        lists.plot([0, 100], [0, 100], color="black", linewidth=0.8, label="anybody")
        lists.set(title="Calling list, booked ahead", xlabel="rung, %", ylabel="of the no-shows, %")
        lists.legend(loc="lower right")
        x = [look.added for look in looks]
        safe.plot(x, [100 * look.worst for look in looks], "o-", color="#D55E00", label="worst place")
        safe.plot(x, [100 * look.share for look in looks], "o-", color="#0072B2", label="of all who come")
        safe.axhline(100 * limit.chance, color="black", linewidth=0.8, linestyle=":", label="cap")
        safe.set(
            title=f"One session: P(wait > {limit.wait_minutes:.0f} min) by added seats",
            xlabel="seats added",
            ylabel="%",
            ylim=(0, None),
        )
        safe.legend()
        figure.savefig(file, dpi=110)
        pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, default=DATA)
    parser.add_argument("--service-times", type=Path, default=eta.DATA)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for file in (options.file, options.service_times):
        if not file.exists():
            print(f"The data set is not here ({file.name}); docs/NO_SHOWS.md says where it comes from.")
            return 1
    everything = appointments(options.file)
    fair = without(POVERTY, everything)
    learned = sum(one.day < JUDGED_FROM for one in everything)
    print(f"{len(everything)} appointments: {learned} to {JUDGED_FROM - timedelta(4)} learned from")

    ours = nightly(fair)
    once, model = frozen(fair)
    eve = nightly(fair, horizon_days=1)
    base = by_lead(fair)
    bare = [replace(one, traits={}, age=None, sex=None) for one in fair]
    judged = [
        judge("xinglin, learned every night", ours),
        judge("learned once, on 23 May", once),
        judge("learned once, no level of the last days", frozen(fair, level_kept=no_show.KEPT)[0]),
        judge("every night, told a day earlier", eve),
        judge("learned once, with district and scholarship", frozen(everything)[0]),
        judge("learned once, without age, sex and traits", frozen(bare)[0]),
        judge("learned once, without records", frozen(_strangers(fair))[0]),
        judge("share by days ahead alone", base),
    ]
    show(judged)
    show_card(model)
    print(
        "\nReliability (told, missed, n): "
        + "  ".join(f"{100 * told:.1f}/{100 * seen:.1f}" for told, seen, _ in bins(ours.chance, ours.missed))
    )
    catching = caught(eve, (0.05, 0.1, 0.2, 0.3))
    for share, (hits, precision) in catching.items():
        print(
            f"ringing {share:.0%} of tomorrow's booked ahead: {hits:.1%} of the no-shows;"
            f" {precision:.1%} of the list"
        )
    with_district = replace(ours, of=[one for one in everything if one.day >= JUDGED_FROM])
    spread = dispersion(with_district, SLOTS * PLACES)
    differ = in_common(fair, everything, SLOTS * PLACES)
    print(
        f"no-shows among {SLOTS * PLACES} people of one district and day vary {spread:.2f} times as if"
        f" independent; their log-odds have a variance of {differ:.3f} in common (16 to 20 May)"
    )
    reminders = reminder(everything)
    print(
        "booked 3 days ahead or more, 9 to 25 May: "
        + "; ".join(f"{name}: {missed:.1%} of {n}" for name, (n, missed) in reminders.items())
    )
    costs = cost(model, fair)
    print("cost: " + ", ".join(f"{name} {value:.4g}" for name, value in costs.items()))

    hangu = clinic(options.service_times)
    print(
        f"\n加号: {SLOTS} slots of {SLOT_MINUTES} minutes, {PLACES} numbers each;"
        f" a turn takes {hangu.service.mean / 60:.1f} minutes;"
        f" nobody's P(wait > {LIMIT.wait_minutes} min) above {LIMIT.chance:.0%}"
    )
    average = float(ours.chance[ours.ahead].mean())
    low = float(ours.chance[~ours.ahead].mean())
    began = time.perf_counter()
    example = template_of([average] * (SLOTS * PLACES), hangu, differ)
    best, looks = largest(example, LIMIT, low)
    seconds = time.perf_counter() - began
    print(f"if each misses with {average:.1%}: {best} may be added ({seconds:.1f} s)")
    for look in looks:
        print(
            f"  {look.added:2} {look.extras}  worst place {look.worst:.1%}  of all {look.share:.1%}"
            f"  wait {look.wait_minutes:.1f}  seen {look.seen:.1f}  idle {look.idle_minutes:.0f}"
            f"  overtime {look.overtime_minutes:.0f} min"
        )
    rules = tried_out(with_district, hangu, LIMIT, differ, 60, 50)
    print(f"tried out on {len(rules[0].added)} sessions of real people, 50 days of real consultations each")
    for rule in rules:
        print(
            f"  {rule.name:28} added {sum(rule.added) / len(rule.added):.1f}"
            f" ({min(rule.added)}-{max(rule.added)})  seen {rule.seen:.1f}  over {LIMIT.wait_minutes} min:"
            f" foretold {rule.promised:.1%}, was {rule.longer:.1%}"
            f"  worst place foretold {rule.worst_promised:.1%}, was {rule.worst:.1%}"
            f" +- {rule.worst_interval:.1%}"
            f"  wait {rule.wait_minutes:.1f}"
            f"  idle {rule.idle_minutes:.0f}  overtime {rule.overtime_minutes:.0f} min"
        )

    options.results.mkdir(exist_ok=True)
    machine = f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}"
    where = f"{machine} · {datetime.now(UTC):%Y-%m-%d}"
    draw(ours, base, looks, LIMIT, where, options.results / "no_show.png")
    (options.results / "no_show.json").write_text(
        json.dumps(
            {
                "machine": machine,
                "appointments": len(everything),
                "learned": learned,
                "rows": [asdict(one) for one in judged],
                "reliability": bins(ours.chance, ours.missed),
                "calling_list": {f"{share:.2f}": hits for share, hits in catching.items()},
                "dispersion": spread,
                "absences_differ": differ,
                "reminders": reminders,
                "cost": costs,
                "example": [asdict(look) for look in looks],
                "tried_out": [asdict(rule) for rule in rules],
            },
            indent=1,
        )
        + "\n"
    )
    print(f"{options.results / 'no_show.png'}\n{options.results / 'no_show.json'}")
    return 0


def _strangers(everything: Sequence[Appointment]) -> list[Appointment]:
    """The same, as if every appointment were of somebody else."""
    return [replace(one, patient_id=one.id) for one in everything]


if __name__ == "__main__":
    sys.exit(main())
