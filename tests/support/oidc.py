"""An identity provider that lies as a test tells it to: for what an honest one never answers."""

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

CLIENT: Final = "xinglin"
SECRET: Final = "a secret: with % and :"
NONCE: Final = "the nonce"
VERIFIER: Final = "v" * 64
CODE: Final = "the code"


@dataclass(slots=True)
class SigningKey:
    kid: str
    algorithm: str = "RS256"
    private: Any = None

    def __post_init__(self) -> None:
        if self.private is None:
            self.private = (
                ec.generate_private_key(ec.SECP256R1())
                if self.algorithm.startswith("ES")
                else rsa.generate_private_key(public_exponent=65537, key_size=2048)
            )

    def public(self, **more: object) -> dict[str, Any]:
        """As it stands among the provider's published keys."""
        kind = ECAlgorithm if self.algorithm.startswith("ES") else RSAAlgorithm
        jwk = kind.to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.kid, "use": "sig", "alg": self.algorithm, **more}

    def signed(self, claims: Mapping[str, Any], **header: object) -> str:
        return jwt.api_jws.encode(  # of any claims: jwt.encode would look at them first
            json.dumps(dict(claims)).encode(),
            self.private,
            algorithm=self.algorithm,
            headers={"typ": "JWT", "kid": self.kid, **header},
        )


def claims(issuer: str, **changed: Any) -> dict[str, Any]:
    """What an honest ID token says; with a value of None that claim is left out."""
    now = int(time.time())
    told = {
        "iss": issuer,
        "sub": "wang-1",
        "aud": CLIENT,
        "exp": now + 300,
        "iat": now,
        "nonce": NONCE,
        **changed,
    }
    return {name: value for name, value in told.items() if value is not None}


@dataclass
class Provider:
    """Honest unless something is changed. `asked` keeps what came in, by path."""

    key: SigningKey
    issuer: str = ""
    description: dict[str, Any] = field(default_factory=dict)  # what it says otherwise of itself
    published: list[dict[str, Any]] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)  # what it says otherwise of the person
    token: str | None = None  # instead of one that it signs
    answers: dict[str, web.Response] = field(default_factory=dict)  # path -> instead of its own
    breaks: str = ""  # at this path the line breaks
    challenge: str = ""
    asked: list[tuple[str, Mapping[str, Any], str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._describe)
        app.router.add_get("/keys", self._keys)
        app.router.add_post("/token", self._token)
        return app

    def times(self, path: str) -> int:
        return sum(1 for asked, _, _ in self.asked if asked == path)

    def _other(self, request: web.Request) -> web.Response | None:
        if request.path == self.breaks and request.transport is not None:
            request.transport.abort()
        given = self.answers.get(request.path)
        return (
            None
            if given is None
            else web.Response(body=given.body, status=given.status, headers=given.headers)
        )

    async def _describe(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, {}, ""))
        told = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            **self.description,
        }
        return self._other(request) or web.json_response(told)

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, {}, ""))
        return self._other(request) or web.json_response({"keys": self.published})

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        self.asked.append((request.path, form, request.headers.get("Authorization", "")))
        if other := self._other(request):
            return other
        digest = hashlib.sha256(str(form.get("code_verifier", "")).encode()).digest()
        proved = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if form.get("code") != CODE or (self.challenge and proved != self.challenge):
            return web.json_response({"error": "invalid_grant"}, status=400)
        token = self.token or self.key.signed(claims(self.issuer, **self.claims))
        return web.json_response({"access_token": "a", "token_type": "Bearer", "id_token": token})


async def served(provider: Provider) -> TestServer:
    """Its server, which the caller closes; the provider's issuer and keys are filled in."""
    server = TestServer(provider.app())
    await server.start_server()
    provider.issuer = str(server.make_url("")).rstrip("/")
    provider.published = provider.published or [provider.key.public()]
    return server
