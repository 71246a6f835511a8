"""The process beside the record system: tells it of finished visits, and asks it for what is new.

What is new is asked for by the time of its last change, a minute before the newest that was seen: their
clocks and transactions may come in another order. What is known already costs nothing.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from actors.outbox import Committed, Draft, Message, Outbox
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.records.encounters import Visit, visit
from engine.records.imaging import note_position, position_of
from integrations.connector import ConnectorFailed, Refused
from integrations.emr import emr, translate
from integrations.emr.client import PAGES_MAX, EmrClient
from integrations.emr.emr import EmrAt, Person, Unreadable
from web.emr.taking import receive, take, use_of
from web.intake.intake import Intake
from web.sync.app import SyncApp

log = logging.getLogger(__name__)

NAME: Final = "emr"
LOOK_SECONDS: Final = 10.0
FAILED_SECONDS_MAX: Final = 120.0
OVERLAP: Final = timedelta(seconds=60)
REMEMBERED_MAX: Final = 20_000
TOGETHER: Final = 100
"""Resources that are read at once."""


class ToEmr:
    """The subscriber: a visit that is over."""

    name = NAME
    kinds: frozenset[type] = frozenset((s.AttendanceRecorded,))

    def __init__(self, app: SyncApp, client: EmrClient) -> None:
        self._app = app
        self._client = client

    async def messages(self, connection: asyncpg.Connection, events: Sequence[Committed]) -> list[Draft]:
        found = []
        for one in events:
            event = one.event
            if isinstance(event, s.AttendanceRecorded) and event.status == s.Status.FULFILLED:
                id_ = event.appointment_id.hex()
                found.append(Draft(one.shard, one.seq, id_, "visit", {"appointment": id_}))
        return found

    async def deliver(self, message: Message) -> None:
        """Telling twice is telling once: they know the visit by our number of it."""
        app = self._app
        found = await visit(app.pool, app.vault, bytes.fromhex(str(message.data["appointment"])))
        if found is None:
            return  # taken back since, or forgotten
        await self._client.tell_visit(self._visit(found))

    def _visit(self, one: Visit) -> emr.Visit:
        app = self._app
        key = ScheduleKey.of_schedule(one.schedule_id)
        practitioner_id = "" if key is None else key.practitioner_id
        department = app.catalog.departments.get(one.department_id)
        practitioner = app.catalog.practitioners.get(practitioner_id)
        person = Person(
            one.patient_id.hex(),
            one.name,
            one.id_type,
            one.id_number,
            one.birth_date,
            one.sex,
            one.his_numbers,
        )
        return emr.Visit(
            one.appointment_id.hex(),
            person,
            one.department_id,
            "" if department is None else department.name,
            practitioner_id,
            "" if practitioner is None else practitioner.name,
            one.begins_at.astimezone(app.zone),
            one.ends_at.astimezone(app.zone),
        )


class Asking:
    """What is new there, taken in."""

    def __init__(self, app: SyncApp, client: EmrClient, intake: Intake) -> None:
        self._app = app
        self._client = client
        self._intake = intake
        self._use = use_of(app.pool, app.vault, app.now)
        receive(intake, self._use)
        self._known: OrderedDict[str, None] = OrderedDict()

    async def look(self) -> int:
        """All kinds once; how many were new. Raises what the connector and the database raise."""
        patients: dict[str, Mapping[str, Any] | None] = {}
        return sum([await self._look(type_, patients) for type_ in translate.RESOURCES])

    async def _look(self, type_: str, patients: dict[str, Mapping[str, Any] | None]) -> int:
        app = self._app
        feed = f"{NAME}.{type_}"
        position = await position_of(app.pool, feed)
        newest = datetime.fromisoformat(position) if position else None
        since = None if newest is None else newest - OVERLAP
        new, following = 0, ""
        for _ in range(PAGES_MAX):
            page = await self._client.changed(type_, since, following)
            for start in range(0, len(page.resources), TOGETHER):
                new += await self._take(page.resources[start : start + TOGETHER], patients)
            for one in page.resources:
                at = _changed_at(one)
                if at is not None and (newest is None or at > newest):
                    newest = at
            if newest is not None:
                await note_position(app.pool, feed, newest.isoformat(), app.now())
            following = page.following
            if not following:
                break
        return new

    async def _take(
        self, resources: Sequence[Mapping[str, Any]], patients: dict[str, Mapping[str, Any] | None]
    ) -> int:
        whose: dict[str, Mapping[str, Any]] = {}
        for one in resources:
            reference = _whose(one)
            if reference and reference not in patients:
                patients[reference] = await self._patient(reference)
            found = patients.get(reference)
            if found is not None:
                whose[reference] = found
        entries = [{"fullUrl": reference, "resource": found} for reference, found in whose.items()]
        entries += [{"fullUrl": "", "resource": one} for one in resources]
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
        new = 0
        for read in await asyncio.to_thread(translate.read, bundle, NAME, self._app.zone):
            if read.message_id in self._known:
                continue
            await take(self._intake, self._use, read)
            new += 1
            self._known[read.message_id] = None
            while len(self._known) > REMEMBERED_MAX:
                self._known.popitem(last=False)
        return new

    async def _patient(self, reference: str) -> Mapping[str, Any] | None:
        try:
            return await self._client.patient(reference.removeprefix("Patient/"))
        except Refused as error:
            if error.code == "bad-id":
                return None  # what is said of nobody waits at the intake
            raise


class Emr:
    def __init__(self, app: SyncApp) -> None:
        at = app.systems.emr
        assert isinstance(at, EmrAt)
        client = EmrClient(app.client, at)
        self._intake = Intake(app.pool, app.vault, app.registry)
        self._asking = Asking(app, client, self._intake) if at.is_asked else None
        self._outbox = None
        if at.is_told:
            self._outbox = Outbox(app.database_url, ToEmr(app, client), registry=app.registry)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._intake.run())
            if self._outbox is not None:
                group.create_task(self._outbox.run())
            if self._asking is not None:
                group.create_task(_keep_asking(self._asking))


async def _keep_asking(asking: Asking) -> None:
    pause = LOOK_SECONDS
    while True:
        try:
            await asking.look()
            pause = LOOK_SECONDS
        except (ConnectorFailed, Unreadable, OSError, TimeoutError, asyncpg.PostgresError) as error:
            said = error.why if isinstance(error, Unreadable) else type(error).__name__
            log.warning("the record system could not be asked: %s", said)
            pause = min(pause * 2, FAILED_SECONDS_MAX)
        await asyncio.sleep(pause)


def _whose(resource: Mapping[str, Any]) -> str:
    """Patient/123, "" where it does not say so in this way."""
    for field in ("subject", "patient"):
        reference = resource.get(field)
        named = reference.get("reference") if isinstance(reference, Mapping) else None
        if isinstance(named, str) and named.startswith("Patient/"):
            return named
    return ""


def _changed_at(resource: Mapping[str, Any]) -> datetime | None:
    meta = resource.get("meta")
    said = meta.get("lastUpdated") if isinstance(meta, Mapping) else None
    try:
        at = datetime.fromisoformat(str(said))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
