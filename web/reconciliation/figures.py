"""How reconciliation stands, as metrics of the gateways. Ages grow by themselves between two looks."""

import asyncio
import logging
import time
from functools import partial
from typing import Final

import asyncpg
from prometheus_client import CollectorRegistry, Gauge

from engine.database import AWAY
from engine.domain.reconciliation import Kind
from engine.records import reconciliation as records

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0


class ReconciliationFigures:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = Gauge(
            "xinglin_reconciliation_differences",
            "Differences that are open, by kind",
            ["kind"],
            registry=registry,
        )
        self._age = Gauge(
            "xinglin_reconciliation_age_seconds",
            "Since the last complete run of a channel",
            ["channel"],
            registry=registry,
        )

    async def look(self, pool: asyncpg.Pool) -> None:
        found = await records.open_by_kind(pool)
        for kind in Kind:
            self._open.labels(kind.value).set(found.get(kind, 0))
        for channel, at in (await records.last_complete(pool)).items():
            self._age.labels(channel).set_function(partial(_age, at.timestamp()))

    async def follow(self, pool: asyncpg.Pool) -> None:
        while True:
            try:
                await self.look(pool)
            except AWAY as error:
                log.warning("how reconciliation stands could not be read: %s", error)
            await asyncio.sleep(LOOK_SECONDS)


def _age(moment: float) -> float:
    return max(0.0, time.time() - moment)
