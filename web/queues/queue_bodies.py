"""What staff say and hear at a waiting room. Texts are Chinese / English."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from engine.domain.limits import EMERGENCY_LEVELS, MOVED_MAX, NUMBER_MAX, STAGES_MAX, TICKET_NUMBER_MAX
from web.patient.bodies import Id, IsoDate, Request, Word, ZonedTime

Why = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
        description="原因，记入历史 / why; kept in the history",
    ),
]
Note = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
ExpectedOfRoom = Annotated[
    int | None,
    Field(
        ge=0,
        le=NUMBER_MAX,
        description="所见的诊室版本；与现状不同则拒绝 / of the room as it was seen; else refused",
    ),
]
BoardVersion = Annotated[
    int, Field(description="看板从此版本起含此操作，见 at_least / a board shows it from this version on")
]
ExpectedOfTicket = Annotated[
    int | None,
    Field(
        ge=0,
        le=NUMBER_MAX,
        description="所见的候诊号版本；与现状不同则拒绝 / of the ticket as seen; else refused",
    ),
]
QueueKind = Literal["visit", "triage", "examination", "pharmacy", "desk"]
TicketStatusWord = Literal[
    "waiting", "door", "called", "serving", "parked", "away", "passed", "finished", "left"
]
RoomStatusWord = Literal["open", "paused", "closed"]
SightWord = Literal["whole", "masked", "screen", "counters"]
ByWord = Literal["self", "staff", "system"]


# Addresses.


class QueueDepartmentPath(Request):
    department_id: Word


class QueueRoomPath(Request):
    department_id: Word
    room_id: Word


class QueuePath(Request):
    department_id: Word
    queue_id: Word


class QueueTicketPath(Request):
    department_id: Word
    ticket_id: UUID


class ActingQuery(Request):
    day: Annotated[
        IsoDate | None,
        Field(description="默认今天；跨夜时可为昨天 / today; yesterday for who waits past midnight"),
    ] = None


class BoardQuery(Request):
    day: Annotated[IsoDate | None, Field(description="默认今天 / today by default")] = None


class OneBoardQuery(BoardQuery):
    at_least: Annotated[
        int,
        Field(
            ge=0, le=1_000_000, description="不早于此版本（见 board_version）/ not older than this version"
        ),
    ] = 0


class BoardsQuery(Request):
    day: Annotated[IsoDate | None, Field(description="默认今天 / today by default")] = None
    after: Annotated[Word | None, Field(description="上一页的 next / as the last page gave it in next")] = (
        None
    )
    limit: Annotated[int, Field(ge=1, le=200)] = 100


class TicketWhyQuery(OneBoardQuery):
    other: UUID


class RoomHistoryQuery(BoardQuery):
    after: Annotated[int, Field(ge=0, le=NUMBER_MAX, description="此版本之后 / after this version")] = 0
    limit: Annotated[int, Field(ge=1, le=500)] = 200
    by_hand: Annotated[bool, Field(description="只看人工调整 / only what was done by hand")] = False


# Rooms and queues.


class OpenRoomBody(Request):
    queues: Annotated[
        list[Word] | None,
        Field(
            min_length=1,
            max_length=64,
            description="默认为医生自己的队列和普通队列 / the practitioner's own queue and the general one",
        ),
    ] = None
    practitioner_id: Annotated[
        Word | None, Field(description="医生默认为本人；无则为窗口 / a doctor's own; none: a desk")
    ] = None
    expected_version: ExpectedOfRoom = None


class PauseRoomBody(Request):
    reason: Note = ""
    expected_version: ExpectedOfRoom = None


class CloseRoomBody(Request):
    reason: Note = ""
    keeps: Annotated[
        bool, Field(description="患者继续等该医生 / they wait until the practitioner is back")
    ] = False
    to_queue: Annotated[Word | None, Field(description="转到的队列 / where they wait instead")] = None
    to_practitioner: Annotated[Word | None, Field(description="转给的医生 / for whom instead")] = None
    until: Annotated[
        ZonedTime | None,
        Field(
            description="此前预约的后来者也转走；默认到本场结束 / who comes later; else to the session's end"
        ),
    ] = None
    expected_version: ExpectedOfRoom = None


class AlarmBody(Request):
    on: bool = True
    note: Note = ""


class QueueBody(Request):
    kind: QueueKind = "visit"
    prefix: Annotated[str, Field(pattern=r"^[A-Z]{0,2}$", description="号码前缀 / before the number")]
    first: Annotated[int, Field(ge=1, le=TICKET_NUMBER_MAX)]
    last: Annotated[int, Field(ge=1, le=TICKET_NUMBER_MAX)]
    practitioner_id: Annotated[Word | None, Field(description="某医生专属的队列 / whose own queue it is")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class RoomStepAnswer:
    """操作之后的诊室 / a room right after what was done."""

    room_id: str
    status: RoomStatusWord | None
    alarm: bool | None
    version: int
    board_version: BoardVersion


@dataclass(frozen=True, slots=True)
class QueueSetAnswer:
    queue_id: str
    kind: QueueKind
    prefix: str
    first: int
    last: int
    practitioner_id: str | None
    board_version: BoardVersion


# Calling.


class CallNextBody(Request):
    room_id: Word
    expected_version: ExpectedOfRoom = None
    finishes: Annotated[
        bool, Field(description="先结束正在就诊的 / finishes whoever is being seen there first")
    ] = True


class CallTicketBody(Request):
    room_id: Word
    reason: Annotated[
        Note, Field(description="不是下一位时必填 / needed unless it is the next one anyway")
    ] = ""
    expected_version: ExpectedOfTicket = None


class TicketStepBody(Request):
    expected_version: ExpectedOfTicket = None


class ReturnTicketBody(Request):
    pass


class WithReasonBody(TicketStepBody):
    reason: Why


class ParkBody(WithReasonBody):
    until: Annotated[
        ZonedTime | None, Field(description="到时自动回队；默认由人工叫回 / waits again by itself then")
    ] = None


class StageBody(Request):
    kind: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$", description="visit、examination、pharmacy …")]
    queue_id: Annotated[
        Word | None, Field(description="本科室的队列；默认在别处 / a queue of this room; else elsewhere")
    ] = None
    practitioner_id: Word | None = None
    comes_back: Annotated[bool, Field(description="回诊 / back to whoever sent the patient")] = False


class FinishBody(TicketStepBody):
    stages: Annotated[
        list[StageBody] | None,
        Field(max_length=STAGES_MAX, description="之后的环节；默认按原计划 / what is next; else as planned"),
    ] = None


class TransferBody(WithReasonBody):
    queue_id: Word
    practitioner_id: Annotated[Word | None, Field(description="默认不限 / anybody by default")] = None


class MoveTicketBody(WithReasonBody):
    ahead: Annotated[int, Field(ge=0, le=MOVED_MAX, description="排在几人之后 / lets so many go first")]


class ClassifyBody(WithReasonBody):
    priority: Annotated[str, Field(pattern=r"^[a-z0-9_]{0,32}$", description="优先类别 / class")] = ""
    emergency: Annotated[
        int, Field(ge=0, le=EMERGENCY_LEVELS, description="急诊级别，0 为无 / level; 0: none")
    ] = 0


class DoorBody(WithReasonBody):
    room_id: Word


class UndoBody(WithReasonBody):
    expected_version: Annotated[
        int,
        Field(
            ge=0,
            le=NUMBER_MAX,
            description="所见的候诊号版本，必填 / of the ticket as it was seen; must be said",
        ),
    ]


@dataclass(frozen=True, slots=True)
class CalledWhyAnswer:
    """为何叫到此号 / why it was this one."""

    lane: Annotated[
        str, Field(description="ordinary、returned、late、passed、walk_in、priority:…、emergency …")
    ]
    text: str
    out_of_turn: Annotated[bool, Field(description="人工指定 / chosen by hand")]
    reason: str | None


@dataclass(frozen=True, slots=True)
class TicketStepAnswer:
    """操作之后的候诊号，重试得到同样的回答 / a ticket right after what was done; a retry is told the same."""

    ticket_id: Id
    number: str
    patient_id: Id
    patient_name: str
    status: TicketStatusWord
    version: int
    room_id: str | None
    room_name: str | None
    room_version: int | None
    why: Annotated[CalledWhyAnswer | None, Field(description="叫号时才有 / of calls only")]
    board_version: BoardVersion


# Boards.


@dataclass(frozen=True, slots=True)
class BoardMovedAnswer:
    """人工调整 / moved by hand."""

    ahead: Annotated[int, Field(description="当时排在几人之后 / so many were to go first")]
    reason: str


@dataclass(frozen=True, slots=True)
class BoardTicketAnswer:
    ticket_id: Id
    number: str
    status: TicketStatusWord
    version: int
    patient_id: Annotated[Id | None, Field(description="仅本科室人员可见 / for those who work here")]
    patient_name: str
    queue_id: str | None
    practitioner_id: Annotated[str | None, Field(description="只等这位医生 / who alone may call it")]
    room_id: Annotated[
        str | None, Field(description="门口、叫号或就诊的诊室 / at its door, called or seen there")
    ]
    position: Annotated[int, Field(description="从 1 起；0 为不在队列中 / from 1; 0: not in line")]
    ahead: Annotated[int, Field(description="前面可能先叫到的人数 / whom the same rooms may call first")]
    band: Annotated[
        Literal["emergency", "overtaken", "door", "line", "rests"] | None,
        Field(description="所在的段，见文档 / the part of the line; null: not in line"),
    ]
    lane: str | None
    lane_text: str | None
    waits_since: Annotated[datetime, Field(description="等候时间从此算起 / waiting counts from then")]
    arrived_at: datetime
    starts_at: Annotated[datetime | None, Field(description="预约时间；null 为现场号 / null: a walk-in")]
    called_at: datetime | None
    started_at: datetime | None
    parked_until: datetime | None
    rests_until: Annotated[datetime | None, Field(description="过号后此前不叫 / not called before then")]
    calls: int
    visit: Literal["first", "follow_up"]
    priority: str | None
    emergency: Annotated[int, Field(description="0 为无 / 0: none")]
    late: bool
    returned: Annotated[bool, Field(description="回诊 / back from an examination")]
    passed: Annotated[bool, Field(description="过号 / was passed over")]
    passes: int
    overtaken: Annotated[int, Field(description="被后到者超过的次数 / by later arrivals")]
    moved: BoardMovedAnswer | None
    stage: Annotated[int, Field(description="第几环节 / of the journey, from 1")]
    stages: int


@dataclass(frozen=True, slots=True)
class BoardQueueAnswer:
    queue_id: str
    kind: str
    name: str
    prefix: str
    first: int
    last: int
    next_number: int
    practitioner_id: str | None
    waiting: Annotated[int, Field(description="含诊室门口 / those at doors included")]
    called: Annotated[int, Field(description="叫号中和就诊中 / called or being seen")]
    parked: int
    passed: int
    away: Annotated[int, Field(description="在本队列等检查回来 / at an examination of this queue")]
    open_rooms: int
    waiting_since: Annotated[datetime | None, Field(description="等得最久者 / of who has waited longest")]
    line: Annotated[
        list[BoardTicketAnswer] | None,
        Field(description="按叫号顺序 / the next one first; null: not shown"),
    ]


@dataclass(frozen=True, slots=True)
class BoardRoomAnswer:
    room_id: str
    name: str
    status: RoomStatusWord
    version: int
    practitioner_id: str | None
    practitioner_name: str | None
    queues: list[str]
    ticket: Annotated[BoardTicketAnswer | None, Field(description="叫号中或就诊中 / called or being seen")]
    door: Annotated[list[Id], Field(description="门口候诊，按先后 / at the door, in order")]
    next: Annotated[str | None, Field(description="下一位的号码 / whose turn would be next")]
    alarm_since: datetime | None


@dataclass(frozen=True, slots=True)
class BoardCallAnswer:
    sequence: int
    kind: Literal["called", "recalled", "door", "withdrawn"]
    ticket_id: Id
    number: str
    patient_name: str
    room_id: str
    room_name: str
    queue_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class BoardAnswer:
    """一个科室当天的候诊 / one department's day of waiting."""

    department_id: str
    department_name: str
    day: date
    version: Annotated[int, Field(description="事件数；0 为尚无人到 / events so far; 0: nothing yet")]
    sight: Annotated[SightWord, Field(description="可见范围 / how much of it you see")]
    waiting: int
    open_rooms: int
    queues: list[BoardQueueAnswer]
    rooms: list[BoardRoomAnswer] | None
    aside: Annotated[
        list[BoardTicketAnswer] | None,
        Field(description="暂离、检查中、过号未报到 / parked, away, passed over"),
    ]
    last_calls: Annotated[
        list[BoardCallAnswer] | None, Field(description="最近叫号，新的在前 / latest first")
    ]


@dataclass(frozen=True, slots=True)
class BoardRowAnswer:
    department_id: str
    department_name: str
    waiting: int
    called: Annotated[int, Field(description="叫号中和就诊中 / called or being seen")]
    aside: Annotated[int, Field(description="暂离、检查中、过号 / parked, away, passed over")]
    waiting_since: Annotated[
        datetime | None, Field(description="等候者中最早签到的时间 / when the first of those who wait came")
    ]


@dataclass(frozen=True, slots=True)
class BoardsAnswer:
    day: date
    departments: list[BoardRowAnswer]
    next: Annotated[str | None, Field(description="下一页的 after / for the next page; null: the last one")]


# What happened, and why.


@dataclass(frozen=True, slots=True)
class RoomHistoryLineAnswer:
    version: int
    at: datetime
    what: str
    text: str
    by: ByWord
    by_name: str | None
    by_hand: Annotated[bool, Field(description="人工调整顺序 / the order was changed by hand")]
    reason: str | None
    ticket_id: Id | None
    number: str | None
    room_id: str | None
    details: dict[str, str]


@dataclass(frozen=True, slots=True)
class RoomHistoryAnswer:
    lines: list[RoomHistoryLineAnswer]
    next: Annotated[int | None, Field(description="下一页的 after / for the next page; null: the last one")]


@dataclass(frozen=True, slots=True)
class TicketWhyAnswer:
    """两个候诊号谁在前，为什么 / which of two goes first, and why."""

    first: Annotated[Id | None, Field(description="先叫到的；null 为不在同一队列 / null: not comparable")]
    number: Annotated[str | None, Field(description="先叫到的号码 / of the one in front")]
    why: str | None
    text: Annotated[str, Field(description="对后面的人说的话 / as it is said to the one behind")]
    reason: Annotated[str | None, Field(description="人工调整的原因 / of what was done by hand")]
