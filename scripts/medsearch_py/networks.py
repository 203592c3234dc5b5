"""Networks by name: each gives its features, its weights and how its input is normalised."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from .embedder import AVG
from .weights import Weights, WeightsError

# Name -> the module that builds it, imported only then: torchvision is an optional package.
NAMES = {
    "efficientnet_lite0": "lite",
    "efficientnet_lite1": "lite",
    "efficientnet_lite2": "lite",
    "resnet18": "torchvision_nets",
    "resnet34": "torchvision_nets",
    "resnet50": "torchvision_nets",
    "resnet101": "torchvision_nets",
    "densenet121": "torchvision_nets",
    "xrv_densenet121_all": "xrv_nets",
    "xrv_resnet50_all": "xrv_nets",
}
# Recipe -> the networks that have it: `head` is the last layer alone, `layers` several at a larger input.
RECIPES = {
    "head": tuple(NAMES),
    "layers": ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
}


@dataclass(frozen=True)
class Network:
    """A trunk that maps normalised [N, C, H, W] to features [N, D, h, w] or [N, D], or to a list of them.

    `trunk` is the network as published, `fast` computes the same with batch norms folded.
    mean, std: on values 0..1; grey: the trunk takes one channel; pooling: how its features become a vector.
    """

    name: str
    architecture: str
    trunk: nn.Module
    fast: nn.Module
    weights: Weights
    layers: list[str]
    input_size: int
    mean: list[float]
    std: list[float]
    grey: bool = False
    pooling: str = AVG


@dataclass(frozen=True)
class Wish:
    """What the command line asked for."""

    weights: Path | None = None
    licence: str | None = None
    seed: int | None = None
    input_size: int | None = None
    recipe: str = "head"


def build(name: str, wish: Wish) -> Network:
    """A network by name, in evaluation mode.

    Raises WeightsError when weights are missing, KeyError for an unknown name or a recipe that it doesn't have.
    """
    if name not in RECIPES[wish.recipe]:
        raise KeyError(f"no recipe `{wish.recipe}` for `{name}`")
    try:
        builder = importlib.import_module(f".{NAMES[name]}", __package__)
    except ImportError as error:
        raise WeightsError(
            f"`{name}` needs the package `{error.name}`: pip install -r requirements-models.txt"
        ) from error
    full_name = name if wish.recipe == "head" else f"{name}_{wish.recipe}"
    return Network(name=full_name, **builder.build(name, wish))
