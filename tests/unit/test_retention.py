"""What is kept of somebody who wants to be forgotten, and until when."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.retention import (
    OUTPATIENT_YEARS,
    Datum,
    Fate,
    Obstacle,
    Standing,
    of_account,
    of_patient,
)

TODAY = date(2026, 11, 23)
days = st.dates(date(2000, 1, 1), date(2060, 12, 31))
standings = st.builds(
    Standing,
    last_visit=st.none() | days,
    blocked_until=st.none() | days,
    bookings_ahead=st.integers(0, 2),
    bills_open=st.integers(0, 2),
    waits=st.integers(0, 1),
    wishes_open=st.integers(0, 1),
    appeals_open=st.integers(0, 1),
)


def test_who_was_never_seen_leaves_nothing_that_leads_to_them() -> None:
    decision = of_patient(Standing(None), TODAY)
    assert decision.kept_until is None and decision.obstacles == ()
    assert decision.fates[Datum.IDENTITY].fate is Fate.ERASED
    assert Fate.RESTRICTED not in {kept.fate for kept in decision.fates.values()}


@pytest.mark.parametrize(
    ("visit", "until"),
    [
        (date(2026, 11, 22), date(2041, 11, 22)),
        (date(2012, 2, 29), date(2027, 3, 1)),  # no such day in 2027: a day longer, not a day less
        (date(2011, 11, 24), date(2026, 11, 24)),  # tomorrow
        (date(2011, 11, 23), None),  # today the 15 years are over
        (date(1990, 1, 1), None),
    ],
)
def test_a_record_is_kept_for_fifteen_years_from_the_last_visit(visit: date, until: date | None) -> None:
    decision = of_patient(Standing(visit), TODAY)
    assert decision.kept_until == until
    assert decision.fates[Datum.IDENTITY].until == until
    assert (decision.fates[Datum.VISITS].fate is Fate.RESTRICTED) == (until is not None)
    assert decision.fates[Datum.CONTACT].fate is Fate.ERASED


def test_a_block_is_not_lived_down_by_being_forgotten() -> None:
    decision = of_patient(Standing(None, blocked_until=TODAY + timedelta(days=9)), TODAY)
    assert decision.kept_until == TODAY + timedelta(days=9)
    assert decision.fates[Datum.VISITS].fate is Fate.UNNAMED
    blocked = of_account(Standing(None, blocked_until=TODAY + timedelta(days=9)))
    assert blocked.obstacles == (Obstacle.PENALTY_IN_FORCE,)


@given(standings, days)
def test_nothing_of_the_record_goes_early_and_nothing_stays_without_reason(
    standing: Standing, today: date
) -> None:
    decision = of_patient(standing, today)
    until = decision.kept_until
    visit, block = standing.last_visit, standing.blocked_until
    if visit is not None and today < date(visit.year + OUTPATIENT_YEARS, visit.month, min(visit.day, 28)):
        assert until is not None and until.year >= visit.year + OUTPATIENT_YEARS
    if until is not None:
        assert until > today
        assert visit is not None or block is not None
    # Whatever happens, these are gone at once, and these stay as evidence.
    for datum in (Datum.CONTACT, Datum.APPEALS, Datum.CALLS, Datum.NOTICES, Datum.DELEGATIONS):
        assert decision.fates[datum].fate is Fate.ERASED
    assert decision.fates[Datum.TRAIL].fate is decision.fates[Datum.CONSENTS].fate is Fate.KEPT
    # A day is named where something is restricted, and nowhere else.
    for kept in decision.fates.values():
        assert (kept.until is not None) == (kept.fate is Fate.RESTRICTED)
        assert kept.until is None or (until is not None and kept.until <= until)
    # And once it is over, nothing is left to keep.
    if until is not None:
        assert of_patient(standing, until).kept_until is None


@given(standings, days)
def test_every_open_matter_is_an_obstacle(standing: Standing, today: date) -> None:
    open_matters = [
        (Obstacle.BOOKING_AHEAD, standing.bookings_ahead),
        (Obstacle.BILL_OPEN, standing.bills_open),
        (Obstacle.WAITING_TODAY, standing.waits),
        (Obstacle.WISH_OPEN, standing.wishes_open),
        (Obstacle.APPEAL_OPEN, standing.appeals_open),
    ]
    wanted = {obstacle for obstacle, count in open_matters if count}
    assert set(of_patient(standing, today).obstacles) == wanted
    assert set(of_account(standing).obstacles) - {Obstacle.PENALTY_IN_FORCE} == wanted


def test_each_kind_of_data_has_a_fate_in_one_of_the_two() -> None:
    told = {*of_patient(Standing(None), TODAY).fates, *of_account(Standing(None)).fates}
    assert told == set(Datum)
