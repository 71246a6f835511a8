"""From a waiting room to forecasts: who is served where since when, who stands in which order, who will come.

Pure. engine/domain/waiting_time.py knows rooms and one line of people; here a department's day is put into
these words, queue by queue, and what comes out is told per ticket and per booked patient. The same code tells
the present (web/queues/forecasts.py) and yesterday (engine/views/foretold.py).

A *turn* is from a call to the end of that stage: what a room is busy with, whether or not somebody presses
"has come in". Between the end of one and the next call is the pause, where the next one was there already.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import erfc, inf, sqrt
from typing import Final, Literal

from engine.domain import queue_order as order
from engine.domain import waiting_room as w
from engine.domain.calibration import UNCORRECTED, Calibration, Correction
from engine.domain.limits import SLOT_MS
from engine.domain.no_show_night import ASSUMED_SHARE
from engine.domain.planning import Plan
from engine.domain.queue_order import Band, Place, Rank, Rules
from engine.domain.service_times import NO_PACE, Pace, ServiceModel, Visit
from engine.domain.waiting_room import Status
from engine.domain.waiting_time import Estimate, Forecast, Room, Waiting, estimates, forecasts
from engine.records.expected import Booking

FIRST, FOLLOW_UP, RETURN = "first", "follow_up", "return"
SITTING_GAP_MS: Final = 3_600_000
"""Whoever was idle for longer has begun a new session: how fast he is starts afresh."""
OPENS_LATE_MS: Final = 30 * 60_000
"""So long after a session's beginning its practitioner is still expected to open the room."""
COMES_EARLY_SECONDS: Final = 20 * 60
COMES_SPREAD_SECONDS: Final = 20 * 60
"""When booked patients come: so much before their time, give or take (assumed; normal)."""
SHARED_FORECASTS: Final = 200.0
"""So many past forecasts of the whole hospital, at a distance, speak beside a department's own."""
MINUTE_MS: Final = 60_000
FAR_MS: Final = order.FAR

GREEN_P90_SECONDS: Final = 30 * 60
RED_P50_SECONDS: Final = 60 * 60
Light = Literal["green", "yellow", "red"]


def light_of(estimate: Estimate) -> Light:
    """Green: nine in ten wait less than half an hour. Red: half wait more than an hour."""
    if estimate.p90_seconds <= GREEN_P90_SECONDS:
        return "green"
    return "red" if estimate.p50_seconds > RED_P50_SECONDS else "yellow"


@dataclass(frozen=True, slots=True)
class Expected:
    """Somebody who is booked for this day in this department. Times in ms."""

    appointment_id: bytes
    patient_id: bytes
    practitioner_id: str  # who really sees him: the substitute where there is one
    starts_at: int
    window_ends_at: int
    session_ends_at: int
    number: int
    visit: int = 0  # 0 first, 1 follow-up
    missed: float = 0.0  # the chance that he does not come, as it was before the day
    booked_at: int = 0
    given_up_at: int = FAR_MS  # from then on he is not expected any more
    way_minutes: int | None = None  # how long the way takes, where he has said it


@dataclass(frozen=True, slots=True)
class Duty:
    """A practitioner's planned session. Times in ms."""

    practitioner_id: str
    starts_at: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a department's day beside the waiting room itself: of the past, and of the plan."""

    model: ServiceModel = ServiceModel()
    correction: Correction = UNCORRECTED
    expected: Sequence[Expected] = ()
    duties: Sequence[Duty] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """When it is somebody's turn, from `Told.at` on."""

    forecast: Forecast
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Told:
    """What is foretold of one department at one moment."""

    at: int  # ms
    tickets: Mapping[bytes, Turn] = field(default_factory=dict)
    """Everybody in a line whom an open room may call, or one that is about to open."""
    booked: Mapping[bytes, Turn] = field(default_factory=dict)
    """By appointment: who is not here yet. Given that he comes, and as if he came in time."""
    newcomers: Mapping[str, Turn] = field(default_factory=dict)
    """By queue: one more at its end."""
    late: Mapping[str, int] = field(default_factory=dict)
    """Practitioner -> seconds behind the appointed times; who is not late is not in it."""
    here: Collection[bytes] = ()
    """Appointments whose patients have checked in."""


def tell(room: w.WaitingRoom, rules: Rules, now: int, known: Known) -> Told:
    """Of this moment. `known` must be of this department and day."""
    now = max(now, room.at)
    scene = _Scene(room, rules, now, known)
    tickets: dict[bytes, Turn] = {}
    booked: dict[bytes, Turn] = {}
    newcomers: dict[str, Turn] = {}
    for lanes in scene.together():
        scene.foretell(lanes, tickets, booked, newcomers)
    return Told(now, tickets, booked, newcomers, _late(scene), frozenset(room.by_appointment))


def why_none(room: w.WaitingRoom, ticket_id: bytes) -> Literal["called", "not_waiting", "no_room"]:
    """Of a ticket of today that has no turn in `Told`."""
    ticket = room.tickets.get(ticket_id)
    if ticket is None or ticket.status not in (*w.IN_LINE, *w.IN_ROOM):
        return "not_waiting"
    return "called" if ticket.status in w.IN_ROOM else "no_room"


# What has happened today.


def kind_of(visit: int, stage: str, been: bool) -> str:
    """What a turn is learned as. `stage`: the kind of its queue; `been`: the patient was seen before today.

    Classes of numbers (expert, ordinary) are not told apart: they hang on the practitioner, who is."""
    if stage != w.VISIT:
        return stage
    if been:
        return RETURN
    return FOLLOW_UP if visit else FIRST


def kind_of_ticket(ticket: w.Ticket) -> str:
    stages = ticket.standing.stages
    return kind_of(ticket.visit, stages[0][0] if stages else w.VISIT, _been(ticket.standing.done))


def _been(done: Iterable[w.Done]) -> bool:
    return any(one.kind == w.VISIT and one.called_at for one in done)


@dataclass(frozen=True, slots=True)
class Served:
    """A turn that is over. Times in ms."""

    practitioner_id: str
    kind: str
    there_since: int  # the patient could have been called from then on
    called_at: int
    finished_at: int


def served_of(room: w.WaitingRoom) -> dict[str, list[Served]]:
    """By room, in order."""
    found: dict[str, list[Served]] = {}
    for ticket in room.tickets.values():
        since, been = ticket.arrived_at, False
        for done in ticket.standing.done:
            if done.called_at:
                kind = kind_of(ticket.visit, done.kind, been)
                found.setdefault(done.room_id, []).append(
                    Served(done.practitioner_id, kind, since, done.called_at, done.finished_at)
                )
                been = been or done.kind == w.VISIT
            since = done.finished_at
    for turns in found.values():
        turns.sort(key=lambda one: one.called_at)
    return found


def visits_of(room: w.WaitingRoom) -> list[Visit]:
    """What is to be learned of a day: its turns, in the order in which they ended."""
    served = served_of(room)
    visits = [
        (one.finished_at, visit)
        for turns in served.values()
        for one, visit in zip(turns, _visits(room.department_id, turns), strict=True)
    ]
    return [visit for _, visit in sorted(visits, key=lambda one: one[0])]


def _visits(department_id: str, turns: Sequence[Served]) -> list[Visit]:
    """Of one room. A pause that nobody waited for is not known, and counts for nothing."""
    pauses = [
        (after.called_at - before.finished_at) / 1000
        if after.there_since <= before.finished_at
        and after.called_at - before.finished_at <= SITTING_GAP_MS
        and after.practitioner_id == before.practitioner_id
        else inf
        for before, after in pairwise(turns)
    ]
    visits = []
    began = 0
    for n, one in enumerate(turns):
        if n == 0 or one.called_at - turns[n - 1].finished_at > SITTING_GAP_MS:
            began = one.called_at
        visits.append(
            Visit(
                department_id,
                one.practitioner_id,
                one.kind,
                (one.finished_at - one.called_at) / 1000,
                max(0.0, pauses[n]) if n < len(pauses) else inf,
                (one.called_at - began) / 1000,
            )
        )
    return visits


def _began(turns: Sequence[Served], now: int) -> int:
    """When the sitting that goes on in a room began."""
    began = now
    for one in reversed(turns):
        if began - one.finished_at > SITTING_GAP_MS:
            break
        began = one.called_at
    return began


# What is to come.


def duties_of(department_id: str, plans: Iterable[tuple[str, Plan]]) -> tuple[Duty, ...]:
    """Who sees patients there, of (practitioner, plan of the day) pairs. Sessions that were called off are
    none."""
    return tuple(
        Duty(
            session.substitute_id or practitioner_id,
            min(slot.starts_at for slot in session.slots),
            max(slot.starts_at for slot in session.slots) + SLOT_MS,
        )
        for practitioner_id, plan in plans
        for session in plan
        if session.department_id == department_id and session.slots and session.status != "suspended"
    )


def expected_of(
    bookings: Iterable[Booking], plans: Mapping[str, Plan], missed: Mapping[bytes, float]
) -> tuple[Expected, ...]:
    """`plans` by schedule; `missed`: each booking's chance of not being kept, where it is known."""
    found = []
    for one in bookings:
        sessions = plans.get(one.schedule_id, ())
        session = next((x for x in sessions if any(slot.clock == one.clock for slot in x.slots)), None)
        if session is None:
            continue  # its session is not there any more
        found.append(
            Expected(
                one.appointment_id,
                one.patient_id,
                session.substitute_id or one.schedule_id.rpartition("-")[0],
                one.starts_at,
                one.starts_at + SLOT_MS,
                max(slot.starts_at for slot in session.slots) + SLOT_MS,
                one.number,
                one.visit,
                missed.get(one.appointment_id, ASSUMED_SHARE),
                one.booked_at,
                FAR_MS if one.given_up_at is None else one.given_up_at,
                one.way_minutes,
            )
        )
    return tuple(found)


def chance_of_coming(missed: float, late_seconds: float) -> float:
    """Of a booked patient who is not here `late_seconds` after (below 0: before) his time: the longer he is
    not here, the less he is believed to come."""
    later = 0.5 * erfc((late_seconds + COMES_EARLY_SECONDS) / COMES_SPREAD_SECONDS / sqrt(2))
    come = (1.0 - missed) * later
    return come / (come + missed) if come + missed > 0 else 0.0


@dataclass(frozen=True, slots=True)
class _Lane:
    """An open room, or one that will open; `id` is "" where nobody knows which room it will be."""

    id: str
    queues: tuple[str, ...]
    practitioner_id: str
    opens_at: int = 0  # 0: it is open


class _Scene:
    """One moment of one department, read once for all its queues."""

    def __init__(self, room: w.WaitingRoom, rules: Rules, now: int, known: Known) -> None:
        self.room = room
        self.rules = rules
        self.now = now
        self.known = known
        self._served = served_of(room)
        self._paces = self._paces_now()
        self.lanes = [
            _Lane(one.room_id, one.queues, one.practitioner_id)
            for one in room.rooms.values()
            if one.status != w.CLOSED
        ]
        self.lanes += self._about_to_open()
        self.expected: dict[bytes, Expected] = {}
        self._of_queue: dict[str, list[Expected]] = {}
        for one in known.expected:
            if one.booked_at <= now < one.given_up_at and one.appointment_id not in room.by_appointment:
                queue_id = self._queue_of(one)
                if queue_id:
                    self.expected[one.appointment_id] = one
                    self._of_queue.setdefault(queue_id, []).append(one)
        self._lines: dict[str, list[Rank]] = {}

    def _paces_now(self) -> dict[str, Pace]:
        """How fast everybody is today, as the turns that are over have shown."""
        model, paces = self.known.model, dict[str, Pace]()
        ended = [
            (one.finished_at, visit)
            for turns in self._served.values()
            for one, visit in zip(turns, _visits(self.room.department_id, turns), strict=True)
        ]
        for _, visit in sorted(ended, key=lambda one: one[0]):
            who = visit.practitioner_id
            paces[who] = model.after(paces.get(who, NO_PACE), visit)
        return paces

    def _about_to_open(self) -> list[_Lane]:
        """Practitioners on duty who have no room yet. Who has closed one comes back with the next session."""
        room, now = self.room, self.now
        sits = {one.practitioner_id for one in self.lanes}
        been = {one.practitioner_id for one in room.rooms.values()}
        open_queues = {queue_id for one in self.lanes for queue_id in one.queues}
        nobodys = tuple(
            queue_id
            for queue_id, queue in room.queues.items()
            if queue.kind == w.VISIT and not queue.practitioner_id and queue_id not in open_queues
        )
        found: dict[str, _Lane] = {}
        for duty in sorted(self.known.duties, key=lambda duty: duty.starts_at):
            who = duty.practitioner_id
            from_when = now - (0 if who in been else OPENS_LATE_MS)
            if who in sits or who in found or duty.starts_at < from_when:
                continue
            own = tuple(q for q, queue in room.queues.items() if queue.practitioner_id == who)
            found[who] = _Lane("", (*own, *nobodys), who, max(duty.starts_at, now))
        return list(found.values())

    def _queue_of(self, one: Expected) -> str:
        """Where he will wait: as the waiting room will say."""
        visits = [queue for queue in self.room.queues.values() if queue.kind == w.VISIT]
        own = next((queue for queue in visits if queue.practitioner_id == one.practitioner_id), None)
        if own is None:
            own = next((queue for queue in visits if not queue.practitioner_id), None)
        if own is None:
            return ""
        heir = self.room.heirs.get(one.practitioner_id)
        if heir is not None and not 0 < heir[2] <= one.starts_at:
            return heir[0] or own.queue_id
        return own.queue_id

    def line(self, queue_id: str) -> list[Rank]:
        """Who is here and who will come, as if all who are booked came in time."""
        ranks = self._lines.get(queue_id)
        if ranks is None:
            room, queue = self.room, self.room.queues[queue_id]
            places = [w.place_of(room, room.tickets[ticket_id]) for ticket_id in queue.line]
            rules = self.rules.order_of(queue.kind)
            places += [self._place(one, rules) for one in self._of_queue.get(queue_id, ())]
            ranks = self._lines[queue_id] = order.rank(places, queue.turns, rules, self.now)
        return ranks

    def _place(self, one: Expected, rules: order.OrderRules) -> Place:
        comes = max(self.now, one.starts_at)
        return Place(
            one.appointment_id,
            FAR_MS,
            comes,
            order.counts_from(rules, comes, one.starts_at),
            0,
            one.number,
            one.starts_at,
            one.window_ends_at,
            one.session_ends_at,
        )

    def together(self) -> list[list[_Lane]]:
        """Rooms that have people in common, directly or by others: what one does moves the lines of all."""
        groups: list[tuple[set[str], list[_Lane]]] = []
        for lane in self.lanes:
            queues, lanes = set(lane.queues), [lane]
            apart = []
            for group in groups:
                if queues.isdisjoint(group[0]):
                    apart.append(group)
                else:
                    queues |= group[0]
                    lanes = [*group[1], *lanes]
            groups = [*apart, (queues, lanes)]
        return [lanes for _, lanes in groups]

    def foretell(
        self,
        lanes: Sequence[_Lane],
        tickets: dict[bytes, Turn],
        booked: dict[bytes, Turn],
        newcomers: dict[str, Turn],
    ) -> None:
        """Everybody whom these rooms may call."""
        merged = self._merged(lanes)
        people = [self._person(queue_id, rank, lanes) for queue_id, rank in merged]
        queues = [queue_id for queue_id in self.room.queues if any(queue_id in one.queues for one in lanes)]
        for queue_id in queues:  # one more at the end of each, in nobody's way
            serve = tuple(n for n, lane in enumerate(lanes) if queue_id in lane.queues)
            kind = kind_of(0, self.room.queues[queue_id].kind, False)
            people.append(Waiting(kind, chance=0.0, rooms=serve))
        foreseen = forecasts(self.known.model, [self._room(lane) for lane in lanes], people)
        said = estimates(foreseen, people, self.known.correction)
        turns = [
            None if forecast is None or estimate is None else Turn(forecast, estimate)
            for forecast, estimate in zip(foreseen, said, strict=True)
        ]
        for (_, rank), turn in zip(merged, turns, strict=False):
            if turn is not None:
                (booked if rank.ticket_id in self.expected else tickets)[rank.ticket_id] = turn
        for queue_id, turn in zip(queues, turns[len(merged) :], strict=True):
            if turn is not None:
                newcomers[queue_id] = turn

    def _merged(self, lanes: Sequence[_Lane]) -> list[tuple[str, Rank]]:
        """Everybody whom these rooms may call, with their queues: the lines merged as calls merge them."""
        positions: dict[str, int] = {}
        for lane in lanes:
            for n, queue_id in enumerate(lane.queues):
                if queue_id in self.room.queues:
                    positions[queue_id] = min(n, positions.get(queue_id, n))
        keys = {queue_id: self._keys(queue_id, position) for queue_id, position in positions.items()}
        heads = [(keys_of[0], queue_id, 0) for queue_id, keys_of in keys.items() if keys_of]
        heapify(heads)
        found = []
        while heads:
            _, queue_id, n = heappop(heads)
            found.append((queue_id, self.line(queue_id)[n]))
            if n + 1 < len(keys[queue_id]):
                heappush(heads, (keys[queue_id][n + 1], queue_id, n + 1))
        return found

    def _keys(self, queue_id: str, position: int) -> list[tuple[int, int, int, int]]:
        """Of a line, by which its first one is compared with those of other lines. Who is not here keeps
        nobody behind him from being called, so he goes with the next one who is."""
        keys: list[tuple[int, int, int, int]] = []
        behind: tuple[int, int, int, int] | None = None
        for rank in reversed(self.line(queue_id)):
            if behind is None or rank.ticket_id not in self.expected:
                behind = self._key(rank, position)
            keys.append(behind)
        keys.reverse()
        return keys

    def _key(self, rank: Rank, position: int) -> tuple[int, int, int, int]:
        """Which of two queues' first ones is called first."""
        first = 0
        if rank.band is Band.EMERGENCY:
            first = rank.place.emergency
        elif rank.band is Band.LINE and self.rules.across is order.Across.LISTED:
            first = position
        return (rank.band, first, *rank.seniority)

    def _person(self, queue_id: str, rank: Rank, lanes: Sequence[_Lane]) -> Waiting:
        coming = self.expected.get(rank.ticket_id)
        if coming is not None:
            late = (self.now - coming.starts_at) / 1000
            kind, due = kind_of(coming.visit, w.VISIT, False), max(0.0, -late)
            chance = chance_of_coming(coming.missed, late)
        else:
            kind = kind_of_ticket(self.room.tickets[rank.ticket_id])
            due = max(0, rank.place.rests_until - self.now) / 1000
            chance = 1.0
        who, door = self._for_whom(queue_id, rank.ticket_id)
        mine = tuple(n for n, lane in enumerate(lanes) if _may_call(lane, queue_id, who, door))
        return Waiting(kind, None, chance, due, mine)

    def _for_whom(self, queue_id: str, ticket_id: bytes) -> tuple[str, str]:
        """Who alone may call him ("": anybody who serves the queue), and at whose door he is."""
        coming = self.expected.get(ticket_id)
        if coming is None:
            ticket = self.room.tickets[ticket_id]
            return ticket.practitioner_id, ticket.standing.room_id if ticket.status is Status.DOOR else ""
        heir = self.room.heirs.get(coming.practitioner_id)
        if heir is not None and not 0 < heir[2] <= coming.starts_at:
            return heir[1], ""
        own = self.room.queues[queue_id].practitioner_id == coming.practitioner_id
        return "" if own else coming.practitioner_id, ""

    def _room(self, lane: _Lane) -> Room:
        room, now, department_id = self.room, self.now, self.room.department_id
        who = lane.practitioner_id
        pace = self._paces.get(who, NO_PACE)
        if lane.opens_at:
            return Room(department_id, who, (now - lane.opens_at) / 1000, pace=pace)
        turns = self._served.get(lane.id, [])
        ticket = room.tickets.get(room.rooms[lane.id].ticket_id)
        if ticket is not None:
            called_at = ticket.standing.first_called_at
            return Room(
                department_id,
                who,
                (now - _began(turns, called_at)) / 1000,
                kind_of_ticket(ticket),
                (now - called_at) / 1000,
                pace=pace,
            )
        # After an hour without anybody it is no pause between two turns any more.
        idle = (now - turns[-1].finished_at) / 1000 if turns else 0.0
        paused = 0 < idle <= SITTING_GAP_MS / 1000 and self._somebody_waits(lane)
        since = (now - _began(turns, now)) / 1000
        return Room(department_id, who, since, None, idle if paused else 0.0, paused, pace)

    def _somebody_waits(self, lane: _Lane) -> bool:
        return any(
            rank.ticket_id not in self.expected
            and rank.band is not Band.RESTS
            and _may_call(lane, queue_id, *self._for_whom(queue_id, rank.ticket_id))
            for queue_id in lane.queues
            if queue_id in self.room.queues
            for rank in self.line(queue_id)
        )


def _may_call(lane: _Lane, queue_id: str, who: str, door: str) -> bool:
    return queue_id in lane.queues and who in ("", lane.practitioner_id) and (not door or lane.id == door)


def _late(scene: _Scene) -> dict[str, int]:
    """How far practitioners are behind: how long the half hour of somebody who is here in time, and waits, is
    over; or their session begun, and no room open."""
    room, now = scene.room, scene.now
    late: dict[str, int] = {}
    for queue in room.queues.values():
        if queue.kind != w.VISIT:
            continue
        for ticket_id in queue.line:
            ticket = room.tickets[ticket_id]
            s = ticket.standing
            who = queue.practitioner_id or ticket.practitioner_id
            if not who or not ticket.starts_at or s.passed or s.returned or s.moved or s.done:
                continue
            window = ticket.window_ends_at - ticket.starts_at
            behind = (now - max(ticket.window_ends_at, ticket.arrived_at + window)) // 1000
            if behind > late.get(who, 0):
                late[who] = behind
    been = {one.practitioner_id for one in room.rooms.values()}
    for duty in scene.known.duties:
        behind = (now - duty.starts_at) // 1000
        if (
            duty.practitioner_id not in been
            and now < duty.ends_at
            and behind > late.get(duty.practitioner_id, 0)
        ):
            late[duty.practitioner_id] = behind
    return late


# What the past corrects.


def shared(hospital: Calibration, department: Calibration) -> Correction:
    """A department's correction: its own past forecasts, beside a few of all departments'."""
    counts = []
    for all_, own in zip(hospital.counts, department.counts, strict=True):
        n = sum(all_)
        part = min(1.0, SHARED_FORECASTS / n) if n else 0.0
        counts.append(tuple(a * part + b for a, b in zip(all_, own, strict=True)))
    return Calibration(tuple(counts)).correction()


# When to set out.


def arrive_by(starts_at: int, p10_turn_at: int | None, rules: order.OrderRules, margin_ms: int) -> int:
    """When a booked patient should be here, in ms: at his appointed time, or later where his turn comes later
    (nine in ten), but never so late that he loses his place by coming late."""
    by = max(starts_at, p10_turn_at or 0) - margin_ms
    if rules.late is not order.LateRule.NORMAL:
        by = min(by, starts_at + rules.late_minutes * MINUTE_MS - margin_ms)
    return by
