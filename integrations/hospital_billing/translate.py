"""What the billing says, in our words, and what we tell it. Pure, and strict: money that does not add up, of
another currency or below nothing, and bills of somebody else, are refused and not mended.

docs/HOSPITAL_BILLING.md has the wire. Times are int milliseconds since the epoch inside, RFC 3339 outside.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Final

from engine.domain.hospital_orders import NUMBER_FORMAT, REVISION_MAX, bill_id_of, order_of
from engine.domain.limits import BILL_FEN_MAX, BILL_LINES_MAX
from engine.domain.payment import CURRENCY
from engine.domain.price_rules import Kind, Line
from engine.records.identity import IdType

VERSION: Final = 1
"""Of the wire. Another one is not read."""
KINDS: Final = {
    IdType.RESIDENT_ID: "01",
    IdType.PASSPORT: "03",
    IdType.HK_MACAU_PERMIT: "06",
    IdType.TAIWAN_PERMIT: "07",
    IdType.FOREIGN_PERMANENT: "99",
}
"""Papers, as WS 364.3 (CV02.01.101) numbers them."""
BILLS_MAX: Final = 100
"""Of one patient at one time."""
QUANTITY_MAX: Final = 100_000
NAME_CHARS_MAX: Final = 200
TEXT_CHARS_MAX: Final = 64
TOLD_MAX: Final = 1_000

_LINE: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}", re.ASCII)
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{32}")
_DEPARTMENT: Final = re.compile(r"[A-Za-z0-9_.-]{0,32}", re.ASCII)
_CHARGED: Final = {Kind.DRUG.value: Kind.DRUG, Kind.EXAMINATION.value: Kind.EXAMINATION}


class Unfit(Exception):
    """What somebody said cannot be believed; `why` is a word for logs and alarms, and names nobody."""

    def __init__(self, why: str, number: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.number = number


class Status(StrEnum):
    OUTSTANDING = "outstanding"
    PAID = "paid"  # at the window, or by us: see its payments
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose bills: a paper and its number, normal as engine/records/identity.py makes it."""

    id_type: IdType
    number: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Item:
    """One line. `name` is clinical text: it is shown to the patient and sealed, never logged or journaled."""

    line_id: str
    kind: Kind
    code: str
    name: str = field(repr=False)
    fen: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Known:
    """A payment or refund of ours that the billing has booked."""

    id: bytes
    fen: int
    receipt: str


@dataclass(frozen=True, slots=True)
class HospitalBill:
    """One revision of one bill."""

    number: str
    revision: int
    status: Status
    identity: Identity
    items: tuple[Item, ...]
    fen: int
    pay_by: int  # 0: whenever
    department_id: str
    payments: tuple[Known, ...]
    refunds: tuple[Known, ...]

    @property
    def id(self) -> bytes:
        return bill_id_of(self.number, self.revision)

    @property
    def order(self) -> str:
        return order_of(self.number, self.revision)

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(Line(one.line_id, one.kind, one.code, one.fen, one.quantity) for one in self.items)


@dataclass(frozen=True, slots=True)
class Outstanding:
    bills: tuple[HospitalBill, ...]
    unfit: tuple[Unfit, ...]
    """Bills that cannot be believed. The others stand."""


@dataclass(frozen=True, slots=True)
class Paid:
    """To be told: a bill is paid. `id` is our payment's; told again it is the same payment."""

    number: str
    revision: int
    id: bytes
    fen: int
    provider: str
    transaction: str
    paid_at: int


@dataclass(frozen=True, slots=True)
class Refunded:
    """To be told: so much of it was given back. `asked_as` is the billing's own number of a refund that it
    has asked for; "" of ours."""

    number: str
    revision: int
    id: bytes
    payment_id: bytes
    fen: int
    lines: tuple[tuple[str, int], ...]
    reason: str
    reference: str
    asked_as: str = ""


@dataclass(frozen=True, slots=True)
class HospitalRow:
    """A line of the billing's day: what it booked of what we had told it."""

    kind: str  # payment | refund
    order: str  # as our bill has it
    reference: str  # our payment or refund, in hex
    fen: int
    receipt: str  # theirs
    at: datetime


class Asks(StrEnum):
    """What the billing may ask of us."""

    REFUND = "refund"  # give back some lines: a drug that was not dispensed
    LOOK = "look"  # something about this bill has changed there


REASONS: Final = ("not_dispensed", "not_done", "corrected", "other")
"""Why it wants money given back. Words of its own would be clinical text."""


@dataclass(frozen=True, slots=True)
class Asked:
    what: Asks
    number: str
    revision: int
    refund: str = ""  # their number of it
    lines: tuple[tuple[str, int], ...] = ()
    reason: str = ""

    @property
    def bill_id(self) -> bytes:
        return bill_id_of(self.number, self.revision)


# What we say.


def question(identity: Identity) -> dict[str, object]:
    """In a body and not in an address, though it changes nothing: addresses end in logs."""
    return {"version": VERSION, "patient": _spelled(identity)}


def paid_body(paid: Paid) -> dict[str, object]:
    return {
        "version": VERSION,
        "payment": paid.id.hex(),
        "revision": paid.revision,
        "fen": paid.fen,
        "currency": CURRENCY,
        "provider": paid.provider,
        "transaction": paid.transaction,
        "paid_at": time_text(paid.paid_at),
    }


def refunded_body(refunded: Refunded) -> dict[str, object]:
    return {
        "version": VERSION,
        "refund": refunded.id.hex(),
        "payment": refunded.payment_id.hex(),
        "revision": refunded.revision,
        "fen": refunded.fen,
        "currency": CURRENCY,
        "lines": [{"line": line_id, "fen": fen} for line_id, fen in refunded.lines],
        "reason": refunded.reason,
        "reference": refunded.reference,
        "asked_as": refunded.asked_as,
    }


def _spelled(identity: Identity) -> dict[str, str]:
    return {"kind": KINDS[identity.id_type], "number": identity.number}


def time_text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


# What they say.


def outstanding_of(answer: object, asked: Identity) -> Outstanding:
    """Raises Unfit where the answer as a whole cannot be read; a bill that cannot is left out and named."""
    told = _list(_versioned(answer), "bills", BILLS_MAX)
    bills: dict[str, HospitalBill] = {}
    unfit: list[Unfit] = []
    for one in told:
        try:
            bill = _bill(one)
            if bill.identity != asked:
                raise Unfit("of_somebody_else", bill.number)
            if bill.number in bills:
                raise Unfit("twice", bill.number)
            if bill.status is not Status.OUTSTANDING:
                raise Unfit("not_outstanding", bill.number)
            bills[bill.number] = bill
        except Unfit as wrong:
            # Of two that say different things under one number, neither is believed.
            if wrong.why == "twice":
                bills.pop(wrong.number, None)
            unfit.append(wrong)
    refused = {wrong.number for wrong in unfit}
    return Outstanding(tuple(bill for bill in bills.values() if bill.number not in refused), tuple(unfit))


def bill_of(answer: object, number: str) -> HospitalBill:
    """The bill that was asked for. Raises Unfit."""
    bill = _bill(_versioned(answer).get("bill"))
    if bill.number != number:
        raise Unfit("another_bill", number)
    return bill


def receipt_of(answer: object, name: str, id_: bytes) -> str:
    """Of what we told them: `name` is payment or refund. Raises Unfit."""
    told = _versioned(answer)
    if told.get(name) != id_.hex():
        raise Unfit("another_" + name)
    return _text(told, "receipt", 1)


def rows_of(answer: object, day: date, rows_max: int) -> list[HospitalRow]:
    """Their day. Raises Unfit: also where the rows are not what they say in total."""
    told = _versioned(answer)
    if told.get("day") != day.isoformat():
        raise Unfit("another_day")
    rows = [_row(one) for one in _list(told, "rows", rows_max)]
    if len({(row.kind, row.reference) for row in rows}) < len(rows):
        raise Unfit("row_twice")
    for name, kind in (("payments", "payment"), ("refunds", "refund")):
        total = _object(told.get(name))
        fens = [row.fen for row in rows if row.kind == kind]
        if (_int(total, "count", 0, rows_max), _int(total, "fen", 0, None)) != (len(fens), sum(fens)):
            raise Unfit("total")
    return rows


def asked_of(body: object) -> Asked:
    """What they ask of us. Raises Unfit."""
    told = _versioned(body)
    number = _number(told)
    try:
        what = Asks(_text(told, "event", 1))
        revision = _int(told, "revision", 1, REVISION_MAX)
        if what is Asks.LOOK:
            return Asked(what, number, revision)
        refund = _text(told, "refund", 1)
        if _CODE.fullmatch(refund) is None:
            raise Unfit("refund")
        if told.get("currency") != CURRENCY:
            raise Unfit("currency")
        reason = told.get("reason")
        if reason not in REASONS:
            raise Unfit("reason")
        lines = tuple(_part(one) for one in _list(told, "lines", BILL_LINES_MAX))
        if not lines or len({line_id for line_id, _ in lines}) < len(lines):
            raise Unfit("lines")
        if _int(told, "fen", 1, BILL_FEN_MAX) != sum(fen for _, fen in lines):
            raise Unfit("sum")
    except ValueError:
        raise Unfit("event", number) from None
    except Unfit as wrong:
        raise Unfit(wrong.why, number) from None
    return Asked(what, number, revision, refund, lines, reason)


def code_of(answer: object) -> str:
    """Their word for a refusal; "" where there is none."""
    code = answer.get("code") if isinstance(answer, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _bill(told: object) -> HospitalBill:
    whole = _object(told)
    number = _number(whole)
    try:
        return _read(whole, number)
    except Unfit as wrong:
        raise Unfit(wrong.why, number) from None


def _read(told: dict[str, Any], number: str) -> HospitalBill:
    if told.get("currency") != CURRENCY:
        raise Unfit("currency")
    try:
        status = Status(_text(told, "status", 1))
    except ValueError:
        raise Unfit("status") from None
    items = tuple(_item(one) for one in _list(told, "items", BILL_LINES_MAX))
    if not items or len({one.line_id for one in items}) < len(items):
        raise Unfit("items")
    fen = _int(told, "fen", 1, BILL_FEN_MAX)
    if fen != sum(one.fen for one in items):
        raise Unfit("sum")
    department = told.get("department", "")
    if not isinstance(department, str) or _DEPARTMENT.fullmatch(department) is None:
        raise Unfit("department")
    pay_by = told.get("pay_by")
    return HospitalBill(
        number,
        _int(told, "revision", 1, REVISION_MAX),
        status,
        _identity(told.get("patient")),
        items,
        fen,
        0 if pay_by is None else _time(pay_by),
        department,
        _known(told, "payments", "payment"),
        _known(told, "refunds", "refund"),
    )


def _item(told: object) -> Item:
    one = _object(told)
    line_id, code, name = one.get("line"), one.get("code"), one.get("name")
    if not isinstance(line_id, str) or _LINE.fullmatch(line_id) is None:
        raise Unfit("line")
    if not isinstance(code, str) or _CODE.fullmatch(code) is None:
        raise Unfit("code")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= NAME_CHARS_MAX:
        raise Unfit("name")
    kind = _CHARGED.get(str(one.get("kind")))
    if kind is None:
        raise Unfit("kind")
    return Item(
        line_id, kind, code, name, _int(one, "fen", 0, BILL_FEN_MAX), _int(one, "quantity", 1, QUANTITY_MAX)
    )


def _identity(told: object) -> Identity:
    one = _object(told)
    number = one.get("number")
    for id_type, kind in KINDS.items():
        if kind == one.get("kind") and isinstance(number, str) and 0 < len(number) <= TEXT_CHARS_MAX:
            return Identity(id_type, number)
    raise Unfit("patient")


def _known(told: dict[str, Any], name: str, of: str) -> tuple[Known, ...]:
    if name not in told:
        return ()
    return tuple(
        Known(_our_id(one, of), _int(one, "fen", 1, BILL_FEN_MAX), _text(one, "receipt", 1))
        for one in map(_object, _list(told, name, TOLD_MAX))
    )


def _row(told: object) -> HospitalRow:
    one = _object(told)
    kind = one.get("kind")
    if kind not in ("payment", "refund"):
        raise Unfit("kind")
    if one.get("currency") != CURRENCY:
        raise Unfit("currency")
    at = datetime.fromtimestamp(_time(one.get("at")) / 1000, UTC)
    order = order_of(_number(one), _int(one, "revision", 1, REVISION_MAX))
    return HospitalRow(
        kind, order, _our_id(one, "id").hex(), _int(one, "fen", 1, BILL_FEN_MAX), _text(one, "receipt", 1), at
    )


def _part(told: object) -> tuple[str, int]:
    one = _object(told)
    line_id = one.get("line")
    if not isinstance(line_id, str) or _LINE.fullmatch(line_id) is None:
        raise Unfit("line")
    return line_id, _int(one, "fen", 1, BILL_FEN_MAX)


def _versioned(told: object) -> dict[str, Any]:
    whole = _object(told)
    version = whole.get("version")
    if version != VERSION or isinstance(version, bool):
        raise Unfit("version")
    return whole


def _object(told: object) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise Unfit("shape")
    return told


def _list(told: dict[str, Any], name: str, most: int) -> Sequence[object]:
    found = told.get(name)
    if not isinstance(found, list) or len(found) > most:
        raise Unfit(name)
    return found


def _int(told: dict[str, Any], name: str, least: int, most: int | None) -> int:
    found = told.get(name)
    if not isinstance(found, int) or isinstance(found, bool):
        raise Unfit(name)
    if found < least or (most is not None and found > most):
        raise Unfit("negative" if found < 0 else name)
    return found


def _text(told: dict[str, Any], name: str, least: int) -> str:
    found = told.get(name)
    if not isinstance(found, str) or not least <= len(found) <= TEXT_CHARS_MAX or not found.isprintable():
        raise Unfit(name)
    return found


def _number(told: dict[str, Any]) -> str:
    number = told.get("order")
    if not isinstance(number, str) or NUMBER_FORMAT.fullmatch(number) is None or not number.strip("."):
        raise Unfit("order")
    return number


def _our_id(told: dict[str, Any], name: str) -> bytes:
    found = told.get(name)
    if not isinstance(found, str) or _ID.fullmatch(found) is None:
        raise Unfit(name)
    return bytes.fromhex(found)


def _time(told: object) -> int:
    try:
        at = datetime.fromisoformat(told) if isinstance(told, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Unfit("time")
    return round(at.timestamp() * 1000)
