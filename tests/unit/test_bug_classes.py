"""The bugs that booking systems of this kind have had, each put into ours: the checker must go red.

A row of BUGS is a bug as it was seen in the field, the mutant that puts it into our code, and the checker
that is green without it. A mutant changes the source of one function (`rewrite`, which fails when that text
is no longer there) or replaces one; asserts in `apply` are taken out first where they would stop the bug
before the checker sees it, because it is the checker that is tried here.
"""

import asyncio
import contextlib
import inspect
import itertools
import textwrap
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from actors.feed import Changes
from actors.host import Host
from actors.shard import Shard
from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.refusal import Reason, Refusal
from engine.journal.group_commit import GroupCommit, Work
from engine.journal.memory import MemoryJournal
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    Clock,
    Desk,
    Died,
    MemoryWorld,
    Served,
    audit,
    cancel,
    doctor,
    hold,
    plan,
    uid,
)
from tests.support.virtual_time import run

ONE, TWO = doctor(1), doctor(2)
PATIENTS = [uid("patient", n) for n in range(12)]
Patch = pytest.MonkeyPatch


# Checkers. Each is an honest history, and what must be true of it.


async def world_of(*capacities: int) -> MemoryWorld:
    world = MemoryWorld(Clock(1_800_000_000_000))
    for key in (ONE, TWO):
        await world.publish(key, plan(world.clock() + HOUR, *capacities))
    return world


async def a_seat_is_sold_once() -> None:
    """Twelve want one of two seats at once."""
    world = await world_of(2)
    desk = await Desk.open(world, 0, ONE)
    replies = await desk.ask(ONE, *(hold(uid("a", n), p) for n, p in enumerate(PATIENTS)))
    told = [reply for reply in replies if isinstance(reply, s.Answer)]
    assert len(told) <= 2, f"{len(told)} were told that they have one of 2 seats"
    assert len({answer.number for answer in told}) == len(told), "two have the same number"
    assert len(told) == 2, "a seat stayed free although somebody wanted it"
    await audit(world, list(desk.hosts.values()), [0])


async def numbers_are_unique_also_after_a_cancel() -> None:
    world = await world_of(3)
    desk = await Desk.open(world, 0, ONE)
    replies = await desk.ask(ONE, *(hold(uid("a", n), PATIENTS[n]) for n in range(3)))
    await desk.ask(ONE, cancel(uid("a", 0)))
    replies += await desk.ask(ONE, hold(uid("a", 3), PATIENTS[3]))
    numbers = Counter(r.number for r in replies[1:] if isinstance(r, s.Answer))
    assert max(numbers.values()) == 1, f"numbers given twice: {numbers}"
    assert set(numbers) <= {1, 2, 3}
    await audit(world, list(desk.hosts.values()), [0])


async def a_second_cancel_frees_nobody_elses_seat() -> None:
    world = await world_of(1)
    desk = await Desk.open(world, 0, ONE)
    await desk.ask(ONE, hold(uid("a"), PATIENTS[0]))
    await desk.ask(ONE, cancel(uid("a")))
    await desk.ask(ONE, hold(uid("b"), PATIENTS[1]))
    await desk.ask(ONE, cancel(uid("a")))
    assert await desk.ask(ONE, hold(uid("c"), PATIENTS[2])) == [Refusal(Reason.SLOT_FULL)]
    await audit(world, list(desk.hosts.values()), [0])


async def a_double_click_is_one_booking() -> None:
    world = await world_of(3)
    desk = await Desk.open(world, 0, ONE)
    clicks = [hold(uid("a"), PATIENTS[0])] * 2
    first, second = await desk.ask(ONE, *clicks)
    [third] = await desk.ask(ONE, clicks[0])
    assert first == second == third, "the second click learns something else"
    assert seats.remaining(desk.hosts[ONE].state.slots["0800"]) == 2, "a click cost a seat"
    await audit(world, list(desk.hosts.values()), [0])


async def one_of_two_racing_shards_wins() -> None:
    """Both have looked, and both saw nothing."""
    world = await world_of(2)
    left, right = await Desk.open(world, 0, ONE), await Desk.open(world, 1, TWO)
    [a], [b] = await asyncio.gather(
        left.ask(ONE, hold(uid("a"), PATIENTS[0])), right.ask(TWO, hold(uid("b"), PATIENTS[0]))
    )
    assert sum(isinstance(reply, s.Answer) for reply in (a, b)) == 1, "both got one patient's one number"
    await audit(world, [left.hosts[ONE], right.hosts[TWO]], [0, 1])


async def whoever_takes_over_knows_every_booking() -> None:
    """The old process writes once more while the new one starts."""
    world = await world_of(1)
    old = await Desk.open(world, 0, ONE)
    await old.ask(ONE, cancel(uid("nobody")))
    journal = await world.journal(0)
    load, take_over = journal.load, journal.take_over

    async def last_words() -> None:
        """In truth this may happen at any moment; here it does at the worst one that the order leaves."""
        with contextlib.suppress(Died):
            await old.ask(ONE, hold(uid("a"), PATIENTS[0]))

    journal.load = then(load, last_words)  # type: ignore[method-assign]
    journal.take_over = then(take_over, last_words)  # type: ignore[method-assign]
    await world.register([(ACCOUNT, patient) for patient in PATIENTS])
    new = Served(journal, await world.reads(), world.clock)
    await new.shard.start()
    await new.ask(ONE, hold(uid("b"), PATIENTS[1]))
    await audit(world, list(new.shard._hosts.values()), [0])


def then(first: Callable[..., Awaitable[Any]], second: Callable[[], Awaitable[None]]) -> Any:
    async def both(*arguments: Any) -> Any:
        result = await first(*arguments)
        await second()
        return result

    return both


async def whoever_reads_the_feed_knows_what_is_free() -> None:
    world = await world_of(1)
    await world.register([(ACCOUNT, patient) for patient in PATIENTS])
    served = await Served.open(world)
    at = served.shard.feed.epoch, served.shard.feed.seq
    await served.ask(ONE, hold(uid("a"), PATIENTS[0]))
    await served.ask(ONE, cancel(uid("a")))
    news = Changes.unpack(await served.shard.changes(*at))
    slot = served.shard._hosts[ONE.stream].state.slots["0800"]
    assert news.remaining == {ONE.slot_id("0800"): seats.remaining(slot)} == {ONE.slot_id("0800"): 1}


async def a_seat_whose_hold_has_ended_is_sold_again() -> None:
    world = await world_of(1)
    desk = await Desk.open(world, 0, ONE)
    await desk.ask(ONE, hold(uid("a"), PATIENTS[0], seconds=60))
    world.clock.advance(seconds=60)
    [reply] = await desk.ask(ONE, hold(uid("b"), PATIENTS[1]))
    assert isinstance(reply, s.Answer), f"{reply} while the seat is free"


async def a_seat_that_lost_its_claim_is_sold_to_who_waited() -> None:
    world = await world_of(1)
    left, right = await Desk.open(world, 0, ONE), await Desk.open(world, 1, TWO)
    await right.ask(TWO, hold(uid("first"), PATIENTS[0]))
    lost, waited = await left.ask(ONE, hold(uid("a"), PATIENTS[0]), hold(uid("b"), PATIENTS[1]))
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert isinstance(waited, s.Answer), f"{waited} while the seat is free"


async def no_answer_comes_before_the_commit() -> None:
    world = await world_of(1)
    desk = await Desk.open(world, 0, ONE)
    for command in (hold(uid("a"), PATIENTS[0]), hold(uid("b"), PATIENTS[1])):
        done = desk.submit(ONE, command)
        assert not done.done() or world.store.events, "answered, and nothing is committed"
    await desk.drain()


# Mutants.


def rewrite(patch: Patch, where: Any, name: str, *changes: tuple[str, str]) -> None:
    """The function with this text changed to that, in its own module's world."""
    function = getattr(where, name)
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        assert old in source, f"{name} no longer says {old!r}: mutate it anew"
        source = source.replace(old, new)
    install(patch, where, name, function, source)


def install(patch: Patch, where: Any, name: str, function: Any, source: str, optimize: int = 0) -> None:
    made: dict[str, Any] = {}
    exec(compile(source, f"<mutant of {name}>", "exec", optimize=optimize), function.__globals__, made)
    patch.setattr(where, name, made[name])


def careless(patch: Patch) -> None:
    """`apply` without its asserts."""
    for name in ("_apply_held", "_apply_released", "_apply_restored"):
        function = getattr(s, name)
        install(patch, s, name, function, inspect.getsource(function), optimize=1)


def absolute_write_of_a_stale_count(patch: Patch) -> None:
    """taken = what it was when the batch began, plus mine."""
    careless(patch)
    apply = s.apply
    read: dict[int, int] = {}

    def stale(schedule: s.Schedule, event: s.Event) -> None:
        if not isinstance(event, s.SeatHeld):
            return apply(schedule, event)
        slot = schedule.slots[event.clock]
        before = read.setdefault(id(slot), slot.taken)
        apply(schedule, event)
        slot.taken = before | 1 << event.seat
        return None

    patch.setattr(s, "apply", stale)


def read_before_the_lock(patch: Patch) -> None:
    start = Shard.start

    async def load_then_fence(shard: Shard) -> None:
        await shard._activate({ONE.stream})
        await start(shard)

    patch.setattr(Shard, "start", load_then_fence)


def check_then_insert(patch: Patch) -> None:
    """The facts were asked before; the write asks nothing."""
    patch.setattr(MemoryJournal, "_why_not", lambda journal, entry: None)


def decided_before(patch: Patch, decide: Callable[[s.Schedule, Any, int], Any]) -> None:
    """Decides at once, and goes on after others have had their turn."""
    submit, real = GroupCommit.submit, s.decide
    decided: dict[s.Command, Any] = {}

    def later(commit: GroupCommit, work: Work) -> None:
        decided[work.command] = decide(work.actor.state, work.command, work.now)  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_soon(submit, commit, work)

    patch.setattr(GroupCommit, "submit", later)
    patch.setattr(s, "decide", lambda *asked: decided.pop(asked[1], None) or real(*asked))


def await_between_decide_and_apply(patch: Patch) -> None:
    careless(patch)
    decided_before(patch, s.decide)


def get_then_decr(patch: Patch) -> None:
    """Reads the count, waits, and takes one off it without looking again: DECR has no floor."""
    careless(patch)
    decide = s.decide
    taken = itertools.count()

    def on_the_count(state: s.Schedule, command: Any, now: int) -> Any:
        outcome = decide(state, command, now)
        if isinstance(outcome, Refusal):
            return outcome
        return [replace(event, seat=next(taken)) for event in outcome]

    decided_before(patch, on_the_count)


def hold_key_that_includes_the_user(patch: Patch) -> None:
    """Looks only at seats that this very patient holds."""
    careless(patch)
    rewrite(patch, s, "_hold_seat", ("among = open_seats & seats.free(slot)", "among = 1"))


def count_plus_one_numbers(patch: Patch) -> None:
    rewrite(
        patch,
        s,
        "answer",
        (
            "number_of(schedule.slots[appointment.clock], appointment.seat)",
            "sum(x.status <= Status.FULFILLED for x in schedule.appointments.values())",
        ),
    )


def unlocked_decrement_on_cancel(patch: Patch) -> None:
    """Every cancel gives a seat back, also the second one."""
    careless(patch)
    rewrite(patch, s, "_cancel", ("if appointment.status in (Status.CANCELLED, Status.NOSHOW):\n        return []", "pass"))
    apply = s.apply

    def tolerant(schedule: s.Schedule, event: s.Event) -> None:
        if isinstance(event, s.SeatReleased):
            a = schedule.appointments[event.appointment_id]
            schedule.active.setdefault(s._active_key(a.patient_id, schedule.slots[a.clock]), a.patient_id)
        apply(schedule, event)

    patch.setattr(s, "apply", tolerant)


def double_submit(patch: Patch) -> None:
    """A command's id is not looked up."""
    careless(patch)
    rewrite(
        patch,
        s,
        "_hold_seat",
        ("known = schedule.appointments.get(command.appointment_id)", "known = None"),
        ("owner = schedule.active.get(_active_key(command.patient_id, slot))", "owner = None"),
    )


def stale_cache(patch: Patch) -> None:
    """What is given back is not told."""
    touched = s.slots_touched
    patch.setattr(
        s, "slots_touched", lambda x, event: [] if isinstance(event, s.SeatReleased) else touched(x, event)
    )
    remaining = seats.remaining_by_share
    seen: dict[int, int] = {}

    def cached(slot: seats.Slot) -> int:
        seen[id(slot)] = min(remaining(slot), seen.get(id(slot), slot.capacity))
        return seen[id(slot)]

    patch.setattr("actors.shard.remaining_by_share", cached)


def refusing_until_the_sweeper_comes(patch: Patch) -> None:
    rewrite(patch, s, "_hold_seat", ("if until > now:\n", "if True:\n"))


def refusing_for_a_seat_that_was_never_sold(patch: Patch) -> None:
    """Nobody is asked again after a claim was lost."""
    settle = Host.settle
    settled: set[Work] = set()

    def once(host: Host, work: Work) -> None:
        if work not in settled:
            settled.add(work)
            settle(host, work)
        else:
            work.reply = Refusal(Reason.SLOT_FULL)

    patch.setattr(Host, "settle", once)


def answer_before_the_commit(patch: Patch) -> None:
    def submit(commit: GroupCommit, work: Work) -> None:
        work.actor.settle(work)
        assert work.reply is not None
        work.done.set_result(work.reply)

    patch.setattr(GroupCommit, "submit", submit)


@dataclass(frozen=True)
class Bug:
    name: str
    seen_in: str  # FIELD.md section 3
    mutant: Callable[[Patch], None]
    checker: Callable[[], Any]


BUGS = [
    Bug("absolute write of a stale count", "NH AN YY", absolute_write_of_a_stale_count, a_seat_is_sold_once),
    Bug("object read before the lock", "CA", read_before_the_lock, whoever_takes_over_knows_every_booking),
    Bug("check-then-insert", "EA BQ FR OT HM", check_then_insert, one_of_two_racing_shards_wins),
    Bug("GET then DECR", "DV", get_then_decr, a_seat_is_sold_once),
    Bug("hold key that includes the user", "CC", hold_key_that_includes_the_user, a_seat_is_sold_once),
    Bug("count()+1 numbers", "OQ FR", count_plus_one_numbers, numbers_are_unique_also_after_a_cancel),
    Bug(
        "unlocked decrement on cancel",
        "CA",
        unlocked_decrement_on_cancel,
        a_second_cancel_frees_nobody_elses_seat,
    ),
    Bug("double submit", "ZM", double_submit, a_double_click_is_one_booking),
    Bug(
        "stale cache says sold out",
        "HI",
        stale_cache,
        whoever_reads_the_feed_knows_what_is_free,
    ),
    Bug(
        "refusing while stock remains: the sweeper is awaited",
        "yoyaku",
        refusing_until_the_sweeper_comes,
        a_seat_whose_hold_has_ended_is_sold_again,
    ),
    Bug(
        "refusing while stock remains: a lost claim's seat",
        "yoyaku",
        refusing_for_a_seat_that_was_never_sold,
        a_seat_that_lost_its_claim_is_sold_to_who_waited,
    ),
    Bug(
        "await between decide and apply",
        "12 of 12 trials",
        await_between_decide_and_apply,
        a_seat_is_sold_once,
    ),
    Bug("answer before the commit", "law 2", answer_before_the_commit, no_answer_comes_before_the_commit),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_engine_does_not_have_the_bug(bug: Bug) -> None:
    run(bug.checker())


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_checker_sees_the_bug(bug: Bug, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        bug.mutant(patch)
        with pytest.raises((AssertionError, Died)) as red:
            run(bug.checker())
    assert "mutate it anew" not in str(red.value)
    run(bug.checker())  # and the mutant is gone again
