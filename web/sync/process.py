"""One process beside one outside system: everything that we tell it and hear from it goes through here.

A system that hangs, floods us or makes its connector fail touches nobody else: neither the gateways nor the
other systems. The process needs nothing at its start: whatever is away is tried again, with pauses that grow.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from actors.cluster import Others
from actors.directory import Directory
from actors.lines import Lines
from actors.metrics import loop_lag, samples, watch_lag
from engine import logs
from engine.vault.memory import no_core_files
from web.sync.app import SyncApp, SyncSystem, opened
from web.sync.config import SyncConfig
from web.sync.systems import MAKERS

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
AGAIN_SECONDS_MAX = 30.0
STEADY_SECONDS = 60.0  # whoever ran for so long begins with the shortest pause again
STOP_SECONDS_MAX = 5.0


class SyncProcess:
    """In the cluster it has the shape of a gateway (actors/cluster.py)."""

    def __init__(self, name: str, config: SyncConfig) -> None:
        no_core_files()  # it will hold keys
        self._name = name
        self._config = config
        self._registry = CollectorRegistry()
        self._lag = loop_lag(self._registry)
        self._tasks: list[asyncio.Task[None]] = []
        settings, folder = config.settings, config.log_folder
        process = f"sync-{name}"
        logs.configure(settings.log_level, folder and folder / f"{process}.log", process, settings.log_format)

    async def start(self, lines: Lines, others: Others) -> str:
        """Never fails, and waits for nobody. It has no address: gives its name."""
        self._directory_of: Callable[[], Directory] = lambda: Directory(lines.send, lines.shards)
        self._tasks = [
            asyncio.create_task(self._keep_running()),
            asyncio.create_task(watch_lag(self._lag)),
        ]
        return self._name

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*self._tasks, return_exceptions=True), STOP_SECONDS_MAX)

    def metrics(self) -> list[Metric]:
        return samples(self._registry, f"sync-{self._name}")

    async def _keep_running(self) -> None:
        pause = AGAIN_SECONDS
        loop = asyncio.get_running_loop()
        app: SyncApp | None = None
        system: SyncSystem | None = None
        try:
            while True:
                began = loop.time()
                try:
                    if app is None:
                        app = await opened(self._name, self._config, self._directory_of(), self._registry)
                    if system is None:  # made once: its figures are registered once
                        system = MAKERS[self._name](app)
                    await system.run()
                    log.warning("%s came to an end, and goes on", self._name)
                except Exception:
                    log.exception("%s fails, and is tried again", self._name)
                if loop.time() - began > STEADY_SECONDS:
                    pause = AGAIN_SECONDS
                await asyncio.sleep(pause)
                pause = min(pause * 2, AGAIN_SECONDS_MAX)
        finally:
            if app is not None:
                await app.close()
