"""The restore drill (I20): bookings go on while backups are made, the server is killed, and everything that
was archived is there again elsewhere. One drill, told once (`drill`), and then what was promised about it.
"""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import orjson
import pytest

from actors.shard import Shard
from engine import database as db
from engine import embedded_postgres
from engine.backup import chains, layout
from engine.backup.archive import Archiver, Plan
from engine.backup.check import check_base, check_wal
from engine.backup.failed import BackupFailed
from engine.backup.key_file import Keys, new_key
from engine.backup.places import Directory, Place
from engine.backup.restore import EPOCHS, Restored, restore
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.masking import ERASED_NAME
from engine.domain.planning import PlannedSlot, Session, plan_as_data
from engine.domain.refusal import Refusal
from engine.embedded_postgres import EmbeddedPostgres, PostgresFailed
from engine.journal.codec import pack_asks, unpack_replies
from engine.journal.postgres import PostgresJournal
from engine.records.day_people import patient_names
from engine.records.reads import PostgresReads
from engine.vault.erasures import FOLDER, LEDGER, Erasures, What
from tests.support.people import VAULT, add_person
from tests.support.stores import LAVISH
from web.audit import Acked, audit

KEYS = Keys.of(new_key())
PATIENCE_SECONDS = 60.0
DOCTORS = 20
SEATS = 400
START = (int(datetime.now(UTC).timestamp()) // 86400 + 1) * 86_400_000  # ms
DAY = datetime.fromtimestamp(START / 1000, UTC).date().isoformat()
DAYS = [ScheduleKey(f"D{n}", DAY) for n in range(DOCTORS)]
ACCOUNT = UUID(int=1)
WHO_LEAVES = UUID(int=2).bytes
LEGS = 5  # bookings of one turn


@dataclass(slots=True)
class Booked:
    id: UUID
    slot_id: str
    number: int
    lsn: int  # WAL that held it had been flushed up to here when it was acknowledged


@dataclass(slots=True)
class Desk:
    """Books one patient after the other, for as long as the database lives."""

    shard: Shard
    connection: asyncpg.Connection
    booked: list[Booked] = field(default_factory=list)

    async def book(self) -> None:
        first = len(self.booked)
        stream = DAYS[(first // LEGS) % DOCTORS].stream
        ids = [UUID(int=1000 + first + n).bytes for n in range(LEGS)]
        holds = [
            s.HoldSeat(i, "0800", UUID(int=10_000 + UUID(bytes=i).int).bytes, ACCOUNT.bytes, 3600)
            for i in ids
        ]
        confirms = [s.ConfirmAppointment(i, ACCOUNT.bytes) for i in ids]
        answers = unpack_replies(
            await self.shard.ask(pack_asks([(stream, 60_000, c) for c in [*holds, *confirms]]))
        )
        assert not any(isinstance(answer, Refusal) for answer in answers), answers
        flushed = layout.lsn_of(await self.connection.fetchval("select pg_current_wal_flush_lsn()::text"))
        slot = f"{DAYS[(first // LEGS) % DOCTORS].schedule_id}-0800"
        for id_, answer in zip(ids, answers, strict=False):
            assert isinstance(answer, s.Answer)
            self.booked.append(Booked(UUID(bytes=id_), slot, answer.number, flushed))

    async def book_on(self) -> None:
        while True:
            await self.book()
            await asyncio.sleep(0.005)  # others want the machine, too


@dataclass(slots=True)
class Drill:
    root: Path
    place: Directory
    chain: str
    calm: datetime  # nothing happened around this moment
    calm_hashes: dict[str, str]
    calm_booked: int
    during_base: int  # bookings while the second base backup was made
    booked: list[Booked]
    archived_lsn: int  # when everything died
    home: Path  # of the killed server
    failing_while_away: str
    booked_while_away: int


async def until(is_so: Callable[[], bool], booking: "asyncio.Task[None] | None" = None) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():
            if booking is not None and booking.done():
                await booking  # tells why
            await asyncio.sleep(0.01)


def erasures(home: Path, place: Directory | None) -> Erasures:
    """As web/erasing.py makes them."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Place]:
        assert place is not None
        yield place

    return Erasures((home / LEDGER,), None if place is None else opened)


async def hashes(url: str) -> dict[str, str]:
    """Of the content of every table; the fence and what is unlogged (of the living server alone) aside."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "select relname from pg_class where relkind = 'r' and relpersistence = 'p'"
            " and relnamespace = 'public'::regnamespace order by relname"
        )
        return {
            name: await connection.fetchval(
                f"select md5(coalesce(string_agg(r, E'\\n' order by r), '')) from (select"
                f' {"(id, seq)" if name == "shard" else "t"}::text as r from "{name}" t) x'
            )
            for (name,) in tables
        }
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    with tempfile.TemporaryDirectory(prefix="xinglin-drill-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "place").mkdir()
        server = embedded_postgres.start(root / "home")
        try:
            yield asyncio.run(_drill(root, server))
        finally:
            server.stop()


async def _drill(root: Path, server: EmbeddedPostgres) -> Drill:
    await db.create_if_missing(server.url)
    connection = await asyncpg.connect(server.url)
    await db.migrate(connection)
    await _publish(connection)
    writing, pool = (
        await asyncpg.connect(server.url),
        await asyncpg.create_pool(server.url, min_size=1, max_size=2),
    )
    ended: list[str] = []
    clock = lambda: int(datetime.now(UTC).timestamp() * 1000)  # noqa: E731
    shard = Shard(0, 1, PostgresJournal(0, writing, pool), PostgresReads(pool), clock, ended.append, LAVISH)
    await shard.start()
    desk = Desk(shard, connection)
    place = Directory(root / "place")
    archiver = Archiver(
        lambda: server.url, place, KEYS, root / "home", Plan(7, 3, 0.05, 0.05), lambda: datetime.now(UTC)
    )
    archiving = asyncio.create_task(archiver.run(asyncio.Event()))
    await until(lambda: archiver.status.base_at is not None)
    first_base = archiver.status.base_at

    # Bookings go on while a base backup is made.
    before = len(desk.booked)
    booking = asyncio.create_task(desk.book_on())
    await until(lambda: len(desk.booked) > before, booking)
    mark = len(desk.booked)
    archiver.status.base_at = None  # as if the night had come
    await until(lambda: archiver.status.base_at not in (None, first_base))
    during_base = len(desk.booked) - mark

    # The place goes away for a while, and comes back.
    (root / "place").rename(root / "away")
    await until(lambda: "there is no directory" in archiver.failing)
    failing = archiver.failing
    mark = len(desk.booked)
    await until(lambda: len(desk.booked) >= mark + 5 * LEGS, booking)
    booked_while_away = len(desk.booked) - mark
    (root / "away").rename(root / "place")
    await until(lambda: archiver.failing == "")

    # A calm moment.
    booking.cancel()
    await asyncio.gather(booking, return_exceptions=True)
    await desk.book()
    await connection.execute("select pg_switch_wal()")  # so that there is a whole segment
    calm_hashes = await hashes(server.url)
    calm: datetime = await connection.fetchval("select clock_timestamp()")
    calm_booked = len(desk.booked)

    # Somebody is erased after it.
    async with connection.transaction():
        await erasures(root / "home", place).shred(connection, What.RECORD, WHO_LEAVES, datetime.now(UTC))
    assert await patient_names(connection, VAULT, [WHO_LEAVES]) == {WHO_LEAVES: ERASED_NAME}

    # And everything dies while people book.
    booking = asyncio.create_task(desk.book_on())
    await until(lambda: len(desk.booked) >= calm_booked + 20 * LEGS, booking)
    reached = len(desk.booked)
    await until(lambda: archiver.archived_lsn >= desk.booked[reached - 1].lsn)
    assert not ended, ended
    server.process.send_signal(signal.SIGKILL)
    archived_lsn = archiver.archived_lsn
    archiving.cancel()  # nothing more is shipped: the disk is gone
    booking.cancel()
    await asyncio.gather(archiving, booking, return_exceptions=True)
    server.process.wait()
    chain = sorted(path.name for path in (root / "place").iterdir() if path.name != FOLDER)[-1]
    with_failures = [connection.close(timeout=1), writing.close(timeout=1)]
    await asyncio.gather(*with_failures, return_exceptions=True)
    pool.terminate()
    return Drill(
        root,
        place,
        chain,
        calm,
        calm_hashes,
        calm_booked,
        during_base,
        desk.booked,
        archived_lsn,
        root / "home",
        failing,
        booked_while_away,
    )


async def _publish(connection: asyncpg.Connection) -> None:
    await connection.execute(
        """
        insert into department (id, name, campus, position) select 'd' || n, '科' || n, '本部', n
          from generate_series(0, 19) n;
        insert into practitioner (id, name, title, department_id, position)
        select 'D' || n, '医' || n, 'chief', 'd' || n, n from generate_series(0, 19) n;
        insert into account (id, openid, created_at)
        values ('00000000-0000-0000-0000-000000000001', 'o', now());
        """
    )
    for n, key in enumerate(DAYS):
        plan = (
            Session("morning", f"d{n}", "ordinary", None, 1500, (PlannedSlot("0800", START, SEATS),)),
            Session("afternoon", f"d{n}", "ordinary", None, 1500, (PlannedSlot("1400", START + 1, SEATS),)),
        )
        await connection.execute(
            "insert into schedule (id, practitioner_id, day, plan) values ($1, $2, $3, $4)",
            key.schedule_id,
            key.practitioner_id,
            date.fromisoformat(key.day),
            orjson.dumps(plan_as_data(plan)).decode(),
        )
    ids = [UUID(int=10_000 + 1000 + n) for n in range(DOCTORS * SEATS)]
    await connection.copy_records_to_table(
        "patient",
        columns=["id", "id_type", "created_at"],
        records=[(i, "passport", datetime.now(UTC)) for i in ids],
    )
    await connection.copy_records_to_table(
        "account_patient",
        columns=["account_id", "patient_id", "relation", "created_at"],
        records=[(ACCOUNT, i, "self", datetime.now(UTC)) for i in ids],
    )
    await add_person(connection, VAULT, WHO_LEAVES, name="张伟", id_number="E1234567")


@dataclass(slots=True)
class Life:
    restored: Restored
    server: EmbeddedPostgres


@pytest.fixture(scope="module")
def whole(drill: Drill) -> Iterator[Life]:
    """Restored elsewhere, up to the last archived commit, and started."""
    restored = asyncio.run(restore(drill.place, KEYS, drill.root / "new"))
    server = embedded_postgres.start(drill.root / "new")
    yield Life(restored, server)
    server.stop()


@pytest.fixture
async def there(whole: Life) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(whole.server.url)
    yield connection
    await connection.close()


def test_bookings_went_on_while_a_base_backup_was_made(drill: Drill) -> None:
    assert drill.during_base > 0


def test_bookings_went_on_while_the_place_was_away_and_it_was_said(drill: Drill) -> None:
    assert drill.booked_while_away > 0
    assert "there is no directory" in drill.failing_while_away


async def test_no_archived_booking_is_lost_and_the_audit_is_green(
    drill: Drill, there: asyncpg.Connection
) -> None:
    archived = [b for b in drill.booked if b.lsn <= drill.archived_lsn]
    assert len(archived) > drill.calm_booked, "bookings of the last rush are among them"
    acked = [Acked(b.id, b.slot_id, b.number, frozenset({int(s.Status.BOOKED)})) for b in archived]
    checks = await audit(there, acked)
    assert {check.name: check.examples for check in checks if not check.ok} == {}
    assert checks[0].examined == len(archived)


async def test_what_came_back_is_the_lost_journal_up_to_one_number(
    drill: Drill, there: asyncpg.Connection
) -> None:
    """The killed disk is not gone in truth: its own recovery tells what was there."""
    query = "select count(*), md5(string_agg(e::text, '' order by seq)) from event e where seq <= $1"
    last = await there.fetchval("select seq from shard")
    server = embedded_postgres.start(drill.home)
    try:
        lost = await asyncpg.connect(server.url)
        assert last <= await lost.fetchval("select seq from shard")
        assert tuple(await there.fetchrow(query, last)) == tuple(await lost.fetchrow(query, last))
        await lost.close()
    finally:
        server.stop()


async def test_old_processes_are_fenced_off(there: asyncpg.Connection) -> None:
    epoch = await there.fetchval("select epoch from shard")
    assert epoch >= EPOCHS
    assert await there.fetchval("update shard set seq = seq + 1 where epoch = 1 returning seq") is None


async def test_the_restored_home_is_as_safe_as_a_new_one(drill: Drill, whole: Life) -> None:
    new, old = drill.root / "new", drill.home
    assert (new / "postgres.password").read_text() != (old / "postgres.password").read_text()
    assert "trust" not in (new / "postgres" / "pg_hba.conf").read_text()
    wrong = whole.server.url.replace(whole.server.password, (old / "postgres.password").read_text())
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)
    connection = await asyncpg.connect(whole.server.url)
    assert await connection.fetchval("show data_checksums") == "on"
    await db.check_durable(connection)
    await connection.close()
    assert not list((new / "postgres").glob("xinglin-*"))


async def test_a_moment_in_between_is_hash_by_hash_what_it_was(drill: Drill) -> None:
    home = drill.root / "calm"
    done = await restore(drill.place, KEYS, home, drill.calm)
    assert done.until is not None and done.until <= drill.calm
    server = embedded_postgres.start(home)
    try:
        assert await hashes(server.url) == drill.calm_hashes
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("select count(*) from appointment") == drill.calm_booked
        # Who was erased after that moment is back with his name, until the ledger is read: either of them.
        for ledgers in (erasures(home, drill.place), erasures(drill.home, None)):
            trying = connection.transaction()
            await trying.start()
            assert await patient_names(connection, VAULT, [WHO_LEAVES]) == {WHO_LEAVES: "张伟"}
            assert await ledgers.apply(connection) == 1
            assert await patient_names(connection, VAULT, [WHO_LEAVES]) == {WHO_LEAVES: ERASED_NAME}
            await trying.rollback()
        await connection.close()
    finally:
        server.stop()


async def test_the_backup_verifies(drill: Drill, tmp_path: Path) -> None:
    (held,) = await chains.held(drill.place, KEYS)
    assert len(held.bases) == 2
    for base in held.bases:
        await check_base(drill.place, KEYS, base, tmp_path)
    assert await check_wal(drill.place, KEYS, held) == len(held.wal) > 1
    assert list(tmp_path.iterdir()) == []


# What may be wrong with a backup: each time one clear line, and nothing is left of the attempt.


@pytest.fixture
def copy(drill: Drill, tmp_path: Path) -> Path:
    """Of the place, to be spoiled."""
    return Path(shutil.copytree(drill.root / "place", tmp_path / "copy"))


async def refused(copy: Path, home: Path, keys: Keys = KEYS, until: datetime | None = None) -> str:
    with pytest.raises((BackupFailed, PostgresFailed)) as failed:
        await restore(Directory(copy), keys, home, until)
    assert not (home / "postgres").exists()
    assert "\n" not in str(failed.value)
    return str(failed.value)


def newest(copy: Path, pattern: str) -> Path:
    return max(copy.glob(f"*/{pattern}"))


async def test_a_wrong_key(copy: Path, tmp_path: Path) -> None:
    assert "needs the key" in await refused(copy, tmp_path / "home", Keys.of(new_key()))


async def test_a_flipped_byte(copy: Path, tmp_path: Path) -> None:
    part = newest(copy, "base-*.00000")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    assert f"{part.name} is damaged" in await refused(copy, tmp_path / "home")


async def test_a_truncated_file(copy: Path, tmp_path: Path) -> None:
    part = newest(copy, "base-*.00000")
    part.write_bytes(part.read_bytes()[: 48 + 3 * (256 * 1024 + 16)])  # between two chunks
    assert "cut off" in await refused(copy, tmp_path / "home")


async def test_swapped_chunks(copy: Path, tmp_path: Path) -> None:
    part, step = newest(copy, "base-*.00000"), 256 * 1024 + 16
    c = part.read_bytes()
    part.write_bytes(c[:48] + c[48 + step : 48 + 2 * step] + c[48 : 48 + step] + c[48 + 2 * step :])
    assert "chunk 1 of" in await refused(copy, tmp_path / "home")


async def test_a_part_of_another_base(copy: Path, tmp_path: Path) -> None:
    older, newer = sorted(copy.glob("*/base-*.00000"))
    shutil.copy(older, newer)
    assert "does not authenticate" in await refused(copy, tmp_path / "home")


async def test_a_missing_segment_of_wal(copy: Path, tmp_path: Path) -> None:
    """The base's own WAL does not reach so far, and the WAL after it is there."""
    (held,) = await chains.held(Directory(copy), KEYS)
    base = held.bases[-1]
    at = base.end_lsn // base.segment_bytes
    gone = layout.segment_name(1, at, base.segment_bytes)
    for file in copy.glob(f"*/wal-{gone}*"):
        file.unlink()
    assert f"WAL segment {gone} is missing" in await refused(copy, tmp_path / "home")


async def test_the_end_of_the_wal_missing(copy: Path, tmp_path: Path) -> None:
    (held,) = await chains.held(Directory(copy), KEYS)
    last = held.wal[-1].segment
    for file in copy.glob(f"*/wal-{last}.*"):
        file.unlink()
    assert "the end of the WAL is missing" in await refused(copy, tmp_path / "home")


async def test_a_moment_that_the_archive_does_not_reach(copy: Path, tmp_path: Path) -> None:
    said = await refused(copy, tmp_path / "home", until=datetime.now(UTC) + timedelta(days=1))
    assert "--until is later than the last transaction" in said


async def test_a_home_that_is_not_empty(copy: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "token.key").write_bytes(b"x")
    assert "never over a living one" in await refused(copy, home)
    assert (home / "token.key").read_bytes() == b"x"


async def test_a_place_without_a_backup(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no complete base backup" in await refused(tmp_path / "empty", tmp_path / "home")
