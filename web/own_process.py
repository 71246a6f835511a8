"""A command of ours in a process of its own: what takes a core for minutes must not hold a gateway."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from typing import Final

log = logging.getLogger(__name__)

_COMMAND: Final = (  # what it says goes to our log: what it does not catch must be worded, too
    "from engine.logs import word_the_uncaught; word_the_uncaught();"
    " from web.cli import main; main(prog_name='xinglin')"
)


async def run_command(*words: str, database_url: str, seconds_max: float) -> None:
    """`xinglin <words>` to its end; what it says goes to the log. Ended after `seconds_max`, or with us.

    The database's address goes by the environment: arguments are for everybody to read.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _COMMAND,
        *words,
        env=child_environment({"XINGLIN_DATABASE_URL": database_url}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds_max):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    said = told.decode(errors="replace").strip()
    if process.returncode:
        log.error("xinglin %s failed: %s", " ".join(words), said[-500:])
    else:
        log.info("xinglin %s: %s", " ".join(words), said.replace("\n", "; "))


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Of a process that finds the same modules as this one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}
