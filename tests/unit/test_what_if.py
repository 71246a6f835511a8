"""The what-if of added seats, in its own process and in this one."""

import asyncio
import subprocess
import sys
from math import inf, log
from random import Random
from statistics import fmean, pvariance

import pytest

from engine.domain.overbooking import Limit, Slot, Template, largest
from engine.domain.service_times import (
    DAYS_DIFFER,
    NOTHING_SEEN,
    LogNormal,
    ServiceModel,
    Sums,
    Tally,
    learn,
)
from engine.views.booked_time import booked_time, log_normal
from engine.views.forecasting import FIRST, FOLLOW_UP, RETURN
from engine.views.what_if import (
    Asked,
    foresee,
    pack_asked,
    pack_foreseen,
    unpack_asked,
    unpack_foreseen,
)
from web.desk import what_if
from web.desk.what_if import ServiceBody
from web.errors import Problem
from web.faults import Fault

SESSION = Template(
    tuple(Slot(480 + 30 * n, (0.28, 0.28)) for n in range(3)), 570, LogNormal(log(700), 0.2), 0.01
)


def asked(*sessions: Template, overtime: float = inf) -> Asked:
    return Asked(sessions, Limit(45, 0.15, overtime), 0.0, 3)


@pytest.mark.parametrize("overtime", [inf, 20.0])
def test_questions_and_answers_cross_a_pipe_unchanged(overtime: float) -> None:
    question = asked(SESSION, overtime=overtime)
    assert unpack_asked(pack_asked(question)) == question
    [found] = foresee(question)
    assert unpack_foreseen(pack_foreseen(found)) == found


def test_another_process_says_the_same() -> None:
    question = asked(SESSION, SESSION)
    told = subprocess.run(
        [sys.executable, "-m", "engine.views.what_if"],
        input=pack_asked(question),
        capture_output=True,
        check=True,
        timeout=60,
    )
    found = [unpack_foreseen(line) for line in told.stdout.splitlines()]
    assert found == list(foresee(question))
    most, curve = largest(SESSION, question.limit, 0.0, 3)
    assert [(one.most, list(one.curve)) for one in found] == [(most, curve)] * 2


async def test_when_the_time_is_up_the_rest_is_left_out_and_the_next_may_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(what_if, "SECONDS_MAX", 0.0)
    assert await what_if._reckoned(asked(SESSION)) == []
    monkeypatch.undo()
    assert len(await what_if._reckoned(asked(SESSION))) == 1


async def test_of_two_at_once_the_second_is_told_to_come_again() -> None:
    first = asyncio.ensure_future(what_if._reckoned(asked(SESSION)))
    await asyncio.sleep(0)  # it has begun
    with pytest.raises(Problem) as refused:
        await what_if._reckoned(asked(SESSION))
    assert refused.value.code is Fault.WHAT_IF_BUSY
    assert len(await first) == 1


def test_a_given_time_has_its_moments() -> None:
    time = log_normal(600.0, 250.0**2)
    assert time.mean == pytest.approx(600)
    assert time.square - time.mean**2 == pytest.approx(250.0**2)
    nobody = booked_time(NOTHING_SEEN, ServiceModel(), "00", "D1")
    given = what_if._service(ServiceBody(minutes=10, minutes_sd=5), nobody)
    assert (given.source, given.days_differ) == ("given", DAYS_DIFFER)
    assert given.time.mean == pytest.approx(600)


def test_nobody_seen_is_assumed_and_doubted() -> None:
    found = booked_time(NOTHING_SEEN, ServiceModel(), "00", "D1")
    level, pause = ServiceModel().level("00", "D1", FIRST), ServiceModel().pause("00", "D1")
    assert not found.learned and found.turns == 0
    assert found.time.mean == pytest.approx(LogNormal(level.mu, level.variance).mean + pause.mean)
    assert found.days_differ > DAYS_DIFFER, "who is unknown is doubted more"


def test_a_booked_patients_time_is_that_of_all_his_turns_as_often_as_they_were_seen() -> None:
    """Drawn from the model itself, turn by turn: mean and spread agree. Others' turns do not count."""
    mix = {FIRST: 300.0, FOLLOW_UP: 100.0, RETURN: 100.0, "examination": 900.0}
    medians = {FIRST: 700.0, FOLLOW_UP: 300.0, RETURN: 200.0, "examination": 60.0}
    services = {
        ("00", "D1", kind, 0): Sums(n, n * log(medians[kind]), n * (log(medians[kind]) ** 2 + 0.1))
        for kind, n in mix.items()
    }
    services["00", "D2", FIRST, 0] = Sums(5_000.0, 5_000 * log(60), 5_000 * (log(60) ** 2 + 0.1))
    seen = Tally(services, {("00", "D1"): Sums(50, 6_000, 900_000)}, {("00", "D1"): 400.0}, 0.0, 0.0)
    model = learn(seen)
    found = booked_time(seen, model, "00", "D1")
    assert found.learned and found.turns == 500
    dice = Random(3)
    pause = model.pause("00", "D1")

    def turn(kind: str) -> float:
        level = model.level("00", "D1", kind)
        time = dice.lognormvariate(level.mu, level.variance**0.5)
        if dice.random() < pause.chance:
            time += dice.lognormvariate(pause.time.mu, pause.time.variance**0.5)
        return time

    drawn = []
    for _ in range(20_000):
        time = turn(FIRST if dice.random() < 0.75 else FOLLOW_UP)
        drawn.append(time + (turn(RETURN) if dice.random() < 0.25 else 0.0))
    assert found.time.mean == pytest.approx(fmean(drawn), rel=0.02)
    assert found.time.square - found.time.mean**2 == pytest.approx(pvariance(drawn), rel=0.08)
    assert booked_time(seen, model, "00", "D3").learned, "of the department"
    assert booked_time(seen, model, "00", "D3").turns == 0
