"""Who may book what: pure predicates over a patient's facts, the department's rules and the policy.

The facts are as old as one query. What must hold without a gap (one number per patient, department and day;
one patient, one place at a time) is therefore also claimed in the journal; see schedule.claims_wanted.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

from engine.domain.consents import ALL, missing
from engine.domain.policy import Offence, Policy
from engine.domain.refusal import Reason, Refusal

_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class DepartmentRule:
    """Whom a department sees. None: no limit. Ages are full years, both ends included."""

    sex: str | None = None
    age_min: int | None = None
    age_max: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A penalty that stands: who earned it, the patient or the account, may not book until it ends."""

    penalty_id: bytes
    rule: str  # as the hospital's policy calls it
    offence: Offence
    until: int  # ms


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a patient, for one account, when a batch arrives."""

    is_of_account: bool
    delegated_until: int | None = None  # ms: when the account's right to book for this patient ends
    birth_date: date | None = None
    sex: str | None = None
    block: Block | None = None  # of several, the one that ends last
    active_appointments: int = 0
    day_appointments: int = 0  # numbers on the visit's day, over all departments
    account_holds: int = 0
    key_used_elsewhere: bool = False  # the same Idempotency-Key gave a number on another day or doctor
    department_day_owner: bytes | None = None  # the appointment that has this department and day
    time_owner: bytes | None = None  # the appointment at this very time
    last_visit_at: int | None = None  # ms: the latest visit to this department that took place
    may_book: bool = True  # the account's right for this patient covers booking
    is_verified: bool = True  # the real name was found in the register, or the papers seen at a desk
    consents: int = ALL  # bits of what the account agreed to, for this patient or for all


NOBODY = Facts(is_of_account=False)


def check(facts: Facts, rule: DepartmentRule, policy: Policy, visit_day: date, now: int) -> Refusal | None:
    """None when the patient may book. Cheapest guard first; each names its rule."""
    if not facts.is_of_account:
        return _refused("patient_of_another_account")
    if facts.delegated_until is not None and facts.delegated_until <= now:
        return _refused("delegation_expired", until=facts.delegated_until)
    if not facts.may_book:
        return _refused("delegation_without_booking")
    if facts.key_used_elsewhere:
        return Refusal(Reason.KEY_REUSED)
    if policy.real_name_required and not facts.is_verified:
        return _refused("real_name_required")
    if policy.consents_required:
        years = None if facts.birth_date is None else full_years(facts.birth_date, visit_day)
        lacking = missing(policy.consents_required, facts.consents, years)
        if lacking:
            return Refusal(Reason.CONSENT_NEEDED, {"consents": ",".join(lacking)})
    if facts.block is not None and facts.block.until > now:
        return _penalised(facts.block)
    if facts.department_day_owner is not None:
        return Refusal(Reason.ALREADY_BOOKED, {"appointment_id": facts.department_day_owner.hex()})
    if facts.time_owner is not None:
        return Refusal(Reason.TIME_CONFLICT, {"appointment_id": facts.time_owner.hex()})
    if facts.active_appointments >= policy.active_appointments_max:
        return _refused("active_appointments_max", limit=policy.active_appointments_max)
    if facts.day_appointments >= policy.day_appointments_max:
        return _refused("day_appointments_max", limit=policy.day_appointments_max)
    if facts.account_holds >= policy.account_holds_max:
        return _refused("account_holds_max", limit=policy.account_holds_max)
    if rule.sex is not None and facts.sex is not None and facts.sex != rule.sex:
        return _refused("department_sex")
    age = None if facts.birth_date is None else full_years(facts.birth_date, visit_day)
    if age is not None and rule.age_min is not None and age < rule.age_min:
        return _refused("department_age", limit=rule.age_min)
    if age is not None and rule.age_max is not None and age > rule.age_max:
        return _refused("department_age", limit=rule.age_max)
    return None


def is_follow_up(facts: Facts, days: int, starts_at: int) -> bool:
    """Whether a visit at `starts_at` (ms) follows another one by no more than `days` times 24 hours."""
    last = facts.last_visit_at
    return last is not None and starts_at - days * _DAY_MS <= last < starts_at


def check_follow_up(facts: Facts, days: int, starts_at: int) -> Refusal | None:
    """Numbers for follow-ups are for those who were here: who says so without having been is told."""
    return None if is_follow_up(facts, days, starts_at) else _refused("not_a_follow_up", limit=days)


def full_years(birth_date: date, day: date) -> int:
    """Age in full years on `day`; who is born on 29 February turns a year older on 1 March."""
    return day.year - birth_date.year - ((day.month, day.day) < (birth_date.month, birth_date.day))


def _penalised(block: Block) -> Refusal:
    return Refusal(
        Reason.NOT_ELIGIBLE,
        {
            "rule": block.rule,
            "offence": block.offence.value,
            "until": block.until,
            "penalty_id": block.penalty_id.hex(),
        },
    )


def _refused(rule: str, **detail: int) -> Refusal:
    return Refusal(Reason.NOT_ELIGIBLE, {"rule": rule, **detail})
