"""The application: every route, and the few that are for machines."""

import asyncio
import time
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from actors.metrics import exposition, samples
from engine.database import AWAY
from engine.domain.limits import BODY_BYTES_MAX, PAYMENTS_MAX
from engine.services import ALL, Service
from engine.settings import Settings
from web import keys, stream  # noqa: F401
from web.access_log import AccessLog
from web.admin import break_glass as admin_break_glass  # noqa: F401
from web.admin import outbox as admin_outbox  # noqa: F401
from web.admin import settings_view, staff  # noqa: F401
from web.admin import vault as admin_vault  # noqa: F401
from web.admission import unwatched
from web.auditing import Readings
from web.auditors import routes as auditors_routes  # noqa: F401
from web.bills import callbacks, paying  # noqa: F401
from web.bills import reading as bills_reading  # noqa: F401
from web.cashier import finding, receipt_page, refunds, taking, work  # noqa: F401
from web.desk import actors as desk_actors  # noqa: F401
from web.desk import appointments as desk_appointments  # noqa: F401  (declares its routes, like those below)
from web.desk import (  # noqa: F401
    calling_list,
    change_requests,
    indicators,
    previews,
    schedules,
    suspensions,
    templates,
    verification,
    waiting_times,
    what_if,
)
from web.desk import conduct as desk_conduct  # noqa: F401
from web.desk import history as desk_history  # noqa: F401
from web.emr import routes as emr_routes  # noqa: F401
from web.events import admin_webhooks, feed_routes, partner_webhooks  # noqa: F401
from web.events.feed import Tail
from web.his import routes as his_routes  # noqa: F401
from web.his.truth import Truth
from web.hospital_billing import routes as hospital_billing_routes  # noqa: F401
from web.imaging import routes as imaging_routes  # noqa: F401
from web.intake import routes as intake_routes  # noqa: F401
from web.openapi import api
from web.origins import Origins, from_ours
from web.partner import token as partner_token  # noqa: F401
from web.partner.fhir import appointments as fhir_appointments  # noqa: F401
from web.partner.fhir import capability, operations  # noqa: F401
from web.partner.fhir import patients as fhir_patients  # noqa: F401
from web.partner.fhir import schedules as fhir_schedules  # noqa: F401
from web.partner.fhir.outcome import outcomes
from web.passwords import Passwords
from web.patient import (  # noqa: F401
    account,
    any_doctor,
    appointments,
    catalog,
    changes,
    conduct,
    delegations,
    patients,
    sessions,
    substitute,
    waitlist,
)
from web.patient import history as patient_history  # noqa: F401
from web.patient.offers import Offers
from web.privacy import accesses, corrections, erasures, export_page  # noqa: F401
from web.privacy import consents as privacy_consents  # noqa: F401
from web.privacy.export import exports
from web.queues import (  # noqa: F401
    boards,
    calling,
    check_in,
    kiosk,
    moves,
    notices,
    outlook,
    rooms,
    ticket_history,
    tickets,
    vitals,
    walk_ins,
)
from web.queues import screens as queue_screens  # noqa: F401
from web.rate_limits import limited, limits_of
from web.reconciliation import routes as reconciliation_routes  # noqa: F401
from web.reconciliation import settlements  # noqa: F401
from web.records import break_glass, reading  # noqa: F401
from web.request_ids import identified, named, request_id_of
from web.results import delivering as results_delivering  # noqa: F401
from web.results import reading as results_reading  # noqa: F401
from web.security_headers import secure
from web.sessions import own as own_sessions  # noqa: F401
from web.sessions.cookies import by_cookie
from web.sign_in import administration, own_password, second_factor  # noqa: F401
from web.sign_in.rules import STRICT

READY_SECONDS_MAX: Final = 1.0


def make_app(services: frozenset[Service] = ALL) -> web.Application:
    """Without what handlers need: see web/keys.py; web/gateway.py fills it in."""
    app = web.Application(middlewares=[identified, measured], client_max_size=BODY_BYTES_MAX)
    app[keys.OFFERS] = Offers()
    app[keys.HIS_TRUTH] = Truth()
    app[keys.PAYMENTS] = unwatched(PAYMENTS_MAX)
    app[keys.PASSWORDS] = Passwords()
    app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(Settings.model_construct())
    app[keys.ORIGINS] = Origins(frozenset())
    app[keys.SIGN_IN_RULES] = STRICT
    app[keys.ACCESS_LOG] = AccessLog("off", None, "")
    api.must_be_complete()
    api.setup(app, services)  # brings the middleware that words what those after it raise
    app.middlewares.extend((outcomes, from_ours, limited, by_cookie))
    app.on_response_prepare.extend((secure, named))
    app[keys.READINGS] = Readings()
    app[keys.EXPORTS] = exports()
    app[keys.EVENT_TAIL] = tail = Tail()
    app.on_shutdown.append(lambda _app: tail.close())
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


@web.middleware
async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
    started = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    route = "none" if resource is None else f"{request.method} {resource.canonical}"
    counted = request.app[keys.METRICS]
    seconds = time.perf_counter() - started
    counted.count(route, response.status)
    counted.seconds.labels(route).observe(seconds)
    request.app[keys.ACCESS_LOG].note(route, response.status, seconds, request_id_of(request))
    return response


async def healthz(request: web.Request) -> web.Response:
    """The process is alive."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """The process takes requests, and the database answers."""
    if not request.app[keys.HEALTH].is_serving:
        return web.json_response({"status": "draining"}, status=503)
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            await request.app[keys.POOL].fetchval("select 1")
    except AWAY:
        return web.json_response({"status": "database_down"}, status=503, headers={"Retry-After": "1"})
    return web.Response(body=orjson.dumps({"status": "ready"}), content_type="application/json")


async def metrics(request: web.Request) -> web.Response:
    """Of this gateway, its peers and the shards, in Prometheus' text format."""
    app = request.app
    collected = samples(app[keys.METRICS].registry, app[keys.NAME])
    collected += await app[keys.OTHERS]()
    return web.Response(body=exposition(collected), headers={"Content-Type": "text/plain; version=0.0.4"})
