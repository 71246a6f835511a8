"""Looks for words in files, dumps and the memory of processes, however they may be spelled there."""

import base64
import contextlib
import os
import re
import subprocess
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

PIECE_BYTES: Final = 8 << 20
_ENVIRONMENT: Final = {**os.environ, "LC_ALL": "C"}
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
PAGES_AT_A_TIME: Final = 1 << 16
_MAP: Final = re.compile(
    r"(?P<at>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<rights>r\S+) \S+ (?P<file>\S+ \d+)\s*(?P<path>\S*)"
)


def spellings(word: str) -> frozenset[bytes]:
    """UTF-8, UTF-16 and GB18030, each as it is, in hex and in base64 wherever in a longer text it begins."""
    found = set()
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "gb18030"):
        raw = word.encode(encoding)
        found |= {raw, raw.hex().encode(), raw.hex().upper().encode()}
        for before in range(3):
            # What its neighbours have a part in is left out: the first signs, and the last.
            coded = base64.b64encode(b"\0" * before + raw)[(0, 2, 3)[before] :]
            whole = coded.rstrip(b"=")
            sure = whole[: len(whole) - (1 if (before + len(raw)) % 3 else 0)]
            found |= {sure, sure.replace(b"+", b"-").replace(b"/", b"_")}
    return frozenset(found)


class Search:
    """By grep, which looks for hundreds of spellings at once, and through what is not text as well."""

    def __init__(self, words: Sequence[str]) -> None:
        # A spelling with an end of line in it is no pattern for grep. Every word has others.
        self._by_spelling = {
            spelled: word for word in words for spelled in spellings(word) if b"\n" not in spelled
        }

    def of(self, pieces: Iterator[bytes]) -> set[str]:
        """The words that stand in there."""
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "told"
            with told.open("wb") as out:
                grep = subprocess.Popen(
                    [*self._grep(Path(folder)), "--only-matching"],
                    stdin=subprocess.PIPE,
                    stdout=out,
                    env=_ENVIRONMENT,
                )
                assert grep.stdin is not None
                for piece in pieces:
                    grep.stdin.write(piece)
                grep.stdin.close()
                assert grep.wait() in (0, 1)
            return {self._by_spelling[line] for line in told.read_bytes().split(b"\n") if line}

    def below(self, folder: Path) -> dict[Path, set[str]]:
        """The files that hold any of them, and which. What is deleted meanwhile is passed over."""
        with tempfile.TemporaryDirectory() as patterns:
            grep = subprocess.run(
                [*self._grep(Path(patterns)), "--recursive", "--files-with-matches", "--no-messages", folder],
                capture_output=True,
                text=True,
                env=_ENVIRONMENT,
            )
        return {Path(line): self.of(file(Path(line))) for line in grep.stdout.splitlines()}

    def _grep(self, folder: Path) -> list[str]:
        patterns = folder / "patterns"
        patterns.write_bytes(b"\n".join(self._by_spelling))
        return ["grep", "--text", "--fixed-strings", "--file", str(patterns)]


def file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as content:
        while piece := content.read(PIECE_BYTES):
            yield piece


def memory(pids: Iterable[int]) -> Iterator[bytes]:
    """What core files of these processes would hold: what each has of its own, and what they share, once.

    What has ended meanwhile is passed over."""
    shared: set[str] = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield from _memory(pid, shared)


def _memory(pid: int, shared: set[str]) -> Iterator[bytes]:
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with (
        Path(f"/proc/{pid}/mem").open("rb", buffering=0) as content,
        Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pages,
    ):
        for line in maps:
            found = _MAP.match(line)
            if found is None or "w" not in found["rights"]:
                continue
            if "s" in found["rights"]:
                if found["file"] in shared or not found["path"].startswith("/dev/zero"):
                    continue  # of Ray's object store, or known already
                shared.add(found["file"])
            for at, end in _present(pages, int(found["at"], 16), int(found["end"], 16)):
                yield from _range(content, at, end)


def _present(pages: IO[bytes], at: int, end: int) -> Iterator[tuple[int, int]]:
    """Stretches of pages that are in memory or swapped out: the others were never touched."""
    begins = None
    while at < end:
        pages.seek(at // PAGE_BYTES * 8)
        entries = array("Q", pages.read(min((end - at) // PAGE_BYTES, PAGES_AT_A_TIME) * 8))
        if not entries:
            break
        for entry in entries:
            if entry >> 62:
                begins = at if begins is None else begins
            elif begins is not None:
                yield begins, at
                begins = None
            at += PAGE_BYTES
    if begins is not None:
        yield begins, at


def _range(content: IO[bytes], at: int, end: int) -> Iterator[bytes]:
    while at < end:
        content.seek(at)
        try:
            piece = content.read(min(PIECE_BYTES, end - at))
        except OSError:  # gone meanwhile
            return
        if not piece:
            return
        yield piece
        at += len(piece)
