"""What the hospital's own people do to the days of a bench: call sessions off, pause them, set the rules."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from benchmarks.asking import Asking
from engine.records.policies import store_policy
from engine.records.staff import NewStaff, Role, add_staff
from web.auth import Tokens
from web.passwords import hash_of

TOKEN_SECONDS = 2 * 3600
STALE_TRIES = 5


@dataclass(slots=True)
class Desk:
    """One member of staff, whose requests are asked again until they are known to be done."""

    asking: Asking
    token: str
    _asked: int = 0

    async def set_status(self, schedule: str, status: str) -> bool:
        return await self._change("set status", schedule, "status", {"period": "morning", "status": status})

    async def suspend(self, schedule: str) -> bool:
        body = {"period": "morning", "reason": "doctor_ill", "note": "bench"}
        return await self._change("suspend", schedule, "suspend", body)

    async def _change(self, kind: str, schedule: str, what: str, body: dict[str, str]) -> bool:
        path = f"/api/v1/desk/schedules/{schedule}"
        for _ in range(STALE_TRIES):
            seen = await self.asking.ask("day sheet", self.token, "GET", path)
            if seen.status != 200:
                return False
            asked = {**body, "revision": seen.body["revision"]}
            self._asked += 1
            said = await self.asking.ask(
                kind, self.token, "POST", f"{path}/{what}", asked, f"desk-{self._asked}"
            )
            if said.code != "stale_revision":
                return said.status == 200
        return False


async def staff_token(connection: asyncpg.Connection, secret: bytes) -> str:
    """Of a new manager: sign-in is not what is measured."""
    new = NewStaff("bench", "Bench", hash_of(secrets.token_urlsafe()), (Role.MANAGER,))
    staff = await add_staff(connection, new, secrets.token_bytes(16), datetime.now(UTC))
    return Tokens(secret, TOKEN_SECONDS, TOKEN_SECONDS).issue_staff(staff).access_token


async def put_in_force(connection: asyncpg.Connection, policy: str) -> None:
    async with connection.transaction():
        await store_policy(connection, policy, "bench")
