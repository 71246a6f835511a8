"""Who has read my record; and data that is wrong, put right without losing what was there."""

import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from engine.audit.entries import Actor, Entry, write
from engine.domain.policy import Policy
from engine.embedded_postgres import EmbeddedPostgres
from engine.records.corrections import NAME_BEFORE
from engine.records.sealed_people import record_key
from engine.records.staff import NewStaff, Role, Staff, add_staff
from engine.vault.vault import Vault
from tests.support.privacy import Answer, Office, Person, fresh_database, office

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(postgres.url) as url:
        yield url


@pytest.fixture
async def here(shared: str, vault: Vault, tmp_path: Path) -> AsyncIterator[Office]:
    async with office(shared, vault, tmp_path) as here:
        yield here


async def member(here: Office, username: str, role: Role) -> Staff:
    new = NewStaff(f"{username}{here.test}", "陈静", "no hash", (role,), None, "0304")
    async with here.pool.acquire() as connection:
        await connection.execute(
            "insert into department (id, name, campus, position) values ('0304', '心内科', 'east', 0)"
            " on conflict do nothing"
        )
        return await add_staff(connection, new, secrets.token_bytes(16), NOW)


async def noted(here: Office, action: str, by: Actor, patient_id: str, **rest: str) -> None:
    async with here.pool.acquire() as connection:
        await write(connection, Entry(action, by, (UUID(patient_id).bytes,), **rest))  # type: ignore[arg-type]


async def test_every_reading_is_told_with_role_and_department(here: Office) -> None:
    one, two = await here.person("o1"), await here.person("o2")
    mine = (await one.add(1))["id"]
    nurse = await member(here, "nurse.chen", Role.NURSE)
    by_nurse = Actor("staff", nurse.id, nurse.username)
    await noted(here, "vitals_read", by_nurse, mine)
    await noted(here, "glass_broken", by_nurse, mine, reason="急诊抢救")
    await noted(here, "patient_record_read", by_nurse, mine, outcome="refused")
    await noted(here, "ticket_read", Actor("account", two.id), mine)
    await noted(here, "consent_given", Actor("account", one.id), mine)
    told = await one.ask("GET", f"/api/v1/patients/{mine}/accesses")
    assert told.status == 200
    # The newest first; what this account does itself is there when it is noted.
    seen = [(x["action"], x["by"], x["is_reading"], x["outcome"]) for x in told["accesses"]][:5]
    assert seen == [
        ("consent_given", "self", False, "done"),
        ("ticket_read", "other_account", True, "done"),
        ("patient_record_read", "staff", True, "refused"),
        ("glass_broken", "staff", False, "done"),
        ("vitals_read", "staff", True, "done"),
    ]
    broken = told["accesses"][3]
    assert broken["is_break_glass"] and broken["reason"] == "急诊抢救"
    assert (broken["roles"], broken["department_id"], broken["staff_name"]) == (["nurse"], "0304", None)
    here.demand(Policy(staff_named_to_patients=True))
    named = await one.ask("GET", f"/api/v1/patients/{mine}/accesses?only_readings=true")
    assert [x["staff_name"] for x in named["accesses"]] == [None, "陈静", "陈静"]
    # Page by page, and nothing twice.
    first = await one.ask("GET", f"/api/v1/patients/{mine}/accesses?limit=2")
    rest = await one.ask("GET", f"/api/v1/patients/{mine}/accesses?limit=100&before={first['before']}")
    whole = (await one.ask("GET", f"/api/v1/patients/{mine}/accesses?limit=100"))["accesses"]
    assert first["accesses"] + rest["accesses"] == whole and rest["before"] is None


async def test_only_ones_own(here: Office) -> None:
    one, two = await here.person("o1"), await here.person("o2")
    mine = (await one.add(1))["id"]
    mother = (await one.add(2, "parent", "李梅", "19600307"))["id"]
    child = (await one.add(3, "child", "王小小", "20200506"))["id"]
    assert (await one.ask("GET", f"/api/v1/patients/{child}/accesses")).status == 200
    for who, whose in ((two, mine), (one, mother)):
        refused = await who.ask("GET", f"/api/v1/patients/{whose}/accesses")
        assert (refused.status, refused["code"]) == (404, "no_such_patient")


async def correct(clerk: Person, patient_id: str, key: str = "k1", **changes: str) -> Answer:
    body = {
        "name": "王晓明",
        "id_type": "resident_id",
        "id_number": clerk.office.document(1),
        "phone": "13800000001",
        "reason": "录入有误",
        **changes,
    }
    return await clerk.ask("POST", f"/api/v1/desk/patients/{patient_id}/correction", key=key, json=body)


async def test_a_name_is_put_right_and_the_wrong_one_kept_sealed(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    clerk = here.clerk(await member(here, "desk.chen", Role.DESK))
    done = await correct(clerk, mine)
    assert (done.status, done["changed"]) == (200, ["name"])
    assert (await correct(clerk, mine))["changed"] == ["name"]  # a retry
    assert (await correct(clerk, mine, name="王大明"))["code"] == "key_reused"
    assert [x["name"] for x in (await one.ask("GET", "/api/v1/patients"))["patients"]] == ["王晓明"]
    row = await here.pool.fetchrow(
        "select c.*, p.record_key from correction c join patient p on p.id = patient_id where p.id = $1",
        UUID(mine),
    )
    assert "王小明".encode() not in row["name"] and "录入".encode() not in row["reason"]
    key = record_key(UUID(mine).bytes, row["record_key"])
    assert here.vault.open(key, NAME_BEFORE, row["id"].bytes, row["name"]) == "王小明"
    told = await one.ask("GET", f"/api/v1/patients/{mine}/accesses")
    assert "patient_corrected" in [x["action"] for x in told["accesses"]]
    exported = await one.ask("GET", "/api/v1/account/export")
    assert [(x["changed"], x["name_before"]) for x in exported["corrections"]] == [(["name"], "王小明")]


async def test_a_correction_needs_this_persons_document(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    clerk = here.clerk(await member(here, "desk.chen", Role.DESK))
    for body, code in (
        ({"id_number": here.document(2)}, "correction_refused"),  # somebody else's
        ({"name": "王小明"}, "correction_refused"),  # nothing differs
        ({"id_number": "110105199003070011"}, "invalid_id_number"),
    ):
        refused = await correct(clerk, mine, **body)
        assert (refused.status in (409, 422), refused["code"]) == (True, code)
    nowhere = await correct(clerk, "00000000-0000-4000-8000-000000000000")
    assert (nowhere.status, nowhere["code"]) == (404, "no_such_patient")
    assert (await correct(one, mine)).status == 401
    nurse = here.clerk(await member(here, "nurse.chen", Role.NURSE))
    assert (await correct(nurse, mine)).status == 403
    assert await here.pool.fetchval("select true from correction where patient_id = $1", UUID(mine)) is None
