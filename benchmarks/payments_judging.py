"""What became of the money: the sandboxes' truth beside the ledger, the seats and the bills, read with SQL.

Nothing here asks the system that is judged, but for its tables.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from benchmarks.payments_lives import Life
from benchmarks.payments_providers import Sandboxes
from engine.domain import payment as p
from engine.domain.ids import BillKey
from engine.domain.schedule import Status
from engine.journal.streams import read_bill
from web.audit_replay import Check

_ERRANDS: Final = "select kind, key from errand where kind in ('bill', 'bill_seat', 'bill_query')"
_TRANSIENT: Final = ("patient", "suspense", "refunds_payable")
_SEATED: Final = (Status.BOOKED, Status.ARRIVED, Status.FULFILLED)


async def drained(connection: asyncpg.Connection, there: Sandboxes, seconds: float) -> int:
    """Waits until nothing of a bill is left to do and no callback is on its way; what is left in the end."""
    ends = time.monotonic() + seconds
    while ((left := await _left(connection)) or there.waits) and time.monotonic() < ends:
        await asyncio.sleep(0.2)
    return left


async def _left(connection: asyncpg.Connection) -> int:
    """A row of a bill that is at rest already only waits for its time to find that out: it does not count."""
    left = 0
    for row in await connection.fetch(_ERRANDS):
        if row["kind"] == "bill":
            bill = await read_bill(connection, BillKey(bytes.fromhex(row["key"])))
            left += any(one.do != p.Do.REFUND_BY_HAND for one in p.errands(bill))
        else:
            left += 1
    return left


@dataclass(frozen=True, slots=True)
class Classified:
    """From the money to its row in the ledger, in seconds. Sorted."""

    seconds: list[float]
    moments: list[tuple[float, float, int]]  # paid at, known at (time.time()), fen

    def at(self, share: float) -> float:
        if not self.seconds:
            return 0.0
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


async def judge(
    connection: asyncpg.Connection, there: Sandboxes, lives: Sequence[Life], left: int, within: float
) -> tuple[list[Check], Classified]:
    rows = await connection.fetch(
        "select id, bill_id, provider, received, transaction_id, extract(epoch from since)::float8 as since"
        " from payment"
    )
    classified, check = _classified(rows, there, within)
    checks = [
        Check("errands: drained", 1, int(left > 0), [f"{left} are left"] if left else []),
        await _sums(connection),
        await _providers(connection, there),
        _believed(rows, there),
        await _given_back(connection, there),
        *await _seat_or_money(connection, there, lives),
        _forged(there),
        check,
    ]
    return checks, classified


async def _sums(connection: asyncpg.Connection) -> Check:
    check = Check("ledger: sums to 0")
    check.examined = await connection.fetchval("select count(*) from posting")
    for row in await connection.fetch(
        "select bill_id, sum(fen)::bigint as fen from posting group by bill_id having sum(fen) <> 0"
    ):
        check.wrong(f"bill {row['bill_id']} sums to {row['fen']}")
    total = await connection.fetchval("select coalesce(sum(fen), 0)::bigint from posting")
    if total:
        check.wrong(f"all of it sums to {total}")
    for row in await connection.fetch(
        "select account, bill_id, sum(fen)::bigint as fen from posting where account = any ($1)"
        " group by 1, 2 having sum(fen) <> 0",
        list(_TRANSIENT),
    ):
        check.wrong(f"{row['fen']} fen of bill {row['bill_id']} lie in {row['account']} at rest")
    return check


async def _providers(connection: asyncpg.Connection, there: Sandboxes) -> Check:
    """What the providers keep is what the ledger says, to the fen."""
    check = Check("providers: as the ledger")
    rows = await connection.fetch(
        "select account, sum(fen)::bigint as fen from posting where account like 'provider/%' group by 1"
    )
    ours = {row["account"].partition("/")[2]: row["fen"] for row in rows}
    for provider, fen in there.kept.items():
        check.examined += 1
        if ours.get(provider, 0) != fen:
            check.wrong(f"{provider} keeps {fen} fen, the ledger says {ours.get(provider, 0)}")
    return check


def _believed(rows: Sequence[asyncpg.Record], there: Sandboxes) -> Check:
    """Every payment is there with its amount and the provider's own number, and what nobody paid is not."""
    check = Check("payments: as they were")
    ours = {
        row["id"].hex: (row["received"], row["transaction_id"] if row["received"] else "")
        for row in rows
        if row["provider"] in there.kept
    }
    for order in ours.keys() | there.paid.keys():
        check.examined += 1
        paid = (there.paid[order].fen, there.paid[order].transaction) if order in there.paid else (0, "")
        if ours.get(order, (0, "")) != paid:
            check.wrong(f"{order}: {paid} was paid, {ours.get(order)} is known")
    return check


async def _given_back(connection: asyncpg.Connection, there: Sandboxes) -> Check:
    """Of each payment went back what we say, and never more than was paid."""
    check = Check("refunds: as they were")
    rows = await connection.fetch(
        "select payment_id, coalesce(sum(fen) filter (where state = 5), 0)::bigint as done,"
        " count(*) filter (where state <> 5) as undone from refund group by payment_id"
    )
    ours = {row["payment_id"].hex: row for row in rows}
    for order, paid in there.paid.items():
        check.examined += 1
        back = paid.fen - there.kept_of(order)
        row = ours.get(order)
        if back != (0 if row is None else row["done"]):
            check.wrong(f"{order}: {back} fen went back, we say {0 if row is None else row['done']}")
        elif row is not None and row["undone"]:
            check.wrong(f"{order}: {row['undone']} refunds are not done")
        if not 0 <= back <= paid.fen:
            check.wrong(f"{order}: {back} of {paid.fen} fen went back")
    return check


async def _seat_or_money(
    connection: asyncpg.Connection, there: Sandboxes, lives: Sequence[Life]
) -> list[Check]:
    """Who paid has one seat and paid for it once, or no seat and all his money: never both, never neither.
    The second check: where seats were left, it is the seat."""
    check, again = Check("seat or money: one of them"), Check("seat: where there was one")
    patients = {UUID(life.patient): life for life in lives}
    rows = await connection.fetch(
        "select a.patient_id, count(*) filter (where a.status = any ($2)) as seats,"
        " count(*) filter (where a.status = 1) as held, max(a.fee_fen) as fee"
        " from appointment a where a.patient_id = any ($1) group by a.patient_id",
        list(patients),
        [int(status) for status in _SEATED],
    )
    orders: dict[UUID, list[str]] = defaultdict(list)
    for row in await connection.fetch(
        "select b.patient_id, p.id from payment p join bill b on b.id = p.bill_id"
        " where p.provider <> 'at_hospital'"
    ):
        orders[row["patient_id"]].append(row["id"].hex)
    known = {UUID(bytes=row["patient_id"].bytes): row for row in rows}
    by_patient = {UUID(bytes=patient.bytes): found for patient, found in orders.items()}
    for patient, life in patients.items():
        check.examined += 1
        row = known.get(patient)
        seats, held, fee = (0, 0, 0) if row is None else (row["seats"], row["held"], row["fee"])
        kept = sum(there.kept_of(order) for order in {*by_patient.get(patient, ()), *life.paid})
        is_told = f"{life.kind}: {seats} seats, {kept} of {fee} fen kept, paid {len(life.paid)} times"
        if (seats, kept) not in ((1, fee), (0, 0)) or held:
            check.wrong(f"{is_told}: bill {life.appointment}")
        elif seats and not life.paid:
            check.wrong(f"{is_told}: a seat for nothing: bill {life.appointment}")
        elif seats and (life.cancelled or life.rival_has_it):
            check.wrong(f"{is_told}: a seat that is given up: bill {life.appointment}")
        if life.paid and life.kind in ("plain", "late", "twice"):
            again.examined += 1
            if not seats:
                again.wrong(f"{is_told}: there were seats enough: bill {life.appointment}")
    return [check, again]


def _forged(there: Sandboxes) -> Check:
    """None was taken; that none changed anything is said by `payments: as they were`."""
    check = Check("forged: none taken", len(there.forged))
    for provider, how, status in there.forged:
        if 200 <= status < 400:
            check.wrong(f"{provider}: a forged {how} was answered {status}")
    return check


def _classified(rows: Sequence[asyncpg.Record], there: Sandboxes, within: float) -> tuple[Classified, Check]:
    check = Check(f"classified within {within:.0f} s")
    known = {row["id"].hex: row["since"] for row in rows if row["received"]}
    moments = []
    for order, paid in there.paid.items():
        check.examined += 1
        if order not in known:
            check.wrong(f"{order} never was")
            continue
        moments.append((paid.at, known[order], paid.fen))
        took = known[order] - paid.at
        if took > within:
            second = paid.at - min(one.at for one in there.paid.values())
            check.wrong(
                f"{order} took {took:.1f} s ({paid.provider}, {there.told[order]} callbacks),"
                f" paid {second:.1f} s after the first"
            )
    return Classified(sorted(max(0.0, at - since) for since, at, _ in moments), moments), check
