"""`medsearch fit`: searches by a learned metric, held against the same metric fitted by numpy."""

import hashlib
import io
import json
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from conftest import fixed_secret, medsearch, png, script


def figures(server, data, embeddings, tmp_path):
    run = script(
        "leave_one_out.py", "--url", server.url, "--data", data, "--embeddings", embeddings, "--json", tmp_path / "f"
    )
    found = json.loads((tmp_path / "f").read_text())["figures"]
    print(found)
    assert found["lists_that_differ"] == found["votes_that_differ"] == 0, run.stderr
    return found


def metric_of(server, wanted: bool):
    """What /v1/archive says of the metric, once the server has taken it over or dropped it: within 2 seconds."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        metric = server.get("/v1/archive")["metric"]
        if (metric is not None) == wanted:
            return metric
        time.sleep(0.05)
    raise AssertionError("the server did not take the change over in time")


@pytest.fixture
def drawn(synthetic, tmp_path):
    """(data, embeddings, archive) of synthetic radiographs, in the space of 32x32 grey values."""
    medsearch("embed", "--data", synthetic, "--out", tmp_path / "e", "--model", "thumbnail")
    where = ("--embeddings", tmp_path / "e", "--data", synthetic, "--model", "thumbnail")
    medsearch("index", *where, "--archive", tmp_path / "archive", "--show-file-names", "--synthetic")
    return synthetic, tmp_path / "e", tmp_path / "archive"


def test_a_server_takes_the_metric_over_and_gives_it_up(drawn, serve, tmp_path):
    data, embeddings, archive = drawn
    server = serve(archive)
    raw = figures(server, data, embeddings, tmp_path)
    assert raw["metric"] is None

    # An archive's secret orders its images, and so draws who is left out: of so few, chance decides what is better.
    run = medsearch("fit", "--archive", archive, "--components", 16, "--force")
    print(run.stdout)
    assert "balanced accuracy on groups that were left out" in run.stdout
    metric = metric_of(server, wanted=True)
    assert metric["components"] == 16 and metric["method"] == "within-class whitening"
    assert 0 < metric["held_out"]["without"] <= 1 and 0 < metric["held_out"]["with"] <= 1
    learned = figures(server, data, embeddings, tmp_path)
    assert learned["metric"]["components"] == 16

    # Written, found, deleted as before.
    status, added = server.post_image("/v1/images", png(1), **{"class": "Normal"})
    assert status == 201
    _, answer = server.post_image("/v1/search", png(1), exclude="none", min_version=added["version"])
    assert answer["neighbors"][0]["id"] == added["id"] and answer["neighbors"][0]["similarity"] > 0.9999
    assert answer["metric"] == metric["id"]
    _, embedded = server.post_image("/v1/embeddings", png(1))
    assert len(embedded["embeddings"][0]["vector"]) == answer_dimension(server)

    text = medsearch("evaluate", "--archive", archive, "--resamples", 50).stdout
    assert "searched by a learned metric" in text
    assert "0 damaged" in medsearch("verify", "--archive", archive).stdout

    assert "as they are" in medsearch("fit", "--archive", archive, "--remove").stdout
    metric_of(server, wanted=False)
    again = medsearch("fit", "--archive", archive, "--remove").stdout
    assert "nothing was changed" in again


def answer_dimension(server):
    return server.get("/v1/archive")["space"]["dimension"]


def test_what_can_not_be_learned_is_refused_in_words(drawn, tmp_path):
    _, _, archive = drawn
    for arguments, words in (
        (("--shrinkage", "0"), "--shrinkage needs a number"),
        (("--shrinkage", "1.5"), "--shrinkage needs a number"),
        (("--components", "1"), "--components needs at least 2"),
        (("--archive", tmp_path / "nowhere"), "no archive"),
    ):
        given = arguments if arguments[0] == "--archive" else ("--archive", archive, *arguments)
        run = medsearch("fit", *given, check=False)
        assert run.returncode == 1 and words in run.stderr, run.stderr
    assert medsearch("fit", "--archive", archive, "--remove", "--force", check=False).returncode == 2


def vectors(folder, classes, rng):
    """A folder of embeddings like that of another, with drawn vectors: classes of (count, centre)."""
    template = json.loads(next(folder.glob("[!_]*.json")).read_text())
    template.pop("vectors_sha256", None)
    dimension = template["space"]["dimension"]
    out = folder.with_name("drawn")
    out.mkdir()
    for name, (count, centre) in classes.items():
        drawn = rng.normal(size=(count, dimension)) + centre
        np.save(out / f"{name}.npy", drawn.astype(np.float32))
        records = [{"id": f"{name}-{at}", "sha256": hashlib.sha256(drawn[at]).hexdigest()} for at in range(count)]
        (out / f"{name}.json").write_text(json.dumps({**template, "class": name, "records": records}))
    return out


@pytest.mark.parametrize(
    "classes, words",
    [
        ({"A": (30, 0)}, "not labelled images of two classes"),
        ({"A": (5, 0), "B": (5, 1)}, "at least 20 images"),
    ],
)
def test_what_brings_nothing_is_not_taken(drawn, tmp_path, classes, words):
    _, embeddings, _ = drawn
    folder = vectors(embeddings, classes, np.random.default_rng(7))
    archive = tmp_path / "other"
    medsearch("index", "--embeddings", folder, "--archive", archive)
    run = medsearch("fit", "--archive", archive, check=False)
    assert run.returncode == 1 and words in run.stderr, run.stdout + run.stderr
    manifests = sorted((archive / "manifest").iterdir())
    assert json.loads(manifests[-1].read_text())["metric"] is None and len(manifests) == 2


def test_no_gain_no_metric_but_what_votes_are_worth(drawn, serve, tmp_path):
    """The vectors as they are are always right: they stay, and are calibrated."""
    _, embeddings, _ = drawn
    folder = vectors(embeddings, {"A": (40, -2), "B": (40, 2)}, np.random.default_rng(7))
    archive = tmp_path / "other"
    medsearch("index", "--embeddings", folder, "--archive", archive, "--model", "thumbnail")
    run = medsearch("fit", "--archive", archive)
    assert "finds the class no more often" in run.stdout
    of = serve(archive).get("/v1/archive")
    assert of["metric"] is None
    calibration = of["calibration"]
    assert (calibration["k"], calibration["vote"], calibration["readable"]) == (15, "prior", True)
    assert calibration["classes"] == [{"name": name, "groups": 40, "images": 40} for name in "AB"]


def probabilities(calibration, suggestion):
    """Of each class, by the formula."""
    shares = calibration["shares"]
    weights = np.array([suggestion["weights"].get(name, 0) for name in calibration["classes"]])
    scores = shares["slope"] * np.log(weights / weights.sum() + shares["smoothing"]) + shares["offsets"]
    return np.exp(scores) / np.exp(scores).sum()


@pytest.mark.parametrize("arguments", [(), ("--no-metric", "--vote", "majority", "-k", 10)])
def test_what_votes_are_worth_on_patients_never_seen(three_class, model, serve, tmp_path, arguments):
    """A fifth of the X-rays is kept out: confidence and sets are those of the file, and hold what they promise.

    Nothing is said of how to ask: the server asks as it was fitted.
    """
    data, _, _ = three_class
    held_out = []
    for number, image in enumerate(sorted(data.glob("*/*.*"))):
        folder = tmp_path / ("held" if number % 5 == 0 else "data") / image.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
        if number % 5 == 0:
            held_out.append((image.parent.name, folder / image.name))
    medsearch("embed", "--data", tmp_path / "data", "--out", tmp_path / "e", "--model", model)
    archive = fixed_secret(tmp_path / "archive")
    where = ("--embeddings", tmp_path / "e", "--data", tmp_path / "data")
    medsearch("index", *where, "--archive", archive, "--model", model)
    print(medsearch("fit", "--archive", archive, *arguments).stdout)
    server = serve(archive)
    (file,) = (archive / "calibrations").iterdir()
    calibration = json.loads(file.read_text())["calibration"]
    covered, right, suggested, unlike, belongs = [], 0, 0, 0, None
    for name, image in held_out:
        _, answer = server.post_image("/v1/search", image.read_bytes())
        assert answer["query"]["k"] == calibration["k"] and answer["suggestion"]["method"] == calibration["vote"]
        suggestion = answer["suggestion"]
        if not suggestion["calibration"]["valid"]:
            # The same picture under another name.
            assert re.search("in the archive|nearly identical", suggestion["calibration"]["why_not"])
            continue
        if suggestion["status"] == "out_of_distribution":
            unlike += 1
            assert suggestion["class"] is suggestion["confidence"] is suggestion["prediction_set"] is None
            continue
        expected = probabilities(calibration, suggestion)
        for level, answered in zip(calibration["levels"], suggestion["prediction_sets"], strict=True):
            inside = [1 - p <= t + 1e-9 for p, t in zip(expected, level["thresholds"], strict=True)]
            names = [each for each, possible in zip(calibration["classes"], inside, strict=True) if possible]
            assert answered == {"level": level["level"], "classes": names, "not_available": []}
        covered.append(name in suggestion["prediction_set"])
        if suggestion["status"] == "suggested":
            suggested, belongs = suggested + 1, image
            right += suggestion["class"] == name
            at = calibration["classes"].index(suggestion["class"])
            assert suggestion["confidence"] == pytest.approx(expected[at], abs=1e-9)
        else:
            assert suggestion["class"] is suggestion["confidence"] is None
    assert len(covered) + unlike >= len(held_out) - 5
    print(
        f"{len(held_out)} asked, {unlike} unlike, {suggested} suggested, {right} right, {np.mean(covered):.3f} covered"
    )
    assert np.mean(covered) >= 0.8 and right / suggested >= 0.8 and suggested >= 0.7 * len(held_out)

    # Options that it was not fitted for, and an image that it was: the vote as it is, and why.
    image = belongs.read_bytes()
    own = min((tmp_path / "data" / "COVID").iterdir()).read_bytes()
    for query, change, words in (
        (image, {"k": 5}, "neighbors"),
        (image, {"classes": "COVID,Normal"}, "only a part"),
        (image, {"region": "0,0,0.5,0.5"}, "whole images"),
        (own, {}, "in the archive"),
    ):
        suggestion = server.post_image("/v1/search", query, **change)[1]["suggestion"]
        assert words in suggestion["calibration"]["why_not"] and suggestion["confidence"] is None
    # What is no X-ray gets neighbors and no suggestion.
    _, answer = server.post_image("/v1/search", png(3, size=300))
    assert answer["suggestion"]["status"] == "out_of_distribution" and len(answer["neighbors"]) == calibration["k"]
    # An X-ray through a red glass: what anybody can see is said first.
    suggestion = server.post_image("/v1/search", reddened(belongs))[1]["suggestion"]
    assert suggestion["status"] == "out_of_distribution" and suggestion["calibration"]["valid"]
    assert suggestion["reason"] == "unlike this archive: far more colourful than any of its images"


def reddened(image):
    """A picture's red alone, as a PNG."""
    grey = Image.open(image).convert("L")
    nothing = Image.new("L", grey.size)
    out = io.BytesIO()
    Image.merge("RGB", (grey, nothing, nothing)).save(out, "PNG")
    return out.getvalue()


def test_a_damaged_metric_says_what_to_do(drawn, serve):
    """Searches stop, since they would answer by another measure; everything else goes on, and `fit` makes another."""
    data, _, archive = drawn
    medsearch("fit", "--archive", archive, "--force")
    (metric,) = (archive / "metrics").iterdir()
    damaged = bytearray(metric.read_bytes())
    damaged[-1] ^= 1
    metric.write_bytes(damaged)
    image = next((data / "COVID").iterdir())
    run = medsearch("search", "--archive", archive, image, check=False)
    assert run.returncode == 1 and "medsearch fit" in run.stderr, run.stderr
    for command in ("evaluate", "duplicates", "compact"):
        medsearch(command, "--archive", archive)
    assert medsearch("verify", "--archive", archive, check=False).returncode == 3
    medsearch("fit", "--archive", archive, "--force")
    assert "0 damaged" in medsearch("verify", "--archive", archive).stdout
    assert serve(archive).get("/v1/archive")["metric"]


def test_real_images_by_graph_and_scan(three_class, serve, tmp_path):
    """On real X-rays, other patients' classes are found more often; every search equals numpy, by scan and by graph."""
    data, embeddings, _ = three_class
    _, _, original = three_class
    archive = tmp_path / "archive"
    shutil.copytree(original, archive)
    shutil.copy(f"{original}.secret", f"{archive}.secret")
    print(medsearch("fit", "--archive", archive, "--force").stdout)
    server = serve(archive)
    held_out = metric_of(server, wanted=True)["held_out"]
    assert held_out["without"] > 0.8 and held_out["with"] > 0.85
    by_scan = figures(server, data, embeddings, tmp_path)

    medsearch("fit", "--archive", archive, "--exact-rows-max", 0, "--force")
    server = serve(archive, "--exact-rows-max", 0)
    image = min((data / "COVID").iterdir()).read_bytes()
    _, answer = server.post_image("/v1/search", image)
    assert set(answer["path"].values()) == {"hnsw"}
    by_graph = figures(server, data, embeddings, tmp_path)
    assert by_graph["balanced_accuracy"] == by_scan["balanced_accuracy"]
    # Merging builds them again, by the metric.
    medsearch("compact", "--archive", archive, "--exact-rows-max", 0)
    assert "0 damaged" in medsearch("verify", "--archive", archive).stdout
