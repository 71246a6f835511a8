"""What partners send: JSON that says it is a certain resource, read strictly and place by place.

Elements that FHIR has and we do not use are passed over; elements that FHIR does not have, wrong types and
modifier extensions (which would change what all the rest means) are refused with their place.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from aiohttp.helpers import parse_content_type

from engine.domain.limits import BODY_BYTES_MAX
from web.errors import Entry, Problem
from web.faults import Fault
from web.openapi import check_json
from web.partner.fhir.names import MEDIA, reference_of

_ANY_RESOURCE: Final = {
    "resourceType",
    "id",
    "meta",
    "implicitRules",
    "language",
    "text",
    "contained",
    "extension",
}
_ELEMENTS: Final[dict[str, frozenset[str]]] = {
    "Appointment": frozenset(
        (
            *_ANY_RESOURCE,
            *("identifier", "status", "cancelationReason", "serviceCategory", "serviceType", "specialty"),
            *("appointmentType", "reasonCode", "reasonReference", "priority", "description"),
            *("supportingInformation", "start", "end", "minutesDuration", "slot", "created", "comment"),
            *("patientInstruction", "basedOn", "participant", "requestedPeriod"),
        )
    ),
    "Patient": frozenset(
        (
            *_ANY_RESOURCE,
            *("identifier", "active", "name", "telecom", "gender", "birthDate", "deceasedBoolean"),
            *("deceasedDateTime", "address", "maritalStatus", "multipleBirthBoolean"),
            *("multipleBirthInteger", "photo", "contact", "communication", "generalPractitioner"),
            *("managingOrganization", "link"),
        )
    ),
    "Slot": frozenset(
        (
            *_ANY_RESOURCE,
            *("identifier", "serviceCategory", "serviceType", "specialty", "appointmentType", "schedule"),
            *("status", "start", "end", "overbooked", "comment"),
        )
    ),
    "Parameters": frozenset(("resourceType", "id", "meta", "implicitRules", "language", "parameter")),
}
TEXT_CHARS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Part:
    """An object somewhere in a resource, and where."""

    value: dict[str, Any]
    at: tuple[str | int, ...]

    def wrong(self, name: str | int, code: str, **words: object) -> Problem:
        return Problem(Fault.INVALID_RESOURCE, errors=[Entry([*self.at, name], code, words)])

    def has(self, name: str) -> bool:
        return self.value.get(name) is not None

    def text(self, name: str, most: int = TEXT_CHARS_MAX) -> str | None:
        """None: it is not there."""
        found = self.value.get(name)
        if found is None:
            return None
        if not isinstance(found, str):
            raise self.wrong(name, "string_type")
        if not found.strip():
            raise self.wrong(name, "string_too_short", min_length=1)
        if len(found) > most:
            raise self.wrong(name, "string_too_long", max_length=most)
        return found

    def code(self, name: str, known: Sequence[str]) -> str | None:
        found = self.text(name)
        if found is not None and found not in known:
            raise self.wrong(name, "literal_error", expected=", ".join(known))
        return found

    def child(self, name: str) -> "Part | None":
        found = self.value.get(name)
        if found is None:
            return None
        if not isinstance(found, dict):
            raise self.wrong(name, "dict_type")
        return _plain(Part(found, (*self.at, name)))

    def children(self, name: str, most: int = 50) -> "list[Part]":
        found = self.value.get(name)
        if found is None:
            return []
        if not isinstance(found, list):
            raise self.wrong(name, "list_type")
        if len(found) > most:
            raise self.wrong(name, "too_many", limit=most)
        for n, one in enumerate(found):
            if not isinstance(one, dict):
                raise Part(self.value, (*self.at, name)).wrong(n, "dict_type")
        return [_plain(Part(one, (*self.at, name, n))) for n, one in enumerate(found)]

    def reference(self, name: str, kind: str) -> str | None:
        """The id of what a Reference refers to, as FHIR spells it; it must be a `kind` of this server."""
        child = self.child(name)
        if child is None:
            return None
        said = child.text("reference")
        if said is None:
            raise child.wrong("reference", "missing")
        return child.referred("reference", said, kind)

    def referred(self, name: str, said: str, kind: str) -> str:
        found = reference_of(said)
        if found is None or found[0] != kind:
            raise self.wrong(name, "reference", kind=kind)
        return found[1]


def _plain(part: Part) -> Part:
    if part.has("modifierExtension"):
        raise part.wrong("modifierExtension", "modifier")
    return part


def resource_of(value: Any, at: tuple[str | int, ...], kinds: Iterable[str]) -> Part:
    """Raises Problem unless it is one of these resources and has only elements that such have."""
    part = Part({}, at)
    if not isinstance(value, dict):
        raise part.wrong("resourceType", "dict_type")
    known = list(kinds)
    kind = value.get("resourceType")
    if kind not in known:
        raise part.wrong("resourceType", "literal_error", expected=", ".join(known))
    found = _plain(Part(value, at if at else (str(kind),)))
    for name in value:
        # "_birthDate" has extensions of "birthDate", which mean nothing here.
        if name.removeprefix("_") not in _ELEMENTS[str(kind)]:
            raise found.wrong(name[:64], "extra_forbidden")
    return found


async def body_of(request: web.Request, *kinds: str) -> Part:
    """The body as one of these resources. Raises Problem."""
    kind, parameters = parse_content_type(request.headers.get(hdrs.CONTENT_TYPE, ""))
    charset = parameters.get("charset", "utf-8").lower()
    if kind not in (MEDIA, "application/json") or charset not in ("utf-8", "utf8"):
        raise Problem(Fault.UNSUPPORTED_MEDIA_TYPE)
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise Problem(Fault.BODY_TOO_LARGE, limit=BODY_BYTES_MAX)
    raw = await request.read()
    check_json(raw)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:  # a lone surrogate, which Python's own parser lets pass
        raise Problem(Fault.MALFORMED_JSON) from None
    return resource_of(value, (), kinds)


_PARAMETER: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,39}")


def parameters_of(part: Part, known: Sequence[str]) -> dict[str, Part]:
    """The parameters of a Parameters resource by name. Raises Problem for one that is unknown or repeated."""
    found: dict[str, Part] = {}
    for one in part.children("parameter"):
        name = one.text("name", 40)
        if name is None:
            raise one.wrong("name", "missing")
        if name not in known or _PARAMETER.fullmatch(name) is None:
            raise one.wrong("name", "literal_error", expected=", ".join(known))
        if name in found:
            raise one.wrong("name", "repeated")
        values = [key for key in one.value if key.startswith("value") or key == "resource"]
        if len(values) != 1:
            raise one.wrong("value[x]", "missing")
        found[name] = one
    return found


def said(parameter: Part, *kinds: str) -> str | None:
    """What a parameter says as text: value<Kind> for one of `kinds`. None: it has a value of another kind."""
    for kind in kinds:
        if parameter.has(f"value{kind}"):
            return parameter.text(f"value{kind}")
    return None
