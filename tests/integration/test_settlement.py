"""The day's end equals the ledger to the fen, and a day that is closed stays as it was."""

import asyncio
import csv
import io
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest

from engine.domain import payment as p
from engine.domain.price_rules import Kind, Line
from engine.records import settlement as records
from integrations.wechat_pay.translate import BEIJING
from tests.support.bills import opens, pays
from tests.support.reconciling import ZONE, House, house_of
from tests.support.stores import uid
from web.bills.providers import ALIPAY, WECHAT_PAY
from web.reconciliation import sheets

DESK = "at_hospital"
WAITING = """
select count(*) from pg_locks l join pg_database d on d.oid = l.database
 where d.datname = current_database() and l.relation = 'closed_day'::regclass and not l.granted"""


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    async with house_of(database) as house:
        yield house


async def busy(house: House) -> None:
    """Two days with everything that money does."""
    drug = (Line("1", Kind.REGISTRATION, "expert", 5_000), Line("2", Kind.DRUG, "d1", 1_234))
    for n, day in enumerate((house.day, house.day + timedelta(days=1))):
        house.move(day)
        for name in (WECHAT_PAY, ALIPAY):
            bill_id, attempt_id = await house.paid(name)
            await house.refund(name, bill_id, attempt_id, 1_200 + n)
        # Cash, of a bill of two kinds; a part goes back over the desk.
        bill_id = await house.bill(lines=drug)
        await house.told(
            bill_id, p.TakeAtDesk(house.ids(), uid("attempt", 900 + n), f"R{n}", 6_234, "cashier")
        )
        back = uid("refund", 900 + n)
        await house.told(
            bill_id, p.RequestRefund(house.ids(), back, (("2", 234),), "not dispensed", "cashier")
        )
        await house.told(bill_id, p.RefundAtDesk(house.ids(), back, f"B{n}", "cashier"))
        # Paid twice: the second lies in suspense until it has gone back, which it has not.
        twice = await house.bill()
        first, second = await house.begun(twice, WECHAT_PAY), await house.begun(twice, ALIPAY)
        for name, attempt_id in ((WECHAT_PAY, first), (ALIPAY, second)):
            house.pay(name, attempt_id)
            await house.heard(name, twice, attempt_id)


async def recounted(house: House) -> dict[tuple[date, str], list[int]]:
    """(day, channel) -> payments, fen, refunds, fen: from every posting there is, one by one."""
    found: dict[tuple[date, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in await house.pool.fetch("select * from posting"):
        kind, _, name = row["account"].partition("/")
        if kind == "provider":
            sums = found[row["at"].astimezone(BEIJING).date(), name]
            at = 0 if row["fen"] > 0 else 2
            sums[at] += 1
            sums[at + 1] += abs(row["fen"])
    return found


async def told(house: House, day: date) -> dict[str, Any]:
    status, found, _ = await house.call("GET", f"/cashier/settlements/{day}", house.staff("cashier"))
    assert status == 200, found
    answer: dict[str, Any] = found
    return answer


def numbers(one: dict[str, Any]) -> list[int]:
    return [one["payments"], one["payments_fen"], one["refunds"], one["refunds_fen"]]


async def closed(house: House, day: date) -> dict[str, Any]:
    path = f"/cashier/settlements/{day}/close"
    status, found, _ = await house.call("POST", path, house.staff("manager"), json={"note": "核对无误"})
    assert status == 200, found
    answer: dict[str, Any] = found
    return answer


async def test_a_day_equals_the_ledger_to_the_fen(house: House) -> None:
    await busy(house)
    for name in (WECHAT_PAY, ALIPAY):
        await house.reconcile(name)
    counted = await recounted(house)
    day = house.day
    found = await told(house, day)
    channels = {one["provider"]: one for one in found["channels"]}
    assert {name: numbers(one) for name, one in channels.items()} == {
        name: counted[day, name] for name in (WECHAT_PAY, ALIPAY, DESK)
    }
    assert numbers(channels[WECHAT_PAY]) == [2, 10_000, 1, 1_200]
    assert numbers(channels[DESK]) == [1, 6_234, 1, 234]
    assert {name: one["suspense_fen"] for name, one in channels.items()} == {
        WECHAT_PAY: 0, ALIPAY: 5_000, DESK: 0,
    }  # fmt: skip
    assert channels[WECHAT_PAY]["fee_fen"] == "52.800"  # 0.60 % of 100.00 - 12.00
    assert channels[ALIPAY]["fee_fen"] == "60.000"  # of 100.00: the sandbox gives none back
    assert channels[DESK]["fee_fen"] == "0.000"
    # Everything that came in is revenue, or somebody's.
    earned = {one["kind"]: one["net_fen"] for one in found["revenue"]}
    assert earned == {"drug": 1_000, "registration": 3 * 5_000 + 5_000 - 2 * 1_200}
    assert found["net_fen"] == sum(earned.values()) + found["owed_back_fen"]
    assert (found["patient_fen"], found["suspense_fen"], found["owed_back_fen"]) == (0, 0, 5_000)
    assert (await told(house, day + timedelta(days=1)))["owed_back_fen"] == 10_000
    # What was paid twice is to go back, and nobody has sent it yet.
    assert (found["open_differences"], found["not_compared"]) == (1, [])
    nothing = await told(house, day - timedelta(days=1))
    assert [numbers(one) for one in nothing["channels"]] == [[0, 0, 0, 0]] * 3
    assert nothing["not_compared"] == [ALIPAY, WECHAT_PAY]


async def test_balances_are_those_of_the_whole_ledger_at_the_days_end(house: House) -> None:
    await busy(house)
    seat = uid("seat")
    await house.told(seat, opens(house.ids, seat, house.world.clock()))
    for command in pays(house.ids, uid("attempt", 990)):  # paid, and nobody has booked the seat yet
        await house.told(seat, command)
    seen = []
    for n in range(-1, 3):
        day = house.day + timedelta(days=n)
        found = await told(house, day)
        seen.append([found["patient_fen"], found["suspense_fen"], found["owed_back_fen"]])
        ends = datetime.combine(day + timedelta(days=1), time(), BEIJING)
        whole = await house.pool.fetch(
            "select account, sum(fen)::int as fen from posting where at < $1 group by account", ends
        )
        sums = {row["account"]: -row["fen"] for row in whole}
        names = ("patient", "suspense", "refunds_payable")
        assert seen[-1] == [sums.get(name, 0) for name in names], day
    assert seen == [[0, 0, 0], [0, 0, 5_000], [5_000, 0, 10_000], [5_000, 0, 10_000]]


async def late(house: House, day: date, fen: int) -> None:
    """What was decided before midnight and committed after the day had been closed."""
    house.move(day, time(23, 59, 59))
    bill_id = await house.bill(lines=(Line("1", Kind.REGISTRATION, "expert", fen),))
    await house.told(bill_id, p.TakeAtDesk(house.ids(), uid("late", fen), f"L{fen}", fen, "cashier"))


async def test_a_closed_day_stays_and_what_comes_later_is_of_the_day_on_which_it_comes(house: House) -> None:
    await busy(house)
    await house.reconcile(WECHAT_PAY)
    before = await told(house, house.day)
    shut = await closed(house, house.day)
    assert shut["closed_by"] == "shen" and shut["note"] == "核对无误"
    assert shut["channels"] == before["channels"]
    assert shut["not_compared"] == [ALIPAY]
    status, again, _ = await house.call(
        "POST", f"/cashier/settlements/{house.day}/close", house.staff("manager"), json={}
    )
    assert (status, again["code"]) == (409, "day_closed")

    await late(house, house.day, 777)
    await house.reconcile(ALIPAY)  # its fees are known now; and the run adjusts
    after = await told(house, house.day)
    assert after["channels"] == shut["channels"] and after["net_fen"] == shut["net_fen"]
    more = {one["provider"]: one for one in after["adjusted_later"]}
    assert numbers(more[DESK]) == [1, 777, 0, 0]
    assert (numbers(more[ALIPAY]), more[ALIPAY]["fee_fen"]) == ([0, 0, 0, 0], "60.000")
    today = await house.pool.fetchval("select day from adjustment limit 1")
    came = (await told(house, today))["adjustments"]
    assert {(one["of_date"], one["provider"]) for one in came} == {
        (str(house.day), DESK), (str(house.day), ALIPAY),
    }  # fmt: skip
    await house.reconcile(ALIPAY)  # nothing is counted twice
    await late(house, house.day, 333)
    await house.reconcile(ALIPAY)
    assert await house.pool.fetchval("select count(*) from adjustment") == 3

    # Snapshots and adjustments together are every posting of closed days.
    counted = await recounted(house)
    known: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    whole = await told(house, house.day)
    for one in (*whole["channels"], *whole["adjusted_later"]):
        known[one["provider"]] = [a + b for a, b in zip(known[one["provider"]], numbers(one), strict=True)]
    assert known == {name: counted[house.day, name] for name in (WECHAT_PAY, ALIPAY, DESK)}


async def test_two_who_close_a_day_close_it_once(house: House) -> None:
    path, staff = f"/cashier/settlements/{house.day}/close", house.staff("manager")
    async with house.pool.acquire() as holder, asyncio.timeout(30):
        async with holder.transaction():
            await holder.execute("lock table closed_day in exclusive mode")
            both = [asyncio.create_task(house.call("POST", path, staff, json={})) for _ in range(2)]
            while await holder.fetchval(WAITING) < 2:  # both have counted the day, and would write it
                pass
        told = await asyncio.gather(*both)
    assert sorted(status for status, _, _ in told) == [200, 409]
    assert {found["code"] for status, found, _ in told if status == 409} == {"day_closed"}
    assert await house.pool.fetchval("select count(*) from audit_entry where action = 'day_closed'") == 1


async def test_only_a_day_that_is_over_is_closed_and_nobody_changes_it(house: House) -> None:
    today = await house.pool.fetchval("select (now() at time zone 'Asia/Shanghai')::date")
    status, found, _ = await house.call(
        "POST", f"/cashier/settlements/{today}/close", house.staff("cashier"), json={}
    )
    assert (status, found["code"]) == (409, "day_not_over")
    await closed(house, house.day)
    for table in ("closed_day", "adjustment"):
        with pytest.raises(Exception, match="only added to"):
            await house.pool.execute(f"delete from {table}")
    [entry] = await house.pool.fetch("select action, object_id, reason from audit_entry")
    assert tuple(entry) == ("day_closed", str(house.day), "核对无误")


async def test_a_spreadsheet_reads_it_and_takes_nothing_for_a_formula(house: House) -> None:
    await busy(house)
    await closed(house, house.day)
    await late(house, house.day, 777)
    await house.reconcile(WECHAT_PAY)
    status, text, headers = await house.call(
        "GET", f"/cashier/settlements/{house.day}.csv", house.staff("cashier")
    )
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert text.startswith("\ufeff日期,")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    by_channel = {row["渠道"]: row for row in rows if row["类别"] == "渠道"}
    assert by_channel["微信支付"]["收款金额（元）"] == "100.00"
    assert by_channel["支付宝"]["手续费（元）"] == "未出账"
    [total] = [row for row in rows if row["类别"] == "合计"]
    assert total["净额（元）"] == "236.00"
    adjusted = [(row["归属日"], row["收款金额（元）"]) for row in rows if row["类别"] == "关账后调整"]
    assert (str(house.day), "7.77") in adjusted


async def test_a_page_for_paper(house: House) -> None:
    await house.pool.execute("insert into hospital (name, timezone) values ('h', 'Asia/Shanghai')")
    await busy(house)
    await closed(house, house.day)
    async with house.pool.acquire() as connection:
        found = await records.settlement(connection, house.day, ZONE)
    page = sheets.as_page(found, "<协和> & 医院", found.closed.at if found.closed else None, ZONE)  # type: ignore[arg-type]
    assert "&lt;协和&gt; &amp; 医院 收费日结单" in page
    assert "微信支付" in page and "100.00" in page and "已于" in page
    assert "<script" not in page and "http" not in page
