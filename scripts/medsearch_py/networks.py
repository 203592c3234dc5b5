"""Networks by name: each gives its features, its weights and how its input is normalised."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from . import lite, torchvision_nets, xrv_nets
from .weights import Weights


@dataclass(frozen=True)
class Network:
    """A trunk that maps normalised [N, C, H, W] to features [N, D, h, w] or [N, D].

    `trunk` is the network as published, `fast` computes the same with batch norms folded.
    mean, std: on values 0..1; grey: the trunk takes one channel.
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


@dataclass(frozen=True)
class Wish:
    """What the command line asked for."""

    weights: Path | None = None
    licence: str | None = None
    seed: int | None = None
    input_size: int | None = None


BUILDERS: dict[str, Callable] = {
    **{name: lite.build for name in lite.NAMES},
    **{name: torchvision_nets.build for name in torchvision_nets.NAMES},
    **{name: xrv_nets.build for name in xrv_nets.NAMES},
}


def build(name: str, wish: Wish) -> Network:
    """A network by name, in evaluation mode.

    Raises WeightsError when weights are missing, KeyError for an unknown name.
    """
    return Network(name=name, **BUILDERS[name](name, wish))
