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
import dataclasses
import json
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import asyncpg
import numpy
from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks import check, judging, people, plots
from benchmarks.demo_system import ROOT, System, machine, machine_cpu_seconds, started
from benchmarks.judging import RESULTS
from benchmarks.looking import Looking
from benchmarks.people import Person
from benchmarks.recording import Plan
from web.demo_staff import DEMO_PASSWORD

FAMOUS_EACH_WAVE: Final = 3
LOOKED_AT: Final = 6  # slots whose changes are watched over the stream
LOOKERS: Final = 900  # people who make these changes, one number each
ZONE: Final = ZoneInfo("Asia/Shanghai")  # the demo hospital's


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


async def _add_people(system: System, number: int) -> list[Person]:
    """With two patients each: some bring somebody along."""
    connection = await asyncpg.connect(system.database_url)
    try:
        return await people.add_people(connection, (system.home / "token.key").read_bytes(), number, 2)
    finally:
        await connection.close()


def _desk_token(system: System) -> str:
    """Of the demo's clerk."""
    grant = {"grant": "password", "username": "demo-desk", "password": DEMO_PASSWORD}
    asked = urllib.request.Request(
        f"{system.url}/api/v1/sessions", json.dumps(grant).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        token: str = json.load(answer)["access_token"]
        return token


def _famous(system: System, waves: int, days: list[date]) -> tuple[list[list[str]], dict[str, str]]:
    """For each wave, some days of chiefs that nobody has booked from yet, no doctor twice; and of which
    department each is."""
    found = system.get(f"/api/v1/schedules?title=chief&from={days[1]}&to={days[-1]}")["schedules"]
    free = [s for s in found if s["remaining"] == s["capacity"]]
    free.sort(key=lambda s: (-s["capacity"], s["id"]))
    by_doctor = {s["practitioner_id"]: s["id"] for s in reversed(free)}
    ids = list(by_doctor.values())[: waves * FAMOUS_EACH_WAVE]
    departments = {s["id"]: s["sessions"][0]["department_id"] for s in free}
    return [ids[n::waves] for n in range(waves)], {id_: departments[id_] for id_ in ids}


def _looking(system: System, days: list[date]) -> Looking:
    """At the last days of doctors whom few want, so that others seldom change what is looked at."""
    found = system.get(f"/api/v1/schedules?title=resident&from={days[-4]}&to={days[-1]}")["schedules"]
    by_doctor = {s["practitioner_id"]: s["id"] for s in found if s["remaining"] == s["capacity"]}
    slots = [
        system.get(f"/api/v1/schedules/{id_}/slots")["slots"][0]["id"]
        for id_ in list(by_doctor.values())[:LOOKED_AT]
    ]
    return Looking(system.url, slots, asyncio.run(_add_people(system, LOOKERS)))


def run_shape(system: System, shape: str, profile: Profile, seed: int, console: Console) -> judging.Result:
    today = datetime.now(ZONE).date()
    days = [today + timedelta(n) for n in range(14)]
    rush = shape == "release_rush"
    seconds = profile.rush_seconds if rush else profile.seconds
    famous, departments = _famous(system, profile.waves, days) if rush else ([], {})
    plan = Plan(
        shape,
        seconds,
        profile.monday_peak if shape == "monday_peak" else profile.browse_peak,
        profile.crowd,
        profile.waves,
        seed,
        [day.isoformat() for day in days],
        [],
        famous,
        departments,
        _desk_token(system),
        str(RESULTS / f"{shape}.acked.jsonl"),
        str(RESULTS / f"{shape}.samples.csv"),
    )
    load = plan.load()
    crowd = asyncio.run(_add_people(system, len(load.starts())))
    file = RESULTS / f"{shape}.plan.json"
    file.write_text(
        json.dumps(dataclasses.asdict(plan) | {"people": [[p.token, *p.patient_ids] for p in crowd]})
    )
    before, cpu_before = check.metrics_of(system.url), system.cpu_seconds()
    machine_before, began = machine_cpu_seconds(), time.monotonic()
    looking = _looking(system, days)
    looking.start()
    try:
        progress = _drive(system, file, load.title, shape, console)
    finally:
        looking.stop()
    elapsed = time.monotonic() - began
    machine_busy = (machine_cpu_seconds() - machine_before) / elapsed * 100
    cpu_after, after = system.cpu_seconds(), check.metrics_of(system.url)
    file.unlink()  # it holds tokens
    stream = asyncio.run(looking.seconds(system.database_url))
    findings = asyncio.run(check.check(system.database_url, Path(plan.acked), after))

    samples = plots.read_samples(Path(plan.samples))
    table = judging.table_of(samples)
    outcomes: dict[str, int] = {}
    for row in table:
        if row["kind"] == "hold":
            outcomes = row["outcomes"]
    shares = [float(p["cpu_percent"]) for p in progress if p["begun"] > 0] or [0.0]
    generator = {"mean": round(float(numpy.mean(shares)), 1), "max": max(shares)}
    used = {k: round((cpu_after[k] - cpu_before.get(k, 0)) / elapsed * 100, 1) for k in sorted(cpu_after)}
    last = progress[-1] if progress else {}
    result = judging.Result(
        shape,
        load.title,
        seconds,
        table,
        outcomes,
        findings.promised,
        len(crowd),
        int(last.get("late", 0)),
        plots.peak_per_second(samples),
        generator,
        {name: float(last.get(f"lag_{name}", 0.0)) for name in ("p50", "p95")},
        used,
        round(max(0.0, machine_busy - sum(used.values()) - generator["mean"]), 1),
        judging.server_p95(before, after),
        judging.stream_ms(stream, looking.missed),
    )
    result.faults += findings.faults()
    judging.judge(result, progress)
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
            judging.show(result, console)
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
