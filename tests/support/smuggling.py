"""Requests of which two readers might see different ends. Each hides a second request, `GET /smuggled`."""

from typing import Final

SMUGGLED: Final = "/smuggled"
_SECOND: Final = b"GET /smuggled HTTP/1.1\r\nHost: hospital.example\r\n\r\n"
_LINE: Final = b"POST /api/v1/sessions HTTP/1.1\r\n"
_HEAD: Final = b"Host: hospital.example\r\nContent-Type: application/json\r\n"


def _post(*headers: bytes, body: bytes = b"") -> bytes:
    return _LINE + _HEAD + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


def _get(*headers: bytes, body: bytes = b"", line: bytes = b"GET /healthz HTTP/1.1") -> bytes:
    return line + b"\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


_ENDED: Final = b"0\r\n\r\n" + _SECOND  # of chunks: an end, and more
_ALL: Final = b"Content-Length: %d" % len(_ENDED)
_CHUNKED: Final = b"Transfer-Encoding: chunked"
_ONE_CHUNK: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_SECOND), _SECOND)
_CODINGS: Final = (
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding:chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: \x00chunked",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding\x00: chunked",
    b"transfer-encoding: chunked;q=0.5",
)
_LENGTHS: Final = (
    b"Content-Length: 0\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 0",
    b"Content-Length: 0, %d",
    b"Content-Length: +%d",
    b"Content-Length: -%d",
    b"Content-Length: 0x%d",
    b"Content-Length: 1 %d",
    b"Content-Length: 184467440737095516%d",
    b"Content-Length : %d",
    b"Content-Length:\x0b%d",
    b"Content-Length: %d\x00",
    b"Content-Length: %d;",
    b"Content_Length: %d",
    b"X: y\nContent-Length: %d",
    b"X: y\rContent-Length: %d",
    b"Content-Length:\r\n %d",
    b"Content-Length: \xef\xbc\x95%d",
)
_CHUNKS: Final = (
    b"5;a=b\r\nhello\r\n" + _ENDED,
    b"5;\nhello\r\n" + _ENDED,
    b"5\nhello\n0\n\n" + _SECOND,
    b"5\rhello\r\n" + _ENDED,
    b"05\r\nhello\r\n" + _ENDED,
    b"0x5\r\nhello\r\n" + _ENDED,
    b"-5\r\nhello\r\n" + _ENDED,
    b"+5\r\nhello\r\n" + _ENDED,
    b"5 \r\nhello\r\n" + _ENDED,
    b"10000000000000005\r\nhello\r\n" + _ENDED,
    b"FFFFFFFFFFFFFFFF\r\nhello\r\n" + _ENDED,
    b"5\r\nhelloXX" + _ENDED,
    b"5\r\nhello" + _ENDED,
    b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n" + _SECOND,
    b"5\r\nhello\r\n0\r\nX: y\n\n" + _SECOND,
    b"5\r\nhello\r\n0;\n\r\n" + _SECOND,
    b"\r\n" + _ENDED,
    b"5;" + b"x" * 20_000 + b"\r\nhello\r\n" + _ENDED,
    _ONE_CHUNK,
)

CORPUS: Final[dict[str, bytes]] = {
    "length-then-chunks": _post(_ALL, _CHUNKED, body=_ENDED),
    "chunks-then-length": _post(_CHUNKED, _ALL, body=_ENDED),
    "short-length-and-chunks": _post(b"Content-Length: 4", _CHUNKED, body=_ONE_CHUNK),
    **{f"coding-{n}": _post(_ALL, coding, body=_ENDED) for n, coding in enumerate(_CODINGS)},
    **{f"coding-alone-{n}": _post(coding, body=_ENDED) for n, coding in enumerate(_CODINGS)},
    **{f"length-{n}": _post(length % len(_SECOND), body=_SECOND) for n, length in enumerate(_LENGTHS)},
    **{f"chunks-{n}": _post(_CHUNKED, body=chunks) for n, chunks in enumerate(_CHUNKS)},
    "bare-lf": _post(_ALL, body=_ENDED).replace(b"\r\n", b"\n"),
    "bare-lf-in-head": _post(b"X: y\n\nGET /smuggled HTTP/1.1\r\nHost: hospital.example"),
    "bare-cr-in-head": _post(b"X: y\r\rGET /smuggled HTTP/1.1\r\nHost: hospital.example"),
    "folded": _get(b"Host: hospital.example", b"X: y", b" GET /smuggled HTTP/1.1"),
    "folded-first": _get(b" Host: hospital.example"),
    "two-hosts": _get(b"Host: hospital.example", b"Host: other.example"),
    "same-host-twice": _get(b"Host: hospital.example", b"Host: hospital.example"),
    "no-host": _get(),
    "host-with-path": _get(b"Host: hospital.example/smuggled"),
    "host-with-space": _get(b"Host: hospital.example other.example"),
    "absolute-uri": _get(b"Host: hospital.example", line=b"GET http://other.example/smuggled-not HTTP/1.1"),
    "authority": _get(b"Host: hospital.example", line=b"CONNECT other.example:443 HTTP/1.1"),
    "asterisk": _get(b"Host: hospital.example", line=b"OPTIONS * HTTP/1.1"),
    "line-with-lf": b"GET /healthz HTTP/1.1\nHost: hospital.example\r\n\r\n",
    "line-with-two-spaces": _get(b"Host: hospital.example", line=b"GET  /healthz  HTTP/1.1"),
    "line-with-tab": _get(b"Host: hospital.example", line=b"GET\t/healthz\tHTTP/1.1"),
    "target-with-crlf": _get(b"Host: hospital.example", line=b"GET /healthz\r\n/smuggled HTTP/1.1"),
    "no-version": b"GET /smuggled\r\n\r\n",
    "version-1.0-chunked": _post(_CHUNKED, body=_ENDED).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "version-1.2": _get(b"Host: hospital.example", line=b"GET /healthz HTTP/1.2"),
    "version-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "body-of-get": _get(b"Host: hospital.example", b"Content-Length: %d" % len(_SECOND), body=_SECOND),
    "nul-in-value": _get(b"Host: hospital.example", b"X: a\x00b"),
    "nul-in-name": _get(b"Host: hospital.example", b"X\x00Y: a"),
    "h2c": _get(
        b"Host: hospital.example",
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQAAP__",
        b"Content-Length: %d" % len(_SECOND),
        body=_SECOND,
    ),
    "dropped-by-connection": _post(
        b"Connection: Content-Length", b"Content-Length: %d" % len(_SECOND), body=_SECOND
    ),
}

LAST: Final = b"GET /healthz HTTP/1.1\r\nHost: hospital.example\r\nConnection: close\r\n\r\n"
"""An honest request behind it: its answer, if there is one, is the last."""

HONEST: Final[dict[str, list[int]]] = {
    name: [400, 404, 200]
    for name in (
        "coding-alone-3",
        "coding-alone-5",
        "coding-alone-6",
        "length-12",
        "chunks-0",
        "chunks-4",
        "chunks-17",
    )
}
"""Spelled unusually, and yet two requests by RFC 9112: what a gateway answers to them, and to the last."""
