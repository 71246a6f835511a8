"""A change between two shards on PostgreSQL, killed at each of its steps: never both numbers, never none."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from engine.domain import schedule as s
from engine.domain.claims import Scope
from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Reason, Refusal
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    Died,
    PostgresWorld,
    Reply,
    Served,
    Shown,
    audit,
    cancel,
    confirm,
    doctor,
    hold,
    plan,
    uid,
)
from web.audit import audit as audit_tables

HERE, THERE, BESIDE = doctor(1), doctor(3), doctor(2)  # HERE and BESIDE are of shard 1, THERE of shard 0
OLD, NEW = uid("old"), uid("new")
ANN, BOB, CY = (uid("patient", n) for n in range(3))


class LostConnection(Exception):
    pass


class Pair:
    """Two shards. A killed one is dropped as it is; the next one fences it off."""

    def __init__(self, world: PostgresWorld) -> None:
        self.world = world
        self.shards: dict[int, Served] = {}

    async def start(self, *shard_ids: int) -> None:
        for shard_id in shard_ids:
            self.shards[shard_id] = await Served.open(self.world, shard_id, shards=2)

    def at(self, key: ScheduleKey) -> Served:
        return self.shards[0 if key == THERE else 1]

    async def ask(self, key: ScheduleKey, *commands: s.Command) -> list[Reply]:
        return await self.at(key).ask(key, *commands)

    def break_next_write(self, key: ScheduleKey, when: str) -> None:
        journal = self.at(key).shard._journal
        append = journal.append

        async def broken(entries, compensate):  # noqa: ANN001, ANN202
            if when == "after":
                await append(entries, compensate)
            raise LostConnection

        journal.append = broken  # type: ignore[method-assign]

    def kill(self) -> None:
        for served in self.shards.values():
            for task in served.shard._tasks:
                task.cancel()

    async def until(self, wanted: Callable[[dict[bytes, Shown]], bool]) -> dict[bytes, Shown]:
        """Only the shards' own timers bring this about."""
        async with asyncio.timeout(20):
            while True:
                shown = await self.world.appointments()
                if wanted(shown):
                    return shown

    async def check(self) -> None:
        hosts = []
        for key in (HERE, THERE, BESIDE):
            shard = self.at(key).shard
            await shard._commit.drain()
            await shard._activate({key.stream})
            hosts.append(shard._hosts[key.stream])
        await audit(self.world, hosts, [0, 1])
        connection = await asyncpg.connect(self.world.url)
        wrong = {check.name: check.examples for check in await audit_tables(connection) if not check.ok}
        await connection.close()
        assert wrong == {}


@pytest.fixture
async def pair(database: str) -> AsyncIterator[Pair]:
    world = PostgresWorld(database)
    for n, key in enumerate((HERE, THERE, BESIDE)):
        # One department; BESIDE has other hours.
        await world.publish(key, plan(world.clock() + (2 + 2 * (n == 2)) * HOUR, 1, 2))
    await world.register([(ACCOUNT, patient) for patient in (ANN, BOB, CY)])
    pair = Pair(world)
    await pair.start(0, 1)
    await pair.ask(HERE, hold(OLD, ANN))
    await pair.ask(HERE, confirm(OLD))
    yield pair
    pair.kill()
    await world.close()


def held(new: bytes = NEW, clock: str = "0800", seconds: int = 60) -> s.HoldSeat:
    return s.HoldSeat(new, clock, ANN, ACCOUNT, seconds, replaces=OLD, changes=1)


async def step_of(pair: Pair, step: str) -> Reply:
    shown = (await pair.world.appointments()).get(NEW)
    command: dict[str, tuple[ScheduleKey, s.Command]] = {
        "hold": (THERE, held()),
        "leave": (HERE, s.LeaveFor(OLD, NEW, ACCOUNT, "cardio", True, shown.starts_at if shown else 0)),
        "settle": (THERE, s.SettleChange(NEW, False)),
    }
    [reply] = await pair.ask(*command[step])
    return reply


STEPS = ["hold", "leave", "settle"]


async def test_three_steps_change_a_number(pair: Pair) -> None:
    [first, second, third] = [await step_of(pair, step) for step in STEPS]
    assert (first.status, second.status, third.status) == (1, 5, 2)
    shown = await pair.world.appointments()
    assert (shown[OLD].status, shown[OLD].reason, shown[OLD].successor) == (5, "changed", NEW)
    assert (shown[NEW].status, shown[NEW].replaces, shown[NEW].changes) == (2, OLD, 1)
    assert set((await pair.world.claims()).values()) == {NEW}
    await pair.check()
    for step in STEPS:  # a retry of any step finds its answer
        assert isinstance(await step_of(pair, step), s.Answer)
    await pair.check()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_killed_in_the_middle_of_a_step_the_timer_settles_it(pair: Pair, step: str, when: str) -> None:
    """The write fails, or its answer does. Nobody asks again."""
    for earlier in STEPS[: STEPS.index(step)]:
        assert isinstance(await step_of(pair, earlier), s.Answer)
    pair.break_next_write(HERE if step == "leave" else THERE, when)
    with pytest.raises((Died, LostConnection)):
        await step_of(pair, step)
    pair.kill()
    await pair.start(0, 1)
    pair.world.clock.advance(seconds=61)
    shown = await pair.until(lambda shown: NEW not in shown or shown[NEW].status != s.Status.PENDING)
    changed = (step, when) in {("leave", "after"), ("settle", "before"), ("settle", "after")}
    assert shown[OLD].status == (s.Status.CANCELLED if changed else s.Status.BOOKED)
    assert (NEW in shown and shown[NEW].status == s.Status.BOOKED) is changed
    await pair.check()


@pytest.mark.parametrize("side", [HERE, THERE])
@pytest.mark.parametrize("step", STEPS)
async def test_a_side_that_dies_after_a_step_does_not_matter_to_whoever_goes_on(
    pair: Pair, step: str, side: ScheduleKey
) -> None:
    for each in STEPS:
        assert isinstance(await step_of(pair, each), s.Answer)
        if each == step:
            await pair.start(0 if side == THERE else 1)
    shown = await pair.world.appointments()
    assert (shown[OLD].status, shown[NEW].status) == (s.Status.CANCELLED, s.Status.BOOKED)
    await pair.check()


async def test_the_zombie_of_a_step_writes_nothing(pair: Pair) -> None:
    await step_of(pair, "hold")
    zombie = pair.at(HERE)
    await pair.start(1)
    shown = (await pair.world.appointments())[NEW]
    with pytest.raises((Died, Exception), match="fenced"):
        await zombie.ask(HERE, s.LeaveFor(OLD, NEW, ACCOUNT, "cardio", True, shown.starts_at))
    pair.world.clock.advance(seconds=61)
    shown_then = await pair.until(lambda shown: shown[NEW].status != s.Status.PENDING)
    assert (shown_then[OLD].status, shown_then[NEW].status) == (s.Status.BOOKED, s.Status.CANCELLED)
    await pair.check()


async def test_what_was_given_up_cannot_be_left_for(pair: Pair) -> None:
    await step_of(pair, "hold")
    await pair.ask(THERE, cancel(NEW))
    assert await step_of(pair, "leave") == Refusal(Reason.CHANGE_GIVEN_UP)
    assert (await pair.world.claims())[Scope.MOVE, NEW] == NEW
    assert (await pair.world.appointments())[OLD].status == s.Status.BOOKED
    await pair.check()


async def asked_too_early(pair: Pair, ask: Callable[[], Awaitable[object]]) -> None:
    """The other side acts between this side's look at the journal and its commit."""
    reads = pair.at(HERE).shard._reads
    question = reads.held_for

    async def held_for(appointment_ids: list[bytes]) -> dict[bytes, bytes]:
        found = await question(appointment_ids)
        reads.held_for = question  # type: ignore[method-assign]
        await ask()
        return found

    reads.held_for = held_for  # type: ignore[method-assign]


async def test_a_number_that_is_left_in_vain_comes_back_with_its_claims(pair: Pair) -> None:
    await step_of(pair, "hold")
    before = await pair.world.claims()
    await asked_too_early(pair, lambda: pair.ask(THERE, cancel(NEW)))
    assert await step_of(pair, "leave") == Refusal(Reason.CHANGE_GIVEN_UP)
    shown = await pair.world.appointments()
    assert (shown[OLD].status, shown[OLD].successor) == (s.Status.BOOKED, b"")
    assert await pair.world.claims() == {**before, (Scope.MOVE, NEW): NEW}
    await pair.check()


async def test_nobody_gets_the_seat_or_the_day_of_a_number_that_comes_back(pair: Pair) -> None:
    """Of one batch: left in vain, somebody who wants its seat, and its patient's other wish for that day."""
    await step_of(pair, "hold")
    shown = (await pair.world.appointments())[NEW]
    await asked_too_early(pair, lambda: pair.ask(THERE, cancel(NEW)))
    leave = s.LeaveFor(OLD, NEW, ACCOUNT, "cardio", True, shown.starts_at)
    reads = pair.at(HERE).shard._reads
    question = reads.facts

    async def facts(questions, now):  # noqa: ANN001, ANN202
        return [found.__class__(is_of_account=True) for found in await question(questions, now)]

    reads.facts = facts  # type: ignore[method-assign]  # as if all had been asked a moment before
    asks = [
        (HERE.stream, 60_000, leave),
        (HERE.stream, 60_000, hold(uid("bob"), BOB)),
        (BESIDE.stream, 60_000, hold(uid("again"), ANN)),
    ]
    first, second, third = await pair.at(HERE).send(asks)
    assert first == Refusal(Reason.CHANGE_GIVEN_UP)
    assert second == Refusal(Reason.SLOT_FULL)
    assert third == Refusal(Reason.ALREADY_BOOKED)
    await pair.check()


async def test_giving_up_what_was_made_meanwhile_books_it(pair: Pair) -> None:
    await step_of(pair, "hold")
    shown = (await pair.world.appointments())[NEW]
    await pair.ask(HERE, s.LeaveFor(OLD, NEW, ACCOUNT, "cardio", True, shown.starts_at))
    [reply] = await pair.ask(THERE, cancel(NEW))
    assert reply.status == s.Status.BOOKED
    await pair.check()


async def test_a_change_within_one_day_is_one_commit(pair: Pair) -> None:
    [new] = await pair.ask(HERE, held(clock="0830"))
    assert isinstance(new, s.Answer)
    before = len(await pair.world.events(1))
    shown = (await pair.world.appointments())[NEW]
    [reply] = await pair.ask(HERE, s.LeaveFor(OLD, NEW, ACCOUNT, "cardio", True, shown.starts_at))
    assert reply.status == s.Status.CANCELLED
    events = [event for *_, event in (await pair.world.events(1))[before:]]
    assert [type(event) for event in events] == [s.SeatReleased, s.SeatBooked]
    assert Scope.MOVE not in {scope for scope, _ in await pair.world.claims()}
    await pair.check()


async def test_an_offer_to_whoever_is_affected_is_taken_up(pair: Pair) -> None:
    """The fate names the number that is offered; leaving for it is another thing."""
    off = s.SetSessionStatus(uid("off"), -1, "staff:1", "", "morning", "suspended", "ill")
    await pair.ask(HERE, off)
    assert (await pair.world.appointments())[OLD].fate == s.AFFECTED
    await step_of(pair, "hold")
    await pair.ask(HERE, s.DecideFate(OLD, "offered", NEW))
    await pair.check()
    for step in ("leave", "settle"):
        await step_of(pair, step)
    shown = await pair.world.appointments()
    assert (shown[OLD].status, shown[OLD].fate, shown[NEW].status) == (5, "moved", 2)
    await pair.check()


async def test_an_offer_that_has_ended_is_not_left_for_although_the_fate_names_it(pair: Pair) -> None:
    off = s.SetSessionStatus(uid("off"), -1, "staff:1", "", "morning", "suspended", "ill")
    await pair.ask(HERE, off)
    await step_of(pair, "hold")
    await pair.ask(HERE, s.DecideFate(OLD, "offered", NEW))
    await pair.ask(THERE, cancel(NEW))
    before = len(await pair.world.events(1))
    assert await step_of(pair, "leave") == Refusal(Reason.CHANGE_GIVEN_UP)
    assert len(await pair.world.events(1)) == before, "tried, although it was known to be in vain"
    assert (await pair.world.appointments())[OLD].fate == "offered"
    await pair.check()


async def test_a_session_moves_while_a_number_is_changed_for_one_of_its_slots(pair: Pair) -> None:
    await step_of(pair, "hold")
    shown = (await pair.world.appointments())[NEW]
    half = HOUR // 2
    moves = tuple(
        (clock, new, shown.starts_at + n * half)
        for n, (clock, new) in enumerate([("0800", "0830"), ("0830", "0900")], start=1)
    )
    await pair.ask(THERE, s.MoveSession(uid("move"), -1, "staff:1", "", "morning", moves, "r2"))
    await pair.check()
    for step in ("leave", "settle"):
        assert isinstance(await step_of(pair, step), s.Answer)
    shown = (await pair.world.appointments())[NEW]
    assert (shown.status, shown.slot_id) == (s.Status.BOOKED, THERE.slot_id("0830"))
    await pair.check()
