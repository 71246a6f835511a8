"""The process beside the HIS: what we tell it, what it says by itself, and the days that are compared."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from actors.changes import Changes
from actors.directory import Outcome
from actors.outbox import Outbox
from actors.rounds import Round, go
from engine.domain import schedule as s
from engine.domain.limits import ANSWER_MS_MAX
from engine.records import his as records
from engine.records import his_differences
from integrations.connector import ConnectorFailed, OutcomeUnknown, TryAgain
from integrations.his.his_at import HisAt, make
from web.his.bookings import Bookings
from web.his.hearing import Hearing
from web.his.listening import listening
from web.his.people import People
from web.his.reconciling import AHEAD_DAYS, NIGHT_HOUR, Figures, Reconciling
from web.his.subscriber import ToHis
from web.his.telling import Telling
from web.intake.intake import Intake
from web.sync.app import SyncApp

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
NIGHT_LOOK_SECONDS: Final = 600.0
AGAIN_SECONDS: Final = 30.0
LOCK: Final = "xinglin.his"


class HisSystem:
    def __init__(self, app: SyncApp) -> None:
        self._app = app
        changes = Changes(app.directory)
        self._at: HisAt = app.systems.his
        self._his = his = make(self._at, app.client)
        bookings = Bookings(app.pool, app.vault)
        telling = Telling(app.pool, his, bookings, self._ask, app.zone)
        self._intake = Intake(app.pool, app.vault, app.registry)
        people = People(app.pool, app.vault, app.zone)
        self.hearing = Hearing(app.pool, app.vault, people, self._ask, changes, self._intake)
        self.hearing.join()
        self.reconciling = Reconciling(app.pool, his, telling, self.hearing, app.zone, Figures(app.registry))
        self._outbox = Outbox(app.database_url, ToHis(telling), registry=app.registry)

    async def run(self) -> None:
        rounds = [
            Round("HIS days asked for", LOOK_SECONDS, self.compare_asked),
            Round("HIS days of the night", NIGHT_LOOK_SECONDS, self.ask_nightly),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outbox.run())
                group.create_task(self._intake.run())
                group.create_task(listening(self._at, self.hearing))
                group.create_task(go(self._app.database_url, rounds, LOCK))
        finally:
            await self._his.close()

    async def compare_asked(self) -> None:
        """Every day that somebody wants compared; what cannot be asked now is put off."""
        pool = self._app.pool
        while (day := await records.due_day(pool)) is not None:
            try:
                run = await self.reconciling.compare(day)
            except (TryAgain, OutcomeUnknown) as failed:
                after = getattr(failed, "after", None) or AGAIN_SECONDS
                await records.put_off(pool, day, after, str(failed))
            except ConnectorFailed as failed:
                log.error("the HIS's list of %s cannot be read: %s", day, failed)
                await records.put_off(pool, day, NIGHT_LOOK_SECONDS, str(failed))
            except asyncpg.PostgresError:
                await records.put_off(pool, day, AGAIN_SECONDS, "the database")
                raise
            else:
                await records.done(pool, day)
                if run.left_open:
                    log.error(
                        "%d numbers of %s differ from the HIS's: xinglin his status", run.left_open, day
                    )

    async def ask_nightly(self) -> None:
        """Yesterday, and the days that people have numbers for: once a night."""
        now = datetime.now(UTC).astimezone(self._app.zone)
        await self.reconciling.count()
        if now.hour < NIGHT_HOUR:
            return
        night = now.replace(hour=NIGHT_HOUR, minute=0, second=0, microsecond=0)
        for n in range(-1, AHEAD_DAYS):
            day = now.date() + timedelta(days=n)
            last = await his_differences.runs(self._app.pool, day, 1)
            if last and last[0].began_at >= night:
                continue
            if n < 1 or await records.has_numbers(self._app.pool, day, self._app.zone.key):
                await records.ask_for(self._app.pool, day, "", only_new=True)

    async def _ask(self, stream: str, command: s.Command) -> Outcome:
        deadline = asyncio.get_running_loop().time() + ANSWER_MS_MAX / 1000
        return await self._app.directory.ask(stream, command, deadline)
