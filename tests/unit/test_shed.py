"""Shedding: what is refused before it is read, and what is not."""

from datetime import UTC

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from actors.metrics import GatewayMetrics
from web import keys
from web.admission import Admission
from web.app import make_app
from web.auth import Tokens
from web.patient.express import HoldLane

BODY = b'{"slot_id":"a","patient_id":"b"}'


def request(
    *headers: bytes, line: bytes = b"POST /api/v1/appointments HTTP/1.1", body: bytes = BODY
) -> bytes:
    lines = [line, b"Host: x", b"Content-Length: %d" % len(BODY), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def lane(limit: int) -> HoldLane:
    app = make_app()
    metrics = GatewayMetrics()
    app[keys.TOKENS] = Tokens(b"x" * 32, 60, 60)
    app[keys.METRICS] = metrics
    app[keys.ZONE] = UTC  # type: ignore[assignment]
    app[keys.ADMISSION] = Admission(limit, metrics.shed, metrics.admitted)
    return HoldLane(app)


def test_while_there_is_room_nothing_is_shed() -> None:
    assert lane(limit=1).shed(request()) is None


@pytest.mark.parametrize("headers", [(), (b"Connection: keep-alive",), (b"Accept-Language: zh-CN",)])
def test_a_whole_request_is_refused_with_when_to_come_back(headers: tuple[bytes, ...]) -> None:
    refusal = lane(limit=0).shed(request(*headers))
    assert refusal is not None
    head, _, body = refusal.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1" in head
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert b'"code":"busy"' in body
    assert b"Content-Language: zh-CN" in head


def test_english_is_answered_in_english() -> None:
    refusal = lane(limit=0).shed(request(b"accept-language: en-GB, zh;q=0.5"))
    assert refusal is not None
    assert b"Content-Language: en" in refusal


@pytest.mark.parametrize(
    "data",
    [
        request(line=b"GET /api/v1/appointments HTTP/1.1"),
        request(line=b"POST /api/v1/appointments/x/cancel HTTP/1.1"),
        request(line=b"POST /api/v1/appointments HTTP/1.0"),
        request(body=BODY[:-1]),  # the rest is on its way
        request(body=BODY + b"POST"),  # and the next one has begun
        request()[:40],
        request(b"Content-Length: 3"),
        request(b"Transfer-Encoding: chunked"),
        request(b"Expect: 100-continue"),
        request(b"Connection: close"),
        b"",
    ],
)
def test_whatever_is_not_exactly_one_whole_request_goes_the_usual_way(data: bytes) -> None:
    assert lane(limit=0).shed(data) is None


def test_admission_gives_each_place_once() -> None:
    registry = CollectorRegistry()
    admission = Admission(2, shed := Counter("s", "", registry=registry), Gauge("a", "", registry=registry))
    assert [admission.enter() for _ in range(3)] == [True, True, False]
    assert admission.is_full
    admission.leave()
    assert not admission.is_full
    assert admission.enter()
    assert next(iter(shed.collect())).samples[0].value == 1
