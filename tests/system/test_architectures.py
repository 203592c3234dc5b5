"""Every named architecture, randomly weighted: eager PyTorch = TorchScript in `medsearch embed` and in the server."""

import concurrent.futures
import io
import json
import os
import shutil

# Before torch is imported, and for the programs started here: waiting threads that spin cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import medsearch, script
from medsearch_py import networks, pixels
from medsearch_py.embedder import Embedder
from medsearch_py.export import test_images as smooth_images

SEED = 7
SIZE = 64
COSINE_MIN = 0.9999
# Width, height, colour: none is square but the first.
SHAPES = [(64, 64, "L"), (130, 70, "L"), (64, 150, "RGB"), (201, 99, "RGB")]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """(folder of a data set of four images, their bytes by file)."""
    folder = tmp_path_factory.mktemp("images")
    files = {}
    for at, (width, height, mode) in enumerate(SHAPES):
        square = smooth_images(1, 201, seed=at)[0].numpy()
        out = io.BytesIO()
        Image.fromarray(square).resize((width, height)).convert(mode).save(out, "PNG")
        files[f"{'AB'[at % 2]}/{at}.png"] = out.getvalue()
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    return folder, files


@pytest.mark.parametrize("name", networks.NAMES)
def test_server_gives_what_the_network_gives(name, images, serve, tmp_path):
    if networks.NAMES[name] != "lite":
        pytest.importorskip("torchvision")
    folder, files = images
    model = tmp_path / "model"
    try:
        script("export_model.py", "--model", name, "--seed", SEED, "--input-size", SIZE, "--out", model)
        wanted = eager(name, files)
        medsearch("embed", "--data", folder, "--out", tmp_path / "embeddings", "--model", model)
        assert_same(wanted, embedded(tmp_path / "embeddings", files), "medsearch embed")
        args = ("--embeddings", tmp_path / "embeddings", "--data", folder, "--model", model)
        medsearch("index", *args, "--archive", tmp_path / "archive")
        server = serve(tmp_path / "archive", "--model", model)
        for workers in (1, len(files)):  # one after the other, and at once: the server makes a batch of these
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                answers = list(pool.map(lambda image: server.post_image("/v1/embeddings", image), files.values()))
            assert [status for status, _ in answers] == [200] * len(files), answers
            served = np.array([answer["embeddings"][0]["vector"] for _, answer in answers])
            assert_same(wanted, served, f"the server, {workers} at a time")
        server.stop()
    finally:
        shutil.rmtree(model, ignore_errors=True)


def eager(name, files):
    """The network as published, never traced; pixels by the Python way."""
    network = networks.build(name, networks.Wish(seed=SEED, input_size=SIZE))
    batch = torch.from_numpy(np.stack([pixels.prepare(data, SIZE, SIZE).input for data in files.values()]))
    with torch.inference_mode():
        return Embedder(network.trunk, network.mean, network.std, network.grey).eval()(batch).numpy()


def embedded(folder, files):
    """What `medsearch embed` wrote, in the order of `files`."""
    rows = {}
    for name in {file.split("/")[0] for file in files}:
        records = json.loads((folder / f"{name}.json").read_text())["records"]
        rows |= zip((record["file"] for record in records), np.load(folder / f"{name}.npy"), strict=True)
    return np.array([rows[file] for file in files])


def assert_same(wanted, found, who):
    """Equal direction, whole and around the mean: random networks give vectors that are all nearly alike."""
    assert found.shape == wanted.shape
    assert cosines(wanted, found).diagonal().min() >= COSINE_MIN, who
    mean = unit(wanted).mean(axis=0)
    around = cosines(unit(wanted) - mean, unit(found) - mean)
    assert around.diagonal().min() >= COSINE_MIN, f"{who}: {around.diagonal()}"
    # The vector of another image would not pass.
    assert around[~np.eye(len(around), dtype=bool)].max() < 0.9, f"{who}: {around}"


def unit(vectors):
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosines(left, right):
    return unit(left) @ unit(right).T
