"""Why one goes before another, said to the one behind: a sentence for every code, in Chinese and English.

What is said to a patient of somebody else never tells who that is: of a priority class only that it is one,
of what was done by hand neither by whom nor why.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Final

from engine.domain.queue_order import NEVER, Explanation, Why
from web.faults import Text

WORDS: Final[Mapping[Why, Text]] = {
    Why.CALLED: Text("正在叫号或就诊中。", "Is being called or seen now."),
    Why.EMERGENCY: Text("急诊分级 {level} 级，先于所有人。", "Triage level {level}: before everybody."),
    Why.EMERGENCY_LEVEL: Text(
        "急诊分级 {level} 级，比您的 {other} 级更急。",
        "Triage level {level}, more urgent than yours, which is {other}.",
    ),
    Why.OVERTAKEN: Text(
        "已被后到者超过 {times} 次，达到规则上限，因此优先。",
        "Was overtaken by {times} later arrivals, as often as the rules allow, and goes first now.",
    ),
    Why.AT_DOOR: Text("已先到诊室门口候诊。", "Was sent to the room's door before."),
    Why.MOVED: Text("由工作人员人工调整到这个位置。", "Was put in this place by the staff."),
    Why.OTHER_MOVED: Text(
        "您的位置由工作人员人工调整，排在其后。", "You were put behind this one by the staff."
    ),
    Why.RESTS: Text(
        "您刚刚过号，{until} 之后才会再叫到您。",
        "You were passed over just now, and are not called before {until}.",
    ),
    Why.LANE_TURN: Text("轮到{lane}：{pace}。", "It is the turn of {lane}: {pace}."),
    Why.LANE_WAITS: Text(
        "您属于{lane}：{pace}，还没有轮到。", "You are one of {lane}: {pace}, and that is not yet."
    ),
    Why.LANES: Text(
        "轮到{lane}，先于您所属的{other}。", "It is the turn of {lane}, before {other}, where you are."
    ),
    Why.EARLIER_TIME: Text(
        "预约时间 {at} 早于您的 {other}。", "Has the earlier appointment: {at}, and yours is at {other}."
    ),
    Why.LOWER_NUMBER: Text(
        "同一时段，号序 {number} 在您的 {other} 之前。",
        "Has the lower number of the same time: {number}, and yours is {other}.",
    ),
    Why.CAME_EARLIER: Text("比您先到（{at}）。", "Came before you did, at {at}."),
    Why.CAME_BEFORE_TIME: Text(
        "{at} 已到，早于您的预约时间 {other}。", "Came at {at}, before your appointed time, {other}."
    ),
    Why.TIME_BEFORE_CAME: Text(
        "预约时间 {at} 早于您到达的时间 {other}。", "Has an appointment for {at}, before you came at {other}."
    ),
    Why.EARLIER_END: Text(
        "排在 {at} 时段的末尾，早于您的 {other}。",
        "Stands at the end of the time until {at}, which is before yours, {other}.",
    ),
    Why.OTHER_LATE: Text("您迟到，按规则排在其后。", "You came late, and stand behind by the rules."),
    Why.OTHER_PASSED: Text(
        "您过号后重新报到，按规则排在其后。", "You were passed over, and stand behind by the rules."
    ),
    Why.OTHER_RETURNED: Text(
        "您检查后回诊，按规则排在其后。", "You are back from an examination, and stand behind by the rules."
    ),
}

_BY_THEMSELVES: Final[Mapping[Why, Text]] = {
    Why.MOVED: Text("自己申请延后到这个位置。", "Asked to be put back to this place."),
    Why.OTHER_MOVED: Text("您申请了延后，排在其后。", "You asked to be put back, and stand behind."),
}
"""Where nobody of the staff moved anybody."""

LANES: Final[Mapping[str, Text]] = {
    "ordinary": Text("普通顺序", "the ordinary order"),
    "emergency": Text("急诊", "emergencies"),
    "priority": Text("优先类别", "those with priority"),
    "returned": Text("回诊", "those back from examinations"),
    "late": Text("迟到", "those who came late"),
    "passed": Text("过号后报到", "those passed over before"),
    "walk_in": Text("现场号", "walk-ins"),
}

_FIRST: Final = Text("先于普通顺序", "before all ordinary ones")
_LAST: Final = Text("普通顺序之后", "after all ordinary ones")
_EVERY: Final = Text("每 {every} 位普通顺序后插入", "let in after every {every} ordinary ones")

_TIMES: Final = ("at", "until", "other")
_OTHER_IS_TIME: Final = (
    Why.EARLIER_TIME,
    Why.CAME_BEFORE_TIME,
    Why.TIME_BEFORE_CAME,
    Why.EARLIER_END,
    Why.CAME_EARLIER,
)


def lane_words(lane: str) -> Text:
    """Of queue_order's lanes. Which class or level somebody has is nobody else's business."""
    return LANES.get(lane.partition(":")[0], LANES["ordinary"])


def say(found: Explanation, zone: tzinfo) -> Text:
    """To the one behind."""
    words = WORDS[found.why]
    if not found.detail.get("by"):
        words = _BY_THEMSELVES.get(found.why, words)
    return Text(words.zh.format_map(_told(found, zone, "zh")), words.en.format_map(_told(found, zone, "en")))


def _told(found: Explanation, zone: tzinfo, language: str) -> dict[str, str]:
    told: dict[str, str] = {}
    for name, value in found.detail.items():
        if name in _TIMES and isinstance(value, int) and (name != "other" or found.why in _OTHER_IS_TIME):
            told[name] = f"{datetime.fromtimestamp(value / 1000, UTC).astimezone(zone):%H:%M}"
        elif name == "lane" or (name == "other" and found.why is Why.LANES):
            told[name] = _in(lane_words(str(value)), language)
        elif name in ("level", "times", "number", "other"):
            told[name] = str(value)
    every = found.detail.get("every")
    if isinstance(every, int):
        told["pace"] = _in(_pace(every), language).format(every=every)
    return told


def _pace(every: int) -> Text:
    if every == 0:
        return _FIRST
    return _LAST if every >= NEVER else _EVERY


def _in(text: Text, language: str) -> str:
    return text.zh if language == "zh" else text.en
