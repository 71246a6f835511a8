"""Takes HL7 v2 messages over MLLP.

    server = await serve("127.0.0.1", 2575, handle, Limits())      # server.port
    await server.close()

`handle` is given a frame's bytes and returns the answer's, or several answers, or none (ack.py makes them).
It may raise Malformed (answered AR, with where) and anything else (AE; only the error's name is logged). So a
sender always gets an answer, and no message keeps the next ones from being read:

    a frame that is too large     read to its end and thrown away, AR
    noise between frames          thrown away
    a torn frame, begun again     the second one is read
    an acknowledgement            not answered: some clients acknowledge ours, and would do so for ever
    a handler that takes too long AE: the sender sends again
    a peer that is not allowed, one connection too many: closed at once
    nothing for idle_seconds_max, a frame that does not end, bytes without end: closed

One message after another on a connection, as MLLP has it; connections in parallel.
"""

import asyncio
import contextlib
import ipaddress
import logging
import ssl as tls
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from integrations.hl7v2.ack import ERROR, INTERNAL, REJECTED, Trouble, is_answer, refusal, trouble_of
from integrations.hl7v2.frames import Frame, Frames, TooMuch, framed
from integrations.hl7v2.malformed import Malformed

FRAME_BYTES_MAX: Final = 8 * 1024 * 1024

Answers = bytes | tuple[bytes, ...]
Handle = Callable[[bytes], Awaitable[Answers]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """`peers`: from where connections are taken; empty: from everywhere that reaches the port."""

    frame_bytes_max: int = FRAME_BYTES_MAX
    connections_max: int = 64
    idle_seconds_max: float = 3_600.0
    frame_seconds_max: float = 60.0
    handle_seconds_max: float = 30.0
    write_seconds_max: float = 30.0
    peers: tuple[Network, ...] = ()


class Server:
    """`answered`, `refused`, `ignored`, `closed`: how many frames and connections, for figures."""

    def __init__(self, handle: Handle, limits: Limits) -> None:
        self._handle = handle
        self._limits = limits
        self._connections: set[asyncio.Task[None]] = set()
        self._working: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._is_closing = False
        self.answered = 0
        self.refused = 0
        self.ignored = 0
        self.closed = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def open(self, host: str, port: int, ssl: tls.SSLContext | None) -> None:
        self._server = await asyncio.start_server(self._connected, host, port, ssl=ssl)

    async def close(self) -> None:
        """What is being handled is answered first; nothing more is read."""
        self._is_closing = True
        if self._server is not None:
            self._server.close()
        for task in self._connections - self._working:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=self._limits.handle_seconds_max)
        for task in self._connections:
            task.cancel()

    async def abort(self) -> None:
        """Nothing more is answered."""
        self._is_closing = True
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if not self._may(writer) or len(self._connections) >= self._limits.connections_max:
            self.closed += 1
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._talk(Frames(reader, self._limits.frame_bytes_max), writer, task)
        except (TooMuch, TimeoutError, OSError) as error:
            self.closed += 1
            log.info("MLLP: a connection ends: %s", type(error).__name__)
        except asyncio.CancelledError:
            if not self._is_closing:
                raise
        finally:
            self._connections.discard(task)
            self._working.discard(task)
            writer.close()

    async def _talk(self, frames: Frames, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        limits = self._limits
        while not self._is_closing:
            async with asyncio.timeout(limits.idle_seconds_max):
                if not await frames.begun():
                    return
            async with asyncio.timeout(limits.frame_seconds_max):
                frame = await frames.whole()
            if frame is None:
                return
            self._working.add(task)
            for answer in await self._answers(frame):
                writer.write(framed(answer))
                async with asyncio.timeout(limits.write_seconds_max):
                    await writer.drain()
            self._working.discard(task)

    async def _answers(self, frame: Frame) -> tuple[bytes, ...]:
        raw = frame.content
        if is_answer(raw):
            self.ignored += 1
            return ()
        try:
            if not frame.is_whole:
                raise Malformed("message", "too_large", "a message that is too large")
            async with asyncio.timeout(self._limits.handle_seconds_max):
                told = await self._handle(raw)
            self.answered += 1
        except Malformed as malformed:
            self.refused += 1
            return (refusal(raw, REJECTED, trouble_of(malformed)),)
        except TimeoutError:
            self.refused += 1
            return (refusal(raw, ERROR, Trouble(INTERNAL, "no time; send it again")),)
        except Exception as error:
            # A handler's fault must not cost the messages behind this one.
            log.warning("MLLP: a message was not handled: %s", type(error).__name__)
            self.refused += 1
            return (refusal(raw, ERROR, Trouble(INTERNAL, "not done; send it again")),)
        return told if isinstance(told, tuple) else (told,) if told else ()

    def _may(self, writer: asyncio.StreamWriter) -> bool:
        if not self._limits.peers:
            return True
        with contextlib.suppress(TypeError, ValueError, IndexError):
            peer = ipaddress.ip_address(writer.get_extra_info("peername")[0].partition("%")[0])
            return any(peer in network for network in self._limits.peers)
        return False


async def serve(
    host: str, port: int, handle: Handle, limits: Limits | None = None, ssl: tls.SSLContext | None = None
) -> Server:
    """Listens; raises OSError where it cannot."""
    server = Server(handle, limits or Limits())
    await server.open(host, port, ssl)
    return server
