"""The bytes of a row that are hashed: the same whether PostgreSQL makes them or this program.

They are those of PostgreSQL's own `record_send`: the number of fields, then of each its type, its length and
its binary form (-1: null). No setting of a session changes them, and no two rows have the same. The notary
has PostgreSQL make and hash them, so that nothing but a hash leaves it; whoever verifies makes them here
from what the columns say, so that a row is judged by what its reader sees.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

_BIGINT, _INT, _SMALLINT, _TEXT, _BYTEA, _TIME, _UUID = 20, 23, 21, 25, 17, 1184, 2950
_BEGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_ENTRY: Final = (
    ("id", "id", _BIGINT),
    ("xid", "xid::text::bigint", _BIGINT),
    ("at", "at", _TIME),
    ("action", "action", _TEXT),
    ("by_kind", "by_kind", _TEXT),
    ("by_id", "by_id", _UUID),
    ("by_name", "by_name", _TEXT),
    ("subjects", "subjects::text", _TEXT),
    ("object_kind", "object_kind", _TEXT),
    ("object_id", "object_id", _TEXT),
    ("outcome", "outcome", _TEXT),
    ("reason", "reason", _TEXT),
    ("request_id", "request_id", _TEXT),
    ("address", "address", _TEXT),
    ("gateway", "gateway", _TEXT),
    ("detail", "detail::text", _TEXT),
)
_EVENT: Final = (
    ("shard", "shard", _INT),
    ("seq", "seq", _BIGINT),
    ("stream", "stream", _TEXT),
    ("version", "version", _INT),
    ("type", "type", _SMALLINT),
    ("at", "at", _TIME),
    ("data", "data", _BYTEA),
)
ENTRY_NAMES: Final = tuple(name for name, _, _ in _ENTRY)
EVENT_NAMES: Final = tuple(name for name, _, _ in _EVENT)
ENTRY_COLUMNS: Final = ", ".join(f"{sql} as {name}" for name, sql, _ in _ENTRY)
EVENT_COLUMNS: Final = ", ".join(sql for _, sql, _ in _EVENT)
ENTRY_BYTES: Final = f"record_send(row({', '.join(sql for _, sql, _ in _ENTRY)}))"
EVENT_BYTES: Final = f"record_send(row({EVENT_COLUMNS}))"

_PACKED: Final = {
    _BIGINT: struct.Struct(">Iiq"),
    _INT: struct.Struct(">Iii"),
    _SMALLINT: struct.Struct(">Iih"),
}
_HEAD: Final = struct.Struct(">Ii")
_SIZE: Final = {_BIGINT: 8, _INT: 4, _SMALLINT: 2}
_COUNT: Final = struct.Struct(">i")
_ENTRY_TYPES: Final = tuple(kind for _, _, kind in _ENTRY)
_EVENT_TYPES: Final = tuple(kind for _, _, kind in _EVENT)


def entry_bytes(row: Sequence[Any]) -> bytes:
    """`row` has ENTRY_NAMES in their order."""
    return _bytes(_ENTRY_TYPES, row)


def event_bytes(row: Sequence[Any]) -> bytes:
    """`row` has EVENT_NAMES in their order."""
    return _bytes(_EVENT_TYPES, row)


def _bytes(types: tuple[int, ...], row: Sequence[Any]) -> bytes:
    parts = [_COUNT.pack(len(types))]
    for kind, value in zip(types, row, strict=True):
        if value is None:
            parts.append(_HEAD.pack(kind, -1))
            continue
        if kind == _TIME:
            parts.append(struct.pack(">Iiq", kind, 8, (value - _BEGIN) // _MICROSECOND))
            continue
        packed = _PACKED.get(kind)
        if packed is not None:
            parts.append(packed.pack(kind, _SIZE[kind], value))
            continue
        if kind == _TEXT:
            value = value.encode()
        elif kind == _UUID:
            value = value.bytes if isinstance(value, UUID) else value
        parts += (_HEAD.pack(kind, len(value)), value)
    return b"".join(parts)
