"""Who stands at a kiosk or a desk: by a document that was read, or by the code of the patient's own app."""

from dataclasses import dataclass

from aiohttp import web

from engine.records import arrivals
from engine.records.arrivals import KnownPatient
from engine.records.identity import IdType, normal_id_number
from web import keys
from web.auth import QrKind
from web.errors import Entry, Problem
from web.faults import Fault
from web.queues.check_in import QR_PREFIX
from web.queues.ticket_bodies import DocumentBody

SOCIAL_SECURITY_CARD = "social_security_card"
"""社会保障号码 is the resident's identity number."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown. `appointment_id` where the code is of one number, b"" otherwise."""

    patient: KnownPatient
    appointment_id: bytes = b""


def is_given(body: DocumentBody) -> bool:
    return body.qr is not None or body.id_number is not None or body.id_type is not None


async def shown_by(app: web.Application, body: DocumentBody) -> Shown:
    """Raises Problem: no_number_today where nobody was ever added with that document."""
    if body.qr is not None:
        if body.id_number is not None or body.id_type is not None:
            raise Problem(Fault.SAY_WHO)
        return await _of_qr(app, body.qr)
    if body.id_number is None or body.id_type is None:
        raise Problem(Fault.SAY_WHO)
    kind = IdType.RESIDENT_ID if body.id_type == SOCIAL_SECURITY_CARD else IdType(body.id_type)
    number = normal_id_number(kind, body.id_number)
    if number is None:
        fault = Fault.INVALID_ID_NUMBER
        raise Problem(fault, errors=[Entry(["body", "id_number"], fault.value)])
    return _known(await arrivals.patient_of_document(app[keys.POOL], app[keys.VAULT], kind.value, number))


async def _of_qr(app: web.Application, text: str) -> Shown:
    kind, owner = read_qr(app, text)
    if kind == "qr_patient":
        return _known(await arrivals.patient_of_id(app[keys.POOL], app[keys.VAULT], owner))
    booked = await arrivals.booked(app[keys.POOL], app[keys.VAULT], owner)
    if booked is None:
        raise Problem(Fault.QR_INVALID)
    shown = _known(await arrivals.patient_of_id(app[keys.POOL], app[keys.VAULT], booked.patient_id))
    return Shown(shown.patient, booked.id)


def read_qr(app: web.Application, text: str) -> tuple[QrKind, bytes]:
    """Raises Problem: the token of a code is no sign-in, so its faults are not those of one."""
    try:
        return app[keys.TOKENS].of_qr(text.removeprefix(QR_PREFIX))
    except Problem as problem:
        expired = problem.code is Fault.TOKEN_EXPIRED
        raise Problem(Fault.QR_EXPIRED if expired else Fault.QR_INVALID) from None


def _known(patient: KnownPatient | None) -> Shown:
    if patient is None:
        raise Problem(Fault.NO_NUMBER_TODAY)
    return Shown(patient)
