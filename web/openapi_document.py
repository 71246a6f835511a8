"""The OpenAPI 3.1 document of the declared operations, and as 3.0 for older tools."""

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import TypeAdapter

from engine.domain.limits import IDEMPOTENCY_KEY_CHARS_MAX
from engine.records.partners import SCOPES as SYSTEM_SCOPES
from web.faults import TABLE

if TYPE_CHECKING:  # web/openapi.py itself imports this module
    from web.openapi import Operation

Json = dict[str, Any]

_PARTS: Final = ("path", "query", "body", "answer", "accepted")
_REFERENCES: Final = re.compile(r'"#/components/schemas/([^"]+)"')


@dataclass(frozen=True, slots=True)
class _Wanted:
    operation: int
    part: str


def document_of(info: Json, tags: Mapping[str, str], operations: "list[Operation]") -> Json:
    wanted: list[tuple[Any, Literal["validation", "serialization"], TypeAdapter[Any]]] = []
    for i, operation in enumerate(operations):
        for part in ("path", "query", "body"):
            adapter = getattr(operation, f"{part}_adapter")
            if adapter is not None:
                wanted.append((_Wanted(i, part), "validation", adapter))
        if operation.answer_adapter is not None:
            wanted.append((_Wanted(i, "answer"), "serialization", operation.answer_adapter))
        if operation.takes_adapter is not None:
            wanted.append((_Wanted(i, "body"), "validation", operation.takes_adapter))
        if operation.accepted_adapter is not None:
            wanted.append((_Wanted(i, "accepted"), "serialization", operation.accepted_adapter))
    schemas, definitions = TypeAdapter.json_schemas(wanted, ref_template="#/components/schemas/{model}")
    components: Json = {"Problem": _PROBLEM, **definitions.get("$defs", {})}
    found = {key: schema for (key, _), schema in schemas.items()}

    paths: Json = {}
    for i, operation in enumerate(operations):
        parts = {part: found.get(_Wanted(i, part)) for part in _PARTS}
        described = _described(operation, parts, components)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    used: dict[str, None] = {}
    pending = ["Problem", *_REFERENCES.findall(json.dumps(paths))]
    while pending:
        name = pending.pop()
        if name not in used:
            used[name] = None
            pending += _REFERENCES.findall(json.dumps(components[name]))
    return {
        "openapi": "3.1.0",
        "info": info,
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in tags.items()],
        "paths": paths,
        "components": {
            "schemas": {name: components[name] for name in sorted(used)},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "POST /api/v1/sessions 所得的 access_token / the access_token from there",
                },
                "staff": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": (
                        "职工的 access_token，由 grant=password 所得；患者的令牌不可用 / "
                        "of staff, from grant=password; a patient's token does not do"
                    ),
                },
                "system": {
                    "type": "oauth2",
                    "description": "其他系统的凭据 / credentials of another system: docs/PARTNERS.md",
                    "flows": {
                        "clientCredentials": {"tokenUrl": "/api/v1/partner/token", "scopes": SYSTEM_SCOPES}
                    },
                },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "__Host-xinglin",
                    "description": (
                        "职工控制台登录所得的 Cookie；修改类请求还须带 X-CSRF-Token / of a console"
                        " of the staff; whatever changes something carries X-CSRF-Token as well"
                    ),
                },
            },
        },
    }


def _described(operation: "Operation", schemas: Mapping[str, Any], components: Json) -> Json:
    summary, _, rest = (inspect.getdoc(operation.handler) or "").partition("\n")
    scopes = operation.rights.scopes
    may = "; ".join(f"{caller} ({scope})" for caller, scope in scopes.items())
    who = f"Who may: {may}." if operation.security else ""
    described: Json = {
        "operationId": operation.handler.__name__,
        "summary": operation.zh,
        "description": "\n\n".join(part for part in (summary.strip(), rest.strip(), who) if part),
        "tags": list(operation.tags),
        "x-rights": {"scopes": dict(scopes), "sees": dict(operation.rights.sees)},
    }
    parameters = [
        *_parameters("path", schemas["path"], components),
        *_parameters("query", schemas["query"], components),
    ]
    if "idempotency_key" in operation.keywords:
        parameters.append(_IDEMPOTENCY_KEY)
    if operation.revalidated:
        parameters.append(_IF_NONE_MATCH)
    if parameters:
        described["parameters"] = parameters
    if schemas["body"] is not None:
        described["requestBody"] = {
            "required": True,
            "content": {operation.body_media or operation.media: {"schema": schemas["body"]}},
        }
    answered: Json = {"description": HTTPStatus(operation.status).phrase}
    if schemas["answer"] is not None:
        answered["content"] = {operation.media: {"schema": schemas["answer"]}}
    otherwise: Json = {}
    if operation.revalidated:
        answered["headers"] = {"ETag": {"schema": {"type": "string"}}}
        otherwise["304"] = {"description": "未变化 / what the client has still holds"}
    if schemas["accepted"] is not None:
        otherwise["202"] = {
            "description": "已提交，待批准 / stored; it waits for somebody's consent",
            "content": {"application/json": {"schema": schemas["accepted"]}},
        }
    by_status: dict[int, list[str]] = {}
    for code in operation.faults:
        by_status.setdefault(TABLE[code].status, []).append(code)
    described["responses"] = {
        str(operation.status): answered,
        **otherwise,
        **{str(s): _problem_answer(codes, operation) for s, codes in sorted(by_status.items())},
    }
    schemes = {"either": ("bearer", "staff", "cookie"), "staff": ("staff", "cookie"), "bearer": ("bearer",)}
    described["security"] = [{scheme: []} for scheme in schemes.get(operation.security or "", ())]
    if operation.security == "system":
        described["security"] = [{"system": sorted(scopes.values())}]
    return described


def _parameters(place: str, schema: Json | None, components: Json) -> list[Json]:
    if schema is None:
        return []
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    listed = []
    for name, declared in schema["properties"].items():
        field = {key: value for key, value in declared.items() if key != "title"}
        # A parameter that is not given is absent, never null.
        choices = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1:
            field = {**{k: v for k, v in field.items() if k not in ("anyOf", "default")}, **choices[0]}
        parameter = {
            "name": name,
            "in": place,
            "required": place == "path" or name in schema.get("required", ()),
            "schema": field,
        }
        if "description" in field:
            parameter["description"] = field.pop("description")
        listed.append(parameter)
    return listed


def _problem_answer(codes: list[str], operation: "Operation") -> Json:
    lines = [f"- `{code}`: {TABLE[code].title.zh} / {TABLE[code].title.en}" for code in codes]
    described: Json = {
        "description": "\n".join(lines),
        "content": {
            "application/problem+json": {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Problem"},
                        {"type": "object", "properties": {"code": {"enum": codes}}},
                    ]
                }
            }
        },
    }
    if operation.media != "application/json":  # failures in that dialect, with the same codes
        described["content"] = {operation.media: {"schema": {"type": "object"}}}
    if operation.fails_as is not None:
        described["content"][operation.fails_as] = {"schema": {"type": "object"}}
    headers: Json = {}
    if any(TABLE[code].retry_after is not None for code in codes):
        headers["Retry-After"] = {"description": "秒 / seconds", "schema": {"type": "integer"}}
    if any(TABLE[code].status == 401 for code in codes):
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    if headers:
        described["headers"] = headers
    return described


_IDEMPOTENCY_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": (
        "每个新操作一个新值，重试时保持不变；同键异文被拒绝 / "
        "new for each new action, the same for its retries; another body under a used key is refused"
    ),
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": IDEMPOTENCY_KEY_CHARS_MAX,
        "pattern": "^[!-~]+$",
    },
}

_IF_NONE_MATCH: Final[Json] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "上次应答的 ETag；未变则答 304 / of the answer one has; 304 where it still holds",
    "schema": {"type": "string"},
}

_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "RFC 9457。客户端依据 code 处理 / clients act on code, people read title and detail",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "不符合要求之处 / the places that are not as they should be",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "code"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "code": {"type": "string"},
                },
            },
        },
        "alternatives": {
            "type": "array",
            "description": "按推荐次序排列的其他可约时段 / other slots with seats, best first",
            "items": {"type": "object"},
        },
        "retry_after": {"type": "integer", "description": "秒 / seconds"},
        "rule": {"type": "string", "description": "拒绝所依据的规则 / the rule that refused"},
        "limit": {"type": "integer", "description": "规则的界限 / the rule's limit"},
        "roles": {
            "type": "array",
            "description": "可执行该操作的角色 / the roles that may do this",
            "items": {"type": "string"},
        },
        "appointment_id": {"type": "string", "format": "uuid"},
        "until": {"type": "string", "format": "date-time"},
        "key": {"type": "string", "description": "重复的键 / the key that was repeated"},
        "request_id": {"type": "string", "description": "求助时提供 / name it when you ask for help"},
    },
}


def as_3_0(schema: Any) -> Any:
    """The document in OpenAPI 3.0's words. The bundled Swagger UI (4.15) refuses every other version."""
    if isinstance(schema, list):
        return [as_3_0(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    said = {name: as_3_0(part) for name, part in schema.items()}
    if said.get("openapi") == "3.1.0":
        said["openapi"] = "3.0.3"
    if "const" in said and not isinstance(said["const"], dict):
        said["enum"] = [said.pop("const")]
    choices = said.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        choices = [choice for choice in choices if choice != {"type": "null"}]
        said["nullable"] = True
        del said["anyOf"]
        if len(choices) == 1:
            said |= {"allOf": choices} if "$ref" in choices[0] else {**choices[0], **said}
        else:
            said["anyOf"] = choices
    if isinstance(said.get("type"), list):
        said["anyOf"] = [{"type": name} for name in said.pop("type")]
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if type(said.get(bound)) in (int, float):
            said[limit], said[bound] = said[bound], True
    return said
