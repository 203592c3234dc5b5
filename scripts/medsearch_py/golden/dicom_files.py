"""DICOM: both greys, 8 to 16 bits, signed, palette, colour spaces, frames, transfer syntaxes."""

import io
import tempfile
from pathlib import Path

import gdcm
import imagecodecs
import numpy as np
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended

from .picture import HEIGHT, WIDTH, colour, grey

ROOT = "2.25.1001"
FIRST_OF_TWO = {"WindowCenter": ["140.5", "40"], "WindowWidth": ["1000.25", "400"]}


def files() -> dict[str, bytes]:
    """Name -> bytes."""
    mono8, mono12, mono16 = grey(256), grey(4096), grey(65536)
    signed = grey(4096) - 1024
    pair = np.stack([grey(4096), grey(4096)[::-1]])
    # Frames that begin inside a byte or a word: of bits, and of bytes that are odd in number.
    odd = np.stack([turned[:95, :127] for turned in (mono8, mono8[::-1], mono8[:, ::-1])])
    made = {
        "mono2-8": _grey(mono8, 8, 8),
        "mono1-8": _grey(mono8, 8, 8, "MONOCHROME1"),
        "mono2-8-in-16": _grey(mono8, 16, 8),
        "mono2-8-rescaled": _grey(mono8, 8, 8, RescaleSlope="2", RescaleIntercept="-100"),
        "mono2-12": _grey(mono12, 16, 12),
        "mono1-12": _grey(mono12, 16, 12, "MONOCHROME1"),
        "mono2-12-overlay-bits": _grey(mono12 | ((mono12 % 3 == 0) << 13), 16, 12),
        "mono2-16": _grey(mono16, 16, 16),
        "mono1-16-negative-slope": _grey(mono16, 16, 16, "MONOCHROME1", RescaleSlope="-1", RescaleIntercept="65535"),
        "mono2-12-signed": _grey(np.clip(signed, -2048, 2047), 16, 12, signed=True, RescaleIntercept="-1024"),
        "mono2-16-signed": _grey(grey(65536) - 32768, 16, 16, signed=True),
        "mono1-16-signed": _grey(signed, 16, 16, "MONOCHROME1", signed=True),
        "mono2-16-padding": _grey(np.where(mono12 < 1500, 0, mono12), 16, 16, PixelPaddingValue=0),
        "mono2-16-signed-padding": _grey(
            np.where(signed < 200, -2000, signed), 16, 16, signed=True, PixelPaddingValue=-2000
        ),
        "mono2-16-padding-range": _grey(
            np.where(mono12 < 1500, mono12 % 300, mono12), 16, 16, PixelPaddingValue=0, PixelPaddingRangeLimit=299
        ),
        "mono2-16-signed-padding-range": _grey(
            np.where(signed < 200, -2000 + signed % 100, signed),
            16,
            16,
            signed=True,
            PixelPaddingValue=-1901,
            PixelPaddingRangeLimit=-2000,
        ),
        "mono2-12-lut-padding-range": _by_table(mono12, 12, PixelPaddingValue=0, PixelPaddingRangeLimit=1200),
        # What a table of windows takes: `windows.TABLE` has rules for CT and CR.
        "ct-12-signed": _grey(
            np.clip(signed, -2048, 2047), 16, 12, signed=True, Modality="CT", RescaleIntercept="100", **FIRST_OF_TWO
        ),
        "ct-16-head": _grey(mono16, 16, 16, Modality="CT", BodyPartExamined="HEAD", RescaleSlope="0.1"),
        "ct-12-negative-slope": _grey(mono12, 16, 12, Modality="CT", RescaleSlope="-1.5", RescaleIntercept="2000"),
        "ct-12-lut": _by_table(mono12, 12, Modality="CT"),
        "cr-16-window": _grey(mono16, 16, 16, "MONOCHROME1", Modality="CR", **FIRST_OF_TWO),
        "cr-8-window": _grey(mono8, 8, 8, Modality="CR", **FIRST_OF_TWO),
        "cr-12-window-exact": _grey(
            mono12, 16, 12, Modality="CR", VOILUTFunction="LINEAR_EXACT", RescaleSlope="0.37", **FIRST_OF_TWO
        ),
        "cr-12-window-sigmoid": _grey(
            mono12, 16, 12, Modality="CR", VOILUTFunction="SIGMOID", RescaleSlope="-0.5", **FIRST_OF_TWO
        ),
        "cr-12-window-zero": _grey(mono12, 16, 12, Modality="CR", WindowCenter="40", WindowWidth="0"),
        "cr-12-window-unknown": _grey(mono12, 16, 12, Modality="CR", VOILUTFunction="CUBIC", **FIRST_OF_TWO),
        "cr-12": _grey(mono12, 16, 12, Modality="CR"),
        "ct-12-by-frame": _by_frame(mono12),
        "mono2-12-frames": _grey(pair, 16, 12, NumberOfFrames=2),
        "constant": _grey(np.full((HEIGHT, WIDTH), 900), 16, 12),
        "rgb": _colour(colour(256), "RGB", 0),
        "rgb-planar": _colour(colour(256), "RGB", 1),
        "ybr-full": _colour(_ybr(colour(256)), "YBR_FULL", 0),
        "bits": _bits(grey(256) > 127),
        "bits-frames": _bits(odd > 127, NumberOfFrames=3),
        "mono2-8-frames": _grey(odd, 8, 8, NumberOfFrames=3),
        "mono2-12-lut": _by_table(mono12, 12),
        "mono1-12-lut-padding": _by_table(mono12, 12, "MONOCHROME1", 12, PixelPaddingValue=int(np.median(mono12))),
        "mono2-8-lut-packed": _by_table(mono8, 8, entry_bits=8),
        # Upside down: close to the colours that only differ by how ink becomes light, it would change places with them.
        "rgb-12": _wide_colour(colour(4096)[::-1], 12),
        "palette-8": _palette(grey(256), 8),
        "palette-16": _palette(grey(256), 16),
    }
    written = {f"{name}.dcm": _write(dataset, uid.ExplicitVRLittleEndian) for name, dataset in made.items()}
    written["mono2-12-implicit.dcm"] = _write(made["mono2-12"], uid.ImplicitVRLittleEndian)
    written["mono2-12-deflated.dcm"] = _write(made["mono2-12"], uid.DeflatedExplicitVRLittleEndian)
    written["mono2-12-frames-deflated.dcm"] = _write(made["mono2-12-frames"], uid.DeflatedExplicitVRLittleEndian)
    written["mono2-12-big-endian.dcm"] = _big_endian(mono12)
    for name in ("mono2-8", "mono2-12", "mono2-12-frames", "rgb"):
        written[f"{name}-rle.dcm"] = _rle(made[name])
    for name, syntax in (("57", uid.JPEGLossless), ("70", uid.JPEGLosslessSV1)):
        written[f"mono2-16-jpeg-lossless-{name}.dcm"] = _recoded(written["mono2-16.dcm"], syntax)
        written[f"mono1-12-jpeg-lossless-{name}.dcm"] = _recoded(written["mono1-12.dcm"], syntax)
    for name, syntax in (("jpeg-ls", uid.JPEGLSLossless), ("jpeg-2000", uid.JPEG2000Lossless)):
        for made_of in ("mono2-8", "mono1-12", "mono2-16", "mono2-12-signed", "rgb"):
            written[f"{made_of}-{name}.dcm"] = _recoded(written[f"{made_of}.dcm"], syntax)
    written["mono2-8-frames-big-endian.dcm"] = _big_endian_bytes(odd, NumberOfFrames=3)
    written["mono2-12-frames-jpeg-ls.dcm"] = _recoded(written["mono2-12-frames.dcm"], uid.JPEGLSLossless)
    jpegs = [_jpeg_frame(frame) for frame in odd]
    jpeg = made["mono2-8-frames"]
    written["frames-table-jpeg.dcm"] = _in_fragments(jpeg, encapsulate(jpegs, fragments_per_frame=3))
    written["frames-marked-jpeg.dcm"] = _in_fragments(jpeg, encapsulate(jpegs, fragments_per_frame=2, has_bot=False))
    written["frames-counted-jpeg.dcm"] = _in_fragments(jpeg, encapsulate(jpegs, has_bot=False))
    data, offsets, lengths = encapsulate_extended(jpegs)
    tables = {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    written["frames-extended-jpeg.dcm"] = _in_fragments(jpeg, data, **tables)
    written["mono2-12-jpeg-12.dcm"] = _jpeg_12(made["mono2-12"])
    written["mono2-8-jpeg.dcm"] = _jpeg(made["mono2-8"], "MONOCHROME2")
    written["mono1-8-jpeg.dcm"] = _jpeg(made["mono2-8"], "MONOCHROME1")
    written["ybr-422-jpeg.dcm"] = _jpeg(made["rgb"], "YBR_FULL_422")
    written["truncated.dcm"] = written["mono2-16.dcm"][: len(written["mono2-16.dcm"]) // 2]
    return written


def _common(height: int, width: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = f"{ROOT}.3"
    dataset.StudyInstanceUID = f"{ROOT}.1"
    dataset.SeriesInstanceUID = f"{ROOT}.2"
    dataset.PatientID = "GOLDEN-1"
    dataset.IssuerOfPatientID = "TEST"
    dataset.PatientAge = "045Y"
    dataset.PatientSex = "F"
    dataset.Modality = "DX"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.Rows, dataset.Columns = height, width
    return dataset


def _grey(
    values: np.ndarray,
    allocated: int,
    stored: int,
    photometric: str = "MONOCHROME2",
    signed: bool = False,
    **elements,
) -> Dataset:
    dataset = _common(*values.shape[-2:])
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, stored - 1
    dataset.PixelRepresentation = int(signed)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    if "RescaleIntercept" in elements and "RescaleSlope" not in elements:
        dataset.RescaleSlope = "1"
    kind = f"<{'i' if signed else 'u'}{allocated // 8}"
    dataset.PixelData = values.astype(kind).tobytes()
    dataset["PixelData"].VR = "OW" if allocated > 8 else "OB"
    return dataset


def _bits(values: np.ndarray, **elements) -> Dataset:
    dataset = _grey(values, 8, 1, **elements)
    dataset.BitsAllocated = 1
    dataset.PixelData = np.packbits(values.astype(np.uint8).ravel(), bitorder="little").tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset


def _by_table(
    values: np.ndarray, stored: int, photometric: str = "MONOCHROME2", entry_bits: int = 16, **elements
) -> Dataset:
    """With a modality LUT that is neither linear nor monotone nor as long as the values reach."""
    dataset = _grey(values, 8 if stored == 8 else 16, stored, photometric, **elements)
    count, first = (200, 30) if stored == 8 else (3000, 500)
    at = np.arange(count)
    entries = (at * at * ((1 << entry_bits) - 100) // count**2) + at * 37 % 41
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [count, first, entry_bits])
    table.add_new("LUTData", "OW", entries.astype(np.uint8 if entry_bits == 8 else "<u2").tobytes())
    table.ModalityLUTType = "US"
    dataset.ModalityLUTSequence = [table]
    return dataset


def _colour(values: np.ndarray, photometric: str, planar: int) -> Dataset:
    dataset = _common(*values.shape[:2])
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = photometric
    dataset.PlanarConfiguration = planar
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    ordered = values.transpose(2, 0, 1) if planar else values
    dataset.PixelData = ordered.astype(np.uint8).tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset


def _wide_colour(values: np.ndarray, stored: int) -> Dataset:
    dataset = _colour(values, "RGB", 0)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, stored, stored - 1
    dataset.PixelData = values.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _by_frame(values: np.ndarray) -> Dataset:
    """As enhanced CT has it: what stored values stand for is said in a functional group."""
    transformation, group = Dataset(), Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = "1", "-1024", "HU"
    group.PixelValueTransformationSequence = [transformation]
    return _grey(values, 16, 12, Modality="CT", SharedFunctionalGroupsSequence=[group])


def _ybr(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.uint8)).convert("YCbCr"))


def _palette(values: np.ndarray, entry_bits: int) -> Dataset:
    dataset = _grey(values, 8, 8, "PALETTE COLOR")
    at = np.arange(256)
    for name, entries in (("Red", at), ("Green", 255 - at), ("Blue", at * 7 % 256)):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, entry_bits])
        wide = entries * 257 if entry_bits == 16 else entries
        data = wide.astype("<u2" if entry_bits == 16 else np.uint8).tobytes()
        setattr(dataset, f"{name}PaletteColorLookupTableData", data)
    return dataset


def _write(dataset: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = ROOT
    dataset.file_meta = meta
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _big_endian(values: np.ndarray) -> bytes:
    dataset = _grey(values, 16, 12)
    dataset.PixelData = values.astype(">u2").tobytes()
    return _write(dataset, uid.ExplicitVRBigEndian)


def _big_endian_bytes(values: np.ndarray, **elements) -> bytes:
    """Samples of 8 bits in words (VR OW), whose first byte is the second sample (PS3.5, 8.1.1)."""
    dataset = _grey(values, 8, 8, **elements)
    data = values.astype(np.uint8).tobytes()
    dataset.PixelData = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2").astype(">u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return _write(dataset, uid.ExplicitVRBigEndian)


def _copy(data: bytes) -> Dataset:
    return dcmread(io.BytesIO(data))


def _rle(dataset: Dataset) -> bytes:
    copied = _copy(_write(dataset, uid.ExplicitVRLittleEndian))
    copied.compress(uid.RLELossless, generate_instance_uid=False)
    file = io.BytesIO()
    copied.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _jpeg(dataset: Dataset, photometric: str) -> bytes:
    copied = _copy(_write(dataset, uid.ExplicitVRLittleEndian))
    samples = np.frombuffer(copied.PixelData, np.uint8).reshape(HEIGHT, WIDTH, -1)
    file = io.BytesIO()
    image = Image.fromarray(samples.squeeze())
    image.save(file, "JPEG", quality=95, subsampling="4:2:2" if image.mode == "RGB" else -1)
    copied.PhotometricInterpretation = photometric
    copied.PixelData = encapsulate([file.getvalue()])
    copied["PixelData"].VR = "OB"
    copied["PixelData"].is_undefined_length = True
    copied.LossyImageCompression = "01"
    return _write(copied, uid.JPEGBaseline8Bit)


def _jpeg_frame(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def _in_fragments(dataset: Dataset, data: bytes, **elements) -> bytes:
    """The same with JPEGs for its frames."""
    copied = _copy(_write(dataset, uid.ExplicitVRLittleEndian))
    for keyword, value in elements.items():
        setattr(copied, keyword, value)
    copied.PixelData = data
    copied["PixelData"].VR = "OB"
    copied["PixelData"].is_undefined_length = True
    copied.LossyImageCompression = "01"
    return _write(copied, uid.JPEGBaseline8Bit)


def _jpeg_12(dataset: Dataset) -> bytes:
    copied = _copy(_write(dataset, uid.ExplicitVRLittleEndian))
    samples = np.frombuffer(copied.PixelData, "<u2").reshape(HEIGHT, WIDTH)
    copied.PixelData = encapsulate([imagecodecs.jpeg_encode(samples, level=95, bitspersample=12)])
    copied["PixelData"].VR = "OB"
    copied["PixelData"].is_undefined_length = True
    copied.LossyImageCompression = "01"
    return _write(copied, uid.JPEGExtended12Bit)


def _recoded(data: bytes, syntax: str) -> bytes:
    """Without loss, by GDCM."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.dcm", Path(folder) / "after.dcm"
        before.write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(before))
        if not reader.Read():
            raise RuntimeError("gdcm can't read its input")
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError(f"gdcm can't write {syntax}")
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(after))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise RuntimeError("gdcm can't write its output")
        return after.read_bytes()
