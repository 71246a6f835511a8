"""The server socket's side of aiohttp: problem+json for bytes that are no HTTP, and the express lane.

Why there is an express lane: of a booking's time in a gateway, aiohttp's request object, its two tasks,
router, middlewares and response object took two thirds. On a Monday morning nearly all writes are one and
the same request; once aiohttp's own parser has read it whole, it needs none of these. Whatever is not exactly
that request (another route, a body in parts, pipelining, Expect, compression, Connection: close) goes the
usual way, and both ways run the same checks: see web/patient/express.py.
"""

import re
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EmptyStreamReader, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from web.errors import Problem
from web.faults import Fault

HELD_BYTES_MAX: Final = 64 * 1024  # of what a client sends ahead of its answer; more is left in the socket


class Lane(Protocol):
    """What serves one method and path without a request object."""

    method: str
    path: str

    def shed(self, data: bytes) -> bytes | None:
        """The refusal, where too many are under way and this is one whole request of this lane; else None.

        Asked before anything is parsed: under three times the load that can be served, what is refused must
        cost next to nothing, or nobody is served at all.
        """

    def serve(self, message: RawRequestMessage, body: bytes, finish: Callable[[bytes], None]) -> None:
        """Calls `finish` once, now or later, with the whole answer: see `answer`."""


class Door(web.AppRunner):
    """An AppRunner with the two abilities above; without a lane, with the first alone."""

    def __init__(self, app: web.Application, lane: Lane | None = None, **settings: Any) -> None:
        super().__init__(app, **settings)
        self._lane = lane

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(
            made.request_handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs
        )
        server.lane = self._lane
        return server


class _Server(web.Server):
    lane: Lane | None = None

    def __call__(self) -> RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.lane = self.lane
        return connection


class _Connection(RequestHandler):
    __slots__ = ("_held", "_is_express", "_last", "lane")

    def __init__(self, manager: web.Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self.lane: Lane | None = None
        self._is_express = False
        self._held = b""
        self._last: bytes | None = None  # what came last, while nothing was under way; None: nothing yet

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
            super().data_received(data)
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
        if len(self._messages) == 1 and self._goes_express(*self._messages[0]):
            return
        if self._messages and not waiter.done():
            waiter.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._held = b""
        super().connection_lost(exc)

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
        lane.serve(message, payload.read_nowait(-1), self._finish_express)
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
        response.force_close()
        return response


_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
_CODED: Final = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


def is_whole(data: bytes) -> bool:
    """Whether these bytes, taken from a request's begin, end just where it ends. False also when in doubt."""
    head = data.find(b"\r\n\r\n") + 4
    if head < 4 or _CODED.search(data, 0, head):
        return False
    length = _LENGTH.findall(data, 0, head)
    return len(length) <= 1 and head + (int(length[0]) if length else 0) == len(data)


_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


def answer(status: int, headers: dict[str, str], body: bytes) -> bytes:
    """A whole HTTP/1.1 answer. Header values must be ours: nothing that a client sent."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n{lines}"
        f"Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n"
    )
    return head.encode() + body
