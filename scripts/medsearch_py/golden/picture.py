"""The picture that all golden files show: no side alike, so that a wrong turn is seen."""

import numpy as np

HEIGHT, WIDTH = 96, 128


def grey(levels: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Integers [height, width] in 0..levels-1: gradients, two discs, a corner mark, some grain."""
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / max(height - 1, 1), x / max(width - 1, 1)
    values = 0.15 + 0.35 * x + 0.2 * y**2
    values += 0.3 * (np.hypot(x - 0.3, y - 0.6) < 0.2) - 0.12 * (np.hypot(x - 0.72, y - 0.35) < 0.17)
    values[(x < 0.12) & (y < 0.2)] = 0.97
    values += np.random.default_rng(1).normal(0, 0.015, values.shape)
    return (np.clip(values, 0, 1) * (levels - 1)).astype(np.int64)


def colour(levels: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Integers [height, width, 3]: the grey picture seen three ways."""
    values = grey(levels, height, width)
    return np.stack([values, values[:, ::-1], (levels - 1 - values) // 2], axis=-1)


def alpha(levels: int) -> np.ndarray:
    """Integers [HEIGHT, WIDTH]: opaque at the left, fading to the right."""
    ramp = np.linspace(levels - 1, 0, WIDTH).astype(np.int64)
    ramp[: WIDTH // 3] = levels - 1
    return np.broadcast_to(ramp, (HEIGHT, WIDTH)).copy()
