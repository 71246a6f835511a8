"""A database in which things happen, and what tells others of them: a partner's feed, webhooks and where they
arrive."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from engine.domain.ids import ScheduleKey
from engine.domain.policy import Channel
from engine.journal.codec import unpack_event
from engine.records import event_feed, partners
from engine.records import webhooks as records
from engine.records.staff import Staff
from engine.settings import Settings
from engine.vault.vault import Vault
from integrations.webhooks.addresses import Allowed
from integrations.webhooks.client import Sender
from integrations.webhooks.sandbox import Sandbox
from tests.support.stores import HOUR, Desk, PostgresWorld, confirm, doctor, hold, plan, uid
from web import keys
from web.auditing import Readings
from web.auth import Tokens
from web.events import admin_webhooks, feed_routes, partner_webhooks, registering  # noqa: F401
from web.events.dispatching import Dispatcher, Figures
from web.events.feed import Tail
from web.events.reading import CODES, _One
from web.events.to_webhooks import ToWebhooks
from web.fresh_ids import new_id
from web.openapi import api
from web.partner.sight import Partners
from web.partner.tokens import PartnerTokens
from web.rate_limits import limits_of

ZONE = ZoneInfo("Asia/Shanghai")
LOOPBACK = Allowed(plain_loopback=True)
SENDING_SECONDS_MAX = 30.0
"""A busy machine is not a receiver that is away."""


class Hospital:
    """Two doctors, each of a shard of its own, and people who book."""

    def __init__(self, world: PostgresWorld, pool: asyncpg.Pool, desks: list[Desk]) -> None:
        self.world = world
        self.pool = pool
        self._desks = desks
        self._booked = 0

    @classmethod
    async def open(cls, url: str, shards: int = 2, seats: int = 400) -> "Hospital":
        world = PostgresWorld(url)
        desks = []
        for number in range(shards):
            key = doctor(number + 1)
            await world.publish(key, plan(world.clock() + HOUR, seats))
            desks.append(await Desk.open(world, number, key))
        return cls(world, await world.pool(), desks)

    async def book(self, count: int = 1, of: int = 0) -> list[bytes]:
        """Held, then booked: two events each, and one more when the day is new."""
        numbers = range(self._booked, self._booked + count)
        self._booked += count
        await self.world.register([(uid("account", n), uid("patient", n)) for n in numbers])
        key: ScheduleKey = doctor(of + 1)
        made = [uid("number", n) for n in numbers]
        desk = self._desks[of]
        await desk.ask(
            key,
            *(
                hold(one, uid("patient", n), account=uid("account", n))
                for one, n in zip(made, numbers, strict=True)
            ),
        )
        await desk.ask(key, *(confirm(one, uid("account", n)) for one, n in zip(made, numbers, strict=True)))
        return made

    async def close(self) -> None:
        for desk in self._desks:
            desk.stop()
        await self.world.close()


class Clock:
    """The machine's, which PostgreSQL's rows have as well, and so much later."""

    def __init__(self) -> None:
        self._later = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._later

    def advance(self, **by: float) -> None:
        self._later += timedelta(**by)


class Deliveries:
    """What the process beside the webhooks does, a step at a time."""

    def __init__(self, pool: asyncpg.Pool, vault: Vault, source: str) -> None:
        self._pool = pool
        self._at: dict[int, int] = {}
        self.clock = Clock()
        self.sender = Sender(LOOPBACK, SENDING_SECONDS_MAX)
        self.dispatcher = Dispatcher(
            pool, vault, self.sender, source, Figures(CollectorRegistry()), self.clock, lambda: 1.0
        )

    async def queue(self) -> None:
        """What the outbox brings: all that has happened since."""
        async with self._pool.acquire() as connection, connection.transaction():
            for shard, end in (await event_feed.ends(connection)).items():
                found = await event_feed.scan(connection, shard, self._at.get(shard, 0), end, CODES, 10_000)
                self._at[shard] = found.until
                events = [
                    _One(one.shard, one.seq, one.stream, one.at, unpack_event(one.type, one.data))
                    for one in found.events
                ]
                assert await ToWebhooks().messages(connection, events) == []

    async def deliver(self) -> None:
        """Until nothing is due, or all that have something rest."""
        while tasks := await self.dispatcher.look():
            for task in tasks:
                await task

    async def close(self) -> None:
        await self.sender.close()


@dataclass(frozen=True, slots=True)
class Receiver:
    id: bytes
    sandbox: Sandbox


@dataclass(frozen=True, slots=True)
class EventsApp:
    client: TestClient[web.Request, web.Application]
    app: web.Application
    pool: asyncpg.Pool
    vault: Vault

    async def partner(self, name: str, *scopes: str) -> str:
        """A token of such a partner's."""
        async with self.pool.acquire() as connection:
            made, _ = await partners.add(
                connection, name, list(scopes), Channel.REFERRAL, new_id(), datetime.now(UTC)
            )
        return self.app[keys.PARTNERS].tokens.issue(made, made.scopes)

    def staff(self, *roles: str) -> str:
        one = Staff(new_id(), "somebody", "somebody", frozenset(roles), None, None, Channel.WINDOW)
        return self.app[keys.TOKENS].issue_staff(one).access_token

    async def call(
        self, method: str, path: str, token: str, body: Any = None, **query: Any
    ) -> tuple[int, Any]:
        async with self.client.request(
            method,
            f"/api/v1{path}",
            params=query,
            json=body,
            headers={"Authorization": f"Bearer {token}"},
        ) as response:
            return response.status, await response.json() if response.status != 204 else None


@asynccontextmanager
async def events_app(pool: asyncpg.Pool, vault: Vault, **settings: Any) -> AsyncIterator[EventsApp]:
    app = web.Application()
    app[keys.SETTINGS] = Settings(webhooks=True, demo=True, **settings)
    app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(app[keys.SETTINGS])
    app[keys.READINGS] = Readings()
    app[keys.POOL] = pool
    app[keys.VAULT] = vault
    app[keys.TOKENS] = Tokens(secrets.token_bytes(32), 1800, 86400)
    app[keys.PARTNERS] = Partners(PartnerTokens(secrets.token_bytes(32)), pool)
    app[keys.ZONE] = ZONE
    app[keys.EVENT_TAIL] = Tail()
    api.setup(app)
    async with TestClient(TestServer(app)) as client:
        yield EventsApp(client, app, pool, vault)


@asynccontextmanager
async def receiver(
    pool: asyncpg.Pool, vault: Vault, types: Sequence[str] = ("*",)
) -> AsyncIterator[Receiver]:
    """A webhook, and who listens there."""
    sandbox = Sandbox()
    async with TestServer(sandbox.app()) as server:
        async with pool.acquire() as connection, connection.transaction():
            made, sandbox.secret = await registering.add(
                connection,
                vault,
                None,
                str(server.make_url("/hook")),
                types,
                "test",
                datetime.now(UTC),
                LOOPBACK,
            )
        yield Receiver(made.id, sandbox)


async def webhook(pool: asyncpg.Pool, one: Receiver) -> records.Webhook:
    found = await records.webhook(pool, one.id)
    assert found is not None
    return found
