"""Which base backup, which WAL, when the next one, and what may go."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backup import layout
from engine.backup.archive import is_due
from engine.backup.chains import Held, chosen, outlived
from engine.backup.failed import BackupFailed
from engine.backup.layout import Base
from engine.backup.restore import wanted

SIZE = 16 * 1024 * 1024
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")


def base(chain: str, hours: float, start: int = 2, end: int = 2) -> Base:
    """Started so many hours after noon, complete a minute later; from and to a segment's number."""
    at = NOON + timedelta(hours=hours)
    return Base(
        chain,
        layout.base_name(at),
        at.isoformat(),
        (at + timedelta(minutes=1)).isoformat(),
        start * SIZE + 40,
        end * SIZE + 400,
        timeline=1,
        parts=2,
        sealed_bytes=1,
        major=18,
        segment_bytes=SIZE,
        database="xinglin",
        owner="xinglin",
    )


def segment(number: int) -> str:
    return layout.segment_name(1, number, SIZE)


def held(chain: str, bases: list[Base], whole: range, pieces: dict[int, list[int]] | None = None) -> Held:
    names = [layout.wal_name(chain, segment(number)) for number in whole]
    names += [layout.wal_name(chain, segment(n), o) for n, offs in (pieces or {}).items() for o in offs]
    return Held(chain, bases, layout.wal_of(names), [])


@given(st.integers(0, 2**63 - 1), st.sampled_from([2**20, SIZE, 2**30]))
def test_names_of_segments_are_postgresqls(lsn: int, size: int) -> None:
    name = layout.segment_of(lsn, 1, size)
    assert layout.segment_number(name, size) == lsn // size
    assert layout.lsn_of(layout.lsn_text(lsn)) == lsn


def test_a_name_as_postgresql_says_it() -> None:
    # select pg_walfile_name('16/B374D848') on timeline 1
    assert layout.segment_of(layout.lsn_of("16/B374D848"), 1, SIZE) == "0000000100000016000000B3"


def test_the_newest_base_that_was_complete_by_then() -> None:
    chains = [
        held("a", [base("a", 0), base("a", 24)], range(2, 3)),
        held("b", [base("b", 48)], range(2, 3)),
    ]
    assert chosen(chains, None)[1] == base("b", 48)
    assert chosen(chains, NOON + timedelta(hours=30))[1] == base("a", 24)
    assert chosen(chains, NOON + timedelta(minutes=1))[1] == base("a", 0)
    with pytest.raises(BackupFailed, match="--until is before it"):
        chosen(chains, NOON + timedelta(seconds=59))
    with pytest.raises(BackupFailed, match="no complete base"):
        chosen([held("a", [], range(2, 9))], None)


def test_wal_from_the_base_on_whole_before_pieces() -> None:
    b = base("a", 0, start=3, end=4)
    files = wanted(held("a", [b], range(1, 7), {7: [0, 8192]}), b, None)
    assert [(wal.segment, wal.offset) for wal in files] == [
        *((segment(n), None) for n in (3, 4, 5, 6)),
        (segment(7), 0),
        (segment(7), 8192),
    ]


def test_pieces_that_a_whole_segment_replaced_are_not_fetched() -> None:
    b = base("a", 0)
    files = wanted(held("a", [b], range(2, 4), {3: [0, 8192]}), b, None)
    assert [(wal.segment, wal.offset) for wal in files] == [(segment(2), None), (segment(3), None)]


@pytest.mark.parametrize("lost", [4, 5, 6])
def test_a_segment_that_is_missing_in_the_middle_is_named(lost: int) -> None:
    b = base("a", 0, start=3, end=4)
    chain = held("a", [b], range(3, 8))
    left = replace(chain, wal=[wal for wal in chain.wal if wal.segment != segment(lost)])
    with pytest.raises(BackupFailed, match=f"{segment(lost)} is missing"):
        wanted(left, b, None)


def test_a_segment_in_the_middle_of_which_only_pieces_are_there_is_missing() -> None:
    b = base("a", 0)
    with pytest.raises(BackupFailed, match=f"{segment(3)} is missing"):
        wanted(held("a", [b], range(2, 3), {3: [0], 4: [0]}), b, None)


def test_a_base_alone_needs_no_wal() -> None:
    b = base("a", 0)
    assert wanted(held("a", [b], range(0)), b, None) == []


def test_wal_after_a_later_base_is_not_fetched_for_an_earlier_moment() -> None:
    first, second = base("a", 0, 2, 2), base("a", 24, 50, 51)
    files = wanted(held("a", [first, second], range(2, 90)), first, NOON + timedelta(hours=3))
    assert (files[0].segment, files[-1].segment) == (segment(2), segment(51))


def test_the_night_is_the_hospitals() -> None:
    three = datetime(2026, 11, 23, 3, tzinfo=SHANGHAI)
    before, after = three - timedelta(minutes=1), three + timedelta(minutes=1)
    assert is_due(None, NOON, 3, SHANGHAI)
    assert is_due(three - timedelta(hours=24), after, 3, SHANGHAI)
    assert not is_due(three - timedelta(hours=24), before.astimezone(UTC), 3, SHANGHAI)
    assert not is_due(after, after + timedelta(hours=20), 3, SHANGHAI)
    assert is_due(three - timedelta(days=9), before, 3, SHANGHAI), "nights that were missed are made up for"


def test_only_so_many_are_kept_and_the_wal_that_they_need() -> None:
    old = held("a", [base("a", 0, 2, 2)], range(2, 9))
    now = held("b", [base("b", 24, 20, 21), base("b", 48, 30, 31), base("b", 72, 40, 41)], range(20, 45))
    gone = outlived([old, now], 2, "b")
    assert base("b", 24).manifest in gone and base("b", 24).part(1) in gone
    assert base("b", 48).manifest not in gone and base("b", 72).manifest not in gone
    assert {"a/chain", "a/head", base("a", 0).manifest} < set(gone)
    wal = {name for name in gone if name.startswith("b/wal")}
    assert wal == {layout.wal_name("b", segment(n)) for n in range(20, 30)}
    assert gone.index(base("a", 0).manifest) < gone.index(base("a", 0).part(0)), (
        "a half one must not look whole"
    )


def test_a_new_chain_before_its_first_base_keeps_everything() -> None:
    old = held("a", [base("a", 0), base("a", 24)], range(2, 9))
    new = held("b", [], range(2, 4))
    assert outlived([old, new], 2, "b") == []


def test_what_a_failed_base_left_goes_when_a_later_one_is_complete() -> None:
    left = "a/base-20261123T110000Z.00000"
    chain = replace(held("a", [base("a", 0)], range(2, 3)), unfinished=[left])
    going = replace(chain, unfinished=["a/base-20261123T130000Z.00000"])
    assert outlived([chain], 7, "a") == [left]
    assert outlived([going], 7, "a") == []


@given(st.integers(0, 7 * 10**15), st.integers(1, 3_000_000))
def test_chains_sort_as_they_began_even_within_one_second(at_us: int, later_us: int) -> None:
    first = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at_us)
    later = first + timedelta(microseconds=later_us)
    # What was drawn for the ids' ends must not decide.
    assert layout.chain_id(first, "ffffff") < layout.chain_id(later, "000000")
