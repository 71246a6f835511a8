"""The indicators' follower, in a process of its own: in a rush it took a fifth of a gateway's core.

Nobody waits for it, so it gives way to everybody else.
"""

import logging
import os
from typing import Final

from actors.rounds import Round, go
from web.indicators_follower import STEP_SECONDS, Follower
from web.sync.app import SyncApp

log = logging.getLogger(__name__)

NICE: Final = 10
LOCK: Final = "xinglin.indicators"


class Indicators:
    def __init__(self, app: SyncApp) -> None:
        self._url = app.database_url
        try:
            os.nice(NICE)
        except OSError as error:
            log.warning("the indicators are counted as urgently as all else: %s", error.strerror)

    async def run(self) -> None:
        await go(self._url, [Round("indicators", STEP_SECONDS, Follower(self._url).step)], LOCK)
