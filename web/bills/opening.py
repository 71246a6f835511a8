"""Opening a bill: lazily, when somebody pays, or asks the desk. Opened again it is the one that is there."""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from actors.changes import ms
from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain.price_rules import Discount, Kind, Line
from engine.domain.refund_rules import Cause
from engine.domain.refusal import Reason
from engine.records import bills
from engine.records.appointments import AppointmentRecord
from web import keys
from web.bills import pricing
from web.bills.asking import ask_bill, tell_bill
from web.errors import Problem
from web.faults import Fault
from web.fresh_ids import new_id

TAKEN: Final = (s.Status.BOOKED, s.Status.ARRIVED, s.Status.FULFILLED)


async def opened(
    app: web.Application, appointment: AppointmentRecord, by: str = "", coupon: str | None = None
) -> p.Answer:
    """The bill of a number, priced by the rules of this moment where it is not there yet.

    Raises Problem: hold_expired, already_cancelled of a number that nobody has any more; what is wrong with
    the coupon; coupon_too_late where the bill was opened without it."""
    known = await bills.bill(app[keys.POOL], appointment.id)
    if known is not None:
        _must_have(known, coupon)
        return _answer(known)
    _must_be_there(appointment)
    priced = await pricing.priced(app, appointment, coupon)
    await pricing.coupon_taken(app, appointment.id, priced)
    command = _open(appointment, priced.lines, priced.discounts, by)
    try:
        answer = await ask_bill(app, appointment.id, command)
        if coupon is not None:  # somebody may have opened it in the same moment, without
            row = await bills.bill(app[keys.POOL], appointment.id)
            _must_have(row, coupon)
    except Problem:
        await pricing.coupon_given_back(app, appointment.id)  # unless the bill is there and has it
        raise
    if appointment.status in TAKEN:
        return await ask_bill(app, appointment.id, p.SeatTaken(new_id(), appointment.id, by))
    return answer


async def opened_for_more(app: web.Application, number: AppointmentRecord, fen: int) -> None:
    """改签 to a dearer number: a second bill, over the difference, to be paid until the visit. Raises
    actors.errands.TryAgain."""
    line = Line("1", Kind.REGISTRATION, number.number_class_id, fen)
    await tell_bill(app, number.id, _open(number, (line,), (), ""))
    if number.status in TAKEN:
        await tell_bill(app, number.id, p.SeatTaken(new_id(), number.id))


def _open(
    number: AppointmentRecord, lines: tuple[Line, ...], discounts: tuple[Discount, ...], by: str
) -> p.OpenBill:
    is_held = number.status == s.Status.PENDING
    return p.OpenBill(
        new_id(),
        number.id,
        number.account_id,
        number.patient_id,
        number.id.hex(),
        lines,
        discounts,
        appointment_id=number.id,
        starts_at=ms(number.starts_at),
        pay_by=ms(number.hold_until if is_held else number.starts_at),
        department_id=number.department_id,
        number_class_id=number.number_class_id,
        by=by,
    )


def _must_be_there(number: AppointmentRecord) -> None:
    """Nothing is opened for a number that nobody has any more."""
    if number.status in (s.Status.CANCELLED, s.Status.NOSHOW):
        is_over = number.reason == Cause.EXPIRED
        raise Problem(Reason.HOLD_EXPIRED if is_over else Reason.ALREADY_CANCELLED)
    if number.status == s.Status.PENDING and number.hold_until <= datetime.now(UTC):
        raise Problem(Reason.HOLD_EXPIRED)


def _answer(row: bills.BillRow) -> p.Answer:
    return p.Answer(
        row.id,
        row.status,
        row.fen,
        row.paid,
        row.refunded,
        row.owed_back,
        row.appointment_id or b"",
        row.version,
    )


def _must_have(row: bills.BillRow | None, coupon: str | None) -> None:
    """A bill keeps the price at which it was opened."""
    if coupon is None:
        return
    found = () if row is None else row.discounts
    if not any(one.rule == "coupon" and pricing.same_code(one.name, coupon) for one in found):
        raise Problem(Fault.COUPON_TOO_LATE)
