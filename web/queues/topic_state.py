"""What a topic shows, in parts, and what is other than it was.

A part is named by its section and its key, and is plain data that orjson can write. Whoever was told an older
state is told the parts that differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """`version` is that of what it was made of: it grows."""

    sections: Sections
    version: int


def difference(old: Sections, new: Sections) -> Sections:
    """The parts of `new` that `old` does not have as they are; what is gone is None."""
    found: dict[str, dict[str, Any]] = {}
    for name, parts in new.items():
        before = old.get(name, {})
        changed = {key: part for key, part in parts.items() if key not in before or before[key] != part}
        changed.update((key, None) for key in before if key not in parts)
        if changed:
            found[name] = changed
    return found
