"""Safe 加号: the reckoned chances against simulated days, and the limit against every arrangement."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import exp, inf, log, sqrt

import pytest

from benchmarks import eta
from benchmarks import no_show as bench
from engine.domain.overbooking import (
    GRID_SECONDS,
    Limit,
    Outlook,
    Slot,
    Template,
    consultation,
    largest,
    outlook,
)
from engine.domain.service_times import LogNormal
from tests.support.no_shows import REAL

TEN_MINUTES = LogNormal(log(600) - 0.1, 0.2)


def template(
    slots: int = 6, places: int = 3, absent: float = 0.25, minutes: int = 30, **more: float
) -> Template:
    return Template(
        tuple(Slot(480 + minutes * n, (absent,) * places) for n in range(slots)),
        480 + minutes * slots,
        TEN_MINUTES,
        **more,
    )


def simulated(
    plan: Template, extras: Sequence[int], wait_minutes: float, extra_absent: float, days: int
) -> Outlook:
    """The same by drawing days, minute by minute and without a grid."""
    rng = random.Random(20261102)
    slots = [
        (slot.start_minute, (*slot.absent, *(extra_absent,) * extra))
        for slot, extra in zip(plan.slots, extras, strict=True)
    ]
    long_waits, longer, waited, seen, idle, overtime = [0] * len(slots), 0, 0.0, 0, 0.0, 0.0
    for _ in range(days):
        pace = rng.gauss(-plan.days_differ / 2, sqrt(plan.days_differ))
        rain = rng.gauss(0, sqrt(plan.absences_differ))
        free = slots[0][0] + plan.late_minutes
        for at, (start, absences) in enumerate(slots):
            idle += max(0.0, start - free)
            free = max(free, start)
            long_waits[at] += free - start > wait_minutes and not absences
            for place, absent in enumerate(absences):
                if place == len(absences) - 1:
                    long_waits[at] += free - start > wait_minutes
                odds = absent / (1 - absent) * exp(rain)
                if rng.random() < 1 / (1 + odds):
                    seen += 1
                    longer += free - start > wait_minutes
                    waited += free - start
                    free += rng.lognormvariate(plan.service.mu + pace, sqrt(plan.service.variance)) / 60
        overtime += max(0.0, free - plan.end_minute)
    return Outlook(
        tuple(extras),
        tuple(n / days for n in long_waits),
        longer / seen,
        waited / seen,
        seen / days,
        idle / days,
        overtime / days,
    )


@pytest.mark.parametrize(
    ("plan", "extras", "wait"),
    [
        (template(), (0,) * 6, 25.0),
        (template(), (1, 0, 2, 0, 1, 1), 40.0),
        (template(places=1, minutes=10, slots=12), (0, 1, 0) * 4, 20.0),  # no multiple of the grid
        (template(minutes=25, absent=0.1), (0, 1, 0, 0, 0, 1), 35.0),
        (template(days_differ=0.04, late_minutes=11), (1, 0, 0, 1, 0, 0), 40.0),
    ],
)
def test_the_chances_are_those_of_simulated_days(
    plan: Template, extras: tuple[int, ...], wait: float
) -> None:
    told, drawn = outlook(plan, extras, wait, 0.1), simulated(plan, extras, wait, 0.1, 20_000)
    assert told.long_waits == pytest.approx(drawn.long_waits, abs=0.012)
    assert told.share == pytest.approx(drawn.share, abs=0.01)
    assert told.wait_minutes == pytest.approx(drawn.wait_minutes, abs=0.4)
    assert told.seen == pytest.approx(drawn.seen, rel=0.01)
    assert told.idle_minutes == pytest.approx(drawn.idle_minutes, abs=1)
    assert told.overtime_minutes == pytest.approx(drawn.overtime_minutes, abs=0.5)


def test_who_stays_away_together_makes_long_waits_likelier() -> None:
    plan, together = template(), template(absences_differ=0.5)
    extras = (1, 1, 1, 0, 0, 0)
    told, apart = outlook(together, extras, 40, 0.1), outlook(plan, extras, 40, 0.1)
    assert told.seen == pytest.approx(apart.seen)
    assert told.worst > apart.worst + 0.01
    # The chances that were told stay the means; a simulation that shifts log-odds moves them a little.
    assert told.worst == pytest.approx(simulated(together, extras, 40, 0.1, 20_000).worst, abs=0.03)


def test_the_most_seats_are_those_of_the_best_arrangement() -> None:
    plan, limit = template(slots=4, places=2, minutes=20), Limit(25, 0.2)
    n, looks = largest(plan, limit, 0.1)
    assert limit.keeps(looks[n]) and not limit.keeps(looks[-1])
    best = max(
        sum(extras)
        for extras in product(range(4), repeat=4)
        if sum(extras) <= n + 2 and limit.keeps(outlook(plan, extras, 25, 0.1))
    )
    assert n == best > 0


def test_a_plan_that_is_too_full_bears_nothing() -> None:
    n, looks = largest(template(places=6), Limit(30, 0.1), 0.1)
    assert n == 0 and len(looks) == 1 and looks[0].worst > 0.1


def test_more_people_who_miss_bear_more_seats() -> None:
    found = [largest(template(absent=absent), Limit(35, 0.2), 0.1)[0] for absent in (0.05, 0.2, 0.4, 0.6)]
    assert found == sorted(found) and found[-1] > found[0]


def test_overtime_is_a_limit_of_its_own() -> None:
    free, _ = largest(template(), Limit(60, 0.2), 0.1)
    bound, looks = largest(template(), Limit(60, 0.2, overtime_minutes=6.0), 0.1)
    assert bound < free
    assert looks[bound].overtime_minutes <= 6.0
    assert Limit(60, 0.2).overtime_minutes == inf


def test_where_nobody_comes_anything_may_be_added_up_to_the_bound() -> None:
    n, looks = largest(template(absent=1.0), Limit(60, 0.5), 1.0, extras_max=3)
    assert n == 3 and looks[-1].seen == 0 and looks[-1].share == 0


@pytest.mark.parametrize("time", [TEN_MINUTES, LogNormal(log(200), 0.5), LogNormal(log(1_500), 0.05)])
def test_a_consultation_on_the_grid_keeps_its_mean(time: LogNormal) -> None:
    cells = consultation(time)
    assert sum(cells) == pytest.approx(1)
    assert min(cells) >= 0
    mean = sum(n * p for n, p in enumerate(cells)) * GRID_SECONDS
    assert mean == pytest.approx(time.mean, rel=0.001)


@pytest.mark.parametrize("starts", [(), (480, 480), (510, 480), (480, 800)])
def test_a_template_without_order_is_refused(starts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="slots"):
        replace(template(), slots=tuple(Slot(start, (0.1,)) for start in starts))


def test_extras_are_one_number_a_slot() -> None:
    with pytest.raises(ValueError, match="extras"):
        outlook(template(slots=3), (1, 0), 30)


def test_a_real_physicians_times_make_a_clinic() -> None:
    if not REAL.exists():
        pytest.skip("the data sets are not here: they stay outside the repository")
    clinic = bench.clinic(eta.DATA)
    assert 12 < clinic.service.mean / 60 < 15
    assert clinic.days_differ > 0 and len(clinic.turns) > 100
