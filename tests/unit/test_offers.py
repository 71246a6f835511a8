"""What a crowd is offered instead of a full slot."""

from collections import Counter
from datetime import UTC, datetime

from web.patient.bodies import AlternativeAnswer
from web.patient.offers import OFFERED_MAX, Offers

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def slot(name: str, remaining: int) -> AlternativeAnswer:
    return AlternativeAnswer(name, "s", "p", "n", "chief", "d", NOW, NOW, remaining, 100)


def ranked(*remaining: int) -> list[AlternativeAnswer]:
    return [slot(f"s{n}", seats) for n, seats in enumerate(remaining)]


def names(answers: list[AlternativeAnswer]) -> list[str]:
    return [answer.slot_id for answer in answers]


def first(offers: Offers, slots: list[AlternativeAnswer], people: int, now: float = 0.5) -> list[str]:
    return [offers.choose(slots, now)[0].slot_id for _ in range(people)]


def test_one_person_is_offered_the_best_in_their_order() -> None:
    assert names(Offers().choose(ranked(*[5] * 10), 0.5)) == [f"s{n}" for n in range(OFFERED_MAX)]


def test_a_crowd_is_spread_as_the_seats_are() -> None:
    assert first(Offers(), ranked(2, 3, 1, 4), 10) == ["s0"] * 2 + ["s1"] * 3 + ["s2"] + ["s3"] * 4


def test_it_is_one_crowd_whichever_slot_each_had_wanted() -> None:
    offers, slots = Offers(), ranked(1, 1, 1)
    assert first(offers, slots, 1) == ["s0"]
    assert first(offers, list(reversed(slots)), 2) == ["s2", "s1"]


def test_after_the_last_seat_the_round_begins_again() -> None:
    assert Counter(first(Offers(), ranked(1, 2), 9)) == {"s0": 3, "s1": 6}


def test_after_a_second_what_is_shown_counts() -> None:
    offers, slots = Offers(), ranked(1, 1)
    assert first(offers, slots, 1, now=0.5) == ["s0"]
    assert first(offers, slots, 1, now=2.0) == ["s0"]


def test_everybody_is_told_of_as_many_as_there_are() -> None:
    offers, slots = Offers(), ranked(1, 1, 1, 1)
    for _ in range(8):
        answers = names(offers.choose(slots, 0.5))
        assert len(answers) == len(set(answers)) == 4


def test_where_there_is_nothing_nothing_is_offered() -> None:
    assert Offers().choose([], 0.5) == []


def test_what_was_ranked_is_kept_for_a_moment() -> None:
    offers, slots = Offers(), ranked(1)
    assert offers.ranked("full", 0.5) is None
    offers.keep("full", slots, 0.5)
    assert offers.ranked("full", 0.6) is slots
    assert offers.ranked("full", 1.5) is None
