"""JPEG to a raster: grey, RGB, CMYK and YCCK; EXIF orientation applied."""

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from .problems import BROKEN, ImageProblem
from .raster import Raster, check_dimensions

MAGIC = b"\xff\xd8\xff"
ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes) -> Raster:
    """JPEG bytes -> Raster of uint8, grey or RGB, the right way up."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            check_dimensions(*image.size)
            turn = TURNS.get(_orientation(image))
            image.load()
            upright = image if turn is None else image.transpose(turn)
            samples = np.asarray(upright)
            mode = image.mode
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise ImageProblem(BROKEN, f"broken JPEG: {error}") from error
    if mode == "CMYK":
        # Pillow turns Adobe's inverted inks over; turned back, 255 means no ink.
        light = 255 - samples.astype(np.uint32)
        samples = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
    return Raster(np.ascontiguousarray(samples), "jpeg")


def _orientation(image: Image.Image) -> int:
    """1..8 from the EXIF block alone; a broken block counts as upright."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif"))
        return int(exif.get(ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError, OSError, struct.error):
        return 1
