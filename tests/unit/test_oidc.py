"""The identity provider's client: forged ID tokens of every kind, and providers that lead us astray."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from aiohttp import ClientSession, web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from integrations.connector import OutcomeUnknown, Refused, TryAgain
from integrations.oidc.client import (
    KEYS_AGAIN_SECONDS,
    KEYS_SECONDS,
    OidcClient,
    challenge_of,
    is_safe_address,
)
from integrations.oidc.client import Provider as Agreed
from integrations.oidc.id_token import SKEW_SECONDS, UnknownKey, verified
from tests.support.oidc import CLIENT, CODE, NONCE, SECRET, VERIFIER, Provider, SigningKey, claims, served
from web.sign_in.oidc import UNDER_WAY_SECONDS, Journeys

ISSUER = "https://id.hospital.example"
RSA = SigningKey("rsa-1")
PSS = SigningKey("rsa-1", "PS256", RSA.private)
EC = SigningKey("ec-1", "ES256")
KEYS = [RSA.public(alg=None), EC.public()]
KEYS = [{name: value for name, value in key.items() if value is not None} for key in KEYS]


def of(token: str, keys: list[dict[str, Any]] = KEYS, nonce: str = NONCE) -> str:
    return verified(token, keys, ISSUER, CLIENT, nonce, time.time()).subject


def refused(token: str, keys: list[dict[str, Any]] = KEYS) -> str:
    with pytest.raises(Refused) as raised:
        of(token, keys)
    return raised.value.code


@pytest.mark.parametrize("key", [RSA, PSS, EC], ids=["RS256", "PS256", "ES256"])
def test_an_honest_token_tells_who_it_is(key: SigningKey):
    told = claims(ISSUER, amr=["pwd", "otp"], acr="gold", name="王医生")
    identity = verified(key.signed(told), KEYS, ISSUER, CLIENT, NONCE, time.time())
    assert identity.subject == "wang-1" and identity.issuer == ISSUER
    assert identity.methods == {"pwd", "otp"} and identity.context == "gold" and identity.name == "王医生"
    many = claims(ISSUER, aud=[CLIENT, "another"], azp=CLIENT)
    assert of(key.signed(many)) == "wang-1"


def _part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unsigned(algorithm: str) -> str:
    return f"{_part({'alg': algorithm, 'kid': 'rsa-1'})}.{_part(claims(ISSUER))}."


def _signed_with_the_public_key() -> str:
    """HS256 with what everybody can read as its secret."""
    pem = RSA.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head = f"{_part({'alg': 'HS256', 'kid': 'rsa-1', 'typ': 'JWT'})}.{_part(claims(ISSUER))}"
    return f"{head}.{_part(hmac.digest(pem, head.encode(), hashlib.sha256))}"


STRANGER = SigningKey("rsa-1")  # says the provider's kid, is not its key
FORGED: dict[str, tuple[str, str]] = {
    "not signed": (_unsigned("none"), "algorithm"),
    "not signed, spelled otherwise": (_unsigned("nOnE"), "algorithm"),
    "signed with the published key": (_signed_with_the_public_key(), "algorithm"),
    "signed with our secret": (
        jwt.encode(claims(ISSUER), SECRET * 2, algorithm="HS256", headers={"kid": "rsa-1"}),
        "algorithm",
    ),
    "a stranger's key": (STRANGER.signed(claims(ISSUER)), "signature"),
    "a stranger's key in the header": (
        STRANGER.signed(claims(ISSUER), jwk=STRANGER.public()),
        "signature",
    ),
    "a stranger's address of keys": (
        STRANGER.signed(claims(ISSUER), jku="https://evil.example/keys", x5u="https://evil.example/c"),
        "signature",
    ),
    "an extension that must be understood": (RSA.signed(claims(ISSUER), crit=["exp2"], exp2=1), "malformed"),
    "a shorter digest": (
        jwt.encode(claims(ISSUER), RSA.private, algorithm="RS384", headers={"kid": "rsa-1"}),
        "algorithm",
    ),
    "no token": ("x.y.z", "malformed"),
    "empty": ("", "malformed"),
    "five parts, as encrypted ones have": ("a.b.c.d.e", "malformed"),
    "too long": ("a" * 20_000, "too_long"),
    "changed afterwards": (
        ".".join(
            (
                (parts := RSA.signed(claims(ISSUER)).split("."))[0],
                _part(claims(ISSUER, sub="director")),
                parts[2],
            )
        ),
        "signature",
    ),
    "claims that are a list": (
        jwt.api_jws.encode(b"[]", RSA.private, algorithm="RS256", headers={"kid": "rsa-1"}),
        "signature",
    ),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_token_is_refused(kind: str):
    token, why = FORGED[kind]
    assert refused(token) == why


NOW = int(time.time())
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"iss": ISSUER + ".evil.example"}, "issuer"),
    "an issuer that begins the same": ({"iss": ISSUER[:-1]}, "issuer"),
    "the issuer in a list": ({"iss": [ISSUER]}, "issuer"),
    "no issuer": ({"iss": None}, "issuer"),
    "for another client": ({"aud": "other"}, "audience"),
    "for others": ({"aud": ["other", "third"]}, "audience"),
    "for a client whose name holds ours": ({"aud": CLIENT + "2"}, "audience"),
    "for nobody": ({"aud": None}, "audience"),
    "an audience that is a number": ({"aud": 7}, "audience"),
    "for several, and not said who asked": ({"aud": [CLIENT, "other"]}, "authorized_party"),
    "another one asked": ({"azp": "other"}, "authorized_party"),
    "over": ({"exp": NOW - SKEW_SECONDS - 5}, "expired"),
    "no end": ({"exp": None}, "exp"),
    "an end that is a word": ({"exp": "2999"}, "exp"),
    "an end that is true": ({"exp": True}, "exp"),
    "an end that is no number": ({"exp": float("nan")}, "exp"),
    "an end beyond all bounds": ({"exp": 1e300}, "exp"),
    "made tomorrow": ({"iat": NOW + 86_400}, "issued_at"),
    "made yesterday": ({"iat": NOW - 86_400}, "issued_at"),
    "no time": ({"iat": None}, "iat"),
    "not yet good": ({"nbf": NOW + 86_400}, "not_yet"),
    "another sign-in's": ({"nonce": "another"}, "nonce"),
    "no nonce": ({"nonce": None}, "nonce"),
    "a nonce in a list": ({"nonce": [NONCE]}, "nonce"),
    "of nobody": ({"sub": None}, "subject"),
    "of an empty name": ({"sub": ""}, "subject"),
    "of a number": ({"sub": 7}, "subject"),
    "of two lines": ({"sub": "a\nb"}, "subject"),
    "of a long name": ({"sub": "a" * 256}, "subject"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_token_that_says_something_else_is_refused(kind: str):
    changed, why = WRONG[kind]
    assert refused(RSA.signed(claims(ISSUER, **changed))) == why


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
def test_keys_are_used_for_what_they_are():
    token = RSA.signed(claims(ISSUER))
    with pytest.raises(UnknownKey):
        of(token, [RSA.public(use="enc")])
    with pytest.raises(UnknownKey):
        of(token, [RSA.public(alg="PS256")])
    with pytest.raises(UnknownKey):
        of(token, [EC.public(kid="rsa-1")])
    with pytest.raises(UnknownKey):
        of(token, [RSA.public(kid="another")])
    assert refused(token, [RSA.public(), RSA.public()]) == "key", "one name, two keys"
    short = SigningKey("short", private=rsa.generate_private_key(public_exponent=65537, key_size=1024))
    assert refused(short.signed(claims(ISSUER)), [short.public()]) == "key"
    nameless = {name: value for name, value in RSA.public().items() if name != "kid"}
    unnamed = jwt.encode(claims(ISSUER), RSA.private, algorithm="RS256")
    assert of(unnamed, [nameless]) == "wang-1", "a provider with one key need not name it"


def test_addresses_are_encrypted_or_at_home():
    for good in ("https://id.example/x", "http://127.0.0.1:9/x", "http://localhost:9/x", "http://[::1]:9/x"):
        assert is_safe_address(good)
    for bad in (
        "http://id.example/x",
        "ftp://id.example/x",
        "file:///etc/passwd",
        "https://u:p@id.example/x",
        "https://id.example/x#y",
        "http://127.0.0.1.evil.example/x",
        "http://localhost@evil.example/x",
        "https://[::1",
        "",
        "//id.example",
    ):
        assert not is_safe_address(bad), bad


# Over the wire.


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider(SigningKey("one", private=RSA.private), challenge=challenge_of(VERIFIER))
    server = await served(provider)
    yield provider
    await server.close()


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


def agreed(provider: Provider, **more: Any) -> Agreed:
    made = Agreed(provider.issuer, CLIENT, SECRET, "https://xinglin.example/api/v1/oidc/callback")
    return replace(made, **more)


@pytest.fixture
def client(provider: Provider, session: ClientSession, clock: Clock) -> OidcClient:
    return OidcClient(session, agreed(provider), clock)


async def who(client: OidcClient, issuer: str | None = None, code: str = CODE) -> str:
    return (await client.identity_of(code, VERIFIER, NONCE, issuer)).subject


async def why(client: OidcClient, issuer: str | None = None, code: str = CODE) -> str:
    with pytest.raises(Refused) as raised:
        await who(client, issuer, code)
    return raised.value.code


async def test_the_way_there_and_back(client: OidcClient, provider: Provider):
    address = urlsplit(await client.address_to_sign_in("s", NONCE, VERIFIER))
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{provider.issuer}/authorize"
    assert asked == {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": "https://xinglin.example/api/v1/oidc/callback",
        "scope": "openid profile",
        "state": "s",
        "nonce": NONCE,
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
    }
    assert await who(client) == "wang-1"
    path, form, authorization = provider.asked[-2]
    assert path == "/token" and form["code_verifier"] == VERIFIER and "client_secret" not in form
    # RFC 6749, 2.3.1: both halves are encoded before they are joined.
    assert (
        base64.b64decode(authorization.removeprefix("Basic "))
        == b"xinglin:a%20secret%3A%20with%20%25%20and%20%3A"
    )


def test_the_challenge_is_that_of_the_specification():
    assert (
        challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
        == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


async def test_a_secret_in_the_form_where_the_provider_wants_it_there(
    provider: Provider, session: ClientSession
):
    provider.description = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert await who(OidcClient(session, agreed(provider))) == "wang-1"
    _, form, authorization = provider.asked[-2]
    assert form["client_secret"] == SECRET and not authorization


async def test_another_verifier_buys_nothing(client: OidcClient):
    with pytest.raises(Refused, match="invalid_grant"):
        await client.identity_of(CODE, "w" * 64, NONCE, None)


async def test_a_wrong_code_and_wrong_nonce_are_refused(client: OidcClient):
    assert await why(client, code="used") == "invalid_grant"
    with pytest.raises(Refused, match="nonce"):
        await client.identity_of(CODE, VERIFIER, "another nonce", None)


async def test_an_answer_of_another_provider_is_no_answer(client: OidcClient, provider: Provider):
    """Mix-up (RFC 9207): the code is not even shown to our provider."""
    assert await why(client, issuer="https://evil.example") == "issuer"
    assert provider.times("/token") == 0
    assert await who(client, issuer=provider.issuer) == "wang-1"


async def test_who_says_that_it_names_itself_must_do_so(provider: Provider, session: ClientSession):
    provider.description = {"authorization_response_iss_parameter_supported": True}
    client = OidcClient(session, agreed(provider))
    assert await why(client) == "issuer"
    assert await who(client, provider.issuer) == "wang-1"


async def test_new_keys_are_fetched_when_they_are_used(client: OidcClient, provider: Provider, clock: Clock):
    assert await who(client) == "wang-1" and provider.times("/keys") == 1
    assert await who(client) == "wang-1" and provider.times("/keys") == 1, "kept"
    new = SigningKey("two")
    provider.key, provider.published = new, [provider.published[0], new.public()]
    clock.now += KEYS_AGAIN_SECONDS + 1
    assert await who(client) == "wang-1" and provider.times("/keys") == 2
    # The old one is withdrawn: after a while it is no longer good.
    provider.key, provider.published = SigningKey("one", private=RSA.private), [new.public()]
    assert await who(client) == "wang-1"
    clock.now += KEYS_SECONDS + 1
    provider.claims = {"iat": int(clock.now), "exp": int(clock.now) + 60}
    assert await why(client) == "key"


async def test_made_up_keys_do_not_make_us_ask_all_day(client: OidcClient, provider: Provider, clock: Clock):
    assert await who(client) == "wang-1"
    provider.key = SigningKey("nobody's")
    clock.now += KEYS_AGAIN_SECONDS + 1
    for _ in range(20):
        assert await why(client) == "key"
    assert provider.times("/keys") == 2


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token"])
async def test_redirects_are_not_followed(client: OidcClient, provider: Provider, path: str):
    provider.answers[path] = web.Response(status=302, headers={"Location": f"{provider.issuer}/elsewhere"})
    assert await why(client) == "redirect"
    assert provider.times("/elsewhere") == 0


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/x",
        "http://evil.example/x",
        "http://127.0.0.1:1/x",
        "file:///etc/passwd",
        7,
        None,
    ],
)
async def test_hosts_are_the_issuers_or_named(
    provider: Provider, session: ClientSession, name: str, address: object
):
    provider.description = {name: address}
    assert await why(OidcClient(session, agreed(provider))) == name


async def test_a_named_host_will_do(provider: Provider, session: ClientSession):
    other = Provider(provider.key, challenge=provider.challenge)
    server = await served(other)
    try:
        provider.description = {"jwks_uri": f"{other.issuer}/keys"}
        hosts = frozenset({other.issuer.removeprefix("http://")})
        assert await who(OidcClient(session, agreed(provider, hosts=hosts))) == "wang-1"
        assert other.times("/keys") == 1
    finally:
        await server.close()


async def test_a_description_of_another_provider_is_refused(provider: Provider, session: ClientSession):
    provider.description = {"issuer": "https://evil.example"}
    assert await why(OidcClient(session, agreed(provider))) == "issuer"


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token"])
async def test_what_is_too_large_or_no_json_is_refused(client: OidcClient, provider: Provider, path: str):
    provider.answers[path] = web.Response(body=b"[" + b"0," * 200_000 + b"0]")
    assert await why(client) == "too_large"
    provider.answers[path] = web.Response(body=b"<html>")
    assert await why(client) == "malformed"
    provider.answers[path] = web.Response(body=b"[]")
    assert await why(client) == "malformed"


async def test_a_provider_that_is_away_is_waited_for(client: OidcClient, provider: Provider):
    provider.answers["/token"] = web.Response(status=503)
    with pytest.raises(TryAgain):
        await who(client)
    provider.answers["/.well-known/openid-configuration"] = web.Response(status=500)
    provider.answers.pop("/token")
    assert await who(client) == "wang-1", "its description is kept"


async def test_a_line_that_breaks_leaves_open_what_became_of_the_code(client: OidcClient, provider: Provider):
    provider.breaks = "/.well-known/openid-configuration"
    with pytest.raises(TryAgain):
        await who(client)
    provider.breaks = "/token"
    with pytest.raises(OutcomeUnknown):
        await who(client)
    provider.breaks = ""
    assert await who(client) == "wang-1"


async def test_nobody_there_is_tried_again(provider: Provider, session: ClientSession):
    with pytest.raises(TryAgain):
        await who(OidcClient(session, agreed(provider, issuer="http://127.0.0.1:1")))


# Journeys


def test_a_journey_ends_once_in_the_browser_where_it_began(clock: Clock):
    journeys = Journeys(b"k" * 32, clock)
    journey = journeys.begin()
    sealed = journeys.sealed(journey)
    assert journeys.taken_up(None, journey.state) is None, "another browser"
    assert journeys.taken_up(sealed, "another state") is None
    assert journeys.taken_up(sealed, "") is None
    assert journeys.taken_up(sealed[:-4] + "AAAA", journey.state) is None
    assert journeys.taken_up("é", journey.state) is None
    assert Journeys(b"j" * 32, clock).taken_up(sealed, journey.state) is None, "sealed by somebody else"
    assert Journeys(b"k" * 32, clock).taken_up(sealed, journey.state) == journey, "at another gateway"
    assert journeys.taken_up(sealed, journey.state) == journey
    assert journeys.taken_up(sealed, journey.state) is None, "a second time"
    late = journeys.begin()
    clock.now += UNDER_WAY_SECONDS + 1
    assert journeys.taken_up(journeys.sealed(late), late.state) is None


def test_journeys_are_all_different_and_tell_nothing():
    journeys = Journeys(b"k" * 32)
    made = [journeys.begin() for _ in range(50)]
    assert len({secret for each in made for secret in (each.state, each.nonce, each.verifier)}) == 150
    for each in made:
        assert 43 <= len(each.verifier) <= 128, "RFC 7636"
        sealed = journeys.sealed(each)
        assert each.verifier not in base64.urlsafe_b64decode(sealed).decode("latin-1")
        assert len(sealed) < 500
