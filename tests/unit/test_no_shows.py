"""The public data set: what is read, what is refused and said, and where its patients go."""

import gzip
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from engine.domain.eligibility import DepartmentRule, full_years
from engine.records.identity import IdType, Person, identify
from tests.support.no_shows import HEADER, invented, line
from web.no_shows import Place, Places, Row, WrongFile, made_patient, read

TODAY = date(2026, 11, 24)


def file(folder: Path, *lines: str) -> Path:
    path = folder / "no-shows.csv"
    path.write_text("\n".join((HEADER, *lines)) + "\n")
    return path


def row(**changes: object) -> Row:
    values = {
        "appointment_id": "1",
        "patient": "77",
        "sex": "female",
        "scheduled": datetime(2016, 5, 1, tzinfo=UTC),
        "day": date(2016, 5, 3),
        "age": 30,
        "neighbourhood": "CENTRO",
        "cancels": False,
        **changes,
    }
    return Row(**values)  # type: ignore[arg-type]


# Reading.


def test_a_row_is_read_as_published(tmp_path: Path) -> None:
    data = read(file(tmp_path, line(No_show="Yes")))
    assert data.bad == []
    assert data.rows == [
        Row(
            "5642903",
            "29872499824296",
            "female",
            datetime(2016, 4, 29, 18, 38, 8, tzinfo=UTC),
            date(2016, 5, 3),
            62,
            "JARDIM DA PENHA",
            True,
        )
    ]


def test_plain_gzipped_and_with_a_byte_order_mark_are_the_same(tmp_path: Path) -> None:
    text = invented(40).encode()
    contents = (text, gzip.compress(text), b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n"))
    found = []
    for n, content in enumerate(contents):
        (tmp_path / str(n)).write_bytes(content)
        found.append(read(tmp_path / str(n)))
    assert all(data == found[0] for data in found)
    assert len(found[0].rows) == 40


def test_rows_arrive_in_the_order_in_which_they_were_scheduled(tmp_path: Path) -> None:
    late = line(AppointmentID="1", ScheduledDay="2016-05-02T08:00:00Z")
    early = line(AppointmentID="2", ScheduledDay="2016-05-01T08:00:00Z")
    assert [r.appointment_id for r in read(file(tmp_path, late, early)).rows] == ["2", "1"]


def test_a_limit_takes_the_first_rows_of_the_file(tmp_path: Path) -> None:
    lines = [line(AppointmentID=str(n)) for n in range(5)]
    assert [r.appointment_id for r in read(file(tmp_path, *lines), limit=2).rows] == ["0", "1"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line(PatientId=""), "PatientId '' is not a number"),
        (line(PatientId="1E99"), "PatientId '1E99' is not a number"),
        (line(AppointmentID="x"), "AppointmentID 'x' is not a number"),
        (line(Gender="f"), "Gender 'f' is neither F nor M"),
        (line(ScheduledDay="2016-04-29"), "'2016-04-29' is not a time like"),
        (line(AppointmentDay="2016-02-30T00:00:00Z"), "'2016-02-30T00:00:00Z' is not a time like"),
        (line(ScheduledDay="2016-05-04T00:00:00Z"), "was scheduled on 2016-05-04, after its day 2016-05-03"),
        (line(Age="-1"), "Age '-1' is not from 0 to 130"),
        (line(Age="131"), "Age '131' is not from 0 to 130"),
        (line(Age="²"), "Age '²' is not from 0 to 130"),
        (line(Neighbourhood="  "), "Neighbourhood is blank"),
        (line(SMS_received="2"), "SMS_received '2' is neither 0 nor 1"),
        (line(No_show="no"), "No-show 'no' is neither Yes nor No"),
        ("1,2,3", "has 3 values, not 14"),
        ("", "has 0 values, not 14"),
        (line(), "AppointmentID 5642903 was there before"),
    ],
)
def test_a_malformed_row_is_told_with_its_line_and_left_out(tmp_path: Path, bad: str, reason: str) -> None:
    data = read(file(tmp_path, line(), bad, line(AppointmentID="7")))
    assert [r.appointment_id for r in data.rows] == ["5642903", "7"]
    ((number, why),) = data.bad
    assert number == 3
    assert why.startswith(reason)


def test_the_five_patient_ids_that_a_spreadsheet_spoilt_are_people_too(tmp_path: Path) -> None:
    (found,) = read(file(tmp_path, line(PatientId="9377952927E-5"))).rows
    assert found.patient == "93779_52927"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ":1: not the header of 'Medical Appointment No Shows': the column 'PatientId' is missing"),
        (HEADER.replace("No-show", "NoShow").encode(), "the column 'No-show' is missing"),
        (",".join(reversed(HEADER.split(","))).encode(), "the columns are others, or in another order"),
        (HEADER.encode() + b"\n\xff\xfe\n", "is not UTF-8"),
        (gzip.compress(HEADER.encode())[:-9], "is damaged"),
        (HEADER.encode() + b'\n"a"b,', ":2: not CSV"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(WrongFile) as refused:
        read(path)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(WrongFile, match=reason):
            read(path)


# People.


def test_made_identities_are_valid_and_say_age_and_sex() -> None:
    for n in range(500):
        one = row(patient=str(n), age=n % 116, sex=("male", "female")[n % 2])
        made = made_patient(one, TODAY)
        person = identify(made.name, IdType.RESIDENT_ID, made.id_number, made.phone, TODAY)
        assert isinstance(person, Person)
        assert (person.sex, person.birth_date) == (one.sex, made.born)
        assert full_years(made.born, TODAY) == one.age
        assert made.id_number.startswith("99"), "no province has this code"


def test_a_patient_is_always_the_same_and_never_another() -> None:
    assert made_patient(row(), TODAY) == made_patient(row(appointment_id="2"), TODAY)
    numbers = {made_patient(row(patient=str(n), age=0), TODAY).id_number for n in range(5_000)}
    assert len(numbers) == 5_000


# Places.


def places(
    rules: dict[str, DepartmentRule] | None = None, days: int = 14, weeks: int = 4, free: int = 1
) -> Places:
    rules = rules or {"A": DepartmentRule(), "B": DepartmentRule(), "C": DepartmentRule()}
    slots = [
        Place(f"{id_}-{n}-{minute}", id_, TODAY + timedelta(n), minute, free)
        for id_ in rules
        for n in range(days)
        for minute in (480, 510, 900)
    ]
    return Places(rules, slots, [date(2016, 5, 2) + timedelta(7 * n) for n in range(weeks)])


def test_weeks_fold_onto_the_published_days_with_weekday_and_order_kept() -> None:
    where = places(weeks=4)
    for weekday in range(7):
        asked = [date(2016, 5, 2) + timedelta(7 * n + weekday) for n in range(4)]
        given = [where.day_of(day) for day in asked]
        assert {day.weekday() for day in given} == {weekday}
        assert given == sorted(given)
        assert Counter(given) == dict.fromkeys(given, 2)


def test_a_weekday_that_is_not_published_gives_way_to_the_next_one() -> None:
    where = places(days=2)  # a Tuesday and a Wednesday
    assert where.day_of(date(2016, 5, 2)).weekday() == 1
    assert where.day_of(date(2016, 5, 7)).weekday() == 1


def test_a_neighbourhood_has_one_department_and_all_are_used() -> None:
    where = places()
    given = {}
    for n in range(60):
        found = {
            where.wish(one, made_patient(one, TODAY)).department_id  # type: ignore[union-attr]
            for one in (row(neighbourhood=f"N{n}", patient=str(p)) for p in range(5))
        }
        assert len(found) == 1
        given[n] = found.pop()
    assert set(given.values()) == {"A", "B", "C"}


def test_who_is_not_seen_by_a_department_goes_to_one_that_sees_him() -> None:
    rules = {"gyn": DepartmentRule("female", 14, None), "child": DepartmentRule(None, None, 13)}
    where = places(rules)
    for n in range(40):
        for sex, age, expected in (("female", 30, "gyn"), ("male", 5, "child"), ("female", 5, "child")):
            one = row(neighbourhood=f"N{n}", sex=sex, age=age)
            found = where.wish(one, made_patient(one, TODAY))
            assert found is not None
            assert found.department_id == expected
        nobody_sees = row(neighbourhood=f"N{n}", sex="male", age=30)
        assert where.wish(nobody_sees, made_patient(nobody_sees, TODAY)) is None


def test_the_nearest_free_slot_is_asked_for_and_a_full_one_when_there_is_none() -> None:
    where = places({"A": DepartmentRule()})
    wishes = []
    for _ in range(4):
        found = where.wish(row(), made_patient(row(), TODAY))
        assert found is not None
        wishes.append(found)
        found.free -= 1
    assert len({place.slot_id for place in wishes[:3]}) == 3
    assert wishes[3] is wishes[0], "nothing is free, so the time that suits best is asked for again"


def test_a_department_without_clinic_on_the_day_takes_the_nearest_day() -> None:
    rules = {"A": DepartmentRule()}
    slots = [
        Place("late", "A", TODAY + timedelta(9), 480, 1),
        Place("soon", "A", TODAY + timedelta(2), 480, 1),
    ]
    where = Places(rules, slots, [date(2016, 5, 2)])
    found = where.wish(row(), made_patient(row(), TODAY))
    assert found is not None
    assert found.slot_id in ("late", "soon")
