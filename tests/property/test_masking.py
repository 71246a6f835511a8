"""Masked names: known ones by example; whatever the name, its middle is never shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.masking import masked
from engine.domain.waiting_terms import ScreenTerms, Shows


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("张晓明", "张*明"),
        ("张伟", "张*"),
        ("张　伟", "张*"),  # written as wide as three
        (" 张晓明 ", "张*明"),
        ("张", "张*"),
        ("欧阳修文", "欧**文"),
        ("买买提·艾力", "买****力"),
        ("𠮷野家", "𠮷*家"),
        ("김민준", "김*준"),
        ("John Smith", "J*** S***"),
        ("  Ana   María  de la Cruz ", "A*** M*** d*** l*** C***"),
        ("Li", "L***"),
        ("O'Neill-Jones", "O***"),
        ("张John", "张***"),
        ("Смирнов Иван", "С*** И***"),
        ("", ""),
        (" \u3000\n", ""),
    ],
)
def test_names(name: str, shown: str) -> None:
    assert masked(name) == shown


SIGNS = st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)
LETTERS = st.characters(categories=("L", "M", "P", "Nd"), exclude_characters="*")


@given(st.lists(SIGNS, min_size=1, max_size=12, unique=True))
def test_a_name_of_signs_shows_its_ends_at_most(signs: list[str]) -> None:
    shown = masked("".join(signs))
    assert shown[0] == signs[0]
    assert len(shown) == max(2, len(signs))
    assert set(shown) & set(signs[1:-1]) == set()
    assert (signs[-1] in shown) == (len(signs) > 2 or len(signs) == 1)


@given(st.lists(st.text(LETTERS, min_size=1, max_size=10), min_size=1, max_size=5))
def test_no_name_shows_more_than_the_first_of_each_word_or_its_two_ends(words: list[str]) -> None:
    name = " ".join(words)
    shown = masked(name).replace("*", "").split()
    signs = "".join(words)
    ends = {signs[0], signs[0] + signs[-1]}
    assert shown == [word[0] for word in words] or (len(shown) == 1 and shown[0] in ends)


@given(st.text(max_size=20))
def test_only_what_is_blank_gives_nothing(name: str) -> None:
    assert bool(masked(name)) == bool(name.strip())
    assert all(len(word) > 1 for word in masked(name).split(" ") if word)


NAMES = st.text(SIGNS, min_size=2, max_size=6) | st.text(
    st.characters(categories=("L",)), min_size=2, max_size=9
)


@given(NAMES, st.sampled_from(Shows), st.booleans())
def test_a_screen_shows_no_more_of_a_name_than_it_may(name: str, shows: Shows, masks: bool) -> None:
    zh, en = ScreenTerms(masks, shows).words("ordinary", "A012", name, "301")
    for text in (zh, en):
        assert ("A012" in text) == (shows is not Shows.NAME)
        assert (name in text) == (shows is not Shows.NUMBER and not masks)
        assert (masked(name) in text) == (shows is not Shows.NUMBER and masks)
        assert "{" not in text and "  " not in text and " ," not in text


def test_a_name_with_a_placeholder_in_it_stays_a_name() -> None:
    screen = ScreenTerms(masks_names=False, text_zh="{name} {room}", texts={"expert": ("{room}", "{number}")})
    assert screen.words("ordinary", "A1", "{room}", "301")[0] == "{room} 301"
    assert screen.words("expert", "A1", "x", "301") == ("301", "A1")
