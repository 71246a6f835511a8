"""What a failing HIS costs those who are told of numbers: `make bench-outbox`.

Bookings and cancellations are committed at a steady rate, as flushes commit them; an outbox tells them to a
sandbox of a HIS, in a process of its own, that fails a fifth of the calls and lets one in twenty time out
after it has applied it. Then it is away for a while, and what has gathered goes out when it is back. At the
end the sandbox's own ledger is held against the journal: what is missing, made up, doubled, or turned round.
"""

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import numpy
import uvloop
from aiohttp import ClientSession, TCPConnector

from actors.outbox import Committed, Draft, Message, Outbox
from benchmarks.demo_system import machine
from engine import database, embedded_postgres
from engine.domain import schedule as s
from engine.journal.codec import EVENT_CODES, pack_event
from integrations.his.his import Booking, His, Kind, Person
from integrations.his.his_at import HisAt, make

APP_ID: Final = "xinglin"
LAG_SECONDS_MAX: Final = 5.0
CALL_SECONDS_MAX: Final = 2.0
TICK_SECONDS: Final = 0.05
CANCELLED_SHARE: Final = 0.3  # of numbers, right after they were booked
PRACTITIONERS: Final = 200
DRAIN_SECONDS_MAX: Final = 1800.0
_SANDBOX: Final = """
import asyncio, sys, uvloop
from integrations.his.sandbox import Sandbox
uvloop.install()
async def main():
    async with Sandbox(sys.argv[1], sys.stdin.readline().strip().encode()).running() as sandbox:
        print(sandbox.address, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    machine: str
    rate: float
    seconds: float
    messages: int
    calls: int
    lag_p50_s: float
    lag_p99_s: float  # while it failed and timed out
    lag_max_s: float
    outage_s: float
    calls_while_away: int
    waiting_at_its_end: int
    drain_s: float  # until no message was older than a second
    missing: int
    phantom: int
    doubled: int
    inversions: int
    memory_mb: float

    @property
    def is_good(self) -> bool:
        return (
            not (self.missing or self.phantom or self.doubled or self.inversions)
            and self.lag_p99_s <= LAG_SECONDS_MAX
            and (not self.outage_s or self.drain_s <= self.outage_s)
        )


class Telling:
    """The subscriber: a number booked, and perhaps cancelled. Who it is for is made up."""

    name = "his"
    kinds: frozenset[type] = frozenset({s.SeatBooked, s.SeatReleased})

    def __init__(self, his: His) -> None:
        self._his = his
        self.calls = 0
        self.done: list[tuple[float, float]] = []  # when it was committed and when it was told, time.time()

    async def messages(self, connection: asyncpg.Connection, events: Sequence[Committed]) -> list[Draft]:
        return [
            Draft(
                one.shard,
                one.seq,
                one.event.appointment_id.hex(),
                "booked" if isinstance(one.event, s.SeatBooked) else "cancelled",
                {},
            )
            for one in events
            if isinstance(one.event, (s.SeatBooked, s.SeatReleased))
        ]

    async def deliver(self, message: Message) -> None:
        self.calls += 1
        n = int(message.aggregate, 16)
        starts = datetime(2026, 12, 1, 0, 0, tzinfo=UTC) + timedelta(days=n % 14, minutes=n % 240)
        booking = Booking(
            message.aggregate,
            "D01",
            f"P{n % PRACTITIONERS:04}",
            "",
            "morning",
            starts,
            starts + timedelta(minutes=5),
            n % 60 + 1,
            2000,
            "wechat",
            Person(f"{n:032x}", None, "测试", None, None, "", "", ""),
        )
        kind = Kind.BOOKED if message.kind == "booked" else Kind.CANCELLED
        await self._his.tell(message.id, kind, booking)
        self.done.append((message.at.timestamp(), time.time()))


class Journal:
    """Commits events as flushes do: a batch a tick, gapless by shard."""

    def __init__(self, connection: asyncpg.Connection, shards: int) -> None:
        self._connection = connection
        self._shards = shards
        self._numbers = 0
        self.expected: dict[str, list[str]] = {}  # appointment -> ids of its messages in order
        self.committed: list[float] = []

    async def go(self, rate: float, seconds: float) -> None:
        """`rate` events a second for so long; behind a slow machine it catches up."""
        began, made = time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds:
            due = int(now * rate) - made
            if due > 0:
                made += await self._commit(due, made // max(1, due))
            await asyncio.sleep(TICK_SECONDS)

    async def _commit(self, count: int, turn: int) -> int:
        events: list[tuple[bytes, s.Event]] = []
        while len(events) < count:
            id_ = self._numbers.to_bytes(16, "big")
            self._numbers += 1
            events.append((id_, s.SeatBooked(id_)))
            if (self._numbers * 7919) % 100 < CANCELLED_SHARE * 100:
                events.append((id_, s.SeatReleased(id_, "cancelled", 0)))
        shard = turn % self._shards
        async with self._connection.transaction():
            last = await self._connection.fetchval(
                "update shard set seq = seq + $2 where id = $1 returning seq", shard, len(events)
            )
            first = last - len(events) + 1
            await self._connection.executemany(
                "insert into event (shard, seq, stream, version, type, at, data)"
                " values ($1, $2, $3, $4, $5, clock_timestamp(), $6)",
                [
                    (
                        shard,
                        first + n,
                        f"schedule/B{shard}/2026-12-01",
                        first + n,
                        EVENT_CODES[type(event)],
                        pack_event(event),
                    )
                    for n, (_, event) in enumerate(events)
                ],
            )
        for n, (id_, _) in enumerate(events):
            self.expected.setdefault(id_.hex(), []).append(f"{shard}-{first + n}-0")
        self.committed += [time.time()] * len(events)
        return len(events)


async def run(rate: float, seconds: float, outage: float, shards: int, picture: Path | None) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="xinglin-bench-") as folder:
        Path(folder).chmod(0o755)
        server = embedded_postgres.start(Path(folder))
        try:
            await database.create_if_missing(server.url)
            connection = await database.connect(server.url)
            await database.migrate(connection)
            await connection.execute("insert into shard (id) select generate_series(0, $1)", shards - 1)
            return await _with_his(server.url, connection, rate, seconds, outage, shards, picture)
        finally:
            server.stop()


async def _with_his(
    url: str,
    connection: asyncpg.Connection,
    rate: float,
    seconds: float,
    outage: float,
    shards: int,
    picture: Path | None,
) -> Verdict:
    secret = secrets.token_hex(32)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SANDBOX, APP_ID),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{secret}\n".encode())
    address = (await process.stdout.readline()).decode().strip()
    async with ClientSession(connector=TCPConnector(limit=512)) as client:
        his = make(HisAt("rest", address, seconds_max=CALL_SECONDS_MAX, secret=secret.encode()), client)
        telling = Telling(his)
        task = asyncio.create_task(Outbox(url, telling, from_beginning=True).run())
        journal = Journal(connection, shards)
        try:
            await _faults(client, address, fail_share=0.2, applied_then_timeout_share=0.05)
            await journal.go(rate, seconds)
            steady_until = time.time()
            calls_before = calls_after = telling.calls
            waiting, drain, back_at = 0, 0.0, steady_until
            if outage:
                await _until_drained(telling, journal, steady_until)
                calls_before = telling.calls
                await _faults(client, address, is_away=True)
                await journal.go(rate, outage)
                calls_after, waiting = telling.calls, len(journal.committed) - len(telling.done)
                back_at = time.time()
                await _faults(client, address, is_away=False)
                going_on = asyncio.create_task(journal.go(rate, outage))
                drain = await _until_fresh(telling, journal, back_at)
                going_on.cancel()
                await asyncio.gather(going_on, return_exceptions=True)
            await _until_drained(telling, journal, back_at)
            ledger = (await (await client.get(f"{address}/sandbox/ledger")).json())["rows"]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            process.terminate()
            await process.wait()
    lags = numpy.array([told - at for at, told in telling.done if at <= steady_until])
    missing, phantom, doubled, inversions = judged(journal.expected, ledger)
    if picture is not None:
        _draw(picture, telling.done, journal.committed, steady_until if outage else None, back_at)
    return Verdict(
        machine(),
        rate,
        seconds,
        len(journal.committed),
        telling.calls,
        *(round(float(numpy.percentile(lags, q)), 3) for q in (50, 99, 100)),
        outage,
        calls_after - calls_before,
        waiting,
        round(drain, 1),
        missing,
        phantom,
        doubled,
        inversions,
        round(_memory_mb(), 1),
    )


def judged(expected: dict[str, list[str]], ledger: Sequence[dict[str, Any]]) -> tuple[int, int, int, int]:
    """Missing, phantom, doubled and turned round, of what the other side says that it applied."""
    applied: dict[str, list[str]] = {}
    for row in ledger:
        applied.setdefault(row["booking"], []).append(row["message"])
    known = {message for messages in expected.values() for message in messages}
    told = [message for messages in applied.values() for message in messages]
    inversions = sum(
        [one for one in messages if one in known] != [one for one in expected.get(of, ()) if one in messages]
        for of, messages in applied.items()
    )
    return len(known - set(told)), len(set(told) - known), len(told) - len(set(told)), inversions


async def _faults(client: ClientSession, address: str, **asked: Any) -> None:
    async with client.post(f"{address}/sandbox/faults", json=asked) as answer:
        answer.raise_for_status()


async def _until_drained(telling: Telling, journal: Journal, since: float) -> None:
    while len(telling.done) < len(journal.committed):
        assert time.time() - since < DRAIN_SECONDS_MAX, "it does not drain"
        await asyncio.sleep(0.2)


async def _until_fresh(telling: Telling, journal: Journal, since: float) -> float:
    """Seconds until as much was told as had been committed a few seconds before: nothing old is left."""
    while True:
        assert time.time() - since < DRAIN_SECONDS_MAX, "it does not drain"
        limit = time.time() - LAG_SECONDS_MAX
        if len(telling.done) >= int(numpy.searchsorted(journal.committed, limit)) and time.time() > since + 1:
            return time.time() - since
        await asyncio.sleep(0.2)


def _memory_mb() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def _draw(
    file: Path,
    done: Sequence[tuple[float, float]],
    committed: Sequence[float],
    away_at: float | None,
    back_at: float,
) -> None:
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    from matplotlib import pyplot

    began = committed[0]
    told = numpy.array([at for _, at in done]) - began
    bins = numpy.arange(0, int(max(told)) + 2)
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(11, 6.5), layout="constrained")
    above.stairs(
        numpy.histogram(told, bins=bins)[0], bins, fill=True, color="#009E73", alpha=0.7, label="told"
    )
    above.stairs(
        numpy.histogram(numpy.array(committed) - began, bins=bins)[0],
        bins,
        color="#000000",
        label="committed",
    )
    above.set_ylabel("messages a second")
    below.scatter(told, [at - was for was, at in done], s=1, color="#0072B2", alpha=0.3)
    below.set_yscale("log")
    below.set_ylabel("seconds from commit to told")
    below.set_xlabel("seconds")
    if away_at is not None:
        for axes in (above, below):
            axes.axvspan(away_at - began, back_at - began, color="#D55E00", alpha=0.15, label="HIS away")
    above.legend(loc="upper left")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-outbox ARGS=")
    parser.add_argument("--rate", type=float, default=300.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--outage", type=float, default=0.0, help="seconds for which the HIS is away then")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    given.out.mkdir(exist_ok=True)
    picture = given.out / "outbox.png"
    uvloop.install()  # as Ray does for the process that does this in a server
    verdict = asyncio.run(run(given.rate, given.seconds, given.outage, given.shards, picture))
    (given.out / "outbox.json").write_text(json.dumps(asdict(verdict), indent=1))
    for name, value in asdict(verdict).items():
        print(f"{name:20} {value}")
    sys.exit(0 if verdict.is_good else 1)


if __name__ == "__main__":
    main()
