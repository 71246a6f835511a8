"""One process, many actors: activation, batches, timers, facts, feed. A plain class; Ray is elsewhere."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import date
from typing import Any, Final

from actors.directory import shard_of
from actors.feed import Feed
from actors.host import Host, Rules
from actors.metrics import ShardMetrics, watch_lag
from actors.timers import Timers
from engine.domain import schedule as s
from engine.domain.eligibility import DepartmentRule, Facts, check, check_follow_up
from engine.domain.ids import ScheduleKey
from engine.domain.limits import SHARD_MAILBOX_MAX
from engine.domain.planning import plan_as_data
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
from engine.domain.seats import Slot, plan_of, remaining_by_share
from engine.journal.codec import Ask, pack_replies, unpack_asks
from engine.journal.group_commit import Flushed, GroupCommit, Work
from engine.journal.journal import Journal
from engine.records.facts import Question
from engine.records.reads import Reads

log = logging.getLogger(__name__)

PASSIVATE_AFTER_MS: Final = 10 * 60_000
SWEEP_SECONDS: Final = 0.1
SWEEP_HOSTS: Final = 20  # actors looked at in one sweep, so that a sweep never holds the loop
FEED_WAIT_SECONDS: Final = 5.0

SYSTEM: Final = "system"  # who acts where nobody asked: in `by`

_NO_RULE: Final = DepartmentRule()


class Shard:
    """Serves the actors whose key falls to it.

    Promise: a reply other than a refusal for `busy` or `too_late` speaks of what is committed. Where `ask`
    raises or the process ends, the outcome is unknown and the same commands may be sent again.
    """

    def __init__(
        self,
        shard_id: int,
        shards: int,
        journal: Journal,
        reads: Reads,
        now: Callable[[], int],
        die: Callable[[str], None],
        policy: Policy,
    ) -> None:
        self._shard_id = shard_id
        self._shards = shards
        self._journal = journal
        self._reads = reads
        self._now = now
        self._die = die
        self._fallback = policy
        self._rules = Rules(policy, lambda: secrets.randbits(64))
        self._departments: dict[str, DepartmentRule] = {}
        self._hosts: dict[str, Host] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._mailbox = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._errors: dict[str, int] = {}
        self._sweep: list[str] = []
        self._timers = Timers(now)
        self._commit = GroupCommit(journal, die, self._flushed)
        self._tasks: list[asyncio.Task[None]] = []
        self.feed = Feed(0, 0)
        self.metrics = ShardMetrics()

    async def start(self) -> None:
        """Fences every earlier owner off, and only then reads."""
        epoch = await self._journal.take_over()
        self.feed = Feed(epoch, await self._journal.last_seq())
        self.metrics.epoch.set(epoch)
        self.metrics.fenced.set(await self._journal.fenced())
        await self._read_rules()
        for stream, at in await self._reads.wakes():
            if shard_of(stream, self._shards) == self._shard_id:
                self._timers.set(stream, at)
        for work in (
            self._commit.run(),
            self._timers.run(self._expire),
            self._sweep_for_ever(),
            watch_lag(self.metrics.lag),
        ):
            self._tasks.append(asyncio.create_task(self._or_die(work)))
        log.info("shard %d serves at epoch %d", self._shard_id, epoch)

    async def stop(self) -> None:
        """Writes and answers what was taken in, then rests."""
        await self._empty.wait()
        await self._commit.drain()
        for task in self._tasks:
            task.cancel()

    async def ask(self, packed: bytes) -> bytes:
        """A gateway's batch: see engine/journal/codec.py for the bytes."""
        asks = unpack_asks(packed)
        self.metrics.batch.observe(len(asks))
        if self._mailbox + len(asks) > SHARD_MAILBOX_MAX:
            return pack_replies([Refusal(Reason.BUSY)] * len(asks))
        self._mailbox += len(asks)
        self._empty.clear()
        try:
            return pack_replies(await self._serve(asks))
        finally:
            self._mailbox -= len(asks)
            if not self._mailbox:
                self._empty.set()

    async def changes(self, epoch: int, seq: int) -> bytes:
        """The feed of free seats, long-polled."""
        return (await self.feed.since(epoch, seq, FEED_WAIT_SECONDS)).pack()

    async def forget_the_unopened(self) -> None:
        """The catalog has changed: days on which nothing happened yet are read anew, and so are the rules."""
        await self._read_rules()
        for stream, host in list(self._hosts.items()):
            if host.version == 0 and not host.unsettled:
                del self._hosts[stream]

    async def _read_rules(self) -> None:
        self._departments = await self._reads.rules()
        policy = await self._reads.policy(self._fallback)
        if policy is not None:
            self._rules.policy = policy

    async def _serve(self, asks: list[Ask]) -> list[s.Reply | Refusal]:
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        streams = {stream for stream, _, _ in asks}
        while True:
            await self._activate(streams)
            hosts = {stream: self._hosts[stream] for stream in streams if stream in self._hosts}
            if len(hosts) < len(streams):  # one went to rest while another was read
                continue
            asks, refused = await self._checked(asks, hosts)
            # What was asked about these hosts holds for these hosts: from here to decide nobody awaits.
            if all(self._hosts.get(stream) is host for stream, host in hosts.items()):
                break
        waited = loop.time() - arrived
        self.metrics.mailbox_seconds.observe(waited)
        done: list[asyncio.Future[s.Reply | Refusal]] = []
        for number, (stream, ms_left, command) in enumerate(asks):
            answer: asyncio.Future[s.Reply | Refusal] = loop.create_future()
            done.append(answer)
            if waited * 1000 > ms_left:
                answer.set_result(Refusal(Reason.TOO_LATE))
                continue
            self._submit(stream, command, answer, refused.get(number))
        replies = [await answer for answer in done]
        for (_, _, command), reply in zip(asks, replies, strict=True):
            outcome = reply.reason if isinstance(reply, Refusal) else "ok"
            self.metrics.commands.labels(type(command).__name__, outcome).inc()
        return replies

    def _submit(
        self,
        stream: str,
        command: s.Command,
        answer: asyncio.Future[s.Reply | Refusal],
        refused: Refusal | None = None,
    ) -> None:
        host = self._hosts[stream]
        now = self._now()
        host.last_used = now
        work = Work(host, command, now, answer, refused)
        self._commit.submit(work)
        if host.state.wishes and not isinstance(command, s.OfferSeats):
            self._offer(stream)

    def _offer(self, stream: str) -> None:
        """Who waits comes first: before anybody else is asked, what is free is offered."""
        host = self._hosts.get(stream)
        while host is not None and host.state.wishes:
            waiting = host.unsettled
            self._submit(stream, s.OfferSeats(), asyncio.get_running_loop().create_future())
            if host.unsettled == waiting:  # nothing was offered, or it must wait for a claim
                break

    def _look_again(self, stream: str, host: Host) -> None:
        """When time will next change something there."""
        for at in (s.next_wake(host.state), s.next_opening(host.state, self._now())):
            if at is not None:
                self._timers.set(stream, at)

    async def _activate(self, streams: set[str]) -> None:
        """One query for all that are missing; those that are being loaded already are waited for."""
        missing = [x for x in streams if x not in self._hosts and x not in self._loading]
        if missing:
            task = asyncio.create_task(self._load(missing))
            self._loading.update(dict.fromkeys(missing, task))
        for task in {self._loading[x] for x in streams if x in self._loading}:
            await task

    async def _load(self, streams: list[str]) -> None:
        try:
            loaded = await self._journal.load(streams)
            now = self._now()
            for stream, found in loaded.items():
                host = Host(ScheduleKey.of_stream(stream), found, now, self._rules)
                self._hosts[stream] = host
                self._look_again(stream, host)
        finally:
            for stream in streams:
                del self._loading[stream]

    async def _checked(self, asks: list[Ask], hosts: dict[str, Host]) -> tuple[list[Ask], dict[int, Refusal]]:
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
        found = await self._reads.facts(questions)
        policy = self._rules.policy
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
                if isinstance(command, s.HoldSeat) and command.by == SYSTEM:
                    # Offered by the hospital, which called the other number off: no limit stands against it.
                    facts = replace(facts, block=None, blocked_until=None, account_holds=0)
                asks[number] = (stream, ms_left, replace(command, waives=waives))
            refusal = check(facts, rule, policy, day, now) or _not_a_follow_up(
                command, hosts[stream], facts, policy
            )
            if refusal is not None and number not in refused:
                if isinstance(command, s.HoldGroup):
                    refusal.detail["patient_id"] = question.patient_id.hex()
                refused[number] = refusal
        return asks, refused

    def _questions(
        self, asks: list[Ask], hosts: dict[str, Host]
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

    async def _changes_checked(
        self, asks: list[Ask], hosts: dict[str, Host]
    ) -> tuple[list[Ask], dict[int, Refusal]]:
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

    def _flushed(self, flushed: Flushed) -> None:
        remaining: dict[str, int | list[int]] = {}
        plans: dict[str, list[object]] = {}
        loop = asyncio.get_running_loop()
        look_again: set[Host] = set()
        for work in flushed.works:
            host = work.actor
            assert isinstance(host, Host)
            if work.entries and host.state.wishes:
                # What was decided while it waited may have freed a seat; and whoever could not have his offer
                # leaves it to the next.
                loop.call_soon(self._offer, host.key.stream)
            for entry in work.entries:
                event = entry.event
                if isinstance(event, s.SeatHeld):
                    self._timers.set(host.key.stream, event.hold_until)
                elif not isinstance(event, s.SeatBooked):
                    look_again.add(host)
                if s.changes_shape(event) or isinstance(work.command, s.OpenSession):
                    plans[host.key.schedule_id] = plan_as_data(plan_of(host.state.slots))
                    clocks = list(host.state.slots)
                else:
                    clocks = s.slots_touched(host.state, entry.event)
                for clock in clocks:
                    remaining[host.key.slot_id(clock)] = remaining_by_share(host.state.slots[clock])
        for host in look_again:
            self._look_again(host.key.stream, host)
        self.feed.publish(flushed.seq, remaining, plans)
        self.metrics.lost_claims.inc(flushed.lost)
        self.metrics.flush_entries.observe(flushed.entries)
        self.metrics.flush_seconds.observe(flushed.seconds)

    async def _expire(self, streams: list[str]) -> None:
        loop = asyncio.get_running_loop()
        await self._activate(set(streams))
        for stream in streams:
            while stream not in self._hosts:  # went to rest while another was read
                await self._activate({stream})
            self._submit(stream, s.ExpireHolds(), loop.create_future())
            host = self._hosts[stream]
            now = self._now()
            due = [a for a, until in host.state.changes.items() if until <= now]
            if due:
                moved = await self._reads.moved(due)
                for appointment_id in due if self._hosts.get(stream) is host else ():
                    left = moved.get(appointment_id, appointment_id) != appointment_id
                    self._submit(stream, s.SettleChange(appointment_id, left), loop.create_future())
            if host.state.wishes:
                self._offer(stream)
            self._look_again(stream, host)

    async def _sweep_for_ever(self) -> None:
        """Recounts seats, a part of the actors at a time, and lets those rest that nobody has used."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if not self._sweep:
                self._sweep = list(self._hosts)
            now = self._now()
            part, self._sweep = self._sweep[:SWEEP_HOSTS], self._sweep[SWEEP_HOSTS:]
            for stream in part:
                host = self._hosts.get(stream)
                if host is None:
                    continue
                error = s.conservation_error(host.state)
                self._errors.pop(stream, None)
                if error:
                    self._errors[stream] = error
                    log.error("%s: %d seats are in no state or in two", stream, error)
                if host.is_idle and now - host.last_used > PASSIVATE_AFTER_MS:
                    del self._hosts[stream]
            self.metrics.conservation_error.set(sum(self._errors.values()))
            self.metrics.hosts.set(len(self._hosts))
            self.metrics.mailbox.set(self._mailbox)

    async def _or_die(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that keeps the shard's promises must not end unseen."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("shard %d cannot go on", self._shard_id)
            self._die(f"{type(error).__name__}: {error}")
            raise


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
