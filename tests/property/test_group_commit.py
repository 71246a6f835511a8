"""Random interleavings of two shards over one store, with a journal that is slow and that fails.

What is asked of every history: a reply speaks of what is committed at that moment; what has no events of
its own (a refusal, a repeat) was true at some moment between its question and its answer; a failed write
ends the process and answers nobody; and at the end live, replayed and projected are one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Reason, Refusal
from engine.journal.group_commit import Work
from engine.journal.journal import Compensate, Entry
from engine.journal.memory import MemoryJournal
from tests.support.stores import (
    HOUR,
    Clock,
    Desk,
    Died,
    MemoryWorld,
    Reply,
    audit,
    cancel,
    confirm,
    doctor,
    hold,
    plan,
    tell,
    uid,
)
from tests.support.virtual_time import run, virtual

NOW = 1_800_000_000_000
DOCTORS = [doctor(1), doctor(2)]  # one department: what one gives, the other may lose
CLOCKS = ["0800", "0830"]
PATIENTS = [uid("patient", n) for n in range(4)]
LOST = {Reason.ALREADY_BOOKED, Reason.TIME_CONFLICT, Reason.KEY_REUSED, Reason.HOLD_EXPIRED}


class LostConnection(Exception):
    pass


@dataclass
class SlowJournal:
    """A MemoryJournal whose writes take time, and fail when told so: before they wrote, or after."""

    inner: MemoryJournal
    seconds: float = 0.01
    fails: str | None = None

    async def take_over(self) -> int:
        return await self.inner.take_over()

    async def last_seq(self) -> int:
        return await self.inner.last_seq()

    async def load(self, streams: list[str]):  # noqa: ANN201
        return await self.inner.load(streams)

    async def append(self, entries: list[Entry], compensate: Compensate) -> int:
        await asyncio.sleep(self.seconds / 2)
        if self.fails == "before":
            raise LostConnection
        seq = await self.inner.append(entries, compensate)
        await asyncio.sleep(self.seconds / 2)
        if self.fails == "after":
            raise LostConnection
        return seq


class Witnessed(asyncio.Future[Reply]):
    """Tells a witness at the very moment in which it is answered."""

    witness: Callable[[Reply], None]

    def set_result(self, reply: Reply) -> None:
        self.witness(reply)
        super().set_result(reply)


class Bench(Desk):
    """A desk whose every reply is compared with what is committed when it is given."""

    world: MemoryWorld

    def history(self, key: ScheduleKey) -> list[s.Event]:
        told = [t for t in self.world.store.events.values() if t[0] == key.stream]
        return [event for _, _, event in sorted(told, key=lambda t: t[1])]

    def submit(self, key: ScheduleKey, command: s.Command, now: int | None = None) -> asyncio.Future[Reply]:
        asked_at = len(self.history(key))
        work = Work(self.hosts[key], command, self._clock() if now is None else now, Witnessed())
        work.done.witness = lambda reply: self.bear_witness(key, work, asked_at, reply)
        self._commit.submit(work)
        return work.done

    def bear_witness(self, key: ScheduleKey, work: Work, asked_at: int, reply: Reply) -> None:
        history = self.history(key)
        lost = isinstance(reply, Refusal) and reply.reason in LOST
        for entry in work.entries:
            assert entry.event in history, f"{reply} was given before its commit"
        if work.entries:
            assert lost or isinstance(reply, s.Answer | s.Revised)
            return
        opening = [e for e in self.opening(key) if e not in history]
        moments = [s.replay([*opening, *history[:version]]) for version in range(asked_at, len(history) + 1)]
        outcomes = [s.decide(moment, work.command, work.now) for moment in moments]
        expected = reply if isinstance(reply, Refusal) else []
        assert expected in outcomes, f"{reply} to {work.command} was true at no committed moment: {outcomes}"

    def opening(self, key: ScheduleKey) -> list[s.Event]:
        return [s.ScheduleOpened(self.world.store.plans[key.stream])]


async def bench(world: MemoryWorld, shard_id: int, *keys: ScheduleKey) -> Bench:
    desk = Bench(SlowJournal(await world.journal(shard_id)), world.clock)
    desk.world = world
    await desk.start(*keys)
    return desk


async def open_world(*capacities: int) -> MemoryWorld:
    world = MemoryWorld(Clock(NOW))
    for key in DOCTORS:
        await world.publish(key, plan(NOW + HOUR, *capacities))
    return world


@dataclass(frozen=True)
class Step:
    doctor: int
    action: str
    clock: int
    patient: int
    which: int  # among the appointments that this client has been told of
    pause_ms: int  # before the next step: 0 lets a batch gather, more lets it be written
    wait_ms: int  # of the hospital's clock


steps = st.builds(
    Step,
    doctor=st.integers(0, 1),
    action=st.sampled_from(["hold", "hold", "hold", "repeat", "confirm", "cancel", "cancel", "expire"]),
    clock=st.integers(0, 1),
    patient=st.integers(0, 3),
    which=st.integers(0, 7),
    pause_ms=st.sampled_from([0, 0, 0, 3, 7, 30]),
    wait_ms=st.sampled_from([0, 0, 0, 1_000, 61_000]),
)


@dataclass
class Client:
    """Knows what it asked and what it was told; asks about a number only after it has been told of it."""

    desks: list[Desk]
    clock: Clock
    asked: dict[bytes, tuple[int, s.HoldSeat]]
    told: list[bytes]
    open: list[asyncio.Future[Reply]]

    def step(self, step: Step) -> None:
        where = step.doctor
        command: s.Command
        match step.action:
            case "hold":
                appointment = uid("a", len(self.asked))
                command = hold(appointment, PATIENTS[step.patient], CLOCKS[step.clock], seconds=60)
                self.asked[appointment] = (where, command)
            case "repeat" if self.asked:
                where, command = list(self.asked.values())[step.which % len(self.asked)]
            case ("confirm" | "cancel") as action if self.told:
                appointment = self.told[step.which % len(self.told)]
                where, _ = self.asked[appointment]
                command = confirm(appointment) if action == "confirm" else cancel(appointment)
            case _:
                command = s.ExpireHolds()
        done = self.desks[where].submit(DOCTORS[where], command)
        done.add_done_callback(self.hear)
        self.open.append(done)

    def hear(self, done: asyncio.Future[Reply]) -> None:
        if done.cancelled():
            return
        reply = done.result()
        if isinstance(reply, s.Answer) and reply.appointment_id and reply.appointment_id not in self.told:
            self.told.append(reply.appointment_id)


async def play(capacities: tuple[int, ...], history: list[Step], one_shard: bool) -> None:
    world = await open_world(*capacities)
    if one_shard:
        desk = await bench(world, 0, *DOCTORS)
        desks: list[Bench] = [desk, desk]
    else:
        desks = [await bench(world, n, key) for n, key in enumerate(DOCTORS)]
    client = Client(list(desks), world.clock, {}, [], [])
    for step in history:
        client.step(step)
        world.clock.advance(ms=step.wait_ms)
        if step.pause_ms:
            await asyncio.sleep(step.pause_ms / 1000)
    for desk in desks:
        await desk.drain()
    assert all(done.done() for done in client.open), "somebody was never answered"
    shards = [0] if one_shard else [0, 1]
    await audit(world, [desks[n].hosts[key] for n, key in enumerate(DOCTORS)], shards)
    # A process that starts now answers every repeat as the first one did, and writes nothing.
    written = len(world.store.events)
    fresh = await bench(world, 0, *DOCTORS)
    for appointment, (where, command) in client.asked.items():
        if appointment in client.told:
            [again] = await fresh.ask(DOCTORS[where], command)
            assert isinstance(again, s.Answer) and again.appointment_id == appointment
    assert len(world.store.events) == written


brisk = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)


@brisk
@given(st.tuples(st.integers(1, 2), st.integers(1, 2)), st.lists(steps, max_size=30), st.booleans())
def test_every_reply_speaks_of_what_is_committed(
    capacities: tuple[int, ...], history: list[Step], one_shard: bool
) -> None:
    run(play(capacities, history, one_shard))


async def fail(history: list[Step], more: list[Step], fails: str) -> None:
    world = await open_world(1, 2)
    desk = await bench(world, 0, *DOCTORS)
    client = Client([desk, desk], world.clock, {}, [], [])
    for step in history:
        client.step(step)
    await desk.drain()
    assert isinstance(desk.journal, SlowJournal)
    desk.journal.fails = fails
    before = len(world.store.events)
    first = len(client.open)
    for step in more:
        client.step(step)
        if step.pause_ms:
            await asyncio.sleep(step.pause_ms / 1000)
    await asyncio.sleep(1)
    unanswered = [done for done in client.open[first:] if not done.done()]
    if not desk.deaths:
        assert not unanswered
        assert len(world.store.events) == before, "something was written, and the journal had failed"
        return
    assert len(desk.deaths) == 1
    assert "LostConnection" in desk.deaths[0]
    assert unanswered, "the process died of a write that nobody waits for"
    if fails == "before":
        assert len(world.store.events) == before
    await asyncio.sleep(60)
    assert all(not done.done() for done in unanswered), "a reply came after the write had failed"
    # What the next process knows is what was committed; each retry has one answer, and the same one again.
    fresh = await bench(world, 0, *DOCTORS)
    for appointment, (where, command) in client.asked.items():
        [one] = await fresh.ask(DOCTORS[where], command)
        written = len(world.store.events)
        [two] = await fresh.ask(DOCTORS[where], command)
        assert one == two
        if isinstance(one, s.Answer):
            assert len(world.store.events) == written, "a retry of what was done wrote again"
        if appointment in client.told:
            assert isinstance(one, s.Answer)
    await audit(world, list(fresh.hosts.values()), [0])


@brisk
@given(
    st.lists(steps, max_size=8),
    st.lists(steps, min_size=1, max_size=12),
    st.sampled_from(["before", "after"]),
)
def test_a_failed_write_ends_the_process_and_answers_nobody(
    history: list[Step], more: list[Step], fails: str
) -> None:
    # What was told before the failure stays true; time stands still, so that no hold ends on the way.
    still = [Step(x.doctor, x.action, x.clock, x.patient, x.which, x.pause_ms, 0) for x in (*history, *more)]
    run(fail(still[: len(history)], still[len(history) :], fails))


@virtual
async def test_a_commit_whose_answer_was_lost_is_found_by_the_retry() -> None:
    world = await open_world(1)
    desk = await bench(world, 0, DOCTORS[0])
    desk.journal.fails = "after"
    one = hold(uid("one"), PATIENTS[0])
    with pytest.raises(Died, match="LostConnection"):
        await desk.ask(DOCTORS[0], one)
    fresh = await bench(world, 0, DOCTORS[0])
    [answer] = await fresh.ask(DOCTORS[0], one)
    assert isinstance(answer, s.Answer) and answer.number == 1
    assert [type(event) for event in fresh.history(DOCTORS[0])] == [s.ScheduleOpened, s.SeatHeld]


@virtual
async def test_a_commit_that_never_was_leaves_the_seat_free() -> None:
    world = await open_world(1)
    desk = await bench(world, 0, DOCTORS[0])
    desk.journal.fails = "before"
    with pytest.raises(Died, match="LostConnection"):
        await desk.ask(DOCTORS[0], hold(uid("one"), PATIENTS[0]))
    fresh = await bench(world, 0, DOCTORS[0])
    [answer] = await fresh.ask(DOCTORS[0], hold(uid("two"), PATIENTS[1]))
    assert isinstance(answer, s.Answer) and answer.number == 1


@virtual
async def test_a_refusal_waits_for_the_flush_that_makes_it_true() -> None:
    world = await open_world(1)
    desk = await bench(world, 0, DOCTORS[0])
    held = desk.submit(DOCTORS[0], hold(uid("one"), PATIENTS[0]))
    refused = desk.submit(DOCTORS[0], hold(uid("two"), PATIENTS[1]))
    await asyncio.sleep(0.009)
    assert not refused.done(), "refused because of a seat whose hold is not committed"
    assert (await desk.settle(held, refused))[1] == Refusal(Reason.SLOT_FULL)


@virtual
async def test_what_hangs_on_no_commit_is_answered_at_once() -> None:
    world = await open_world(1)
    desk = await bench(world, 0, *DOCTORS)
    await desk.ask(DOCTORS[0], hold(uid("one"), PATIENTS[0]))
    held_elsewhere = desk.submit(DOCTORS[1], hold(uid("two"), PATIENTS[1]))
    refused = desk.submit(DOCTORS[0], hold(uid("three"), PATIENTS[2]))
    assert refused.done() and not held_elsewhere.done()
    await desk.drain()


async def lose_a_claim(desk: Bench, other: Bench) -> asyncio.Future[Reply]:
    """ann has a number at the other doctor's; her hold here is on its way to be undone. The slot is full."""
    await other.ask(DOCTORS[1], hold(uid("first"), PATIENTS[0]))
    return desk.submit(DOCTORS[0], hold(uid("loses"), PATIENTS[0]))


@virtual
async def test_who_was_refused_for_a_seat_that_came_back_gets_it() -> None:
    world = await open_world(1)
    desk, other = await bench(world, 0, DOCTORS[0]), await bench(world, 1, DOCTORS[1])
    loses = await lose_a_claim(desk, other)
    same_batch = desk.submit(DOCTORS[0], hold(uid("second"), PATIENTS[1]))
    await asyncio.sleep(0.001)
    next_batch = desk.submit(DOCTORS[0], hold(uid("third"), PATIENTS[2]))
    lost, won, late = await desk.settle(loses, same_batch, next_batch)
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert isinstance(won, s.Answer) and won.number == 1
    assert late == Refusal(Reason.SLOT_FULL)
    await audit(world, [desk.hosts[DOCTORS[0]], other.hosts[DOCTORS[1]]], [0, 1])


@virtual
async def test_a_repeat_of_what_lost_its_claim_is_refused_with_it() -> None:
    world = await open_world(1)
    desk, other = await bench(world, 0, DOCTORS[0]), await bench(world, 1, DOCTORS[1])
    loses = await lose_a_claim(desk, other)
    repeat = desk.submit(DOCTORS[0], hold(uid("loses"), PATIENTS[0]))
    assert await desk.settle(loses, repeat) == [Refusal(Reason.ALREADY_BOOKED)] * 2
    assert tell(desk.hosts[DOCTORS[0]].state)[1] == {}


@virtual
async def test_a_freed_seat_is_given_again_in_the_order_of_the_journal() -> None:
    """Seat 0 is cancelled while seat 1 loses its claim: who was refused before the cancel may get seat 0,
    but only behind the cancel."""
    world = await open_world(2)
    desk, other = await bench(world, 0, DOCTORS[0]), await bench(world, 1, DOCTORS[1])
    await desk.ask(DOCTORS[0], hold(uid("seat 0"), PATIENTS[3]))
    loses = await lose_a_claim(desk, other)
    await asyncio.sleep(0.001)
    refused = desk.submit(DOCTORS[0], hold(uid("waits"), PATIENTS[1]))
    gone = desk.submit(DOCTORS[0], cancel(uid("seat 0")))
    lost, won, cancelled = await desk.settle(loses, refused, gone)
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert isinstance(won, s.Answer) and isinstance(cancelled, s.Answer)
    await audit(world, [desk.hosts[DOCTORS[0]], other.hosts[DOCTORS[1]]], [0, 1])
