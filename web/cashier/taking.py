"""Cash for a bill: opened where it is not yet, paid over the counter, with a receipt's number of ours."""

from datetime import UTC, datetime
from typing import Final

import asyncpg
from aiohttp import web

from engine.domain import payment as p
from engine.domain.by import by_staff
from engine.domain.hospital_orders import PREFIX
from engine.domain.ids import derived
from engine.domain.refusal import Reason
from engine.records import appointments, bills, cash
from engine.records.bills import BillRow
from engine.records.cash import NewReceipt, Receipt
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.bills.asking import ask_bill, bill_now
from web.bills.opening import opened
from web.bills.telling import tell_of
from web.cashier import bodies
from web.cashier.describing import bill_answer
from web.cashier.reach import bill_in_reach, must_reach
from web.errors import Problem
from web.faults import Fault
from web.hospital_billing.looking import must_be_due
from web.openapi import api
from web.patient.appointments import OVERLOAD, uuid
from web.patient.bodies import IdPath

_OPEN: Final = frozenset((*OVERLOAD,))
"""After these nobody knows, or the same key may yet do it: all other problems make the receipt void."""


@api.route(
    "POST",
    "/api/v1/cashier/appointments/{id}/bill",
    zh="为预约开账单",
    tags=["cashier"],
    errors=[
        Reason.NO_SUCH_APPOINTMENT,
        Reason.HOLD_EXPIRED,
        Reason.ALREADY_CANCELLED,
        Fault.COUPON_UNKNOWN,
        Fault.COUPON_UNFIT,
        Fault.COUPON_USED,
        Fault.COUPON_TOO_LATE,
        Fault.PRICE_CHANGED,
        *OVERLOAD,
    ],
)
async def open_bill_at_desk(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: bodies.OpenBillBody
) -> bodies.DeskBillAnswer:
    """The bill of a number, by the hospital's prices: the one that is there, or a new one."""
    app = request.app
    number = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], path.id.bytes)
    if number is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    must_reach(app, staff, number.department_id)
    known = await bills.bills_of_appointment(app[keys.POOL], number.id)
    # After a change to a dearer number there are two: the one to pay is the one that is not paid.
    unpaid = [one for one in known if one.paid_by is None and not one.closed]
    if known and body.coupon is None:
        bill_id = (unpaid or known)[0].id
    else:
        bill_id = (await opened(app, number, by_staff(staff.id), body.coupon)).bill_id
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        answer = await bill_answer(app, connection, bill_id)
        await audited(
            request,
            connection,
            "bill_read" if known else "bill_opened",
            subjects=(number.patient_id,),
            object=("bill", uuid(bill_id)),
        )
    return answer


@api.route(
    "POST",
    "/api/v1/cashier/bills/{id}/payments",
    zh="窗口收款",
    status=201,
    tags=["cashier"],
    errors=[
        Fault.NO_SUCH_BILL,
        Fault.HOSPITAL_BILLING_AWAY,
        Reason.BILL_PAID,
        Reason.BILL_CLOSED,
        Reason.HOLD_EXPIRED,
        Reason.AMOUNT_MISMATCH,
        Reason.TOO_MANY_PAYMENTS,
        Reason.KEY_REUSED,
        *OVERLOAD,
    ],
)
async def take_at_desk(
    request: web.Request, *, staff: Staff, idempotency_key: str, path: IdPath, body: bodies.CashBody
) -> bodies.CashTakenAnswer:
    """Books cash for a whole bill; the answer has the receipt's number. After 5xx or silence the same key
    finds what became of it."""
    app = request.app
    row = await bill_in_reach(app, staff, path.id.bytes)
    if row.order.startswith(PREFIX):
        await must_be_due(app, row.id, row.order)
    command_id = command_of(staff, idempotency_key)
    attempt_id = derived(b"cash", command_id)
    new = NewReceipt(command_id, "in", row.id, attempt_id, body.fee, staff.id)
    receipt = await numbered(request, row, new, "cash_taken")
    command = p.TakeAtDesk(command_id, attempt_id, receipt.number, body.fee, by_staff(staff.id))
    answer = await asked(request, row, command, receipt, "cash_taken")
    return bodies.CashTakenAnswer(receipt.number, uuid(attempt_id), answer)


def command_of(staff: Staff, key: str) -> bytes:
    return derived(b"cashier", staff.id, key.encode())


async def numbered(
    request: web.Request, row: BillRow, new: NewReceipt, action: str, reason: str | None = None
) -> Receipt:
    """Raises Problem key_reused: the same key said something else before."""
    app = request.app
    now = datetime.now(UTC)
    day = now.astimezone(app[keys.ZONE]).date()
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        receipt = await cash.receipt_for(connection, new, day, now)
        if receipt.new != new:
            raise Problem(Reason.KEY_REUSED)
        if receipt.is_new:
            await _audit(request, connection, row, receipt, action, reason)
    return receipt


async def asked(
    request: web.Request, row: BillRow, command: p.TakeAtDesk | p.RefundAtDesk, receipt: Receipt, action: str
) -> bodies.DeskBillAnswer:
    """What the bill says, and then looks like. A refusal makes the receipt void; that is noted, too."""
    app = request.app
    try:
        await ask_bill(app, row.id, command)
    except Problem as problem:
        if problem.code not in _OPEN:
            async with app[keys.POOL].acquire() as connection:
                await _audit(request, connection, row, receipt, action, problem.code.value, refused=True)
        raise
    # No errand comes of it: the patient is told, and a coupon is given back, by whoever brought it.
    await tell_of(app, row.id, await bill_now(app, row.id))
    async with app[keys.POOL].acquire() as connection:
        return await bill_answer(app, connection, row.id)


async def _audit(
    request: web.Request,
    connection: asyncpg.Connection,
    row: BillRow,
    receipt: Receipt,
    action: str,
    reason: str | None,
    *,
    refused: bool = False,
) -> None:
    await audited(
        request,
        connection,
        action,
        subjects=(row.patient_id,),
        object=("bill", uuid(row.id)),
        outcome="refused" if refused else "done",
        reason=reason,
        detail={"receipt": receipt.number, "fen": receipt.new.fen, "of": receipt.new.subject},
    )
