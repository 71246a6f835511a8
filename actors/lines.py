"""From a gateway to the shards: where each one is now, and what is said on the way."""

import struct
from dataclasses import dataclass, field
from typing import Final

from actors.directory import ShardAway
from actors.link import Address, Link

ASK: Final = 1  # a batch of commands: engine/journal/codec.py
CHANGES: Final = 2  # the feed of free seats, from a position on
FIGURES: Final = 3  # what dashboards show: actors/figures.py

_MESSAGE: Final = struct.Struct(">BI")  # kind, shard
_POSITION: Final = struct.Struct(">QQ")  # epoch, seq


def unpack_message(body: bytes) -> tuple[int, int, bytes]:
    """Kind, shard id, and the rest."""
    kind, shard_id = _MESSAGE.unpack_from(body)
    return kind, shard_id, body[_MESSAGE.size :]


def unpack_position(rest: bytes) -> tuple[int, int]:
    """Epoch and seq."""
    epoch, seq = _POSITION.unpack(rest)
    return epoch, seq


@dataclass(slots=True)
class Lines:
    secret: bytes
    shards: int = 0
    """How many there are, each with a part of the actors (actors/directory.py)."""
    routes: dict[int, Address] = field(default_factory=dict)
    links: dict[Address, Link] = field(default_factory=dict)

    def route(self, shard_id: int, address: Address) -> None:
        """The shard is at this address from now on; a link that nobody needs any more is closed."""
        self.routes[shard_id] = address
        for unused in set(self.links) - set(self.routes.values()):
            self.links.pop(unused).close()

    def begin(self, secret: bytes) -> None:
        """Another run of the shards: none of them is where it was."""
        self.secret = secret
        self.routes.clear()
        self.close()
        self.links.clear()

    async def send(self, shard_id: int, packed: bytes) -> bytes:
        return await self._link(shard_id).call(_MESSAGE.pack(ASK, shard_id) + packed)

    async def changes(self, shard_id: int, epoch: int, seq: int) -> bytes:
        body = _MESSAGE.pack(CHANGES, shard_id) + _POSITION.pack(epoch, seq)
        return await self._link(shard_id).call(body)

    async def figures(self, shard_id: int) -> bytes:
        return await self._link(shard_id).call(_MESSAGE.pack(FIGURES, shard_id))

    def close(self) -> None:
        for link in self.links.values():
            link.close()

    def _link(self, shard_id: int) -> Link:
        address = self.routes.get(shard_id)
        if address is None:
            raise ShardAway(f"shard {shard_id} has no process yet")
        link = self.links.get(address)
        if link is None:
            link = self.links[address] = Link(address, self.secret)
        return link
