"""Staff sign in through somebody else's OpenID Connect provider, over HTTP and PostgreSQL."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import asyncpg
import oidc_provider_mock
import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from actors.metrics import GatewayMetrics
from engine.records import oidc_links
from engine.records.staff import NewStaff, Role, Staff, add_staff, disable_staff
from engine.settings import Settings
from integrations.oidc.client import OidcClient
from tests.support.oidc import Provider, SigningKey, served
from tests.support.system import run
from web import keys
from web.app import make_app
from web.auth import Tokens
from web.passwords import hash_of
from web.sessions.cookies import COOKIE as SESSION_COOKIE
from web.sessions.cookies import Cookies
from web.sign_in.oidc import COOKIE, oidc_of, provider_of
from web.sign_in.rules import SignInRules

SECRET = secrets.token_bytes(32)
HASH = hash_of("a good password")
CALLBACK = "https://xinglin.example/api/v1/oidc/callback"
SUBJECT = "wang-1"


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """Somebody else's provider, in a thread of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # loopback without TLS
        with oidc_provider_mock.run_server_in_thread(require_nonce=True) as server:
            yield f"http://localhost:{server.server_port}"


@dataclass
class Answer:
    status: int
    body: dict[str, Any]
    headers: Any

    def cookies(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for header in self.headers.getall("Set-Cookie", ()):
            found |= SimpleCookie(header)
        return found


@dataclass
class House:
    """A hospital with a provider."""

    client: TestClient[web.Request, web.Application]
    pool: asyncpg.Pool
    outside: ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        async with self.client.request(
            method, path, json=body, headers=headers, allow_redirects=False
        ) as response:
            told = await response.json() if response.content_type.endswith("json") else {}
            return Answer(response.status, told, response.headers)

    async def leave(self) -> tuple[str, str]:
        """Where the browser is sent, and the cookie that it takes along."""
        answer = await self.ask("GET", "/api/v1/oidc/sign-in")
        assert answer.status == 302, answer.body
        return answer.headers["Location"], answer.cookies()[COOKIE].value

    async def sign_in_there(self, address: str, subject: str = SUBJECT) -> dict[str, str]:
        """What the provider sends back along with the browser."""
        async with self.outside.post(address, data={"sub": subject}, allow_redirects=False) as response:
            assert response.status == 302, await response.text()
            location = response.headers["Location"]
        assert location.startswith(CALLBACK + "?")
        return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}

    async def come_back(self, told: dict[str, str], cookie: str | None, **headers: str) -> Answer:
        if cookie is not None:
            headers["Cookie"] = f"{COOKIE}={cookie}"
        return await self.ask("POST", "/api/v1/sessions", {"grant": "oidc", **told}, **headers)

    async def journey(self, subject: str = SUBJECT) -> Answer:
        address, cookie = await self.leave()
        return await self.come_back(await self.sign_in_there(address, subject), cookie)

    async def add(
        self, username: str = "wang", subject: str | None = SUBJECT, issuer: str = "", *roles: str
    ) -> Staff:
        async with self.pool.acquire() as connection:
            new = NewStaff(username, "王护士", HASH, roles or (Role.DESK,))
            made = await add_staff(connection, new, secrets.token_bytes(16), datetime.now(UTC))
            if subject is not None:
                await oidc_links.link(connection, issuer, subject, username, datetime.now(UTC), "a test")
        return made

    async def noted(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Action, outcome and detail of what the audit has, the oldest first."""
        rows = await self.pool.fetch("select action, outcome, detail from audit_entry order by id")
        return [(row["action"], row["outcome"], orjson.loads(row["detail"] or "{}")) for row in rows]


def settings_for(issuer: str, **more: Any) -> Settings:
    return Settings(
        oidc_issuer=issuer,
        oidc_client_id="xinglin",
        oidc_client_secret="a secret",
        oidc_address="https://xinglin.example",
        **more,
    )


async def _house(database: str, settings: Settings, is_factor_required: bool = False) -> AsyncIterator[House]:
    async with asyncpg.create_pool(database, min_size=1, max_size=4) as pool, ClientSession() as outside:
        app = make_app()
        app[keys.POOL], app[keys.METRICS] = pool, GatewayMetrics()
        app[keys.TOKENS], app[keys.COOKIES] = Tokens(SECRET, 1_800, 86_400), Cookies(SECRET)
        app[keys.ZONE] = ZoneInfo("Asia/Shanghai")
        app[keys.SIGN_IN_RULES] = SignInRules(is_factor_required=is_factor_required)
        app[keys.OIDC] = oidc_of(settings, OidcClient(outside, provider_of(settings)), SECRET)
        client = TestClient(TestServer(app))
        await client.start_server()
        yield House(client, pool, outside)
        await client.close()


@pytest.fixture
async def house(database: str, issuer: str) -> AsyncIterator[House]:
    async for house in _house(database, settings_for(issuer)):
        yield house


async def test_who_is_linked_signs_in_and_has_a_cookie_session(house: House, issuer: str) -> None:
    wang = await house.add(issuer=issuer)
    address, cookie = await house.leave()
    assert address.startswith(f"{issuer}/oauth2/authorize?")
    told = await house.sign_in_there(address)
    answer = await house.come_back(told, cookie)
    assert answer.status == 201 and set(answer.body) == {"csrf_token", "ends_at", "idle_seconds"}
    session, journey = answer.cookies()[SESSION_COOKIE], answer.cookies()[COOKIE]
    assert (
        session["secure"]
        and session["httponly"]
        and session["samesite"] == "Strict"
        and session["path"] == "/"
    )
    assert journey.value == "" and int(journey["max-age"]) == 0, "the journey is over"
    current = await house.ask("GET", "/api/v1/sessions/current", Cookie=f"{SESSION_COOKIE}={session.value}")
    assert current.status == 200 and current.body["staff"]["username"] == wang.username
    assert [row[0] for row in await house.noted()] == ["signed_in"]
    assert (await house.noted())[0][2] == {"method": "oidc", "transport": "cookie"}


async def test_the_cookie_of_a_journey_is_for_this_host_alone(house: House) -> None:
    answer = await house.ask("GET", "/api/v1/oidc/sign-in")
    cookie = answer.cookies()[COOKIE]
    assert cookie["secure"] and cookie["httponly"] and cookie["path"] == "/" and not cookie["domain"]
    assert cookie["samesite"] == "Strict" and int(cookie["max-age"]) == 600
    assert answer.headers["Cache-Control"] == "no-store"
    asked = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"] and asked["redirect_uri"] == [CALLBACK]
    assert not {asked["state"][0], asked["nonce"][0]} & set(cookie.value.split(".")), "sealed"


async def test_a_code_is_good_once(house: House, issuer: str) -> None:
    await house.add(issuer=issuer)
    address, cookie = await house.leave()
    told = await house.sign_in_there(address)
    assert (await house.come_back(told, cookie)).status == 201
    again = await house.come_back(told, cookie)
    assert (again.status, again.body["code"]) == (400, "oidc_state_refused")
    # In another journey of the same browser, and of another one: the provider refuses the code.
    other, other_cookie = await house.leave()
    state = parse_qs(urlsplit(other).query)["state"][0]
    stolen = await house.come_back({**told, "state": state}, other_cookie)
    assert (stolen.status, stolen.body["code"]) == (401, "sign_in_refused")


async def test_somebody_elses_code_does_not_sign_in_here(house: House, issuer: str) -> None:
    """Login CSRF, and a code put into another browser's journey: its nonce is another one."""
    await house.add(issuer=issuer)
    address, cookie = await house.leave()
    told = await house.sign_in_there(address)
    without = await house.come_back(told, None)
    assert (without.status, without.body["code"]) == (400, "oidc_state_refused")
    victim, victim_cookie = await house.leave()
    crossed = await house.come_back(told, victim_cookie)
    assert (crossed.status, crossed.body["code"]) == (400, "oidc_state_refused")
    state = parse_qs(urlsplit(victim).query)["state"][0]
    injected = await house.come_back({**told, "state": state}, victim_cookie)
    assert (injected.status, injected.body["code"]) == (401, "sign_in_refused")
    assert SESSION_COOKIE not in injected.cookies()
    whys = [detail["why"] for _, outcome, detail in await house.noted() if outcome == "refused"]
    assert whys == ["state", "state", "nonce"]


async def test_another_providers_answer_is_refused(house: House, issuer: str) -> None:
    await house.add(issuer=issuer)
    address, cookie = await house.leave()
    told = await house.sign_in_there(address)
    mixed = await house.come_back({**told, "iss": "https://evil.example"}, cookie)
    assert (mixed.status, mixed.body["code"]) == (401, "sign_in_refused")


async def test_a_foreign_page_does_not_sign_anybody_in(house: House, issuer: str) -> None:
    await house.add(issuer=issuer)
    address, cookie = await house.leave()
    told = await house.sign_in_there(address)
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = await house.come_back(told, cookie, **foreign)
    assert (answer.status, answer.body["code"]) == (403, "foreign_origin")


async def test_nobody_gets_an_account_by_signing_in(house: House, issuer: str) -> None:
    await house.add("li", subject=None)
    answer = await house.journey("li")  # a subject that is spelled like a username
    assert (answer.status, answer.body["code"]) == (403, "oidc_not_linked")
    assert await house.pool.fetchval("select count(*) from staff") == 1
    # Somebody of the same name at another provider is somebody else.
    await house.add("zhao", "zhao-7", "https://another.example")
    answer = await house.journey("zhao-7")
    assert (answer.status, answer.body["code"]) == (403, "oidc_not_linked")


async def test_who_is_disabled_does_not_sign_in(house: House, issuer: str) -> None:
    await house.add(issuer=issuer)
    async with house.pool.acquire() as connection:
        await disable_staff(connection, "wang")
    answer = await house.journey()
    assert (answer.status, answer.body["code"]) == (403, "oidc_not_linked")


async def test_saying_no_at_the_provider_is_a_refusal(house: House) -> None:
    address, cookie = await house.leave()
    state = parse_qs(urlsplit(address).query)["state"][0]
    answer = await house.come_back({"state": state}, cookie)
    assert (answer.status, answer.body["code"]) == (401, "sign_in_refused")


async def test_the_page_of_the_way_back_runs_its_own_script_alone(house: House) -> None:
    async with house.client.get("/api/v1/oidc/callback?code=x&state=y") as page:
        text = await page.text()
        policy = page.headers["Content-Security-Policy"]
        assert page.status == 200 and page.content_type == "text/html"
        assert (
            page.headers["Cache-Control"] == "no-store" and page.headers["Referrer-Policy"] == "no-referrer"
        )
    assert "unsafe-inline" not in policy and "frame-ancestors 'none'" in policy
    assert "x" not in text.split("<body>")[1].split("/api")[0], "nothing of the address is in the page"
    async with house.client.get("/api/v1/oidc/callback.js") as script:
        told = await script.text()
        assert script.content_type == "text/javascript"
    assert "history.replaceState" in told and 'location.replace("/docs")' in told


async def test_without_a_provider_the_way_is_closed(database: str, house: House) -> None:
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        app = make_app()
        app[keys.POOL], app[keys.METRICS] = pool, GatewayMetrics()
        app[keys.TOKENS], app[keys.COOKIES] = Tokens(SECRET, 1_800, 86_400), Cookies(SECRET)
        client = TestClient(TestServer(app))
        await client.start_server()
        closed = House(client, pool, house.outside)
        assert (await closed.ask("GET", "/api/v1/oidc/sign-in")).body["code"] == "unsupported_grant"
        refused = await closed.come_back({"state": "s", "code": "c"}, "cookie")
        assert (refused.status, refused.body["code"]) == (422, "unsupported_grant")
        await client.close()


# A second factor, which somebody else's provider has no word for: our own, which says what it is told to.


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({}, 403, "oidc_factor_needed"),
        ({"amr": ["pwd"]}, 403, "oidc_factor_needed"),
        ({"amr": "otp"}, 403, "oidc_factor_needed"),
        ({"amr": ["pwd", "otp"]}, 201, None),
        ({"acr": "bronze"}, 403, "oidc_factor_needed"),
        ({"acr": "gold"}, 201, None),
    ],
)
async def test_the_providers_word_may_stand_for_the_second_factor(
    database: str, said: dict[str, Any], status: int, code: str | None
) -> None:
    provider = Provider(_KEY)
    server = await served(provider)
    try:
        settings = settings_for(provider.issuer, oidc_factor_amr="otp, hwk", oidc_factor_acr="gold")
        async for house in _house(database, settings, is_factor_required=True):
            await house.add(issuer=provider.issuer)
            address, cookie = await house.leave()
            asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
            assert asked["acr_values"] == "gold"
            provider.claims = {"nonce": asked["nonce"], **said}
            provider.challenge = asked["code_challenge"]
            answer = await house.come_back({"code": "the code", "state": asked["state"]}, cookie)
            assert (answer.status, answer.body.get("code")) == (status, code)
    finally:
        await server.close()


_KEY = SigningKey("one")


# The operator's commands.


async def test_links_are_made_and_undone_at_the_machine(database: str, house: House, issuer: str) -> None:
    await house.add(subject=None)
    at = ("--database-url", database, "--issuer", issuer)
    done = run("staff", "link-oidc", "--username", "Wang", "--subject", SUBJECT, *at)
    assert done.returncode == 0, done.stderr
    session = await house.journey()
    assert session.status == 201
    shown = run("staff", "oidc-links", "--database-url", database)
    assert "wang" in shown.stdout and SUBJECT in shown.stdout
    done = run("staff", "unlink-oidc", "--username", "wang", *at)
    assert done.returncode == 0, done.stderr
    assert (await house.journey()).body["code"] == "oidc_not_linked"
    ended = await house.pool.fetchval("select revoked_at is not null from session")
    assert ended is True, "they are signed out"
    actions = [action for action, _, _ in await house.noted()]
    assert actions == ["oidc_linked", "signed_in", "oidc_unlinked", "sign_in_refused"]
    again = run("staff", "unlink-oidc", "--username", "wang", *at)
    assert again.returncode == 1 and "not linked" in again.stderr


async def test_a_subject_is_one_person_and_a_person_one_subject(house: House, issuer: str) -> None:
    await house.add("wang", SUBJECT, issuer)
    await house.add("li", None)
    now = datetime.now(UTC)
    async with house.pool.acquire() as connection:
        await oidc_links.link(connection, issuer, SUBJECT, "wang", now, "again")  # changes nothing
        for subject, username in ((SUBJECT, "li"), ("another", "wang"), ("another", "nobody")):
            with pytest.raises(oidc_links.LinkRefused):
                await oidc_links.link(connection, issuer, subject, username, now, "x")
        assert [(each.username, each.subject) for each in await oidc_links.links(connection)] == [
            ("wang", SUBJECT)
        ]
