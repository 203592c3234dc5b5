"""DICOM to a raster: stored values of frame 0, and what the header says about them."""

import io
import logging
import re
import warnings

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from .problems import BROKEN, UNSUPPORTED, ImageProblem
from .raster import Raster, check_dimensions

# pydicom's warnings quote values of the file; those may name a patient.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")

MAGIC = b"DICM"
MAGIC_OFFSET = 128
# Both ways of embedding read these and refuse the rest; None: pydicom reads it alone.
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
IN_A_YEAR = {"Y": 1, "M": 12, "W": 52, "D": 365}


def decode(data: bytes) -> Raster:
    """DICOM bytes -> Raster. VOI windows are not applied."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        return _raster(dataset)
    except ImageProblem:
        raise
    except Exception as error:  # pydicom and its plugins raise almost anything on broken files
        raise ImageProblem(BROKEN, f"broken DICOM: {type(error).__name__}") from error


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


def _raster(dataset: pydicom.Dataset) -> Raster:
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
        values = _twelve_bit(dataset)
    else:
        values = pixel_array(dataset, index=0, decoding_plugin=TRANSFER_SYNTAXES[syntax] or "")
    photometric = dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)[..., :3]
        samples = (colours >> 8).astype(np.uint8) if colours.dtype.itemsize > 1 else colours
        return Raster(np.ascontiguousarray(samples), "dicom", facts=facts(dataset))
    if dataset.SamplesPerPixel == 3:
        return Raster(np.ascontiguousarray(values), "dicom", facts=facts(dataset))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageProblem(UNSUPPORTED, f"photometric interpretation `{photometric}` is not read")
    return _grey(dataset, values)


def _twelve_bit(dataset: pydicom.Dataset) -> np.ndarray:
    """JPEG of 12 bits, which neither Pillow nor GDCM reads."""
    frame = get_frame(dataset.PixelData, 0, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    values = imagecodecs.jpeg_decode(frame)
    if values.shape != (dataset.Rows, dataset.Columns):
        raise ImageProblem(BROKEN, "the JPEG inside has another size than the data set says")
    return values.astype(np.uint16)


def _grey(dataset: pydicom.Dataset, values: np.ndarray) -> Raster:
    signed = dataset.PixelRepresentation == 1
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
        facts=facts(dataset),
    )


def _by_table(dataset: pydicom.Dataset, stored: np.ndarray, signed: bool) -> Raster:
    """A table stands in place of slope and intercept (PS3.3, C.11.1); what comes out of it is unsigned."""
    padding = _padding(dataset, signed)
    if padding is not None:
        padding = int(apply_modality_lut(np.array([padding]), dataset)[0])
    return Raster(
        np.ascontiguousarray(apply_modality_lut(stored, dataset), np.uint16),
        "dicom",
        windowed=True,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        padding=padding,
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


def _padding(dataset: pydicom.Dataset, signed: bool) -> int | None:
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    # Written as US in a file of signed pixels, a negative value arrives as 2**16 more.
    return value - (1 << 16) if signed and value > 32767 else value
