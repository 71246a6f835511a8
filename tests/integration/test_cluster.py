"""The same program on a running Ray cluster: a node that holds shards dies, and they serve elsewhere."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.embedded_postgres import EmbeddedPostgres, free_port

ROOT = Path(__file__).parents[2]
SHARDS = 4
STANDBYS = 2
SHARD, GATEWAY = b"ray::ShardActor", b"ray::GatewayProcess"
SECONDS_MAX = 90.0


@dataclass
class Nodes:
    process: subprocess.Popen[str]
    address: str
    environment: dict[str, str]
    raylets: list[int]

    def kill_second(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "killed"


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.two_nodes"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        told = next(json.loads(line) for line in lines if line.startswith("{"))
        yield Nodes(process, **told)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(SECONDS_MAX)


@contextlib.contextmanager
def serving(nodes: Nodes, url: str, home: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-c", "from web.cli import main; main(prog_name='xinglin')", "serve", "--demo"]
    command += ["--home", str(home), "--port", str(port), "--database-url", url]
    command += ["--ray-address", nodes.address, "--shards", str(SHARDS), "--gateways", "1"]
    environment = {**os.environ, **nodes.environment, "XINGLIN_STANDBYS": str(STANDBYS)}
    log = home.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: get(f"{address}/readyz")[0] == 200 or _ended(process, log))
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS_MAX) == 0, log.read_text()


def _ended(process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return False


def until(is_so: Any) -> None:
    ends = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


def call(method: str, url: str, body: object = None, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError:
        return 0, None


def answered(method: str, url: str, body: object, **headers: str) -> Any:
    """Asks until there is an answer: around a node's death a gateway may go between two requests. What is
    asked here does the same when it is done twice."""
    seen: list[tuple[int, Any]] = []

    def is_answered() -> bool:
        seen.append(call(method, url, body, **headers))
        return 0 < seen[-1][0] < 500

    until(is_answered)
    return seen[-1][1]


def get(url: str, **headers: str) -> tuple[int, Any]:
    return call("GET", url, **headers)


class Person:
    def __init__(self, address: str, name: str, number: str) -> None:
        self.address = address
        _, session = call(
            "POST", f"{address}/api/v1/sessions", {"grant": "wechat", "code": f"sandbox:{name}"}
        )
        self.token = f"Bearer {session['access_token']}"
        patient = {"name": "王芳", "id_type": "passport", "id_number": number, "phone": "13900139000"}
        added = answered(
            "POST",
            f"{address}/api/v1/patients",
            {**patient, "relation": "self", "sex": "female", "birth_date": "1980-01-01"},
            Authorization=self.token,
        )
        self.patient = added["id"]

    def book(self, slot_id: str, key: str) -> tuple[int, Any]:
        body = {"slot_id": slot_id, "patient_id": self.patient}
        return call(
            "POST",
            f"{self.address}/api/v1/appointments",
            body,
            Authorization=self.token,
            Idempotency_Key=key,
        )


def one_slot_a_shard(address: str) -> dict[int, str]:
    """A bookable slot in each shard, all on different days or departments."""
    from actors.directory import shard_of
    from engine.domain.ids import ScheduleKey

    _, answer = get(f"{address}/api/v1/schedules?department=0304")
    found: dict[int, str] = {}
    days: set[str] = set()
    for schedule in reversed(answer["schedules"]):
        key = ScheduleKey.of_schedule(schedule["id"])
        assert key is not None
        shard = shard_of(key.stream, SHARDS)
        if shard in found or schedule["date"] in days or schedule["remaining"] == 0:
            continue
        _, slots = get(f"{address}/api/v1/schedules/{schedule['id']}/slots")
        found[shard] = slots["slots"][0]["id"]
        days.add(schedule["date"])
    assert len(found) == SHARDS
    return found


def test_a_node_dies_and_its_shards_serve_elsewhere(
    postgres: EmbeddedPostgres, database: str, tmp_path: Path
) -> None:
    with two_nodes() as nodes, serving(nodes, database, tmp_path / "home") as address:
        slots = one_slot_a_shard(address)
        before = Person(address, "before", "E11111111")
        booked = {shard: before.book(slot, f"k{shard}") for shard, slot in slots.items()}
        assert {status for status, _ in booked.values()} == {201}
        until(lambda: sum(len(below(raylet, SHARD)) for raylet in nodes.raylets) == SHARDS + STANDBYS)
        first, second = nodes.raylets
        assert len(below(first, SHARD)) == len(below(second, SHARD)), "not placed on the nodes in turn"
        held_there = below(second, SHARD, GATEWAY)

        nodes.kill_second()

        # They outlive their raylet by a moment, and go on answering: that is not what is to be shown.
        until(lambda: not any(is_titled(pid, SHARD, GATEWAY) for pid in held_there))
        after = person_when_back(address)
        for shard, slot in slots.items():
            until(lambda slot=slot, shard=shard: after.book(slot, f"a{shard}")[0] == 201)
        for shard, slot in slots.items():
            status, again = before.book(slot, f"k{shard}")
            assert (status, again["number"]) == (201, booked[shard][1]["number"])


def person_when_back(address: str) -> Person:
    """The gateway itself may have been on that node."""
    until(lambda: get(f"{address}/readyz")[0] == 200)
    return Person(address, "after", "E22222222")


def below(raylet: int, *titles: bytes) -> list[int]:
    """Processes so titled that this raylet started."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet and is_titled(int(name), *titles):
                found.append(int(name))
    return found


def is_titled(pid: int, *titles: bytes) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(titles)
    except OSError:
        return False
