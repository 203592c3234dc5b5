"""ResNet-18/34/50/101 and DenseNet-121 of torchvision (ImageNet)."""

import copy

import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse

from .weights import Weights, download, load_into, randomise, read_state

ARCHITECTURES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "densenet121": "DenseNet-121",
}
INPUT_SIZE = 224
MEAN = [0.485, 0.456, 0.406]
STD = [0.229, 0.224, 0.225]
LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet, non-commercial research terms"


def build(name: str, wish) -> dict:
    """The fields of a Network."""
    network = torchvision.models.get_model(name, weights=None).eval()
    if wish.seed is not None:
        weights = randomise(network, wish.seed)
    else:
        weights = _weights(name, wish)
        load_into(network, weights)
    trunk = resnet_trunk(network) if name.startswith("resnet") else densenet_trunk(network)
    return {
        "architecture": ARCHITECTURES[name],
        "trunk": trunk,
        "fast": fuse(copy.deepcopy(trunk)),
        "weights": weights,
        "layers": ["layer4" if name.startswith("resnet") else "features"],
        "input_size": wish.input_size or INPUT_SIZE,
        "mean": MEAN,
        "std": STD,
    }


def resnet_trunk(network: nn.Module) -> nn.Module:
    """Everything before the pooling."""
    parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(*(getattr(network, part) for part in parts)).eval()


def densenet_trunk(network: nn.Module) -> nn.Module:
    """The features with the ReLU that DenseNet's own forward adds to them."""
    return nn.Sequential(network.features, nn.ReLU(inplace=True)).eval()


def _weights(name: str, wish) -> Weights:
    if wish.weights is not None:
        return Weights(_modern(read_state(wish.weights)), wish.weights.name, wish.licence or "as given with the file")
    published = torchvision.models.get_model_weights(name).DEFAULT
    return Weights(_modern(read_state(download(published.url))), f"torchvision {published}", LICENCE)


def _modern(state: dict) -> dict:
    """Old DenseNet files write `norm.1` where the modules are called `norm1`."""
    for old in ("norm.", "relu.", "conv."):
        for digit in "12":
            state = {key.replace(f".{old}{digit}.", f".{old[:-1]}{digit}."): value for key, value in state.items()}
    return state
