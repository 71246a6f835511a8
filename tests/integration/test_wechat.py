"""The WeChat connector over its wire, against the sandbox and against what the other side may do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from integrations.connector import Refused, TryAgain
from integrations.wechat.client import RENEW_SECONDS, WeChatClient
from integrations.wechat.sandbox import Sandbox
from integrations.wechat.translate import WeChatPerson, phone_of
from tests.support.people_app import PATIENCE_SECONDS, Clock


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.fixture
async def server(sandbox: Sandbox) -> AsyncIterator[TestServer]:
    server = TestServer(sandbox.app())
    async with server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(server: TestServer, clock: Clock) -> AsyncIterator[WeChatClient]:
    async with ClientSession() as session:
        yield WeChatClient(session, str(server.make_url("/")), "id", "topsecret", PATIENCE_SECONDS, clock)


# Signing in.


async def wechat_that_answers(content: bytes, status: int = 200, delay: float = 0) -> TestServer:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        return web.Response(body=content, status=status, headers={"Content-Type": "text/plain"})

    app = web.Application()
    app.router.add_get("/sns/jscode2session", answer)
    return TestServer(app)


async def person_from(
    server: TestServer, code: str = "c", seconds_max: float = PATIENCE_SECONDS
) -> WeChatPerson:
    async with server, ClientSession() as session:
        client = WeChatClient(session, str(server.make_url("")), "id", "topsecret", seconds_max)
        return await client.person_of(code)


async def test_the_sandbox_speaks_to_the_client(client: WeChatClient) -> None:
    assert await client.person_of("sandbox:oABC_-1") == WeChatPerson("oABC_-1", None)
    assert await client.person_of("sandbox:oABC+u7") == WeChatPerson("oABC", "u7")
    with pytest.raises(Refused, match="invalid_code"):
        await client.person_of("oABC")


@pytest.mark.parametrize(
    ("content", "status", "raised"),
    [
        (b'{"errcode":40029,"errmsg":"invalid code"}', 200, Refused),
        (b'{"errcode":40163,"errmsg":"code been used"}', 200, Refused),
        (b'{"errcode":40013,"errmsg":"invalid appid"}', 200, Refused),
        (b'{"errcode":45011,"errmsg":"frequency"}', 200, TryAgain),
        (b'{"errcode":-1,"errmsg":"system error"}', 200, TryAgain),
        (b"{}", 200, TryAgain),
        (b'{"openid":""}', 200, TryAgain),
        (b'{"openid":7}', 200, TryAgain),
        (b'{"openid":"x","errcode":[]}', 200, TryAgain),
        (b"[]", 200, TryAgain),
        (b"<html>", 200, TryAgain),
        (b'{"openid":"' + b"x" * 100_000 + b'"}', 200, TryAgain),
        (b'{"openid":"x"}', 502, TryAgain),
    ],
)
async def test_what_wechat_may_answer(content: bytes, status: int, raised: type[Exception]) -> None:
    with pytest.raises(raised) as caught:
        await person_from(await wechat_that_answers(content, status))
    assert "topsecret" not in repr(caught.value)


async def test_a_wechat_that_is_slow_or_gone() -> None:
    with pytest.raises(TryAgain, match="Timeout"):
        await person_from(await wechat_that_answers(b"{}", delay=1), seconds_max=0.05)
    async with ClientSession() as session:
        with pytest.raises(TryAgain) as caught:
            await WeChatClient(session, "http://127.0.0.1:9", "id", "topsecret").person_of("c")
    assert "topsecret" not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_extra_words_from_wechat_do_no_harm() -> None:
    server = await wechat_that_answers(b'{"openid":"o","unionid":"u","session_key":"k","errcode":0,"new":1}')
    assert await person_from(server) == WeChatPerson("o", "u")  # and nowhere a session_key


# Phones.


async def test_a_phone_by_its_code(client: WeChatClient, sandbox: Sandbox) -> None:
    assert await client.phone_of("sandbox-phone:13800000001") == "13800000001"
    assert await client.phone_of("sandbox-phone:+852-61234567") == "+85261234567"
    assert sandbox.tokens_asked == 1


@pytest.mark.parametrize(
    ("code", "raised", "match"),
    [
        ("sandbox-phone:invalid", Refused, "invalid_code"),
        ("nonsense", Refused, "invalid_code"),
        ("sandbox-phone:used", Refused, "code_used"),
        ("sandbox-phone:busy", TryAgain, "busy"),
        ("sandbox-phone:quota", TryAgain, "quota"),
        ("sandbox-phone:often", TryAgain, "often"),
        ("sandbox-phone:foreign", TryAgain, "another app"),
    ],
)
async def test_phones_that_are_not_told(
    client: WeChatClient, code: str, raised: type[Exception], match: str
) -> None:
    with pytest.raises(raised, match=match):
        await client.phone_of(code)


async def test_a_wechat_that_is_slow_with_phones(server: TestServer) -> None:
    async with ClientSession() as session:
        client = WeChatClient(session, str(server.make_url("")), "id", "topsecret", seconds_max=0.3)
        with pytest.raises(TryAgain, match="Timeout"):
            await client.phone_of("sandbox-phone:slow")


async def test_an_access_token_is_fetched_once_for_all_who_wait(
    client: WeChatClient, sandbox: Sandbox
) -> None:
    codes = [f"sandbox-phone:1380000{n:04}" for n in range(20)]
    found = await asyncio.gather(*(client.phone_of(code) for code in codes))
    assert found == [code.rpartition(":")[2] for code in codes]
    assert sandbox.tokens_asked == 1


async def test_an_access_token_is_renewed_before_its_end(
    client: WeChatClient, sandbox: Sandbox, clock: Clock
) -> None:
    await client.phone_of("sandbox-phone:13800000001")
    clock.now += sandbox.token_seconds - RENEW_SECONDS - 1
    await client.phone_of("sandbox-phone:13800000001")
    assert sandbox.tokens_asked == 1
    clock.now += 2
    await client.phone_of("sandbox-phone:13800000001")
    assert sandbox.tokens_asked == 2


async def test_a_token_that_ended_early_is_renewed_by_one_of_all(
    client: WeChatClient, sandbox: Sandbox
) -> None:
    await client.phone_of("sandbox-phone:13800000001")
    sandbox.end_token()  # as when somebody forces a new one
    found = await asyncio.gather(*(client.phone_of("sandbox-phone:13800000001") for _ in range(20)))
    assert set(found) == {"13800000001"}
    assert sandbox.tokens_asked == 2


async def test_a_token_that_is_refused_though_it_is_the_newest_is_forced_once() -> None:
    forced = []

    async def stable_token(request: web.Request) -> web.Response:
        forced.append((await request.json())["force_refresh"])
        return web.json_response({"access_token": "never good", "expires_in": 7200})

    async def phone(request: web.Request) -> web.Response:
        return web.json_response({"errcode": 42001, "errmsg": "access_token expired"})

    app = web.Application()
    app.router.add_post("/cgi-bin/stable_token", stable_token)
    app.router.add_post("/wxa/business/getuserphonenumber", phone)
    async with TestServer(app) as server, ClientSession() as session:
        client = WeChatClient(session, str(server.make_url("")), "id", "topsecret")
        with pytest.raises(TryAgain, match="refused"):
            await client.phone_of("c")
    assert forced == [False, False, True]


@pytest.mark.parametrize(
    "info",
    [
        None,
        [],
        {"purePhoneNumber": "13800000001", "countryCode": 86},
        {"purePhoneNumber": "13800000001", "countryCode": 86, "watermark": {"appid": "another"}},
        {"purePhoneNumber": 13800000001, "countryCode": 86, "watermark": {"appid": "id"}},
        {"purePhoneNumber": "110", "countryCode": 86, "watermark": {"appid": "id"}},
        {"purePhoneNumber": "x" * 11, "countryCode": 86, "watermark": {"appid": "id"}},
    ],
)
def test_a_phone_that_is_none(info: Any) -> None:
    with pytest.raises(TryAgain):
        phone_of({"errcode": 0, "phone_info": info}, "id")


def test_a_countrys_code_may_be_text() -> None:
    info = {"purePhoneNumber": "13800000001", "countryCode": "86", "watermark": {"appid": "id"}}
    assert phone_of({"phone_info": info}, "id") == "13800000001"
