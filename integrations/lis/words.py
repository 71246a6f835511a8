"""A laboratory's words in ours: HL7's tables and FHIR's value sets, which are both read here. Pure.

What is not in a table stays as it came: the intake's rules refuse it there, with the list of what they know.
"""

from typing import Final

from engine.records.identity import IdType

STATUSES: Final = {
    # HL7 table 0123 (OBR-25): a report that has no result yet is not one.
    "P": "preliminary",
    "A": "preliminary",  # some results
    "R": "preliminary",  # not verified
    "F": "final",
    "C": "corrected",
    "M": "corrected",
    "X": "cancelled",
    # FHIR DiagnosticReport.status
    "registered": "preliminary",
    "partial": "preliminary",
    "preliminary": "preliminary",
    "final": "final",
    "amended": "corrected",
    "corrected": "corrected",
    "appended": "corrected",
    "cancelled": "cancelled",
    "entered-in-error": "cancelled",
}
FLAGS: Final = {
    # HL7 table 0078, which FHIR's ObservationInterpretation has grown from, and the arrows of vendors here
    "L": "low",
    "H": "high",
    "LL": "critical_low",
    "HH": "critical_high",
    "<": "critical_low",
    ">": "critical_high",
    "LU": "critical_low",
    "HU": "critical_high",
    "A": "abnormal",
    "AA": "critical",
    "N": "normal",
    "POS": "abnormal",
    "NEG": "normal",
    "↑": "high",
    "↓": "low",
    "↑↑": "critical_high",
    "↓↓": "critical_low",
}
SEXES: Final = {"M": "male", "F": "female", "1": "male", "2": "female", "男": "male", "女": "female"}
UNSAID_SEXES: Final = frozenset({"", "U", "O", "0", "9", "unknown", "other", "未知"})
DOCUMENT_TYPES: Final = {
    # HL7 table 0203, and its words for papers of this country
    "NI": IdType.RESIDENT_ID,
    "NNCHN": IdType.RESIDENT_ID,
    "SFZ": IdType.RESIDENT_ID,
    "PPN": IdType.PASSPORT,
}
DOCUMENT_SYSTEMS: Final = {
    "urn:oid:2.16.156.10011.1.3": IdType.RESIDENT_ID,  # 居民身份证号码, WS 365
    "http://hl7.org/fhir/sid/passport-CHN": IdType.PASSPORT,
}
MEDIA_TYPES: Final = {
    # OBX-5.2 and OBX-5.3 of an encapsulated document
    "PDF": "application/pdf",
    "JPEG": "image/jpeg",
    "JPG": "image/jpeg",
    "PNG": "image/png",
    "TEXT": "text/plain",
    "TXT": "text/plain",
}
ATTACHMENT_BYTES_MAX: Final = 4 * 1024 * 1024


def document(id_type: IdType) -> str:
    """As engine/domain/reports.py names a document among a patient's numbers."""
    return f"id:{id_type.value}"
