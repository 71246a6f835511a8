"""A day's journal as lines that people read: who, when, what, why; and never what did not come to be."""

from typing import Any

import pytest

from engine.domain import schedule as s
from engine.domain.planning import PlannedSlot, Session
from engine.domain.recorded import Recorded
from engine.domain.refusal import Refusal
from engine.views.history import WORDS, Line, history, of_appointment

HOUR = 3_600_000
NOW = 1_800_000_000_000 // HOUR * HOUR
DAY = NOW + 24 * HOUR
STAFF = "staff:" + "ab" * 16
OTHER = "staff:" + "cd" * 16


def uid(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Journal:
    """Commands in, recorded events out."""

    def __init__(self) -> None:
        self.state = s.Schedule()
        self.recorded: list[Recorded] = []
        self.now = NOW
        slots = tuple(PlannedSlot(f"0{8 + n}00", DAY + n * HOUR, 2) for n in range(2))
        self.add(s.ScheduleOpened((Session("morning", "0304", "expert", "R1", 1000, slots),)))

    def add(self, *events: s.Event) -> None:
        for event in events:
            s.apply(self.state, event)
            self.recorded.append(Recorded(len(self.recorded) + 1, self.now, event))

    def do(self, command: s.Command) -> None:
        self.now += 1000
        outcome = s.decide(self.state, command, self.now)
        assert not isinstance(outcome, Refusal), outcome
        self.add(*outcome)

    def revise(self, kind: type, *fields: object, by: str = STAFF, note: str = "") -> None:
        self.do(kind(uid(1000 + len(self.recorded)), -1, by, note, *fields))

    def book(self, number: int, clock: str = "0800", **more: Any) -> None:
        self.do(s.HoldSeat(uid(number), clock, uid(100 + number), uid(9), **more))
        self.do(s.ConfirmAppointment(uid(number), uid(9)))

    @property
    def lines(self) -> list[Line]:
        return history(self.recorded)

    @property
    def what(self) -> list[tuple[str, str]]:
        return [(line.what, line.by) for line in self.lines[1:]]


@pytest.fixture
def journal() -> Journal:
    return Journal()


def test_the_life_of_a_number(journal: Journal) -> None:
    journal.book(1)
    journal.do(s.CancelAppointment(uid(1), uid(9)))
    assert journal.what == [("held", "self"), ("booked", "self"), ("cancelled", "self")]
    held, booked, cancelled = journal.lines[1:]
    assert held.details == {"slot": "08:00", "number": "1"}
    assert [line.at for line in (held, booked, cancelled)] == [NOW + 1000, NOW + 2000, NOW + 3000]


def test_staff_and_the_system_are_told_apart(journal: Journal) -> None:
    journal.do(s.HoldSeat(uid(1), "0800", uid(101), uid(9), by=STAFF))
    journal.do(s.ConfirmAppointment(uid(1), uid(9), STAFF))
    journal.do(s.CancelAppointment(uid(1), uid(9), OTHER, "患者来电"))
    journal.do(s.HoldSeat(uid(2), "0800", uid(102), uid(9)))
    journal.now += HOUR
    journal.do(s.ExpireHolds())
    assert journal.what == [
        ("held", STAFF),
        ("booked", STAFF),
        ("cancelled", OTHER),
        ("held", "self"),
        ("expired", "system"),
    ]
    assert journal.lines[3].note == "患者来电"


def test_what_lost_its_claim_never_was(journal: Journal) -> None:
    journal.do(s.HoldSeat(uid(1), "0800", uid(101), uid(9)))
    journal.add(s.SeatReleased(uid(1), "lost_claim"))
    journal.do(s.HoldSeat(uid(1), "0900", uid(101), uid(9)))
    assert [(x.what, x.details["slot"]) for x in journal.lines[1:]] == [("held", "09:00")]


def test_a_change_that_was_undone_never_was(journal: Journal) -> None:
    journal.book(1)
    journal.add(s.SeatReleased(uid(1), "changed", successor=uid(7), passes=3))
    assert journal.what[-1] == ("changed", "self")
    assert journal.lines[-1].details["successor"] == uid(7).hex()
    journal.add(s.SeatRestored(uid(1), s.Status.BOOKED))
    assert journal.what == [("held", "self"), ("booked", "self")]


def test_a_change_of_the_day_has_its_author_and_is_one_line(journal: Journal) -> None:
    journal.revise(s.ChangeCapacity, "morning", "", 2, note="节前")
    journal.revise(s.ChangeCapacity, "morning", "0800", -1, by=OTHER)
    journal.revise(s.AddSeats, "0800", 1, 255)
    journal.revise(s.SetSessionStatus, "morning", "paused", "")
    journal.revise(s.SetSessionStatus, "morning", "open", "")
    journal.revise(s.SetSessionStatus, "morning", "suspended", "leave")
    journal.revise(s.SetSessionStatus, "morning", "open", "")
    journal.revise(s.SubstituteSession, "morning", "D2")
    journal.revise(s.SubstituteSession, "morning", None)
    journal.revise(
        s.OpenSession, Session("night", "0304", "expert", None, 1, (PlannedSlot("1800", DAY + 10 * HOUR, 1),))
    )
    assert journal.what == [
        ("capacity_changed", STAFF),
        ("capacity_changed", OTHER),
        ("seats_added", STAFF),
        ("session_paused", STAFF),
        ("session_resumed", STAFF),
        ("session_suspended", STAFF),
        ("session_reopened", STAFF),
        ("substitute_set", STAFF),
        ("substitute_withdrawn", STAFF),
        ("session_opened", STAFF),
    ]
    lines = journal.lines[1:]
    assert (lines[0].details["seats"], lines[0].note) == ("08:00 +2, 09:00 +2", "节前")
    assert lines[1].details["seats"] == "08:00 -1"
    assert lines[5].reason == "leave"


def test_a_patient_hears_of_their_session_and_of_nobody_else(journal: Journal) -> None:
    journal.book(1)
    journal.revise(s.ChangeCapacity, "morning", "", 1)
    journal.revise(s.SetSessionStatus, "morning", "paused", "")
    journal.revise(s.SetSessionStatus, "morning", "open", "")
    journal.revise(s.MoveSession, "morning", (), "R2", note="漏水")
    journal.book(2, "0900")
    journal.revise(s.SetSessionStatus, "morning", "suspended", "emergency", note="内部")
    journal.do(s.DecideFate(uid(1), "refunded"))
    journal.do(s.DecideFate(uid(2), "offered", uid(8)))
    mine = of_appointment(journal.recorded, uid(1))
    assert [(x.what, x.by, x.note, x.reason) for x in mine] == [
        ("held", "self", "", ""),
        ("booked", "self", "", ""),
        ("session_moved", STAFF, "", ""),
        ("session_suspended", STAFF, "", "emergency"),
        ("fate_refunded", "system", "", ""),
        ("suspended", "system", "", "suspended"),
    ]
    other = [x.what for x in of_appointment(journal.recorded, uid(2))]
    assert other == ["held", "booked", "session_suspended", "fate_offered"]


def test_a_substitute_is_answered(journal: Journal) -> None:
    journal.book(1)
    journal.book(2, "0900")
    journal.revise(s.SubstituteSession, "morning", "D2")
    journal.do(s.AnswerSubstitute(uid(1), uid(9), True))
    journal.do(s.AnswerSubstitute(uid(2), uid(9), False))
    assert [x.what for x in of_appointment(journal.recorded, uid(1))][2:] == [
        "substitute_set",
        "substitute_accepted",
    ]
    assert [x.what for x in of_appointment(journal.recorded, uid(2))][2:] == [
        "substitute_set",
        "substitute_refused",
        "substitute_declined",
    ]


def test_who_came_and_who_did_not(journal: Journal) -> None:
    journal.book(1)
    journal.now = DAY + HOUR
    journal.do(s.RecordAttendance(uid(1), s.Status.NOSHOW, ""))
    journal.do(s.RecordAttendance(uid(1), s.Status.ARRIVED, STAFF))
    assert journal.what[2:] == [("noshow", "system"), ("arrived", STAFF)]


@pytest.mark.parametrize("what", WORDS)
def test_words_are_in_both_languages(what: str) -> None:
    chinese, english = WORDS[what]
    assert any(character >= "\u4e00" for character in chinese)
    assert english and english.isascii()
