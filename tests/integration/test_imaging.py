"""Pictures from the archive to those who may see them: heard of, kept, shown, refused. Real PostgreSQL, the
sandbox's wire; the same wire is spoken by a real archive in test_pacs_orthanc.py."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from engine import embedded_postgres
from engine.domain.policy import Channel
from engine.records import imaging as records
from engine.records.patient_numbers import link
from engine.records.staff import Role, Staff
from engine.settings import Settings
from engine.vault.vault import Vault
from integrations.pacs.client import PacsClient
from integrations.pacs.pacs import Form, PacsAt
from integrations.pacs.sandbox import Fault, Sandbox, uid
from integrations.pacs.sandbox_pictures import as_file, chest
from tests.support.beside import beside
from tests.support.privacy import ZONE, Office, Person, fresh_database, office
from web import keys
from web.imaging.routes import Archive, Checked
from web.imaging.system import Pacs

NAME = "王小明"


@pytest.fixture(scope="module")
def database_of_module(postgres: embedded_postgres.EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(postgres.url) as url:
        yield url


@pytest.fixture(scope="module")
def module_vault() -> Vault:
    from tests.support.people import VAULT

    return VAULT


@dataclass
class Radiology:
    office: Office
    sandbox: Sandbox
    pacs: Pacs
    patient: Person
    patient_id: str

    @property
    def number(self) -> str:
        """The patient's, at the archive."""
        return f"H{self.office.test}"

    async def heard(self) -> None:
        while await self.pacs.look():
            pass

    async def imaging(self, who: Person | None = None) -> list[dict[str, Any]]:
        answer = await (who or self.patient).ask("GET", f"/api/v1/patients/{self.patient_id}/imaging")
        assert answer.status == 200, answer
        studies: list[dict[str, Any]] = answer["studies"]
        return studies

    async def frame(self, study: str, path: str = "", who: Person | None = None, **query: str) -> Any:
        return await picture(self.office, who or self.patient, f"/api/v1/imaging/{study}/{path}", query)

    async def opened(self) -> tuple[str, str]:
        """The study's id and the rest of the address of its first picture."""
        (study,) = await self.imaging()
        told = (await self.patient.ask("GET", f"/api/v1/imaging/{study['id']}")).body
        series = told["series"][0]
        return study["id"], f"series/{series['id']}/instances/{series['instances'][0]['id']}/frames/1"


async def picture(here: Office, who: Person, path: str, query: dict[str, str]) -> tuple[int, bytes, Any]:
    headers = {"Authorization": f"Bearer {who.token}"}
    async with here.client.get(path, headers=headers, params=query) as answer:
        return answer.status, await answer.read(), answer.headers


@pytest.fixture
async def radiology(
    request: pytest.FixtureRequest, database_of_module: str, module_vault: Vault, tmp_path: Path
) -> AsyncIterator[Radiology]:
    form: Form = getattr(request, "param", "qido")
    sandbox = Sandbox("xinglin", "password", zone=ZONE)
    async with (
        TestServer(sandbox.app()) as server,
        ClientSession() as session,
        office(database_of_module, module_vault, tmp_path) as here,
    ):
        root = str(server.make_url("")).rstrip("/")
        at = PacsAt(f"{root}/dicom-web", ZONE, "xinglin", "password", form, root)
        # The application has been started; what a gateway puts there before goes in all the same.
        here.app._state[keys.ARCHIVE] = Archive(PacsClient(session, at, seconds_max=5), Checked())
        here.app._state[keys.SETTINGS] = Settings()
        await here.pool.execute("delete from feed_position")
        one = await here.person("o1")
        patient_id = (await one.add(1, name=NAME))["id"]
        async with beside("pacs", at, database_of_module, here.pool, module_vault) as app:
            made = Radiology(here, sandbox, Pacs(app), one, patient_id)
            await link(here.pool, module_vault, UUID(patient_id).bytes, "his", made.number, "test", app.now())
            yield made


@pytest.mark.parametrize("radiology", ["qido", "orthanc"], indirect=True)
async def test_a_study_is_heard_of_kept_and_shown_to_its_patient(radiology: Radiology) -> None:
    radiology.sandbox.take_pictures(radiology.number, "王^小明", sex="M", pictures=2)
    await radiology.heard()
    (study,) = await radiology.imaging()
    assert (study["modalities"], study["description"], study["instances"]) == (["DX"], "胸部正位片", 2)
    told = (await radiology.patient.ask("GET", f"/api/v1/imaging/{study['id']}")).body
    (series,) = told["series"]
    assert [one["number"] for one in series["instances"]] == [1, 2]
    id_, path = await radiology.opened()
    status, body, headers = await radiology.frame(id_, path)
    assert (status, headers["Content-Type"]) == (200, "image/png") and body.startswith(b"\x89PNG")
    assert headers["Cache-Control"] == "private, max-age=600"
    status, bone, _ = await radiology.frame(id_, path, center="3000", width="500")
    assert status == 200 and bone != body


@pytest.mark.parametrize("radiology", ["qido", "orthanc"], indirect=True)
async def test_hearing_of_it_again_changes_nothing_and_a_study_that_grows_is_told_anew(
    radiology: Radiology,
) -> None:
    study = radiology.sandbox.take_pictures(radiology.number, NAME, pictures=1)
    for _ in range(2):
        await radiology.heard()
    assert [one["instances"] for one in await radiology.imaging()] == [1]
    series = next(iter(radiology.sandbox._kept.values())).series
    said = {"PatientID": radiology.number, "PatientName": NAME, "Modality": "DX"}
    said |= {"StudyDate": (await radiology.imaging())[0]["day"].replace("-", "")}
    more = chest(study_uid=study, series_uid=series, instance_uid=uid(), number=2, said=said, side=16)
    radiology.sandbox.add(as_file(more))
    radiology.sandbox._changes.append(type(radiology.sandbox._changes[0])(99, study, "f" * 40))
    await radiology.heard()
    assert [one["instances"] for one in await radiology.imaging()] == [2]


async def test_of_nobody_we_know_waits_until_the_number_is_known(radiology: Radiology) -> None:
    radiology.sandbox.take_pictures(f"N{radiology.number}", NAME, pictures=1)
    await radiology.heard()
    assert await radiology.imaging() == []
    here = radiology.office
    await link(
        here.pool,
        here.vault,
        UUID(radiology.patient_id).bytes,
        "his",
        f"N{radiology.number}",
        "test",
        radiology.pacs._app.now(),
    )
    await radiology.pacs._intake.retry_waiting()
    assert len(await radiology.imaging()) == 1


async def test_another_name_for_this_number_is_put_aside_and_not_shown(radiology: Radiology) -> None:
    radiology.sandbox.take_pictures(radiology.number, "李四", pictures=1)
    await radiology.heard()
    assert await radiology.imaging() == []
    reasons = await radiology.office.pool.fetch(
        "select reasons::text as said from intake_message where state = 'quarantined'"
    )
    assert any("another_person" in row["said"] for row in reasons)
    assert not any("李四" in row["said"] for row in reasons)


async def test_a_damaged_object_and_one_of_somebody_else_are_not_shown(radiology: Radiology) -> None:
    radiology.sandbox.take_pictures(radiology.number, NAME, pictures=1)
    await radiology.heard()
    id_, path = await radiology.opened()
    for fault in (Fault.DAMAGED, Fault.OTHER_PATIENT):
        radiology.sandbox.fail("instance", fault)
        status, body, _ = await radiology.frame(id_, path)
        assert status == 502 and b"pictures_unfit" in body
    radiology.sandbox.fail("frame", Fault.DAMAGED)
    assert (await radiology.frame(id_, path, format="png"))[0] == 502
    status, _, _ = await radiology.frame(id_, path)
    assert status == 200


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.CUT, 503),
        (Fault.ERROR, 503),
        (Fault.BUSY, 503),
        (Fault.REDIRECT, 502),
        (Fault.UNREADABLE, 502),
    ],
)
async def test_an_archive_in_trouble_is_an_answer_and_no_crash(
    radiology: Radiology, fault: Fault, status: int
) -> None:
    radiology.sandbox.take_pictures(radiology.number, NAME, pictures=1)
    await radiology.heard()
    id_, path = await radiology.opened()
    radiology.sandbox.fail("series", fault, fault)  # a cut line that was kept open is tried once more
    answer = await radiology.patient.ask("GET", f"/api/v1/imaging/{id_}")
    assert answer.status == status
    radiology.sandbox.heal()
    assert (await radiology.patient.ask("GET", f"/api/v1/imaging/{id_}")).status == 200


async def test_what_the_archive_does_not_have_is_not_found(radiology: Radiology) -> None:
    radiology.sandbox.take_pictures(radiology.number, NAME, pictures=1)
    await radiology.heard()
    id_, path = await radiology.opened()
    assert (await radiology.frame(id_, path.replace("frames/1", "frames/2")))[0] == 404
    assert (await radiology.frame(id_, "series/1.2/instances/1.2.3/frames/1"))[0] == 404
    assert (await radiology.frame(id_, "series/..%2F1/instances/1.2.3/frames/1"))[0] == 404
    assert (await radiology.frame(id_, path, center="1"))[0] == 422


async def test_others_see_nothing_and_every_look_of_somebody_else_is_noted(radiology: Radiology) -> None:
    radiology.sandbox.take_pictures(radiology.number, NAME, pictures=1)
    await radiology.heard()
    id_, path = await radiology.opened()
    other = await radiology.office.person("o2")
    for address in (f"patients/{radiology.patient_id}/imaging", f"imaging/{id_}"):
        assert (await other.ask("GET", f"/api/v1/{address}")).status == 404
    assert (await radiology.frame(id_, path, other))[0] == 404
    doctor = radiology.office.clerk(
        Staff(b"d" * 16, "doctor", "大夫", frozenset({Role.DOCTOR}), None, "D0000", Channel.WINDOW)
    )
    answer = await doctor.ask("GET", f"/api/v1/imaging/{id_}")
    assert (answer.status, answer["code"]) == (403, "out_of_relation")
    noted = await radiology.office.pool.fetch(
        "select outcome from audit_entry where action = 'imaging_read' and subjects @> array[$1::uuid]",
        UUID(radiology.patient_id),
    )
    assert [row["outcome"] for row in noted] == ["refused"]  # one's own looks are one's own


async def test_what_is_kept_is_sealed(radiology: Radiology) -> None:
    radiology.sandbox.take_pictures(radiology.number, NAME, pictures=1)
    await radiology.heard()
    rows = await radiology.office.pool.fetch("select i::text as row from imaging_study i")
    for row in rows:
        for word in ("胸部", radiology.number, NAME):
            assert word not in row["row"] and word.encode().hex() not in row["row"]
    async with radiology.office.pool.acquire() as connection:
        found = await records.studies_of(connection, radiology.office.vault, UUID(radiology.patient_id).bytes)
    assert [one.patient_number for one in found] == [radiology.number]


async def test_many_frames_of_one_object_read_it_once(radiology: Radiology) -> None:
    radiology.sandbox.take_pictures(radiology.number, NAME, pictures=1)
    await radiology.heard()
    id_, path = await radiology.opened()
    answers = await asyncio.gather(*(radiology.frame(id_, path) for _ in range(3)))
    assert [status for status, _, _ in answers] == [200, 200, 200]
    before = [one for one, _ in radiology.sandbox.ledger].count("instance")
    await radiology.frame(id_, path)
    assert [one for one, _ in radiology.sandbox.ledger].count("instance") == before
