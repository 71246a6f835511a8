"""Ours and the peers, one after the other on one machine and one PostgreSQL, with the same HTTP work.

The peers run in our own application: only what stands behind the route differs (benchmarks/peers/sql.py,
redis_counter.py). Each is pressed by wrk at several numbers of connections and shown at its best. Prints the
table of the design's goals with ratios, and writes benchmarks/results/peers.json.

    make bench-peers
    make bench-peers ARGS="--seconds 4"
"""

import asyncio
import contextlib
import json
import os
import platform
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.peers import data, probe, system, wrk
from benchmarks.peers.memory import descendants, weight_mib
from benchmarks.peers.sql import FILL, TABLES, WAYS
from engine import database, embedded_postgres
from web.audit import as_table, audit_url

RESULTS = Path("benchmarks/results")
CONNECTIONS = (64, 256, 512)
REQUESTS = 200_000
CATALOG_SECONDS = 3.0  # the gateway reads the new schedules; what is measured begins after that
MEMORY_DOCTORS = 1_500
MEMORY_DAYS = 14


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one measurement."""

    what: str
    value: float
    unit: str
    goal: str = ""
    reached: bool | None = None


class Bench:
    def __init__(self, console: Console, folder: Path, url: str, seconds: float) -> None:
        self._console = console
        self._home = folder
        self._url = url
        self._seconds = seconds
        self._runs = 0
        self._day = datetime.now(UTC).date() + timedelta(days=2)
        self.rows: list[Row] = []

    async def prepare(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        with self._console.status("preparing 400,000 patients"):
            await database.migrate(connection)
            people = await data.prepare(connection, (self._home / "token.key").read_bytes())
            self._requests = data.Requests(people, self._home)
            await connection.execute(TABLES)

    async def doctors(self, count: int) -> Path:
        """A file of requests for so many doctors, on a day that no other run uses."""
        self._day += timedelta(days=1)
        slots = await data.open_schedules(self._connection, f"N{count}x", count, self._day)
        await self._connection.execute(FILL)
        await self._connection.execute("vacuum analyze")
        return self._requests.write(f"{count}-{self._day}", slots, REQUESTS)

    async def forget_bookings(self) -> None:
        await self._connection.execute("delete from claim")
        await self._connection.execute("delete from appointment")
        await self._connection.execute("vacuum analyze")

    async def best(
        self, port: int, doctors: int, connections: tuple[int, ...] = CONNECTIONS, warm: bool = False
    ) -> wrk.Load:
        loads = []
        for number in connections:
            file = await self.doctors(doctors)
            if warm:
                await asyncio.sleep(CATALOG_SECONDS)
                await self.press(port, file, 64, "w", seconds=3)
            else:
                await asyncio.sleep(CATALOG_SECONDS)
            loads.append(await self.press(port, file, number, "m"))
        return max(loads, key=lambda load: load.ok_per_second)

    async def press(
        self, port: int, file: Path, connections: int, run: str, delay_ms: int = 0, seconds: float = 0
    ) -> wrk.Load:
        self._runs += 1  # no run's keys are another's
        return await wrk.press(
            f"http://127.0.0.1:{port}",
            self._home / "tokens",
            file,
            seconds or self._seconds,
            connections,
            delay_ms,
            f"{run}{self._runs}-",
        )

    def row(self, what: str, value: float, unit: str, goal: str = "", reached: bool | None = None) -> None:
        self.rows.append(Row(what, value, unit, goal, reached))
        self._console.print(f"  {what}: {value:,.2f} {unit}" + (f"   (goal {goal})" if goal else ""))

    @contextlib.asynccontextmanager
    async def ours(self, **settings: object) -> AsyncIterator[tuple[int, int]]:
        port = embedded_postgres.free_port()
        many = 10**6
        async with system.ours(
            *(self._home, self._url, port),
            active_appointments_max=many,
            account_holds_max=many,
            day_appointments_max=many,
            **settings,
        ) as process:
            yield port, process.pid

    @contextlib.asynccontextmanager
    async def peer(self, name: str, redis_url: str = "") -> AsyncIterator[int]:
        port = embedded_postgres.free_port()
        async with system.peer(name, self._home, self._url, port, redis_url):
            yield port


async def measure(bench: Bench, console: Console, redis_url: str | None) -> dict[str, float]:
    peers: dict[str, tuple[float, float]] = {}
    names = [*WAYS, "redis_counter"] if redis_url else [*WAYS]
    for name in names:
        console.print(f"[bold]{name}[/]")
        # Peers read the catalog once: their doctors come first.
        loads = []
        for doctors in (1, 1_000):
            tries = []
            for connections in CONNECTIONS:
                file = await bench.doctors(doctors)
                async with bench.peer(name, redis_url or "") as port:
                    tries.append(await bench.press(port, file, connections, "m"))
            loads.append(max(load.ok_per_second for load in tries))
        peers[name] = (loads[0], loads[1])
        durable = "" if name != "redis_counter" else ", NOT durable"
        bench.row(f"{name}: one hot doctor", loads[0], f"bookings/s{durable}")
        bench.row(f"{name}: 1,000 doctors", loads[1], f"bookings/s{durable}")

    console.print("[bold]an endpoint that only parses and echoes[/]")
    file = await bench.doctors(1)
    async with bench.peer("echo") as port:
        echoes = [await bench.press(port, file, connections, "e") for connections in CONNECTIONS]
    echo = max(load.ok_per_second for load in echoes)
    bench.row("echo", echo, "requests/s")

    # The peers keep no journal: what they wrote is not ours to count, nor to replay.
    await bench.forget_bookings()

    console.print("[bold]ours[/]")
    sql = [peers[name] for name in WAYS]
    best_hot, best_many = max(hot for hot, _ in sql), max(many for _, many in sql)
    async with bench.ours(admitted_max=4_096) as (port, _):
        hot = await bench.best(port, 1)
        bench.row("ours: one hot doctor", hot.ok_per_second, "bookings/s")
        many = await bench.best(port, 1_000)
        bench.row("ours: 1,000 doctors", many.ok_per_second, "bookings/s")
        few = await bench.best(port, 100, (512,), warm=True)
        bench.row("ours: 100 schedules", few.ok_per_second, "bookings/s")
        lots = await bench.best(port, 10_000, (512,), warm=True)
        bench.row("ours: 10,000 schedules", lots.ok_per_second, "bookings/s")
    peak = max(hot.ok_per_second, many.ok_per_second)
    ratios = {
        "hot_doctor_vs_best_sql": hot.ok_per_second / best_hot,
        "thousand_schedules_vs_best_sql": many.ok_per_second / best_many,
        "bookings_vs_echo": peak / echo,
        "ten_thousand_schedules_vs_hundred": lots.ok_per_second / few.ok_per_second,
    }
    bench.row("one hot doctor against the best SQL", r := ratios["hot_doctor_vs_best_sql"], "x", "6", r >= 6)
    r = ratios["thousand_schedules_vs_best_sql"]
    bench.row("1,000 doctors against the best SQL", r, "x", "2.5", r >= 2.5)
    bench.row("bookings against echo", r := ratios["bookings_vs_echo"], "x", "0.5", r >= 0.5)
    r = ratios["ten_thousand_schedules_vs_hundred"]
    bench.row("10,000 schedules against 100", r, "x", "0.9", r >= 0.9)

    console.print("[bold]half of saturation, and three times overload[/]")
    async with bench.ours() as (port, _):
        # A peak of its own: at the bound that is in force now, just before it is compared with.
        best = await bench.best(port, 1_000, (500,))
        bench.row("peak with admission at its default", best.ok_per_second, "bookings/s")
        file = await bench.doctors(1_000)
        await asyncio.sleep(CATALOG_SECONDS)
        connections = 128
        half = await bench.press(port, file, connections, "h", delay_ms=int(connections * 2000 / peak))
        share = half.ok_per_second / peak
        bench.row("half of saturation: offered", 100 * share, "% of the peak")
        bench.row("half of saturation: p99", half.p99_ms, "ms", "50", half.p99_ms <= 50)
        file = await bench.doctors(1_000)
        await asyncio.sleep(CATALOG_SECONDS)
        connections = 1_500
        pressing = asyncio.create_task(
            bench.press(port, file, connections, "o", delay_ms=int(connections * 1000 / (3 * peak)))
        )
        await asyncio.sleep(1.0)
        lived = await probe.measure(
            port, bench._home / "tokens", file, REQUESTS - 20_000, max(2.0, bench._seconds - 2)
        )
        over = await pressing
        goodput = 100 * over.ok_per_second / best.ok_per_second
        offered = over.answered_per_second / best.ok_per_second
        accepted, refused = probe.Latencies.p99(lived.accepted), probe.Latencies.p99(lived.refused)
        bench.row("overload: offered", offered, "x the peak")
        bench.row("overload: goodput", goodput, "% of the peak", "90", goodput >= 90)
        bench.row("overload: p99 of what is accepted", accepted, "ms", "1000", accepted <= 1000)
        bench.row("overload: p99 of a refusal", refused, "ms", "50", refused <= 50)
        ratios["overload_goodput"] = goodput / 100
    ratios["half_load_p99_ms"] = half.p99_ms
    return ratios


async def weigh(bench: Bench, connection: asyncpg.Connection) -> None:
    """All processes of a system with 21,000 schedules, each alive with a booking, beyond one with none."""
    await connection.execute(
        "delete from schedule s where not exists (select from appointment a where a.schedule_id = s.id)"
    )
    async with bench.ours() as (_, pid):
        await asyncio.sleep(3.0)
        empty = weight_mib(descendants(pid))
    day = datetime.now(UTC).date() + timedelta(days=40)
    slots: list[str] = []
    for number in range(MEMORY_DAYS):
        slots += await data.open_schedules(connection, "W", MEMORY_DOCTORS, day + timedelta(days=number))
    first = slots[:: data.SLOTS_PER_DAY]
    file = bench._requests.write("weight", first, len(first))
    async with bench.ours() as (port, pid):
        await bench.press(port, file, 64, "weight", seconds=30)
        await asyncio.sleep(3.0)
        full = weight_mib(descendants(pid))
        alive = await connection.fetchval(
            "select count(distinct schedule_id) from appointment where schedule_id like 'W%'"
        )
    bench.row("schedules alive, each with a booking", alive, "")
    bench.row("their weight in all our processes", full - empty, "MiB", "200", full - empty <= 200)


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    return f"{os.cpu_count()} cores, {cpu}, Linux {platform.release()}, Python {platform.python_version()}"


@contextlib.asynccontextmanager
async def redis(console: Console, folder: Path) -> AsyncIterator[str | None]:
    if shutil.which("redis-server") is None:
        console.print("redis-server is not installed: its row is left out (apt-get install redis-server)")
        yield None
        return
    port = embedded_postgres.free_port()
    process = await asyncio.create_subprocess_exec(
        *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
        *("--dir", str(folder)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await asyncio.sleep(0.5)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def run(seconds: float, with_memory: bool) -> int:
    console = Console()
    wrk.check_installed()
    console.print(f"{machine()}; load {os.getloadavg()[0]:.1f} before the start")
    with tempfile.TemporaryDirectory(prefix="xinglin-peers-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "token.key").write_bytes(secrets.token_bytes(32))
        server = embedded_postgres.start(folder)
        try:
            await database.create_if_missing(server.url)
            connection = await asyncpg.connect(server.url)
            bench = Bench(console, folder, server.url, seconds)
            await bench.prepare(connection)
            async with redis(console, folder) as redis_url:
                ratios = await measure(bench, console, redis_url)
            if with_memory:
                await weigh(bench, connection)
            # Days were marked as opened that nobody has booked (benchmarks/peers/data.py).
            await connection.execute(_FORGET_UNBOOKED)
            checks = await audit_url(server.url)
            await connection.close()
        finally:
            server.stop()
    console.print(as_table(checks))
    return _report(console, bench.rows, ratios, all(check.ok for check in checks))


_FORGET_UNBOOKED = """
update schedule s set opened = false
 where not exists (select from event e where e.stream = 'schedule/' || s.practitioner_id || '/' || s.day)
"""


def _report(console: Console, rows: list[Row], ratios: dict[str, float], is_whole: bool) -> int:
    table = Table(title=f"Xinglin and its peers — {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n{machine()}")
    for column in ("what", "measured", "", "goal", ""):
        table.add_column(column, justify="right" if column in ("measured", "goal") else "left")
    for row in rows:
        verdict = "" if row.reached is None else "[green]reached[/]" if row.reached else "[red]missed[/]"
        table.add_row(row.what, f"{row.value:,.2f}", row.unit, row.goal, verdict)
    console.print(table)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "peers.json").write_text(
        json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows], "ratios": ratios}, indent=1)
    )
    missed = [row.what for row in rows if row.reached is False]
    if missed:
        console.print(f"[red]missed: {', '.join(missed)}[/]")
    if not is_whole:
        console.print("[red]the audit found faults[/]")
    return 0 if is_whole and not missed else 1


@click.command()
@click.option("--seconds", default=6.0, show_default=True, help="Of each measurement.")
@click.option("--memory/--no-memory", default=True, show_default=True)
def main(seconds: float, memory: bool) -> None:
    try:
        sys.exit(uvloop.run(run(seconds, memory)))
    except wrk.NoWrk as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main()
