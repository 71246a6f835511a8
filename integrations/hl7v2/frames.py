"""MLLP's frames: VT, the message, FS, CR. Read with a bound, and so that noise and torn frames end nothing.

Neither VT nor FS is ever a part of a character in a charset that we read, so they can be looked for in bytes.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

VT: Final = 0x0B
FS: Final = 0x1C
_START: Final = b"\x0b"
_END: Final = b"\x1c"
_PIECE: Final = 64 * 1024
_KEPT: Final = 4096  # of a frame that is too large, for its header
SKIPPED_MAX_TIMES: Final = 8
"""How many times the bound we read on, and throw away, before a sender of more is no sender of frames."""


class TooMuch(Exception):
    """Bytes without end."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`is_whole`: else `content` is only its beginning, because there was more than the bound."""

    content: bytes
    is_whole: bool = True


def framed(content: bytes) -> bytes:
    """Raises ValueError: a message that contains the marks themselves."""
    if VT in content or FS in content:
        raise ValueError("a message with the marks of a frame in it")
    return b"%c%b%c\r" % (VT, content, FS)


class Frames:
    """Of one connection. A carriage return that is missing behind FS is not waited for."""

    def __init__(self, reader: asyncio.StreamReader, bytes_max: int) -> None:
        self._reader = reader
        self._bytes_max = bytes_max
        self._rest = bytearray()

    @property
    def has_rest(self) -> bool:
        """Whether something came that nobody asked for."""
        return bool(self._rest.strip(b"\r\n"))

    async def begun(self) -> bool:
        """Waits for a frame's first byte, throwing away whatever comes before it. False: they hung up.

        Raises TooMuch."""
        thrown = 0
        while True:
            at = self._rest.find(_START)
            if at >= 0:
                del self._rest[:at]
                return True
            thrown += len(self._rest)
            if thrown > self._bytes_max:
                raise TooMuch
            self._rest.clear()
            piece = await self._reader.read(_PIECE)
            if not piece:
                return False
            self._rest += piece

    async def whole(self) -> Frame | None:
        """The frame that has begun. None: they hung up within it. Raises TooMuch."""
        searched = 0
        while (end := self._rest.find(_END, searched)) < 0:
            searched = len(self._rest)
            if searched > self._bytes_max:
                return await self._skipped()
            piece = await self._reader.read(_PIECE)
            if not piece:
                return None
            self._rest += piece
        # A second beginning: the first was torn, and its sender began again.
        start = self._rest.rfind(_START, 0, end) + 1
        content = bytes(self._rest[start:end])
        del self._rest[: end + 1]
        if len(content) > self._bytes_max:
            return Frame(content[:_KEPT], is_whole=False)
        return Frame(content)

    async def _skipped(self) -> Frame | None:
        kept = bytes(self._rest[1 : _KEPT + 1])
        skipped = 0
        while (end := self._rest.find(_END)) < 0:
            skipped += len(self._rest)
            if skipped > self._bytes_max * SKIPPED_MAX_TIMES:
                raise TooMuch
            self._rest.clear()
            piece = await self._reader.read(_PIECE)
            if not piece:
                return None
            self._rest += piece
        del self._rest[: end + 1]
        return Frame(kept, is_whole=False)
