"""What WeChat Pay tells us by itself: a payment was made, a refund was done, or was not.

    async def notified(request):                      # both notify_urls lead here; nothing else signs it
        try:
            notice = await callbacks.read(request.headers, await request.read())
        except ConnectorFailed as failed:
            status, body = answer_of(failed)      # 4xx, and 503 where we could not look
        else:
            await book(notice)                    # idempotent: they repeat themselves, 15 times in a day
            status, body = answer_of(None)        # only now: what is answered with 2xx never comes again

A repetition of theirs carries a new time, nonce and signature, and is read again. The very same bytes a
second time are somebody's who plays them back, and refused; where booking failed, `callbacks.forget(notice)`
lets them in again. Probes with wrong signatures (WECHATPAY/SIGNTEST/…) are refused as any wrong signature is.
The amount is compared with the bill by whoever books it: Transaction.total_fen and currency.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from integrations.connector import ConnectorFailed, Refused, TryAgain
from integrations.wechat_pay import signing
from integrations.wechat_pay.signing import Merchant, PlatformKeys
from integrations.wechat_pay.translate import (
    PaymentState,
    Refund,
    RefundState,
    Transaction,
    Unbelievable,
    refund_of_callback,
    transaction_of,
)

BODY_BYTES_MAX: Final = 64 * 1024
KEPT_SECONDS: Final = 2 * signing.WINDOW_SECONDS
"""One from five minutes ahead is good until five minutes after that."""
KEPT_MAX: Final = 100_000

_NOT_THEIRS: Final = ("headers_missing", "wrong_time", "unknown_key", "key_expired", "wrong_signature")
_REFUND_EVENTS: Final = {
    "REFUND.SUCCESS": RefundState.SUCCESS,
    "REFUND.CLOSED": RefundState.CLOSED,
    "REFUND.ABNORMAL": RefundState.ABNORMAL,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """`id` is the same in every repetition of theirs; `key` is of this one message alone."""

    id: str
    key: str
    about: Transaction | Refund


class Replays(Protocol):
    """Which messages were read already; one for all gateways. Raises TryAgain where it cannot tell."""

    async def is_first(self, key: str, seconds: int) -> bool:
        """Whether it was not there, and keeps it for so long: one step, for two gateways may ask at once."""

    async def forget(self, key: str) -> None: ...


class MemoryReplays:
    """For one process. Only what is signed gets in, so nobody else can fill it."""

    def __init__(self, clock: Callable[[], float], kept_max: int = KEPT_MAX) -> None:
        self._clock = clock
        self._kept_max = kept_max
        self._until: dict[str, float] = {}

    async def is_first(self, key: str, seconds: int) -> bool:
        now = self._clock()
        if self._until.get(key, now) > now:
            return False
        if len(self._until) >= self._kept_max:
            self._until = {kept: until for kept, until in self._until.items() if until > now}
        if len(self._until) >= self._kept_max:
            raise TryAgain("wechat pay: too many callbacks at once")
        self._until[key] = now + seconds
        return True

    async def forget(self, key: str) -> None:
        self._until.pop(key, None)


class Callbacks:
    def __init__(
        self, merchant: Merchant, keys: PlatformKeys, replays: Replays, clock: Callable[[], float]
    ) -> None:
        self._merchant = merchant
        self._keys = keys
        self._replays = replays
        self._clock = clock

    async def read(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """`body` is the raw one. Raises Refused: one of signing's codes, replayed, too_large, bad_body,
        unknown_event, another_merchant or another_app; TryAgain where the replay store is away."""
        if len(body) > BODY_BYTES_MAX:
            raise Refused("too_large", "wechat pay: a callback that is too large")
        key = signing.check(self._keys, headers, body, self._clock())
        try:
            notice = self._notice(key, orjson.loads(body))
        except (Unbelievable, orjson.JSONDecodeError) as error:
            raise Refused(
                "bad_body", f"wechat pay: {error if isinstance(error, Unbelievable) else ''}"
            ) from None
        if not await self._replays.is_first(key, KEPT_SECONDS):
            raise Refused("replayed", "wechat pay: the same message again")
        return notice

    async def forget(self, notice: Notice) -> None:
        """Booking it failed: the same message may come again."""
        await self._replays.forget(notice.key)

    def _notice(self, key: str, said: Any) -> Notice:
        if not isinstance(said, dict) or said.get("resource_type") != "encrypt-resource":
            raise Unbelievable("resource_type")
        resource, notice_id, event = said.get("resource"), said.get("id"), said.get("event_type")
        if not (isinstance(resource, dict) and isinstance(notice_id, str) and notice_id):
            raise Unbelievable("resource")
        content = orjson.loads(signing.decrypted(self._merchant.api_v3_key, resource))
        kind = resource.get("original_type")
        if event == "TRANSACTION.SUCCESS" and kind == "transaction":
            paid = transaction_of(content, self._merchant.mch_id, self._merchant.app_id)
            if paid.state is not PaymentState.SUCCESS:
                raise Unbelievable("trade_state")
            return Notice(notice_id, key, paid)
        if event in _REFUND_EVENTS and kind == "refund":
            refund = refund_of_callback(content, self._merchant.mch_id)
            if refund.state is not _REFUND_EVENTS[event]:
                raise Unbelievable("refund_status")
            return Notice(notice_id, key, refund)
        raise Refused("unknown_event", "wechat pay: an event that we do not know")


def answer_of(failed: ConnectorFailed | None) -> tuple[int, bytes]:
    """Status and body (JSON, or nothing) of the answer to a callback. A stranger hears no more than no."""
    if failed is None:
        return 204, b""
    if not isinstance(failed, Refused):
        return 503, b'{"code":"FAIL","message":"try again"}'
    return 401 if failed.code in _NOT_THEIRS else 400, b'{"code":"FAIL","message":"refused"}'
