"""`xinglin policy dry-run` and `show` about money, and `xinglin coupons`, on real rows."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from engine.domain.payment import AtHospital, MoneyTerms
from engine.domain.policy import Policy
from engine.domain.price_rules import FirstVisitDiscount, FreeFollowUp, PriceRules
from engine.domain.refund_rules import RefundRules, RefundTerms
from engine.domain.schedule import Status
from engine.records.policies import store_policy
from engine.vault.vault import Vault
from tests.integration.test_coupons import DAY, FEE, NOW, OTHER, World, world_of
from web.cli import main
from web.policy_dry_run_money import read_numbers, rehearse_money

DEAR = Policy(money=MoneyTerms(refunds=RefundRules({("", ""): RefundTerms(((48 * 60, 100), (60, 50)), 0)})))
KIND = Policy(
    prices=PriceRules((FirstVisitDiscount("首诊", 20),), (FreeFollowUp("三日内", 3),)),
    money=MoneyTerms(AtHospital(FEE - 1), RefundRules({("", ""): RefundTerms(((0, 100),), 10)})),
)


@pytest.fixture
async def world(database: str, vault: Vault) -> AsyncIterator[World]:
    async with world_of(database, vault) as world:
        yield world


async def test_recorded_numbers_are_priced_and_given_back_under_both(world: World) -> None:
    await world.visited(5 * DAY)
    await world.number(NOW - 4 * DAY)  # within three days of it; never paid, to be paid at the hospital
    await world.number(NOW - 3.9 * DAY)
    gone = await world.number(NOW - DAY, Status.CANCELLED, OTHER)
    await world.bill(gone, status="partly_refunded", is_settled=True, paid=FEE, refunded=1)
    late = await world.number(NOW - DAY, Status.NOSHOW, OTHER)
    await world.bill(late, status="closed", closed="no_show", is_settled=True, paid=FEE)
    never = await world.number(NOW - DAY, Status.CANCELLED)
    for hours in (10, 9):
        await world.number(NOW - hours * DAY / 24, patient=OTHER)
    await world.pool.execute(
        "update appointment set updated_at = starts_at - interval '2 hours', created_at = $2 where id = $1",
        gone.id.hex(),
        NOW - 3 * DAY,
    )
    await world.pool.execute("update appointment set reason = 'expired' where id = $1", never.id.hex())
    async with world.pool.acquire() as connection:
        numbers = await read_numbers(connection, (NOW - 9 * DAY).date(), NOW.date())
    assert len(numbers) == 8
    dear, kind = rehearse_money(numbers, DEAR), rehearse_money(numbers, KIND)
    assert dict(dear.discounts) == {}
    assert {which: fen for which, fen in dear.refunds.items() if fen} == {
        ("0304", "expert", "cancelled"): FEE // 2
    }
    assert dear.too_dear == 0
    # One free follow-up of the two that wanted it. First visits: the first patient's, the other one's two
    # that were given up, and one of the two that were kept.
    assert kind.discounts["free_follow_up", "三日内"] == FEE
    assert kind.discounts["first_visit", "首诊"] == 4 * FEE // 5
    assert kind.refunds["0304", "expert", "cancelled"] == FEE
    assert kind.refunds["0304", "expert", "no_show"] == FEE // 10
    assert kind.too_dear == 2


async def test_the_commands_say_it(world: World, database: str) -> None:
    async with world.pool.acquire() as connection:
        await connection.execute("insert into hospital (name, timezone) values ('h', 'Asia/Shanghai')")
        async with connection.transaction():
            await store_policy(
                connection, "defaults: {refunds: {cancelled: [{before: 1d, percent: 70}]}}", "t"
            )
    shown = await told("policy", "show", "--money", "0304", "--database-url", database)
    assert "percent: 70" in shown and "at_hospital: true" in shown
    until = f"{datetime.now(UTC) + timedelta(days=9):%F}"
    made = await told(
        "coupons", "make", "--count", "3", "--name", "国庆券", "--fen", "500", "--until", until,
        "--database-url", database,
    )  # fmt: skip
    codes = made.split()
    assert len(set(codes)) == 3 and all(re.fullmatch(r"[2-9A-Z]{4}(-[2-9A-Z]{4}){3}", one) for one in codes)
    price = await world.price(await world.number(), codes[0])
    assert [one.fen for one in price.discounts if one.rule == "coupon"] == [500]
    voided = await told("coupons", "void", codes[0].lower(), "--database-url", database)
    assert voided.startswith("1 coupons are void")
    assert (await world.refusal(await world.number(), codes[0]))[1] == "void"
    listed = await told("coupons", "list", "--name", "国庆券", "--database-url", database)
    assert listed.count("free") == 2 and listed.count("void") == 1 and codes[1] not in listed
    assert "国庆券" in await told("coupons", "list", "--database-url", database)
    entries = await world.pool.fetch("select action, by_kind from audit_entry order by id")
    assert [tuple(row) for row in entries] == [("coupons_made", "operator"), ("coupons_voided", "operator")]
    both = ["coupons", "make", "--name", "x", "--until", until, "--database-url", database]
    assert "give --fen or --percent" in (await run(*both)).stderr


async def run(*command: str) -> Result:
    """In a thread: commands have loops of their own."""
    return await asyncio.to_thread(CliRunner().invoke, main, command)


async def told(*command: str) -> str:
    done = await run(*command)
    assert done.exit_code == 0, done.output
    return done.stdout
