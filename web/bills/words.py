"""What states of bills are called, for people."""

from collections.abc import Mapping
from typing import Final

from engine.domain import payment as p
from engine.domain.refund_rules import Cause
from web.bills.bodies import PaymentStateWord, RefundStateWord
from web.faults import Text

BILL: Final[Mapping[str, Text]] = {
    p.Status.OPEN: Text("待支付", "To be paid"),
    p.Status.AT_HOSPITAL: Text("到院支付", "To be paid at the hospital"),
    p.Status.PAID: Text("已付款，正在确认号源", "Paid; the number is being confirmed"),
    p.Status.SETTLED: Text("已支付", "Paid"),
    p.Status.CLOSED: Text("已关闭，无需支付", "Closed; nothing is to be paid"),
    p.Status.REFUNDING: Text("退款处理中", "A refund is under way"),
    p.Status.PARTLY_REFUNDED: Text("已部分退款", "Refunded in part"),
    p.Status.REFUNDED: Text("已退款", "Refunded"),
}

PAYMENT_STATES: Final[Mapping[p.Paying, PaymentStateWord]] = {
    p.Paying.CREATED: "created",
    p.Paying.ASKED: "asked",
    p.Paying.UNKNOWN: "unknown",
    p.Paying.PAID: "paid",
    p.Paying.CLOSED: "closed",
    p.Paying.FAILED: "failed",
}
PAYMENT: Final[Mapping[p.Paying, Text]] = {
    p.Paying.CREATED: Text("正在发起", "Being begun"),
    p.Paying.ASKED: Text("等待付款", "Waiting for the payer"),
    p.Paying.UNKNOWN: Text("正在查询结果", "Being asked after"),
    p.Paying.PAID: Text("已付款", "Paid"),
    p.Paying.CLOSED: Text("已关闭，未付款", "Closed unpaid"),
    p.Paying.FAILED: Text("未能发起", "Not begun"),
}

REFUND_STATES: Final[Mapping[p.Refunding, RefundStateWord]] = {
    p.Refunding.REQUESTED: "requested",
    p.Refunding.SENT: "sent",
    p.Refunding.UNKNOWN: "unknown",
    p.Refunding.REFUSED: "refused",
    p.Refunding.DONE: "done",
}
REFUND: Final[Mapping[p.Refunding, Text]] = {
    p.Refunding.REQUESTED: Text("已申请退款", "Requested"),
    p.Refunding.SENT: Text("支付平台处理中", "The provider works on it"),
    p.Refunding.UNKNOWN: Text("正在查询结果", "Being asked after"),
    p.Refunding.REFUSED: Text("需到窗口办理", "To be settled at the cashier's desk"),
    p.Refunding.DONE: Text("已退回", "Given back"),
}

CAUSES: Final[Mapping[str, Text]] = {
    Cause.FULL: Text("付款到账时号源已无余号", "No seat was left when the payment came"),
    Cause.CANCELLED: Text("取消预约", "The number was cancelled"),
    Cause.EXCUSED: Text("医院原因取消", "Cancelled for a reason of the hospital's"),
    Cause.SUSPENDED: Text("停诊", "The session was called off"),
    Cause.NO_SHOW: Text("未就诊", "The visit was missed"),
    Cause.EXPIRED: Text("付款超时", "It was not paid in time"),
    "double": Text("重复付款", "It was paid twice"),
    "late": Text("付款晚于关闭", "It was paid after the bill was closed"),
    "amount": Text("付款金额不符", "Another amount was paid"),
    "desk": Text("窗口退款", "Given back by the desk"),
    "changed": Text("改签差价", "The new number costs less"),
}
OTHER_CAUSE: Final = Text("医院办理的退款", "Given back by the hospital")

RULES: Final[Mapping[str, Text]] = {
    "first_visit": Text("首诊优惠", "First visit"),
    "coupon": Text("优惠券", "Coupon"),
    "free_follow_up": Text("免费复诊期内", "Within the free follow-up window"),
}
KINDS: Final[Mapping[str, Text]] = {
    "registration": Text("挂号费", "Registration"),
    "drug": Text("药品费", "Drugs"),
    "examination": Text("检查费", "Examination"),
}
