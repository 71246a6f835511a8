"""Requests and rights as they are told: names and phones masked, for whoever reads them."""

from datetime import tzinfo

from engine.domain.masking import masked
from engine.records import delegations as records
from engine.records.identity import masked_phone
from web.patient.appointments import uuid
from web.patient.bodies import RightsAnswer
from web.patient.delegation_bodies import AskedAnswer, AskerAnswer, DelegationAnswer


def asked_answer(asked: records.Asked, zone: tzinfo) -> AskedAnswer:
    return AskedAnswer(
        request_id=uuid(asked.id),
        name=masked(asked.patient_name),
        relation=asked.relation,  # type: ignore[arg-type]  # written from the contract's words
        asked_at=asked.asked_at.astimezone(zone),
        ends_at=asked.ends_at.astimezone(zone),
        asker=None if asked.asker is None else _asker(asked.asker),
    )


def _asker(asker: records.Asker) -> AskerAnswer:
    return AskerAnswer(
        None if asker.name is None else masked(asker.name),
        masked_phone(asker.phone) if asker.phone else None,
    )


def given_answer(given: records.Given, zone: tzinfo) -> DelegationAnswer:
    return DelegationAnswer(
        id=uuid(given.id),
        patient_id=uuid(given.patient_id),
        name=masked(given.patient_name),
        relation=given.relation,  # type: ignore[arg-type]  # written from the contract's words
        rights=RightsAnswer(given.rights.book, given.rights.see_visits, given.rights.pay),
        consent=given.consent.value,
        given_at=given.given_at.astimezone(zone),
        expires_at=None if given.expires_at is None else given.expires_at.astimezone(zone),
        asker=_asker(given.asker),
    )
