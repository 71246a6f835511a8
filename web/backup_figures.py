"""What the archiver says of itself, as metrics of the gateways."""

import asyncio
import logging
import time
from datetime import datetime
from typing import Final

import asyncpg
from prometheus_client import CollectorRegistry, Gauge

from engine.database import AWAY

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
SILENT_SECONDS_MAX: Final = 180.0  # an archiver that lives says something each minute
_LOOK: Final = "select beat_at, archived_until, waiting_since, base_at, failing from backup_status"


class BackupFigures:
    """Ages grow by themselves between two looks, so a dead archiver shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._beat = self._waiting = self._base = 0.0  # Unix time; 0: none
        self._is_failing = False
        failing = Gauge(
            "xinglin_backup_failing", "1 when backups fail or the archiver is silent", registry=registry
        )
        failing.set_function(self._failing)
        lag = Gauge(
            "xinglin_backup_lag_seconds",
            "Age of the oldest commit that is not in the second place; 0 when none waits",
            registry=registry,
        )
        lag.set_function(lambda: _age(self._waiting))
        base = Gauge(
            "xinglin_backup_base_age_seconds",
            "Age of the latest base backup; -1 when none",
            registry=registry,
        )
        base.set_function(lambda: _age(self._base, none=-1.0))
        self._archived = Gauge(
            "xinglin_backup_archived_until_timestamp_seconds",
            "All commits up to this moment are in the second place",
            registry=registry,
        )

    async def follow(self, pool: asyncpg.Pool) -> None:
        while True:
            try:
                row = await pool.fetchrow(_LOOK)
                if row is not None:
                    self._beat = _unix(row["beat_at"])
                    self._waiting, self._base = _unix(row["waiting_since"]), _unix(row["base_at"])
                    self._archived.set(_unix(row["archived_until"]))
                    self._is_failing = bool(row["failing"])
            except AWAY as error:
                log.warning("how backups stand could not be read: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    def _failing(self) -> float:
        return float(self._is_failing or _age(self._beat, none=0.0) > SILENT_SECONDS_MAX or not self._beat)


def _unix(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else 0.0


def _age(moment: float, none: float = 0.0) -> float:
    return max(0.0, time.time() - moment) if moment else none
