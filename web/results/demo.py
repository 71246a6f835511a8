"""The laboratory of a demo: where it is, and its sandbox in the process of the sandboxes."""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from integrations.lis.lis import LisAt

if TYPE_CHECKING:
    from web.systems_beside import Place


def demo_at(ports: Mapping[str, int]) -> LisAt:
    return LisAt("127.0.0.1", ports["mllp"], sandbox=f"http://127.0.0.1:{ports['http']}")


@contextlib.asynccontextmanager
async def demo_running(place: "Place") -> AsyncIterator[None]:
    from integrations.lis.sandbox import Sandbox, serving

    # Its numbers begin anew with each start, so they have the start in them.
    sandbox = Sandbox("127.0.0.1", place.ports["mllp"], time.time, seed=int(time.time()))
    async with serving(sandbox, place.ports["http"]):
        yield
