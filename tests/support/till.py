"""A gateway and a shard in this process, with both payment sandboxes on ports of their own: whoever tests
pays, loses callbacks and breaks lines as he likes. Callbacks go out when `deliver` says so."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from itertools import count
from typing import Any, Final
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import aiohttp
import asyncpg
from aiohttp.test_utils import TestServer

from engine.domain import payment as p
from engine.domain.ids import BillKey, ScheduleKey
from engine.domain.planning import Plan, PlannedSlot, Session
from engine.embedded_postgres import free_port
from engine.journal.streams import read_bill
from engine.records.policies import store_policy
from integrations.alipay.sandbox import Sandbox as Alipay
from integrations.wechat_pay.sandbox import Sandbox as WeChatPay
from integrations.wechat_pay.sandbox_keys import Keys
from tests.support import alipay as alipay_keys
from tests.support.noon import noon_zone
from tests.support.one_process import OneProcess, serving
from tests.support.stores import PostgresWorld, uid
from web.bills.merchants import AlipayMerchant, Payments, WeChatPayMerchant

Json = dict[str, Any]
FEE: Final = 5_000
DEAR: Final = 8_000
CHEAP: Final = 2_000
SECONDS_MAX: Final = 30.0
HOLD_SECONDS: Final = 900


@cache
def wechat_keys() -> Keys:
    """Made once a run: RSA takes a while."""
    return Keys.made(time.time())


@dataclass
class Answer:
    status: int
    told: Json

    def __getitem__(self, name: str) -> Any:
        return self.told[name]


@dataclass
class Payer:
    """An account and its one patient."""

    till: "Till"
    account_id: bytes
    patient_id: str
    token: str

    async def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Answer:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key or str(uuid4())}
        async with self.till.http.request(method, f"/api/v1/{path}", json=body, headers=headers) as answer:
            return Answer(answer.status, await answer.json())

    async def good(self, method: str, path: str, body: Any = None, key: str = "") -> Json:
        answer = await self.ask(method, path, body, key)
        assert answer.status < 300, (answer.status, answer.told)
        return answer.told

    async def hold(self, clock: str = "0900", doctor: str = "D0001") -> str:
        slot = self.till.key(doctor).slot_id(clock)
        body = {"slot_id": slot, "patient_id": self.patient_id}
        return str((await self.good("POST", "appointments", body))["id"])

    async def pay(self, bill: str, provider: str = "wechat_pay", key: str = "", **more: Any) -> Json:
        return await self.good("POST", f"bills/{bill}/payments", {"provider": provider, **more}, key)

    async def bill(self, bill: str) -> Json:
        return await self.good("GET", f"bills/{bill}")

    async def number(self, appointment: str) -> Json:
        return await self.good("GET", f"appointments/{appointment}")

    async def status(self, bill: str, status: str) -> Json:
        """Waits until the bill is so; callbacks go out meanwhile."""
        told: Json = {}

        async def is_so() -> bool:
            await self.till.deliver()
            told.update(await self.bill(bill))
            return bool(told["status"] == status)

        await until(is_so, f"a bill to be {status}, which is {told.get('status')}")
        return told

    async def notices(self) -> list[str]:
        return [one["kind"] for one in (await self.good("GET", "notices"))["notices"]]


@dataclass
class Till:
    world: PostgresWorld
    one: OneProcess
    http: aiohttp.ClientSession
    pool: asyncpg.Pool
    wechat: WeChatPay
    alipay: Alipay
    day: date
    zone: ZoneInfo
    _ids: "count[int]" = field(default_factory=lambda: count(1))

    def key(self, doctor: str = "D0001") -> ScheduleKey:
        return ScheduleKey(doctor, self.day.isoformat())

    async def payer(self) -> Payer:
        n = next(self._ids)
        account = uid("payer", n)
        await self.pool.execute(
            "insert into account values ($1, $2, now())", UUID(bytes=account), f"payer-{n}"
        )
        token = self.one.tokens.issue(account).access_token
        payer = Payer(self, account, "", token)
        body = {
            "name": "欧阳明月", "id_type": "passport", "id_number": f"P{n:07}", "phone": "13712345678",
            "birth_date": "1980-01-01", "sex": "female", "relation": "self",
        }  # fmt: skip
        payer.patient_id = (await payer.good("POST", "patients", body))["id"]
        return payer

    async def deliver(self) -> None:
        """Every callback that is due."""
        await self.wechat.deliver()
        await self.alipay.deliver(self.http)

    def order(self, payment: Json) -> str:
        """The provider's number of it."""
        return str(payment["payment_id"]).replace("-", "")

    async def replayed(self, bill: str) -> p.Bill:
        return await read_bill(self.pool, BillKey(UUID(bill).bytes))

    def expire(self) -> None:
        """All holds end now, by the shard's clock; its sweeper comes by."""
        self.world.clock.advance(seconds=HOLD_SECONDS + 1)

    async def alarms(self) -> list[tuple[str, str, str]]:
        rows = await self.pool.fetch("select provider, what, why from payment_alarm order by id")
        return [tuple(row) for row in rows]

    async def errand(self) -> None:
        """Whatever waits is due now."""
        await self.pool.execute("update errand set due_at = now()")
        await self.pool.execute("select pg_notify('errand', '')")

    async def balanced(self) -> None:
        """The ledger sums to 0 and is what the bills' own states say; the providers have what it says."""
        assert await self.pool.fetchval("select coalesce(sum(fen), 0)::bigint from posting") == 0
        for row in await self.pool.fetch("select id from bill"):
            bill = await read_bill(self.pool, BillKey(row["id"].bytes))
            assert p.ledger_error(bill) == 0
        ours = dict(
            await self.pool.fetch(
                "select account, sum(fen)::bigint from posting where account like 'provider/%' group by 1"
            )
        )
        wechat = sum(order.total - order.refunded for order in self.wechat.orders.values())
        assert ours.get("provider/wechat_pay", 0) == wechat
        assert ours.get("provider/alipay", 0) == self.alipay.account


def merchants_there(address: str, wechat_port: int, alipay_port: int) -> Payments:
    """Our side of sandboxes on these ports."""
    keys = wechat_keys()
    return Payments(
        address,
        WeChatPayMerchant(
            f"http://127.0.0.1:{wechat_port}",
            keys.mch_id,
            keys.app_id,
            keys.merchant_serial,
            keys.merchant_pem(),
            keys.api_v3_key,
            keys.public_id,
            keys.public_pem(),
        ),
        AlipayMerchant(
            f"http://127.0.0.1:{alipay_port}/gateway.do",
            alipay_keys.APP_ID,
            alipay_keys.SELLER_ID,
            alipay_keys.pem(alipay_keys.APP),
            alipay_keys.public_pem(alipay_keys.THEIRS.public_key()),
        ),
    )


async def until(is_so: Callable[[], Awaitable[bool]], what: str) -> None:
    ends = time.monotonic() + SECONDS_MAX
    while not await is_so():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def till_at(database: str, policy: str = "", **given: Any) -> AsyncIterator[Till]:
    """Tomorrow D0001 and D0002 have slots of two at 09:00 and 09:30, D0003 is dear and D0004 cheap."""
    world = PostgresWorld(database)
    zone = ZoneInfo(noon_zone())
    day = datetime.now(zone).date() + timedelta(1)
    pool = await world.pool()
    await pool.execute("insert into hospital (name, timezone) values ('市第一医院', $1)", str(zone))
    await pool.execute("insert into number_class (id, name, fee_fen) values ('expert', '专家号', $1)", FEE)
    for doctor, fee in (("D0001", FEE), ("D0002", FEE), ("D0003", DEAR), ("D0004", CHEAP)):
        await world.publish(ScheduleKey(doctor, day.isoformat()), _plan(day, zone, fee))
    if policy:
        async with pool.acquire() as connection, connection.transaction():
            assert await store_policy(connection, policy, "test")
    keys = wechat_keys()
    wechat = WeChatPay(keys, time.time)
    wechat.callbacks.by_public_key = True
    alipay = Alipay(
        alipay_keys.APP_ID, alipay_keys.SELLER_ID, alipay_keys.THEIRS, alipay_keys.APP.public_key(), time.time
    )
    port = free_port()
    async with TestServer(wechat.app()) as wechat_server, TestServer(alipay.app()) as alipay_server:
        payments = merchants_there(
            f"http://127.0.0.1:{port}", wechat_server.port or 0, alipay_server.port or 0
        )
        async with (
            serving(world, payments=payments, port=port, **given) as one,
            aiohttp.ClientSession(one.address) as http,
        ):
            till = Till(world, one, http, pool, wechat, alipay, day, zone)
            yield till
            await till.balanced()
    await world.close()


def _plan(day: date, zone: ZoneInfo, fee: int) -> Plan:
    at = int(datetime(day.year, day.month, day.day, 9, tzinfo=zone).timestamp() * 1000)
    slots = tuple(PlannedSlot(f"09{30 * n:02d}", at + n * 1_800_000, 2) for n in range(2))
    return (Session("morning", "cardio", "expert", "r1", fee, slots),)
