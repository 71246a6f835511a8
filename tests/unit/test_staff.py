"""Who may change whose days."""

import pytest

from engine.domain.policy import Channel
from engine.records.catalog import Department
from engine.records.staff import CHANNEL_OF_ROLE, CHANNELS, Role, Staff, may_manage


def department(id_: str, parent_id: str | None = None) -> Department:
    return Department(id_, parent_id, id_, "", "", "", "", None, None, None, 0)


DEPARTMENTS = {d.id: d for d in (department("03"), department("0304", "03"), department("0401", "04"))}


def staff(*roles: str, practitioner_id: str | None = None, department_id: str | None = None) -> Staff:
    return Staff(bytes(16), "x", "x", frozenset(roles), practitioner_id, department_id, Channel.WINDOW)


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (staff(Role.DOCTOR, practitioner_id="D1"), True),
        (staff(Role.DOCTOR, practitioner_id="D2"), False),
        (staff(Role.DOCTOR, practitioner_id=None), False),
        (staff(Role.DOCTOR, practitioner_id="D2", department_id="0304"), False),
        (staff(Role.DESK), True),
        (staff(Role.SCHEDULE_OFFICE), True),
        (staff(Role.MANAGER), True),
        (staff(Role.PARTNER), False),
        (staff(Role.PARTNER, practitioner_id="D1"), False),
        (staff(Role.DESK, practitioner_id="D1", department_id="0401"), False),
        (staff(Role.DESK, department_id="0304"), True),
        (staff(Role.DESK, department_id="03"), True),
        (staff(Role.DESK, department_id="0401"), False),
        (staff(Role.DESK, department_id="04"), False),
        (staff(Role.DOCTOR, Role.MANAGER, practitioner_id="D2", department_id="03"), True),
        (staff(), False),
    ],
)
def test_whose_days(who: Staff, expected: bool) -> None:
    assert may_manage(who, "0304", "D1", DEPARTMENTS) is expected


def test_a_department_below_does_not_open_the_one_above() -> None:
    assert not may_manage(staff(Role.MANAGER, department_id="0304"), "03", "D1", DEPARTMENTS)


def test_an_unknown_department_is_only_for_those_who_have_all() -> None:
    assert not may_manage(staff(Role.DESK, department_id="03"), "99", "D1", DEPARTMENTS)
    assert may_manage(staff(Role.DESK), "99", "D1", DEPARTMENTS)


def test_every_role_has_its_channel() -> None:
    assert set(CHANNEL_OF_ROLE) == set(Role)
    assert set(CHANNEL_OF_ROLE.values()) <= set(CHANNELS)
