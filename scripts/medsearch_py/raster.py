"""A decoded image before windowing, its limits and its identity."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from .problems import BROKEN, TOO_LARGE, TOO_MANY_PIXELS, ImageProblem
from .windows import Voi

FILE_BYTES_MAX = 64 << 20
PIXELS_MAX = 64 << 20
FRAMES_MAX = 10_000
SIDE_MAX = 32_767


@dataclass(frozen=True)
class Raster:
    """Native samples: [H, W] grey or [H, W, 3] RGB; uint8, uint16 or int16.

    windowed: grey values need the percentile window (more than 8 bits, or a rescale).
    inverted: the 8-bit values are turned over once (MONOCHROME1, negative slope).
    padding: stored values that are left out of the window's count, the first and the last, or None.
    rescale: slope and intercept that make values of the modality (DICOM), None if each frame has its own.
    voi: the window that the file proposes (DICOM), or None.
    facts: what the file says about itself (DICOM only), under the record's field names.
    """

    samples: np.ndarray
    format: str
    windowed: bool = False
    inverted: bool = False
    padding: tuple[int, int] | None = None
    rescale: tuple[float, float] | None = (1.0, 0.0)
    voi: Voi | None = None
    facts: dict = field(default_factory=dict)

    @property
    def height(self) -> int:
        return self.samples.shape[0]

    @property
    def width(self) -> int:
        return self.samples.shape[1]

    @property
    def channels(self) -> int:
        return 1 if self.samples.ndim == 2 else self.samples.shape[2]

    @property
    def bits(self) -> int:
        """Bits of one stored sample: 8 or 16."""
        return self.samples.dtype.itemsize * 8


def file_digest(data: bytes) -> str:
    """sha256 of the file, in hex."""
    return hashlib.sha256(data).hexdigest()


def frame_digest(sha256: str, frame: int) -> str:
    """What stands for a frame of a file, in hex; its first 32 digits are the image's id.

    For the first frame it is the file's own sha256; `FrameNumber::digest` in `src/domain/frame.rs` is the same.
    """
    if frame == 1:
        return sha256
    return hashlib.sha256(bytes.fromhex(sha256) + frame.to_bytes(4, "little")).hexdigest()


def check_file_size(size: int) -> None:
    """Refuse a file above the limit, before it is read or decoded."""
    if size > FILE_BYTES_MAX:
        raise ImageProblem(TOO_LARGE, f"file of {size} bytes is above {FILE_BYTES_MAX}")


def check_dimensions(width: int, height: int) -> None:
    """Refuse sizes outside the limits, from the header, before anything is decoded."""
    if width < 1 or height < 1:
        raise ImageProblem(BROKEN, f"image of {width}x{height} has no pixels")
    if max(width, height) > SIDE_MAX or width * height > PIXELS_MAX:
        raise ImageProblem(TOO_MANY_PIXELS, f"image of {width}x{height} is above the limit")
