"""policy.yaml: what is right is merged level by level, what is wrong is told with line, column and path."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.conduct import PRESETS
from engine.domain.policy import (
    EVERYBODY,
    Channel,
    ConductRule,
    Fate,
    Flow,
    Moment,
    Offence,
    Opening,
    Policy,
    Pool,
    Return,
    Returned,
    Subject,
    Suspension,
    Terms,
    Waitlist,
)
from engine.records.hospital_rules import FileError
from engine.records.policy_file import Known, PolicyRefused, read_policy

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "web" / "demo" / "hospital" / "policy.yaml"
DOCUMENTATION = ROOT / "docs" / "POLICY.md"
KNOWN = Known({"03": False, "0304": True, "0501": True}, ("ordinary", "expert", "special"))

GOOD = """\
active_appointments_max: 8
account_holds_max: 4
day_appointments_max: 3
wishes_max: 2
late_cancel: 2h
delegation: 180d
no_show_after: 30m
conduct:
  - preset: three_in_three_months
  - {name: 秒退, offence: cancel, subject: account, count: 5, window: 7d, block: 14d}
approvals:
  suspend: manager
suspension:
  order: [moved, refunded]
  offer: 12h
  within: 3d
defaults:
  hold: 10m
  closes: 30m
  waitlist: {offer: 5m}
classes:
  expert:
    openings:
      - {percent: 40, days_before: 1, at: "20:00"}
      - {percent: 60, days_before: 7, at: "07:30"}
    cancel_closes: 1d
departments:
  "0304":
    first_visits_max: 20
    waitlist: {closes: 3h}
    classes:
      expert:
        closes: 1h
        returned: {mode: random, from: 1m, to: 10m}
      special:
        pools:
          - name: 窗口
            percent: 20
            channels: [window, kiosk]
            flows:
              - {days_before: 0, at: "07:00", to: everybody}
              - {days_before: 1, at: "18:00", to: [window, phone]}
"""


def read(text: str) -> Policy:
    return read_policy(text, Policy(hold_seconds=700), KNOWN)


def errors_of(text: str) -> tuple[FileError, ...]:
    with pytest.raises(PolicyRefused) as refused:
        read(text)
    return refused.value.errors


def test_what_is_hospital_wide() -> None:
    policy = read(GOOD)
    assert (policy.active_appointments_max, policy.account_holds_max) == (8, 4)
    assert (policy.day_appointments_max, policy.wishes_max) == (3, 2)
    assert (policy.late_cancel_minutes, policy.delegation_days) == (120, 180)
    assert policy.no_show_after_minutes == 30
    assert policy.conduct == (
        *PRESETS["three_in_three_months"],
        ConductRule("秒退", Offence.CANCEL, Subject.ACCOUNT, 5, 7, 14),
    )
    assert policy.approvals == {"suspend": "manager"}
    assert policy.suspension == Suspension((Fate.MOVED, Fate.REFUNDED), 12 * 3600, 3)


def test_real_names_and_guardians_are_asked_for_where_the_hospital_says_so() -> None:
    assert (read(GOOD).real_name_required, read(GOOD).guardian_required) == (False, False)
    strict = read("booking: {real_name_required: yes}\npeople: {guardian_required: yes}")
    assert (strict.real_name_required, strict.guardian_required) == (True, True)
    assert not read(GOOD).word_is_enough and read("people: {word_is_enough: yes}").word_is_enough
    (error,) = errors_of("booking: {real_name_required: 1}")
    assert error.line == 1 and "real_name_required" in str(error)
    assert len(errors_of("people: {guardians_required: yes}\nbooking: [yes]")) == 2


def test_levels_are_merged_field_by_field_and_the_most_particular_wins() -> None:
    policy = read(GOOD)
    defaults = policy.terms_of("0501", "ordinary")
    assert defaults == Terms(600, closes_minutes=30, waitlist=Waitlist(offer_seconds=300))
    openings = (Opening(60, Moment(7, 450)), Opening(40, Moment(1, 1200)))  # by time
    assert policy.terms_of("0501", "expert") == Terms(
        600,
        closes_minutes=30,
        cancel_minutes=1440,
        openings=openings,
        waitlist=Waitlist(offer_seconds=300),
    )
    cardiology = Waitlist(offer_seconds=300, closes_minutes=180)
    assert policy.terms_of("0304", "ordinary") == Terms(
        600, closes_minutes=30, first_visits_max=20, waitlist=cardiology
    )
    assert policy.terms_of("0304", "expert") == Terms(
        600,
        closes_minutes=60,
        cancel_minutes=1440,
        first_visits_max=20,
        openings=openings,
        returned=Returned(Return.RANDOM, 60, 600),
        waitlist=cardiology,
    )
    flows = (
        Flow(Moment(1, 1080), Channel.WINDOW | Channel.PHONE),
        Flow(Moment(0, 420), EVERYBODY),
    )
    assert policy.terms_of("0304", "special").pools == (
        Pool("窗口", 20, Channel.WINDOW | Channel.KIOSK, flows),
    )
    assert policy.terms_of("0304", "special").openings == ()


def test_a_department_and_a_class_that_are_named_apart_are_merged_too() -> None:
    text = "classes: {expert: {closes: 1h}}\ndepartments: {'0304': {cancel_closes: 2h, closes: 90m}}"
    terms = read(text).terms_of("0304", "expert")
    assert (terms.closes_minutes, terms.cancel_minutes) == (90, 120), "the department is more particular"


def test_what_is_not_said_is_as_the_settings_have_it() -> None:
    fallback = Policy(700, 5, 6)
    policy = read_policy("defaults: {}", fallback)
    assert (policy.active_appointments_max, policy.account_holds_max) == (5, 6)
    assert policy.terms_of("any", "any") == Terms(700)
    assert read_policy("wishes_max: 1", fallback).terms_of("", "") == Terms(700)


def test_a_list_may_be_emptied_and_a_limit_lifted_below() -> None:
    text = """\
defaults: {first_visits_max: 3, pools: [{name: w, percent: 50, channels: [window]}]}
classes: {expert: {first_visits_max: none, pools: []}}
no_show_after: never
"""
    policy = read_policy(text, Policy(no_show_after_minutes=5))
    assert policy.terms_of("x", "ordinary").first_visits_max == 3
    assert policy.terms_of("x", "expert") == Terms()
    assert policy.no_show_after_minutes is None


def test_returned_may_be_at_once_or_cool_down() -> None:
    assert read("defaults: {returned: {mode: at_once}}").terms_of("", "").returned == Returned()
    cooled = read("defaults: {returned: {mode: cool_down, wait: 5m}}").terms_of("", "").returned
    assert cooled == Returned(Return.COOL_DOWN, 300)


def test_a_time_need_not_be_quoted() -> None:
    text = "defaults: {openings: [{percent: 100, days_before: 7, at: 7:30}]}"
    assert read(text).terms_of("", "").openings == (Opening(100, Moment(7, 450)),)


def test_ids_are_only_checked_where_they_are_known() -> None:
    text = "departments: {'9999': {closes: 1h}}"
    assert read_policy(text, Policy()).terms_of("9999", "").closes_minutes == 60
    assert [e.line for e in errors_of(text)] == [1]


def test_the_demo_is_right_and_open_by_default() -> None:
    policy = read_policy(DEMO.read_text(), Policy())
    assert policy.terms_of("0301", "expert") == Terms()
    assert policy.terms_of("0304", "special").pools


def test_the_examples_of_the_documentation_are_right() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        assert read_policy(block, Policy()) != Policy()


# One wrong thing each: (what is replaced, by what, line, column, words of the reason).
WRONG = [
    ("wishes_max: 2", "wishes: 2", 4, 1, "wishes: unknown key: known are active_appointments_max"),
    ("wishes_max: 2", "wishes_max: 2\nwishes_max: 2", 5, 1, "duplicate key, already on line 4"),
    ("wishes_max: 2", "wishes_max: two", 4, 13, "wishes_max: is 'two': it must be a whole number"),
    ("wishes_max: 2", "wishes_max: 2.5", 4, 13, "whole number from 0 to 100"),
    ("wishes_max: 2", "wishes_max: [2]", 4, 13, "must be a plain value"),
    ("wishes_max: 2", "wishes_max:", 4, 12, "is blank"),
    ("wishes_max: 2", "? [a]\n: 2", 4, 3, "a key must be a plain word"),
    ("late_cancel: 2h", "late_cancel: 120", 5, 14, "write a whole number and its unit, like 30s"),
    ("late_cancel: 2h", "late_cancel: 2 hours", 5, 14, "its unit"),
    ("late_cancel: 2h", "late_cancel: 90s", 5, 14, "counted in whole minutes"),
    ("late_cancel: 2h", "late_cancel: -1h", 5, 14, "its unit"),
    ("delegation: 180d", "delegation: 12h", 6, 13, "whole days"),
    ("delegation: 180d", "delegation: 99999d", 6, 13, "from 1d to 3660d"),
    ("no_show_after: 30m", "no_show_after: none", 7, 16, "no_show_after: is 'none'"),
    ("preset: three_in_three_months", "preset: four", 9, 13, "one of three_in_a_year"),
    (
        "preset: three_in_three_months",
        "preset: one_month\n    count: 4",
        10,
        5,
        "conduct[0].count: unknown key",
    ),
    ("count: 5, ", "", 10, 5, "conduct[1]: missing key 'count'"),
    ("offence: cancel", "offence: rude", 10, 25, "conduct[1].offence: is 'rude': it must be one of no_show"),
    ("name: 秒退", "name: no_show_three_in_three_months", 10, 5, "another rule is called"),
    ("suspend: manager", "suspend: doctor", 12, 12, "one of desk, schedule_office, manager"),
    ("suspend: manager", "fly: manager", 12, 3, "approvals.fly: unknown key"),
    ("[moved, refunded]", "[refunded, moved]", 14, 10, "must end with refunded"),
    ("[moved, refunded]", "[moved, moved, refunded]", 14, 18, "stands here twice"),
    ("[moved, refunded]", "refunded", 14, 10, "must be a list"),
    ("hold: 10m", "hold: 2h", 18, 9, "defaults.hold: is '2h': it must be from 1s to 3600s"),
    ("hold: 10m", "hold_seconds: 600", 18, 3, "defaults.hold_seconds: unknown key: known are hold, closes"),
    ("closes: 30m", "closes: 3h", 19, 11, "set waitlist.closes to 180m or more"),
    ("waitlist: {offer: 5m}", "waitlist: {offer: 5m, closes: 10m}", 19, 11, "set waitlist.closes to 30m"),
    ("waitlist: {offer: 5m}", "waitlist: 5m", 20, 13, "waitlist: must be a mapping"),
    ("waitlist: {offer: 5m}", "waitlist: {enabled: perhaps}", 20, 23, "write yes or no"),
    (
        "expert:\n    openings",
        "expret:\n    openings",
        22,
        3,
        "no such number class: it has expert, ordinary",
    ),
    ("percent: 40", "percent: 30", 24, 7, "classes.expert.openings: the percents make 90"),
    ("percent: 40", "percent: 40%", 24, 19, "whole number from 1 to 100"),
    ('at: "20:00"', 'at: "24:00"', 24, 43, 'write a time of the day as "HH:MM"'),
    ("{percent: 40, days_before: 1", "{percent: 40, days: 1", 24, 23, "openings[0].days: unknown key"),
    (
        '{percent: 40, days_before: 1, at: "20:00"}',
        '{percent: 40, days_before: 7, at: "07:30"}',
        25,
        9,
        "another opening",
    ),
    ('"0304":', '"0999":', 28, 3, "no such department: correct the id"),
    ('"0304":', '"03":', 28, 3, "has departments under it"),
    ("first_visits_max: 20", "first_visits_max: -1", 29, 23, "from 0 to 9999"),
    ("first_visits_max: 20", "<<: {closes: 1h}", 29, 5, "remove it"),
    ("from: 1m, to: 10m", "from: 10m, to: 1m", 34, 49, "ends before it begins"),
    ("from: 1m, to: 10m", "wait: 1m", 34, 19, "missing key 'from': mode random needs from and to"),
    ("from: 1m, to: 10m", "from: 1m, to: 10m, wait: 1m", 34, 59, "has no meaning with mode random"),
    ("mode: random, ", "", 34, 19, "missing key 'mode'"),
    ("percent: 20", "percent: 101", 38, 22, "whole number from 1 to 100"),
    ("[window, kiosk]", "[window, web]", 39, 32, "channels[1]: is 'web': it must be one of everybody"),
    ("[window, kiosk]", "[]", 39, 23, "name a channel at least"),
    ("[window, kiosk]", "window", 39, 23, "must be a list"),
    ("to: everybody", "to: nobody", 41, 51, "must be a list"),
    ('{days_before: 0, at: "07:00"', '{days_before: 1, at: "18:00"', 42, 17, "another flow"),
]


@pytest.mark.parametrize(("old", "new", "line", "column", "reason"), WRONG)
def test_one_wrong_thing_is_one_error_in_its_place(
    old: str, new: str, line: int, column: int, reason: str
) -> None:
    assert GOOD.count(old) == 1
    errors = errors_of(GOOD.replace(old, new))
    assert any(reason in e.reason and (e.line, e.column) == (line, column) for e in errors), errors


def test_pools_may_not_have_more_than_all() -> None:
    pools = "[{name: a, percent: 60, channels: [window]}, {name: b, percent: 50, channels: [phone]}]"
    (error,) = errors_of(f"defaults:\n  pools: {pools}")
    assert str(error) == (
        "policy.yaml:2:10: defaults.pools: the percents make 110: together they may have 100,"
        " and what is left is everybody's"
    )


def test_everything_that_is_wrong_is_told_at_once_in_order() -> None:
    errors = errors_of("defaults: {hold: 1, closes: 2}\nwishes_max: x\nclasses: []\nfoo: 1")
    assert [(e.line, e.column) for e in errors] == [(1, 18), (1, 29), (2, 13), (3, 10), (4, 1)]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "is empty"),
        ("# nothing", 1, "is empty"),
        ("- a", 1, "must be a mapping"),
        ("a: [", 1, "not YAML"),
        ("defaults: {}\n\tx: 1", 2, "not YAML"),
        ("a: 1\n---\nb: 2", 2, "not YAML"),
        ("defaults: *x", 1, "not YAML"),
        ("defaults: &x {classes: *x}", 1, "unknown key"),
        ("wishes_max: !!python/object/apply:os.system [x]", 1, "must be a plain value"),
        ("[" * 100_000, 0, "not YAML"),
        ("a\x00: 1", 0, "not YAML"),
    ],
)
def test_what_is_hardly_yaml(text: str, line: int, reason: str) -> None:
    error, *_ = errors_of(text)
    assert reason in error.reason
    assert error.line == line


KEYS = (
    "waiting",
    "defaults",
    "classes",
    "departments",
    "conduct",
    "openings",
    "pools",
    "returned",
    "waitlist",
    "hold",
)
WORDS = st.sampled_from(["x", "1", "0304", "expert", "7d", "everybody", "random", *KEYS])
TREES = st.recursive(
    WORDS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(WORDS, below, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, "suspension", "approvals"]), TREES, max_size=4))
def test_whatever_is_written_is_a_policy_or_a_list_of_errors(tree: object) -> None:
    import yaml

    try:
        assert isinstance(read(yaml.safe_dump(tree)), Policy)
    except PolicyRefused as refused:
        assert refused.errors
        assert all(error.reason for error in refused.errors)
