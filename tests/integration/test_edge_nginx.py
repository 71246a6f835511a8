"""The configuration that we ship, deploy/nginx, in a real nginx before two real gateways."""

import json
import os
import re
import secrets
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
import psutil
import pytest

from engine.domain.limits import BODY_BYTES_MAX
from engine.settings import Settings
from tests.integration.test_edge import HEAD, Client, handshake, is_protected, problem
from tests.support.debian import need
from tests.support.nginx import HOST, SHIPPED, Nginx, nginx
from tests.support.smuggling import CORPUS, LAST
from tests.support.system import System, started
from tests.support.wire import answers, everything, over_tls
from web.faults import TABLE

SETTINGS = {
    "PORT_EACH": "true",
    "HEAD_SECONDS_MAX": "5",
    "BODY_SECONDS_MAX": "5",
    # Nothing comes back while the tests run, so they count exactly.
    "ADDRESS_REQUESTS_PER_SECOND": "0.001",
    "ADDRESS_REQUESTS_BURST": "30",
}
GATEWAYS = 2
SLOW_CLIENTS = 300
BOOKINGS = 40
TRIES_MAX = 200


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    need("nginx"), need("openssl"), need("curl")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(f"XINGLIN_{name}", value)
        with started("--gateways", str(GATEWAYS), "--shards", "1") as system:
            yield system


@pytest.fixture(scope="module")
def proxy(system: System) -> Iterator[Nginx]:
    with nginx([system.port + n for n in range(GATEWAYS)]) as proxy:
        yield proxy


@dataclass(slots=True)
class Outside(Client):
    """Somebody who comes over TLS and HTTP/1.1."""

    proxy: Nginx = field(kw_only=True)

    def raw(self, data: bytes) -> bytes:
        with over_tls(self.proxy.port, HOST, self.address) as connection:
            connection.sendall(data)
            return everything(connection)


@pytest.fixture
def client(system: System, proxy: Nginx) -> Outside:
    return Outside(system, proxy=proxy)


_last = iter(range(2, 250))


@pytest.fixture
def stranger(system: System, proxy: Nginx) -> Outside:
    """At an address that no other test has used, and that is no proxy of ours."""
    return Outside(system, f"127.0.2.{next(_last)}", proxy=proxy)


# The file itself.


def test_what_nginx_says_by_itself_is_said_in_the_words_of_the_api() -> None:
    said = re.findall(r"return (\d+) '(\{.*?\})';", (SHIPPED / "xinglin.conf").read_text())
    assert len(said) == 7
    for status, text in said:
        told = json.loads(text)
        row = TABLE[told["code"]]
        assert told["status"] == int(status) == row.status
        assert (told["type"], told["title"]) == (f"/problems/{told['code']}", row.title.zh)
        assert (row.retry_after is None) or told["retry_after"] == row.retry_after


def test_its_figures_fit_those_of_the_gateways() -> None:
    text = (SHIPPED / "xinglin.conf").read_text()
    upstream = re.search(r"keepalive_timeout (\d+)s;", text)
    body = re.search(r"client_max_body_size (\d+)k;", text)
    assert upstream is not None and body is not None
    assert int(upstream[1]) < Settings.model_fields["idle_seconds_max"].default
    assert int(body[1]) * 1024 > BODY_BYTES_MAX


# TLS and HTTP/2.


def curl(proxy: Nginx, *options: str, path: str = "/healthz") -> subprocess.CompletedProcess[str]:
    command = [need("curl"), "--silent", "--cacert", str(proxy.certificate), "--max-time", "20"]
    command += ["--resolve", f"{HOST}:{proxy.port}:127.0.0.1", *options, f"https://{HOST}:{proxy.port}{path}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_http_2_with_a_certificate_that_is_checked(proxy: Nginx) -> None:
    told = curl(proxy, "--http2", "-o", os.devnull, "-w", "%{http_version} %{http_code} %{ssl_verify_result}")
    assert told.stdout == "2 200 0", told


def handshaken(proxy: Nginx, *options: str, name: str = HOST) -> tuple[bool, str]:
    command = [
        need("openssl"),
        "s_client",
        "-connect",
        f"127.0.0.1:{proxy.port}",
        "-servername",
        name,
        *options,
    ]
    told = subprocess.run(command, input="", capture_output=True, text=True, timeout=30)
    return told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_new_tls_is_spoken(proxy: Nginx, version: str) -> None:
    is_good, told = handshaken(proxy, version)
    assert is_good, told


@pytest.mark.parametrize(
    "options",
    [
        ("-tls1", "-cipher", "DEFAULT@SECLEVEL=0"),
        ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "AES128-SHA256"),  # no forward secrecy
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"),  # no authenticated encryption
    ],
)
def test_old_tls_is_refused_by_the_server(proxy: Nginx, options: tuple[str, ...]) -> None:
    is_good, told = handshaken(proxy, *options)
    assert not is_good
    assert "alert" in told, "it was the client that refused"


def test_another_name_gets_not_even_a_certificate(proxy: Nginx) -> None:
    is_good, told = handshaken(proxy, name="other.example")
    assert not is_good
    assert "BEGIN CERTIFICATE" not in told


def test_plain_http_is_sent_to_tls_under_our_own_name(proxy: Nginx) -> None:
    command = [need("curl"), "-s", "-o", os.devnull, "-w", "%{http_code} %{redirect_url}"]
    command += ["-H", "Host: evil.example", f"http://127.0.0.1:{proxy.plain_port}/docs"]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.stdout == f"301 https://{HOST}/docs"


def test_answers_are_protected_and_browsers_told_to_stay_with_tls(client: Outside) -> None:
    for path in ("/healthz", "/nothing", "/api/v1/patients", "/docs"):
        answer = client.ask("GET", path)
        is_protected(answer)
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


# What passes, and what does not.


def test_only_the_machine_room_sees_inside(client: Outside, stranger: Outside) -> None:
    for path in ("/metrics", "/readyz", "/docs", "/docs/start.js", "/openapi.json"):
        assert client.ask("GET", path).status == 200
        problem(stranger.ask("GET", path), 404, "not_found")


def test_trace_is_refused(client: Outside) -> None:
    problem(client.ask("TRACE", "/healthz"), 405, "method_not_allowed")


def test_bodies_have_their_bound_here_and_there(client: Outside) -> None:
    problem(client.ask("POST", "/api/v1/sessions", b" " * 20_000), 413, "body_too_large")
    problem(client.ask("POST", "/api/v1/sessions", b" " * 70_000), 413, "body_too_large")


async def test_the_stream_goes_through(proxy: Nginx, client: Outside) -> None:
    context = ssl.create_default_context(cafile=str(proxy.certificate))
    token = client.sign_in()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"https://127.0.0.1:{proxy.port}/api/v1/stream",
            ssl=context,
            server_hostname=HOST,
            headers={"Host": f"{HOST}:{proxy.port}", "Authorization": f"Bearer {token}"},
            origin=f"https://{HOST}:{proxy.port}",
        ) as stream,
    ):
        assert (await stream.receive_json())["hello"]["signed_in"] is True
        await stream.send_json({"subscribe": ["department/0304"]})
        assert (await stream.receive_json())["snapshot"] == "department/0304"


def test_a_foreign_page_opens_no_stream(proxy: Nginx) -> None:
    with over_tls(proxy.port, HOST) as connection:
        connection.sendall(handshake(Origin="https://evil.example"))
        assert connection.recv(65_536).split(b" ", 2)[1] == b"403"


def test_no_other_protocol_passes(client: Outside) -> None:
    """h2c, switched to behind a proxy's back, would hide requests from it."""
    told = client.ask("GET", "/healthz", Upgrade="h2c", HTTP2_Settings="AAMAAABkAAQAAP__")
    assert told.status == 200


# Who asks.


def test_whatever_a_client_claims_it_is_counted_as_itself(stranger: Outside, client: Outside) -> None:
    """Each gateway has a bucket of 30."""
    told = []
    for n in range(30 * GATEWAYS + 10):
        claimed = {"X_Forwarded_For": f"198.51.100.{n}", "X_Real_IP": f"198.51.100.{n}"}
        told.append(stranger.ask("GET", "/healthz", **claimed).status)
    assert told.count(200) <= 30 * GATEWAYS
    assert told[-1] == 429
    assert client.ask("GET", "/healthz").status == 200


def test_the_first_wall_speaks_as_the_second(system: System) -> None:
    ports = [system.port + n for n in range(GATEWAYS)]
    wide = "limit_req zone=xinglin_requests burst=10000 nodelay;\n    limit_req_status 429;"
    narrow = "limit_req zone=xinglin_requests burst=3 nodelay;\n    limit_req_status 429;"
    with nginx(ports, **{wide: narrow, "rate=1000r/s": "rate=1r/m"}) as proxy:
        asker = Outside(system, proxy=proxy)
        answered = [asker.ask("GET", "/healthz") for _ in range(6)]
    assert [answer.status for answer in answered] == [200] * 4 + [429] * 2
    problem(answered[-1], 429, "too_many_requests")
    assert answered[-1].headers["retry-after"] == "1"


# Ambiguous bytes.


def served(client: Outside) -> float:
    """Requests that gateways have served, but for those for this very number."""
    told = client.ask("GET", "/metrics").body.decode()
    counts = re.findall(r"xinglin_http_requests_total{([^}]*)} (\S+)", told)
    return sum(float(count) for labels, count in counts if 'route="GET /metrics"' not in labels)


@pytest.mark.parametrize("name", CORPUS)
def test_gateways_serve_what_nginx_has_asked_and_no_more(client: Outside, name: str) -> None:
    """nginx reads some of these more kindly than a gateway would, and may see two requests where RFC 9112
    sees none. That harms nobody: it writes each of them anew. A smuggled one would be served beyond that."""
    before = served(client)
    found = answers(client.raw(CORPUS[name] + LAST))
    from_gateways = [answer for answer in found if "referrer-policy" in answer.headers]
    assert served(client) - before <= len(from_gateways)
    assert all(answer.status < 500 or answer.status in (501, 505) for answer in found), found
    if len(from_gateways) > 1:
        assert (from_gateways[-1].status, from_gateways[-1].body) == (200, b'{"status": "ok"}')


def test_nobody_gets_the_answer_to_anothers_request(client: Outside, system: System, proxy: Nginx) -> None:
    """One sends all of the corpus, again and again, while another one asks honestly over the same gateways'
    connections."""
    stopping = threading.Event()

    def attack() -> None:
        while not stopping.is_set():
            for raw in CORPUS.values():
                client.raw(raw + LAST)
                if stopping.is_set():
                    return

    honest = Outside(system, proxy=proxy)
    with ThreadPoolExecutor(2) as threads:
        attackers = [threads.submit(attack) for _ in range(2)]
        try:
            for _ in range(50):
                alive = honest.ask("GET", "/healthz")
                assert (alive.status, alive.body) == (200, b'{"status": "ok"}')
                refused = honest.ask("GET", "/api/v1/patients")
                problem(refused, 401, "unauthenticated")
        finally:
            stopping.set()
        for attacker in attackers:
            attacker.result()


# Slow clients, dead gateways.


def test_slow_clients_hold_nobody_else(client: Outside, proxy: Nginx) -> None:
    with ExitStack() as stack:
        for n in range(SLOW_CLIENTS):
            slow = stack.enter_context(over_tls(proxy.port, HOST, f"127.0.1.{n % 200 + 1}"))
            slow.sendall(
                HEAD
                if n % 2
                else HEAD.replace(b"Host: x", b"Host: hospital.example") + b"Content-Length: 9\r\n\r\n{"
            )
        for _ in range(50):
            assert client.ask("GET", "/healthz").status == 200
        assert client.sign_in()


def by_gateway(client: Outside) -> dict[str, float]:
    told = client.ask("GET", "/metrics").body.decode()
    found: dict[str, float] = {}
    for labels, count in re.findall(r"xinglin_http_requests_total{([^}]*)} (\S+)", told):
        process = re.search(r'process="([^"]+)"', labels)
        assert process is not None
        found[process[1]] = found.get(process[1], 0) + float(count)
    return found


def test_gateways_share_the_work(client: Outside) -> None:
    before = by_gateway(client)
    for _ in range(40):
        assert client.ask("GET", "/healthz").status == 200
    after = by_gateway(client)
    shares = [after[name] - before.get(name, 0) for name in after]
    assert len(shares) == GATEWAYS
    assert min(shares) >= 10, shares


def pid_of(port: int) -> int:
    """Of the process that listens there."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            found: int = connection.pid
            return found
    raise AssertionError(f"nobody listens on {port}")


def test_a_dead_gateway_is_passed_over_and_no_acked_booking_lost(client: Outside, system: System) -> None:
    """Killed in the midst of bookings. Whoever got no answer asks again with the same key."""
    slots = free_slots(client)
    people = [booker(client) for _ in range(BOOKINGS)]
    acked: dict[int, str] = {}
    retried = 0

    def book(n: int) -> None:
        nonlocal retried
        token, patient = people[n]
        body = {"slot_id": slots[n], "patient_id": patient}
        told = {"Authorization": f"Bearer {token}", "Idempotency_Key": f"edge-{n}"}
        for _ in range(TRIES_MAX):
            try:
                answer = client.ask("POST", "/api/v1/appointments", body, **told)
            except (OSError, ssl.SSLError):
                retried += 1
                continue
            if answer.status == 201:
                acked[n] = json.loads(answer.body)["id"]
                return
            assert answer.status == 503, answer
            retried += 1
        raise AssertionError("never booked")

    with ThreadPoolExecutor(8) as threads:
        first = [threads.submit(book, n) for n in range(BOOKINGS)]
        first[BOOKINGS // 4].result()
        os.kill(pid_of(system.port), signal.SIGKILL)
        for each in first:
            each.result()
    assert len(acked) == BOOKINGS
    for n, (token, _) in enumerate(people):
        mine = client.ask("GET", "/api/v1/appointments", Authorization=f"Bearer {token}")
        assert [each["id"] for each in json.loads(mine.body)["appointments"]] == [acked[n]]
    # Reads meanwhile: nobody notices.
    assert all(client.ask("GET", "/healthz").status == 200 for _ in range(20))


def test_when_no_gateway_is_there_it_says_so(system: System) -> None:
    with nginx([1, 2]) as proxy:
        nobody = Outside(system, proxy=proxy)
        told = nobody.ask("POST", "/api/v1/appointments", {})
    assert problem(told, 503, "outcome_unknown")["retry_after"] == 1
    assert told.headers["retry-after"] == "1"


def free_slots(client: Outside) -> list[str]:
    """One for each booking, in a department that takes everybody."""
    schedules = json.loads(client.ask("GET", "/api/v1/schedules?department=0304").body)["schedules"]
    found: list[str] = []
    for schedule in reversed(schedules):
        slots: list[dict[str, Any]] = json.loads(
            client.ask("GET", f"/api/v1/schedules/{schedule['id']}/slots").body
        )["slots"]
        for slot in slots:
            found += [slot["id"]] * slot["remaining"]
        if len(found) >= BOOKINGS:
            return found[:BOOKINGS]
    raise AssertionError("too few free seats")


def booker(client: Outside) -> tuple[str, str]:
    token = client.sign_in()
    form = {"name": "测试者", "phone": "13800000000", "relation": "self", "id_type": "passport"}
    form["id_number"] = "X" + secrets.token_hex(6).upper()
    answer = client.ask(
        "POST", "/api/v1/patients", form, Authorization=f"Bearer {token}", Idempotency_Key=str(uuid4())
    )
    assert answer.status == 201, answer
    patient: str = json.loads(answer.body)["id"]
    return token, patient
