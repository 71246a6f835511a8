"""A thin layer over aiohttp and pydantic: a route is declared once, then validated, served and documented.

    @api.route("POST", "/api/v1/appointments", zh="预约占号", status=201, errors=[Reason.SLOT_FULL])
    async def hold(
        request: web.Request, *, account_id: bytes, idempotency_key: str, body: HoldBody
    ) -> HeldAnswer:
        "Holds a number until it is paid."

Which keywords a handler names says what it gets:

    path, query      a model, from the address; what does not fit is 404 not_found, 422 invalid_query
    body             a model, from JSON; anything else is 400, 413, 415 or 422
    idempotency_key  the Idempotency-Key header: 400 when it is missing or misspelled
    account_id       who asks, 16 bytes, where the matrix of rights lets patients alone in
    staff            who asks, a web.auth.Staff, where it lets staff alone in: 403 forbidden without one of
                     the roles that it names. How far they may go (its scopes), the handler asks
                     web.auth.may_manage or web/queues/rights.py
    who              whichever of the two asks, bytes or Staff, where it lets both in
    partner          which other system asks, a web.partner.sight.Partner, where it lets systems in: 403
                     scope_missing without the scope that the matrix names

Who may call it stands in web/rights/matrix.yaml, under the name of the handler: without a line there a route
is not declared.

It returns what its annotation says (a dataclass, a model, a list), or bytes that are that very JSON already,
or a response of its own; it raises web.errors.Problem. Models forbid what they do not know.
"""

import inspect
import json
import math
import re
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, NoReturn, TypeVar, cast
from uuid import UUID

import orjson
from aiohttp import web
from aiohttp.helpers import parse_content_type
from aiohttp.typedefs import Handler
from multidict import MultiMapping
from pydantic import BaseModel, TypeAdapter, ValidationError
from swagger_ui_bundle import swagger_ui_path

from engine.domain.limits import BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX, REQUESTS_MAX
from engine.domain.refusal import Reason
from engine.services import ALL, Service
from web import keys, services
from web.admission import unwatched
from web.auth import Staff, account_of, staff_of, who_of
from web.errors import Entry, Problem, expect, invalid, problems
from web.faults import Fault
from web.openapi_document import Json, as_3_0, document_of
from web.partner.sight import partner_of
from web.rights.matrix import MATRIX, SYSTEM, Matrix, Rights, Security
from web.security_headers import PAGE_POLICY

H = TypeVar("H", bound=Callable[..., Awaitable[object]])

_KEYWORDS: Final = {"path", "query", "body", "idempotency_key", "account_id", "staff", "who", "partner"}
_BODY_FAULTS: Final = (
    Fault.MALFORMED_JSON,
    Fault.DUPLICATE_KEY,
    Fault.BODY_TOO_LARGE,
    Fault.UNSUPPORTED_MEDIA_TYPE,
    Fault.INVALID_BODY,
)
_KEY_FAULTS: Final = (Fault.MISSING_IDEMPOTENCY_KEY, Fault.INVALID_IDEMPOTENCY_KEY)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path, as declared."""

    method: str
    path: str
    handler: Callable[..., Awaitable[object]]
    keywords: frozenset[str]
    zh: str
    status: int
    errors: tuple[str, ...]
    tags: tuple[str, ...]
    rights: Rights
    path_adapter: TypeAdapter[Any] | None
    query_adapter: TypeAdapter[Any] | None
    body_adapter: TypeAdapter[Any] | None
    answer_adapter: TypeAdapter[Any] | None
    query_names: frozenset[str]
    query_lists: frozenset[str]
    revalidated: bool = False
    """Its answer has an ETag, and 304 says that it still holds: see web/conditional.py."""
    is_bounded: bool = True
    """Counts among the patients' requests that may be under way (web/admission.py), where it is theirs."""
    accepted_adapter: TypeAdapter[Any] | None = None
    """What 202 answers, where it may have to wait for somebody's consent."""
    body_media: str | None = None
    """Of bodies alone, where it is another than the answers'."""
    media: str = "application/json"
    """Of bodies and answers; of failures, too, where it is another dialect: web/partner/fhir/outcome.py."""
    takes_adapter: TypeAdapter[Any] | None = None
    """A body that the handler reads by itself."""
    fails_as: str | None = None
    """Another type that failures may have, where a standard says how they look: web/partner/token.py."""

    @property
    def security(self) -> Security | None:
        """Which tokens open it; None: it needs none."""
        return self.rights.security

    @property
    def roles(self) -> tuple[str, ...]:
        """Of staff, any of them will do; none named: all staff."""
        return self.rights.roles

    @property
    def waits_its_turn(self) -> bool:
        return self.is_bounded and self.security == "bearer"

    @property
    def faults(self) -> list[str]:
        """Every code this operation may answer, declared or following from what it takes."""
        codes: dict[str, None] = dict.fromkeys(self.errors)
        if self.security == "system":
            codes |= dict.fromkeys((Fault.UNAUTHENTICATED, Fault.TOKEN_EXPIRED, Fault.SCOPE_MISSING))
        elif self.security:
            codes |= dict.fromkeys((Fault.UNAUTHENTICATED, Fault.TOKEN_EXPIRED, Fault.SESSION_ENDED))
        if self.waits_its_turn:
            codes[Reason.BUSY] = None
        if self.security in ("staff", "either") and self.method != "GET":
            codes[Fault.CSRF_REFUSED] = None  # by cookie
        if self.roles:
            codes[Fault.FORBIDDEN] = None
        if "idempotency_key" in self.keywords:
            codes |= dict.fromkeys(_KEY_FAULTS)
        if self.path_adapter:
            codes[Fault.NOT_FOUND] = None
        if self.query_adapter:
            codes[Fault.INVALID_QUERY] = None
        if self.body_adapter or self.takes_adapter:
            codes |= dict.fromkeys(_BODY_FAULTS)
        if services.is_of_one(self.handler.__name__, self.tags):
            codes[Fault.NOT_HERE] = None  # at a server of another service
        codes[Fault.MALFORMED_REQUEST] = None  # a head that is too long is one, wherever it goes
        codes[Fault.TOO_MANY_REQUESTS] = None
        codes[Fault.INTERNAL] = None
        return [str(code) for code in codes]


class Api:
    """The declared routes of one application."""

    def __init__(
        self,
        title: str,
        version: str,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        *,
        rights: Matrix,
    ) -> None:
        """`rights`: who may call each operation, by its id."""
        self._info = {"title": title, "version": version, "description": description}
        self._tags = dict(tags or {})
        self._rights = rights
        self._operations: dict[str, Operation] = {}

    def route(
        self,
        method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
        path: str,
        *,
        zh: str,
        status: int = 200,
        errors: Iterable[Reason | Fault] = (),
        tags: Sequence[str] = (),
        answer: Any = None,
        revalidated: bool = False,
        is_bounded: bool = True,
        accepted: Any = None,
        media: str = "application/json",
        body_media: str | None = None,
        takes: Any = None,
        fails_as: str | None = None,
    ) -> Callable[[H], H]:
        """Declares a handler. `zh` is its summary in Chinese; its docstring is the English one.

        Its name must have a line in the matrix of rights.
        `answer` names the documented type where the annotation cannot, as when the handler gives bytes;
        `accepted` is the type of a 202, which the handler gives as a response of its own. `takes` documents a
        body that the handler reads by itself; `media` is the type of both where it is not plain JSON;
        `fails_as` another one that failures may have.
        `is_bounded` is False for what has a bound of its own, or lasts.
        `accepted` is the type of a 202, which the handler gives as a response of its own.
        """

        def declare(handler: H) -> H:
            name = handler.__name__
            if name in self._operations:
                raise TypeError(f"two handlers are called {name}; operation ids must differ")
            rights = self._rights.get(name)
            if rights is None:
                raise TypeError(f"{name} has no line in the matrix of rights: who may call it?")
            hints = typing.get_type_hints(handler, include_extras=True)
            answered = answer if answer is not None else hints.pop("return", None)
            hints.pop("return", None)
            keywords = frozenset(
                p.name
                for p in inspect.signature(handler).parameters.values()
                if p.kind is inspect.Parameter.KEYWORD_ONLY
            )
            if unknown := keywords - _KEYWORDS:
                raise TypeError(f"{name} asks for {sorted(unknown)}, which no request has")
            if "account_id" in keywords and rights.security is None:
                raise TypeError(f"{name} asks who it is but needs no token")
            for keyword, needed in (
                ("account_id", "bearer"),
                ("staff", "staff"),
                ("who", "either"),
                ("partner", "system"),
            ):
                if keyword in keywords and rights.security != needed:
                    raise TypeError(f"{name} asks for {keyword} but its security is {rights.security}")
            path_names = set(re.findall(r"{(\w+)}", path))
            path_model = hints.get("path")
            if path_names != (set(path_model.model_fields) if path_model else set()):
                raise TypeError(f"{name}: {path} and its path model name different things")
            query_fields = hints["query"].model_fields if "query" in hints else {}
            is_json = answered not in (None, type(None)) and not (
                isinstance(answered, type) and issubclass(answered, web.StreamResponse)
            )
            self._operations[name] = Operation(
                method=method,
                path=path,
                handler=handler,
                keywords=keywords,
                zh=zh,
                status=status,
                errors=tuple(str(code) for code in errors),
                tags=tuple(tags),
                rights=rights,
                path_adapter=TypeAdapter(path_model) if path_model else None,
                query_adapter=TypeAdapter(hints["query"]) if "query" in hints else None,
                body_adapter=TypeAdapter(hints["body"]) if "body" in hints else None,
                answer_adapter=TypeAdapter(answered) if is_json else None,
                query_names=frozenset(f.alias or n for n, f in query_fields.items()),
                query_lists=frozenset(
                    f.alias or n for n, f in query_fields.items() if _is_list(f.annotation)
                ),
                revalidated=revalidated,
                is_bounded=is_bounded,
                accepted_adapter=TypeAdapter(accepted) if accepted is not None else None,
                media=media,
                body_media=body_media,
                takes_adapter=TypeAdapter(takes) if takes is not None else None,
                fails_as=fails_as,
            )
            return handler

        return declare

    @property
    def operations(self) -> list[Operation]:
        """All that is declared."""
        return list(self._operations.values())

    def must_be_complete(self) -> None:
        """Raises TypeError where a line of the matrix of rights has no route: its name may be misspelled."""
        if lonely := self._rights.keys() - self._operations.keys():
            raise TypeError(f"the matrix of rights has lines that no operation has: {sorted(lonely)}")

    def setup(self, app: web.Application, offered: frozenset[Service] = ALL) -> None:
        """Adds every declared route, the document, its page, and the middleware that words what is raised.

        What belongs to a service that is not `offered` here says so (web/services.py).
        """
        app.middlewares.append(problems)
        app[keys.REQUESTS] = unwatched(REQUESTS_MAX)  # a gateway's are counted
        for operation in self._operations.values():
            serve = _served(operation)
            if offered != ALL:
                service = services.of_route(operation.handler.__name__, operation.tags)
                if service is not None and service not in offered:
                    serve = _elsewhere(service)
            if operation.method == "GET":
                app.router.add_get(operation.path, serve, expect_handler=expect)
            else:
                app.router.add_route(operation.method, operation.path, serve, expect_handler=expect)
        app.router.add_get("/openapi.json", self._serve_document)
        app.router.add_get("/docs", self._serve_page)
        app.router.add_get("/docs/openapi-3.0.json", self._serve_document_3_0)
        app.router.add_get("/docs/start.js", self._serve_script)
        app.router.add_static("/docs/assets", swagger_ui_path)

    @cached_property
    def document(self) -> Json:
        """The OpenAPI 3.1 document of all that is declared. Kept: declare everything first."""
        return document_of(self._info, self._tags, list(self._operations.values()))

    async def _serve_document(self, request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self.document), headers=_JSON_HEADERS)

    async def _serve_document_3_0(self, request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(as_3_0(self.document)), headers=_JSON_HEADERS)

    async def _serve_page(self, request: web.Request) -> web.Response:
        return web.Response(
            text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY}
        )

    async def _serve_script(self, request: web.Request) -> web.Response:
        return web.Response(text=_SCRIPT, content_type="text/javascript")


# Serving: everything that can be made ready beforehand is, so that a request costs little.

_JSON_HEADERS: Final = {"Content-Type": "application/json"}
# What a token opens is somebody's own: no cache on the way may keep it.
PRIVATE_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}


def _served(operation: Operation) -> Handler:
    handler = operation.handler
    status = operation.status
    secured = operation.security is not None
    headers = PRIVATE_HEADERS if secured else _JSON_HEADERS
    is_for_staff = operation.security == "staff"
    is_for_either = operation.security == "either"
    needed = operation.rights.scopes.get(SYSTEM)
    roles = frozenset(operation.roles)
    wants_account = "account_id" in operation.keywords
    wants_staff = "staff" in operation.keywords
    wants_who = "who" in operation.keywords
    wants_partner = "partner" in operation.keywords
    wants_key = "idempotency_key" in operation.keywords
    path_of = operation.path_adapter.validator.validate_strings if operation.path_adapter else None
    # Not validate_strings, which knows no lists; lax Python mode reads "5" as 5 as well.
    query_of = operation.query_adapter.validator.validate_python if operation.query_adapter else None
    body_of = operation.body_adapter.validator.validate_json if operation.body_adapter else None
    dumps = orjson.dumps
    response = web.Response

    async def serve(request: web.Request) -> web.StreamResponse:
        arguments: dict[str, Any] = {}
        if needed is not None:
            partner = await partner_of(request, needed)
            if wants_partner:
                arguments["partner"] = partner
        elif is_for_staff:
            staff = staff_of(request)
            if roles and roles.isdisjoint(staff.roles):
                raise Problem(Fault.FORBIDDEN, roles=list(operation.roles))
            if wants_staff:
                arguments["staff"] = staff
        elif is_for_either:
            who = who_of(request)
            if roles and isinstance(who, Staff) and roles.isdisjoint(who.roles):
                raise Problem(Fault.FORBIDDEN, roles=list(operation.roles))
            if wants_who:
                arguments["who"] = who
        elif secured:
            account_id = account_of(request)
            if wants_account:
                arguments["account_id"] = account_id
        if path_of is not None:
            try:
                arguments["path"] = path_of(cast(Any, dict(request.match_info)))
            except ValidationError:
                raise Problem(Fault.NOT_FOUND) from None
        if wants_key:
            arguments["idempotency_key"] = idempotency_key_of(request.headers)
        if query_of is not None:
            given = _query_values(request, operation)
            try:
                arguments["query"] = query_of(given)
            except ValidationError as error:
                raise invalid(Fault.INVALID_QUERY, "query", _faults_of(error)) from None
        if body_of is not None:
            raw = await json_body_of(request)
            arguments["body"] = validated(body_of, raw)
        result = await handler(request, **arguments)
        if isinstance(result, web.StreamResponse):
            return result
        if result is None:
            return response(status=204)
        body = result if type(result) is bytes else dumps(result, default=_encodable)
        return response(body=body, status=status, headers=headers)

    async def serve_in_turn(request: web.Request) -> web.StreamResponse:
        with request.app[keys.REQUESTS].one():
            return await serve(request)

    return serve_in_turn if operation.waits_its_turn else serve


def _elsewhere(service: Service) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        raise Problem(Fault.NOT_HERE, service=str(service))

    return serve


def idempotency_key_of(headers: MultiMapping[str]) -> str:
    """The Idempotency-Key header. Raises Problem when it is missing, repeated or not visible ASCII."""
    given = headers.getall("Idempotency-Key", ())
    if not given:
        raise Problem(Fault.MISSING_IDEMPOTENCY_KEY)
    key = given[0]
    if (
        len(given) > 1
        or not 0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX
        or not key.isascii()
        or not key.isprintable()
        or " " in key
    ):
        raise Problem(Fault.INVALID_IDEMPOTENCY_KEY)
    return key


async def json_body_of(request: web.Request) -> bytes:
    """The body, known to be UTF-8 JSON in which no object names a key twice. Raises Problem otherwise."""
    check_json_type(request.headers.get("Content-Type", ""))
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise Problem(Fault.BODY_TOO_LARGE, limit=BODY_BYTES_MAX)
    raw = await request.read()
    check_json(raw)
    return raw


def check_json(raw: bytes) -> None:
    """Raises Problem unless it is UTF-8 JSON of bearable size in which no object names a key twice."""
    if len(raw) > BODY_BYTES_MAX:
        raise Problem(Fault.BODY_TOO_LARGE, limit=BODY_BYTES_MAX)
    try:
        _decode(raw.decode())
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested beyond reason
        raise Problem(Fault.MALFORMED_JSON) from None


def validated(body_of: Callable[..., Any], raw: bytes) -> Any:
    """What a body says, by its pydantic validator. Raises Problem."""
    try:
        return body_of(raw, strict=True)
    except ValidationError as error:
        faults = _faults_of(error)
        # Spelled as JSON, yet no text: a lone surrogate.
        if faults[0]["type"] == "json_invalid":
            raise Problem(Fault.MALFORMED_JSON) from None
        raise invalid(Fault.INVALID_BODY, "body", faults) from None


def check_json_type(content_type: str) -> None:
    """Raises Problem unless a Content-Type header says JSON in UTF-8, however it is spelled."""
    if content_type != "application/json":
        kind, parameters = parse_content_type(content_type)  # remembers what it has parsed
        if kind != "application/json" or parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
            raise Problem(Fault.UNSUPPORTED_MEDIA_TYPE)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                # A lone surrogate would not survive the way out.
                raise Problem(Fault.DUPLICATE_KEY, key=key[:64].encode(errors="replace").decode())
            seen.add(key)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(spelled: str) -> float:
    value = float(spelled)
    if not math.isfinite(value):
        raise ValueError("a number beyond all bounds")
    return value


_decode: Final = json.JSONDecoder(
    object_pairs_hook=_no_twins, parse_constant=_no_constant, parse_float=_finite
).decode


def _query_values(request: web.Request, operation: Operation) -> dict[str, Any]:
    query = request.query
    values: dict[str, Any] = {}
    for name in query:
        if name in values:
            continue
        given = query.getall(name)
        if name in operation.query_lists:
            values[name] = given
        elif len(given) > 1 and name in operation.query_names:
            raise Problem(Fault.INVALID_QUERY, errors=[Entry(["query", name], "repeated")])
        else:
            values[name] = given[0]
    return values


def _is_list(annotation: Any) -> bool:
    """A list, also one that may be left out: list[X] | None."""
    return typing.get_origin(annotation) is list or any(map(_is_list, typing.get_args(annotation)))


def _faults_of(error: ValidationError) -> list[Mapping[str, object]]:
    return error.errors(include_url=False, include_input=False)  # type: ignore[return-value]


def _encodable(value: object) -> object:
    """What orjson does not know by itself."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, UUID):  # asyncpg has a subclass of its own
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


_PAGE: Final = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>杏林 Xinglin API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png" sizes="32x32">
</head>
<body>
<div id="swagger-ui" data-document="/docs/openapi-3.0.json"></div>
<script src="/docs/assets/swagger-ui-bundle.js" charset="utf-8"></script>
<script src="/docs/start.js" charset="utf-8"></script>
<noscript>需要 JavaScript；文档本身在 <a href="/openapi.json">/openapi.json</a></noscript>
</body>
</html>
"""
# A file of its own, so that the page needs no inline script and its policy can forbid them all.
_SCRIPT: Final = """SwaggerUIBundle({
  url: document.getElementById("swagger-ui").dataset.document,
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
"""


api: Final = Api(
    "杏林 Xinglin",
    "0.1.0",
    "医院门诊实时预约与候诊引擎。所有时间为带时区的 ISO 8601，金额单位为分。\n\n"
    "Real-time booking and queueing for hospital outpatients. Times are ISO 8601 with their offset,"
    " money is in fen.",
    tags={
        "sessions": "登录 / signing in",
        "patients": "就诊人 / the people an account books for",
        "catalog": "科室、医生、排班与号源 / departments, practitioners, schedules, slots",
        "appointments": "预约 / appointments",
        "waitlist": "候补 / waiting for a number that comes back",
        "queues": "签到、候诊与叫号 / check-in, waiting and calling",
        "bills": "支付 / payment",
        "callbacks": "支付平台的通知 / messages of payment providers",
        "cashier": "收费、对账与日结 / the cashier's desk, reconciliation, the day's end",
        "conduct": "处罚与申诉 / penalties and appeals",
        "privacy": "个人信息权利 / consents, one's own data, being forgotten",
        "desk": "窗口与管理 / for the staff at the desk",
        "imaging": "影像 / examinations with pictures",
        "encounters": "就诊、诊断、用药、过敏 / visits, diagnoses, medicines, allergies",
        "records": "病历查阅与紧急授权 / reading patients' records, and breaking the glass",
        "admin": "系统与安全管理员 / for the administrators",
        "events": "事件流与 Webhook / events: the feed and webhooks",
        "audit": "审计管理员 / for the audit administrator",
        "integration": "医院各系统的接口 / the hospital's own systems, and what they sent",
        "partner": "其他系统 / other systems, with credentials of their own",
        "fhir": "FHIR R4 / the FHIR R4 face, for partners",
    },
    rights=MATRIX,
)
"""The patient-facing API: modules declare their routes on it; web/app.py imports them, then sets it up."""
