"""Services started apart: one life of an installation, told once (`life`), and then what was promised of it.

Four servers on one Ray node and one database, each in a process of its own. Patients come all the time and
book by the contract: after 5xx or silence the same again, with the same key. Meanwhile one service after
another is stopped and started again.
"""

import contextlib
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from engine.embedded_postgres import EmbeddedPostgres, free_port
from engine.settings import Settings
from tests.support.system import LEAN, ROOT, WITHOUT_LIMITS, run, xinglin
from web.audit import audit_database

SECONDS_MAX = 90.0
ANSWER_SECONDS_MAX = 10.0
THREADS = 3
PAUSE_SECONDS = 0.2  # of a thread, so that there are seats enough however long it takes
SEATS = 5_000
BOOKED_EACH = 4  # numbers that are given between one restart and the next
SERVICES = ("booking", "payment", "reports", "integration")
Json = dict[str, Any]
_names = itertools.count()


def until(is_so: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < ends, f"it did not happen in time: {what}"
        time.sleep(0.05)


def call(
    port: int, method: str, path: str, body: Json | None = None, token: str = "", key: str = ""
) -> tuple[int, Json]:
    """Status 0: nobody answered."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Idempotency-Key": key} if key else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        response = connection.getresponse()
        raw = response.read()
        is_json = "json" in response.headers.get("Content-Type", "")
        return response.status, json.loads(raw) if raw and is_json else {}
    except (OSError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()


@dataclass(slots=True)
class Installation:
    """What the services have in common."""

    folder: Path
    url: str
    ray: Json
    ports: dict[str, int]

    def options(self, only: str) -> list[str]:
        settings = ["--database-url", self.url, "--ray-address", self.ray["address"], "--demo"]
        settings += ["--home", str(self.folder / "home"), "--shards", "2", "--gateways", "1"]
        return ["serve", "--only", only, "--port", str(self.ports[only]), *settings]

    @property
    def environment(self) -> dict[str, str]:
        given = {"XINGLIN_STANDBYS": "0", "XINGLIN_DEMO_SYSTEMS": "", **LEAN}
        return {**os.environ, **WITHOUT_LIMITS, **self.ray["environment"], **given}


@dataclass(slots=True)
class Server:
    at: Installation
    service: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def started(cls, at: Installation, service: str) -> "Server":
        log = at.folder / f"{service}-{next(_names)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                xinglin(at.options(service)), cwd=ROOT, env=at.environment, stdout=out, stderr=out
            )
        return cls(at, service, process, log)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ask(self, method: str, path: str, **given: Any) -> tuple[int, Json]:
        return call(self.at.ports[self.service], method, path, **given)

    def wait(self, all_of_them: "dict[str, Server]") -> None:
        def is_ready() -> bool:
            ended = [one.said for one in all_of_them.values() if one.process.poll() is not None]
            assert not ended, "\n".join(ended)
            return self.ask("GET", "/readyz")[0] == 200

        until(is_ready, f"{self.service} is ready")

    def wait_until_it_waits(self) -> None:
        def is_waiting() -> bool:
            assert self.process.poll() is None, self.said
            return "waiting for" in self.said

        until(is_waiting, f"{self.service} waits")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class Booked:
    person: str
    key: str
    token: str
    body: Json
    answer: Json
    statuses: tuple[int, ...]
    """Of every request that it took, the sign-in's among them."""


@dataclass(slots=True)
class Patients:
    """New people all the time, each with one number; they know the contract, and nothing of restarts."""

    port: int
    slots: list[str]
    phase: str = ""
    booked: dict[str, list[Booked]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        self.threads = [threading.Thread(target=self._come, args=(n,)) for n in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(SECONDS_MAX)

    def wait(self, phase: str) -> None:
        """Until some more have got their numbers."""
        enough = len(self.booked.get(phase, ())) + BOOKED_EACH
        until(lambda: len(self.booked.get(phase, ())) >= enough, "bookings go on")

    def _come(self, thread: int) -> None:
        for number in itertools.count():
            if self.ended.is_set():
                return
            try:
                one = self._one(f"p{thread}n{number}")
            except AssertionError as wrong:
                self.troubles.append(str(wrong))
                continue
            with self.lock:
                self.booked.setdefault(self.phase, []).append(one)
            self.ended.wait(PAUSE_SECONDS)

    def _one(self, person: str) -> Booked:
        statuses: list[int] = []

        def answered(path: str, body: Json, token: str = "", key: str = "") -> Json:
            ends = time.monotonic() + SECONDS_MAX
            while time.monotonic() < ends:
                status, told = call(self.port, "POST", path, body, token, key)
                statuses.append(status)
                if 0 < status < 500:
                    assert status in (200, 201), f"{person}: {path} {status} {told}"
                    return told
                time.sleep(0.05)
            raise AssertionError(f"{person}: {path} was never answered")

        grant = {"grant": "wechat", "code": f"sandbox:{person}"}
        token = answered("/api/v1/sessions", grant)["access_token"]
        form = {
            "name": "王芳",
            "id_type": "passport",
            "id_number": f"S{person.upper():0>8}",
            "relation": "self",
        }
        form |= {"phone": "13900139000", "sex": "female", "birth_date": "1980-01-01"}
        patient = answered("/api/v1/patients", form, token)["id"]
        with self.lock:
            slot = self.slots.pop()
        body = {"slot_id": slot, "patient_id": patient}
        told = answered("/api/v1/appointments", body, token, f"key-{person}")
        return Booked(person, f"key-{person}", token, body, told, tuple(statuses))


@contextlib.contextmanager
def one_node() -> Iterator[Json]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.two_nodes", "one"],
        cwd=ROOT,
        env={**os.environ, **LEAN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin and process.stdout
        yield next(json.loads(line) for line in iter(process.stdout.readline, "") if line.startswith("{"))
    finally:
        process.stdin.close()
        process.wait(SECONDS_MAX)


def seats(port: int) -> list[str]:
    """Each free seat once, by the name of its slot; of a few departments."""
    found: list[str] = []
    for department in call(port, "GET", "/api/v1/departments")[1]["departments"]:
        told = call(port, "GET", f"/api/v1/schedules?department={department['id']}")[1]
        for schedule in told["schedules"][::-1]:
            slots = call(port, "GET", f"/api/v1/schedules/{schedule['id']}/slots")[1]["slots"]
            found += [slot["id"] for slot in slots for _ in range(slot["remaining"])]
            if len(found) > SEATS:
                return found
    return found


@dataclass(slots=True)
class Life:
    seconds: float = 0.0
    waited: str = ""
    refused: str = ""
    not_here: dict[str, tuple[int, Json]] = field(default_factory=dict)
    exit_statuses: dict[str, int] = field(default_factory=dict)
    booked: dict[str, list[Booked]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    again: list[tuple[Booked, int, Json]] = field(default_factory=list)
    """Asked once more at the end, with the same key."""
    paid: dict[str, tuple[int, Json]] = field(default_factory=dict)
    health: dict[str, int] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    appointments: int = 0
    audit: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def life(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Life:
    folder = tmp_path_factory.mktemp("services")
    url = postgres.url.rpartition("/")[0] + f"/services_{os.getpid()}"
    sql = _sql(postgres.url.rpartition("/")[0] + "/postgres")
    sql(f"create database services_{os.getpid()}")
    try:
        with one_node() as ray:
            ports = {service: free_port() for service in SERVICES}
            return lived(Installation(folder, url, ray, ports))
    finally:
        sql(f"drop database services_{os.getpid()} with (force)")


def lived(at: Installation) -> Life:
    life, began = Life(), time.monotonic()
    servers: dict[str, Server] = {}
    patients: Patients | None = None
    try:
        # The wrong order: those that wait for the other.
        for service in ("payment", "reports", "integration"):
            servers[service] = Server.started(at, service)
        servers["payment"].wait_until_it_waits()
        life.waited = servers["payment"].said
        servers["booking"] = Server.started(at, "booking")
        for server in servers.values():
            server.wait(servers)
        for service in SERVICES:
            life.not_here[service] = servers[service].ask("POST", _path_of_another(service))

        patients = Patients(at.ports["booking"], seats(at.ports["booking"]))
        patients.begin()
        for service in ("payment", "reports", "integration", "booking"):
            patients.phase = service
            life.exit_statuses[service] = servers[service].stop()
            if service != "booking":
                patients.wait(service)
            second = _second(at) if service == "reports" else None  # beside the first, which has come back
            servers[service] = Server.started(at, service)
            servers[service].wait(servers)
            if second is not None:
                life.refused = _refused(second)
            patients.wait(service)
        patients.phase = "after"
        patients.wait("after")
        patients.end()
        life.booked, life.troubles = patients.booked, patients.troubles

        for service, server in servers.items():
            life.health[service] = server.ask("GET", "/readyz")[0]
        for one in itertools.chain.from_iterable(life.booked.values()):
            asked = servers["booking"].ask(
                "POST", "/api/v1/appointments", body=one.body, token=one.token, key=one.key
            )
            life.again.append((one, *asked))
        for phase in ("payment", "after"):
            life.paid[phase] = _paid(servers["payment"], life.booked[phase][0])
        count = "select count(*) from appointment"
        life.appointments = _sql(at.url)(count)
    finally:
        if patients is not None:
            patients.end()
        running = {service: server for service, server in servers.items() if server.process.poll() is None}
        for server in running.values():
            server.process.send_signal(signal.SIGTERM)
        for service, server in running.items():
            life.exit_statuses[f"{service} at the end"] = server.process.wait(SECONDS_MAX)
    checks = audit_database(Settings(database_url=at.url, home=at.folder / "home"))
    life.audit = [f"{check}" for check in checks if not check.ok]
    life.seconds = time.monotonic() - began
    return life


def _paid(payment: Server, one: Booked) -> tuple[int, Json]:
    """The first answer that is one: what they are told of a new run takes a moment."""
    path, body = f"/api/v1/bills/{one.answer['bill_id']}/payments", {"provider": "alipay"}
    answers: list[tuple[int, Json]] = []

    def is_answered() -> bool:
        answers.append(payment.ask("POST", path, body=body, token=one.token, key="pay"))
        return 0 < answers[-1][0] < 500

    until(is_answered, "the payment service reaches the new run's shards")
    return answers[-1]


def _path_of_another(service: str) -> str:
    return "/api/v1/appointments" if service != "booking" else "/api/v1/bills/any/payments"


def _second(at: Installation) -> subprocess.Popen[str]:
    """Another payment service, on another port."""
    port, given = str(free_port()), at.options("payment")
    options = [port if word == str(at.ports["payment"]) else word for word in given]
    return subprocess.Popen(
        xinglin(options),
        cwd=ROOT,
        env=at.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _refused(process: subprocess.Popen[str]) -> str:
    """Why it did not start: exit status 1, and one line on standard error."""
    out, why = process.communicate(timeout=SECONDS_MAX)
    assert (process.returncode, out) == (1, ""), why
    return why


def _sql(url: str) -> Callable[[str], Any]:
    import asyncio

    async def done(query: str) -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return lambda query: asyncio.run(done(query))


# What cannot start.


def test_a_name_that_is_no_service_is_one_line_with_those_that_are() -> None:
    done = run("serve", "--only", "booking,billing")
    assert done.returncode == 1
    assert done.stderr == (
        "xinglin: --only (XINGLIN_ONLY): 'billing' is none of the services"
        " booking, payment, reports, integration\n"
    )


def test_services_apart_need_a_database_that_all_reach(tmp_path: Path) -> None:
    done = run("serve", "--only", "booking", "--port", str(free_port()), "--home", str(tmp_path))
    assert done.returncode == 1
    assert "--database-url" in done.stderr and done.stderr.count("\n") == 1


# One life.


def test_who_starts_too_early_says_what_it_waits_for_and_then_serves(life: Life) -> None:
    assert "waiting for the service booking: the database's schema is too old" in life.waited
    assert life.health == dict.fromkeys(SERVICES, 200)


def test_the_second_one_of_a_service_stays_out(life: Life) -> None:
    assert life.refused.startswith("xinglin: another xinglin serves payment from")
    assert life.refused.count("\n") == 1


def test_a_path_of_another_service_says_whose_it_is(life: Life) -> None:
    for service, (status, told) in life.not_here.items():
        other = "payment" if service == "booking" else "booking"
        assert (status, told["code"], told["service"]) == (404, "not_here", other)


def test_while_another_service_is_restarted_no_booking_notices(life: Life) -> None:
    for service in ("payment", "reports", "integration"):
        assert len(life.booked[service]) >= BOOKED_EACH
        statuses = Counter(status for one in life.booked[service] for status in one.statuses)
        assert set(statuses) <= {200, 201}, f"{service}: {statuses}"


def test_while_booking_is_restarted_everybody_ends_with_a_number(life: Life) -> None:
    assert life.troubles == []
    tries = [len(one.statuses) for one in life.booked["booking"]]
    assert max(tries) > 3, "nobody noticed: was it restarted at all?"
    assert all(one.answer["status"] == "pending" for booked in life.booked.values() for one in booked)


def test_each_key_has_one_number_and_there_are_no_others(life: Life) -> None:
    for one, status, told in life.again:
        assert (status, told["id"], told["number"]) == (201, one.answer["id"], one.answer["number"])
    ids = {one.answer["id"] for one, *_ in life.again}
    assert len(ids) == len(life.again) == life.appointments
    assert life.audit == []


def test_the_payment_service_reaches_the_shards_of_the_new_run(life: Life) -> None:
    for status, told in life.paid.values():
        assert status == 201, told


def test_sigterm_drains_each_of_them(life: Life) -> None:
    assert life.exit_statuses == dict.fromkeys((*SERVICES, *(f"{s} at the end" for s in SERVICES)), 0)
