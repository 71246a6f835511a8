"""One run of the load: what is planned, and what is written down of it.

What is measured goes into files of our own, one line an answer, because locust keeps only sums. Acked
bookings are written down outside the system under test, for benchmarks/check.py to find again.
"""

import itertools
import json
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import psutil

from benchmarks import shapes

IN_ALL: Final = "booking in all"  # from the first hold to the last answer: retries, pauses, alternatives
NO_ALTERNATIVES: Final = "no alternatives"
NOT_REQUESTS: Final = (IN_ALL, NO_ALTERNATIVES)  # kinds of samples that are no single answer
WINDOW_SECONDS: Final = 3.0  # that the percentiles on screen look back


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of one shape, as benchmarks/run.py writes it to a JSON file."""

    shape: str  # monday_peak | release_rush | browse_heavy
    seconds: float
    peak_requests_per_second: float  # of the curves
    crowd: int  # of the rush, each wave
    waves: int
    seed: int
    days: list[str]  # that can be booked, the first is today (yyyy-mm-dd)
    people: list[list[str]]  # [access token, patient, another patient], each good for one journey
    famous: list[list[str]]  # of each wave: schedule ids
    departments: dict[str, str]  # schedule -> department, of the famous
    desk: str  # a clerk's access token
    acked: str  # file: what was promised to people, one JSON a line
    samples: str  # file: what was measured, one CSV line an answer

    def load(self) -> shapes.Journeys:
        match self.shape:
            case "monday_peak":
                return shapes.MondayPeak(self.seconds, self.peak_requests_per_second, self.seed)
            case "browse_heavy":
                return shapes.BrowseHeavy(self.seconds, self.peak_requests_per_second, self.seed)
            case "release_rush":
                return shapes.ReleaseRush(self.seconds, self.crowd, self.waves)
            case _:
                raise ValueError(f"no shape is called {self.shape}")


class Run:
    """The one run of this process: its clock, its journeys, and everything that is written down."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.load = plan.load()
        self.starts = self.load.starts()
        if len(self.starts) > len(plan.people):
            raise ValueError(f"{len(self.starts)} journeys, but only {len(plan.people)} people")
        self.next = itertools.count()
        self.began = 0.0  # perf_counter at second 0
        self.begun = self.done = self.late = 0
        self.catalog: list[str] = []
        self.outcomes: dict[str, int] = {}
        self.lags: list[float] = []  # ms
        self._recent: deque[tuple[float, float]] = deque()  # (answered, ms)
        self._acked = _lines(plan.acked)
        self._samples = _lines(plan.samples)

    def now(self) -> float:
        return time.perf_counter() - self.began

    def record(self, kind: str, sent: float, outcome: str) -> None:
        """`sent` is of `now`'s clock; the answer is there by this very moment."""
        answered = self.now()
        ms = (answered - sent) * 1000
        self._samples.write(f"{sent:.4f},{kind},{ms:.2f},{outcome}\n")
        if kind not in NOT_REQUESTS:
            self._recent.append((answered, ms))
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def promise(self, **said: object) -> None:
        """Something that the system has answered with success, and so must never forget."""
        self._acked.write(json.dumps(said) + "\n")

    def progress(self, phones: int, process: psutil.Process) -> dict[str, object]:
        now = self.now()
        while self._recent and self._recent[0][0] < now - WINDOW_SECONDS:
            self._recent.popleft()
        times = [ms for _, ms in self._recent]
        return {
            "second": round(now, 1),
            "phones": phones,
            "begun": self.begun,
            "done": self.done,
            "late": self.late,
            "per_second": round(len(times) / WINDOW_SECONDS),
            "p50": percentile(times, 0.50),
            "p95": percentile(times, 0.95),
            "p99": percentile(times, 0.99),
            "outcomes": self.outcomes,
            "cpu_percent": process.cpu_percent(),
            "lag_p50": percentile(self.lags, 0.50),
            "lag_p95": percentile(self.lags, 0.95),
        }

    def flush(self) -> None:
        self._acked.flush()
        self._samples.flush()


def percentile(values: list[float], share: float) -> float:
    """Rounded to a tenth; 0 of nothing."""
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 1) if values else 0.0


def _lines(path: str) -> TextIO:
    return Path(path).open("w", encoding="utf-8")
