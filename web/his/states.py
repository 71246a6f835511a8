"""Their words for a registration's state, in ours."""

from typing import Final

from engine.domain import schedule as s
from engine.domain.his_rules import Phase
from integrations.his.his import Status

_PHASES: Final = {
    Status.LOCKED: Phase.LOCKED,
    Status.BOOKED: Phase.BOOKED,
    Status.ARRIVED: Phase.ARRIVED,
    Status.FULFILLED: Phase.FULFILLED,
    Status.NO_SHOW: Phase.NO_SHOW,
    Status.CANCELLED: Phase.GONE,
}
ATTENDED: Final = {
    Phase.BOOKED: s.Status.BOOKED,
    Phase.ARRIVED: s.Status.ARRIVED,
    Phase.FULFILLED: s.Status.FULFILLED,
    Phase.NO_SHOW: s.Status.NOSHOW,
}
"""What we note of a patient where they say this."""

COUNTS: Final = (s.Status.BOOKED, s.Status.ARRIVED, s.Status.FULFILLED, s.Status.NOSHOW)
"""Numbers that the HIS must know of."""


_RANKS: Final = {Phase.BOOKED: 0, Phase.ARRIVED: 1, Phase.NO_SHOW: 1, Phase.FULFILLED: 2}


def knows_more(theirs: Phase, status: int) -> bool:
    """Whether their word of a visit is later than ours: nobody is seen and then expected again."""
    ours = next((phase for phase, here in ATTENDED.items() if here == status), None)
    return theirs in _RANKS and ours in _RANKS and _RANKS[theirs] > _RANKS[ours]


def word_of(status: int) -> str:
    return s.Status(status).name.lower()


def phase_of(status: Status) -> Phase:
    return _PHASES[status]
