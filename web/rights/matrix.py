"""Reads the matrix of rights: for each operation who may call it, how far, and what of people it tells.

    hold_appointment: {patient: own}
    read_ticket: {patient: own, kiosk: all, doctor: own_department, sees: {default: names, kiosk: masked}}

What is misspelled is refused when the program starts, with the line that it is in.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, Literal

import yaml

from engine.records.partners import SCOPES as SYSTEM_SCOPES
from engine.records.staff import Role

Security = Literal["bearer", "staff", "either", "system"]
Sees = Literal["none", "masked", "names", "phones"]

ANYONE: Final = "anyone"
PATIENT: Final = "patient"
STAFF: Final = "staff"  # whoever works here, with any role or none yet
SIGNED_IN: Final = "signed_in"
SYSTEM: Final = "system"  # another system, with credentials and scopes of its own: docs/PARTNERS.md
CALLERS: Final = frozenset((ANYONE, PATIENT, STAFF, SIGNED_IN, SYSTEM, *Role))
SEES: Final[tuple[Sees, ...]] = ("none", "masked", "names", "phones")
_DEFAULT: Final = "default"


class MatrixWrong(Exception):
    """What is wrong with the matrix, and where."""


@dataclass(frozen=True, slots=True)
class Rights:
    """One line of the matrix."""

    scopes: Mapping[str, str]
    """Caller -> how far. A caller is a role, or one of ANYONE, PATIENT, STAFF, SYSTEM."""
    sees: Mapping[str, Sees] = field(default_factory=dict)

    @property
    def security(self) -> Security | None:
        """Which kinds of token open it; None: it needs none."""
        if ANYONE in self.scopes:
            return None
        if SYSTEM in self.scopes:
            return "system"
        if PATIENT not in self.scopes:
            return "staff"
        return "bearer" if len(self.scopes) == 1 else "either"

    @property
    def roles(self) -> tuple[str, ...]:
        """Any of them will do for staff; none named: all staff, or none where patients alone may."""
        return () if STAFF in self.scopes else tuple(role for role in Role if role in self.scopes)

    def scope_of(self, caller: str) -> str | None:
        """How far a caller may go: a role, PATIENT or ANYONE. None: they may not."""
        if caller in self.scopes:
            return self.scopes[caller]
        if caller in set(Role) and STAFF in self.scopes:
            return self.scopes[STAFF]
        return self.scopes.get(ANYONE)

    def seen_by(self, caller: str) -> Sees:
        return self.sees.get(caller, self.sees.get(_DEFAULT, "none"))

    def seen_by_any(self, roles: Collection[str]) -> Sees:
        """The most that one of these roles sees."""
        may = [role for role in roles if self.scope_of(role) is not None]
        return max(map(self.seen_by, may), key=SEES.index, default="none")


Matrix = Mapping[str, Rights]


def parsed(lines: Mapping[str, Any], scopes: Collection[str]) -> dict[str, Rights]:
    """Name of an operation or of a topic -> its line. Raises MatrixWrong."""
    return {name: _line(name, line, scopes) for name, line in lines.items()}


def _line(name: str, line: Any, known: Collection[str]) -> Rights:
    if not isinstance(line, dict):
        raise MatrixWrong(f"{name}: {line!r} does not say who may")
    scopes = {str(caller): scope for caller, scope in line.items() if caller != "sees"}
    if SIGNED_IN in scopes:
        scope = scopes.pop(SIGNED_IN)
        scopes = {PATIENT: scope, STAFF: scope} | scopes
    if not scopes:
        raise MatrixWrong(f"{name}: nobody may")
    if strange := scopes.keys() - CALLERS:
        raise MatrixWrong(f"{name}: nobody is called {sorted(strange)}; callers are {sorted(CALLERS)}")
    if SYSTEM in scopes and len(scopes) > 1:
        raise MatrixWrong(f"{name}: other systems and people do not share an operation")
    if strange := set(scopes.values()) - (SYSTEM_SCOPES.keys() if SYSTEM in scopes else set(known)):
        raise MatrixWrong(f"{name}: no scopes are called {sorted(strange)}; they are {sorted(known)}")
    if ANYONE in scopes and len(scopes) > 1:
        raise MatrixWrong(f"{name}: where anyone may, nobody else need be named")
    if STAFF in scopes and set(Role) & scopes.keys():
        raise MatrixWrong(f"{name}: where all staff may, no role need be named")
    sees = line.get("sees", "none")
    told: dict[str, Sees] = sees if isinstance(sees, dict) else {_DEFAULT: sees}
    if unknown := set(told.values()) - set(SEES):
        raise MatrixWrong(f"{name}: sees knows {list(SEES)}, not {sorted(unknown)}")
    everyone = set(CALLERS) if STAFF in scopes or ANYONE in scopes else scopes.keys()
    if strange := told.keys() - everyone - {_DEFAULT}:
        raise MatrixWrong(f"{name}: {sorted(strange)} may not call it, so they see nothing")
    return Rights(scopes, told)


class _Loader(yaml.SafeLoader):
    """Plain YAML in which no line comes twice: the second would silently take the first one's place."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise MatrixWrong(f"line {key.start_mark.line + 1}: {key.value} stands there twice")
        seen.add(key.value)
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read(text: str) -> tuple[dict[str, str], dict[str, Rights], dict[str, Rights]]:
    """A matrix's scopes with what they mean, its operations and its topics. Raises MatrixWrong."""
    document = yaml.load(text, _Loader)  # nosec B506  # a SafeLoader, and our own file
    if set(document) != {"scopes", "groups", "operations", "topics"}:
        raise MatrixWrong(f"the matrix has the parts {sorted(document)}")
    known = document["scopes"]
    return known, parsed(document["operations"], known), parsed(document["topics"], known)


SCOPES, MATRIX, TOPICS = read((resources.files("web") / "rights" / "matrix.yaml").read_text())
"""Of the program: each scope and what it means; operation id -> line; kind of topic of the stream -> line."""
