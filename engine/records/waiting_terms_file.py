"""The `waiting` section of policy.yaml: the hospital's, and what a department has otherwise, key by key.

docs/POLICY.md is the format. A level of the file is read to what it says (`waiting_level`); levels are
merged to whole terms, and only those can contradict themselves (`waiting_terms`). `waiting_as_data` says
whole terms in the file's own words, so that one can see what holds somewhere.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

from engine.domain.limits import EMERGENCY_LEVELS, TICKET_NUMBER_MAX
from engine.domain.queue_order import (
    AS_THEY_COME,
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
from engine.domain.room_plan import GENERAL
from engine.domain.waiting_terms import (
    KINDS,
    PLACEHOLDERS,
    NoticeTerms,
    QueueTerms,
    ScreenTerms,
    Shows,
    WaitingTerms,
    WalkIns,
)
from engine.records.takers import (
    Layer,
    Take,
    layer,
    minutes,
    name_of,
    one_of,
    put,
    seconds,
    sure,
    whole_number,
    yes_no,
)
from engine.records.yaml_values import WRONG, Value, Wrong

EVERY_MAX: Final = 100  # ordinary ones between two of a lane, and people of a lane at once
RANK_MAX: Final = 99
OVERTAKEN_MAX: Final = 1_000
DISTANCE_METRES_MAX: Final = 100_000
PAUSE_SECONDS_MAX: Final = 3_600
DAY_MINUTES: Final = 24 * 60
TEXT_CHARS_MAX: Final = 200
AHEAD_MAX: Final = 50
NOTICES_MAX: Final = 5  # about people ahead, to one patient

_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PREFIX: Final = re.compile(r"[A-Z]{1,3}")
_NAMED: Final = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class WaitingLevel:
    """What one level of the file says; what it does not say is left out."""

    rules: Layer = field(default_factory=dict)
    order: Layer = field(default_factory=dict)
    orders: Mapping[str, Layer] = field(default_factory=dict)
    queues: tuple[QueueTerms, ...] | None = None
    walk_ins: Layer = field(default_factory=dict)
    screen: Layer = field(default_factory=dict)
    notices: Layer = field(default_factory=dict)
    places: Mapping[str, Value] = field(default_factory=dict)
    """Where it says what may not go with something else, by section."""
    sound: bool = True  # nothing was wrong by itself


def waiting_level(
    value: Value, number_classes: Collection[str] | None = None, practitioners: Collection[str] = ()
) -> WaitingLevel:
    """Errors are added to the file's. `number_classes`: those that the hospital has; None: not checked.
    `practitioners`: the ids that queues have already."""
    before = len(value.errors)
    entries = value.mapping(_SECTIONS)
    rules: Layer = {}
    for name, table in (("check_in", _CHECK_IN), ("calling", _CALLING)):
        if name in entries:
            rules |= layer(entries[name].mapping(tuple(table)), table)
    orders = {}
    if "orders" in entries:
        orders = {kind: _order(each) for kind, each in entries["orders"].mapping(KINDS).items()}
    queues = _queues(entries["queues"], practitioners) if "queues" in entries else None
    walk_ins = entries["walk_ins"].mapping(tuple(_WALK_INS)) if "walk_ins" in entries else {}
    notices = entries["notices"].mapping(tuple(_NOTICES)) if "notices" in entries else {}
    order = _order(entries["order"]) if "order" in entries else {}
    screen = _screen(entries["screen"], number_classes) if "screen" in entries else {}
    return WaitingLevel(
        rules,
        order,
        orders,
        queues,
        layer(walk_ins, _WALK_INS),
        screen,
        layer(notices, _NOTICES),
        entries,
        len(value.errors) == before,
    )


def waiting_terms(*levels: WaitingLevel) -> WaitingTerms | None:
    """The levels merged: the last one that says something wins.

    None where one of them is not sound, or where together they contradict themselves; then that is an error.
    """
    if not all(level.sound for level in levels):
        return None
    rules: Layer = {}
    order: Layer = {}
    orders: dict[str, Layer] = {kind: dict(own) for kind, own in _OF_THEMSELVES.items()}
    walk_ins: Layer = {f.name: f.default for f in fields(WalkIns)}
    screen: Layer = {}
    notices: Layer = {}
    queues: tuple[QueueTerms, ...] = ()
    for level in levels:
        rules |= level.rules
        order = _over(order, level.order)
        for kind, own in level.orders.items():
            orders[kind] = _over(orders.get(kind, {}), own)
        walk_ins |= level.walk_ins
        screen |= {**level.screen, "texts": {**screen.get("texts", {}), **level.screen.get("texts", {})}}
        notices |= level.notices
        queues = queues if level.queues is None else level.queues
    wrong = list(_upside_down(walk_ins))
    if not wrong:
        whole = WaitingTerms(
            replace(
                Rules(),
                **rules,
                order=_whole_order(order),
                orders={kind: _whole_order(_over(order, own)) for kind, own in orders.items()},
            ),
            queues,
            WalkIns(**walk_ins),
            replace(ScreenTerms(), **screen),
            replace(NoticeTerms(), **notices),
        )
        wrong = [*_no_triage(whole), *_given_out_twice(whole), *_calls_nobody(whole.screen)]
    for sections, reason in wrong:
        _tell(levels, sections, reason)
    return None if wrong else whole


Contradiction = tuple[tuple[str, ...], str]
"""The sections that it is between, and the reason."""


def _upside_down(walk_ins: Layer) -> Iterator[Contradiction]:
    for low, high in (("first", "last"), ("general_first", "general_last")):
        if walk_ins[low] > walk_ins[high]:
            yield ("walk_ins",), f"{low} {walk_ins[low]} is above {high} {walk_ins[high]}: swap them"


def _no_triage(whole: WaitingTerms) -> Iterator[Contradiction]:
    id_ = whole.rules.triage_queue
    queue = whole.queue(id_)
    if id_ and (queue is None or queue.kind != "triage"):
        reason = f"triage_queue {id_!r} is none of kind triage in queues: add it, or write none"
        yield ("check_in", "queues"), reason


def _given_out_twice(whole: WaitingTerms) -> Iterator[Contradiction]:
    """Queues of one prefix have numbers of their own."""
    general = whole.walk_ins
    ranges = [(general.general_prefix, general.general_first, general.general_last, "the general queue")]
    for queue in whole.queues:
        one = (queue.prefix, queue.first, queue.last, queue.queue_id)
        for prefix, first, last, other in ranges:
            if prefix == queue.prefix and first <= queue.last and queue.first <= last:
                yield (
                    ("queues", "walk_ins"),
                    f"{queue.queue_id} and {other} would give out the same numbers: give one of them another"
                    f" prefix than {prefix}, or other numbers",
                )
        ranges.append(one)


def _calls_nobody(screen: ScreenTerms) -> Iterator[Contradiction]:
    """Whoever is called must be able to know it."""
    needed = {Shows.NUMBER: ("number",), Shows.NAME: ("name",), Shows.BOTH: ("number", "name")}[screen.shows]
    words = " or ".join(f"{{{name}}}" for name in needed)
    for text in (screen.text_zh, screen.text_en, *(t for pair in screen.texts.values() for t in pair)):
        if not any(f"{{{name}}}" in text for name in needed):
            reason = f"shows {screen.shows.value}, but {text!r} does not say who is called: put {words} in"
            yield ("screen",), reason


def _tell(levels: Sequence[WaitingLevel], sections: Sequence[str], reason: str) -> None:
    """Where it was said last: what the engine has by itself goes together."""
    for level in reversed(levels):
        for section in sections:
            if section in level.places:
                level.places[section].wrong_once(reason)
                return


# The order.


def _order(value: Value) -> Layer:
    return layer(value.mapping(tuple(_ORDER)), _ORDER)


def _over(order: Layer, more: Layer) -> Layer:
    """Key by key; the intervals of emergency levels level by level."""
    levels = {**order.get("emergency_intervals", {}), **more.get("emergency_intervals", {})}
    return {**order, **more, **({"emergency_intervals": levels} if levels else {})}


def _whole_order(given: Layer) -> OrderRules:
    levels = {**dict(OrderRules().emergency_intervals), **given.get("emergency_intervals", {})}
    intervals = tuple((level, found) for level, found in sorted(levels.items()) if found is not None)
    return replace(OrderRules(), **{**given, "emergency_intervals": intervals})


_OF_THEMSELVES: Final[Mapping[str, Layer]] = {
    kind: {
        f.name: getattr(order, f.name)
        for f in fields(OrderRules)
        if getattr(order, f.name) != getattr(OrderRules(), f.name)
    }
    for kind, order in Rules().orders.items()
}
"""What kinds of queues have otherwise where no file says so."""

assert Rules().orders == {"triage": AS_THEY_COME}


def _interval(value: Value) -> Interval | Wrong:
    """A number of ordinary ones, or with how many together."""
    if not value.is_mapping:
        every = value.whole(0, EVERY_MAX)
        return WRONG if every is None else Interval(every)
    entries = value.mapping(("every", "together"), ("every",))
    given = layer(entries, {"every": ("every", _COUNT), "together": ("together", _TOGETHER)})
    return Interval(**given) if given.keys() == entries.keys() and "every" in given else WRONG


_COUNT: Final = whole_number(0, EVERY_MAX)
_TOGETHER: Final = whole_number(1, EVERY_MAX)


def _classes(value: Value) -> tuple[PriorityClass, ...] | Wrong:
    found: dict[str, PriorityClass] = {}
    ok = value.is_list
    for item in value.items():
        entries = item.mapping(("code", "rank", "every", "together"), ("code", "rank", "every"))
        code = _word(entries["code"]) if "code" in entries else None
        rank = entries["rank"].whole(1, RANK_MAX) if "rank" in entries else None
        every = entries["every"].whole(0, EVERY_MAX) if "every" in entries else None
        together = entries["together"].whole(1, EVERY_MAX) if "together" in entries else 1
        if code is None or rank is None or every is None or together is None:
            ok = False
        elif code in found:
            entries["code"].wrong(f"another class is {code!r}: remove one of them")
            ok = False
        else:
            found[code] = PriorityClass(code, rank, Interval(every, together))
    return tuple(found.values()) if ok else WRONG


def _emergency_intervals(value: Value) -> dict[int, Interval | None]:
    """Level -> interval; None: as an ordinary one. What was wrong is left out."""
    found: Layer = {}
    for level, each in value.mapping([str(n) for n in range(1, EMERGENCY_LEVELS + 1)]).items():
        put(found, level, None if each.is_word("ordinary") else _interval(each))
    return {int(level): interval for level, interval in found.items()}


_ORDER: Final[Mapping[str, tuple[str, Take]]] = {
    "by": ("by", one_of(Basis)),
    "early": ("early", one_of(EarlyRule)),
    "late": ("late", one_of(LateRule)),
    "late_after": ("late_minutes", minutes(DAY_MINUTES)),
    "late_interval": ("late_interval", _interval),
    "passed": ("passed", one_of(PassedRule)),
    "passed_interval": ("passed_interval", _interval),
    "passed_rest": ("passed_rest_seconds", seconds(0, PAUSE_SECONDS_MAX)),
    "returned": ("returned", one_of(ReturnRule)),
    "returned_interval": ("returned_interval", _interval),
    "mix": ("mix", one_of(Mix)),
    "walk_in_interval": ("walk_in_interval", _interval),
    "classes": ("classes", _classes),
    "emergency_first": ("emergency_first", whole_number(0, EMERGENCY_LEVELS)),
    "emergency_intervals": ("emergency_intervals", _emergency_intervals),
    "overtaken_max": ("overtaken_max", whole_number(1, OVERTAKEN_MAX)),
}
assert {name for name, _ in _ORDER.values()} == {f.name for f in fields(OrderRules)}


# Check-in and calling.


def _early(value: Value) -> int | None | Wrong:
    if value.is_word("any_time"):
        return None
    found = value.duration("m", 0, DAY_MINUTES)
    return WRONG if found is None else found


def _word(value: Value) -> str | None:
    text = value.text()
    if text is not None and not _WORD.fullmatch(text):
        value.wrong(f"is {text!r}: write a word of 1 to 32 small letters, digits and _, like triage")
        return None
    return text


def _queue_or_none(value: Value) -> str | Wrong:
    if value.is_word("none"):
        return ""
    found = _word(value)
    return WRONG if found is None else found


_CHECK_IN: Final[Mapping[str, tuple[str, Take]]] = {
    "required": ("signs_in", yes_no),
    "early": ("early_minutes", _early),
    "distance_metres_max": ("distance_m_max", whole_number(0, DISTANCE_METRES_MAX)),
    "triage_queue": ("triage_queue", _queue_or_none),
}
_CALLING: Final[Mapping[str, tuple[str, Take]]] = {
    "across": ("across", one_of(Across)),
    "door_cap": ("door_cap", whole_number(0, 100)),
    "calls_max": ("calls_max", whole_number(1, 100)),
    "recall_gap": ("recall_gap_seconds", seconds(0, PAUSE_SECONDS_MAX)),
    "call_gap": ("call_gap_seconds", seconds(0, PAUSE_SECONDS_MAX)),
    "answer": ("answer_seconds", seconds(1, PAUSE_SECONDS_MAX)),
    "passed_must_report": ("passed_must_report", yes_no),
    "passes_max": ("passes_max", whole_number(0, 100)),
    "leave": ("leave", one_of(LeaveRule)),
}
_OTHERWISE: Final = {"order", "orders"}  # sections of their own
assert {n for t in (_CHECK_IN, _CALLING) for n, _ in t.values()} | _OTHERWISE == {
    f.name for f in fields(Rules)
}


# Queues and numbers.


def _prefix(value: Value) -> str | Wrong:
    text = value.text()
    if text is None or _PREFIX.fullmatch(text):
        return WRONG if text is None else text
    value.wrong(f"is {text!r}: write 1 to 3 large letters, like A")
    return WRONG


_NUMBER: Final = whole_number(1, TICKET_NUMBER_MAX)


def _queues(value: Value, practitioners: Collection[str]) -> tuple[QueueTerms, ...] | None:
    found: dict[str, QueueTerms] = {}
    for item in value.items():
        entries = item.mapping(tuple(_QUEUE), _QUEUE_NEEDS)
        given = layer(entries, _QUEUE)
        if len(given) < len(entries) or not set(_QUEUE_NEEDS) <= entries.keys():
            continue  # told
        if given["first"] > given["last"]:
            entries["last"].wrong(f"first {given['first']} is above last {given['last']}: swap them")
        elif given["queue_id"] == GENERAL:
            entries["id"].wrong(
                f"{GENERAL!r} is the department's own, with numbers as in walk_ins: rename it"
            )
        elif given["queue_id"] in practitioners:
            entries["id"].wrong(f"is the queue of practitioner {given['queue_id']!r}: rename it")
        elif given["queue_id"] in found:
            entries["id"].wrong(f"another queue is {given['queue_id']!r}: give each its own id")
        else:
            found[given["queue_id"]] = QueueTerms(**given)
    return tuple(found.values()) if value.is_list else None


_QUEUE: Final[Mapping[str, tuple[str, Take]]] = {
    "id": ("queue_id", sure(_word)),
    "kind": ("kind", sure(lambda value: value.word(KINDS))),
    "prefix": ("prefix", _prefix),
    "first": ("first", _NUMBER),
    "last": ("last", _NUMBER),
    "name": ("name_zh", sure(name_of)),
    "name_en": ("name_en", sure(name_of)),
}
_QUEUE_NEEDS: Final = ("id", "kind", "prefix", "first", "last", "name")
assert [name for name, _ in _QUEUE.values()] == [f.name for f in fields(QueueTerms)]

_WALK_INS: Final[Mapping[str, tuple[str, Take]]] = {
    "enabled": ("enabled", yes_no),
    "first": ("first", _NUMBER),
    "last": ("last", _NUMBER),
    "general_prefix": ("general_prefix", _prefix),
    "general_first": ("general_first", _NUMBER),
    "general_last": ("general_last", _NUMBER),
}
assert {name for name, _ in _WALK_INS.values()} == {f.name for f in fields(WalkIns)}


# Screens and notices.


def _screen(value: Value, number_classes: Collection[str] | None) -> Layer:
    entries = value.mapping((*_SCREEN, "texts"))
    given = layer(entries, _SCREEN)
    if "texts" in entries:
        given["texts"] = _texts(entries["texts"], number_classes)
    return given


def _texts(value: Value, number_classes: Collection[str] | None) -> dict[str, tuple[str, str]]:
    found = {}
    for id_, (key, each) in value.entries().items():
        if number_classes is not None and id_ not in number_classes:
            known = ", ".join(sorted(number_classes))
            key.wrong(f"the hospital has no such number class: it has {known}")
        entries = each.mapping(("text", "text_en"), ("text", "text_en"))
        pair = [_text(entries[name]) if name in entries else WRONG for name in ("text", "text_en")]
        zh, en = pair
        if not isinstance(zh, Wrong) and not isinstance(en, Wrong):
            found[id_] = zh, en
    return found


def _text(value: Value) -> str | Wrong:
    text = name_of(value, TEXT_CHARS_MAX)
    if text is None:
        return WRONG
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    strange = [name for name in _NAMED.findall(text) if name not in PLACEHOLDERS]
    if strange:
        value.wrong(f"names {{{strange[0]}}}: it may name {known}")
    elif "{" in _NAMED.sub("", text) or "}" in _NAMED.sub("", text):
        value.wrong(f"has a brace alone: braces stand around {known}")
    else:
        return text
    return WRONG


_SCREEN: Final[Mapping[str, tuple[str, Take]]] = {
    "masks_names": ("masks_names", yes_no),
    "shows": ("shows", one_of(Shows)),
    "text": ("text_zh", _text),
    "text_en": ("text_en", _text),
    "repeats": ("repeats", whole_number(1, 10)),
}
assert {name for name, _ in _SCREEN.values()} | {"texts"} == {f.name for f in fields(ScreenTerms)}


def _ahead(value: Value) -> tuple[int, ...] | Wrong:
    found: set[int] = set()
    items = value.items()
    ok = value.is_list
    for item in items:
        number = item.whole(1, AHEAD_MAX)
        if number is None:
            ok = False
        elif number in found:
            item.wrong(f"{number} stands here twice: keep the first")
            ok = False
        else:
            found.add(number)
    if len(items) > NOTICES_MAX:
        value.wrong(f"has {len(items)} notices: at most {NOTICES_MAX}, or nobody reads them")
        ok = False
    return tuple(sorted(found, reverse=True)) if ok else WRONG


_NOTICES: Final[Mapping[str, tuple[str, Take]]] = {
    "ahead": ("ahead", _ahead),
    "leave_home": ("leave_home", yes_no),
    "late": ("late_minutes", minutes(DAY_MINUTES)),
}
assert {name for name, _ in _NOTICES.values()} == {f.name for f in fields(NoticeTerms)}

_SECTIONS: Final = ("check_in", "calling", "order", "orders", "queues", "walk_ins", "screen", "notices")


# And back.


def waiting_as_data(terms: WaitingTerms) -> dict[str, Any]:
    """The terms as this file's section would say them whole: reading it again gives the same terms."""
    order, orders, screen = terms.rules.order, terms.rules.orders, terms.screen
    texts = {id_: {"text": zh, "text_en": en} for id_, (zh, en) in screen.texts.items()}
    return {
        "check_in": _said(terms.rules, _CHECK_IN),
        "calling": _said(terms.rules, _CALLING),
        "order": _without(_said(order, _ORDER), OrderRules()),
        "orders": {kind: _otherwise(kind, orders[kind], order) for kind in KINDS if kind in orders},
        "queues": [_said(queue, _QUEUE) for queue in terms.queues],
        "walk_ins": _said(terms.walk_ins, _WALK_INS),
        "screen": {**_said(screen, _SCREEN), **({"texts": texts} if texts else {})},
        "notices": _said(terms.notices, _NOTICES),
    }


def _said(part: Any, table: Mapping[str, tuple[str, Take]]) -> dict[str, Any]:
    return {
        key: _word_of(name, getattr(part, name))
        for key, (name, _) in table.items()
        if name != "name_en" or part.name_en
    }


def _otherwise(kind: str, own: OrderRules, order: OrderRules) -> dict[str, Any]:
    """Only what is not as in `order`, or would be otherwise if it were not said."""
    told = _OF_THEMSELVES.get(kind, {})
    differs = {
        f.name for f in fields(own) if getattr(own, f.name) != getattr(order, f.name) or f.name in told
    }
    said = _said(own, {key: found for key, found in _ORDER.items() if found[0] in differs})
    return _without(said, order) if "emergency_intervals" in said else said


def _without(said: dict[str, Any], below: OrderRules) -> dict[str, Any]:
    """Levels that would have an interval from below, and have none."""
    told = {str(level): "ordinary" for level, _ in below.emergency_intervals} | said["emergency_intervals"]
    return {**said, "emergency_intervals": dict(sorted(told.items()))}


def _word_of(name: str, value: Any) -> Any:
    match value:
        case None:
            return "any_time"
        case "":
            return "none"
        case StrEnum():
            return value.value
        case Interval(every, 1):
            return every
        case Interval(every, together):
            return {"every": every, "together": together}
        case int() if name.endswith("_minutes"):
            return f"{value}m"
        case int() if name.endswith("_seconds"):
            return f"{value}s"
    match name:
        case "emergency_intervals":
            return {str(level): _word_of("", interval) for level, interval in value}
        case "classes":
            return [
                {"code": c.code, "rank": c.rank, "every": c.interval.every, "together": c.interval.together}
                for c in value
            ]
        case "ahead":
            return list(value)
    return value
