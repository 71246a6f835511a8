"""Reads a DICOM object before anything of it is shown: what is damaged, or of somebody else, is not.

pydicom takes a moment to import and its reading takes a core: call `header_of` in a thread. It says what is
wrong by a word and names no value, because these are patients'.
"""

import io
import warnings
from dataclasses import dataclass, field
from typing import Any, Final

from integrations.pacs.translate import FRAMES_MAX, is_uid

OBJECT_BYTES_MAX: Final = 64 * 1024 * 1024
SIDE_MAX: Final = 16_384  # pixels
_PREAMBLE: Final = 128
_LONG: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"


class Damaged(Exception):
    """It cannot be shown; `why` is a word."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Header:
    """Whose picture it is and how large."""

    study_uid: str
    series_uid: str
    instance_uid: str
    patient_number: str = field(repr=False)
    frames: int
    rows: int
    columns: int


def header_of(raw: bytes) -> Header:
    """Raises Damaged."""
    if len(raw) > OBJECT_BYTES_MAX:
        raise Damaged("too_large")
    syntax = _transfer_syntax(raw)
    if syntax == _DEFLATED:
        raise Damaged("deflated")  # a few kilobytes of it unpack to as many gigabytes
    pydicom = _pydicom()
    try:
        found = pydicom.dcmread(io.BytesIO(raw))
        return _header(found, syntax, pydicom)
    except Damaged:
        raise
    except Exception as error:  # whatever a broken file makes of its reader: all of it means the same
        raise Damaged(f"unreadable_{type(error).__name__}") from None


def _pydicom() -> Any:
    import pydicom
    from pydicom import config

    # Its warnings quote values.
    config.settings.reading_validation_mode = config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")
    return pydicom


def _header(found: Any, syntax: str, pydicom: Any) -> Header:
    uids = [str(found.get(name, "")) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    if not all(map(is_uid, uids)):
        raise Damaged("uid")
    if str(found.file_meta.get("MediaStorageSOPInstanceUID", uids[2])) != uids[2]:
        raise Damaged("uids_disagree")
    rows, columns = (int(found.get(name, 0) or 0) for name in ("Rows", "Columns"))
    frames = int(found.get("NumberOfFrames", 1) or 1)
    if "PixelData" not in found:
        raise Damaged("no_picture")
    if not (0 < rows <= SIDE_MAX and 0 < columns <= SIDE_MAX and 0 < frames <= FRAMES_MAX):
        raise Damaged("size")
    bits, samples = int(found.get("BitsAllocated", 0) or 0), int(found.get("SamplesPerPixel", 1) or 1)
    if bits not in (1, 8, 16, 32) or not 0 < samples <= 4:
        raise Damaged("size")
    have = len(found.PixelData)
    if pydicom.uid.UID(syntax).is_compressed:
        if have < 16 or found.PixelData[:4] != b"\xfe\xff\x00\xe0":
            raise Damaged("pixels_cut_off")
    else:
        needed = rows * columns * samples * frames * bits // 8
        if "YBR_FULL_422" in str(found.get("PhotometricInterpretation", "")):
            needed = needed * 2 // 3
        if have < needed:
            raise Damaged("pixels_cut_off")
    number = str(found.get("PatientID", "") or "").strip()
    return Header(uids[0], uids[1], uids[2], number, frames, rows, columns)


def _transfer_syntax(raw: bytes) -> str:
    """How the rest is written: read by ourselves, because pydicom would already unpack what is deflated."""
    if raw[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise Damaged("no_preamble")
    at = _PREAMBLE + 4
    while raw[at : at + 2] == b"\x02\x00" and len(raw) >= at + 12:
        element, kind = raw[at + 2 : at + 4], raw[at + 4 : at + 6]
        if kind in _LONG:
            length, start = int.from_bytes(raw[at + 8 : at + 12], "little"), at + 12
        else:
            length, start = int.from_bytes(raw[at + 6 : at + 8], "little"), at + 8
        if element == b"\x10\x00":
            return raw[start : start + length].decode("ascii", errors="replace").rstrip("\0 ")
        at = start + length
    raise Damaged("no_transfer_syntax")
