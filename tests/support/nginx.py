"""A real nginx with the very configuration that we ship: deploy/nginx/."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.embedded_postgres import free_port
from tests.support.debian import need
from tests.support.system import ROOT

HOST = "hospital.example"
START_SECONDS_MAX = 20.0
SHIPPED = ROOT / "deploy" / "nginx"

_MAIN = """\
daemon off;
pid {folder}/nginx.pid;
worker_processes 2;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/xinglin.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    port: int  # TLS
    plain_port: int
    certificate: Path
    log: Path


@dataclass(frozen=True, slots=True)
class Pair:
    certificate: Path
    key: Path


def self_signed(folder: Path, name: str = HOST) -> Pair:
    """A certificate for `name` and this machine, good for two days."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    command = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(pair.key), "-out", str(pair.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    pair.key.chmod(0o600)
    return pair


@contextmanager
def nginx(gateways: Sequence[int], **changes: str) -> Iterator[Nginx]:
    """Before the gateways on these ports. `changes` are further texts of the configuration to replace."""
    program = need("nginx")
    with tempfile.TemporaryDirectory(prefix="xinglin-nginx-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        pair = self_signed(folder)
        here = Nginx(free_port(), free_port(), pair.certificate, folder / "error.log")
        servers = [f"    server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in gateways]
        wanted = {
            "    server 127.0.0.1:8080 max_fails=1 fail_timeout=2s; ": "\n".join(servers),
            "    server 127.0.0.1:8081 max_fails=1 fail_timeout=2s; ": "",
            "listen 80;": f"listen 127.0.0.1:{here.plain_port};",
            "listen 443 ssl http2 default_server;": f"listen 127.0.0.1:{here.port} ssl http2 default_server;",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{here.port} ssl http2;",
            "/etc/nginx/tls/hospital.example.pem": str(pair.certificate),
            "/etc/nginx/tls/hospital.example.key": str(pair.key),
            **changes,
        }
        shipped = (SHIPPED / "xinglin.conf").read_text()
        for text, other in wanted.items():
            assert shipped.count(text) == 1, f"{text!r} is not once in the shipped configuration"
            shipped = shipped.replace(text, other)
        inside = "/etc/nginx/xinglin-inside.conf"
        assert inside in shipped
        shipped = shipped.replace(inside, str(folder / "inside.conf"))
        (folder / "inside.conf").write_text((SHIPPED / "xinglin-inside.conf").read_text())
        (folder / "xinglin.conf").write_text(shipped)
        main = _MAIN.format(folder=folder)
        if os.geteuid() == 0:
            main = "user root;\n" + main  # its workers must reach the folder
        (folder / "nginx.conf").write_text(main)
        command = [program, "-p", str(folder), "-e", str(here.log), "-c", str(folder / "nginx.conf")]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _wait_until_listening(process, here)
            yield here
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def _wait_until_listening(process: subprocess.Popen[bytes], here: Nginx) -> None:
    ends = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < ends:
        assert process.poll() is None, here.log.read_text()
        try:
            socket.create_connection(("127.0.0.1", here.port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nginx does not listen:\n{here.log.read_text()}")
