"""Bodies of other systems that may be larger than anybody else's: documents travel in them."""

from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from aiohttp.helpers import parse_content_type

from web.errors import Problem
from web.faults import Fault

FHIR_JSON: Final = "application/fhir+json"
BYTES_MAX: Final = 8 * 1024 * 1024


async def large_json_of(request: web.Request, bytes_max: int = BYTES_MAX) -> tuple[Any, bytes]:
    """The value and its bytes. Raises Problem: XML is not read here, and nothing beyond the limit either."""
    kind, parameters = parse_content_type(request.headers.get(hdrs.CONTENT_TYPE, ""))
    charset = parameters.get("charset", "utf-8").lower()
    if kind not in (FHIR_JSON, "application/json") or charset not in ("utf-8", "utf8"):
        raise Problem(Fault.UNSUPPORTED_MEDIA_TYPE)
    if (request.content_length or 0) > bytes_max:
        raise Problem(Fault.BODY_TOO_LARGE, limit=bytes_max)
    raw = bytearray()
    async for part in request.content.iter_any():
        raw += part
        if len(raw) > bytes_max:
            raise Problem(Fault.BODY_TOO_LARGE, limit=bytes_max)
    try:
        return orjson.loads(raw), bytes(raw)
    except orjson.JSONDecodeError:
        raise Problem(Fault.MALFORMED_JSON) from None
