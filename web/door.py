"""The server socket's side of aiohttp: problem+json for bytes that are no HTTP, no patience for slow
requests, and the express lane.

Patience: a request that comes a byte at a time costs its sender nothing, and us a connection. So the head of
a request and its body must have come within their times, and idle connections go: docs/EDGE.md.

Why there is an express lane: of a booking's time in a gateway, aiohttp's request object, its two tasks,
router, middlewares and response object took two thirds. On a Monday morning nearly all writes are one and
the same request; once aiohttp's own parser has read it whole, it needs none of these. Whatever is not exactly
that request (another route, a body in parts, pipelining, Expect, compression, Connection: close) goes the
usual way, and both ways run the same checks: see web/patient/express.py.
"""

import asyncio
import re
import secrets
from collections.abc import Callable
from datetime import UTC
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EmptyStreamReader, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from web.errors import Problem
from web.faults import Fault
from web.security_headers import LINES, dress

LINE_BYTES_MAX: Final = 4096  # of a request line
FIELD_BYTES_MAX: Final = 8190  # of one header
FIELDS_MAX: Final = 64
HEAD_BYTES_MAX: Final = 32 * 1024  # of a head that comes in several pieces
HELD_BYTES_MAX: Final = 64 * 1024  # of what a client sends ahead of its answer; more is left in the socket


class Patience(NamedTuple):
    """How long a client may take, in seconds, and how many connections there may be."""

    head: float = 10.0  # from the connection, or from the first byte of a later request, to the head's end
    body: float = 15.0  # from the head's end
    idle: float = 75.0  # between requests; more than a proxy keeps its own, so that it hangs up first
    connections_max: int = 1 << 20  # one more is closed at once


class Lane(Protocol):
    """What serves one method and path without a request object."""

    method: str
    path: str

    def shed(self, data: bytes) -> bytes | None:
        """The refusal, where too many are under way and this is one whole request of this lane; else None.

        Asked before anything is parsed: under three times the load that can be served, what is refused must
        cost next to nothing, or nobody is served at all.
        """

    def serve(
        self, message: RawRequestMessage, body: bytes, peer: str, finish: Callable[[bytes], None]
    ) -> None:
        """Calls `finish` once, now or later, with the whole answer: see `answer`. `peer` is the address that
        holds the connection."""


class Door(web.AppRunner):
    """An AppRunner with the abilities above; without a lane, with all but that."""

    def __init__(
        self,
        app: web.Application,
        lane: Lane | None = None,
        patience: Patience = Patience(),  # noqa: B008
        **settings: Any,
    ) -> None:
        bounds = {
            "keepalive_timeout": patience.idle,
            "max_line_size": LINE_BYTES_MAX,
            "max_field_size": FIELD_BYTES_MAX,
            "max_headers": FIELDS_MAX,
        }
        super().__init__(app, **{**bounds, **settings})
        self._lane = lane
        self._patience = patience

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(
            made.request_handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs
        )
        server.lane = self._lane
        server.patience = self._patience
        return server


class _Server(web.Server):
    lane: Lane | None = None
    patience: Patience = Patience()

    def __call__(self) -> RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.lane = self.lane
        connection.patience = self.patience
        return connection


class _Connection(RequestHandler):
    __slots__ = (
        "_body",
        "_body_begun",
        "_body_timer",
        "_head_bytes",
        "_head_timer",
        "_held",
        "_is_express",
        "_last",
        "_peer",
        "lane",
        "patience",
    )

    def __init__(self, manager: web.Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self.lane: Lane | None = None
        self.patience = Patience()
        self._peer = ""
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # of a head that has begun to come, and not at once
        self._body: StreamReader | None = None  # the last one that had not come with its head
        self._body_begun = 0.0
        self._body_timer: asyncio.TimerHandle | None = None  # one at a time: it looks anew when it rings
        self._is_express = False
        self._held = b""
        self._last: bytes | None = None  # what came last, while nothing was under way; None: nothing yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._manager is not None
        if len(self._manager.connections) > self.patience.connections_max:
            self.force_close()
            return
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._head_timer = self._loop.call_later(self.patience.head, self._head_is_slow)

    def data_received(self, data: bytes) -> None:
        if self._is_express:
            # Sent ahead of the answer: it has to wait its turn.
            self._held += data
            if len(self._held) > HELD_BYTES_MAX and self.transport is not None:
                self.transport.pause_reading()
            return
        waiter = self._waiter
        if self.lane is None or waiter is None or waiter.done() or self._messages:
            self._last = b""  # where the parser stands is no longer known from outside
            was_body = self._body is not None and not self._body.is_eof()
            super().data_received(data)
            if self._messages:
                self._came(self._messages[-1][1])
            elif not was_body and (self._body is None or self._body.is_eof()):
                self._waits_for_head(len(data))  # of the next request, while this one is being served
            return
        before, self._last = self._last, data
        refusal = self.lane.shed(data)
        if refusal is not None and self.transport is not None and (before is None or is_whole(before)):
            self.transport.write(refusal)
            return
        self._waiter = None  # so that nobody wakes before we have looked
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if not self._messages:
            self._waits_for_head(len(data))
            return
        self._came(self._messages[-1][1])
        if len(self._messages) == 1 and self._goes_express(*self._messages[0]):
            return
        if not waiter.done():
            waiter.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._held = b""
        self._body = None
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = None
        super().connection_lost(exc)

    def _came(self, body: StreamReader) -> None:
        """A head is there; its body may still be on its way."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._head_bytes = 0
        if body is not self._body and not body.is_eof():
            self._body = body
            self._body_begun = self._loop.time()
            if self._body_timer is None:
                self._body_timer = self._loop.call_later(self.patience.body, self._body_is_slow)

    def _waits_for_head(self, received: int) -> None:
        if not received or self._upgraded or self.transport is None:
            return
        self._head_bytes += received
        if self._head_bytes > HEAD_BYTES_MAX:
            self._hang_up(Fault.HEAD_TOO_LARGE)
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(self.patience.head, self._head_is_slow)

    def _head_is_slow(self) -> None:
        self._head_timer = None
        if self._upgraded:
            return
        if self._messages or self._request_in_progress:  # first they are answered
            self._head_timer = self._loop.call_later(self.patience.head, self._head_is_slow)
            return
        # To a connection that never said a word, nothing is said.
        self._hang_up(None if self._last is None else Fault.REQUEST_TIMEOUT)

    def _body_is_slow(self) -> None:
        self._body_timer = None
        body = self._body
        if body is None or body.is_eof():
            self._body = None
            return
        left = self._body_begun + self.patience.body - self._loop.time()
        request = self._current_request
        if left > 0 or (request is not None and request.content is not body):
            # Begun later than the timer, or behind a request that is being served: that one comes first.
            self._body_timer = self._loop.call_later(max(left, 1.0), self._body_is_slow)
            return
        # Without a request, its answer has been sent already, and aiohttp only drains what is left.
        is_unanswered = request is not None and request.writer.output_size == 0
        self._hang_up(Fault.REQUEST_TIMEOUT if is_unanswered else None)

    def _hang_up(self, why: Fault | None) -> None:
        if why is not None and self.transport is not None:
            problem = Problem(why)
            headers, body = problem.rendered(None, UTC)
            self.transport.write(answer(problem.status, {**headers, "Connection": "close"}, body))
        self.force_close()

    def _goes_express(self, message: RawRequestMessage | _ErrInfo, payload: StreamReader) -> bool:
        lane = self.lane
        assert lane is not None
        if (
            not isinstance(message, RawRequestMessage)
            or message.path != lane.path
            or message.method != lane.method
            or message.version != HttpVersion11
            or message.should_close
            or message.compression
            or message.upgrade
            or isinstance(payload, EmptyStreamReader)
            or not payload.is_eof()
            or hdrs.EXPECT in message.headers
        ):
            return False
        self._messages.clear()
        assert self._parser is not None
        self._parser.message_consumed()
        self._is_express = True
        self._request_in_progress = True  # a shutdown waits for the answer
        self._request_count += 1
        lane.serve(message, payload.read_nowait(-1), self._peer, self._finish_express)
        return True

    def _finish_express(self, answer: bytes) -> None:
        self._is_express = False
        self._request_in_progress = False
        if self.transport is not None:
            self.transport.write(answer)
            self._keepalive = True
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = self._loop.call_at(
                    self._next_keepalive_close_time, self._process_keepalive
                )
        if self._handler_waiter is not None:
            self._handler_waiter.set_result(None)
        elif self._held and self.transport is not None:
            held, self._held = self._held, b""
            self.transport.resume_reading()
            # At once: uvloop may read the socket before it comes to what is called soon.
            self.data_received(held)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status == 500:
            request_id = secrets.token_hex(8)
            self.log_exception("request %s failed outside its handler", request_id, exc_info=exc)
            problem = Problem(Fault.INTERNAL, request_id=request_id)
        elif status == 400:
            problem = Problem(Fault.MALFORMED_REQUEST)
        else:
            problem = Problem(Fault.REQUEST_REFUSED, status=status)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, so no other can be sent")
        response = problem.response(request)
        dress(response)
        response.force_close()
        return response


_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
_SOME_LENGTH: Final = re.compile(rb"content-length", re.IGNORECASE)  # however it is spelled
_CODED: Final = re.compile(rb"[\r\n]transfer-encoding", re.IGNORECASE)


def is_whole(data: bytes) -> bool:
    """Whether these bytes, taken from a request's begin, end just where it ends. False also when in doubt."""
    head = data.find(b"\r\n\r\n") + 4
    if head < 4 or _CODED.search(data, 0, head):
        return False
    length = _LENGTH.findall(data, 0, head)
    if len(_SOME_LENGTH.findall(data, 0, head)) != len(length):
        return False
    return len(length) <= 1 and head + (int(length[0]) if length else 0) == len(data)


_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


def answer(status: int, headers: dict[str, str], body: bytes) -> bytes:
    """A whole HTTP/1.1 answer. Header values must be ours: nothing that a client sent."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n{lines}{LINES}"
        f"Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n"
    )
    return head.encode() + body
