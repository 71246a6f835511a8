"""The demo hospital in a new home, as `make bench` drives it; and what machine this is."""

import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks import check

ROOT: Final = Path(__file__).parent.parent
READY_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class System:
    url: str
    home: Path
    process: psutil.Process

    @property
    def database_url(self) -> str:
        return check.database_url(self.home)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def cpu_seconds(self) -> dict[str, float]:
        """Used so far, by kind of process."""
        used: dict[str, float] = defaultdict(float)
        for process in [self.process, *self.process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[_kind(process)] += times.user + times.system
        return used


def _kind(process: psutil.Process) -> str:
    name = " ".join(process.cmdline()[:1])
    if name.startswith("ray::Shard"):
        return "shards"
    if name.startswith("ray::Gateway"):
        return "gateways"
    return "postgres" if "postgres" in name else "rest (Ray, sandbox)"


def machine_cpu_seconds() -> float:
    """Busy so far, all cores together; stolen time is busy, too."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


@contextlib.contextmanager
def started() -> Iterator[System]:
    """The demo hospital in a new home, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="xinglin-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # PostgreSQL may run as another user
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", "from web.cli import main; main()", "serve", "--demo"]
        log = home / "serve.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--home", folder, "--port", str(port)],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us to pass on
            )
        try:
            _wait_until_ready(url, process, log)
            yield System(url, home, psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return
        time.sleep(0.1)
    sys.exit(f"the system did not start:\n{log.read_text()}")


def machine() -> str:
    """CPU, cores, memory and date, for titles."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    now = datetime.now(UTC)
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB · {now:%Y-%m-%d %H:%M} UTC"
