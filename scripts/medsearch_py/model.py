"""What turns prepared images into vectors: an exported network, or the 32x32 grey floor."""

import os
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np

from . import card as cards
from . import pixels

THUMBNAIL_SIDE = 32
THUMBNAIL_PIPELINE = f"{pixels.PIPELINE} squeeze 32x32 bilinear grey minus-mean"


class Model(Protocol):
    """`embed` maps a list of uint8 [H, W, 3] images to float32 [N, D]."""

    name: str
    space: dict
    provenance: dict
    input: dict

    def embed(self, images: list[np.ndarray]) -> np.ndarray: ...


class Thumbnail:
    """The floor of every evaluation: 32x32 grey values minus their mean. Needs no network."""

    name = "thumbnail"

    def __init__(self) -> None:
        self.input = {"width": THUMBNAIL_SIDE, "height": THUMBNAIL_SIDE, "fit": "squeeze"}
        space = {
            "weights_sha256": "0" * 64,
            "layers": ["grey32"],
            "pooling": "none",
            "views": ["whole"],
            "dimension": THUMBNAIL_SIDE**2,
            "pixel_pipeline": THUMBNAIL_PIPELINE,
        }
        self.space = {**space, "id": cards.space_id(space)}
        self.provenance = {"model": self.name, "precision": "f32", "device": "cpu", "engine": "numpy"}

    def embed(self, images: list[np.ndarray]) -> np.ndarray:
        grey = np.stack([pixels.as_grey(image) for image in images]).reshape(len(images), -1)
        values = grey.astype(np.float32) / np.float32(255)
        return values - values.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)


class Exported:
    """`model.pt` of a folder, checked against its card."""

    def __init__(self, folder: Path, device: str = "auto", threads: int | None = None) -> None:
        import torch

        self.torch = torch
        self.card = cards.load_card(folder)
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        self.device = torch.device(("cuda:0" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.module = torch.jit.load(str(folder / "model.pt"), map_location=self.device)
        self.name = self.card["name"]
        self.input = self.card["input"]
        self.space = cards.space_of(self.card)
        self.provenance = {
            "model": self.name,
            "precision": self.card["precision"],
            "device": str(self.device),
            "engine": f"pytorch {torch.__version__.split('+')[0]}",
        }

    def embed(self, images: list[np.ndarray]) -> np.ndarray:
        with self.torch.inference_mode():
            batch = self.torch.from_numpy(np.stack(images)).to(self.device)
            return self.module(batch).cpu().numpy()


def load_model(name: str, device: str = "auto", threads: int | None = None) -> Model:
    """`thumbnail`, or a folder that export_model.py wrote. Raises CardError."""
    return Thumbnail() if name == Thumbnail.name else Exported(Path(name), device, threads)
