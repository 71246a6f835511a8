"""One commit carries many answers: what gathers while a batch is written becomes the next batch."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from engine.domain.limits import FLUSH_ENTRIES_MAX
from engine.domain.messages import Command, Reply
from engine.domain.refusal import Reason, Refusal
from engine.journal.journal import Entry, Fenced, Journal, Loss


class Actor(Protocol):
    """What the group commit needs of actors/host.py."""

    version: int
    """Of the last event cut into a batch."""
    unsettled: int
    """Works with events that are not facts yet."""

    def settle(self, work: "Work") -> None:
        """Decides and applies, without an await; fills in the work's entries and reply.

        Leaves both empty when it would build on a claim that is not granted yet: asked again after the flush.
        """

    def granted(self, work: "Work") -> None:
        """The work's claims are decided, one way or the other."""

    def undo(self, work: "Work", reason: Reason) -> list[Entry]:
        """Takes back in memory what lost its claim; replaces the work's reply by a refusal."""


@dataclass(slots=True, eq=False)
class Work:
    """One command on its way from decide to reply."""

    actor: Actor
    command: Command
    now: int
    done: asyncio.Future[Reply | Refusal]
    refused: Refusal | None = None  # by what was known before decide: eligibility
    entries: list[Entry] = field(default_factory=list)
    reply: Reply | Refusal | None = None


@dataclass(slots=True)
class Flushed:
    """What the journal now holds, for feeds and metrics."""

    seq: int
    works: list[Work]
    entries: int
    lost: int  # claims, in a race
    seconds: float


class GroupCommit:
    """Replies only after the commit. If a write fails or its outcome is unknown, `die` ends the process:
    memory is ahead of the journal then, and only a replay is safe."""

    def __init__(
        self, journal: Journal, die: Callable[[str], None], flushed: Callable[[Flushed], None]
    ) -> None:
        self._journal = journal
        self._die = die
        self._flushed = flushed
        self._pending: deque[Work] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, work: Work) -> None:
        """Settles the work now and replies when that is safe: at once where nothing hangs on a commit."""
        work.actor.settle(work)
        if not work.entries and not work.actor.unsettled:  # nothing to wait for
            assert work.reply is not None
            work.done.set_result(work.reply)
            return
        if work.entries:
            work.actor.unsettled += 1
        self._pending.append(work)
        self._idle.clear()
        self._wake.set()

    async def drain(self) -> None:
        """Returns once everything submitted so far has been written and answered."""
        await self._idle.wait()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                batch = self._cut()
                try:
                    await self._write(batch)
                except Fenced as fenced:
                    self._die(f"fenced off: {fenced}")
                    raise
                except BaseException as error:
                    self._die(f"the journal failed: {type(error).__name__}: {error}")
                    raise
            self._idle.set()

    def _cut(self) -> list[Work]:
        batch: list[Work] = []
        entries = 0
        while self._pending and entries < FLUSH_ENTRIES_MAX:
            alone = any(entry.more is not None and entry.more.moved for entry in self._pending[0].entries)
            if alone and batch:
                break  # numbers that change their slots do so between batches, not within one
            work = self._pending.popleft()
            entries += self._number(work.actor, work.entries)
            batch.append(work)
            if alone:
                break
        return batch

    def _number(self, actor: Actor, entries: list[Entry]) -> int:
        """Versions are given in journal order, so that what is undone in between has its place."""
        for entry in entries:
            actor.version += 1
            entry.version = actor.version
        return len(entries)

    async def _write(self, batch: list[Work]) -> None:
        entries = [entry for work in batch for entry in work.entries]
        touched: set[int] = set()
        if entries:
            work_of = {id(entry): work for work in batch for entry in work.entries}

            lost = 0
            taken_back: set[int] = set()

            def compensate(losers: list[Loss]) -> list[Entry]:
                nonlocal lost
                lost += len(losers)
                undone = []
                for entry, reason in losers:
                    work = work_of[id(entry)]
                    if id(work) in taken_back:
                        continue
                    taken_back.add(id(work))
                    entries_undoing = work.actor.undo(work, reason)
                    self._number(work.actor, entries_undoing)
                    work.entries = [*work.entries, *entries_undoing]
                    undone += entries_undoing
                    touched.add(id(work.actor))
                return undone

            started = time.perf_counter()  # the loop's own clock stands still between its turns
            seq = await self._journal.append(entries, compensate)
            seconds = time.perf_counter() - started
            for work in batch:
                if work.entries:
                    work.actor.unsettled -= 1
                    work.actor.granted(work)
            self._flushed(Flushed(seq, batch, len(entries), lost, seconds))

        def is_open(work: Work) -> bool:
            return not work.entries and (work.reply is None or id(work.actor) in touched)

        # What was answered from a state that has been undone is decided again, and so is what waited for a
        # claim. In the journal it comes where it is applied: behind everything that is applied already.
        again = [work for work in (*batch, *self._pending) if is_open(work)]
        for work in batch:
            if not is_open(work) and not work.done.done():  # its caller may have gone
                assert work.reply is not None
                work.done.set_result(work.reply)
        if again:
            self._pending = deque(work for work in self._pending if not is_open(work))
        for work in again:
            work.reply = None
            work.actor.settle(work)
            if work.entries:
                work.actor.unsettled += 1
            self._pending.append(work)
