"""What comes in, as metrics: what became of it, which rules it broke, and how much waits for somebody."""

import asyncio
import logging
import time
from functools import partial
from typing import Final

import asyncpg
from prometheus_client import CollectorRegistry, Counter, Gauge

from engine.database import AWAY
from engine.records import intake as records

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 15.0


class IntakeCounts:
    """Of one process. Rules and interfaces are words of ours, so there are few."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        registry = registry if registry is not None else CollectorRegistry()
        self._messages = Counter(
            "xinglin_intake_messages",
            "Messages of other systems, by what became of them",
            ["interface", "outcome"],
            registry=registry,
        )
        self._findings = Counter(
            "xinglin_intake_findings",
            "Messages that broke a rule, by rule",
            ["interface", "rule"],
            registry=registry,
        )

    def count(self, interface: str, outcome: str) -> None:
        self._messages.labels(interface, outcome).inc()

    def found(self, interface: str, rule: str) -> None:
        self._findings.labels(interface, rule).inc()


class IntakeFigures:
    """How much is in quarantine, read from the database: the same at every gateway."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting = Gauge(
            "xinglin_intake_quarantined",
            "Messages in quarantine, by interface",
            ["interface"],
            registry=registry,
        )
        self._age = Gauge(
            "xinglin_intake_oldest_seconds",
            "Since the oldest message in quarantine came",
            ["interface"],
            registry=registry,
        )
        self._seen: set[str] = set()

    async def look(self, pool: asyncpg.Pool) -> None:
        found = await records.waiting(pool)
        for interface in self._seen - found.keys():
            self._waiting.labels(interface).set(0)
            self._age.labels(interface).set_function(_none)
        for interface, one in found.items():
            self._waiting.labels(interface).set(one.quarantined)
            at = time.time() if one.oldest is None else one.oldest.timestamp()
            self._age.labels(interface).set_function(partial(_age, at))
        self._seen |= found.keys()

    async def follow(self, pool: asyncpg.Pool) -> None:
        while True:
            try:
                await self.look(pool)
            except AWAY as error:
                log.warning("what is in quarantine could not be read: %s", type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)


def _age(moment: float) -> float:
    return max(0.0, time.time() - moment)


def _none() -> float:
    return 0.0
