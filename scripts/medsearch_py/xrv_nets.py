"""Chest X-ray networks of torchxrayvision, an optional package."""

import copy
from pathlib import Path

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from .torchvision_nets import resnet_trunk
from .weights import Weights, WeightsError, download, load_into, randomise, read_state

NAMES = {"xrv_densenet121_all": "densenet121-res224-all", "xrv_resnet50_all": "resnet50-res512-all"}
INPUT_SIZES = {"xrv_densenet121_all": 224, "xrv_resnet50_all": 512}
PATHOLOGIES = 18
# -1024..1024 on values 0..255: (x / 255 - 0.5) * 2048.
MEAN, STD = 0.5, 1 / 2048
LICENCE = "Apache-2.0 (torchxrayvision); see the training sets' own terms"


def build(name: str, wish) -> dict:
    """The fields of a Network."""
    try:
        import torchxrayvision as xrv
    except ImportError as error:
        raise WeightsError(f"`{name}` needs one more package: pip install torchxrayvision==1.5.7") from error
    if name == "xrv_densenet121_all":
        network = xrv.models.DenseNet(num_classes=PATHOLOGIES, weights=None, in_channels=1)
        trunk = nn.Sequential(network.features, nn.ReLU(inplace=True))
        inner = network
    else:
        network = xrv.models.ResNet(weights=None)
        inner = network.model
        trunk = resnet_trunk(inner)
    network.eval()
    if wish.seed is not None:
        weights = randomise(inner, wish.seed)
    else:
        weights = _weights(name, wish, xrv)
        load_into(inner, weights)
    return {
        "architecture": "DenseNet-121 (torchxrayvision)" if inner is network else "ResNet-50 (torchxrayvision)",
        "trunk": trunk.eval(),
        "fast": fuse(copy.deepcopy(trunk).eval()),
        "weights": weights,
        "layers": ["features" if inner is network else "layer4"],
        "input_size": wish.input_size or INPUT_SIZES[name],
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "grey": True,
    }
