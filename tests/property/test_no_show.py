"""No-shows, whatever the hospital: chances are chances, and nothing after the moment is seen."""

import json
from datetime import date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.no_show import Appointment, Past, asked_at, learn, model_of_plain
from engine.domain.overbooking import Limit, Slot, Template, largest, outlook
from engine.domain.service_times import LogNormal

FIRST = datetime(2026, 3, 1)  # noqa: DTZ001 (the hospital's own time)

appointment = st.builds(
    lambda id_, patient, booked, ahead, missed, **more: Appointment(
        str(id_),
        patient,
        FIRST + timedelta(minutes=booked),
        (FIRST + timedelta(minutes=booked)).date() + timedelta(ahead),
        missed=missed,
        **more,
    ),
    id_=st.integers(0, 10_000),
    patient=st.sampled_from("abcdef"),
    booked=st.integers(0, 60 * 24 * 40),
    ahead=st.integers(0, 400),
    missed=st.none() | st.booleans(),
    minute=st.none() | st.integers(0, 1_439),
    age=st.none() | st.integers(0, 130),
    sex=st.none() | st.sampled_from(("female", "male")),
    traits=st.dictionaries(
        st.sampled_from(("district", "channel")), st.sampled_from(("x", "y", "")), max_size=2
    ),
)
hospital = st.lists(appointment, max_size=40, unique_by=lambda one: one.id)


@settings(max_examples=60, deadline=None)
@given(hospital, st.integers(0, 5), st.dates(date(2026, 3, 1), date(2026, 6, 1)), st.randoms())
def test_whatever_was_seen_the_chances_are_chances(everything, horizon_days, until, rng) -> None:  # type: ignore[no-untyped-def]
    model = learn(everything, until, horizon_days=horizon_days)
    again = model_of_plain(json.loads(json.dumps(model.plain())))
    past = Past(everything)
    shuffled = everything[:]
    rng.shuffle(shuffled)
    assert learn(shuffled, until, horizon_days=horizon_days) == model
    for one in everything:
        facts = past.facts(one, asked_at(one, horizon_days))
        assert 0 < model.chance(facts) < 1
        assert again.chance(facts) == model.chance(facts)
        assert 0 <= facts.ahead_missed <= facts.ahead and 0 <= facts.same_day_missed <= facts.same_day


@settings(max_examples=40, deadline=None)
@given(hospital, st.integers(0, 39), st.integers(0, 3))
def test_nothing_after_the_moment_is_seen(everything, day, horizon_days) -> None:  # type: ignore[no-untyped-def]
    now = FIRST + timedelta(day)
    known = [one for one in everything if one.booked_at <= now]
    past, less = Past(everything), Past(known)
    for one in known:
        if asked_at(one, horizon_days) <= now:
            at = asked_at(one, horizon_days)
            assert past.facts(one, at) == less.facts(one, at)


chance = st.floats(0, 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(chance, max_size=3), min_size=1, max_size=4),
    st.integers(1, 60),
    st.floats(0, 0.3),
    st.floats(0, 1),
    st.floats(0, 90),
    chance,
)
def test_whatever_the_session_chances_are_chances_and_seats_only_make_it_worse(  # type: ignore[no-untyped-def]
    absences, minutes, days_differ, absences_differ, wait, extra_absent
) -> None:
    template = Template(
        tuple(Slot(480 + minutes * n, tuple(absent)) for n, absent in enumerate(absences)),
        480 + minutes * len(absences),
        LogNormal(6.0, 0.3),
        days_differ,
        absences_differ,
    )
    plain = outlook(template, (0,) * len(absences), wait, extra_absent)
    more = outlook(template, (1,) + (0,) * (len(absences) - 1), wait, extra_absent)
    for one in (plain, more):
        assert all(-1e-9 <= p <= 1 + 1e-9 for p in one.long_waits)
        assert -1e-9 <= one.share <= 1 + 1e-9
        assert one.wait_minutes >= 0 and one.idle_minutes >= -1e-9 and one.overtime_minutes >= 0
    assert all(b >= a - 1e-7 for a, b in zip(plain.long_waits, more.long_waits, strict=True))
    assert more.overtime_minutes >= plain.overtime_minutes - 1e-6
    limit = Limit(wait, 0.3)
    n, looks = largest(template, limit, extra_absent, extras_max=3)
    assert n <= 3 and (n == 0 or limit.keeps(looks[n]))
