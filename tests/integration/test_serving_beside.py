"""Who may serve beside whom, where the shards are, and what a service without shards waits for: on a real
PostgreSQL, without a process of ours."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from actors.directory import ShardAway
from actors.followed_lines import FollowedLines
from actors.link import LinkServer
from engine.database import connect
from engine.records import shard_routes
from engine.records.shard_routes import Routes
from engine.services import ALL, services_of
from engine.settings import Settings
from engine.vault.failed import VaultFailed
from engine.vault.opening import open_vault
from web.serving import locks
from web.serving.joining import CannotJoin, joined
from web.serving.locks import Taken

SECRET = b"s" * 32
SECONDS_MAX = 20.0


# Locks.


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("", "", "another xinglin serves from"),
        ("", "payment", "another xinglin serves everything from"),
        ("payment", "", "another xinglin serves from"),
        ("payment", "payment", "another xinglin serves payment from"),
        ("booking,payment", "reports,payment", "another xinglin serves payment from"),
    ],
)
async def test_two_of_a_kind_and_a_whole_beside_parts_stay_out(
    database: str, first: str, second: str, why: str
) -> None:
    one, other = await connect(database), await connect(database)
    await locks.take(one, database, services_of(first))
    with pytest.raises(Taken, match=why) as refused:
        await locks.take(other, database, services_of(second))
    assert "@" not in str(refused.value) or ":" not in str(refused.value).split("@")[0].split("//")[1]
    await one.close()
    await other.close()
    again = await connect(database)
    await locks.take(again, database, services_of(second))
    await again.close()


async def test_different_services_stand_beside_each_other(database: str) -> None:
    held = [await connect(database) for _ in range(4)]
    for connection, name in zip(held, ("booking", "payment", "reports", "integration"), strict=True):
        await locks.take(connection, database, services_of(name))
    for connection in held:
        await connection.close()


async def test_who_lost_its_lock_to_another_stops(database: str) -> None:
    lost = asyncio.Event()
    async with locks.held(database, services_of("payment"), lost):
        admin = await connect(database)
        # Whoever comes waits at the lock itself, so that it is faster than the first one's second try.
        thief = await connect(database)
        waiting = asyncio.create_task(
            thief.execute("select pg_advisory_lock(hashtext('xinglin.serve.payment'))")
        )
        await _until_one_waits(admin)
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted"
            " and pid <> pg_backend_pid() and mode = 'ExclusiveLock'"
        )
        async with asyncio.timeout(SECONDS_MAX):
            await waiting
            await lost.wait()
        await thief.close()
        await admin.close()


async def _until_one_waits(admin: asyncpg.Connection) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not await admin.fetchval(
            "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
        ):
            await asyncio.sleep(0)


# Where the shards are.


async def taken_over(connection: asyncpg.Connection, shard_id: int) -> int:
    await connection.execute("insert into shard (id) values ($1) on conflict do nothing", shard_id)
    epoch: int = await connection.fetchval(
        "update shard set epoch = epoch + 1 where id = $1 returning epoch", shard_id
    )
    return epoch


async def routes(connection: asyncpg.Connection) -> dict[int, tuple[str, int]]:
    return dict((await shard_routes.read_routes(connection)).addresses)


async def test_a_shard_that_was_fenced_off_cannot_say_where_it_is(database: str) -> None:
    connection = await connect(database)
    assert await shard_routes.read_routes(connection) == Routes(None)
    await shard_routes.begin(connection, 2, SECRET)
    old = await taken_over(connection, 0)
    await shard_routes.put_route(connection, 0, ("127.0.0.1", 1111), old)
    assert await routes(connection) == {0: ("127.0.0.1", 1111)}
    new = await taken_over(connection, 0)
    await shard_routes.put_route(connection, 0, ("127.0.0.1", 2222), old)
    assert await routes(connection) == {0: ("127.0.0.1", 1111)}
    await shard_routes.put_route(connection, 0, ("127.0.0.1", 3333), new)
    await shard_routes.put_route(connection, 0, ("127.0.0.1", 2222), old)
    assert await routes(connection) == {0: ("127.0.0.1", 3333)}
    await connection.close()


async def test_nor_while_the_one_that_fenced_it_off_has_not_committed_yet(database: str) -> None:
    """The zombie looks at its epoch a moment before it is over, and writes a moment after."""
    zombie, heir, admin = [await connect(database) for _ in range(3)]
    await shard_routes.begin(admin, 1, SECRET)
    old = await taken_over(zombie, 0)
    await shard_routes.put_route(zombie, 0, ("127.0.0.1", 1111), old)
    async with heir.transaction():
        await shard_routes.put_route(heir, 0, ("127.0.0.1", 3333), await taken_over(heir, 0))
        late = asyncio.create_task(shard_routes.put_route(zombie, 0, ("127.0.0.1", 2222), old))
        async with asyncio.timeout(SECONDS_MAX):
            while not await admin.fetchval("select exists (select from pg_locks where not granted)"):
                await asyncio.sleep(0)
    await late
    assert await routes(admin) == {0: ("127.0.0.1", 3333)}
    for connection in (zombie, heir, admin):
        await connection.close()


async def test_a_new_run_begins_with_no_routes_and_a_secret_of_its_own(database: str) -> None:
    connection = await connect(database)
    first = await shard_routes.begin(connection, 2, SECRET)
    await shard_routes.put_route(connection, 0, ("127.0.0.1", 1111), await taken_over(connection, 0))
    second = await shard_routes.begin(connection, 2, SECRET)
    assert await routes(connection) == {}
    assert first.link_secret(SECRET) != second.link_secret(SECRET)
    assert second.is_ours(SECRET) and not second.is_ours(b"another" * 8)
    await connection.close()


async def test_lines_follow_the_shards_through_a_restart_and_end_with_another_number(database: str) -> None:
    """Two servers of links play the shards: only who has the run's secret is answered."""
    ended = asyncio.Event()

    async def end() -> None:
        ended.set()

    async def answer(body: bytes) -> bytes:
        return body[5:][::-1]

    connection = await connect(database)
    run = await shard_routes.begin(connection, 1, SECRET)
    one = LinkServer(run.link_secret(SECRET), answer)
    await shard_routes.put_route(connection, 0, await one.start("127.0.0.1"), await taken_over(connection, 0))
    followed = FollowedLines(database, SECRET, end)
    await followed.start()
    lines = followed.lines
    assert lines.shards == 1
    assert await lines.send(0, b"abc") == b"cba"

    await one.stop()
    run = await shard_routes.begin(connection, 1, SECRET)
    with pytest.raises(ShardAway):
        await lines.send(0, b"abc")
    two = LinkServer(run.link_secret(SECRET), answer)
    await shard_routes.put_route(connection, 0, await two.start("127.0.0.1"), await taken_over(connection, 0))
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            try:
                assert await lines.send(0, b"xyz") == b"zyx"
                break
            except ShardAway:
                await asyncio.sleep(0)
    assert not ended.is_set()

    await two.stop()
    run = await shard_routes.begin(connection, 3, SECRET)
    three = LinkServer(run.link_secret(SECRET), answer)
    await shard_routes.put_route(
        connection, 0, await three.start("127.0.0.1"), await taken_over(connection, 0)
    )
    async with asyncio.timeout(SECONDS_MAX):
        await ended.wait()
    with pytest.raises(ShardAway):  # what the one shard had may be another's now
        await lines.send(0, b"abc")
    followed.stop()
    await three.stop()
    await connection.close()


# What a service without shards waits for.


async def make_vault(database: str, home: Path) -> None:
    connection = await connect(database)
    await open_vault(connection, Settings(home=home))
    await connection.close()


async def test_it_waits_for_the_run_and_then_joins(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = asyncio.create_task(
        joined(database, Settings(home=tmp_path, only="payment"), SECRET, asyncio.Event())
    )
    said = ""
    async with asyncio.timeout(SECONDS_MAX):
        while "has not served from this database yet" not in said:
            await asyncio.sleep(0)
            said += capsys.readouterr().out
    await make_vault(database, tmp_path)
    connection = await connect(database)
    await shard_routes.begin(connection, 1, SECRET)
    async with asyncio.timeout(SECONDS_MAX):
        assert await waiting
    assert capsys.readouterr().out == ""  # it was said once
    await connection.close()


async def test_who_is_told_to_stop_waits_no_longer(database: str, tmp_path: Path) -> None:
    stopping = asyncio.Event()
    waiting = asyncio.create_task(joined(database, Settings(home=tmp_path, only="payment"), SECRET, stopping))
    await asyncio.sleep(0)
    stopping.set()
    async with asyncio.timeout(SECONDS_MAX):
        assert not await waiting


async def test_another_token_secret_or_another_vault_key_is_told_at_once(
    database: str, tmp_path: Path
) -> None:
    await make_vault(database, tmp_path / "one")
    connection = await connect(database)
    await shard_routes.begin(connection, 1, SECRET)
    here = Settings(home=tmp_path / "one", only="payment")
    with pytest.raises(CannotJoin, match="another token secret"):
        await joined(database, here, b"another" * 8, asyncio.Event())
    await make_vault_key_elsewhere(tmp_path / "two")
    with pytest.raises(VaultFailed):
        await joined(database, Settings(home=tmp_path / "two", only="payment"), SECRET, asyncio.Event())
    assert await joined(database, here, SECRET, asyncio.Event())
    await connection.close()


async def make_vault_key_elsewhere(home: Path) -> None:
    from engine.vault.kek import make_key_file

    home.mkdir()
    make_key_file(home / "vault.key")


async def test_an_old_schema_is_waited_for_and_a_newer_one_refused(database: str, tmp_path: Path) -> None:
    from engine.database import DatabaseFailed, missing_steps

    connection = await connect(database)
    assert await missing_steps(connection) == []
    await connection.execute("delete from migration where name = '0038_services'")
    assert await missing_steps(connection) == ["0038_services"]
    await connection.execute("insert into migration (name) values ('9999_later')")
    with pytest.raises(DatabaseFailed, match="newer than this program"):
        await joined(database, Settings(home=tmp_path), SECRET, asyncio.Event())
    await connection.close()


def test_all_means_all() -> None:
    assert services_of("") == ALL
