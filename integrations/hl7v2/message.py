"""One HL7 v2 message: read strictly, built safely. Pure, and total on any bytes.

    message = parse(raw)                        # raises Malformed, with where
    message.kind                                # ("SIU", "S12")
    message.first("PID").text(5, 1)             # PID-5.1 of the first repetition, its escapes undone
    for obx in message.all("OBX"): ...
    for one in message.groups("SCH"): ...       # from each SCH up to the next

    raw = compose(Header(...), [("PID", {3: [(number, "", "", "HIS", "MR")], 5: ((name,),)})])

A value is a text, a tuple of components (each a text, or a tuple of subcomponents), or a list of such, which
repeat. Positions are HL7's own, from 1.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from integrations.hl7v2 import charset as charsets
from integrations.hl7v2.escapes import (
    COMPONENT,
    ENCODING,
    FIELD,
    NULL,
    REPETITION,
    SUB,
    escaped,
    unescaped,
)
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.times import stamp

SEGMENTS_MAX: Final = 20_000
FIELDS_MAX: Final = 400  # of a segment; HL7's longest has under 60
CONTROL_ID: Final = re.compile(r"[!-{}~]{1,199}")
"""Printable, without separators of ours: it is sent back as it came. HL7 allows 199 characters since 2.7."""
_NAME: Final = re.compile(r"[A-Z][A-Z0-9]{2}")
_SEPARATORS: Final = frozenset("!#$%&*+,./:;<=>?@\\^_`{|}~")

Component = str | tuple[str, ...]
One = str | tuple[Component, ...]
Value = One | list[One]
Row = tuple[str, Mapping[int, Value]]


@dataclass(frozen=True, slots=True)
class Segment:
    """`fields[n]` is field n as it was written; `fields[0]` the segment's name."""

    name: str
    fields: tuple[str, ...]
    encoding: str
    charset: str

    def raw(self, field: int) -> str:
        return self.fields[field] if 0 <= field < len(self.fields) else ""

    def count(self, field: int) -> int:
        """Of its repetitions; 0 of an empty one."""
        raw = self.raw(field)
        return len(raw.split(self.encoding[2])) if raw else 0

    def text(self, field: int, component: int = 1, sub: int = 1, repetition: int = 1) -> str:
        """ "" where there is none, or where the sender says that there is none. Raises Malformed."""
        raw = self.raw(field)
        for separator, which in (
            (self.encoding[2], repetition),
            (self.encoding[1], component),
            (self.encoding[4], sub),
        ):
            parts = raw.split(separator, which)
            raw = parts[which - 1] if which <= len(parts) else ""
        where = f"{self.name}-{field}.{component}"
        return "" if raw == NULL else unescaped(raw, self.encoding, self.charset, where)

    def is_null(self, field: int) -> bool:
        return self.raw(field) == NULL

    def plain(self, field: int) -> str:
        """A whole field as one text: for text fields of senders that do not escape their separators."""
        raw = self.raw(field)
        return "" if raw == NULL else unescaped(raw, self.encoding, self.charset, f"{self.name}-{field}")


@dataclass(frozen=True, slots=True)
class Message:
    segments: tuple[Segment, ...]
    charset: str

    @property
    def header(self) -> Segment:
        return self.segments[0]

    @property
    def kind(self) -> tuple[str, str]:
        """Type and trigger: ("SIU", "S12")."""
        return self.header.text(9, 1), self.header.text(9, 2)

    @property
    def control_id(self) -> str:
        return self.header.text(10)

    @property
    def version(self) -> str:
        return self.header.text(12)

    @property
    def receiving(self) -> tuple[str, str]:
        """Application and facility that it is for."""
        return self.header.text(5), self.header.text(6)

    @property
    def sending(self) -> tuple[str, str]:
        return self.header.text(3), self.header.text(4)

    def find(self, name: str) -> Segment | None:
        return next((one for one in self.segments if one.name == name), None)

    def first(self, name: str) -> Segment:
        """Raises Malformed where there is none."""
        found = self.find(name)
        if found is None:
            raise Malformed(name, "missing", "a segment that is missing")
        return found

    def all(self, name: str) -> Iterator[Segment]:
        return (one for one in self.segments if one.name == name)

    def groups(self, name: str) -> list["Message"]:
        """Each with the header, from one segment of this name up to the next of it."""
        starts = [at for at, one in enumerate(self.segments) if one.name == name]
        return [
            Message((self.header, *self.segments[start:end]), self.charset)
            for start, end in pairwise([*starts, len(self.segments)])
        ]


@dataclass(frozen=True, slots=True)
class Header:
    """MSH of what we say. `accept` and `application`: the acknowledgements wanted; both "": original mode."""

    sending: tuple[str, str]
    receiving: tuple[str, str]
    kind: tuple[str, str, str]  # type, trigger, structure
    control_id: str
    at: datetime
    version: str = "2.5.1"
    charset: str = charsets.UTF8
    processing: str = "P"
    accept: str = ""
    application: str = ""


def parse(raw: bytes, default: str = charsets.UTF8) -> Message:
    """`default`: the charset where MSH-18 says none. Raises Malformed, and nothing else, of any bytes."""
    text, charset = charsets.decoded(raw, default)
    encoding = _encoding(text)
    segments: list[Segment] = []
    for number, line in enumerate(_lines(text), 1):
        if number > SEGMENTS_MAX:
            raise Malformed(f"segment {number}", "too_many")
        fields = line.split(encoding[0], FIELDS_MAX + 1)
        name = fields[0]
        if _NAME.fullmatch(name) is None:
            raise Malformed(f"segment {number}", "segment", "what begins no segment")
        if len(fields) > FIELDS_MAX:
            raise Malformed(name, "too_many")
        if name == "MSH":
            if number > 1:
                raise Malformed(f"segment {number}", "segment", "a second MSH")
            fields.insert(1, encoding[0])
        segments.append(Segment(name, tuple(fields), encoding, charset))
    message = Message(tuple(segments), charset)
    if not all(message.kind[:1]):
        raise Malformed("MSH-9", "missing")
    if CONTROL_ID.fullmatch(message.control_id) is None:
        raise Malformed("MSH-10", "missing", "no control id that could be answered")
    return message


def header_of(raw: bytes) -> Segment | None:
    """As much of MSH as can be made out of something malformed, to answer it. None: nothing."""
    first = raw[:4096].split(b"\r", 1)[0].split(b"\n", 1)[0].decode("utf-8", "replace")
    try:
        encoding = _encoding(first)
    except Malformed:
        return None
    fields = first.split(encoding[0], FIELDS_MAX)
    return Segment("MSH", (fields[0], encoding[0], *fields[1:]), encoding, charsets.UTF8)


def compose(header: Header, rows: Iterable[Row]) -> bytes:
    """Raises ValueError where a text cannot be written in the charset, or a segment has no fit name."""
    msh: Row = (
        "MSH",
        {
            3: header.sending[0],
            4: header.sending[1],
            5: header.receiving[0],
            6: header.receiving[1],
            7: stamp(header.at),
            9: header.kind,
            10: header.control_id,
            11: header.processing,
            12: header.version,
            15: header.accept,
            16: header.application,
            18: charsets.DECLARED[header.charset],
        },
    )
    lines = [_line(row, header.charset) for row in (msh, *rows)]
    return ("\r".join(lines) + "\r").encode(header.charset)


def _line(row: Row, charset: str) -> str:
    name, values = row
    if _NAME.fullmatch(name) is None:
        raise ValueError("a segment's name")
    fields = [""] * (max(values, default=0) + 1)
    for position, value in values.items():
        fields[position] = _field(value, charset)
    fields[0] = name
    if name == "MSH":
        # MSH-1 is the separator itself, so it stands between the name and MSH-2 already.
        fields[1:3] = [ENCODING]
    while len(fields) > 1 and not fields[-1]:
        fields.pop()
    return FIELD.join(fields)


def _field(value: Value, charset: str) -> str:
    if isinstance(value, list):
        return REPETITION.join(_one(one, charset) for one in value)
    return _one(value, charset)


def _one(value: One, charset: str) -> str:
    if isinstance(value, str):
        return escaped(value, charset)
    return _joined(
        [
            escaped(part, charset)
            if isinstance(part, str)
            else _joined([escaped(sub, charset) for sub in part], SUB)
            for part in value
        ],
        COMPONENT,
    )


def _joined(parts: Sequence[str], separator: str) -> str:
    return separator.join(parts).rstrip(separator)


def _encoding(text: str) -> str:
    """MSH-1 and MSH-2: five or six characters, no two alike."""
    if not text.startswith("MSH"):
        raise Malformed("segment 1", "segment", "it does not begin with MSH")
    separator = text[3:4]
    second = text[4:].split(separator, 1)[0] if separator else ""
    encoding = separator + second
    if len(encoding) not in (5, 6) or len(set(encoding)) < len(encoding) or not set(encoding) <= _SEPARATORS:
        raise Malformed("MSH-2", "separators")
    return encoding


def _lines(text: str) -> list[str]:
    """A carriage return ends a segment; also with a line feed behind it; a line feed alone, where it is the
    only line end of the whole message. Mixed, one of them would be content, and nobody could say which."""
    if "\n" in text:
        text = text.replace("\r\n", "\r") if "\r" in text else text.replace("\n", "\r")
        if "\n" in text:
            raise Malformed("message", "line_end", "line ends of two kinds")
    return [line for line in text.split("\r") if line]
