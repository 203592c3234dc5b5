"""A minimal PNG writer for the kinds that Pillow can't write: any depth, interlaced, keyed."""

import struct
import zlib

import numpy as np

MAGIC = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7 passes: first column, first row, step across, step down (PNG specification, 8.2).
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def encode(
    samples: np.ndarray,
    depth: int,
    colour: int,
    palette: bytes | None = None,
    transparency: bytes | None = None,
    interlaced: bool = False,
) -> bytes:
    """samples: integers [H, W] or [H, W, C] below 2**depth; colour: PNG's colour type."""
    height, width = samples.shape[:2]
    pixels = samples.reshape(height, width, CHANNELS[colour])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    parts = [pixels[y::down, x::across] for x, y, across, down in passes]
    rows = b"".join(_rows(part, depth) for part in parts if part.size)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"tRNS", transparency), (b"IDAT", zlib.compress(rows, 9))]
    return MAGIC + b"".join(_chunk(kind, data) for kind, data in chunks if data is not None) + _chunk(b"IEND", b"")


def _rows(pixels: np.ndarray, depth: int) -> bytes:
    """Scan lines; filters take turns (none, sub, up), so that a reader's filters are tried too."""
    step = max(1, pixels.shape[2] * depth // 8)
    previous = None
    lines = []
    for at, row in enumerate(pixels):
        packed = np.frombuffer(_packed(row.ravel(), depth), np.uint8)
        kind = at % 3
        if kind == 1:
            packed, raw = packed - np.concatenate([np.zeros(step, np.uint8), packed])[: len(packed)], packed
        elif kind == 2 and previous is not None:
            packed, raw = packed - previous, packed
        else:
            kind, raw = 0, packed
        previous = raw
        lines.append(bytes([kind]) + packed.tobytes())
    return b"".join(lines)


def _packed(values: np.ndarray, depth: int) -> bytes:
    if depth == 16:
        return values.astype(">u2").tobytes()
    if depth == 8:
        return values.astype(np.uint8).tobytes()
    bits = (values[:, None].astype(np.uint8) >> np.arange(depth - 1, -1, -1, dtype=np.uint8)) & 1
    return np.packbits(bits.ravel()).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
