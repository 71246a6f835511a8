"""Whose bills somebody at a cashier's desk may touch: those of the departments that they look after. A bill
of no department (drugs, examinations) is every cashier's."""

from aiohttp import web

from engine.records import bills
from engine.records.bills import BillRow
from web import keys
from web.auth import Staff, looks_after
from web.errors import Problem
from web.faults import Fault


def reaches(app: web.Application, staff: Staff, department_id: str) -> bool:
    departments = app[keys.AVAILABILITY].catalog.departments
    return not department_id or looks_after(staff, department_id, departments)


def must_reach(app: web.Application, staff: Staff, department_id: str) -> None:
    """Raises Problem forbidden."""
    if not reaches(app, staff, department_id):
        raise Problem(Fault.FORBIDDEN)


async def bill_in_reach(app: web.Application, staff: Staff, bill_id: bytes) -> BillRow:
    """Raises Problem: no_such_bill, forbidden."""
    row = await bills.bill(app[keys.POOL], bill_id)
    if row is None:
        raise Problem(Fault.NO_SUCH_BILL)
    must_reach(app, staff, row.department_id)
    return row
