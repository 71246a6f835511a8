"""Entries as lines of a file: CSV for a spreadsheet, JSON lines for a program.

A spreadsheet takes a cell that begins with = + - @ (or a tab, or a line end) for a formula, and a formula can
send what stands beside it to somebody else. Such a cell gets an apostrophe in front: it is shown as text.
"""

import csv
import io
from datetime import UTC
from typing import Final
from uuid import UUID

import orjson

from engine.audit.search import Line

NAMES: Final = (
    "id",
    "at",
    "action",
    "by_kind",
    "by_id",
    "by_name",
    "subjects",
    "object_kind",
    "object_id",
    "outcome",
    "reason",
    "request_id",
    "address",
    "gateway",
    "detail",
)
HEADER: Final = "\ufeff" + ",".join(NAMES) + "\r\n"
"""With the mark by which spreadsheets know UTF-8."""
_BEGINS_A_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def plain(line: Line) -> dict[str, object]:
    return {
        "id": line.id,
        "at": line.at.astimezone(UTC).isoformat(),
        "action": line.action,
        "by_kind": line.by_kind,
        "by_id": None if line.by_id is None else str(UUID(bytes=line.by_id)),
        "by_name": line.by_name,
        "subjects": [str(UUID(bytes=one)) for one in line.subjects],
        "object_kind": line.object_kind,
        "object_id": line.object_id,
        "outcome": line.outcome,
        "reason": line.reason,
        "request_id": line.request_id,
        "address": line.address,
        "gateway": line.gateway,
        "detail": line.detail,
    }


def as_json(line: Line) -> str:
    return orjson.dumps(plain(line)).decode() + "\n"


def as_csv(line: Line) -> str:
    cells = []
    for value in plain(line).values():
        if value is None:
            cells.append("")
        elif isinstance(value, list):
            cells.append(" ".join(value))
        elif isinstance(value, dict):
            cells.append(cell(orjson.dumps(value).decode()))
        else:
            cells.append(cell(value) if isinstance(value, str) else str(value))
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


def cell(text: str) -> str:
    """What a spreadsheet shows as it is."""
    return (
        f"'{text}"
        if text.startswith(_BEGINS_A_FORMULA) or text.lstrip(" ").startswith(_BEGINS_A_FORMULA)
        else text
    )
