"""JPEG: grey, colour, subsampled, progressive, four inks, all eight orientations."""

import io

import numpy as np
from PIL import Image

from .picture import colour, grey

ORIENTATION_TAG = 0x0112


def files() -> dict[str, bytes]:
    """Name -> bytes."""
    light = Image.fromarray(grey(256).astype(np.uint8))
    tinted = Image.fromarray(colour(256).astype(np.uint8))
    made = {
        "grey.jpg": _save(light),
        "grey-progressive.jpg": _save(light, progressive=True),
        "rgb-444.jpg": _save(tinted, subsampling=0),
        "rgb-422.jpg": _save(tinted, subsampling=1),
        "rgb-420.jpg": _save(tinted, subsampling=2),
        "rgb-progressive.jpg": _save(tinted, progressive=True),
        "rgb-restart.jpg": _save(tinted, restart_marker_rows=1),
        "cmyk.jpg": _save(_inks(tinted), subsampling=0),
        "ycck.jpg": _ycck(_inks(tinted)),
        "wide-1-high.jpg": _save(Image.fromarray(grey(256, 1, 200).astype(np.uint8))),
    }
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = turn
        made[f"orientation-{turn}.jpg"] = _save(tinted, subsampling=0, exif=exif)
    made["truncated.jpg"] = made["rgb-444.jpg"][: len(made["rgb-444.jpg"]) // 2]
    return made


def _save(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def _inks(image: Image.Image) -> Image.Image:
    """CMYK with some black ink of its own."""
    cyan, magenta, yellow, _ = image.convert("CMYK").split()
    return Image.merge("CMYK", (cyan, magenta, yellow, image.convert("L").point(lambda value: value // 3)))


def _ycck(inks: Image.Image) -> bytes:
    """Pillow writes CMYK only: the channels are turned to YCC before, the Adobe marker says so after."""
    stored = 255 - np.asarray(inks)
    light = Image.fromarray(255 - stored[..., :3]).convert("YCbCr")
    channels = np.dstack([np.asarray(light), stored[..., 3]])
    data = _save(Image.fromarray(255 - channels, "CMYK"), subsampling=0)
    transform = data.index(b"Adobe") + 11
    return data[:transform] + b"\x02" + data[transform + 1 :]
