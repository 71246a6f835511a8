"""Ids that nobody derives again."""

import secrets
import time


def new_id() -> bytes:
    """A UUIDv7 (RFC 9562, 5.7): ids made near in time lie near each other in an index."""
    value = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + secrets.token_bytes(10))
    value[6] = (value[6] & 0x0F) | 0x70
    value[8] = (value[8] & 0x3F) | 0x80
    return bytes(value)
