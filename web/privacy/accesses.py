"""Who has read my record, and who has changed it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from engine.audit.accesses import Access, accesses_of
from engine.records.day_people import staff_names
from engine.records.erasure import Clock, own_people
from web import keys
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.bodies import IdPath, Request


class AccessesQuery(Request):
    before: Annotated[int | None, Field(ge=1, description="上一页的 before / as the last page gave it")] = (
        None
    )
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    only_readings: Annotated[bool, Field(description="只看查阅，不看变更 / leave changes out")] = False


@dataclass(frozen=True, slots=True)
class AccessAnswer:
    """一次查阅或变更 / one reading or change of this person's data."""

    at: datetime
    action: Annotated[str, Field(description="做了什么（代码）/ what was done, as a code")]
    is_reading: bool
    by: Annotated[
        Literal["self", "other_account", "staff", "operator", "system"],
        Field(
            description="本账号、代办人的账号、职工、系统管理员、系统 / this account, another that may act"
            " for the person, the staff, who runs the machine, the system"
        ),
    ]
    roles: Annotated[list[str], Field(description="职工现任角色 / of the staff, as they are now")]
    department_id: str | None
    department_name: str | None
    staff_name: Annotated[
        str | None, Field(description="医院允许时的职工姓名 / where the hospital's policy names its staff")
    ]
    is_break_glass: Annotated[
        bool, Field(description="凭紧急授权 / outside of treatment, with a reason given")
    ]
    reason: Annotated[str | None, Field(description="紧急授权的理由 / of a break-glass reading")]
    outcome: Literal["done", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class AccessesAnswer:
    accesses: Annotated[list[AccessAnswer], Field(description="最近的在前 / latest first")]
    before: Annotated[
        int | None,
        Field(description="下一页的 before；没有更多则为 null / for the next page; null at the end"),
    ]


@api.route(
    "GET",
    "/api/v1/patients/{id}/accesses",
    zh="谁查阅过我的信息",
    tags=["privacy"],
    errors=[Fault.NO_SUCH_PATIENT, Fault.DATABASE_DOWN],
)
async def list_accesses(
    request: web.Request, *, account_id: bytes, path: IdPath, query: AccessesQuery
) -> AccessesAnswer:
    """Every reading and change of this person's data, by whom and when; of oneself and of one's children.
    Attempts that were refused are there as well. What nobody but the person himself read is not listed."""
    app = request.app
    patient_id = path.id.bytes
    clock = Clock(datetime.now(UTC), app[keys.ZONE])
    async with app[keys.POOL].acquire() as connection:
        own = await own_people(connection, app[keys.VAULT], account_id, clock)
        if patient_id not in {one.patient_id for one in own}:
            raise Problem(Fault.NO_SUCH_PATIENT)
        found = await accesses_of(
            connection, patient_id, query.before, query.limit + 1, only_readings=query.only_readings
        )
        names: dict[bytes, str] = {}
        if app[keys.POLICY].policy.staff_named_to_patients:
            staff = {one.by_id for one in found if one.by_kind == "staff" and one.by_id is not None}
            names = await staff_names(connection, staff)
    page = found[: query.limit]
    return AccessesAnswer(
        [_answer(app, one, account_id, names) for one in page],
        page[-1].id if len(found) > query.limit else None,
    )


def _answer(app: web.Application, one: Access, account_id: bytes, names: dict[bytes, str]) -> AccessAnswer:
    department = None
    if one.department_id is not None and keys.AVAILABILITY in app:
        department = app[keys.AVAILABILITY].catalog.departments.get(one.department_id)
    return AccessAnswer(
        one.at.astimezone(app[keys.ZONE]),
        one.action,
        one.action.endswith("_read"),
        _by(one, account_id),
        list(one.roles),
        one.department_id,
        None if department is None else department.name,
        None if one.by_id is None else names.get(one.by_id),
        one.is_break_glass,
        one.reason if one.is_break_glass else None,
        "refused" if one.outcome == "refused" else "failed" if one.outcome == "failed" else "done",
    )


def _by(one: Access, account_id: bytes) -> Literal["self", "other_account", "staff", "operator", "system"]:
    match one.by_kind:
        case "account":
            return "self" if one.by_id == account_id else "other_account"
        case "staff":
            return "staff"
        case "operator":
            return "operator"
        case _:
            return "system"
