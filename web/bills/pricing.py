"""What a registration costs its patient: the number's fee, and what the hospital's price rules take off.

`priced` says it and reserves nothing, so that it may be shown as well. `coupon_taken` reserves what may be
used only so often, right before the bill is opened with it; `coupon_given_back` returns it where the bill has
ended without having cost anything. docs/PRICES.md tells it to people.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from engine.domain import price_rules
from engine.domain.price_rules import Discount, Kind, Line, PriceRules
from engine.records import coupons, price_claims
from engine.records.appointments import AppointmentRecord
from engine.records.coupons import CouponRow
from web import keys
from web.errors import Problem
from web.faults import Fault

REGISTRATION_LINE: Final = "registration"


@dataclass(frozen=True, slots=True)
class Claim:
    """A discount that is given only so many times."""

    kind: str  # of engine/records/price_claims.py
    subject: bytes  # the patient; the visit that was paid
    at_most: int


@dataclass(frozen=True, slots=True)
class Priced:
    lines: tuple[Line, ...]
    discounts: tuple[Discount, ...] = ()
    claims: tuple[Claim, ...] = ()
    coupon: CouponRow | None = None  # that some of the discounts are from

    @property
    def fen(self) -> int:
        """What is left to pay."""
        return sum(line.fen for line in self.lines) - sum(one.fen for one in self.discounts)


async def priced(app: web.Application, appointment: AppointmentRecord, coupon: str | None) -> Priced:
    """Of a number's first bill. Raises Problem where the coupon takes nothing off: coupon_unknown,
    coupon_used, or coupon_unfit with the reason."""
    pool, prices = app[keys.POOL], app[keys.POLICY].policy.prices
    now = datetime.now(UTC)
    found = None if coupon is None else await _shown(app, appointment, coupon, now)
    lines = registration_lines(appointment)
    known = await price_claims.known_of(
        pool,
        appointment.patient_id,
        appointment.department_id,
        appointment.schedule_id.rpartition("-")[0],
        appointment.id,
        appointment.id,
        now,
    )
    visit = int(appointment.starts_at.timestamp() * 1000)
    rule = None if found is None else found.rule()
    discounts, rejected = price_rules.price(lines, known.visitor, prices, visit, rule)
    if rejected is not None:
        raise Problem(Fault.COUPON_UNFIT, why=rejected.why)
    if found is not None and all(one.rule != "coupon" for one in discounts):
        raise Problem(Fault.COUPON_UNFIT, why="nothing_to_pay")
    claims = tuple(_claims(discounts, prices, appointment.patient_id, known.paid_visit))
    return Priced(lines, discounts, claims, found)


def registration_lines(appointment: AppointmentRecord) -> tuple[Line, ...]:
    """The number's class is the catalog's code of what is paid for; its fee is the one it was booked at."""
    item = appointment.number_class_id
    return (Line(REGISTRATION_LINE, Kind.REGISTRATION, item, appointment.fee_fen),)


async def coupon_taken(app: web.Application, bill_id: bytes, priced: Priced) -> None:
    """Reserves for this bill what `priced` has of coupons and counted discounts; the same bill may ask again.

    Raises Problem: coupon_used; price_changed where another bill of the patient was given the discount in
    between. Nothing is reserved then.
    """
    if priced.coupon is None and not priced.claims:
        return
    now = datetime.now(UTC)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        for one in priced.claims:
            if not await price_claims.claim(connection, one.kind, one.subject, one.at_most, bill_id, now):
                raise Problem(Fault.PRICE_CHANGED)
        if priced.coupon is not None and not await coupons.take(connection, priced.coupon.id, bill_id, now):
            raise Problem(Fault.COUPON_USED)


async def coupon_given_back(app: web.Application, bill_id: bytes) -> None:
    """Harmless for a bill that goes on, or that has cost something: it looks by itself."""
    await coupons.give_back(app[keys.POOL], bill_id)


def same_code(label: str, typed: str) -> bool:
    """Whether a discount that is called so may be that coupon's: bills know the last signs of a code."""
    code = coupons.code_of(typed)
    return code is not None and label.endswith(f" {code[-coupons.GROUP_CHARS :]}")


async def _shown(
    app: web.Application, appointment: AppointmentRecord, typed: str, now: datetime
) -> CouponRow:
    """Somebody else's is as unknown as one that was never made."""
    code = coupons.code_of(typed)
    found = None if code is None else await coupons.coupon(app[keys.POOL], code)
    if found is None or found.new.patient_id not in (None, appointment.patient_id):
        raise Problem(Fault.COUPON_UNKNOWN)
    if found.voided_at is not None:
        raise Problem(Fault.COUPON_UNFIT, why="void")
    if not await coupons.is_free_for(app[keys.POOL], found.id, appointment.id, now):
        raise Problem(Fault.COUPON_USED)
    return found


def _claims(
    discounts: tuple[Discount, ...], prices: PriceRules, patient_id: bytes, paid_visit: bytes | None
) -> list[Claim]:
    rules = {one.rule: one for one in discounts}
    claims = []
    if price_claims.FIRST_VISIT in rules:
        claims.append(Claim(price_claims.FIRST_VISIT, patient_id, 1))
    free = rules.get(price_claims.FREE_FOLLOW_UP)
    if free is not None:
        assert paid_visit is not None  # nothing else makes it free
        at_most = max(rule.visits_max for rule in prices.free_follow_up if rule.name == free.name)
        claims.append(Claim(price_claims.FREE_FOLLOW_UP, paid_visit, at_most))
    return claims
