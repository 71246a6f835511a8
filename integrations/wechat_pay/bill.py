"""The day's bill (交易账单): what WeChat Pay says was paid and given back on a day of Beijing. Pure.

Lines of fields that start with a backtick, so that spreadsheets leave long numbers alone; UTF-8 or GBK; a
line with sums at the end, which must be right. Columns are found by their names. Raises Refused, bad_bill:
asking again would bring the same bytes, since their hash was right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from integrations.connector import Refused
from integrations.wechat_pay.translate import BEIJING

HEADER: Final = (
    *("交易时间", "公众账号ID", "商户号", "特约商户号", "设备号", "微信订单号", "商户订单号", "用户标识"),
    *(
        "交易类型",
        "交易状态",
        "付款银行",
        "货币种类",
        "应结订单金额",
        "代金券金额",
        "微信退款单号",
        "商户退款单号",
    ),
    *(
        "退款金额",
        "充值券退款金额",
        "退款类型",
        "退款状态",
        "商品名称",
        "商户数据包",
        "手续费",
        "费率",
        "订单金额",
    ),
    *("申请退款金额", "费率备注"),
)
SUMMARY: Final = (
    *("总交易单数", "应结订单总金额", "退款总金额", "充值券退款总金额", "手续费总金额", "订单总金额"),
    "申请退款总金额",
)
_SUMS: Final = {  # of which column each sum is
    "应结订单总金额": "应结订单金额",
    "退款总金额": "退款金额",
    "充值券退款总金额": "充值券退款金额",
    "手续费总金额": "手续费",
    "订单总金额": "订单金额",
    "申请退款总金额": "申请退款金额",
}
_WANTED: Final = frozenset(HEADER) - {"特约商户号", "设备号", "费率备注", "商户数据包", "付款银行", "费率"}
_YUAN: Final = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,5}))?")
_MILLIFEN_A_FEN: Final = 1000


class Kind(StrEnum):
    PAYMENT = "SUCCESS"
    REFUND = "REFUND"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class BillRow:
    at: datetime
    app_id: str
    mch_id: str
    transaction_id: str
    out_trade_no: str
    openid: str = field(repr=False)
    kind: Kind
    currency: str
    total_fen: int  # of the order; what the hospital asked for
    settled_fen: int  # of it, without vouchers that WeChat gave
    refund_id: str | None
    out_refund_no: str | None
    refund_fen: int  # as the hospital asked for
    refund_settled_fen: int
    refund_state: str | None
    fee_millifen: int
    """Theirs, in thousandths of a fen: rates make parts of one. Less than 0 where it is given back."""


@dataclass(frozen=True, slots=True)
class Bill:
    rows: tuple[BillRow, ...]
    total_fen: int
    refund_fen: int
    fee_millifen: int


def parsed(content: bytes) -> Bill:
    lines = [line for line in _decoded(content).splitlines() if line.strip()]
    if len(lines) < 3 or not lines[0].startswith("交易时间,"):
        raise _bad("no bill")
    names = lines[0].split(",")
    if not set(names) >= _WANTED or len(set(names)) != len(names):
        raise _bad("other columns")
    table = [_named(names, line) for line in lines[1:-2]]
    _check_sums(table, _named(lines[-2].split(","), lines[-1]))
    rows = tuple(_row(fields) for fields in table)
    return Bill(
        rows,
        sum(row.total_fen for row in rows),
        sum(row.refund_fen for row in rows),
        sum(row.fee_millifen for row in rows),
    )


def _decoded(content: bytes) -> str:
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise _bad("another encoding")


def _named(names: Sequence[str], line: str) -> dict[str, str]:
    # Not at every comma: a description may have some. Each field starts with a backtick.
    fields = line.removeprefix("`").split(",`")
    if not line.startswith("`") or len(fields) != len(names):
        raise _bad("a line of another length")
    return dict(zip(names, (field.strip() for field in fields), strict=True))


def _check_sums(table: Sequence[dict[str, str]], said: dict[str, str]) -> None:
    if said.get("总交易单数") != str(len(table)):
        raise _bad("some lines are missing")
    for name, column in _SUMS.items():
        if name not in said or _millifen(said[name]) != sum(_millifen(fields[column]) for fields in table):
            raise _bad("the sums are not right")


def _row(fields: dict[str, str]) -> BillRow:
    try:
        kind = Kind(fields["交易状态"])
        at = datetime.strptime(f"{fields['交易时间']}+0800", "%Y-%m-%d %H:%M:%S%z")
    except ValueError:
        raise _bad("a line that is not understood") from None
    is_refund = kind is not Kind.PAYMENT
    return BillRow(
        at=at.astimezone(BEIJING),
        app_id=fields["公众账号ID"],
        mch_id=fields["商户号"],
        transaction_id=fields["微信订单号"],
        out_trade_no=fields["商户订单号"],
        openid=fields["用户标识"],
        kind=kind,
        currency=fields["货币种类"],
        total_fen=_fen(fields["订单金额"]) if not is_refund else 0,
        settled_fen=_fen(fields["应结订单金额"]),
        refund_id=fields["微信退款单号"] if is_refund else None,
        out_refund_no=fields["商户退款单号"] if is_refund else None,
        refund_fen=_fen(fields["申请退款金额"]),
        refund_settled_fen=_fen(fields["退款金额"]),
        refund_state=fields["退款状态"] or None,
        fee_millifen=_millifen(fields["手续费"]),
    )


def _fen(yuan: str) -> int:
    fen, rest = divmod(_millifen(yuan), _MILLIFEN_A_FEN)
    if rest or fen < 0:
        raise _bad("an amount that is none")
    return fen


def _millifen(yuan: str) -> int:
    """Text to int, without a float between them."""
    found = _YUAN.fullmatch(yuan)
    if found is None:
        raise _bad("an amount that is none")
    amount = int(found[2]) * 100 * _MILLIFEN_A_FEN + int((found[3] or "").ljust(5, "0"))
    return -amount if found[1] else amount


def _bad(why: str) -> Refused:
    return Refused("bad_bill", f"wechat pay: {why}")
