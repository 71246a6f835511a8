"""What departments, queues, rooms and lanes of a waiting room are called, in the reader's language."""

from typing import Final

from aiohttp import web

from engine.domain.ids import RoomKey
from engine.domain.room_plan import GENERAL
from web import keys
from web.faults import Language, Text

_GENERAL: Final = Text("普通候诊", "General")

_LANES: Final = {
    "ordinary": Text("按顺序", "in the ordinary order"),
    "emergency": Text("急诊优先", "an emergency, before everybody"),
    "overtaken": Text(
        "被后到者超过的次数已达上限，优先", "overtaken by later arrivals as often as the rules allow"
    ),
    "moved": Text("人工调整", "moved by hand"),
    "returned": Text("回诊插入", "back from an examination, let in between"),
    "late": Text("迟到插入", "late, let in between"),
    "passed": Text("过号后插入", "passed over before, let in between"),
    "walk_in": Text("现场号插入", "a walk-in, let in between"),
}
_LEVEL: Final = Text("{level} 级急诊插入", "an emergency of level {level}, let in between")
_PRIORITY: Final = Text("优先类别（{code}）插入", "the priority class {code}, let in between")
_CLASSES: Final = {
    "soldier": Text("军人", "soldiers"),
    "aged": Text("老年人", "the aged"),
    "disabled": Text("残障人士", "the disabled"),
    "pregnant": Text("孕妇", "the pregnant"),
    "child": Text("儿童", "children"),
}
"""A hospital's own classes are called by their codes."""


def department_name(app: web.Application, department_id: str, language: Language) -> str:
    found = app[keys.AVAILABILITY].catalog.departments.get(department_id)
    if found is None:  # of a file that was imported before
        return department_id
    return found.name_en if language == "en" and found.name_en else found.name


def practitioner_name(app: web.Application, practitioner_id: str) -> str | None:
    found = app[keys.AVAILABILITY].catalog.practitioners.get(practitioner_id)
    return None if found is None else found.name


def queue_name(app: web.Application, key: RoomKey, queue_id: str, language: Language) -> str:
    """The hospital's name for it; a practitioner's queue is called like the practitioner."""
    terms = app[keys.POLICY].policy.waiting_of(key.department_id).queue(queue_id)
    if terms is not None:
        return terms.name_en if language == "en" and terms.name_en else terms.name_zh
    practitioner = practitioner_name(app, queue_id)
    if practitioner is not None:
        return practitioner
    return _GENERAL.in_(language) if queue_id == GENERAL else queue_id


def room_name(app: web.Application, room_id: str) -> str:
    """As the hospital's files call it; a desk that is in none of them by its id."""
    found = app[keys.AVAILABILITY].catalog.rooms.get(room_id)
    return room_id if found is None else found.name


def lane_text(lane: str, language: Language) -> str:
    """Of queue_order's lanes, and of what a call counts as."""
    kind, _, name = lane.partition(":")
    match kind:
        case "emergency" if name:
            return _LEVEL.in_(language).format(level=name)
        case "priority":
            known = _CLASSES.get(name)
            return _PRIORITY.in_(language).format(code=name if known is None else known.in_(language))
        case _:
            known = _LANES.get(kind)
            return lane if known is None else known.in_(language)
