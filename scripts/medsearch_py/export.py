"""A network to `model.pt` + `model.json`, checked against the network as published."""

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from . import card as cards
from . import weights as weight_files
from .embedder import AVG_UNIT, Embedder, vector_of_cells
from .files import write_json
from .networks import Network

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16}
# Rounding to bfloat16 alone turns a vector by up to this much.
COSINE_MIN = {"f32": 0.99999, "bf16": 0.99}
COSINE_BATCH_MIN = {"f32": 0.99999, "bf16": 0.999}
# The vector that the cells make, and the network's own: the same sum in another order.
COSINE_CELLS_MIN = 0.99999
BATCH = 32


class ExportError(Exception):
    """What was exported doesn't compute what the network computes."""


def export(network: Network, out: Path, precision: str = "f32") -> dict:
    """Write `out/model.pt` and `out/model.json`; returns the card with the two measured cosines.

    Raises ExportError when eager and exported vectors, a batch and its single images, or vectors and what their cells
    make, differ.
    """
    images = test_images(BATCH, network.input_size)
    out.mkdir(parents=True, exist_ok=True)
    script = out / "model.pt"
    temporary = out / ".model.pt.new"
    with torch.inference_mode():
        published = Embedder(network.trunk, network.mean, network.std, network.grey, pooling=network.pooling)
        reference = published.eval()(images)
    has_cells = save_script(network, temporary, precision, images[:2])
    with _quiet():
        exported = torch.jit.load(str(temporary))
    with torch.inference_mode():
        batch = exported(images)
        singles = torch.cat([exported(image[None]) for image in images])
        parts = exported.cells(images) if has_cells else None
    eager_cosine = least_cosine(reference, batch)
    batch_cosine = least_cosine(batch, singles)
    if not eager_cosine >= COSINE_MIN[precision] or not batch_cosine >= COSINE_BATCH_MIN[precision]:
        temporary.unlink()
        raise ExportError(
            f"exported vectors differ: cosine to eager {eager_cosine:.7f}, batch to single {batch_cosine:.7f}"
        )
    cells = None
    if parts is not None:
        cells = {"parts": [int(part.shape[1]) for part in parts], "normalise_parts": network.pooling == AVG_UNIT}
        cells_cosine = least_cosine(vector_of_cells(parts, cells["normalise_parts"]), batch)
        if not cells_cosine >= COSINE_CELLS_MIN:
            temporary.unlink()
            raise ExportError(f"the cells make another vector: cosine {cells_cosine:.7f}")
    shutil.move(temporary, script)
    card = make_card(network, int(batch.shape[1]), precision, cards.file_sha256(script), cells)
    write_json(out / "model.json", card)
    return {"card": card, "cosine_to_eager": eager_cosine, "cosine_batch_to_single": batch_cosine}


def save_script(network: Network, path: Path, precision: str, example: torch.Tensor) -> bool:
    """Trace, freeze and save: plain aten operators only, so that any libtorch can load it.

    Beside `forward` it has the method `cells`, where the network has cells: whether it has is returned.
    """
    dtype = PRECISIONS[precision]
    trunk = network.fast
    if not isinstance(trunk, torch.jit.ScriptModule):
        trunk = trunk.to(dtype).to(memory_format=torch.channels_last)
    embedder = Embedder(trunk, network.mean, network.std, network.grey, dtype, network.pooling).eval()
    with torch.no_grad(), _quiet():
        features = embedder.features(example)
        has_cells = network.pooling == AVG_UNIT or features.dim() == 4
        methods = {"forward": example} | ({"cells": example} if has_cells else {})
        # Not strict: `cells` gives a list, always of the same length.
        traced = torch.jit.trace_module(embedder, methods, check_trace=False, strict=False)
        torch.jit.save(torch.jit.freeze(traced.eval(), preserved_attrs=[*methods][1:]), str(path))
    return has_cells


def make_card(network: Network, dimension: int, precision: str, script_sha256: str, cells: dict | None) -> dict:
    """The card of the contract; no timings, nothing of the machine. `cells`: how they make the vector, if they do."""
    card_input = {"width": network.input_size, "height": network.input_size, "fit": "squeeze"}
    channels = "grey" if network.grey else "rgb"
    card = {
        "format": cards.FORMAT,
        "name": network.name,
        "architecture": network.architecture,
        "weights": {
            "origin": network.weights.origin,
            "licence": network.weights.licence,
            "sha256": network.weights.digest or weight_files.digest(network.weights.state),
        },
        "layers": network.layers,
        "pooling": network.pooling,
        **({} if cells is None else {"cells": cells}),
        "views": ["whole"],
        "dimension": dimension,
        "input": card_input,
        "mean": network.mean,
        "std": network.std,
        "pixel_pipeline": cards.pipeline_id(card_input, channels, network.mean, network.std),
        "precision": precision,
        "torchscript_sha256": script_sha256,
        "exported_with": f"torch {torch.__version__.split('+')[0]}",
        "space": "",
        "seeded": network.weights.seed,
    }
    card["space"] = cards.space_of(card)["id"]
    return card


def test_images(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Smooth random images, uint8 [count, size, size, 3]: pure noise would look alike to a network."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator) * 255
    fine = torch.rand(count, 3, size, size, generator=generator) * 40 - 20
    images = F.interpolate(coarse, size=(size, size), mode="bilinear") + fine
    return images.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def least_cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    """The smallest cosine between equal rows, in double precision."""
    return F.cosine_similarity(left.double(), right.double()).min().item()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TorchScript is what libtorch loads; torch's advice to use torch.export doesn't help here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
