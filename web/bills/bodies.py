"""What the routes of bills take and give."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from web.patient.bodies import BillStatusWord, Id, Provider, Request, ZonedTime
from web.queues.ticket_bodies import NameAnswer

COUPON_CHARS_MAX = 32

PaymentStateWord = Literal["created", "asked", "unknown", "paid", "closed", "failed"]
RefundStateWord = Literal["requested", "sent", "unknown", "refused", "done"]
Fen = Annotated[int, Field(description="分 / fen")]


class BillPath(Request):
    id: Annotated[UUID, Field(description="账单编号 / the bill")]


class PaymentPath(Request):
    id: Annotated[UUID, Field(description="账单编号 / the bill")]
    payment: Annotated[UUID, Field(description="支付编号 / the payment")]


class PaymentBody(Request):
    provider: Annotated[Provider, Field(description="支付方式 / how it will be paid")]
    coupon: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=COUPON_CHARS_MAX,
            description="优惠券码，首次支付时使用 / a coupon's code, with the first payment of a bill",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class PaymentAnswer:
    bill_id: Id
    provider: Provider
    status: Annotated[
        Literal["waiting", "paid", "at_hospital"],
        Field(description="待付款、已付款、到院支付 / to be paid now, paid, to be paid at the hospital"),
    ]
    fee: Fen
    client: Annotated[
        dict[str, str], Field(description="客户端调起支付所需 / what the client's pay call needs")
    ]


@dataclass(frozen=True, slots=True)
class OnlinePaymentAnswer(PaymentAnswer):
    payment_id: Annotated[Id | None, Field(description="支付编号；无需付款时为 null / null: nothing to pay")]
    pay_page: Annotated[
        str | None,
        Field(description="在浏览器中付款的地址（支付宝、演示环境） / where a browser pays, if it can"),
    ]
    expires_at: Annotated[datetime | None, Field(description="此后不能再付款 / too late to pay from then on")]


class BillsQuery(Request):
    status: Annotated[list[BillStatusWord] | None, Field(description="可重复 / may be repeated")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    before: Annotated[
        ZonedTime | None, Field(description="上一页最后一项的 opened_at / opened_at of the last one seen")
    ] = None


@dataclass(frozen=True, slots=True)
class BillLineAnswer:
    id: str
    kind: Annotated[str, Field(description="registration、drug、examination")]
    item: Annotated[str, Field(description="目录代码 / code in the catalog")]
    name: Annotated[NameAnswer | None, Field(description="名称 / what it is called; null: it is not shown")]
    quantity: int
    fee: Annotated[int, Field(description="优惠前，分 / fen, before discounts")]


@dataclass(frozen=True, slots=True)
class DiscountAnswer:
    line_id: str
    rule: Annotated[str, Field(description="first_visit、coupon、free_follow_up")]
    name: Annotated[
        str, Field(description="医院的叫法；优惠券为其券码 / the hospital's word; a coupon's code")
    ]
    fee: Annotated[int, Field(description="减去的金额，分 / fen taken off")]
    percent: Annotated[int, Field(description="0：不按比例 / 0: not by percent")]
    until: datetime | None
    reason: NameAnswer


@dataclass(frozen=True, slots=True)
class PaymentOfBillAnswer:
    id: Id
    provider: Provider
    status: PaymentStateWord
    text: NameAnswer
    fee: Fen
    begun_at: datetime
    paid_at: datetime | None
    is_of_this_bill: Annotated[
        bool,
        Field(description="false：重复或迟到，会退回 / false: paid twice or late; it goes back"),
    ]


@dataclass(frozen=True, slots=True)
class RefundOfBillAnswer:
    id: Id
    fee: Fen
    status: RefundStateWord
    text: NameAnswer
    reason: NameAnswer
    payment_id: Id
    provider: Annotated[str, Field(description="由谁退回；未退回为空 / who gave it back; empty: nobody yet")]
    requested_at: datetime
    done_at: datetime | None


@dataclass(frozen=True, slots=True)
class BillOutlineAnswer:
    id: Id
    status: BillStatusWord
    text: NameAnswer
    fee: Annotated[int, Field(description="优惠后应付，分 / fen to be paid, after discounts")]
    paid: Fen
    refunded: Fen
    owed_back: Annotated[int, Field(description="待退，分 / fen that are owed back")]
    kept: Annotated[int, Field(description="按规则不退，分 / fen that the rules do not give back")]
    pay_by: Annotated[datetime | None, Field(description="请在此前支付 / to be paid by then; null: no end")]
    patient_id: Id
    appointment_id: Annotated[Id | None, Field(description="现在对应的预约 / the number that it is for now")]
    opened_at: Annotated[datetime | None, Field(description="null：尚未开出 / null: not opened yet")]


@dataclass(frozen=True, slots=True)
class BillAnswer(BillOutlineAnswer):
    lines: list[BillLineAnswer]
    discounts: list[DiscountAnswer]
    payments: list[PaymentOfBillAnswer]
    refunds: list[RefundOfBillAnswer]
    providers: Annotated[
        list[Provider], Field(description="可用的支付方式 / how it may be paid now; empty: not at all")
    ]


@dataclass(frozen=True, slots=True)
class BillsAnswer:
    bills: list[BillOutlineAnswer]
    before: Annotated[
        datetime | None,
        Field(description="下一页的 before；没有更多则为 null / for the next page; null at the end"),
    ]
