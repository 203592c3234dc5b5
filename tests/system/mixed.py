"""What a department sends: images of every kind and transfer syntax, no two alike, and objects that are no images."""

import io
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from conftest import have
from pacs import file_of

ROOT_UID = "1.2.826.0.1.3680043.10.77"
# What the archive is for. Mammograms and nuclear medicine are sent, too.
SCOPE = ("DX", "CR", "CT", "MR", "XC")
OUTSIDE = ("MG", "NM")
STORAGE = {
    "DX": uid.DigitalXRayImageStorageForPresentation,
    "CR": uid.ComputedRadiographyImageStorage,
    "CT": uid.CTImageStorage,
    "MR": uid.MRImageStorage,
    "XC": uid.VLPhotographicImageStorage,
    "MG": uid.DigitalMammographyXRayImageStorageForPresentation,
    "NM": uid.NuclearMedicineImageStorage,
}
NO_IMAGES = {
    "SR": uid.BasicTextSRStorage,
    "KO": uid.KeyObjectSelectionDocumentStorage,
    "PR": uid.GrayscaleSoftcopyPresentationStateStorage,
    "RTPLAN": uid.RTPlanStorage,
    "DOC": uid.EncapsulatedPDFStorage,
}
LOSSY = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000}
# Another decoder rounds in its own way. Near-lossless JPEG-LS says to the bit what comes out.
LOSSY_LEVELS_MAX = dict.fromkeys(LOSSY, 3) | {uid.JPEGLSNearLossless: 0}
# Which of pydicom's plugins is asked where several could answer.
PLUGINS = {uid.JPEGBaseline8Bit: "pillow", uid.JPEGExtended12Bit: "pylibjpeg"}
# Kinds of pixels, and in which syntaxes they are sent: bits, signed, and what else.
NATIVE = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
LOSSLESS = (
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
)
KINDS = {
    "mono-8": (*NATIVE, *LOSSLESS, uid.JPEGBaseline8Bit, uid.JPEGLSNearLossless, uid.JPEG2000),
    "mono-12": (*NATIVE, *LOSSLESS, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000),
    "mono-16": (*NATIVE, *LOSSLESS),
    "signed-16": (*NATIVE, uid.RLELossless, uid.JPEG2000Lossless),
    "inverted-12": (*NATIVE, *LOSSLESS),
    "colour": (*NATIVE, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGBaseline8Bit),
    "palette": NATIVE,
    "frames-8": (*NATIVE, uid.RLELossless, uid.JPEGLSLossless, uid.JPEGBaseline8Bit),
    "frames-12": (*NATIVE, uid.RLELossless, uid.JPEG2000Lossless),
}
MODALITIES = {"mono-8": "CR", "signed-16": "CT", "mono-16": "MR", "colour": "XC", "palette": "XC"}
FRAMES = 3


@dataclass(frozen=True)
class Sent:
    """A file, and what shall become of it."""

    file: bytes
    kind: str
    syntax: str
    study: str
    series: str
    instance: str

    @property
    def admitted(self) -> bool:
        """It belongs into the archive."""
        return self.kind in KINDS

    @cached_property
    def dataset(self) -> pydicom.Dataset:
        """As pydicom reads it."""
        return pydicom.dcmread(io.BytesIO(self.file))

    def frame(self, number: int) -> np.ndarray:
        """As pydicom decodes it: colours where there is a palette, RGB for colour differences, else stored values."""
        values = pixel_array(self.dataset, index=number - 1, decoding_plugin=PLUGINS.get(self.syntax, ""))
        if self.dataset.PhotometricInterpretation == "PALETTE COLOR":
            return (apply_color_lut(values, self.dataset)[..., :3] >> 8).astype(np.uint8)
        return values

    @property
    def window(self) -> tuple[float, float]:
        """Center and width of one that cuts on both sides."""
        levels = 1 << self.dataset.BitsStored
        return (-100.0 if self.dataset.PixelRepresentation else 0.45 * levels), 0.6 * levels

    def shown(self) -> np.ndarray:
        """The first frame as 8 bit through the window (PS3.3, C.11.2.1.2.1); colours as they are."""
        values = self.frame(1)
        if values.ndim == 3:
            return values
        center, width = self.window
        values = apply_modality_lut(values, self.dataset).astype(float)
        grey = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
        return 255 - grey if self.dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def studies(images: int, others: int, of: int = 22) -> list[list[Sent]]:
    """So many images that belong into the archive, and so many objects that do not, in studies of about so many."""
    pairs = [(kind, syntax) for kind, syntaxes in KINDS.items() for syntax in syntaxes]
    # Side by side in a study are different kinds, and a small number of images has many syntaxes.
    order = np.random.default_rng(5).permutation(len(pairs))
    wanted = [pairs[order[number % len(pairs)]] for number in range(images)]
    strange = [*NO_IMAGES, *OUTSIDE]
    for number in range(others):
        at = (number * len(wanted)) // max(1, others) + number
        wanted.insert(at, (strange[number % len(strange)], uid.ExplicitVRLittleEndian))
    every = [one(number, kind, syntax, number // of) for number, (kind, syntax) in enumerate(wanted)]
    return [every[at : at + of] for at in range(0, len(every), of)]


def one(number: int, kind: str, syntax: str, study: int) -> Sent:
    """The instance of a number."""
    names = f"{ROOT_UID}.{study}", f"{ROOT_UID}.{study}.1", f"{ROOT_UID}.{study}.1.{number + 1}"
    dataset = image(number, kind) if kind in KINDS or kind in OUTSIDE else document(kind)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = names
    dataset.PatientID, dataset.PatientName = f"MIX-{study}", "Doe^Jane"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, number + 1
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return Sent(encoded(dataset, syntax), kind, syntax, *names)


def image(number: int, kind: str) -> Dataset:
    """Its pixels are found in no other one: waves with a phase and a frequency of its own, and noise."""
    dataset = Dataset()
    name, _, bits = kind.partition("-")
    dataset.Modality = kind if kind in OUTSIDE else MODALITIES.get(kind, "DX")
    dataset.SOPClassUID = STORAGE[dataset.Modality]
    stored, frames = int(bits or 8), FRAMES if name == "frames" else 1
    rng = np.random.default_rng(number)
    rows, columns = (int(size) for size in rng.integers(24, 120, 2) * 2)
    y, x = np.mgrid[0:rows, 0:columns]
    layers = frames * (3 if kind == "colour" else 1)
    waves = [np.sin(x / rng.uniform(5, 25) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(5, 25)) for _ in range(layers)]
    unit = np.stack(waves) * 0.42 + 0.5 + rng.normal(0, 0.01, (layers, rows, columns))
    values = np.clip(unit, 0, 1) * ((1 << stored) - 1)
    values = values - (1 << (stored - 1)) if name == "signed" else values
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 if stored == 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, stored - 1, int(name == "signed")
    if name == "inverted":
        dataset.PhotometricInterpretation = "MONOCHROME1"
    if name == "signed":
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-24", "HU"
    if frames > 1:
        dataset.NumberOfFrames = frames
    if kind == "colour":
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        values = values.transpose(1, 2, 0)
    if kind == "palette":
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        entries = rng.permutation(256)
        for colour, shift in (("Red", 0), ("Green", 85), ("Blue", 170)):
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            table = ((entries + shift) % 256 * 257).astype("<u2").tobytes()
            setattr(dataset, f"{colour}PaletteColorLookupTableData", table)
    kept = values.round().astype(f"<{'i' if name == 'signed' else 'u'}{dataset.BitsAllocated // 8}")
    dataset.PixelData = kept.tobytes() + b"\0" * (kept.nbytes % 2)
    dataset["PixelData"].VR = "OB" if stored == 8 else "OW"
    return dataset


def document(kind: str) -> Dataset:
    """An object without pixels."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality = NO_IMAGES[kind], kind
    dataset.StudyDate, dataset.ContentDate, dataset.ContentTime = "20260101", "20260101", "120000"
    if kind in ("SR", "KO"):
        dataset.CompletionFlag, dataset.VerificationFlag, dataset.ValueType = "COMPLETE", "UNVERIFIED", "CONTAINER"
        text = Dataset()
        text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", "no finding"
        dataset.ContentSequence = [text]
    if kind == "DOC":
        dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocument = "application/pdf", b"%PDF-1.4 " * 8
    return dataset


def encoded(dataset: Dataset, syntax: str) -> bytes:
    """A file in a transfer syntax: by dcmtk, for JPEG 2000 and RLE by pydicom."""
    plain = file_of(dataset)
    if syntax == uid.ExplicitVRLittleEndian:
        return plain
    if syntax in (uid.RLELossless, uid.JPEG2000Lossless, uid.JPEG2000):
        copied = pydicom.dcmread(io.BytesIO(plain))
        how = {"j2k_cr": [6]} if syntax == uid.JPEG2000 else {}
        copied.compress(syntax, generate_instance_uid=False, **how)
        return file_of(copied)
    program, *options = {
        uid.ImplicitVRLittleEndian: ("dcmconv", "+ti"),
        uid.ExplicitVRBigEndian: ("dcmconv", "+tb"),
        uid.DeflatedExplicitVRLittleEndian: ("dcmconv", "+td"),
        uid.JPEGLossless: ("dcmcjpeg", "+el", "+un"),
        uid.JPEGLosslessSV1: ("dcmcjpeg", "+e1", "+un"),
        uid.JPEGBaseline8Bit: ("dcmcjpeg", "+eb", "+un"),
        uid.JPEGExtended12Bit: ("dcmcjpeg", "+ee", "+un"),
        uid.JPEGLSLossless: ("dcmcjpls", "+el", "+un"),
        uid.JPEGLSNearLossless: ("dcmcjpls", "+en", "+un"),
    }[syntax]
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before", Path(folder) / "after"
        before.write_bytes(plain)
        subprocess.run([have(program), *options, before, after], check=True, capture_output=True, timeout=60)
        return after.read_bytes()


def of(sent: list[list[Sent]]) -> Iterator[Sent]:
    """All of them."""
    return (each for study in sent for each in study)


def counted(sent: list[list[Sent]]) -> dict:
    """Of each syntax how many images, and what else there is."""
    syntaxes = Counter(uid.UID(each.syntax).name for each in of(sent) if each.admitted)
    others = Counter(each.kind for each in of(sent) if not each.admitted)
    return {"images": dict(sorted(syntaxes.items())), "others": dict(sorted(others.items()))}


def picture(png: bytes) -> np.ndarray:
    """The samples of a picture."""
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)
