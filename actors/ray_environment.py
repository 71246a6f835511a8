"""What Ray reads from the environment, and only once: when it is imported. So this comes first."""

import os
import secrets
import sys


def prepare(address: str | None) -> None:
    """Token authentication on, usage statistics off. A Ray of our own gets a token for this run alone; for a
    running cluster its own token is used (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token)."""
    assert "ray" not in sys.modules, "too late: Ray has read its environment"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray runs workers at niceness 15, behind everything else on the machine; ours are the service itself.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A caller learns of an actor's death at once, not after a second spent on finding out why it died.
    os.environ.setdefault("RAY_timeout_ms_task_wait_for_death_info", "20")
    if address is None:
        # Named for the systems where it is the default: every server binds to the loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
