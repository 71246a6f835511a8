"""Who is on duty in a department on a day, as it is published or has been changed since."""

from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg
import orjson

from engine.domain.ids import RoomKey
from engine.domain.limits import SLOT_MS
from engine.domain.planning import plan_from_data
from engine.domain.room_plan import RoomPlan


async def load_room_plan(pool: asyncpg.Pool, key: RoomKey) -> RoomPlan | None:
    """None where there is no such department, or no such day."""
    try:
        day = date.fromisoformat(key.day)
    except ValueError:
        return None
    async with pool.acquire() as connection:
        timezone = await connection.fetchval(_TIMEZONE, key.department_id)
        if timezone is None:
            return None
        rows = await connection.fetch(_DAY, day)
    begins: dict[str, int] = {}
    ends = 0
    for row in rows:
        for session in plan_from_data(orjson.loads(row["plan"])):
            if session.department_id != key.department_id or not session.slots:
                continue
            who = session.substitute_id or row["practitioner_id"]
            starts_at = min(slot.starts_at for slot in session.slots)
            begins[who] = min(begins.get(who, starts_at), starts_at)
            ends = max(ends, *(slot.starts_at + SLOT_MS for slot in session.slots))
    on_duty = sorted(begins, key=lambda who: (begins[who], who))
    return RoomPlan(key.department_id, key.day, ends or _end_of(day, ZoneInfo(timezone)), tuple(on_duty))


def _end_of(day: date, zone: ZoneInfo) -> int:
    return int(datetime.combine(day + timedelta(days=1), time(), zone).timestamp() * 1000)


_TIMEZONE: Final = "select h.timezone from hospital h, department d where d.id = $1"
_DAY: Final = "select practitioner_id, plan::text as plan from schedule where day = $1"
