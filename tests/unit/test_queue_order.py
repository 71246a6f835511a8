"""The order of one line: each rule by example, and the reason that is given for it."""

import pytest

from engine.domain.queue_order import (
    AS_THEY_COME,
    Band,
    Basis,
    EarlyRule,
    Interval,
    LateRule,
    Mix,
    Moved,
    OrderRules,
    PassedRule,
    Place,
    PriorityClass,
    ReturnRule,
    Rules,
    Turns,
    Why,
    counts_from,
    early_from,
    rank,
    why,
)

EIGHT = 1_800_000_000_000
MINUTE = 60_000
NOW = EIGHT + 45 * MINUTE
PLAIN = OrderRules()


def at(minutes: float) -> int:
    """So many minutes past eight; appointments last half an hour, the session till eleven."""
    return EIGHT + int(minutes * MINUTE)


def booked(number: int, starts: float, arrived: float | None = None, **more: object) -> Place:
    came = starts - 10 if arrived is None else arrived
    told: dict[str, object] = {
        "ticket_id": bytes([number]),
        "sequence": number,
        "arrived_at": at(came),
        "counts_from": max(at(came), at(starts)),
        "entered": 0,
        "number": number,
        "starts_at": at(starts),
        "window_ends_at": at(starts + 30),
        "session_ends_at": at(180),
    }
    return Place(**{**told, **more})  # type: ignore[arg-type]


def walk_in(number: int, arrived: float, **more: object) -> Place:
    told: dict[str, object] = {
        "ticket_id": bytes([number]),
        "sequence": number,
        "arrived_at": at(arrived),
        "counts_from": at(arrived),
        "entered": 0,
        "number": number,
        "session_ends_at": at(180),
    }
    return Place(**{**told, **more})  # type: ignore[arg-type]


def numbers(
    places: list[Place], rules: OrderRules = PLAIN, turns: Turns | None = None, now: int = NOW
) -> list[int]:
    return [r.place.number for r in rank(places, turns or Turns(), rules, now)]


def reason(places: list[Place], first: int, second: int, rules: OrderRules = PLAIN) -> Why | None:
    told = why(rank(places, Turns(), rules, NOW), bytes([first]), bytes([second]))
    return None if told is None else told.why


THREE = [booked(1, 0), booked(2, 0), booked(3, 30)]


def test_by_number_whoever_comes_first() -> None:
    late_comer_first = [booked(2, 0, -10), booked(1, 0, -5)]
    assert numbers(late_comer_first) == [1, 2]
    assert reason(late_comer_first, 1, 2) is Why.LOWER_NUMBER
    assert numbers(THREE) == [1, 2, 3]
    assert reason(THREE, 2, 3) is Why.EARLIER_TIME
    assert reason(THREE, 3, 2) is None


def test_by_check_in_whatever_the_number() -> None:
    rules = OrderRules(by=Basis.CHECK_IN, early=EarlyRule.AS_COME)
    places = [booked(1, 0, -5), booked(2, 0, -20), booked(3, 30, -30)]
    assert numbers(places, rules) == [3, 2, 1]
    assert reason(places, 3, 2, rules) is Why.CAME_EARLIER


def test_early_is_as_if_at_his_time() -> None:
    rules = OrderRules(by=Basis.CHECK_IN, early=EarlyRule.OWN_TIME)
    places = [booked(1, 0, 5), booked(3, 30, -60), walk_in(9, 20)]
    assert numbers(places, rules) == [1, 9, 3]
    assert reason(places, 9, 3, rules) is Why.CAME_BEFORE_TIME


@pytest.mark.parametrize(
    ("rule", "order", "told"),
    [
        (LateRule.NORMAL, [1, 2, 3, 4, 5], Why.LOWER_NUMBER),
        (LateRule.EVERY, [2, 3, 1, 4, 5], Why.LANE_TURN),  # behind two
        (LateRule.END_OF_WINDOW, [2, 3, 1, 4, 5], Why.EARLIER_END),
        (LateRule.END_OF_SESSION, [2, 3, 4, 5, 1], None),
    ],
)
def test_late_four_rules(rule: LateRule, order: list[int], told: Why | None) -> None:
    rules = OrderRules(late=rule, late_minutes=15, late_interval=Interval(2))
    places = [booked(1, 0, 16), booked(2, 0), booked(3, 0), booked(4, 40), booked(5, 40)]
    assert numbers(places, rules) == order
    if told is not Why.LOWER_NUMBER:
        assert reason(places, 1, 4, rules) is told
        assert reason(places, 2, 1, rules) is (Why.LANE_WAITS if rule is LateRule.EVERY else Why.OTHER_LATE)


def test_not_late_by_a_minute() -> None:
    rules = OrderRules(late=LateRule.END_OF_SESSION, late_minutes=15)
    assert numbers([booked(1, 0, 15), booked(2, 0)], rules) == [1, 2]
    assert numbers([booked(1, 0, 15.1), booked(2, 0)], rules) == [2, 1]


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        (PassedRule.EVERY, [2, 1, 3, 4, 5]),  # behind one
        (PassedRule.END_OF_WINDOW, [2, 3, 1, 4, 5]),
        (PassedRule.END_OF_SESSION, [2, 3, 4, 5, 1]),
    ],
)
def test_passed_over_three_rules(rule: PassedRule, order: list[int]) -> None:
    rules = OrderRules(passed=rule, passed_interval=Interval(1))
    back = booked(1, 0, passed=True, counts_from=at(20))
    places = [back, booked(2, 0), booked(3, 0), booked(4, 31), booked(5, 40)]
    assert numbers(places, rules) == order


def test_passed_over_and_back_after_his_half_hour_is_behind_whose_time_has_come() -> None:
    rules = OrderRules(passed=PassedRule.END_OF_WINDOW)
    back = booked(1, 0, passed=True, counts_from=at(35))
    places = [back, booked(2, 0), booked(3, 30), booked(4, 40)]
    assert numbers(places, rules) == [2, 3, 1, 4]
    assert reason(places, 3, 1, rules) is Why.OTHER_PASSED
    assert reason(places, 1, 4, rules) is Why.EARLIER_END


def test_whoever_was_passed_over_rests_before_he_is_called_again() -> None:
    back = booked(1, 0, passed=True, rests_until=NOW + 1)
    assert numbers([back, booked(2, 30)]) == [2, 1]
    assert reason([back, booked(2, 30)], 2, 1) is Why.RESTS
    assert rank([back], Turns(), PLAIN, NOW)[0].band is Band.RESTS
    assert rank([back], Turns(), PLAIN, NOW + 1)[0].band is Band.LINE


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        (ReturnRule.NEXT, [4, 1, 2, 3, 5]),
        (ReturnRule.EVERY, [1, 2, 4, 3, 5]),  # behind two
        (ReturnRule.OWN_PLACE, [1, 2, 3, 4, 5]),
        (ReturnRule.END, [1, 2, 3, 4, 5]),  # came back at 40
    ],
)
def test_back_from_examination(rule: ReturnRule, order: list[int]) -> None:
    rules = OrderRules(returned=rule, returned_interval=Interval(2))
    starts = 36 if rule is ReturnRule.OWN_PLACE else 0
    back = booked(4, starts, -5, returned=True, counts_from=at(40))
    places = [booked(1, 0), booked(2, 0), booked(3, 30), back, booked(5, 45)]
    assert numbers(places, rules) == order


def test_who_is_back_from_examination_is_not_late_any_more() -> None:
    rules = OrderRules(returned=ReturnRule.OWN_PLACE, late=LateRule.END_OF_SESSION)
    assert numbers([booked(1, 0, 60, returned=True), booked(2, 0)], rules) == [1, 2]


def test_priority_classes_by_rank_and_ratio() -> None:
    rules = OrderRules(
        classes=(PriorityClass("soldier", 1, Interval(0)), PriorityClass("aged", 2, Interval(2)))
    )
    places = [
        *(booked(n, 0) for n in range(1, 6)),
        booked(6, 30, priority="aged"),
        booked(7, 30, priority="aged"),
        booked(8, 30, priority="soldier"),
    ]
    assert numbers(places, rules) == [8, 1, 2, 6, 3, 4, 7, 5]
    assert reason(places, 8, 1, rules) is Why.LANE_TURN
    assert reason(places, 2, 6, rules) is Why.LANE_WAITS
    assert reason(places, 6, 7, rules) is Why.LOWER_NUMBER
    assert reason(places, 8, 6, rules) is Why.LANES


def test_a_lane_may_send_several_at_once() -> None:
    rules = OrderRules(classes=(PriorityClass("aged", 1, Interval(2, together=2)),))
    aged = [booked(n, 30, priority="aged") for n in (7, 8, 9)]
    assert numbers([*(booked(n, 0) for n in range(1, 6)), *aged], rules) == [1, 2, 7, 8, 3, 4, 9, 5]


def test_what_was_called_before_counts() -> None:
    """The order after a call is the order before it, without whoever was called."""
    rules = OrderRules(
        classes=(PriorityClass("aged", 1, Interval(2)), PriorityClass("child", 2, Interval(3, 2))),
        mix=Mix.EVERY,
    )
    places = [
        *(booked(n, 0) for n in range(1, 10)),
        *(booked(n, 0, priority="aged") for n in (10, 11)),
        *(booked(n, 0, priority="child") for n in (12, 13, 14)),
        *(walk_in(n, 0) for n in (15, 16)),
    ]
    turns, line = Turns(), rank(places, Turns(), rules, NOW)
    while line:
        turns = turns.after(line[0].call_lane)
        left = rank([r.place for r in line[1:]], turns, rules, NOW)
        assert [r.place.number for r in left] == [r.place.number for r in line[1:]]
        line = left


def test_who_joins_waits_for_so_many_from_then_on() -> None:
    rules = OrderRules(late=LateRule.EVERY, late_interval=Interval(2), late_minutes=5)
    turns = Turns(calls=10, ordinary=10)
    assert numbers([booked(1, 0, 30, entered=10), *THREE[1:]], rules, turns) == [2, 3, 1]
    assert numbers([booked(1, 0, 30, entered=9), *THREE[1:]], rules, turns) == [2, 1, 3]
    assert numbers([booked(1, 0, 30, entered=8), *THREE[1:]], rules, turns) == [1, 2, 3]


def test_emergencies() -> None:
    places = [*THREE, walk_in(4, 40, emergency=2), walk_in(5, 44, emergency=1)]
    assert numbers(places) == [5, 4, 1, 2, 3]
    assert reason(places, 5, 4) is Why.EMERGENCY_LEVEL
    assert reason(places, 4, 1) is Why.EMERGENCY
    third = [*THREE, walk_in(4, 40, emergency=3), walk_in(5, 41, emergency=4)]
    assert numbers(third) == [1, 4, 2, 3, 5], "level 3 after every ordinary one, level 4 as everybody"


@pytest.mark.parametrize(
    ("mix", "order"),
    [
        (Mix.MIXED, [8, 9, 1, 2, 3]),
        (Mix.BOOKED_FIRST, [1, 2, 3, 8, 9]),
        (Mix.EVERY, [1, 2, 8, 3, 9]),
    ],
)
def test_booked_and_walk_ins(mix: Mix, order: list[int]) -> None:
    places = [*THREE, walk_in(8, -20), walk_in(9, -15)]
    assert numbers(places, OrderRules(mix=mix)) == order


def test_overtaken_often_enough_goes_before_all_but_emergencies() -> None:
    starved = walk_in(9, 0, overtaken=3)
    rules = OrderRules(mix=Mix.BOOKED_FIRST, overtaken_max=3)
    emergency = walk_in(10, 40, emergency=1)
    door = booked(4, 30, door=1)
    places = [*THREE, starved, emergency, door]
    assert numbers(places, rules) == [10, 9, 4, 1, 2, 3]
    assert reason(places, 9, 1, rules) is Why.OVERTAKEN
    assert reason(places, 4, 1, rules) is Why.AT_DOOR
    assert numbers([*THREE, walk_in(9, 0, overtaken=2)], rules)[-1] == 9


def test_by_hand_it_stands_behind_so_many_calls() -> None:
    put = booked(9, 60, moved=Moved(2, since_calls=5, sequence=1, by="nurse", reason="faint"))
    places = [*THREE, put]
    assert numbers(places, turns=Turns(calls=5)) == [1, 2, 9, 3]
    assert numbers(places, turns=Turns(calls=6)) == [1, 9, 2, 3]
    assert numbers(places, turns=Turns(calls=9)) == [9, 1, 2, 3]
    told = why(rank(places, Turns(calls=9), PLAIN, NOW), bytes([9]), bytes([1]))
    assert told is not None
    assert told.why is Why.MOVED
    assert told.detail == {"by": "nurse", "reason": "faint"}
    assert why(rank(places, Turns(calls=5), PLAIN, NOW), bytes([1]), bytes([9])).why is Why.OTHER_MOVED  # type: ignore[union-attr]


def test_of_two_moves_to_the_front_the_later_one_stands_there() -> None:
    first = booked(8, 60, moved=Moved(0, 0, 1, "a", "b"))
    second = booked(9, 60, moved=Moved(0, 0, 2, "a", "b"))
    assert numbers([*THREE, first, second]) == [9, 8, 1, 2, 3]


def test_at_a_desk_there_is_no_late_and_no_early() -> None:
    places = [
        booked(1, 0, 50, is_visit=False, starts_at=0, counts_from=at(50)),
        walk_in(2, 40, is_visit=False),
    ]
    assert numbers(places, AS_THEY_COME) == [2, 1]
    assert numbers(places, OrderRules(mix=Mix.BOOKED_FIRST)) == [2, 1]


def test_nobody_is_overtaken_before_his_own_time() -> None:
    assert counts_from(OrderRules(), at(-30), at(0)) == at(0)
    assert counts_from(OrderRules(), at(10), at(0)) == at(10)
    assert counts_from(AS_THEY_COME, at(-30), at(0)) == at(-30)


def test_when_somebody_may_check_in() -> None:
    assert early_from(Rules(early_minutes=None), at(0)) == 0
    assert early_from(Rules(early_minutes=0), at(0)) == at(0)
    assert early_from(Rules(early_minutes=30), at(0)) == at(-30)
