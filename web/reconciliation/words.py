"""What differences, channels and kinds of revenue are called, for people."""

from collections.abc import Mapping
from typing import Final

from engine.domain.reconciliation import Kind
from web.faults import Text

KINDS: Final[Mapping[str, Text]] = {
    Kind.PAID_UNKNOWN_HERE: Text("对方已收款，我方未入账", "paid there, unknown here"),
    Kind.PAID_HERE_UNKNOWN_THERE: Text("我方已入账，对方账单没有", "paid here, unknown there"),
    Kind.AMOUNT_DIFFERS: Text("金额不一致", "the amounts differ"),
    Kind.REFERENCE_DIFFERS: Text("交易号不一致", "another transaction"),
    Kind.PAID_TWICE: Text("同一订单重复收款", "paid twice"),
    Kind.REFUNDED_TWICE: Text("重复退款", "refunded twice"),
    Kind.REFUND_UNKNOWN_HERE: Text("对方已退款，我方未入账", "refunded there, unknown here"),
    Kind.REFUND_MISSING_THERE: Text("我方退款，对方账单没有", "refunded here, unknown there"),
    Kind.REFUND_UNDER_WAY: Text("退款处理中", "a refund under way"),
    Kind.FOREIGN_ROW: Text("不是本系统的订单", "not an order of ours"),
    Kind.OTHER_CURRENCY: Text("币种不是人民币", "another currency"),
    Kind.WRONG_DAY: Text("跨日", "on another day"),
    Kind.STATEMENT_MISSING: Text("对方没有当日账单", "no statement of that day"),
    Kind.STATEMENT_DOUBTFUL: Text("对方账单自身不平", "the statement does not add up"),
    Kind.BOOKED_WITHOUT_MONEY: Text("有号无款", "a number without money"),
    Kind.MONEY_WITHOUT_BOOKING: Text("有款无号", "money without a number"),
    Kind.HOSPITAL_NOT_TOLD: Text("收费系统未收到通知", "the hospital's billing was not told"),
    Kind.HOSPITAL_TELLS_MORE: Text("收费系统多记", "the hospital's billing has more"),
}
CHANNELS: Final[Mapping[str, str]] = {
    "wechat_pay": "微信支付",
    "alipay": "支付宝",
    "at_hospital": "窗口收费",
    "bookings": "预约",
    "hospital": "医院收费系统",
}
REVENUES: Final[Mapping[str, str]] = {
    "registration": "挂号诊查费",
    "drug": "药品费",
    "examination": "检查检验费",
}


def channel(name: str) -> str:
    return CHANNELS.get(name, name)


def revenue(kind: str) -> str:
    return REVENUES.get(kind, kind)
