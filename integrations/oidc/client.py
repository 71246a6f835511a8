"""The hospital's identity provider: OpenID Connect, authorization code with PKCE.

Its addresses come from its own discovery document, and are taken only where they lead to the issuer's host or
to hosts that the hospital has named; redirects are not followed, so nobody can send us elsewhere. Keys are
fetched anew when a token names one that we do not know, and not more often than every few seconds, so that
made-up tokens cannot make us ask all day.
"""

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import orjson

from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.oidc.id_token import Identity, UnknownKey, verified

log = logging.getLogger(__name__)

SECONDS_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 256 * 1024
DISCOVERY_SECONDS: Final = 3600.0
KEYS_SECONDS: Final = 600.0
KEYS_AGAIN_SECONDS: Final = 10.0
KEYS_MAX: Final = 64
_WHO: Final = "identity provider"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Provider:
    """What the hospital has agreed with its provider."""

    issuer: str  # as it spells itself, https://… without a query
    client_id: str
    client_secret: str
    redirect_uri: str
    scopes: str = "openid profile"
    hosts: frozenset[str] = frozenset()  # besides the issuer's own
    contexts: str = ""  # acr_values that are asked for


@dataclass(frozen=True, slots=True)
class _Addresses:
    authorization: str
    token: str
    keys: str
    methods: frozenset[str]  # how a client may prove itself
    says_issuer: bool  # RFC 9207: the answer names who answers


def challenge_of(verifier: str) -> str:
    """RFC 7636, S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def is_safe_address(address: str) -> bool:
    """https, or a loopback address for tests; no user, no fragment."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return False
    if host is None or parts.username is not None or parts.password is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


class OidcClient:
    """Of one gateway. The session is its owner's to close. `clock` is seconds since 1970."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        provider: Provider,
        clock: Callable[[], float] = time.time,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        self._session = session
        self._provider = provider
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=seconds_max)
        self._addresses: _Addresses | None = None
        self._addresses_at = 0.0
        self._keys: list[Mapping[str, Any]] = []
        self._keys_at = float("-inf")
        self._keys_asked_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._hosts = provider.hosts | {urlsplit(provider.issuer).netloc.lower()}

    async def address_to_sign_in(self, state: str, nonce: str, verifier: str) -> str:
        """Where the browser goes. Raises TryAgain or Refused."""
        addresses = await self._discovered()
        provider = self._provider
        asked = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": provider.redirect_uri,
            "scope": provider.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }
        if provider.contexts:
            asked["acr_values"] = provider.contexts
        joint = "&" if urlsplit(addresses.authorization).query else "?"
        return f"{addresses.authorization}{joint}{urlencode(asked)}"

    async def identity_of(self, code: str, verifier: str, nonce: str, issuer: str | None) -> Identity:
        """Who has signed in over there. `issuer` is what the answer said of who answers, if anything.

        Raises Refused (nobody, or somebody else answered), TryAgain, OutcomeUnknown: the code may be used up.
        """
        addresses = await self._discovered()
        # Mixed up with another provider's answer? RFC 9207.
        if issuer != self._provider.issuer and (issuer is not None or addresses.says_issuer):
            raise Refused("issuer", "the answer is another provider's")
        token = await self._exchanged(addresses, code, verifier)
        keys = await self._current_keys(addresses)
        try:
            return self._verified(token, keys, nonce)
        except UnknownKey:
            pass
        try:
            return self._verified(token, await self._newer_keys(addresses), nonce)
        except UnknownKey:
            raise Refused("key", "signed with none of theirs") from None

    def _verified(self, token: str, keys: list[Mapping[str, Any]], nonce: str) -> Identity:
        provider = self._provider
        return verified(token, keys, provider.issuer, provider.client_id, nonce, self._clock())

    async def _exchanged(self, addresses: _Addresses, code: str, verifier: str) -> str:
        provider = self._provider
        sent = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": provider.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        if "client_secret_basic" in addresses.methods:
            pair = f"{quote(provider.client_id, safe='')}:{quote(provider.client_secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            sent |= {"client_id": provider.client_id, "client_secret": provider.client_secret}
        status, answer = await self._asked("POST", addresses.token, sent, headers)
        if 400 <= status < 500 and status != 429:
            # Their word: invalid_grant for a code that is wrong, used or too old.
            told = answer.get("error")
            word = told if isinstance(told, str) and told.isascii() and told.isidentifier() else "refused"
            raise Refused(word[:64], _WHO)
        if status != 200:
            raise TryAgain(f"{_WHO}: status {status}")
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Refused("no_id_token", _WHO)
        return token

    async def _discovered(self) -> _Addresses:
        async with self._fetching:
            age = self._clock() - self._addresses_at
            if self._addresses is not None and 0 <= age < DISCOVERY_SECONDS:
                return self._addresses
            try:
                self._addresses = await self._discover()
            except TryAgain:
                if self._addresses is None:
                    raise
                log.warning("the identity provider does not describe itself; the last description holds")
            self._addresses_at = self._clock()
            return self._addresses

    async def _discover(self) -> _Addresses:
        issuer = self._provider.issuer
        status, told = await self._asked("GET", issuer.rstrip("/") + "/.well-known/openid-configuration")
        if status != 200:
            raise TryAgain(f"{_WHO}: status {status}")
        if told.get("issuer") != issuer:
            raise Refused("issuer", "its description is another provider's")
        methods = told.get("token_endpoint_auth_methods_supported")
        return _Addresses(
            self._checked(told, "authorization_endpoint"),
            self._checked(told, "token_endpoint"),
            self._checked(told, "jwks_uri"),
            frozenset(methods if isinstance(methods, list) else ("client_secret_basic",)),
            told.get("authorization_response_iss_parameter_supported") is True,
        )

    def _checked(self, told: Mapping[str, Any], name: str) -> str:
        address = told.get(name)
        if not isinstance(address, str) or not is_safe_address(address):
            raise Refused(name, "no safe address")
        if urlsplit(address).netloc.lower() not in self._hosts:
            raise Refused(name, "leads to a host that the hospital has not named")
        return address

    async def _current_keys(self, addresses: _Addresses) -> list[Mapping[str, Any]]:
        async with self._fetching:
            if not 0 <= self._clock() - self._keys_at < KEYS_SECONDS:
                await self._fetch_keys(addresses)
            return self._keys

    async def _newer_keys(self, addresses: _Addresses) -> list[Mapping[str, Any]]:
        async with self._fetching:
            if not 0 <= self._clock() - self._keys_asked_at < KEYS_AGAIN_SECONDS:
                await self._fetch_keys(addresses)
            return self._keys

    async def _fetch_keys(self, addresses: _Addresses) -> None:
        self._keys_asked_at = self._clock()
        try:
            status, told = await self._asked("GET", addresses.keys)
            found = told.get("keys")
            if status != 200 or not isinstance(found, list):
                raise TryAgain(f"{_WHO}: no keys, status {status}")
        except TryAgain:
            if not self._keys:
                raise
            log.warning("the identity provider does not give its keys; the last ones hold")
            return
        self._keys = [key for key in found[:KEYS_MAX] if isinstance(key, dict)]
        self._keys_at = self._clock()

    async def _asked(
        self,
        method: str,
        address: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer. Raises TryAgain, Refused, OutcomeUnknown."""
        try:
            async with self._session.request(
                method,
                address,
                data=form,
                headers={"Accept": "application/json", **(headers or {})},
                allow_redirects=False,
                timeout=self._timeout,
            ) as response:
                if 300 <= response.status < 400:
                    raise Refused("redirect", f"{_WHO} sends us elsewhere")
                content = await response.content.read(ANSWER_BYTES_MAX + 1)
                while len(content) <= ANSWER_BYTES_MAX:
                    more = await response.content.read(ANSWER_BYTES_MAX + 1 - len(content))
                    if not more:
                        break
                    content += more
                status = response.status
        except aiohttp.ClientConnectorError:
            raise TryAgain(f"{_WHO}: out of reach") from None
        except (aiohttp.ClientError, TimeoutError):
            if method == "POST":
                raise OutcomeUnknown(f"{_WHO}: the line broke; a code may be used up") from None
            raise TryAgain(f"{_WHO}: no answer") from None
        if len(content) > ANSWER_BYTES_MAX:
            raise Refused("too_large", _WHO)
        try:
            told = orjson.loads(content)
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict):
            if status >= 400:
                return status, {}
            raise Refused("malformed", _WHO)
        return status, told
