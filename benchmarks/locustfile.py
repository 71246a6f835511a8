"""The load as locust runs it: phones that make one journey after the other, each at its time.

`python -m benchmarks.run` starts this with a plan (benchmarks/recording.py). What a journey is, is in
benchmarks/journeys.py.
"""

import json
import ssl
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Final

import gevent
import psutil
from locust import FastHttpUser, LoadTestShape, events, task
from locust.env import Environment
from locust.exception import StopUser

from benchmarks.journeys import Person
from benchmarks.recording import Plan, Run

LATE_SECONDS: Final = 0.1  # a journey that begins so much after its time is the generator's fault
PROGRESS_SECONDS: Final = 1.0
LAG_SECONDS: Final = 0.02  # how often we look how late we wake: what every latency here includes


@events.init_command_line_parser.add_listener
def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--plan", required=True, help="the run as JSON; see benchmarks/recording.py")


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
        person = Person(RUN, self, number)
        person.prepare(due)
        gevent.sleep(max(0.0, due - RUN.now()))
        RUN.begun += 1
        RUN.late += RUN.now() - due > LATE_SECONDS
        try:
            person.journey()
        finally:
            RUN.done += 1
