"""Searches as FHIR spells them: strict unless the client prefers to be forgiven, bounded, in pages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.helpers import parse_content_type
from multidict import MultiMapping

from web import keys
from web.errors import Entry, Problem
from web.faults import Fault
from web.partner.fhir.names import BASE, ID, reference_of

COUNT_DEFAULT: Final = 50
COUNT_MAX: Final = 200
OFFSET_MAX: Final = 100_000
FORM_BYTES_MAX: Final = 8_192
VALUES_MAX: Final = 50  # of one parameter, with commas between them
_EVERYWHERE: Final = ("_format", "_count", "_offset", "_total", "_id")
_JSON: Final = ("json", "application/json", "application/fhir+json", "text/json")
_PREFIXED: Final = re.compile(
    r"(eq|gt|lt|ge|le|sa|eb)?"
    r"(\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(?:\.\d{1,6})?)?(?:Z|[+-]\d{2}:\d{2})?)?)",
    re.ASCII,
)
_HANDLING: Final = re.compile(r"\bhandling\s*=\s*(strict|lenient)\b")


@dataclass(frozen=True, slots=True)
class Span:
    """When: `prefix` and the time it is about, from `begins` (inclusive) to `ends` (exclusive)."""

    prefix: str
    begins: datetime
    ends: datetime

    def holds(self, begins: datetime, ends: datetime) -> bool:
        """Of a target that lasts from `begins` to `ends`; as the specification has it for periods."""
        match self.prefix:
            case "eq":
                return self.begins <= begins and ends <= self.ends
            case "ge":
                return ends > self.begins
            case "gt":
                return ends > self.ends
            case "le":
                return begins < self.ends
            case "lt":
                return begins < self.begins
            case "sa":
                return begins >= self.ends
            case _:  # eb
                return ends <= self.begins


@dataclass(frozen=True, slots=True)
class Search:
    """One search: what of it is known, and which page."""

    values: Mapping[str, Sequence[str]]
    """Parameter -> each time that it is given; several times must all hold."""
    count: int
    offset: int
    zone: tzinfo
    ignored: tuple[str, ...] = field(default=())

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def any_of(self, name: str) -> list[str] | None:
        """The alternatives of a parameter that may be given once. None: it is not given."""
        given = self.values.get(name)
        if given is None:
            return None
        if len(given) > 1:
            raise _wrong(name, "repeated")
        found = [one.strip() for one in given[0].split(",")]
        if len(found) > VALUES_MAX or not all(found):
            raise _wrong(name, "string_pattern_mismatch")
        return found

    def codes(self, name: str, known: Sequence[str]) -> list[str] | None:
        found = self.any_of(name)
        for one in found or ():
            if one.rpartition("|")[2] not in known:
                raise _wrong(name, "literal_error", expected=", ".join(known))
        return None if found is None else [one.rpartition("|")[2] for one in found]

    def tokens(self, name: str, system: str) -> list[str] | None:
        """Codes of `system`, with or without saying so."""
        found = self.any_of(name)
        if found is None:
            return None
        for one in found:
            of, bar, _ = one.rpartition("|")
            if bar and of != system:
                raise _wrong(name, "literal_error", expected=system)
        return [one.rpartition("|")[2] for one in found]

    def references(self, name: str, kind: str) -> list[str] | None:
        """Ids, of "Kind/id" or the id alone."""
        found = self.any_of(name)
        ids = []
        for one in found or ():
            referred = reference_of(one)
            if referred is not None and referred[0] == kind:
                ids.append(referred[1])
            elif ID.fullmatch(one):
                ids.append(one)
            else:
                raise _wrong(name, "reference", kind=kind)
        return None if found is None else ids

    def spans(self, name: str) -> list[Span]:
        """All of them must hold."""
        found = []
        for one in self.values.get(name, ()):
            if "," in one:
                raise _wrong(name, "fhir_date")
            span = span_of(one, self.zone)
            if span is None:
                raise _wrong(name, "fhir_date")
            found.append(span)
        return found


def span_of(text: str, zone: tzinfo) -> Span | None:
    """None: it is no date of FHIR's, or has a prefix that we do not keep."""
    found = _PREFIXED.fullmatch(text.replace(" ", "+"))  # a "+" that nobody escaped
    if found is None:
        return None
    try:
        if found[3] is None:
            day = date.fromisoformat(found[2])
            if not 1900 < day.year < 9000:
                return None
            begins = datetime.combine(day, time.min, zone)
            return Span(found[1] or "eq", begins, begins + timedelta(1))
        at = datetime.fromisoformat(found[2])
    except (ValueError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=zone)
    if not 1900 < at.year < 9000:
        return None
    length = timedelta(minutes=1) if found[4] is None else timedelta(seconds=1)
    return Span(found[1] or "eq", at, at + length)


async def asked(request: web.Request, known: Sequence[str]) -> Search:
    """As search_of; of a POST the form as well, which R4 has for every search. Raises Problem."""
    form = await _form(request) if request.method == hdrs.METH_POST else None
    return search_of(request, request.app[keys.ZONE], known, form)


async def _form(request: web.Request) -> MultiMapping[Any]:
    kind, _ = parse_content_type(request.headers.get(hdrs.CONTENT_TYPE, ""))
    if kind != "application/x-www-form-urlencoded":
        raise Problem(Fault.UNSUPPORTED_MEDIA_TYPE)
    if (request.content_length or 0) > FORM_BYTES_MAX:
        raise Problem(Fault.BODY_TOO_LARGE, limit=FORM_BYTES_MAX)
    try:
        return await request.post()
    except (ValueError, LookupError):
        raise Problem(Fault.MALFORMED_REQUEST) from None


def search_of(
    request: web.Request, zone: tzinfo, known: Sequence[str], form: MultiMapping[Any] | None = None
) -> Search:
    """What the address (or the form of a _search) asks for. Raises Problem for what is not known, unless the
    client sends `Prefer: handling=lenient`: then it is passed over, as FHIR has it."""
    accept_json(request)
    given: dict[str, list[str]] = {}
    sources: list[MultiMapping[Any]] = [request.query] if form is None else [request.query, form]
    for source in sources:
        for name in dict.fromkeys(source):
            given.setdefault(name, []).extend(str(one) for one in source.getall(name))
    handling = _HANDLING.search(request.headers.get("Prefer", ""))
    is_lenient = handling is not None and handling[1] == "lenient"
    ignored = tuple(name for name in given if name not in known and name not in _EVERYWHERE)
    if ignored and not is_lenient:
        raise _wrong(ignored[0][:64], "extra_forbidden")
    values = {name: tuple(said) for name, said in given.items() if name not in ignored}
    for name, times in values.items():
        if len(times) > 4 or any(not one or len(one) > 2_000 for one in times):
            raise _wrong(name, "string_pattern_mismatch")
    count = _whole(values, "_count", COUNT_DEFAULT, 10**6)
    return Search(values, min(count, COUNT_MAX), _whole(values, "_offset", 0, OFFSET_MAX), zone, ignored)


def _whole(values: Mapping[str, Sequence[str]], name: str, default: int, most: int) -> int:
    given = values.get(name)
    if given is None:
        return default
    if len(given) > 1 or not (given[0].isascii() and given[0].isdigit()) or int(given[0][:9]) > most:
        raise _wrong(name, "int_parsing")
    return int(given[0])


def accept_json(request: web.Request) -> None:
    """Raises Problem not_acceptable where the client wants something else than JSON."""
    wanted = request.query.getall("_format", ())
    if wanted:
        if len(wanted) > 1 or wanted[0].partition(";")[0].replace(" ", "+") not in _JSON:
            raise Problem(Fault.NOT_ACCEPTABLE)
        return
    accept = request.headers.get(hdrs.ACCEPT, "*/*")
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if not any(kind in ("", "*/*", "application/*", *_JSON) for kind in kinds):
        raise Problem(Fault.NOT_ACCEPTABLE)


def _wrong(name: str, code: str, **words: object) -> Problem:
    return Problem(Fault.INVALID_QUERY, errors=[Entry(["query", name], code, words)])


wrong_parameter: Final = _wrong


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def base_of(request: web.Request) -> str:
    """The address of this face, as the client knows it."""
    return f"{request.url.origin()}{BASE}"
