"""Waiting rooms on the stream: what screens, patients and consoles are told, over a shard and PostgreSQL.

Gateways stand in this process, each with its own copies, and hear the shard's feed when a test lets them: one
may know more than another, as it happens between machines.
"""

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, web

from actors.feed import Changes
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.policy import Channel
from engine.domain.queue_order import Rules
from engine.domain.refusal import Refusal
from engine.domain.room_plan import GENERAL
from engine.domain.waiting_terms import ScreenTerms, Shows, WaitingTerms
from engine.journal.streams import read_room
from engine.records.catalog import load_catalog, load_schedules
from engine.records.screens import list_screens
from engine.records.staff import Role, Staff
from engine.views.availability import Availability
from tests.support.people import VAULT, give_name
from tests.support.rooms import ask_room, publish_room
from tests.support.stores import ACCOUNT, LAVISH, PostgresWorld, Served, doctor, uid
from tests.support.system import System
from web import keys
from web.auditing import Readings
from web.errors import Problem
from web.patient import rights_followed
from web.patient.pages import Pages
from web.patient.rights_followed import follow_rights
from web.queues import feeds as feeds_module
from web.queues.copies import Copies
from web.queues.estimates import Estimate
from web.queues.feeds import Feeds
from web.queues.screen_bodies import sequence_of
from web.queues.screens import Screens
from web.stream import Connection, ScreenBody, Stream, Who

ZONE = ZoneInfo("Asia/Shanghai")
DEPARTMENT, ELSEWHERE = "cardio", "neuro"
CALLS = f"calls/{DEPARTMENT}"
ROOMS = ("R1", "R2")
NAMES = ("王小明", "李四", "欧阳明华", "张伟", "Anna Smith", "赵敏")
WAIT_SECONDS_MAX = 10.0
Json = dict[str, Any]


def staff(role: Role, department_id: str | None = None) -> Staff:
    practitioner = doctor(1).practitioner_id if role is Role.DOCTOR else None
    return Staff(uid(role), f"a-{role}", role, frozenset({role}), practitioner, department_id, Channel.WINDOW)


SCREEN, NURSE = staff(Role.SCREEN), staff(Role.NURSE)


class Gateway:
    """All that a gateway keeps for the stream. Hears the feed when it is told to."""

    def __init__(self, app: web.Application, served: Served) -> None:
        self.app = app
        self.copies = app[keys.ROOMS]
        self.feeds = app[keys.FEEDS]
        self.stream = app[keys.STREAM]
        self.at = served.shard.feed.epoch, served.shard.feed.seq

    @classmethod
    async def open(cls, world: PostgresWorld, served: Served, terms: WaitingTerms) -> "Gateway":
        app = web.Application()
        pool = await world.pool()
        async with pool.acquire() as connection:
            catalog = await load_catalog(connection)
            rows = await load_schedules(connection, datetime.now(ZONE).date() - timedelta(days=1))
        app[keys.POOL], app[keys.ZONE] = pool, ZONE
        app[keys.VAULT], app[keys.READINGS] = VAULT, Readings()
        app[keys.POLICY] = keys.PolicyInForce(replace(LAVISH, waiting={"": terms}))
        app[keys.AVAILABILITY] = view = Availability(catalog, rows)
        app[keys.ROOMS] = Copies(pool, app[keys.POLICY], world.clock)
        app[keys.STREAM] = Stream(view, Pages(view, ZONE), ZONE)
        app[keys.FEEDS] = Feeds(app)
        app[keys.FEEDS].join(app[keys.STREAM])
        app[keys.SCREENS] = Screens(app, app[keys.FEEDS], "gateway-0")
        return cls(app, served)

    async def hear(self, served: Served) -> None:
        """All that the shard has told so far."""
        told = await served.shard.feed.since(*self.at, 0)
        changes = Changes.unpack(told.pack())
        self.at = changes.epoch, changes.seq
        if changes.remaining is None:
            self.copies.lost(lambda stream: True)
        else:
            self.copies.hear(changes.rooms)

    async def quiet(self) -> None:
        """Until everybody has been told everything."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while tasks := [
                task
                for task in (
                    *self.copies._loading.values(),
                    *(t._task for room in self.feeds._rooms.values() for t in (room.calling, room.telling)),
                )
                if task is not None
            ]:
                await asyncio.wait(tasks)
                await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0)


@dataclass(eq=False)
class Watcher:
    """The other end of a connection. May stop reading."""

    gateway: Gateway
    who: Who
    got: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.connection = Connection(self._take, "en", self.who)
        self.running = asyncio.create_task(self.connection.run(self.gateway.stream.messages))

    async def _take(self, message: bytes) -> None:
        await self.reads.wait()
        self.got.append(json.loads(message))

    async def watch(self, topic: str, since: int | None = None) -> list[Json]:
        await self.gateway.stream.enter(self.connection, topic, since)
        return await self.heard()

    async def heard(self) -> list[Json]:
        await self.gateway.quiet()
        got, self.got = self.got, []
        return got

    def leave(self) -> None:
        self.gateway.stream.leave(self.connection)
        self.running.cancel()


class House:
    """A shard, its gateways, and a department's day."""

    def __init__(self, world: PostgresWorld, served: Served, terms: WaitingTerms) -> None:
        self.world = world
        self.served = served
        self.terms = terms
        self.gateways: list[Gateway] = []
        self.key = RoomKey(DEPARTMENT, datetime.now(ZONE).date().isoformat())
        self.issued = 0
        self.asked = 0
        self.watchers: list[Watcher] = []

    async def gateway(self) -> Gateway:
        gateway = await Gateway.open(self.world, self.served, self.terms)
        self.gateways.append(gateway)
        return gateway

    def watcher(self, gateway: Gateway, who: Who = SCREEN) -> Watcher:
        watcher = Watcher(gateway, who)
        self.watchers.append(watcher)
        return watcher

    async def ask(self, *commands: w.Command) -> list[Any]:
        return await ask_room(self.served, self.key, *commands)

    async def do(self, *commands: w.Command) -> list[Any]:
        """Done, and heard everywhere."""
        told = await self.ask(*commands)
        assert not any(isinstance(answer, Refusal) for answer in told), told
        await self.hear()
        return told

    async def hear(self) -> None:
        for gateway in self.gateways:
            await gateway.hear(self.served)
            await gateway.quiet()

    def id(self, kind: str = "do") -> bytes:
        self.asked += 1
        return uid(kind, self.asked)

    async def walk_in(self, count: int = 1) -> list[bytes]:
        """Their tickets."""
        numbers = range(self.issued, self.issued + count)
        self.issued += count
        patients = [uid("patient", n) for n in numbers]
        await self.world.register([(ACCOUNT, patient) for patient in patients])
        pool = await self.world.pool()
        for n, patient in zip(numbers, patients, strict=True):
            await give_name(pool, VAULT, patient, NAMES[n % len(NAMES)])
        await self.do(*(w.TakeNumber(uid("take", n), uid("patient", n), "desk", GENERAL) for n in numbers))
        return [ticket_id(uid("take", n)) for n in numbers]

    async def open_rooms(self) -> None:
        await self.do(*(w.OpenRoom(self.id(), room, (GENERAL,), "", "nurse") for room in ROOMS))

    async def call_next(self, room: str = "R1") -> w.Told:
        (told,) = await self.do(w.CallNext(self.id(), room, "nurse"))
        assert isinstance(told, w.Told)
        return told

    async def room(self) -> w.WaitingRoom:
        """As the journal has it."""
        async with (await self.world.pool()).acquire() as connection:
            return w.replay(await read_room(connection, self.key))

    async def die_and_come_back(self) -> None:
        """Another process takes the shard over; its feed begins anew."""
        await self.served.stop()
        self.served = await Served.open(self.world, policy=replace(LAVISH, waiting={"": self.terms}))


Make = Callable[[WaitingTerms], Any]


@pytest.fixture
async def make(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr(feeds_module, "PAUSE_SECONDS", 0.0)
    world = PostgresWorld(database)
    houses: list[House] = []

    async def made(terms: WaitingTerms) -> House:
        served = await Served.open(world, policy=replace(LAVISH, waiting={"": terms}))
        house = House(world, served, terms)
        houses.append(house)
        await publish_room(world, house.key, doctor(1).practitioner_id)
        await publish_room(world, RoomKey(ELSEWHERE, house.key.day))
        await house.gateway()
        return house

    yield made
    for house in houses:
        for watcher in house.watchers:
            watcher.leave()
        if not house.served.deaths:
            await house.served.stop()
    await world.close()


@pytest.fixture
async def house(make: Make) -> House:
    found: House = await make(WaitingTerms())
    return found


# Calls.


async def test_a_screen_starts_with_all_that_is_shown_and_then_hears_each_call_once(house: House) -> None:
    await house.walk_in(8)
    await house.open_rooms()
    await house.call_next("R1")
    (gateway,) = house.gateways
    screen = house.watcher(gateway)
    (whole,) = await screen.watch(CALLS)
    assert (whole["snapshot"], whole["whole"], whole["day"]) == (CALLS, True, house.key.day)
    assert whole["version"] == sequence_of(house.key.day, 1)
    assert whole["rooms"]["R1"]["now"]["number"] == "A001"
    assert (whole["rooms"]["R1"]["status"], whole["rooms"]["R2"]["now"]) == ("open", None)
    assert [one["number"] for one in whole["next"]["R2"]] == ["A002", "A003", "A004", "A005", "A006"]
    assert [call["number"] for call in whole["last"]] == ["A001"]
    told = await house.call_next("R2")
    (update,) = await screen.heard()
    (call,) = update["calls"]
    assert (update["update"], update["version"]) == (CALLS, call["sequence"])
    assert call["sequence"] == sequence_of(house.key.day, 2)
    assert (call["kind"], call["number"], call["name"], call["room"]) == ("called", "A002", "李*", "R2")
    assert call["text_zh"] == "请 A002 李* 到 R2 就诊"
    assert call["text_en"] == "A002 李*, please go to R2"
    assert update["rooms"]["R2"]["now"]["number"] == "A002" and "R1" not in update["rooms"]
    assert [one["number"] for one in update["next"]["R1"]][0] == "A003"
    await house.do(w.UndoStep(house.id(), told.ticket_id, told.version, "nurse", "wrong room"))
    (update,) = await screen.heard()
    assert [(c["kind"], c["number"], c["text_zh"]) for c in update["calls"]] == [("withdrawn", "A002", None)]
    assert update["rooms"]["R2"]["now"] is None


async def test_a_door_screen_hears_its_own_room_and_its_version_still_goes_on(house: House) -> None:
    await house.walk_in(6)
    await house.open_rooms()
    (gateway,) = house.gateways
    door = house.watcher(gateway)
    (whole,) = await door.watch(f"{CALLS}/R2")
    assert list(whole["rooms"]) == ["R2"]
    await house.call_next("R1")
    heard = await door.heard()
    assert [m.get("calls") for m in heard] == [[]] and list(heard[0]["next"]) == ["R2"], "who is next changed"
    await house.call_next("R2")
    (update,) = await door.heard()
    assert [call["number"] for call in update["calls"]] == ["A002"]
    assert update["version"] == sequence_of(house.key.day, 2)
    again = house.watcher(gateway)
    (resumed,) = await again.watch(f"{CALLS}/R2", heard[0]["version"])
    assert [call["number"] for call in resumed["calls"]] == ["A002"]


@pytest.mark.parametrize("seed", range(4))
async def test_no_call_is_missed_or_told_twice_across_cuts_gateways_and_deaths(make: Make, seed: int) -> None:
    """Screens come and go at random, at gateways of which each knows another part of the day; feeds are
    reset, the shard dies. In the end each screen has been told every call of its day, in order, once."""
    chance = random.Random(seed)
    terms = WaitingTerms(Rules(recall_gap_seconds=0, call_gap_seconds=0, door_cap=1))
    house: House = await make(terms)
    await house.walk_in(12)
    await house.open_rooms()
    for _ in range(2):
        await house.gateway()
    screens: list[tuple[str, list[int], list[Watcher]]] = []
    for n in range(4):
        topic = CALLS if n % 2 else f"{CALLS}/R1"
        watcher = house.watcher(house.gateways[n % 3])
        (whole,) = await watcher.watch(topic)
        screens.append((topic, [whole["version"]], [watcher]))
    told: dict[int, list[Json]] = {n: [] for n in range(4)}
    begins = [version[0] for _, version, _ in screens]

    def listen(n: int, messages: list[Json]) -> None:
        _, version, _ = screens[n]
        for message in messages:
            assert "whole" not in message, f"seed {seed}: a screen that was in step began anew"
            told[n] += message["calls"]
            assert message["version"] >= version[0]
            version[0] = message["version"]

    for _ in range(60):
        await _something(house, chance)
        for gateway in chance.sample(house.gateways, chance.randrange(len(house.gateways) + 1)):
            await gateway.hear(house.served)
        if chance.random() < 0.1:
            gateway = chance.choice(house.gateways)
            gateway.copies.lost(lambda stream: True)
        if chance.random() < 0.05:
            await house.die_and_come_back()
        n = chance.randrange(4)
        topic, version, watchers = screens[n]
        if chance.random() < 0.5:  # cut off, with something on its way or not
            if chance.random() < 0.5:
                listen(n, await watchers[-1].heard())
            watchers[-1].leave()
            version_then = version[0]
            # What it had been sent when it went is shown, too.
            late, watchers[-1].got = watchers[-1].got, []
            listen(n, late)
            assert version[0] >= version_then
            fresh = house.watcher(chance.choice(house.gateways))
            watchers.append(fresh)
            listen(n, await fresh.watch(topic, version[0]))
    await house.hear()
    truth = await house.room()
    for n, (topic, _, watchers) in enumerate(screens):
        listen(n, await watchers[-1].heard())
        at = topic.removeprefix(CALLS).strip("/")
        wanted = [
            (sequence_of(house.key.day, call.sequence), call.kind, call.label)
            for call in w.calls_since(truth, 0).calls
            if sequence_of(house.key.day, call.sequence) > begins[n] and (not at or call.room_id == at)
        ]
        heard = [(call["sequence"], call["kind"], call["number"]) for call in told[n]]
        assert heard == wanted, f"seed {seed}"
    assert truth.call_sequence > 20, f"seed {seed}: hardly anything was called"


async def _something(house: House, chance: random.Random) -> None:
    """One thing that may happen in a room; refused is fine, too."""
    room = chance.choice(ROOMS)
    state = await house.room()
    inside = state.rooms[room].ticket_id
    if not inside or chance.random() < 0.4:
        await house.ask(w.CallNext(house.id(), room, "nurse"))
        return
    version = state.tickets[inside].version
    await house.ask(
        chance.choice(
            (
                w.Recall(house.id(), inside, "nurse"),
                w.PassTicket(house.id(), inside, "nurse"),
                w.UndoStep(house.id(), inside, version, "nurse", "mistake"),
                w.StartService(house.id(), inside, "nurse"),
                w.FinishTicket(house.id(), inside, "nurse"),
                w.TakeNumber(house.id("take"), house.id("new"), "desk", GENERAL),
            )
        )
    )


async def test_a_screen_that_knows_more_than_this_gateway_is_not_told_anything_twice(house: House) -> None:
    await house.walk_in(4)
    await house.open_rooms()
    behind, ahead = house.gateways[0], await house.gateway()
    first = house.watcher(behind)
    await first.watch(CALLS)
    screen = house.watcher(ahead)
    await screen.watch(CALLS)
    await house.ask(w.CallNext(house.id(), "R1", "nurse"))
    await ahead.hear(house.served)  # and the other one not yet
    (update,) = await screen.heard()
    assert len(update["calls"]) == 1
    screen.leave()
    moved = house.watcher(behind)
    resumed = await moved.watch(CALLS, update["version"])
    assert [(m["calls"], m["version"]) for m in resumed] == [([], update["version"])]
    await house.call_next("R2")
    assert [c["number"] for m in await moved.heard() for c in m["calls"]] == ["A002"]
    assert [c["number"] for m in await first.heard() for c in m["calls"]] == ["A001", "A002"]


async def test_of_another_day_or_of_nowhere_the_whole_is_told(house: House) -> None:
    await house.walk_in(3)
    await house.open_rooms()
    await house.call_next()
    (gateway,) = house.gateways
    day = sequence_of(house.key.day, 0)
    for since in (0, 17, day - 100_000 + 1, day + 2, day + 99_999):
        screen = house.watcher(gateway)
        (message,) = await screen.watch(CALLS, since)
        assert message.get("whole") is True, since
        assert message["version"] == day + 1
    (message,) = await house.watcher(gateway).watch(CALLS, day)
    assert "whole" not in message and len(message["calls"]) == 1


async def test_a_slow_screen_gets_every_call_in_order_and_the_rooms_as_they_are(house: House) -> None:
    await house.walk_in(8)
    await house.open_rooms()
    (gateway,) = house.gateways
    slow = house.watcher(gateway)
    await slow.watch(CALLS)
    slow.reads.clear()
    for n in range(6):
        told = await house.call_next(ROOMS[n % 2])
        await house.do(w.StartService(house.id(), told.ticket_id, "nurse"))
    slow.reads.set()
    messages = await slow.heard()
    assert [c["number"] for m in messages for c in m["calls"]] == [f"A00{n}" for n in range(1, 7)]
    assert len(messages) == 2, "the first was on its way; all others came together"
    assert messages[-1]["rooms"]["R2"]["now"]["number"] == "A006"


async def test_after_midnight_screens_and_boards_are_of_the_new_day(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.walk_in(2)
    await house.open_rooms()
    await house.call_next()
    (gateway,) = house.gateways
    screen, board = house.watcher(gateway), house.watcher(gateway, NURSE)
    (before,) = await screen.watch(CALLS)
    await board.watch(f"queue/{DEPARTMENT}")
    tomorrow = (datetime.fromisoformat(house.key.day) + timedelta(days=1)).date().isoformat()
    monkeypatch.setattr(feeds_module, "today", lambda app: tomorrow)
    monkeypatch.setattr(feeds_module, "LOOK_SECONDS", 0.0)
    looking = asyncio.create_task(gateway.feeds.run())
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not (screen.got and board.got):
            await asyncio.sleep(0)
    looking.cancel()
    (after,), (other,) = await screen.heard(), await board.heard()
    assert (after["whole"], after["day"], after["rooms"], after["last"]) == (True, tomorrow, {}, [])
    assert after["version"] == sequence_of(tomorrow, 0) > before["version"]
    assert other["snapshot"] == f"queue/{DEPARTMENT}" and other["totals"]["day"] == tomorrow
    assert set(gateway.feeds._rooms) == {RoomKey(DEPARTMENT, tomorrow).stream}
    assert house.key.stream not in gateway.copies._pins


@pytest.mark.parametrize(
    ("terms", "shown"),
    [
        (ScreenTerms(), ("A001", "王*明", "请 A001 王*明 到 R1 就诊")),
        (ScreenTerms(masks_names=False), ("A001", "王小明", "请 A001 王小明 到 R1 就诊")),
        (ScreenTerms(shows=Shows.NUMBER), ("A001", None, "请 A001 到 R1 就诊")),
        (ScreenTerms(shows=Shows.NAME), (None, "王*明", "请 王*明 到 R1 就诊")),
    ],
)
async def test_screens_show_what_the_policy_lets_them(
    make: Make, terms: ScreenTerms, shown: tuple[str | None, str | None, str]
) -> None:
    house: House = await make(WaitingTerms(screen=terms))
    await house.walk_in(3)
    await house.open_rooms()
    (gateway,) = house.gateways
    screen = house.watcher(gateway)
    (whole,) = await screen.watch(CALLS)
    await house.call_next()
    (update,) = await screen.heard()
    (call,) = update["calls"]
    assert (call["number"], call["name"], call["text_zh"]) == shown
    said = json.dumps([whole, update], ensure_ascii=False)
    assert ("王小明" in said) == (not terms.masks_names)
    assert ("王*明" in said) == (terms.masks_names and terms.shows is not Shows.NUMBER)
    # Stricter from now on: also what was told before is told so from now on.
    strict = WaitingTerms(screen=ScreenTerms(shows=Shows.NUMBER))
    gateway.app[keys.POLICY].policy = replace(LAVISH, waiting={"": strict})
    await house.call_next("R2")
    late = house.watcher(gateway)
    (resumed,) = await late.watch(CALLS, sequence_of(house.key.day, 0))
    assert [call["name"] for call in resumed["calls"]] == [None, None]


# Rights.


async def test_each_sees_what_is_theirs(house: House) -> None:
    (ticket,) = await house.walk_in()
    await house.open_rooms()
    (gateway,) = house.gateways
    mine = f"ticket/{UUID(bytes=ticket)}"
    board, crowd, door = f"queue/{DEPARTMENT}", f"crowd/{DEPARTMENT}", f"{CALLS}/R1"
    own, stranger = ACCOUNT, uid("other")
    allowed: list[tuple[Who, tuple[str, ...]]] = [
        (own, (mine, crowd)),
        (stranger, (crowd,)),
        (SCREEN, (CALLS, door, crowd)),
        (staff(Role.SCREEN, DEPARTMENT), (CALLS, door, crowd)),
        (staff(Role.SCREEN, ELSEWHERE), (crowd,)),
        (NURSE, (mine, CALLS, door, board, crowd)),
        (staff(Role.NURSE, DEPARTMENT), (mine, CALLS, door, board, crowd)),
        (staff(Role.NURSE, ELSEWHERE), (CALLS, door, crowd)),
        (staff(Role.MANAGER), (mine, CALLS, door, board, crowd)),
        (staff(Role.DOCTOR), (mine, CALLS, door, board, crowd)),
        (staff(Role.KIOSK), (mine, crowd)),
        (staff(Role.PARTNER), (crowd,)),
        (None, ()),
    ]
    for who, good in allowed:
        for topic in (mine, CALLS, door, board, crowd):
            watcher = house.watcher(gateway, who)
            if topic in good:
                assert await watcher.watch(topic), (who, topic)
                continue
            with pytest.raises(Problem) as refused:
                await watcher.watch(topic)
            expected = (
                "unauthenticated" if who is None else "no_such_ticket" if topic == mine else "forbidden"
            )
            assert refused.value.code == expected, (who, topic)
            assert topic not in watcher.connection.topics
    for topic, code in (
        ("calls/nowhere", "no_such_department"),
        (f"ticket/{UUID(int=7)}", "no_such_ticket"),
        ("ticket/x", "no_such_ticket"),
        (f"ticket/{UUID(bytes=ticket).hex}", "no_such_ticket"),
    ):
        with pytest.raises(Problem) as refused:
            await house.watcher(gateway, NURSE).watch(topic)
        assert refused.value.code == code


async def test_who_is_gone_leaves_nothing_behind(house: House) -> None:
    (ticket,) = await house.walk_in()
    (gateway,) = house.gateways
    for topic in (
        CALLS,
        f"{CALLS}/R1",
        f"queue/{DEPARTMENT}",
        f"crowd/{DEPARTMENT}",
        f"ticket/{UUID(bytes=ticket)}",
    ):
        await house.watcher(gateway, NURSE).watch(topic)
    assert gateway.copies._pins[house.key.stream] == 1
    for watcher in house.watchers[:-1]:
        watcher.leave()
    gateway.stream.unsubscribe(house.watchers[-1].connection, f"ticket/{UUID(bytes=ticket)}")
    feeds = gateway.feeds
    assert (feeds._rooms, feeds._place, feeds._dirty) == ({}, {}, {})
    assert not gateway.copies._pins
    await house.open_rooms()
    assert [await watcher.heard() for watcher in house.watchers] == [[]] * len(house.watchers)


# Tickets.


async def test_a_patient_hears_what_changes_of_the_own_ticket_and_nothing_else(house: House) -> None:
    tickets = await house.walk_in(4)
    await house.open_rooms()
    (gateway,) = house.gateways
    me, other = house.watcher(gateway, ACCOUNT), house.watcher(gateway, ACCOUNT)
    topic = f"ticket/{UUID(bytes=tickets[2])}"
    (whole,) = await me.watch(topic)
    ticket = whole["ticket"]
    assert (whole["snapshot"], ticket["id"], ticket["number"]) == (
        topic,
        topic.removeprefix("ticket/"),
        "A003",
    )
    assert (ticket["status"], ticket["position"], ticket["ahead"], ticket["estimate"]) == (
        "waiting",
        3,
        2,
        None,
    )
    assert ticket["day"] == house.key.day and whole["version"] > 0
    await other.watch(f"ticket/{UUID(bytes=tickets[3])}")
    await house.call_next("R1")
    (update,) = await me.heard()
    assert (update["update"], update["ticket"]) == (topic, {"position": 2, "ahead": 1})
    assert update["version"] > whole["version"]
    await other.heard()
    await house.walk_in()
    assert await me.heard() == await other.heard() == [], "who comes later changes nothing"
    await house.call_next("R2")
    assert [m["ticket"]["ahead"] for m in await me.heard()] == [0]
    await house.do(
        w.StartService(house.id(), tickets[0], "nurse"), w.FinishTicket(house.id(), tickets[0], "nurse")
    )
    await house.call_next("R1")
    (update,) = await me.heard()
    assert update["ticket"]["status"] == "called" and update["ticket"]["position"] is None
    assert update["ticket"]["room"] == {"id": "R1", "name": "R1"} and update["ticket"]["called_at"]
    assert all("A003" not in json.dumps(m) for m in await other.heard())


async def test_who_may_see_a_ticket_no_more_hears_no_more_of_it(
    house: House, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rights_followed, "AGAIN_SECONDS", 1_000.0)
    tickets = await house.walk_in(4)
    await house.open_rooms()
    (gateway,) = house.gateways
    me, other = house.watcher(gateway, ACCOUNT), house.watcher(gateway, SCREEN)
    topics = [f"ticket/{UUID(bytes=each)}" for each in tickets]
    for topic in topics[1:]:
        await me.watch(topic)
    await other.watch(CALLS)
    pool = await house.world.pool()
    following = asyncio.create_task(follow_rights(gateway.app, database))
    try:
        # The first perhaps before it listens, and found then; the second while it does. The last one that is
        # watched first: by then all have been looked at.
        for n, less in ((3, "revoked_at = now(), revoked_by = 'person'"), (1, "may_see = false")):
            who = UUID(bytes=uid("patient", n))
            await pool.execute(f"update account_patient set {less} where patient_id = $1", who)
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                while topics[n] in me.connection.topics:
                    await asyncio.sleep(0)
    finally:
        following.cancel()
    assert [m["error"]["topic"] for m in await me.heard()] == [topics[3], topics[1]]
    await other.heard()
    await house.call_next("R1")
    await house.call_next("R2")
    assert {m["update"] for m in await me.heard()} == {topics[2]}, "of the other patient's still"
    assert await other.heard() != []


async def test_a_name_that_is_forgotten_is_not_remembered(house: House, database: str) -> None:
    await house.walk_in(1)
    (gateway,) = house.gateways
    names, patient = gateway.app[keys.FEEDS].names, uid("patient", 0)
    await names.learn([patient])
    assert patient in names.known
    following = asyncio.create_task(follow_rights(gateway.app, database))

    async def forgotten() -> None:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while patient in names.known:
                await asyncio.sleep(0)

    try:
        await forgotten()  # what it knew from before it listens
        await names.learn([patient])
        pool = await house.world.pool()
        await pool.execute("update patient set name = null where id = $1", UUID(bytes=patient))
        await forgotten()
    finally:
        following.cancel()


async def test_a_ticket_that_this_gateway_does_not_know_yet_is_told_when_it_does(house: House) -> None:
    await house.walk_in()
    (gateway,) = house.gateways
    await house.watcher(gateway).watch(CALLS)  # so that the room is kept, and not read anew
    await house.world.register([(ACCOUNT, uid("patient", 9))])
    await house.ask(w.TakeNumber(uid("take", 9), uid("patient", 9), "desk", GENERAL))
    me = house.watcher(gateway, ACCOUNT)
    assert await me.watch(f"ticket/{UUID(bytes=ticket_id(uid('take', 9)))}") == []
    await house.hear()
    (whole,) = await me.heard()
    assert whole["ticket"]["number"] == "A002"


async def test_an_estimate_is_told_when_it_differs_by_a_minute(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_at = datetime(2026, 11, 24, 1, tzinfo=UTC)
    now = Estimate(5, 10, 20, told_at, told_at)
    monkeypatch.setattr(feeds_module, "estimate_of", lambda app, copy, ticket: now)
    (ticket, *_) = await house.walk_in(3)
    (gateway,) = house.gateways
    me = house.watcher(gateway, ACCOUNT)
    (whole,) = await me.watch(f"ticket/{UUID(bytes=ticket)}")
    assert whole["ticket"]["estimate"]["p50_minutes"] == 10
    (room,) = gateway.feeds._rooms.values()
    soon = timedelta(seconds=59)
    for other, is_told in (
        (Estimate(5, 10, 20, told_at + soon, told_at + soon), False),
        (Estimate(5, 10, 21, told_at, told_at), True),
        (Estimate(5, 10, 21, told_at + 2 * soon, told_at), True),
        (None, True),
    ):
        now = other
        room.telling.soon()
        assert bool(await me.heard()) == is_told, other


async def test_a_notice_goes_to_who_watches_that_ticket(house: House) -> None:
    first, second = await house.walk_in(2)
    (gateway,) = house.gateways
    me, other = house.watcher(gateway, ACCOUNT), house.watcher(gateway, ACCOUNT)
    await me.watch(f"ticket/{UUID(bytes=first)}")
    await other.watch(f"ticket/{UUID(bytes=second)}")
    assert gateway.feeds.notify(first, {"kind": "ahead", "ahead": 3}) == 1
    assert await me.heard() == [
        {"notice": {"kind": "ahead", "ahead": 3}, "topic": f"ticket/{UUID(bytes=first)}"}
    ]
    assert await other.heard() == []
    assert gateway.feeds.notify(uid("nobody"), {}) == 0


async def test_a_slow_patient_gets_the_newest_state_once(house: House) -> None:
    tickets = await house.walk_in(7)
    await house.open_rooms()
    (gateway,) = house.gateways
    me = house.watcher(gateway, ACCOUNT)
    await me.watch(f"ticket/{UUID(bytes=tickets[6])}")
    me.reads.clear()
    for n in range(5):
        told = await house.call_next(ROOMS[n % 2])
        await house.do(w.StartService(house.id(), told.ticket_id, "nurse"))
    me.reads.set()
    assert [m["ticket"]["ahead"] for m in await me.heard()] == [5, 1], "one was on its way"


async def test_a_room_that_was_lost_is_told_as_far_as_it_differs(house: House) -> None:
    tickets = await house.walk_in(5)
    await house.open_rooms()
    (gateway,) = house.gateways
    me, screen = house.watcher(gateway, ACCOUNT), house.watcher(gateway)
    await me.watch(f"ticket/{UUID(bytes=tickets[3])}")
    await screen.watch(CALLS)
    gateway.copies.lost(lambda stream: True)
    assert await me.heard() == await screen.heard() == [], "nothing is other than before"
    await house.ask(w.CallNext(house.id(), "R1", "nurse"))
    await house.ask(w.CallNext(house.id(), "R2", "nurse"))
    gateway.copies.lost(lambda stream: True)  # the feed will never tell these
    gateway.at = house.served.shard.feed.epoch, house.served.shard.feed.seq
    assert [m["ticket"] for m in await me.heard()] == [{"position": 2, "ahead": 1}]
    assert [c["number"] for m in await screen.heard() for c in m["calls"]] == ["A001", "A002"]


# Boards.


def laid(board: Json, update: Json) -> Json:
    """What a console has after an update."""
    found = {name: dict(part) if isinstance(part, dict) else part for name, part in board.items()}
    for name, part in update.items():
        if isinstance(part, dict):
            found[name].update(part)
            found[name] = {key: value for key, value in found[name].items() if value is not None}
    return {**found, "version": update["version"]}


@pytest.mark.parametrize(("kind", "who"), [("queue", NURSE), ("crowd", ACCOUNT)])
async def test_updates_laid_over_a_board_give_the_board_as_it_is(house: House, kind: str, who: Who) -> None:
    chance = random.Random(11)
    await house.walk_in(6)
    await house.open_rooms()
    (gateway,) = house.gateways
    topic = f"{kind}/{DEPARTMENT}"
    console = house.watcher(gateway, who)
    (board,) = await console.watch(topic)
    changes = 0
    for _ in range(15):
        await _something(house, chance)
        await house.hear()
        for update in await console.heard():
            board = laid(board, update)
            changes += 1
        (fresh,) = await house.watcher(gateway, who).watch(topic)
        assert {k: v for k, v in board.items() if k != "version"} == {
            k: v for k, v in fresh.items() if k != "version"
        }
    assert changes > 5
    said = json.dumps(board, ensure_ascii=False)
    if kind == "queue":
        assert set(board["queues"][GENERAL]["line"]) <= set(board["tickets"])
        assert all("position" not in ticket for ticket in board["tickets"].values())
    else:
        assert set(board) == {"snapshot", "totals", "queues", "version"}
        assert not any(name in said for name in NAMES) and "A0" not in said


# Screens' health.


async def test_a_screen_says_how_it_does_and_the_desk_sees_who_is_late(house: House) -> None:
    await house.walk_in(3)
    await house.open_rooms()
    (gateway,) = house.gateways
    screen = house.watcher(gateway)
    (whole,) = await screen.watch(CALLS)
    screens = gateway.app[keys.SCREENS]
    topics = screen.connection.topics

    def word(shown: int, **more: Any) -> ScreenBody:
        return ScreenBody(id="S1", shown_sequence=shown, **more)

    screens.hear(SCREEN, topics, word(whole["version"]))
    await screens.write()
    pool = gateway.app[keys.POOL]
    (row,) = await list_screens(pool, DEPARTMENT)
    assert (row.id, row.topic, row.behind_ms, row.gateway) == ("S1", CALLS, 0, "gateway-0")
    await house.call_next()
    now = house.world.clock()
    assert gateway.feeds.behind_ms(CALLS, whole["version"], now + 4_000) == 4_000
    assert gateway.feeds.behind_ms(CALLS, whole["version"] + 1, now + 4_000) == 0
    screens.hear(SCREEN, topics, word(whole["version"] + 1, error="no sound\n", topic=CALLS))
    await screens.write()
    (row,) = await list_screens(pool, None)
    assert (row.shown_sequence, row.error) == (whole["version"] + 1, "no sound")
    for who, watched, said, code in (
        (None, topics, word(1), "unauthenticated"),
        (ACCOUNT, topics, word(1), "forbidden"),
        (NURSE, topics, word(1), "forbidden"),
        (SCREEN, (), word(1), "no_such_topic"),
        (SCREEN, (CALLS, f"{CALLS}/R1"), word(1), "no_such_topic"),
        (SCREEN, topics, word(1, topic=f"{CALLS}/R1"), "no_such_topic"),
    ):
        with pytest.raises(Problem) as refused:
            screens.hear(who, watched, said)
        assert refused.value.code == code


# Over sockets of a running system.


async def test_the_demo_from_walking_in_to_the_screen(system: System) -> None:
    """Signed in as kiosk, nurse and screen; cut and resumed; and the desk sees how the screen does."""
    async with ClientSession(system.address) as http:

        async def token(username: str) -> Json:
            grant = {"grant": "password", "username": username, "password": "xinglin-demo"}
            async with http.post("/api/v1/sessions", json=grant) as answer:
                return {"Authorization": f"Bearer {(await answer.json())['access_token']}"}

        nurse, screen = await token("demo-nurse"), await token("demo-screen")

        async def ask(path: str, body: Json, status: int = 200) -> Json:
            headers = {**nurse, "Idempotency-Key": str(uuid4())}
            async with http.post(f"/api/v1/{path}", json=body, headers=headers) as answer:
                assert answer.status == status, await answer.text()
                found: Json = await answer.json()
                return found

        async def message(socket: ClientWebSocketResponse, name: str) -> Json:
            """The next one of this kind."""
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                while True:
                    found: Json = await socket.receive_json()
                    assert "error" not in found, found
                    if name in found:
                        return found

        async with http.get("/api/v1/departments") as answer:
            everybody = [d for d in (await answer.json())["departments"] if d["id"] == "1301"]
        (department,) = everybody
        queue, topic = f"queues/{department['id']}", f"calls/{department['id']}"
        room_id = f"R{department['id']}.1"
        socket = await http.ws_connect("/api/v1/stream", headers=screen)
        await socket.send_json({"subscribe": [topic]})
        whole = await message(socket, "snapshot")
        assert whole["whole"] and whole["version"] % 100_000 == 0, "nobody else calls in this department"
        for _ in range(2):
            document = {"id_type": "passport", "id_number": "E" + secrets.token_hex(4)[:8].upper()}
            person = {**document, "name": "赵敏敏", "phone": "13900139000", "sex": "female"}
            body = {"department_id": department["id"], "person": {**person, "birth_date": "1980-01-01"}}
            await ask("walk-ins", body, 201)
        await ask(f"{queue}/rooms/{room_id}/open", {"queues": [GENERAL]})
        told = await ask(f"{queue}/call-next", {"room_id": room_id})
        update = await message(socket, "calls")
        while not update["calls"]:
            update = await message(socket, "calls")
        (call,) = update["calls"]
        assert (call["number"], call["name"], call["sequence"]) == (
            told["number"],
            "赵*敏",
            whole["version"] + 1,
        )
        await socket.close()
        await ask(f"{queue}/tickets/{told['ticket_id']}/start", {})
        await ask(f"{queue}/call-next", {"room_id": room_id})
        socket = await http.ws_connect("/api/v1/stream", headers=screen)
        await socket.send_json({"subscribe": [topic], "since": {topic: update["version"]}})
        resumed = await message(socket, "update")
        (call,) = resumed["calls"]
        assert call["sequence"] == update["version"] + 1
        await socket.send_json(
            {"screen": {"id": "S1", "shown_sequence": call["sequence"], "error": "no sound"}}
        )
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while True:
                query = {"department": department["id"]}
                async with http.get("/api/v1/desk/screens", headers=nurse, params=query) as answer:
                    screens = (await answer.json())["screens"]
                if screens:
                    break
        (row,) = screens
        assert (row["id"], row["topic"], row["account"]) == ("S1", topic, "demo-screen")
        assert (row["shown_sequence"], row["error"]) == (call["sequence"], "no sound")
        assert (row["away"], row["late"]) == (False, False)
        async with http.get("/api/v1/desk/screens", headers=screen) as answer:
            assert answer.status == 403
        await socket.close()
