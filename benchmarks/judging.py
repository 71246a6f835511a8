"""What a run of one shape comes to: figures by kind of request, and what is wrong with them."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks import plots
from benchmarks.looking import P99_SECONDS_MAX

RESULTS: Final = Path(__file__).parent / "results"
P95_MS_MAX: Final = 2_000.0  # the user's two seconds
BOOKING_KINDS: Final = (
    *("hold", "confirm", "cancel", "change", "group", "wait", "desk"),
    *("my appointments", "sign in", "add patient"),
)
GENERATOR_CPU_PERCENT_MAX: Final = 90.0  # of one core; beyond it the times are locust's, not ours
GENERATOR_LAG_MS_MAX: Final = 20.0
OTHERS_CPU_PERCENT_MAX: Final = 20.0


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
    stream_ms: dict[str, float]  # from a change's commit to a looking patient's socket
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def table_of(samples: plots.Samples) -> list[dict[str, Any]]:
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


def stream_ms(seconds: list[float], missed: int) -> dict[str, float]:
    p50, p95, p99 = numpy.percentile(seconds, (50, 95, 99)) * 1000 if seconds else (0.0, 0.0, 0.0)
    times = {"p50": p50, "p95": p95, "p99": p99, "max": max(seconds, default=0.0) * 1000}
    return {"changes": len(seconds), "missed": missed, **{k: round(float(v), 1) for k, v in times.items()}}


def judge(result: Result, progress: list[dict[str, Any]]) -> None:
    """What must not be is a fault; what makes the figures less than they seem is a warning."""
    for row in result.table:
        if row["kind"] in BOOKING_KINDS and row["p95_ms"] > P95_MS_MAX:
            result.faults.append(f"p95 of {row['kind']} is {row['p95_ms']:.0f} ms, over {P95_MS_MAX:.0f}")
        wrong = {w: n for w, n in row["outcomes"].items() if w in ("failed", "no answer")}
        if wrong:
            result.faults.append(f"{row['kind']}: {wrong} (see {result.shape}.locust.log)")
    if result.stream_ms["missed"] or result.stream_ms["p99"] > P99_SECONDS_MAX * 1000:
        result.faults.append(f"a looking patient waits too long for changes: {result.stream_ms}")
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


def server_p95(before: str, after: str) -> dict[str, float]:
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


def show(result: Result, console: Console) -> None:
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
    console.print(
        "  from a change's commit to a looking patient: p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms"
        " of {changes:.0f} changes, {missed:.0f} missed".format(**result.stream_ms)
    )
    slowest = result.server_p95_ms.get("/api/v1/appointments")
    if slowest is not None:
        console.print(f"  the gateways' own p95 of /api/v1/appointments: within {slowest:.1f} ms")
    for warning in result.warnings:
        console.print(f"  [yellow]{warning}")
    for fault in result.faults:
        console.print(f"  [red]{fault}")
    console.print()
