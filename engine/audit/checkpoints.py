"""What the chain was, kept outside the database: a line a block, signed, synced before the next one is made.

    {"block": 7, "hash": "…", "at": 1795442400000, "key": "…", "signature": "…"}
    {"restored": 5, "hash": "…", "was": 7, "at": …, "reason": "…", "key": "…", "signature": "…"}

The chain alone cannot tell that its end was cut off, or that the whole database is an older copy of itself:
this file can, as long as it is not the same hand that holds both. The second kind of line is written by
`xinglin audit checkpoint --restored`, when an older database was put back on purpose: from there on the
chain goes on at an earlier block, and everybody who verifies is told so.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engine.audit.blocks import Block, is_signed, statement
from engine.audit.signing_key import SigningKey

FILE: Final = Path("audit") / "checkpoints.log"


class CheckpointsFailed(Exception):
    """One line that says what is wrong with the file."""


@dataclass(slots=True)
class Checkpoints:
    """What the lines of a file say."""

    hashes: dict[int, bytes] = field(default_factory=dict)
    begun: int = 0  # up to this block the file says nothing: it was begun after it
    notes: list[str] = field(default_factory=list)  # put back on purpose, begun anew
    faults: list[str] = field(default_factory=list)
    some: bool = False  # it need not know every block

    @property
    def last(self) -> int | None:
        return max(self.hashes, default=None)


def line_of(block: Block, at: int, key: bytes) -> str:
    """`at` in ms; `key`, public, is of who signed the block: the signature is the block's own."""
    said = {"block": block.number, "hash": block.hash.hex(), "at": at, "key": key.hex()}
    return json.dumps({**said, "signature": block.signature.hex()}) + "\n"


def restored_line(number: int, block_hash: bytes, was: int, at: int, reason: str, key: SigningKey) -> str:
    """An older database was put back: its last block has this number and hash, the file's was `was`.
    0: there was no file, and it begins here."""
    said = {
        "restored": number,
        "hash": block_hash.hex(),
        "was": was,
        "at": at,
        "reason": reason,
        "key": key.public.hex(),
    }
    return json.dumps({**said, "signature": key.sign(_restored(said)).hex()}) + "\n"


def _restored(said: dict[str, Any]) -> bytes:
    told = {name: value for name, value in said.items() if name != "signature"}
    return b"xinglin audit restored\n" + json.dumps(told, sort_keys=True).encode()


def read_checkpoints(
    lines: Iterable[str], trusted: frozenset[bytes] | None = None, some: bool = False
) -> Checkpoints:
    """What they say, and what is wrong with them.

    `trusted`: whose signatures count; None: anybody's, for reading what one has written oneself. `some`: the
    file need not know every block, as that of the second place, which gets one a minute.
    """
    found = Checkpoints(some=some)
    last: int | None = None
    for number, line in enumerate(lines, 1):
        where = f"checkpoints, line {number}"
        if not line.strip():
            continue
        try:
            said: dict[str, Any] = json.loads(line)
            block_hash, key = bytes.fromhex(said["hash"]), bytes.fromhex(said["key"])
            signature = bytes.fromhex(said["signature"])
            is_restored = "restored" in said
            block = said["restored"] if is_restored else said["block"]
            if type(block) is not int or len(block_hash) != 32:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            found.faults.append(f"{where}: cannot be read")
            continue
        if not is_signed(key, signature, _restored(said) if is_restored else statement(block, block_hash)):
            found.faults.append(f"{where}: block {block} is not signed by the key that it names")
            continue
        if trusted is not None and key not in trusted:
            found.faults.append(f"{where}: block {block} is signed by the unknown key {key.hex()[:16]}")
            continue
        if is_restored:
            if found.hashes.get(block, block_hash) != block_hash:
                found.faults.append(f"{where}: restored to a block {block} that is another one")
            found.hashes = {n: one for n, one in found.hashes.items() if n <= block}
            if said.get("was"):
                found.notes.append(
                    f"an older database was put back on purpose: from block {said['was']} to {block}"
                    f" ({said.get('reason')})"
                )
            else:
                found.begun = block
                found.notes.append(f"the checkpoints begin after block {block}: there was no file")
            found.hashes[block] = block_hash
            last = block
            continue
        if block != (last or 0) + 1 and not (some and block > (last or 0)):
            found.faults.append(
                f"{where}: block {block} follows block {last or 0}: lines "
                + ("are missing" if block > (last or 0) else "are out of order")
            )
        last = block
        found.hashes[block] = block_hash
    return found


class CheckpointFile:
    """Lines are added at its end and are on the disk when `add` returns."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def lines(self) -> list[str]:
        """Of a file that is not there: none."""
        try:
            return self._file.read_text(errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointsFailed(f"cannot read {self._file}: {error.strerror}") from None

    def add(self, line: str) -> None:
        """Raises CheckpointsFailed."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as out:
                size = out.seek(0, os.SEEK_END)
                if size:
                    out.seek(size - 1)
                    if out.read(1) != b"\n":  # a line that a crash has cut: it stays, for everybody to see
                        out.write(b"\n")
                out.write(line.encode())
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise CheckpointsFailed(f"cannot write {self._file}: {error.strerror}") from None
