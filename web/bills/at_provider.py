"""A bill's errands at a provider: each asks once and makes of the answer the command that tells the bill.

What raises TryAgain (of the connectors) was not done and is no command; it is done again later. What a
provider says that cannot be (another merchant's, an amount that nobody asked for) is an alarm.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from aiohttp import web

from engine.domain import payment as p
from engine.domain.refusal import Refusal
from engine.records import payment_alarms, payment_orders
from engine.records.payment_alarms import Alarm
from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain
from web import keys
from web.bills.asking import tell_bill
from web.bills.providers import Asked, GiveBack, GivenBack, NotGivenBack, Paid, Provider
from web.bills.providers import Refunding as Told
from web.fresh_ids import new_id

log = logging.getLogger(__name__)

REFUND_REASON: Final = "退款 / refund"  # the payer reads it: it names no illness and nobody
GRACE: Final = timedelta(seconds=5)
"""After an order's time is over: the provider's clock may be behind."""
_MISCONFIGURED: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class OfBill:
    """A bill as it was read, and who asks for it."""

    app: web.Application
    bill_id: bytes
    bill: p.Bill

    def provider_of(self, attempt_id: bytes) -> Provider:
        """Raises TryAgain where it is not set up (any more)."""
        name = self.bill.attempts[attempt_id].provider
        found = self.app[keys.PROVIDERS].get(name)
        if found is None:
            raise TryAgain(f"{name} is not set up here", 600.0)
        return found

    async def tell(self, command: p.Command) -> p.Answer | Refusal:
        """Raises actors.errands.TryAgain."""
        outcome = await tell_bill(self.app, self.bill_id, command)
        if isinstance(outcome, Refusal):
            await alarmed(self.app, self.bill_id, command, outcome)
        return outcome


async def alarmed(app: web.Application, bill_id: bytes, command: p.Command, refusal: Refusal) -> None:
    """A report that the bill refused: nothing was changed. What a provider said is kept for people."""
    log.warning("%s of bill %s: %s", type(command).__name__, bill_id.hex(), refusal.reason)
    if isinstance(command, p.PaymentReported):
        what, order_id = "query", command.attempt_id
    elif isinstance(command, p.RefundReported):
        what, order_id = "refund", command.refund_id
    else:
        return
    alarm = Alarm(command.provider, what, refusal.reason.value, order_id.hex(), bill_id)
    await payment_alarms.note(app[keys.POOL], alarm, datetime.now(UTC))


# Payments.


async def asked_of(app: web.Application, attempt_id: bytes, fen: int) -> Asked | None:
    """What was, and will be, asked of the provider; None: it is not known here."""
    order = await payment_orders.payment_order(app[keys.POOL], attempt_id)
    if order is None:
        return None
    openid = await payment_orders.openid_of(app[keys.POOL], order.payer)
    return Asked(attempt_id, fen, order.description, openid, order.expires_at)


async def ask_prepay(of: OfBill, attempt_id: bytes) -> None:
    """Raises TryAgain."""
    attempt = of.bill.attempts[attempt_id]
    provider = of.provider_of(attempt_id)
    asked = await asked_of(of.app, attempt_id, attempt.fen)
    if asked is None or asked.expires_at <= datetime.now(UTC):
        await query_payment(of, attempt_id)
        return
    metrics = of.app[keys.METRICS]
    try:
        prepay = await provider.prepay(asked)
    except Refused as refused:
        log.warning("%s refused a payment: %s", provider.name, refused.code)
        metrics.payments.labels(provider.name, "prepay_refused").inc()
        await of.tell(p.PrepayRefused(new_id(), attempt_id, refused.code))
    except OutcomeUnknown as unknown:
        log.warning("what became of asking %s for a payment is unknown: %s", provider.name, unknown)
        metrics.payments.labels(provider.name, "prepay_unknown").inc()
        await of.tell(p.PaymentOutcomeLost(new_id(), attempt_id))
    else:
        metrics.payments.labels(provider.name, "prepay").inc()
        await of.tell(p.PrepayAnswered(new_id(), attempt_id, prepay))


async def query_payment(of: OfBill, attempt_id: bytes) -> None:
    """An order that is unpaid and past its time is closed, so that another may be begun. Raises TryAgain."""
    provider = of.provider_of(attempt_id)
    command = await report_of_payment(of.app, provider, of.bill_id, attempt_id)
    if isinstance(command, p.PaymentFound) and command.found != p.Found.CLOSED:
        order = await payment_orders.payment_order(of.app[keys.POOL], attempt_id)
        is_asked = of.bill.attempts[attempt_id].state is p.Paying.ASKED
        if is_asked and order is not None and order.expires_at + GRACE <= datetime.now(UTC):
            await close_payment(of, attempt_id)
            return
    await _told_payment(of, provider, command)


async def _told_payment(of: OfBill, provider: Provider, command: p.PaymentReported | p.PaymentFound) -> None:
    outcome = await of.tell(command)
    if isinstance(command, p.PaymentReported) and isinstance(outcome, p.Answer):
        of.app[keys.METRICS].payments.labels(provider.name, "paid_found").inc()


async def report_of_payment(
    app: web.Application, provider: Provider, bill_id: bytes, attempt_id: bytes, via: p.Via = p.Via.QUERY
) -> p.PaymentReported | p.PaymentFound:
    """What the provider says when it is asked, as a command. Raises TryAgain."""
    try:
        found = await provider.query(attempt_id)
    except Refused as refused:
        raise await _misconfigured(app, provider, "query", refused, bill_id, attempt_id) from refused
    if isinstance(found, Paid):
        return p.PaymentReported(
            new_id(),
            attempt_id,
            provider.name,
            provider.merchant_id,
            found.transaction_id,
            found.fen,
            found.currency,
            via,
            found.paid_at,
        )
    return p.PaymentFound(new_id(), attempt_id, found)


async def close_payment(of: OfBill, attempt_id: bytes) -> None:
    """Raises TryAgain; also while an order that nobody has opened yet could still be opened and paid."""
    provider = of.provider_of(attempt_id)
    try:
        found = await provider.close(attempt_id)
    except Refused:  # somebody was faster
        await _told_payment(of, provider, await report_of_payment(of.app, provider, of.bill_id, attempt_id))
        return
    except OutcomeUnknown:
        await of.tell(p.PaymentOutcomeLost(new_id(), attempt_id))
        return
    if found is p.Found.NONE:
        order = await payment_orders.payment_order(of.app[keys.POOL], attempt_id)
        left = 0.0 if order is None else (order.expires_at - datetime.now(UTC)).total_seconds()
        if left > 0:
            raise TryAgain(f"{provider.name}: there is no such order yet", left + 1.0)
    await of.tell(p.PaymentFound(new_id(), attempt_id, p.Found.CLOSED))


# Refunds.


async def send_refund(of: OfBill, refund_id: bytes) -> None:
    """Raises TryAgain."""
    refund = of.bill.refunds[refund_id]
    provider = of.provider_of(refund.attempt_id)
    metrics = of.app[keys.METRICS]
    received = of.bill.attempts[refund.attempt_id].received
    back = GiveBack(refund_id, refund.attempt_id, refund.fen, received, REFUND_REASON)
    try:
        told = await provider.refund(back)
    except Refused as refused:
        log.warning("%s refused a refund: %s", provider.name, refused.code)
        metrics.payments.labels(provider.name, "refund_refused").inc()
        await of.tell(p.RefundRefused(new_id(), refund_id, refused.code, False))
    except OutcomeUnknown as unknown:
        log.warning("what became of a refund at %s is unknown: %s", provider.name, unknown)
        metrics.payments.labels(provider.name, "refund_unknown").inc()
        await of.tell(p.RefundOutcomeLost(new_id(), refund_id))
    else:
        await of.tell(_of_refund(provider, refund_id, told))
        metrics.payments.labels(provider.name, "refund").inc()


async def query_refund(of: OfBill, refund_id: bytes) -> None:
    """Raises TryAgain."""
    refund = of.bill.refunds[refund_id]
    provider = of.provider_of(refund.attempt_id)
    await of.tell(await report_of_refund(of.app, provider, of.bill_id, refund.attempt_id, refund_id))


async def report_of_refund(
    app: web.Application, provider: Provider, bill_id: bytes, attempt_id: bytes, refund_id: bytes
) -> p.RefundReported | p.RefundRefused | p.RefundFound:
    """What the provider says when it is asked after a refund, as a command. Raises TryAgain."""
    try:
        told = await provider.query_refund(attempt_id, refund_id)
    except Refused as refused:
        raise await _misconfigured(app, provider, "refund", refused, bill_id, refund_id) from refused
    command = _of_refund(provider, refund_id, told)
    return (
        p.RefundFound(new_id(), refund_id, p.Found.OPEN) if isinstance(command, p.RefundAccepted) else command
    )


def _of_refund(
    provider: Provider, refund_id: bytes, told: Told
) -> p.RefundReported | p.RefundRefused | p.RefundFound | p.RefundAccepted:
    match told:
        case GivenBack():
            return p.RefundReported(
                new_id(), refund_id, provider.name, told.reference, told.fen, told.currency
            )
        case NotGivenBack():
            return p.RefundRefused(new_id(), refund_id, told.code, True)
        case p.Found.OPEN:
            return p.RefundAccepted(new_id(), refund_id)
        case _:
            return p.RefundFound(new_id(), refund_id, p.Found.NONE)


async def _misconfigured(
    app: web.Application, provider: Provider, what: str, refused: Refused, bill_id: bytes, order: bytes
) -> ConnectorFailed:
    """A question that was refused: our keys, our clock, or an answer about somebody else's order."""
    log.warning("%s does not answer our questions: %s", provider.name, refused.code)
    await payment_alarms.note(
        app[keys.POOL], Alarm(provider.name, what, refused.code, order.hex(), bill_id), datetime.now(UTC)
    )
    return TryAgain(f"{provider.name}: {refused.code}", _MISCONFIGURED.total_seconds())
