"""The sandbox's bill of a day, as theirs is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from integrations.wechat_pay.bill import HEADER, SUMMARY
from integrations.wechat_pay.translate import CURRENCY

FEE_OF_A_THOUSAND: Final = 6  # 0.60%


@dataclass(frozen=True, slots=True)
class Line:
    at: datetime  # in Beijing's time
    app_id: str
    mch_id: str
    transaction_id: str
    out_trade_no: str
    openid: str
    description: str
    total_fen: int  # 0 of a refund
    refund_id: str | None
    out_refund_no: str | None
    refund_state: str | None
    refund_fen: int

    @property
    def fee_millifen(self) -> int:
        return (self.total_fen - self.refund_fen) * FEE_OF_A_THOUSAND


def written(lines: Sequence[Line]) -> str:
    total, given_back = sum(one.total_fen for one in lines), sum(one.refund_fen for one in lines)
    sums = [
        str(len(lines)),
        _yuan(total),
        _yuan(given_back),
        "0.00",
        _fee(sum(one.fee_millifen for one in lines)),
        _yuan(total),
        _yuan(given_back),
    ]
    rows = [",".join(HEADER), *(_text(_fields(one)) for one in lines), ",".join(SUMMARY), _text(sums)]
    return "".join(f"{row}\r\n" for row in rows)


def _fields(line: Line) -> list[str]:
    is_refund = line.refund_id is not None
    said = {
        "交易时间": line.at.strftime("%Y-%m-%d %H:%M:%S"),
        "公众账号ID": line.app_id,
        "商户号": line.mch_id,
        "特约商户号": "0",
        "微信订单号": line.transaction_id,
        "商户订单号": line.out_trade_no,
        "用户标识": line.openid,
        "交易类型": "JSAPI",
        "交易状态": "REFUND" if is_refund else "SUCCESS",
        "付款银行": "OTHERS",
        "货币种类": CURRENCY,
        "应结订单金额": _yuan(line.total_fen),
        "代金券金额": "0.00",
        "微信退款单号": line.refund_id or "0",
        "商户退款单号": line.out_refund_no or "0",
        "退款金额": _yuan(line.refund_fen),
        "充值券退款金额": "0.00",
        "退款类型": "ORIGINAL" if is_refund else "",
        "退款状态": line.refund_state or "",
        "商品名称": line.description,
        "手续费": _fee(line.fee_millifen),
        "费率": f"{FEE_OF_A_THOUSAND / 10:.2f}%",
        "订单金额": _yuan(line.total_fen),
        "申请退款金额": _yuan(line.refund_fen),
    }
    return [said.get(name, "") for name in HEADER]


def _text(values: Sequence[str]) -> str:
    return ",".join(f"`{value}" for value in values)


def _yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02}"


def _fee(millifen: int) -> str:
    return f"{'-' if millifen < 0 else ''}{abs(millifen) // 100_000}.{abs(millifen) % 100_000:05}"
