"""What gateways need to know of free seats: versioned changes, long-polled.

A version is (epoch, seq) of the shard's journal, so a reader that missed nothing stays in step for ever, and
one that missed too much is told to read everything anew.
"""

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass

import msgpack

from engine.domain.limits import FEED_CHANGES_MAX


@dataclass(frozen=True, slots=True)
class Changes:
    epoch: int
    seq: int
    remaining: dict[str, int] | None
    """slot id -> free seats now; None: too far behind, read a snapshot."""

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb((self.epoch, self.seq, self.remaining))
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> "Changes":
        return cls(*msgpack.unpackb(data))


class Feed:
    def __init__(self, epoch: int, seq: int) -> None:
        self.epoch = epoch
        self.seq = seq
        self._first = seq  # changes after this one are all here
        self._ring: deque[tuple[int, dict[str, int]]] = deque()
        self._news = asyncio.Event()

    def publish(self, seq: int, remaining: dict[str, int]) -> None:
        self.seq = seq
        self._ring.append((seq, remaining))
        if len(self._ring) > FEED_CHANGES_MAX:
            self._first = self._ring.popleft()[0]
        self._news.set()
        self._news = asyncio.Event()

    async def since(self, epoch: int, seq: int, wait_seconds: float) -> Changes:
        """What has changed since then; waits so long for something to change."""
        if epoch == self.epoch and seq == self.seq:
            try:
                await asyncio.wait_for(self._news.wait(), wait_seconds)
            except TimeoutError:
                return Changes(self.epoch, self.seq, {})
        if epoch != self.epoch or not self._first <= seq <= self.seq:
            return Changes(self.epoch, self.seq, None)
        news = list(itertools.takewhile(lambda flush: flush[0] > seq, reversed(self._ring)))
        merged: dict[str, int] = {}
        for _, remaining in reversed(news):
            merged.update(remaining)
        return Changes(self.epoch, self.seq, merged)
