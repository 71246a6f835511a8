"""Who may read what other systems tell of a patient. Every reading is noted before anything is shown.

An account, of its own people whose visits it may see; of others it is told that there is nobody. Doctors of
their own patients, nurses of those who are in the department today, and both behind broken glass.
"""

from datetime import UTC, datetime
from uuid import UUID

from aiohttp import web

from engine.records import break_glass as glasses
from engine.records.erasure import is_restricted
from engine.records.hospital_bills import payer
from web import keys
from web.auditing import audited, noted_delegation
from web.auth import Staff
from web.errors import Problem
from web.faults import Fault
from web.records.relations import Relation, relation_of


async def must_see(
    request: web.Request,
    who: bytes | Staff,
    patient_id: bytes,
    action: str,
    *,
    nobody: Fault = Fault.NO_SUCH_PATIENT,
) -> None:
    """Raises Problem: `nobody` of an account, out_of_relation of staff. `action` ends in _read."""
    app = request.app
    pool = app[keys.POOL]
    now = datetime.now(UTC)
    if not isinstance(who, Staff):
        held = await payer(pool, app[keys.VAULT], who, patient_id, now)
        if held is None or not held.rights.see_visits:
            raise Problem(nobody)
        await noted_delegation(request, who, action, [patient_id])
        return
    relation = await relation_of(app, who, patient_id, now)
    if relation is not None and await is_restricted(pool, patient_id):
        relation = None  # forgotten at the person's wish, but for the record: only behind the glass
    detail: dict[str, object] = {}
    if relation is None:
        async with pool.acquire() as connection:
            broken = await glasses.in_force(connection, who.id, patient_id, now)
        if broken is not None:
            relation = Relation.BROKEN_GLASS
            detail["glass"] = str(UUID(bytes=broken[0]))
    known = await pool.fetchval("select true from patient where id = $1", UUID(bytes=patient_id))
    subjects = (patient_id,) if known else ()
    if relation is None or not known:
        # Whether there is such a patient at all is not told.
        await audited(request, pool, action, subjects=subjects, outcome="refused")
        raise Problem(Fault.OUT_OF_RELATION)
    await audited(request, pool, action, subjects=subjects, detail={"relation": relation.value, **detail})
