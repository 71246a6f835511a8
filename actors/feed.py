"""What gateways need to know of free seats and changed days: versioned changes, long-polled.

What is published last of a slot or of a day is the whole truth about it, so changes merge by forgetting. With
a day's plan the free seats of all its slots are published: they may have other shares now.

A version is (epoch, seq) of the shard's journal, so a reader that missed nothing stays in step for ever, and
one that missed too much is told to read everything anew.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from engine.domain.limits import FEED_CHANGES_MAX

Free = int | list[int]
"""Free seats of a slot; a list by share where its session has shares."""
Remaining = Mapping[str, Free]
Plans = dict[str, list[Any]]
_NO_PLANS: Plans = {}


@dataclass(frozen=True, slots=True)
class Changes:
    epoch: int
    seq: int
    remaining: Remaining | None
    """slot id -> free seats now; None: too far behind, read a snapshot."""
    plans: Plans = field(default_factory=dict)
    """schedule id -> the whole day as it is now (planning.plan_as_data), where its structure changed."""

    def pack(self) -> bytes:
        parts = (self.epoch, self.seq, self.remaining)
        packed: bytes = msgpack.packb((*parts, self.plans) if self.plans else parts)
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> "Changes":
        return cls(*msgpack.unpackb(data))


class Feed:
    def __init__(self, epoch: int, seq: int) -> None:
        self.epoch = epoch
        self.seq = seq
        self._first = seq  # changes after this one are all here
        self._ring: deque[tuple[int, Remaining, Plans]] = deque()
        self._news = asyncio.Event()

    def publish(self, seq: int, remaining: Remaining, plans: Plans = _NO_PLANS) -> None:
        self.seq = seq
        self._ring.append((seq, remaining, plans))
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
        merged: dict[str, Free] = {}
        merged_plans: Plans = {}
        for _, remaining, plans in reversed(news):
            merged.update(remaining)
            if plans:
                merged_plans.update(plans)
        return Changes(self.epoch, self.seq, merged, merged_plans)
