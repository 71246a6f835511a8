"""The providers' bills of a day, each in its own words, as rows that can be compared. Pure."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from engine.domain.reconciliation import Money, Statement, StatementRow, Went
from integrations.alipay import bill as alipay
from integrations.alipay.translate import BEIJING
from integrations.wechat_pay import bill as wechat_pay

_OURS: Final = re.compile(r"[0-9a-f]{32}")
_MILLIFEN: Final = 1000
_FAILED: Final = frozenset(("FAIL", "FAILED", "CLOSED", "ABNORMAL", "CHANGE", "NOTSURE", "REFUNDCLOSE"))
_OPEN: Final = frozenset(("PROCESSING",))


def order_of(number: str) -> bytes:
    """Ours, where it is spelled like one of ours; b'': it is not."""
    return bytes.fromhex(number) if _OURS.fullmatch(number) else b""


def of_wechat_pay(bill: wechat_pay.Bill) -> Statement:
    return Statement(tuple(map(_of_wechat_pay, bill.rows)))


def _of_wechat_pay(row: wechat_pay.BillRow) -> StatementRow:
    if row.kind is wechat_pay.Kind.PAYMENT:
        return StatementRow(
            Money.PAYMENT,
            order_of(row.out_trade_no),
            row.transaction_id,
            row.total_fen,
            row.at,
            fee_millifen=row.fee_millifen,
            currency=row.currency,
            number=row.out_trade_no,
        )
    number = row.out_refund_no or row.out_trade_no
    return StatementRow(
        Money.REFUND,
        order_of(row.out_refund_no or ""),
        row.refund_id or row.transaction_id,
        row.refund_fen,
        row.at,
        order_of(row.out_trade_no),
        row.fee_millifen,
        row.currency,
        _went(row.refund_state),
        number,
    )


def _went(state: str | None) -> Went:
    if state in _OPEN:
        return Went.OPEN
    return Went.FAILED if state in _FAILED else Went.DONE


def of_alipay(bill: alipay.Bill) -> Statement:
    doubts = list(bill.doubts)
    if bill.others:
        doubts.append(f"rows that are neither a payment nor a refund: {bill.others}")
    return Statement(tuple(_of_alipay(bill.rows)), tuple(doubts))


def _of_alipay(rows: Iterable[alipay.Row]) -> Iterable[StatementRow]:
    for row in rows:
        at = datetime.fromtimestamp(row.at / 1000, BEIJING)
        is_refund = row.kind is alipay.Kind.REFUNDED
        number = (row.out_request_no or row.out_trade_no) if is_refund else row.out_trade_no
        yield StatementRow(
            Money.REFUND if is_refund else Money.PAYMENT,
            order_of((row.out_request_no or "") if is_refund else row.out_trade_no),
            row.trade_no,
            row.amount_fen,
            at,
            order_of(row.out_trade_no) if is_refund else b"",
            row.fee_fen * _MILLIFEN,
            number=number,
        )
