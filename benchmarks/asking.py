"""A client of the API that wants to know: what is unknown is asked again until it is known."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

AGAIN_SECONDS = 0.05
GIVE_UP_SECONDS = 60.0
ASK_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Said:
    """The answer of one request, as its client lived it. Times are of this process's monotonic clock."""

    kind: str
    asked: float
    done: float
    status: int  # 0: nobody ever answered
    body: Any
    attempts: int
    doubts: int
    """Answers that left it open: 5xx, or silence."""
    about: str = ""
    """The actor that was asked, where the client knows."""

    @property
    def is_known(self) -> bool:
        return 0 < self.status < 500

    @property
    def code(self) -> str:
        """Of a refusal."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


@dataclass(slots=True)
class Asking:
    session: aiohttp.ClientSession
    address: str
    said: list[Said] = field(default_factory=list)
    under_way: Counter[str] = field(default_factory=Counter)
    """Requests by kind that have been sent and not answered for good."""

    async def ask(
        self,
        kind: str,
        token: str,
        method: str,
        path: str,
        body: object = None,
        key: str | None = None,
        patience: float = GIVE_UP_SECONDS,
        about: str = "",
    ) -> Said:
        """`patience` 0: asks once, and walks away whatever the answer is."""
        headers = {"Authorization": f"Bearer {token}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        asked = time.monotonic()
        attempts = doubts = 0
        self.under_way[kind] += 1
        try:
            while True:
                attempts += 1
                status, answer, pause = await self._once(method, path, body, headers)
                if 0 < status < 500 and status != 429:
                    break
                doubts += status != 429
                if time.monotonic() - asked >= patience:
                    break
                await asyncio.sleep(pause or AGAIN_SECONDS * random.uniform(1, 3))
        finally:
            self.under_way[kind] -= 1
        said = Said(kind, asked, time.monotonic(), status, answer, attempts, doubts, about)
        self.said.append(said)
        return said

    async def _once(
        self, method: str, path: str, body: object, headers: dict[str, str]
    ) -> tuple[int, Any, float]:
        """Status, body, and for how many seconds a gateway that has had too much, of everybody or of this
        account, wants to be left alone: it has done nothing."""
        try:
            async with self.session.request(
                method, self.address + path, json=body, headers=headers
            ) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0, None, 0.0  # silence, or half an answer
        code = answer.get("code") if isinstance(answer, dict) else None
        is_busy = code in ("busy", "too_many_requests")
        return response.status, answer, float(response.headers.get("Retry-After", 0)) if is_busy else 0.0


def client() -> aiohttp.ClientSession:
    """As many connections as there are requests under way."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=ASK_SECONDS_MAX)
    )
