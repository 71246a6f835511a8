"""Every reason for being behind somebody has words, which say what they are about and never who it is."""

import string
from zoneinfo import ZoneInfo

import pytest

from engine.domain.queue_order import NEVER, Explanation, Why
from web.faults import Text
from web.queues.why_words import LANES, WORDS, lane_words, say

ZONE = ZoneInfo("Asia/Shanghai")
EIGHT = 1_799_971_200_000  # 08:00 in Shanghai
MINUTE = 60_000
FIRST = b"first".ljust(16)

# What engine/domain/queue_order.py tells with each of them.
DETAILS: dict[Why, dict[str, str | int]] = {
    Why.CALLED: {"room_id": "R1"},
    Why.EMERGENCY: {"level": 1},
    Why.EMERGENCY_LEVEL: {"level": 1, "other": 2},
    Why.OVERTAKEN: {"times": 12},
    Why.AT_DOOR: {},
    Why.MOVED: {"by": "staff:aa", "reason": "secret"},
    Why.OTHER_MOVED: {"by": "staff:aa", "reason": "secret"},
    Why.RESTS: {"until": EIGHT},
    Why.LANE_TURN: {"lane": "priority:soldier", "every": 2},
    Why.LANE_WAITS: {"lane": "late", "every": 3},
    Why.LANES: {"lane": "priority:pregnant", "other": "passed"},
    Why.EARLIER_TIME: {"at": EIGHT, "other": EIGHT + 30 * MINUTE},
    Why.LOWER_NUMBER: {"number": 3, "other": 4},
    Why.CAME_EARLIER: {"at": EIGHT, "other": EIGHT + MINUTE},
    Why.CAME_BEFORE_TIME: {"at": EIGHT, "other": EIGHT + MINUTE},
    Why.TIME_BEFORE_CAME: {"at": EIGHT, "other": EIGHT + MINUTE},
    Why.EARLIER_END: {"at": EIGHT, "other": EIGHT + MINUTE},
    Why.OTHER_LATE: {"at": EIGHT},
    Why.OTHER_PASSED: {"at": EIGHT},
    Why.OTHER_RETURNED: {"at": EIGHT},
}


def said(why: Why, **detail: str | int) -> Text:
    return say(Explanation(FIRST, why, detail or DETAILS[why]), ZONE)


def test_every_reason_has_words() -> None:
    assert set(WORDS) == set(Why) == set(DETAILS)


@pytest.mark.parametrize("why", Why)
def test_words_are_whole_in_both_languages(why: Why) -> None:
    text = said(why)
    assert any(character >= "\u4e00" for character in text.zh)
    assert text.en.isascii()
    for language in text:
        assert not [name for _, name, _, _ in string.Formatter().parse(language) if name]
        assert not {"secret", "staff", "soldier", "pregnant", str(EIGHT)} & set(language.split())
        assert "secret" not in language
        assert "soldier" not in language
        assert "pregnant" not in language


def test_times_are_as_on_the_clock_on_the_wall() -> None:
    assert said(Why.EARLIER_TIME) == (
        "预约时间 08:00 早于您的 08:30。",
        "Has the earlier appointment: 08:00, and yours is at 08:30.",
    )
    assert said(Why.RESTS).en == "You were passed over just now, and are not called before 08:00."
    assert said(Why.LOWER_NUMBER).en.endswith("3, and yours is 4.")


def test_a_lane_says_its_pace() -> None:
    assert said(Why.LANE_TURN).zh == "轮到优先类别：每 2 位普通顺序后插入。"
    assert "before all" in said(Why.LANE_TURN, lane="returned", every=0).en
    assert "after all" in said(Why.LANE_WAITS, lane="walk_in", every=NEVER).en


def test_who_asked_to_be_put_back_is_not_told_that_the_staff_did_it() -> None:
    assert "延后" in said(Why.OTHER_MOVED, by="", reason="asked_by_patient").zh
    assert "staff" not in said(Why.MOVED, by="", reason="asked_by_patient").en


def test_lanes_hide_which_class_it_is() -> None:
    assert lane_words("priority:soldier") == lane_words("priority:child") == LANES["priority"]
    assert lane_words("emergency:3") == LANES["emergency"]
    assert lane_words("something new") == LANES["ordinary"]
