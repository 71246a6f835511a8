"""A bill's life: what it costs, how it was paid, what became of it. Every fen ends as service or refund.

Pure, like schedule.py: `decide` says what should happen, `apply` makes it so, replaying the events rebuilds
the state. Money is int fen, CNY. Times are int milliseconds since the epoch (UTC), ids 16 bytes. One bill is
one stream. Prices are price_rules.py's, what a cancellation gives back is refund_rules.py's, and what each
event means for the accounts is `postings`, with ledger.py's names.

Three parties that fail by themselves meet here, and none is waited for:

- The provider. An attempt is in the journal before anything is asked outside (`PaymentStarted`), an answer
  that was lost is a state of its own (UNKNOWN) that only a query ends, and money is believed whenever it
  comes: to an attempt that was closed, beside another one, after the hold has expired. What fits no bill lies
  in suspense and goes back by itself.
- The seat, which is the schedule's. Its actor reports `SeatTaken` or `SeatGone`; the bill never guesses. For
  money that comes after the hold expired a seat is asked for again, under an id derived from the old one, so
  that the asking may be repeated: `SeatTakenAgain`, or `SeatGone` with Cause.FULL and then a full refund.
  Reports may come twice, late and in any order: what is committed here first wins. A seat that is booked for
  a bill without a claim to it is remembered until it was released: never both seat and refund.
- The person at the desk, who takes cash, gives some back, and settles refunds that a provider refuses.

For whoever wires it: run a command through `decide` and `apply` as a shard does; write the events, the
`postings` of each and the row of `told` in one transaction; then do what `errands` says is still to be done,
and report what came of it as the next command. `errands` reads the state alone, so it is right after any
restart, and a bill with no errands is at rest. All that an errand does may be done twice. docs/PAYMENT.md has
the table of errands, and of who reports what.
"""

import hashlib
from dataclasses import MISSING, dataclass, field, fields
from enum import IntEnum, StrEnum
from typing import Final, assert_never

from engine.domain import ids, ledger
from engine.domain.ledger import Posting
from engine.domain.limits import (
    BILL_COMMANDS_REMEMBERED,
    BILL_FEN_MAX,
    BILL_LINES_MAX,
    BILL_PAYMENTS_MAX,
    PAYMENT_REFUNDS_MAX,
)
from engine.domain.price_rules import Discount, Line
from engine.domain.refund_rules import Cause, RefundRules, RefundTerms, part, percent_back
from engine.domain.refusal import Reason, Refusal

CURRENCY: Final = "CNY"
AT_HOSPITAL: Final = "at_hospital"
"""The desk's till, as a provider."""

POLL_MS: Final = 20_000
"""A payment that a patient was sent off to is asked after, in case its callback is lost. With the lease of an
errand whose worker died (actors/errands.py) it stays under the minute in which all money is classified."""
LOOK_AFTER_MS: Final = 5_000
"""After a hold has ended and nobody has said what became of its seat."""
BY_HAND_AFTER_MS: Final = 10 * 60_000
"""From a provider's refusal to cash for it: whoever still sends that refund has given up by then. A
connector's deadlines must be shorter."""


class Via(StrEnum):
    """How we know of a payment. A callback alone is not believed when it says something odd."""

    CALLBACK = "callback"
    QUERY = "query"
    STATEMENT = "statement"  # the provider's daily bill


class Found(StrEnum):
    """What a provider answers when it is asked after a payment or a refund that is not done."""

    OPEN = "open"  # it has the order, unpaid; it works on the refund
    CLOSED = "closed"  # for good: nobody can pay it any more
    NONE = "none"  # it has never heard of it


# Commands. `command_id` makes a retry harmless: the same id does nothing more, with another content it is
# refused. `by` names a member of staff; "" is the patient, or the machine itself.


@dataclass(frozen=True, slots=True)
class OpenBill:
    command_id: bytes
    bill_id: bytes
    account_id: bytes
    patient_id: bytes
    order: str  # what it is for: the appointment's or the hospital's own order number
    lines: tuple[Line, ...]
    discounts: tuple[Discount, ...] = ()
    currency: str = CURRENCY
    appointment_id: bytes = b""  # b"": no seat hangs on it
    starts_at: int = 0
    pay_by: int = 0  # 0: whenever
    department_id: str = ""
    number_class_id: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class StartPayment:
    """Before the provider is asked. `attempt_id` is the order number there (out_trade_no), in hex."""

    command_id: bytes
    attempt_id: bytes
    provider: str
    merchant_id: str  # ours there: whoever asks knows it from its settings
    by: str = ""


@dataclass(frozen=True, slots=True)
class PrepayAnswered:
    command_id: bytes
    attempt_id: bytes
    prepay: str  # what the client's pay call needs
    by: str = ""


@dataclass(frozen=True, slots=True)
class PrepayRefused:
    """The connector's Refused. Whether an earlier asking was heard, only a query tells. TryAgain is no
    command: ask again."""

    command_id: bytes
    attempt_id: bytes
    code: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class PaymentOutcomeLost:
    """The connector's OutcomeUnknown, of a prepay or a close."""

    command_id: bytes
    attempt_id: bytes
    by: str = ""


@dataclass(frozen=True, slots=True)
class PaymentFound:
    """A query found it unpaid, or a close has succeeded (Found.CLOSED)."""

    command_id: bytes
    attempt_id: bytes
    found: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class PaymentReported:
    """Verified by signature: it is paid, says the provider."""

    command_id: bytes
    attempt_id: bytes
    provider: str
    merchant_id: str
    transaction_id: str
    fen: int
    currency: str
    via: str
    paid_at: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True)
class PayAtHospital:
    """The seat is the patient's without money, and the desk takes it when he comes."""

    command_id: bytes
    unpaid_elsewhere: int  # other bills of this account that wait for the desk: the caller counts them
    by: str = ""


@dataclass(frozen=True, slots=True)
class TakeAtDesk:
    command_id: bytes
    attempt_id: bytes
    receipt: str
    fen: int
    by: str


@dataclass(frozen=True, slots=True)
class CloseBill:
    """Nobody need pay it any more. Of bills on which no seat hangs: there the seat decides."""

    command_id: bytes
    cause: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class SeatTaken:
    """The schedule has booked it."""

    command_id: bytes
    appointment_id: bytes
    by: str = ""


@dataclass(frozen=True, slots=True)
class SeatTakenAgain:
    """The schedule has booked `retaken_id(appointment_id)` for a payment that came too late for the first."""

    command_id: bytes
    appointment_id: bytes
    by: str = ""


@dataclass(frozen=True, slots=True)
class SeatGone:
    """The schedule has taken it back, or (Cause.FULL) has none to give again. Also answers a ReleaseSeat."""

    command_id: bytes
    appointment_id: bytes
    cause: str
    at: int  # when that was: the refund goes by it, however late the report
    by: str = ""


@dataclass(frozen=True, slots=True)
class SeatMoved:
    """改签 to another number of the same price, or another time of the same number. The bill goes with it."""

    command_id: bytes
    appointment_id: bytes
    successor: bytes
    starts_at: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class RequestRefund:
    """Staff give back some of what was paid: a drug that was not dispensed, an examination not done."""

    command_id: bytes
    refund_id: bytes
    lines: tuple[tuple[str, int], ...]  # (line, fen)
    why: str
    by: str


@dataclass(frozen=True, slots=True)
class RefundAccepted:
    """The provider has it and works on it."""

    command_id: bytes
    refund_id: bytes
    by: str = ""


@dataclass(frozen=True, slots=True)
class RefundOutcomeLost:
    command_id: bytes
    refund_id: bytes
    by: str = ""


@dataclass(frozen=True, slots=True)
class RefundFound:
    """A query's answer: OPEN or NONE."""

    command_id: bytes
    refund_id: bytes
    found: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class RefundReported:
    """The provider has given it back."""

    command_id: bytes
    refund_id: bytes
    provider: str
    reference: str
    fen: int
    currency: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class RefundRefused:
    """The provider will not (an account that is closed, say)."""

    command_id: bytes
    refund_id: bytes
    code: str
    is_final: bool  # it says so when asked after the refund; False: it refused the sending
    by: str = ""


@dataclass(frozen=True, slots=True)
class RetryRefund:
    command_id: bytes
    refund_id: bytes
    by: str


@dataclass(frozen=True, slots=True)
class RefundAtDesk:
    """Cash, for what was paid in cash or what the provider has refused; never while it may yet pay."""

    command_id: bytes
    refund_id: bytes
    receipt: str
    by: str


OfRefund = (
    RefundAccepted
    | RefundOutcomeLost
    | RefundFound
    | RefundReported
    | RefundRefused
    | RetryRefund
    | RefundAtDesk
)
OfAttempt = PrepayAnswered | PrepayRefused | PaymentOutcomeLost | PaymentFound | PaymentReported
OfSeat = SeatTaken | SeatTakenAgain | SeatGone | SeatMoved
Command = (
    OpenBill
    | StartPayment
    | OfAttempt
    | PayAtHospital
    | TakeAtDesk
    | CloseBill
    | OfSeat
    | RequestRefund
    | OfRefund
)


# Events. These are the bytes in the journal; fields are only ever added.


@dataclass(frozen=True, slots=True)
class CommandTaken:
    """Somebody asked, or a report came; what exactly follows."""

    command_id: bytes
    digest: bytes
    at: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class BillOpened:
    bill_id: bytes
    account_id: bytes
    patient_id: bytes
    order: str
    lines: tuple[Line, ...]
    discounts: tuple[Discount, ...]
    fen: int  # after discounts
    appointment_id: bytes
    starts_at: int
    pay_by: int
    refund_tiers: tuple[tuple[int, int], ...]  # the RefundTerms of this day
    no_show_percent: int
    department_id: str = ""
    number_class_id: str = ""


@dataclass(frozen=True, slots=True)
class PaymentStarted:
    attempt_id: bytes
    provider: str
    merchant_id: str
    fen: int


@dataclass(frozen=True, slots=True)
class PrepayReady:
    attempt_id: bytes
    prepay: str


@dataclass(frozen=True, slots=True)
class PaymentUncertain:
    attempt_id: bytes
    code: str = ""  # of what was refused


@dataclass(frozen=True, slots=True)
class PaymentEnded:
    """Unpaid. Should money come all the same, it is believed."""

    attempt_id: bytes
    is_closed: bool  # by the provider; False: it never began there
    code: str = ""


@dataclass(frozen=True, slots=True)
class PaymentReceived:
    attempt_id: bytes
    provider: str
    transaction_id: str
    fen: int
    is_matched: bool
    why: str = ""  # "" as expected; late (matched or not), double, amount
    via: str = ""
    paid_at: int = 0


@dataclass(frozen=True, slots=True)
class PaymentDeferred:
    """To the desk."""


@dataclass(frozen=True, slots=True)
class BillSettled:
    """Paid, and the service is the patient's."""

    earned: tuple[tuple[str, int], ...]  # kind, fen


@dataclass(frozen=True, slots=True)
class BillClosed:
    cause: str


@dataclass(frozen=True, slots=True)
class SeatSecured:
    appointment_id: bytes


@dataclass(frozen=True, slots=True)
class SeatLapsed:
    """The hold has ended; a late payment may have a seat again."""

    appointment_id: bytes


@dataclass(frozen=True, slots=True)
class SeatLost:
    """For good. What of the money is not given back is kept by the hospital's rules."""

    appointment_id: bytes
    cause: str
    percent: int  # that goes back
    kept: int
    at: int


@dataclass(frozen=True, slots=True)
class SeatChanged:
    appointment_id: bytes
    successor: bytes
    starts_at: int


@dataclass(frozen=True, slots=True)
class SeatUnwanted:
    """It is, or may be, booked for this bill, which has no claim to it any more: it must be released."""

    appointment_id: bytes


@dataclass(frozen=True, slots=True)
class SeatReleased:
    appointment_id: bytes


@dataclass(frozen=True, slots=True)
class RefundRequested:
    refund_id: bytes
    attempt_id: bytes
    fen: int
    sources: tuple[tuple[str, int], ...]  # ledger account, fen
    lines: tuple[tuple[str, int], ...]  # line, fen; empty: not of lines
    cause: str


@dataclass(frozen=True, slots=True)
class RefundSent:
    refund_id: bytes


@dataclass(frozen=True, slots=True)
class RefundUncertain:
    refund_id: bytes
    code: str = ""  # of what was refused


@dataclass(frozen=True, slots=True)
class RefundReset:
    """It has to be sent (again), under the same number."""

    refund_id: bytes


@dataclass(frozen=True, slots=True)
class RefundRejected:
    refund_id: bytes
    code: str


@dataclass(frozen=True, slots=True)
class RefundDone:
    refund_id: bytes
    provider: str
    reference: str
    fen: int


Event = (
    CommandTaken
    | BillOpened
    | PaymentStarted
    | PrepayReady
    | PaymentUncertain
    | PaymentEnded
    | PaymentReceived
    | PaymentDeferred
    | BillSettled
    | BillClosed
    | SeatSecured
    | SeatLapsed
    | SeatLost
    | SeatChanged
    | SeatUnwanted
    | SeatReleased
    | RefundRequested
    | RefundSent
    | RefundUncertain
    | RefundReset
    | RefundRejected
    | RefundDone
)


# State.


class Paying(IntEnum):
    """Of an attempt. Up to UNKNOWN somebody may still be paying."""

    CREATED = 1  # in the journal; whether the provider was asked, nobody knows after a crash
    ASKED = 2
    UNKNOWN = 3
    PAID = 4
    CLOSED = 5
    FAILED = 6


class Refunding(IntEnum):
    REQUESTED = 1
    SENT = 2
    UNKNOWN = 3
    REFUSED = 4
    DONE = 5


class Seat(IntEnum):
    NONE = 0
    HELD = 1
    TAKEN = 2
    LAPSED = 3
    GONE = 4


class Status(StrEnum):
    """What people are told."""

    OPEN = "open"
    AT_HOSPITAL = "at_hospital"  # to be paid there
    PAID = "paid"  # and the seat is being seen to
    SETTLED = "settled"
    CLOSED = "closed"  # nothing to pay, nothing to give back
    REFUNDING = "refunding"
    PARTLY_REFUNDED = "partly_refunded"
    REFUNDED = "refunded"


@dataclass(slots=True)
class Attempt:
    provider: str
    merchant_id: str
    fen: int
    since: int  # when it came to its state
    begun: int  # when it came into the journal
    state: Paying = Paying.CREATED
    prepay: str = ""
    code: str = ""
    transaction_id: str = ""
    received: int = 0
    is_matched: bool = False
    paid_at: int = 0  # as the provider says; 0: it does not


@dataclass(slots=True)
class Refund:
    attempt_id: bytes
    fen: int
    sources: tuple[tuple[str, int], ...]
    lines: tuple[tuple[str, int], ...]
    cause: str
    since: int
    begun: int
    state: Refunding = Refunding.REQUESTED
    code: str = ""
    provider: str = ""  # that gave it back
    reference: str = ""


@dataclass(slots=True)
class Bill:
    opened: BillOpened | None = None
    appointment_id: bytes = b""
    starts_at: int = 0
    seat: Seat = Seat.NONE
    closed: str = ""  # why nothing is to be paid any more
    paid_by: bytes = b""  # the attempt whose money is the bill's
    is_settled: bool = False
    is_deferred: bool = False
    attempts: dict[bytes, Attempt] = field(default_factory=dict)
    refunds: dict[bytes, Refund] = field(default_factory=dict)
    former: set[bytes] = field(default_factory=set)
    """Appointments that were this bill's."""
    unwanted: set[bytes] = field(default_factory=set)
    """Appointments to be released."""
    balances: dict[str, int] = field(default_factory=dict)
    commands: dict[bytes, bytes] = field(default_factory=dict)
    """The last commands that did something, and what they said."""
    at: int = 0


@dataclass(frozen=True, slots=True)
class AtHospital:
    """Who may pay at the desk."""

    fen_max: int | None = None  # of one bill; None: no limit, here and below
    unpaid_max: int | None = None  # bills of one account that wait for the desk, this one included


@dataclass(frozen=True, slots=True)
class MoneyTerms:
    """What the hospital decided about money."""

    at_hospital: AtHospital | None = AtHospital()  # None: nobody may
    refunds: RefundRules = RefundRules()


DEFAULT: Final = MoneyTerms()


# Ids that are derived, so that whatever was begun may be begun again.


def retaken_id(appointment_id: bytes) -> bytes:
    """Of the seat that is taken for a payment which came after this one's hold had expired."""
    return ids.derived(b"retaken", appointment_id)


def own_refund_id(attempt_id: bytes) -> bytes:
    """Of the refund that follows from the rules, not from staff. A payment has at most one."""
    return ids.derived(b"refund", attempt_id)


# Decide: guards, cheapest first, the happy line last. Changes nothing.


def decide(bill: Bill, command: Command, now: int, terms: MoneyTerms = DEFAULT) -> list[Event] | Refusal:
    digest = digest_of(command)
    known = bill.commands.get(command.command_id)
    if known is not None:
        return [] if known == digest else Refusal(Reason.KEY_REUSED)
    outcome = _decide(bill, command, now, terms)
    if isinstance(outcome, Refusal) or not outcome:
        return outcome
    return [CommandTaken(command.command_id, digest, max(now, bill.at), command.by), *outcome]


def _decide(bill: Bill, command: Command, now: int, terms: MoneyTerms) -> list[Event] | Refusal:
    if isinstance(command, OpenBill):
        return _open(bill, command, terms)
    if bill.opened is None:
        return Refusal(Reason.BILL_UNKNOWN)
    match command:
        case StartPayment():
            return _start(bill, bill.opened, command, now)
        case PrepayAnswered() | PrepayRefused() | PaymentOutcomeLost() | PaymentFound() | PaymentReported():
            return _of_attempt(bill, bill.opened, command)
        case PayAtHospital():
            return _defer(bill, bill.opened, command, now, terms)
        case TakeAtDesk():
            return _take_at_desk(bill, bill.opened, command, now)
        case CloseBill():
            return _close(bill, command)
        case SeatTaken():
            return _seat_taken(bill, bill.opened, command)
        case SeatTakenAgain():
            return _seat_taken_again(bill, bill.opened, command)
        case SeatGone():
            return _seat_gone(bill, bill.opened, command)
        case SeatMoved():
            return _seat_moved(bill, command)
        case RequestRefund():
            return _request_refund(bill, bill.opened, command)
        case _:
            return _of_refund(bill, command, now)


def _open(bill: Bill, command: OpenBill, terms: MoneyTerms) -> list[Event] | Refusal:
    if bill.opened is not None:
        same = (bill.opened.bill_id, bill.opened.order) == (command.bill_id, command.order)
        return [] if same else Refusal(Reason.KEY_REUSED)
    if command.currency != CURRENCY:
        return Refusal(Reason.CURRENCY_MISMATCH)
    why = _unfit(command)
    if why:
        return Refusal(Reason.BILL_UNFIT, {"why": why})
    fen = sum(line.fen for line in command.lines) - sum(one.fen for one in command.discounts)
    back = terms.refunds.terms_of(command.department_id, command.number_class_id)
    opened = BillOpened(
        command.bill_id,
        command.account_id,
        command.patient_id,
        command.order,
        command.lines,
        command.discounts,
        fen,
        command.appointment_id,
        command.starts_at,
        command.pay_by,
        back.tiers,
        back.no_show_percent,
        command.department_id,
        command.number_class_id,
    )
    free = not fen and not command.appointment_id
    return [opened, BillSettled(())] if free else [opened]


def _unfit(command: OpenBill) -> str:
    """What is wrong with its figures."""
    left = {line.line_id: line.fen for line in command.lines}
    if not left or len(command.lines) > BILL_LINES_MAX:
        return "lines"
    if len(left) < len(command.lines):
        return "line_twice"
    if min(left.values()) < 0 or min(line.quantity for line in command.lines) < 1:
        return "negative"
    if sum(left.values()) > BILL_FEN_MAX:
        return "too_much"
    for discount in command.discounts:
        if discount.fen <= 0 or left.get(discount.line_id, 0) < discount.fen:
            return "discount"
        left[discount.line_id] -= discount.fen
    return ""


def _unpayable(bill: Bill, opened: BillOpened, now: int) -> Refusal | None:
    """Why nobody may begin to pay."""
    if bill.paid_by or not opened.fen:
        return Refusal(Reason.BILL_PAID)
    if bill.closed == Cause.EXPIRED and bill.appointment_id:
        return Refusal(Reason.HOLD_EXPIRED)
    if bill.closed:
        return Refusal(Reason.BILL_CLOSED, {"why": bill.closed})
    if opened.pay_by and opened.pay_by <= now and bill.seat is not Seat.TAKEN:
        # The schedule treats the hold as ended the instant it is, whether or not it has told us.
        seat = bill.seat is Seat.HELD
        return Refusal(Reason.HOLD_EXPIRED) if seat else Refusal(Reason.BILL_CLOSED, {"why": Cause.EXPIRED})
    return None


def _start(bill: Bill, opened: BillOpened, command: StartPayment, now: int) -> list[Event] | Refusal:
    known = bill.attempts.get(command.attempt_id)
    if known is not None:
        same = (known.provider, known.merchant_id) == (command.provider, command.merchant_id)
        return [] if same else Refusal(Reason.KEY_REUSED)
    if not command.merchant_id or command.provider in ("", AT_HOSPITAL):
        return Refusal(Reason.PROVIDER_OFF)
    unpayable = _unpayable(bill, opened, now)
    if unpayable is not None:
        return unpayable
    for attempt_id, attempt in bill.attempts.items():
        if attempt.provider == command.provider and attempt.state <= Paying.UNKNOWN:
            return Refusal(Reason.PAYMENT_UNDER_WAY, {"attempt_id": attempt_id.hex()})
    if len(bill.attempts) >= BILL_PAYMENTS_MAX:
        return Refusal(Reason.TOO_MANY_PAYMENTS, {"limit": BILL_PAYMENTS_MAX})
    return [PaymentStarted(command.attempt_id, command.provider, command.merchant_id, opened.fen)]


def _of_attempt(bill: Bill, opened: BillOpened, command: OfAttempt) -> list[Event] | Refusal:
    attempt_id = command.attempt_id
    attempt = bill.attempts.get(attempt_id)
    if attempt is None:
        return Refusal(Reason.NO_SUCH_PAYMENT)
    if isinstance(command, PaymentReported):
        return _reported(bill, opened, attempt, command)
    if attempt.state in (Paying.PAID, Paying.CLOSED):
        return []  # what is known is final; this was said before it, or of a moment before it
    match command:
        case PrepayAnswered():
            if attempt.state is Paying.ASKED and attempt.prepay == command.prepay:
                return []
            return [PrepayReady(attempt_id, command.prepay)]
        case PrepayRefused():
            # Perhaps because an earlier asking was heard, whose sender died before he could say so.
            created = attempt.state is Paying.CREATED
            return [PaymentUncertain(attempt_id, command.code)] if created else []
        case PaymentOutcomeLost():
            return [] if attempt.state is Paying.UNKNOWN else [PaymentUncertain(attempt_id)]
        case PaymentFound():
            return _found(attempt_id, attempt, command)
        case _:
            assert_never(command)


def _found(attempt_id: bytes, attempt: Attempt, command: PaymentFound) -> list[Event] | Refusal:
    match command.found:
        case Found.CLOSED:
            return [PaymentEnded(attempt_id, True)]
        case Found.OPEN:
            return [] if attempt.state is Paying.ASKED else [PrepayReady(attempt_id, attempt.prepay)]
        case Found.NONE if attempt.state in (Paying.CREATED, Paying.UNKNOWN):
            return [PaymentEnded(attempt_id, False, attempt.code or Found.NONE)]
        case Found.NONE:
            return []
        case _:
            return Refusal(Reason.WRONG_BILL_STATE)


def _reported(
    bill: Bill, opened: BillOpened, attempt: Attempt, command: PaymentReported
) -> list[Event] | Refusal:
    if (command.provider, command.merchant_id) != (attempt.provider, attempt.merchant_id):
        return Refusal(Reason.FOREIGN_MERCHANT)
    if command.currency != CURRENCY:
        return Refusal(Reason.CURRENCY_MISMATCH)
    if attempt.state is Paying.PAID:
        same = (attempt.transaction_id, attempt.received) == (command.transaction_id, command.fen)
        return [] if same else Refusal(Reason.PAYMENT_CONTRADICTS)
    taken = {(other.provider, other.transaction_id) for other in bill.attempts.values()}
    if not command.transaction_id or (command.provider, command.transaction_id) in taken:
        return Refusal(Reason.PAYMENT_CONTRADICTS)
    odd = command.fen != attempt.fen
    if command.fen <= 0 or (odd and command.via == Via.CALLBACK):
        return Refusal(Reason.AMOUNT_MISMATCH, {"due": attempt.fen})
    money = PaymentReceived(
        command.attempt_id,
        command.provider,
        command.transaction_id,
        command.fen,
        False,
        "amount" if odd else "",
        command.via,
        command.paid_at,
    )
    return _receive(bill, opened, money)


def _receive(bill: Bill, opened: BillOpened, money: PaymentReceived) -> list[Event]:
    """Money that is really there: it is the bill's, or goes back."""
    why = money.why
    is_late = bool(bill.closed)
    if not why and bill.paid_by:
        why = "double"
    elif not why and is_late and bill.seat is not Seat.LAPSED:
        why = "late"
    received = PaymentReceived(
        money.attempt_id,
        money.provider,
        money.transaction_id,
        money.fen,
        not why,
        why or ("late" if is_late else ""),
        money.via,
        money.paid_at,
    )
    if why:
        sources = ((ledger.SUSPENSE, money.fen),)
        refund_id = own_refund_id(money.attempt_id)
        back = RefundRequested(refund_id, money.attempt_id, money.fen, sources, (), why)
        return [received, back]
    served = bill.seat in (Seat.NONE, Seat.TAKEN)
    return [received, _settled(opened)] if served else [received]


def _settled(opened: BillOpened) -> BillSettled:
    by_kind: dict[str, int] = {}
    for line_id, fen in net(opened).items():
        kind = next(line.kind for line in opened.lines if line.line_id == line_id)
        by_kind[kind] = by_kind.get(kind, 0) + fen
    return BillSettled(tuple((kind, fen) for kind, fen in by_kind.items() if fen))


def _defer(
    bill: Bill, opened: BillOpened, command: PayAtHospital, now: int, terms: MoneyTerms
) -> list[Event] | Refusal:
    if bill.is_deferred:
        return []
    unpayable = _unpayable(bill, opened, now)
    if unpayable is not None:
        return unpayable
    allowed = terms.at_hospital
    if allowed is None:
        return Refusal(Reason.AT_HOSPITAL_NOT_ALLOWED, {"why": "off"})
    if allowed.fen_max is not None and opened.fen > allowed.fen_max:
        return Refusal(Reason.AT_HOSPITAL_NOT_ALLOWED, {"why": "amount", "limit": allowed.fen_max})
    if allowed.unpaid_max is not None and command.unpaid_elsewhere + 1 > allowed.unpaid_max:
        return Refusal(Reason.AT_HOSPITAL_NOT_ALLOWED, {"why": "unpaid", "limit": allowed.unpaid_max})
    return [PaymentDeferred()]


def _take_at_desk(bill: Bill, opened: BillOpened, command: TakeAtDesk, now: int) -> list[Event] | Refusal:
    known = bill.attempts.get(command.attempt_id)
    if known is not None:
        same = (known.provider, known.transaction_id) == (AT_HOSPITAL, command.receipt)
        return [] if same else Refusal(Reason.KEY_REUSED)
    unpayable = _unpayable(bill, opened, now)
    if unpayable is not None:
        return unpayable
    if command.fen != opened.fen or not command.receipt:
        return Refusal(Reason.AMOUNT_MISMATCH, {"due": opened.fen})
    if len(bill.attempts) >= BILL_PAYMENTS_MAX:
        return Refusal(Reason.TOO_MANY_PAYMENTS, {"limit": BILL_PAYMENTS_MAX})
    started = PaymentStarted(command.attempt_id, AT_HOSPITAL, "", opened.fen)
    money = PaymentReceived(command.attempt_id, AT_HOSPITAL, command.receipt, command.fen, False)
    return [started, *_receive(bill, opened, money)]


def _close(bill: Bill, command: CloseBill) -> list[Event] | Refusal:
    if bill.closed:
        return []
    if bill.appointment_id:
        return Refusal(Reason.WRONG_BILL_STATE)
    if bill.paid_by or bill.is_settled:
        return Refusal(Reason.BILL_PAID)
    return [BillClosed(command.cause)]


def _is_covered(bill: Bill, opened: BillOpened) -> bool:
    """Nothing is to be paid for the seat, now."""
    return bool(bill.paid_by) or not opened.fen


def _is_known(bill: Bill, appointment_id: bytes) -> bool:
    return appointment_id in bill.former or appointment_id == bill.appointment_id != b""


def _seat_taken(bill: Bill, opened: BillOpened, command: SeatTaken) -> list[Event] | Refusal:
    appointment_id = command.appointment_id
    if not _is_known(bill, appointment_id):
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment_id != bill.appointment_id:
        return []  # it was given up for the one that is the bill's now
    match bill.seat:
        case Seat.TAKEN:
            return []
        case Seat.HELD:
            secured = SeatSecured(appointment_id)
            return [secured, _settled(opened)] if _is_covered(bill, opened) else [secured]
        case _:
            return [] if appointment_id in bill.unwanted else [SeatUnwanted(appointment_id)]


def _seat_taken_again(bill: Bill, opened: BillOpened, command: SeatTakenAgain) -> list[Event] | Refusal:
    if not _is_known(bill, command.appointment_id):
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    again = retaken_id(command.appointment_id)
    if _is_known(bill, again) or again in bill.unwanted:
        return []
    if command.appointment_id != bill.appointment_id or not _wants_again(bill):
        return [SeatUnwanted(again)]
    return [
        SeatChanged(command.appointment_id, again, bill.starts_at),
        SeatSecured(again),
        _settled(opened),
    ]


def _wants_again(bill: Bill) -> bool:
    return bill.seat is Seat.LAPSED and bill.paid_by != b"" and not bill.is_settled


def _seat_gone(bill: Bill, opened: BillOpened, command: SeatGone) -> list[Event] | Refusal:
    appointment_id, cause = command.appointment_id, command.cause
    if appointment_id in bill.unwanted:
        return [SeatReleased(appointment_id)]
    if not _is_known(bill, appointment_id):
        # What was released may be reported again.
        derived = {retaken_id(one) for one in (*bill.former, bill.appointment_id)}
        return [] if appointment_id in derived else Refusal(Reason.NO_SUCH_APPOINTMENT)
    if appointment_id != bill.appointment_id or bill.seat is Seat.GONE:
        return []
    if cause == Cause.EXPIRED:
        if bill.seat is Seat.TAKEN:
            return Refusal(Reason.WRONG_BILL_STATE)  # a booked seat never expires
        return [SeatLapsed(appointment_id)] if bill.seat is Seat.HELD else []
    if cause not in set(Cause):
        return Refusal(Reason.WRONG_BILL_STATE)
    if cause == Cause.FULL and not _wants_again(bill):
        return [] if bill.seat is Seat.LAPSED else Refusal(Reason.WRONG_BILL_STATE)
    return _seat_lost(bill, opened, command)


def _seat_lost(bill: Bill, opened: BillOpened, command: SeatGone) -> list[Event]:
    """The end of it: what was paid goes back, in full unless the service was the patient's already."""
    percent, kept = 100, 0
    lines: tuple[tuple[str, int], ...] = ()
    sources: tuple[tuple[str, int], ...] = ()
    if bill.is_settled:
        rules = RefundTerms(opened.refund_tiers, opened.no_show_percent)
        percent = percent_back(rules, command.cause, bill.starts_at, command.at)
        left = left_of(bill)
        lines = tuple((line_id, part(fen, percent)) for line_id, fen in left.items() if part(fen, percent))
        sources = _sources(opened, lines)
        kept = sum(left.values()) - sum(fen for _, fen in lines)
    elif bill.paid_by:
        sources = ((ledger.PATIENT, opened.fen),)
    events: list[Event] = [SeatLost(command.appointment_id, command.cause, percent, kept, command.at)]
    if sources:
        fen = sum(fen for _, fen in sources)
        refund_id = own_refund_id(bill.paid_by)
        events.append(RefundRequested(refund_id, bill.paid_by, fen, sources, lines, command.cause))
    if _wants_again(bill):
        # Whoever was sent for another seat may have got one, and died before he could say so.
        events.append(SeatUnwanted(retaken_id(command.appointment_id)))
    return events


def _seat_moved(bill: Bill, command: SeatMoved) -> list[Event] | Refusal:
    if command.successor == bill.appointment_id and command.starts_at == bill.starts_at:
        return []
    if not _is_known(bill, command.appointment_id):
        return Refusal(Reason.NO_SUCH_APPOINTMENT)
    if command.appointment_id != bill.appointment_id:
        return []
    if bill.seat not in (Seat.HELD, Seat.TAKEN) or command.successor in bill.former:
        return Refusal(Reason.WRONG_BILL_STATE)
    return [SeatChanged(command.appointment_id, command.successor, command.starts_at)]


def _sources(opened: BillOpened, lines: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    kinds = {line.line_id: line.kind for line in opened.lines}
    sums: dict[str, int] = {}
    for line_id, fen in lines:
        account = ledger.of_revenue(kinds[line_id])
        sums[account] = sums.get(account, 0) + fen
    return tuple(sums.items())


def _request_refund(bill: Bill, opened: BillOpened, command: RequestRefund) -> list[Event] | Refusal:
    known = bill.refunds.get(command.refund_id)
    if known is not None:
        return [] if known.lines == command.lines else Refusal(Reason.KEY_REUSED)
    if not bill.is_settled or not bill.paid_by:
        return Refusal(Reason.WRONG_BILL_STATE)
    if command.refund_id == own_refund_id(bill.paid_by):
        return Refusal(Reason.KEY_REUSED)
    left = left_of(bill)
    if not command.lines or len({line_id for line_id, _ in command.lines}) < len(command.lines):
        return Refusal(Reason.BILL_UNFIT, {"why": "lines"})
    for line_id, fen in command.lines:
        if fen <= 0:
            return Refusal(Reason.BILL_UNFIT, {"why": "negative"})
        if fen > left.get(line_id, 0):
            return Refusal(Reason.REFUND_TOO_LARGE, {"limit": left.get(line_id, 0)})
    # One is kept for what the rules may yet give back.
    if sum(refund.attempt_id == bill.paid_by for refund in bill.refunds.values()) >= PAYMENT_REFUNDS_MAX - 1:
        return Refusal(Reason.TOO_MANY_PAYMENTS, {"limit": PAYMENT_REFUNDS_MAX})
    sources = _sources(opened, command.lines)
    fen = sum(fen for _, fen in command.lines)
    return [RefundRequested(command.refund_id, bill.paid_by, fen, sources, command.lines, command.why)]


def _of_refund(bill: Bill, command: OfRefund, now: int) -> list[Event] | Refusal:
    refund_id = command.refund_id
    refund = bill.refunds.get(refund_id)
    if refund is None:
        return Refusal(Reason.NO_SUCH_REFUND)
    state = refund.state
    is_done = state is Refunding.DONE
    match command:
        case RefundAccepted():
            late = state in (Refunding.SENT, Refunding.REFUSED, Refunding.DONE)
            return [] if late else [RefundSent(refund_id)]
        case RefundOutcomeLost():
            late = state in (Refunding.UNKNOWN, Refunding.REFUSED, Refunding.DONE)
            return [] if late else [RefundUncertain(refund_id)]
        case RefundFound():
            if is_done or state is Refunding.REFUSED:
                return []
            if command.found == Found.NONE:
                if refund.code:
                    return [RefundRejected(refund_id, refund.code)]
                return [] if state is Refunding.REQUESTED else [RefundReset(refund_id)]
            if command.found == Found.OPEN:
                return [] if state is Refunding.SENT else [RefundSent(refund_id)]
            return Refusal(Reason.WRONG_BILL_STATE)
        case RefundReported():
            return _refund_reported(bill, refund, command)
        case RefundRefused():
            if is_done:
                same = refund.provider == AT_HOSPITAL
                return [] if same else Refusal(Reason.REFUND_CONTRADICTS)
            if state is Refunding.REFUSED:
                return []
            if command.is_final:
                return [RefundRejected(refund_id, command.code)]
            # Perhaps because an earlier sending was heard: a query tells before the desk may pay.
            again = state is Refunding.UNKNOWN and refund.code == command.code
            return [] if again else [RefundUncertain(refund_id, command.code)]
        case RetryRefund():
            return [RefundReset(refund_id)] if state is Refunding.REFUSED else []
        case RefundAtDesk():
            if is_done:
                same = (refund.provider, refund.reference) == (AT_HOSPITAL, command.receipt)
                return [] if same else Refusal(Reason.REFUND_CONTRADICTS)
            in_cash = bill.attempts[refund.attempt_id].provider == AT_HOSPITAL
            since = refund.since + BY_HAND_AFTER_MS
            if not in_cash and (state is not Refunding.REFUSED or now < since):
                return Refusal(Reason.REFUND_UNSETTLED)
            return [RefundDone(refund_id, AT_HOSPITAL, command.receipt, refund.fen)]
        case _:
            assert_never(command)


def _refund_reported(bill: Bill, refund: Refund, command: RefundReported) -> list[Event] | Refusal:
    if command.provider != bill.attempts[refund.attempt_id].provider or command.provider == AT_HOSPITAL:
        return Refusal(Reason.FOREIGN_MERCHANT)
    if command.currency != CURRENCY:
        return Refusal(Reason.CURRENCY_MISMATCH)
    if command.fen != refund.fen:
        return Refusal(Reason.AMOUNT_MISMATCH, {"due": refund.fen})
    if refund.state is Refunding.DONE:
        same = (refund.provider, refund.reference) == (command.provider, command.reference)
        return [] if same else Refusal(Reason.REFUND_CONTRADICTS)
    return [RefundDone(command.refund_id, command.provider, command.reference, command.fen)]


# Apply: never refuses.


def apply(bill: Bill, event: Event) -> None:
    ledger.add(bill.balances, postings(event))
    match event:
        case CommandTaken():
            bill.at = event.at
            bill.commands[event.command_id] = event.digest
            if len(bill.commands) > BILL_COMMANDS_REMEMBERED:
                del bill.commands[next(iter(bill.commands))]
        case BillOpened():
            bill.opened = event
            bill.appointment_id, bill.starts_at = event.appointment_id, event.starts_at
            bill.seat = Seat.HELD if event.appointment_id else Seat.NONE
        case PaymentStarted():
            bill.attempts[event.attempt_id] = Attempt(
                event.provider, event.merchant_id, event.fen, bill.at, bill.at
            )
        case PrepayReady():
            _attempt(bill, event.attempt_id, Paying.ASKED).prepay = event.prepay
        case PaymentUncertain():
            _attempt(bill, event.attempt_id, Paying.UNKNOWN).code = event.code
        case PaymentEnded():
            state = Paying.CLOSED if event.is_closed else Paying.FAILED
            _attempt(bill, event.attempt_id, state).code = event.code
        case PaymentReceived():
            attempt = _attempt(bill, event.attempt_id, Paying.PAID)
            attempt.transaction_id, attempt.received = event.transaction_id, event.fen
            attempt.is_matched, attempt.paid_at = event.is_matched, event.paid_at
            if event.is_matched:
                bill.paid_by = event.attempt_id
                bill.closed = ""
        case PaymentDeferred():
            bill.is_deferred = True
        case BillSettled():
            bill.is_settled = True
        case BillClosed():
            bill.closed = event.cause
        case SeatSecured():
            bill.seat = Seat.TAKEN
        case SeatLapsed():
            bill.seat = Seat.LAPSED
            if not bill.paid_by:
                bill.closed = Cause.EXPIRED
        case SeatLost():
            bill.seat = Seat.GONE
            bill.closed = event.cause
        case SeatChanged():
            if event.successor != event.appointment_id:
                bill.former.add(event.appointment_id)
            bill.appointment_id, bill.starts_at = event.successor, event.starts_at
        case SeatUnwanted():
            bill.unwanted.add(event.appointment_id)
        case SeatReleased():
            bill.unwanted.discard(event.appointment_id)
        case RefundRequested():
            bill.refunds[event.refund_id] = Refund(
                event.attempt_id, event.fen, event.sources, event.lines, event.cause, bill.at, bill.at
            )
        case RefundSent():
            _refund(bill, event.refund_id, Refunding.SENT).code = ""
        case RefundUncertain():
            _refund(bill, event.refund_id, Refunding.UNKNOWN).code = event.code
        case RefundReset():
            _refund(bill, event.refund_id, Refunding.REQUESTED).code = ""
        case RefundRejected():
            _refund(bill, event.refund_id, Refunding.REFUSED).code = event.code
        case RefundDone():
            refund = _refund(bill, event.refund_id, Refunding.DONE)
            refund.provider, refund.reference = event.provider, event.reference
        case _:
            assert_never(event)


def _attempt(bill: Bill, attempt_id: bytes, state: Paying) -> Attempt:
    attempt = bill.attempts[attempt_id]
    attempt.state, attempt.since = state, bill.at
    return attempt


def _refund(bill: Bill, refund_id: bytes, state: Refunding) -> Refund:
    refund = bill.refunds[refund_id]
    refund.state, refund.since = state, bill.at
    return refund


def replay(events: list[Event]) -> Bill:
    bill = Bill()
    for event in events:
        apply(bill, event)
    return bill


def postings(event: Event) -> tuple[Posting, ...]:
    """What an event means for the ledger. They sum to 0; most events move no money."""
    match event:
        case PaymentReceived():
            return ledger.received(event.provider, event.fen, event.is_matched)
        case BillSettled():
            return ledger.earned(event.earned)
        case RefundRequested():
            return ledger.owed_back(event.sources)
        case RefundDone():
            return ledger.given_back(event.provider, event.fen)
        case _:
            return ()


# What others may ask of the state.


def net(opened: BillOpened) -> dict[str, int]:
    """Line -> fen after discounts."""
    left = {line.line_id: line.fen for line in opened.lines}
    for discount in opened.discounts:
        left[discount.line_id] -= discount.fen
    return left


def left_of(bill: Bill) -> dict[str, int]:
    """Line -> fen that were paid for it and have not been asked back."""
    if bill.opened is None or not bill.paid_by:
        return {}
    left = net(bill.opened)
    for refund in bill.refunds.values():
        for line_id, fen in refund.lines:
            left[line_id] -= fen
    return left


@dataclass(frozen=True, slots=True)
class Told:
    """A bill as its row in the records and its page show it."""

    status: str
    fen: int
    paid: int  # for this bill; money that was not for it is not counted
    refunded: int  # of that
    owed_back: int  # of that, and of everything else: asked for, not yet given
    kept: int  # of that, where the seat was given up: what the rules did not give back


def told(bill: Bill) -> Told:
    assert bill.opened is not None
    own = [refund for refund in bill.refunds.values() if refund.attempt_id == bill.paid_by]
    done = sum(refund.fen for refund in own if refund.state is Refunding.DONE)
    owed = sum(refund.fen for refund in bill.refunds.values() if refund.state is not Refunding.DONE)
    paid = bill.opened.fen if bill.paid_by else 0
    kept = sum(left_of(bill).values()) if bill.is_settled and bill.closed else 0
    return Told(_status(bill, own, paid, done), bill.opened.fen, paid, done, owed, kept)


def _status(bill: Bill, own: list[Refund], paid: int, done: int) -> Status:
    if own:
        if any(refund.state is not Refunding.DONE for refund in own):
            return Status.REFUNDING
        return Status.REFUNDED if done == paid else Status.PARTLY_REFUNDED
    if bill.closed:
        return Status.CLOSED
    if bill.is_settled:
        return Status.SETTLED
    if bill.paid_by:
        return Status.PAID
    return Status.AT_HOSPITAL if bill.is_deferred else Status.OPEN


@dataclass(frozen=True, slots=True)
class Answer:
    """What whoever asked learns, also the second time."""

    bill_id: bytes
    status: str
    fen: int
    paid: int
    refunded: int
    owed_back: int
    appointment_id: bytes  # that the bill is for now; b"": none
    seen: int = 0  # the version in its stream that this is as of


Reply = Answer


def reply_to(bill: Bill, command: Command) -> Answer:
    """Of every command that was not refused. `seen` is the host's to fill in."""
    assert bill.opened is not None
    now = told(bill)
    return Answer(
        bill.opened.bill_id, now.status, now.fen, now.paid, now.refunded, now.owed_back, bill.appointment_id
    )


class Do(StrEnum):
    """What is to be done outside, and the commands that tell how it went."""

    ASK_PREPAY = "ask_prepay"  # PrepayAnswered, PrepayRefused, PaymentOutcomeLost
    QUERY_PAYMENT = "query_payment"  # PaymentReported, PaymentFound
    CLOSE_PAYMENT = "close_payment"  # PaymentFound(CLOSED), PaymentReported, PaymentOutcomeLost
    LOOK_AT_SEAT = "look_at_seat"  # SeatTaken, SeatGone, SeatMoved: what its row says, or nothing yet
    BOOK_SEAT = "book_seat"  # SeatTaken, SeatGone(EXPIRED or what the schedule says)
    RETAKE_SEAT = "retake_seat"  # SeatTakenAgain, SeatGone(FULL)
    RELEASE_SEAT = "release_seat"  # SeatGone
    SEND_REFUND = "send_refund"  # RefundReported, RefundAccepted, RefundRefused, RefundOutcomeLost
    QUERY_REFUND = "query_refund"  # RefundReported, RefundFound, RefundRefused
    REFUND_BY_HAND = "refund_by_hand"  # the desk's: RetryRefund, RefundAtDesk
    CLOSE_BILL = "close_bill"  # CloseBill(EXPIRED)


@dataclass(frozen=True, slots=True)
class Errand:
    do: str
    subject: bytes  # an attempt, a refund, an appointment; b"": the bill
    due: int  # not before; 0: at once
    successor: bytes = b""  # RETAKE_SEAT: the appointment to make of it


def errands(bill: Bill) -> list[Errand]:
    """What stands between the bill and its rest. All of it may be done twice."""
    opened = bill.opened
    if opened is None:
        return []
    found: list[Errand] = []
    to_pay = not _is_covered(bill, opened) and not bill.closed
    for attempt_id, attempt in bill.attempts.items():
        match attempt.state:
            case Paying.CREATED if to_pay:
                found.append(Errand(Do.ASK_PREPAY, attempt_id, attempt.since))
            case Paying.CREATED | Paying.UNKNOWN:
                found.append(Errand(Do.QUERY_PAYMENT, attempt_id, attempt.since))
            case Paying.ASKED if to_pay:
                found.append(Errand(Do.QUERY_PAYMENT, attempt_id, attempt.since + POLL_MS))
            case Paying.ASKED:
                found.append(Errand(Do.CLOSE_PAYMENT, attempt_id, bill.at))
            case _:
                pass
    mine = bill.appointment_id
    if bill.seat is Seat.HELD and (_is_covered(bill, opened) or bill.is_deferred):
        found.append(Errand(Do.BOOK_SEAT, mine, 0))
    elif bill.seat is Seat.HELD:
        # The hold may have ended in the instant before the bill was opened: then nobody reports it.
        found.append(Errand(Do.LOOK_AT_SEAT, mine, opened.pay_by + LOOK_AFTER_MS))
    if _wants_again(bill):
        found.append(Errand(Do.RETAKE_SEAT, mine, 0, retaken_id(mine)))
    found += [Errand(Do.RELEASE_SEAT, appointment_id, 0) for appointment_id in sorted(bill.unwanted)]
    for refund_id, refund in bill.refunds.items():
        match refund.state:
            case Refunding.REQUESTED:
                by_hand = bill.attempts[refund.attempt_id].provider == AT_HOSPITAL
                do = Do.REFUND_BY_HAND if by_hand else Do.SEND_REFUND
                found.append(Errand(do, refund_id, refund.since))
            case Refunding.UNKNOWN:
                found.append(Errand(Do.QUERY_REFUND, refund_id, refund.since))
            case Refunding.SENT:
                found.append(Errand(Do.QUERY_REFUND, refund_id, refund.since + POLL_MS))
            case Refunding.REFUSED:
                found.append(Errand(Do.REFUND_BY_HAND, refund_id, refund.since + BY_HAND_AFTER_MS))
            case Refunding.DONE:
                pass
    if to_pay and opened.pay_by and bill.seat is Seat.NONE:
        found.append(Errand(Do.CLOSE_BILL, b"", opened.pay_by))
    return found


def ledger_error(bill: Bill) -> int:
    """Fen that the accounts and the bill's own states tell differently. Must read 0."""
    expected: dict[str, int] = {}
    for attempt in bill.attempts.values():
        ledger.add(
            expected,
            ledger.received(attempt.provider, attempt.received, attempt.is_matched)
            if attempt.received
            else (),
        )
    if bill.is_settled and bill.opened is not None:
        ledger.add(expected, ledger.earned(_settled(bill.opened).earned))
    for refund in bill.refunds.values():
        ledger.add(expected, ledger.owed_back(refund.sources))
        if refund.state is Refunding.DONE:
            ledger.add(expected, ledger.given_back(refund.provider, refund.fen))
    accounts = expected.keys() | bill.balances.keys()
    error = sum(abs(expected.get(one, 0) - bill.balances.get(one, 0)) for one in accounts)
    for attempt_id, attempt in bill.attempts.items():
        back = sum(refund.fen for refund in bill.refunds.values() if refund.attempt_id == attempt_id)
        error += max(0, back - attempt.received)
    return error + abs(ledger.imbalance(bill.balances))


def digest_of(command: Command) -> bytes:
    """What a command says, as 16 bytes: the same after a journey over the wire, and when a later version has
    added a field to it."""
    return hashlib.blake2b(f"{type(command).__name__}{_spelled(command)}".encode(), digest_size=16).digest()


def _spelled(value: object) -> str:
    match value:
        case bytes():
            return value.hex()
        case str():
            return repr(str(value))
        case int():
            return str(int(value))
        case tuple() | list():
            return f"({','.join(map(_spelled, value))})"
        case _:
            return _fields(value)


def _fields(value: object) -> str:
    told = (
        f"{one.name}={_spelled(getattr(value, one.name))}"
        for one in fields(value)  # type: ignore[arg-type]
        if one.default is MISSING or getattr(value, one.name) != one.default
    )
    return f"{{{','.join(told)}}}"
