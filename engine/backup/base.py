"""A base backup: the server's files as of one moment, streamed into the second place while bookings go on."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from engine.backup import layout, programs
from engine.backup.encrypted import seal
from engine.backup.failed import BackupFailed
from engine.backup.key_file import Keys
from engine.backup.layout import Base, Chain
from engine.backup.places import Place
from engine.backup.programs import Server

PART_BYTES: Final = 16 * 1024 * 1024  # what is in memory of it at one time, and one file in the place
_STARTED: Final = re.compile(r"write-ahead log start point: (\S+) on timeline (\d+)")
_ENDED: Final = re.compile(r"write-ahead log end point: (\S+)")


async def take_base(
    server: Server,
    place: Place,
    keys: Keys,
    chain: Chain,
    now: Callable[[], datetime],
    fast: bool,
    part_bytes: int = PART_BYTES,
) -> Base:
    """Complete and durable in the place when it returns; what a failed one has written is deleted again.

    `fast`: with a checkpoint at once, which is a burst of writes; otherwise it is spread over some minutes.
    The WAL that was written meanwhile is in it, so it can be restored even without an archive.
    """
    started = now()
    name = layout.base_name(started)
    process = await programs.start(
        "pg_basebackup",
        *("--pgdata=-", "--format=tar", "--wal-method=fetch", "--compress=client-gzip:1", "--verbose"),
        *("--checkpoint=fast" if fast else "--checkpoint=spread", f"--label=xinglin {name}"),
        server=server,
    )
    assert process.stdout is not None and process.stderr is not None
    saying = asyncio.create_task(process.stderr.read())
    parts = sealed_bytes = 0
    try:
        while part := await _read(process.stdout, part_bytes):
            where = layout.part_name(chain.id, name, parts)
            sealed = await asyncio.to_thread(seal, keys.current, where, part)
            await place.put(where, sealed)
            parts += 1
            sealed_bytes += len(sealed)
        said = (await saying).decode(errors="replace")
        begin, end = _STARTED.search(said), _ENDED.search(said)
        if await process.wait() or begin is None or end is None:
            raise BackupFailed(f"the base backup failed: {programs.why(said)}")
        base = Base(
            chain.id,
            name,
            started.isoformat(),
            now().isoformat(),
            layout.lsn_of(begin[1]),
            layout.lsn_of(end[1]),
            int(begin[2]),
            parts,
            sealed_bytes,
            chain.major,
            chain.segment_bytes,
            chain.database,
            chain.owner,
        )
        await place.put(base.manifest, seal(keys.current, base.manifest, layout.packed(base)))
        return base
    except BaseException:
        saying.cancel()
        await programs.stop(process)
        for number in range(parts):
            with contextlib.suppress(BackupFailed):
                await place.delete(layout.part_name(chain.id, name, number))
        raise


async def _read(stream: asyncio.StreamReader, size: int) -> bytes:
    """So many bytes, fewer at the end alone."""
    pieces: list[bytes] = []
    have = 0
    while have < size and (piece := await stream.read(min(programs.READ_BYTES, size - have))):
        pieces.append(piece)
        have += len(piece)
    return b"".join(pieces)
