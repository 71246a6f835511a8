"""What routes leave in the audit, over HTTP and with the rights that gateways have; and the chain over it."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import aiohttp
import asyncpg
import pytest

from engine.audit.signing_key import key_of
from engine.database import as_app
from engine.domain.ids import RoomKey
from engine.domain.policy import Channel
from engine.records.identity import check_digit
from engine.records.staff import Role, Staff
from engine.settings import Settings
from tests.support.noon import noon_zone
from tests.support.one_process import OneProcess, serving
from tests.support.rooms import publish_room
from tests.support.stores import PostgresWorld
from tests.support.system import run
from web.audit_notary import Notary

DEPARTMENT, DOCTOR = "audited", "D0001"
NURSE = Staff(b"\x07" * 16, "wang.li", "王丽", frozenset({Role.NURSE}), None, None, Channel.WINDOW)
OFFICE = Staff(
    b"\x08" * 16, "office", "排班", frozenset({Role.SCHEDULE_OFFICE}), None, None, Channel.MANAGEMENT
)


@dataclass(frozen=True, slots=True)
class House:
    url: str
    one: OneProcess
    world: PostgresWorld
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, who: Staff | bytes, body: Any = None, status: int = 200
    ) -> Any:
        tokens = self.one.tokens
        token = (tokens.issue_staff(who) if isinstance(who, Staff) else tokens.issue(who)).access_token
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid4())}
        address = f"{self.one.address}/api/v1/{path}"
        async with self.http.request(method, address, json=body, headers=headers) as answer:
            told = await answer.json(content_type=None)
            assert answer.status == status, told
            return told

    async def of_patient(self, patient_id: str) -> list[str]:
        pool = await self.world.pool()
        rows = await pool.fetch(
            "select action, by_name from audit_entry where subjects @> array[$1::uuid] order by id",
            UUID(patient_id),
        )
        return [f"{row['action']} {row['by_name'] or ''}".strip() for row in rows]


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    world = PostgresWorld(as_app(database))
    zone = noon_zone()
    pool = await world.pool()
    await pool.execute("insert into hospital (name, timezone) values ('h', $1)", zone)
    here = RoomKey(DEPARTMENT, datetime.now(ZoneInfo(zone)).date().isoformat())
    await publish_room(world, here, DOCTOR)
    await pool.execute(
        "insert into staff (id, username, name, password_hash, roles, channel, created_at)"
        " values ($1, $2, $3, '', '{nurse}', 'window', now())",
        UUID(bytes=NURSE.id),
        NURSE.username,
        NURSE.name,
    )
    try:
        async with serving(world, database) as one, aiohttp.ClientSession() as http:
            yield House(database, one, world, http)
    finally:
        await world.close()


async def walked_in(house: House) -> tuple[str, str]:
    """Ticket and patient."""
    person = {
        "name": "审计甲",
        "id_type": "passport",
        "id_number": "W" + secrets.token_hex(6).upper(),
        "phone": "13900139000",
        "sex": "female",
        "birth_date": "1990-01-01",
    }
    body = {"department_id": DEPARTMENT, "person": person}
    ticket = (await house.ask("POST", "walk-ins", NURSE, body, 201))["id"]
    pool = await house.world.pool()
    return ticket, str(await pool.fetchval("select patient_id from ticket where id = $1", UUID(ticket)))


async def test_each_who_read_or_changed_is_there(house: House) -> None:
    ticket, patient = await walked_in(house)
    for _ in range(2):  # the same again is not noted again
        board = await house.ask("GET", f"queues/{DEPARTMENT}?at_least=1", NURSE)
        assert board["queues"][0]["line"][0]["patient_name"] == "审计甲"
    vitals = f"tickets/{ticket}/vitals"
    await house.ask("POST", vitals, NURSE, {"systolic": 120, "diastolic": 80}, 201)
    for _ in range(2):  # each look into what is clinical is
        assert len((await house.ask("GET", vitals, NURSE))["vitals"]) == 1
    await house.ask("GET", f"tickets/{ticket}", NURSE)
    await house.ask("GET", f"queues/{DEPARTMENT}/tickets/{ticket}/history", NURSE)
    done = [
        "patient_registered wang.li",
        "room_board_read wang.li",
        "vitals_recorded wang.li",
        "vitals_read wang.li",
        "vitals_read wang.li",
        "ticket_read wang.li",
        "room_history_read wang.li",
    ]
    assert await house.of_patient(patient) == done
    # What was refused changed nothing, and is not said to have been done.
    await house.ask("POST", vitals, NURSE, {"systolic": 1}, 422)
    await house.ask("GET", vitals, OFFICE, status=403)
    assert await house.of_patient(patient) == done


async def test_nothing_is_shown_that_cannot_be_written_down(house: House) -> None:
    """A reading and its entry are one transaction; a board waits for the entry as well."""
    ticket, patient = await walked_in(house)
    owner = await asyncpg.connect(house.url)
    try:
        await owner.execute("alter table audit_entry add constraint full_disk check (false) not valid")
        before = await house.of_patient(patient)
        for path in (f"tickets/{ticket}/vitals", f"queues/{DEPARTMENT}", f"tickets/{ticket}"):
            await house.ask("GET", path, NURSE, status=500)
        await house.ask("POST", f"tickets/{ticket}/vitals", NURSE, {"systolic": 120}, 500)
        assert await owner.fetchval("select count(*) from vitals") == 0  # and the change went with it
        assert await house.of_patient(patient) == before
    finally:
        await owner.close()


async def test_somebody_elses_data_is_noted_and_ones_own_is_not(house: House) -> None:
    account = secrets.token_bytes(16)
    pool = await house.world.pool()
    await pool.execute("insert into account values ($1, $2, now())", UUID(bytes=account), account.hex())
    first_17 = f"110105{datetime.now(UTC).year - 7}0301{random.randrange(999):03d}"
    child = {
        "name": "张小明",
        "id_type": "resident_id",
        "id_number": first_17 + check_digit(first_17),
        "phone": "13900139000",
        "relation": "child",
    }
    mine = {**child, "name": "张伟", "id_number": "11010119900307803X", "relation": "self"}
    own = (await house.ask("POST", "patients", account, mine, 201))["id"]
    other = (await house.ask("POST", "patients", account, child, 201))["id"]
    for _ in range(2):
        assert len((await house.ask("GET", "patients", account))["patients"]) == 2
    assert await house.of_patient(own) == ["patient_added"]
    assert await house.of_patient(other) == ["patient_added", "patient_read"]


async def test_the_commands_verify_search_and_export(house: House, tmp_path: Path) -> None:
    ticket, _ = await walked_in(house)
    await house.ask("GET", f"tickets/{ticket}/vitals", NURSE)
    notary = Notary(house.url, tmp_path, key_of(tmp_path), Settings.model_construct())
    owner = await asyncpg.connect(house.url)
    try:
        assert await notary.step(owner) > 0
        where = ("--home", str(tmp_path), "--database-url", house.url)

        async def said(*words: str) -> tuple[int, str]:
            done = await asyncio.to_thread(run, "audit", *words, *where)
            return done.returncode, done.stdout + done.stderr

        status, told = await said("verify")
        assert (status, told.rstrip().splitlines()[-1]) == (0, "OK"), told
        status, told = await said("search", "--action", "vitals_read")
        assert status == 0 and "wang.li" in told
        status, told = await said("export", "--by", "wang.li", "--format", "jsonl")
        assert (status, told.count("\n")) == (0, 2)
        assert (await said("checkpoint"))[1].startswith("block 1: ")
        rows = await owner.fetch("select action from audit_entry where by_kind = 'operator' order by id")
        assert [row["action"] for row in rows] == ["audit_read", "audit_exported"]
        await owner.execute("set session_replication_role = replica")
        await owner.execute("update audit_entry set by_name = 'somebody' where action = 'vitals_read'")
        status, told = await said("verify")
        assert status == 1
        assert "WRONG: block 1: entry 2 was changed" in told
    finally:
        await owner.close()
