"""Coupons and counted discounts in PostgreSQL: of two bills that want the last one, one has it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import orjson
import pytest
from aiohttp import web

from engine.domain import payment as p
from engine.domain.policy import Policy
from engine.domain.price_rules import Discount, FirstVisitDiscount, FreeFollowUp, Kind, PriceRules
from engine.domain.schedule import Status
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import appointments, coupons, price_claims
from engine.records.appointments import AppointmentRecord
from engine.vault.vault import Vault
from tests.support.copies import copied, migrated
from tests.support.people import add_person
from tests.support.stores import uid
from web import keys
from web.bills.pricing import Priced, coupon_given_back, coupon_taken, priced, same_code
from web.errors import Problem

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
PATIENT, OTHER = uid("patient"), uid("patient", 2)
FEE = 5_000
RULES = PriceRules(
    (FirstVisitDiscount("首诊优惠", 20),),
    (FreeFollowUp("三日内复诊", 3), FreeFollowUp("七日", 7, 2, "cardio")),
)


@pytest.fixture(scope="module")
def original(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated(postgres.url) as url:
        yield url


@pytest.fixture
async def world(original: str, vault: Vault) -> AsyncIterator["World"]:
    async with copied(original) as url, world_of(url, vault) as world:
        yield world


@asynccontextmanager
async def world_of(database: str, vault: Vault) -> AsyncIterator["World"]:
    async with asyncpg.create_pool(database, min_size=1, max_size=6) as pool:
        for patient in (PATIENT, OTHER):
            await add_person(pool, vault, patient, name="王小明")
        app = web.Application()
        app[keys.POOL], app[keys.VAULT] = pool, vault
        app[keys.POLICY] = keys.PolicyInForce(Policy(prices=RULES))
        yield World(app, pool, vault)


@dataclass
class World:
    """Appointments and bills as the journal leaves them."""

    app: web.Application
    pool: asyncpg.Pool
    vault: Vault

    def rules(self, prices: PriceRules) -> None:
        self.app[keys.POLICY].policy = Policy(prices=prices)

    async def number(
        self,
        starts_at: datetime = NOW + DAY,
        status: Status = Status.BOOKED,
        patient: bytes = PATIENT,
        department: str = "0304",
        practitioner: str = "D0001",
    ) -> AppointmentRecord:
        number = secrets.token_bytes(16)
        day = starts_at.astimezone(ZoneInfo("Asia/Shanghai"))
        await self.pool.execute(
            "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id,"
            " account_id, status, fee_fen, starts_at, hold_until, created_at, updated_at, department_id,"
            " number_class_id)"
            " values ($1, $2, $3, 0, 1, 1, $4, $5, $6, $7, $8, $8, $8, $8, $9, 'expert')",
            UUID(bytes=number),
            f"{practitioner}-{day:%Y%m%d}",
            number.hex(),
            UUID(bytes=patient),
            UUID(bytes=uid("account")),
            int(status),
            FEE,
            starts_at,
            department,
        )
        found = await appointments.any_appointment(self.pool, self.vault, number)
        assert found is not None
        return found

    async def bill(self, number: AppointmentRecord, price: Priced | None = None, **changes: Any) -> bytes:
        """Its row, as engine/journal/bills.py would write it."""
        discounts = () if price is None else price.discounts
        fen = FEE - sum(one.fen for one in discounts)
        told = {
            "status": p.Status.OPEN,
            "closed": "",
            "paid": 0,
            "refunded": 0,
            "is_settled": False,
            **changes,
        }
        await self.pool.execute(
            "insert into bill (id, account_id, patient_id, order_no, lines, discounts, fen, department_id,"
            " number_class_id, appointment_id, starts_at, seat, status, closed, is_deferred, is_settled,"
            " paid, refunded, owed_back, kept, opened_at, updated_at, version)"
            " values ($1, $2, $3, '', $4, $5, $6, $7, '', $1, $8, 1, $9, $10, false, $11, $12, $13, 0, 0, $8,"
            " $8, 1)"
            " on conflict (id) do update set status = excluded.status, closed = excluded.closed,"
            " paid = excluded.paid, refunded = excluded.refunded, is_settled = excluded.is_settled",
            UUID(bytes=number.id),
            UUID(bytes=uid("account")),
            UUID(bytes=number.patient_id),
            orjson.dumps([["registration", Kind.REGISTRATION, "expert", FEE, 1]]).decode(),
            orjson.dumps(
                [[d.line_id, d.rule, d.name, d.fen, d.percent, d.until] for d in discounts]
            ).decode(),
            fen,
            number.department_id,
            number.starts_at,
            *(told[name] for name in ("status", "closed", "is_settled", "paid", "refunded")),
        )
        return number.id

    async def visited(self, ago: timedelta, **more: Any) -> AppointmentRecord:
        """A visit that was paid and held."""
        number = await self.number(NOW - ago, Status.FULFILLED, **more)
        await self.bill(number, status=p.Status.SETTLED, is_settled=True, paid=FEE)
        return number

    async def coupon(self, **changes: Any) -> str:
        new = replace(
            coupons.NewCoupons("国庆券", (Kind.REGISTRATION,), NOW - DAY, NOW + 30 * DAY, fen=1_000),
            **changes,
        )
        async with self.pool.acquire() as connection:
            (code,) = await coupons.make(connection, new, 1, "test", NOW)
        return code

    async def price(self, number: AppointmentRecord, coupon: str | None = None) -> Priced:
        return await priced(self.app, number, coupon)

    async def open(self, number: AppointmentRecord, coupon: str | None = None) -> Priced:
        price = await self.price(number, coupon)
        await coupon_taken(self.app, number.id, price)
        await self.bill(number, price)
        return price

    async def refusal(self, number: AppointmentRecord, coupon: str) -> tuple[str, object]:
        with pytest.raises(Problem) as refused:
            await self.price(number, coupon)
        return refused.value.code.value, refused.value.members.get("why")


def offs(price: Priced) -> list[tuple[str, int]]:
    return [(one.rule, one.fen) for one in price.discounts]


async def test_a_coupon_takes_its_amount_off_and_is_named_without_its_code(world: World) -> None:
    code = await world.coupon()
    await world.visited(30 * DAY)
    number = await world.number()
    typed = coupons.spelled(code).lower()
    price = await world.price(number, typed)
    assert offs(price) == [("coupon", 1_000)] and price.fen == FEE - 1_000
    (discount,) = price.discounts
    assert discount.name == f"国庆券 {code[-4:]}" and code not in discount.name
    assert same_code(discount.name, typed) and not same_code(discount.name, await world.coupon())
    stored = await world.pool.fetchval("select to_jsonb(c)::text from coupon c")
    assert code not in stored


async def test_two_bills_race_for_one_coupon_and_one_of_them_has_it(world: World) -> None:
    for _ in range(10):
        code = await world.coupon()
        one, two = await world.number(), await world.number(patient=OTHER)
        prices = [await world.price(number, code) for number in (one, two)]

        async def take(number: AppointmentRecord, price: Priced) -> str:
            try:
                await coupon_taken(world.app, number.id, replace(price, claims=()))
            except Problem as problem:
                return problem.code.value
            return "taken"

        outcomes = await asyncio.gather(
            *(take(n, price) for n, price in zip((one, two), prices, strict=True))
        )
        assert sorted(outcomes) == ["coupon_used", "taken"]
        winner, loser = (one, two) if outcomes[0] == "taken" else (two, one)
        await coupon_taken(world.app, winner.id, replace(prices[0], claims=()))  # again, for the same bill
        assert await world.refusal(loser, code) == ("coupon_used", None)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"begins_at": NOW + 2 * DAY}, ("coupon_unfit", "not_yet")),
        ({"ends_at": NOW + DAY / 2}, ("coupon_unfit", "over")),
        ({"at_least": FEE + 1}, ("coupon_unfit", "below")),
        ({"kinds": ("drug",)}, ("coupon_unfit", "other_kind")),
        ({"patient_id": OTHER}, ("coupon_unknown", None)),
    ],
)
async def test_one_that_does_not_fit_is_refused(
    world: World, changes: dict[str, Any], refusal: tuple[str, object]
) -> None:
    code = await world.coupon(**changes)
    assert await world.refusal(await world.number(), code) == refusal
    assert await world.pool.fetchval("select bill_id is null from coupon")


async def test_one_that_nobody_made_or_that_is_void_is_refused(world: World) -> None:
    number = await world.number()
    for text in ("", "0" * 16, "A" * 16, "国庆券", coupons.new_code()):
        assert (await world.refusal(number, text))[0] == "coupon_unknown"
    code = await world.coupon()
    found = await coupons.coupon(world.pool, code)
    assert found is not None
    price = await world.price(number, code)
    async with world.pool.acquire() as connection:
        assert await coupons.void(connection, [found.id], "test", NOW) == 1
        assert await coupons.void(connection, [found.id], "test", NOW) == 0
    assert await world.refusal(number, code) == ("coupon_unfit", "void")
    with pytest.raises(Problem):
        await coupon_taken(world.app, number.id, price)  # it was voided in between


async def test_it_is_given_back_by_a_bill_that_cost_nothing_and_by_no_other(world: World) -> None:
    code = await world.coupon()
    number, next_one = await world.number(), await world.number(patient=OTHER)
    price = await world.open(number, code)
    ends: list[tuple[dict[str, Any], bool]] = [
        ({"status": "open"}, False),
        ({"status": "settled", "is_settled": True, "paid": FEE}, False),
        ({"status": "closed", "closed": "cancelled", "is_settled": True, "paid": FEE}, False),  # kept
        ({"status": "partly_refunded", "paid": FEE, "refunded": 1}, False),
        ({"status": "closed", "closed": "no_show"}, False),
        ({"status": "closed", "closed": "expired"}, True),
        ({"status": "refunded", "paid": FEE, "refunded": FEE}, True),
    ]
    for changes, is_back in ends:
        await world.bill(number, price, **changes)
        await coupon_given_back(world.app, number.id)
        if not is_back:
            assert await world.refusal(next_one, code) == ("coupon_used", None)
        else:
            await world.open(next_one, code)
            await coupon_given_back(world.app, number.id)  # it is no longer its to give
            assert await world.refusal(number, code) == ("coupon_used", None)
            await world.pool.execute("update coupon set bill_id = $1", UUID(bytes=number.id))


async def test_it_stays_while_somebody_may_still_be_paying(world: World) -> None:
    code = await world.coupon()
    number = await world.number()
    price = await world.open(number, code)
    await world.bill(number, price, status="closed", closed="expired")
    await world.pool.execute(
        "insert into payment values ($1, $2, 'alipay', 'm', 4000, 3, '', '', 0, false, now(), now())",
        UUID(bytes=uid("attempt")),
        UUID(bytes=number.id),
    )
    await coupon_given_back(world.app, number.id)
    assert await world.refusal(await world.number(), code) == ("coupon_used", None)
    await world.pool.execute("update payment set state = 5")
    await coupon_given_back(world.app, number.id)
    await world.open(await world.number(), code)


async def test_a_reservation_lapses_where_the_bill_was_never_opened_or_without_it(world: World) -> None:
    code = await world.coupon()
    number, next_one = await world.number(), await world.number(patient=OTHER)
    await coupon_taken(world.app, number.id, await world.price(number, code))
    assert await world.refusal(next_one, code) == ("coupon_used", None)
    await world.pool.execute("update coupon set taken_at = taken_at - interval '11 minutes'")
    await coupon_taken(world.app, next_one.id, await world.price(next_one, code))
    await world.bill(next_one)  # without it
    await coupon_given_back(world.app, next_one.id)
    price = await world.open(number, code)
    await world.pool.execute("update coupon set taken_at = taken_at - interval '11 minutes'")
    assert await world.refusal(next_one, code) == ("coupon_used", None)  # that bill has it, for good
    await coupon_given_back(world.app, number.id)
    assert price.coupon is not None and not await coupons.take(world.pool, price.coupon.id, next_one.id, NOW)


async def test_who_was_never_here_pays_less_once(world: World) -> None:
    first, second = await world.number(), await world.number(department="0501")
    price = await world.open(first)
    assert offs(price) == [("first_visit", 1_000)]
    assert offs(await world.price(second)) == []
    assert offs(await world.price(first)) == [("first_visit", 1_000)]  # of the bill itself nothing changes
    await world.bill(first, price, status="closed", closed="cancelled")
    await coupon_given_back(world.app, first.id)
    assert offs(await world.price(second)) == [("first_visit", 1_000)]
    await world.number(NOW - DAY, Status.FULFILLED)
    assert offs(await world.price(second)) == []
    assert offs(await world.price(await world.number(patient=OTHER))) == [("first_visit", 1_000)]


async def test_who_was_seen_and_paid_follows_up_for_nothing(world: World) -> None:
    await world.visited(2 * DAY)
    assert offs(await world.price(await world.number(NOW + DAY / 2))) == [("free_follow_up", FEE)]
    assert offs(await world.price(await world.number(NOW + DAY / 2, practitioner="D0002"))) != []
    assert offs(await world.price(await world.number(NOW + 2 * DAY))) == []  # the window is over by then
    assert offs(await world.price(await world.number(NOW + DAY / 2, department="0501"))) == []
    assert offs(await world.price(await world.number(NOW + DAY / 2, patient=OTHER))) != [
        ("free_follow_up", FEE)
    ]


async def test_a_visit_that_cost_nothing_brings_no_free_follow_up(world: World) -> None:
    number = await world.number(NOW - DAY, Status.FULFILLED)
    assert offs(await world.price(await world.number())) == []  # no bill at all
    await world.bill(number, status="at_hospital")
    assert offs(await world.price(await world.number())) == []  # not paid yet
    await world.bill(number, status="refunded", is_settled=True, paid=FEE, refunded=FEE)
    assert offs(await world.price(await world.number())) == []
    await world.bill(number, status="partly_refunded", is_settled=True, paid=FEE, refunded=FEE - 1)
    assert offs(await world.price(await world.number())) == [("free_follow_up", FEE)]


async def test_free_follow_ups_are_counted_and_two_bills_race_for_the_last(world: World) -> None:
    await world.visited(DAY, department="cardio")
    world.rules(PriceRules((), (FreeFollowUp("七日", 7, 2, "cardio"),)))
    first = await world.number(department="cardio")
    price = await world.open(first)
    await coupon_taken(world.app, first.id, price)  # a retry takes no second one
    assert await world.pool.fetchval("select count(*) from price_claim") == 1
    rest = [await world.number(NOW + DAY, department="cardio") for _ in range(6)]
    prices = [await world.price(number) for number in rest]
    assert all(offs(one) == [("free_follow_up", FEE)] for one in prices)

    async def take(number: AppointmentRecord, price: Priced) -> bool:
        try:
            await coupon_taken(world.app, number.id, price)
        except Problem as problem:
            assert problem.code.value == "price_changed"
            return False
        return True

    taken = await asyncio.gather(*(take(n, price) for n, price in zip(rest, prices, strict=True)))
    assert sum(taken) == 1
    assert offs(await world.price(rest[taken.index(False)])) == []
    winner = rest[taken.index(True)]
    await world.bill(winner, prices[0], status="closed", closed="cancelled")
    await coupon_given_back(world.app, winner.id)
    assert offs(await world.price(rest[taken.index(False)])) == [("free_follow_up", FEE)]


async def test_of_two_that_take_the_last_at_the_same_instant_the_second_waits_and_has_none(
    world: World,
) -> None:
    paid = await world.visited(DAY)
    code = await world.coupon()
    found = await coupons.coupon(world.pool, code)
    assert found is not None
    one, two = await world.number(), await world.number()

    async def claim(bill: AppointmentRecord, on: asyncpg.Connection) -> bool:
        return await price_claims.claim(on, price_claims.FREE_FOLLOW_UP, paid.id, 1, bill.id, NOW)

    async def take(bill: AppointmentRecord, on: asyncpg.Connection) -> bool:
        return await coupons.take(on, found.id, bill.id, NOW)

    for wanted in (claim, take):
        async with world.pool.acquire() as first, world.pool.acquire() as second:
            async with first.transaction():
                assert await wanted(one, first)
                waiting = asyncio.create_task(wanted(two, second))
                waits = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
                while not await world.pool.fetchval(waits, second.get_server_pid()):
                    assert not waiting.done()
            assert not await waiting


async def test_a_free_follow_up_that_was_never_opened_is_free_again(world: World) -> None:
    paid = await world.visited(DAY)
    number, next_one = await world.number(NOW + DAY), await world.number(NOW + DAY)
    await coupon_taken(world.app, number.id, await world.price(number))
    assert offs(await world.price(next_one)) == []
    await world.pool.execute("update price_claim set taken_at = taken_at - interval '11 minutes'")
    await world.open(next_one)
    rows = await world.pool.fetch("select kind, subject, bill_id from price_claim")
    assert [(r[0], r[1].bytes, r[2].bytes) for r in rows] == [
        (price_claims.FREE_FOLLOW_UP, paid.id, next_one.id)
    ]


async def test_a_coupon_finds_nothing_left_of_what_is_free(world: World) -> None:
    await world.visited(DAY)
    code = await world.coupon()
    assert await world.refusal(await world.number(), code) == ("coupon_unfit", "nothing_to_pay")


async def test_one_patients_coupon_is_his_alone(world: World) -> None:
    code = await world.coupon(patient_id=PATIENT, fen=0, percent=30)
    price = await world.open(await world.number(), code)
    assert offs(price) == [("first_visit", 1_000), ("coupon", 1_200)]
    assert Discount("registration", "coupon", price.discounts[1].name, 1_200, 30) == replace(
        price.discounts[1], until=0
    )
