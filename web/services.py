"""Which service does what: routes, errands, rounds, and processes beside other systems (docs/SERVICES.md).

Each belongs to exactly one, and whatever is new needs its line here: tests/unit/test_services.py looks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from actors.rounds import LOCK_NAME, Round
from engine.services import ALL, Service

T = TypeVar("T")

EVERYWHERE: Final = frozenset({"sessions"})
"""Tags of what each service does by itself: whoever is asked anything must know who asks."""

_TAGS: Final[Mapping[str, Service]] = {
    "patients": Service.BOOKING,
    "catalog": Service.BOOKING,
    "appointments": Service.BOOKING,
    "waitlist": Service.BOOKING,
    "queues": Service.BOOKING,
    "conduct": Service.BOOKING,
    "desk": Service.BOOKING,
    "privacy": Service.BOOKING,
    "admin": Service.BOOKING,
    "bills": Service.PAYMENT,
    "callbacks": Service.PAYMENT,
    "cashier": Service.PAYMENT,
    "records": Service.REPORTS,
    "audit": Service.REPORTS,
    "results": Service.REPORTS,
    "imaging": Service.REPORTS,
    "encounters": Service.REPORTS,
    "integration": Service.INTEGRATION,
    "partner": Service.INTEGRATION,
    "fhir": Service.INTEGRATION,
    "events": Service.INTEGRATION,
}

_HANDLERS: Final[Mapping[str, Service]] = {
    "export_account": Service.REPORTS,
    "export_account_page": Service.REPORTS,
    "list_accesses": Service.REPORTS,
    "read_indicators": Service.REPORTS,
}
"""Those that their tag would put elsewhere."""

_ERRANDS: Final[Mapping[str, Service]] = {
    "rehome": Service.BOOKING,
    "change_ended": Service.BOOKING,
    "join_wish": Service.BOOKING,
    "wish_ended": Service.BOOKING,
    "match_wishes": Service.BOOKING,
    "attendance": Service.BOOKING,
    "leave_ticket": Service.BOOKING,
    "bill": Service.PAYMENT,
    "bill_seat": Service.PAYMENT,
    "bill_query": Service.PAYMENT,
    "reconcile": Service.PAYMENT,
    "hospital_billing": Service.PAYMENT,
    "hospital_look": Service.PAYMENT,
}

_ROUNDS: Final[Mapping[str, Service]] = {
    "arrivals": Service.BOOKING,
    "no shows": Service.BOOKING,
    "no-show model": Service.BOOKING,
    "real names": Service.BOOKING,
    "unconfirmed": Service.BOOKING,
    "conduct": Service.BOOKING,
    "old keys": Service.BOOKING,
    "notices": Service.BOOKING,
    "wishes": Service.BOOKING,
    "consents": Service.BOOKING,
    "retention": Service.BOOKING,
    "waiting times": Service.BOOKING,
    "open money": Service.PAYMENT,
    "reconciliation": Service.PAYMENT,
    "indicators": Service.REPORTS,
    "intake": Service.INTEGRATION,
}

_SYSTEMS: Final[Mapping[str, Service]] = {
    "his": Service.INTEGRATION,
    "lis": Service.INTEGRATION,
    "pacs": Service.INTEGRATION,
    "emr": Service.INTEGRATION,
    "broker": Service.INTEGRATION,
    "webhooks": Service.INTEGRATION,
    "indicators": Service.REPORTS,
}


def of_route(handler: str, tags: Sequence[str]) -> Service | None:
    """By the handler's name and the first of its tags. None: it is everywhere.

    Raises LookupError for one that nobody has given to a service.
    """
    if handler in _HANDLERS:
        return _HANDLERS[handler]
    tag = tags[0] if tags else ""
    return None if tag in EVERYWHERE else _known(_TAGS, tag, f"route {handler} with the tag")


def is_of_one(handler: str, tags: Sequence[str]) -> bool:
    """Whether a server of other services would not do it."""
    return handler in _HANDLERS or (bool(tags) and tags[0] in _TAGS)


def of_errand(kind: str) -> Service:
    """Raises LookupError, as below."""
    return _known(_ERRANDS, kind, "errand")


def of_round(name: str) -> Service:
    return _known(_ROUNDS, name, "round")


def of_system(name: str) -> Service:
    return _known(_SYSTEMS, name, "system")


def errands_of(handlers: Mapping[str, T], services: frozenset[Service]) -> dict[str, T]:
    """Those that are done by these services."""
    if services == ALL:
        return dict(handlers)
    return {kind: handle for kind, handle in handlers.items() if of_errand(kind) in services}


def rounds_of(rounds: Sequence[Round], services: frozenset[Service]) -> list[tuple[str, list[Round]]]:
    """The rounds of these services, and the lock that whoever does them holds: one for all where all is done
    together, else one a service."""
    if services == ALL:
        return [(LOCK_NAME, list(rounds))]
    found = [(s, [one for one in rounds if of_round(one.name) == s]) for s in sorted(services)]
    return [(f"{LOCK_NAME}.{service}", ours) for service, ours in found if ours]


def systems_of(names: Iterable[str], services: frozenset[Service]) -> list[str]:
    """Those that these services run."""
    if services == ALL:
        return list(names)
    return [name for name in names if of_system(name) in services]


def _known(table: Mapping[str, Service], name: str, what: str) -> Service:
    if name not in table:
        raise LookupError(f"the {what} {name!r} belongs to no service: web/services.py")
    return table[name]
