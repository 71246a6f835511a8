"""The feed of events and their vocabulary: for partners without a broker."""

import asyncio
import time
from typing import Final
from uuid import UUID

from aiohttp import hdrs, web

from engine.records import event_feed
from web import keys
from web.auditing import noted_reading
from web.errors import Problem, language_of
from web.events.bodies import EventsAnswer, EventsQuery, EventTypeAnswer, EventTypesAnswer
from web.events.cursors import CursorBroken, cursor_of, positions_of
from web.events.envelope import cloud_event, schema_of
from web.events.feed import Ahead, Page, TooManyWait, page
from web.events.reading import Wanted
from web.events.vocabulary import TYPES, VERSION, PublicEvent
from web.faults import Fault
from web.openapi import api

_EVERYTHING: Final = ("*",)


@api.route(
    "GET",
    "/api/v1/events",
    zh="事件流",
    tags=["events"],
    errors=[Fault.CURSOR_BROKEN, Fault.CURSOR_AHEAD, Fault.EVENTS_BUSY, Fault.DATABASE_DOWN],
)
async def read_events(request: web.Request, *, query: EventsQuery) -> EventsAnswer:
    """What happened, in pages. Hand `cursor` back as `after`: nothing is left out, nothing comes twice.

    Without `after` it begins now. With `wait`, an empty page is answered only after so many seconds.
    """
    app = request.app
    pool, tail = app[keys.POOL], app[keys.EVENT_TAIL]
    source = await event_feed.source(pool)
    wanted = Wanted(tuple(query.types or _EVERYTHING))
    if query.after is not None:
        try:
            positions = positions_of(query.after, source.secret)
        except CursorBroken:
            raise Problem(Fault.CURSOR_BROKEN) from None
    else:
        positions = {} if query.since == "beginning" else await event_feed.ends(pool)
    ends_at = time.monotonic() + query.wait
    try:
        while True:
            found: Page = await page(pool, positions, wanted, query.limit)
            left = ends_at - time.monotonic()
            if found.events or left <= 0 or tail.is_closed:
                break
            positions = found.positions
            if found.has_more:
                await asyncio.sleep(0)  # it only looks further
            else:
                await tail.beyond(pool, positions, left)
    except Ahead:
        raise Problem(Fault.CURSOR_AHEAD) from None
    except TooManyWait:
        raise Problem(Fault.EVENTS_BUSY) from None
    await noted_reading(request, "events_read", _patients(found.events))
    return EventsAnswer(
        [cloud_event(one, source.id) for one in found.events],
        cursor_of(found.positions, source.secret),
        found.has_more,
    )


@api.route("GET", "/api/v1/event-types", zh="事件类型", tags=["events"])
async def list_event_types(request: web.Request) -> EventTypesAnswer:
    """Every type of event there is, with the JSON Schema of its data."""
    language = language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE))
    return EventTypesAnswer(
        [
            EventTypeAnswer(name, VERSION, one.zh if language == "zh" else one.en, schema_of(name))
            for name, one in TYPES.items()
        ]
    )


def _patients(events: list[PublicEvent]) -> list[bytes]:
    """Whom they are about."""
    named = [one.data["patient_id"] for one in events if "patient_id" in one.data]
    named += [id_ for one in events for id_ in one.data.get("patient_ids", ())]
    return [UUID(one).bytes for one in dict.fromkeys(named)]
