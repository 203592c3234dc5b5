"""The shape of the COVID-19 Radiography Database's download, for tests of size and layout."""

import functools
import hashlib
import io
from pathlib import Path

import numpy as np
from openpyxl import Workbook
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

ROOT = "COVID-19_Radiography_Dataset"
# Images a class of the real database, 21,165 in all.
REAL = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}
SIDE = 299
# In the real lists the case of file names differs from the files', and SIZE from their size.
LISTED_AS = {"COVID": "COVID", "Lung_Opacity": "Lung_Opacity", "Normal": "NORMAL", "Viral Pneumonia": "Viral Pneumonia"}
LISTED_SIZE = "256*256"
URLS = {
    "COVID": [
        "https://sirm.org/category/senza-categoria/covid-19/",
        "https://bimcv.cipf.es/bimcv-projects/bimcv-covid19/",
        "https://github.com/ml-workgroup/covid-19-image-repository/tree/master/png",
        "https://eurorad.org",
        "https://github.com/armiro/COVID-CXNet",
    ],
    "Lung_Opacity": ["https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"],
    "Normal": [
        "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data",
        "https://www.kaggle.com/paultimothymooney/chest-xray-pneumonia",
    ],
    "Viral Pneumonia": ["https://www.kaggle.com/paultimothymooney/chest-xray-pneumonia"],
}


def counts(images: int) -> dict[str, int]:
    """`images` in the real proportions, each class at least one; largest remainders first."""
    total = sum(REAL.values())
    exact = {name: images * real / total for name, real in REAL.items()}
    rounded = {name: max(1, int(value)) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: int(exact[name]) - exact[name]):
        if sum(rounded.values()) < images:
            rounded[name] += 1
    return rounded


def variant(path: Path, key: tuple[int, ...]) -> bytes:
    """A PNG like `path` but moved, scaled, mirrored or brighter, as `key` decides."""
    rng = np.random.default_rng(key)
    image = _base(path)
    margin = rng.uniform(0, 0.07, 4)
    width, height = image.size
    box = (margin[0] * width, margin[1] * height, (1 - margin[2]) * width, (1 - margin[3]) * height)
    image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.85, 1.15))
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.9, 1.1))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=3)
    return file.getvalue()


@functools.lru_cache(maxsize=64)
def _base(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("L").resize((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR, reducing_gap=2)


@functools.cache
def mask() -> bytes:
    """Two lungs in white; the same for all, for masks are not read."""
    image = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(image)
    pen.ellipse((40, 50, 135, 245), fill="white")
    pen.ellipse((165, 50, 260, 245), fill="white")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def metadata_list(name: str, images: int) -> bytes:
    """The xlsx of a class: FILE NAME, FORMAT, SIZE, URL."""
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    sheet.append(["FILE NAME", "FORMAT", "SIZE", "URL"])
    for at in range(1, images + 1):
        sheet.append([f"{LISTED_AS[name]}-{at}", "PNG", LISTED_SIZE, URLS[name][at % len(URLS[name])]])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def digest(data: bytes) -> bytes:
    """Short name of a file's bytes, to tell that all differ."""
    return hashlib.sha256(data).digest()[:16]
