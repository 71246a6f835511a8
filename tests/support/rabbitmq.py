"""A RabbitMQ of Debian's for a module of tests: on this machine's loopback alone, in a folder of its own, run
without its service. It may be killed and started again with what it had confirmed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.embedded_postgres import free_port

START_SECONDS_MAX = 60.0
_CONF = """listeners.tcp.local = 127.0.0.1:{port}
loopback_users.guest = true
log.file.level = warning
vm_memory_high_watermark.absolute = 256MB
disk_free_limit.absolute = 50MB
"""


class RabbitMq:
    def __init__(self, folder: Path, program: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._program = program
        self._epmd = free_port()
        self._dist = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "rabbitmq.conf").write_text(_CONF.format(port=self.port))
        (folder / "plugins").write_text("[].")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        base = self.folder
        environment = {
            **os.environ,
            "HOME": str(base),  # the cookie lies there
            "RABBITMQ_NODENAME": f"xl{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd),
            "RABBITMQ_MNESIA_BASE": str(base / "mnesia"),
            "RABBITMQ_LOG_BASE": str(base / "log"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
            ),
        }
        self._environment = environment
        with (base / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [self._program], env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        ends = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < ends:
            assert self._process.poll() is None, (base / "out").read_text()[-2000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(b"AMQP\0\0\x09\x01")  # it listens a moment before it speaks
                line.settimeout(5)
                if line.recv(1):
                    return
            time.sleep(0.1)
        raise AssertionError(f"RabbitMQ did not start:\n{(base / 'out').read_text()[-2000:]}")

    def kill(self) -> None:
        """As if the power had gone: kill -9 of all its processes."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def close(self) -> None:
        self.kill()
        # Its name server goes by itself only when nobody is registered; it is ours, by its port.
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run([epmd, "-port", str(self._epmd), "-kill"], capture_output=True, timeout=10)


@contextmanager
def running() -> Iterator[RabbitMq]:
    """Skips where there is none."""
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if not found:
        pytest.skip("RabbitMQ is not here: apt-get install rabbitmq-server")
    if os.geteuid() != 0 and not os.access(found[-1], os.X_OK):
        pytest.skip("RabbitMQ is not ours to start")
    with tempfile.TemporaryDirectory(prefix="xl-mq-", ignore_cleanup_errors=True) as folder:
        broker = RabbitMq(Path(folder), found[-1])
        try:
            broker.start()
            yield broker
        finally:
            broker.close()
