"""Where people wait: a count a department, from the tickets' table."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import asyncpg


@dataclass(frozen=True, slots=True)
class WaitingDepartment:
    department_id: str
    waiting: int  # in the hall and at doors
    called: int  # called or being seen
    aside: int  # parked, at an examination, passed over
    since: datetime | None  # when the first of those who wait came; None: nobody waits


async def waiting_departments(
    pool: asyncpg.Pool, day: date, after: str, limit: int
) -> list[WaitingDepartment]:
    """Departments where somebody is not through yet, by id, those behind `after`."""
    rows = await pool.fetch(_WAITING, day, after, limit)
    return [WaitingDepartment(*row.values()) for row in rows]


# Statuses: engine/domain/waiting_room.py Status.
_WAITING: Final = """
    select department_id, count(*) filter (where status <= 2), count(*) filter (where status in (3, 4)),
           count(*) filter (where status > 4), min(arrived_at) filter (where status <= 2)
      from ticket
     where day = $1 and status < 8 and department_id > $2
     group by department_id order by department_id limit $3
"""
