"""What is said about waiting lists (候补)."""

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from engine.domain.limits import GROUP_MAX, WISH_DAYS_MAX
from web.patient.bodies import Id, IsoDate, Period, Request, StatusWord, Title, Word, ZonedTime

WishStatus = Literal["waiting", "offered", "met", "ended"]

_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def _time_of_day(value: object) -> str:
    if isinstance(value, str) and _TIME.fullmatch(value):
        return value.replace(":", "")
    raise PydanticCustomError("time_of_day", "must be a time of day, HH:MM")


TimeOfDay = Annotated[
    str,
    PlainValidator(_time_of_day),
    WithJsonSchema({"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"}, mode="validation"),
]


class WishBody(Request):
    patient_ids: Annotated[
        list[UUID],
        Field(
            min_length=1,
            max_length=GROUP_MAX,
            description="就诊人；多位时同一医生相邻时间，全有或全无"
            " / several: with one doctor at neighbouring times, all or nobody",
        ),
    ]
    department: Annotated[Word, Field(description="科室编号，含下级科室 / with those below it")]
    practitioners: Annotated[
        list[Word], Field(max_length=20, description="医生编号；空为不限 / empty: anybody there")
    ] = []
    title: Annotated[Title | None, Field(description="职称 / rank")] = None
    first_day: Annotated[IsoDate, Field(alias="from", description="起始日期，含 / first day, inclusive")]
    last_day: Annotated[IsoDate, Field(alias="to", description="截止日期，含 / last day, inclusive")]
    periods: Annotated[list[Period], Field(max_length=3, description="空为不限 / empty: any")] = []
    not_before: Annotated[
        TimeOfDay | None, Field(description="就诊时段最早开始 / the slot begins then or later")
    ] = None
    not_after: Annotated[
        TimeOfDay | None, Field(description="就诊时段最晚开始 / the slot begins then or earlier")
    ] = None
    instead_of: Annotated[
        UUID | None,
        Field(
            description="想提前的预约：只候补更早的时段，接受后原号作废"
            " / a booked appointment: earlier slots only, and it is given up for the new one"
        ),
    ] = None
    until: Annotated[
        ZonedTime | None, Field(description="候补到此时为止 / how long to wait; null: to the end")
    ] = None

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if not 0 <= (self.last_day - self.first_day).days < WISH_DAYS_MAX:
            raise PydanticCustomError(
                "day_range", "`to` is not before `from`, and within {limit} days", {"limit": WISH_DAYS_MAX}
            )
        if self.not_before and self.not_after and self.not_after < self.not_before:
            raise PydanticCustomError("time_range", "`not_after` is before `not_before`")
        if len(set(self.patient_ids)) < len(self.patient_ids):
            raise PydanticCustomError("repeated", "names somebody twice")
        if self.instead_of is not None and len(self.patient_ids) > 1:
            raise PydanticCustomError("one_patient", "an appointment is one patient's")
        return self


@dataclass(frozen=True, slots=True)
class PlaceAnswer:
    """一个排班上的位置 / one doctor's day."""

    schedule_id: str
    position: Annotated[int, Field(description="从 1 起 / from 1")]
    length: Annotated[int, Field(description="在此候补的人次 / wishes on this list")]


@dataclass(frozen=True, slots=True)
class OfferAnswer:
    """候补到的号：接受请确认该预约，放弃请取消 / confirm it to take it, cancel it to decline."""

    appointment_id: Id
    patient_id: Id
    slot_id: str
    start: datetime
    status: StatusWord
    pay_by: Annotated[datetime | None, Field(description="逾期顺延给下一位 / then the next one gets it")]


@dataclass(frozen=True, slots=True)
class WishAnswer:
    id: Id
    status: Annotated[
        WishStatus,
        Field(description="等待、已有号待确认、已满足、已结束 / offered: a number is held for it"),
    ]
    reason: Annotated[
        str | None,
        Field(
            description="met 已满足、lapsed 未确认、withdrawn 已撤回、closed 已截止、penalty 被暂停预约、"
            "delegation_ended 代预约权限已结束，"
            "或被拒绝的原因"
            " / why it ended: these, or the code of what refused it"
        ),
    ]
    department: str
    practitioners: list[str]
    title: str | None
    first_day: date
    last_day: date
    patients: list[Id]
    instead_of: Id | None
    places: list[PlaceAnswer]
    position: Annotated[
        int | None, Field(description="各排班中最靠前的位置 / the best one; null: nowhere yet")
    ]
    chance: Annotated[
        float | None,
        Field(ge=0, le=1, description="截止前轮到的估计概率 / of being offered a number in time; see docs"),
    ]
    offers: list[OfferAnswer]
    until: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True)
class WishesAnswer:
    wishes: list[WishAnswer]
