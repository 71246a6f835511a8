"""The audit as a gateway writes and shows it: over HTTP, in one process, on a real database."""

import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audit.accesses import accesses_of, affected
from engine.audit.entries import Actor, Entry, write
from engine.audit.search import Line
from engine.database import as_app
from engine.domain import schedule as s
from engine.domain.by import by_staff
from engine.domain.policy import Channel
from engine.journal.codec import EVENT_CODES, pack_event
from engine.records.staff import Role, Staff
from tests.support.one_process import OneProcess, serving
from tests.support.stores import PostgresWorld
from web.auditing import AGAIN_SECONDS, Readings
from web.auditors.export import NAMES, as_csv, as_json, cell

ANN, BEN = bytes(15) + b"\x01", bytes(15) + b"\x02"


def staff(role: str, n: int) -> Staff:
    return Staff(
        bytes(14) + b"\x07" + bytes([n]), f"a-{role}", role, frozenset({role}), None, None, Channel.WINDOW
    )


AUDITOR, DESK = staff(Role.AUDIT_ADMIN, 1), staff(Role.DESK, 2)


@dataclass(frozen=True, slots=True)
class House:
    one: OneProcess
    world: PostgresWorld
    http: aiohttp.ClientSession

    async def get(self, path: str, who: Staff = AUDITOR, **query: Any) -> Any:
        token = self.one.tokens.issue_staff(who).access_token
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.get(self.one.address + path, params=query, headers=headers) as answer:
            body = await answer.read()
            assert answer.status == 200, body
            return json.loads(body) if answer.content_type == "application/json" else body.decode()


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    """As gateways are: with the rights of the app alone."""
    world = PostgresWorld(as_app(database))
    try:
        async with serving(world, database) as one, aiohttp.ClientSession() as http:
            yield House(one, world, http)
    finally:
        await world.close()


async def test_the_auditor_searches_exports_and_is_written_down_himself(house: House) -> None:
    pool = await house.world.pool()
    who = Actor("staff", DESK.id, DESK.username)
    for n in range(5):
        await write(pool, Entry("vitals_read", who, (ANN,) if n % 2 else (ANN, BEN), ("ticket", f"t-{n}")))
    await write(pool, Entry("staff_disabled", who, object=("staff", "x"), reason='=HYPERLINK("http://x")'))
    await write(
        pool, Entry("break_glass_used", Actor("staff", AUDITOR.id, "other"), (ANN,), reason="急诊抢救")
    )

    first = await house.get("/api/v1/audit/entries", patient=str(UUID(bytes=BEN)), limit=2)
    assert [one["object_id"] for one in first["entries"]] == ["t-4", "t-2"]
    rest = await house.get(
        "/api/v1/audit/entries", patient=str(UUID(bytes=BEN)), limit=2, before=first["next"]
    )
    assert [one["object_id"] for one in rest["entries"]] == ["t-0"]
    assert rest["next"] is None
    by = await house.get("/api/v1/audit/entries", by=DESK.username, action="staff_disabled")
    assert [one["reason"] for one in by["entries"]] == ['=HYPERLINK("http://x")']
    later = datetime.now(UTC) + timedelta(hours=1)
    assert (await house.get("/api/v1/audit/entries", since=later.isoformat()))["entries"] == []

    table = list(csv.reader(io.StringIO(await house.get("/api/v1/audit/export", by=DESK.username))))
    assert table[0][0].lstrip("\ufeff") == "id" and len(table) == 7
    assert table[-1][NAMES.index("reason")] == '\'=HYPERLINK("http://x")'
    told = await house.get("/api/v1/audit/export", format="jsonl", action="break_glass_used")
    assert [json.loads(line)["subjects"] for line in told.splitlines()] == [[str(UUID(bytes=ANN))]]

    # That he looked is there, with what he asked for and by which request.
    looks = await house.get("/api/v1/audit/entries", by=AUDITOR.username)
    assert [one["action"] for one in looks["entries"]] == ["audit_exported"] * 2 + ["audit_read"] * 4
    assert looks["entries"][-1]["detail"] == {"patient": str(UUID(bytes=BEN)), "limit": 2}
    assert all(len(one["request_id"]) == 32 and one["gateway"] == "gateway-0" for one in looks["entries"])

    since, until = datetime.now(UTC) - timedelta(minutes=5), datetime.now(UTC) + timedelta(minutes=5)
    found = await house.get(
        "/api/v1/audit/affected",
        by_id=str(UUID(bytes=DESK.id)),
        since=since.isoformat(),
        until=until.isoformat(),
    )
    assert [(one["patient_id"], one["times"]) for one in found["people"]] == [
        (str(UUID(bytes=ANN)), 5),
        (str(UUID(bytes=BEN)), 3),
    ]
    assert (await house.get("/api/v1/audit/chain"))["block"] == 0
    behind = {"relation": "broken_glass"}
    await write(pool, Entry("patient_record_read", Actor("staff", AUDITOR.id, "x"), (ANN,), detail=behind))
    accesses = await accesses_of(pool, ANN, limit=4)
    assert [(one.action, one.is_break_glass) for one in accesses] == [
        ("patient_record_read", True),
        ("break_glass_used", True),
        ("vitals_read", False),
        ("vitals_read", False),
    ]
    assert [one.object_kind for one in await accesses_of(pool, ANN, accesses[-1].id, 50)] == ["ticket"] * 3


async def test_each_request_has_an_id_that_nobody_can_make_a_sentence_of(house: House) -> None:
    given = "0123456789abcdef0123456789ABCDEF"
    for said, is_taken in (
        (given, True),
        ("01234567-89ab-cdef-0123-456789abcdef", True),
        ("13800138000", False),
        ("11010119900307803X", False),
        (given + "0", False),
        ("x" * 32, False),
        ("", False),
    ):
        async with house.http.get(f"{house.one.address}/healthz", headers={"X-Request-Id": said}) as answer:
            told = answer.headers["X-Request-Id"]
        assert (told == given.lower()) is is_taken
        assert len(told) == 32
    async with house.http.get(f"{house.one.address}/api/v1/audit/chain") as answer:
        assert answer.status == 401
        assert len(answer.headers["X-Request-Id"]) == 32


async def test_nobody_else_reads_the_audit(house: House) -> None:
    roles = [role for role in Role if role is not Role.AUDIT_ADMIN]
    for n, role in enumerate(roles):
        token = house.one.tokens.issue_staff(staff(role, 50 + n)).access_token
        for path in ("entries", "export", "chain"):
            headers = {"Authorization": f"Bearer {token}"}
            async with house.http.get(f"{house.one.address}/api/v1/audit/{path}", headers=headers) as answer:
                assert answer.status == 403, (role, path)
    pool = await house.world.pool()
    assert await pool.fetchval("select count(*) from audit_entry where action like 'audit_%'") == 0


async def test_an_account_in_the_wrong_hands_names_whom_it_concerns(database: str) -> None:
    """By the journal as well: what somebody did to numbers is there and not in the audit a second time."""
    connection = await asyncpg.connect(database)
    try:
        number, ticket = bytes(15) + b"\x21", bytes(15) + b"\x22"
        held = s.SeatHeld(number, "0800", 0, ANN, bytes(15) + b"\x31", 0, by=by_staff(DESK.id))
        issued = s.SeatHeld(ticket, "0800", 1, BEN, bytes(15) + b"\x31", 0, by=by_staff(AUDITOR.id))
        booked = s.SeatBooked(ticket, by_staff(DESK.id))
        await connection.execute("insert into shard (id, seq) values (0, 3)")
        for n, event in enumerate((held, issued, booked), 1):
            await connection.execute(
                "insert into event values (0, $1, 'schedule/D/2026-11-24', $2, $3, now(), $4)",
                n,
                n,
                EVENT_CODES[type(event)],
                pack_event(event),
            )
        await connection.execute(
            "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id,"
            " account_id, status, fee_fen, starts_at, created_at, updated_at, department_id,"
            " number_class_id, channel, visit) values ($1, 'D-20261124', 'D-20261124-0800', 1, 5, 2, $2, $2,"
            " 2, 0, now(), now(), now(), 'd', 'n', 1, 0)",
            UUID(bytes=ticket),
            UUID(bytes=BEN),
        )
        since, until = datetime.now(UTC) - timedelta(minutes=5), datetime.now(UTC) + timedelta(minutes=5)
        found = await affected(connection, DESK.id, since, until)
        assert {one.patient_id: one.actions for one in found} == {ANN: ("SeatHeld",), BEN: ("SeatBooked",)}
        assert await affected(connection, DESK.id, until, until + timedelta(1)) == []
    finally:
        await connection.close()


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_board_that_is_looked_at_all_morning_is_noted_once_an_hour() -> None:
    clock, nurse = Clock(), Actor("staff", DESK.id, "n")
    readings = Readings(clock, most=3)
    assert readings.new(nurse, "board_read", [ANN, BEN, ANN]) == [ANN, BEN]
    readings.remember(nurse, "board_read", [ANN])
    assert readings.new(nurse, "board_read", [ANN, BEN]) == [BEN]
    assert readings.new(nurse, "vitals_read", [ANN]) == [ANN]  # for another purpose
    assert readings.new(Actor("staff", AUDITOR.id, "x"), "board_read", [ANN]) == [ANN]  # by somebody else
    clock.now += AGAIN_SECONDS - 1
    assert readings.new(nurse, "board_read", [ANN]) == []
    clock.now += 1
    assert readings.new(nurse, "board_read", [ANN]) == [ANN]
    readings.remember(nurse, "board_read", [bytes([n]) * 16 for n in range(9)])
    assert len(readings) == 3  # never more than it may hold


@given(st.text())
def test_no_cell_of_a_spreadsheet_is_a_formula(text: str) -> None:
    shown = cell(text)
    assert shown in (text, f"'{text}")
    assert not shown.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_every_line_of_an_export_reads_back(reason: str, name: str, detail: dict[str, str]) -> None:
    line = Line(
        1, datetime.now(UTC), "x_read", "staff", ANN, name, (ANN, BEN), "k", "o", "done", reason, None, None,
        None, detail,
    )  # fmt: skip
    (row,) = csv.reader(io.StringIO(as_csv(line), newline=""))
    assert len(row) == len(NAMES)
    assert row[NAMES.index("reason")].removeprefix("'") == reason.removeprefix("'")
    said = as_json(line)
    assert said.count("\n") == 1
    assert json.loads(said)["detail"] == detail
