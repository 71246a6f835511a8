"""How things are called in our FHIR R4 face: paths, systems of codes, extensions, and ids.

FHIR ids have letters, digits, '-' and '.' alone; ours may have '_', which is told as '--' (no id of ours has
two hyphens together, so it comes back as it was).
"""

import re
from typing import Final

BASE: Final = "/fhir/r4"
MEDIA: Final = "application/fhir+json"
VERSION: Final = "4.0.1"

_OURS: Final = "urn:xinglin:fhir:"
# Systems of codes and identifiers.
DEPARTMENT: Final = f"{_OURS}department"
TITLE: Final = f"{_OURS}title"
NUMBER_CLASS: Final = f"{_OURS}number-class"
PERIOD: Final = f"{_OURS}period"
PROBLEM: Final = f"{_OURS}problem"
CANCELLED_BY: Final = f"{_OURS}cancelled"
PATIENT_ID: Final = f"{_OURS}patient"
PRACTITIONER_ID: Final = f"{_OURS}practitioner"
APPOINTMENT_ID: Final = f"{_OURS}appointment"
DOCUMENT: Final = f"{_OURS}document:"
"""And behind it the kind of document: urn:xinglin:fhir:document:passport."""
RESIDENT_OID: Final = "urn:oid:2.16.156.10011.1.3"
"""Residents' numbers as the ministry's shared documents call them (WS/T 500); means the same as ours."""

# Extensions.
REMAINING: Final = f"{_OURS}remaining"  # integer: free numbers of a slot that this partner could book now
CAPACITY: Final = f"{_OURS}capacity"  # integer: all that are open to it
OPENS_AT: Final = f"{_OURS}opens-at"  # instant: when more open to it
FEE: Final = f"{_OURS}fee"  # Money
NUMBER: Final = f"{_OURS}number"  # integer: 序号
HELD_UNTIL: Final = f"{_OURS}held-until"  # instant: a pending number ends then by itself
REPLACES: Final = f"{_OURS}replaces"  # Reference(Appointment)
REPLACED_BY: Final = f"{_OURS}replaced-by"
ALTERNATIVE: Final = f"{_OURS}alternative"  # Reference(Slot), best first
ABSENT: Final = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
OPERATION: Final = f"{_OURS}operation:"

ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_REFERENCE: Final = re.compile(
    r"(?:https?://[^?#\s]{1,200}/fhir/r4/)?([A-Z][A-Za-z]{1,40})/([A-Za-z0-9\-.]{1,64})(?:/_history/[\w.\-]{1,64})?"
)


def fhir_id(ours: str) -> str:
    return ours.replace("_", "--")


def our_id(told: str) -> str:
    return told.replace("--", "_")


def reference_of(text: str) -> tuple[str, str] | None:
    """The type and the id (as FHIR spells it) of a reference into this server; None: it is none."""
    found = _REFERENCE.fullmatch(text)
    return None if found is None else (found[1], found[2])
