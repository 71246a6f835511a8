"""What the FHIR face can do: its CapabilityStatement, which anybody may read."""

from typing import Any, Final

from aiohttp import web

from web import keys
from web.faults import Fault
from web.openapi import api
from web.partner.fhir.answers import told
from web.partner.fhir.asking import accept_json, base_of
from web.partner.fhir.names import BASE, MEDIA, OPERATION, VERSION

Json = dict[str, Any]
_DATE: Final = "2026-11-23"  # of what stands below
_OAUTH: Final = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_SECURITY: Final = "http://terminology.hl7.org/CodeSystem/restful-security-service"


def _searched(**parameters: str) -> list[Json]:
    return [{"name": name.replace("__", "."), "type": kind} for name, kind in parameters.items()]


_READ: Final = [{"code": "read"}, {"code": "search-type"}]
_RESOURCES: Final[list[Json]] = [
    {
        "type": "Practitioner",
        "interaction": _READ,
        "searchParam": _searched(_id="token", identifier="token", name="string"),
    },
    {
        "type": "Schedule",
        "interaction": _READ,
        "searchParam": _searched(
            _id="token", actor="reference", specialty="token", date="date", active="token"
        ),
    },
    {
        "type": "Slot",
        "interaction": _READ,
        "searchParam": _searched(
            _id="token",
            schedule="reference",
            schedule__actor="reference",
            specialty="token",
            start="date",
            status="token",
        ),
    },
    {
        "type": "Patient",
        "interaction": [*_READ, {"code": "create"}],
        "conditionalCreate": False,
        "searchParam": _searched(_id="token", identifier="token"),
    },
    {
        "type": "Appointment",
        "interaction": [*_READ, {"code": "create"}],
        "conditionalCreate": True,
        "searchParam": _searched(
            _id="token",
            identifier="token",
            patient="reference",
            practitioner="reference",
            slot="reference",
            date="date",
            status="token",
        ),
        "operation": [
            {"name": name, "definition": f"{OPERATION}{name}"}
            for name in ("find", "hold", "book", "confirm", "cancel", "reschedule")
        ],
    },
]


def statement(base: str, hospital: str) -> Json:
    """`base`: the address of this face; `hospital`: its name."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "software": {"name": "Xinglin 杏林"},
        "implementation": {"description": hospital or "Xinglin 杏林", "url": base},
        "fhirVersion": VERSION,
        "format": ["json", MEDIA],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "cors": False,
                    "service": [{"coding": [{"system": _SECURITY, "code": "OAuth"}]}],
                    "extension": [
                        {
                            "url": _OAUTH,
                            "extension": [
                                {
                                    "url": "token",
                                    "valueUri": f"{base.removesuffix(BASE)}/api/v1/partner/token",
                                }
                            ],
                        }
                    ],
                },
                "resource": [
                    {**one, "versioning": "versioned", "readHistory": False, "updateCreate": False}
                    for one in _RESOURCES
                ],
            }
        ],
    }


@api.route(
    "GET",
    f"{BASE}/metadata",
    zh="能力声明（FHIR）",
    tags=["fhir"],
    errors=[Fault.NOT_ACCEPTABLE],
    answer=Json,
    media=MEDIA,
)
async def fhir_read_capabilities(request: web.Request) -> web.Response:
    """The CapabilityStatement."""
    accept_json(request)
    hospital = request.app[keys.AVAILABILITY].catalog.hospital.name
    return told(request, statement(base_of(request), hospital))
