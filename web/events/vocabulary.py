"""What others are told of what happened: one public word for each kind of event, with its fields.

Pure. The journal's events are ours and may change; these words are a contract (docs/EVENTS.md): a type is
never renamed, a field never removed or given another meaning. What must change that much gets the next
version: another `dataschema`, beside the old one for a while. A journal event is told as one public event or
not at all, so an id names both: {shard}-{seq}.

Nothing here says who somebody is: ids, times, counts and coded words alone. What people typed (notes, reasons
of calls) stays in the house.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import BillKey, RoomKey, ScheduleKey
from engine.domain.messages import Event
from engine.domain.policy import Channel

VERSION: Final = 1
LOST: Final = "lost_claim"
"""Why a seat is released that was never anybody's: its hold is taken back in the commit that wrote it."""

_ID: Final = {"type": "string", "format": "uuid"}
_TEXT: Final = {"type": "string"}
_INT: Final = {"type": "integer"}
_TIME: Final = {"type": "string", "format": "date-time"}
_DAY: Final = {"type": "string", "format": "date"}
_FEN: Final = {"type": "integer", "minimum": 0, "description": "money, in fen"}
_IDS: Final = {"type": "array", "items": _ID}

_APPOINTMENT: Final = {
    "appointment_id": _ID,
    "patient_id": _ID,
    "schedule_id": _TEXT,
    "practitioner_id": _TEXT,
    "department_id": _TEXT,
    "day": _DAY,
    "number": _INT,
}
_SCHEDULE: Final = {"schedule_id": _TEXT, "practitioner_id": _TEXT, "day": _DAY}
_TICKET: Final = {"ticket_id": _ID, "patient_id": _ID, "department_id": _TEXT, "day": _DAY}
_BILL: Final = {"bill_id": _ID, "patient_id": _ID}


@dataclass(frozen=True, slots=True)
class EventType:
    """A public word: what it means, the fields that are always there, and those that may be."""

    zh: str
    en: str
    fields: Mapping[str, Any]
    may: Mapping[str, Any] = field(default_factory=dict)


TYPES: Final[dict[str, EventType]] = {
    "appointment.held": EventType(
        "占号，待支付",
        "a number is held until it is paid",
        {**_APPOINTMENT, "slot_id": _TEXT, "channel": _TEXT, "hold_until": _TIME},
        {"replaces": _ID, "wish_id": _ID},
    ),
    "appointment.booked": EventType("预约成功", "the number is booked", _APPOINTMENT),
    "appointment.cancelled": EventType(
        "预约取消", "held or booked no more", {**_APPOINTMENT, "reason": _TEXT}
    ),
    "appointment.expired": EventType("占号超时", "was held and not paid in time", _APPOINTMENT),
    "appointment.rescheduled": EventType(
        "改签", "given up for another one", {**_APPOINTMENT, "successor_id": _ID}
    ),
    "appointment.restored": EventType(
        "取消被撤回", "what was last said of its end is taken back", {**_APPOINTMENT, "status": _TEXT}
    ),
    "appointment.arrived": EventType("已签到", "the patient is here", _APPOINTMENT),
    "appointment.arrival_withdrawn": EventType("签到撤回", "is not here after all", _APPOINTMENT),
    "appointment.fulfilled": EventType("已就诊", "the patient has been seen", _APPOINTMENT),
    "appointment.no_show": EventType("爽约", "the patient did not come", _APPOINTMENT),
    "appointment.confirmed": EventType("确认赴约", "the patient says that he will come", _APPOINTMENT),
    "waitlist.joined": EventType(
        "加入候补",
        "somebody waits for a number of this day",
        {**_SCHEDULE, "wish_id": _ID, "patient_ids": _IDS},
    ),
    "waitlist.left": EventType("候补结束", "waits no more", {**_SCHEDULE, "wish_id": _ID, "reason": _TEXT}),
    "schedule.opened": EventType("出诊开放", "a practitioner's day has begun to be booked", _SCHEDULE),
    "schedule.suspended": EventType(
        "停诊", "a session is called off", {**_SCHEDULE, "period": _TEXT, "reason": _TEXT}
    ),
    "schedule.paused": EventType(
        "暂停放号", "a session takes no bookings for now", {**_SCHEDULE, "period": _TEXT, "reason": _TEXT}
    ),
    "schedule.resumed": EventType(
        "恢复出诊", "a session goes on", {**_SCHEDULE, "period": _TEXT, "reason": _TEXT}
    ),
    "schedule.changed": EventType(
        "排班变更",
        "other times, rooms, numbers or another practitioner: ask what it is now",
        {**_SCHEDULE, "what": {"enum": ["session", "capacity", "times", "substitute"]}},
        {"period": _TEXT, "slot_id": _TEXT},
    ),
    "ticket.issued": EventType(
        "取号候诊",
        "somebody waits",
        {**_TICKET, "label": _TEXT, "queue_id": _TEXT},
        {"appointment_id": _ID},
    ),
    "ticket.called": EventType("叫号", "called to a room", {**_TICKET, "room_id": _TEXT}),
    "ticket.recalled": EventType("重复叫号", "called once more", _TICKET),
    "ticket.started": EventType("开始就诊", "has come in", _TICKET),
    "ticket.passed": EventType("过号", "was called and was not there", _TICKET),
    "ticket.returned": EventType("返回候诊", "waits again", _TICKET),
    "ticket.stage_finished": EventType(
        "本环节结束", "this stage of the journey is over", {**_TICKET, "stages_left": _INT}
    ),
    "ticket.left": EventType("离开候诊", "waits no more", _TICKET),
    "bill.opened": EventType(
        "账单生成", "there is something to pay", {**_BILL, "fen": _FEN}, {"appointment_id": _ID}
    ),
    "bill.paid": EventType("账单已付", "paid, and what was paid for is given", {**_BILL, "fen": _FEN}),
    "bill.refunded": EventType("退款完成", "money has gone back", {**_BILL, "refund_id": _ID, "fen": _FEN}),
    "bill.closed": EventType("账单关闭", "need not be paid any more", {**_BILL, "cause": _TEXT}),
}
"""Every type there is."""


@dataclass(frozen=True, slots=True)
class PublicEvent:
    """As it leaves the house, in whatever way."""

    shard: int
    seq: int
    stream: str
    type: str
    subject: str
    at: datetime
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Stable for ever: the same event has it in the feed, at the broker and in webhooks."""
        return f"{self.shard}-{self.seq}"


@dataclass(frozen=True, slots=True)
class BookedFor:
    """What an appointment's events do not say themselves; it never changes."""

    patient_id: bytes
    schedule_id: str
    department_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Looked up beside the events (web/events/reading.py), by id."""

    appointments: Mapping[bytes, BookedFor] = field(default_factory=dict)
    tickets: Mapping[bytes, bytes] = field(default_factory=dict)  # patients
    bills: Mapping[bytes, tuple[bytes, int]] = field(default_factory=dict)  # patients and fen


Told = tuple[str, str, dict[str, Any]]
"""Type, subject, data."""


def told(stream: str, event: Event, facts: Facts) -> Told | None:
    """The public event that a journal event is. None: it concerns nobody outside, or never came to be."""
    kind = stream.partition("/")[0]
    if kind == "schedule":
        return _of_appointment(ScheduleKey.of_stream(stream), event, facts) or _of_schedule(
            ScheduleKey.of_stream(stream), event
        )
    if kind == "room":
        return _of_ticket(RoomKey.of_stream(stream), event, facts)
    if kind == "bill":
        return _of_bill(BillKey.of_stream(stream).bill_id, event, facts)
    return None


def appointment_of(event: Event) -> bytes | None:
    """Whose facts have to be known to tell an event."""
    match event:
        case (
            s.SeatHeld()
            | s.SeatBooked()
            | s.SeatReleased()
            | s.SeatRestored()
            | s.AttendanceRecorded()
            | s.AttendanceConfirmed()
        ):
            return event.appointment_id
    return None


def ticket_of(event: Event) -> bytes | None:
    match event:
        case (
            w.TicketCalled()
            | w.TicketRecalled()
            | w.ServiceStarted()
            | w.TicketPassed()
            | w.TicketReturned()
            | w.StageFinished()
            | w.TicketLeft()
        ):
            return event.ticket_id
    return None


PUBLISHED: Final[frozenset[type]] = frozenset(
    (
        s.SeatHeld,
        s.SeatBooked,
        s.SeatReleased,
        s.SeatRestored,
        s.AttendanceRecorded,
        s.AttendanceConfirmed,
        s.ScheduleOpened,
        s.SessionOpened,
        s.SeatsAdded,
        s.SeatsBlocked,
        s.SeatsUnblocked,
        s.SessionMoved,
        s.SessionStatusSet,
        s.SessionSubstituted,
        s.WishAdded,
        s.WishEnded,
        w.TicketIssued,
        w.TicketCalled,
        w.TicketRecalled,
        w.ServiceStarted,
        w.TicketPassed,
        w.TicketReturned,
        w.StageFinished,
        w.TicketLeft,
        p.BillOpened,
        p.BillSettled,
        p.RefundDone,
        p.BillClosed,
    )
)
"""Kinds of journal events that may be told. What is not here, or comes later, stays in the house."""

_ATTENDANCE: Final = {
    s.Status.ARRIVED: "appointment.arrived",
    s.Status.FULFILLED: "appointment.fulfilled",
    s.Status.NOSHOW: "appointment.no_show",
    s.Status.BOOKED: "appointment.arrival_withdrawn",
}
_SESSION: Final = {
    "suspended": "schedule.suspended",
    "paused": "schedule.paused",
    "open": "schedule.resumed",
}


def _of_appointment(key: ScheduleKey, event: Event, facts: Facts) -> Told | None:
    appointment_id = appointment_of(event)
    if appointment_id is None:
        return None
    booked = facts.appointments.get(appointment_id)
    if booked is None or booked.schedule_id != key.schedule_id:
        return None  # a hold that lost what it needed: it was never anybody's
    about = {
        "appointment_id": uuid(appointment_id),
        "patient_id": uuid(booked.patient_id),
        "schedule_id": key.schedule_id,
        "practitioner_id": key.practitioner_id,
        "department_id": booked.department_id,
        "day": key.day,
        "number": booked.number,
    }

    def of(type_: str, **more: Any) -> Told:
        return type_, f"appointment/{uuid(appointment_id)}", {**about, **more}

    match event:
        case s.SeatHeld():
            more: dict[str, Any] = {
                "slot_id": key.slot_id(event.clock),
                "channel": str(Channel(event.channel).name).lower(),
                "hold_until": _iso(event.hold_until),
            }
            if event.replaces:
                more["replaces"] = uuid(event.replaces)
            if event.wish_id:
                more["wish_id"] = uuid(event.wish_id)
            return of("appointment.held", **more)
        case s.SeatBooked():
            return of("appointment.booked")
        case s.SeatReleased(reason=reason) if reason == LOST:
            return None
        case s.SeatReleased(successor=successor) if successor:
            return of("appointment.rescheduled", successor_id=uuid(successor))
        case s.SeatReleased(reason="expired"):
            return of("appointment.expired")
        case s.SeatReleased():
            return of("appointment.cancelled", reason=event.reason)
        case s.SeatRestored():
            return of("appointment.restored", status=s.Status(event.status).name.lower())
        case s.AttendanceRecorded():
            return of(_ATTENDANCE[s.Status(event.status)])
        case s.AttendanceConfirmed():
            return of("appointment.confirmed")
    return None


def _of_schedule(key: ScheduleKey, event: Event) -> Told | None:
    about = {"schedule_id": key.schedule_id, "practitioner_id": key.practitioner_id, "day": key.day}

    def of(type_: str, **more: Any) -> Told:
        return type_, f"schedule/{key.schedule_id}", {**about, **more}

    match event:
        case s.ScheduleOpened():
            return of("schedule.opened")
        case s.SessionOpened():
            return of("schedule.changed", what="session", period=event.session.period)
        case s.SeatsAdded() | s.SeatsBlocked() | s.SeatsUnblocked():
            return of("schedule.changed", what="capacity", slot_id=key.slot_id(event.clock))
        case s.SessionMoved():
            return of("schedule.changed", what="times", period=event.period)
        case s.SessionSubstituted():
            return of("schedule.changed", what="substitute", period=event.period)
        case s.SessionStatusSet():
            return of(_SESSION[event.status], period=event.period, reason=event.reason)
        case s.WishAdded():
            return of(
                "waitlist.joined",
                wish_id=uuid(event.wish_id),
                patient_ids=[uuid(one) for one in event.patient_ids],
            )
        case s.WishEnded():
            return of("waitlist.left", wish_id=uuid(event.wish_id), reason=event.reason)
    return None


_TICKETS: Final[dict[type, str]] = {
    w.TicketCalled: "ticket.called",
    w.TicketRecalled: "ticket.recalled",
    w.ServiceStarted: "ticket.started",
    w.TicketPassed: "ticket.passed",
    w.TicketReturned: "ticket.returned",
    w.StageFinished: "ticket.stage_finished",
    w.TicketLeft: "ticket.left",
}


def _of_ticket(key: RoomKey, event: Event, facts: Facts) -> Told | None:
    if isinstance(event, w.TicketIssued):
        ticket_id, patient_id = event.ticket_id, event.patient_id
    else:
        found = ticket_of(event)
        if found is None or found not in facts.tickets:
            return None
        ticket_id, patient_id = found, facts.tickets[found]
    about: dict[str, Any] = {
        "ticket_id": uuid(ticket_id),
        "patient_id": uuid(patient_id),
        "department_id": key.department_id,
        "day": key.day,
    }
    subject = f"ticket/{uuid(ticket_id)}"
    match event:
        case w.TicketIssued():
            about |= {"label": f"{event.prefix}{event.number:03}", "queue_id": event.stages[0][1]}
            if event.appointment_id:
                about["appointment_id"] = uuid(event.appointment_id)
            return "ticket.issued", subject, about
        case w.TicketCalled():
            about["room_id"] = event.room_id
        case w.StageFinished():
            about["stages_left"] = len(event.stages)
    return _TICKETS[type(event)], subject, about


def _of_bill(bill_id: bytes, event: Event, facts: Facts) -> Told | None:
    subject = f"bill/{uuid(bill_id)}"
    if bill_id not in facts.bills:
        return None
    patient_id, fen = facts.bills[bill_id]
    about: dict[str, Any] = {"bill_id": uuid(bill_id), "patient_id": uuid(patient_id)}
    match event:
        case p.BillOpened():
            about["fen"] = event.fen
            if event.appointment_id:
                about["appointment_id"] = uuid(event.appointment_id)
            return "bill.opened", subject, about
        case p.BillSettled():
            return "bill.paid", subject, {**about, "fen": fen}
        case p.RefundDone():
            return "bill.refunded", subject, {**about, "refund_id": uuid(event.refund_id), "fen": event.fen}
        case p.BillClosed():
            return "bill.closed", subject, {**about, "cause": event.cause}
    return None


def uuid(id_: bytes) -> str:
    return str(UUID(bytes=id_))


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
