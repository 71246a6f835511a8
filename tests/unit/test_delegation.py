"""Who may act for whom: what becomes of each wish, and when a right ends."""

import itertools
from datetime import date

import pytest

from engine.domain.delegation import CHILD, SELF, WARD, Consent, Way, Wish, ends_on, way_of

RELATIONS = (SELF, "spouse", CHILD, WARD, "parent", "relative", "other")


def wish(
    relation: str = "spouse",
    years: int | None = 40,
    own: bool = False,
    live: bool = False,
    guardian: bool = False,
    back: str | None = None,
) -> Wish:
    return Wish(relation, years, own, live, guardian, back)


@pytest.mark.parametrize(
    ("asked", "required", "way"),
    [
        (wish(SELF), False, (Way.GIVEN, Consent.OWN)),
        (wish("parent"), False, (Way.GIVEN, Consent.ATTESTED)),
        (wish("parent", None), False, (Way.GIVEN, Consent.ATTESTED)),
        # Who has an account of their own is asked, whatever the one who asks says to be.
        (wish("parent", own=True), False, (Way.ASKED, Consent.APPROVED)),
        (wish("parent", None, own=True), False, (Way.ASKED, Consent.APPROVED)),
        (wish(SELF, own=True), False, (Way.ASKED, Consent.APPROVED)),
        (wish(CHILD, 30, own=True), False, (Way.ASKED, Consent.APPROVED)),
        (wish("parent", own=True, live=True), False, (Way.GIVEN, Consent.ATTESTED)),
        # Children.
        (wish(SELF, 13), False, (Way.GUARDIAN_NEEDED, Consent.GUARDIAN)),
        (wish(SELF, 14), False, (Way.GIVEN, Consent.OWN)),
        (wish(CHILD, 13), False, (Way.GIVEN, Consent.GUARDIAN)),
        (wish("relative", 13), False, (Way.GIVEN, Consent.GUARDIAN)),
        (wish(CHILD, 13), True, (Way.GUARDIAN_NEEDED, Consent.GUARDIAN)),
        (wish(CHILD, 13, guardian=True), True, (Way.GIVEN, Consent.GUARDIAN)),
        (wish(WARD, 0, guardian=True), True, (Way.GIVEN, Consent.GUARDIAN)),
        (wish("relative", 13, guardian=True), True, (Way.GUARDIAN_NEEDED, Consent.GUARDIAN)),
        (wish(CHILD, 17, own=True), True, (Way.GIVEN, Consent.GUARDIAN)),
        (wish("relative", 17, own=True), False, (Way.ASKED, Consent.APPROVED)),
        (wish("relative", 17), False, (Way.GIVEN, Consent.ATTESTED)),
        # What was taken back.
        (wish("parent", back="person"), False, (Way.REFUSED, Consent.ATTESTED)),
        (wish("parent", own=True, back="person"), False, (Way.ASKED, Consent.APPROVED)),
        (wish(CHILD, 16, back="person"), False, (Way.GIVEN, Consent.GUARDIAN)),
        (wish(CHILD, 5, back="desk"), False, (Way.REFUSED, Consent.DESK)),
        (wish(SELF, back="desk"), False, (Way.REFUSED, Consent.DESK)),
        (wish(SELF, own=True, back="desk"), False, (Way.ASKED, Consent.APPROVED)),
    ],
)
def test_ways(asked: Wish, required: bool, way: tuple[Way, Consent]) -> None:
    assert way_of(asked, guardian_required=required) == way


def test_nobody_gets_a_grown_up_with_an_account_without_asking() -> None:
    for relation, years, back in itertools.product(RELATIONS, (None, 18, 44), (None, "person", "desk")):
        way, _ = way_of(wish(relation, years, own=True, back=back), guardian_required=False)
        assert way is Way.ASKED


@pytest.mark.parametrize(
    ("asked", "way"),
    [
        (wish(SELF, own=True), (Way.GIVEN, Consent.OWN)),
        (wish("parent", own=True), (Way.GIVEN, Consent.ATTESTED)),
        (wish(SELF, 5), (Way.GIVEN, Consent.GUARDIAN)),
        (wish("parent", own=True, back="person"), (Way.ASKED, Consent.APPROVED)),
        (wish("parent", back="person"), (Way.REFUSED, Consent.ATTESTED)),
        (wish(SELF, back="desk"), (Way.REFUSED, Consent.DESK)),
    ],
)
def test_a_word_is_enough_where_the_hospital_says_so(asked: Wish, way: tuple[Way, Consent]) -> None:
    assert way_of(asked, guardian_required=False, word_is_enough=True) == way


def test_nobody_under_fourteen_acts_for_themselves() -> None:
    both = (False, True)
    for years, (own, live, required) in itertools.product(range(14), itertools.product(both, both, both)):
        way, _ = way_of(wish(SELF, years, own, live, guardian=True), guardian_required=required)
        assert way is not Way.GIVEN


@pytest.mark.parametrize(
    ("relation", "born", "ends"),
    [
        (WARD, date(2010, 3, 10), date(2028, 3, 10)),
        (WARD, date(1950, 3, 10), date(2026, 12, 23)),
        (WARD, None, date(2026, 12, 23)),
        (SELF, date(2010, 3, 10), None),
    ],
)
def test_a_ward_is_like_a_child(relation: str, born: date | None, ends: date | None) -> None:
    assert ends_on(relation, born, date(2026, 11, 23), 30) == ends
