"""The words of HL7 v2 that the form and the listener share: statuses, periods, papers. Pure."""

from typing import Final

from integrations.his.his import Kind, Status

TRIGGERS: Final = {
    Kind.BOOKED: ("SIU", "S12"),
    Kind.RESCHEDULED: ("SIU", "S13"),
    Kind.CHANGED: ("SIU", "S14"),
    Kind.CANCELLED: ("SIU", "S15"),
    Kind.ARRIVED: ("ADT", "A04"),
    Kind.FULFILLED: ("SIU", "S14"),
    Kind.NO_SHOW: ("SIU", "S26"),
}

FILLER: Final = {
    Status.LOCKED: "Pending",
    Status.BOOKED: "Booked",
    Status.ARRIVED: "Started",
    Status.FULFILLED: "Complete",
    Status.NO_SHOW: "Noshow",
    Status.CANCELLED: "Cancelled",
}
"""SCH-25, HL7 table 0278."""
STATUSES: Final = {word.upper(): status for status, word in FILLER.items()} | {
    "DELETED": Status.CANCELLED,
    "DC": Status.CANCELLED,
    "OVERBOOK": Status.BOOKED,
    "ARRIVED": Status.ARRIVED,
    "NO SHOW": Status.NO_SHOW,
}
OF_TRIGGER: Final = {
    "S12": Status.BOOKED,
    "S13": Status.BOOKED,
    "S14": Status.BOOKED,
    "S15": Status.CANCELLED,
    "S16": Status.CANCELLED,
    "S17": Status.CANCELLED,
    "S26": Status.NO_SHOW,
}
"""Where SCH-25 is empty."""

OF_KIND: Final = {
    Kind.BOOKED: Status.BOOKED,
    Kind.RESCHEDULED: Status.BOOKED,
    Kind.CHANGED: Status.BOOKED,
    Kind.CANCELLED: Status.CANCELLED,
    Kind.ARRIVED: Status.ARRIVED,
    Kind.FULFILLED: Status.FULFILLED,
    Kind.NO_SHOW: Status.NO_SHOW,
}

PAPERS: Final = {
    "resident_id": "NNCHN",
    "passport": "PPN",
    "hk_macau_permit": "HKM",
    "taiwan_permit": "TWN",
    "foreign_permanent": "PRC",
}
"""PID-3.5, HL7 table 0203 where it has one: a resident's number is the national number of China."""
OF_PAPER: Final = {code: id_type for id_type, code in PAPERS.items()} | {"NI": "resident_id"}
OURS: Final = "XINGLIN"
"""Assigning authority of our own ids."""
THEIR_NUMBER: Final = ("MR", "PI", "PT", "")
"""PID-3.5 of their own patient number."""

SEX: Final = {"male": "M", "female": "F"}
OF_SEX: Final = {"M": "male", "F": "female"}

PERIODS: Final = ("morning", "afternoon", "night")
NUMBER: Final = "ZXL"
"""Ours: 1 queue number, 2 session, 3 fee in fen, 4 channel, 5 our schedule, 6 capacity of the session."""
