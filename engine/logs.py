"""Where a process writes what it has to say: stderr, and a file of its own that never grows beyond bounds."""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

FILE_BYTES_MAX: Final = 10 * 1024 * 1024
FILES_KEPT: Final = 3


def configure(level: str, file: Path | None) -> None:
    """No personal data in logs: ids of schedules and shards, never names or numbers of people."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(RotatingFileHandler(file, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT))
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
        handlers=handlers,
        force=True,
    )
