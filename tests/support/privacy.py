"""A gateway's part that knows the person's rights, over a database of one test: no shards, no streams."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from actors.metrics import GatewayMetrics
from engine import database as db
from engine.domain.policy import Policy
from engine.records.identity import check_digit
from engine.records.patients import account_of_openid
from engine.records.staff import Staff
from engine.vault.erasures import Erasures
from engine.vault.vault import Vault
from web import keys
from web.app import make_app
from web.auth import Tokens

ZONE = ZoneInfo("Asia/Shanghai")


NUMBERS_MAX = 10
"""People of one test, so that others of the same database are others."""
_tests = itertools.count()


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """One with the schema in it, for the tests of a module."""
    url = f"{server.rpartition('/')[0]}/privacy_{secrets.token_hex(4)}"

    async def made() -> None:
        await db.create_if_missing(url)
        connection = await asyncpg.connect(url)
        await db.migrate(connection)
        await connection.close()

    async def dropped() -> None:
        admin = await asyncpg.connect(f"{server.rpartition('/')[0]}/postgres")
        await admin.execute(f'drop database "{url.rpartition("/")[2]}" with (force)')
        await admin.close()

    asyncio.run(made())
    try:
        yield url
    finally:
        asyncio.run(dropped())


@dataclass
class Answer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


@dataclass
class Office:
    """One gateway's answers, asked as whoever."""

    client: TestClient[web.Request, web.Application]
    pool: asyncpg.Pool
    vault: Vault
    ledger: Path
    test: int = field(default_factory=lambda: next(_tests))

    def document(self, n: int, born: str = "19900307") -> str:
        """Of person `n` of this test."""
        assert n < NUMBERS_MAX
        first_17 = f"110105{born}{self.test * NUMBERS_MAX + n:03d}"
        return first_17 + check_digit(first_17)

    @property
    def app(self) -> web.Application:
        return self.client.app

    def demand(self, policy: Policy) -> None:
        self.app[keys.POLICY].policy = policy

    async def person(self, name: str) -> "Person":
        openid = f"{name}.{self.test}"
        async with self.pool.acquire() as connection:
            id_ = await account_of_openid(connection, openid, secrets.token_bytes(16), datetime.now(UTC))
        return Person(self, id_, self.app[keys.TOKENS].issue(id_).access_token, openid)

    def clerk(self, staff: Staff) -> "Person":
        return Person(self, staff.id, self.app[keys.TOKENS].issue_staff(staff).access_token)


@dataclass
class Person:
    office: Office
    id: bytes
    token: str
    openid: str = ""

    async def ask(self, method: str, path: str, *, key: str = "", language: str = "", **rest: Any) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}"}
        if key:
            headers["Idempotency-Key"] = key
        if language:
            headers["Accept-Language"] = language
        async with self.office.client.request(method, path, headers=headers, **rest) as response:
            return Answer(response.status, await response.json(), dict(response.headers))

    async def add(
        self, n: int, relation: str = "self", name: str = "王小明", born: str = "19900307"
    ) -> Answer:
        form = {
            "name": name,
            "id_type": "resident_id",
            "id_number": self.office.document(n, born),
            "phone": "13800000001",
            "relation": relation,
        }
        return await self.ask("POST", "/api/v1/patients", json=form)


@asynccontextmanager
async def office(database: str, vault: Vault, folder: Path) -> AsyncIterator[Office]:
    async with asyncpg.create_pool(database, min_size=1, max_size=6) as pool:
        app = make_app()
        app[keys.METRICS] = GatewayMetrics()
        app[keys.POOL] = pool
        app[keys.VAULT] = vault
        app[keys.ERASURES] = Erasures((folder / "erased.log",))
        app[keys.TOKENS] = Tokens(secrets.token_bytes(32), 1800, 86400)
        app[keys.ZONE] = ZONE
        app[keys.POLICY] = keys.PolicyInForce(Policy())
        async with TestClient(TestServer(app)) as client:
            yield Office(client, pool, vault, folder / "erased.log")


async def visit(
    pool: asyncpg.Pool,
    patient_id: str,
    account_id: bytes,
    at: datetime,
    *,
    status: int = 4,
    n: int = 0,
) -> UUID:
    """An appointment as the journal would have written it."""
    id_ = UUID(bytes=secrets.token_bytes(16))
    day = at.astimezone(ZONE)
    schedule = f"D{n:04}-{day:%Y%m%d}"
    await pool.execute(
        "insert into appointment (id, schedule_id, slot_id, seat, capacity, number, patient_id, account_id,"
        " status, fee_fen, starts_at, hold_until, created_at, updated_at, department_id, number_class_id)"
        " values ($1, $2, $3, 0, 3, 1, $4, $5, $6, 2000, $7, $8, $9, $9, '0304', 'general')",
        id_,
        schedule,
        f"{schedule}-{day:%H%M}-{id_.hex}",
        UUID(patient_id),
        UUID(bytes=account_id),
        status,
        at,
        datetime.now(UTC) + timedelta(minutes=10),
        at - timedelta(days=1),
    )
    return id_
