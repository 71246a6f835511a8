"""What providers tell us by themselves: paid, given back. Signed by them; nobody signs in.

Answered with 2xx when it is committed, and not before: what was answered so never comes again. What cannot
be believed, or does not fit the bill, changes nothing: it is refused with 4xx, kept as an alarm, counted and
logged. Where nobody could look in time it is 5xx, and comes again.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import asyncpg
from aiohttp import web

from actors.errands import TryAgain
from engine.domain import payment as p
from engine.domain.refusal import Reason, Refusal
from engine.records import bills, callbacks_seen, payment_alarms
from engine.records.payment_alarms import Alarm
from integrations.alipay import callbacks as of_alipay
from integrations.alipay.merchant import Merchant as AlipayMerchant
from integrations.connector import Refused
from integrations.wechat_pay import callbacks as of_wechat_pay
from integrations.wechat_pay.translate import Refund, Transaction
from web import keys
from web.bills.asking import bill_now, tell_bill
from web.bills.providers import ALIPAY, WECHAT_PAY, GivenBack, NotGivenBack, Wired, refunding_of
from web.bills.telling import tell_of
from web.errors import Problem
from web.faults import Fault
from web.fresh_ids import new_id
from web.openapi import api

log = logging.getLogger(__name__)

ANSWER_SECONDS_MAX: Final = 0.9
"""They wait for five, and count whoever takes more than one as slow."""
_OURS: Final = re.compile(r"[0-9a-f]{32}")
_NOT_THEIRS: Final = frozenset(
    (
        "headers_missing",
        "wrong_time",
        "unknown_key",
        "key_expired",
        "wrong_signature",
        "unsigned",
        "signature",
    )
)
_ASK_AFTER: Final = (Reason.AMOUNT_MISMATCH, Reason.PAYMENT_CONTRADICTS)
"""A callback is not believed when it says something odd; the provider itself, asked by us, is."""


@dataclass(slots=True)
class Seen:
    """Which were read already, in PostgreSQL, for all gateways: what both connectors ask for."""

    pool: asyncpg.Pool
    provider: str

    async def is_first(self, key: str, seconds: int) -> bool:
        return await callbacks_seen.is_first(self.pool, self.provider, key, datetime.now(UTC), seconds)

    async def forget(self, key: str) -> None:
        await callbacks_seen.forget(self.pool, self.provider, key)

    async def has(self, notice_id: str) -> bool:
        return await callbacks_seen.has(self.pool, self.provider, notice_id, datetime.now(UTC))

    async def add(self, notice_id: str) -> None:
        await callbacks_seen.is_first(
            self.pool, self.provider, notice_id, datetime.now(UTC), of_alipay.KEPT_SECONDS
        )


def _nothing() -> None:
    """Public-key mode: there is nothing to fetch."""


@dataclass(slots=True)
class Callbacks:
    """Of one gateway: who is listened to."""

    wechat_pay: of_wechat_pay.Callbacks | None = None
    alipay: AlipayMerchant | None = None
    alipay_seen: Seen | None = None
    key_unknown: Callable[[], None] = _nothing


def callbacks_of(wired: Wired, pool: asyncpg.Pool) -> Callbacks:
    payments = wired.payments
    found = Callbacks(key_unknown=wired.key_unknown)
    if payments.wechat_pay is not None and wired.wechat_keys is not None:
        found.wechat_pay = of_wechat_pay.Callbacks(
            payments.wechat_pay.there(), wired.wechat_keys, Seen(pool, WECHAT_PAY), time.time
        )
    if payments.alipay is not None:
        found.alipay = payments.alipay.there(payments.notify_url(ALIPAY))
        found.alipay_seen = Seen(pool, ALIPAY)
    return found


class NotTaken(Exception):
    """Believed, or not; nothing was changed. `why` is for the alarm."""

    def __init__(self, why: str, order_id: str = "", bill_id: bytes | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.order_id = order_id
        self.bill_id = bill_id


@api.route(
    "POST",
    "/api/v1/callbacks/wechat_pay",
    zh="微信支付通知",
    status=204,
    tags=["callbacks"],
    errors=[
        Fault.UNSUPPORTED_PROVIDER,
        Fault.CALLBACK_UNSIGNED,
        Fault.CALLBACK_REFUSED,
        Fault.CALLBACK_LATER,
        Fault.DATABASE_DOWN,
    ],
)
async def hear_wechat_pay(request: web.Request) -> web.Response:
    """WeChat Pay's own: signed over the raw body. Answered when what it says is committed."""
    app = request.app
    listening = app[keys.CALLBACKS].wechat_pay
    if listening is None:
        raise Problem(Fault.UNSUPPORTED_PROVIDER)
    body = await request.read()
    try:
        notice = await listening.read(request.headers, body)
    except Refused as refused:
        raise await _refused(app, WECHAT_PAY, NotTaken(refused.code)) from None
    try:
        if isinstance(notice.about, Transaction):
            await _paid(app, notice.about)
        else:
            await _refund_told(app, notice.about)
    except NotTaken as not_taken:
        raise await _refused(app, WECHAT_PAY, not_taken) from None
    except BaseException:
        await listening.forget(notice)  # the very same message may come again
        raise
    app[keys.METRICS].callbacks.labels(WECHAT_PAY, "taken").inc()
    return web.Response(status=204)


async def _paid(app: web.Application, about: Transaction) -> None:
    provider = app[keys.PROVIDERS].get(WECHAT_PAY)
    assert provider is not None and about.total_fen is not None  # translate sees to it
    await _report(
        app,
        about.out_trade_no,
        p.PaymentReported(
            new_id(),
            b"",
            WECHAT_PAY,
            provider.merchant_id,
            about.transaction_id or "",
            about.total_fen,
            about.currency or "",
            p.Via.CALLBACK,
            0 if about.paid_at is None else round(about.paid_at.timestamp() * 1000),
        ),
    )


async def _report(app: web.Application, number: str, said: p.PaymentReported) -> None:
    """Raises NotTaken; Problem where it could not be committed in time."""
    payment = await bills.payment_by_id(app[keys.POOL], bytes.fromhex(_ours(number)))
    if payment is None:
        raise NotTaken("unknown_order", _ours(number))
    command = p.PaymentReported(
        said.command_id,
        payment.id,
        said.provider,
        said.merchant_id,
        said.transaction_id,
        said.fen,
        said.currency,
        said.via,
        said.paid_at,
    )
    refusal = await _tell(app, payment.bill_id, command)
    if refusal is not None:
        if refusal.reason in _ASK_AFTER:
            await _ask_after(app, payment.id)
        raise NotTaken(refusal.reason.value, number, payment.bill_id)


async def _refund_told(app: web.Application, about: Refund) -> None:
    number = about.out_refund_no
    refund = await bills.refund_by_id(app[keys.POOL], bytes.fromhex(_ours(number)))
    if refund is None:
        raise NotTaken("unknown_refund", _ours(number))
    told = refunding_of(about)
    command: p.Command
    if isinstance(told, GivenBack):
        command = p.RefundReported(new_id(), refund.id, WECHAT_PAY, told.reference, told.fen, told.currency)
    elif isinstance(told, NotGivenBack):
        command = p.RefundRefused(new_id(), refund.id, told.code, True)
    else:
        raise NotTaken("refund_state", number, refund.bill_id)
    refusal = await _tell(app, refund.bill_id, command)
    if refusal is not None:
        raise NotTaken(refusal.reason.value, number, refund.bill_id)
    await tell_of(app, refund.bill_id, await bill_now(app, refund.bill_id))


@api.route(
    "POST",
    "/api/v1/callbacks/alipay",
    zh="支付宝通知",
    tags=["callbacks"],
    errors=[
        Fault.UNSUPPORTED_PROVIDER,
        Fault.CALLBACK_UNSIGNED,
        Fault.CALLBACK_REFUSED,
        Fault.CALLBACK_LATER,
        Fault.DATABASE_DOWN,
    ],
)
async def hear_alipay(request: web.Request) -> web.Response:
    """Alipay's own: a signed form. Answered `success` when what it says is committed."""
    app = request.app
    listening = app[keys.CALLBACKS]
    if listening.alipay is None or listening.alipay_seen is None:
        raise Problem(Fault.UNSUPPORTED_PROVIDER)
    raw = await request.read()

    async def amount_of(number: str) -> int | None:
        if not _OURS.fullmatch(number):
            return None
        payment = await bills.payment_by_id(app[keys.POOL], bytes.fromhex(number))
        return None if payment is None else payment.fen

    async def deal(notice: of_alipay.Notice) -> None:
        if notice.was_paid:  # else somebody has only opened the page
            await _alipay_paid(app, notice)

    try:
        answer = await of_alipay.receive(
            raw, listening.alipay, listening.alipay_seen, amount_of, deal, time.time
        )
    except NotTaken as not_taken:
        raise await _refused(app, ALIPAY, not_taken) from None
    if answer.refused is not None:
        number = "" if answer.notice is None else answer.notice.out_trade_no
        if answer.refused == "amount" and _OURS.fullmatch(number):
            await _ask_after(app, bytes.fromhex(number))
        raise await _refused(app, ALIPAY, NotTaken(answer.refused, number if _OURS.fullmatch(number) else ""))
    app[keys.METRICS].callbacks.labels(ALIPAY, "repeated" if answer.is_repeated else "taken").inc()
    return web.Response(text=answer.text, status=answer.status)


async def _alipay_paid(app: web.Application, notice: of_alipay.Notice) -> None:
    provider = app[keys.PROVIDERS].get(ALIPAY)
    assert provider is not None
    await _report(
        app,
        notice.out_trade_no,
        p.PaymentReported(
            new_id(),
            b"",
            ALIPAY,
            provider.merchant_id,
            notice.trade_no,
            notice.amount_fen,
            p.CURRENCY,
            p.Via.CALLBACK,
            notice.paid_at or 0,
        ),
    )


# What both have in common.


def _ours(number: str) -> str:
    """Raises NotTaken where it is not spelled like an order of ours."""
    if _OURS.fullmatch(number) is None:
        raise NotTaken("unknown_order")
    return number


async def _tell(app: web.Application, bill_id: bytes, command: p.Command) -> Refusal | None:
    """None: it is committed. Raises Problem callback_later."""
    try:
        outcome = await tell_bill(app, bill_id, command, ANSWER_SECONDS_MAX)
    except TryAgain:
        raise Problem(Fault.CALLBACK_LATER) from None
    return outcome if isinstance(outcome, Refusal) else None


async def _ask_after(app: web.Application, attempt_id: bytes) -> None:
    """The provider is asked by us what there really is: web/bills/work.py."""
    await app[keys.POOL].execute(
        "insert into errand (kind, key, data) values ('bill_query', $1, '{}')"
        " on conflict (kind, key) do update set due_at = now(), tries = 0",
        attempt_id.hex(),
    )
    await app[keys.POOL].execute("select pg_notify('errand', '')")


async def _refused(app: web.Application, provider: str, why: NotTaken) -> Problem:
    log.warning("a callback of %s was refused: %s %s", provider, why.why, why.order_id)
    app[keys.METRICS].callbacks.labels(provider, why.why).inc()
    alarm = Alarm(provider, "callback", why.why, why.order_id, why.bill_id)
    await payment_alarms.note(app[keys.POOL], alarm, datetime.now(UTC))
    if why.why == "unknown_key":
        app[keys.CALLBACKS].key_unknown()  # theirs may be new
    return Problem(Fault.CALLBACK_UNSIGNED if why.why in _NOT_THEIRS else Fault.CALLBACK_REFUSED)
