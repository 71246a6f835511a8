"""What policy.yaml says about money: the section `payment`, and `refunds` among the terms of departments and
classes. docs/POLICY.md is the format.

Amounts are written in yuan, as hospitals write them ("25.00"), and read exactly. Refunds are merged key by
key like other terms; only the whole can contradict itself (`refund_terms`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from engine.domain.limits import BILL_FEN_MAX
from engine.domain.money import fen_of, plain_yuan
from engine.domain.payment import AtHospital
from engine.domain.policy import Policy
from engine.domain.price_rules import FirstVisitDiscount, FreeFollowUp, Kind, PriceRules
from engine.domain.refund_rules import RefundRules, RefundTerms
from engine.records.takers import (
    Layer,
    Take,
    days,
    layer,
    name_of,
    put,
    whole_number,
    yes_no,
)
from engine.records.yaml_values import WRONG, Value, Wrong

BEFORE_MINUTES_MAX: Final = 30 * 24 * 60
WINDOW_DAYS_MAX: Final = 366
UNPAID_MAX: Final = 1_000
VISITS_MAX: Final = 100


# The section `payment`.


@dataclass(frozen=True, slots=True)
class PaymentSection:
    """What it says; what it does not say is left out. Fields of MoneyTerms, of PriceRules and of Policy."""

    money: Layer = field(default_factory=dict)
    prices: PriceRules = PriceRules()
    policy: Layer = field(default_factory=dict)


def payment_section(value: Value, departments: Collection[str] | None) -> PaymentSection:
    """Errors are added to the file's. `departments`: those that patients book; None: not checked."""
    entries = value.mapping(("at_hospital", "refunds", "prices"))
    money = layer(entries, {"at_hospital": ("at_hospital", _at_hospital)})
    policy: Layer = {}
    if "refunds" in entries:
        policy = layer(entries["refunds"].mapping(tuple(_REFUNDS)), _REFUNDS)
    prices = PriceRules()
    if "prices" in entries:
        within = entries["prices"].mapping(("first_visit", "free_follow_up"))
        prices = PriceRules(
            _first_visit(within["first_visit"]) if "first_visit" in within else (),
            _free_follow_up(within["free_follow_up"], departments) if "free_follow_up" in within else (),
        )
    return PaymentSection(money, prices, policy)


def amount(value: Value, lowest: int = 0, highest: int = BILL_FEN_MAX) -> int | Wrong:
    """In fen, of what is written in yuan."""
    text = value.text()
    if text is None:
        return WRONG
    fen = fen_of(text)
    if fen is None:
        value.wrong(f'is {text!r}: write an amount in yuan, like "25.00" or 25')
        return WRONG
    if not lowest <= fen <= highest:
        value.wrong(f"is {text!r}: it must be from {plain_yuan(lowest)} to {plain_yuan(highest)}")
        return WRONG
    return fen


def _amount_or_none(value: Value) -> int | None | Wrong:
    return None if value.is_word("none") else amount(value)


def _at_hospital(value: Value) -> AtHospital | None | Wrong:
    """Its limits, or `no`: nobody pays at the hospital. `yes`: everybody may."""
    if not value.is_mapping:
        allowed = value.yes_no()
        if allowed is None:
            return WRONG
        return AtHospital(None, None) if allowed else None
    return replace(AtHospital(None, None), **layer(value.mapping(tuple(_AT_HOSPITAL)), _AT_HOSPITAL))


_AT_HOSPITAL: Final[Mapping[str, tuple[str, Take]]] = {
    "amount_max": ("fen_max", _amount_or_none),
    "unpaid_max": ("unpaid_max", lambda value: value.whole_or("none", 1, UNPAID_MAX)),
}
_REFUNDS: Final[Mapping[str, tuple[str, Take]]] = {
    "approval_above": ("refund_approval_above", _amount_or_none),
}


def _first_visit(value: Value) -> tuple[FirstVisitDiscount, ...]:
    found: list[FirstVisitDiscount] = []
    for item in value.items():
        entries = item.mapping(("name", "percent", "kinds"), ("name", "percent"))
        name = _own_name(entries, [rule.name for rule in found])
        percent = entries["percent"].whole(1, 100) if "percent" in entries else None
        kinds = _kinds(entries["kinds"]) if "kinds" in entries else (Kind.REGISTRATION,)
        if name is None or percent is None or isinstance(kinds, Wrong):
            continue
        free = {kind for rule in found if rule.percent == 100 for kind in rule.kinds}
        if free.issuperset(kinds):
            item.wrong("a rule above takes all of it already, so this one never does anything: remove one")
            continue
        found.append(FirstVisitDiscount(name, percent, kinds))
    return tuple(found)


def _free_follow_up(value: Value, known: Collection[str] | None) -> tuple[FreeFollowUp, ...]:
    """One rule for each department that an entry names; without any it is every department's."""
    found: list[FreeFollowUp] = []
    for item in value.items():
        entries = item.mapping((*_FOLLOW_UP, "name", "departments"), ("name", "within"))
        name = _own_name(entries, [rule.name for rule in found])
        given = layer(entries, _FOLLOW_UP)
        where = _departments(entries["departments"], known) if "departments" in entries else ("",)
        if name is None or "days" not in given or isinstance(where, Wrong):
            continue
        found += [FreeFollowUp(name, department_id=one, **given) for one in where]
    return tuple(found)


_FOLLOW_UP: Final[Mapping[str, tuple[str, Take]]] = {
    "within": ("days", days(1, WINDOW_DAYS_MAX)),
    "visits_max": ("visits_max", whole_number(1, VISITS_MAX)),
    "same_practitioner": ("same_practitioner", yes_no),
}


def _own_name(entries: Mapping[str, Value], taken: Collection[str]) -> str | None:
    """What the bill calls the discount."""
    name = name_of(entries["name"]) if "name" in entries else None
    if name is not None and name in taken:
        entries["name"].wrong(f"another rule is called {name!r}: give each its own name")
        return None
    return name


def _kinds(value: Value) -> tuple[str, ...] | Wrong:
    words = [item.word([kind.value for kind in Kind]) for item in value.items()]
    if not value.is_list or None in words:
        return WRONG
    if not words:
        value.wrong("is empty: name a kind at least, or remove the key for registration")
        return WRONG
    return tuple(kind for kind in Kind if kind in words)


def _departments(value: Value, known: Collection[str] | None) -> tuple[str, ...] | Wrong:
    found: list[str] = []
    ok = value.is_list
    for item in value.items():
        id_ = item.text()
        if id_ is None:
            ok = False
        elif known is not None and id_ not in known:
            item.wrong("the hospital has no such department that patients book: correct the id")
            ok = False
        elif id_ in found:
            item.wrong(f"{id_} stands here twice: keep the first")
            ok = False
        else:
            found.append(id_)
    if ok and not found:
        value.wrong("is empty: name a department at least, or remove the key for all of them")
        ok = False
    return tuple(found) if ok else WRONG


# What is given back when a seat is given up: `refunds` of a level.


@dataclass(frozen=True, slots=True)
class RefundLevel:
    given: Layer = field(default_factory=dict)
    places: Mapping[str, Value] = field(default_factory=dict)


def refund_level(value: Value) -> RefundLevel:
    entries = value.mapping(("cancelled", "no_show"))
    given: Layer = {}
    if "cancelled" in entries:
        put(given, "tiers", _tiers(entries["cancelled"]))
    if "no_show" in entries:
        put(given, "no_show_percent", _PERCENT(entries["no_show"]))
    return RefundLevel(given, entries)


_PERCENT: Final = whole_number(0, 100)


def refund_terms(levels: Sequence[RefundLevel]) -> RefundTerms:
    """The levels merged key by key, the last one that says something wins. What contradicts itself is told
    where it was said last."""
    merged: Layer = {}
    for level in levels:
        merged |= level.given
    whole = RefundTerms(**merged)
    last = next((percent for minutes, percent in whole.tiers[-1:] if not minutes), 0)
    if whole.no_show_percent > last:
        place = next(
            (
                level.places[key]
                for level in reversed(levels)
                for key in ("no_show", "cancelled")
                if key in level.places
            ),
            None,
        )
        if place is not None:
            place.wrong_once(
                f"who does not come would get {whole.no_show_percent} % back, and who cancels at the last"
                f" moment {last} %: nobody would cancel, so set no_show to {last} or less"
            )
    return whole


def refund_rules(entries: Mapping[str, Value]) -> RefundRules:
    """Of the whole file: the terms of every pair that is named, and of those that two names make together.
    That departments and classes are the hospital's is checked with their other terms."""
    hospital = _of(entries.get("defaults"))
    classes = _of_each(entries.get("classes"))
    found = {("", ""): refund_terms([hospital])}
    for class_id, level in classes.items():
        found["", class_id] = refund_terms([hospital, level])
    departments = entries["departments"].entries_quietly() if "departments" in entries else {}
    for id_, value in departments.items():
        own_of = _of(value)
        own = _of_each(value.entries_quietly().get("classes"))
        found[id_, ""] = refund_terms([hospital, own_of])
        for class_id in dict.fromkeys((*classes, *own)):
            levels = [hospital, classes.get(class_id, _NOTHING), own_of, own.get(class_id, _NOTHING)]
            found[id_, class_id] = refund_terms(levels)
    plain = RefundTerms()
    is_plain = all(terms == plain for terms in found.values())
    return RefundRules() if is_plain else RefundRules(found)


_NOTHING: Final = RefundLevel()


def _of(level: Value | None) -> RefundLevel:
    value = None if level is None else level.entries_quietly().get("refunds")
    return _NOTHING if value is None else refund_level(value)


def _of_each(section: Value | None) -> dict[str, RefundLevel]:
    return {} if section is None else {id_: _of(value) for id_, value in section.entries_quietly().items()}


def _tiers(value: Value) -> tuple[tuple[int, int], ...] | Wrong:
    """(minutes before the visit, percent), the longest time first, and each gives back less."""
    found: list[tuple[int, int]] = []
    ok = value.is_list
    for item in value.items():
        entries = item.mapping(("before", "percent"), ("before", "percent"))
        minutes = entries["before"].duration("m", 0, BEFORE_MINUTES_MAX) if "before" in entries else None
        percent = entries["percent"].whole(0, 100) if "percent" in entries else None
        if minutes is None or percent is None:
            ok = False
            continue
        if found and minutes >= found[-1][0]:
            entries["before"].wrong(
                "must be nearer to the visit than the one above: write the longest time first"
            )
            ok = False
        elif found and percent >= found[-1][1]:
            entries["percent"].wrong(
                f"is {percent}, and the one above is {found[-1][1]}: who cancels later gets less back, so"
                " make them fall"
            )
            ok = False
        found.append((minutes, percent))
    return tuple(found) if ok else WRONG


def payment_as_data(policy: Policy) -> dict[str, object]:
    """The section `payment` of a policy, in the words of the file."""
    allowed, above = policy.money.at_hospital, policy.refund_approval_above
    limits: object = allowed is not None
    if allowed is not None and allowed != AtHospital(None, None):
        limits = {"amount_max": _amount(allowed.fen_max), "unpaid_max": allowed.unpaid_max or "none"}
    free: dict[str, dict[str, object]] = {}
    for one in policy.prices.free_follow_up:
        rule = free.setdefault(
            one.name,
            {"name": one.name, "within": f"{one.days}d", "visits_max": one.visits_max}
            | ({"departments": []} if one.department_id else {})
            | {"same_practitioner": one.same_practitioner},
        )
        if one.department_id:
            departments = rule["departments"]
            assert isinstance(departments, list)
            departments.append(one.department_id)
    first = [
        {"name": one.name, "percent": one.percent, "kinds": [str(kind) for kind in one.kinds]}
        for one in policy.prices.first_visit
    ]
    prices = {"first_visit": first, "free_follow_up": list(free.values())}
    return {"at_hospital": limits, "refunds": {"approval_above": _amount(above)}, "prices": prices}


def _amount(fen: int | None) -> str:
    return "none" if fen is None else plain_yuan(fen)


def refunds_as_data(terms: RefundTerms) -> dict[str, object]:
    """Whole terms in the words of the file."""
    tiers = [{"before": _spelled(minutes), "percent": percent} for minutes, percent in terms.tiers]
    return {"cancelled": tiers, "no_show": terms.no_show_percent}


def _spelled(minutes: int) -> str:
    for unit, count in (("d", 24 * 60), ("h", 60)):
        if minutes and minutes % count == 0:
            return f"{minutes // count}{unit}"
    return f"{minutes}m"
