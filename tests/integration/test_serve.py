"""`xinglin serve` as a command: what it refuses, what it opens, and how it stops.

One life of a system, told once (`life`), and then what was promised about it: started three times on one
home, stopped under load by SIGTERM, then by Ctrl-C in its terminal.
"""

import contextlib
import http.client
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from benchmarks.check import database_url
from engine.embedded_postgres import free_port
from tests.support.system import ROOT, System, run, xinglin

MARK = "XINGLIN_TEST_MARK"
START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 60.0
ANSWER_SECONDS_MAX = 10.0
GONE_SECONDS_MAX = 5.0
CROWD = 48
THREADS = 8
ACKED_MIN = 100  # bookings that are answered before it is told to stop
Json = dict[str, Any]


# Processes and sockets, as Linux tells them.


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    started: str  # so that a reused pid is another process
    command: str

    @property
    def is_alive(self) -> bool:
        return _started(self.pid) == self.started


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may itself hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _started(pid: int) -> str | None:
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def family(mark: str, root: int | None = None) -> list[Process]:
    """Every process that inherited the mark, or descends from `root`, however it calls itself."""
    parents, marked = {}, set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        with contextlib.suppress(OSError):
            parents[pid] = int(_stat(pid)[1])
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                marked.add(pid)
    if root is not None:
        marked.add(root)
    while more := {pid for pid, parent in parents.items() if parent in marked} - marked:
        marked |= more
    found = []
    for pid in sorted(marked - {os.getpid()}):
        started = _started(pid)
        if started is not None:
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(Process(pid, started, command.strip()))
    return found


@dataclass(frozen=True, slots=True)
class Listening:
    protocol: str
    address: str  # as the kernel spells it: hexadecimal, each word in the machine's order
    port: int
    inode: str

    @property
    def is_loopback(self) -> bool:
        if len(self.address) == 8:
            return self.address.endswith("7F")
        mapped = self.address.startswith("0000000000000000FFFF0000") and self.address.endswith("7F")
        return mapped or self.address == "0" * 24 + "01000000"


def open_to_others(protocols: tuple[str, ...] = ("tcp", "tcp6", "udp", "udp6")) -> list[Listening]:
    """Every socket of this machine that waits for others: TCP that listens, UDP that is bound to no peer."""
    found = []
    for protocol in protocols:
        state = "0A" if protocol.startswith("tcp") else "07"
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state:
                address, port = fields[1].split(":")
                found.append(Listening(protocol, address, int(port, 16), fields[9]))
    return found


def opened_by(processes: list[Process]) -> list[Listening]:
    inodes = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(descriptor))
    return [each for each in open_to_others() if f"socket:[{each.inode}]" in inodes]


# What cannot start.


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    mark = secrets.token_hex(8)
    monkeypatch.setenv(MARK, mark)
    return mark


def refused(*options: str) -> str:
    """Why it did not start: exit status 1, and one line on standard error."""
    done = run("serve", *options)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    line = done.stderr.removesuffix("\n")
    assert line.startswith("xinglin: ") and "\n" not in line, done.stderr
    return line


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        why = refused("--port", port, "--home", str(tmp_path / "home"))
    assert f"127.0.0.1:{port}" in why and "--port" in why
    assert not (tmp_path / "home").exists(), "nothing was begun"


def test_data_of_another_major_version_is_one_line_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("16\n")
    why = refused("--port", str(free_port()), "--home", str(tmp_path))
    assert "made by PostgreSQL 16" in why and "brings 18" in why
    assert [file.name for file in data.iterdir()] == ["PG_VERSION"]


def test_a_folder_that_holds_something_else_is_one_line_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "thesis.txt").write_text("mine")
    assert "holds no PostgreSQL data" in refused("--port", str(free_port()), "--home", str(tmp_path))
    assert (tmp_path / "postgres" / "thesis.txt").read_text() == "mine"


def test_a_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    why = refused("--port", str(free_port()), "--home", str(home))
    assert str(home) in why and "--home" in why


def test_a_database_that_is_down_is_one_line_without_its_password_and_leaves_no_process(
    tmp_path: Path, mark: str
) -> None:
    port = free_port()
    url = f"postgresql://somebody:topsecret@127.0.0.1:{port}/xinglin"
    why = refused("--port", str(free_port()), "--home", str(tmp_path), "--database-url", url)
    assert f"somebody@127.0.0.1:{port}" in why and "does not answer" in why
    assert "topsecret" not in why
    ends = time.monotonic() + GONE_SECONDS_MAX
    while left := family(mark):
        assert time.monotonic() < ends, left
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--shards", "0"), ("--gateways", "-1"), ("--port", "0"), ("--port", "65536")],
)
def test_a_value_out_of_range_is_one_line_that_names_the_option(option: str, value: str) -> None:
    why = refused(option, value)
    assert option in why and f"XINGLIN_{option[2:].upper()}" in why


def test_an_environment_variable_out_of_range_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XINGLIN_HOLD_SECONDS", "a while")
    assert "XINGLIN_HOLD_SECONDS" in refused()


@pytest.mark.parametrize("options", [("--port", "http"), ("--speed", "9"), ("now",)])
def test_what_is_no_option_is_told_with_the_usage(options: tuple[str, ...]) -> None:
    done = run("serve", *options)
    assert done.returncode == 2
    assert "Usage: xinglin serve" in done.stderr and "Traceback" not in done.stderr


def test_a_cluster_without_a_database_for_all_is_one_line() -> None:
    assert "--database-url" in refused("--port", str(free_port()), "--ray-address", "auto")


# One life.


@dataclass(slots=True)
class Run:
    """From a start to its stop."""

    ready_seconds: float = 0.0
    family: list[Process] = field(default_factory=list)
    opened: list[Listening] = field(default_factory=list)
    acked_before: int = 0
    acked_while_draining: int = 0
    statuses: set[int] = field(default_factory=set)
    stop_seconds: float = 0.0
    exit_status: int | None = None
    output: str = ""
    left: list[Process] = field(default_factory=list)
    still_open: list[Listening] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Life:
    runs: list[Run] = field(default_factory=list)
    promised: dict[str, Json] = field(default_factory=dict)
    """Appointment id -> what its patient was told last."""
    found: list[dict[str, Json | None]] = field(default_factory=list)
    """What there is of all this at the start after each stop."""
    unknown: int = 0
    resolved: set[int] = field(default_factory=set)
    """Statuses of what got no answer, asked again with its key."""
    second_on_the_database: str = ""
    second_on_the_home: str = ""
    served_on: bool = False


@dataclass(slots=True)
class Asker:
    token: str
    patient_id: str


@dataclass(slots=True)
class Load:
    """Bookings from several threads until the system is gone; knows what was promised, what is unknown."""

    port: int
    people: list[Asker]
    slots: list[str]
    promised: dict[str, Json] = field(default_factory=dict)
    unanswered: list[tuple[Asker, str, Json]] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)
    while_draining: int = 0

    def start(self) -> list[threading.Thread]:
        threads = [
            threading.Thread(target=self._book, args=(self.people[n::THREADS],)) for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _book(self, people: list[Asker]) -> None:
        connection: http.client.HTTPConnection | None = None
        while True:
            for person in people:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                    try:
                        connection.connect()
                    except OSError:
                        return  # the doors are closed
                body = {"slot_id": random.choice(self.slots), "patient_id": person.patient_id}
                key = secrets.token_hex(8)
                try:
                    status, held = _call(connection, "POST", "/api/v1/appointments", person.token, body, key)
                except (OSError, http.client.HTTPException):
                    connection = None
                    with self.lock:
                        self.unanswered.append((person, key, body))
                    continue
                self._note(status, held, person, "pending")
                if status == 503:
                    time.sleep(0.02)
                if status != 201 or random.random() < 0.2:
                    continue
                with self.lock:
                    self.promised[held["id"]]["asked"] = "booked"
                path = f"/api/v1/appointments/{held['id']}/confirm"
                try:
                    status, booked = _call(connection, "POST", path, person.token, None, key)
                except (OSError, http.client.HTTPException):
                    connection = None
                    continue
                self._note(status, booked, person, "booked")

    def _note(self, status: int, body: Json, person: Asker, said: str) -> None:
        with self.lock:
            self.statuses.add(status)
            if status in (200, 201):
                told = self.promised.setdefault(body["id"], {"token": person.token, "asked": said})
                told |= {"status": said, "number": body["number"], "slot_id": body["slot_id"]}
                self.while_draining += self.stopping.is_set()


def _call(
    connection: http.client.HTTPConnection, method: str, path: str, token: str, body: Json | None, key: str
) -> tuple[int, Json]:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    content = None if body is None else json.dumps(body).encode()
    if content is not None:
        headers["Content-Type"] = "application/json"
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    raw = response.read()
    if response.will_close:
        connection.close()  # http.client opens the next one by itself
    return response.status, json.loads(raw)


class Serving:
    """A start in a session and process group of its own, as a terminal gives it."""

    def __init__(self, folder: Path, port: int, number: int) -> None:
        self.port, self.home = port, folder / "home"
        self.mark = secrets.token_hex(8)
        self.log = folder / f"log-{number}"
        options = [
            "--demo",
            "--home",
            str(self.home),
            "--port",
            str(port),
            "--gateways",
            "2",
            "--shards",
            "2",
        ]
        began = time.monotonic()
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                xinglin(["serve", *options]),
                cwd=ROOT,
                env={**os.environ, MARK: self.mark},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while self.ask("GET", "/readyz")[0] != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() - began < START_SECONDS_MAX, self.log.read_text()
            time.sleep(0.1)
        self.run = Run(ready_seconds=time.monotonic() - began)

    def ask(
        self, method: str, path: str, token: str = "", body: Json | None = None, key: str = ""
    ) -> tuple[int, Json]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS_MAX)
        try:
            return _call(connection, method, path, token, body, key)
        except OSError:
            return 0, {}
        finally:
            connection.close()

    def people(self, crowd: str) -> list[Asker]:
        found = []
        for number in range(CROWD):
            grant = {"grant": "wechat", "code": f"sandbox:{crowd}-{number}"}
            token = self.ask("POST", "/api/v1/sessions", body=grant)[1]["access_token"]
            form = {
                "name": "测试者",
                "id_type": "passport",
                "id_number": f"{crowd.upper()}{number:05d}",
                "phone": "13800000001",
                "relation": "self",
            }
            found.append(Asker(token, self.ask("POST", "/api/v1/patients", token, form)[1]["id"]))
        return found

    def slots(self) -> list[str]:
        tomorrow = datetime.now(ZoneInfo("Asia/Shanghai")).date() + timedelta(days=1)
        schedules = self.ask("GET", f"/api/v1/schedules?from={tomorrow}")[1]["schedules"]
        return [
            slot["id"]
            for schedule in random.sample(schedules, 150)
            for slot in self.ask("GET", f"/api/v1/schedules/{schedule['id']}/slots")[1]["slots"]
        ]

    def stop(self, how: signal.Signals, whole_group: bool) -> Run:
        """Tells it to stop, waits, and notes what is left of it."""
        run = self.run
        run.family = family(self.mark, self.process.pid)
        run.opened = opened_by(run.family)
        told = " ".join(process.command for process in run.family)
        run.folders = set(re.findall(re.escape(tempfile.gettempdir()) + r"/xl-\w+", told))
        began = time.monotonic()
        if whole_group:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        try:
            run.exit_status = self.process.wait(STOP_SECONDS_MAX)
        finally:
            self.process.kill()
        run.stop_seconds = time.monotonic() - began
        inodes = {each.inode for each in run.opened}
        while True:
            run.left = [p for p in [*run.family, *family(self.mark)] if p.is_alive]
            run.still_open = [each for each in open_to_others() if each.inode in inodes]
            if not (run.left or run.still_open) or time.monotonic() - began > STOP_SECONDS_MAX:
                break
            if time.monotonic() - began - run.stop_seconds > GONE_SECONDS_MAX:
                break
            time.sleep(0.05)
        run.output = self.log.read_text()
        return run

    def stop_under_load(self, how: signal.Signals, whole_group: bool, crowd: str) -> tuple[Run, Load]:
        load = Load(self.port, self.people(crowd), self.slots())
        threads = load.start()
        ends = time.monotonic() + START_SECONDS_MAX
        while len(load.promised) < ACKED_MIN:
            assert time.monotonic() < ends, f"only {len(load.promised)} bookings: {load.statuses}"
            time.sleep(0.01)
        self.run.acked_before = len(load.promised)
        load.stopping.set()
        run = self.stop(how, whole_group)
        for thread in threads:
            thread.join(ANSWER_SECONDS_MAX)
            assert not thread.is_alive()
        run.statuses, run.acked_while_draining = load.statuses, load.while_draining
        return run, load

    def look_up(self, promised: dict[str, Json]) -> dict[str, Json | None]:
        found: dict[str, Json | None] = {}
        for appointment_id, told in promised.items():
            status, body = self.ask("GET", f"/api/v1/appointments/{appointment_id}", told["token"])
            found[appointment_id] = body if status == 200 else None
        return found


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    life = Life()
    stops = [("term", signal.SIGTERM, False), ("intr", signal.SIGINT, True)]
    with tempfile.TemporaryDirectory(prefix="xinglin-serve-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root, PostgreSQL runs as nobody and must be able to walk there
        port, serving = free_port(), None
        try:
            serving = Serving(folder, port, 0)
            for number, (crowd, how, whole_group) in enumerate(stops, 1):
                run_, load = serving.stop_under_load(how, whole_group, crowd)
                life.runs.append(run_)
                life.promised |= load.promised
                life.unknown += len(load.unanswered)
                serving = Serving(folder, port, number)
                life.found.append(serving.look_up(life.promised))
                for person, key, body in load.unanswered:
                    status, _ = serving.ask("POST", "/api/v1/appointments", person.token, body, key)
                    life.resolved.add(status)
            _beside(life, serving, folder)
            life.runs.append(serving.stop(signal.SIGTERM, whole_group=False))
        finally:
            if serving is not None:
                for process in family(serving.mark, serving.process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
        yield life


def _beside(life: Life, serving: Serving, folder: Path) -> None:
    """A second one, on the same database and on the same home."""
    url = database_url(serving.home)
    options = ("--port", str(free_port()))
    life.second_on_the_database = refused(*options, "--home", str(folder / "other"), "--database-url", url)
    life.second_on_the_home = refused(*options, "--home", str(serving.home))
    person, slots = serving.people("late")[0], serving.slots()
    ends = time.monotonic() + START_SECONDS_MAX
    while not life.served_on and time.monotonic() < ends:
        body = {"slot_id": random.choice(slots), "patient_id": person.patient_id}
        key = secrets.token_hex(8)
        life.served_on = serving.ask("POST", "/api/v1/appointments", person.token, body, key)[0] == 201


def test_sigterm_and_ctrl_c_drain_with_status_0(life: Life) -> None:
    for run_ in life.runs:
        assert run_.exit_status == 0, run_.output
        assert run_.output.rstrip().endswith("stopped")
        assert "Traceback" not in run_.output


def test_it_was_busy_when_it_was_told_to_stop(life: Life) -> None:
    """Else the others here prove nothing."""
    for run_ in life.runs[:2]:
        assert run_.acked_before >= ACKED_MIN
        assert run_.statuses <= {200, 201, 403, 409, 503}


def test_every_acked_booking_is_there_after_the_next_start(life: Life) -> None:
    assert len(life.promised) >= 2 * ACKED_MIN
    for found in life.found:
        lost = [appointment_id for appointment_id, body in found.items() if body is None]
        assert not lost, f"{len(lost)} of {len(found)} acked bookings are lost"
        for appointment_id, body in found.items():
            assert body is not None
            told = life.promised[appointment_id]
            assert (body["number"], body["slot_id"]) == (told["number"], told["slot_id"])
            assert body["status"] in (told["status"], told["asked"])
        seats = [(body["slot_id"], body["number"]) for body in found.values() if body]
        assert len(seats) == len(set(seats))


def test_what_got_no_answer_is_resolved_by_its_key(life: Life) -> None:
    assert life.resolved <= {201, 403, 409}


def test_no_process_is_left_and_no_socket(life: Life) -> None:
    for run_ in life.runs:
        names = " ".join(process.command for process in run_.family)
        assert "postgres" in names and "raylet" in names, "the search finds what there is"
        assert not run_.left
        assert not run_.still_open
        assert run_.folders and not any(Path(folder).exists() for folder in run_.folders)


def test_all_that_it_opens_is_on_the_loopback(life: Life) -> None:
    for run_ in life.runs:
        assert len(run_.opened) >= 4, "two gateways, PostgreSQL, and Ray's own"
        assert [each for each in run_.opened if not each.is_loopback] == []


def test_a_second_one_on_the_same_database_or_home_is_refused_and_the_first_serves_on(life: Life) -> None:
    assert "another xinglin serves" in life.second_on_the_database
    assert "already serves" in life.second_on_the_home
    assert life.served_on


def test_it_starts_again_on_its_home(life: Life) -> None:
    """The figure that matters is judged by the benchmark, on a quiet machine."""
    for number, run_ in enumerate(life.runs, 1):
        drained = f"{run_.acked_while_draining} answered while draining"
        print(f"start {number}: {run_.ready_seconds:.1f} s, stop {run_.stop_seconds:.1f} s, {drained}")
    print(f"{len(life.promised)} bookings promised, {life.unknown} without an answer")
    assert len(life.runs) == 3


async def test_a_second_one_that_is_refused_does_not_fence_the_first(system: System, tmp_path: Path) -> None:
    url = database_url(system.home)

    async def shards() -> list[tuple[int, ...]]:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("select id, epoch, fenced from shard order by id")
        await connection.close()
        return [tuple(row) for row in rows]

    before = await shards()
    why = refused("--port", str(free_port()), "--home", str(tmp_path), "--database-url", url)
    assert "another xinglin serves" in why
    assert await shards() == before


def test_a_home_that_cannot_be_made_is_one_line_also_with_an_outside_database(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "home"
    assert str(home) in refused("--port", str(free_port()), "--home", str(home), "--database-url", database)
