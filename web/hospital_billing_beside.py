"""Which billing a server asks: the hospital's, in a demo one of ours, or none."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from zoneinfo import ZoneInfo

from aiohttp import web as http

from engine import embedded_postgres
from engine.settings import Settings
from integrations.hospital_billing.client import Billing
from integrations.hospital_billing.sandbox import Sandbox
from web.payments_beside import own_address

CALLBACK_PATH = "/api/v1/callbacks/hospital_billing"
_SANDBOX_APP = "sandbox"
_ZONE = ZoneInfo("Asia/Shanghai")  # of the demo's hospital


@contextlib.asynccontextmanager
async def billing_of(settings: Settings) -> AsyncIterator[Billing | None]:
    """For as long as the context lasts."""
    if settings.hospital_billing_address:
        yield Billing(
            settings.hospital_billing_address,
            settings.hospital_billing_app_id,
            settings.hospital_billing_secret.get_secret_value().encode(),
        )
        return
    if not settings.demo:
        yield None
        return
    secret = secrets.token_bytes(32)
    sandbox = Sandbox(
        _SANDBOX_APP,
        secret,
        time.time,
        f"{own_address(settings)}{CALLBACK_PATH}",
        charges_everybody=True,
        sends_callbacks=True,
        zone=_ZONE,
    )
    runner = http.AppRunner(sandbox.app())
    await runner.setup()
    site = http.TCPSite(runner, "127.0.0.1", port := embedded_postgres.free_port())
    await site.start()
    try:
        yield Billing(f"http://127.0.0.1:{port}", _SANDBOX_APP, secret)
    finally:
        await runner.cleanup()


def sandbox_page(settings: Settings, billing: Billing | None) -> str:
    """Where people look at the sandbox; "" where none of ours runs."""
    return "" if billing is None or settings.hospital_billing_address else f"{billing.address}/sandbox/bills"
