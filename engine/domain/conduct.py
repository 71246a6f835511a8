"""Which offences make a block: the hospital's conduct rules, applied to what one subject has done.

Pure. A forgiven offence (amnesty: the hospital's own fault, or an appeal that was granted) is one that is
simply not passed in.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engine.domain.policy import ConductRule, Offence, Subject

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """From `begins` until `ends` (ms) the subject may not book. It may have ended already."""

    rule: ConductRule
    begins: int  # the moment of the offence that filled the measure
    ends: int
    evidence: tuple[int, ...]  # which of the offences: positions in the sequence that was judged


def judge(offences: Sequence[tuple[Offence, int]], rules: Iterable[ConductRule], now: int) -> list[Verdict]:
    """All blocks that these offences (what, when in ms) have made up to `now`, by rule and then by time.

    `offences` are of one subject, in any order; `rules` are those about such a subject. An offence counts
    once for each rule: what has served for one block does not help to make the rule's next one. Whole days
    are 24 hours; an offence that is exactly a window old no longer counts, and one after `now` not yet.
    """
    order = sorted((at, position) for position, (_, at) in enumerate(offences) if at <= now)
    verdicts = []
    for rule in rules:
        window = rule.window_days * _DAY_MS
        recent: deque[tuple[int, int]] = deque()
        for at, position in order:
            if offences[position][0] is not rule.offence:
                continue
            while recent and recent[0][0] <= at - window:
                recent.popleft()
            recent.append((at, position))
            if len(recent) == rule.count:
                ends = at + rule.block_days * _DAY_MS
                verdicts.append(Verdict(rule, at, ends, tuple(position for _, position in recent)))
                recent.clear()
    return verdicts


PRESETS: Final[Mapping[str, tuple[ConductRule, ...]]] = {
    # 北京 114: three no-shows within a year, no booking for three months.
    "three_in_a_year": (
        ConductRule("no_show_three_in_a_year", Offence.NO_SHOW, Subject.PATIENT, 3, 365, 90),
    ),
    # Hospitals on the same platform with the stricter reading: three within three months, half a year.
    "three_in_three_months": (
        ConductRule("no_show_three_in_three_months", Offence.NO_SHOW, Subject.PATIENT, 3, 90, 180),
    ),
    # Hospitals on guahaoe: a month on all platforms, also for cancelling too often or too late.
    "one_month": (
        ConductRule("no_show_three_in_a_year_one_month", Offence.NO_SHOW, Subject.PATIENT, 3, 365, 30),
        ConductRule("cancel_three_in_a_month", Offence.CANCEL, Subject.PATIENT, 3, 30, 30),
        ConductRule("late_cancel_three_in_a_month", Offence.LATE_CANCEL, Subject.PATIENT, 3, 30, 30),
    ),
    # Ours: who holds numbers in bulk and lets them go keeps them from others, whether or not for a buyer.
    "hold_and_drop": (
        ConductRule("dropped_holds_ten_in_a_day", Offence.DROPPED_HOLD, Subject.ACCOUNT, 10, 1, 1),
        ConductRule("dropped_holds_thirty_in_a_month", Offence.DROPPED_HOLD, Subject.ACCOUNT, 30, 30, 30),
    ),
}
"""Rules of real hospitals (FIELD.md, row D13) under a name, for policy.yaml."""
