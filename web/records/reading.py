"""Reading a patient's record: by those who treat the patient, or who broke the glass. Always noted."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Literal
from uuid import UUID

from aiohttp import web
from pydantic import Field

from engine.domain import waiting_room as w
from engine.records import break_glass as glasses
from engine.records.erasure import is_restricted
from engine.records.identity import masked_id_number
from engine.records.patient_records import PatientRecord, record_of
from engine.records.staff import Role
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import WORDS, uuid
from web.patient.bodies import Id, IdPath, StatusWord
from web.queues.vitals import VitalsAnswer, vitals_answer
from web.records.relations import Relation, relation_of

RelationWord = Literal["own_patient", "here_today", "broken_glass"]


@dataclass(frozen=True, slots=True)
class RecordIdentity:
    id: Id
    name: str
    id_type: str
    id_number: Annotated[str, Field(description="首尾之外以 * 代替 / with its middle masked")]
    birth_date: date | None
    sex: str | None


@dataclass(frozen=True, slots=True)
class RecordVisit:
    """一次预约 / a number that was booked here."""

    appointment_id: Id
    department_id: str
    practitioner_id: str
    start: datetime
    status: StatusWord


@dataclass(frozen=True, slots=True)
class RecordTicket:
    """一次候诊 / a place in a waiting room."""

    id: Id
    department_id: str
    day: date
    number: str
    status: str
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class PatientRecordAnswer:
    patient: RecordIdentity
    relation: Annotated[RelationWord, Field(description="凭何可以查阅 / why you may read this")]
    until: Annotated[
        datetime | None, Field(description="紧急授权的截止时间 / where the glass was broken: until when")
    ]
    missed: Annotated[int, Field(description="爽约次数 / numbers that were not kept")]
    visits: list[RecordVisit]
    tickets: list[RecordTicket]
    vitals: Annotated[
        list[VitalsAnswer] | None,
        Field(description="仅医生与护士 / null for who is neither doctor nor nurse"),
    ]


@api.route(
    "GET",
    "/api/v1/records/patients/{id}",
    zh="查阅患者记录",
    tags=["records"],
    errors=[Fault.OUT_OF_RELATION, Fault.DATABASE_DOWN],
)
async def read_patient_record(request: web.Request, *, staff: Staff, path: IdPath) -> PatientRecordAnswer:
    """Who the patient is, what they came for, what was measured. For doctors of their own patients, for
    nurses and desks of patients who are in the department today; others are told out_of_relation, and doctors
    and nurses may break the glass (POST /api/v1/break-glass). Every reading is noted."""
    app = request.app
    now = datetime.now(UTC)
    patient_id = path.id.bytes
    relation = await relation_of(app, staff, patient_id, now)
    if relation is not None and await is_restricted(app[keys.POOL], patient_id):
        relation = None  # forgotten at the person's wish, but for the record: only behind the glass
    until: datetime | None = None
    detail: dict[str, object] = {}
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        if relation is None:
            broken = await glasses.in_force(connection, staff.id, patient_id, now)
            if broken is not None:
                relation, until = Relation.BROKEN_GLASS, broken[1]
                detail["glass"] = str(UUID(bytes=broken[0]))
        found = None
        if relation is not None:
            clinical = bool(staff.roles & {Role.DOCTOR, Role.NURSE})
            found = await record_of(connection, app[keys.VAULT], patient_id, with_vitals=clinical)
        if relation is not None and found is not None:
            await audited(
                request,
                connection,
                "patient_record_read",
                subjects=(patient_id,),
                detail={"relation": relation.value, **detail},
            )
    if relation is None or found is None:
        # Whether there is such a patient at all is not told.
        known = found is not None or await _is_known(app, patient_id)
        subjects = (patient_id,) if known else ()
        await audited(request, app[keys.POOL], "patient_record_read", subjects=subjects, outcome="refused")
        raise Problem(Fault.OUT_OF_RELATION)
    return _answer(app, found, relation, until, bool(staff.roles & {Role.DOCTOR, Role.NURSE}))


async def _is_known(app: web.Application, patient_id: bytes) -> bool:
    found = await app[keys.POOL].fetchval("select true from patient where id = $1", UUID(bytes=patient_id))
    return found is True


def _answer(
    app: web.Application, found: PatientRecord, relation: Relation, until: datetime | None, clinical: bool
) -> PatientRecordAnswer:
    zone = app[keys.ZONE]
    who = found.identity
    return PatientRecordAnswer(
        RecordIdentity(
            uuid(who.id), who.name, who.id_type, masked_id_number(who.id_number), who.birth_date, who.sex
        ),
        relation.value,
        None if until is None else until.astimezone(zone),
        found.missed,
        [
            RecordVisit(
                uuid(one.appointment_id),
                one.department_id,
                one.practitioner_id,
                one.starts_at.astimezone(zone),
                WORDS[one.status],
            )
            for one in found.visits
        ],
        [
            RecordTicket(
                uuid(one.id),
                one.department_id,
                one.day,
                one.number,
                w.Status(one.status).name.lower(),
                None if one.finished_at is None else one.finished_at.astimezone(zone),
            )
            for one in found.tickets
        ],
        [vitals_answer(app, one) for one in found.vitals] if clinical else None,
    )
