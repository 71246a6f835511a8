"""A dry run finds what each rule would have refused, and nothing else."""

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import PlannedSlot, Session
from engine.domain.policy import (
    Channel,
    ConductRule,
    Moment,
    Offence,
    Opening,
    Policy,
    Pool,
    Return,
    Returned,
    Subject,
    Terms,
)
from engine.domain.rehearsal import Outcome, Recorded, rehearse

SHANGHAI = ZoneInfo("Asia/Shanghai")
MINUTE = 60_000
DAY = 1440 * MINUTE
EIGHT = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp() * 1000)  # 08:00 in Shanghai
LAVISH = Policy(active_appointments_max=1000, account_holds_max=1000, day_appointments_max=100)


def key(doctor: int = 1, day: int = 24) -> ScheduleKey:
    return ScheduleKey(f"D{doctor:04}", f"2026-11-{day}")


def uid(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Diary:
    """Writes down what happened, by minutes before 08:00 of the 24th."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []

    def note(self, minutes_before: int, event: s.Event, doctor: int = 1, day: int = 24) -> "Diary":
        self.events.append(Recorded(EIGHT - minutes_before * MINUTE, key(doctor, day), event))
        return self

    def opened(self, capacity: int = 2, doctor: int = 1, day: int = 24) -> "Diary":
        starts = EIGHT + (day - 24) * DAY
        slots = (
            PlannedSlot("0800", starts, capacity),
            PlannedSlot("0830", starts + 30 * MINUTE, capacity),
        )
        session = Session("morning", f"dept{doctor}", "expert", None, 5000, slots)
        return self.note(60 * 24 * 20, s.ScheduleOpened((session,)), doctor, day)

    def held(
        self,
        minutes_before: int,
        number: int,
        patient: int | None = None,
        clock: str = "0800",
        seat: int = 0,
        doctor: int = 1,
        day: int = 24,
        **more: object,
    ) -> "Diary":
        at = EIGHT - minutes_before * MINUTE
        held = s.SeatHeld(
            uid(number),
            clock,
            seat,
            uid(100 + (number if patient is None else patient)),
            uid(900),
            at + 15 * MINUTE,
        )
        return self.note(minutes_before, replace(held, **more), doctor, day)  # type: ignore[arg-type]

    def booked(self, minutes_before: int, number: int, doctor: int = 1, day: int = 24) -> "Diary":
        return self.note(minutes_before, s.SeatBooked(uid(number)), doctor, day)

    def released(
        self, minutes_before: int, number: int, reason: str = "cancelled", doctor: int = 1, **more: object
    ) -> "Diary":
        event = replace(s.SeatReleased(uid(number), reason), **more)  # type: ignore[arg-type]
        return self.note(minutes_before, event, doctor)

    def missed(self, number: int, doctor: int = 1, day: int = 24) -> "Diary":
        event = s.AttendanceRecorded(uid(number), int(s.Status.NOSHOW), "desk")
        return self.note(-240 - 1440 * (day - 24), event, doctor, day)

    def under(self, terms: Terms | None = None, policy: Policy = LAVISH) -> Outcome:
        policy = policy if terms is None else replace(policy, terms={("", ""): terms})
        return rehearse(sorted(self.events, key=lambda e: e.at), policy, SHANGHAI)


def told(outcome: Outcome) -> list[tuple[str, str, int]]:
    return [(r.what, r.rule, int.from_bytes(r.appointment_id, "big")) for r in outcome.refused]


def test_what_really_happened_is_refused_by_nobody_under_open_terms() -> None:
    diary = Diary().opened().held(600, 1).booked(595, 1).held(590, 2, seat=1).released(580, 2)
    outcome = diary.held(500, 3, seat=1).booked(499, 3).under()
    assert told(outcome) == []
    assert dict(outcome.asked) == {"book": 3, "confirm": 2, "cancel": 1}
    assert outcome.blocked == []


def test_openings_refuse_who_came_too_early() -> None:
    diary = Diary().opened().held(3000, 1).booked(2999, 1).held(300, 2, seat=1).released(200, 1)
    terms = Terms(openings=(Opening(100, Moment(1, 450)),))
    outcome = diary.under(terms)
    assert told(outcome) == [("book", "not_released", 1)]
    assert outcome.refused[0].slot_id == "D0001-20261124-0800"
    assert outcome.asked["cancel"] == 0, "who has no number cancels none"


def test_pools_refuse_who_takes_what_is_kept() -> None:
    diary = Diary().opened(2).held(300, 1).booked(299, 1).held(298, 2, seat=1)
    terms = Terms(pools=(Pool("window", 50, Channel.WINDOW),))
    assert told(diary.under(terms)) == [("book", "slot_full", 2)]
    diary = Diary().opened(2).held(300, 1).booked(299, 1).held(298, 2, seat=1, channel=int(Channel.WINDOW))
    assert told(diary.under(terms)) == []


def test_closing_and_cut_offs() -> None:
    diary = Diary().opened().held(600, 1).booked(599, 1).released(30, 1).held(20, 2)
    assert told(diary.under(Terms(closes_minutes=60))) == [("book", "booking_closed", 2)]
    assert told(diary.under(Terms(cancel_minutes=60))) == [("cancel", "cancel_too_late", 1)]
    by_desk = Diary().opened().held(600, 1).booked(599, 1).released(30, 1, by="desk")
    assert told(by_desk.under(Terms(cancel_minutes=60))) == []


def test_a_cancel_that_is_refused_keeps_its_seat() -> None:
    diary = Diary().opened(1).held(600, 1).booked(599, 1).released(30, 1).held(20, 2)
    assert told(diary.under(Terms(cancel_minutes=60))) == [
        ("cancel", "cancel_too_late", 1),
        ("book", "slot_full", 2),
    ]


def test_a_shorter_hold_ends_before_it_was_paid() -> None:
    diary = Diary().opened().held(600, 1).booked(590, 1).held(500, 2, seat=1).booked(499, 2)
    assert told(diary.under(Terms(hold_seconds=300))) == [("confirm", "hold_expired", 1)]


def test_returned_numbers_that_cool_down_are_missed_by_who_took_them_at_once() -> None:
    diary = Diary().opened(1).held(600, 1).booked(599, 1).released(500, 1).held(499, 2).released(480, 2)
    diary.held(300, 3)
    terms = Terms(returned=Returned(Return.COOL_DOWN, 3600))
    assert told(diary.under(terms)) == [("book", "slot_full", 2)]


def test_limits_per_patient_account_and_day() -> None:
    diary = Diary().opened(doctor=1).opened(doctor=2)
    diary.held(600, 1, patient=1).held(599, 2, patient=1, doctor=2, clock="0830")
    assert told(diary.under(policy=replace(LAVISH, day_appointments_max=1))) == [
        ("book", "day_appointments_max", 2)
    ]
    assert told(diary.under(policy=replace(LAVISH, active_appointments_max=1))) == [
        ("book", "active_appointments_max", 2)
    ]
    assert told(diary.under(policy=replace(LAVISH, account_holds_max=1))) == [
        ("book", "account_holds_max", 2)
    ]
    paid = Diary().opened(doctor=1).opened(doctor=2).held(600, 1).booked(599, 1).held(598, 2, doctor=2)
    assert told(paid.under(policy=replace(LAVISH, account_holds_max=1))) == []


def test_first_visits_and_follow_ups() -> None:
    diary = Diary().opened().held(600, 1).held(599, 2, seat=1).held(598, 3, clock="0830", visit=1)
    assert told(diary.under(Terms(first_visits_max=1))) == [("book", "visit_limit", 2)]
    assert told(diary.under(Terms(follow_ups_max=0))) == [("book", "visit_limit", 3)]


NO_SHOWS = ConductRule("two_no_shows", Offence.NO_SHOW, Subject.PATIENT, 2, 30, 10)


def test_no_shows_block_and_the_block_refuses_what_came_after() -> None:
    diary = Diary()
    for day in (24, 25, 26):
        diary.opened(day=day)
    diary.held(6000, 1, patient=7).booked(5999, 1).missed(1)
    diary.held(6000, 2, patient=7, day=25).booked(5999, 2, day=25).missed(2, day=25)
    diary.held(-1440 - 300, 3, patient=7, day=26)
    assert told(diary.under()) == []
    outcome = diary.under(policy=replace(LAVISH, conduct=(NO_SHOWS,)))
    assert told(outcome) == [("book", "two_no_shows", 3)]
    (blocked,) = outcome.blocked
    assert (blocked.subject, blocked.id) == (Subject.PATIENT, uid(107))
    assert blocked.verdict.begins == EIGHT + DAY


def test_an_account_that_drops_holds_is_blocked() -> None:
    dropped = ConductRule("drops", Offence.DROPPED_HOLD, Subject.ACCOUNT, 2, 1, 1)
    diary = Diary().opened()
    diary.held(600, 1).released(585, 1, "expired").held(570, 2).released(555, 2, "expired").held(500, 3)
    outcome = diary.under(policy=replace(LAVISH, conduct=(dropped,)))
    assert told(outcome) == [("book", "drops", 3)]
    assert outcome.blocked[0].verdict.begins == EIGHT - 555 * MINUTE


def test_cancels_are_late_within_their_time_and_the_hospitals_are_nobodys_offence() -> None:
    late = ConductRule("late", Offence.LATE_CANCEL, Subject.PATIENT, 1, 1, 1)
    often = ConductRule("often", Offence.CANCEL, Subject.PATIENT, 1, 1, 1)
    policy = replace(LAVISH, conduct=(late, often), late_cancel_minutes=60)

    def rules(minutes_before: int, **more: object) -> list[str]:
        diary = Diary().opened().held(600, 1).booked(599, 1).released(minutes_before, 1, **more)  # type: ignore[arg-type]
        return [each.verdict.rule.name for each in diary.under(policy=policy).blocked]

    assert rules(61) == ["often"]
    assert rules(60) == ["late", "often"]
    assert rules(30, reason="suspended") == []
    assert rules(30, by="desk") == []


def test_a_change_within_a_day_follows_its_cut_off() -> None:
    diary = Diary().opened().held(600, 1, patient=1).booked(599, 1)
    diary.held(30, 2, patient=1, clock="0830", replaces=uid(1), changes=1)
    diary.released(30, 1, "changed", successor=uid(2)).booked(30, 2)
    assert told(diary.under()) == []
    outcome = diary.under(Terms(change_minutes=60))
    assert told(outcome) == [("change", "change_too_late", 1)]
    assert outcome.blocked == []


def test_a_change_to_another_doctor_is_undone_as_a_whole() -> None:
    diary = Diary().opened(1, doctor=1).opened(1, doctor=2)
    diary.held(600, 1, patient=1).booked(599, 1)
    diary.held(30, 2, patient=1, doctor=2, replaces=uid(1), changes=1)
    diary.released(30, 1, "changed", successor=uid(2)).booked(29, 2, doctor=2)
    diary.held(28, 3).held(27, 4, doctor=2)
    assert told(diary.under()) == [("book", "slot_full", 4)]
    assert told(diary.under(Terms(change_minutes=60))) == [
        ("change", "change_too_late", 1),
        ("book", "slot_full", 3),
    ]


def test_a_lost_claim_was_never_asked_for() -> None:
    diary = Diary().opened(1).held(600, 1).released(600, 1, "lost_claim").held(599, 2).held(599, 3)
    outcome = diary.under()
    assert told(outcome) == [("book", "slot_full", 3)]
    assert outcome.asked["book"] == 2


def test_what_the_desk_does_to_the_day_goes_on() -> None:
    diary = Diary().opened(1)
    diary.held(600, 1).booked(599, 1)
    diary.note(500, s.SeatsAdded("0800", 1, 0)).held(499, 2, seat=1)
    diary.note(400, s.SeatsBlocked("0830", (0,))).held(399, 3, clock="0830")
    diary.note(300, s.SessionStatusSet("morning", "paused", "late")).released(290, 2).held(280, 4, seat=1)
    assert told(diary.under()) == [("book", "slot_full", 3), ("book", "session_paused", 4)]
