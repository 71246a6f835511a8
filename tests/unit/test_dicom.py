"""DICOM that comes from outside: whole or refused, with a word that names nobody; its JSON in our words."""

import contextlib
import io
import random
import secrets
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian

from integrations.pacs import dicom, translate
from integrations.pacs.multipart import first_part
from integrations.pacs.pacs import Unreadable, Window
from integrations.pacs.sandbox_pictures import as_file, chest, png_of

ZONE = ZoneInfo("Asia/Shanghai")
SECRET_NAME = "不可外传"


def made(**said: str) -> Any:
    whole = {"PatientID": "P1", "PatientName": SECRET_NAME, "Modality": "DX", **said}
    return chest(
        study_uid="2.25.1", series_uid="2.25.2", instance_uid="2.25.3", number=1, said=whole, side=16
    )


def test_a_whole_object_says_whose_it_is_and_how_large() -> None:
    assert dicom.header_of(as_file(made())) == dicom.Header("2.25.1", "2.25.2", "2.25.3", "P1", 1, 16, 16)


def test_pydicoms_own_samples_are_read_or_refused_and_never_more() -> None:
    # Those of the wheel: to ask pydicom for them would try to fetch others.
    folder = Path(str(pydicom.__file__)).parent / "data" / "test_files"
    seen = {"whole": 0, "refused": 0}
    for path in folder.glob("*.dcm"):
        try:
            dicom.header_of(path.read_bytes())
            seen["whole"] += 1
        except dicom.Damaged:
            seen["refused"] += 1
    assert seen["whole"] > 25 and seen["refused"] > 5


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda raw: raw[:-40], "pixels_cut_off"),
        (lambda raw: raw[132:], "no_preamble"),
        (lambda raw: b"", "no_preamble"),
        (lambda raw: raw[:140], "no_transfer_syntax"),
        (lambda raw: raw + b"\0" * dicom.OBJECT_BYTES_MAX, "too_large"),
    ],
)
def test_what_is_damaged_is_refused_with_a_word(spoil: Any, why: str) -> None:
    with pytest.raises(dicom.Damaged) as refused:
        dicom.header_of(spoil(as_file(made())))
    assert refused.value.why == why or refused.value.why.startswith("unreadable")


def test_a_bomb_is_not_unpacked() -> None:
    bomb = made()
    bomb.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    bomb.PixelData = bytes(4_000_000)
    raw = as_file(bomb)
    assert len(raw) < 40_000
    with pytest.raises(dicom.Damaged, match="deflated"):
        dicom.header_of(raw)


def test_an_object_without_a_picture_is_refused() -> None:
    bare = made()
    del bare.PixelData
    with pytest.raises(dicom.Damaged, match="no_picture"):
        dicom.header_of(as_file(bare))


def test_sizes_that_lie_about_the_pixels_are_refused() -> None:
    for rows in (17, 30_000):
        lying = made()
        lying.Rows = rows
        with pytest.raises(dicom.Damaged):
            dicom.header_of(as_file(lying))


def test_a_thousand_broken_bytes_never_crash_the_reader_nor_name_anybody() -> None:
    raw = as_file(made())
    chance = random.Random(7)
    for _ in range(300):
        broken = bytearray(raw)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(128, 900)] = chance.randrange(256)
        try:
            dicom.header_of(bytes(broken))
        except dicom.Damaged as refused:
            assert SECRET_NAME not in str(refused)


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused(tail: bytes) -> None:
    with pytest.raises(dicom.Damaged):
        dicom.header_of(b"\0" * 128 + b"DICM" + tail)


def test_a_rendered_picture_has_the_shades_of_its_window() -> None:
    whole, bone = png_of(made()), png_of(made(), Window(3_000, 500))
    assert whole.startswith(b"\x89PNG") and bone.startswith(b"\x89PNG") and whole != bone


# DICOM's JSON.


def told(**tags: Any) -> dict[str, Any]:
    return {
        "0020000D": {"vr": "UI", "Value": ["2.25.1"]},
        **{tag[1:]: {"Value": v} for tag, v in tags.items()},
    }


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("王^小明", "王小明"),
        ("Wang^Xiaoming=王^小明", "王小明"),
        ("Wang^Xiaoming=", "Wang Xiaoming"),
        ("王小明", "王小明"),
        ("諸葛^亮^^^", "諸葛亮"),
        ("", ""),
    ],
)
def test_names_are_read_as_they_are_written_here(spelled: str, name: str) -> None:
    assert translate.name_of(spelled) == name


def test_times_have_the_archives_zone_or_their_own() -> None:
    day, clock = ["20261123"], ["093000.5"]
    here = translate.study_of(told(_00080020=day, _00080030=clock), ZONE)
    there = translate.study_of(told(_00080020=day, _00080030=clock, _00080201=["-0500"]), ZONE)
    alone = translate.study_of(told(_00080020=day), ZONE)
    assert here.started_at == "2026-11-23T09:30:00+08:00"
    assert there.started_at == "2026-11-23T09:30:00-05:00"
    assert alone.started_at is None and str(alone.day) == "2026-11-23"


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        told(_0020000D=["1.2/../3"]),
        told(_0020000D=["1." * 40]),
        told(_00080020=["20261340"]),
        told(_00080020=["2026-11-23"]),
        told(_00080020=["20261123"], _00080030=["999999"]),
        told(_00080020=["20261123"], _00080030=["09"], _00080201=["+9900"]),
        told(_00100020=[{"x": 1}]),
        told(_00100020=["a\nb"]),
        told(_00100020=["\ud800"]),
        told(_00081030=["x" * 300]),
        told(_00201208=["-1"]),
        told(_00201208=["many"]),
        {"0020000D": "2.25.1"},
        {"0020000D": {"Value": "2.25.1"}},
    ],
)
def test_an_answer_that_is_not_dicoms_is_unreadable(broken: Any) -> None:
    with pytest.raises(Unreadable):
        translate.study_of(broken, ZONE)


def test_the_first_part_of_a_multipart_answer_is_taken_whole() -> None:
    inside = b"\r\n--not the line\r\n" + secrets.token_bytes(64)
    for head in (b"", b"preamble\r\n"):
        body = head + b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + inside + b"\r\n--xyz--"
        for kind in (
            'multipart/related; boundary="xyz"; type="application/dicom"',
            "multipart/related;boundary=xyz",
        ):
            assert first_part(kind, body) == inside


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/dicom", b"x"),
        ("multipart/related", b"--a\r\n\r\nx\r\n--a--"),
        ("multipart/related; boundary=a", b"nothing"),
        ("multipart/related; boundary=a", b"--a\r\nContent-Type: x"),
        ("multipart/related; boundary=a", b"--a\r\n\r\ncut off"),
    ],
)
def test_a_multipart_answer_that_is_cut_off_is_unreadable(kind: str, body: bytes) -> None:
    with pytest.raises(Unreadable):
        first_part(kind, body)


def test_reading_says_nothing_in_warnings(recwarn: pytest.WarningsRecorder) -> None:
    spoiled = made()
    raw = as_file(spoiled).replace(b"P1", b"P\x9f", 1)
    with contextlib.suppress(dicom.Damaged):
        dicom.header_of(raw)
    assert [one for one in recwarn if "pydicom" in str(one.filename)] == []
    assert pydicom.dcmread(io.BytesIO(as_file(made()))).PatientName == SECRET_NAME
