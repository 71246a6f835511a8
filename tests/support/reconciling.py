"""Bills, both providers' sandboxes and reconciliation in one process: what a day looks like from all sides.

The day is three days ago, so that it is over whatever the time; who pays, pays then. The clock of bills and
sandboxes is moved by the test.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import asyncpg
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from actors.directory import Directory
from actors.metrics import GatewayMetrics
from engine.domain import payment as p
from engine.domain.policy import Channel, Policy
from engine.domain.refusal import Refusal
from engine.records import reconciliation as records
from engine.records.reconciliation import DifferenceRow, RunRow
from engine.records.staff import Staff
from engine.settings import Settings
from integrations.alipay import sandbox as alipay
from integrations.alipay.client import AlipayClient
from integrations.connector import OutcomeUnknown
from integrations.hospital_billing import sandbox as hospital
from integrations.hospital_billing.client import Billing, HospitalBillingClient
from integrations.wechat_pay import sandbox as wechat_pay
from integrations.wechat_pay.client import WeChatPay
from integrations.wechat_pay.sandbox_keys import Keys
from integrations.wechat_pay.signing import PlatformKeys
from integrations.wechat_pay.translate import BEIJING
from tests.support import alipay as alipay_keys
from tests.support.bills import Ids, ask_bill, opens
from tests.support.one_process import DirectLines
from tests.support.stores import Clock, PostgresWorld, Served, uid
from web import keys
from web.auditing import Readings
from web.auth import Tokens
from web.bills.at_provider import REFUND_REASON, report_of_payment, report_of_refund
from web.bills.circuit import Circuit
from web.bills.providers import (
    ALIPAY,
    WECHAT_PAY,
    AlipayProvider,
    Asked,
    GiveBack,
    Provider,
    Providers,
    WeChatPayProvider,
)
from web.hospital_billing.billing import HospitalBilling
from web.openapi import api
from web.rate_limits import limits_of
from web.reconciliation import routes, settlements  # noqa: F401  (these declare their routes)
from web.reconciliation.reconciling import Reconciling

ZONE: Final = ZoneInfo("Asia/Shanghai")
_NOTIFY: Final = "http://127.0.0.1:9/notify"  # nobody listens: callbacks are lost
_KEYS: list[Keys] = []


def _keys(at: float) -> Keys:
    """Made once: RSA keys take a while."""
    if not _KEYS:
        _KEYS.append(Keys.made(at))
    return _KEYS[0]


@dataclass
class House:
    app: web.Application
    client: TestClient[web.Request, web.Application]
    database: str
    pool: asyncpg.Pool
    world: PostgresWorld
    served: Served
    reconciling: Reconciling
    wechat_pay: wechat_pay.Sandbox
    alipay: alipay.Sandbox
    billing: hospital.Sandbox
    day: date
    ids: Ids
    bills: int = 0

    def move(self, day: date, clock: time = time(12)) -> None:
        """Bills and sandboxes, to a time of Beijing."""
        self._set(int(datetime.combine(day, clock, BEIJING).timestamp() * 1000))

    def _set(self, now: int) -> None:
        self.world.clock.advance(ms=now - self.world.clock())

    def provider(self, name: str) -> Provider:
        found = self.app[keys.PROVIDERS].get(name)
        assert found is not None
        return found

    async def ask(self, bill_id: bytes, *commands: p.Command) -> list[Any]:
        return await ask_bill(self.served, bill_id, *commands)

    async def bill(self, **given: Any) -> bytes:
        """One that no seat hangs on, of 50 yuan."""
        self.bills += 1
        bill_id = uid("bill", self.bills)
        given = {"appointment_id": b"", "order": f"order-{self.bills}", **given}
        await self.told(bill_id, opens(self.ids, bill_id, self.world.clock(), **given))
        return bill_id

    async def told(self, bill_id: bytes, command: p.Command) -> None:
        [reply] = await self.ask(bill_id, command)
        assert not isinstance(reply, Refusal), (command, reply)

    async def begun(self, bill_id: bytes, name: str, fen: int = 5_000) -> bytes:
        """An attempt that the provider was asked for."""
        provider, attempt_id = self.provider(name), uid("attempt", self.ids.last + 1)
        await self.told(bill_id, p.StartPayment(self.ids(), attempt_id, name, provider.merchant_id))
        expires_at = datetime.fromtimestamp(self.world.clock() / 1000, BEIJING) + timedelta(minutes=15)
        asked = Asked(attempt_id, fen, "挂号费", "openid", expires_at)
        prepay = await provider.prepay(asked)
        page = provider.pay_page(asked)
        if page is not None:
            async with ClientSession() as browser, browser.get(page, allow_redirects=False):
                pass  # that is when Alipay hears of it
        await self.told(bill_id, p.PrepayAnswered(self.ids(), attempt_id, prepay))
        return attempt_id

    def pay(self, name: str, attempt_id: bytes, fen: int | None = None) -> None:
        """There. Nobody tells us."""
        if name == WECHAT_PAY:
            self.wechat_pay.pay(attempt_id.hex(), fen)
        else:
            assert self.alipay.pay(attempt_id.hex())

    async def heard(self, name: str, bill_id: bytes, attempt_id: bytes) -> None:
        await self.told(bill_id, await report_of_payment(self.app, self.provider(name), bill_id, attempt_id))

    async def paid(self, name: str, heard: bool = True) -> tuple[bytes, bytes]:
        """A bill and its attempt."""
        bill_id = await self.bill()
        attempt_id = await self.begun(bill_id, name)
        self.pay(name, attempt_id)
        if heard:
            await self.heard(name, bill_id, attempt_id)
        return bill_id, attempt_id

    async def refund(self, name: str, bill_id: bytes, attempt_id: bytes, fen: int) -> bytes:
        """Asked for by staff and at the provider; heard of where it answers."""
        refund_id = uid("refund", self.ids.last + 1)
        await self.told(bill_id, p.RequestRefund(self.ids(), refund_id, (("1", fen),), "not done", "staff"))
        try:
            await self.provider(name).refund(GiveBack(refund_id, attempt_id, fen, 5_000, REFUND_REASON))
        except OutcomeUnknown:
            await self.told(bill_id, p.RefundOutcomeLost(self.ids(), refund_id))
        else:
            await self.told(
                bill_id,
                await report_of_refund(self.app, self.provider(name), bill_id, attempt_id, refund_id),
            )
        return refund_id

    async def reconcile(self, channel: str, day: date | None = None) -> RunRow:
        """Once, when their bill is there."""
        day = day or self.day
        before = self.world.clock()
        self.move(
            max(day + timedelta(days=1), datetime.fromtimestamp(before / 1000, BEIJING).date()), time(11)
        )
        async with self.pool.acquire() as connection:
            run, _ = await self.reconciling.run(connection, channel, day, "")
        self._set(before)
        return run

    async def found(self, channel: str | None = None) -> list[DifferenceRow]:
        async with self.pool.acquire() as connection:
            return await records.differences(connection, False, None, channel, None, None, 1_000)

    async def kinds(self, channel: str | None = None) -> dict[str, str]:
        return {one.kind: one.state for one in await self.found(channel)}

    async def errands(self) -> set[tuple[str, str]]:
        return {(row["kind"], row["key"]) for row in await self.pool.fetch("select kind, key from errand")}

    def staff(self, *roles: str) -> str:
        one = Staff(secrets.token_bytes(16), "shen", "沈", frozenset(roles), None, None, Channel.WINDOW)
        return self.app[keys.TOKENS].issue_staff(one).access_token

    async def call(self, method: str, path: str, token: str = "", **rest: Any) -> tuple[int, Any, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.request(method, f"/api/v1{path}", headers=headers, **rest) as response:
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, await (response.json() if is_json else response.text()), response.headers


@asynccontextmanager
async def house_of(database: str, has_billing: bool = False) -> AsyncIterator[House]:
    """`has_billing`: the hospital's own is connected, too."""
    day = datetime.now(BEIJING).date() - timedelta(days=3)
    world = PostgresWorld(database, Clock(int(datetime.combine(day, time(12), BEIJING).timestamp() * 1000)))
    served = await Served.open(world)
    pool = await world.pool()
    await world.register([])

    def now() -> float:
        return world.clock() / 1000

    theirs = wechat_pay.Sandbox(_keys(datetime(2026, 1, 1, tzinfo=BEIJING).timestamp()), now)
    others = alipay.Sandbox(
        alipay_keys.APP_ID, alipay_keys.SELLER_ID, alipay_keys.THEIRS, alipay_keys.APP.public_key(), now
    )
    billing = hospital.Sandbox("hospital", b"secret", now, zone=ZONE)
    app = web.Application()
    async with (
        TestServer(theirs.app()) as at_wechat,
        TestServer(others.app()) as at_alipay,
        TestServer(billing.app()) as at_billing,
        ClientSession() as session,
    ):
        if has_billing:
            where = Billing(str(at_billing.make_url("")), "hospital", b"secret")
            app[keys.HOSPITAL_BILLING] = HospitalBilling(HospitalBillingClient(session, where, 2.0, now))
        platform = PlatformKeys([theirs.keys.platform_public_key()])
        address = str(at_wechat.make_url("")).rstrip("/")
        client = WeChatPay(session, address, theirs.keys.merchant_there(), platform, 2.0, now)
        there = alipay_keys.merchant(f"http://127.0.0.1:{at_alipay.port}/gateway.do", _NOTIFY)
        app[keys.PROVIDERS] = Providers(
            {
                WECHAT_PAY: WeChatPayProvider(client, theirs.keys.mch_id, _NOTIFY, "", Circuit(WECHAT_PAY)),
                ALIPAY: AlipayProvider(
                    AlipayClient(session, there, 2.0, now), there.seller_id, "http://h/back", Circuit(ALIPAY)
                ),
            }
        )
        app[keys.SETTINGS] = Settings.model_construct()
        app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(Settings.model_construct())
        app[keys.READINGS] = Readings()
        app[keys.POOL] = pool
        app[keys.TOKENS] = Tokens(secrets.token_bytes(32), 1800, 86400)
        app[keys.ZONE] = ZONE
        app[keys.POLICY] = keys.PolicyInForce(Policy())
        app[keys.DIRECTORY] = Directory(DirectLines(served).send, 1)
        app[keys.METRICS] = GatewayMetrics()
        app[keys.RECONCILING] = reconciling = Reconciling(app, database)
        api.setup(app)
        async with TestClient(TestServer(app)) as ours:
            yield House(
                app, ours, database, pool, world, served, reconciling, theirs, others, billing, day, Ids()
            )
        await app[keys.DIRECTORY].close()
    await served.stop()
    await world.close()
