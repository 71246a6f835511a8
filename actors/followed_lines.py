"""Lines to shards that another service has: where they are stands in PostgreSQL (docs/SERVICES.md).

A run of the shards has a secret of its own, which whoever knows the installation's token secret works out.
While they are away, or there is another number of them than these lines were made for, nothing is sent.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from actors.lines import Lines
from engine.records.shard_routes import Routes, Run, follow_routes

log = logging.getLogger(__name__)

FIRST_SECONDS_MAX: Final = 30.0


class NoRun(Exception):
    """Nobody has served the shards yet, or the database is away."""


class FollowedLines:
    """`changed` is called once when the number of shards is another: then everything made of it is wrong."""

    def __init__(
        self, database_url: str, token_secret: bytes, changed: Callable[[], Awaitable[None]]
    ) -> None:
        self.lines = Lines(b"")
        self._url = database_url
        self._token_secret = token_secret
        self._changed = changed
        self._run: Run | None = None
        self._is_first = asyncio.Event()
        self._is_over = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Until it is known how many shards there are, and where. Raises NoRun."""
        self._task = asyncio.create_task(follow_routes(self._url, self._heard))
        try:
            async with asyncio.timeout(FIRST_SECONDS_MAX):
                await self._is_first.wait()
        except TimeoutError:
            self.stop()
            raise NoRun("it is not known where the shards are") from None

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.lines.close()

    async def _heard(self, routes: Routes) -> None:
        run = routes.run
        if run is None or self._is_over:
            return
        if run != self._run:
            await self._begin(run)
        if self._is_over:
            return
        for shard_id, address in routes.addresses.items():
            if self.lines.routes.get(shard_id) != address:
                self.lines.route(shard_id, address)
        self._is_first.set()

    async def _begin(self, run: Run) -> None:
        if self._run is not None:
            log.info("the shards began anew")
        if not run.is_ours(self._token_secret):
            log.error("the service of the shards has another token secret: nothing can be asked of it")
        self.lines.begin(run.link_secret(self._token_secret))
        self._run = run
        if self.lines.shards not in (0, run.shards):
            self._is_over = True
            log.warning("there are %d shards now, and were %d", run.shards, self.lines.shards)
            await self._changed()
            return
        self.lines.shards = run.shards
