"""Codes on paper for who has lost the telephone: 120 random bits each, good once."""

import re
import secrets
from typing import Final

CODES: Final = 10
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is read as something else
_CHARS: Final = 25  # of 31 letters: 123 bits
_GROUP: Final = 5
_CODE: Final = re.compile(f"[{_ALPHABET}]{{{_CHARS}}}")
CHARS_MAX: Final = 40  # with whatever stands between the groups


def new_codes() -> list[str]:
    """As people read them: five groups of five."""
    return ["-".join(_group() for _ in range(_CHARS // _GROUP)) for _ in range(CODES)]


def normal(typed: str) -> str | None:
    """The bare code, however it was typed. None: this is no recovery code."""
    bare = re.sub(r"[\s\-]", "", typed).lower()
    return bare if _CODE.fullmatch(bare) else None


def _group() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_GROUP))
