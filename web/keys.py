"""What handlers share, each under a typed key of the application: web/main.py fills, handlers read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from aiohttp import web

from engine.domain.policy import Policy
from engine.settings import Settings

if TYPE_CHECKING:  # names alone: web.auth and the connectors may themselves import this module
    import asyncio

    import asyncpg

    from actors.changes import Changes
    from actors.cluster import Others
    from actors.directory import Directory
    from actors.metrics import GatewayMetrics
    from engine.records.no_show_models import Nights
    from engine.vault.erasures import Erasures
    from engine.vault.vault import Vault
    from engine.views.availability import Availability
    from integrations.wechat.client import WeChatClient
    from web.access_log import AccessLog
    from web.admission import Admission
    from web.auditing import Readings
    from web.auth import Tokens
    from web.bills.callbacks import Callbacks
    from web.bills.providers import Providers
    from web.client_address import Proxies
    from web.desk.actors import ActorBoard
    from web.desk.indicators import IndicatorBoard
    from web.desk.what_if import BookedTimes
    from web.events.feed import Tail
    from web.his.truth import Truth
    from web.hospital_billing.billing import HospitalBilling
    from web.imaging.routes import Archive
    from web.intake.intake import Intake
    from web.origins import Origins
    from web.partner.sight import Partners
    from web.passwords import Passwords
    from web.patient.offers import Offers
    from web.patient.pages import Pages
    from web.patient.real_names import RealNames
    from web.queues.copies import Copies
    from web.queues.feeds import Feeds
    from web.queues.forecasts import Forecasts
    from web.queues.notices import Noticing
    from web.queues.screens import Screens
    from web.rate_limits import RateLimits
    from web.reconciliation.reconciling import Reconciling
    from web.results.receiving import Receiving
    from web.sessions.cookies import Cookies
    from web.sessions.terms import Terms
    from web.sign_in.oidc import Oidc
    from web.sign_in.rules import SignInRules
    from web.stream import Stream
    from web.wish_errands import Wishes

SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
TOKENS: "web.AppKey[Tokens]" = web.AppKey("tokens")
SESSION_TERMS: "web.AppKey[Terms]" = web.AppKey("session_terms")
COOKIES: "web.AppKey[Cookies]" = web.AppKey("cookies")
"""Absent where no console signs in with a cookie."""
PARTNERS: "web.AppKey[Partners]" = web.AppKey("partners")
"""Other systems that call us."""
POOL: "web.AppKey[asyncpg.Pool]" = web.AppKey("pool")
VAULT: "web.AppKey[Vault]" = web.AppKey("vault")
"""What names, identity numbers and telephones are sealed and opened with."""
ERASURES: "web.AppKey[Erasures]" = web.AppKey("erasures")
EXPORTS: "web.AppKey[asyncio.Semaphore]" = web.AppKey("exports")
WECHAT: "web.AppKey[WeChatClient]" = web.AppKey("wechat")
"""Absent where nobody can sign in with WeChat; sessions then answers unsupported_grant."""
PROVIDERS: "web.AppKey[Providers]" = web.AppKey("providers")
"""Who takes money for the hospital; may be nobody."""
CALLBACKS: "web.AppKey[Callbacks]" = web.AppKey("callbacks")
REAL_NAMES: "web.AppKey[RealNames]" = web.AppKey("real_names")
"""Absent where there is no register: then desks alone verify people."""
HOSPITAL_BILLING: "web.AppKey[HospitalBilling]" = web.AppKey("hospital_billing")
"""Absent where no billing is connected: then drugs and examinations are paid at the windows."""
HIS_TRUTH: "web.AppKey[Truth]" = web.AppKey("his_truth")
"""Whose numbers count, department by department."""
ARCHIVE: "web.AppKey[Archive]" = web.AppKey("archive")
"""Absent where no picture archive is connected."""
RECONCILING: "web.AppKey[Reconciling]" = web.AppKey("reconciling")
PASSWORDS: "web.AppKey[Passwords]" = web.AppKey("passwords")
"""Absent where nobody can sign in with a password."""
SIGN_IN_RULES: "web.AppKey[SignInRules]" = web.AppKey("sign_in_rules")
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
NIGHTS: "web.AppKey[Nights]" = web.AppKey("nights")
BOOKED_TIMES: "web.AppKey[BookedTimes]" = web.AppKey("booked_times")
AVAILABILITY: "web.AppKey[Availability]" = web.AppKey("availability")
PAGES: "web.AppKey[Pages]" = web.AppKey("pages")
STREAM: "web.AppKey[Stream]" = web.AppKey("stream")
ROOMS: "web.AppKey[Copies]" = web.AppKey("rooms")
ACTOR_BOARD: "web.AppKey[ActorBoard]" = web.AppKey("actor_board")
INDICATOR_BOARD: "web.AppKey[IndicatorBoard]" = web.AppKey("indicator_board")
FEEDS: "web.AppKey[Feeds]" = web.AppKey("feeds")
FORECASTS: "web.AppKey[Forecasts]" = web.AppKey("forecasts")
NOTICING: "web.AppKey[Noticing]" = web.AppKey("noticing")
SCREENS: "web.AppKey[Screens]" = web.AppKey("screens")
OIDC: "web.AppKey[Oidc]" = web.AppKey("oidc")
"""Absent where the hospital has no identity provider."""
METRICS: "web.AppKey[GatewayMetrics]" = web.AppKey("metrics")
ACCESS_LOG: "web.AppKey[AccessLog]" = web.AppKey("access_log")
READINGS: "web.AppKey[Readings]" = web.AppKey("readings")
"""What was noted of readings in the last hour."""
OFFERS: "web.AppKey[Offers]" = web.AppKey("offers")
INTAKE: "web.AppKey[Intake]" = web.AppKey("intake")
"""What other systems send through routes goes through it."""
RECEIVING_RESULTS: "web.AppKey[Receiving]" = web.AppKey("receiving_results")
EVENT_TAIL: "web.AppKey[Tail]" = web.AppKey("event_tail")
"""Who waits at this gateway for the journal to grow."""
ADMISSION: "web.AppKey[Admission]" = web.AppKey("admission")
REQUESTS: "web.AppKey[Admission]" = web.AppKey("requests")
PAYMENTS: "web.AppKey[Admission]" = web.AppKey("payments")
OTHERS: "web.AppKey[Others]" = web.AppKey("others")
PROXIES: "web.AppKey[Proxies]" = web.AppKey("proxies")
RATE_LIMITS: "web.AppKey[RateLimits]" = web.AppKey("rate_limits")
ORIGINS: "web.AppKey[Origins]" = web.AppKey("origins")
NAME: web.AppKey[str] = web.AppKey("name", str)
"""Of this gateway, in metrics."""
