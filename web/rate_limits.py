"""How often one asker may ask: token buckets by address, device and account.

The limits stop a program that runs wild or a single machine that wants it all; they do not tell scalpers from
patients (docs/CONDUCT.md does). They are generous on purpose: a hospital's whole network, and thousands of
telephones behind one mobile carrier, ask from one address each.

Each gateway counts by itself, so with four gateways an asker has up to four times the rate. Past a limit the
answer is 429 too_many_requests with Retry-After, before anything has been done. Memory is bounded: a bucket
is one number, and the ones that were asked longest ago are forgotten first; who is being refused asks all the
time, and so is not forgotten.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import MultiMapping

from engine.records.staff import Staff
from engine.settings import Settings
from web import keys
from web.client_address import Proxies, networks_of
from web.errors import Problem
from web.faults import Fault

KEYS_MAX: Final = 50_000  # of each kind: about 10 MB when all are full
DEVICE: Final = "X-Device-Id"
DEVICE_CHARS: Final = range(8, 65)
SIGN_IN_PATHS: Final = ("/api/v1/sessions", "/api/v1/partner/token")


@dataclass(frozen=True, slots=True)
class Rate:
    """As many at once as `burst`, and from then on `per_second`. Zero per second: no limit."""

    per_second: float
    burst: int


class Buckets:
    """One bucket a key.

    A bucket is kept as the moment at which it is full again (GCRA): one number says how full it is at any
    time.
    """

    def __init__(
        self, rate: Rate, clock: Callable[[], float] = time.monotonic, keys_max: int = KEYS_MAX
    ) -> None:
        self._clock = clock
        self._keys_max = keys_max
        self._is_on = rate.per_second > 0
        self._each = 1 / rate.per_second if self._is_on else 0.0  # seconds that one costs
        self._ahead_max = self._each * (rate.burst - 1)
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable) -> float:
        """0: there was one, and it is taken. Else none is taken: the seconds until the next one is there."""
        if not self._is_on:
            return 0.0
        now = self._clock()
        full_at = self._full_at.get(key)
        if full_at is None:
            if len(self._full_at) >= self._keys_max:
                self._full_at.popitem(last=False)
            self._full_at[key] = now + self._each
            return 0.0
        self._full_at.move_to_end(key)
        if full_at <= now:
            self._full_at[key] = now + self._each
            return 0.0
        wait = full_at - now - self._ahead_max
        if wait > 0:
            return wait
        self._full_at[key] = full_at + self._each
        return 0.0


class RateLimits:
    """All limits of one gateway. Raises Problem too_many_requests."""

    def __init__(
        self, settings: Settings, proxies: Proxies, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._proxies = proxies

        def buckets(per_second: float, burst: int) -> Buckets:
            return Buckets(Rate(per_second, burst), clock)

        self._addresses = buckets(settings.address_requests_per_second, settings.address_requests_burst)
        self._sign_ins = buckets(settings.address_sign_ins_per_second, settings.address_sign_ins_burst)
        self._devices = buckets(settings.device_requests_per_second, settings.device_requests_burst)
        self._accounts = buckets(settings.account_requests_per_second, settings.account_requests_burst)
        self._staff = buckets(settings.staff_requests_per_second, settings.staff_requests_burst)

    def count_sender(self, peer: str, headers: MultiMapping[str], is_sign_in: bool = False) -> None:
        """By client address, and by device where the app names one."""
        counted_as = self._proxies.client_of(peer, headers.getall(hdrs.X_FORWARDED_FOR, ())).counted_as
        if counted_as is not None:
            _pass(self._addresses.take(counted_as))
            if is_sign_in:
                _pass(self._sign_ins.take(counted_as))
        device = headers.get(DEVICE)
        # Whoever makes up a new one for each request has gained nothing: his address and account count, too.
        if device is not None and len(device) in DEVICE_CHARS:
            _pass(self._devices.take(device))

    def count_account(self, account_id: bytes) -> None:
        _pass(self._accounts.take(account_id))

    def count_staff(self, staff: Staff) -> None:
        _pass(self._staff.take(staff.id))


def limits_of(settings: Settings) -> tuple[Proxies, RateLimits]:
    proxies = Proxies(networks_of(settings.trusted_proxies))
    return proxies, RateLimits(settings, proxies)


@web.middleware
async def limited(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts each request once. What its token is worth, the route itself says later."""
    app = request.app
    limits = app[keys.RATE_LIMITS]
    is_sign_in = request.path in SIGN_IN_PATHS and request.method == hdrs.METH_POST
    limits.count_sender(request.remote or "", request.headers, is_sign_in)
    authorization = request.headers.get(hdrs.AUTHORIZATION)
    if authorization is not None and keys.TOKENS in app:
        try:
            who = app[keys.TOKENS].who_of_header(authorization)
        except Problem:
            pass
        else:
            if isinstance(who, Staff):
                limits.count_staff(who)
            else:
                limits.count_account(who)
    return await handler(request)


def _pass(seconds: float) -> None:
    if seconds > 0:
        raise Problem(Fault.TOO_MANY_REQUESTS, retry_after=max(1, math.ceil(seconds)))
