"""What gateways need to know of free seats, changed days and waiting rooms: versioned changes, long-polled.

What is published last of a slot or of a day is the whole truth about it, so changes merge by forgetting. With
a day's plan the free seats of all its slots are published: they may have other shares now. Of waiting rooms
the events themselves are told, one after the other: whoever keeps a copy of a room plays them into it.

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

from actors.news import News, RoomEvent
from engine.domain.limits import FEED_CHANGES_MAX

Free = int | list[int]
"""Free seats of a slot; a list by share where its session has shares."""
Remaining = Mapping[str, Free]
Plans = dict[str, list[Any]]
Rooms = dict[str, list[RoomEvent]]


@dataclass(frozen=True, slots=True)
class Changes:
    epoch: int
    seq: int
    remaining: Remaining | None
    """slot id -> free seats now; None: too far behind, read a snapshot."""
    plans: Plans = field(default_factory=dict)
    """schedule id -> the whole day as it is now (planning.plan_as_data), where its structure changed."""
    rooms: Rooms = field(default_factory=dict)
    """stream of a waiting room -> what happened there, in order."""

    def pack(self) -> bytes:
        parts: tuple[Any, ...] = (self.epoch, self.seq, self.remaining)
        if self.rooms:
            parts = (*parts, self.plans, self.rooms)
        elif self.plans:
            parts = (*parts, self.plans)
        packed: bytes = msgpack.packb(parts)
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> "Changes":
        return cls(*msgpack.unpackb(data))


class Feed:
    def __init__(self, epoch: int, seq: int) -> None:
        self.epoch = epoch
        self.seq = seq
        self._first = seq  # changes after this one are all here
        self._ring: deque[tuple[int, News]] = deque()
        self._news = asyncio.Event()

    def publish(self, seq: int, news: News) -> None:
        self.seq = seq
        self._ring.append((seq, news))
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
        flushes = list(itertools.takewhile(lambda flush: flush[0] > seq, reversed(self._ring)))
        merged: dict[str, Free] = {}
        plans: Plans = {}
        rooms: Rooms = {}
        for _, news in reversed(flushes):
            merged.update(news.remaining)
            if news.plans:
                plans.update(news.plans)
            for stream, events in news.rooms.items():
                rooms.setdefault(stream, []).extend(events)
        return Changes(self.epoch, self.seq, merged, plans, rooms)
