"""DICOM's JSON into our words. Pure; what does not fit raises Unreadable, which names no values."""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any, Final

from integrations.pacs.pacs import UID_CHARS_MAX, UID_PATTERN, Instance, Series, Study, Unreadable

TEXT_CHARS_MAX: Final = 256
COUNT_MAX: Final = 100_000
FRAMES_MAX: Final = 100_000
MODALITIES_MAX: Final = 16
_UID: Final = re.compile(UID_PATTERN, re.ASCII)
_DAY: Final = re.compile(r"[0-9]{8}", re.ASCII)
_TIME: Final = re.compile(r"([0-9]{2})([0-9]{2})?([0-9]{2})?(\.[0-9]{1,6})?", re.ASCII)
_OFFSET: Final = re.compile(r"([+-])([0-9]{2})([0-9]{2})", re.ASCII)
_SEXES: Final = {"M": "male", "F": "female"}

STUDY_FIELDS: Final = ("00081030", "00080061", "00201206", "00201208", "00080201")
"""What QIDO gives only when it is asked: description, modalities, numbers of series and instances, offset."""


def is_uid(text: str) -> bool:
    return len(text) <= UID_CHARS_MAX and _UID.fullmatch(text) is not None


def study_of(found: Any, zone: tzinfo) -> Study:
    tags = _tags(found)
    day, started_at = _when(tags, zone)
    return Study(
        uid=_uid(tags, "0020000D"),
        patient_number=_text(tags, "00100020"),
        patient_name=_name(tags, "00100010"),
        birth_date=_day(_text(tags, "00100030")),
        sex=_SEXES.get(_text(tags, "00100040")),
        accession=_text(tags, "00080050"),
        day=day,
        started_at=started_at,
        description=_text(tags, "00081030"),
        modalities=tuple(one for one in _texts(tags, "00080061")[:MODALITIES_MAX] if one),
        series=_count(tags, "00201206"),
        instances=_count(tags, "00201208"),
    )


def series_of(found: Any) -> Series:
    tags = _tags(found)
    return Series(
        uid=_uid(tags, "0020000E"),
        modality=_text(tags, "00080060"),
        number=_number(tags, "00200011"),
        description=_text(tags, "0008103E"),
        body_part=_text(tags, "00180015"),
        instances=_count(tags, "00201209"),
    )


def instance_of(found: Any) -> Instance:
    tags = _tags(found)
    frames = _number(tags, "00280008")
    return Instance(
        uid=_uid(tags, "00080018"),
        number=_number(tags, "00200013"),
        frames=min(max(frames or 1, 1), FRAMES_MAX),
    )


def listed(answer: Any, most: int) -> list[Any]:
    if not isinstance(answer, list):
        raise Unreadable("not_a_list")
    if len(answer) > most:
        raise Unreadable("too_many")
    return answer


def _tags(found: Any) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise Unreadable("not_an_object")
    return found


def _values(tags: Mapping[str, Any], tag: str) -> Sequence[Any]:
    element = tags.get(tag)
    if element is None:
        return ()
    if not isinstance(element, Mapping):
        raise Unreadable(f"{tag}_shape")
    values = element.get("Value", ())
    if not isinstance(values, list | tuple):
        raise Unreadable(f"{tag}_shape")
    return values


def _texts(tags: Mapping[str, Any], tag: str) -> list[str]:
    found = []
    for value in _values(tags, tag):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Unreadable(f"{tag}_shape")
        text = str(value).strip(" \0")
        if len(text) > TEXT_CHARS_MAX:
            raise Unreadable(f"{tag}_too_long")
        if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in text):
            raise Unreadable(f"{tag}_control")
        found.append(text)
    return found


def _text(tags: Mapping[str, Any], tag: str) -> str:
    return next(iter(_texts(tags, tag)), "")


def _name(tags: Mapping[str, Any], tag: str) -> str:
    """As it is written here: characters before letters, without DICOM's carets."""
    values = _values(tags, tag)
    if not values or values[0] is None:
        return ""
    first = values[0]
    if isinstance(first, Mapping):
        first = first.get("Ideographic") or first.get("Alphabetic") or ""
    whole = _texts({tag: {"Value": [first]}}, tag)
    return name_of(whole[0]) if whole else ""


def name_of(spelled: str) -> str:
    """王^小明 -> 王小明; Wang^Xiaoming=王^小明 -> 王小明; Yamada^Tarou -> Yamada Tarou."""
    groups = [group.strip("^ ") for group in spelled.split("=")]
    best = next((group for group in groups[1:2] if group), groups[0] if groups else "")
    parts = [part.strip() for part in best.split("^") if part.strip()]
    return (" " if best.isascii() else "").join(parts)


def _uid(tags: Mapping[str, Any], tag: str) -> str:
    uid = _text(tags, tag)
    if not is_uid(uid):
        raise Unreadable(f"{tag}_uid")
    return uid


def _number(tags: Mapping[str, Any], tag: str) -> int | None:
    text = _text(tags, tag)
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text, re.ASCII):
        raise Unreadable(f"{tag}_number")
    return int(text)


def _count(tags: Mapping[str, Any], tag: str) -> int:
    number = _number(tags, tag) or 0
    if not 0 <= number <= COUNT_MAX:
        raise Unreadable(f"{tag}_count")
    return number


def _day(text: str) -> date | None:
    if not text:
        return None
    if not _DAY.fullmatch(text):
        raise Unreadable("date")
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        raise Unreadable("date") from None


def _when(tags: Mapping[str, Any], zone: tzinfo) -> tuple[date | None, str | None]:
    day = _day(_text(tags, "00080020"))
    clock = _text(tags, "00080030")
    if day is None or not clock:
        return day, None
    spelled = _TIME.fullmatch(clock)
    if spelled is None:
        raise Unreadable("time")
    hour, minute, second = (int(part or 0) for part in spelled.groups()[:3])
    offset = _text(tags, "00080201")
    if offset:
        parts = _OFFSET.fullmatch(offset)
        if parts is None or int(parts[2]) > 14:
            raise Unreadable("offset")
        minutes = int(parts[2]) * 60 + int(parts[3])
        zone = timezone(timedelta(minutes=-minutes if parts[1] == "-" else minutes))
    try:
        at = datetime.combine(day, time(hour, minute, min(second, 59)), zone)
    except ValueError:
        raise Unreadable("time") from None
    return day, at.isoformat()
