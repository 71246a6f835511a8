"""An intake over a database of a test's own, with a clock that tests set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
from prometheus_client import CollectorRegistry

from engine.vault.vault import Vault
from tests.support.people import VAULT
from web.intake.intake import Intake


@dataclass(slots=True)
class Waiting:
    pool: asyncpg.Pool
    vault: Vault
    registry: CollectorRegistry
    intake: Intake
    moment: list[datetime] = field(default_factory=list)

    def now(self) -> datetime:
        return self.moment[0]

    def later(self, **span: float) -> None:
        self.moment[0] += timedelta(**span)

    def counted(self, interface: str, outcome: str) -> float:
        labels = {"interface": interface, "outcome": outcome}
        return self.registry.get_sample_value("xinglin_intake_messages_total", labels) or 0.0

    async def one(self, statement: str, *arguments: object) -> object:
        return await self.pool.fetchval(statement, *arguments)


@asynccontextmanager
async def intake_over(url: str) -> AsyncIterator[Waiting]:
    pool = await asyncpg.create_pool(url, min_size=1, max_size=6)
    moment = [datetime.now(UTC)]
    registry = CollectorRegistry()
    try:
        yield Waiting(pool, VAULT, registry, Intake(pool, VAULT, registry, lambda: moment[0]), moment)
    finally:
        await pool.close()
