"""A month of 300 doctors, read over HTTP from one gateway while somebody books and cancels.

Three rounds by one reader: whole answers; the same asked again with the tag of the last one, so that it is
sent only where something has changed; a department's month, which is what a patient's screen shows; and the
month asked again while nobody books, when nothing has changed.

    make bench-month
    make bench-month ARGS="--reads 1000"
"""

import asyncio
import itertools
import json
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import click
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.peers import system
from engine import database, embedded_postgres
from web.auth import Tokens

DEPARTMENTS = 10
DOCTORS = 300
DAYS = 31
FULL_P99_MS_MAX = 100.0  # what the issue asks for
WRITE_PAUSE_SECONDS = 0.02
READ_PAUSE_SECONDS = 0.005  # of who asks again
WARM_READS = 3
ACCOUNT = "00000001-0000-7000-8000-000000000001"
PATIENTS = [f"00000002-0000-7000-8000-{n:012}" for n in range(20)]


@dataclass(slots=True)
class Reads:
    """Of one round, in milliseconds by what was answered."""

    whole: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)
    bytes_last: int = 0


class Reader:
    """One connection that asks again and again. No HTTP library: its own work would be most of it."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._etag: str | None = None

    async def read(self, count: int, conditional: bool) -> Reads:
        reads = Reads()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        for _ in range(count):
            tag = f"If-None-Match: {self._etag}\r\n" if conditional and self._etag else ""
            started = time.perf_counter()
            writer.write(f"GET {self._path} HTTP/1.1\r\nHost: x\r\n{tag}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            status = int(head[9:12])
            if status == 200:
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                await reader.readexactly(length)
                reads.bytes_last = length
                self._etag = head.partition("etag: ")[2].partition("\r\n")[0]
            took = (time.perf_counter() - started) * 1000
            if status not in (200, 304):
                raise RuntimeError(f"{self._path} answered {status}")
            (reads.whole if status == 200 else reads.unchanged).append(took)
            if conditional:
                await asyncio.sleep(READ_PAUSE_SECONDS)
        writer.close()
        return reads


class Writer:
    """Holds numbers and gives them back a second later, until it is told to stop."""

    def __init__(self, port: int, token: str, slots: Sequence[str]) -> None:
        self._port = port
        self._token = token
        self._slots = slots
        self._stopping = False
        self.changes = 0

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        held: dict[str, str] = {}
        for patient in itertools.cycle(PATIENTS):
            if self._stopping:
                break
            if patient in held:
                await self._post(f"/api/v1/appointments/{held[patient]}/cancel", None)
                await asyncio.sleep(WRITE_PAUSE_SECONDS)
                self.changes += 1
            wanted = {"slot_id": random.choice(self._slots), "patient_id": patient}
            held[patient] = (await self._post("/api/v1/appointments", wanted))["id"]
            await asyncio.sleep(WRITE_PAUSE_SECONDS)
            self.changes += 1
        self._writer.close()

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        content = b"" if body is None else orjson.dumps(body)
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._token}\r\n"
            f"Idempotency-Key: {secrets.token_hex(8)}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        answer: dict[str, Any] = orjson.loads(await self._reader.readexactly(length))
        if head[9:12] not in ("200", "201"):
            raise RuntimeError(f"{path} answered {answer}")
        return answer


async def prepare(connection: asyncpg.Connection) -> None:
    """Departments, doctors who sit every morning and afternoon, patients. `serve` publishes the days."""
    await database.migrate(connection)
    now = datetime.now(UTC)
    await connection.execute("insert into hospital (name, timezone) values ('Benchmark', 'Asia/Shanghai')")
    await connection.execute("insert into number_class (id, name, fee_fen) values ('expert', '专家', 5000)")
    departments = [(f"B{n:02}", f"Bench {n}", "main", n) for n in range(DEPARTMENTS)]
    await connection.executemany(
        "insert into department (id, name, campus, position) values ($1, $2, $3, $4)", departments
    )
    doctors = [(f"M{n:03}", "王小明", "chief", f"B{n % DEPARTMENTS:02}", n) for n in range(DOCTORS)]
    await connection.executemany(
        "insert into practitioner (id, name, title, department_id, position) values ($1, $2, $3, $4, $5)",
        doctors,
    )
    await connection.execute(
        "insert into session_template (practitioner_id, weekday, period, starts, ends, capacity,"
        " number_class_id, department_id)"
        " select p.id, d, x.period, x.starts, x.ends, 3, 'expert', p.department_id"
        "   from practitioner p, generate_series(1, 7) d,"
        "        (values ('morning', time '08:00', time '12:00'), ('afternoon', time '14:00', time '17:30'))"
        "        as x (period, starts, ends)"
    )
    await connection.execute("insert into account values ($1, 'bench', $2)", ACCOUNT, now)
    await connection.executemany(
        "insert into patient (id, id_type, created_at) values ($1, 'passport', $2)",
        [(patient, now) for patient in PATIENTS],
    )
    await connection.executemany(
        "insert into account_patient (account_id, patient_id, relation, created_at)"
        " values ($1, $2, 'self', $3)",
        [(ACCOUNT, patient, now) for patient in PATIENTS],
    )


async def run(reads: int) -> int:
    console = Console()
    with tempfile.TemporaryDirectory(prefix="xinglin-month-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # as root, PostgreSQL runs as nobody and must be able to walk there
        secret = secrets.token_bytes(32)
        (home / "token.key").write_bytes(secret)
        token = Tokens(secret, 7_200, 7_200).issue(bytes.fromhex(ACCOUNT.replace("-", ""))).access_token
        server = embedded_postgres.start(home)
        try:
            await database.create_if_missing(server.url)
            connection = await asyncpg.connect(server.url)
            await prepare(connection)
            port = embedded_postgres.free_port()
            async with system.ours(
                home,
                server.url,
                port,
                gateways=1,
                shards=1,
                standbys=0,
                publish_days=DAYS,
                account_holds_max=100,
            ):
                slots = await _slots(connection)
                return await measure(console, port, token, slots, reads)
        finally:
            server.stop()


async def _slots(connection: asyncpg.Connection) -> list[str]:
    """From tomorrow on: what is held must not have begun."""
    tomorrow = datetime.now(UTC).date() + timedelta(days=2)
    rows = await connection.fetch(
        "select s.id || '-' || (slot ->> 0) as id from schedule s,"
        " jsonb_array_elements(s.plan) as session, jsonb_array_elements(session -> 5) as slot"
        " where s.day >= $1",
        tomorrow,
    )
    return [row["id"] for row in rows]


async def measure(console: Console, port: int, token: str, slots: list[str], reads: int) -> int:
    month = Reader(port, "/api/v1/schedules")
    rows: list[tuple[str, list[float], int]] = []
    first = await month.read(1, conditional=False)
    rows.append(("the very first, everything made", first.whole, first.bytes_last))
    await month.read(WARM_READS, conditional=False)
    writer = Writer(port, token, slots)
    writing = asyncio.create_task(writer.run())
    began = time.perf_counter()
    whole = await month.read(reads, conditional=False)
    rows.append(("whole, while somebody books", whole.whole, whole.bytes_last))
    asked = await month.read(reads * 4, conditional=True)
    rows.append(("asked again, changed", asked.whole, asked.bytes_last))
    rows.append(("asked again, 304", asked.unchanged, 0))
    rate = writer.changes / (time.perf_counter() - began)
    department = await Reader(port, "/api/v1/schedules?department=B03").read(reads * 4, conditional=False)
    rows.append(("a department's month, whole", department.whole, department.bytes_last))
    writer.stop()
    await writing
    await month.read(WARM_READS, conditional=True)
    quiet = await month.read(reads * 4, conditional=True)
    rows.append(("asked again while nobody books, 304", quiet.unchanged, 0))
    table = Table(title=f"A month of {DOCTORS} doctors x {DAYS} days; {rate:.0f} changes/s meanwhile")
    for column in ("what", "answers", "MB", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, taken, size in rows:
        table.add_row(
            what,
            str(len(taken)),
            f"{size / 1e6:.1f}" if size else "",
            f"{_percentile(taken, 0.5):.2f}",
            f"{_percentile(taken, 0.99):.2f}",
        )
    console.print(table)
    results = Path("benchmarks/results")
    results.mkdir(parents=True, exist_ok=True)
    figures = {
        what: {"answers": len(taken), "p50_ms": _percentile(taken, 0.5), "p99_ms": _percentile(taken, 0.99)}
        for what, taken, _ in rows
    }
    (results / "month.json").write_text(json.dumps({"changes_per_second": rate, **figures}, indent=1))
    reached = _percentile(whole.whole, 0.99) <= FULL_P99_MS_MAX
    console.print(
        f"goal, p99 of whole answers within {FULL_P99_MS_MAX:.0f} ms: {'reached' if reached else 'missed'}"
    )
    return 0 if reached else 1


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] if values else float("nan")


@click.command()
@click.option("--reads", default=300, show_default=True, help="Whole answers to measure.")
def main(reads: int) -> None:
    sys.exit(uvloop.run(run(reads)))


if __name__ == "__main__":
    main()
