"""The random days of test_waiting_room.py on a hosted room: a whole shard with its journal, timers and feed.

Everything that holds of the pure room must hold of what the feed tells of the hosted one; and after
every step the actor's state, its replay and the ticket table are one. Commands are answered as the pure room
decides them, with nothing between but doors that are filled.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from actors.timers import Timers
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.policy import Policy
from engine.domain.queue_order import Rules
from engine.domain.refusal import Refusal
from engine.domain.waiting_terms import WaitingTerms, WalkIns
from tests.property.test_waiting_room import ROOMS, RULES, START, Day
from tests.support.rooms import (
    Listener,
    ask_room,
    bury,
    check_room,
    history,
    host_of,
    publish_room,
    time_comes,
)
from tests.support.stores import LAVISH, Clock, MemoryWorld, PostgresWorld, Served

T = TypeVar("T")
DAY = "2027-01-15"
GENERAL_PREFIX = "G"  # those of Day's own queues are T, A and P


def policy(rules: Rules) -> Policy:
    return replace(LAVISH, waiting={"": WaitingTerms(rules, walk_ins=WalkIns(general_prefix=GENERAL_PREFIX))})


async def _nobody_looks(*_: object) -> None:
    """In place of the timers' own watch, which goes by the wall's clock: see `let_time_come`."""
    await asyncio.Event().wait()


class HostedDay(Day):
    """`room` is what a gateway knows: a copy that is played from the feed alone."""

    open_world: Callable[[], MemoryWorld | PostgresWorld]
    numbers = itertools.count(304)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = type(self).open_world()
        self.key = RoomKey(f"{next(self.numbers):04}", DAY)
        self.coming: list[w.Event] = []
        """Told, and not played into the copy yet: doors that were filled after the last command."""

    def teardown(self) -> None:
        super().teardown()
        if isinstance(self.world, PostgresWorld):
            self.wait(self.world.close())
        self.runner.close()

    def wait(self, wanted: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(wanted)

    @initialize(rules=st.sampled_from(RULES))
    def open(self, rules: Rules) -> None:
        self.rule_book = rules
        self.world.clock.ms = self.now
        self.wait(publish_room(self.world, self.key))
        self.start_shard()
        for queue_id, kind, prefix, first, who in (
            ("triage", "triage", "T", 1, ""),
            ("common", "visit", "A", 5, ""),
            ("own", "visit", "A", 25, "d1"),
            ("pharmacy", "pharmacy", "P", 1, ""),
        ):
            self.run(w.SetQueue(self.command_id(), queue_id, kind, prefix, first, first + 12, who))
        self.run(w.OpenRoom(self.command_id(), "r1", ("own", "common"), "d1"))
        self.run(w.OpenRoom(self.command_id(), "r2", ("common",), "d2"))

    def start_shard(self) -> None:
        run, Timers.run = Timers.run, _nobody_looks  # type: ignore[method-assign]
        try:
            self.served = self.wait(Served.open(self.world, policy=policy(self.rule_book)))
        finally:
            Timers.run = run  # type: ignore[method-assign]
        self.listener = Listener(self.served)
        self.heard_events, self.heard_before = 0, len(self.journal)

    # Where the pure day decides, the hosted one is asked.

    def command_id(self) -> bytes:
        """Of this room alone: the journal may be shared with the rooms of other examples."""
        self.ids += 1
        return f"{self.key.department_id}{self.ids:012}".encode()

    def decide(self, command: w.Command) -> list[w.Event] | Refusal:
        return w.decide(self.room, command, self.now, self.rule_book)

    def run(self, command: w.Command) -> list[w.Event] | Refusal:
        if isinstance(command, w.CheckIn):
            booked = self.key.department_id.encode() + command.appointment_id[4:]  # of no other example
            command = replace(command, department_id=self.key.department_id, appointment_id=booked)
        by_time = self.let_time_come()
        if isinstance(command, w.FillDoors | w.PassTime):  # nobody sends these: the shard sees to them
            return by_time
        first = not self.journal
        expected = self.decide(command) if not first else []
        [reply] = self.wait(ask_room(self.served, self.key, command))
        news = self.hear()
        if first:
            assert isinstance(news[0], w.DayOpened) and news[-1].command_id == command.command_id
            expected = news
        what = [] if isinstance(expected, Refusal) else expected
        assert news[: len(what)] == what
        for event in what:
            self.happen(event)
        self.coming = news[len(what) :]
        assert all(isinstance(event, w.TicketSentToDoor) and not event.by for event in self.coming)
        if isinstance(expected, Refusal):
            assert reply == expected
            return expected
        assert isinstance(reply, w.Told) and reply.seen == len(self.journal)
        assert replace(reply, seen=0) == w.reply_to(self.room, command)
        again = self.wait(ask_room(self.served, self.key, command))
        assert [replace(told, seen=0) for told in again] == [replace(reply, seen=0)]
        assert again[0].seen == len(self.journal) + len(self.coming) and not self.hear()
        self.last = command, replace(reply, seen=0)
        return expected

    def let_time_come(self) -> list[w.Event]:
        """And what has been told already is played: a copy is a little behind."""
        self.world.clock.ms = self.now
        self.wait(time_comes(self.served))
        doors, self.coming = self.coming, []
        news = self.hear()
        for event in (*doors, *news):
            self.happen(event)
        return news

    def hear(self) -> list[w.Event]:
        """What the feed tells; every event once, in order."""
        self.wait(self.served.unless_dead(self.served.shard._commit.drain()))
        self.wait(self.listener.hear(self.served))
        told = self.listener.rooms.get(self.key.stream, [])
        news = [event for _, event in told[self.heard_events :]]
        self.heard_events = len(told)
        versions = [version - self.heard_before for version, _ in told]
        assert versions == list(range(1, len(told) + 1)), "told twice, or not at all"
        return news

    # What happens to actors.

    @precondition(lambda self: len(self.journal) > 20)
    @rule()
    def the_shard_is_started_anew(self) -> None:
        self.let_time_come()
        old = self.served
        self.start_shard()
        self.wait(bury(old))

    @precondition(lambda self: len(self.journal) > 20)
    @rule()
    def the_actor_rests(self) -> None:
        """Where nothing is to come of it but by somebody's asking."""
        self.let_time_come()
        host = host_of(self.served, self.key) if self.key.stream in self.served.shard._hosts else None
        if host is not None and host.is_idle:
            assert w.next_wake(host.state, self.rule_book) is None
            del self.served.shard._hosts[self.key.stream]

    @precondition(lambda self: len(self.journal) > 20)
    @rule(many=st.integers(2, 8), room=st.sampled_from(ROOMS))
    def consoles_race(self, many: int, room: str) -> None:
        """In one batch: one wins at the most."""
        self.let_time_come()
        place = self.room.rooms.get(room)
        version = 0 if place is None else place.version
        calls = [w.CallNext(self.command_id(), room, "nurse", version) for _ in range(many)]
        replies = self.wait(ask_room(self.served, self.key, *calls))
        self.coming = self.hear()
        self.let_time_come()
        won = [n for n, reply in enumerate(replies) if isinstance(reply, w.Told)]
        assert len(won) <= 1
        if won:
            assert self.room.rooms[room].version > version
            again = self.wait(ask_room(self.served, self.key, calls[won[0]]))
            assert again[0].ticket_id == replies[won[0]].ticket_id

    # What a pure day does in two steps, with nobody between them, is not so where doors are filled.

    @rule(room=st.sampled_from(ROOMS))
    def call_next_and_undo(self, room: str) -> None:
        if not self.rule_book.door_cap:
            super().call_next_and_undo.__wrapped__(self, room)  # type: ignore[attr-defined]

    @rule()
    def fill_doors(self) -> None:
        self.let_time_come()

    @rule()
    def a_lost_console_asks_again(self) -> None:
        if self.last is not None:
            command, told = self.last
            [again] = self.wait(ask_room(self.served, self.key, command))
            assert replace(again, seen=0) == told, "another answer than the first one"
            assert not self.hear()

    # What must hold at any time, beside all that holds of the pure day.

    def check_invariants(self, *args: object) -> None:
        if self.journal:
            self.let_time_come()
        super().check_invariants(*args)  # type: ignore[misc]
        if self.journal:
            self.stores_agree()

    def stores_agree(self) -> None:
        if self.key.stream in self.served.shard._hosts:
            host = host_of(self.served, self.key)
            assert host.state == self.room, "the copy is not the actor"
            assert host.version == host.applied == len(self.journal) and not host.unsettled
        assert self.wait(history(self.world, self.key)) == self.journal
        self.wait(check_room(self.world, self.key, self.room))


def open_memory() -> MemoryWorld:
    return MemoryWorld(Clock(START))


class InMemory(HostedDay):
    open_world = staticmethod(open_memory)


def test_random_days_in_memory() -> None:
    run_state_machine_as_test(
        InMemory,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_days_in_postgresql(database: str) -> None:
    class InPostgres(HostedDay):
        open_world = staticmethod(lambda: PostgresWorld(database, Clock(START)))

    run_state_machine_as_test(
        InPostgres,
        settings=settings(
            max_examples=6,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
