"""Both connectors behind one face: what a bill needs of a provider, whoever it is.

The numbers of orders over there are ids of ours in hex: 32 characters. Every method raises TryAgain, Refused
or OutcomeUnknown (integrations/connector.py) and nothing else; Refused of a question is trouble with our own
settings, for what there is not is an answer (`Found.NONE`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Protocol

from aiohttp import ClientSession

from engine.domain.payment import CURRENCY, Found
from engine.domain.reconciliation import Statement
from integrations.alipay import client as alipay
from integrations.alipay.translate import Order as AlipayOrder
from integrations.alipay.translate import Refund as AlipayRefund
from integrations.alipay.translate import TradeState
from integrations.connector import Refused, TryAgain
from integrations.wechat_pay.client import WeChatPay
from integrations.wechat_pay.signing import PlatformKeys
from integrations.wechat_pay.translate import (
    Order,
    PaymentState,
    RefundOrder,
    RefundState,
)
from integrations.wechat_pay.translate import Refund as WeChatRefund
from web.bills.circuit import Circuit
from web.bills.merchants import Payments
from web.reconciliation.statements import of_alipay, of_wechat_pay

log = logging.getLogger(__name__)

WECHAT_PAY: Final = "wechat_pay"
ALIPAY: Final = "alipay"
RENEW_SECONDS: Final = 12 * 3600.0
RENEW_AGAIN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody is to pay. Asked again it is the same to the letter."""

    attempt_id: bytes
    fen: int
    description: str
    openid: str | None = field(repr=False)
    expires_at: datetime

    @property
    def number(self) -> str:
        return self.attempt_id.hex()


@dataclass(frozen=True, slots=True)
class Paid:
    transaction_id: str
    fen: int
    currency: str
    paid_at: int  # ms


@dataclass(frozen=True, slots=True)
class GiveBack:
    """What is to be given back of a payment."""

    refund_id: bytes
    attempt_id: bytes
    fen: int
    of_fen: int  # the whole payment, as it was received
    reason: str


@dataclass(frozen=True, slots=True)
class GivenBack:
    reference: str
    fen: int
    currency: str


@dataclass(frozen=True, slots=True)
class NotGivenBack:
    """For good, they say: closed, or it did not reach the payer's card."""

    code: str


Refunding = GivenBack | NotGivenBack | Found


class Provider(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def merchant_id(self) -> str: ...

    @property
    def needs_openid(self) -> bool:
        """Whether only an account that WeChat knows can pay."""
        ...

    async def prepay(self, asked: Asked) -> str:
        """What they call it from now on; asked again, the same."""
        ...

    def client(self, asked: Asked, prepay: str) -> dict[str, str]:
        """What the client's pay call takes. Signed with the time: made when asked for."""
        ...

    def pay_page(self, asked: Asked) -> str | None:
        """Where a browser pays, if there is such a place."""
        ...

    async def query(self, attempt_id: bytes) -> Paid | Found: ...

    async def close(self, attempt_id: bytes) -> Found:
        """CLOSED: nobody can pay it any more. NONE: they have none of that number. Refused: ask `query`."""
        ...

    async def refund(self, back: GiveBack) -> Refunding: ...

    async def query_refund(self, attempt_id: bytes, refund_id: bytes) -> Refunding: ...

    async def statement(self, day: date) -> Statement | None:
        """Their bill of a day of Beijing; None: they say that there is none."""
        ...


class WeChatPayProvider:
    name = WECHAT_PAY
    needs_openid = True

    def __init__(
        self, client: WeChatPay, mch_id: str, notify_url: str, pay_page: str, circuit: Circuit
    ) -> None:
        self._client = client
        self._notify_url = notify_url
        self._pay_page = pay_page
        self._circuit = circuit
        self.merchant_id = mch_id

    async def prepay(self, asked: Asked) -> str:
        if asked.openid is None:
            raise Refused("NO_OPENID", "wechat pay: not an account of WeChat's")
        order = Order(
            asked.number, asked.description, asked.fen, asked.openid, asked.expires_at, self._notify_url
        )
        return await self._circuit.through(lambda: self._client.prepay(order))

    def client(self, asked: Asked, prepay: str) -> dict[str, str]:
        return self._client.payment_parameters(prepay)

    def pay_page(self, asked: Asked) -> str | None:
        return f"{self._pay_page}#{asked.number}" if self._pay_page else None

    async def query(self, attempt_id: bytes) -> Paid | Found:
        try:
            found = await self._circuit.through(lambda: self._client.query(attempt_id.hex()))
        except Refused as refused:
            if refused.code == "ORDER_NOT_EXIST":
                return Found.NONE
            raise
        if found.state.is_paid:
            assert found.transaction_id is not None and found.total_fen is not None  # translate sees to it
            paid_at = 0 if found.paid_at is None else round(found.paid_at.timestamp() * 1000)
            return Paid(found.transaction_id, found.total_fen, found.currency or "", paid_at)
        is_closed = found.state in (PaymentState.CLOSED, PaymentState.REVOKED)
        return Found.CLOSED if is_closed else Found.OPEN

    async def close(self, attempt_id: bytes) -> Found:
        try:
            await self._circuit.through(lambda: self._client.close(attempt_id.hex()))
        except Refused as refused:
            if refused.code == "ORDER_NOT_EXIST":
                return Found.NONE
            raise
        return Found.CLOSED

    async def refund(self, back: GiveBack) -> Refunding:
        order = RefundOrder(
            back.refund_id.hex(), back.attempt_id.hex(), back.fen, back.of_fen, back.reason, self._notify_url
        )
        return refunding_of(await self._circuit.through(lambda: self._client.refund(order)))

    async def query_refund(self, attempt_id: bytes, refund_id: bytes) -> Refunding:
        try:
            found = await self._circuit.through(lambda: self._client.query_refund(refund_id.hex()))
        except Refused as refused:
            if refused.code == "RESOURCE_NOT_EXISTS":
                return Found.NONE
            raise
        return refunding_of(found)

    async def statement(self, day: date) -> Statement | None:
        try:
            return of_wechat_pay(await self._client.bill(day))
        except Refused as refused:
            if refused.code == "NO_STATEMENT_EXIST":
                return None
            raise


def refunding_of(found: WeChatRefund) -> Refunding:
    """Of an answer, and of a callback, which does not say the currency."""
    match found.state:
        case RefundState.SUCCESS:
            return GivenBack(found.refund_id, found.refund_fen, found.currency or CURRENCY)
        case RefundState.PROCESSING:
            return Found.OPEN
        case RefundState.CLOSED | RefundState.ABNORMAL:
            return NotGivenBack(found.state.value)


class AlipayProvider:
    """Their page in a browser (H5). Nothing is asked until the payer opens it."""

    name = ALIPAY
    needs_openid = False

    def __init__(
        self, client: alipay.AlipayClient, seller_id: str, return_url: str, circuit: Circuit
    ) -> None:
        self._client = client
        self._return_url = return_url
        self._circuit = circuit
        self.merchant_id = seller_id

    async def prepay(self, asked: Asked) -> str:
        return "page"

    def client(self, asked: Asked, prepay: str) -> dict[str, str]:
        return {"pay_page": self._page(asked)}

    def pay_page(self, asked: Asked) -> str | None:
        return self._page(asked)

    def _page(self, asked: Asked) -> str:
        expires_at = round(asked.expires_at.timestamp() * 1000)
        order = AlipayOrder(asked.number, asked.fen, asked.description, expires_at)
        return self._client.pay_page(order, self._return_url, self._return_url)

    async def query(self, attempt_id: bytes) -> Paid | Found:
        found = await self._circuit.through(lambda: self._client.query(attempt_id.hex()))
        if found is None:
            return Found.NONE
        if found.was_paid:
            return Paid(found.trade_no, found.amount_fen, CURRENCY, found.paid_at or 0)
        return Found.OPEN if found.state is TradeState.WAITING else Found.CLOSED

    async def close(self, attempt_id: bytes) -> Found:
        try:
            await self._circuit.through(lambda: self._client.close(attempt_id.hex()))
        except Refused as refused:
            if refused.code == "not_exist":
                return Found.NONE
            raise
        return Found.CLOSED

    async def refund(self, back: GiveBack) -> Refunding:
        asked = AlipayRefund(back.attempt_id.hex(), back.refund_id.hex(), back.fen, back.reason)
        done = await self._circuit.through(lambda: self._client.refund(asked))
        return GivenBack(done.out_request_no, done.amount_fen, CURRENCY)

    async def query_refund(self, attempt_id: bytes, refund_id: bytes) -> Refunding:
        done = await self._circuit.through(lambda: self._client.refund_of(attempt_id.hex(), refund_id.hex()))
        return Found.NONE if done is None else GivenBack(done.out_request_no, done.amount_fen, CURRENCY)

    async def statement(self, day: date) -> Statement | None:
        found = await self._client.bill(day)
        return None if found is None else of_alipay(found)


class Providers:
    """Of one gateway, by name."""

    def __init__(self, found: dict[str, Provider] | None = None) -> None:
        self._found = found or {}

    def get(self, name: str) -> Provider | None:
        return self._found.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._found)

    def __iter__(self) -> Iterator[Provider]:
        return iter(self._found.values())


@dataclass(frozen=True, slots=True)
class Wired:
    """What is made of the settings in one gateway."""

    providers: Providers
    payments: Payments
    wechat_client: WeChatPay | None
    wechat_keys: PlatformKeys | None

    news: asyncio.Event

    def key_unknown(self) -> None:
        """A callback was signed with a key that is not known: theirs may be new."""
        self.news.set()

    async def renew(self) -> None:
        """Certificate mode: their certificates at the start, twice a day, and when one is unknown."""
        if self.wechat_client is None or self.wechat_keys is None:
            return
        while self.wechat_keys.asked_for is None:
            pause = RENEW_SECONDS
            try:
                await self.wechat_client.renew_certificates()
            except (TryAgain, Refused) as failed:
                log.warning("the certificates of WeChat Pay could not be renewed yet: %s", failed)
                pause = RENEW_AGAIN_SECONDS
            await asyncio.sleep(
                RENEW_AGAIN_SECONDS
            )  # whoever forges callbacks does not make us ask more often
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), pause)


def wired(session: ClientSession, payments: Payments) -> Wired:
    found: dict[str, Provider] = {}
    client, keys = None, None
    if payments.wechat_pay is not None:
        merchant = payments.wechat_pay.there()
        keys = payments.wechat_pay.platform_keys()
        client = WeChatPay(session, payments.wechat_pay.address, merchant, keys)
        found[WECHAT_PAY] = WeChatPayProvider(
            client,
            merchant.mch_id,
            payments.notify_url(WECHAT_PAY),
            payments.pay_page,
            Circuit(WECHAT_PAY),
        )
    if payments.alipay is not None:
        there = payments.alipay.there(payments.notify_url(ALIPAY))
        found[ALIPAY] = AlipayProvider(
            alipay.AlipayClient(session, there), there.seller_id, payments.address, Circuit(ALIPAY)
        )
    return Wired(Providers(found), payments, client, keys, asyncio.Event())
