"""Says HL7 v2 messages over MLLP, and waits for what is answered.

    client = Client(Peer("10.0.0.7", 2575))
    answer = await client.send(raw, control_id)          # the answer, parsed: AA, AE or AR in MSA-1
    await client.close()

One message in flight on a connection, on a few connections: senders that pipeline lose messages at real
receivers. An answer belongs to a message by MSA-2; one for another message, late or repeated, is passed over.
CA says only "I have it", so the answer proper is still waited for, unless `is_commit_enough`.

    no connection                                       TryAgain
    the line broke, or no answer in time, after sending  OutcomeUnknown
    an answer that cannot be read                        OutcomeUnknown
"""

import asyncio
import ssl as tls
from dataclasses import dataclass
from typing import Final

from integrations.connector import OutcomeUnknown, TryAgain
from integrations.hl7v2 import charset as charsets
from integrations.hl7v2.frames import Frames, TooMuch, framed
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Message, parse

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
CONNECT_SECONDS_MAX: Final = 3.0


@dataclass(frozen=True, slots=True)
class Peer:
    """`default`: the charset of an answer that names none."""

    host: str
    port: int
    connections: int = 4
    answer_seconds_max: float = 5.0
    default: str = charsets.UTF8
    ssl: tls.SSLContext | None = None


@dataclass(slots=True)
class _Line:
    frames: Frames
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def is_fit(self) -> bool:
        """Not once they have hung up, nor with something unread on it."""
        return not self.reader.at_eof() and not self.writer.is_closing() and not self.frames.has_rest


class Client:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._free: list[_Line] = []
        self._room = asyncio.Semaphore(peer.connections)
        self._is_closed = False

    async def send(
        self, raw: bytes, control_id: str, *, is_commit_enough: bool = False, seconds_max: float | None = None
    ) -> Message:
        """`seconds_max`: of all of it, waiting for a free connection included. Raises TryAgain,
        OutcomeUnknown."""
        content = framed(raw)
        loop = asyncio.get_running_loop()
        end = loop.time() + (self._peer.answer_seconds_max if seconds_max is None else seconds_max)
        try:
            async with asyncio.timeout_at(end):
                await self._room.acquire()
        except TimeoutError:
            raise TryAgain("HL7: every connection is busy") from None
        try:
            line = await self._line(end)
            try:
                answer = await self._exchange(line, content, control_id, is_commit_enough, end)
            except BaseException:
                line.writer.transport.abort()
                raise
            if self._is_closed:
                line.writer.close()
            else:
                self._free.append(line)
            return answer
        finally:
            self._room.release()

    async def close(self) -> None:
        self._is_closed = True
        while self._free:
            self._free.pop().writer.close()

    async def _line(self, end: float) -> _Line:
        while self._free:
            line = self._free.pop()
            if line.is_fit:
                return line
            line.writer.transport.abort()
        peer = self._peer
        try:
            async with asyncio.timeout_at(min(end, asyncio.get_running_loop().time() + CONNECT_SECONDS_MAX)):
                reader, writer = await asyncio.open_connection(peer.host, peer.port, ssl=peer.ssl)
        except (OSError, TimeoutError) as error:
            raise TryAgain(f"HL7: no connection: {type(error).__name__}") from None
        return _Line(Frames(reader, ANSWER_BYTES_MAX), reader, writer)

    async def _exchange(
        self, line: _Line, content: bytes, control_id: str, is_commit_enough: bool, end: float
    ) -> Message:
        try:
            async with asyncio.timeout_at(end):
                line.writer.write(content)
                await line.writer.drain()
                while True:
                    answer = await self._answer(line)
                    msa = answer.find("MSA")
                    if msa is None or msa.text(2) != control_id:
                        continue
                    code = msa.text(1)
                    if code in ("AA", "AE", "AR") or code in ("CE", "CR"):
                        return answer
                    if code == "CA" and is_commit_enough:
                        return answer
        except (OSError, TimeoutError, TooMuch) as error:
            raise OutcomeUnknown(f"HL7: no answer: {type(error).__name__}") from None
        except Malformed as malformed:
            raise OutcomeUnknown(f"HL7: an answer that cannot be read: {malformed.where}") from None

    async def _answer(self, line: _Line) -> Message:
        frame = await line.frames.whole() if await line.frames.begun() else None
        if frame is None:
            raise OutcomeUnknown("HL7: they hung up before answering")
        if not frame.is_whole:
            raise OutcomeUnknown("HL7: an answer that is too large")
        return parse(frame.content, self._peer.default)
