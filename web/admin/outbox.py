"""What leaves for outside systems, as the system administrator sees it: how far each is behind, and what was
refused. Which message it is about, and nothing of what it says (docs/OUTBOX.md)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from aiohttp import web
from pydantic import Field

from engine.records import outbox as records
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import Request
from web.patient.conduct_bodies import Prose

Name = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9_.-]+$")]


class OutboxQuery(Request):
    subscriber: Annotated[Name | None, Field(description="只看一个系统 / of one system alone")] = None
    before: Annotated[
        int | None, Field(ge=1, le=2**62, description="上一页最后一项的 id / `id` of the last one seen")
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class DeadLetterPath(Request):
    subscriber: Name
    id: Annotated[int, Field(ge=1, le=2**62, description="死信编号 / the dead letter")]


class DropDeadLetterBody(Request):
    reason: Annotated[Prose, Field(description="放弃的理由 / why it is given up")]


@dataclass(frozen=True, slots=True)
class OutboxSubscriberAnswer:
    name: str
    since: datetime
    unread: Annotated[int, Field(description="尚未读取的事件 / events that were not looked at yet")]
    waiting: Annotated[int, Field(description="待送达 / messages to deliver")]
    blocked: Annotated[int, Field(description="其中等在死信之后的 / of these, behind a dead letter")]
    dead: Annotated[int, Field(description="死信 / dead letters")]
    uncertain: Annotated[int, Field(description="结果不明的 / tried, and nobody knows")]
    oldest_at: Annotated[datetime | None, Field(description="最早一条可送达的 / of the oldest that could go")]


@dataclass(frozen=True, slots=True)
class DeadLetterAnswer:
    """一条死信，不含内容 / a dead letter, and nothing of what it says."""

    id: int
    subscriber: str
    message_id: Annotated[str, Field(description="对方所见的编号 / as the outside knows it")]
    aggregate: Annotated[
        str, Field(description="所属对象，同一对象内保持先后 / within it, the order is kept")
    ]
    kind: str
    at: Annotated[datetime, Field(description="事件时刻 / of the event")]
    died_at: datetime
    tries: int
    trouble: Annotated[str, Field(description="对方的回答 / what they said")]
    behind: Annotated[int, Field(description="因此等待的后续消息 / messages that wait behind it")]


@dataclass(frozen=True, slots=True)
class OutboxAnswer:
    subscribers: list[OutboxSubscriberAnswer]
    dead: Annotated[list[DeadLetterAnswer], Field(description="由新到旧 / newest first")]
    before: Annotated[int | None, Field(description="还有下一页时给出 / where there are more")]


@dataclass(frozen=True, slots=True)
class DeadLetterSettledAnswer:
    id: int
    subscriber: str


@api.route(
    "GET", "/api/v1/admin/outbox", zh="外发队列与死信", tags=["integration"], errors=[Fault.DATABASE_DOWN]
)
async def list_outbox(request: web.Request, *, query: OutboxQuery) -> OutboxAnswer:
    """Every system that hears of what happens here, how far it is behind, and what it refused."""
    pool, zone = request.app[keys.POOL], request.app[keys.ZONE]
    found = await records.dead_letters(pool, query.subscriber, query.before, query.limit + 1)
    page = found[: query.limit]
    return OutboxAnswer(
        [
            OutboxSubscriberAnswer(
                one.subscriber,
                one.since.astimezone(zone),
                one.behind,
                one.waiting,
                one.blocked,
                one.dead,
                one.uncertain,
                None if one.oldest_at is None else one.oldest_at.astimezone(zone),
            )
            for one in await records.status(pool, query.subscriber)
        ],
        [
            DeadLetterAnswer(
                one.position,
                one.subscriber,
                one.id,
                one.aggregate,
                one.kind,
                one.at.astimezone(zone),
                one.died_at.astimezone(zone),
                one.tries,
                one.trouble,
                one.behind,
            )
            for one in page
        ],
        page[-1].position if len(found) > query.limit else None,
    )


@api.route(
    "POST",
    "/api/v1/admin/outbox/{subscriber}/dead/{id}/replay",
    zh="重新送达死信",
    tags=["integration"],
    errors=[Fault.NO_SUCH_MESSAGE, Fault.DATABASE_DOWN],
)
async def replay_dead_letter(request: web.Request, *, path: DeadLetterPath) -> DeadLetterSettledAnswer:
    """It is tried anew at once, and what waits behind it follows."""
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        if not await records.replay(connection, path.subscriber, [path.id]):
            raise Problem(Fault.NO_SUCH_MESSAGE)
        await audited(request, connection, "dead_letter_replayed", object=_object(path))
    return DeadLetterSettledAnswer(path.id, path.subscriber)


@api.route(
    "POST",
    "/api/v1/admin/outbox/{subscriber}/dead/{id}/drop",
    zh="放弃死信",
    tags=["integration"],
    errors=[Fault.NO_SUCH_MESSAGE, Fault.DATABASE_DOWN],
)
async def drop_dead_letter(
    request: web.Request, *, staff: Staff, path: DeadLetterPath, body: DropDeadLetterBody
) -> DeadLetterSettledAnswer:
    """It is never delivered; what waits behind it goes on. Somebody must have told that system by hand."""
    async with request.app[keys.POOL].acquire() as connection, connection.transaction():
        if not await records.drop(connection, path.subscriber, [path.id]):
            raise Problem(Fault.NO_SUCH_MESSAGE)
        await audited(request, connection, "dead_letter_dropped", object=_object(path), reason=body.reason)
    return DeadLetterSettledAnswer(path.id, path.subscriber)


def _object(path: DeadLetterPath) -> tuple[str, str]:
    return "outbox_message", f"{path.subscriber}/{path.id}"
