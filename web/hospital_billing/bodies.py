"""What patients are told of bills at the hospital's billing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

KindWord = Literal["drug", "examination"]


@dataclass(frozen=True, slots=True)
class OutstandingLine:
    line: str
    kind: KindWord
    code: str  # of the hospital's catalog
    name: str
    quantity: int
    fen: int


@dataclass(frozen=True, slots=True)
class OutstandingBill:
    id: str  # to be paid with POST /api/v1/bills/{id}/payments
    number: str  # the hospital's
    status: str  # open | at_hospital
    fen: int
    pay_by: datetime | None
    lines: list[OutstandingLine]


@dataclass(frozen=True, slots=True)
class OutstandingAnswer:
    bills: list[OutstandingBill]
    withheld: int  # bills that do not add up: to be asked about at a window


@dataclass(frozen=True, slots=True)
class CallTaken:
    """To the billing: what it asked for is in the books."""

    version: int
    state: Literal["requested", "noted"]
