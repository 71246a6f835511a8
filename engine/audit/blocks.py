"""A block: what was written since the last one, as hashes, chained and signed.

It covers the audit's entries of all transactions that had ended when it was made (from_xid <= xid < to_xid)
and each shard's events (from_seq < seq <= to_seq), which leave no gaps. Its hash is SHA-256 of the last
block's hash and its body; its signature (Ed25519) is of its number and hash. So a row that was changed does
not fit its block, a block that was changed does not fit the next one, and whoever makes all of it anew lacks
the key; what he can still do is cut the end off, which is why hashes also go to a file elsewhere
(engine/audit/checkpoints.py).

Beside each hash of many rows stand four bytes of each row's own hash. They prove nothing: they say which row
it is that does not fit.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT: Final = 1
NO_HASH: Final = bytes(32)
"""What the first block follows."""
TAG_BYTES: Final = 4
ENTRY_TAG_BYTES: Final = 8 + TAG_BYTES  # its id first: ids have gaps


@dataclass(frozen=True, slots=True)
class Covered:
    """Events of a shard: from_seq < seq <= to_seq."""

    shard: int
    from_seq: int
    to_seq: int
    hash: bytes
    tags: bytes


@dataclass(frozen=True, slots=True)
class Handover:
    """The key before says that this one is its successor."""

    old: bytes  # public key
    signature: bytes


@dataclass(frozen=True, slots=True)
class Body:
    number: int
    at: int  # ms
    previous: bytes
    from_xid: int
    to_xid: int
    entries: int
    entries_hash: bytes
    entry_tags: bytes
    shards: tuple[Covered, ...]  # all that are known, also where nothing came
    key: bytes  # public, of who signs
    handover: Handover | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """As it is stored."""

    number: int
    body: bytes
    hash: bytes
    signature: bytes


class NoBlock(Exception):
    """These bytes are no block's body."""


def pack(body: Body) -> bytes:
    handover = body.handover and (body.handover.old, body.handover.signature)
    packed: bytes = msgpack.packb(
        (
            FORMAT,
            body.number,
            body.at,
            body.previous,
            body.from_xid,
            body.to_xid,
            body.entries,
            body.entries_hash,
            body.entry_tags,
            [(one.shard, one.from_seq, one.to_seq, one.hash, one.tags) for one in body.shards],
            body.key,
            handover,
        )
    )
    return packed


def unpack(data: bytes) -> Body:
    """Raises NoBlock."""
    try:
        told = msgpack.unpackb(data, use_list=False)
        version, *plain, shards, key, over = told
        fields = [*plain, tuple(Covered(*one) for one in shards), key, over and Handover(*over)]
        body = Body(*fields)
        pack(body)
    except Exception as error:  # msgpack raises what it likes on bytes that are none of its own
        raise NoBlock(type(error).__name__) from None
    numbers = (body.number, body.at, body.from_xid, body.to_xid, body.entries)
    ranges = [value for one in body.shards for value in (one.shard, one.from_seq, one.to_seq)]
    texts = [body.previous, body.entries_hash, body.entry_tags, body.key]
    texts += [value for one in body.shards for value in (one.hash, one.tags)]
    if (
        version != FORMAT
        or not all(type(value) is int for value in (*numbers, *ranges))
        or not all(type(value) is bytes for value in texts)
    ):
        raise NoBlock("fields of another kind")
    return body


def hash_of(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(previous + body).digest()


def statement(number: int, block_hash: bytes) -> bytes:
    """What is signed."""
    return b"xinglin audit block\n%d\n%s" % (number, block_hash.hex().encode())


def handover_statement(new: bytes) -> bytes:
    """What an old key signs of its successor."""
    return b"xinglin audit key\n" + new.hex().encode()


def is_signed(key: bytes, signature: bytes, said: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, said)
    except (InvalidSignature, ValueError):
        return False
    return True
