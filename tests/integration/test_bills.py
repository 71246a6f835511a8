"""Paying, from the mini-program's call to the booked number and back, over both sandboxes' wires."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest

from engine.domain import payment as p
from engine.domain import schedule as s
from engine.records import coupons
from integrations.alipay.sandbox import Trouble
from integrations.wechat_pay.sandbox import Fault
from tests.support.stores import uid
from tests.support.till import CHEAP, DEAR, FEE, Payer, Till, till_at, until

POLICY = """\
payment:
  at_hospital: {amount_max: "60.00", unpaid_max: 1}
suspension: {order: [refunded], offer: 24h, within: 7d}
defaults:
  refunds: {cancelled: [{before: 0m, percent: 80}]}
"""


@pytest.fixture
async def till(database: str) -> AsyncIterator[Till]:
    async with till_at(database) as one:
        yield one


async def paid(till: Till, payer: Payer, number: str) -> dict[str, object]:
    """With WeChat, and heard of."""
    payment = await payer.pay(number)
    till.wechat.pay(till.order(payment))
    await till.deliver()
    await payer.status(number, "settled")
    return payment


async def test_what_is_paid_is_booked(till: Till) -> None:
    payer = await till.payer()
    number = await payer.hold()
    shown = await payer.bill(number)
    assert (shown["opened_at"], shown["status"], shown["fee"]) == (None, "open", FEE)
    assert shown["providers"] == ["wechat_pay", "alipay", "at_hospital"]
    payment = await payer.pay(number, key="one")
    assert (payment["status"], payment["fee"], payment["bill_id"]) == ("waiting", FEE, number)
    order = till.wechat.orders[till.order(payment)]
    assert till.wechat.would_open(order, payment["client"])
    assert order.asked["payer"] == {"openid": "payer-1"}
    # The same key is the same attempt, and so is another one while it is open.
    for key in ("one", "another"):
        assert (await payer.pay(number, key=key))["payment_id"] == payment["payment_id"]
    assert len(till.wechat.orders) == 1
    assert (await payer.number(number))["status"] == "pending"
    till.wechat.callbacks.copies = 3
    till.wechat.pay(till.order(payment))
    await till.deliver()
    assert [status for _, status in till.wechat.answers] == [204, 204, 204]
    told = await payer.status(number, "settled")
    assert (told["paid"], [one["status"] for one in told["payments"]]) == (FEE, ["paid"])
    booked = await payer.number(number)
    assert (booked["status"], booked["bill_id"], booked["bill_status"]) == ("booked", number, "settled")
    assert (await payer.pay(number, key="one"))["status"] == "paid"
    again = await payer.ask("POST", f"bills/{number}/payments", {"provider": "alipay"})
    assert (again.status, again["code"]) == (409, "bill_paid")
    [listed] = (await payer.good("GET", "bills"))["bills"]
    assert (listed["id"], listed["status"]) == (number, "settled")


async def test_a_lost_callback_is_found_by_asking(till: Till) -> None:
    payer = await till.payer()
    number = await payer.hold()
    payment = await payer.pay(number)
    till.wechat.callbacks.lost = 1
    till.wechat.pay(till.order(payment))
    await till.deliver()
    assert (await payer.bill(number))["status"] == "open"
    found = await payer.good("POST", f"bills/{number}/payments/{payment['payment_id']}/check")
    assert (found["status"], found["payments"][0]["status"]) == ("settled", "paid")
    assert (await payer.number(number))["status"] == "booked"
    # And by itself: the errand asks when its time has come.
    other = await till.payer()
    number = await other.hold()
    till.world.clock.advance(seconds=-60)
    payment = await other.pay(number)
    till.world.clock.advance(seconds=60)
    till.wechat.callbacks.lost = 1
    till.wechat.pay(till.order(payment))
    await till.errand()
    await other.status(number, "settled")


async def test_with_alipay_a_browser_pays(till: Till) -> None:
    payer = await till.payer()
    number = await payer.hold()
    payment = await payer.pay(number, "alipay")
    assert payment["client"] == {"pay_page": payment["pay_page"]}
    async with till.http.get(payment["pay_page"], allow_redirects=False) as page:
        assert page.status == 302
    assert till.alipay.pay(till.order(payment), Trouble(copies=2))
    await till.deliver()
    await payer.status(number, "settled")
    await payer.good("POST", f"appointments/{number}/cancel")
    told = await payer.status(number, "refunded")
    assert [(one["fee"], one["provider"]) for one in told["refunds"]] == [(FEE, "alipay")]
    assert till.alipay.account == 0


async def test_whatever_becomes_of_asking_there_is_one_order(till: Till) -> None:
    payer = await till.payer()
    number = await payer.hold()
    till.wechat.fail("prepay", Fault.APPLIED_THEN_CUT)
    payment = await payer.pay(number, key="k")  # asked after, and asked again, word for word
    assert payment["status"] == "waiting" and len(till.wechat.orders) == 1
    # They were away: nothing was done, and the same key goes on.
    other = await till.payer()
    held = await other.hold()
    till.wechat.fail("prepay", Fault.FREQUENCY_LIMIT)
    refused = await other.ask("POST", f"bills/{held}/payments", {"provider": "wechat_pay"}, "k")
    assert (refused.status, refused["code"]) == (503, "provider_away")
    assert (await other.pay(held, key="k"))["status"] == "waiting"
    # The callback overtakes the answer to the prepay, which never comes.
    third = await till.payer()
    held = await third.hold(doctor="D0002")
    till.wechat.fail("prepay", Fault.APPLIED_THEN_TIMEOUT)
    refused = await third.ask("POST", f"bills/{held}/payments", {"provider": "wechat_pay"}, "k")
    assert (refused.status, refused["code"]) == (503, "provider_away")
    [order] = await orders_of(till, third)
    till.wechat.pay(order)
    await till.deliver()
    await third.status(held, "settled")
    assert (await third.pay(held, key="k"))["status"] == "paid"


async def test_only_so_many_pay_at_once_and_the_others_hear_it_at_once(database: str) -> None:
    async with till_at(database, payments_max=1) as till:
        slow, other = await till.payer(), await till.payer()
        held, later = await slow.hold(), await other.hold()
        till.wechat.fail("prepay", Fault.APPLIED_THEN_TIMEOUT)
        waiting = asyncio.create_task(slow.ask("POST", f"bills/{held}/payments", {"provider": "wechat_pay"}))
        await until(partial(are_paying, till, 1), "the first to pay")
        refused = await other.ask("POST", f"bills/{later}/payments", {"provider": "alipay"}, "k")
        assert (refused.status, refused["code"]) == (503, "busy") and 1 <= refused["retry_after"] <= 4
        assert not waiting.done() and not await orders_of(till, other)  # nothing was begun
        # Who waited is gone, and the asking goes on: it counts until it has ended.
        assert (await waiting)["code"] == "provider_away"
        await until(partial(are_paying, till, 0), "the end of the asking")
        assert (await other.pay(later, "alipay", key="k"))["status"] == "waiting"


async def test_patients_requests_have_a_bound_and_bookings_another(database: str) -> None:
    async with till_at(database, requests_max=1) as till:
        slow, other = await till.payer(), await till.payer()
        held = await slow.hold()
        till.wechat.fail("prepay", Fault.APPLIED_THEN_TIMEOUT)
        waiting = asyncio.create_task(slow.ask("POST", f"bills/{held}/payments", {"provider": "wechat_pay"}))
        await until(partial(are_paying, till, 1), "the first to pay")
        refused = await other.ask("GET", f"bills/{held}")
        assert (refused.status, refused["code"]) == (503, "busy")
        await other.hold()
        assert not waiting.done() and (await waiting)["code"] == "provider_away"
        await other.good("GET", "appointments")


async def are_paying(till: Till, many: int) -> bool:
    async with till.http.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    [line] = [x for x in lines if x.startswith("xinglin_admitted_besides{") and 'lane="payments"' in x]
    return float(line.split()[-1]) == many


async def orders_of(till: Till, payer: Payer) -> list[str]:
    rows = await till.pool.fetch(
        "select id from payment where bill_id in (select id from bill where account_id = $1)",
        UUID(bytes=payer.account_id),
    )
    return [row["id"].hex for row in rows]


async def late(till: Till, payer: Payer) -> tuple[str, str]:
    """Somebody types his password while his hold ends. The number, and the order."""
    number = await payer.hold()
    payment = await payer.pay(number)
    till.wechat.paying(till.order(payment))  # nobody can close it
    till.expire()
    await payer.status(number, "closed")
    assert (await payer.number(number))["reason"] == "expired"
    return number, till.order(payment)


async def test_who_pays_too_late_gets_a_seat_again(till: Till) -> None:
    payer = await till.payer()
    number, order = await late(till, payer)
    till.wechat.pay(order)
    await till.deliver()
    told = await payer.status(number, "settled")
    again = p.retaken_id(UUID(number).bytes).hex()
    assert UUID(told["appointment_id"]).hex == again
    booked = await payer.number(told["appointment_id"])
    assert (booked["status"], booked["bill_id"]) == ("booked", number)
    await until(lambda: told_of(payer, "seat_again"), "a notice")
    # It is a number like any other: given up, its money goes back.
    await payer.good("POST", f"appointments/{told['appointment_id']}/cancel")
    await payer.status(number, "refunded")


async def test_who_pays_before_anybody_has_swept_his_hold_gets_a_seat_again(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claims outlive a hold by a moment: the number that lapsed may stand in its own successor's way, and
    is waited for."""
    monkeypatch.setattr(till.one.served.shard._timers, "due", lambda: [])
    payer = await till.payer()
    number = await payer.hold()
    payment = await payer.pay(number)
    till.expire()
    till.wechat.pay(till.order(payment))
    await till.deliver()

    async def stands_in_the_way() -> bool:
        trouble = await till.pool.fetchval("select trouble from errand where kind = 'bill'")
        return "still stands" in (trouble or "")

    await until(stands_in_the_way, "the errand to find the claim")
    till.world.clock.advance(seconds=2)
    told = await payer.status(number, "settled")
    assert UUID(told["appointment_id"]).bytes == p.retaken_id(UUID(number).bytes)
    assert (await payer.number(told["appointment_id"]))["status"] == "booked"


async def test_who_pays_too_late_and_finds_it_full_gets_his_money_back(till: Till) -> None:
    payer = await till.payer()
    number, order = await late(till, payer)
    for _ in range(2):
        other = await till.payer()
        await other.pay(await other.hold(), "at_hospital")
    till.wechat.pay(order)
    await till.deliver()
    told = await payer.status(number, "refunded")
    assert told["refunds"][0]["reason"]["en"] == "No seat was left when the payment came"
    await until(lambda: told_of(payer, "refunded"), "a notice")
    assert await told_of(payer, "no_seat")


async def told_of(payer: Payer, kind: str) -> bool:
    return kind in await payer.notices()


async def test_a_number_given_up_goes_back_by_the_hospital_s_rules(database: str) -> None:
    async with till_at(database, POLICY) as till:
        payer = await till.payer()
        number = await payer.hold()
        await paid(till, payer, number)
        await payer.good("POST", f"appointments/{number}/cancel")
        told = await payer.status(number, "partly_refunded")
        assert (told["refunded"], told["kept"], told["owed_back"]) == (FEE * 80 // 100, FEE * 20 // 100, 0)
        assert (await payer.number(number))["refund_due"] == 0
        # Called off by the hospital: all of it.
        other = await till.payer()
        number = await other.hold(doctor="D0002")
        await paid(till, other, number)
        [revised] = await till.one.served.ask(
            till.key("D0002"),
            s.SetSessionStatus(uid("cmd", 1), 0, "office", "", "morning", "suspended", "leave"),
        )
        assert isinstance(revised, s.Revised), revised
        told = await other.status(number, "refunded")
        assert told["refunded"] == FEE


async def test_who_pays_twice_gets_the_second_one_back(till: Till) -> None:
    payer = await till.payer()
    number = await payer.hold()
    by_wechat, by_alipay = await payer.pay(number), await payer.pay(number, "alipay")
    async with till.http.get(by_alipay["pay_page"], allow_redirects=False):
        pass
    till.wechat.pay(till.order(by_wechat))
    till.alipay.pay(till.order(by_alipay))
    await till.deliver()
    await payer.status(number, "settled")

    async def is_back() -> bool:
        return till.alipay.account == 0

    await until(is_back, "the second payment to go back")
    told = await payer.bill(number)
    assert {one["provider"]: one["is_of_this_bill"] for one in told["payments"]} == {
        "wechat_pay": True,
        "alipay": False,
    }
    assert [one["reason"]["en"] for one in told["refunds"]] == ["It was paid twice"]


async def test_a_refund_whose_answer_is_lost_is_asked_after(till: Till) -> None:
    faults = (Fault.APPLIED_THEN_CUT, Fault.APPLIED_SYSTEM_ERROR, Fault.CUT)
    for done, fault in enumerate(faults, 1):
        payer = await till.payer()
        number = await payer.hold()
        await paid(till, payer, number)
        till.wechat.fail("refund", fault)
        await payer.good("POST", f"appointments/{number}/cancel")
        told = await payer.status(number, "refunded")
        assert (told["refunded"], len(till.wechat.refunds)) == (FEE, done)
        await until(partial(told_of, payer, "refunded"), "a notice")


async def test_a_change_brings_its_price_along(till: Till) -> None:
    payer = await till.payer()
    number = await payer.hold()
    await paid(till, payer, number)
    dear = await payer.good(
        "POST", f"appointments/{number}/reschedule", {"slot_id": till.key("D0003").slot_id("0930")}
    )

    async def has_second() -> bool:
        return len((await payer.good("GET", "bills"))["bills"]) == 2

    await until(has_second, "a bill over the difference")
    more = await payer.bill(dear["id"])
    assert (more["fee"], more["status"]) == (DEAR - FEE, "open")
    shown = await payer.number(dear["id"])
    assert (shown["bill_id"], shown["status"]) == (dear["id"], "booked")
    await paid(till, payer, dear["id"])
    cheap = await payer.good(
        "POST", f"appointments/{dear['id']}/reschedule", {"slot_id": till.key("D0004").slot_id("0930")}
    )

    async def is_even() -> bool:
        await till.deliver()
        kept = sum(order.total - order.refunded for order in till.wechat.orders.values())
        return kept == CHEAP

    await until(is_even, "the difference to go back")
    await payer.good("POST", f"appointments/{cheap['id']}/cancel")

    async def is_back() -> bool:
        await till.deliver()
        rows = await till.pool.fetch("select status from bill")
        return {row["status"] for row in rows} == {"refunded"}

    await until(is_back, "all of it")


async def test_an_unpaid_bill_follows_no_change(till: Till) -> None:
    payer = await till.payer()
    number = await payer.hold()
    await payer.pay(number)
    await payer.pay(number, "at_hospital")  # changed his mind
    cheap = await payer.good(
        "POST", f"appointments/{number}/reschedule", {"slot_id": till.key("D0004").slot_id("0930")}
    )
    await payer.status(number, "closed")
    assert (await payer.bill(cheap["id"]))["fee"] == CHEAP
    assert (await paid(till, payer, cheap["id"]))["fee"] == CHEAP


async def test_paying_at_the_hospital_has_its_limits(database: str) -> None:
    async with till_at(database, POLICY) as till:
        payer = await till.payer()
        dear = await payer.hold(doctor="D0003")
        for method in (f"bills/{dear}/payments", f"appointments/{dear}/confirm"):
            body = {"provider": "at_hospital"} if "bills" in method else None
            refused = await payer.ask("POST", method, body)
            assert (refused.status, refused["code"]) == (403, "at_hospital_not_allowed"), refused.told
        assert (await payer.number(dear))["status"] == "pending"
        await payer.good("POST", f"appointments/{dear}/cancel")
        number = await payer.hold()
        told = await payer.pay(number, "at_hospital")
        assert told == {
            "bill_id": number, "provider": "at_hospital", "status": "at_hospital", "fee": FEE, "client": {},
        }  # fmt: skip
        assert (await payer.number(number))["status"] == "booked"
        assert (await payer.pay(number, "at_hospital")) == told
        # He may still pay it from home; the desk need not take it then.
        assert (await payer.bill(number))["status"] == "at_hospital"
        await paid(till, payer, number)


async def test_a_bill_is_its_account_s(till: Till) -> None:
    payer, stranger = await till.payer(), await till.payer()
    number = await payer.hold()
    payment = await payer.pay(number)
    path = f"bills/{number}"
    for method, at in (("GET", path), ("POST", f"{path}/payments/{payment['payment_id']}/check")):
        assert (await stranger.ask(method, at))["code"] == "no_such_bill"
    refused = await stranger.ask("POST", f"{path}/payments", {"provider": "wechat_pay"})
    assert (refused.status, refused["code"]) == (404, "no_such_bill")
    assert (await payer.ask("POST", f"{path}/payments/{uuid4()}/check"))["code"] == "no_such_payment"
    assert (await stranger.good("GET", "bills"))["bills"] == []
    # The patient may say that this account does not pay for him.
    await till.pool.execute(
        "update account_patient set may_pay = false where account_id = $1", UUID(bytes=payer.account_id)
    )
    refused = await payer.ask("POST", f"{path}/payments", {"provider": "wechat_pay"})
    assert (refused.status, refused["code"]) == (403, "paying_not_delegated")


async def test_a_coupon_goes_with_the_first_payment(till: Till) -> None:
    now = datetime.now(UTC)
    new = coupons.NewCoupons("国庆券", ("registration",), now, now + timedelta(days=9), fen=1_500)
    async with till.pool.acquire() as connection, connection.transaction():
        (code,) = await coupons.make(connection, new, 1, "test", now)
    payer = await till.payer()
    number = await payer.hold()
    path, wechat = f"bills/{number}/payments", {"provider": "wechat_pay"}
    unknown = await payer.ask("POST", path, {**wechat, "coupon": "ABCD-EFGH"})
    assert (unknown.status, unknown["code"]) == (404, "coupon_unknown")
    for _ in range(2):
        assert (await payer.pay(number, coupon=code, key="k"))["fee"] == FEE - 1_500
    [discount] = (await payer.bill(number))["discounts"]
    assert (discount["rule"], discount["fee"], discount["reason"]["zh"]) == ("coupon", 1_500, "优惠券")
    # One bill has it, until that ends without having cost anything.
    other = await till.payer()
    second = await other.hold()
    used = await other.ask("POST", f"bills/{second}/payments", {**wechat, "coupon": code})
    assert (used.status, used["code"]) == (409, "coupon_used")
    await paid(till, payer, number)
    await payer.good("POST", f"appointments/{number}/cancel")
    await payer.status(number, "refunded")

    async def is_back() -> bool:
        return bool(await till.pool.fetchval("select bill_id is null from coupon"))

    await until(is_back, "the coupon to come back")
    await other.pay(second)
    late = await other.ask("POST", f"bills/{second}/payments", {**wechat, "coupon": code})
    assert (late.status, late["code"]) == (409, "coupon_too_late")


async def test_what_costs_nothing_is_booked_without_a_payment(till: Till) -> None:
    now = datetime.now(UTC)
    new = coupons.NewCoupons("免费券", ("registration",), now, now + timedelta(days=9), percent=100)
    async with till.pool.acquire() as connection, connection.transaction():
        (code,) = await coupons.make(connection, new, 1, "test", now)
    payer = await till.payer()
    number = await payer.hold()
    told = await payer.pay(number, coupon=code)
    assert (told["status"], told["fee"], told["payment_id"]) == ("paid", 0, None)
    assert (await payer.number(number))["status"] == "booked"
    assert (await payer.bill(number))["status"] == "settled"
    assert not till.wechat.orders
