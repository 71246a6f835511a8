"""How a log words an exception: what failed and where, never the values it failed on.

Messages of exceptions are full of data: PostgreSQL's name the row that was there twice, asyncpg's and
pydantic's repeat the input, a KeyError is the key. So a message is told only where its kind is known to hold
none; of everything else the class is told, and the traceback, whose lines are our program's own text.
"""

import asyncio
import traceback
from typing import Final

import asyncpg
from pydantic import ValidationError

CHAINED_MAX: Final = 8
CHARS_MAX: Final = 2_000
_OURS: Final = ("engine.", "actors.", "integrations.", "web.")

# SQLSTATE classes whose messages speak of the server, not of rows: connection, authorization, transaction
# state, rolled back, resources, object state, operator, system.
_OF_THE_SERVER: Final = ("08", "25", "28", "40", "53", "55", "57", "58", "XX")

# Python's own whose messages name types, attributes or modules; not ValueError, KeyError, LookupError,
# UnicodeError or AssertionError, which repeat what they were given.
_OF_THE_PROGRAM: Final = (
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    RecursionError,
    MemoryError,
    TimeoutError,
    ZeroDivisionError,
    OverflowError,
    NotImplementedError,
    asyncio.CancelledError,
)
_OF_MACHINERY: Final = ("ray.", "asyncio.", "aiohttp.client")
"""What these raise as a plain RuntimeError or Exception is about processes, loops and sessions."""


def words_of(error: BaseException) -> str:
    """One line: the class, and as much of the message as holds no values."""
    kind = type(error)
    name = kind.__qualname__
    if isinstance(error, asyncpg.PostgresError):
        return _of_postgres(error)
    if isinstance(error, ValidationError):
        # Not the places either: of a body with unknown members they are the client's own words.
        found = sorted({fault["type"] for fault in error.errors(include_input=False, include_url=False)})
        return f"{name}: {error.error_count()} faults: {', '.join(found)}"
    if isinstance(error, BaseExceptionGroup):
        return f"{name}: {'; '.join(words_of(each) for each in error.exceptions[:CHAINED_MAX])}"
    if kind.__module__.startswith(_OURS):
        return _with(name, str(error))
    if kind.__module__.startswith("ray."):  # the text of one is the whole failure of another process
        cause = getattr(error, "cause", None)
        return f"{name}: {words_of(cause)}" if isinstance(cause, BaseException) else name
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return _with(name, str(error))
    if isinstance(error, OSError) and kind.__module__ in ("builtins", "socket", "ssl"):
        return _with(name, error.strerror or "")
    if kind.__module__ == "builtins" and isinstance(error, _OF_THE_PROGRAM):
        return _with(name, str(error))
    if kind in (Exception, RuntimeError) and _raised_in(error).startswith(_OF_MACHINERY):
        return _with(name, str(error))
    return name


def _raised_in(error: BaseException) -> str:
    """The module whose line raised it; "" where that is not known."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else str(at.tb_frame.f_globals.get("__name__", ""))


def traceback_of(error: BaseException) -> str:
    """Like Python's, with causes, and with `words_of` where messages stand."""
    chain: list[BaseException] = []
    link: str | None = None
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and current not in chain and len(chain) < CHAINED_MAX:
        chain.append(current)
        told = f"{''.join(traceback.format_tb(current.__traceback__))}{words_of(current)}"
        parts.append(told if link is None else f"{told}\n{link}")
        if current.__cause__ is not None:
            link, current = "which caused:", current.__cause__
        elif current.__context__ is not None and not current.__suppress_context__:
            link, current = "during which came:", current.__context__
        else:
            current = None
    return "\n".join(reversed(parts))


def _of_postgres(error: asyncpg.PostgresError) -> str:
    state = str(getattr(error, "sqlstate", None) or "")
    told = [f"{type(error).__qualname__}: SQLSTATE {state}"]
    if state.startswith(_OF_THE_SERVER):
        told.append(str(getattr(error, "message", "") or "")[:CHARS_MAX])
    for label in ("schema_name", "table_name", "column_name", "data_type_name", "constraint_name"):
        value = getattr(error, label, None)
        if value:
            told.append(f"{label.removesuffix('_name')} {value}")
    return ", ".join(told)


def _with(name: str, message: str) -> str:
    return f"{name}: {message[:CHARS_MAX]}" if message else name
