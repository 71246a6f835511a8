"""The three forms of a HIS are one protocol: each is held to the same, against the sandbox's own ledger."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from integrations.connector import ConnectorFailed, OutcomeUnknown, Refused, TryAgain
from integrations.his.his import DaySession, Department, Kind, Practitioner, Status
from integrations.his.sandbox_hospital import Fault
from tests.support.his import DAY, FORMS, PERSON, SECRET, Spoken, booking, spoken


@pytest.fixture(params=FORMS)
async def his(request: pytest.FixtureRequest) -> AsyncIterator[Spoken]:
    async with spoken(request.param) as one:
        yield one


@pytest.fixture(params=FORMS)
async def hasty(request: pytest.FixtureRequest) -> AsyncIterator[Spoken]:
    """That does not wait long."""
    async with spoken(request.param, seconds_max=0.3) as one:
        yield one


async def status_of(his: Spoken, n: int) -> Status | None:
    found = await his.his.find(booking(n).id)
    return None if found is None else found.status


async def test_a_booking_is_there_as_it_was_told(his: Spoken) -> None:
    assert await his.his.find(booking(1).id) is None
    await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
    found = await his.his.find(booking(1).id)
    assert found is not None
    assert (found.booking_id, found.status, found.number) == (booking(1).id, Status.BOOKED, 1)
    assert (found.department, found.practitioner, found.starts_at) == ("0201", "D0001", booking(1).starts_at)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Kind.ARRIVED, Status.ARRIVED),
        (Kind.FULFILLED, Status.FULFILLED),
        (Kind.NO_SHOW, Status.NO_SHOW),
        (Kind.CANCELLED, Status.CANCELLED),
    ],
)
async def test_what_becomes_of_it(his: Spoken, kind: Kind, status: Status) -> None:
    await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
    await his.his.tell("0-2-0", kind, booking(1), reason="病人|来电")
    assert await status_of(his, 1) == status
    assert [row["event"] for row in his.sandbox.hospital.ledger] == ["booked", kind.value]


async def test_another_time(his: Spoken) -> None:
    await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
    later = booking(1, starts_at=booking(1).starts_at + timedelta(hours=1))
    await his.his.tell("0-2-0", Kind.CHANGED, later, before=booking(1))
    found = await his.his.find(booking(1).id)
    assert found is not None and found.starts_at == later.starts_at
    await his.his.tell("0-3-0", Kind.RESCHEDULED, booking(2), before=later)
    assert (await status_of(his, 1), await status_of(his, 2)) == (Status.CANCELLED, Status.BOOKED)


async def test_a_message_told_again_is_applied_once(his: Spoken) -> None:
    for _ in range(3):
        await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
    for _ in range(2):
        await his.his.tell("0-2-0", Kind.RESCHEDULED, booking(2), before=booking(1))
    events = [row["message"] for row in his.sandbox.hospital.ledger]
    assert len(events) == len(set(events))
    assert len(his.sandbox.hospital.registrations) == 2


@pytest.mark.parametrize("fault", [Fault.APPLIED_THEN_TIMEOUT, Fault.APPLIED_THEN_CUT, Fault.GARBAGE])
async def test_an_unknown_outcome_told_again_is_applied_once(hasty: Spoken, fault: Fault) -> None:
    hospital = hasty.sandbox.hospital
    hospital.faults.ask("tell", fault)
    with pytest.raises(OutcomeUnknown):
        await hasty.his.tell("0-1-0", Kind.BOOKED, booking(1))
    await hasty.his.tell("0-1-0", Kind.BOOKED, booking(1))
    assert [row["message"] for row in hospital.ledger] == ["0-1-0"]
    assert await status_of(hasty, 1) is Status.BOOKED


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.CUT, Fault.ERROR])
async def test_what_failed_is_not_there(hasty: Spoken, fault: Fault) -> None:
    hasty.sandbox.hospital.faults.ask("tell", fault)
    with pytest.raises(ConnectorFailed) as failed:
        await hasty.his.tell("0-1-0", Kind.BOOKED, booking(1))
    assert not isinstance(failed.value, Refused)
    assert hasty.sandbox.hospital.ledger == []


async def test_busy_is_try_again(his: Spoken) -> None:
    his.sandbox.hospital.faults.ask("tell", Fault.BUSY)
    with pytest.raises(TryAgain):
        await his.his.tell("0-1-0", Kind.BOOKED, booking(1))


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.CUT, Fault.GARBAGE, Fault.FORGED])
async def test_a_question_has_no_unknown_outcome(hasty: Spoken, fault: Fault) -> None:
    await hasty.his.tell("0-1-0", Kind.BOOKED, booking(1))
    # Twice: our HTTP client asks again by itself where a kept connection breaks.
    hasty.sandbox.hospital.faults.ask("find", fault, fault)
    with pytest.raises(TryAgain):
        await hasty.his.find(booking(1).id)


@pytest.mark.parametrize("kind", [Kind.CANCELLED, Kind.CHANGED, Kind.ARRIVED])
async def test_what_they_never_heard_of(his: Spoken, kind: Kind) -> None:
    with pytest.raises(Refused) as refused:
        await his.his.tell("0-1-0", kind, booking(1))
    assert refused.value.code == "unknown_booking"


async def test_a_day_has_all_of_it_in_parts(his: Spoken) -> None:
    hospital = his.sandbox.hospital
    for n in range(1, 604):
        told = {
            "id": booking(n).id,
            "department": "0201",
            "practitioner": "D0001",
            "starts_at": booking(n).starts_at,
            "number": n,
            "person": {},
        }
        hospital.apply(f"0-{n}-0", "booked", told, None)
    hospital.at_window("0201", "D0002", booking(1).starts_at, {"name": "李四"})
    await his.his.tell("1-1-0", Kind.CANCELLED, booking(603))
    rows = await his.his.registrations(DAY)
    assert len(rows) == 604
    assert {row.booking_id for row in rows} == {booking(n).id for n in range(1, 604)} | {None}
    assert sum(row.status is Status.CANCELLED for row in rows) == 1
    assert await his.his.registrations(DAY + timedelta(days=1)) == []


# Where their numbers count.


def one_place(his: Spoken) -> None:
    """The doctor's morning has one place; in the FHIR form it is one Slot, made of the session."""
    his.sandbox.hospital.session("D0001", DAY.isoformat(), "morning")["capacity"] = 1
    if his.form == "fhir":  # Schedules there are the known doctors'
        his.sandbox.hospital.practitioners = [
            {"code": "D0001", "name": "甲", "title": "chief", "department": "0201"}
        ]


async def test_a_place_is_locked_once_and_given_back(his: Spoken) -> None:
    one_place(his)
    locked = await his.his.lock(booking(7))
    assert await his.his.lock(booking(7)) == locked
    assert await status_of(his, 7) is Status.LOCKED
    with pytest.raises(Refused) as refused:
        await his.his.lock(booking(8))
    assert refused.value.code == "slot_full"
    await his.his.unlock(booking(7).id)
    await his.his.unlock(booking(7).id)
    await his.his.unlock(booking(9).id)
    assert (await his.his.lock(booking(8))).his_id != ""
    assert await status_of(his, 7) is Status.CANCELLED


async def test_a_locked_place_becomes_the_booking(his: Spoken) -> None:
    one_place(his)
    locked = await his.his.lock(booking(7))
    await his.his.tell("0-1-0", Kind.BOOKED, booking(7, number=locked.number))
    found = await his.his.find(booking(7).id)
    assert found is not None
    assert (found.his_id, found.number, found.status) == (locked.his_id, locked.number, Status.BOOKED)
    await his.his.unlock(booking(7).id)
    assert await status_of(his, 7) is Status.BOOKED


async def test_many_want_the_last_place(his: Spoken) -> None:
    one_place(his)
    outcomes = await asyncio.gather(*(his.his.lock(booking(n)) for n in range(1, 9)), return_exceptions=True)
    assert sum(not isinstance(one, Exception) for one in outcomes) == 1
    assert all(
        isinstance(one, Refused) and one.code == "slot_full" for one in outcomes if isinstance(one, Exception)
    )


# Master data.


async def test_departments_doctors_and_their_days(his: Spoken) -> None:
    hospital = his.sandbox.hospital
    one_place(his)
    hospital.departments = [
        {"code": "02", "name": "全科医疗科"},
        {"code": "0201", "name": "全科门诊", "parent": "02"},
    ]
    hospital.practitioners = [{"code": "D0001", "name": "郝思涵", "title": "chief", "department": "0201"}]
    if his.form == "hl7v2":
        for asked in (his.his.departments(), his.his.practitioners(), his.his.schedules(DAY, DAY)):
            with pytest.raises(Refused):
                await asked
        return
    assert list(await his.his.departments()) == [
        Department("02", "全科医疗科"),
        Department("0201", "全科门诊", "02"),
    ]
    assert list(await his.his.practitioners()) == [Practitioner("D0001", "郝思涵", "chief", "0201")]
    days = await his.his.schedules(DAY, DAY + timedelta(days=1))
    assert [(day.practitioner, day.department, day.date, day.sessions) for day in days] == [
        ("D0001", "0201", DAY, (DaySession("morning", 1, "open"),))
    ]


async def test_a_patient_is_found_by_their_paper(his: Spoken) -> None:
    if his.form == "fhir":
        await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
    else:
        told = {"name": PERSON.name, "sex": "male", "birth_date": "1990-01-01", "phone": PERSON.phone}
        his.sandbox.hospital.admit({**told, "id_type": PERSON.id_type, "id_number": PERSON.id_number})
    found = await his.his.patient(PERSON.id_type, PERSON.id_number)
    assert found is not None and found.his_id
    assert (found.name, found.sex, found.birth_date) == (PERSON.name, "male", PERSON.birth_date)
    assert (found.id_number, found.phone) == (PERSON.id_number, PERSON.phone)
    assert await his.his.patient(PERSON.id_type, "110105199001010028") is None


async def test_failures_name_nobody(hasty: Spoken) -> None:
    for fault in Fault:
        hasty.sandbox.hospital.faults.ask("tell", fault)
        try:
            await hasty.his.tell(f"0-{fault}-0", Kind.BOOKED, booking(1))
        except ConnectorFailed as failed:
            for private in (PERSON.name, PERSON.id_number, PERSON.phone, SECRET.decode()):
                assert private not in repr(failed)
            assert failed.__context__ is None or failed.__suppress_context__


async def test_gb18030_end_to_end() -> None:
    async with spoken("hl7v2", charset="gb18030") as his:
        await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
        (one,) = his.sandbox.hospital.registrations.values()
        assert one.person["name"] == PERSON.name


async def test_enhanced_acknowledgements() -> None:
    async with spoken("hl7v2", is_enhanced=True) as his:
        await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
        with pytest.raises(Refused):
            await his.his.tell("0-2-0", Kind.CANCELLED, booking(2))
        assert [row["message"] for row in his.sandbox.hospital.ledger] == ["0-1-0"]


@pytest.mark.parametrize("form", FORMS)
async def test_nobody_there_is_try_again(form: str) -> None:
    async with spoken(form, address="http://127.0.0.1:9", host="127.0.0.1", port=9) as his:
        for asked in (his.his.tell("0-1-0", Kind.BOOKED, booking(1)), his.his.find(booking(1).id)):
            with pytest.raises(TryAgain) as failed:
                await asked
            assert failed.value.__suppress_context__


async def test_fhir_changes_nothing_for_a_message_that_is_there() -> None:
    async with spoken("fhir") as his:
        await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
        await his.his.tell("0-1-0", Kind.BOOKED, booking(1))
        assert his.sandbox.hospital.repeats == 0
