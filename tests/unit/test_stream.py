"""Who looks hears: what is sent to whom and when, to slow readers and to those who talk nonsense."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

import web.stream
from actors.metrics import GatewayMetrics
from engine.domain.planning import PlannedSlot, Session, Share, Stage, plan_as_data
from engine.domain.policy import EVERYBODY
from engine.records.appointments import Taken
from engine.records.catalog import (
    NOT_IMPORTED,
    Catalog,
    Department,
    Practitioner,
    ScheduleRow,
    schedule_row,
)
from engine.views.availability import Availability
from tests.support.virtual_time import virtual
from web import keys
from web.app import make_app
from web.auth import Tokens
from web.errors import Problem
from web.patient.pages import Pages
from web.stream import Connection, Stream

ZONE = ZoneInfo("Asia/Shanghai")
DAY = date(2026, 11, 24)
HOUR = 3_600_000
MIDNIGHT = schedule_row("D0", DAY, False, ()).midnight_utc
BEFORE = MIDNIGHT - 4 * HOUR
SETTLED = 10_000.0  # seconds of virtual time, more than two hours
Json = dict[str, Any]


def department(id: str, parent: str | None = None) -> Department:
    return Department(id, parent, id, "", "", "", "", None, None, None, 0)


CATALOG = Catalog(
    1,
    NOT_IMPORTED,
    {d.id: d for d in (department("in"), department("cardio", "in"), department("derma"))},
    {p: Practitioner(p, f"Dr {p}", "chief", "cardio", "", "", 0) for p in ("D0", "D1", "D2")},
    {},
    {},
)


def row(who: str, days: int = 0, of: str = "cardio", opens: int | None = None, seats: int = 3) -> ScheduleRow:
    """Slots at 08:00 and 09:00; its seats open at `opens` (ms), or are open."""
    midnight = MIDNIGHT + days * 24 * HOUR
    shares = () if opens is None else (Share("", (Stage(opens, EVERYBODY),)),)
    runs = () if opens is None else ((0, seats),)
    slots = tuple(PlannedSlot(f"{8 + n:02}00", midnight + n * HOUR, seats, runs) for n in (0, 1))
    session = Session("morning", of, "expert", None, 5000, slots, shares)
    return schedule_row(who, DAY + timedelta(days), False, (session,))


class World:
    """A gateway's view and stream, with a clock of its own."""

    def __init__(self, *rows: ScheduleRow) -> None:
        self.view = Availability(CATALOG, rows)
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.stream = Stream(
            self.view,
            Pages(self.view, ZONE),
            ZONE,
            now=lambda: BEFORE + int((loop.time() - began) * 1000),
        )

    def seats(self, slot_id: str, left: int, version: int = 1) -> None:
        self.stream.heard(self.view.change({slot_id: left}, {}, version))

    def plan(self, row: ScheduleRow) -> None:
        self.stream.heard(self.view.change({}, {row.id: plan_as_data(row.plan)}, 9))


class Reader:
    """The other end of a connection; may stop reading."""

    def __init__(self, world: World) -> None:
        self.got: list[Json] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.world = world
        self.connection = Connection(self._take, "en", None)
        self.running = asyncio.create_task(self.connection.run(world.stream.messages))

    async def _take(self, message: bytes) -> None:
        await self.reads.wait()
        self.got.append(json.loads(message))

    async def heard(self) -> list[Json]:
        """What has come since the last time."""
        await asyncio.sleep(0.01)  # virtual: until there is nothing left to do
        got, self.got = self.got, []
        return got

    async def watches(self, *topics: str) -> list[Json]:
        for topic in topics:
            self.world.stream.subscribe(self.connection, topic)
        return await self.heard()


D0, D1 = "D0-20261124", "D1-20261124"


@virtual
async def test_a_subscription_begins_with_what_is_true_now() -> None:
    world = World(row("D0"), row("D0", 1), row("D1", of="derma"))
    reader = Reader(world)
    world.seats(f"{D0}-0800", 1, version=7)
    one, department_, person = await reader.watches(f"schedule/{D0}", "department/in", "practitioner/D1")
    assert (one["snapshot"], one["version"]) == (f"schedule/{D0}", 7)
    (day,) = one["schedules"]
    assert (day["id"], day["remaining"], day["practitioner_name"]) == (D0, 4, "Dr D0")
    assert day["slots"] == [
        {"slot_id": f"{D0}-0800", "remaining": 1, "capacity": 3, "status": "open", "opens_at": None},
        {"slot_id": f"{D0}-0900", "remaining": 3, "capacity": 3, "status": "open", "opens_at": None},
    ]
    assert [s["id"] for s in department_["schedules"]] == [D0, "D0-20261125"]
    assert [s["id"] for s in person["schedules"]] == [D1]


@virtual
async def test_whoever_looks_hears_of_a_change_once_and_others_do_not() -> None:
    world = World(row("D0"), row("D1"))
    all_of_it, one, other = Reader(world), Reader(world), Reader(world)
    await all_of_it.watches("department/in", "department/cardio", "practitioner/D0", f"schedule/{D0}")
    await one.watches(f"schedule/{D0}")
    await other.watches(f"schedule/{D1}", "practitioner/D1")
    world.seats(f"{D0}-0900", 2, version=3)
    (message,) = await one.heard()
    assert message["version"] == 3
    assert message["changed"] == [
        {"slot_id": f"{D0}-0900", "remaining": 2, "capacity": 3, "status": "open", "opens_at": None}
    ]
    assert [(s["id"], s["remaining"]) for s in message["schedules"]] == [(D0, 5)]
    assert await all_of_it.heard() == [message]
    assert await other.heard() == []


@virtual
async def test_who_has_unsubscribed_or_left_hears_nothing() -> None:
    world = World(row("D0"), row("D1"))
    reader = Reader(world)
    await reader.watches("department/in", f"schedule/{D1}")
    world.seats(f"{D0}-0900", 2)
    world.seats(f"{D1}-0900", 2)
    world.stream.unsubscribe(reader.connection, "department/in")  # before anything of it was sent
    assert [c["slot_id"] for m in await reader.heard() for c in m["changed"]] == [f"{D1}-0900"]
    world.stream.unsubscribe(reader.connection, "department/nowhere")
    world.stream.leave(reader.connection)
    world.seats(f"{D1}-0900", 1)
    assert await reader.heard() == []
    assert (world.stream._topics, world.stream._of_day) == ({}, {})


@virtual
async def test_a_slow_reader_gets_the_newest_state_once() -> None:
    world = World(row("D0"), row("D1"))
    reader = Reader(world)
    await reader.watches("department/in")
    reader.reads.clear()
    for left in (2, 1, 0, 1):
        world.seats(f"{D0}-0800", left)
        await asyncio.sleep(0.1)
    for _ in range(5):
        world.seats(f"{D1}-0900", 2)
    reader.reads.set()
    first, *later = await reader.heard()
    assert [c["remaining"] for c in first["changed"]] == [2], "was on its way already"
    assert [[(c["slot_id"], c["remaining"]) for c in m["changed"]] for m in later] == [
        [(f"{D0}-0800", 1), (f"{D1}-0900", 2)]
    ]


@virtual
async def test_who_is_too_far_behind_gets_snapshots_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.stream, "WAITING_MAX", 2)
    world = World(*(row("D0", n) for n in range(4)))
    reader = Reader(world)
    await reader.watches("practitioner/D0")
    for n in range(4):
        world.seats(f"D0-202611{24 + n}-0800", 0)
    (snapshot,) = (m for m in await reader.heard() if "snapshot" in m)
    assert [s["remaining"] for s in snapshot["schedules"]] == [3, 3, 3, 3]


@virtual
async def test_a_reader_that_takes_nothing_is_given_up() -> None:
    world = World(row("D0"))
    reader = Reader(world)
    await reader.watches(f"schedule/{D0}")
    reader.reads.clear()
    world.seats(f"{D0}-0800", 0)
    with pytest.raises(TimeoutError):
        await reader.running


@virtual
async def test_what_a_reader_did_wrong_is_bounded_too() -> None:
    world = World()
    reader = Reader(world)
    reader.reads.clear()
    for _ in range(web.stream.SAID_MAX * 3):
        reader.connection.say({"error": {}})
    await asyncio.sleep(0)
    reader.reads.set()
    assert len(await reader.heard()) <= web.stream.SAID_MAX + 1


@virtual
async def test_a_shares_opening_and_a_slots_beginning_are_told_at_that_moment() -> None:
    opens = BEFORE + 2 * HOUR
    world = World(row("D0", opens=opens), row("D1"))
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(world.stream.run())
    reader = Reader(world)
    at: list[float] = []
    take = reader.connection._send

    async def timed(message: bytes) -> None:
        at.append(loop.time())
        await take(message)

    reader.connection._send = timed
    began = loop.time()
    (snapshot,) = await reader.watches("department/in")
    first = next(s for s in snapshot["schedules"] if s["id"] == D0)
    assert (first["capacity"], first["sessions"][0]["opens_at"]) == (0, "2026-11-24T06:00:00+08:00")
    await asyncio.sleep(SETTLED)
    assert [c["slot_id"] for m in reader.got for c in m["changed"]] == [f"{D0}-0800", f"{D0}-0900"]
    assert [c["remaining"] for m in reader.got for c in m["changed"]] == [3, 3]
    assert at[1] - began == pytest.approx(2 * 3600, abs=0.01)
    reader.got.clear()
    await asyncio.sleep(6_000)  # 08:00 of both, and not yet 09:00
    (begun,) = reader.got
    assert sorted((c["slot_id"], c["remaining"]) for c in begun["changed"]) == [
        (f"{D0}-0800", 0),
        (f"{D1}-0800", 0),
    ]
    assert at[2] - began == pytest.approx(4 * 3600, abs=0.01)
    # A day that opens earlier than anything that was waited for.
    reader.got.clear()
    world.plan(row("D2", 1, opens=world.stream._now() + 5_000))
    await asyncio.sleep(6)
    assert [list(m)[0] for m in reader.got] == ["plan", "changed"]
    assert not running.done()


@virtual
async def test_another_structure_is_told_as_a_whole_day() -> None:
    world = World(row("D0"), row("D1"))
    cardio, derma, one = Reader(world), Reader(world), Reader(world)
    await cardio.watches("department/cardio")
    await derma.watches("department/derma")
    await one.watches(f"schedule/{D0}")
    world.plan(row("D0", of="derma", seats=5))
    (told,) = await derma.heard()
    assert told["plan"]["schedule_id"] == D0 and told["version"] == 9
    assert told["plan"]["schedule"]["sessions"][0]["department_id"] == "derma"
    assert [s["capacity"] for s in told["plan"]["schedule"]["slots"]] == [5, 5]
    assert await cardio.heard() == await one.heard() == [told], "one has it no longer"
    world.seats(f"{D0}-0800", 1)
    assert await cardio.heard() == []
    assert len(await derma.heard()) == len(await one.heard()) == 1
    # Gone, and a new day.
    world.stream.heard(world.view.change({}, {D0: []}, 10))
    assert [m["plan"]["schedule"] for m in await one.heard()] == [None]
    world.plan(row("D2", 2))
    assert [m["plan"]["schedule_id"] for m in await cardio.heard()] == ["D2-20261126"]
    world.seats("D2-20261126-0900", 0)
    assert [c["slot_id"] for m in await cardio.heard() for c in m["changed"]] == ["D2-20261126-0900"]


@virtual
async def test_a_day_that_changed_altogether_is_not_told_in_pieces_too() -> None:
    world = World(row("D0"))
    reader = Reader(world)
    await reader.watches(f"schedule/{D0}")
    world.stream.heard(world.view.change({f"{D0}-0800": 4}, {D0: plan_as_data(row("D0", seats=5).plan)}, 2))
    (told,) = await reader.heard()
    assert [s["remaining"] for s in told["plan"]["schedule"]["slots"]] == [4, 5]


@virtual
async def test_a_snapshot_and_another_catalog_are_told_as_far_as_they_differ() -> None:
    world = World(row("D0"), row("D1"))
    reader = Reader(world)
    await reader.watches("department/in", f"schedule/{D1}")
    world.stream.heard(world.view.reset(None, Taken({f"{D0}-0800": 1}, {}), 3))
    assert [c["slot_id"] for m in await reader.heard() for c in m["changed"]] == [f"{D0}-0800"]
    same = Catalog(2, NOT_IMPORTED, {**CATALOG.departments}, CATALOG.practitioners, {}, {})
    world.stream.heard(world.view.replace(same, [row("D0"), row("D1")]))
    assert await reader.heard() == []
    moved = {**CATALOG.departments, "cardio": department("cardio", "derma")}
    other = Catalog(2, NOT_IMPORTED, moved, CATALOG.practitioners, {}, {})
    world.stream.heard(world.view.replace(other, [row("D0"), row("D1")]))
    renewed = [m for m in await reader.heard() if m.get("snapshot") == "department/in"]
    assert [m["schedules"] for m in renewed] == [[]]
    world.seats(f"{D0}-0800", 0)
    assert await reader.heard() == []


@virtual
async def test_topics_are_bounded_and_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.stream, "TOPICS_MAX", 2)
    monkeypatch.setattr(web.stream, "SCHEDULES_MAX", 3)
    world = World(*(row(who, n) for who in ("D0", "D1") for n in range(2)))
    connection = Reader(world).connection
    for topic, code in (
        ("schedule/D9-20261124", "no_such_schedule"),
        ("schedule/D0", "no_such_schedule"),
        ("department/x", "no_such_department"),
        ("practitioner/x", "no_such_practitioner"),
        ("weather/x", "no_such_topic"),
        ("department/in", "topic_too_wide"),
    ):
        with pytest.raises(Problem) as refused:
            world.stream.subscribe(connection, topic)
        assert refused.value.code == code
    world.stream.subscribe(connection, "department/derma")
    world.stream.subscribe(connection, f"schedule/{D0}")
    world.stream.subscribe(connection, f"schedule/{D0}")
    with pytest.raises(Problem) as refused:
        world.stream.subscribe(connection, f"schedule/{D1}")
    assert (refused.value.code, refused.value.members["limit"]) == ("too_many_topics", 2)
    world.stream.unsubscribe(connection, f"schedule/{D0}")
    world.stream.subscribe(connection, f"schedule/{D1}")


# Over a real socket.


class Served:
    def __init__(
        self, client: TestClient[Any, Any], view: Availability, stream: Stream, tokens: Tokens
    ) -> None:
        self.client = client
        self.view = view
        self.stream = stream
        self.tokens = tokens

    def seats(self, slot_id: str, left: int) -> None:
        self.stream.heard(self.view.change({slot_id: left}, {}, 1))

    async def connect(self, **headers: str) -> ClientWebSocketResponse:
        socket = await self.client.ws_connect("/api/v1/stream", headers=headers)
        self.hello = (await socket.receive_json())["hello"]
        return socket


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    view = Availability(CATALOG, [row("D0", 3650), row("D1", 3650)])
    tokens = Tokens(b"x" * 32, 60, 60)
    app = make_app()
    app[keys.AVAILABILITY] = view
    app[keys.ZONE] = ZONE
    app[keys.TOKENS] = tokens
    app[keys.METRICS] = GatewayMetrics()
    app[keys.PAGES] = pages = Pages(view, ZONE)
    app[keys.STREAM] = stream = Stream(view, pages, ZONE)

    async with TestClient(TestServer(app)) as client:
        yield Served(client, view, stream, tokens)


FAR = f"{DAY + timedelta(3650):%Y%m%d}"


async def test_changes_come_over_the_socket_and_silence_follows_an_unsubscription(served: Served) -> None:
    socket = await served.connect()
    assert served.hello == {"signed_in": False, "topics_max": web.stream.TOPICS_MAX}
    await socket.send_json({"subscribe": [f"schedule/D0-{FAR}", "department/in"]})
    assert [(await socket.receive_json())["snapshot"] for _ in range(2)] == [
        f"schedule/D0-{FAR}",
        "department/in",
    ]
    served.seats(f"D0-{FAR}-0800", 1)
    assert [c["remaining"] for c in (await socket.receive_json())["changed"]] == [1]
    await socket.send_json(
        {"unsubscribe": [f"schedule/D0-{FAR}", "department/in"], "subscribe": [f"schedule/D1-{FAR}"]}
    )
    assert (await socket.receive_json())["snapshot"] == f"schedule/D1-{FAR}"
    served.seats(f"D0-{FAR}-0800", 0)
    served.seats(f"D1-{FAR}-0900", 2)
    assert [c["slot_id"] for c in (await socket.receive_json())["changed"]] == [f"D1-{FAR}-0900"]
    await socket.close()


Sent = Callable[[ClientWebSocketResponse], Awaitable[None]]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"[" * 5_000, "malformed_json"),
        (b"[]", "invalid_body"),
        (b'{"subscribe":"schedule/x"}', "invalid_body"),
        (b'{"subscribe":["x"]}', "invalid_body"),
        (b'{"subscribe":["schedule/../x"]}', "invalid_body"),
        (b'{"watch":[]}', "invalid_body"),
        (b'{"subscribe":[],"subscribe":[]}', "duplicate_key"),
        (orjson.dumps({"subscribe": ["department/in"] * 51}), "invalid_body"),
        (b'{"token":"nonsense"}', "unauthenticated"),
        (b'{"subscribe":["weather/x"]}', "no_such_topic"),
    ],
)
async def test_nonsense_is_answered_and_the_connection_lives(served: Served, said: bytes, code: str) -> None:
    socket = await served.connect(**{"Accept-Language": "en"})
    await socket.send_frame(said, WSMsgType.TEXT if said.isascii() else WSMsgType.BINARY)
    error = (await socket.receive_json())["error"]
    assert error["code"] == code and error["title"].isascii()
    await socket.send_json({"subscribe": ["department/in", "department/x"]})
    error = (await socket.receive_json())["error"]
    assert (error["code"], error["topic"]) == ("no_such_department", "department/x")
    assert (await socket.receive_json())["snapshot"] == "department/in"
    await socket.close()


async def test_who_talks_only_nonsense_is_closed(served: Served) -> None:
    socket = await served.connect()
    for _ in range(web.stream.MISTAKES_MAX):
        await socket.send_str("{")
    while (message := await socket.receive()).type == WSMsgType.TEXT:
        assert json.loads(message.data)["error"]["code"] == "malformed_json"
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)


async def test_a_message_beyond_the_bound_ends_the_connection(served: Served) -> None:
    socket = await served.connect()
    await socket.send_str(" " * 20_000)
    message = await socket.receive()
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)


async def test_a_token_comes_in_the_header_or_in_a_message(served: Served) -> None:
    token = served.tokens.issue(b"a" * 16).access_token
    socket = await served.connect(Authorization=f"Bearer {token}")
    assert served.hello["signed_in"]
    await socket.close()
    socket = await served.connect()
    assert not served.hello["signed_in"]
    await socket.send_json({"token": token})
    assert (await socket.receive_json())["hello"]["signed_in"]
    await socket.close()
    with pytest.raises(WSServerHandshakeError) as refused:
        await served.connect(Authorization="Bearer nonsense")
    assert refused.value.status == 401


async def test_beyond_the_bound_nobody_connects_and_the_place_of_who_leaves_is_free(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.stream, "_connections_max", 1)
    socket = await served.connect()
    with pytest.raises(WSServerHandshakeError) as refused:
        await served.connect()
    assert refused.value.status == 503 and refused.value.headers is not None
    assert refused.value.headers["Retry-After"] == "5"
    await socket.close()
    while served.stream._connections:
        await asyncio.sleep(0)
    await served.connect()


async def test_what_is_no_websocket_is_told_so(served: Served) -> None:
    async with served.client.get("/api/v1/stream") as response:
        assert (response.status, (await response.json())["code"]) == (426, "upgrade_required")
        assert response.headers["Upgrade"] == "websocket"


async def test_a_connection_without_a_topic_does_not_stay(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.stream, "IDLE_SECONDS_MAX", 0.01)
    idle = await served.connect()
    message = await idle.receive()
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1000)


async def test_a_gateway_that_stops_sends_everybody_away(served: Served) -> None:
    socket = await served.connect()
    closing = asyncio.create_task(served.stream.close())
    message = await socket.receive()
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    await closing


# Sessions that end. That gateways hear of it: tests/integration/test_sessions.py.


@virtual
async def test_whose_session_has_ended_hears_nothing_more() -> None:
    world = World(row("D0"))
    mine, stuck, other = Reader(world), Reader(world), Reader(world)
    ended: list[str] = []

    async def end(name: str) -> None:
        ended.append(name)
        if name == "stuck":
            raise RuntimeError("it is not open yet")

    for name, reader, session in (("mine", mine, b"a"), ("stuck", stuck, b"a"), ("other", other, b"b")):
        world.stream.sign_in(reader.connection, bytes(16), session, partial(end, name))
        await reader.watches(f"schedule/{D0}")
    stuck.reads.clear()
    world.seats(f"{D0}-0800", 2)
    await asyncio.sleep(0.01)
    world.seats(f"{D0}-0900", 2)  # waits behind what it does not read
    world.stream.end_session(b"a")
    await mine.heard()
    world.seats(f"{D0}-0800", 1)
    stuck.reads.set()
    assert (await mine.heard(), len(await stuck.heard()), len(await other.heard())) == ([], 1, 3)
    assert sorted(ended) == ["mine", "stuck"]
    assert mine.connection.who is None and not mine.connection.topics
    assert world.stream.staff_sessions() == [] and list(world.stream._of_session) == [b"b"]
    world.stream.end_session(b"a")  # told twice
    world.stream.leave(other.connection)
    assert not world.stream._of_session


@virtual
async def test_a_connection_that_signs_in_again_is_of_its_new_session_alone() -> None:
    world = World(row("D0"))
    reader = Reader(world)
    ended: list[bytes] = []

    async def end() -> None:
        ended.append(b"")

    world.stream.sign_in(reader.connection, bytes(16), b"a", end)
    world.stream.sign_in(reader.connection, bytes(16), b"b", end)
    world.stream.end_session(b"a")
    assert (await reader.heard(), ended, reader.connection.is_over) == ([], [], False)
    world.stream.end_session(b"b")
    await reader.heard()
    assert (ended, reader.connection.is_over) == ([b""], True)


async def test_who_does_not_answer_the_end_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.stream, "CLOSE_SECONDS_MAX", 0.05)
    header = f"Bearer {served.tokens.issue(bytes(16)).access_token}"
    url = served.client.make_url("")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"GET /api/v1/stream HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nAuthorization: {header}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert b"101 " in await reader.readuntil(b"\r\n\r\n")
    assert b"signed_in" in await reader.readuntil(b"}}")
    served.stream.end_session(served.tokens.session_of_header(header))
    async with asyncio.timeout(5):
        assert b"session_ended" in await reader.read()  # up to the end: nobody waits for our answer
    writer.close()
