"""WeChat's side of signing in: a one-time code becomes the person's openid, another their phone number."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import aiohttp

from integrations.wechat.translate import AccessToken, WeChatPerson, person_of, phone_of, token_of
from integrations.wechat.wire import TokenRefused, Wire

SECONDS_MAX: Final = 5.0
RENEW_SECONDS: Final = 300  # before an access token's end another one is fetched


class WeChatClient:
    """Speaks to one address with one mini-program's secret. The session is its owner's to close.

    Whoever fails tries again with a new code: codes are good for one use.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: str,
        app_id: str,
        app_secret: str,
        seconds_max: float = SECONDS_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wire = Wire(session, address, seconds_max)
        self._app_id = app_id
        self._app_secret = app_secret
        self._tokens = _AccessTokens(self._wire, app_id, app_secret, clock)

    async def person_of(self, code: str) -> WeChatPerson:
        """Who holds this code of wx.login. Raises Refused (a bad or used code) or TryAgain."""
        answer = await self._wire.get(
            "/sns/jscode2session",
            {
                "appid": self._app_id,
                "secret": self._app_secret,
                "js_code": code,
                "grant_type": "authorization_code",
            },
        )
        return person_of(answer)

    async def phone_of(self, code: str) -> str:
        """The number that the person gave with this code of getPhoneNumber. Raises Refused or TryAgain."""
        token = await self._tokens.token()
        try:
            return await self._phone(code, token)
        except TokenRefused:
            # Ended before its time: somebody forced a new one. The code was not looked at, so is still good.
            return await self._phone(code, await self._tokens.another_than(token))

    async def _phone(self, code: str, token: str) -> str:
        answer = await self._wire.post(
            "/wxa/business/getuserphonenumber", {"code": code}, {"access_token": token}
        )
        return phone_of(answer, self._app_id)


class _AccessTokens:
    """The app's access token, fetched by one request at a time and kept until shortly before its end.

    The stable kind: asking again gives the same one to every gateway. The other kind ends the one before it,
    so that gateways would take it from each other.
    """

    def __init__(self, wire: Wire, app_id: str, app_secret: str, clock: Callable[[], float]) -> None:
        self._wire = wire
        self._app_id = app_id
        self._app_secret = app_secret
        self._clock = clock
        self._kept: AccessToken | None = None
        self._until = 0.0
        self._fetching = asyncio.Lock()

    async def token(self) -> str:
        async with self._fetching:
            if self._kept is None or self._clock() >= self._until:
                self._keep(await self._fetch(force=False))
            assert self._kept is not None
            return self._kept.value

    async def another_than(self, refused: str) -> str:
        """Where many find the same one refused, one of them fetches for all."""
        async with self._fetching:
            if self._kept is None or self._kept.value == refused:
                self._kept = None
                found = await self._fetch(force=False)
                if found.value == refused:
                    found = await self._fetch(force=True)
                self._keep(found)
            assert self._kept is not None
            return self._kept.value

    def _keep(self, token: AccessToken) -> None:
        self._kept = token
        # A short one is kept for half its life, never for none of it.
        self._until = self._clock() + max(token.seconds - RENEW_SECONDS, token.seconds / 2)

    async def _fetch(self, *, force: bool) -> AccessToken:
        answer = await self._wire.post(
            "/cgi-bin/stable_token",
            {
                "grant_type": "client_credential",
                "appid": self._app_id,
                "secret": self._app_secret,
                "force_refresh": force,
            },
        )
        return token_of(answer)
