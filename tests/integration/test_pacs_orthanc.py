"""Our side of DICOMweb against a real archive: Orthanc, with pydicom's own pictures of Chinese names."""

from collections.abc import AsyncIterator, Iterator
from datetime import date
from zoneinfo import ZoneInfo

import pytest
from aiohttp import ClientSession

from integrations.connector import Refused
from integrations.pacs import dicom
from integrations.pacs.client import PacsClient
from integrations.pacs.feed import OrthancFeed, QidoFeed
from integrations.pacs.pacs import PacsAt, Window
from tests.support.orthanc import PASSWORD, USERNAME, Orthanc, orthanc, sample

ZONE = ZoneInfo("Asia/Shanghai")
CT, MR = "2.25.1001", "2.25.2001"
TODAY = date(2026, 11, 23)
COMMON = {
    "StudyDate": "20261123",
    "StudyTime": "093000",
    "TimezoneOffsetFromUTC": "+0800",
    "PatientSex": "M",
    "PatientBirthDate": "19900307",
}


@pytest.fixture(scope="module")
def archive() -> Iterator[Orthanc]:
    with orthanc() as found:
        first = {
            "PatientID": "P0001",
            "PatientName": "Wang^Xiaoming=王^小明",
            "AccessionNumber": "A1",
            "StudyInstanceUID": CT,
            "SeriesInstanceUID": f"{CT}.1",
            "StudyDescription": "胸部CT平扫",
            **COMMON,
        }
        for n in (1, 2):
            found.store(sample("CT_small.dcm", SOPInstanceUID=f"{CT}.1.{n}", InstanceNumber=str(n), **first))
        second = {**first, "PatientID": "P0002", "PatientName": "諸葛^亮", "AccessionNumber": "A2"}
        second |= {"StudyInstanceUID": MR, "SeriesInstanceUID": f"{MR}.1", "StudyDescription": "头颅磁共振"}
        second["StudyDate"] = "20260101"
        found.store(sample("MR_small.dcm", SOPInstanceUID=f"{MR}.1.1", InstanceNumber="1", **second))
        yield found


@pytest.fixture
async def pacs(archive: Orthanc) -> AsyncIterator[PacsClient]:
    async with ClientSession() as session:
        yield PacsClient(session, at(archive), seconds_max=60)


def at(archive: Orthanc, password: str = PASSWORD) -> PacsAt:
    return PacsAt(f"{archive.address}/dicom-web", ZONE, USERNAME, password)


async def test_a_patients_studies_are_found_with_what_is_said_of_them(pacs: PacsClient) -> None:
    (found,) = await pacs.studies(patient_number="P0001")
    assert (found.uid, found.patient_number, found.patient_name) == (CT, "P0001", "王小明")
    assert (found.accession, found.description) == ("A1", "胸部CT平扫")
    assert (found.sex, found.birth_date, found.day) == ("male", date(1990, 3, 7), TODAY)
    assert found.started_at == "2026-11-23T09:30:00+08:00"
    assert (found.modalities, found.series, found.instances) == (("CT",), 1, 2)


async def test_studies_are_found_by_accession_number_and_by_day(pacs: PacsClient) -> None:
    assert [one.patient_name for one in await pacs.studies(accession="A2")] == ["諸葛亮"]
    assert [one.uid for one in await pacs.studies(first=TODAY, last=TODAY)] == [CT]
    assert await pacs.studies(patient_number="nobody") == []


async def test_a_number_is_never_a_wildcard(pacs: PacsClient) -> None:
    for number in ("*", "P000?", "P0001\\P0002"):
        with pytest.raises(Refused):
            await pacs.studies(patient_number=number)


async def test_series_pictures_and_what_stands_in_them(pacs: PacsClient) -> None:
    (series,) = await pacs.series(CT)
    assert (series.uid, series.modality, series.instances) == (f"{CT}.1", "CT", 2)
    instances = await pacs.instances(CT, series.uid)
    assert sorted(one.uid for one in instances) == [f"{CT}.1.1", f"{CT}.1.2"]
    told = await pacs.metadata(CT, series.uid, f"{CT}.1.1")
    assert told["00100020"]["Value"] == ["P0001"]
    header = dicom.header_of(await pacs.instance(CT, series.uid, f"{CT}.1.1"))
    assert (header.study_uid, header.instance_uid, header.patient_number) == (CT, f"{CT}.1.1", "P0001")
    assert (header.rows, header.columns, header.frames) == (128, 128, 1)


async def test_frames_come_rendered_in_both_formats_and_with_a_window(pacs: PacsClient) -> None:
    jpeg = await pacs.frame(CT, f"{CT}.1", f"{CT}.1.1", 1)
    png = await pacs.frame(CT, f"{CT}.1", f"{CT}.1.1", 1, "png")
    bone = await pacs.frame(CT, f"{CT}.1", f"{CT}.1.1", 1, "png", Window(400, 1800))
    assert (jpeg[0], png[0], bone[0]) == ("jpeg", "png", "png")
    assert bone[1] != png[1]


async def test_what_is_not_there_and_wrong_credentials_are_told_apart(
    archive: Orthanc, pacs: PacsClient
) -> None:
    with pytest.raises(Refused) as none:
        await pacs.instance(CT, f"{CT}.1", "2.25.9")
    with pytest.raises(Refused) as other_study:
        await pacs.frame(MR, f"{CT}.1", f"{CT}.1.1", 1)
    assert (none.value.code, other_study.value.code) == ("not_found", "not_found")
    async with ClientSession() as session:
        with pytest.raises(Refused) as refused:
            await PacsClient(session, at(archive, "wrong")).studies(patient_number="P0001")
    assert refused.value.code == "credentials"


async def test_both_feeds_tell_of_each_study_once(archive: Orthanc, pacs: PacsClient) -> None:
    changes = OrthancFeed(pacs, archive.address)
    news = await changes.news("", TODAY)
    seen = [one.uid for one in news.studies]
    while news.is_more:
        news = await changes.news(news.position, TODAY)
        seen += [one.uid for one in news.studies]
    assert set(seen) == {CT, MR}
    assert (await changes.news(news.position, TODAY)).studies == []

    asking = QidoFeed(pacs)
    first = await asking.news("", TODAY)
    assert [one.uid for one in first.studies] == [CT]  # the other one is of January
    for one in first.studies:
        asking.taken(one)
    assert (await asking.news("", TODAY)).studies == []
