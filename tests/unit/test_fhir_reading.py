"""What partners send, and the dates and times that they search by."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.errors import Problem
from web.faults import TABLE
from web.partner.fhir.asking import span_of
from web.partner.fhir.names import fhir_id, our_id, reference_of
from web.partner.fhir.outcome import outcome_of
from web.partner.fhir.reading import Part, parameters_of, resource_of

ZONE = ZoneInfo("Asia/Shanghai")


def place_of(problem: Problem) -> tuple[list[Any], str]:
    (entry,) = problem.members["errors"]  # type: ignore[misc]
    return entry.loc, entry.code


# Ids and references.


@given(st.from_regex(r"[A-Za-z0-9_.]{1,32}-\d{8}(-\d{4})?", fullmatch=True))
def test_an_id_comes_back_from_fhir_as_it_was(ours: str) -> None:
    assert our_id(fhir_id(ours)) == ours
    assert "_" not in fhir_id(ours)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Slot/D0001-20260302-0900", ("Slot", "D0001-20260302-0900")),
        ("https://a.example/fhir/r4/Slot/x", ("Slot", "x")),
        ("https://a.example/fhir/r4/Slot/x/_history/3", ("Slot", "x")),
        ("https://a.example/other/Slot/x", None),
        ("Slot/x?y", None),
        ("slot/x", None),
        ("Slot/../x", None),
        ("#x", None),
        ("urn:uuid:x", None),
        ("", None),
    ],
)
def test_references_lead_into_this_server(text: str, found: tuple[str, str] | None) -> None:
    assert reference_of(text) == found


# Dates.


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("said", "moment", "holds"),
    [
        ("2026-03-02", "2026-03-02T00:00:00+08:00", True),
        ("2026-03-02", "2026-03-01T23:59:59+08:00", False),
        ("2026-03-02", "2026-03-03T00:00:00+08:00", False),
        ("eq2026-03-02T09:00:00+08:00", "2026-03-02T01:00:00+00:00", True),
        ("2026-03-02T09:00+08:00", "2026-03-02T09:00:30+08:00", True),
        ("ge2026-03-02", "2026-03-02T00:00:00+08:00", True),
        ("ge2026-03-02", "2026-03-01T23:59:59+08:00", False),
        ("gt2026-03-02", "2026-03-02T23:59:59+08:00", False),
        ("gt2026-03-02", "2026-03-03T00:00:00+08:00", True),
        ("le2026-03-02", "2026-03-02T23:59:59+08:00", True),
        ("le2026-03-02", "2026-03-03T00:00:00+08:00", False),
        ("lt2026-03-02", "2026-03-02T00:00:00+08:00", False),
        ("lt2026-03-02", "2026-03-01T23:59:59+08:00", True),
        ("sa2026-03-02", "2026-03-03T00:00:00+08:00", True),
        ("eb2026-03-02", "2026-03-01T23:59:59+08:00", True),
        ("2026-03-02T09:00:00 08:00", "2026-03-02T09:00:00+08:00", True),  # a "+" that nobody escaped
        ("2026-03-02T09:00:00", "2026-03-02T09:00:00+08:00", True),  # the hospital's own clock
    ],
)
def test_when_a_moment_is_within_what_is_asked(said: str, moment: str, holds: bool) -> None:
    span = span_of(said, ZONE)
    assert span is not None
    assert span.holds(at(moment), at(moment) + timedelta(milliseconds=1)) is holds


@pytest.mark.parametrize(
    "said",
    ["", "2026", "2026-13-01", "ne2026-03-02", "ap2026-03-02", "ge", "20260302", "2026-03-02Tx",
     "xx2026-03-02", "0000-01-01", "9999-12-31T23:59:59-23:59", "２０２６-03-02"],
)  # fmt: skip
def test_what_is_no_date(said: str) -> None:
    assert span_of(said, ZONE) is None


@given(st.text(max_size=40))
def test_any_text_is_a_span_or_none(said: str) -> None:
    span_of(said, UTC)


# Resources.


def test_the_place_of_what_is_wrong_is_told() -> None:
    with pytest.raises(Problem) as raised:
        resource_of({"resourceType": "Observation"}, (), ("Patient",))
    assert place_of(raised.value) == (["resourceType"], "literal_error")
    with pytest.raises(Problem) as raised:
        resource_of({"resourceType": "Patient", "nmae": []}, (), ("Patient",))
    assert place_of(raised.value) == (["Patient", "nmae"], "extra_forbidden")
    with pytest.raises(Problem) as raised:
        resource_of({"resourceType": "Patient", "modifierExtension": [{}]}, (), ("Patient",))
    assert place_of(raised.value) == (["Patient", "modifierExtension"], "modifier")
    part = resource_of({"resourceType": "Patient", "name": [{"text": 3}]}, (), ("Patient",))
    with pytest.raises(Problem) as raised:
        part.children("name")[0].text("text")
    assert place_of(raised.value) == (["Patient", "name", 0, "text"], "string_type")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["slot", "valueReference", "name"]))
def test_whatever_is_sent_is_read_or_refused(value: Any, name: str) -> None:
    for read in (
        lambda: resource_of(value, (), ("Patient", "Parameters")),
        lambda: Part({name: value}, ()).text(name),
        lambda: Part({name: value}, ()).children(name),
        lambda: Part({name: value}, ()).reference(name, "Slot"),
        lambda: parameters_of(Part({"parameter": value}, ()), ("slot",)),
    ):
        try:
            read()
        except Problem as problem:
            assert problem.status == 422


def test_parameters_are_known_once_and_have_one_value() -> None:
    def asked(*parameters: Any) -> str:
        with pytest.raises(Problem) as raised:
            parameters_of(Part({"parameter": list(parameters)}, ()), ("slot", "patient"))
        return place_of(raised.value)[1]

    slot = {"name": "slot", "valueString": "x"}
    assert asked(slot, slot) == "repeated"
    assert asked({"name": "slit", "valueString": "x"}) == "literal_error"
    assert asked({"name": "slot"}) == "missing"
    assert asked({"name": "slot", "valueString": "x", "valueId": "y"}) == "missing"
    assert asked({"valueString": "x"}) == "missing"
    assert list(parameters_of(Part({"parameter": [slot]}, ()), ("slot",))) == ["slot"]


# Failures.


@pytest.mark.parametrize("code", list(TABLE))
def test_every_failure_is_an_operation_outcome(code: Any) -> None:
    from fhir.resources.R4B.operationoutcome import OperationOutcome

    told = outcome_of(Problem(code).body("zh"))
    OperationOutcome.model_validate_json(json.dumps(told))
    assert told["issue"][0]["details"]["coding"][0]["code"] == code
    assert told["issue"][0]["code"] in CODES


CODES = {
    "invalid",
    "structure",
    "required",
    "value",
    "invariant",
    "security",
    "login",
    "unknown",
    "expired",
    "forbidden",
    "suppressed",
    "processing",
    "not-supported",
    "duplicate",
    "multiple-matches",
    "not-found",
    "deleted",
    "too-long",
    "code-invalid",
    "extension",
    "too-costly",
    "business-rule",
    "conflict",
    "transient",
    "lock-error",
    "no-store",
    "exception",
    "timeout",
    "incomplete",
    "throttled",
    "informational",
}
"""IssueType of R4: the models do not look at codes."""
