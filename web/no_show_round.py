"""Once a night, what the appointments have shown of no-shows is learned anew: engine/domain/no_show_night.py.

Learning takes seconds of one core and much memory, so it runs in a process of its own, behind everything else
(`xinglin no-show learn`, which anybody may run beside a server). A gateway only looks whether it is due.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import asyncpg
from aiohttp import web

from engine.domain.no_show_night import learn_night
from engine.records.catalog import load_catalog
from engine.records.no_show_models import Learned, keep, last_learned_at, visits
from web import keys

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 600.0
NIGHT_HOUR: Final = 2  # of the hospital's clock: from then on a new day's learning is due
LEARN_SECONDS_MAX: Final = 1_800.0
NICE: Final = 10
_COMMAND: Final = "from web.cli import main; main(prog_name='xinglin')"


async def learn_nightly(app: web.Application, database_url: str) -> None:
    """A round: harmless when done twice, and done at once where nothing was ever learned."""
    if is_due(await last_learned_at(app[keys.POOL]), datetime.now(UTC).astimezone(app[keys.ZONE])):
        await _in_a_process_of_its_own(database_url)


def is_due(learned_at: datetime | None, now: datetime) -> bool:
    """`now` in the hospital's zone."""
    if learned_at is None:
        return True
    return now.hour >= NIGHT_HOUR and learned_at.astimezone(now.tzinfo).date() < now.date()


async def learn(connection: asyncpg.Connection, now: datetime) -> Learned:
    """Reads, learns and keeps."""
    zone = (await load_catalog(connection)).hospital.zone
    today = now.astimezone(zone).date()
    night = learn_night([visit async for visit in visits(connection, zone, today)], today)
    return Learned(await keep(connection, night, now), now, night)


async def _in_a_process_of_its_own(database_url: str) -> None:
    """The address goes by the environment: arguments are for everybody to read."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _COMMAND,
        "no-show",
        "learn",
        env=child_environment({"XINGLIN_DATABASE_URL": database_url}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LEARN_SECONDS_MAX):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    words = told.decode(errors="replace").strip()
    if process.returncode:
        log.error("no-shows could not be learned: %s", words[-500:])
    else:
        log.info("no-shows: %s", words.replace("\n", "; "))


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Of a process that finds the same modules as this one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}
