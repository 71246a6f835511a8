"""Messages between a gateway and a shard's process: frames on one TCP connection, many under way at a time.

Why not Ray's own calls: they took 4 ms there and back between idle processes, and 30 to 80 on the way back
into an event loop that is busy, as it is on a Monday morning. Ray places, watches and restarts the processes;
what they say to each other all day goes here. A connection that breaks tells of a death at once.

A frame is its length, an id, and a body; the answer bears the same id. The first frame of a connection must
be the secret that the supervisor gave to both ends.
"""

import asyncio
import hmac
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Final, cast

from actors.directory import ShardAway

log = logging.getLogger(__name__)

FRAME_BYTES_MAX: Final = 8 * 1024 * 1024
CONNECT_SECONDS_MAX: Final = 1.0

_HEAD: Final = struct.Struct(">IQ")  # bytes of the body, id
_OK, _NOT_HERE, _FAILED = b"\0", b"\1", b"\2"

Handle = Callable[[bytes], Awaitable[bytes | None]]
"""Answers a body. None: what it is about is not here. Whatever it raises is logged, and told as failed."""

Address = tuple[str, int]


class _Framed(asyncio.Protocol):
    """Cuts what comes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _HEAD.size:
            length, number = _HEAD.unpack_from(buffer, at)
            if length > FRAME_BYTES_MAX:
                self.close()
                return
            end = at + _HEAD.size + length
            if len(buffer) < end:
                break
            body = bytes(buffer[at + _HEAD.size : end])
            at = end
            self.frame_received(number, body)
        del buffer[:at]

    def send(self, number: int, body: bytes) -> None:
        if self.transport is not None:
            self.transport.write(_HEAD.pack(len(body), number) + body)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def frame_received(self, number: int, body: bytes) -> None:
        raise NotImplementedError


class _Served(_Framed):
    """A gateway's connection, at the shard's end."""

    def __init__(self, secret: bytes, handle: Handle, open_ones: "set[_Served]") -> None:
        super().__init__()
        self._secret = secret
        self._handle = handle
        self._open_ones = open_ones
        self._is_known = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._open_ones.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_ones.discard(self)
        self.transport = None

    def frame_received(self, number: int, body: bytes) -> None:
        if not self._is_known:
            self._is_known = hmac.compare_digest(body, self._secret)
            if not self._is_known:
                log.warning("a connection without the secret was closed")
                self.close()
            return
        task = asyncio.ensure_future(self._answer(number, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, body: bytes) -> None:
        try:
            answer = await self._handle(body)
        except Exception:
            log.exception("a message failed")
            self.send(number, _FAILED)
        else:
            self.send(number, _NOT_HERE if answer is None else _OK + answer)


class LinkServer:
    """The shard's end. Binds to the address that its process is known by."""

    def __init__(self, secret: bytes, handle: Handle) -> None:
        self._secret = secret
        self._handle = handle
        self._open_ones: set[_Served] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str) -> Address:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Served(self._secret, self._handle, self._open_ones), host, 0
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return host, port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for each in list(self._open_ones):
            each.close()


class _Calling(_Framed):
    """A gateway's connection, at its own end."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, asyncio.Future[bytes]] = {}

    def frame_received(self, number: int, body: bytes) -> None:
        answer = self.waiting.pop(number, None)
        if answer is None or answer.done():
            return
        if body[:1] == _OK:
            answer.set_result(body[1:])
        else:
            answer.set_exception(ShardAway("not here" if body[:1] == _NOT_HERE else "it failed there"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_exception(ShardAway("the connection was lost"))
        self.waiting.clear()


class Link:
    """The gateway's end: one connection, made when it is first needed and again after it broke."""

    def __init__(self, address: Address, secret: bytes) -> None:
        self._address = address
        self._secret = secret
        self._connection: _Calling | None = None
        self._connecting: asyncio.Task[_Calling] | None = None
        self._number = 0

    async def call(self, body: bytes) -> bytes:
        """Raises ShardAway when there is no answer to be had: what was asked may have been done."""
        connection = self._connection
        if connection is None or connection.transport is None:
            connection = await self._connect()
        self._number += 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        connection.waiting[self._number] = answer
        connection.send(self._number, body)
        if connection.transport is None:
            connection.waiting.pop(self._number, None)
            raise ShardAway("the connection was lost")
        return await answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _connect(self) -> _Calling:
        """However many ask, one connection is made."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._open())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    async def _open(self) -> _Calling:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                _, connection = await loop.create_connection(_Calling, *self._address)
        except (OSError, TimeoutError) as error:
            raise ShardAway(f"cannot connect: {error}") from None
        connection.send(0, self._secret)
        return connection

    def _connected(self, task: asyncio.Task[_Calling]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()
