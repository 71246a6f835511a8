"""The feed: everything, once, in order, for who hands back the cursor; and clear words for who does not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.embedded_postgres import EmbeddedPostgres
from engine.records import event_feed
from engine.vault.vault import Vault
from tests.support.copies import copied, migrated
from tests.support.eventful import EventsApp, Hospital, events_app
from tests.support.stores import uid
from web import keys
from web.events.cursors import cursor_of
from web.events.envelope import schema_of
from web.events.vocabulary import uuid


@dataclass(frozen=True, slots=True)
class Reader:
    app: EventsApp
    token: str

    async def ask(self, **query: Any) -> tuple[int, Any]:
        return await self.app.call("GET", "/events", self.token, **query)

    async def all(self, **query: Any) -> tuple[list[dict[str, Any]], str]:
        """Page by page to the end."""
        found: list[dict[str, Any]] = []
        while True:
            status, page = await self.ask(**query)
            assert status == 200, page
            found += page["events"]
            query = {**query, "after": page["cursor"]}
            query.pop("since", None)
            if not page["has_more"]:
                return found, page["cursor"]


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def hospital(original: str) -> AsyncIterator[Hospital]:
    async with copied(original) as url:
        opened = await Hospital.open(url)
        try:
            yield opened
        finally:
            await opened.close()


@pytest.fixture
async def reader(hospital: Hospital, vault: Vault) -> AsyncIterator[Reader]:
    async with events_app(hospital.pool, vault) as app:
        yield Reader(app, await app.partner("reader", "events.read"))


async def test_all_that_happened_in_order_whatever_the_size_of_a_page(
    hospital: Hospital, reader: Reader
) -> None:
    await asyncio.gather(hospital.book(30, of=0), hospital.book(30, of=1))
    whole, cursor = await reader.all(since="beginning")
    assert len(whole) == 122 and len({one["id"] for one in whole}) == 122
    for size in (1, 7, 500):
        paged, _ = await reader.all(since="beginning", limit=size)
        assert sorted(one["id"] for one in paged) == sorted(one["id"] for one in whole)
        last: dict[str, str] = {}
        for one in paged:
            assert one["sequence"] > last.get(one["partitionkey"], "")
            last[one["partitionkey"]] = one["sequence"]
    for one in whole:
        Draft202012Validator(schema_of(one["type"])).validate(one["data"])
        assert one["specversion"] == "1.0" and one["source"].startswith("urn:uuid:")
    await hospital.book(1)
    more, _ = await reader.all(after=cursor)
    assert [one["type"] for one in more] == ["appointment.held", "appointment.booked"]


async def test_only_what_was_asked_for_and_from_now_on(hospital: Hospital, reader: Reader) -> None:
    await hospital.book(3)
    status, page = await reader.ask()
    assert status == 200 and page["events"] == [] and not page["has_more"]
    await hospital.book(2)
    booked, _ = await reader.all(after=page["cursor"], types="appointment.booked")
    assert [one["type"] for one in booked] == ["appointment.booked"] * 2
    nothing, cursor = await reader.all(after=page["cursor"], types="bill.*")
    assert nothing == [] and cursor != page["cursor"]  # it does not look through the same again


async def test_it_reads_on_through_much_that_is_not_wanted(
    hospital: Hospital, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "SCAN_MAX", 3)
    await hospital.book(40)
    found, _ = await reader.all(since="beginning", types="schedule.*")
    assert [one["type"] for one in found] == ["schedule.opened"]


async def test_who_waits_is_answered_when_something_happens(hospital: Hospital, reader: Reader) -> None:
    _, page = await reader.ask()
    waiting = asyncio.create_task(
        reader.ask(after=page["cursor"], wait=30, types="appointment.booked", limit=1)
    )
    tail = reader.app.app[keys.EVENT_TAIL]
    async with asyncio.timeout(30):
        while not tail.waiting:
            await asyncio.sleep(0)
    assert not waiting.done()
    await hospital.book(1)
    status, told = await waiting
    assert status == 200 and [one["type"] for one in told["events"]] == ["appointment.booked"]


async def test_who_waits_is_answered_when_the_gateway_stops(reader: Reader) -> None:
    _, page = await reader.ask()
    waiting = asyncio.create_task(reader.ask(after=page["cursor"], wait=30))
    tail = reader.app.app[keys.EVENT_TAIL]
    async with asyncio.timeout(25):  # less than it would wait
        while not tail.waiting:
            await asyncio.sleep(0)
        await tail.close()
        status, told = await waiting
    assert status == 200 and told["events"] == []


async def test_a_cursor_that_is_not_ours_and_one_of_a_future_that_was_undone(
    hospital: Hospital, reader: Reader
) -> None:
    await hospital.book(1)
    source = await event_feed.source(hospital.pool)
    for broken in ("nonsense", "A" * 60, cursor_of({0: 1}, b"another"), "é"):
        status, told = await reader.ask(after=broken)
        assert (status, told["code"]) == (400, "cursor_broken"), broken
    for ahead in ({0: 10_000}, {9: 1}):
        status, told = await reader.ask(after=cursor_of(ahead, source.secret))
        assert (status, told["code"]) == (410, "cursor_ahead")
    for query in ({"types": "no.such"}, {"limit": 501}, {"wait": 31}, {"since": "yesterday"}, {"x": 1}):
        assert (await reader.ask(**query))[0] == 422, query


async def test_only_partners_with_the_scope_and_each_reading_is_noted(
    hospital: Hospital, reader: Reader
) -> None:
    await hospital.book(2)
    app = reader.app
    other = await app.partner("other", "lis.write")
    assert (await app.call("GET", "/events", other))[0] == 403
    assert (await app.call("GET", "/events", app.staff("system_admin")))[0] == 401
    await reader.all(since="beginning")
    rows = await hospital.pool.fetch("select * from audit_entry where action = 'events_read'")
    assert [(row["by_kind"], row["by_name"]) for row in rows] == [("partner", "reader")]
    assert {str(one) for one in rows[0]["subjects"]} == {uuid(uid("patient", n)) for n in (0, 1)}


async def test_the_vocabulary_is_open(reader: Reader) -> None:
    status, told = await reader.app.call("GET", "/event-types", "")
    assert status == 200
    by_type = {one["type"]: one for one in told["types"]}
    assert by_type["appointment.booked"]["schema"]["$id"] == "urn:xinglin:event:appointment.booked:1"
    for one in told["types"]:
        Draft202012Validator.check_schema(one["schema"])


async def test_cursors_go_on_where_they_were_while_everybody_books(
    hospital: Hospital, reader: Reader
) -> None:
    """Whoever reads while both shards write misses nothing and gets nothing twice."""
    _, page = await reader.ask()
    cursor, ids = page["cursor"], list[str]()
    booking = asyncio.gather(*(hospital.book(5, of=n % 2) for n in range(20)))
    while not booking.done():
        found, cursor = await reader.all(after=cursor, limit=13)
        ids += [one["id"] for one in found]
    await booking
    found, cursor = await reader.all(after=cursor)
    ids += [one["id"] for one in found]
    assert len(ids) == len(set(ids)) == 202
