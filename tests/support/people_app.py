"""The routes about people in one process, over a database of the test's own and the sandboxes' wires."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from engine.domain.policy import Channel, Policy
from engine.records.identity import check_digit
from engine.records.patients import account_of_openid
from engine.records.staff import Staff
from engine.settings import Settings
from engine.vault.vault import Vault
from integrations.real_name import sandbox as real_names
from integrations.real_name.client import RealNameClient, Register
from integrations.wechat import sandbox as wechat
from integrations.wechat.client import WeChatClient
from web import keys
from web.auditing import Readings
from web.auth import Tokens
from web.desk import verification  # noqa: F401  (these declare their routes)
from web.openapi import api
from web.patient import account, delegations, patients, sessions  # noqa: F401
from web.patient.real_names import RealNames
from web.rate_limits import limits_of

ZONE = ZoneInfo("Asia/Shanghai")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    told: dict[str, Any]
    headers: Any

    def __getattr__(self, name: str) -> Any:
        return self.told[name]


PATIENCE_SECONDS = 60.0
"""A busy machine is not a register that is away."""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class PeopleApp:
    app: web.Application
    client: TestClient[web.Request, web.Application]
    pool: asyncpg.Pool
    vault: Vault
    wechat: wechat.Sandbox
    register: real_names.Sandbox
    clock: Clock
    """By which the register is left alone for a while."""

    async def account(self, openid: str) -> str:
        """A token of that person's."""
        async with self.pool.acquire() as conn:
            account_id = await account_of_openid(conn, openid, patients.new_id(), self.app[keys.TOKENS].now())
        return self.app[keys.TOKENS].issue(account_id).access_token

    def staff(self, username: str, *roles: str) -> str:
        one = Staff(secrets.token_bytes(16), username, username, frozenset(roles), None, None, Channel.WINDOW)
        return self.app[keys.TOKENS].issue_staff(one).access_token

    async def call(self, method: str, path: str, token: str = "", **rest: Any) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.request(method, f"/api/v1{path}", headers=headers, **rest) as response:
            return Answer(response.status, await response.json(), response.headers)

    async def add(self, token: str, **changes: object) -> Answer:
        return await self.call("POST", "/patients", token, json=form(**changes))

    def policy(self, **changes: Any) -> None:
        self.app[keys.POLICY].policy = Policy(**{"delegation_days": 30, **changes})

    async def audit(self, action: str) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await self.pool.fetch(
            "select * from audit_entry where action = $1 order by id", action
        )
        return found


@asynccontextmanager
async def people_app(pool: asyncpg.Pool, vault: Vault) -> AsyncIterator[PeopleApp]:
    secret = secrets.token_bytes(32)
    at_wechat, at_register = wechat.Sandbox(), real_names.Sandbox("hospital", secret)
    app = web.Application()
    async with (
        TestServer(at_wechat.app()) as wechat_server,
        TestServer(at_register.app()) as register_server,
        ClientSession() as session,
    ):
        app[keys.SETTINGS] = Settings.model_construct()
        app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(Settings.model_construct())
        app[keys.READINGS] = Readings()
        app[keys.POOL] = pool
        app[keys.VAULT] = vault
        app[keys.TOKENS] = Tokens(secrets.token_bytes(32), 1800, 86400)
        app[keys.ZONE] = ZONE
        app[keys.POLICY] = keys.PolicyInForce(Policy(delegation_days=30))
        at = str(wechat_server.make_url(""))
        app[keys.WECHAT] = WeChatClient(session, at, "sandbox", "sandbox", PATIENCE_SECONDS)
        register = Register(str(register_server.make_url("")), "hospital", secret)
        clock = Clock()
        app[keys.REAL_NAMES] = RealNames(RealNameClient(session, register, PATIENCE_SECONDS), clock)
        api.setup(app)
        async with TestClient(TestServer(app)) as client:
            yield PeopleApp(app, client, pool, vault, at_wechat, at_register, clock)


def resident(n: int, born: str = "19900307") -> str:
    """A number of somebody born then."""
    first_17 = f"110105{born}{n:03d}"
    return first_17 + check_digit(first_17)


def form(**changes: object) -> dict[str, object]:
    whole = {
        "name": "王小明",
        "id_type": "resident_id",
        "id_number": resident(1),
        "phone": "13800000001",
        "relation": "self",
    }
    return {**whole, **changes}
