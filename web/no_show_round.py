"""Once a night, what the appointments have shown of no-shows is learned anew: engine/domain/no_show_night.py.

Learning takes seconds of one core and much memory, so it runs in a process of its own, behind everything else
(`xinglin no-show learn`, which anybody may run beside a server). A gateway only looks whether it is due.
"""

import logging
from datetime import UTC, datetime
from typing import Final

import asyncpg
from aiohttp import web

from engine.domain.no_show_night import learn_night
from engine.records.catalog import load_catalog
from engine.records.no_show_models import Learned, keep, last_learned_at, visits
from web import keys
from web.own_process import run_command

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 600.0
NIGHT_HOUR: Final = 2  # of the hospital's clock: from then on a new day's learning is due
LEARN_SECONDS_MAX: Final = 1_800.0
NICE: Final = 10


async def learn_nightly(app: web.Application, database_url: str) -> None:
    """A round: harmless when done twice, and done at once where nothing was ever learned."""
    if is_due(await last_learned_at(app[keys.POOL]), datetime.now(UTC).astimezone(app[keys.ZONE])):
        await run_command("no-show", "learn", database_url=database_url, seconds_max=LEARN_SECONDS_MAX)


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
