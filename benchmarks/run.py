"""`make bench`: three shapes of load against a system of its own, then the figures, plots and a verdict.

    python -m benchmarks.run [--profile quick|full] [--only monday_peak|release_rush|browse_heavy] [--seed N]

Starts the demo hospital in a new temporary home, drives it over HTTP with locust (locustfile.py), and asks
SQL afterwards whether anything was oversold, lost or doubled (check.py). Writes benchmarks/results/. Exit
status 1 when the 95th percentile of any booking request is over 2 s, a number was oversold, or an admitted
booking is missing. Load generator and system share the machine: the CPU of each is told, so that nobody
takes the generator's limit for the system's.
"""

import os

# Locust, which comes in with the shapes, changes the standard library when it is imported; here it must not.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"

import argparse
import asyncio
import contextlib
import dataclasses
import json
import platform
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import numpy
import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks import check, plots
from benchmarks.locustfile import Plan
from web.auth import Tokens

ROOT: Final = Path(__file__).parent.parent
RESULTS: Final = Path(__file__).parent / "results"
P95_MS_MAX: Final = 2_000.0  # the user's two seconds
BOOKING_KINDS: Final = ("hold", "confirm", "cancel", "my appointments", "sign in", "add patient")
READY_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 60.0
FAMOUS_EACH_WAVE: Final = 3
GENERATOR_CPU_PERCENT_MAX: Final = 90.0  # of one core; beyond it the times are locust's, not ours
GENERATOR_LAG_MS_MAX: Final = 20.0
OTHERS_CPU_PERCENT_MAX: Final = 20.0
ZONE: Final = ZoneInfo("Asia/Shanghai")  # the demo hospital's
TOKEN_SECONDS: Final = 6 * 3600


@dataclass(frozen=True, slots=True)
class Profile:
    """How long and how hard. The rates were found by trial on two cores; see peak_requests_per_second."""

    seconds: float  # a shape
    rush_seconds: float
    waves: int
    crowd: int
    # By trial on two quiet cores: at the peak, generator and system together keep them four fifths busy.
    monday_peak: float  # requests/s
    browse_peak: float


PROFILES: Final = {
    "quick": Profile(25, 24, 3, 500, 700, 700),
    "full": Profile(120, 120, 15, 500, 700, 700),
}
SHAPES: Final = ("monday_peak", "release_rush", "browse_heavy")


@dataclass(frozen=True, slots=True)
class System:
    url: str
    home: Path
    process: psutil.Process

    @property
    def database_url(self) -> str:
        return check.database_url(self.home)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def cpu_seconds(self) -> dict[str, float]:
        """Used so far, by kind of process."""
        used: dict[str, float] = defaultdict(float)
        for process in [self.process, *self.process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[_kind(process)] += times.user + times.system
        return used


def _kind(process: psutil.Process) -> str:
    name = " ".join(process.cmdline()[:1])
    if name.startswith("ray::ShardProcess"):
        return "shards"
    if name.startswith("ray::GatewayProcess"):
        return "gateways"
    return "postgres" if "postgres" in name else "rest (Ray, sandbox)"


def _machine_cpu_seconds() -> float:
    """Busy so far, all cores together; stolen time is busy, too."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


@contextlib.contextmanager
def started() -> Iterator[System]:
    """The demo hospital in a new home, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="xinglin-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # PostgreSQL may run as another user
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", "from web.cli import main; main()", "serve", "--demo"]
        log = home / "serve.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--home", folder, "--port", str(port)],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us to pass on
            )
        try:
            _wait_until_ready(url, process, log)
            yield System(url, home, psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return
        time.sleep(0.1)
    sys.exit(f"the system did not start:\n{log.read_text()}")


async def _add_people(system: System, number: int) -> list[list[str]]:
    """[access token, patient id] of new accounts with a patient each: their sign-in is not the measurement.

    Their document is a passport that says neither age nor sex, so every department is open to them.
    """
    now = datetime.now(UTC)
    made = [(UUID(int=secrets.randbits(128)), UUID(int=secrets.randbits(128))) for _ in range(number)]
    connection = await asyncpg.connect(system.database_url)
    try:
        await connection.copy_records_to_table(
            "account",
            columns=["id", "openid", "created_at"],
            records=[(account, f"bench-{account}", now) for account, _ in made],
        )
        await connection.copy_records_to_table(
            "patient",
            columns=["id", "id_type", "id_number", "name", "created_at"],
            records=[
                (patient, "passport", f"B{patient.hex[:15].upper()}", "测试者", now) for _, patient in made
            ],
        )
        await connection.copy_records_to_table(
            "account_patient",
            columns=["account_id", "patient_id", "relation", "phone", "created_at"],
            records=[(account, patient, "self", "13800000000", now) for account, patient in made],
        )
        await connection.execute("analyze account, patient, account_patient")
    finally:
        await connection.close()
    tokens = Tokens((system.home / "token.key").read_bytes(), TOKEN_SECONDS, TOKEN_SECONDS)
    return [[tokens.issue(account.bytes).access_token, str(patient)] for account, patient in made]


def _famous(system: System, waves: int, days: list[date]) -> list[list[str]]:
    """For each wave, some days of chiefs that nobody has booked from yet, no doctor twice."""
    found = system.get(f"/api/v1/schedules?title=chief&from={days[1]}&to={days[-1]}")["schedules"]
    free = [s for s in found if s["remaining"] == s["capacity"]]
    free.sort(key=lambda s: (-s["capacity"], s["id"]))
    by_doctor = {s["practitioner_id"]: s["id"] for s in reversed(free)}
    ids = list(by_doctor.values())[: waves * FAMOUS_EACH_WAVE]
    return [ids[n::waves] for n in range(waves)]


@dataclass(slots=True)
class Result:
    """One shape's run. Times in ms, rates a second."""

    shape: str
    title: str
    seconds: float
    table: list[dict[str, Any]]
    outcomes: dict[str, int]
    promised: int
    journeys: int
    late: int
    requests_peak: float
    generator_cpu_percent: dict[str, float]  # of one core: mean, max
    generator_lag_ms: dict[str, float]  # how late it woke: every latency here includes that; p50, p95
    system_cpu_percent: dict[str, float]  # of one core, by kind of process
    others_cpu_percent: float  # of one core: whatever else ran on the machine
    server_p95_ms: dict[str, float]  # what the gateways measured themselves: upper bounds
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def run_shape(system: System, shape: str, profile: Profile, seed: int, console: Console) -> Result:
    today = datetime.now(ZONE).date()
    days = [today + timedelta(n) for n in range(14)]
    rush = shape == "release_rush"
    seconds = profile.rush_seconds if rush else profile.seconds
    plan = Plan(
        shape,
        seconds,
        profile.monday_peak if shape == "monday_peak" else profile.browse_peak,
        profile.crowd,
        profile.waves,
        seed,
        [day.isoformat() for day in days],
        [],
        _famous(system, profile.waves, days) if rush else [],
        str(RESULTS / f"{shape}.acked.jsonl"),
        str(RESULTS / f"{shape}.samples.csv"),
    )
    load = plan.load()
    people = asyncio.run(_add_people(system, len(load.starts())))
    file = RESULTS / f"{shape}.plan.json"
    file.write_text(json.dumps(dataclasses.asdict(plan) | {"people": people}))
    before, cpu_before = check.metrics_of(system.url), system.cpu_seconds()
    machine_before, began = _machine_cpu_seconds(), time.monotonic()
    progress = _drive(system, file, load.title, shape, console)
    elapsed = time.monotonic() - began
    machine_busy = (_machine_cpu_seconds() - machine_before) / elapsed * 100
    cpu_after, after = system.cpu_seconds(), check.metrics_of(system.url)
    file.unlink()  # it holds tokens
    findings = asyncio.run(check.check(system.database_url, Path(plan.acked), after))

    samples = plots.read_samples(Path(plan.samples))
    table = _table(samples)
    outcomes: dict[str, int] = {}
    for row in table:
        if row["kind"] == "hold":
            outcomes = row["outcomes"]
    shares = [float(p["cpu_percent"]) for p in progress if p["begun"] > 0] or [0.0]
    generator = {"mean": round(float(numpy.mean(shares)), 1), "max": max(shares)}
    used = {k: round((cpu_after[k] - cpu_before.get(k, 0)) / elapsed * 100, 1) for k in sorted(cpu_after)}
    last = progress[-1] if progress else {}
    result = Result(
        shape,
        load.title,
        seconds,
        table,
        outcomes,
        findings.promised,
        len(people),
        int(last.get("late", 0)),
        plots.peak_per_second(samples),
        generator,
        {name: float(last.get(f"lag_{name}", 0.0)) for name in ("p50", "p95")},
        used,
        round(max(0.0, machine_busy - sum(used.values()) - generator["mean"]), 1),
        _server_p95(before, after),
    )
    result.faults += findings.faults()
    _judge(result, progress)
    where = f"{machine()} · other programs took {result.others_cpu_percent:.0f} % of a core"
    plots.draw(samples, load, where, RESULTS / f"{shape}.png")
    return result


def _drive(system: System, plan: Path, title: str, shape: str, console: Console) -> list[dict[str, Any]]:
    """Runs locust to its end; what it told each second."""
    told: list[dict[str, Any]] = []
    command = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--headless"]
    environment = {k: v for k, v in os.environ.items() if k != "LOCUST_SKIP_MONKEY_PATCH"}
    log = RESULTS / f"{shape}.locust.log"
    with (
        log.open("wb") as errors,
        Live(console=console, refresh_per_second=4, transient=True) as live,
        subprocess.Popen(
            [*command, "--host", system.url, "--plan", str(plan), "--only-summary", "--stop-timeout", "1"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if not line.startswith("{"):
                    continue
                told.append(json.loads(line))
                if console.is_terminal:
                    live.update(_screen(title, told[-1]))
                elif len(told) % 5 == 0:
                    console.print(_line(title, told[-1]))
        except BaseException:
            process.send_signal(signal.SIGINT)
            raise
    if process.returncode:
        told.append({**(told[-1] if told else {"late": 0, "begun": 0, "cpu_percent": 0}), "failed": str(log)})
    return told


def _counts(told: dict[str, Any]) -> tuple[int, int]:
    outcomes = told["outcomes"]
    failed = outcomes.get("failed", 0) + outcomes.get("no answer", 0)
    return failed, outcomes.get("shed", 0) + outcomes.get("unknown", 0)


def _line(title: str, told: dict[str, Any]) -> str:
    failed, shed = _counts(told)
    return (
        f"{title} {told['second']:6.1f} s  phones {told['phones']}  journeys {told['done']}/{told['begun']}  "
        f"{told['per_second']}/s  p50 {told['p50']:.0f}  p95 {told['p95']:.0f}  p99 {told['p99']:.0f} ms  "
        f"failed {failed}  shed {shed}  generator {told['cpu_percent']:.0f} % CPU"
    )


def _screen(title: str, told: dict[str, Any]) -> Table:
    failed, shed = _counts(told)
    table = Table(title=f"{title}: {told['second']:.0f} s", title_justify="left")
    for name in (
        "phones",
        "journeys",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "failed",
        "shed",
        "generator CPU",
    ):
        table.add_column(name, justify="right")
    table.add_row(
        str(told["phones"]),
        f"{told['done']}/{told['begun']}",
        str(told["per_second"]),
        *(f"{told[p]:.0f}" for p in ("p50", "p95", "p99")),
        str(failed),
        str(shed),
        f"{told['cpu_percent']:.0f} %",
    )
    return table


def _table(samples: plots.Samples) -> list[dict[str, Any]]:
    """A row for each kind of request, those of a booking first."""
    rows = []
    for kind in sorted(set(samples.kind), key=lambda k: (k not in BOOKING_KINDS, k)):
        chosen = samples.kind == kind
        times = samples.ms[chosen]
        p50, p95, p99 = numpy.percentile(times, (50, 95, 99))
        words, counts = numpy.unique(samples.outcome[chosen], return_counts=True)
        rows.append(
            {
                "kind": str(kind),
                "answers": int(chosen.sum()),
                "p50_ms": round(float(p50), 1),
                "p95_ms": round(float(p95), 1),
                "p99_ms": round(float(p99), 1),
                "max_ms": round(float(times.max()), 1),
                "outcomes": dict(zip(map(str, words), map(int, counts), strict=True)),
                "outcomes_p95_ms": {
                    str(word): round(float(numpy.percentile(times[samples.outcome[chosen] == word], 95)), 1)
                    for word in words
                },
            }
        )
    return rows


def _judge(result: Result, progress: list[dict[str, Any]]) -> None:
    """What must not be is a fault; what makes the figures less than they seem is a warning."""
    for row in result.table:
        if row["kind"] in BOOKING_KINDS and row["p95_ms"] > P95_MS_MAX:
            result.faults.append(f"p95 of {row['kind']} is {row['p95_ms']:.0f} ms, over {P95_MS_MAX:.0f}")
        wrong = {w: n for w, n in row["outcomes"].items() if w in ("failed", "no answer")}
        if wrong:
            result.faults.append(f"{row['kind']}: {wrong} (see {result.shape}.locust.log)")
    if not result.promised:
        result.faults.append("nothing was booked at all")
    if progress and "failed" in progress[-1]:
        result.faults.append(f"the load did not finish: see {progress[-1]['failed']}")
    if result.generator_cpu_percent["max"] > GENERATOR_CPU_PERCENT_MAX:
        result.warnings.append(
            f"the load generator used up to {result.generator_cpu_percent['max']:.0f} % of its core: "
            "those moments' latencies are partly its own (compare what the gateways measured)"
        )
    if result.generator_lag_ms["p95"] > GENERATOR_LAG_MS_MAX:
        result.warnings.append(
            f"the load generator woke up to {result.generator_lag_ms['p95']:.0f} ms late (p95): "
            "every latency above includes as much of its own"
        )
    if result.others_cpu_percent > OTHERS_CPU_PERCENT_MAX:
        result.warnings.append(
            f"other programs used {result.others_cpu_percent:.0f} % of a core meanwhile: quieter is better"
        )
    if result.late > 0.01 * result.journeys:
        result.warnings.append(f"{result.late} of {result.journeys} journeys began over 0.1 s late")
    for line in (RESULTS / f"{result.shape}.locust.log").read_text(errors="replace").splitlines():
        if "/WARNING/" in line and "CPU" in line:
            result.warnings.append("locust itself: " + line.partition(": ")[2])


def _server_p95(before: str, after: str) -> dict[str, float]:
    """By route, from the gateways' own histograms: the upper bound (ms) of the bucket that holds the 95th
    percentile of the requests between two readings."""
    counts: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for text, sign in ((before, -1), (after, 1)):
        for family in text_string_to_metric_families(text):
            if family.name == "xinglin_http_seconds":
                for sample in family.samples:
                    if sample.name.endswith("_bucket"):
                        bound = float(sample.labels["le"])
                        counts[sample.labels["route"]][bound] += sign * sample.value
    found = {}
    for route, buckets in counts.items():
        total = buckets[float("inf")]
        if total and route.startswith("/api"):
            bound = min(bound for bound, count in buckets.items() if count >= 0.95 * total)
            found[route] = bound * 1000
    return found


def machine() -> str:
    """CPU, cores, memory and date, for titles."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    now = datetime.now(UTC)
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB · {now:%Y-%m-%d %H:%M} UTC"


def _print(result: Result, console: Console) -> None:
    table = Table(title=f"{result.title}, {result.seconds:.0f} s", title_justify="left")
    table.add_column("request")
    for name in ("answers", "p50 ms", "p95 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right")
    table.add_column("outcomes")
    for row in result.table:
        table.add_row(
            row["kind"],
            str(row["answers"]),
            *(f"{row[p]:.1f}" for p in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
            ", ".join(
                f"{word} {count}"
                + (f" (p95 {row['outcomes_p95_ms'][word]:.0f} ms)" if len(row["outcomes"]) > 1 else "")
                for word, count in row["outcomes"].items()
            ),
        )
    console.print(table)
    cpu = ", ".join(f"{kind} {percent:.0f} %" for kind, percent in result.system_cpu_percent.items())
    console.print(
        f"  {result.journeys} people, {result.promised} numbers promised; busiest second "
        f"{result.requests_peak:.0f} answers\n"
        f"  CPU of one core: generator {result.generator_cpu_percent['mean']:.0f} % "
        f"(at most {result.generator_cpu_percent['max']:.0f} %), {cpu}, other programs "
        f"{result.others_cpu_percent:.0f} %"
    )
    slowest = result.server_p95_ms.get("/api/v1/appointments")
    if slowest is not None:
        console.print(f"  the gateways' own p95 of /api/v1/appointments: within {slowest:.1f} ms")
    for warning in result.warnings:
        console.print(f"  [yellow]{warning}")
    for fault in result.faults:
        console.print(f"  [red]{fault}")
    console.print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--profile", choices=PROFILES, default="quick")
    parser.add_argument("--only", choices=SHAPES)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    RESULTS.mkdir(exist_ok=True)
    profile = PROFILES[options.profile]
    console.print(f"{machine()}\nstarting the demo hospital …")
    results = []
    with started() as system:
        for shape in SHAPES if options.only is None else (options.only,):
            result = run_shape(system, shape, profile, options.seed, console)
            results.append(result)
            _print(result, console)
    faults = [f"{r.title}: {fault}" for r in results for fault in r.faults]
    (RESULTS / "bench.json").write_text(
        json.dumps(
            {
                "machine": machine(),
                "profile": options.profile,
                "seed": options.seed,
                "shapes": [dataclasses.asdict(r) for r in results],
                "faults": faults,
            },
            indent=1,
            ensure_ascii=False,
        )
    )
    console.print(f"plots and bench.json: {RESULTS}")
    for fault in faults:
        console.print(f"[red]NOT GOOD: {fault}")
    if not faults:
        console.print(
            "[green]good: nothing oversold, lost or doubled; p95 of every booking request within 2 s"
        )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
