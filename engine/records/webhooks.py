"""Webhooks as rows: where somebody wants to be told of which events, what waits for them, and each try.

Secrets go in and come out sealed (engine/vault). A message is only where an event stands in the journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from engine.vault.columns import WEBHOOK_KEY

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

KEY_FIELD: Final = WEBHOOK_KEY.field
SECRET_FIELD: Final = "webhook.secret"
"""What a secret is sealed for, also as the one before: it moves from one column into the other."""

EACH_MAX: Final = 20
"""Webhooks of one partner, and of the hospital itself."""
WAITING_MAX: Final = 200_000
"""Messages of one webhook. Whoever is further behind reads the feed."""
KEPT_DISABLED: Final = timedelta(days=7)
KEPT_DELIVERIES: Final = timedelta(days=30)

_COLUMNS: Final = (
    "id, partner_id, address, types, data_key, secret, secret_before, before_until, made_at, made_by,"
    " failing_since, disabled_at, disabled_why"
)


@dataclass(frozen=True, slots=True)
class Webhook:
    id: bytes
    partner_id: bytes | None  # None: the hospital's own
    address: str
    types: tuple[str, ...]
    data_key: bytes | None
    secret: bytes
    secret_before: bytes | None
    before_until: datetime | None
    made_at: datetime
    made_by: str
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_why: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that may be sent now."""

    shard: int
    seq: int
    stream: str
    tries: int


@dataclass(frozen=True, slots=True)
class Again:
    """A message that was not delivered: when it is tried again, or that it is not."""

    shard: int
    seq: int
    due_at: datetime
    is_dead: bool


@dataclass(frozen=True, slots=True)
class Delivery:
    event_id: str
    type: str
    at: datetime
    attempt: int
    status: int | None
    ms: int
    trouble: str
    id: int = 0


class TooMany(Exception):
    """They have EACH_MAX already."""


# Whoever registers and looks after them.


async def add(connection: asyncpg.Connection, made: Webhook) -> None:
    """Within a transaction. Raises TooMany."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('xinglin.webhook.add'))")
    mine = await connection.fetchval(
        "select count(*) from webhook where partner_id is not distinct from $1", _uuid(made.partner_id)
    )
    if mine >= EACH_MAX:
        raise TooMany
    await connection.execute(
        "insert into webhook (id, partner_id, address, types, data_key, secret, made_at, made_by)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        UUID(bytes=made.id),
        _uuid(made.partner_id),
        made.address,
        list(made.types),
        made.data_key,
        made.secret,
        made.made_at,
        made.made_by,
    )


async def webhooks(executor: Executor) -> list[Webhook]:
    """All of them, the oldest first."""
    return [_row(row) for row in await executor.fetch(f"select {_COLUMNS} from webhook order by made_at, id")]


async def of_partner(executor: Executor, partner_id: bytes) -> list[Webhook]:
    rows = await executor.fetch(
        f"select {_COLUMNS} from webhook where partner_id = $1 order by made_at, id", UUID(bytes=partner_id)
    )
    return [_row(row) for row in rows]


async def webhook(connection: Executor, id_: bytes, lock: bool = False) -> Webhook | None:
    """`lock`: until the end of the transaction nobody else changes it."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from webhook where id = $1" + (" for update" if lock else ""), UUID(bytes=id_)
    )
    return None if row is None else _row(row)


async def change(connection: asyncpg.Connection, id_: bytes, address: str, types: Sequence[str]) -> None:
    await connection.execute(
        "update webhook set address = $2, types = $3 where id = $1", UUID(bytes=id_), address, list(types)
    )


async def rotate(connection: asyncpg.Connection, id_: bytes, secret: bytes, before_until: datetime) -> None:
    """Another secret. The one before signs as well until then."""
    await connection.execute(
        "update webhook set secret_before = secret, before_until = $3, secret = $2 where id = $1",
        UUID(bytes=id_),
        secret,
        before_until,
    )


async def disable(executor: Executor, id_: bytes, why: str, now: datetime) -> bool:
    """False where it was disabled already."""
    return bool(
        await executor.fetchval(
            "update webhook set disabled_at = $2, disabled_why = $3"
            " where id = $1 and disabled_at is null returning true",
            UUID(bytes=id_),
            now,
            why,
        )
    )


async def enable(connection: asyncpg.Connection, id_: bytes, now: datetime) -> None:
    """What waited goes on at once."""
    await connection.execute(
        "update webhook set disabled_at = null, disabled_why = '', failing_since = null where id = $1",
        UUID(bytes=id_),
    )
    await connection.execute(
        "update webhook_message set due_at = $2 where webhook_id = $1 and not is_dead and due_at > $2",
        UUID(bytes=id_),
        now,
    )


async def remove(connection: asyncpg.Connection, id_: bytes) -> None:
    """With all that waits for it."""
    await connection.execute("delete from webhook where id = $1", UUID(bytes=id_))


async def counts(executor: Executor, ids: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
    """Webhook -> messages that wait, and dead ones."""
    rows = await executor.fetch(
        "select webhook_id, count(*) filter (where not is_dead) as waiting,"
        " count(*) filter (where is_dead) as dead from webhook_message"
        " where webhook_id = any ($1::uuid[]) group by webhook_id",
        [UUID(bytes=one) for one in ids],
    )
    return {row["webhook_id"].bytes: (row["waiting"], row["dead"]) for row in rows}


async def deliveries(executor: Executor, id_: bytes, before: int | None, limit: int) -> list[Delivery]:
    """The latest tries first. `before` pages on from the last one's id."""
    rows = await executor.fetch(
        "select id, event_id, type, at, attempt, status, ms, trouble from webhook_delivery"
        " where webhook_id = $1 and ($2::bigint is null or id < $2) order by id desc limit $3",
        UUID(bytes=id_),
        before,
        limit,
    )
    return [Delivery(**row) for row in rows]


# What delivers.


async def wanting(connection: Executor) -> list[tuple[bytes, tuple[str, ...]]]:
    """The enabled ones, and which types they want."""
    rows = await connection.fetch("select id, types from webhook where disabled_at is null")
    return [(row["id"].bytes, tuple(row["types"])) for row in rows]


async def put(connection: Executor, messages: Sequence[tuple[bytes, int, int, str]], now: datetime) -> None:
    """(webhook, shard, seq, stream), each once."""
    if not messages:
        return
    await connection.execute(
        "insert into webhook_message (webhook_id, shard, seq, stream, due_at)"
        " select m.*, $5 from unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[]) as m"
        " on conflict do nothing",
        [UUID(bytes=one[0]) for one in messages],
        [one[1] for one in messages],
        [one[2] for one in messages],
        [one[3] for one in messages],
        now,
    )


async def put_again(
    connection: Executor, id_: bytes, shard: int, seq: int, stream: str, now: datetime
) -> None:
    """Somebody wants this event once more, or at last."""
    await connection.execute(
        "insert into webhook_message (webhook_id, shard, seq, stream, due_at) values ($1, $2, $3, $4, $5)"
        " on conflict (webhook_id, shard, seq)"
        " do update set tries = 0, is_dead = false, due_at = excluded.due_at",
        UUID(bytes=id_),
        shard,
        seq,
        stream,
        now,
    )


async def revive(connection: Executor, id_: bytes, now: datetime) -> int:
    """All that they refused for good is sent again; how many."""
    rows = await connection.fetch(
        "update webhook_message set tries = 0, is_dead = false, due_at = $2"
        " where webhook_id = $1 and is_dead returning seq",
        UUID(bytes=id_),
        now,
    )
    return len(rows)


_DUE: Final = """
 m.webhook_id = {webhook} and not m.is_dead and m.due_at <= {now} and not exists (
  select from webhook_message b where b.webhook_id = m.webhook_id and b.stream = m.stream
   and not b.is_dead and b.tries > 0 and b.due_at > {now})"""
"""Not of streams in which an earlier one waits to be tried again."""
_WITH_WORK: Final = (
    f"select {_COLUMNS} from webhook w where disabled_at is null"
    f" and exists (select from webhook_message m where {_DUE.format(webhook='w.id', now='$1')})"
)
_NEXT: Final = (
    f"select shard, seq, stream, tries from webhook_message m where {_DUE.format(webhook='$1', now='$2')}"
    " order by shard, seq limit $3"
)


async def with_work(executor: Executor, now: datetime) -> list[Webhook]:
    """Enabled, and something can be sent now."""
    return [_row(row) for row in await executor.fetch(_WITH_WORK, now)]


async def due(executor: Executor, id_: bytes, now: datetime, limit: int) -> list[Waiting]:
    """What can be sent now, the oldest first."""
    return [Waiting(**row) for row in await executor.fetch(_NEXT, UUID(bytes=id_), now, limit)]


async def settle(
    connection: asyncpg.Connection,
    id_: bytes,
    done: Sequence[tuple[int, int]],
    again: Sequence[Again],
    tries: Sequence[Delivery],
    has_delivered: bool,
    now: datetime,
) -> datetime | None:
    """What became of a batch, in one transaction. Gives since when nothing has come through, if so."""
    webhook_id = UUID(bytes=id_)
    async with connection.transaction():
        await connection.execute(
            "delete from webhook_message m using unnest($2::int[], $3::bigint[]) as d (shard, seq)"
            " where m.webhook_id = $1 and m.shard = d.shard and m.seq = d.seq",
            webhook_id,
            [shard for shard, _ in done],
            [seq for _, seq in done],
        )
        await connection.execute(
            "update webhook_message m set tries = m.tries + 1, due_at = a.due_at, is_dead = a.is_dead"
            " from unnest($2::int[], $3::bigint[], $4::timestamptz[], $5::boolean[])"
            "   as a (shard, seq, due_at, is_dead)"
            " where m.webhook_id = $1 and m.shard = a.shard and m.seq = a.seq",
            webhook_id,
            [one.shard for one in again],
            [one.seq for one in again],
            [one.due_at for one in again],
            [one.is_dead for one in again],
        )
        await note(connection, id_, tries)
        since: datetime | None = await connection.fetchval(
            "update webhook set failing_since ="
            " case when $2 then null when $3 then coalesce(failing_since, $4) else failing_since end"
            " where id = $1 returning failing_since",
            webhook_id,
            has_delivered,
            bool(again),
            now,
        )
    return since


async def note(executor: Executor, id_: bytes, tries: Sequence[Delivery]) -> None:
    if not tries:
        return
    await executor.execute(
        "insert into webhook_delivery (webhook_id, event_id, type, at, attempt, status, ms, trouble)"
        " select w.id, t.* from webhook w,"
        " unnest($2::text[], $3::text[], $4::timestamptz[], $5::int[], $6::int[], $7::int[], $8::text[]) as t"
        " where w.id = $1",  # it may have been removed meanwhile
        UUID(bytes=id_),
        [one.event_id for one in tries],
        [one.type for one in tries],
        [one.at for one in tries],
        [one.attempt for one in tries],
        [one.status for one in tries],
        [one.ms for one in tries],
        [one.trouble for one in tries],
    )


async def too_far_behind(executor: Executor) -> list[bytes]:
    """Enabled ones for which more than WAITING_MAX messages wait."""
    rows = await executor.fetch(
        "select w.id from webhook w where w.disabled_at is null and"
        " (select count(*) from webhook_message m where m.webhook_id = w.id and not m.is_dead) > $1",
        WAITING_MAX,
    )
    return [row["id"].bytes for row in rows]


async def forget(executor: Executor, now: datetime) -> None:
    """Old tries, and what waits for whoever has been disabled for long."""
    await executor.execute("delete from webhook_delivery where at < $1", now - KEPT_DELIVERIES)
    await executor.execute(
        "delete from webhook_message m using webhook w where w.id = m.webhook_id and w.disabled_at < $1",
        now - KEPT_DISABLED,
    )


@dataclass(frozen=True, slots=True)
class Figures:
    enabled: int
    disabled: int  # by itself; what people disabled is not counted
    failing: int
    waiting: int
    dead: int


async def figures(executor: Executor) -> Figures:
    row = await executor.fetchrow(
        "select count(*) filter (where disabled_at is null) as enabled,"
        " count(*) filter (where disabled_at is not null and disabled_why <> 'asked') as disabled,"
        " count(*) filter (where disabled_at is null and failing_since is not null) as failing,"
        " (select count(*) from webhook_message where not is_dead) as waiting,"
        " (select count(*) from webhook_message where is_dead) as dead from webhook"
    )
    return Figures(**row)


def _uuid(id_: bytes | None) -> UUID | None:
    return None if id_ is None else UUID(bytes=id_)


def _row(row: asyncpg.Record) -> Webhook:
    partner_id = row["partner_id"]
    return Webhook(
        **{
            **row,
            "id": row["id"].bytes,
            "partner_id": None if partner_id is None else partner_id.bytes,
            "types": tuple(row["types"]),
        }
    )
