"""Who stands at the window, and what they have to pay: bills that are open, numbers that have none yet."""

from datetime import datetime, time

from aiohttp import web

from engine.domain.refusal import Reason
from engine.records import appointments, arrivals, bills, cash
from web import keys
from web.auditing import audited
from web.auth import Staff
from web.cashier import bodies
from web.cashier.describing import bill_answer, department_name, outline_answer
from web.cashier.reach import bill_in_reach, must_reach, reaches
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import WORDS, uuid
from web.patient.bodies import IdPath
from web.queues.documents import is_given, shown_by


@api.route(
    "POST",
    "/api/v1/cashier/bills/search",
    zh="查找账单",
    tags=["cashier"],
    errors=[
        Fault.SAY_WHO,
        Fault.INVALID_ID_NUMBER,
        Fault.QR_INVALID,
        Fault.QR_EXPIRED,
        Fault.NO_SUCH_PATIENT,
        Reason.NO_SUCH_APPOINTMENT,
        Fault.DATABASE_DOWN,
    ],
)
async def find_bills(
    request: web.Request, *, staff: Staff, body: bodies.FindBillsBody
) -> bodies.FoundBillsAnswer:
    """A patient's bills, and the numbers from today on that have none yet. By a document, a code of the
    patient's app, the patient, an appointment, or a slot and its number.

    Asked by POST, since an identity number has no place in an address."""
    app = request.app
    patient_id = await _patient(app, staff, body)
    known = await arrivals.patient_of_id(app[keys.POOL], app[keys.VAULT], patient_id)
    if known is None:
        raise Problem(Fault.NO_SUCH_PATIENT)
    zone = app[keys.ZONE]
    today = datetime.combine(datetime.now(zone).date(), time.min, zone)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        rows = await bills.bills_of_patient(connection, patient_id)
        numbers = await cash.unbilled_of(connection, patient_id, today)
        rows = [row for row in rows if reaches(app, staff, row.department_id)]
        numbers = [one for one in numbers if reaches(app, staff, one.department_id)]
        if body.patient_id is not None and not rows and not numbers:
            raise Problem(Fault.NO_SUCH_PATIENT)  # whoever shows no document must have something here
        await audited(request, connection, "bills_read", subjects=(patient_id,))
    practitioners = app[keys.AVAILABILITY].catalog.practitioners
    return bodies.FoundBillsAnswer(
        uuid(patient_id),
        known.name,
        [outline_answer(app, row) for row in rows],
        [
            bodies.UnbilledAnswer(
                uuid(one.appointment_id),
                WORDS[one.status],
                one.department_id,
                department_name(app, one.department_id),
                _name(practitioners.get(one.schedule_id.rpartition("-")[0])),
                one.starts_at.astimezone(zone),
                one.fee_fen,
            )
            for one in numbers
        ],
    )


@api.route(
    "GET",
    "/api/v1/cashier/bills/{id}",
    zh="账单（收费窗口）",
    tags=["cashier"],
    errors=[Fault.NO_SUCH_BILL, Fault.DATABASE_DOWN],
)
async def read_bill_at_desk(request: web.Request, *, staff: Staff, path: IdPath) -> bodies.DeskBillAnswer:
    """One bill with its payments and refunds, and what of each line may be given back."""
    app = request.app
    row = await bill_in_reach(app, staff, path.id.bytes)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        answer = await bill_answer(app, connection, row.id)
        await audited(
            request, connection, "bill_read", subjects=(row.patient_id,), object=("bill", uuid(row.id))
        )
    return answer


async def _patient(app: web.Application, staff: Staff, body: bodies.FindBillsBody) -> bytes:
    """Raises Problem. Exactly one way to say who it is."""
    by_number = body.slot_id is not None and body.number is not None
    if (body.slot_id is None) != (body.number is None):
        raise Problem(Fault.SAY_WHO)
    ways = (is_given(body), body.patient_id is not None, body.appointment_id is not None, by_number)
    if sum(ways) != 1:
        raise Problem(Fault.SAY_WHO)
    if body.patient_id is not None:
        return body.patient_id.bytes
    if is_given(body):
        try:
            return (await shown_by(app, body)).patient.id
        except Problem as problem:
            if problem.code is Fault.NO_NUMBER_TODAY:  # the words of a check-in
                raise Problem(Fault.NO_SUCH_PATIENT) from None
            raise
    wanted = None if body.appointment_id is None else body.appointment_id.bytes
    if body.slot_id is not None and body.number is not None:
        wanted = await cash.number_in_slot(app[keys.POOL], body.slot_id, body.number)
    found = None
    if wanted is not None:
        found = await appointments.any_appointment(app[keys.POOL], app[keys.VAULT], wanted)
    if found is None:
        raise Problem(Reason.NO_SUCH_APPOINTMENT)
    must_reach(app, staff, found.department_id)
    return found.patient_id


def _name(practitioner: object) -> str:
    return getattr(practitioner, "name", "")
