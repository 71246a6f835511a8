"""Of a page of numbers, the bill that each shows: the one to be paid now, else the first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import asyncpg

Executor: TypeAlias = asyncpg.Pool | asyncpg.Connection


@dataclass(frozen=True, slots=True)
class BillOfNumber:
    bill_id: bytes
    status: str  # payment.Status
    owed_back: int  # fen, of all bills that are for this number: asked for, and not given back yet


async def bills_of_numbers(executor: Executor, appointment_ids: Sequence[bytes]) -> dict[bytes, BillOfNumber]:
    """By number; those that have none are left out. A change to a dearer number makes a second bill."""
    rows = await executor.fetch(
        "select distinct on (appointment_id) appointment_id, id, status,"
        "       sum(owed_back) over (partition by appointment_id)::bigint as owed_back"
        "  from bill where appointment_id = any ($1::uuid[])"
        " order by appointment_id, status in ('open', 'at_hospital') desc, opened_at, id",
        [UUID(bytes=one) for one in appointment_ids],
    )
    return {
        row["appointment_id"].bytes: BillOfNumber(row["id"].bytes, row["status"], row["owed_back"])
        for row in rows
    }
