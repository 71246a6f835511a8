"""The archiver over its life: started again, broken off, in small pieces, without the right to replicate."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from engine import database as db
from engine import embedded_postgres
from engine.backup import archive, chains, layout
from engine.backup.archive import Archiver, Plan
from engine.backup.base import take_base
from engine.backup.failed import BackupFailed
from engine.backup.key_file import Keys, new_key
from engine.backup.places import Directory
from engine.backup.programs import Server
from engine.backup.restore import EPOCHS, opened, restore, wanted
from engine.embedded_postgres import EmbeddedPostgres

KEYS = Keys.of(new_key())
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="xinglin-archive-") as folder:
        Path(folder).chmod(0o755)
        server = embedded_postgres.start(Path(folder))
        asyncio.run(_prepare(server.url))
        yield server
        server.stop()


async def _prepare(url: str) -> None:
    await db.create_if_missing(url)
    connection = await asyncpg.connect(url)
    await db.migrate(connection)
    await connection.execute("create table written (n int, text text)")
    await connection.close()


@pytest.fixture
async def connection(server: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url)
    yield connection
    await connection.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
    await connection.close()


@pytest.fixture
def place(tmp_path: Path) -> Directory:
    (tmp_path / "place").mkdir()
    return Directory(tmp_path / "place")


@asynccontextmanager
async def archiving(server: EmbeddedPostgres, place: Directory, home: Path) -> AsyncIterator[Archiver]:
    archiver = Archiver(
        lambda: server.url, place, KEYS, home, Plan(7, 3, 0.02, 0.0), lambda: datetime.now(UTC)
    )
    stopping = asyncio.Event()
    task = asyncio.create_task(archiver.run(stopping))
    try:
        await until(lambda: archiver.status.base_at is not None, task)
        yield archiver
    finally:
        stopping.set()
        await task


async def until(is_so: Callable[[], bool], task: "asyncio.Task[None] | None" = None) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():
            assert task is None or not task.done()
            await asyncio.sleep(0.01)


async def written(connection: asyncpg.Connection, kilobytes: int = 1) -> int:
    """The WAL position after it."""
    await connection.execute(
        "insert into written select $1, string_agg(md5(random()::text), '') from generate_series(1, $2)",
        kilobytes,
        32 * kilobytes,
    )
    return layout.lsn_of(await connection.fetchval("select pg_current_wal_flush_lsn()::text"))


async def assembled(place: Directory, chain: chains.Held) -> tuple[str, bytes]:
    """The newest segment as its pieces make it, up to where they go."""
    last = wanted(chain, chain.bases[0], None)[-1].segment
    content = bytearray()
    for wal in (wal for wal in chain.wal if wal.segment == last):
        piece = opened(KEYS, wal.name, await place.get(wal.name))
        start = wal.offset or 0
        assert start <= len(content)
        content[start : start + len(piece)] = piece
    return last, bytes(content)


async def test_started_again_it_goes_on_with_its_chain(
    server: EmbeddedPostgres, connection: asyncpg.Connection, place: Directory, tmp_path: Path
) -> None:
    async with archiving(server, place, tmp_path) as archiver:
        lsn = await written(connection)
        await until(lambda: archiver.archived_lsn >= lsn)
    await written(connection)
    await connection.execute("select pg_switch_wal()")
    await written(connection)
    await connection.execute("select pg_switch_wal()")
    async with archiving(server, place, tmp_path) as archiver:
        lsn = await written(connection)
        await until(lambda: archiver.archived_lsn >= lsn)
    (chain,) = await chains.held(place, KEYS)
    assert len(chain.bases) == 1
    files = wanted(chain, chain.bases[0], None)  # and has no gap
    assert len({wal.segment for wal in files}) >= 3


async def test_stopping_ships_what_was_written_last(
    server: EmbeddedPostgres, connection: asyncpg.Connection, place: Directory, tmp_path: Path
) -> None:
    async with archiving(server, place, tmp_path) as archiver:
        lsn = await written(connection)
    assert archiver.archived_lsn >= lsn
    (chain,) = await chains.held(place, KEYS)
    segment, content = await assembled(place, chain)
    head, size = await chains.head(place, KEYS, chain.id), chain.bases[0].segment_bytes
    assert head is not None
    assert head.lsn == layout.segment_number(segment, size) * size + len(content)


async def test_pieces_make_what_the_server_wrote_and_do_not_grow_without_end(
    server: EmbeddedPostgres,
    connection: asyncpg.Connection,
    place: Directory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive, "PIECES_MAX", 4)
    await connection.execute("select pg_switch_wal()")
    async with archiving(server, place, tmp_path) as archiver:
        for _ in range(15):
            lsn = await written(connection, kilobytes=20)
            await until(lambda lsn=lsn: archiver.archived_lsn >= lsn)  # type: ignore[misc]
    (chain,) = await chains.held(place, KEYS)
    segment, content = await assembled(place, chain)
    assert 1 <= sum(wal.segment == segment for wal in chain.wal) <= 5
    truth = (server.data / "pg_wal" / segment).read_bytes()
    assert len(content) > 15 * 20 * 1024
    assert content == truth[: len(content)]


async def test_a_whole_segment_takes_the_place_of_its_pieces(
    server: EmbeddedPostgres, connection: asyncpg.Connection, place: Directory, tmp_path: Path
) -> None:
    async with archiving(server, place, tmp_path) as archiver:
        lsn = await written(connection)
        await until(lambda: archiver.archived_lsn >= lsn)
        segment = layout.segment_of(lsn, 1, 16 * 1024 * 1024)
        await connection.execute("select pg_switch_wal()")
        lsn = await written(connection)
        await until(lambda: archiver.archived_lsn >= lsn)
    (chain,) = await chains.held(place, KEYS)
    assert [wal.offset for wal in chain.wal if wal.segment == segment] == [None]
    name = layout.wal_name(chain.id, segment)
    assert opened(KEYS, name, await place.get(name)) == (server.data / "pg_wal" / segment).read_bytes()
    assert not (tmp_path / "backup" / "wal" / segment).exists(), "the spool is emptied"


async def test_after_a_break_a_new_chain_begins_with_a_base_of_its_own(
    server: EmbeddedPostgres, connection: asyncpg.Connection, place: Directory, tmp_path: Path
) -> None:
    async with archiving(server, place, tmp_path):
        pass
    await connection.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
    await connection.execute("select pg_switch_wal()")
    async with archiving(server, place, tmp_path) as archiver:
        lsn = await written(connection)
        await until(lambda: archiver.archived_lsn >= lsn)
    old, new = await chains.held(place, KEYS)
    assert len(old.bases) == len(new.bases) == 1
    assert chains.chosen([old, new], None)[1].chain == new.id
    assert wanted(new, new.bases[0], None)


async def test_on_a_full_disk_bookings_come_first(
    server: EmbeddedPostgres,
    connection: asyncpg.Connection,
    place: Directory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with archiving(server, place, tmp_path) as archiver:
        monkeypatch.setattr(archive, "FREE_BYTES_MIN", 1 << 62)
        await until(lambda: "nearly full" in archiver.failing)
        assert await connection.fetchval("select count(*) from pg_replication_slots") == 0
        assert list((tmp_path / "backup" / "wal").iterdir()) == []


async def test_who_may_not_replicate_is_told_in_one_line(
    server: EmbeddedPostgres, connection: asyncpg.Connection, place: Directory
) -> None:
    await connection.execute("create role reader login password 'reader'")
    chain = await chains.describe(connection, datetime.now(UTC))
    await chains.begin(place, KEYS, chain)
    url = server.url.replace(f"xinglin:{server.password}", "reader:reader")
    with pytest.raises(BackupFailed, match="permission denied to start WAL sender") as failed:
        await take_base(Server.of(url), place, KEYS, chain, lambda: datetime.now(UTC), fast=True)
    assert "\n" not in str(failed.value)
    assert [name.partition("/")[2] for name in await place.names()] == ["chain"], "nothing of it is left"
    await connection.execute("drop role reader")


async def test_a_server_with_other_names_becomes_a_home_of_ours(
    place: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="xinglin-other-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(embedded_postgres, "USER", "postgres")
            patch.setattr(embedded_postgres, "DATABASE", "hospital")
            other = embedded_postgres.start(root / "other")
            try:
                await _prepare(other.url)
                connection = await asyncpg.connect(other.url)
                await written(connection)
                await connection.execute("insert into shard (id, epoch) values (0, 7)")
                await connection.execute(
                    "insert into session (id, kind, owner, transport, method, device, rotated_at, created_at,"
                    " last_seen_at, ends_at, lives_until) select gen_random_uuid(), 'account',"
                    " gen_random_uuid(), 'bearer', 'wechat', '', now(), now(), now(), end_, end_"
                    " from (select now() + interval '1 day' as end_) e"
                )
                chain = await chains.describe(connection, datetime.now(UTC))
                await connection.close()
                await chains.begin(place, KEYS, chain)
                await take_base(
                    Server.of(other.url), place, KEYS, chain, lambda: datetime.now(UTC), fast=True
                )
            finally:
                other.stop()
        restored = await restore(place, KEYS, root / "ours")
        assert restored.until is None and restored.segments == 0
        ours = embedded_postgres.start(root / "ours")
        try:
            assert "xinglin:" in ours.url and ours.url.endswith("/xinglin")
            connection = await asyncpg.connect(ours.url)
            assert await connection.fetchval("select count(*) from written") == 1
            assert await connection.fetchval("select epoch from shard") == 7 + EPOCHS
            # Whoever was signed in signs in again: the backup does not know who has signed out since.
            assert await connection.fetchval("select revoked_why from session") == "restored"
            await connection.close()
        finally:
            ours.stop()


def test_the_password_is_no_argument() -> None:
    server = Server.of("postgresql://u%40x:p%2Fw%20d@db.example:5433/name?sslmode=require")
    assert server.url == "postgresql://u%40x@db.example:5433/name?sslmode=require"
    assert server.environment()["PGPASSWORD"] == "p/w d"
