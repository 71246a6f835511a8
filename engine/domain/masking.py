"""A patient's name as a screen in a waiting hall may show it: enough to know oneself, too little to be known.

Chinese names keep the first and the last character (张*明, 欧**明; of two the first: 张*). Names that are
written in words keep each word's first letter (J*** S***), however long it is. Pure.
"""

from typing import Final

STAR: Final = "*"
ERASED_NAME: Final = "已注销"
"""In the place of a name that was erased. It is nobody's, so it is shown whole."""

_SIGNS: Final = (  # scripts whose names are a few signs without a space
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # 々〆〇
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7AF),  # Hangul
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
_BETWEEN: Final = "·•・‧"  # 买买提·艾力: within a name of signs


def masked(name: str) -> str:
    """`name` without its middle. What is blank gives an empty text."""
    if name == ERASED_NAME:
        return name
    words = name.split()
    signs = "".join(words)  # 张　明: some write names of two signs as wide as those of three
    if not signs:
        return ""
    if all(c in _BETWEEN or _is_sign(c) for c in signs):
        return signs[0] + STAR if len(signs) < 3 else signs[0] + STAR * (len(signs) - 2) + signs[-1]
    return " ".join(word[0] + STAR * 3 for word in words)


def _is_sign(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _SIGNS)
