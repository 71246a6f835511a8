"""A dry run: what another policy would have made of days as they were recorded.

Pure. The recorded bookings, confirmations, cancels and changes are asked again, in their order, of the same
`decide` that the actors use, under the policy that is tried; eligibility and conduct are judged as at a
gateway's shard. Who is refused then does nothing later. What is not rehearsed: waiting lists (a number that
was offered counts as asked for by its patient), and people who would have come had they been let.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from zoneinfo import ZoneInfo

from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.conduct import Verdict, judge
from engine.domain.eligibility import Block, DepartmentRule, Facts, check
from engine.domain.ids import ScheduleKey
from engine.domain.planning import Session
from engine.domain.policy import ConductRule, Offence, Policy, Subject
from engine.domain.refusal import Refusal
from engine.domain.release import release


@dataclass(frozen=True, slots=True)
class Recorded:
    at: int  # ms
    key: ScheduleKey
    event: s.Event


@dataclass(frozen=True, slots=True)
class Refused:
    what: str  # book | confirm | cancel | change
    rule: str
    appointment_id: bytes
    slot_id: str
    at: int  # ms


@dataclass(frozen=True, slots=True)
class Blocked:
    subject: Subject
    id: bytes
    verdict: Verdict


@dataclass(slots=True)
class Outcome:
    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by Refused.what
    refused: list[Refused] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)


def rehearse(recorded: Iterable[Recorded], policy: Policy, zone: ZoneInfo) -> Outcome:
    """`recorded` in the order in which it happened, each day from its ScheduleOpened on."""
    return _Rehearsal(policy, zone).run(recorded)


class _Rehearsal:
    def __init__(self, policy: Policy, zone: ZoneInfo) -> None:
        self.policy = policy
        self.zone = zone
        self.outcome = Outcome()
        self.days: dict[ScheduleKey, s.Schedule] = {}
        self.of_patient: dict[bytes, list[tuple[ScheduleKey, bytes]]] = defaultdict(list)
        self.holds_of: dict[bytes, set[tuple[ScheduleKey, bytes]]] = defaultdict(set)
        self.offences: dict[tuple[Subject, bytes], list[tuple[Offence, int]]] = defaultdict(list)
        self.given_up: set[bytes] = set()
        self.judged: dict[tuple[Subject, bytes], tuple[int, list[Verdict]]] = {}

    def run(self, recorded: Iterable[Recorded]) -> Outcome:
        last = 0
        for each in recorded:
            last = max(last, each.at)
            self._take(each.key, self.days.setdefault(each.key, s.Schedule()), each.event, each.at)
        for key, day in self.days.items():
            self._tick(key, day, last)
        for (kind, id_), offences in self.offences.items():
            verdicts = judge(offences, self._rules(kind), last)
            self.outcome.blocked += [Blocked(kind, id_, verdict) for verdict in verdicts]
        return self.outcome

    def _take(self, key: ScheduleKey, day: s.Schedule, event: s.Event, at: int) -> None:
        self._tick(key, day, at)
        match event:
            case s.ScheduleOpened():
                s.apply(day, s.ScheduleOpened(tuple(self._released(x, key) for x in event.plan)))
            case s.SessionOpened():
                s.apply(day, s.SessionOpened(self._released(event.session, key)))
            case s.SeatHeld():
                self._hold(key, day, event, at)
            case s.SeatBooked():
                self._confirm(key, day, event.appointment_id, at)
            case s.SeatReleased():
                self._release(key, day, event, at)
            case s.AttendanceRecorded():
                self._attend(key, day, event)
            case s.SeatsBlocked():
                slot = day.slots[event.clock]
                free = seats.free(slot) & seats.bits(event.seats)  # others sit there now
                s.apply(day, s.SeatsBlocked(event.clock, tuple(seats.indices(free))))
            case s.SeatsAdded() | s.SeatsUnblocked() | s.SessionMoved() | s.SessionStatusSet():
                s.apply(day, event)
            case s.SessionSubstituted():
                s.apply(day, event)
            case _:
                pass  # wishes, answers and fates change no seat; cooling is this policy's own

    def _tick(self, key: ScheduleKey, day: s.Schedule, now: int) -> None:
        """What time alone has brought: holds that nobody paid are offences from the moment they ended."""
        ends = {id_: until for id_, until in day.holds.items() if until <= now}
        if not ends and not any(until <= now for until in day.cooling.values()):
            return
        events = s.decide(day, s.ExpireHolds(), now, self.policy)
        assert not isinstance(events, Refusal)
        for event in events:
            s.apply(day, event)
        for id_, until in ends.items():
            self.holds_of[day.appointments[id_].account_id].discard((key, id_))
            self._offend(day.appointments[id_], Offence.DROPPED_HOLD, until)

    def _released(self, session: Session, key: ScheduleKey) -> Session:
        terms = self.policy.terms_of(session.department_id, session.number_class_id)
        return release(session, terms, date.fromisoformat(key.day), self.zone)

    def _hold(self, key: ScheduleKey, day: s.Schedule, event: s.SeatHeld, at: int) -> None:
        self.outcome.asked["book"] += 1
        slot = day.slots.get(event.clock)
        department_id = "" if slot is None else slot.session.department_id
        refusal = check(
            self._facts(key, event, at), DepartmentRule(), self.policy, date.fromisoformat(key.day), at
        )
        offer = self.policy.terms_of(department_id, "" if slot is None else slot.session.number_class_id)
        command = s.HoldSeat(
            event.appointment_id,
            event.clock,
            event.patient_id,
            event.account_id,
            offer.waitlist.offer_seconds if event.wish_id else 0,
            event.channel,
            event.visit,
            event.by,
            event.replaces,
            event.waives,
            event.changes,
        )
        decided = refusal or s.decide(day, command, at, self.policy)
        if isinstance(decided, Refusal):
            self._refused("book", decided, key, event.appointment_id, event.clock, at)
            return
        for each in decided:
            s.apply(day, each)
        self.of_patient[event.patient_id].append((key, event.appointment_id))
        self.holds_of[event.account_id].add((key, event.appointment_id))

    def _confirm(self, key: ScheduleKey, day: s.Schedule, id_: bytes, at: int) -> None:
        appointment = day.appointments.get(id_)
        if appointment is None or id_ in self.given_up or appointment.status is s.Status.BOOKED:
            return  # refused when it was asked for, or booked by the change that brought it
        self.outcome.asked["confirm"] += 1
        if appointment.status is not s.Status.PENDING:
            refusal = s.decide(day, s.ConfirmAppointment(id_, appointment.account_id), at, self.policy)
            assert isinstance(refusal, Refusal)
            self._refused("confirm", refusal, key, id_, appointment.clock, at)
            return
        s.apply(day, s.SeatBooked(id_))
        self.holds_of[appointment.account_id].discard((key, id_))

    def _release(self, key: ScheduleKey, day: s.Schedule, event: s.SeatReleased, at: int) -> None:
        id_ = event.appointment_id
        appointment = day.appointments.get(id_)
        if appointment is None or appointment.status > s.Status.FULFILLED or event.reason == "expired":
            return  # it never came to be, or has ended; holds end by this policy's own time
        if event.reason == "lost_claim":  # as if nobody had asked
            self.outcome.asked["book"] -= 1
            self.of_patient[appointment.patient_id].remove((key, id_))
        booked = appointment.status is not s.Status.PENDING
        decided: list[s.Event] | Refusal = [s.SeatReleased(id_, event.reason)]
        what = "cancel"
        if event.reason == "cancelled":
            cancel = s.CancelAppointment(id_, appointment.account_id, event.by, event.note)
            decided = s.decide(day, cancel, at, self.policy)
        elif event.reason == "changed":
            what = "change"
            decided = self._leave(day, appointment, event, at)
        if event.reason in ("cancelled", "changed"):
            self.outcome.asked[what] += 1
        if isinstance(decided, Refusal):
            self._refused(what, decided, key, id_, appointment.clock, at)
            if what == "change":
                self._give_back(event.successor)
            return
        for each in decided:
            s.apply(day, each)
        self.holds_of[appointment.account_id].discard((key, id_))
        slot = day.slots[appointment.clock] if event.reason != "lost_claim" else None
        if event.reason == "cancelled" and booked and not event.by and slot is not None:
            self._offend(appointment, Offence.CANCEL, at)
            if slot.starts_at - at <= self.policy.late_cancel_minutes * 60_000:
                self._offend(appointment, Offence.LATE_CANCEL, at)

    def _leave(
        self, day: s.Schedule, appointment: s.Appointment, event: s.SeatReleased, at: int
    ) -> list[s.Event] | Refusal:
        """Without the number that it was changed for nobody gives the old one up."""
        if not any(id_ == event.successor for _, id_ in self.of_patient[appointment.patient_id]):
            return []
        slot = day.slots[appointment.clock]
        leave = s.LeaveFor(
            event.appointment_id,
            event.successor,
            appointment.account_id,
            slot.session.department_id,
            True,
            slot.starts_at,
            event.by,
        )
        return s.decide(day, leave, at, self.policy)

    def _give_back(self, successor: bytes) -> None:
        """The number that was held for a change which is refused now; nobody's offence."""
        for day in self.days.values():
            appointment = day.appointments.get(successor)
            if appointment is not None and appointment.status is s.Status.PENDING:
                s.apply(day, s.SeatReleased(successor, "expired"))
                self.given_up.add(successor)

    def _attend(self, key: ScheduleKey, day: s.Schedule, event: s.AttendanceRecorded) -> None:
        appointment = day.appointments.get(event.appointment_id)
        if appointment is None or appointment.status not in (
            s.Status.BOOKED,
            s.Status.ARRIVED,
            s.Status.FULFILLED,
        ):
            return
        if appointment.status == event.status:
            return
        s.apply(day, event)
        if event.status == s.Status.NOSHOW:
            self._offend(appointment, Offence.NO_SHOW, day.slots[appointment.clock].starts_at)

    def _facts(self, key: ScheduleKey, event: s.SeatHeld, now: int) -> Facts:
        """As engine/records/facts.py tells them, as far as rules of the policy ask."""
        active = same_day = 0
        for other_key, id_ in self.of_patient[event.patient_id]:
            other = self.days[other_key].appointments[id_]
            pending = other.status is s.Status.PENDING and other.hold_until > now
            taken = pending or s.Status.PENDING < other.status <= s.Status.FULFILLED
            starts_at = self.days[other_key].slots[other.clock].starts_at
            if id_ != event.replaces:
                active += taken and other.status <= s.Status.BOOKED and starts_at > now
                same_day += taken and other_key.day == key.day
        holds = [
            id_
            for other_key, id_ in self.holds_of[event.account_id]
            if self.days[other_key].appointments[id_].status is s.Status.PENDING
            and self.days[other_key].appointments[id_].hold_until > now
        ]
        return Facts(
            True,
            block=self._block(event, now),
            active_appointments=active,
            day_appointments=same_day,
            account_holds=len(holds),
        )

    def _block(self, event: s.SeatHeld, now: int) -> Block | None:
        standing = [
            Block(b"", verdict.rule.name, verdict.rule.offence, verdict.ends)
            for kind, id_ in ((Subject.PATIENT, event.patient_id), (Subject.ACCOUNT, event.account_id))
            for verdict in self._verdicts(kind, id_, now)
            if verdict.begins <= now < verdict.ends
        ]
        return max(standing, key=lambda block: block.until, default=None)

    def _verdicts(self, kind: Subject, id_: bytes, now: int) -> list[Verdict]:
        offences = self.offences.get((kind, id_))
        if not offences:
            return []
        count, verdicts = self.judged.get((kind, id_), (0, []))
        if count != len(offences):
            verdicts = judge(offences, self._rules(kind), now)
            self.judged[kind, id_] = len(offences), verdicts
        return verdicts

    def _rules(self, kind: Subject) -> list[ConductRule]:
        return [rule for rule in self.policy.conduct if rule.subject is kind]

    def _offend(self, appointment: s.Appointment, offence: Offence, at: int) -> None:
        self.offences[Subject.PATIENT, appointment.patient_id].append((offence, at))
        self.offences[Subject.ACCOUNT, appointment.account_id].append((offence, at))

    def _refused(
        self, what: str, refusal: Refusal, key: ScheduleKey, id_: bytes, clock: str, at: int
    ) -> None:
        rule = str(refusal.detail.get("rule") or refusal.reason.value)
        self.outcome.refused.append(Refused(what, rule, id_, key.slot_id(clock), at))
