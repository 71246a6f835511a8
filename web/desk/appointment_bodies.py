"""What the desk says and hears about numbers. Texts are Chinese / English."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from web.patient.bodies import ChannelWord, Id, PersonBody, Request, StatusWord, Word

Note = Annotated[
    str, Field(min_length=1, max_length=500, description="原因，记入历史 / why; kept in the history")
]


class RegistrationBody(Request):
    slot_id: Annotated[Word, Field(description="就诊时段编号 / the slot")]
    patient: PersonBody
    visit: Annotated[
        Literal["first", "follow_up"], Field(description="初诊或复诊 / a first visit, or a follow-up")
    ] = "first"


class AttendanceBody(Request):
    status: Annotated[
        Literal["arrived", "fulfilled", "noshow", "booked"],
        Field(description="到诊、就诊完成、爽约、撤回 / came, was seen, did not come, or not after all"),
    ]


class CancelBody(Request):
    note: Note


class StaffChangeBody(Request):
    slot_id: Annotated[Word, Field(description="改到的时段 / the slot to change to")]


@dataclass(frozen=True, slots=True)
class RegisteredAnswer:
    id: Id
    status: StatusWord
    number: Annotated[int, Field(description="序号 / the number")]
    slot_id: str
    patient_id: Id
    channel: ChannelWord
    fee: Annotated[int, Field(description="窗口收取，分 / fen, to be paid there")]
