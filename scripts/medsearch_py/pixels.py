"""The pixel pipeline `medsearch-pixels/1`: file bytes to what the model is given.

The server does the same steps in Rust; `make_golden.py` writes the files that compare the two.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import dicom, jpeg, png
from . import windows as voi
from .problems import CONSTANT, INVALID_REQUEST, UNSUPPORTED, ImageProblem
from .raster import Raster, check_file_size
from .windows import WindowTable

PIPELINE = "medsearch-pixels/1"
FITS = ("squeeze", "pad", "crop")
# Which frames of a file become images; the middle of an even number is the earlier of the two.
FRAMES = ("first", "middle", "all")
IDENTITY = {"kind": "identity"}
BY_PERCENTILE = WindowTable()

# Limits are checked from each header before decoding; Pillow's own guess would only warn.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Prepared:
    """One file, ready for the model: `input` is uint8 [H, W, 3]."""

    raster: Raster
    window: dict
    input: np.ndarray


def prepare(
    data: bytes, width: int, height: int, fit: str = "squeeze", frame: int = 1, windows: WindowTable = BY_PERCENTILE
) -> Prepared:
    """All steps: sniff, decode, 8 bit, refuse a constant image, fit, resize to width x height."""
    raster = decode(data, frame)
    grey_or_rgb, window = to_8_bit(raster, windows)
    refuse_constant(grey_or_rgb)
    return Prepared(raster, window, as_rgb(fit_and_resize(grey_or_rgb, width, height, fit)))


def is_dicom(data: bytes) -> bool:
    """Whether a file says that it is DICOM; nothing else has more than one frame."""
    return data[dicom.MAGIC_OFFSET : dicom.MAGIC_OFFSET + 4] == dicom.MAGIC


def frames(data: bytes) -> int:
    """How many frames a file has: 1 of a format that knows none."""
    return dicom.frames(data) if is_dicom(data) else 1


def decode(data: bytes, frame: int = 1) -> Raster:
    """Steps 1 and 2: the file's own first bytes decide the decoder, never its name. Frames are counted from 1."""
    check_file_size(len(data))
    if is_dicom(data):
        return dicom.decode(data, frame)
    if frame != 1:
        raise ImageProblem(INVALID_REQUEST, f"there is no frame `{frame}`: only DICOM has more than one")
    if data.startswith(png.MAGIC):
        return png.decode(data)
    if data.startswith(jpeg.MAGIC):
        return jpeg.decode(data)
    raise ImageProblem(UNSUPPORTED, "neither PNG, JPEG nor DICOM")


def wanted_frames(which: str, count: int) -> range:
    """The numbers of the wanted frames of a file that has so many."""
    middle = (count + 1) // 2
    return {"first": range(1, 2), "middle": range(middle, middle + 1), "all": range(1, count + 1)}[which]


def to_8_bit(raster: Raster, windows: WindowTable = BY_PERCENTILE) -> tuple[np.ndarray, dict]:
    """Step 3: uint8 samples of the same shape, and the window that was used: of grey DICOM that which the table has."""
    window = IDENTITY
    values = raster.samples
    is_ruled = raster.format == "dicom" and raster.channels == 1
    ruled = windows.window(raster.facts, raster.rescale, raster.voi) if is_ruled else None
    if ruled is not None:
        values, window = voi.levels(values, ruled), ruled
    elif raster.windowed:
        values, window = percentile_window(values, raster.padding)
    elif values.dtype != np.uint8:
        # Grey of 8 stored bits in 16 allocated ones may exceed them where its coding is lossy.
        scaled = (values.astype(np.uint32) * 255 + 32767) // 65535 if values.ndim == 3 else np.minimum(values, 255)
        values = scaled.astype(np.uint8)
    return (255 - values if raster.inverted else values), window


def percentile_window(values: np.ndarray, padding: tuple[int, int] | None) -> tuple[np.ndarray, dict]:
    """0.5 % of the counted values lie at or below black, 0.5 % at or above white.

    values: integers [H, W]; padding: from which to which value none is counted (but mapped like any other).
    """
    lowest = int(values.min())
    shifted = values.astype(np.int32) - lowest
    counts = np.bincount(shifted.ravel())
    if padding is not None:
        first, last = (min(max(value - lowest, 0), len(counts)) for value in (padding[0], padding[1] + 1))
        # A picture of nothing but padding is counted whole.
        if counts[first:last].sum() < values.size:
            counts[first:last] = 0
    total = int(counts.sum())
    cumulative = np.cumsum(counts) * 1000
    low = int(np.searchsorted(cumulative, 5 * total, side="right"))
    high = int(np.searchsorted(cumulative, 995 * total, side="left"))
    if high <= low:
        counted = np.flatnonzero(counts)
        low, high = int(counted[0]), int(counted[-1])
    window = {"kind": "percentile", "low": low + lowest, "high": high + lowest}
    width = max(high - low, 1)
    return np.clip(((shifted - low) * 255 + width // 2) // width, 0, 255).astype(np.uint8), window


def refuse_constant(values: np.ndarray) -> None:
    """Step 4: an image whose pixels are all equal shows nothing to compare."""
    if (values == values[0, 0]).all():
        raise ImageProblem(CONSTANT, "all pixels are equal")


def fit_and_resize(values: np.ndarray, width: int, height: int, fit: str = "squeeze") -> np.ndarray:
    """Steps 5 and 6: uint8 [h, w] or [h, w, 3] -> the same with height x width, antialiased."""
    if fit not in FITS:
        raise ValueError(f"unknown fit `{fit}`, one of {', '.join(FITS)}")
    if fit == "pad":
        values = _pad_to_square(values)
    elif fit == "crop":
        values = _crop_to_square(values)
    # Columns first, rows second, in two calls: from version 13 on Pillow turns the order around for tall pictures.
    narrow = Image.fromarray(values).resize((width, values.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(narrow.resize((width, height), Image.Resampling.BILINEAR))


def as_rgb(values: np.ndarray) -> np.ndarray:
    """Step 7: uint8 [H, W, 3]; grey is copied to three channels."""
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else np.ascontiguousarray(values)


def as_grey(values: np.ndarray) -> np.ndarray:
    """uint8 [H, W]; RGB by the integer weights of ITU-R 601-2, as Pillow's mode `L`."""
    if values.ndim == 2:
        return values
    red, green, blue = (values[..., channel].astype(np.uint32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(np.uint8)


def _pad_to_square(values: np.ndarray) -> np.ndarray:
    height, width = values.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, *values.shape[2:]), values.dtype)
    square[top : top + height, left : left + width] = values
    return square


def _crop_to_square(values: np.ndarray) -> np.ndarray:
    height, width = values.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(values[top : top + side, left : left + side])
