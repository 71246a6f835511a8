"""The notary beside the gateways: each second the chain goes on, if something was written, and its hash goes
into the file outside the database; once a minute into the second place of the backups, too.

In the process that serves, because only one of those runs on a database, and its home is where the key is.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg

from engine.audit.blocks import Block, unpack
from engine.audit.checkpoints import FILE, CheckpointFile, CheckpointsFailed, line_of, read_checkpoints
from engine.audit.checkpoints import restored_line as restored_line
from engine.audit.notary import NotaryStopped, block_of, last_block, make_block
from engine.audit.signing_key import SigningKey
from engine.backup.failed import BackupFailed
from engine.database import AWAY, connect
from engine.settings import Settings
from web.backup_place import place_of

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 1.0
STOPPED_SECONDS: Final = 60.0  # between two looks at a chain that must not go on by itself
SECOND_PLACE_SECONDS: Final = 60.0
LAST_SECONDS_MAX: Final = 10.0
FOLDER: Final = "audit"  # in the second place


class Notary:
    def __init__(self, url: str, home: Path, key: SigningKey, settings: Settings) -> None:
        self._url = url
        self._file = CheckpointFile(home / FILE)
        self._key = key
        self._settings = settings
        self._connection: asyncpg.Connection | None = None
        self._is_in_step = False
        self._line = ""  # the newest
        self._sent = ""

    async def run(self) -> None:
        """For as long as it is awaited."""
        second = asyncio.create_task(self._keep_second_place()) if self._settings.backup_to else None
        try:
            while True:
                await asyncio.sleep(await self._try())
        finally:
            if second is not None:
                second.cancel()

    async def finish(self) -> None:
        """When nobody writes any more: what is left is chained."""
        try:
            async with asyncio.timeout(LAST_SECONDS_MAX):
                await self._try()
                if self._settings.backup_to:
                    await self.send()
        except TimeoutError:
            log.warning("the audit's last block waits for the next start")
        if self._connection is not None:
            self._connection.terminate()

    async def step(self, connection: asyncpg.Connection) -> int:
        """All that is new, as blocks and their lines; how many. Raises NotaryStopped or CheckpointsFailed."""
        if not self._is_in_step:
            await self._come_in_step(connection)
            self._is_in_step = True
        made = 0
        while True:
            self._is_in_step = False  # until the line is there
            block = await make_block(connection, self._key, int(time.time() * 1000))
            if block is not None:
                await self._keep(block)
            self._is_in_step = True
            if block is None:
                return made
            made += 1

    async def _try(self) -> float:
        """Seconds until the next one."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._url)
            await self.step(self._connection)
        except (NotaryStopped, CheckpointsFailed) as stopped:
            log.error("AUDIT: the chain does not go on: %s", stopped)
            return STOPPED_SECONDS
        except AWAY as error:
            log.warning("the audit's chain waits for the database: %s", error)
        except Exception:
            log.exception("the audit's chain waits")
            return STOPPED_SECONDS
        return ROUND_SECONDS

    async def _come_in_step(self, connection: asyncpg.Connection) -> None:
        """The file after a start: a crash may have come between a block and its line."""
        lines = await asyncio.to_thread(self._file.lines)
        kept = read_checkpoints(lines)
        last = await last_block(connection)
        known = kept.last or kept.begun
        if last is None:
            if known:
                raise NotaryStopped(_older(known, 0))
            return
        if not known:
            log.warning("the audit's checkpoints begin anew after block %d: there was no file", last.number)
            await self._add(restored_line(last.number, last.hash, 0, int(time.time() * 1000), "", self._key))
            return
        if known > last.number:
            raise NotaryStopped(_older(known, last.number))
        rows = await connection.fetch(
            "select number, body, hash, signature from audit_block where number >= $1 order by number", known
        )
        blocks = [block_of(row) for row in rows]
        if not blocks or blocks[0].number != known or kept.hashes.get(known) != blocks[0].hash:
            raise NotaryStopped(
                f"block {known} is not the one of the checkpoints: see `xinglin audit verify`"
            )
        for block in blocks[1:]:
            await self._keep(block)

    async def _keep(self, block: Block) -> None:
        body = unpack(block.body)
        await self._add(line_of(block, body.at, body.key))

    async def _add(self, line: str) -> None:
        await asyncio.to_thread(self._file.add, line)
        self._line = line

    async def _keep_second_place(self) -> None:
        while True:
            await asyncio.sleep(SECOND_PLACE_SECONDS)
            await self.send()

    async def send(self) -> None:
        """The newest line, added to the day's file there. What fails comes again with the next one."""
        line = self._line
        if line == self._sent or not line:
            return
        name = f"{FOLDER}/checkpoints-{datetime.now(UTC):%Y%m%d}.log"
        try:
            async with place_of(self._settings) as place:
                await place.begin(FOLDER)
                had = await place.get(name) if name in await place.names(FOLDER) else b""
                await place.put(name, had + line.encode())
            self._sent = line
        except BackupFailed as failed:
            log.warning("the audit's checkpoint is not in the second place: %s", failed)


@contextlib.asynccontextmanager
async def notarised(url: str, home: Path, key: SigningKey, settings: Settings) -> AsyncIterator[None]:
    """For as long as the context lasts; leaving it chains what is left."""
    notary = Notary(url, home, key, settings)
    task = asyncio.create_task(notary.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await notary.finish()


def _older(known: int, last: int) -> str:
    return (
        f"the checkpoints know block {known} and the database ends with block {last}: it is an older copy, or"
        ' its end was cut off. If you restored it: `xinglin audit checkpoint --restored "why"`'
    )
