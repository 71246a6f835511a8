"""How the sandbox's HTTP lines fail."""

import asyncio
from typing import Final

from aiohttp import web

SILENCE_SECONDS: Final = 60.0
"""Longer than anybody waits; then the request is let go."""


async def silence() -> web.Response:
    await asyncio.sleep(SILENCE_SECONDS)
    return web.Response(status=500)


def cut(request: web.Request) -> web.Response:
    """The line breaks before an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
