"""What patients, kiosks and desks say and hear of tickets. Texts are Chinese / English."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field

from engine.domain.limits import EMERGENCY_LEVELS
from web.patient.bodies import Id, IdTypeWord, IsoDate, PersonBody, Request, Word

DELAY_MAX: Final = 20
"""People whom somebody may let go first in one request."""

TicketWord = Literal["waiting", "door", "called", "serving", "parked", "away", "passed", "finished", "left"]
DocumentWord = IdTypeWord | Literal["social_security_card"]
Latitude = Annotated[float, Field(ge=-90, le=90, description="GCJ-02 纬度，度 / degrees of GCJ-02")]
Longitude = Annotated[float, Field(ge=-180, le=180, description="GCJ-02 经度，度 / degrees of GCJ-02")]
Priority = Annotated[
    str,
    Field(
        max_length=64,
        pattern=r"^[A-Za-z0-9_.\-]*$",
        description="优先类别，由窗口或护士填写 / priority class of the hospital's; said by desk or nurse",
    ),
]
Emergency = Annotated[
    int,
    Field(
        ge=0,
        le=EMERGENCY_LEVELS,
        description="急诊分级，1 最急，0 为无；仅护士 / triage level, 1 the most urgent, 0 none; nurses only",
    ),
]


class PlaceBody(Request):
    """小程序的位置（GCJ-02），须医院 500 米内（可配置）/ where the mini-program is."""

    latitude: Latitude | None = None
    longitude: Longitude | None = None
    accuracy_m: Annotated[
        float | None,
        Field(ge=0, description="wx.getLocation 的 accuracy，米 / as wx.getLocation says it, in metres"),
    ] = None


class CheckInBody(PlaceBody):
    pass


class DocumentBody(Request):
    """证件或二维码 / a document that was read, or the code that the patient's app shows."""

    id_type: Annotated[
        DocumentWord | None,
        Field(
            description="证件类型；社保卡号即身份证号 / kind of document; a social-security card has the"
            " resident's number"
        ),
    ] = None
    id_number: Annotated[
        str | None, Field(min_length=1, max_length=32, description="证件号码 / its number")
    ] = None
    qr: Annotated[
        str | None, Field(min_length=1, max_length=2048, description="二维码内容 / what the QR code says")
    ] = None


class KioskCheckInBody(DocumentBody):
    appointment_id: Annotated[
        UUID | None, Field(description="预约；当天有多个号时用来选择 / which one, where there are several")
    ] = None
    ticket_id: Annotated[
        UUID | None, Field(description="候诊号，用于报到 / the one to report back with, of several")
    ] = None
    department_id: Annotated[
        Word | None, Field(description="科室；不填则任何科室均可（通签）/ only there; none: any department")
    ] = None
    priority: Priority = ""
    emergency: Emergency = 0


class WalkInBody(DocumentBody, PlaceBody):
    patient_id: Annotated[
        UUID | None, Field(description="就诊人：账号的，或窗口指定 / of the account, or named by the desk")
    ] = None
    person: Annotated[
        PersonBody | None, Field(description="窗口或自助机登记的新就诊人 / somebody new, at a desk or kiosk")
    ] = None
    department_id: Annotated[Word, Field(description="科室 / the department")]
    practitioner_id: Annotated[
        Word | None, Field(description="指定医生；不填则由科室任一医生接诊 / a practitioner; none: anybody")
    ] = None
    visit: Annotated[
        Literal["first", "follow_up"], Field(description="初诊或复诊 / a first visit, or a follow-up")
    ] = "first"
    priority: Priority = ""
    emergency: Emergency = 0


class DelayBody(Request):
    ahead: Annotated[
        int, Field(ge=1, le=DELAY_MAX, description="再让几位先就诊 / so many more people go first")
    ]


class TicketsQuery(Request):
    since: Annotated[
        IsoDate | None, Field(alias="from", description="起始日期；默认今天 / first day; today by default")
    ] = None


@dataclass(frozen=True, slots=True)
class NameAnswer:
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class QueueAnswer:
    id: str
    kind: Annotated[str, Field(description="visit、triage、examination、pharmacy 或 desk")]
    name: NameAnswer


@dataclass(frozen=True, slots=True)
class RoomAnswer:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class StageAnswer:
    """就诊流程中的一步 / one stage of the journey."""

    kind: str
    name: Annotated[NameAnswer | None, Field(description="null：在别处 / null: elsewhere")]
    state: Literal["done", "now", "ahead"]
    comes_back: Annotated[bool, Field(description="检查后回诊 / back to whoever sent him")]
    called_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class EstimateAnswer:
    """还要等几分钟 / minutes still to wait."""

    p10_minutes: Annotated[int, Field(description="十次里有一次更快 / sooner in one case of ten")]
    p50_minutes: int
    p90_minutes: Annotated[int, Field(description="十次里有一次更久 / longer in one case of ten")]
    leave_home_at: Annotated[datetime | None, Field(description="建议出门时间 / when to set out")]
    told_at: datetime


@dataclass(frozen=True, slots=True)
class TicketAnswer:
    id: Id
    number: Annotated[str, Field(description="候诊号 / as screens show it")]
    status: Annotated[
        TicketWord,
        Field(
            description="候诊、门口、已叫号、就诊中、暂离、检查中、过号、已完成、已离开 / in the hall,"
            " at the door, called, being seen, put aside, at an examination, passed over, seen, gone"
        ),
    ]
    department_id: str
    department: NameAnswer
    location: Annotated[str, Field(description="科室位置 / where the department is")]
    day: Annotated[str, Field(description="yyyy-mm-dd", json_schema_extra={"format": "date"})]
    patient_id: Id
    patient_name: Annotated[str, Field(description="自助机上已脱敏 / masked at kiosks")]
    appointment_id: Annotated[Id | None, Field(description="现场号为 null / null: a walk-in")]
    queue: Annotated[QueueAnswer | None, Field(description="null：不在此候诊 / null: waits nowhere here")]
    practitioner_id: Annotated[str | None, Field(description="null：科室任一医生 / null: anybody who serves")]
    practitioner_name: str | None
    room: Annotated[RoomAnswer | None, Field(description="叫号、就诊或门口候诊的诊室 / where to go")]
    stage: Annotated[int, Field(description="第几步，从 1 起 / from 1")]
    stages: int
    journey: list[StageAnswer]
    position: Annotated[int | None, Field(description="队列中的位置，从 1 起 / in the whole queue, from 1")]
    ahead: Annotated[int | None, Field(description="前面还有几位 / whom the same rooms may call first")]
    starts_at: Annotated[datetime | None, Field(description="预约时间 / the appointed time")]
    arrived_at: Annotated[datetime, Field(description="签到或取号时间 / when it was taken")]
    called_at: Annotated[datetime | None, Field(description="最近一次叫号 / called last")]
    calls: Annotated[int, Field(description="本次已叫几遍 / how often it was called this time")]
    started_at: datetime | None
    finished_at: datetime | None
    parked_until: datetime | None
    rests_until: Annotated[datetime | None, Field(description="过号后此前不叫 / not called before")]
    passes: Annotated[int, Field(description="过号次数 / how often it was passed over")]
    priority: Annotated[str | None, Field(description="优先类别；自助机为 null / null at kiosks")]
    emergency: Annotated[int | None, Field(description="急诊分级；自助机为 null / null at kiosks")]
    estimate: Annotated[EstimateAnswer | None, Field(description="null：暂无法估计 / cannot be told now")]
    no_estimate: Annotated[NameAnswer | None, Field(description="为什么没有估计 / why there is none")]
    version: Annotated[int, Field(description="候诊号的版本 / of the ticket; grows with what happens to it")]


@dataclass(frozen=True, slots=True)
class TicketLineAnswer:
    id: Id
    number: str
    status: TicketWord
    department_id: str
    department: NameAnswer
    day: Annotated[str, Field(json_schema_extra={"format": "date"})]
    patient_id: Id
    patient_name: str
    appointment_id: Id | None
    arrived_at: datetime
    finished_at: datetime | None
    position: Annotated[int | None, Field(description="仅今天仍在候诊的 / of those that wait today")]
    ahead: int | None
    room: RoomAnswer | None


@dataclass(frozen=True, slots=True)
class TicketsAnswer:
    tickets: list[TicketLineAnswer]


@dataclass(frozen=True, slots=True)
class WhyAnswer:
    code: Annotated[str, Field(description="固定的代码 / stable")]
    text: NameAnswer


@dataclass(frozen=True, slots=True)
class AheadAnswer:
    """前面的一位；不显示姓名 / one who goes first; never who it is."""

    number: str
    status: TicketWord
    lane: NameAnswer
    counts: Annotated[
        bool, Field(description="由同一诊室叫号 / called by the same rooms; else it only stands before")
    ]
    why: WhyAnswer


@dataclass(frozen=True, slots=True)
class AllAheadAnswer:
    number: str
    status: TicketWord
    position: int | None
    people: list[AheadAnswer]
    version: int


@dataclass(frozen=True, slots=True)
class QrAnswer:
    token: str
    expires_in: Annotated[int, Field(description="秒；请在此前刷新 / seconds; fetch another one before")]
    text: Annotated[str, Field(description="二维码的内容 / what the QR code says")]


ChoiceState = Literal["check_in", "return", "waits", "too_early", "too_late", "not_booked", "over"]


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """当天的一个号 / one number of today."""

    appointment_id: Id | None
    ticket_id: Id | None
    number: Annotated[str, Field(description="候诊号；未签到时为预约序号 / the ticket's, or the booked one")]
    department_id: str
    department: NameAnswer
    practitioner_name: str | None
    start: datetime | None
    state: Annotated[
        ChoiceState,
        Field(
            description="可签到、可报到、已在候诊、未到时间、已过时间、不能签到、已结束 / can check in,"
            " can report back, waits, too early, too late, is not booked, is over"
        ),
    ]
    check_in_from: datetime | None
    check_in_until: datetime | None


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    patient_name: Annotated[str, Field(description="已脱敏 / masked")]
    choices: list[ChoiceAnswer]
