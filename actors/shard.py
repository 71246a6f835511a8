"""One process, many actors: activation, batches, timers, facts, feed. A plain class; Ray is elsewhere."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import date
from typing import Any, Final

from actors.directory import shard_of
from actors.feed import Feed
from actors.host import Host
from actors.metrics import ShardMetrics, watch_lag
from actors.timers import Timers
from engine.domain import schedule as s
from engine.domain.eligibility import DepartmentRule, check
from engine.domain.ids import ScheduleKey
from engine.domain.limits import SHARD_MAILBOX_MAX
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
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
        self._policy = policy
        self._rules: dict[str, DepartmentRule] = {}
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
        self._rules = await self._reads.rules()
        for stream, ends in await self._reads.open_holds():
            if shard_of(stream, self._shards) == self._shard_id:
                self._timers.set(stream, ends)
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
        self._rules = await self._reads.rules()
        for stream, host in list(self._hosts.items()):
            if host.version == 0 and not host.unsettled:
                del self._hosts[stream]

    async def _serve(self, asks: list[Ask]) -> list[s.Answer | Refusal]:
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        streams = {stream for stream, _, _ in asks}
        while True:
            await self._activate(streams)
            hosts = {stream: self._hosts[stream] for stream in streams if stream in self._hosts}
            if len(hosts) < len(streams):  # one went to rest while another was read
                continue
            refused = await self._eligible(asks, hosts)
            # What was asked about these hosts holds for these hosts: from here to decide nobody awaits.
            if all(self._hosts.get(stream) is host for stream, host in hosts.items()):
                break
        waited = loop.time() - arrived
        self.metrics.mailbox_seconds.observe(waited)
        done: list[asyncio.Future[s.Answer | Refusal]] = []
        for number, (stream, ms_left, command) in enumerate(asks):
            answer: asyncio.Future[s.Answer | Refusal] = loop.create_future()
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
        answer: asyncio.Future[s.Answer | Refusal],
        refused: Refusal | None = None,
    ) -> None:
        host = self._hosts[stream]
        now = self._now()
        host.last_used = now
        self._commit.submit(Work(host, command, now, answer, refused))
        if isinstance(command, s.HoldSeat) and (ends := host.state.holds.get(command.appointment_id)):
            self._timers.set(stream, ends)

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
                self._hosts[stream] = Host(ScheduleKey.of_stream(stream), found, now)
        finally:
            for stream in streams:
                del self._loading[stream]

    async def _eligible(self, asks: list[Ask], hosts: dict[str, Host]) -> dict[int, Refusal]:
        """Who may not have what he asks for. One query for the whole batch; retries are not asked about."""
        asked: list[tuple[int, date, DepartmentRule]] = []
        questions: list[Question] = []
        for number, (stream, _, command) in enumerate(asks):
            host = hosts[stream]
            if not isinstance(command, s.HoldSeat) or host.knows(command.appointment_id):
                continue
            slot = host.state.slots.get(command.clock)
            if slot is None:
                continue
            day_claim, time_claim = s.claims_wanted(
                slot, command.patient_id, command.appointment_id, host.key.day, None
            )
            rule = self._rules.get(slot.session.department_id, _NO_RULE)
            asked.append((number, date.fromisoformat(host.key.day), rule))
            questions.append(
                Question(
                    command.appointment_id, command.patient_id, command.account_id, day_claim, time_claim
                )
            )
        if not questions:
            return {}
        now = self._now()
        refused = {}
        found = await self._reads.facts(questions)
        for (number, day, rule), facts in zip(asked, found, strict=True):
            refusal = check(facts, rule, self._policy, day, now)
            if refusal is not None:
                refused[number] = refusal
        return refused

    def _flushed(self, flushed: Flushed) -> None:
        remaining: dict[str, int] = {}
        for work in flushed.works:
            host = work.actor
            assert isinstance(host, Host)
            for entry in work.entries:
                for clock in s.slots_touched(host.state, entry.event):
                    remaining[host.key.slot_id(clock)] = s.remaining(host.state.slots[clock])
        self.feed.publish(flushed.seq, remaining)
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
            ends = s.next_expiry(self._hosts[stream].state)
            if ends is not None:
                self._timers.set(stream, ends)

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
