"""What a message from another system must be before anybody believes it: rules as data, evaluated purely.

A body is what a connector has made of a message: mappings, lists and plain values, times as ISO 8601 text. A
path names a place in it: `patient.name`, `observations[].value` (each of them). What is absent, None or blank
is not there. Findings name places and rules, never what stood there: they end in lists and logs.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

FINDINGS_MAX: Final = 50
"""Of one message: who sends a thousand faults is told of the first fifty."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a message. `rule` is a word; `expected` says what would have been right."""

    field: str  # observations[3].value; "" for the message as a whole
    rule: str
    expected: str = ""


class Unfit(Exception):
    """Only the receiver could know it: a department that is not ours, a patient of another name."""

    def __init__(self, field: str, reason: str, expected: str = "") -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.finding = Finding(field, reason, expected)


class Unclaimed(Exception):
    """It is about nobody we know yet. `keys` are keyed indexes of the numbers by which they would be."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        super().__init__("about nobody who is known here")
        self.keys = tuple(keys)


class Shape(StrEnum):
    """What a value may be."""

    TEXT = "text"
    WHOLE = "whole"
    NUMBER = "number"  # also as text
    DAY = "day"  # 2026-11-23
    TIME = "time"  # ISO 8601 with an offset
    YES_NO = "yes_no"
    LIST = "list"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class FieldRule:
    """Of one path. None: no such limit."""

    path: str
    is_required: bool = False
    shape: Shape | None = None
    chars_max: int | None = None
    items_max: int | None = None
    pattern: re.Pattern[str] | None = None  # of the whole text
    among: frozenset[str] | None = None
    lowest: Decimal | None = None
    highest: Decimal | None = None
    past_seconds_max: int | None = None  # a day or a time: how long ago at most
    future_seconds_max: int | None = None


@dataclass(frozen=True, slots=True)
class Plausible:
    """Between which limits a figure of a code can be at all, in which units. Beyond: mistyped, or swapped."""

    units: frozenset[str]  # empty: in any
    lowest: Decimal | None
    highest: Decimal | None


@dataclass(frozen=True, slots=True)
class Figures:
    """A list of coded figures, and what is plausible of each code. Unknown codes pass."""

    each: str  # observations[]
    code: str
    value: str
    unit: str
    codes: Mapping[str, Plausible]


@dataclass(frozen=True, slots=True)
class InterfaceRules:
    addressed: tuple[str, frozenset[str]] | None = None
    """Who a message must be for: a path, and our names. Of what is for others nothing else is told."""
    fields: Mapping[str, FieldRule] = field(default_factory=dict)  # by path
    orders: tuple[tuple[str, ...], ...] = ()
    """Paths of times, none of which may be later than the next, where they are there."""
    figures: Figures | None = None


Rules = Mapping[str, InterfaceRules]
"""By interface."""


def findings(rules: InterfaceRules, body: Mapping[str, Any], now: datetime) -> tuple[Finding, ...]:
    """What is wrong, in the order of the rules; nothing: the receiver may look at it."""
    if rules.addressed is not None:
        path, ours = rules.addressed
        names = [value for _, value in places(body, path) if not _is_blank(value)]
        if not names or any(str(name) not in ours for name in names):
            return (Finding(path, "not_for_us", "one of our names"),)
    found: list[Finding] = []
    for finding in _all(rules, body, now):
        found.append(finding)
        if len(found) == FINDINGS_MAX:
            break
    return tuple(found)


def places(body: Any, path: str) -> list[tuple[str, Any]]:
    """Where the path leads, and what stands there. None where nothing does, or where it cannot go on."""
    found: list[tuple[str, Any]] = [("", body)]
    for step in path.split("."):
        name = step.removesuffix("[]")
        found = [
            (f"{where}.{name}" if where else name, value.get(name) if isinstance(value, Mapping) else None)
            for where, value in found
        ]
        if step.endswith("[]"):
            found = [
                (f"{where}[{n}]", item)
                for where, value in found
                if isinstance(value, list | tuple)
                for n, item in enumerate(value)
            ]
    return found


def _all(rules: InterfaceRules, body: Mapping[str, Any], now: datetime) -> Iterable[Finding]:
    for rule in rules.fields.values():
        for where, value in places(body, rule.path):
            if _is_blank(value):
                if rule.is_required:
                    yield Finding(where, "missing")
            else:
                yield from _wrong(rule, where, value, now)
    for order in rules.orders:
        yield from _out_of_order(order, body)
    if rules.figures is not None:
        yield from _implausible(rules.figures, body)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not value)


def _wrong(rule: FieldRule, where: str, value: Any, now: datetime) -> Iterable[Finding]:
    if rule.shape is not None and not _is_of(rule.shape, value):
        yield Finding(where, "shape", rule.shape.value)
        return
    if rule.items_max is not None and isinstance(value, list | tuple) and len(value) > rule.items_max:
        yield Finding(where, "too_many", f"at most {rule.items_max}")
    if isinstance(value, list | tuple | Mapping):
        return
    if isinstance(value, int) and abs(value) >= _BEYOND:
        yield Finding(where, "shape", Shape.NUMBER.value)  # Python itself refuses to spell the very long ones
        return
    text = str(value)
    if rule.chars_max is not None and len(text) > rule.chars_max:
        yield Finding(where, "too_long", f"at most {rule.chars_max} characters")
        return  # nothing long goes through a pattern
    if rule.pattern is not None and not rule.pattern.fullmatch(text):
        yield Finding(where, "pattern", rule.pattern.pattern)
    if rule.among is not None and text not in rule.among:
        yield Finding(where, "unknown_code", ", ".join(sorted(rule.among)))
    if rule.lowest is not None or rule.highest is not None:
        number = number_of(value)
        if number is None or not _is_within(number, rule.lowest, rule.highest):
            yield Finding(where, "range", _limits(rule.lowest, rule.highest))
    if rule.past_seconds_max is not None or rule.future_seconds_max is not None:
        moment = _moment(value)
        if moment is None:
            yield Finding(where, "shape", Shape.TIME.value)
        elif rule.past_seconds_max is not None and moment < now - timedelta(seconds=rule.past_seconds_max):
            yield Finding(where, "too_old", f"at most {_span(rule.past_seconds_max)} ago")
        elif rule.future_seconds_max is not None and moment > now + timedelta(
            seconds=rule.future_seconds_max
        ):
            yield Finding(where, "in_the_future", f"at most {_span(rule.future_seconds_max)} ahead")


def _out_of_order(order: tuple[str, ...], body: Mapping[str, Any]) -> Iterable[Finding]:
    before: tuple[str, datetime] | None = None
    for path in order:
        moments = [(where, _moment(value)) for where, value in places(body, path) if not _is_blank(value)]
        if len(moments) != 1 or moments[0][1] is None:
            continue
        where, moment = moments[0][0], moments[0][1]
        if before is not None and moment < before[1]:
            yield Finding(where, "order", f"not before {before[0]}")
            return
        before = where, moment


def _implausible(figures: Figures, body: Mapping[str, Any]) -> Iterable[Finding]:
    for where, one in places(body, figures.each):
        if not isinstance(one, Mapping):
            continue
        code, value, unit = (one.get(name) for name in (figures.code, figures.value, figures.unit))
        plausible = figures.codes.get(code) if isinstance(code, str) else None
        if plausible is None or _is_blank(value):
            continue
        number = number_of(value)
        if number is None:
            continue  # "positive", "<0.1": words and bounds are not figures
        if plausible.units and unit not in plausible.units:
            yield Finding(f"{where}.{figures.unit}", "unit", ", ".join(sorted(plausible.units)))
        elif not _is_within(number, plausible.lowest, plausible.highest):
            limits = _limits(plausible.lowest, plausible.highest)
            yield Finding(f"{where}.{figures.value}", "implausible", limits)


def _is_of(shape: Shape, value: Any) -> bool:
    match shape:
        case Shape.TEXT:
            return isinstance(value, str)
        case Shape.WHOLE:
            return isinstance(value, int) and not isinstance(value, bool)
        case Shape.NUMBER:
            return number_of(value) is not None
        case Shape.DAY:
            return isinstance(value, str) and _day(value) is not None
        case Shape.TIME:
            return isinstance(value, str) and _time(value) is not None
        case Shape.YES_NO:
            return isinstance(value, bool)
        case Shape.LIST:
            return isinstance(value, list | tuple)
        case Shape.OBJECT:
            return isinstance(value, Mapping)


_BEYOND: Final = 10**18
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})", re.ASCII)


def number_of(value: Any) -> Decimal | None:
    """A figure, also where it was sent as text; None: it is none, or has more digits than any figure has."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    if isinstance(value, int) and abs(value) >= _BEYOND:
        return None
    text = value.strip() if isinstance(value, str) else format(Decimal(str(value)), "f")
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None


def _time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None or len(text) <= 10 else moment


def _moment(value: Any) -> datetime | None:
    """A day counts from its first moment on, wherever that is: limits are wide."""
    if not isinstance(value, str):
        return None
    day = _day(value)
    if day is not None:
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    return _time(value)


def _is_within(number: Decimal, lowest: Decimal | None, highest: Decimal | None) -> bool:
    return (lowest is None or number >= lowest) and (highest is None or number <= highest)


def _limits(lowest: Decimal | None, highest: Decimal | None) -> str:
    if lowest is not None and highest is not None:
        return f"{lowest} to {highest}"
    return f"at least {lowest}" if lowest is not None else f"at most {highest}"


def _span(seconds: int) -> str:
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
