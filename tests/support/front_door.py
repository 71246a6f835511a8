"""Where staff sign in: the real routes over a database of the test's own, by a clock that the test turns."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from aiohttp import web as http
from aiohttp.test_utils import TestClient, TestServer

from engine.records import staff as records
from engine.records.staff import NewStaff, Role, Staff
from engine.settings import Settings
from engine.vault.vault import Vault
from web import app as every_route  # noqa: F401  (declares them)
from web import keys
from web.auth import Tokens
from web.openapi import api
from web.passwords import Passwords, hash_of
from web.rate_limits import limits_of
from web.sign_in import totp
from web.sign_in.rules import SignInRules

START = datetime(2026, 11, 23, 8, tzinfo=UTC)
PASSWORD = "a good password"
HASH = hash_of(PASSWORD)
HERE, THERE = "198.51.100.7", "203.0.113.9"
REFUSED = (401, "sign_in_refused")


@dataclass(slots=True)
class Clock:
    now: datetime = START

    def __call__(self) -> float:
        return self.now.timestamp()

    def passes(self, **much: float) -> None:
        self.now += timedelta(**much)


Told = tuple[int, Any]


@dataclass(slots=True)
class FrontDoor:
    client: TestClient[http.Request, http.Application]
    app: http.Application
    pool: asyncpg.Pool
    vault: Vault
    clock: Clock

    async def asked(
        self, method: str, path: str, body: object = None, token: str | None = None, address: str = HERE
    ) -> Told:
        """Status and JSON of the answer; None where it has none."""
        headers = {"X-Forwarded-For": address}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self.client.request(method, f"/api/v1/{path}", json=body, headers=headers) as response:
            return response.status, await response.json() if response.status != 204 else None

    async def sign_in(
        self, username: str, password: str = PASSWORD, otp: str | None = None, address: str = HERE
    ) -> Told:
        body = {"grant": "password", "username": username, "password": password}
        if otp is not None:
            body["otp"] = otp
        return await self.asked("POST", "sessions", body, address=address)

    async def tries(self, username: str, *args: Any, **kwargs: Any) -> tuple[int, str]:
        """The status, and the code of what was wrong."""
        status, told = await self.sign_in(username, *args, **kwargs)
        return status, told.get("code", "")

    async def token(self, username: str, otp: str | None = None) -> str:
        status, told = await self.sign_in(username, otp=otp)
        assert status == 201, told
        token: str = told["access_token"]
        return token

    async def hire(self, username: str, *roles: str, **rest: Any) -> Staff:
        new = NewStaff(username, "同事一号", HASH, roles or (Role.DESK,), **rest)
        async with self.pool.acquire() as connection:
            return await records.add_staff(connection, new, secrets.token_bytes(16), self.clock.now)

    async def enrol(self, username: str) -> tuple[str, list[str]]:
        """With a second factor from now on: its secret, and the recovery codes. A minute passes."""
        token = await self.token(username)
        status, told = await self.asked("POST", "me/second-factor", {"password": PASSWORD}, token)
        assert status == 201, told
        secret: str = told["secret"]
        code = totp.code_of(secret, self.clock.now)
        status, told = await self.asked("POST", "me/second-factor/confirmation", {"code": code}, token)
        assert status == 200, told
        self.clock.passes(minutes=1)
        return secret, told["recovery_codes"]

    def code(self, secret: str, steps: int = 0) -> str:
        """As a telephone shows it whose clock is some steps off."""
        return totp.code_of(secret, self.clock.now + timedelta(seconds=steps * totp.STEP_SECONDS))


@contextlib.asynccontextmanager
async def front_door(pool: asyncpg.Pool, vault: Vault, rules: SignInRules) -> AsyncIterator[FrontDoor]:
    clock = Clock()
    app = http.Application()
    app[keys.POOL] = pool
    app[keys.TOKENS] = Tokens(secrets.token_bytes(32), 1800, 86400, clock)
    app[keys.PASSWORDS] = Passwords()
    app[keys.VAULT] = vault
    app[keys.SIGN_IN_RULES] = rules
    app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(Settings.model_construct())
    api.setup(app)
    async with TestClient(TestServer(app)) as client:
        yield FrontDoor(client, app, pool, vault, clock)
