"""What keys of policy.yaml take: a table of them reads a mapping, field by field.

A taker gives the value as what its field holds. What is wrong has then been told in its place, and WRONG is
given: None may have a meaning of its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.records.yaml_values import WRONG, Value, Wrong

NAME_CHARS_MAX: Final = 64

Layer = dict[str, Any]
"""Fields of a part of the policy, by name: what one level of the file says of them."""

Take = Callable[[Value], Any]


def put(into: Layer, name: str, value: object) -> None:
    """What was wrong has been told and is left out."""
    if not isinstance(value, Wrong):
        into[name] = value


def layer(entries: Mapping[str, Value], table: Mapping[str, tuple[str, Take]]) -> Layer:
    """The fields that the entries give. The table: key -> (field, what it takes); other keys stay."""
    given: Layer = {}
    for key, (field_name, take) in table.items():
        if key in entries:
            put(given, field_name, take(entries[key]))
    return given


def sure(take: Callable[[Value], Any]) -> Take:
    """For takers whose None means that something was wrong."""

    def taken(value: Value) -> Any:
        found = take(value)
        return WRONG if found is None else found

    return taken


def whole_number(lowest: int, highest: int) -> Take:
    return sure(lambda value: value.whole(lowest, highest))


def limit(highest: int) -> Take:
    return lambda value: value.whole_or("none", 0, highest)


def seconds(lowest: int, highest: int) -> Take:
    return sure(lambda value: value.duration("s", lowest, highest))


def minutes(highest: int) -> Take:
    return sure(lambda value: value.duration("m", 0, highest))


def days(lowest: int, highest: int) -> Take:
    return sure(lambda value: value.duration("d", lowest, highest))


def one_of(words: type[Any]) -> Take:
    """A word of a StrEnum."""

    def taken(value: Value) -> Any:
        word = value.word([each.value for each in words])
        return WRONG if word is None else words(word)

    return taken


yes_no: Final[Take] = sure(Value.yes_no)


def name_of(value: Value, chars_max: int = NAME_CHARS_MAX) -> str | None:
    text = value.text()
    if text is not None and (len(text) > chars_max or not text.isprintable()):
        value.wrong(f"a name has at most {chars_max} characters, and none that cannot be seen")
        return None
    return text
