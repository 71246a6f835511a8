"""Where a reader of the feed is: a position in each shard, opaque to it, signed so that only ours count."""

import base64
import binascii
import hmac
import struct
from collections.abc import Mapping
from typing import Final

CHARS_MAX: Final = 4_096
_VERSION: Final = b"\x01"
_MAC_BYTES: Final = 16
_POSITION: Final = struct.Struct(">IQ")


class CursorBroken(Exception):
    """Not one of ours, or not whole."""


def cursor_of(positions: Mapping[int, int], secret: bytes) -> str:
    """Shard -> the number of the last event that was read."""
    body = _VERSION + b"".join(_POSITION.pack(*one) for one in sorted(positions.items()))
    return base64.urlsafe_b64encode(body + _mac(secret, body)).rstrip(b"=").decode()


def positions_of(cursor: str, secret: bytes) -> dict[int, int]:
    """Raises CursorBroken."""
    if len(cursor) > CHARS_MAX or not cursor.isascii():
        raise CursorBroken
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CursorBroken from None
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if len(raw) <= _MAC_BYTES or not hmac.compare_digest(mac, _mac(secret, body)):
        raise CursorBroken
    if body[:1] != _VERSION or (len(body) - 1) % _POSITION.size:
        raise CursorBroken
    return dict(_POSITION.iter_unpack(body[1:]))


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, b"event feed cursor\0" + body, "sha256")[:_MAC_BYTES]
