"""The first part of a multipart/related answer, which is how DICOMweb hands objects out. Pure."""

import re
from typing import Final

from integrations.pacs.pacs import Unreadable

_BOUNDARY: Final = re.compile(r"""boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)


def first_part(content_type: str, body: bytes) -> bytes:
    """What stands in it. Raises Unreadable where it is no multipart, or ends too early."""
    if not content_type.lower().startswith("multipart/related"):
        raise Unreadable("not_multipart")
    named = _BOUNDARY.search(content_type)
    if named is None:
        raise Unreadable("no_boundary")
    line = b"--" + (named[1] or named[2]).encode("ascii", errors="replace")
    begins = 0 if body.startswith(line) else body.find(b"\r\n" + line) + 2
    if begins < 2 and not body.startswith(line):
        raise Unreadable("no_part")
    head_ends = body.find(b"\r\n\r\n", begins + len(line))
    if head_ends < 0:
        raise Unreadable("no_part")
    start = head_ends + 4
    ends = body.find(b"\r\n" + line, start)
    if ends < 0:
        raise Unreadable("cut_off")
    return body[start:ends]
