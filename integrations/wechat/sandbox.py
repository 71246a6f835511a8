"""A small server that speaks WeChat's sign-in, for demo and tests: `sandbox:<openid>` is anybody's code."""

import re
from typing import Final

import orjson
from aiohttp import web

_CODE: Final = re.compile(r"sandbox:([A-Za-z0-9_-]{1,64})")


def sandbox_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/sns/jscode2session", _jscode2session)
    return app


async def _jscode2session(request: web.Request) -> web.Response:
    query = request.query
    if not query.get("appid"):
        return _answer({"errcode": 40013, "errmsg": "invalid appid"})
    if not query.get("secret"):
        return _answer({"errcode": 41004, "errmsg": "appsecret missing"})
    if query.get("grant_type") != "authorization_code":
        return _answer({"errcode": 40002, "errmsg": "invalid grant_type"})
    code = _CODE.fullmatch(query.get("js_code", ""))
    if code is None:
        return _answer({"errcode": 40029, "errmsg": "invalid code"})
    return _answer({"openid": code[1], "session_key": "c2FuZGJveC1zZXNzaW9uLWtleQ=="})


def _answer(content: dict[str, object]) -> web.Response:
    # Like the real one: status 200 whatever happened, and JSON that calls itself text.
    return web.Response(body=orjson.dumps(content), headers={"Content-Type": "text/plain"})
