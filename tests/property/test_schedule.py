"""Random histories of one practitioner's day, with every command: what must hold after every single event."""

import copy
from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.limits import HOLD_SECONDS_MAX, OFFER_SECONDS_MAX, SLOT_MS
from engine.domain.planning import Plan, PlannedSlot, Session, Share, Stage, plan_as_data, plan_from_data
from engine.domain.policy import Channel, Policy, Return, Returned, Terms, Waitlist
from engine.domain.refusal import Reason, Refusal

START = 1_800_000_000_000
HALF_HOUR = 1_800_000
CLOCKS = ["0800", "0830", "0900", "1400", "1430", "1900"]
PERIODS = {"morning": CLOCKS[:3], "afternoon": CLOCKS[3:5], "night": CLOCKS[5:]}
PATIENTS = [bytes([n]) * 16 for n in range(1, 7)]
ACCOUNTS = [bytes([0xA0 + n]) * 16 for n in range(2)]
IDS = [n.to_bytes(16, "big") for n in range(60)]
ELSEWHERE = [b"elsewhere" + bytes([n]) * 7 for n in range(3)]
WISHES = [b"wish" + bytes([n]) * 12 for n in range(6)]
MINI, WINDOW, DOCTOR = int(Channel.MINI_PROGRAM), int(Channel.WINDOW), int(Channel.DOCTOR)
PUBLIC_SHARE = Share("", (Stage(0, 255),))
POOLS = (
    Share("window", (Stage(0, WINDOW), Stage(START + HALF_HOUR // 2, 255))),
    Share("later", (Stage(START + 300_000, 255),)),
    PUBLIC_SHARE,
)
POLICIES = [
    Policy(),
    Policy(
        terms={("", ""): Terms(returned=Returned(Return.COOL_DOWN, 120), waitlist=Waitlist(closes_minutes=5))}
    ),
    Policy(
        terms={
            ("", ""): Terms(
                returned=Returned(Return.RANDOM, 60, 600),
                first_visits_max=4,
                follow_ups_max=1,
                changes_max=1,
                closes_minutes=1,
                cancel_minutes=3,
                change_minutes=2,
                waitlist=Waitlist(offer_seconds=90, closes_minutes=0, length_max=4),
            )
        }
    ),
]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to three sessions of two departments; small slots, so that they fill; some with pools."""
    plan = []
    for period, clocks in PERIODS.items():
        if plan and not draw(st.booleans()):
            continue
        shares = POOLS if draw(st.booleans()) else ()
        slots = []
        for clock in clocks:
            capacity = draw(st.integers(1, 3))
            runs = tuple((n, 1) for n in sorted(draw(st.integers(0, 2)) for _ in range(capacity)))
            at = START + HALF_HOUR * (1 + CLOCKS.index(clock))
            slots.append(PlannedSlot(clock, at, capacity, runs if shares else ()))
        department = draw(st.sampled_from(["cardio", "derma"]))
        plan.append(Session(period, department, "expert", None, 5000, tuple(slots), shares))
    return tuple(plan)


@dataclass
class Seat:
    """A chair, whatever becomes of its slot: what the model knows that a seat is."""

    period: str
    number: int
    state: str = "free"  # free | taken | blocked | cooling


@dataclass
class Model:
    """Reads the events and keeps its own books, without bits."""

    slots: dict[str, list[Seat]] = field(default_factory=dict)
    period_of: dict[str, str] = field(default_factory=dict)
    sits: dict[bytes, Seat] = field(default_factory=dict)
    where: dict[bytes, str] = field(default_factory=dict)
    last_number: Counter[str] = field(default_factory=Counter)

    def see(self, event: s.Event) -> None:
        match event:
            case s.ScheduleOpened():
                for session in event.plan:
                    self.open(session)
            case s.SessionOpened():
                self.open(event.session)
            case s.SeatsAdded():
                self.add(event.clock, event.count)
            case s.SeatHeld():
                seat = self.slots[event.clock][event.seat]
                self.turn(seat, "free", "taken")
                self.sits[event.appointment_id], self.where[event.appointment_id] = seat, event.clock
            case s.SeatReleased():
                seat = self.sits[event.appointment_id]
                self.turn(seat, "taken", "cooling" if event.cooling_until else "free")
                if event.reason == "lost_claim":
                    del self.sits[event.appointment_id], self.where[event.appointment_id]
            case s.SeatRestored():
                seat = self.sits[event.appointment_id]
                assert seat.state in ("free", "cooling")
                seat.state = "taken"
            case s.AttendanceRecorded():
                seat = self.sits[event.appointment_id]
                if event.status == s.Status.NOSHOW:
                    self.turn(seat, "taken", "free")
                elif seat.state == "free":
                    seat.state = "taken"
            case s.CoolingEnded():
                for n in event.seats:
                    self.turn(self.slots[event.clock][n], "cooling", "free")
            case s.SeatsBlocked():
                for n in event.seats:
                    assert self.slots[event.clock][n].state in ("free", "cooling")
                    self.slots[event.clock][n].state = "blocked"
            case s.SeatsUnblocked():
                for n in event.seats:
                    self.turn(self.slots[event.clock][n], "blocked", "free")
            case s.SessionMoved():
                to = {old: new for old, new, _ in event.moves}
                self.slots = {to.get(clock, clock): found for clock, found in self.slots.items()}
                self.period_of = {to.get(clock, clock): p for clock, p in self.period_of.items()}
                self.where = {a: to.get(clock, clock) for a, clock in self.where.items()}

    def open(self, session: Session) -> None:
        for slot in session.slots:
            assert slot.clock not in self.slots
            self.slots[slot.clock], self.period_of[slot.clock] = [], session.period
            self.add(slot.clock, slot.capacity)

    def add(self, clock: str, count: int) -> None:
        period = self.period_of[clock]
        for _ in range(count):
            self.last_number[period] += 1
            self.slots[clock].append(Seat(period, self.last_number[period]))

    def turn(self, seat: Seat, before: str, after: str) -> None:
        assert seat.state == before, f"{seat} should have been {before}"
        seat.state = after

    def compare(self, schedule: s.Schedule) -> None:
        assert self.slots.keys() == schedule.slots.keys()
        for clock, slot in schedule.slots.items():
            mine = self.slots[clock]
            assert slot.capacity == len(mine)
            for n, seat in enumerate(mine):
                bits = slot.taken >> n & 1, slot.blocked >> n & 1, slot.cooling >> n & 1
                expected = tuple(int(seat.state == word) for word in ("taken", "blocked", "cooling"))
                assert bits == expected, f"{clock} seat {n}: {bits} for {seat}"
                assert seats.number_of(slot, n) == seat.number, "a number has changed"
        for appointment_id, a in schedule.appointments.items():
            assert a.clock == self.where[appointment_id]
            assert self.slots[a.clock][a.seat] is self.sits[appointment_id], "sits somewhere else"


class Day(RuleBasedStateMachine):
    """The engine's decide and apply, beside a model that knows only what was told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.schedule = s.Schedule()
        self.journal: list[s.Event] = []
        self.model = Model()
        self.booked_once: set[bytes] = set()
        self.answers: dict[bytes, tuple[int, int]] = {}
        self.last: tuple[s.Command, list[s.Event], s.Schedule] | None = None
        self.commands = 0
        self.policy = Policy()

    @initialize(plan=plans(), policy=st.sampled_from(POLICIES))
    def open(self, plan: Plan, policy: Policy) -> None:
        self.plan, self.policy = plan, policy
        assert self.run(s.OpenSchedule(plan)) == [s.ScheduleOpened(plan)]

    def decide(self, command: s.Command) -> list[s.Event] | Refusal:
        return s.decide(self.schedule, command, self.now, self.policy, chance=4711)

    def run(self, command: s.Command) -> list[s.Event] | Refusal:
        before = copy.deepcopy(self.schedule)
        outcome = self.decide(command)
        assert self.schedule == before, "decide changed the state"
        assert outcome == self.decide(command), "decide is not a function"
        if isinstance(outcome, Refusal):
            return outcome
        for event in outcome:
            self.happen(event)
        self.last = command, outcome, before
        if not isinstance(command, s.OfferSeats):
            again = self.decide(command)
            assert again == [], f"{command} said again is not harmless: {again}"
        s.reply_to(self.schedule, command)
        return outcome

    def happen(self, event: s.Event) -> None:
        s.apply(self.schedule, event)
        self.journal.append(event)
        self.model.see(event)
        self.model.compare(self.schedule)
        assert s.conservation_error(self.schedule) == 0
        match event:
            case s.SeatHeld():
                longest = OFFER_SECONDS_MAX if event.replaces or event.wish_id else HOLD_SECONDS_MAX
                slot = self.schedule.slots[event.clock]
                last = slot.starts_at + (0 if event.channel == MINI else SLOT_MS)
                assert event.hold_until <= last
                assert event.channel == DOCTOR or self.now < event.hold_until <= self.now + longest * 1000
                assert slot.session.status == "open" or event.channel == DOCTOR
            case s.SeatBooked():
                self.booked_once.add(event.appointment_id)
            case s.SeatReleased():
                if event.reason == "expired":
                    assert event.appointment_id not in self.booked_once, "a booked one expired"

    # Time.

    @rule(step=st.sampled_from([1, 500, 1_000, 60_000, 300_000, 900_000]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @precondition(lambda self: s.next_wake(self.schedule))
    @rule(early=st.booleans())
    def time_passes_until_something_ends(self, early: bool) -> None:
        """To the very millisecond, or the one before: that is where mistakes are."""
        self.now = max(self.now, (s.next_wake(self.schedule) or 0) - early)

    @rule()
    def sweep(self) -> None:
        self.run(s.ExpireHolds())
        assert all(until > self.now for until in self.schedule.holds.values())
        assert all(until > self.now for until in self.schedule.cooling.values())

    # Booking.

    @rule(
        appointment=st.sampled_from(IDS),
        at=st.integers(0, 8),
        patient=st.sampled_from(PATIENTS),
        account=st.sampled_from(ACCOUNTS),
        seconds=st.sampled_from([0, 1, 60, 900, 10**6]),
        channel=st.sampled_from([MINI, MINI, MINI, WINDOW]),
        visit=st.sampled_from([0, 0, 1]),
    )
    def hold(
        self,
        appointment: bytes,
        at: int,
        patient: bytes,
        account: bytes,
        seconds: int,
        channel: int,
        visit: int,
    ) -> None:
        self.ask_for(s.HoldSeat(appointment, self.clock(at), patient, account, seconds, channel, visit))

    @precondition(lambda self: self.schedule.holds)
    @rule(early=st.booleans(), appointment=st.sampled_from(IDS), patient=st.sampled_from(PATIENTS))
    def somebody_wants_the_next_seat_to_expire(self, early: bool, appointment: bytes, patient: bytes) -> None:
        ends, first = min((until, a) for a, until in self.schedule.holds.items())
        self.now = max(self.now, ends - early)
        clock = self.schedule.appointments[first].clock
        self.ask_for(s.HoldSeat(appointment, clock, patient, ACCOUNTS[0], 60))

    @rule(appointment=st.sampled_from(IDS), at=st.integers(0, 8), patient=st.sampled_from(PATIENTS))
    def book(self, appointment: bytes, at: int, patient: bytes) -> None:
        outcome = self.ask_for(s.HoldSeat(appointment, self.clock(at), patient, ACCOUNTS[0]))
        if outcome and not isinstance(outcome, Refusal):
            assert s.SeatBooked(appointment) in self.run(s.ConfirmAppointment(appointment, ACCOUNTS[0]))

    def clock(self, at: int) -> str:
        """Of the slots that there are; seldom none of them."""
        clocks = sorted(self.schedule.slots)
        return clocks[at % len(clocks)] if at < 8 else "2330"

    def some(self, which: int) -> bytes:
        known = [a for a, x in self.schedule.appointments.items() if x.status <= s.Status.BOOKED]
        return known[which % len(known)] if known and which else IDS[which]

    def ended(self) -> list[bytes]:
        return [a for a, until in self.schedule.holds.items() if until <= self.now]

    def holder(self, patient: bytes, department: str) -> list[bytes]:
        ended = self.ended()
        return [
            a
            for a, x in self.schedule.appointments.items()
            if x.patient_id == patient
            and self.schedule.slots[x.clock].session.department_id == department
            and x.status <= s.Status.FULFILLED
            and a not in ended
        ]

    def waiting_for(self, slot: seats.Slot) -> int:
        """How many who are alone and wait could be offered this slot."""
        terms = self.policy.terms_of(slot.session.department_id, slot.session.number_class_id)
        return sum(self.could_have(wish, slot, terms) for wish in self.schedule.wishes.values())

    def could_have(self, wish: s.Wish, slot: seats.Slot, terms: Terms) -> bool:
        limit = terms.follow_ups_max if wish.visit else terms.first_visits_max
        mine = [
            a
            for a, x in self.schedule.appointments.items()
            if x.patient_id in wish.patient_ids
            and self.schedule.slots[x.clock].session.department_id == slot.session.department_id
            and x.status <= s.Status.FULFILLED
            and a != wish.replaces
        ]
        return (
            len(wish.patient_ids) == 1
            and not wish.offered
            and self.now < wish.until
            and not (wish.clocks and slot.clock not in wish.clocks)
            and slot.clock not in wish.skips
            and slot.session.status == "open"
            and self.now < slot.starts_at - terms.waitlist.closes_minutes * 60_000
            and (limit is None or slot.session.visits[wish.visit] < limit)
            and not mine
        )

    def open_to(self, slot: seats.Slot, seat: int, channel: int) -> bool:
        shares = slot.session.shares
        mine = [share for share, mask in zip(shares, slot.masks, strict=True) if mask >> seat & 1]
        return not shares or bool(mine[0].channels(self.now) & channel)

    def ask_for(self, command: s.HoldSeat) -> list[s.Event] | Refusal:
        known = copy.deepcopy(self.schedule.appointments.get(command.appointment_id))
        slot = copy.deepcopy(self.schedule.slots.get(command.clock))
        formerly = known is not None and command.clock in self.schedule.slots[known.clock].formerly
        free: set[int] = set()
        waiting, active = 0, []
        limit = None
        if slot is not None:
            terms = self.policy.terms_of(slot.session.department_id, slot.session.number_class_id)
            limit = terms.follow_ups_max if command.visit else terms.first_visits_max
            could = {n for n in range(slot.capacity) if self.open_to(slot, n, command.channel)}
            free = {
                n for n, seat in enumerate(self.model.slots[command.clock]) if seat.state == "free"
            } & could
            active = [
                a
                for a in self.holder(command.patient_id, slot.session.department_id)
                if a != command.replaces and self.schedule.appointments[a].replaces != command.replaces
            ]
            waiting = self.waiting_for(slot)
        contested = {n for n in free if slot and self.open_to(slot, n, MINI)}
        ended = self.ended()
        outcome = self.run(command)
        if known is not None:
            same = (known.patient_id, known.replaces) == (command.patient_id, command.replaces) and (
                known.clock == command.clock or formerly
            )
            assert outcome == ([] if same else Refusal(Reason.KEY_REUSED))
        elif slot is None:
            assert outcome == Refusal(Reason.NO_SUCH_SLOT)
        elif isinstance(outcome, Refusal):
            mine = [a for a in ended if self.schedule.appointments[a].clock == slot.clock]
            reason = outcome.reason
            if reason is Reason.ALREADY_BOOKED:
                assert self.holder(command.patient_id, slot.session.department_id)
            elif reason is Reason.VISIT_LIMIT:
                taken = sum(
                    x.visit == command.visit
                    and x.status <= s.Status.FULFILLED
                    and a not in ended
                    and self.schedule.slots[x.clock].session.period == slot.session.period
                    for a, x in self.schedule.appointments.items()
                )
                assert limit is not None and taken >= limit
            elif reason in (Reason.SLOT_FULL, Reason.NOT_RELEASED):
                groups = any(len(w.patient_ids) > 1 and not w.offered for w in self.schedule.wishes.values())
                assert not free - contested, f"refused with {free} free"
                assert groups or len(contested) <= waiting, f"refused with {free} free"
                assert waiting or not mine or self.policy.terms or slot.session.shares
            else:
                assert reason in (
                    Reason.SLOT_PAST, Reason.BOOKING_CLOSED, Reason.SESSION_PAUSED, Reason.SESSION_SUSPENDED,
                )  # fmt: skip
        elif outcome:
            assert not active
            held = outcome[-1]
            assert isinstance(held, s.SeatHeld)
            assert held.seat in could, "a seat of others"
            if held.seat in contested and not any(isinstance(e, s.SeatReleased) for e in outcome):
                assert len(contested) > waiting, "taken before the eyes of those who wait"
        if not isinstance(outcome, Refusal):
            answer = s.answer(self.schedule, command.appointment_id)
            first = self.answers.setdefault(command.appointment_id, (answer.number, answer.hold_until))
            assert first == (answer.number, answer.hold_until), "a retry learns something else"
        return outcome

    @rule(
        first=st.integers(0, 59),
        patients=st.lists(st.sampled_from(PATIENTS), max_size=3, unique=True),
        at=st.integers(0, 8),
        account=st.sampled_from(ACCOUNTS),
    )
    def hold_a_group(self, first: int, patients: list[bytes], at: int, account: bytes) -> None:
        members = tuple((IDS[(first + n) % 60], patient) for n, patient in enumerate(patients))
        outcome = self.run(s.HoldGroup(members, self.clock(at), account, 60))
        if not isinstance(outcome, Refusal) and outcome:
            held = [e for e in outcome if isinstance(e, s.SeatHeld)]
            assert [(e.appointment_id, e.patient_id) for e in held] == list(members), "not all"
            times = sorted({self.schedule.slots[e.clock].starts_at for e in held})
            period = {self.schedule.slots[e.clock].session.period for e in held}
            assert len(period) == 1
            used = [x for x in self.schedule.slots.values() if x.session.period in period]
            between = sorted(x.starts_at for x in used if times[0] <= x.starts_at <= times[-1])
            assert all(b - a == HALF_HOUR for a, b in zip(between, between[1:], strict=False)), (
                "not neighbours"
            )
            for e in held:
                answer = s.answer(self.schedule, e.appointment_id)
                self.answers[e.appointment_id] = answer.number, answer.hold_until

    @rule(which=st.integers(0, 20), account=st.sampled_from(ACCOUNTS))
    def confirm(self, which: int, account: bytes) -> None:
        appointment = self.some(which)
        before = copy.deepcopy(self.schedule.appointments.get(appointment))
        outcome = self.run(s.ConfirmAppointment(appointment, account))
        if before is None or before.account_id != account:
            assert outcome == Refusal(Reason.NO_SUCH_APPOINTMENT)
        elif before.status is s.Status.PENDING and before.hold_until <= self.now:
            assert outcome == Refusal(Reason.HOLD_EXPIRED)
        elif before.status is s.Status.PENDING and before.replaces:
            assert outcome == Refusal(Reason.CHANGE_UNSETTLED)
        elif before.status is s.Status.PENDING:
            assert not isinstance(outcome, Refusal) and s.SeatBooked(appointment) in outcome

    @rule(
        which=st.integers(0, 20),
        account=st.sampled_from([ACCOUNTS[0], *ACCOUNTS]),
        by=st.sampled_from(["", "staff:1"]),
    )
    def cancel(self, which: int, account: bytes, by: str) -> None:
        appointment = self.some(which)
        known = self.schedule.appointments.get(appointment)
        mine = known is not None and known.account_id == account
        outcome = self.run(s.CancelAppointment(appointment, account, by))
        if not mine:
            assert outcome == Refusal(Reason.NO_SUCH_APPOINTMENT)
        elif not isinstance(outcome, Refusal):
            assert self.schedule.appointments[appointment].status in (s.Status.CANCELLED, s.Status.NOSHOW)

    # Changes.

    def booked(self) -> list[bytes]:
        return [a for a, x in self.schedule.appointments.items() if x.status is s.Status.BOOKED]

    @precondition(lambda self: self.booked())
    @rule(
        which=st.integers(0, 9),
        new=st.sampled_from(IDS),
        at=st.integers(0, 8),
        waives=st.integers(0, 3),
    )
    def hold_for_a_change_here(self, which: int, new: bytes, at: int, waives: int) -> None:
        old = self.booked()[which % len(self.booked())]
        a = self.schedule.appointments[old]
        more = {"replaces": old, "waives": waives, "changes": a.changes + 1}
        self.ask_for(s.HoldSeat(new, self.clock(at), a.patient_id, a.account_id, 60, **more))  # type: ignore[arg-type]

    @rule(
        old=st.sampled_from(ELSEWHERE), new=st.sampled_from(IDS), at=st.integers(0, 8),
        patient=st.sampled_from(PATIENTS),
    )  # fmt: skip
    def hold_for_a_change_from_elsewhere(self, old: bytes, new: bytes, at: int, patient: bytes) -> None:
        outcome = self.ask_for(
            s.HoldSeat(new, self.clock(at), patient, ACCOUNTS[0], 60, replaces=old, changes=1)
        )
        if outcome and not isinstance(outcome, Refusal):
            assert new in self.schedule.changes and new not in self.schedule.holds

    @precondition(lambda self: self.booked())
    @rule(
        which=st.integers(0, 9),
        away=st.booleans(),
        successor=st.sampled_from(IDS),
        by=st.sampled_from(["", "system"]),
    )
    def leave(self, which: int, away: bool, successor: bytes, by: str) -> None:
        old = self.booked()[which % len(self.booked())]
        a = copy.deepcopy(self.schedule.appointments[old])
        here = [x for x, y in self.schedule.appointments.items() if y.replaces == old and y.status == 1]
        new = b"away" + old[4:] if away else here[0] if here else successor
        if not away and new not in self.schedule.appointments:
            return
        slot = self.schedule.slots[a.clock]
        command = s.LeaveFor(old, new, a.account_id, slot.session.department_id, True, slot.starts_at, by)
        ready = new in here and self.schedule.appointments[new].hold_until > self.now
        outcome = self.run(command)
        if isinstance(outcome, Refusal):
            assert self.schedule.appointments[old].status is s.Status.BOOKED
            assert not (by and (away or ready)), outcome
        else:
            assert away or ready, "given up for nothing"
            assert self.schedule.appointments[old].status is s.Status.CANCELLED
            assert away or self.schedule.appointments[new].status is s.Status.BOOKED

    @precondition(lambda self: self.schedule.changes)
    @rule(which=st.integers(0, 9), left=st.booleans())
    def settle(self, which: int, left: bool) -> None:
        new = list(self.schedule.changes)[which % len(self.schedule.changes)]
        outcome = self.run(s.SettleChange(new, left))
        a = self.schedule.appointments[new]
        assert not isinstance(outcome, Refusal)
        if left:
            assert a.status is s.Status.BOOKED
        else:
            assert a.status is (s.Status.CANCELLED if a.hold_until <= self.now else s.Status.PENDING)

    @precondition(lambda self: self.last is not None and self.last[1])
    @rule()
    def the_change_was_made_or_given_up_elsewhere(self) -> None:
        """A release that lost its claim is undone: as if it had never been."""
        assert self.last is not None
        command, events, before = self.last
        if self.journal[-len(events) :] != events:
            return
        released = [e for e in events if isinstance(e, s.SeatReleased)]
        if isinstance(command, s.LeaveFor) and released[0].successor not in before.appointments:
            was = before.appointments[command.appointment_id]
            self.happen(s.SeatRestored(command.appointment_id, was.status))
            if any(isinstance(e, s.FateDecided) for e in events):
                self.happen(s.FateDecided(command.appointment_id, was.fate, was.successor))
            assert self.without_tries(self.schedule) == self.without_tries(before)
        elif isinstance(command, s.SettleChange | s.CancelAppointment) and (
            command.appointment_id in before.changes and released
        ):
            self.happen(s.SeatRestored(command.appointment_id, s.Status.PENDING))
            self.happen(s.SeatBooked(command.appointment_id))
            assert self.schedule.appointments[command.appointment_id].status is s.Status.BOOKED
        self.last = None

    def without_tries(self, schedule: s.Schedule) -> s.Schedule:
        """Dicts are equal in any order; what is left is what a wish has seen."""
        return replace(schedule, wishes={}, wishes_ended=set())

    @precondition(lambda self: any(isinstance(e, s.SeatHeld) for e in self.journal[-1:]))
    @rule()
    def the_last_hold_loses_its_claim(self) -> None:
        """The journal may give a number back that was just held: as if it had never been."""
        held = self.journal[-1]
        assert isinstance(held, s.SeatHeld)
        self.happen(s.SeatReleased(held.appointment_id, "lost_claim"))
        assert held.appointment_id not in self.schedule.appointments
        self.answers.pop(held.appointment_id, None)
        self.last = None

    # Waiting.

    @rule(
        wish=st.sampled_from(WISHES),
        patients=st.lists(st.sampled_from(PATIENTS), max_size=3),
        clocks=st.lists(st.sampled_from(CLOCKS), max_size=2),
        priority=st.integers(0, 1),
        anytime=st.booleans(),
        lasts=st.sampled_from([60_000, 10**8]),
        visit=st.sampled_from([0, 0, 1]),
    )
    def join(
        self, wish: bytes, patients: list[bytes], clocks: list[str], priority: int, anytime: bool, lasts: int,
        visit: int,
    ) -> None:  # fmt: skip
        clocks = [] if anytime else clocks
        ended = wish in self.schedule.wishes_ended
        outcome = self.run(
            s.JoinWaitlist(
                wish, ACCOUNTS[0], tuple(patients), tuple(clocks), priority, self.now, self.now + lasts, wish,
                visit=visit,
            )
        )  # fmt: skip
        assert not ended or outcome == [], "waits again although its waiting has ended"

    @precondition(lambda self: self.schedule.wishes)
    @rule(which=st.integers(0, 5))
    def withdraw(self, which: int) -> None:
        wish = list(self.schedule.wishes)[which % len(self.schedule.wishes)]
        self.run(s.LeaveWaitlist(wish, "withdrawn"))
        assert wish not in self.schedule.wishes

    @rule()
    def offer(self) -> None:
        """As the shard does: swept, and offered until nothing more is."""
        self.sweep()
        seen: set[bytes] = set()
        while True:
            queue = s.waitlist.queue(self.schedule.wishes.values())
            outcome = self.run(s.OfferSeats())
            assert not isinstance(outcome, Refusal)
            if not outcome:
                break
            wishes = {e.wish_id for e in outcome if isinstance(e, s.SeatHeld)}
            assert len(wishes) == 1 and not wishes & seen
            seen |= wishes
            [offered] = [w for w in queue if w.wish_id in wishes]
            assert len(outcome) == len(offered.patient_ids), "a group is offered seats for all of it"
        for slot in self.schedule.slots.values():
            public = [
                n
                for n, seat in enumerate(self.model.slots[slot.clock])
                if seat.state == "free" and self.open_to(slot, n, MINI)
            ]
            assert not (public and self.waiting_for(slot)), "free to all, and somebody waits for it"

    # The visit.

    @precondition(lambda self: self.schedule.appointments)
    @rule(which=st.integers(0, 30), status=st.sampled_from([2, 3, 4, 6, 9]))
    def attend(self, which: int, status: int) -> None:
        appointment = list(self.schedule.appointments)[which % len(self.schedule.appointments)]
        before = self.schedule.appointments[appointment].status
        outcome = self.run(s.RecordAttendance(appointment, status, "staff:1"))
        if not isinstance(outcome, Refusal) and outcome:
            assert self.schedule.appointments[appointment].status == status
            assert before not in (s.Status.PENDING, s.Status.CANCELLED)

    @precondition(lambda self: self.schedule.appointments)
    @rule(which=st.integers(0, 30), account=st.sampled_from(ACCOUNTS), answers=st.booleans())
    def asked_whether_they_come(self, which: int, account: bytes, answers: bool) -> None:
        """Who said that he comes keeps his number, whatever is released."""
        appointment = list(self.schedule.appointments)[which % len(self.schedule.appointments)]
        if answers:
            self.run(s.ConfirmAttendance(appointment, account))
        kept = self.schedule.appointments[appointment].will_come
        outcome = self.run(s.ReleaseUnconfirmed(appointment))
        assert not (kept and outcome), "he said that he would come"

    # The day itself.

    def command(self, again: bool) -> bytes:
        self.commands += not again
        return self.commands.to_bytes(16, "big")

    @rule(
        again=st.booleans(),
        expected=st.sampled_from([-1, -1, 0, 1]),
        period=st.sampled_from(list(PERIODS)),
        capacities=st.lists(st.integers(0, 2), min_size=1, max_size=2),
        at=st.integers(-1, 9),
        shared=st.booleans(),
    )
    def open_session(
        self, again: bool, expected: int, period: str, capacities: list[int], at: int, shared: bool
    ) -> None:
        slots = tuple(
            PlannedSlot(f"x{at + n:03}", START + (at + n) * HALF_HOUR, c, ((0, c),) if shared else ())
            for n, c in enumerate(capacities)
        )
        shares = (POOLS[0],) if shared else ()
        mine = [x for x in self.schedule.slots.values() if x.session.period == period]
        department = mine[0].session.department_id if mine else "cardio"
        session = Session(period, department, "expert", None, 5000, slots, shares)
        if set(x.clock for x in slots) & self.schedule.slots.keys():
            return
        self.run(s.OpenSession(self.command(again), expected, "staff:1", "", session))

    @rule(
        again=st.booleans(), period=st.sampled_from(list(PERIODS)), at=st.integers(0, 8),
        delta=st.integers(-2, 2),
    )  # fmt: skip
    def change_capacity(self, again: bool, period: str, at: int, delta: int) -> None:
        ended = self.ended()
        clock = "" if at > 5 else self.clock(at)
        if clock:
            period = self.schedule.slots[clock].session.period
        outcome = self.run(s.ChangeCapacity(self.command(again), -1, "staff:1", "", period, clock, delta))
        if isinstance(outcome, Refusal) and outcome.reason is Reason.BELOW_SOLD:
            mine = self.model.slots[str(outcome.detail["clock"])]
            mine = [seat for seat in mine if seat.state != "blocked"]
            sold = {
                id(self.model.sits[a])
                for a, x in self.schedule.appointments.items()
                if x.status <= s.Status.FULFILLED and a not in ended
            }
            assert len(mine) + delta < sum(id(seat) in sold for seat in mine)

    @rule(
        again=st.booleans(), at=st.integers(0, 8), count=st.integers(0, 2),
        channels=st.sampled_from([0, DOCTOR, 255, MINI]),
    )  # fmt: skip
    def add_seats(self, again: bool, at: int, count: int, channels: int) -> None:
        self.run(s.AddSeats(self.command(again), -1, "staff:1", "", self.clock(at), count, channels))

    @rule(
        again=st.booleans(), at=st.integers(0, 8), appointment=st.sampled_from(IDS),
        patient=st.sampled_from(PATIENTS),
    )  # fmt: skip
    def add_patient(self, again: bool, at: int, appointment: bytes, patient: bytes) -> None:
        command = s.AddPatient(
            self.command(again), -1, "staff:1", "", self.clock(at), appointment, patient, ACCOUNTS[0]
        )
        if command.command_id in self.schedule.commands and appointment not in self.schedule.appointments:
            return  # the same id for something else
        outcome = self.run(command)
        if not isinstance(outcome, Refusal) and outcome:
            assert self.schedule.appointments[appointment].status is s.Status.BOOKED

    @rule(
        again=st.booleans(), period=st.sampled_from(list(PERIODS)), by=st.integers(-2, 3),
        how=st.sampled_from(["shift", "shift", "room", "collide"]),
    )  # fmt: skip
    def move_session(self, again: bool, period: str, by: int, how: str) -> None:
        mine = [x for x in self.schedule.slots.values() if x.session.period == period]
        names = {x.starts_at: x.clock for x in mine}
        moves = tuple(
            (x.clock, names.get(at, f"m{(at - START) // HALF_HOUR:03}"), at)
            for x in mine
            if (at := x.starts_at + by * HALF_HOUR)
        )
        if how == "collide" and moves:
            moves = tuple((old, moves[0][1], at) for old, _, at in moves)
        taken = self.schedule.slots.keys() - {x.clock for x in mine}
        if how != "collide" and {new for _, new, _ in moves} & taken:
            return
        self.sweep()
        before = dict(self.schedule.cooling)
        self.run(
            s.MoveSession(
                self.command(again), -1, "staff:1", "", period, () if how == "room" else moves, "r2"
            )
        )
        assert sorted(before.values()) == sorted(self.schedule.cooling.values()), "a cooling seat was lost"

    @rule(
        again=st.booleans(), period=st.sampled_from(list(PERIODS)),
        status=st.sampled_from(["open", "open", "paused", "suspended", "closed"]),
    )  # fmt: skip
    def set_status(self, again: bool, period: str, status: str) -> None:
        there = sorted({x.session.period for x in self.schedule.slots.values()})
        period = there[list(PERIODS).index(period) % len(there)]
        command_id = self.command(again)
        known = command_id in self.schedule.commands
        outcome = self.run(s.SetSessionStatus(command_id, -1, "staff:1", "", period, status, "ill"))
        if isinstance(outcome, Refusal) or known:
            return
        for a, x in self.schedule.appointments.items():
            if self.schedule.slots[x.clock].session.period != period:
                continue
            if status == "suspended":
                if x.status in (s.Status.BOOKED, s.Status.ARRIVED):
                    assert x.fate, "nobody looks after this one"
                if x.status is s.Status.PENDING:
                    assert a in self.schedule.changes, "held in a session that is called off"
            elif x.status <= s.Status.ARRIVED:
                assert not x.fate

    @rule(
        again=st.booleans(), period=st.sampled_from(list(PERIODS)), who=st.sampled_from([None, "D0002"])
    )  # fmt: skip
    def substitute(self, again: bool, period: str, who: str | None) -> None:
        self.run(s.SubstituteSession(self.command(again), -1, "staff:1", "", period, who))

    @precondition(lambda self: self.schedule.appointments)
    @rule(which=st.integers(0, 30), accepted=st.booleans())
    def answer_substitute(self, which: int, accepted: bool) -> None:
        appointment = list(self.schedule.appointments)[which % len(self.schedule.appointments)]
        a = self.schedule.appointments[appointment]
        outcome = self.run(s.AnswerSubstitute(appointment, a.account_id, accepted))
        if not isinstance(outcome, Refusal) and outcome and not accepted:
            assert a.status is s.Status.CANCELLED

    @precondition(lambda self: any(x.fate for x in self.schedule.appointments.values()))
    @rule(which=st.integers(0, 9), fate=st.sampled_from(["offered", "refunded", "waitlisted", "moved"]))
    def decide_fate(self, which: int, fate: str) -> None:
        affected = [a for a, x in self.schedule.appointments.items() if x.fate]
        appointment = affected[which % len(affected)]
        before = self.schedule.appointments[appointment].fate
        outcome = self.run(s.DecideFate(appointment, fate, b"" if fate == "refunded" else b"next"))
        after = self.schedule.appointments[appointment].fate
        if not isinstance(outcome, Refusal) and outcome:
            assert before in (s.AFFECTED, "offered") and after == fate != "moved"
        else:
            assert after == before

    @rule()
    def open_again(self) -> None:
        assert self.run(s.OpenSchedule(self.plan)) == []

    # What is always true.

    @invariant()
    def always(self) -> None:
        self.replay_is_live()
        self.numbers_are_unique_within_a_session_for_ever()
        self.nobody_sits_on_anybody()
        self.what_is_pending_is_what_may_expire()
        self.one_number_per_patient_and_department_beside_a_change()
        self.visits_are_counted()
        self.an_offer_is_known_to_its_wish()
        self.whoever_is_affected_is_decided_once()
        self.the_plan_that_is_shown_is_the_day()

    def replay_is_live(self) -> None:
        assert s.replay(self.journal) == self.schedule

    def numbers_are_unique_within_a_session_for_ever(self) -> None:
        numbers = Counter((seat.period, seat.number) for mine in self.model.slots.values() for seat in mine)
        assert all(count == 1 for count in numbers.values()), numbers

    def nobody_sits_on_anybody(self) -> None:
        sitting = [
            id(self.model.sits[a])
            for a, x in self.schedule.appointments.items()
            if x.status <= s.Status.FULFILLED
        ]
        assert len(sitting) == len(set(sitting))

    def what_is_pending_is_what_may_expire(self) -> None:
        pending = {
            a: x.hold_until for a, x in self.schedule.appointments.items() if x.status is s.Status.PENDING
        }
        assert {**self.schedule.holds, **self.schedule.changes} == pending
        assert not self.schedule.holds.keys() & self.schedule.changes.keys()
        for a in self.schedule.changes:
            assert self.schedule.appointments[a].replaces not in self.schedule.appointments

    def one_number_per_patient_and_department_beside_a_change(self) -> None:
        active: dict[tuple[bytes, str], list[bytes]] = {}
        for a, x in self.schedule.appointments.items():
            if x.status <= s.Status.FULFILLED:
                key = x.patient_id, self.schedule.slots[x.clock].session.department_id
                active.setdefault(key, []).append(a)
        for mine in active.values():
            plain = [
                a
                for a in mine
                if self.schedule.appointments[a].status is not s.Status.PENDING
                or not self.schedule.appointments[a].replaces
            ]
            assert len(plain) <= 1, "two numbers of one patient and department"
        known = {patient + department.encode(): mine for (patient, department), mine in active.items()}
        assert self.schedule.active.keys() == known.keys()
        assert all(owner in known[key] for key, owner in self.schedule.active.items())

    def visits_are_counted(self) -> None:
        told: Counter[tuple[str, int]] = Counter(
            (self.schedule.slots[x.clock].session.period, x.visit)
            for x in self.schedule.appointments.values()
            if x.status <= s.Status.FULFILLED
        )
        for slot in self.schedule.slots.values():
            period = slot.session.period
            assert slot.session.visits == [told[period, 0], told[period, 1]]

    def an_offer_is_known_to_its_wish(self) -> None:
        offered = {
            a for a, x in self.schedule.appointments.items()
            if x.status is s.Status.PENDING and x.wish_id in self.schedule.wishes
        }  # fmt: skip
        assert offered >= {a for wish in self.schedule.wishes.values() for a in wish.offered}

    def whoever_is_affected_is_decided_once(self) -> None:
        for x in self.schedule.appointments.values():
            if x.fate in (s.AFFECTED, "offered"):
                assert x.status in (s.Status.BOOKED, s.Status.ARRIVED), "gone, and nobody decided on it"
            elif x.fate:
                assert x.status is s.Status.CANCELLED

    def the_plan_that_is_shown_is_the_day(self) -> None:
        plan = seats.plan_of(self.schedule.slots)
        assert plan_from_data(plan_as_data(plan)) == plan
        again = s.replay([s.ScheduleOpened(plan)])
        assert again.slots.keys() == self.schedule.slots.keys()
        for clock, slot in self.schedule.slots.items():
            shown = again.slots[clock]
            assert (shown.starts_at, shown.capacity, shown.masks) == (
                slot.starts_at,
                slot.capacity,
                slot.masks,
            )
            assert shown.session.shares == slot.session.shares
            assert shown.session.status == slot.session.status
            assert shown.session.substitute_id == slot.session.substitute_id
            assert shown.session.room_id == slot.session.room_id


Day.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=60,
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
