"""What only a replay can tell of money: the tables of bills and the ledger against the bills that their
events make, and against the numbers that were paid for. See web/audit.py."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
import orjson

from engine.domain import ledger
from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain.ids import BillKey
from engine.domain.refund_rules import Cause
from engine.journal.bills import bill_row, payment_row, refund_row
from engine.journal.codec import unpack_event
from web.audit_replay import Check, word

BILLS_AT_ONCE: Final = 1_000

_BILLS: Final = """
select id, account_id, patient_id, order_no, lines, discounts, fen, pay_by,
       jsonb_build_array(department_id, number_class_id) as department_and_class, appointment_id, starts_at,
       seat, status, closed, is_deferred, is_settled, paid_by, paid, refunded, owed_back, kept, updated_at,
       version
  from bill where id = any ($1::uuid[])"""
_PAYMENTS: Final = """
select id, bill_id, provider, merchant_id, fen, state, code, transaction_id, received, is_matched, begun_at,
       since, paid_at
  from payment where bill_id = any ($1::uuid[])"""
_REFUNDS: Final = """
select id, bill_id, payment_id, fen, cause, state, code, provider, reference, begun_at, since
  from refund where bill_id = any ($1::uuid[])"""
_POSTINGS: Final = """
select bill_id, version, n, at, account, fen
  from posting where bill_id = any ($1::uuid[]) order by bill_id, version, n"""
_STRAYS: Final = """
select x.what, x.id from (
    select 'bill' as what, id, id as bill_id from bill
    union all select 'payment', id, bill_id from payment
    union all select 'refund', id, bill_id from refund
    union all select distinct 'posting of bill', bill_id, bill_id from posting) x
 where not exists (select from event e where e.stream = 'bill/' || replace(x.bill_id::text, '-', ''))
 order by x.what, x.id"""

_IS_SERVED: Final = (s.Status.BOOKED, s.Status.ARRIVED, s.Status.FULFILLED)


@dataclass(slots=True)
class _Replayed:
    bill: p.Bill = field(default_factory=p.Bill)
    version: int = 0
    postings: list[list[object]] = field(default_factory=list)

    def apply(self, key: BillKey, event: p.Event) -> None:
        p.apply(self.bill, event)
        self.version += 1
        self.postings += [
            [key.bill_id.hex(), self.version, n, self.bill.at, account, fen]
            for n, (account, fen) in enumerate(p.postings(event), 1)
        ]


class BillComparison:
    """Bill by bill, some thousand at a time."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._replays = Check("bills replay")
        self._rows = Check("bills as replayed")
        self._ledger = Check("ledger as replayed")
        self._numbers = Check("paid numbers are booked")
        self._errands = Check("bills looked after")
        self._waiting: set[tuple[str, str]] = set()
        """Errands that are on their way: (kind, key)."""

    async def run(self) -> list[Check]:
        for row in await self._connection.fetch(
            "select kind, key from errand where kind in ('bill', 'bill_seat')"
        ):
            self._waiting.add((row["kind"], row["key"]))
        rows = await self._connection.fetch(
            "select distinct stream from event where stream like 'bill/%' order by stream"
        )
        keys = [BillKey.of_stream(row["stream"]) for row in rows]
        for first in range(0, len(keys), BILLS_AT_ONCE):
            await self._compare(keys[first : first + BILLS_AT_ONCE])
        await self._tables()
        return [self._replays, self._rows, self._ledger, self._numbers, self._errands]

    async def _compare(self, keys: list[BillKey]) -> None:
        events: dict[str, list[p.Event]] = {key.stream: [] for key in keys}
        unreadable: dict[str, str] = {}
        for row in await self._connection.fetch(
            "select stream, version, type, data from event where stream = any ($1) order by stream, version",
            list(events),
        ):
            self._replays.examined += 1
            try:
                events[row["stream"]].append(cast(p.Event, unpack_event(row["type"], row["data"])))
            except Exception as error:  # damaged bytes may raise anything, and the audit must go on
                unreadable.setdefault(row["stream"], f"event {row['version']}: {error!r}")
        found: dict[BillKey, _Replayed] = {}
        for key in keys:
            why = unreadable.get(key.stream)
            replayed = _Replayed()
            try:
                for event in events[key.stream] if why is None else ():
                    replayed.apply(key, event)
                opened = replayed.bill.opened
                if why is None and (opened is None or opened.bill_id != key.bill_id):
                    why = "was never opened"
            except Exception as error:  # as above: a journal with a hole may break anything
                why = repr(error)
            if why is None:
                found[key] = replayed
            else:
                self._replays.wrong(f"{key.stream}: {why}")
        await self._compare_rows(found)
        await self._compare_numbers(found)

    async def _compare_rows(self, found: dict[BillKey, _Replayed]) -> None:
        ids = [UUID(bytes=key.bill_id) for key in found]
        fetch = self._connection.fetch
        bills = {row["id"].bytes: _values(row)[1:] for row in await fetch(_BILLS, ids)}
        payments = _by_bill(await fetch(_PAYMENTS, ids))
        refunds = _by_bill(await fetch(_REFUNDS, ids))
        postings: dict[bytes, list[list[object]]] = {}
        for row in await fetch(_POSTINGS, ids):
            postings.setdefault(row["bill_id"].bytes, []).append(_values(row))
        for key, replayed in found.items():
            bill, id_ = replayed.bill, key.bill_id
            self._rows.examined += 1 + len(bill.attempts) + len(bill.refunds)
            want = bill_row(bill, replayed.version)
            have = bills.get(id_)
            if have != want:
                told = (
                    "is in the journal alone" if have is None else f"the table has {_differing(have, want)}"
                )
                self._rows.wrong(f"{key.stream}: {told}")
            for what, has, should in (
                ("payments", payments, {one: payment_row(bill, key, one) for one in bill.attempts}),
                ("refunds", refunds, {one: refund_row(bill, key, one) for one in bill.refunds}),
            ):
                if has.get(id_, {}) != should:
                    self._rows.wrong(f"{key.stream}: the table has other {what}")
            self._compare_postings(key, replayed, postings.get(id_, []))
            self._look_for_errand(key, bill)

    def _compare_postings(self, key: BillKey, replayed: _Replayed, have: list[list[object]]) -> None:
        self._ledger.examined += len(replayed.postings)
        if have != replayed.postings:
            self._ledger.wrong(f"{key.stream}: the table has other postings")
        total = sum(cast(int, row[5]) for row in have)
        if total:
            self._ledger.wrong(f"{key.stream}: its postings sum to {total}")
        if error := p.ledger_error(replayed.bill):
            self._ledger.wrong(f"{key.stream}: {error} fen are nowhere, or in two places")
        if not p.errands(replayed.bill):
            for account in ledger.TRANSIENT:
                if fen := replayed.bill.balances.get(account, 0):
                    self._ledger.wrong(f"{key.stream}: nothing is left to do, and {account} reads {fen}")

    def _look_for_errand(self, key: BillKey, bill: p.Bill) -> None:
        """What a bill waits for, somebody must be on his way to do."""
        self._errands.examined += 1
        left = [str(errand.do) for errand in p.errands(bill) if errand.do != p.Do.REFUND_BY_HAND]
        if left and ("bill", key.bill_id.hex()) not in self._waiting:
            self._errands.wrong(f"{key.stream}: nobody sees to {', '.join(left)}")

    async def _compare_numbers(self, found: dict[BillKey, _Replayed]) -> None:
        """Of bills and numbers that nobody has to see to: never money without its number, or number without
        its money, or both."""
        bills = {key: one.bill for key, one in found.items() if one.bill.appointment_id}
        rows = await self._connection.fetch(
            "select id, status from appointment where id = any ($1::uuid[])",
            [UUID(bytes=bill.appointment_id) for bill in bills.values()],
        )
        statuses = {row["id"].bytes: row["status"] for row in rows}
        for key, bill in bills.items():
            self._numbers.examined += 1
            status = statuses.get(bill.appointment_id)
            number = UUID(bytes=bill.appointment_id)
            if status is None:
                self._numbers.wrong(f"{key.stream} is for {number}, no appointment")
                continue
            waits = {("bill", key.bill_id.hex()), ("bill_seat", bill.appointment_id.hex())}
            if waits & self._waiting:
                continue
            is_served = status in _IS_SERVED
            if bill.is_settled and not bill.closed and not is_served:
                self._numbers.wrong(f"{key.stream} is settled, and {number} is {word(status)}")
            elif bill.paid_by and not bill.is_settled and is_served:
                self._numbers.wrong(f"{key.stream} is paid and not settled, and {number} is {word(status)}")
            elif bill.paid_by and bill.closed and bill.closed != Cause.NO_SHOW and is_served:
                self._numbers.wrong(f"{key.stream} gives its money back, and {number} is {word(status)}")

    # What SQL can tell by itself.

    async def _tables(self) -> None:
        for row in await self._connection.fetch(_STRAYS):
            self._rows.wrong(f"{row['what']} {row['id']} is in the table alone")
        total = await self._connection.fetchval("select coalesce(sum(fen), 0)::bigint from posting")
        if total:
            self._ledger.wrong(f"all postings sum to {total}")
        for row in await self._connection.fetch(
            "select provider, transaction_id, count(*) as n from payment"
            " where transaction_id <> '' and provider <> $1"
            " group by provider, transaction_id having count(*) > 1 order by 1, 2",
            p.AT_HOSPITAL,
        ):
            self._ledger.wrong(f"{row['provider']} {row['transaction_id']} is counted {row['n']} times")


def _by_bill(rows: list[asyncpg.Record]) -> dict[bytes, dict[bytes, list[object]]]:
    found: dict[bytes, dict[bytes, list[object]]] = {}
    for row in rows:
        found.setdefault(row["bill_id"].bytes, {})[row["id"].bytes] = _values(row)[1:]
    return found


_NAMES: Final = (
    *("account", "patient", "order", "lines", "discounts", "fen", "pay_by", "department", "appointment"),
    *("starts", "seat", "status", "closed", "is_deferred", "is_settled", "paid_by", "paid", "refunded"),
    *("owed_back", "kept", "at", "version"),
)
"""Of what engine/journal/bills.py writes of a bill, in its order."""


def _differing(have: list[object], want: list[object]) -> str:
    pairs = zip(_NAMES, have, want, strict=True)
    return ", ".join(f"{name} {mine!r} for {true!r}" for name, mine, true in pairs if mine != true)


def _values(row: asyncpg.Record) -> list[object]:
    """As engine/journal/bills.py writes it."""
    return [_plain(value) for value in row.values()]


def _plain(value: Any) -> object:
    match value:
        case datetime():
            return round(value.astimezone(UTC).timestamp() * 1000)
        case UUID():
            return value.hex
        case str() if value.startswith("["):  # asyncpg gives jsonb as its text
            return orjson.loads(value)
        case _:
            return value
