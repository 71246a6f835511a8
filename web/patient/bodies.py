"""The patients' contract: what each request may say and each answer does say.

Requests are pydantic models that refuse what they do not know. Answers are plain dataclasses: mypy checks
them when they are made, orjson writes them, and pydantic only documents them. Texts are Chinese / English.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from engine.domain.limits import GROUP_MAX

# What values look like.

_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ZONED_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _iso_date(value: object) -> date:
    # pydantic's own date also takes "0" and 0 for 1970-01-01.
    if isinstance(value, str) and _ISO_DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("iso_date", "must be a date, yyyy-mm-dd")


def _zoned_time(value: object) -> datetime:
    if isinstance(value, str) and _ZONED_TIME.fullmatch(value):
        try:
            found = datetime.fromisoformat(value.upper())
            found.astimezone(UTC)
            return found
        except (ValueError, OverflowError):  # no such time, or in UTC before year 1 or after 9999
            pass
    raise PydanticCustomError("zoned_time", "must be an ISO 8601 time with its offset")


IsoDate = Annotated[
    date, PlainValidator(_iso_date), WithJsonSchema({"type": "string", "format": "date"}, mode="validation")
]
ZonedTime = Annotated[
    datetime,
    PlainValidator(_zoned_time),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation"),
]
Id = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
"""A UUID in an answer, spelled out already."""
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]+$", max_length=64)]
"""An id that a hospital gave: a department's, a practitioner's, a slot's."""

IdTypeWord = Literal["resident_id", "passport", "hk_macau_permit", "taiwan_permit", "foreign_permanent"]
Sex = Literal["male", "female"]
Relation = Literal["self", "spouse", "child", "ward", "parent", "relative", "other"]
VerificationWord = Literal["unverified", "verified", "refused"]
Title = Literal["chief", "associate_chief", "attending", "resident"]
Period = Literal["morning", "afternoon", "night"]
StatusWord = Literal["pending", "booked", "arrived", "fulfilled", "cancelled", "noshow", "waitlist"]
Provider = Literal["wechat_pay", "alipay", "at_hospital"]
BillStatusWord = Literal[
    "open", "at_hospital", "paid", "settled", "closed", "refunding", "partly_refunded", "refunded"
]
ChannelWord = Literal["mini_program", "window", "kiosk", "phone", "referral", "doctor", "management", "his"]
FateWord = Literal["affected", "moved", "offered", "waitlisted", "refunded"]


class Request(BaseModel):
    """What comes in: nothing unknown, nothing changed afterwards, nothing said back."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


# Addresses.


class IdPath(Request):
    id: UUID


class WordPath(Request):
    id: Word


# Sessions.


class WechatGrant(Request):
    """微信小程序登录 / a mini-program's wx.login."""

    grant: Literal["wechat"]
    code: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            description="wx.login 所得，一次有效 / from wx.login, good for one use",
        ),
    ]


class PasswordGrant(Request):
    """用户名密码登录（职工端）/ staff."""

    grant: Literal["password"]
    username: Annotated[str, Field(min_length=1, max_length=128)]
    password: Annotated[str, Field(min_length=1, max_length=256)]
    otp: Annotated[
        str | None,
        Field(
            max_length=40,
            description="身份验证器的六位动态码，或恢复码 / the authenticator's digits, or a recovery code",
        ),
    ] = None
    transport: Annotated[
        Literal["bearer", "cookie"],
        Field(description="cookie：网页控制台，用 HttpOnly Cookie / for consoles: an HttpOnly cookie"),
    ] = "bearer"


class RefreshGrant(Request):
    """换取新的令牌 / the next pair of tokens."""

    grant: Literal["refresh"]
    refresh_token: Annotated[str, Field(min_length=1, max_length=2048)]


class OidcGrant(Request):
    """医院统一身份认证（职工端），由返回页面发送 / staff; by the page to which the provider leads back."""

    grant: Literal["oidc"]
    state: Annotated[str, Field(max_length=128, description="返回地址中的 state / of the way back")]
    code: Annotated[
        str | None,
        Field(min_length=1, max_length=2048, description="返回地址中的 code / likewise; without: denied"),
    ] = None
    iss: Annotated[
        str | None, Field(max_length=1024, description="返回地址中的 iss / likewise, RFC 9207")
    ] = None
    transport: Literal["bearer", "cookie"] = "cookie"


SessionBody = Annotated[WechatGrant | PasswordGrant | RefreshGrant | OidcGrant, Field(discriminator="grant")]


@dataclass(frozen=True, slots=True)
class SessionAnswer:
    access_token: Annotated[str, Field(description="放入 Authorization: Bearer / for Authorization: Bearer")]
    refresh_token: Annotated[str, Field(description="用于 grant=refresh / for grant=refresh")]
    expires_in: Annotated[int, Field(description="access_token 的有效秒数 / seconds the access token lives")]


# Patients.


class PersonBody(Request):
    """Who somebody is, by a document."""

    name: Annotated[
        str,
        Field(
            min_length=1, max_length=256, description="姓名，1 到 64 个文字 / 1 to 64 letters of any script"
        ),
    ]
    id_type: Annotated[IdTypeWord, Field(description="证件类型 / the kind of document")]
    id_number: Annotated[str, Field(min_length=1, max_length=32, description="证件号码 / its number")]
    phone: Annotated[
        str,
        Field(min_length=1, max_length=32, description="手机号 / mainland mobile, or + and the country's"),
    ]
    birth_date: Annotated[
        IsoDate | None, Field(description="身份证以外的证件可填 / for documents that do not say it")
    ] = None
    sex: Annotated[
        Sex | None, Field(description="身份证以外的证件可填 / for documents that do not say it")
    ] = None


class PatientBody(PersonBody):
    relation: Annotated[Relation, Field(description="与账号持有人的关系 / to whoever holds the account")]


@dataclass(frozen=True, slots=True)
class RightsAnswer:
    """代办权限 / what one may do for somebody."""

    book: Annotated[bool, Field(description="预约、改签、签到 / book, change, wait for numbers, check in")]
    see_visits: Annotated[bool, Field(description="查看就诊、候诊与提醒 / visits, tickets, notices")]
    pay: Annotated[bool, Field(description="支付 / pay bills")]


@dataclass(frozen=True, slots=True)
class PatientAnswer:
    id: Id
    name: str
    id_type: str
    id_number: Annotated[str, Field(description="已脱敏 / masked")]
    phone: Annotated[str, Field(description="已脱敏 / masked")]
    relation: str
    birth_date: date | None
    sex: str | None
    expires_at: Annotated[
        datetime | None,
        Field(description="代预约权限的截止时间 / until then this account may book; null: for good"),
    ]
    is_expired: Annotated[bool, Field(description="权限已到期或撤销 / the right has ended or was taken back")]
    rights: RightsAnswer
    verification: Annotated[
        VerificationWord, Field(description="实名核验：未核验、已核验、不符 / of the real name")
    ]


@dataclass(frozen=True, slots=True)
class PatientsAnswer:
    patients: list[PatientAnswer]


# The catalog.


@dataclass(frozen=True, slots=True)
class DepartmentAnswer:
    id: str
    parent_id: Annotated[str | None, Field(description="一级科室为 null / null for the first level")]
    name: str
    name_en: str
    campus: str
    location: str
    intro: str
    sex: Annotated[str | None, Field(description="只接诊此性别 / sees this sex only")]
    age_min: Annotated[int | None, Field(description="周岁，含 / full years, inclusive")]
    age_max: Annotated[int | None, Field(description="周岁，含 / full years, inclusive")]


@dataclass(frozen=True, slots=True)
class DepartmentsAnswer:
    departments: list[DepartmentAnswer]


@dataclass(frozen=True, slots=True)
class PractitionerAnswer:
    id: str
    name: str
    title: str
    department_id: str
    specialty: str
    intro: str


@dataclass(frozen=True, slots=True)
class PractitionersAnswer:
    practitioners: list[PractitionerAnswer]


class SchedulesQuery(Request):
    department: Annotated[Word | None, Field(description="科室编号，含下级科室 / with those below it")] = None
    practitioner: Annotated[Word | None, Field(description="医生编号 / practitioner id")] = None
    title: Annotated[Title | None, Field(description="职称 / rank")] = None
    since: Annotated[
        IsoDate | None, Field(alias="from", description="起始日期，含 / first day, inclusive")
    ] = None
    until: Annotated[IsoDate | None, Field(alias="to", description="截止日期，含 / last day, inclusive")] = (
        None
    )


SessionStatus = Annotated[
    Literal["open", "paused", "suspended"],
    Field(description="开放、暂停、停诊 / open, paused for a while, called off"),
]
OpensAt = Annotated[
    datetime | None,
    Field(description="更多号对本渠道开放的时刻 / when more seats open to this channel; null: none will"),
]


@dataclass(frozen=True, slots=True)
class SessionOutlineAnswer:
    """半日门诊 / a practitioner's half day."""

    period: str
    department_id: str
    number_class_id: str
    room_id: str | None
    fee: Annotated[int, Field(description="分 / fen")]
    start: datetime
    end: datetime
    capacity: Annotated[int, Field(description="现在对本渠道开放的号 / seats open to this channel now")]
    remaining: Annotated[int, Field(description="其中现在可约的 / those that can be booked now")]
    status: SessionStatus
    opens_at: OpensAt
    substitute_id: Annotated[str | None, Field(description="替诊医生 / who holds it instead")]
    substitute_name: str | None


@dataclass(frozen=True, slots=True)
class ScheduleAnswer:
    id: str
    practitioner_id: str
    practitioner_name: str
    title: str
    date: Annotated[str, Field(description="yyyy-mm-dd", json_schema_extra={"format": "date"})]
    capacity: int
    remaining: int
    sessions: list[SessionOutlineAnswer]


@dataclass(frozen=True, slots=True)
class SchedulesAnswer:
    schedules: list[ScheduleAnswer]


@dataclass(frozen=True, slots=True)
class SlotAnswer:
    id: str
    start: datetime
    end: datetime
    capacity: Annotated[int, Field(description="现在对本渠道开放的号 / seats open to this channel now")]
    remaining: Annotated[int, Field(description="其中现在可约的 / those that can be booked now")]
    fee: Annotated[int, Field(description="分 / fen")]
    status: SessionStatus
    opens_at: OpensAt


@dataclass(frozen=True, slots=True)
class SubstituteAnswer:
    """替诊 / who holds a session instead."""

    period: str
    practitioner_id: str
    practitioner_name: str
    title: str | None


@dataclass(frozen=True, slots=True)
class SlotsAnswer:
    slots: list[SlotAnswer]
    version: Annotated[int, Field(description="余号的版本，只增 / of the counts; only grows")]
    practitioner_id: str
    substitutes: Annotated[
        list[SubstituteAnswer], Field(description="替诊，按半日 / by session, where there are any")
    ]


# Appointments.


class HoldBody(Request):
    slot_id: Annotated[Word, Field(description="就诊时段编号 / the slot")]
    patient_id: Annotated[UUID, Field(description="就诊人编号 / one of the account's patients")]
    visit: Annotated[
        Literal["first", "follow_up"], Field(description="初诊或复诊 / a first visit, or a follow-up")
    ] = "first"


class GroupBody(Request):
    """一家人一起约相邻的时段 / a family at neighbouring times."""

    slot_id: Annotated[Word, Field(description="希望的时段 / where they would like to be")]
    patient_ids: Annotated[
        list[UUID],
        Field(
            min_length=2, max_length=GROUP_MAX, description="全部约上，或一个都不约 / all of them, or none"
        ),
    ]


class AnyDoctorBody(Request):
    """不指定医生 / whoever of the department has room."""

    department: Annotated[Word, Field(description="科室编号 / the department")]
    date: Annotated[IsoDate, Field(description="就诊日期 / the day")]
    patient_id: Annotated[UUID, Field(description="就诊人编号 / one of the account's patients")]
    period: Annotated[Period | None, Field(description="上午、下午或夜间 / half of the day")] = None
    near: Annotated[
        str | None,
        Field(
            pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="希望的时间 / the time they would like"
        ),
    ] = None
    title: Annotated[Title | None, Field(description="医生职称 / of the doctor")] = None
    number_class: Annotated[Word | None, Field(description="号别 / ordinary, expert, special")] = None
    visit: Annotated[
        Literal["first", "follow_up"], Field(description="初诊或复诊 / a first visit, or a follow-up")
    ] = "first"


class ChangeBody(Request):
    slot_id: Annotated[Word, Field(description="改到的时段 / the slot to change to")]


@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """按所给就诊人的顺序 / in the order of the patients."""

    appointments: "list[HeldAnswer]"


@dataclass(frozen=True, slots=True)
class HeldAnswer:
    """占号结果 / the number that is held."""

    id: Id
    status: StatusWord
    number: Annotated[int, Field(description="序号，自 1 起 / from 1, within the session")]
    slot_id: str
    pay_by: Annotated[datetime | None, Field(description="未支付则于此时释放 / unpaid, it ends then")]
    bill_id: Id | None


@dataclass(frozen=True, slots=True)
class AlternativeAnswer:
    """号满时的其他选择 / what else there is when a slot is full."""

    slot_id: str
    schedule_id: str
    practitioner_id: str
    practitioner_name: str
    title: str
    department_id: str
    start: datetime
    end: datetime
    remaining: int
    fee: Annotated[int, Field(description="分 / fen")]


class AppointmentsQuery(Request):
    status: Annotated[list[StatusWord] | None, Field(description="可重复 / may be repeated")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    before: Annotated[
        ZonedTime | None,
        Field(description="上一页最后一项的 created_at / created_at of the last one seen"),
    ] = None


@dataclass(frozen=True, slots=True)
class AppointmentAnswer:
    id: Id
    status: StatusWord
    number: int
    slot_id: str
    schedule_id: str
    patient_id: Id
    patient_name: str
    practitioner_id: str
    practitioner_name: str
    department_id: str | None
    department_name: str | None
    start: datetime
    end: datetime
    fee: Annotated[int, Field(description="分 / fen")]
    pay_by: Annotated[datetime | None, Field(description="仅待支付时 / while pending")]
    bill_id: Annotated[Id | None, Field(description="现在对应的账单 / the bill that is for it now")]
    bill_status: Annotated[
        BillStatusWord | None, Field(description="账单状态，未开出为 null / null: not opened yet")
    ]
    reason: Annotated[str | None, Field(description="取消的原因 / why it was cancelled")]
    created_at: datetime
    updated_at: datetime
    channel: Annotated[ChannelWord, Field(description="预约渠道 / where it was booked")]
    offered_by: Annotated[
        Literal["waitlist", "suspension", "change"] | None,
        Field(
            description="为何为您留号：候补、停诊安排、改签 / why it is kept for you, where it was offered"
        ),
    ]
    replaces: Annotated[Id | None, Field(description="改签前的预约 / the appointment that it changes")]
    replaced_by: Annotated[Id | None, Field(description="改签后的预约 / what came in its place")]
    fate: Annotated[
        FateWord | None,
        Field(description="停诊后的安排，affected 为待安排 / what became of it; affected: undecided"),
    ]
    refund_due: Annotated[int, Field(description="应退金额，分 / fen that are owed back")]
    attend_by: Annotated[
        datetime | None,
        Field(description="请在此前确认到诊，否则号将释放 / say by then that you will come, or it goes back"),
    ]
    will_come: Annotated[bool, Field(description="已确认到诊 / said that they will come")]


@dataclass(frozen=True, slots=True)
class AppointmentsAnswer:
    appointments: list[AppointmentAnswer]
    before: Annotated[
        datetime | None,
        Field(description="下一页的 before；没有更多则为 null / for the next page; null at the end"),
    ]


@dataclass(frozen=True, slots=True)
class ChangedAnswer:
    """取消或确认之后 / after a cancel or a confirmation."""

    id: Id
    status: StatusWord
    number: int
    slot_id: str
