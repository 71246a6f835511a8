"""Rules for what comes in, read from YAML and checked to the last key: docs/INTAKE.md is the format.

The program's own file (web/intake/rules.yaml) has a section for each interface. A hospital's file has the
same sections and says only what is different: a field it names is replaced whole, `off` takes one out.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final

from engine.domain.intake import FieldRule, Figures, InterfaceRules, Plausible, Rules, Shape, number_of
from engine.records.hospital_rules import FileError
from engine.records.yaml_values import Value, read_yaml

BYTES_MAX: Final = 1024 * 1024
PATTERN_CHARS_MAX: Final = 500
CHARS_MAX: Final = 1_000_000
_DAYS_MAX: Final = 150 * 366

_INTERFACE: Final = re.compile(r"[a-z0-9_]{1,32}(\.[a-z0-9_]{1,32}){0,3}")
_PATH: Final = re.compile(r"[a-z0-9_]{1,64}(\[\])?(\.[a-z0-9_]{1,64}(\[\])?){0,7}")
_SECTIONS: Final = ("addressed", "fields", "orders", "figures")
_FIELD: Final = (
    "required",
    "shape",
    "chars_max",
    "items_max",
    "pattern",
    "among",
    "lowest",
    "highest",
    "past_max",
    "future_max",
)


class RulesRefused(Exception):
    """The file is not right; `errors` in its order."""

    def __init__(self, errors: Collection[FileError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: (error.line, error.column)))
        super().__init__("\n".join(map(str, self.errors)))


def read_rules(text: str, fallback: Rules | None = None, file: str = "intake.yaml") -> Rules:
    """What the text says over `fallback`, whose interfaces alone it may name then. Raises RulesRefused with
    every error found; `file` is its name there."""
    errors: list[FileError] = []
    top = read_yaml(text, file, errors)
    rules = dict(fallback or {})
    if top is not None:
        for name, (key, section) in top.entries().items():
            if fallback is not None and name not in fallback:
                key.wrong(f"unknown interface: known are {', '.join(fallback)}")
            elif not _INTERFACE.fullmatch(name):
                key.wrong("is no name of an interface: small letters, like lis.report")
            else:
                rules[name] = _interface(section, rules.get(name, InterfaceRules()))
    if errors:
        raise RulesRefused(errors)
    return rules


def _interface(section: Value, before: InterfaceRules) -> InterfaceRules:
    entries = section.mapping(_SECTIONS)
    rules = before
    if "addressed" in entries:
        rules = replace(rules, addressed=_addressed(entries["addressed"]))
    if "fields" in entries:
        fields = dict(before.fields)
        for path, (key, value) in entries["fields"].entries().items():
            if not _PATH.fullmatch(path):
                key.wrong("is no path: names joined by dots, [] after a list, like observations[].value")
            elif value.is_word("off"):
                fields.pop(path, None)
            else:
                fields[path] = _field(path, value)
        rules = replace(rules, fields=fields)
    if "orders" in entries:
        rules = replace(rules, orders=tuple(_order(one) for one in entries["orders"].items()))
    if "figures" in entries:
        rules = replace(rules, figures=_figures(entries["figures"], before.figures))
    return rules


def _addressed(value: Value) -> tuple[str, frozenset[str]] | None:
    if value.is_word("off"):
        return None
    entries = value.mapping(("field", "among"), ("field", "among"))
    if len(entries) != 2:
        return None
    path = _path(entries["field"])
    return None if path is None else (path, _words(entries["among"]))


def _field(path: str, value: Value) -> FieldRule:
    entries = value.mapping(_FIELD)
    number = {name: _number(entries[name]) if name in entries else None for name in ("lowest", "highest")}
    if (
        number["lowest"] is not None
        and number["highest"] is not None
        and number["lowest"] > number["highest"]
    ):
        entries["lowest"].wrong("is above the highest: nothing could pass")
    shape = entries["shape"].word([one.value for one in Shape]) if "shape" in entries else None
    return FieldRule(
        path,
        bool(entries["required"].yes_no()) if "required" in entries else False,
        None if shape is None else Shape(shape),
        entries["chars_max"].whole(1, CHARS_MAX) if "chars_max" in entries else None,
        entries["items_max"].whole(0, CHARS_MAX) if "items_max" in entries else None,
        _pattern(entries["pattern"]) if "pattern" in entries else None,
        _words(entries["among"]) if "among" in entries else None,
        number["lowest"],
        number["highest"],
        _span(entries, "past_max"),
        _span(entries, "future_max"),
    )


def _order(value: Value) -> tuple[str, ...]:
    paths = [_path(one) for one in value.items()]
    if len(paths) == 1:
        value.wrong("needs at least two paths: the earlier first")
    return tuple(path for path in paths if path is not None)


def _figures(value: Value, before: Figures | None) -> Figures | None:
    if value.is_word("off"):
        return None
    names = ("each", "code", "value", "unit")
    entries = value.mapping((*names, "codes"), () if before is not None else (*names, "codes"))
    said = {
        name: entries[name].text() or "" if name in entries else getattr(before, name, "") for name in names
    }
    codes = dict(before.codes) if before is not None else {}
    if "codes" in entries:
        for code, (_, limits) in entries["codes"].entries().items():
            if limits.is_word("off"):
                codes.pop(code, None)
            else:
                codes[code] = _plausible(limits)
    return Figures(said["each"], said["code"], said["value"], said["unit"], codes)


def _plausible(value: Value) -> Plausible:
    entries = value.mapping(("units", "lowest", "highest"))
    return Plausible(
        _words(entries["units"]) if "units" in entries else frozenset(),
        _number(entries["lowest"]) if "lowest" in entries else None,
        _number(entries["highest"]) if "highest" in entries else None,
    )


def _path(value: Value) -> str | None:
    text = value.text()
    if text is not None and not _PATH.fullmatch(text):
        value.wrong(f"is {text!r}: it must be a path like patient.name or observations[].value")
        return None
    return text


def _words(value: Value) -> frozenset[str]:
    return frozenset(word for word in (one.text() for one in value.items()) if word is not None)


def _number(value: Value) -> Decimal | None:
    text = value.text()
    number = None if text is None else number_of(text)
    if text is not None and number is None:
        value.wrong(f"is {text!r}: it must be a number, like 0.5")
    return number


def _pattern(value: Value) -> re.Pattern[str] | None:
    text = value.text()
    if text is None:
        return None
    if len(text) > PATTERN_CHARS_MAX:
        value.wrong(f"is longer than {PATTERN_CHARS_MAX} characters")
        return None
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        value.wrong(f"is no regular expression: {error}")
        return None


def _span(entries: Mapping[str, Value], name: str) -> int | None:
    return entries[name].duration("s", 0, _DAYS_MAX * 86_400) if name in entries else None
