"""The guards of the waiting room, in the order in which decide has them, and what each command does."""

import copy
from dataclasses import replace

import pytest

from engine.domain import waiting_room as w
from engine.domain.queue_order import Across, Interval, LeaveRule, OrderRules, PriorityClass, Rules, Why
from engine.domain.refusal import Reason, Refusal
from engine.domain.waiting_room import Status

EIGHT = 1_800_000_000_000
MINUTE = 60_000
NOW = EIGHT
CLOSES = EIGHT + 600 * MINUTE
RULES = Rules(
    order=OrderRules(classes=(PriorityClass("soldier", 1, Interval(0)),)),
    early_minutes=60,
    distance_m_max=300,
    calls_max=2,
    recall_gap_seconds=10,
    answer_seconds=60,
    passes_max=2,
)


def i(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def check_in(name: str, number: int = 1, starts: int = EIGHT, command: str = "", **more: object) -> w.CheckIn:
    told: dict[str, object] = {
        "command_id": i(command or f"in {name}"),
        "patient_id": i(name),
        "where": "mini_program",
        "distance_m": 100,
        "appointment_id": i(f"a {name}"),
        "booked_patient_id": i(name),
        "department_id": "0304",
        "practitioner_id": "D1",
        "day": "2027-01-15",
        "is_booked": True,
        "starts_at": starts,
        "window_ends_at": starts + 30 * MINUTE,
        "session_ends_at": EIGHT + 240 * MINUTE,
        "booked_number": number,
    }
    return w.CheckIn(**{**told, **more})  # type: ignore[arg-type]


def walk_in(name: str, queue: str = "common", **more: object) -> w.TakeNumber:
    told: dict[str, object] = {
        "command_id": i(f"in {name}"),
        "patient_id": i(name),
        "where": "kiosk",
        "queue_id": queue,
    }
    return w.TakeNumber(**{**told, **more})  # type: ignore[arg-type]


class Day:
    """A waiting room and the time, with the commands that most tests need."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.room, self.now, self.rules, self.n = w.WaitingRoom(), NOW, rules, 0
        self.events: list[w.Event] = []

    def id(self) -> bytes:
        self.n += 1
        return i(f"command {self.n}")

    def run(self, command: w.Command) -> list[w.Event] | Refusal:
        outcome = w.decide(self.room, command, self.now, self.rules)
        if not isinstance(outcome, Refusal):
            for event in outcome:
                w.apply(self.room, event)
                self.events.append(event)
        return outcome

    def refused(self, command: w.Command) -> Reason:
        before = copy.deepcopy(self.room)
        outcome = self.run(command)
        assert isinstance(outcome, Refusal), f"not refused: {outcome}"
        assert self.room == before
        return outcome.reason

    def told(self, command: w.Command) -> w.Told:
        outcome = self.run(command)
        assert not isinstance(outcome, Refusal), outcome
        return w.reply_to(self.room, command)

    def come(self, name: str, number: int = 1, starts: int = EIGHT, **more: object) -> bytes:
        return self.told(check_in(name, number, starts, **more)).ticket_id  # type: ignore[arg-type]

    def call(self, room: str = "r1", **more: object) -> w.Told:
        return self.told(w.CallNext(self.id(), room, "nurse", **more))  # type: ignore[arg-type]

    def finish(self, ticket: bytes, *stages: w.Stage) -> w.Told:
        return self.told(w.FinishTicket(self.id(), ticket, "doctor", stages or None))

    def status(self, ticket: bytes) -> Status:
        return self.room.tickets[ticket].status

    def line(self, queue: str) -> list[str]:
        return [
            self.room.tickets[p.ticket_id].patient_id.rstrip(b"\0").decode()
            for p in w.positions(self.room, queue, self.rules, self.now)
        ]


def opened(rules: Rules = RULES) -> Day:
    """D1 in r1 with her own queue and the common one, D2 in r2 with the common one, a pharmacy desk."""
    day = Day(rules)
    day.run(w.OpenDay(day.id(), "0304", "2027-01-15", CLOSES))
    for queue, kind, prefix, first, who in (
        ("own", "visit", "A", 101, "D1"),
        ("common", "visit", "B", 1, ""),
        ("triage", "triage", "T", 1, ""),
        ("pharmacy", "pharmacy", "P", 1, ""),
    ):
        day.run(w.SetQueue(day.id(), queue, kind, prefix, first, first + 49, who))
    day.run(w.OpenRoom(day.id(), "r1", ("own", "common"), "D1"))
    day.run(w.OpenRoom(day.id(), "r2", ("common",), "D2"))
    day.run(w.OpenRoom(day.id(), "desk", ("pharmacy",)))
    return day


@pytest.fixture
def day() -> Day:
    return opened()


# Check-in.


def test_guards_of_check_in(day: Day) -> None:
    assert Day().refused(check_in("ann")) == Reason.NO_SUCH_WAITING_ROOM
    day.come("known")
    day.come("waits", 2, practitioner_id="D2")
    for reason, command in (
        (Reason.KEY_REUSED, check_in("ann", command="in known")),
        (Reason.WRONG_DEPARTMENT, check_in("ann", department_id="0200", day="x")),
        (Reason.WRONG_DAY, check_in("ann", day="2027-01-16", booked_patient_id=i("bob"))),
        (Reason.WRONG_PATIENT, check_in("ann", booked_patient_id=i("bob"), is_booked=False)),
        (Reason.NOT_BOOKED, check_in("known", command="again", is_booked=False)),
        (Reason.ALREADY_CHECKED_IN, check_in("known", command="again", distance_m=-1)),
        (Reason.PLACE_UNKNOWN, check_in("ann", distance_m=-1, starts=EIGHT + 90 * MINUTE)),
        (Reason.TOO_FAR, check_in("ann", distance_m=301, starts=EIGHT + 90 * MINUTE)),
        (Reason.CHECK_IN_TOO_EARLY, check_in("ann", starts=EIGHT + 60 * MINUTE + 1, session_ends_at=1)),
        (Reason.CHECK_IN_TOO_LATE, check_in("ann", session_ends_at=NOW)),
        (Reason.PATIENT_WAITS_ALREADY, check_in("waits", appointment_id=i("other"), command="again")),
        (Reason.NO_SUCH_QUEUE, check_in("ann", queue_id="nowhere", priority="king")),
        (Reason.UNKNOWN_PRIORITY, check_in("ann", priority="king", stages=(("x", "nowhere", "", 0),))),
        (Reason.UNKNOWN_PRIORITY, check_in("ann", emergency=5)),
        (Reason.NO_SUCH_QUEUE, check_in("ann", stages=(("x", "nowhere", "", 0),))),
        (Reason.TOO_LARGE, check_in("ann", stages=(("x", "", "", 0),) * 17)),
    ):
        assert day.refused(command) == reason, command
    assert not isinstance(day.run(check_in("ann")), Refusal)


def test_a_retry_finds_its_first_answer_and_another_command_is_told_that_it_is_here(day: Day) -> None:
    first = day.told(check_in("ann", 7))
    assert first.label == "A007"
    assert day.run(check_in("ann", 7)) == []
    called = day.call()
    assert w.reply_to(day.room, check_in("ann", 7)) == first != called
    refused = day.run(check_in("ann", 7, command="other"))
    assert isinstance(refused, Refusal)
    assert refused.detail == {"ticket_id": first.ticket_id.hex(), "number": "A007"}


def test_too_late_but_the_desk_lets_him_in(day: Day) -> None:
    day.now = EIGHT + 240 * MINUTE
    assert day.refused(check_in("ann", where="kiosk")) == Reason.CHECK_IN_TOO_LATE
    assert not isinstance(day.run(check_in("ann", where="desk")), Refusal)


def test_a_kiosk_is_here_whatever_the_coordinates(day: Day) -> None:
    assert not isinstance(day.run(check_in("ann", where="kiosk", distance_m=-1)), Refusal)


def test_whose_queue(day: Day) -> None:
    mine, others = day.come("ann"), day.come("bob", 2, practitioner_id="D2")
    assert (day.room.tickets[mine].queue_id, day.room.tickets[mine].practitioner_id) == ("own", "")
    assert (day.room.tickets[others].queue_id, day.room.tickets[others].practitioner_id) == ("common", "D2")


def test_walk_in_numbers_are_the_queues_own_and_end(day: Day) -> None:
    labels = [day.told(walk_in(f"p{n}")).label for n in range(50)]
    assert labels == [f"B{n:03}" for n in range(1, 51)]
    assert day.refused(walk_in("one more")) == Reason.NUMBERS_EXHAUSTED


def test_a_booked_number_is_kept_unless_somebody_may_have_it(day: Day) -> None:
    assert day.told(check_in("ann", 7)).label == "A007"
    assert day.told(check_in("bob", 7)).label == "A101", "two practitioners booked the same number"
    assert day.told(check_in("cy", 103)).label == "A102", "of the range for walk-ins"
    assert day.told(walk_in("dan", "own")).label == "A103"
    assert day.told(check_in("eve", 3, practitioner_id="D2")).label == "B001"


def test_guards_of_queues(day: Day) -> None:
    assert day.refused(w.SetQueue(day.id(), "x", "visit", "A", 0, 5)) == Reason.TOO_LARGE
    assert day.refused(w.SetQueue(day.id(), "x", "visit", "A", 9, 8)) == Reason.TOO_LARGE
    assert day.refused(w.SetQueue(day.id(), "x", "visit", "A", 150, 160)) == Reason.NUMBERS_OVERLAP
    assert not isinstance(day.run(w.SetQueue(day.id(), "own", "visit", "A", 150, 160, "D1")), Refusal)
    assert day.told(walk_in("ann", "own")).label == "A150"


def test_the_day_is_opened_once(day: Day) -> None:
    assert day.run(w.OpenDay(day.id(), "0304", "2027-01-15", CLOSES)) == []
    assert day.refused(w.OpenDay(day.id(), "0304", "2027-01-16", CLOSES)) == Reason.WRONG_DAY


# Rooms.


def test_guards_of_rooms(day: Day) -> None:
    version = day.room.rooms["r1"].version
    assert day.refused(w.PauseRoom(day.id(), "r1", expected=version + 1)) == Reason.STALE_VERSION
    assert day.refused(w.OpenRoom(day.id(), "r3", ())) == Reason.NO_SUCH_QUEUE
    assert day.refused(w.OpenRoom(day.id(), "r3", ("nowhere",))) == Reason.NO_SUCH_QUEUE
    assert day.refused(w.OpenRoom(day.id(), "r1", ("own",), "D3")) == Reason.ROOM_IN_USE
    assert day.refused(w.OpenRoom(day.id(), "r3", ("own",), "D1")) == Reason.PRACTITIONER_ELSEWHERE
    assert day.refused(w.PauseRoom(day.id(), "r3")) == Reason.ROOM_NOT_OPEN
    day.told(w.PauseRoom(day.id(), "r1", "D1", "lunch", version))
    assert day.refused(w.PauseRoom(day.id(), "r1")) == Reason.ROOM_NOT_OPEN
    assert day.refused(w.CallNext(day.id(), "r1", "nurse")) == Reason.ROOM_NOT_OPEN
    day.told(w.OpenRoom(day.id(), "r1", ("own",), "D1"))
    day.told(w.CloseRoom(day.id(), "r1"))
    assert day.refused(w.CloseRoom(day.id(), "r1")) == Reason.ROOM_NOT_OPEN


def test_a_room_with_somebody_inside_is_not_closed(day: Day) -> None:
    ticket = day.come("ann")
    day.call()
    day.told(w.StartService(day.id(), ticket, "D1"))
    assert day.refused(w.CloseRoom(day.id(), "r1")) == Reason.ROOM_BUSY


def test_a_doctor_leaves_while_people_wait(day: Day) -> None:
    """D2's patients in the common queue are anybody's then; the order stays."""
    for n, name in enumerate(("ann", "bob", "cy"), 1):
        day.come(name, n, practitioner_id="D2" if name != "bob" else "", queue_id="common")
    assert day.refused(w.CallNext(day.id(), "r1", "nurse", expected=0)) == Reason.STALE_VERSION
    before = day.line("common")
    day.told(w.CloseRoom(day.id(), "r2", "D2", "ill"))
    assert day.line("common") == before == ["ann", "bob", "cy"]
    assert [day.call("r1").label for _ in range(1)] == ["B001"]
    assert all(t.practitioner_id == "" for t in day.room.tickets.values())


def test_nobody_else_serves_the_queue(day: Day) -> None:
    ticket = day.come("ann")
    refused = day.run(w.CloseRoom(day.id(), "r1"))
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.detail["waiting"]) == (Reason.PEOPLE_WAIT, 1)
    assert day.refused(w.CloseRoom(day.id(), "r1", to_queue="nowhere")) == Reason.NO_SUCH_QUEUE
    assert day.refused(w.CloseRoom(day.id(), "r1", to_practitioner="D9")) == Reason.PEOPLE_WAIT
    kept = copy.deepcopy(day)
    kept.told(w.CloseRoom(day.id(), "r1", keeps=True))
    assert kept.line("own") == ["ann"]
    day.told(w.CloseRoom(day.id(), "r1", to_queue="common", to_practitioner="D2"))
    assert day.room.tickets[ticket].practitioner_id == "D2"
    assert day.call("r2").ticket_id == ticket


def test_who_comes_after_the_doctor_has_left(day: Day) -> None:
    """Found by the simulated day: they waited for somebody who was not there any more."""
    ends = EIGHT + 240 * MINUTE
    day.told(w.CloseRoom(day.id(), "r2", "D2", "ill", until=ends))
    day.come("ann", 1, practitioner_id="D2")
    assert day.call("r1").patient_id == i("ann")
    day.rules = replace(day.rules, early_minutes=None)
    bob = day.come("bob", 2, ends, practitioner_id="D2", session_ends_at=CLOSES)
    assert day.room.tickets[bob].practitioner_id == "D2", "of another session"
    day.told(w.OpenRoom(day.id(), "r2", ("common",), "D2"))
    cy = day.come("cy", 3, practitioner_id="D2")
    assert day.room.tickets[cy].practitioner_id == "D2", "who is back"


def test_who_took_them_over_leaves_as_well(day: Day) -> None:
    day.told(w.OpenRoom(day.id(), "r3", ("common",), "D3"))
    day.told(w.CloseRoom(day.id(), "r2", to_practitioner="D3"))
    day.told(w.CloseRoom(day.id(), "r3", to_queue="own", to_practitioner="D1"))
    ann = day.come("ann", 1, practitioner_id="D2")
    assert day.room.tickets[ann].queue_id == "own"
    assert day.call("r1").ticket_id == ann


def test_by_rule_they_are_asked_for_or_kept() -> None:
    asks, keeps = opened(replace(RULES, leave=LeaveRule.ASK)), opened(replace(RULES, leave=LeaveRule.KEEP))
    for day in (asks, keeps):
        day.come("ann", 1, practitioner_id="D2")
    assert asks.refused(w.CloseRoom(asks.id(), "r2")) == Reason.PEOPLE_WAIT
    keeps.told(w.CloseRoom(keeps.id(), "r2"))
    assert [t.practitioner_id for t in keeps.room.tickets.values()] == ["D2"]


def test_whoever_was_called_to_a_room_that_closes_is_next(day: Day) -> None:
    day.come("ann", 1, practitioner_id="D2")
    day.come("bob", 2, practitioner_id="D2")
    day.told(w.MoveTicket(day.id(), day.room.by_patient[i("bob")], 0, "nurse", "faint"))
    assert day.call("r2").patient_id == i("bob")
    day.come("cy", 1, EIGHT - 30 * MINUTE, practitioner_id="D2")
    day.told(w.CloseRoom(day.id(), "r2"))
    assert day.line("common")[0] == "bob"
    assert [c.kind for c in day.room.calls] == ["called", "withdrawn"]


def test_who_is_away_comes_back_to_somebody_who_is_there(day: Day) -> None:
    ticket = day.come("ann", 1, practitioner_id="D2")
    day.call("r2")
    day.finish(ticket, ("examination", "", "", 0), ("visit", "common", "", 1))
    assert day.room.tickets[ticket].standing.stages[1][2] == "D2", "back to whoever sent him"
    day.told(w.CloseRoom(day.id(), "r2"))
    day.told(w.ReturnTicket(day.id(), ticket, "kiosk"))
    assert day.call("r1").ticket_id == ticket


# Calling.


def test_guards_of_call_next(day: Day) -> None:
    assert day.refused(w.CallNext(day.id(), "r9", "nurse")) == Reason.ROOM_NOT_OPEN
    assert day.refused(w.CallNext(day.id(), "r1", "nurse", expected=9)) == Reason.STALE_VERSION
    assert day.refused(w.CallNext(day.id(), "r1", "nurse")) == Reason.NOBODY_WAITS
    ann = day.come("ann")
    day.call()
    day.come("bob", 2)
    assert day.refused(w.CallNext(day.id(), "r1", "nurse")) == Reason.ROOM_BUSY
    day.told(w.StartService(day.id(), ann, "D1"))
    assert day.refused(w.CallNext(day.id(), "r1", "nurse", finishes=False)) == Reason.ROOM_BUSY
    assert day.call().patient_id == i("bob")
    assert day.status(ann) is Status.FINISHED


def test_one_winner_among_64_consoles(day: Day) -> None:
    """Of one room, who all saw the same version; and of 64 rooms, for one patient."""
    day.come("ann", queue_id="common", practitioner_id="")
    day.come("bob", 2, queue_id="common", practitioner_id="")
    version = day.room.rooms["r1"].version
    racing = [w.CallNext(i(f"race {n}"), "r1", "nurse", version) for n in range(64)]
    outcomes = [day.run(command) for command in racing]
    assert sum(not isinstance(o, Refusal) for o in outcomes) == 1
    assert {o.reason for o in outcomes if isinstance(o, Refusal)} == {Reason.STALE_VERSION}
    for n in range(64):
        day.told(w.OpenRoom(day.id(), f"x{n}", ("common",), f"X{n}"))
    outcomes = [day.run(w.CallNext(i(f"rooms {n}"), f"x{n}", "nurse")) for n in range(64)]
    assert [not isinstance(o, Refusal) for o in outcomes] == [True] + [False] * 63
    inside = [r.ticket_id for r in day.room.rooms.values() if r.ticket_id]
    assert len(inside) == len(set(inside)) == 2


def test_a_console_that_lost_its_network_gets_its_first_answer(day: Day) -> None:
    ann = day.come("ann")
    day.come("bob", 2)
    command = w.CallNext(i("call"), "r1", "nurse", day.room.rooms["r1"].version)
    first = day.told(command)
    day.finish(ann)
    assert day.run(command) == []
    assert w.reply_to(day.room, command) == first
    assert first.ticket_id == ann
    assert day.refused(w.CallNext(i("call"), "r2", "nurse")) == Reason.KEY_REUSED


def test_call_one_out_of_turn_needs_a_reason(day: Day) -> None:
    ann, bob = day.come("ann"), day.come("bob", 2)
    common = day.come("cy", 3, practitioner_id="D2")
    assert day.refused(w.CallTicket(day.id(), "r9", bob, "D1")) == Reason.ROOM_NOT_OPEN
    assert day.refused(w.CallTicket(day.id(), "r1", i("x"), "D1")) == Reason.NO_SUCH_TICKET
    assert day.refused(w.CallTicket(day.id(), "r1", bob, "D1", expected=2)) == Reason.STALE_VERSION
    assert day.refused(w.CallTicket(day.id(), "r2", bob, "D1", "x")) == Reason.NOT_SERVED_HERE
    assert day.refused(w.CallTicket(day.id(), "r1", bob, "D1")) == Reason.REASON_NEEDED
    day.told(w.CallTicket(day.id(), "r1", bob, "D1", "fainted"))
    assert day.refused(w.CallTicket(day.id(), "r2", bob, "D2", "x")) == Reason.WRONG_STATUS
    assert day.room.tickets[ann].overtaken == 0, "that was by hand"
    day.told(w.CallTicket(day.id(), "r2", common, "D2"))  # the next one anyway


def test_recalls_are_counted_and_apart(day: Day) -> None:
    ann = day.come("ann")
    day.call()
    assert day.refused(w.Recall(day.id(), ann, "nurse")) == Reason.TOO_SOON
    day.now += 10_000
    day.told(w.Recall(day.id(), ann, "nurse"))
    assert [c.kind for c in w.calls_since(day.room, 0).calls] == ["called", "recalled"]
    day.now += 10_000
    assert day.refused(w.Recall(day.id(), ann, "nurse")) == Reason.CALLS_MAX


def test_called_often_enough_he_is_passed_over_by_time(day: Day) -> None:
    ann = day.come("ann")
    day.come("bob", 2)
    day.call()
    assert w.next_wake(day.room, day.rules) is None
    day.now += 10_000
    day.told(w.Recall(day.id(), ann, "nurse"))
    assert w.next_wake(day.room, day.rules) == day.now + 60_000
    day.now += 60_000 - 1
    assert day.run(w.PassTime()) == []
    assert day.refused(w.CallNext(day.id(), "r1", "nurse")) == Reason.ROOM_BUSY
    day.now += 1
    by_sweeper = copy.deepcopy(day)
    assert [type(e) for e in by_sweeper.run(w.PassTime())] == [w.TicketPassed]  # type: ignore[union-attr]
    assert day.call().patient_id == i("bob"), "sweeper or not"
    assert day.status(ann) is by_sweeper.status(ann) is Status.PASSED


def test_passed_over_twice_only_the_desk_lets_him_in(day: Day) -> None:
    ann = day.come("ann")
    for where in ("kiosk", "desk"):
        day.call()
        day.told(w.PassTicket(day.id(), ann, "nurse"))
        if where == "desk":
            assert day.refused(w.ReturnTicket(day.id(), ann, "kiosk")) == Reason.PASSED_TOO_OFTEN
        assert day.refused(w.ReturnTicket(day.id(), ann, "mini_program", 999)) == Reason.TOO_FAR
        day.told(w.ReturnTicket(day.id(), ann, where))
    assert day.line("own") == ["ann"]
    assert day.refused(w.ReturnTicket(day.id(), ann, "desk")) == Reason.WRONG_STATUS
    assert day.refused(w.ReturnTicket(day.id(), i("x"), "desk")) == Reason.NO_SUCH_TICKET


def test_by_rule_he_waits_again_at_once() -> None:
    day = opened(replace(RULES, passed_must_report=False, passes_max=2))
    ann = day.come("ann")
    day.call()
    day.told(w.PassTicket(day.id(), ann, "nurse"))
    assert day.line("own") == ["ann"]
    day.call()
    day.told(w.PassTicket(day.id(), ann, "nurse"))
    assert day.status(ann) is Status.PASSED, "too often"


def test_a_room_calls_not_too_fast() -> None:
    day = opened(replace(RULES, call_gap_seconds=5))
    ann = day.come("ann")
    day.come("bob", 2)
    day.call()
    day.told(w.StartService(day.id(), ann, "D1"))
    assert day.refused(w.CallNext(day.id(), "r1", "D1")) == Reason.TOO_SOON
    day.now += 5_000
    day.call()


def test_several_queues_of_one_room() -> None:
    for across, first in ((Across.LONGEST, "bob"), (Across.LISTED, "ann")):
        day = opened(replace(RULES, across=across))
        day.come("bob", 1, EIGHT - 30 * MINUTE, queue_id="common", practitioner_id="")
        day.come("ann", 1, EIGHT, practitioner_id="D1")
        day.come("cy", 2, EIGHT, queue_id="common", practitioner_id="D2")
        assert day.call("r1").patient_id == i(first)
        assert day.call("r2").patient_id == i("cy" if first == "bob" else "bob")


def test_starvation_is_bounded(day: Day) -> None:
    """Soldiers go before everybody here; and yet he is overtaken by no more than the bound."""
    day.rules = replace(RULES, order=replace(RULES.order, overtaken_max=3))
    day.come("ann")
    called = []
    for n in range(6):
        day.now += MINUTE
        day.come(f"s{n}", 10 + n, priority="soldier")
        told = day.call()
        called.append(told.patient_id.rstrip(b"\0").decode())
        day.finish(told.ticket_id)
    assert called == ["s0", "s1", "s2", "ann", "s3", "s4"]


# What else may be done with a ticket.


def test_guards_of_tickets(day: Day) -> None:
    ann = day.come("ann")
    nobody = i("nobody")
    for command in (
        w.Recall(day.id(), nobody, "n"),
        w.StartService(day.id(), nobody, "n"),
        w.PassTicket(day.id(), nobody, "n"),
        w.ParkTicket(day.id(), nobody, "n", "x"),
        w.FinishTicket(day.id(), nobody, "n"),
        w.TransferTicket(day.id(), nobody, "common", "n", "x"),
        w.MoveTicket(day.id(), nobody, 0, "n", "x"),
        w.ClassifyTicket(day.id(), nobody, "", 0, "n", "x"),
        w.SendToDoor(day.id(), nobody, "r1", "n", "x"),
        w.LeaveTicket(day.id(), nobody, "n", "x"),
        w.UndoStep(day.id(), nobody, 1, "n", "x"),
    ):
        assert day.refused(command) == Reason.NO_SUCH_TICKET
        assert day.refused(replace(command, ticket_id=ann, expected=9)) == Reason.STALE_VERSION
    for command in (
        w.Recall(day.id(), ann, "n"),
        w.StartService(day.id(), ann, "n"),
        w.PassTicket(day.id(), ann, "n"),
        w.FinishTicket(day.id(), ann, "n"),
    ):
        assert day.refused(command) == Reason.WRONG_STATUS
    for reason, command in (
        (Reason.REASON_NEEDED, w.ParkTicket(day.id(), ann, "n", "")),
        (Reason.REASON_NEEDED, w.TransferTicket(day.id(), ann, "common", "n", "")),
        (Reason.REASON_NEEDED, w.MoveTicket(day.id(), ann, -1, "n", "")),
        (Reason.REASON_NEEDED, w.ClassifyTicket(day.id(), ann, "king", 0, "n", "")),
        (Reason.REASON_NEEDED, w.SendToDoor(day.id(), ann, "r9", "n", "")),
        (Reason.REASON_NEEDED, w.LeaveTicket(day.id(), ann, "n", "")),
        (Reason.IN_THE_PAST, w.ParkTicket(day.id(), ann, "n", "x", NOW)),
        (Reason.NO_SUCH_QUEUE, w.TransferTicket(day.id(), ann, "nowhere", "n", "x")),
        (Reason.TOO_LARGE, w.MoveTicket(day.id(), ann, -1, "n", "x")),
        (Reason.TOO_LARGE, w.MoveTicket(day.id(), ann, 1000, "n", "x")),
        (Reason.UNKNOWN_PRIORITY, w.ClassifyTicket(day.id(), ann, "king", 0, "n", "x")),
        (Reason.ROOM_NOT_OPEN, w.SendToDoor(day.id(), ann, "r9", "n", "x")),
        (Reason.NOT_SERVED_HERE, w.SendToDoor(day.id(), ann, "r2", "n", "x")),
        (Reason.STALE_VERSION, w.UndoStep(day.id(), ann, -1, "n", "x")),
        (Reason.NOTHING_TO_UNDO, w.UndoStep(day.id(), ann, 1, "n", "x")),
    ):
        assert day.refused(command) == reason, command


def test_a_journey_through_all_stages() -> None:
    day = opened(replace(RULES, triage_queue="triage"))
    day.run(w.OpenRoom(day.id(), "nurse", ("triage",)))
    ticket = day.come("ann", stages=(("pharmacy", "pharmacy", "", 0),))

    def stage() -> tuple[int, int, str]:
        found = w.position(day.room, ticket, day.rules, day.now)
        assert found is not None
        return found.stage, found.stages, found.queue_id

    assert stage() == (1, 3, "triage")
    day.call("nurse")
    day.told(w.StartService(day.id(), ticket, "nurse"))
    day.finish(ticket)
    assert stage() == (2, 3, "own")
    day.call("r1")
    day.finish(ticket, ("examination", "", "", 0), ("visit", "own", "", 1), ("pharmacy", "pharmacy", "", 0))
    assert (day.status(ticket), stage()) == (Status.AWAY, (3, 5, ""))
    day.told(w.ReturnTicket(day.id(), ticket, "kiosk"))
    assert day.room.tickets[ticket].standing.returned
    day.call("r1")
    day.finish(ticket)
    assert not day.room.tickets[ticket].standing.returned
    day.call("desk")
    day.finish(ticket)
    assert (day.status(ticket), stage()) == (Status.FINISHED, (5, 5, ""))
    done = [done.kind for done in day.room.tickets[ticket].standing.done]
    assert done == ["triage", "visit", "examination", "visit", "pharmacy"]
    assert day.told(walk_in("ann", command_id=i("again"))).label == "B001", "may come again"


def test_who_is_sent_elsewhere_for_good_is_finished(day: Day) -> None:
    ticket = day.come("ann")
    day.call()
    assert day.finish(ticket, ("examination", "", "", 0)).status == Status.FINISHED


def test_parked_and_back_by_time(day: Day) -> None:
    ticket = day.come("ann")
    day.come("bob", 2)
    day.call()
    day.told(w.ParkTicket(day.id(), ticket, "D1", "fetches a paper", NOW + MINUTE))
    assert day.call().patient_id == i("bob"), "the room is free"
    assert w.next_wake(day.room, day.rules) == NOW + MINUTE
    day.now += MINUTE
    day.run(w.PassTime())
    assert day.line("own") == ["ann"]


def test_transfer_keeps_the_arrival(day: Day) -> None:
    ann = day.come("ann", 2)
    day.come("bob", 1, EIGHT + 30 * MINUTE, practitioner_id="D2")
    day.told(w.TransferTicket(day.id(), ann, "common", "D1", "D2 knows more of this", "D2"))
    assert day.line("common") == ["ann", "bob"]
    assert day.room.tickets[ann].label == "A002", "keeps its number"


def test_triage_makes_an_emergency(day: Day) -> None:
    day.come("ann")
    bob = day.come("bob", 2)
    day.told(w.ClassifyTicket(day.id(), bob, "", 1, "nurse", "chest pain"))
    assert day.line("own") == ["bob", "ann"]


def test_doors() -> None:
    day = opened(replace(RULES, door_cap=2))
    for n, name in enumerate(("ann", "bob", "cy", "dan"), 1):
        day.come(name, n)
    while day.run(w.FillDoors()):
        pass
    assert [t.label for t in w.at_door(day.room, "r1")] == ["A001", "A002"]
    assert (
        day.refused(w.SendToDoor(day.id(), day.room.by_patient[i("cy")], "r1", "n", "x")) == Reason.DOOR_FULL
    )
    soldier = day.come("soldier", 5, priority="soldier")
    assert day.call().patient_id == i("ann"), "the door was a promise"
    emergency = day.come("emergency", 6, emergency=1)
    day.told(w.StartService(day.id(), day.room.by_patient[i("ann")], "D1"))
    assert day.call().ticket_id == emergency
    assert day.run(w.FillDoors()) == [
        w.TicketSentToDoor(b"", soldier, "r1", "priority:soldier", "", "", day.now)
    ]
    told = w.explain(day.room, day.room.by_patient[i("cy")], soldier, day.rules, day.now)
    assert told is not None
    assert (told.first, told.why) == (soldier, Why.AT_DOOR)


def test_undo(day: Day) -> None:
    ann = day.come("ann")
    bob = day.come("bob", 2)
    seen = day.call().version
    assert day.refused(w.UndoStep(day.id(), ann, seen - 1, "n", "x")) == Reason.STALE_VERSION
    assert day.refused(w.UndoStep(day.id(), ann, seen, "n", "")) == Reason.REASON_NEEDED
    day.told(w.UndoStep(day.id(), ann, seen, "n", "wrong key"))
    assert day.line("own") == ["ann", "bob"]
    assert (
        day.refused(w.UndoStep(day.id(), ann, day.room.tickets[ann].version, "n", "x"))
        == Reason.NOTHING_TO_UNDO
    )
    day.call()
    finished = day.finish(ann).version
    day.call()
    assert day.refused(w.UndoStep(day.id(), ann, finished, "n", "x")) == Reason.ROOM_BUSY
    day.finish(bob)
    day.told(w.UndoStep(day.id(), ann, finished, "n", "not finished"))
    assert day.room.rooms["r1"].ticket_id == ann


def test_undo_into_a_closed_room_or_a_second_place(day: Day) -> None:
    ann = day.come("ann")
    day.call()
    finished = day.finish(ann).version
    closed = copy.deepcopy(day)
    closed.told(w.CloseRoom(closed.id(), "r1"))
    assert closed.refused(w.UndoStep(closed.id(), ann, finished, "n", "x")) == Reason.ROOM_NOT_OPEN
    day.told(walk_in("ann", command_id=i("second")))
    assert day.refused(w.UndoStep(day.id(), ann, finished, "n", "x")) == Reason.PATIENT_WAITS_ALREADY


def test_the_alarm(day: Day) -> None:
    assert day.refused(w.SoundAlarm(day.id(), "r9", "D1")) == Reason.ROOM_NOT_OPEN
    day.told(w.SoundAlarm(day.id(), "r1", "D1", note="violent"))
    assert day.room.rooms["r1"].alarm_since == day.now
    day.told(w.SoundAlarm(day.id(), "r1", "guard", on=False))
    assert day.room.rooms["r1"].alarm_since == 0


# What the outside asks.


def test_positions_count_only_who_may_be_called_before(day: Day) -> None:
    for n, (name, who) in enumerate((("ann", "D2"), ("bob", ""), ("cy", "D3"), ("dan", "D2")), 1):
        day.come(name, n, queue_id="common", practitioner_id=who)
    told = w.positions(day.room, "common", day.rules, day.now)
    assert [(p.position, p.ahead) for p in told] == [(1, 0), (2, 1), (3, 1), (4, 2)]
    called = day.call("r2").ticket_id
    found = w.position(day.room, called, day.rules, day.now)
    assert found is not None
    assert (found.position, found.status, found.room_id) == (0, Status.CALLED, "r2")
    assert w.position(day.room, i("nobody"), day.rules, day.now) is None


def test_explain(day: Day) -> None:
    ann, bob = day.come("ann"), day.come("bob", 2)
    told = w.explain(day.room, bob, ann, day.rules, day.now)
    assert told is not None
    assert (told.first, told.why) == (ann, Why.LOWER_NUMBER)
    day.call()
    told = w.explain(day.room, bob, ann, day.rules, day.now)
    assert told is not None
    assert (told.first, told.why) == (ann, Why.CALLED)
    assert w.explain(day.room, bob, i("nobody"), day.rules, day.now) is None


def test_screens_miss_nothing(day: Day) -> None:
    ann = day.come("ann")
    assert w.calls_since(day.room, 0) == w.Calls(0, (), False)
    day.call()
    first = w.calls_since(day.room, 0)
    assert [(c.sequence, c.kind, c.label, c.room_id) for c in first.calls] == [(1, "called", "A001", "r1")]
    assert w.calls_since(day.room, first.sequence).calls == ()
    for _ in range(w.CALLS_KEPT // 2):
        day.told(w.UndoStep(day.id(), ann, day.room.tickets[ann].version, "n", "x"))
        day.call()
    late = w.calls_since(day.room, 0)
    assert (late.whole, late.sequence, [c.label for c in late.calls]) == (
        True, 1 + w.CALLS_KEPT, ["A001"]
    )  # fmt: skip
    assert len(w.calls_since(day.room, 1).calls) == w.CALLS_KEPT
    assert w.calls_since(day.room, late.sequence + 1).whole, "of another life"


def test_counters(day: Day) -> None:
    day.come("ann")
    day.come("bob", 2)
    day.call()
    told = {c.queue_id: c for c in w.counters(day.room)}
    assert told["own"].by_status == {Status.CALLED: 1, Status.WAITING: 1}
    assert (told["own"].waiting_since, told["own"].open_rooms, told["common"].open_rooms) == (EIGHT, 1, 2)


def test_clocks_that_differ(day: Day) -> None:
    """A machine whose clock is behind takes over: nothing happens before what has happened."""
    day.come("ann", queue_id="common", practitioner_id="")
    day.now -= 5 * MINUTE
    bob = day.told(walk_in("bob")).ticket_id
    assert day.room.tickets[bob].arrived_at == NOW
    assert w.replay(day.events) == day.room


def test_decide_changes_nothing_and_replay_is_the_state(day: Day) -> None:
    day.come("ann")
    day.call()
    assert w.replay(day.events) == day.room


def test_commands_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(w, "ROOM_COMMANDS_REMEMBERED", 3)
    day = opened()
    assert len(day.room.commands) == 3


def test_a_recorded_day_under_other_rules(day: Day) -> None:
    ann = day.come("ann", 1)
    soldier = day.come("soldier", 2, priority="soldier")
    assert day.call().ticket_id == soldier
    day.told(w.StartService(day.id(), soldier, "D1"))
    assert day.call().ticket_id == ann
    assert w.rehearse(day.events, day.rules) == w.Rehearsal(2, ())
    told = w.rehearse(day.events, replace(day.rules, order=replace(day.rules.order, classes=())))
    assert [(d.called, d.instead) for d in told.differs] == [(soldier, ann)]
    assert told.differs[0].why is not None
    assert (told.differs[0].why.first, told.differs[0].why.why) == (ann, Why.LOWER_NUMBER)


# What broken code would not have shown otherwise.


def test_who_is_at_one_door_is_not_called_by_another_room() -> None:
    day = opened(replace(RULES, door_cap=1))
    ann = day.come("ann", 1, practitioner_id="", queue_id="common")
    bob = day.come("bob", 2, practitioner_id="", queue_id="common")
    day.told(w.SendToDoor(day.id(), ann, "r2", "nurse", "wheelchair"))
    assert day.call("r1").ticket_id == bob
    assert day.call("r2").ticket_id == ann


def test_undo_gives_the_turn_back() -> None:
    classes = (PriorityClass("aged", 1, Interval(2)),)
    day = opened(replace(RULES, order=OrderRules(classes=classes)))
    for n, name in enumerate(("ann", "bob", "cy", "dan"), 1):
        day.come(name, n)
    day.come("old", 9, priority="aged")
    day.finish(day.call().ticket_id)
    assert day.line("own") == ["bob", "old", "cy", "dan"]
    called = day.call()
    assert day.line("own") == ["old", "cy", "dan"]
    day.told(w.UndoStep(day.id(), called.ticket_id, called.version, "nurse", "wrong key"))
    assert day.line("own") == ["bob", "old", "cy", "dan"]


def test_numbers_that_were_booked_before_the_range_was_changed_are_left_out(day: Day) -> None:
    assert day.told(check_in("ann", 7)).label == "A007"
    day.told(w.SetQueue(day.id(), "own", "visit", "A", 6, 20, "D1"))
    assert [day.told(walk_in(f"p{n}", "own")).label for n in range(3)] == ["A006", "A008", "A009"]


def overtaken_once(day: Day) -> tuple[bytes, w.Told]:
    """Ann was here first; a soldier went before her in r1."""
    ann = day.come("ann", 1, practitioner_id="", queue_id="common")
    day.now += MINUTE
    day.come("soldier", 2, practitioner_id="", queue_id="common", priority="soldier")
    soldier = day.call("r1")
    assert day.room.tickets[ann].overtaken == 1
    return ann, soldier


def test_overtaking_is_counted_anew_with_every_stage(day: Day) -> None:
    ann, _ = overtaken_once(day)
    day.call("r2")
    day.finish(ann, ("pharmacy", "pharmacy", "", 0))
    assert day.room.tickets[ann].overtaken == 0


def test_undo_takes_back_only_what_was_counted(day: Day) -> None:
    ann, soldier = overtaken_once(day)
    undone = copy.deepcopy(day)
    undo = w.UndoStep(day.id(), soldier.ticket_id, soldier.version, "nurse", "x")
    undone.told(undo)
    assert undone.room.tickets[ann].overtaken == 0
    day.call("r2")
    day.told(w.PassTicket(day.id(), ann, "nurse"))
    day.told(w.ReturnTicket(day.id(), ann, "kiosk"))
    day.told(undo)
    assert day.room.tickets[ann].overtaken == 0
