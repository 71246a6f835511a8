"""Logs are JSON lines without values: whatever is raised, and whatever a client typed."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import orjson
import pytest
from pydantic import BaseModel, ValidationError

from engine import logs
from engine.log_words import traceback_of, words_of

CANARY = "张三丰-11010119900307803X-canary"


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, io.StringIO, io.StringIO]]:
    """A logger of this test's own, and what it wrote as JSON and as text."""
    log = logging.getLogger("tests.logs")
    as_json, as_text = io.StringIO(), io.StringIO()
    handlers = [logging.StreamHandler(as_json), logging.StreamHandler(as_text)]
    handlers[0].setFormatter(logs.JsonLines("gateway-7"))
    handlers[1].setFormatter(logs.TextLines())
    log.handlers, log.propagate, log.level = list(handlers), False, logging.DEBUG
    yield log, as_json, as_text
    log.handlers, log.propagate = [], True


class Person(BaseModel):
    age: int


def _postgres(sqlstate: str, message: str, **fields: str) -> asyncpg.PostgresError:
    told = {"C": sqlstate, "M": message, **fields}
    return asyncpg.PostgresError.new(told)


def _bad_body() -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        Person.model_validate({"age": CANARY, CANARY: 1})
    return raised.value


def _raised(kind: type[BaseException], text: str) -> BaseException:
    try:
        raise kind(text)
    except BaseException as error:
        return error


def _json_error() -> BaseException:
    try:
        json.loads('{"name": ' + CANARY)
    except ValueError as error:
        return error
    raise AssertionError


def _unicode_error() -> BaseException:
    try:
        (CANARY + "\ud800").encode()
    except UnicodeError as error:
        return error
    raise AssertionError


def _uuid_error() -> BaseException:
    try:
        {UUID(int=0): 1}[CANARY]  # type: ignore[index]
    except KeyError as error:
        return error
    raise AssertionError


KINDS: dict[str, BaseException] = {
    "a row that is there twice": _postgres(
        "23505",
        'duplicate key value violates unique constraint "patient_pkey"',
        D=f"Key (name)=({CANARY}) already exists.",
        n="patient_pkey",
        t="patient",
    ),
    "a cast in the database": _postgres("22P02", f'invalid input syntax for type uuid: "{CANARY}"'),
    "a check of the schema": _postgres(
        "23514", "new row violates check", D=f"Failing row contains ({CANARY})."
    ),
    "raised in a function": _postgres("P0001", CANARY),
    "an argument of a query": asyncpg.DataError(f"invalid input for query argument $1: '{CANARY}'"),
    "a body": _bad_body(),
    "JSON": _json_error(),
    "bytes": _unicode_error(),
    "a key": _uuid_error(),
    "a value": _raised(ValueError, CANARY),
    "an assertion": _raised(AssertionError, CANARY),
    "a class that nobody here knows": _raised(type("Strange", (Exception,), {}), CANARY),
    "several at once": ExceptionGroup(CANARY, [ValueError(CANARY), KeyError(CANARY)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_exception_tells_its_values(kind: str, written: tuple[logging.Logger, io.StringIO, io.StringIO]):
    log, as_json, as_text = written
    error = KINDS[kind]
    log.error("it failed", exc_info=error)
    log.warning("it failed: %s", error)
    log.warning("it failed: %(why)s", {"why": error})
    log.error(error)
    for output in (as_json.getvalue(), as_text.getvalue()):
        assert "failed" in output
        assert "canary" not in output
        assert "11010119900307803X" not in output


def test_causes_and_contexts_are_worded_too():
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as first:
            raise KeyError(CANARY) from first
    except KeyError as second:
        try:
            raise RuntimeError(CANARY)
        except RuntimeError as error:
            error.__context__ = second
            error.add_note(CANARY)
            told = traceback_of(error)
    assert "canary" not in told
    assert [word for word in ("ValueError", "KeyError", "RuntimeError") if word in told] == [
        "ValueError",
        "KeyError",
        "RuntimeError",
    ]
    assert "test_logs.py" in told, "where it failed is kept"


def test_what_helps_and_holds_nothing_is_kept():
    duplicate = words_of(KINDS["a row that is there twice"])
    assert "23505" in duplicate and "patient_pkey" in duplicate and "table patient" in duplicate
    assert "terminating connection" in words_of(_postgres("57P01", "terminating connection due to command"))
    assert "Connection refused" in words_of(ConnectionRefusedError(111, "Connection refused"))
    assert "no attribute" in words_of(AttributeError("'NoneType' object has no attribute 'x'"))
    assert "missing" in words_of(
        ValidationError.from_exception_data("P", [{"type": "missing", "loc": ("a",)}])
    )


def test_machinery_may_speak_and_nothing_else_may():
    """A bare RuntimeError is told where processes and loops raise it, not where our own lines do."""

    async def twice() -> None:
        asyncio.run(asyncio.sleep(0))

    with warnings.catch_warnings(), pytest.raises(RuntimeError) as raised:
        warnings.simplefilter("ignore")  # the inner one is never awaited
        asyncio.run(twice())
    assert "cannot be called from a running event loop" in words_of(raised.value)
    assert words_of(_raised(RuntimeError, CANARY)) == "RuntimeError"


INJECTED = [
    'evil\r\n{"ts":"2026-01-01","level":"INFO","message":"all is well"}',
    "evil\n2026-01-01T00:00:00.000Z 1 INFO audit: all is well",
    "evil\x1b[2K\x1b[1A erased",
    "evil\u2028next\u2029next\x85next\x0bnext\x0cnext",
    "evil\u202etxet\u2066",
    "evil\x00\x08\x7f",
    "evil\ud800 alone",
]


@pytest.mark.parametrize("text", INJECTED)
def test_nobody_begins_a_line_of_their_own(
    text: str, written: tuple[logging.Logger, io.StringIO, io.StringIO]
):
    log, as_json, as_text = written
    log.warning("they sent %s", text)
    for output in (as_json.getvalue(), as_text.getvalue()):
        line, end = output[:-1], output[-1]
        assert end == "\n" and len(line.splitlines()) == 1
        assert not [c for c in line if ord(c) < 32 or c in "\x7f\x85\u2028\u2029\u202e\u2066\x1b"]
    assert orjson.loads(as_json.getvalue())["message"].startswith("they sent evil")


def test_a_line_says_when_where_and_for_which_request(
    written: tuple[logging.Logger, io.StringIO, io.StringIO],
):
    log, as_json, _ = written
    token = logs.REQUEST_ID.set("ab" * 16)
    log.error("seat %d of %s", 5, "D0001", exc_info=_raised(TypeError, "no"))
    logs.REQUEST_ID.reset(token)
    log.info("later")
    first, second = map(orjson.loads, as_json.getvalue().splitlines())
    assert first["message"] == "seat 5 of D0001"
    assert first["process"] == "gateway-7" and first["level"] == "ERROR" and first["logger"] == "tests.logs"
    assert first["ts"].endswith("Z") and first["request_id"] == "ab" * 16
    assert first["error"].endswith("TypeError: no")
    assert "request_id" not in second


def test_asyncio_tells_of_a_forgotten_task_without_its_repr(
    written: tuple[logging.Logger, io.StringIO, io.StringIO],
):
    _, as_json, _ = written
    record = logging.LogRecord(
        "asyncio",
        logging.ERROR,
        "",
        0,
        f"Task exception was never retrieved\nfuture: <Task exception=ValueError('{CANARY}')>",
        (),
        None,
    )
    told = logs.JsonLines("p").format(record)
    assert "never retrieved" in told and "canary" not in told


def test_arguments_that_do_not_fit_are_not_told(capsys: pytest.CaptureFixture[str]):
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%d seats", (CANARY,), None)
    assert "canary" not in logs.JsonLines("p").format(record)
    assert "canary" not in capsys.readouterr().err


def test_what_nobody_caught_is_worded_and_files_are_json(tmp_path: Path):
    """In a process of its own: its hooks are the interpreter's."""
    program = f"""
import threading
from pathlib import Path
from engine import logs
logs.configure("INFO", Path({str(tmp_path / "one.log")!r}), "one")
class Unraisable:
    def __del__(self): raise ValueError({CANARY!r})
u = Unraisable(); del u
t = threading.Thread(target=lambda: int({CANARY!r})); t.start(); t.join()
raise KeyError({CANARY!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    lines = [orjson.loads(line) for line in (tmp_path / "one.log").read_text().splitlines()]
    kinds = [line["error"].rsplit("\n", 1)[-1] for line in lines]
    assert kinds == ["ValueError", "ValueError", "KeyError"]
    assert {line["process"] for line in lines} == {"one"}
    assert "KeyError" in done.stderr and "canary" not in done.stderr + done.stdout
