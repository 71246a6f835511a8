"""大写金额: the examples of the rule itself, and every amount against a slower way to say it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.money import capitals, fen_of, plain_yuan, yuan

DIGITS = "零壹贰叁肆伍陆柒捌玖"


@pytest.mark.parametrize(
    ("fen", "words"),
    [
        (12_345, "壹佰贰拾叁元肆角伍分"),
        # Those of 支付结算办法, 附一.
        (140_950, "壹仟肆佰零玖元伍角整"),
        (600_714, "陆仟零柒元壹角肆分"),
        (168_032, "壹仟陆佰捌拾元零叁角贰分"),
        (10_700_053, "壹拾万柒仟元零伍角叁分"),
        (1_640_902, "壹万陆仟肆佰零玖元零贰分"),
        (32_504, "叁佰贰拾伍元零肆分"),
        # Ends.
        (0, "零元整"),
        (1, "壹分"),
        (10, "壹角整"),
        (11, "壹角壹分"),
        (100, "壹元整"),
        (105, "壹元零伍分"),
        (1_000, "壹拾元整"),
        (1_010, "壹拾元零壹角整"),
        (100_000_000, "壹佰万元整"),
        (10_000_000_000, "壹亿元整"),
        (10_001_000_000, "壹亿零壹万元整"),
        (1_000_000_000_100, "壹佰亿零壹元整"),
        (99_999_999_999_999, "玖仟玖佰玖拾玖亿玖仟玖佰玖拾玖万玖仟玖佰玖拾玖元玖角玖分"),
    ],
)
def test_an_amount_in_capitals(fen: int, words: str) -> None:
    assert capitals(fen) == words


AMOUNTS = st.one_of(
    st.integers(0, 10**14 - 1),
    st.integers(0, 10**6),
    st.integers(0, 10**7).map(lambda n: n * 100),
    st.lists(st.sampled_from("000123"), min_size=14, max_size=14).map(lambda some: int("".join(some))),
)


@given(AMOUNTS)
def test_any_amount_is_as_the_slow_way_says(fen: int) -> None:
    assert capitals(fen) == slowly(fen)


@given(AMOUNTS)
def test_any_amount_is_read_as_what_it_was(fen: int) -> None:
    assert read(capitals(fen)) == fen
    assert "零零" not in capitals(fen)


def slowly(fen: int) -> str:
    """One character after the other, from the left."""
    said, digits = "", f"{fen // 100:012d}"
    for index, digit in enumerate(digits):
        place = index % 4
        if digit != "0":
            # A nought is said once, when something follows it. Before 仟 only where a whole group is empty.
            silent = digits[max(0, index - 4) : index] if place == 0 else digits[index - 1 : index]
            said += (
                ("零" if said and not silent.strip("0") else "")
                + DIGITS[int(digit)]
                + "仟佰拾 "[place].strip()
            )
        if place == 3 and digits[index - 3 : index + 1] != "0000":
            said += "亿万 "[index // 4].strip()
    jiao, cents = DIGITS[fen // 10 % 10], DIGITS[fen % 10]
    if jiao == cents == "零":
        return f"{said or '零'}元整"
    parts = (f"{jiao}角" if jiao != "零" else "") + (f"{cents}分" if cents != "零" else "整")
    if not said:
        return parts
    return f"{said}元{'零' if jiao == '零' or digits.endswith('0') else ''}{parts}"


def read(words: str) -> int:
    """The fen that somebody reads there, who knows digits and places and nothing of the rule."""
    fen = group = digit = whole = 0
    for sign in words:
        if sign in DIGITS:
            digit = DIGITS.index(sign)
        elif sign in "拾佰仟":
            group, digit = group + digit * 10 ** ("拾佰仟".index(sign) + 1), 0
        elif sign in "万亿":
            whole, group, digit = whole + (group + digit) * (10_000 if sign == "万" else 10**8), 0, 0
        elif sign == "元":
            fen, group, digit = (whole + group + digit) * 100, 0, 0
        elif sign in "角分":
            fen, digit = fen + digit * (10 if sign == "角" else 1), 0
    return fen


@pytest.mark.parametrize(
    "text", ["", "1,000", "1.5", "1.", ".50", "-1", "+1", "1.234", "1e3", "１", "1.00 ", "0x1"]
)
def test_what_is_no_amount(text: str) -> None:
    assert fen_of(text) is None


@given(st.integers(0, 10**11 - 1))
def test_an_amount_comes_back_from_its_figures(fen: int) -> None:
    assert fen_of(plain_yuan(fen)) == fen
    assert yuan(fen) == f"¥{plain_yuan(fen)}"
    assert yuan(-fen) == (f"-¥{plain_yuan(fen)}" if fen else "¥0.00")


def test_whole_yuan_need_no_fen() -> None:
    assert fen_of("25") == fen_of("25.00") == 2_500
