"""What this gateway runs with, as the system administrator sees it."""

from typing import Final

from aiohttp import web
from pydantic import SecretStr

from engine.settings import Settings
from web import keys
from web.admin.bodies import SettingAnswer, SettingsAnswer
from web.openapi import api

HIDDEN: Final = "********"
_MAY_CARRY_ONE: Final = frozenset(("vault_key",))  # a PKCS#11 URI may have a PIN in it


@api.route("GET", "/api/v1/admin/settings", zh="系统设置", tags=["admin"], errors=[])
async def read_settings(request: web.Request) -> SettingsAnswer:
    """Every setting, its value and its environment variable. Secrets are masked; nothing is changed here."""
    return SettingsAnswer(shown_settings(request.app[keys.SETTINGS]))


def shown_settings(current: Settings) -> list[SettingAnswer]:
    return [
        SettingAnswer(f"XINGLIN_{name.upper()}", _shown(current, name), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _shown(current: Settings, name: str) -> str:
    value = getattr(current, name)
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    if value and name in _MAY_CARRY_ONE:
        return HIDDEN
    return "" if value is None else str(value)
