"""The process beside the laboratory: takes its reports over MLLP, tries again what waits at the intake."""

import asyncio
import logging
from functools import partial
from ipaddress import ip_network
from typing import Final

from prometheus_client import Gauge

from integrations.hl7v2 import mllp
from integrations.lis.lis import LisAt
from web.intake.intake import Intake
from web.results.ordering import order_of_seen
from web.results.receiving import Receiving
from web.sync.app import SyncApp

log = logging.getLogger(__name__)

FIGURES_SECONDS: Final = 5.0
HERE: Final = "127.0.0.0/8,::1"


class Lis:
    """A SyncSystem (web/sync/app.py)."""

    def __init__(self, app: SyncApp) -> None:
        self._app = app
        self._at: LisAt = app.systems.lis
        self._intake = Intake(app.pool, app.vault, app.registry, app.now)
        self._receiving = Receiving(app.pool, app.vault, self._intake, lambda: app.zone, app.now)
        self._messages = Gauge(
            "xinglin_lis_messages",
            "Messages of laboratories by MLLP since the process began",
            ["what"],
            registry=app.registry,
        )

    async def run(self) -> None:
        """Raises OSError where the port is another's."""
        at = self._at
        limits = mllp.Limits(peers=networks(at.peers or HERE))
        server = await mllp.serve(at.host, at.port, partial(self._receiving.hl7, charset=at.charset), limits)
        log.info("laboratories deliver at %s:%d", at.host, server.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._intake.run())
                tasks.create_task(self._count(server))
                if at.sandbox:
                    tasks.create_task(order_of_seen(self._app, at.sandbox))
        finally:
            await server.close()

    async def _count(self, server: mllp.Server) -> None:
        while True:
            self._messages.labels("answered").set(server.answered)
            self._messages.labels("refused").set(server.refused)
            self._messages.labels("closed").set(server.closed)
            await asyncio.sleep(FIGURES_SECONDS)


def networks(text: str) -> tuple[mllp.Network, ...]:
    """Addresses or CIDRs between commas. Raises ValueError."""
    return tuple(ip_network(one.strip()) for one in text.split(",") if one.strip())
