"""A day that changes: guards and refusals of what desks, doctors and those who wait may ask for."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from engine.domain import schedule as s
from engine.domain import waitlist
from engine.domain.planning import PlannedSlot, Session, Share, Stage
from engine.domain.policy import Attendance, Channel, Policy, Return, Returned, Terms, Waitlist
from engine.domain.refusal import Reason, Refusal

NOW = 1_000_000_000
HALF = 1_800_000
HOUR = 2 * HALF
AT = {"0800": NOW + 4 * HOUR, "0830": NOW + 4 * HOUR + HALF, "0900": NOW + 5 * HOUR, "1000": NOW + 6 * HOUR}
WINDOW = int(Channel.WINDOW)


def i(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


PLAN = (
    Session(
        "morning", "0304", "expert", "r1", 5000,
        tuple(PlannedSlot(clock, AT[clock], 2) for clock in ("0800", "0830", "0900", "1000")),
    ),
    Session("night", "0304", "expert", "r1", 5000, (PlannedSlot("1900", NOW + 15 * HOUR, 1),)),
)  # fmt: skip
ACCOUNT = i("account")


class Day:
    def __init__(self, plan: Any = PLAN, **terms: Any) -> None:
        self.state = s.replay([s.ScheduleOpened(plan)])
        self.policy = Policy(terms={("", ""): Terms(**terms)})
        self.revisions = 0

    def ask(self, command: s.Command, now: int = NOW, chance: int = 1) -> list[s.Event] | Refusal:
        before = copy.deepcopy(self.state)
        outcome = s.decide(self.state, command, now, self.policy, chance)
        assert self.state == before
        for event in outcome if not isinstance(outcome, Refusal) else ():
            s.apply(self.state, event)
        assert s.conservation_error(self.state) == 0
        return outcome

    def hold(self, name: str, clock: str = "0800", now: int = NOW, **more: Any) -> list[s.Event] | Refusal:
        return self.ask(s.HoldSeat(i(name), clock, i(name), ACCOUNT, 60, **more), now)

    def book(self, name: str, clock: str = "0800", now: int = NOW) -> None:
        assert not isinstance(self.hold(name, clock, now), Refusal)
        assert not isinstance(self.ask(s.ConfirmAppointment(i(name), ACCOUNT), now), Refusal)

    def cancel(self, name: str, now: int = NOW, by: str = "", chance: int = 1) -> list[s.Event] | Refusal:
        return self.ask(s.CancelAppointment(i(name), ACCOUNT, by), now, chance)

    def revise(self, kind: Any, *told: Any, now: int = NOW, expected: int = -1) -> list[s.Event] | Refusal:
        self.revisions += 1
        return self.ask(kind(i(f"r{self.revisions}"), expected, "staff:1", "why", *told), now)

    def join(self, name: str, *patients: str, clocks: Any = (), now: int = NOW, **more: Any) -> Any:
        people = tuple(i(patient) for patient in patients or (name,))
        told = {"priority": 0, "since": now, "until": NOW + 9 * HOUR, "seed": i(name)} | more
        return self.ask(s.JoinWaitlist(i(name), ACCOUNT, people, clocks, **told), now)

    def offer(self, now: int = NOW) -> list[tuple[bytes, str]]:
        outcome = self.ask(s.OfferSeats(), now)
        assert not isinstance(outcome, Refusal)
        return [(e.patient_id, e.clock) for e in outcome if isinstance(e, s.SeatHeld)]

    def fate(self, name: str) -> tuple[str, s.Status]:
        a = self.state.appointments[i(name)]
        return a.fate, a.status


def reason(outcome: Any) -> Reason | None:
    return outcome.reason if isinstance(outcome, Refusal) else None


def full(**terms: Any) -> Day:
    """Every seat of 0800 is booked."""
    day = Day(**terms)
    day.book("x1")
    day.book("x2")
    return day


# Holding.


def test_before_its_opening_a_slot_is_not_released_and_says_when() -> None:
    shares = (Share("", (Stage(NOW + HOUR, 255),)),)
    slots = (PlannedSlot("0800", AT["0800"], 1, ((0, 1),)),)
    day = Day((replace(PLAN[0], slots=slots, shares=shares),))
    assert day.hold("ann") == Refusal(Reason.NOT_RELEASED, {"opens_at": NOW + HOUR})
    assert reason(day.hold("ann", now=NOW + HOUR)) is None


@pytest.mark.parametrize(
    ("now", "channel", "expected"),
    [
        (AT["0800"] - 10 * 60_000 - 1, 1, None),
        (AT["0800"] - 10 * 60_000, 1, Reason.BOOKING_CLOSED),
        (AT["0800"] - 10 * 60_000, WINDOW, None),  # the desk may
        (AT["0800"], 1, Reason.SLOT_PAST),
        (AT["0800"] + HALF - 1, WINDOW, None),  # who comes late and finds a seat
        (AT["0800"] + HALF, WINDOW, Reason.SLOT_PAST),
    ],
)
def test_booking_closes_by_oneself_before_it_does_at_the_desk(
    now: int, channel: int, expected: Reason | None
) -> None:
    assert reason(Day(closes_minutes=10).hold("ann", now=now, channel=channel)) is expected


def test_a_limit_of_first_visits_counts_no_hold_that_has_ended() -> None:
    day = Day(first_visits_max=1)
    day.hold("ann")
    assert day.hold("bob", "0830") == Refusal(Reason.VISIT_LIMIT, {"limit": 1})
    assert reason(day.hold("bob", "0830", visit=1)) is None
    assert reason(day.hold("cy", "0830", now=NOW + 60_000)) is None
    assert reason(day.hold("dan", "1900")) is None, "another session"


def test_confirming_again_after_the_visit_finds_the_first_answer() -> None:
    day = Day()
    day.book("ann")
    day.ask(s.RecordAttendance(i("ann"), s.Status.ARRIVED, "staff:1"))
    assert day.ask(s.ConfirmAppointment(i("ann"), ACCOUNT)) == []
    day.ask(s.RecordAttendance(i("ann"), s.Status.FULFILLED, "staff:1"))
    assert reason(day.cancel("ann")) is Reason.WRONG_STATE


def test_cut_offs_hold_for_the_patient_and_not_for_the_desk_or_a_changed_session() -> None:
    last = AT["0800"] - 60 * 60_000
    day = full(cancel_minutes=60)
    assert day.cancel("x1", last) == Refusal(Reason.CANCEL_TOO_LATE, {"until": last})
    assert reason(day.cancel("x1", last - 1)) is None
    assert reason(day.cancel("x2", last, by="staff:1")) is None
    excused = full(cancel_minutes=60)
    excused.revise(s.SubstituteSession, "morning", "D0002")
    assert reason(excused.cancel("x1", last)) is None


# Returned numbers.


def test_a_returned_number_cools_to_the_millisecond() -> None:
    day = full(returned=Returned(Return.COOL_DOWN, 60))
    day.cancel("x1")
    assert reason(day.hold("ann", now=NOW + 59_999)) is Reason.SLOT_FULL
    assert [type(e) for e in day.hold("ann", now=NOW + 60_000) or ()] == [s.CoolingEnded, s.SeatHeld]


@pytest.mark.parametrize("chance", [0, 1, 2**64 - 1])
def test_a_random_return_lies_in_its_window_and_hangs_on_chance_alone(chance: int) -> None:
    ends = set()
    for _ in range(2):
        day = full(returned=Returned(Return.RANDOM, 60, 120))
        [released] = day.cancel("x1", chance=chance) or ()
        assert isinstance(released, s.SeatReleased)
        ends.add(released.cooling_until)
        assert NOW + 60_000 <= released.cooling_until < NOW + 120_000
        assert reason(day.hold("ann", now=released.cooling_until - 1)) is Reason.SLOT_FULL
        assert reason(day.hold("ann", now=released.cooling_until)) is None
    assert len(ends) == 1


def test_another_chance_draws_another_moment() -> None:
    drawn = set()
    for chance in range(8):
        day = full(returned=Returned(Return.RANDOM, 0, 10_000))
        [released] = day.cancel("x1", chance=chance) or ()
        assert isinstance(released, s.SeatReleased)
        drawn.add(released.cooling_until)
    assert len(drawn) == 8


def test_who_waits_does_not_wait_for_a_seat_to_cool() -> None:
    day = full(returned=Returned(Return.COOL_DOWN, 60))
    day.join("ann", clocks=("0800",))
    day.cancel("x1")
    assert reason(day.hold("bob")) is Reason.SLOT_FULL
    assert day.offer() == [(i("ann"), "0800")]


# Groups.


def group(*names: str) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((i(name), i(name)) for name in names)


def clocks(outcome: Any) -> list[str]:
    return [e.clock for e in outcome if isinstance(e, s.SeatHeld)]


def test_a_group_sits_together_around_what_it_wished_for() -> None:
    day = Day()
    day.book("x1", "0830")
    assert clocks(day.ask(s.HoldGroup(group("a", "b", "c"), "0830", ACCOUNT))) == ["0800", "0800", "0830"]


def test_a_gap_is_no_neighbour() -> None:
    day = Day()
    day.book("x1", "1000")
    outcome = day.ask(s.HoldGroup(group("a", "b"), "1000", ACCOUNT))
    assert outcome == Refusal(Reason.GROUP_DOES_NOT_FIT)


@pytest.mark.parametrize("members", [(), group("a", "a"), group(*"abcdefg")])
def test_a_group_is_of_some_people_and_not_too_many(members: Any) -> None:
    assert reason(Day().ask(s.HoldGroup(members, "0800", ACCOUNT))) is Reason.TOO_LARGE


def test_a_hold_that_has_ended_is_in_no_groups_way() -> None:
    day = full()
    day.hold("a", "0830")
    day.hold("b", "0830")
    late = NOW + 60_000
    members = tuple((i("new " + name), i(name)) for name in ("c", "a"))
    assert clocks(day.ask(s.HoldGroup(members, "0830", ACCOUNT), late)) == ["0830", "0830"]
    again = tuple((i("newer " + name), i(name)) for name in ("c", "a"))
    assert reason(day.ask(s.HoldGroup(again, "0830", ACCOUNT), late)) is Reason.ALREADY_BOOKED


# The day itself.


def test_two_desks_that_looked_at_one_revision() -> None:
    day = Day()
    assert not isinstance(day.revise(s.AddSeats, "0800", 1, 0, expected=0), Refusal)
    stale = day.revise(s.AddSeats, "0800", 1, 0, expected=0)
    assert stale == Refusal(Reason.STALE_REVISION, {"revision": 1, "by": "staff:1"})


def test_a_retry_of_a_change_finds_its_revision_whatever_came_after() -> None:
    day = Day()
    first = s.AddSeats(i("first"), 0, "staff:1", "", "0800", 1, 0)
    day.ask(first)
    day.revise(s.AddSeats, "0800", 1, 0)
    assert day.ask(first) == []
    assert s.reply_to(day.state, first) == s.Revised(1)


EXTRA = Session("noon", "0304", "expert", None, 1, (PlannedSlot("1200", NOW + 8 * HOUR, 1),))


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (EXTRA, None),
        (replace(EXTRA, slots=()), Reason.IN_THE_PAST),
        (replace(EXTRA, slots=(PlannedSlot("1200", NOW, 1),)), Reason.IN_THE_PAST),
        (replace(EXTRA, slots=(PlannedSlot("1200", NOW + 8 * HOUR, 0),)), Reason.TOO_LARGE),
        (replace(EXTRA, slots=(PlannedSlot("0815", AT["0800"] + 1, 1),)), Reason.SESSIONS_OVERLAP),
        (replace(EXTRA, period="morning", fee_fen=2), Reason.SESSIONS_OVERLAP),
        (replace(EXTRA, period="morning", fee_fen=5000), None),
    ],
)
def test_opening_a_session(session: Session, expected: Reason | None) -> None:
    assert reason(Day().revise(s.OpenSession, session)) is expected


@pytest.mark.parametrize(
    ("told", "now", "expected"),
    [
        (("evening", "", -1), NOW, Reason.NO_SUCH_SESSION),
        (("morning", "1900", -1), NOW, Reason.NO_SUCH_SLOT),
        (("morning", "0800", -1), AT["0800"], Reason.IN_THE_PAST),
        (("morning", "0800", -2), NOW, Reason.BELOW_SOLD),
        (("morning", "0800", -1), NOW, None),
        (("morning", "", 101), NOW, Reason.TOO_LARGE),
        (("morning", "", -1), AT["0800"], None),  # of what lies ahead
    ],
)
def test_changing_capacity(told: Any, now: int, expected: Reason | None) -> None:
    day = Day()
    day.book("x1")
    day.hold("x2", now=NOW - 60_000)  # has ended: it is in nobody's way
    assert reason(day.revise(s.ChangeCapacity, *told, now=now)) is expected


def test_capacity_that_was_taken_away_comes_back_under_its_number() -> None:
    day = Day()
    day.revise(s.ChangeCapacity, "morning", "0800", -1)
    outcome = day.revise(s.ChangeCapacity, "morning", "0800", 2)
    assert outcome and outcome[1:] == [s.SeatsUnblocked("0800", (1,)), s.SeatsAdded("0800", 1, 0)]
    for name in "abc":
        day.book(name)
    assert [s.answer(day.state, i(name)).number for name in "abc"] == [1, 2, 9]


SHIFT = (
    ("0800", "0830", AT["0830"]), ("0830", "0900", AT["0900"]), ("0900", "0930", AT["0900"] + HALF),
    ("1000", "1000", AT["1000"]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("moves", "now", "expected"),
    [
        (SHIFT, NOW, None),
        ((), NOW, None),  # the room alone
        (SHIFT[:3], NOW, Reason.NO_SUCH_SLOT),
        (SHIFT, AT["0800"], Reason.IN_THE_PAST),
        ((*SHIFT[:3], ("1000", "1930", NOW + 15 * HOUR)), NOW, Reason.SESSIONS_OVERLAP),
        ((*SHIFT[:3], ("1000", "0830", AT["1000"])), NOW, Reason.SESSIONS_OVERLAP),
        ((*SHIFT[:3], ("1000", "1000", AT["0900"] + 1)), NOW, Reason.SESSIONS_OVERLAP),
    ],
)
def test_moving_a_session(moves: Any, now: int, expected: Reason | None) -> None:
    assert reason(Day().revise(s.MoveSession, "morning", moves, "r2", now=now)) is expected


def test_who_asks_again_by_the_old_time_finds_his_number() -> None:
    day = full()
    day.revise(s.MoveSession, "morning", SHIFT, "r2")
    assert day.hold("x1") == []
    assert s.answer(day.state, i("x1")).clock == "0830"
    assert reason(day.hold("x1", "1000")) is Reason.KEY_REUSED
    assert reason(day.hold("ann", "0800")) is Reason.NO_SUCH_SLOT


@pytest.mark.parametrize(
    ("status", "expected"),
    [("paused", Reason.SESSION_PAUSED), ("suspended", Reason.SESSION_SUSPENDED), ("open", None)],
)
def test_a_session_that_is_not_open_takes_nobody(status: str, expected: Reason | None) -> None:
    day = Day()
    day.revise(s.SetSessionStatus, "morning", status, "ill")
    assert reason(day.hold("ann")) is expected
    assert reason(day.revise(s.SetSessionStatus, "morning", "closed", "")) is Reason.WRONG_STATE


def test_a_suspension_affects_each_who_is_booked_once() -> None:
    day = full()
    day.hold("pending", "0830")
    day.ask(s.RecordAttendance(i("x2"), s.Status.ARRIVED, "staff:1"))
    day.revise(s.SetSessionStatus, "morning", "suspended", "ill")
    assert [day.fate(n) for n in ("x1", "x2", "pending")] == [("affected", 2), ("affected", 3), ("", 5)]
    assert (
        reason(day.ask(s.RecordAttendance(i("x1"), s.Status.ARRIVED, "staff:1"))) is Reason.SESSION_SUSPENDED
    )
    assert day.ask(s.DecideFate(i("pending"), "refunded")) == Refusal(Reason.NOT_SUSPENDED)
    assert reason(day.ask(s.DecideFate(i("x1"), "moved", i("n")))) is Reason.WRONG_STATE
    day.ask(s.DecideFate(i("x1"), "offered", i("n")))
    assert day.ask(s.DecideFate(i("x1"), "offered", i("n"))) == []
    assert reason(day.ask(s.LeaveFor(i("x1"), i("n"), ACCOUNT, "0304", False, 0))) is None
    assert day.fate("x1") == ("moved", 5)
    assert day.ask(s.DecideFate(i("x1"), "refunded")) == Refusal(Reason.FATE_DECIDED, {"fate": "moved"})
    day.cancel("x2")
    assert day.fate("x2") == ("refunded", 5)


def test_what_is_resumed_keeps_its_numbers() -> None:
    day = full()
    day.revise(s.SetSessionStatus, "morning", "suspended", "ill")
    day.ask(s.DecideFate(i("x1"), "offered", i("n")))
    day.revise(s.SetSessionStatus, "morning", "open", "")
    assert [day.fate(n) for n in ("x1", "x2")] == [("", 2), ("", 2)]


def test_consent_to_a_substitute() -> None:
    day = full()
    assert reason(day.ask(s.AnswerSubstitute(i("x1"), ACCOUNT, True))) is Reason.NO_SUBSTITUTE
    day.revise(s.SubstituteSession, "morning", "D0002")
    assert reason(day.ask(s.AnswerSubstitute(i("x1"), i("stranger"), True))) is Reason.NO_SUCH_APPOINTMENT
    assert day.ask(s.AnswerSubstitute(i("x1"), ACCOUNT, True)) == [s.SubstituteAnswered(i("x1"), True)]
    assert day.ask(s.AnswerSubstitute(i("x1"), ACCOUNT, True)) == []
    day.ask(s.AnswerSubstitute(i("x2"), ACCOUNT, False))
    assert day.state.appointments[i("x2")].reason == "substitute_declined"
    day.revise(s.SubstituteSession, "morning", "D0003")
    assert day.state.appointments[i("x1")].consent is None, "another one: asked again"


@pytest.mark.parametrize(
    ("path", "now", "expected"),
    [
        ((3,), NOW, None),
        ((4,), NOW, None),
        ((3, 2), NOW, None),
        ((4, 3), NOW, Reason.WRONG_STATE),
        ((6,), AT["0800"] - 1, Reason.WRONG_STATE),
        ((6,), AT["0800"], None),
        ((6, 3, 4), AT["0800"], None),
        ((6, 2), AT["0800"], Reason.WRONG_STATE),
        ((99,), NOW, Reason.WRONG_STATE),
        ((5,), NOW, Reason.WRONG_STATE),
    ],
)
def test_attendance(path: tuple[int, ...], now: int, expected: Reason | None) -> None:
    day = full()
    outcomes = [day.ask(s.RecordAttendance(i("x1"), status, "staff:1"), now) for status in path]
    assert reason(outcomes[-1]) is expected


def test_the_seat_of_who_did_not_come_is_free_and_may_be_gone_when_he_does() -> None:
    day, late = full(), AT["0800"]
    day.ask(s.RecordAttendance(i("x1"), s.Status.NOSHOW, "staff:1"), late)
    assert reason(day.hold("ann", now=late, channel=WINDOW)) is None
    assert reason(day.ask(s.RecordAttendance(i("x1"), s.Status.ARRIVED, "staff:1"), late)) is Reason.SLOT_FULL


def test_a_patient_is_added_beyond_the_plan_once() -> None:
    day = full()
    assert not isinstance(day.revise(s.AddPatient, "0800", i("n"), i("ann"), ACCOUNT), Refusal)
    assert s.answer(day.state, i("n")).number == 9
    assert reason(day.revise(s.AddPatient, "0800", i("n2"), i("ann"), ACCOUNT)) is Reason.ALREADY_BOOKED
    assert reason(day.revise(s.AddPatient, "0800", i("x1"), i("bob"), ACCOUNT)) is Reason.KEY_REUSED


# Changes on one day.


def test_a_number_is_left_only_for_one_that_is_held_in_its_place() -> None:
    day = full()
    day.hold("ann", "0830")
    leave = s.LeaveFor(i("x1"), i("ann"), ACCOUNT, "0304", True, AT["0830"])
    assert day.ask(leave) == Refusal(Reason.CHANGE_GIVEN_UP), "a plain hold of somebody else"
    new = s.HoldSeat(i("new"), "0830", i("x1"), ACCOUNT, 60, replaces=i("x1"), waives=1, changes=1)
    assert not isinstance(day.ask(new), Refusal)
    assert reason(day.ask(s.ConfirmAppointment(i("new"), ACCOUNT))) is Reason.CHANGE_UNSETTLED
    assert reason(day.ask(replace(leave, successor=i("new")), NOW + 60_000)) is Reason.CHANGE_GIVEN_UP
    assert [type(e) for e in day.ask(replace(leave, successor=i("new"))) or ()] == [
        s.SeatReleased, s.SeatBooked,
    ]  # fmt: skip
    assert day.ask(replace(leave, successor=i("new"))) == []
    assert reason(day.ask(replace(leave, successor=i("other")))) is Reason.ALREADY_CANCELLED


@pytest.mark.parametrize(
    ("terms", "now", "by", "expected"),
    [
        ({"change_minutes": 60}, AT["0800"] - HOUR, "", Reason.CHANGE_TOO_LATE),
        ({"change_minutes": 60}, AT["0800"] - HOUR, "staff:1", None),
        ({"change_minutes": 60}, AT["0800"] - HOUR - 1, "", None),
        ({"changes_max": 0}, NOW, "", Reason.TOO_MANY_CHANGES),
    ],
)
def test_the_rules_of_changing(terms: Any, now: int, by: str, expected: Reason | None) -> None:
    leave = s.LeaveFor(i("x1"), i("away"), ACCOUNT, "0304", False, 0, by)
    assert reason(full(**terms).ask(leave, now)) is expected


# Waiting.


def test_who_comes_first_is_offered_first_within_his_class() -> None:
    day = full()
    for name, more in (
        ("late", {"since": NOW + 2}),
        ("early", {}),
        ("first", {"priority": 1, "since": NOW + 9}),
    ):
        day.join(name, clocks=("0800",), **more)
    day.cancel("x1")
    assert day.offer() == [(i("first"), "0800")]
    day.cancel("x2")
    assert day.offer() == [(i("early"), "0800")]
    assert [wish.wish_id for wish in waitlist.queue(day.state.wishes.values())] == [
        i("first"), i("early"), i("late"),
    ]  # fmt: skip


def test_a_group_that_does_not_fit_stops_nobody_behind_it() -> None:
    day = full()
    day.join("family", "a", "b", clocks=("0800",))
    day.join("single", clocks=("0800",), since=NOW + 1)
    day.cancel("x1")
    assert day.offer() == [(i("single"), "0800")]


def test_a_group_declines_together_and_is_offered_another_slot() -> None:
    day = Day()
    day.join("family", "a", "b")
    assert day.offer() == [(i("a"), "0800"), (i("b"), "0800")]
    offered = list(day.state.wishes[i("family")].offered)
    day.ask(s.CancelAppointment(offered[1], ACCOUNT))
    assert {day.state.appointments[a].status for a in offered} == {s.Status.CANCELLED}
    assert day.offer() == [(i("a"), "0830"), (i("b"), "0830")]


def test_an_offer_that_lapses_ends_the_wish_whoever_notices() -> None:
    for notices in (s.ExpireHolds(), s.HoldSeat(i("ann"), "0800", i("ann"), ACCOUNT, 60)):
        day = full()
        day.join("w", clocks=("0800",))
        day.cancel("x1")
        day.offer()
        outcome = day.ask(notices, NOW + 15 * 60_000)
        assert s.WishEnded(i("w"), "lapsed") in (outcome or ())
        assert day.join("w", now=NOW + 15 * 60_000) == [], "a retry makes it wait no more"
        assert day.state.wishes == {}


def test_nobody_passes_those_who_wait_and_nobody_is_refused_for_them_without_need() -> None:
    day = Day()
    day.join("w", clocks=("0800",))
    assert reason(day.hold("ann")) is None, "two seats, one waits"
    assert reason(day.hold("bob")) is Reason.SLOT_FULL
    assert reason(day.hold("bob", channel=int(Channel.DOCTOR))) is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, None),
        ({"clocks": ("2300",)}, Reason.NO_SUCH_SLOT),
        ({"until": NOW}, Reason.WAITLIST_CLOSED),
        ({"clocks": ("0800",), "now": AT["0800"] - 2 * HOUR}, Reason.WAITLIST_CLOSED),
        ({"clocks": ("0800",), "now": AT["0800"] - 2 * HOUR - 1}, None),
    ],
)
def test_joining(told: Any, expected: Reason | None) -> None:
    assert reason(Day().join("w", **told)) is expected


def test_a_waiting_list_is_of_people_and_has_an_end() -> None:
    day = Day(waitlist=Waitlist(length_max=1))
    assert reason(day.join("twice", "a", "a")) is Reason.TOO_LARGE
    assert reason(day.join("many", *"abcdefg")) is Reason.TOO_LARGE
    assert reason(day.join("earlier", "a", "b", replaces=i("old"))) is Reason.TOO_LARGE
    day.join("one")
    assert day.join("two") == Refusal(Reason.WAITLIST_FULL, {"limit": 1})
    assert reason(Day(waitlist=Waitlist(enabled=False)).join("w")) is Reason.WAITLIST_CLOSED


def test_after_its_cut_off_what_is_left_is_everybodys() -> None:
    day = full()
    day.join("w", clocks=("0800",))
    closes = AT["0800"] - 2 * HOUR
    day.cancel("x1", closes)
    assert day.offer(closes) == []
    assert reason(day.hold("ann", now=closes)) is None


# Whether they come.

BY = AT["0800"] - 2 * HOUR


def asked() -> Day:
    day = Day(attendance=Attendance(3 * 60, 2 * 60), returned=Returned(Return.COOL_DOWN, 60, 60))
    day.book("ann")
    return day


def test_who_did_not_say_that_he_comes_gives_his_seat_back_at_that_moment_and_no_sooner() -> None:
    day = asked()
    assert day.ask(s.ReleaseUnconfirmed(i("ann")), BY - 1) == []
    [released] = day.ask(s.ReleaseUnconfirmed(i("ann")), BY)
    assert released == s.SeatReleased(i("ann"), "unconfirmed", cooling_until=BY + 60_000)
    assert day.ask(s.ReleaseUnconfirmed(i("ann")), BY) == []


def test_who_said_that_he_comes_keeps_his_seat() -> None:
    day = asked()
    assert day.ask(s.ConfirmAttendance(i("ann"), i("other"))) == Refusal(Reason.NO_SUCH_APPOINTMENT)
    assert day.ask(s.ConfirmAttendance(i("ann"), ACCOUNT)) == [s.AttendanceConfirmed(i("ann"))]
    assert day.ask(s.ConfirmAttendance(i("ann"), ACCOUNT)) == []
    assert day.ask(s.ReleaseUnconfirmed(i("ann")), BY) == []


def test_only_what_is_booked_and_ahead_can_be_promised_or_released() -> None:
    day = asked()
    day.hold("bob", "0830")
    refused = day.ask(s.ConfirmAttendance(i("bob"), ACCOUNT))
    assert refused == Refusal(Reason.WRONG_STATE, {"status": s.Status.PENDING})
    assert day.ask(s.ReleaseUnconfirmed(i("bob")), AT["0830"] - HOUR) == []
    assert day.ask(s.ConfirmAttendance(i("ann"), ACCOUNT), AT["0800"]) == Refusal(Reason.SLOT_PAST)
    assert day.ask(s.ReleaseUnconfirmed(i("ann")), AT["0800"]) == []
    assert day.ask(s.ReleaseUnconfirmed(i("nobody"))) == Refusal(Reason.NO_SUCH_APPOINTMENT)


def test_nobody_is_released_where_nobody_is_asked() -> None:
    day = Day()
    day.book("ann")
    assert day.ask(s.ReleaseUnconfirmed(i("ann")), BY) == []


def test_whom_the_hospital_put_out_is_not_blamed_for_cancelling() -> None:
    day = Day()
    day.book("ann")
    day.ask(s.SubstituteSession(i("c"), -1, "staff:1", "", "morning", "D0002"))
    [released] = day.cancel("ann")
    assert isinstance(released, s.SeatReleased) and released.reason == "excused"
