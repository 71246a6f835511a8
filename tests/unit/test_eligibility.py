"""Who may book: the guards in the order in which `check` has them."""

from dataclasses import replace
from datetime import date

import pytest

from engine.domain.delegation import ends_on
from engine.domain.eligibility import (
    NOBODY,
    Block,
    DepartmentRule,
    Facts,
    check,
    full_years,
    is_follow_up,
)
from engine.domain.policy import Offence, Policy
from engine.domain.refusal import Reason, Refusal

NOW = 1_000_000
DAY = date(2026, 11, 24)
POLICY = Policy(active_appointments_max=3, account_holds_max=2, day_appointments_max=2)
OWNER = b"\xaa" * 16
BLOCK = Block(b"\xbb" * 16, "three_in_a_year", Offence.NO_SHOW, NOW + 1)

# Everything is wrong with this one; each line below mends the guard before it, so the next one speaks.
WRONG = Facts(
    is_of_account=False,
    delegated_until=NOW,
    birth_date=date(2010, 11, 25),
    sex="male",
    block=BLOCK,
    active_appointments=3,
    day_appointments=2,
    account_holds=2,
    key_used_elsewhere=True,
    department_day_owner=OWNER,
    time_owner=OWNER,
    may_book=False,
    is_verified=False,
)
STRICT = replace(POLICY, real_name_required=True)
RULE = DepartmentRule(sex="female", age_min=18, age_max=60)
MENDED = [
    ("is_of_account", True),
    ("delegated_until", NOW + 1),
    ("may_book", True),
    ("key_used_elsewhere", False),
    ("is_verified", True),
    ("block", replace(BLOCK, until=NOW)),
    ("department_day_owner", None),
    ("time_owner", None),
    ("active_appointments", 2),
    ("day_appointments", 1),
    ("account_holds", 1),
    ("sex", "female"),
    ("birth_date", date(2008, 11, 24)),
]
IN_THE_WAY = {"appointment_id": OWNER.hex()}
EXPECTED: list[Refusal | None] = [
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "patient_of_another_account"}),
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "delegation_expired", "until": NOW}),
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "delegation_without_booking"}),
    Refusal(Reason.KEY_REUSED),
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "real_name_required"}),
    Refusal(
        Reason.NOT_ELIGIBLE,
        {"rule": "three_in_a_year", "offence": "no_show", "until": NOW + 1, "penalty_id": "bb" * 16},
    ),
    Refusal(Reason.ALREADY_BOOKED, IN_THE_WAY),
    Refusal(Reason.TIME_CONFLICT, IN_THE_WAY),
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "active_appointments_max", "limit": 3}),
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "day_appointments_max", "limit": 2}),
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "account_holds_max", "limit": 2}),
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "department_sex"}),
    Refusal(Reason.NOT_ELIGIBLE, {"rule": "department_age", "limit": 18}),
    None,
]


@pytest.mark.parametrize("mended", range(len(MENDED) + 1))
def test_the_guards_speak_in_their_order(mended: int) -> None:
    facts = replace(WRONG, **dict(MENDED[:mended]))  # type: ignore[arg-type]
    assert check(facts, RULE, STRICT, DAY, NOW) == EXPECTED[mended]


@pytest.mark.parametrize("broken", range(len(MENDED)))
def test_each_guard_refuses_alone(broken: int) -> None:
    name, _ = MENDED[broken]
    facts = replace(WRONG, **{**dict(MENDED), name: getattr(WRONG, name)})  # type: ignore[arg-type]
    assert check(facts, RULE, STRICT, DAY, NOW) == EXPECTED[broken]


GOOD = Facts(is_of_account=True, birth_date=date(1990, 1, 1), sex="male")


def test_nobody_is_a_patient_of_another_account() -> None:
    assert check(NOBODY, DepartmentRule(), POLICY, DAY, NOW) == EXPECTED[0]


@pytest.mark.parametrize(
    ("birth_date", "refused"),
    [
        (date(2012, 11, 24), False),  # 14 today
        (date(2012, 11, 23), False),
        (date(2011, 11, 25), False),  # 15 tomorrow
        (date(2011, 11, 24), True),  # 15 today
        (None, False),
    ],
)
def test_paediatrics_sees_children_up_to_and_including_14(birth_date: date | None, refused: bool) -> None:
    facts = replace(GOOD, birth_date=birth_date)
    expected = Refusal(Reason.NOT_ELIGIBLE, {"rule": "department_age", "limit": 14}) if refused else None
    assert check(facts, DepartmentRule(age_max=14), POLICY, DAY, NOW) == expected


def test_what_is_not_known_of_a_patient_is_not_held_against_him() -> None:
    unknown = Facts(is_of_account=True)
    assert check(unknown, DepartmentRule(sex="female", age_min=18, age_max=60), POLICY, DAY, NOW) is None


def test_nobody_has_to_be_verified_unless_the_hospital_says_so() -> None:
    assert check(replace(GOOD, is_verified=False), DepartmentRule(), POLICY, DAY, NOW) is None


@pytest.mark.parametrize(
    ("born", "day", "years"),
    [
        (date(2000, 2, 29), date(2018, 2, 28), 17),
        (date(2000, 2, 29), date(2018, 3, 1), 18),
        (date(2000, 2, 29), date(2020, 2, 29), 20),
        (date(2026, 11, 24), date(2026, 11, 24), 0),
        (date(1999, 12, 31), date(2000, 1, 1), 0),
    ],
)
def test_age_is_in_full_years(born: date, day: date, years: int) -> None:
    assert full_years(born, day) == years


DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("last", "follows"),
    [(None, False), (0, True), (-1, False), (10 * DAY_MS, False), (10 * DAY_MS - 1, True)],
)
def test_a_follow_up_comes_within_the_days_after_a_visit(last: int | None, follows: bool) -> None:
    assert is_follow_up(replace(GOOD, last_visit_at=last), 10, 10 * DAY_MS) is follows


@pytest.mark.parametrize(
    ("relation", "born", "ends"),
    [
        ("self", date(1990, 1, 1), None),
        ("child", date(2020, 5, 6), date(2038, 5, 6)),
        ("child", date(2008, 11, 25), date(2026, 11, 25)),  # 18 tomorrow
        ("child", date(2008, 11, 24), date(2027, 11, 24)),  # 18 today: a grown-up's consent
        ("child", date(2024, 2, 29), date(2042, 3, 1)),
        ("child", None, date(2027, 11, 24)),
        ("parent", date(1950, 1, 1), date(2027, 11, 24)),
        ("parent", date(2020, 5, 6), date(2027, 11, 24)),
        ("other", None, date(2027, 11, 24)),
    ],
)
def test_how_long_one_may_book_for_another(relation: str, born: date | None, ends: date | None) -> None:
    assert ends_on(relation, born, DAY, 365) == ends
