"""Chest X-ray networks of torchxrayvision: the same networks as torchvision's, for one grey channel.

Only its weight files are used; the package itself is not needed.
"""

import copy

import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse

from .pickled_module import read_module_state
from .torchvision_nets import densenet_trunk, resnet_trunk
from .weights import Weights, WeightsError, download, load_into, randomise, read_state

RELEASE = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"
# Name -> (torchvision's name, input size, weight file of the "-all" release).
NETWORKS = {
    "xrv_densenet121_all": (
        "densenet121",
        224,
        "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
    ),
    "xrv_resnet50_all": ("resnet50", 512, "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt"),
}
PATHOLOGIES = 18
# -1024..1024: (x / 255 - 0.5) * 2048.
MEAN, STD = 0.5, 1 / 2048
LICENCE = "Apache-2.0 (torchxrayvision); see the training sets' own terms"


def build(name: str, wish) -> dict:
    """The fields of a Network."""
    base, size, file = NETWORKS[name]
    network = torchvision.models.get_model(base, weights=None, num_classes=PATHOLOGIES)
    stem = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if base == "resnet50":
        network.conv1 = stem
    else:
        network.features.conv0 = stem
    network.eval()
    if wish.seed is not None:
        weights = randomise(network, wish.seed)
    else:
        weights = _weights(file, wish)
        load_into(network, weights)
    trunk = resnet_trunk(network) if base == "resnet50" else densenet_trunk(network)
    return {
        "architecture": "ResNet-50 (torchxrayvision)" if base == "resnet50" else "DenseNet-121 (torchxrayvision)",
        "trunk": trunk,
        "fast": fuse(copy.deepcopy(trunk)),
        "weights": weights,
        "layers": ["layer4" if base == "resnet50" else "features"],
        "input_size": wish.input_size or size,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "grey": True,
    }


def _weights(file: str, wish) -> Weights:
    path = wish.weights or download(RELEASE + file)
    try:
        state = read_state(path)
    except WeightsError:
        state = read_module_state(path)
        if not state:
            raise
    # The calibration of its own classifier is no part of the network.
    state = {name: value for name, value in state.items() if name != "op_threshs"}
    if wish.weights is not None:
        return Weights(state, path.name, wish.licence or "as given with the file")
    return Weights(state, f"torchxrayvision release v1 {file}", LICENCE)
