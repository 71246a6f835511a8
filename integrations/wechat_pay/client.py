"""WeChat Pay v3 of one merchant: ask for a payment, ask after it, close it, give it back, fetch the bill.

    keys = PlatformKeys([of_public_key(key_id, pem)])
    pay = WeChatPay(session, "https://api.mch.weixin.qq.com", merchant, keys)
    prepay_id = await pay.prepay(Order(...))
    pay.payment_parameters(prepay_id)           # what wx.requestPayment takes
    await pay.query(out_trade_no)               # Transaction; Refused ORDER_NOT_EXIST: it never got there
    await pay.query_refund(out_refund_no)       # Refund; Refused RESOURCE_NOT_EXISTS: it never got there

In certificate mode PlatformKeys starts empty: call `renew_certificates` at the start, twice a day, and when a
callback is refused with unknown_key.

Which failure is which. What is not signed by them, or not now, or is about something else, is never believed:

    no connection came about; 429, FREQUENCY_LIMITED, STATEMENT_CREATING    TryAgain
    a signed 4xx                                                            Refused, with their word
    anything else: the line broke, 5xx, an answer that is not believed      TryAgain, of a question
                                                    OutcomeUnknown, of prepay, close and refund
    a signed 401 of a question                                              TryAgain: it moves nothing, and
                                                    may be our HTTP client's repetition, its nonce used up

OutcomeUnknown is resolved with `query` or `query_refund`. Where they have nothing of that number, or the
order is unpaid, the same request with the same number and content may be sent again: it is one order, one
refund over there. Never take a new number before the old one is known. Two failures are for people:
SIGN_ERROR and "is the clock right?" (keys, clock), and NOT_ENOUGH of a refund (the hospital's account is
empty: send the same refund again when there is money).
"""

import hashlib
import secrets
import time
import zlib
from collections.abc import Callable
from datetime import date
from typing import Any, Final, TypeVar

import aiohttp
import orjson
from yarl import URL

from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain
from integrations.wechat_pay import signing
from integrations.wechat_pay.bill import Bill, parsed
from integrations.wechat_pay.signing import Merchant, PlatformKey, PlatformKeys
from integrations.wechat_pay.translate import (
    Order,
    Refund,
    RefundOrder,
    Transaction,
    Unbelievable,
    code_of,
    number_of,
    prepay_body,
    prepay_id_of,
    refund_body,
    refund_number_of,
    refund_of,
    transaction_id_of,
    transaction_of,
)

SECONDS_MAX: Final = 5.0
BILL_SECONDS_MAX: Final = 60.0
ANSWER_BYTES_MAX: Final = 256 * 1024
BILL_BYTES_MAX: Final = 256 * 1024 * 1024
AFTER_SECONDS_MAX: Final = 3_600.0

T = TypeVar("T")

_NOT_NOW: Final = ("FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED", "STATEMENT_CREATING")
_FINAL_THOUGH_5XX: Final = ("OPENID_MISMATCH",)
_DOWNLOAD_PATH: Final = "/v3/billdownload/file"


class WeChatPay:
    """The session is its owner's to close."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: str,  # https://…, no path
        merchant: Merchant,
        keys: PlatformKeys,
        seconds_max: float = SECONDS_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._address = address.rstrip("/")
        self._merchant = merchant
        self._keys = keys
        self._seconds_max = seconds_max
        self._clock = clock

    async def prepay(self, order: Order) -> str:
        """The prepay_id, good for two hours. Raises all three; Refused may be ORDER_PAID or ORDER_CLOSED."""
        body = prepay_body(order, self._merchant.mch_id, self._merchant.app_id)
        answer = await self._move("/v3/pay/transactions/jsapi", body)
        return _believed(lambda: prepay_id_of(answer))

    def payment_parameters(self, prepay_id: str) -> dict[str, str]:
        """What wx.requestPayment takes. Signed with the time: made when asked for, not kept."""
        return signing.payment_parameters(
            self._merchant, prepay_id, int(self._clock()), secrets.token_hex(16)
        )

    async def query(self, out_trade_no: str) -> Transaction:
        """Raises Refused or TryAgain."""
        found = await self._transaction(f"out-trade-no/{number_of(out_trade_no)}")
        if found.out_trade_no != out_trade_no:
            raise TryAgain("wechat pay: an answer about another order")
        return found

    async def query_transaction(self, transaction_id: str) -> Transaction:
        """By their number, which only paid orders have. Raises Refused or TryAgain."""
        found = await self._transaction(f"id/{transaction_id_of(transaction_id)}")
        if found.transaction_id != transaction_id:
            raise TryAgain("wechat pay: an answer about another order")
        return found

    async def _transaction(self, path: str) -> Transaction:
        merchant = self._merchant
        answer = await self._ask(f"/v3/pay/transactions/{path}?mchid={merchant.mch_id}")
        try:
            return transaction_of(answer, merchant.mch_id, merchant.app_id)
        except Unbelievable as error:
            raise TryAgain(f"wechat pay: an answer without {error}") from None

    async def close(self, out_trade_no: str) -> None:
        """Closed already is fine. Raises all three: Refused ORDER_PAID where somebody was faster."""
        path = f"/v3/pay/transactions/out-trade-no/{number_of(out_trade_no)}/close"
        try:
            await self._move(path, {"mchid": self._merchant.mch_id})
        except Refused as refused:
            if refused.code != "ORDER_CLOSED":
                raise

    async def refund(self, order: RefundOrder) -> Refund:
        """Asked for is not yet done: see its state, the callback, or `query_refund`. Raises all three."""
        answer = await self._move("/v3/refund/domestic/refunds", refund_body(order))
        found = _believed(lambda: refund_of(answer))
        asked = (order.out_refund_no, order.out_trade_no, order.refund_fen, order.total_fen)
        if asked != (found.out_refund_no, found.out_trade_no, found.refund_fen, found.total_fen):
            raise OutcomeUnknown("wechat pay: an answer about another refund")
        return found

    async def query_refund(self, out_refund_no: str) -> Refund:
        """Raises Refused or TryAgain."""
        answer = await self._ask(f"/v3/refund/domestic/refunds/{refund_number_of(out_refund_no)}")
        try:
            found = refund_of(answer)
        except Unbelievable as error:
            raise TryAgain(f"wechat pay: an answer without {error}") from None
        if found.out_refund_no != out_refund_no:
            raise TryAgain("wechat pay: an answer about another refund")
        return found

    async def bill(self, day: date) -> Bill:
        """What was paid and given back on this day of Beijing; there from 10 o'clock of the next day, for
        three months. Raises TryAgain; Refused: NO_STATEMENT_EXIST where nothing happened (or the day is not
        over: compare with the ledger), bad_bill, another_merchant."""
        found = await self._ask(f"/v3/bill/tradebill?bill_date={day.isoformat()}&bill_type=ALL&tar_type=GZIP")
        if not isinstance(found, dict) or found.get("hash_type") != "SHA1":
            raise TryAgain("wechat pay: a bill without hash")
        # Nobody is followed to another address, whoever says so. The file itself is not signed: its hash is.
        url = _url(found.get("download_url"))
        if url is None or url.path != _DOWNLOAD_PATH or not url.query_string:
            raise TryAgain("wechat pay: a bill that is elsewhere")
        status, headers, raw = await self._fetch(url.raw_path_qs, BILL_SECONDS_MAX, BILL_BYTES_MAX)
        if status != 200:
            raise TryAgain(f"wechat pay: status {status} of a bill", _seconds(headers.get("Retry-After")))
        content = _unzipped(raw)
        if hashlib.sha1(content, usedforsecurity=False).hexdigest() != found.get("hash_value"):
            raise TryAgain("wechat pay: a bill that was changed on the way")
        bill = parsed(content)
        if any(row.mch_id != self._merchant.mch_id for row in bill.rows):
            raise Refused("another_merchant", "wechat pay: a bill of another merchant")
        return bill

    async def renew_certificates(self) -> None:
        """Fetches the platform's certificates. What proves the first ones is the APIv3 key, which only we and
        they have; the answer must be signed with one of them as well. Raises TryAgain."""
        status, headers, raw = await self._fetch("/v3/certificates", self._seconds_max, ANSWER_BYTES_MAX)
        if status != 200:
            raise TryAgain(f"wechat pay: status {status} of certificates")
        try:
            found = [self._certificate(item) for item in orjson.loads(raw)["data"]]
        except (Refused, ValueError, KeyError, TypeError):
            raise TryAgain("wechat pay: certificates that are none") from None
        try:
            signing.check(PlatformKeys(found), headers, raw, self._clock())
        except Refused as refused:
            raise TryAgain(f"wechat pay: certificates not believed: {refused}") from None
        self._keys.add(found)  # each is believed in its own time only

    def _certificate(self, item: Any) -> PlatformKey:
        return signing.of_certificate(
            signing.decrypted(self._merchant.api_v3_key, item["encrypt_certificate"])
        )

    async def _move(self, path: str, body: dict[str, object]) -> Any:
        """What may have been done even where nothing came back."""
        return await self._exchange("POST", path, orjson.dumps(body), OutcomeUnknown)

    async def _ask(self, target: str) -> Any:
        """What changes nothing."""
        return await self._exchange("GET", target, b"", TryAgain)

    async def _fetch(self, target: str, seconds_max: float, bytes_max: int) -> tuple[int, Any, bytes]:
        """Not looked at yet."""
        try:
            return await self._send("GET", target, b"", seconds_max, bytes_max)
        except OutcomeUnknown as error:
            raise TryAgain(str(error)) from None

    async def _exchange(
        self, method: str, target: str, body: bytes, unknown: type[TryAgain] | type[OutcomeUnknown]
    ) -> Any:
        """Their answer, parsed; None where it has no body. `unknown` is raised where nobody can tell."""
        try:
            status, headers, raw = await self._send(method, target, body, self._seconds_max, ANSWER_BYTES_MAX)
        except OutcomeUnknown as error:
            raise unknown(str(error)) from None
        try:
            signing.check(self._keys, headers, raw, self._clock())
        except Refused as refused:
            raise unknown(f"wechat pay: status {status}, not believed: {refused}") from None
        if status == 204:
            return None
        try:
            answer = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise unknown(f"wechat pay: status {status}, no JSON") from None
        if status == 200:
            return answer
        raise _failure(status, code_of(answer), _seconds(headers.get("Retry-After")), unknown)

    async def _send(
        self, method: str, target: str, body: bytes, seconds_max: float, bytes_max: int
    ) -> tuple[int, Any, bytes]:
        """Raises TryAgain where the request cannot have got there, else OutcomeUnknown."""
        signature = signing.authorization(
            self._merchant, method, target, int(self._clock()), secrets.token_hex(16), body
        )
        headers = {
            "Authorization": signature,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "xinglin",  # without one they do not answer
        }
        if body:
            headers["Content-Type"] = "application/json"
        if self._keys.asked_for is not None:
            headers[signing.SERIAL] = self._keys.asked_for
        # `from None`, and no words of theirs: what fails ends in logs.
        try:
            async with self._session.request(
                method,
                URL(f"{self._address}{target}", encoded=True),  # as it was signed
                data=body or None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=seconds_max),
                allow_redirects=False,
            ) as response:
                return response.status, response.headers, await _whole(response, bytes_max)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TryAgain(f"wechat pay: {type(error).__name__}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OutcomeUnknown(f"wechat pay: {type(error).__name__}") from None


def _failure(
    status: int, code: str, after: float | None, unknown: type[TryAgain] | type[OutcomeUnknown]
) -> ConnectorFailed:
    if status == 429 or code in _NOT_NOW or (status == 401 and unknown is TryAgain):
        return TryAgain(f"wechat pay: {code or status}", after)
    if (400 <= status < 500 and status != 408 and code) or code in _FINAL_THOUGH_5XX:
        return Refused(code, "wechat pay")
    # 5xx: "ask again with the same number", they say; it may have been done. 202 and the like: not settled.
    return unknown(f"wechat pay: status {status} {code}")


def _believed(read: Callable[[], T]) -> T:
    """Of an answer to what moves."""
    try:
        return read()
    except Unbelievable as error:
        raise OutcomeUnknown(f"wechat pay: an answer without {error}") from None


async def _whole(response: aiohttp.ClientResponse, limit: int) -> bytes:
    pieces, have = [], 0
    async for piece in response.content.iter_chunked(1 << 16):
        have += len(piece)
        if have > limit:
            raise OutcomeUnknown("wechat pay: an answer that is too large")
        pieces.append(piece)
    return b"".join(pieces)


def _unzipped(raw: bytes) -> bytes:
    """They hash what is inside. Small files may come as they are."""
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    unzip = zlib.decompressobj(wbits=31)
    try:
        content = unzip.decompress(raw, BILL_BYTES_MAX)
    except zlib.error:
        raise TryAgain("wechat pay: a bill that does not unzip") from None
    if not unzip.eof:
        raise TryAgain("wechat pay: a bill that is too large, or cut off")
    return content


def _url(text: object) -> URL | None:
    try:
        return URL(text, encoded=True) if isinstance(text, str) else None
    except ValueError:
        return None


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), AFTER_SECONDS_MAX)
