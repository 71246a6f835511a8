"""How long sessions last (docs/SESSIONS.md). Times in seconds."""

from dataclasses import dataclass
from typing import Final

from engine.records.staff import Role, Staff
from engine.settings import Settings

_DEVICES: Final = frozenset((Role.KIOSK, Role.SCREEN))


@dataclass(frozen=True, slots=True)
class Terms:
    staff_idle: int = 1_800
    """A console that nobody touches for so long is signed out."""
    staff_most: int = 12 * 3_600
    """So does everybody after so long, whatever they did."""
    device_most: int = 30 * 86_400
    """Kiosks and screens: nobody sits before them to sign in again each morning."""
    account_most: int = 180 * 86_400
    """Patients, who otherwise stay signed in as long as they come back before their refresh token ends."""

    def idle_of(self, staff: Staff) -> int | None:
        """None: machines and outside systems, which ask when they have something to ask."""
        is_machine = bool(staff.roles) and staff.roles <= _DEVICES | {Role.PARTNER}
        return None if is_machine else self.staff_idle

    def most_of(self, staff: Staff) -> int:
        return self.device_most if staff.roles and staff.roles <= _DEVICES else self.staff_most


def terms_of(settings: Settings) -> Terms:
    return Terms(
        settings.staff_idle_seconds_max,
        settings.staff_session_seconds_max,
        settings.device_session_seconds_max,
        settings.account_session_seconds_max,
    )
