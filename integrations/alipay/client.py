"""Our side of Alipay: a few questions, each with one meaning. What to do when one fails: see the package.

    create(order, buyer)  -> trade_no             mini-program: my.tradePay({tradeNO: trade_no})
    pay_page(order, …)    -> address              H5: the browser goes there
    query(out_trade_no)   -> Trade | None
    close(out_trade_no)
    refund(refund)        -> Refunded
    refund_of(…)          -> Refunded | None
    bill(day)             -> Bill | None

Refused.code: not_exist, paid, closed, wrong_state, finished, amount, another_request, another_buyer, frozen,
no_bill, our_signature, our_app_id; else their own sub_code.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import date
from typing import Any, Final

import aiohttp

from integrations.alipay import bill as bills
from integrations.alipay.merchant import Merchant
from integrations.alipay.translate import (
    Order,
    Refund,
    Refunded,
    Trade,
    check_number,
    create_content,
    page_content,
    refund_content,
    refund_done,
    trade_of,
)
from integrations.alipay.wire import Wire, unreadable
from integrations.connector import OutcomeUnknown, Refused, TryAgain

SECONDS_MAX: Final = 5.0

CREATE: Final = "alipay.trade.create"
PAGE: Final = "alipay.trade.wap.pay"
QUERY: Final = "alipay.trade.query"
CLOSE: Final = "alipay.trade.close"
REFUND: Final = "alipay.trade.refund"
REFUND_QUERY: Final = "alipay.trade.fastpay.refund.query"
BILL: Final = "alipay.data.dataservice.bill.downloadurl.query"


class AlipayClient:
    """The session is its owner's to close."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        merchant: Merchant,
        seconds_max: float = SECONDS_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._merchant = merchant
        self._wire = Wire(session, merchant, seconds_max, clock)

    async def create(self, order: Order, buyer: str) -> str:
        """Their number of the trade. The same order asked for again gives the same number.

        Raises Refused (paid: it was paid already; closed; another_request: the number is another order's),
        TryAgain, OutcomeUnknown.
        """
        node = await self._wire.ask(
            CREATE,
            create_content(order, buyer, self._merchant.app_id),
            changes=True,
            extra={"notify_url": self._merchant.notify_url},
        )
        trade_no = node.get("trade_no")
        if node.get("out_trade_no") != order.out_trade_no or not isinstance(trade_no, str) or not trade_no:
            raise unreadable("an answer about another trade", changes=True)
        return trade_no

    def pay_page(self, order: Order, return_url: str, quit_url: str) -> str:
        """Where a browser pays. Whoever comes back to `return_url` proves nothing: ask `query`.

        Until somebody opens it there is no trade: `close` is refused with not_exist, and it may still be
        opened until `order.expires_at`.
        """
        extra = {"notify_url": self._merchant.notify_url, "return_url": return_url}
        return self._wire.page(PAGE, page_content(order, quit_url), extra)

    async def query(self, out_trade_no: str) -> Trade | None:
        """None: they know of none now; one that is on its way may still come. Raises Refused, TryAgain."""
        check_number(out_trade_no)
        try:
            node = await self._wire.ask(QUERY, {"out_trade_no": out_trade_no}, changes=False)
        except Refused as refused:
            if refused.code == "not_exist":
                return None
            raise
        try:
            trade = trade_of(node)
        except ValueError:
            raise unreadable("a trade that does not hold together", changes=False) from None
        if trade.out_trade_no != out_trade_no:
            raise unreadable("an answer about another trade", changes=False)
        return trade

    async def close(self, out_trade_no: str) -> None:
        """Nobody can pay it any more. Raises Refused (not_exist; wrong_state: paid, or closed before: ask
        `query`), TryAgain, OutcomeUnknown."""
        check_number(out_trade_no)
        node = await self._wire.ask(CLOSE, {"out_trade_no": out_trade_no}, changes=True)
        if node.get("out_trade_no") != out_trade_no:
            raise unreadable("an answer about another trade", changes=True)

    async def refund(self, refund: Refund) -> Refunded:
        """Given back, now or by the same request before. Raises Refused (amount: above what is left;
        finished; not_exist; another_request: the number was used for another amount), TryAgain
        (BalanceShort), OutcomeUnknown."""
        node = await self._wire.ask(REFUND, refund_content(refund), changes=True)
        if node.get("out_trade_no") != refund.out_trade_no:
            raise unreadable("an answer about another trade", changes=True)
        if node.get("fund_change") == "Y":
            return Refunded(refund.out_trade_no, refund.out_request_no, refund.amount_fen)
        # 10000 alone says that they took the request, not that money moved: it moved before, or not at all.
        try:
            done = await self.refund_of(refund.out_trade_no, refund.out_request_no)
        except (TryAgain, Refused) as error:
            raise OutcomeUnknown(f"alipay: a refund that they took, and then {error}") from None
        if done is None:
            raise OutcomeUnknown("alipay: a refund that they took and do not know")
        if done.amount_fen != refund.amount_fen:
            raise Refused("another_request")
        return done

    async def refund_of(self, out_trade_no: str, out_request_no: str) -> Refunded | None:
        """None: not done, as far as they know now. Raises Refused, TryAgain."""
        check_number(out_trade_no)
        check_number(out_request_no)
        content = {"out_trade_no": out_trade_no, "out_request_no": out_request_no}
        try:
            node = await self._wire.ask(REFUND_QUERY, content, changes=False)
        except Refused as refused:
            if refused.code == "not_exist":
                return None
            raise
        try:
            done = refund_done(node)
        except ValueError:
            raise unreadable("a refund that does not hold together", changes=False) from None
        if done is not None and (done.out_trade_no, done.out_request_no) != (out_trade_no, out_request_no):
            raise unreadable("an answer about another refund", changes=False)
        return done

    async def bill(self, day: date) -> "bills.Bill | None":
        """A day's trades, from about ten the next morning on (Beijing). None: nobody traded, or not yet
        ready: whoever has payments of that day asks again later. Raises Refused, TryAgain."""
        content = {"bill_type": "trade", "bill_date": day.isoformat()}
        try:
            node = await self._wire.ask(BILL, content, changes=False)
        except Refused as refused:
            if refused.code == "no_bill":
                return None
            raise
        packed = await self._wire.download(_address(node))
        try:
            found = await asyncio.to_thread(bills.parsed, packed)
        except bills.BrokenBill as error:
            raise TryAgain(f"alipay: {error}") from None
        if found.account != self._merchant.seller_id:
            raise TryAgain("alipay: a bill of another account")
        return found


def _address(node: dict[str, Any]) -> str:
    address = node.get("bill_download_url")
    if not isinstance(address, str):
        raise unreadable("an answer without the bill's address", changes=False)
    return address
