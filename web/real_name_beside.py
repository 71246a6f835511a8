"""Which register of real names a server asks: the hospital's, in a demo one of ours, or none."""

import contextlib
import secrets
from collections.abc import AsyncIterator

from aiohttp import web as http

from engine import embedded_postgres
from engine.settings import Settings
from integrations.real_name.client import Register
from integrations.real_name.sandbox import Sandbox

_SANDBOX_APP = "sandbox"


@contextlib.asynccontextmanager
async def register_of(settings: Settings) -> AsyncIterator[Register | None]:
    """For as long as the context lasts."""
    if settings.real_name_address:
        yield Register(
            settings.real_name_address,
            settings.real_name_app_id,
            settings.real_name_secret.get_secret_value().encode(),
        )
        return
    if not settings.demo:
        yield None
        return
    secret = secrets.token_bytes(32)
    runner = http.AppRunner(Sandbox(_SANDBOX_APP, secret).app())
    await runner.setup()
    site = http.TCPSite(runner, "127.0.0.1", port := embedded_postgres.free_port())
    await site.start()
    try:
        yield Register(f"http://127.0.0.1:{port}", _SANDBOX_APP, secret)
    finally:
        await runner.cleanup()
