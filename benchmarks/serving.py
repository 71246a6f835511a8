"""A system of a bench's own that may be hurt: `xinglin serve` with its embedded PostgreSQL."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from engine import embedded_postgres

READY_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Serving:
    address: str
    home: Path
    process: asyncio.subprocess.Process
    shards: int

    @property
    def database_url(self) -> str:
        """Of the PostgreSQL that runs now."""
        url = embedded_postgres.running(self.home)
        assert url is not None
        return url

    def pid_of(self, what: str, shard_id: int = 0) -> int:
        """Of the shard, a gateway or the PostgreSQL, as they run now."""
        if what == "shard":
            return _serving_pid(self.home / "logs", shard_id)
        if what == "postgres":
            return int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])
        below = _children_of(self.process.pid).items()
        return next(pid for pid, line in below if line.startswith("ray::Gateway"))


@contextlib.asynccontextmanager
async def serving(shards: int, port: int = 0, **settings: object) -> AsyncIterator[Serving]:
    """Starts with an empty home, ends with SIGTERM; settings by their environment names in lower case.
    `port` 0: any that is free."""
    with tempfile.TemporaryDirectory(prefix="xinglin-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # as root, PostgreSQL runs as nobody and must be able to walk there
        port = port or embedded_postgres.free_port()
        settings = {"demo_systems": "", **settings}
        environment = {f"XINGLIN_{name.upper()}": str(value) for name, value in settings.items()}
        log = home / "serve.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(str(Path(sys.executable).with_name("xinglin")), "serve", "--no-demo"),
                *("--home", str(home), "--port", str(port), "--shards", str(shards)),
                stdout=out,
                stderr=out,
                env={**os.environ, **environment},
            )
        address = f"http://127.0.0.1:{port}"
        try:
            await _until_ready(process, address, log)
            yield Serving(address, home, process, shards)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
        if process.returncode:
            raise RuntimeError(f"it ended with {process.returncode}:\n{_end_of(log)}")


async def _until_ready(process: asyncio.subprocess.Process, address: str, log: Path) -> None:
    ends = asyncio.get_running_loop().time() + READY_SECONDS_MAX
    async with aiohttp.ClientSession() as session:
        while asyncio.get_running_loop().time() < ends:
            if process.returncode is not None:
                raise RuntimeError(f"it did not start:\n{_end_of(log)}")
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with session.get(f"{address}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"not ready within {READY_SECONDS_MAX:.0f} s:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _children_of(pid: int) -> dict[int, str]:
    """Every process below this one, with its command line."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{name}/stat").read_text()
                parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    below = {pid}
    for _ in range(8):
        below |= {child for child, parent in parents.items() if parent in below}
    found = {}
    for child in below - {pid}:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found[child] = line
    return found


def _serving_pid(logs: Path, shard_id: int) -> int:
    """Of the process that last said that it serves the shard."""
    said: list[tuple[str, int]] = []
    for file in logs.glob("shard-process-*.log"):
        for line in file.read_text().splitlines():
            one = orjson.loads(line)
            if one["message"].startswith(f"shard {shard_id} serves at epoch"):
                said.append((one["ts"], one["pid"]))
    return max(said)[1]
