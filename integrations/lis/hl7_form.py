"""ORU^R01 as bodies of reports (engine/domain/reports.py): one each OBR that has a number of its own. Pure.

    for body in bodies(message, zone, "LIS"): ...

A laboratory's dialect is read generously where nothing can be mistaken, and strictly where somebody could be:
an OBX whose value type is not known, an attachment that is not base64 or too large, raise Unfit. What a table
does not have is passed on as it is; the intake's rules say what they want instead.
"""

import base64
import binascii
from datetime import tzinfo
from typing import Any, Final

from engine.domain.intake import Unfit
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import Message, Segment
from integrations.hl7v2.times import date_of, time_of
from integrations.lis.words import (
    ATTACHMENT_BYTES_MAX,
    DOCUMENT_TYPES,
    FLAGS,
    MEDIA_TYPES,
    SEXES,
    STATUSES,
    UNSAID_SEXES,
    document,
)

OBX_MAX: Final = 2_000
_TEXTS: Final = frozenset({"ST", "TX", "FT", "NM", "ID", "IS", "DT", "TM", "TS", "DTM", "SI"})
_CODED: Final = frozenset({"CE", "CWE", "CNE", "CF"})

Body = dict[str, Any]


def bodies(message: Message, zone: tzinfo, source: str) -> list[Body]:
    """`source`: the laboratory whose numbers they are. Raises Malformed, Unfit."""
    pid = message.first("PID")
    patient = _patient(pid, source)
    found: dict[str, Body] = {}
    for at, group in enumerate(_groups(message)):
        obr = group.first("OBR")
        orc = group.find("ORC")
        number = obr.text(3) or (orc.text(3) if orc else "") or obr.text(2) or (orc.text(2) if orc else "")
        body = found.get(number) if number else None
        if body is None:
            body = _report(message, obr, patient, source, number, zone)
            found[number or f"\0{at}"] = body
        _results(group, body, zone)
    if not found:
        raise Malformed("OBR", "missing", "a segment that is missing")
    return list(found.values())


def _groups(message: Message) -> list[Message]:
    """From each OBR to the next; an ORC before an OBR belongs to it."""
    groups: list[list[Segment]] = []
    order: Segment | None = None
    for segment in message.segments:
        if segment.name == "ORC":
            order = segment
        elif segment.name == "OBR":
            groups.append([message.header, *([order] if order else []), segment])
            order = None
        elif groups:
            groups[-1].append(segment)
    return [Message(tuple(group), message.charset) for group in groups]


def _patient(pid: Segment, source: str) -> Body:
    numbers = []
    for n in range(1, pid.count(3) + 1):
        number, authority, kind = (pid.text(3, part, 1, n) for part in (1, 4, 5))
        if number:
            papers = DOCUMENT_TYPES.get(kind)
            system = document(papers) if papers else _authority(authority, source)
            numbers.append({"system": system, "number": number})
    if pid.text(19):
        numbers.append({"system": document(DOCUMENT_TYPES["NI"]), "number": pid.text(19)})
    family, given = pid.text(5, 1), pid.text(5, 2)
    born = pid.text(7)
    sex = pid.text(8)
    return {
        "numbers": numbers,
        # A Chinese name comes whole in one place, or in two that belong together without a space.
        "name": family + given
        if not family.isascii()
        else " ".join(part for part in (given, family) if part),
        "sex": "" if sex in UNSAID_SEXES else SEXES.get(sex, sex),
        "birth_date": date_of(born, "PID-7").isoformat() if born else None,
    }


def _authority(authority: str, source: str) -> str:
    """Whose number it is: XINGLIN's are our own patients' ids; without a name, the sender's."""
    name = authority.strip().lower()
    return name or source


def _report(message: Message, obr: Segment, patient: Body, source: str, number: str, zone: tzinfo) -> Body:
    status = obr.text(25)
    sent = _time(message.header, 7, zone)
    changed = _time(obr, 22, zone) or sent
    return {
        "source": source,
        "number": number,
        "patient": patient,
        "status": STATUSES.get(status, status),
        "title": obr.text(4, 2) or obr.text(4, 1),
        "category": obr.text(24),
        "issued_at": changed,
        "changed_at": changed,
        "ordered_at": _time(obr, 6, zone) or None,
        "collected_at": _time(obr, 7, zone) or None,
        "department": _unit(message),
        "doctor": _person(obr, 16),
        "conclusion": "",
        "observations": [],
        "attachments": [],
    }


def _unit(message: Message) -> str:
    visit = message.find("PV1")
    return "" if visit is None else visit.text(3)


def _person(segment: Segment, field: int) -> str:
    """Name of an XCN: family and given together, or what stands for it."""
    return segment.text(field, 2) + segment.text(field, 3) or segment.text(field, 1)


def _time(segment: Segment, field: int, zone: tzinfo) -> str:
    text = segment.text(field)
    return time_of(text, zone, f"{segment.name}-{field}").isoformat() if text else ""


def _results(group: Message, body: Body, zone: tzinfo) -> None:
    """OBX in order; an NTE belongs to what stands before it."""
    last: Body | None = None
    for segment in group.segments:
        if segment.name == "OBX":
            last = _result(segment, body)
        elif segment.name == "NTE":
            notes = [segment.text(3, 1, 1, n) for n in range(1, segment.count(3) + 1)]
            text = "\n".join(note for note in notes if note)
            into, key = (body, "conclusion") if last is None else (last, "note")
            into[key] = f"{into[key]}\n{text}".strip("\n")


def _result(obx: Segment, body: Body) -> Body | None:
    """The observation it adds; None: it is the conclusion, or an attachment."""
    observations, attachments = body["observations"], body["attachments"]
    if len(observations) >= OBX_MAX:
        raise Unfit("observations", "too_many", f"at most {OBX_MAX}")
    kind = obx.text(2)
    code, name = obx.text(3, 1), obx.text(3, 2)
    if kind in ("ED", "RP"):
        attachments.append(_attachment(obx, kind, len(attachments), name or code))
        return None
    if code in ("GDT", "CONCLUSION") or obx.text(3, 1).endswith("&IMP"):
        body["conclusion"] = f"{body['conclusion']}\n{_value(obx, kind, len(observations))}".strip("\n")
        return None
    raised = [obx.text(8, 1, 1, n) for n in range(1, obx.count(8) + 1)]
    flag = next((one for one in raised if one), "")
    observation = {
        "code": code or name,
        "name": name or code,
        "value": _value(obx, kind, len(observations)),
        "unit": obx.text(6, 1) or obx.text(6, 2),
        "reference": obx.text(7),
        "flag": FLAGS.get(flag, flag),
        "note": "",
    }
    if obx.text(11) in ("D", "W"):  # taken out, or it was somebody else's
        observation |= {"value": "", "flag": "", "note": "withdrawn"}
    observations.append(observation)
    return observation


def _value(obx: Segment, kind: str, n: int) -> str:
    """As one text: figures stay as they are written."""
    if kind in _TEXTS or (not kind and not obx.raw(5)):
        parts = [obx.text(5, 1, 1, each) for each in range(1, obx.count(5) + 1)]
        if kind in ("TX", "FT") and len(parts) <= 1:
            return obx.plain(5)
        return "\n".join(parts)
    if kind in _CODED:
        return obx.text(5, 2) or obx.text(5, 1)
    if kind == "SN":  # comparator, number, separator, number: "<" 0.1; 1 ":" 128
        return "".join(obx.text(5, part) for part in (1, 2, 3, 4))
    raise Unfit(f"observations[{n}].value", "value_type", "one of NM, ST, TX, FT, CE, CWE, SN, ED")


def _attachment(obx: Segment, kind: str, n: int, title: str) -> Body:
    where = f"attachments[{n}]"
    if kind == "RP":
        raise Unfit(where, "pointer", "the document itself: nothing is fetched from elsewhere")
    if obx.text(5, 4).lower() not in ("base64", ""):
        raise Unfit(where, "encoding", "Base64")
    # Some break lines within the base64 of a document, as mail does.
    content = "".join(obx.text(5, 5).split())
    checked(content, where)
    subtype, data_type = obx.text(5, 3).upper(), obx.text(5, 2).upper()
    media_type = MEDIA_TYPES.get(subtype or data_type) or f"{data_type}/{subtype}".lower()
    return {"media_type": media_type, "title": title, "content": content}


def checked(content: str, where: str) -> None:
    """Of base64: raises Unfit."""
    if len(content) > ATTACHMENT_BYTES_MAX * 4 // 3 + 4:
        raise Unfit(where, "too_large", f"at most {ATTACHMENT_BYTES_MAX} bytes")
    try:
        decoded = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise Unfit(where, "base64", "Base64 without anything else in it") from None
    if not decoded:
        raise Unfit(where, "missing")
