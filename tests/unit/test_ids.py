"""Three spellings of a day, one id for a retry."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.ids import ScheduleKey, appointment_id

names = st.text(string.ascii_letters + string.digits + "_.", min_size=1, max_size=32)
days = st.dates().map(lambda day: day.isoformat())
clocks = st.builds(lambda hour, half: f"{hour:02d}{half}", st.integers(0, 23), st.sampled_from(["00", "30"]))


@given(names, days, clocks)
def test_each_spelling_of_a_day_reads_back(practitioner: str, day: str, clock: str) -> None:
    key = ScheduleKey(practitioner, day)
    assert ScheduleKey.of_stream(key.stream) == key
    assert ScheduleKey.of_schedule(key.schedule_id) == key
    assert ScheduleKey.of_slot(key.slot_id(clock)) == (key, clock)


def test_the_spellings_are_pinned() -> None:
    key = ScheduleKey("D0012", "2026-11-24")
    assert key.stream == "schedule/D0012/2026-11-24"
    assert key.schedule_id == "D0012-20261124"
    assert key.slot_id("0830") == "D0012-20261124-0830"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "D0012",
        "D0012-20261124",
        "D0012-20261124-0815",
        "D0012-20261124-2400",
        "D0012-20261124-830",
        "D0012-2026112-0830",
        "D0012-20261124-0830 ",
        "D0012-20261124-0830\n",
        " D0012-20261124-0830",
        "D/0012-20261124-0830",
        "-20261124-0830",
        "医生-20261124-0830",
        "D" * 33 + "-20261124-0830",
        "D0012-20261124-0830-0830",
    ],
)
def test_what_is_not_spelled_like_a_slot_is_none(bad: str) -> None:
    assert ScheduleKey.of_slot(bad) is None


def test_digits_of_another_script_make_no_day() -> None:
    """Two spellings of one day would be two actors."""
    assert ScheduleKey.of_slot("D0012-２０２６1124-0830") is None
    assert ScheduleKey.of_schedule("D0012-２０２６1124") is None


@pytest.mark.parametrize("bad", ["", "D0012", "D0012-20261124-0800", "D0012-2026-11-24", "D0012-20261124\n"])
def test_what_is_not_spelled_like_a_schedule_is_none(bad: str) -> None:
    assert ScheduleKey.of_schedule(bad) is None


def test_an_appointments_id_is_pinned() -> None:
    """A retry after an upgrade must find its first answer: nobody changes this by accident."""
    assert appointment_id(bytes(16), "key").hex() == "596d6c6f4ff98011839605766f186f45"


@given(st.binary(min_size=16, max_size=16), st.text(min_size=1, max_size=128))
def test_an_appointments_id_is_a_uuid_of_version_8_and_a_function(account: bytes, key: str) -> None:
    one = appointment_id(account, key)
    assert one == appointment_id(account, key)
    assert len(one) == 16
    assert one[6] >> 4 == 8 and one[8] >> 6 == 0b10


@given(
    st.tuples(st.binary(min_size=16, max_size=16), st.text(max_size=20)),
    st.tuples(st.binary(min_size=16, max_size=16), st.text(max_size=20)),
)
def test_another_account_or_key_has_another_id(one: tuple[bytes, str], two: tuple[bytes, str]) -> None:
    assert (appointment_id(*one) == appointment_id(*two)) == (one == two)
