"""The parts of Xinglin that can be started apart (docs/SERVICES.md), and how an operator names them."""

from enum import StrEnum
from typing import Final


class Service(StrEnum):
    BOOKING = "booking"
    """Owns the actors and the schema. Patients, desks, queues."""
    PAYMENT = "payment"
    """Bills, providers' calls, cashiers, reconciliation."""
    REPORTS = "reports"
    """What is read and not booked: records, results, exports, indicators, the audit."""
    INTEGRATION = "integration"
    """The hospital's other systems, and partners."""


ALL: Final = frozenset(Service)


def services_of(named: str) -> frozenset[Service]:
    """Names between commas; none at all means everything. Raises ValueError that says which one is wrong."""
    names = [name.strip() for name in named.split(",")]
    if names == [""]:
        return ALL
    known = ", ".join(Service)
    for name in names:
        if name not in set(Service):
            raise ValueError(f"{name!r} is none of the services {known}")
    if len(set(names)) != len(names):
        raise ValueError("a service is named twice")
    return frozenset(map(Service, names))


def names_of(services: frozenset[Service]) -> list[str]:
    """In the order in which they are told everywhere."""
    return [str(service) for service in Service if service in services]
