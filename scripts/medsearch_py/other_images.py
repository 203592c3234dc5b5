"""Families of pictures that are no frontal chest X-ray: (origin, picture) without end, the same for one seed.

Pictures of one origin are of one scene, slice or film; origins are independent of each other.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont, ImageOps

from medsearch_py import volumes

Pictures = Iterator[tuple[str, Image.Image]]

SKIMAGE = "skimage/data"
PHOTOGRAPHS = (
    *(f"{SKIMAGE}/{name}.png" for name in ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass")),
    *(f"{SKIMAGE}/{name}" for name in ("gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png")),
    f"{SKIMAGE}/rocket.jpg",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
)
OTHER_MEDICAL = (f"{SKIMAGE}/retina.jpg", f"{SKIMAGE}/ihc.png", f"{SKIMAGE}/cell.png")
DICOM = "data_store/data"
# Ultrasound, scintigraphy, a leg.
OTHER_MODALITIES = ("US1_UNCI.dcm", "OBXXXX1A.dcm", "JPEG2000_UNC.dcm", "RG3_UNCI.dcm")
CT = ("693_UNCI.dcm", "eCT_Supplemental.dcm", "explicit_VR-UN.dcm")
MR = ("MR2_UNCI.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm")
SCANNED = (f"{SKIMAGE}/page.png", f"{SKIMAGE}/text.png")
SIDE = 512
# Crops keep at least this share of each side, so that there is something to see in them.
CROP_MIN = 0.35
SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sa", "ti", "vo", "da", "fe", "gi", "hu", "pa", "qua", "re", "sto", "tri")


def families(packages: Path, seed: int) -> dict[str, Pictures]:
    """Those that need nothing but the packages."""
    dicom = packages / DICOM
    medical = [(Path(file).stem, open_picture(packages / file)) for file in OTHER_MEDICAL]
    medical += [(Path(file).stem, open_dicom(dicom / file)) for file in OTHER_MODALITIES]
    return {
        "photographs": cropped([(Path(file).stem, open_picture(packages / file)) for file in PHOTOGRAPHS], seed),
        "text": text_pages([open_picture(packages / file) for file in SCANNED], seed),
        "noise": noise(seed),
        "ct": cropped([(Path(file).stem, open_dicom(dicom / file)) for file in CT], seed),
        "mr": mr_slices(packages),
        "other-medical": cropped(medical, seed),
    }


def of_chests(folder: Path, seed: int) -> dict[str, Pictures]:
    """Changed chest X-rays, each of another film, drawn by `seed`."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    files = [files[at] for at in np.random.default_rng([seed, 5]).permutation(len(files))]

    def changed(change) -> Pictures:
        return ((path.stem, change(open_picture(path).convert("L"))) for path in files)

    def half(picture: Image.Image) -> Image.Image:
        return picture.crop((0, 0, picture.width // 2, picture.height))

    return {
        "chest-inverted": changed(ImageOps.invert),
        "chest-rotated-90": changed(lambda picture: picture.transpose(Image.Transpose.ROTATE_90)),
        "chest-upside-down": changed(lambda picture: picture.transpose(Image.Transpose.ROTATE_180)),
        "chest-half-lateral-like": changed(half),
    }


def open_picture(path: Path) -> Image.Image:
    """Grey or colour, without alpha."""
    picture = Image.open(path)
    return picture.convert("L" if picture.mode in ("1", "L", "LA", "I;16") else "RGB")


def open_dicom(path: Path) -> Image.Image:
    """The first frame, grey, windowed by its percentiles; also of transfer syntaxes that the program does not read."""
    dataset = pydicom.dcmread(path)
    values = dataset.pixel_array
    if int(dataset.get("NumberOfFrames", 1)) > 1:
        values = values[0]
    return Image.fromarray(stretched(values.mean(-1) if values.ndim == 3 else values))


def cropped(originals: list[tuple[str, Image.Image]], seed: int) -> Pictures:
    """All originals whole, then regions of each in turn, far from those taken before."""
    yield from originals
    rng = np.random.default_rng([seed, 1])
    taken: dict[str, list[tuple[int, ...]]] = {name: [] for name, _ in originals}
    while True:
        for name, picture in originals:
            box = region(picture, taken[name], rng)
            taken[name].append(box)
            yield name, picture.crop(box)


def region(picture: Image.Image, taken: list[tuple[int, ...]], rng: np.random.Generator) -> tuple[int, ...]:
    """A box with something in it, away from the others where there is room."""
    best, best_score = (0, 0, picture.width, picture.height), -np.inf
    for _ in range(12):
        width, height = (int(side * rng.uniform(CROP_MIN, 0.7)) for side in picture.size)
        x, y = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
        box = (x, y, x + width, y + height)
        spread = np.asarray(picture.crop(box).convert("L").resize((32, 32))).std()
        middle = np.array((x + width / 2, y + height / 2)) / picture.size
        others = [np.array(((a + c) / 2, (b + d) / 2)) / picture.size for a, b, c, d in taken]
        apart = min((float(np.linalg.norm(middle - other)) for other in others), default=1.0)
        score = apart if spread > 8 else -1.0
        if score > best_score:
            best, best_score = box, score
    return best


def text_pages(scanned: list[Image.Image], seed: int) -> Pictures:
    """Two scanned pages, then printed ones: other words, sizes, columns and paper on each."""
    for number, picture in enumerate(scanned):
        yield f"scan-{number}", picture
    number = 0
    while True:
        rng = np.random.default_rng([seed, 2, number])
        paper, ink = (int(rng.integers(200, 256)), int(rng.integers(0, 80)))
        if rng.random() < 0.25:
            paper, ink = ink, paper
        page = Image.new("L", (int(rng.integers(380, 640)), int(rng.integers(480, 800))), paper)
        draw, font = ImageDraw.Draw(page), ImageFont.load_default(int(rng.integers(10, 30)))
        columns = int(rng.integers(1, 4))
        line = round(font.size * 1.35)
        for column in range(columns):
            left = 24 + column * (page.width - 24) // columns
            right = left + (page.width - 24) // columns - 24
            for y in range(24, page.height - line, line):
                words = ""
                while draw.textlength(words, font) < right - left:
                    words += "".join(rng.choice(SYLLABLES, rng.integers(1, 5))) + " "
                if rng.random() < 0.9:
                    draw.text((left, y), words.rsplit(" ", 2)[0], ink, font)
        yield f"page-{number}", page
        number += 1


def noise(seed: int) -> Pictures:
    """White, 1/f, salt and pepper, smooth: grey and colour in turn, each drawn anew."""
    kinds = (white, pink, salt_and_pepper, smooth)
    number = 0
    while True:
        rng = np.random.default_rng([seed, 3, number])
        kind, colour = kinds[number % 4], number // 4 % 2 == 1
        values = np.stack([kind(rng) for _ in range(3 if colour else 1)], -1)
        name = f"{kind.__name__.replace('_', '-')}-{'colour' if colour else 'grey'}-{number}"
        yield name, Image.fromarray(np.squeeze(values))
        number += 1


def white(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def pink(rng: np.random.Generator) -> np.ndarray:
    """Amplitude 1/f, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = np.inf
    return stretched(np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) / frequency, (SIDE, SIDE)))


def salt_and_pepper(rng: np.random.Generator) -> np.ndarray:
    share, values = rng.uniform(0.05, 0.4), rng.random((SIDE, SIDE))
    grey = np.full((SIDE, SIDE), rng.integers(64, 192), np.uint8)
    grey[values < share / 2] = 0
    grey[values > 1 - share / 2] = 255
    return grey


def smooth(rng: np.random.Generator) -> np.ndarray:
    """Sums of random grids at doubling resolution (value noise, in the manner of Perlin)."""
    total, first = np.zeros((SIDE, SIDE)), int(rng.integers(1, 4))
    for octave in range(first, first + 4):
        grid = Image.fromarray(rng.random((2**octave + 1,) * 2).astype(np.float32))
        total += np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 2**octave
    return stretched(total)


def stretched(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5))
    return np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)


def mr_slices(packages: Path) -> Pictures:
    """Slices in turn of every volume and plane, after the two single slices of other body parts."""
    for file in MR:
        yield Path(file).stem, open_dicom(packages / DICOM / file)
    stacks = []
    for source in volumes.SOURCES:
        values, sides = volumes.load(source, packages)
        stacks += [(source.name, volumes.slices(values, sides, plane, 12)) for plane in volumes.PLANES]
    for rank in range(12):
        for name, stack in stacks:
            for _, picture in stack[rank : rank + 1]:
                yield name, picture
