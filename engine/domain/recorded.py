"""An event as it stands in the journal: what was decided, where in its stream, and when."""

from dataclasses import dataclass

from engine.domain.schedule import Event


@dataclass(frozen=True, slots=True)
class Recorded:
    version: int
    at: int  # ms since the epoch, UTC
    event: Event
