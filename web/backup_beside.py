"""The archiver beside a server: a child process, so that no booking ever waits for a backup."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from engine import embedded_postgres
from engine.settings import Settings
from web.backup_place import keys_of, place_of, same_disk

log = logging.getLogger(__name__)

RESTART_SECONDS: Final = 5.0
STOP_SECONDS_MAX: Final = 20.0
_COMMAND: Final = "from web.cli import main; main(prog_name='xinglin')"


async def check(settings: Settings) -> None:
    """Before anything starts. Raises BackupFailed where key or place are not what they must be."""
    if not settings.backup_to:
        return
    keys_of(settings)
    async with place_of(settings):
        if same_disk(settings):
            log.warning(
                "backups go to %s, which is on the same disk as the data: they are lost with it",
                settings.backup_to,
            )


@contextlib.asynccontextmanager
async def archiving(settings: Settings, home: Path) -> AsyncIterator[None]:
    """For as long as the context lasts, if there is a second place. Leaving it ships what is left."""
    if not settings.backup_to:
        yield
        return
    keeper = asyncio.create_task(_keep_archiving(_environment(settings, home)))
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def _keep_archiving(environment: Mapping[str, str]) -> None:
    while True:
        # The child ends with this thread, which is the main one (engine/embedded_postgres.py says why).
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", _COMMAND, "backup", "keep"),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us alone
            preexec_fn=embedded_postgres.die_with_parent,
        )
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            raise
        log.error("BACKUP FAILS: the archiver ended with status %s and is started again", status)
        await asyncio.sleep(RESTART_SECONDS)


def _environment(settings: Settings, home: Path) -> dict[str, str]:
    """The child's settings. By the environment: arguments are for everybody to read."""
    given = {
        "XINGLIN_HOME": str(home),
        "XINGLIN_BACKUP_TO": settings.backup_to,
        "XINGLIN_BACKUP_KEY_FILE": str(settings.backup_key_file),
        "XINGLIN_BACKUP_KEEP": str(settings.backup_keep),
        "XINGLIN_BACKUP_HOUR": str(settings.backup_hour),
        "XINGLIN_BACKUP_S3_ACCESS_KEY": settings.backup_s3_access_key,
        "XINGLIN_BACKUP_S3_SECRET_KEY": settings.backup_s3_secret_key.get_secret_value(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    if settings.database_url is not None:
        given["XINGLIN_DATABASE_URL"] = settings.database_url.get_secret_value()
    return {**os.environ, **given}
