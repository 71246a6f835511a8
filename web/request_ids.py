"""Every request has an id: logs, the audit and the answer name it.

Whoever stands before us may have given one (nginx: `proxy_set_header X-Request-Id $request_id`); it is taken
where it is 32 hexadecimal digits or a UUID, so that nobody can put a telephone or a second line there. It
joins lines and proves nothing.
"""

import itertools
import re
import secrets
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from engine.logs import REQUEST_ID

HEADER: Final = "X-Request-Id"
_PROCESS: Final = secrets.token_hex(8)  # a process's own; asking the kernel for each request costs more
_NUMBER: Final = itertools.count(secrets.randbits(48))
_GIVEN: Final = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
ITS_ID: Final = web.RequestKey("its_id", str)


def id_of(headers: Mapping[str, str]) -> str:
    """The one that was given, or a new one."""
    given = headers.get(HEADER)
    if given is not None and _GIVEN.fullmatch(given):
        return given.replace("-", "").lower()
    return f"{_PROCESS}{next(_NUMBER):016x}"


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost: whatever happens further in has an id."""
    request[ITS_ID] = id_of(request.headers)
    lines_carry = REQUEST_ID.set(request[ITS_ID])
    try:
        return await handler(request)
    finally:
        REQUEST_ID.reset(lines_carry)


def request_id_of(request: web.BaseRequest) -> str:
    """32 hexadecimal digits; "" where the middleware is not there."""
    found: str = request.get(ITS_ID, "")
    return found


async def named(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """The answer's header, also of streams."""
    found = request_id_of(request)
    if found:
        response.headers[HEADER] = found
