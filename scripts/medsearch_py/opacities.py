"""What each class adds to the lungs of a drawn chest; a caricature, not pathology."""

import numpy as np

from .anatomy import GRID_X, GRID_Y, SIZE, Chest, blur, clouds, ellipse, hila, smooth_step, strokes

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")


def opacity(name: str, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Added brightness [SIZE, SIZE] of a class, before the lungs' outline is applied."""
    makers = {"COVID": ground_glass, "Lung_Opacity": consolidation, "Viral Pneumonia": interstitial}
    return makers[name](chest, rng) if name in makers else np.zeros((SIZE, SIZE), np.float32)


def ground_glass(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Hazy patches in both lungs, at the wall and towards the bases."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for side in (-1, 1):
        for _ in range(int(rng.integers(2, 6))):
            y = rng.uniform(0.42, chest.base - 0.03)
            reach = chest.lung_width * rng.uniform(0.72, 1.0)
            x = chest.centre + side * (0.075 + reach)
            rx, ry = rng.uniform(0.04, 0.085), rng.uniform(0.05, 0.11)
            total = np.maximum(total, ellipse(x, y, rx, ry, rng.uniform(-0.6, 0.6), edge=0.6) * rng.uniform(0.6, 1))
    texture = 0.75 + 0.22 * clouds(rng, 14) + 0.12 * clouds(rng, 50, 2)
    return blur(total, 9) * np.clip(texture, 0.3, 1.3) * rng.uniform(0.19, 0.29)


def consolidation(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """One dense patch (seldom two) with an uneven edge and some air-filled branches in it."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(2 if rng.random() < 0.2 else 1):
        side = rng.choice([-1, 1])
        x = chest.centre + side * (0.09 + chest.lung_width * rng.uniform(0.3, 0.75))
        y = rng.uniform(0.28, chest.base - 0.08)
        shape = ellipse(x, y, rng.uniform(0.08, 0.14), rng.uniform(0.06, 0.12), rng.uniform(-0.8, 0.8), edge=0.7)
        uneven = smooth_step(shape + 0.13 * clouds(rng, 9), 0.15, 1.0)
        air = []
        for angle in rng.uniform(-0.9, 0.9, 3):
            air.append([(x - side * 0.05, y), (x + side * np.cos(angle) * 0.07, y + np.sin(angle) * 0.07)])
        total = np.maximum(total, uneven * (1 - 0.14 * strokes(air, 3, 2)))
    return blur(total, 5) * rng.uniform(0.24, 0.34) * (1 + 0.05 * clouds(rng, 24, 3))


def interstitial(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Streaks out of both hila and a fine net all over, densest in the middle."""
    lines = []
    near = np.zeros((SIZE, SIZE), np.float32)
    for (hx, hy), side in zip(hila(chest), (-1, 1), strict=True):
        near = np.maximum(near, np.exp(-(((GRID_X - hx) / 0.15) ** 2) - ((GRID_Y - hy - 0.05) / 0.22) ** 2))
        for _ in range(46):
            angle, bend = rng.uniform(-1.4, 1.5), rng.normal(0, 0.5)
            x, y = hx + side * rng.uniform(-0.02, 0.12), hy + rng.normal(0.02, 0.11)
            length = rng.uniform(0.03, 0.11)
            turned = [(s * length, angle + bend * s) for s in np.linspace(0, 1, 6)]
            lines.append([(x + side * np.cos(a) * r, y + np.sin(a) * r) for r, a in turned])
    streaks = strokes(lines[::2], 1, 1.0) + 0.8 * strokes(lines[1::2], 3, 1.6)
    net = np.exp(-((np.abs(clouds(rng, 40, 2)) / 0.26) ** 1.5))
    haze = near * (0.75 + 0.25 * clouds(rng, 12))
    return rng.uniform(0.85, 1.25) * (0.09 * streaks + 0.09 * blur(net, 0.9) * (0.45 + near) + 0.13 * haze)
