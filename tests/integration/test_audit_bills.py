"""The audit of bills finds what is planted, each kind of damage by the checks meant for it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain.ids import BillKey
from engine.domain.refund_rules import Cause
from engine.domain.refusal import Refusal
from engine.journal.codec import EVENT_CODES, pack_event, unpack_event
from tests.support.bills import Ids, ask_bill, gives_back, opens, pays, reports
from tests.support.stores import ACCOUNT, HOUR, PostgresWorld, Served, confirm, doctor, hold, plan, uid
from web.audit import audit
from web.audit_replay import Check
from web.indicators_follower import Follower

FAMOUS = doctor(1)
SETTLED, REFUNDED, OPEN, DRUGS = uid("settled"), uid("refunded"), uid("open"), uid("drugs")
REPLAY, ROWS, LEDGER = "bills replay", "bills as replayed", "ledger as replayed"
NUMBERS, ERRANDS = "paid numbers are booked", "bills looked after"


@pytest.fixture
async def books(database: str) -> AsyncIterator[asyncpg.Connection]:
    """One bill is settled, one refunded in part and kept in part, one open, and one of drugs at the desk."""
    world = PostgresWorld(database)
    await world.publish(FAMOUS, plan(world.clock() + HOUR, 5, 5))
    await world.register([(ACCOUNT, uid("patient", n)) for n in range(3)])
    served = await Served.open(world)
    new = Ids()
    replies = []
    for n, seat in enumerate((SETTLED, REFUNDED, OPEN)):
        replies += await served.ask(FAMOUS, hold(seat, uid("patient", n)))
        replies += await ask_bill(served, seat, opens(new, seat, world.clock()))
    for seat in (SETTLED, REFUNDED):
        attempt = uid("pay" + seat.decode()[:4])
        replies += await ask_bill(served, seat, *pays(new, attempt))
        replies += await served.ask(FAMOUS, confirm(seat))
        replies += await ask_bill(served, seat, p.SeatTaken(new(), seat))
    attempt, refund = uid("payrefu"), uid("refund")
    replies += await ask_bill(
        served,
        REFUNDED,
        p.RequestRefund(new(), refund, (("1", 1_200),), "kindness", "staff:1"),
        gives_back(new, refund, 1_200),
        p.SeatGone(new(), REFUNDED, Cause.CANCELLED, world.clock()),
        gives_back(new, p.own_refund_id(attempt), 3_800),
    )
    replies += await served.ask(FAMOUS, s.CancelAppointment(REFUNDED, ACCOUNT))
    start, _ = pays(new, uid("paydrug"))
    drugs = opens(new, DRUGS, world.clock(), appointment_id=b"", order="drugs")
    replies += await ask_bill(served, DRUGS, drugs, start, p.PaymentOutcomeLost(new(), uid("paydrug")))
    assert [one for one in replies if isinstance(one, Refusal)] == []
    await served.stop()
    connection = await asyncpg.connect(database)
    # What was to be done is done, but for the open bill's and the drugs'.
    await connection.execute(
        "delete from errand where not (kind = 'bill' and key = any ($1))", [OPEN.hex(), DRUGS.hex()]
    )
    yield connection
    await connection.close()
    await world.close()


async def failed(connection: asyncpg.Connection) -> set[str]:
    return {check.name for check in await audit(connection) if not check.ok}


async def test_what_is_right_is_found_right(books: asyncpg.Connection) -> None:
    checks: list[Check] = await audit(books)
    assert [(check.name, check.examples) for check in checks if not check.ok] == []
    examined = {check.name: check.examined for check in checks}
    assert {name: examined[name] for name in (ROWS, LEDGER, NUMBERS, ERRANDS)} == {
        ROWS: 4 + 3 + 2,
        LEDGER: 2 * (2 + 2) + 2 * (2 + 2),
        NUMBERS: 3,
        ERRANDS: 4,
    }


def of(bill_id: bytes, column: str = "id") -> str:
    return f"{column} = '{UUID(bytes=bill_id)}'"


POSTED = "alter table posting disable trigger only_added; "
WRITTEN = "alter table event disable trigger only_added; "
DAMAGE = {
    "a bill is gone": (f"delete from bill where {of(SETTLED)}", {ROWS}),
    "a bill from nowhere": (
        "insert into bill select gen_random_uuid(), account_id, patient_id, order_no, lines, discounts, fen,"
        " pay_by, department_id, number_class_id, null, null, seat, status, closed, is_deferred, is_settled,"
        f" null, paid, refunded, owed_back, kept, opened_at, updated_at, version from bill where {of(OPEN)}",
        {ROWS},
    ),
    "another amount": (f"update bill set fen = fen + 1 where {of(OPEN)}", {ROWS}),
    "another status": (f"update bill set status = 'settled' where {of(OPEN)}", {ROWS}),
    "another payer's": (f"update bill set account_id = gen_random_uuid() where {of(OPEN)}", {ROWS}),
    "another line": (f"update bill set lines = '[]' where {of(OPEN)}", {ROWS}),
    "another number": (f"update bill set appointment_id = null where {of(OPEN)}", {ROWS}),
    "a payment is gone": (f"delete from payment where {of(DRUGS, 'bill_id')}", {ROWS}),
    "a payment that nobody made": (
        f"update payment set received = 5000 where {of(DRUGS, 'bill_id')}",
        {ROWS},
    ),
    "a payment of nothing": (
        "insert into payment select gen_random_uuid(), gen_random_uuid(), provider, merchant_id, fen, state,"
        " code, 'x', received, is_matched, begun_at, since, paid_at from payment limit 1",
        {ROWS},
    ),
    "money that was counted twice": (
        f"update payment set transaction_id = 't{uid('payrefu').hex()}' where {of(SETTLED, 'bill_id')}",
        {ROWS, LEDGER},
    ),
    "a refund that was never asked for": (
        f"update refund set fen = 1 where {of(REFUNDED, 'bill_id')}",
        {ROWS},
    ),
    "a refund that was not done": (f"update refund set state = 1 where {of(REFUNDED, 'bill_id')}", {ROWS}),
    "a posting is gone": (
        f"{POSTED} delete from posting where {of(SETTLED, 'bill_id')} and account = 'revenue/registration'",
        {LEDGER},
    ),
    "a posting of another account": (
        f"{POSTED} update posting set account = 'suspense' where account = 'patient'",
        {LEDGER},
    ),
    "two postings that agree with each other": (
        f"{POSTED} update posting set fen = fen * 2 where {of(SETTLED, 'bill_id')}",
        {LEDGER},
    ),
    "nobody sees to a bill": (f"delete from errand where key = '{DRUGS.hex()}'", {ERRANDS}),
    "an event is gone": (
        f"{WRITTEN} delete from event where stream = '{BillKey(SETTLED).stream}' and version = 2",
        {REPLAY, "journal numbers", "stream versions"},
    ),
    "damaged bytes": (
        f"{WRITTEN} update event set data = '\\xc1'"
        f" where stream = '{BillKey(SETTLED).stream}' and version = 3",
        {REPLAY},
    ),
    "a whole bill's journal is gone": (
        f"{WRITTEN} delete from event where stream = '{BillKey(OPEN).stream}'",
        {ROWS, "journal numbers"},
    ),
    "a settled number is given up, and nobody tells its bill": (
        f"update appointment set status = 5, reason = 'cancelled' where {of(SETTLED)}",
        {NUMBERS, "appointments as replayed"},
    ),
    "a refunded number is booked": (
        f"update appointment set status = 2, reason = null where {of(REFUNDED)}",
        {NUMBERS, "appointments as replayed"},
    ),
    "a paid number is no more": (
        f"delete from appointment where {of(SETTLED)}",
        {NUMBERS, "appointments as replayed"},
    ),
}


async def test_each_damage_is_found_by_the_checks_meant_for_it(books: asyncpg.Connection) -> None:
    """One after the other, each taken back again."""
    found = {}
    for name, (statement, _) in DAMAGE.items():
        damage = books.transaction(isolation="repeatable_read")
        await damage.start()
        await books.execute(statement)
        found[name] = await failed(books) - {"indicators as recounted"}
        await damage.rollback()
    assert found == {name: checks for name, (_, checks) in DAMAGE.items()}
    assert await failed(books) == set()


async def test_a_bill_that_is_on_its_way_to_hear_of_its_number_is_right(books: asyncpg.Connection) -> None:
    await books.execute(f"update appointment set status = 5, reason = 'cancelled' where {of(SETTLED)}")
    await books.execute("insert into errand (kind, key, data) values ('bill_seat', $1, '{}')", SETTLED.hex())
    assert NUMBERS not in await failed(books)


async def test_who_counts_numbers_passes_over_bills(
    books: asyncpg.Connection, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    follower, new = Follower(database), Ids()
    new.last = 1_000
    await follower.step()  # what was never counted is counted anew
    caplog.clear()
    served = await Served.open(PostgresWorld(database))
    [paid] = await ask_bill(served, DRUGS, reports(new, uid("paydrug")))
    booked = await served.ask(FAMOUS, confirm(OPEN))
    assert (paid.status, booked[0].status) == ("settled", s.Status.BOOKED)
    await follower.step()
    follower.close()
    await served.stop()
    assert caplog.messages == []
    counted = {check.name: check for check in await audit(books)}["indicators as recounted"]
    assert (counted.ok, counted.examined > 0) == (True, True)


FORGED: dict[str, tuple[int, Callable[[Any], p.Event]]] = {
    "more money than came": (6, lambda event: replace(event, fen=9_999)),
    "it was settled for another sum": (9, lambda _: p.BillSettled((("registration", 4_999),))),
}


async def test_a_forged_event_does_not_fit_the_ledger(books: asyncpg.Connection) -> None:
    for name, (version, forge) in FORGED.items():
        where = f"stream = '{BillKey(SETTLED).stream}' and version = {version}"
        row = await books.fetchrow(f"select type, data from event where {where}")
        event = forge(unpack_event(row["type"], row["data"]))
        assert EVENT_CODES[type(event)] == row["type"], name
        forgery = books.transaction(isolation="repeatable_read")
        await forgery.start()
        await books.execute(WRITTEN)
        await books.execute(f"update event set data = $1 where {where}", pack_event(event))
        assert LEDGER in await failed(books), name
        await forgery.rollback()
