"""A small object store that speaks S3's wire, for tests: one bucket in memory, every signature checked."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from xml.sax.saxutils import escape  # nosec B406  # it writes, it does not parse

from aiohttp import web

from integrations.object_store.signing import Credentials, signature

SKEW_MAX: Final = timedelta(minutes=15)
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_BODY_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(slots=True)
class Sandbox:
    """What it holds, and what is wrong with it at the moment."""

    bucket: str
    credentials: Credentials
    now: Callable[[], datetime]
    page: int = 1000  # names of one answer
    objects: dict[str, bytes] = field(default_factory=dict)
    down: int = 0  # so many requests are answered with 503 SlowDown
    asked: int = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        if self.down > 0:
            self.down -= 1
            return _error(503, "SlowDown")
        wrong = self._wrong(request, body)
        if wrong:
            return _error(403, wrong)
        bucket, _, name = request.path.removeprefix("/").partition("/")
        if bucket != self.bucket:
            return _error(404, "NoSuchBucket")
        if request.method == "PUT" and name:
            self.objects[name] = body
            return web.Response()
        if request.method == "DELETE" and name:
            self.objects.pop(name, None)
            return web.Response(status=204)
        if request.method == "GET" and name:
            if name not in self.objects:
                return _error(404, "NoSuchKey")
            return web.Response(body=self.objects[name], content_type="binary/octet-stream")
        if request.method == "GET" and request.query.get("list-type") == "2":
            return self._list(request.query.get("prefix", ""), request.query.get("continuation-token", ""))
        return _error(405, "MethodNotAllowed")

    def _wrong(self, request: web.Request, body: bytes) -> str:
        """The code of what is wrong with the request's signature; '' where it is right."""
        head = request.headers
        try:
            scheme, _, rest = head["authorization"].partition(" ")
            said = dict(part.strip().split("=", 1) for part in rest.split(","))
            moment = head["x-amz-date"]
            at = datetime.strptime(f"{moment}+0000", "%Y%m%dT%H%M%SZ%z")
            sent = {name: head[name] for name in said["SignedHeaders"].split(";")}
            access_key, day, region, service, end = said["Credential"].split("/")
        except (KeyError, ValueError):
            return "AuthorizationHeaderMalformed"
        if scheme != "AWS4-HMAC-SHA256" or (day, service, end) != (moment[:8], "s3", "aws4_request"):
            return "AuthorizationHeaderMalformed"
        if access_key != self.credentials.access_key:
            return "InvalidAccessKeyId"
        if region != self.credentials.region:
            return "AuthorizationHeaderMalformed"
        if abs(self.now() - at) > SKEW_MAX:
            return "RequestTimeTooSkewed"
        if "host" not in sent or head.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
            return "XAmzContentSHA256Mismatch"
        wanted = signature(
            self.credentials,
            request.method,
            request.path,
            dict(request.query),
            sent,
            sent.get("x-amz-content-sha256", ""),
            moment,
        )
        return "" if hmac.compare_digest(wanted, said["Signature"]) else "SignatureDoesNotMatch"

    def _list(self, prefix: str, after: str) -> web.Response:
        names = sorted(name for name in self.objects if name.startswith(prefix) and name > after)
        page, more = names[: self.page], len(names) > self.page
        contents = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(self.objects[name])}</Size></Contents>"
            for name in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return web.Response(
            text=f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{_NAMESPACE}">'
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{contents}{token}</ListBucketResult>",
            content_type="application/xml",
        )


def _error(status: int, code: str) -> web.Response:
    return web.Response(
        status=status,
        text=f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code></Error>',
        content_type="application/xml",
    )
