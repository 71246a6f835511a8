"""What a process counts. Prometheus' own client; a gateway merges what its peers and the shards counted."""

import asyncio
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)

LAG_SECONDS = 0.1


class ShardMetrics:
    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.commands = Counter("xinglin_commands", "Commands by outcome", ["command", "outcome"], registry=r)
        self.batch = Histogram(
            "xinglin_batch_commands", "Commands in one message from a gateway", registry=r, buckets=_COUNTS
        )
        self.flush_entries = Histogram(
            "xinglin_flush_entries", "Events in one transaction", registry=r, buckets=_COUNTS
        )
        self.flush_seconds = Histogram(
            "xinglin_flush_seconds",
            "From the first byte of a transaction to its commit",
            registry=r,
            buckets=_SECONDS,
        )
        self.mailbox_seconds = Histogram(
            "xinglin_mailbox_wait_seconds", "From a message's arrival to decide", registry=r, buckets=_SECONDS
        )
        self.mailbox = Gauge("xinglin_mailbox_commands", "Commands that wait at the shard", registry=r)
        self.hosts = Gauge("xinglin_actors", "Schedules alive in memory", registry=r)
        self.conservation_error = Gauge(
            "xinglin_conservation_error", "Seats in no state or in two; must read 0", registry=r
        )
        self.lost_claims = Counter(
            "xinglin_lost_claims", "Numbers taken back because their claim went to somebody else", registry=r
        )
        self.fenced = Gauge(
            "xinglin_fenced_writers", "Zombies of this shard that were kept from writing", registry=r
        )
        self.epoch = Gauge("xinglin_shard_epoch", "The epoch at which this shard writes", registry=r)
        self.lag = loop_lag(r)


class GatewayMetrics:
    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.requests = Counter("xinglin_http_requests", "Requests", ["route", "status"], registry=r)
        self.seconds = Histogram(
            "xinglin_http_seconds",
            "From a request's head to its answer",
            ["route"],
            registry=r,
            buckets=_SECONDS,
        )
        self.bookings = Counter("xinglin_bookings", "Bookings by outcome", ["outcome"], registry=r)
        self.held = self.bookings.labels("held")
        self.shed = Counter(
            "xinglin_shed", "Bookings refused at once because too many were under way", registry=r
        )
        self.shed_besides = Counter(
            "xinglin_shed_besides", "The same, of payments and of patients' requests", ["lane"], registry=r
        )
        self.admitted_besides = Gauge(
            "xinglin_admitted_besides", "Payments and patients' requests under way", ["lane"], registry=r
        )
        self.reused_tokens = Counter(
            "xinglin_refresh_tokens_reused",
            "Sessions ended because a refresh token was shown twice",
            registry=r,
        )
        self.admitted = Gauge("xinglin_admitted", "Bookings under way", registry=r)
        self.break_glass = Counter(
            "xinglin_break_glass", "Records opened without a relation, by kind", ["kind"], registry=r
        )
        self.payments = Counter(
            "xinglin_payments", "What became of asking payment providers", ["provider", "outcome"], registry=r
        )
        self.callbacks = Counter(
            "xinglin_payment_callbacks", "Callbacks by outcome", ["provider", "outcome"], registry=r
        )
        self.paid_to_booked = Histogram(
            "xinglin_paid_to_booked_seconds",
            "From the commit of a payment to its number's",
            registry=r,
            buckets=(*_SECONDS, 15.0, 60.0, 300.0),
        )
        self.money_open = Gauge(
            "xinglin_money_open_fen",
            "Fen that lie in suspense, or are owed back and not given back yet",
            ["what"],
            registry=r,
        )
        self.payments_unknown = Gauge(
            "xinglin_payments_unknown", "Payments and refunds whose outcome nobody knows yet", registry=r
        )
        self._counted: dict[tuple[str, int], Counter] = {}
        self.feed_resets = Counter(
            "xinglin_feed_snapshots", "Times all free seats were read anew", registry=r
        )
        self.lag = loop_lag(r)

    def count(self, route: str, status: int) -> None:
        """One request; finding a labelled counter costs more than counting, so it is kept."""
        counter = self._counted.get((route, status))
        if counter is None:
            counter = self._counted[route, status] = self.requests.labels(route, status)
        counter.inc()


def loop_lag(registry: CollectorRegistry) -> Histogram:
    return Histogram(
        "xinglin_loop_lag_seconds", "How late the event loop woke", registry=registry, buckets=_SECONDS
    )


async def watch_lag(lag: Histogram, also: Callable[[float], None] | None = None) -> None:
    """For ever. `also` is told each measurement, in seconds."""
    while True:
        due = time.perf_counter() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        late = max(0.0, time.perf_counter() - due)
        lag.observe(late)
        if also is not None:
            also(late)


def samples(registry: CollectorRegistry, process: str) -> list[Metric]:
    """What this process counted, each sample marked with its name: fit to be sent to another process."""
    metrics = []
    for metric in registry.collect():
        marked = Metric(metric.name, metric.documentation, metric.type)
        for sample in metric.samples:
            marked.add_sample(
                sample.name, {**sample.labels, "process": process}, sample.value, sample.timestamp
            )
        metrics.append(marked)
    return metrics


def exposition(collected: Iterable[Metric]) -> bytes:
    """One text for all processes: a metric's samples must stand together, under one heading."""
    merged: dict[str, Metric] = {}
    for metric in collected:
        first = merged.setdefault(metric.name, metric)
        if first is not metric:
            first.samples.extend(metric.samples)

    class All:
        def collect(self) -> Iterable[Metric]:
            return merged.values()

    registry = CollectorRegistry()
    registry.register(All())
    return generate_latest(registry)
