"""Who did it, as commands and events say it in `by`.

"" is the patient's own account, SYSTEM is nobody who asked, HIS the hospital's own system, and everything
else names a member of staff.
"""

from typing import Final

SYSTEM: Final = "system"
HIS: Final = "his"
"""The hospital's own system: what was done at its windows comes to us in its name."""

_STAFF: Final = "staff:"


def by_staff(staff_id: bytes) -> str:
    return f"{_STAFF}{staff_id.hex()}"


def staff_id_of(by: str) -> bytes | None:
    """None: it was not staff."""
    return bytes.fromhex(by.removeprefix(_STAFF)) if by.startswith(_STAFF) else None
