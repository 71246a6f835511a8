"""Changes, groups and wishes between two actors of two shards that die at any write, in virtual time.

Whatever was begun, and whoever died: of an old number and the one that it is changed for exactly one lives,
after every single commit never both are booked, a group has all its numbers or none, a wish has offers at one
actor at a time. At the end live, replayed and projected are one, and the claims are what is held.
"""

import asyncio
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.refusal import Reason, Refusal
from engine.journal.journal import Compensate, Entry
from engine.journal.memory import MemoryJournal
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    Clock,
    Died,
    MemoryWorld,
    Reply,
    Served,
    audit,
    cancel,
    confirm,
    doctor,
    hold,
    plan,
    uid,
)
from tests.support.virtual_time import run, virtual

NOW = 1_800_000_000_000
HERE, THERE = doctor(1), doctor(3)  # of two shards
SHARD = {HERE: 1, THERE: 0}
KEYS = [HERE, THERE]
CLOCKS = ["0800", "0830"]
PATIENTS = [uid("patient", n) for n in range(4)]


class LostConnection(Exception):
    pass


@dataclass
class BrittleJournal(MemoryJournal):
    """Takes time to write; fails before or after it has written, when the world says so."""

    def __init__(self, world: "BrittleWorld", shard_id: int) -> None:
        super().__init__(world.store, shard_id, world.clock)
        self.world = world

    async def append(self, entries: list[Entry], compensate: Compensate) -> int:
        fails = self.world.fails.pop(self._shard_id, None)
        await asyncio.sleep(0.005)
        if fails == "before":
            raise LostConnection
        seq = await super().append(entries, compensate)
        try:
            self.world.look()
        except AssertionError as error:  # here it would only kill the shard
            self.world.broken.append(error)
        await asyncio.sleep(0.005)
        if fails == "after":
            raise LostConnection
        return seq


class BrittleWorld(MemoryWorld):
    """Two doctors' shards over one store; a shard that dies is replaced at once."""

    def __init__(self, same_department: bool, same_hours: bool) -> None:
        super().__init__(Clock(NOW))
        self.fails: dict[int, str] = {}
        self.broken: list[AssertionError] = []
        self.shards: dict[int, Served] = {}
        self.departments_of = {HERE: "cardio", THERE: "cardio" if same_department else "derma"}
        self.starts = {HERE: NOW + 2 * HOUR, THERE: NOW + (2 if same_hours else 4) * HOUR}

    async def open(self, capacity: int) -> None:
        for key in KEYS:
            made = plan(self.starts[key], capacity, capacity, department=self.departments_of[key])
            await self.publish(key, made)
        await self.register([(ACCOUNT, patient) for patient in PATIENTS])
        for shard_id in (0, 1):
            self.shards[shard_id] = await Served.open(self, shard_id, shards=2)

    async def journal(self, shard_id: int) -> BrittleJournal:
        return BrittleJournal(self, shard_id)

    async def ask(self, key: ScheduleKey, command: s.Command) -> Reply | None:
        """None: nobody knows. Whoever finds the shard dead starts the next one."""
        served = self.shards[SHARD[key]]
        try:
            [reply] = await served.ask(key, command)
            return reply
        except (Died, LostConnection):
            return None
        finally:
            await self.revive()

    async def revive(self) -> None:
        for shard_id, served in self.shards.items():
            if served.deaths:
                assert "LostConnection" in served.deaths[0], served.deaths
                self.stop(served)
                self.shards[shard_id] = await Served.open(self, shard_id, shards=2)

    def stop(self, served: Served) -> None:
        for task in served.shard._tasks:
            task.cancel()

    def look(self) -> None:
        """After every commit, at whatever moment."""
        rows = self.store.appointments
        for new, (replaces, *_) in self.store.held_for.items():
            if new not in rows or not replaces:
                continue
            old = rows.get(bytes.fromhex(str(replaces)))
            if old is None:
                continue
            both = old.status == s.Status.BOOKED and rows[new].status == s.Status.BOOKED
            assert not both, "the old number and the new one"
            left_for = self.store.successors.get(old.id) == new.hex()
            lapsed = rows[new].status == s.Status.CANCELLED and rows[new].reason == "expired"
            assert not (left_for and old.reason == "changed" and lapsed), "neither the old nor the new one"
        offers: dict[str, set[str]] = {}
        for appointment_id, (_, wish, _, _) in self.store.held_for.items():
            row = rows.get(appointment_id)
            if wish and row is not None and row.status == s.Status.PENDING and row.hold_until > self.clock():
                offers.setdefault(str(wish), set()).add(row.schedule_id)
        assert all(len(places) == 1 for places in offers.values()), "offered at two actors"

    async def quiet(self) -> None:
        """Everything that time brings has come."""
        self.fails = {}
        for _ in range(4):
            await asyncio.sleep(1)
            await self.revive()
            self.clock.advance(seconds=20 * 60)
        await asyncio.sleep(1)
        await self.revive()
        await asyncio.sleep(1)

    async def audit(self) -> None:
        assert not self.broken, self.broken[0]
        self.look()
        hosts = []
        for key in KEYS:
            shard = self.shards[SHARD[key]].shard
            await shard._activate({key.stream})
            hosts.append(shard._hosts[key.stream])
        await audit(self, hosts, [0, 1])

    def close(self) -> None:
        for served in self.shards.values():
            self.stop(served)


@dataclass(frozen=True)
class Step:
    action: str
    key: int
    clock: int
    patient: int
    which: int
    pause_ms: int
    fails: str | None
    wait_s: int


steps = st.builds(
    Step,
    action=st.sampled_from(
        ["book", "begin", "begin", "leave", "leave", "settle", "cancel", "confirm", "group", "wish", "whole"]
    ),
    key=st.integers(0, 1),
    clock=st.integers(0, 1),
    patient=st.integers(0, 3),
    which=st.integers(0, 5),
    pause_ms=st.sampled_from([0, 0, 3, 30, 400]),
    fails=st.sampled_from([None, None, None, "before", "after"]),
    wait_s=st.sampled_from([0, 0, 0, 20, 61]),
)


@dataclass
class Client:
    world: BrittleWorld
    where: dict[bytes, ScheduleKey] = field(default_factory=dict)
    made: list[bytes] = field(default_factory=list)
    begun: list[tuple[bytes, bytes]] = field(default_factory=list)  # old, new
    groups: list[list[bytes]] = field(default_factory=list)
    asked: int = 0

    def new_id(self, key: ScheduleKey) -> bytes:
        self.asked += 1
        made = uid("n", self.asked)
        self.where[made] = key
        return made

    async def step(self, step: Step) -> None:
        world, key, patient = self.world, KEYS[step.key], PATIENTS[step.patient]
        other = KEYS[1 - step.key]
        if step.fails:
            world.fails[SHARD[key]] = step.fails
        match step.action:
            case "book":
                one = self.new_id(key)
                self.made.append(one)
                await world.ask(key, hold(one, patient, CLOCKS[step.clock], seconds=60))
                await world.ask(key, confirm(one))
            case "begin" | "whole" if self.made:
                old = self.made[step.which % len(self.made)]
                if old not in world.store.appointments:
                    return
                new = self.new_id(other if step.which % 3 else self.where[old])
                await self.begin(old, new, CLOCKS[step.clock])
                if step.action == "whole":
                    await self.leave(old, new)
                    await self.settle(new)
            case "leave" if self.begun:
                await self.leave(*self.begun[step.which % len(self.begun)])
            case "settle" if self.begun:
                await self.settle(self.begun[step.which % len(self.begun)][1])
            case "cancel" if self.made:
                one = self.made[step.which % len(self.made)]
                await world.ask(self.where[one], cancel(one))
            case "confirm" if self.made:
                one = self.made[step.which % len(self.made)]
                await world.ask(self.where[one], confirm(one))
            case "group":
                ids = [self.new_id(key), self.new_id(key)]
                self.groups.append(ids)
                pair = patient, PATIENTS[(step.patient + 1) % 4]
                members = tuple(zip(ids, pair, strict=True))
                await world.ask(key, s.HoldGroup(members, CLOCKS[step.clock], ACCOUNT, 60))
            case "wish":
                wish = uid("wish", step.which)
                for n, each in enumerate(KEYS):
                    world.waiting.add(each.schedule_id)
                    many = PATIENTS[step.patient : step.patient + 1 + step.which % 2]
                    await world.ask(
                        each,
                        s.JoinWaitlist(
                            wish,
                            ACCOUNT,
                            tuple(many),
                            (),
                            0,
                            NOW,
                            NOW + HOUR,
                            uid("seed", 10 * step.which + n),
                        ),
                    )
            case _:
                pass

    async def begin(self, old: bytes, new: bytes, clock: str) -> None:
        row = self.world.store.appointments[old]
        self.begun.append((old, new))
        self.made.append(new)
        command = s.HoldSeat(new, clock, row.patient_id, ACCOUNT, 60, replaces=old, changes=1)
        await self.world.ask(self.where[new], command)

    async def leave(self, old: bytes, new: bytes) -> None:
        row = self.world.store.appointments.get(new)
        if row is None:
            return
        here, there = self.where[old], self.where[new]
        command = s.LeaveFor(
            old,
            new,
            ACCOUNT,
            self.world.departments_of[there],
            here.day == there.day,
            row.starts_at,
            "system",
        )
        await self.world.ask(here, command)

    async def settle(self, new: bytes) -> None:
        await self.world.ask(self.where[new], s.SettleChange(new, True))  # whatever the caller says

    def check(self) -> None:
        rows = self.world.store.appointments
        for old, new in self.begun:
            if new not in rows:
                continue
            before, after = rows[old], rows[new]
            assert after.status != s.Status.PENDING, "a change that nobody settled"
            alive = before.status == s.Status.BOOKED, after.status == s.Status.BOOKED
            assert alive != (True, True), "both"
            if before.reason == "changed" and self.world.store.successors[old] == new.hex():
                assert alive[1] or after.reason in ("cancelled", "changed"), "neither"
            if after.status == s.Status.BOOKED:
                assert (before.reason, self.world.store.successors.get(old)) == ("changed", new.hex())
        for ids in self.groups:
            assert len({appointment_id in rows for appointment_id in ids}) == 1, "a part of a group"


async def play(history: list[Step], capacity: int, same_department: bool, same_hours: bool) -> None:
    world = BrittleWorld(same_department, same_hours)
    await world.open(capacity)
    client = Client(world)
    running = []
    for step in history:
        running.append(asyncio.create_task(client.step(step)))
        await asyncio.sleep(step.pause_ms / 1000)
        world.clock.advance(seconds=step.wait_s)
    await asyncio.gather(*running)
    await world.quiet()
    client.check()
    await world.audit()
    world.close()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(st.lists(steps, max_size=14), st.integers(1, 2), st.booleans(), st.booleans())
def test_whatever_dies_nobody_has_both_numbers_or_none(
    history: list[Step], capacity: int, same_department: bool, same_hours: bool
) -> None:
    run(play(history, capacity, same_department, same_hours))


# The moments that a random history seldom meets.


async def begun(same_department: bool = True, same_hours: bool = True) -> tuple[BrittleWorld, Client]:
    """ann has a number HERE and one held THERE that is to replace it."""
    world = BrittleWorld(same_department, same_hours)
    await world.open(2)
    client = Client(world)
    old, new = client.new_id(HERE), client.new_id(THERE)
    await world.ask(HERE, hold(old, PATIENTS[0]))
    await world.ask(HERE, confirm(old))
    await client.begin(old, new, "0800")
    assert world.store.appointments[new].status == s.Status.PENDING
    return world, client


@virtual
async def test_giving_up_and_leaving_at_one_moment_is_decided_by_the_claim() -> None:
    for first, second in (("leave", "expire"), ("expire", "leave")):
        world, client = await begun()
        old, new = client.begun[0]

        async def leave(world: BrittleWorld = world, client: Client = client) -> None:
            await client.leave(*client.begun[0])

        async def expire(world: BrittleWorld = world, new: bytes = new) -> None:
            world.clock.advance(seconds=61)
            await world.ask(THERE, cancel(new))

        doing = {"leave": leave, "expire": expire}
        one = asyncio.create_task(doing[first]())
        await asyncio.sleep(0.001)
        await asyncio.gather(one, doing[second]())
        await world.quiet()
        client.check()
        rows = world.store.appointments
        assert (rows[old].status == s.Status.BOOKED) != (rows[new].status == s.Status.BOOKED)
        await world.audit()
        world.close()


@virtual
async def test_a_seat_that_may_come_back_is_given_to_nobody_before_that_is_known() -> None:
    world, client = await begun()
    old, new = client.begun[0]
    taker = uid("taker")
    await world.ask(HERE, hold(uid("other"), PATIENTS[2]))  # HERE's 0800 is full now
    leave = asyncio.create_task(client.leave(old, new))
    gone = asyncio.create_task(world.ask(THERE, cancel(new)))
    await asyncio.sleep(0.002)
    taken = await world.ask(HERE, hold(taker, PATIENTS[1]))
    await asyncio.gather(leave, gone)
    rows = world.store.appointments
    if rows[old].status == s.Status.BOOKED:
        assert taken == Refusal(Reason.SLOT_FULL)
    else:
        assert isinstance(taken, s.Answer)
    await world.quiet()
    await world.audit()
    world.close()


@virtual
async def test_who_leaves_for_a_number_of_somebody_else_keeps_his_own() -> None:
    world = BrittleWorld(same_department=False, same_hours=False)
    await world.open(2)
    client = Client(world)
    old, new = client.new_id(HERE), client.new_id(THERE)
    await world.ask(HERE, hold(old, PATIENTS[0]))
    await world.ask(HERE, confirm(old))
    client.begun.append((old, new))
    await world.ask(THERE, s.HoldSeat(new, "0800", PATIENTS[1], ACCOUNT, 60, replaces=old))
    await client.leave(old, new)
    assert world.store.appointments[old].status == s.Status.BOOKED
    await world.quiet()
    assert world.store.appointments[new].status == s.Status.CANCELLED
    await world.audit()
    world.close()


@virtual
async def test_a_change_into_a_session_that_is_called_off_meanwhile_is_looked_after() -> None:
    world, client = await begun()
    old, new = client.begun[0]
    off = s.SetSessionStatus(uid("off"), -1, "staff:1", "", "morning", "suspended", "ill")
    await world.ask(THERE, off)
    await client.leave(old, new)
    await client.settle(new)
    assert world.store.appointments[new].status == s.Status.BOOKED
    assert world.store.fates[new] == (s.AFFECTED, None)
    assert ("rehome", new.hex()) in world.store.errands
    await world.audit()
    world.close()
