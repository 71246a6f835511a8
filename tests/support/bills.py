"""Bills over both stores: opened, asked, and held against what the store has of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import orjson

from actors.bill_host import BillHost
from engine.domain import ledger
from engine.domain import payment as p
from engine.domain.ids import BillKey
from engine.domain.price_rules import Kind, Line
from engine.journal.bills import bill_row, payment_row, refund_row
from tests.support.stores import ACCOUNT, HOUR, MemoryWorld, PostgresWorld, Reply, Served, uid

WECHAT = "wechat_pay"
MERCHANT = "1900000109"
REGISTRATION = Line("1", Kind.REGISTRATION, "expert", 5_000)


class Ids:
    """Command ids, each used once."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self) -> bytes:
        self.last += 1
        return uid("cmd", self.last)


@dataclass(slots=True)
class Rows:
    """What the tables have of a bill, as engine/journal/bills.py tells it."""

    bill: list[object] | None = None
    payments: dict[str, list[object]] = field(default_factory=dict)
    refunds: dict[str, list[object]] = field(default_factory=dict)
    postings: list[list[object]] = field(default_factory=list)


def opens(
    new: Ids,
    bill_id: bytes,
    now: int,
    *,
    appointment_id: bytes | None = None,
    order: str = "",
    patient: bytes = uid("patient", 1),
    lines: tuple[Line, ...] = (REGISTRATION,),
) -> p.OpenBill:
    """Of a number that is held for 15 minutes and begins in two days; b"": of nothing that has a seat."""
    seat = bill_id if appointment_id is None else appointment_id
    return p.OpenBill(
        new(),
        bill_id,
        ACCOUNT,
        patient,
        order or seat.hex(),
        lines,
        appointment_id=seat,
        starts_at=now + 48 * HOUR if seat else 0,
        pay_by=now + HOUR // 4 if seat else 0,
        department_id="cardio",
        number_class_id="expert",
    )


def reports(new: Ids, attempt_id: bytes, fen: int = 5_000) -> p.PaymentReported:
    transaction = f"t{attempt_id.hex()}"
    return p.PaymentReported(
        new(), attempt_id, WECHAT, MERCHANT, transaction, fen, "CNY", p.Via.CALLBACK, 1_790_000_000_000
    )


def gives_back(new: Ids, refund_id: bytes, fen: int) -> p.RefundReported:
    return p.RefundReported(new(), refund_id, WECHAT, f"r{refund_id.hex()}", fen, "CNY")


def pays(new: Ids, attempt_id: bytes, fen: int = 5_000) -> list[p.Command]:
    return [p.StartPayment(new(), attempt_id, WECHAT, MERCHANT), reports(new, attempt_id, fen)]


async def ask_bill(served: Served, bill_id: bytes, *commands: p.Command) -> list[Reply]:
    return await served.send([(BillKey(bill_id).stream, 60_000, command) for command in commands])


def host_of(served: Served, bill_id: bytes) -> BillHost:
    host = served.shard._hosts[BillKey(bill_id).stream]
    assert isinstance(host, BillHost)
    return host


async def history(
    world: MemoryWorld | PostgresWorld, bill_id: bytes, shards: Sequence[int] = (0,)
) -> list[p.Event]:
    stream = BillKey(bill_id).stream
    written = [one for shard in shards for one in await world.events(shard)]
    mine = [(version, event) for _, at, version, event in written if at == stream]
    assert [version for version, _ in mine] == list(range(1, len(mine) + 1)), "a version is missing or twice"
    return [cast(p.Event, event) for _, event in mine]


async def rows_of(world: MemoryWorld | PostgresWorld, bill_id: bytes) -> Rows:
    id_ = bill_id.hex()
    if isinstance(world, MemoryWorld):
        store = world.store
        return Rows(
            store.bills.get(id_),
            {key: row for key, row in store.payments.items() if row[0] == id_},
            {key: row for key, row in store.refunds.items() if row[0] == id_},
            [row for row in store.postings if row[0] == id_],
        )
    pool = await world.pool()
    bill = await pool.fetchrow(f"select {_BILL} from bill where id = $1", id_)
    payments = await pool.fetch("select * from payment where bill_id = $1", id_)
    refunds = await pool.fetch("select * from refund where bill_id = $1", id_)
    postings = await pool.fetch(
        "select bill_id, version, n, at, account, fen from posting where bill_id = $1 order by version, n",
        id_,
    )
    return Rows(
        None if bill is None else _as_written(bill),
        {row["id"].hex: _as_written(row)[1:] for row in payments},
        {row["id"].hex: _as_written(row)[1:] for row in refunds},
        [_as_written(row) for row in postings],
    )


_BILL = (
    "account_id, patient_id, order_no, lines, discounts, fen, pay_by,"
    " jsonb_build_array(department_id, number_class_id) as of, appointment_id, starts_at, seat, status,"
    " closed, is_deferred, is_settled, paid_by, paid, refunded, owed_back, kept, updated_at, version"
)


async def errands_of(world: MemoryWorld | PostgresWorld) -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, key) -> data."""
    if isinstance(world, MemoryWorld):
        return dict(world.store.errands)
    rows = await (await world.pool()).fetch("select kind, key, data from errand")
    return {(row["kind"], row["key"]): orjson.loads(row["data"]) for row in rows}


async def check_bill(
    world: MemoryWorld | PostgresWorld, bill: p.Bill, bill_id: bytes, shards: Sequence[int] = (0,)
) -> None:
    """Live, replayed and in the tables must be one. For a moment when everything has been committed."""
    events = await history(world, bill_id, shards)
    assert p.replay(events) == bill, "replayed is not live"
    assert p.ledger_error(bill) == 0
    key, again, postings = BillKey(bill_id), p.Bill(), list[list[object]]()
    for version, event in enumerate(events, 1):
        p.apply(again, event)
        postings += [
            [bill_id.hex(), version, n, again.at, account, fen]
            for n, (account, fen) in enumerate(p.postings(event), 1)
        ]
    found = await rows_of(world, bill_id)
    assert found.bill == bill_row(bill, len(events))
    assert found.payments == {id_.hex(): payment_row(bill, key, id_) for id_ in bill.attempts}
    assert found.refunds == {id_.hex(): refund_row(bill, key, id_) for id_ in bill.refunds}
    assert found.postings == postings
    balances: dict[str, int] = {}
    for _, _, _, _, account, fen in found.postings:
        ledger.add(balances, [ledger.Posting(str(account), cast(int, fen))])
    assert balances == bill.balances
    assert ledger.imbalance(balances) == 0


def _as_written(row: Any) -> list[object]:
    return [_plain(value) for value in row.values()]


def _plain(value: object) -> object:
    match value:
        case datetime():
            return round(value.astimezone(UTC).timestamp() * 1000)
        case UUID():
            return value.hex
        case str() if value.startswith("["):  # asyncpg gives jsonb as its text
            return orjson.loads(value)
        case _:
            return value
