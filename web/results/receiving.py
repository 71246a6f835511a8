"""Reports on their way in, whichever wire they came by: translated, checked, kept."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from hashlib import sha256
from typing import Any, Final

import asyncpg
import orjson

from engine.domain.intake import Finding, Unfit
from engine.domain.reports import NotAReport, of_body
from engine.records import reports as records
from engine.vault.vault import Vault
from integrations.hl7v2 import ack
from integrations.hl7v2.malformed import Malformed
from integrations.hl7v2.message import header_of, parse
from integrations.lis import fhir_form, hl7_form
from web.intake.intake import Intake, Outcome, Taken

log = logging.getLogger(__name__)

INTERFACE: Final = "lis.report"
LIS: Final = "lis"
"""The laboratory's name, where it does not say one."""
WRONG_PROCESSING: Final = "202"
"""HL7 table 0357: a message of a test system."""


class Receiving:
    """Of one process. `zone`: of the times of a message that names none; the hospital's."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        vault: Vault,
        intake: Intake,
        zone: Callable[[], tzinfo],
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._intake = intake
        self._zone = zone
        self._now = now
        intake.receives(INTERFACE, self.use)

    async def use(self, body: Mapping[str, Any]) -> None:
        """Keeps one version of one report. Raises Unfit, Unclaimed."""
        try:
            report = of_body(body)
        except NotAReport:
            raise Unfit("", "not_a_report", "what docs/RESULTS.md says of a report") from None
        async with self._pool.acquire() as connection:
            await records.store(
                connection, self._vault, report, records.identity_of(report), INTERFACE, self._now()
            )

    async def hl7(self, raw: bytes, charset: str) -> tuple[bytes, ...]:
        """The answers to one ORU^R01. Raises Malformed, and what is worth sending again."""
        try:
            message = parse(raw, charset)
            if message.kind != ("ORU", "R01"):
                trouble = ack.Trouble(ack.UNSUPPORTED_KIND, "ORU^R01 is taken here", "MSH-9")
                return ack.answers(message, ack.REJECTED, trouble)
            if message.header.text(11) not in ("P", ""):
                trouble = ack.Trouble(WRONG_PROCESSING, "only production messages are taken here", "MSH-11")
                return ack.answers(message, ack.REJECTED, trouble)
            application, facility = message.sending
            source = application.strip().lower() or LIS
            sent_as = "/".join((application, facility, message.control_id))
            addressed = {"application": message.receiving[0], "facility": message.receiving[1]}
            try:
                bodies = hl7_form.bodies(message, self._zone(), source)
            except Unfit as unfit:
                taken = await self._intake.set_aside(INTERFACE, sent_as, raw, (unfit.finding,))
                return ack.answers(message, ack.ERROR, _trouble(taken))
        except Malformed as malformed:
            await self._set_aside(raw, malformed)
            raise
        outcomes = []
        for n, body in enumerate(bodies, 1):
            body["receiver"] = addressed
            outcomes.append(await self._intake.take(INTERFACE, f"{sent_as}/{n}", body, self.use, raw))
        worst = next((one for one in outcomes if not one.is_good), None)
        if worst is None:
            return ack.answers(message, ack.ACCEPTED)
        code = ack.REJECTED if worst.reasons[0].rule == "not_for_us" else ack.ERROR
        return ack.answers(message, code, _trouble(worst))

    async def fhir(self, resource: Any, sender: str, source: str, raw: bytes) -> list[Taken]:
        """What became of each report in it. `sender`: who brings it, `source`: whose numbers they are."""
        try:
            bodies = fhir_form.bodies(resource, source)
        except Unfit as unfit:
            sent_as = f"{sender}/{sha256(raw).hexdigest()}"
            return [await self._intake.set_aside(INTERFACE, sent_as, raw, (unfit.finding,))]
        outcomes = []
        for body in bodies:
            # The same content is the same message, whoever repeats it; FHIR has no other id for it.
            digest = sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
            outcomes.append(await self._intake.take(INTERFACE, f"{sender}/{digest}", body, self.use, raw))
        return outcomes

    async def _set_aside(self, raw: bytes, malformed: Malformed) -> None:
        header = header_of(raw)
        named = [] if header is None else [header.fields[at] for at in (3, 4, 10) if at < len(header.fields)]
        sent_as = "/".join(named) if len(named) == 3 and named[2] else ""
        finding = Finding(malformed.where, malformed.why, malformed.text)
        await self._intake.set_aside(INTERFACE, sent_as[:200], raw, (finding,))


def said(reasons: Sequence[Finding]) -> str:
    """For the sender: which rule where, and never what stood there."""
    return "; ".join(
        " ".join(part for part in (one.field, one.rule, f"({one.expected})" if one.expected else "") if part)
        for one in reasons
    )


def _trouble(taken: Taken) -> ack.Trouble:
    rule = taken.reasons[0].rule
    code = ack.REQUIRED if rule == "missing" else ack.TABLE if rule == "unknown_code" else ack.TYPE
    return ack.Trouble(code, said(taken.reasons))


__all__ = ["INTERFACE", "Outcome", "Receiving", "said"]
