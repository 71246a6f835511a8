"""A small server that speaks WeChat Pay v3, with real keys, for demo and tests. It can be told to fail.

    sandbox = Sandbox(Keys.made(clock()), clock)
    sandbox.fail("refund", Fault.APPLIED_THEN_CUT)      # the next refund is done, and the line breaks
    sandbox.pay(out_trade_no)                           # somebody paid; with total_fen=1, another amount
    sandbox.callbacks.copies = 3                        # each callback is sent three times from now on
    await sandbox.deliver()                             # sends what is due by `clock`

`app()` serves it. With `sends_callbacks` it delivers by itself as time goes by; else tests call `deliver`.
Over HTTP, for a page where anybody may pay (nothing of it is WeChat's, and nothing is signed):

    GET  /sandbox/orders                      what there is to pay
    POST /sandbox/orders/{out_trade_no}/pay   {"parameters": {…}, "total_fen": 1}, or {}
                                              parameters of wx.requestPayment are checked where they are given
    POST /sandbox/fail                        {"operation": "refund", "faults": ["cut"]}
    POST /sandbox/callbacks                   {"copies": 3, "lost": 1, "held": true, …}: see HowCallbacksGo

Operations: prepay, query, close, refund, query_refund, bill, download, certificates.
"""

import asyncio
import contextlib
import gzip
import hashlib
import random
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from integrations.wechat_pay import signing
from integrations.wechat_pay.sandbox_bill import Line, written
from integrations.wechat_pay.sandbox_keys import Keys
from integrations.wechat_pay.translate import BEIJING, CURRENCY

RETRY_SECONDS: Final = (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600)
"""After each callback that was not answered with 2xx."""
CALLBACK_SECONDS_MAX: Final = 5.0
NONCES_MAX: Final = 100_000
_UNPAID: Final = ("NOTPAY", "USERPAYING")

Answer = web.Response
Handler = Callable[[web.Request, Any], Awaitable[Answer]]


class Fault(StrEnum):
    TIMEOUT = "timeout"  # nothing is done, and nothing comes back
    APPLIED_THEN_TIMEOUT = "applied_then_timeout"
    CUT = "cut"  # nothing is done, and the line breaks
    APPLIED_THEN_CUT = "applied_then_cut"
    SYSTEM_ERROR = "system_error"  # 500, nothing is done
    APPLIED_SYSTEM_ERROR = "applied_system_error"  # 500, and it is done
    FREQUENCY_LIMIT = "frequency_limit"  # 429
    NOT_ENOUGH = "not_enough"  # 403: no money to give back
    UNSIGNED = "unsigned"  # it is done; the answer bears no signature
    FORGED = "forged"  # it is done; the answer is signed with another key
    OLD = "old"  # it is done; the answer's time is an hour ago
    CHANGED = "changed"  # it is done; the answer was changed after it was signed


@dataclass(slots=True)
class HowCallbacksGo:
    """From now on."""

    copies: int = 1  # so many of each
    lost: int = 0  # so many of the next ones are never sent; they are not repeated either
    held: bool = False  # none goes out until this is False again: late ones
    shuffled: random.Random | None = None  # the order in which due ones go out
    forged: int = 0  # so many more go out with each, signed with another key, and say that less was paid
    probes: int = 0  # so many more go out with each, with a signature that is no signature
    by_public_key: bool = False  # else by the certificate's


@dataclass(slots=True)
class _Order:
    asked: dict[str, Any]
    prepay_id: str
    state: str = "NOTPAY"
    transaction_id: str = ""
    paid_at: str = ""
    total: int = 0
    refunded: int = 0


@dataclass(slots=True)
class _Refund:
    asked: dict[str, Any]
    order: _Order
    refund_id: str
    made_at: str
    due: float
    state: str = "PROCESSING"
    done_at: str = ""


@dataclass(slots=True)
class _Callback:
    url: str
    event: str
    kind: str
    content: dict[str, Any]
    id: str
    due: float
    tries: int = 0
    by: str = "theirs"  # theirs, forger, probe


@dataclass(frozen=True, slots=True)
class _Entry:
    at: datetime
    order: _Order
    refund: _Refund | None


@dataclass(slots=True)
class Sandbox:
    """Orders, refunds and the ledger are plain: tests look at them."""

    keys: Keys
    clock: Callable[[], float]
    sends_callbacks: bool = False
    refund_seconds: float = 0.0  # until a refund is done
    refund_ends: str = "SUCCESS"  # or ABNORMAL, CLOSED
    callbacks: HowCallbacksGo = field(default_factory=HowCallbacksGo)
    bill_encoding: str = "utf-8"
    bill_is_changed: bool = False  # on the way, after it was hashed
    orders: dict[str, _Order] = field(default_factory=dict)
    refunds: dict[str, _Refund] = field(default_factory=dict)
    ledger: list[_Entry] = field(default_factory=list)
    waiting: list[_Callback] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)  # of those who were called: event, status
    asked: list[str] = field(default_factory=list)  # operations, in their order
    told: asyncio.Event = field(default_factory=asyncio.Event)  # whether anybody was called by now
    _open: list[_Refund] = field(default_factory=list)  # refunds that are not done yet
    _faults: dict[str, deque[Fault]] = field(default_factory=dict)
    _nonces: dict[str, None] = field(default_factory=dict)
    _bills: dict[str, bytes] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        app = web.Application()
        add = app.router.add_route
        for method, path, operation, handler in (
            ("POST", "/v3/pay/transactions/jsapi", "prepay", self._prepay),
            ("GET", "/v3/pay/transactions/out-trade-no/{no}", "query", self._query),
            ("GET", "/v3/pay/transactions/id/{id}", "query", self._query),
            ("POST", "/v3/pay/transactions/out-trade-no/{no}/close", "close", self._close),
            ("POST", "/v3/refund/domestic/refunds", "refund", self._refund),
            ("GET", "/v3/refund/domestic/refunds/{no}", "query_refund", self._query_refund),
            ("GET", "/v3/bill/tradebill", "bill", self._bill),
            ("GET", "/v3/billdownload/file", "download", self._download),
            ("GET", "/v3/certificates", "certificates", self._certificates),
        ):
            add(method, path, self._guarded(operation, handler))
        add("GET", "/sandbox/orders", self._page_orders)
        add("POST", "/sandbox/orders/{no}/pay", self._page_pay)
        add("POST", "/sandbox/fail", self._page_fail)
        add("POST", "/sandbox/callbacks", self._page_callbacks)
        app.on_shutdown.append(self._end)
        if self.sends_callbacks:
            app.cleanup_ctx.append(self._sending)
        return app

    # What a test does.

    def fail(self, operation: str, *faults: Fault) -> None:
        """The next requests of this operation, one after another."""
        self._faults.setdefault(operation, deque()).extend(faults)

    def pay(self, out_trade_no: str, total_fen: int | None = None) -> None:
        """The payer did. With `total_fen` they took another amount than was asked for."""
        order = self.orders[out_trade_no]
        if order.state not in _UNPAID:
            raise ValueError(f"the order is {order.state}")
        now = self._now()
        order.state, order.paid_at = "SUCCESS", _text(now)
        order.transaction_id = f"4200{secrets.randbelow(10**24):024}"
        order.total = order.asked["amount"]["total"] if total_fen is None else total_fen
        self.ledger.append(_Entry(now, order, None))
        self._call(
            order.asked["notify_url"], "TRANSACTION.SUCCESS", "transaction", self._transaction_of(order)
        )

    def paying(self, out_trade_no: str) -> None:
        """The payer types his password: it is not paid yet, and cannot be closed. `pay` ends it."""
        order = self.orders[out_trade_no]
        if order.state != "NOTPAY":
            raise ValueError(f"the order is {order.state}")
        order.state = "USERPAYING"

    async def deliver(self) -> int:
        """Sends the callbacks that are due; how many."""
        self._settle()
        now = self.clock()
        due = [callback for callback in self.waiting if callback.due <= now]
        if self.callbacks.held or not due:
            return 0
        if self.callbacks.shuffled is not None:
            self.callbacks.shuffled.shuffle(due)
        self.waiting = [callback for callback in self.waiting if callback.due > now]
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=CALLBACK_SECONDS_MAX)
        ) as session:
            for callback in due:
                await self._send(session, callback)
        return len(due)

    def message(self, callback: _Callback) -> tuple[dict[str, str], bytes]:
        """Headers and body, signed now."""
        nonce = secrets.token_hex(6)
        resource = signing.encrypted(
            self.keys.api_v3_key, nonce, callback.kind, orjson.dumps(callback.content)
        )
        body = orjson.dumps(
            {
                "id": callback.id,
                "create_time": _text(self._now()),
                "resource_type": "encrypt-resource",
                "event_type": callback.event,
                "summary": "支付成功" if callback.kind == "transaction" else "退款",
                "resource": {**resource, "original_type": callback.kind},
            }
        )
        headers = self._signature(body, self.callbacks.by_public_key, forged=callback.by == "forger")
        if callback.by == "probe":
            headers[signing.SIGNATURE] = f"WECHATPAY/SIGNTEST/{headers[signing.SIGNATURE]}"
        return {**headers, "Content-Type": "application/json"}, body

    def bill_of(self, day: date) -> bytes:
        """Before it is zipped."""
        lines = [self._bill_line(entry) for entry in self.ledger if entry.at.date() == day]
        return written(lines).encode(self.bill_encoding)

    def _bill_line(self, entry: _Entry) -> Line:
        order, refund = entry.order, entry.refund
        return Line(
            entry.at,
            order.asked["appid"],
            order.asked["mchid"],
            order.transaction_id,
            order.asked["out_trade_no"],
            order.asked["payer"]["openid"],
            order.asked["description"],
            order.total if refund is None else 0,
            None if refund is None else refund.refund_id,
            None if refund is None else refund.asked["out_refund_no"],
            None if refund is None else refund.state,
            0 if refund is None else refund.asked["amount"]["refund"],
        )

    # The wire.

    def _guarded(self, operation: str, handler: Handler) -> Callable[[web.Request], Awaitable[Answer]]:
        async def handle(request: web.Request) -> Answer:
            self.asked.append(operation)
            self._settle()
            body = await request.read()
            faults = self._faults.get(operation)
            fault = faults.popleft() if faults else None
            wrong = self._wrong(request, body)
            if wrong:
                return self._refused(request, 401, "SIGN_ERROR", wrong)
            match fault:
                case Fault.TIMEOUT:
                    return await self._silence()
                case Fault.CUT:
                    return _cut(request)
                case Fault.SYSTEM_ERROR:
                    return self._refused(request, 500, "SYSTEM_ERROR", "系统错误")
                case Fault.FREQUENCY_LIMIT:
                    refused = self._refused(request, 429, "FREQUENCY_LIMITED", "频率超限")
                    refused.headers["Retry-After"] = "7"
                    return refused
                case Fault.NOT_ENOUGH:
                    return self._refused(request, 403, "NOT_ENOUGH", "基本账户余额不足")
            answer = await handler(request, orjson.loads(body) if body else None)
            match fault:
                case Fault.APPLIED_THEN_TIMEOUT:
                    return await self._silence()
                case Fault.APPLIED_THEN_CUT:
                    return _cut(request)
                case Fault.APPLIED_SYSTEM_ERROR:
                    return self._refused(request, 500, "SYSTEM_ERROR", "系统错误")
                case Fault.UNSIGNED:
                    for name in (signing.SIGNATURE, signing.SERIAL, signing.NONCE, signing.TIMESTAMP):
                        answer.headers.popall(name, None)
                case Fault.FORGED | Fault.OLD | Fault.CHANGED:
                    raw = bytes(answer.body) if isinstance(answer.body, bytes) else b""
                    if fault is Fault.CHANGED and raw:
                        answer.body = raw + b" "
                    elif fault is Fault.CHANGED:
                        answer.headers[signing.NONCE] = "another"
                    else:
                        at = self.clock() - (3600 if fault is Fault.OLD else 0)
                        answer.headers.update(
                            self._signature(raw, self._is_public(request), fault is Fault.FORGED, at)
                        )
            return answer

        return handle

    async def _silence(self) -> Answer:
        await self._ended.wait()
        return web.Response(status=500)

    async def _end(self, _app: web.Application) -> None:
        self._ended.set()

    def _wrong(self, request: web.Request, body: bytes) -> str:
        """What is wrong with who asks; '' where nothing is."""
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        said = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        at, nonce = said.get("timestamp", ""), said.get("nonce_str", "")
        if scheme != signing.SCHEME or not request.headers.get("User-Agent"):
            return "http头Authorization值格式错误"
        if said.get("mchid") != self.keys.mch_id or said.get("serial_no") != self.keys.merchant_serial:
            return "商户证书序列号有误"
        if not at.isdigit() or abs(int(at) - self.clock()) > signing.WINDOW_SECONDS:
            return "签名时间戳已过期"
        text = signing.text_of_request(request.method, request.raw_path, at, nonce, body)
        if not signing.is_signed(self.keys.merchant.public_key(), text, said.get("signature", "")):
            return "签名错误"
        if not nonce or nonce in self._nonces:
            return "随机串重复"
        if len(self._nonces) >= NONCES_MAX:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[nonce] = None
        return ""

    def _is_public(self, request: web.Request) -> bool:
        return request.headers.get(signing.SERIAL) == self.keys.public_id

    def _signature(
        self, body: bytes, is_public: bool, forged: bool = False, at: float | None = None
    ) -> dict[str, str]:
        now, nonce = str(int(self.clock() if at is None else at)), secrets.token_hex(16)
        real = self.keys.public if is_public else self.keys.platform
        serial = self.keys.public_id if is_public else self.keys.platform_certificate().serial
        key = self.keys.forger if forged else real
        return {
            signing.TIMESTAMP: now,
            signing.NONCE: nonce,
            signing.SERIAL: serial,
            signing.SIGNATURE: signing.signed(key, signing.text_of_answer(now, nonce, body)),
            signing.SIGNATURE_TYPE: signing.SCHEME,
        }

    def _answer(self, request: web.Request, content: object, status: int = 200) -> Answer:
        body = b"" if content is None else orjson.dumps(content)
        headers = self._signature(body, self._is_public(request)) | {"Request-ID": secrets.token_hex(8)}
        if content is not None:
            headers["Content-Type"] = "application/json; charset=utf-8"
        return web.Response(body=body, status=status, headers=headers)

    def _refused(self, request: web.Request, status: int, code: str, message: str) -> Answer:
        return self._answer(request, {"code": code, "message": message}, status)

    # Orders.

    async def _prepay(self, request: web.Request, asked: Any) -> Answer:
        wrong = self._wrong_order(asked)
        if wrong:
            return self._refused(request, 400, *wrong)
        known = self.orders.get(asked["out_trade_no"])
        if known is None:
            known = _Order(asked, f"wx{secrets.token_hex(17)}")
            self.orders[asked["out_trade_no"]] = known
        elif known.asked != asked:
            return self._refused(request, 403, "OUT_TRADE_NO_USED", "商户订单号重复")
        elif known.state not in _UNPAID:
            is_closed = known.state == "CLOSED"
            return self._refused(
                request, 400, "ORDER_CLOSED" if is_closed else "ORDERPAID", "该订单已支付或已关闭"
            )
        return self._answer(request, {"prepay_id": known.prepay_id})

    def _wrong_order(self, asked: dict[str, Any]) -> tuple[str, str] | None:
        if asked.get("mchid") != self.keys.mch_id or asked.get("appid") != self.keys.app_id:
            return "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配"
        amount, url = asked.get("amount", {}), str(asked.get("notify_url", ""))
        total = amount.get("total")
        fits = (
            re.fullmatch(r"[0-9A-Za-z_\-|*]{6,32}", str(asked.get("out_trade_no", ""))) is not None
            and 0 < len(str(asked.get("description", ""))) <= 127
            and url.startswith(("http://", "https://"))
            and "?" not in url
            and type(total) is int
            and total > 0
            and amount.get("currency", CURRENCY) == CURRENCY
            and bool(asked.get("payer", {}).get("openid"))
        )
        return None if fits else ("PARAM_ERROR", "参数错误")

    async def _query(self, request: web.Request, _asked: Any) -> Answer:
        if request.query.get("mchid") != self.keys.mch_id:
            return self._refused(request, 400, "MCH_NOT_EXISTS", "商户号不存在")
        by_id = request.match_info.get("id")
        if by_id is not None:
            found = next((order for order in self.orders.values() if order.transaction_id == by_id), None)
        else:
            found = self.orders.get(request.match_info["no"])
        if found is None:
            return self._refused(request, 404, "ORDER_NOT_EXIST", "订单不存在")
        return self._answer(request, self._transaction_of(found))

    def _transaction_of(self, order: _Order) -> dict[str, Any]:
        asked = order.asked
        told: dict[str, Any] = {
            "appid": asked["appid"],
            "mchid": asked["mchid"],
            "out_trade_no": asked["out_trade_no"],
            "trade_state": order.state,
            "trade_state_desc": order.state,
            "payer": asked["payer"],
        }
        if not order.transaction_id:
            return {**told, "amount": {"total": asked["amount"]["total"], "currency": CURRENCY}}
        total = order.total
        amount = {"total": total, "payer_total": total, "currency": CURRENCY, "payer_currency": CURRENCY}
        return {
            **told,
            "transaction_id": order.transaction_id,
            "trade_type": "JSAPI",
            "bank_type": "OTHERS",
            "attach": "",
            "success_time": order.paid_at,
            "amount": amount,
        }

    async def _close(self, request: web.Request, asked: Any) -> Answer:
        order = self.orders.get(request.match_info["no"])
        if asked.get("mchid") != self.keys.mch_id:
            return self._refused(request, 400, "MCH_NOT_EXISTS", "商户号不存在")
        if order is None:
            return self._refused(request, 404, "ORDER_NOT_EXIST", "订单不存在")
        if order.state == "USERPAYING":
            return self._refused(request, 400, "TRADE_ERROR", "用户支付中")
        if order.state not in ("NOTPAY", "CLOSED"):
            return self._refused(request, 400, "ORDERPAID", "订单已支付")
        if order.state == "CLOSED":
            return self._refused(request, 400, "ORDER_CLOSED", "订单已关闭")
        order.state = "CLOSED"
        return self._answer(request, None, 204)

    # Refunds.

    async def _refund(self, request: web.Request, asked: Any) -> Answer:
        amount, number = asked.get("amount", {}), str(asked.get("out_refund_no", ""))
        order = self.orders.get(asked.get("out_trade_no", ""))
        if order is None and asked.get("transaction_id"):
            order = next(
                (one for one in self.orders.values() if one.transaction_id == asked["transaction_id"]), None
            )
        if order is None or not order.transaction_id:
            return self._refused(request, 404, "RESOURCE_NOT_EXISTS", "订单不存在")
        known = self.refunds.get(number)
        if known is not None:
            same = known.order is order and known.asked["amount"] == amount
            if not same:
                return self._refused(request, 400, "INVALID_REQUEST", "订单金额或退款金额与之前请求不一致")
            return self._answer(request, self._refund_of(known))
        part = amount.get("refund")
        if type(part) is not int or part <= 0 or amount.get("currency") != CURRENCY or not number:
            return self._refused(request, 400, "PARAM_ERROR", "参数错误")
        if amount.get("total") != order.total or order.refunded + part > order.total:
            return self._refused(request, 400, "INVALID_REQUEST", "退款金额大于可退金额")
        now = self._now()
        made = _Refund(
            asked,
            order,
            f"5030{secrets.randbelow(10**24):024}",
            _text(now),
            self.clock() + self.refund_seconds,
        )
        self.refunds[number] = made
        self._open.append(made)
        order.refunded += part
        order.state = "REFUND"
        self.ledger.append(_Entry(now, order, made))
        self._changed.set()
        return self._answer(request, self._refund_of(made))

    async def _query_refund(self, request: web.Request, _asked: Any) -> Answer:
        found = self.refunds.get(request.match_info["no"])
        if found is None:
            return self._refused(request, 404, "RESOURCE_NOT_EXISTS", "退款单不存在")
        return self._answer(request, self._refund_of(found))

    def _refund_of(self, refund: _Refund) -> dict[str, Any]:
        amount = refund.asked["amount"]
        told = {
            "refund_id": refund.refund_id,
            "out_refund_no": refund.asked["out_refund_no"],
            "transaction_id": refund.order.transaction_id,
            "out_trade_no": refund.order.asked["out_trade_no"],
            "channel": "ORIGINAL",
            "user_received_account": "支付用户零钱",
            "create_time": refund.made_at,
            "status": refund.state,
            "amount": {
                "total": amount["total"],
                "refund": amount["refund"],
                "payer_total": amount["total"],
                "payer_refund": amount["refund"],
                "settlement_refund": amount["refund"],
                "settlement_total": amount["total"],
                "discount_refund": 0,
                "currency": CURRENCY,
            },
        }
        return {**told, "success_time": refund.done_at} if refund.done_at else told

    def _settle(self) -> None:
        """Ends the refunds whose time has come. One that fails leaves the bill's line, as theirs does."""
        now = self.clock()
        ended = [refund for refund in self._open if refund.due <= now]
        self._open = [refund for refund in self._open if refund.due > now]
        for refund in ended:
            refund.state = self.refund_ends
            if refund.state == "SUCCESS":
                refund.done_at = _text(self._now())
            elif refund.state == "CLOSED":
                refund.order.refunded -= refund.asked["amount"]["refund"]
            told = self._refund_of(refund)
            names = ("out_trade_no", "transaction_id", "out_refund_no", "refund_id", "success_time")
            content = {name: told[name] for name in names if name in told} | {
                "mchid": self.keys.mch_id,
                "refund_status": refund.state,
                "user_received_account": told["user_received_account"],
                "amount": {
                    name: told["amount"][name] for name in ("total", "refund", "payer_total", "payer_refund")
                },
            }
            url = refund.asked.get("notify_url")
            if url:
                self._call(url, f"REFUND.{refund.state}", "refund", content)

    # Callbacks.

    def _call(self, url: str, event: str, kind: str, content: dict[str, Any]) -> None:
        how = self.callbacks
        callback = _Callback(url, event, kind, content, secrets.token_hex(16), self.clock())
        if how.lost > 0:
            how.lost -= 1
            return
        less = {**content, "amount": {**content["amount"], "total": 1}}
        self.waiting += [replace(callback, content=less, by="forger") for _ in range(how.forged)]
        self.waiting += [replace(callback, by="probe") for _ in range(how.probes)]
        self.waiting += [replace(callback) for _ in range(how.copies)]
        self._changed.set()

    async def _send(self, session: aiohttp.ClientSession, callback: _Callback) -> None:
        headers, body = self.message(callback)
        status = 0
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.post(
                callback.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        self.answers.append((callback.event, status))
        self.told.set()
        if 200 <= status < 300 or callback.by != "theirs" or callback.tries >= len(RETRY_SECONDS):
            return
        callback.due = self.clock() + RETRY_SECONDS[callback.tries]
        callback.tries += 1
        self.waiting.append(callback)

    async def _sending(self, _app: web.Application) -> AsyncIterator[None]:
        async def send() -> None:
            while True:
                self._changed.clear()
                await self.deliver()
                nexts = [callback.due for callback in self.waiting if not self.callbacks.held]
                nexts += [refund.due for refund in self._open]
                wait = max(min(nexts) - self.clock(), 0.0) if nexts else None
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), wait)

        task = asyncio.create_task(send())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    # Bills and certificates.

    async def _bill(self, request: web.Request, _asked: Any) -> Answer:
        try:
            day = date.fromisoformat(request.query.get("bill_date", ""))
        except ValueError:
            return self._refused(request, 400, "PARAM_ERROR", "账单日期格式错误")
        if day >= self._now().date() or not any(entry.at.date() == day for entry in self.ledger):
            return self._refused(request, 400, "NO_STATEMENT_EXIST", "账单文件不存在")
        content, token = self.bill_of(day), secrets.token_urlsafe(16)
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        if self.bill_is_changed:
            content = content.replace(b".", b"0.", 1)
        self._bills[token] = gzip.compress(content) if request.query.get("tar_type") == "GZIP" else content
        url = f"{request.scheme}://{request.host}/v3/billdownload/file?token={token}"
        return self._answer(request, {"hash_type": "SHA1", "hash_value": digest, "download_url": url})

    async def _download(self, request: web.Request, _asked: Any) -> Answer:
        content = self._bills.get(request.query.get("token", ""))
        if content is None:
            return self._refused(request, 400, "PARAM_ERROR", "token无效")
        return web.Response(body=content, content_type="application/octet-stream")  # not signed, like theirs

    async def _certificates(self, request: web.Request, _asked: Any) -> Answer:
        known = self.keys.platform_certificate()
        assert known.begins is not None and known.ends is not None
        sealed = signing.encrypted(
            self.keys.api_v3_key, secrets.token_hex(6), "certificate", self.keys.certificate
        )
        item = {
            "serial_no": known.serial,
            "effective_time": _text(known.begins),
            "expire_time": _text(known.ends),
            "encrypt_certificate": sealed,
        }
        return self._answer(request, {"data": [item]})

    # The page's side.

    async def _page_orders(self, _request: web.Request) -> Answer:
        told = [
            {
                "out_trade_no": number,
                "description": order.asked["description"],
                "total": order.asked["amount"]["total"],
                "state": order.state,
            }
            for number, order in self.orders.items()
        ]
        return web.json_response({"orders": told})

    async def _page_pay(self, request: web.Request) -> Answer:
        asked: dict[str, Any] = orjson.loads(await request.read() or b"{}")
        order = self.orders.get(request.match_info["no"])
        if order is None:
            return web.json_response({"code": "ORDER_NOT_EXIST"}, status=404)
        if "parameters" in asked and not self.would_open(order, asked["parameters"]):
            return web.json_response({"code": "SIGN_ERROR"}, status=400)
        if order.state != "NOTPAY":
            return web.json_response({"code": order.state}, status=409)
        self.pay(request.match_info["no"], asked.get("total_fen"))
        return web.json_response({"state": order.state})

    def would_open(self, order: _Order, parameters: dict[str, str]) -> bool:
        """Whether wx.requestPayment would show the payer's page for this."""
        package = parameters.get("package", "")
        at, nonce = parameters.get("timeStamp", ""), parameters.get("nonceStr", "")
        text = f"{self.keys.app_id}\n{at}\n{nonce}\n{package}\n".encode()
        return (
            package == f"prepay_id={order.prepay_id}"
            and parameters.get("signType") == "RSA"
            and signing.is_signed(self.keys.merchant.public_key(), text, parameters.get("paySign", ""))
        )

    async def _page_fail(self, request: web.Request) -> Answer:
        asked = orjson.loads(await request.read())
        self.fail(asked["operation"], *(Fault(word) for word in asked["faults"]))
        return web.json_response({})

    async def _page_callbacks(self, request: web.Request) -> Answer:
        asked = orjson.loads(await request.read())
        known = {one.name for one in fields(HowCallbacksGo)} - {"shuffled"}
        for name, value in asked.items():
            if name not in known:
                return web.json_response({"code": "PARAM_ERROR"}, status=400)
            setattr(self.callbacks, name, value)
        self._changed.set()
        return web.json_response({})

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), BEIJING)


def _cut(request: web.Request) -> Answer:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _text(at: datetime) -> str:
    return at.astimezone(BEIJING).isoformat(timespec="seconds")
