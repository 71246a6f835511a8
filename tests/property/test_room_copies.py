"""Copies of waiting rooms: whatever comes when, a copy is a replay, and never older than what was told here.

What a feed does is played at random: it tells in pieces, twice, out of order, with holes, or goes on without
us; the database is read meanwhile and answers late, with what was there when it was asked or since then.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.policy import Policy
from engine.domain.refusal import Refusal
from engine.domain.room_plan import GENERAL, RoomPlan, opening
from engine.domain.waiting_terms import WaitingTerms
from engine.journal.codec import EVENT_CODES, pack_event
from tests.support import virtual_time
from web.queues.copies import COPIES_MAX, Copies, Copy

KEY, OTHER = RoomKey("cardio", "2026-11-24"), RoomKey("neuro", "2026-11-24")
NOW = 1_795_478_400_000


def id_of(n: int) -> bytes:
    return n.to_bytes(16, "big")


def morning() -> list[w.Event]:
    """Some sixty events of a room: people come, are called, seen and leave."""
    room, events = (
        w.WaitingRoom(),
        opening(RoomPlan(KEY.department_id, KEY.day, NOW * 2), WaitingTerms(), NOW),
    )
    for event in events:
        w.apply(room, event)
    commands: list[w.Command] = [w.OpenRoom(id_of(900), "R1", (GENERAL,))]
    for n in range(12):
        commands += [
            w.TakeNumber(id_of(n), id_of(100 + n), "desk", GENERAL),
            w.MoveTicket(id_of(200 + n), ticket_id(id_of(n)), n % 3, "nurse", "asked"),
            w.CallNext(id_of(300 + n), "R1", "nurse"),
            w.StartService(id_of(400 + n), ticket_id(id_of(n)), "nurse"),
        ]
        if n % 3 == 2:
            commands.append(w.FinishTicket(id_of(500 + n), ticket_id(id_of(n)), "nurse"))
    for n, command in enumerate(commands):
        outcome = w.decide(room, command, NOW + n * 1_000)
        if not isinstance(outcome, Refusal):
            for event in outcome:
                w.apply(room, event)
                events.append(event)
    return events


EVENTS = morning()
WIRE = [(n, EVENT_CODES[type(event)], pack_event(event)) for n, event in enumerate(EVENTS, 1)]


@dataclass(slots=True, eq=False)
class Database:
    """Stands where asyncpg's pool does: it answers what the journal holds, when the test says so."""

    committed: int = 0
    zone: str = "Asia/Shanghai"
    asked: list[tuple[int, asyncio.Future[int]]] = field(default_factory=list)
    """How much there was when it was asked, and what is answered."""

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator["Database"]:
        yield self

    async def fetchval(self, _: str, department_id: str) -> str | None:
        return self.zone if department_id == KEY.department_id else None

    async def fetch(self, query: str, *_: object) -> list[dict[str, Any]]:
        if "from event" not in query:
            return []  # nobody is on duty
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.asked.append((self.committed, answer))
        return [{"type": code, "data": data} for _, code, data in WIRE[: await answer]]

    def answer(self, which: int, late: bool) -> None:
        then, answer = self.asked.pop(which % len(self.asked))
        answer.set_result(self.committed if late else then)


class Gateway:
    """A gateway's copies, and what they must not be behind."""

    def __init__(self) -> None:
        self.database = Database()
        policy = SimpleNamespace(policy=Policy())
        self.copies = Copies(self.database, policy, lambda: NOW)  # type: ignore[arg-type]
        self.copies.listeners.append(self.listen)
        self.told = 0
        """What the feed has told of, or has gone on without us."""
        self.looks: list[asyncio.Task[None]] = []
        self.seen: list[int] = []

    def listen(self, copy: Copy) -> None:
        self.check(copy)
        self.seen.append(copy.version)

    def check(self, copy: Copy) -> None:
        events = EVENTS[: copy.version]
        if not events:
            events = opening(RoomPlan(KEY.department_id, KEY.day, copy.room.closes_at), WaitingTerms(), NOW)
        assert copy.room == w.replay(events), f"the copy at version {copy.version} is no replay"

    def hear(self, first: int, many: int) -> None:
        part = WIRE[first : min(first + many, self.database.committed)]
        if part:
            self.told = max(self.told, part[-1][0])
            self.copies.hear({KEY.stream: [list(event) for event in part]})

    def lost(self) -> None:
        self.told = self.database.committed
        self.copies.lost(lambda stream: stream == KEY.stream)

    async def look(self, expects: int) -> None:
        self.copies.expect(KEY, expects)
        try:
            copy = await self.copies.look(KEY)
        except TimeoutError:  # five readings in a row were behind the feed, and it says so
            return
        assert copy.version >= expects, "who wrote it does not see it"
        self.check(copy)

    def start(self, expects: int) -> None:
        self.looks.append(asyncio.create_task(self.look(expects)))

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)
        copy = self.copies.known(KEY)
        if copy is not None:
            self.check(copy)
            assert copy.version >= self.told, "it is kept although it has missed something"


COMMIT = st.tuples(st.just("commit"), st.integers(1, 4), st.just(0))
LOOK = st.tuples(st.just("look"), st.booleans(), st.just(0))
ANSWER = st.tuples(st.just("answer"), st.integers(0, 3), st.booleans())
LOST = st.tuples(st.just("lost"), st.just(0), st.just(0))
NEWS = st.one_of(
    st.tuples(st.just("hear"), st.integers(0, 6), st.integers(1, 6)),
    st.tuples(st.just("hear"), st.just(0), st.integers(1, 60)),
    st.tuples(st.just("skip"), st.integers(1, 3), st.integers(1, 3)),
    LOST,
    st.tuples(st.just("at once"), st.integers(0, 6), st.booleans()),
)
REST = st.one_of(
    st.tuples(st.just("pin"), st.booleans(), st.just(0)), st.tuples(st.just("time"), st.just(0), st.just(0))
)
# Each of them as often as the others, whatever they are made of.
steps = st.sampled_from([COMMIT, COMMIT, LOOK, ANSWER, ANSWER, NEWS, NEWS, NEWS, REST]).flatmap(lambda x: x)


async def play(script: list[tuple[str, Any, Any]]) -> None:
    gateway = Gateway()
    database = gateway.database
    at = 0  # what the feed has told in its order
    for what, one, other in script:
        match what:
            case "commit":
                database.committed = min(len(EVENTS), database.committed + one)
            case "hear":  # from so much before where it was
                gateway.hear(max(0, at - one), one + other)
                at = max(at, min(at + other, database.committed))
            case "skip":  # a hole
                gateway.hear(at + one, other)
                at = max(at, min(at + one + other, database.committed))
            case "look":
                gateway.start(database.committed if one else 0)
            case "answer" if database.asked:
                database.answer(one, other)
            case "lost":
                gateway.lost()
                at = database.committed
            case "pin":
                (gateway.copies.pin if one else gateway.copies.unpin)(KEY)
            case "time":
                await asyncio.sleep(0.6)
            case "at once" if database.asked:
                # The answer, and before anybody can do anything with it, a feed that has gone on.
                database.answer(one, other)
                for _ in range(one):
                    await asyncio.sleep(0)
                gateway.lost()
                at = database.committed
                continue
        await gateway.settle()
    # In the end everybody has an answer, and it is all that there is.
    gateway.hear(at, len(EVENTS))
    gateway.start(database.committed)
    while not all(task.done() for task in gateway.looks) or database.asked:
        while database.asked:
            database.answer(0, True)
        await asyncio.sleep(0.1)
    await asyncio.gather(*gateway.looks)
    await gateway.settle()
    copy = gateway.copies.known(KEY)
    assert copy is not None and copy.version == database.committed


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=40))
def test_a_copy_is_a_replay_and_not_behind_what_was_told(script: list[tuple[str, Any, Any]]) -> None:
    virtual_time.run(play(script))


@virtual_time.virtual
async def test_what_was_lost_while_a_room_was_read_is_read_again() -> None:
    gateway = Gateway()
    gateway.database.committed = 10
    gateway.start(0)
    await gateway.settle()
    gateway.database.committed = 12  # the feed has lost us, and nothing will happen here any more
    gateway.lost()
    gateway.database.answer(0, late=False)
    await gateway.settle()
    gateway.database.answer(0, late=True)
    await asyncio.gather(*gateway.looks)
    copy = gateway.copies.known(KEY)
    assert copy is not None and copy.version == 12


@virtual_time.virtual
async def test_who_comes_late_to_what_was_read_does_not_keep_it() -> None:
    """The feed goes on without us between the reading and the one who waited for it."""
    gateway = Gateway()
    gateway.start(0)
    await gateway.settle()
    gateway.database.committed = 3
    gateway.database.answer(0, late=False)
    while gateway.copies.known(KEY) is None:
        await asyncio.sleep(0)
    gateway.lost()
    await asyncio.gather(*gateway.looks)
    assert gateway.copies.known(KEY) is None


@virtual_time.virtual
async def test_by_another_catalog_a_room_would_be_opened_otherwise() -> None:
    """And what was made of one that is open already is made anew."""
    gateway = Gateway()
    copies, database = gateway.copies, gateway.database

    async def closes_at() -> int:
        looking = asyncio.create_task(copies.look(KEY))
        await gateway.settle()
        while database.asked:
            database.answer(0, late=True)
        return (await looking).room.closes_at

    before = await closes_at()
    database.zone = "UTC"
    assert await closes_at() == before
    copies.look_again()
    assert await closes_at() == before + 8 * 3_600_000
    database.committed = 5
    gateway.hear(0, 5)
    copy = copies.known(KEY)
    assert copy is not None
    copy.kept["positions"] = []
    copies.look_again()
    assert copies.known(KEY) is copy and not copy.kept and gateway.seen[-1] == 5


@virtual_time.virtual
async def test_whoever_has_written_sees_it_although_the_feed_is_slow() -> None:
    gateway = Gateway()
    gateway.database.committed = 10
    gateway.start(10)
    await gateway.settle()
    gateway.database.answer(0, late=True)
    await gateway.settle()
    gateway.database.committed = 11
    gateway.start(11)
    await gateway.settle()
    assert not gateway.looks[1].done() and not gateway.database.asked, "it did not wait for the feed"
    await asyncio.sleep(0.6)
    gateway.database.answer(0, late=True)
    await asyncio.gather(*gateway.looks)


@virtual_time.virtual
async def test_only_so_many_are_kept_and_those_that_are_watched() -> None:
    gateway = Gateway()
    copies, database = gateway.copies, gateway.database
    keys = [
        RoomKey(KEY.department_id, f"2026-{1 + n // 28:02}-{1 + n % 28:02}") for n in range(COPIES_MAX + 9)
    ]
    copies.listeners.clear()
    copies.pin(keys[0])
    for key in keys:
        looking = asyncio.create_task(copies.look(key))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        database.answer(0, late=True)
        await looking
    kept = [key for key in keys if copies.known(key) is not None]
    assert len(kept) == COPIES_MAX + 1, "the watched one is kept beyond"
    assert keys[0] in kept and keys[-1] in kept
