"""The data makers: synthetic radiographs, PneumoniaMNIST through a mirror, the Kaggle tree."""

import csv
import functools
import hashlib
import http.server
import threading
import time

import numpy as np
import pytest
from openpyxl import load_workbook
from PIL import Image

from conftest import script

CLASSES = {"COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"}


def rows_of(folder):
    return list(csv.DictReader((folder / "metadata.csv").open()))


def test_synthetic_radiographs(synthetic, tmp_path):
    rows = rows_of(synthetic)
    assert len(rows) == 16
    assert {row["class"] for row in rows} == CLASSES
    assert {row["source"] for row in rows} == {"synthetic"}
    assert "show no person" in (synthetic / "SYNTHETIC.md").read_text()
    digests = set()
    for row in rows:
        with Image.open(synthetic / row["file"]) as image:
            assert (image.mode, image.size) == ("L", (512, 512))
            pixels = np.asarray(image)
            # The burned-in word: bright strokes in its corner.
            assert (pixels[482:505, 14:140] > 200).sum() > 100
        digests.add(hashlib.sha256(pixels.tobytes()).hexdigest())
    assert len(digests) == 16
    script("make_synthetic_xrays", "--out", tmp_path, "--count", 16, "--seed", 3)
    name = rows[5]["file"]
    assert (tmp_path / name).read_bytes() == (synthetic / name).read_bytes()


def test_some_synthetic_persons_come_twice():
    from make_synthetic_xrays import plan

    rows = plan(40, 1)
    persons = [row["patient_id"] for row in rows]
    assert len(set(persons)) < len(persons) == 40
    for person in set(persons):
        assert len({(row["class"], row["sex"], row["age"]) for row in rows if row["patient_id"] == person}) == 1


@pytest.fixture
def mirror(tmp_path):
    """A small file with the keys of the real one, served from this machine."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 20), ("val", 6), ("test", 8)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 224, 224), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3 > 0).astype(np.uint8)[:, None]
    folder = tmp_path / "mirror"
    folder.mkdir()
    np.savez_compressed(folder / "pneumoniamnist_224.npz", **arrays)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", arrays
    server.shutdown()


def test_medmnist_through_a_mirror(mirror, tmp_path):
    pytest.importorskip("medmnist.info")
    url, arrays = mirror
    out = tmp_path / "out"
    done = script("fetch_medmnist", "--out", out, "--mirror", url)
    assert "CC BY 4.0" in done.stdout
    assert "CC BY 4.0" in (out / "LICENCE.md").read_text()
    rows = rows_of(out)
    assert len(rows) == 34
    assert {row["class"] for row in rows} == {"Normal", "Pneumonia"}
    for row in rows[::5]:
        split, at = row["file"].split("/")[1].removesuffix(".png").split("-")
        assert row["split"] == split
        assert (np.asarray(Image.open(out / row["file"])) == arrays[f"{split}_images"][int(at)]).all()
    assert "is complete" in script("fetch_medmnist", "--out", out, "--mirror", "http://127.0.0.1:9/").stdout
    few = tmp_path / "few"
    script("fetch_medmnist", "--out", few, "--mirror", url + "pneumoniamnist_224.npz", "--count", 10)
    names = [row["class"] for row in rows_of(few)]
    assert (names.count("Normal"), names.count("Pneumonia")) == (5, 5)


def test_medmnist_goes_on_after_a_stop(mirror, tmp_path):
    pytest.importorskip("medmnist.info")
    url, _ = mirror
    out = tmp_path / "out"
    out.mkdir()
    (out / ".pneumoniamnist_224.npz.part").write_bytes(b"half of something else")
    # A server without ranges sends all again; the half that was there must not spoil it.
    script("fetch_medmnist", "--out", out, "--mirror", url)
    assert len(rows_of(out)) == 34


def test_medmnist_says_soon_that_it_cannot_be_reached(tmp_path):
    pytest.importorskip("medmnist.info")
    for address in ("http://127.0.0.1:9/", "http://192.0.2.1/x.npz", "http://no-such-host.invalid/"):
        start = time.monotonic()
        done = script("fetch_medmnist", "--out", tmp_path, "--mirror", address, "--timeout-s", 1, expect=4)
        assert time.monotonic() - start < 10
        assert done.stderr.count("\n") == 1
        assert "can't be reached" in done.stderr


def test_kaggle_tree(synthetic, tmp_path):
    script("make_kaggle_tree", "--from", synthetic, "--out", tmp_path, "--images", 60)
    root = tmp_path / "COVID-19_Radiography_Dataset"
    assert (root / "README.md.txt").exists()
    digests = []
    for name, count in (("COVID", 10), ("Lung_Opacity", 17), ("Normal", 29), ("Viral Pneumonia", 4)):
        images = sorted((root / name / "images").iterdir())
        assert len(images) == count == len(list((root / name / "masks").iterdir()))
        assert {path.name for path in images} == {f"{name}-{at + 1}.png" for at in range(count)}
        for path in images:
            with Image.open(path) as image:
                assert (image.mode, image.size) == ("L", (299, 299))
            digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        sheet = load_workbook(root / f"{name}.metadata.xlsx").worksheets[0]
        rows = list(sheet.iter_rows(values_only=True))
        assert rows[0] == ("FILE NAME", "FORMAT", "SIZE", "URL")
        assert len(rows) == count + 1
        assert rows[1][0] == ("NORMAL-1" if name == "Normal" else f"{name}-1")
    assert len(set(digests)) == 60


def test_kaggle_counts_are_the_real_ones():
    from medsearch_py.kaggle import REAL, counts

    assert counts(21165) == REAL
    for images in (4, 5, 100, 1000):
        assert sum(counts(images).values()) == images
