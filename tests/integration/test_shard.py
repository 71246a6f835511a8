"""A whole shard over PostgreSQL, in this process, without Ray: what gateways may rely on."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest

import actors.shard
from actors.feed import Changes
from actors.shard import PASSIVATE_AFTER_MS
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.limits import BATCH_COMMANDS_MAX, SHARD_MAILBOX_MAX
from engine.domain.planning import PlannedSlot, Session, plan_as_data
from engine.domain.refusal import Reason, Refusal
from engine.journal.codec import pack_asks, unpack_replies
from engine.records.appointments import seats_taken
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    LAVISH,
    PostgresWorld,
    Reply,
    Served,
    audit,
    cancel,
    confirm,
    doctor,
    gauge,
    hold,
    plan,
    tell,
    uid,
)

FAMOUS, QUIET = doctor(1), doctor(2)
CAPACITIES = (10, 10, 10, 10, 10)  # a session of 50 numbers
CLOCKS = ["0800", "0830", "0900", "0930", "1000"]
CONTENDERS = 10_000


@pytest.fixture
async def world(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(database)
    for key in (FAMOUS, QUIET):
        await world.publish(key, plan(world.clock() + HOUR, *CAPACITIES))
    yield world
    await world.close()


@pytest.fixture
async def served(world: PostgresWorld) -> AsyncIterator[Served]:
    await register(world, 20)
    served = await Served.open(world)
    yield served
    if not served.deaths:
        await served.stop()


def person(n: int) -> tuple[bytes, bytes]:
    """(account, patient): everybody has an account of his own."""
    return uid("account", n), uid("patient", n)


def hold_of(n: int, clock: str = "0800", which: str = "", seconds: int = 900) -> s.HoldSeat:
    account, patient = person(n)
    return hold(uid(f"a{which}", n), patient, clock, account, seconds)


async def register(world: PostgresWorld, many: int) -> None:
    await world.register([person(n) for n in range(many)])


async def punish(world: PostgresWorld, patient: bytes) -> None:
    await (await world.pool()).execute(
        "insert into penalty (id, subject_kind, subject, rule, offence, begins, ends, evidence, created_at)"
        " values (gen_random_uuid(), 'patient', $1, 'missed three', 'no_show', now(),"
        "         now() + interval '90 days', array[gen_random_uuid()], now())",
        UUID(bytes=patient),
    )


async def until_stable(
    served: Served, wanted: dict[bytes, list[tuple[ScheduleKey, s.HoldSeat]]]
) -> dict[bytes, s.Answer]:
    """Everybody asks for each thing on his list in turn, until he has one; refused ones ask again, until a
    whole round gives nobody anything."""
    got: dict[bytes, s.Answer] = {}
    while True:
        before = len(got)
        for turn in range(max(map(len, wanted.values()))):
            asks = [
                (who, *list_[turn]) for who, list_ in wanted.items() if who not in got and turn < len(list_)
            ]
            replies = await served.send([(key.stream, 60_000, command) for _, key, command in asks])
            for (who, _, _), reply in zip(asks, replies, strict=True):
                if isinstance(reply, s.Answer):
                    got[who] = reply
        if len(got) == before:
            return got


# No overselling, no underselling.


async def test_10_000_contenders_for_50_numbers_sell_exactly_50(world: PostgresWorld) -> None:
    await register(world, CONTENDERS)
    served = await Served.open(world)
    asks = [hold_of(n, CLOCKS[n % 5]) for n in range(CONTENDERS)]
    replies: list[Reply] = []
    for n in range(0, CONTENDERS, SHARD_MAILBOX_MAX):
        replies += await served.ask(FAMOUS, *asks[n : n + SHARD_MAILBOX_MAX])
    told = [reply for reply in replies if isinstance(reply, s.Answer)]
    assert sorted(answer.number for answer in told) == list(range(1, 51))
    assert Counter(r.reason for r in replies if isinstance(r, Refusal)) == {Reason.SLOT_FULL: CONTENDERS - 50}
    shown = await world.appointments()
    assert set(shown) == {answer.appointment_id for answer in told}
    assert len(await world.claims()) == 100
    await audit(world, list(served.shard._hosts.values()), [0])
    await served.stop()


async def test_50_are_sold_although_claims_are_lost_to_another_shard(world: PostgresWorld) -> None:
    """Three in ten have taken a number elsewhere between the question for their facts and the commit."""
    many = 2_000
    await register(world, many)
    served, other = await Served.open(world, 0), await Served.open(world, 1)
    both = [n for n in range(many) if n % 10 < 3]
    here = {n: hold_of(n, CLOCKS[n % 5]) for n in range(many)}
    there = [hold_of(n, CLOCKS[n // 10 % 5], "x") for n in both]
    asked, elsewhere = await asyncio.gather(served.ask(FAMOUS, *here.values()), other.ask(QUIET, *there))
    assert not served.deaths + other.deaths
    first = {n: reply for n, reply in zip(here, asked, strict=True) if isinstance(reply, s.Answer)}
    left = {uid("w", n): [(FAMOUS, here[n])] for n in here if n not in first}
    later = await until_stable(served, left)
    assert len(first) + len(later) == 50, "a seat stayed free although somebody wanted it"
    sold = {person(n)[1] for n in first} | {person(int.from_bytes(w[8:], "big"))[1] for w in later}
    sold_there = {
        command.patient_id for command, r in zip(there, elsewhere, strict=True) if isinstance(r, s.Answer)
    }
    assert not sold & sold_there, "one patient has two numbers of one department and day"
    assert len(sold_there) == 50
    shown = await world.appointments()
    assert Counter(x.schedule_id for x in shown.values() if x.status <= 4) == {
        FAMOUS.schedule_id: 50,
        QUIET.schedule_id: 50,
    }
    hosts = [*served.shard._hosts.values(), *other.shard._hosts.values()]
    await audit(world, hosts, [0, 1])
    await served.stop()
    await other.stop()


async def test_retries_in_mid_flight_learn_what_the_first_one_learns(
    world: PostgresWorld, served: Served
) -> None:
    asks = [hold_of(n, "0800") for n in range(20)]
    rounds = await asyncio.gather(*(served.ask(FAMOUS, *asks) for _ in range(10)))
    assert all(replies == rounds[0] for replies in rounds)
    assert sum(isinstance(reply, s.Answer) for reply in rounds[0]) == 10
    assert len(await world.events(0)) == 11  # the opening, and ten holds
    await audit(world, list(served.shard._hosts.values()), [0])


async def test_a_shard_started_anew_gives_the_first_answers_again(
    world: PostgresWorld, served: Served
) -> None:
    asks = [hold_of(n, "0800") for n in range(12)]
    first = await served.ask(FAMOUS, *asks)
    await served.ask(FAMOUS, confirm(uid("a", 0), person(0)[0]))
    again = await Served.open(world)
    replies = await again.ask(FAMOUS, *asks)
    assert [getattr(r, "number", r) for r in replies] == [getattr(r, "number", r) for r in first]
    # And the one before it is a zombie now.
    with pytest.raises(Exception, match="fenced"):
        await served.ask(FAMOUS, cancel(uid("a", 1), person(1)[0]))
    assert (await world.appointments())[uid("a", 1)].status == s.Status.PENDING


async def test_who_may_not_book_is_refused_with_the_rule(world: PostgresWorld, served: Served) -> None:
    await punish(world, person(2)[1])
    stranger = hold(uid("s"), person(1)[1], account=person(0)[0])
    replies = await served.ask(FAMOUS, stranger, hold_of(2), hold_of(1))
    rules = [r.detail["rule"] if isinstance(r, Refusal) else r.number for r in replies]
    assert rules == ["patient_of_another_account", "missed three", 1]
    assert await served.ask(doctor(9), hold_of(2)) == [Refusal(Reason.NO_SUCH_SCHEDULE)]


@pytest.mark.parametrize(("held", "left"), [(0, 3), (2, 1)])
async def test_a_family_larger_than_its_account_may_hold_is_refused_whole(
    world: PostgresWorld, held: int, left: int
) -> None:
    served = await Served.open(world, policy=replace(LAVISH, account_holds_max=held + left))
    await world.register([(ACCOUNT, uid("patient", n)) for n in range(held + left + 1)])
    await served.ask(QUIET, *(hold(uid("q", n), uid("patient", n), CLOCKS[n]) for n in range(held)))
    family = [(uid("f", n), uid("patient", n)) for n in range(held, held + left + 1)]
    [refused] = await served.ask(FAMOUS, s.HoldGroup(tuple(family), "0800", ACCOUNT))
    assert refused == Refusal(
        Reason.NOT_ELIGIBLE,
        {"rule": "account_holds_max", "limit": held + left, "patient_id": family[-1][1].hex()},
    )
    assert len(await world.appointments()) == held, "some of a family have a number"
    [told] = await served.ask(FAMOUS, s.HoldGroup(tuple(family[:-1]), "0800", ACCOUNT))
    assert isinstance(told, s.Many) and len(told.answers) == left, "one that fits is refused"
    assert len(await world.appointments()) == held + left
    await audit(world, list(served.shard._hosts.values()), [0])
    await served.stop()


async def test_one_id_on_two_schedules_is_refused_before_it_is_tried(served: Served) -> None:
    await served.ask(FAMOUS, hold_of(1))
    assert await served.ask(QUIET, hold_of(1, "0830")) == [Refusal(Reason.KEY_REUSED)]


# Time.


async def changes(served: Served, since: tuple[int, int]) -> Changes:
    """The next news of the feed: this is how a test waits for something to be committed."""
    return Changes.unpack(await served.unless_dead(served.shard.changes(*since)))


def here(served: Served) -> tuple[int, int]:
    return served.shard.feed.epoch, served.shard.feed.seq


async def test_an_unpaid_hold_ends_by_the_timer(world: PostgresWorld, served: Served) -> None:
    await served.ask(FAMOUS, hold_of(1, seconds=60), hold_of(2, seconds=60), hold_of(3, seconds=120))
    await served.ask(FAMOUS, confirm(uid("a", 2), person(2)[0]))
    world.clock.advance(seconds=60)
    news = await changes(served, here(served))
    assert news.remaining == {FAMOUS.slot_id("0800"): 8}
    shown = await world.appointments()
    assert [shown[uid("a", n)].status for n in (1, 2, 3)] == [5, 2, 1]
    assert shown[uid("a", 1)].reason == "expired"
    world.clock.advance(seconds=60)
    await changes(served, here(served))
    assert (await world.appointments())[uid("a", 3)].status == s.Status.CANCELLED


async def test_the_holds_of_a_dead_shard_end_by_the_next_ones_timer(world: PostgresWorld) -> None:
    await register(world, 2)
    dead = await Served.open(world)
    await dead.ask(FAMOUS, hold_of(1, seconds=60))
    served = await Served.open(world)  # nobody asks it for anything
    world.clock.advance(seconds=61)
    assert (await changes(served, here(served))).remaining == {FAMOUS.slot_id("0800"): 10}
    await served.stop()


async def test_a_seat_that_came_back_from_a_lost_claim_is_given_for_so_long_and_no_longer(
    world: PostgresWorld,
) -> None:
    """Whoever was refused for it gets it; his hold ends by the timer like any other."""
    key = doctor(3)
    await world.publish(key, plan(world.clock() + HOUR, 1))
    await register(world, 3)
    served, other = await Served.open(world, 0), await Served.open(world, 1)
    reads = served.shard._reads
    question = reads.facts

    async def facts(questions, now):  # noqa: ANN001, ANN202
        found = await question(questions, now)
        if any(q.appointment_id == uid("a", 1) for q in questions):  # a moment too late to be seen
            await other.ask(QUIET, hold_of(1, "0830", "x"))
        return found

    reads.facts = facts
    lost, won = await served.ask(key, hold_of(1, seconds=60), hold_of(2, seconds=60))
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert isinstance(won, s.Answer)
    world.clock.advance(seconds=61)
    news = await changes(served, here(served))
    assert news.remaining == {key.slot_id("0800"): 1}, "nobody looked at the hold again"
    await served.stop()
    await other.stop()


async def test_a_hold_that_has_ended_is_free_although_no_timer_has_come_by(
    world: PostgresWorld, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.shard._timers, "due", lambda: [])
    await served.ask(FAMOUS, *(hold_of(n, seconds=60) for n in range(10)))
    assert await served.ask(FAMOUS, hold_of(11)) == [Refusal(Reason.SLOT_FULL)]
    world.clock.advance(seconds=60)
    assert await served.ask(FAMOUS, confirm(uid("a", 0), person(0)[0])) == [Refusal(Reason.HOLD_EXPIRED)]
    [answer] = await served.ask(FAMOUS, hold_of(11))
    assert isinstance(answer, s.Answer) and answer.number == 1
    await audit(world, list(served.shard._hosts.values()), [0])


async def test_an_actor_at_rest_wakes_as_it_was(
    world: PostgresWorld, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.ask(FAMOUS, *(hold_of(n, CLOCKS[n % 5]) for n in range(10)))
    await served.ask(FAMOUS, *(confirm(uid("a", n), person(n)[0]) for n in range(5)))
    await served.ask(FAMOUS, *(cancel(uid("a", n), person(n)[0]) for n in range(3, 10)))
    before = served.shard._hosts[FAMOUS.stream]
    told = tell(before.state)
    world.clock.advance(ms=PASSIVATE_AFTER_MS + 1)
    await swept(served)
    assert FAMOUS.stream not in served.shard._hosts
    [again] = await served.ask(FAMOUS, hold_of(0, CLOCKS[0]))
    assert isinstance(again, s.Answer) and again.number == 1
    after = served.shard._hosts[FAMOUS.stream]
    assert after is not before
    assert tell(after.state) == told and after.version == before.version
    await audit(world, [after], [0])


async def test_an_actor_with_a_hold_does_not_rest(world: PostgresWorld, served: Served) -> None:
    await served.ask(FAMOUS, hold_of(1, seconds=3600))
    world.clock.advance(ms=PASSIVATE_AFTER_MS + 1)
    await swept(served)
    assert FAMOUS.stream in served.shard._hosts


async def swept(served: Served) -> None:
    """One whole sweep, now: the task that sweeps for ever, without its pauses."""
    looked = asyncio.Event()
    hosts = served.shard.metrics.hosts
    tell_hosts = hosts.set

    def told(value: float) -> None:
        tell_hosts(value)
        looked.set()

    hosts.set = told
    before, actors.shard.SWEEP_SECONDS = actors.shard.SWEEP_SECONDS, 0.0
    sweep = asyncio.create_task(served.shard._sweep_for_ever())
    try:
        await asyncio.wait_for(looked.wait(), 10)
    finally:
        sweep.cancel()
        actors.shard.SWEEP_SECONDS = before
        hosts.set = tell_hosts


# The catalog changes while a message is being served.


async def test_a_message_survives_that_its_days_are_read_anew_meanwhile(
    world: PostgresWorld, served: Served
) -> None:
    reads = served.shard._reads
    question = reads.facts

    async def facts(questions, now):  # noqa: ANN001, ANN202
        found = await question(questions, now)
        await served.shard.forget_the_unopened()
        reads.facts = question
        return found

    reads.facts = facts
    [answer] = await served.ask(FAMOUS, hold_of(1))
    assert isinstance(answer, s.Answer)


async def test_nobody_slips_past_the_rules_while_days_are_read_anew(
    world: PostgresWorld, served: Served
) -> None:
    stranger = hold(uid("s"), person(1)[1], account=person(0)[0])
    await served.ask(FAMOUS, confirm(uid("nobody")))  # awake, and nothing has happened on it
    journal = served.shard._journal
    load = journal.load

    async def slow(streams: list[str]):  # noqa: ANN202
        journal.load = load
        found = await load(streams)
        await served.shard.forget_the_unopened()
        return found

    journal.load = slow
    asks = [(FAMOUS.stream, 60_000, stranger), (QUIET.stream, 60_000, confirm(uid("nobody")))]
    replies = await served.send(asks)
    assert isinstance(replies[0], Refusal), "somebody booked for a patient of another account"


# Bounds.


async def test_what_is_past_its_deadline_is_dropped_before_decide(
    world: PostgresWorld, served: Served
) -> None:
    reads = served.shard._reads
    question = reads.facts
    loop = asyncio.get_running_loop()

    async def facts(questions, now):  # noqa: ANN001, ANN202
        found = await question(questions, now)
        late = loop.time() + 0.02
        while loop.time() < late:
            await asyncio.sleep(0)
        return found

    reads.facts = facts
    asks = [(FAMOUS.stream, 1, hold_of(1)), (FAMOUS.stream, 60_000, hold_of(2))]
    late, in_time = await served.send(asks)
    assert late == Refusal(Reason.TOO_LATE)
    assert isinstance(in_time, s.Answer)
    assert set(await world.appointments()) == {uid("a", 2)}


async def test_past_its_bound_a_shard_refuses_at_once_and_takes_nothing(
    world: PostgresWorld, served: Served
) -> None:
    asks = [(FAMOUS.stream, 60_000, confirm(uid("nobody", n))) for n in range(BATCH_COMMANDS_MAX)]
    packed = pack_asks(asks)
    ask = served.shard.ask
    messages = SHARD_MAILBOX_MAX // BATCH_COMMANDS_MAX
    taken = [asyncio.ensure_future(ask(packed)) for _ in range(messages)]
    await asyncio.sleep(0)
    over = asyncio.ensure_future(ask(pack_asks([(FAMOUS.stream, 60_000, hold_of(1))])))
    await asyncio.sleep(0)
    assert over.done(), "a refusal for want of room had to wait"
    assert unpack_replies(over.result()) == [Refusal(Reason.BUSY)]
    for packed_replies in await asyncio.gather(*taken):
        assert unpack_replies(packed_replies) == [Refusal(Reason.NO_SUCH_APPOINTMENT)] * BATCH_COMMANDS_MAX
    assert isinstance((await served.ask(FAMOUS, hold_of(1)))[0], s.Answer), "the room never came back"


# What others hear.


async def test_the_feed_says_what_sql_counts(world: PostgresWorld) -> None:
    many = 60
    await register(world, many)
    served, other = await Served.open(world, 0), await Served.open(world, 1)
    start = here(served)
    free = {key.slot_id(clock): 10 for key in (FAMOUS,) for clock in CLOCKS}
    heard: list[Changes] = []

    async def listen() -> None:
        at = start
        while True:
            news = await changes(served, at)
            assert news.remaining is not None
            heard.append(news)
            at = news.epoch, news.seq

    listening = asyncio.create_task(listen())
    await asyncio.gather(
        served.ask(FAMOUS, *(hold_of(n, CLOCKS[n % 5], seconds=60) for n in range(many))),
        other.ask(QUIET, *(hold_of(n, CLOCKS[n % 5], "x") for n in range(0, many, 3))),
    )
    held = [n for n in range(many) if uid("a", n) in served.shard._hosts[FAMOUS.stream].state.appointments]
    await served.ask(FAMOUS, *(confirm(uid("a", n), person(n)[0]) for n in held[::2]))
    await served.ask(FAMOUS, *(cancel(uid("a", n), person(n)[0]) for n in held[::5]))
    world.clock.advance(seconds=61)
    await changes(served, here(served))
    taken = (await seats_taken(await world.pool())).seats
    await asyncio.sleep(0)
    listening.cancel()
    for news in heard:
        free |= news.remaining or {}
    assert [news.seq for news in heard] == sorted({news.seq for news in heard})
    assert {slot: 10 - left for slot, left in free.items() if left < 10} == {
        slot: n for slot, n in taken.items() if slot.startswith(FAMOUS.schedule_id)
    }
    # Who comes later is told to read a snapshot, or everything at once.
    assert (await changes(served, (0, 0))).remaining is None
    late = (await changes(served, start)).remaining
    assert late is not None and free == {**dict.fromkeys(free, 10), **late}
    await served.stop()
    await other.stop()


async def test_a_seat_given_back_by_a_lost_confirmation_is_in_the_feed(world: PostgresWorld) -> None:
    await register(world, 2)
    served, other = await Served.open(world, 0), await Served.open(world, 1)
    now = world.clock.ms
    world.clock.ms = now - HOUR // 2
    await served.ask(FAMOUS, hold_of(1, seconds=60))
    world.clock.ms = now
    await other.ask(QUIET, hold_of(1, "0830", "x"))
    world.clock.ms = now - HOUR // 2  # this shard's clock is late, the database's is not
    before = here(served)
    reply = await served.ask(FAMOUS, confirm(uid("a", 1), person(1)[0]))
    assert reply == [Refusal(Reason.HOLD_EXPIRED)]
    assert (await changes(served, before)).remaining == {FAMOUS.slot_id("0800"): 10}
    await served.stop()
    await other.stop()


async def test_a_day_that_is_opened_by_hand_is_in_the_feed(world: PostgresWorld, served: Served) -> None:
    key = ScheduleKey(FAMOUS.practitioner_id, "2026-11-25")
    slots = (PlannedSlot("1900", world.clock() + HOUR, 2),)
    session = Session("night", "cardio", "expert", None, 100, slots)
    before = here(served)
    await served.ask(key, s.OpenSession(uid("open"), -1, "staff:1", "", session))
    news = await changes(served, before)
    assert news.plans == {key.schedule_id: plan_as_data((session,))}
    assert news.remaining == {key.slot_id("1900"): 2}


async def test_a_seat_that_comes_back_is_offered_before_anybody_else_can_ask(
    world: PostgresWorld, served: Served
) -> None:
    """And when the offer ends, by the timer alone, the next one gets it."""
    key = doctor(3)
    await world.publish(key, plan(world.clock() + 4 * HOUR, 1))
    await served.ask(key, hold_of(1), confirm(uid("a", 1), person(1)[0]))
    now = world.clock()
    joins = [
        s.JoinWaitlist(uid("w", n), *person(n)[:1], person(n)[1:], (), 0, now + n, now + HOUR, uid("seed", n))
        for n in (2, 3)
    ]
    assert [reply.position for reply in await served.ask(key, *joins)] == [1, 2]
    _, refused = await served.ask(key, cancel(uid("a", 1), person(1)[0]), hold_of(4))
    assert refused == Refusal(Reason.SLOT_FULL)
    for n in (2, 3):
        offered = [x for x in (await world.appointments()).values() if x.status == s.Status.PENDING]
        assert [(x.patient_id, x.wish_id) for x in offered] == [(person(n)[1], uid("w", n))]
        before = here(served)
        world.clock.advance(seconds=15 * 60)
        await changes(served, before)
        await served.shard._commit.drain()
    assert not any(x.status == s.Status.PENDING for x in (await world.appointments()).values())
    await audit(world, list(served.shard._hosts.values()), [0])


async def test_the_conservation_metric_reads_0_until_a_seat_is_damaged(
    world: PostgresWorld, served: Served
) -> None:
    await served.ask(FAMOUS, *(hold_of(n, CLOCKS[n % 5]) for n in range(10)))
    await swept(served)
    assert gauge(served, "xinglin_conservation_error") == 0
    assert gauge(served, "xinglin_actors") == 1
    served.shard._hosts[FAMOUS.stream].state.slots["0800"].taken ^= 0b101
    await swept(served)
    assert gauge(served, "xinglin_conservation_error") == 2
    served.shard._hosts[FAMOUS.stream].state.slots["0800"].taken ^= 0b101
    await swept(served)
    assert gauge(served, "xinglin_conservation_error") == 0


async def test_commands_are_counted_by_outcome(served: Served) -> None:
    await served.ask(FAMOUS, *(hold_of(n) for n in range(12)))
    value = served.shard.metrics.registry.get_sample_value
    name = "xinglin_commands_total"
    assert value(name, {"command": "HoldSeat", "outcome": "ok"}) == 10
    assert value(name, {"command": "HoldSeat", "outcome": "slot_full"}) == 2


async def test_stopping_answers_what_was_taken_in(world: PostgresWorld, served: Served) -> None:
    asked = [asyncio.ensure_future(served.ask(FAMOUS, hold_of(n))) for n in range(5)]
    await asyncio.sleep(0)  # taken in, and none of them decided yet
    await served.stop()
    async with asyncio.timeout(10):
        replies = [reply for done in await asyncio.gather(*asked) for reply in done]
    assert {r.appointment_id for r in replies if isinstance(r, s.Answer)} == set(await world.appointments())
