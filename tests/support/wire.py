"""Bytes by hand: a client that sends what no library would, and sees every byte of what comes back."""

import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

ANSWER_SECONDS_MAX = 20.0
_RECEIVED_MAX = 65_536

Connect = Callable[[], socket.socket]


def straight(port: int, source: str = "127.0.0.1", host: str = "127.0.0.1") -> socket.socket:
    """`source` is another address of this machine: as many clients as are wanted."""
    return socket.create_connection((host, port), timeout=ANSWER_SECONDS_MAX, source_address=(source, 0))


def over_tls(port: int, name: str, source: str = "127.0.0.1") -> ssl.SSLSocket:
    """HTTP/1.1 over TLS. Who the other side is does not matter here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context.wrap_socket(straight(port, source), server_hostname=name)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    found = b""
    while True:
        try:
            data = connection.recv(_RECEIVED_MAX)
        except ConnectionResetError:
            return found
        if not data:
            return found
        found += data


def answers(raw: bytes) -> list[Answer]:
    """All final answers in these bytes, which must be nothing else. Interim ones (1xx) are left out."""
    found = []
    while raw:
        head, end, rest = raw.partition(b"\r\n\r\n")
        assert end and head.startswith(b"HTTP/1."), raw
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if line)}
        status = int(first.split(" ")[1])
        if status < 200:
            raw = rest
            continue
        if headers.get("transfer-encoding") == "chunked":
            body, raw = _unchunked(rest)
        else:
            length = int(headers.get("content-length", len(rest)))
            assert len(rest) >= length, f"half an answer: {raw!r}"
            body, raw = rest[:length], rest[length:]
        found.append(Answer(status, headers, body))
    return found


def _unchunked(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        count = int(re.match(rb"[0-9a-fA-F]+", size)[0], 16)  # type: ignore[index]
        if count == 0:
            return body, rest[2:]
        body, rest = body + rest[:count], rest[count + 2 :]
