"""One synthetic chest radiograph: anatomy + opacity -> exposure, grain, burned-in words."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import anatomy
from .anatomy import SIZE, Chest, blur, clouds
from .opacities import opacity

WORDS = "SYNTHETIC"


def radiograph(name: str, person: np.random.Generator, visit: np.random.Generator, female: bool) -> Image.Image:
    """A grey 512x512 image. `person` decides the anatomy, `visit` everything of this one exposure."""
    chest = Chest.draw(person)
    lungs = anatomy.lungs(chest)
    # Vessels and rib details belong to the person too, and stay from visit to visit.
    middle = anatomy.mediastinum(chest, person)
    bright = _tissue(chest, lungs, middle, person, female)
    bright = bright + opacity(name, chest, visit) * lungs * (1 - 0.8 * middle)
    return _expose(bright, visit)


def _tissue(chest: Chest, lungs: np.ndarray, middle: np.ndarray, rng: np.random.Generator, female: bool) -> np.ndarray:
    body = anatomy.body(chest)
    thickness = 0.56 + 0.1 * anatomy.smooth_step(anatomy.GRID_Y, 0.2, 1.0) + 0.02 * clouds(rng, 6)
    bright = 0.03 + body * thickness
    air = 0.4 + 0.03 * clouds(rng, 5, 2) - 0.04 * anatomy.smooth_step(anatomy.GRID_Y, 0.35, 0.1)
    bright -= lungs * air
    bright += anatomy.vessels(chest, rng) * lungs * (1 - middle) * 0.17
    # Over the lungs the middle replaces air; elsewhere it only adds a little.
    depth = 0.9 + 0.1 * anatomy.smooth_step(np.abs(anatomy.GRID_X - chest.centre), 0.2, 0.05)
    bright += middle * (lungs * (air + 0.05) * depth + 0.1)
    bright += anatomy.spine(chest) * (0.02 + 0.03 * anatomy.smooth_step(anatomy.GRID_Y, 0.3, 0.6))
    bright -= anatomy.trachea(chest) * 0.14
    bright += anatomy.ribs(chest, rng) * body * (0.045 + 0.05 * lungs)
    bright += anatomy.clavicles(chest) * body * 0.11
    bright += anatomy.scapulae(chest) * body * 0.07
    bubble = anatomy.ellipse(chest.centre + 0.15, chest.base + 0.06, rng.uniform(0.03, 0.07), 0.035, edge=0.4)
    bright -= bubble * 0.1
    if female:
        for side in (-1, 1):
            bright += 0.07 * anatomy.ellipse(chest.centre + side * 0.23, chest.base - 0.13, 0.15, 0.15, edge=0.3)
    return bright


def _expose(bright: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Film curve, scatter, tilt, grain, markers."""
    bright = blur(bright, rng.uniform(0.6, 1.0))
    bright = 0.93 * bright + 0.07 * blur(bright, 40)
    span = np.clip((bright - 0.04) / 0.86, 0, 1)
    film = span ** rng.uniform(0.85, 1.15) * rng.uniform(0.9, 1.0)
    grain = blur(rng.normal(0, 1, (SIZE, SIZE)), 0.6) * 0.022 + rng.normal(0, 0.008, (SIZE, SIZE))
    film = film + grain * (0.35 + np.sqrt(np.clip(film, 0, 1)))
    image = Image.fromarray((np.clip(film, 0, 1) * 255).astype(np.uint8))
    turned = _collimate(image, rng)
    pen = ImageDraw.Draw(turned)
    pen.text((14, SIZE - 30), WORDS, fill=225, font=ImageFont.load_default(20))
    pen.text((SIZE - 36, 14), "L", fill=235, font=ImageFont.load_default(26))
    return turned


def _collimate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned a little and cut to the lungs, as a technician would."""
    turned = image.rotate(rng.normal(0, 1.2), Image.Resampling.BICUBIC)
    side = rng.uniform(0.8, 0.9)
    left = (1 - side) / 2 + rng.normal(0, 0.012)
    top = 0.035 + rng.normal(0, 0.01)
    box = tuple(float(np.clip(value, 0, 1)) * SIZE for value in (left, top, left + side, top + side))
    return turned.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
