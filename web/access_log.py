"""One JSON line a request: method, route, status, milliseconds, request id; never the path, the query, an
address or who asked.

A booking must not pay for its line: `note` puts a few values into a list, and a thread writes them a few
times a second. So a process that is killed loses its last lines; what must not be lost is in the journal and
the audit, not here.
"""

import asyncio
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, Literal

import orjson

from engine.logs import stamp

Which = Literal["off", "errors", "writes", "all"]  # as in engine/settings.py
"""`errors`: answers of 500 and above; `writes`: those, and all that may change something."""

WRITE_SECONDS: Final = 0.25
WAITING_MAX: Final = 20_000
FILE_BYTES_MAX: Final = 32 * 1024 * 1024
FILES_KEPT: Final = 3
_READS: Final = ("GET ", "HEAD", "OPTI", "none")

log = logging.getLogger(__name__)

Line = tuple[float, str, int, float, str | None]
"""When (seconds since 1970), route, status, seconds, request id."""


class AccessLog:
    """Of one process. Without a file, nothing is noted."""

    def __init__(self, which: Which, file: Path | None, process: str) -> None:
        self._process = process
        self._from_status = 0 if which == "all" else 500
        self._writes = which == "writes"
        self._lines: list[Line] = []
        self._lost = 0
        self._middles: dict[tuple[str, int], str] = {}  # as many as there are routes and their answers
        self._second, self._day_time = -1, ""
        self._handler: RotatingFileHandler | None = None
        if file is not None and which != "off":
            file.parent.mkdir(parents=True, exist_ok=True)
            self._handler = RotatingFileHandler(
                file, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, encoding="utf-8"
            )
            self._handler.setFormatter(logging.Formatter("%(message)s"))

    def note(self, route: str, status: int, seconds: float, request_id: str | None) -> None:
        """`route` is "METHOD template", or "none" where no route fits."""
        if self._handler is None:
            return
        if status < self._from_status and (not self._writes or route[:4] in _READS):
            return
        if len(self._lines) < WAITING_MAX:
            self._lines.append((time.time(), route, status, seconds, request_id))
        else:  # the disk does not follow: the newest are counted only
            self._lost += 1

    async def run(self) -> None:
        """Writes, for ever; what waits at the end is written by `close`."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            if self._lines:
                # Taken here, in the thread that notes, so that none falls between two lists.
                lines, self._lines = self._lines, []
                await asyncio.to_thread(self._write, lines)
            if self._lost:
                log.warning("%d access lines were left out: the disk does not follow", self._lost)
                self._lost = 0

    def close(self) -> None:
        if self._handler is not None:
            lines, self._lines = self._lines, []
            if lines:
                self._write(lines)
            self._handler.close()

    def _write(self, lines: list[Line]) -> None:
        assert self._handler is not None
        text = "\n".join([self._line(*line) for line in lines])
        self._handler.emit(logging.LogRecord("access", logging.INFO, "", 0, text, (), None))

    def _line(self, at: float, route: str, status: int, seconds: float, request_id: str | None) -> str:
        """Of parts that are made once: thousands of bookings a second differ in little else."""
        second = int(at)
        if second != self._second:
            self._second, self._day_time = second, stamp(second)[:-4]  # up to the point
        middle = self._middles.get((route, status))
        if middle is None:
            middle = self._middles[route, status] = self._middle(route, status)
        named = "null" if request_id is None else f'"{request_id}"'
        return (
            f'{{"ts":"{self._day_time}{int(at * 1000) % 1000:03d}Z"{middle}{seconds * 1000:.1f}'
            f',"request_id":{named}}}'
        )

    def _middle(self, route: str, status: int) -> str:
        method, _, template = route.partition(" ")
        told = {
            "process": self._process,
            "method": method if template else None,
            "route": template or None,
            "status": status,
        }
        return "," + orjson.dumps(told).decode()[1:-1] + ',"ms":'
