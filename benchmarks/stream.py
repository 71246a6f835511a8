"""How soon a call is on the screens while thousands look on, over `GET /api/v1/stream` of one gateway.

Sixty departments with their waiting rooms full. Patients watch their own tickets, screens watch zones and
doors, each over a connection of its own. Consoles call one after the other. Measured: from the moment a
console sends its request to the moment a screen has the call; how old a position is when a patient is told;
whether any call was missed or told twice; what the gateway needs for it.

    make bench-stream
    make bench-stream ARGS="--sockets 500 --seconds 20"

Everything runs on this machine, the watchers too, and reads one clock.
"""

import asyncio
import json
import random
import secrets
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import aiohttp
import asyncpg
import click
import matplotlib
import msgpack
import numpy
import orjson
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from actors.shard import Shard
from benchmarks.asking import client
from benchmarks.demo_system import machine
from benchmarks.peers import system
from engine import database, embedded_postgres
from engine.domain import waiting_room as w
from engine.domain.ids import RoomKey, ticket_id
from engine.domain.limits import BATCH_COMMANDS_MAX
from engine.domain.policy import Channel, Policy
from engine.domain.refusal import Refusal
from engine.domain.room_plan import GENERAL
from engine.journal.codec import pack_asks, unpack_replies
from engine.journal.postgres import PostgresJournal
from engine.journal.streams import read_room
from engine.records.reads import PostgresReads
from engine.records.staff import Role, Staff
from web.auth import Tokens

matplotlib.use("Agg")  # no screen is needed

from matplotlib import pyplot  # noqa: E402

ZONE: Final = ZoneInfo("Asia/Shanghai")
ROOMS: Final = 3  # of each department
SCREEN_P99_MS_MAX: Final = 500.0
SETTLE_SECONDS: Final = 3.0  # after the last call, for what is on its way
TOKEN_SECONDS: Final = 7_200
RESULTS: Final = Path("benchmarks/results")
ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Load:
    sockets: int
    screens: int
    departments: int
    rate: float  # calls per second, of all departments
    seconds: float
    clients: int
    connects_per_second: int

    @property
    def patients(self) -> int:
        return self.sockets - self.screens

    def department(self, n: int) -> str:
        return f"W{n % self.departments:03}"


@dataclass(slots=True)
class Measured:
    """Milliseconds, and what must be 0."""

    screen_ms: list[float] = field(default_factory=list)
    screen_at: list[float] = field(default_factory=list)
    """Seconds from the beginning, of each of these."""
    position_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    calls: int = 0
    refused: int = 0
    missed: int = 0
    doubled: int = 0
    wholes: int = 0  # told again to a screen that was in step
    closed: int = 0
    messages: int = 0
    gateway_cpu: float = 0.0  # cores
    bytes_per_socket: float = 0.0
    connect_seconds: float = 0.0


def account(n: int) -> bytes:
    return b"\1" + n.to_bytes(15, "big")


def patient(n: int) -> bytes:
    return b"\2" + n.to_bytes(15, "big")


def ticket(n: int) -> bytes:
    return ticket_id(b"\3" + n.to_bytes(15, "big"))


def staff(role: Role) -> Staff:
    return Staff(
        role.encode().ljust(16), f"bench-{role}", role, frozenset({role}), None, None, Channel.WINDOW
    )


def today() -> str:
    return datetime.now(ZONE).date().isoformat()


async def prepare(url: str, load: Load) -> None:
    """People with a ticket each, in rooms that are open: by a shard of our own, before the system starts."""
    connection = await asyncpg.connect(url)
    await database.migrate(connection)
    now = datetime.now(UTC)
    await connection.execute("insert into hospital (name, timezone) values ('Benchmark', 'Asia/Shanghai')")
    names = [load.department(n) for n in range(load.departments)]
    await connection.executemany(
        "insert into department (id, name, campus, position) values ($1, $1, 'main', 0)",
        [(name,) for name in names],
    )
    await connection.executemany(
        "insert into room (id, name, department_id) values ($1, $1, $2)",
        [(room(name, n), name) for name in names for n in range(ROOMS)],
    )
    people = range(load.patients)
    await connection.executemany(
        "insert into account values ($1, $2, $3)", [(UUID(bytes=account(n)), f"b{n}", now) for n in people]
    )
    await connection.executemany(
        "insert into patient (id, id_type, created_at) values ($1, 'passport', $2)",
        [(UUID(bytes=patient(n)), now) for n in people],
    )
    await connection.executemany(
        "insert into account_patient (account_id, patient_id, relation, created_at)"
        " values ($1, $2, 'self', $3)",
        [(UUID(bytes=account(n)), UUID(bytes=patient(n)), now) for n in people],
    )
    pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
    shard = Shard(
        0,
        1,
        PostgresJournal(0, connection, pool),
        PostgresReads(pool),
        lambda: int(time.time() * 1000),
        lambda why: sys.exit(why),
        Policy(),
    )
    await shard.start()
    day = today()
    asks: list[tuple[str, int, Any]] = []
    for name in names:
        for n in range(ROOMS):
            command = w.OpenRoom(secrets.token_bytes(16), room(name, n), (GENERAL,), "", "bench")
            asks.append((RoomKey(name, day).stream, 60_000, command))
    for n in people:
        taken = w.TakeNumber(b"\3" + n.to_bytes(15, "big"), patient(n), "desk", GENERAL)
        asks.append((RoomKey(load.department(n), day).stream, 60_000, taken))
    for n in range(0, len(asks), BATCH_COMMANDS_MAX):
        answers = unpack_replies(await shard.ask(pack_asks(asks[n : n + BATCH_COMMANDS_MAX])))
        refused = [answer for answer in answers if isinstance(answer, Refusal)]
        if refused:
            raise RuntimeError(f"the rooms could not be filled: {refused[0]}")
    await shard.stop()
    await pool.close()
    await connection.close()


def room(department: str, n: int) -> str:
    return f"{department}.{n + 1}"


def topics(load: Load, tokens: Tokens) -> list[tuple[str, str]]:
    """What each connection watches, with its token: zones first, then doors, then patients."""
    screen = tokens.issue_staff(staff(Role.SCREEN)).access_token
    found = []
    for n in range(load.screens):
        name, more = load.department(n), n // load.departments
        found.append(
            (f"calls/{name}" if more % 2 == 0 else f"calls/{name}/{room(name, more % ROOMS)}", screen)
        )
    for n in range(load.patients):
        found.append((f"ticket/{UUID(bytes=ticket(n))}", tokens.issue(account(n)).access_token))
    return found


class Consoles:
    """Rooms in which one patient after the other is called, seen and finished."""

    def __init__(self, load: Load, port: int, token: str) -> None:
        self._load = load
        self._address = f"http://127.0.0.1:{port}"
        self._token = token
        self._inside: dict[tuple[str, str], str] = {}
        self.sent: dict[tuple[str, str], float] = {}
        """When a number of a department was asked for (wall clock)."""
        self.answer_ms: list[float] = []
        self.refused = 0

    async def run(self) -> None:
        """At the rate wanted, whether or not what was asked before has been answered."""
        places = [
            (self._load.department(n), room(self._load.department(n), r))
            for n in range(self._load.departments)
            for r in range(ROOMS)
        ]
        chance = random.Random(7)
        free = asyncio.Queue[tuple[str, str]]()
        for place in chance.sample(places, len(places)):
            free.put_nowait(place)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with client() as session, asyncio.TaskGroup() as group:
            for n in range(int(self._load.rate * self._load.seconds)):
                await asyncio.sleep(max(0.0, began + n / self._load.rate - loop.time()))
                group.create_task(self._call(session, await free.get(), free))

    async def _call(
        self, session: aiohttp.ClientSession, place: tuple[str, str], free: asyncio.Queue[tuple[str, str]]
    ) -> None:
        department, room_id = place
        queues = f"/api/v1/queues/{department}"
        inside = self._inside.get(place)
        if inside is not None:
            await self._post(session, f"{queues}/tickets/{inside}/start", {})
        asked = time.time()
        status, told = await self._post(session, f"{queues}/call-next", {"room_id": room_id})
        if status == 200:
            self.sent[department, told["number"]] = asked
            self._inside[place] = told["ticket_id"]
            self.answer_ms.append((time.time() - asked) * 1000)
        else:
            self.refused += 1
            if self.refused == 1:
                print("refused:", status, told, file=sys.stderr)
        free.put_nowait(place)

    async def _post(
        self, session: aiohttp.ClientSession, path: str, body: object
    ) -> tuple[int, dict[str, Any]]:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Idempotency-Key": str(uuid4()),
            "Content-Type": "application/json",
        }
        async with session.post(self._address + path, data=orjson.dumps(body), headers=headers) as answer:
            return answer.status, orjson.loads(await answer.read())


def gateways(server: int) -> list[psutil.Process]:
    below = psutil.Process(server).children(recursive=True)
    return [p for p in below if " ".join(p.cmdline()[:1]).startswith("ray::Gateway")]


def memory(processes: list[psutil.Process]) -> int:
    return sum(process.memory_full_info().uss for process in processes)


def cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def measure(load: Load, home: Path, url: str, port: int, server: int, tokens: Tokens) -> Measured:
    found = Measured()
    serving = gateways(server)
    before = memory(serving)
    began = time.monotonic()
    watchers = await _watchers(load, home, port, topics(load, tokens))
    found.connect_seconds = time.monotonic() - began
    found.bytes_per_socket = (memory(serving) - before) / load.sockets
    consoles = Consoles(load, port, tokens.issue_staff(staff(Role.NURSE)).access_token)
    used, began, started = cpu(serving), time.monotonic(), time.time()
    await consoles.run()
    found.gateway_cpu = (cpu(serving) - used) / (time.monotonic() - began)
    await asyncio.sleep(SETTLE_SECONDS)
    heard: list[dict[str, Any]] = []
    for n, process in enumerate(watchers):
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"stop\n")
        await process.stdout.readline()
        await process.wait()
        heard += msgpack.unpackb((home / f"heard-{n}").read_bytes())
    found.calls, found.refused, found.answer_ms = len(consoles.sent), consoles.refused, consoles.answer_ms
    await _judge(found, load, url, heard, consoles.sent, started)
    return found


async def _watchers(
    load: Load, home: Path, port: int, wanted: list[tuple[str, str]]
) -> list[asyncio.subprocess.Process]:
    """Processes that hold the connections, each of them told the whole of what it watches."""
    found = []
    for n in range(load.clients):
        task = home / f"task-{n}"
        sources = [f"127.0.0.{2 + n * 4 + k}" for k in range(4)]
        mine = wanted[n :: load.clients]
        told = {
            "port": port,
            "sources": sources,
            "watch": mine,
            "connects_per_second": load.connects_per_second / load.clients,
        }
        task.write_bytes(orjson.dumps(told))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.stream_watchers", str(task), str(home / f"heard-{n}")),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        found.append(process)
    for process in found:
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("not everybody could connect")
    return found


async def _judge(
    found: Measured,
    load: Load,
    url: str,
    heard: list[dict[str, Any]],
    sent: dict[tuple[str, str], float],
    started: float,
) -> None:
    """What came, against what the journal says that happened."""
    connection = await asyncpg.connect(url)
    truth: dict[str, list[w.Call]] = {}
    called_at: dict[str, list[tuple[int, int]]] = {}
    for n in range(load.departments):
        name = load.department(n)
        events = await read_room(connection, RoomKey(name, today()))
        truth[name] = list(w.calls_since(w.replay(events), 0).calls)
        called_at[name] = [
            (version, event.at)
            for version, event in enumerate(events, 1)
            if isinstance(event, w.TicketCalled)
        ]
    await connection.close()
    numbers = {str(UUID(bytes=ticket(n))): load.department(n) for n in range(load.patients)}
    for one in heard:
        found.closed += one["closed"]
        found.messages += len(one["messages"])
        if one["topic"].startswith("calls/"):
            _judge_screen(found, one, truth, sent, started)
        else:
            name = numbers[one["topic"].removeprefix("ticket/")]
            _judge_patient(found, one["messages"], called_at[name])


def _judge_screen(
    found: Measured,
    one: dict[str, Any],
    truth: dict[str, list[w.Call]],
    sent: dict[tuple[str, str], float],
    started: float,
) -> None:
    _, name, *at = one["topic"].split("/")
    told: list[int] = []
    begin = 0
    for n, (came, raw) in enumerate(one["messages"]):
        message = orjson.loads(raw)
        if "whole" in message:
            found.wholes += n > 0
            begin = message["version"] % 100_000
            continue
        for call in message["calls"]:
            told.append(call["sequence"] % 100_000)
            asked = sent.get((name, call["number"]))
            if asked is not None and call["kind"] == "called":
                found.screen_ms.append((came - asked) * 1000)
                found.screen_at.append(came - started)
    wanted = [c.sequence for c in truth[name] if c.sequence > begin and (not at or c.room_id == at[0])]
    found.missed += len(set(wanted) - set(told))
    found.doubled += len(told) - len(set(told)) + len(set(told) - set(wanted)) + (told != sorted(told))


def _judge_patient(
    found: Measured, messages: list[tuple[float, bytes]], called_at: list[tuple[int, int]]
) -> None:
    """From the first call of which this is the news to the moment when it came."""
    known = 0
    for n, (came, raw) in enumerate(messages):
        message = orjson.loads(raw)
        if n and "position" in message.get("ticket", {}):
            at = next((at for version, at in called_at if known < version <= message["version"]), None)
            if at is not None:
                found.position_ms.append(came * 1000 - at)
        known = message["version"]


def show(console: Console, load: Load, found: Measured) -> bool:
    table = Table(
        title=f"{load.sockets} connections of one gateway: {load.screens} screens, {load.patients} patients;"
        f" {found.calls} calls at {load.rate:g}/s in {load.departments} departments"
    )
    for column in ("what", "count", "p50 ms", "p99 ms", "max ms"):
        table.add_column(column, justify="left" if column == "what" else "right")
    rows = (
        ("call: request sent until on the screen", found.screen_ms),
        ("position: called until the patient is told", found.position_ms),
        ("call: request sent until answered", found.answer_ms),
    )
    for what, taken in rows:
        table.add_row(
            what,
            str(len(taken)),
            *(f"{percentile(taken, share):.0f}" for share in (50, 99)),
            f"{max(taken, default=float('nan')):.0f}",
        )
    console.print(table)
    console.print(
        f"calls missed {found.missed}, told twice {found.doubled}, begun anew {found.wholes};"
        f" connections lost {found.closed}; requests refused {found.refused}\n"
        f"gateway: {found.gateway_cpu:.2f} cores, {found.bytes_per_socket / 1024:.1f} KiB a connection;"
        f" {found.messages} messages; connecting took {found.connect_seconds:.0f} s"
    )
    good = not (found.missed or found.doubled or found.closed or found.wholes or not found.screen_ms)
    reached = good and percentile(found.screen_ms, 99) <= SCREEN_P99_MS_MAX
    console.print(
        f"goal, p99 to the screen within {SCREEN_P99_MS_MAX:.0f} ms and every call once:"
        f" {'reached' if reached else 'missed'}"
    )
    return reached


def percentile(values: Sequence[float], share: float) -> float:
    return float(numpy.percentile(values, share)) if values else float("nan")


def write(load: Load, found: Measured) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {
        "machine": machine(),
        "sockets": load.sockets,
        "screens": load.screens,
        "departments": load.departments,
        "calls_per_second": load.rate,
        "calls": found.calls,
        "missed": found.missed,
        "doubled": found.doubled,
        "begun_anew": found.wholes,
        "connections_lost": found.closed,
        "gateway_cores": found.gateway_cpu,
        "bytes_per_socket": found.bytes_per_socket,
        "messages": found.messages,
    }
    for name, taken in (
        ("call_to_screen", found.screen_ms),
        ("position_lag", found.position_ms),
        ("call_answer", found.answer_ms),
    ):
        figures |= {f"{name}_p{share}_ms": percentile(taken, share) for share in (50, 99)}
        figures[f"{name}_max_ms"] = max(taken, default=float("nan"))
    (RESULTS / "stream.json").write_text(json.dumps(figures, indent=1))
    with pyplot.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure, (over_time, spread) = pyplot.subplots(2, 1, figsize=(11, 8), layout="constrained")
        figure.suptitle(
            f"Xinglin · {load.sockets} WebSocket connections of one gateway, {load.rate:g} calls/s"
            f"\n{machine()}",
            fontsize=12,
        )
        seconds: dict[int, list[float]] = defaultdict(list)
        for at, ms in zip(found.screen_at, found.screen_ms, strict=True):
            seconds[int(at)].append(ms)
        axis = sorted(seconds)
        for share, colour in ((50, "#0072B2"), (99, "#D55E00")):
            values = [percentile(seconds[second], share) for second in axis]
            over_time.plot(axis, values, color=colour, label=f"call to screen p{share}")
        over_time.axhline(
            SCREEN_P99_MS_MAX, color="#AA0000", linewidth=1, linestyle=":", label="goal: 500 ms"
        )
        over_time.set_xlabel("seconds")
        over_time.set_ylabel("ms")
        over_time.set_ylim(bottom=0)
        over_time.legend(frameon=False)
        for taken, colour, label in (
            (found.screen_ms, "#D55E00", "call to screen"),
            (found.position_ms, "#009E73", "position told"),
        ):
            ordered = numpy.sort(numpy.array(taken, float))
            spread.plot(
                ordered, numpy.arange(1, len(ordered) + 1) / max(1, len(ordered)), color=colour, label=label
            )
        spread.set_xlabel("ms")
        spread.set_ylabel("share told within")
        spread.legend(frameon=False)
        figure.savefig(RESULTS / "stream.png", dpi=120)
        pyplot.close(figure)


async def run(load: Load) -> int:
    with tempfile.TemporaryDirectory(prefix="xinglin-stream-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # as root, PostgreSQL runs as nobody and must be able to walk there
        secret = secrets.token_bytes(32)
        (home / "token.key").write_bytes(secret)
        tokens = Tokens(secret, TOKEN_SECONDS, TOKEN_SECONDS)
        server = embedded_postgres.start(home)
        try:
            await database.create_if_missing(server.url)
            await prepare(server.url, load)
            port = embedded_postgres.free_port()
            async with system.ours(
                home,
                server.url,
                port,
                gateways=1,
                shards=1,
                standbys=0,
                stream_connections_max=load.sockets + 100,
            ) as process:
                found = await measure(load, home, server.url, port, process.pid, tokens)
        finally:
            server.stop()
    write(load, found)
    return 0 if show(Console(), load, found) else 1


@click.command()
@click.option("--sockets", default=10_000, show_default=True, help="Connections of the one gateway.")
@click.option("--screens", default=100, show_default=True, help="So many of them are call screens.")
@click.option("--departments", default=60, show_default=True)
@click.option("--rate", default=30.0, show_default=True, help="Calls per second, of all departments.")
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--clients", default=2, show_default=True, help="Processes that hold the connections.")
@click.option("--connects", default=400, show_default=True, help="Connections made per second.")
def main(
    sockets: int, screens: int, departments: int, rate: float, seconds: float, clients: int, connects: int
) -> None:
    load = Load(sockets, screens, departments, rate, seconds, clients, connects)
    sys.exit(uvloop.run(run(load)))


if __name__ == "__main__":
    main()
