"""HL7's official examples of FHIR R4 (5,300 resources), through whatever here takes FHIR from strangers.

None of them was made for us: each is read, or refused by name with its place. Nothing else is raised, and
nothing is taken for what it is not.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.domain.intake import Unfit
from integrations.emr.emr import Unreadable
from integrations.emr.translate import read
from integrations.lis.fhir_form import bodies
from tests.support.fhir_face import Face, opened, valid
from tests.support.npm_peers import need_examples

Json = dict[str, Any]
ZONE = ZoneInfo("Asia/Shanghai")


@pytest.fixture(scope="module")
def examples() -> list[Json]:
    found = map(json.loads, map(partial(Path.read_text, encoding="utf-8"), need_examples().glob("*-*.json")))
    return [one for one in found if "resourceType" in one]


def test_reports_are_read_or_refused_by_name(examples: list[Json]) -> None:
    taken: Counter[str] = Counter()
    refused: dict[str, str] = {}
    for one in examples:
        try:
            taken[one["resourceType"]] += len(list(bodies(one, "LIS")))
        except Unfit as unfit:
            refused[f"{one['resourceType']}/{one.get('id')}"] = str(unfit)
    assert len(taken) + len(refused) > 5_000 and set(taken) == {"DiagnosticReport", "Bundle"}
    assert taken["DiagnosticReport"] == 3 and taken["Bundle"] >= 7
    assert {name: why for name, why in refused.items() if name.startswith("DiagnosticReport/")} == {
        "DiagnosticReport/102": "result[0]: dangling",
        "DiagnosticReport/example-pgx": "result[0]: dangling",
        "DiagnosticReport/gingival-mass": "attachments[0]: base64",
    }, "they refer to what was not sent, or hold a document that is none"


def test_records_are_read_or_refused_by_name(examples: list[Json]) -> None:
    kinds = ("Encounter", "Condition", "MedicationRequest", "MedicationStatement", "AllergyIntolerance")
    sent = Counter(one["resourceType"] for one in examples if one["resourceType"] in kinds)
    taken: Counter[str] = Counter()
    for one in examples:
        try:
            found = read(one, "EMR", ZONE)
        except Unreadable as unreadable:
            assert str(unreadable) and one["resourceType"] not in kinds
            continue
        for resource in found:
            assert (resource.body is None) is bool(resource.problem), resource
            taken[one["resourceType"]] += resource.body is not None
    assert {kind: taken[kind] for kind in kinds} == dict(sent), "each of those that we keep"
    assert sum(sent.values()) > 60 and set(+taken) <= {*kinds, "Bundle"}


@pytest.fixture
async def face(database: str) -> AsyncIterator[Face]:
    async with opened(database) as face:
        yield face


@pytest.mark.parametrize("kind", ["Patient", "Appointment"])
async def test_our_face_takes_them_or_says_what_is_wrong(face: Face, examples: list[Json], kind: str) -> None:
    """Everything of that kind, and of every other kind one: a resource at the wrong door."""
    of_kind = [one for one in examples if one["resourceType"] == kind]
    others = {one["resourceType"]: one for one in examples if one["resourceType"] != kind}
    assert len(of_kind) >= 3 and len(others) > 100
    for n, one in enumerate([*of_kind, *others.values()]):
        told = await face.ask("POST", kind, one, headers={"Idempotency-Key": f"example-{n}"})
        assert 400 <= told.status < 500, "none has one of our numbers, or a document that we know"
        assert told.code and told.body["issue"][0]["severity"] in ("error", "fatal")
        valid(told.body)
    assert await face.pool.fetchval("select count(*) from appointment") == 0
