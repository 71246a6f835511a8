"""Paying a bill: with WeChat Pay, with Alipay, or at the hospital.

What a retry means: the same Idempotency-Key is the same attempt, with the same number at the provider; it is
given what the payer needs once more, or told what became of it. Another key while one attempt is open is
given that attempt. After 4xx nothing was taken.
"""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from aiohttp import web

from actors import errands
from engine.domain import hospital_orders
from engine.domain import payment as p
from engine.domain.ids import derived
from engine.domain.price_rules import Kind
from engine.domain.refusal import Reason, Refusal
from engine.records import payment_orders
from engine.records.bills import bill as bill_row
from engine.records.delegations import may_pay
from engine.records.payment_orders import PaymentOrder
from integrations import connector
from web import keys
from web.bills import at_provider, bodies
from web.bills.asking import bill_now, tell_bill
from web.bills.at_hospital import book_at_hospital, defer
from web.bills.at_provider import OfBill
from web.bills.opening import opened
from web.bills.own import OwnBill, own_bill
from web.bills.providers import Provider
from web.bills.reading import described
from web.bills.work import attend
from web.errors import Problem, refused
from web.faults import Fault
from web.fresh_ids import new_id
from web.his.truth import must_have_place
from web.hospital_billing.looking import must_be_due
from web.openapi import api
from web.patient.appointments import OVERLOAD, book, uuid
from web.patient.bodies import Provider as ProviderWord

PROVIDER_SECONDS_MAX: Final = 2.0
"""So long somebody waits for the provider; the asking goes on, and the same key finds what came of it."""
ORDER_SECONDS: Final = 30 * 60
"""A bill without an end gives each attempt so long."""
TRIES: Final = 3

T = TypeVar("T")

_COUPON: Final[list[Reason | Fault]] = [
    Fault.COUPON_UNKNOWN,
    Fault.COUPON_UNFIT,
    Fault.COUPON_USED,
    Fault.COUPON_TOO_LATE,
    Fault.PRICE_CHANGED,
]


@api.route(
    "POST",
    "/api/v1/bills/{id}/payments",
    zh="支付账单",
    status=201,
    tags=["bills"],
    answer=bodies.OnlinePaymentAnswer | bodies.PaymentAnswer,
    errors=[
        Fault.NO_SUCH_BILL,
        Fault.UNSUPPORTED_PROVIDER,
        Fault.PAYING_NOT_DELEGATED,
        Fault.PROVIDER_AWAY,
        Fault.PAYMENT_OVER,
        Fault.HOSPITAL_BILLING_AWAY,
        Reason.HOLD_EXPIRED,
        Reason.SLOT_FULL,
        Reason.ALREADY_CANCELLED,
        Reason.CHANGE_TOO_LATE,
        Reason.TOO_MANY_CHANGES,
        Reason.CHANGE_GIVEN_UP,
        Reason.CHANGE_UNSETTLED,
        Reason.BILL_PAID,
        Reason.BILL_CLOSED,
        Reason.BILL_UNFIT,
        Reason.KEY_REUSED,
        Reason.AT_HOSPITAL_NOT_ALLOWED,
        Reason.PAYMENT_UNDER_WAY,
        Reason.TOO_MANY_PAYMENTS,
        *_COUPON,
        *OVERLOAD,
    ],
)
async def pay_bill(
    request: web.Request,
    *,
    account_id: bytes,
    idempotency_key: str,
    path: bodies.BillPath,
    body: bodies.PaymentBody,
) -> bodies.PaymentAnswer:
    """Begins to pay. `at_hospital` books the number at once, to be paid at the window.

    Else the number is booked when the money has come: `client` is what the client's pay call takes
    (wx.requestPayment), `pay_page` an address that a browser opens. When the payer comes back, ask
    `/bills/{id}/payments/{payment}/check`."""
    app = request.app
    own = await own_bill(app, path.id.bytes, account_id)
    if body.provider == p.AT_HOSPITAL:
        return await _at_hospital(app, path.id.bytes, own, account_id, body.coupon)
    if not await may_pay(app[keys.POOL], account_id, own.patient_id):
        raise Problem(Fault.PAYING_NOT_DELEGATED)
    provider = app[keys.PROVIDERS].get(body.provider)
    if provider is None:
        raise Problem(Fault.UNSUPPORTED_PROVIDER)
    if provider.needs_openid and await payment_orders.openid_of(app[keys.POOL], account_id) is None:
        raise Problem(Fault.UNSUPPORTED_PROVIDER)
    bill_id = path.id.bytes
    await must_have_place(app, own.number)
    fee, is_paid = await _due(app, bill_id, own, body.coupon)
    if not fee and not is_paid:
        await _attended(app, bill_id)  # nothing is to be paid: the number is booked
        return bodies.OnlinePaymentAnswer(uuid(bill_id), body.provider, "paid", 0, {}, None, None, None)
    attempt_id = derived(b"payment", bill_id, account_id, idempotency_key.encode())
    return await _online(app, bill_id, account_id, provider, attempt_id)


async def _at_hospital(
    app: web.Application, bill_id: bytes, own: OwnBill, account_id: bytes, coupon: str | None
) -> bodies.PaymentAnswer:
    number = own.number
    if own.row is not None and own.row.paid_by:
        raise Problem(Reason.BILL_PAID)
    if number is None:
        assert own.row is not None
        await _must_be_due(app, bill_id, own.row.order)
        answer = await defer(app, bill_id, account_id)
        return bodies.PaymentAnswer(uuid(bill_id), "at_hospital", "at_hospital", answer.fen, {})
    await book_at_hospital(app, number, lambda: book(app, number), own.row, coupon)
    row = own.row or await bill_row(app[keys.POOL], bill_id)
    fee = number.fee_fen if row is None else row.fen
    return bodies.PaymentAnswer(uuid(bill_id), "at_hospital", "at_hospital", fee, {})


async def _due(app: web.Application, bill_id: bytes, own: OwnBill, coupon: str | None) -> tuple[int, bool]:
    """What is to be paid, and whether it was paid; the bill is open then. Raises Problem."""
    if own.row is None:
        assert own.number is not None
        answer = await opened(app, own.number, coupon=coupon)
        return answer.fen, bool(answer.paid)
    if coupon is not None and own.number is None:
        raise Problem(Fault.COUPON_TOO_LATE)
    if coupon is not None and own.number is not None and own.number.id == bill_id:
        await opened(app, own.number, coupon=coupon)
    if not own.row.paid_by:
        await _must_be_due(app, bill_id, own.row.order)
    return own.row.fen, bool(own.row.paid_by)


async def _must_be_due(app: web.Application, bill_id: bytes, order: str) -> None:
    """The hospital's own bills may have been paid at its window, or changed, a moment ago. Raises Problem."""
    if order.startswith(hospital_orders.PREFIX):
        await must_be_due(app, bill_id, order)


async def _attended(app: web.Application, bill_id: bytes) -> None:
    try:
        await attend(app, bill_id)
    except errands.TryAgain:
        raise Problem(Fault.OUTCOME_UNKNOWN) from None


async def _online(
    app: web.Application, bill_id: bytes, account_id: bytes, provider: Provider, attempt_id: bytes
) -> bodies.OnlinePaymentAnswer:
    working = _begun(app, _ready(app, bill_id, account_id, provider, attempt_id))
    try:
        attempt_id, attempt = await asyncio.wait_for(asyncio.shield(working), PROVIDER_SECONDS_MAX)
    except TimeoutError:
        working.add_done_callback(_heard)
        raise Problem(Fault.PROVIDER_AWAY) from None
    except connector.TryAgain:
        raise Problem(Fault.PROVIDER_AWAY) from None
    except errands.TryAgain:
        raise Problem(Fault.OUTCOME_UNKNOWN) from None
    number = uuid(attempt_id)
    if attempt.state is p.Paying.PAID:
        return bodies.OnlinePaymentAnswer(
            uuid(bill_id), _word(provider), "paid", attempt.fen, {}, number, None, None
        )
    if attempt.state in (p.Paying.CLOSED, p.Paying.FAILED):
        raise Problem(Fault.PAYMENT_OVER, why=attempt.code or None)
    asked = await at_provider.asked_of(app, attempt_id, attempt.fen)
    if attempt.state is not p.Paying.ASKED or not attempt.prepay or asked is None:
        raise Problem(Fault.PROVIDER_AWAY)
    return bodies.OnlinePaymentAnswer(
        uuid(bill_id),
        _word(provider),
        "waiting",
        attempt.fen,
        provider.client(asked, attempt.prepay),
        number,
        provider.pay_page(asked),
        asked.expires_at.astimezone(app[keys.ZONE]),
    )


def _begun(app: web.Application, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Goes on when nobody waits for it any more, and is under way until it ends. Raises Problem `busy`."""
    payments = app[keys.PAYMENTS]
    try:
        payments.must_enter()
    except Problem:
        work.close()
        raise
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda _: payments.leave())
    return task


def _word(provider: Provider) -> ProviderWord:
    return "wechat_pay" if provider.name == "wechat_pay" else "alipay"


def _heard(task: "asyncio.Task[tuple[bytes, p.Attempt]]") -> None:
    """Nobody waits for it any more; what it found is in the journal, or is an errand."""
    if not task.cancelled():
        task.exception()


async def _ready(
    app: web.Application, bill_id: bytes, account_id: bytes, provider: Provider, attempt_id: bytes
) -> tuple[bytes, p.Attempt]:
    """Begins the attempt, or finds the one that is open, and brings it as far as it gets by itself."""
    for _ in range(TRIES):
        started = await _started(app, bill_id, account_id, provider, attempt_id)
        bill = await bill_now(app, bill_id)
        attempt = bill.attempts[started]
        order = await _order(app, bill_id, account_id, provider, bill, started)
        if started != attempt_id and order.payer != account_id:
            raise Problem(Reason.PAYMENT_UNDER_WAY)
        is_over = order.expires_at <= datetime.now(UTC)
        of = OfBill(app, bill_id, bill)
        match attempt.state:
            case p.Paying.UNKNOWN:
                await at_provider.query_payment(of, started)
            case p.Paying.ASKED if is_over:
                await at_provider.query_payment(of, started)
            case p.Paying.CREATED | p.Paying.ASKED if not attempt.prepay:
                await at_provider.ask_prepay(of, started)
            case _:
                return started, attempt
    bill = await bill_now(app, bill_id)
    return started, bill.attempts[started]


async def _started(
    app: web.Application, bill_id: bytes, account_id: bytes, provider: Provider, attempt_id: bytes
) -> bytes:
    """The attempt of this key, or the one of this provider that is open already. Raises Problem."""
    command = p.StartPayment(new_id(), attempt_id, provider.name, provider.merchant_id)
    outcome = await tell_bill(app, bill_id, command)
    if not isinstance(outcome, Refusal):
        return attempt_id
    if outcome.reason is Reason.PAYMENT_UNDER_WAY:
        return bytes.fromhex(str(outcome.detail["attempt_id"]))
    raise refused(outcome)


async def _order(
    app: web.Application,
    bill_id: bytes,
    account_id: bytes,
    provider: Provider,
    bill: p.Bill,
    attempt_id: bytes,
) -> PaymentOrder:
    """What is asked of the provider, word for word each time."""
    assert bill.opened is not None
    now = datetime.now(UTC)
    expires_at = now + timedelta(seconds=ORDER_SECONDS)
    if bill.seat is p.Seat.HELD and bill.opened.pay_by:
        expires_at = min(expires_at, datetime.fromtimestamp(bill.opened.pay_by / 1000, UTC))
    kinds = {line.kind for line in bill.opened.lines}
    description = "挂号费" if kinds == {Kind.REGISTRATION} else "医疗费用"  # names no illness and nobody
    order = PaymentOrder(
        attempt_id,
        bill_id,
        account_id,
        provider.name,
        description,
        expires_at.replace(microsecond=0),
        now,
    )
    return await payment_orders.keep(app[keys.POOL], order)


@api.route(
    "POST",
    "/api/v1/bills/{id}/payments/{payment}/check",
    zh="查询支付结果",
    tags=["bills"],
    errors=[Fault.NO_SUCH_BILL, Reason.NO_SUCH_PAYMENT, Fault.PROVIDER_AWAY, *OVERLOAD],
)
async def check_payment(
    request: web.Request, *, account_id: bytes, path: bodies.PaymentPath
) -> bodies.BillAnswer:
    """Asks the provider at once what became of a payment: call it when the payer comes back. The answer is
    the bill."""
    app, bill_id, attempt_id = request.app, path.id.bytes, path.payment.bytes
    await own_bill(app, bill_id, account_id)
    bill = await bill_now(app, bill_id)
    attempt = bill.attempts.get(attempt_id)
    if attempt is None:
        raise Problem(Reason.NO_SUCH_PAYMENT)
    if attempt.state <= p.Paying.UNKNOWN and attempt.provider != p.AT_HOSPITAL:
        working = _begun(app, _checked(app, bill_id, bill, attempt_id))
        try:
            await asyncio.wait_for(asyncio.shield(working), PROVIDER_SECONDS_MAX)
        except TimeoutError:
            working.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise Problem(Fault.PROVIDER_AWAY) from None
        except (connector.TryAgain, errands.TryAgain):
            raise Problem(Fault.PROVIDER_AWAY) from None
    return await described(app, account_id, bill_id, await own_bill(app, bill_id, account_id))


async def _checked(app: web.Application, bill_id: bytes, bill: p.Bill, attempt_id: bytes) -> None:
    await at_provider.query_payment(OfBill(app, bill_id, bill), attempt_id)
    try:
        await attend(app, bill_id)  # books the seat while the payer waits
    except errands.TryAgain:
        return  # the errand goes on
