"""Random histories of one practitioner's day: what must hold after every single event."""

import copy
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain import schedule as s
from engine.domain.limits import HOLD_SECONDS_MAX
from engine.domain.planning import Plan, PlannedSlot, Session
from engine.domain.refusal import Reason, Refusal

START = 1_800_000_000_000
HALF_HOUR = 1_800_000
CLOCKS = ["0800", "0830", "0900", "1400", "1430", "1900"]
PATIENTS = [bytes([n]) * 16 for n in range(1, 7)]
ACCOUNTS = [bytes([0xA0 + n]) * 16 for n in range(2)]
IDS = [n.to_bytes(16, "big") for n in range(24)]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to three sessions of two departments; small slots, so that they fill."""
    plan, clocks = [], list(CLOCKS)
    for period, size in (("morning", 3), ("afternoon", 2), ("night", 1)):
        mine, clocks = clocks[:size], clocks[size:]
        if plan and not draw(st.booleans()):
            continue
        slots = tuple(
            PlannedSlot(clock, START + HALF_HOUR * (1 + CLOCKS.index(clock)), draw(st.integers(1, 3)))
            for clock in mine
        )
        plan.append(Session(period, draw(st.sampled_from(["cardio", "derma"])), "expert", None, 5000, slots))
    return tuple(plan)


class Day(RuleBasedStateMachine):
    """The engine's decide and apply, beside a model that knows only who was told what."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.schedule = s.Schedule()
        self.journal: list[s.Event] = []
        self.booked_once: set[bytes] = set()
        self.answers: dict[bytes, s.Answer] = {}

    @initialize(plan=plans())
    def open(self, plan: Plan) -> None:
        self.plan = plan
        outcome = self.run(s.OpenSchedule(plan))
        assert outcome == [s.ScheduleOpened(plan)]

    def run(self, command: s.Command) -> list[s.Event] | Refusal:
        before = copy.deepcopy(self.schedule)
        outcome = s.decide(self.schedule, command, self.now)
        assert self.schedule == before, "decide changed the state"
        assert outcome == s.decide(self.schedule, command, self.now), "decide is not a function"
        if isinstance(outcome, Refusal):
            return outcome
        for event in outcome:
            s.apply(self.schedule, event)
            self.journal.append(event)
            self.check_after_event(event)
        again = s.decide(self.schedule, command, self.now)
        assert again == [], f"{command} said again is not harmless: {again}"
        return outcome

    def check_after_event(self, event: s.Event) -> None:
        assert s.conservation_error(self.schedule) == 0
        for slot in self.schedule.slots.values():
            assert slot.taken.bit_count() <= slot.capacity
            assert slot.taken >> slot.capacity == 0
        match event:
            case s.SeatHeld():
                assert self.now < event.hold_until <= self.schedule.slots[event.clock].starts_at
                assert event.hold_until <= self.now + HOLD_SECONDS_MAX * 1000
            case s.SeatBooked():
                self.booked_once.add(event.appointment_id)
            case s.SeatReleased():
                if event.reason == "expired":
                    assert event.appointment_id not in self.booked_once, "a booked one expired"

    @rule(step=st.sampled_from([1, 500, 1_000, 60_000, 900_000]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @precondition(lambda self: self.schedule.holds)
    @rule(early=st.booleans(), appointment=st.sampled_from(IDS), patient=st.sampled_from(PATIENTS))
    def somebody_wants_the_next_seat_to_expire(self, early: bool, appointment: bytes, patient: bytes) -> None:
        """To the very millisecond, or the one before: that is where mistakes are."""
        ends, first = min((until, a) for a, until in self.schedule.holds.items())
        self.now = max(self.now, ends - early)
        self.ask_for(appointment, self.schedule.appointments[first].clock, patient, ACCOUNTS[0], 60)

    @rule(
        appointment=st.sampled_from(IDS),
        clock=st.sampled_from([*CLOCKS, "2330"]),
        patient=st.sampled_from(PATIENTS),
        account=st.sampled_from(ACCOUNTS),
        seconds=st.sampled_from([1, 60, 900, 3600, 10**6]),
    )
    def hold(self, appointment: bytes, clock: str, patient: bytes, account: bytes, seconds: int) -> None:
        self.ask_for(appointment, clock, patient, account, seconds)

    def ask_for(self, appointment: bytes, clock: str, patient: bytes, account: bytes, seconds: int) -> None:
        known = self.schedule.appointments.get(appointment)
        slot = self.schedule.slots.get(clock)
        really_free: set[int] = set()
        if slot is not None:
            ended = [
                a
                for a, until in self.schedule.holds.items()
                if until <= self.now and self.schedule.appointments[a].clock == clock
            ]
            really_free = {seat for seat in range(slot.capacity) if not slot.taken >> seat & 1}
            was_full = not really_free
            really_free |= {self.schedule.appointments[a].seat for a in ended}
        active = [
            a
            for a, x in self.schedule.appointments.items()
            if slot is not None
            and x.patient_id == patient
            and self.schedule.slots[x.clock].session.department_id == slot.session.department_id
            and x.status <= s.Status.FULFILLED
            and not (x.status is s.Status.PENDING and x.hold_until <= self.now)
        ]
        outcome = self.run(s.HoldSeat(appointment, clock, patient, account, seconds))
        if known is not None:
            same = (known.clock, known.patient_id) == (clock, patient)
            assert outcome == ([] if same else Refusal(Reason.KEY_REUSED))
        elif slot is None:
            assert outcome == Refusal(Reason.NO_SUCH_SLOT)
        elif slot.starts_at <= self.now:
            assert outcome == Refusal(Reason.SLOT_PAST)
        elif active:
            assert isinstance(outcome, Refusal) and outcome.reason is Reason.ALREADY_BOOKED
        elif not really_free:
            assert outcome == Refusal(Reason.SLOT_FULL)
        else:
            assert not isinstance(outcome, Refusal), f"refused {outcome} with {really_free} free"
            if was_full:
                seat = self.schedule.appointments[appointment].seat
                assert seat == min(really_free), "not the lowest free number"
        if not isinstance(outcome, Refusal):
            answer = s.answer(self.schedule, appointment)
            first = self.answers.setdefault(appointment, answer)
            assert (first.clock, first.number, first.hold_until) == (
                answer.clock,
                answer.number,
                answer.hold_until,
            ), "a retry learns something else than the first time"

    @rule(appointment=st.sampled_from(IDS), account=st.sampled_from(ACCOUNTS))
    def confirm(self, appointment: bytes, account: bytes) -> None:
        before = copy.deepcopy(self.schedule.appointments.get(appointment))
        outcome = self.run(s.ConfirmAppointment(appointment, account))
        if before is None or before.account_id != account:
            assert outcome == Refusal(Reason.NO_SUCH_APPOINTMENT)
        elif before.status is s.Status.PENDING and before.hold_until <= self.now:
            assert outcome == Refusal(Reason.HOLD_EXPIRED)
        elif before.status is s.Status.PENDING:
            assert outcome == [s.SeatBooked(appointment)]

    @rule(appointment=st.sampled_from(IDS), account=st.sampled_from(ACCOUNTS))
    def cancel(self, appointment: bytes, account: bytes) -> None:
        known = self.schedule.appointments.get(appointment)
        mine = known is not None and known.account_id == account
        outcome = self.run(s.CancelAppointment(appointment, account))
        if not mine:
            assert outcome == Refusal(Reason.NO_SUCH_APPOINTMENT)
        elif not isinstance(outcome, Refusal):
            assert self.schedule.appointments[appointment].status is s.Status.CANCELLED

    @rule()
    def sweep(self) -> None:
        self.run(s.ExpireHolds())
        assert all(until > self.now for until in self.schedule.holds.values())

    @rule()
    def open_again(self) -> None:
        assert self.run(s.OpenSchedule(self.plan)) == []

    @precondition(lambda self: any(isinstance(e, s.SeatHeld) for e in self.journal[-1:]))
    @rule()
    def the_last_hold_loses_its_claim(self) -> None:
        """The journal may give a number back that was just held: as if it had never been."""
        held = self.journal[-1]
        assert isinstance(held, s.SeatHeld)
        event = s.SeatReleased(held.appointment_id, "lost_claim")
        s.apply(self.schedule, event)
        self.journal.append(event)
        self.check_after_event(event)
        assert held.appointment_id not in self.schedule.appointments
        self.answers.pop(held.appointment_id)

    @invariant()
    def replay_is_live(self) -> None:
        assert s.replay(self.journal) == self.schedule

    @invariant()
    def numbers_are_unique_within_a_session(self) -> None:
        numbers = Counter(
            (self.schedule.slots[x.clock].session.period, s.answer(self.schedule, a).number)
            for a, x in self.schedule.appointments.items()
            if x.status <= s.Status.FULFILLED
        )
        assert all(count == 1 for count in numbers.values()), numbers
        for session in self.plan if hasattr(self, "plan") else ():
            total = sum(slot.capacity for slot in session.slots)
            mine = [number for (period, number) in numbers if period == session.period]
            assert all(1 <= number <= total for number in mine)

    @invariant()
    def what_is_pending_is_what_may_expire(self) -> None:
        pending = {
            a: x.hold_until for a, x in self.schedule.appointments.items() if x.status is s.Status.PENDING
        }
        assert self.schedule.holds == pending
        assert s.next_expiry(self.schedule) == min(pending.values(), default=None)

    @invariant()
    def one_number_per_patient_and_department(self) -> None:
        active = Counter(
            (x.patient_id, self.schedule.slots[x.clock].session.department_id)
            for x in self.schedule.appointments.values()
            if x.status <= s.Status.FULFILLED
        )
        assert all(count == 1 for count in active.values())
        assert len(self.schedule.active) == len(active)


Day.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
TestDay = Day.TestCase


def test_of_several_ended_holds_the_lowest_number_is_given() -> None:
    plan = (Session("morning", "cardio", "expert", None, 5000, (PlannedSlot("0800", START + HALF_HOUR, 3),)),)
    schedule = s.replay([s.ScheduleOpened(plan)])
    for n in range(3):
        [held] = s.decide(schedule, s.HoldSeat(IDS[n], "0800", PATIENTS[n], ACCOUNTS[0], 60), START)
        s.apply(schedule, held)
    outcome = s.decide(schedule, s.HoldSeat(IDS[3], "0800", PATIENTS[3], ACCOUNTS[0], 60), START + 60_000)
    assert isinstance(outcome[-1], s.SeatHeld) and outcome[-1].seat == 0
