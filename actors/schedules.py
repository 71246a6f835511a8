"""What a shard does for practitioners' days: facts before they decide, offers after, news for gateways."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Final, cast

from actors.host import Host, Rules
from actors.news import News
from engine.domain import schedule as s
from engine.domain.by import SYSTEM
from engine.domain.consents import ALL
from engine.domain.eligibility import DepartmentRule, Facts, check, check_follow_up
from engine.domain.ids import ScheduleKey
from engine.domain.planning import plan_as_data
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
from engine.domain.seats import Slot, plan_of, remaining_by_share
from engine.journal.codec import Ask
from engine.journal.group_commit import Work
from engine.journal.journal import Loaded
from engine.records.facts import Question
from engine.records.reads import Reads

_NO_RULE: Final = DepartmentRule()

Hosts = Mapping[str, Host]
Submit = Callable[[str, s.Command], None]
"""Has an actor decide something that nobody waits for."""


class Schedules:
    def __init__(
        self, reads: Reads, rules: Rules, now: Callable[[], int], hosts: Hosts, submit: Submit
    ) -> None:
        self._reads = reads
        self._rules = rules
        self._now = now
        self._hosts = hosts
        self._submit = submit
        self._departments: dict[str, DepartmentRule] = {}

    async def read_rules(self) -> None:
        self._departments = await self._reads.rules()

    def host(self, stream: str, loaded: Loaded, now: int) -> Host:
        return Host(ScheduleKey.of_stream(stream), loaded, now, self._rules)

    def follow(self, host: Host, command: object) -> None:
        """What comes at once after a command."""
        if host.state.wishes and not isinstance(command, s.OfferSeats):
            self._offer(host.key.stream)

    def _offer(self, stream: str) -> None:
        """Who waits comes first: before anybody else is asked, what is free is offered."""
        host = self._hosts.get(stream)
        while host is not None and host.state.wishes:
            waiting = host.unsettled
            self._submit(stream, s.OfferSeats())
            if host.unsettled == waiting:  # nothing was offered, or it must wait for a claim
                break

    def wakes(self, host: Host) -> Iterator[int]:
        """When time will next change something there."""
        for at in (s.next_wake(host.state), s.next_opening(host.state, self._now())):
            if at is not None:
                yield at

    def error(self, host: Host) -> int:
        """Seats that are in no state, or in two."""
        return s.conservation_error(host.state)

    async def checked(self, asks: list[Ask], hosts: Hosts) -> tuple[list[Ask], dict[int, Refusal]]:
        """What the records say before anything is decided: who may not have what he asks for, and what a
        change needs to know of its other half."""
        if any(isinstance(command, s.SettleChange | s.LeaveFor) for _, _, command in asks):
            asks, refused = await self._changes_checked(asks, hosts)
        else:
            refused = {}
        asked, questions = self._questions(asks, hosts)
        if not questions:
            return asks, refused
        now = self._now()
        found = await self._reads.facts(questions, now)
        policy = self._rules.policy
        members: Counter[int] = Counter()
        for (number, day, rule, replaces), question, facts in zip(asked, questions, found, strict=True):
            stream, ms_left, command = asks[number]
            if replaces:
                assert isinstance(command, s.HoldSeat | s.JoinWaitlist)
                # What the number to be replaced holds, its successor gets from it.
                waives = int(facts.department_day_owner == replaces) | 2 * int(facts.time_owner == replaces)
                facts = replace(
                    facts,
                    department_day_owner=None if waives & 1 else facts.department_day_owner,
                    time_owner=None if waives & 2 else facts.time_owner,
                    active_appointments=facts.active_appointments - 1,
                    day_appointments=max(0, facts.day_appointments - 1),
                )
                asks[number] = (stream, ms_left, replace(command, waives=waives))
            if isinstance(command, s.HoldSeat) and command.by == SYSTEM:
                # For a number that the hospital itself called off, or that is paid already: no limit stands
                # against it, nor does the penalty for letting the first one lapse.
                facts = replace(facts, block=None, account_holds=0)
            if getattr(command, "by", ""):
                # Staff ask in person, and what the system offers was agreed to before.
                facts = replace(facts, consents=ALL)
            if isinstance(command, s.HoldGroup):
                # A family's own numbers count, too: each member finds those before it held already.
                facts = replace(facts, account_holds=facts.account_holds + members[number])
                members[number] += 1
            refusal = check(facts, rule, policy, day, now) or _not_a_follow_up(
                cast(s.Command, command), hosts[stream], facts, policy
            )
            if refusal is not None and number not in refused:
                if isinstance(command, s.HoldGroup):
                    refusal.detail["patient_id"] = question.patient_id.hex()
                refused[number] = refusal
        return asks, refused

    def _questions(
        self, asks: list[Ask], hosts: Hosts
    ) -> tuple[list[tuple[int, date, DepartmentRule, bytes]], list[Question]]:
        """One query for the whole batch; retries are not asked about."""
        asked: list[tuple[int, date, DepartmentRule, bytes]] = []
        questions: list[Question] = []
        for number, (stream, _, command) in enumerate(asks):
            host = hosts[stream]
            match command:
                case s.HoldSeat():
                    wanted = [(command.appointment_id, command.patient_id)]
                    slot = host.state.slots.get(command.clock)
                case s.AddPatient():
                    wanted = [(command.appointment_id, command.patient_id)]
                    slot = host.state.slots.get(command.clock)
                case s.HoldGroup():
                    wanted = list(command.members)
                    slot = host.state.slots.get(command.clock)
                case s.JoinWaitlist():
                    wanted = [(command.wish_id, patient_id) for patient_id in command.patient_ids]
                    slot = _first_slot(host, command.clocks)
                case _:
                    continue
            if slot is None or any(host.knows(appointment_id) for appointment_id, _ in wanted):
                continue
            rule = self._departments.get(slot.session.department_id, _NO_RULE)
            replaces = command.replaces if isinstance(command, s.HoldSeat | s.JoinWaitlist) else b""
            day = host.key.day
            for appointment_id, patient_id in wanted:
                day_claim, time_claim = s.claims_wanted(slot, patient_id, appointment_id, day, None)
                asked.append((number, date.fromisoformat(day), rule, replaces))
                questions.append(
                    Question(
                        appointment_id,
                        patient_id,
                        command.account_id,
                        slot.session.department_id,
                        day,
                        day_claim,
                        time_claim,
                        bool(command.visit),
                    )
                )
        return asked, questions

    async def _changes_checked(self, asks: list[Ask], hosts: Hosts) -> tuple[list[Ask], dict[int, Refusal]]:
        """A change has two halves in two actors; each reads in the journal how far the other one is."""
        settling = [x.appointment_id for _, _, x in asks if isinstance(x, s.SettleChange)]
        leaving = [x.successor for _, _, x in asks if isinstance(x, s.LeaveFor)]
        moved = await self._reads.moved(settling) if settling else {}
        held = await self._reads.held_for(leaving) if leaving else {}
        checked, refused = [], {}
        for number, (stream, ms_left, command) in enumerate(asks):
            state = hosts[stream].state
            if isinstance(command, s.SettleChange):
                appointment = state.appointments.get(command.appointment_id)
                old = moved.get(command.appointment_id)
                command = replace(command, left=appointment is not None and old == appointment.replaces)
            elif (
                isinstance(command, s.LeaveFor)
                and command.successor not in state.appointments
                and held.get(command.successor) != command.appointment_id
            ):
                refused[number] = Refusal(Reason.CHANGE_GIVEN_UP)
            checked.append((stream, ms_left, command))
        return checked, refused

    def settled(self, work: Work, news: News) -> None:
        """What is committed now, for those who look on."""
        host = work.actor
        assert isinstance(host, Host)
        if work.entries and host.state.wishes:
            # What was decided while it waited may have freed a seat; and whoever could not have his offer
            # leaves it to the next.
            asyncio.get_running_loop().call_soon(self._offer, host.key.stream)
        for entry in work.entries:
            event = cast(s.Event, entry.event)
            if isinstance(event, s.SeatHeld):
                news.wakes.append((host.key.stream, event.hold_until))
            elif not isinstance(event, s.SeatBooked):
                news.look_again.add(host.key.stream)
            if s.changes_shape(event) or isinstance(work.command, s.OpenSession):
                news.plans[host.key.schedule_id] = plan_as_data(plan_of(host.state.slots))
                clocks = list(host.state.slots)
            else:
                clocks = s.slots_touched(host.state, event)
            for clock in clocks:
                news.remaining[host.key.slot_id(clock)] = remaining_by_share(host.state.slots[clock])

    async def wake(self, host: Host) -> None:
        """Time has brought something."""
        stream = host.key.stream
        self._submit(stream, s.ExpireHolds())
        now = self._now()
        due = [a for a, until in host.state.changes.items() if until <= now]
        if due:
            moved = await self._reads.moved(due)
            for appointment_id in due if self._hosts.get(stream) is host else ():
                left = moved.get(appointment_id, appointment_id) != appointment_id
                self._submit(stream, s.SettleChange(appointment_id, left))
        if host.state.wishes:
            self._offer(stream)


def _first_slot(host: Host, clocks: tuple[str, ...]) -> Slot | None:
    """Of those that somebody would wait for: what the records are asked about."""
    found = [slot for clock, slot in host.state.slots.items() if not clocks or clock in clocks]
    return min(found, key=lambda slot: slot.starts_at, default=None)


def _not_a_follow_up(command: s.Command, host: Host, facts: Facts, policy: Policy) -> Refusal | None:
    if not isinstance(command, s.HoldSeat | s.HoldGroup) or not command.visit:
        return None
    slot = host.state.slots[command.clock]
    terms = policy.terms_of(slot.session.department_id, slot.session.number_class_id)
    return check_follow_up(facts, terms.follow_up_days, slot.starts_at)
