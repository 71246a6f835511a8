"""How a question reaches the gateway, and which answers are believed.

    not sent, for nobody was there               TryAgain
    sent, and no answer that Alipay has signed   OutcomeUnknown where it moves something, else TryAgain
    an answer that Alipay has signed             what translate.failure_of says

Their answers carry neither time nor nonce: an old one is told from ours by the numbers in it, and by TLS.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from integrations.alipay import signing
from integrations.alipay.merchant import Merchant, is_safe
from integrations.alipay.translate import failure_of, time_text
from integrations.connector import ConnectorFailed, OutcomeUnknown, TryAgain

CONNECT_SECONDS_MAX: Final = 2.0
ANSWER_BYTES_MAX: Final = 64 * 1024
BILL_BYTES_MAX: Final = 64 * 1024 * 1024
BILL_SECONDS_MAX: Final = 60.0

# Raised while a connection is being made: nothing of the question has left.
_NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Wire:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        merchant: Merchant,
        seconds_max: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._merchant = merchant
        self._timeout = aiohttp.ClientTimeout(total=seconds_max, sock_connect=CONNECT_SECONDS_MAX)
        self._clock = clock

    def signed(
        self, method: str, content: Mapping[str, object], extra: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """All parameters of a request, the signature among them."""
        parameters = {
            "app_id": self._merchant.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": signing.SIGN_TYPE,
            "timestamp": time_text(int(self._clock() * 1000)),
            "version": "1.0",
            "biz_content": orjson.dumps(dict(content)).decode(),
            **(extra or {}),
        }
        text = signing.of_request(parameters)
        return {**parameters, "sign": signing.sign(self._merchant.private_key, text)}

    def page(self, method: str, content: Mapping[str, object], extra: Mapping[str, str]) -> str:
        """An address that a browser opens. Nothing is asked."""
        return f"{self._merchant.gateway}?{urlencode(self.signed(method, content, extra))}"

    async def ask(
        self,
        method: str,
        content: Mapping[str, object],
        *,
        changes: bool,
        extra: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The believed node of an answer that says 10000. Raises TryAgain, Refused or OutcomeUnknown.

        Whoever cancels it midway knows as little as after OutcomeUnknown.
        """
        parameters = self.signed(method, content, extra)
        body = urlencode({"biz_content": parameters.pop("biz_content")}).encode()
        # Like their own SDKs: what is the same for every method in the address, the content in the body.
        address = URL(f"{self._merchant.gateway}?{urlencode(parameters)}", encoded=True)
        lost = OutcomeUnknown if changes else TryAgain
        # `from None`: aiohttp's exceptions may quote the address.
        try:
            async with self._session.post(
                address,
                data=body,
                headers={"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                status = response.status
                raw = await read(response, ANSWER_BYTES_MAX)
        except _NEVER_SENT as error:
            raise TryAgain(f"alipay: {type(error).__name__}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise lost(f"alipay: {type(error).__name__}") from None
        if status != 200:
            raise lost(f"alipay: status {status}")
        try:
            node = signing.believed(raw, method, self._merchant.alipay_key)
        except signing.NotBelieved as error:
            raise lost(f"alipay: an answer that is not theirs ({error})") from None
        failure = failure_of(node, changes)
        if failure is not None:
            raise failure
        return node

    async def download(self, address: str) -> bytes:
        """What lies at an address that they gave us. Raises TryAgain, without it: it needs no key."""
        try:
            async with self._session.get(
                _never_in_the_clear(address),
                timeout=aiohttp.ClientTimeout(total=BILL_SECONDS_MAX, sock_connect=CONNECT_SECONDS_MAX),
                allow_redirects=False,
            ) as response:
                status = response.status
                raw = await read(response, BILL_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise TryAgain(f"alipay: the bill: {type(error).__name__}") from None
        if status != 200:
            raise TryAgain(f"alipay: the bill: status {status}")
        if len(raw) > BILL_BYTES_MAX:
            raise TryAgain("alipay: a bill that is too long")
        return raw


def _never_in_the_clear(address: str) -> URL:
    """Some of the addresses that they give say http; their host speaks https as well. Raises ValueError."""
    found = URL(address, encoded=True)
    if not is_safe(address) and found.scheme == "http":
        found = found.with_scheme("https").with_port(None)
    if not is_safe(str(found)):
        raise ValueError("no address of a bill")
    return found


async def read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """All of it, or one byte more than `bytes_max`."""
    parts, size = [], 0
    async for part in response.content.iter_chunked(64 * 1024):
        parts.append(part)
        size += len(part)
        if size > bytes_max:
            break
    return b"".join(parts)[: bytes_max + 1]


def unreadable(what: str, changes: bool) -> ConnectorFailed:
    """A believed answer that does not hold together, or is about something else."""
    return (OutcomeUnknown if changes else TryAgain)(f"alipay: {what}")
