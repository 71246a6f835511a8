"""What a process beside an outside system is given: which systems there are, and how they are reached."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.settings import Settings


@dataclass(frozen=True, slots=True)
class SystemsConfig:
    """Each None where there is none, or what its connector is made of. Travels to other processes, with
    credentials in it: never shown."""

    his: Any = None
    lis: Any = None
    pacs: Any = None
    emr: Any = None
    broker: Any = None
    webhooks: Any = None

    def __repr__(self) -> str:
        there = [name for name in self.__slots__ if getattr(self, name) is not None]
        return f"{type(self).__name__}({', '.join(there)})"


@dataclass(frozen=True, slots=True)
class SyncConfig:
    settings: Settings
    systems: SystemsConfig
    database_url: str
    token_secret: bytes
    log_folder: Path | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.systems!r})"
