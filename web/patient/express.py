"""POST /api/v1/appointments on the express lane: the same checks and the same answers as the usual way."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import orjson
from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage
from pydantic import TypeAdapter

from actors.directory import Outcome
from engine.domain.refusal import Reason
from web import keys
from web.door import answer, is_whole
from web.errors import Problem, language_of
from web.faults import Fault
from web.openapi import PRIVATE_HEADERS, check_json, check_json_type, idempotency_key_of, validated
from web.patient import appointments
from web.patient.bodies import HoldBody
from web.request_ids import HEADER, id_of

log = logging.getLogger(__name__)

_LINE: Final = b"POST /api/v1/appointments HTTP/1.1\r\n"
_UNUSUAL: Final = re.compile(
    rb"\r\n(?:connection:(?![ \t]*keep-alive[ \t]*\r)|expect:|transfer-encoding:|upgrade:)", re.IGNORECASE
)
_LANGUAGE: Final = re.compile(rb"\r\naccept-language:[ \t]*([^\r]*)", re.IGNORECASE)
_BODY_OF: Final = TypeAdapter(HoldBody).validator.validate_json


class HoldLane:
    method = "POST"
    path = "/api/v1/appointments"

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._tokens = app[keys.TOKENS]
        self._metrics = app[keys.METRICS]
        self._admission = app[keys.ADMISSION]
        self._limits = app[keys.RATE_LIMITS]
        self._origins = app[keys.ORIGINS]
        self._access_log = app[keys.ACCESS_LOG]
        self._slow: set[asyncio.Task[None]] = set()
        self._busy = {
            language_of(asked): answer(503, *Problem(Reason.BUSY).rendered(asked, app[keys.ZONE]))
            for asked in ("en", "zh")
        }
        self._route = f"{self.method} {self.path}"
        self._seconds = self._metrics.seconds.labels(self._route)

    def shed(self, data: bytes) -> bytes | None:
        if not self._admission.is_full or not data.startswith(_LINE):
            return None
        head = data.find(b"\r\n\r\n")
        if not is_whole(data) or _UNUSUAL.search(data, 0, head + 2):
            return None
        self._admission.count_shed()
        self._metrics.count(self._route, 503)
        language = _LANGUAGE.search(data, 0, head + 2)
        return self._busy[language_of(language[1].decode("latin-1") if language else None)]

    def serve(
        self, message: RawRequestMessage, body: bytes, peer: str, finish: Callable[[bytes], None]
    ) -> None:
        started = time.perf_counter()
        headers = message.headers
        request_id = id_of(headers)
        send = partial(self._send, headers.get(hdrs.ACCEPT_LANGUAGE), request_id, started, finish)
        try:
            self._origins.check(self.method, headers)
            self._limits.count_sender(peer, headers)
            account_id = self._tokens.account_of_header(headers.get(hdrs.AUTHORIZATION))
            self._limits.count_account(account_id)
            key = idempotency_key_of(headers)
            check_json_type(headers.get(hdrs.CONTENT_TYPE, ""))
            check_json(body)
            asked = appointments.Hold(self._app, account_id, key, validated(_BODY_OF, body))
            if asked.asks_first:  # another system has a say: nothing that is answered in one step
                task = asyncio.get_running_loop().create_task(self._slowly(asked, request_id, send))
                self._slow.add(task)
                task.add_done_callback(self._slow.discard)
                return
            outcome = asked.ask()
        except Problem as problem:
            send(problem)
        except Exception as error:
            send(_unexpected(error, request_id))
        else:
            outcome.add_done_callback(partial(self._answered, asked, request_id, send))

    async def _slowly(
        self, asked: "appointments.Hold", request_id: str, send: Callable[[Problem | bytes], None]
    ) -> None:
        try:
            send(orjson.dumps(await asked.held()))
        except Problem as problem:
            send(problem)
        except Exception as error:
            send(_unexpected(error, request_id))

    def _answered(
        self,
        asked: "appointments.Hold",
        request_id: str,
        send: Callable[[Problem | bytes], None],
        outcome: asyncio.Future[Outcome],
    ) -> None:
        try:
            send(orjson.dumps(asked.answer(outcome.result())))
        except Problem as problem:
            send(problem)
        except Exception as error:
            send(_unexpected(error, request_id))

    def _send(
        self,
        accept_language: str | None,
        request_id: str,
        started: float,
        finish: Callable[[bytes], None],
        result: Problem | bytes,
    ) -> None:
        if isinstance(result, Problem):
            status = result.status
            headers, body = result.rendered(accept_language, self._app[keys.ZONE])
        else:
            status, headers, body = 201, PRIVATE_HEADERS, result
        seconds = time.perf_counter() - started
        self._metrics.count(self._route, status)
        self._seconds.observe(seconds)
        self._access_log.note(self._route, status, seconds, request_id)
        finish(answer(status, {HEADER: request_id, **headers}, body))


def _unexpected(error: Exception, request_id: str) -> Problem:
    log.error("request %s: a booking failed", request_id, exc_info=error)
    return Problem(Fault.INTERNAL, request_id=request_id)
