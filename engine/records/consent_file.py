"""consents.yaml: a hospital's own texts to agree to, read and checked to the last key (docs/PRIVACY.md)."""

from collections.abc import Collection
from datetime import date, datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from engine.domain.consents import ConsentKind
from engine.records.consents import LANGUAGES, ConsentText, ConsentVersion
from engine.records.hospital_rules import FileError
from engine.records.yaml_values import Value, read_yaml

FILE: Final = "consents.yaml"
VERSION_CHARS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
VERSION_CHARS_MAX: Final = 32
TEXT_CHARS_MAX: Final = 100_000


class ConsentsRefused(Exception):
    """The file is not right; `errors` in its order. Nothing was published."""

    def __init__(self, errors: Collection[FileError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: (error.line, error.column)))
        super().__init__("\n".join(map(str, self.errors)))


def read_consents(text: str, zone: ZoneInfo, now: datetime, file: str = FILE) -> list[ConsentVersion]:
    """The texts that the file describes. A day begins at midnight in the hospital's zone; what says no day
    holds from now on. Raises ConsentsRefused with every error found."""
    errors: list[FileError] = []
    top = read_yaml(text, file, errors)
    found = []
    if top is not None:
        for kind, value in top.mapping([kind.value for kind in ConsentKind]).items():
            version = _version(ConsentKind(kind), value, zone, now)
            if version is not None:
                found.append(version)
    if errors:
        raise ConsentsRefused(errors)
    return found


def _version(kind: ConsentKind, value: Value, zone: ZoneInfo, now: datetime) -> ConsentVersion | None:
    entries = value.mapping(("version", "valid_from", "renew", *LANGUAGES), ("version", "zh"))
    name = _name(entries["version"]) if "version" in entries else None
    begins = _day(entries["valid_from"], zone) if "valid_from" in entries else now
    renew = entries["renew"].yes_no() if "renew" in entries else False
    texts = {language: _text(entries[language]) for language in LANGUAGES if language in entries}
    if name is None or begins is None or renew is None:
        return None
    whole: dict[str, ConsentText] = {language: text for language, text in texts.items() if text is not None}
    return (
        ConsentVersion(kind, name, begins, renew, whole)
        if "zh" in whole and len(whole) == len(texts)
        else None
    )


def _name(value: Value) -> str | None:
    text = value.text()
    if text is not None and (len(text) > VERSION_CHARS_MAX or not VERSION_CHARS.issuperset(text)):
        value.wrong(f"a version has at most {VERSION_CHARS_MAX} letters, digits and . _ -, like 2026.2")
        return None
    return text


def _day(value: Value, zone: ZoneInfo) -> datetime | None:
    text = value.text()
    if text is None:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time.min, zone)
    except ValueError:
        value.wrong(f"is {text!r}: write a day like 2026-12-01")
        return None


def _text(value: Value) -> ConsentText | None:
    entries = value.mapping(("title", "text"), ("title", "text"))
    title = entries["title"].text() if "title" in entries else None
    text = entries["text"].text() if "text" in entries else None
    if text is not None and len(text) > TEXT_CHARS_MAX:
        entries["text"].wrong(f"is longer than {TEXT_CHARS_MAX} characters: nobody would read it")
        return None
    return None if title is None or text is None else ConsentText(title, text)
