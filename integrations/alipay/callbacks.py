"""What Alipay tells us by itself: a form, signed with its key, sent again for a day until we say `success`.

A route has nothing to do but

    answer = await receive(await request.read(), merchant, seen, amount_of, deal, clock)
    return web.Response(text=answer.text, status=answer.status)  # record and alarm where answer.refused

with three things of its own:

    seen        which notices were dealt with (a table, kept KEPT_SECONDS). Asked before, told after `deal`
    amount_of   what an order of ours is about, in fen; None: we know of no such order
    deal        does and commits what follows. It may be called twice with one notice (we die before `seen` is
                told; two copies at once) and must then change nothing: the bill's own state decides, `seen`
                spares work

Notices come twice, late and in any order: one that says WAITING may come after PAID. A refund's notice is the
trade's with what was refunded in all so far (`refunded_fen`); of one refund, client.refund_of tells.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qsl

from integrations.alipay import signing
from integrations.alipay.merchant import Merchant
from integrations.alipay.translate import TradeState, check_number, fen_of, moment_of
from integrations.connector import Refused

BODY_BYTES_MAX: Final = 64 * 1024
FIELDS_MAX: Final = 100
LATE_SECONDS_MAX: Final = 3 * 86_400  # theirs come for 25 hours; clocks are off, and hospitals too
AHEAD_SECONDS_MAX: Final = 600
KEPT_SECONDS: Final = LATE_SECONDS_MAX + 86_400  # so long `seen` remembers: longer than a notice is taken
SUCCESS: Final = "success"
FAILURE: Final = "failure"


@dataclass(frozen=True, slots=True)
class Notice:
    notice_id: str  # the same in every copy
    sent_at: int  # ms
    out_trade_no: str
    trade_no: str
    state: TradeState
    amount_fen: int
    paid_at: int | None  # ms
    refunded_fen: int  # in all, so far
    out_request_no: str | None  # of the refund that it tells of

    @property
    def was_paid(self) -> bool:
        return self.state in (TradeState.PAID, TradeState.FINISHED) or self.paid_at is not None


class Seen(Protocol):
    async def has(self, notice_id: str) -> bool: ...
    async def add(self, notice_id: str) -> None: ...


class SeenInMemory:
    """For tests and the sandbox: one process, and only as long as that lives."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._until: dict[str, float] = {}
        self._clock = clock

    async def has(self, notice_id: str) -> bool:
        return self._until.get(notice_id, 0.0) > self._clock()

    async def add(self, notice_id: str) -> None:
        now = self._clock()
        while self._until and (first := next(iter(self._until))) and self._until[first] <= now:
            del self._until[first]
        self._until.setdefault(notice_id, now + KEPT_SECONDS)


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    status: int
    notice: Notice | None = None  # believed, whether or not it was taken
    refused: str | None = None  # why: to be recorded and alarmed
    is_repeated: bool = False


async def receive(
    raw: bytes,
    merchant: Merchant,
    seen: Seen,
    amount_of: Callable[[str], Awaitable[int | None]],
    deal: Callable[[Notice], Awaitable[None]],
    clock: Callable[[], float] = time.time,
) -> Answer:
    """What to answer. Raises what `seen`, `amount_of` and `deal` raise: then it is 500, and comes again."""
    try:
        notice = notice_of(raw, merchant, clock())
    except Refused as refused:
        return Answer(FAILURE, 400, None, refused.code)
    if await seen.has(notice.notice_id):
        return Answer(SUCCESS, 200, notice, is_repeated=True)
    expected = await amount_of(notice.out_trade_no)
    if expected is None:
        return Answer(FAILURE, 404, notice, "unknown_order")
    if expected != notice.amount_fen:
        return Answer(FAILURE, 400, notice, "amount")
    await deal(notice)
    await seen.add(notice.notice_id)
    return Answer(SUCCESS, 200, notice)


def notice_of(raw: bytes, merchant: Merchant, now: float) -> Notice:
    """Believed: signed by Alipay, of our app and our account, in yuan, of these days.

    Raises Refused: malformed, unsigned, signature, another_app, another_seller, currency, another_time. The
    signature is looked at first: nothing is told to whom it does not belong to.
    """
    told = _form(raw)
    if told.get("sign_type") != signing.SIGN_TYPE or not told.get("sign"):
        raise Refused("unsigned")
    if not signing.is_signed(merchant.alipay_key, signing.of_notice(told), told["sign"]):
        raise Refused("signature")
    if told.get("app_id") != merchant.app_id:
        raise Refused("another_app")
    if told.get("seller_id") != merchant.seller_id:
        raise Refused("another_seller")
    if any(told.get(name, "CNY") != "CNY" for name in ("trans_currency", "settle_currency", "currency")):
        raise Refused("currency")
    try:
        notice = _notice(told)
    except ValueError:
        raise Refused("malformed") from None
    if not -AHEAD_SECONDS_MAX <= now - notice.sent_at / 1000 <= LATE_SECONDS_MAX:
        raise Refused("another_time")
    return notice


def _form(raw: bytes) -> dict[str, str]:
    if len(raw) > BODY_BYTES_MAX:
        raise Refused("malformed")
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise Refused("malformed") from None
    told = dict(pairs)
    if len(told) != len(pairs):
        raise Refused("malformed")  # a name given twice: which of them was signed?
    return told


def _notice(told: Mapping[str, str]) -> Notice:
    notice_id, trade_no = told.get("notify_id", ""), told.get("trade_no", "")
    out_trade_no, request_no = told.get("out_trade_no", ""), told.get("out_biz_no", "")
    check_number(out_trade_no)
    if not 1 <= len(notice_id) <= 256 or not 1 <= len(trade_no) <= 64 or len(request_no) > 64:
        raise ValueError("alipay: a notice without its numbers")
    paid, amount, refunded = (
        told.get("gmt_payment"),
        fen_of(told.get("total_amount")),
        fen_of(told.get("refund_fee") or "0"),
    )
    if amount <= 0 or not 0 <= refunded <= amount:
        raise ValueError("alipay: a notice with amounts that cannot be")
    return Notice(
        notice_id,
        moment_of(told.get("notify_time")),
        out_trade_no,
        trade_no,
        TradeState(told.get("trade_status")),
        amount,
        moment_of(paid) if paid else None,
        refunded,
        request_no or None,
    )
