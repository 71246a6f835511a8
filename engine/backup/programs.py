"""PostgreSQL's own programs for backups, run under our control against any server: they come in the wheel."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from engine import embedded_postgres
from engine.backup.failed import BackupFailed

READ_BYTES: Final = 1024 * 1024
STOP_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """How the programs reach a server. The password goes by the environment: other users see arguments."""

    url: str
    password: str

    @classmethod
    def of(cls, url: str) -> "Server":
        parts = urlsplit(url)
        password = unquote(parts.password or "")
        netloc = parts.netloc
        if parts.password is not None:
            user, _, host = netloc.rpartition("@")
            netloc = f"{user.partition(':')[0]}@{host}"
        return cls(urlunsplit(parts._replace(netloc=netloc)), password)

    def environment(self) -> dict[str, str]:
        secret = {"PGPASSWORD": self.password} if self.password else {}
        return {**embedded_postgres.environment(), **secret, "PGAPPNAME": "xinglin backup"}


async def start(name: str, *arguments: str, server: Server) -> asyncio.subprocess.Process:
    """The program, which ends when we do. Call it from the main thread (see engine/embedded_postgres.py)."""
    return await asyncio.create_subprocess_exec(
        embedded_postgres.program(name),
        *arguments,
        "-d",
        server.url,
        "--no-password",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=server.environment(),
        start_new_session=True,  # Ctrl-C reaches us alone
        preexec_fn=embedded_postgres.die_with_parent,
        limit=2 * READ_BYTES,
    )


async def stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def verify(data: Path) -> None:
    """pg_verifybackup: every file against the manifest that the server made, and the WAL it needs."""
    process = await asyncio.create_subprocess_exec(
        embedded_postgres.program("pg_verifybackup"),
        "--exit-on-error",
        "--quiet",
        str(data),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=embedded_postgres.environment(),
    )
    _, said = await process.communicate()
    if process.returncode:
        raise BackupFailed(f"the base backup is not what the server wrote: {why(said.decode())}")


def why(said: str) -> str:
    """The line of a program's complaint that tells the reason."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line or "FATAL:" in line] or lines or ["no word of why"]
    return told[0].split(": error: ", 1)[-1]
