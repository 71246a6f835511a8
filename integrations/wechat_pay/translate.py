"""WeChat Pay's words, and ours: questions out, answers in. Pure. Money is an int of fen.

An answer that does not hold together, or that speaks of something else than was asked, raises Unbelievable:
the client makes it TryAgain or OutcomeUnknown, a callback is refused.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, Final

from integrations.connector import Refused

CURRENCY: Final = "CNY"
BEIJING: Final = timezone(timedelta(hours=8))  # the zone of their times and of their bills' days
FEN_MAX: Final = 10**11

_NUMBER: Final = re.compile(r"[0-9A-Za-z_-]{6,32}")
_REFUND_NUMBER: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_TRANSACTION: Final = re.compile(r"[0-9A-Za-z]{1,32}")
_OPENID: Final = re.compile(r"[0-9A-Za-z_-]{1,128}")
_WORD: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
DESCRIPTION_CHARACTERS_MAX: Final = 127
REASON_BYTES_MAX: Final = 80
URL_CHARACTERS_MAX: Final = 255


class Unbelievable(Exception):
    """Their answer does not hold together, or is about something else."""


class PaymentState(StrEnum):
    SUCCESS = "SUCCESS"
    REFUND = "REFUND"  # paid, and some or all of it was given back
    NOTPAY = "NOTPAY"
    CLOSED = "CLOSED"
    REVOKED = "REVOKED"
    USERPAYING = "USERPAYING"
    PAYERROR = "PAYERROR"

    @property
    def is_paid(self) -> bool:
        return self in (PaymentState.SUCCESS, PaymentState.REFUND)


class RefundState(StrEnum):
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    CLOSED = "CLOSED"  # not done
    ABNORMAL = "ABNORMAL"  # the money did not reach the payer's card: the cashier's matter


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be paid. The number is ours: 6 to 32 letters, digits, - and _; for one order only."""

    out_trade_no: str
    description: str  # the payer reads it: no patient's data
    total_fen: int
    openid: str = field(repr=False)
    expires_at: datetime
    notify_url: str  # https, without a query


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """The number makes it idempotent: sent again with the same content it is the same refund."""

    out_refund_no: str
    out_trade_no: str
    refund_fen: int
    total_fen: int  # of the payment
    reason: str  # the payer reads it
    notify_url: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """A payment, as they have it. Whoever books it compares amount and currency with the bill."""

    out_trade_no: str
    state: PaymentState
    transaction_id: str | None
    paid_at: datetime | None
    total_fen: int | None  # None only where it is not paid
    currency: str | None
    openid: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refund:
    out_refund_no: str
    refund_id: str
    out_trade_no: str
    transaction_id: str
    state: RefundState
    refund_fen: int
    total_fen: int
    currency: str | None  # callbacks do not say it
    done_at: datetime | None


def number_of(text: str) -> str:
    """Raises Refused where it cannot be an order's: before it gets into a path."""
    return _fit(_NUMBER, text)


def refund_number_of(text: str) -> str:
    return _fit(_REFUND_NUMBER, text)


def transaction_id_of(text: str) -> str:
    return _fit(_TRANSACTION, text)


def _fit(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise Refused("PARAM_ERROR", "wechat pay: not a number")
    return text


def prepay_body(order: Order, mch_id: str, app_id: str) -> dict[str, object]:
    """Raises Refused, PARAM_ERROR, where they would."""
    _want(0 < order.total_fen <= FEN_MAX, "total_fen")
    _want(0 < len(order.description) <= DESCRIPTION_CHARACTERS_MAX, "description")
    _want(_OPENID.fullmatch(order.openid) is not None, "openid")
    _want(order.expires_at.tzinfo is not None, "expires_at")
    _want_url(order.notify_url)
    return {
        "appid": app_id,
        "mchid": mch_id,
        "description": order.description,
        "out_trade_no": number_of(order.out_trade_no),
        "time_expire": order.expires_at.astimezone(BEIJING).isoformat(timespec="seconds"),
        "notify_url": order.notify_url,
        "amount": {"total": order.total_fen, "currency": CURRENCY},
        "payer": {"openid": order.openid},
    }


def refund_body(order: RefundOrder) -> dict[str, object]:
    """Raises Refused, PARAM_ERROR, where they would: a refund above what was paid never leaves."""
    _want(0 < order.refund_fen <= order.total_fen <= FEN_MAX, "refund_fen")
    _want(0 < len(order.reason.encode()) <= REASON_BYTES_MAX, "reason")
    _want_url(order.notify_url)
    return {
        "out_trade_no": number_of(order.out_trade_no),
        "out_refund_no": refund_number_of(order.out_refund_no),
        "reason": order.reason,
        "notify_url": order.notify_url,
        "amount": {"refund": order.refund_fen, "total": order.total_fen, "currency": CURRENCY},
    }


def _want(is_so: bool, name: str) -> None:
    if not is_so:
        raise Refused("PARAM_ERROR", f"wechat pay: {name}")


def _want_url(url: str) -> None:
    fits = url.startswith(("https://", "http://")) and "?" not in url and len(url) <= URL_CHARACTERS_MAX
    _want(fits, "notify_url")


def prepay_id_of(answer: Any) -> str:
    return _text(answer, "prepay_id")


def transaction_of(answer: Any, mch_id: str, app_id: str) -> Transaction:
    """Raises Refused where it is another merchant's or another app's, Unbelievable where it says nothing."""
    _same(answer, "mchid", mch_id, "another_merchant")
    _same(answer, "appid", app_id, "another_app")
    try:
        state = PaymentState(_text(answer, "trade_state"))
    except ValueError:
        raise Unbelievable("trade_state") from None
    amount = answer.get("amount")
    if state.is_paid or amount is not None:
        total, currency = _fen(amount, "total"), _text(amount, "currency", CURRENCY)
    else:
        total, currency = None, None
    payer = answer.get("payer")
    return Transaction(
        _text(answer, "out_trade_no"),
        state,
        _text(answer, "transaction_id") if state.is_paid else None,
        _time(answer, "success_time") if state.is_paid else None,
        total,
        currency,
        payer.get("openid") if isinstance(payer, dict) and isinstance(payer.get("openid"), str) else None,
    )


def refund_of(answer: Any) -> Refund:
    """Of a refund's own answer, and of a question after it."""
    return _refund(answer, "status", _text(_object(answer, "amount"), "currency"))


def refund_of_callback(answer: Any, mch_id: str) -> Refund:
    _same(answer, "mchid", mch_id, "another_merchant")
    return _refund(answer, "refund_status", None)


def _refund(answer: Any, state_name: str, currency: str | None) -> Refund:
    try:
        state = RefundState(_text(answer, state_name))
    except ValueError:
        raise Unbelievable(state_name) from None
    amount = _object(answer, "amount")
    return Refund(
        _text(answer, "out_refund_no"),
        _text(answer, "refund_id"),
        _text(answer, "out_trade_no"),
        _text(answer, "transaction_id"),
        state,
        _fen(amount, "refund"),
        _fen(amount, "total"),
        currency,
        _time(answer, "success_time") if state is RefundState.SUCCESS else None,
    )


# Two spellings of a word were and are in use: ORDERPAID and ORDER_PAID.
_WORDS: Final = {
    word.replace("_", ""): word
    for word in (
        "SYSTEM_ERROR",
        "BANK_ERROR",
        "FREQUENCY_LIMITED",
        "RATELIMIT_EXCEEDED",
        "SIGN_ERROR",
        "PARAM_ERROR",
        "INVALID_REQUEST",
        "NO_AUTH",
        "ORDER_NOT_EXIST",
        "ORDER_PAID",
        "ORDER_CLOSED",
        "OUT_TRADE_NO_USED",
        "OPENID_MISMATCH",
        "APPID_MCHID_NOT_MATCH",
        "MCH_NOT_EXISTS",
        "NOT_ENOUGH",
        "REQUEST_BLOCKED",
        "USER_ACCOUNT_ABNORMAL",
        "RESOURCE_NOT_EXISTS",
        "NO_STATEMENT_EXIST",
        "STATEMENT_CREATING",
        "RULE_LIMIT",
        "TRADE_ERROR",
    )
} | {
    "FREQUENCYLIMIT": "FREQUENCY_LIMITED",
    "FREQUENCYLIMITEXCEED": "FREQUENCY_LIMITED",
    "RATELIMITEXCEED": "RATELIMIT_EXCEEDED",
}


def code_of(answer: Any) -> str:
    """Their word for why, spelled in one way; '' where there is none."""
    code = answer.get("code") if isinstance(answer, dict) else None
    if not isinstance(code, str) or _WORD.fullmatch(code) is None:
        return ""
    return _WORDS.get(code.upper().replace("_", ""), code)


def _same(answer: Any, name: str, value: str, code: str) -> None:
    if _text(answer, name) != value:
        raise Refused(code, "wechat pay: not ours")


def _object(answer: Any, name: str) -> dict[str, Any]:
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise Unbelievable(name)
    return found


def _text(answer: Any, name: str, default: str | None = None) -> str:
    found = answer.get(name, default) if isinstance(answer, dict) else None
    if not isinstance(found, str) or not found:
        raise Unbelievable(name)
    return found


def _fen(answer: Any, name: str) -> int:
    found = answer.get(name) if isinstance(answer, dict) else None
    if type(found) is not int or not 0 <= found <= FEN_MAX:
        raise Unbelievable(name)
    return found


def _time(answer: Any, name: str) -> datetime:
    try:
        found = datetime.fromisoformat(_text(answer, name))
    except ValueError:
        raise Unbelievable(name) from None
    if found.tzinfo is None:
        raise Unbelievable(name)
    return found
