"""The gateway's side: which shard an actor lives in, and how a command gets there and back.

`ask` gives a Reply, a Refusal, or Unknown. Unknown is no failure: the command may have been done. Whoever
wants to know asks again with the same ids; that is harmless, because commands carry them.
"""

import asyncio
import random
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.domain.limits import BATCH_COMMANDS_MAX, COURIER_QUEUE_MAX
from engine.domain.messages import Command, Reply
from engine.domain.refusal import Reason, Refusal
from engine.journal.codec import pack_asks, unpack_replies

IN_FLIGHT_MAX = 3  # messages on their way to one shard: one is being written while the next ones gather
RETRY_SECONDS_MIN = 0.02
RETRY_SECONDS_MAX = 0.3
EXPIRY_SECONDS = 0.05
DOWN_SECONDS_MAX = 1.0  # a shard that has been away for so long is not waited for: refused at once


class ShardAway(Exception):
    """The shard's process died, restarts, or waits for the database. What was sent may have been done."""


class Unknown:
    """Neither done nor not done, as far as the caller can tell."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()
Outcome = Reply | Refusal | Unknown
Send = Callable[[int, bytes], Awaitable[bytes]]
"""Carries a message to a shard and its replies back; raises ShardAway."""


def shard_of(stream: str, shards: int) -> int:
    return zlib.crc32(stream.encode()) % shards


@dataclass(slots=True, eq=False)
class Letter:
    stream: str
    command: Command
    deadline: float
    answer: asyncio.Future[Outcome]
    sent: bool = False
    doubtful: bool = False  # sent before, and no answer came: it may have been done


class Directory:
    def __init__(self, send: Send, shards: int) -> None:
        self._couriers = [Courier(send, shard_id) for shard_id in range(shards)]

    def ask(self, stream: str, command: Command, deadline: float) -> asyncio.Future[Outcome]:
        """`deadline` is of the running loop's clock. Never fails; whoever no longer waits may cancel."""
        return self._couriers[shard_of(stream, len(self._couriers))].ask(stream, command, deadline)

    async def close(self) -> None:
        """Waits until everything that was asked has been answered."""
        await asyncio.gather(*(courier.close() for courier in self._couriers))


class Courier:
    """Natural batching: alone, a command leaves at once; under load, what gathered leaves together."""

    def __init__(self, send: Send, shard_id: int) -> None:
        self._send = send
        self._shard_id = shard_id
        self._queue: deque[Letter] = deque()
        self._in_flight = 0
        self._away_since: float | None = None
        self._deliveries: set[asyncio.Task[None]] = set()
        self._waiting: deque[Letter] = deque()  # in the order of their deadlines, as good as
        self._expiry: asyncio.TimerHandle | None = None

    def ask(self, stream: str, command: Command, deadline: float) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        if len(self._queue) >= COURIER_QUEUE_MAX:
            answer.set_result(Refusal(Reason.BUSY))
        elif self._is_long_away(loop.time()) and self._in_flight:
            answer.set_result(Refusal(Reason.AWAY))  # somebody else's letter is knocking already
        else:
            letter = Letter(stream, command, deadline, answer)
            self._queue.append(letter)
            self._waiting.append(letter)
            if self._expiry is None:
                self._expiry = loop.call_later(EXPIRY_SECONDS, self._expire)
            self._dispatch()
        return answer

    def _is_long_away(self, now: float) -> bool:
        return self._away_since is not None and now - self._away_since > DOWN_SECONDS_MAX

    def _expire(self) -> None:
        """Nobody waits beyond his deadline, whatever the shard is doing: what was sent is then unknown."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waiting and (self._waiting[0].answer.done() or self._waiting[0].deadline <= now):
            letter = self._waiting.popleft()
            if not letter.answer.done():
                letter.answer.set_result(UNKNOWN if letter.sent else Refusal(Reason.TOO_LATE))
        self._expiry = loop.call_later(EXPIRY_SECONDS, self._expire) if self._waiting else None

    async def close(self) -> None:
        while self._deliveries:
            await asyncio.wait(self._deliveries)

    def _dispatch(self) -> None:
        while self._queue and self._in_flight < self._room:
            letters = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_COMMANDS_MAX))]
            self._in_flight += 1
            task = asyncio.ensure_future(self._deliver(letters))
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    @property
    def _room(self) -> int:
        """To a shard that is away, one message at a time: the retry is also the probe."""
        return IN_FLIGHT_MAX if self._away_since is None else 1

    async def _deliver(self, letters: list[Letter]) -> None:
        loop = asyncio.get_running_loop()
        pause = RETRY_SECONDS_MIN
        try:
            while letters := self._still_wanted(letters):
                asks = [
                    (x.stream, max(1, int((x.deadline - loop.time()) * 1000)), x.command) for x in letters
                ]
                for letter in letters:
                    letter.sent = True
                try:
                    packed = await self._send(self._shard_id, pack_asks(asks))
                except ShardAway:
                    for letter in letters:
                        letter.doubtful = True
                    if self._away_since is None:
                        self._away_since = loop.time()
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # nosec B311  # jitter
                    pause = min(pause * 2, RETRY_SECONDS_MAX)
                    continue
                self._away_since = None
                for letter, reply in zip(letters, unpack_replies(packed), strict=True):
                    if letter.answer.done():
                        continue
                    refused = isinstance(reply, Refusal) and reply.reason in (Reason.BUSY, Reason.TOO_LATE)
                    # It speaks of this attempt; of the one before nothing is known.
                    letter.answer.set_result(UNKNOWN if refused and letter.doubtful else reply)
                return
        finally:
            self._in_flight -= 1
            self._dispatch()

    def _still_wanted(self, letters: list[Letter]) -> list[Letter]:
        now = asyncio.get_running_loop().time()
        wanted = []
        for letter in letters:
            if letter.answer.done():
                continue  # its caller has gone; if it was sent, its id finds what became of it
            if letter.deadline <= now:
                letter.answer.set_result(UNKNOWN if letter.sent else Refusal(Reason.TOO_LATE))
                continue
            wanted.append(letter)
        return wanted
