"""Thousands of WebSocket connections in one process, with little work for each: half of `make bench-stream`.

It reads what to watch from a file, says "ready" when everybody has been told the whole, and at "stop" writes
what came and when.

No WebSocket library: its own work would be most of what a machine with two cores has to give.
"""

import asyncio
import base64
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any, Final, cast

import msgpack
import orjson
import uvloop

from web.file_limit import raise_file_limit

CONNECT_SECONDS_MAX: Final = 120.0
UNDER_WAY_MAX: Final = 50  # connections that are being made at one time
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Watcher(asyncio.Protocol):
    """One connection to one topic. Keeps every message with the moment (wall clock) at which it came."""

    def __init__(self, token: str, topic: str) -> None:
        self.topic = topic
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.messages: list[tuple[float, bytes]] = []
        self.closed = False
        self._token = token
        self._buffer = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            "GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        at = time.time()
        data = self._buffer + data
        if not self._is_open:
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._buffer = data
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(RuntimeError(head.decode(errors="replace")[:200]))
                return
            self._is_open, data = True, rest
            self._send(_TEXT, orjson.dumps({"subscribe": [self.topic]}))
        start = 0
        while (frame := _frame(data, start)) is not None:
            opcode, begin, start = frame
            if opcode == _TEXT:
                self._hear(at, data[begin:start])
            elif opcode == _PING:
                self._send(_PONG, data[begin:start])
        self._buffer = data[start:]

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail(error or ConnectionResetError("closed"))

    def _hear(self, at: float, message: bytes) -> None:
        if message.startswith((b'{"hello"', b'{"notice"')):
            return
        self.messages.append((at, message))
        if not self.whole.done():
            if b'"snapshot"' in message[:20]:
                self.whole.set_result(None)
            else:
                self._fail(RuntimeError(message.decode()[:200]))

    def _send(self, opcode: int, payload: bytes) -> None:
        """Masked with zeros: the mask is there for old proxies, and here is none."""
        self._transport.write(bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload)

    def _fail(self, error: Exception) -> None:
        if not self.whole.done():
            self.whole.set_exception(error)


def _frame(data: bytes, start: int) -> tuple[int, int, int] | None:
    """Opcode, where the payload begins and where it ends; None: it has not come whole."""
    if len(data) < start + 2:
        return None
    length, begin = data[start + 1] & 0x7F, start + 2
    if length == 126:
        if len(data) < start + 4:
            return None
        length, begin = int.from_bytes(data[start + 2 : start + 4], "big"), start + 4
    elif length == 127:
        if len(data) < start + 10:
            return None
        length, begin = int.from_bytes(data[start + 2 : start + 10], "big"), start + 10
    return None if len(data) < begin + length else (data[start] & 0x0F, begin, begin + length)


def connected(watchers: list[Watcher]) -> int:
    return sum(not watcher.closed for watcher in watchers)


async def watch(task: dict[str, Any]) -> list[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    sources: list[str] = task["sources"]
    gate = asyncio.Semaphore(UNDER_WAY_MAX)
    pause = 1 / task["connects_per_second"]

    async def one(n: int, topic: str, token: str) -> Watcher:
        await asyncio.sleep(n * pause)
        async with gate:
            _, watcher = await loop.create_connection(
                lambda: Watcher(token, topic),
                "127.0.0.1",
                task["port"],
                local_addr=(sources[n % len(sources)], 0),
            )
            made.append(watcher)
            await watcher.whole
        return watcher

    made: list[Watcher] = []
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            watchers = await asyncio.gather(*(one(n, *what) for n, what in enumerate(task["watch"])))
    except TimeoutError:
        silent = [watcher.topic for watcher in made if not watcher.whole.done()]
        raise RuntimeError(f"{len(made)} connected, but nothing came of {silent[:3]}") from None
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    return [
        {"topic": watcher.topic, "closed": watcher.closed, "messages": watcher.messages}
        for watcher in watchers
    ]


def main() -> None:
    task_file, out = Path(sys.argv[1]), Path(sys.argv[2])
    task = orjson.loads(task_file.read_bytes())
    raise_file_limit(len(task["watch"]))
    with contextlib.suppress(KeyboardInterrupt):
        out.write_bytes(msgpack.packb(uvloop.run(watch(task))))
    print("written", flush=True)


if __name__ == "__main__":
    main()
