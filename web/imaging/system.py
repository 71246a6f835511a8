"""The process beside the picture archive: hears of new studies, and lets the intake look at each.

A position is noted after everything before it is kept, so a study is heard of at least once whatever dies.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

import asyncpg

from engine.records.imaging import INTERFACE, note_position, position_of, take_study
from engine.vault.vault import Vault
from integrations.connector import ConnectorFailed
from integrations.pacs.client import PacsClient
from integrations.pacs.feed import feed_of
from integrations.pacs.pacs import Feed, PacsAt, Study, Unreadable
from web.intake.intake import Intake
from web.sync.app import SyncApp

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
FAILED_SECONDS_MAX: Final = 120.0
FEED: Final = "pacs"


def body_of(study: Study, system: str) -> dict[str, Any]:
    """As the intake's rules know it."""
    return {
        "uid": study.uid,
        "day": None if study.day is None else study.day.isoformat(),
        "started_at": study.started_at,
        "modalities": list(study.modalities),
        "series": study.series,
        "instances": study.instances,
        "description": study.description,
        "accession": study.accession,
        "patient": {
            "numbers": [{"system": system, "number": study.patient_number}] if study.patient_number else [],
            "name": study.patient_name or None,
            "birth_date": None if study.birth_date is None else study.birth_date.isoformat(),
            "sex": study.sex,
        },
    }


def message_id_of(study: Study) -> str:
    """A study that has grown is a new message; the same once more is not. What was corrected is new, too."""
    said = (study.patient_number, study.patient_name, study.description, study.accession, study.started_at)
    return f"{study.uid}/{study.series}/{study.instances}/{_digest(repr(said))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def store(
    pool: asyncpg.Pool, vault: Vault, now: Callable[[], datetime], body: Mapping[str, Any]
) -> None:
    await take_study(pool, vault, body, now())


class Pacs:
    def __init__(self, app: SyncApp) -> None:
        at = app.systems.pacs
        assert isinstance(at, PacsAt)
        self._app = app
        self._system = at.patient_system
        self._feed: Feed = feed_of(PacsClient(app.client, at), at)
        self._intake = Intake(app.pool, app.vault, app.registry)
        self._store = partial(store, app.pool, app.vault, app.now)
        self._intake.receives(INTERFACE, self._store)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._intake.run())
            group.create_task(self._listen())

    async def _listen(self) -> None:
        pause = LOOK_SECONDS
        while True:
            try:
                while await self.look():
                    pass
                pause = LOOK_SECONDS
            except (ConnectorFailed, Unreadable, OSError, TimeoutError, asyncpg.PostgresError) as error:
                said = error.why if isinstance(error, Unreadable) else type(error).__name__
                log.warning("the picture archive could not be heard: %s", said)
                pause = min(pause * 2, FAILED_SECONDS_MAX)
            await asyncio.sleep(pause)

    async def look(self) -> bool:
        """Once; whether there is more already."""
        app = self._app
        now: datetime = app.now()
        position = await position_of(app.pool, FEED)
        news = await self._feed.news(position, now.astimezone(app.zone).date())
        for study in news.studies:
            await self._intake.take(
                INTERFACE, message_id_of(study), body_of(study, self._system), self._store
            )
            self._feed.taken(study)
        if news.position != position:
            await note_position(app.pool, FEED, news.position, app.now())
        return news.is_more
