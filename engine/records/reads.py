"""What a shard reads of the records: patients' facts, the hospital's rules, and what time will bring."""

import logging
from typing import Protocol

import asyncpg

from engine.domain.claims import Scope
from engine.domain.eligibility import DepartmentRule, Facts
from engine.domain.ids import RoomKey, ScheduleKey
from engine.domain.policy import Policy
from engine.records.facts import Question, facts
from engine.records.policies import load_policy
from engine.records.policy_file import PolicyRefused

log = logging.getLogger(__name__)


class Reads(Protocol):
    async def facts(self, questions: list[Question], now: int) -> list[Facts]:
        """What is known of each patient at `now` (ms), in the order of the questions."""

    async def rules(self) -> dict[str, DepartmentRule]:
        """Department id -> whom it sees."""

    async def policy(self, fallback: Policy) -> Policy | None:
        """What is in force; `fallback` where nobody has decided anything; None: it cannot be read."""

    async def wakes(self) -> list[tuple[str, int]]:
        """Each actor in which time alone will change something, and when it must be looked at first (ms)."""

    async def moved(self, appointment_ids: list[bytes]) -> dict[bytes, bytes]:
        """Of numbers held for a change: who settled it. The old appointment: it was given up for the new
        one. The new one: the change was given up. Missing: neither yet."""

    async def held_for(self, appointment_ids: list[bytes]) -> dict[bytes, bytes]:
        """Of numbers that are held for a change still: the appointments that they are to replace."""


class PostgresReads:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def facts(self, questions: list[Question], now: int) -> list[Facts]:
        return await facts(self._pool, questions, now)

    async def rules(self) -> dict[str, DepartmentRule]:
        rows = await self._pool.fetch("select id, sex, age_min, age_max from department")
        return {row["id"]: DepartmentRule(row["sex"], row["age_min"], row["age_max"]) for row in rows}

    async def policy(self, fallback: Policy) -> Policy | None:
        async with self._pool.acquire() as connection:
            try:
                return await load_policy(connection, fallback)
            except PolicyRefused as error:
                log.error("the policy in force cannot be read, so the one before it stays: %s", error)
                return None

    async def wakes(self) -> list[tuple[str, int]]:
        rows = await self._pool.fetch(
            "select schedule_id, (extract(epoch from min(hold_until)) * 1000)::bigint as at"
            "  from appointment where status = 1 group by schedule_id"
            " union all select id, 0 from schedule where unfree <> '{}' and day >= current_date - 1"
            " union all select distinct s.key, 0 from wish w, jsonb_each(w.schedules) s"
            "  where w.status in ('waiting', 'offered')"
        )
        keys = ((ScheduleKey.of_schedule(row["schedule_id"]), row["at"]) for row in rows)
        found = [(key.stream, at) for key, at in keys if key is not None]
        # Who was called and does not come is passed over, and who was put aside waits again.
        rows = await self._pool.fetch(
            "select distinct department_id, day from ticket"
            " where status in (3, 5) and day >= current_date - 1"
        )
        return found + [(RoomKey(row["department_id"], row["day"].isoformat()).stream, 0) for row in rows]

    async def moved(self, appointment_ids: list[bytes]) -> dict[bytes, bytes]:
        rows = await self._pool.fetch(
            "select key, owner from claim where scope = $1 and key = any ($2::bytea[])",
            Scope.MOVE,
            appointment_ids,
        )
        return {row["key"]: row["owner"].bytes for row in rows}

    async def held_for(self, appointment_ids: list[bytes]) -> dict[bytes, bytes]:
        rows = await self._pool.fetch(
            "select a.id, a.replaces from appointment a join appointment o on o.id = a.replaces"
            " where a.id = any ($1::uuid[]) and a.status = 1 and o.patient_id = a.patient_id",
            [appointment_id.hex() for appointment_id in appointment_ids],
        )
        return {row["id"].bytes: row["replaces"].bytes for row in rows}
