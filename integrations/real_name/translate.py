"""A question to the register and its answer, in our words. Pure."""

from enum import Enum
from typing import Any, Final

from engine.records.identity import IdType
from integrations.connector import TryAgain

KINDS: Final = {IdType.RESIDENT_ID: "01"}
"""The papers that the register knows, and their codes there. Residence permits of people from Hong Kong,
Macau and Taiwan are numbered as residents' papers are, and are asked for like them."""


class Finding(Enum):
    MATCH = "match"
    MISMATCH = "mismatch"  # the number is somebody else's
    NOT_FOUND = "not_found"  # nobody has it there: soldiers, some newborns, who has just moved


_WORDS: Final = {"match": Finding.MATCH, "mismatch": Finding.MISMATCH, "not_found": Finding.NOT_FOUND}


def question(name: str, id_type: IdType, id_number: str) -> dict[str, str]:
    return {"name": name, "kind": KINDS[id_type], "number": id_number}


def finding_of(answer: Any) -> Finding:
    found = _WORDS.get(str(answer.get("result"))) if isinstance(answer, dict) else None
    if found is None:
        raise TryAgain("real names: an answer that says nothing")
    return found
