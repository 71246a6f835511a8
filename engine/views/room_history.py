"""What happened in a waiting room: its events as lines that people read. Pure.

A line's `by` is "self" (the patient's account), "system" (the rules or the time), or one of the staff as
engine/domain/by.py names them. `by_hand` marks what changed the order beyond the rules.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, assert_never

from engine.domain import waiting_room as w
from engine.domain.by import SYSTEM

SELF: Final = "self"

WORDS: Final[dict[str, tuple[str, str]]] = {
    "day_opened": ("当天候诊开始", "The day of waiting began"),
    "queue_set": ("设置队列 {queue}，号段 {numbers}", "Set queue {queue}, numbers {numbers}"),
    "room_opened": ("{room} 开诊 {practitioner}", "{room} opened {practitioner}"),
    "room_paused": ("{room} 暂停", "{room} paused"),
    "room_closed": ("{room} 结束出诊", "{room} closed"),
    "checked_in": ("签到，候诊号 {number}", "Checked in as {number}"),
    "walked_in": ("现场取号 {number}", "Walked in as {number}"),
    "door": ("请到 {room} 门口候诊", "To wait at the door of {room}"),
    "called": ("叫号到 {room}", "Called to {room}"),
    "called_out_of_turn": ("指定呼叫到 {room}", "Called out of turn to {room}"),
    "recalled": ("再次呼叫到 {room}", "Called again to {room}"),
    "started": ("在 {room} 开始就诊", "Came in, {room}"),
    "passed": ("过号，待报到", "Was called and not there"),
    "passed_on": ("过号，自动重新排队", "Was called and not there; waits again"),
    "parked": ("暂离", "Put aside"),
    "unparked": ("暂离结束，回到原位", "No longer put aside"),
    "reported": ("过号后报到，重新排队", "Reported after being passed over"),
    "came_back": ("检查回来（回诊）", "Back from an examination"),
    "finished": ("{room} 完成，进入下一环节", "Done in {room}; goes on"),
    "sent_away": ("{room} 完成，去做检查", "Done in {room}; to an examination"),
    "seen": ("{room} 就诊完成", "Seen in {room}"),
    "released": ("{room} 不再叫号，回到队首", "{room} closed; waits again, as the next one"),
    "transferred": ("转到队列 {queue} {practitioner}", "Now waits in queue {queue} {practitioner}"),
    "moved": ("调整顺序，排在 {ahead} 人之后", "Moved: {ahead} go first"),
    "classified": (
        "分诊：优先类别「{priority}」，急诊级别 {emergency}",
        'Classified: priority "{priority}", emergency level {emergency}',
    ),
    "left": ("不再候诊", "Waits no more"),
    "undone": ("撤销：", "Taken back: "),
    "alarm": ("{room} 紧急求助", "{room}: alarm"),
    "alarm_over": ("{room} 求助解除", "{room}: the alarm is over"),
}
"""What happened, in Chinese and in English; braces name details, of which rooms, queues and practitioners are
ids. `undone` goes before the words of what was taken back."""


@dataclass(slots=True)
class RoomLine:
    version: int  # of the event in its stream
    at: int  # ms
    what: str  # of WORDS
    by: str
    by_hand: bool = False
    reason: str = ""
    ticket_id: bytes | None = None
    number: str = ""
    room_id: str = ""
    details: dict[str, str] = field(default_factory=dict)
    undid: "RoomLine | None" = None


def room_history(events: Iterable[w.Event]) -> list[RoomLine]:
    """Of a whole day, in the order in which it happened."""
    room = w.WaitingRoom()
    lines: list[RoomLine] = []
    last: dict[bytes, RoomLine] = {}  # of each ticket: what an undone step takes back
    for version, event in enumerate(events, 1):
        line = _line(room, version, event)
        w.apply(room, event)
        if line.ticket_id is not None:
            line.number = room.tickets[line.ticket_id].label
            line.details["number"] = line.number
            if line.what == "undone":
                line.undid = last.get(line.ticket_id)
            last[line.ticket_id] = line
        lines.append(line)
    return lines


def of_ticket(events: Iterable[w.Event], ticket_id: bytes) -> list[RoomLine]:
    return [line for line in room_history(events) if line.ticket_id == ticket_id]


def _line(room: w.WaitingRoom, version: int, event: w.Event) -> RoomLine:
    """`room` is as before the event."""
    match event:
        case w.DayOpened():
            return RoomLine(version, event.at, "day_opened", SYSTEM)
        case w.QueueSet():
            details = {
                "queue": event.queue_id,
                "numbers": f"{event.prefix}{event.first:03}–{event.prefix}{event.last:03}",
            }
            return RoomLine(version, event.at, "queue_set", event.by or SYSTEM, details=details)
        case w.RoomSet():
            return _of_room(version, event)
        case w.AlarmSet():
            what = "alarm" if event.on else "alarm_over"
            by = event.by or SYSTEM
            details = {"room": event.room_id}
            return RoomLine(
                version, event.at, what, by, reason=event.note, room_id=event.room_id, details=details
            )
        case w.TicketIssued():
            what = "checked_in" if event.appointment_id else "walked_in"
            details = {"where": event.where}
            if event.distance_m >= 0:
                details["metres"] = str(event.distance_m)
            by = event.by or SELF
            return RoomLine(version, event.at, what, by, ticket_id=event.ticket_id, details=details)
        case _:
            return _of_ticket(room, version, event)


def _of_room(version: int, event: w.RoomSet) -> RoomLine:
    what = {w.OPEN: "room_opened", w.PAUSED: "room_paused"}.get(event.status, "room_closed")
    details = {
        "room": event.room_id,
        "practitioner": event.practitioner_id,
        "queues": ", ".join(event.queues),
    }
    by = event.by or SYSTEM
    return RoomLine(version, event.at, what, by, reason=event.reason, room_id=event.room_id, details=details)


def _of_ticket(room: w.WaitingRoom, version: int, event: w.TicketEvent) -> RoomLine:
    ticket = room.tickets[event.ticket_id]
    s = ticket.standing
    line = RoomLine(version, event.at, "", event.by or SYSTEM, ticket_id=event.ticket_id, room_id=s.room_id)
    match event:
        case w.TicketSentToDoor():
            line.what, line.room_id, line.reason = "door", event.room_id, event.reason
            line.by_hand, line.details = bool(event.by), {"lane": event.lane}
        case w.TicketCalled():
            line.what = "called_out_of_turn" if event.out_of_turn else "called"
            line.room_id, line.reason, line.by_hand = event.room_id, event.reason, event.out_of_turn
            line.details = {"lane": event.lane}
        case w.TicketRecalled():
            line.what = "recalled"
        case w.ServiceStarted():
            line.what = "started"
        case w.TicketPassed():
            line.what = "passed_on" if event.waits else "passed"
        case w.TicketParked():
            line.what, line.reason = "parked", event.reason
        case w.TicketReturned():
            known = {w.Status.PARKED: "unparked", w.Status.AWAY: "came_back"}
            line.what = known.get(s.status, "reported")
            line.by = event.by or (SELF if event.where else SYSTEM)
            line.details = {"where": event.where} if event.where else {}
        case w.StageFinished():
            line.what = "seen"
            if event.stages:
                line.what = "finished" if event.stages[0][1] else "sent_away"
        case w.TicketReleased():
            line.what, line.reason = "released", event.reason
        case w.TicketTransferred():
            line.what, line.reason = "transferred", event.reason
            line.by_hand = bool(event.command_id)  # else its practitioner has left
            line.details = {"queue": event.queue_id, "practitioner": event.practitioner_id}
        case w.TicketMoved():
            line.what, line.reason, line.by_hand = "moved", event.reason, True
            line.by, line.details = event.by or SELF, {"ahead": str(event.ahead)}
        case w.TicketClassified():
            line.what, line.reason, line.by_hand = "classified", event.reason, True
            line.details = {"priority": event.priority, "emergency": str(event.emergency)}
        case w.TicketLeft():
            line.what, line.reason, line.by = "left", event.reason, event.by or SELF
        case w.StepUndone():
            line.what, line.reason, line.by_hand = "undone", event.reason, True
        case _:
            assert_never(event)
    if line.room_id:
        line.details["room"] = line.room_id
    return line
