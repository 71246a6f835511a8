"""What heals a difference: a question to whoever knows, and the ordinary command that its answer makes.

The statement itself is believed for nothing: a payment that it names is asked after at the provider, and what
the signed answer says is reported to the bill. What the bill refuses stays a difference, and an alarm.
"""

from typing import Final

import asyncpg
from aiohttp import web

from actors.errands import TryAgain as ComeAgain
from engine.domain.payment import PaymentReported, RefundReported, Via
from engine.domain.reconciliation import Difference, Heal
from engine.domain.refusal import Refusal
from engine.records import reconciliation as records
from integrations.connector import ConnectorFailed
from web import keys
from web.bills.asking import tell_bill
from web.bills.at_provider import alarmed, report_of_payment, report_of_refund

ASKS: Final = frozenset((Heal.QUERY_AND_REPORT, Heal.REPORT_REFUND))
"""The provider. All others wake somebody's errand."""
REPORTED: Final = "reported"
_ERRANDS: Final = {Heal.RESEND_REFUND: "bill", Heal.ATTEND: "bill", Heal.TELL_HOSPITAL: "hospital_billing"}


async def wake(connection: asyncpg.Connection, one: Difference) -> str:
    """In words, what was done."""
    await records.wake(connection, _ERRANDS[one.heal], one.bill_id)
    return "left to the errands of its bill"


async def ask(app: web.Application, channel: str, one: Difference) -> str:
    """In words, what came of it."""
    provider = app[keys.PROVIDERS].get(channel)
    if provider is None:
        return f"{channel} is not set up here"
    command: object
    try:
        if one.heal is Heal.QUERY_AND_REPORT:
            command = await report_of_payment(app, provider, one.bill_id, one.order, Via.STATEMENT)
        else:
            command = await report_of_refund(app, provider, one.bill_id, one.payment_order, one.order)
        outcome = await tell_bill(app, one.bill_id, command)
    except (ConnectorFailed, ComeAgain) as failed:
        return f"not now: {failed}"
    if isinstance(outcome, Refusal):
        await alarmed(app, one.bill_id, command, outcome)
        return f"the bill refused it: {outcome.reason.value}"
    if isinstance(command, PaymentReported | RefundReported):
        return REPORTED
    return f"asked, the provider says otherwise: {type(command).__name__}"
