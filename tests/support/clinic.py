"""A department's days, invented from a seed and played through a shard: two doctors with lines of their own
who both see the general one; most patients are booked, some do not come, some come without a number.

Everything follows from the seed. Consultations last as real ones do where their data are at hand.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from heapq import heappop, heappush
from random import Random
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ScheduleKey, derived, ticket_id
from engine.domain.room_plan import GENERAL
from tests.simulation.clinic_day import DATA, real
from tests.support.rooms import ask_room
from tests.support.stores import PostgresWorld, Served, plan

ZONE: Final = ZoneInfo("Asia/Shanghai")
DEPARTMENT: Final = "cardio"
DOCTORS: Final = ("D0001", "D0002")
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
HALF_HOURS: Final = 6
NO_SHOW: Final = 0.2


def midnight(day: date) -> int:
    return int(datetime.combine(day, time(), ZONE).timestamp() * 1000)


async def found_hospital(world: PostgresWorld) -> None:
    pool = await world.pool()
    await pool.execute("insert into hospital (name, timezone) values ('h', $1)", str(ZONE))
    await pool.execute("insert into account values ($1, 'clinic', now())", UUID(int=7))


@dataclass
class ClinicDay:
    world: PostgresWorld
    served: Served
    day: date
    seed: int
    until: int | None = None
    """ms: what would come later does not happen (any more)."""
    agenda: list[tuple[int, int, Callable[[], Awaitable[None]]]] = field(default_factory=list)
    n: int = 0
    booked: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> RoomKey:
        return RoomKey(DEPARTMENT, self.day.isoformat())

    def at(self, when: int, action: Callable[[], Awaitable[None]]) -> None:
        self.n += 1
        heappush(self.agenda, (max(when, self.world.clock.ms), self.n, action))

    def id(self, kind: str) -> bytes:
        self.n += 1
        return derived(b"clinic", kind.encode(), self.day.isoformat().encode(), self.n.to_bytes(4, "big"))

    async def ask(self, command: w.Command) -> object:
        [answer] = await ask_room(self.served, self.key, command)
        return answer

    async def publish(self) -> None:
        """The plan of the day, and who is booked."""
        self.chance = Random(f"{self.seed} {self.day}")
        eight = midnight(self.day) + 8 * HOUR
        for who in DOCTORS:
            sessions = plan(eight, *([4] * HALF_HOURS), department=DEPARTMENT)
            await self.world.publish(ScheduleKey(who, self.day.isoformat()), sessions)
            for half_hour in range(HALF_HOURS):
                for n in range(2):
                    await self._book(who, eight + half_hour * 30 * MINUTE, half_hour * 4 + n)

    async def _book(self, who: str, starts_at: int, seat: int) -> None:
        pool, chance = await self.world.pool(), self.chance
        patient, appointment = self.id("patient"), self.id("appointment")
        visit = int(chance.random() < 0.6)
        starts = datetime.fromtimestamp(starts_at / 1000, UTC)
        schedule_id = ScheduleKey(who, self.day.isoformat()).schedule_id
        slot_id = f"{schedule_id}-{starts.astimezone(ZONE):%H%M}"
        await pool.execute(
            "insert into patient (id, id_type, created_at) values ($1, 'passport', now())",
            UUID(bytes=patient),
        )
        await pool.execute(
            "insert into account_patient (account_id, patient_id, relation, created_at)"
            " values ($1, $2, 'self', now())",
            UUID(int=7),
            UUID(bytes=patient),
        )
        await pool.execute(
            "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id,"
            " account_id, status, fee_fen, starts_at, created_at, updated_at, department_id,"
            " number_class_id, visit)"
            " values ($1, $2, $3, $4, 99, $5, $6, $7, 2, 5000, $8, $9, $9, $10, 'expert', $11)",
            UUID(bytes=appointment), schedule_id, slot_id, seat, seat + 1, UUID(bytes=patient), UUID(int=7),
            starts, starts - timedelta(days=3), DEPARTMENT, visit,
        )  # fmt: skip
        self.booked.append(appointment)
        if chance.random() < NO_SHOW:
            return
        came = starts_at + int(chance.gauss(-20, 15)) * MINUTE

        async def arrive() -> None:
            told = await self.ask(
                w.CheckIn(
                    self.id("in"), patient, "kiosk", -1, appointment, patient, DEPARTMENT, who, self.key.day,
                    True, starts_at, starts_at + 30 * MINUTE, midnight(self.day) + 11 * HOUR, seat + 1, visit,
                )
            )  # fmt: skip
            assert isinstance(told, w.Told), told
            await self.call_all()

        self.at(came, arrive)

    async def play(self) -> "ClinicDay":
        """Up to its end, or to `until`."""
        chance = self.chance
        for n, who in enumerate(DOCTORS):
            opens = midnight(self.day) + 8 * HOUR + int(chance.expovariate(1 / 240)) * SECOND

            async def open_room(room: str = f"R{n + 1}", who: str = who) -> None:
                await self.ask(w.OpenRoom(self.id("open"), room, (who, GENERAL), who, "nurse"))
                await self.call(room)

            self.at(opens, open_room)
        for _ in range(12):
            self.at(midnight(self.day) + 8 * HOUR + chance.randint(0, 150) * MINUTE, self.walk_in)
        return await self.play_on()

    async def play_on(self) -> "ClinicDay":
        """From where it was left."""
        clock = self.world.clock
        while self.agenda and (self.until is None or self.agenda[0][0] <= self.until):
            when, _, action = heappop(self.agenda)
            clock.ms = max(clock.ms, when)
            await action()
        if self.until is not None:
            clock.ms = max(clock.ms, self.until)
        return self

    async def walk_in(self) -> None:
        told = await self.ask(w.TakeNumber(self.id("in"), self.id("patient"), "kiosk", GENERAL))
        assert isinstance(told, w.Told), told
        await self.call_all()

    async def call_all(self) -> None:
        for n in range(len(DOCTORS)):
            await self.call(f"R{n + 1}")

    async def call(self, room: str) -> None:
        told = await self.ask(w.CallNext(self.id("call"), room, "doctor", finishes=False))
        if not isinstance(told, w.Told):
            return  # nobody waits, the room is busy, or not open
        called = told.ticket_id
        again = any(ticket_id(one) == called for one in self.booked) and self.chance.random() < 0.6
        seconds = self.seconds(int(again))
        rests = 0 if self.chance.random() < 0.8 else int(self.chance.lognormvariate(5.3, 0.6))

        async def over() -> None:
            await self.ask(w.FinishTicket(self.id("finish"), called, "doctor"))
            self.at(self.world.clock.ms + rests * SECOND, lambda: self.call(room))

        self.at(self.world.clock.ms + seconds * SECOND, over)

    def seconds(self, again: int) -> int:
        if DATA.exists():
            return self.chance.choice(real().seconds[again])
        return int(self.chance.lognormvariate(6.0 - 0.3 * again, 0.6))
