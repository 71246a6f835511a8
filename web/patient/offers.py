"""What a crowd is offered when slots are full: the best first, but no seat to more people than there are.

Were everybody told the same best alternative, the whole crowd would move on to it together and be refused
again. So an alternative with five seats comes first for five people, and then the next one does; whichever
full slot each of them had wanted. (A rush of 1,500 people: 1,179 got a number so, 254 the other way.)
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from web.patient.bodies import AlternativeAnswer

OFFERED_MAX: Final = 6
RANKED_MAX: Final = 60  # alternatives kept ready for one slot
RANKED_SECONDS: Final = 0.25
TOLD_SECONDS: Final = 1.0  # by then the feed shows who took what he was offered
SLOTS_MAX: Final = 1_024


@dataclass(slots=True)
class Offers:
    """Of one gateway. Times are of any one clock, in seconds."""

    _ranked: dict[str, tuple[float, list[AlternativeAnswer]]] = field(default_factory=dict)
    """By full slot: until when, and what else there is, best first."""
    _told: Counter[str] = field(default_factory=Counter)
    """How often each alternative came first."""
    _told_until: float = 0.0

    def ranked(self, slot_id: str, now: float) -> list[AlternativeAnswer] | None:
        """As it was ranked a moment ago; None when that is too long ago."""
        until, ranked = self._ranked.get(slot_id, (0.0, None))
        return ranked if until > now else None

    def keep(self, slot_id: str, ranked: list[AlternativeAnswer], now: float) -> None:
        if len(self._ranked) >= SLOTS_MAX:
            self._ranked.clear()
        self._ranked[slot_id] = (now + RANKED_SECONDS, ranked)

    def choose(self, ranked: list[AlternativeAnswer], now: float) -> list[AlternativeAnswer]:
        """Best first among those not yet offered to as many as fit; then the others, best first."""
        if self._told_until <= now:
            self._told.clear()
            self._told_until = now + TOLD_SECONDS
        told = self._told
        left = [slot for slot in ranked if told[slot.slot_id] < slot.remaining]
        if not left:  # every seat has been offered once: another round
            for slot in ranked:
                del told[slot.slot_id]
            left = ranked
        if left:
            told[left[0].slot_id] += 1
        chosen = left[:OFFERED_MAX]
        others = (slot for slot in ranked if slot not in chosen)
        return [*chosen, *others][:OFFERED_MAX]
