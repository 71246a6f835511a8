"""What this hospital asks of its staff when they sign in, from its settings."""

from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from engine.records.staff import Role, Staff
from engine.settings import Settings
from web import keys
from web.sign_in.password_rules import PasswordRules, listed

_DEVICES: Final = frozenset((Role.KIOSK, Role.SCREEN, Role.PARTNER))


@dataclass(frozen=True, slots=True)
class SignInRules:
    passwords: PasswordRules = field(default_factory=PasswordRules)
    is_factor_required: bool = True


STRICT: Final = SignInRules()
"""Where nobody said otherwise."""


def rules_of(settings: Settings) -> SignInRules:
    """Raises OSError, UnicodeDecodeError where the list of passwords cannot be read."""
    passwords = PasswordRules(
        settings.password_chars_min,
        settings.password_kinds_min,
        settings.password_days_max,
        settings.password_not_again,
        frozenset() if settings.password_list is None else listed(settings.password_list),
    )
    return SignInRules(passwords, settings.second_factor_required)


def rules_in(app: web.Application) -> SignInRules:
    return app.get(keys.SIGN_IN_RULES, STRICT)


def is_device(staff: Staff) -> bool:
    """A machine has no telephone to show a code on, and nobody there who would think of a new password."""
    return are_of_a_device(staff.roles)


def are_of_a_device(roles: frozenset[str]) -> bool:
    """Nothing else: a person who is a partner's contact as well is a person."""
    return bool(roles) and roles <= _DEVICES
