"""Waiting rooms hosted by a whole shard over PostgreSQL, in this process: what gateways may rely on."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from actors.room_host import RoomHost
from actors.shard import PASSIVATE_AFTER_MS
from engine.domain import schedule as s
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.policy import Policy
from engine.domain.queue_order import OrderRules, Rules
from engine.domain.refusal import Reason, Refusal
from engine.domain.room_plan import GENERAL
from engine.domain.waiting_room import Status
from engine.domain.waiting_terms import WaitingTerms
from engine.journal.codec import COMMAND_CODES, pack_asks, unpack_replies
from engine.journal.journal import Fenced
from engine.records.policies import store_policy
from tests.integration.test_shard import swept
from tests.support.rooms import (
    Listener,
    ask_room,
    bury,
    check_room,
    history,
    host_of,
    publish_room,
    rows_of,
    time_comes,
)
from tests.support.stores import (
    DAY,
    HOUR,
    LAVISH,
    Clock,
    Died,
    PostgresWorld,
    Reply,
    Served,
    confirm,
    doctor,
    gauge,
    hold,
    uid,
)

CARDIO, NEURO = RoomKey("cardio", DAY), RoomKey("neuro", DAY)
FAMOUS = doctor(1)
WHO = FAMOUS.practitioner_id
CONSOLES = 64


def policy(rules: Rules = Rules()) -> Policy:  # noqa: B008
    return replace(LAVISH, waiting={"": WaitingTerms(rules)})


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    await publish_room(world, CARDIO, WHO)
    await publish_room(world, NEURO, doctor(2).practitioner_id)
    yield world
    await world.close()


@pytest.fixture
async def served(world: PostgresWorld) -> AsyncIterator[Served]:
    served = await Served.open(world, policy=policy())
    yield served
    if not served.deaths:
        await served.stop()


def walk_in(n: int, queue_id: str = GENERAL) -> w.TakeNumber:
    return w.TakeNumber(uid("take", n), uid("patient", n), "desk", queue_id)


def walks_in(n: int) -> bytes:
    """The ticket that `walk_in` makes."""
    return ticket_id(uid("take", n))


def open_room(room_id: str = "R1", *queues: str) -> w.OpenRoom:
    return w.OpenRoom(uid("open" + room_id), room_id, queues or (GENERAL,), "", "nurse")


def check_in(n: int, starts_at: int) -> w.CheckIn:
    """Of who was booked with the famous one."""
    patient = uid("patient", n)
    return w.CheckIn(
        uid("in", n), patient, "kiosk", -1, uid("a", n), patient, CARDIO.department_id, WHO, DAY, True,
        starts_at, starts_at + HOUR // 2, starts_at + 2 * HOUR, n + 1,
    )  # fmt: skip


async def check(world: PostgresWorld, served: Served, key: RoomKey = CARDIO) -> None:
    await served.shard._activate({key.stream})  # it may have gone to rest
    await check_room(world, key, host_of(served, key).state)


# Many at once.


async def test_of_64_consoles_with_one_version_one_wins(world: PostgresWorld, served: Served) -> None:
    await ask_room(served, CARDIO, *(walk_in(n) for n in range(5)), open_room())
    calls = [w.CallNext(uid("next", n), "R1", f"nurse {n}", 1) for n in range(CONSOLES)]
    answers = await asyncio.gather(*(ask_room(served, CARDIO, call) for call in calls))
    told = [answer for (answer,) in answers]
    won = [n for n, answer in enumerate(told) if isinstance(answer, w.Told)]
    assert len(won) == 1, told
    assert Counter(a.reason for a in told if isinstance(a, Refusal)) == {Reason.STALE_VERSION: CONSOLES - 1}
    stale = next(a for a in told if isinstance(a, Refusal))
    assert stale.detail == {"version": 2, "number": "A001"}
    [again] = await ask_room(served, CARDIO, calls[won[0]])
    assert again == told[won[0]]
    called = [e for e in await history(world, CARDIO) if isinstance(e, w.TicketCalled)]
    assert [(e.ticket_id, e.by) for e in called] == [(walks_in(0), f"nurse {won[0]}")]
    await check(world, served)


async def test_of_64_rooms_that_want_one_ticket_one_gets_it(world: PostgresWorld, served: Served) -> None:
    await ask_room(served, CARDIO, *(open_room(f"R{n}") for n in range(CONSOLES)))
    await ask_room(served, CARDIO, walk_in(1))
    calls = [w.CallNext(uid("next", n), f"R{n}", "nurse") for n in range(CONSOLES)]
    answers = [a for (a,) in await asyncio.gather(*(ask_room(served, CARDIO, call) for call in calls))]
    assert sum(isinstance(a, w.Told) for a in answers) == 1
    assert {a.reason for a in answers if isinstance(a, Refusal)} == {Reason.NOBODY_WAITS}
    await check(world, served)


async def test_a_thousand_who_come_at_once_have_a_thousand_numbers(
    world: PostgresWorld, served: Served
) -> None:
    answers = await ask_room(served, CARDIO, *(walk_in(n) for n in range(1_000)))
    labels = [a.label for a in answers if isinstance(a, w.Told)]
    assert labels == [f"A{n:03}" for n in range(1, 1_000)]
    assert answers[-1] == Refusal(Reason.NUMBERS_EXHAUSTED, {"queue_id": GENERAL, "last": 999})
    await check(world, served)


async def test_one_batch_for_days_and_rooms(world: PostgresWorld, served: Served) -> None:
    await world.register([(uid("account", n), uid("patient", n)) for n in range(3)])
    booked = [hold(uid("a", n), uid("patient", n), account=uid("account", n)) for n in range(3)]
    nobody = hold(uid("a", 9), uid("patient", 1), account=uid("account", 2))
    asks = [
        (FAMOUS.stream, 60_000, booked[0]),
        (CARDIO.stream, 60_000, walk_in(0)),
        (FAMOUS.stream, 60_000, nobody),
        (NEURO.stream, 60_000, walk_in(1)),
        (FAMOUS.stream, 60_000, confirm(uid("a", 0), uid("account", 0))),
        (CARDIO.stream, 60_000, walk_in(0)),
        (FAMOUS.stream, 60_000, booked[1]),
        (CARDIO.stream, 60_000, w.Recall(uid("recall"), walks_in(0), "nurse")),
    ]
    replies = await served.send(asks)
    kinds = [r.reason if isinstance(r, Refusal) else type(r) for r in replies]
    assert kinds == [
        s.Answer, w.Told, Reason.NOT_ELIGIBLE, w.Told, s.Answer, w.Told, s.Answer, Reason.WRONG_STATUS,
    ]  # fmt: skip
    assert replies[1] == replies[5]
    assert {a: x.status for a, x in (await world.appointments()).items()} == {uid("a", 0): 2, uid("a", 1): 1}
    await check(world, served)
    await check(world, served, NEURO)


async def test_where_there_is_no_department_or_day_there_is_no_room(
    world: PostgresWorld, served: Served
) -> None:
    for key in (RoomKey("nowhere", DAY), RoomKey("cardio", "2026-13-41"), RoomKey("cardio", "")):
        assert await ask_room(served, key, walk_in(1)) == [Refusal(Reason.NO_SUCH_WAITING_ROOM)]
    assert await world.events(0) == []


# Retries.


class Morning:
    """Every kind of command that travels, each done once; with the answer that it had."""

    def __init__(self, clock: Clock, send: Callable[..., object]) -> None:
        self.clock = clock
        self._send = send
        self.told: list[tuple[w.Command, w.Told]] = []

    async def did(self, command: w.Command, seconds: int = 0) -> w.Told:
        self.clock.advance(seconds=seconds)
        [told] = await self._send(command)  # type: ignore[misc]
        assert isinstance(told, w.Told), f"{command}: {told}"
        self.told.append((command, told))
        return told

    async def play(self) -> None:
        ids = (uid("did", n) for n in range(1_000))
        starts_at = self.clock() + HOUR

        def on(n: int) -> tuple[bytes, bytes]:
            return next(ids), walks_in(n)

        await self.did(w.SetQueue(next(ids), "ecg", "examination", "X", 1, 999))
        await self.did(open_room("R1", GENERAL, WHO))
        await self.did(open_room("R2"))
        await self.did(w.PauseRoom(next(ids), "R2", "nurse", "tea"))
        for n in range(8):
            await self.did(walk_in(n), 1)
        await self.did(check_in(20, starts_at))
        first = await self.did(w.CallNext(next(ids), "R1", "nurse"))
        assert first.ticket_id == walks_in(0)
        await self.did(w.Recall(*on(0), "nurse"), 10)
        await self.did(w.StartService(*on(0), "nurse"))
        ecg = (("examination", "ecg", "", 0), ("visit", GENERAL, "", 1))
        await self.did(w.FinishTicket(*on(0), "nurse", ecg))
        await self.did(w.CallTicket(next(ids), "R1", walks_in(3), "nurse", "faint"))
        version = host_version(self.told)
        await self.did(w.UndoStep(next(ids), walks_in(3), version, "nurse", "wrong"))
        await self.did(w.CallTicket(next(ids), "R1", walks_in(3), "nurse", "faint"))
        await self.did(w.PassTicket(*on(3), "nurse"))
        await self.did(w.ReturnTicket(*on(3), "desk"))
        await self.did(w.ParkTicket(*on(4), "nurse", "paper"))
        await self.did(w.TransferTicket(*on(5), "ecg", "nurse", "first"))
        await self.did(w.MoveTicket(*on(6), 1, "nurse", "asked"))
        await self.did(w.ClassifyTicket(*on(7), "", 2, "nurse", "vitals"))
        await self.did(w.SendToDoor(*on(1), "R1", "nurse", "wheelchair"))
        await self.did(w.LeaveTicket(*on(2), "nurse", "home"))
        await self.did(w.SoundAlarm(next(ids), "R1", "nurse"))
        await self.did(w.CloseRoom(next(ids), "R2", "nurse", "home"))


def host_version(told: list[tuple[w.Command, w.Told]]) -> int:
    return told[-1][1].version


async def test_every_command_finds_its_first_answer_again_whatever_became_of_the_actor(
    world: PostgresWorld, served: Served, database: str
) -> None:
    morning = Morning(world.clock, lambda command: ask_room(served, CARDIO, command))
    await morning.play()
    room_kinds = COMMAND_CODES.keys() & set(w.Command.__args__)
    assert {type(command) for command, _ in morning.told} == room_kinds
    commands = [command for command, _ in morning.told]
    first = [replace(told, seen=0) for _, told in morning.told]
    before = await history(world, CARDIO)

    def same(replies: list[Reply]) -> None:
        # How much there is to see may be more than at first, but never less: see Told.seen.
        assert {reply.seen for reply in replies} == {len(before)}
        assert [replace(reply, seen=0) for reply in replies] == first

    same(await ask_room(served, CARDIO, *commands))
    world.clock.advance(ms=PASSIVATE_AFTER_MS + 1)
    await swept(served)
    assert CARDIO.stream not in served.shard._hosts, "it did not go to rest"
    same(await ask_room(served, CARDIO, *commands))
    same(unpack_replies(await asyncio.to_thread(_asked_by_another_process, database, commands)))
    again = await Served.open(world, policy=policy())
    same(await ask_room(again, CARDIO, *commands))
    assert await history(world, CARDIO) == before, "a retry has done something"
    await check(world, again)
    await again.stop()


ANOTHER_PROCESS = """
import asyncio, sys
from tests.support.stores import PostgresWorld, Served

async def main():
    served = await Served.open(PostgresWorld(sys.argv[1]))
    sys.stdout.buffer.write(await served.shard.ask(sys.stdin.buffer.read()))

asyncio.run(main())
"""


def _asked_by_another_process(url: str, commands: list[w.Command]) -> bytes:
    """Whose sets and dictionaries have other orders than ours."""
    ran = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, url],
        cwd=Path(__file__).parents[2],
        input=pack_asks([(CARDIO.stream, 60_000, command) for command in commands]),
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


async def test_a_key_that_is_used_for_something_else_is_refused(served: Served) -> None:
    await ask_room(served, CARDIO, walk_in(1), open_room())
    other = [w.CallNext(uid("take", 1), "R1", "nurse"), replace(walk_in(2), command_id=uid("take", 1))]
    assert await ask_room(served, CARDIO, *other) == [Refusal(Reason.KEY_REUSED)] * 2


async def test_retries_in_mid_flight_learn_what_the_first_one_learns(
    world: PostgresWorld, served: Served
) -> None:
    asks = [*(walk_in(n) for n in range(20)), open_room(), w.CallNext(uid("next"), "R1", "nurse")]
    rounds = await asyncio.gather(*(ask_room(served, CARDIO, *asks) for _ in range(10)))
    # All were told in one commit or in several; what they were told is the same.
    seen = [[replace(told, seen=0) for told in replies] for replies in rounds]
    assert all(replies == seen[0] for replies in seen)
    await check(world, served)


async def test_who_is_answered_is_in_the_journal_with_as_many_events_as_he_was_told(
    world: PostgresWorld, served: Served
) -> None:
    for n in range(3):
        [told] = await ask_room(served, CARDIO, walk_in(n))
        assert told.seen == len(await history(world, CARDIO))


# Doors.


async def test_doors_are_filled_after_every_step_as_far_as_the_policy_lets(world: PostgresWorld) -> None:
    served = await Served.open(world, policy=policy(Rules(door_cap=2)))
    await ask_room(served, CARDIO, open_room("R1"), open_room("R2"), *(walk_in(n) for n in range(7)))
    room = host_of(served, CARDIO).state

    def doors() -> dict[str, list[bytes]]:
        return {r: [t.ticket_id for t in w.at_door(room, r)] for r in ("R1", "R2")}

    assert doors() == {"R1": [walks_in(0), walks_in(2)], "R2": [walks_in(1), walks_in(3)]}
    [told] = await ask_room(served, CARDIO, w.CallNext(uid("next"), "R1", "nurse"))
    assert told.ticket_id == walks_in(0)
    assert doors() == {"R1": [walks_in(2), walks_in(4)], "R2": [walks_in(1), walks_in(3)]}
    await ask_room(served, CARDIO, w.PauseRoom(uid("pause"), "R2", "nurse"))
    await ask_room(served, CARDIO, w.LeaveTicket(uid("leave"), walks_in(2), "nurse", "home"))
    assert doors() == {"R1": [walks_in(4), walks_in(5)], "R2": [walks_in(1), walks_in(3)]}
    await served.unless_dead(served.shard._commit.drain())  # what nobody waits for
    await check(world, served)
    await served.stop()


async def test_without_a_cap_nobody_is_sent_to_a_door(world: PostgresWorld, served: Served) -> None:
    await ask_room(served, CARDIO, open_room(), *(walk_in(n) for n in range(3)))
    events = await history(world, CARDIO)
    assert not any(isinstance(event, w.TicketSentToDoor) for event in events)


# Time.


async def called(served: Served, world: PostgresWorld, times: int = 3) -> None:
    """The first walk-in is called so often, ten seconds apart."""
    await ask_room(served, CARDIO, open_room(), walk_in(0), walk_in(1))
    await ask_room(served, CARDIO, w.CallNext(uid("next"), "R1", "nurse"))
    for n in range(1, times):
        world.clock.advance(seconds=10)
        [told] = await ask_room(served, CARDIO, w.Recall(uid("recall", n), walks_in(0), "nurse"))
        assert isinstance(told, w.Told), told


async def status_of(world: PostgresWorld, n: int = 0) -> int:
    status = (await rows_of(world, CARDIO))[walks_in(n).hex()][6]
    assert isinstance(status, int)
    return status


async def heard(served: Served, listener: Listener) -> list[w.Event]:
    """Waits for the next news: this is how a test waits for a timer of the shard's own."""
    feed = served.shard.feed
    if listener.at == (feed.epoch, feed.seq):
        await served.unless_dead(served.shard.changes(*listener.at))
    await listener.hear(served)
    return [event for _, event in listener.rooms.get(CARDIO.stream, [])]


async def test_who_does_not_come_is_passed_over_by_the_timer_alone(
    world: PostgresWorld, served: Served
) -> None:
    await called(served, world)
    listener = Listener(served)
    world.clock.advance(seconds=59)
    await time_comes(served)
    assert await status_of(world) == Status.CALLED
    world.clock.advance(seconds=1)
    [passed] = await heard(served, listener)
    assert isinstance(passed, w.TicketPassed) and (passed.by, passed.at) == ("", world.clock())
    assert await status_of(world) == Status.PASSED
    [told] = await ask_room(served, CARDIO, w.CallNext(uid("next", 2), "R1", "nurse"))
    assert told.ticket_id == walks_in(1)
    await check(world, served)


async def test_the_calls_of_a_dead_shard_end_by_the_next_ones_timer(world: PostgresWorld) -> None:
    dead = await Served.open(world)
    await called(dead, world)
    served = await Served.open(world)  # nobody asks it for anything
    listener = Listener(served)
    world.clock.advance(seconds=61)
    [passed] = await heard(served, listener)
    assert isinstance(passed, w.TicketPassed)
    await check(world, served)
    await served.stop()


async def test_who_was_put_aside_waits_again_by_the_timer_also_after_a_restart(
    world: PostgresWorld, served: Served
) -> None:
    until = world.clock() + 5 * 60_000
    await ask_room(served, CARDIO, walk_in(0), walk_in(1))
    for n in (0, 1):
        park = w.ParkTicket(uid("park", n), walks_in(n), "nurse", "paper", until + n * 60_000)
        await ask_room(served, CARDIO, park)
    listener = Listener(served)
    world.clock.advance(seconds=300)
    assert [type(event) for event in await heard(served, listener)] == [w.TicketReturned]
    again = await Served.open(world)
    listener = Listener(again)
    world.clock.advance(seconds=60)
    assert [type(event) for event in await heard(again, listener)] == [w.TicketReturned]
    assert [await status_of(world, n) for n in (0, 1)] == [Status.WAITING] * 2
    await check(world, again)
    await again.stop()


async def test_a_call_that_is_over_is_over_although_no_timer_has_come_by(
    world: PostgresWorld, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.shard._timers, "due", lambda: [])
    await called(served, world)
    world.clock.advance(seconds=60)
    [told] = await ask_room(served, CARDIO, w.CallNext(uid("next", 2), "R1", "nurse"))
    assert told.ticket_id == walks_in(1)
    await served.unless_dead(served.shard._commit.drain())
    assert await status_of(world) == Status.PASSED
    await check(world, served)


async def test_a_room_at_rest_wakes_as_it_was_and_one_with_a_call_that_ends_does_not_rest(
    world: PostgresWorld, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await called(served, world, 2)
    before = host_of(served, CARDIO)
    world.clock.advance(ms=PASSIVATE_AFTER_MS + 1)
    await swept(served)
    assert CARDIO.stream not in served.shard._hosts
    [told] = await ask_room(served, CARDIO, w.Recall(uid("recall", 9), walks_in(0), "nurse"))
    assert isinstance(told, w.Told)
    after = host_of(served, CARDIO)
    assert after is not before and after.version == before.version + 1
    await check(world, served)
    monkeypatch.setattr(served.shard._timers, "due", lambda: [])
    world.clock.advance(ms=PASSIVATE_AFTER_MS + 1)
    await swept(served)
    assert host_of(served, CARDIO) is after, "a call that time will end was forgotten"


# What others decide meanwhile.


async def test_a_policy_that_changes_at_noon_changes_the_next_decision_and_nothing_before(
    world: PostgresWorld, served: Served
) -> None:
    await called(served, world, 1)
    before = await history(world, CARDIO)
    await _in_force(world, "waiting: {calling: {calls_max: 1, answer: 30s}, walk_ins: {first: 601}}")
    await served.shard.forget_the_unopened()
    assert await history(world, CARDIO) == before
    refused = await ask_room(served, CARDIO, w.Recall(uid("recall", 1), walks_in(0), "nurse"))
    assert [r.reason for r in refused] == [Reason.CALLS_MAX]
    listener = Listener(served)
    world.clock.advance(seconds=30)
    [passed] = await heard(served, listener)
    assert isinstance(passed, w.TicketPassed), "the new rules' moment was not looked for"
    # The day that has begun goes on with the numbers that it began with.
    [told] = await ask_room(served, CARDIO, walk_in(5, WHO))
    assert told.label == "B501"
    [other] = await ask_room(served, NEURO, walk_in(6, doctor(2).practitioner_id))
    assert other.label == "B601"
    await check(world, served)


async def test_a_room_in_which_nothing_has_happened_is_read_anew(
    world: PostgresWorld, served: Served
) -> None:
    assert (await ask_room(served, CARDIO, w.CallNext(uid("n"), "R1", "nurse")))[
        0
    ].reason is Reason.ROOM_NOT_OPEN
    await ask_room(served, NEURO, walk_in(1))
    await publish_room(world, CARDIO, "D0007")
    await publish_room(world, NEURO, "D0008")
    before = host_of(served, CARDIO), host_of(served, NEURO)
    await served.shard.forget_the_unopened()
    [told] = await ask_room(served, CARDIO, walk_in(2, "D0007"))
    assert isinstance(told, w.Told)
    refused = await ask_room(served, NEURO, walk_in(2, "D0008"))
    assert refused == [Refusal(Reason.NO_SUCH_QUEUE, {"queue_id": "D0008"})]
    assert host_of(served, CARDIO) is not before[0] and host_of(served, NEURO) is before[1]
    await check(world, served)
    await check(world, served, NEURO)


async def test_looking_writes_nothing_and_the_first_step_writes_the_opening(
    world: PostgresWorld, served: Served
) -> None:
    await ask_room(served, CARDIO, w.CallNext(uid("n"), "R1", "nurse"))
    assert await world.events(0) == []
    await ask_room(served, CARDIO, walk_in(1))
    assert [type(e) for e in await history(world, CARDIO)] == [
        w.DayOpened, w.QueueSet, w.QueueSet, w.TicketIssued,
    ]  # fmt: skip


async def _in_force(world: PostgresWorld, text: str) -> None:
    async with (await world.pool()).acquire() as connection, connection.transaction():
        await store_policy(connection, text, "test")


# What others hear.


async def test_the_feed_tells_every_event_once_in_order(world: PostgresWorld, served: Served) -> None:
    listener = Listener(served)
    await ask_room(served, CARDIO, open_room(), *(walk_in(n) for n in range(10)))
    await listener.hear(served)
    await asyncio.gather(
        *(
            ask_room(served, CARDIO, w.LeaveTicket(uid("l", n), walks_in(n), "nurse", "home"))
            for n in range(5)
        ),
        *(ask_room(served, NEURO, walk_in(n)) for n in range(10, 20)),
    )
    await ask_room(served, CARDIO, w.CallNext(uid("next"), "R1", "nurse", 99))  # refused: no news
    await listener.hear(served)
    assert {stream: [n for n, _ in told] for stream, told in listener.rooms.items()} == {
        key.stream: list(range(1, len(await history(world, key)) + 1)) for key in (CARDIO, NEURO)
    }
    for key in (CARDIO, NEURO):
        assert [event for _, event in listener.rooms[key.stream]] == await history(world, key)


async def test_the_conservation_metric_reads_0_until_a_ticket_is_damaged(
    world: PostgresWorld, served: Served
) -> None:
    await ask_room(served, CARDIO, open_room(), walk_in(1), walk_in(2))
    await swept(served)
    assert gauge(served, "xinglin_conservation_error") == 0
    line = host_of(served, CARDIO).state.queues[GENERAL].line
    del line[walks_in(1)]
    await swept(served)
    assert gauge(served, "xinglin_conservation_error") == 1
    line[walks_in(1)] = None
    await swept(served)
    assert gauge(served, "xinglin_conservation_error") == 0


# Zombies, and writes that fail.


async def test_an_older_shard_dies_at_its_next_write_and_nothing_of_it_is_seen(world: PostgresWorld) -> None:
    zombie = await Served.open(world)
    await ask_room(zombie, CARDIO, open_room(), walk_in(0), walk_in(1))
    served = await Served.open(world)
    before = await history(world, CARDIO)
    rows = await rows_of(world, CARDIO)
    listener = Listener(served)
    calls = [w.CallNext(uid("next", n), "R1", "nurse") for n in range(2)]
    with pytest.raises(Died, match="fenced"):
        await ask_room(zombie, CARDIO, calls[0])
    await bury(zombie)
    assert host_of(zombie, CARDIO).state.rooms["R1"].ticket_id, "it had called somebody, in its own memory"
    assert await history(world, CARDIO) == before and await rows_of(world, CARDIO) == rows
    [told] = await ask_room(served, CARDIO, calls[1])
    assert told.ticket_id == walks_in(0)
    await listener.hear(served)
    assert [event.command_id for _, event in listener.rooms[CARDIO.stream]] == [uid("next", 1)]  # type: ignore[union-attr]
    await check(world, served)
    await served.stop()


async def test_a_zombie_that_was_asked_for_a_retry_only_still_tells_what_is_true(
    world: PostgresWorld,
) -> None:
    """What it knows of is committed; and it learns at its next write that it is one."""
    zombie = await Served.open(world)
    [first] = await ask_room(zombie, CARDIO, walk_in(0))
    served = await Served.open(world)
    assert await ask_room(zombie, CARDIO, walk_in(0)) == [first] == await ask_room(served, CARDIO, walk_in(0))
    assert not zombie.deaths
    await served.stop()


def cut_offs() -> Iterator[tuple[str, bool]]:
    yield "before the transaction", False
    yield "in the middle of the transaction", False
    yield "after the commit", True


@pytest.mark.parametrize(("when", "written"), [*cut_offs()])
async def test_a_command_stands_whole_or_not_at_all_when_the_database_goes_away(
    world: PostgresWorld, when: str, written: bool
) -> None:
    """Finishing who is inside and calling the next one are two events and two tickets."""
    served = await Served.open(world)
    await ask_room(served, CARDIO, open_room(), walk_in(0), walk_in(1))
    await ask_room(served, CARDIO, w.CallNext(uid("next", 1), "R1", "nurse"))
    await ask_room(served, CARDIO, w.StartService(uid("start"), walks_in(0), "nurse"))
    before, rows = await history(world, CARDIO), await rows_of(world, CARDIO)
    pool = await world.pool()
    if when == "in the middle of the transaction":
        await pool.execute(
            "create function cut() returns trigger language plpgsql as $$ begin"
            " if new.status = 3 then perform pg_terminate_backend(pg_backend_pid()); end if;"
            " return new; end $$;"
            "create trigger cut before update on ticket for each row execute function cut()"
        )
    journal = served.shard._journal
    flush = journal._flush  # type: ignore[attr-defined]

    async def cut_off(*arguments: object) -> int:
        if when == "before the transaction":
            await pool.execute("select pg_terminate_backend($1)", journal._write.get_server_pid())  # type: ignore[attr-defined]
        first: int = await flush(*arguments)
        if when == "after the commit":
            raise asyncpg.ConnectionDoesNotExistError("the answer was lost")
        return first

    journal._flush = cut_off  # type: ignore[attr-defined]
    command = w.CallNext(uid("next", 2), "R1", "nurse")
    with pytest.raises(Died, match="the journal failed"):
        await ask_room(served, CARDIO, command)
    await bury(served)
    await pool.execute("drop function if exists cut() cascade")
    after = await history(world, CARDIO)
    assert [type(e) for e in after[len(before) :]] == ([w.StageFinished, w.TicketCalled] if written else [])
    assert (await rows_of(world, CARDIO) != rows) == written
    again = await Served.open(world)
    [told] = await ask_room(again, CARDIO, command)
    assert told.ticket_id == walks_in(1)
    assert len(await history(world, CARDIO)) == len(before) + 2
    await check(world, again)
    await again.stop()


async def test_a_room_that_is_decided_by_other_rules_is_the_same_room(world: PostgresWorld) -> None:
    """What was journaled under one policy is replayed under another without asking it."""
    served = await Served.open(world, policy=policy(Rules(door_cap=1)))
    await ask_room(served, CARDIO, open_room(), *(walk_in(n) for n in range(4)))
    state = host_of(served, CARDIO).state
    again = await Served.open(world, policy=policy(Rules(OrderRules(overtaken_max=1))))
    await ask_room(again, CARDIO, w.CallNext(uid("n"), "R9", "nurse"))
    assert host_of(again, CARDIO).state == state
    await again.stop()


def test_a_fenced_journal_is_no_ordinary_failure() -> None:
    assert not issubclass(Fenced, asyncpg.PostgresError)
    assert RoomHost.__slots__, "a room's host stays small"
