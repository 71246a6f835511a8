"""What a shard reads of the records: patients' facts, the departments' rules, and holds that will end."""

from typing import Protocol

import asyncpg

from engine.domain.eligibility import DepartmentRule, Facts
from engine.domain.ids import ScheduleKey
from engine.records.facts import Question, facts


class Reads(Protocol):
    async def facts(self, questions: list[Question]) -> list[Facts]:
        """What is known of each patient, in the order of the questions."""

    async def rules(self) -> dict[str, DepartmentRule]:
        """Department id -> whom it sees."""

    async def open_holds(self) -> list[tuple[str, int]]:
        """Each actor with unpaid numbers, and when the first of them ends (ms)."""


class PostgresReads:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def facts(self, questions: list[Question]) -> list[Facts]:
        return await facts(self._pool, questions)

    async def rules(self) -> dict[str, DepartmentRule]:
        rows = await self._pool.fetch("select id, sex, age_min, age_max from department")
        return {row["id"]: DepartmentRule(row["sex"], row["age_min"], row["age_max"]) for row in rows}

    async def open_holds(self) -> list[tuple[str, int]]:
        rows = await self._pool.fetch(
            "select schedule_id, (extract(epoch from min(hold_until)) * 1000)::bigint as ends"
            "  from appointment where status = 1 group by schedule_id"
        )
        keys = ((ScheduleKey.of_schedule(row["schedule_id"]), row["ends"]) for row in rows)
        return [(key.stream, ends) for key, ends in keys if key is not None]
