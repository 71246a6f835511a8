"""The day of clinic_day.py on the hosted system: a whole shard over the journal in memory, in virtual time.

    python -m tests.simulation.hosted_clinic_day [SEED [DAYS]]

People and consoles are answered by the shard; what they know of the room is a copy that is played from the
feed. Doors are filled and calls lapse by the shard's own doing, and some times a day another shard takes over
without a word. At the end the copy, the actor, its journal and the ticket table must be one.
"""

import asyncio
import sys
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar, cast

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.queue_order import Rules
from engine.domain.refusal import Reason, Refusal
from engine.domain.room_plan import GENERAL, RoomPlan
from engine.domain.waiting_terms import WaitingTerms, WalkIns
from tests.simulation.clinic_day import DAY, HOUR, MIDNIGHT, ClinicDay, Result, packed, rules_of
from tests.support.rooms import Listener, ask_room, bury, check_room, host_of
from tests.support.stores import LAVISH, Clock, MemoryWorld, Served
from tests.support.virtual_time import VirtualLoop

T = TypeVar("T")
KEY = RoomKey("0304", DAY)
TICK_SECONDS = 0.3  # a little more than the shard's timers take to look


class HostedClinicDay(ClinicDay):
    common = GENERAL

    def __init__(self, seed: int, rules: Rules) -> None:
        super().__init__(seed, rules)
        self.loop = VirtualLoop()
        self.world = MemoryWorld(Clock(self.now))
        closes_at = MIDNIGHT + 13 * HOUR
        self.world.store.room_plans[KEY.stream] = RoomPlan(KEY.department_id, KEY.day, closes_at)
        terms = WaitingTerms(rules, walk_ins=WalkIns(general_prefix="G"))
        self.policy = replace(LAVISH, waiting={"": terms})
        self.shards: list[Served] = []
        self.take_over()

    def wait(self, wanted: Awaitable[T]) -> T:
        return self.loop.run_until_complete(wanted)

    def take_over(self) -> None:
        """By another shard. The one before it is a zombie now, and is not asked any more."""
        self.served = self.wait(Served.open(self.world, policy=self.policy))
        self.shards.append(self.served)
        self.listener = Listener(self.served)
        self.heard = 0

    def run(self, command: w.Command) -> w.Told | Reason:
        if isinstance(command, w.OpenDay):
            return w.Told()  # as it was published
        self.world.clock.ms = self.now + self.chance.randint(-2_000, 0)
        if isinstance(command, w.FillDoors | w.PassTime):
            self.wait(asyncio.sleep(TICK_SECONDS))  # the shard sees to it
            self.hear()
            return w.Told()
        if self.chance.random() < 0.003:
            self.take_over()
        told = self.ask(command)
        self.hear()
        if isinstance(told, Refusal):
            self.result.refused[told.reason] += 1
            return told.reason
        if self.chance.random() < 0.05:
            if self.chance.random() < 0.2:
                self.take_over()
            before = len(self.journal)
            again = self.ask(command)
            self.hear()
            assert not isinstance(again, Refusal) and replace(again, seen=told.seen) == told
            assert all(kind is w.TicketSentToDoor for kind, _ in self.journal[before:])
        if self.chance.random() < 0.3:
            self.look()
        return told

    def ask(self, command: w.Command) -> w.Told | Refusal:
        [told] = self.wait(ask_room(self.served, KEY, command))
        return cast(w.Told | Refusal, told)

    def hear(self) -> None:
        """What happened is what the feed tells."""
        self.wait(self.served.unless_dead(self.served.shard._commit.drain()))
        self.wait(self.listener.hear(self.served))
        told = self.listener.rooms.get(KEY.stream, [])
        for version, event in told[self.heard :]:
            assert version == len(self.journal) + 1, "told twice, or not at all"
            if isinstance(event, w.TicketCalled):
                self.count_overtaken(event)
            w.apply(self.room, event)
            self.journal.append((type(event), packed(event)))
            self.check()
            self.count_anew(event)
        self.heard = len(told)

    def finish(self) -> None:
        super().finish()
        assert not self.served.deaths
        self.wait(self.served.shard._activate({KEY.stream}))
        host = host_of(self.served, KEY)
        assert host.state == self.room and host.version == len(self.journal)
        self.wait(check_room(self.world, KEY, self.room))
        told = {key for kind, key in self.world.store.errands if kind == "attendance"}
        booked = {t.appointment_id.hex() for t in self.room.tickets.values() if t.appointment_id}
        assert told == booked, "somebody's day was never told that he came"
        assert self.world.store.epochs[0] == len(self.shards)

    def close(self) -> None:
        for served in self.shards:
            self.wait(bury(served))
        self.loop.close()


def play(seed: int, rules: Rules | None = None) -> Result:
    """A day of this seed. Whatever goes wrong, the seed is told."""
    day = HostedClinicDay(seed, rules or rules_of(seed))
    try:
        return day.play()
    except BaseException:
        print(
            f"hosted clinic day failed: python -m tests.simulation.hosted_clinic_day {seed}", file=sys.stderr
        )
        raise
    finally:
        day.close()


if __name__ == "__main__":
    start = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    for each in range(start, start + (int(sys.argv[2]) if len(sys.argv) > 2 else 1)):
        print(play(each))
