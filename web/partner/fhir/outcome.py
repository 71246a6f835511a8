"""Failures of the FHIR face as OperationOutcome: the same codes and words as everywhere, in FHIR's envelope.

A middleware, so that also what fails before a handler (no token, too many requests, no such path) is told so.
"""

from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from web.errors import problems
from web.partner.fhir.names import ALTERNATIVE, BASE, MEDIA, PROBLEM, fhir_id

_OF_CODE: Final = {
    "unauthenticated": "login",
    "token_expired": "expired",
    "slot_full": "conflict",
    "already_booked": "duplicate",
    "key_reused": "duplicate",
    "too_many_requests": "throttled",
    "outcome_unknown": "timeout",
    "too_late": "timeout",
    "body_too_large": "too-long",
    "scope_missing": "forbidden",
    "missing_idempotency_key": "required",
    "malformed_json": "structure",
    "duplicate_key": "structure",
    "invalid_resource": "invalid",
    "invalid_query": "invalid",
}
_OF_STATUS: Final = {
    400: "invalid",
    401: "login",
    403: "business-rule",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "business-rule",
    412: "conflict",
    413: "too-long",
    415: "not-supported",
    422: "business-rule",
    429: "throttled",
    503: "transient",
    504: "timeout",
}


@web.middleware
async def outcomes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever is raised below the FHIR face's path."""
    if not request.path.startswith(f"{BASE}/"):
        return await handler(request)
    answer = await problems(request, handler)
    if isinstance(answer, web.Response) and answer.content_type == "application/problem+json":
        assert isinstance(answer.body, bytes)
        told = outcome_of(orjson.loads(answer.body))
        headers = {name: value for name, value in answer.headers.items() if name not in _OF_A_BODY}
        return web.Response(
            body=orjson.dumps(told),
            status=answer.status,
            headers={**headers, hdrs.CONTENT_TYPE: f"{MEDIA}; charset=utf-8"},
        )
    return answer


_OF_A_BODY: Final = (hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH)


def outcome_of(problem: dict[str, Any]) -> dict[str, Any]:
    """An OperationOutcome that says what a problem+json body says."""
    code, status = problem["code"], problem["status"]
    issue: dict[str, Any] = {
        "severity": "fatal" if status >= 500 and status not in (503, 504) else "error",
        "code": _OF_CODE.get(code) or _OF_STATUS.get(status, "exception"),
        "details": {
            "coding": [{"system": PROBLEM, "code": code, "display": problem["title"]}],
            "text": problem["title"],
        },
    }
    detail = problem.get("detail", "")
    if "request_id" in problem:
        detail = f"{detail} ({problem['request_id']})"
    if detail:
        issue["diagnostics"] = detail
    if isinstance(problem.get("rule"), str):
        issue["details"]["coding"].append({"system": f"{PROBLEM}:rule", "code": problem["rule"]})
    alternatives = problem.get("alternatives") or ()
    if alternatives:
        issue["extension"] = [
            {"url": ALTERNATIVE, "valueReference": {"reference": f"Slot/{fhir_id(one['slot_id'])}"}}
            for one in alternatives
        ]
    issues = [issue]
    for entry in problem.get("errors") or ():
        place = ".".join(str(part) for part in entry["loc"])
        issues.append(
            {
                "severity": "error",
                "code": "required" if entry["code"] == "missing" else "invalid",
                "details": {
                    "coding": [{"system": f"{PROBLEM}:entry", "code": entry["code"]}],
                    "text": entry["msg"],
                },
                "expression": [place],
            }
        )
    return {"resourceType": "OperationOutcome", "issue": issues}
