"""The sandboxes' page: whoever runs the demo pays, fails, pays late, or loses a callback with a click.

It stands for the payer's telephone and has nothing of a real provider's page. It listens on this machine
alone.
"""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from typing import Any, Final

import orjson
from aiohttp import web

from integrations.alipay.sandbox import Sandbox as Alipay
from integrations.alipay.sandbox import Trouble
from integrations.alipay.translate import TradeState
from integrations.wechat_pay.sandbox import Sandbox as WeChatPay

COPIES: Final = 3
LATE_SECONDS_MAX: Final = 3_600
LISTED_MAX: Final = 100
HOWS: Final = ("pay", "lost", "late", "twice", "fail")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; frame-ancestors 'none'",
}


@dataclass(slots=True)
class PayPage:
    wechat: WeChatPay
    alipay: Alipay
    _late: set[asyncio.Task[None]] = field(default_factory=set)
    _said: dict[str, str] = field(default_factory=dict)
    """Order -> what was clicked last."""
    _due: dict[str, float] = field(default_factory=dict)
    """Order -> when a late payment arrives, in seconds."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/orders", self._orders)
        app.router.add_post("/orders/{number}", self._click)
        app.on_shutdown.append(self._end)
        return app

    async def _page(self, _request: web.Request) -> web.Response:
        text = (resources.files("web.pay_page") / "page.html").read_text()
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    async def _orders(self, _request: web.Request) -> web.Response:
        told = [*self._of_wechat(), *self._of_alipay()][-LISTED_MAX:]
        content = {"now": time.time(), "orders": told[::-1]}
        return web.Response(body=orjson.dumps(content), content_type="application/json", headers=_HEADERS)

    def _of_wechat(self) -> list[dict[str, Any]]:
        return [
            self._told(
                number,
                "wechat_pay",
                order.asked["description"],
                order.asked["amount"]["total"],
                _WECHAT_STATES.get(order.state, order.state),
                order.refunded,
                datetime.fromisoformat(order.asked["time_expire"]).timestamp(),
                order.prepay_id,
            )
            for number, order in self.wechat.orders.items()
        ]

    def _of_alipay(self) -> list[dict[str, Any]]:
        return [
            self._told(
                trade.out_trade_no,
                "alipay",
                trade.subject,
                trade.amount_fen,
                "refunded" if trade.refunded_fen else _ALIPAY_STATES[trade.state],
                trade.refunded_fen,
                (trade.expires_at or 0) / 1000,
                trade.trade_no,
            )
            for trade in self.alipay.trades.values()
        ]

    def _told(
        self,
        number: str,
        provider: str,
        description: str,
        fen: int,
        state: str,
        refunded: int,
        expires_at: float,
        their_number: str,
    ) -> dict[str, Any]:
        return {
            "number": number,
            "provider": provider,
            "description": description,
            "fen": fen,
            "state": "paying" if number in self._due else state,
            "refunded": refunded,
            "expires_at": expires_at,
            "their_number": their_number,
            "due": self._due.get(number),
            "said": self._said.get(number, ""),
        }

    async def _click(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":  # no other site's form
            return web.json_response({"code": "unsupported_media_type"}, status=415)
        number = request.match_info["number"]
        asked: dict[str, Any] = orjson.loads(await request.read() or b"{}")
        how, seconds = asked.get("how"), asked.get("seconds", 0)
        if how not in HOWS or type(seconds) is not int or not 0 <= seconds <= LATE_SECONDS_MAX:
            return web.json_response({"code": "invalid"}, status=422)
        if not self._is_open(number):
            return web.json_response({"code": "not_open"}, status=409)
        self._said[number] = how
        if how == "late":
            self._begin(number)
            self._due[number] = time.time() + seconds
            task = asyncio.create_task(self._pay_late(number, seconds))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        elif how != "fail":  # who fails has paid nothing, and the provider has nothing to tell
            self._pay(number, how)
        return web.json_response({})

    def _is_open(self, number: str) -> bool:
        if number in self._due:
            return False
        order, trade = self.wechat.orders.get(number), self.alipay.trades.get(number)
        if order is not None:
            return order.state == "NOTPAY"
        return trade is not None and trade.state is TradeState.WAITING

    def _begin(self, number: str) -> None:
        if number in self.wechat.orders:
            self.wechat.paying(number)
        else:
            self.alipay.paying(number)

    async def _pay_late(self, number: str, seconds: int) -> None:
        await asyncio.sleep(seconds)
        self._due.pop(number, None)
        self._pay(number, "pay")

    def _pay(self, number: str, how: str) -> None:
        if number not in self.wechat.orders:
            self.alipay.pay(number, Trouble(copies=COPIES if how == "twice" else 0 if how == "lost" else 1))
            return
        going = self.wechat.callbacks
        copies, lost = going.copies, going.lost
        if how == "lost":
            going.lost = 1
        if how == "twice":
            going.copies = COPIES
        self.wechat.pay(number)  # makes its callbacks at once
        going.copies, going.lost = copies, lost

    async def _end(self, _app: web.Application) -> None:
        for task in self._late:
            task.cancel()


_WECHAT_STATES: Final = {
    "NOTPAY": "open",
    "USERPAYING": "paying",
    "SUCCESS": "paid",
    "REFUND": "refunded",
    "CLOSED": "closed",
}
_ALIPAY_STATES: Final = {
    TradeState.WAITING: "open",
    TradeState.PAID: "paid",
    TradeState.FINISHED: "paid",
    TradeState.CLOSED: "closed",
}
