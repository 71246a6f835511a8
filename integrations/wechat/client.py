"""WeChat's side of signing in: a one-time code from wx.login becomes the person's openid."""

from typing import Any, Final

import aiohttp
import orjson

from integrations.connector import Refused, TryAgain

SECONDS_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 16 * 1024

# Their words, https://developers.weixin.qq.com, auth.code2Session.
_CODE_REFUSED: Final = {
    40029: "invalid_code",
    40163: "code_used",
    40226: "account_blocked",
}
_TRY_AGAIN: Final = {
    -1: "their system is busy",
    45011: "too many sign-ins of one person in a minute",
}


class WeChatClient:
    """Speaks to one address with one mini-program's secret. The session is its owner's to close.

    Asking for an openid changes nothing that we would have to undo, so its outcome is never unknown: whoever
    fails signs in again with a new code.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: str,
        app_id: str,
        app_secret: str,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        self._session = session
        self._url = f"{address.rstrip('/')}/sns/jscode2session"
        self._app_id = app_id
        self._app_secret = app_secret
        self._timeout = aiohttp.ClientTimeout(total=seconds_max)

    async def openid_of(self, code: str) -> str:
        """Who holds this code. Raises Refused (a bad or used code) or TryAgain."""
        answer = await self._ask(
            {
                "appid": self._app_id,
                "secret": self._app_secret,
                "js_code": code,
                "grant_type": "authorization_code",
            }
        )
        errcode = answer.get("errcode", 0)
        if not isinstance(errcode, int):
            raise TryAgain("wechat: an errcode that is no number")
        if errcode in _CODE_REFUSED:
            raise Refused(_CODE_REFUSED[errcode])
        if errcode in _TRY_AGAIN:
            raise TryAgain(f"wechat: {_TRY_AGAIN[errcode]}")
        if errcode != 0:
            raise Refused(f"errcode_{errcode}")  # a wrong appid or secret, say: not for a patient to mend
        openid = answer.get("openid")
        if not isinstance(openid, str) or not openid:
            raise TryAgain("wechat: an answer without openid")
        # session_key is dropped here: nothing we do needs it, and it decrypts the person's data.
        return openid

    async def _ask(self, parameters: dict[str, str]) -> dict[str, Any]:
        # `from None`: aiohttp's exceptions may quote the address, and with it the secret.
        try:
            async with self._session.get(
                self._url, params=parameters, timeout=self._timeout, allow_redirects=False
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
        return answer
