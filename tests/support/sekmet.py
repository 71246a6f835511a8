"""sekmet-fhir, somebody else's FHIR R4 server, in a process of its own on this machine."""

import asyncio
import contextlib
import importlib.util
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
import yaml

from engine.embedded_postgres import free_port

START_SECONDS_MAX: Final = 90


@contextlib.asynccontextmanager
async def sekmet(folder: Path) -> AsyncIterator[str]:
    """Its base, for as long as the context lasts. Strict about what it is sent; nothing acts by itself."""
    if importlib.util.find_spec("sekmet") is None:
        pytest.skip("sekmet-fhir is not installed")
    program = shutil.which("sekmet", path=str(Path(sys.executable).parent))
    assert program is not None
    port = free_port()
    base = f"http://127.0.0.1:{port}/fhir"
    settings = folder / "settings.yaml"
    settings.write_text(
        yaml.safe_dump(
            {
                "base_url": base,
                "host": "127.0.0.1",
                "port": port,
                "data_dir": str(folder / "data"),
                "own_private_key_path": str(folder / "own.pem"),
                "simulator": {"enabled": False},
                "validation": {"inbound": "strict"},
            }
        )
    )
    process = await asyncio.create_subprocess_exec(
        program,
        *("serve", "-c", str(settings), "--host", "127.0.0.1", "--port", str(port)),
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _answers(base, process)
        yield base
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answers(base: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_SECONDS_MAX), aiohttp.ClientSession() as session:
        while True:
            assert process.returncode is None, "sekmet ended"
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{base}/metadata") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
