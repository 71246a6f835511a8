"""What every journal promises. One suite; each store passes all of it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import asyncpg
import orjson
import pytest

from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.ids import ScheduleKey
from engine.domain.planning import plan_from_data
from engine.domain.refusal import Reason, Refusal
from engine.journal.journal import AppointmentRow, Entry, Fenced, Journal, Loss, StatusChange
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    Clock,
    Desk,
    Died,
    MemoryWorld,
    PostgresWorld,
    World,
    audit,
    cancel,
    confirm,
    doctor,
    entry,
    hold,
    plan,
    tell,
    uid,
)

ANN, BOB, CY = uid("ann"), uid("bob"), uid("cy")
ONE, TWO = doctor(1), doctor(2)


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
async def world(url: str | None) -> AsyncIterator[World]:
    """Two doctors of one department, each with a slot of two seats at 0800 and one of one at 0830."""
    clock = Clock()
    world: World = MemoryWorld(clock) if url is None else PostgresWorld(url, clock)
    for key in (ONE, TWO):
        await world.publish(key, plan(clock() + HOUR, 2, 1))
    yield world
    if isinstance(world, PostgresWorld):
        await world.close()


def refuse_to_compensate(losers: list[Loss]) -> list[Entry]:
    raise AssertionError(f"nobody should lose here: {losers}")


def claim(key: bytes, owner: bytes, expires_at: int | None = None) -> s.Claim:
    return s.Claim(s.Scope.DEPARTMENT_DAY, key, owner, expires_at)


def opened(world: World, version: int = 1, key: ScheduleKey = ONE) -> Entry:
    return entry(key, s.ScheduleOpened(plan(world.clock() + HOUR, 2, 1)), version, world.clock())


def held(
    world: World, appointment: bytes, version: int, *gains: s.Claim, seat: int = 0, key: ScheduleKey = ONE
) -> Entry:
    now = world.clock()
    row = AppointmentRow(
        appointment, key.schedule_id, key.slot_id("0800"), seat, 2, seat + 1, ANN, ACCOUNT, 1, None, 5000,
        now + HOUR, now + 900_000, now,
    )  # fmt: skip
    event = s.SeatHeld(appointment, "0800", seat, ANN, ACCOUNT, now + 900_000)
    return entry(key, event, version, now, row=row, gains=gains)


def released(world: World, appointment: bytes, version: int, *drops: s.Claim, reason: str = "x") -> Entry:
    change = StatusChange(appointment, s.Status.CANCELLED, reason, world.clock())
    event = s.SeatReleased(appointment, reason)
    return entry(ONE, event, version, world.clock(), change=change, drops=drops)


async def owned(world: World, shard_id: int = 0) -> Journal:
    journal = await world.journal(shard_id)
    await journal.take_over()
    return journal


# The log.


async def test_what_is_appended_is_loaded_in_order(world: World) -> None:
    journal = await owned(world)
    first = [opened(world), held(world, uid("a"), 2)]
    second = [entry(ONE, s.SeatBooked(uid("a")), 3, world.clock()), released(world, uid("a"), 4)]
    for entries in (first, second):
        await journal.append(entries, refuse_to_compensate)
    loaded = await (await owned(world)).load([ONE.stream, TWO.stream, "schedule/nobody/2026-11-24"])
    assert loaded[ONE.stream].events == [e.event for e in (*first, *second)]
    assert loaded[TWO.stream].events == []
    assert loaded[TWO.stream].plan == plan(world.clock() + HOUR, 2, 1)
    assert loaded["schedule/nobody/2026-11-24"].events == []
    assert loaded["schedule/nobody/2026-11-24"].plan is None


async def test_journal_numbers_have_no_gap_and_each_shard_has_its_own(world: World) -> None:
    left, right = await owned(world, 0), await owned(world, 1)
    assert await left.last_seq() == 0
    assert await left.append([opened(world), held(world, uid("a"), 2)], refuse_to_compensate) == 2
    assert await right.append([opened(world, key=TWO)], refuse_to_compensate) == 1
    assert await left.append([released(world, uid("a"), 3)], refuse_to_compensate) == 3
    assert (await left.last_seq(), await right.last_seq()) == (3, 1)
    assert [(seq, version) for seq, _, version, _ in await world.events(0)] == [(1, 1), (2, 2), (3, 3)]
    assert [(seq, version) for seq, _, version, _ in await world.events(1)] == [(1, 1)]


async def test_an_event_of_a_version_that_is_taken_is_never_written(world: World) -> None:
    journal = await owned(world)
    await journal.append([opened(world), held(world, uid("a"), 2)], refuse_to_compensate)
    with pytest.raises((AssertionError, asyncpg.UniqueViolationError)):
        await journal.append([held(world, uid("b"), 2, seat=1)], refuse_to_compensate)
    assert [version for _, _, version, _ in await world.events(0)] == [1, 2]


async def test_opening_leaves_the_plan_with_the_catalog(world: World) -> None:
    desk = await Desk.open(world, 0, ONE)
    assert await world.opened(ONE) in (False, None)
    await desk.ask(ONE, hold(uid("a"), ANN))
    assert await world.opened(ONE) in (True, None)
    if isinstance(world, PostgresWorld):
        row = await (await world.pool()).fetchval("select plan from schedule where id = $1", ONE.schedule_id)
        assert plan_from_data(orjson.loads(row)) == plan(world.clock() + HOUR, 2, 1)
    fresh = await Desk.open(world, 0, ONE)
    assert tell(fresh.hosts[ONE].state) == tell(desk.hosts[ONE].state)


async def test_looking_writes_nothing(world: World) -> None:
    desk = await Desk.open(world, 0, ONE)
    assert await desk.ask(ONE, confirm(uid("a"))) == [Refusal(Reason.NO_SUCH_APPOINTMENT)]
    assert await world.events(0) == []


# The fence.


async def test_a_second_owner_fences_the_first_off(world: World) -> None:
    first = await owned(world)
    await first.append([opened(world)], refuse_to_compensate)
    second = await owned(world)
    with pytest.raises(Fenced):
        await first.append([held(world, uid("a"), 2, claim(b"k", uid("a")))], refuse_to_compensate)
    assert len(await world.events(0)) == 1
    assert (await world.appointments(), await world.claims()) == ({}, {})
    await second.append([held(world, uid("b"), 2, claim(b"k", uid("b")))], refuse_to_compensate)
    assert await world.claims() == {(1, b"k"): uid("b")}


async def test_each_takeover_raises_the_epoch(world: World) -> None:
    journals = [await world.journal(7) for _ in range(5)]
    assert [await journal.take_over() for journal in journals] == [1, 2, 3, 4, 5]


async def test_a_zombie_that_also_loses_claims_writes_nothing(world: World) -> None:
    other = await owned(world, 1)
    theirs = [opened(world, key=TWO), held(world, uid("o"), 2, claim(b"k", uid("o")), key=TWO)]
    await other.append(theirs, refuse_to_compensate)
    zombie = await owned(world)
    await zombie.append([opened(world)], refuse_to_compensate)
    await owned(world)
    entries = [
        held(world, uid("a"), 2, claim(b"k", uid("a"))),
        held(world, uid("b"), 3, claim(b"free", uid("b")), seat=1),
    ]

    def undo(losers: list[Loss]) -> list[Entry]:
        return [released(world, uid("a"), 4, reason="lost_claim")]

    with pytest.raises(Fenced):
        await zombie.append(entries, undo)
    assert len(await world.events(0)) == 1
    assert await world.claims() == {(1, b"k"): uid("o")}
    assert set(await world.appointments()) == {uid("o")}


async def test_a_zombie_group_commit_dies_and_answers_nobody(world: World) -> None:
    zombie = await Desk.open(world, 0, ONE)
    await Desk.open(world, 0, ONE)
    done = zombie.submit(ONE, hold(uid("a"), ANN))
    with pytest.raises(Died, match="fenced"):
        await zombie.settle(done)
    assert not done.done() or done.cancelled()
    assert await world.events(0) == []


async def test_zombies_are_counted(world: World) -> None:
    if not isinstance(world, PostgresWorld):
        pytest.skip("only PostgreSQL counts them")
    zombie = await owned(world)
    await owned(world)
    with pytest.raises(Fenced):
        await zombie.append([opened(world)], refuse_to_compensate)
    assert await (await world.pool()).fetchval("select fenced from shard where id = 0") == 1


# Claims: what is unique beyond one actor.


async def two_shards(world: World) -> tuple[Desk, Desk]:
    return await Desk.open(world, 0, ONE), await Desk.open(world, 1, TWO)


async def check(world: World, *desks: Desk) -> None:
    hosts = [host for desk in desks for host in desk.hosts.values()]
    await audit(world, hosts, range(len(desks)))


async def test_two_shards_race_for_one_patient_department_and_day_and_one_wins(world: World) -> None:
    left, right = await two_shards(world)
    replies = await asyncio.gather(
        left.ask(ONE, hold(uid("left"), ANN, "0830")), right.ask(TWO, hold(uid("right"), ANN, "0800"))
    )
    outcomes = [reply for [reply] in replies]
    assert sum(isinstance(x, s.Answer) for x in outcomes) == 1
    assert Refusal(Reason.ALREADY_BOOKED) in outcomes
    winner = "left" if isinstance(outcomes[0], s.Answer) else "right"
    assert set(await world.appointments()) == {uid(winner)}
    # The loser's seat is free again: in memory, in what a restart replays, in SQL.
    loser, key, clock = (right, TWO, "0800") if winner == "left" else (left, ONE, "0830")
    slot = loser.hosts[key].state.slots[clock]
    assert seats.remaining(slot) == slot.capacity
    await check(world, left, right)
    [again] = await loser.ask(key, hold(uid("bob"), BOB, clock))
    assert isinstance(again, s.Answer)
    await check(world, left, right)


async def test_one_patient_is_at_one_place_at_a_time(world: World) -> None:
    await world.publish(doctor(3), plan(world.clock() + HOUR, 1, department="derma"))
    left, right = await Desk.open(world, 0, ONE), await Desk.open(world, 1, doctor(3))
    await left.ask(ONE, hold(uid("left"), ANN))
    assert await right.ask(doctor(3), hold(uid("right"), ANN)) == [Refusal(Reason.TIME_CONFLICT)]
    assert isinstance((await right.ask(doctor(3), hold(uid("bob"), BOB)))[0], s.Answer)
    await check(world, left, right)


async def test_a_claim_that_ended_gives_way_and_a_live_one_does_not(world: World) -> None:
    left, right = await two_shards(world)
    long_ago = world.clock() - HOUR // 2
    await left.ask(ONE, hold(uid("ended"), ANN, seconds=60), now=long_ago)
    assert isinstance((await right.ask(TWO, hold(uid("takes"), ANN)))[0], s.Answer)
    await left.load(ONE)
    await left.ask(ONE, s.ExpireHolds())
    assert set((await world.claims()).values()) == {uid("takes")}, "the ended one took the claims along"
    assert await left.ask(ONE, hold(uid("again"), ANN)) == [Refusal(Reason.ALREADY_BOOKED)]
    await check(world, left, right)


async def test_an_ended_claim_gives_way_also_where_another_is_lost(world: World) -> None:
    """The slower way, by which a batch is written in which somebody loses, has the same rules."""
    left, right = await two_shards(world)
    long_ago = world.clock() - HOUR // 2
    await left.ask(ONE, hold(uid("ended"), ANN, seconds=60), now=long_ago)
    await left.ask(ONE, hold(uid("live"), BOB, seconds=900))
    lost, taken = await right.ask(TWO, hold(uid("b"), BOB), hold(uid("a"), ANN))
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert isinstance(taken, s.Answer)
    await check(world, left, right)


async def test_confirming_after_the_claim_was_taken_over_gives_the_seat_back(world: World) -> None:
    left, right = await two_shards(world)
    long_ago = world.clock() - HOUR // 2
    await left.ask(ONE, hold(uid("late"), ANN, "0830", seconds=60), now=long_ago)
    await right.ask(TWO, hold(uid("takes"), ANN))
    # Decided in time by this shard's clock, and written too late by the database's.
    [reply] = await left.ask(ONE, confirm(uid("late")), now=long_ago + 1_000)
    assert reply == Refusal(Reason.HOLD_EXPIRED)
    assert seats.remaining(left.hosts[ONE].state.slots["0830"]) == 1
    assert (await world.appointments())[uid("late")].status == s.Status.CANCELLED
    await check(world, left, right)


async def test_confirming_makes_the_claim_last(world: World) -> None:
    left, right = await two_shards(world)
    long_ago = world.clock() - HOUR // 2
    await left.ask(ONE, hold(uid("a"), ANN, seconds=60), now=long_ago)
    await left.ask(ONE, confirm(uid("a")), now=long_ago + 1_000)
    assert await right.ask(TWO, hold(uid("b"), ANN)) == [Refusal(Reason.ALREADY_BOOKED)]
    await check(world, left, right)


async def test_cancelling_gives_the_claim_back(world: World) -> None:
    left, right = await two_shards(world)
    await left.ask(ONE, hold(uid("a"), ANN))
    await left.ask(ONE, cancel(uid("a")))
    assert await world.claims() == {}
    assert isinstance((await right.ask(TWO, hold(uid("b"), ANN)))[0], s.Answer)
    await check(world, left, right)


async def test_one_id_on_two_schedules_of_two_shards_is_one_appointment(world: World) -> None:
    left, right = await two_shards(world)
    [first] = await left.ask(ONE, hold(uid("same"), ANN))
    assert isinstance(first, s.Answer)
    before = await world.appointments(), await world.claims()
    assert await right.ask(TWO, hold(uid("same"), BOB, "0830")) == [Refusal(Reason.KEY_REUSED)]
    assert (await world.appointments(), await world.claims()) == before, "the first one was touched"
    await check(world, left, right)


async def test_one_id_of_one_patient_on_two_shards_keeps_the_first_ones_claims(world: World) -> None:
    left, right = await two_shards(world)
    await left.ask(ONE, hold(uid("same"), ANN), confirm(uid("same")))
    before = await world.appointments(), await world.claims()
    assert await right.ask(TWO, hold(uid("same"), ANN)) == [Refusal(Reason.KEY_REUSED)]
    assert (await world.appointments(), await world.claims()) == before, "the first one was touched"
    await check(world, left, right)


# Within one batch.


async def test_of_rivals_in_one_batch_the_first_wins(world: World) -> None:
    desk = await Desk.open(world, 0, ONE, TWO)
    first, second = desk.submit(ONE, hold(uid("a"), ANN)), desk.submit(TWO, hold(uid("b"), ANN))
    third = desk.submit(TWO, hold(uid("c"), BOB))
    a, b, c = await desk.settle(first, second, third)
    assert isinstance(a, s.Answer) and isinstance(c, s.Answer)
    assert b == Refusal(Reason.ALREADY_BOOKED)
    await check(world, desk)


async def test_one_id_on_two_schedules_in_one_batch_is_one_appointment(world: World) -> None:
    desk = await Desk.open(world, 0, ONE, TWO)
    first, second = desk.submit(ONE, hold(uid("same"), ANN)), desk.submit(TWO, hold(uid("same"), BOB, "0830"))
    a, b = await desk.settle(first, second)
    assert isinstance(a, s.Answer) and b == Refusal(Reason.KEY_REUSED)
    assert (await world.appointments())[uid("same")].status == s.Status.PENDING
    await check(world, desk)


async def test_held_and_cancelled_in_one_batch(world: World) -> None:
    desk = await Desk.open(world, 0, ONE)
    first, second = await desk.ask(ONE, hold(uid("a"), ANN), cancel(uid("a")))
    assert isinstance(first, s.Answer) and isinstance(second, s.Answer)
    assert second.status == s.Status.CANCELLED
    assert await world.claims() == {}
    await check(world, desk)


async def test_held_confirmed_cancelled_and_held_again_in_one_batch(world: World) -> None:
    desk = await Desk.open(world, 0, ONE)
    a, b = uid("a"), uid("b")
    replies = await desk.ask(ONE, hold(a, ANN, "0830"), confirm(a), cancel(a), hold(b, ANN, "0830"))
    assert isinstance(replies[0], s.Answer) and isinstance(replies[2], s.Answer)
    await check(world, desk)


async def test_cancelled_and_booked_elsewhere_in_one_batch(world: World) -> None:
    desk = await Desk.open(world, 0, ONE, TWO)
    await desk.ask(ONE, hold(uid("a"), ANN))
    gone, new = desk.submit(ONE, cancel(uid("a"))), desk.submit(TWO, hold(uid("b"), ANN))
    assert all(isinstance(reply, s.Answer) for reply in await desk.settle(gone, new))
    await check(world, desk)


async def test_an_ended_hold_of_the_same_patient_gives_way_in_the_same_batch(world: World) -> None:
    desk = await Desk.open(world, 0, ONE)
    await desk.ask(ONE, hold(uid("a"), ANN, "0830", seconds=60))
    world.clock.advance(seconds=61)  # within the claim's grace
    [again] = await desk.ask(ONE, hold(uid("b"), ANN, "0830"))
    assert isinstance(again, s.Answer)
    await check(world, desk)


@pytest.mark.parametrize("afterwards", [confirm, cancel])
async def test_what_builds_on_a_hold_that_loses_its_claim_falls_with_it(
    world: World, afterwards: Callable[[bytes], s.Command]
) -> None:
    left, right = await two_shards(world)
    await right.ask(TWO, hold(uid("first"), ANN))
    lost, after = await left.ask(ONE, hold(uid("a"), ANN), afterwards(uid("a")))
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert after == Refusal(Reason.NO_SUCH_APPOINTMENT)
    await check(world, left, right)
    fresh = await Desk.open(world, 0, ONE)
    assert isinstance((await fresh.ask(ONE, hold(uid("b"), BOB)))[0], s.Answer)


async def test_a_hold_that_ends_while_its_lost_claim_is_written(world: World) -> None:
    """A hold made a moment before its slot starts may end before its flush does."""
    left, right = await two_shards(world)
    await right.ask(TWO, hold(uid("first"), ANN))
    lost = left.submit(ONE, hold(uid("a"), ANN, seconds=1))
    ended = left.submit(ONE, s.ExpireHolds(), now=world.clock() + 2_000)
    assert (await left.settle(lost, ended))[0] == Refusal(Reason.ALREADY_BOOKED)
    await check(world, left, right)


# Many at once.


async def test_two_shards_with_overlapping_claims_neither_deadlock_nor_die(world: World) -> None:
    left, right = await two_shards(world)
    chance = random.Random(20261124)
    patients = [uid("p", n) for n in range(12)]

    async def client(desk: Desk, key: ScheduleKey, number: int) -> None:
        for turn in range(34):
            appointment = uid(key.practitioner_id, 100 * number + turn)
            order = chance.sample(patients, 2)
            first = desk.submit(key, hold(appointment, order[0], chance.choice(["0800", "0830"])))
            other = uid(key.practitioner_id + "x", 100 * number + turn)
            second = desk.submit(key, hold(other, order[1], chance.choice(["0800", "0830"])))
            for told in await desk.settle(first, second):
                if isinstance(told, s.Answer):
                    await desk.ask(key, chance.choice([confirm, cancel, cancel])(told.appointment_id))
            await desk.ask(key, *(cancel(a) for a in (appointment, other)))

    async with asyncio.timeout(60):
        await asyncio.gather(
            *(client(left, ONE, n) for n in range(2)), *(client(right, TWO, n) for n in range(2))
        )
    assert left.deaths == right.deaths == []
    assert len(left.flushed) + len(right.flushed) >= 200
    await check(world, left, right)
