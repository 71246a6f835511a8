"""Token buckets against a model, with a clock of their own; then all limits together."""

from collections.abc import Callable, Mapping
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from engine.domain.policy import Channel
from engine.records.staff import Staff
from engine.settings import Settings
from web.client_address import Proxies, networks_of
from web.errors import Problem
from web.faults import Fault
from web.rate_limits import DEVICE, Buckets, Rate, RateLimits

# Sums of sixteenths are exact in floating point, so the model below needs no tolerance.
SIXTEENTH = 1 / 16
RATES = st.builds(Rate, st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0, 16.0]), st.integers(1, 8))
PAUSES = st.lists(st.integers(0, 80).map(lambda n: n * SIXTEENTH), min_size=1, max_size=80)


class Clock:
    def __init__(self) -> None:
        self.now = 1024.0

    def __call__(self) -> float:
        return self.now


@given(RATES, PAUSES)
def test_a_bucket_is_a_bucket(rate: Rate, pauses: list[float]) -> None:
    """Against the textbook: so many tokens, refilled with time, never more than the burst."""
    clock = Clock()
    buckets = Buckets(rate, clock)
    tokens = float(rate.burst)
    for pause in pauses:
        clock.now += pause
        tokens = min(rate.burst, tokens + pause * rate.per_second)
        wait = buckets.take("k")
        assert (wait == 0) == (tokens >= 1)
        if wait == 0:
            tokens -= 1
        else:
            assert wait == (1 - tokens) / rate.per_second


@given(RATES, PAUSES)
def test_who_waits_as_told_is_let_through_and_not_a_moment_earlier(rate: Rate, pauses: list[float]) -> None:
    clock = Clock()
    buckets = Buckets(rate, clock)
    for pause in pauses:
        clock.now += pause
        wait = buckets.take("k")
        if wait > 0:
            clock.now += wait - SIXTEENTH / 4
            assert buckets.take("k") > 0
            clock.now += SIXTEENTH / 4
            assert buckets.take("k") == 0


@given(RATES, st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=60))
def test_keys_do_not_touch_each_other(rate: Rate, asked: list[tuple[int, int]]) -> None:
    clock = Clock()
    together, alone = Buckets(rate, clock), {key: Buckets(rate, clock) for key in range(4)}
    for key, sixteenths in asked:
        clock.now += sixteenths * SIXTEENTH
        assert together.take(key) == alone[key].take(key)


@given(RATES, PAUSES)
def test_in_any_time_no_more_than_burst_and_rate(rate: Rate, pauses: list[float]) -> None:
    clock = Clock()
    buckets = Buckets(rate, clock)
    taken = []
    for pause in pauses:
        clock.now += pause
        if buckets.take("k") == 0:
            taken.append(clock.now)
    for i, first in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= rate.burst + (taken[j] - first) * rate.per_second


def test_memory_is_bounded_and_who_is_refused_is_not_forgotten() -> None:
    """A flood of made-up keys must not wash away the bucket that it wants to be rid of."""
    buckets = Buckets(Rate(0.001, 1), Clock(), keys_max=100)
    assert buckets.take("greedy") == 0
    for n in range(10_000):
        buckets.take(n)
        if n % 50 == 0:
            assert buckets.take("greedy") > 0
        assert len(buckets) <= 100
    for n in range(100):
        buckets.take(-n - 1)
    assert buckets.take("greedy") == 0  # so it was the asking that kept it


def test_no_limit_is_no_limit() -> None:
    buckets = Buckets(Rate(0, 1), Clock())
    assert all(buckets.take("k") == 0 for _ in range(1_000))
    assert len(buckets) == 0


# All together.

HEADERS = CIMultiDict[str]
FEW = {
    "address_requests_per_second": 1,
    "address_requests_burst": 10,
    "address_sign_ins_per_second": 1,
    "address_sign_ins_burst": 3,
    "device_requests_per_second": 1,
    "device_requests_burst": 5,
    "account_requests_per_second": 1,
    "account_requests_burst": 4,
    "staff_requests_per_second": 1,
    "staff_requests_burst": 6,
}


def limits(clock: Callable[[], float], **given: float) -> RateLimits:
    settings = Settings(**{**FEW, **given})  # type: ignore[arg-type]
    return RateLimits(settings, Proxies(networks_of("127.0.0.1")), clock)


def passed(ask: Callable[[], None], most: int = 100) -> int:
    """How often one may ask at once."""
    for n in range(most):
        try:
            ask()
        except Problem as problem:
            assert problem.code == Fault.TOO_MANY_REQUESTS
            assert problem.status == 429
            assert problem.members["retry_after"] == 1
            headers, _ = problem.rendered("en", None)  # type: ignore[arg-type]
            assert headers["Retry-After"] == "1"
            return n
    return most


def by(all_: RateLimits, peer: str, headers: Mapping[str, str], sign_in: bool = False) -> Callable[[], None]:
    return lambda: all_.count_sender(peer, HEADERS(headers), sign_in)


def test_each_kind_has_its_own_bucket() -> None:
    all_ = limits(Clock())
    staff = Staff(uuid4().bytes, "u", "n", frozenset(), None, None, Channel.WINDOW)
    account = uuid4().bytes
    assert passed(by(all_, "203.0.113.1", {})) == 10
    assert passed(by(all_, "203.0.113.2", {}, sign_in=True)) == 3
    assert passed(by(all_, "203.0.113.2", {})) == 6  # sign-ins are requests as well: ten less four
    assert passed(by(all_, "203.0.113.3", {DEVICE: "device-of-mine"})) == 5
    assert passed(by(all_, "203.0.113.4", {DEVICE: "device-of-mine"})) == 0  # the same one, elsewhere
    assert passed(lambda: all_.count_account(account)) == 4
    assert passed(lambda: all_.count_staff(staff)) == 6


def test_a_spoofed_address_is_no_other_address() -> None:
    all_ = limits(Clock())
    lies = iter(range(1_000_000))
    straight = lambda: all_.count_sender("203.0.113.1", HEADERS({"X-Forwarded-For": f"1.1.1.{next(lies)}"}))  # noqa: E731
    assert passed(straight) == 10
    behind = lambda: all_.count_sender(  # noqa: E731
        "127.0.0.1", HEADERS({"X-Forwarded-For": f"1.1.1.{next(lies)}, 203.0.113.9"})
    )
    assert passed(behind) == 10


def test_clients_behind_one_proxy_are_different_clients() -> None:
    all_ = limits(Clock())
    assert passed(by(all_, "127.0.0.1", {"X-Forwarded-For": "203.0.113.1"})) == 10
    assert passed(by(all_, "127.0.0.1", {"X-Forwarded-For": "203.0.113.2"})) == 10
    assert passed(by(all_, "127.0.0.1", {})) == 100  # the machine itself


@pytest.mark.parametrize("device", ["", "short", "x" * 65])
def test_what_is_no_device_is_not_counted(device: str) -> None:
    all_ = limits(Clock())
    assert passed(by(all_, "203.0.113.1", {DEVICE: device})) == 10


def test_after_the_time_that_was_told_there_is_one_more() -> None:
    clock = Clock()
    all_ = limits(clock)
    ask = by(all_, "203.0.113.1", {})
    assert passed(ask) == 10
    clock.now += 1
    assert passed(ask) == 1
    clock.now += 1_000
    assert passed(ask) == 10


def test_ten_thousand_clients_are_ten_thousand_buckets() -> None:
    all_ = limits(Clock())
    addresses = [f"10.{n >> 8}.{n & 255}.1" for n in range(10_000)]
    for _ in range(10):
        for address in addresses:
            all_.count_sender(address, HEADERS())
    assert all(passed(by(all_, address, {}), 1) == 0 for address in addresses[::100])
