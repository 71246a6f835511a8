"""The processes under test: ours as people start it, peers one at a time, all on one PostgreSQL."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0


@contextlib.asynccontextmanager
async def ours(
    home: Path, database_url: str, port: int, **settings: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`xinglin serve` with an outside database; settings by their environment names in lower case."""
    settings = {"demo_systems": "", **settings}
    environment = {f"XINGLIN_{name.upper()}": str(value) for name, value in settings.items()}
    command = [
        *(str(Path(sys.executable).with_name("xinglin")), "serve", "--no-demo", "--home", str(home)),
        *("--port", str(port), "--database-url", database_url),
    ]
    async with _running(command, port, home / "serve.log", environment) as process:
        yield process


@contextlib.asynccontextmanager
async def peer(
    name: str, home: Path, database_url: str, port: int, redis_url: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [
        *(sys.executable, "-m", "benchmarks.peers.server", "--peer", name, "--port", str(port)),
        *("--database-url", database_url, "--secret-file", str(home / "token.key"), "--redis-url", redis_url),
    ]
    async with _running(command, port, home / f"{name}.log", {}) as process:
        yield process


@contextlib.asynccontextmanager
async def _running(
    command: list[str], port: int, log: Path, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
        )
    try:
        await _until_answering(process, port, log)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _until_answering(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with aiohttp.ClientSession() as session:
        ends = asyncio.get_running_loop().time() + START_SECONDS_MAX
        while asyncio.get_running_loop().time() < ends:
            if process.returncode is not None:
                raise RuntimeError(f"it ended at once: {log.read_text(errors='replace')[-2000:]}")
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with session.get(f"http://127.0.0.1:{port}/healthz"):
                    return
            await asyncio.sleep(0.1)
    raise RuntimeError(
        f"no answer within {START_SECONDS_MAX:.0f} s: {log.read_text(errors='replace')[-2000:]}"
    )
