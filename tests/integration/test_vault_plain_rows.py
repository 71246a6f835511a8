"""A database of before the vault: what is plain is sealed at the first start, and nothing is lost."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from engine import database as db
from engine.domain.ids import derived
from engine.records import plain_rows
from engine.records.conduct import open_appeals, penalties_of
from engine.records.identity import IdType, Person
from engine.records.no_show_calls import calls_about
from engine.records.patients import DelegationTerms, NewPatient, account_of_desk, add_patient, patients_of
from engine.records.plain_rows import seal_plain_rows
from engine.records.vitals import vitals_of
from engine.vault.vault import Vault
from tests.support.stores import uid

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
PEOPLE = 25
ACCOUNT, STAFF, TICKET, NUMBER = uid("account"), uid("staff"), uid("ticket"), uid("number")
APPEAL, REASON, CALL, VITALS = "我在住院申诉", "情况属实放行", "患者说在外地", "主诉胸闷三天"
WORDS = (APPEAL, REASON, CALL, VITALS, "王小明", "110105194912", "1380013")


def person(n: int) -> Person:
    return Person(f"王小明{n}", IdType.RESIDENT_ID, f"1101051949123{n:05}", f"1380013{n:04}", None, None)


@pytest.fixture
async def old(database: str) -> AsyncIterator[asyncpg.Connection]:
    """As a server of before has left it, at 0018 and with people in it; then migrated by this program."""
    connection = await asyncpg.connect(database)
    await connection.execute("drop schema public cascade; create schema public")
    await connection.execute("create table migration (name text primary key, at timestamptz default now())")
    for name, sql in db._steps():
        if name < "0019":
            await connection.execute(sql)
            await connection.execute("insert into migration (name) values ($1)", name)
    await _fill(connection)
    await db.migrate(connection)
    yield connection
    await connection.close()


async def _fill(connection: asyncpg.Connection) -> None:
    account, ids = UUID(bytes=ACCOUNT), [UUID(bytes=uid("p", n)) for n in range(PEOPLE)]
    await connection.execute("insert into account values ($1, 'o1', $2)", account, NOW)
    for n, id_ in enumerate(ids):
        who = person(n)
        await connection.execute(
            "insert into patient (id, id_type, id_number, name, created_at) values ($1, $2, $3, $4, $5)",
            id_, who.id_type.value, who.id_number, who.name, NOW,
        )  # fmt: skip
        await connection.execute(
            "insert into account_patient (account_id, patient_id, relation, phone, created_at)"
            " values ($1, $2, 'other', $3, $4)",
            account, id_, who.phone, NOW + timedelta(seconds=n),
        )  # fmt: skip
    document = f"{person(3).id_type.value}/{person(3).id_number}".encode()
    for n, openid in enumerate((document, b"nobody")):
        await connection.execute(
            "insert into account values ($1, $2, $3)",
            UUID(bytes=uid("desk", n)), f"desk:{derived(b'desk', openid).hex()}", NOW,
        )  # fmt: skip
    await connection.execute(
        "insert into staff (id, username, name, password_hash, roles, channel, created_at)"
        " values ($1, 'n', '护士', 'x', '{nurse}', 'window', $2)",
        UUID(bytes=STAFF), NOW,
    )  # fmt: skip
    await connection.execute(
        "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,"
        " status, fee_fen, starts_at, created_at, updated_at, department_id)"
        " values ($1, 's', 't', 0, 1, 1, $2, $3, 2, 0, $4, $4, $4, 'd')",
        UUID(bytes=NUMBER), ids[0], account, NOW,
    )  # fmt: skip
    for note in ("", CALL, CALL + "二"):
        await connection.execute(
            "insert into no_show_call (appointment_id, outcome, note, by, at)"
            " values ($1, 'not_reached', $2, $3, $4)",
            UUID(bytes=NUMBER), note, UUID(bytes=STAFF), NOW + timedelta(minutes=len(note)),
        )  # fmt: skip
    await connection.execute(
        "insert into ticket (id, department_id, day, patient_id, prefix, number, status, queue_id,"
        " practitioner_id, room_id, stage, stages, visit, priority, emergency, arrived_at, done, version)"
        " values ($1, 'd', $2, $3, 'A', 1, 1, '', '', '', 1, 1, 0, '', 0, $4, '[]', 1)",
        UUID(bytes=TICKET), NOW.date(), ids[0], NOW,
    )  # fmt: skip
    for n, note in enumerate(("", VITALS)):
        await connection.execute(
            "insert into vitals (id, ticket_id, pulse, note, by, at) values ($1, $2, $3, $4, $5, $6)",
            UUID(bytes=uid("vitals", n)), UUID(bytes=TICKET), 70 if n == 0 else None, note,
            UUID(bytes=STAFF), NOW + timedelta(minutes=n),
        )  # fmt: skip
    for n, (kind, subject) in enumerate((("patient", ids[0]), ("account", account))):
        await connection.execute(
            "insert into penalty (id, subject_kind, subject, rule, offence, begins, ends, evidence,"
            " created_at, appeal, appealed_at, appeal_text, decision_reason)"
            " values ($1, $2, $3, 'r', 'no_show', $4, $5, $6, $4, 'open', $7, $8, $9)",
            UUID(bytes=uid("penalty", n)), kind, subject, NOW, NOW + timedelta(days=9), [UUID(bytes=NUMBER)],
            NOW + timedelta(minutes=n), APPEAL, REASON,
        )  # fmt: skip


async def _check(connection: asyncpg.Connection, vault: Vault) -> None:
    """Everybody and everything is as it was, and opens."""
    mine = await patients_of(connection, vault, ACCOUNT)
    assert [(p.name, p.id_number, p.phone) for p in mine] == [
        (person(n).name, person(n).id_number, person(n).phone) for n in range(PEOPLE)
    ]
    [noted, plain] = await vitals_of(connection, vault, TICKET)
    assert (noted.measured.note, plain.measured.note) == (VITALS, "")
    [last, first, empty] = (await calls_about(connection, vault, [NUMBER]))[NUMBER]
    assert (last.note, first.note, empty.note) == (CALL + "二", CALL, "")
    appeals = await open_appeals(connection, vault)
    assert [(x.patient_name, x.appeal_text, x.decision_reason) for x in appeals] == [
        ("王小明0", APPEAL, REASON),
        (None, APPEAL, REASON),
    ]
    assert len(await penalties_of(connection, vault, ACCOUNT, NOW)) == 2
    terms = DelegationTerms(365, ZoneInfo("Asia/Shanghai"))
    again = await add_patient(
        connection, vault, uid("desk", 0), NewPatient(person(3), "self"), uid("x"), terms, NOW
    )
    assert getattr(again, "id", again) == uid("p", 3), "the same person is found by the same number"
    assert await account_of_desk(connection, vault, person(3), uid("y"), NOW) == uid("desk", 0)


async def _found(connection: asyncpg.Connection) -> list[str]:
    """The words that stand in any row, in any page of a table's file, or in the planner's samples."""
    found = []
    tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    for table in [*(row["tablename"] for row in tables), "pg_catalog.pg_statistic"]:
        rows = await connection.fetch(f"select t::text as row from {table} t")
        found += [f"{word} in {table}" for word in WORDS for row in rows if word in row["row"]]
    await connection.execute("checkpoint")  # from memory to the files
    for table in (*plain_rows._TABLES, "pg_statistic"):
        pages = await connection.fetchval(f"select pg_read_binary_file(pg_relation_filepath('{table}'))")
        found += [f"{word} in a page of {table}" for word in WORDS if word.encode() in pages]
    return found


async def test_a_database_of_before_is_sealed_at_the_first_start(
    old: asyncpg.Connection, vault: Vault
) -> None:
    await old.execute("analyze")
    before = await _found(old)  # a control
    assert {word for word in WORDS if any(word in one for one in before)} == set(WORDS)
    assert {"王小明 in a page of patient", "王小明 in a page of pg_statistic"} <= set(before)
    told: list[str] = []
    assert await seal_plain_rows(old, vault, told.append, batch=4)
    assert await _found(old) == []
    assert f"{PEOPLE} patients are sealed" in told and not any(
        word in line for word in WORDS for line in told
    )
    await _check(old, vault)
    assert not await seal_plain_rows(old, vault, told.append), "once"
    left = "select count(*) from pg_attribute where attname like 'plain%' and not attisdropped"
    assert await old.fetchval(left) == 0
    nobody = await old.fetchval("select openid from account where id = $1", UUID(bytes=uid("desk", 1)))
    assert nobody == f"desk:{UUID(bytes=uid('desk', 1))}"


class Killed(BaseException):
    """As if the process had ended there."""


async def test_a_sealing_that_is_killed_anywhere_goes_on_where_it_was(
    old: asyncpg.Connection, database: str, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each statement that changes something in turn, as often as it takes to come to the end."""
    at, until = [0], [0]

    def killing(real: Any) -> Any:
        async def run(self: asyncpg.Connection, query: str, *args: object, **more: object) -> object:
            if query.split()[0] in ("update", "vacuum", "alter", "analyze", "COMMIT;"):
                at[0] += 1
                if at[0] > until[0]:
                    raise Killed
            return await real(self, query, *args, **more)

        return run

    monkeypatch.setattr(asyncpg.Connection, "execute", killing(asyncpg.Connection.execute))
    monkeypatch.setattr(asyncpg.Connection, "executemany", killing(asyncpg.Connection.executemany))
    kills = 0
    while True:
        at[0] = 0
        connection = await asyncpg.connect(database)
        try:
            await seal_plain_rows(connection, vault, lambda said: None, batch=10)
            break
        except Killed:
            kills += 1
            until[0] += 1
        finally:
            connection.terminate()
    monkeypatch.undo()
    assert kills > 15
    await _check(old, vault)
    assert await _found(old) == []


async def test_a_new_database_has_nothing_plain_to_begin_with(database: str, vault: Vault) -> None:
    connection = await asyncpg.connect(database)
    assert not await seal_plain_rows(connection, vault)
    assert not await plain_rows._is_left(connection)
    await connection.close()
