"""Pixels of every file that pydicom brings: what the program's decoding process makes of them, beside its own."""

import io
import json
import struct
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels import apply_color_lut, pixel_array

from conftest import PROGRAM
from medsearch_py import dicom
from medsearch_py.problems import ImageProblem
from medsearch_py.raster import Raster

warnings.filterwarnings("ignore", module="pydicom")

FILES = sorted((Path(pydicom.__file__).parent / "data/test_files").rglob("*.dcm"))
# How far a sample may be from pydicom's where the coding is lossy: two decoders round in their own ways.
LOSSY_LEVELS_MAX = 3
LOSSY = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEG2000}
# Which of pydicom's plugins is asked where several could answer.
PLUGINS = {uid.JPEGBaseline8Bit: "pillow", uid.JPEGExtended12Bit: "pylibjpeg"}
# Pydicom can't read the first, in which a marker is misplaced; it shows the same as the second.
SHOWS = {"JPEG-lossy.dcm": "JPGExtended.dcm"}
# All others have one.
FRAMES = {"examples_ybr_color.dcm": 30, "SC_rgb_rle_2frame.dcm": 2, "SC_rgb_rle_16bit_2frame.dcm": 2}
# What is refused, and how that begins. Everything else is read, and its pixels are compared.
NO_PREFIX, NO_PIXELS, DEPTH = "no `DICM` prefix", "no pixel data", "of `32` bits"
REFUSED = {
    "ExplVR_BigEndNoMeta.dcm": NO_PREFIX,
    "ExplVR_LitEndNoMeta.dcm": NO_PREFIX,
    "no_meta.dcm": NO_PREFIX,
    "rtstruct.dcm": NO_PREFIX,
    "meta_missing_tsyntax.dcm": "names no transfer syntax",
    "MR_truncated.dcm": "fewer are left",
    "rtplan_truncated.dcm": "fewer are left",
    "nested_priv_SQ.dcm": "`Columns` is missing",
    "badVR.dcm": "`NumberOfFrames` is not a number",
    "DICOMDIR-empty.dcm": NO_PIXELS,
    "UN_sequence.dcm": NO_PIXELS,
    "empty_charset_LEI.dcm": NO_PIXELS,
    "no_meta_group_length.dcm": NO_PIXELS,
    "priv_SQ.dcm": NO_PIXELS,
    "reportsi.dcm": NO_PIXELS,
    "reportsi_with_empty_number_tags.dcm": NO_PIXELS,
    "rtplan.dcm": NO_PIXELS,
    "test-SR.dcm": NO_PIXELS,
    "waveform_ecg.dcm": NO_PIXELS,
    "SC_rgb_rle_32bit.dcm": DEPTH,
    "SC_rgb_rle_32bit_2frame.dcm": DEPTH,
    "rtdose.dcm": DEPTH,
    "rtdose_1frame.dcm": DEPTH,
    "rtdose_expb.dcm": DEPTH,
    "rtdose_expb_1frame.dcm": DEPTH,
    "rtdose_rle.dcm": DEPTH,
    "rtdose_rle_1frame.dcm": DEPTH,
    # Nor does pydicom read it.
    "JPEG2000-embedded-sequence-delimiter.dcm": "main header of the JPEG 2000 inside is broken",
}


class Worker:
    """The process that decodes DICOM: lengths and bytes go in and come out (`src/imaging/dicom/protocol.rs`)."""

    def __init__(self):
        self.process = subprocess.Popen([PROGRAM, "decode-worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        limits = {"file_bytes_max": 64 << 20, "pixels_max": 64 << 20}
        self._send(json.dumps({"limits": limits, "memory_bytes_max": 2 << 30, "seconds_max": 60}).encode())
        assert self._receive() == b"medsearch decode worker 3"

    def decode(self, data: bytes, frame: int = 1) -> tuple[dict | None, np.ndarray | str]:
        """What the header says and the samples, (rows, columns[, 3]); or nothing and why it is refused."""
        self._send(json.dumps(frame).encode())
        self._send(data)
        reply = json.loads(self._receive())
        if refused := reply.get("Refused"):
            return None, f"{refused['kind']}: {refused['message']}"
        head = reply["Decoded"]
        kind = np.dtype(f"<{'i' if head['signed'] else 'u'}{head['bits'] // 8}")
        samples = np.frombuffer(self._receive(), kind).reshape(head["height"], head["width"], head["channels"])
        return head, samples[..., 0] if head["channels"] == 1 else samples

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def _send(self, data: bytes):
        self.process.stdin.write(struct.pack("<I", len(data)) + data)
        self.process.stdin.flush()

    def _receive(self) -> bytes:
        (length,) = struct.unpack("<I", self.process.stdout.read(4))
        return self.process.stdout.read(length)


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def by_pydicom(data: bytes, frame: int = 1) -> np.ndarray:
    """A frame: colours where there is a palette, RGB where the file has colour differences, stored values otherwise."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    values = pixel_array(dataset, index=frame - 1, decoding_plugin=PLUGINS.get(dataset.file_meta.TransferSyntaxUID, ""))
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)[..., :3]
        return (colours >> 8).astype(np.uint8) if colours.dtype.itemsize > 1 else colours
    return values


def grey_scale(head: dict) -> tuple:
    """What grey values stand for, by the program: rescale, proposed window, padding."""
    rescale, voi = head["grey_scale"]["rescale"], head["grey_scale"]["voi"]
    padding = head["padding"]
    return (
        rescale and (rescale["slope"], rescale["intercept"]),
        voi and (voi["center"], voi["width"], voi["function"].replace("-", "_").upper()),
        padding and (padding["first"], padding["last"]),
    )


def grey_scale_of(raster: Raster) -> tuple:
    """The same by the Python way."""
    voi = raster.voi
    return raster.rescale, voi and (voi.center, voi.width, voi.function), raster.padding


def test_the_package_has_the_files_that_are_listed():
    assert len(FILES) == 79
    assert {path.name for path in FILES} >= set(REFUSED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pixels_are_those_of_pydicom(path, worker):
    """Lossless ones to the bit, lossy ones within three grey levels, by the program and by the Python way."""
    data = path.read_bytes()
    head, pixels = worker.decode(data)
    if path.name in REFUSED:
        assert head is None and REFUSED[path.name] in pixels, pixels
        with pytest.raises(ImageProblem):
            dicom.decode(data)
        return
    assert head is not None, pixels
    assert head["frames"] == dicom.frames(data) == FRAMES.get(path.name, 1)
    shows = path.with_name(SHOWS.get(path.name, path.name)).read_bytes()
    syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    apart_max = LOSSY_LEVELS_MAX if syntax in LOSSY else 0
    for frame in range(1, head["frames"] + 1):
        _, pixels = worker.decode(data, frame)
        expected = by_pydicom(shows, frame)
        assert pixels.shape == expected.shape, frame
        assert np.abs(pixels.astype(int) - expected).max() <= apart_max, frame
        mirrored = dicom.decode(data, frame).samples.astype(int)
        assert mirrored.shape == pixels.shape, frame
        assert np.abs(mirrored - pixels).max() <= apart_max, frame
    if head["channels"] == 1:
        assert grey_scale(head) == grey_scale_of(dicom.decode(data))
    head, refused = worker.decode(data, head["frames"] + 1)
    assert head is None and refused.startswith("invalid-request"), refused
