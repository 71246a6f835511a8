"""The no-show model: what it learns, what it must not know, how it is stored, and whom to ring."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from math import exp, log
from pathlib import Path

import numpy
import pytest

from benchmarks import no_show as bench
from engine.domain.no_show import (
    Answer,
    Appointment,
    Callee,
    Facts,
    Model,
    Past,
    absences_differ,
    asked_at,
    calling_list,
    cells,
    learn,
    model_of_plain,
)
from tests.support.no_shows import REAL, invented

MONDAY = date(2026, 11, 2)


def appointment(id_: str = "a", patient: str = "p", ahead: int = 5, **changes: object) -> Appointment:
    """On MONDAY, booked at 09:00 so many days before."""
    day = changes.pop("day", MONDAY)
    assert isinstance(day, date)
    booked = datetime.combine(day - timedelta(ahead), time(9))
    values: dict[str, object] = {"age": 40, "sex": "female", **changes}
    return Appointment(id_, patient, booked, day, **values)  # type: ignore[arg-type]


def hospital(seed: int, days: int, per_day: int = 120, patients: int = 300) -> list[Appointment]:
    """Invented: the long booked and the unreliable miss more; a district of two is a little worse."""
    rng = random.Random(seed)
    unreliable = {str(n): rng.gauss(0, 1.5) for n in range(patients)}
    found = []
    for n in range(days * per_day):
        day = MONDAY + timedelta(n // per_day)
        patient = str(rng.randrange(patients))
        ahead = rng.choice((0, 0, 1, 3, 7, 14, 30))
        district = rng.choice(("east", "west"))
        score = -2.5 + 0.6 * log(1 + ahead) + unreliable[patient] + 0.3 * (district == "west")
        found.append(
            appointment(
                str(n),
                patient,
                ahead,
                day=day,
                age=rng.randrange(90),
                sex=rng.choice(("female", "male")),
                traits={"district": district},
                missed=rng.random() < 1 / (1 + exp(-score)),
            )
        )
    return found


def auc(model: Model, everything: Iterable[Appointment], judged: Iterable[Appointment]) -> float:
    past, judged = Past(everything), list(judged)
    chances = numpy.array([model.chance(past.facts(one, asked_at(one, 0))) for one in judged])
    return bench.auc(chances, numpy.array([bool(one.missed) for one in judged], float))


# What is known when.


def test_the_past_of_an_appointment_is_what_was_over_and_booked_by_then() -> None:
    one = appointment()
    past = Past(
        [
            one,
            appointment("1", day=MONDAY - timedelta(30), missed=True),
            appointment("2", day=MONDAY - timedelta(9), missed=False),
            appointment("3", day=MONDAY - timedelta(8), ahead=0, missed=True),
            appointment("4", day=MONDAY - timedelta(1), missed=True),  # today, as of the day before
            appointment("5", day=MONDAY - timedelta(2), missed=None),  # cancelled
            appointment("6", ahead=3, missed=True),  # the same day
            appointment("7", day=MONDAY + timedelta(9), ahead=14),
            appointment("8", day=MONDAY + timedelta(9), ahead=1),  # booked later
            appointment("9", patient="another", day=MONDAY - timedelta(9), missed=True),
        ]
    )
    facts = past.facts(one, asked_at(one, 1))
    assert (facts.ahead, facts.ahead_missed) == (2, 1)
    assert (facts.same_day, facts.same_day_missed) == (1, 1)
    assert facts.last_missed is True and facts.days_since == 8
    assert (facts.others_that_day, facts.others_later) == (1, 1)
    assert facts.in_one_go == 1  # 7 was booked at the same moment
    assert past.facts(one, asked_at(one, 0)).ahead_missed == 2  # a night later, 4 is known


def test_asked_when_booked_where_that_is_later_than_the_horizon() -> None:
    assert asked_at(appointment(ahead=0), 1) == datetime.combine(MONDAY, time(9))
    assert asked_at(appointment(ahead=9), 2) == datetime.combine(MONDAY - timedelta(2), time())


def test_an_outcome_that_comes_later_replaces_the_booking() -> None:
    past = Past([appointment("1", day=MONDAY - timedelta(9))])
    past.add(appointment("1", day=MONDAY - timedelta(9), missed=True))
    facts = past.facts(appointment(), datetime.combine(MONDAY, time()))
    assert (facts.ahead, facts.ahead_missed) == (1, 1)


def another_future(everything: Iterable[Appointment], now: datetime) -> list[Appointment]:
    """The same until `now`; every later outcome is the opposite, and later bookings are other people's."""
    found = []
    for one in everything:
        if one.booked_at > now:
            one = replace(one, patient_id=f"{one.patient_id}?", age=1, traits={})
        if one.day >= now.date():
            one = replace(one, missed=not one.missed)
        found.append(one)
    return found


@pytest.mark.parametrize("horizon_days", [0, 1, 3])
def test_another_future_changes_nothing_that_was_told(horizon_days: int) -> None:
    everything = hospital(1, 24)
    day = MONDAY + timedelta(18)
    now = datetime.combine(day - timedelta(horizon_days), time())
    told = []
    for seen in (everything, another_future(everything, now)):
        model = learn(seen, now.date(), horizon_days=horizon_days)
        past = Past(seen)
        told.append(
            [
                model.chance(past.facts(one, asked_at(one, horizon_days)))
                for one in seen
                if one.day == day and one.booked_at <= now
            ]
        )
    assert len(told[0]) > 20
    assert told[0] == told[1]


# What is learned.


def test_it_finds_what_makes_people_miss() -> None:
    everything = hospital(2, 40)
    until = MONDAY + timedelta(32)
    model = learn(everything, until)
    judged = [one for one in everything if one.day >= until]
    assert auc(model, everything, judged) > 0.72
    assert model.tables["lead"]["29"] > model.tables["lead"]["0"] + 0.3
    assert model.tables["trait district"]["west"] > model.tables["trait district"]["east"]
    past = Past(everything)
    chances = [model.chance(past.facts(one, asked_at(one, 0))) for one in judged]
    seen = sum(bool(one.missed) for one in judged) / len(judged)
    assert sum(chances) / len(chances) == pytest.approx(seen, abs=0.03)


def test_a_record_is_worth_something() -> None:
    everything = hospital(3, 40)
    until = MONDAY + timedelta(32)
    judged = [one for one in everything if one.day >= until]
    strangers = [replace(one, patient_id=one.id) for one in everything]
    without = auc(learn(strangers, until), strangers, [replace(one, patient_id=one.id) for one in judged])
    assert auc(learn(everything, until), everything, judged) > without + 0.02


def test_few_appointments_move_a_cell_little() -> None:
    everything = hospital(4, 10)
    rare = [
        appointment(f"r{n}", f"rare {n}", ahead=0, day=MONDAY, traits={"district": "rare"}, missed=True)
        for n in range(3)
    ]
    table = learn([*everything, *rare], MONDAY + timedelta(10)).tables["trait district"]
    assert 0 < table["rare"] < 0.2


def test_the_level_of_the_last_days_is_followed() -> None:
    """From one day to the next everybody misses twice as often: points cannot know, the level can."""
    rng = random.Random(5)
    everything = [
        appointment(
            str(n),
            str(n),
            day=MONDAY + timedelta(n // 200),
            missed=rng.random() < (0.15 if n // 200 < 40 else 0.3),
        )
        for n in range(50 * 200)
    ]
    until = MONDAY + timedelta(50)
    facts = Past().facts(appointment("x", "x", day=until), datetime.combine(until, time()))
    slow, quick = (
        learn(everything, until, level_kept=1.0).chance(facts),
        learn(everything, until).chance(facts),
    )
    assert slow < 0.17 < 0.19 < quick < 0.3


def test_learning_again_from_yesterdays_model_comes_to_nearly_the_same() -> None:
    everything = hospital(6, 30)
    until = MONDAY + timedelta(30)
    anew = learn(everything, until)
    again = learn(everything, until, before=learn(everything, until - timedelta(1)))
    past = Past(everything)
    for one in everything[-200:]:
        facts = past.facts(one, asked_at(one, 0))
        assert again.chance(facts) == pytest.approx(anew.chance(facts), abs=0.02)


def test_nothing_seen_is_a_model_too() -> None:
    model = learn([], MONDAY)
    assert model.tables == {}
    assert 0 < model.chance(Past().facts(appointment(), datetime.combine(MONDAY, time()))) < 1


def test_an_unheard_of_value_has_no_points() -> None:
    model = learn(hospital(7, 10), MONDAY + timedelta(10))
    facts = Past().facts(appointment(), datetime.combine(MONDAY, time()))
    assert model.score(replace(facts, traits={"district": "new", "channel": "new"})) == model.score(facts)


def test_a_trait_that_is_not_given_counts_as_it_was_learned() -> None:
    """Here the district is missing where people come."""
    everything = [
        appointment(str(n), str(n), missed=n % 10 < 4, traits={"district": "east"} if n % 10 < 5 else {})
        for n in range(1_000)
    ]
    model = learn(everything, MONDAY + timedelta(1))
    facts = Past().facts(appointment("x", "x"), datetime.combine(MONDAY, time()))
    assert model.chance(facts) < 0.1 < 0.6 < model.chance(replace(facts, traits={"district": "east"}))


def test_the_reasons_are_the_loudest_points() -> None:
    model = Model(0.0, {"lead": {"36": 1.0}, "sex": {"female": -2.0}, "age": {"36": 0.1}})
    facts = Past().facts(appointment(ahead=40, age=36), datetime.combine(MONDAY, time()))
    assert model.reasons(facts, 2) == [("sex", "female", -2.0), ("lead", "36", 1.0)]
    assert model.score(facts) == pytest.approx(-0.9)


def test_a_model_survives_storage() -> None:
    model = learn(hospital(8, 5), MONDAY + timedelta(5), horizon_days=2)
    assert model_of_plain(json.loads(json.dumps(model.plain()))) == model


@pytest.mark.parametrize("missing", ["intercept", "tables", "horizon_days", "learned_from"])
def test_what_is_no_model_is_refused(missing: str) -> None:
    plain = learn([], MONDAY).plain()
    del plain[missing]
    with pytest.raises(KeyError):
        model_of_plain(plain)


def test_every_fact_has_a_cell_in_each_table() -> None:
    unknown = Facts(0, 0, 0, 0, None, None, None)
    assert set(cells(unknown)) == set(cells(replace(unknown, age=3, sex="male", hour=9)))
    assert cells(unknown)["age"] == "?"
    assert cells(replace(unknown, age=0))["age"] == "0"


# Whom to ring.


def test_the_list_is_ranked_by_what_a_call_gains() -> None:
    calls = calling_list(
        [
            Callee("1", "anna", 0.5, refill=0.0),
            Callee("2", "bo", 0.4, refill=1.0),
            Callee("3", "chen", 0.1),
            Callee("4", "dora", 0.3, refill=0.0),
            Callee("5", "dora", 0.3, refill=0.0),
        ],
        3,
        Answer(reached=0.5, comes=0.4, gives_back=0.4),
    )
    assert [call.patient_id for call in calls] == ["bo", "dora", "anna"]
    assert calls[0].gain == pytest.approx(0.4 * 0.5 * 0.8)
    assert calls[1].appointment_ids == ("4", "5") and calls[1].gain == pytest.approx(0.6 * 0.5 * 0.4)


# What people of one session have in common.


def test_what_a_session_has_in_common_is_found_and_independence_too() -> None:
    rng = random.Random(9)
    for sigma in (0.0, 0.5):
        sessions = []
        for _ in range(4_000):
            shift = rng.gauss(0, sigma)
            people = []
            for _ in range(16):
                score = rng.choice((-1.5, -1.0, -0.5))
                told = sum(1 / (1 + exp(-score - sigma * z / 4)) for z in range(-8, 9)) / 17
                people.append((told, rng.random() < 1 / (1 + exp(-score - shift))))
            sessions.append(people)
        assert absences_differ(sessions) == pytest.approx(sigma**2, abs=0.05)
    assert absences_differ([]) == 0.0


# The benchmark.


def test_auc_and_calibration_are_what_they_are_called() -> None:
    missed = numpy.array([0, 0, 1, 1, 0, 1], float)
    chance = numpy.array([0.1, 0.4, 0.35, 0.8, 0.4, 0.4])
    pairs = [(a, b) for a in chance[missed == 1] for b in chance[missed == 0]]
    wins = sum((a > b) + (a == b) / 2 for a, b in pairs)
    assert bench.auc(chance, missed) == pytest.approx(wins / len(pairs))
    rng = numpy.random.default_rng(1)
    chance = rng.uniform(0.02, 0.6, 40_000)
    missed = (rng.uniform(size=40_000) < chance).astype(float)
    assert bench.ece(chance, missed) < 0.02
    assert bench.ece(numpy.clip(chance + 0.1, 0, 1), missed) == pytest.approx(0.1, abs=0.01)


def test_rows_become_appointments(tmp_path: Path) -> None:
    import gzip

    file = tmp_path / "rows.csv.gz"
    with gzip.open(file, "wt") as out:
        out.write(invented(60))
    found = bench.appointments(file)
    assert len(found) == 60
    assert {one.traits["reminder"] for one in found} <= {"sent", "too soon", "not sent", "nobody that day"}
    assert sum(bool(one.missed) for one in found) == 12
    assert [one.day for one in found] == sorted(one.day for one in found)


@pytest.fixture(scope="module")
def real() -> list[Appointment]:
    if not REAL.exists():
        pytest.skip("the data set is not here: it stays outside the repository")
    return bench.without(bench.POVERTY, bench.appointments(REAL))


def test_later_weeks_of_real_appointments(real: list[Appointment]) -> None:
    told, _ = bench.frozen(real)
    assert len(told.of) == 43_161
    assert bench.auc(told.chance, told.missed) >= 0.73
    assert bench.ece(told.chance, told.missed) < 0.03
    ahead = told.where(told.ahead)
    assert bench.auc(ahead.chance, ahead.missed) > 0.6  # most of the rest is who was booked on the day


def test_another_future_of_the_real_appointments_changes_nothing(real: list[Appointment]) -> None:
    day = date(2016, 5, 6)
    now = datetime.combine(day, time(), real[0].booked_at.tzinfo)
    told = []
    for seen in (real, another_future(real, now)):
        model, past = learn(seen, day), Past(seen)
        judged = [one for one in seen if one.day == day and one.booked_at <= now]
        told.append([model.chance(past.facts(one, asked_at(one, 0))) for one in judged])
    assert len(told[0]) > 1_000
    assert told[0] == told[1]
