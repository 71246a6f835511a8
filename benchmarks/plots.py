"""What a run looked like over time: latency, throughput and outcomes, one figure a shape."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy
from numpy.typing import NDArray

matplotlib.use("Agg")  # no screen is needed

from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from benchmarks import shapes  # noqa: E402
from benchmarks.recording import NOT_REQUESTS  # noqa: E402

LIMIT_MS: Final = 2_000
READS: Final = ("departments", "doctors", "schedules", "month", "slots")
_OUTCOMES: Final = {
    # Colours that stay apart for the colour-blind (Okabe and Ito).
    "held": ("#009E73", "held (201)"),
    "full": ("#E69F00", "slot full (409)"),
    "refused": ("#56B4E9", "refused by a rule (403, 409)"),
    "shed": ("#CC79A7", "shed (503)"),
    "unknown": ("#0072B2", "outcome unknown (503)"),
    "failed": ("#D55E00", "failed (other)"),
    "no answer": ("#000000", "no answer"),
}


@dataclass(frozen=True, slots=True)
class Samples:
    """One entry an answer. `sent` is seconds since the clock started."""

    sent: NDArray[Any]
    kind: NDArray[Any]
    ms: NDArray[Any]
    outcome: NDArray[Any]

    @property
    def answered(self) -> NDArray[Any]:
        return self.sent + self.ms / 1000

    def where(self, chosen: NDArray[Any]) -> "Samples":
        return Samples(self.sent[chosen], self.kind[chosen], self.ms[chosen], self.outcome[chosen])

    def requests(self) -> "Samples":
        return self.where(~numpy.isin(self.kind, NOT_REQUESTS))


def read_samples(file: Path) -> Samples:
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [(row[0], row[1], row[2], row[3]) for row in csv.reader(lines)]
    sent, kind, ms, outcome = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Samples(
        numpy.array(sent, float), numpy.array(kind, str), numpy.array(ms, float), numpy.array(outcome, str)
    )


def peak_per_second(samples: Samples) -> float:
    """Answers in the busiest second."""
    seconds = samples.requests().answered.astype(int)
    return float(numpy.bincount(seconds - seconds.min()).max()) if seconds.size else 0.0


def draw(samples: Samples, load: shapes.Journeys, where: str, file: Path) -> None:
    """Three panels over one time axis, as a PNG. `where`: machine and date, for the title."""
    requests = samples.requests()
    rush = isinstance(load, shapes.ReleaseRush)
    width = 0.25 if rush and load.seconds <= 60 else 0.5 if rush else 1.0
    end = max(load.seconds, float(requests.answered.max(initial=0)))
    edges = numpy.arange(0, end + width, width)
    with pyplot.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True}):
        figure, (latency, throughput, outcomes) = pyplot.subplots(
            3, 1, figsize=(11, 11), sharex=True, height_ratios=(3, 2, 2), layout="constrained"
        )
        figure.suptitle(f"Xinglin · {load.title}, {load.seconds:.0f} s\n{where}", fontsize=12)
        _latency(latency, requests, edges, width)
        _throughput(throughput, requests, load, edges, width)
        _outcomes(outcomes, requests, edges, width)
        _label_time(outcomes, load)
        outcomes.set_xlim(0, end)
        figure.savefig(file, dpi=120)
        pyplot.close(figure)


def _label_time(axes: Axes, load: shapes.Journeys) -> None:
    """Seconds, and below them what time of the squeezed morning it is."""
    if isinstance(load, shapes.ReleaseRush):
        axes.set_xlabel(f"seconds; {load.crowd} people at each of {load.waves} instants")
    if not isinstance(load, shapes.Morning):
        return
    first, last = load.morning

    def label(second: float, _: int | None = None) -> str:
        minutes = round((first + (last - first) * second / load.seconds) * 60)
        return (
            f"{second:g}\n{minutes // 60:02d}:{minutes % 60:02d}" if second <= load.seconds else f"{second:g}"
        )

    axes.xaxis.set_major_formatter(label)
    axes.set_xlabel("seconds, and the time of the squeezed morning")


def _legend(axes: Axes) -> None:
    """Above the panel, where it hides nothing; the title has the left half of that line."""
    axes.legend(ncols=7, loc="lower right", bbox_to_anchor=(1, 1), fontsize=9, frameon=False, borderaxespad=0)


def _latency(axes: Axes, requests: Samples, edges: NDArray[Any], width: float) -> None:
    holds = requests.where(requests.kind == "hold")
    reads = requests.where(numpy.isin(requests.kind, READS))
    middles = edges[:-1] + width / 2
    lines = (
        (holds, 50, "#0072B2", "-", "hold p50"),
        (holds, 95, "#E69F00", "-", "hold p95"),
        (holds, 99, "#D55E00", "-", "hold p99"),
        (reads, 95, "#777777", "--", "reads p95"),
    )
    for chosen, percent, colour, style, label in lines:
        bins = numpy.digitize(chosen.sent, edges) - 1
        values = [
            numpy.percentile(chosen.ms[bins == n], percent) if (bins == n).any() else numpy.nan
            for n in range(len(middles))
        ]
        axes.plot(middles, values, style, color=colour, label=label, marker="o", markersize=3, linewidth=1.5)
    axes.axhline(LIMIT_MS, color="#AA0000", linewidth=1, linestyle=":", label="limit for p95: 2 s")
    axes.set_yscale("log")
    axes.set_ylim(bottom=1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("latency by second of sending, ms (log)")
    axes.set_title("Latency", loc="left")
    _legend(axes)


def _throughput(
    axes: Axes, requests: Samples, load: shapes.Journeys, edges: NDArray[Any], width: float
) -> None:
    middles = edges[:-1] + width / 2
    counts, _ = numpy.histogram(requests.answered, edges)
    axes.plot(middles, counts / width, color="#0072B2", label="all answers")
    held, _ = numpy.histogram(requests.where(requests.outcome == "held").answered, edges)
    axes.plot(middles, held / width, color="#009E73", label="numbers held")
    if isinstance(load, shapes.Morning):
        fine = numpy.linspace(0, load.seconds, 1000, endpoint=False)
        meant = [load.rate(float(second)) * load.requests_per_journey for second in fine]
        label = f"meant: journeys that begin x {load.requests_per_journey:g}"
        axes.plot(fine, meant, color="#777777", linestyle="--", linewidth=1, label=label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("answers per second")
    axes.set_title("Throughput", loc="left")
    _legend(axes)


def _outcomes(axes: Axes, requests: Samples, edges: NDArray[Any], width: float) -> None:
    holds = requests.where(requests.kind == "hold")
    bottom = numpy.zeros(len(edges) - 1)
    for outcome, (colour, label) in _OUTCOMES.items():
        chosen = holds.where(holds.outcome == outcome)
        if not chosen.sent.size and outcome not in ("held", "full", "shed"):
            continue
        counts, _ = numpy.histogram(chosen.answered, edges)
        rate = counts / width
        label = f"{label}: {chosen.sent.size}"
        axes.bar(edges[:-1], rate, width, bottom, align="edge", color=colour, label=label)
        bottom += rate
    axes.set_ylim(0, max(1.0, float(bottom.max(initial=0)) * 1.1))
    axes.set_ylabel("hold requests per second")
    axes.set_title("Outcomes of holding a number", loc="left")
    _legend(axes)
