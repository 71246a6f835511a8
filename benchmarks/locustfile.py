"""The people: what somebody does who wants a number, as locust users.

`python -m benchmarks.run` starts this with a plan (see Plan). Each journey is one person's: they look at
departments, doctors, days and slots, hold a number, take an alternative when it is gone, confirm to pay at
the hospital, and some cancel. A 503 is asked again with the same Idempotency-Key after its Retry-After.

What is measured goes into files of our own, one line an answer, because locust keeps only sums. Acked
bookings are written down outside the system under test, for benchmarks/check.py to find again.
"""

import itertools
import json
import random
import ssl
import sys
import time
from argparse import ArgumentParser
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO

import gevent
import orjson
import psutil
from locust import FastHttpUser, LoadTestShape, events, task
from locust.env import Environment
from locust.exception import StopUser

from benchmarks import shapes

TRIES_MAX: Final = 6  # of one request, when the answer is 503 or none
ALTERNATIVES_TAKEN_MAX: Final = 2
THINK_SECONDS: Final = (0.05, 0.30)  # between two requests of a person: their morning is squeezed, too
NEWCOMER_SHARE: Final = 0.03  # sign in and add their patient on the way; the others have done so before
MINE_SHARE: Final = 0.5  # look at "my appointments" afterwards (an assumption: no figure is public)
IN_ALL: Final = "booking in all"  # from the first hold to the last answer: retries, pauses, alternatives
NO_ALTERNATIVES: Final = "no alternatives"
NOT_REQUESTS: Final = (IN_ALL, NO_ALTERNATIVES)  # kinds of samples that are no single answer
LOOKED_IN_VAIN_MAX: Final = 12  # reads beyond those planned, then a person gives up
LATE_SECONDS: Final = 0.1  # a journey that begins so much after its time is the generator's fault
TITLE_WEIGHTS: Final = {"chief": 4, "associate_chief": 3, "attending": 2, "resident": 1}  # an assumption
PROGRESS_SECONDS: Final = 1.0
WINDOW_SECONDS: Final = 3.0  # that the percentiles on screen look back
LAG_SECONDS: Final = 0.02  # how often we look how late we wake: what every latency here includes


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
    people: list[list[str]]  # [access token, patient id], each good for one journey
    famous: list[list[str]]  # of each wave: schedule ids
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


@events.init_command_line_parser.add_listener
def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--plan", required=True, help="the run as JSON; see benchmarks/locustfile.py")


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


RUN: Run


@events.init.add_listener
def _prepare(environment: Environment, **_: object) -> None:
    global RUN
    assert environment.parsed_options is not None
    RUN = Run(Plan(**json.loads(Path(environment.parsed_options.plan).read_text())))


@events.test_start.add_listener
def _start(environment: Environment, **_: object) -> None:
    RUN.began = time.perf_counter() + RUN.load.clock_starts
    gevent.spawn(_watch, environment)
    gevent.spawn(_watch_lag)


def _watch_lag() -> None:
    """While journeys are on: how late this process wakes, because it is busy or gets no CPU."""
    while RUN.done < len(RUN.starts):
        due = time.perf_counter() + LAG_SECONDS
        gevent.sleep(LAG_SECONDS)
        if RUN.done < RUN.begun:
            RUN.lags.append((time.perf_counter() - due) * 1000)


def _watch(environment: Environment) -> None:
    """Tells run.py how it goes."""
    process = psutil.Process()
    process.cpu_percent()
    runner = environment.runner
    assert runner is not None
    while True:
        gevent.sleep(PROGRESS_SECONDS)
        RUN.flush()
        print(json.dumps(RUN.progress(runner.user_count, process)), flush=True)


@events.quitting.add_listener
def _end(environment: Environment, **_: object) -> None:
    RUN.flush()
    environment.process_exit_code = 0 if RUN.done == len(RUN.starts) else 3


class TheShape(LoadTestShape):
    """The shape that the plan names, under the one name that locust looks for."""

    def tick(self) -> tuple[int, float] | None:
        """Ends the run when the last journey is over, or far too long after it should be."""
        return None if RUN.done == len(RUN.starts) else RUN.load.tick()

    def reset_time(self) -> None:
        super().reset_time()
        RUN.load.reset_time()


class Phone(FastHttpUser):
    """Makes one journey after the other, each at its time."""

    network_timeout = 10.0
    connection_timeout = 5.0
    # One context for all: making one costs 10 ms, which a thousand phones would spend on nothing.
    _tls: Final = ssl.create_default_context()
    ssl_context_factory = staticmethod(lambda: Phone._tls)

    @task
    def journey(self) -> None:
        number = next(RUN.next)
        if number >= len(RUN.starts):
            raise StopUser  # all are taken; the run ends when they are done
        due = RUN.starts[number]
        person = Person(self, number)
        person.prepare(due)
        gevent.sleep(max(0.0, due - RUN.now()))
        RUN.begun += 1
        RUN.late += RUN.now() - due > LATE_SECONDS
        try:
            person.journey()
        finally:
            RUN.done += 1


@dataclass(frozen=True, slots=True)
class Said:
    """An answer as far as a person cares."""

    status: int  # 0: none came
    body: Any

    @property
    def code(self) -> str:
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


class Person:
    """Somebody who wants a number. Their choices come from the run's seed and their own number."""

    def __init__(self, phone: Phone, number: int) -> None:
        self._phone = phone
        self._number = number
        self._token, self._patient_id = RUN.plan.people[number]
        self._chance = random.Random(f"{RUN.plan.seed}/{number}")
        self._keys = itertools.count()

    def prepare(self, due: float) -> None:
        """Before the time: in a rush, look at the slots that are about to be released."""
        if isinstance(RUN.load, shapes.ReleaseRush):
            wave = self._number // RUN.load.crowd
            self._schedule_id = self._chance.choice(RUN.plan.famous[wave])
            looks_at = due - self._chance.uniform(0.5, RUN.load.first_release)
            gevent.sleep(max(0.0, looks_at - RUN.now()))
            self._wanted = self._slots(self._schedule_id)

    def journey(self) -> None:
        match RUN.load:
            case shapes.ReleaseRush():
                self._book(self._chance.choice(self._wanted) if self._wanted else None, lead=0)
            case shapes.Morning():
                self._newcomer()
                self._book(*self._looks_around(RUN.load.reads))

    # Looking.

    def _looks_around(self, reads: int) -> tuple[str | None, int]:
        """So many reads, more where nothing is free: departments, then doctors, days and slots, again and
        again. Gives the slot that they want in the end, and how many days ahead it is."""
        departments = self._departments()
        done, opened = 1, ""
        found: tuple[str | None, int] = (None, 0)
        while done + 3 <= reads or found[0] is None:
            self._think()
            # Demand falls as 1 / rank: an assumption, no figure by department is public.
            department = self._chance.choices(departments, [1 / n for n in range(1, len(departments) + 1)])[0]
            self._read("doctors", f"/api/v1/departments/{department}/practitioners")
            self._think()
            lead = self._lead()
            schedules = self._schedules(department, lead)
            done += 2
            if schedules:
                self._think()
                opened = self._chance.choices(schedules, [TITLE_WEIGHTS[s["title"]] for s in schedules])[0][
                    "id"
                ]
                slots = self._slots(opened)
                done += 1
                found = (self._chance.choice(slots), lead) if slots else found
            if done > reads + LOOKED_IN_VAIN_MAX:
                break  # nothing is free anywhere they looked: they go home
        for _ in range(reads - done if opened else 0):
            self._think()
            self._slots(opened)
        return found

    def _departments(self) -> list[str]:
        said = self._read("departments", "/api/v1/departments")
        if not RUN.catalog and said.status == 200:
            above = {d["parent_id"] for d in said.body["departments"]}
            RUN.catalog = [d["id"] for d in said.body["departments"] if d["id"] not in above]
        return RUN.catalog or ["0201"]

    def _schedules(self, department: str, lead: int) -> list[dict[str, Any]]:
        day = RUN.plan.days[lead]
        said = self._read("schedules", f"/api/v1/schedules?department={department}&from={day}&to={day}")
        return [s for s in said.body["schedules"] if s["remaining"] > 0] if said.status == 200 else []

    def _slots(self, schedule_id: str) -> list[str]:
        """Those that have a seat and have not begun."""
        said = self._read("slots", f"/api/v1/schedules/{schedule_id}/slots")
        if said.status != 200:
            return []
        first = said.body["slots"][0]["start"] if said.body["slots"] else None
        now = None if first is None else datetime.now(datetime.fromisoformat(first).tzinfo)
        soon = now and (now + timedelta(minutes=1)).isoformat()
        return [s["id"] for s in said.body["slots"] if s["remaining"] > 0 and s["start"] > soon]

    def _lead(self) -> int:
        days = len(RUN.plan.days)
        return self._chance.choices(range(days), shapes.lead_weights(days))[0]

    def _read(self, kind: str, path: str) -> Said:
        return self._ask(kind, "GET", path)

    # Booking.

    def _newcomer(self) -> None:
        """Some have no account yet."""
        if self._chance.random() >= NEWCOMER_SHARE:
            return
        code = f"sandbox:bench-{RUN.plan.seed}-{RUN.plan.shape}-{self._number}"
        said = self._ask("sign in", "POST", "/api/v1/sessions", {"grant": "wechat", "code": code})
        if said.status != 201:
            return
        known, self._token = self._token, said.body["access_token"]
        body = {
            "name": "测试新人",
            "id_type": "passport",
            "id_number": f"N{RUN.plan.seed}{RUN.plan.shape[:1].upper()}{self._number:06d}",
            "phone": f"139{self._number:08d}",
            "relation": "self",
        }
        said = self._ask("add patient", "POST", "/api/v1/patients", body)
        if said.status == 201:
            self._patient_id = said.body["id"]
        else:
            self._token = known

    def _book(self, slot: str | None, lead: int) -> None:
        if slot is None:
            RUN.record(IN_ALL, RUN.now(), "nothing free")
            return
        began = RUN.now()
        said, key = self._hold(slot)
        for choice in self._alternatives(said):
            if said.status == 201:
                break
            self._think()
            said, key = self._hold(slot := choice)
        RUN.record(IN_ALL, began, _outcome("hold", said))
        if said.status != 201:
            return
        appointment = said.body["id"]
        told = {"id": appointment, "number": said.body["number"], "slot_id": said.body["slot_id"], "key": key}
        RUN.promise(said="held", patient_id=self._patient_id, **told)
        self._think()
        # Those who would not come, by the data, here never confirm: their numbers wait out the hold.
        if self._chance.random() >= shapes.no_show_rate(lead):
            self._change("confirm", appointment, "booked")
            self._think()
        if self._chance.random() < MINE_SHARE:
            self._read("my appointments", "/api/v1/appointments")
            self._think()
        if self._chance.random() < shapes.FIGURES["cancelled"]["share"]:
            self._change("cancel", appointment, "cancelled")

    def _hold(self, slot: str) -> tuple[Said, str]:
        key = self._key()
        body = {"slot_id": slot, "patient_id": self._patient_id}
        return self._ask("hold", "POST", "/api/v1/appointments", body, key), key

    def _alternatives(self, said: Said) -> Iterator[str]:
        """What the refusal offers, from the best down; a person's second choice is a bit random, or the
        whole crowd would move on to the same seat."""
        if said.code == "slot_full":
            offered = [a["slot_id"] for a in said.body.get("alternatives", [])]
            if not offered:
                RUN.record(NO_ALTERNATIVES, RUN.now(), "nothing free")
            yield from self._chance.sample(offered, min(ALTERNATIVES_TAKEN_MAX, len(offered)))

    def _change(self, kind: str, appointment: str, becomes: str) -> None:
        RUN.promise(said=f"{kind} asked", id=appointment)
        said = self._ask(kind, "POST", f"/api/v1/appointments/{appointment}/{kind}", None, self._key())
        if said.status == 200 and said.body["status"] == becomes:
            RUN.promise(said=becomes, id=appointment)

    def _key(self) -> str:
        return f"{RUN.plan.seed}-{RUN.plan.shape}-{self._number}-{next(self._keys)}"

    # On the wire.

    def _ask(
        self, kind: str, method: str, path: str, body: dict[str, Any] | None = None, key: str | None = None
    ) -> Said:
        """Asks until there is a definite answer: 503 and silence are asked again, with the same key."""
        said = Said(0, None)
        for _ in range(TRIES_MAX):
            said, pause = self._once(kind, method, path, body, key)
            if said.status not in (0, 503):
                break
            gevent.sleep(pause * self._chance.uniform(1.0, 2.0))
        return said

    def _once(
        self, kind: str, method: str, path: str, body: dict[str, Any] | None, key: str | None
    ) -> tuple[Said, float]:
        """The answer, and the seconds after which it may be asked again."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept-Language": "en"}
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None
        if body is not None:
            data = orjson.dumps(body)
            headers["Content-Type"] = "application/json"
        sent = RUN.now()
        with self._phone.client.request(
            method, path, name=kind, data=data, headers=headers, catch_response=True
        ) as response:
            content = response.content if response.status_code else b""
            said = Said(response.status_code or 0, orjson.loads(content) if content else None)
            outcome = _outcome(kind, said)
            RUN.record(kind, sent, outcome)
            if outcome in ("failed", "no answer"):
                print(f"{kind}: {said.status} {content[:300]!r} {response.error}", file=sys.stderr)
                response.failure(f"{said.status} {said.code}")
            else:
                response.success()
            pause = float(response.headers.get("Retry-After", 1)) if said.status == 503 else 0.5
        return said, pause

    def _think(self) -> None:
        gevent.sleep(self._chance.uniform(*THINK_SECONDS))


def _outcome(kind: str, said: Said) -> str:
    """One word an answer: held, full and refused are of holds; shed and unknown are 503."""
    if said.status == 0:
        return "no answer"
    if said.status == 503:
        return "unknown" if said.code == "outcome_unknown" else "shed"
    if said.status in (200, 201):
        return "held" if kind == "hold" else "ok"
    if said.code == "slot_full":
        return "full"
    # What the rules may well say to somebody who did nothing wrong.
    return "refused" if said.code in EXPECTED_REFUSALS else "failed"


EXPECTED_REFUSALS: Final = frozenset({"slot_past", "already_booked", "time_conflict", "not_eligible"})
