"""A small Alipay: the gateway with real RSA keys, a page to pay on, notices, a ledger and its bill.

    sandbox.pay(out_trade_no)            somebody pays; `Trouble` says what goes wrong with the notice
    sandbox.fail(words, method)          what happens to the next requests (of that method):
        busy                 not done, answered 20000
        done_busy            done, answered 20000 all the same
        often                not done, answered 40005
        lost / done_lost     the line breaks, before / after it is done
        slow / done_slow     nobody answers for SLOW_SECONDS, before / after it is done
        away                 502 with a page of HTML
        unsigned, forged     done, but the answer bears no signature, or another's
        stale                answered with the signed answer to something else
        quoted               done, slashes quoted after signing, as some of theirs are
        balance              40004, the seller's account is empty
    await sandbox.deliver(session)       sends the notices that are due; what is not answered `success` comes
                                         again after AGAIN_SECONDS
    await sandbox.run(session)           the same for ever, every RUN_SECONDS
    sandbox.account                      what is in the seller's account (fen)

Somebody who was given a trade_no (create) pays with a click at /cashier?trade_no=…; pay_page leads there.

Time is `clock`'s: it closes what was not paid in time, and lets notices and the bill's address wait or end.
"""

import asyncio
import contextlib
import hashlib
import html
import io
import json
import secrets
import time
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key

from integrations.alipay import signing
from integrations.alipay.client import BILL, CLOSE, CREATE, PAGE, QUERY, REFUND, REFUND_QUERY
from integrations.alipay.translate import BEIJING, TradeState, fen_of, moment_of, time_text, yuan_of

SLOW_SECONDS: Final = 30.0
BILL_LIVES_SECONDS: Final = 30
AGAIN_SECONDS: Final = (240, 600, 600, 3_600, 7_200, 21_600, 54_000)
SENT_SECONDS_MAX: Final = 5.0
RUN_SECONDS: Final = 1.0

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with one notice."""

    copies: int = 1
    late_seconds: float = 0
    is_lost: bool = False  # and comes again, as one that was not answered
    is_forged: bool = False  # signed with another key
    amount_fen: int | None = None  # signed, but of another amount


@dataclass(slots=True)
class Entry:
    """One line of the ledger: fen into the seller's account, or out of it."""

    at: int  # ms
    fen: int
    trade_no: str
    out_trade_no: str
    out_request_no: str = ""


@dataclass(slots=True)
class SandboxTrade:
    out_trade_no: str
    trade_no: str
    amount_fen: int
    subject: str
    notify_url: str
    expires_at: int | None
    buyer: str
    return_url: str = ""
    state: TradeState = TradeState.WAITING
    paid_at: int | None = None
    refunds: dict[str, int] = field(default_factory=dict)
    is_paying: bool = False  # the payer types his password: it neither ends nor can be closed meanwhile

    @property
    def refunded_fen(self) -> int:
        return sum(self.refunds.values())


@dataclass(slots=True)
class _Due:
    at: float  # seconds
    url: str
    parameters: dict[str, str]
    trouble: Trouble
    tries: int = 0


class Sandbox:
    def __init__(
        self,
        app_id: str,
        seller_id: str,
        private_key: RSAPrivateKey,  # Alipay's
        app_key: RSAPublicKey,  # the app's public key
        clock: Callable[[], float] = time.time,
        cashier: str = "/cashier",
    ) -> None:
        """`cashier`: where payers are sent, with ?trade_no=…; there is a page of our own."""
        self._cashier_page = cashier
        self.trades: dict[str, SandboxTrade] = {}
        self.ledger: list[Entry] = []
        self.due: list[_Due] = []
        self.asked: list[str] = []  # methods, in order
        self._app_id = app_id
        self._seller_id = seller_id
        self._key = private_key
        self._app_key = app_key
        self._clock = clock
        self._faults: dict[str, deque[str]] = defaultdict(deque)
        self._bills: dict[str, tuple[date, float]] = {}
        self._closing = asyncio.Event()
        self._last: tuple[str, str] = ("{}", "")  # an answer and its signature, to be told again
        self._methods: dict[str, Callable[[Node, Mapping[str, str]], Node]] = {
            CREATE: self._create,
            QUERY: self._query,
            CLOSE: self._close,
            REFUND: self._refund,
            REFUND_QUERY: self._refund_query,
        }

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/gateway.do", self._gateway)
        app.router.add_get("/bill.zip", self._bill_file)
        app.router.add_get("/cashier", self._cashier)
        app.router.add_post("/cashier", self._cashier_click)
        app.on_shutdown.append(self._shut)
        return app

    async def _shut(self, _app: web.Application) -> None:
        self._closing.set()

    @property
    def account(self) -> int:
        return sum(entry.fen for entry in self.ledger)

    def fail(self, *words: str, method: str = "") -> None:
        self._faults[method].extend(words)

    def pay(self, out_trade_no: str, trouble: Trouble | None = None) -> bool:
        """False: it cannot be paid (any more)."""
        trade = self._trade({"out_trade_no": out_trade_no})
        if trade is None or trade.state is not TradeState.WAITING:
            return False
        trade.state, trade.paid_at, trade.is_paying = TradeState.PAID, self._ms(), False
        self.ledger.append(Entry(trade.paid_at, trade.amount_fen, trade.trade_no, trade.out_trade_no))
        self._tell(trade, "", trouble or Trouble())
        return True

    def paying(self, out_trade_no: str) -> bool:
        """The payer types his password; `pay` ends it. False: it cannot be paid (any more)."""
        trade = self._trade({"out_trade_no": out_trade_no})
        if trade is None or trade.state is not TradeState.WAITING:
            return False
        trade.is_paying = True
        return True

    async def deliver(self, session: aiohttp.ClientSession, shuffled: Random | None = None) -> int:
        """Sends what is due, in order or shuffled. How many were answered `success`."""
        now = self._clock()
        due = [notice for notice in self.due if notice.at <= now]
        self.due = [notice for notice in self.due if notice.at > now]
        if shuffled is not None:
            shuffled.shuffle(due)
        taken = 0
        for notice in due:
            if await self._sent(session, notice):
                taken += 1
            elif not notice.trouble.is_forged and notice.tries < len(AGAIN_SECONDS):
                notice.at = now + AGAIN_SECONDS[notice.tries]
                notice.tries += 1
                notice.trouble = Trouble()
                self.due.append(notice)
        return taken

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Delivers until it is cancelled: for `make run`, where nobody else moves the clock."""
        while True:
            await self.deliver(session)
            await asyncio.sleep(RUN_SECONDS)

    async def _sent(self, session: aiohttp.ClientSession, notice: _Due) -> bool:
        if notice.trouble.is_lost:
            return False
        parameters = notice.parameters | {"notify_time": time_text(self._ms())}
        parameters["sign"] = signing.sign(
            _another_key(self._key) if notice.trouble.is_forged else self._key,
            signing.of_notice(parameters),
        )
        try:
            async with session.post(
                notice.url, data=parameters, timeout=aiohttp.ClientTimeout(total=SENT_SECONDS_MAX)
            ) as response:
                return response.status == 200 and await response.text() == "success"
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def _tell(self, trade: SandboxTrade, out_request_no: str, trouble: Trouble) -> None:
        if not trade.notify_url:
            return
        amount = trade.amount_fen if trouble.amount_fen is None else trouble.amount_fen
        parameters = {
            "notify_type": "trade_status_sync",
            "notify_id": secrets.token_hex(17),
            "app_id": self._app_id,
            "auth_app_id": self._app_id,
            "seller_id": self._seller_id,
            "charset": "utf-8",
            "version": "1.0",
            "sign_type": signing.SIGN_TYPE,
            "out_trade_no": trade.out_trade_no,
            "trade_no": trade.trade_no,
            "trade_status": trade.state.value,
            "total_amount": yuan_of(amount),
            "receipt_amount": yuan_of(amount),
            "subject": trade.subject,
            "buyer_id": "2088000000000002",
        }
        if trade.paid_at is not None:
            parameters["gmt_payment"] = time_text(trade.paid_at)
        if out_request_no:
            parameters |= {
                "out_biz_no": out_request_no,
                "refund_fee": yuan_of(trade.refunded_fen),
                "gmt_refund": f"{time_text(self._ms())}.123",
            }
        for _ in range(trouble.copies):
            at = self._clock() + trouble.late_seconds
            self.due.append(_Due(at, trade.notify_url, dict(parameters), trouble))

    # The gateway

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        parameters = dict(request.query) | {name: str(value) for name, value in form.items()}
        method = parameters.get("method", "")
        self.asked.append(method)
        if parameters.get("app_id") != self._app_id:
            node = _failed("40002", "Invalid Arguments", "isv.invalid-app-id")
            return _json(f'{{"error_response":{_compact(node)}}}')  # they cannot know whose keys it is about
        text = signing.of_request(parameters)
        if parameters.get("sign_type") != signing.SIGN_TYPE or not signing.is_signed(
            self._app_key, text, parameters.get("sign", "")
        ):
            return self._answer(method, _failed("40002", "Invalid Arguments", "isv.invalid-signature"))
        try:
            content: Node = json.loads(parameters.get("biz_content", ""))
            moment_of(parameters.get("timestamp"))
        except ValueError:
            return self._answer(method, _failed("40002", "Invalid Arguments", "isv.invalid-parameter"))
        if method == PAGE:
            return self._page(content, parameters)
        if method != BILL and method not in self._methods:
            return self._answer(method, _failed("40002", "Invalid Arguments", "isv.invalid-method"))
        return await self._with_faults(request, method, content, parameters)

    async def _with_faults(
        self, request: web.Request, method: str, content: Node, parameters: Mapping[str, str]
    ) -> web.StreamResponse:
        planned = self._faults[method] or self._faults[""]
        fault = planned.popleft() if planned else ""
        before = {
            "busy": _failed("20000", "Service Currently Unavailable", "isp.unknow-error"),
            "often": _failed("40005", "Call Limited", "isv.app-call-limited"),
            "balance": _business("ACQ.SELLER_BALANCE_NOT_ENOUGH"),
        }
        if fault in before:
            return self._answer(method, before[fault])
        if fault == "away":
            return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
        if fault in ("lost", "slow"):
            return await self._unanswered(request, fault)
        if fault == "stale":
            text, signature = self._last
            return _json(f'{{"{signing.node_name(method)}":{text},"sign":"{signature}"}}')
        if method == BILL:
            node = self._bill_address(request, content)
        else:
            node = self._methods[method](content, parameters)
        if fault == "done_busy":
            return self._answer(method, before["busy"])
        if fault in ("done_lost", "done_slow"):
            return await self._unanswered(request, fault.removeprefix("done_"))
        return self._answer(method, node, fault)

    async def _unanswered(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault == "slow":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), SLOW_SECONDS)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=504)

    def _answer(self, method: str, node: Node, fault: str = "") -> web.Response:
        text = _compact(node)
        signature = signing.sign(_another_key(self._key) if fault == "forged" else self._key, text)
        if fault == "quoted":
            text = text.replace("/", "\\/")
        if fault == "unsigned":
            return _json(f'{{"{signing.node_name(method)}":{text}}}')
        self._last = (text, signature)
        return _json(f'{{"{signing.node_name(method)}":{text},"sign":"{signature}"}}')

    def _create(self, content: Node, parameters: Mapping[str, str]) -> Node:
        try:
            amount, number = fen_of(content["total_amount"]), str(content["out_trade_no"])
            subject = str(content["subject"])
            expires_at = moment_of(content["time_expire"]) if "time_expire" in content else None
        except (KeyError, ValueError):
            return _business("ACQ.INVALID_PARAMETER")
        if amount <= 0:
            return _business("ACQ.TOTAL_FEE_EXCEED")
        buyer = str(content.get("buyer_id") or content.get("buyer_open_id") or "")
        trade = self._trade(content)
        if trade is None:
            trade = SandboxTrade(
                number,
                self._trade_no(number),
                amount,
                subject,
                parameters.get("notify_url", ""),
                expires_at,
                buyer,
                parameters.get("return_url", ""),
            )
            self.trades[number] = trade
        if trade.state is TradeState.PAID:
            return _business("ACQ.TRADE_HAS_SUCCESS")
        if trade.state is not TradeState.WAITING:
            return _business("ACQ.TRADE_HAS_CLOSE")
        if (trade.amount_fen, trade.subject) != (amount, subject):
            return _business("ACQ.CONTEXT_INCONSISTENT")
        if trade.buyer != buyer:
            return _business("ACQ.TRADE_BUYER_NOT_MATCH")
        return _done({"out_trade_no": number, "trade_no": trade.trade_no})

    def _query(self, content: Node, _parameters: Mapping[str, str]) -> Node:
        trade = self._trade(content)
        if trade is None:
            return _business("ACQ.TRADE_NOT_EXIST")
        found: Node = {
            "out_trade_no": trade.out_trade_no,
            "trade_no": trade.trade_no,
            "trade_status": trade.state.value,
            "total_amount": yuan_of(trade.amount_fen),
            "buyer_logon_id": "xin***@example.com",
            "subject": trade.subject,
        }
        return _done(found | ({"send_pay_date": time_text(trade.paid_at)} if trade.paid_at else {}))

    def _close(self, content: Node, _parameters: Mapping[str, str]) -> Node:
        trade = self._trade(content)
        if trade is None:
            return _business("ACQ.TRADE_NOT_EXIST")
        if trade.state is not TradeState.WAITING or trade.is_paying:
            return _business("ACQ.TRADE_STATUS_ERROR")
        trade.state = TradeState.CLOSED
        return _done({"out_trade_no": trade.out_trade_no, "trade_no": trade.trade_no})

    def _refund(self, content: Node, _parameters: Mapping[str, str]) -> Node:
        trade = self._trade(content)
        if trade is None:
            return _business("ACQ.TRADE_NOT_EXIST")
        try:
            amount = fen_of(content["refund_amount"])
        except (KeyError, ValueError):
            return _business("ACQ.INVALID_PARAMETER")
        # Without a number of its own a refund is the trade's only one.
        number = str(content.get("out_request_no") or trade.out_trade_no)
        before = trade.refunds.get(number)
        if before is not None and before != amount:
            return _business("ACQ.DISCORDANT_REPEAT_REQUEST")
        if before is None:
            if trade.state is not TradeState.PAID:
                return _business("ACQ.TRADE_STATUS_ERROR")
            if amount <= 0 or trade.refunded_fen + amount > trade.amount_fen:
                return _business("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
            trade.refunds[number] = amount
            self.ledger.append(Entry(self._ms(), -amount, trade.trade_no, trade.out_trade_no, number))
            if trade.refunded_fen == trade.amount_fen:
                trade.state = TradeState.CLOSED
            self._tell(trade, number, Trouble())
        return _done(
            {
                "out_trade_no": trade.out_trade_no,
                "trade_no": trade.trade_no,
                "fund_change": "N" if before is not None else "Y",
                "refund_fee": yuan_of(trade.refunded_fen),  # of all refunds, as theirs
            }
        )

    def _refund_query(self, content: Node, _parameters: Mapping[str, str]) -> Node:
        trade = self._trade(content)
        if trade is None:
            return _business("ACQ.TRADE_NOT_EXIST")
        number = str(content.get("out_request_no", ""))
        if number not in trade.refunds:
            return _done({})  # theirs says no more either
        return _done(
            {
                "out_trade_no": trade.out_trade_no,
                "trade_no": trade.trade_no,
                "out_request_no": number,
                "refund_amount": yuan_of(trade.refunds[number]),
                "total_amount": yuan_of(trade.amount_fen),
                "refund_status": "REFUND_SUCCESS",
            }
        )

    def _trade(self, content: Node) -> SandboxTrade | None:
        """Closed, if its time is over."""
        trade = self.trades.get(str(content.get("out_trade_no", "")))
        if trade is None and content.get("trade_no"):
            trade = next((t for t in self.trades.values() if t.trade_no == content["trade_no"]), None)
        if trade is None:
            return None
        is_late = trade.expires_at is not None and trade.expires_at <= self._ms()
        if trade.state is TradeState.WAITING and is_late and not trade.is_paying:
            trade.state = TradeState.CLOSED
        return trade

    def _trade_no(self, out_trade_no: str) -> str:
        digits = int.from_bytes(hashlib.sha256(out_trade_no.encode()).digest()[:8], "big") % 10**20
        return f"{time_text(self._ms())[:10].replace('-', '')}{digits:020d}"

    def _ms(self) -> int:
        return int(self._clock() * 1000)

    # The bill

    def bill(self, day: date) -> bytes:
        """The zip of a day's trades, b'' where there were none."""
        entries = [e for e in self.ledger if datetime.fromtimestamp(e.at / 1000, BEIJING).date() == day]
        return packed(self._seller_id, entries) if entries else b""

    def _bill_address(self, request: web.Request, content: Node) -> Node:
        try:
            day = date.fromisoformat(str(content.get("bill_date")))
        except ValueError:
            return _failed("40002", "Invalid Arguments", "isv.invalid-arguments")
        today = datetime.fromtimestamp(self._clock(), BEIJING).date()
        if content.get("bill_type") != "trade" or day >= today:
            return _failed("40002", "Invalid Arguments", "isv.invalid-arguments")
        if not self.bill(day):
            return _business("isp.bill_not_exist")
        token = secrets.token_urlsafe(24)
        self._bills[token] = (day, self._clock() + BILL_LIVES_SECONDS)
        return _done({"bill_download_url": f"{request.url.origin()}/bill.zip?token={token}"})

    async def _bill_file(self, request: web.Request) -> web.Response:
        day, until = self._bills.get(request.query.get("token", ""), (date.min, 0.0))
        if until < self._clock():
            return web.Response(status=403)
        return web.Response(body=self.bill(day), content_type="application/zip")

    # The page where somebody pays with a click

    def _page(self, content: Node, parameters: Mapping[str, str]) -> web.Response:
        node = self._create(content, parameters)
        if node["code"] != "10000":
            return web.Response(status=400, text=str(node.get("sub_code")))
        return web.Response(
            status=302,
            headers={"Location": f"{self._cashier_page}?{urlencode({'trade_no': node['trade_no']})}"},
        )

    async def _cashier(self, request: web.Request) -> web.Response:
        trade = self._trade({"trade_no": request.query.get("trade_no", "")})
        if trade is None:
            return web.Response(status=404, text="没有这笔交易 / no such trade")
        buttons = "".join(
            f'<button name="do" value="{do}">{words}</button> '
            for do, words in (
                ("pay", "付款 Pay"),
                ("late", "付款, 通知晚到一分钟 Pay, tell a minute later"),
                ("lost", "付款, 通知丢失一次 Pay, lose the notice once"),
                ("leave", "不付 Leave"),
            )
        )
        page = (
            '<!doctype html><html lang="zh"><meta charset="utf-8"><title>支付宝沙箱 Alipay sandbox</title>'
            f"<h1>支付宝沙箱 Alipay sandbox</h1><p>{html.escape(trade.subject)}</p>"
            f"<p>¥{yuan_of(trade.amount_fen)} · {trade.state.value}</p>"
            f'<form method="post"><input type="hidden" name="trade_no" value="{trade.trade_no}">'
            f"{buttons if trade.state is TradeState.WAITING else ''}</form></html>"
        )
        return web.Response(text=page, content_type="text/html")

    async def _cashier_click(self, request: web.Request) -> web.Response:
        form = await request.post()
        trade = self._trade({"trade_no": str(form.get("trade_no", ""))})
        if trade is None:
            return web.Response(status=404, text="没有这笔交易 / no such trade")
        troubles = {
            "pay": Trouble(),
            "late": Trouble(late_seconds=60),
            "lost": Trouble(is_lost=True),
        }
        trouble = troubles.get(str(form.get("do")))
        if trouble is not None:
            self.pay(trade.out_trade_no, trouble)
        back = trade.return_url or f"/cashier?{urlencode({'trade_no': trade.trade_no})}"
        return web.Response(status=303, headers={"Location": back})


def packed(seller_id: str, entries: list[Entry]) -> bytes:
    """A bill as theirs: two files, GB18030 inside and in their names."""
    paid, back = [e.fen for e in entries if e.fen > 0], [e.fen for e in entries if e.fen < 0]
    lines = [
        "#支付宝业务明细查询",
        f"#账号：[{seller_id}0156]",
        "#起始日期：[00:00:00]   终止日期：[24:00:00]",
        f"#{'-' * 41}业务明细列表{'-' * 40}",
        "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,"
        "订单金额（元）,商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,"
        "券名称,商家红包消费金额（元）,卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注",
        *map(_bill_line, entries),
        f"#{'-' * 41}业务明细列表结束{'-' * 36}",
        f"#交易合计：{len(paid)}笔，商家实收共{yuan_of(sum(paid))}元，商家优惠共0.00元",
        f"#退款合计：{len(back)}笔，商家实收退款共{yuan_of(sum(back))}元，商家优惠退款共0.00元",
    ]
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{seller_id}_业务明细.csv", "\r\n".join(lines).encode("gb18030"))
        archive.writestr(f"{seller_id}_业务明细(汇总).csv", "#支付宝业务汇总查询\r\n".encode("gb18030"))
    return found.getvalue()


def _bill_line(entry: Entry) -> str:
    amount, fee = yuan_of(entry.fen), yuan_of(0 if entry.fen < 0 else -(entry.fen * 6 // 1000))
    kind, at = "退款" if entry.fen < 0 else "交易", time_text(entry.at)
    return (
        f"{entry.trade_no}\t,{entry.out_trade_no}\t,{kind},挂号,{at},{at},\t,\t,\t,\t,**林(138******01)\t,"
        f"{amount},{amount},0.00,0.00,0.00,0.00,0.00,,0.00,0.00,{entry.out_request_no}\t,{fee},0.00,"
    )


def _done(node: Node) -> Node:
    return {"code": "10000", "msg": "Success", **node}


def _business(sub_code: str) -> Node:
    return _failed("40004", "Business Failed", sub_code)


def _failed(code: str, msg: str, sub_code: str) -> Node:
    return {"code": code, "msg": msg, "sub_code": sub_code, "sub_msg": "沙箱/sandbox"}


def _compact(node: Node) -> str:
    return json.dumps(node, ensure_ascii=False, separators=(",", ":"))


def _json(text: str) -> web.Response:
    return web.Response(body=text.encode(), content_type="text/html", charset="utf-8")  # as theirs


_ANOTHER: dict[int, RSAPrivateKey] = {}


def _another_key(key: RSAPrivateKey) -> RSAPrivateKey:
    """A forger's; made once, for making one takes long."""
    if key.key_size not in _ANOTHER:
        _ANOTHER[key.key_size] = generate_private_key(65537, key.key_size)
    return _ANOTHER[key.key_size]
