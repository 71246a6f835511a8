"""Where a hospital's HIS is, in which form it speaks, and who makes the connector."""

from dataclasses import dataclass, field
from typing import Literal
from zoneinfo import ZoneInfo

import aiohttp

from integrations.his.his import His


@dataclass(frozen=True, slots=True)
class HisAt:
    """What an operator sets. Travels to other processes; shown without its secrets.

    `us` and `them`: application and facility, in HL7's words; a message for another pair is refused.
    `identifiers`: of FHIR, below which our ids are identifiers of theirs.
    """

    form: Literal["hl7v2", "fhir", "rest"]
    address: str = ""  # https://… of rest; of fhir its base
    host: str = ""  # of hl7v2
    port: int = 0
    zone: str = "Asia/Shanghai"
    seconds_max: float = 5.0
    app_id: str = "xinglin"
    secret: bytes = field(default=b"", repr=False)  # of rest
    token: str = field(default="", repr=False)  # of fhir, a bearer's
    identifiers: str = "urn:xinglin"
    us: tuple[str, str] = ("XINGLIN", "XINGLIN")
    them: tuple[str, str] = ("HIS", "HIS")
    version: str = "2.5.1"
    charset: Literal["utf-8", "gb18030"] = "utf-8"
    is_enhanced: bool = False
    connections: int = 4
    is_tls: bool = False
    listen_host: str = "127.0.0.1"
    listen_port: int = 0  # 0: nothing is listened to
    listen_peers: tuple[str, ...] = ()  # networks; empty: whoever reaches the port

    @property
    def zone_info(self) -> ZoneInfo:
        return ZoneInfo(self.zone)


def make(at: HisAt, session: aiohttp.ClientSession) -> His:
    """`close()` it at the end; the session is its owner's. Each form is loaded when it is used."""
    match at.form:
        case "hl7v2":
            from integrations.his.hl7v2_form import Hl7His

            return Hl7His(at)
        case "fhir":
            from integrations.his.fhir_form import FhirHis

            return FhirHis(at, session)
        case "rest":
            from integrations.his.rest_form import RestHis

            return RestHis(at, session)
