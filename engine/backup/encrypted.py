"""One file as it lies in the second place: AES-256-GCM in chunks.

    header   magic "XLB1" (4), key id (8), salt (32), bytes of a chunk (4, big endian)
    chunks   ciphertext and tag (16), one after the other; each but the last holds the same number of bytes

Every file has a key of its own: HKDF-SHA256 of the hospital's key with the file's random salt, bound to the
header and to the file's name. So a nonce never meets the same key twice, whoever writes and however often,
and a file that is put in another's place cannot be read. Within a file the nonce is the chunk's number and
one byte that is 1 for the last chunk alone (the STREAM construction, as in age): chunks that are swapped,
left out, doubled or cut off at the end do not authenticate.
"""

import os
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from engine.backup.failed import BackupFailed
from engine.backup.key_file import Key, Keys

CHUNK_BYTES: Final = 256 * 1024
_MAGIC: Final = b"XLB1"
_HEADER: Final = struct.Struct(">4s8s32sI")
_TAG_BYTES: Final = 16
_CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024  # a header that asks for more is no header of ours


def seal(key: Key, name: str, data: bytes) -> bytes:
    """`data` as it may lie anywhere under `name`."""
    header = _HEADER.pack(_MAGIC, key.id, os.urandom(32), CHUNK_BYTES)
    cipher = _cipher(key, header, name)
    view = memoryview(data)
    starts = range(0, len(data), CHUNK_BYTES) or range(1)  # nothing at all is one empty chunk
    return b"".join(
        [
            header,
            *(
                cipher.encrypt(_nonce(number, start == starts[-1]), view[start : start + CHUNK_BYTES], None)
                for number, start in enumerate(starts)
            ),
        ]
    )


def unseal(keys: Keys, name: str, sealed: bytes) -> bytes:
    """What was sealed under this name. Raises BackupFailed for any other byte, length, order, name or key."""
    if len(sealed) < _HEADER.size + _TAG_BYTES:
        raise BackupFailed(f"{name} is cut off: {len(sealed)} bytes are left of it")
    header = sealed[: _HEADER.size]
    magic, key_id, _, chunk_bytes = _HEADER.unpack(header)
    if magic != _MAGIC or not 0 < chunk_bytes <= _CHUNK_BYTES_MAX:
        raise BackupFailed(f"{name} is no backup of ours, or its head is damaged")
    key = keys.by_id.get(key_id)
    if key is None:
        have = ", ".join(known.hex() for known in keys.by_id)
        raise BackupFailed(f"{name} needs the key {key_id.hex()}, and the key file holds {have}")
    cipher = _cipher(key, header, name)
    step = chunk_bytes + _TAG_BYTES
    view = memoryview(sealed)
    starts = range(_HEADER.size, len(sealed), step)
    chunks = []
    for number, start in enumerate(starts):
        is_last = start == starts[-1]
        try:
            chunks.append(cipher.decrypt(_nonce(number, is_last), view[start : start + step], None))
        except InvalidTag:
            raise BackupFailed(
                f"{name} is damaged, cut off or not what was written there: chunk {number + 1} of"
                f" {len(starts)} does not authenticate"
            ) from None
        except ValueError:  # too short to hold a tag
            raise BackupFailed(f"{name} is cut off in chunk {number + 1}") from None
    return b"".join(chunks)


def _cipher(key: Key, header: bytes, name: str) -> AESGCM:
    info = b"xinglin backup file" + header + name.encode()
    return AESGCM(HKDF(SHA256(), 32, None, info).derive(key.secret))


def _nonce(number: int, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if is_last else b"\x00")
