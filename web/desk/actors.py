"""What the shards and their busiest actors are doing now, for those who keep the system running.

A gateway asks each shard at most once a second, however many people look, and not at all while nobody does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Annotated, Any, Final

import msgpack
import orjson
from aiohttp import web
from pydantic import Field

from actors.directory import ShardAway
from engine.records.catalog import ScheduleRow
from engine.records.staff import Staff
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.rights.matrix import TOPICS, Rights
from web.stream import Stream, Who

TOPIC: Final = "actors"
ALL: Final = "all"
LOOK_SECONDS: Final = 1.0
ANSWER_SECONDS_MAX: Final = 0.8  # a shard that says nothing for so long is away, as far as a dashboard goes

Ask = Callable[[int], Awaitable[bytes]]
"""Gets a shard's figures (actors/figures.py); raises ShardAway."""


@dataclass(frozen=True, slots=True)
class SpreadAnswer:
    p50: int
    p99: int
    max: int


@dataclass(frozen=True, slots=True)
class ActorAnswer:
    actor: Annotated[str, Field(description="schedule/医生/日期，room/科室/日期，bill/账单 / which one")]
    mailbox: Annotated[int, Field(description="未答复的请求 / asked and not answered")]
    commands: Annotated[int, Field(description="自该分片启动 / since its shard began to serve")]
    commands_per_second: float
    refused: Annotated[dict[str, int], Field(description="按原因累计 / by reason, since then")]
    refused_per_second: Annotated[dict[str, float], Field(description="按原因 / by reason, lately")]
    flush_us: Annotated[
        int, Field(description="最近一次提交耗时（微秒）/ how long its last transaction took, µs")
    ]
    unsettled: Annotated[int, Field(description="未提交的命令 / commands whose events are not committed")]
    last_used: datetime
    is_alive: Annotated[bool, Field(description="在内存中 / in memory")]
    holds: Annotated[int, Field(description="占号未付 / numbers held")] = 0
    wishes: Annotated[int, Field(description="候补 / wishes on its waiting list")] = 0
    waiting: Annotated[int, Field(description="候诊人数 / people in its lines")] = 0


@dataclass(frozen=True, slots=True)
class ShardAnswer:
    shard: int
    is_away: Annotated[bool, Field(description="无应答 / does not answer; the rest is then empty")] = False
    epoch: int = 0
    restarts: Annotated[
        int, Field(description="本网关启动后被接管次数 / takeovers since this gateway began")
    ] = 0
    mailbox: int = 0
    hosts: Annotated[int, Field(description="内存中的 actor 数 / actors in memory")] = 0
    commands: int = 0
    commands_per_second: float = 0.0
    refused_per_second: dict[str, float] = field(default_factory=dict)
    entries_per_second: Annotated[float, Field(description="事件数 / events")] = 0.0
    batch: Annotated[SpreadAnswer, Field(description="每条消息的命令数 / commands in a message")] = (
        SpreadAnswer(0, 0, 0)
    )
    flush_entries: SpreadAnswer = SpreadAnswer(0, 0, 0)
    flush_us: SpreadAnswer = SpreadAnswer(0, 0, 0)
    lag_us: Annotated[SpreadAnswer, Field(description="事件循环迟到 / how late its loop woke")] = (
        SpreadAnswer(0, 0, 0)
    )
    actors: Annotated[list[ActorAnswer], Field(description="最忙的在前 / the busiest first")] = field(
        default_factory=list
    )


@dataclass(frozen=True, slots=True)
class ActorsAnswer:
    at: datetime
    shards: list[ShardAnswer]


@dataclass(slots=True)
class _Seen:
    epoch: int
    restarts: int = 0


class ActorBoard:
    """Of one gateway. Also the stream's source of the topics actors/all and actors/<shard>."""

    def __init__(self, ask: Ask, shards: int, stream: Stream, zone: tzinfo, now: Callable[[], int]) -> None:
        self._ask = ask
        self._shards = shards
        self._stream = stream
        self._zone = zone
        self._now = now
        self._seen: dict[int, _Seen] = {}
        self._latest: ActorsAnswer | None = None
        self._asked_at = 0.0
        self._asking: asyncio.Task[ActorsAnswer] | None = None
        stream.sources[TOPIC] = self

    async def latest(self) -> ActorsAnswer:
        """At most LOOK_SECONDS old."""
        now = asyncio.get_running_loop().time()
        if self._latest is not None and now - self._asked_at < LOOK_SECONDS:
            return self._latest
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask_all())
            self._asking.add_done_callback(self._answered)
        return await asyncio.shield(self._asking)

    async def run(self) -> None:
        """Tells those who watch, every second; asks nobody while nobody does."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            topics = self._stream.watched(TOPIC)
            if topics:
                await self.latest()
                for topic in topics:
                    self._stream.renew(topic)

    def rows(self, name: str, who: Who) -> list[ScheduleRow]:
        """No schedules. Raises Problem."""
        must_be(who, TOPICS["actors"])
        if name != ALL and not (name.isdecimal() and int(name) < self._shards):
            raise Problem(Fault.NO_SUCH_TOPIC)
        return []

    async def snapshot(self, topic: str, name: str) -> bytes:
        found = await self.latest()
        shards = [one for one in found.shards if name == ALL or one.shard == int(name)]
        return orjson.dumps({"snapshot": topic, "at": found.at, "shards": shards})

    def _answered(self, task: "asyncio.Task[ActorsAnswer]") -> None:
        self._asking = None
        if not task.cancelled() and task.exception() is None:
            self._latest = task.result()

    async def _ask_all(self) -> ActorsAnswer:
        self._asked_at = asyncio.get_running_loop().time()
        shards = await asyncio.gather(*(self._ask_one(n) for n in range(self._shards)))
        return ActorsAnswer(self._time(self._now()), shards)

    async def _ask_one(self, shard_id: int) -> ShardAnswer:
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                told: dict[str, Any] = msgpack.unpackb(await self._ask(shard_id))
        except (ShardAway, TimeoutError):
            return ShardAnswer(shard_id, is_away=True)
        seen = self._seen.setdefault(shard_id, _Seen(told["epoch"]))
        if seen.epoch != told["epoch"]:
            seen.epoch, seen.restarts = told["epoch"], seen.restarts + 1
        for name in ("batch", "flush_entries", "flush_us", "lag_us"):
            told[name] = SpreadAnswer(**told[name])
        told["actors"] = [
            ActorAnswer(**{**one, "last_used": self._time(one["last_used"])}) for one in told["actors"]
        ]
        return ShardAnswer(**told, restarts=seen.restarts)

    def _time(self, ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, self._zone)


def must_be(who: Who, rights: Rights) -> Staff:
    """Raises Problem unless it is one of the staff with one of the roles that have it."""
    if who is None:
        raise Problem(Fault.UNAUTHENTICATED)
    if not isinstance(who, Staff) or who.roles.isdisjoint(rights.roles):
        raise Problem(Fault.FORBIDDEN)
    return who


@api.route(
    "GET",
    "/api/v1/desk/actors",
    zh="实时运行指标（分片与 actor）",
    tags=["desk"],
    errors=[],
)
async def read_actors(request: web.Request) -> ActorsAnswer:
    """Each shard and its busiest actors: mailboxes, rates, refusals by reason, flush times, queues."""
    return await request.app[keys.ACTOR_BOARD].latest()
