"""The sandbox's JSON form: /v1/… signed as docs/HL7.md has it."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Any, Final

import orjson
from aiohttp import web

from integrations.his import signing
from integrations.his.sandbox_hospital import Fault, Hospital, Json, NotDone, Registered
from integrations.his.sandbox_lines import cut, silence

VERSION: Final = 1
PAGE: Final = 500
NONCES_MAX: Final = 100_000

Handler = Callable[[web.Request, Any], Awaitable[Json]]


class RestForm:
    def __init__(self, hospital: Hospital, app_id: str, secret: bytes) -> None:
        self._hospital = hospital
        self._app_id = app_id
        self._secret = secret
        self._nonces: dict[str, None] = {}

    def add_to(self, app: web.Application) -> None:
        for method, path, operation, handler in (
            ("POST", "/v1/registrations/{booking}/events", "tell", self._tell),
            ("GET", "/v1/registrations/{booking}", "find", self._find),
            ("GET", "/v1/days/{day}/registrations", "registrations", self._day),
            ("POST", "/v1/locks/{booking}", "lock", self._lock),
            ("POST", "/v1/locks/{booking}/release", "unlock", self._unlock),
            ("GET", "/v1/departments", "departments", self._departments),
            ("GET", "/v1/practitioners", "practitioners", self._practitioners),
            ("GET", "/v1/schedules/{first}/{last}", "schedules", self._schedules),
            ("POST", "/v1/patients/find", "patient", self._patient),
        ):
            app.router.add_route(method, path, self._guarded(operation, handler))

    def _guarded(self, operation: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            body = await request.read()
            nonce = request.headers.get(signing.NONCE, "")
            fault = self._hospital.faults.next(operation)
            if not self._is_theirs(request, body, nonce):
                return self._answer(401, nonce, {"code": "signature"})
            match fault:
                case Fault.TIMEOUT:
                    return await silence()
                case Fault.CUT:
                    return cut(request)
                case Fault.ERROR:
                    return self._answer(500, nonce, {"code": "error"})
                case Fault.BUSY:
                    busy = self._answer(429, nonce, {"code": "busy"})
                    busy.headers["Retry-After"] = "1"
                    return busy
            try:
                content = orjson.loads(body) if body else None
                if content is not None and content.get("version") != VERSION:
                    raise NotDone(400, "version")
                answer = await handler(request, content)
            except NotDone as refused:
                return self._answer(refused.status, nonce, {"code": refused.code})
            except (KeyError, ValueError, TypeError):
                return self._answer(400, nonce, {"code": "malformed"})
            match fault:
                case Fault.APPLIED_THEN_TIMEOUT:
                    return await silence()
                case Fault.APPLIED_THEN_CUT:
                    return cut(request)
                case Fault.FORGED:
                    return self._answer(200, nonce, answer, b"another")
                case Fault.GARBAGE | Fault.WRONG_CHARSET:
                    return self._answer(200, nonce, {"code": ["?"]})
            return self._answer(200, nonce, answer)

        return handle

    def _answer(self, status: int, nonce: str, content: Json, secret: bytes | None = None) -> web.Response:
        body = orjson.dumps({"version": VERSION, **content})
        now = int(self._hospital.clock())
        headers = {
            signing.TIMESTAMP: str(now),
            signing.SIGNATURE: signing.of_answer(secret or self._secret, status, nonce, now, body),
        }
        return web.Response(status=status, body=body, headers=headers, content_type="application/json")

    def _is_theirs(self, request: web.Request, body: bytes, nonce: str) -> bool:
        at, app_id = request.headers.get(signing.TIMESTAMP, ""), request.headers.get(signing.APP, "")
        now = int(self._hospital.clock())
        if not signing.is_near(at, now) or signing.NONCE_FORMAT.fullmatch(nonce) is None:
            return False
        expected = signing.of_request(
            self._secret, request.method, request.raw_path, app_id, int(at), nonce, body
        )
        if app_id != self._app_id or nonce in self._nonces:
            return False
        if not signing.is_same(request.headers.get(signing.SIGNATURE, ""), expected):
            return False
        if len(self._nonces) >= NONCES_MAX:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[nonce] = None
        return True

    async def _tell(self, request: web.Request, body: Json) -> Json:
        booking = _booking(body["booking"])
        if booking["id"] != request.match_info["booking"]:
            raise NotDone(400, "another_booking")
        before = None if body["before"] is None else str(body["before"]["id"])
        his_id = self._hospital.apply(body["message"], body["event"], booking, before, body["reason"])
        return {"message": body["message"], "his_id": his_id}

    async def _find(self, request: web.Request, _body: None) -> Json:
        found = self._hospital.by_booking(request.match_info["booking"])
        if found is None:
            raise NotDone(404, "unknown_booking")
        return {"registration": found.told()}

    async def _day(self, request: web.Request, _body: None) -> Json:
        day = request.match_info["day"]
        start = int(request.query.get("from", "0"))
        rows: list[Registered] = self._hospital.of_day(day)
        more = start + PAGE < len(rows)
        return {
            "day": day,
            "rows": [one.told() for one in rows[start : start + PAGE]],
            "next": str(start + PAGE) if more else "",
        }

    async def _lock(self, request: web.Request, body: Json) -> Json:
        locked = self._hospital.lock(_booking(body["booking"]))
        return {
            "booking": request.match_info["booking"],
            "his_id": locked.his_id,
            "number": locked.number,
        }

    async def _unlock(self, request: web.Request, _body: Json) -> Json:
        self._hospital.unlock(request.match_info["booking"])
        return {}

    async def _departments(self, _request: web.Request, _body: None) -> Json:
        return {"departments": self._hospital.departments}

    async def _practitioners(self, _request: web.Request, _body: None) -> Json:
        return {"practitioners": self._hospital.practitioners}

    async def _schedules(self, request: web.Request, _body: None) -> Json:
        first, last = (date.fromisoformat(request.match_info[name]) for name in ("first", "last"))
        return {"days": self._hospital.days(first, last)}

    async def _patient(self, _request: web.Request, body: Json) -> Json:
        return {"patient": self._hospital.patient(body["id_type"], body["id_number"])}


def _booking(told: Json) -> Json:
    return {
        "id": str(told["id"]),
        "department": told["department"],
        "practitioner": told["practitioner"],
        "starts_at": datetime.fromisoformat(told["starts_at"]),
        "number": told["number"],
        "person": told["person"],
    }
