"""Pictures for the sandbox: a chest as an X-ray shows it, drawn from a few ellipses and noise. Nobody's.

dataset = chest(study, n, side=256)          # a pydicom dataset
raw = as_file(dataset)                       # its bytes
png_of(dataset, center, width)               # rendered, without any library of pictures
"""

import functools
import io
import random
import struct
import zlib
from typing import Any, Final

from integrations.pacs.pacs import Window

SIDE: Final = 128  # pixels: enough to look at, quick to draw
_BITS: Final = 12
_CHESTS: Final = 3
_MOST: Final = (1 << _BITS) - 1
_MADE_BY: Final = "2.25.329800735698586629295641978511506172918"  # of our own, for everything made here


def chest(
    *, study_uid: str, series_uid: str, instance_uid: str, number: int, said: dict[str, str], side: int = SIDE
) -> Any:
    """A dataset with a picture. `said` are DICOM keywords and their values."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    made: Any = Dataset()
    made.SpecificCharacterSet = "GB18030"
    made.SOPClassUID = DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID = instance_uid, study_uid, series_uid
    made.InstanceNumber = str(number)
    made.SeriesNumber = "1"
    for keyword, value in said.items():
        setattr(made, keyword, value)
    made.Rows = made.Columns = side
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, _BITS, _BITS - 1, 0
    made.WindowCenter, made.WindowWidth = str(_MOST // 2), str(_MOST)
    made.PixelData = _drawn(side, random.Random(instance_uid))  # nosec B311  # noise of a drawing
    made["PixelData"].VR = "OW"
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = instance_uid
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationClassUID = _MADE_BY
    return made


def as_file(dataset: Any) -> bytes:
    import pydicom

    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def png_of(dataset: Any, window: Window | None = None) -> bytes:
    """The shades of a window in 256 greys (PS3.3 C.11.2.1.2.1, linear)."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if window is None:
        window = Window(float(dataset.WindowCenter), float(dataset.WindowWidth))
    low = window.center - 0.5 - (window.width - 1) / 2
    span = max(window.width - 1, 1e-6)
    greys = [max(0, min(255, round((value - low) / span * 255))) for value in range(_MOST + 1)]
    pixels = struct.unpack(f"<{rows * columns}H", dataset.PixelData[: rows * columns * 2])
    lines = bytearray()
    for row in range(rows):
        lines.append(0)  # no filter
        lines += bytes(greys[value] for value in pixels[row * columns : (row + 1) * columns])
    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(lines))), (b"IEND", b""))
    )


def _drawn(side: int, chance: random.Random) -> bytes:
    """One of a few chests, with the grain of this picture."""
    shades = _shades(side, chance.randrange(_CHESTS))
    grain = chance.randbytes(len(shades))
    values = [max(0, min(_MOST, shade + noise - 128)) for shade, noise in zip(shades, grain, strict=True)]
    return struct.pack(f"<{len(values)}H", *values)


@functools.cache
def _shades(side: int, chest: int) -> list[int]:
    """Bone is white, air is black."""
    tilt = 0.02 * (chest - _CHESTS / 2)
    heart = 0.9 + 0.1 * chest
    values = []
    for row in range(side):
        y = 2 * row / side - 1
        for column in range(side):
            x = 2 * column / side - 1 + tilt * y
            shade = 2_300.0 if x * x / 0.86 + y * y / 1.3 < 1 else 150.0  # the trunk
            for middle in (-0.42, 0.42):  # lungs
                depth = ((x - middle) / 0.30) ** 2 + ((y + 0.05) / 0.68) ** 2
                if depth < 1:
                    shade = 750 + 900 * depth
                    shade += 420 * max(0.0, _rib(y + abs(x) * 0.5))
            if (x - 0.12) ** 2 / (0.3 * heart) ** 2 + (y - 0.28) ** 2 / 0.12 < 1:
                shade = max(shade, 2_750.0)  # the heart
            if abs(x) < 0.07:
                shade = max(shade, 3_000.0 + 180 * _rib(2.2 * y))  # the spine
            if y > 0.62 and abs(x) < 0.85:
                shade = max(shade, 2_600.0)  # below the diaphragm
            values.append(int(shade))
    return values


def _rib(y: float) -> float:
    """Waves of bone."""
    at = (y * 5.5) % 1
    return 1 - abs(at - 0.5) * 5
