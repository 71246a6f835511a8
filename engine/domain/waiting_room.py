"""One department's day: who has come, who is next, who is called where, and what becomes of them.

Pure, like schedule.py: `decide` says what should happen, `apply` makes it so, replaying the events rebuilds
the state. Times are int milliseconds since the epoch (UTC), ids 16 bytes. The order is not in here:
queue_order.py computes it from what stands here, the rules and the time.

A ticket (a place in the waiting room) is in exactly one status, at most one room is busy with it, and a room
is busy with at most one ticket. A ticket has a number that nobody else has on this day, and a journey of
stages (triage desk, practitioner, examination, practitioner again, pharmacy), each in a queue of this waiting
room or elsewhere. Every change of a ticket or a room raises its version; who acts on what he sees says which
version that was.

Every command has an id, and the first answer to it is kept: a console that lost its network and asks again
with the same id calls nobody twice. Clocks differ: what happens is never earlier here than what happened
before it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Final, assert_never

from engine.domain import ids
from engine.domain import queue_order as order
from engine.domain.limits import (
    CALLS_KEPT,
    EMERGENCY_LEVELS,
    MOVED_MAX,
    ROOM_COMMANDS_REMEMBERED,
    STAGES_MAX,
    TICKET_NUMBER_MAX,
)
from engine.domain.queue_order import Across, Band, LeaveRule, Moved, Place, Rank, Rules, Turns
from engine.domain.refusal import Reason, Refusal

Stage = tuple[str, str, str, int]
"""Kind (triage, visit, examination …), queue ("": elsewhere), practitioner ("": any), 1: he comes back."""

Heir = tuple[str, str, int]
"""Of one who left: the queue ("": the same) and practitioner ("": any) of who comes; until when (0: ever)."""

VISIT: Final = "visit"
"""The kind of queue where appointments count: early, late, booked and walk-in."""


class Where(StrEnum):
    """How we know that somebody is here."""

    MINI_PROGRAM = "mini_program"  # by coordinates, checked at the gateway
    KIOSK = "kiosk"
    DESK = "desk"
    NOBODY = "nobody"  # where numbers wait without check-in: we do not know it


# Commands. `expected` is the version that was looked at; -1: whatever it is. `by` is who asks.


@dataclass(frozen=True, slots=True)
class OpenDay:
    command_id: bytes
    department_id: str
    day: str  # yyyy-mm-dd
    closes_at: int  # nobody checks in by himself after that


@dataclass(frozen=True, slots=True)
class SetQueue:
    """A queue, or other numbers or another practitioner for one that there is."""

    command_id: bytes
    queue_id: str
    kind: str
    prefix: str
    first: int  # the numbers that are given out here
    last: int
    practitioner_id: str = ""  # whose appointments wait here
    by: str = ""


@dataclass(frozen=True, slots=True)
class OpenRoom:
    """Somebody begins or goes on to see people in a room, from these queues."""

    command_id: bytes
    room_id: str
    queues: tuple[str, ...]
    practitioner_id: str = ""  # "": a desk
    by: str = ""
    expected: int = -1


@dataclass(frozen=True, slots=True)
class PauseRoom:
    command_id: bytes
    room_id: str
    by: str = ""
    reason: str = ""
    expected: int = -1


@dataclass(frozen=True, slots=True)
class CloseRoom:
    """The practitioner leaves. Who waits for nobody else goes where the command or the rule says, and so does
    who comes later, until the practitioner is back."""

    command_id: bytes
    room_id: str
    by: str = ""
    reason: str = ""
    expected: int = -1
    to_queue: str = ""  # "": their queue
    to_practitioner: str = ""  # "": anybody
    keeps: bool = False  # they wait until somebody comes back
    until: int = 0  # who comes later: appointments up to then (the session's end); 0: all


@dataclass(frozen=True, slots=True)
class CheckIn:
    """A booked patient is here. What was booked is told by the gateway, who looked it up."""

    command_id: bytes
    patient_id: bytes
    where: str
    distance_m: int  # -1: not known
    appointment_id: bytes
    booked_patient_id: bytes
    department_id: str
    practitioner_id: str
    day: str
    is_booked: bool  # and not cancelled, say
    starts_at: int
    window_ends_at: int
    session_ends_at: int
    booked_number: int
    visit: int = 0  # 0 first, 1 follow-up
    queue_id: str = ""  # "": that of the practitioner
    priority: str = ""
    emergency: int = 0
    stages: tuple[Stage, ...] = ()  # after the visit
    by: str = ""


@dataclass(frozen=True, slots=True)
class TakeNumber:
    """A walk-in."""

    command_id: bytes
    patient_id: bytes
    where: str
    queue_id: str
    distance_m: int = -1
    practitioner_id: str = ""
    session_ends_at: int = 0
    visit: int = 0
    priority: str = ""
    emergency: int = 0
    stages: tuple[Stage, ...] = ()
    by: str = ""


@dataclass(frozen=True, slots=True)
class CallNext:
    """Whoever is next for this room. Finishes who is being seen there, if told to."""

    command_id: bytes
    room_id: str
    by: str
    expected: int = -1
    finishes: bool = True


@dataclass(frozen=True, slots=True)
class CallTicket:
    """This one, out of turn: needs a reason unless it is the next one anyway."""

    command_id: bytes
    room_id: str
    ticket_id: bytes
    by: str
    reason: str = ""
    expected: int = -1  # of the ticket


@dataclass(frozen=True, slots=True)
class Recall:
    command_id: bytes
    ticket_id: bytes
    by: str
    expected: int = -1


@dataclass(frozen=True, slots=True)
class StartService:
    """The patient has come in."""

    command_id: bytes
    ticket_id: bytes
    by: str
    expected: int = -1


@dataclass(frozen=True, slots=True)
class PassTicket:
    """过号: was called and is not there."""

    command_id: bytes
    ticket_id: bytes
    by: str
    expected: int = -1


@dataclass(frozen=True, slots=True)
class ParkTicket:
    """Put aside for a while: fetches a paper, rests, feels sick."""

    command_id: bytes
    ticket_id: bytes
    by: str
    reason: str
    until: int = 0  # waits again by itself then; 0: when somebody says so
    expected: int = -1


@dataclass(frozen=True, slots=True)
class ReturnTicket:
    """Is here again: after being passed over, from an examination, or no longer put aside."""

    command_id: bytes
    ticket_id: bytes
    where: str
    distance_m: int = -1
    by: str = ""


@dataclass(frozen=True, slots=True)
class FinishTicket:
    """Seen. Goes on to the next stage of the journey, or of another one from here."""

    command_id: bytes
    ticket_id: bytes
    by: str
    stages: tuple[Stage, ...] | None = None  # None: as planned
    expected: int = -1


@dataclass(frozen=True, slots=True)
class TransferTicket:
    """Waits for somebody else (转诊 within the department), in the place that his arrival gives him there."""

    command_id: bytes
    ticket_id: bytes
    queue_id: str
    by: str
    reason: str
    practitioner_id: str = ""
    expected: int = -1


@dataclass(frozen=True, slots=True)
class MoveTicket:
    """By hand: lets so many go first, from now on. 0: is the next one. Also 延后, when the patient asks."""

    command_id: bytes
    ticket_id: bytes
    ahead: int
    by: str
    reason: str
    expected: int = -1


@dataclass(frozen=True, slots=True)
class ClassifyTicket:
    """Triage: another priority class or emergency level."""

    command_id: bytes
    ticket_id: bytes
    priority: str
    emergency: int
    by: str
    reason: str
    expected: int = -1


@dataclass(frozen=True, slots=True)
class SendToDoor:
    """By hand (人工分诊): waits at this room's door. By the rules: FillDoors."""

    command_id: bytes
    ticket_id: bytes
    room_id: str
    by: str
    reason: str
    expected: int = -1


@dataclass(frozen=True, slots=True)
class LeaveTicket:
    """Waits no more: went home, cancelled, has another number."""

    command_id: bytes
    ticket_id: bytes
    by: str
    reason: str
    expected: int = -1


@dataclass(frozen=True, slots=True)
class UndoStep:
    """What was last done with this ticket is taken back. `expected` must be said: nobody undoes unseen."""

    command_id: bytes
    ticket_id: bytes
    expected: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class SoundAlarm:
    """The emergency button in a room, and its end."""

    command_id: bytes
    room_id: str
    by: str
    on: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class FillDoors:
    """Sends whoever is next to a door with room: one a command, asked again until nothing happens."""


@dataclass(frozen=True, slots=True)
class PassTime:
    """What time alone brings: who was called often enough is passed over, who was put aside waits again."""


OfRoom = OpenRoom | PauseRoom | CloseRoom
OfTicket = (
    Recall
    | StartService
    | PassTicket
    | ParkTicket
    | FinishTicket
    | TransferTicket
    | MoveTicket
    | ClassifyTicket
    | SendToDoor
    | LeaveTicket
    | UndoStep
)
Command = (
    OpenDay
    | SetQueue
    | OfRoom
    | CheckIn
    | TakeNumber
    | CallNext
    | CallTicket
    | OfTicket
    | ReturnTicket
    | SoundAlarm
    | FillDoors
    | PassTime
)


# Events: what happened. A command's id is in the last of its events.


@dataclass(frozen=True, slots=True)
class DayOpened:
    command_id: bytes
    department_id: str
    day: str
    closes_at: int
    at: int


@dataclass(frozen=True, slots=True)
class QueueSet:
    command_id: bytes
    queue_id: str
    kind: str
    prefix: str
    first: int
    last: int
    practitioner_id: str
    by: str
    at: int


@dataclass(frozen=True, slots=True)
class RoomSet:
    command_id: bytes
    room_id: str
    status: str
    practitioner_id: str
    queues: tuple[str, ...]
    by: str
    reason: str
    at: int
    hands_to: Heir | None = None


@dataclass(frozen=True, slots=True)
class TicketIssued:
    command_id: bytes
    ticket_id: bytes
    patient_id: bytes
    appointment_id: bytes  # b"": a walk-in
    visit: int
    prefix: str
    number: int
    booked_number: int
    starts_at: int
    window_ends_at: int
    session_ends_at: int
    stages: tuple[Stage, ...]
    priority: str
    emergency: int
    where: str
    distance_m: int
    counts_from: int
    by: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketSentToDoor:
    command_id: bytes
    ticket_id: bytes
    room_id: str
    lane: str
    by: str  # "": the rules
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketCalled:
    command_id: bytes
    ticket_id: bytes
    room_id: str
    lane: str  # what this call counts as: whose turn it was
    out_of_turn: bool
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketRecalled:
    command_id: bytes
    ticket_id: bytes
    by: str
    at: int


@dataclass(frozen=True, slots=True)
class ServiceStarted:
    command_id: bytes
    ticket_id: bytes
    by: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketPassed:
    command_id: bytes
    ticket_id: bytes
    by: str  # "": time
    waits: bool  # again, at once; else when he reports
    counts_from: int
    rests_until: int
    at: int


@dataclass(frozen=True, slots=True)
class TicketParked:
    command_id: bytes
    ticket_id: bytes
    until: int
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketReturned:
    command_id: bytes
    ticket_id: bytes
    where: str  # "": time
    counts_from: int
    by: str
    at: int


@dataclass(frozen=True, slots=True)
class StageFinished:
    command_id: bytes
    ticket_id: bytes
    stages: tuple[Stage, ...]  # what is left
    counts_from: int
    by: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketReleased:
    """The room it was called to, or sent to the door of, has closed: back to its place."""

    ticket_id: bytes
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketTransferred:
    command_id: bytes
    ticket_id: bytes
    queue_id: str
    practitioner_id: str
    by: str
    reason: str
    at: int
    stage: int = 0  # of what is left of the journey; 0: where it is now


@dataclass(frozen=True, slots=True)
class TicketMoved:
    command_id: bytes
    ticket_id: bytes
    ahead: int
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketClassified:
    command_id: bytes
    ticket_id: bytes
    priority: str
    emergency: int
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class TicketLeft:
    command_id: bytes
    ticket_id: bytes
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class StepUndone:
    command_id: bytes
    ticket_id: bytes
    by: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class AlarmSet:
    command_id: bytes
    room_id: str
    on: bool
    by: str
    note: str
    at: int


Event = (
    DayOpened
    | QueueSet
    | RoomSet
    | TicketIssued
    | TicketSentToDoor
    | TicketCalled
    | TicketRecalled
    | ServiceStarted
    | TicketPassed
    | TicketParked
    | TicketReturned
    | StageFinished
    | TicketReleased
    | TicketTransferred
    | TicketMoved
    | TicketClassified
    | TicketLeft
    | StepUndone
    | AlarmSet
)


# State.


class Status(IntEnum):
    WAITING = 1  # in the hall
    DOOR = 2  # at a room's door
    CALLED = 3
    SERVING = 4
    PARKED = 5
    AWAY = 6  # at an examination elsewhere
    PASSED = 7  # was called, was not there, has not reported since
    FINISHED = 8
    LEFT = 9


IN_LINE: Final = (Status.WAITING, Status.DOOR)
IN_ROOM: Final = (Status.CALLED, Status.SERVING)
OVER: Final = (Status.FINISHED, Status.LEFT)
OPEN, PAUSED, CLOSED = "open", "paused", "closed"


@dataclass(frozen=True, slots=True)
class Done:
    """A stage that is over, for the journey's picture and for learning how long things take. Of one
    elsewhere nothing is known but when he was back."""

    kind: str
    queue_id: str
    room_id: str
    practitioner_id: str
    called_at: int
    started_at: int
    finished_at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a ticket is: all that a step changes, so that a step can be taken back."""

    status: Status
    stages: tuple[Stage, ...]  # the first one is where it is now
    counts_from: int
    entered: int  # ordinary calls of the line when it joined
    priority: str = ""
    emergency: int = 0
    room_id: str = ""
    door: int = 0
    passed: bool = False
    passes: int = 0
    returned: bool = False
    moved: Moved | None = None
    rests_until: int = 0
    calls: int = 0
    called_at: int = 0  # the last time
    first_called_at: int = 0
    started_at: int = 0
    parked_until: int = 0
    done: tuple[Done, ...] = ()


@dataclass(slots=True)
class Ticket:
    ticket_id: bytes
    sequence: int
    patient_id: bytes
    appointment_id: bytes
    visit: int
    prefix: str
    number: int
    booked_number: int
    starts_at: int
    window_ends_at: int
    session_ends_at: int
    where: str
    distance_m: int
    arrived_at: int
    standing: Standing
    version: int = 1
    overtaken: int = 0
    before: tuple[Standing, int] | None = None  # and how often it had been overtaken

    @property
    def label(self) -> str:
        return f"{self.prefix}{self.number:03}"

    @property
    def status(self) -> Status:
        return self.standing.status

    @property
    def queue_id(self) -> str:
        return self.standing.stages[0][1] if self.standing.stages else ""

    @property
    def practitioner_id(self) -> str:
        """Who alone may call it; "": whoever serves its queue."""
        return self.standing.stages[0][2] if self.standing.stages else ""


@dataclass(slots=True)
class Queue:
    queue_id: str
    kind: str
    prefix: str
    first: int
    last: int
    practitioner_id: str
    next_number: int
    turns: Turns = field(default_factory=Turns)
    line: dict[bytes, None] = field(default_factory=dict)
    """Tickets in the hall and at doors."""
    last_turn: tuple[bytes, Turns] | None = None
    """Who left the line last, and the turns before that."""


@dataclass(slots=True)
class Room:
    room_id: str
    status: str
    practitioner_id: str
    queues: tuple[str, ...]
    version: int = 0
    ticket_id: bytes = b""  # called here or being seen here
    called_at: int = 0
    alarm_since: int = 0
    overtook: tuple[tuple[bytes, int], ...] = ()
    """Whom its last call went before although they were here earlier, and their versions then."""


@dataclass(frozen=True, slots=True)
class Call:
    """What screens show and say. `kind`: called | recalled | door | withdrawn."""

    sequence: int
    kind: str
    ticket_id: bytes
    patient_id: bytes
    label: str
    room_id: str
    queue_id: str
    at: int


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller learns, also the second time: as it was right after the command."""

    ticket_id: bytes = b""
    label: str = ""
    status: int = 0
    version: int = 0  # of the ticket
    room_id: str = ""
    room_version: int = 0
    patient_id: bytes = b""
    seen: int = 0
    """Events of the day when it was told, so that whoever reads a copy of the day knows whether it has them.
    Given by the host."""


Reply = Told


@dataclass(slots=True)
class WaitingRoom:
    department_id: str = ""
    day: str = ""
    closes_at: int = 0
    at: int = 0
    """When something last happened."""
    queues: dict[str, Queue] = field(default_factory=dict)
    rooms: dict[str, Room] = field(default_factory=dict)
    tickets: dict[bytes, Ticket] = field(default_factory=dict)
    by_appointment: dict[bytes, bytes] = field(default_factory=dict)
    by_patient: dict[bytes, bytes] = field(default_factory=dict)
    """Patient -> the ticket that is not over."""
    numbers: dict[tuple[str, int], bytes] = field(default_factory=dict)
    heirs: dict[str, Heir] = field(default_factory=dict)
    """Practitioners who left."""
    moves: int = 0
    doors: int = 0
    calls: list[Call] = field(default_factory=list)
    call_sequence: int = 0
    commands: dict[bytes, Told] = field(default_factory=dict)


DEFAULT: Final = Rules()


# The order, of what stands here.


def place_of(room: WaitingRoom, ticket: Ticket) -> Place:
    s, queue = ticket.standing, room.queues[ticket.queue_id]
    is_visit = queue.kind == VISIT
    return Place(
        ticket.ticket_id,
        ticket.sequence,
        ticket.arrived_at,
        s.counts_from,
        s.entered,
        ticket.booked_number or ticket.number,
        ticket.starts_at if is_visit else 0,
        ticket.window_ends_at,
        ticket.session_ends_at,
        s.priority,
        s.emergency,
        s.passed,
        s.returned,
        s.door,
        s.moved,
        ticket.overtaken,
        s.rests_until,
        is_visit,
    )


def line(room: WaitingRoom, queue_id: str, rules: Rules, now: int) -> list[Rank]:
    """Everybody who waits in a queue, the next one first."""
    queue = room.queues[queue_id]
    places = [place_of(room, room.tickets[ticket_id]) for ticket_id in queue.line]
    return order.rank(places, queue.turns, rules.order_of(queue.kind), now)


def next_for(room: WaitingRoom, place: Room, rules: Rules, now: int, *, to_door: bool = False) -> Rank | None:
    """Whom this room calls next, or sends to its door."""
    best: tuple[tuple[int, int, int, int], Rank] | None = None
    for n, queue_id in enumerate(place.queues):
        for found in line(room, queue_id, rules, now):
            if found.band is Band.RESTS:
                break
            ticket = room.tickets[found.ticket_id]
            if to_door and ticket.status is Status.DOOR:
                continue
            if not _may_call(place, ticket):
                continue
            key = _across(found, n, rules)
            if best is None or key < best[0]:
                best = key, found
            break
    return None if best is None else best[1]


def _across(found: Rank, n: int, rules: Rules) -> tuple[int, int, int, int]:
    since, sequence = found.seniority
    match found.band:
        case Band.EMERGENCY:
            return found.band, found.place.emergency, since, sequence
        case Band.DOOR:
            return found.band, found.place.door, 0, 0
        case Band.LINE if rules.across is Across.LISTED:
            return found.band, n, since, sequence
        case _:
            return found.band, 0, since, sequence


def _may_call(place: Room, ticket: Ticket) -> bool:
    """Whether the ticket is for this room's practitioner or for anybody, and not at another's door."""
    if ticket.practitioner_id not in ("", place.practitioner_id):
        return False
    return ticket.status is Status.WAITING or ticket.standing.room_id == place.room_id


# Decide: guards, cheapest first, the happy line last. Changes nothing.


def decide(room: WaitingRoom, command: Command, now: int, rules: Rules = DEFAULT) -> list[Event] | Refusal:
    now = max(now, room.at)
    if isinstance(command, FillDoors):
        return _fill_doors(room, now, rules)
    if isinstance(command, PassTime):
        return _pass_time(room, now, rules)
    known = room.commands.get(command.command_id)
    if known is not None:
        return [] if _is_the_same(known, command) else Refusal(Reason.KEY_REUSED)
    if isinstance(command, OpenDay):
        return _open_day(room, command, now)
    if not room.day:
        return Refusal(Reason.NO_SUCH_WAITING_ROOM)
    match command:
        case SetQueue():
            return _set_queue(room, command, now)
        case OpenRoom() | PauseRoom() | CloseRoom():
            return _set_room(room, command, now, rules)
        case CheckIn():
            return _check_in(room, command, now, rules)
        case TakeNumber():
            return _take_number(room, command, now, rules)
        case CallNext():
            return _call_next(room, command, now, rules)
        case CallTicket():
            return _call_ticket(room, command, now, rules)
        case ReturnTicket():
            return _return(room, command, now, rules)
        case SoundAlarm():
            return _alarm(room, command, now)
        case _:
            return _of_ticket(room, command, now, rules)


def _is_the_same(known: Told, command: Command) -> bool:
    """Whether a command with a known id is a retry, as far as the kept answer tells."""
    match command:
        case OpenDay() | SetQueue() | FillDoors() | PassTime():
            return not known.ticket_id and not known.room_id
        case OpenRoom() | PauseRoom() | CloseRoom() | SoundAlarm():
            return known.room_id == command.room_id and not known.ticket_id
        case CallNext():
            return known.room_id == command.room_id and bool(known.ticket_id)
        case CheckIn() | TakeNumber():
            return known.patient_id == command.patient_id
        case _:
            return known.ticket_id == command.ticket_id


def _open_day(room: WaitingRoom, command: OpenDay, now: int) -> list[Event] | Refusal:
    if room.day:
        same = (room.department_id, room.day) == (command.department_id, command.day)
        return [] if same else Refusal(Reason.WRONG_DAY, {"day": room.day})
    return [DayOpened(command.command_id, command.department_id, command.day, command.closes_at, now)]


def _set_queue(room: WaitingRoom, command: SetQueue, now: int) -> list[Event] | Refusal:
    if not (command.queue_id and 0 < command.first <= command.last <= TICKET_NUMBER_MAX):
        return Refusal(Reason.TOO_LARGE, {"limit": TICKET_NUMBER_MAX})
    for other in room.queues.values():
        if (
            other.queue_id != command.queue_id
            and other.prefix == command.prefix
            and command.first <= other.last
            and other.first <= command.last
        ):
            return Refusal(Reason.NUMBERS_OVERLAP, {"queue_id": other.queue_id})
    return [
        QueueSet(
            command.command_id,
            command.queue_id,
            command.kind,
            command.prefix,
            command.first,
            command.last,
            command.practitioner_id,
            command.by,
            now,
        )
    ]


def _set_room(room: WaitingRoom, command: OfRoom, now: int, rules: Rules) -> list[Event] | Refusal:
    place = room.rooms.get(command.room_id)
    version = 0 if place is None else place.version
    if command.expected not in (-1, version):
        return Refusal(Reason.STALE_VERSION, {"version": version})
    if isinstance(command, OpenRoom):
        return _open_room(room, command, place, now)
    if place is None:
        return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": CLOSED})
    if isinstance(command, PauseRoom):
        if place.status != OPEN:
            return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": place.status})
        return [_room_set(command.command_id, place, PAUSED, command.by, command.reason, now)]
    if place.status == CLOSED:
        return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": place.status})
    return _close_room(room, command, place, now, rules)


def _room_set(command_id: bytes, place: Room, status: str, by: str, reason: str, now: int) -> RoomSet:
    return RoomSet(command_id, place.room_id, status, place.practitioner_id, place.queues, by, reason, now)


def _open_room(room: WaitingRoom, command: OpenRoom, place: Room | None, now: int) -> list[Event] | Refusal:
    if not command.queues or not command.room_id:
        return Refusal(Reason.NO_SUCH_QUEUE)
    for queue_id in command.queues:
        if queue_id not in room.queues:
            return Refusal(Reason.NO_SUCH_QUEUE, {"queue_id": queue_id})
    mine = command.practitioner_id
    if place is not None and place.status != CLOSED and place.practitioner_id != mine:
        return Refusal(Reason.ROOM_IN_USE, {"practitioner_id": place.practitioner_id})
    for other in room.rooms.values():
        if mine and other.practitioner_id == mine and other.status != CLOSED and other is not place:
            return Refusal(Reason.PRACTITIONER_ELSEWHERE, {"room_id": other.room_id})
    queues = tuple(dict.fromkeys(command.queues))
    released = [] if place is None else _released(room, place, queues, command.by, "room_changed", now)
    return [*released, RoomSet(command.command_id, command.room_id, OPEN, mine, queues, command.by, "", now)]


def _close_room(
    room: WaitingRoom, command: CloseRoom, place: Room, now: int, rules: Rules
) -> list[Event] | Refusal:
    if command.to_queue and command.to_queue not in room.queues:
        return Refusal(Reason.NO_SUCH_QUEUE, {"queue_id": command.to_queue})
    inside = room.tickets.get(place.ticket_id)
    if inside is not None and inside.status is Status.SERVING:
        return Refusal(Reason.ROOM_BUSY, {"number": inside.label, "ticket_id": inside.ticket_id.hex()})
    others = [r for r in room.rooms.values() if r is not place and r.status != CLOSED]
    stranded = [
        (ticket, n, queue_id)
        for ticket in room.tickets.values()
        if ticket.status not in OVER
        for n, (_, queue_id, who, _) in enumerate(ticket.standing.stages)
        if queue_id in place.queues
        and (who == place.practitioner_id if who else n == 0)
        and not any(_serves(other, queue_id, who) for other in others)
    ]
    told_where = bool(command.to_queue or command.to_practitioner)
    events = _released(room, place, (), command.by, command.reason or "room_closed", now)
    keeps = command.keeps or (rules.leave is LeaveRule.KEEP and not told_where)
    if stranded and not keeps:
        if not told_where and rules.leave is LeaveRule.ASK:
            return Refusal(Reason.PEOPLE_WAIT, {"waiting": len(stranded)})
        for ticket, n, queue_id in stranded:
            to = command.to_queue or queue_id
            if n == 0 and not any(_serves(other, to, command.to_practitioner) for other in others):
                return Refusal(Reason.PEOPLE_WAIT, {"waiting": len(stranded), "queue_id": to})
            why = command.reason or "practitioner_left"
            who = command.to_practitioner
            events.append(TicketTransferred(b"", ticket.ticket_id, to, who, command.by, why, now, n))
    closed = _room_set(command.command_id, place, CLOSED, command.by, command.reason, now)
    if not keeps and place.practitioner_id:
        closed = replace(closed, hands_to=(command.to_queue, command.to_practitioner, command.until))
    return [*events, closed]


def _released(
    room: WaitingRoom, place: Room, serves: Sequence[str], by: str, reason: str, now: int
) -> list[Event]:
    """Whoever is called here or at the door goes back, unless his queue is still served here. The last one
    first: the others then come to stand before him."""
    here = [t for t in at_door(room, place.room_id) if t.queue_id not in serves]
    inside = room.tickets.get(place.ticket_id)
    if inside is not None and inside.status is Status.CALLED and inside.queue_id not in serves:
        here.insert(0, inside)
    return [TicketReleased(ticket.ticket_id, by, reason, now) for ticket in reversed(here)]


def _serves(place: Room, queue_id: str, practitioner_id: str) -> bool:
    return queue_id in place.queues and practitioner_id in ("", place.practitioner_id)


def _check_in(room: WaitingRoom, command: CheckIn, now: int, rules: Rules) -> list[Event] | Refusal:
    if command.department_id != room.department_id:
        return Refusal(Reason.WRONG_DEPARTMENT, {"department_id": command.department_id})
    if command.day != room.day:
        return Refusal(Reason.WRONG_DAY, {"day": command.day})
    if command.patient_id != command.booked_patient_id:
        return Refusal(Reason.WRONG_PATIENT)
    if not command.is_booked:
        return Refusal(Reason.NOT_BOOKED)
    mine = room.by_appointment.get(command.appointment_id)
    if mine is not None:
        return Refusal(
            Reason.ALREADY_CHECKED_IN, {"ticket_id": mine.hex(), "number": room.tickets[mine].label}
        )
    refused = _not_here(command, rules)
    if refused is not None:
        return refused
    if now < order.early_from(rules, command.starts_at):
        return Refusal(Reason.CHECK_IN_TOO_EARLY, {"from": order.early_from(rules, command.starts_at)})
    over = command.session_ends_at and now >= command.session_ends_at
    if (over or now >= room.closes_at) and command.where != Where.DESK:
        return Refusal(
            Reason.CHECK_IN_TOO_LATE, {"until": min(command.session_ends_at or FAR, room.closes_at)}
        )
    queue_id = command.queue_id or _queue_of(room, command.practitioner_id)
    return _issue(
        room,
        command,
        queue_id,
        now,
        rules,
        (command.appointment_id, command.booked_number, command.starts_at, command.window_ends_at),
    )


FAR: Final = order.FAR


def _queue_of(room: WaitingRoom, practitioner_id: str) -> str:
    """Where a practitioner's appointments wait: the queue of her own, or the first one of the department."""
    visits = [queue for queue in room.queues.values() if queue.kind == VISIT]
    own = next((queue for queue in visits if queue.practitioner_id == practitioner_id), None)
    if own is None:
        own = next((queue for queue in visits if not queue.practitioner_id), None)
    return "" if own is None else own.queue_id


def _not_here(command: CheckIn | TakeNumber | ReturnTicket, rules: Rules) -> Refusal | None:
    """Evidence of place: a mini-program says how far it is, a kiosk and a desk are here."""
    if command.where != Where.MINI_PROGRAM:
        return None
    if command.distance_m < 0:
        return Refusal(Reason.PLACE_UNKNOWN)
    if command.distance_m > rules.distance_m_max:
        return Refusal(Reason.TOO_FAR, {"metres": command.distance_m, "at_most": rules.distance_m_max})
    return None


def _take_number(room: WaitingRoom, command: TakeNumber, now: int, rules: Rules) -> list[Event] | Refusal:
    refused = _not_here(command, rules)
    if refused is not None:
        return refused
    if now >= room.closes_at and command.where != Where.DESK:
        return Refusal(Reason.CHECK_IN_TOO_LATE, {"until": room.closes_at})
    return _issue(room, command, command.queue_id, now, rules, (b"", 0, 0, 0))


def _issue(
    room: WaitingRoom,
    command: CheckIn | TakeNumber,
    queue_id: str,
    now: int,
    rules: Rules,
    booked: tuple[bytes, int, int, int],
) -> list[Event] | Refusal:
    appointment_id, booked_number, starts_at, window_ends_at = booked
    waits = room.by_patient.get(command.patient_id)
    if waits is not None:
        return Refusal(
            Reason.PATIENT_WAITS_ALREADY, {"ticket_id": waits.hex(), "number": room.tickets[waits].label}
        )
    queue_id, practitioner_id = _heir(room, queue_id, command.practitioner_id, starts_at or now)
    queue = room.queues.get(queue_id)
    if queue is None:
        return Refusal(Reason.NO_SUCH_QUEUE, {"queue_id": queue_id})
    unknown = _unknown_class(rules.order_of(queue.kind), command.priority, command.emergency)
    if unknown is not None:
        return unknown
    refused = _no_way(room, command.stages)
    if refused is not None:
        return refused
    number = _number_for(room, queue, booked_number)
    if number is None:
        return Refusal(Reason.NUMBERS_EXHAUSTED, {"queue_id": queue_id, "last": queue.last})
    if queue.kind != VISIT or queue.practitioner_id == practitioner_id:
        practitioner_id = ""  # in a queue of her own there is nobody else, and a substitute may sit there
    stages: list[Stage] = [(queue.kind, queue_id, practitioner_id, 0), *command.stages]
    first = room.queues.get(rules.triage_queue)
    if first is not None and queue.kind == VISIT:
        stages.insert(0, (first.kind, first.queue_id, "", 0))
    return [
        TicketIssued(
            command.command_id,
            ids.ticket_id(appointment_id or command.command_id),
            command.patient_id,
            appointment_id,
            command.visit,
            queue.prefix,
            number,
            booked_number,
            starts_at,
            window_ends_at,
            command.session_ends_at,
            tuple(stages),
            command.priority,
            command.emergency,
            command.where,
            command.distance_m,
            _counts_from(room, stages[0], rules, now, starts_at),
            command.by,
            now,
        )
    ]


def _heir(room: WaitingRoom, queue_id: str, practitioner_id: str, at: int) -> tuple[str, str]:
    """Where the patients of somebody who left wait, and for whom."""
    for _ in room.heirs:  # who took them over may have left as well
        heir = room.heirs.get(practitioner_id)
        if heir is None or 0 < heir[2] <= at:
            break
        queue_id, practitioner_id = heir[0] or queue_id, heir[1]
    return queue_id, practitioner_id


def _counts_from(room: WaitingRoom, stage: Stage, rules: Rules, now: int, starts_at: int) -> int:
    kind = room.queues[stage[1]].kind
    return order.counts_from(rules.order_of(kind), now, starts_at if kind == VISIT and not stage[3] else 0)


def _unknown_class(rules: order.OrderRules, priority: str, emergency: int) -> Refusal | None:
    if priority and rules.class_of(priority) is None:
        return Refusal(Reason.UNKNOWN_PRIORITY, {"priority": priority})
    if not 0 <= emergency <= EMERGENCY_LEVELS:
        return Refusal(Reason.UNKNOWN_PRIORITY, {"emergency": emergency})
    return None


def _no_way(room: WaitingRoom, stages: Sequence[Stage]) -> Refusal | None:
    if len(stages) > STAGES_MAX:
        return Refusal(Reason.TOO_LARGE, {"limit": STAGES_MAX})
    for _, queue_id, _, _ in stages:
        if queue_id and queue_id not in room.queues:
            return Refusal(Reason.NO_SUCH_QUEUE, {"queue_id": queue_id})
    return None


def _number_for(room: WaitingRoom, queue: Queue, booked: int) -> int | None:
    """The booked number where nobody has it and no walk-in may get it; else the next of the queue's own."""
    given_out = any(
        other.first <= booked <= other.last for other in room.queues.values() if other.prefix == queue.prefix
    )
    if booked and not given_out and (queue.prefix, booked) not in room.numbers:
        return booked
    number = queue.next_number
    while (queue.prefix, number) in room.numbers:
        number += 1
    return number if number <= queue.last else None


def _call_next(room: WaitingRoom, command: CallNext, now: int, rules: Rules) -> list[Event] | Refusal:
    place = room.rooms.get(command.room_id)
    if place is None:
        return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": CLOSED})
    if command.expected not in (-1, place.version):
        inside = room.tickets.get(place.ticket_id)
        number = "" if inside is None else inside.label
        return Refusal(Reason.STALE_VERSION, {"version": place.version, "number": number})
    before = _make_room(room, place, command.finishes, command.by, now, rules)
    if isinstance(before, Refusal):
        return before
    found = next_for(room, place, rules, now)
    if found is None:
        return Refusal(Reason.NOBODY_WAITS)
    lane = found.call_lane
    return [
        *before,
        TicketCalled(command.command_id, found.ticket_id, place.room_id, lane, False, command.by, "", now),
    ]


def _make_room(
    room: WaitingRoom, place: Room, finishes: bool, by: str, now: int, rules: Rules
) -> list[Event] | Refusal:
    """What must happen before a room can call somebody."""
    if place.status != OPEN:
        return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": place.status})
    events: list[Event] = []
    inside = room.tickets.get(place.ticket_id)
    if inside is not None:
        if inside.status is Status.SERVING and finishes:
            events.append(_finished(room, inside, b"", inside.standing.stages[1:], by, now, rules))
        elif inside.status is Status.CALLED and now >= _lapses_at(inside, rules):
            events.append(_passed(room, inside, b"", "", now, rules))
        else:
            return Refusal(Reason.ROOM_BUSY, {"number": inside.label, "ticket_id": inside.ticket_id.hex()})
    gap_ends = place.called_at + rules.call_gap_seconds * 1000 if place.called_at else 0
    if now < gap_ends:
        return Refusal(Reason.TOO_SOON, {"again_at": gap_ends})
    return events


def _lapses_at(ticket: Ticket, rules: Rules) -> int:
    """When somebody who was called is passed over by time alone."""
    if ticket.standing.calls < rules.calls_max:
        return FAR
    return ticket.standing.called_at + rules.answer_seconds * 1000


def _call_ticket(room: WaitingRoom, command: CallTicket, now: int, rules: Rules) -> list[Event] | Refusal:
    place = room.rooms.get(command.room_id)
    if place is None:
        return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": CLOSED})
    ticket = room.tickets.get(command.ticket_id)
    if ticket is None:
        return Refusal(Reason.NO_SUCH_TICKET)
    if command.expected not in (-1, ticket.version):
        return _stale(ticket)
    if ticket.status not in IN_LINE:
        return _wrong(ticket)
    if ticket.queue_id not in place.queues:
        return Refusal(Reason.NOT_SERVED_HERE, {"queue_id": ticket.queue_id})
    before = _make_room(room, place, True, command.by, now, rules)
    if isinstance(before, Refusal):
        return before
    found = next_for(room, place, rules, now)
    in_turn = found is not None and found.ticket_id == ticket.ticket_id
    if not in_turn and not command.reason:
        return Refusal(Reason.REASON_NEEDED)
    rank = next(r for r in line(room, ticket.queue_id, rules, now) if r.ticket_id == ticket.ticket_id)
    called = TicketCalled(
        command.command_id,
        ticket.ticket_id,
        place.room_id,
        rank.call_lane if in_turn else "moved",
        not in_turn,
        command.by,
        command.reason,
        now,
    )
    return [*before, called]


def _stale(ticket: Ticket) -> Refusal:
    return Refusal(
        Reason.STALE_VERSION, {"version": ticket.version, "ticket_status": ticket.status.name.lower()}
    )


def _wrong(ticket: Ticket) -> Refusal:
    return Refusal(
        Reason.WRONG_STATUS,
        {
            "ticket_status": ticket.status.name.lower(),
            "room_id": ticket.standing.room_id,
            "number": ticket.label,
        },
    )


_WAITS_SOMEHOW = (*IN_LINE, Status.PARKED, Status.AWAY, Status.PASSED)
_FROM: Final[Mapping[type, tuple[Status, ...]]] = {
    Recall: (Status.CALLED,),
    StartService: (Status.CALLED,),
    PassTicket: (Status.CALLED,),
    ParkTicket: (*IN_LINE, *IN_ROOM),
    FinishTicket: IN_ROOM,
    TransferTicket: (*IN_LINE, *IN_ROOM, Status.PARKED),
    MoveTicket: (Status.WAITING,),
    ClassifyTicket: _WAITS_SOMEHOW,
    SendToDoor: (Status.WAITING,),
    LeaveTicket: (*_WAITS_SOMEHOW, Status.CALLED),
    UndoStep: tuple(Status),
}
"""What may be done with a ticket, by where it is."""


def _of_ticket(room: WaitingRoom, command: OfTicket, now: int, rules: Rules) -> list[Event] | Refusal:
    ticket = room.tickets.get(command.ticket_id)
    if ticket is None:
        return Refusal(Reason.NO_SUCH_TICKET)
    if command.expected != ticket.version and (command.expected != -1 or isinstance(command, UndoStep)):
        return _stale(ticket)
    if ticket.status not in _FROM[type(command)]:
        return _wrong(ticket)
    match command:
        case Recall():
            return _recall(ticket, command, now, rules)
        case StartService():
            return [ServiceStarted(command.command_id, command.ticket_id, command.by, now)]
        case PassTicket():
            return [_passed(room, ticket, command.command_id, command.by, now, rules)]
        case FinishTicket():
            return _finish(room, ticket, command, now, rules)
        case _:
            pass
    if not command.reason:
        return Refusal(Reason.REASON_NEEDED)
    match command:
        case ParkTicket():
            if command.until and command.until <= now:
                return Refusal(Reason.IN_THE_PAST, {"until": command.until})
            return [
                TicketParked(
                    command.command_id, command.ticket_id, command.until, command.by, command.reason, now
                )
            ]
        case TransferTicket():
            return _transfer(room, command, now)
        case MoveTicket():
            if not 0 <= command.ahead <= MOVED_MAX:
                return Refusal(Reason.TOO_LARGE, {"limit": MOVED_MAX})
            return [
                TicketMoved(
                    command.command_id, command.ticket_id, command.ahead, command.by, command.reason, now
                )
            ]
        case ClassifyTicket():
            return _classify(room, ticket, command, now, rules)
        case SendToDoor():
            return _send_to_door(room, ticket, command, now, rules)
        case LeaveTicket():
            return [TicketLeft(command.command_id, command.ticket_id, command.by, command.reason, now)]
        case UndoStep():
            return _undo(room, ticket, command, now)
        case _:
            assert_never(command)


def _recall(ticket: Ticket, command: Recall, now: int, rules: Rules) -> list[Event] | Refusal:
    s = ticket.standing
    if s.calls >= rules.calls_max:
        return Refusal(Reason.CALLS_MAX, {"calls": s.calls, "passed_at": _lapses_at(ticket, rules)})
    again_at = s.called_at + rules.recall_gap_seconds * 1000
    if now < again_at:
        return Refusal(Reason.TOO_SOON, {"again_at": again_at})
    return [TicketRecalled(command.command_id, command.ticket_id, command.by, now)]


def _passed(
    room: WaitingRoom, ticket: Ticket, command_id: bytes, by: str, now: int, rules: Rules
) -> TicketPassed:
    rests_until = now + _rests_ms(room, ticket, rules)
    waits = not rules.passed_must_report and ticket.standing.passes + 1 < rules.passes_max
    return TicketPassed(command_id, ticket.ticket_id, by, waits, rests_until, rests_until, now)


def _rests_ms(room: WaitingRoom, ticket: Ticket, rules: Rules) -> int:
    return rules.order_of(room.queues[ticket.queue_id].kind).passed_rest_seconds * 1000


def _finish(
    room: WaitingRoom, ticket: Ticket, command: FinishTicket, now: int, rules: Rules
) -> list[Event] | Refusal:
    planned = ticket.standing.stages[1:]
    stages = planned if command.stages is None else command.stages
    refused = _no_way(room, stages)
    if refused is not None:
        return refused
    return [_finished(room, ticket, command.command_id, stages, command.by, now, rules)]


def _finished(
    room: WaitingRoom,
    ticket: Ticket,
    command_id: bytes,
    stages: Sequence[Stage],
    by: str,
    now: int,
    rules: Rules,
) -> StageFinished:
    practitioner_id = room.rooms[ticket.standing.room_id].practitioner_id
    # A return is to whoever sent him, unless somebody else was named.
    left = tuple(
        (kind, queue_id, who or (practitioner_id if back else ""), back)
        for kind, queue_id, who, back in stages
    )
    left = tuple(
        (kind, *_heir(room, to, who, now), back) if to else (kind, to, who, back)
        for kind, to, who, back in left
    )
    if not any(queue_id for _, queue_id, _, _ in left):
        left = ()  # what is left is elsewhere, and nobody comes back from there
    from_when = _counts_from(room, left[0], rules, now, ticket.starts_at) if left and left[0][1] else now
    return StageFinished(command_id, ticket.ticket_id, left, from_when, by, now)


def _transfer(room: WaitingRoom, command: TransferTicket, now: int) -> list[Event] | Refusal:
    if command.queue_id not in room.queues:
        return Refusal(Reason.NO_SUCH_QUEUE, {"queue_id": command.queue_id})
    return [
        TicketTransferred(
            command.command_id,
            command.ticket_id,
            command.queue_id,
            command.practitioner_id,
            command.by,
            command.reason,
            now,
        )
    ]


def _classify(
    room: WaitingRoom, ticket: Ticket, command: ClassifyTicket, now: int, rules: Rules
) -> list[Event] | Refusal:
    unknown = _unknown_class(rules.order, command.priority, command.emergency)
    if unknown is not None:
        return unknown
    return [
        TicketClassified(
            command.command_id,
            command.ticket_id,
            command.priority,
            command.emergency,
            command.by,
            command.reason,
            now,
        )
    ]


def _send_to_door(
    room: WaitingRoom, ticket: Ticket, command: SendToDoor, now: int, rules: Rules
) -> list[Event] | Refusal:
    place = room.rooms.get(command.room_id)
    if place is None:
        return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": CLOSED})
    if place.status != OPEN:
        return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": place.status})
    if not _serves(place, ticket.queue_id, ticket.practitioner_id):
        return Refusal(Reason.NOT_SERVED_HERE, {"queue_id": ticket.queue_id})
    if rules.door_cap and len(at_door(room, place.room_id)) >= rules.door_cap:
        return Refusal(Reason.DOOR_FULL, {"at_most": rules.door_cap})
    return [
        TicketSentToDoor(
            command.command_id,
            command.ticket_id,
            command.room_id,
            "moved",
            command.by,
            command.reason,
            now,
        )
    ]


def at_door(room: WaitingRoom, room_id: str) -> list[Ticket]:
    """Who waits at a room's door, in the order in which they were sent there."""
    place = room.rooms[room_id]
    found = [
        ticket
        for queue_id in place.queues
        for ticket in map(room.tickets.__getitem__, room.queues[queue_id].line)
        if ticket.status is Status.DOOR and ticket.standing.room_id == room_id
    ]
    return sorted(found, key=lambda ticket: ticket.standing.door)


def _fill_doors(room: WaitingRoom, now: int, rules: Rules) -> list[Event]:
    if rules.door_cap <= 0:
        return []
    doors = [
        (len(at_door(room, place.room_id)), place.room_id)
        for place in room.rooms.values()
        if place.status == OPEN
    ]
    for length, room_id in sorted(doors):
        if length >= rules.door_cap:
            break
        found = next_for(room, room.rooms[room_id], rules, now, to_door=True)
        if found is not None:
            return [TicketSentToDoor(b"", found.ticket_id, room_id, found.call_lane, "", "", now)]
    return []


def _return(room: WaitingRoom, command: ReturnTicket, now: int, rules: Rules) -> list[Event] | Refusal:
    ticket = room.tickets.get(command.ticket_id)
    if ticket is None:
        return Refusal(Reason.NO_SUCH_TICKET)
    refused = _not_here(command, rules)
    if refused is not None:
        return refused
    s = ticket.standing
    match ticket.status:
        case Status.PARKED:
            return [_returned(ticket, command.command_id, command.where, s.counts_from, command.by, now)]
        case Status.PASSED:
            if s.passes >= rules.passes_max and command.where != Where.DESK:
                return Refusal(Reason.PASSED_TOO_OFTEN, {"times": s.passes})
            from_when = max(now, s.rests_until)
            return [_returned(ticket, command.command_id, command.where, from_when, command.by, now)]
        case Status.AWAY:
            return [_returned(ticket, command.command_id, command.where, now, command.by, now)]
        case _:
            return _wrong(ticket)


def _returned(
    ticket: Ticket, command_id: bytes, where: str, from_when: int, by: str, now: int
) -> TicketReturned:
    return TicketReturned(command_id, ticket.ticket_id, where, from_when, by, now)


def _undo(room: WaitingRoom, ticket: Ticket, command: UndoStep, now: int) -> list[Event] | Refusal:
    if ticket.before is None:
        return Refusal(Reason.NOTHING_TO_UNDO)
    then = ticket.before[0]
    if then.room_id:
        place = room.rooms[then.room_id]
        if then.status in IN_ROOM and place.ticket_id not in (b"", ticket.ticket_id):
            inside = room.tickets[place.ticket_id]
            return Refusal(Reason.ROOM_BUSY, {"number": inside.label, "ticket_id": inside.ticket_id.hex()})
        if place.status == CLOSED or then.stages[0][1] not in place.queues:
            return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": place.status})
    other = room.by_patient.get(ticket.patient_id)
    if other not in (None, ticket.ticket_id):
        assert other is not None
        return Refusal(Reason.PATIENT_WAITS_ALREADY, {"ticket_id": other.hex()})
    return [StepUndone(command.command_id, command.ticket_id, command.by, command.reason, now)]


def _alarm(room: WaitingRoom, command: SoundAlarm, now: int) -> list[Event] | Refusal:
    if command.room_id not in room.rooms:
        return Refusal(Reason.ROOM_NOT_OPEN, {"room_status": CLOSED})
    return [AlarmSet(command.command_id, command.room_id, command.on, command.by, command.note, now)]


def _pass_time(room: WaitingRoom, now: int, rules: Rules) -> list[Event]:
    events: list[Event] = []
    for place in room.rooms.values():
        inside = room.tickets.get(place.ticket_id)
        if inside is not None and inside.status is Status.CALLED and now >= _lapses_at(inside, rules):
            events.append(_passed(room, inside, b"", "", now, rules))
    for ticket in room.tickets.values():
        if ticket.status is Status.PARKED and 0 < ticket.standing.parked_until <= now:
            events.append(_returned(ticket, b"", "", ticket.standing.counts_from, "", now))
    return events


# Apply: never refuses.


def apply(room: WaitingRoom, event: Event) -> None:
    room.at = event.at
    told = _happen(room, event)
    if isinstance(event, TicketReleased) or not event.command_id:
        return
    room.commands[event.command_id] = told
    if len(room.commands) > ROOM_COMMANDS_REMEMBERED:
        del room.commands[next(iter(room.commands))]


def _happen(room: WaitingRoom, event: Event) -> Told:
    match event:
        case DayOpened():
            room.department_id, room.day = event.department_id, event.day
            room.closes_at = event.closes_at
            return Told()
        case QueueSet():
            return _apply_queue(room, event)
        case RoomSet():
            place = room.rooms.setdefault(
                event.room_id, Room(event.room_id, event.status, event.practitioner_id, event.queues)
            )
            place.status, place.practitioner_id = event.status, event.practitioner_id
            place.queues = event.queues
            if event.hands_to is not None:
                room.heirs[event.practitioner_id] = event.hands_to
            elif event.status == OPEN:
                room.heirs.pop(event.practitioner_id, None)
            place.version += 1
            return Told(room_id=event.room_id, room_version=place.version)
        case AlarmSet():
            place = room.rooms[event.room_id]
            place.alarm_since = event.at if event.on else 0
            return Told(room_id=event.room_id, room_version=place.version)
        case TicketIssued():
            return _apply_issued(room, event)
        case _:
            ticket = room.tickets[event.ticket_id]
            room_id = ticket.standing.room_id
            _step(room, ticket, event)
            room_id = ticket.standing.room_id or room_id
            place_now = room.rooms.get(room_id)
            return Told(
                ticket.ticket_id,
                ticket.label,
                int(ticket.status),
                ticket.version,
                room_id,
                0 if place_now is None else place_now.version,
                ticket.patient_id,
            )


def _apply_queue(room: WaitingRoom, event: QueueSet) -> Told:
    known = room.queues.get(event.queue_id)
    if known is None:
        room.queues[event.queue_id] = Queue(
            event.queue_id,
            event.kind,
            event.prefix,
            event.first,
            event.last,
            event.practitioner_id,
            event.first,
        )
        return Told()
    if (known.prefix, known.first) != (event.prefix, event.first):
        known.next_number = event.first
    known.kind, known.prefix, known.first, known.last = event.kind, event.prefix, event.first, event.last
    known.practitioner_id = event.practitioner_id
    return Told()


def _apply_issued(room: WaitingRoom, event: TicketIssued) -> Told:
    queue = room.queues[event.stages[0][1]]
    standing = Standing(
        Status.WAITING,
        event.stages,
        event.counts_from,
        queue.turns.ordinary,
        event.priority,
        event.emergency,
    )
    ticket = Ticket(
        event.ticket_id,
        len(room.tickets) + 1,
        event.patient_id,
        event.appointment_id,
        event.visit,
        event.prefix,
        event.number,
        event.booked_number,
        event.starts_at,
        event.window_ends_at,
        event.session_ends_at,
        event.where,
        event.distance_m,
        event.at,
        standing,
    )
    room.tickets[event.ticket_id] = ticket
    room.numbers[event.prefix, event.number] = event.ticket_id
    for own in room.queues.values():
        if own.prefix == event.prefix and own.next_number == event.number:
            own.next_number += 1
    if event.appointment_id:
        room.by_appointment[event.appointment_id] = event.ticket_id
    _index(room, ticket)
    return Told(ticket.ticket_id, ticket.label, int(ticket.status), 1, "", 0, ticket.patient_id)


TicketEvent = (
    TicketSentToDoor
    | TicketCalled
    | TicketRecalled
    | ServiceStarted
    | TicketPassed
    | TicketParked
    | TicketReturned
    | StageFinished
    | TicketReleased
    | TicketTransferred
    | TicketMoved
    | TicketClassified
    | TicketLeft
    | StepUndone
)


def _step(room: WaitingRoom, ticket: Ticket, event: TicketEvent) -> None:
    s = ticket.standing
    match event:
        case TicketSentToDoor():
            _take_turn(room, ticket, event.lane)
            room.doors += 1
            _stand(
                room,
                ticket,
                replace(s, status=Status.DOOR, room_id=event.room_id, door=room.doors, moved=None),
            )
            _announce(room, "door", ticket, event.at)
        case TicketCalled():
            _apply_called(room, ticket, event)
        case TicketRecalled():
            _stand(room, ticket, replace(s, calls=s.calls + 1, called_at=event.at))
            _announce(room, "recalled", ticket, event.at)
        case ServiceStarted():
            _stand(room, ticket, replace(s, status=Status.SERVING, started_at=event.at))
        case TicketPassed():
            _withdraw(room, ticket, event.at)
            passed = replace(
                _out_of_room(s),
                status=Status.WAITING if event.waits else Status.PASSED,
                passed=True,
                passes=s.passes + 1,
                counts_from=event.counts_from,
                rests_until=event.rests_until,
                moved=None,
            )
            _stand(room, ticket, _joined(room, passed) if event.waits else passed, afresh=True)
        case TicketParked():
            _withdraw(room, ticket, event.at)
            _stand(room, ticket, replace(_out_of_room(s), status=Status.PARKED, parked_until=event.until))
        case TicketReturned():
            _apply_returned(room, ticket, event)
        case StageFinished():
            _apply_finished(room, ticket, event)
        case TicketReleased():
            # Its turn had come: it is the next one.
            _withdraw(room, ticket, event.at)
            room.moves += 1
            calls = room.queues[ticket.queue_id].turns.calls
            moved = Moved(0, calls, room.moves, event.by, event.reason)
            _stand(room, ticket, replace(_out_of_room(s), status=Status.WAITING, moved=moved))
        case TicketTransferred():
            _apply_transferred(room, ticket, event)
        case TicketMoved():
            room.moves += 1
            queue = room.queues[ticket.queue_id]
            moved = Moved(event.ahead, queue.turns.calls, room.moves, event.by, event.reason)
            _stand(room, ticket, replace(s, moved=moved))
        case TicketClassified():
            _stand(room, ticket, replace(s, priority=event.priority, emergency=event.emergency))
        case TicketLeft():
            _withdraw(room, ticket, event.at)
            _stand(room, ticket, replace(_out_of_room(s), status=Status.LEFT))
        case StepUndone():
            _apply_undone(room, ticket, event)
        case _:
            assert_never(event)


def _apply_transferred(room: WaitingRoom, ticket: Ticket, event: TicketTransferred) -> None:
    s, n = ticket.standing, event.stage
    stages = list(s.stages)
    kind, was, _, back = stages[n]
    if was != event.queue_id:
        kind = room.queues[event.queue_id].kind
    stages[n] = (kind, event.queue_id, event.practitioner_id, back)
    if n:
        _stand(room, ticket, replace(s, stages=tuple(stages)))
        return
    _withdraw(room, ticket, event.at)
    status = Status.PASSED if s.status is Status.PASSED else Status.WAITING
    to = replace(_out_of_room(s), status=status, stages=tuple(stages))
    if was != event.queue_id:
        to = _joined(room, replace(to, moved=None))
    _stand(room, ticket, to)


def _out_of_room(s: Standing) -> Standing:
    return replace(
        s, room_id="", door=0, calls=0, called_at=0, first_called_at=0, started_at=0, parked_until=0
    )


def _joined(room: WaitingRoom, s: Standing) -> Standing:
    """At the end of its lane's turns: what the line called before does not count for it."""
    queue = room.queues.get(s.stages[0][1])
    return s if queue is None else replace(s, entered=queue.turns.ordinary)


def _stand(room: WaitingRoom, ticket: Ticket, to: Standing, *, afresh: bool = False) -> None:
    """A step: afresh where overtaking is counted anew."""
    ticket.before = ticket.standing, ticket.overtaken
    if afresh:
        ticket.overtaken = 0
    _put(room, ticket, to)


def _put(room: WaitingRoom, ticket: Ticket, to: Standing) -> None:
    was = ticket.standing
    queue = room.queues.get(ticket.queue_id)
    if queue is not None:
        queue.line.pop(ticket.ticket_id, None)
    for room_id in {was.room_id: None, to.room_id: None}:
        if room_id:
            room.rooms[room_id].version += 1
    if was.status in IN_ROOM:
        room.rooms[was.room_id].ticket_id = b""
    ticket.standing = to
    ticket.version += 1
    _index(room, ticket)


def _index(room: WaitingRoom, ticket: Ticket) -> None:
    if ticket.status in IN_LINE:
        room.queues[ticket.queue_id].line[ticket.ticket_id] = None
    elif ticket.status in IN_ROOM:
        room.rooms[ticket.standing.room_id].ticket_id = ticket.ticket_id
    if ticket.status in OVER:
        if room.by_patient.get(ticket.patient_id) == ticket.ticket_id:
            del room.by_patient[ticket.patient_id]
    else:
        room.by_patient[ticket.patient_id] = ticket.ticket_id


def _take_turn(room: WaitingRoom, ticket: Ticket, lane: str) -> None:
    queue = room.queues[ticket.queue_id]
    queue.last_turn = ticket.ticket_id, queue.turns
    queue.turns = queue.turns.after(lane)


def _apply_called(room: WaitingRoom, ticket: Ticket, event: TicketCalled) -> None:
    place = room.rooms[event.room_id]
    if ticket.status is not Status.DOOR:
        _take_turn(room, ticket, event.lane)
    by_rule = not event.out_of_turn and event.lane not in ("emergency", "moved")
    overtook = _overtaken(room, ticket, event) if by_rule else ()
    for ticket_id, _ in overtook:
        room.tickets[ticket_id].overtaken += 1
    place.called_at, place.overtook = event.at, overtook
    _stand(
        room,
        ticket,
        replace(
            ticket.standing,
            status=Status.CALLED,
            room_id=event.room_id,
            calls=1,
            called_at=event.at,
            first_called_at=event.at,
            door=0,
        ),
    )
    _announce(room, "called", ticket, event.at)


def _overtaken(room: WaitingRoom, ticket: Ticket, event: TicketCalled) -> tuple[tuple[bytes, int], ...]:
    """Who was here earlier, could have been called by this room, and was not."""
    place = room.rooms[event.room_id]
    mine = ticket.standing.counts_from, ticket.sequence
    return tuple(
        (other.ticket_id, other.version)
        for queue_id in place.queues
        for other in map(room.tickets.__getitem__, room.queues[queue_id].line)
        if (other.standing.counts_from, other.sequence) < mine
        and other.standing.moved is None
        and other.standing.rests_until <= event.at
        and _may_call(place, other)
    )


def _announce(room: WaitingRoom, kind: str, ticket: Ticket, at: int) -> None:
    room.call_sequence += 1
    room.calls.append(
        Call(
            room.call_sequence,
            kind,
            ticket.ticket_id,
            ticket.patient_id,
            ticket.label,
            ticket.standing.room_id,
            ticket.queue_id,
            at,
        )
    )
    if len(room.calls) > CALLS_KEPT:
        del room.calls[0]


def _withdraw(room: WaitingRoom, ticket: Ticket, at: int) -> None:
    """A call or a door that is shown is shown no more."""
    if ticket.status in (Status.CALLED, Status.DOOR):
        _announce(room, "withdrawn", ticket, at)


def _apply_returned(room: WaitingRoom, ticket: Ticket, event: TicketReturned) -> None:
    s = ticket.standing
    if s.status is Status.PARKED:
        _stand(room, ticket, replace(s, status=Status.WAITING, parked_until=0))
        return
    back = replace(s, status=Status.WAITING, counts_from=event.counts_from, moved=None)
    if s.status is Status.AWAY:
        here = next(n for n, stage in enumerate(s.stages) if stage[1])
        been = tuple(Done(kind, "", "", "", 0, 0, event.at) for kind, _, _, _ in s.stages[:here])
        back = replace(
            back,
            stages=s.stages[here:],
            returned=bool(s.stages[here][3]),
            passed=False,
            done=(*s.done, *been),
        )
    _stand(room, ticket, _joined(room, back), afresh=True)


def _apply_finished(room: WaitingRoom, ticket: Ticket, event: StageFinished) -> None:
    s = ticket.standing
    kind, queue_id, _, _ = s.stages[0]
    place = room.rooms[s.room_id]
    started = s.started_at or s.called_at
    done = Done(kind, queue_id, s.room_id, place.practitioner_id, s.first_called_at, started, event.at)
    status = Status.FINISHED
    if event.stages:
        status = Status.WAITING if event.stages[0][1] else Status.AWAY
    finished = replace(
        _out_of_room(s),
        status=status,
        stages=event.stages,
        counts_from=event.counts_from,
        passed=False,
        returned=bool(event.stages and event.stages[0][3]),
        moved=None,
        rests_until=0,
        done=(*s.done, done),
    )
    _stand(room, ticket, _joined(room, finished) if event.stages else finished, afresh=True)


def _apply_undone(room: WaitingRoom, ticket: Ticket, event: StepUndone) -> None:
    assert ticket.before is not None
    then, overtaken = ticket.before
    s = ticket.standing
    _withdraw(room, ticket, event.at)
    if then.status in IN_LINE and s.status in (Status.CALLED, Status.DOOR):
        # Whose turn it was is as before, unless somebody else has had a turn since.
        queue = room.queues[then.stages[0][1]]
        if then.status is Status.WAITING and queue.last_turn is not None:
            who, turns = queue.last_turn
            if who == ticket.ticket_id and turns.calls + 1 == queue.turns.calls:
                queue.turns, queue.last_turn = turns, None
        place = room.rooms[s.room_id]
        if s.status is Status.CALLED and s.calls == 1:
            for ticket_id, version in place.overtook:
                other = room.tickets[ticket_id]
                if other.version == version:
                    other.overtaken -= 1
            place.overtook, place.called_at = (), 0
    ticket.overtaken = overtaken
    _put(room, ticket, then)
    ticket.before = None
    if then.status in (Status.CALLED, Status.DOOR):
        _announce(room, "called" if then.status is Status.CALLED else "door", ticket, event.at)


def conservation_error(room: WaitingRoom) -> int:
    """Tickets that are in no line and no room although they should, or in one although they should not."""
    wrong = 0
    lines = {ticket_id: queue.queue_id for queue in room.queues.values() for ticket_id in queue.line}
    inside = {place.ticket_id: place.room_id for place in room.rooms.values() if place.ticket_id}
    for ticket in room.tickets.values():
        line = ticket.queue_id if ticket.status in IN_LINE else None
        place = ticket.standing.room_id if ticket.status in IN_ROOM else None
        wrong += lines.get(ticket.ticket_id) != line or inside.get(ticket.ticket_id) != place
    return wrong + abs(sum(len(queue.line) for queue in room.queues.values()) - len(lines))


def replay(events: Iterable[Event]) -> WaitingRoom:
    room = WaitingRoom()
    for event in events:
        apply(room, event)
    return room


# What the outside asks.


def reply_to(room: WaitingRoom, command: Command) -> Reply:
    """After a command that was not refused."""
    if isinstance(command, FillDoors | PassTime):
        return Told()
    return room.commands.get(command.command_id, Told())


@dataclass(frozen=True, slots=True)
class Position:
    """Where a ticket stands in its queue. `ahead` counts those whom the same rooms may call first."""

    ticket_id: bytes
    queue_id: str
    position: int  # from 1, in the whole queue; 0: does not wait there now
    ahead: int
    status: Status
    room_id: str
    stage: int  # from 1, of the journey
    stages: int


def positions(room: WaitingRoom, queue_id: str, rules: Rules, now: int) -> list[Position]:
    """Everybody in a queue, the next one first, in one pass."""
    found: list[Position] = []
    for_anybody, by_practitioner = 0, dict[str, int]()
    for n, rank in enumerate(line(room, queue_id, rules, max(now, room.at)), 1):
        ticket = room.tickets[rank.ticket_id]
        who = ticket.practitioner_id
        ahead = for_anybody + by_practitioner.get(who, 0) if who else n - 1
        found.append(_position(ticket, n, ahead))
        if who:
            by_practitioner[who] = by_practitioner.get(who, 0) + 1
        else:
            for_anybody += 1
    return found


def position(room: WaitingRoom, ticket_id: bytes, rules: Rules, now: int) -> Position | None:
    """Of one ticket, whatever becomes of it; None: there is no such ticket."""
    ticket = room.tickets.get(ticket_id)
    if ticket is None:
        return None
    if ticket.status not in IN_LINE:
        return _position(ticket, 0, 0)
    return next(p for p in positions(room, ticket.queue_id, rules, now) if p.ticket_id == ticket_id)


def _position(ticket: Ticket, n: int, ahead: int) -> Position:
    s = ticket.standing
    gone = len(s.done)
    return Position(
        ticket.ticket_id,
        ticket.queue_id,
        n,
        ahead,
        s.status,
        s.room_id,
        gone + 1 if s.stages else gone,
        gone + len(s.stages),
    )


def explain(
    room: WaitingRoom, ticket_id: bytes, other_id: bytes, rules: Rules, now: int
) -> order.Explanation | None:
    """Which of two who wait in one queue goes first, and why. None where they are not to be compared."""
    ticket, other = room.tickets.get(ticket_id), room.tickets.get(other_id)
    if ticket is None or other is None or ticket is other or ticket.queue_id != other.queue_id:
        return None
    for one, rest in ((ticket, other), (other, ticket)):
        if one.status in IN_ROOM and rest.status in IN_LINE:
            return order.Explanation(one.ticket_id, order.Why.CALLED, {"room_id": one.standing.room_id})
    if ticket.status not in IN_LINE or other.status not in IN_LINE:
        return None
    ranks = line(room, ticket.queue_id, rules, max(now, room.at))
    return order.why(ranks, other_id, ticket_id) or order.why(ranks, ticket_id, other_id)


@dataclass(frozen=True, slots=True)
class Calls:
    """What screens have missed. `whole`: too much; `calls` then is what is being shown now."""

    sequence: int
    calls: tuple[Call, ...]
    whole: bool


def calls_since(room: WaitingRoom, sequence: int) -> Calls:
    """Every call after the one with that sequence, once, in order. Ask again with what comes back."""
    first = room.calls[0].sequence if room.calls else room.call_sequence + 1
    if not first - 1 <= sequence <= room.call_sequence:
        return Calls(room.call_sequence, shown(room), True)
    return Calls(room.call_sequence, tuple(room.calls[sequence - first + 1 :]), False)


def shown(room: WaitingRoom) -> tuple[Call, ...]:
    """What a screen that has just started shows: who is called now, the latest last."""
    calls = [
        Call(
            0,
            "called",
            ticket.ticket_id,
            ticket.patient_id,
            ticket.label,
            place.room_id,
            ticket.queue_id,
            ticket.standing.called_at,
        )
        for place in room.rooms.values()
        if (ticket := room.tickets.get(place.ticket_id)) is not None
    ]
    return tuple(sorted(calls, key=lambda call: (call.at, call.label)))


@dataclass(frozen=True, slots=True)
class Counters:
    queue_id: str
    by_status: Mapping[Status, int]
    waiting_since: int  # of who has waited longest; 0: nobody waits
    open_rooms: int
    next_number: int


def counters(room: WaitingRoom) -> list[Counters]:
    """Of every queue. Who has finished or left counts in none, and once in the last row, whose id is ""."""
    counts: dict[str, dict[Status, int]] = {queue_id: {} for queue_id in (*room.queues, "")}
    since: dict[str, int] = {}
    for ticket in room.tickets.values():
        queue_id = "" if ticket.status in OVER else ticket.queue_id
        counts[queue_id][ticket.status] = counts[queue_id].get(ticket.status, 0) + 1
        if ticket.status in IN_LINE:
            since[queue_id] = min(since.get(queue_id, FAR), ticket.standing.counts_from)
    return [
        Counters(
            queue_id,
            by_status,
            since.get(queue_id, 0),
            sum(r.status == OPEN and queue_id in r.queues for r in room.rooms.values()),
            room.queues[queue_id].next_number if queue_id else 0,
        )
        for queue_id, by_status in counts.items()
    ]


def next_wake(room: WaitingRoom, rules: Rules = DEFAULT) -> int | None:
    """When time alone changes something here, for PassTime."""
    moments = [
        _lapses_at(ticket, rules)
        for place in room.rooms.values()
        if (ticket := room.tickets.get(place.ticket_id)) is not None and ticket.status is Status.CALLED
    ]
    moments += [
        ticket.standing.parked_until
        for ticket in room.tickets.values()
        if ticket.status is Status.PARKED and ticket.standing.parked_until
    ]
    return min((at for at in moments if at < FAR), default=None)


@dataclass(frozen=True, slots=True)
class Differs:
    """A call that other rules would have made otherwise."""

    at: int
    room_id: str
    called: bytes
    instead: bytes  # b"": nobody
    why: order.Explanation | None  # by the other rules, where both waited in one queue


@dataclass(frozen=True, slots=True)
class Rehearsal:
    calls: int  # in turn; those by hand are left out
    differs: tuple[Differs, ...]


def rehearse(events: Iterable[Event], rules: Rules) -> Rehearsal:
    """A recorded day under other rules: at each call, whom they would have called as things stood then. What
    would have come of it later is not followed. Under the day's own rules nothing differs."""
    room, calls, differs = WaitingRoom(), 0, list[Differs]()
    before: tuple[int, str, Rank | None] | None = None
    for event in events:
        if isinstance(event, TicketCalled) and not event.out_of_turn:
            calls += 1
            found = next_for(room, room.rooms[event.room_id], rules, event.at)
            if before is not None and before[:2] == (event.at, event.room_id):
                found = before[2]  # the call itself made room: who was inside was not to be called
            instead = b"" if found is None else found.ticket_id
            if instead != event.ticket_id:
                why = explain(room, event.ticket_id, instead, rules, event.at)
                differs.append(Differs(event.at, event.room_id, event.ticket_id, instead, why))
        before = None
        if isinstance(event, StageFinished | TicketPassed) and not event.command_id:
            place = room.rooms[room.tickets[event.ticket_id].standing.room_id]
            before = event.at, place.room_id, next_for(room, place, rules, event.at)
        apply(room, event)
    return Rehearsal(calls, tuple(differs))
