"""TLS of the gateways' own, where no proxy speaks it for them."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final, NoReturn

log = logging.getLogger(__name__)

# For TLS 1.2: forward secrecy and authenticated encryption only. 1.3 has no others.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_OTHERS_MAY_READ: Final = 0o004
LOOK_SECONDS: Final = 60.0


class TlsFailed(Exception):
    """One line that says which file is wrong, and how."""


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server: TLS 1.2 and 1.3. Raises TlsFailed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    load(context, certificate, key)
    return context


def load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Connections from now on see this certificate. Raises TlsFailed, and then all stays as it was."""
    for name, file in (("certificate", certificate), ("key", key)):
        try:
            with file.open("rb"):
                pass
            mode = file.stat().st_mode
        except OSError as error:
            raise TlsFailed(f"the TLS {name} {file} cannot be read: {error.strerror}") from None
        if name == "key" and mode & _OTHERS_MAY_READ:
            raise TlsFailed(f"the TLS key {file} may be read by everybody: chmod 600 it")
    # First into a throw-away: a pair that does not match must not leave half of itself behind.
    for target in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
        try:
            target.load_cert_chain(certificate, key, password=_no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise TlsFailed(f"the TLS key {key} is not that of the certificate {certificate}") from None
            raise TlsFailed(f"{certificate} and {key} are no PEM certificate and key") from None
        except _HasPassword:
            raise TlsFailed(f"the TLS key {key} has a password: give it without one") from None


async def follow(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """For ever: a renewed certificate is taken up while we run."""
    seen = _changed_at(certificate, key)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        found = _changed_at(certificate, key)
        if found != seen:
            try:
                load(context, certificate, key)
            except TlsFailed as failed:
                # Perhaps one of the two is still being written. We look again, and the old one serves on.
                log.warning("the renewed certificate cannot be used yet: %s", failed)
                continue
            seen = found
            log.info("the renewed certificate is in use")


def _changed_at(*files: Path) -> tuple[int, ...] | None:
    try:
        return tuple(file.stat().st_mtime_ns for file in files)
    except OSError:
        return None


class _HasPassword(Exception):
    pass


def _no_password() -> NoReturn:
    raise _HasPassword
