"""The sandbox's HL7 v2 form: what it is told and asked over MLLP, and what it says of its own accord."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from integrations.connector import ConnectorFailed
from integrations.his.sandbox_hospital import Fault, Hospital, Json, NotDone, Registered
from integrations.his.sandbox_lines import SILENCE_SECONDS
from integrations.hl7v2 import ack, mllp
from integrations.hl7v2.client import Client, Peer
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Header, Message, Row, compose, parse
from integrations.hl7v2.times import stamp, time_of

EVENTS: Final = {
    "S12": "booked",
    "S13": "rescheduled",
    "S15": "cancelled",
    "S17": "cancelled",
    "S26": "no_show",
}
FILLER: Final = {
    "locked": "Pending",
    "booked": "Booked",
    "arrived": "Started",
    "fulfilled": "Complete",
    "no_show": "Noshow",
    "cancelled": "Cancelled",
}
PAPERS: Final = {"resident_id": "NNCHN", "passport": "PPN"}
PART_MAX: Final = 500
_TROUBLES: Final = {"unknown_booking": "204"}


class HisServer:
    """Answers over MLLP."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital

    async def handle(self, raw: bytes) -> mllp.Answers:
        message = parse(raw)
        operation = {"SRM": "lock", "SQM": "find", "QBP": "patient"}.get(message.kind[0], "tell")
        fault = self._hospital.faults.next(operation)
        match fault:
            case Fault.TIMEOUT | Fault.CUT:
                await asyncio.sleep(SILENCE_SECONDS)
                return b""
            case Fault.ERROR | Fault.BUSY:
                return ack.answers(message, "AE", ack.Trouble(ack.INTERNAL, "try again"))
        try:
            answer = self._done(message)
        except NotDone as refused:
            return _refused(message, refused.code)
        match fault:
            case Fault.APPLIED_THEN_TIMEOUT | Fault.APPLIED_THEN_CUT:
                await asyncio.sleep(SILENCE_SECONDS)
                return b""
            case Fault.FORGED:
                return ack.refusal(b"MSH|^~\\&|||||||ACK|another|P|2.5.1\r", "AA", ack.Trouble("0", ""))
            case Fault.WRONG_CHARSET:
                return "MSH|^~\\&|医院|||||||x|P|2.5.1||||||UNICODE UTF-8\r".encode("gb18030")
            case Fault.GARBAGE:
                return b"OK"
        return answer

    def _done(self, message: Message) -> mllp.Answers:
        match message.kind:
            case ("SIU", _) | ("ADT", "A04"):
                self._told(message)
                return ack.answers(message, "AA")
            case ("SRM", "S01"):
                locked = self._hospital.lock(self._booking(message, message.first("ARQ").text(1)))
                return ack.ack(message, "AA", rows=tuple(_rows(locked)))
            case ("SRM", "S04"):
                self._hospital.unlock(message.first("ARQ").text(1))
                return ack.answers(message, "AA")
            case ("SQM", "S25"):
                return self._found(message)
            case ("QBP", "Q22"):
                return self._patient(message)
        raise Malformed("MSH-9", "code", "not known here")

    def _told(self, message: Message) -> None:
        kind, trigger = message.kind
        if kind == "ADT":
            booking_id = message.first("PV1").text(19)
            there = self._hospital.by_booking(booking_id)
            if there is None:
                raise NotDone(409, "unknown_booking")
            booking = {**there.told(), "id": booking_id, "starts_at": there.starts_at, "person": {}}
            self._hospital.apply(message.control_id, "arrived", booking, None)
            return
        sch = message.first("SCH")
        event = EVENTS.get(trigger, "changed")
        if trigger == "S14" and sch.text(25) == "Complete":
            event = "fulfilled"
        before = sch.text(23) or (sch.text(1) if event == "rescheduled" else None)
        booking = self._booking(message, sch.text(1))
        self._hospital.apply(message.control_id, event, booking, before, sch.text(6, 2))

    def _booking(self, message: Message, booking_id: str) -> Json:
        pid, place = message.first("PID"), message.first("ZXL")
        person: Json = {"id": None, "his_id": None, "name": pid.text(5), "phone": pid.text(13)}
        for n in range(1, pid.count(3) + 1):
            for id_type, code in PAPERS.items():
                if pid.text(3, 5, repetition=n) == code:
                    person |= {"id_type": id_type, "id_number": pid.text(3, repetition=n)}
        return {
            "id": booking_id,
            "department": message.first("AIL").text(3),
            "practitioner": message.first("AIP").text(3),
            "starts_at": time_of(message.first("AIP").text(6), self._hospital.zone),
            "number": int(place.text(1)) if place.text(1) else None,
            "person": person,
        }

    def _found(self, message: Message) -> mllp.Answers:
        qrd, qrf, dsc = message.first("QRD"), message.find("QRF"), message.find("DSC")
        booking_id = qrd.text(11)
        if booking_id:
            there = self._hospital.by_booking(booking_id)
            rows = [] if there is None else [there]
        elif qrf is not None:
            first = time_of(qrf.text(2), self._hospital.zone)
            rows = self._hospital.of_day(first.date().isoformat())
        else:
            raise NotDone(400, "what")
        start = 0 if dsc is None else int(dsc.text(1))
        size = min(int(qrd.text(7) or PART_MAX), PART_MAX)
        told: list[Row] = [("QAK", {1: qrd.text(4), 2: "OK" if rows else "NF"})]
        for one in rows[start : start + size]:
            told += _rows(one)
        if start + size < len(rows):
            told.append(("DSC", {1: str(start + size)}))
        return ack.ack(message, "AA", rows=tuple(told))

    def _patient(self, message: Message) -> mllp.Answers:
        qpd = message.first("QPD")
        asked = {qpd.text(3, 1, repetition=n): qpd.text(3, 2, repetition=n) for n in (1, 2)}
        id_type = next((name for name, code in PAPERS.items() if code == asked.get("@PID.3.5")), "")
        found = self._hospital.patient(id_type, asked.get("@PID.3.1", ""))
        rows: list[Row] = [("QAK", {1: qpd.text(2), 2: "NF" if found is None else "OK"})]
        if found is not None:
            rows.append(_pid(found))
        return ack.ack(message, "AA", rows=tuple(rows))


def _refused(message: Message, code: str) -> bytes:
    number = _TROUBLES.get(code, "103")
    msa: Row = ("MSA", {1: "AE", 2: message.control_id})
    err: Row = ("ERR", {3: (number, "", "HL70357"), 4: "E", 5: (code,)})
    sent = message.sending
    header = Header(
        message.receiving, sent, ("ACK", message.kind[1], "ACK"), "r" + message.control_id[:18], _now()
    )
    return compose(header, [msa, err])


def _now() -> datetime:
    return datetime.now().astimezone()


def _rows(one: Registered) -> list[Row]:
    sch: dict[int, Any] = {
        1: (one.booking, "XINGLIN") if one.booking else "",
        2: (one.his_id, "HIS"),
        6: ("booked",),
        11: ("", "", "", stamp(one.starts_at)),
        16: ("1", "HIS"),
        20: ("1", "HIS"),
        25: (FILLER[one.status],),
    }
    return [
        ("SCH", sch),
        ("RGS", {1: "1"}),
        ("AIS", {1: "1", 3: (one.department,), 4: stamp(one.starts_at)}),
        ("AIL", {1: "1", 3: (one.department,), 4: ("C",)}),
        ("AIP", {1: "1", 3: (one.practitioner,), 4: ("D",), 6: stamp(one.starts_at)}),
        ("ZXL", {1: "" if one.number is None else str(one.number)}),
    ]


def _pid(person: Json) -> Row:
    numbers: list[Any] = [(person["his_id"], "", "", "HIS", "MR")]
    if person.get("id_number"):
        numbers.append((person["id_number"], "", "", "", PAPERS.get(person["id_type"], "PPN")))
    born = (person.get("birth_date") or "").replace("-", "")
    sex = {"male": "M", "female": "F"}.get(person.get("sex") or "", "U")
    phone = person.get("phone") or ""
    return ("PID", {1: "1", 3: numbers, 5: ((person["name"],),), 7: born, 8: sex, 13: (phone,)})


@dataclass(slots=True)
class Notices:
    """What it says to us, in its order, each until it is answered AA or AE. `sent`: control id and answer."""

    hospital: Hospital
    peer: Peer
    us: tuple[str, str] = ("HIS", "HIS")
    them: tuple[str, str] = ("XINGLIN", "XINGLIN")
    charset: str = "utf-8"
    is_reordering: bool = False
    has_wrong_charset: bool = False
    copies: int = 1
    retry_seconds: float = 2.0
    tries_max: int = 30
    sent: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[tuple[str, bytes]] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    _has: asyncio.Event = field(default_factory=asyncio.Event)

    def registration(self, one: Registered, trigger: str) -> str:
        sch, *rest = _rows(one)
        rows = [sch]
        if one.person.get("name"):
            his_id = one.person.get("his_id") or self.hospital.admit(one.person)
            rows.append(_pid({**one.person, "his_id": his_id}))
        return self.say(("SIU", trigger, "SIU_S12"), [*rows, *rest])

    def schedule(
        self,
        trigger: str,
        practitioner: str,
        department: str,
        start: datetime,
        period: str,
        capacity: str,
        why: str,
    ) -> str:
        return self.say(
            ("SIU", trigger, "SIU_S12"),
            [
                (
                    "SCH",
                    {
                        2: (f"PB{practitioner}{start:%Y%m%d}", "HIS"),
                        6: ("schedule", why),
                        8: (period,),
                        11: ("", "", "", stamp(start)),
                        16: ("1", "HIS"),
                        20: ("1", "HIS"),
                        25: ("Blocked",),
                    },
                ),
                ("RGS", {1: "1"}),
                ("AIS", {1: "1", 3: (department,), 4: stamp(start)}),
                ("AIL", {1: "1", 3: (department,), 4: ("C",)}),
                ("AIP", {1: "1", 3: (practitioner,), 4: ("D",), 6: stamp(start)}),
                ("ZXL", {2: period, 6: capacity}),
            ],
        )

    def person(self, person: Json, trigger: str, merged_from: str = "") -> str:
        evn: Row = ("EVN", {1: trigger, 2: stamp(self.hospital.now())})
        mrg: tuple[Row, ...] = (("MRG", {1: [(merged_from, "", "", "HIS", "MR")]}),) if merged_from else ()
        pv1: tuple[Row, ...] = () if merged_from else (("PV1", {1: "1", 2: "O"}),)
        structure = "ADT_A39" if trigger == "A40" else "ADT_A01"
        return self.say(("ADT", trigger, structure), [evn, _pid(person), *mrg, *pv1])

    def master(self, kind: str, one: Json) -> str:
        now = stamp(self.hospital.now())
        if kind == "practitioner":
            trigger, file = "M02", "STF"
            rows: list[Row] = [
                ("STF", {1: (one["code"],), 3: ((one["name"],),), 8: (one["department"],), 18: one["title"]})
            ]
        else:
            trigger, file = "M05", "LOC"
            rows = [("LOC", {1: (one["code"],), 2: one["name"], 3: ("D",)})]
        mfi: Row = ("MFI", {1: (file,), 3: "UPD", 4: now, 6: "AL"})
        mfe: Row = ("MFE", {1: "MUP", 3: now, 4: (one["code"],), 5: "CWE"})
        return self.say(("MFN", trigger, f"MFN_{trigger}"), [mfi, mfe, *rows])

    def say(self, kind: tuple[str, str, str], rows: Sequence[Row]) -> str:
        """Its control id."""
        control_id = f"N{int(self.hospital.clock())}{next(self._numbers)}"
        header = Header(self.us, self.them, kind, control_id, self.hospital.now(), charset=self.charset)
        raw = compose(header, rows)
        if self.has_wrong_charset:
            raw = raw.decode(self.charset).encode("gb18030" if self.charset == "utf-8" else "utf-8")
        self.waiting += [(control_id, raw)] * self.copies
        self._has.set()
        return control_id

    async def deliver(self) -> None:
        """What is waiting, once each try; what finds nobody waits on."""
        if self.is_reordering:
            random.Random(len(self.sent)).shuffle(self.waiting)  # nosec B311  # play
        client = Client(self.peer)
        try:
            while self.waiting:
                control_id, raw = self.waiting[0]
                answer = await client.send(raw, control_id)
                code = answer.first("MSA").text(1)
                self.sent.append((control_id, code))
                self.waiting.pop(0)
        finally:
            await client.close()

    async def run(self) -> None:
        """For as long as it is awaited."""
        while True:
            await self._has.wait()
            self._has.clear()
            tries = 0
            while self.waiting:
                try:
                    await self.deliver()
                except (ConnectorFailed, Malformed):
                    tries += 1
                    if tries > self.tries_max:
                        self.waiting.pop(0)
                        tries = 0
                    await asyncio.sleep(self.retry_seconds)
