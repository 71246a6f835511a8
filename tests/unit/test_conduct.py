"""Which offences make a block, and how long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.conduct import PRESETS, judge
from engine.domain.policy import ConductRule, Offence, Subject

DAY = 86_400_000
THREE = ConductRule("three", Offence.NO_SHOW, Subject.PATIENT, 3, 90, 180)
TWO_CANCELS = ConductRule("cancels", Offence.CANCEL, Subject.PATIENT, 2, 30, 30)
LONG = 10_000 * DAY


def no_shows(*days: float) -> list[tuple[Offence, int]]:
    return [(Offence.NO_SHOW, int(day * DAY)) for day in days]


def test_the_third_within_the_window_blocks_from_that_moment() -> None:
    (verdict,) = judge(no_shows(10, 20, 30), [THREE], LONG)
    assert (verdict.begins, verdict.ends) == (30 * DAY, 210 * DAY)
    assert verdict.evidence == (0, 1, 2)
    assert verdict.rule is THREE


def test_two_do_not() -> None:
    assert judge(no_shows(10, 20), [THREE], LONG) == []


def test_one_that_is_a_whole_window_old_no_longer_counts() -> None:
    assert judge(no_shows(10, 20, 100), [THREE], LONG) == []
    assert judge([(Offence.NO_SHOW, 10 * DAY + 1), *no_shows(20, 100)], [THREE], LONG) != []


def test_what_has_served_for_one_block_does_not_serve_for_the_next() -> None:
    verdicts = judge(no_shows(1, 2, 3, 4, 5, 6), [THREE], LONG)
    assert [verdict.evidence for verdict in verdicts] == [(0, 1, 2), (3, 4, 5)]
    assert len(judge(no_shows(1, 2, 3, 4, 5), [THREE], LONG)) == 1


def test_the_future_does_not_count_yet() -> None:
    assert judge(no_shows(1, 2, 3), [THREE], 3 * DAY - 1) == []
    assert judge(no_shows(1, 2, 3), [THREE], 3 * DAY) != []


def test_order_does_not_matter_and_evidence_says_which() -> None:
    (verdict,) = judge(no_shows(30, 10, 20), [THREE], LONG)
    assert verdict.evidence == (1, 2, 0)


def test_each_rule_counts_its_own_offence() -> None:
    mixed = [*no_shows(1, 2), (Offence.CANCEL, 3 * DAY), (Offence.CANCEL, 4 * DAY)]
    (verdict,) = judge(mixed, [THREE, TWO_CANCELS], LONG)
    assert verdict.rule is TWO_CANCELS
    assert verdict.evidence == (2, 3)


def test_one_offence_may_serve_two_rules() -> None:
    strict = ConductRule("strict", Offence.NO_SHOW, Subject.PATIENT, 1, 1, 1)
    assert len(judge(no_shows(1, 2, 3), [THREE, strict], LONG)) == 4


@pytest.mark.parametrize("name", PRESETS)
def test_presets_block_at_their_count_and_not_before(name: str) -> None:
    for rule in PRESETS[name]:
        offences = [(rule.offence, n) for n in range(rule.count)]
        assert judge(offences[:-1], [rule], LONG) == []
        assert len(judge(offences, [rule], LONG)) == 1
    names = [rule.name for rules in PRESETS.values() for rule in rules]
    assert len(set(names)) == len(names), "a penalty names its rule"


OFFENCES = st.lists(st.tuples(st.sampled_from(Offence), st.integers(0, 400 * DAY)), max_size=40)


@settings(deadline=None)
@given(OFFENCES, st.integers(0, 400 * DAY))
def test_no_offence_serves_a_rule_twice_and_later_ones_change_nothing_earlier(
    offences: list[tuple[Offence, int]], now: int
) -> None:
    rules = [THREE, TWO_CANCELS]
    found = judge(offences, rules, LONG)
    for rule in rules:
        served = [n for verdict in found if verdict.rule is rule for n in verdict.evidence]
        assert len(set(served)) == len(served)
    for verdict in found:
        times = sorted(offences[n][1] for n in verdict.evidence)
        assert len(times) == verdict.rule.count
        assert times[-1] == verdict.begins
        assert times[-1] - times[0] < verdict.rule.window_days * DAY
        assert all(offences[n][0] is verdict.rule.offence for n in verdict.evidence)
    assert judge(offences, rules, now) == [v for v in found if v.begins <= now]
