"""How many files a process may have open: a socket is one, and thousands of people may look at once."""

import logging
import resource
from typing import Final

log = logging.getLogger(__name__)

OTHERS: Final = 512  # connections of ordinary requests, to shards and to PostgreSQL; log files


def raise_file_limit(connections_max: int) -> None:
    """To the highest that the system allows this process; says so where that is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:
            log.warning("the limit of open files stays at %d: %s", soft, error)
    wanted = connections_max + OTHERS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        log.warning(
            "this process may open %d files, but stream_connections_max=%d needs %d: raise LimitNOFILE"
            " (ulimit -n), or set XINGLIN_STREAM_CONNECTIONS_MAX lower",
            soft,
            connections_max,
            wanted,
        )
