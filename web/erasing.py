"""Where erasures are remembered: in the home, and in the backups' second place where there is one."""

from functools import partial

from engine.settings import Settings
from engine.vault.erasures import LEDGER, Erasures
from web.backup_place import place_of


def erasures_of(settings: Settings) -> Erasures:
    ledger = settings.home.resolve() / LEDGER
    return Erasures((ledger,), partial(place_of, settings) if settings.backup_to else None)
