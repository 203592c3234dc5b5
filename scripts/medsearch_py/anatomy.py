"""A drawn chest: brightness contributions of body, lungs, heart, bones and vessels.

Everything is float [SIZE, SIZE] in 0..1; x runs to the image's right, which is the patient's left.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 512
GRID_Y, GRID_X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE


@dataclass(frozen=True)
class Chest:
    """One person's proportions, as fractions of the image."""

    centre: float
    lung_width: float
    apex: float
    base: float
    right_dome: float
    heart_width: float
    rib_pairs: int
    rib_slope: float
    clavicle_drop: float
    body_width: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Chest":
        return cls(
            centre=0.5 + rng.normal(0, 0.012),
            lung_width=rng.uniform(0.255, 0.315),
            apex=rng.uniform(0.09, 0.15),
            base=rng.uniform(0.78, 0.88),
            right_dome=rng.uniform(0.02, 0.05),
            heart_width=rng.uniform(0.1, 0.135),
            rib_pairs=int(rng.integers(9, 11)),
            rib_slope=rng.uniform(0.05, 0.11),
            clavicle_drop=rng.uniform(0.0, 0.05),
            body_width=rng.uniform(0.44, 0.5),
        )


def blur(values: np.ndarray, pixels: float) -> np.ndarray:
    """Gaussian blur of a float array (Pillow blurs 8-bit images only); wide ones on a smaller copy."""
    if pixels > 8:
        small = Image.fromarray(values.astype(np.float32)).resize((SIZE // 4, SIZE // 4), Image.Resampling.BOX)
        wide = Image.fromarray(blur(np.asarray(small), pixels / 4))
        return np.asarray(wide.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    radius = int(np.ceil(2.5 * pixels))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / pixels) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        widths = [(radius, radius) if axis == at else (0, 0) for at in (0, 1)]
        padded = np.pad(values.astype(np.float32), widths, mode="edge")
        values = sum(
            weight * padded.take(range(at, at + values.shape[axis]), axis) for at, weight in enumerate(kernel)
        ).astype(np.float32)
    return values


def _soft(canvas: Image.Image, pixels: float) -> np.ndarray:
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(pixels)), dtype=np.float32) / 255


def polygon(points: list[tuple[float, float]], soft: float) -> np.ndarray:
    """Filled polygon, its edge blurred by `soft` pixels."""
    canvas = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(canvas).polygon([(x * SIZE, y * SIZE) for x, y in points], fill=255)
    return _soft(canvas, soft)


def stroke(points: list[tuple[float, float]], width: float, soft: float) -> np.ndarray:
    """A line through `points`, `width` pixels wide."""
    return strokes([points], width, soft)


def strokes(lines: list[list[tuple[float, float]]], width: float, soft: float) -> np.ndarray:
    """Several lines at once; where they cross they don't add up."""
    canvas = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(canvas)
    for points in lines:
        pen.line([(x * SIZE, y * SIZE) for x, y in points], fill=255, width=max(1, round(width)), joint="curve")
    return _soft(canvas, soft)


def ellipse(x: float, y: float, rx: float, ry: float, tilt: float = 0.0, edge: float = 0.12) -> np.ndarray:
    """1 inside, 0 outside, the edge a smooth step of relative width `edge`."""
    # Most of the image lies beyond the edge.
    rows = _around(y, (1 + edge) * np.hypot(rx * np.sin(tilt), ry * np.cos(tilt)))
    columns = _around(x, (1 + edge) * np.hypot(rx * np.cos(tilt), ry * np.sin(tilt)))
    dx, dy = GRID_X[rows, columns] - x, GRID_Y[rows, columns] - y
    along = (dx * np.cos(tilt) + dy * np.sin(tilt)) / rx
    across = (-dx * np.sin(tilt) + dy * np.cos(tilt)) / ry
    part = smooth_step(1 + edge - np.hypot(along, across), 0, 2 * edge)
    whole = np.zeros((SIZE, SIZE), part.dtype)
    whole[rows, columns] = part
    return whole


def _around(middle: float, reach: float) -> slice:
    """The pixels of an axis within `reach` of `middle`, and one more at either end."""
    first, last = np.floor((middle - reach) * SIZE) - 1, np.ceil((middle + reach) * SIZE) + 1
    return slice(int(np.clip(first, 0, SIZE)), int(np.clip(last + 1, 0, SIZE)))


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def clouds(rng: np.random.Generator, coarse: int, octaves: int = 4) -> np.ndarray:
    """Fractal noise, mean about 0, deviation about 1; `coarse` cells across at the largest scale."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(octaves):
        cells = coarse * 2**octave
        small = Image.fromarray(rng.normal(0, 0.6**octave, (cells, cells)).astype(np.float32))
        total += np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return (total - total.mean()) / total.std()


def lung(chest: Chest, side: int) -> np.ndarray:
    """One lung; side -1: the patient's right, on the image's left."""
    base = chest.base - (chest.right_dome if side < 0 else 0)
    height = base - chest.apex
    outer, inner = [], []
    for t in np.linspace(0, 1, 24):
        y = chest.apex + t * height
        reach = chest.lung_width * (0.3 + 0.7 * np.sin(min(1.0, 0.1 + t) * np.pi / 2) ** 0.62)
        outer.append((chest.centre + side * (0.075 + reach), y))
        inner.append((chest.centre + side * (0.06 + 0.03 * np.sin(t * np.pi)), y))
    tip_x, tip_y = outer[-1]
    inner_x = inner[-1][0]
    angle_depth = 0.055
    dome = []
    for t in np.linspace(0, 1, 24):
        arch = np.sin(np.pi * min(1.0, t * 0.82 + 0.06)) ** 0.8
        dome.append((tip_x + t * (inner_x - tip_x), tip_y + angle_depth - 0.125 * arch + 0.02 * t))
    top_x = chest.centre + side * 0.115
    cap = [(top_x + 0.07 * np.cos(a), chest.apex + 0.01 - 0.05 * np.sin(a)) for a in np.linspace(0, np.pi, 12)]
    ordered = outer + dome + inner[::-1] + (cap[::-1] if side > 0 else cap)
    return polygon(ordered, 5)


def lungs(chest: Chest) -> np.ndarray:
    return np.maximum(lung(chest, -1), lung(chest, 1))


def body(chest: Chest) -> np.ndarray:
    """Torso, shoulders and neck against the air beside them."""
    half = chest.body_width
    left = [
        (0.0, 0.045), (0.035, 0.10), (0.13, 0.13), (0.30, 0.165), (half - 0.03, 0.24),
        (half, 0.36), (half - 0.035, 0.55), (half - 0.02, 0.8), (half, 1.02),
    ]  # fmt: skip
    neck = 0.115
    outline = [(chest.centre - neck, -0.02)]
    outline += [(chest.centre - max(neck, x), y) for x, y in left]
    outline += [(chest.centre + max(neck, x), y) for x, y in reversed(left)]
    outline += [(chest.centre + neck, -0.02)]
    return polygon(outline, 9)


def mediastinum(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """The middle's outline as one shadow: great vessels, aortic knob, heart down to its tip."""
    x, base, wide = chest.centre, chest.base, chest.heart_width
    right = [
        (-0.05, -0.02), (-0.055, 0.2), (-0.068, 0.3), (-0.07, 0.4), (-0.075, base - 0.27),
        (-0.55 * wide - 0.02, base - 0.2), (-0.62 * wide - 0.02, base - 0.13), (-0.5 * wide - 0.02, base - 0.06),
        (-0.06, base + 0.2), (-0.06, 1.02),
    ]  # fmt: skip
    left = [
        (0.06, 1.02), (0.06, base + 0.1), (1.3 * wide, base + 0.03), (1.52 * wide, base - 0.03),
        (1.5 * wide, base - 0.09), (1.28 * wide, base - 0.16), (0.98 * wide, base - 0.23), (0.09, base - 0.3),
        (0.078, 0.42), (0.082, 0.37), (0.074, 0.335), (0.093, 0.3), (0.096, 0.27), (0.08, 0.235), (0.058, 0.2),
        (0.05, -0.02),
    ]  # fmt: skip
    outline = [(x + dx + rng.normal(0, 0.002), y) for dx, y in right + left]
    return polygon(_rounded(outline), 4)


def _rounded(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners cut twice (Chaikin), so that an outline has no kinks."""
    for _ in range(3):
        following = points[1:] + points[:1]
        points = [
            (a + t * (c - a), b + t * (d - b))
            for (a, b), (c, d) in zip(points, following, strict=True)
            for t in (0.25, 0.75)
        ]
    return points


def trachea(chest: Chest) -> np.ndarray:
    """Air column with its two main branches."""
    x, fork = chest.centre - 0.004, 0.335
    trunk = stroke([(x, 0.0), (x, fork)], 20, 3)
    branches = stroke([(x, fork), (x - 0.06, fork + 0.07)], 13, 4) + stroke(
        [(x, fork), (x + 0.075, fork + 0.075)], 12, 4
    )
    return np.clip(trunk + 0.5 * branches, 0, 1)


def spine(chest: Chest) -> np.ndarray:
    """Vertebral bodies, one brighter block after the other."""
    total = np.zeros((SIZE, SIZE), np.float32)
    y = 0.02
    while y < 1:
        step = 0.05 + 0.022 * y
        total += ellipse(chest.centre, y, 0.038 + 0.008 * y, step * 0.42, edge=0.25)
        y += step
    return np.clip(total, 0, 1)


def ribs(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Posterior ribs as bands with bright edges, anterior ones fainter and steeper."""
    back, front = [], []
    for pair in range(chest.rib_pairs):
        t = pair / (chest.rib_pairs - 1)
        y = 0.10 + t * (chest.base - 0.1)
        reach = chest.lung_width * (0.62 + 0.48 * np.sin(min(1, 0.18 + t) * np.pi / 2)) + 0.075
        for side in (-1, 1):
            wobble = rng.normal(0, 0.003)
            back.append([_rib_point(chest, side, s, y + wobble, reach, chest.rib_slope) for s in np.linspace(0, 1, 24)])
            if 0 < pair < chest.rib_pairs - 2:
                top = y + chest.rib_slope + 0.065
                front.append(
                    [
                        (chest.centre + side * (reach - 0.012 - s * reach * 0.62), top + 0.1 * s**0.8)
                        for s in np.linspace(0, 1, 14)
                    ]
                )
    edges = strokes(back, 14, 1.2) - 0.75 * strokes(back, 9, 1.2)
    fade = smooth_step(np.abs(GRID_X - chest.centre), 0.09, 0.2)
    return np.clip(0.55 * edges + 0.4 * strokes(back, 11, 1.5) + 0.32 * strokes(front, 13, 2.5) * fade, 0, 1.3)


def _rib_point(chest: Chest, side: int, s: float, y: float, reach: float, slope: float) -> tuple[float, float]:
    """From the spine up a little, outward, then down along the chest wall."""
    out = 0.035 + (reach - 0.035) * np.sin(s * np.pi / 2)
    drop = -0.022 * np.sin(s * np.pi) + slope * s**1.6 + 0.04 * max(0.0, s - 0.75) ** 1.5 * 8
    return chest.centre + side * out, y + drop


def clavicles(chest: Chest) -> np.ndarray:
    """Two gently curved bars below the apices."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for side in (-1, 1):
        points = []
        for s in np.linspace(0, 1, 20):
            x = chest.centre + side * (0.045 + 0.33 * s)
            y = chest.apex + 0.105 + chest.clavicle_drop - 0.075 * s + 0.022 * np.sin(s * 2 * np.pi)
            points.append((x, y))
        total += stroke(points, 15, 1.5) - 0.35 * stroke(points, 8, 1.5)
    return np.clip(total, 0, 1)


def scapulae(chest: Chest) -> np.ndarray:
    """Flat shadows beside the upper lungs, and the heads of the arms."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for side in (-1, 1):
        edge = chest.centre + side * (chest.lung_width + 0.07)
        total += 0.6 * polygon(
            [(edge, 0.2), (edge + side * 0.1, 0.2), (edge + side * 0.05, 0.48), (edge + side * 0.015, 0.46)], 6
        )
        total += 0.8 * ellipse(edge + side * 0.1, 0.2, 0.045, 0.05, edge=0.15)
    return np.clip(total, 0, 1)


def hila(chest: Chest) -> list[tuple[float, float]]:
    """Where the vessels enter the lungs: right, left."""
    return [(chest.centre - 0.095, 0.44), (chest.centre + 0.1, 0.42)]


def vessels(chest: Chest, rng: np.random.Generator, stems: int = 8) -> np.ndarray:
    """Branching lines from the hila that thin out towards the wall."""
    canvas = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(canvas)
    for (x, y), side in zip(hila(chest), (-1, 1), strict=True):
        for angle in np.linspace(-1.25, 1.35, stems):
            start = (x + side * rng.uniform(-0.01, 0.02), y + rng.normal(0, 0.03))
            _branch(pen, rng, *start, side, angle + rng.normal(0, 0.15), 4.2, 0.055)
    hilum = sum(ellipse(x, y, 0.035, 0.07, edge=0.5) for x, y in hila(chest))
    return np.clip(_soft(canvas, 1.6) * 0.5 + 0.55 * hilum * (0.8 + 0.2 * clouds(rng, 20, 2)), 0, 1.2)


def _branch(pen, rng, x, y, side, angle, width, length) -> None:
    if width < 0.8:
        return
    for _ in range(2):
        angle += rng.normal(0, 0.12)
        nx, ny = x + side * np.cos(angle) * length, y + np.sin(angle) * length
        pen.line([x * SIZE, y * SIZE, nx * SIZE, ny * SIZE], fill=min(255, int(width * 64)), width=max(1, round(width)))
        x, y = nx, ny
    for turn in (-0.35, 0.3):
        _branch(pen, rng, x, y, side, angle + turn + rng.normal(0, 0.1), width * 0.66, length * 0.8)
