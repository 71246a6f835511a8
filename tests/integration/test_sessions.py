"""Sessions over HTTP and PostgreSQL: two gateways in this process over one database, and their own clock."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer

from actors.metrics import GatewayMetrics
from engine import database as db
from engine.domain.policy import Policy
from engine.embedded_postgres import EmbeddedPostgres
from engine.records import sessions as records
from engine.records.catalog import load_catalog
from engine.records.sessions import GRACE, NotRefreshed
from engine.records.staff import NewStaff, Role, Staff, add_staff, disable_staff
from engine.views.availability import Availability
from integrations.wechat.client import WeChatClient
from integrations.wechat.sandbox import sandbox_app
from tests.support.system import System, run
from web import keys
from web.app import make_app
from web.auth import Tokens
from web.errors import Problem
from web.passwords import hash_of
from web.patient.pages import Pages
from web.sessions.cookies import COOKIE, Cookies
from web.sessions.following import Following
from web.sessions.terms import Terms
from web.sign_in.rules import SignInRules
from web.stream import Stream

PASSWORD = "a good password"
HASH = hash_of(PASSWORD)
SECRET = secrets.token_bytes(32)
ZONE = ZoneInfo("Asia/Shanghai")
WAIT_SECONDS_MAX = 5.0
ENDED = (401, "session_ended")
TERMS = Terms()
ACCESS, REFRESH = 1_800, 30 * 86_400
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) MicroMessenger/8.0 Wang's own"


class Clock:
    """As many seconds after the database's own as a test likes."""

    def __init__(self) -> None:
        self.now = float(int(datetime.now(UTC).timestamp()))

    def __call__(self) -> float:
        return self.now

    def date(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)


@dataclass
class Heard:
    """What a gateway does with a session that has ended; a test may wait for it."""

    stream: Stream
    sessions: set[bytes] = field(default_factory=set)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def end_session(self, session: bytes) -> None:
        self.stream.end_session(session)
        task = asyncio.create_task(self._add(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def staff_sessions(self) -> list[bytes]:
        return self.stream.staff_sessions()

    async def _add(self, session: bytes) -> None:
        async with self.changed:
            self.sessions.add(session)
            self.changed.notify_all()

    async def wait_for(self, session: bytes) -> None:
        async with asyncio.timeout(WAIT_SECONDS_MAX), self.changed:
            await self.changed.wait_for(lambda: session in self.sessions)


@dataclass
class Gateway:
    """The HTTP side of one gateway."""

    client: TestClient[web.Request, web.Application]
    app: web.Application
    pool: asyncpg.Pool
    following: Following
    heard: Heard
    url: str
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def ask(self, method: str, path: str, token: str = "", **more: Any) -> SimpleNamespace:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})
        async with self.client.request(method, path, headers=headers, **more) as response:
            told = await response.json() if response.content_type.endswith("json") else {}
            return SimpleNamespace(status=response.status, body=told, headers=response.headers)

    async def sign_in(self, username: str = "desk", **more: Any) -> SimpleNamespace:
        body = {"grant": "password", "username": username, "password": PASSWORD, **more.pop("body", {})}
        answer = await self.ask("POST", "/api/v1/sessions", json=body, **more)
        assert answer.status == 201, answer.body
        return answer

    async def console(self, username: str = "desk", **headers: str) -> "Console":
        answer = await self.sign_in(username, body={"transport": "cookie"}, headers=headers)
        return Console(self, cookie_of(answer), answer.body["csrf_token"])

    async def person(self, openid: str) -> SimpleNamespace:
        body = {"grant": "wechat", "code": f"sandbox:{openid}"}
        answer = await self.ask("POST", "/api/v1/sessions", json=body, headers={"User-Agent": IPHONE})
        assert answer.status == 201
        return answer

    async def refresh(self, refresh_token: str) -> SimpleNamespace:
        body = {"grant": "refresh", "refresh_token": refresh_token}
        return await self.ask("POST", "/api/v1/sessions", json=body)

    async def who(self, token: str) -> tuple[int, Any]:
        """Who it is there, or the code of the refusal."""
        answer = await self.ask("GET", "/api/v1/sessions/current", token)
        return answer.status, answer.body.get("code") or answer.body["staff"] or answer.body["account_id"]

    def session_of(self, token: str) -> bytes:
        return self.app[keys.TOKENS].session_of_header(f"Bearer {token}")

    async def listening(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            await self.following.is_listening.wait()

    def follow(self) -> None:
        self.tasks.append(asyncio.create_task(self.following.run(self.url, self.pool)))


@dataclass
class Console:
    """A browser's page: it has a cookie that it cannot read, and a CSRF token."""

    gateway: Gateway
    cookie: str
    csrf: str

    async def ask(self, method: str, path: str, csrf: str | None = None, **more: Any) -> SimpleNamespace:
        headers = {"Cookie": f"{COOKIE}={self.cookie}"}
        if method != "GET" and csrf != "":
            headers["X-CSRF-Token"] = csrf or self.csrf
        return await self.gateway.ask(method, path, headers=headers | more.pop("headers", {}), **more)

    async def who(self, gateway: Gateway | None = None) -> tuple[int, Any]:
        answer = await Console(gateway or self.gateway, self.cookie, self.csrf).ask(
            "GET", "/api/v1/sessions/current"
        )
        return answer.status, answer.body.get("code") or answer.body["staff"]["username"]


def cookie_of(answer: SimpleNamespace) -> str:
    (set_cookie,) = answer.headers.getall("Set-Cookie")
    return SimpleCookie(set_cookie)[COOKIE].value


def code(answer: SimpleNamespace) -> tuple[int, str]:
    return answer.status, answer.body.get("code", "")


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """One for all of these: each test begins with nobody in it."""
    server = postgres.url.rpartition("/")[0]
    name = f"sessions_{os.getpid()}"
    asyncio.run(made(f"{server}/{name}"))
    yield f"{server}/{name}"
    asyncio.run(dropped(f"{server}/postgres", name))


async def made(url: str) -> None:
    await db.create_if_missing(url)
    connection = await asyncpg.connect(url)
    await db.migrate(connection)
    await connection.close()


async def dropped(url: str, name: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f'drop database "{name}" with (force)')
    await connection.close()


@pytest.fixture
async def gateways(database: str, clock: Clock) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two, of which neither follows yet."""
    async with (
        asyncpg.create_pool(database, min_size=1, max_size=8) as one,
        asyncpg.create_pool(database, min_size=1, max_size=8) as two,
        TestServer(sandbox_app()) as wechat,
        ClientSession() as session,
    ):
        await one.execute("delete from staff; delete from account; delete from session")
        made = []
        for pool in (one, two):
            app = make_app()
            async with pool.acquire() as connection:
                catalog = await load_catalog(connection)
            app[keys.AVAILABILITY] = view = Availability(catalog, [])
            app[keys.ZONE] = ZONE
            app[keys.PAGES] = pages = Pages(view, ZONE)
            app[keys.STREAM] = stream = Stream(view, pages, ZONE)
            following = Following(heard := Heard(stream), clock)
            app[keys.TOKENS] = Tokens(SECRET, ACCESS, REFRESH, clock, following.revoked, following.seen)
            app[keys.COOKIES] = Cookies(SECRET)
            app[keys.SIGN_IN_RULES] = SignInRules(is_factor_required=False)
            app[keys.POOL], app[keys.METRICS] = pool, GatewayMetrics()
            app[keys.POLICY] = keys.PolicyInForce(Policy())
            app[keys.WECHAT] = WeChatClient(session, str(wechat.make_url("")), "sandbox", "sandbox")
            client = TestClient(TestServer(app))
            await client.start_server()
            made.append(Gateway(client, app, pool, following, heard, database))
        yield made[0], made[1]
        for gateway in made:
            for task in gateway.tasks:
                task.cancel()
            await asyncio.gather(*gateway.tasks, return_exceptions=True)
            await gateway.client.close()


@pytest.fixture
async def gateway(gateways: tuple[Gateway, Gateway]) -> Gateway:
    return gateways[0]


async def add(gateway: Gateway, username: str = "desk", *roles: str, **rest: Any) -> Staff:
    new = NewStaff(username, "窗口一号", HASH, roles or (Role.DESK,), **rest)
    async with gateway.pool.acquire() as connection:
        return await add_staff(connection, new, secrets.token_bytes(16), datetime.now(UTC))


async def why(gateway: Gateway, session: bytes) -> str | None:
    found: str | None = await gateway.pool.fetchval(
        "select revoked_why from session where id = $1", UUID(bytes=session)
    )
    return found


# Revocation, everywhere.


async def test_signing_out_is_heard_at_every_gateway(gateways: tuple[Gateway, Gateway]) -> None:
    here, there = gateways
    there.follow()
    here.follow()
    mine, other = await here.person("o1"), await here.person("o1")
    token = mine.body["access_token"]
    session = here.session_of(token)
    assert (await there.who(token))[0] == 200
    assert (await here.ask("DELETE", "/api/v1/sessions/current", token)).status == 204
    await asyncio.gather(here.heard.wait_for(session), there.heard.wait_for(session))
    for gateway in gateways:
        assert await gateway.who(token) == ENDED
        with pytest.raises(Problem, match="session_ended"):
            gateway.app[keys.TOKENS].account_of_header(f"Bearer {token}")  # what the express lane asks
        assert code(await gateway.refresh(mine.body["refresh_token"])) == ENDED
        assert (await gateway.who(other.body["access_token"]))[0] == 200  # another device of theirs
    assert await why(here, session) == "signed_out"


async def test_a_notification_alone_suffices(gateways: tuple[Gateway, Gateway]) -> None:
    here, there = gateways
    session = here.session_of((await here.person("o1")).body["access_token"])
    there.tasks.append(asyncio.create_task(there.following._listen(there.url, there.pool)))
    await there.listening()
    await records.revoke(here.pool, session, "by_admin", datetime.now(UTC))
    await there.heard.wait_for(session)


async def test_looking_alone_suffices(gateways: tuple[Gateway, Gateway]) -> None:
    here, there = gateways
    token = (await here.person("o1")).body["access_token"]
    await records.revoke(here.pool, here.session_of(token), "by_admin", datetime.now(UTC))
    assert (await there.who(token))[0] == 200  # it has not looked yet
    await there.following.look(there.pool)
    assert await there.who(token) == ENDED


async def test_what_happened_while_nobody_listened_is_found(gateways: tuple[Gateway, Gateway]) -> None:
    here, there = gateways
    there.tasks.append(asyncio.create_task(there.following._listen(there.url, there.pool)))
    first = here.session_of((await here.person("o1")).body["access_token"])
    second = here.session_of((await here.person("o1")).body["access_token"])
    await there.listening()
    async with here.pool.acquire() as connection, connection.transaction():
        # Told to nobody: as if the notification was lost with its connection.
        await connection.execute("alter table session disable trigger session_told")
        await records.revoke(connection, first, "by_admin", datetime.now(UTC))
        await connection.execute("alter table session enable trigger session_told")
    assert first not in there.following.revoked
    there.following.is_listening.clear()
    await here.pool.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%session%'"
    )
    await there.heard.wait_for(first)
    await there.listening()
    await records.revoke(here.pool, second, "by_admin", datetime.now(UTC))
    await there.heard.wait_for(second)


async def test_a_gateway_that_starts_knows_what_matters_still_and_forgets_it_then(
    gateways: tuple[Gateway, Gateway], clock: Clock
) -> None:
    here, there = gateways
    session = here.session_of((await here.person("o1")).body["access_token"])
    await records.revoke(here.pool, session, "by_admin", clock.date())
    await there.following.read(there.pool)
    assert list(there.following.revoked) == [session]
    clock.now += ACCESS + 2
    await there.following.prune()
    assert not there.following.revoked
    await there.following.read(there.pool)
    assert not there.following.revoked


# Changes of the staff, by whatever way.

CHANGES = {
    "disabled": "disabled = true",
    "rights_changed": "roles = array['desk', 'manager']",
    "department": "department_id = '03'",
    "channel": "channel = 'phone'",
    "campus": "campus = '东院'",
    "password_changed": "password_hash = 'another'",
}


async def test_a_change_of_rights_ends_all_sessions(gateway: Gateway) -> None:
    gateway.follow()
    await add(gateway, "other")
    other = await gateway.console("other")
    for told, change in CHANGES.items():
        staff = await add(gateway, told)
        token, console = (await gateway.sign_in(told)).body["access_token"], await gateway.console(told)
        assert (await gateway.who(token))[0] == (await console.who())[0] == 200
        session = gateway.session_of(token)
        await gateway.pool.execute(f"update staff set {change} where username = $1", told)
        await gateway.heard.wait_for(session)
        reasons = await gateway.pool.fetch(
            "select revoked_why from session where owner = $1", UUID(bytes=staff.id)
        )
        expected = told if told in ("disabled", "password_changed") else "rights_changed"
        assert [row["revoked_why"] for row in reasons] == [expected] * 2
        await gateway.following.look(gateway.pool)
        assert await gateway.who(token) == await console.who() == ENDED
    assert await other.who() == (200, "other")
    await gateway.pool.execute("delete from staff where username = 'other'")
    await gateway.following.look(gateway.pool)
    assert await other.who() == ENDED


async def test_a_change_that_gives_no_rights_ends_nothing(gateway: Gateway) -> None:
    await add(gateway)
    token = (await gateway.sign_in()).body["access_token"]
    spared = gateway.session_of((await gateway.sign_in()).body["access_token"])
    await gateway.pool.execute("update staff set name = '新名', failed_count = 3, disabled = false")
    async with gateway.pool.acquire() as connection, connection.transaction():
        await records.spare_all(connection)
        await connection.execute("update staff set password_hash = 'the same, with other parameters'")
    assert await why(gateway, gateway.session_of(token)) is None
    # A new password leaves the session in which it was changed; new rights leave none.
    async with gateway.pool.acquire() as connection, connection.transaction():
        await records.spare(connection, spared)
        await connection.execute("update staff set password_hash = 'a new one'")
    assert await why(gateway, gateway.session_of(token)) == "password_changed"
    assert await why(gateway, spared) is None
    async with gateway.pool.acquire() as connection, connection.transaction():
        await records.spare(connection, spared)
        await connection.execute("update staff set roles = array['manager']")
    assert await why(gateway, spared) == "rights_changed"


async def test_a_session_that_begins_while_its_owner_is_disabled(gateway: Gateway) -> None:
    desk = await add(gateway)
    session = secrets.token_bytes(16)
    new = records.NewSession(
        session, "staff", desk.id, "bearer", "password", "", None, None, later(1), later(1)
    )
    async with gateway.pool.acquire() as connection, gateway.pool.acquire() as other:
        async with connection.transaction():
            assert await records.staff_of_session(connection, desk.id) == desk
            await records.start(connection, new, datetime.now(UTC))
            disabling = asyncio.create_task(disable_staff(other, "desk"))
            await done_or_at_a_lock(gateway, disabling)
        await disabling
        assert await why(gateway, session) == "disabled"
        async with connection.transaction():
            assert await records.staff_of_session(connection, desk.id) is None


def later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


async def done_or_at_a_lock(gateway: Gateway, task: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not task.done() and not await gateway.pool.fetchval(
            "select true from pg_stat_activity where datname = current_database()"
            " and wait_event_type = 'Lock' limit 1"
        ):
            await asyncio.sleep(0)


# Refreshing.


async def test_a_refresh_token_buys_one_pair(gateway: Gateway, clock: Clock) -> None:
    first = (await gateway.person("o1")).body
    clock.now += 60
    second = await gateway.refresh(first["refresh_token"])
    assert (second.status, second.body["expires_in"]) == (201, ACCESS)
    assert gateway.session_of(second.body["access_token"]) == gateway.session_of(first["access_token"])
    clock.now += GRACE.total_seconds() + 1
    third = await gateway.refresh(second.body["refresh_token"])
    assert third.status == 201
    # The first one comes back: from a copy. Both are out, with everything that they hold.
    assert code(await gateway.refresh(first["refresh_token"])) == (401, "refresh_reused")
    assert code(await gateway.refresh(third.body["refresh_token"])) == ENDED
    await gateway.following.look(gateway.pool)
    assert await gateway.who(third.body["access_token"]) == ENDED
    assert await why(gateway, gateway_session(gateway, third)) == "reuse"
    session = str(UUID(bytes=gateway_session(gateway, third)))
    noted = await gateway.pool.fetch(
        "select outcome from audit_entry where action = 'refresh_token_reused' and object_id = $1", session
    )
    assert [row["outcome"] for row in noted] == ["refused"]
    assert gateway.app[keys.METRICS].reused_tokens._value.get() == 1


def gateway_session(gateway: Gateway, answer: SimpleNamespace) -> bytes:
    return gateway.app[keys.TOKENS].who_of_refresh(answer.body["refresh_token"]).session


async def test_a_lost_answer_is_given_again_for_a_moment(gateway: Gateway, clock: Clock) -> None:
    first = (await gateway.person("o1")).body
    lost = await gateway.refresh(first["refresh_token"])
    clock.now += GRACE.total_seconds()
    again = await gateway.refresh(first["refresh_token"])
    assert (lost.status, again.status) == (201, 201)
    # Nobody gains by it: of the two that are out now, the one that comes late is found out.
    clock.now += 60
    assert (await gateway.refresh(lost.body["refresh_token"])).status == 201
    clock.now += GRACE.total_seconds() + 1
    assert code(await gateway.refresh(again.body["refresh_token"])) == (401, "refresh_reused")


async def test_refreshes_at_one_instant_turn_once(gateways: tuple[Gateway, Gateway], clock: Clock) -> None:
    here, there = gateways
    first = (await here.person("o1")).body
    answers = await asyncio.gather(
        *(gateway.refresh(first["refresh_token"]) for gateway in gateways for _ in range(5))
    )
    assert {answer.status for answer in answers} == {201}
    session = here.session_of(first["access_token"])
    assert await here.pool.fetchval("select generation from session where id = $1", UUID(bytes=session)) == 1
    assert {here.app[keys.TOKENS].who_of_refresh(a.body["refresh_token"]).generation for a in answers} == {1}
    clock.now += GRACE.total_seconds() + 1
    assert (await there.refresh(answers[3].body["refresh_token"])).status == 201


async def test_a_token_that_is_newer_than_the_table_buys_nothing(gateway: Gateway, clock: Clock) -> None:
    """The database was put back to an older copy."""
    first = (await gateway.person("o1")).body
    second = (await gateway.refresh(first["refresh_token"])).body
    await gateway.pool.execute("update session set generation = 0")
    assert code(await gateway.refresh(second["refresh_token"])) == ENDED
    assert code(await gateway.refresh(first["refresh_token"])) == ENDED


async def test_a_refresh_token_is_its_owners(gateway: Gateway) -> None:
    await add(gateway)
    mine, theirs = (await gateway.person("o1")).body, (await gateway.person("o2")).body
    tokens = gateway.app[keys.TOKENS]
    asked, other = (tokens.who_of_refresh(one["refresh_token"]) for one in (mine, theirs))
    async with gateway.pool.acquire() as connection, connection.transaction():
        for owner, kind in ((other.id, "account"), (asked.id, "staff")):
            found = await records.rotate(
                connection,
                asked.session,
                kind,  # type: ignore[arg-type]
                owner,
                0,
                datetime.now(UTC),
                None,
                timedelta(seconds=1),
            )
            assert found is NotRefreshed.ENDED
    assert (await gateway.refresh(mine["refresh_token"])).status == 201
    made_up = tokens.issue(asked.id).refresh_token  # rightly signed, but of no session
    assert code(await gateway.refresh(made_up)) == ENDED


# Time.


async def test_staff_who_rest_too_long_are_out(gateways: tuple[Gateway, Gateway], clock: Clock) -> None:
    here, there = gateways
    await add(here)
    told = (await here.sign_in()).body
    console = await here.console()
    clock.now += TERMS.staff_idle - 1
    assert (await console.who())[0] == 200  # seen here, and not written down yet
    assert (await here.who(told["access_token"]))[0] == 200
    clock.now += TERMS.staff_idle - 1
    # At the other gateway they have rested for long: what this one saw is written down first.
    await here.following.note(here.pool)
    assert (await console.who(there))[0] == 200
    assert await here.who(told["access_token"]) == (401, "token_expired")
    told = (await there.refresh(told["refresh_token"])).body
    assert (await there.who(told["access_token"]))[0] == 200
    clock.now += TERMS.staff_idle
    assert await console.who() == await console.who(there) == ENDED
    assert code(await here.refresh(told["refresh_token"])) == ENDED
    # Nothing that was noted late brings it back.
    await there.following.note(there.pool)
    there.following.seen.clear()
    assert await console.who(there) == ENDED


async def test_what_a_gateway_saw_counts_though_it_was_not_written_down(
    gateway: Gateway, clock: Clock
) -> None:
    await add(gateway)
    told = (await gateway.sign_in()).body
    clock.now += TERMS.staff_idle - 1
    assert (await gateway.who(told["access_token"]))[0] == 200
    clock.now += 60
    told = (await gateway.refresh(told["refresh_token"])).body
    socket = await connected(gateway, Authorization=f"Bearer {told['access_token']}")
    clock.now += TERMS.staff_idle - 60
    await socket.send_json({"subscribe": ["department/none"]})  # too late
    assert (await socket.receive_json())["error"]["code"]
    assert code(await gateway.refresh(told["refresh_token"])) == ENDED
    await socket.close()


async def test_a_program_that_refreshes_is_nobody_at_the_console(gateway: Gateway, clock: Clock) -> None:
    await add(gateway)
    told = (await gateway.sign_in()).body
    for seconds, left in ((1_000, 800), (700, 100)):
        clock.now += seconds
        told = (await gateway.refresh(told["refresh_token"])).body
        assert told["expires_in"] == left  # what is left of the rest
    clock.now += 99
    assert (await gateway.who(told["access_token"]))[0] == 200  # somebody does something
    clock.now += TERMS.staff_idle - 1
    assert await gateway.who(told["access_token"]) == (401, "token_expired")
    told = (await gateway.refresh(told["refresh_token"])).body
    assert told["expires_in"] == 1
    clock.now += 1
    assert code(await gateway.refresh(told["refresh_token"])) == ENDED


async def test_after_half_a_day_staff_sign_in_again(gateway: Gateway, clock: Clock) -> None:
    await add(gateway)
    told, console = (await gateway.sign_in()).body, await gateway.console()
    ends = clock.now + TERMS.staff_most
    while clock.now + 1_200 < ends:
        clock.now += 1_200
        answer = await gateway.refresh(told["refresh_token"])
        assert (answer.status, (await console.who())[0]) == (201, 200)
        told = answer.body
        assert (await gateway.who(told["access_token"]))[0] == 200
        await gateway.following.note(gateway.pool)
    clock.now = ends - 1
    told = (await gateway.refresh(told["refresh_token"])).body
    assert told["expires_in"] == 1
    assert (await gateway.who(told["access_token"]))[0] == 200 and (await console.who())[0] == 200
    clock.now = ends
    assert await gateway.who(told["access_token"]) == (401, "token_expired")
    assert await console.who() == ENDED
    assert code(await gateway.refresh(told["refresh_token"])) == (401, "token_expired")


async def test_machines_do_not_rest(gateway: Gateway, clock: Clock) -> None:
    await add(gateway, "screen", Role.SCREEN)
    await add(gateway, "his", Role.PARTNER)
    screen, his = (await gateway.sign_in("screen")).body, (await gateway.sign_in("his")).body
    begun = clock.now
    clock.now = begun + TERMS.staff_most - 1
    his = (await gateway.refresh(his["refresh_token"])).body
    clock.now = begun + TERMS.staff_most
    assert code(await gateway.refresh(his["refresh_token"])) == (401, "token_expired")
    clock.now = begun + TERMS.device_most - 1
    screen = (await gateway.refresh(screen["refresh_token"])).body
    assert screen["expires_in"] == 1
    clock.now += 1
    assert code(await gateway.refresh(screen["refresh_token"])) == (401, "token_expired")


async def test_patients_stay_as_long_as_they_come_back(gateway: Gateway, clock: Clock) -> None:
    told, away = (await gateway.person("o1")).body, (await gateway.person("o2")).body
    ends = clock.now + TERMS.account_most
    while clock.now + REFRESH - 1 < ends:
        clock.now += REFRESH - 1
        answer = await gateway.refresh(told["refresh_token"])
        assert answer.status == 201
        told = answer.body
    assert code(await gateway.refresh(away["refresh_token"])) == (401, "token_expired")
    clock.now = ends - 10
    told = (await gateway.refresh(told["refresh_token"])).body
    assert told["expires_in"] == 10
    clock.now = ends
    assert code(await gateway.refresh(told["refresh_token"])) == (401, "token_expired")


async def test_rows_go_a_month_after_their_session(gateway: Gateway, clock: Clock) -> None:
    await add(gateway)
    for session in ((await gateway.person("o1")), (await gateway.person("o2")), await gateway.sign_in()):
        kept = gateway.session_of(session.body["access_token"])
    await records.revoke(
        gateway.pool, gateway.session_of(session.body["access_token"]), "by_admin", clock.date()
    )
    assert await why(gateway, kept) == "by_admin"
    for days, left in ((29, 3), (31, 2), (59, 2), (61, 0)):
        await records.forget_ended(gateway.pool, clock.date() + timedelta(days=days))
        assert await gateway.pool.fetchval("select count(*) from session") == left, days


# Cookies.


async def test_what_a_console_is_given(gateway: Gateway) -> None:
    await add(gateway)
    answer = await gateway.sign_in(body={"transport": "cookie"})
    assert sorted(answer.body) == ["csrf_token", "ends_at", "idle_seconds"]
    assert answer.body["idle_seconds"] == TERMS.staff_idle
    assert answer.headers["Cache-Control"] == "no-store"
    (told,) = answer.headers.getall("Set-Cookie")
    name, _, rest = told.partition("=")
    value, *attributes = rest.split("; ")
    assert name == "__Host-xinglin" and len(value) == 64
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict", "Secure"]  # and no Domain
    console = Console(gateway, value, answer.body["csrf_token"])
    current = await console.ask("GET", "/api/v1/sessions/current")
    assert current.body["csrf_token"] == console.csrf
    assert current.body["staff"] | {"id": ""} == {
        "id": "",
        "username": "desk",
        "name": "窗口一号",
        "roles": ["desk"],
        "practitioner_id": None,
        "department_id": None,
        "campus": None,
    }
    # Nobody who reads the database can sign in with what is there.
    rows = await gateway.pool.fetch(
        "select to_jsonb(s)::text || encode(secret_hash, 'base64') from session s"
    )
    assert value not in str(rows) and Cookies(SECRET).hash_of(value) is not None


async def test_each_sign_in_has_a_cookie_of_its_own(gateway: Gateway) -> None:
    await add(gateway)
    first = await gateway.console()
    second = await gateway.console(Cookie=f"{COOKIE}={first.cookie}")
    elsewhere = await gateway.console()
    assert len({first.cookie, second.cookie, elsewhere.cookie}) == 3 and first.csrf != second.csrf
    await gateway.following.look(gateway.pool)
    assert await first.who() == ENDED
    assert (await second.who())[0] == (await elsewhere.who())[0] == 200


async def test_signing_out_clears_the_browser(gateways: tuple[Gateway, Gateway]) -> None:
    here, there = gateways
    await add(here)
    console = await here.console()
    assert (await console.who(there))[0] == 200
    answer = await console.ask("DELETE", "/api/v1/sessions/current")
    assert (answer.status, answer.headers["Clear-Site-Data"]) == (204, '"cache", "storage"')
    (told,) = answer.headers.getall("Set-Cookie")
    assert told.startswith('__Host-xinglin=""; ') and "Max-Age=0" in told and "Secure" in told
    for gateway in gateways:
        await gateway.following.look(gateway.pool)
        assert await console.who(gateway) == ENDED


async def test_cookies_are_for_passwords(gateway: Gateway) -> None:
    for grant, rest in (("wechat", {"code": "sandbox:o1"}), ("refresh", {"refresh_token": "x"})):
        body = {"grant": grant, "transport": "cookie", **rest}
        assert code(await gateway.ask("POST", "/api/v1/sessions", json=body)) == (422, "invalid_body")


ORIGINS: tuple[tuple[dict[str, str], bool], ...] = (
    ({}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Origin": "HOST"}, True),
    ({"Origin": "HOST", "Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "none"}, False),
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-site"}, False),
)


async def test_csrf(gateway: Gateway) -> None:
    await add(gateway)
    console, other = await gateway.console(), await gateway.console()
    host = str(gateway.client.make_url("")).rstrip("/")
    for headers, is_ours in ORIGINS:
        sent = {name: value.replace("HOST", host) for name, value in headers.items()}
        for csrf in (console.csrf, "", "wrong", other.csrf, console.csrf + "A", "é"):
            answer = await console.ask("DELETE", f"/api/v1/sessions/{UUID(int=7)}", csrf, headers=sent)
            is_right = is_ours and csrf == console.csrf
            assert code(answer) == ((404, "no_such_sign_in") if is_right else (403, "csrf_refused")), headers
        assert (await console.ask("GET", "/api/v1/sessions", headers=sent)).status == 200
    # Whatever changes something asks for it, also what is for nobody in particular or does not exist.
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = await console.ask(method, "/api/v1/nothing", "wrong", json={})
        assert code(answer) == (403, "csrf_refused")


async def test_a_foreign_page_signs_nobody_in(gateway: Gateway) -> None:
    await add(gateway)
    body = {"grant": "password", "username": "desk", "password": PASSWORD, "transport": "cookie"}
    for headers in ({"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}):
        answer = await gateway.ask("POST", "/api/v1/sessions", json=body, headers=headers)
        assert code(answer) == (403, "foreign_origin")
        assert "Set-Cookie" not in answer.headers
    answer = await gateway.ask(
        "POST", "/api/v1/sessions", data=b"{}", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert code(answer) == (415, "unsupported_media_type")  # what a form can send


async def test_a_token_beside_a_cookie_counts_alone(gateway: Gateway) -> None:
    await add(gateway)
    await add(gateway, "other")
    console, token = await gateway.console(), (await gateway.sign_in("other")).body["access_token"]
    both = await console.ask("GET", "/api/v1/sessions/current", headers={"Authorization": f"Bearer {token}"})
    assert (both.body["staff"]["username"], both.body["csrf_token"]) == ("other", None)
    bad = await console.ask("GET", "/api/v1/sessions/current", headers={"Authorization": "Bearer x"})
    assert code(bad) == (401, "unauthenticated")


async def test_cookies_that_are_none(gateway: Gateway) -> None:
    await add(gateway)
    console = await gateway.console()
    changed = ("A" if console.cookie[0] != "A" else "B") + console.cookie[1:]
    assert (await console.who())[0] == 200
    cookies = [changed, "x", "", "x" * 64, "é" * 32, Cookies(b"y" * 32).new()]
    never_given = Cookies(SECRET).new()
    for cookie in (*cookies, never_given):
        assert await Console(gateway, cookie, "").who() == ENDED
        # Where nobody need be signed in, it is as good as none.
        assert (await Console(gateway, cookie, "").ask("GET", "/api/v1/departments")).status == 200
    await gateway.pool.close()
    for cookie in cookies:  # found out without a query
        assert await Console(gateway, cookie, "").who() == ENDED
    assert (await Console(gateway, never_given, "").who())[0] == 503
    # Whose cookie is remembered needs none either.
    answer = await console.ask("GET", "/api/v1/departments")
    assert answer.status == 200


async def test_a_cookie_is_no_patients(gateway: Gateway) -> None:
    await add(gateway)
    console = await gateway.console()
    assert code(await console.ask("GET", "/api/v1/patients")) == (401, "unauthenticated")


# One's own.


async def test_ones_sessions(gateway: Gateway, clock: Clock) -> None:
    phone = await gateway.person("o1")
    token = phone.body["access_token"]
    clock.now += 5
    other = (await gateway.person("o1")).body["access_token"]
    stranger = (await gateway.person("o2")).body["access_token"]
    listed = (await gateway.ask("GET", "/api/v1/sessions", token)).body
    assert [(one["is_current"], one["device"], one["method"], one["transport"]) for one in listed] == [
        (False, "WeChat, iPhone", "wechat", "bearer"),
        (True, "WeChat, iPhone", "wechat", "bearer"),
    ]
    assert "Wang" not in str(listed)  # what a device calls itself is not kept
    theirs = (await gateway.ask("GET", "/api/v1/sessions", stranger)).body
    path = f"/api/v1/sessions/{theirs[0]['id']}"
    assert code(await gateway.ask("DELETE", path, token)) == (404, "no_such_sign_in")
    path = f"/api/v1/sessions/{listed[0]['id']}"
    assert (await gateway.ask("DELETE", path, token)).status == 204
    assert code(await gateway.ask("DELETE", path, token)) == (404, "no_such_sign_in")
    await gateway.following.look(gateway.pool)
    assert await gateway.who(other) == ENDED
    assert len((await gateway.ask("GET", "/api/v1/sessions", token)).body) == 1
    third = (await gateway.person("o1")).body["access_token"]
    kept = await gateway.ask("DELETE", "/api/v1/sessions?keep_current=true", token)
    assert kept.body == {"ended": 1}
    await gateway.following.look(gateway.pool)
    assert await gateway.who(third) == ENDED
    assert (await gateway.ask("DELETE", "/api/v1/sessions", token)).body == {"ended": 1}
    await gateway.following.look(gateway.pool)
    assert await gateway.who(token) == ENDED
    assert (await gateway.who(stranger))[0] == 200


async def test_an_account_has_as_many_sessions_as_can_be_listed(
    gateway: Gateway, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LISTED_MAX", 2)
    tokens = []
    for _ in range(3):
        clock.now += 1
        tokens.append((await gateway.person("o1")).body["access_token"])
    other = (await gateway.person("o2")).body["access_token"]
    await gateway.following.look(gateway.pool)
    assert [(await gateway.who(one))[0] for one in (*tokens, other)] == [401, 200, 200, 200]


async def test_sessions_are_audited(gateway: Gateway) -> None:
    desk = await add(gateway)
    console = await gateway.console()
    await console.ask("DELETE", "/api/v1/sessions/current")
    noted = await gateway.pool.fetch(
        "select action, object_kind, detail from audit_entry where by_id = $1 and object_kind = 'session'"
        " order by id",
        UUID(bytes=desk.id),
    )
    assert [row["action"] for row in noted] == ["signed_in", "signed_out"]


# Live connections.


async def connected(gateway: Gateway, **headers: str) -> ClientWebSocketResponse:
    socket = await gateway.client.ws_connect("/api/v1/stream", headers=headers)
    assert (await socket.receive_json())["hello"]["signed_in"]
    return socket


async def closed(socket: ClientWebSocketResponse) -> tuple[object, object]:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        message = await socket.receive()
    assert message.type is WSMsgType.CLOSE, message
    return message.data, message.extra


GONE = (1008, "session_ended")


async def test_a_revoked_sessions_connections_are_closed(gateways: tuple[Gateway, Gateway]) -> None:
    here, there = gateways
    there.follow()
    await add(here)
    token = (await here.person("o1")).body["access_token"]
    staff = (await here.sign_in()).body["access_token"]
    kept = (await here.person("o1")).body["access_token"]
    sockets = [await connected(there, Authorization=f"Bearer {one}") for one in (token, staff, kept)]
    late = await there.client.ws_connect("/api/v1/stream")
    assert not (await late.receive_json())["hello"]["signed_in"]
    await late.send_json({"token": token})
    assert (await late.receive_json())["hello"]["signed_in"]
    await here.ask("DELETE", "/api/v1/sessions/current", token)
    assert await closed(sockets[0]) == await closed(late) == GONE
    await here.pool.execute("update staff set roles = array['nurse']")
    assert await closed(sockets[1]) == GONE
    await sockets[2].send_json({"token": kept})
    assert (await sockets[2].receive_json())["hello"]["signed_in"]
    with pytest.raises(WSServerHandshakeError, match="401"):
        await connected(there, Authorization=f"Bearer {token}")
    await sockets[2].close()
    assert not there.app[keys.STREAM]._of_session


async def test_the_connections_of_a_console_that_rests_are_closed(gateway: Gateway, clock: Clock) -> None:
    await add(gateway)
    await add(gateway, "screen", Role.SCREEN)
    console, screen = await gateway.console(), (await gateway.sign_in("screen")).body["access_token"]
    origin = str(gateway.client.make_url("")).rstrip("/")
    socket = await connected(gateway, Cookie=f"{COOKIE}={console.cookie}", Origin=origin)
    wall = await connected(gateway, Authorization=f"Bearer {screen}")
    clock.now += TERMS.staff_idle - 1
    await gateway.following.watch(gateway.pool)
    await socket.send_json({"unsubscribe": []})  # somebody is there
    await wall.send_json({"subscribe": ["department/none"]})
    assert (await wall.receive_json())["error"]["code"]
    clock.now += TERMS.staff_idle - 1
    await gateway.following.watch(gateway.pool)
    assert len(gateway.app[keys.STREAM].staff_sessions()) == 2
    clock.now += 1
    # Too late: what is done after the end, and before anybody looked, does not bring it back.
    await socket.send_json({"subscribe": ["department/none"]})
    assert (await socket.receive_json())["error"]["code"]
    await gateway.following.watch(gateway.pool)
    assert await closed(socket) == GONE
    assert len(gateway.app[keys.STREAM].staff_sessions()) == 1
    await wall.close()


async def test_a_foreign_page_opens_no_connection_with_a_cookie(gateway: Gateway) -> None:
    await add(gateway)
    console = await gateway.console()
    origin = str(gateway.client.make_url("")).rstrip("/")
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
        with pytest.raises(WSServerHandshakeError, match="403"):
            await connected(gateway, Cookie=f"{COOKIE}={console.cookie}", **headers)
    socket = await connected(gateway, Cookie=f"{COOKIE}={console.cookie}", Origin=origin)
    await console.ask("DELETE", "/api/v1/sessions/current")
    await gateway.following.look(gateway.pool)
    assert await closed(socket) == GONE


# The whole system.


async def test_whom_the_operator_disables_is_out_at_every_gateway(system: System) -> None:
    """`xinglin staff disable` beside the server: what is open is closed, and nothing opens any more."""
    name = f"s{secrets.token_hex(8)}"
    about = ("--username", name, "--name", name, "--role", "screen", "--home", str(system.home))
    added = await asyncio.to_thread(run, "staff", "add", *about, typed=f"{PASSWORD} {name[:4]}\n")
    assert added.returncode == 0, added.stderr
    body = {"grant": "password", "username": name, "password": f"{PASSWORD} {name[:4]}"}
    async with ClientSession(system.address) as session:
        async with session.post("/api/v1/sessions", json=body) as response:
            told = await response.json()
            assert response.status == 201, told
        headers = {"Authorization": f"Bearer {told['access_token']}"}
        async with session.get("/api/v1/sessions/current", headers=headers) as response:
            assert (await response.json())["staff"]["username"] == name
        async with session.ws_connect("/api/v1/stream", headers=headers) as socket:
            assert (await socket.receive_json())["hello"]["signed_in"]
            disabled = await asyncio.to_thread(
                run, "staff", "disable", "--username", name, "--home", str(system.home)
            )
            assert disabled.returncode == 0, disabled.stderr
            assert await closed(socket) == GONE
        for _ in range(4):  # whichever gateway has the connection
            async with (
                ClientSession(system.address) as another,
                another.get("/api/v1/sessions/current", headers=headers) as response,
            ):
                assert (response.status, (await response.json())["code"]) == ENDED
        refresh = {"grant": "refresh", "refresh_token": told["refresh_token"]}
        async with session.post("/api/v1/sessions", json=refresh) as response:
            assert (response.status, (await response.json())["code"]) == ENDED
