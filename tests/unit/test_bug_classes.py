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
from actors.schedules import Schedules
from actors.shard import Shard
from engine.domain import schedule as s
from engine.domain import seats
from engine.domain.policy import Policy, Return, Returned, Terms
from engine.domain.refusal import Reason, Refusal
from engine.journal import journal
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

ONE, TWO, THREE = doctor(1), doctor(2), doctor(3)
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


# Of a number's whole life.

OLD, NEW = uid("old"), uid("new")
HELD = s.HoldSeat(NEW, "0830", PATIENTS[0], ACCOUNT, 60, replaces=OLD, waives=1, changes=1)


async def changing(*keys: Any) -> tuple[MemoryWorld, Desk, Desk]:
    """OLD is booked at ONE, NEW is held at TWO to replace it."""
    world = await world_of(1, 1)
    await world.publish(THREE, plan(world.clock() + 5 * HOUR, 1))
    left, right = await Desk.open(world, 0, ONE, *keys), await Desk.open(world, 1, TWO)
    await left.ask(ONE, hold(OLD, PATIENTS[0]))
    await left.ask(ONE, s.ConfirmAppointment(OLD, ACCOUNT))
    await right.ask(TWO, HELD)
    return world, left, right


def leaving(world: MemoryWorld) -> s.LeaveFor:
    return s.LeaveFor(OLD, NEW, ACCOUNT, "cardio", True, world.store.appointments[NEW].starts_at)


def alive(world: MemoryWorld) -> list[bool]:
    return [world.store.appointments[a].status == s.Status.BOOKED for a in (OLD, NEW)]


async def give_up(world: MemoryWorld, right: Desk) -> None:
    world.clock.advance(seconds=60)
    await right.ask(TWO, s.SettleChange(NEW, False))


async def a_change_is_made_or_given_up() -> None:
    world, left, right = await changing()
    await give_up(world, right)
    assert await left.ask(ONE, leaving(world)) == [Refusal(Reason.CHANGE_GIVEN_UP)]
    assert alive(world) == [True, False]
    await audit(world, [left.hosts[ONE], right.hosts[TWO]], [0, 1])


async def a_seat_that_comes_back_was_not_sold_meanwhile() -> None:
    world, left, right = await changing()
    await give_up(world, right)
    replies = await left.ask(ONE, leaving(world), hold(uid("b"), PATIENTS[1]))
    assert replies == [Refusal(Reason.CHANGE_GIVEN_UP), Refusal(Reason.SLOT_FULL)]
    await audit(world, [left.hosts[ONE], right.hosts[TWO]], [0, 1])


async def a_day_that_comes_back_was_not_claimed_meanwhile() -> None:
    """By the same patient at another actor of the same shard, in the same batch."""
    world, left, right = await changing(THREE)
    await give_up(world, right)
    lost = left.submit(ONE, replace(leaving(world), same_day=False))  # nothing is passed on
    again = left.submit(THREE, hold(uid("again"), PATIENTS[0]))
    assert await left.settle(lost, again) == [Refusal(Reason.CHANGE_GIVEN_UP), Refusal(Reason.ALREADY_BOOKED)]
    await audit(world, [*left.hosts.values(), right.hosts[TWO]], [0, 1])


async def only_the_journal_says_that_the_old_one_was_left() -> None:
    world = await world_of(1, 1)
    await world.register([(ACCOUNT, patient) for patient in PATIENTS])
    served = await Served.open(world)
    await served.ask(ONE, hold(OLD, PATIENTS[0]))
    await served.ask(ONE, s.ConfirmAppointment(OLD, ACCOUNT))
    await served.ask(TWO, HELD)
    await served.ask(TWO, s.SettleChange(NEW, True))
    assert alive(world) == [True, False]
    await served.stop()


async def an_offer_that_is_named_by_a_fate_can_be_taken_up() -> None:
    world, left, right = await changing()
    off = s.SetSessionStatus(uid("off"), -1, "staff:1", "", "morning", "suspended", "ill")
    await left.ask(ONE, off)
    await left.ask(ONE, s.DecideFate(OLD, "offered", NEW))
    await left.ask(ONE, leaving(world))
    await right.ask(TWO, s.SettleChange(NEW, True))
    assert alive(world) == [False, True]
    await audit(world, [left.hosts[ONE], right.hosts[TWO]], [0, 1])


async def nobody_is_booked_into_a_session_that_is_called_off_and_forgotten() -> None:
    world, left, right = await changing()
    off = s.SetSessionStatus(uid("off"), -1, "staff:1", "", "morning", "suspended", "ill")
    await right.ask(TWO, off)
    await left.ask(ONE, leaving(world))
    await right.ask(TWO, s.SettleChange(NEW, True))
    assert ("rehome", NEW.hex()) in world.store.errands, "nobody looks after it"


def joining(world: MemoryWorld, seed: str) -> s.JoinWaitlist:
    now = world.clock()
    return s.JoinWaitlist(uid("wish"), ACCOUNT, (PATIENTS[0],), (), 0, now, now + HOUR, uid(seed))


async def a_wish_has_offers_at_one_actor_at_a_time() -> None:
    world = await world_of(1)
    for key in (ONE, TWO):  # of two departments: no other claim is in the way
        at = world.clock() + (3 if key == ONE else 4) * HOUR
        await world.publish(key, plan(at, 1, department=key.practitioner_id))
    left, right = await Desk.open(world, 0, ONE), await Desk.open(world, 1, TWO)
    for key, desk in ((ONE, left), (TWO, right)):
        await desk.ask(key, joining(world, key.practitioner_id))
    await asyncio.gather(left.ask(ONE, s.OfferSeats()), right.ask(TWO, s.OfferSeats()))
    offers = [row for row in world.store.appointments.values() if row.status == s.Status.PENDING]
    assert len(offers) == 1, "offered twice"
    await audit(world, [left.hosts[ONE], right.hosts[TWO]], [0, 1])


async def a_wish_that_has_ended_does_not_wait_again() -> None:
    world = await world_of(1)
    await world.publish(ONE, plan(world.clock() + 3 * HOUR, 1))
    desk = await Desk.open(world, 0, ONE)
    join = joining(world, "seed")
    await desk.ask(ONE, join, s.LeaveWaitlist(join.wish_id, "withdrawn"))
    [reply] = await desk.ask(ONE, join)
    assert reply == s.Waiting(join.wish_id, 0, 0)


async def no_capacity_falls_below_what_is_sold() -> None:
    world = await world_of(2)
    desk = await Desk.open(world, 0, ONE)
    await desk.ask(ONE, hold(uid("a"), PATIENTS[0]))
    shrink = s.ChangeCapacity(uid("cut"), -1, "staff:1", "", "morning", "", -2)
    [reply] = await desk.ask(ONE, shrink)
    assert reply == Refusal(Reason.BELOW_SOLD, {"clock": "0800", "sold": 1})
    await audit(world, list(desk.hosts.values()), [0])


async def two_desks_that_add_seats_add_both() -> None:
    world = await world_of(2)
    desk = await Desk.open(world, 0, ONE)
    adds = [s.AddSeats(uid("add", n), -1, "staff:1", "", "0800", 1, 0) for n in range(2)]
    await desk.ask(ONE, *adds)
    assert desk.hosts[ONE].state.slots["0800"].capacity == 4
    await audit(world, list(desk.hosts.values()), [0])


async def a_returned_seat_is_nobodys_before_it_has_cooled() -> None:
    world = await world_of(1)
    policy = Policy(terms={("", ""): Terms(returned=Returned(Return.COOL_DOWN, 60))})
    desk = await Desk(await world.journal(0), world.clock, policy).start(ONE)
    await desk.ask(ONE, hold(uid("a"), PATIENTS[0]))
    await desk.ask(ONE, cancel(uid("a")))
    world.clock.advance(ms=59_999)
    assert await desk.ask(ONE, hold(uid("b"), PATIENTS[1])) == [Refusal(Reason.SLOT_FULL)]
    world.clock.advance(ms=1)
    [reply] = await desk.ask(ONE, hold(uid("b"), PATIENTS[1]))
    assert isinstance(reply, s.Answer)
    await audit(world, list(desk.hosts.values()), [0])


def shift(world: MemoryWorld) -> s.MoveSession:
    """Each slot to where the next one was."""
    at = world.clock() + 60_000 * 90
    moves = (("0800", "0830", at), ("0830", "0900", at + HOUR // 2))
    return s.MoveSession(uid("move"), -1, "staff:1", "", "morning", moves, "r2")


async def a_moved_number_takes_its_claims_along() -> None:
    world = await world_of(1, 1)
    await world.publish(THREE, plan(world.clock() + HOUR, 1, department="derma"))
    desk = await Desk.open(world, 0, ONE, THREE)
    await desk.ask(ONE, hold(uid("a"), PATIENTS[0]))
    await desk.ask(ONE, shift(world))
    [reply] = await desk.ask(THREE, hold(uid("b"), PATIENTS[0]))
    assert isinstance(reply, s.Answer), f"{reply}: and nobody is there any more"
    await audit(world, list(desk.hosts.values()), [0])


async def a_seat_that_cools_moves_with_its_slot() -> None:
    world = await world_of(1, 1)
    policy = Policy(terms={("", ""): Terms(returned=Returned(Return.COOL_DOWN, 600))})
    desk = await Desk(await world.journal(0), world.clock, policy).start(ONE)
    for n, clock in enumerate(("0800", "0830")):
        await desk.ask(ONE, hold(uid("a", n), PATIENTS[n], clock))
        await desk.ask(ONE, cancel(uid("a", n)))
    await desk.ask(ONE, shift(world))
    assert set(desk.hosts[ONE].state.cooling) == {("0830", 0), ("0900", 0)}
    await audit(world, list(desk.hosts.values()), [0])


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
    free = "among = open_seats & ~(slot.taken | slot.blocked | slot.cooling)"
    rewrite(patch, s, "_hold_seat", (free, "among = 1"))


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
    guard = "if appointment.status in (Status.CANCELLED, Status.NOSHOW):\n        return []"
    rewrite(patch, s, "_cancel", (guard, "pass"))
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

    patch.setattr("actors.schedules.remaining_by_share", cached)


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


def cooling_seats_renamed_one_by_one(patch: Patch) -> None:
    """What was just renamed is renamed again, over the next one."""
    moved = s._apply_moved

    def one_by_one(schedule: s.Schedule, event: s.SessionMoved) -> None:
        cooling = dict(schedule.cooling)
        moved(schedule, event)
        for old, new, _ in event.moves:
            for clock, seat in list(cooling):
                if clock == old:
                    cooling[new, seat] = cooling.pop((clock, seat))
        schedule.cooling = cooling

    patch.setattr(s, "_apply_moved", one_by_one)


def rewritten(where: Any, name: str, *changes: tuple[str, str]) -> Callable[[Patch], None]:
    def mutant(patch: Patch) -> None:
        careless(patch)
        rewrite(patch, where, name, *changes)

    return mutant


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
    Bug(
        "a change is given up and nobody is told",
        "both or none",
        rewritten(journal, "_enact_release", ("if event.appointment_id in schedule.changes", "if False")),
        a_change_is_made_or_given_up,
    ),
    Bug(
        "a seat is sold that may come back",
        "law 1",
        rewritten(Host, "_enact", ("self._barrier = work", "pass")),
        a_seat_that_comes_back_was_not_sold_meanwhile,
    ),
    Bug(
        "a claim is given on that may come back",
        "law 5",
        rewritten(journal, "_rivals", ("if is_contested(entry)", "if False")),
        a_day_that_comes_back_was_not_claimed_meanwhile,
    ),
    Bug(
        "settled because the caller says so",
        "both",
        rewritten(
            Schedules,
            "_changes_checked",
            ("appointment is not None and old == appointment.replaces", "command.left"),
        ),
        only_the_journal_says_that_the_old_one_was_left,
    ),
    Bug(
        "an offer looks as if it had been taken up",
        "none",
        rewritten(s, "_leave", ('appointment.reason == "changed" and ', "")),
        an_offer_that_is_named_by_a_fate_can_be_taken_up,
    ),
    Bug(
        "booked into a session that is called off",
        "lost",
        rewritten(s, "apply", ('if slot.session.status == "suspended":', "if False:")),
        nobody_is_booked_into_a_session_that_is_called_off_and_forgotten,
    ),
    Bug(
        "offered by two doctors at one time",
        "waitlist",
        rewritten(s, "claims_of", ("if appointment.wish_id:", "if False:")),
        a_wish_has_offers_at_one_actor_at_a_time,
    ),
    Bug(
        "a retry waits again",
        "waitlist",
        rewritten(s, "_join", (" or command.wish_id in schedule.wishes_ended", "")),
        a_wish_that_has_ended_does_not_wait_again,
    ),
    Bug(
        "capacity cut without a look at what is sold",
        "live schedules",
        rewritten(
            s,
            "_change_capacity",
            ("seats.indices(seats.free(slot) | slot.cooling)", "list(range(slot.capacity))"),
        ),
        no_capacity_falls_below_what_is_sold,
    ),
    Bug(
        "absolute write of a capacity",
        "law 10",
        rewritten(seats, "add_seats", ("slot.capacity += count", "slot.capacity += count - len(slot.added)")),
        two_desks_that_add_seats_add_both,
    ),
    Bug(
        "returned to whoever cancelled it",
        "scalpers",
        rewritten(s, "_hold_seat", ("slot.blocked | slot.cooling", "slot.blocked")),
        a_returned_seat_is_nobodys_before_it_has_cooled,
    ),
    Bug(
        "a moved session keeps its old times",
        "live schedules",
        rewritten(journal, "_enact_move", ("if c.scope is Scope.PATIENT_TIME", "if False")),
        a_moved_number_takes_its_claims_along,
    ),
    Bug(
        "slots renamed one by one",
        "live schedules",
        cooling_seats_renamed_one_by_one,
        a_seat_that_cools_moves_with_its_slot,
    ),
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
