"""The sandbox's FHIR R4 form, below /fhir: a store with versions; its Appointments are the registrations."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from aiohttp import web

from integrations.his.sandbox_hospital import Fault, Hospital, Json, NotDone, Registered
from integrations.his.sandbox_lines import cut, silence
from integrations.his.sandbox_places import BASE, Places

TYPES: Final = (
    "Appointment",
    "Organization",
    "Patient",
    "Practitioner",
    "PractitionerRole",
    "Schedule",
    "Slot",
)
STATUSES: Final = {
    "locked": "pending",
    "booked": "booked",
    "arrived": "arrived",
    "fulfilled": "fulfilled",
    "no_show": "noshow",
    "cancelled": "cancelled",
}
EVENTS: Final = {
    "booked": "booked",
    "arrived": "arrived",
    "fulfilled": "fulfilled",
    "noshow": "no_show",
    "cancelled": "cancelled",
}
PAGE: Final = 200

Handler = Callable[[web.Request], Awaitable[web.Response]]


class FhirForm:
    """`resources`: by type and id. What the hospital has of departments, doctors and sessions is added."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital
        self.resources: dict[str, dict[str, Json]] = {type_: {} for type_ in TYPES}
        self._given = 0
        self._mastered = (0, 0)
        self._places = Places(hospital, self.resources, self.put)

    def add_to(self, app: web.Application) -> None:
        add = app.router.add_route
        add("POST", "/fhir", self._guarded("tell", self._transaction))
        for type_ in TYPES:
            add("GET", f"/fhir/{type_}", self._guarded("find", self._search(type_)))
            add("POST", f"/fhir/{type_}/_search", self._guarded("find", self._search(type_)))
            add("POST", f"/fhir/{type_}", self._guarded("tell", self._create(type_)))
            add("GET", f"/fhir/{type_}/{{id}}", self._guarded("find", self._read(type_)))
            add("PUT", f"/fhir/{type_}/{{id}}", self._guarded("tell", self._update(type_)))

    def _guarded(self, operation: str, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            fault = self._hospital.faults.next(operation)
            match fault:
                case Fault.TIMEOUT:
                    return await silence()
                case Fault.CUT:
                    return cut(request)
                case Fault.ERROR:
                    return _refused(500, "exception")
                case Fault.BUSY:
                    return _refused(429, "throttled")
            self._master()
            try:
                answer = await handler(request)
            except NotDone as refused:
                return _refused(refused.status, refused.code)
            except (KeyError, ValueError, TypeError, IndexError):
                return _refused(400, "structure")
            match fault:
                case Fault.APPLIED_THEN_TIMEOUT:
                    return await silence()
                case Fault.APPLIED_THEN_CUT:
                    return cut(request)
                case Fault.GARBAGE | Fault.FORGED | Fault.WRONG_CHARSET:
                    return web.Response(
                        body=b'{"resourceType": "\xff"}', content_type="application/fhir+json"
                    )
            return answer

        return handle

    def _search(self, type_: str) -> Handler:
        async def search(request: web.Request) -> web.Response:
            asked = [*request.query.items(), *(await request.post()).items()]
            start = int(request.query.get("_from", "0"))
            if type_ == "Slot":
                self._ask_days(asked)
            found = [one for one in self._all(type_) if _fits(one, asked)]
            bundle: Json = {
                "resourceType": "Bundle",
                "type": "searchset",
                "total": len(found),
                "entry": [{"resource": one} for one in found[start : start + PAGE]],
            }
            if start + PAGE < len(found):
                following = request.url.update_query({"_from": str(start + PAGE)})
                bundle["link"] = [{"relation": "next", "url": str(following)}]
            return _answer(200, bundle)

        return search

    def _read(self, type_: str) -> Handler:
        async def read(request: web.Request) -> web.Response:
            return _answer(200, self._found(type_, request.match_info["id"]))

        return read

    def _create(self, type_: str) -> Handler:
        async def create(request: web.Request) -> web.Response:
            resource = orjson.loads(await request.read())
            status, done = self._created(type_, resource, request.headers.get("If-None-Exist", ""))
            return _answer(status, done)

        return create

    def _update(self, type_: str) -> Handler:
        async def update(request: web.Request) -> web.Response:
            resource = orjson.loads(await request.read())
            done = self._updated(
                type_, request.match_info["id"], resource, request.headers.get("If-Match", "")
            )
            return _answer(200, done)

        return update

    async def _transaction(self, request: web.Request) -> web.Response:
        """All or nothing: what could fail is looked at first."""
        entries = orjson.loads(await request.read())["entry"]
        for entry in entries:
            asked = entry["request"]
            if asked["method"] == "PUT":
                type_, _, id_ = asked["url"].partition("/")
                _must_match(self._found(type_, id_), asked.get("ifMatch", ""))
        told = []
        for entry in entries:
            asked, resource = entry["request"], entry["resource"]
            type_, _, id_ = asked["url"].partition("/")
            if asked["method"] == "PUT":
                done = self._updated(type_, id_, resource, "")
            else:
                _, done = self._created(type_, resource, asked.get("ifNoneExist", ""))
            told.append({"resource": done, "response": {"status": "200"}})
        return _answer(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": told})

    # The store.

    def put(self, resource: Json) -> Json:
        """For tests: a Slot, a Schedule."""
        type_, id_ = resource["resourceType"], resource["id"]
        old = self.resources[type_].get(id_)
        version = 1 + int(old["meta"]["versionId"]) if old else 1
        stored = {**resource, "meta": {"versionId": str(version)}}
        self.resources[type_][id_] = stored
        return stored

    def _created(self, type_: str, resource: Json, exists: str) -> tuple[int, Json]:
        if resource["resourceType"] != type_:
            raise NotDone(400, "structure")
        if exists:
            name, _, value = exists.partition("=")
            found = [one for one in self._all(type_) if _fits(one, [(name, value)])]
            if len(found) > 1:
                raise NotDone(412, "multiple-matches")
            if found:
                return 200, found[0]
        if type_ == "Appointment":
            return 201, self._registered(resource, None)
        self._given += 1
        return 201, self.put({**resource, "id": f"{type_[:2].lower()}{self._given}"})

    def _updated(self, type_: str, id_: str, resource: Json, match: str) -> Json:
        there = self._found(type_, id_)
        _must_match(there, match)
        if type_ == "Appointment":
            return self._registered(resource, there)
        return self.put({**resource, "id": id_})

    def _registered(self, resource: Json, there: Json | None) -> Json:
        booking = self._booking(resource)
        status = resource["status"]
        if status == "pending":
            his_id = self._hospital.lock(booking).his_id
            number = _identifier(resource, "number")
            self._hospital.registrations[his_id].number = int(number) if number else None
        elif there is not None and there["status"] == "pending" and status == "cancelled":
            self._hospital.unlock(booking["id"])
            his_id = there["id"]
        else:
            event = EVENTS[status]
            if event == "booked" and there is not None and there["status"] == "booked":
                event = "changed"
            his_id = self._hospital.apply(_identifier(resource, "message"), event, booking, None)
        self.put({**resource, "id": his_id})
        return self._found("Appointment", his_id)

    def _booking(self, resource: Json) -> Json:
        actors = [one["actor"] for one in resource["participant"]]
        practitioner = next(one for one in actors if one.get("type") == "Practitioner")
        number = _identifier(resource, "number")
        return {
            "id": _identifier(resource, "appointment"),
            "department": resource["serviceType"][0]["coding"][0]["code"],
            "practitioner": practitioner["identifier"]["value"],
            "starts_at": datetime.fromisoformat(resource["start"]),
            "number": int(number) if number else None,
            "person": {},
        }

    def _found(self, type_: str, id_: str) -> Json:
        if type_ == "Appointment":
            one = self._hospital.registrations.get(id_)
            if one is None:
                raise NotDone(404, "not-found")
            return self._appointment(one)
        found = next((one for one in self._all(type_) if one["id"] == id_), None)
        if found is None:
            raise NotDone(404, "not-found")
        return found

    def _ask_days(self, asked: Sequence[tuple[str, Any]]) -> None:
        """A doctor's Slots of a day, which is where whoever wants a place looks for it."""
        doctors = [str(value).removeprefix("Schedule/s") for name, value in asked if name == "schedule"]
        begins = [str(value)[2:] for name, value in asked if name == "start" and str(value)[:2] == "ge"]
        for begin in begins:
            day = datetime.fromisoformat(begin).astimezone(self._hospital.zone).date().isoformat()
            for doctor in doctors:
                self._places.ask_day(doctor, day)

    def _all(self, type_: str) -> list[Json]:
        if type_ == "Appointment":
            return [self._appointment(one) for one in self._hospital.registrations.values()]
        if type_ == "Schedule":
            return self._places.schedules()
        if type_ == "Slot":
            return self._places.slots()
        return list(self.resources[type_].values())

    def _appointment(self, one: Registered) -> Json:
        """As it was told, and as it stands."""
        told = self.resources["Appointment"].get(one.his_id)
        if told is None:
            told = self.put(
                {
                    "resourceType": "Appointment",
                    "id": one.his_id,
                    "identifier": [{"system": f"{BASE}:number", "value": str(one.number)}]
                    + ([{"system": f"{BASE}:appointment", "value": one.booking}] if one.booking else []),
                    "serviceType": [{"coding": [{"system": f"{BASE}:department", "code": one.department}]}],
                    "participant": [
                        {
                            "actor": {
                                "type": "Practitioner",
                                "identifier": {"system": f"{BASE}:practitioner", "value": one.practitioner},
                            },
                            "status": "accepted",
                        }
                    ],
                }
            )
        return {**told, "status": STATUSES[one.status], "start": one.starts_at.isoformat()}

    def _master(self) -> None:
        departments, practitioners = self._hospital.departments, self._hospital.practitioners
        if self._mastered == (len(departments), len(practitioners)):
            return
        self._mastered = (len(departments), len(practitioners))
        for one in departments:
            organization: Json = {
                "resourceType": "Organization",
                "id": f"d{one['code']}",
                "identifier": [{"system": f"{BASE}:department", "value": one["code"]}],
                "type": [{"coding": [{"code": "dept"}]}],
                "name": one["name"],
            }
            if one.get("parent"):
                organization["partOf"] = {"reference": f"Organization/d{one['parent']}"}
            self.put(organization)
        for one in practitioners:
            self.put(
                {
                    "resourceType": "Practitioner",
                    "id": f"p{one['code']}",
                    "identifier": [{"system": f"{BASE}:practitioner", "value": one["code"]}],
                    "name": [{"text": one["name"]}],
                }
            )
            self.put(
                {
                    "resourceType": "PractitionerRole",
                    "id": f"r{one['code']}",
                    "practitioner": {"reference": f"Practitioner/p{one['code']}"},
                    "organization": {"reference": f"Organization/d{one['department']}"},
                    "code": [{"text": one["title"]}],
                }
            )


def _fits(resource: Json, asked: Sequence[tuple[str, Any]]) -> bool:
    for name, value in asked:
        match name:
            case "identifier":
                system, _, wanted = str(value).partition("|")
                told = resource.get("identifier", ())
                if not any((one["system"], one["value"]) == (system, wanted) for one in told):
                    return False
            case "date" | "start":
                at, bound = datetime.fromisoformat(resource["start"]), datetime.fromisoformat(str(value)[2:])
                if (at < bound) == (str(value)[:2] == "ge"):
                    return False
            case "schedule":
                if resource["schedule"]["reference"] != value:
                    return False
            case "actor":
                if not any(one.get("reference") == value for one in resource.get("actor", ())):
                    return False
    return True


def _must_match(there: Json, match: str) -> None:
    if match and match != f'W/"{there["meta"]["versionId"]}"':
        raise NotDone(412, "conflict")


def _identifier(resource: Json, what: str) -> str:
    return next((one["value"] for one in resource["identifier"] if one["system"] == f"{BASE}:{what}"), "")


def _answer(status: int, content: Json) -> web.Response:
    version = content.get("meta", {}).get("versionId")
    headers = {"ETag": f'W/"{version}"'} if version else {}
    return web.Response(
        status=status, body=orjson.dumps(content), headers=headers, content_type="application/fhir+json"
    )


def _refused(status: int, code: str) -> web.Response:
    issue = {"severity": "error", "code": code.replace("_", "-")}
    return _answer(status, {"resourceType": "OperationOutcome", "issue": [issue]})
