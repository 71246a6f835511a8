"""The audit finds what is planted, each kind of damage by the checks that are meant for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg
import orjson
import pytest

from actors.shard import Shard
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import PlannedSlot, Session, plan_as_data
from engine.domain.policy import Policy
from engine.domain.refusal import Refusal
from engine.journal.codec import Ask, pack_asks, unpack_replies
from engine.journal.postgres import PostgresJournal
from engine.records.reads import PostgresReads
from web.audit import Acked, audit
from web.audit_replay import Check

NOW = int(time.time() * 1000)
TOMORROW = (NOW // 86_400_000 + 1) * 86_400_000
KEYS = [
    ScheduleKey(doctor, datetime.fromtimestamp(TOMORROW / 1000, UTC).date().isoformat()) for doctor in "DE"
]
ACCOUNT = UUID(int=1)
PATIENTS = [UUID(int=100 + n) for n in range(8)]
BOOKED, CANCELLED, PENDING = (int(x) for x in (s.Status.BOOKED, s.Status.CANCELLED, s.Status.PENDING))


def plan(doctor: int) -> tuple[Session, ...]:
    def session(period: str, hour: int) -> Session:
        # The doctors' times differ, so that one patient may see both.
        starts = TOMORROW + (hour + doctor) * 3_600_000
        slots = (
            PlannedSlot(f"{hour + doctor:02}00", starts, 3),
            PlannedSlot(f"{hour + doctor:02}30", starts + 1, 2),
        )
        return Session(period, f"dept{doctor}", "ordinary", None, 1500, slots)

    return session("morning", 8), session("afternoon", 14)


@dataclass(slots=True)
class Clinic:
    """Two doctors' days on which things have happened, and the shard that still serves them."""

    connection: asyncpg.Connection
    shard: Shard
    acked: list[Acked]

    async def ask(self, doctor: int, *commands: s.Command) -> list[s.Answer]:
        asks: list[Ask] = [(KEYS[doctor].stream, 60_000, command) for command in commands]
        replies = unpack_replies(await self.shard.ask(pack_asks(asks)))
        assert not any(isinstance(reply, Refusal) for reply in replies), replies
        return [reply for reply in replies if isinstance(reply, s.Answer)]

    async def audit(self) -> list[Check]:
        return await audit(self.connection, self.acked)

    async def failed(self) -> set[str]:
        return {check.name for check in await self.audit() if not check.ok}


def hold(id_: int, clock: str, patient: int, seconds: int = 600) -> s.HoldSeat:
    return s.HoldSeat(UUID(int=id_).bytes, clock, PATIENTS[patient].bytes, ACCOUNT.bytes, seconds)


def confirm(id_: int) -> s.ConfirmAppointment:
    return s.ConfirmAppointment(UUID(int=id_).bytes, ACCOUNT.bytes)


def cancel(id_: int) -> s.CancelAppointment:
    return s.CancelAppointment(UUID(int=id_).bytes, ACCOUNT.bytes)


@pytest.fixture
async def clinic(database: str) -> AsyncIterator[Clinic]:
    connection = await asyncpg.connect(database)
    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
    await _publish(connection)
    writing = await asyncpg.connect(database)
    journal = PostgresJournal(0, writing, pool)
    died: list[str] = []
    shard = Shard(0, 1, journal, PostgresReads(pool), lambda: NOW, died.append, Policy(account_holds_max=100))
    await shard.start()
    clinic = Clinic(connection, shard, [])
    await clinic.ask(0, hold(1, "0800", 0), hold(2, "0800", 1), hold(3, "0830", 2), hold(4, "1400", 3))
    await clinic.ask(0, confirm(1), confirm(2), confirm(3), cancel(3))
    answers = await clinic.ask(1, hold(5, "0900", 0), hold(6, "0930", 1), hold(7, "0930", 2))
    await clinic.ask(1, confirm(5), cancel(6))
    (again,) = await clinic.ask(1, hold(8, "0930", 3))
    assert again.number == answers[1].number, "a cancelled number is given again"
    expected = {
        1: BOOKED,
        2: BOOKED,
        3: CANCELLED,
        4: PENDING,
        5: BOOKED,
        6: CANCELLED,
        7: PENDING,
        8: PENDING,
    }
    for row in await connection.fetch("select id, slot_id, number from appointment"):
        id_ = UUID(bytes=row["id"].bytes)
        clinic.acked.append(Acked(id_, row["slot_id"], row["number"], frozenset({expected[id_.int]})))
    assert len(clinic.acked) == 8
    yield clinic
    assert not died
    await shard.stop()
    await writing.close()
    await pool.close()
    await connection.close()


async def _publish(connection: asyncpg.Connection) -> None:
    await connection.execute(
        """
        insert into department (id, name, campus, position)
        values ('dept0', '内科', '本部', 1), ('dept1', '外科', '本部', 2);
        insert into practitioner (id, name, title, department_id, position)
        values ('D', '王一', 'chief', 'dept0', 1), ('E', '李二', 'chief', 'dept1', 2);
        insert into account (id, openid, created_at)
        values ('00000000-0000-0000-0000-000000000001', 'o', now());
        """
    )
    await connection.executemany(
        "insert into schedule (id, practitioner_id, day, plan) values ($1, $2, $3, $4)",
        [
            (
                key.schedule_id,
                key.practitioner_id,
                date.fromisoformat(key.day),
                orjson.dumps(plan_as_data(plan(n))).decode(),
            )
            for n, key in enumerate(KEYS)
        ],
    )
    for patient in PATIENTS:
        await connection.execute(
            "insert into patient (id, id_type, created_at) values ($1, 'passport', now())", patient
        )
        await connection.execute(
            "insert into account_patient (account_id, patient_id, relation, created_at)"
            " values ($1, $2, 'self', now())",
            ACCOUNT,
            patient,
        )


async def test_what_is_right_is_found_right(clinic: Clinic) -> None:
    checks = await clinic.audit()
    assert [check.name for check in checks if not check.ok] == []
    examined = {check.name: check.examined for check in checks}
    assert examined == {
        "acknowledged bookings": 8,
        "seats within capacity": 4,
        "one patient a seat": 6,
        "journal numbers": 16,
        "stream versions": 2,
        "events replay": 16,
        "appointments as replayed": 8,
        "numbers unique": 6,
        "seats conserved": 20,
        "plans as opened": 2,
        "nobody before the release": 8,
        "waiting lists": 0,
        "seats out of use": 2,
        "claims": 12,
        "rooms replay": 0,
        "tickets as replayed": 0,
        "ticket numbers unique": 0,
        "nobody in two places": 0,
        "calls in sequence": 0,
        "who came has arrived": 0,
        "bills replay": 0,
        "bills as replayed": 0,
        "ledger as replayed": 0,
        "paid numbers are booked": 0,
        "bills looked after": 0,
        "indicators as recounted": 0,  # nobody has counted yet
    }


ONE = "00000000-0000-0000-0000-000000000001"
DAMAGE = {
    "an appointment is gone": (
        f"delete from appointment where id = '{ONE}'",
        {"acknowledged bookings", "appointments as replayed"},
    ),
    "an appointment from nowhere": (
        "insert into appointment select gen_random_uuid(), schedule_id, slot_id, 2, capacity, 3, patient_id,"
        " account_id, status, reason, fee_fen, starts_at, hold_until, created_at, updated_at"
        f" from appointment where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "another seat": (
        f"update appointment set seat = 2 where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "another number": (
        f"update appointment set number = 2 where id = '{ONE}'",
        {"acknowledged bookings", "appointments as replayed", "numbers unique"},
    ),
    "another slot": (
        f"update appointment set slot_id = replace(slot_id, '0800', '1430') where id = '{ONE}'",
        {"acknowledged bookings", "appointments as replayed", "numbers unique"},
    ),
    "another status": (
        f"update appointment set status = 5, reason = 'cancelled' where id = '{ONE}'",
        {"acknowledged bookings", "appointments as replayed"},
    ),
    "another patient": (
        f"update appointment set patient_id = '{PATIENTS[7]}' where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "another fee": (
        f"update appointment set fee_fen = 1 where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "a seat that is not there": (
        "alter table appointment drop constraint appointment_within_capacity;"
        f" update appointment set seat = 3 where id = '{ONE}'",
        {"seats within capacity", "appointments as replayed"},
    ),
    "a seat given twice": (
        "drop index appointment_seat_once;"
        " update appointment set seat = 0, number = 1 where id = '00000000-0000-0000-0000-000000000002'",
        {"one patient a seat", "numbers unique", "acknowledged bookings", "appointments as replayed"},
    ),
    "a lost event in between": (
        "delete from event where version = 2 and stream like 'schedule/D/%'",
        {"journal numbers", "stream versions", "events replay"},
    ),
    "the last event is lost": (
        "delete from event where seq = (select max(seq) from event)",
        {"journal numbers", "appointments as replayed", "claims"},
    ),
    "the first event is lost": (
        "delete from event where seq = 1",
        {"journal numbers", "stream versions", "events replay"},
    ),
    "all of a stream is lost": (
        "delete from event where stream like 'schedule/E/%'",
        {"journal numbers", "appointments as replayed", "plans as opened"},
    ),
    "bytes that are no event": (
        "update event set data = '\\x00' where seq = 3",
        {"events replay"},
    ),
    "an event of an unknown type": (
        "update event set type = 99 where seq = 3",
        {"events replay"},
    ),
    "an event twice": (
        "insert into event select shard, seq + 1000, stream, version + 1000, type, at, data"
        " from event where seq = 2",
        {"journal numbers", "stream versions", "events replay"},
    ),
    "a counter that is ahead": (
        "update shard set seq = seq + 1",
        {"journal numbers"},
    ),
    "a stray claim": (
        f"insert into claim values (1, '\\x00', '{UUID(int=999)}', null)",
        {"claims"},
    ),
    "a stray claim of a cancelled number": (
        f"insert into claim values (1, '\\x00', '{UUID(int=3)}', null)",
        {"claims"},
    ),
    "a claim is gone": (
        f"delete from claim where owner = '{ONE}' and scope = 2",
        {"claims"},
    ),
    "a claim of somebody else": (
        f"update claim set owner = '{UUID(int=2)}' where owner = '{ONE}' and scope = 2",
        {"claims"},
    ),
    "a booked number's claim that ends": (
        f"update claim set expires_at = now() + interval '1 hour' where owner = '{ONE}' and scope = 1",
        {"claims"},
    ),
    "another plan than was opened": (
        "update schedule set plan = jsonb_set(plan, '{0,4}', '1') where practitioner_id = 'D'",
        {"plans as opened"},
    ),
    "another department": (
        f"update appointment set department_id = 'dept1' where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "another channel": (
        f"update appointment set channel = 2 where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "a fate that nobody decided on": (
        f"update appointment set fate = 'refunded' where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "a successor from nowhere": (
        f"update appointment set successor = '{UUID(int=2)}' where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "replaces what it does not": (
        f"update appointment set replaces = '{UUID(int=2)}' where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "booked by somebody else": (
        f"update appointment set booked_by = 'staff:1' where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "a seat that is out of use and is not": (
        "update schedule set unfree = '{\"0800\": [2]}' where practitioner_id = 'D'",
        {"seats out of use"},
    ),
    "a change that nobody made": (
        f"insert into claim select 3, uuid_send('{ONE}'), '{UUID(int=2)}', null",
        {"claims"},
    ),
    "a wish on no list": (
        "insert into wish (id, account_id, patient_ids, department_id, schedules, wanted, status, until,"
        f" created_at, updated_at) values ('{UUID(int=9)}', '{ACCOUNT}', '{{}}', 'dept0', '{{}}', '{{}}',"
        " 'waiting', now() + interval '1 day', now(), now())",
        {"waiting lists"},
    ),
    "will come, and never said so": (
        f"update appointment set will_come = true where id = '{ONE}'",
        {"appointments as replayed"},
    ),
    "a day that nobody knows is open": (
        "update schedule set opened = false where practitioner_id = 'D'",
        {"plans as opened"},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_planted_damage_is_found(clinic: Clinic, damage: str) -> None:
    statements, expected = DAMAGE[damage]
    await clinic.connection.execute("set session_replication_role = replica")  # past the trigger
    await clinic.connection.execute(statements)
    assert await clinic.failed() == expected


async def test_what_was_acknowledged_and_is_not_there_is_found(clinic: Clinic) -> None:
    first = clinic.acked[0]
    for wrong in (
        replace(first, id=UUID(int=12345)),
        replace(first, number=first.number + 1),
        replace(first, slot_id="D-20000101-0800"),
        replace(first, statuses=frozenset({int(s.Status.NOSHOW)})),
    ):
        clinic.acked[0] = wrong
        assert await clinic.failed() == {"acknowledged bookings"}


async def test_a_hold_that_has_ended_and_is_not_yet_swept_is_no_fault(clinic: Clinic) -> None:
    """Its claim may lie there or have given way: both are right."""
    await clinic.ask(0, hold(20, "1430", 5, seconds=1))
    # The shard's clock stands still, so its sweeper does not come by; the database's goes on.
    ends = NOW / 1000 + 1 + s.HOLD_CLAIM_GRACE_MS / 1000
    await clinic.connection.fetchval("select pg_sleep($1)", max(0.0, ends - time.time()) + 0.05)
    assert await clinic.failed() == set()
    await clinic.connection.execute("delete from claim where owner = $1", UUID(int=20))
    assert await clinic.failed() == set()


async def test_a_database_in_use_is_audited_as_of_one_moment(clinic: Clinic, database: str) -> None:
    stop = asyncio.Event()
    made = 0

    async def book() -> None:
        nonlocal made
        while not stop.is_set():
            made += 1
            await clinic.ask(0, hold(1000 + made, "1430", 6))
            await clinic.ask(0, cancel(1000 + made))

    booking = asyncio.create_task(book())
    seen = set()
    for _ in range(10):
        checks = await clinic.audit()
        assert [check for check in checks if not check.ok] == []
        seen.add(next(check.examined for check in checks if check.name == "journal numbers"))
    stop.set()
    await booking
    assert len(seen) > 1, "nothing happened while it was audited"
