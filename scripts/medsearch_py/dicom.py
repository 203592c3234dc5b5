"""DICOM to a raster: stored values of a frame, and what the header says about them."""

import io
import logging
import math
import re
import warnings

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.pixels.utils import get_j2k_parameters

from .problems import BROKEN, INVALID_REQUEST, TOO_MANY_PIXELS, UNSUPPORTED, ImageProblem
from .raster import FRAMES_MAX, Raster, check_dimensions
from .windows import LINEAR, LINEAR_EXACT, SIGMOID, Voi

# pydicom's warnings quote values of the file; those may name a patient.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")

MAGIC = b"DICM"
MAGIC_OFFSET = 128
# Both ways of embedding read these and refuse all others; None: pydicom reads it alone.
TRANSFER_SYNTAXES = {
    uid.ImplicitVRLittleEndian: None,
    uid.ExplicitVRLittleEndian: None,
    uid.DeflatedExplicitVRLittleEndian: None,
    uid.ExplicitVRBigEndian: None,
    uid.RLELossless: None,
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "pillow",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "gdcm",
    uid.JPEGLSNearLossless: "gdcm",
    uid.JPEG2000Lossless: "gdcm",
    uid.JPEG2000: "gdcm",
}
# Record field -> DICOM keyword (PS3.6).
FACTS = {
    "patient_id": "PatientID",
    "issuer": "IssuerOfPatientID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "sop_uid": "SOPInstanceUID",
}
CODES = {"view": "ViewPosition", "sex": "PatientSex"}
TAGS = {"modality": "Modality", "body_part": "BodyPartExamined"}
# A code string (PS3.5 6.2, VR CS); anything else in its place is free text, which may name somebody.
CODE = re.compile(r"[A-Z0-9 _]{1,16}")
# An age string (VR AS) -> how many of its unit make a year.
AGE = re.compile(r"([0-9]{1,3})([YMWD])")
# What a decimal string has (PS3.5 6.2, VR DS).
DECIMAL = re.compile(r"[0-9+\-.eE]+")
# Longer values are not looked at.
VALUE_BYTES_MAX = 1024
IN_A_YEAR = {"Y": 1, "M": 12, "W": 52, "D": 365}


def decode(data: bytes, frame: int = 1) -> Raster:
    """DICOM bytes -> Raster of one frame, counted from 1. VOI windows are not applied."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        count = _frames(dataset)
        if not 1 <= frame <= count:
            raise ImageProblem(INVALID_REQUEST, f"there is no frame `{frame}`: the number of frames is `{count}`")
        return _raster(dataset, frame)
    except ImageProblem:
        raise
    except Exception as error:  # pydicom and its plugins raise almost anything on broken files
        raise ImageProblem(BROKEN, f"broken DICOM: {type(error).__name__}") from error


def frames(data: bytes) -> int:
    """How many frames a DICOM file has."""
    try:
        return _frames(pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=["NumberOfFrames"]))
    except ImageProblem:
        raise
    except Exception as error:  # as above
        raise ImageProblem(BROKEN, f"broken DICOM: {type(error).__name__}") from error


def _frames(dataset: pydicom.Dataset) -> int:
    count = max(int(dataset.get("NumberOfFrames") or 1), 1)
    if count > FRAMES_MAX:
        raise ImageProblem(TOO_MANY_PIXELS, f"`{count}` frames are over the limit of `{FRAMES_MAX}`")
    return count


def facts(dataset: pydicom.Dataset) -> dict:
    """Identity, view and patient fields under the record's names; empty ones left out."""
    found = {name: _text(dataset, keyword) for name, keyword in FACTS.items()}
    found["age"] = years(_text(dataset, "PatientAge"))
    found.update((name, _code(dataset, keyword)) for name, keyword in CODES.items())
    tags = {name: _code(dataset, keyword) for name, keyword in TAGS.items()}
    found["tags"] = {name: value for name, value in tags.items() if value}
    return {name: value for name, value in found.items() if value}


def years(age: str) -> str:
    """Whole years of `045Y`, `006M`, `012W` or `010D`; empty for anything else."""
    match = AGE.fullmatch(age)
    return str(int(match[1]) // IN_A_YEAR[match[2]]) if match else ""


def _code(dataset: pydicom.Dataset, keyword: str) -> str:
    text = _text(dataset, keyword)
    return text if CODE.fullmatch(text) else ""


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip().strip("\0")


def _raster(dataset: pydicom.Dataset, frame: int) -> Raster:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in TRANSFER_SYNTAXES:
        raise ImageProblem(UNSUPPORTED, f"transfer syntax `{syntax}` is not read")
    if "PixelData" not in dataset:
        raise ImageProblem(BROKEN, "the DICOM file has no pixel data")
    check_dimensions(int(dataset.Columns), int(dataset.Rows))
    kinds = {1: (1,), 8: (1, 3), 16: (1, 3)}
    if dataset.SamplesPerPixel not in kinds.get(dataset.BitsAllocated, ()):
        raise ImageProblem(
            UNSUPPORTED, f"{dataset.SamplesPerPixel} samples of {dataset.BitsAllocated} bits are not read"
        )
    if syntax == uid.JPEGExtended12Bit and dataset.BitsAllocated == 16:
        values = _twelve_bit(dataset, frame)
    else:
        values = pixel_array(dataset, index=frame - 1, decoding_plugin=TRANSFER_SYNTAXES[syntax] or "")
    photometric = dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)[..., :3]
        samples = (colours >> 8).astype(np.uint8) if colours.dtype.itemsize > 1 else colours
        return Raster(np.ascontiguousarray(samples), "dicom", facts=facts(dataset))
    if dataset.SamplesPerPixel == 3:
        return Raster(_whole_range(values, int(dataset.BitsStored)), "dicom", facts=facts(dataset))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageProblem(UNSUPPORTED, f"photometric interpretation `{photometric}` is not read")
    return _grey(dataset, frame, values)


def _coded(dataset: pydicom.Dataset, frame: int) -> bytes:
    """What a frame is coded as."""
    return get_frame(dataset.PixelData, frame - 1, number_of_frames=_frames(dataset))


def _twelve_bit(dataset: pydicom.Dataset, frame: int) -> np.ndarray:
    """JPEG of 12 bits, which neither Pillow nor GDCM reads; what BitsStored can't say is the largest value."""
    if dataset.SamplesPerPixel != 1:
        raise ImageProblem(UNSUPPORTED, "JPEG of 12 bits in colour is not read")
    values = imagecodecs.jpeg_decode(_coded(dataset, frame)).astype(np.uint16)
    if values.shape != (dataset.Rows, dataset.Columns):
        raise ImageProblem(BROKEN, "the picture inside has another size or depth than the data set says")
    return values if dataset.PixelRepresentation == 1 else np.minimum(values, (1 << dataset.BitsStored) - 1)


def _whole_range(values: np.ndarray, stored: int) -> np.ndarray:
    """Colours of so many bits as ones of 8 or of 16."""
    if values.dtype.itemsize > 1:
        top = (1 << stored) - 1
        values = np.minimum(values.astype(np.uint32), top)
        values = values.astype(np.uint8) if stored <= 8 else ((values * 65535 + top // 2) // top).astype(np.uint16)
    return np.ascontiguousarray(values)


def _grey(dataset: pydicom.Dataset, frame: int, values: np.ndarray) -> Raster:
    signed = dataset.PixelRepresentation == 1
    stored = values
    if not _is_j2k_of_values(dataset, frame, signed):
        stored = _stored_bits(values, int(dataset.BitsStored), int(dataset.HighBit), signed)
    if dataset.get("ModalityLUTSequence"):
        return _by_table(dataset, stored, signed)
    slope = float(dataset.get("RescaleSlope") or 1)
    intercept = float(dataset.get("RescaleIntercept") or 0)
    return Raster(
        stored,
        "dicom",
        # Bits are black and white, and signed 8-bit values don't fit 0..255 as they are.
        windowed=not 2 <= dataset.BitsStored <= 8 or (slope, intercept) != (1, 0) or signed,
        inverted=(dataset.PhotometricInterpretation == "MONOCHROME1") != (slope < 0),
        padding=_padding(dataset, signed),
        rescale=None if _has_values_by_frame(dataset) else (slope, intercept),
        voi=_voi(dataset),
        facts=facts(dataset),
    )


def _is_j2k_of_values(dataset: pydicom.Dataset, frame: int, signed: bool) -> bool:
    """JPEG 2000 codes values, not bits, unless whole cells were coded as if they were numbers without a sign."""
    if dataset.file_meta.TransferSyntaxUID not in (uid.JPEG2000Lossless, uid.JPEG2000):
        return False
    codestream = get_j2k_parameters(_coded(dataset, frame))
    return not (signed and not codestream["is_signed"] and codestream["precision"] > dataset.BitsStored)


def _by_table(dataset: pydicom.Dataset, stored: np.ndarray, signed: bool) -> Raster:
    """A table stands in place of slope and intercept (PS3.3, C.11.1); what comes out of it is unsigned."""
    item = dataset.ModalityLUTSequence[-1]
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 1 << 16
    first = first - (1 << 16) if signed and first > 32767 else first
    data = item.LUTData
    words = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.atleast_1d(data).astype("<u2")
    # Entries of 8 bits may lie two in a word.
    table = (words.view(np.uint8) if len(words) < count and bits <= 8 else words)[:count].astype(np.uint16)
    if len(table) < count:
        raise ImageProblem(BROKEN, "its modality LUT is too short")
    padding = _padding(dataset, signed)
    # What lies beyond the table looks like its ends, which are seen. It rises or falls, so that a range stays one.
    held = [] if padding is None else [max(padding[0], first), min(padding[1], first + count - 1)]
    is_held = padding is not None and held[0] <= held[1]
    entries = sorted(int(table[value - first]) for value in held) if is_held else None
    return Raster(
        table[np.clip(stored.astype(np.int32) - first, 0, count - 1)],
        "dicom",
        windowed=True,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        padding=None if entries is None else (entries[0], entries[1]),
        voi=_voi(dataset),
        facts=facts(dataset),
    )


def _stored_bits(values: np.ndarray, stored: int, high: int, signed: bool) -> np.ndarray:
    """The BitsStored bits that end at HighBit, sign extended: overlays may sit in the others."""
    # Big-endian files come as big-endian arrays, which a view would read the wrong way round.
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    allocated = values.dtype.itemsize * 8
    kind = np.dtype(f"{'i' if signed else 'u'}{allocated // 8}")
    if stored >= allocated:
        return values.astype(kind, copy=False)
    unsigned = values.view(f"u{allocated // 8}").astype(np.int32) >> (high + 1 - stored)
    unsigned &= (1 << stored) - 1
    if signed:
        unsigned -= (unsigned >> (stored - 1)) << stored
    return unsigned.astype(kind)


def _padding(dataset: pydicom.Dataset, signed: bool) -> tuple[int, int] | None:
    """The first and the last of the values that stand for nothing (PS3.3, C.7.5.1.1.2)."""
    value = _stored_value(dataset, "PixelPaddingValue", signed)
    if value is None:
        return None
    limit = _stored_value(dataset, "PixelPaddingRangeLimit", signed)
    limit = value if limit is None else limit
    return min(value, limit), max(value, limit)


def _stored_value(dataset: pydicom.Dataset, keyword: str, signed: bool) -> int | None:
    value = dataset.get(keyword)
    if not isinstance(value, int):
        return None
    # Written as US in a file of signed pixels, a negative value arrives as 2**16 more.
    return value - (1 << 16) if signed and value > 32767 else value


def _has_values_by_frame(dataset: pydicom.Dataset) -> bool:
    """Whether a functional group says what stored values stand for (PS3.3, C.7.6.16.2.9), which is not read."""
    groups = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    items = (item for group in groups for item in dataset.get(group) or [])
    return any("PixelValueTransformationSequence" in item for item in items)


def _voi(dataset: pydicom.Dataset) -> Voi | None:
    """The first window of the file; none that makes no sense: a window is a proposal."""
    function = _text(dataset, "VOILUTFunction") or LINEAR
    center, width = (_first_decimal(dataset, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if function not in (LINEAR, LINEAR_EXACT, SIGMOID) or center is None or width is None:
        return None
    voi = Voi(center, width, function)
    return voi if voi.is_window() else None


def _first_decimal(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The first of several decimal strings."""
    element = dataset.get_item(keyword)
    value = element.value if element is not None else None
    # As it stands in the file: one that is no number makes pydicom refuse all of them.
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    text = text.split("\\")[0].strip(" \0\t\r\n") if len(text) <= VALUE_BYTES_MAX else ""
    try:
        number = float(text) if DECIMAL.fullmatch(text) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
