"""Which bytes are which letters: MSH-18 says it, and bytes become text before anything is split.

The second byte of a character in GB18030 may be any of | ^ ~ and the backslash. Whoever splits bytes tears
such characters apart and shifts every field behind them.
"""

from typing import Final

from integrations.hl7v2.malformed import Malformed

UTF8: Final = "utf-8"
GB18030: Final = "gb18030"

NAMES: Final = {
    "ASCII": "ascii",
    "8859/1": "latin-1",
    "UNICODE UTF-8": UTF8,
    "UTF-8": UTF8,
    "UTF8": UTF8,
    "UNICODE": UTF8,
    "GB 18030-2000": GB18030,
    "GB18030": GB18030,
    "GB18030-2000": GB18030,
    "GBK": GB18030,
    "GB2312": GB18030,
    "BIG-5": "big5hkscs",
}
"""HL7 table 0211 and what vendors write instead. GBK and GB2312 are parts of GB18030."""
DECLARED: Final = {"ascii": "ASCII", UTF8: "UNICODE UTF-8", GB18030: "GB 18030-2000"}
"""What we write into MSH-18, of the charsets that we send."""
_AT: Final = 18


def decoded(raw: bytes, default: str = UTF8) -> tuple[str, str]:
    """The text, and its charset in Python's word. `default` where MSH-18 is empty. Raises Malformed."""
    charset = _declared(raw, default)
    try:
        return raw.decode(charset), charset
    except UnicodeDecodeError:
        raise Malformed("MSH-18", "charset", f"bytes that are no {charset}") from None


def _declared(raw: bytes, default: str) -> str:
    # A line end is never a part of another character, in none of these charsets.
    first = raw.split(b"\r", 1)[0].split(b"\n", 1)[0]
    for charset in dict.fromkeys((UTF8, default, GB18030, "big5hkscs", "latin-1")):
        try:
            name = _field(first.decode(charset))
        except UnicodeDecodeError:
            continue
        if not name:
            if charset in (UTF8, default):
                return default
            continue
        said = NAMES.get(name.upper())
        if charset == UTF8 and said is None:
            raise Malformed("MSH-18", "charset", "a charset that is not known")
        # Read as UTF-8 without a fault, its separators are where they seem to be, whatever it is declared
        # to be. Read as anything else, it must be declared to be just that.
        if said is not None and charset in (UTF8, said):
            return said
    raise Malformed("MSH-18", "charset", "bytes that are not what is declared")


def _field(header: str) -> str:
    if len(header) < 8 or not header.startswith("MSH"):
        return ""
    fields = header.split(header[3])
    if len(fields) < _AT:
        return ""
    # Further repetitions are of charsets to switch to by escapes, which nobody does.
    return fields[_AT - 1].split(header[5])[0].strip()
