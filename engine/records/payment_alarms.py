"""What providers, or somebody in their name, said that was not believed: for the cashier and the operator.

One row for the same words within an hour, with how often they came: whoever forges callbacks by the thousand
fills no table. No names, no amounts, nothing that a stranger wrote.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection

_COLUMNS: Final = (
    "id, at, last_at, times, provider, what, why, order_id, bill_id, settled_at, settled_by, settled_why"
)


@dataclass(frozen=True, slots=True)
class Alarm:
    provider: str
    what: str  # callback | query | refund | statement | hospital_billing
    why: str
    order_id: str = ""  # our number of the attempt or the refund, 32 hex digits; "": unknown, or not ours
    bill_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class AlarmRow:
    id: int
    at: datetime
    last_at: datetime
    times: int
    provider: str
    what: str
    why: str
    order_id: str
    bill_id: bytes | None
    settled_at: datetime | None
    settled_by: str | None
    settled_why: str | None


async def note(executor: Executor, alarm: Alarm, now: datetime) -> None:
    await executor.execute(
        "insert into payment_alarm (hour, at, last_at, provider, what, why, order_id, bill_id)"
        " values (date_trunc('hour', $1::timestamptz), $1, $1, $2, $3, $4, $5, $6)"
        " on conflict (provider, what, why, order_id, hour) do update"
        "    set times = payment_alarm.times + 1, last_at = excluded.last_at",
        now,
        alarm.provider,
        alarm.what,
        alarm.why,
        alarm.order_id,
        None if alarm.bill_id is None else UUID(bytes=alarm.bill_id),
    )


async def alarms(executor: Executor, only_open: bool, limit: int, before: int | None) -> list[AlarmRow]:
    """Newest first. `before` pages on from the last one's id."""
    rows = await executor.fetch(
        f"select {_COLUMNS} from payment_alarm"
        " where ($1::bigint is null or id < $1) and (not $2 or settled_at is null) order by id desc limit $3",
        before,
        only_open,
        limit,
    )
    return [_row(row) for row in rows]


async def settle(executor: Executor, alarm_id: int, by: str, why: str, now: datetime) -> bool:
    """Somebody has looked into it; False: there is no such one, or it was settled before."""
    return bool(
        await executor.fetchval(
            "update payment_alarm set settled_at = $2, settled_by = $3, settled_why = $4"
            " where id = $1 and settled_at is null returning true",
            alarm_id,
            now,
            by,
            why,
        )
    )


def _row(row: asyncpg.Record) -> AlarmRow:
    bill_id = row["bill_id"]
    return AlarmRow(**{**row, "bill_id": None if bill_id is None else bill_id.bytes})
