"""Alipay's words in ours, and ours in theirs. Pure. Money is an int of fen, moments are ms since 1970.

Their times are Beijing's, without saying so. Who paid (open id, masked login) is not read: nothing needs it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, Final

from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain

BEIJING: Final = timezone(timedelta(hours=8))
FEN_MAX: Final = 10_000_000_000  # theirs: 100,000,000 yuan
SUBJECT_MAX: Final = 128
BALANCE_AGAIN_SECONDS: Final = 600.0

_YUAN: Final = re.compile(r"(-?)([0-9]{1,9})(?:\.([0-9]{1,2}))?")
_NUMBER: Final = re.compile(r"[0-9A-Za-z_]{1,64}")
_CODE: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
_NOT_IN_SUBJECTS: Final = re.compile(r"[/=&,\"\x00-\x1f]")
_USER_ID: Final = re.compile(r"2088[0-9]{12}")


class TradeState(Enum):
    WAITING = "WAIT_BUYER_PAY"
    PAID = "TRADE_SUCCESS"  # and can be refunded
    FINISHED = "TRADE_FINISHED"  # paid, and the time to refund is over
    CLOSED = "TRADE_CLOSED"  # never paid, or refunded in full: `Trade.was_paid` tells which


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody is to pay. All of it the same in every try: it is one trade by its number."""

    out_trade_no: str  # ours: 1 to 64 letters, digits and underlines
    amount_fen: int
    subject: str  # what the payer and the bill's readers read; names no illness and nobody
    expires_at: int  # ms: unpaid by then, it closes by itself

    def __post_init__(self) -> None:
        check_number(self.out_trade_no)
        if not 0 < self.amount_fen <= FEN_MAX:
            raise ValueError("alipay: an amount that nobody can pay")
        if not 1 <= len(self.subject) <= SUBJECT_MAX or _NOT_IN_SUBJECTS.search(self.subject):
            raise ValueError("alipay: a subject that they, or their bill, would not take")


@dataclass(frozen=True, slots=True)
class Trade:
    out_trade_no: str
    trade_no: str  # theirs
    state: TradeState
    amount_fen: int  # of the order; the asker compares it with the bill
    paid_at: int | None  # ms

    @property
    def was_paid(self) -> bool:
        return self.state in (TradeState.PAID, TradeState.FINISHED) or self.paid_at is not None


@dataclass(frozen=True, slots=True)
class Refund:
    """Money to give back. `out_request_no` names it: the same one never gives back twice."""

    out_trade_no: str
    out_request_no: str
    amount_fen: int
    reason: str = ""  # the payer may read it

    def __post_init__(self) -> None:
        check_number(self.out_trade_no)
        check_number(self.out_request_no)
        if not 0 < self.amount_fen <= FEN_MAX:
            raise ValueError("alipay: an amount that nobody can get back")


@dataclass(frozen=True, slots=True)
class Refunded:
    out_trade_no: str
    out_request_no: str
    amount_fen: int  # of this refund alone


class BalanceShort(TryAgain):
    """Not refunded: the hospital's account there is empty. It works once it is filled: tell the cashier."""


def fen_of(text: object) -> int:
    """'20.00' -> 2000, '-0.5' -> -50. Raises ValueError for anything else, numbers of JSON included."""
    found = _YUAN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("alipay: an amount that is none")
    fen = int(found[2]) * 100 + int((found[3] or "").ljust(2, "0"))
    return -fen if found[1] else fen


def yuan_of(fen: int) -> str:
    sign = "-" if fen < 0 else ""
    return f"{sign}{abs(fen) // 100}.{abs(fen) % 100:02d}"


def moment_of(text: object) -> int:
    """'2026-10-03 10:00:30' (some with .123 after it) -> ms. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("alipay: a time that is none")
    at = datetime.strptime(text[:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
    return int(at.timestamp()) * 1000


def time_text(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, BEIJING).strftime("%Y-%m-%d %H:%M:%S")


def check_number(number: str) -> None:
    if _NUMBER.fullmatch(number) is None:
        raise ValueError("alipay: a number that they would not take")


def create_content(order: Order, buyer: str, app_id: str) -> dict[str, object]:
    """`buyer`: their user id (2088…) or their open id of this app."""
    whose = "buyer_id" if _USER_ID.fullmatch(buyer) else "buyer_open_id"
    return {**_order(order), "product_code": "JSAPI_PAY", "op_app_id": app_id, whose: buyer}


def page_content(order: Order, quit_url: str) -> dict[str, object]:
    return {**_order(order), "product_code": "QUICK_WAP_WAY", "quit_url": quit_url}


def refund_content(refund: Refund) -> dict[str, object]:
    content: dict[str, object] = {
        "out_trade_no": refund.out_trade_no,
        "out_request_no": refund.out_request_no,
        "refund_amount": yuan_of(refund.amount_fen),
    }
    return content | ({"refund_reason": refund.reason} if refund.reason else {})


def _order(order: Order) -> dict[str, object]:
    return {
        "out_trade_no": order.out_trade_no,
        "total_amount": yuan_of(order.amount_fen),
        "subject": order.subject,
        "time_expire": time_text(order.expires_at),
    }


def trade_of(node: Mapping[str, Any]) -> Trade:
    """Of an answer to a query. Raises ValueError."""
    paid = node.get("send_pay_date")
    return Trade(
        _text(node, "out_trade_no"),
        _text(node, "trade_no"),
        TradeState(node.get("trade_status")),
        fen_of(node.get("total_amount")),
        moment_of(paid) if paid else None,
    )


def refund_done(node: Mapping[str, Any]) -> Refunded | None:
    """Of an answer to a query for a refund; None where it says that there is none. Raises ValueError.

    They answer 10000 without the refund's state where it was not done.
    """
    state = node.get("refund_status")
    if state is None:
        return None
    if state != "REFUND_SUCCESS":
        raise ValueError("alipay: a refund in a state of its own")
    return Refunded(
        _text(node, "out_trade_no"), _text(node, "out_request_no"), fen_of(node.get("refund_amount"))
    )


def _text(node: Mapping[str, Any], name: str) -> str:
    value = node.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"alipay: an answer without {name}")
    return value


# Their words for "not done, and not to be done", https://opendocs.alipay.com. Others keep their own name.
_REFUSED: Final = {
    "ACQ.TRADE_NOT_EXIST": "not_exist",
    "ACQ.TRADE_HAS_SUCCESS": "paid",
    "ACQ.TRADE_HAS_CLOSE": "closed",
    "ACQ.TRADE_STATUS_ERROR": "wrong_state",
    "ACQ.REASON_TRADE_STATUS_INVALID": "wrong_state",
    "ACQ.REASON_ILLEGAL_STATUS": "wrong_state",
    "ACQ.TRADE_HAS_FINISHED": "finished",
    "ACQ.TOTAL_FEE_EXCEED": "amount",
    "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL": "amount",
    "ACQ.REASON_TRADE_REFUND_FEE_ERR": "amount",
    "ACQ.REFUND_FEE_ERROR": "amount",
    "ACQ.CONTEXT_INCONSISTENT": "another_request",
    "ACQ.DISCORDANT_REPEAT_REQUEST": "another_request",
    "ACQ.TRADE_BUYER_NOT_MATCH": "another_buyer",
    "ACQ.REASON_TRADE_BEEN_FREEZEN": "frozen",
    "isp.bill_not_exist": "no_bill",
    "isv.invalid-signature": "our_signature",
    "isv.invalid-app-id": "our_app_id",
}
# Refused before anything was done: no permission, a parameter that is missing or wrong.
_REFUSED_CODES: Final = ("20001", "40001", "40002", "40003", "40006")
# Business words that say "something went wrong here", and so not whether it was done.
_DOUBTFUL: Final = re.compile(
    r"^(?:isp|aop)\.|SYSTEM|UNKNO|TIME_?OUT|BUSY|PROCESSING|CONCURREN", re.IGNORECASE
)
_TOO_OFTEN: Final = re.compile(r"call-?limit|limited", re.IGNORECASE)


def failure_of(node: Mapping[str, Any], changes: bool) -> ConnectorFailed | None:
    """What a believed answer's code means; None: it was done. `changes`: the request moves something."""
    code = node.get("code")
    if code == "10000":
        return None
    told = node.get("sub_code")
    sub = told if isinstance(told, str) and _CODE.fullmatch(told) else ""
    said = f"alipay: {code if isinstance(code, str) and _CODE.fullmatch(code) else '?'} {sub}".rstrip()
    if sub in _REFUSED:
        return Refused(_REFUSED[sub])
    if sub == "ACQ.SELLER_BALANCE_NOT_ENOUGH":
        return BalanceShort(said, BALANCE_AGAIN_SECONDS)
    if code == "40005" or _TOO_OFTEN.search(sub):
        return TryAgain(said)
    if code in _REFUSED_CODES or (code == "40004" and sub and not _DOUBTFUL.search(sub)):
        return Refused(sub or str(code))
    return OutcomeUnknown(said) if changes else TryAgain(said)
