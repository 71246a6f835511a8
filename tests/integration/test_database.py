"""The embedded PostgreSQL and the schema."""

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from engine import database as db
from engine import embedded_postgres as pg


async def test_migrations_run_once_even_when_many_start_together(postgres: pg.EmbeddedPostgres) -> None:
    url = postgres.url.rpartition("/")[0] + "/together"
    await db.create_if_missing(url)
    connections = [await asyncpg.connect(url) for _ in range(5)]
    done = await asyncio.gather(*(db.migrate(c) for c in connections))
    assert sum(bool(names) for names in done) == 1
    for connection in connections:
        await connection.close()


async def test_a_newer_database_is_left_alone(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("insert into migration (name) values ('9999_of_the_future')")
    with pytest.raises(db.DatabaseFailed, match="newer than this program"):
        await db.migrate(connection)
    await connection.close()


async def test_the_server_is_durable_and_asks_for_a_password(postgres: pg.EmbeddedPostgres) -> None:
    await db.create_if_missing(postgres.url)
    connection = await db.connect(postgres.url)
    await db.check_durable(connection)
    assert await connection.fetchval("show data_checksums") == "on"
    assert await connection.fetchval("show listen_addresses") == "127.0.0.1"
    await connection.close()
    with pytest.raises(db.DatabaseFailed, match="password"):
        await db.connect(postgres.url.replace(postgres.password, "wrong"))


async def test_a_setting_that_may_lose_bookings_is_refused(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("set synchronous_commit = off")
    with pytest.raises(db.DatabaseFailed, match="synchronous_commit"):
        await db.check_durable(connection)
    await connection.close()


async def test_nobody_there_is_one_line_without_the_password() -> None:
    port = pg.free_port()
    with pytest.raises(db.DatabaseAway) as failed:
        await db.connect(f"postgresql://u:secret@127.0.0.1:{port}/x")
    assert str(port) in str(failed.value)
    assert "secret" not in str(failed.value)
    assert "\n" not in str(failed.value)


def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(pg.PostgresFailed, match="made by PostgreSQL 15"):
        pg.start(tmp_path)


def test_a_second_server_on_the_same_data_is_refused(postgres: pg.EmbeddedPostgres) -> None:
    with pytest.raises(pg.PostgresFailed, match="already serves"):
        pg.start(postgres.data.parent)


def test_no_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg, "FREE_BYTES_MIN", 1 << 62)
    with pytest.raises(pg.PostgresFailed, match="make room"):
        pg.start(tmp_path)


_OWNER = """
import sys, time, pathlib
from engine import embedded_postgres
server = embedded_postgres.start(pathlib.Path(sys.argv[1]))
print(server.process.pid, flush=True)
time.sleep(60)
"""


def test_the_server_stops_when_its_parent_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    watched = os.pidfd_open(pid)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    ready, _, _ = select.select([watched], [], [], 30)
    os.close(watched)
    shutil.rmtree((tmp_path / "postgres").resolve())
    assert ready, "PostgreSQL outlived its parent"
