"""Whole days at both providers' sandboxes, with their real bills: what was broken is found, and healed where
the rule is clear."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry

from actors.errands import Errands, TryAgain
from actors.rounds import Round, go
from engine.domain import payment as p
from engine.domain import schedule as s
from engine.domain.hospital_orders import bill_id_of, order_of
from engine.domain.price_rules import Kind, Line
from engine.records import reconciliation as records
from engine.records.reconciliation import BOOKINGS, HOSPITAL
from integrations.alipay.client import BILL, REFUND
from integrations.wechat_pay.sandbox import Fault
from integrations.wechat_pay.translate import BEIJING
from tests.support.bills import opens, pays
from tests.support.reconciling import House, house_of
from tests.support.stores import ACCOUNT, HOUR, doctor, hold, plan, uid
from web.bills.providers import ALIPAY, WECHAT_PAY
from web.bills.work import attend
from web.cli import main
from web.hospital_billing.errands import handlers
from web.reconciliation.figures import ReconciliationFigures
from web.reconciliation.night import ask_nightly, latest_day

BOTH = (WECHAT_PAY, ALIPAY)
ITEMS = [{"line": "1", "kind": "drug", "code": "D0101", "name": "某药", "quantity": 2, "fen": 2_560}]


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with house_of(database) as house:
        yield house


async def test_a_day_on_which_all_is_well(house: House) -> None:
    for name in BOTH:
        for _ in range(3):
            bill_id, attempt_id = await house.paid(name)
        await house.refund(name, bill_id, attempt_id, 1_200)
        run = await house.reconcile(name)
        assert run.is_complete and (run.healed, run.left_open) == (0, 0)
        assert run.sums == {
            "payments": {"matched": [3, 15_000], "ours": [3, 15_000], "theirs": [3, 15_000]},
            "refunds": {"matched": [1, 1_200], "ours": [1, 1_200], "theirs": [1, 1_200]},
        }
        assert await house.found(name) == []


async def test_a_lost_callback_is_healed_by_the_statement(house: House) -> None:
    for name in BOTH:
        bill_id, attempt_id = await house.paid(name, heard=False)
        run = await house.reconcile(name)
        assert (run.healed, run.left_open, run.sums["payments"]["matched"]) == (1, 0, [1, 5_000])
        [one] = await house.found(name)
        assert (one.kind, one.state, one.tried, one.said) == ("paid_unknown_here", "healed", 1, "reported")
        assert (one.bill_id, one.order_id, one.ours, one.theirs) == (bill_id, attempt_id, 0, 5_000)
        bill = await house.pool.fetchrow("select status, paid from bill where id = $1", bill_id.hex())
        assert tuple(bill) == ("settled", 5_000)


async def test_a_refund_that_was_done_before_the_line_broke_is_reported(house: House) -> None:
    for name in BOTH:
        house.move(house.day)
        bill_id, attempt_id = await house.paid(name)
        house.wechat_pay.fail("refund", Fault.APPLIED_THEN_CUT)
        house.alipay.fail("done_lost", method=REFUND)
        refund_id = await house.refund(name, bill_id, attempt_id, 700)
        run = await house.reconcile(name)
        assert (run.healed, run.left_open, run.sums["refunds"]["theirs"]) == (1, 0, [1, 700])
        # In our books it is of the day on which we heard of it.
        assert await house.kinds(name) == {"refund_unknown_here": "healed", "wrong_day": "explained"}
        assert {one.order_id for one in await house.found(name)} == {refund_id}
        house.move(house.day + timedelta(days=1))
        later = await house.reconcile(name, house.day + timedelta(days=1))
        assert (later.is_complete, later.left_open, later.sums["refunds"]["ours"]) == (True, 0, [1, 700])
        state = await house.pool.fetchval("select state from refund where id = $1", refund_id.hex())
        assert state == p.Refunding.DONE


async def test_a_refund_that_never_got_there_is_left_to_the_errands_of_its_bill(house: House) -> None:
    for name in BOTH:
        bill_id, attempt_id = await house.paid(name)
        house.wechat_pay.fail("refund", Fault.CUT)
        house.alipay.fail("lost", method=REFUND)
        await house.refund(name, bill_id, attempt_id, 700)
        await house.pool.execute("delete from errand")
        run = await house.reconcile(name)
        assert (run.healed, run.left_open) == (0, 1)
        assert await house.kinds(name) == {"refund_missing_there": "open"}
        assert ("bill", bill_id.hex()) in await house.errands()


async def test_money_of_the_wrong_amount_goes_to_suspense_and_back(house: House) -> None:
    """The callback that said so was refused; the signed answer to a question is believed."""
    for name in BOTH:
        bill_id = await house.bill()
        attempt_id = await house.begun(bill_id, name)
        if name == WECHAT_PAY:
            house.pay(name, attempt_id, 1)
        else:
            house.alipay.trades[attempt_id.hex()].amount_fen = 1
            house.pay(name, attempt_id)
        await house.reconcile(name)
        assert await house.kinds(name) == {"paid_unknown_here": "healed"}
        owed = "select sum(fen) from posting where bill_id = $1 and account = 'refunds_payable'"
        assert await house.pool.fetchval(owed, bill_id.hex()) == -1
        bill = await house.pool.fetchrow("select status, owed_back from bill where id = $1", bill_id.hex())
        assert tuple(bill) == ("open", 1)


async def test_orders_that_no_bill_made_stay_for_the_cashier(house: House) -> None:
    """Another program of the hospital uses the same merchant number; or somebody lost a database."""
    for name in BOTH:
        bill_id, attempt_id = await house.paid(name)
        if name == WECHAT_PAY:
            [entry] = house.wechat_pay.ledger
            house.wechat_pay.ledger += [
                replace(
                    entry,
                    order=replace(entry.order, asked={**entry.order.asked, "out_trade_no": number}),
                )
                for number in ("SHOP-000001", "ab" * 16)
            ]
        else:
            [row] = house.alipay.ledger
            house.alipay.ledger += [
                replace(row, out_trade_no=number) for number in ("SHOP-000001", "ab" * 16)
            ]
        run = await house.reconcile(name)
        assert (run.left_open, run.sums["payments"]["theirs"]) == (2, [3, 15_000])
        found = await house.found(name)
        assert {(one.kind, one.state, one.ours, one.theirs, one.bill_id) for one in found} == {
            ("foreign_row", "open", 0, 5_000, None)
        }
        assert {one.evidence["there"][0]["order"] for one in found} == {"SHOP-000001", "ab" * 16}


async def test_a_bill_of_another_merchant_is_believed_in_nothing(house: House) -> None:
    await house.paid(WECHAT_PAY, heard=False)
    [entry] = house.wechat_pay.ledger
    asked = {**entry.order.asked, "mchid": "1999999999"}
    house.wechat_pay.ledger.append(replace(entry, order=replace(entry.order, asked=asked)))
    run = await house.reconcile(WECHAT_PAY)
    assert (run.is_complete, run.why) == (False, "refused: another_merchant")
    assert await house.pool.fetchval("select count(*) from statement_row") == 0
    alarm = await house.pool.fetchrow("select provider, what, why from payment_alarm")
    assert tuple(alarm) == (WECHAT_PAY, "statement", "another_merchant")
    assert await house.pool.fetchval("select status from bill") == "open"


async def test_what_they_do_not_have_is_open_until_they_have_it(house: House) -> None:
    for name in BOTH:
        await house.paid(name)
        await house.paid(name)
        ledger: list[object] = house.wechat_pay.ledger if name == WECHAT_PAY else house.alipay.ledger  # type: ignore[assignment]
        forgotten = ledger.pop()
        await house.reconcile(name)
        assert await house.kinds(name) == {"paid_here_unknown_there": "open"}
        ledger.append(forgotten)
        run = await house.reconcile(name)
        assert (run.left_open, await house.kinds(name)) == (0, {"paid_here_unknown_there": "gone"})
        ledger.remove(forgotten)
        await house.reconcile(name)
        assert await house.kinds(name) == {"paid_here_unknown_there": "open"}


async def test_a_day_without_a_statement_is_asked_for_again(house: House) -> None:
    for name in BOTH:
        nothing = await house.reconcile(name)
        assert nothing.is_complete and nothing.left_open == 0  # nothing happened on either side
        await house.paid(name)
        ledger = house.wechat_pay.ledger if name == WECHAT_PAY else house.alipay.ledger
        ledger.clear()
        run = await house.reconcile(name)
        assert (run.is_complete, run.left_open) == (False, 1)
        assert await house.kinds(name) == {"statement_missing": "open"}


async def test_a_provider_that_is_away_leaves_no_run(house: House) -> None:
    for name in BOTH:
        await house.paid(name)
        house.wechat_pay.fail("bill", Fault.FREQUENCY_LIMIT)
        house.alipay.fail("often", method=BILL)
        with pytest.raises(TryAgain):
            await house.reconcile(name)
        assert await house.pool.fetchval("select count(*) from reconciliation") == 0


async def test_a_payment_at_midnight_is_on_the_next_day_over_there(house: House) -> None:
    bill_id = await house.bill()
    attempt_id = await house.begun(bill_id, WECHAT_PAY)
    house.move(house.day, time(23, 59, 58))
    house.pay(WECHAT_PAY, attempt_id)
    await house.heard(WECHAT_PAY, bill_id, attempt_id)
    [entry] = house.wechat_pay.ledger
    tomorrow = house.day + timedelta(days=1)
    house.wechat_pay.ledger[0] = replace(entry, at=entry.at + timedelta(seconds=3))
    first = await house.reconcile(WECHAT_PAY)
    assert (first.is_complete, first.left_open) == (True, 1)
    assert await house.kinds() == {"wrong_day": "waiting"}
    house.move(tomorrow)
    await house.pool.execute("delete from errand")
    second = await house.reconcile(WECHAT_PAY, tomorrow)
    assert (second.left_open, second.sums["payments"]["theirs"]) == (0, [1, 5_000])
    assert await house.errands() == {("reconcile", f"{house.day}/{WECHAT_PAY}")}
    third = await house.reconcile(WECHAT_PAY)
    assert third.left_open == 0
    assert {(one.day, one.state) for one in await house.found()} == {
        (house.day, "explained"),
        (tomorrow, "explained"),
    }


async def test_after_a_rough_day_nothing_is_left_unmatched(house: House) -> None:
    """Callbacks lost or repeated, lines that broke before or after a refund was done, paid twice, never paid.
    The statement and the bills' own errands bring both sides together, to the fen."""
    random = Random(6)
    bills = []
    for _ in range(40):
        name = random.choice(BOTH)
        bill_id = await house.bill()
        attempt_id = await house.begun(bill_id, name)
        bills.append(bill_id)
        if random.random() < 0.1:
            continue  # never paid
        house.pay(name, attempt_id)
        heard = random.choice((0, 1, 1, 3))
        for _ in range(heard):
            await house.heard(name, bill_id, attempt_id)
        if not heard and random.random() < 0.3:
            other = ALIPAY if name == WECHAT_PAY else WECHAT_PAY
            second = await house.begun(bill_id, other)
            house.pay(other, second)
            if random.random() < 0.5:
                await house.heard(other, bill_id, second)
        if heard and random.random() < 0.6:
            before, after = random.choice(
                ((None, None), (Fault.CUT, "lost"), (Fault.APPLIED_THEN_CUT, "done_lost"))
            )
            if before is not None and name == WECHAT_PAY:
                house.wechat_pay.fail("refund", before)
            if after is not None and name == ALIPAY:
                house.alipay.fail(after, method=REFUND)
            await house.refund(name, bill_id, attempt_id, random.randrange(1, 5_001))
    first = [await house.reconcile(name) for name in BOTH]
    assert sum(run.healed for run in first) > 0
    house.move(house.day, time(20))
    for bill_id in bills:
        with contextlib.suppress(TryAgain):  # who was never paid is asked after again
            await attend(house.app, bill_id)
    last = [await house.reconcile(name) for name in BOTH]
    assert [run.left_open for run in last] == [0, 0]
    there = {
        WECHAT_PAY: sum(
            one.order.total if one.refund is None else -one.refund.asked["amount"]["refund"]
            for one in house.wechat_pay.ledger
        ),
        ALIPAY: house.alipay.account,
    }
    here = {
        row["account"].removeprefix("provider/"): row["fen"]
        for row in await house.pool.fetch(
            "select account, sum(fen)::int as fen from posting"
            " where account like 'provider/%' group by account"
        )
    }
    assert here == there
    transient = "select coalesce(sum(abs(fen)), 0) from (select sum(fen) as fen from posting"
    where = "where account in ('patient', 'suspense', 'refunds_payable') group by bill_id, account) x"
    assert await house.pool.fetchval(f"{transient} {where}") == 0
    assert await house.pool.fetchval("select sum(fen) from posting") == 0


# Bills beside their numbers.


async def paid_seat(house: House) -> bytes:
    """A number that is held, and its bill, which is paid; the two have not heard of each other."""
    seat = uid("seat")
    await house.world.publish(doctor(1), plan(house.world.clock() + HOUR, 2, 2))
    await house.world.register([(ACCOUNT, uid("patient", 1))])
    await house.served.ask(doctor(1), hold(seat, uid("patient", 1)))
    await house.told(seat, opens(house.ids, seat, house.world.clock()))
    for command in pays(house.ids, uid("attempt")):
        await house.told(seat, command)
    await house.pool.execute("update payment set paid_at = since")  # the helper has a year of its own
    return seat


async def test_money_without_a_number_wakes_the_bill(house: House) -> None:
    seat = await paid_seat(house)
    await house.pool.execute("delete from errand")
    run = await house.reconcile(BOOKINGS)
    assert (run.is_complete, run.left_open) == (True, 1)
    [one] = await house.found()
    assert (one.kind, one.state, one.bill_id) == ("money_without_booking", "open", seat)
    assert one.evidence["booking"] == {"appointment": seat.hex(), "number": "pending"}
    assert await house.errands() == {("bill", seat.hex())}
    # The errand, as web/bills/work.py does it.
    await house.served.ask(doctor(1), s.ConfirmAppointment(seat, ACCOUNT))
    await house.told(seat, p.SeatTaken(house.ids(), seat))
    again = await house.reconcile(BOOKINGS)
    assert (again.left_open, again.sums["payments"]["matched"]) == (0, [1, 5_000])
    assert await house.kinds() == {"money_without_booking": "healed"}


async def test_a_number_whose_money_went_back_is_for_the_cashier(house: House) -> None:
    seat = await paid_seat(house)
    await house.served.ask(doctor(1), s.ConfirmAppointment(seat, ACCOUNT))
    await house.told(seat, p.SeatTaken(house.ids(), seat))
    await house.told(seat, p.RequestRefund(house.ids(), uid("back"), (("1", 5_000),), "by mistake", "staff"))
    await house.told(seat, p.RefundReported(house.ids(), uid("back"), WECHAT_PAY, "r", 5_000, "CNY"))
    await house.reconcile(BOOKINGS)
    assert await house.kinds() == {"booked_without_money": "open"}


# The hospital's billing.


async def test_what_the_billing_was_not_told_it_is_told_again(database: str) -> None:
    async with house_of(database, has_billing=True) as house:
        bills, attempts = [], []
        for n in range(4):
            number = house.billing.charge("01", f"11010519900307{n:04}", ITEMS)
            bill_id = bill_id_of(number, 1)
            line = Line("1", Kind.DRUG, "D0101", 2_560, 2)
            opening = opens(
                house.ids,
                bill_id,
                house.world.clock(),
                appointment_id=b"",
                order=order_of(number, 1),
                lines=(line,),
            )
            attempt_id = uid("attempt", n)
            for command in (opening, *pays(house.ids, attempt_id, 2_560)):
                await house.told(bill_id, command)
            bills.append(bill_id)
            attempts.append(attempt_id)
        await house.pool.execute("update payment set paid_at = since")
        # One that they refused goes back to the patient: they need not be told again.
        await house.pool.execute(
            "insert into hospital_told values ($1, $2, 'payment', 2560, 'refused', 'paid', '', now())",
            attempts.pop().hex(),
            bills.pop().hex(),
        )
        tell = handlers(house.app)["hospital_billing"]
        await tell(bills[0].hex(), {})
        await house.pool.execute("delete from errand")
        house.billing.ledger.append({**house.billing.ledger[0], "id": "ab" * 16, "receipt": "SJ99"})
        run = await house.reconcile(HOSPITAL)
        assert (run.left_open, run.sums["payments"]["matched"]) == (3, [1, 2_560])
        found = {(one.kind, one.order_id): one.heal for one in await house.found()}
        assert found == {
            ("hospital_not_told", attempts[1]): "tell_hospital",
            ("hospital_not_told", attempts[2]): "tell_hospital",
            ("hospital_tells_more", None): "none",
        }
        woken = await house.errands()
        assert woken == {("hospital_billing", one.hex()) for one in bills[1:]}
        for _, key in woken:
            await tell(key, {})
        run = await house.reconcile(HOSPITAL)
        assert run.left_open == 1
        assert {(one.kind, one.state) for one in await house.found()} == {
            ("hospital_not_told", "healed"),
            ("hospital_tells_more", "open"),
        }


# The night, the errand, and the command.


@asynccontextmanager
async def working(house: House) -> AsyncIterator[None]:
    """What a gateway does: errands, and the lock of the rounds."""
    errands = Errands(house.database, house.pool, house.reconciling.handlers())
    served = asyncio.Event()

    async def look() -> None:
        served.set()

    rounds = go(house.database, [Round("a look", 0.0, look)])
    tasks = [asyncio.create_task(errands.run()), asyncio.create_task(rounds)]
    try:
        await served.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def command(house: House, *words: str) -> Result:
    whole = ["reconcile", "--database-url", house.database, *words]
    return await asyncio.to_thread(CliRunner().invoke, main, whole)


async def test_the_command_shows_what_is_left_open(house: House) -> None:
    await house.paid(WECHAT_PAY)
    await house.paid(WECHAT_PAY, heard=False)
    await house.paid(ALIPAY)
    day = str(house.day)
    nobody = await command(house, "--date", day)
    assert nobody.exit_code == 1 and nobody.output.count("\n") == 1
    assert "no server is running" in nobody.output
    house.move(house.day + timedelta(days=1), time(11))
    async with working(house):
        good = await command(house, "--date", day)
        assert good.exit_code == 0, good.output
        assert "wechat_pay paid 2 100.00 100.00 100.00 0" in " ".join(good.output.split())
        assert "healed by asking the providers: 1" in good.output
        [entry] = house.alipay.ledger
        house.alipay.ledger.append(replace(entry, out_trade_no="SHOP-000001"))
        bad = await command(house, "--date", day, "--provider", "alipay")
        assert (bad.exit_code, bad.output.count("foreign_row")) == (1, 1), bad.output
        unknown = await command(house, "--date", day, "--provider", "unionpay")
        assert (unknown.exit_code, "unionpay is not set up there" in unknown.output) == (1, True)
        today = await command(house, "--date", str(datetime.now(BEIJING).date()))
        assert (today.exit_code, "is not over" in today.output) == (1, True)
    assert {row["asked_by"] for row in await house.pool.fetch("select asked_by from reconciliation")} == {""}


async def test_one_at_a_time_compares_a_day(house: House) -> None:
    async with house.pool.acquire() as other:
        assert await records.alone(other, BOOKINGS, house.day)
        with pytest.raises(TryAgain, match="another gateway"):
            await house.reconciling.reconcile(f"{house.day}/{BOOKINGS}", {})
        await other.execute("select pg_advisory_unlock_all()")
    await house.reconciling.reconcile(f"{house.day}/{BOOKINGS}", {})
    assert await house.pool.fetchval("select count(*) from reconciliation") == 1


async def test_a_night_asks_for_what_is_missing_and_for_what_is_open(house: House) -> None:
    await house.paid(WECHAT_PAY)
    last = latest_day(datetime.now(BEIJING))
    days = [house.day + timedelta(days=n) for n in range((last - house.day).days + 1)]
    await ask_nightly(house.app, house.reconciling)
    wanted = {("reconcile", f"{day}/{channel}") for day in days for channel in (WECHAT_PAY, ALIPAY, BOOKINGS)}
    assert {one for one in await house.errands() if one[0] == "reconcile"} == wanted
    await house.reconcile(WECHAT_PAY)
    await house.pool.execute("delete from errand")
    await ask_nightly(house.app, house.reconciling)
    assert ("reconcile", f"{house.day}/{WECHAT_PAY}") not in await house.errands()
    # Something is open, and nobody has looked for a day.
    house.wechat_pay.ledger.clear()
    await house.paid(WECHAT_PAY)
    await house.pool.execute("delete from errand")
    house.wechat_pay.ledger.pop(0)
    await house.paid(WECHAT_PAY)
    assert (await house.reconcile(WECHAT_PAY)).left_open
    await house.pool.execute("update reconciliation set ended_at = ended_at - interval '1 day'")
    await ask_nightly(house.app, house.reconciling)
    assert ("reconcile", f"{house.day}/{WECHAT_PAY}") in await house.errands()


def test_from_ten_on_yesterday_is_there() -> None:
    morning = datetime(2026, 11, 24, 9, 59, tzinfo=BEIJING)
    assert str(latest_day(morning)) == "2026-11-22"
    assert str(latest_day(morning + timedelta(minutes=1))) == "2026-11-23"


# The cashier's view.


async def open_one(house: House) -> dict[str, Any]:
    """A difference of a day, as the list tells it."""
    await house.paid(WECHAT_PAY)
    await house.paid(WECHAT_PAY)
    house.wechat_pay.ledger.pop()
    await house.reconcile(WECHAT_PAY)
    status, told, _ = await house.call("GET", "/cashier/differences", house.staff("cashier"))
    assert status == 200 and told["next"] is None
    [one] = told["differences"]
    found: dict[str, Any] = one
    return found


async def test_a_cashier_sees_all_evidence_and_settles_it(house: House) -> None:
    cashier = house.staff("cashier")
    one = await open_one(house)
    assert (one["kind"], one["state"], one["ours_fen"], one["theirs_fen"]) == (
        "paid_here_unknown_there", "open", 5_000, 0,
    )  # fmt: skip
    status, told, _ = await house.call("GET", f"/cashier/differences/{one['id']}", cashier)
    assert status == 200
    assert told["evidence"]["here"]["moved"] == 5_000 and told["evidence"]["there"] == []
    assert told["bill"]["status"] == "settled" and told["bill"]["payments"][0]["received_fen"] == 5_000
    path = f"/cashier/differences/{one['id']}/settle"
    assert (await house.call("POST", path, cashier, json={"reason": " "}))[0] == 422
    said = {"reason": "已电话核实，支付机构补账"}
    assert (await house.call("POST", path, house.staff("doctor"), json=said))[0] == 403
    for _ in range(2):  # a retry is harmless
        status, told, _ = await house.call("POST", path, cashier, json=said)
        assert (status, told["state"], told["settled_by"]) == (200, "settled", "shen")
    other = {"reason": "另一原因"}
    status, told, _ = await house.call("POST", path, cashier, json=other)
    assert (status, told["code"]) == (409, "difference_closed")
    rows = await house.pool.fetch(
        "select action, reason, cardinality(subjects) as n from audit_entry order by id"
    )
    assert [tuple(row) for row in rows] == [
        ("difference_read", None, 1),
        ("difference_settled", said["reason"], 1),
    ]
    await house.reconcile(WECHAT_PAY)  # it is still so, and somebody has seen to it
    assert await house.kinds() == {"paid_here_unknown_there": "settled"}


async def test_days_and_places_that_are_none_are_refused(house: House) -> None:
    cashier = house.staff("cashier")
    for before in ("2026-99-20." + "ab" * 16, "2026-11-20", "x"):
        status, told, _ = await house.call("GET", f"/cashier/differences?before={before}", cashier)
        assert (status, told["code"]) == (422, "invalid_query")
    for day in ("0001-01-01", "9999-12-31", "2026-13-01", "today"):
        for end in ("", ".csv", "/page"):
            status, told, _ = await house.call("GET", f"/cashier/settlements/{day}{end}", cashier)
            assert (status, told["code"]) == (404, "not_found")
        status, told, _ = await house.call("POST", "/cashier/reconciliations", cashier, json={"date": day})
        assert (status, told["code"]) == (422, "invalid_body")
    one = await open_one(house)
    place = f"{house.day + timedelta(days=1)}.{'0' * 32}"
    status, told, _ = await house.call("GET", f"/cashier/differences?before={place}", cashier)
    assert [found["id"] for found in told["differences"]] == [one["id"]]


async def test_what_was_settled_opens_again_when_it_changes(house: House) -> None:
    one = await open_one(house)
    path = f"/cashier/differences/{one['id']}/settle"
    await house.call("POST", path, house.staff("manager"), json={"reason": "ok"})
    await house.pool.execute("update payment set received = received + 1 where id = $1", one["order_id"])
    await house.reconcile(WECHAT_PAY)
    assert await house.kinds() == {"paid_here_unknown_there": "open"}


async def test_a_day_is_asked_for_and_its_runs_are_listed(house: House) -> None:
    manager = house.staff("manager")
    status, told, _ = await house.call(
        "POST", "/cashier/reconciliations", manager, json={"date": str(house.day)}
    )
    assert (status, told["providers"]) == (202, [WECHAT_PAY, ALIPAY, BOOKINGS])
    wanted = {("reconcile", f"{house.day}/{channel}") for channel in (WECHAT_PAY, ALIPAY, BOOKINGS)}
    assert await house.errands() == wanted
    for body, code in (
        ({"date": str(datetime.now(BEIJING).date())}, "day_not_over"),
        ({"date": str(house.day), "provider": "unionpay"}, "unsupported_provider"),
    ):
        status, told, _ = await house.call("POST", "/cashier/reconciliations", manager, json=body)
        assert told["code"] == code
    for _ in range(3):
        await house.reconcile(WECHAT_PAY)
    status, told, _ = await house.call("GET", "/cashier/reconciliations?limit=2", manager)
    assert [one["id"] for one in told["runs"]] == [3, 2]
    status, told, _ = await house.call("GET", f"/cashier/reconciliations?before={told['next']}", manager)
    assert [one["id"] for one in told["runs"]] == [1]


async def test_figures_tell_what_is_open_and_how_old_the_last_run_is(house: House) -> None:
    await open_one(house)
    registry = CollectorRegistry()
    await ReconciliationFigures(registry).look(house.pool)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"xinglin_reconciliation_{name}", labels)

    assert value("differences", kind="paid_here_unknown_there") == 1
    assert value("differences", kind="paid_twice") == 0
    age = value("age_seconds", channel=WECHAT_PAY)
    ended = await house.pool.fetchval("select max(ended_at) from reconciliation")
    assert age is not None and 0 <= age <= (datetime.now(UTC) - ended).total_seconds() + 1
    assert value("age_seconds", channel=ALIPAY) is None
