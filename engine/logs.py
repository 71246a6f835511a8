"""What a process has to say: one JSON object a line in a file of its own, and words on stderr.

No personal data (docs/LOGS.md): messages name schedules, shards and ids of requests; exceptions are worded
without the values they failed on (engine/log_words.py), whoever logs them. Control characters are escaped,
so that nobody's input can begin a line of its own.
"""

import logging
import re
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import orjson

from engine.log_words import traceback_of, words_of

FILE_BYTES_MAX: Final = 10 * 1024 * 1024
FILES_KEPT: Final = 3
LINE_CHARS_MAX: Final = 8_000

LogFormat = Literal["text", "json"]

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being served, for every line that is written meanwhile."""


def configure(level: str, file: Path | None, process: str = "xinglin", form: LogFormat = "text") -> None:
    """`process` is the name that lines carry; `form` is stderr's. Files are always JSON."""
    stderr = logging.StreamHandler()
    stderr.setFormatter(JsonLines(process) if form == "json" else TextLines())
    handlers: list[logging.Handler] = [stderr]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        into_file = RotatingFileHandler(file, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT)
        into_file.setFormatter(JsonLines(process))
        handlers.append(into_file)
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.raiseExceptions = False  # a line that cannot be formatted must not be told by its arguments
    word_the_uncaught()


def word_the_uncaught() -> None:
    """What nobody catches ends on stderr as well: worded as in a log, not as Python would."""
    log = logging.getLogger("uncaught")

    def uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            return
        if logging.getLogger().handlers:
            log.critical("nobody caught this", exc_info=error)
        else:
            print(traceback_of(error), file=sys.stderr)

    def in_thread(given: threading.ExceptHookArgs) -> None:
        if given.exc_value is not None:
            uncaught(given.exc_type, given.exc_value, given.exc_traceback)

    def unraisable(given: "sys.UnraisableHookArgs") -> None:
        if given.exc_value is not None:
            uncaught(given.exc_type, given.exc_value, given.exc_traceback)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable


# C0, DEL, C1, the separators that some readers take for ends of lines, and marks that turn a line around.
_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escaped(text: str) -> str:
    """Fit for one line: every character that could act is spelled."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def message_of(record: logging.LogRecord) -> str:
    """The record's message, with exceptions among its arguments worded."""
    if record.name == "asyncio":
        # Behind the first line come the task, its coroutine and its exception, as their repr has them.
        return record.getMessage().partition("\n")[0]
    given = record.args
    if not given:
        return str(record.msg) if not isinstance(record.msg, BaseException) else words_of(record.msg)
    args: object
    if isinstance(given, Mapping):
        args = {name: _worded(value) for name, value in given.items()}
    else:
        args = tuple(map(_worded, given))
    try:
        return str(record.msg) % args
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} (its arguments do not fit)"


def _worded(value: object) -> object:
    return words_of(value) if isinstance(value, BaseException) else value


def _error_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if isinstance(record.exc_info, tuple) else None


class JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": stamp(record.created),
            "level": record.levelname,
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": escaped(message_of(record)[:LINE_CHARS_MAX]),
        }
        request_id = REQUEST_ID.get()
        if request_id is not None:
            line["request_id"] = request_id
        error = _error_of(record)
        if error is not None:
            # The escapes of JSON keep its lines in one; what could act otherwise is spelled.
            line["error"] = "\n".join(escaped(part) for part in traceback_of(error).split("\n"))
        return orjson.dumps(line).decode()


class TextLines(logging.Formatter):
    """For people at a terminal. A traceback's lines are indented: a record alone begins in column one."""

    def format(self, record: logging.LogRecord) -> str:
        request_id = REQUEST_ID.get()
        named = f" [{request_id}]" if request_id else ""
        line = (
            f"{stamp(record.created)} {record.process} {record.levelname} {record.name}:{named}"
            f" {escaped(message_of(record)[:LINE_CHARS_MAX])}"
        )
        error = _error_of(record)
        if error is None:
            return line
        return "\n    ".join((line, *(escaped(part) for part in traceback_of(error).split("\n"))))


def stamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
