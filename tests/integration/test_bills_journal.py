"""What the journal writes beside the events of bills, on both stores: rows, postings, errands; and what bills
hear of their seats."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from actors.bills import BILL_RESTS_AFTER_MS
from actors.shard import SWEEP_SECONDS
from engine.audit.accesses import affected
from engine.database import as_app
from engine.domain import hospital_orders
from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain.by import by_staff
from engine.domain.ids import BillKey
from engine.domain.price_rules import Discount, Kind, Line
from engine.domain.refund_rules import Cause
from engine.domain.refusal import Reason, Refusal
from engine.journal.streams import read_bill
from engine.records import bills as records
from tests.support.bills import (
    REGISTRATION,
    WECHAT,
    Ids,
    ask_bill,
    check_bill,
    errands_of,
    gives_back,
    history,
    host_of,
    opens,
    pays,
    reports,
    rows_of,
)
from tests.support.rooms import time_comes
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    MemoryWorld,
    PostgresWorld,
    Served,
    cancel,
    confirm,
    doctor,
    hold,
    plan,
    uid,
)
from web.audit_bills import BillComparison

ONE, TWO = doctor(1), doctor(2)
SEAT, ATTEMPT, PATIENT = uid("seat"), uid("attempt"), uid("patient", 1)

AnyWorld = MemoryWorld | PostgresWorld


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
async def world(url: str | None) -> AsyncIterator[AnyWorld]:
    """Two doctors of two departments, each with two slots of two seats."""
    world: AnyWorld = MemoryWorld() if url is None else PostgresWorld(as_app(url))
    await world.publish(ONE, plan(world.clock() + HOUR, 2, 2))
    await world.publish(TWO, plan(world.clock() + 3 * HOUR, 2, 2, department="neuro"))
    await world.register([(ACCOUNT, uid("patient", n)) for n in range(1, 4)])
    yield world
    if isinstance(world, PostgresWorld):
        await world.close()


@pytest.fixture
async def served(world: AnyWorld) -> AsyncIterator[Served]:
    served = await Served.open(world)
    yield served
    if not served.deaths:
        await served.stop()


@pytest.fixture
def new() -> Ids:
    return Ids()


async def test_a_bills_whole_life_is_in_its_rows(world: AnyWorld, served: Served, new: Ids) -> None:
    lines = (REGISTRATION, Line("2", Kind.EXAMINATION, "ecg", 801, 3))
    discounts = (Discount("2", "coupon", "SPRING", 301, 0, 1_800_000_000_000),)
    opening = replace(opens(new, SEAT, world.clock(), lines=lines), discounts=discounts)
    [opened] = await ask_bill(served, SEAT, opening)
    assert opened == p.Answer(SEAT, "open", 5_500, 0, 0, 0, SEAT, 2)
    await check_bill(world, host_of(served, SEAT).state, SEAT)
    started, paid = await ask_bill(served, SEAT, *pays(new, ATTEMPT, 5_500))
    assert (started.seen, paid.status, paid.seen) == (4, "paid", 6)
    [settled] = await ask_bill(served, SEAT, p.SeatTaken(new(), SEAT))
    assert (settled.status, settled.paid) == ("settled", 5_500)
    gone = p.SeatGone(new(), SEAT, Cause.SUSPENDED, world.clock())
    refund_id = p.own_refund_id(ATTEMPT)
    [refunding] = await ask_bill(served, SEAT, gone)
    assert (refunding.status, refunding.owed_back) == ("refunding", 5_500)
    await check_bill(world, host_of(served, SEAT).state, SEAT)
    world.clock.advance(seconds=5)
    [refunded] = await ask_bill(served, SEAT, gives_back(new, refund_id, 5_500))
    assert (refunded.status, refunded.refunded, refunded.owed_back) == ("refunded", 5_500, 0)
    await check_bill(world, host_of(served, SEAT).state, SEAT)
    assert len((await rows_of(world, SEAT)).postings) == 2 + 3 + 3 + 2


async def test_what_is_said_again_finds_its_answer_also_after_a_restart(
    world: AnyWorld, served: Served, new: Ids
) -> None:
    opening = opens(new, SEAT, world.clock())
    said = [opening, *pays(new, ATTEMPT)]
    await ask_bill(served, SEAT, *said)
    before = await history(world, SEAT)
    again = await ask_bill(served, SEAT, *said)
    assert [(one.status, one.seen) for one in again] == [("paid", 6)] * 3
    await served.stop()
    heir = await Served.open(world)
    assert await ask_bill(heir, SEAT, *said) == again
    assert await history(world, SEAT) == before
    await check_bill(world, host_of(heir, SEAT).state, SEAT)
    await heir.stop()


async def test_a_bill_is_opened_under_its_own_id_and_once(world: AnyWorld, served: Served, new: Ids) -> None:
    opening = opens(new, SEAT, world.clock())
    stranger = replace(opening, bill_id=uid("other"))
    unknown, unfit = await ask_bill(served, SEAT, p.SeatTaken(new(), SEAT), stranger)
    assert (unknown.reason, unfit.reason) == (Reason.BILL_UNKNOWN, Reason.BILL_UNFIT)
    assert await history(world, SEAT) == []
    first, second = await ask_bill(served, SEAT, opening, replace(opening, command_id=new()))
    assert first == second
    [other] = await ask_bill(served, SEAT, replace(opening, command_id=new(), order="another"))
    assert other == Refusal(Reason.KEY_REUSED)


async def test_a_bill_that_rests_is_read_again(world: AnyWorld, served: Served, new: Ids) -> None:
    await ask_bill(served, SEAT, opens(new, SEAT, world.clock()), *pays(new, ATTEMPT))
    await served.ask(ONE, hold(uid("a"), PATIENT))
    world.clock.advance(ms=BILL_RESTS_AFTER_MS + 1)
    while BillKey(SEAT).stream in served.shard._hosts:
        await served.unless_dead(asyncio.sleep(SWEEP_SECONDS))
    assert ONE.stream in served.shard._hosts, "a day rests later than a bill"
    [settled] = await ask_bill(served, SEAT, p.SeatTaken(new(), SEAT))
    assert settled.status == "settled"
    await check_bill(world, host_of(served, SEAT).state, SEAT)


async def test_bills_and_days_are_written_in_one_batch(world: AnyWorld, served: Served, new: Ids) -> None:
    asks = [
        (ONE.stream, 60_000, hold(uid("a"), PATIENT)),
        (BillKey(SEAT).stream, 60_000, opens(new, SEAT, world.clock())),
        (ONE.stream, 60_000, confirm(uid("a"))),
        *((BillKey(SEAT).stream, 60_000, command) for command in pays(new, ATTEMPT)),
    ]
    replies = await served.send(asks)
    assert [type(one).__name__ for one in replies] == ["Answer"] * 5
    assert (replies[2].status, replies[4].status) == (s.Status.BOOKED, "paid")
    await check_bill(world, host_of(served, SEAT).state, SEAT)


async def test_bills_are_written_whole_also_where_a_day_in_the_same_batch_loses_a_claim(
    world: AnyWorld, new: Ids
) -> None:
    """The slower way of a flush writes a bill's rows once, and the loser's compensation with them."""
    other = doctor(3)
    await world.publish(other, plan(world.clock() + HOUR, 2, 2))
    served, rival = await Served.open(world, 0), await Served.open(world, 1)
    question = served.shard._reads.facts

    async def facts(questions, now):  # noqa: ANN001, ANN202
        found = await question(questions, now)
        won = await rival.ask(other, hold(uid("b"), PATIENT, "0830"))
        assert isinstance(won[0], s.Answer)  # a moment too late to be seen
        return found

    served.shard._reads.facts = facts  # type: ignore[method-assign]
    stream = BillKey(SEAT).stream
    start, paid = pays(new, ATTEMPT)
    asks = [
        (stream, 60_000, opens(new, SEAT, world.clock())),
        (ONE.stream, 60_000, hold(uid("a"), PATIENT)),
        (stream, 60_000, start),
        (stream, 60_000, paid),
    ]
    first, lost, _, last = await served.send(asks)
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert (first.status, last.status) == ("open", "paid")
    await check_bill(world, host_of(served, SEAT).state, SEAT)
    await served.stop()
    await rival.stop()


# Errands.


async def test_what_is_left_to_do_is_an_errand_of_the_commit(
    world: AnyWorld, served: Served, new: Ids
) -> None:
    drugs = uid("drugs")
    opening = opens(new, drugs, world.clock(), appointment_id=b"", order="drugs")
    await ask_bill(served, drugs, opening)
    assert await errands_of(world) == {}, "whenever: nothing falls due"
    await ask_bill(served, SEAT, opens(new, SEAT, world.clock()))
    assert await errands_of(world) == {("bill", SEAT.hex()): {}}
    assert await delay_of(world, SEAT) == HOUR // 4 + p.LOOK_AFTER_MS


async def test_whoever_starts_a_payment_asks_its_provider_before_the_errand_does(
    world: AnyWorld, served: Served, new: Ids
) -> None:
    drugs = uid("drugs")
    start, report = pays(new, ATTEMPT)
    opening = opens(new, drugs, world.clock(), appointment_id=b"", order="drugs")
    await ask_bill(served, drugs, opening, start)
    assert await delay_of(world, drugs) == 2_000
    await forget_errands(world)
    await ask_bill(served, drugs, p.PrepayAnswered(new(), ATTEMPT, "prepay"))
    assert await delay_of(world, drugs) == p.POLL_MS
    await forget_errands(world)
    await ask_bill(served, drugs, report)
    assert await errands_of(world) == {}, "settled: nothing is left to do"


async def test_a_paid_seat_is_booked_at_once(world: AnyWorld, served: Served, new: Ids) -> None:
    await ask_bill(served, SEAT, opens(new, SEAT, world.clock()), *pays(new, ATTEMPT))
    await forget_errands(world)
    other = uid("attempt", 2)
    await ask_bill(served, SEAT, p.PaymentOutcomeLost(new(), ATTEMPT), replace(reports(new, ATTEMPT), fen=1))
    assert await errands_of(world) == {}, "what is refused or known asks for nothing"
    await ask_bill(served, SEAT, p.SeatMoved(new(), SEAT, SEAT, world.clock() + 49 * HOUR))
    assert await delay_of(world, SEAT) == 0
    assert other not in host_of(served, SEAT).state.attempts


async def test_what_only_the_desk_can_do_is_no_errand(world: AnyWorld, served: Served, new: Ids) -> None:
    drugs = uid("drugs")
    opening = opens(new, drugs, world.clock(), appointment_id=b"", order="drugs")
    paid = p.TakeAtDesk(new(), ATTEMPT, "B20261124-1", 5_000, "staff:1")
    back = p.RequestRefund(new(), uid("refund"), (("1", 500),), "not_dispensed", "staff:1")
    replies = await ask_bill(served, drugs, opening, paid, back)
    assert [one.status for one in replies] == ["open", "settled", "refunding"]
    assert await errands_of(world) == {}
    await check_bill(world, host_of(served, drugs).state, drugs)


async def test_the_hospitals_billing_hears_of_its_bills_when_they_are_paid_and_refunded(
    world: AnyWorld, served: Served, new: Ids
) -> None:
    order = hospital_orders.order_of("HB-1", 1)
    bill_id = hospital_orders.bill_id_of("HB-1", 1)
    opening = opens(new, bill_id, world.clock(), appointment_id=b"", order=order)
    start, report = pays(new, ATTEMPT)
    told = ("hospital_billing", bill_id.hex())
    await ask_bill(served, bill_id, opening, start)
    assert told not in await errands_of(world)
    await ask_bill(served, bill_id, report)
    assert (await errands_of(world))[told] == {}
    await forget_errands(world)
    refund_id = uid("refund")
    await ask_bill(served, bill_id, p.RequestRefund(new(), refund_id, (("1", 500),), "x", "staff:1"))
    assert told not in await errands_of(world)
    await ask_bill(served, bill_id, gives_back(new, refund_id, 500))
    assert (await errands_of(world))[told] == {}


# What a bill hears of its seat.


async def booked_with_bill(world: AnyWorld, served: Served, new: Ids, seat: bytes = SEAT) -> None:
    await served.ask(ONE, hold(seat, PATIENT), confirm(seat))
    await ask_bill(served, seat, opens(new, seat, world.clock()), *pays(new, uid("attempt")))
    await ask_bill(served, seat, p.SeatTaken(new(), seat))
    await forget_errands(world)


async def test_a_number_that_is_given_up_is_told_to_its_bill_and_to_no_other(
    world: AnyWorld, served: Served, new: Ids
) -> None:
    await booked_with_bill(world, served, new)
    await served.ask(TWO, hold(uid("a"), uid("patient", 2)), hold(uid("b"), uid("patient", 3)))
    await served.ask(TWO, cancel(uid("a")))
    world.clock.advance(seconds=3_000)
    await time_comes(served)
    assert await errands_of(world) == {}, "a rush's holds have no bills"
    await served.ask(ONE, cancel(SEAT))
    told = {("bill_seat", SEAT.hex()): {"cause": "cancelled", "at": world.clock()}}
    assert await errands_of(world) == told


async def test_a_hold_that_ends_is_told_to_its_bill(world: AnyWorld, served: Served, new: Ids) -> None:
    await served.ask(ONE, hold(SEAT, PATIENT))
    await ask_bill(served, SEAT, opens(new, SEAT, world.clock()))
    await forget_errands(world)
    world.clock.advance(seconds=901)
    await time_comes(served)
    assert await errands_of(world) == {("bill_seat", SEAT.hex()): {"cause": "expired", "at": world.clock()}}


async def test_a_session_that_is_called_off_is_told_to_the_bills_of_its_holds(
    world: AnyWorld, served: Served, new: Ids
) -> None:
    await served.ask(ONE, hold(SEAT, PATIENT))
    await ask_bill(served, SEAT, opens(new, SEAT, world.clock()))
    await forget_errands(world)
    off = s.SetSessionStatus(new(), 0, "staff:1", "", "morning", "suspended", "ill")
    [told] = await served.ask(ONE, off)
    assert isinstance(told, s.Revised), told
    assert (await errands_of(world))["bill_seat", SEAT.hex()]["cause"] == "suspended"


async def test_a_patient_who_does_not_come_is_told_to_the_bill(
    world: AnyWorld, served: Served, new: Ids
) -> None:
    await booked_with_bill(world, served, new)
    world.clock.advance(seconds=2 * 3_600)
    [missed] = await served.ask(ONE, s.RecordAttendance(SEAT, s.Status.NOSHOW, "staff:1"))
    assert not isinstance(missed, Refusal)
    assert await errands_of(world) == {("bill_seat", SEAT.hex()): {"cause": "no_show", "at": world.clock()}}


async def test_a_session_that_moves_is_told_to_its_bills(world: AnyWorld, served: Served, new: Ids) -> None:
    await booked_with_bill(world, served, new)
    await served.ask(ONE, hold(uid("a"), uid("patient", 2), "0830"))
    slots = [("0800", "1400"), ("0830", "1430")]
    moves = tuple((old, to, world.clock() + (6 * HOUR + n * HOUR // 2)) for n, (old, to) in enumerate(slots))
    [moved] = await served.ask(ONE, s.MoveSession(new(), 0, "staff:1", "", "morning", moves, None))
    assert isinstance(moved, s.Revised), moved
    found = await errands_of(world)
    assert [*found] == [("bill_seat", SEAT.hex())]
    assert found["bill_seat", SEAT.hex()]["cause"] == "moved"


async def test_a_changed_number_is_told_and_its_bill_looks_at_what_it_moves_to(
    world: AnyWorld, served: Served, new: Ids
) -> None:
    """Whatever happened to the successor before its bill knew of it was told to nobody."""
    await booked_with_bill(world, served, new)
    successor = uid("next")
    held = replace(hold(successor, PATIENT, "0830"), replaces=SEAT)
    [kept] = await served.ask(ONE, held)
    assert not isinstance(kept, Refusal), kept
    [left] = await served.ask(ONE, s.LeaveFor(SEAT, successor, ACCOUNT, "cardio", True, world.clock()))
    assert not isinstance(left, Refusal), left
    assert (await errands_of(world))["bill_seat", SEAT.hex()]["cause"] == "changed"
    await forget_errands(world)
    await served.ask(ONE, cancel(successor))
    assert await errands_of(world) == {}, "the bill is not there yet"
    world.clock.advance(seconds=1)
    await ask_bill(served, SEAT, p.SeatMoved(new(), SEAT, successor, world.clock() + HOUR))
    assert await errands_of(world) == {("bill_seat", successor.hex()): {"cause": "look", "at": world.clock()}}
    await check_bill(world, host_of(served, SEAT).state, SEAT)


# PostgreSQL alone.


@pytest.fixture
async def real(database: str) -> AsyncIterator[PostgresWorld]:
    world = PostgresWorld(as_app(database))
    await world.publish(ONE, plan(world.clock() + HOUR, 2, 2))
    await world.register([(ACCOUNT, PATIENT)])
    yield world
    await world.close()


async def test_a_bill_that_is_opened_while_its_number_ends_hears_of_it_or_sees_it(
    real: PostgresWorld, database: str, new: Ids
) -> None:
    """A release that looked for bills before this one was there is committed before this one is."""
    days, bills = await Served.open(real, 0), await Served.open(real, 1)
    await days.ask(ONE, hold(SEAT, PATIENT))
    pool = await real.pool()
    async with pool.acquire() as connection:
        release = connection.transaction()
        await release.start()
        await connection.execute("update appointment set status = 5 where id = $1", SEAT.hex())
        opening = asyncio.ensure_future(ask_bill(bills, SEAT, opens(new, SEAT, real.clock())))
        while not opening.done() and not await somebody_waits(database):
            await asyncio.sleep(0.01)
        assert not opening.done(), "the bill does not wait for the release"
        await release.commit()
    assert (await opening)[0].status == "open"
    await days.stop()
    await bills.stop()


async def test_no_bill_writes_over_another_ones_payment(real: PostgresWorld, new: Ids) -> None:
    """Ids of payments are derived from their bills'; whoever gets that wrong is found by the audit."""
    served = await Served.open(real)
    await ask_bill(served, SEAT, opens(new, SEAT, real.clock()), *pays(new, ATTEMPT))
    before = await rows_of(real, SEAT)
    drugs = opens(new, uid("drugs"), real.clock(), appointment_id=b"", order="drugs")
    await ask_bill(served, uid("drugs"), drugs, p.StartPayment(new(), ATTEMPT, "alipay", "2088"))
    assert await rows_of(real, SEAT) == before
    async with (await real.pool()).acquire() as connection:
        wrong = {check.name: check.faults for check in await BillComparison(connection).run()}
    assert wrong["bills as replayed"] == 1
    await served.stop()


async def test_what_staff_did_to_a_bill_was_done_to_its_patients_data(real: PostgresWorld, new: Ids) -> None:
    served = await Served.open(real)
    clerk = uid("clerk")
    drugs = opens(new, uid("drugs"), real.clock(), appointment_id=b"", order="drugs")
    paid = p.TakeAtDesk(new(), ATTEMPT, "B20261124-1", 5_000, by_staff(clerk))
    await ask_bill(served, uid("drugs"), drugs, paid)
    begins, ends = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
    async with (await real.pool()).acquire() as connection:
        [one] = await affected(connection, clerk, begins, ends)
    assert (one.patient_id, one.times, one.actions) == (PATIENT, 1, ("CommandTaken",))
    await served.stop()


async def somebody_waits(url: str) -> bool:
    """For a lock of somebody else."""
    connection = await asyncpg.connect(url)  # gateways do not see what others wait for
    try:
        found: bool = await connection.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database()"
            " and wait_event_type = 'Lock')"
        )
    finally:
        await connection.close()
    return found


async def test_what_was_posted_stays(real: PostgresWorld, database: str, new: Ids) -> None:
    """Whoever asks: gateways and shards, and the owner of the tables."""
    served = await Served.open(real)
    await ask_bill(served, SEAT, opens(new, SEAT, real.clock()), *pays(new, ATTEMPT))
    pool = await real.pool()
    owner = await asyncpg.connect(database)
    for change in ("update posting set fen = 0", "delete from posting", "truncate posting"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(change)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="posting is only added to"):
            await owner.execute(change)
    await owner.close()
    await served.stop()


async def test_the_records_read_what_was_written(real: PostgresWorld, new: Ids) -> None:
    served = await Served.open(real)
    now = real.clock()
    lines = (REGISTRATION, Line("2", Kind.EXAMINATION, "ecg", 801, 3))
    opening = replace(opens(new, SEAT, now, lines=lines), discounts=(Discount("2", "coupon", "C", 301),))
    await ask_bill(served, SEAT, opening, *pays(new, ATTEMPT, 5_500), p.SeatTaken(new(), SEAT))
    await ask_bill(served, SEAT, p.SeatGone(new(), SEAT, Cause.EXCUSED, now))
    deferred = [uid("d", n) for n in range(2)]
    for bill_id in deferred:
        opening = opens(new, bill_id, now, appointment_id=b"", order=f"o{bill_id.hex()}")
        await ask_bill(served, bill_id, opening, p.PayAtHospital(new(), 0))
    pool = await real.pool()
    bill = await records.bill(pool, SEAT)
    assert bill is not None
    assert (bill.id, bill.account_id, bill.patient_id, bill.order) == (SEAT, ACCOUNT, PATIENT, SEAT.hex())
    assert (bill.lines, bill.discounts, bill.fen) == (lines, (Discount("2", "coupon", "C", 301),), 5_500)
    assert (bill.department_id, bill.number_class_id, bill.appointment_id) == ("cardio", "expert", SEAT)
    assert (bill.status, bill.closed, bill.paid_by) == ("refunding", "excused", ATTEMPT)
    assert (bill.paid, bill.refunded, bill.owed_back, bill.kept) == (5_500, 0, 5_500, 0)
    assert (bill.seat, bill.is_settled, bill.is_deferred) == (p.Seat.GONE, True, False)
    assert bill.pay_by is not None and bill.starts_at is not None
    assert (bill.pay_by - bill.opened_at).total_seconds() == 900
    assert (await records.bill_of_appointment(pool, SEAT)) == bill
    assert (await records.bills_of_appointments(pool, [SEAT, uid("x")])) == {SEAT: bill}
    assert await records.bill(pool, uid("x")) is None
    assert {one.id for one in await records.bills_of_account(pool, ACCOUNT)} == {SEAT, *deferred}
    assert await records.bills_of_account(pool, ACCOUNT, statuses=["refunding"]) == [bill]
    assert await records.bills_of_patient(pool, PATIENT, before=bill.opened_at) == []
    assert len(await records.bills_of_patients(pool, uid("nobody"), [PATIENT])) == 3
    assert [*await records.bills(pool, [SEAT, deferred[0]])] and await records.bills(pool, []) == {}
    [payment] = await records.payments_of(pool, SEAT)
    assert (payment.id, payment.provider, payment.state) == (ATTEMPT, WECHAT, p.Paying.PAID)
    assert (payment.received, payment.is_matched, payment.transaction_id) == (
        5_500,
        True,
        f"t{ATTEMPT.hex()}",
    )
    assert await records.payment_by_id(pool, ATTEMPT) == payment
    [refund] = await records.refunds_of(pool, SEAT)
    assert (refund.payment_id, refund.fen, refund.cause) == (ATTEMPT, 5_500, "excused")
    assert (refund.state, refund.provider) == (p.Refunding.REQUESTED, "")
    assert await records.refund_by_id(pool, refund.id) == refund
    assert await records.unpaid_elsewhere(pool, ACCOUNT, SEAT) == 2
    assert await records.unpaid_elsewhere(pool, ACCOUNT, deferred[0]) == 1
    assert await records.unpaid_elsewhere(pool, uid("x"), SEAT) == 0
    replayed = await read_bill(pool, BillKey(SEAT))
    assert replayed == host_of(served, SEAT).state
    assert (await read_bill(pool, BillKey(uid("x")))).opened is None
    await served.stop()


async def delay_of(world: AnyWorld, bill_id: bytes) -> int:
    """In how many ms somebody is to look after the bill, as of the commit that said so."""
    if isinstance(world, MemoryWorld):
        return world.store.due["bill", bill_id.hex()]
    ms: int = await (await world.pool()).fetchval(
        "select round(extract(epoch from due_at - created_at) * 1000)::int from errand"
        " where kind = 'bill' and key = $1",
        bill_id.hex(),
    )
    return ms


async def forget_errands(world: AnyWorld) -> None:
    """As if all had been done."""
    if isinstance(world, MemoryWorld):
        world.store.errands.clear()
    else:
        await (await world.pool()).execute("delete from errand")
