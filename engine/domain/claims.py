"""What must be unique beyond one actor. The journal grants or denies it in the transaction of its events."""

from dataclasses import dataclass
from enum import IntEnum


class Scope(IntEnum):
    DEPARTMENT_DAY = 1  # one number per patient, department and day
    PATIENT_TIME = 2  # one patient, one place at a time
    MOVE = 3  # a change to another actor happens or is given up, never both
    WISH = 4  # one offer at a time for a wish that waits at several actors


@dataclass(frozen=True, slots=True)
class Claim:
    scope: Scope
    key: bytes
    owner: bytes
    expires_at: int | None  # ms; None: for good


def of_department_day(
    patient_id: bytes, department_id: str, day: str, owner: bytes, expires_at: int | None
) -> Claim:
    return Claim(Scope.DEPARTMENT_DAY, patient_id + f"{department_id}/{day}".encode(), owner, expires_at)


def of_time(patient_id: bytes, starts_at: int, owner: bytes, expires_at: int | None) -> Claim:
    return Claim(Scope.PATIENT_TIME, patient_id + starts_at.to_bytes(8, "big"), owner, expires_at)
