"""Hospital files: what is right is read, what is wrong is told with its file and line, all of it at once."""

from datetime import date, time
from pathlib import Path

import pytest

from engine.domain.calendar import Holiday, SessionOverride, SessionTemplate
from engine.domain.places import Place, metres_between
from engine.records.catalog import Campus
from engine.records.hospital_file import read_hospital
from engine.records.hospital_rules import FileError, ImportRefused

DEMO = Path(__file__).parents[2] / "web" / "demo" / "hospital"

GOOD = {
    "hospital.yaml": """\
name: 小医院
timezone: Asia/Shanghai
campuses:
  - 本部
number_classes:
  - {id: ordinary, name: 普通号, fee_fen: 1500}
  - {id: emergency, name: 急诊号, fee_fen: 2000}
holidays:
  - {date: 2027-01-01, name: 元旦}
  - {date: 2026-10-10, name: 调休, works_as: 3}
""",
    "departments.csv": """\
id,parent_id,name,name_en,campus,location,intro,sex,age_min,age_max
03,,内科,Internal Medicine,本部,2层,,,,
0304,03,心血管内科,Cardiology,本部,2层,"心脏, 血管",,,
0501,,妇科,,本部,,,female,14,
""",
    "practitioners.csv": """\
id,name,title,department_id,specialty,intro
D1,王一,chief,0304,冠心病,
D2,李二,resident,0501,,
""",
    "rooms.csv": """\
id,name,department_id
R1,201诊室,0304
""",
    "templates.csv": """\
practitioner_id,weekday,period,starts,ends,capacity,number_class_id,department_id,room_id,fee_fen
D1,2,morning,8:00,12:00,4,ordinary,0304,R1,
D1,2,afternoon,14:00,17:30,4,ordinary,,,5000
D2,3,morning,08:00,12:00,4,ordinary,,,
""",
    "overrides.csv": """\
practitioner_id,day,period,closed,starts,ends,capacity
D1,2026-11-24,morning,yes,,,
D1,2026-11-24,afternoon,no,15:00,,
D2,2026-10-10,morning,,,,2
""",
}


def write(folder: Path, files: dict[str, str | bytes | None]) -> Path:
    """The good hospital with some files replaced, or missing (None)."""
    for name, text in {**GOOD, **files}.items():
        if text is not None:
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def errors_of(folder: Path, files: dict[str, str | bytes | None]) -> tuple[FileError, ...]:
    with pytest.raises(ImportRefused) as refused:
        read_hospital(write(folder, files))
    return refused.value.errors


def test_a_good_hospital(tmp_path: Path) -> None:
    files = read_hospital(write(tmp_path, {}))
    assert (files.hospital.name, files.hospital.timezone) == ("小医院", "Asia/Shanghai")
    assert files.campuses == (Campus("本部", position=1),)
    assert [(c.id, c.fee_fen) for c in files.number_classes] == [("ordinary", 1500), ("emergency", 2000)]
    assert files.holidays[1] == Holiday(date(2026, 10, 10), "调休", 3)
    assert [(d.id, d.parent_id, d.position) for d in files.departments] == [
        ("03", None, 1),
        ("0304", "03", 2),
        ("0501", None, 3),
    ]
    assert files.departments[1].intro == "心脏, 血管"
    assert (files.departments[2].rule.sex, files.departments[2].rule.age_min) == ("female", 14)
    assert files.practitioners[0].specialty == "冠心病"
    assert files.rooms[0].name == "201诊室"
    assert files.templates[1] == SessionTemplate(
        "D1", 2, "afternoon", time(14), time(17, 30), 4, "ordinary", "0304", None, 5000
    )
    assert files.overrides[1] == SessionOverride(
        "D1", date(2026, 11, 24), "afternoon", False, time(15), None, None
    )


def test_the_path_may_be_the_yaml_file_and_files_may_have_a_bom_and_windows_lines(tmp_path: Path) -> None:
    folder = write(tmp_path, {name: ("\ufeff" + text.replace("\n", "\r\n")) for name, text in GOOD.items()})
    assert read_hospital(folder / "hospital.yaml") == read_hospital(folder)
    assert read_hospital(folder).practitioners[1].name == "李二"


def test_a_campus_may_say_where_it_is(tmp_path: Path) -> None:
    text = GOOD["hospital.yaml"].replace("- 本部", "- {name: 本部, latitude: 39.9042, longitude: -116.40739}")
    (campus,) = read_hospital(write(tmp_path, {"hospital.yaml": text})).campuses
    assert campus == Campus("本部", 39.9042, -116.40739, 1)
    assert campus.place == Place(39.9042, -116.40739)
    assert Campus("本部").place is None


def test_optional_columns_may_be_missing_and_come_in_any_order(tmp_path: Path) -> None:
    rooms = "department_id,id,name\n\n0304,R1,201诊室\n"
    departments = "campus,name,id,parent_id\n本部,心血管内科,0304,\n本部,妇科,0501,\n"
    files = read_hospital(write(tmp_path, {"rooms.csv": rooms, "departments.csv": departments}))
    assert files.rooms[0].id == "R1"
    assert files.departments[0].age_max is None


# One wrong thing each: (file, what is replaced, by what, line, words of the reason).
WRONG = [
    ("hospital.yaml", "name: 小医院\n", "", 1, "missing key 'name'"),
    ("hospital.yaml", "name: 小医院", "name:", 1, "name is blank"),
    ("hospital.yaml", "name: 小医院", "name: 小医院\nname: 大医院", 2, "duplicate key 'name'"),
    ("hospital.yaml", "name: 小医院", "name: [小医院]", 1, "name must be a plain value"),
    ("hospital.yaml", "name: 小医院", "name: 小医院\nphone: 1", 2, "unknown key 'phone'"),
    ("hospital.yaml", "name: 小医院", "name: !!python/name:os.system x", 1, "plain value"),
    ("hospital.yaml", "Asia/Shanghai", "Asia/Chang'an", 2, "timezone"),
    ("hospital.yaml", "Asia/Shanghai", "Asia", 2, "unknown: use an IANA name"),
    ("hospital.yaml", "Asia/Shanghai", "../../etc/passwd", 2, "unknown: use an IANA name"),
    ("hospital.yaml", "  - 本部", "  - 本部\n  - 本部", 5, "campus '本部' is already on line 4"),
    ("hospital.yaml", "\n  - 本部", " [本部, 本部]", 3, "campus '本部' is already on line 3"),
    ("hospital.yaml", "- 本部", "- {name: 本部, latitude: 39.9042}", 4, "give both or none"),
    ("hospital.yaml", "- 本部", "- {latitude: 39.9042, longitude: 116.4074}", 4, "missing key 'name'"),
    ("hospital.yaml", "- 本部", "- {name: 本部, latitude: 39.9, longitude: 116.4074}", 4, "4 to 8 decimals"),
    (
        "hospital.yaml",
        "- 本部",
        "- {name: 本部, latitude: 116.4074, longitude: 39.9042}",
        4,
        "from -90 to 90",
    ),
    ("hospital.yaml", "- 本部", "- {name: 本部, latitude: 39.9042, longitude: 196.4074}", 4, "from -180"),
    ("hospital.yaml", "- 本部", "- {name: 本部, latitude: , longitude: 116.4074}", 4, "latitude is ''"),
    ("hospital.yaml", "- 本部", "- {name: 本部, latitude: [1], longitude: 116.4074}", 4, "a plain value"),
    ("hospital.yaml", "- 本部", "- {name: 本部, lat: 39.9042, lon: 116.4074}", 4, "unknown key 'lat'"),
    ("hospital.yaml", "- 本部", "- 本部\n  - {name: 本部}", 5, "campus '本部' is already on line 4"),
    ("hospital.yaml", "id: ordinary", "id: 普通", 6, "must be 1 to 32 letters"),
    ("hospital.yaml", "id: emergency", "id: ordinary", 7, "number class 'ordinary' is already on line 6"),
    ("hospital.yaml", "fee_fen: 1500", "fee_fen: -1", 6, "fee_fen is '-1'"),
    ("hospital.yaml", "fee_fen: 1500", "fee_fen: 15.00", 6, "whole number"),
    ("hospital.yaml", "fee_fen: 1500", "fee_yuan: 15", 6, "unknown key 'fee_yuan'"),
    ("hospital.yaml", "2027-01-01", "2027-02-30", 9, "existing date"),
    ("hospital.yaml", "2027-01-01", "20270101", 9, "existing date"),
    ("hospital.yaml", "2027-01-01", "2026-10-10", 10, "already on line 9"),
    ("hospital.yaml", "works_as: 3", "works_as: 8", 10, "works_as is '8'"),
    ("hospital.yaml", "holidays:\n", "holidays: none\nx:\n", 8, "must be a list"),
    ("hospital.yaml", "name: 小医院", "name: 'x", 11, "not YAML"),
    ("departments.csv", "parent_id,", "", 1, "missing column 'parent_id'"),
    ("departments.csv", "age_max", "age_max,floor", 1, "unknown column 'floor'"),
    ("departments.csv", "name_en", "name", 1, "duplicate column 'name'"),
    ("departments.csv", "0304,03,", "03,,", 3, "department '03' is already on line 2"),
    ("departments.csv", "0501,", ",", 4, "id is blank"),
    ("departments.csv", "0501,", "05-01,", 4, "must be 1 to 32 letters"),
    ("departments.csv", "0501,", f"{'0' * 33},", 4, "must be 1 to 32 letters"),
    ("departments.csv", "0501,,妇科", "0501,,", 4, "name is blank"),
    ("departments.csv", "妇科", "妇\u0007科", 4, "control character (U+0007)"),
    ("departments.csv", "妇科", "妇\u202e科", 4, "control character (U+202E)"),
    ("departments.csv", "妇科", "妇" * 65, 4, "at most 64"),
    ("departments.csv", "妇科,,本部", "妇科,,西院", 4, "campus '西院' is unknown"),
    ("departments.csv", "0501,", "0501,05", 4, "parent_id '05' is unknown"),
    ("departments.csv", "0501,", "0501,0304", 4, "third level"),
    ("departments.csv", "03,,内科", "03,0304,内科", 2, "above itself"),
    ("departments.csv", "0501,", "0501,0501", 4, "above itself"),
    ("departments.csv", "female", "woman", 4, "one of male, female"),
    ("departments.csv", "female,14,", "female,14,13", 4, "age_min 14 is above age_max 13"),
    ("departments.csv", "female,14,", "female,151,", 4, "age_min is '151'"),
    ("departments.csv", "female,14,", "female,１４,", 4, "age_min is '１４'"),
    ("departments.csv", "female,14,", "female,14,,", 4, "has 11 values, the header 10"),
    ("departments.csv", '"心脏, 血管"', '"心脏, 血管', 3, "not CSV"),
    ("departments.csv", '"心脏, 血管"', '"心脏,\n血管"', 3, "control character (U+000A)"),
    ("practitioners.csv", "D2,", "D1,", 3, "practitioner 'D1' is already on line 2"),
    ("practitioners.csv", "chief", "professor", 2, "title is 'professor'"),
    ("practitioners.csv", "resident,0501", "resident,0502", 3, "department_id '0502' is unknown"),
    ("practitioners.csv", "李二", " ", 3, "name is blank"),
    ("rooms.csv", "R1,201诊室,0304", "R1,201诊室,0305", 2, "department_id '0305' is unknown"),
    ("rooms.csv", "R1,201诊室,0304", "R1,a,0304\nR1,b,0304", 3, "room 'R1' is already on line 2"),
    ("templates.csv", "D2,3", "D3,3", 4, "practitioner_id 'D3' is unknown"),
    ("templates.csv", "D2,3", "D2,0", 4, "weekday is '0'"),
    ("templates.csv", "D2,3,morning", "D2,3,noon", 4, "period is 'noon'"),
    ("templates.csv", "D2,3,morning,08:00", "D2,3,morning,25:00", 4, "time of the day as HH:MM"),
    ("templates.csv", "D2,3,morning,08:00", "D2,3,morning,08:15", 4, "on the half hour"),
    ("templates.csv", "D2,3,morning,08:00", "D2,3,morning,12:00", 4, "not after it starts"),
    ("templates.csv", "D2,3,morning,08:00", "D2,3,morning,13:00", 4, "not after it starts"),
    ("templates.csv", "afternoon,14:00", "afternoon,11:30", 3, "overlaps"),
    ("templates.csv", "afternoon,14:00,17:30", "afternoon,06:00,07:00", 3, "order of the day"),
    ("templates.csv", "D1,2,afternoon", "D1,2,morning", 3, "is already on line 2"),
    ("templates.csv", "12:00,4,ordinary,,,", "12:00,0,ordinary,,,", 4, "capacity is '0'"),
    ("templates.csv", "12:00,4,ordinary,,,", "12:00,10000,ordinary,,,", 4, "from 1 to 9999"),
    ("templates.csv", "12:00,4,ordinary,,,", "12:00,4,vip,,,", 4, "number_class_id 'vip' is unknown"),
    ("templates.csv", "12:00,4,ordinary,,,", "12:00,4,ordinary,0999,,", 4, "department_id '0999' is unknown"),
    ("templates.csv", "12:00,4,ordinary,,,", "12:00,4,ordinary,03,,", 4, "has departments under it"),
    ("templates.csv", "12:00,4,ordinary,,,", "12:00,4,ordinary,,R9,", 4, "room_id 'R9' is unknown"),
    ("templates.csv", "12:00,4,ordinary,,,", "12:00,4,ordinary,,,-5", 4, "fee_fen is '-5'"),
    ("overrides.csv", "D2,", "D9,", 4, "practitioner_id 'D9' is unknown"),
    ("overrides.csv", "2026-11-24,morning", "2026-11-31,morning", 2, "existing date"),
    ("overrides.csv", "2026-11-24,morning", "2026-11-25,morning", 2, "no morning session on 2026-11-25"),
    ("overrides.csv", "2026-11-24,afternoon", "2026-11-24,morning", 3, "is already on line 2"),
    ("overrides.csv", "yes,,,", "true,,,", 2, "one of yes, no"),
    ("overrides.csv", "yes,,,", "yes,,,3", 2, "leave starts, ends and capacity blank"),
    ("overrides.csv", "no,15:00", "no,", 3, "nothing is other than in the week"),
    ("overrides.csv", "no,15:00", "no,17:30", 3, "not after it starts"),
    ("overrides.csv", "yes,,,", "no,,15:30,", 2, "overlaps"),
    ("overrides.csv", ",,,,2", ",,,,0", 4, "capacity is '0'"),
]


@pytest.mark.parametrize(("file", "old", "new", "line", "reason"), WRONG)
def test_each_error_has_its_file_and_line(
    tmp_path: Path, file: str, old: str, new: str, line: int, reason: str
) -> None:
    assert old in GOOD[file]
    errors = errors_of(tmp_path, {file: GOOD[file].replace(old, new, 1)})
    assert [e for e in errors if (e.file, e.line) == (file, line) and reason in e.reason], errors


@pytest.mark.parametrize("file", sorted(GOOD))
def test_whole_files_that_are_wrong(tmp_path: Path, file: str) -> None:
    assert [(e.file, e.line) for e in errors_of(tmp_path, {file: b""})] == [(file, 1)]
    first = GOOD[file].splitlines()[0].encode()
    (error,) = errors_of(tmp_path, {file: first + b"\n" + "中文".encode("gbk")})
    assert (error.file, error.line) == (file, 2)
    assert "UTF-8" in error.reason
    (tmp_path / file).unlink()
    (error,) = errors_of(tmp_path, {file: None})
    assert (error.file, error.line) == (file, 0)
    assert "is missing" in error.reason


def test_every_error_is_told_at_once_and_in_order(tmp_path: Path) -> None:
    errors = errors_of(
        tmp_path,
        {
            "hospital.yaml": GOOD["hospital.yaml"].replace("Asia/Shanghai", "Mars"),
            "practitioners.csv": GOOD["practitioners.csv"]
            .replace("chief", "boss")
            .replace("resident,0501", "x,y"),
            "templates.csv": GOOD["templates.csv"].replace("08:00", "late"),
        },
    )
    assert [(e.file, e.line) for e in errors] == [
        ("hospital.yaml", 2),
        ("practitioners.csv", 2),
        ("practitioners.csv", 3),
        ("practitioners.csv", 3),
        ("templates.csv", 4),
    ]
    assert str(errors[0]).startswith("hospital.yaml:2: timezone 'Mars'")


def test_a_policy_may_be_there_and_is_checked_against_the_other_files(tmp_path: Path) -> None:
    assert read_hospital(write(tmp_path, {})).policy is None
    text = "departments:\n  '0304': {closes: 1h}\nclasses:\n  emergency: {closes: 0m}\n"
    assert read_hospital(write(tmp_path, {"policy.yaml": text})).policy == text
    wrong = "departments:\n  '03': {}\n  '0999': {closes: 60}\nclasses:\n  expert: {}\n"
    errors = errors_of(tmp_path, {"policy.yaml": wrong, "rooms.csv": "id,name,department_id\nR1,,0304\n"})
    assert [(e.file, e.line, e.column) for e in errors] == [
        ("rooms.csv", 2, 0),
        ("policy.yaml", 2, 3),
        ("policy.yaml", 3, 3),
        ("policy.yaml", 3, 20),
        ("policy.yaml", 5, 3),
    ]
    assert str(errors[3]).startswith("policy.yaml:3:20: departments.0999.closes: is '60': write")


def test_ids_of_a_policy_are_not_judged_against_files_that_are_missing(tmp_path: Path) -> None:
    errors = errors_of(tmp_path, {"policy.yaml": "departments: {'0304': {}}", "departments.csv": None})
    assert {e.file for e in errors} == {"departments.csv"}


def test_a_policy_that_is_not_utf_8(tmp_path: Path) -> None:
    (error,) = errors_of(tmp_path, {"policy.yaml": b"wishes_max: 1\n# \xff\n"})
    assert (error.file, error.line) == ("policy.yaml", 2)


def test_an_error_does_not_make_others_of_its_followers(tmp_path: Path) -> None:
    errors = errors_of(tmp_path, {"departments.csv": GOOD["departments.csv"].replace("心血管内科", "")})
    assert [(e.file, e.line) for e in errors] == [("departments.csv", 3)]


@pytest.mark.parametrize("text", ["[" * 5_000, "- 1\n", "&a [*a]", "a: &x 1\n--- 2\n", "\x00"])
def test_strange_yaml_is_refused(tmp_path: Path, text: str) -> None:
    assert {e.file for e in errors_of(tmp_path, {"hospital.yaml": text})} == {"hospital.yaml"}


def test_the_demo_hospital() -> None:
    files = read_hospital(DEMO)
    bookable = {template.department_id for template in files.templates}
    assert len(bookable) >= 40
    assert all(d.parent_id for d in files.departments if d.id in bookable)
    assert len(files.practitioners) >= 300
    assert len({p.name for p in files.practitioners}) == len(files.practitioners)
    sessions = [sum(t.practitioner_id == p.id for t in files.templates) for p in files.practitioners]
    assert 2 <= min(sessions) <= max(sessions) <= 6
    first, second = (campus.place for campus in files.campuses)
    assert first is not None and second is not None
    assert 2_000 < metres_between(first, second) < 20_000
    children = [d for d in files.departments if (d.parent_id or d.id) == "07"]
    assert {d.age_max for d in children} == {14}
    assert {d.sex for d in files.departments if d.id in ("0501", "0502")} == {"female"}
    emergency = {t.weekday for t in files.templates if t.number_class_id == "emergency"}
    assert emergency == set(range(1, 8))
    in_room = [(t.room_id, t.weekday, t.period) for t in files.templates]
    assert len(set(in_room)) == len(in_room)
