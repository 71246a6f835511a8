"""Money in policy.yaml: yuan are read exactly, refunds are merged like other terms, wrong in its place."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.money import plain_yuan
from engine.domain.payment import AtHospital, MoneyTerms
from engine.domain.policy import Policy
from engine.domain.price_rules import FirstVisitDiscount, FreeFollowUp, PriceRules
from engine.domain.refund_rules import Cause, RefundRules, RefundTerms, percent_back
from engine.records.hospital_rules import FileError
from engine.records.payment_file import payment_as_data, refunds_as_data
from engine.records.policy_file import Known, PolicyRefused, read_policy

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "web" / "demo" / "hospital" / "policy.yaml"
KNOWN = Known({"03": False, "0304": True, "0501": True}, ("ordinary", "expert", "special"))
DAY = 24 * 60

GOOD = """\
payment:
  at_hospital: {amount_max: "500.00", unpaid_max: 2}
  refunds: {approval_above: 1000}
  prices:
    first_visit:
      - {name: 首诊优惠, percent: 20}
      - {name: 首诊检查优惠, percent: 5, kinds: [examination, drug]}
    free_follow_up:
      - {name: 三日内复诊免挂号费, within: 3d}
      - {name: 心内科七日, within: 7d, visits_max: 2, departments: ["0304", "0501"], same_practitioner: yes}
defaults:
  refunds:
    cancelled:
      - {before: 1d, percent: 100}
      - {before: 2h, percent: 50}
    no_show: 0
classes:
  expert:
    refunds: {cancelled: [{before: 2d, percent: 100}]}
departments:
  "0304":
    refunds: {no_show: 0}
    classes:
      special:
        refunds: {cancelled: [], no_show: 0}
      ordinary:
        refunds: {cancelled: [{before: 0m, percent: 90}], no_show: 30}
"""


def read(text: str) -> Policy:
    return read_policy(text, Policy(), KNOWN)


def errors_of(text: str) -> list[FileError]:
    with pytest.raises(PolicyRefused) as refused:
        read(text)
    return list(refused.value.errors)


def test_the_section() -> None:
    policy = read(GOOD)
    assert policy.money.at_hospital == AtHospital(50_000, 2)
    assert policy.refund_approval_above == 100_000
    assert policy.prices == PriceRules(
        (
            FirstVisitDiscount("首诊优惠", 20),
            FirstVisitDiscount("首诊检查优惠", 5, ("drug", "examination")),
        ),
        (
            FreeFollowUp("三日内复诊免挂号费", 3),
            FreeFollowUp("心内科七日", 7, 2, "0304", True),
            FreeFollowUp("心内科七日", 7, 2, "0501", True),
        ),
    )


def test_what_is_not_said_is_as_it_was_without_the_section() -> None:
    for text in ("defaults: {}", "payment: {}", "payment: {at_hospital: yes}", "payment: {prices: {}}"):
        policy = read(text)
        assert (policy.money, policy.prices) == (MoneyTerms(), PriceRules())
        assert policy.refund_approval_above is None
    assert read("payment: {at_hospital: no}").money.at_hospital is None
    assert read("payment: {at_hospital: {amount_max: none}}").money.at_hospital == AtHospital()
    assert read("payment: {at_hospital: {unpaid_max: 1}}").money.at_hospital == AtHospital(None, 1)


def test_refunds_are_merged_key_by_key_and_the_most_particular_wins() -> None:
    rules = read(GOOD).money.refunds
    hospital = RefundTerms(((DAY, 100), (120, 50)))
    assert rules.terms_of("0501", "ordinary") == hospital
    assert rules.terms_of("0501", "expert") == RefundTerms(((2 * DAY, 100),))
    assert rules.terms_of("0304", "expert") == RefundTerms(((2 * DAY, 100),))
    assert rules.terms_of("0304", "special") == RefundTerms(())
    assert rules.terms_of("0304", "ordinary") == RefundTerms(((0, 90),), 30)
    assert percent_back(rules.terms_of("0304", "special"), Cause.CANCELLED, 10**12, 0) == 0


def test_a_department_says_it_over_a_class_and_its_class_over_both() -> None:
    text = """
classes: {expert: {refunds: {cancelled: [{before: 3h, percent: 10}]}}}
departments:
  "0304": {refunds: {cancelled: [{before: 2h, percent: 20}]}}
  "0501":
    refunds: {cancelled: [{before: 2h, percent: 20}]}
    classes: {expert: {refunds: {cancelled: [{before: 1h, percent: 30}]}}}
"""
    rules = read(text).money.refunds
    assert rules.terms_of("0304", "expert").tiers == ((120, 20),)
    assert rules.terms_of("0501", "expert").tiers == ((60, 30),)
    assert rules.terms_of("0501", "ordinary").tiers == ((120, 20),)


def test_without_refunds_nothing_is_kept_back() -> None:
    assert (
        read("payment: {at_hospital: no}\ndepartments: {'0304': {closes: 1h}}").money.refunds == RefundRules()
    )


@given(st.integers(0, 100_000_000))
def test_yuan_are_read_to_the_fen(fen: int) -> None:
    for spelled in (plain_yuan(fen), f'"{plain_yuan(fen)}"'):
        found = read(f"payment: {{at_hospital: {{amount_max: {spelled}}}}}").money.at_hospital
        assert found == AtHospital(fen)


@pytest.mark.parametrize(
    ("text", "line", "column", "path", "reason"),
    [
        ("payment: 5", 1, 10, "payment", "must be a mapping"),
        ("payment: {at_hospitals: no}", 1, 11, "payment.at_hospitals", "unknown key"),
        ("payment: {at_hospital: maybe}", 1, 24, "payment.at_hospital", "write yes or no"),
        ("payment: {at_hospital: {amount_max: 25.5}}", 1, 37, "amount_max", 'like "25.00"'),
        ("payment: {at_hospital: {amount_max: '1,000'}}", 1, 37, "amount_max", "amount in yuan"),
        ("payment: {at_hospital: {amount_max: -5}}", 1, 37, "amount_max", "amount in yuan"),
        ("payment: {at_hospital: {amount_max: 1000000.01}}", 1, 37, "amount_max", "from 0.00 to 1000000.00"),
        ("payment: {at_hospital: {unpaid_max: 0}}", 1, 37, "unpaid_max", "from 1 to"),
        ("payment: {refunds: {approval_above: much}}", 1, 37, "approval_above", "amount in yuan"),
        ("payment: {prices: {first_visit: {}}}", 1, 33, "first_visit", "must be a list"),
        ("payment: {prices: {first_visit: [{name: x}]}}", 1, 34, "first_visit[0]", "missing key 'percent'"),
        ("payment: {prices: {first_visit: [{name: x, percent: 101}]}}", 1, 53, "percent", "from 1 to 100"),
        (
            "payment: {prices: {first_visit: [{name: x, percent: 5, kinds: [tea]}]}}",
            1,
            64,
            "kinds[0]",
            "one of",
        ),
        ("payment: {prices: {first_visit: [{name: x, percent: 5, kinds: []}]}}", 1, 63, "kinds", "is empty"),
        (
            "payment: {prices: {first_visit: [{name: x, percent: 5}, {name: x, percent: 6}]}}",
            1,
            64,
            "first_visit[1].name",
            "another rule is called 'x'",
        ),
        (
            "payment: {prices: {first_visit: [{name: x, percent: 100}, {name: y, percent: 6}]}}",
            1,
            59,
            "first_visit[1]",
            "takes all of it already",
        ),
        (
            "payment: {prices: {free_follow_up: [{name: x, within: 0d}]}}",
            1,
            55,
            "within",
            "from 1d to 366d",
        ),
        (
            "payment: {prices: {free_follow_up: [{name: x, within: 3d, departments: ['03']}]}}",
            1,
            73,
            "departments[0]",
            "no such department that patients book",
        ),
        (
            "payment: {prices: {free_follow_up: [{name: x, within: 3d, departments: ['0304', '0304']}]}}",
            1,
            81,
            "departments[1]",
            "stands here twice",
        ),
        ("defaults: {refunds: {tiers: []}}", 1, 22, "defaults.refunds.tiers", "unknown key"),
        ("defaults: {refunds: {no_show: 101}}", 1, 31, "no_show", "from 0 to 100"),
        ("defaults: {refunds: {cancelled: [{before: 1d, percent: 101}]}}", 1, 56, "percent", "from 0 to 100"),
        ("defaults: {refunds: {cancelled: [{before: 31d, percent: 10}]}}", 1, 43, "before", "from 0m to"),
        ("defaults: {refunds: {cancelled: [{before: 30s, percent: 10}]}}", 1, 43, "before", "whole minutes"),
        (
            "defaults: {refunds: {cancelled: [{before: 2h, percent: 50}, {before: 1d, percent: 20}]}}",
            1,
            70,
            "cancelled[1].before",
            "the longest time first",
        ),
        (
            "defaults: {refunds: {cancelled: [{before: 1d, percent: 50}, {before: 2h, percent: 50}]}}",
            1,
            83,
            "cancelled[1].percent",
            "make them fall",
        ),
        (
            "defaults: {refunds: {cancelled: [{before: 1d, percent: 50}], no_show: 10}}",
            1,
            71,
            "no_show",
            "set no_show to 0 or less",
        ),
        (
            "defaults: {refunds: {no_show: 10}}\nclasses: {expert: {refunds: {cancelled: []}}}",
            2,
            41,
            "classes.expert.refunds.cancelled",
            "set no_show to 0 or less",
        ),
        ("classes: {nurse: {refunds: {no_show: 0}}}", 1, 11, "classes.nurse", "no such number class"),
        ("departments: {'03': {refunds: {no_show: 0}}}", 1, 15, "departments.03", "has departments under it"),
    ],
)
def test_what_is_wrong_is_told_in_its_place(
    text: str, line: int, column: int, path: str, reason: str
) -> None:
    (error,) = errors_of(text)
    assert (error.line, error.column) == (line, column)
    assert path in error.reason and reason in error.reason


def test_all_errors_are_told_at_once() -> None:
    assert (
        len(errors_of(GOOD.replace("percent: 100", "percent: 300").replace("20}", "0}").replace("1000", "x")))
        == 4
    )


TIERS = st.lists(st.integers(0, 30 * DAY), unique=True, max_size=5).flatmap(
    lambda minutes: st.lists(
        st.integers(0, 100), unique=True, min_size=len(minutes), max_size=len(minutes)
    ).map(lambda percents: tuple(zip(sorted(minutes)[::-1], sorted(percents)[::-1], strict=True)))
)


@given(TIERS)
def test_terms_said_in_the_files_words_are_read_back(tiers: tuple[tuple[int, int], ...]) -> None:
    terms = RefundTerms(tiers)
    text = yaml.safe_dump({"defaults": {"refunds": refunds_as_data(terms)}})
    assert read(text).money.refunds.terms_of("0304", "expert") == terms


@pytest.mark.parametrize("text", [GOOD, "payment: {at_hospital: no}", "defaults: {}"])
def test_the_section_said_in_the_files_words_is_read_back(text: str) -> None:
    policy = read(text)
    again = read(yaml.safe_dump({"payment": payment_as_data(policy)}, allow_unicode=True))
    assert (again.money.at_hospital, again.prices) == (policy.money.at_hospital, policy.prices)
    assert again.refund_approval_above == policy.refund_approval_above


def test_the_demo_hospital_has_rules_of_its_own() -> None:
    policy = read_policy(DEMO.read_text(), Policy())
    assert policy.prices.free_follow_up and policy.money.refunds.terms


def test_the_documentation_is_right() -> None:
    text = (ROOT / "docs" / "POLICY.md").read_text()
    part = text.split("## Money", 1)[1].split("```yaml\n", 1)[1].split("```", 1)[0]
    policy = read(part)
    assert policy.prices.first_visit and policy.money.at_hospital and policy.refund_approval_above
