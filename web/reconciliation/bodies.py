"""Reconciliation and settlement on the API. Money is fen. Texts are Chinese / English."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from engine.domain.reconciliation import Kind
from web.patient.bodies import Id, IsoDate, Request
from web.patient.conduct_bodies import Prose

_FIRST, _LAST = date(2000, 1, 1), date(2999, 12, 31)
"""Days that have a begin and an end in every zone."""


def _bearable(day: date) -> date:
    if not _FIRST <= day <= _LAST:
        raise PydanticCustomError("iso_date", "must be a date, yyyy-mm-dd")
    return day


def _place(text: str | None) -> str | None:
    """Of the next page: a day and an id."""
    try:
        date.fromisoformat((text or "2000-01-01").partition(".")[0])
    except ValueError:
        raise PydanticCustomError("iso_date", "must be a date, yyyy-mm-dd") from None
    return text


Day = Annotated[IsoDate, AfterValidator(_bearable)]
ChannelWord = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,31}$")]
StateWord = Literal["open", "waiting", "explained", "healed", "gone", "settled"]


class DayPath(Request):
    date: Day


class ReconcileBody(Request):
    date: Annotated[Day, Field(description="已结束的一天 / a day that is over")]
    provider: Annotated[
        ChannelWord | None,
        Field(description="wechat_pay、alipay、bookings、hospital；不填为全部 / none: all of them"),
    ] = None


class RunsQuery(Request):
    date: IsoDate | None = None
    provider: ChannelWord | None = None
    before: Annotated[
        int | None, Field(ge=1, le=2**63 - 1, description="上一页的 next / `next` of before")
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class DifferencesQuery(Request):
    state: Annotated[
        Literal["open", "all"], Field(description="open：仅未处理 / only what is not closed")
    ] = "open"
    date: IsoDate | None = None
    provider: ChannelWord | None = None
    kind: Kind | None = None
    before: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\.[0-9a-f]{32}$",
            description="上一页的 next / `next` of the page before",
        ),
        AfterValidator(_place),
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class SettleBody(Request):
    reason: Annotated[Prose, Field(description="如何处理的 / what was done about it")]


class CloseBody(Request):
    note: Annotated[Prose | None, Field(description="备注 / a note")] = None


@dataclass(frozen=True, slots=True)
class SumAnswer:
    count: int
    fen: int


@dataclass(frozen=True, slots=True)
class SidesAnswer:
    """一致的、我方的、对方的 / what matched, what we have, what they have."""

    matched: SumAnswer
    ours: SumAnswer
    theirs: SumAnswer


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """一次对账 / one comparison of one day."""

    id: int
    provider: str
    date: date
    begun_at: datetime
    ended_at: datetime
    is_complete: bool
    why: str | None
    by: str | None
    """发起人用户名；空为夜间自动 / who asked; none: the nightly round."""
    payments: SidesAnswer
    refunds: SidesAnswer
    healed: int
    open_differences: int


@dataclass(frozen=True, slots=True)
class RunsAnswer:
    runs: list[RunAnswer]
    next: int | None


@dataclass(frozen=True, slots=True)
class ReconciliationAskedAnswer:
    date: date
    providers: list[str]


@dataclass(frozen=True, slots=True)
class DifferenceAnswer:
    """一笔差异 / one difference."""

    id: Id
    provider: str
    date: date
    kind: Kind
    title: str
    money: Literal["payment", "refund"]
    ours_fen: int
    theirs_fen: int
    heal: str
    tried: int
    said: str | None
    state: StateWord
    bill_id: Id | None
    order_id: Id | None
    found_at: datetime
    closed_at: datetime | None
    settled_by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class DifferencesAnswer:
    differences: list[DifferenceAnswer]
    next: str | None


@dataclass(frozen=True, slots=True)
class PaymentEvidence:
    id: Id
    provider: str
    state: str
    fen: int
    received_fen: int
    transaction_id: str | None
    begun_at: datetime
    paid_at: datetime | None


@dataclass(frozen=True, slots=True)
class RefundEvidence:
    id: Id
    payment_id: Id
    state: str
    fen: int
    provider: str | None
    reference: str | None
    begun_at: datetime
    since: datetime


@dataclass(frozen=True, slots=True)
class BillEvidence:
    """账单现在的情况 / the bill as it is now."""

    id: Id
    appointment_id: Id | None
    status: str
    fen: int
    paid_fen: int
    refunded_fen: int
    owed_back_fen: int
    payments: list[PaymentEvidence]
    refunds: list[RefundEvidence]


@dataclass(frozen=True, slots=True)
class DifferenceEvidenceAnswer:
    """各方的证据 / what each side says."""

    difference: DifferenceAnswer
    evidence: dict[str, Any]
    bill: BillEvidence | None


@dataclass(frozen=True, slots=True)
class ChannelAnswer:
    """一个渠道的一天 / a channel's day."""

    provider: str
    payments: int
    payments_fen: int
    suspense_fen: int
    refunds: int
    refunds_fen: int
    net_fen: int
    fee_fen: str | None
    """手续费（分，三位小数）；未取得账单时为空 / what they keep, in fen with three decimals."""


@dataclass(frozen=True, slots=True)
class RevenueAnswer:
    kind: str
    earned_fen: int
    given_back_fen: int
    net_fen: int


@dataclass(frozen=True, slots=True)
class AdjustmentAnswer:
    """关账后的调整 / what came after a day was closed."""

    of_date: date
    provider: str
    date: date
    at: datetime
    payments: int
    payments_fen: int
    refunds: int
    refunds_fen: int
    net_fen: int
    fee_fen: str


@dataclass(frozen=True, slots=True)
class SettlementAnswer:
    """日结 / the day's end."""

    date: date
    closed_at: datetime | None
    closed_by: str | None
    note: str | None
    channels: list[ChannelAnswer]
    revenue: list[RevenueAnswer]
    net_fen: int
    patient_fen: int
    """日终：已付、号源处理中 / at the day's end: paid, and the seat is being seen to."""
    suspense_fen: int
    owed_back_fen: int
    open_differences: int
    not_compared: list[str]
    adjustments: list[AdjustmentAnswer]
    """当天发生的、以前各日的调整 / that came on this day, of days closed before."""
    adjusted_later: list[AdjustmentAnswer]
    """关账后对本日的调整，计入其发生日 / of this day, on the days on which they came."""
