"""A copy of all one's data: nothing is forgotten, nobody else's is in it, and it is as it is documented."""

import html
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import TypeAdapter

from engine.embedded_postgres import EmbeddedPostgres
from engine.records import no_show_calls, vitals
from engine.records.erasure import Clock
from engine.records.no_show_calls import Outcome
from engine.records.personal_export import EXPORTED, LEFT_OUT, SECTIONS, pages, whose
from engine.records.vitals import Measured
from engine.vault.vault import Vault
from tests.support.privacy import ZONE, Office, Person, fresh_database, office, visit
from web.privacy.export import ExportAnswer
from web.privacy.export_page import TITLES

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


async def export(one: Person) -> dict[str, Any]:
    told = await one.ask("GET", "/api/v1/account/export")
    assert told.status == 200
    # As documented, to the last key.
    TypeAdapter(ExportAnswer).validate_json(json.dumps(told.body))
    assert set(told.body) == {field.name for field in fields(ExportAnswer)}
    return told.body


async def test_every_table_that_knows_of_people_is_in_it_or_said_to_be_left_out(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        tables = {
            row["relname"]
            for row in await connection.fetch(
                # Ids of people and accounts are UUIDs; journal and errands have them within their data.
                "select distinct c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid"
                " where c.relkind in ('r', 'p') and c.relnamespace = current_schema()::regnamespace"
                "   and a.attnum > 0 and not a.attisdropped"
                "   and (a.atttypid in ('uuid'::regtype, 'uuid[]'::regtype)"
                "        or c.relname in ('event', 'errand')"
                "        or a.attname ~ 'phone|openid|patient|account_id|id_number')"
            )
        }
        views = await connection.fetch(
            "select matviewname from pg_matviews where schemaname = current_schema()"
        )
    finally:
        await connection.close()
    assert tables - EXPORTED.keys() - LEFT_OUT.keys() == set(), "put each into EXPORTED or LEFT_OUT"
    assert (EXPORTED.keys() | LEFT_OUT.keys()) - tables == set()
    assert EXPORTED.keys() & LEFT_OUT.keys() == set()
    assert not views and all(LEFT_OUT.values())


def test_every_section_has_a_table_and_its_place_in_the_document() -> None:
    names = {section.name for section in SECTIONS}
    assert set(EXPORTED.values()) - {"account"} == names
    assert names <= {field.name for field in fields(ExportAnswer)}
    assert set(TITLES) == names | {"account"}


async def test_all_of_ones_own_is_in_it(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    await one.ask("POST", "/api/v1/consents", json={"kind": "messages", "version": "2026.1"})
    number = await visit(here.pool, mine, one.id, NOW - 3 * DAY)
    ticket = await a_ticket(here.pool, mine, number)
    bill = await a_bill(here.pool, mine, one.id, number)
    staff = await a_nurse(here.pool)
    async with here.pool.acquire() as connection:
        measured = Measured(120, 80, 70, None, 98, None, None, "planted clinical words")
        await vitals.add_vitals(connection, here.vault, ticket.bytes, measured, staff.bytes, "k", NOW)
        await no_show_calls.note_call(
            connection,
            here.vault,
            number.bytes,
            Outcome.NOT_REACHED,
            "planted words of a call",
            staff.bytes,
            "c",
            NOW,
        )
        await connection.execute(
            "insert into notice (subject, kind, step, patient_id, department_id, day, at, data)"
            " values ($1, 'ahead', '1/3', $2, '0304', $3, $4, '{\"ahead\": 3}')",
            ticket,
            UUID(mine),
            date(2026, 11, 20),
            NOW,
        )
        await connection.execute("insert into way values ($1, 25, $2)", number, NOW)
        await connection.execute(
            "insert into penalty"
            " (id, subject_kind, subject, rule, offence, begins, ends, evidence, created_at)"
            " values (gen_random_uuid(), 'patient', $1, 'r', 'no_show', $2, $3, array[$4::uuid], $2)",
            UUID(mine),
            NOW - 2 * DAY,
            NOW + DAY,
            number,
        )
        await connection.execute(
            "insert into calling_list_look (staff_id, at, department_id, day, patient_ids, in_full)"
            " values ($1, $2, '0304', $3, array[$4::uuid], true)",
            staff,
            NOW,
            date(2026, 11, 20),
            UUID(mine),
        )
    penalty = (await one.ask("GET", "/api/v1/penalties"))["penalties"][0]["id"]
    appealed = await one.ask(
        "POST", f"/api/v1/penalties/{penalty}/appeals", key="a", json={"text": "planted words of an appeal"}
    )
    assert appealed.status == 201
    told = await export(one)
    assert told["account"]["openid"] == one.openid and told["account"]["consents"] == ["messages"]
    (person,) = told["people"]
    assert (person["name"], person["phone"], person["is_own"]) == ("王小明", "13800000001", True)
    assert person["id_number"] == "110" + "*" * 11 + here.document(1)[-4:]
    assert [x["id"] for x in told["appointments"]] == [str(number)]
    assert [x["id"] for x in told["tickets"]] == [str(ticket)]
    (paid,) = told["bills"]
    assert (paid["id"], paid["appointment_id"]) == (str(bill), str(number))
    assert (paid["fen"], paid["refunded_fen"], paid["opened_by_this_account"]) == (2_000, 500, True)
    assert paid["lines"] == [
        {"kind": "registration", "item": "general", "name": "", "fen": 2_500, "quantity": 1}
    ]
    assert paid["discounts"] == [{"rule": "coupon", "name": "C7", "fen": 500}]
    assert [x["transaction_id"] for x in paid["payments"]] == ["t1"]
    assert [(x["fen"], x["is_done"]) for x in paid["refunds"]] == [(500, True)]
    assert told["vitals"][0]["note"] == "planted clinical words" and told["vitals"][0]["systolic"] == 120
    assert told["calls"][0]["note"] == "planted words of a call"
    assert told["penalties"][0]["appeal_text"] == "planted words of an appeal"
    assert [x["act"] for x in told["consents"]] == ["given"]
    assert told["notices"][0]["data"] == {"ahead": 3} and told["ways"][0]["minutes"] == 25
    assert told["looks"][0]["in_full"]
    # The export itself is an access, and is in the next one.
    again = await export(one)
    assert "account_exported" in {x["action"] for x in again["accesses"]}


async def test_the_page_to_read_shows_what_was_written_as_text(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    await here.pool.execute(
        "insert into penalty"
        " (id, subject_kind, subject, rule, offence, begins, ends, evidence, created_at)"
        " values (gen_random_uuid(), 'patient', $1, 'r', 'no_show', $2, $3, array[gen_random_uuid()], $2)",
        UUID(mine),
        NOW - 2 * DAY,
        NOW + DAY,
    )
    penalty = (await one.ask("GET", "/api/v1/penalties"))["penalties"][0]["id"]
    markup = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    path = f"/api/v1/penalties/{penalty}/appeals"
    assert (await one.ask("POST", path, key="a", json={"text": markup})).status == 201
    headers = {"Authorization": f"Bearer {one.token}"}
    async with here.client.get("/api/v1/account/export/page", headers=headers) as answer:
        page = await answer.text()
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "<script" not in page and "<img" not in page and html.escape(markup) in page
    told = await export(one)
    headings = re.findall("<h2>(.*)</h2>", page)
    assert headings == [TITLES[name].zh for name in told if name in TITLES]
    assert "王小明" in page and here.document(1) not in page


async def test_of_others_it_has_what_the_right_shows(here: Office) -> None:
    one, two = await here.person("o1"), await here.person("o2")
    mother = (await one.add(2, "parent", "李梅", "19600307"))["id"]
    child = (await one.add(3, "child", "王小小", "20200506"))["id"]
    stranger = (await two.add(4, name="赵四"))["id"]
    ours = await visit(here.pool, mother, one.id, NOW - 3 * DAY)
    paid = {str(await a_bill(here.pool, mother, one.id, ours)) for _ in range(2)}
    await a_bill(here.pool, mother, two.id, ours)  # paid by somebody else
    await visit(here.pool, mother, two.id, NOW - 4 * DAY, n=1)  # booked by somebody else
    hers = await visit(here.pool, child, two.id, NOW - 5 * DAY, n=2)
    theirs = await visit(here.pool, stranger, two.id, NOW - 6 * DAY, n=3)
    waited = await a_ticket(here.pool, mother, ours)
    told = await export(one)
    assert {x["id"]: x["is_own"] for x in told["people"]} == {mother: False, child: True}
    assert {x["id"] for x in told["appointments"]} == {str(ours), str(hers)}
    assert [x["id"] for x in told["tickets"]] == [str(waited)]
    assert {x["id"] for x in told["bills"]} == paid
    assert str(theirs) not in json.dumps(told) and stranger not in json.dumps(told)
    # What the person does not let this account see, it does not get by exporting either.
    await here.pool.execute("update account_patient set may_see = false where patient_id = $1", UUID(mother))
    less = await export(one)
    assert {x["id"] for x in less["appointments"]} == {str(hers)} and less["tickets"] == []
    assert less["bills"] == []
    # Nor what it saw before the right ended.
    await here.pool.execute(
        "update account_patient set may_see = true, revoked_at = now() where patient_id = $1", UUID(child)
    )
    assert str(hers) not in json.dumps(await export(one))


async def a_bill(pool: asyncpg.Pool, patient_id: str, account_id: bytes, number: UUID) -> UUID:
    """As the journal would have written it: paid, and refunded in part."""
    id_, payment = UUID(bytes=secrets.token_bytes(16)), UUID(bytes=secrets.token_bytes(16))
    lines = json.dumps([["1", "registration", "general", 2500, 1]])
    discounts = json.dumps([["1", "coupon", "C7", 500, 0, 0]])
    await pool.execute(
        "insert into bill values ($1, $2, $3, 'o1', $4, $5, 2000, null, '0304', 'general', $6, $7, 2,"
        " 'partly_refunded', '', false, true, $8, 2000, 500, 0, 0, $7, $7, 11)",
        id_,
        UUID(bytes=account_id),
        UUID(patient_id),
        lines,
        discounts,
        number,
        NOW,
        payment,
    )
    await pool.execute(
        "insert into payment values ($1, $2, 'alipay', 'm', 2000, 4, '', 't1', 2000, true, $3, $3, $3)",
        payment,
        id_,
        NOW,
    )
    await pool.execute(
        "insert into refund values (gen_random_uuid(), $1, $2, 500, 'kindness', 5, '', 'alipay', 'r1', $3,"
        " $3)",
        id_,
        payment,
        NOW,
    )
    return id_


async def test_pages_leave_nothing_out_and_nothing_twice(here: Office) -> None:
    one = await here.person("o1")
    mine = (await one.add(1))["id"]
    made = {str(await visit(here.pool, mine, one.id, NOW - n * DAY, n=n)) for n in range(1, 8)}
    async with here.pool.acquire() as connection:
        of = await whose(connection, here.vault, one.id, Clock(NOW, ZONE))
    section = next(section for section in SECTIONS if section.name == "appointments")
    for page in (1, 2, 3, 7, 8):
        got = [row.id async for rows in pages(here.pool, here.vault, section, of, page) for row in rows]
        assert len(got) == len(made) and set(got) == made


async def test_more_than_a_gateway_can_write_at_a_time_is_told_to_wait(here: Office) -> None:
    from web import keys

    one = await here.person("o1")
    slots = here.app[keys.EXPORTS]
    while not slots.locked():
        await slots.acquire()
    busy = await one.ask("GET", "/api/v1/account/export")
    assert (busy.status, busy["code"], busy.headers["Retry-After"]) == (503, "export_busy", "5")
    slots.release()
    assert (await one.ask("GET", "/api/v1/account/export")).status == 200


async def a_ticket(pool: asyncpg.Pool, patient_id: str, appointment_id: UUID) -> UUID:
    id_ = UUID(bytes=secrets.token_bytes(16))
    await pool.execute(
        "insert into ticket"
        " (id, department_id, day, patient_id, appointment_id, prefix, number, status, queue_id,"
        "  practitioner_id, room_id, stage, stages, visit, priority, emergency, arrived_at, started_at,"
        "  done, version)"
        " values ($1, '0304', $2, $3, $4, 'A', $6, 8, '', '', '', 1, 1, 0, '', 0, $5, $5, '[]', 1)",
        id_,
        date(2026, 11, 20),
        UUID(patient_id),
        appointment_id,
        NOW - 3 * DAY,
        secrets.randbelow(1_000_000),
    )
    return id_


async def a_nurse(pool: asyncpg.Pool) -> UUID:
    id_ = UUID(bytes=secrets.token_bytes(16))
    await pool.execute(
        "insert into staff (id, username, name, password_hash, roles, department_id, channel, created_at)"
        " values ($1, $2, '护士', '', array['nurse'], '0304', 'window', now())",
        id_,
        str(id_),
    )
    return id_
