"""Bytes on the wire and in the journal: msgpack of a type code and the fields in order.

Codes are for ever. Fields are only ever added, at the end and with a default, so that old bytes still read;
what is as by default is left out at the end.
"""

from collections.abc import Callable
from dataclasses import MISSING, fields
from operator import attrgetter
from typing import Any, Final

import msgpack

from engine.domain import payment as p
from engine.domain import schedule
from engine.domain import waiting_room as w
from engine.domain.messages import Command, Event, Reply
from engine.domain.planning import plan_as_data, plan_from_data, session_as_data, session_from_data
from engine.domain.price_rules import Discount, Line
from engine.domain.refusal import Reason, Refusal
from engine.domain.schedule import Answer, Many, Revised, Waiting

EVENT_CODES: Final[dict[type, int]] = {
    schedule.ScheduleOpened: 1,
    schedule.SeatHeld: 2,
    schedule.SeatBooked: 3,
    schedule.SeatReleased: 4,
    schedule.SeatRestored: 5,
    schedule.CoolingEnded: 6,
    schedule.ScheduleRevised: 7,
    schedule.SessionOpened: 8,
    schedule.SeatsAdded: 9,
    schedule.SeatsBlocked: 10,
    schedule.SeatsUnblocked: 11,
    schedule.SessionMoved: 12,
    schedule.SessionStatusSet: 13,
    schedule.SessionSubstituted: 14,
    schedule.SubstituteAnswered: 15,
    schedule.FateDecided: 16,
    schedule.AttendanceRecorded: 17,
    schedule.WishAdded: 18,
    schedule.WishEnded: 19,
    schedule.AttendanceConfirmed: 20,
    w.DayOpened: 21,
    w.QueueSet: 22,
    w.RoomSet: 23,
    w.TicketIssued: 24,
    w.TicketSentToDoor: 25,
    w.TicketCalled: 26,
    w.TicketRecalled: 27,
    w.ServiceStarted: 28,
    w.TicketPassed: 29,
    w.TicketParked: 30,
    w.TicketReturned: 31,
    w.StageFinished: 32,
    w.TicketReleased: 33,
    w.TicketTransferred: 34,
    w.TicketMoved: 35,
    w.TicketClassified: 36,
    w.TicketLeft: 37,
    w.StepUndone: 38,
    w.AlarmSet: 39,
    p.CommandTaken: 40,
    p.BillOpened: 41,
    p.PaymentStarted: 42,
    p.PrepayReady: 43,
    p.PaymentUncertain: 44,
    p.PaymentEnded: 45,
    p.PaymentReceived: 46,
    p.PaymentDeferred: 47,
    p.BillSettled: 48,
    p.BillClosed: 49,
    p.SeatSecured: 50,
    p.SeatLapsed: 51,
    p.SeatLost: 52,
    p.SeatChanged: 53,
    p.SeatUnwanted: 54,
    p.SeatReleased: 55,
    p.RefundRequested: 56,
    p.RefundSent: 57,
    p.RefundUncertain: 58,
    p.RefundReset: 59,
    p.RefundRejected: 60,
    p.RefundDone: 61,
}
COMMAND_CODES: Final[dict[type, int]] = {
    schedule.HoldSeat: 1,
    schedule.ConfirmAppointment: 2,
    schedule.CancelAppointment: 3,
    schedule.HoldGroup: 4,
    schedule.LeaveFor: 5,
    schedule.SettleChange: 6,
    schedule.JoinWaitlist: 7,
    schedule.LeaveWaitlist: 8,
    schedule.RecordAttendance: 9,
    schedule.OpenSession: 10,
    schedule.ChangeCapacity: 11,
    schedule.AddSeats: 12,
    schedule.AddPatient: 13,
    schedule.MoveSession: 14,
    schedule.SetSessionStatus: 15,
    schedule.SubstituteSession: 16,
    schedule.AnswerSubstitute: 17,
    schedule.DecideFate: 18,
    schedule.ConfirmAttendance: 19,
    schedule.ReleaseUnconfirmed: 20,
    w.SetQueue: 21,
    w.OpenRoom: 22,
    w.PauseRoom: 23,
    w.CloseRoom: 24,
    w.CheckIn: 25,
    w.TakeNumber: 26,
    w.CallNext: 27,
    w.CallTicket: 28,
    w.Recall: 29,
    w.StartService: 30,
    w.PassTicket: 31,
    w.ParkTicket: 32,
    w.ReturnTicket: 33,
    w.FinishTicket: 34,
    w.TransferTicket: 35,
    w.MoveTicket: 36,
    w.ClassifyTicket: 37,
    w.SendToDoor: 38,
    w.LeaveTicket: 39,
    w.UndoStep: 40,
    w.SoundAlarm: 41,
    p.OpenBill: 42,
    p.StartPayment: 43,
    p.PrepayAnswered: 44,
    p.PrepayRefused: 45,
    p.PaymentOutcomeLost: 46,
    p.PaymentFound: 47,
    p.PaymentReported: 48,
    p.PayAtHospital: 49,
    p.TakeAtDesk: 50,
    p.CloseBill: 51,
    p.SeatTaken: 52,
    p.SeatTakenAgain: 53,
    p.SeatGone: 54,
    p.SeatMoved: 55,
    p.RequestRefund: 56,
    p.RefundAccepted: 57,
    p.RefundOutcomeLost: 58,
    p.RefundFound: 59,
    p.RefundReported: 60,
    p.RefundRefused: 61,
    p.RetryRefund: 62,
    p.RefundAtDesk: 63,
}


def _nothing(_: object) -> tuple[Any, ...]:
    return ()


class _Fields:
    """A kind's fields as a tuple, without those at the end that are as by default."""

    __slots__ = ("_defaults", "_get", "_is_one", "_plain", "_required")

    def __init__(self, kind: type) -> None:
        found = fields(kind)
        self._get: Callable[[Any], Any] = attrgetter(*(f.name for f in found)) if found else _nothing
        self._is_one = len(found) == 1
        self._defaults = [f.default for f in found]
        self._required = sum(f.default is MISSING for f in found)
        self._plain = tuple(self._defaults[self._required :])

    def __call__(self, value: Any) -> tuple[Any, ...]:
        told: tuple[Any, ...] = (self._get(value),) if self._is_one else self._get(value)
        if told[self._required :] == self._plain:  # nearly always: all at once
            return told[: self._required]
        n = len(told)
        while n > self._required and told[n - 1] == self._defaults[n - 1]:
            n -= 1
        return told if n == len(told) else told[:n]


_FIELDS = {
    kind: _Fields(kind)
    for kind in (*EVENT_CODES, *COMMAND_CODES, Answer, Waiting, w.Told, p.Answer, Line, Discount)
}

# Kinds with something in them that has fields of its own: how it is told as plain data, and read again.


def _schedule_opened(event: Any) -> tuple[Any, ...]:
    return (plan_as_data(event.plan),)


def _session_opened(event: Any) -> tuple[Any, ...]:
    return (session_as_data(event.session),)


def _open_session(command: Any) -> tuple[Any, ...]:
    return command.command_id, command.expected, command.by, command.note, session_as_data(command.session)


def _read_open_session(
    command_id: bytes, expected: int, by: str, note: str, session: Any
) -> schedule.OpenSession:
    return schedule.OpenSession(command_id, expected, by, note, session_from_data(session))


_LINES: Final = 5
"""Where the lines of OpenBill stand, and its discounts behind them; in BillOpened one place before."""


def _told_bill(bill: Any, at: int) -> tuple[Any, ...]:
    told = list(_FIELDS[type(bill)](bill))
    told[at] = [_FIELDS[Line](line) for line in told[at]]
    if len(told) > at + 1:
        told[at + 1] = [_FIELDS[Discount](discount) for discount in told[at + 1]]
    return tuple(told)


def _read_bill(kind: Any, at: int, told: tuple[Any, ...]) -> Any:
    lines = tuple(Line(*line) for line in told[at])
    discounts = [tuple(Discount(*one) for one in found) for found in told[at + 1 : at + 2]]
    return kind(*told[:at], lines, *discounts, *told[at + 2 :])


_TELL: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    **_FIELDS,
    schedule.ScheduleOpened: _schedule_opened,
    schedule.SessionOpened: _session_opened,
    schedule.OpenSession: _open_session,
    p.BillOpened: lambda event: _told_bill(event, _LINES - 1),
    p.OpenBill: lambda command: _told_bill(command, _LINES),
}
_READ: Final[dict[type, Callable[..., Any]]] = {
    **{kind: kind for kind in (*EVENT_CODES, *COMMAND_CODES)},
    schedule.ScheduleOpened: lambda plan: schedule.ScheduleOpened(plan_from_data(plan)),
    schedule.SessionOpened: lambda session: schedule.SessionOpened(session_from_data(session)),
    schedule.OpenSession: _read_open_session,
    p.BillOpened: lambda *told: _read_bill(p.BillOpened, _LINES - 1, told),
    p.OpenBill: lambda *told: _read_bill(p.OpenBill, _LINES, told),
}
_READ_EVENT = {code: _READ[kind] for kind, code in EVENT_CODES.items()}
_READ_COMMAND = {code: _READ[kind] for kind, code in COMMAND_CODES.items()}


def pack_event(event: Event) -> bytes:
    packed: bytes = msgpack.packb(_TELL[type(event)](event))
    return packed


def unpack_event(code: int, data: bytes) -> Event:
    event: Event = _READ_EVENT[code](*msgpack.unpackb(data, use_list=False))
    return event


# A batch from a gateway to a shard: [[stream, ms left, command code, fields], …]; what comes back, in order:
# [0, fields of Answer], [1, reason, detail], [2, answers], [3, revision, answer], [4, fields of Waiting],
# [5, fields of Told], [6, fields of a bill's Answer].

Ask = tuple[str, int, Command]


def pack_asks(asks: list[Ask]) -> bytes:
    packed: bytes = msgpack.packb([(stream, ms, *_command(command)) for stream, ms, command in asks])
    return packed


def _command(command: Command) -> tuple[int, tuple[Any, ...]]:
    kind = type(command)
    return COMMAND_CODES[kind], _TELL[kind](command)


def unpack_asks(data: bytes) -> list[Ask]:
    return [
        (stream, ms, _READ_COMMAND[code](*told))
        for stream, ms, code, told in msgpack.unpackb(data, use_list=False)
    ]


def pack_replies(replies: list[Reply | Refusal]) -> bytes:
    packed: bytes = msgpack.packb([_told(reply) for reply in replies])
    return packed


def _told(reply: Reply | Refusal) -> tuple[Any, ...]:
    match reply:
        case Answer():
            return 0, _FIELDS[Answer](reply)
        case Refusal():
            return 1, reply.reason, reply.detail
        case Many():
            return 2, [_FIELDS[Answer](answer) for answer in reply.answers]
        case Revised():
            return 3, reply.revision, reply.appointment and _FIELDS[Answer](reply.appointment)
        case Waiting():
            return 4, _FIELDS[Waiting](reply)
        case w.Told():
            return 5, _FIELDS[w.Told](reply)
        case p.Answer():
            return 6, _FIELDS[p.Answer](reply)


def unpack_replies(data: bytes) -> list[Reply | Refusal]:
    return [_reply_of(*told) for told in msgpack.unpackb(data)]


def _reply_of(kind: int, first: Any, second: Any = None) -> Reply | Refusal:
    if kind == 0:
        return Answer(*first)
    if kind == 1:
        return Refusal(Reason(first), second)
    if kind == 2:
        return Many(tuple(Answer(*told) for told in first))
    if kind == 3:
        return Revised(first, second and Answer(*second))
    if kind == 4:
        return Waiting(*first)
    if kind == 5:
        return w.Told(*first)
    return p.Answer(*first)
