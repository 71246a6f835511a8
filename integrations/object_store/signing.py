"""AWS Signature Version 4, as S3 wants it: pure, the time is an argument.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, whose examples are the tests.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SERVICE: Final = "s3"


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str = field(repr=False)
    region: str


def signed(
    credentials: Credentials,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    body: bytes,
    at: datetime,
) -> dict[str, str]:
    """All headers to send: `headers` (with `host`), the time, the body's hash, and the signature over them.

    `path` is not yet quoted, and starts with a slash.
    """
    moment = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    sent = {
        **{name.lower(): value.strip() for name, value in headers.items()},
        "x-amz-content-sha256": digest,
        "x-amz-date": moment,
    }
    names = sorted(sent)
    return {
        **sent,
        "authorization": (
            f"{ALGORITHM} Credential={credentials.access_key}/{_scope(credentials, moment)},"
            f"SignedHeaders={';'.join(names)},"
            f"Signature={signature(credentials, method, path, query, sent, digest, moment)}"
        ),
    }


def signature(
    credentials: Credentials,
    method: str,
    path: str,
    query: Mapping[str, str],
    sent: Mapping[str, str],
    digest: str,
    moment: str,
) -> str:
    """Of a request with exactly these headers, their names in lower case."""
    names = sorted(sent)
    canonical = "\n".join(
        [
            method,
            quoted(path),
            query_text(query),
            *(f"{name}:{sent[name]}" for name in names),
            "",
            ";".join(names),
            digest,
        ]
    )
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join([ALGORITHM, moment, _scope(credentials, moment), hashed])
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (moment[:8], credentials.region, SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def quoted(path: str) -> str:
    return quote(path, safe="/-_.~")


def query_text(query: Mapping[str, str]) -> str:
    """In the order in which it is signed; the same text is sent."""
    pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def _scope(credentials: Credentials, moment: str) -> str:
    return f"{moment[:8]}/{credentials.region}/{SERVICE}/aws4_request"
