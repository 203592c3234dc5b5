"""Copies of a picture as they come to lie in merged data sets: re-encoded, resized, cropped, brightened, bordered."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

Change = Callable[[Image.Image], Image.Image]
BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


def jpeg(quality: int) -> Change:
    """Through JPEG."""

    def change(picture: Image.Image) -> Image.Image:
        kept = io.BytesIO()
        picture.save(kept, "JPEG", quality=quality)
        return Image.open(io.BytesIO(kept.getvalue())).convert("L")

    return change


def resize(factor: float, how: Image.Resampling = LANCZOS) -> Change:
    """To another size."""

    def change(picture: Image.Image) -> Image.Image:
        return picture.resize([max(1, round(side * factor)) for side in picture.size], how)

    return change


def crop(left: float, top: float, right: float, bottom: float) -> Change:
    """Without shares of its sides."""

    def change(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        box = (left * width, top * height, width - right * width, height - bottom * height)
        return picture.crop(tuple(round(edge) for edge in box))

    return change


def curve(of: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Grey values in 0..1 through a curve."""
    table = np.clip(np.rint(of(np.arange(256) / 255) * 255), 0, 255).astype(int).tolist()
    return lambda picture: picture.point(table)


def gamma(exponent: float) -> Change:
    """A gamma curve."""
    return curve(lambda grey: grey**exponent)


def contrast(slope: float, shift: float = 0.0) -> Change:
    """Contrast about the middle, and brightness."""
    return curve(lambda grey: (grey - 0.5) * slope + 0.5 + shift)


def border(share: float, grey: int) -> Change:
    """A frame on all sides."""

    def change(picture: Image.Image) -> Image.Image:
        across, down = (round(share * side) for side in picture.size)
        return ImageOps.expand(picture, (across, down, across, down), grey)

    return change


def several(*changes: Change) -> Change:
    """One after the other."""

    def change(picture: Image.Image) -> Image.Image:
        for one in changes:
            picture = one(picture)
        return picture

    return change


# Family and change. A lossless copy is not among them: its pixels are equal, which is no question of likeness.
CHANGES: list[tuple[str, Change]] = [
    *(("jpeg", jpeg(quality)) for quality in (40, 60, 80)),
    ("resize", resize(0.35, Image.Resampling.BILINEAR)),
    ("resize", resize(0.5, BICUBIC)),
    ("resize", resize(0.75)),
    ("resize", resize(1.5, BICUBIC)),
    *(("crop", crop(share, share, share, share)) for share in (0.02, 0.04, 0.06, 0.08)),
    ("crop, uneven", crop(0.08, 0, 0, 0.04)),
    ("crop, uneven", crop(0, 0.08, 0.05, 0)),
    *(("gamma", gamma(exponent)) for exponent in (0.7, 0.85, 1.2, 1.5)),
    *(("contrast", contrast(*how)) for how in ((0.7,), (1.3,), (1.0, 0.1), (1.0, -0.1))),
    *(("border", border(share, grey)) for share in (0.03, 0.08) for grey in (0, 255)),
    ("several", several(resize(0.5), jpeg(60), gamma(0.8))),
    ("several", several(crop(0.04, 0.04, 0.04, 0.04), resize(0.75), gamma(1.25), jpeg(70))),
    ("several", several(gamma(0.8), border(0.05, 0), jpeg(50))),
]
