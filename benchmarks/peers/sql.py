"""Peers that book in SQL, one transaction a booking: the ways that are known to be safe.

Each asks the same questions of the patient (the same query, the same rules), takes the same claims, keeps the
same unique seats and writes the same appointment row. None keeps a journal: they do less than we do.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import asyncpg

from engine.domain import schedule as s
from engine.domain.eligibility import DepartmentRule, check
from engine.domain.ids import ScheduleKey
from engine.domain.limits import HOLD_SECONDS_DEFAULT
from engine.domain.policy import Policy
from engine.domain.refusal import Reason, Refusal
from engine.records.facts import Question, facts

TABLES = """
create table if not exists peer_slot (
    id text primary key, department_id text not null, starts_at timestamptz not null,
    capacity int not null, taken int not null default 0 check (taken <= capacity));
"""

FILL = """
insert into peer_slot (id, department_id, starts_at, capacity)
select s.id || '-' || (slot ->> 0), session ->> 1, to_timestamp((slot ->> 1)::bigint / 1000.0),
       (slot ->> 2)::int
  from schedule s, jsonb_array_elements(s.plan) session, jsonb_array_elements(session -> 5) slot
on conflict do nothing
"""

_CLAIMS = """
insert into claim (scope, key, owner, expires_at)
values (1, $1, $3, $4), (2, $2, $3, $4)
on conflict (scope, key) do update set owner = excluded.owner, expires_at = excluded.expires_at
 where claim.owner = excluded.owner or claim.expires_at < clock_timestamp()"""

_INSERT = """
insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id, status,
                         fee_fen, starts_at, hold_until, created_at, updated_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, 1, 5000, $9, $10, $11, $11)"""

# Claims first, then the count, then the row: all or nothing in one statement and one round trip.
_ONE = """
with claimed as (
    insert into claim (scope, key, owner, expires_at)
    values (1, $1, $3, $4), (2, $2, $3, $4)
    on conflict (scope, key) do update set owner = excluded.owner, expires_at = excluded.expires_at
     where claim.owner = excluded.owner or claim.expires_at < clock_timestamp()
    returning 1),
seat as (
    update peer_slot set taken = taken + 1
     where id = $5 and taken < capacity and (select count(*) from claimed) = 2
    returning taken - 1 as seat, capacity, starts_at),
booked as (
    insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id, status,
                             fee_fen, starts_at, hold_until, created_at, updated_at)
    select $3, $6, $5, seat, capacity, seat + 1, $7, $8, 1, 5000, starts_at, $4, $9, $9 from seat
    returning number)
select number from booked"""


class Full(Exception):
    pass


Book = Callable[[asyncpg.Connection, s.HoldSeat, "Booking"], Awaitable[int]]


class Booking:
    """One command with what every peer needs of it."""

    def __init__(self, stream: str, command: s.HoldSeat, starts_at: datetime, department_id: str) -> None:
        key = ScheduleKey.of_stream(stream)
        self.schedule_id = key.schedule_id
        self.slot_id = key.slot_id(command.clock)
        self.now = datetime.now(UTC)
        self.hold_until = self.now + timedelta(seconds=command.hold_seconds or HOLD_SECONDS_DEFAULT)
        self.starts_at = starts_at
        self.day = key.day
        self.department_id = department_id
        self.claims = (
            command.patient_id + f"{department_id}/{key.day}".encode(),
            command.patient_id + int(starts_at.timestamp() * 1000).to_bytes(8, "big"),
        )
        self.id, self.patient, self.account = (
            x.hex() for x in (command.appointment_id, command.patient_id, command.account_id)
        )


async def for_update(connection: asyncpg.Connection, command: s.HoldSeat, b: Booking) -> int:
    """SELECT … FOR UPDATE, look, write."""
    async with connection.transaction():
        slot = await connection.fetchrow(
            "select capacity, taken from peer_slot where id = $1 for update", b.slot_id
        )
        if slot["taken"] >= slot["capacity"]:
            raise Full
        await connection.execute(_CLAIMS, *b.claims, b.id, b.hold_until)
        await connection.execute("update peer_slot set taken = taken + 1 where id = $1", b.slot_id)
        await _insert(connection, b, slot["taken"], slot["capacity"])
    return int(slot["taken"]) + 1


async def conditional_update(connection: asyncpg.Connection, command: s.HoldSeat, b: Booking) -> int:
    """One statement: a conditional UPDATE … RETURNING with the inserts around it."""
    number = await connection.fetchval(
        _ONE, *b.claims, b.id, b.hold_until, b.slot_id, b.schedule_id, b.patient, b.account, b.now
    )
    if number is None:
        raise Full
    return int(number)


async def advisory_lock(connection: asyncpg.Connection, command: s.HoldSeat, b: Booking) -> int:
    """An advisory lock on the slot, a recount, an insert."""
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(hashtext($1))", b.slot_id)
        capacity = await connection.fetchval("select capacity from peer_slot where id = $1", b.slot_id)
        taken = await connection.fetchval(
            "select count(*) from appointment where slot_id = $1 and status <= 4", b.slot_id
        )
        if taken >= capacity:
            raise Full
        await connection.execute(_CLAIMS, *b.claims, b.id, b.hold_until)
        await _insert(connection, b, taken, capacity)
    return int(taken) + 1


async def _insert(connection: asyncpg.Connection, b: Booking, seat: int, capacity: int) -> None:
    await connection.execute(
        _INSERT,
        *(b.id, b.schedule_id, b.slot_id, seat, capacity, seat + 1, b.patient, b.account),
        *(b.starts_at, b.hold_until, b.now),
    )


WAYS: dict[str, Book] = {
    "for_update": for_update,
    "conditional_update": conditional_update,
    "advisory_lock": advisory_lock,
}


class SqlDirectory:
    """Stands where ours stands in the gateway, so that everything before and after it is the same."""

    def __init__(self, pool: asyncpg.Pool, book: Book, policy: Policy) -> None:
        self._pool = pool
        self._book = book
        self._policy = policy
        self._slots: dict[str, tuple[str, datetime]] = {}

    def ask(self, stream: str, command: s.Command, deadline: float) -> asyncio.Task[s.Answer | Refusal]:
        return asyncio.ensure_future(self._ask(stream, command))

    async def _ask(self, stream: str, command: s.Command) -> s.Answer | Refusal:
        assert isinstance(command, s.HoldSeat)
        key = ScheduleKey.of_stream(stream)
        slot_id = key.slot_id(command.clock)
        if slot_id not in self._slots:
            row = await self._pool.fetchrow(
                "select department_id, starts_at from peer_slot where id = $1", slot_id
            )
            if row is None:
                return Refusal(Reason.NO_SUCH_SLOT)
            self._slots[slot_id] = (row["department_id"], row["starts_at"])
        department_id, starts_at = self._slots[slot_id]
        b = Booking(stream, command, starts_at, department_id)
        refusal = await self._refusal(command, b)
        if refusal is not None:
            return refusal
        try:
            number = await self.book(command, b)
        except Full:
            return Refusal(Reason.SLOT_FULL)
        until = int(b.hold_until.timestamp() * 1000)
        return s.Answer(command.appointment_id, command.clock, number, until, s.Status.PENDING)

    async def book(self, command: s.HoldSeat, b: Booking) -> int:
        async with self._pool.acquire() as connection:
            return await self._book(connection, command, b)

    async def _refusal(self, command: s.HoldSeat, b: Booking) -> Refusal | None:
        claims = [
            s.Claim(s.Scope(n + 1), key, command.appointment_id, None) for n, key in enumerate(b.claims)
        ]
        question = Question(
            command.appointment_id,
            command.patient_id,
            command.account_id,
            b.department_id,
            b.day,
            *claims,
            wants_last_visit=False,
        )
        now = int(b.now.timestamp() * 1000)
        (known,) = await facts(self._pool, [question], now)
        return check(known, DepartmentRule(), self._policy, date.fromisoformat(b.day), now)

    async def close(self) -> None:
        pass
