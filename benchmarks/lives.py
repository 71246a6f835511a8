"""What happens to a number, lived from outside: held, confirmed, cancelled, changed, taken for a family,
waited for, called off. Every life has patients of its own, so each must end with one number or with none.

A life does one thing after the other and writes down what it was told. `benchmarks/verdict.py` asks SQL
afterwards whether that is what became of it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from uuid import UUID

from actors.directory import shard_of
from benchmarks.asking import GIVE_UP_SECONDS, Asking, Said
from benchmarks.peers import data
from engine.domain.ids import ScheduleKey, appointment_id, derived

PAUSE_SECONDS: Final = (0.02, 0.2)  # of a person, between two things
GROUP: Final = 3
WALK_AWAY_SHARE: Final = 0.15  # of those who change: never ask again, whatever came of it
OFFER_LOOKS: Final = 12  # at what became of a number that was called off
OFFER_LOOK_SECONDS: Final = 0.5

PENDING, BOOKED, CANCELLED = 1, 2, 5  # engine/domain/schedule.py Status


class End(Enum):
    """How many numbers each patient of a life must have at the end."""

    ONE = "one"
    NONE = "none"
    EITHER = "either"  # they did not stay to hear it, or the hospital called the session off


@dataclass(frozen=True, slots=True)
class Promise:
    """A number as its patient was told of it."""

    id: UUID
    slot_id: str
    number: int
    statuses: frozenset[int]  # any of these may be in SQL


@dataclass(frozen=True, slots=True)
class Change:
    old: UUID
    new: UUID
    reach: str  # home: the same actor | near: another of the same shard | far: of another shard
    said: Said


@dataclass(frozen=True, slots=True)
class Group:
    members: tuple[UUID, ...]
    said: Said


@dataclass(slots=True)
class Life:
    kind: str
    patients: tuple[str, ...]
    end: End = End.NONE
    promises: dict[UUID, Promise] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """Where lives are lived: slots by what they are for."""

    people: data.People
    shards: int
    open: list[str]  # with room for everybody
    called_off: dict[str, list[str]]  # schedule -> its slots, until it is called off
    full: dict[str, tuple[str, list[str]]]  # practitioner -> (day, slots): one number each
    filled: list[str]  # slots of one number that are taken at first
    lives: list[Life] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    wishes: list[tuple[UUID, Said]] = field(default_factory=list)
    next_patient: int = 0

    def take(self, number: int = 1) -> tuple[str, bytes, tuple[str, ...]]:
        """Token, account and so many patients of it who have never done anything."""
        size = data.PATIENTS_PER_ACCOUNT
        if self.next_patient % size + number > size:
            self.next_patient += size - self.next_patient % size
        first = self.next_patient
        self.next_patient += number
        account, _ = self.people.patients[first]
        patients = tuple(patient for _, patient in self.people.patients[first : first + number])
        return self.people.tokens[account], data.account_id(account), patients

    def elsewhere(self, slot: str, reach: str) -> str:
        """An open slot that is so far from this one."""
        return random.choice(
            [other for other in self.open if other != slot and self._reach(slot, other) == reach]
        )

    def _reach(self, slot: str, other: str) -> str:
        here, there = _stream(slot), _stream(other)
        if here == there:
            return "home"
        return "near" if shard_of(here, self.shards) == shard_of(there, self.shards) else "far"


def _stream(slot: str) -> str:
    found = ScheduleKey.of_slot(slot)
    assert found is not None
    return found[0].stream


class Living:
    """One life, by one client."""

    def __init__(self, asking: Asking, world: World, number: int, kind: str, patients: int = 1) -> None:
        self._asking = asking
        self._world = world
        self._number = number
        self._token, self._account, mine = world.take(patients)
        self.life = Life(kind, mine)
        world.lives.append(self.life)

    def _key(self, step: str) -> str:
        return f"chaos-{self._number}-{step}"

    async def _pause(self) -> None:
        await asyncio.sleep(random.uniform(*PAUSE_SECONDS))

    async def _hold(self, slot: str) -> UUID | None:
        body = {"slot_id": slot, "patient_id": self.life.patients[0]}
        self.life.end = End.EITHER
        said = await self._asking.ask(
            "hold", self._token, "POST", "/api/v1/appointments", body, self._key("hold"), about=_stream(slot)
        )
        if said.status != 201:
            self.life.end = End.NONE if said.is_known else End.EITHER
            return None
        self.life.end = End.ONE
        id_ = UUID(said.body["id"])
        assert id_.bytes == appointment_id(self._account, self._key("hold"))
        self.life.promises[id_] = Promise(id_, slot, said.body["number"], frozenset({PENDING}))
        return id_

    async def _then(self, kind: str, id_: UUID, becomes: int, end: End) -> bool:
        """Confirms or cancels."""
        promise = self.life.promises[id_]
        said = await self._asking.ask(
            kind, self._token, "POST", f"/api/v1/appointments/{id_}/{kind}", None, self._key(kind)
        )
        done = said.status == 200
        if done or not said.is_known:
            statuses = frozenset({becomes}) if done else promise.statuses | {becomes}
            self.life.promises[id_] = Promise(id_, promise.slot_id, promise.number, statuses)
            self.life.end = end if done else End.EITHER
        return done

    async def hold(self) -> None:
        await self._hold(random.choice(self._world.open))

    async def confirm(self) -> None:
        await self._booked(random.choice(self._world.open))

    async def cancel(self) -> None:
        id_ = await self._booked(random.choice(self._world.open))
        if id_ is not None:
            await self._pause()
            await self._then("cancel", id_, CANCELLED, End.NONE)

    async def _booked(self, slot: str) -> UUID | None:
        id_ = await self._hold(slot)
        if id_ is None:
            return None
        await self._pause()
        return id_ if await self._then("confirm", id_, BOOKED, End.ONE) else None

    async def change(self) -> None:
        """Once, or twice; then some give it back, too."""
        id_ = await self._booked(slot := random.choice(self._world.open))
        for turn in range(random.choice((1, 1, 2))):
            if id_ is None:
                return
            await self._pause()
            reach = random.choice(("home", "near", "far", "far"))
            to = self._world.elsewhere(slot, reach)
            id_ = await self._change(id_, to, reach, turn)
            slot = to
        if id_ is not None and random.random() < 0.2:
            await self._pause()
            await self._then("cancel", id_, CANCELLED, End.NONE)

    async def _change(self, old: UUID, to: str, reach: str, turn: int) -> UUID | None:
        """The new number; None where the change was refused, or nobody stayed to hear of it."""
        key = self._key(f"change-{turn}")
        new = UUID(bytes=derived(b"change", self._account, key.encode()))
        patience = 0.0 if random.random() < WALK_AWAY_SHARE else GIVE_UP_SECONDS
        path = f"/api/v1/appointments/{old}/reschedule"
        said = await self._asking.ask("change", self._token, "POST", path, {"slot_id": to}, key, patience)
        self._world.changes.append(Change(old, new, reach, said))
        promise = self.life.promises[old]
        if said.status == 200:
            assert said.body["id"] == str(new)
            self.life.promises[old] = Promise(old, promise.slot_id, promise.number, frozenset({CANCELLED}))
            self.life.promises[new] = Promise(new, to, said.body["number"], frozenset({BOOKED}))
            return new
        if not said.is_known:
            self.life.promises[old] = Promise(
                old, promise.slot_id, promise.number, frozenset({BOOKED, CANCELLED})
            )
        return None

    async def group(self) -> None:
        """A family: all or none. Some of them confirm."""
        slot = random.choice(self._world.open)
        key = self._key("group")
        self.life.end = End.EITHER
        said = await self._asking.ask(
            "group",
            self._token,
            "POST",
            "/api/v1/appointment-groups",
            {"slot_id": slot, "patient_ids": list(self.life.patients)},
            key,
        )
        ids = tuple(
            UUID(bytes=derived(b"group", self._account, key.encode(), bytes([n])))
            for n in range(len(self.life.patients))
        )
        self._world.groups.append(Group(ids, said))
        if said.status != 201:
            self.life.end = End.NONE if said.is_known else End.EITHER
            return
        self.life.end = End.ONE
        for one in said.body["appointments"]:
            id_ = UUID(one["id"])
            self.life.promises[id_] = Promise(id_, one["slot_id"], one["number"], frozenset({PENDING}))
        if random.random() < 0.5:
            await self._pause()
            await self._then("confirm", ids[0], BOOKED, End.ONE)

    async def affected(self) -> None:
        """Books where a session is about to be called off, and deals with what the hospital offers then."""
        schedule = random.choice(list(self._world.called_off))
        slot = random.choice(self._world.called_off[schedule])
        id_ = await self._hold(slot)
        self._may_be_called_off()
        if id_ is None:
            return
        await self._pause()
        is_booked = await self._then("confirm", id_, BOOKED, End.EITHER)
        self._may_be_called_off()
        if not is_booked:  # unpaid numbers end with the session
            return
        choice = random.choice(("confirm", "confirm", "cancel", "leave", "change"))
        if choice == "change":  # gets away by themselves, or is overtaken
            await self._pause()
            to = random.choice(self._world.open)
            await self._change(id_, to, "far", 0)
            self._may_be_called_off()
            return
        for _ in range(OFFER_LOOKS):
            await asyncio.sleep(OFFER_LOOK_SECONDS)
            said = await self._asking.ask("look", self._token, "GET", f"/api/v1/appointments/{id_}")
            if said.status == 200 and said.body["fate"] == "offered" and choice != "leave":
                offer = said.body["replaced_by"]
                await self._asking.ask(
                    f"{choice} an offer",
                    self._token,
                    "POST",
                    f"/api/v1/appointments/{offer}/{choice}",
                    None,
                    self._key(choice + "-offer"),
                )
                return
            if said.status == 200 and said.body["fate"] not in (None, "affected"):
                return

    def _may_be_called_off(self) -> None:
        """The hospital may do something about it; what exactly is judged by its fate."""
        for promise in list(self.life.promises.values()):
            self.life.promises[promise.id] = Promise(
                promise.id, promise.slot_id, promise.number, promise.statuses | {BOOKED, CANCELLED}
            )
        if self.life.end is End.ONE:
            self.life.end = End.EITHER

    async def wait(self) -> None:
        """On the list of a doctor whose numbers are gone."""
        practitioner = random.choice(list(self._world.full))
        day, _ = self._world.full[practitioner]
        key = self._key("wish")
        self.life.end = End.EITHER
        body = {
            "patient_ids": list(self.life.patients),
            "department": "full",
            "practitioners": [practitioner],
            "from": day,
            "to": day,
        }
        said = await self._asking.ask("wait", self._token, "POST", "/api/v1/waitlist", body, key)
        self._world.wishes.append((UUID(bytes=derived(b"wish", self._account, key.encode())), said))

    async def takes_all(self, slot: str) -> None:
        """Books a slot that has one number, and gives it back after a while: somebody waits for it."""
        id_ = await self._booked(slot)
        if id_ is not None:
            await asyncio.sleep(random.uniform(2, 30))
            await self._then("cancel", id_, CANCELLED, End.NONE)


LIVES: Final[dict[str, tuple[int, int, Callable[[Living], Awaitable[None]]]]] = {
    "hold": (30, 1, Living.hold),
    "confirm": (12, 1, Living.confirm),
    "cancel": (10, 1, Living.cancel),
    "change": (25, 1, Living.change),
    "group": (6, GROUP, Living.group),
    "affected": (12, 1, Living.affected),
    "wait": (5, 1, Living.wait),
}
"""kind -> (weight, patients, what they do). The weights are no hospital's: what is risky comes more often."""


def draw() -> str:
    return random.choices(list(LIVES), [weight for weight, _, _ in LIVES.values()])[0]
