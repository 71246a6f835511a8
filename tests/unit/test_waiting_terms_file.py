"""The waiting rooms' rules in policy.yaml: merged key by key, wrong in its place, said back as they were."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.policy import Policy
from engine.domain.queue_order import (
    AS_THEY_COME,
    DEFAULT_CLASSES,
    Across,
    Basis,
    EarlyRule,
    Interval,
    LateRule,
    LeaveRule,
    Mix,
    OrderRules,
    PassedRule,
    PriorityClass,
    ReturnRule,
    Rules,
)
from engine.domain.waiting_terms import (
    KINDS,
    NoticeTerms,
    QueueTerms,
    ScreenTerms,
    Shows,
    WaitingTerms,
    WalkIns,
)
from engine.records.hospital_rules import FileError
from engine.records.policy_file import Known, PolicyRefused, read_policy
from engine.records.waiting_terms_file import waiting_as_data

DEMO = Path(__file__).parents[2] / "web" / "demo" / "hospital" / "policy.yaml"
KNOWN = Known({"03": False, "0304": True, "2001": True}, ("ordinary", "expert"), ("d1",))

GOOD = """\
waiting:
  check_in: {early: 90m, distance_metres_max: 300, triage_queue: triage, required: no}
  calling:
    across: listed
    door_cap: 2
    calls_max: 2
    recall_gap: 15s
    call_gap: 5s
    answer: 2m
    passed_must_report: no
    passes_max: 2
    leave: ask
  order:
    by: check_in
    early: as_come
    late: end_of_window
    late_after: 20m
    late_interval: 4
    passed: end_of_session
    passed_interval: {every: 5, together: 2}
    passed_rest: 5m
    returned: own_place
    returned_interval: 2
    mix: every
    walk_in_interval: {every: 3}
    classes:
      - {code: soldier, rank: 1, every: 0}
      - {code: aged, rank: 2, every: 2, together: 3}
    emergency_first: 1
    emergency_intervals: {2: 1, 3: {every: 4, together: 2}}
    overtaken_max: 8
  orders:
    pharmacy: {by: number, overtaken_max: 20}
  queues:
    - {id: triage, kind: triage, prefix: T, first: 1, last: 300, name: 分诊台, name_en: Triage}
    - {id: pharmacy, kind: pharmacy, prefix: P, first: 1, last: 999, name: 药房}
  walk_ins: {first: 601, last: 800, general_first: 10, general_last: 90, general_prefix: B, enabled: yes}
  screen:
    masks_names: no
    shows: number
    text: "请 {number} 到 {room}"
    text_en: "{number} to {room}"
    texts:
      expert: {text: "专家号 {number}：{room}", text_en: "Expert {number}: {room}"}
    repeats: 3
  notices: {ahead: [1, 5], leave_home: no, late: 15m}
departments:
  "2001":
    waiting:
      check_in: {early: any_time}
      order: {late: normal, emergency_intervals: {3: ordinary, 4: 6}}
      orders:
        triage: {late_after: 1m}
        pharmacy: {overtaken_max: 30}
      walk_ins: {general_prefix: E}
      screen:
        texts:
          ordinary: {text: "{number}", text_en: "{number}"}
      notices: {ahead: []}
"""


def read(text: str) -> Policy:
    return read_policy(text, Policy(), KNOWN)


def errors_of(text: str) -> tuple[FileError, ...]:
    with pytest.raises(PolicyRefused) as refused:
        read(text)
    return refused.value.errors


ORDER = OrderRules(
    Basis.CHECK_IN,
    EarlyRule.AS_COME,
    LateRule.END_OF_WINDOW,
    20,
    Interval(4),
    PassedRule.END_OF_SESSION,
    Interval(5, 2),
    300,
    ReturnRule.OWN_PLACE,
    Interval(2),
    Mix.EVERY,
    Interval(3),
    (PriorityClass("soldier", 1, Interval(0)), PriorityClass("aged", 2, Interval(2, 3))),
    1,
    ((2, Interval(1)), (3, Interval(4, 2))),
    8,
)
HOSPITAL = WaitingTerms(
    Rules(
        ORDER,
        {"triage": ORDER, "pharmacy": replace(ORDER, by=Basis.NUMBER, overtaken_max=20)},
        Across.LISTED,
        False,
        90,
        300,
        "triage",
        2,
        2,
        15,
        5,
        120,
        False,
        2,
        LeaveRule.ASK,
    ),
    (
        QueueTerms("triage", "triage", "T", 1, 300, "分诊台", "Triage"),
        QueueTerms("pharmacy", "pharmacy", "P", 1, 999, "药房"),
    ),
    WalkIns(601, 800, 10, 90, "B", True),
    ScreenTerms(
        False,
        Shows.NUMBER,
        "请 {number} 到 {room}",
        "{number} to {room}",
        {"expert": ("专家号 {number}：{room}", "Expert {number}: {room}")},
        3,
    ),
    NoticeTerms((5, 1), False, 15),
)


def test_every_rule_can_be_said() -> None:
    assert read(GOOD).waiting_of("0304") == HOSPITAL


def test_a_department_has_otherwise_only_what_it_says() -> None:
    order = replace(ORDER, late=LateRule.NORMAL, emergency_intervals=((2, Interval(1)), (4, Interval(6))))
    assert read(GOOD).waiting_of("2001") == replace(
        HOSPITAL,
        rules=replace(
            HOSPITAL.rules,
            early_minutes=None,
            order=order,
            orders={
                "triage": replace(order, late_minutes=1),
                "pharmacy": replace(order, by=Basis.NUMBER, overtaken_max=30),
            },
        ),
        walk_ins=replace(HOSPITAL.walk_ins, general_prefix="E"),
        screen=replace(
            HOSPITAL.screen, texts={**HOSPITAL.screen.texts, "ordinary": ("{number}", "{number}")}
        ),
        notices=replace(HOSPITAL.notices, ahead=()),
    )


@pytest.mark.parametrize("text", ["wishes_max: 1", "waiting: {}", "departments: {'0304': {waiting: {}}}"])
def test_what_is_not_said_is_as_the_engine_has_it(text: str) -> None:
    assert read(text).waiting_of("0304") == WaitingTerms()
    assert Policy().waiting_of("0304") == WaitingTerms()


def test_triage_goes_by_check_in_unless_it_is_said_of_triage_itself() -> None:
    rules = read("waiting: {order: {by: number, overtaken_max: 5}}").waiting_of("").rules
    assert rules.order_of("triage") == replace(AS_THEY_COME, overtaken_max=5)
    assert rules.order_of("visit") == OrderRules(overtaken_max=5)
    rules = read("waiting: {orders: {triage: {by: number}}}").waiting_of("").rules
    assert rules.order_of("triage") == replace(AS_THEY_COME, by=Basis.NUMBER)


def test_lists_are_taken_as_wholes() -> None:
    text = "waiting: {order: {classes: []}}\ndepartments: {'0304': {waiting: {queues: []}}}"
    assert read(text).waiting_of("2001").rules.order.classes == ()
    both = GOOD.replace("check_in: {early: any_time}", "check_in: {triage_queue: none}\n      queues: []")
    assert read(both).waiting_of("2001").queues == ()
    assert read(both).waiting_of("2001").rules.triage_queue == ""


def test_a_department_s_waiting_leaves_its_bookings_as_they_are() -> None:
    with_it = read(GOOD + "    closes: 1h\n")
    assert with_it.terms_of("2001", "expert").closes_minutes == 60
    assert read(GOOD).terms_of("2001", "") == read("wishes_max: 1").terms_of("", "")


# One wrong thing each: (what is replaced, by what, line, column, words of the reason).
WRONG = [
    ("early: 90m", "early: 90", 2, 21, "waiting.check_in.early: is '90': write a whole number and its unit"),
    ("early: 90m", "early: never", 2, 21, "write a whole number and its unit"),
    (
        "early: 90m",
        "earlier: 90m",
        2,
        14,
        "unknown key: known are required, early, distance_metres_max, triage_queue",
    ),
    ("_metres_max: 300", "_metres_max: 300m", 2, 47, "whole number from 0 to 100000"),
    ("triage_queue: triage", "triage_queue: pharmacy", 2, 13, "'pharmacy' is none of kind triage in queues"),
    ("triage_queue: triage", "triage_queue: Triage", 2, 66, "small letters"),
    ("across: listed", "across: any", 4, 13, "waiting.calling.across: is 'any': it must be one of longest"),
    ("calls_max: 2", "calls_max: 0", 6, 16, "from 1 to 100"),
    ("recall_gap: 15s", "recall_gap: 2h", 7, 17, "from 0s to 3600s"),
    ("passed_must_report: no", "passed_must_report: perhaps", 10, 25, "write yes or no"),
    ("leave: ask", "leave: home", 12, 12, "one of anybody, keep, ask"),
    ("by: check_in", "by: name", 14, 9, "waiting.order.by: is 'name': it must be one of number, check_in"),
    ("late_after: 20m", "late_after: 20s", 17, 17, "counted in whole minutes"),
    ("late_interval: 4", "late_interval: often", 18, 20, "whole number from 0 to 100"),
    ("{every: 5, together: 2}", "{together: 2}", 20, 22, "missing key 'every'"),
    ("{every: 5, together: 2}", "{every: 5, together: 0}", 20, 43, "whole number from 1 to 100"),
    ("{every: 5, together: 2}", "{every: 5, at_once: 2}", 20, 33, "unknown key: known are every, together"),
    ("rank: 1, every: 0", "every: 0", 27, 9, "order.classes[0]: missing key 'rank'"),
    ("code: aged", "code: soldier", 28, 16, "another class is 'soldier'"),
    ("code: aged", "code: 老人", 28, 16, "small letters"),
    ("emergency_first: 1", "emergency_first: 5", 29, 22, "whole number from 0 to 4"),
    ("{2: 1, 3", "{5: 1, 3", 30, 27, "unknown key: known are 1, 2, 3, 4"),
    ("overtaken_max: 8", "overtaken_max: 0", 31, 20, "whole number from 1"),
    ("pharmacy: {by", "shop: {by", 33, 5, "waiting.orders.shop: unknown key: known are visit, triage"),
    ("prefix: T", "prefix: t", 35, 42, "1 to 3 large letters"),
    ("prefix: T", "prefix: P", 35, 5, "pharmacy and triage would give out the same numbers"),
    ("prefix: P", "prefix: B", 35, 5, "pharmacy and the general queue would give out the same numbers"),
    ("last: 300", "last: 0", 35, 61, "from 1 to 9999"),
    ("first: 1, last: 300", "first: 301, last: 300", 35, 63, "first 301 is above last 300"),
    ("id: pharmacy", "id: general", 36, 12, "'general' is the department's own"),
    ("id: pharmacy", "id: d1", 36, 12, "is the queue of practitioner 'd1'"),
    ("id: pharmacy", "id: triage", 36, 12, "another queue is 'triage'"),
    ("kind: pharmacy, prefix", "kind: shop, prefix", 36, 28, "it must be one of visit, triage"),
    ("name: 药房", 'name: "药\\n房"', 36, 76, "none that cannot be seen"),
    (", name: 药房", "", 36, 7, "waiting.queues[1]: missing key 'name'"),
    ("first: 601", "first: 801", 37, 13, "first 801 is above last 800"),
    ("general_first: 10", "general_first: 91", 37, 13, "general_first 91 is above general_last 90"),
    ("general_prefix: B", "general_prefix: BBBB", 37, 90, "1 to 3 large letters"),
    ("shows: number", "shows: nothing", 40, 12, "one of name, number, both"),
    ("shows: number", "shows: name", 39, 5, "shows name, but '请 {number} 到 {room}' does not say who"),
    ('"{number} to {room}"', '"{doctor} to {room}"', 42, 14, "names {doctor}: it may name {number}, {name}"),
    ('"{number} to {room}"', '"{number to room}"', 42, 14, "names {number to room}"),
    ('"{number} to {room}"', '"number} to {room}"', 42, 14, "has a brace alone"),
    ('"{number} to {room}"', '"Go to {room}"', 39, 5, "put {number} in"),
    ("      expert: {text", "      expret: {text", 44, 7, "no such number class: it has expert, ordinary"),
    (', text_en: "Expert {number}: {room}"', "", 44, 15, "missing key 'text_en'"),
    ("repeats: 3", "repeats: 0", 45, 14, "from 1 to 10"),
    ("[1, 5]", "5", 46, 20, "must be a list"),
    ("[1, 5]", "[5, 5]", 46, 24, "stands here twice"),
    ("[1, 5]", "[1, 2, 3, 4, 5, 6]", 46, 20, "at most 5"),
    ("late: 15m", "late: never", 46, 50, "its unit"),
    ("early: any_time", "early: 2d", 50, 25, "departments.2001.waiting.check_in.early: is '2d'"),
    ("late: normal", "late: 1", 51, 21, "departments.2001.waiting.order.late"),
    (
        "general_prefix: E",
        "general_prefix: T",
        55,
        17,
        "triage and the general queue would give out the same",
    ),
    ('"2001":', '"2009":', 48, 3, "no such department"),
]


@pytest.mark.parametrize(("old", "new", "line", "column", "reason"), WRONG)
def test_one_wrong_thing_is_one_error_in_its_place(
    old: str, new: str, line: int, column: int, reason: str
) -> None:
    assert GOOD.count(old) == 1
    errors = errors_of(GOOD.replace(old, new))
    assert len(errors) == 1, errors
    assert reason in errors[0].reason, errors
    assert (errors[0].line, errors[0].column) == (line, column), errors


def test_it_stands_at_the_top_and_under_departments_alone() -> None:
    for text in ("defaults: {waiting: {}}", "classes: {expert: {waiting: {}}}"):
        (error,) = errors_of(text)
        assert "unknown key" in error.reason


def test_a_wrong_department_does_not_make_errors_of_the_hospital_s() -> None:
    """What contradicts is told where it was said last, once."""
    text = GOOD.replace("shows: number", "shows: both") + '  "0304": {waiting: {screen: {shows: name}}}\n'
    errors = errors_of(text)
    assert [(e.line, "does not say who" in e.reason) for e in errors] == [(60, True)]


def test_the_demo() -> None:
    policy = read_policy(DEMO.read_text(), Policy())
    general, emergency, children = (policy.waiting_of(id_) for id_ in ("0301", "2001", "0704"))
    assert general.rules.triage_queue == ""
    assert emergency.rules.triage_queue == "triage"
    assert emergency.rules.order_of("visit").by is Basis.CHECK_IN
    assert children.rules.calls_max > general.rules.calls_max
    assert [queue.kind for queue in policy.waiting_of("0304").queues] == ["examination"]
    call = ("A007", "张晓明", "701诊室")
    assert general.screen.words("ordinary", *call)[0] == "请 A007 张*明 到 701诊室 就诊"
    assert general.screen.words("expert", *call)[0] == "请专家号 A007 张*明 到 701诊室 就诊"
    assert policy.waiting_of("1302").screen.words("expert", *call) == (
        "请 A007 到 701诊室 就诊",
        "A007, please go to 701诊室",
    )


# Whatever the terms are, the file can say them.

INTERVALS = st.builds(Interval, st.integers(0, 100), st.integers(1, 100))
CLASSES = st.lists(
    st.builds(
        PriorityClass, st.sampled_from(["soldier", "aged", "a1", "vip"]), st.integers(1, 99), INTERVALS
    ),
    max_size=3,
    unique_by=lambda c: c.code,
).map(tuple)
ORDERS = st.builds(
    OrderRules,
    late_minutes=st.integers(0, 1440),
    late_interval=INTERVALS,
    passed_interval=INTERVALS,
    passed_rest_seconds=st.integers(0, 3600),
    returned_interval=INTERVALS,
    walk_in_interval=INTERVALS,
    by=st.sampled_from(Basis),
    early=st.sampled_from(EarlyRule),
    late=st.sampled_from(LateRule),
    passed=st.sampled_from(PassedRule),
    returned=st.sampled_from(ReturnRule),
    mix=st.sampled_from(Mix),
    classes=CLASSES | st.just(DEFAULT_CLASSES),
    emergency_first=st.integers(0, 4),
    emergency_intervals=st.dictionaries(st.integers(1, 4), INTERVALS).map(lambda d: tuple(sorted(d.items()))),
    overtaken_max=st.integers(1, 1000),
)
RANGES = st.tuples(st.integers(1, 9999), st.integers(1, 9999)).map(lambda pair: tuple(sorted(pair)))


@st.composite
def terms(draw: Any) -> WaitingTerms:
    first, last = draw(RANGES)
    general_first, general_last = draw(RANGES)
    triage_first, triage_last = draw(RANGES)
    triage = QueueTerms(
        "triage", "triage", "T", triage_first, triage_last, "分诊", draw(st.sampled_from(["", "T"]))
    )
    queues = draw(st.sampled_from([(), (triage,), (triage, QueueTerms("x", "desk", "X", 1, 1, "窗口"))]))
    orders = draw(st.dictionaries(st.sampled_from(KINDS), ORDERS, max_size=2))
    text = st.text(st.sampled_from("请到 :#,-&*?'\"%@!"), max_size=6).map(
        lambda t: "{number}" + t.strip() + "{name}"
    )
    rules = Rules(
        draw(ORDERS),
        {"triage": draw(ORDERS), **orders},
        draw(st.sampled_from(Across)),
        draw(st.booleans()),
        draw(st.none() | st.integers(0, 1440)),
        draw(st.integers(0, 100_000)),
        "triage" if queues else "",
        draw(st.integers(0, 100)),
        draw(st.integers(1, 100)),
        draw(st.integers(0, 3600)),
        draw(st.integers(0, 3600)),
        draw(st.integers(1, 3600)),
        draw(st.booleans()),
        draw(st.integers(0, 100)),
        draw(st.sampled_from(LeaveRule)),
    )
    return WaitingTerms(
        rules,
        queues,
        WalkIns(
            first, last, general_first, general_last, draw(st.sampled_from(["A", "ZZZ"])), draw(st.booleans())
        ),
        ScreenTerms(
            draw(st.booleans()),
            draw(st.sampled_from(Shows)),
            draw(text),
            draw(text),
            draw(st.dictionaries(st.sampled_from(["ordinary", "expert"]), st.tuples(text, text))),
            draw(st.integers(1, 10)),
        ),
        NoticeTerms(
            tuple(sorted(draw(st.sets(st.integers(1, 50), max_size=5)), reverse=True)),
            draw(st.booleans()),
            draw(st.integers(0, 1440)),
        ),
    )


@settings(deadline=None)
@given(terms())
def test_what_is_said_back_is_read_as_it_was(whole: WaitingTerms) -> None:
    said = yaml.safe_dump({"waiting": waiting_as_data(whole)}, allow_unicode=True, sort_keys=False)
    assert read(said).waiting_of("0304") == whole


KEYS = (
    "check_in",
    "calling",
    "order",
    "orders",
    "queues",
    "walk_ins",
    "screen",
    "notices",
    "texts",
    "classes",
)
WORDS = st.sampled_from(["x", "1", "triage", "expert", "7m", "{name}", "none", "id", "first", "text", *KEYS])
TREES = st.recursive(
    WORDS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(WORDS, below, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), TREES, max_size=4), st.dictionaries(st.sampled_from(KEYS), TREES)
)
def test_whatever_is_written_is_terms_or_a_list_of_errors(hospital: object, department: object) -> None:
    tree = {"waiting": hospital, "departments": {"0304": {"waiting": department}}}
    try:
        assert isinstance(read(yaml.safe_dump(tree)).waiting_of("0304"), WaitingTerms)
    except PolicyRefused as refused:
        assert all(error.reason and error.line for error in refused.errors)
