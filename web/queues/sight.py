"""Who may see a ticket, and how much of it: an account those of its patients, staff those of their own
department, a kiosk all of them, without names and without anything clinical."""

from enum import StrEnum

from aiohttp import web

from engine.domain.ids import RoomKey
from engine.domain.refusal import Reason
from engine.records import tickets as records
from engine.records.staff import Role
from engine.records.tickets import TicketRecord
from web import keys
from web.auth import Staff
from web.errors import Problem
from web.queues.asking import today
from web.queues.rights import Sight, sight_of


class Seen(StrEnum):
    """By whom."""

    OWN = "own"
    KIOSK = "kiosk"
    STAFF = "staff"


async def seen_by(app: web.Application, who: bytes | Staff, found: TicketRecord) -> Seen:
    """Raises Problem where it is nobody's business: whether there is such a ticket is not told then."""
    if isinstance(who, bytes):
        if await records.is_of_account(app[keys.POOL], who, found):
            return Seen.OWN
        raise Problem(Reason.NO_SUCH_TICKET)
    if sight_of(app, who, key_of(found)) is Sight.WHOLE:
        return Seen.STAFF
    if Role.KIOSK in who.roles:
        return Seen.KIOSK
    raise Problem(Reason.NO_SUCH_TICKET)


def key_of(found: TicketRecord) -> RoomKey:
    return RoomKey(found.department_id, found.day.isoformat())


def must_be_of_today(app: web.Application, found: TicketRecord) -> None:
    """Nobody comes back to a waiting room of another day. Raises Problem."""
    if found.day.isoformat() != today(app):
        raise Problem(Reason.WRONG_DAY, day=found.day.isoformat())


async def find_ticket(app: web.Application, ticket_id: bytes) -> TicketRecord:
    found = await records.ticket(app[keys.POOL], app[keys.VAULT], ticket_id)
    if found is None:
        raise Problem(Reason.NO_SUCH_TICKET)
    return found
