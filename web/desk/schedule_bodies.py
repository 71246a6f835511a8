"""What the desk says and hears about a practitioner's day. Texts are Chinese / English."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from engine.domain.limits import NUMBER_MAX, SEATS_ADDED_MAX, SLOT_CAPACITY_MAX
from web.patient.bodies import ChannelWord, FateWord, Id, Period, Request, StatusWord, Word, ZonedTime

Clock = Annotated[
    str,
    Field(
        pattern=r"^([01][0-9]|2[0-3]):(00|30)$",
        description="医院当地时间，整点或半点 / local time of the hospital, on the half hour",
    ),
]
Note = Annotated[
    str,
    Field(
        max_length=500,
        pattern=r"^[^\x00-\x08\x0b-\x1f]*$",
        description="原因，记入历史 / why; kept in the history",
    ),
]
SuspensionReason = Literal[
    "doctor_ill", "leave", "meeting", "surgery", "emergency", "equipment", "disaster", "other"
]
Force = Annotated[
    bool, Field(description="诊室被占用时仍要使用，须写明 note / use a room that is taken; needs a note")
]


# Changes. Each says which revision of the day was looked at.


class ChangeBody(Request):
    revision: Annotated[
        int,
        Field(
            ge=0, le=NUMBER_MAX, description="所依据的排班版本 / the revision of the day that was looked at"
        ),
    ]
    note: Note = ""


class ExtraSessionBody(ChangeBody):
    period: Period
    starts: Clock
    ends: Clock
    capacity: Annotated[int, Field(ge=1, le=SLOT_CAPACITY_MAX, description="每半小时号数 / seats a slot")]
    number_class_id: Word
    department_id: Annotated[
        Word | None, Field(description="默认为医生所在科室 / by default the practitioner's own")
    ] = None
    room_id: Word | None = None
    fee: Annotated[
        int | None,
        Field(ge=0, le=10_000_000, description="分；默认为号别的费用 / fen; the class's by default"),
    ] = None
    force: Force = False


class CapacityBody(ChangeBody):
    period: Period
    slot: Annotated[
        Clock | None, Field(description="默认为全部未开始的时段 / by default every slot that has not begun")
    ] = None
    delta: Annotated[
        int,
        Field(
            ge=-SLOT_CAPACITY_MAX,
            le=SLOT_CAPACITY_MAX,
            description="每时段增减的号数 / seats a slot, more or fewer",
        ),
    ]


class SeatsBody(ChangeBody):
    slot: Clock
    count: Annotated[int, Field(ge=1, le=SEATS_ADDED_MAX, description="加号数 / seats beyond the plan")]
    channel: Annotated[
        ChannelWord | None, Field(description="只供此渠道；默认不限 / for this channel alone; else everybody")
    ] = None


class ExtraPatientBody(ChangeBody):
    slot: Clock
    patient_id: UUID
    account_id: Annotated[
        UUID | None,
        Field(description="默认为本人的账号 / whose number it is; by default the patient's own account"),
    ] = None
    visit: Literal["first", "follow_up"] = "first"


class MoveBody(ChangeBody):
    period: Period
    starts: Annotated[Clock | None, Field(description="新的开始时间 / when it begins instead")] = None
    room_id: Annotated[Word | None, Field(description="新的诊室 / where it is held instead")] = None
    force: Force = False


class StatusBody(ChangeBody):
    period: Period
    status: Literal["paused", "open"]


class SuspendBody(ChangeBody):
    period: Annotated[
        Period | Literal["all"], Field(description="午别，或全天 / a session, or the whole day")
    ]
    reason: Annotated[
        SuspensionReason, Field(description="停诊原因；other 须写明 note / why; other needs a note")
    ]


class SubstituteBody(ChangeBody):
    period: Period
    practitioner_id: Annotated[
        Word | None,
        Field(description="替诊医生；null 为撤销替诊 / null: the practitioner holds it after all"),
    ]


# The same, each naming itself: what is previewed, and what waits for consent.


class OpenSession(ExtraSessionBody):
    command: Literal["open_session"]


class ChangeCapacity(CapacityBody):
    command: Literal["change_capacity"]


class AddSeats(SeatsBody):
    command: Literal["add_seats"]


class AddPatient(ExtraPatientBody):
    command: Literal["add_patient"]


class MoveSession(MoveBody):
    command: Literal["move_session"]


class SetStatus(StatusBody):
    command: Literal["set_status"]


class Suspend(SuspendBody):
    command: Literal["suspend"]


class Substitute(SubstituteBody):
    command: Literal["substitute"]


NamedChange = Annotated[
    OpenSession | ChangeCapacity | AddSeats | AddPatient | MoveSession | SetStatus | Suspend | Substitute,
    Field(discriminator="command"),
]


@dataclass(frozen=True, slots=True)
class AddedAnswer:
    """加号患者的号 / the number of a patient who was added."""

    id: Id
    number: int
    slot_id: str
    status: StatusWord


@dataclass(frozen=True, slots=True)
class RevisedAnswer:
    schedule_id: str
    status: Literal["done"]
    revision: Annotated[int, Field(description="变更后的版本 / the day's revision after it")]
    appointment: AddedAnswer | None = None


@dataclass(frozen=True, slots=True)
class PendingAnswer:
    request_id: Id
    status: Annotated[
        Literal["pending", "executing", "approved", "rejected"],
        Field(description="申请的状态 / what has become of the request"),
    ]
    role: Annotated[str, Field(description="须由此角色批准 / who must agree to it")]


# The day sheet.


@dataclass(frozen=True, slots=True)
class PoolAnswer:
    """号源池 / seats that open alike."""

    name: str
    seats: int
    free: int
    channels: Annotated[list[ChannelWord], Field(description="此刻可约的渠道 / who may book them now")]


@dataclass(frozen=True, slots=True)
class DaySlotAnswer:
    slot_id: str
    start: datetime
    end: datetime
    capacity: Annotated[int, Field(description="现有号数，含锁定 / seats that exist, blocked ones too")]
    taken: Annotated[int, Field(description="已占或已约 / held or booked")]
    blocked: Annotated[int, Field(description="已减掉 / taken out of use")]
    cooling: Annotated[int, Field(description="退号冷却中 / returned, and not to be had yet")]
    free: int
    added: Annotated[int, Field(description="加号数 / seats beyond the plan")]
    pools: list[PoolAnswer]


@dataclass(frozen=True, slots=True)
class DaySessionAnswer:
    period: Period
    status: Literal["open", "paused", "suspended"]
    department_id: str
    department_name: str | None
    number_class_id: str
    room_id: str | None
    fee: int
    substitute_id: str | None
    substitute_name: str | None
    slots: list[DaySlotAnswer]


@dataclass(frozen=True, slots=True)
class DayAppointmentAnswer:
    id: Id
    slot_id: str
    number: int
    status: StatusWord
    patient_id: Annotated[Id | None, Field(description="非本科室不显示 / not shown to other departments")]
    patient_name: Annotated[str, Field(description="非本科室隐去 / masked for other departments")]
    visit: Literal["first", "follow_up"]
    channel: ChannelWord
    hold_until: datetime | None
    fate: FateWord | None
    consent: Annotated[bool | None, Field(description="是否同意替诊 / to the substitute; null: not answered")]


@dataclass(frozen=True, slots=True)
class DayAnswer:
    """排班表 / a practitioner's day as staff see it."""

    schedule_id: str
    practitioner_id: str
    practitioner_name: str
    day: date
    revision: int
    revised_by: Annotated[str | None, Field(description="最近修改者 / who changed it last")]
    sessions: list[DaySessionAnswer]
    appointments: list[DayAppointmentAnswer]
    waiting: Annotated[int, Field(description="候补人数 / wishes on the waiting list")]


# Previews.


@dataclass(frozen=True, slots=True)
class ConflictAnswer:
    """该患者的另一次就诊 / another visit of the same patient at the new time."""

    appointment_id: Id
    schedule_id: str
    slot_id: str
    start: datetime


@dataclass(frozen=True, slots=True)
class ForeseenAnswer:
    appointment_id: Id
    patient_name: str
    number: int
    effect: Literal["moved", "room", "suspended", "released", "substitute", "restored", "added"]
    start: datetime
    new_start: datetime
    conflicts: list[ConflictAnswer]


@dataclass(frozen=True, slots=True)
class SlotChangeAnswer:
    slot_id: str
    was: Annotated[str | None, Field(description="变更前的时段；新增为 null / its id before; null: new")]
    start: datetime
    capacity: int
    new_capacity: int
    free: int
    new_free: int


@dataclass(frozen=True, slots=True)
class ElsewhereAnswer:
    """停诊后可改到的号源 / where those who are booked could go."""

    same_practitioner: Annotated[int, Field(description="同一医生近日的余号 / seats of the same doctor")]
    same_title_same_day: Annotated[int, Field(description="当日同科室同职称的余号 / of the same title")]
    waitlist: Annotated[bool, Field(description="是否可转候补 / whether a waiting list is kept")]


@dataclass(frozen=True, slots=True)
class PreviewAnswer:
    command: str
    revision: Annotated[int, Field(description="变更后的版本 / the revision that it would make")]
    needs_role: Annotated[
        str | None, Field(description="须由此角色批准 / who would have to agree; null: nobody else")
    ]
    refusal: Annotated[dict[str, Any] | None, Field(description="将被拒绝的原因 / the problem it would meet")]
    affected_count: int
    conflict_count: Annotated[int, Field(description="时间冲突的人数 / who have another visit then")]
    affected: list[ForeseenAnswer]
    seats_opened: int
    seats_closed: int
    slots: list[SlotChangeAnswer]
    elsewhere: ElsewhereAnswer | None


# Requests for consent.


class RequestsQuery(Request):
    status: Annotated[
        Literal["waiting", "approved", "rejected"],
        Field(description="waiting：待批准或执行中 / pending or being carried out"),
    ] = "waiting"
    after: Annotated[
        ZonedTime | None, Field(description="上一页最后一项的 asked_at / asked_at of the last one seen")
    ] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class ConsentBody(Request):
    decision: Literal["approve", "reject"]
    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=500,
            pattern=r"^[^\x00-\x08\x0b-\x1f]*[^\x00-\x20][^\x00-\x08\x0b-\x1f]*$",
        ),
    ]


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    id: Id
    command: Annotated[str, Field(description="事项 / what is asked for, as policy.yaml calls it")]
    role: Annotated[str, Field(description="须由此角色批准 / who must agree")]
    target: Annotated[str, Field(description="排班或医生 / a schedule, or a practitioner's week")]
    practitioner_id: str
    body: Annotated[dict[str, Any], Field(description="申请的内容 / what was asked")]
    revision: str
    note: str
    status: Literal["pending", "executing", "approved", "rejected"]
    asked_by: str
    asked_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class RequestsAnswer:
    requests: list[RequestAnswer]
    after: Annotated[
        datetime | None,
        Field(description="下一页的 after；没有更多则为 null / for the next page; null at the end"),
    ]


# History.


class HistoryQuery(Request):
    after: Annotated[
        int, Field(ge=0, le=NUMBER_MAX, description="上一页的 after / as the last page gave it")
    ] = 0
    limit: Annotated[int, Field(ge=1, le=500)] = 200


@dataclass(frozen=True, slots=True)
class HistoryLineAnswer:
    at: datetime
    what: Annotated[str, Field(description="发生了什么（代码）/ what happened, as a code")]
    text: Annotated[str, Field(description="发生了什么 / the same in words")]
    by: Annotated[
        Literal["self", "staff", "system"],
        Field(description="患者本人、医院职工、系统 / the patient's account, staff, the system"),
    ]
    by_name: Annotated[str | None, Field(description="职工姓名 / of staff; shown to staff alone")]
    reason: Annotated[str | None, Field(description="原因代码 / why, as a code")]
    note: Annotated[str | None, Field(description="原因 / why, in their words")]
    approved_by: Annotated[str | None, Field(description="批准者 / who agreed to it")]
    appointment_id: Id | None
    details: dict[str, str]


@dataclass(frozen=True, slots=True)
class HistoryAnswer:
    lines: list[HistoryLineAnswer]
    after: Annotated[
        int | None,
        Field(description="下一页的 after；没有更多则为 null / for the next page; null at the end"),
    ]
