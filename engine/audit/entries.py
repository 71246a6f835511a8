"""One line of the audit: who did or read what, when, and whose data it was.

An entry is written in the transaction of what it tells of: both are, or neither. It holds ids, never names,
numbers, telephones or words of patients: whoever may search the audit has not thereby read a record.

What comes from outside (reasons, request ids, addresses) is cleaned first: no line of a log or of an export
can be made to look like two, and digits long enough to be an identity number or a telephone are masked.
"""

import getpass
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol
from uuid import UUID

import orjson

SUBJECTS_MAX: Final = 5_000  # of one entry; more become several
REASON_CHARS_MAX: Final = 500
WORD_CHARS_MAX: Final = 200  # of each other text
DETAIL_BYTES_MAX: Final = 4_000

ACTION: Final = re.compile(r"[a-z][a-z0-9_]{2,47}")
_NUMBER: Final = re.compile(
    r"(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f]))|\d{11,}[Xx]?"
)
_INVISIBLE: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))

Kind = Literal["staff", "account", "operator", "system", "nobody", "partner"]
Outcome = Literal["done", "refused", "failed"]


class Executor(Protocol):
    """A connection of asyncpg, or a pool."""

    async def execute(self, query: str, *arguments: Any) -> Any: ...

    async def fetch(self, query: str, *arguments: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Actor:
    """Who it was. `id` is of staff, account or partner (16 bytes); `name` the user name of staff or of the
    machine, or a partner's."""

    kind: Kind
    id: bytes | None = None
    name: str | None = None


SYSTEM: Final = Actor("system")
"""A round of ours: nobody asked."""
NOBODY: Final = Actor("nobody")
"""Somebody who has not signed in, or could not."""


def operator() -> Actor:
    """Whoever runs a command at the machine."""
    try:
        return Actor("operator", name=getpass.getuser())
    except (KeyError, OSError):
        return Actor("operator")


@dataclass(frozen=True, slots=True)
class Entry:
    action: str  # past tense, as staff_disabled; a reading's ends in _read
    by: Actor
    subjects: Sequence[bytes | UUID] = ()  # patients
    object: tuple[str, str] | None = None  # kind and id
    outcome: Outcome = "done"
    reason: str | None = None
    request_id: str | None = None
    address: str | None = None
    gateway: str | None = None
    detail: Mapping[str, Any] | None = None


_INSERT: Final = """
insert into audit_entry (action, by_kind, by_id, by_name, subjects, object_kind, object_id, outcome, reason,
                         request_id, address, gateway, detail)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"""


async def write(connection: Executor, entry: Entry) -> None:
    """Call it within the transaction of what it tells of. With a pool, it is a transaction by itself.

    Raises ValueError for an action that is no word of the audit: a mistake in the program.
    """
    for row in _rows(entry):
        await connection.execute(_INSERT, *row)


def cleaned(text: str, chars_max: int = WORD_CHARS_MAX) -> str:
    """Without what a line cannot show: control characters, line ends of all kinds, what turns the direction
    of writing, half characters. Each becomes a space; what is longer is cut."""
    shown = "".join(" " if unicodedata.category(one) in _INVISIBLE else one for one in text[: 4 * chars_max])
    return " ".join(shown.split())[:chars_max]


def without_numbers(text: str) -> str:
    """Identity numbers and telephones that somebody typed into a reason: their last two digits stay."""
    return _NUMBER.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    """Ids of ours stay whole."""
    said = found[0]
    return said if found["id"] is not None else "•" * (len(said) - 2) + said[-2:]


def _rows(entry: Entry) -> Iterator[tuple[Any, ...]]:
    if not ACTION.fullmatch(entry.action):
        raise ValueError(f"no action of the audit is called {entry.action!r}")
    kind, of = entry.object if entry.object is not None else (None, None)
    ids = (one if isinstance(one, UUID) else UUID(bytes=one) for one in entry.subjects)
    subjects = list(dict.fromkeys(ids))
    by = entry.by
    for start in range(0, max(1, len(subjects)), SUBJECTS_MAX):
        yield (
            entry.action,
            by.kind,
            None if by.id is None else UUID(bytes=by.id),
            _word(by.name),
            subjects[start : start + SUBJECTS_MAX],
            _word(kind),
            _word(of),
            entry.outcome,
            None if entry.reason is None else without_numbers(cleaned(entry.reason, REASON_CHARS_MAX)),
            _word(entry.request_id),
            _word(entry.address),
            _word(entry.gateway),
            None if entry.detail is None else _json(entry.detail),
        )


def _word(text: str | None) -> str | None:
    return None if text is None else cleaned(text)


def _json(detail: Mapping[str, Any]) -> str:
    said = orjson.dumps(_plain(detail))
    if len(said) > DETAIL_BYTES_MAX:
        said = orjson.dumps({"left_out_bytes": len(said)})
    return said.decode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return without_numbers(cleaned(value))
    if isinstance(value, Mapping):
        return {cleaned(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return without_numbers(cleaned(str(value)))
