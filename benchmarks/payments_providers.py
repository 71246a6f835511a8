"""Both payment providers' sandboxes within the bench, so that it owns the truth: what was paid, when, and
what went back. And what strangers send in their names.

Reconciliation compares a day that is over, so here everybody pays, and is given back, a day before: money and
bills are dated yesterday, while signatures, orders and callbacks have today's clock. When there was a payment
is written down beside it (`paid`).
"""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from engine.embedded_postgres import free_port
from integrations.alipay import sandbox as alipay_sandbox
from integrations.alipay import signing as alipay_signing
from integrations.alipay.client import REFUND
from integrations.alipay.translate import TradeState, time_text, yuan_of
from integrations.wechat_pay import sandbox as wechat_sandbox
from integrations.wechat_pay.sandbox_keys import Keys
from integrations.wechat_pay.translate import CURRENCY

WECHAT_PAY: Final = "wechat_pay"
ALIPAY: Final = "alipay"
APP_ID: Final = "2021000000000001"
SELLER_ID: Final = "2088000000000001"
BACK: Final = timedelta(days=1)
DELIVER_SECONDS: Final = 0.05
AT_ONCE: Final = 16
"""Callbacks under way to the hospital; of many copies some come at the same moment."""
STRAGGLERS: Final = 0.3  # of the copies
STRAGGLE_SECONDS: Final = 3.0
ANSWER_SECONDS_MAX: Final = 5.0
FORGERIES: Final = ("signature", "merchant", "amount")
LOST_ANSWERS: Final = (
    # prepay: of Alipay it is a page that the payer opens, and no request.
    *((WECHAT_PAY, "prepay", word) for word in ("applied_then_cut", "applied_system_error")),
    *((WECHAT_PAY, "refund", word) for word in ("applied_then_cut", "applied_system_error")),
    *((ALIPAY, "refund", word) for word in ("done_lost", "done_busy")),
)


def straggle(rng: random.Random) -> float:
    return rng.uniform(0.0, STRAGGLE_SECONDS) if rng.random() < STRAGGLERS else 0.0


class WeChatPay(wechat_sandbox.Sandbox):
    """Counts money on yesterday, and delivers as many callbacks at once as a provider does."""

    rng = random.Random()
    refund_told_lost = 0.0
    delays: list[float] = []  # noqa: RUF012  (of the one provider of this process)
    _is_today = False

    def _now(self) -> datetime:
        return super()._now() - (timedelta(0) if self._is_today else BACK)

    async def _bill(self, request: web.Request, asked: Any) -> web.Response:
        self._is_today = True  # yesterday is over
        try:
            return await super()._bill(request, asked)
        finally:
            self._is_today = False

    def _call(self, url: str, event: str, kind: str, content: dict[str, Any]) -> None:
        if kind == "refund" and self.rng.random() < self.refund_told_lost:
            self.callbacks.lost += 1
        before = len(self.waiting)
        super()._call(url, event, kind, content)
        for callback in self.waiting[before:]:
            callback.due += straggle(self.rng)

    async def deliver(self) -> int:
        self._settle()
        now = self.clock()
        due = [callback for callback in self.waiting if callback.due <= now]
        self.waiting = [callback for callback in self.waiting if callback.due > now]
        self.rng.shuffle(due)
        room = asyncio.Semaphore(AT_ONCE)
        limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)

        async def send(session: aiohttp.ClientSession, callback: Any) -> None:
            async with room:
                began = time.monotonic()
                await self._send(session, callback)
                self.delays.append(time.monotonic() - began)

        if due:
            async with aiohttp.ClientSession(timeout=limit) as session:
                await asyncio.gather(*(send(session, callback) for callback in due))
        return len(due)


class Alipay(alipay_sandbox.Sandbox):
    """Counts money on yesterday."""

    _is_counting = False

    def _ms(self) -> int:
        return super()._ms() - (int(BACK.total_seconds() * 1000) if self._is_counting else 0)

    def pay(self, out_trade_no: str, trouble: alipay_sandbox.Trouble | None = None) -> bool:
        if self._trade({"out_trade_no": out_trade_no}) is None:  # closes it, if its time is over
            return False
        self._is_counting = True
        try:
            return super().pay(out_trade_no, trouble)
        finally:
            self._is_counting = False

    def _refund(self, content: Any, parameters: Any) -> Any:
        self._is_counting = True
        try:
            return super()._refund(content, parameters)
        finally:
            self._is_counting = False

    async def deliver(self, session: aiohttp.ClientSession, shuffled: random.Random | None = None) -> int:
        """Some at once; each goes through the sandbox's own delivery."""
        now = self._clock()
        due = [notice for notice in self.due if notice.at <= now]
        self.due = [notice for notice in self.due if notice.at > now]
        (shuffled or random).shuffle(due)
        for at in range(0, len(due), AT_ONCE):
            some = due[at : at + AT_ONCE]
            taken = await asyncio.gather(*(self._sent(session, notice) for notice in some))
            for notice, is_taken in zip(some, taken, strict=True):
                if not is_taken and notice.tries < len(alipay_sandbox.AGAIN_SECONDS):
                    notice.at = self._clock() + alipay_sandbox.AGAIN_SECONDS[notice.tries]
                    notice.tries += 1
                    self.due.append(notice)
        return len(due)


@dataclass(frozen=True, slots=True)
class Paid:
    """Money that a person gave. The truth."""

    provider: str
    order: str
    fen: int
    transaction: str  # the provider's own number
    at: float  # time.time()


@dataclass(slots=True)
class Sandboxes:
    wechat: WeChatPay
    alipay: Alipay
    settings: dict[str, object]
    rng: random.Random
    lost_share: float
    paid: dict[str, Paid] = field(default_factory=dict)  # by order
    told: dict[str, int] = field(default_factory=dict)  # callbacks by order, as they are meant to go out
    lost_answers: int = 0
    forged: list[tuple[str, str, int]] = field(default_factory=list)  # provider, how, status; 0: no answer
    _forger: RSAPrivateKey = field(default_factory=lambda: generate_private_key(65537, 2048))

    def can_be_paid(self, provider: str, order: str) -> bool:
        if provider == WECHAT_PAY:
            found = self.wechat.orders.get(order)
            return found is not None and found.state in ("NOTPAY", "USERPAYING")
        trade = self.alipay.trades.get(order)
        return trade is not None and trade.state is TradeState.WAITING

    def paying(self, provider: str, order: str) -> bool:
        """He types his password, and takes his time: nobody can close the order meanwhile."""
        if not self.can_be_paid(provider, order):
            return False
        if provider == WECHAT_PAY:
            if self.wechat.orders[order].state == "NOTPAY":
                self.wechat.paying(order)
            return True
        return self.alipay.paying(order)

    def pay(self, provider: str, order: str) -> bool:
        """False: the order is not there (any more)."""
        if not self.can_be_paid(provider, order):
            return False
        copies = self.rng.choices((1, 2, 3, 4, 5), (60, 15, 10, 8, 7))[0]
        if self.rng.random() < self.lost_share:
            copies = 0
        at = time.time()
        if provider == WECHAT_PAY:
            self.wechat.callbacks.copies = max(copies, 1)
            self.wechat.callbacks.lost = 0 if copies else 1
            self.wechat.pay(order)
            self.wechat.callbacks.copies, self.wechat.callbacks.lost = 1, 0
            fen, transaction = self.wechat.orders[order].total, self.wechat.orders[order].transaction_id
        else:
            before = len(self.alipay.due)
            if not self.alipay.pay(order, alipay_sandbox.Trouble(copies=copies)):
                return False
            for notice in self.alipay.due[before:]:
                notice.at += straggle(self.rng)
            fen, transaction = self.alipay.trades[order].amount_fen, self.alipay.trades[order].trade_no
        self.paid[order] = Paid(provider, order, fen, transaction, at)
        self.told[order] = copies
        return True

    def lose_an_answer(self) -> None:
        """Of the next such request: what was asked for is done, and nobody hears so."""
        provider, operation, word = self.rng.choice(LOST_ANSWERS)
        if provider == WECHAT_PAY:
            self.wechat.fail(operation, wechat_sandbox.Fault(word))
        else:
            self.alipay.fail(word, method=REFUND)
        self.lost_answers += 1

    @property
    def waits(self) -> bool:
        """Callbacks are on their way, or will come again soon."""
        soon = time.time() + STRAGGLE_SECONDS
        return any(one.due < soon for one in self.wechat.waiting) or any(
            one.at < soon for one in self.alipay.due
        )

    @property
    def kept(self) -> dict[str, int]:
        """By provider: fen that came and did not go back."""
        wechat = sum(order.total - order.refunded for order in self.wechat.orders.values())
        return {WECHAT_PAY: wechat, ALIPAY: self.alipay.account}

    def kept_of(self, order: str) -> int:
        if order in self.wechat.orders:
            found = self.wechat.orders[order]
            return found.total - found.refunded
        trade = self.alipay.trades.get(order)
        return 0 if trade is None or trade.paid_at is None else trade.amount_fen - trade.refunded_fen

    # What strangers send.

    async def forge(self, session: aiohttp.ClientSession, provider: str, order: str, address: str) -> None:
        """One callback about this order, which nobody who is asked would confirm."""
        how = self.rng.choice(FORGERIES)
        if provider == WECHAT_PAY:
            headers, body = self._forged_wechat(order, how)
        else:
            headers, body = {"Content-Type": "application/x-www-form-urlencoded"}, self._notice(order, how)
        status = 0
        try:
            async with session.post(
                f"{address}/api/v1/callbacks/{provider}", data=body, headers=headers
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # the hospital is away just now: the forger has bad luck
        self.forged.append((provider, how, status))

    def _forged_wechat(self, order: str, how: str) -> tuple[dict[str, str], bytes]:
        asked = self.wechat.orders[order].asked
        total = 1 if how == "amount" else asked["amount"]["total"]
        content = {
            "appid": asked["appid"],
            "mchid": "1900009999" if how == "merchant" else asked["mchid"],
            "out_trade_no": order,
            "transaction_id": f"4200{secrets.randbelow(10**24):024}",
            "trade_type": "JSAPI",
            "trade_state": "SUCCESS",
            "trade_state_desc": "SUCCESS",
            "bank_type": "OTHERS",
            "attach": "",
            "success_time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "payer": asked["payer"],
            "amount": {
                "total": total,
                "payer_total": total,
                "currency": CURRENCY,
                "payer_currency": CURRENCY,
            },
        }
        callback = wechat_sandbox._Callback(
            "", "TRANSACTION.SUCCESS", "transaction", content, secrets.token_hex(16), 0.0
        )
        callback.by = "forger" if how == "signature" else "theirs"
        return self.wechat.message(callback)

    def _notice(self, order: str, how: str) -> bytes:
        trade = self.alipay.trades[order]
        now = int(time.time() * 1000)
        amount = yuan_of(1 if how == "amount" else trade.amount_fen)
        told = {
            "notify_id": secrets.token_hex(17),
            "notify_time": time_text(now),
            "notify_type": "trade_status_sync",
            "app_id": APP_ID,
            "auth_app_id": APP_ID,
            "seller_id": "2088999999999999" if how == "merchant" else SELLER_ID,
            "charset": "utf-8",
            "version": "1.0",
            "sign_type": alipay_signing.SIGN_TYPE,
            "out_trade_no": order,
            "trade_no": trade.trade_no,
            "trade_status": "TRADE_SUCCESS",
            "total_amount": amount,
            "receipt_amount": amount,
            "gmt_payment": time_text(now),
            "subject": trade.subject,
        }
        key = self._forger if how == "signature" else self.alipay._key
        sign = alipay_signing.sign(key, alipay_signing.of_notice(told))
        return urlencode({**told, "sign": sign}).encode()


@asynccontextmanager
async def sandboxes(
    folder: Path, address: str, rng: random.Random, lost_share: float, refund_told_lost: float
) -> AsyncIterator[Sandboxes]:
    """Both on ports of their own; `settings` are those of a system that lives at `address`."""
    keys = await asyncio.to_thread(Keys.made, time.time())
    theirs = await asyncio.to_thread(generate_private_key, 65537, 2048)
    ours = await asyncio.to_thread(generate_private_key, 65537, 2048)
    wechat = WeChatPay(keys, time.time)
    wechat.callbacks.by_public_key = True
    wechat.rng, wechat.refund_told_lost, wechat.delays = rng, refund_told_lost, []
    alipay = Alipay(APP_ID, SELLER_ID, theirs, ours.public_key())
    wechat_port, alipay_port = free_port(), free_port()
    secret = {"wechat.key": keys.merchant_pem(), "alipay.key": _pem(ours)}
    public = {"wechat.pub": keys.public_pem(), "alipay.pub": _public_pem(theirs)}
    for name, content in (secret | public).items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    settings: dict[str, object] = {
        "public_address": address,
        "wechat_app_id": keys.app_id,
        "wechat_pay_address": f"http://127.0.0.1:{wechat_port}",
        "wechat_pay_mch_id": keys.mch_id,
        "wechat_pay_serial": keys.merchant_serial,
        "wechat_pay_key_file": folder / "wechat.key",
        "wechat_pay_api_v3_key": keys.api_v3_key.decode(),
        "wechat_pay_public_key_id": keys.public_id,
        "wechat_pay_public_key_file": folder / "wechat.pub",
        "alipay_address": f"http://127.0.0.1:{alipay_port}/gateway.do",
        "alipay_app_id": APP_ID,
        "alipay_seller_id": SELLER_ID,
        "alipay_key_file": folder / "alipay.key",
        "alipay_public_key_file": folder / "alipay.pub",
    }
    runners = []
    for app, port in ((wechat.app(), wechat_port), (alipay.app(), alipay_port)):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        runners.append(runner)
    limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    async with aiohttp.ClientSession(timeout=limit) as session:
        calls = [
            asyncio.create_task(_calling(wechat)),
            asyncio.create_task(_noticing(alipay, session, rng)),
        ]
        try:
            yield Sandboxes(wechat, alipay, settings, rng, lost_share)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            for runner in runners:
                await runner.cleanup()


async def _calling(wechat: WeChatPay) -> None:
    while True:
        await wechat.deliver()
        await asyncio.sleep(DELIVER_SECONDS)


async def _noticing(alipay: Alipay, session: aiohttp.ClientSession, rng: random.Random) -> None:
    while True:
        await alipay.deliver(session, rng)
        await asyncio.sleep(DELIVER_SECONDS)


def _pem(key: RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_pem(key: RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def as_json(content: object) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)
