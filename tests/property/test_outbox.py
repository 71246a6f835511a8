"""Whatever fails in between: each message at least once, in its aggregate's order, and nothing made up."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import actors.delivery
import actors.outbox
from actors.outbox import Message, Outbox
from engine import embedded_postgres
from engine.records import outbox as records
from tests.support.copies import migrated
from tests.support.outboxes import Outside, booked, failing, happen

SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def url(postgres: embedded_postgres.EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.delivery, "PAUSE_SECONDS_MIN", 0.001)
    monkeypatch.setattr(actors.outbox, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(actors.outbox, "FINISH_SECONDS_MAX", 0.01)


_TRIES = st.lists(st.sampled_from(["again", "lost", "done", "fault", "crash", "stop"]), max_size=3)
_EVENT = st.tuples(st.integers(0, 3), st.integers(0, 1), _TRIES, st.booleans())
"""Of which aggregate, in which shard, how its tries go at first, and whether it is refused then."""


@given(st.lists(_EVENT, min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 10**9))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_failures(
    url: str, plan: list[tuple[int, int, list[str], bool]], in_flight: int, unique: int
) -> None:
    asyncio.run(_any_failures(url, plan, in_flight))


async def _any_failures(url: str, plan: list[tuple[int, int, list[str], bool]], in_flight: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        name = f"outside{await connection.fetchval('select count(*) from outbox_subscriber')}"
        await records.join(connection, name, from_beginning=False)
        words: dict[str, list[str]] = {}
        refused = set()
        expected: dict[str, list[str]] = defaultdict(list)
        blocked = set()
        for aggregate, shard, tries, is_refused in plan:
            [seq] = await happen(connection, shard, (f"schedule/D{aggregate}/2026-11-24", booked(aggregate)))
            message_id, of = f"{shard}-{seq}-0", booked(aggregate).appointment_id.hex()
            words[message_id] = list(tries)
            # What was applied before its outcome was lost is there, whatever they say when asked again.
            if is_refused:
                refused.add(message_id)
                if of not in blocked and "done" in tries:
                    expected[of].append(message_id)
                blocked.add(of)
            elif of not in blocked:
                expected[of].append(message_id)
        await _delivered(url, connection, name, words, refused, in_flight, expected)
    finally:
        await connection.close()


async def _delivered(
    url: str,
    connection: asyncpg.Connection,
    name: str,
    words: dict[str, list[str]],
    refused: set[str],
    in_flight: int,
    expected: dict[str, list[str]],
) -> None:
    stopping = asyncio.Event()
    waiting_for_death = False

    def say(message: Message) -> Exception | None:
        nonlocal waiting_for_death
        left = words[message.id]
        word = left.pop(0) if left else "no" if message.id in refused else "ok"
        if word in ("crash", "stop"):
            waiting_for_death = word == "crash"
            stopping.set()
            word = "lost"
        return failing(word)

    outside = Outside(name, say=say)
    outbox = Outbox(url, outside, in_flight_max=in_flight, look_seconds=0.01)
    task = asyncio.create_task(outbox.run())
    try:
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), 0.02)
                if stopping.is_set():
                    stopping.clear()
                    if waiting_for_death:  # the database drops it, and with it the lock
                        await connection.execute(
                            "select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory'"
                            "   and l.objid = (hashtext('xinglin.outbox.' || $1)::bigint & 4294967295)::oid",
                            name,
                        )
                    else:
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)
                        task = asyncio.create_task(
                            Outbox(url, outside, in_flight_max=in_flight, look_seconds=0.01).run()
                        )
                [status] = await records.status(connection, name)
                if status.behind == 0 and status.waiting == status.blocked:
                    break
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert outside.inversions == []
    assert outside.by_aggregate() == dict(expected)
    dead = await records.dead_letters(connection, name, None, 100)
    assert {one.id for one in dead} <= refused
    assert len(dead) == len({one.aggregate for one in dead})
    # Each event was read once, and none was left out.
    assert sorted({f"{one.shard}-{one.seq}-0" for one in outside.seen}) == sorted(words)
