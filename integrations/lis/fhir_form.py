"""DiagnosticReport of FHIR R4, alone or in a Bundle, as bodies of reports (engine/domain/reports.py). Pure.

    for body in bodies(resource, "LIS"): ...

Read by hand and no further than a report needs: no model is built of what a stranger sent. Observations come
contained, in the Bundle, or as `presentedForm`; references are followed within what was sent, nowhere else.
Raises Unfit, and nothing else, of any JSON.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from engine.domain.intake import Unfit
from integrations.lis.hl7_form import checked
from integrations.lis.words import DOCUMENT_SYSTEMS, FLAGS, SEXES, STATUSES, UNSAID_SEXES, document

ENTRIES_MAX: Final = 2_000
NESTED_MAX: Final = 3  # hasMember of a panel of panels
OURS: Final = "urn:xinglin:patient"

Body = dict[str, Any]
Json = Mapping[str, Any]


def bodies(resource: Any, source: str) -> list[Body]:
    """Of each DiagnosticReport in it. `source`: the laboratory whose numbers they are."""
    if not isinstance(resource, Mapping):
        raise Unfit("", "shape", "a FHIR resource as a JSON object")
    match resource.get("resourceType"):
        case "DiagnosticReport":
            return [_report(resource, _Known(resource, []), source)]
        case "Bundle":
            entries = _list(resource, "entry", "Bundle")
            if len(entries) > ENTRIES_MAX:
                raise Unfit("Bundle.entry", "too_many", f"at most {ENTRIES_MAX}")
            reports = [
                each for _, each in _resources(entries) if each.get("resourceType") == "DiagnosticReport"
            ]
            if not reports:
                raise Unfit("Bundle.entry", "missing", "a DiagnosticReport")
            return [_report(each, _Known(each, entries), source) for each in reports]
    raise Unfit("resourceType", "unknown_code", "DiagnosticReport, Bundle")


class _Known:
    """What references lead to, in what was sent."""

    def __init__(self, report: Json, entries: list[Any]) -> None:
        self._by: dict[str, Json] = {}
        for url, each in _resources(entries):
            if url:
                self._by[url] = each
            kind, id_ = each.get("resourceType"), each.get("id")
            if isinstance(kind, str) and isinstance(id_, str):
                self._by[f"{kind}/{id_}"] = each
        for one in _list(report, "contained", "DiagnosticReport"):
            if isinstance(one, Mapping) and isinstance(one.get("id"), str):
                self._by[f"#{one['id']}"] = one

    def of(self, reference: Any) -> Json | None:
        if not isinstance(reference, Mapping):
            return None
        where = reference.get("reference")
        if not isinstance(where, str):
            return None
        found = self._by.get(where)
        if found is None and "/" in where:  # http://their.server/fhir/Observation/1
            found = self._by.get("/".join(where.split("/")[-2:]))
        return found


def _resources(entries: list[Any]) -> Iterator[tuple[str, Json]]:
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise Unfit("Bundle.entry", "shape", "object")
        resource = entry.get("resource")
        if isinstance(resource, Mapping):
            url = entry.get("fullUrl")
            yield url if isinstance(url, str) else "", resource


def _report(report: Json, known: _Known, source: str) -> Body:
    identifier = _first(report, "identifier")
    number = _text(identifier, "value") or _text(report, "id")
    status = _text(report, "status")
    meta = _object(report, "meta")
    issued = _text(report, "issued") or _text(meta, "lastUpdated")
    subject = _object(report, "subject")
    body: Body = {
        "source": source,
        "number": number,
        "patient": _patient(subject, known.of(subject), source),
        "status": STATUSES.get(status, status),
        "title": _words(_object(report, "code")),
        "category": _code(_first(report, "category"))[0],
        "issued_at": issued,
        "changed_at": _text(meta, "lastUpdated") or issued,
        "ordered_at": None,
        "collected_at": _collected(report),
        "department": "",
        "doctor": _display(_first(report, "performer"), known),
        "conclusion": _text(report, "conclusion"),
        "observations": [],
        "attachments": [],
    }
    basis = known.of(_first(report, "basedOn"))
    if basis is not None:
        body["ordered_at"] = _text(basis, "authoredOn") or None
        body["doctor"] = _display(_object(basis, "requester"), known) or body["doctor"]
    seen: set[int] = set()
    for n, reference in enumerate(_list(report, "result", "DiagnosticReport")):
        observation = known.of(reference)
        if observation is None or observation.get("resourceType") != "Observation":
            raise Unfit(f"result[{n}]", "dangling", "an Observation in the same message")
        _observe(observation, known, body["observations"], seen, NESTED_MAX)
    for n, form in enumerate(_list(report, "presentedForm", "DiagnosticReport")):
        body["attachments"].append(_attachment(form, n))
    return body


def _patient(subject: Json, patient: Json | None, source: str) -> Body:
    numbers: list[Body] = []
    identifiers = _list(patient or {}, "identifier", "Patient")
    if isinstance(subject.get("identifier"), Mapping):
        identifiers = [*identifiers, subject["identifier"]]
    for one in identifiers:
        if not isinstance(one, Mapping):
            raise Unfit("patient.numbers", "shape", "object")
        value, system = _text(one, "value"), _text(one, "system")
        if value:
            numbers.append(
                {"system": _system(system, _code(_object(one, "type"))[0], source), "number": value}
            )
    who = patient or {}
    sex = _text(who, "gender")
    name = _first(who, "name")
    return {
        "numbers": numbers,
        "name": _name(name) or _text(subject, "display"),
        "sex": "" if sex in UNSAID_SEXES else SEXES.get(sex, sex),
        "birth_date": _text(who, "birthDate") or None,
    }


def _system(system: str, kind: str, source: str) -> str:
    papers = DOCUMENT_SYSTEMS.get(system)
    if papers is not None:
        return document(papers)
    return "xinglin" if system == OURS else system or source


def _observe(observation: Json, known: _Known, into: list[Body], seen: set[int], depth: int) -> None:
    if id(observation) in seen or len(into) >= ENTRIES_MAX:
        return
    seen.add(id(observation))
    where = f"observations[{len(into)}]"
    members = _list(observation, "hasMember", where)
    components = _list(observation, "component", where)
    if any(key.startswith("value") for key in observation) or not (members or components):
        into.append(_one(observation, where))
    for part in components:
        if not isinstance(part, Mapping):
            raise Unfit(where, "shape", "object")
        into.append(_one(part, f"observations[{len(into)}]"))
    for reference in members if depth else ():
        member = known.of(reference)
        if member is not None:
            _observe(member, known, into, seen, depth - 1)


def _one(observation: Json, where: str) -> Body:
    code, name = _code(_object(observation, "code"))
    value, unit = _value(observation, where)
    flag = _code(_first(observation, "interpretation"))[0]
    reference = _first(observation, "referenceRange")
    return {
        "code": code or name,
        "name": name or code,
        "value": value,
        "unit": unit,
        "reference": _text(reference, "text") or _range(reference),
        "flag": FLAGS.get(flag, flag),
        "note": _text(_first(observation, "note"), "text"),
    }


def _value(observation: Json, where: str) -> tuple[str, str]:
    """Its text and unit."""
    kinds = [key for key in observation if key.startswith("value") and len(key) > 5]
    if not kinds:
        return _words(_object(observation, "dataAbsentReason")), ""
    if len(kinds) > 1:
        raise Unfit(f"{where}.value", "several_values", "one value[x]")
    value = observation[kinds[0]]
    match kinds[0]:
        case "valueQuantity" if isinstance(value, Mapping):
            return f"{_text(value, 'comparator')}{_figure(value.get('value'), where)}", (
                _text(value, "unit") or _text(value, "code")
            )
        case "valueCodeableConcept" if isinstance(value, Mapping):
            return _words(value), ""
        case "valueString" | "valueDateTime" | "valueTime" if isinstance(value, str):
            return value, ""
        case "valueBoolean" if isinstance(value, bool):
            return "true" if value else "false", ""
        case "valueInteger":
            return _figure(value, where), ""
        case "valueRange" if isinstance(value, Mapping):
            return _range(value), _text(_object(value, "high"), "unit") or _text(
                _object(value, "low"), "unit"
            )
        case "valueRatio" if isinstance(value, Mapping):
            parts = (_object(value, name) for name in ("numerator", "denominator"))
            return ":".join(_figure(part.get("value"), where) for part in parts), ""
    raise Unfit(
        f"{where}.value", "value_type", "Quantity, CodeableConcept, string, boolean, integer, Range, Ratio"
    )


def _range(of: Json) -> str:
    low, high = (_object(of, name).get("value") for name in ("low", "high"))
    if low is not None and high is not None:
        return f"{_figure(low, 'reference')}-{_figure(high, 'reference')}"
    if low is not None:
        return f">={_figure(low, 'reference')}"
    return "" if high is None else f"<={_figure(high, 'reference')}"


def _figure(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(where, "shape", "number")
    return repr(value) if isinstance(value, float) else str(value)


def _collected(report: Json) -> str | None:
    period = _object(report, "effectivePeriod")
    text = _text(report, "effectiveDateTime") or _text(period, "start")
    return text if text and _has_time(text) else None


def _has_time(text: str) -> bool:
    """A day alone is a day, and no time that could be compared."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return True  # the intake says what is wrong with it


def _attachment(form: Any, n: int) -> Body:
    where = f"attachments[{n}]"
    if not isinstance(form, Mapping):
        raise Unfit(where, "shape", "object")
    content = _text(form, "data")
    if not content:
        raise Unfit(where, "pointer", "the document itself: nothing is fetched from elsewhere")
    checked(content, where)
    return {"media_type": _text(form, "contentType"), "title": _text(form, "title"), "content": content}


# JSON of strangers: each taker gives what it should be, or raises Unfit.


def _object(of: Json, name: str) -> Json:
    value = of.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Unfit(name, "shape", "object")
    return value


def _list(of: Json, name: str, where: str) -> list[Any]:
    value = of.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unfit(f"{where}.{name}", "shape", "list")
    return value


def _first(of: Json, name: str) -> Json:
    values = _list(of, name, "")
    if values and not isinstance(values[0], Mapping):
        raise Unfit(name, "shape", "list of objects")
    return values[0] if values else {}


def _text(of: Json, name: str) -> str:
    value = of.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unfit(name, "shape", "text")
    return value


def _code(concept: Json) -> tuple[str, str]:
    """Code and words of a CodeableConcept: of the first coding."""
    coding = _first(concept, "coding")
    return _text(coding, "code"), _text(coding, "display") or _text(concept, "text")


def _words(concept: Json) -> str:
    code, words = _code(concept)
    return _text(concept, "text") or words or code


def _name(name: Json) -> str:
    if _text(name, "text"):
        return _text(name, "text")
    family = _text(name, "family")
    given = [one for one in _list(name, "given", "name") if isinstance(one, str)]
    return family + "".join(given) if not family.isascii() else " ".join([*given, family]).strip()


def _display(reference: Json, known: _Known) -> str:
    found = known.of(reference)
    return _text(reference, "display") or ("" if found is None else _name(_first(found, "name")))
