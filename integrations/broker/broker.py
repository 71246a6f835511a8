"""Where the broker is. Apart from the client, so that whoever only hands it on loads no AMQP."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Broker:
    url: str = field(repr=False)  # with the password in it
    exchange: str
    is_mandatory: bool = False  # an event that no queue takes is not taken by the broker either
    ca_file: Path | None = None
