"""One night's learning: when a model is used, what it is judged by, and what stands in for it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest

from benchmarks import no_show as bench
from engine.domain.no_show import Appointment, model_of_plain
from engine.domain.no_show_night import (
    ASSUMED_DIFFER,
    ASSUMED_SHARE,
    JUDGED_DAYS,
    PRIOR_ROWS,
    ROWS_MIN,
    UNLEARNED,
    Visit,
    auc,
    judged_of_plain,
    learn_night,
    plain_of_judged,
    rates_of_cells,
    rates_of_plain,
)
from tests.support.no_shows import REAL
from web.no_show_round import is_due

TODAY = date(2026, 11, 23)
ZONE = ZoneInfo("Asia/Shanghai")


def hospital(
    n: int, misses: Callable[[Random, int], bool] = lambda dice, lead: dice.random() < 0.03 + 0.02 * lead
) -> list[Visit]:
    """So many visits of the 40 days before TODAY and of the 10 days from it on, none of which is over."""
    dice = Random(7)
    found = []
    for number in range(n):
        day = TODAY - timedelta(dice.randrange(-10, 40))
        lead = dice.choice((0, 1, 2, 5, 9, 14, 20))
        booked = datetime.combine(day - timedelta(lead), time(dice.randrange(7, 9)), ZONE)
        missed = misses(dice, lead) if day < TODAY else None
        department = f"0{dice.randrange(3)}"
        doctor = f"D{department}{dice.randrange(2)}"
        one = Appointment(
            f"{number:05}", f"p{dice.randrange(n // 3)}", booked, day, 540, 40, "male", {}, missed
        )
        found.append(Visit(one, f"{doctor}-{day:%Y%m%d}", department, doctor))
    return found


def test_what_can_be_told_is_learned_and_judged_on_days_it_had_not_seen() -> None:
    night = learn_night(hospital(4_000), TODAY)
    assert night.why is None and night.model is not None and night.judged is not None
    assert night.judged.since == TODAY - timedelta(JUDGED_DAYS)
    assert night.judged.auc > 0.65
    assert night.judged.brier < night.judged.brier_of_share
    assert sum(n for _, _, n in night.judged.bins) == night.judged.rows
    assert [told for told, _, _ in night.judged.bins] == sorted(told for told, _, _ in night.judged.bins)
    assert night.rows == sum(v.one.day < TODAY for v in hospital(4_000)) == night.model.learned_from
    share = night.rates.share("00", "D000", 0, 9)
    assert share.group == "session" and share.rows > 0
    assert abs(share.chance - night.missed / night.rows) < 0.06


def test_the_judged_week_says_nothing_of_itself() -> None:
    """Every outcome of it turned round: the chances that are judged stay, and so do the bins' told halves."""
    since = TODAY - timedelta(JUDGED_DAYS)
    visits = hospital(4_000)
    # One visit a patient, so that no earlier outcome of the same week is known of anybody.
    visits = [replace(v, one=replace(v.one, patient_id=v.one.id)) for v in visits]
    turned = [
        replace(v, one=replace(v.one, missed=not v.one.missed)) if since <= v.one.day < TODAY else v
        for v in visits
    ]
    first, second = learn_night(visits, TODAY).judged, learn_night(turned, TODAY).judged
    assert first is not None and second is not None
    assert [told for told, _, _ in first.bins] == pytest.approx([told for told, _, _ in second.bins])
    assert first.auc == pytest.approx(1 - second.auc)


def test_later_days_teach_nothing() -> None:
    visits = hospital(4_000)
    ahead = [replace(v, one=replace(v.one, missed=True)) if v.one.day >= TODAY else v for v in visits]
    assert learn_night(ahead, TODAY) == learn_night(visits, TODAY)


@pytest.mark.parametrize(
    ("visits", "why"),
    [
        (hospital(ROWS_MIN // 2), "too_few"),
        (hospital(4_000, lambda dice, lead: True), "too_few"),  # nobody notes arrivals
        (hospital(4_000, lambda dice, lead: False), "too_few"),  # nobody notes absences
        (
            [v for v in hospital(6_000) if not TODAY - timedelta(JUDGED_DAYS) <= v.one.day < TODAY],
            "not_judged",
        ),
    ],
)
def test_no_model_is_used_where_too_little_is_known(visits: list[Visit], why: str) -> None:
    night = learn_night(visits, TODAY)
    assert (night.model, night.why, night.absences_differ) == (None, why, ASSUMED_DIFFER)


def test_no_model_is_used_that_would_have_told_the_week_worse_than_one_share_for_all() -> None:
    """The world turns over before the judged week: who used to come misses, and the other way round."""
    since = TODAY - timedelta(JUDGED_DAYS)
    turned = [
        replace(v, one=replace(v.one, missed=not v.one.missed))
        if v.one.missed is not None and v.one.day >= since
        else v
        for v in hospital(4_000, lambda dice, lead: lead > 8)
    ]
    night = learn_night(turned, TODAY)
    assert (night.model, night.why) == (None, "no_better")
    assert night.judged is not None and night.judged.auc < 0.5
    assert night.rates.share("00", "D000", 0, 9).rows > 0, "the plain shares are there"


def test_shares_are_drawn_towards_the_bigger_group() -> None:
    assert UNLEARNED.rates.share("00", "D1", 0, 9).chance == ASSUMED_SHARE
    assert UNLEARNED.rates.share("00", "D1", 0, 9).group == "assumed"
    rates = rates_of_cells({("00", "D1", 0, 9): (1_000, 300.0), ("01", "D2", 0, 9): (4, 4.0)})
    everywhere = rates.share("09", "D9", 0, 9)
    assert everywhere.group == "hospital"
    assert everywhere.chance == pytest.approx((304 + PRIOR_ROWS * ASSUMED_SHARE) / (1_004 + PRIOR_ROWS))
    assert 0.29 < rates.share("00", "D1", 0, 9).chance < 0.31
    few = rates.share("01", "D2", 0, 9)
    assert everywhere.chance < few.chance < 0.55, "four of four is not everybody"
    assert rates.share("00", "D1", 1, 9).group == "practitioner"
    assert rates.share("00", "D7", 0, 9).group == "department"


def test_auc_counts_pairs() -> None:
    told = [(0.1, False), (0.2, True), (0.2, False), (0.9, True), (0.5, False)]
    pairs = [(m, c) for m, is_m in told if is_m for c, is_c in told if not is_c]
    assert auc(told) == pytest.approx(sum((m > c) + (m == c) / 2 for m, c in pairs) / len(pairs))


def test_what_is_kept_is_what_was_learned() -> None:
    night = learn_night(hospital(4_000), TODAY)
    assert night.model is not None and night.judged is not None
    assert model_of_plain(night.model.plain()) == night.model
    assert judged_of_plain(plain_of_judged(night.judged)) == night.judged
    again = rates_of_plain(night.rates.plain())
    assert again.share("00", "D000", 2, 9) == night.rates.share("00", "D000", 2, 9)


@pytest.mark.skipif(not REAL.exists(), reason="the data set is not here")
def test_on_real_appointments_with_what_our_tables_know() -> None:
    """The figures of docs/NO_SHOWS.md: no conditions, reminders or districts, told a day before."""
    visits = [Visit(replace(one, traits={}), "", "", "") for one in bench.appointments(REAL)]
    night = learn_night(visits, date(2016, 6, 1))
    assert night.why is None and night.judged is not None
    assert (night.rows, night.missed, night.judged.rows) == (84_071, 17_432, 12_702)
    assert night.judged.auc > 0.73
    assert night.judged.brier < 0.91 * night.judged.brier_of_share


@pytest.mark.parametrize(
    ("learned_at", "now", "due"),
    [
        (None, "2026-11-23T12:00", True),
        ("2026-11-22T12:00", "2026-11-23T01:59", False),
        ("2026-11-22T12:00", "2026-11-23T02:00", True),
        ("2026-11-23T02:00", "2026-11-23T23:59", False),
        ("2026-11-23T23:59", "2026-11-24T00:01", False),
        ("2026-11-20T02:00", "2026-11-24T00:01", False),  # the night has not come yet
    ],
)
def test_it_is_learned_once_a_night(learned_at: str | None, now: str, due: bool) -> None:
    def at(told: str) -> datetime:
        return datetime.fromisoformat(told).replace(tzinfo=ZONE)

    assert is_due(None if learned_at is None else at(learned_at), at(now)) is due
