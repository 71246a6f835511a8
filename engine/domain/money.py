"""Money is an int of fen. Nothing else: no floats, no currencies."""

import re
from typing import Final

_YUAN: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{2})?", re.ASCII)
_DIGITS: Final = "零壹贰叁肆伍陆柒捌玖"
_PLACES: Final = ("", "拾", "佰", "仟")
_GROUPS: Final = ("", "万", "亿")


def yuan(fen: int) -> str:
    """As people read it: 5000 -> '¥50.00', -5 -> '-¥0.05'."""
    sign = "-" if fen < 0 else ""
    return f"{sign}¥{plain_yuan(abs(fen))}"


def plain_yuan(fen: int) -> str:
    """Without the sign of the currency, for a table or a form: 5000 -> '50.00'. Not below 0."""
    assert fen >= 0
    return f"{fen // 100}.{fen % 100:02d}"


def fen_of(text: str) -> int | None:
    """The other way round: '50.00' and '50' -> 5000, exactly. None for all else, as '50.5' or '1,000'."""
    if not _YUAN.fullmatch(text):
        return None
    whole, _, part = text.partition(".")
    return int(whole) * 100 + int(part or 0)


def capitals(fen: int) -> str:
    """大写金额, as receipts have it so that nobody adds a stroke: 12345 -> '壹佰贰拾叁元肆角伍分'.

    By the rules for vouchers of the People's Bank (支付结算办法, 附一): several noughts in the middle are one
    零; so is a nought before the 元 when 角 or 分 follow; whole 元 and whole 角 end with 整. Not below 0, and
    below a trillion yuan.
    """
    assert 0 <= fen < 10**14
    whole, jiao, cents = fen // 100, fen // 10 % 10, fen % 10
    said = f"{_whole(whole)}元" if whole else ""
    if not jiao and not cents:
        return f"{said or '零元'}整"
    if said and (not jiao or not whole % 10):
        said += "零"
    if jiao:
        said += f"{_DIGITS[jiao]}角"
    return said + (f"{_DIGITS[cents]}分" if cents else "整")


def _whole(number: int) -> str:
    """Four digits at a time, from the left. Above 0."""
    said, skipped = "", False
    for index in range(len(_GROUPS) - 1, -1, -1):
        group = number // 10_000**index % 10_000
        if not group:
            skipped = bool(said)
            continue
        if said and (skipped or group < 1_000):
            said += "零"
        skipped = False
        said += _group(group) + _GROUPS[index]
    return said


def _group(number: int) -> str:
    """1 to 9999, without a nought before it."""
    said, skipped = "", False
    for place in range(3, -1, -1):
        digit = number // 10**place % 10
        if digit:
            said += ("零" if said and skipped else "") + _DIGITS[digit] + _PLACES[place]
            skipped = False
        else:
            skipped = True
    return said
