"""How questions reach WeChat and how its answers are read: JSON that calls itself text, with an errcode."""

from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import orjson

from integrations.connector import Refused, TryAgain

ANSWER_BYTES_MAX: Final = 16 * 1024

# Their words, https://developers.weixin.qq.com.
_CODE_REFUSED: Final = {
    40029: "invalid_code",
    40163: "code_used",
    40226: "account_blocked",
}
_TRY_AGAIN: Final = {
    -1: "their system is busy",
    45009: "the day's quota is used up",
    45011: "too often in a minute",
}
_TOKEN_REFUSED: Final = (40001, 40014, 42001)


class TokenRefused(TryAgain):
    """The access token is not, or no longer, good: a new one may be."""


class Wire:
    """One address. Asking changes nothing over there that we would have to undo: no outcome is unknown."""

    def __init__(self, session: aiohttp.ClientSession, address: str, seconds_max: float) -> None:
        self._session = session
        self._address = address.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=seconds_max)

    async def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        return await self._ask("GET", path, query, None)

    async def post(
        self, path: str, body: Mapping[str, object], query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return await self._ask("POST", path, query or {}, orjson.dumps(dict(body)))

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None
    ) -> dict[str, Any]:
        """Raises Refused, TryAgain, or TokenRefused."""
        # `from None`: aiohttp's exceptions may quote the address, and with it the secret.
        try:
            async with self._session.request(
                method,
                f"{self._address}{path}",
                params=dict(query),
                data=body,
                headers=None if body is None else {"Content-Type": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                status = response.status
                raw = await response.content.read(ANSWER_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TryAgain(f"wechat: {type(error).__name__}") from None
        if status != 200:
            raise TryAgain(f"wechat: status {status}")
        try:
            answer = orjson.loads(raw)  # they send JSON as text/plain
        except orjson.JSONDecodeError:
            raise TryAgain("wechat: an answer that is no JSON") from None
        if not isinstance(answer, dict):
            raise TryAgain("wechat: an answer that is no object")
        _check(answer.get("errcode", 0))
        return answer


def _check(errcode: object) -> None:
    if not isinstance(errcode, int):
        raise TryAgain("wechat: an errcode that is no number")
    if errcode in _CODE_REFUSED:
        raise Refused(_CODE_REFUSED[errcode])
    if errcode in _TOKEN_REFUSED:
        raise TokenRefused(f"wechat: the access token was refused ({errcode})")
    if errcode in _TRY_AGAIN:
        raise TryAgain(f"wechat: {_TRY_AGAIN[errcode]}")
    if errcode != 0:
        raise Refused(f"errcode_{errcode}")  # a wrong appid or secret, say: not for a patient to mend
