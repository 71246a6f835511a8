"""Alipay for tests: keys made once, the sandbox on a port, a clock that stands still until it is moved."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Final
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key

from integrations.alipay import callbacks, signing
from integrations.alipay.client import SECONDS_MAX, AlipayClient
from integrations.alipay.merchant import Merchant
from integrations.alipay.sandbox import Sandbox
from integrations.alipay.translate import BEIJING, Order, time_text

APP_ID: Final = "2021000000000001"
SELLER_ID: Final = "2088000000000001"
BUYER: Final = "2088000000000002"
APP: Final = generate_private_key(65537, 2048)
THEIRS: Final = generate_private_key(65537, 2048)
FORGER: Final = generate_private_key(65537, 2048)
NOON: Final = datetime(2026, 10, 3, 12, tzinfo=BEIJING).timestamp()


def pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public_pem(key: RSAPublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def merchant(gateway: str = "https://alipay.example/gateway.do", notify_url: str = "https://h/n") -> Merchant:
    return Merchant(APP_ID, SELLER_ID, APP, THEIRS.public_key(), notify_url, gateway)


def order(number: str, fen: int = 3580, minutes: int = 15) -> Order:
    return Order(number, fen, "挂号费", int((NOON + minutes * 60) * 1000))


def signed_notice(key: RSAPrivateKey = THEIRS, **changed: str | None) -> bytes:
    """A notice of a payment of 35.80 for X1, some fields changed (None: left out) before it is signed."""
    told: dict[str, str | None] = {
        "notify_id": "n1",
        "notify_time": time_text(int(NOON * 1000)),
        "notify_type": "trade_status_sync",
        "app_id": APP_ID,
        "seller_id": SELLER_ID,
        "charset": "utf-8",
        "sign_type": "RSA2",
        "out_trade_no": "X1",
        "trade_no": "2026100300000000000000000001",
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "35.80",
        "gmt_payment": time_text(int(NOON * 1000)),
        "subject": "挂号费 & 诊查=1",
    }
    parameters = {name: value for name, value in (told | changed).items() if value is not None}
    return urlencode(parameters | {"sign": signing.sign(key, signing.of_notice(parameters))}).encode()


@dataclass(slots=True)
class Hospital:
    """What takes the notices: orders and what was dealt with."""

    orders: dict[str, int] = field(default_factory=dict)
    dealt: list[callbacks.Notice] = field(default_factory=list)
    answers: list[callbacks.Answer] = field(default_factory=list)
    is_down: bool = False  # it deals with notices, and dies before it says so

    async def amount_of(self, out_trade_no: str) -> int | None:
        return self.orders.get(out_trade_no)

    async def deal(self, notice: callbacks.Notice) -> None:
        self.dealt.append(notice)
        if self.is_down:
            raise RuntimeError("died")

    @property
    def paid(self) -> set[str]:
        return {notice.out_trade_no for notice in self.dealt if notice.was_paid}


@dataclass(slots=True)
class World:
    sandbox: Sandbox
    client: AlipayClient
    hospital: Hospital
    session: aiohttp.ClientSession
    gateway: str
    merchant: Merchant
    seen: callbacks.SeenInMemory
    seconds: list[float]

    def later(self, seconds: float) -> None:
        self.seconds[0] += seconds

    async def deliver(self, shuffled: Random | None = None) -> int:
        return await self.sandbox.deliver(self.session, shuffled)


@asynccontextmanager
async def world_of(seconds_max: float = SECONDS_MAX) -> AsyncIterator[World]:
    seconds = [NOON]
    hospital, seen = Hospital(), callbacks.SeenInMemory(lambda: seconds[0])
    sandbox = Sandbox(APP_ID, SELLER_ID, THEIRS, APP.public_key(), lambda: seconds[0])

    async def notified(request: web.Request) -> web.Response:
        answer = await callbacks.receive(
            await request.read(), merchant(), seen, hospital.amount_of, hospital.deal, lambda: seconds[0]
        )
        hospital.answers.append(answer)
        return web.Response(text=answer.text, status=answer.status)

    ours = web.Application()
    ours.router.add_post("/notify", notified)
    async with (
        TestServer(sandbox.app()) as theirs,
        TestServer(ours) as server,
        aiohttp.ClientSession() as session,
    ):
        gateway = f"http://127.0.0.1:{theirs.port}/gateway.do"
        who = merchant(gateway, f"http://127.0.0.1:{server.port}/notify")
        client = AlipayClient(session, who, seconds_max, lambda: seconds[0])
        yield World(sandbox, client, hospital, session, gateway, who, seen, seconds)


def client_of(session: aiohttp.ClientSession, gateway: str, clock: Callable[[], float]) -> AlipayClient:
    return AlipayClient(session, merchant(gateway), clock=clock)
