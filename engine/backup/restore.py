"""The way back: a base backup and the WAL after it become a cluster in a new home.

Never over anything that is there. What comes back is everything that was committed up to the moment that is
told: the last commit in the place, or the last one before `until`. Then the epochs of all shards are
raised, so that a process of the lost system, should it live and reach this database, cannot write to it.
"""

import asyncio
import contextlib
import os
import queue
import re
import shutil
import tarfile
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import RawIOBase
from pathlib import Path
from typing import Any, Final

import asyncpg

from engine import embedded_postgres
from engine.backup import chains, layout, programs
from engine.backup.chains import Held
from engine.backup.encrypted import unseal
from engine.backup.failed import BackupFailed
from engine.backup.key_file import Keys
from engine.backup.layout import Base, Wal
from engine.backup.places import Place
from engine.embedded_postgres import PostgresFailed

RECOVERY_SECONDS_MAX: Final = 3600.0
EPOCHS: Final = 1000
"""By so much they rise: more than a lost system can have raised them after its last archived commit."""
_AHEAD: Final = 4  # files that are fetched while one is unpacked
_WAL_FOLDER: Final = "xinglin-restored-wal"
_LAST: Final = re.compile(r"last completed transaction was at log time (.+)")
_HBA: Final = "local all all trust\n"
_HBA_AFTER: Final = """\
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class Restored:
    base: Base
    until: datetime | None  # of the last transaction that is in it; None: none after the base
    segments: int  # of WAL that were fetched
    archived_until: datetime | None  # what the archive said of itself last


async def restore(place: Place, keys: Keys, home: Path, until: datetime | None = None) -> Restored:
    """A cluster in `home`, stopped, ready for `xinglin serve --home`.

    Raises BackupFailed or PostgresFailed with one line; what it has made in the home until then is removed.
    Call it from the main thread (see engine/embedded_postgres.py).
    """
    held = await chains.held(place, keys)
    chain, base = chains.chosen(held, until)
    _check_major(base)
    existed = home.exists()
    data = embedded_postgres.empty_place(home)
    try:
        await unpack_base(place, keys, base, data)
        await programs.verify(data)
        segments = await _fetch_wal(place, keys, chain, base, until, data)
        ended = await asyncio.to_thread(_prepare, data, base, until)
        return Restored(
            base, await _recover(home, data, base, ended), segments, await _told(place, keys, chain)
        )
    except BaseException:
        _clear(home, data, existed)
        raise


async def _told(place: Place, keys: Keys, chain: Held) -> datetime | None:
    head = await chains.head(place, keys, chain.id)
    return datetime.fromisoformat(head.at) if head is not None else None


def _check_major(base: Base) -> None:
    have = embedded_postgres.major()
    if base.major != have:
        raise BackupFailed(
            f"the backup is of PostgreSQL {base.major}, and this program brings {have}: restore it with a"
            " program that brings the same"
        )


async def unpack_base(place: Place, keys: Keys, base: Base, data: Path) -> None:
    """Fetching, decrypting and unpacking at the same time; some parts ahead, never the whole in memory."""
    parts: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
    failed: list[Exception] = []
    stopped = threading.Event()

    def unpack() -> None:
        try:
            with tarfile.open(fileobj=_Unpacked(iter(parts.get, None)), mode="r|", bufsize=1 << 20) as tar:
                _extract(tar, data)
        except (BackupFailed, OSError, tarfile.TarError, zlib.error) as error:
            failed.append(error)
        finally:
            stopped.set()

    thread = threading.Thread(target=unpack)
    thread.start()
    try:
        names = [base.part(number) for number in range(base.parts)]
        async for name, sealed in _fetched(place, names):
            part = await asyncio.to_thread(unseal, keys, name, sealed)
            await asyncio.to_thread(_offer, parts, part, stopped)
            if failed:
                break
    finally:
        await asyncio.to_thread(_offer, parts, None, stopped)
        await asyncio.to_thread(thread.join)
    if failed:
        raise BackupFailed(f"the base backup {base.name} cannot be unpacked: {failed[0]}")


def _offer(parts: "queue.Queue[bytes | None]", part: bytes | None, stopped: threading.Event) -> None:
    """Waits for room, unless nobody takes any more."""
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            parts.put(part, timeout=0.1)
            return


async def _fetched(place: Place, names: list[str]) -> AsyncIterator[tuple[str, bytes]]:
    """The files in this order, some of them fetched ahead."""
    tasks: list[asyncio.Task[bytes]] = []
    try:
        for at, name in enumerate(names):
            while len(tasks) < min(at + 1 + _AHEAD, len(names)):
                tasks.append(asyncio.create_task(place.get(names[len(tasks)])))
            yield name, await tasks[at]
            tasks[at] = _DONE
    finally:
        for task in tasks:
            if task is not _DONE:
                task.cancel()


_DONE: Any = object()


class _Unpacked(RawIOBase):
    """What a gzipped stream of pieces holds, to be read like a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._gzip = zlib.decompressobj(31)
        self._have = b""
        self._at = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        out = []
        while size > 0:
            if self._at == len(self._have):
                packed = self._gzip.unconsumed_tail or next(self._pieces, b"")
                if not packed:
                    break
                self._have, self._at = self._gzip.decompress(packed, 1 << 20), 0
                continue
            piece = self._have[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            out.append(piece)
        return b"".join(out)


def _extract(tar: tarfile.TarFile, data: Path) -> None:
    """Plain files and folders below `data`, and nothing else: a cluster of ours has no other."""
    owner = embedded_postgres.owner()
    for member in tar:
        target = data / member.name
        if member.name.startswith("/") or ".." in Path(member.name).parts:
            raise BackupFailed(f"it holds a file outside: {member.name}")
        if member.isdir():
            target.mkdir(mode=0o700, exist_ok=True)
        elif member.isreg():
            source = tar.extractfile(member)
            assert source is not None
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
        else:
            raise BackupFailed(
                f"it holds a link, {member.name}: clusters with tablespaces are not for this program"
            )
        if owner is not None:
            os.chown(target, *owner)


async def _fetch_wal(
    place: Place, keys: Keys, chain: Held, base: Base, until: datetime | None, data: Path
) -> int:
    """The segments from the base on, whole or pieced together, into a folder in `data`; how many."""
    folder = data / _WAL_FOLDER
    folder.mkdir(mode=0o700)
    needed = wanted(chain, base, until)
    names = [wal.name for wal in needed]
    pieces: list[tuple[Wal, bytes]] = []
    wal_by_name = {wal.name: wal for wal in needed}
    made = 0
    async for name, sealed in _fetched(place, names):
        wal = wal_by_name[name]
        if pieces and pieces[0][0].segment != wal.segment:
            await asyncio.to_thread(_write_segment, folder, pieces, base.segment_bytes)
            pieces, made = [], made + 1
        pieces.append((wal, await asyncio.to_thread(opened, keys, name, sealed)))
    if pieces:
        await asyncio.to_thread(_write_segment, folder, pieces, base.segment_bytes)
        made += 1
    head = await chains.head(place, keys, chain.id)
    if until is None and head is not None and made:
        _check_reaches(head.lsn, folder, needed[-1], pieces, base)
    return made


def opened(keys: Keys, name: str, sealed: bytes) -> bytes:
    """WAL as the server wrote it."""
    try:
        return zlib.decompress(unseal(keys, name, sealed))
    except zlib.error:
        raise BackupFailed(f"{name} cannot be unpacked") from None


def wanted(chain: Held, base: Base, until: datetime | None) -> list[Wal]:
    """The files of WAL that restoring takes. Raises BackupFailed where one in the middle is missing."""
    size = base.segment_bytes
    first = layout.segment_of(base.start_lsn, base.timeline, size)
    files = [wal for wal in chain.wal if wal.segment >= first]
    if until is not None:
        # A later base that had begun after that moment: the WAL up to its end reaches beyond it.
        later = [b for b in chain.bases if b.started > until and b.start_lsn > base.start_lsn]
        if later:
            last = layout.segment_of(min(b.end_lsn for b in later), base.timeline, size)
            files = [wal for wal in files if wal.segment <= last]
    whole = {wal.segment for wal in files if wal.offset is None}
    files = [wal for wal in files if wal.offset is None or wal.segment not in whole]
    if not files:
        return []
    # The base holds the WAL up to its own end; from there on no segment may be missing.
    number = layout.segment_number(layout.segment_of(base.end_lsn, base.timeline, size), size)
    last_number = layout.segment_number(files[-1].segment, size)
    have = {wal.segment for wal in files}
    for at in range(number, last_number + 1):
        segment = layout.segment_name(base.timeline, at, size)
        if segment not in have or (segment not in whole and at < last_number):
            raise BackupFailed(
                f"WAL segment {segment} is missing in {chain.id}, and later ones are there: what came after"
                " it cannot be restored; with --until before it, what came earlier can"
            )
    return files


def _write_segment(folder: Path, pieces: list[tuple[Wal, bytes]], size: int) -> None:
    """One segment; where its end was never written it is padded with zeros, as the server pads it."""
    content = bytearray(size)
    end = 0
    for wal, data in pieces:
        start = wal.offset or 0
        if start > end:
            raise BackupFailed(f"a piece of WAL segment {wal.segment} is missing before byte {start}")
        if start + len(data) > size or (wal.offset is None and len(data) != size):
            raise BackupFailed(f"{wal.name} is not of the size of a segment of WAL")
        content[start : start + len(data)] = data
        end = max(end, start + len(data))
    file = folder / pieces[0][0].segment
    file.write_bytes(content)
    file.chmod(0o600)
    if owner := embedded_postgres.owner():
        os.chown(file, *owner)


def _check_reaches(lsn: int, folder: Path, last: Wal, pieces: list[tuple[Wal, bytes]], base: Base) -> None:
    """The archive once said that it came this far: files at its end may be missing, too."""
    begin = layout.segment_number(last.segment, base.segment_bytes) * base.segment_bytes
    if last.offset is None:
        end = begin + base.segment_bytes
    else:
        end = begin + max((wal.offset or 0) + len(data) for wal, data in pieces)
    if end < lsn:
        raise BackupFailed(
            f"the end of the WAL is missing: the archive has told of {layout.lsn_text(lsn)}, and there is"
            f" only {layout.lsn_text(end)}; with --until, what came earlier can be restored"
        )


def _prepare(data: Path, base: Base, until: datetime | None) -> datetime | None:
    """Configuration of ours in the place of the lost server's, and what to replay."""
    written = {
        "recovery.signal": "",
        "postgresql.conf": "",
        "postgresql.auto.conf": "",
        "pg_hba.conf": _HBA,
        "pg_ident.conf": "",
    }
    for name, content in written.items():
        file = data / name
        file.unlink(missing_ok=True)
        file.write_text(content)
        file.chmod(0o600)
    folders = [data / _WAL_FOLDER]
    if owner := embedded_postgres.owner():
        for path in [*(data / name for name in written), *folders]:
            os.chown(path, *owner)
    return until


async def _recover(home: Path, data: Path, base: Base, until: datetime | None) -> datetime | None:
    """Replays, opens the database, raises the epochs, stops the server; the last transaction's moment."""
    options = {
        "restore_command": f'cp "{_WAL_FOLDER}/%f" "%p"',
        "recovery_target_timeline": "current",
        "hot_standby": "off",  # nobody looks meanwhile, and it would ask for the lost server's limits
        "log_line_prefix": "",
        "archive_mode": "off",
    }
    if until is not None:
        options["recovery_target_time"] = until.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
        options["recovery_target_action"] = "promote"
    log_file = home / embedded_postgres.LOG
    before = log_file.stat().st_size if log_file.exists() else 0
    sockets = Path(tempfile.mkdtemp(prefix="xl-"))
    if owner := embedded_postgres.owner():
        os.chown(sockets, *owner)
    try:
        try:
            server = embedded_postgres.recover(home, data, sockets, options, RECOVERY_SECONDS_MAX)
        except PostgresFailed as failed:
            said = _log_since(log_file, before)
            if "recovery ended before configured recovery target was reached" in said:
                last = _moment(said)
                at = (
                    f"ends with the transaction of {last.isoformat()}"
                    if last
                    else "holds nothing after the base"
                )
                raise BackupFailed(
                    f"--until is later than the last transaction there is: the archive {at};"
                    " leave --until out to restore all of it"
                ) from None
            raise BackupFailed(f"PostgreSQL cannot replay the backup: {failed}") from None
        try:
            await _open(server.port, sockets, home, base)
        finally:
            await asyncio.to_thread(server.stop)
        said = _log_since(log_file, before)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    shutil.rmtree(data / _WAL_FOLDER)
    hba = data / "pg_hba.conf"
    hba.write_text(_HBA_AFTER)
    return _moment(said)


async def _open(port: int, sockets: Path, home: Path, base: Base) -> None:
    """The password of the new home, the names that this program expects, and the fence."""
    password = embedded_postgres.make_password(home)
    user, name = embedded_postgres.USER, embedded_postgres.DATABASE
    admin = await _connect(port, sockets, base.owner, "template1")
    try:
        if not await admin.fetchval("select 1 from pg_roles where rolname = $1", user):
            await admin.execute(f"create role {user} superuser login")
        quoted = await admin.fetchval("select quote_literal($1)", password)
        await admin.execute("set log_statement = 'none'")
        await admin.execute("set password_encryption = 'scram-sha-256'")
        await admin.execute(f"alter role {user} superuser login replication password {quoted}")
        if base.database != name:
            old = await admin.fetchval("select quote_ident($1)", base.database)
            await admin.execute(f"alter database {old} rename to {name}")
    finally:
        await admin.close()
    connection = await _connect(port, sockets, base.owner, name)
    try:
        if await connection.fetchval("select to_regclass('shard') is not null"):
            await connection.execute("update shard set epoch = epoch + $1", EPOCHS)
        if await connection.fetchval("select to_regclass('session') is not null"):
            # Who signed out since the backup, or was copied from, would be in again with what he had then.
            await connection.execute(
                "update session set revoked_at = now(), revoked_why = 'restored' where revoked_at is null"
            )
    finally:
        await connection.close()


async def _connect(port: int, sockets: Path, user: str, database: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(host=str(sockets), port=port, user=user, database=database)
    except (OSError, asyncpg.PostgresError) as error:
        raise BackupFailed(f"the restored database {database} cannot be opened: {error}") from None


def _log_since(file: Path, start: int) -> str:
    with file.open("rb") as content:
        content.seek(start)
        return content.read().decode(errors="replace")


def _moment(said: str) -> datetime | None:
    """The time of the last transaction that was replayed, from what the server has told."""
    found = _LAST.findall(said)
    return datetime.fromisoformat(found[-1].replace(" UTC", "+00:00")) if found else None


def _clear(home: Path, data: Path, existed: bool) -> None:
    """What a failed restore leaves: nothing of the cluster, and no home that was not there before."""
    real = data.resolve()
    shutil.rmtree(real, ignore_errors=True)
    if data.is_symlink():
        data.unlink()
    (home / "postgres.password").unlink(missing_ok=True)
    if not existed:
        shutil.rmtree(home, ignore_errors=True)
