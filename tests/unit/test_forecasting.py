"""From a waiting room to forecasts, and back from a day that is over: the assembling, without any store."""

from collections.abc import Iterable
from dataclasses import replace
from math import inf, log

import pytest

from engine.domain import queue_order as q
from engine.domain import waiting_room as w
from engine.domain.calibration import UNCORRECTED, Calibration, Gathering
from engine.domain.queue_order import Across, OrderRules, Rules
from engine.domain.refusal import Refusal
from engine.domain.service_times import Level, LogNormal, Pause, ServiceModel
from engine.domain.waiting_terms import NoticeTerms
from engine.domain.waiting_time import Estimate, Room, Waiting, forecasts
from engine.views.forecasting import (
    FIRST,
    FOLLOW_UP,
    RETURN,
    SITTING_GAP_MS,
    Duty,
    Expected,
    Known,
    Told,
    arrive_by,
    chance_of_coming,
    light_of,
    shared,
    tell,
    visits_of,
    why_none,
)
from engine.views.foretold import EVERY_MS, relive
from engine.views.noticing import OVERDUE_MS, ahead_due, late_due, leave_home_due

MINUTE = 60_000
EIGHT = 1_800_000_000_000
TEN = Level(log(600), 1e-6, 1e-3)
TEN_MINUTES = ServiceModel(
    by_doctor={
        ("0304", who, kind): TEN for who in ("D0", "D1", "D2", "") for kind in (FIRST, FOLLOW_UP, RETURN)
    },
    pauses={None: Pause(0.0, LogNormal(0.0, 1e-4))},
    days_differ=1e-6,
)
"""Everybody takes ten minutes, and nothing is uncertain: sums can be reckoned by hand."""
RULES = Rules(order=OrderRules(), early_minutes=None)


def uid(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


class Day:
    def __init__(self, rules: Rules = RULES) -> None:
        self.room, self.rules, self.n, self.now = w.WaitingRoom(), rules, 0, EIGHT
        self.events: list[w.Event] = []
        self.run(w.OpenDay(self.id(), "0304", "2027-01-15", EIGHT + 600 * MINUTE))

    def id(self) -> bytes:
        self.n += 1
        return uid(f"c{self.n}")

    def run(self, command: w.Command) -> w.Told:
        outcome = w.decide(self.room, command, self.now, self.rules)
        assert not isinstance(outcome, Refusal), outcome
        for event in outcome:
            w.apply(self.room, event)
            self.events.append(event)
        return w.reply_to(self.room, command)

    def at(self, minutes: float) -> "Day":
        self.now = EIGHT + int(minutes * MINUTE)
        return self

    def queue(self, name: str, who: str = "", kind: str = "visit") -> None:
        first = 100 * (len(self.room.queues) + 1)
        self.run(w.SetQueue(self.id(), name, kind, name[:1].upper(), first, first + 99, who))

    def open(self, room: str, *queues: str, who: str = "") -> None:
        self.run(w.OpenRoom(self.id(), room, queues, who))

    def walk(self, name: str, queue: str, **more: object) -> bytes:
        return self.run(w.TakeNumber(self.id(), uid(name), "desk", queue, **more)).ticket_id  # type: ignore[arg-type]

    def come(self, one: Expected, where: str = "desk") -> bytes:
        return self.run(
            w.CheckIn(
                self.id(), one.patient_id, where, 10, one.appointment_id, one.patient_id, "0304",
                one.practitioner_id, "2027-01-15", True, one.starts_at, one.window_ends_at,
                one.session_ends_at, one.number, one.visit,
            )
        ).ticket_id  # fmt: skip

    def call(self, room: str = "r1") -> bytes:
        return self.run(w.CallNext(self.id(), room, "nurse")).ticket_id

    def finish(self, ticket: bytes, *stages: w.Stage) -> None:
        self.run(w.FinishTicket(self.id(), ticket, "doctor", stages or None))

    def tell(self, known: Known | None = None) -> Told:
        return tell(self.room, self.rules, self.now, known or Known(TEN_MINUTES))


def booked(name: str, starts: float, number: int = 1, who: str = "D1", **more: object) -> Expected:
    at = EIGHT + int(starts * MINUTE)
    told = Expected(uid("a" + name), uid(name), who, at, at + 30 * MINUTE, EIGHT + 240 * MINUTE, number)
    return replace(told, **more)  # type: ignore[arg-type]


def one_room() -> Day:
    day = Day()
    day.queue("own", "D1")
    day.open("r1", "own", who="D1")
    return day


def minutes(told: Told, ids: Iterable[bytes]) -> list[int]:
    """P50, rounded."""
    return [round(told.tickets[id_].estimate.p50_seconds / 60) for id_ in ids]


# One line.


def test_each_waits_for_what_is_left_of_the_turn_and_for_all_before_him() -> None:
    day = one_room()
    tickets = [day.walk(f"p{n}", "own") for n in range(4)]
    assert day.call() == tickets[0]
    told = day.at(4).tell()
    assert minutes(told, tickets[1:]) == [6, 16, 26]
    assert tickets[0] not in told.tickets and why_none(day.room, tickets[0]) == "called"
    assert [round(told.tickets[t].forecast.distance) for t in tickets[1:]] == [1, 2, 3]
    assert round(told.newcomers["own"].estimate.p50_seconds / 60) == 36


def test_an_idle_room_serves_at_once_and_a_called_one_is_busy_before_he_has_come_in() -> None:
    day = one_room()
    first, second = day.walk("p1", "own"), day.walk("p2", "own")
    assert minutes(day.tell(), [first, second]) == [0, 10]
    day.call()
    assert minutes(day.at(1).tell(), [second]) == [9]
    day.run(w.StartService(day.id(), first, "doctor"))
    assert minutes(day.at(2).tell(), [second]) == [8], "what counts is since when the room is taken"


def test_the_order_of_the_rules_is_the_order_of_the_forecasts() -> None:
    day = one_room()
    tickets = [day.walk(f"p{n}", "own") for n in range(3)]
    urgent = day.walk("urgent", "own", emergency=1)
    told = day.tell()
    assert minutes(told, [urgent, *tickets]) == [0, 10, 20, 30]


def test_without_a_room_nothing_is_told_and_the_reason_is() -> None:
    day = Day()
    day.queue("own", "D1")
    ticket = day.walk("p1", "own")
    assert day.tell().tickets == {} and why_none(day.room, ticket) == "no_room"
    day.open("r1", "own", who="D1")
    assert ticket in day.tell().tickets
    day.run(w.CloseRoom(day.id(), "r1", "doctor", keeps=True))
    assert day.tell().tickets == {} and why_none(day.room, ticket) == "no_room"
    day.run(w.LeaveTicket(day.id(), ticket, "desk", "went home"))
    assert why_none(day.room, ticket) == why_none(day.room, uid("nobody")) == "not_waiting"


def test_a_paused_room_is_a_pause_and_not_a_closed_one() -> None:
    day = one_room()
    first, second = day.walk("p1", "own"), day.walk("p2", "own")
    day.finish(day.call())
    day.run(w.PauseRoom(day.id(), "r1", "doctor"))
    pausing = replace(TEN_MINUTES, pauses={None: Pause(0.5, LogNormal(log(1200), 1e-4))})
    assert minutes(day.at(5).tell(Known(pausing)), [second]) == [15]
    assert first not in day.tell().tickets


def test_an_hour_without_anybody_is_no_pause_any_more() -> None:
    day = one_room()
    day.walk("p1", "own")
    day.finish(day.call())
    late = day.at(61).walk("p2", "own")
    pausing = replace(TEN_MINUTES, pauses={None: Pause(1.0, LogNormal(log(1200), 1e-4))})
    assert minutes(day.tell(Known(pausing)), [late]) == [0]


# Who is at work.


def test_who_opens_later_opens_by_the_plan_and_who_does_not_come_opens_nothing() -> None:
    day = Day()
    day.queue("own", "D1")
    ticket = day.walk("p1", "own")
    known = Known(TEN_MINUTES, UNCORRECTED, (), [Duty("D1", EIGHT + 30 * MINUTE, EIGHT + 240 * MINUTE)])
    assert minutes(day.tell(known), [ticket]) == [30]
    assert minutes(day.at(40).tell(known), [ticket]) == [0], "is ten minutes late: any moment now"
    assert day.at(61).tell(known).tickets == {}, "is half an hour late: who knows"
    assert day.tell(known).late == {"D1": 31 * 60}


def test_who_has_left_comes_back_with_the_next_session() -> None:
    day = one_room()
    afternoon = booked("p1", 300)
    duties = [Duty("D1", EIGHT, EIGHT + 240 * MINUTE), Duty("D1", EIGHT + 300 * MINUTE, EIGHT + 480 * MINUTE)]
    known = Known(TEN_MINUTES, UNCORRECTED, [afternoon], duties)
    day.at(230).run(w.CloseRoom(day.id(), "r1", "doctor", keeps=True))
    ticket = day.at(240).walk("p2", "own")
    assert minutes(day.tell(known), [ticket]) == [60]


def test_who_has_left_is_not_expected_back_in_the_same_session() -> None:
    day = one_room()
    duty = Known(TEN_MINUTES, UNCORRECTED, (), [Duty("D1", EIGHT, EIGHT + 240 * MINUTE)])
    ticket = day.at(5).walk("p1", "own")
    assert ticket in day.tell(duty).tickets
    day.at(10).run(w.CloseRoom(day.id(), "r1", "doctor", keeps=True))
    assert day.tell(duty).tickets == {} and day.tell(duty).late == {}


# Several rooms and queues.


def common() -> Day:
    """r1 sees D1's own patients and the common ones, r2 the common ones."""
    day = Day()
    day.queue("own", "D1")
    day.queue("common")
    day.open("r1", "own", "common", who="D1")
    day.open("r2", "common", who="D2")
    return day


def test_two_rooms_share_a_line_and_a_practitioners_own_wait_for_her() -> None:
    day = common()
    shared_ones = [day.walk(f"c{n}", "common") for n in range(4)]
    own = day.walk("mine", "own")
    day.call("r1")
    day.call("r2")
    told = day.at(2).tell()
    two = minutes(told, shared_ones[2:])
    assert two[0] <= 8 and two[1] <= 9, "both are called when the two that run are over"
    assert 16 <= minutes(told, [own])[0] <= 19, "she sees one of the common ones first"


def test_lines_are_merged_as_calls_merge_them() -> None:
    """Played to its end without chance, everybody is called when it was told."""
    for across in Across:
        day = Day(replace(RULES, across=across))
        day.queue("own", "D1")
        day.queue("common")
        day.open("r1", "common", "own", who="D1")
        tickets = []
        for n in range(3):
            tickets.append(day.at(2 * n).walk(f"o{n}", "own"))
            tickets.append(day.at(2 * n + 1).walk(f"c{n}", "common"))
        told = day.at(10).tell()
        foretold = sorted(tickets, key=lambda t: told.tickets[t].estimate.p50_seconds)
        called = []
        for _ in tickets:
            called.append(day.call("r1"))
            day.finish(called[-1])
        assert foretold == called, across


def test_who_is_sent_to_a_door_waits_for_that_room() -> None:
    day = common()
    shared_ones = [day.walk(f"c{n}", "common") for n in range(3)]
    day.call("r1")
    day.call("r2")
    before = day.at(5).tell().tickets[shared_ones[2]].forecast
    day.run(w.SendToDoor(day.id(), shared_ones[2], "r1", "nurse", "by hand"))
    at_door = day.tell().tickets[shared_ones[2]].forecast
    assert at_door.mu > before.mu, "one room is not as soon free as the first of two"


def test_queues_without_common_rooms_know_nothing_of_each_other() -> None:
    day = one_room()
    day.queue("pharmacy", kind="pharmacy")
    day.open("window", "pharmacy")
    ticket = day.walk("p1", "own")
    alone = day.tell().tickets[ticket]
    for n in range(5):
        day.walk(f"x{n}", "pharmacy")
    assert day.tell().tickets[ticket] == alone


# Who is not here yet.


def test_the_booked_count_by_their_chance_and_from_their_time() -> None:
    day = one_room()
    here = [day.walk(f"p{n}", "own") for n in range(3)]
    later = booked("late", 15, missed=0.0)
    told = day.tell(Known(TEN_MINUTES, UNCORRECTED, [later]))
    assert minutes(told, here) == [0, 10, 20], "before his time he is in nobody's way"
    sooner = booked("soon", 0, missed=0.5)
    told = day.tell(Known(TEN_MINUTES, UNCORRECTED, [sooner]))
    share = chance_of_coming(0.5, 0)
    assert minutes(told, here[2:]) == [round(20 + 10 * share)]


def test_the_booked_are_told_their_own_turn() -> None:
    day = one_room()
    for n in range(6):
        day.walk(f"p{n}", "own")
    day.call()
    soon, far = booked("soon", 10, 1), booked("far", 200, 2)
    told = day.tell(Known(TEN_MINUTES, UNCORRECTED, [soon, far]))
    assert 10 <= round(told.booked[soon.appointment_id].estimate.p50_seconds / 60) <= 60
    assert round(told.booked[far.appointment_id].estimate.p50_seconds / 60) == 200, "not before his time"
    ticket = day.at(5).come(soon)
    told = day.tell(Known(TEN_MINUTES, UNCORRECTED, [soon, far]))
    assert soon.appointment_id not in told.booked and ticket in told.tickets
    assert told.here == {soon.appointment_id}


def test_who_does_not_come_is_believed_in_less_and_less() -> None:
    chances = [chance_of_coming(0.2, seconds) for seconds in range(-7200, 7200, 600)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == pytest.approx(0.8, abs=1e-6) and chances[-1] < 0.001
    assert chance_of_coming(0.0, 600) == 1.0 and chance_of_coming(1.0, 0) == 0.0


def test_who_will_not_come_changes_nothing() -> None:
    """A line full of certain absences is told as if it were without them."""
    day = common()
    tickets = [day.walk(f"c{n}", "common") for n in range(6)] + [day.walk("mine", "own")]
    alone = day.tell()
    absent = [booked(f"x{n}", 0, n, missed=1.0) for n in range(30)]
    told = day.tell(Known(TEN_MINUTES, UNCORRECTED, absent))
    for ticket in tickets:
        assert told.tickets[ticket].forecast.mu == pytest.approx(alone.tickets[ticket].forecast.mu)


def test_who_is_not_here_keeps_nobody_of_another_line_waiting() -> None:
    """Found in the simulation: an absent one at the head of a line is junior, and the line with him."""
    day = Day()
    day.queue("own", "D1")
    day.queue("common")
    day.open("r1", "own", "common", who="D1")
    early = booked("e", 0, 1, missed=0.99)
    mine = day.at(1).come(booked("m", 0, 2))
    other = day.at(20).walk("c", "common")
    told = day.at(25).tell(Known(TEN_MINUTES, UNCORRECTED, [early]))
    assert minutes(told, [mine, other]) == [0, 10]


def test_before_somebody_booked_and_after_he_gave_it_up_he_is_not_expected() -> None:
    day = one_room()
    one = booked("p", 60, booked_at=EIGHT + 10 * MINUTE, given_up_at=EIGHT + 20 * MINUTE)
    known = Known(TEN_MINUTES, UNCORRECTED, [one])
    assert [one.appointment_id in day.at(m).tell(known).booked for m in (5, 10, 19, 20)] == [
        False,
        True,
        True,
        False,
    ]


# What was learned.


def test_turns_are_from_call_to_end_and_pauses_only_where_somebody_waited() -> None:
    day = one_room()
    first, second = day.walk("p1", "own"), day.walk("p2", "own", visit=1)
    day.call()
    day.at(1).run(w.StartService(day.id(), first, "doctor"))
    day.at(10).finish(first)
    day.at(12).call()
    day.at(20).finish(second)
    third = day.at(30).walk("p3", "own")
    day.call()
    day.at(35).finish(third)
    day.at(35 + SITTING_GAP_MS // MINUTE + 1)
    fourth = day.walk("p4", "own")
    day.call()
    day.at(110).finish(fourth)
    visits = visits_of(day.room)
    assert [v.kind for v in visits] == [FIRST, FOLLOW_UP, FIRST, FIRST]
    assert [v.service_seconds for v in visits][:3] == [600, 480, 300]
    assert [v.pause_seconds for v in visits] == [120, inf, inf, inf]
    assert [v.since_open_seconds for v in visits] == [0, 720, 1800, 0], "after an hour it is a new session"


def test_back_from_an_examination_is_another_kind_of_turn() -> None:
    day = one_room()
    day.queue("pharmacy", kind="pharmacy")
    day.open("window", "pharmacy")
    ticket = day.walk("p1", "own")
    day.call()
    day.at(5).finish(
        ticket, ("examination", "", "", 0), ("visit", "own", "", 1), ("pharmacy", "pharmacy", "", 0)
    )
    day.at(40).run(w.ReturnTicket(day.id(), ticket, "kiosk"))
    day.at(41).call()
    day.at(44).finish(ticket)
    day.at(45).call("window")
    day.at(46).finish(ticket)
    assert [(v.kind, v.service_seconds) for v in visits_of(day.room)] == [
        (FIRST, 300), (RETURN, 180), ("pharmacy", 60),
    ]  # fmt: skip


def test_the_pace_of_the_day_is_seen_in_the_forecasts() -> None:
    model = ServiceModel(everywhere=Level(log(600), 1e-6, 0.05), days_differ=0.05)
    slow, quick = one_room(), one_room()
    for day, minutes_each in ((slow, 20), (quick, 5)):
        for n in range(6):
            day.walk(f"p{n}", "own")
        for n in range(4):
            ticket = day.at(n * minutes_each).call()
            day.at((n + 1) * minutes_each).finish(ticket)
        day.at(4 * minutes_each).call()
    left = [day.tell(Known(model)).newcomers["own"].estimate.p50_seconds for day in (slow, quick)]
    assert left[0] > 1.3 * left[1]


def test_a_department_is_corrected_by_its_own_past_beside_a_little_of_the_hospitals() -> None:
    high, low = Gathering(), Gathering()
    for _ in range(50_000):
        high.add(1, 2.0)
    for _ in range(3_000):
        low.add(1, -2.0)
    hospital, own = high.calibration(), low.calibration()
    assert shared(hospital, Calibration()).at(1)[1] == pytest.approx(2.0, abs=0.1)
    assert shared(hospital, own).at(1)[1] == pytest.approx(-2.0, abs=0.1), "it has seen enough itself"
    assert shared(Calibration(), Calibration()) == UNCORRECTED


# A day again.


def played() -> Day:
    """Everybody takes ten minutes, to the second."""
    day = one_room()
    tickets = [day.at(n).walk(f"p{n}", "own") for n in range(6)]
    for n, ticket in enumerate(tickets):
        assert day.at(10 + 10 * n).call() == ticket
        day.at(20 + 10 * n)
        if n == 3:
            day.run(w.LeaveTicket(day.id(), tickets[5], "desk", "went home"))
            tickets.pop()
        day.finish(ticket)
    return day


def test_a_day_again_tells_what_was_told_and_judges_it_by_the_calls() -> None:
    day = played()
    lived = relive(day.events, RULES, Known(TEN_MINUTES))
    assert lived.visits == visits_of(day.room)
    assert lived.told == sum(score.n for score in lived.scores.values()) > 20
    later = [score for distance, score in lived.scores.items() if distance >= 2]
    for score in later:
        assert score.mean_absolute_error_seconds is not None
        assert score.mean_absolute_error_seconds < 60


def test_what_comes_later_changes_nothing_that_was_told_before() -> None:
    """Another future after a moment: all that was told until then is the same."""
    told: list[list[tuple[int, dict[bytes, object]]]] = []
    for future in ("calm", "storm"):
        day = one_room()
        known = Known(TEN_MINUTES, UNCORRECTED, [booked("b", 60, missed=0.2)])
        tickets = [day.at(n).walk(f"p{n}", "own") for n in range(4)]
        day.at(10).call()
        heard = [(m, dict(day.at(m).tell(known).tickets)) for m in (10, 12, 15)]
        if future == "storm":
            for n in range(9):
                day.at(16).walk(f"s{n}", "own", emergency=1)
        else:
            day.at(16).run(w.LeaveTicket(day.id(), tickets[3], "desk", "went home"))
        replayed = w.WaitingRoom()
        again = []
        for event in day.events:
            w.apply(replayed, event)
        for m, _ in heard:
            before = w.WaitingRoom()
            for event in day.events:
                if event.at <= EIGHT + m * MINUTE:
                    w.apply(before, event)
            again.append((m, dict(tell(before, RULES, EIGHT + m * MINUTE, known).tickets)))
        assert again == heard
        told.append(heard)
    assert told[0] == told[1]


def test_a_room_that_is_left_open_over_night_tells_nobody_anything() -> None:
    day = one_room()
    day.walk("p1", "own")
    before = len(relive(day.events, RULES, Known(TEN_MINUTES)).scores)
    day.at(24 * 60)
    ticket = day.walk("p2", "own")
    day.call()
    lived = relive(day.events, RULES, Known(TEN_MINUTES))
    assert before == 0 and lived.told == 0 and ticket
    assert EVERY_MS == 300_000


# Notices.

TERMS = NoticeTerms(ahead=(5, 2), leave_home=True, late_minutes=30)


def test_so_many_people_ahead_is_told_once_a_number_and_the_least_that_fits() -> None:
    day = one_room()
    tickets = [day.walk(f"p{n}", "own") for n in range(8)]
    due = {(one.subject, one.step) for one in ahead_due(day.room, RULES, TERMS, day.now, ())}
    assert due == {(t, "1/2") for t in tickets[:3]} | {(t, "1/5") for t in tickets[3:6]}
    told = {one.key for one in ahead_due(day.room, RULES, TERMS, day.now, ())}
    day.call()
    again = {(one.subject, one.step) for one in ahead_due(day.room, RULES, TERMS, day.now, told)}
    assert again == {(tickets[3], "1/2"), (tickets[6], "1/5")}
    day.run(w.MoveTicket(day.id(), tickets[1], 4, "nurse", "asked for it"))
    later = {one.subject for one in ahead_due(day.room, RULES, TERMS, day.now, told)}
    assert tickets[1] not in later, "five ahead is no news to who was told two"


def test_it_is_time_to_leave_home_by_p10_or_by_the_appointed_time() -> None:
    day = one_room()
    one = booked("p", 60, way_minutes=25)
    known = Known(TEN_MINUTES, UNCORRECTED, [one])

    def due(at: float) -> list[dict[str, object]]:
        told = day.at(at).tell(known)
        return [n.data for n in leave_home_due([one], told, RULES.order, TERMS, 30, 10)]

    assert due(24) == []
    assert due(25)[0]["way_minutes"] == 25 and due(25)[0]["assumed"] is False
    unsaid = replace(one, way_minutes=None)
    told = day.at(20).tell(Known(TEN_MINUTES, UNCORRECTED, [unsaid]))
    [notice] = leave_home_due([unsaid], told, RULES.order, TERMS, 30, 10)
    assert notice.data["assumed"] is True and notice.key == (unsaid.appointment_id, "leave_home", "")
    day.at(40).come(one)
    assert due(41) == [], "is here"
    missing = booked("m", 60)
    told = day.at(60 + OVERDUE_MS // MINUTE).tell(Known(TEN_MINUTES, UNCORRECTED, [missing]))
    assert not list(leave_home_due([missing], told, RULES.order, TERMS, 30, 10)), "it is too late for that"


def test_where_the_turn_comes_later_one_may_leave_later_but_never_lose_the_place() -> None:
    nine = EIGHT + 60 * MINUTE
    margin = 10 * MINUTE
    rules = OrderRules(late_minutes=30)
    assert arrive_by(nine, None, rules, margin) == nine - margin
    assert arrive_by(nine, nine - 20 * MINUTE, rules, margin) == nine - margin
    assert arrive_by(nine, nine + 15 * MINUTE, rules, margin) == nine + 5 * MINUTE
    assert arrive_by(nine, nine + 90 * MINUTE, rules, margin) == nine + 20 * MINUTE
    relaxed = replace(rules, late=q.LateRule.NORMAL)
    assert arrive_by(nine, nine + 90 * MINUTE, relaxed, margin) == nine + 80 * MINUTE


def test_a_late_doctor_is_told_of_once_a_step_to_those_who_are_not_here() -> None:
    day = one_room()
    day.come(booked("here", 0, 1))
    day.come(booked("next", 30, 4))
    coming, others = booked("coming", 90, 2), booked("other", 90, 3, who="D2")
    known = Known(TEN_MINUTES, UNCORRECTED, [coming, others])

    def due(at: float, told: set[tuple[bytes, str, str]]) -> list[tuple[bytes, str, str]]:
        now = day.at(at).tell(known)
        return [one.key for one in late_due(known.expected, now, TERMS, told)]

    assert due(59, set()) == [], "his half hour was over 29 minutes ago"
    first = due(60, set())
    assert first == [(coming.appointment_id, "late", "30")]
    assert due(89, set(first)) == []
    second = due(90, set(first))
    assert second == [(coming.appointment_id, "late", "60")]
    day.at(91).finish(day.call())
    assert due(93, set(second)) == [], "33 minutes is no news to who was told an hour"
    assert not list(late_due(known.expected, day.tell(known), NoticeTerms(late_minutes=0), ()))


def test_traffic_lights() -> None:
    assert light_of(Estimate(60, 600, 1800)) == "green"
    assert light_of(Estimate(60, 600, 1801)) == "yellow"
    assert light_of(Estimate(60, 3600, 9000)) == "yellow"
    assert light_of(Estimate(60, 3601, 9000)) == "red"


# What was added to the domain for this: people whom only some rooms serve, and people by a chance.


def test_a_person_of_some_rooms_goes_to_the_first_of_those() -> None:
    rooms = [Room("0304", f"D{n}", 100, FIRST, 60.0 * n) for n in range(3)]
    two, all_of_them = forecasts(TEN_MINUTES, rooms, [Waiting(FIRST, rooms=(0, 1)), Waiting(FIRST)])
    assert two is not None and all_of_them is not None
    assert two.mu > all_of_them.mu, "the third room is free first"
    assert forecasts(TEN_MINUTES, rooms, [Waiting(FIRST, rooms=())]) == [None]


def test_people_of_no_chance_are_in_nobodys_way() -> None:
    """Each of them used to push the rooms apart."""
    rooms = [Room("0304", f"D{n}", 100, FIRST, 15.0 * n) for n in range(3)]
    alone = forecasts(TEN_MINUTES, rooms, [Waiting(FIRST, f"D{n}") for n in range(3)])
    ghosts = [Waiting(FIRST, chance=0.0)] * 40
    after = forecasts(TEN_MINUTES, rooms, [*ghosts, *(Waiting(FIRST, f"D{n}") for n in range(3))])
    assert after[40:] == alone
