"""What a HIS says by itself, heard over MLLP from the sandbox; and what is refused, and why."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.his.his import (
    Heard,
    MasterHeard,
    PersonHeard,
    RegistrationHeard,
    ScheduleHeard,
    Status,
)
from integrations.his.his_at import HisAt
from integrations.his.hl7_heard import heard_of
from integrations.his.listener import Listener, Verdict
from integrations.his.sandbox import Sandbox
from integrations.hl7v2.client import Client, Peer
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Header, Row, compose, parse
from tests.support.his import DAY, PERSON, SECRET, ZONE, booking

LI = {
    "name": "李四^",
    "sex": "female",
    "birth_date": "1980-05-06",
    "id_type": "passport",
    "id_number": "E12345678",
    "phone": "13900000000",
}


@dataclass
class Hearing:
    sandbox: Sandbox
    listener: Listener
    verdict: Verdict = field(default_factory=Verdict)
    heard: list[Heard] = field(default_factory=list)
    unread: list[tuple[str, str, str]] = field(default_factory=list)

    async def told(self) -> list[Heard]:
        """What the sandbox has to say, delivered."""
        await self.sandbox.notices.deliver()
        heard, self.heard = self.heard, []
        return heard

    async def says(self, raw: bytes, control_id: str = "7") -> tuple[str, str, str]:
        client = Client(Peer("127.0.0.1", self.listener.port))
        answer = await client.send(raw, control_id)
        await client.close()
        err = answer.find("ERR")
        return answer.first("MSA").text(1), err.text(2) if err else "", err.text(3) if err else ""


@contextlib.asynccontextmanager
async def hearing_of(**more: str) -> AsyncIterator[Hearing]:
    async def on(heard: Heard, raw: bytes) -> Verdict:
        here.heard.append(heard)
        return here.verdict

    async def unread(message_id: str, raw: bytes, where: str, why: str) -> None:
        here.unread.append((message_id, where, why))

    at = replace(HisAt("hl7v2"), **more)  # type: ignore[arg-type]
    listener = Listener(at, on, unread)
    await listener.start()
    sandbox = Sandbox("xinglin", SECRET, zone=ZONE, charset=at.charset)
    sandbox.notices.peer = Peer("127.0.0.1", listener.port)
    here = Hearing(sandbox, listener)
    try:
        yield here
    finally:
        await listener.stop()


@pytest.fixture
async def hearing() -> AsyncIterator[Hearing]:
    async with hearing_of() as here:
        yield here


@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
async def test_a_registration_at_the_window_and_what_becomes_of_it(charset: str) -> None:
    async with hearing_of(charset=charset) as hearing:
        his_id = hearing.sandbox.at_window("0201", "D0001", booking(1).starts_at, LI)
        hearing.sandbox.move(his_id, "cancelled")
        first, second = await hearing.told()
        assert isinstance(first, RegistrationHeard) and isinstance(second, RegistrationHeard)
        told = first.registration
        assert (told.booking_id, told.his_id, told.department, told.practitioner) == (
            None,
            his_id,
            "0201",
            "D0001",
        )
        assert (told.starts_at, told.number, told.status) == (booking(1).starts_at, 1, Status.BOOKED)
        person = told.person
        assert person is not None and person.his_id
        assert (person.name, person.sex, person.birth_date) == (LI["name"], "female", date(1980, 5, 6))
        assert (person.id_type, person.id_number, person.phone) == ("passport", "E12345678", "13900000000")
        assert second.registration.status is Status.CANCELLED
        assert first.message_id != second.message_id
        assert [code for _, code in hearing.sandbox.notices.sent] == ["AA", "AA"]


@pytest.mark.parametrize("status", ["arrived", "fulfilled", "no_show", "booked"])
async def test_what_they_say_of_a_number_of_ours(hearing: Hearing, status: str) -> None:
    told = {
        "id": booking(1).id,
        "department": "0201",
        "practitioner": "D0001",
        "starts_at": booking(1).starts_at,
        "number": 1,
        "person": {},
    }
    his_id = hearing.sandbox.hospital.apply("0-1-0", "booked", told, None)
    hearing.sandbox.move(his_id, status)
    (heard,) = await hearing.told()
    assert isinstance(heard, RegistrationHeard)
    assert (heard.registration.booking_id, heard.registration.status) == (booking(1).id, Status(status))


@pytest.mark.parametrize("what", ["opened", "capacity", "suspended", "resumed"])
@pytest.mark.parametrize("period", ["morning", None])
async def test_a_day_of_a_doctors(hearing: Hearing, what: str, period: str | None) -> None:
    hearing.sandbox.schedule(
        {
            "what": what,
            "practitioner": "D0001",
            "department": "0201",
            "day": DAY.isoformat(),
            "period": period,
            "capacity": 12 if what == "capacity" else None,
            "reason": "医生出差&学习",
        }
    )
    (heard,) = await hearing.told()
    assert isinstance(heard, ScheduleHeard)
    assert (heard.what, heard.practitioner, heard.department, heard.day, heard.period) == (
        what,
        "D0001",
        "0201",
        DAY,
        period,
    )
    assert heard.capacity == (12 if what == "capacity" else None)
    assert heard.reason == "医生出差&学习"


async def test_two_numbers_of_one_person(hearing: Hearing) -> None:
    hospital = hearing.sandbox.hospital
    gone, kept = hospital.admit(LI), hospital.admit({**LI, "id_number": "E1"})
    hearing.sandbox.merge(gone, kept)
    (heard,) = await hearing.told()
    assert isinstance(heard, PersonHeard)
    assert (heard.merged_from, heard.person.his_id) == (gone, kept)


async def test_new_people_departments_and_doctors(hearing: Hearing) -> None:
    notices = hearing.sandbox.notices
    notices.person({**LI, "his_id": "BL9"}, "A04")
    notices.person({**LI, "his_id": "BL9", "name": "李五"}, "A08")
    notices.master("department", {"code": "0999", "name": "疼痛科"})
    notices.master(
        "practitioner", {"code": "D0999", "name": "欧阳", "title": "主任医师", "department": "0999"}
    )
    new, changed, department, doctor = await hearing.told()
    assert isinstance(new, PersonHeard) and isinstance(changed, PersonHeard)
    assert (new.person.name, changed.person.name, new.merged_from) == ("李四^", "李五", None)
    assert isinstance(department, MasterHeard) and isinstance(doctor, MasterHeard)
    assert (department.kind, department.code, department.name) == ("department", "0999", "疼痛科")
    assert (doctor.kind, doctor.code, doctor.name) == ("practitioner", "D0999", "欧阳")
    assert (doctor.title, doctor.department) == ("主任医师", "0999")


async def test_the_verdict_is_the_answer(hearing: Hearing) -> None:
    hearing.verdict = Verdict("AE", "slot_full")
    hearing.sandbox.at_window("0201", "D0001", booking(1).starts_at, LI)
    await hearing.sandbox.notices.deliver()
    assert [code for _, code in hearing.sandbox.notices.sent] == ["AE"]


async def test_wrong_bytes_copies_and_another_order(hearing: Hearing) -> None:
    notices = hearing.sandbox.notices
    notices.has_wrong_charset = True
    hearing.sandbox.at_window("0201", "D0001", booking(1).starts_at, LI)
    assert await hearing.told() == []
    assert notices.sent[0][1] == "AR"
    assert [why for _, _, why in hearing.unread] == ["charset"]
    notices.has_wrong_charset, notices.copies, notices.is_reordering = False, 2, True
    for n in range(5):
        hearing.sandbox.at_window("0201", f"D{n}", booking(1).starts_at, LI)
    heard = await hearing.told()
    assert len(heard) == 10
    assert len({one.message_id for one in heard}) == 5


def siu(*rows: Row, trigger: str = "S12", receiving: tuple[str, str] = ("XINGLIN", "XINGLIN")) -> bytes:
    header = Header(
        ("HIS", "HIS"), receiving, ("SIU", trigger, "SIU_S12"), "7", datetime(2026, 11, 23, tzinfo=UTC)
    )
    return compose(header, rows)


SCH: Row = ("SCH", {2: ("GH1", "HIS"), 11: ("", "", "", "20261130090000+0800"), 25: ("Booked",)})
PID: Row = ("PID", {3: [("BL1", "", "", "HIS", "MR")], 5: (("张三",),)})
AIL: Row = ("AIL", {1: "1", 3: ("0201",)})
AIP: Row = ("AIP", {1: "1", 3: ("D0001",)})


def but(row: Row, **fields: object) -> Row:
    return row[0], {**row[1], **{int(name[1:]): value for name, value in fields.items()}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (siu(SCH, PID, AIL, AIP, receiving=("XINGLIN", "OTHER")), "MSH-6"),
        (siu(SCH, PID, AIL, AIP, receiving=("OTHER", "XINGLIN")), "MSH-5"),
        (siu(SCH, PID, AIL, AIP, trigger="S99"), "MSH-9"),
        (siu(PID, AIL, AIP), "SCH"),
        (siu(but(SCH, f2=""), PID, AIL, AIP), "SCH-2"),
        (siu(but(SCH, f2=("a b",)), PID, AIL, AIP), "SCH-2"),
        (siu(but(SCH, f11=""), PID, AIL, AIP), "SCH-11"),
        (siu(but(SCH, f11=("", "", "", "20261130")), PID, AIL, AIP), "SCH-11"),
        (siu(but(SCH, f11=("", "", "", "20261330090000")), PID, AIL, AIP), "SCH-11"),
        (siu(but(SCH, f25=("Whatever",)), PID, AIL, AIP), "SCH-25"),
        (siu(SCH, PID, AIP), "AIL-3"),
        (siu(SCH, PID, AIL), "AIP-3"),
        (siu(SCH, but(PID, f7="19991399"), AIL, AIP), "PID-7"),
        (siu(SCH, but(PID, f5=(("x" * 500,),)), AIL, AIP), "PID-5"),
        (siu(SCH, but(PID, f5=(("x\r\nOBX|1",),)), AIL, AIP), "PID-5"),
        (siu(SCH, PID, AIL, AIP, ("ZXL", {1: "-1"})), "ZXL-1"),
        (siu(but(SCH, f8=("noon",)), AIL, AIP, trigger="S23"), "SCH-8"),
        (siu(SCH, AIL, AIP, trigger="S19"), "ZXL-6"),
        (b"MSH|^~\\&|HIS|HIS|XINGLIN|XINGLIN|2026||ADT^A40|7\rPID|||BL1^^^HIS^MR\r", "MRG"),
        (b"MSH|^~\\&|HIS|HIS|XINGLIN|XINGLIN|2026||ADT^A08|7\rPID|||\r", "PID-3"),
        (b"MSH|^~\\&|HIS|HIS|XINGLIN|XINGLIN|x||ADT^A08|7\rPID|||BL1\r", "MSH-7"),
        (b"MSH|^~\\&|HIS|HIS|XINGLIN|XINGLIN|2026||MFN^M02|7\r", "MFE"),
    ],
)
async def test_what_is_refused_and_where(hearing: Hearing, raw: bytes, where: str) -> None:
    code, segment, _ = await hearing.says(raw)
    assert (code, hearing.heard) == ("AR", [])
    assert segment == where.split("-")[0]
    ((message_id, found, why),) = hearing.unread
    assert found.split(".")[0] == where
    assert (message_id, bool(why)) == ("HIS/7", True)


async def test_without_a_status_the_trigger_says_it(hearing: Hearing) -> None:
    for trigger, status in (("S12", Status.BOOKED), ("S17", Status.CANCELLED), ("S26", Status.NO_SHOW)):
        assert (await hearing.says(siu(but(SCH, f25=""), PID, AIL, AIP, trigger=trigger)))[0] == "AA"
        heard = hearing.heard.pop()
        assert isinstance(heard, RegistrationHeard) and heard.registration.status is status


async def test_an_arrival_by_adt(hearing: Hearing) -> None:
    visit: Row = (
        "PV1",
        {
            2: "O",
            3: ("0201",),
            7: ("D0001",),
            19: (booking(1).id, "", "", "XINGLIN", "VN"),
            44: "20261130085500+0800",
        },
    )
    header = Header(
        ("HIS", "HIS"), ("", ""), ("ADT", "A04", "ADT_A01"), "7", datetime(2026, 11, 23, tzinfo=UTC)
    )
    assert (await hearing.says(compose(header, [PID, visit])))[0] == "AA"
    (heard,) = hearing.heard
    assert isinstance(heard, RegistrationHeard)
    assert (heard.registration.booking_id, heard.registration.status) == (booking(1).id, Status.ARRIVED)


@given(
    st.sampled_from(["SIU^S12", "SIU^S23", "ADT^A04", "ADT^A40", "MFN^M02", "MFN^M05", "SIU^S19"]),
    st.lists(
        st.tuples(
            st.sampled_from(["SCH", "PID", "PV1", "AIL", "AIP", "MRG", "MFE", "STF", "LOC", "ZXL"]),
            st.lists(st.text('^~&\\|X0FD张a1"', max_size=12), max_size=26),
        ),
        max_size=6,
    ),
)
def test_anything_is_heard_or_malformed(kind: str, segments: list[tuple[str, list[str]]]) -> None:
    lines = [f"MSH|^~\\&|H|H|||2026||{kind}|7", *("|".join([name, *fields]) for name, fields in segments)]
    try:
        heard = heard_of(parse("\r".join(lines).encode()), ZONE)
    except Malformed:
        return
    assert all(one.message_id.startswith("H/7") for one in heard)


def test_nothing_of_a_person_is_shown_with_a_refusal() -> None:
    raw = siu(SCH, but(PID, f5=((PERSON.name * 99,),)), AIL, AIP)
    with pytest.raises(Malformed) as malformed:
        heard_of(parse(raw), ZONE)
    assert PERSON.name not in str(malformed.value)
