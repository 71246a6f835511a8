r"""What a text must not contain, and how it is written instead. Pure.

    |  \F\     ^  \S\     &  \T\     ~  \R\     \  \E\     line ends and other control characters  \X0D\ ...

So a name can never end its field, its segment or its message, not even for a reader that splits lines at
more than a carriage return. Read, a sequence that is not known stays as it is written: a laboratory's lone
backslash is no reason to lose a result.
"""

import re
from typing import Final

from integrations.hl7v2.malformed import Malformed

FIELD, COMPONENT, REPETITION, ESCAPE, SUB = "|", "^", "~", "\\", "&"
ENCODING: Final = COMPONENT + REPETITION + ESCAPE + SUB
NULL: Final = '""'
"""A field of which the sender says: there is none, forget yours."""

_LETTERS: Final = {FIELD: "F", COMPONENT: "S", SUB: "T", REPETITION: "R", ESCAPE: "E"}
_UNSAFE: Final = re.compile(r"[|^&~\\\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HEX: Final = re.compile(r"X((?:[0-9A-Fa-f]{2})+)")
_BREAKS: Final = re.compile(r"\.(?:br|sp)\+?(\d{0,2})")
_BREAKS_MAX: Final = 10


def escaped(text: str, charset: str) -> str:
    if text == NULL:
        return "\\X2222\\"

    def instead(found: re.Match[str]) -> str:
        letter = _LETTERS.get(found[0])
        return f"\\{letter or 'X' + found[0].encode(charset).hex().upper()}\\"

    return _UNSAFE.sub(instead, text)


def unescaped(text: str, encoding: str, charset: str, where: str = "") -> str:
    """`encoding`: the message's MSH-1 and MSH-2. Raises Malformed where hexadecimal bytes are no text."""
    escape = encoding[3]
    if escape not in text:
        return text
    field, component, repetition, _, sub = tuple(encoding[:5])
    meant = {"F": field, "S": component, "T": sub, "R": repetition, "E": escape, "H": "", "N": ""}
    pieces: list[str] = []
    at = 0
    while (start := text.find(escape, at)) >= 0:
        end = text.find(escape, start + 1)
        if end < 0:
            break
        pieces.append(text[at:start])
        word = text[start + 1 : end]
        put = meant.get(word)
        if put is None:
            put = _other(word, charset, where)
        if put is None:
            # Not a sequence: the first backslash stands for itself, the second may begin one.
            pieces.append(text[start:end])
            at = end
        else:
            pieces.append(put)
            at = end + 1
    pieces.append(text[at:])
    return "".join(pieces)


def _other(word: str, charset: str, where: str) -> str | None:
    if found := _HEX.fullmatch(word):
        try:
            return bytes.fromhex(found[1]).decode(charset)
        except UnicodeDecodeError:
            raise Malformed(where, "escape", "hexadecimal bytes that are no text") from None
    if found := _BREAKS.fullmatch(word):
        return "\n" * min(int(found[1] or 1), _BREAKS_MAX)
    return None
