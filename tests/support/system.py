"""The real system, as a user starts it: `xinglin serve --demo` in a process of its own."""

import http.client
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.embedded_postgres import free_port

ROOT = Path(__file__).parents[2]
# For the processes of a server: tests/support/lean says what it spares them.
LEAN = {
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(ROOT / "tests" / "support" / "lean"), os.environ.get("PYTHONPATH", "")])
    )
}
START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 60.0
# For tests that ask of everything: 429 says nothing about the route.
WITHOUT_LIMITS = {
    f"XINGLIN_{whose}_PER_SECOND": "0"
    for whose in (
        "ADDRESS_REQUESTS",
        "ADDRESS_SIGN_INS",
        "DEVICE_REQUESTS",
        "ACCOUNT_REQUESTS",
        "STAFF_REQUESTS",
    )
}


@dataclass(frozen=True, slots=True)
class System:
    address: str
    port: int
    home: Path
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def started(
    *options: str, hospital: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[System]:
    """Serves on a free port with a home of its own; stops with SIGTERM, and the exit status must be 0.

    With the files of a hospital it is that one, with the demo's staff and sandbox all the same."""
    with tempfile.TemporaryDirectory(prefix="xinglin-system-") as folder:
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as nobody and must be able to walk there
        home, log, port = Path(folder) / "home", Path(folder) / "log", free_port()
        if hospital is not None:
            imported = run("import", str(hospital), "--home", str(home))
            assert imported.returncode == 0, imported.stdout + imported.stderr
        command = ["serve", "--demo", "--home", str(home), "--port", str(port), *options]
        with log.open("wb") as out:
            process = subprocess.Popen(
                xinglin(command),
                cwd=ROOT,
                # The sandboxes of the hospital's systems are for who looks at them.
                env={"XINGLIN_DEMO_SYSTEMS": "", **os.environ, **LEAN, **(environment or {})},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        scheme = "https" if "--tls-cert" in options else "http"
        system = System(f"{scheme}://127.0.0.1:{port}", port, home, process, log)
        try:
            _wait_until_ready(system)
            yield system
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert status == 0, f"exit status {status}:\n{log.read_text()}"


def xinglin(arguments: Sequence[str]) -> list[str]:
    """The command, of this very interpreter."""
    return [sys.executable, "-c", "from web.cli import main; main(prog_name='xinglin')", *arguments]


def run(
    *arguments: str, seconds: float = 120.0, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """A command of ours, to its end; `typed` is its standard input."""
    environment = {**os.environ, "COLUMNS": "200"}  # no line of a table is folded
    return subprocess.run(
        xinglin(arguments),
        cwd=ROOT,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def _wait_until_ready(system: System) -> None:
    ends = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < ends:
        assert system.process.poll() is None, f"it ended while starting:\n{system.log.read_text()}"
        connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=2)
        if system.address.startswith("https:"):
            trusting = ssl._create_unverified_context()  # whose certificate it is, the tests look at
            connection = http.client.HTTPSConnection("127.0.0.1", system.port, timeout=2, context=trusting)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise AssertionError(f"not ready within {START_SECONDS_MAX:.0f} s:\n{system.log.read_text()}")
