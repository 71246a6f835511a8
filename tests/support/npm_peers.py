"""Other people's HL7 programs for Node and HL7's examples (tests/peers), installed once into a folder outside
the tree."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

PEERS: Final = Path(__file__).parents[1] / "peers"
_FILES: Final = ("package.json", "package-lock.json", ".npmrc")
_INSTALL_SECONDS_MAX: Final = 240
_ANSWER_SECONDS_MAX: Final = 60


def need_peers() -> dict[str, str]:
    """The environment in which they run. Skips the test that asks, where there is no Node or no network."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not here: the npm peers do not run")
    digest = hashlib.sha256(b"".join((PEERS / name).read_bytes() for name in _FILES)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xinglin-peers"
    home = cache / digest
    if not home.is_dir():
        _install(cache, home)
    return {**os.environ, "NODE_PATH": str(home / "node_modules")}


def need_examples() -> Path:
    """The folder of HL7's official examples of FHIR R4 (hl7.fhir.r4.examples, CC0-1.0): a resource a file."""
    return Path(need_peers()["NODE_PATH"]) / "hl7.fhir.r4.examples"


def _install(cache: Path, home: Path) -> None:
    """Beside, and moved when it is whole: two runs at once do not disturb one another."""
    cache.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=cache))
    try:
        for name in _FILES:
            shutil.copy(PEERS / name, beside / name)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts"],
            cwd=beside,
            check=True,
            capture_output=True,
            timeout=_INSTALL_SECONDS_MAX,
        )
        with contextlib.suppress(OSError):
            beside.rename(home)
    except (subprocess.SubprocessError, OSError):
        pytest.skip("npm cannot install the peers here")
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class PeerServer:
    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    async def got(self) -> str:
        """The next message that it understood."""
        told = await _line(self._process)
        message: str = told["got"]
        return message


@contextlib.asynccontextmanager
async def peer_server(library: str, charset: str = "utf-8", mode: str = "") -> AsyncIterator[PeerServer]:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(PEERS / "server.cjs"),
        *(library, charset, mode),
        env=need_peers(),
        stdout=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
    )
    try:
        yield PeerServer(process, (await _line(process))["port"])
    finally:
        process.kill()
        await process.wait()


async def peer_sends(library: str, port: int, messages: list[str], charset: str = "utf-8") -> list[str]:
    """What its client was answered, one for each message."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(PEERS / "client.cjs"),
        *(library, str(port), charset),
        env=need_peers(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_ANSWER_SECONDS_MAX):
            said, _ = await process.communicate("\n".join(map(json.dumps, messages)).encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return [json.loads(line)["ack"] for line in said.splitlines() if b'"ack"' in line]


async def _line(process: asyncio.subprocess.Process) -> dict:  # type: ignore[type-arg]
    """The next line that is one of ours: libraries print things of their own."""
    assert process.stdout is not None
    async with asyncio.timeout(_ANSWER_SECONDS_MAX):
        while line := await process.stdout.readline():
            if line.startswith(b"{"):
                found: dict = json.loads(line)  # type: ignore[type-arg]
                return found
    raise AssertionError("the peer ended")
