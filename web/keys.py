"""What handlers share, each under a typed key of the application: web/main.py fills, handlers read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from aiohttp import web

from engine.settings import Settings

if TYPE_CHECKING:  # names alone: web.auth and the connectors may themselves import this module
    import asyncpg

    from actors.cluster import Others
    from actors.directory import Directory
    from actors.metrics import GatewayMetrics
    from engine.views.availability import Availability
    from integrations.wechat.client import WeChatClient
    from web.admission import Admission
    from web.auth import Tokens
    from web.patient.offers import Offers

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
TOKENS: "web.AppKey[Tokens]" = web.AppKey("tokens")
POOL: "web.AppKey[asyncpg.Pool]" = web.AppKey("pool")
WECHAT: "web.AppKey[WeChatClient]" = web.AppKey("wechat")
"""Absent where nobody can sign in with WeChat; sessions then answers unsupported_grant."""
ZONE: web.AppKey[ZoneInfo] = web.AppKey("zone", ZoneInfo)
"""The hospital's zone, in which times are shown and 'today' begins."""


@dataclass(slots=True)
class Health:
    """What /readyz tells: whether this gateway takes requests."""

    is_serving: bool = False


HEALTH: web.AppKey[Health] = web.AppKey("health", Health)
DIRECTORY: "web.AppKey[Directory]" = web.AppKey("directory")
AVAILABILITY: "web.AppKey[Availability]" = web.AppKey("availability")
METRICS: "web.AppKey[GatewayMetrics]" = web.AppKey("metrics")
OFFERS: "web.AppKey[Offers]" = web.AppKey("offers")
ADMISSION: "web.AppKey[Admission]" = web.AppKey("admission")
OTHERS: "web.AppKey[Others]" = web.AppKey("others")
NAME: web.AppKey[str] = web.AppKey("name", str)
"""Of this gateway, in metrics."""
