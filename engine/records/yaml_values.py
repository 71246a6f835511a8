"""Values of a YAML file that know where they stand.

Nodes only, which have their lines; nothing is ever constructed from a tag. Every taker gives the value as
what it should be, or adds an error that says what to do and gives None.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from engine.records.hospital_rules import FileError

_INT: Final = re.compile(r"-?[0-9]{1,9}")
_CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_YES_NO: Final = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Value:
    node: yaml.Node
    path: str  # defaults.pools[0].percent; empty for the whole file
    file: str
    errors: list[FileError]

    def wrong(self, reason: str) -> None:
        mark = self.node.start_mark
        told = f"{self.path}: {reason}" if self.path else reason
        self.errors.append(FileError(self.file, mark.line + 1, told, mark.column + 1))

    def wrong_once(self, reason: str) -> None:
        """`wrong`, unless it has been told that something is wrong in this very place."""
        mark = self.node.start_mark
        place = self.file, mark.line + 1, mark.column + 1
        if not any((error.file, error.line, error.column) == place for error in self.errors):
            self.wrong(reason)

    def entries(self) -> "dict[str, tuple[Value, Value]]":
        """Key -> (the key itself, its value); keys that appear twice or are no plain words are errors."""
        if not isinstance(self.node, yaml.MappingNode):
            self.wrong("must be a mapping: one `key: value` a line")
            return {}
        found: dict[str, tuple[Value, Value]] = {}
        for key_node, node in self.node.value:
            word = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            key = self._below(key_node, "?" if word is None else word)
            if word is None:
                key.wrong("a key must be a plain word: correct it")
            elif word == "<<":
                key.wrong("is not read: what is more particular inherits by itself; remove it")
            elif word in found:
                line = found[word][0].node.start_mark.line + 1
                key.wrong(f"duplicate key, already on line {line}: keep one of the two")
            else:
                found[word] = key, self._below(node, word)
        return found

    def mapping(self, known: Sequence[str], required: Sequence[str] = ()) -> "dict[str, Value]":
        found = {}
        for word, (key, value) in self.entries().items():
            if word in known:
                found[word] = value
            else:
                key.wrong(f"unknown key: known are {', '.join(known)}")
        if isinstance(self.node, yaml.MappingNode):
            for word in required:
                if word not in found:
                    self.wrong(f"missing key {word!r}: add it")
        return found

    def entries_quietly(self) -> "dict[str, Value]":
        """Key -> value, of what is a mapping, for those who check it elsewhere."""
        if not isinstance(self.node, yaml.MappingNode):
            return {}
        return {
            key.value: self._below(node, key.value)
            for key, node in reversed(self.node.value)
            if isinstance(key, yaml.ScalarNode)
        }

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    def is_word(self, word: str) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.value.strip() == word

    def items(self) -> "list[Value]":
        if isinstance(self.node, yaml.SequenceNode):
            return [
                Value(n, f"{self.path}[{i}]", self.file, self.errors) for i, n in enumerate(self.node.value)
            ]
        self.wrong("must be a list: one entry a line, each after '- ', or [] for none")
        return []

    def text(self) -> str | None:
        if isinstance(self.node, yaml.ScalarNode) and self.node.value.strip():
            return str(self.node.value).strip()
        blank = isinstance(self.node, yaml.ScalarNode)
        self.wrong("is blank: fill it in or remove the key" if blank else "must be a plain value")
        return None

    def word(self, among: Sequence[str]) -> str | None:
        text = self.text()
        if text is None or text in among:
            return text
        self.wrong(f"is {text!r}: it must be one of {', '.join(among)}")
        return None

    def whole(self, lowest: int, highest: int) -> int | None:
        text = self.text()
        if text is None or (_INT.fullmatch(text) and lowest <= int(text) <= highest):
            return None if text is None else int(text)
        self.wrong(f"is {text!r}: it must be a whole number from {lowest} to {highest}")
        return None

    def whole_or(self, nothing: str, lowest: int, highest: int) -> "int | None | Wrong":
        """A number, or a word that stands for no limit, which gives None."""
        if self.is_word(nothing):
            return None
        number = self.whole(lowest, highest)
        return WRONG if number is None else number

    def yes_no(self) -> bool | None:
        text = self.text()
        if text is not None and text.lower() not in _YES_NO:
            self.wrong(f"is {text!r}: write yes or no")
            return None
        return None if text is None else _YES_NO[text.lower()]

    def duration(self, unit: str, lowest: int, highest: int) -> int | None:
        """As a number of `unit` (s, m, h, d), from lowest to highest of these."""
        text = self.text()
        if text is None:
            return None
        found = _DURATION.fullmatch(text)
        if found is None:
            self.wrong(
                f"is {text!r}: write a whole number and its unit, like 30s, 15m, 2h or 7d (none: 0{unit})"
            )
            return None
        count, rest = divmod(int(found[1]) * _SECONDS[found[2]], _SECONDS[unit])
        if rest:
            self.wrong(f"is {text!r}: it is counted in whole {_UNITS[unit]}, so write some of these")
            return None
        if not lowest <= count <= highest:
            self.wrong(f"is {text!r}: it must be from {lowest}{unit} to {highest}{unit}")
            return None
        return count

    def clock(self) -> int | None:
        """Minutes after midnight."""
        text = self.text()
        found = None if text is None else _CLOCK.fullmatch(text)
        if found is None:
            if text is not None:
                self.wrong(f'is {text!r}: write a time of the day as "HH:MM", like "07:30"')
            return None
        return int(found[1]) * 60 + int(found[2])

    def _below(self, node: yaml.Node, word: str) -> "Value":
        return Value(node, f"{self.path}.{word}" if self.path else word, self.file, self.errors)


class Wrong:
    """What a taker gives when None has a meaning of its own."""


WRONG: Final = Wrong()


def read_yaml(text: str, file: str, errors: list[FileError]) -> Value | None:
    """The one document of the text; None, with an error, when there is none or it is not YAML."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        errors.append(FileError(file, line, f"not YAML: {error.problem or error.context}", column))
        return None
    except (yaml.YAMLError, RecursionError) as error:
        errors.append(FileError(file, 0, f"not YAML: {' '.join(str(error).split())}"))
        return None
    if node is None:
        errors.append(FileError(file, 1, "is empty: write `defaults: {}` if everything is as by default"))
        return None
    return Value(node, "", file, errors)
