"""Reconciliation (对账): what we have booked, beside what others say of the same day. Pure.

Three comparisons, each of one day, each with what agrees and a `Difference` for everything that does not:

    of_provider   payments and refunds of the ledger   beside   the provider's bill of that day
    of_bookings   bills that somebody paid             beside   the numbers that they are for
    of_hospital   payments and refunds of its bills    beside   what the hospital's billing was told

Money is int fen, days are those of the statement's zone (Beijing's, for WeChat Pay and Alipay). Every payment
and refund of ours of that day, and every row of the statement, is in `matched` or in exactly one difference:
`Comparison.agrees` adds them up again. What lies on another day over there (midnight; a refund that is dated
by its asking) is a difference of each of both days, and explained: nobody has to do anything about it.

A difference has the evidence of all sides, and what heals it: an ordinary command after a question, never a
correction of the books. What no rule can decide stays for the cashier.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from enum import StrEnum
from typing import Any, Final

from engine.domain.payment import CURRENCY, Status

LATE: Final = time(23, 50)
"""What was paid from then on may be on the next day's statement."""


class Money(StrEnum):
    PAYMENT = "payment"
    REFUND = "refund"


class Went(StrEnum):
    """What became of money: of a statement's row, of a refund of ours."""

    DONE = "done"
    OPEN = "open"  # they work on it; we have asked for it
    FAILED = "failed"  # none moved


class Kind(StrEnum):
    """What a difference is. Cashiers and programs act on these words: they are for ever."""

    PAID_UNKNOWN_HERE = "paid_unknown_here"  # an attempt of ours of which we do not know that it is paid
    PAID_HERE_UNKNOWN_THERE = "paid_here_unknown_there"
    AMOUNT_DIFFERS = "amount_differs"
    REFERENCE_DIFFERS = "reference_differs"  # another transaction of theirs than the one that we believed
    PAID_TWICE = "paid_twice"  # they have a second payment of one order
    REFUNDED_TWICE = "refunded_twice"  # or gave back what the desk has given back in cash
    REFUND_UNKNOWN_HERE = "refund_unknown_here"
    REFUND_MISSING_THERE = "refund_missing_there"
    REFUND_UNDER_WAY = "refund_under_way"  # both know of it, and it is not done
    FOREIGN_ROW = "foreign_row"  # of an order that no bill of ours made
    OTHER_CURRENCY = "other_currency"
    WRONG_DAY = "wrong_day"
    STATEMENT_MISSING = "statement_missing"
    STATEMENT_DOUBTFUL = "statement_doubtful"  # its rows and its own totals differ
    BOOKED_WITHOUT_MONEY = "booked_without_money"
    MONEY_WITHOUT_BOOKING = "money_without_booking"
    HOSPITAL_NOT_TOLD = "hospital_not_told"
    HOSPITAL_TELLS_MORE = "hospital_tells_more"


WAITING: Final = frozenset((Kind.REFUND_UNDER_WAY, Kind.WRONG_DAY))
"""Nothing is wrong yet: time, or the next day's statement, will tell."""


class Heal(StrEnum):
    """What is done about it without asking anybody. All of it may be done twice."""

    NONE = "none"
    QUERY_AND_REPORT = "query_and_report"  # ask the provider after the payment; PaymentReported(statement)
    REPORT_REFUND = "report_refund"  # ask after the refund; RefundReported
    RESEND_REFUND = "resend_refund"  # the bill's own errands: they ask, and send again what never came
    ATTEND = "attend"  # the bill's own errands: the seat is booked, taken again, released
    TELL_HOSPITAL = "tell_hospital"


@dataclass(frozen=True, slots=True)
class StatementRow:
    """One line of a provider's bill, or of what the hospital's billing was told."""

    kind: str  # Money
    order: bytes  # our attempt or refund; b"": not spelled like one of ours
    reference: str  # theirs
    fen: int
    at: datetime
    payment_order: bytes = b""  # of a refund: our attempt whose money goes back
    fee_millifen: int = 0  # what they keep, in thousandths of a fen; less than 0: given back
    currency: str = CURRENCY
    state: str = Went.DONE
    number: str = ""  # the order as they spell it

    @property
    def moved(self) -> int:
        """Fen that did, or will."""
        return self.fen if self.state != Went.FAILED and self.currency == CURRENCY else 0


@dataclass(frozen=True, slots=True)
class Statement:
    rows: tuple[StatementRow, ...]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Payment:
    """An attempt to pay, as our rows have it."""

    order: bytes
    bill_id: bytes
    fen: int  # asked for
    moved: int  # received; 0: it is not paid, as far as we know
    reference: str  # their transaction; "": not to be compared
    at: datetime  # when it was paid, else when it was begun; in the statement's zone
    state: str = ""  # our word for it, for the evidence


@dataclass(frozen=True, slots=True)
class Refund:
    order: bytes
    payment_order: bytes
    bill_id: bytes
    fen: int
    went: str  # Went; FAILED: the provider has refused it
    at: datetime  # when it was done, else when it was asked for; in the statement's zone
    by_desk: bool = False  # in cash, of money that the provider had
    state: str = ""

    @property
    def moved(self) -> int:
        """At the provider."""
        return self.fen if self.went == Went.DONE and not self.by_desk else 0


Ours = Payment | Refund


@dataclass(frozen=True, slots=True)
class Booking:
    """A bill with a number, and what that number is now."""

    bill_id: bytes
    appointment_id: bytes
    number: str  # booked, arrived, fulfilled, noshow, pending, cancelled …; "": there is none
    status: str  # of the bill: payment.Status
    fen: int
    paid: int
    refunded: int
    owed_back: int
    kept: int


@dataclass(frozen=True, slots=True)
class Difference:
    kind: Kind
    subject: str  # names the same thing in every run of that day
    money: Money
    ours: int = 0  # fen of this day on our side
    theirs: int = 0  # and on theirs
    heal: Heal = Heal.NONE
    bill_id: bytes = b""
    order: bytes = b""  # the attempt or refund that it is about
    payment_order: bytes = b""  # of a refund: the attempt whose money goes back
    explained: bool = False
    """It is known what became of it, and that it is right: nothing is left to do."""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sum:
    count: int = 0
    fen: int = 0

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.count + other.count, self.fen + other.fen)


@dataclass(frozen=True, slots=True)
class Sides:
    """Of one kind of money. `ours` and `theirs` are counted from what was given, not from what was found."""

    matched: Sum = Sum()
    ours: Sum = Sum()
    theirs: Sum = Sum()


@dataclass(frozen=True, slots=True)
class Comparison:
    payments: Sides = Sides()
    refunds: Sides = Sides()
    differences: tuple[Difference, ...] = ()

    @property
    def agrees(self) -> bool:
        """Either side is what matched and what differs, to the fen. Else this very comparison is wrong."""
        return all(
            side.fen
            == sides.matched.fen + sum(getattr(one, name) for one in self.differences if one.money is money)
            for money, sides in ((Money.PAYMENT, self.payments), (Money.REFUND, self.refunds))
            for name, side in (("ours", sides.ours), ("theirs", sides.theirs))
        )


# The provider's bill.


def of_provider(
    day: date,
    payments: Iterable[Payment],
    refunds: Iterable[Refund],
    statement: Statement | None,
    elsewhere: Sequence[StatementRow] = (),
    next_day_known: bool = False,
) -> Comparison:
    """`payments`, `refunds`: with this provider, those of that day, and all that the statement names.
    `elsewhere`: rows of other days' statements about these. `statement`: None where there is none (yet)."""
    rows = () if statement is None else statement.rows
    paid = {one.order: one for one in payments}
    back = {one.order: one for one in refunds}
    compared = {
        Money.PAYMENT: _compared(day, Money.PAYMENT, paid, rows, elsewhere, paid),
        Money.REFUND: _compared(day, Money.REFUND, back, rows, elsewhere, paid),
    }
    found: list[Difference] = []
    for money, (_, differences, left) in compared.items():
        found += differences
        found += _left(money, left, statement is None, next_day_known)
    if statement is not None:
        found += [
            Difference(Kind.STATEMENT_DOUBTFUL, str(n), Money.PAYMENT, evidence={"there": words})
            for n, words in enumerate(statement.doubts)
        ]
    return Comparison(
        _sides(day, Money.PAYMENT, compared[Money.PAYMENT][0], paid, rows),
        _sides(day, Money.REFUND, compared[Money.REFUND][0], back, rows),
        tuple(_distinct(found)),
    )


def of_hospital(
    day: date,
    payments: Iterable[Payment],
    refunds: Iterable[Refund],
    told: Statement,
    elsewhere: Sequence[StatementRow] = (),
    next_day_known: bool = False,
) -> Comparison:
    """Of bills that are the hospital's billing's. `told`: what it says that we told it."""
    found = of_provider(day, payments, refunds, told, elsewhere, next_day_known)
    return replace(found, differences=tuple(map(_of_hospital, found.differences)))


_NOT_TOLD: Final = (Kind.PAID_HERE_UNKNOWN_THERE, Kind.REFUND_MISSING_THERE)
_SAME_IN_BOTH: Final = (Kind.AMOUNT_DIFFERS, Kind.WRONG_DAY, Kind.OTHER_CURRENCY, Kind.STATEMENT_DOUBTFUL)


def _of_hospital(one: Difference) -> Difference:
    if one.kind in _SAME_IN_BOTH:
        return one
    if one.kind in _NOT_TOLD:
        return replace(one, kind=Kind.HOSPITAL_NOT_TOLD, heal=Heal.TELL_HOSPITAL)
    return replace(one, kind=Kind.HOSPITAL_TELLS_MORE, heal=Heal.NONE)


def _compared(
    day: date,
    money: Money,
    own: Mapping[bytes, Ours],
    rows: Sequence[StatementRow],
    elsewhere: Sequence[StatementRow],
    paid: Mapping[bytes, Payment],
) -> tuple[Sum, list[Difference], list[Ours]]:
    """What matches, what differs, and what of ours no statement has."""
    matched, found = Sum(), list[Difference]()
    today = _by_order(rows, money)
    others = _by_order(elsewhere, money)
    for row in rows:
        if row.kind == money and row.currency != CURRENCY:
            found.append(_of_row(Kind.OTHER_CURRENCY, row))
    for order, said in today.items():
        ours = own.get(order) if order else None
        if ours is None:
            found += [_unknown(row, paid) for row in said]
            continue
        chosen = _chosen(ours, said, others.get(order, []))
        for row in said:
            difference = _beside(day, ours, row) if row is chosen else _again(ours, row)
            if difference is None:
                matched += Sum(1, row.fen)
            else:
                found.append(difference)
        if chosen not in said and ours.moved and ours.at.date() == day:
            found.append(_of(Kind.WRONG_DAY, ours, (chosen,), ours=ours.moved, explained=True))
    left: list[Ours] = []
    for order, ours in own.items():
        if order in today or ours.at.date() != day:
            continue
        if order in others:
            if ours.moved:
                found.append(_of(Kind.WRONG_DAY, ours, others[order], ours=ours.moved, explained=True))
        else:
            left.append(ours)
    return matched, found, left


def _by_order(rows: Iterable[StatementRow], money: Money) -> dict[bytes, list[StatementRow]]:
    """Rows of money that moved; a refund that failed is as if it were not there."""
    found: dict[bytes, list[StatementRow]] = {}
    for row in rows:
        if row.kind == money and row.currency == CURRENCY and row.state != Went.FAILED:
            found.setdefault(row.order, []).append(row)
    return found


def _chosen(ours: Ours, today: Sequence[StatementRow], others: Sequence[StatementRow]) -> StatementRow:
    """Of several rows of one order the one that is meant: that we believed, else the first."""
    reference = ours.reference if isinstance(ours, Payment) else ""
    return min((*today, *others), key=lambda row: (row.reference != reference, row.at))


def _beside(day: date, ours: Ours, row: StatementRow) -> Difference | None:
    """None: they say the same."""
    here = ours.moved if ours.at.date() == day else 0
    if not ours.moved:
        return _unmoved(ours, row)
    if row.fen != ours.moved:
        return _of(Kind.AMOUNT_DIFFERS, ours, (row,), ours=here, theirs=row.fen)
    if isinstance(ours, Payment) and ours.reference and row.reference != ours.reference:
        return _of(Kind.REFERENCE_DIFFERS, ours, (row,), ours=here, theirs=row.fen)
    if not here:
        return _of(Kind.WRONG_DAY, ours, (row,), theirs=row.fen, explained=True)
    return None


def _unmoved(ours: Ours, row: StatementRow) -> Difference:
    """They have money moved of which we do not know."""
    if isinstance(ours, Payment):
        return _of(Kind.PAID_UNKNOWN_HERE, ours, (row,), theirs=row.fen, heal=Heal.QUERY_AND_REPORT)
    if ours.by_desk and ours.went == Went.DONE:
        return _of(Kind.REFUNDED_TWICE, ours, (row,), theirs=row.fen)
    if row.state == Went.OPEN:
        return _of(Kind.REFUND_UNDER_WAY, ours, (row,), theirs=row.fen, heal=Heal.RESEND_REFUND)
    return _of(Kind.REFUND_UNKNOWN_HERE, ours, (row,), theirs=row.fen, heal=Heal.REPORT_REFUND)


def _again(ours: Ours, row: StatementRow) -> Difference:
    kind = Kind.PAID_TWICE if isinstance(ours, Payment) else Kind.REFUNDED_TWICE
    return _of(kind, ours, (row,), theirs=row.fen, also=row.reference)


def _unknown(row: StatementRow, paid: Mapping[bytes, Payment]) -> Difference:
    """A row of an order that we have not."""
    payment = paid.get(row.payment_order) if row.kind == Money.REFUND and row.payment_order else None
    if payment is None:
        return _of_row(Kind.FOREIGN_ROW, row)
    # Given back past us, at the provider's own pages (商户平台).
    return replace(_of_row(Kind.REFUND_UNKNOWN_HERE, row), bill_id=payment.bill_id)


def _left(money: Money, left: Iterable[Ours], no_statement: bool, next_day_known: bool) -> list[Difference]:
    """Of that day, and on no statement that we know."""
    found, missing = list[Difference](), list[Ours]()
    for ours in left:
        if isinstance(ours, Refund) and ours.went == Went.OPEN:
            found.append(_of(Kind.REFUND_MISSING_THERE, ours, (), heal=Heal.RESEND_REFUND))
        elif not ours.moved:
            continue
        elif ours.at.time() >= LATE and not next_day_known:
            found.append(_of(Kind.WRONG_DAY, ours, (), ours=ours.moved))
        elif no_statement:
            missing.append(ours)
        else:
            is_payment = isinstance(ours, Payment)
            kind = Kind.PAID_HERE_UNKNOWN_THERE if is_payment else Kind.REFUND_MISSING_THERE
            found.append(_of(kind, ours, (), ours=ours.moved))
    if missing:
        fen = sum(one.moved for one in missing)
        evidence = {"here": {"count": len(missing), "fen": fen}}
        found.append(Difference(Kind.STATEMENT_MISSING, money, money, ours=fen, evidence=evidence))
    return found


def _sides(
    day: date, money: Money, matched: Sum, own: Mapping[bytes, Ours], rows: Iterable[StatementRow]
) -> Sides:
    ours = [one.moved for one in own.values() if one.moved and one.at.date() == day]
    theirs = [row.moved for row in rows if row.kind == money and row.moved]
    return Sides(matched, Sum(len(ours), sum(ours)), Sum(len(theirs), sum(theirs)))


def _of(
    kind: Kind,
    one: Ours,
    rows: Iterable[StatementRow],
    ours: int = 0,
    theirs: int = 0,
    heal: Heal = Heal.NONE,
    explained: bool = False,
    also: str = "",
) -> Difference:
    money = Money.PAYMENT if isinstance(one, Payment) else Money.REFUND
    subject = f"{one.order.hex()}/{also}" if also else one.order.hex()
    of_payment = one.payment_order if isinstance(one, Refund) else b""
    evidence = {"here": _here(one), "there": [_there(row) for row in rows]}
    return Difference(
        kind, subject, money, ours, theirs, heal, one.bill_id, one.order, of_payment, explained, evidence
    )


def _of_row(kind: Kind, row: StatementRow) -> Difference:
    subject = f"{row.number or row.order.hex()}/{row.reference}"
    return Difference(kind, subject, Money(row.kind), theirs=row.moved, evidence={"there": [_there(row)]})


def _here(one: Ours) -> dict[str, Any]:
    told: dict[str, Any] = {
        "order": one.order.hex(),
        "fen": one.fen,
        "moved": one.moved,
        "at": one.at.isoformat(),
        "state": one.state,
    }
    if isinstance(one, Payment):
        return {**told, "reference": one.reference}
    return {**told, "payment": one.payment_order.hex(), "by_desk": one.by_desk}


def _there(row: StatementRow) -> dict[str, Any]:
    told: dict[str, Any] = {
        "order": row.number or row.order.hex(),
        "reference": row.reference,
        "fen": row.fen,
        "currency": row.currency,
        "at": row.at.isoformat(),
        "state": str(row.state),
    }
    return {**told, "payment": row.payment_order.hex()} if row.kind == Money.REFUND else told


def _distinct(found: Iterable[Difference]) -> Iterable[Difference]:
    """A row that is there three times is three differences."""
    times: dict[tuple[str, str], int] = {}
    for one in found:
        key = (one.kind, one.subject)
        n = times[key] = times.get(key, 0) + 1
        yield one if n == 1 else replace(one, subject=f"{one.subject}#{n}")


# The numbers.

_HAS_NUMBER: Final = ("booked", "arrived", "fulfilled")
_USED_NUMBER: Final = (*_HAS_NUMBER, "noshow")  # or let lapse: what goes back then, the rules say
_WITHOUT_MONEY: Final = (Status.CLOSED, Status.REFUNDED)


def of_bookings(bookings: Iterable[Booking]) -> Comparison:
    """Bills that had something to do with money that day, at rest, beside their numbers."""
    found, matched = list[Difference](), Sum()
    for one in bookings:
        difference = _of_booking(one)
        if difference is None:
            matched += Sum(1, one.paid)
        else:
            found.append(difference)
    return Comparison(Sides(matched, matched, matched), Sides(), tuple(found))


def _of_booking(one: Booking) -> Difference | None:
    left = one.paid - one.refunded - one.owed_back - one.kept
    if left > 0 and (one.number not in _USED_NUMBER or one.status == Status.PAID):
        return _booking(Kind.MONEY_WITHOUT_BOOKING, one)
    if one.fen and one.status in _WITHOUT_MONEY and one.number in _HAS_NUMBER:
        return _booking(Kind.BOOKED_WITHOUT_MONEY, one)
    return None


def _booking(kind: Kind, one: Booking) -> Difference:
    evidence = {
        "here": {"status": one.status, "fen": one.fen, "paid": one.paid, "refunded": one.refunded}
        | {"owed_back": one.owed_back, "kept": one.kept},
        "booking": {"appointment": one.appointment_id.hex(), "number": one.number},
    }
    return Difference(
        kind,
        one.bill_id.hex(),
        Money.PAYMENT,
        heal=Heal.ATTEND,
        bill_id=one.bill_id,
        evidence=evidence,
    )
