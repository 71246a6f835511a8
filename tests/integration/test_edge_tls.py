"""Gateways that speak TLS themselves: `xinglin serve --tls-cert FILE --tls-key FILE`."""

import asyncio
import os
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.integration.test_edge import Client, is_protected
from tests.support.debian import need
from tests.support.nginx import HOST, Pair, self_signed
from tests.support.system import System, run, started
from tests.support.wire import everything, over_tls
from web.tls import TlsFailed, context_of, load


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def system(pair: Pair) -> Iterator[System]:
    tls = ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
    with started("--gateways", "1", "--shards", "1", *tls) as system:
        yield system


@dataclass(slots=True)
class Inside(Client):
    def raw(self, data: bytes) -> bytes:
        with over_tls(self.system.port, HOST, self.address) as connection:
            connection.sendall(data)
            return everything(connection)


def test_a_person_signs_in_and_is_told_to_stay_with_tls(system: System) -> None:
    client = Inside(system)
    assert client.sign_in()
    answer = client.ask("GET", "/healthz")
    is_protected(answer)
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert system.address in system.log.read_text(), "it greets with its https address"


def test_the_certificate_is_ours(system: System, pair: Pair) -> None:
    command = [need("curl"), "-s", "--cacert", str(pair.certificate), "-o", os.devnull, "-w", "%{http_code}"]
    command += ["--resolve", f"{HOST}:{system.port}:127.0.0.1", f"https://{HOST}:{system.port}/readyz"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "200"


@pytest.mark.parametrize(
    ("options", "is_spoken"),
    [
        (("-tls1_3",), True),
        (("-tls1_2",), True),
        (("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"), False),
        (("-tls1", "-cipher", "DEFAULT@SECLEVEL=0"), False),
        (("-tls1_2", "-cipher", "AES128-SHA256"), False),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"), False),
    ],
)
def test_only_new_tls_is_spoken(system: System, options: tuple[str, ...], is_spoken: bool) -> None:
    command = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{system.port}", *options]
    told = subprocess.run(command, input="", capture_output=True, text=True, timeout=30)
    assert (told.returncode == 0) == is_spoken, told
    hung_up = "alert" in told.stderr or "unexpected eof" in told.stderr
    assert is_spoken or hung_up, f"it was the client that refused: {told.stderr}"


def test_plain_http_gets_nothing(system: System) -> None:
    assert b"HTTP/1.1 200" not in Client(system).raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_the_stream_runs_over_tls(system: System, pair: Pair) -> None:
    context = ssl.create_default_context(cafile=str(pair.certificate))
    address = f"{system.address}/api/v1/stream"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, ssl=context, origin=system.address) as stream,
    ):
        assert "hello" in await stream.receive_json()


# Files that are not right.


@pytest.fixture
def wrong(tmp_path: Path, pair: Pair) -> dict[str, tuple[Path, Path]]:
    other = self_signed(tmp_path, "other.example")
    garbage = tmp_path / "garbage"
    garbage.write_text("no PEM")
    garbage.chmod(0o600)
    locked = tmp_path / "locked.key"
    command = [
        need("openssl"),
        "pkey",
        "-in",
        str(pair.key),
        "-aes256",
        "-passout",
        "pass:x",
        "-out",
        str(locked),
    ]
    subprocess.run(command, check=True, capture_output=True)
    locked.chmod(0o600)
    open_to_all = tmp_path / "open.key"
    open_to_all.write_bytes(pair.key.read_bytes())
    open_to_all.chmod(0o644)
    return {
        "cannot be read: No such file": (tmp_path / "none.pem", pair.key),
        "cannot be read: Is a directory": (pair.certificate, tmp_path),
        "is not that of the certificate": (pair.certificate, other.key),
        "are no PEM certificate and key": (garbage, pair.key),
        "are no PEM certificate": (pair.certificate, garbage),
        "has a password": (pair.certificate, locked),
        "may be read by everybody": (pair.certificate, open_to_all),
    }


def test_wrong_files_are_told_of_in_one_line(wrong: dict[str, tuple[Path, Path]]) -> None:
    for why, (certificate, key) in wrong.items():
        with pytest.raises(TlsFailed, match=why) as failed:
            context_of(certificate, key)
        assert "\n" not in str(failed.value)


def test_the_command_ends_with_that_line(wrong: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    certificate, key = wrong["is not that of the certificate"]
    home = ("--home", str(tmp_path / "home"))
    for options, why in (
        (("--tls-cert", str(certificate), "--tls-key", str(key)), "is not that of the certificate"),
        (("--tls-cert", str(certificate)), "are given together or not at all"),
    ):
        told = run("serve", "--demo", *home, *options)
        assert told.returncode == 1
        assert told.stderr.startswith("xinglin: ") and why in told.stderr and told.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists(), "nothing was begun"


async def test_a_renewed_certificate_is_shown_to_whoever_comes_next(tmp_path: Path) -> None:
    """And a pair that does not match leaves the old one in use."""
    first, second = self_signed(tmp_path, "first.example"), self_signed(tmp_path, "second.example")
    context = context_of(first.certificate, first.key)
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        assert b"first.example" in await asyncio.to_thread(shown, port)
        with pytest.raises(TlsFailed, match="is not that of"):
            load(context, second.certificate, first.key)
        assert b"first.example" in await asyncio.to_thread(shown, port)
        load(context, second.certificate, second.key)
        assert b"second.example" in await asyncio.to_thread(shown, port)
    finally:
        server.close()
        await server.wait_closed()


def shown(port: int) -> bytes:
    with over_tls(port, HOST) as connection:
        return connection.getpeercert(binary_form=True) or b""
