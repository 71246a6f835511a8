"""Where laboratories deliver their reports by HL7 v2."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LisAt:
    """What we listen at. `peers`: addresses or CIDRs from which reports are taken; empty: from this machine
    alone."""

    host: str
    port: int
    peers: str = ""
    charset: str = "utf-8"  # of a message whose MSH-18 names none
    sandbox: str = ""
    """Of a demo: where its laboratory takes orders, http://…"""
