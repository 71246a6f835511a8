"""Everything that is done belongs to one service, and to one alone."""

import asyncio
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web as http
from aiohttp.test_utils import TestClient, TestServer

from actors.rounds import LOCK_NAME, Round
from engine.embedded_postgres import free_port
from engine.records.shard_routes import Run
from engine.services import ALL, Service, names_of, services_of
from tests.support.debian import need
from tests.support.system import ROOT
from web import gateway, keys, services
from web.app import make_app
from web.auth import SECRET_BYTES_MIN, Tokens
from web.openapi import Operation, api
from web.queues.notices import Noticing
from web.reconciliation.reconciling import Reconciling
from web.wish_errands import Wishes

BOOKING, PAYMENT = Service.BOOKING, Service.PAYMENT
REPORTS, INTEGRATION = Service.REPORTS, Service.INTEGRATION


@pytest.fixture(scope="module")
def operations() -> dict[str, Operation]:
    make_app()
    return {one.handler.__name__: one for one in api.operations}


@pytest.fixture
def wired() -> Iterator[http.Application]:
    """As much of a gateway as errands and rounds are made of."""
    app = http.Application()
    app[keys.WISHES] = Wishes(app)
    app[keys.NOTICING] = Noticing(app, lambda: 0)
    app[keys.RECONCILING] = Reconciling(app, "")
    app[keys.HOSPITAL_BILLING] = cast(Any, None)
    yield app


def service_of(operation: Operation) -> Service | None:
    return services.of_route(operation.handler.__name__, operation.tags)


# Each has its place.


def test_every_route_belongs_to_a_service(operations: dict[str, Operation]) -> None:
    found = {name: service_of(one) for name, one in operations.items()}
    assert set(found.values()) >= {BOOKING, PAYMENT, REPORTS, None}


def test_every_exception_is_a_handler_that_its_tag_would_put_elsewhere(
    operations: dict[str, Operation],
) -> None:
    for name, service in services._HANDLERS.items():
        assert services._TAGS[operations[name].tags[0]] != service, name


def test_every_errand_belongs_to_a_service(wired: http.Application) -> None:
    kinds = set(gateway._handlers(wired))
    assert {services.of_errand(kind) for kind in kinds} == {BOOKING, PAYMENT}
    assert kinds == set(services._ERRANDS), "a line for an errand that is none"


def test_every_round_belongs_to_a_service(wired: http.Application) -> None:
    names = {one.name for one in gateway._rounds(wired, "")}
    assert {services.of_round(name) for name in names} >= {BOOKING, PAYMENT}
    assert names <= set(services._ROUNDS)


def test_what_nobody_has_given_to_a_service_is_refused() -> None:
    for ask in (services.of_errand, services.of_round, services.of_system):
        with pytest.raises(LookupError, match=r"'new' belongs to no service: web/services\.py"):
            ask("new")
    with pytest.raises(LookupError, match="no service"):
        services.of_route("somebody", ["new"])
    with pytest.raises(LookupError, match="no service"):
        services.of_route("somebody", [])


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("hold_appointment", BOOKING),
        ("check_in_by_oneself", BOOKING),
        ("give_consent", BOOKING),
        ("pay_bill", PAYMENT),
        ("hospital_billing_calls", PAYMENT),
        ("read_outstanding", PAYMENT),
        ("read_patient_record", REPORTS),
        ("read_indicators", REPORTS),
        ("export_account", REPORTS),
        ("list_accesses", REPORTS),
    ],
)
def test_some_that_an_operator_looks_for(
    operations: dict[str, Operation], name: str, service: Service
) -> None:
    assert service_of(operations[name]) is service


def test_all_together_one_server_does_everything_under_the_lock_of_ever() -> None:
    rounds = [_round("no shows"), _round("open money"), _round("not known at all")]
    assert services.rounds_of(rounds, ALL) == [(LOCK_NAME, rounds)]
    assert services.errands_of({"new": 1, "bill": 2}, ALL) == {"new": 1, "bill": 2}
    assert services.systems_of(["new"], ALL) == ["new"]


def test_apart_each_service_has_its_rounds_under_a_lock_of_its_own() -> None:
    rounds = [_round("no shows"), _round("open money"), _round("arrivals"), _round("reconciliation")]
    booking, payment = ("xinglin.rounds.booking", rounds[::2]), ("xinglin.rounds.payment", rounds[1::2])
    assert services.rounds_of(rounds, frozenset({BOOKING})) == [booking]
    assert services.rounds_of(rounds, frozenset({PAYMENT, BOOKING})) == [booking, payment]
    assert services.rounds_of(rounds, frozenset({INTEGRATION})) == []


def test_apart_each_errand_and_each_system_is_left_to_its_service() -> None:
    assert services.errands_of({"bill": 1, "rehome": 2}, frozenset({PAYMENT})) == {"bill": 1}
    assert services.errands_of({"bill": 1, "rehome": 2}, frozenset({REPORTS})) == {}
    assert services.systems_of(["his", "indicators"], frozenset({REPORTS, PAYMENT})) == ["indicators"]


def _round(name: str) -> Round:
    async def work() -> None: ...

    return Round(name, 1.0, work)


# What an operator names.


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("", ALL),
        ("booking", {BOOKING}),
        ("payment, reports", {PAYMENT, REPORTS}),
        ("integration,reports,payment,booking", ALL),
    ],
)
def test_services_are_named_between_commas(named: str, found: set[Service]) -> None:
    assert services_of(named) == found


@pytest.mark.parametrize(
    "named", ["bookings", "booking,", ",", "Booking", "booking,booking", "booking payment"]
)
def test_what_is_no_service_is_refused_with_the_names_that_are(named: str) -> None:
    with pytest.raises(ValueError, match="booking, payment, reports, integration|named twice"):
        services_of(named)


def test_they_are_told_in_one_order() -> None:
    assert names_of(services_of("reports,booking")) == ["booking", "reports"]


# What a server of some services answers.


async def test_a_route_of_another_service_says_which_one(operations: dict[str, Operation]) -> None:
    app = make_app(frozenset({PAYMENT}))
    app[keys.METRICS] = cast(Any, _Nothing())
    app[keys.TOKENS] = Tokens(b"s" * SECRET_BYTES_MIN, 60, 60)
    async with TestClient(TestServer(app)) as client:
        for name, service in (("hold_appointment", "booking"), ("list_accesses", "reports")):
            one = operations[name]
            answer = await client.request(one.method, one.path.replace("{id}", "any"))
            told = await answer.json()
            assert (answer.status, told["code"], told["service"]) == (404, "not_here", service)
            assert service in told["detail"]
        assert (await client.get("/api/v1/bills")).status == 401
        assert (await client.get("/healthz")).status == 200
        document = await (await client.get("/openapi.json")).json()
        assert len(document["paths"]) == len({one.path for one in operations.values()})


def test_every_route_of_a_service_says_that_it_may_be_elsewhere(operations: dict[str, Operation]) -> None:
    for one in operations.values():
        assert ("not_here" in one.faults) is (service_of(one) is not None), one.path


class _Nothing:
    """Counts nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *given: Any) -> Any:
        return self


# Links between services.


def test_a_link_is_of_one_run_one_number_of_shards_and_one_installation() -> None:
    run = Run(2, b"n" * 32, b"")
    ours = run.link_secret(b"token secret")
    assert ours == Run(2, b"n" * 32, b"print").link_secret(b"token secret")
    others = {
        ours,
        Run(3, b"n" * 32, b"").link_secret(b"token secret"),
        Run(2, b"m" * 32, b"").link_secret(b"token secret"),
        run.link_secret(b"another"),
    }
    assert len(others) == 4


# The shipped configuration of nginx.

SAMPLE = ROOT / "deploy" / "nginx" / "xinglin-services.conf"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
LINE = re.compile(r'^ {4}"~(?P<pattern>\S+)"\s+xinglin_(?P<service>\w+);$', re.MULTILINE)


def test_nginx_sends_each_path_to_its_service(operations: dict[str, Operation]) -> None:
    lines = [(re.compile(found["pattern"]), found["service"]) for found in LINE.finditer(SAMPLE.read_text())]
    wrong = {}
    for one in operations.values():
        path = re.sub(r"{\w+}", "0", one.path)
        sent = next((service for pattern, service in lines if pattern.search(path)), "booking")
        if (service_of(one) or BOOKING) != sent:
            wrong[one.path] = sent
    assert not wrong


async def test_a_real_nginx_reads_it_so(operations: dict[str, Operation]) -> None:
    """Its own regular expressions and its own idea of a path, asked once for each kind of line."""
    program = need("nginx")
    ports = {name: free_port() for name in ("", "_payment", "_reports", "_integration")}
    with tempfile.TemporaryDirectory(prefix="xinglin-nginx-") as made:
        folder = Path(made)
        shipped = SAMPLE.read_text()
        for port, name in (("8090", "_payment"), ("8100", "_reports"), ("8110", "_integration")):
            assert shipped.count(f"127.0.0.1:{port}") == 1
            shipped = shipped.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ports[name]}")
        (folder / "services.conf").write_text(shipped)
        front = free_port()
        asked = f"upstream xinglin {{ server 127.0.0.1:{ports['']}; }} server {{ listen 127.0.0.1:{front};"
        asked += " location / { add_header X-Service $xinglin_service; return 204; } }"
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; worker_processes 1; error_log {folder}/error.log;\n"
            f"events {{ worker_connections 64; }} http {{ access_log off; include {folder}/services.conf;\n"
            + "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in TEMPORARY)
            + f"{asked} }}\n"
        )
        command = [program, "-p", made, "-e", f"{made}/error.log", "-c", f"{made}/nginx.conf"]
        process = await asyncio.create_subprocess_exec(*command)
        try:
            async with aiohttp.ClientSession() as session:
                found = {}
                for one in operations.values():
                    path = re.sub(r"{\w+}", "0", one.path)
                    found[one.path] = await _answered(session, f"http://127.0.0.1:{front}{path}")
        finally:
            process.terminate()
            await process.wait()
    names = {one.path: service_of(one) or BOOKING for one in operations.values()}
    assert found == {
        path: "xinglin" if name is BOOKING else f"xinglin_{name}" for path, name in names.items()
    }


async def _answered(session: aiohttp.ClientSession, url: str) -> str:
    """Asks until it listens: within 10 s."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with session.get(url) as answer:
                    return answer.headers["X-Service"]
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)
