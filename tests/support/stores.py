"""Shards and journals over both stores, with one face, so that one behaviour suite runs on each.

`MemoryWorld` and `PostgresWorld` publish days, register people, open journals, desks and shards, and tell
what the store holds. A `Desk` is a group commit with hosts and nothing else: what is submitted to it
together is written together.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import asyncpg
import orjson

from actors.host import Host, Rules
from actors.shard import Shard
from engine.domain import schedule as s
from engine.domain.claims import Scope
from engine.domain.eligibility import NOBODY, DepartmentRule, Facts
from engine.domain.ids import ScheduleKey
from engine.domain.limits import BATCH_COMMANDS_MAX
from engine.domain.planning import Plan, PlannedSlot, Session, plan_as_data, plan_from_data
from engine.domain.policy import Policy
from engine.domain.seats import number_of, plan_of
from engine.journal.codec import Ask, pack_asks, unpack_event, unpack_replies
from engine.journal.group_commit import Flushed, GroupCommit, Work
from engine.journal.journal import Entry, Journal
from engine.journal.memory import MemoryJournal, Store
from engine.journal.postgres import PostgresJournal
from engine.records.facts import Question
from engine.records.reads import PostgresReads, Reads

T = TypeVar("T")
Reply = Any
"""s.Reply | Refusal: a test knows which one it asked for."""
HOUR = 3_600_000
DAY = "2026-11-24"
LAVISH = Policy(
    active_appointments_max=1_000_000, account_holds_max=1_000_000, day_appointments_max=1_000_000
)
"""For tests that are not about the policy."""


class Clock:
    """Milliseconds since the epoch, moved by hand. Starts at the machine's time: PostgreSQL has no other."""

    def __init__(self, now: int | None = None) -> None:
        self.ms = int(time.time() * 1000) if now is None else now

    def __call__(self) -> int:
        return self.ms

    def advance(self, *, seconds: float = 0, ms: int = 0) -> None:
        self.ms += int(seconds * 1000) + ms


def uid(kind: str, number: int = 0) -> bytes:
    """16 bytes that a reader recognizes."""
    return kind.encode()[:8].ljust(8, b"\0") + number.to_bytes(8, "big")


ACCOUNT = uid("account")


def doctor(number: int = 1, day: str = DAY) -> ScheduleKey:
    return ScheduleKey(f"D{number:04d}", day)


def plan(
    starts_at: int,
    *capacities: int,
    department: str = "cardio",
    clock: int = 8 * 60,
    period: str = "morning",
) -> Plan:
    """One session of half-hour slots, the first at `starts_at`, called `clock` (minutes) in the plan."""
    slots = tuple(
        PlannedSlot(
            f"{(clock + 30 * n) // 60:02d}{(clock + 30 * n) % 60:02d}", starts_at + n * HOUR // 2, size
        )
        for n, size in enumerate(capacities)
    )
    return (Session(period, department, "expert", "r1", 5000, slots),)


def hold(
    appointment: bytes, patient: bytes, clock: str = "0800", account: bytes = ACCOUNT, seconds: int = 900
) -> s.HoldSeat:
    return s.HoldSeat(appointment, clock, patient, account, seconds)


def confirm(appointment: bytes, account: bytes = ACCOUNT) -> s.ConfirmAppointment:
    return s.ConfirmAppointment(appointment, account)


def cancel(appointment: bytes, account: bytes = ACCOUNT) -> s.CancelAppointment:
    return s.CancelAppointment(appointment, account)


@dataclass(slots=True)
class Person:
    accounts: frozenset[bytes]
    birth_date: date | None = None
    sex: str | None = None
    delegated_until: int | None = None


@dataclass
class MemoryReads:
    """What PostgresReads gives, from a Store: the same facts, without SQL."""

    store: Store
    now: Callable[[], int]
    people: dict[bytes, Person] = field(default_factory=dict)
    departments: dict[str, DepartmentRule] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    """Schedules that somebody waits at: of these PostgreSQL has a table, and this store has none."""

    async def facts(self, questions: list[Question], now: int) -> list[Facts]:
        await asyncio.sleep(0)  # a query gives others the floor
        return [self._facts(question) for question in questions]

    async def rules(self) -> dict[str, DepartmentRule]:
        return dict(self.departments)

    async def policy(self, fallback: Policy) -> Policy:
        return fallback

    async def moved(self, appointment_ids: list[bytes]) -> dict[bytes, bytes]:
        await asyncio.sleep(0)
        held = {a: self.store.claims.get((s.Scope.MOVE, a)) for a in appointment_ids}
        return {a: claim.owner for a, claim in held.items() if claim is not None}

    async def held_for(self, appointment_ids: list[bytes]) -> dict[bytes, bytes]:
        await asyncio.sleep(0)
        found = {}
        for a in appointment_ids:
            row, why = self.store.appointments.get(a), self.store.held_for.get(a)
            if row is None or row.status != s.Status.PENDING or why is None or not why[0]:
                continue
            old = self.store.appointments.get(bytes.fromhex(str(why[0])))
            if old is not None and old.patient_id == row.patient_id:
                found[a] = old.id
        return found

    async def wakes(self) -> list[tuple[str, int]]:
        ends: dict[str, int] = {}
        for row in self.store.appointments.values():
            if row.status == s.Status.PENDING:
                ends[row.schedule_id] = min(row.hold_until, ends.get(row.schedule_id, row.hold_until))
        ends |= dict.fromkeys((id_ for id_, slots in self.store.unfree.items() if slots), 0)
        ends |= dict.fromkeys(self.waiting, 0)
        keys = ((ScheduleKey.of_schedule(schedule_id), at) for schedule_id, at in ends.items())
        return [(key.stream, at) for key, at in keys if key is not None]

    def _facts(self, q: Question) -> Facts:
        person = self.people.get(q.patient_id)
        if person is None or q.account_id not in person.accounts:
            return NOBODY
        now = self.now()
        rows = self.store.appointments.values()
        return Facts(
            is_of_account=True,
            delegated_until=person.delegated_until,
            birth_date=person.birth_date,
            sex=person.sex,
            active_appointments=sum(
                row.patient_id == q.patient_id
                and row.starts_at > now
                and (row.status == 2 or (row.status == 1 and row.hold_until > now))
                for row in rows
            ),
            day_appointments=sum(
                row.patient_id == q.patient_id
                and row.schedule_id.endswith(q.day.replace("-", ""))
                and row.status <= 4
                and (row.status > 1 or row.hold_until > now)
                for row in rows
            ),
            account_holds=sum(
                row.account_id == q.account_id and row.status == 1 and row.hold_until > now for row in rows
            ),
            key_used_elsewhere=q.appointment_id in self.store.appointments,
            department_day_owner=self._owner(q.department_day, q.appointment_id, now),
            time_owner=self._owner(q.time, q.appointment_id, now),
        )

    def _owner(self, claim: s.Claim, mine: bytes, now: int) -> bytes | None:
        held = self.store.claims.get((claim.scope, claim.key))
        if held is None or held.owner == mine or (held.expires_at is not None and held.expires_at <= now):
            return None
        return held.owner


@dataclass(frozen=True, slots=True)
class Shown:
    """An appointment as the projection shows it."""

    schedule_id: str
    slot_id: str
    seat: int
    number: int
    patient_id: bytes
    status: int
    reason: str | None
    starts_at: int = 0
    replaces: bytes = b""
    wish_id: bytes = b""
    changes: int = 0
    successor: bytes = b""
    fate: str = ""


ClaimKey = tuple[int, bytes]
Written = tuple[int, str, int, s.Event]
"""seq, stream, version, event"""


class World(Protocol):
    """A store with a clock."""

    clock: Clock

    async def publish(self, key: ScheduleKey, plan: Plan) -> None: ...
    async def register(self, people: Sequence[tuple[bytes, bytes]]) -> None:
        """(account, patient) pairs."""

    async def journal(self, shard_id: int) -> Journal: ...
    async def reads(self) -> Reads: ...
    async def appointments(self) -> dict[bytes, Shown]: ...
    async def claims(self) -> dict[ClaimKey, bytes]: ...
    async def events(self, shard_id: int) -> list[Written]: ...
    async def days(self) -> dict[str, tuple[Plan, dict[str, list[int]]]]:
        """Opened schedules: the plan that is shown, and the seats that are blocked or cooling."""

    async def opened(self, key: ScheduleKey) -> bool | None:
        """None: this store keeps no such thing."""


class MemoryWorld:
    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.store = Store()
        self.people: dict[bytes, Person] = {}
        self.departments: dict[str, DepartmentRule] = {}
        self.waiting: set[str] = set()

    async def publish(self, key: ScheduleKey, plan: Plan) -> None:
        self.store.plans[key.stream] = plan

    async def register(self, people: Sequence[tuple[bytes, bytes]]) -> None:
        for account, patient in people:
            known = self.people.get(patient, Person(frozenset()))
            self.people[patient] = Person(known.accounts | {account})

    async def journal(self, shard_id: int) -> MemoryJournal:
        return MemoryJournal(self.store, shard_id, self.clock)

    async def reads(self) -> MemoryReads:
        return MemoryReads(self.store, self.clock, self.people, self.departments, self.waiting)

    async def appointments(self) -> dict[bytes, Shown]:
        store = self.store
        found = {}
        for row in store.appointments.values():
            replaces, wish_id, changes, _ = store.held_for.get(row.id, (None, None, 0, ""))
            fate, successor = store.fates.get(row.id, (None, None))
            found[row.id] = Shown(
                row.schedule_id, row.slot_id, row.seat, row.number, row.patient_id, row.status, row.reason,
                row.starts_at, unhex(replaces), unhex(wish_id), int(changes),
                unhex(store.successors.get(row.id) or successor), fate or "",
            )  # fmt: skip
        return found

    async def days(self) -> dict[str, tuple[Plan, dict[str, list[int]]]]:
        return {id_: (plan, self.store.unfree.get(id_, {})) for id_, plan in self.store.shown.items()}

    async def claims(self) -> dict[ClaimKey, bytes]:
        return {key: claim.owner for key, claim in self.store.claims.items()}

    async def events(self, shard_id: int) -> list[Written]:
        found = sorted((seq, *told) for (shard, seq), told in self.store.events.items() if shard == shard_id)
        return [(seq, stream, version, event) for seq, stream, version, event in found]

    async def opened(self, key: ScheduleKey) -> bool | None:
        return None


class PostgresWorld:
    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self.clock = clock or Clock()
        self._pool: asyncpg.Pool | None = None
        self._connections: list[asyncpg.Connection] = []

    async def pool(self) -> asyncpg.Pool:
        if self._pool is None:
            self._pool = await asyncpg.create_pool(self.url, min_size=1, max_size=3)
        return self._pool

    async def close(self) -> None:
        for connection in self._connections:
            connection.terminate()
        if self._pool is not None:
            self._pool.terminate()

    async def publish(self, key: ScheduleKey, plan: Plan) -> None:
        pool = await self.pool()
        department = plan[0].department_id
        for session in plan:
            await pool.execute(
                "insert into department (id, name, campus, position) values ($1, $1, 'east', 0)"
                " on conflict do nothing",
                session.department_id,
            )
        await pool.execute(
            "insert into practitioner (id, name, title, department_id, position)"
            " values ($1, $1, 'chief', $2, 0) on conflict do nothing",
            key.practitioner_id,
            department,
        )
        await pool.execute(
            "insert into schedule (id, practitioner_id, day, plan) values ($1, $2, $3, $4)",
            key.schedule_id,
            key.practitioner_id,
            date.fromisoformat(key.day),
            orjson.dumps(plan_as_data(plan)).decode(),
        )

    async def register(self, people: Sequence[tuple[bytes, bytes]]) -> None:
        pool = await self.pool()
        accounts = [account.hex() for account, _ in people]
        patients = [patient.hex() for _, patient in people]
        await pool.execute(
            "insert into account select distinct a::uuid, a, now() from unnest($1::text[]) a"
            " on conflict do nothing",
            accounts,
        )
        await pool.execute(
            "insert into patient (id, id_type, created_at)"
            " select distinct p::uuid, 'passport', now() from unnest($1::text[]) p on conflict do nothing",
            patients,
        )
        await pool.execute(
            "insert into account_patient (account_id, patient_id, relation, created_at)"
            " select a::uuid, p::uuid, 'self', now()"
            " from unnest($1::text[], $2::text[]) x (a, p) on conflict do nothing",
            accounts,
            patients,
        )

    async def journal(self, shard_id: int) -> PostgresJournal:
        connection = await asyncpg.connect(self.url)
        self._connections.append(connection)
        return PostgresJournal(shard_id, connection, await self.pool())

    async def reads(self) -> PostgresReads:
        return PostgresReads(await self.pool())

    async def appointments(self) -> dict[bytes, Shown]:
        rows = await (await self.pool()).fetch("select * from appointment")
        return {
            row["id"].bytes: Shown(
                row["schedule_id"],
                row["slot_id"],
                row["seat"],
                row["number"],
                row["patient_id"].bytes,
                row["status"],
                row["reason"],
                round(row["starts_at"].timestamp() * 1000),
                *(b"" if row[name] is None else row[name].bytes for name in ("replaces", "wish_id")),
                row["changes"],
                b"" if row["successor"] is None else row["successor"].bytes,
                row["fate"] or "",
            )
            for row in rows
        }

    async def days(self) -> dict[str, tuple[Plan, dict[str, list[int]]]]:
        rows = await (await self.pool()).fetch("select id, plan, unfree from schedule where opened")
        return {r["id"]: (plan_from_data(orjson.loads(r["plan"])), orjson.loads(r["unfree"])) for r in rows}

    async def claims(self) -> dict[ClaimKey, bytes]:
        rows = await (await self.pool()).fetch("select scope, key, owner from claim")
        return {(row["scope"], row["key"]): row["owner"].bytes for row in rows}

    async def events(self, shard_id: int) -> list[Written]:
        rows = await (await self.pool()).fetch("select * from event where shard = $1 order by seq", shard_id)
        return [(r["seq"], r["stream"], r["version"], unpack_event(r["type"], r["data"])) for r in rows]

    async def opened(self, key: ScheduleKey) -> bool | None:
        pool = await self.pool()
        opened: bool | None = await pool.fetchval(
            "select opened from schedule where id = $1", key.schedule_id
        )
        return opened

    async def now(self) -> datetime:
        at: datetime = await (await self.pool()).fetchval("select clock_timestamp()")
        return at


class Died(Exception):
    """The process would have ended here."""


class Mortal:
    """Hears `die`, and lets those who wait for an answer know that it will never come."""

    def __init__(self) -> None:
        self.deaths: list[str] = []
        self._dead = asyncio.Event()

    def die(self, why: str) -> None:
        self.deaths.append(why)
        self._dead.set()

    async def unless_dead(self, wanted: Awaitable[T]) -> T:
        answer = asyncio.ensure_future(wanted)
        death = asyncio.ensure_future(self._dead.wait())
        await asyncio.wait([answer, death], return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if answer.done():
            return answer.result()
        answer.cancel()
        raise Died(self.deaths[0])


class Desk(Mortal):
    """Hosts behind a group commit. `submit` several before the next await: they are one batch."""

    def __init__(self, journal: Journal, clock: Callable[[], int], policy: Policy = LAVISH) -> None:
        super().__init__()
        self.journal = journal
        self.hosts: dict[ScheduleKey, Host] = {}
        self.flushed: list[Flushed] = []
        self._clock = clock
        self._commit = GroupCommit(journal, self.die, self.flushed.append)
        self._rules = Rules(policy, lambda: 7)
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, world: World, shard_id: int, *keys: ScheduleKey) -> "Desk":
        """Takes the shard over, and wakes these days."""
        return await cls(await world.journal(shard_id), world.clock).start(*keys)

    async def start(self, *keys: ScheduleKey) -> "Desk":
        await self.journal.take_over()
        self._writing = asyncio.create_task(self._commit.run())
        self._writing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await self.load(*keys)
        return self

    async def load(self, *keys: ScheduleKey) -> None:
        loaded = await self.journal.load([key.stream for key in keys])
        self.hosts |= {key: Host(key, loaded[key.stream], self._clock(), self._rules) for key in keys}

    def submit(self, key: ScheduleKey, command: s.Command, now: int | None = None) -> asyncio.Future[Reply]:
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._commit.submit(Work(self.hosts[key], command, self._clock() if now is None else now, done))
        return done

    async def ask(self, key: ScheduleKey, *commands: s.Command, now: int | None = None) -> list[Reply]:
        """All in one batch."""
        done = [self.submit(key, command, now) for command in commands]
        return await self.unless_dead(asyncio.gather(*done))

    async def settle(self, *done: asyncio.Future[Reply]) -> list[Reply]:
        return await self.unless_dead(asyncio.gather(*done))

    async def drain(self) -> None:
        await self.unless_dead(self._commit.drain())

    def stop(self) -> None:
        if self._writing is not None:
            self._writing.cancel()


class Served(Mortal):
    """A Shard that tells of its death instead of ending the process."""

    def __init__(self, journal: Journal, reads: Reads, clock: Callable[[], int], **given: Any) -> None:
        super().__init__()
        self.shard = Shard(
            given.get("shard_id", 0),
            given.get("shards", 1),
            journal,
            reads,
            clock,
            self.die,
            given.get("policy", LAVISH),
        )

    @classmethod
    async def open(
        cls, world: World, shard_id: int = 0, shards: int = 1, policy: Policy = LAVISH
    ) -> "Served":
        served = cls(
            await world.journal(shard_id),
            await world.reads(),
            world.clock,
            shard_id=shard_id,
            shards=shards,
            policy=policy,
        )
        await served.shard.start()
        return served

    async def ask(self, key: ScheduleKey, *commands: s.Command, ms_left: int = 60_000) -> list[Reply]:
        """In messages of a gateway's size, sent together."""
        asks = [(key.stream, ms_left, command) for command in commands]
        return await self.send(asks)

    async def send(self, asks: list[Ask]) -> list[Reply]:
        messages = [
            pack_asks(asks[n : n + BATCH_COMMANDS_MAX]) for n in range(0, len(asks), BATCH_COMMANDS_MAX)
        ]
        answers = await self.unless_dead(asyncio.gather(*map(self.shard.ask, messages)))
        return [reply for packed in answers for reply in unpack_replies(packed)]

    async def stop(self) -> None:
        await self.unless_dead(self.shard.stop())


def gauge(served: Served, name: str) -> float:
    value = served.shard.metrics.registry.get_sample_value(name)
    assert value is not None
    return value


def tell(schedule: s.Schedule) -> Any:
    """A state as plain data, so that two can be compared and a difference read."""
    return (
        {
            clock: (
                slot.starts_at,
                slot.capacity,
                slot.first_number,
                bin(slot.taken),
                bin(slot.blocked),
                bin(slot.cooling),
                slot.masks,
                slot.added,
                slot.formerly,
                slot.session,
            )  # fmt: skip
            for clock, slot in schedule.slots.items()
        },
        {
            a: (x.clock, x.seat, x.patient_id, x.account_id, x.hold_until, x.status, x.reason)
            for a, x in schedule.appointments.items()
        },
        {
            a: (x.replaces, x.waives, x.wish_id, x.successor, x.fate, x.consent)
            for a, x in schedule.appointments.items()
        },
        dict(schedule.active),
        dict(schedule.holds),
        dict(schedule.changes),
        dict(schedule.cooling),
        dict(schedule.wishes),
        set(schedule.wishes_ended),
        (schedule.revision, schedule.revised_by, dict(schedule.commands)),
    )


async def audit(world: World, hosts: Sequence[Host], shard_ids: Sequence[int]) -> None:
    """Live, replayed and projected must tell one story (law 5), each seat once (law 12), no gap in seq.

    For a moment when everything has been committed. Raises AssertionError with the difference.
    """
    histories: dict[str, list[s.Event]] = {}
    for shard_id in shard_ids:
        written = await world.events(shard_id)
        assert [seq for seq, *_ in written] == list(range(1, len(written) + 1)), "the journal has a gap"
        for _, stream, version, event in written:
            history = histories.setdefault(stream, [])
            history.append(event)
            assert version == len(history), f"{stream}: version {version} comes as number {len(history)}"
    shown = await world.appointments()
    claims = await world.claims()
    claimed: dict[ClaimKey, bytes] = {}
    states = {a: (host, x) for host in hosts for a, x in host.state.appointments.items()}
    told: dict[bytes, tuple[object, ...]] = {}
    days = await world.days()
    waived: set[tuple[ClaimKey, bytes]] = set()
    """What a number may have that is held for a change: the old one may have passed it on already."""
    for host in hosts:
        assert host.unsettled == 0, f"{host.key}: {host.unsettled} works are not settled"
        history = histories.get(host.key.stream, [])
        assert host.version == len(history), f"{host.key}: version {host.version}, {len(history)} events"
        if not history:
            continue
        assert tell(s.replay(history)) == tell(host.state), f"{host.key}: replayed is not live"
        assert s.conservation_error(host.state) == 0, f"{host.key}: seats in no state or in two"
        for clock, slot in host.state.slots.items():
            assert slot.taken.bit_count() <= slot.capacity, f"{host.key} {clock}: overbooked"
        for appointment_id, a in host.state.appointments.items():
            slot = host.state.slots[a.clock]
            told[appointment_id] = (
                host.key.schedule_id,
                host.key.slot_id(a.clock),
                a.seat,
                number_of(slot, a.seat),
                a.patient_id,
                int(a.status),
                a.reason,
                slot.starts_at,
                a.replaces,
                a.wish_id,
                a.changes,
                a.successor,
                a.fate,
            )
            if a.status is s.Status.PENDING and a.waives:
                wanted = s.claims_wanted(slot, a.patient_id, appointment_id, host.key.day, None)
                waived |= {((c.scope, c.key), appointment_id) for c in wanted}
            away = a.replaces and a.replaces not in host.state.appointments
            given_up = s.SeatBooked(appointment_id) not in history and a.status is s.Status.CANCELLED
            if away and given_up:
                claimed[Scope.MOVE, appointment_id] = appointment_id
            successor = states.get(a.successor)
            on_its_way = successor is not None and successor[1].status is s.Status.PENDING
            if a.reason == "changed" and on_its_way:
                claimed[Scope.MOVE, a.successor] = appointment_id
            if a.status <= s.Status.FULFILLED:
                for claim in s.claims_of(host.state, appointment_id, host.key.day):
                    # One that has ended may have given way to somebody else's.
                    ended = a.status is s.Status.PENDING and a.hold_until <= world.clock()
                    # And one whose session has moved may find somebody else's at its new time.
                    ended |= bool(slot.formerly) and claim.scope is Scope.PATIENT_TIME
                    if not (ended and claims.get((claim.scope, claim.key)) != appointment_id):
                        assert (claim.scope, claim.key) not in claimed, "two appointments have one claim"
                        claimed[claim.scope, claim.key] = appointment_id
        day = days[host.key.schedule_id]
        assert day == (plan_of(host.state.slots), s.unfree(host.state)), f"{host.key}: another day is shown"
    projected = {
        a: (
            x.schedule_id, x.slot_id, x.seat, x.number, x.patient_id, x.status, x.reason or "", x.starts_at,
            x.replaces, x.wish_id, x.changes, x.successor, x.fate,
        )
        for a, x in shown.items()
    }  # fmt: skip
    assert projected == told, "the projection is not what the actors know"
    claims = {key: owner for key, owner in claims.items() if key in claimed or (key, owner) not in waived}
    assert claims == claimed, "the claims are not those of the active appointments"


def entry(key: ScheduleKey, event: s.Event, version: int, at: int, **more: Any) -> Entry:
    return Entry(key.stream, event, at, version=version, **more)


def unhex(told: object) -> bytes:
    return bytes.fromhex(str(told)) if told else b""


def uuid_of(value: bytes) -> UUID:
    return UUID(bytes=value)
