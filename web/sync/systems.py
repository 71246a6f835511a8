"""Which outside systems there are, and who speaks with each.

A maker imports its module when it is called: each process loads what its own system needs, and whoever reads
this list alone, nothing of it.
"""

from collections.abc import Callable
from typing import Final
from zoneinfo import ZoneInfo

from engine.settings import Settings
from integrations.broker.broker import Broker
from integrations.emr.emr import EmrAt
from integrations.his.his_at import HisAt
from integrations.lis.lis import LisAt
from integrations.pacs.pacs import PacsAt
from web.his.configured import his_of_file
from web.sync.app import SyncApp, SyncSystem
from web.sync.config import SystemsConfig

Maker = Callable[[SyncApp], SyncSystem]


def _indicators(app: SyncApp) -> SyncSystem:
    from web.sync.indicators import Indicators

    return Indicators(app)


def _pacs(app: SyncApp) -> SyncSystem:
    from web.imaging.system import Pacs

    return Pacs(app)


def _emr(app: SyncApp) -> SyncSystem:
    from web.emr.system import Emr

    return Emr(app)


def _broker(app: SyncApp) -> SyncSystem:
    from web.events.systems import BrokerSystem

    return BrokerSystem(app)


def _webhooks(app: SyncApp) -> SyncSystem:
    from web.events.systems import WebhookSystem

    return WebhookSystem(app)


def _lis(app: SyncApp) -> SyncSystem:
    from web.results.listening import Lis

    return Lis(app)


def _his(app: SyncApp) -> SyncSystem:
    from web.his.system import HisSystem

    return HisSystem(app)


MAKERS: Final[dict[str, Maker]] = {
    "indicators": _indicators,
    "his": _his,
    "lis": _lis,
    "pacs": _pacs,
    "emr": _emr,
    "broker": _broker,
    "webhooks": _webhooks,
}

ALWAYS: Final = ("indicators",)
"""What needs no outside system to be set up."""


def systems_of(config: SystemsConfig) -> list[str]:
    """The names of the processes to start."""
    return [name for name in MAKERS if name in ALWAYS or getattr(config, name) is not None]


def systems_from(settings: Settings) -> SystemsConfig:
    """Those that the operator has set up; a demo adds its own (web/systems_beside.py)."""
    return SystemsConfig(
        his=_his_of(settings),
        lis=_lis_of(settings),
        pacs=_pacs_of(settings),
        emr=_emr_of(settings),
        broker=_broker_of(settings),
        webhooks=settings.webhooks or None,
    )


def _his_of(settings: Settings) -> HisAt | None:
    return None if settings.his_file is None else his_of_file(settings.his_file)


def _pacs_of(settings: Settings) -> PacsAt | None:
    if not settings.pacs_address:
        return None
    return PacsAt(
        settings.pacs_address,
        ZoneInfo(settings.pacs_zone),
        settings.pacs_username,
        settings.pacs_password.get_secret_value(),
        settings.pacs_form,
        settings.pacs_changes_address,
        settings.pacs_patient_system,
    )


def _emr_of(settings: Settings) -> EmrAt | None:
    if not settings.emr_address:
        return None
    return EmrAt(
        settings.emr_address,
        settings.emr_token.get_secret_value(),
        settings.emr_username,
        settings.emr_password.get_secret_value(),
        settings.emr_told,
        settings.emr_asked,
    )


def _lis_of(settings: Settings) -> LisAt | None:
    if not settings.lis_mllp_port:
        return None
    return LisAt(settings.lis_mllp_host, settings.lis_mllp_port, settings.lis_peers, settings.lis_charset)


def _broker_of(settings: Settings) -> Broker | None:
    url = settings.broker_url.get_secret_value()
    if not url:
        return None
    return Broker(url, settings.broker_exchange, settings.broker_mandatory, settings.broker_ca_file)
