"""Who takes this server's money: the hospital's merchants, or in a demo two sandboxes beside the server.

The sandboxes speak the wires of WeChat Pay and Alipay with real keys, call back to our own loopback address,
and have one page where anybody pays, fails, or pays late with a click (web/pay_page). What they know is gone
when they end; their keys stay in the home.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aiohttp import ClientSession
from aiohttp import web as http
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from engine import embedded_postgres
from engine.settings import Settings
from integrations.alipay.sandbox import Sandbox as Alipay
from integrations.wechat_pay.sandbox import Sandbox as WeChatPay
from integrations.wechat_pay.sandbox_keys import Keys
from web.bills.merchants import AlipayMerchant, Payments, WeChatPayMerchant, merchants_of
from web.pay_page.page import PayPage

REFUND_SECONDS: Final = 2.0
_KEYS_FILE: Final = "sandbox-wechat-pay.keys"
_ALIPAY_FILES: Final = ("sandbox-alipay.key", "sandbox-alipay-app.key")
_ALIPAY_APP: Final = "2021000000000001"
_ALIPAY_SELLER: Final = "2088000000000001"


@contextlib.asynccontextmanager
async def payments_of(settings: Settings, home: Path) -> AsyncIterator[Payments]:
    """For as long as the context lasts. Raises MerchantFailed."""
    real = merchants_of(settings)
    if real.wechat_pay is not None or real.alipay is not None or not settings.demo:
        yield real
        return
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(_sandboxes(settings, home))


@contextlib.asynccontextmanager
async def _sandboxes(settings: Settings, home: Path) -> AsyncIterator[Payments]:
    keys, theirs, ours = await asyncio.to_thread(_keys_of, home)
    wechat_port, alipay_port, page_port = (embedded_postgres.free_port() for _ in range(3))
    wechat = WeChatPay(keys, time.time, sends_callbacks=True, refund_seconds=REFUND_SECONDS)
    wechat.callbacks.by_public_key = True
    page = f"http://127.0.0.1:{page_port}/"
    alipay = Alipay(_ALIPAY_APP, _ALIPAY_SELLER, theirs, ours.public_key(), cashier=page)
    apps = (
        (wechat.app(), wechat_port),
        (alipay.app(), alipay_port),
        (PayPage(wechat, alipay).app(), page_port),
    )
    async with contextlib.AsyncExitStack() as stack:
        for app, port in apps:
            runner = http.AppRunner(app, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await http.TCPSite(runner, "127.0.0.1", port).start()
        session = await stack.enter_async_context(ClientSession())
        notices = asyncio.create_task(alipay.run(session))
        stack.callback(notices.cancel)
        yield replace(
            Payments(own_address(settings)),
            wechat_pay=WeChatPayMerchant(
                f"http://127.0.0.1:{wechat_port}",
                keys.mch_id,
                keys.app_id,
                keys.merchant_serial,
                keys.merchant_pem(),
                keys.api_v3_key,
                keys.public_id,
                keys.public_pem(),
            ),
            alipay=AlipayMerchant(
                f"http://127.0.0.1:{alipay_port}/gateway.do",
                _ALIPAY_APP,
                _ALIPAY_SELLER,
                _pem(ours).decode(),
                theirs.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
            ),
            pay_page=page,
        )


def own_address(settings: Settings) -> str:
    """Where this machine reaches its own gateways."""
    host = settings.host
    with contextlib.suppress(ValueError):  # a name
        at = ip_address(host)
        host = f"[{at}]" if at.version == 6 else host
        if at.is_unspecified:
            host = "127.0.0.1" if at.version == 4 else "[::1]"
    return f"{'http' if settings.tls_files is None else 'https'}://{host}:{settings.port}"


def _keys_of(home: Path) -> tuple[Keys, RSAPrivateKey, RSAPrivateKey]:
    """Made once: it takes a second. Of play money, but keys all the same."""
    kept = _kept(home / _KEYS_FILE, lambda: Keys.made(time.time()).dumped())
    theirs, ours = (_rsa(_kept(home / name, lambda: _pem(_made()))) for name in _ALIPAY_FILES)
    return Keys.loaded(kept), theirs, ours


def _kept(file: Path, make: Callable[[], bytes]) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        made = make()
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(made)
        return made


def _made() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


def _rsa(pem: bytes) -> RSAPrivateKey:
    key = load_pem_private_key(pem, None)
    assert isinstance(key, RSAPrivateKey)
    return key


def _pem(key: RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
