"""The matrix of rights as data: what it says, what it refuses to say, and who may hold which roles."""

from typing import Any

import pytest

from engine.domain.policy import Channel
from engine.records.staff import (
    ADMINISTRATORS,
    CHANNEL_OF_ROLE,
    Role,
    Staff,
    agrees,
    faults_of_roles,
    looks_after,
    may_manage,
)
from tests.unit.test_availability import CATALOG
from web.app import make_app
from web.openapi import api
from web.rights.matrix import MATRIX, SCOPES, SYSTEM, SYSTEM_SCOPES, TOPICS, MatrixWrong, parsed, read

SCOPE = {"all", "own", "department"}


def line(said: Any) -> Any:
    return parsed({"x": said}, SCOPE)["x"]


# What a line means.


@pytest.mark.parametrize(
    ("said", "security", "roles"),
    [
        ({"anyone": "all"}, None, ()),
        ({"patient": "own"}, "bearer", ()),
        ({"staff": "all"}, "staff", ()),
        ({"signed_in": "all"}, "either", ()),
        ({"patient": "own", "staff": "all"}, "either", ()),
        ({"desk": "all", "doctor": "own"}, "staff", ("doctor", "desk")),
        ({"patient": "own", "kiosk": "all"}, "either", ("kiosk",)),
        ({"system": "lis.write"}, "system", ()),
    ],
)
def test_which_tokens_and_roles_a_line_lets_in(
    said: dict[str, str], security: str | None, roles: tuple[str, ...]
) -> None:
    assert (line(said).security, line(said).roles) == (security, roles)


def test_how_far_each_caller_may_go() -> None:
    both = line({"patient": "own", "staff": "all"})
    assert [both.scope_of(who) for who in ("patient", "desk", "anyone")] == ["own", "all", None]
    some = line({"desk": "department", "sees": {"default": "names"}})
    assert [some.scope_of(who) for who in ("desk", "nurse", "patient")] == ["department", None, None]
    assert line({"anyone": "all"}).scope_of("desk") == "all"


def test_what_each_caller_sees() -> None:
    said = {"desk": "all", "nurse": "all", "kiosk": "all", "sees": {"default": "names", "kiosk": "masked"}}
    seen = line(said)
    assert [seen.seen_by(who) for who in ("desk", "kiosk")] == ["names", "masked"]
    assert seen.seen_by_any({"kiosk", "desk"}) == "names", "the most of several"
    assert seen.seen_by_any({"kiosk", "doctor"}) == "masked", "who may not call it sees nothing by it"
    assert seen.seen_by_any(set()) == "none"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, "nobody may"),
        ({"sees": "names"}, "nobody may"),
        ("desk", "does not say who"),
        ({"dask": "all"}, "dask"),
        ({"desk": "everything"}, "everything"),
        ({"anyone": "all", "desk": "all"}, "nobody else"),
        ({"staff": "all", "desk": "all"}, "no role need"),
        ({"desk": "all", "sees": "everything"}, "everything"),
        ({"system": "lis.write", "desk": "all"}, "do not share"),
        ({"system": "all"}, "all"),
        ({"desk": "lis.write"}, "lis.write"),
        ({"desk": "all", "sees": {"nurse": "names"}}, "nurse"),
    ],
)
def test_what_cannot_be_meant(said: Any, told: str) -> None:
    with pytest.raises(MatrixWrong, match=told):
        line(said)


@pytest.mark.parametrize(
    "text",
    [
        "scopes: {all: x}\ngroups: {}\noperations: {a: {desk: all}}",
        "scopes: {all: x}\ngroups: {}\noperations: {a: {desk: all}}\ntopics: {}\nmore: {}",
        "scopes: {all: x}\ngroups: {}\noperations:\n  a: {desk: all}\n  a: {nurse: all}\ntopics: {}",
        "scopes: {all: x}\ngroups: {}\noperations: {a: {desk: all, desk: all}}\ntopics: {}",
    ],
)
def test_a_matrix_that_is_no_matrix(text: str) -> None:
    with pytest.raises(MatrixWrong):
        read(text)


def test_groups_are_taken_over_and_added_to() -> None:
    text = """
scopes: {all: x, own: y}
groups:
  some: &some {desk: all, nurse: all}
operations:
  a: *some
  b: {<<: *some, doctor: own, sees: names}
topics: {}
"""
    _, operations, _ = read(text)
    assert operations["a"].scopes == {"desk": "all", "nurse": "all"}
    assert operations["b"].scopes == {"desk": "all", "nurse": "all", "doctor": "own"}


# The matrix of the program.


def test_every_operation_has_a_line_and_every_line_an_operation() -> None:
    make_app()
    assert {operation.handler.__name__ for operation in api.operations} == MATRIX.keys()
    assert all(operation.rights is MATRIX[operation.handler.__name__] for operation in api.operations)


def test_every_scope_means_something_and_is_used() -> None:
    lines = (*MATRIX.values(), *TOPICS.values())
    used = {scope for rights in lines if SYSTEM not in rights.scopes for scope in rights.scopes.values()}
    assert used == SCOPES.keys()
    named = {rights.scopes[SYSTEM] for rights in lines if SYSTEM in rights.scopes}
    assert named <= SYSTEM_SCOPES.keys()
    assert all(any(c >= "\u4e00" for c in said) for said in SYSTEM_SCOPES.values())
    assert all(any(c >= "\u4e00" for c in said) for said in SCOPES.values())


def test_topics_are_those_of_the_stream() -> None:
    boards = {"indicators", "actors", "alerts"}
    kinds = boards | {"schedule", "department", "practitioner", "ticket", "calls", "queue", "crowd"}
    assert kinds == TOPICS.keys()


PERSONAL = {"patient_name", "phone", "id_number"}


def properties(schema: Any, components: dict[str, Any], seen: set[str]) -> set[str]:
    """Every key that an answer of this schema may have, at any depth."""
    found: set[str] = set()
    if isinstance(schema, list):
        return found.union(*(properties(one, components, seen) for one in schema))
    if not isinstance(schema, dict):
        return found
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in seen:
            return found
        seen.add(name)
        return properties(components[name], components, seen)
    found |= set(schema.get("properties", {}))
    return found.union(*(properties(one, components, seen) for one in schema.values()))


def test_answers_with_people_in_them_say_so() -> None:
    """A key with a patient's name, telephone or document in an answer needs a line that says who sees it."""
    make_app()
    components = api.document["components"]["schemas"]
    silent = set()
    for methods in api.document["paths"].values():
        for operation in methods.values():
            told: set[str] = set()
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    told |= properties(answer, components, set())
            sees = set(MATRIX[operation["operationId"]].sees.values())
            if told & PERSONAL and not sees - {"none"}:
                silent.add(operation["operationId"])
    assert silent == set()


def test_administrators_see_no_patient_in_full() -> None:
    """But the auditor, whose readings are themselves noted."""
    for name, rights in MATRIX.items():
        for role in (Role.SYSTEM_ADMIN, Role.SECURITY_ADMIN):
            if rights.scope_of(role) is not None:
                assert rights.seen_by(role) in ("none", "masked"), name


def test_only_the_auditor_reads_the_audit() -> None:
    audit = [name for name in MATRIX if "audit" in name]
    assert audit
    for name in audit:
        assert set(MATRIX[name].scopes) == {Role.AUDIT_ADMIN}, name


def test_no_two_administrators_share_a_power() -> None:
    """Nobody else's work is done by one of them, and none does what another one does, but for looking."""
    looking = {"list_staff_accounts"}
    for name, rights in MATRIX.items():
        holders = ADMINISTRATORS & rights.scopes.keys()
        if name in looking or not holders:
            continue
        assert len(holders) == 1, name
        others = rights.scopes.keys() - holders
        assert not others or name == "read_actors", name


# Who may hold which roles.


def test_an_administrator_is_nothing_else() -> None:
    for admin in ADMINISTRATORS:
        assert faults_of_roles([admin], None, None) == []
        for other in set(Role) - {admin}:
            faults = faults_of_roles([other, admin], "D0001", "cardio")
            assert len(faults) == 1 and admin in faults[0], (admin, other)


def test_what_a_role_needs() -> None:
    assert faults_of_roles([Role.DEPARTMENT_HEAD], None, "cardio") == []
    assert faults_of_roles([Role.DEPARTMENT_HEAD], None, None) != []
    assert faults_of_roles([Role.DOCTOR], None, None) != []
    assert faults_of_roles([], None, None) == [], "somebody whose roles come later"
    assert faults_of_roles(["dask"], None, None)[0].startswith("no role is called 'dask'")
    assert set(CHANNEL_OF_ROLE) == set(Role)


# Departments and campuses.


def member(role: str, department: str | None = None, campus: str | None = None) -> Staff:
    return Staff(bytes(16), "x", "x", frozenset({role}), None, department, Channel.WINDOW, campus)


@pytest.mark.parametrize(
    ("department", "campus", "expected"),
    [
        (None, None, True),
        ("cardio", None, True),
        ("inner", None, True),
        ("derma", None, False),
        (None, "east", True),
        (None, "west", False),
        ("cardio", "east", True),
        ("cardio", "west", False),
        ("inner", "west", False),
    ],
)
def test_a_department_is_theirs_on_their_campus(
    department: str | None, campus: str | None, expected: bool
) -> None:
    """Cardiology lies in the east, below inner medicine."""
    for role in (Role.DESK, Role.MANAGER, Role.DEPARTMENT_HEAD, Role.SCHEDULE_OFFICE):
        staff = member(role, department, campus)
        assert looks_after(staff, "cardio", CATALOG.departments) is expected
        assert may_manage(staff, "cardio", "D1", CATALOG.departments) is expected
    assert not may_manage(member(Role.CASHIER, department, campus), "cardio", "D1", CATALOG.departments)


def test_a_department_that_is_gone_is_on_no_campus() -> None:
    assert looks_after(member(Role.DESK), "gone", CATALOG.departments)
    assert not looks_after(member(Role.DESK, None, "east"), "gone", CATALOG.departments)


def test_a_head_agrees_whichever_role_is_named() -> None:
    assert agrees(member(Role.MANAGER), Role.MANAGER)
    assert not agrees(member(Role.DESK), Role.MANAGER)
    assert agrees(member(Role.DEPARTMENT_HEAD), Role.MANAGER)


def test_no_two_models_have_one_name() -> None:
    """They would rename each other in the document, and in every client that is made of it."""
    assert not [name for name in api.document["components"]["schemas"] if "__" in name]
