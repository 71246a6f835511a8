"""One process, many actors: activation, batches, timers, feed. A plain class; Ray is elsewhere.

What differs between the kinds of actors is in schedules.py, rooms.py and bills.py.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Final, Protocol, cast

from actors.bill_host import BillHost
from actors.bills import BILL_RESTS_AFTER_MS, Bills
from actors.directory import shard_of
from actors.feed import Feed
from actors.figures import Figures
from actors.host import Host, Rules
from actors.metrics import ShardMetrics, watch_lag
from actors.news import News
from actors.room_host import RoomHost
from actors.rooms import Rooms
from actors.schedules import Schedules
from actors.timers import Timers
from engine.domain.ids import BILL_PREFIX, ROOM_PREFIX
from engine.domain.limits import SHARD_MAILBOX_MAX
from engine.domain.messages import Command, Reply
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
from engine.journal.codec import Ask, pack_replies, unpack_asks
from engine.journal.group_commit import Flushed, GroupCommit, Work
from engine.journal.journal import Journal, Loaded
from engine.records.reads import Reads

log = logging.getLogger(__name__)

PASSIVATE_AFTER_MS: Final = 10 * 60_000
SWEEP_SECONDS: Final = 0.1
SWEEP_HOSTS: Final = 20  # actors looked at in one sweep, so that a sweep never holds the loop
FEED_WAIT_SECONDS: Final = 5.0

AnyHost = Host | RoomHost | BillHost

RESTS_AFTER_MS: Final[dict[type, int]] = {
    Host: PASSIVATE_AFTER_MS,
    RoomHost: PASSIVATE_AFTER_MS,
    BillHost: BILL_RESTS_AFTER_MS,
}
"""Actors that nobody has used for so long, and that wait for nothing, are forgotten."""


class Kind(Protocol):
    """What a shard does for one kind of actors."""

    def host(self, stream: str, loaded: Loaded, now: int) -> Any: ...
    def follow(self, host: Any, command: object) -> None: ...
    def wakes(self, host: Any) -> Iterator[int]: ...
    def error(self, host: Any) -> int: ...
    def settled(self, work: Work, news: News) -> None: ...
    async def wake(self, host: Any) -> None: ...


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
        self._hosts: dict[str, AnyHost] = {}
        self._schedules = Schedules(
            reads, self._rules, now, cast(Mapping[str, Host], self._hosts), self._submit_for_nobody
        )
        rooms, bills = Rooms(self._rules, self._submit_for_nobody), Bills(self._rules)
        self._kinds: dict[type, Kind] = {Host: self._schedules, RoomHost: rooms, BillHost: bills}
        self._prefixes: dict[str, Kind] = {ROOM_PREFIX: rooms, BILL_PREFIX: bills}
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
        self._figures = Figures()

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
            watch_lag(self.metrics.lag, self._figures.late),
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
            self._figures.turned_away(len(asks), Reason.BUSY, self._now())
            return pack_replies([Refusal(Reason.BUSY)] * len(asks))
        self._mailbox += len(asks)
        self._empty.clear()
        self._figures.came(asks)
        replies: list[Reply | Refusal] | None = None
        try:
            replies = await self._serve(asks)
            return pack_replies(replies)
        finally:
            self._figures.left(asks, replies, self._now())
            self._mailbox -= len(asks)
            if not self._mailbox:
                self._empty.set()

    async def changes(self, epoch: int, seq: int) -> bytes:
        """The feed of free seats, long-polled."""
        return (await self.feed.since(epoch, seq, FEED_WAIT_SECONDS)).pack()

    async def figures(self) -> bytes:
        """What dashboards show of this shard and of its busiest actors."""
        return self._figures.pack(self._shard_id, self.feed.epoch, self._mailbox, self._hosts, self._now())

    async def forget_the_unopened(self) -> None:
        """The catalog has changed: days on which nothing happened yet are read anew, and so are the rules."""
        await self._read_rules()
        for stream, host in list(self._hosts.items()):
            if host.version == 0 and not host.unsettled:
                del self._hosts[stream]
            else:
                self._look_again(stream, host)  # by other rules something may end sooner

    async def _read_rules(self) -> None:
        await self._schedules.read_rules()
        policy = await self._reads.policy(self._fallback)
        if policy is not None:
            self._rules.policy = policy

    async def _serve(self, asks: list[Ask]) -> list[Reply | Refusal]:
        loop = asyncio.get_running_loop()
        arrived = time.perf_counter()
        streams = {stream for stream, _, _ in asks}
        while True:
            await self._activate(streams)
            hosts = {stream: self._hosts[stream] for stream in streams if stream in self._hosts}
            if len(hosts) < len(streams):  # one went to rest while another was read
                continue
            asks, refused = await self._schedules.checked(asks, cast(Mapping[str, Host], hosts))
            # What was asked about these hosts holds for these hosts: from here to decide nobody awaits.
            if all(self._hosts.get(stream) is host for stream, host in hosts.items()):
                break
        waited = time.perf_counter() - arrived
        self.metrics.mailbox_seconds.observe(waited)
        done: list[asyncio.Future[Reply | Refusal]] = []
        for number, (stream, ms_left, command) in enumerate(asks):
            answer: asyncio.Future[Reply | Refusal] = loop.create_future()
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
        command: Command,
        answer: asyncio.Future[Reply | Refusal],
        refused: Refusal | None = None,
    ) -> None:
        host = self._hosts[stream]
        now = self._now()
        host.last_used = now
        work = Work(host, command, now, answer, refused)
        self._commit.submit(work)
        self._kinds[type(host)].follow(host, command)

    def _submit_for_nobody(self, stream: str, command: Command) -> None:
        self._submit(stream, command, asyncio.get_running_loop().create_future())

    def _look_again(self, stream: str, host: AnyHost) -> None:
        """When time will next change something there."""
        for at in self._kinds[type(host)].wakes(host):
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
                kind = self._prefixes.get(stream[: stream.find("/") + 1], self._schedules)
                host = self._hosts[stream] = kind.host(stream, found, now)
                self._look_again(stream, host)
        finally:
            for stream in streams:
                del self._loading[stream]

    def _flushed(self, flushed: Flushed) -> None:
        news = News()
        for work in flushed.works:
            self._kinds[type(work.actor)].settled(work, news)
        for stream, at in news.wakes:
            self._timers.set(stream, at)
        for stream in news.look_again:
            self._look_again(stream, self._hosts[stream])
        self.feed.publish(flushed.seq, news)
        self.metrics.lost_claims.inc(flushed.lost)
        self.metrics.flush_entries.observe(flushed.entries)
        self.metrics.flush_seconds.observe(flushed.seconds)
        self._figures.flushed(flushed, self._now())

    async def _expire(self, streams: list[str]) -> None:
        await self._activate(set(streams))
        for stream in streams:
            while stream not in self._hosts:  # went to rest while another was read
                await self._activate({stream})
            host = self._hosts[stream]
            await self._kinds[type(host)].wake(host)
            self._look_again(stream, host)

    async def _sweep_for_ever(self) -> None:
        """Recounts, a part of the actors at a time, and lets those rest that nobody has used."""
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
                error = self._kinds[type(host)].error(host)
                self._errors.pop(stream, None)
                if error:
                    self._errors[stream] = error
                    log.error("%s: %d seats, tickets or fen are in no state or in two", stream, error)
                if host.is_idle and now - host.last_used > RESTS_AFTER_MS[type(host)]:
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
