"""wrk as the load: C, so that it takes little of the machine that it measures."""

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("post.lua")


class NoWrk(Exception):
    """wrk is not installed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw."""

    seconds: float
    answered: int
    ok: int  # 2xx
    failed: int  # connections that broke, timeouts
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def ok_per_second(self) -> float:
        return self.ok / self.seconds

    @property
    def answered_per_second(self) -> float:
        return self.answered / self.seconds


def check_installed() -> None:
    if shutil.which("wrk") is None:
        raise NoWrk("wrk is not installed: apt-get install wrk (Debian), then run this again")


async def press(
    url: str,
    tokens: Path,
    requests: Path,
    seconds: float,
    connections: int,
    delay_ms: int = 0,
    run: str = "r",
) -> Load:
    """Closed loop over `connections`; with a delay, each waits about so long before its next request."""
    process = await asyncio.create_subprocess_exec(
        "wrk",
        *("-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(SCRIPT), url, "--"),
        *(str(tokens), str(requests), str(delay_ms), run),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    lines = [line for line in out.decode().splitlines() if line.startswith("JSON")]
    if not lines:
        raise RuntimeError(f"wrk said:\n{out.decode()}")
    said = json.loads(lines[0].removeprefix("JSON"))
    return Load(
        said["microseconds"] / 1e6,
        said["requests"],
        said["requests"] - said["not_2xx"],
        said["connect"] + said["read"] + said["write"] + said["timeout"],
        said["p50_ms"],
        said["p95_ms"],
        said["p99_ms"],
    )
