"""What a gateway knows of sessions, so that a request needs no query: which have been revoked, and when those
of the staff were last seen.

A revocation comes as a notification with its commit. Notifications are lost with their connection, and a
connection can be dead without saying so; therefore the table is read after each new connection, and its
newest rows several times a second besides. Both are one look-up in an index.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import asyncpg

from engine.database import AWAY, connect
from engine.records import sessions as records

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.5
POLL_BACK: Final = timedelta(seconds=30)  # machines' clocks differ, and transactions take their time
NOTE_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 15.0  # between two looks at the staff's live connections: who rests too long
PRUNE_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 0.2


class Connections(Protocol):
    """Live connections, each of a session (web/stream.py)."""

    def end_session(self, session: bytes) -> None:
        """Closes those of this session."""

    def staff_sessions(self) -> Iterable[bytes]:
        """Whose connections are open."""


class Following:
    """Of one gateway. `revoked` and `seen` are what web/auth.py is given."""

    def __init__(self, connections: Connections, clock: Callable[[], float] = time.time) -> None:
        self._connections = connections
        self._clock = clock
        self.revoked: dict[bytes, int] = {}
        """Session -> when the last thing that it gave out ends by itself, in seconds since 1970."""
        self.seen: dict[bytes, float] = {}
        """Sessions of the staff that were used since this was last written down; seconds since 1970."""
        self.is_listening = asyncio.Event()

    def hear(self, session: bytes, lives_until: int) -> None:
        """It was revoked."""
        if session not in self.revoked:
            self.revoked[session] = lives_until
            self._connections.end_session(session)

    async def read(self, pool: asyncpg.Pool) -> None:
        """All that matters still."""
        for session, lives_until in (await records.revoked_alive(pool, self._now())).items():
            self.hear(session, lives_until)

    async def look(self, pool: asyncpg.Pool) -> None:
        """What was revoked lately, in case nobody told."""
        for session, lives_until in (await records.revoked_since(pool, self._now() - POLL_BACK)).items():
            self.hear(session, lives_until)

    async def note(self, pool: asyncpg.Pool) -> None:
        """Writes down who was seen. What fails is kept for the next time."""
        seen = dict(self.seen)
        if not seen:
            return
        await records.note_seen(
            pool, {session: datetime.fromtimestamp(at, UTC) for session, at in seen.items()}
        )
        for session, at in seen.items():
            if self.seen.get(session) == at:
                del self.seen[session]

    async def watch(self, pool: asyncpg.Pool) -> None:
        """Closes live connections of the staff whose session has ended by itself: it rested, or is over."""
        open_ = list(dict.fromkeys(self._connections.staff_sessions()))
        if open_:
            await self.note(pool)  # what is seen here counts
            for session in await records.over_of(pool, open_, self._now()):
                self._connections.end_session(session)

    async def prune(self) -> None:
        now = self._clock()
        for session in [session for session, until in self.revoked.items() if until < now]:
            del self.revoked[session]

    async def run(self, database_url: str, pool: asyncpg.Pool) -> None:
        """For as long as it is awaited."""
        await asyncio.gather(
            self._listen(database_url, pool),
            _again(POLL_SECONDS, lambda: self.look(pool)),
            _again(NOTE_SECONDS, lambda: self.note(pool)),
            _again(WATCH_SECONDS, lambda: self.watch(pool)),
            _again(PRUNE_SECONDS, self.prune),
        )

    async def _listen(self, database_url: str, pool: asyncpg.Pool) -> None:
        while True:
            try:
                connection = await connect(database_url)
                try:
                    await self._until_lost(connection, pool)
                finally:
                    connection.terminate()
            except AWAY as error:
                log.warning("not listening for revoked sessions: %s", type(error).__name__)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _until_lost(self, connection: asyncpg.Connection, pool: asyncpg.Pool) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda *_: lost.set())
        await connection.add_listener("session", self._told)
        await self.read(pool)  # only now: what was revoked before, nobody will tell
        if not connection.is_closed():
            self.is_listening.set()
            await lost.wait()
        self.is_listening.clear()

    def _told(self, connection: Any, process: int, channel: str, told: object) -> None:
        session, _, lives_until = str(told).partition(" ")
        self.hear(bytes.fromhex(session), int(lives_until))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


async def _again(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except AWAY:
            pass  # /readyz says so already; the next time does it
        except Exception:
            log.exception("following sessions failed")
