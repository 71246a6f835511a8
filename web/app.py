"""The application: every route, and the few that are for machines."""

import asyncio
import time
from typing import Final

import asyncpg
import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from actors.metrics import exposition, samples
from engine.domain.limits import BODY_BYTES_MAX
from engine.settings import Settings
from web import keys, stream  # noqa: F401
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
    waiting_times,
    what_if,
)
from web.desk import conduct as desk_conduct  # noqa: F401
from web.desk import history as desk_history  # noqa: F401
from web.openapi import api
from web.origins import Origins, from_ours
from web.passwords import Passwords
from web.patient import (  # noqa: F401
    any_doctor,
    appointments,
    catalog,
    changes,
    conduct,
    patients,
    sessions,
    substitute,
    waitlist,
)
from web.patient import history as patient_history  # noqa: F401
from web.patient.offers import Offers
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
from web.security_headers import secure

READY_SECONDS_MAX: Final = 1.0


def make_app() -> web.Application:
    """Without what handlers need: see web/keys.py; web/gateway.py fills it in."""
    app = web.Application(middlewares=[measured], client_max_size=BODY_BYTES_MAX)
    app[keys.OFFERS] = Offers()
    app[keys.PASSWORDS] = Passwords()
    app[keys.PROXIES], app[keys.RATE_LIMITS] = limits_of(Settings.model_construct())
    app[keys.ORIGINS] = Origins(frozenset())
    api.setup(app)  # brings the middleware that words what those after it raise
    app.middlewares.extend((from_ours, limited))
    app.on_response_prepare.append(secure)
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
    counted.count(route, response.status)
    counted.seconds.labels(route).observe(time.perf_counter() - started)
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
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return web.json_response({"status": "database_down"}, status=503, headers={"Retry-After": "1"})
    return web.Response(body=orjson.dumps({"status": "ready"}), content_type="application/json")


async def metrics(request: web.Request) -> web.Response:
    """Of this gateway, its peers and the shards, in Prometheus' text format."""
    app = request.app
    collected = samples(app[keys.METRICS].registry, app[keys.NAME])
    collected += await app[keys.OTHERS]()
    return web.Response(body=exposition(collected), headers={"Content-Type": "text/plain; version=0.0.4"})
