"""What handlers share, each under a typed key of the application: web/main.py fills, handlers read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from aiohttp import web

from engine.domain.policy import Policy
from engine.settings import Settings

if TYPE_CHECKING:  # names alone: web.auth and the connectors may themselves import this module
    import asyncpg

    from actors.changes import Changes
    from actors.cluster import Others
    from actors.directory import Directory
    from actors.metrics import GatewayMetrics
    from engine.views.availability import Availability
    from integrations.wechat.client import WeChatClient
    from web.admission import Admission
    from web.auth import Tokens
    from web.passwords import Passwords
    from web.patient.offers import Offers
    from web.patient.pages import Pages
    from web.stream import Stream
    from web.wish_errands import Wishes

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
TOKENS: "web.AppKey[Tokens]" = web.AppKey("tokens")
POOL: "web.AppKey[asyncpg.Pool]" = web.AppKey("pool")
WECHAT: "web.AppKey[WeChatClient]" = web.AppKey("wechat")
"""Absent where nobody can sign in with WeChat; sessions then answers unsupported_grant."""
PASSWORDS: "web.AppKey[Passwords]" = web.AppKey("passwords")
"""Absent where nobody can sign in with a password."""
ZONE: web.AppKey[ZoneInfo] = web.AppKey("zone", ZoneInfo)
"""The hospital's zone, in which times are shown and 'today' begins."""


@dataclass(slots=True)
class PolicyInForce:
    """The hospital's rules, replaced as a whole when it changes them."""

    policy: Policy


POLICY: web.AppKey[PolicyInForce] = web.AppKey("policy", PolicyInForce)


@dataclass(slots=True)
class Health:
    """What /readyz tells: whether this gateway takes requests."""

    is_serving: bool = False


HEALTH: web.AppKey[Health] = web.AppKey("health", Health)
DIRECTORY: "web.AppKey[Directory]" = web.AppKey("directory")
CHANGES: "web.AppKey[Changes]" = web.AppKey("changes")
WISHES: "web.AppKey[Wishes]" = web.AppKey("wishes")
AVAILABILITY: "web.AppKey[Availability]" = web.AppKey("availability")
PAGES: "web.AppKey[Pages]" = web.AppKey("pages")
STREAM: "web.AppKey[Stream]" = web.AppKey("stream")
METRICS: "web.AppKey[GatewayMetrics]" = web.AppKey("metrics")
OFFERS: "web.AppKey[Offers]" = web.AppKey("offers")
ADMISSION: "web.AppKey[Admission]" = web.AppKey("admission")
OTHERS: "web.AppKey[Others]" = web.AppKey("others")
NAME: web.AppKey[str] = web.AppKey("name", str)
"""Of this gateway, in metrics."""
