"""The double-entry ledger: where every fen of a bill is, and where it came from.

A posting is an account and fen: positive is debit, negative is credit. The postings of one event sum to 0, so
those of a bill do, and those of all bills. The accounts:

    patient             credit: money that a patient gave us and that nothing stands against yet
    provider/<name>     debit: what a provider (wechat_pay, alipay, at_hospital: the desk's till) keeps for us
    revenue/<kind>      credit: what the hospital earned with registration, drugs, examinations
    refunds_payable     credit: what we owe back and have not given back yet
    suspense            credit: money that belongs to no bill: of a wrong amount, paid twice, paid too late

patient, refunds_payable and suspense of a bill read 0 when it has come to rest; then what the providers keep
is what the hospital earned.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

PATIENT: Final = "patient"
REFUNDS_PAYABLE: Final = "refunds_payable"
SUSPENSE: Final = "suspense"
TRANSIENT: Final = (PATIENT, REFUNDS_PAYABLE, SUSPENSE)
"""Accounts that are 0 when nothing is left to do."""


class Posting(NamedTuple):
    account: str
    fen: int


def of_provider(name: str) -> str:
    return f"provider/{name}"


def of_revenue(kind: str) -> str:
    return f"revenue/{kind}"


def received(provider: str, fen: int, is_matched: bool) -> tuple[Posting, ...]:
    """Money has come: for the bill, or for nothing that we know."""
    return Posting(of_provider(provider), fen), Posting(PATIENT if is_matched else SUSPENSE, -fen)


def earned(by_kind: Iterable[tuple[str, int]]) -> tuple[Posting, ...]:
    """What the patient gave is the hospital's now: the service is promised to him."""
    shares = [(kind, fen) for kind, fen in by_kind if fen]
    if not shares:
        return ()
    total = Posting(PATIENT, sum(fen for _, fen in shares))
    return total, *(Posting(of_revenue(kind), -fen) for kind, fen in shares)


def owed_back(sources: Iterable[tuple[str, int]]) -> tuple[Posting, ...]:
    """`sources`: accounts and how much of each is given back."""
    taken = tuple(Posting(account, fen) for account, fen in sources)
    return *taken, Posting(REFUNDS_PAYABLE, -sum(fen for _, fen in taken))


def given_back(provider: str, fen: int) -> tuple[Posting, ...]:
    return Posting(REFUNDS_PAYABLE, fen), Posting(of_provider(provider), -fen)


def add(balances: dict[str, int], postings: Iterable[Posting]) -> None:
    for account, fen in postings:
        balances[account] = balances.get(account, 0) + fen


def imbalance(balances: Mapping[str, int]) -> int:
    """Must read 0."""
    return sum(balances.values())
