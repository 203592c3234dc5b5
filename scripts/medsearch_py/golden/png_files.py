"""PNG of every colour type and depth, keyed, with alpha, interlaced, thin."""

import struct

import numpy as np

from ..tiny_png import encode
from .picture import alpha, colour, grey

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def files() -> dict[str, bytes]:
    """Name -> bytes."""
    made = {}
    for depth in (1, 2, 4, 8, 16):
        made[f"grey-{depth}.png"] = encode(grey(1 << depth), depth, GREY)
        made[f"grey-{depth}-adam7.png"] = encode(grey(1 << depth), depth, GREY, interlaced=True)
    for depth in (8, 16):
        levels = 1 << depth
        made[f"rgb-{depth}.png"] = encode(colour(levels), depth, RGB)
        made[f"rgb-{depth}-adam7.png"] = encode(colour(levels), depth, RGB, interlaced=True)
        made[f"grey-alpha-{depth}.png"] = encode(np.dstack([grey(levels), alpha(levels)]), depth, GREY_ALPHA)
        made[f"rgb-alpha-{depth}.png"] = encode(np.dstack([colour(levels), alpha(levels)]), depth, RGB_ALPHA)
        key = int(grey(levels)[40, 60])
        made[f"grey-{depth}-key.png"] = encode(grey(levels), depth, GREY, transparency=struct.pack(">H", key))
        keys = struct.pack(">HHH", *(int(value) for value in colour(levels)[40, 60]))
        made[f"rgb-{depth}-key.png"] = encode(colour(levels), depth, RGB, transparency=keys)
    for depth in (1, 2, 4, 8):
        made[f"palette-{depth}.png"] = encode(grey(1 << depth), depth, PALETTE, palette=_palette(1 << depth))
    made["palette-8-adam7.png"] = encode(grey(256), 8, PALETTE, palette=_palette(256), interlaced=True)
    made["palette-8-alpha.png"] = encode(grey(256), 8, PALETTE, _palette(256), bytes(range(255, 155, -1)))
    made["grey-4-key.png"] = encode(grey(16), 4, GREY, transparency=struct.pack(">H", 6))
    made["wide-1-high.png"] = encode(grey(256, 1, 200), 8, GREY)
    made["tall-1-wide.png"] = encode(grey(256, 200, 1), 8, GREY)
    made["thin-16-adam7.png"] = encode(grey(65536, 3, 301), 16, GREY, interlaced=True)
    made["narrow-range-16.png"] = encode(grey(40) + 1000, 16, GREY)
    made["two-values-16.png"] = encode((grey(65536) > 65000) * 5 + 7, 16, GREY)
    made["constant.png"] = encode(np.full((20, 30), 77), 8, GREY)
    made["constant-16.png"] = encode(np.full((20, 30), 7777), 16, GREY)
    made["one-pixel.png"] = encode(np.full((1, 1), 77), 8, GREY)
    made["named-wrongly.jpg"] = made["grey-8.png"]
    made["truncated.png"] = made["rgb-8.png"][: len(made["rgb-8.png"]) // 2]
    return made


def _palette(entries: int) -> bytes:
    at = np.arange(entries) * 255 // max(entries - 1, 1)
    return np.stack([at, 255 - at, (at * 7) % 256], axis=1).astype(np.uint8).tobytes()
