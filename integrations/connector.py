"""What any outside system may do to us. Every connector raises these three and nothing else.

    ConnectorFailed
    ├── TryAgain          not done: it was busy, away or out of reach; the same request may be sent again
    ├── Refused           not done, and the same request would be refused again; `code` is their word for why
    └── OutcomeUnknown    perhaps done: the line broke after the request left. Ask what became of it before
                          repeating anything that moves money or books a place

A request that changes nothing over there has no unknown outcome: a broken line is then TryAgain.
Messages carry no secrets, no credentials and no patient's data: they end in logs.
"""


class ConnectorFailed(Exception):
    """Something outside did not do what was asked."""


class TryAgain(ConnectorFailed):
    """Not done. `after` is how many seconds they asked us to wait, if they did."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Refused(ConnectorFailed):
    """Not done, and repeating it will not help."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


class OutcomeUnknown(ConnectorFailed):
    """Perhaps done."""
