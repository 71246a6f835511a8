"""到院支付: booked now, and paid at the window when its patient comes, within the hospital's limits."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from engine.domain import payment as p
from engine.domain import schedule as s
from engine.records import bills
from engine.records.appointments import AppointmentRecord
from engine.records.bills import BillRow
from web import keys
from web.bills.asking import ask_bill
from web.bills.opening import opened
from web.fresh_ids import new_id

T = TypeVar("T")


async def book_at_hospital(
    app: web.Application,
    number: AppointmentRecord,
    book: Callable[[], Awaitable[T]],
    row: BillRow | None = None,
    coupon: str | None = None,
) -> T:
    """Where the hospital has no limits, and no bill is open yet, the number is booked and that is all: its
    bill is opened at the desk. Raises Problem at_hospital_not_allowed, bill_paid, and what `book` raises."""
    allowed = app[keys.POLICY].policy.money.at_hospital
    is_free = allowed is not None and allowed.fen_max is None and allowed.unpaid_max is None
    is_exchange = number.replaces is not None and number.status == s.Status.PENDING
    if row is None:
        row = await bills.bill_of_appointment(app[keys.POOL], number.id)
    if (is_free and row is None and coupon is None) or is_exchange:
        return await book()
    if row is None and number.status in (s.Status.BOOKED, s.Status.ARRIVED, s.Status.FULFILLED):
        return await book()  # it was booked before there were limits, or at the desk
    if row is not None and (row.paid_by or row.is_deferred):
        return await book()  # there is nothing more to decide
    bill_id = number.id if row is None else row.id
    if row is None:
        await opened(app, number, coupon=coupon)
    await defer(app, bill_id, number.account_id)
    booked = await book()
    await ask_bill(app, bill_id, p.SeatTaken(new_id(), number.id))
    return booked


async def defer(app: web.Application, bill_id: bytes, account_id: bytes) -> p.Answer:
    """Raises Problem."""
    elsewhere = await bills.unpaid_elsewhere(app[keys.POOL], account_id, bill_id)
    return await ask_bill(app, bill_id, p.PayAtHospital(new_id(), elsewhere))
