"""A small server that speaks WeChat's sign-in, for demo and tests.

sandbox:<openid>           is anybody's code of wx.login; sandbox:<openid>+<unionid> gives a unionid
sandbox-phone:<number>     is anybody's code of getPhoneNumber: 13800000001, or +852… with the country's
sandbox-phone:<word>       fails: busy, quota, often, invalid, used, foreign (another app's), slow
"""

import asyncio
import re
import secrets
import time
from typing import Final

import orjson
from aiohttp import web

TOKEN_SECONDS: Final = 7_200
SLOW_SECONDS: Final = 30.0

_CODE: Final = re.compile(r"sandbox:([A-Za-z0-9_-]{1,64})(?:\+([A-Za-z0-9_-]{1,64}))?")
_PHONE: Final = re.compile(r"sandbox-phone:(?:\+(86|852|853|886|1)-?)?([0-9]{6,14})")
_PHONE_FAILS: Final = {
    "sandbox-phone:busy": (-1, "system error"),
    "sandbox-phone:quota": (45009, "reach max api daily quota limit"),
    "sandbox-phone:often": (45011, "api minute-quota reach limit"),
    "sandbox-phone:used": (40163, "code been used"),
}


def sandbox_app() -> web.Application:
    return Sandbox().app()


class Sandbox:
    """What it has given away; tests look at it and end its tokens."""

    def __init__(self, token_seconds: int = TOKEN_SECONDS) -> None:
        self.token_seconds = token_seconds
        self.tokens_asked = 0
        self._token = secrets.token_urlsafe(24)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/sns/jscode2session", self._jscode2session)
        app.router.add_post("/cgi-bin/stable_token", self._stable_token)
        app.router.add_post("/wxa/business/getuserphonenumber", self._phone_number)
        return app

    def end_token(self) -> None:
        """As when somebody else forces a new one."""
        self._token = secrets.token_urlsafe(24)

    async def _jscode2session(self, request: web.Request) -> web.Response:
        query = request.query
        if not query.get("appid"):
            return _failed(40013, "invalid appid")
        if not query.get("secret"):
            return _failed(41004, "appsecret missing")
        if query.get("grant_type") != "authorization_code":
            return _failed(40002, "invalid grant_type")
        code = _CODE.fullmatch(query.get("js_code", ""))
        if code is None:
            return _failed(40029, "invalid code")
        found: dict[str, object] = {"openid": code[1], "session_key": "c2FuZGJveC1zZXNzaW9uLWtleQ=="}
        return _answer(found | ({"unionid": code[2]} if code[2] else {}))

    async def _stable_token(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        self.tokens_asked += 1
        if not asked.get("appid") or not asked.get("secret"):
            return _failed(40125, "invalid appsecret")
        if asked.get("grant_type") != "client_credential":
            return _failed(40002, "invalid grant_type")
        if asked.get("force_refresh"):
            self.end_token()
        return _answer({"access_token": f"{asked['appid']}.{self._token}", "expires_in": self.token_seconds})

    async def _phone_number(self, request: web.Request) -> web.Response:
        app_id, _, token = request.query.get("access_token", "").rpartition(".")
        if token != self._token:
            return _failed(40001, "invalid credential, access_token is invalid or not latest")
        code = str(orjson.loads(await request.read()).get("code", ""))
        if code in _PHONE_FAILS:
            return _failed(*_PHONE_FAILS[code])
        if code == "sandbox-phone:slow":
            await asyncio.sleep(SLOW_SECONDS)
        foreign = code == "sandbox-phone:foreign"
        found = _PHONE.fullmatch("sandbox-phone:13800000000" if foreign else code)
        if found is None:
            return _failed(40029, "invalid code")
        country, pure = found[1] or "86", found[2]
        info = {
            "phoneNumber": pure if country == "86" else f"+{country}{pure}",
            "purePhoneNumber": pure,
            "countryCode": int(country),
            "watermark": {"timestamp": int(time.time()), "appid": "another" if foreign else app_id},
        }
        return _answer({"errcode": 0, "errmsg": "ok", "phone_info": info})


def _failed(errcode: int, errmsg: str) -> web.Response:
    return _answer({"errcode": errcode, "errmsg": errmsg})


def _answer(content: dict[str, object]) -> web.Response:
    # Like the real one: status 200 whatever happened, and JSON that calls itself text.
    return web.Response(body=orjson.dumps(content), headers={"Content-Type": "text/plain"})
