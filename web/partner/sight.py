"""Which partner asks, and whether it may: what a route for other systems begins with.

A route whose line of the matrix of rights is `{system: lis.write}` lets in partners with that scope alone;
its handler may name the keyword `partner`. Elsewhere, `await partner_of(request, "lis.write")` says the same.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import asyncpg
from aiohttp import web

from engine.records import partners as records
from engine.records.partners import Partner as Partner
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.partner.tokens import PartnerTokens

LOOK_AGAIN_SECONDS: Final = 5.0
"""How long a gateway may take to notice that a partner was disabled, or may less."""
PARTNERS_MAX: Final = 1_024  # remembered; there are a few dozen

ITS_PARTNER: "web.RequestKey[Partner]" = web.RequestKey("its_partner")
"""The request's key for it, once it has been looked at."""


@dataclass(slots=True)
class _Seen:
    partner: Partner | None
    at: float
    full_at: float = 0.0


class Partners:
    """Of one gateway: who they are, kept for a few seconds, and how often each may ask."""

    def __init__(
        self,
        tokens: PartnerTokens,
        pool: asyncpg.Pool,
        per_second: float = 0.0,
        burst: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`per_second` 0: no limit."""
        self.tokens = tokens
        self._pool = pool
        self._clock = clock
        self._each = 1 / per_second if per_second > 0 else 0.0
        self._ahead_max = self._each * (burst - 1)
        self._seen: dict[bytes, _Seen] = {}

    async def of_header(self, authorization: str | None) -> Partner:
        """With the scopes that its token has and that it still has itself. Raises Problem."""
        partner_id, scopes = self.tokens.of_header(authorization)
        seen = self._seen.get(partner_id)
        now = self._clock()
        if seen is None or now - seen.at >= LOOK_AGAIN_SECONDS:
            found = await records.partner(self._pool, partner_id)
            if seen is None:
                if len(self._seen) >= PARTNERS_MAX:
                    del self._seen[next(iter(self._seen))]
                seen = self._seen[partner_id] = _Seen(found, now)
            seen.partner, seen.at = found, now
        partner = seen.partner
        if partner is None or not partner.is_live(datetime.now(UTC)):
            raise Problem(Fault.UNAUTHENTICATED)
        self._count(seen)
        return replace(partner, scopes=partner.scopes & scopes)

    def _count(self, seen: _Seen) -> None:
        """A bucket is kept as the moment at which it is full again, as in web/rate_limits.py."""
        if not self._each:
            return
        now = self._clock()
        wait = seen.full_at - now - self._ahead_max
        if wait > 0:
            raise Problem(Fault.TOO_MANY_REQUESTS, retry_after=max(1, math.ceil(wait)))
        seen.full_at = max(seen.full_at, now) + self._each


async def partner_of(request: web.Request, scope: str) -> Partner:
    """Which partner sent this. Raises Problem unauthenticated, token_expired, too_many_requests, or
    scope_missing where it may not do this."""
    known = request.get(ITS_PARTNER)
    if known is None:
        if keys.PARTNERS not in request.app:
            raise Problem(Fault.UNAUTHENTICATED)
        known = await request.app[keys.PARTNERS].of_header(request.headers.get("Authorization"))
        request[ITS_PARTNER] = known
    if scope not in known.scopes:
        raise Problem(Fault.SCOPE_MISSING, scope=scope)
    return known
