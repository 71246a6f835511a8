"""From committed events to an outside system, through a real database: actors/outbox.py."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry, generate_latest

import actors.delivery
import actors.outbox
from actors.outbox import Message, Outbox
from engine import embedded_postgres
from engine.database import BY_KEY
from engine.domain import schedule as s
from engine.records import outbox as records
from engine.records.outbox import New, Status
from integrations.connector import OutcomeUnknown, Refused, TryAgain
from tests.support.copies import copied, migrated
from tests.support.outboxes import DAY, Outside, booked, happen
from web.cli import main

STREAM = "schedule/D0001/2026-11-24"
SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def original(postgres: embedded_postgres.EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as made:
        yield made


@pytest.fixture
async def url(original: str) -> AsyncIterator[str]:
    async with copied(original) as made:
        yield made


@pytest.fixture
async def connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.outbox, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(actors.outbox, "STATUS_SECONDS", 0.01)


@asynccontextmanager
async def running(
    url: str, outside: Outside, registry: CollectorRegistry | None = None, in_flight_max: int = 8
) -> AsyncIterator["asyncio.Task[None]"]:
    outbox = Outbox(url, outside, look_seconds=0.01, registry=registry, in_flight_max=in_flight_max)
    task = asyncio.create_task(outbox.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(connection: asyncpg.Connection, is_so: Callable[[Status], bool]) -> Status:
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            for status in await records.status(connection, "outside"):
                if is_so(status):
                    return status
            await asyncio.sleep(0.01)


def quiet(status: Status) -> bool:
    return status.behind == 0 and status.waiting == status.blocked


async def happened(connection: asyncpg.Connection, *numbers: int, shard: int = 0) -> list[str]:
    """The ids of the messages that follow."""
    seqs = await happen(connection, shard, *((STREAM, booked(number)) for number in numbers))
    return [f"{shard}-{seq}-0" for seq in seqs]


async def test_a_new_subscriber_begins_where_the_journal_ends(
    url: str, connection: asyncpg.Connection
) -> None:
    await happened(connection, 1, 2)
    outside = Outside()
    async with running(url, outside):
        await until(connection, quiet)
        expected = await happened(connection, 3)
        expected += await happened(connection, 4, shard=7)  # a shard that was not there yet
        await until(connection, lambda status: quiet(status) and len(outside.applied) == 2)
    assert [id_ for _, id_ in outside.applied] == expected


async def test_one_from_the_beginning_hears_all(url: str, connection: asyncpg.Connection) -> None:
    expected = await happened(connection, 1, 2)
    outside = Outside()
    task = asyncio.create_task(Outbox(url, outside, from_beginning=True, look_seconds=0.01).run())
    await until(connection, lambda status: quiet(status) and len(outside.applied) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sorted(id_ for _, id_ in outside.applied) == expected


async def test_what_nobody_wants_moves_the_cursor(
    url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is more of it than is looked through at once, and where chunks are full."""
    monkeypatch.setattr(records, "WINDOW_EVENTS", 7)
    monkeypatch.setattr(actors.outbox, "CHUNK_EVENTS", 2)
    outside = Outside()
    await records.join(connection, "outside", False)
    others = [(STREAM, s.CoolingEnded(f"D0001-20261124-08{m}", 0)) for m in ("00", "30")] * 20
    expected = []
    for shard in (0, 1):
        await happen(connection, shard, *others)
        expected += await happened(connection, *range(5), shard=shard)
        await happen(connection, shard, *others)
    async with running(url, outside):
        await until(connection, quiet)
    assert sorted(id_ for _, id_ in outside.applied) == sorted(expected)
    assert len(outside.seen) == len(expected)
    cursors = await connection.fetch("select shard, seq from outbox_cursor order by shard")
    assert [tuple(row) for row in cursors] == [(0, 85), (1, 85)]


async def test_a_cause_comes_before_what_follows_from_it(
    url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One number's life goes on in another shard after a change; chunks end anywhere."""
    monkeypatch.setattr(actors.outbox, "CHUNK_EVENTS", 3)
    await records.join(connection, "outside", False)
    expected = []
    for n in range(30):  # at first all in one shard, then in another, then by turns
        expected += await happened(connection, 1, shard=n // 10 if n < 20 else n % 3)
    outside = Outside()
    async with running(url, outside):
        await until(connection, quiet)
    assert [id_ for _, id_ in outside.applied] == expected


async def test_events_are_found_by_the_primary_key(url: str, connection: asyncpg.Connection) -> None:
    await happened(connection, *range(200))
    await connection.execute("set enable_seqscan to on")
    reader = await asyncpg.connect(url, server_settings=BY_KEY)
    try:
        await reader.execute(
            f"prepare reading (int[], bigint[], bigint[], smallint[], int) as {records.EVENTS}"
        )
        rows = await reader.fetch("explain execute reading ('{0}', '{100}', '{200}', '{3}', 500)")
    finally:
        await reader.close()
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using event_pkey" in plan
    assert "Sort" not in plan.split("Index Scan using event_pkey")[1]


async def test_what_may_go_is_one_look_up_however_much_waits(
    url: str, connection: asyncpg.Connection
) -> None:
    await records.join(connection, "outside", False)
    new = [New(0, n, 0, f"a{n // 2}", "booked", {}, DAY) for n in range(20_000)]
    await records.write(connection, "outside", new)
    reader = await asyncpg.connect(url, server_settings=BY_KEY)
    try:
        await reader.execute(f"prepare taking (text, bigint, int) as {records._TAKE}")
        rows = await reader.fetch("explain (analyze, buffers) execute taking ('outside', 1, 64)")
        plan = "\n".join(row[0] for row in rows)
        assert "outbox_message_due" in plan
        assert "Seq Scan" not in plan
        taken = await records.take(reader, "outside", 2, 64)
    finally:
        await reader.close()
    assert len(taken) == 64
    assert len({one.aggregate for one in taken}) == 64
    due = await connection.fetchval("select count(*) from outbox_message where due_at is not null")
    assert due == 10_000, "the first of each aggregate, and no other"


async def test_a_dead_letter_holds_up_its_own_aggregate_alone(
    url: str, connection: asyncpg.Connection
) -> None:
    await records.join(connection, "outside", False)
    refused = set(await happened(connection, 1))
    behind = await happened(connection, 1, 1)
    others = await happened(connection, 2, 3)
    outside = Outside(say=lambda message: Refused("unknown_code") if message.id in refused else None)
    registry = CollectorRegistry()
    async with running(url, outside, registry):
        status = await until(connection, lambda status: quiet(status) and len(outside.applied) == 2)
        assert (status.dead, status.blocked, status.oldest_at) == (1, 2, None)
        [dead] = await records.dead_letters(connection, None, None, 10)
        assert {dead.id} == refused
        assert (dead.trouble, dead.behind, dead.tries) == ("refused: unknown_code", 2, 1)
        assert sorted(id_ for _, id_ in outside.applied) == others
        later = await happened(connection, 1, 2)  # behind it comes more, and stays there
        await until(connection, lambda status: status.blocked == 3 and len(outside.applied) == 3)
        figures = generate_latest(registry).decode()
        assert 'xinglin_outbox_messages_total{outcome="refused",subscriber="outside"} 1.0' in figures
        assert await records.replay(connection, "outside", [dead.position + 1]) == 0, "that one is not dead"
        assert outside.tries[dead.id] == 1
        mended = refused.pop()
        assert await records.replay(connection, "outside", None) == 1
        await until(connection, lambda status: quiet(status) and not status.dead)
    told = outside.by_aggregate()[booked(1).appointment_id.hex()]
    assert told == [mended, *behind, later[0]]


async def test_dropping_a_dead_letter_lets_the_next_go(url: str, connection: asyncpg.Connection) -> None:
    await records.join(connection, "outside", False)
    first, second, third = await happened(connection, 1, 1, 1)
    outside = Outside(say=lambda message: Refused("no") if message.id in (first, second) else None)
    async with running(url, outside):
        for dropped in (first, second):
            await until(connection, lambda status: status.dead == 1 and quiet(status))
            [dead] = await records.dead_letters(connection, "outside", None, 10)
            assert dead.id == dropped
            assert await records.drop(connection, "outside", [dead.position]) == 1
        await until(connection, lambda status: not status.waiting and not status.dead)
    assert [id_ for _, id_ in outside.applied] == [third]


async def test_one_works_at_a_time_and_the_next_takes_over(url: str, connection: asyncpg.Connection) -> None:
    await records.join(connection, "outside", False)
    began, never = asyncio.Event(), asyncio.Event()

    class Hanging(Outside):
        async def deliver(self, message: Message) -> None:
            began.set()
            await never.wait()

    hanging, outside = Hanging(), Outside()
    async with running(url, hanging) as task:
        expected = await happened(connection, 1, 2)
        await began.wait()
        async with running(url, outside):
            assert not outside.tries
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(connection, quiet)
    assert sorted(id_ for _, id_ in outside.applied) == expected
    assert set(outside.asked) == set(expected), "nobody knows what became of them: each is asked about"


async def test_without_the_lock_nothing_is_delivered(url: str, connection: asyncpg.Connection) -> None:
    """The server drops the connection: what is under way is given up before anybody else may begin."""
    await records.join(connection, "outside", False)
    began, ended = asyncio.Event(), asyncio.Event()

    class Slow(Outside):
        async def deliver(self, message: Message) -> None:
            if message.tries == 0 and not message.is_uncertain:
                began.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
            await Outside.deliver(self, message)

    outside = Slow()
    async with running(url, outside):
        [expected] = await happened(connection, 1)
        await began.wait()
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and datname = current_database()"
        )
        async with asyncio.timeout(SECONDS_MAX):
            await ended.wait()
        await until(connection, quiet)
    assert [id_ for _, id_ in outside.applied] == [expected]
    assert outside.asked[expected] == 1


async def test_who_cannot_say_what_follows_still_delivers(
    url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.outbox, "TROUBLE_SECONDS", 0.05)
    await records.join(connection, "outside", False)
    is_broken = False

    class Breaking(Outside):
        async def messages(self, connection, events):  # type: ignore[no-untyped-def]
            if is_broken:
                raise ZeroDivisionError
            return await Outside.messages(self, connection, events)

    away = True
    outside = Breaking(say=lambda message: TryAgain("away", 0.01) if away else None)
    registry = CollectorRegistry()
    async with running(url, outside, registry):
        first = await happened(connection, 1)
        await until(connection, lambda status: status.waiting == 1)
        is_broken = True
        second = await happened(connection, 2)
        async with asyncio.timeout(SECONDS_MAX):
            while "reading_faults_total{" not in (told := generate_latest(registry).decode()) or (
                'reading_faults_total{subscriber="outside"} 0.0' in told
            ):
                await asyncio.sleep(0.01)
        away = False
        await until(connection, lambda status: status.waiting == 0)
        assert [id_ for _, id_ in outside.applied] == first
        is_broken = False
        await until(connection, quiet)
    assert [id_ for _, id_ in outside.applied] == first + second


async def test_an_outage_costs_few_calls_and_ends_at_once(url: str, connection: asyncpg.Connection) -> None:
    await records.join(connection, "outside", False)
    away = True
    outside = Outside(say=lambda message: TryAgain("away") if away else None)
    async with running(url, outside, in_flight_max=16):
        expected = await happened(connection, *range(500))
        await until(connection, lambda status: status.behind == 0 and sum(outside.tries.values()) >= 17)
        for _ in range(20):  # looks at the database; the breaker's first pause is longer
            await records.status(connection)
        assert sum(outside.tries.values()) < 60, "of 500 that wait"
        away = False
        await until(connection, quiet)
    assert sorted(id_ for _, id_ in outside.applied) == sorted(expected)


async def test_they_are_asked_again_when_they_said(url: str, connection: asyncpg.Connection) -> None:
    await records.join(connection, "outside", False)
    outside = Outside(say=lambda message: TryAgain("closed until nine", 1800.0))
    async with running(url, outside):
        await happened(connection, 1)
        async with asyncio.timeout(SECONDS_MAX):
            while not (
                row := await connection.fetchrow(
                    "select extract(epoch from due_at - now()) as left, trouble, is_uncertain"
                    "  from outbox_message where tries = 1"
                )
            ):
                await asyncio.sleep(0.01)
    assert 1700 < row["left"] <= 1800
    assert (row["trouble"], row["is_uncertain"]) == ("closed until nine", False)


async def test_an_error_of_ours_ends_as_a_dead_letter(
    url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.delivery, "PAUSE_SECONDS_MIN", 0.001)

    def say(message: Message) -> Exception | None:
        return KeyError("a patient's name") if message.aggregate == booked(1).appointment_id.hex() else None

    await records.join(connection, "outside", False)
    outside = Outside(say=say)
    async with running(url, outside):
        await happened(connection, 1)
        await happened(connection, 2)
        await until(connection, lambda status: quiet(status) and status.dead == 1)
    [dead] = await records.dead_letters(connection, "outside", None, 10)
    assert dead.trouble == "our error: KeyError"
    assert outside.tries[dead.id] == actors.delivery.FAULTS_MAX
    assert len(outside.applied) == 1


async def test_no_more_are_under_way_than_there_is_room_for(url: str, connection: asyncpg.Connection) -> None:
    await records.join(connection, "outside", False)
    most = 0

    class Watching(Outside):
        async def deliver(self, message: Message) -> None:
            nonlocal most
            most = max(most, len(self.busy) + 1)
            await Outside.deliver(self, message)
            if message.tries == 0:
                raise OutcomeUnknown("lost")

    outside = Watching()
    async with running(url, outside, in_flight_max=4):
        await happened(connection, *range(200))
        await until(connection, lambda status: quiet(status) and len(outside.applied) == 200)
    assert most <= 4
    assert outside.inversions == []


async def test_commands(url: str, connection: asyncpg.Connection) -> None:
    """`xinglin outbox`: status, dead, replay, drop, forget; each change is in the audit."""

    async def invoked(*words: str) -> Result:
        words = ("outbox", *words, "--database-url", url)
        return await asyncio.to_thread(CliRunner().invoke, main, words)

    async def said(*words: str) -> str:
        done = await invoked(*words)
        assert done.exit_code == 0, done.output
        return done.output

    async def states() -> list[str]:
        return [
            row[0] for row in await connection.fetch("select state from outbox_message order by position")
        ]

    await records.join(connection, "his", False)
    new = [New(0, n, 0, f"a{n}", "registration", {}, DAY) for n in range(3)]
    await records.write(connection, "his", new)
    taken = sorted(await records.take(connection, "his", 1, 3))
    dead = [records.Dead(one.position, "refused: unknown_doctor") for one in taken]
    async with connection.transaction():
        await records.settle(connection, "his", [], [], dead)
    first, second, _ = (str(one.position) for one in taken)
    assert "his" in await said("status")
    assert (await said("dead")).count("refused: unknown_doctor") == 3
    assert (await said("dead", "broker")) == ""
    assert "1 dead letters of his are tried anew" in await said("replay", "his", first)
    await said("drop", "his", second, "--reason", "told by telephone")
    assert await states() == ["waiting", "dead"]
    bad = await invoked("replay", "his")
    assert (bad.exit_code, "say --all" in bad.output) == (1, True)
    bad = await invoked("drop", "his", second, "--reason", "again")
    assert (bad.exit_code, "no such dead letter" in bad.output) == (1, True)
    await said("replay", "his", "--all")
    assert await states() == ["waiting", "waiting"]
    await said("forget", "his", "--yes")
    assert await states() == []
    audited = await connection.fetch("select action, object_id from audit_entry order by id")
    assert [row["action"] for row in audited] == [
        "dead_letter_replayed",
        "dead_letter_dropped",
        "dead_letter_replayed",
        "subscriber_forgotten",
    ]
