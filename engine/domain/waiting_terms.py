"""What a hospital decided about its waiting rooms (候诊): engine/records/waiting_terms_file.py reads it.

`WaitingTerms` are whole for one department. The order and the calling are queue_order.Rules; here is the
rest: which queues there are beside those of the practitioners, which numbers walk-ins get, what screens show
and say, and when patients are told something without asking. Pure and immutable.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from engine.domain.limits import TICKET_NUMBER_MAX
from engine.domain.masking import masked
from engine.domain.queue_order import Rules

KINDS: Final = ("visit", "triage", "examination", "pharmacy", "desk")
"""Of queues. `visit` is where appointments count."""

PLACEHOLDERS: Final = ("number", "name", "room")
"""What a call's text may name, in braces."""


@dataclass(frozen=True, slots=True)
class QueueTerms:
    """A queue of the department beside those of its practitioners."""

    queue_id: str
    kind: str  # of KINDS
    prefix: str
    first: int  # the numbers that are given out here
    last: int
    name_zh: str
    name_en: str = ""

    def __post_init__(self) -> None:
        assert self.kind in KINDS
        assert 0 < self.first <= self.last <= TICKET_NUMBER_MAX


@dataclass(frozen=True, slots=True)
class WalkIns:
    """Who comes without an appointment, and the numbers for it."""

    first: int = 501  # of a practitioner's own queue: beyond the booked ones
    last: int = 999
    general_first: int = 1  # of the department's general queue, which no practitioner owns
    general_last: int = 999
    general_prefix: str = "A"
    enabled: bool = True  # no: only booked patients are seen here

    def __post_init__(self) -> None:
        assert 0 < self.first <= self.last <= TICKET_NUMBER_MAX
        assert 0 < self.general_first <= self.general_last <= TICKET_NUMBER_MAX


class Shows(StrEnum):
    """What a screen tells of who is called."""

    NAME = "name"
    NUMBER = "number"
    BOTH = "both"


_LEFT_OVER: Final = re.compile(r"\s+(?=[,.:;!?，。：；！？、])")


@dataclass(frozen=True, slots=True)
class ScreenTerms:
    """What is shown and said when somebody is called. Texts name {number}, {name} and {room}."""

    masks_names: bool = True  # 张*明
    shows: Shows = Shows.BOTH
    text_zh: str = "请 {number} {name} 到 {room} 就诊"
    text_en: str = "{number} {name}, please go to {room}"
    texts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Number class -> Chinese and English, where a class is called in other words."""
    repeats: int = 2  # times that a call is said

    def texts_of(self, number_class_id: str) -> tuple[str, str]:
        """Chinese and English, with placeholders."""
        return self.texts.get(number_class_id, (self.text_zh, self.text_en))

    def shown_name(self, name: str) -> str:
        """What a screen may show of a name; empty where numbers alone are called."""
        if self.shows is Shows.NUMBER:
            return ""
        return masked(name) if self.masks_names else name

    def shown_number(self, number: str) -> str:
        return "" if self.shows is Shows.NAME else number

    def words(self, number_class_id: str, number: str, name: str, room: str) -> tuple[str, str]:
        """A call in Chinese and in English. What is not to be shown leaves no gap."""
        told = {"number": self.shown_number(number), "name": self.shown_name(name), "room": room}
        zh, en = (_filled(text, told) for text in self.texts_of(number_class_id))
        return zh, en


_PLACEHOLDER: Final = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")


def _filled(text: str, told: Mapping[str, str]) -> str:
    """In one pass, so that a name with braces in it stays a name."""
    filled = _PLACEHOLDER.sub(lambda found: told[found[1]], text)
    return _LEFT_OVER.sub("", " ".join(filled.split()))


@dataclass(frozen=True, slots=True)
class NoticeTerms:
    """What patients are told without asking."""

    ahead: tuple[int, ...] = (3,)  # when so many people are left ahead; greatest first
    leave_home: bool = True  # when it is time to set out
    late_minutes: int = 30  # the practitioner runs so much behind the appointed times; 0: nobody is told


@dataclass(frozen=True, slots=True)
class WaitingTerms:
    """The rules of one department's waiting room."""

    rules: Rules = Rules()
    queues: tuple[QueueTerms, ...] = ()
    walk_ins: WalkIns = WalkIns()
    screen: ScreenTerms = ScreenTerms()
    notices: NoticeTerms = NoticeTerms()

    def queue(self, queue_id: str) -> QueueTerms | None:
        return next((queue for queue in self.queues if queue.queue_id == queue_id), None)
