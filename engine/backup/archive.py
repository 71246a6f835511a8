"""Keeps the second place up to date while the hospital works: WAL within a second or two, a base backup each
night.

Runs in a process of its own (`xinglin backup keep`, a niced child of `serve`): no booking ever waits for
it. What goes on, twice a second:

    server ──pg_receivewal──► spool (a folder of the home) ──pieces and whole segments, encrypted──► place

A replication slot makes the server keep what was not fetched yet, up to `max_slot_wal_keep_size`; the spool
is bounded, too. When the place is away for longer than both can bear, the slot is lost, the history is
broken, and as soon as the place is there again a new chain begins with a new base backup. So a backup that
fails costs disk space up to a known bound, and bookings never.

What is acknowledged but not yet in the place is lost if the disk is lost with it: SHIP_SECONDS and what one
write to the place takes.
"""

import asyncio
import contextlib
import logging
import shutil
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg
import orjson

from engine import database
from engine.backup import chains, layout, programs
from engine.backup.base import take_base
from engine.backup.encrypted import seal
from engine.backup.failed import BackupFailed
from engine.backup.key_file import Keys
from engine.backup.layout import Chain, Head
from engine.backup.places import Place
from engine.backup.programs import Server
from engine.database import AWAY
from engine.embedded_postgres import PostgresFailed

log = logging.getLogger(__name__)

SHIP_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 5.0
BASE_RETRY_SECONDS: Final = 60.0
HEAD_SECONDS: Final = 10.0
LAST_SECONDS: Final = 0.05  # between looks, while what was written before the end is still under way
STATUS_SECONDS: Final = 5.0  # at most so often, and only when there is news
BEAT_SECONDS: Final = 60.0  # at least so often, so that a dead archiver is noticed
COMPLAIN_SECONDS: Final = 60.0
SPOOL_BYTES_MAX: Final = 2 * 1024**3
FREE_BYTES_MIN: Final = 512 * 1024**2  # of the home's disk; with less, bookings come first
GAPS_MAX: Final = 20  # looks at the spool, one after the other
MARKS_MAX: Final = 10_000
PIECES_MAX: Final = 64  # of one segment, then they are written as one
STOP_SECONDS_MAX: Final = 10.0
_NOTE: Final = "chain.json"
_PAGE_BYTES: Final = 8192

_LOOK: Final = """
select clock_timestamp() as now, pg_current_wal_flush_lsn()::text as flushed,
       (select r.write_lsn::text from pg_stat_replication r where r.pid = s.active_pid) as received,
       s.wal_status
  from (select 1) as one left join pg_replication_slots s on s.slot_name = $1"""
_SAY: Final = """
insert into backup_status (id, beat_at, archived_until, waiting_since, base_at, failing)
values (true, clock_timestamp(), $1, $2, $3, $4)
on conflict (id) do update set beat_at = excluded.beat_at, archived_until = excluded.archived_until,
    waiting_since = excluded.waiting_since, base_at = excluded.base_at, failing = excluded.failing"""
_AWAY: Final = (PostgresFailed, *AWAY)


class _Broken(Exception):
    """The history has a gap: a new chain must begin."""


@dataclass(frozen=True, slots=True)
class Plan:
    keep: int  # base backups
    hour: int  # of the hospital's clock, at which the nightly base backup begins
    ship_seconds: float = SHIP_SECONDS
    head_seconds: float = HEAD_SECONDS


@dataclass(slots=True)
class Status:
    archived_until: datetime | None = None  # all commits up to this moment are in the place
    waiting_since: datetime | None = None  # moment of the oldest commit that is not; None: nothing waits
    base_at: datetime | None = None


def is_due(last: datetime | None, now: datetime, hour: int, zone: ZoneInfo) -> bool:
    """Whether a base backup is due: none yet, or the hour has struck since the last one."""
    if last is None:
        return True
    here = now.astimezone(zone)
    struck = here.replace(hour=hour, minute=0, second=0, microsecond=0)
    if struck > here:
        struck -= timedelta(days=1)
    return last < struck


class Archiver:
    def __init__(
        self,
        url: Callable[[], str | None],
        place: Place,
        keys: Keys,
        home: Path,
        plan: Plan,
        now: Callable[[], datetime],
    ) -> None:
        """`url`: of the server, None while there is none. `home`: its folder `backup` becomes ours."""
        self.status = Status()
        self.archived_lsn = 0  # all WAL before this position is in the place
        self._url = url
        self._place = place
        self._keys = keys
        self._spool = home / "backup" / "wal"
        self._home = home
        self._note = home / "backup" / _NOTE  # which chain the spool and the slot are of
        self._plan = plan
        self._now = now
        self._chain: Chain | None = None
        self._receiver: asyncio.subprocess.Process | None = None
        self._base: asyncio.Task[None] | None = None
        self._base_again = float("-inf")  # not before this, after one that failed
        # Of the segment that is being written: its name, how far it has been shipped, in how many pieces.
        self._segment = ""
        self._shipped = 0
        self._pieces: list[int] = []
        self._marks: deque[tuple[int, datetime]] = deque()  # WAL positions and when they were the last
        self._next: int | None = None  # number of the segment that must come next in the spool
        self._gaps = 0
        self._failures: dict[str, str] = {}
        self._complained: dict[str, float] = {}
        self._head_lsn = 0
        self._headed = self._said = float("-inf")
        self._said_what: tuple[object, ...] = ()

    @property
    def failing(self) -> str:
        """Why, in one line; '': all is well."""
        return next(iter(self._failures.values()), "")

    async def run(self, stopping: asyncio.Event) -> None:
        """Until it is told to stop; then what is there is shipped once more."""
        self._note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._spool.mkdir(mode=0o700, exist_ok=True)
        while not stopping.is_set():
            try:
                await self._session(stopping)
            except _Broken as broken:
                log.error("BACKUP BROKEN, a new chain begins: %s", broken)
                self._note.unlink(missing_ok=True)
            except (BackupFailed, *_AWAY) as error:
                self._fail("server", _line(error))
                await self._ship_what_is_there()
                await _wait(stopping, RETRY_SECONDS)

    async def _session(self, stopping: asyncio.Event) -> None:
        url = self._url()
        if url is None:
            raise database.DatabaseAway("the database is not there")
        server = Server.of(url)
        connection = await database.connect(url)
        try:
            zone = ZoneInfo(await connection.fetchval("select timezone from hospital") or "Asia/Shanghai")
            slot = await _slot_name(connection)
            self._chain = chain = await self._join(connection, slot)
            while not stopping.is_set():
                await self._receive(server, slot)
                await self._tick(connection, slot)
                self._care_for_base(server, chain, zone)
                self._failures.pop("server", None)
                await self._say(connection)
                await _wait(stopping, self._plan.ship_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await self._tick(connection, slot, last=True)
                    while self._marks:
                        await asyncio.sleep(LAST_SECONDS)
                        await self._tick(connection, slot, last=True)
        finally:
            if self._base is not None:
                self._base.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._base
                self._base = None
            if self._receiver is not None:
                await programs.stop(self._receiver)
                self._receiver = None
            await _close(connection)

    async def _join(self, connection: asyncpg.Connection, slot: str) -> Chain:
        """The chain that goes on, or a new one where it cannot."""
        limit = await connection.fetchval("select current_setting('max_slot_wal_keep_size')")
        if limit == "-1":
            raise BackupFailed(
                "the server would keep WAL without end when a backup fails: set max_slot_wal_keep_size there,"
                " 16GB say"
            )
        fresh = await chains.describe(connection, self._now())
        status = await connection.fetchrow(
            "select wal_status from pg_replication_slots where slot_name = $1", slot
        )
        going = noted(self._home, self._place)
        if going is not None and status is not None and status["wal_status"] != "lost":
            chain = await chains.known(self._place, self._keys, going)
            if chain is not None and (chain.system, chain.major) == (fresh.system, fresh.major):
                bases = [held for held in await chains.held(self._place, self._keys) if held.id == chain.id]
                self.status.base_at = max((b.ended for held in bases for b in held.bases), default=None)
                return chain
        await connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1", slot
        )
        for file in self._spool.iterdir():
            file.unlink()
        if shutil.disk_usage(self._spool).free < FREE_BYTES_MIN:
            raise BackupFailed(f"the disk of {self._home} is nearly full: nothing is kept there for backups")
        await chains.begin(self._place, self._keys, fresh)
        await connection.execute("select pg_create_physical_replication_slot($1, true)", slot)
        self._note.write_bytes(orjson.dumps({"chain": fresh.id, "place": self._place.address}))
        self._segment, self._next, self.status.base_at = "", None, None
        self.archived_lsn = 0
        self._marks.clear()
        self._base_again = float("-inf")
        log.warning("a new chain of backups begins in %s: %s", self._place.address, fresh.id)
        return fresh

    async def _receive(self, server: Server, slot: str) -> None:
        """Keeps pg_receivewal alive while the spool has room."""
        if self._receiver is not None and self._receiver.returncode is not None:
            assert self._receiver.stderr is not None
            said = programs.why((await self._receiver.stderr.read()).decode(errors="replace"))
            self._receiver = None
            raise BackupFailed(f"WAL cannot be fetched: {said}")
        if shutil.disk_usage(self._spool).free < FREE_BYTES_MIN:
            raise _Broken("the disk of the home is nearly full")
        used = sum(file.stat().st_size for file in self._spool.iterdir())
        if used > SPOOL_BYTES_MAX:
            if self._receiver is not None:
                await programs.stop(self._receiver)
                self._receiver = None
        elif self._receiver is None:
            self._receiver = await programs.start(
                "pg_receivewal",
                *("--directory", str(self._spool), "--slot", slot, "--status-interval=1", "--no-loop"),
                server=server,
            )

    async def _tick(self, connection: asyncpg.Connection, slot: str, last: bool = False) -> None:
        """One look at the server, and everything that has come is shipped."""
        row = await connection.fetchrow(_LOOK, slot)
        if row["wal_status"] in (None, "lost"):
            raise _Broken("the server no longer keeps the WAL that was not fetched yet")
        flushed = layout.lsn_of(row["flushed"])
        if not self._marks or flushed > self._marks[-1][0]:
            self._marks.append((flushed, row["now"]))
            if len(self._marks) > MARKS_MAX:  # the place is away for long: the newest two become one
                lsn, _ = self._marks.pop()
                self._marks[-1] = (lsn, self._marks[-1][1])
        try:
            in_place, writing = await self._ship()
            shipped = in_place
            received = layout.lsn_of(row["received"]) if row["received"] else 0
            if writing is not None and writing <= received <= writing + self._chain_size:
                # It told so before we read the file: what it has is shipped, also where it ends with zeros.
                shipped = max(shipped, received)
            self._reached(shipped)
            await self._tell_head(in_place, last)
            self._failures.pop("wal", None)
        except BackupFailed as failed:
            self._fail("wal", str(failed))
        self.status.waiting_since = self._marks[0][1] if self._marks else None

    def _reached(self, lsn: int) -> None:
        self.archived_lsn = max(self.archived_lsn, lsn)
        while self._marks and self._marks[0][0] <= self.archived_lsn:
            self.status.archived_until = self._marks.popleft()[1]

    @property
    def _chain_size(self) -> int:
        assert self._chain is not None
        return self._chain.segment_bytes

    async def _ship(self) -> tuple[int, int | None]:
        """Everything in the spool into the place. Gives the WAL position up to which it is there, and where
        the segment begins that is being written, if that was read."""
        assert self._chain is not None
        chain, size = self._chain, self._chain.segment_bytes
        at, writing = 0, None
        for file in sorted(self._spool.iterdir()):
            if file.name.endswith(".history"):
                raise _Broken("the server has a new timeline: it was restored, or a standby took over")
            segment, _, rest = file.name.partition(".")
            if len(segment) != 24 or rest not in ("", "partial"):
                continue
            number = layout.segment_number(segment, size)
            if self._next is not None and number != self._next:
                self._gaps += 1
                if self._gaps > GAPS_MAX:
                    raise _Broken(f"WAL in {self._spool} has a gap before {segment}")
                return at, None  # a listing may miss a file that is being renamed: the next one has it
            self._gaps = 0
            begin = number * size
            try:
                if rest:
                    at, writing = begin + await self._ship_piece(chain, segment, file), begin
                else:
                    content = await asyncio.to_thread(file.read_bytes)
                    await self._put(layout.wal_name(chain.id, segment), content)
                    await self._drop_pieces(chain, segment, keep_first=False)
                    file.unlink()
                    self._next = number + 1
                    at, writing = begin + size, None
            except FileNotFoundError:  # it has just been renamed, for it is a whole one now: the next time
                return begin, None
        return at, writing

    async def _ship_piece(self, chain: Chain, segment: str, file: Path) -> int:
        """What is new in the segment that is being written. The zeros that pad it are not shipped."""
        if segment != self._segment:
            self._segment, self._shipped, self._pieces = segment, 0, []
        start = self._shipped // _PAGE_BYTES * _PAGE_BYTES
        if len(self._pieces) >= PIECES_MAX:
            start = 0
        content = (await asyncio.to_thread(_read_from, file, start)).rstrip(b"\0")
        if start + len(content) > self._shipped:
            await self._put(layout.wal_name(chain.id, segment, start), content)
            self._shipped = start + len(content)
            if start == 0 and self._pieces:
                await self._drop_pieces(chain, segment, keep_first=True)
                self._pieces = []
            self._pieces.append(start)
        return self._shipped

    async def _drop_pieces(self, chain: Chain, segment: str, keep_first: bool) -> None:
        """Once something larger holds what was in them. Asks the place: an earlier run may have left some."""
        for wal in layout.wal_of(await self._place.names(chain.id)):
            if wal.segment == segment and wal.offset is not None and not (keep_first and wal.offset == 0):
                await self._place.delete(wal.name)

    async def _put(self, name: str, content: bytes) -> None:
        packed = await asyncio.to_thread(lambda: seal(self._keys.current, name, zlib.compress(content, 1)))
        await self._place.put(name, packed)

    async def _tell_head(self, lsn: int, last: bool) -> None:
        clock = asyncio.get_running_loop().time()
        if self._chain is None or self.status.archived_until is None:
            return
        if lsn == self._head_lsn or (clock < self._headed + self._plan.head_seconds and not last):
            return
        name = f"{self._chain.id}/{layout.HEAD}"
        content = layout.packed(Head(lsn, self.status.archived_until.isoformat()))
        await self._place.put(name, seal(self._keys.current, name, content))
        self._headed, self._head_lsn = clock, lsn

    def _care_for_base(self, server: Server, chain: Chain, zone: ZoneInfo) -> None:
        if self._base is not None and self._base.done():
            self._base = None
        clock = asyncio.get_running_loop().time()
        if self._base is not None or clock < self._base_again:
            return
        if is_due(self.status.base_at, self._now(), self._plan.hour, zone):
            self._base = asyncio.create_task(self._take_base(server, chain))
        elif "old" in self._failures:
            self._base = asyncio.create_task(self._drop_old(chain))

    async def _take_base(self, server: Server, chain: Chain) -> None:
        first = self.status.base_at is None
        try:
            base = await take_base(server, self._place, self._keys, chain, self._now, fast=first)
            self.status.base_at = base.ended
            log.warning("base backup %s/%s: %d MiB", base.chain, base.name, base.sealed_bytes >> 20)
            self._failures.pop("base", None)
        except (BackupFailed, PostgresFailed, OSError) as error:
            self._base_again = asyncio.get_running_loop().time() + BASE_RETRY_SECONDS
            self._fail("base", f"the base backup did not succeed: {_line(error)}")
            return
        await self._drop_old(chain)

    async def _drop_old(self, chain: Chain) -> None:
        try:
            held = await chains.held(self._place, self._keys)
            for name in chains.outlived(held, self._plan.keep, chain.id):
                await self._place.delete(name)
            self._failures.pop("old", None)
        except BackupFailed as error:
            self._base_again = asyncio.get_running_loop().time() + RETRY_SECONDS
            self._fail("old", f"what is old could not be deleted: {error}")

    async def _ship_what_is_there(self) -> None:
        """Without the server: what it wrote last is safe all the same."""
        if self._chain is not None:
            with contextlib.suppress(BackupFailed, _Broken, OSError):
                await self._ship()

    def _fail(self, what: str, why: str) -> None:
        """`what` it is that fails; said aloud, and said again each minute that it goes on."""
        self._failures[what] = why
        clock = asyncio.get_running_loop().time()
        if clock >= self._complained.get(what, float("-inf")) + COMPLAIN_SECONDS:
            self._complained[what] = clock
            log.error("BACKUP FAILS: %s", why)

    async def _say(self, connection: asyncpg.Connection) -> None:
        """Into the table that gateways show as metrics; seldom, for each time is a commit, too."""
        clock = asyncio.get_running_loop().time()
        status = self.status
        news = (status.waiting_since is not None, status.base_at, self.failing)
        pause = BEAT_SECONDS if news == self._said_what and not news[0] else STATUS_SECONDS
        if clock >= self._said + pause:
            self._said, self._said_what = clock, news
            await connection.execute(
                _SAY, status.archived_until, status.waiting_since, status.base_at, self.failing
            )


async def _slot_name(connection: asyncpg.Connection) -> str:
    oid = await connection.fetchval("select oid::int8 from pg_database where datname = current_database()")
    return f"xinglin_backup_{oid}"


def _read_from(file: Path, start: int) -> bytes:
    with file.open("rb") as content:
        content.seek(start)
        return content.read()


def noted(home: Path, place: Place) -> str | None:
    """The chain that this home is archived into, if it is this place's."""
    try:
        note = orjson.loads((home / "backup" / _NOTE).read_bytes())
        return str(note["chain"]) if note["place"] == place.address else None
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError):
        return None


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()


async def _close(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(*AWAY):
        await connection.close(timeout=2)
