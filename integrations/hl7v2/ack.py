"""What a receiver answers: AA, AE, AR (CA, CE, CR in enhanced mode), with the reason in ERR. Pure.

    ack(message, "AA")                        # one answer, original mode
    answers(message, "AE", Trouble(...))      # what MSH-15 and MSH-16 want: none, a commit, an answer, both
    refusal(raw, "AR", Trouble(...))          # of what could not be read: whatever of its header could be

AE: understood, and wrong in its content. AR: not to be processed at all: malformed, another hospital's, of a
kind that is not taken here; or we cannot now. A sender may send again after either.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Final

from integrations.hl7v2 import charset as charsets
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import CONTROL_ID, Header, Message, Row, Segment, compose, header_of

ACCEPTED, ERROR, REJECTED = "AA", "AE", "AR"

# HL7 table 0357.
SEGMENT, REQUIRED, TYPE, TABLE = "100", "101", "102", "103"
UNSUPPORTED_KIND, UNKNOWN_KEY, DUPLICATE, INTERNAL = "200", "204", "205", "207"
_WORDS: Final = {
    SEGMENT: "Segment sequence error",
    REQUIRED: "Required field missing",
    TYPE: "Data type error",
    TABLE: "Table value not found",
    UNSUPPORTED_KIND: "Unsupported message type",
    UNKNOWN_KEY: "Unknown key identifier",
    DUPLICATE: "Duplicate key identifier",
    INTERNAL: "Application internal error",
}
_OF_MALFORMED: Final = {"missing": REQUIRED, "time": TYPE, "date": TYPE, "code": TABLE, "charset": TYPE}
_TEXT_MAX: Final = 200
_started = datetime.now(UTC)
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why not. `where` as Malformed has it; `text` names no value of the message."""

    code: str
    text: str
    where: str = ""


def trouble_of(malformed: Malformed) -> Trouble:
    return Trouble(_OF_MALFORMED.get(malformed.why, SEGMENT), malformed.text, malformed.where)


def ack(message: Message, code: str, trouble: Trouble | None = None, rows: tuple[Row, ...] = ()) -> bytes:
    """`rows` follow MSA: the data of an answer to a query."""
    return _answer(message.header, message.charset, code, trouble, rows)


def answers(message: Message, code: str, trouble: Trouble | None = None) -> tuple[bytes, ...]:
    accept, application = message.header.text(15), message.header.text(16)
    if not accept and not application:
        return (ack(message, code, trouble),)
    wanted = []
    if _is_wanted(accept, code):
        wanted.append(ack(message, "C" + code[1], trouble))
    if _is_wanted(application, code):
        wanted.append(ack(message, code, trouble))
    return tuple(wanted)


def refusal(raw: bytes, code: str, trouble: Trouble) -> bytes:
    return _answer(header_of(raw), charsets.UTF8, code, trouble, ())


def is_answer(raw: bytes) -> bool:
    """Whether this is an acknowledgement itself, well-formed or not."""
    header, _, rest = raw.partition(b"\r")
    return header.startswith(b"MSH") and (rest.lstrip(b"\n").startswith(b"MSA") or b"|ACK" in header)


def _is_wanted(when: str, code: str) -> bool:
    return when == "AL" or (when == "ER" and code != ACCEPTED) or (when == "SU" and code == ACCEPTED)


def _answer(
    header: Segment | None, charset: str, code: str, trouble: Trouble | None, rows: tuple[Row, ...]
) -> bytes:
    now = datetime.now(UTC)
    control_id = _echo(header, 10)
    kind, trigger = _echo(header, 9), _echo(header, 9, 2)
    said = Header(
        (_echo(header, 5), _echo(header, 6)),
        (_echo(header, 3), _echo(header, 4)),
        ("ACK", trigger, "ACK") if not rows else _answer_kind(kind, trigger),
        f"{_started:%m%d%H%M%S}{next(_numbers)}",
        now,
        version=_echo(header, 12) or "2.5.1",
        charset=charset if charset in charsets.DECLARED else charsets.UTF8,
        processing=_echo(header, 11) or "P",
    )
    msa: Row = ("MSA", {1: code, 2: control_id if CONTROL_ID.fullmatch(control_id) else ""})
    err: tuple[Row, ...] = ()
    if trouble is not None:
        err = (
            (
                "ERR",
                {
                    2: _location(trouble.where),
                    3: (trouble.code, _WORDS.get(trouble.code, ""), "HL70357"),
                    4: "E",
                    8: trouble.text[:_TEXT_MAX],
                },
            ),
        )
    try:
        return compose(said, (msa, *err, *rows))
    except ValueError:
        # A charset of theirs that our own words or their names do not fit in.
        plain = Header(("", ""), ("", ""), said.kind, said.control_id, now, version=said.version)
        return compose(plain, (msa, *err, *rows))


def _answer_kind(kind: str, trigger: str) -> tuple[str, str, str]:
    """Of an answer with data: SQM^S25 is answered by SQR^S25, QBP^Q22 by RSP^K22, SRM^S01 by SRR^S01."""
    named = {"SQM": "SQR", "SRM": "SRR", "QBP": "RSP", "MFQ": "MFR"}.get(kind, "ACK")
    answered = "K" + trigger[1:] if named == "RSP" else trigger
    structure = {"SRR": "SRR_S01", "RSP": "RSP_K21"}.get(named, f"{named}_{answered}")
    return named, answered, structure


def _echo(header: Segment | None, field: int, component: int = 1) -> str:
    """What is sent back as it came, if it can be read and is short."""
    if header is None:
        return ""
    try:
        return header.text(field, component)[:199].replace("\N{REPLACEMENT CHARACTER}", "?")
    except Malformed:
        return ""


def _location(where: str) -> tuple[str, ...]:
    """PID-5.1 as HL7 writes it: segment, its number, field, repetition, component."""
    segment, _, rest = where.partition("-")
    field, _, component = rest.partition(".")
    if len(segment) != 3 or not field.isdigit():
        return (segment[:20] if len(segment) == 3 else "",)
    return (segment, "1", field, "1", component) if component.isdigit() else (segment, "1", field)
