"""How a public event is spelled: CloudEvents 1.0 in JSON, with a JSON Schema for each type."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

import orjson

from web.events.vocabulary import TYPES, VERSION, EventType, PublicEvent

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
BATCH_TYPE: Final = "application/cloudevents-batch+json"


def schema_id(type_: str, version: int = VERSION) -> str:
    return f"urn:xinglin:event:{type_}:{version}"


def cloud_event(event: PublicEvent, source: str) -> dict[str, Any]:
    """`sequence` and `partitionkey` are extensions that CloudEvents knows: in order within a partition."""
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": event.type,
        "subject": event.subject,
        "time": event.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "dataschema": schema_id(event.type),
        "partitionkey": event.stream,
        "sequence": f"{event.seq:020}",
        "data": event.data,
    }


def encoded(event: PublicEvent, source: str) -> bytes:
    """The same bytes for the same event, whenever."""
    return orjson.dumps(cloud_event(event, source))


def schema_of(type_: str) -> dict[str, Any]:
    """JSON Schema of a type's data. More fields may come; those that are required stay."""
    found: EventType = TYPES[type_]
    properties: Mapping[str, Any] = {**found.fields, **found.may}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": schema_id(type_),
        "title": f"{found.zh} / {found.en}",
        "type": "object",
        "properties": dict(properties),
        "required": sorted(found.fields),
    }
