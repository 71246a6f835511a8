"""Every operation of the API, asked by schemathesis with what its document allows and with what it does not.

No 5xx, no status or type that is not documented, and no answer of another shape than documented.

A few requests for each operation; `make fuzz` makes many. The requests are the same in each run.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks, not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.fuzzing import SECONDS_MAX, World, every_other, real_path, real_values, world_of
from tests.support.system import System
from web.rights.matrix import ANYONE, PATIENT

EXAMPLES = int(os.environ.get("XINGLIN_FUZZ_EXAMPLES", "6"))
IS_LONG = "XINGLIN_FUZZ_EXAMPLES" in os.environ
CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SHOWN_CHARS = 1_500


@pytest.fixture(scope="module")
def world(rough_system: System) -> World:
    return world_of(rough_system)


class Fuzzing:
    """One round over all operations; keeps what was wrong, one of each kind."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.schema = schemathesis.openapi.from_url(f"{world.address}/openapi.json")
        self.wrong: dict[tuple[str, str], str] = {}
        self.statuses: Counter[int] = Counter()
        self.reached: set[str] = set()

    def operations(self) -> Iterator[Any]:
        """Those last that may end the caller's own session."""
        found = [result.ok() for result in self.schema.get_all_operations()]
        return iter(sorted(found, key=lambda each: any(word in each.path for word in ("/sessions", "/me/"))))

    def ask(self, operation: Any, caller: str, examples: int, mode: GenerationMode) -> None:
        name = operation.definition.raw["operationId"]
        alternate = every_other()

        @settings(
            max_examples=examples,
            derandomize=not IS_LONG,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def each(case: Any) -> None:
            if next(alternate):
                case.path_parameters = real_path(operation.path, case.path_parameters or {}, self.world.ids)
                case.query = real_values(case.query, self.world.ids)
                case.body = real_values(case.body, self.world.ids)
            self._send(name, case, caller)

        try:
            each()
        except Unsatisfiable:  # there is nothing that its parameters do not allow
            assert mode is GenerationMode.NEGATIVE

    def _send(self, name: str, case: Any, caller: str) -> None:
        headers = self.world.headers_of(caller)
        try:
            answer = case.call(session=self.world.session, headers=headers, timeout=SECONDS_MAX)
        except requests.RequestException as error:
            self.wrong.setdefault((name, type(error).__name__), f"{case.method} {case.path}: {error}")
            return
        self.statuses[answer.status_code] += 1
        if answer.status_code == 401:
            self.world.sign_in_again(caller)
        if answer.status_code < 300 or answer.status_code in (409, 410):
            self.reached.add(name)
        try:
            case.validate_response(answer, checks=CHECKED)
        except FailureGroup as failures:
            for failure in failures.exceptions:
                told = f"{failure}\n{case.as_curl_command(headers={})}\n-> {answer.status_code} {answer.text}"
                self.wrong.setdefault((name, type(failure).__name__), told[:SHOWN_CHARS])

    def report(self) -> str:
        return "\n\n".join(f"{name} ({kind}): {told}" for (name, kind), told in sorted(self.wrong.items()))


def test_every_operation_answers_whoever_may_as_its_document_says(world: World):
    load_all_checks()
    assert "status_code_conformance" in CHECKS.get_all_names()
    fuzzing = Fuzzing(world)
    operations = list(fuzzing.operations())
    for operation in operations:
        caller = world.caller_of(operation.definition.raw["operationId"])
        fuzzing.ask(operation, caller, EXAMPLES, GenerationMode.POSITIVE)
        fuzzing.ask(operation, caller, max(1, EXAMPLES // 3), GenerationMode.NEGATIVE)
    print(f"{len(operations)} operations, {dict(fuzzing.statuses)}, reached {len(fuzzing.reached)}")
    assert not fuzzing.wrong, fuzzing.report()
    assert len(operations) > 100
    # Else the requests stop before any handler, and this test says nothing.
    assert len(fuzzing.reached) > len(operations) // 4, sorted(fuzzing.reached)


@pytest.mark.parametrize("caller", [ANYONE, PATIENT, "desk"])
def test_every_operation_answers_who_may_not_as_its_document_says(world: World, caller: str):
    fuzzing = Fuzzing(world)
    for operation in fuzzing.operations():
        fuzzing.ask(operation, caller, max(1, EXAMPLES // 4), GenerationMode.POSITIVE)
    assert not fuzzing.wrong, fuzzing.report()
    assert fuzzing.statuses[401] > 50
