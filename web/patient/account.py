"""The account that is signed in, and its phone."""

from datetime import UTC, datetime, tzinfo

from aiohttp import web

from engine.records import accounts as records
from engine.records.identity import masked_phone
from integrations.connector import ConnectorFailed, Refused
from web import keys
from web.auditing import audited
from web.errors import Problem
from web.faults import Fault
from web.openapi import api
from web.patient.appointments import uuid
from web.patient.delegation_bodies import AccountAnswer, PhoneBody


@api.route(
    "GET",
    "/api/v1/account",
    zh="我的账号",
    tags=["patients"],
    errors=[Fault.DATABASE_DOWN],
)
async def read_account(request: web.Request, *, account_id: bytes) -> AccountAnswer:
    """The account that is signed in. Its phone is masked."""
    app = request.app
    async with app[keys.POOL].acquire() as connection:
        found = await records.account_of_id(connection, app[keys.VAULT], account_id)
    if found is None:  # erased since the token was signed
        raise Problem(Fault.UNAUTHENTICATED)
    return _answer(found, app[keys.ZONE])


@api.route(
    "PUT",
    "/api/v1/account/phone",
    zh="绑定手机号",
    tags=["patients"],
    errors=[
        Fault.PHONE_CODE_REFUSED,
        Fault.PHONE_UNAVAILABLE,
        Fault.UNSUPPORTED_GRANT,
        Fault.DATABASE_DOWN,
    ],
)
async def bind_phone(request: web.Request, *, account_id: bytes, body: PhoneBody) -> AccountAnswer:
    """Binds the phone that WeChat says is the person's own, instead of the one before it. One phone may be
    bound to several accounts, as a family shares it; each is told so."""
    app = request.app
    phone = await _phone_of(app, body.code)
    now = datetime.now(UTC)
    async with app[keys.POOL].acquire() as connection, connection.transaction():
        await records.bind_phone(connection, app[keys.VAULT], account_id, phone, now)
        found = await records.account_of_id(connection, app[keys.VAULT], account_id)
        assert found is not None
        await audited(
            request,
            connection,
            "account_phone_bound",
            object=("account", uuid(account_id)),
            detail={"other_accounts": found.same_phone},
        )
    return _answer(found, app[keys.ZONE])


async def _phone_of(app: web.Application, code: str) -> str:
    """Raises Problem."""
    wechat = app.get(keys.WECHAT)
    if wechat is None:
        raise Problem(Fault.UNSUPPORTED_GRANT)
    try:
        return await wechat.phone_of(code)
    except Refused as refusal:
        if refusal.code.startswith("errcode_"):
            # Our settings or their contract, not this person's code.
            raise Problem(Fault.PHONE_UNAVAILABLE) from refusal
        raise Problem(Fault.PHONE_CODE_REFUSED) from refusal
    except ConnectorFailed as failure:
        raise Problem(Fault.PHONE_UNAVAILABLE) from failure


def _answer(found: records.Account, zone: tzinfo) -> AccountAnswer:
    bound_at = found.phone_bound_at
    return AccountAnswer(
        id=uuid(found.id),
        created_at=found.created_at.astimezone(zone),
        phone=None if found.phone is None else masked_phone(found.phone),
        phone_bound_at=None if bound_at is None else bound_at.astimezone(zone),
        phone_is_shared=found.same_phone > 0,
    )
