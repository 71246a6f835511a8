"""Is what lies in the second place whole, and could it be restored? Reads every byte of it."""

import shutil
import tempfile
from pathlib import Path

from engine.backup import programs
from engine.backup.chains import Held
from engine.backup.key_file import Keys
from engine.backup.layout import Base
from engine.backup.places import Place
from engine.backup.restore import opened, unpack_base, wanted


async def check_base(place: Place, keys: Keys, base: Base, scratch: Path | None) -> None:
    """Decrypts all parts, unpacks them below `scratch` and has PostgreSQL compare each file with its
    manifest.

    Raises BackupFailed at the first thing that is not as it was written.
    """
    folder = Path(tempfile.mkdtemp(prefix="xinglin-verify-", dir=scratch))
    try:
        data = folder / "data"
        data.mkdir(mode=0o700)
        await unpack_base(place, keys, base, data)
        await programs.verify(data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def check_wal(place: Place, keys: Keys, chain: Held) -> int:
    """Decrypts all WAL of a chain and looks for gaps after its oldest base; how many files there are."""
    if chain.bases:
        wanted(chain, chain.bases[0], None)
    for wal in chain.wal:
        opened(keys, wal.name, await place.get(wal.name))
    return len(chain.wal)
