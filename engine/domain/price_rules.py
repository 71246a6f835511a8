"""What a bill costs after the hospital's price rules, and why: first-visit discount, coupon, free follow-up.

Pure. `price` takes the lines of a bill, what is known of the patient, and the rules; every discount that it
finds names its rule and its line, so the bill explains itself. Order: a free follow-up first (it leaves
nothing to take off the registration), then first-visit discounts in the hospital's order, then one coupon on
what is left. A line never costs less than 0. Parts of a fen go to the patient.

A coupon is used once: that is a claim of whoever opens the bill, not of this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DAY_MS: Final = 86_400_000


class Kind(StrEnum):
    """What a line is for; also the kind of revenue."""

    REGISTRATION = "registration"
    DRUG = "drug"
    EXAMINATION = "examination"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing on a bill. `item` is the catalog's code: what it is called is told there, not here."""

    line_id: str
    kind: str
    item: str
    fen: int  # of all of it, before discounts
    quantity: int = 1


@dataclass(frozen=True, slots=True)
class Discount:
    """So much off a line, and by which rule."""

    line_id: str
    rule: str  # first_visit | coupon | free_follow_up
    name: str  # the hospital's own word for it; a coupon's code
    fen: int
    percent: int = 0  # 0: not by percent
    until: int = 0  # free follow-up: the end of the window; coupon: of its validity


@dataclass(frozen=True, slots=True)
class FirstVisitDiscount:
    """Who was never here before pays less for these kinds."""

    name: str
    percent: int
    kinds: tuple[str, ...] = (Kind.REGISTRATION,)

    def __post_init__(self) -> None:
        assert 0 < self.percent <= 100


@dataclass(frozen=True, slots=True)
class FreeFollowUp:
    """Who was seen (paid) in the department within `days` pays no registration, `visits_max` times."""

    name: str
    days: int
    visits_max: int = 1
    department_id: str = ""  # "": every one
    same_practitioner: bool = False


@dataclass(frozen=True, slots=True)
class Coupon:
    """Shown by the patient, checked by the caller: it is his, and unused."""

    code: str
    begins_at: int
    ends_at: int
    fen: int = 0  # so much off the whole …
    percent: int = 0  # … or so many percent of it
    at_least: int = 0  # for bills of so many fen, after other discounts
    kinds: tuple[str, ...] = (Kind.REGISTRATION,)

    def __post_init__(self) -> None:
        assert (self.fen > 0) != (0 < self.percent <= 100)


@dataclass(frozen=True, slots=True)
class PriceRules:
    first_visit: tuple[FirstVisitDiscount, ...] = ()
    free_follow_up: tuple[FreeFollowUp, ...] = ()


@dataclass(frozen=True, slots=True)
class Visitor:
    """What the records know of the patient when the bill is made."""

    is_first_visit: bool = False
    department_id: str = ""  # where the bill is for
    practitioner_id: str = ""
    paid_visit_at: int = 0  # the latest paid visit to the department that was held; 0: none
    paid_practitioner_id: str = ""
    free_visits: int = 0  # that this paid visit has brought already


@dataclass(frozen=True, slots=True)
class Rejected:
    """A coupon that was shown and takes nothing off, and why."""

    code: str
    why: str  # not_yet | over | below | other_kind


def price(
    lines: Sequence[Line], visitor: Visitor, rules: PriceRules, now: int, coupon: Coupon | None = None
) -> tuple[tuple[Discount, ...], Rejected | None]:
    """The discounts in the order in which they were taken off. `now` is the visit's time for a follow-up's
    window as for a coupon's: pass the visit's start where there is one."""
    left = {line.line_id: line.fen for line in lines}
    found: list[Discount] = []

    def take(line: Line, fen: int, rule: str, name: str, percent: int = 0, until: int = 0) -> None:
        if fen:
            left[line.line_id] -= fen
            found.append(Discount(line.line_id, rule, name, fen, percent, until))

    window = next((rule for rule in rules.free_follow_up if _is_free(rule, visitor, now)), None)
    if window is not None:
        for line in lines:
            if line.kind == Kind.REGISTRATION:
                until = visitor.paid_visit_at + window.days * DAY_MS
                take(line, line.fen, "free_follow_up", window.name, 100, until)
    if visitor.is_first_visit:
        for rule in rules.first_visit:
            for line in lines:
                if line.kind in rule.kinds:
                    off = _part(left[line.line_id], rule.percent)
                    take(line, off, "first_visit", rule.name, rule.percent)
    if coupon is None:
        return tuple(found), None
    among = [line for line in lines if line.kind in coupon.kinds]
    why = _unfit(coupon, among, sum(left.values()), now)
    if why:
        return tuple(found), Rejected(coupon.code, why)
    rest = coupon.fen
    for line in among:
        off = _part(left[line.line_id], coupon.percent) if coupon.percent else min(rest, left[line.line_id])
        rest -= off
        take(line, off, "coupon", coupon.code, coupon.percent, coupon.ends_at)
    return tuple(found), None


def _is_free(rule: FreeFollowUp, visitor: Visitor, now: int) -> bool:
    return (
        visitor.paid_visit_at > 0
        and rule.department_id in ("", visitor.department_id)
        and visitor.paid_visit_at <= now < visitor.paid_visit_at + rule.days * DAY_MS
        and visitor.free_visits < rule.visits_max
        and (not rule.same_practitioner or visitor.practitioner_id == visitor.paid_practitioner_id)
    )


def _unfit(coupon: Coupon, among: Sequence[Line], total: int, now: int) -> str:
    if now < coupon.begins_at:
        return "not_yet"
    if now >= coupon.ends_at:
        return "over"
    if not among:
        return "other_kind"
    return "below" if total < coupon.at_least else ""


def _part(fen: int, percent: int) -> int:
    """Rounded up: a part of a fen goes to the patient."""
    return -(-fen * percent // 100)
