"""Random days of a waiting room, with every command: what must hold after every single event."""

import copy
import random
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain import queue_order as q
from engine.domain import waiting_room as w
from engine.domain.queue_order import Band, Interval, OrderRules, Rank, Rules, Why
from engine.domain.refusal import Reason, Refusal
from engine.domain.waiting_room import Status

START = 1_800_000_000_000
MINUTE = 60_000
PATIENTS = [bytes([n]) * 16 for n in range(1, 13)]
ROOMS = ["r1", "r2", "r3"]
DOCTORS = ["d1", "d2", ""]
QUEUES = ["triage", "common", "own", "pharmacy"]
CLASSES = ["", "", "", "soldier", "aged", "child"]
ROUTES: list[tuple[w.Stage, ...]] = [
    (),
    (("pharmacy", "pharmacy", "", 0),),
    (("examination", "", "", 0), ("visit", "common", "", 1), ("pharmacy", "pharmacy", "", 0)),
    (("examination", "", "", 0),),
]
RULES = [
    Rules(order=OrderRules(overtaken_max=2)),
    Rules(
        order=OrderRules(
            by=q.Basis.CHECK_IN,
            late=q.LateRule.END_OF_WINDOW,
            passed=q.PassedRule.END_OF_WINDOW,
            passed_rest_seconds=120,
            returned=q.ReturnRule.NEXT,
            mix=q.Mix.EVERY,
            overtaken_max=3,
        ),
        door_cap=2,
        calls_max=1,
        passed_must_report=False,
        across=q.Across.LISTED,
        leave=q.LeaveRule.KEEP,
    ),
    Rules(
        order=OrderRules(
            late=q.LateRule.END_OF_SESSION,
            late_minutes=0,
            passed=q.PassedRule.END_OF_SESSION,
            returned=q.ReturnRule.OWN_PLACE,
            mix=q.Mix.BOOKED_FIRST,
            emergency_first=1,
            overtaken_max=4,
        ),
        early_minutes=None,
        triage_queue="triage",
        passes_max=1,
        leave=q.LeaveRule.ASK,
    ),
    Rules(
        order=OrderRules(
            late=q.LateRule.NORMAL,
            late_interval=Interval(2, 2),
            returned=q.ReturnRule.END,
            passed_interval=Interval(1, 2),
            overtaken_max=1,
        ),
        door_cap=1,
        recall_gap_seconds=0,
        call_gap_seconds=1,
    ),
]


class Day(RuleBasedStateMachine):
    """The engine's decide and apply, beside books that are kept from the events alone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.room = w.WaitingRoom()
        self.journal: list[w.Event] = []
        self.ids = 0
        self.rule_book = RULES[0]
        self.since: dict[bytes, int] = {}  # ticket -> from when on it counts as waiting
        self.sequence: dict[bytes, int] = {}
        self.overtaken: Counter[bytes] = Counter()
        self.heard: list[int] = []  # sequences of calls that a screen has been told
        self.at_screen = 0
        self.last: tuple[w.Command, w.Told] | None = None

    def command_id(self) -> bytes:
        self.ids += 1
        return b"command" + self.ids.to_bytes(9, "big")

    @initialize(rules=st.sampled_from(RULES))
    def open(self, rules: Rules) -> None:
        self.rule_book = rules
        self.run(w.OpenDay(self.command_id(), "0304", "2027-01-15", START + 600 * MINUTE))
        for queue_id, kind, prefix, first, who in (
            ("triage", "triage", "T", 1, ""),
            ("common", "visit", "A", 5, ""),
            ("own", "visit", "A", 25, "d1"),
            ("pharmacy", "pharmacy", "P", 1, ""),
        ):
            self.run(w.SetQueue(self.command_id(), queue_id, kind, prefix, first, first + 12, who))
        self.run(w.OpenRoom(self.command_id(), "r1", ("own", "common"), "d1"))
        self.run(w.OpenRoom(self.command_id(), "r2", ("common",), "d2"))

    # What must hold of every command.

    def decide(self, command: w.Command) -> list[w.Event] | Refusal:
        return w.decide(self.room, command, self.now, self.rule_book)

    def run(self, command: w.Command) -> list[w.Event] | Refusal:
        before = copy.deepcopy(self.room)
        outcome = self.decide(command)
        assert self.room == before, "decide changed the state"
        assert outcome == self.decide(command), "decide is not a function"
        if isinstance(outcome, Refusal):
            return outcome
        for event in outcome:
            self.happen(event)
        if not isinstance(command, w.FillDoors | w.PassTime):
            told = w.reply_to(self.room, command)
            assert self.decide(command) == [], "said again it does something again"
            self.last = command, told
        return outcome

    def happen(self, event: w.Event) -> None:
        if isinstance(event, w.TicketCalled) and not event.out_of_turn:
            self.count_overtaken(event)
        w.apply(self.room, event)
        self.journal.append(event)
        match event:
            case w.TicketIssued():
                self.since[event.ticket_id] = event.counts_from
                self.sequence[event.ticket_id] = len(self.sequence)
            case w.TicketPassed() | w.StageFinished():
                self.since[event.ticket_id] = event.counts_from
                self.overtaken[event.ticket_id] = 0
            case w.TicketReturned():
                if event.counts_from != self.since[event.ticket_id]:
                    self.since[event.ticket_id] = event.counts_from
                    self.overtaken[event.ticket_id] = 0
            case w.TicketSentToDoor():
                # A step that is undone may bring back one more than fit: that was a promise.
                cap = self.rule_book.door_cap
                assert not cap or len(w.at_door(self.room, event.room_id)) <= cap
            case w.StepUndone():
                # Books of what is taken back are not kept: they begin again with what the state says.
                ticket = self.room.tickets[event.ticket_id]
                self.since[event.ticket_id] = ticket.standing.counts_from
                for other in self.room.tickets.values():
                    self.overtaken[other.ticket_id] = min(self.overtaken[other.ticket_id], other.overtaken)

    def count_overtaken(self, event: w.TicketCalled) -> None:
        called, place = self.room.tickets[event.ticket_id], self.room.rooms[event.room_id]
        assert called.status in w.IN_LINE
        assert called.standing.room_id in ("", place.room_id), "at another room's door"
        assert called.practitioner_id in ("", place.practitioner_id), "waits for somebody else"
        first = 0 < called.standing.emergency <= self.order_of(called).emergency_first
        for other in self.room.tickets.values():
            if (
                other.status in w.IN_LINE
                and other.queue_id in place.queues
                and other.practitioner_id in ("", place.practitioner_id)
                and other.standing.room_id in ("", place.room_id)
                and not other.standing.moved
                and not called.standing.moved
                and other.standing.rests_until <= event.at
                and (self.since[other.ticket_id], self.sequence[other.ticket_id])
                < (self.since[called.ticket_id], self.sequence[called.ticket_id])
                and not first
            ):
                self.overtaken[other.ticket_id] += 1
                assert self.overtaken[other.ticket_id] <= self.order_of(other).overtaken_max, "starved"

    def order_of(self, ticket: w.Ticket) -> OrderRules:
        return self.rule_book.order_of(self.room.queues[ticket.queue_id].kind)

    # Time, people, rooms.

    @rule(seconds=st.sampled_from([1, 10, 60, 61, 600, 1800]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1000

    @rule()
    def the_clock_is_set_back(self) -> None:
        self.now -= 5_000

    @precondition(lambda self: w.next_wake(self.room, self.rule_book) is not None)
    @rule(early=st.booleans())
    def time_passes_until_something_happens(self, early: bool) -> None:
        self.now = max(self.now, (w.next_wake(self.room, self.rule_book) or 0) - early)
        happened = self.run(w.PassTime())
        assert early or self.room.at > self.now or happened
        wake = w.next_wake(self.room, self.rule_book)
        assert early or wake is None or wake > self.now

    @rule(
        patient=st.sampled_from(PATIENTS),
        half_hour=st.integers(-2, 3),
        number=st.integers(1, 8),
        who=st.sampled_from(["d1", "d2"]),
        priority=st.sampled_from(CLASSES),
        emergency=st.sampled_from([0, 0, 0, 0, 1, 2, 3]),
        stages=st.sampled_from(ROUTES[:2]),
    )
    def check_in(
        self,
        patient: bytes,
        half_hour: int,
        number: int,
        who: str,
        priority: str,
        emergency: int,
        stages: tuple[w.Stage, ...],
    ) -> None:
        starts = START + half_hour * 30 * MINUTE
        self.run(
            w.CheckIn(
                self.command_id(), patient, "kiosk", -1, b"appointment" + bytes([number]) + patient[:4],
                patient, "0304", who, "2027-01-15", True, starts, starts + 30 * MINUTE,
                START + 240 * MINUTE, number, 0, "", priority, emergency, stages,
            )
        )  # fmt: skip

    @rule(
        half_hours=st.lists(st.integers(-2, 3), min_size=1, max_size=8),
        who=st.sampled_from(["d1", "d2"]),
        priority=st.sampled_from(CLASSES),
    )
    def several_check_in(self, half_hours: list[int], who: str, priority: str) -> None:
        for n, half_hour in enumerate(half_hours):
            waits = [p for p in PATIENTS if p not in self.room.by_patient]
            if waits:
                self.now += 20_000
                self.check_in(waits[0], half_hour, n + 1, who, priority if n == 2 else "", 0, ())

    @rule(
        room=st.sampled_from(["r1", "r1", "r2", "r3"]),
        works=st.lists(st.sampled_from("ccccsfpatr"), min_size=1, max_size=12),
    )
    def a_room_works(self, room: str, works: list[str]) -> None:
        """Call, start, finish, pass, send away, let time go by, return."""
        for work in works:
            self.now += 15_000
            place = self.room.rooms.get(room)
            inside = b"" if place is None else place.ticket_id
            match work:
                case "c":
                    self.run(w.CallNext(self.command_id(), room, "nurse"))
                case "s":
                    self.run(w.StartService(self.command_id(), inside, "nurse"))
                case "f":
                    self.run(w.FinishTicket(self.command_id(), inside, "nurse"))
                case "p":
                    self.run(w.PassTicket(self.command_id(), inside, "nurse"))
                case "a":
                    self.run(w.FinishTicket(self.command_id(), inside, "nurse", ROUTES[2]))
                case "t":
                    self.now += 120_000
                    self.run(w.PassTime())
                case "r":
                    self.come_back(0, "desk")

    @rule(
        half_hours=st.lists(st.integers(-2, 1), min_size=4, max_size=9),
        priority=st.sampled_from(CLASSES),
        works=st.lists(st.sampled_from("ccccfffpatr"), min_size=8, max_size=20),
    )
    def a_busy_hour(self, half_hours: list[int], priority: str, works: list[str]) -> None:
        for n, half_hour in enumerate(half_hours):
            self.several_check_in([half_hour], "d1" if n % 3 else "d2", priority if n % 2 else "")
            self.a_room_works("r1" if n % 2 else "r2", works[n::9])
        self.a_room_works("r1", works)

    @rule(
        patient=st.sampled_from(PATIENTS),
        queue=st.sampled_from(["common", "common", "own", "pharmacy"]),
        who=st.sampled_from(["", "", "d1", "d2"]),
        priority=st.sampled_from(CLASSES),
    )
    def walk_in(self, patient: bytes, queue: str, who: str, priority: str) -> None:
        self.run(
            w.TakeNumber(self.command_id(), patient, "desk", queue, practitioner_id=who, priority=priority)
        )

    @precondition(lambda self: len(self.journal) > 40)
    @rule(
        room=st.sampled_from(ROOMS),
        who=st.sampled_from(DOCTORS),
        queues=st.lists(st.sampled_from(QUEUES), min_size=1, max_size=3).map(tuple),
    )
    def open_room(self, room: str, who: str, queues: tuple[str, ...]) -> None:
        self.run(w.OpenRoom(self.command_id(), room, queues, who))

    @precondition(lambda self: len(self.journal) > 40)
    @rule(room=st.sampled_from(ROOMS), queues=st.lists(st.sampled_from(QUEUES), min_size=1).map(tuple))
    def open_room_again(self, room: str, queues: tuple[str, ...]) -> None:
        place = self.room.rooms.get(room)
        if place is not None:
            self.run(w.OpenRoom(self.command_id(), room, queues, place.practitioner_id))

    @precondition(lambda self: len(self.journal) > 40)
    @rule(room=st.sampled_from(ROOMS))
    def pause(self, room: str) -> None:
        self.run(w.PauseRoom(self.command_id(), room))

    @precondition(lambda self: len(self.journal) > 40)
    @rule(
        room=st.sampled_from(ROOMS),
        to=st.sampled_from(["", "", *QUEUES]),
        who=st.sampled_from(["", "d1", "d2"]),
        keeps=st.booleans(),
    )
    def close(self, room: str, to: str, who: str, keeps: bool) -> None:
        waited = {t for t, x in self.room.tickets.items() if x.status not in w.OVER}
        outcome = self.run(
            w.CloseRoom(self.command_id(), room, to_queue=to, to_practitioner=who, keeps=keeps)
        )
        assert waited == {t for t, x in self.room.tickets.items() if x.status not in w.OVER}
        if not isinstance(outcome, Refusal):
            assert not w.at_door(self.room, room)

    # Calling.

    @rule(room=st.sampled_from(ROOMS), racing=st.integers(1, 4))
    def call_next(self, room: str, racing: int) -> None:
        """Several consoles of one room at once: one wins."""
        place = self.room.rooms.get(room)
        version = 0 if place is None else place.version
        commands = [w.CallNext(self.command_id(), room, "nurse", version) for _ in range(racing)]
        lines = {x: self.line(x) for x in ([] if place is None else place.queues)}
        outcomes = [self.run(command) for command in commands]
        won = [events for events in outcomes if not isinstance(events, Refusal)]
        assert len(won) <= 1
        if not won:
            return
        called = won[0][-1]
        assert isinstance(called, w.TicketCalled)
        queue_id = self.room.tickets[called.ticket_id].queue_id
        before, after = lines[queue_id], self.line(queue_id)
        steady = not any(r.place.moved or r.band is not Band.LINE for r in (*before, *after))
        if len(won[0]) == 1 and steady and before[0].ticket_id == called.ticket_id:
            assert [r.ticket_id for r in before[1:]] == [r.ticket_id for r in after], (
                "a call shuffled the line"
            )

    @rule(room=st.sampled_from(ROOMS))
    def call_next_and_undo(self, room: str) -> None:
        lines = {x: [r.ticket_id for r in self.line(x)] for x in self.room.queues}
        outcome = self.run(w.CallNext(self.command_id(), room, "nurse"))
        if isinstance(outcome, Refusal) or len(outcome) > 1:
            return
        called = outcome[0]
        assert isinstance(called, w.TicketCalled)
        version = self.room.tickets[called.ticket_id].version
        undone = self.run(w.UndoStep(self.command_id(), called.ticket_id, version, "nurse", "wrong key"))
        assert not isinstance(undone, Refusal)
        assert lines == {x: [r.ticket_id for r in self.line(x)] for x in self.room.queues}

    @precondition(lambda self: self.any(*w.IN_LINE))
    @rule(room=st.sampled_from(ROOMS), which=st.integers(0, 20), reason=st.sampled_from(["", "asked"]))
    def call_ticket(self, room: str, which: int, reason: str) -> None:
        self.run(w.CallTicket(self.command_id(), room, self.some(which), "nurse", reason))

    def any(self, *among: Status) -> bool:
        return any(x.status in among for x in self.room.tickets.values())

    def some(self, which: int, *among: Status) -> bytes:
        known = [t for t, x in self.room.tickets.items() if x.status in among or not among]
        return known[which % len(known)] if known else b"nobody"

    @precondition(lambda self: self.any(Status.CALLED))
    @rule(which=st.integers(0, 20))
    def recall(self, which: int) -> None:
        self.run(w.Recall(self.command_id(), self.some(which, Status.CALLED), "nurse"))

    @precondition(lambda self: self.any(Status.CALLED))
    @rule(which=st.integers(0, 20))
    def start(self, which: int) -> None:
        self.run(w.StartService(self.command_id(), self.some(which, Status.CALLED), "nurse"))

    @precondition(lambda self: self.any(Status.CALLED))
    @rule(which=st.integers(0, 20))
    def pass_over(self, which: int) -> None:
        self.run(w.PassTicket(self.command_id(), self.some(which, Status.CALLED), "nurse"))

    @precondition(lambda self: self.any(*w.IN_ROOM))
    @rule(which=st.integers(0, 20), planned=st.booleans(), stages=st.sampled_from(ROUTES))
    def finish(self, which: int, planned: bool, stages: tuple[w.Stage, ...]) -> None:
        ticket_id = self.some(which, *w.IN_ROOM)
        self.run(w.FinishTicket(self.command_id(), ticket_id, "nurse", None if planned else stages))

    @precondition(lambda self: self.any(*w.IN_LINE, *w.IN_ROOM))
    @precondition(lambda self: len(self.journal) > 40)
    @rule(which=st.integers(0, 20), minutes=st.sampled_from([0, 5]))
    def park(self, which: int, minutes: int) -> None:
        until = self.now + minutes * MINUTE if minutes else 0
        self.run(w.ParkTicket(self.command_id(), self.some(which), "nurse", "paper", until))

    @precondition(lambda self: self.any(Status.PASSED, Status.AWAY, Status.PARKED))
    @rule(which=st.integers(0, 20), where=st.sampled_from(["kiosk", "desk", "mini_program"]))
    def come_back(self, which: int, where: str) -> None:
        ticket_id = self.some(which, Status.PASSED, Status.AWAY, Status.PARKED)
        self.run(w.ReturnTicket(self.command_id(), ticket_id, where, 100))

    @precondition(lambda self: self.any(*w.IN_LINE))
    @rule(which=st.integers(0, 20), queue=st.sampled_from(QUEUES), who=st.sampled_from(["", "d1", "d2"]))
    def transfer(self, which: int, queue: str, who: str) -> None:
        self.run(w.TransferTicket(self.command_id(), self.some(which), queue, "nurse", "busy", who))

    @precondition(lambda self: self.any(Status.WAITING))
    @rule(which=st.integers(0, 20), ahead=st.integers(0, 4))
    def move(self, which: int, ahead: int) -> None:
        ticket_id = self.some(which, Status.WAITING)
        outcome = self.run(w.MoveTicket(self.command_id(), ticket_id, ahead, "nurse", "faint"))
        if isinstance(outcome, Refusal):
            return
        line = self.line(self.room.tickets[ticket_id].queue_id)
        mine = next(r for r in line if r.ticket_id == ticket_id)
        among = [r for r in line if r.band is Band.LINE]
        if mine.band is Band.LINE:
            at, moved = among.index(mine), self.by_hand(among)
            assert min(ahead, len(among) - moved) <= at <= ahead + moved - 1

    def by_hand(self, line: list[Rank]) -> int:
        return sum(r.place.moved is not None for r in line)

    @precondition(lambda self: self.any(*w.IN_LINE))
    @rule(
        which=st.integers(0, 20),
        priority=st.sampled_from(CLASSES),
        emergency=st.sampled_from([0, 0, 1, 2, 3, 4, 5]),
    )
    def classify(self, which: int, priority: str, emergency: int) -> None:
        self.run(
            w.ClassifyTicket(self.command_id(), self.some(which), priority, emergency, "nurse", "vitals")
        )

    @precondition(lambda self: self.any(Status.WAITING))
    @rule(which=st.integers(0, 20), room=st.sampled_from(ROOMS))
    def send_to_door(self, which: int, room: str) -> None:
        self.run(w.SendToDoor(self.command_id(), self.some(which), room, "nurse", "wheelchair"))

    @rule()
    def fill_doors(self) -> None:
        while self.run(w.FillDoors()):
            pass

    @precondition(lambda self: self.any(*w.IN_LINE, Status.PASSED))
    @precondition(lambda self: len(self.journal) > 40)
    @rule(which=st.integers(0, 20))
    def leave(self, which: int) -> None:
        self.run(w.LeaveTicket(self.command_id(), self.some(which), "nurse", "went home"))

    @precondition(lambda self: self.any(*Status))
    @rule(which=st.integers(0, 20), stale=st.booleans())
    def undo(self, which: int, stale: bool) -> None:
        ticket = self.room.tickets.get(self.some(which))
        if ticket is None:
            return
        then, version = ticket.before, ticket.version - stale
        outcome = self.run(w.UndoStep(self.command_id(), ticket.ticket_id, version, "nurse", "mistake"))
        if isinstance(outcome, Refusal):
            assert not stale or outcome.reason == Reason.STALE_VERSION
        else:
            assert not stale and then is not None and ticket.standing == then[0]

    @precondition(lambda self: self.last)
    @rule()
    def a_lost_console_asks_again(self) -> None:
        assert self.last is not None
        command, told = self.last
        assert self.decide(command) == []
        assert w.reply_to(self.room, command) == told, "another answer than the first one"

    @rule()
    def a_screen_asks(self) -> None:
        news = w.calls_since(self.room, self.at_screen)
        assert not news.whole
        self.heard += [call.sequence for call in news.calls]
        self.at_screen = news.sequence
        assert self.heard == list(range(1, self.at_screen + 1)), "missed or shown twice"

    # What must hold at any time.

    def line(self, queue_id: str) -> list[Rank]:
        return w.line(self.room, queue_id, self.rule_book, max(self.now, self.room.at))

    @invariant()
    def replayed_is_live(self) -> None:
        assert w.replay(self.journal) == self.room

    @invariant()
    def everybody_is_in_one_place(self) -> None:
        numbers = [(t.prefix, t.number) for t in self.room.tickets.values()]
        assert len(numbers) == len(set(numbers)), "a number twice"
        issued = [event.ticket_id for event in self.journal if isinstance(event, w.TicketIssued)]
        assert issued == list(self.room.tickets), "lost"
        in_line = [t for queue in self.room.queues.values() for t in queue.line]
        in_room = [room.ticket_id for room in self.room.rooms.values() if room.ticket_id]
        found = Counter(in_line + in_room)
        for ticket_id, ticket in self.room.tickets.items():
            s = ticket.standing
            assert found[ticket_id] == (ticket.status in (*w.IN_LINE, *w.IN_ROOM))
            if ticket.status in w.IN_LINE:
                assert ticket_id in self.room.queues[ticket.queue_id].line
            if ticket.status in w.IN_ROOM:
                assert self.room.rooms[s.room_id].ticket_id == ticket_id
                assert self.room.rooms[s.room_id].status != w.CLOSED
            assert bool(s.room_id) == (ticket.status in (Status.DOOR, *w.IN_ROOM))
            assert bool(s.door) == (ticket.status is Status.DOOR)
            assert bool(s.stages) or ticket.status in w.OVER
            assert (ticket.status is Status.AWAY) == (bool(s.stages) and not s.stages[0][1]) or (
                ticket.status is Status.LEFT
            )
        active = Counter(t.patient_id for t in self.room.tickets.values() if t.status not in w.OVER)
        assert all(n == 1 for n in active.values())
        assert active.keys() == self.room.by_patient.keys()
        assert sum(sum(c.by_status.values()) for c in w.counters(self.room)) == len(self.room.tickets)

    @invariant()
    def the_order_is_a_function(self) -> None:
        chance = random.Random(4711)
        for queue_id, queue in self.room.queues.items():
            line = self.line(queue_id)
            places = [r.place for r in line]
            assert {p.ticket_id for p in places} == set(queue.line), "somebody is not in the order"
            chance.shuffle(places)
            now = max(self.now, self.room.at)
            again = q.rank(places, queue.turns, self.rule_book.order_of(queue.kind), now)
            assert [r.ticket_id for r in again] == [r.ticket_id for r in line]
            told = w.positions(self.room, queue_id, self.rule_book, self.now)
            assert [p.position for p in told] == list(range(1, len(line) + 1))
            for p in told:
                who = self.room.tickets[p.ticket_id].practitioner_id
                others = [self.room.tickets[x.ticket_id].practitioner_id for x in told[: p.position - 1]]
                assert p.ahead == sum(not who or other in ("", who) for other in others)

    @invariant()
    def every_place_is_explained(self) -> None:
        for queue_id in self.room.queues:
            line = self.line(queue_id)
            for n, a in enumerate(line):
                for b in line[n + 1 :]:
                    told = w.explain(self.room, b.ticket_id, a.ticket_id, self.rule_book, self.now)
                    assert told is not None and told.first == a.ticket_id
                    assert told == w.explain(self.room, a.ticket_id, b.ticket_id, self.rule_book, self.now)
                    assert self.is_true(told.why, a, b), f"{told} is not so: {a} {b}"

    def is_true(self, why: Why, a: Rank, b: Rank) -> bool:
        """Read from the facts, not from how the order was made."""
        one, other = self.room.tickets[a.ticket_id], self.room.tickets[b.ticket_id]
        x, y = one.standing, other.standing
        rules = self.order_of(one)
        first = rules.emergency_first
        came = (x.counts_from, one.sequence) < (y.counts_from, other.sequence)
        arrived = (one.arrived_at, x.counts_from, one.sequence) < (
            other.arrived_at,
            y.counts_from,
            other.sequence,
        )
        late = q.is_late(b.place, rules) and not y.returned
        match why:
            case Why.EMERGENCY:
                return 0 < x.emergency <= first and not 0 < y.emergency <= first
            case Why.EMERGENCY_LEVEL:
                return 0 < x.emergency < y.emergency <= first
            case Why.OVERTAKEN:
                return one.overtaken >= rules.overtaken_max > other.overtaken or y.moved is not None
            case Why.AT_DOOR:
                return x.status is Status.DOOR and (y.status is not Status.DOOR or x.door < y.door)
            case Why.MOVED:
                return x.moved is not None
            case Why.OTHER_MOVED:
                return y.moved is not None
            case Why.RESTS:
                return y.rests_until > self.now and y.passed and y.rests_until >= x.rests_until
            case Why.LANE_TURN | Why.LANES:
                special = x.priority or x.passed or x.returned or q.is_late(a.place, rules) or x.emergency
                return bool(special) or not one.starts_at
            case Why.LANE_WAITS:
                return (
                    bool(y.priority or y.passed or y.returned or late or y.emergency) or not other.starts_at
                )
            case Why.EARLIER_TIME:
                return 0 < one.starts_at < other.starts_at
            case Why.LOWER_NUMBER:
                return (one.booked_number or one.number) < (other.booked_number or other.number)
            case Why.CAME_EARLIER:
                return came or arrived
            case Why.CAME_BEFORE_TIME:
                return one.arrived_at <= other.starts_at
            case Why.TIME_BEFORE_CAME:
                return one.starts_at <= max(other.arrived_at, y.counts_from)
            case Why.EARLIER_END:
                return (x.passed or q.is_late(a.place, rules)) and self.ends(one) < self.ends_or_time(other)
            case Why.OTHER_LATE:
                return late and not q.is_late(a.place, rules) or late and x.returned
            case Why.OTHER_PASSED:
                return y.passed and not x.passed
            case Why.OTHER_RETURNED:
                return y.returned and not x.returned
            case Why.CALLED:
                return False

    def teardown(self) -> None:
        assert w.rehearse(self.journal, self.rule_book).differs == (), "decided otherwise than by the rules"

    def ends(self, ticket: w.Ticket) -> int:
        """Where somebody stands who is put at an end."""
        s, rules = ticket.standing, self.order_of(ticket)
        if s.passed:
            at_session = rules.passed is q.PassedRule.END_OF_SESSION
            at_window = max(ticket.window_ends_at, s.counts_from)
        else:
            at_session = rules.late is q.LateRule.END_OF_SESSION
            arrived = ticket.arrived_at if rules.by is q.Basis.CHECK_IN else 0
            at_window = max(ticket.window_ends_at, arrived)
        return (ticket.session_ends_at or q.FAR) if at_session else at_window

    def ends_or_time(self, ticket: w.Ticket) -> int:
        s = ticket.standing
        if s.passed or (not s.returned and q.is_late(w.place_of(self.room, ticket), self.order_of(ticket))):
            return self.ends(ticket)
        return max(ticket.starts_at, ticket.arrived_at, s.counts_from)


Day.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestDay = Day.TestCase
