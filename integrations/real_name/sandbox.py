"""A small server that speaks the register's wire, for demo and tests. Everybody matches, but

    whose name ends with   it answers
    不符                   mismatch
    无此人                 not_found
    繁忙                   503, with Retry-After
    超时                   after so long that nobody waits
    伪造                   with a signature that is not the register's

and but those whose names a test has put into `register`: these match with that name alone.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import orjson
from aiohttp import web

from integrations.real_name import signing
from integrations.real_name.client import PATH

SLOW_SECONDS: Final = 30.0
NONCES_MAX: Final = 10_000

_BY_NAME: Final = {"不符": "mismatch", "无此人": "not_found"}


class Sandbox:
    def __init__(self, app_id: str, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self.register: dict[str, str] = {}
        """Number -> whose it is."""
        self.asked = 0
        self.is_away = False  # then everything is answered with 503
        self._app_id = app_id
        self._secret = secret
        self._clock = clock
        self._nonces: dict[str, None] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post(PATH, self._check)
        return app

    async def _check(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.is_away:
            return web.Response(status=503, headers={"Retry-After": "7"})
        body = await request.read()
        nonce = request.headers.get(signing.NONCE, "")
        if not self._is_theirs(request, body, nonce):
            return web.Response(status=401)
        asked = orjson.loads(body)
        name: str = asked["name"]
        if name.endswith("繁忙"):
            return web.Response(status=503, headers={"Retry-After": "7"})
        if name.endswith("超时"):
            await asyncio.sleep(SLOW_SECONDS)
        secret = b"another" if name.endswith("伪造") else self._secret
        return self._answer(secret, nonce, {"result": self._result(name, asked["number"])})

    def _result(self, name: str, number: str) -> str:
        known = self.register.get(number)
        if known is not None:
            return "match" if known == name else "mismatch"
        return next((result for end, result in _BY_NAME.items() if name.endswith(end)), "match")

    def _is_theirs(self, request: web.Request, body: bytes, nonce: str) -> bool:
        at = request.headers.get(signing.TIMESTAMP, "")
        if not signing.is_near(at, int(self._clock())) or signing.NONCE_FORMAT.fullmatch(nonce) is None:
            return False
        expected = signing.of_request(
            self._secret, "POST", PATH, request.headers.get(signing.APP, ""), int(at), nonce, body
        )
        if request.headers.get(signing.APP) != self._app_id or nonce in self._nonces:
            return False
        if not signing.is_same(request.headers.get(signing.SIGNATURE, ""), expected):
            return False
        if len(self._nonces) >= NONCES_MAX:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[nonce] = None
        return True

    def _answer(self, secret: bytes, nonce: str, content: dict[str, str]) -> web.Response:
        body, now = orjson.dumps(content), int(self._clock())
        headers = {
            signing.TIMESTAMP: str(now),
            signing.SIGNATURE: signing.of_answer(secret, 200, nonce, now, body),
        }
        return web.Response(body=body, headers=headers, content_type="application/json")
