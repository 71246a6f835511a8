"""What the cashier's desk says and hears. Texts are Chinese / English; amounts are fen."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from web.bills.bodies import COUPON_CHARS_MAX, Fen, PaymentStateWord, RefundStateWord
from web.patient.bodies import BillStatusWord, Id, Request, StatusWord, Word, ZonedTime
from web.queues.ticket_bodies import DocumentBody

Reason = Annotated[
    str,
    Field(
        min_length=2,
        max_length=500,
        pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
        description="原因，记入审计 / why; kept in the audit",
    ),
]


class RefundPath(Request):
    id: Annotated[UUID, Field(description="账单编号 / the bill")]
    refund: Annotated[UUID, Field(description="退款编号 / the refund")]


class AlarmPath(Request):
    id: Annotated[int, Field(ge=1, le=2**62, description="告警编号 / the alarm")]


class FindBillsBody(DocumentBody):
    """证件、二维码、就诊人、预约，或时段加序号：任选其一 / one of these ways to say whose."""

    patient_id: Annotated[UUID | None, Field(description="就诊人 / the patient")] = None
    appointment_id: Annotated[UUID | None, Field(description="预约 / the appointment")] = None
    slot_id: Annotated[Word | None, Field(description="时段，与 number 一起 / the slot, with a number")] = (
        None
    )
    number: Annotated[int | None, Field(ge=1, le=9_999, description="序号 / the number in its session")] = (
        None
    )


class OpenBillBody(Request):
    coupon: Annotated[
        str | None, Field(min_length=1, max_length=COUPON_CHARS_MAX, description="优惠券码 / a coupon's code")
    ] = None


class CashBody(Request):
    fee: Annotated[int, Field(ge=1, le=100_000_000, description="实收，分 / fen that were taken")]


class RefundLineBody(Request):
    line_id: Annotated[
        str, Field(pattern=r"^[^\x00-\x20\x7f]{1,64}$", description="账单明细 / a line of the bill")
    ]
    fee: Annotated[int, Field(ge=1, le=100_000_000, description="退还，分 / fen to give back of it")]


class RefundBody(Request):
    lines: Annotated[list[RefundLineBody], Field(min_length=1, max_length=200)]
    reason: Reason


class ReasonBody(Request):
    reason: Reason


class ShiftQuery(Request):
    since: Annotated[ZonedTime | None, Field(description="默认今天零点 / from today's midnight")] = None
    until: Annotated[ZonedTime | None, Field(description="默认现在 / until now")] = None


@dataclass(frozen=True, slots=True)
class DeskLineAnswer:
    id: str
    kind: Annotated[str, Field(description="registration、drug、examination")]
    item: Annotated[str, Field(description="目录代码 / code in the catalog")]
    name: Annotated[str, Field(description="号别名称；药品与检查不显示 / of number classes alone")]
    quantity: int
    fee: Annotated[int, Field(description="优惠前，分 / fen, before discounts")]
    left: Annotated[int, Field(description="已付且可退，分 / fen that were paid and may be given back")]


@dataclass(frozen=True, slots=True)
class DeskDiscountAnswer:
    line_id: str
    rule: Annotated[str, Field(description="first_visit、coupon、free_follow_up")]
    name: str
    fee: Fen


@dataclass(frozen=True, slots=True)
class DeskPaymentAnswer:
    id: Id
    provider: str
    status: PaymentStateWord
    fee: Fen
    received: Fen
    reference: Annotated[str, Field(description="交易号或收据号 / their number, or the receipt's")]
    is_of_this_bill: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class DeskRefundAnswer:
    id: Id
    payment_id: Id
    fee: Fen
    status: RefundStateWord
    cause: str
    code: Annotated[str, Field(description="支付渠道拒绝的原因 / why the provider refused")]
    provider: Annotated[str, Field(description="由谁退回；未退回为空 / who gave it back; empty: nobody yet")]
    reference: str
    by_hand_from: Annotated[
        datetime | None,
        Field(description="可由窗口退款的时刻 / from then on the desk may pay; null: it may not"),
    ]
    at: datetime


@dataclass(frozen=True, slots=True)
class DeskOutlineAnswer:
    id: Id
    status: BillStatusWord
    fee: Annotated[int, Field(description="优惠后应付，分 / fen to be paid, after discounts")]
    paid: Fen
    refunded: Fen
    owed_back: Fen
    patient_id: Id
    appointment_id: Id | None
    department_id: str
    department_name: str | None
    start: Annotated[datetime | None, Field(description="就诊时间 / of the visit")]
    pay_by: datetime | None
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class DeskBillAnswer(DeskOutlineAnswer):
    patient_name: str
    kept: Fen
    closed: Annotated[str, Field(description="为何不用再付 / why nothing is to be paid any more")]
    lines: list[DeskLineAnswer]
    discounts: list[DeskDiscountAnswer]
    payments: list[DeskPaymentAnswer]
    refunds: list[DeskRefundAnswer]


@dataclass(frozen=True, slots=True)
class UnbilledAnswer:
    """尚无账单的预约 / a number that has no bill yet."""

    appointment_id: Id
    status: StatusWord
    department_id: str
    department_name: str | None
    practitioner_name: str
    start: datetime
    fee: Fen


@dataclass(frozen=True, slots=True)
class FoundBillsAnswer:
    patient_id: Id
    patient_name: str
    bills: Annotated[list[DeskOutlineAnswer], Field(description="最近的在前 / the newest first")]
    numbers: Annotated[
        list[UnbilledAnswer], Field(description="今天起尚无账单的预约 / from today on, without a bill")
    ]


@dataclass(frozen=True, slots=True)
class CashTakenAnswer:
    receipt: Annotated[str, Field(description="收据号 / the receipt's number")]
    payment_id: Id
    bill: DeskBillAnswer


@dataclass(frozen=True, slots=True)
class RefundedAnswer:
    refund_id: Id
    receipt: Annotated[str | None, Field(description="窗口退款的凭单号 / of cash that was given back")]
    bill: DeskBillAnswer


@dataclass(frozen=True, slots=True)
class WaitingRefundAnswer:
    refund_id: Id
    bill_id: Id
    department_id: str
    fee: Fen
    cause: str
    provider: str
    code: str
    since: datetime
    by_hand_from: datetime


@dataclass(frozen=True, slots=True)
class SuspenseAnswer:
    """不属于任何账单的款项 / money that is for no bill, and on its way back."""

    payment_id: Id
    bill_id: Id
    department_id: str
    provider: str
    fee: Fen
    cause: Annotated[str, Field(description="double、late、amount")]
    refund_status: RefundStateWord
    since: datetime


@dataclass(frozen=True, slots=True)
class AlarmAnswer:
    id: int
    at: datetime
    last_at: datetime
    times: int
    provider: str
    what: str
    why: str
    order_id: str
    bill_id: Id | None


@dataclass(frozen=True, slots=True)
class AwaitedAnswer:
    """等待他人批准的退款 / a refund that waits for somebody's consent."""

    request_id: Id
    bill_id: Id
    fee: Fen
    asked_by: str
    asked_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class DeskWorkAnswer:
    refunds: list[WaitingRefundAnswer]
    suspense: list[SuspenseAnswer]
    alarms: list[AlarmAnswer]
    awaited: list[AwaitedAnswer]


@dataclass(frozen=True, slots=True)
class ReceiptAnswer:
    number: str
    kind: Annotated[Literal["in", "out"], Field(description="收、退 / taken, given back")]
    bill_id: Id
    fee: Fen
    at: datetime
    is_void: Annotated[bool, Field(description="作废：没有收退款 / the bill refused it: no money moved")]


@dataclass(frozen=True, slots=True)
class ShiftAnswer:
    cashier: str
    since: datetime
    until: datetime
    taken: Fen
    taken_count: int
    given_back: Fen
    given_back_count: int
    balance: Annotated[int, Field(description="应缴现金，分 / fen that the till must have more")]
    receipts: Annotated[list[ReceiptAnswer], Field(description="最多 2000 条 / the first 2,000 at most")]
