"""The dry run over recorded waiting rooms: whom other rules would have called, read back from the journal."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import date
from io import StringIO
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import pytest
import yaml
from rich.console import Console

from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey
from engine.domain.policy import Policy
from engine.domain.queue_order import Why
from engine.domain.refusal import Refusal
from engine.domain.waiting_terms import WaitingTerms
from engine.journal.codec import EVENT_CODES, pack_event
from engine.records.policies import store_policy
from engine.records.policy_file import read_policy
from tests.support.stores import uid
from tests.support.system import run
from web.policy_dry_run_rooms import compare_rooms, show_rooms

SHANGHAI = ZoneInfo("Asia/Shanghai")
KEY = RoomKey("0304", "2027-01-15")
EIGHT = 1_799_971_200_000  # 08:00 in Shanghai
MINUTE = 60_000
IN_FORCE = """\
waiting:
  check_in: {early: any_time, distance_metres_max: 900}
  order: {classes: [{code: soldier, rank: 1, every: 0}]}
"""
ELSE = """\
waiting:
  check_in: {early: 1h, distance_metres_max: 200}
  order: {classes: []}
"""
RULES = read_policy(IN_FORCE, Policy()).waiting_of(KEY.department_id).rules


def a_morning() -> list[w.Event]:
    """Ann has the first number and lives near, bob the third and is far; the soldier has the second and goes
    first; cy walks in at last."""
    room = w.WaitingRoom()
    events: list[w.Event] = []

    def do(minute: int, command: w.Command) -> bytes:
        outcome = w.decide(room, command, EIGHT + minute * MINUTE, RULES)
        assert not isinstance(outcome, Refusal), outcome
        for event in outcome:
            w.apply(room, event)
            events.append(event)
        return w.reply_to(room, command).ticket_id

    def come(minute: int, name: str, number: int, distance_m: int, priority: str = "") -> None:
        command = w.CheckIn(
            uid("in", number),
            uid(name),
            "mini_program",
            distance_m,
            uid("appointment", number),
            uid(name),
            KEY.department_id,
            "D1",
            KEY.day,
            True,
            EIGHT + 30 * MINUTE,
            EIGHT + 60 * MINUTE,
            EIGHT + 240 * MINUTE,
            number,
            priority=priority,
        )
        do(minute, command)

    do(-90, w.OpenDay(uid("open"), KEY.department_id, KEY.day, EIGHT + 600 * MINUTE))
    do(-90, w.SetQueue(uid("queue"), "D1", "visit", "A", 501, 999, "D1"))
    do(-90, w.OpenRoom(uid("room"), "R1", ("D1",), "D1"))
    come(-60, "ann", 1, 50)
    come(0, "soldier", 2, 100, "soldier")
    come(1, "bob", 3, 500)
    for n in range(4):
        if n == 3:
            do(33, w.TakeNumber(uid("cy"), uid("cy"), "kiosk", "D1"))
        ticket = do(10 * n + 5, w.CallNext(uid("call", n), "R1", "D1"))
        do(10 * n + 6, w.StartService(uid("start", n), ticket, "D1"))
    return events


async def record(connection: asyncpg.Connection, key: RoomKey, events: list[w.Event], after: int = 0) -> None:
    """`after`: events that the shard has already."""
    await connection.execute("insert into shard (id) values (0) on conflict do nothing")
    await connection.executemany(
        "insert into event (shard, seq, stream, version, type, at, data)"
        " values (0, $1::int, $2, $3, $4, to_timestamp($5::float8 / 1000), $6)",
        [
            (after + n, key.stream, n, EVENT_CODES[type(event)], event.at, pack_event(event))
            for n, event in enumerate(events, start=1)
        ],
    )


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="xinglin-policy-") as name:
        yield Path(name)


async def test_a_recorded_morning_under_other_rules(connection: asyncpg.Connection) -> None:
    events = a_morning()
    await record(connection, KEY, events)
    day = date.fromisoformat(KEY.day)
    before = read_policy(IN_FORCE, Policy())
    (found,) = await compare_rooms(connection, day, day, before, read_policy(ELSE, Policy()))
    assert found.key == KEY
    assert found.before.rehearsed == w.Rehearsal(4, ()), "under its own rules everything was as it was"
    assert (found.before.too_far, found.before.too_early) == (0, 0)
    (differs,) = found.after.rehearsed.differs
    assert found.after.rehearsed.calls == 4
    assert (found.numbers[differs.called], found.numbers[differs.instead]) == ("A002", "A001")
    assert differs.why is not None
    assert differs.why.why is Why.LOWER_NUMBER
    assert (found.after.too_far, found.after.too_early) == (1, 1)

    told = StringIO()
    show_rooms([found], SHANGHAI, Console(width=160, file=told))
    text = told.getvalue()
    assert "08:05 R1: A001 rather than A002 (number 1 before 2)" in text
    assert "1 recorded waiting rooms, 4 calls by the rules: 1 would go to somebody else; 0 days as" in text


async def test_only_the_days_that_were_asked_for_and_each_under_its_department_s_rules(
    connection: asyncpg.Connection,
) -> None:
    events = a_morning()
    another, later = RoomKey("0305", KEY.day), RoomKey("0304", "2027-01-16")
    for n, key in enumerate((KEY, another, later)):
        await record(connection, key, events, n * len(events))
    day = date.fromisoformat(KEY.day)
    before = Policy(waiting={"": WaitingTerms(RULES)})
    after = replace(before, waiting={**before.waiting, "0305": WaitingTerms()})
    found = await compare_rooms(connection, day, day, before, after)
    assert [(each.key, each.differs) for each in found] == [(KEY, False), (another, True)]
    told = StringIO()
    show_rooms(found, SHANGHAI, Console(width=160, file=told))
    assert "0305" in told.getvalue()
    assert "0304" not in told.getvalue()
    assert await compare_rooms(connection, date(2027, 1, 17), date(2027, 1, 18), before, after) == []


async def test_dry_run_and_show(connection: asyncpg.Connection, database: str, folder: Path) -> None:
    await record(connection, KEY, a_morning())
    async with connection.transaction():
        await store_policy(connection, IN_FORCE, "test")
    file = folder / "else.yaml"
    file.write_text(ELSE)
    at = ("--database-url", database)
    done = run("policy", "dry-run", str(file), "--from", "2027-01-01", "--to", "2027-01-31", *at)
    assert done.returncode == 0, done.stderr
    assert "4 calls by the rules: 1 would go to somebody else" in " ".join(done.stdout.split())

    shown = run("policy", "show", *at)
    assert shown.stdout == IN_FORCE
    shown = run("policy", "show", "--waiting", "0304", *at)
    assert "the hospital's" in shown.stderr
    said = yaml.safe_load(shown.stdout)
    assert said["waiting"]["check_in"]["early"] == "any_time"
    assert read_policy(shown.stdout, Policy()).waiting_of("0304").rules == RULES
