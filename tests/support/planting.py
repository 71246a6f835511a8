"""Values that are nobody's, put into every input of the API, so that they can be looked for in outputs."""

import contextlib
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import requests

from tests.support.fuzzing import SECONDS_MAX, World, real_path, real_values
from tests.support.system import System

NAME: Final = "橘翡翠"
ID_NUMBER: Final = f"PLNT{secrets.randbelow(10**5):05}Q"  # a passport's; of this run
RESIDENT_ID: Final = "110101199003078670"
PHONE: Final = "13977665544"
NOTE: Final = "种下的话plantednote"
PASSWORD: Final = "planted-Pa55word-7731"
USERNAME: Final = "planted.username"
DEVICE: Final = "planted-device-7731"
AGENT: Final = "PlantedAgent/7.7 (planted)"
KEY: Final = "planted-key-7731"
IN_PATH: Final = "planted-path-7731"
IN_QUERY: Final = "planted-query-7731"
TOKEN: Final = "planted-token-7731"
PLANTED: Final = (
    NAME,
    ID_NUMBER,
    RESIDENT_ID,
    PHONE,
    NOTE,
    "plantednote",
    PASSWORD,
    USERNAME,
    DEVICE,
    AGENT,
    KEY,
    IN_PATH,
    IN_QUERY,
    TOKEN,
)
PERSONAL: Final = (NAME, ID_NUMBER, RESIDENT_ID, PHONE, NOTE, PASSWORD)
HEADERS: Final = {
    "User-Agent": AGENT,
    "X-Device-Id": DEVICE,
    "Referer": f"https://planted.example/{IN_PATH}",
    "X-Forwarded-For": "198.51.100.77",
    "X-Request-Id": PHONE,  # is none, and must not be taken for one
    "Cookie": f"planted={TOKEN}",
}
_BY_NAME: Final = {
    "name": NAME,
    "phone": PHONE,
    "id_number": ID_NUMBER,
    "id_type": "passport",
    "username": USERNAME,
    "password": PASSWORD,
    "birth_date": "1990-03-07",
    "otp": "773177",
}


def spellings(value: str) -> Iterator[bytes]:
    """How a value may look in an output: as it is, in JSON's and in URLs' escapes, in hex."""
    raw = value.encode()
    yield raw
    yield value.encode("unicode_escape")
    yield requests.utils.quote(value, safe="").encode()
    yield raw.hex().encode()


def found_in(content: bytes, values: Iterable[str] = PLANTED) -> list[str]:
    lowered = content.lower()
    return [value for value in values if any(each.lower() in lowered for each in spellings(value))]


@dataclass(slots=True)
class Planting:
    """Sends, and keeps what was answered."""

    world: World
    document: dict[str, Any]
    sent: int = 0
    ours: str = field(default_factory=lambda: secrets.token_hex(4))
    statuses: dict[int, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    """Refusals that repeat what is personal."""

    def everywhere(self) -> None:
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                self._operation(method.upper(), path, operation)

    def _operation(self, method: str, path: str, operation: dict[str, Any]) -> None:
        name = operation["operationId"]
        caller = self.world.caller_of(name)
        ids = self.world.ids
        given = dict.fromkeys(re.findall(r"{(\w+)}", path), IN_PATH)
        lost = path.format_map({key: f"{IN_PATH}{PHONE}" for key in given})
        real = path.format_map(real_path(path, given, ids))
        query = {
            p["name"]: f"{IN_QUERY}{NAME}" for p in operation.get("parameters", ()) if p["in"] == "query"
        }
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        bodies: list[Any] = [None]
        if content is not None:
            schema = content["schema"]
            fitting = real_values(self._sample(schema), ids)
            bodies = [
                fitting,
                self._wrong(schema),
                f'{{"name": "{NAME}", "phone": {PHONE}, "note": "{NOTE}'.encode(),
            ]
        for body in bodies:
            self.send(method, real, caller, body)
            self.send(method, lost, caller, body)
        self.send(method, real, caller, bodies[0], query={**query, "unheard_of": f"{IN_QUERY}{PHONE}"})
        self.send(method, real, caller, bodies[0], headers={"Authorization": f"Bearer {TOKEN}{PHONE}"})
        self.send(method, real, caller, bodies[0], headers={"Idempotency-Key": f"{KEY} {NOTE}".encode()})

    def send(
        self,
        method: str,
        path: str,
        caller: str,
        body: Any = None,
        query: dict[str, str] | None = None,
        headers: dict[str, Any] | None = None,
    ) -> requests.Response:
        self.sent += 1
        sent = {
            **HEADERS,
            "Idempotency-Key": f"{KEY}-{self.ours}-{self.sent}",
            "Content-Type": "application/json",
            **self.world.headers_of(caller),
            **(headers or {}),
        }
        raw = body if isinstance(body, bytes) else None
        answer = self.world.session.request(
            method,
            self.world.address + path,
            params=query,
            data=raw,
            json=body if raw is None else None,
            headers=sent,
            timeout=SECONDS_MAX,
        )
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        if answer.status_code == 401 and headers is None:
            self.world.sign_in_again(caller)
        if answer.status_code >= 400 and (said := found_in(answer.content, PERSONAL)):
            self.told.append(f"{method} {path}: {answer.status_code} repeats {said}: {answer.text[:300]}")
        return answer

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return self._resolved(schema[several][0])
        return schema

    def _sample(self, schema: dict[str, Any], name: str = "") -> Any:
        """A body that may well do, with planted words wherever words are free."""
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if name in _BY_NAME and schema.get("type") == "string":
            return _BY_NAME[name]
        if "enum" in schema:
            return schema["enum"][0]
        match schema.get("type"):
            case "object":
                return {key: self._sample(each, key) for key, each in schema.get("properties", {}).items()}
            case "array":
                return [self._sample(schema.get("items", {}), name)]
            case "integer":
                return schema.get("minimum", 1)
            case "number":
                return schema.get("minimum", 1)
            case "boolean":
                return False
            case "string" if "format" in schema:
                at = {"date": "2026-12-01", "date-time": "2026-12-01T08:00:00+08:00", "uuid": "0" * 32}
                return at.get(schema["format"], NOTE)
        return NOTE[: schema.get("maxLength", 999)]

    def _wrong(self, schema: dict[str, Any]) -> Any:
        """Words where numbers should be, lists where words should be; planted ones."""
        schema = self._resolved(schema)
        if schema.get("type") == "object":
            return {
                key: [NAME, {ID_NUMBER: PHONE}]
                if self._resolved(each).get("type") == "string"
                else f"{NAME}{PHONE}"
                for key, each in schema.get("properties", {}).items()
            }
        return f"{NAME}{PHONE}"


def outputs(system: System) -> dict[str, bytes]:
    """All that a running system has written for people to read: stderr, logs, PostgreSQL's and Ray's."""
    found = {"stdout and stderr": system.log.read_bytes()}
    files = [*system.home.glob("*.log*"), *(system.home / "logs").rglob("*")]
    for folder in _ray_folders(system):
        files += [
            file for file in folder.rglob("logs/**/*") if file.suffix in (".log", ".out", ".err", ".txt")
        ]
    for file in files:
        if file.is_file():
            found[str(file)] = file.read_bytes()
    return found


def _ray_folders(system: System) -> set[Path]:
    """Of the Ray that this system started: what its processes were told."""
    lines = []
    for process in psutil.Process(system.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            lines.append(" ".join(process.cmdline()))
    folders = {Path(found) for line in lines for found in re.findall(r"=(/\S*/xl-[^/\s]+)/session_", line)}
    assert folders, "where does Ray write?"
    return folders
