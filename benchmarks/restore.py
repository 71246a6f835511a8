"""How long until a hospital that lost its disk can book again? A database of 1,000,000 bookings is restored.

One doctor's day of 400 seats is booked by a real shard, over PostgreSQL; its rows are then multiplied by SQL,
with doctor, patients and appointments of their own, until there are enough. 95 % are there before the base
backup is made, the rest reaches the second place as WAL. Then the server is killed, and the clock runs from
the first byte that is fetched until the database is open again, with epochs raised.

    make bench-restore

Writes benchmarks/results/restore.json. Exit status 1 when a table is not what it was, or the goal is missed.
The second place is a directory of the same disk: add what your network takes.
"""

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import click
import orjson
from rich.console import Console

from actors.shard import Shard
from engine import database, embedded_postgres
from engine.backup import chains, layout
from engine.backup.archive import Archiver, Plan
from engine.backup.key_file import Keys, new_key
from engine.backup.places import Directory
from engine.backup.restore import restore
from engine.domain import schedule as s
from engine.domain.ids import ScheduleKey
from engine.domain.planning import PlannedSlot, Session, plan_as_data
from engine.domain.policy import Policy
from engine.domain.refusal import Refusal
from engine.embedded_postgres import EmbeddedPostgres
from engine.journal.codec import pack_asks, unpack_replies
from engine.journal.postgres import PostgresJournal
from engine.records.reads import PostgresReads
from web.audit import as_table, audit_url

GOAL_SECONDS: Final = 300.0
GOAL_BOOKINGS: Final = 1_000_000
SEATS: Final = 400  # of a doctor's day
BEFORE_BASE: Final = 0.95
STEP: Final = 100  # doctors a transaction
RESULTS: Final = Path(__file__).parent / "results"
_DOCTOR: Final = "D00000"
_MARK: Final = 0xB00C_0000_0000_0000  # upper half of every id of ours; its lower half is doctor and number
_LAVISH: Final = Policy(
    active_appointments_max=1_000_000, account_holds_max=1_000_000, day_appointments_max=1_000_000
)


@dataclass(slots=True)
class Result:
    bookings: int
    database_mib: float
    place_mib: float
    base_seconds: float
    restore_seconds: float
    segments: int
    goal_seconds: float
    equal: bool


def our_id(kind: int, number: int) -> UUID:
    """Of the first doctor; the doctor's number stands in four bytes of its own and is replaced by SQL."""
    return UUID(int=(_MARK | kind) << 64 | number)


@click.command()
@click.option("--bookings", type=click.IntRange(min=SEATS), default=GOAL_BOOKINGS, show_default=True)
@click.option("--audit", "audited", is_flag=True, help="Replay the restored journal, too: takes minutes.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work.  [default: TMPDIR]")
def main(bookings: int, audited: bool, folder: Path | None) -> None:
    console = Console()
    with tempfile.TemporaryDirectory(prefix="xinglin-restore-", dir=folder) as made:
        root = Path(made)
        root.chmod(0o755)
        (root / "place").mkdir()
        keys = Keys.of(new_key())
        server = embedded_postgres.start(root / "home")
        try:
            result, before = asyncio.run(_lose(server, root, keys, bookings, console))
        finally:
            server.stop()
        console.print("the server is killed; restoring …")
        began = time.monotonic()
        restored = asyncio.run(restore(Directory(root / "place"), keys, root / "new"))
        result.restore_seconds = time.monotonic() - began
        result.segments = restored.segments
        again = embedded_postgres.start(root / "new")
        try:
            after = asyncio.run(_sums(again.url))
            result.equal = after == before
            if audited:
                console.print(as_table(asyncio.run(audit_url(again.url))))
        finally:
            again.stop()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "restore.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    console.print(
        f"{result.bookings:,} bookings ({result.database_mib:,.0f} MiB, encrypted {result.place_mib:,.0f}"
        f" MiB; base backup {result.base_seconds:.1f} s) restored in"
        f" [bold]{result.restore_seconds:.1f} s[/bold] with {result.segments} segments of WAL"
        f" (goal for {GOAL_BOOKINGS:,}:"
        f" {GOAL_SECONDS:.0f} s); tables {'equal' if result.equal else 'DIFFER'}"
    )
    sys.exit(0 if result.equal and result.restore_seconds <= GOAL_SECONDS else 1)


async def _lose(
    server: EmbeddedPostgres, root: Path, keys: Keys, bookings: int, console: Console
) -> tuple[Result, dict[str, tuple[object, ...]]]:
    """Fills a database, backs it up while it grows, and kills it."""
    await database.create_if_missing(server.url)
    connection = await database.connect(server.url)
    await database.migrate(connection)
    doctors = -(-bookings // SEATS)
    await _book_one_day(server.url, connection)
    await _template(connection)
    began = time.monotonic()
    first = max(1, int(doctors * BEFORE_BASE))
    await _multiply(connection, 1, first)
    await connection.execute("vacuum analyze")
    console.print(f"{first * SEATS:,} bookings made in {time.monotonic() - began:.0f} s")

    place = Directory(root / "place")
    archiver = Archiver(lambda: server.url, place, keys, root / "home", Plan(7, 3), lambda: datetime.now(UTC))
    stopping = asyncio.Event()
    archiving = asyncio.create_task(archiver.run(stopping))
    await _until(lambda: archiver.status.base_at is not None, archiving)
    await _multiply(connection, first, doctors)
    flushed = layout.lsn_of(await connection.fetchval("select pg_current_wal_flush_lsn()::text"))
    before = await _sums(server.url)
    await _until(lambda: archiver.archived_lsn >= flushed, archiving)
    size = await connection.fetchval("select pg_database_size(current_database())")
    await connection.close()
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    archiving.cancel()
    await asyncio.gather(archiving, return_exceptions=True)
    base = chains.chosen(await chains.held(place, keys), None)[1]
    stored = sum(file.stat().st_size for file in (root / "place").rglob("*") if file.is_file())
    took = (base.ended - base.started).total_seconds()
    return Result(doctors * SEATS, size / 2**20, stored / 2**20, took, 0, 0, GOAL_SECONDS, False), before


async def _until(is_so: Callable[[], bool], task: "asyncio.Task[None]") -> None:
    while not is_so():
        if task.done():
            await task
        await asyncio.sleep(0.05)


async def _book_one_day(url: str, connection: asyncpg.Connection) -> None:
    """By the same code that books in a hospital."""
    day = datetime.fromtimestamp(time.time() + 86400, UTC).date()
    key = ScheduleKey(_DOCTOR, day.isoformat())
    starts = int(datetime(day.year, day.month, day.day, 1, tzinfo=UTC).timestamp() * 1000)
    slots = tuple(
        PlannedSlot(f"{8 + n // 2:02}{n % 2 * 30:02}", starts + n * 1_800_000, SEATS // 8) for n in range(8)
    )
    plan = (Session("morning", "dept", "ordinary", None, 1500, slots),)
    account = our_id(0, 0)
    await connection.execute(
        "insert into department (id, name, campus, position) values ('dept', '内科', '本部', 1)"
    )
    await connection.execute(
        "insert into practitioner (id, name, title, department_id, position)"
        " values ($1, '王一', 'chief', 'dept', 1)",
        _DOCTOR,
    )
    await connection.execute("insert into account (id, openid, created_at) values ($1, 'o', now())", account)
    await connection.execute(
        "insert into schedule (id, practitioner_id, day, plan) values ($1, $2, $3, $4)",
        key.schedule_id,
        _DOCTOR,
        date.fromisoformat(key.day),
        orjson.dumps(plan_as_data(plan)).decode(),
    )
    for n in range(SEATS):
        patient = our_id(2, n)
        await connection.execute(
            "insert into patient (id, id_type, created_at) values ($1, 'passport', now())", patient
        )
        await connection.execute(
            "insert into account_patient (id, account_id, patient_id, relation, created_at)"
            " values ($2, $1, $2, 'self', now())",
            account,
            patient,
        )
    pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
    writing = await asyncpg.connect(url)
    died: list[str] = []
    shard = Shard(
        0,
        1,
        PostgresJournal(0, writing, pool),
        PostgresReads(pool),
        lambda: int(time.time() * 1000),
        died.append,
        _LAVISH,
    )
    await shard.start()
    for n in range(0, SEATS, 50):
        ids = [our_id(1, m).bytes for m in range(n, n + 50)]
        holds = [
            s.HoldSeat(id_, slots[n // 50].clock, our_id(2, n + m).bytes, account.bytes, 3600)
            for m, id_ in enumerate(ids)
        ]
        for commands in (holds, [s.ConfirmAppointment(id_, account.bytes) for id_ in ids]):
            said = unpack_replies(await shard.ask(pack_asks([(key.stream, 60_000, c) for c in commands])))
            assert not any(isinstance(answer, Refusal) for answer in said), said
    await shard.stop()
    await writing.close()
    await pool.close()
    assert not died


async def _template(connection: asyncpg.Connection) -> None:
    """What the first doctor's day has left in each table, set aside."""
    for (table,) in await connection.fetch(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    ):
        found = f'select * from "{table}" t where t::text ~ $p$D00000|b00c0000-?0000-?000[12]$p$'
        if await connection.fetchval(f"select exists ({found})"):
            await connection.execute(f'create temp table "t_{table}" as {found}')


async def _multiply(connection: asyncpg.Connection, first: int, last: int) -> None:
    """The first doctor's rows for the doctors from `first` up to before `last`."""
    events = await connection.fetchval("select max(seq) from t_event")
    inserts = []
    for (name,) in await connection.fetch(
        "select relname from pg_class where relkind = 'r' and relnamespace = pg_my_temp_schema() order by 1"
    ):
        columns = await connection.fetch(
            "select attname, atttypid::regtype::text from pg_attribute where attrelid = $1::text::regclass"
            " and attnum > 0",
            name,
        )
        table = name.removeprefix("t_")
        values = [
            f"seq + n::bigint * {events}"
            if (table, column) == ("event", "seq")
            else _of_doctor(column, type_)
            for column, type_ in columns
        ]
        names = ", ".join(column for column, _ in columns)
        inserts.append(
            f'insert into "{table}" ({names}) select {", ".join(values)} from "{name}",'
            " generate_series($1::int, $2::int) n"
        )
    for start in range(first, last, STEP):
        end = min(start + STEP, last) - 1
        async with connection.transaction():
            await connection.execute("set local session_replication_role = replica")  # order does not matter
            for insert in inserts:
                await connection.execute(insert, start, end)
            await connection.execute("update shard set seq = $1", (end + 1) * events)


def _of_doctor(column: str, type_: str) -> str:
    """The column's value for doctor `n`: his own id, and ids of patients and appointments with his number."""
    doctor = "'D' || lpad(n::text, 5, '0')"
    if type_ == "text":
        return f"replace({column}, '{_DOCTOR}', {doctor})"
    if type_ not in ("uuid", "bytea"):
        return column
    value = f"encode({f'uuid_send({column})' if type_ == 'uuid' else column}, 'hex')"
    for kind in (1, 2):
        upper = f"{_MARK | kind:016x}"
        value = f"replace({value}, '{upper}00000000', '{upper}' || lpad(to_hex(n), 8, '0'))"
    if type_ == "uuid":
        return f"({value})::uuid"
    name = f"encode(({doctor})::bytea, 'hex')"
    return f"decode(replace({value}, '{_DOCTOR.encode().hex()}', {name}), 'hex')"


async def _sums(url: str) -> dict[str, tuple[object, ...]]:
    """Number and sum of hashes of each table's rows; the fence and what is unlogged aside."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "select relname from pg_class where relkind = 'r' and relpersistence = 'p'"
            " and relnamespace = 'public'::regnamespace order by relname"
        )
        return {
            name: tuple(
                await connection.fetchrow(
                    "select count(*), sum(hashtextextended("
                    f'{"(id, seq)" if name == "shard" else "t"}::text, 0)) from "{name}" t'
                )
            )
            for (name,) in tables
        }
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
