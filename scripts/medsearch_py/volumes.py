"""MR volumes that come in Python packages, cut into pictures along the three planes of the body."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medsearch_py import picture_packages

# Axis of a volume in RAS order that a slice of the plane stands on.
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
# Thirds of the height of a head, from below: what an axial slice shows.
REGIONS = ("base", "middle", "vertex")
# A slice with less than this share of its volume's foreground is air or the edge of the head.
FOREGROUND_MIN = 0.35


@dataclass(frozen=True)
class Source:
    """One volume: its name, its file within the packages, what it shows."""

    name: str
    file: str
    what: str


# Four heads. The grey and white matter maps beside the first are of the same head and left out.
SOURCES = (
    Source(
        "mni152", "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz", "brain, T1, mean of 152"
    ),
    Source("pydeface-mean", "pydeface/data/mean_reg2mean.nii.gz", "whole head, T1, mean of several"),
    Source("nibabel-example4d", "nibabel/tests/data/example4d.nii.gz", "brain, one person, 24 slices"),
    Source("dipy-aniso-vox", "dipy/data/files/aniso_vox.nii.gz", "brain, one person, diffusion"),
)


@dataclass(frozen=True)
class Single:
    """One DICOM image: its name, its file within the packages, the region of the body."""

    name: str
    file: str
    region: str


# Of pydicom-data, what is MR of a known region other than the head and larger than a stamp.
SINGLES = (
    Single("wg04-mr2", "data_store/data/MR2_UNCR.dcm", "shoulder"),
    Single("siemens-overlays", "data_store/data/MR-SIEMENS-DICOM-WithOverlays.dcm", "abdomen"),
)


def load(source: Source, packages: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """(values [right, anterior, superior], voxel sides in mm); of a series the first volume."""
    picture_packages.folder()
    import nibabel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = nibabel.as_closest_canonical(nibabel.load(packages / source.file))
    values = np.nan_to_num(np.asanyarray(image.dataobj).astype(np.float32))
    return (values[..., 0] if values.ndim == 4 else values), tuple(map(float, image.header.get_zooms()[:3]))


def slices(values: np.ndarray, sides: tuple[float, ...], plane: str, count: int) -> list[tuple[int, Image.Image]]:
    """Up to `count` slices of a plane, evenly spread over the head, in true proportions: (place in mm, 8-bit grey)."""
    axis = PLANES[plane]
    low, high = np.percentile(values, (1, 99.5))
    inside = (values > low + 0.15 * (high - low)).mean(axis=tuple(other for other in range(3) if other != axis))
    at = np.flatnonzero(inside > FOREGROUND_MIN * inside.max())
    chosen = np.unique(at[np.linspace(0, len(at) - 1, min(count, len(at))).round().astype(int)])
    across, up = (side for other, side in enumerate(sides) if other != axis)
    pictures, seen = [], set()
    for place in chosen:
        picture = np.rot90(np.take(values, place, axis))
        grey = np.clip((picture - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
        height, width = grey.shape
        # The left half of a symmetric template is its right half.
        if grey.tobytes() not in seen:
            seen.add(grey.tobytes())
            size = (round(width * across), round(height * up))
            pictures.append((round(place * sides[axis]), Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)))
    return pictures
