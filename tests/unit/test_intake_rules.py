"""Rules for what comes in: what they find, what they never do, and how their file is read."""

import string
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.intake import FINDINGS_MAX, Finding, InterfaceRules, findings
from engine.records.intake_rules import RulesRefused, read_rules
from web.intake.intake import default_rules

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def _found(yaml: str, body: dict) -> list[tuple[str, str]]:
    rules = read_rules("x.y:\n" + "\n".join(f"  {line}" for line in yaml.strip().splitlines()))
    return [(one.field, one.rule) for one in findings(rules["x.y"], body, NOW)]


@pytest.mark.parametrize(
    ("rule", "value", "broken"),
    [
        ("{required: yes}", None, "missing"),
        ("{required: yes}", "", "missing"),
        ("{required: yes}", [], "missing"),
        ("{required: yes}", 0, None),
        ("{shape: text}", 5, "shape"),
        ("{shape: whole}", True, "shape"),
        ("{shape: number}", "12.5", None),
        ("{shape: number}", float("nan"), "shape"),
        ("{shape: number}", 10**500, "shape"),
        ("{shape: day}", "2026-02-30", "shape"),
        ("{shape: day}", "2026-02-28", None),
        ("{shape: time}", "2026-11-23T08:00:00", "shape"),
        ("{shape: time}", "2026-11-23T08:00:00+08:00", None),
        ("{shape: list}", "ab", "shape"),
        ("{chars_max: 3}", "abcd", "too_long"),
        ("{items_max: 1}", [1, 2], "too_many"),
        ('{pattern: "[A-Z]+"}', "AB1", "pattern"),
        ("{among: [a, b]}", "c", "unknown_code"),
        ("{lowest: 0, highest: 10}", "10.01", "range"),
        ("{lowest: 0, highest: 10}", "ten", "range"),
        ("{past_max: 1d}", "2026-11-20T08:00:00Z", "too_old"),
        ("{future_max: 1h}", "2026-11-23T10:00:00+01:00", None),
        ("{future_max: 1h}", "2026-11-23T10:00:00+00:00", "in_the_future"),
    ],
)
def test_a_rule_finds_what_it_is_for(rule: str, value: object, broken: str | None) -> None:
    assert _found(f"fields:\n  a: {rule}", {"a": value}) == ([] if broken is None else [("a", broken)])


def test_paths_lead_into_each_of_a_list() -> None:
    body = {"a": [{"b": "1"}, {"c": 2}, "no object", {"b": "x"}]}
    assert _found("fields:\n  'a[].b': {required: yes, shape: number}", body) == [
        ("a[1].b", "missing"),
        ("a[2].b", "missing"),
        ("a[3].b", "shape"),
    ]


def test_times_come_in_their_order_where_they_are_there() -> None:
    rule = "orders: [[ordered, taken, told]]"
    good = {"ordered": "2026-11-23T07:00:00Z", "told": "2026-11-23T15:00:01+08:00"}
    assert _found(rule, good) == []
    assert _found(rule, good | {"taken": "2026-11-23T06:59:59Z"}) == [("taken", "order")]


def test_a_figure_that_cannot_be_is_told_from_one_that_is_bad() -> None:
    rules = default_rules()["lis.report"]

    def found(value: str, unit: str) -> list[str]:
        body = {"observations": [{"code": "GLU", "name": "葡萄糖", "value": value, "unit": unit}]}
        return [one.rule for one in findings(rules, body, NOW) if one.field.startswith("observations")]

    assert found("33.3", "mmol/L") == []  # a coma, and a figure
    assert found("333", "mmol/L") == ["implausible"]
    assert found("5.5", "mg/dL") == ["unit"]
    assert found("阳性", "mg/dL") == []
    assert found("<0.1", "mmol/L") == []


def test_what_is_for_somebody_else_is_told_so_and_nothing_more() -> None:
    rule = "addressed: {field: to.facility, among: [XINGLIN]}\nfields:\n  a: {required: yes}"
    assert _found(rule, {"to": {"facility": "OTHER"}}) == [("to.facility", "not_for_us")]
    assert _found(rule, {}) == [("to.facility", "not_for_us")]
    assert _found(rule, {"to": {"facility": "XINGLIN"}}) == [("a", "missing")]


def test_a_thousand_faults_are_told_in_fifty_lines() -> None:
    body = {"a": [{} for _ in range(1000)]}
    assert len(_found("fields:\n  'a[].b': {required: yes}", body)) == FINDINGS_MAX


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    [
        "number",
        "status",
        "issued_at",
        "patient",
        "numbers",
        "observations",
        "code",
        "value",
        "unit",
        "changed_at",
    ]
)
_NEAR = st.recursive(
    _JSON
    | st.sampled_from(
        ["2026-11-23T08:00:00+08:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-12:00"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=8),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(body=st.dictionaries(_NAMES, _NEAR, max_size=8))
def test_judging_is_total_and_says_nothing_of_what_stood_there(body: dict) -> None:
    for rules in (*default_rules().values(), InterfaceRules()):
        for one in findings(rules, body, NOW):
            assert isinstance(one, Finding)
            assert one.rule.isidentifier()


@given(secret=st.text(string.ascii_uppercase, min_size=12, max_size=20))
def test_no_finding_repeats_a_value(secret: str) -> None:
    body = {"number": [secret], "status": secret, "patient": {"name": secret * 40, "sex": secret}}
    told = findings(default_rules()["lis.report"], body, NOW)
    assert len(told) > 4
    assert secret not in repr(told)


def test_a_hospital_says_only_what_is_different() -> None:
    own = read_rules(
        "lis.report:\n"
        "  addressed: {field: receiver.facility, among: [仁济]}\n"
        "  fields:\n"
        "    conclusion: off\n"
        "    title: {required: yes, chars_max: 10}\n"
        "  figures:\n"
        "    codes:\n"
        "      PH: off\n"
        "      TSH: {units: [mIU/L], lowest: 0, highest: 500}\n",
        default_rules(),
    )
    before, after = default_rules()["lis.report"], own["lis.report"]
    assert "conclusion" in before.fields and "conclusion" not in after.fields
    assert after.fields["title"].chars_max == 10 and after.fields["number"] == before.fields["number"]
    assert after.figures is not None and before.figures is not None
    assert set(after.figures.codes) == set(before.figures.codes) - {"PH"} | {"TSH"}
    assert after.orders == before.orders
    assert set(own) == set(default_rules())


def test_each_error_of_the_file_has_its_place() -> None:
    text = (
        "lis.raport: {}\n"
        "lis.report:\n"
        "  fields:\n"
        "    Number: {required: yes}\n"
        "    title: {requird: yes}\n"
        "    status: {lowest: 5, highest: 1}\n"
        "    number: {pattern: '('}\n"
        "    code: {shape: tekst}\n"
        "  orders: [[a]]\n"
    )
    with pytest.raises(RulesRefused) as refused:
        read_rules(text, default_rules(), "own.yaml")
    assert [(one.line, one.column) for one in refused.value.errors] == [
        (1, 1),
        (4, 5),
        (5, 13),
        (6, 22),
        (7, 23),
        (8, 19),
        (9, 12),
    ]
    assert str(refused.value).startswith("own.yaml:1:1: ")
