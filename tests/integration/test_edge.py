"""The gateways' own edge, on a running system: headers, ambiguous bytes, slow and large requests, rate
limits, foreign pages. What stands before them is in test_edge_nginx.py."""

import json
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.test_api import Hospital
from tests.support.smuggling import CORPUS, HONEST, LAST
from tests.support.system import System, started
from tests.support.wire import Answer, answers, everything, straight

SETTINGS = {
    "HEAD_SECONDS_MAX": "1",
    "BODY_SECONDS_MAX": "1",
    # Nothing comes back while the tests run, so they count exactly.
    "ADDRESS_REQUESTS_PER_SECOND": "0.001",
    "ADDRESS_REQUESTS_BURST": "20",
    "ADDRESS_SIGN_INS_PER_SECOND": "0.001",
    "ADDRESS_SIGN_INS_BURST": "5",
    "DEVICE_REQUESTS_PER_SECOND": "0.001",
    "DEVICE_REQUESTS_BURST": "10",
    "ACCOUNT_REQUESTS_PER_SECOND": "0.001",
    "ACCOUNT_REQUESTS_BURST": "15",
    "ORIGINS": "https://h5.hospital.example",
}
SLOW_CLIENTS = 300
BODY = b'{"grant":"wechat","code":"sandbox:edge"}'
PROTECTED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(f"XINGLIN_{name}", value)
        with started("--gateways", "1", "--shards", "1") as system:
            yield system


@dataclass(slots=True)
class Client:
    """Somebody with an address of their own on this machine; 127.0.0.1 itself is trusted and not limited."""

    system: System
    address: str = "127.0.0.1"

    def raw(self, data: bytes) -> bytes:
        with straight(self.system.port, self.address) as connection:
            connection.sendall(data)
            return everything(connection)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: hospital.example", "Connection: close"]
        if content:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        (answer,) = answers(self.raw("\r\n".join([*lines, "", ""]).encode() + content))
        return answer

    def sign_in(self) -> str:
        grant = {"grant": "wechat", "code": f"sandbox:edge-{secrets.token_hex(8)}"}
        answer = self.ask("POST", "/api/v1/sessions", grant)
        assert answer.status == 201, answer
        token: str = json.loads(answer.body)["access_token"]
        return token

    def until_refused(self, method: str, path: str, body: object = None, **headers: str) -> int:
        """How often one may ask. The refusal must be one, and say when to come back."""
        for n in range(100):
            answer = self.ask(method, path, body, **headers)
            if answer.status == 429:
                problem = json.loads(answer.body)
                assert problem["code"] == "too_many_requests"
                assert int(answer.headers["retry-after"]) == problem["retry_after"] > 1
                return n
        raise AssertionError("never refused")


@pytest.fixture
def client(system: System) -> Client:
    return Client(system)


_last = iter(range(2, 250))


@pytest.fixture
def stranger(system: System) -> Client:
    """At an address that no other test has used."""
    return Client(system, f"127.0.0.{next(_last)}")


def problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer
    found: dict[str, Any] = json.loads(answer.body)
    assert found["code"] == code
    return found


# Headers.


def is_protected(answer: Answer) -> None:
    for name, value in PROTECTED.items():
        assert answer.headers.get(name) == value, (name, answer)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"[\d]", answer.headers.get("server", "")), "no versions"


def test_every_route_is_protected(client: Client, system: System) -> None:
    """All documented routes, asked without a token; and the few that are not documented."""
    paths = Hospital(system).document["paths"]
    asked = [(m.upper(), re.sub(r"{\w+}", "x", path)) for path, methods in paths.items() for m in methods]
    asked += [
        ("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/nothing")
    ]
    asked += [("GET", "/docs/start.js"), ("GET", "/docs/assets/swagger-ui.css"), ("DELETE", "/healthz")]
    for method, path in asked:
        answer = client.ask(method, path)
        is_protected(answer)
        if path.startswith("/api/") and answer.status != 200:
            assert answer.headers["cache-control"] == "no-store", (method, path, answer)
        assert answer.headers.get("cache-control") or answer.headers.get("etag"), (method, path)


def test_the_express_lane_and_bytes_that_are_no_http_are_protected(client: Client, system: System) -> None:
    raw = b"POST /api/v1/appointments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    raw += b"Content-Length: 2\r\n\r\n{}"
    for _ in range(20):
        with straight(system.port) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in connection.recv(65_536)
            client.ask("GET", "/healthz")  # meanwhile that one's handler comes to rest
            connection.sendall(raw)
            (answer,) = answers(connection.recv(65_536))
        assert answer.status == 401
        is_protected(answer)
        if "server" not in answer.headers:
            break
    else:
        raise AssertionError("never went express")
    (answer,) = answers(client.raw(b"nonsense\r\n\r\n"))
    assert answer.status == 400
    is_protected(answer)


def test_tokens_are_never_kept_by_a_cache(client: Client) -> None:
    grant = {"grant": "wechat", "code": "sandbox:edge-cache"}
    answer = client.ask("POST", "/api/v1/sessions", grant)
    assert (answer.status, answer.headers["cache-control"]) == (201, "no-store")


def test_the_docs_run_without_inline_script_or_style(client: Client) -> None:
    page = client.ask("GET", "/docs")
    text = page.body.decode()
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "style-src 'self'" in page.headers["content-security-policy"]
    for script in re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL):
        assert "src=" in script[0] and not script[1].strip()
        source = re.search(r'src="([^"]+)"', script[0])
        assert source is not None
        found = client.ask("GET", source[1])
        assert found.status == 200 and "javascript" in found.headers["content-type"]
    assert "<style" not in text and "style=" not in text and "onload" not in text
    assert client.ask("GET", "/docs/openapi-3.0.json").status == 200


def test_a_websocket_is_protected_as_well(system: System) -> None:
    with straight(system.port) as connection:
        connection.sendall(handshake())
        head = connection.recv(65_536)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"X-Content-Type-Options: nosniff" in head


# Methods.


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "DEBUG", "PROPFIND", "FOO"])
@pytest.mark.parametrize("path", ["/healthz", "/api/v1/appointments", "/nothing"])
def test_no_other_method_does_or_tells_anything(client: Client, method: str, path: str) -> None:
    for answer in answers(
        client.raw(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Secret: marzipan\r\nConnection: close\r\n\r\n".encode()
        )
    ):
        assert answer.status in (400, 404, 405)
        assert b"marzipan" not in answer.body and "marzipan" not in str(answer.headers)


# Ambiguous bytes.


@pytest.mark.parametrize("name", CORPUS)
def test_one_request_has_one_answer(client: Client, name: str) -> None:
    """The hidden request is never served, unless the standard itself says that there are two."""
    found = answers(client.raw(CORPUS[name] + LAST))
    assert found, "no answer at all"
    assert all(answer.status < 500 for answer in found)
    told = [answer.status for answer in found]
    if name in HONEST:
        assert told == HONEST[name]
    elif len(told) == 2:
        assert told[1] == 200 and b'"ok"' in found[1].body, (
            "the second answer is not that of the last request"
        )
        assert b"not_found" not in found[0].body or name in ("absolute-uri", "authority", "asterisk")
    else:
        assert told[0] < 400 or told[0] in (400, 408), told
        assert len(told) == 1, f"{told}: a second answer to one request"


# Too much.


def test_a_head_has_its_bounds(client: Client) -> None:
    many = "".join(f"X-{n}: y\r\n" for n in range(100))
    for head in (
        f"GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n",
        f"GET /healthz HTTP/1.1\r\nHost: x\r\nX: {'y' * 9_000}\r\n\r\n",
        f"GET /healthz?{'y' * 5_000} HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        (answer,) = answers(client.raw(head.encode()))
        problem(answer, 400, "malformed_request")
    few = "".join(f"X-{n}: y\r\n" for n in range(50))
    head = f"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{few}X: {'y' * 4_000}\r\n\r\n"
    assert answers(client.raw(head.encode()))[0].status == 200


def test_a_head_that_comes_in_pieces_has_the_same_bounds(client: Client, system: System) -> None:
    with straight(system.port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(65_536)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        try:
            for n in range(60):
                connection.sendall(f"X-{n}: {'y' * 2_000}\r\n".encode())
        except (BrokenPipeError, ConnectionResetError):
            return  # it hung up before all was said
        told = everything(connection)
        assert b" 200 " not in told


def test_a_body_has_its_bound_however_it_comes(client: Client) -> None:
    for raw in (
        b"Content-Length: 20000\r\n\r\n" + b"x" * 20_000,
        b"Transfer-Encoding: chunked\r\n\r\n"
        + b"4000\r\n"
        + b"x" * 0x4000
        + b"\r\n"
        + b"400\r\n"
        + b"x" * 0x400,
        b"Content-Length: 99999999999\r\n\r\n",
    ):
        found = answers(client.raw(HEAD + b"Connection: close\r\n" + raw))
        problem(found[0], 413, "body_too_large")
        assert len(found) == 1


# Too slow.

HEAD = b"POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "begun", [b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", HEAD + b"Content-Length: 50\r\n"], ids=range(3)
)
def test_a_head_that_does_not_end_is_not_waited_for(client: Client, begun: bytes) -> None:
    (answer,) = answers(client.raw(begun))
    problem(answer, 408, "request_timeout")
    is_protected(answer)


def test_nor_is_the_head_of_a_later_request(client: Client) -> None:
    with straight(client.system.port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in connection.recv(65_536)
        connection.sendall(b"GET /healthz HT")
        (answer,) = answers(everything(connection))
    problem(answer, 408, "request_timeout")


def test_who_says_nothing_is_told_nothing(client: Client) -> None:
    assert client.raw(b"") == b""


@pytest.mark.parametrize(
    "begun",
    [
        b"Content-Length: 50\r\n\r\n",
        b"Content-Length: 50\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
    ids=range(3),
)
def test_a_body_that_does_not_end_is_not_waited_for(client: Client, begun: bytes) -> None:
    (answer,) = answers(client.raw(HEAD + begun))
    problem(answer, 408, "request_timeout")


def test_a_body_that_drips_is_not_waited_for_either(client: Client, system: System) -> None:
    """A byte now and then does not buy more time."""
    with straight(system.port) as connection:
        connection.sendall(HEAD + b"Content-Length: 5000\r\n\r\n")
        connection.settimeout(0.05)
        found = b""
        for _ in range(5_000):
            try:
                connection.sendall(b" ")
                found += connection.recv(65_536) or b"<end>"
            except TimeoutError:
                continue
            except OSError:
                break
            if found:
                break
    (answer,) = answers(found.removesuffix(b"<end>"))
    problem(answer, 408, "request_timeout")


def test_a_body_in_two_pieces_is_an_ordinary_body(client: Client, system: System) -> None:
    with straight(system.port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY[:9])
        connection.sendall(BODY[9:])
        (answer,) = answers(everything(connection))
    assert answer.status == 201


def test_slow_clients_hold_nobody_else(client: Client, system: System) -> None:
    with ExitStack() as stack:
        for n in range(SLOW_CLIENTS):
            slow = stack.enter_context(straight(system.port, f"127.0.1.{n % 200 + 1}"))
            slow.sendall(HEAD if n % 2 else HEAD + b"Content-Length: 50\r\n\r\n{")
        for _ in range(50):
            assert client.ask("GET", "/healthz").status == 200
        assert client.sign_in()


# Too often.


def test_an_address_has_so_many_requests_and_no_more(stranger: Client, client: Client) -> None:
    assert stranger.until_refused("GET", "/api/v1/departments") == 20
    assert stranger.ask("GET", "/healthz").status == 429
    assert client.ask("GET", "/api/v1/departments").status == 200


def test_another_address_that_is_only_claimed_is_the_same_one(stranger: Client) -> None:
    """It is no proxy of ours: what it says of others changes nothing."""
    for n in range(20):
        claimed = {"X_Forwarded_For": f"198.51.100.{n}", "Forwarded": f"for=198.51.100.{n}"}
        assert stranger.ask("GET", "/healthz", X_Real_IP=f"198.51.100.{n}", **claimed).status == 200
    assert stranger.ask("GET", "/healthz", X_Forwarded_For="198.51.100.99").status == 429
    assert stranger.ask("GET", "/healthz", X_Forwarded_For="127.0.0.1").status == 429


def test_behind_a_proxy_each_client_counts_alone(client: Client) -> None:
    for n in range(20):
        # The proxy appends; what stands left of that is the client's.
        told = f"198.51.100.{n}, 203.0.113.1"
        assert client.ask("GET", "/healthz", X_Forwarded_For=told).status == 200
    assert client.ask("GET", "/healthz", X_Forwarded_For="127.0.0.1, 203.0.113.1").status == 429
    assert client.ask("GET", "/healthz", X_Forwarded_For="203.0.113.2").status == 200
    assert client.ask("GET", "/healthz").status == 200


def test_sign_ins_have_a_bucket_of_their_own(stranger: Client) -> None:
    wrong = {"grant": "password", "username": "demo-nobody", "password": "wrong"}
    assert stranger.until_refused("POST", "/api/v1/sessions", wrong) == 5
    assert stranger.ask("GET", "/api/v1/departments").status == 200


def test_a_device_counts_wherever_it_is(system: System, client: Client) -> None:
    device = secrets.token_hex(8)
    assert client.until_refused("GET", "/healthz", X_Device_Id=device) == 10
    elsewhere = Client(system, f"127.0.0.{next(_last)}")
    assert elsewhere.ask("GET", "/healthz", X_Device_Id=device).status == 429
    assert elsewhere.ask("GET", "/healthz").status == 200


def test_an_account_counts_on_both_ways(client: Client, system: System) -> None:
    """Bookings on the express lane and reads take from one bucket."""
    token = client.sign_in()
    told = {"Authorization": f"Bearer {token}"}
    body = {"slot_id": "D0001-20200101-0800", "patient_id": str(uuid4())}
    content = json.dumps(body).encode()
    lines = f"POST /api/v1/appointments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    lines += f"Idempotency-Key: k\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    express = 0

    def asked(connection: socket.socket) -> bytes:
        # A whole request elsewhere, so that the handler of the last one here has come to rest: only then is
        # the lane open.
        client.ask("GET", "/healthz")
        connection.sendall(lines.encode() + content)
        return connection.recv(65_536)

    with straight(system.port) as connection:
        for _ in range(10):
            (answer,) = answers(asked(connection))
            assert 400 <= answer.status < 500 and answer.status != 429
            express += "server" not in answer.headers
        assert express > 0, "none went express"
        assert client.until_refused("GET", "/api/v1/appointments", **told) == 5
        refused = set()
        for _ in range(10):
            (answer,) = answers(asked(connection))
            assert (
                int(answer.headers["retry-after"]) == problem(answer, 429, "too_many_requests")["retry_after"]
            )
            refused.add("server" not in answer.headers)
        assert True in refused, "the express lane did not refuse"
    other = client.sign_in()
    assert client.ask("GET", "/api/v1/appointments", Authorization=f"Bearer {other}").status == 200


def test_refusals_are_counted(client: Client, stranger: Client) -> None:
    def counted() -> float:
        told = client.ask("GET", "/metrics").body.decode()
        return sum(
            float(n) for n in re.findall(r'xinglin_http_requests_total{[^}]*status="429"} (\S+)', told)
        )

    before = counted()
    stranger.until_refused("GET", "/healthz")
    assert counted() == before + 1


# Foreign pages.


def handshake(**headers: str) -> bytes:
    lines = ["GET /api/v1/stream HTTP/1.1", "Host: hospital.example", "Connection: Upgrade"]
    lines += [
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("https://hospital.example", 101),
        ("https://h5.hospital.example", 101),
        ("https://evil.example", 403),
        ("https://hospital.example.evil.example", 403),
        ("https://evil.example/hospital.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_only_pages_of_ours_open_a_stream(system: System, origin: str | None, status: int) -> None:
    with straight(system.port) as connection:
        connection.sendall(handshake() if origin is None else handshake(Origin=origin))
        assert int(connection.recv(65_536).split(b" ", 2)[1]) == status


@pytest.mark.parametrize("path", ["/api/v1/appointments", "/api/v1/sessions"])
def test_a_foreign_page_changes_nothing(client: Client, path: str) -> None:
    foreign = {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}
    problem(client.ask("POST", path, {}, **foreign), 403, "foreign_origin")
    ours = {"Origin": "https://h5.hospital.example", "Sec_Fetch_Site": "cross-site"}
    assert client.ask("POST", path, {}, **ours).status in (401, 422)
