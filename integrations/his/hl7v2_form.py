"""The HIS by HL7 v2 over MLLP. docs/HL7.md has the messages.

    booked, rescheduled, changed, cancelled, no-show    SIU^S12 S13 S14 S15 S26; fulfilled S14 "Complete"
    arrived                                             ADT^A04
    lock, unlock                                        SRM^S01, SRM^S04
    find, registrations                                 SQM^S25, in parts by DSC
    patient                                             QBP^Q22

MSH-10 is our message's id, so a receiver knows a repeated message; it is the same at each try. AE and AR are
Refused with ERR-5, ERR-3 or the code itself; but TryAgain where they say that it is their own trouble.
Departments, practitioners and schedules come by themselves in HL7 (MFN, SIU); nothing asks for them.
"""

import re
import secrets
import ssl
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.his import hl7_words as words
from integrations.his.his import (
    Booking,
    Day,
    Department,
    Kind,
    Locked,
    Person,
    Practitioner,
    Registration,
)
from integrations.his.his_at import HisAt
from integrations.his.hl7_codes import NUMBER, OURS, PAPERS, TRIGGERS
from integrations.hl7v2.client import Client, Peer
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Header, Message, Row, compose
from integrations.hl7v2.times import stamp

PARTS_MAX: Final = 100
PART_ROWS: Final = 200
_TRANSIENT: Final = frozenset({"206", "207"})  # locked record, internal error
_DUPLICATE: Final = "205"
_STRUCTURES: Final = {"SIU": "SIU_S12", "ADT": "ADT_A01"}
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


class Hl7His:
    """A connector of his.py's protocol."""

    def __init__(self, at: HisAt) -> None:
        self._at = at
        self._zone = at.zone_info
        context = ssl.create_default_context() if at.is_tls else None
        self._client = Client(
            Peer(at.host, at.port, at.connections, at.seconds_max, default=at.charset, ssl=context)
        )

    async def tell(
        self,
        message_id: str,
        kind: Kind,
        booking: Booking,
        *,
        before: Booking | None = None,
        reason: str = "",
    ) -> str:
        """Their id where the answer has one in SCH-2; HL7's own acknowledgement has none: ""."""
        if kind is Kind.ARRIVED:
            rows = words.arrival_rows(booking, datetime.now(self._zone))
        else:
            rows = words.schedule_rows(kind, booking, before, reason)
        name, trigger = TRIGGERS[kind]
        try:
            answer = await self._sent((name, trigger, _STRUCTURES[name]), rows, message_id)
            _accept(answer)
        except Refused as refused:
            if refused.code != _DUPLICATE:
                raise
            return ""  # they have it
        sch = answer.find("SCH")
        try:
            return "" if sch is None else sch.text(2)
        except Malformed:
            return ""

    async def find(self, booking_id: str) -> Registration | None:
        found = [one for one in await self._query(booking_id, None) if one.booking_id == booking_id]
        return found[-1] if found else None

    async def registrations(self, day: date) -> list[Registration]:
        return await self._query("", day)

    async def lock(self, booking: Booking) -> Locked:
        answer = await self._sent(("SRM", "S01", "SRM_S01"), words.request_rows(booking), _fresh("l"))
        _accept(answer)
        try:
            sch = answer.first("SCH")
            if words.our_id(sch.text(1), sch.text(1, 2)) != booking.id:
                raise Malformed("SCH-1", "code")
            number = words.whole_number(answer.first(NUMBER).text(1), f"{NUMBER}-1")
            if number is None:
                raise Malformed(f"{NUMBER}-1", "missing")
            return Locked(words.code(sch, 2), number)
        except Malformed as malformed:
            raise OutcomeUnknown(f"HIS: an answer that does not fit: {malformed.where}") from None

    async def unlock(self, booking_id: str) -> None:
        answer = await self._sent(("SRM", "S04", "SRM_S01"), words.release_rows(booking_id), _fresh("u"))
        try:
            _accept(answer)
        except Refused as refused:
            if refused.code not in ("unknown_booking", "204"):
                raise

    async def departments(self) -> Sequence[Department]:
        raise Refused("not_offered", "HL7 v2 tells it by MFN^M05")

    async def practitioners(self) -> Sequence[Practitioner]:
        raise Refused("not_offered", "HL7 v2 tells it by MFN^M02")

    async def schedules(self, first: date, last: date) -> Sequence[Day]:
        raise Refused("not_offered", "HL7 v2 tells it by SIU")

    async def patient(self, id_type: str, id_number: str) -> Person | None:
        tag = _fresh("p")
        rows: list[Row] = [
            (
                "QPD",
                {
                    1: ("Q22", "Find Candidates", "HL7"),
                    2: tag,
                    3: [("@PID.3.1", id_number), ("@PID.3.5", PAPERS.get(id_type, ""))],
                },
            ),
            ("RCP", {1: "I"}),
        ]
        answer = await self._asked(("QBP", "Q22", "QBP_Q21"), rows, tag)
        try:
            found = [words.person_of(pid) for pid in answer.all("PID")]
        except Malformed as malformed:
            raise TryAgain(f"HIS: an answer that does not fit: {malformed.where}") from None
        mine = [one for one in found if (one.id_type, one.id_number) == (id_type, id_number)]
        return mine[0] if len(mine) == 1 else None

    async def close(self) -> None:
        await self._client.close()

    async def _query(self, booking_id: str, day: date | None) -> list[Registration]:
        rows: list[Registration] = []
        pointer = ""
        for _ in range(PARTS_MAX):
            tag = _fresh("q")
            asked: list[Row] = [self._qrd(tag, booking_id)]
            if day is not None:
                start = datetime.combine(day, time(), self._zone)
                end = datetime.combine(day + timedelta(days=1), time(), self._zone)
                asked.append(("QRF", {1: "HIS", 2: stamp(start), 3: stamp(end)}))
            if pointer:
                asked.append(("DSC", {1: pointer}))
            answer = await self._asked(("SQM", "S25", "SQM_S25"), asked, tag)
            try:
                rows += [words.registration_of(one, self._zone) for one in answer.groups("SCH")]
                dsc = answer.find("DSC")
                pointer = "" if dsc is None else dsc.text(1)
            except Malformed as malformed:
                raise TryAgain(f"HIS: an answer that does not fit: {malformed.where}") from None
            if not pointer:
                return rows
        raise TryAgain("HIS: an answer without end")

    def _qrd(self, tag: str, booking_id: str) -> Row:
        return (
            "QRD",
            {
                1: stamp(datetime.now(self._zone)),
                2: "R",
                3: "I",
                4: tag,
                7: (str(PART_ROWS), ("RD",)),
                8: ("*",),
                9: ("APM",),
                10: (OURS,),
                11: (booking_id,) if booking_id else "",
            },
        )

    async def _asked(self, kind: tuple[str, str, str], rows: list[Row], control_id: str) -> Message:
        """Of what changes nothing there."""
        try:
            answer = await self._sent(kind, rows, control_id)
        except OutcomeUnknown as unknown:
            raise TryAgain(str(unknown)) from None
        _accept(answer)
        return answer

    async def _sent(self, kind: tuple[str, str, str], rows: list[Row], control_id: str) -> Message:
        at = self._at
        header = Header(
            at.us,
            at.them,
            kind,
            control_id,
            datetime.now(UTC).astimezone(self._zone),
            version=at.version,
            charset=at.charset,
            accept="AL" if at.is_enhanced else "",
            application="AL" if at.is_enhanced else "",
        )
        try:
            raw = compose(header, rows)
        except ValueError:
            raise Refused("unwritable", "a text that this charset has no letters for") from None
        return await self._client.send(raw, control_id)


def _accept(answer: Message) -> None:
    """Raises Refused, TryAgain where they do not accept."""
    try:
        msa, err = answer.first("MSA"), answer.find("ERR")
        said = msa.text(1)
        number = "" if err is None else err.text(3) or err.text(1, 4)
        word = "" if err is None else err.text(5)
    except Malformed as malformed:
        raise OutcomeUnknown(f"HIS: an answer that does not fit: {malformed.where}") from None
    if said in ("AA", "CA"):
        return
    if number in _TRANSIENT or (said in ("AR", "CR") and not number):
        raise TryAgain(f"HIS: {said} {number}".strip())
    code = next((one for one in (word, number, said) if _WORD.fullmatch(one)), said)
    raise Refused(code, "HIS")


def _fresh(letter: str) -> str:
    return letter + secrets.token_hex(8)
