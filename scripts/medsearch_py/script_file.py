"""Any TorchScript file as a trunk: float NCHW, normalised -> [N, D] or [N, D, h, w]."""

import warnings
from pathlib import Path

import torch

from .card import file_sha256
from .networks import Network
from .weights import Weights, WeightsError


def open_script(path: Path, name: str, input_size: int, mean: list[float], std: list[float], licence: str) -> Network:
    """The file as a Network. A frozen one has no tensors of its own: the file's digest is its weights'."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"`{path.name}` is not a TorchScript file: {str(error).splitlines()[0]}") from error
    state = module.state_dict()
    return Network(
        name=name,
        architecture=f"TorchScript {path.name}",
        trunk=module,
        fast=module,
        weights=Weights(state, path.name, licence, digest="" if state else file_sha256(path)),
        layers=["forward"],
        input_size=input_size,
        mean=mean,
        std=std,
    )
