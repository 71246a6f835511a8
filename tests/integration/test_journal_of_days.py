"""What a day that changes while people are booked on it leaves in the tables: over both stores."""

from collections.abc import AsyncIterator

import pytest

from engine.domain import schedule as s
from engine.domain.claims import Scope
from engine.domain.planning import PlannedSlot, Session
from engine.domain.policy import Policy, Return, Returned, Terms
from engine.domain.refusal import Reason, Refusal
from engine.domain.seats import plan_of
from tests.support.stores import (
    ACCOUNT,
    HOUR,
    Clock,
    Desk,
    MemoryWorld,
    PostgresWorld,
    World,
    audit,
    cancel,
    confirm,
    doctor,
    hold,
    plan,
    uid,
)

ANN, BOB, CY, DAN = (uid("patient", n) for n in range(4))
ONE, TWO = doctor(1), doctor(2)
A, B = uid("a"), uid("b")
STAFF = "staff:1"


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("database") if request.param == "postgres" else None


@pytest.fixture
async def world(url: str | None) -> AsyncIterator[World]:
    """Two slots of two seats at each of two doctors, three hours ahead."""
    clock = Clock()
    world: World = MemoryWorld(clock) if url is None else PostgresWorld(url, clock)
    for key in (ONE, TWO):
        await world.publish(key, plan(clock() + 3 * HOUR, 2, 2))
    yield world
    if isinstance(world, PostgresWorld):
        await world.close()


async def errands(world: World) -> set[tuple[str, str]]:
    if isinstance(world, MemoryWorld):
        return set(world.store.errands)
    assert isinstance(world, PostgresWorld)
    rows = await (await world.pool()).fetch("select kind, key from errand")
    return {(row["kind"], row["key"]) for row in rows}


async def desk_of(world: World, **terms: object) -> Desk:
    policy = Policy(terms={("", ""): Terms(**terms)})  # type: ignore[arg-type]
    return await Desk(await world.journal(0), world.clock, policy).start(ONE)


async def check(world: World, desk: Desk, *more: Desk) -> None:
    hosts = [host for each in (desk, *more) for host in each.hosts.values()]
    await audit(world, hosts, range(1 + len(more)))


def shifted(world: World, half_hours: int = 1) -> s.MoveSession:
    at = world.clock() + 3 * HOUR + half_hours * HOUR // 2
    moves = (("0800", "0830", at), ("0830", "0900", at + HOUR // 2))
    return s.MoveSession(uid("move", half_hours), -1, STAFF, "", "morning", moves, "r9")


def status(word: str, number: int = 0) -> s.SetSessionStatus:
    return s.SetSessionStatus(uid(word, number), -1, STAFF, "", "morning", word, "ill")


async def test_slots_move_onto_each_others_places(world: World) -> None:
    """One more moves with them: a number that was cancelled, and its seat given again."""
    desk = await desk_of(world)
    ids = [uid("n", n) for n in range(5)]
    asks = [hold(ids[n], (ANN, BOB, CY, DAN)[n], ("0800", "0830")[n // 2]) for n in range(4)]
    await desk.ask(ONE, *asks, confirm(ids[0]), cancel(ids[3]))
    [reply] = await desk.ask(ONE, shifted(world))
    assert reply == s.Revised(1)
    shown = await world.appointments()
    assert [shown[a].slot_id[-4:] for a in ids[:4]] == ["0830", "0830", "0900", "0900"]
    assert shown[ids[0]].starts_at == desk.hosts[ONE].state.slots["0830"].starts_at
    [again] = await desk.ask(ONE, asks[0])
    assert (again.clock, again.number) == ("0830", 1), "who asks again by the old time finds the answer"
    await check(world, desk)


async def test_a_move_among_bookings_of_one_instant(world: World) -> None:
    """Submitted together: booked before, moved, booked after it into what was somebody else's place."""
    desk = await desk_of(world)
    await desk.ask(ONE, hold(uid("n", 1), ANN, "0830"), hold(uid("n", 2), BOB, "0830"))
    replies = await desk.ask(
        ONE, hold(uid("n", 3), CY, "0800"), shifted(world), hold(uid("n", 4), DAN, "0830")
    )
    assert not any(isinstance(reply, Refusal) for reply in replies), replies
    await check(world, desk)
    await desk.ask(ONE, shifted(world, 0), confirm(uid("n", 4)))
    await check(world, desk)


async def test_who_has_another_visit_at_the_new_time_keeps_both(world: World) -> None:
    await world.publish(doctor(3), plan(world.clock() + 3 * HOUR + HOUR // 2, 1, department="derma"))
    desk = await desk_of(world)
    await desk.load(doctor(3))
    await desk.ask(ONE, hold(A, ANN), confirm(A))
    await desk.ask(doctor(3), hold(B, ANN), confirm(B))
    [reply] = await desk.ask(ONE, shifted(world))
    assert isinstance(reply, s.Revised)
    owners = {owner for (scope, _), owner in (await world.claims()).items() if scope == Scope.PATIENT_TIME}
    assert owners == {B}
    await check(world, desk)
    await desk.ask(ONE, cancel(A))
    await check(world, desk)


async def test_seats_that_cool_or_are_blocked_are_told(world: World) -> None:
    desk = await desk_of(world, returned=Returned(Return.COOL_DOWN, 60))
    await desk.ask(ONE, hold(A, ANN), confirm(A), cancel(A))
    await desk.ask(ONE, s.ChangeCapacity(uid("cut"), -1, STAFF, "", "morning", "0830", -1))
    assert (await world.days())[ONE.schedule_id][1] == {"0800": [0], "0830": [1]}
    await check(world, desk)
    fresh = await desk_of(world, returned=Returned(Return.COOL_DOWN, 60))
    assert fresh.hosts[ONE].state == desk.hosts[ONE].state
    world.clock.advance(seconds=60)
    await fresh.ask(ONE, s.ExpireHolds())
    assert (await world.days())[ONE.schedule_id][1] == {"0830": [1]}
    await fresh.ask(ONE, s.ChangeCapacity(uid("more"), -1, STAFF, "", "morning", "0830", 2))
    assert (await world.days())[ONE.schedule_id][1] == {}
    assert [slot.capacity for slot in (await world.days())[ONE.schedule_id][0][0].slots] == [2, 3]
    await check(world, fresh)


async def test_a_day_that_nobody_published_is_opened_by_hand(world: World) -> None:
    if isinstance(world, PostgresWorld):
        await (await world.pool()).execute(
            "insert into practitioner (id, name, title, department_id, position)"
            " values ('D0007', 'x', 'chief', 'cardio', 0)"
        )
    key = doctor(7)
    desk = await Desk.open(world, 0, key)
    session = Session("night", "cardio", "expert", "r1", 100, (PlannedSlot("1900", world.clock() + HOUR, 1),))
    command = s.OpenSession(uid("open"), -1, STAFF, "", session)
    assert await desk.ask(key, hold(A, ANN, "1900")) == [Refusal(Reason.NO_SUCH_SCHEDULE)]
    assert await desk.ask(key, command, command) == [s.Revised(1), s.Revised(1)]
    assert (await world.days())[key.schedule_id] == ((session,), {})
    assert ("match_wishes", key.schedule_id) in await errands(world)
    [answer] = await desk.ask(key, hold(A, ANN, "1900"))
    assert answer.number == 1
    await check(world, desk)


async def test_whoever_is_affected_is_told_and_forgotten_when_it_is_held_after_all(world: World) -> None:
    desk = await desk_of(world)
    await desk.ask(ONE, hold(A, ANN), confirm(A), hold(B, BOB))
    await desk.ask(ONE, status("suspended"))
    shown = await world.appointments()
    assert (shown[A].fate, shown[A].status, shown[B].status, shown[B].reason) == (
        "affected", 2, 5, "suspended",
    )  # fmt: skip
    assert ("rehome", A.hex()) in await errands(world) and ("rehome", B.hex()) not in await errands(world)
    await check(world, desk)
    await desk.ask(ONE, s.DecideFate(A, "offered", uid("offer")))
    await check(world, desk)
    await desk.ask(ONE, status("open"))
    assert (await world.appointments())[A].fate == ""
    await check(world, desk)
    await desk.ask(ONE, status("suspended", 1))
    await desk.ask(ONE, s.DecideFate(A, "refunded"))
    shown = await world.appointments()
    assert (shown[A].fate, shown[A].status, shown[A].successor) == ("refunded", 5, b"")
    assert await world.claims() == {}
    await check(world, desk)


async def test_a_suspension_waits_for_a_hold_whose_claim_is_not_granted(world: World) -> None:
    desk, other = await desk_of(world), await Desk.open(world, 1, TWO)
    await other.ask(TWO, hold(uid("first"), ANN))
    lost, off = await desk.ask(ONE, hold(A, ANN), status("suspended"))
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert off == s.Revised(1)
    await check(world, desk, other)


async def test_a_patient_who_is_added_in_vain_leaves_a_seat_that_nobody_gets(world: World) -> None:
    desk, other = await desk_of(world), await Desk.open(world, 1, TWO)
    await other.ask(TWO, hold(uid("first"), ANN))
    adds = [
        s.AddPatient(uid("add", n), -1, STAFF, "", "0800", uid("added", n), patient, ACCOUNT)
        for n, patient in enumerate((ANN, BOB))
    ]
    lost, won = await desk.ask(ONE, *adds)
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert won.appointment.number == 6 and won.appointment.status == s.Status.BOOKED
    assert await desk.ask(ONE, adds[0]) == [Refusal(Reason.ALREADY_BOOKED)]
    assert (await world.days())[ONE.schedule_id][1] == {"0800": [2]}
    await check(world, desk, other)


async def test_a_group_has_all_its_numbers_or_none(world: World) -> None:
    desk, other = await desk_of(world), await Desk.open(world, 1, TWO)
    await other.ask(TWO, hold(uid("first"), BOB))
    members = ((A, ANN), (B, BOB))
    [lost] = await desk.ask(ONE, s.HoldGroup(members, "0800", ACCOUNT))
    assert lost == Refusal(Reason.ALREADY_BOOKED)
    assert set(await world.appointments()) == {uid("first")}
    await other.ask(TWO, cancel(uid("first")))
    [many] = await desk.ask(ONE, s.HoldGroup(members, "0800", ACCOUNT))
    assert [answer.number for answer in many.answers] == [1, 2]
    await check(world, desk, other)


async def test_who_missed_his_visit_and_comes_after_all(world: World) -> None:
    desk, other = await desk_of(world), await Desk.open(world, 1, TWO)
    await desk.ask(ONE, hold(A, ANN), confirm(A))
    late = world.clock() + 3 * HOUR
    await desk.ask(ONE, s.RecordAttendance(A, s.Status.NOSHOW, STAFF), now=late)
    assert await world.claims() == {}
    await check(world, desk)
    await other.ask(TWO, hold(B, ANN))
    replies = await desk.ask(ONE, s.RecordAttendance(A, s.Status.ARRIVED, STAFF), now=late)
    assert replies == [Refusal(Reason.ALREADY_BOOKED)], "he has another number by now"
    assert (await world.appointments())[A].status == s.Status.NOSHOW
    await check(world, desk, other)
    await other.ask(TWO, cancel(B))
    [back] = await desk.ask(ONE, s.RecordAttendance(A, s.Status.ARRIVED, STAFF), now=late)
    assert back.status == s.Status.ARRIVED
    await check(world, desk, other)


async def test_a_wish_is_offered_lapses_and_the_next_one_gets_it(world: World) -> None:
    desk = await desk_of(world)
    asks = [hold(uid("n", n), uid("p", n), ("0800", "0830")[n // 2]) for n in range(4)]
    await desk.ask(ONE, *asks)
    now = world.clock()
    wishes = [
        s.JoinWaitlist(uid("wish", n), ACCOUNT, (patient,), (), 0, now + n, now + 2 * HOUR, uid("seed", n))
        for n, patient in enumerate((ANN, BOB))
    ]
    first, second = await desk.ask(ONE, *wishes)
    assert (first.position, second.position) == (1, 2)
    await desk.ask(ONE, cancel(uid("n", 0)))
    for patient in (ANN, BOB):
        await desk.ask(ONE, s.OfferSeats())
        [offer] = [x for x in (await world.appointments()).values() if x.wish_id and x.status == 1]
        assert offer.patient_id == patient
        assert {k for k, _ in await world.claims()} >= {Scope.WISH}
        await check(world, desk)
        world.clock.advance(seconds=15 * 60)
        await desk.ask(ONE, s.ExpireHolds())
    assert ("wish_ended", uid("wish", 0).hex()) in await errands(world)
    assert [again.position for again in await desk.ask(ONE, *wishes)] == [0, 0]
    await check(world, desk)
    assert desk.hosts[ONE].state.wishes == {}


async def test_what_is_added_is_in_the_plan(world: World) -> None:
    desk = await desk_of(world)
    add = s.AddSeats(uid("add"), 0, STAFF, "", "0800", 2, 32)
    stale = s.AddSeats(uid("stale"), 0, "staff:2", "", "0800", 1, 0)
    replies = await desk.ask(ONE, add, stale, add)
    assert replies == [
        s.Revised(1), Refusal(Reason.STALE_REVISION, {"revision": 1, "by": STAFF}), s.Revised(1),
    ]  # fmt: skip
    shown, _ = (await world.days())[ONE.schedule_id]
    assert shown == plan_of(desk.hosts[ONE].state.slots)
    assert [share.pool for share in shown[0].shares] == ["public", "added"]
    await check(world, desk)


async def test_one_wish_that_ends_at_two_actors_in_one_batch_is_one_errand(world: World) -> None:
    desk = await desk_of(world)
    await desk.load(TWO)
    wish, since = uid("wish"), world.clock()
    join = s.JoinWaitlist(wish, ACCOUNT, (ANN,), ("0800",), 0, since, since + HOUR, uid("seed"))
    full = [hold(uid(key.practitioner_id, n), uid("other", n)) for key in (ONE,) for n in range(2)]
    await desk.ask(ONE, *full, join)
    await desk.ask(TWO, join)
    leave = s.LeaveWaitlist(wish, "withdrawn")
    await desk.settle(desk.submit(ONE, leave), desk.submit(TWO, leave))
    assert ("wish_ended", wish.hex()) in await errands(world)
    assert not desk.deaths
    await check(world, desk)
