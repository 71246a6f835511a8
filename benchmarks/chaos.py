"""Kills under load: shards, gateways and PostgreSQL end with SIGKILL while people book, and nothing that was
answered may be lost, doubled or oversold.

Bookings arrive open loop: at their own times, answered or not those before them. A request whose outcome
is unknown is asked again with the same key, as the contract says, until it is known. After the load the
database is audited against what was answered.

    make chaos                         ten kills of shards, three of PostgreSQL, two of gateways
    make chaos ARGS="--shard-kills 30"
"""

import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import aiohttp
import click
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.peers import data
from engine import database, embedded_postgres
from engine.domain.schedule import Status
from web.audit import Acked, as_table, audit_url

DOCTORS = 40
SETTLE_SECONDS = 3.0
AGAIN_SECONDS = 0.05
GIVE_UP_SECONDS = 60.0


@dataclass(slots=True)
class Answer:
    """One booking as its client lived it. Times are of this process's monotonic clock."""

    asked: float
    done: float
    status: int
    attempts: int
    body: dict[str, object]


@dataclass(slots=True)
class Kill:
    what: str
    at: float
    pid: int
    first_success: float | None = None

    @property
    def recovery_seconds(self) -> float | None:
        return None if self.first_success is None else self.first_success - self.at


@dataclass(slots=True)
class Run:
    answers: list[Answer] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    unanswered: int = 0


class Patients:
    """Who books: each request is another person's, so that each may have a number."""

    def __init__(self, people: data.People, slots: list[str], seed: int) -> None:
        self._people = people
        self._slots = slots
        self._random = random.Random(seed)
        self._next = 0

    def take(self) -> tuple[str, dict[str, str], str]:
        number = self._next
        self._next += 1
        account, patient = self._people.patients[number]
        body = {"slot_id": self._random.choice(self._slots), "patient_id": patient}
        return self._people.tokens[account], body, f"chaos-{number}"


async def book(session: aiohttp.ClientSession, address: str, patients: Patients, run: Run) -> None:
    token, body, key = patients.take()
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    asked = time.monotonic()
    for attempt in range(1, 10_000):
        try:
            async with session.post(f"{address}/api/v1/appointments", json=body, headers=headers) as response:
                if response.status < 500:
                    said = await response.json()
                    run.answers.append(Answer(asked, time.monotonic(), response.status, attempt, said))
                    return
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # silence: unknown, so the same key again
        if time.monotonic() - asked > GIVE_UP_SECONDS:
            break
        await asyncio.sleep(AGAIN_SECONDS * random.uniform(1, 3))
    run.unanswered += 1


async def load(address: str, patients: Patients, rate: float, run: Run, stop: asyncio.Event) -> None:
    """Poisson arrivals; waits at the end for every one to be answered."""
    under_way: set[asyncio.Task[None]] = set()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=5)) as session:
        due = time.monotonic()
        while not stop.is_set():
            due += random.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(book(session, address, patients, run))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)


def children_of(pid: int) -> dict[int, str]:
    """Every process below this one, with its command line."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                stat = Path(f"/proc/{name}/stat").read_text()
                parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    below = {pid}
    for _ in range(8):
        below |= {child for child, parent in parents.items() if parent in below}
    found = {}
    for child in below - {pid}:
        with suppress(OSError):
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found[child] = line
    return found


def serving_pid(logs: Path, shard_id: int) -> int:
    """Of the process that last said that it serves the shard."""
    said: list[tuple[str, int]] = []
    for file in logs.glob("shard-process-*.log"):
        for line in file.read_text().splitlines():
            match = re.match(rf"(\S+ \S+) (\d+) INFO .*shard {shard_id} serves at epoch", line)
            if match:
                said.append((match[1], int(match[2])))
    return max(said)[1]


async def killing(
    serve_pid: int, home: Path, plan: list[str], pause: tuple[float, float], run: Run, console: Console
) -> None:
    for number, what in enumerate(plan, 1):
        await asyncio.sleep(random.uniform(*pause))
        if what == "shard":
            pid = serving_pid(home / "logs", 0)
        elif what == "postgres":
            pid = int((home / "postgres" / "postmaster.pid").read_text().split()[0])
        else:
            pid = next(p for p, line in children_of(serve_pid).items() if line.startswith("ray::Gateway"))
        kill = Kill(what, time.monotonic(), pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            run.kills.append(kill)
        ends = time.monotonic() + GIVE_UP_SECONDS
        while kill.first_success is None and time.monotonic() < ends:
            await asyncio.sleep(0.01)
            kill.first_success = next(
                (a.done for a in reversed(run.answers) if a.asked > kill.at and a.status == 201), None
            )
        # The first of them, not the last one seen.
        first = [a.done for a in run.answers if a.asked > kill.at and a.status == 201]
        kill.first_success = min(first, default=None)
        took = kill.recovery_seconds
        said = "no success" if took is None else f"first success after {took:.2f} s"
        console.print(
            f"  {number}/{len(plan)} killed {what} (pid {pid}): {said}; {len(run.answers)} answered"
        )


async def experiment(
    plan: list[str], rate: float, pause: tuple[float, float], seed: int, results: Path | None
) -> int:
    console = Console()
    run = Run()
    random.seed(seed)
    with tempfile.TemporaryDirectory(prefix="xinglin-chaos-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        port = embedded_postgres.free_port()
        command = [str(Path(sys.executable).with_name("xinglin")), "serve", "--no-demo", "--home", str(home)]
        log = (home / "serve.log").open("wb")
        environment = {**os.environ, "XINGLIN_ACCOUNT_HOLDS_MAX": "100"}
        serve = await asyncio.create_subprocess_exec(
            *command, "--port", str(port), stdout=log, stderr=log, env=environment
        )
        address = f"http://127.0.0.1:{port}"
        try:
            await _until_ready(serve, address, home)
            url = embedded_postgres.running(home)
            assert url is not None
            people, slots = await _prepare(url, home)
            patients = Patients(people, slots, seed)
            await asyncio.sleep(1.0)
            console.print(f"{rate:.0f} bookings/s, seed {seed}; kills: {len(plan)}")
            stop = asyncio.Event()
            loading = asyncio.create_task(load(address, patients, rate, run, stop))
            await killing(serve.pid, home, plan, pause, run, console)
            await asyncio.sleep(SETTLE_SECONDS)
            stop.set()
            await loading
            acked = _acked(run)
            checks = await audit_url(url, acked)
            console.print(as_table(checks))
        finally:
            if serve.returncode is None:
                serve.send_signal(signal.SIGTERM)
                await asyncio.wait_for(serve.wait(), 60)
            log.close()
        if serve.returncode:
            console.print((home / "serve.log").read_text(errors="replace")[-3000:])
    return _report(console, run, acked, any(check.faults for check in checks), results)


async def _until_ready(serve: asyncio.subprocess.Process, address: str, home: Path) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(900):
            assert serve.returncode is None, (home / "serve.log").read_text()
            with suppress(aiohttp.ClientError, OSError):
                async with session.get(f"{address}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise RuntimeError("the system did not become ready")


async def _prepare(url: str, home: Path) -> tuple[data.People, list[str]]:
    connection = await database.connect(url)
    try:
        people = await data.prepare(connection, (home / "token.key").read_bytes())
        day = datetime.now(UTC).date() + timedelta(days=2)
        return people, await data.open_schedules(connection, "C", DOCTORS, day)
    finally:
        await connection.close()


def _acked(run: Run) -> list[Acked]:
    held = frozenset({int(Status.PENDING)})
    return [
        Acked(UUID(str(a.body["id"])), str(a.body["slot_id"]), int(str(a.body["number"])), held)
        for a in run.answers
        if a.status == 201
    ]


def _report(console: Console, run: Run, acked: list[Acked], is_damaged: bool, results: Path | None) -> int:
    table = Table(title="Recovery: from the kill to the first success of a request made after it")
    for column in ("killed", "times", "p50 s", "p95 s", "worst s"):
        table.add_column(column, justify="left" if column == "killed" else "right")
    for what in dict.fromkeys(kill.what for kill in run.kills):
        took = sorted(k.recovery_seconds or float("inf") for k in run.kills if k.what == what)
        at = [took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.95)]
        table.add_row(what, str(len(took)), *(f"{x:.2f}" for x in (*at, took[-1])))
    console.print(table)
    doubled = len(acked) - len({a.id for a in acked})
    other = {a.status for a in run.answers} - {201}
    again = sum(a.attempts > 1 for a in run.answers)
    console.print(
        f"{len(run.answers)} answered, {len(acked)} booked, {again} asked again with the same key, "
        f"{run.unanswered} never answered, {doubled} doubled, other statuses {sorted(other) or 'none'}"
    )
    if results is not None:
        _keep(results, run, len(acked), again, doubled, is_damaged)
    return 1 if is_damaged or doubled or run.unanswered or other else 0


def _keep(results: Path, run: Run, booked: int, again: int, doubled: int, is_damaged: bool) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "chaos.json").write_text(
        json.dumps(
            {
                "kills": [{"what": k.what, "recovery_seconds": k.recovery_seconds} for k in run.kills],
                "answered": len(run.answers),
                "booked": booked,
                "asked_again": again,
                "unanswered": run.unanswered,
                "doubled": doubled,
                "audit": "FAILED" if is_damaged else "OK",
            },
            indent=1,
        )
    )


@click.command()
@click.option("--shard-kills", default=10, show_default=True)
@click.option("--postgres-kills", default=3, show_default=True)
@click.option("--gateway-kills", default=2, show_default=True)
@click.option("--rate", default=150.0, show_default=True, help="Bookings a second.")
@click.option(
    "--pause",
    default=(3.0, 5.0),
    type=(float, float),
    show_default=True,
    help="Seconds between kills, from and to.",
)
@click.option("--seed", default=None, type=int, help="Printed, so that a run can be made again.")
@click.option("--write/--no-write", default=True, show_default=True, help="benchmarks/results/chaos.json")
def main(
    shard_kills: int,
    postgres_kills: int,
    gateway_kills: int,
    rate: float,
    pause: tuple[float, float],
    seed: int,
    write: bool,
) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    plan = ["shard"] * shard_kills + ["postgres"] * postgres_kills + ["gateway"] * gateway_kills
    random.Random(seed).shuffle(plan)
    results = Path("benchmarks/results") if write else None
    sys.exit(uvloop.run(experiment(plan, rate, pause, seed, results)))


if __name__ == "__main__":
    main()
