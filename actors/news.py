"""What a flush has brought: for gateways (see feed.py), and for the shard's own timers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

RoomEvent = Sequence[Any]
"""Its version in the stream (int), its code (int) and its bytes, as they lie in the journal."""


@dataclass(slots=True)
class News:
    remaining: dict[str, int | list[int]] = field(default_factory=dict)
    """slot id -> free seats; a list by share where its session has shares."""
    plans: dict[str, list[object]] = field(default_factory=dict)
    """schedule id -> the whole day, where its structure changed."""
    rooms: dict[str, list[RoomEvent]] = field(default_factory=dict)
    """stream of a waiting room -> what happened there, in order."""
    wakes: list[tuple[str, int]] = field(default_factory=list)
    """Actors in which something ends by itself, and when (ms)."""
    look_again: set[str] = field(default_factory=set)
    """Actors that must be asked when time will next change something there."""
