"""PNG to a raster: every colour type, depth and interlace; alpha over black."""

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .problems import BROKEN, ImageProblem
from .raster import Raster, check_dimensions

MAGIC = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


@dataclass(frozen=True)
class Header:
    """IHDR, and the raw bytes of PLTE and tRNS (None when absent)."""

    width: int
    height: int
    depth: int
    colour: int
    palette: bytes | None
    transparency: bytes | None


def decode(data: bytes) -> Raster:
    """PNG bytes -> Raster of uint8 or uint16. sRGB, gAMA and ICC are ignored."""
    header = read_header(data)
    check_dimensions(header.width, header.height)
    try:
        samples = _samples(data, header)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ImageProblem(BROKEN, f"broken PNG: {error}") from error
    if header.colour == PALETTE:
        colours, alpha = _look_up(samples, header)
    elif header.colour in (GREY_ALPHA, RGB_ALPHA):
        colours, alpha = samples[..., :-1], samples[..., -1]
        colours = colours[..., 0] if header.colour == GREY_ALPHA else colours
    else:
        colours, alpha = samples, _keyed_alpha(samples, header)
    if header.colour == GREY and header.depth < 8:
        colours = (colours * (255 // ((1 << header.depth) - 1))).astype(np.uint8)
    if alpha is not None:
        colours = _over_black(_to_8_bit(colours), _to_8_bit(alpha))
    return Raster(np.ascontiguousarray(colours), "png", windowed=colours.dtype == np.uint16 and colours.ndim == 2)


def read_header(data: bytes) -> Header:
    """The chunks before the pixels."""
    try:
        length, kind = struct.unpack_from(">I4s", data, len(MAGIC))
        if (length, kind) != (13, b"IHDR"):
            raise ImageProblem(BROKEN, "broken PNG: no IHDR")
        width, height, depth, colour = struct.unpack_from(">IIBB", data, len(MAGIC) + 8)
        chunks: dict[bytes, bytes] = {}
        at = len(MAGIC)
        while kind != b"IDAT":
            length, kind = struct.unpack_from(">I4s", data, at)
            chunks[kind] = data[at + 8 : at + 8 + length] if kind in (b"PLTE", b"tRNS") else b""
            at += length + 12
    except struct.error as error:
        raise ImageProblem(BROKEN, "broken PNG: it ends before its pixels") from error
    return Header(width, height, depth, colour, chunks.get(b"PLTE"), chunks.get(b"tRNS"))


def _samples(data: bytes, header: Header) -> np.ndarray:
    """Raw sample values as stored, before palette, key colour and scaling."""
    if header.depth < 8 and header.colour == GREY:
        # Pillow scales 2 and 4 bits to 8; the stored values come back exactly.
        scaled = _load(data).astype(np.uint8) * (255 if header.depth == 1 else 1)
        return scaled // (255 // ((1 << header.depth) - 1))
    if header.depth == 16 and header.colour == GREY_ALPHA:
        # Pillow would drop the low bytes; four bytes a pixel are read as if RGBA of 8 bits.
        return _load(data, "RGBA", "RGBA").reshape(header.height, header.width, 4).view(">u2").astype(np.uint16)
    if header.depth == 16 and header.colour in (RGB, RGB_ALPHA):
        mode = "RGB" if header.colour == RGB else "RGBA"
        high = _load(data, mode, f"{mode};16B").astype(np.uint16)
        # Read with the other byte order, "the high byte" is the low one.
        return high << 8 | _load(data, mode, f"{mode};16L")
    return _load(data)


def _load(data: bytes, mode: str | None = None, raw_mode: str | None = None) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if mode is not None and raw_mode is not None:
            image._mode = mode
            image.tile = [image.tile[0]._replace(args=raw_mode)]
        return np.asarray(image)


def _look_up(indices: np.ndarray, header: Header) -> tuple[np.ndarray, np.ndarray | None]:
    """Palette entries; an index beyond the palette is opaque black."""
    entries = np.zeros((256, 3), np.uint8)
    stored = np.frombuffer((header.palette or b"")[:768], np.uint8)
    stored = stored[: len(stored) // 3 * 3].reshape(-1, 3)
    entries[: len(stored)] = stored
    if header.transparency is None:
        return entries[indices], None
    alphas = np.full(256, 255, np.uint8)
    stored = np.frombuffer(header.transparency[:256], np.uint8)
    alphas[: len(stored)] = stored
    return entries[indices], alphas[indices]


def _keyed_alpha(samples: np.ndarray, header: Header) -> np.ndarray | None:
    """tRNS of grey and RGB: the one value that is fully transparent."""
    if header.transparency is None:
        return None
    values = 1 if header.colour == GREY else 3
    if len(header.transparency) < 2 * values:
        return None
    key = np.frombuffer(header.transparency[: 2 * values], ">u2")
    equal = samples == key[0] if values == 1 else (samples == key).all(axis=-1)
    return np.where(equal, 0, 255).astype(np.uint8)


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _over_black(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha if colours.ndim == 2 else alpha[..., None]
    return ((colours.astype(np.uint32) * alpha + 127) // 255).astype(np.uint8)
