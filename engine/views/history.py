"""Who changed what, when and why: a day's journal as lines that people read.

Pure. A line's `by` is "self" (the patient's account), or who it was as the engine
names them (engine/domain/by.py). What never came to be, because a claim was lost, is no history.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, assert_never

from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.recorded import Recorded
from engine.domain.seats import number_of

SELF: Final = "self"

WORDS: Final[dict[str, tuple[str, str]]] = {
    "day_opened": ("首次有人操作，当日号源生效", "The day's plan took effect"),
    "held": ("占号 {slot}，{number} 号", "Held {slot}, number {number}"),
    "held_for_change": ("为改签占号 {slot}，{number} 号", "Held {slot}, number {number}, for a change"),
    "offered": ("候补到号 {slot}，{number} 号", "Offered {slot}, number {number}, from the waiting list"),
    "booked": ("预约成功", "Booked"),
    "cancelled": ("取消预约", "Cancelled"),
    "expired": ("占号超时释放", "The hold ended unpaid"),
    "changed": ("改签到其他号", "Changed to another number"),
    "suspended": ("因停诊释放", "Released because the session is called off"),
    "substitute_declined": ("因不接受替诊而取消", "Cancelled because the substitute was declined"),
    "excused": ("因医院调整而取消", "Cancelled after the hospital changed the session"),
    "unconfirmed": ("未确认到诊，号已释放", "Went back: nobody said that they would come"),
    "will_come": ("确认到诊", "Said that they will come"),
    "released": ("号源释放", "Released"),
    "arrived": ("签到", "Arrived"),
    "fulfilled": ("就诊完成", "Seen"),
    "noshow": ("未到", "Did not come"),
    "not_arrived": ("撤销签到", "Arrival taken back"),
    "fate_offered": ("停诊安排：已另留号", "Called off: another number is kept"),
    "fate_moved": ("停诊安排：已改到其他号", "Called off: moved to another number"),
    "fate_waitlisted": ("停诊安排：转入候补", "Called off: put on the waiting list"),
    "fate_refunded": ("停诊安排：退号退费", "Called off: to be refunded"),
    "substitute_accepted": ("同意替诊", "Agreed to the substitute"),
    "substitute_refused": ("不同意替诊", "Did not agree to the substitute"),
    "session_opened": ("加开门诊 {period} {slots}", "Opened the {period} session {slots}"),
    "capacity_changed": ("调整号数 {seats}", "Changed the seats {seats}"),
    "seats_added": ("加号 {seats}", "Added seats {seats}"),
    "session_moved": ("调整时间或诊室 {moves} {room}", "Moved the session {moves} {room}"),
    "session_paused": ("暂停预约 {period}", "Paused the {period} session"),
    "session_resumed": ("恢复预约 {period}", "Resumed the {period} session"),
    "session_suspended": ("停诊 {period}", "Called off the {period} session"),
    "session_reopened": ("撤销停诊 {period}", "Took the {period} session up again"),
    "substitute_set": ("替诊 {practitioner}", "Substitute {practitioner}"),
    "substitute_withdrawn": ("撤销替诊", "No substitute any more"),
    "seats_back": ("退号重新放出 {seats}", "Returned seats came free {seats}"),
    "wish_added": ("有人加入候补", "Somebody joined the waiting list"),
    "wish_ended": ("候补结束", "A wish on the waiting list ended"),
}
"""What happened, in Chinese and in English; braces name details."""

_OF_THE_SESSION: Final = frozenset(
    {
        "session_moved",
        "session_suspended",
        "session_reopened",
        "substitute_set",
        "substitute_withdrawn",
    }
)
"""What a patient who holds a seat there must know of the session."""

_ATTENDANCE: Final = {
    s.Status.ARRIVED: "arrived",
    s.Status.FULFILLED: "fulfilled",
    s.Status.NOSHOW: "noshow",
    s.Status.BOOKED: "not_arrived",
}


@dataclass(slots=True)
class Line:
    version: int  # of its first event in the stream
    at: int  # ms
    what: str  # of WORDS
    by: str
    reason: str = ""  # coded
    note: str = ""  # why, in the words of whoever did it
    details: dict[str, str] = field(default_factory=dict)
    appointment_id: bytes | None = None
    touches: frozenset[bytes] = frozenset()  # appointments that held a seat of the changed session
    command_id: bytes | None = None
    seats: dict[str, int] = field(default_factory=dict)  # clock -> more or fewer


def history(recorded: Iterable[Recorded]) -> list[Line]:
    """Of a whole day, in the order in which it happened."""
    state = s.Schedule()
    lines: list[Line] = []
    revised: s.ScheduleRevised | None = None
    for one in recorded:
        event = one.event
        if isinstance(event, s.ScheduleRevised):
            revised = event
        else:
            _tell(lines, state, one, revised)
        s.apply(state, event)
    for line in lines:
        if line.seats:
            line.details["seats"] = ", ".join(f"{_at(c)} {n:+d}" for c, n in line.seats.items())
    return lines


def of_appointment(recorded: Iterable[Recorded], appointment_id: bytes) -> list[Line]:
    """What became of one number. What staff wrote about the whole day stays among staff."""
    found = []
    for line in history(recorded):
        if line.appointment_id == appointment_id:
            found.append(line)
        elif line.what in _OF_THE_SESSION and appointment_id in line.touches:
            line.note = ""
            found.append(line)
    return found


def _tell(lines: list[Line], state: s.Schedule, one: Recorded, revised: s.ScheduleRevised | None) -> None:
    """Adds what one event says, or takes back what it undoes. `state` is as before it."""
    event = one.event
    match event:
        case s.SeatHeld():
            lines.append(_held(state, one, event))
        case s.SeatBooked():
            lines.append(
                Line(one.version, one.at, "booked", event.by or SELF, appointment_id=event.appointment_id)
            )
        case s.SeatReleased():
            if event.reason == "lost_claim":
                _take_back(lines, event.appointment_id, ("held", "held_for_change", "offered", "booked"))
                return
            lines.append(_released(state, one, event))
        case s.SeatRestored():
            _take_back(lines, event.appointment_id, _RELEASED)
        case s.FateDecided():
            if event.fate == s.AFFECTED:
                _take_back(lines, event.appointment_id, tuple(w for w in WORDS if w.startswith("fate_")))
                return
            details = {"successor": event.successor.hex()} if event.successor else {}
            lines.append(
                Line(
                    one.version,
                    one.at,
                    f"fate_{event.fate}",
                    SYSTEM,
                    details=details,
                    appointment_id=event.appointment_id,
                )
            )
        case s.AttendanceRecorded():
            what = _ATTENDANCE[s.Status(event.status)]
            by = event.by or SYSTEM
            lines.append(Line(one.version, one.at, what, by, appointment_id=event.appointment_id))
        case s.AttendanceConfirmed():
            lines.append(Line(one.version, one.at, "will_come", SELF, appointment_id=event.appointment_id))
        case s.SubstituteAnswered():
            what = "substitute_accepted" if event.accepted else "substitute_refused"
            lines.append(Line(one.version, one.at, what, SELF, appointment_id=event.appointment_id))
        case s.ScheduleOpened() if revised is None:
            lines.append(Line(one.version, one.at, "day_opened", SYSTEM))
        case s.CoolingEnded():
            seats = {event.clock: len(event.seats)}
            lines.append(Line(one.version, one.at, "seats_back", SYSTEM, seats=seats))
        case s.WishAdded():
            lines.append(Line(one.version, one.at, "wish_added", SELF))
        case s.WishEnded():
            lines.append(Line(one.version, one.at, "wish_ended", SYSTEM, event.reason))
        case s.ScheduleRevised():
            pass
        case _:
            _tell_of_the_day(lines, state, one, revised)


_RELEASED: Final = (
    "cancelled",
    "excused",
    "expired",
    "changed",
    "suspended",
    "substitute_declined",
    "unconfirmed",
    "released",
)
_BY_THE_PATIENT: Final = ("cancelled", "excused", "changed", "substitute_declined")


def _held(state: s.Schedule, one: Recorded, event: s.SeatHeld) -> Line:
    if event.wish_id:
        what, by = "offered", SYSTEM
    else:
        what, by = "held_for_change" if event.replaces else "held", event.by or SELF
    slot = state.slots[event.clock]
    details = {"slot": _at(event.clock), "number": str(number_of(slot, event.seat))}
    if event.replaces:
        details["replaces"] = event.replaces.hex()
    return Line(one.version, one.at, what, by, details=details, appointment_id=event.appointment_id)


def _released(state: s.Schedule, one: Recorded, event: s.SeatReleased) -> Line:
    what = event.reason if event.reason in _RELEASED else "released"
    by = event.by or (SELF if what in _BY_THE_PATIENT else SYSTEM)
    details = {"slot": _at(state.appointments[event.appointment_id].clock)}
    if event.successor:
        details["successor"] = event.successor.hex()
    return Line(one.version, one.at, what, by, event.reason, event.note, details, event.appointment_id)


def _tell_of_the_day(
    lines: list[Line], state: s.Schedule, one: Recorded, revised: s.ScheduleRevised | None
) -> None:
    event = one.event
    by, note, command_id = (SYSTEM, "", None) if revised is None else (
        revised.by or SYSTEM,
        revised.note,
        revised.command_id,
    )  # fmt: skip
    line = Line(one.version, one.at, "", by, note=note, command_id=command_id)
    match event:
        case s.SessionOpened():
            line.what = "session_opened"
            line.details = _opened(event.session.period, [slot.clock for slot in event.session.slots])
        case s.ScheduleOpened():  # by opening a session where there was no clinic
            (session,) = event.plan[:1]
            line.what = "session_opened"
            line.details = _opened(session.period, [slot.clock for slot in session.slots])
        case s.SeatsAdded():
            line.what = "seats_added" if event.pool == "added" else "capacity_changed"
            line.seats = {event.clock: event.count}
        case s.SeatsBlocked():
            line.what, line.seats = "capacity_changed", {event.clock: -len(event.seats)}
        case s.SeatsUnblocked():
            line.what, line.seats = "capacity_changed", {event.clock: len(event.seats)}
        case s.SessionMoved():
            line.what = "session_moved"
            moves = sorted(event.moves, key=lambda move: move[2])
            line.details = {
                "period": event.period,
                "moves": f"{_at(moves[0][0])} → {_at(moves[0][1])}" if moves else "",
                "room": event.room_id or "",
            }
            line.touches = _holding(state, event.period)
        case s.SessionStatusSet():
            was = next(
                slot.session.status for slot in state.slots.values() if slot.session.period == event.period
            )
            opens = "session_reopened" if was == "suspended" else "session_resumed"
            line.what = {"paused": "session_paused", "suspended": "session_suspended"}.get(
                event.status, opens
            )
            line.reason, line.details = event.reason, {"period": event.period}
            line.touches = _holding(state, event.period)
        case s.SessionSubstituted():
            line.what = "substitute_set" if event.practitioner_id else "substitute_withdrawn"
            line.details = {"period": event.period, "practitioner": event.practitioner_id or ""}
            line.touches = _holding(state, event.period)
        case (
            s.SeatHeld()
            | s.SeatBooked()
            | s.SeatReleased()
            | s.SeatRestored()
            | s.FateDecided()
            | s.AttendanceRecorded()
            | s.AttendanceConfirmed()
            | s.SubstituteAnswered()
            | s.CoolingEnded()
            | s.WishAdded()
            | s.WishEnded()
            | s.ScheduleRevised()
        ):
            raise AssertionError(f"{type(event).__name__} is not of the day itself")
        case _:
            assert_never(event)
    last = lines[-1] if lines else None
    if (
        line.seats
        and last is not None
        and last.seats
        and (last.what, last.command_id) == (line.what, command_id)
    ):
        for clock, seats in line.seats.items():  # one command, several slots
            last.seats[clock] = last.seats.get(clock, 0) + seats
        return
    lines.append(line)


def _opened(period: str, clocks: list[str]) -> dict[str, str]:
    return {"period": period, "slots": f"{_at(clocks[0])}–{_at(clocks[-1])}"}


def _take_back(lines: list[Line], appointment_id: bytes, what: tuple[str, ...]) -> None:
    """Every line of these kinds since the last of another kind: they were never so."""
    for n in range(len(lines) - 1, -1, -1):
        if lines[n].appointment_id == appointment_id:
            if lines[n].what not in what:
                return
            del lines[n]


def _holding(state: s.Schedule, period: str) -> frozenset[bytes]:
    return frozenset(
        appointment_id
        for appointment_id, x in state.appointments.items()
        if x.status <= s.Status.FULFILLED and state.slots[x.clock].session.period == period
    )


def _at(clock: str) -> str:
    return f"{clock[:2]}:{clock[2:]}"
