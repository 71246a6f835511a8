"""Being forgotten: at once, but for what the law wants kept; and nobody is found by accident afterwards."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from click.testing import CliRunner

from engine.domain.masking import ERASED_NAME
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import appointments, arrivals, erasure, sessions
from engine.records.day_people import patient_names
from engine.records.erasure import Clock
from engine.records.patients import PeopleRefusal, patients_of
from engine.settings import Settings
from engine.vault.erasures import Erasures
from engine.vault.opening import open_vault
from engine.vault.vault import Vault
from tests.support.privacy import ZONE, Answer, Office, Person, fresh_database, office, visit
from web import keys
from web.cli import main

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(postgres.url) as url:
        yield url


@pytest.fixture
async def here(shared: str, vault: Vault, tmp_path: Path) -> AsyncIterator[Office]:
    async with office(shared, vault, tmp_path) as here:
        yield here


@pytest.fixture
async def alone(database: str, vault: Vault, tmp_path: Path) -> AsyncIterator[Office]:
    """With a database of the test's own, where it changes what holds for all."""
    async with office(database, vault, tmp_path) as alone:
        yield alone


async def erase(one: Person, patient_id: str, n: int = 1, born: str = "19900307", key: str = "k1") -> Answer:
    return await one.ask(
        "POST",
        f"/api/v1/patients/{patient_id}/erasure",
        key=key,
        json={"confirm": "erase", "id_digits": one.office.document(n, born)[-4:]},
    )


def new_session(account_id: bytes) -> sessions.NewSession:
    return sessions.NewSession(
        secrets.token_bytes(16),
        "account",
        account_id,
        "bearer",
        "wechat",
        "iPhone",
        None,
        None,
        NOW + DAY,
        NOW + DAY,
    )


async def row_of(here: Office, patient_id: str) -> asyncpg.Record:
    return await here.pool.fetchrow("select * from patient where id = $1", UUID(patient_id))


async def test_who_was_never_seen_is_gone_wholly(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    number = await visit(here.pool, mine, one.id, NOW - 3 * DAY, status=5)  # cancelled
    await visit(here.pool, mine, one.id, NOW - 2 * DAY, status=6)  # missed
    preview = await one.ask("GET", "/api/v1/account/erasure")
    assert not preview["is_done"] and preview["people"][0]["kept_until"] is None
    done = await erase(one, mine)
    assert (done.status, done["is_done"]) == (200, True)
    assert done["people"][0]["kept_until"] is None
    row = await row_of(here, mine)
    for column in ("name", "id_number", "id_index", "record_key", "contact_key", "birth_date", "sex"):
        assert row[column] is None, column
    # Every page shows a neutral word, and none falls over.
    async with here.pool.acquire() as connection:
        assert await patient_names(connection, here.vault, [UUID(mine).bytes]) == {
            UUID(mine).bytes: ERASED_NAME
        }
        (listed,) = await patients_of(connection, here.vault, one.id)
        assert (listed.name, listed.id_number, listed.phone) == (ERASED_NAME, "", "")
    shown = await appointments.appointment(here.pool, here.vault, number.bytes, one.id)
    assert shown is not None and shown.patient_name == ERASED_NAME
    listing = await one.ask("GET", "/api/v1/patients")
    assert listing.status == 200 and listing["patients"][0]["is_expired"]
    # The same person, registered anew, is somebody new: nothing leads back.
    again = await one.add(1)
    assert again.status == 201 and again["id"] != mine


async def test_who_was_seen_is_kept_out_of_sight_for_fifteen_years(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    seen = NOW - 30 * DAY
    await visit(here.pool, mine, one.id, seen)
    done = await erase(one, mine)
    until = seen.astimezone(ZONE).date()
    assert done["people"][0]["kept_until"] == until.replace(year=until.year + 15).isoformat()
    fates = {one["data"]: one["fate"] for one in done["people"][0]["fates"]}
    assert fates["identity"] == fates["visits"] == "restricted" and fates["contact"] == "erased"
    row = await row_of(here, mine)
    assert row["name"] is None and row["contact_key"] is None
    assert row["record_key"] is not None and row["id_index"] is not None
    # Neither a kiosk nor a desk finds this person by the document, or by the id.
    number = here.document(1)
    assert await arrivals.patient_of_document(here.pool, here.vault, "resident_id", number) is None
    assert await arrivals.patient_of_id(here.pool, here.vault, UUID(mine).bytes) is None
    assert await erasure.is_restricted(here.pool, UUID(mine).bytes)


async def test_registered_anew_somebody_restricted_is_back_with_the_record(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    await visit(here.pool, mine, one.id, NOW - 30 * DAY)
    await erase(one, mine)
    # Not for another name, which would tell that this document was here.
    kept = "select until from kept_identity where patient_id = $1"
    before = await here.pool.fetchval(kept, UUID(mine))
    other = await one.add(1, name="李四")
    assert (other.status, other["code"]) == (409, PeopleRefusal.IDENTITY_MISMATCH)
    assert await here.pool.fetchval(kept, UUID(mine)) == before is not None
    back = await one.add(1)
    assert back.status == 201 and (back["id"], back["name"]) == (mine, "王小明")
    row = await row_of(here, mine)
    assert row["name"] is not None and row["contact_key"] is not None
    assert not await erasure.is_restricted(here.pool, UUID(mine).bytes)
    assert (
        await arrivals.patient_of_document(here.pool, here.vault, "resident_id", here.document(1)) is not None
    )
    # The old ledger's line does not touch the new key.
    async with here.pool.acquire() as connection:
        assert await here.app[keys.ERASURES].apply(connection) == 0
        assert await erasure.erase_again(connection, here.app[keys.ERASURES], Clock(NOW, ZONE)) == 0
    assert (await one.ask("GET", "/api/v1/patients"))["patients"][0]["phone"] == "138****0001"


async def test_nothing_is_forgotten_while_something_is_open(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    ahead = await visit(here.pool, mine, one.id, NOW + 5 * DAY, status=2)
    held = await visit(here.pool, mine, one.id, NOW + 6 * DAY, status=1, n=1)
    refused = await erase(one, mine)
    assert (refused.status, refused["code"]) == (409, "erasure_blocked")
    assert {(x["code"], x["patient_id"]) for x in refused["obstacles"]} == {
        ("booking_ahead", mine),
        ("bill_open", mine),
    }
    assert (await row_of(here, mine))["contact_key"] is not None
    account = await one.ask(
        "POST",
        "/api/v1/account/erasure",
        key="k",
        json={"confirm": "erase", "id_digits": here.document(1)[-4:]},
    )
    assert {x["patient_id"] for x in account["obstacles"]} == {mine, None}
    assert not here.ledger.exists()
    asked = "select count(*) from erasure where account_id = $1"
    assert await here.pool.fetchval(asked, UUID(bytes=one.id)) == 0
    await here.pool.execute("update appointment set status = 5 where id = any ($1::uuid[])", [ahead, held])
    assert (await erase(one, mine)).status == 200


async def test_only_oneself_or_ones_child_and_by_the_document(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    mother = (await one.add(2, "parent", "李梅", "19600307"))["id"]
    child = (await one.add(3, "child", "王小小", "20200506"))["id"]
    wrong = await erase(one, mine, 9)
    assert (wrong.status, wrong["code"]) == (403, "erasure_refused")
    refused = await erase(one, mother, 2, "19600307")
    assert (refused.status, refused["code"]) == (403, "erasure_refused")
    stranger = await here.person("o2")
    assert (await erase(stranger, mine)).status == 404
    assert (await erase(one, child, 3, "20200506")).status == 200
    assert (await row_of(here, child))["record_key"] is None
    assert (await row_of(here, mine))["record_key"] is not None


async def test_a_retry_says_what_was_done_and_does_it_once(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    first, second = await erase(one, mine), await erase(one, mine)
    assert first.body == second.body
    assert here.ledger.read_text().count("xinglin-erased") == 2
    actions = await here.pool.fetch(
        "select action from audit_entry where action = 'patient_erased' and subjects @> array[$1::uuid]",
        UUID(mine),
    )
    assert len(actions) == 1
    assert (await erase(one, mine, key="k2")).status == 404  # nobody acts for this person any more


async def test_an_account_goes_with_its_sign_in_its_sessions_and_oneself(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    mother = (await one.add(2, "parent", "李梅", "19600307"))["id"]
    async with here.pool.acquire() as connection:
        await sessions.start(connection, new_session(one.id), NOW)
    body: dict[str, Any] = {"confirm": "erase"}
    refused = await one.ask("POST", "/api/v1/account/erasure", key="k", json=body)
    assert (refused.status, refused["code"]) == (403, "erasure_refused")
    body["id_digits"] = here.document(1)[-4:]
    done = await one.ask("POST", "/api/v1/account/erasure", key="k", json=body)
    assert done.status == 200 and [x["patient_id"] for x in done["people"]] == [mine]
    row = await here.pool.fetchrow("select * from account where id = $1", UUID(bytes=one.id))
    assert row["openid"].startswith("erased:") and row["contact_key"] is None and row["erased_at"] is not None
    assert (
        await here.pool.fetchval(
            "select count(*) from session where owner = $1 and revoked_at is null", UUID(bytes=one.id)
        )
        == 0
    )
    # The mother stays a patient of the hospital, but nobody's, and her phone here is gone.
    right = await here.pool.fetchrow(
        "select phone, revoked_at from account_patient where patient_id = $1", UUID(mother)
    )
    assert right["phone"] is None and right["revoked_at"] is not None
    assert (await row_of(here, mother))["record_key"] is not None
    # Signing in with the same WeChat is somebody new.
    assert (await here.person("o1")).id != one.id


async def test_a_penalty_is_not_escaped_by_a_new_account(here: Office) -> None:
    one = await here.person("o1")
    await here.pool.execute(
        "insert into penalty (id, subject_kind, subject, rule, offence, begins, ends, evidence, created_at)"
        " values (gen_random_uuid(), 'account', $1, 'r', 'dropped_hold', $2, $3,"
        "         array[gen_random_uuid()], $2)",
        UUID(bytes=one.id),
        NOW - DAY,
        NOW + DAY,
    )
    refused = await one.ask("POST", "/api/v1/account/erasure", key="k", json={"confirm": "erase"})
    assert [x["code"] for x in refused["obstacles"]] == ["penalty_in_force"]


async def test_after_fifteen_years_the_record_key_goes_and_not_a_day_earlier(alone: Office) -> None:
    one = await alone.person("o1")
    mine = (await one.add(1))["id"]
    await visit(alone.pool, mine, one.id, NOW - 30 * DAY)
    done = await erase(one, mine)
    until = datetime.fromisoformat(done["people"][0]["kept_until"]).replace(tzinfo=ZONE)
    erasures = alone.app[keys.ERASURES]
    async with alone.pool.acquire() as connection:
        assert await erasure.expire(connection, erasures, Clock(until - timedelta(seconds=1), ZONE)) == []
        assert (await row_of(alone, mine))["record_key"] is not None
        # A visit that was written down later keeps it longer, whatever was reckoned then.
        late = await visit(alone.pool, mine, one.id, NOW - 20 * DAY, n=1)
        assert await erasure.expire(connection, erasures, Clock(until, ZONE)) == []
        assert (await row_of(alone, mine))["record_key"] is not None
        await connection.execute("delete from appointment where id = $1", late)
        after = until + 11 * DAY
        assert await erasure.expire(connection, erasures, Clock(after, ZONE)) == [UUID(mine).bytes]
        assert await erasure.expire(connection, erasures, Clock(after, ZONE)) == []
    row = await row_of(alone, mine)
    assert row["record_key"] is None and row["id_index"] is None and row["birth_date"] is None
    assert await alone.pool.fetchval("select count(*) from kept_identity") == 0
    assert await alone.pool.fetchval("select finished_at from erasure") is not None


async def test_only_the_machines_operator_reads_who_is_restricted_and_not_unnoted(
    database: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir(0o700)
    connection = await asyncpg.connect(database)
    vault = await open_vault(connection, Settings(home=home))
    await connection.close()
    async with office(database, vault, tmp_path) as alone:
        one = await alone.person("o1")
        mine = (await one.add(1))["id"]
        await visit(alone.pool, mine, one.id, NOW - 30 * DAY)

        async def command(patient: str) -> tuple[int, str]:
            arguments = ["privacy", "restricted", patient, "--reason", "法院调取", "--home", str(home)]
            result = await asyncio.to_thread(
                CliRunner().invoke, main, [*arguments, "--database-url", database]
            )
            return result.exit_code, result.output

        assert (await command(mine))[0] == 1
        await erase(one, mine)
        status, told = await command(mine)
        assert status == 0 and told.startswith(f"王小明 resident_id {alone.document(1)}, kept until 20")
        noted = await alone.pool.fetch(
            "select by_kind, reason, subjects from audit_entry where action = 'restricted_identity_read'"
        )
        assert [tuple(row) for row in noted] == [("operator", "法院调取", [UUID(mine)])]


async def test_what_a_restore_brings_back_is_forgotten_again(alone: Office, database: str) -> None:
    """The database as it was before, with the ledger of today: as after `xinglin restore`."""
    one, two = await alone.person("o1"), await alone.person("o2")
    gone, kept = (await one.add(1))["id"], (await two.add(2, name="李四"))["id"]
    await visit(alone.pool, kept, two.id, NOW - 30 * DAY)
    copy = f"{database}_before"
    await alone.pool.expire_connections()
    server, name = database.rsplit("/", 1)
    admin = await asyncpg.connect(f"{server}/postgres")
    await alone.pool.close()
    await admin.execute(f'create database "{name}_before" template "{name}"')
    alone.app[keys.POOL] = alone.pool = await asyncpg.create_pool(database, min_size=1, max_size=4)
    body = {"confirm": "erase", "id_digits": alone.document(1)[-4:]}
    assert (await one.ask("POST", "/api/v1/account/erasure", key="k", json=body)).status == 200
    assert (await erase(two, kept, 2)).status == 200
    old = await asyncpg.connect(copy)
    try:
        ledger = alone.ledger.with_name("erased-copy.log")
        shutil.copy(alone.ledger, ledger)
        erasures = Erasures((ledger,))
        assert await old.fetchval("select count(*) from patient where name is not null") == 2
        assert await erasures.apply(old) > 0
        assert await erasure.erase_again(old, erasures, Clock(NOW, ZONE)) == 3  # two people, one login
        names = await patient_names(old, alone.vault, [UUID(gone).bytes, UUID(kept).bytes])
        assert set(names.values()) == {ERASED_NAME}
        was = await old.fetchrow(
            "select name, id_index, record_key, birth_date from patient where id = $1", UUID(gone)
        )
        assert set(was) == {None}
        restricted = await old.fetchrow("select record_key from patient where id = $1", UUID(kept))
        assert restricted["record_key"] is not None
        assert (
            await old.fetchval("select until from kept_identity where patient_id = $1", UUID(kept))
            is not None
        )
        assert await old.fetchval("select count(*) from account_patient where phone is not null") == 0
        openids = {row["openid"] for row in await old.fetch("select openid from account")}
        assert one.openid not in openids and two.openid in openids
        # Once more changes nothing.
        assert await erasures.apply(old) == 0
        assert await erasure.erase_again(old, erasures, Clock(NOW, ZONE)) == 0
    finally:
        await old.close()
        await admin.execute(f'drop database "{name}_before" with (force)')
        await admin.close()
        await alone.pool.close()
