"""Call screens as they were last heard of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

KEPT: Final = timedelta(days=7)
"""A screen that was not heard of for so long is no screen of ours any more."""


@dataclass(frozen=True, slots=True)
class ScreenRow:
    id: str
    topic: str
    department_id: str
    account: str
    gateway: str
    seen_at: datetime
    shown_sequence: int
    behind_ms: int
    error: str


async def save_screens(pool: asyncpg.Pool, rows: Sequence[ScreenRow], now: datetime) -> None:
    """What is known of a screen later than this stays."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.executemany(
            "insert into screen as s (id, topic, department_id, account, gateway, seen_at, shown_sequence,"
            " behind_ms, error) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
            " on conflict (id, topic) do update set department_id = excluded.department_id,"
            " account = excluded.account, gateway = excluded.gateway, seen_at = excluded.seen_at,"
            " shown_sequence = excluded.shown_sequence, behind_ms = excluded.behind_ms,"
            " error = excluded.error"
            " where s.seen_at <= excluded.seen_at",
            [
                (
                    row.id,
                    row.topic,
                    row.department_id,
                    row.account,
                    row.gateway,
                    row.seen_at,
                    row.shown_sequence,
                    row.behind_ms,
                    row.error,
                )
                # Two gateways that write the same screens take the rows in the same order.
                for row in sorted(rows, key=lambda row: (row.id, row.topic))
            ],
        )
        await connection.execute("delete from screen where seen_at < $1", now - KEPT)


async def list_screens(pool: asyncpg.Pool, department_id: str | None) -> list[ScreenRow]:
    """By department and name; None: of the whole hospital."""
    rows = await pool.fetch(
        "select id, topic, department_id, account, gateway, seen_at, shown_sequence, behind_ms, error"
        "  from screen where $1::text is null or department_id = $1 order by department_id, id, topic",
        department_id,
    )
    return [ScreenRow(**row) for row in rows]
