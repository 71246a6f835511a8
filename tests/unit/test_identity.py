"""What is taken for a name, a document, a phone; and how little of it is shown again."""

from datetime import date

import pytest

from engine.records.identity import (
    IdentityFault,
    IdType,
    Person,
    check_digit,
    identify,
    is_same_name,
    masked_id_number,
    masked_phone,
    normal_id_number,
    normal_name,
    normal_phone,
)

TODAY = date(2026, 11, 23)


def resident(first_17: str) -> str:
    return first_17 + check_digit(first_17)


def typed(
    name: str = "王小明",
    id_type: IdType = IdType.RESIDENT_ID,
    id_number: str = "11010519491231002X",
    phone: str = "13812345678",
    birth_date: date | None = None,
    sex: str | None = None,
) -> Person | IdentityFault:
    return identify(name, id_type, id_number, phone, TODAY, birth_date, sex)


def test_the_standards_own_example() -> None:
    # GB 11643-1999, A.2: two numbers with their check digits.
    assert check_digit("11010519491231002") == "X"
    assert check_digit("44052418800101001") == "4"


def test_a_resident_number_says_birth_date_and_sex() -> None:
    assert typed() == Person(
        "王小明", IdType.RESIDENT_ID, "11010519491231002X", "13812345678", date(1949, 12, 31), "female"
    )
    man = typed(id_number=resident("11010520000229001"))
    assert isinstance(man, Person)
    assert (man.birth_date, man.sex) == (date(2000, 2, 29), "male")


def test_small_x_and_blanks_around_are_forgiven() -> None:
    assert normal_id_number(IdType.RESIDENT_ID, " 11010519491231002x ") == "11010519491231002X"


@pytest.mark.parametrize(
    "id_number",
    [
        "",
        "110105194912310021",  # check digit
        "110105491231002",  # 15 characters, the old kind
        "11010519491231002XX",
        "１１０１０５19491231002X",  # full width
        "1101051949123100２X",
        "11010519491231002Y",
        "01010519491231002X",
        resident("11010520230229001"),  # no such day
        resident("11010520001301001"),  # no such month
        resident("11010500000101001"),  # no such year
        resident("11010520261124001"),  # tomorrow
        resident("44052418700101001"),  # nobody is that old
    ],
)
def test_no_resident_number(id_number: str) -> None:
    assert typed(id_number=id_number) is IdentityFault.INVALID_ID_NUMBER


def test_born_today() -> None:
    assert isinstance(typed(id_number=resident("11010520261123001")), Person)


@pytest.mark.parametrize(
    ("id_type", "good", "bad"),
    [
        (IdType.PASSPORT, "e12345678", "E1"),
        (IdType.PASSPORT, "PA9988776", "PA-998877"),
        (IdType.HK_MACAU_PERMIT, "H12345678", "T12345678"),
        (IdType.HK_MACAU_PERMIT, "M1234567800", "M123456780"),
        (IdType.TAIWAN_PERMIT, "12345678", "1234567"),
        (IdType.FOREIGN_PERMANENT, "FRA110012345678", "FR1100123456789"),
    ],
)
def test_other_documents_by_format_alone(id_type: IdType, good: str, bad: str) -> None:
    person = typed(id_type=id_type, id_number=good)
    assert isinstance(person, Person)
    assert (person.id_number, person.birth_date, person.sex) == (good.upper(), None, None)
    assert typed(id_type=id_type, id_number=bad) is IdentityFault.INVALID_ID_NUMBER


@pytest.mark.parametrize("region", ["810000", "820000", "830000"])
def test_residence_permits_of_hong_kong_macau_and_taiwan_are_numbered_like_residents(region: str) -> None:
    person = typed(id_number=resident(f"{region}19900501002"))
    assert isinstance(person, Person)
    assert (person.birth_date, person.sex) == (date(1990, 5, 1), "female")
    wrong = resident(f"{region}19900501002")[:-1] + "Y"
    assert typed(id_number=wrong) is IdentityFault.INVALID_ID_NUMBER


def test_foreigners_papers_since_2023_say_the_birth_date_and_have_a_check_digit() -> None:
    def paper(first_17: str, birth_date: date | None = None) -> Person | IdentityFault:
        number = resident(first_17)
        return typed(id_type=IdType.FOREIGN_PERMANENT, id_number=number, birth_date=birth_date)

    good = paper("91184019900501001")  # Beijing, the United States
    assert isinstance(good, Person)
    assert (good.birth_date, good.sex) == (date(1990, 5, 1), None)
    assert paper("91184019900501001", date(1990, 5, 1)) == good
    assert paper("91184019900501001", date(1990, 5, 2)) is IdentityFault.INVALID_BIRTH_DATE
    assert paper("91184019901301001") is IdentityFault.INVALID_ID_NUMBER
    digit = good.id_number[-1]
    wrong = good.id_number[:-1] + ("0" if digit != "0" else "1")
    assert typed(id_type=IdType.FOREIGN_PERMANENT, id_number=wrong) is IdentityFault.INVALID_ID_NUMBER
    # The older ones, by their format alone.
    old = typed(id_type=IdType.FOREIGN_PERMANENT, id_number="FRA110012345678", birth_date=date(1980, 1, 2))
    assert isinstance(old, Person) and old.birth_date == date(1980, 1, 2)


def test_what_is_said_beside_a_document() -> None:
    passport = typed(
        id_type=IdType.PASSPORT, id_number="E12345678", birth_date=date(1990, 5, 1), sex="female"
    )
    assert isinstance(passport, Person)
    assert (passport.birth_date, passport.sex) == (date(1990, 5, 1), "female")
    tomorrow = date(2026, 11, 24)
    assert (
        typed(id_type=IdType.PASSPORT, id_number="E12345678", birth_date=tomorrow)
        is IdentityFault.INVALID_BIRTH_DATE
    )
    assert typed(birth_date=date(1949, 12, 30)) is IdentityFault.INVALID_BIRTH_DATE
    assert typed(sex="male") is IdentityFault.INVALID_SEX
    assert isinstance(typed(birth_date=date(1949, 12, 31), sex="female"), Person)


@pytest.mark.parametrize(
    "name",
    [
        "王小明",
        "欧阳娜娜",
        "买买提·艾合买提",
        "𠮷野家",  # beyond the BMP
        "𬭊㛃䶮",
        "\U000323b0",  # newer than Python's tables
        "张〇",
        "葛\U000e0100",  # a variant of a rare character
        "Jean-Luc O’Brien Jr.",
        "D'Angelo",
        "Łukasz Żółć",
        "Nguyễn Thị Minh",
        "محمد علي",
        "विक्रम",
        "정국",
        "王",
        "王" * 64,
    ],
)
def test_names(name: str) -> None:
    assert normal_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "\u3000",
        "王" * 65,
        "王小明😀",
        "❤️",
        "王\u0000明",
        "王\n明",
        "王\t明",
        "王\u200b明",  # zero width
        "\u202e明王",  # right to left override
        "\ufeff王",
        "\u3164",  # a letter that shows nothing
        "王<b>",
        "王1",
        "王;drop table",
        "·",
        "-",
        "\u0301王",  # a mark on nothing
        "e" + "\u0316" * 12,
        "\ue000",  # private use
        "\ud800",
    ],
)
def test_no_names(name: str) -> None:
    assert normal_name(name) is None
    assert typed(name=name) is IdentityFault.INVALID_NAME


def test_a_name_is_composed_trimmed_and_single_spaced() -> None:
    assert normal_name("  Jose\u0301 \u3000 Luis ") == "José Luis"


def test_the_same_name() -> None:
    assert is_same_name("买买提·艾合买提", "买买提•艾合买提")
    assert is_same_name("John  Smith".replace("  ", " "), "JOHN SMITH")
    assert not is_same_name("王小明", "王晓明")


@pytest.mark.parametrize(
    ("phone", "normal"),
    [
        ("13812345678", "13812345678"),
        ("138 1234-5678", "13812345678"),
        ("+8613812345678", "13812345678"),
        ("+85291234567", "+85291234567"),
        ("+1 202 555 0123", "+12025550123"),
        ("12812345678", None),
        ("1381234567", None),
        ("138123456789", None),
        ("１３８12345678", None),
        ("+8612345", None),
        ("+0123456789", None),
        ("+", None),
        ("", None),
        ("110", None),
        ("+1234567890123456", None),
    ],
)
def test_phones(phone: str, normal: str | None) -> None:
    assert normal_phone(phone) == normal


def test_faults_are_found_in_the_order_of_the_form() -> None:
    assert typed("", id_number="", phone="") is IdentityFault.INVALID_NAME
    assert typed(id_number="", phone="") is IdentityFault.INVALID_ID_NUMBER
    assert typed(phone="") is IdentityFault.INVALID_PHONE


def test_masks() -> None:
    assert masked_id_number("11010519491231002X") == "110***********002X"
    assert masked_id_number("E12345678") == "E******78"
    assert masked_id_number("12345") == "1**45"
    assert masked_phone("13812345678") == "138****5678"
    assert masked_phone("+85291234567") == "+85*****4567"
