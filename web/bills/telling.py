"""What patients are told of their money without asking: each thing once, and all of it from the bill's state.

So it may be told again after any report, by whoever brought it; what was told before is not told twice.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from engine.domain import payment as p
from engine.domain.refund_rules import Cause
from engine.records import notices
from engine.records.notices import New
from web import keys
from web.bills import pricing

SEAT_AGAIN: Final = "seat_again"
NO_SEAT: Final = "no_seat"
REFUNDED: Final = "refunded"


async def tell_of(app: web.Application, bill_id: bytes, bill: p.Bill) -> None:
    """Call it after a report was committed."""
    opened = bill.opened
    if opened is None:
        return
    if opened.discounts:
        await pricing.coupon_given_back(app, bill_id)  # and other counted discounts; it looks by itself
    new = list(_new(bill, opened))
    if not new:
        return
    now = datetime.now(UTC)
    at = bill.starts_at / 1000 if bill.starts_at else now.timestamp()
    day = datetime.fromtimestamp(at, app[keys.ZONE]).date()
    async with app[keys.POOL].acquire() as connection:
        await notices.keep(connection, opened.department_id, day, new, now)


def _new(bill: p.Bill, opened: p.BillOpened) -> Iterator[New]:
    about = bill.appointment_id or opened.bill_id
    retaken = {p.retaken_id(one) for one in bill.former}
    for appointment_id in retaken & ({bill.appointment_id} | bill.former):
        yield New(appointment_id, SEAT_AGAIN, "", opened.patient_id, {})
    for refund_id, refund in bill.refunds.items():
        data = {"fen": refund.fen}
        if refund.cause == Cause.FULL:
            yield New(about, NO_SEAT, refund_id.hex(), opened.patient_id, data)
        if refund.state is p.Refunding.DONE:
            yield New(about, REFUNDED, refund_id.hex(), opened.patient_id, data)
