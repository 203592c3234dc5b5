"""Why two X-rays are similar: shares by the real network, held against what a search answers."""

import json
import shutil

import numpy as np
import pytest

from conftest import medsearch, script


@pytest.fixture
def with_cells(model, tmp_path):
    """The default model, exported with cells."""
    if "cells" in json.loads((model / "model.json").read_text()):
        return model
    script("export_model.py", "--model", "efficientnet_lite0", "--out", tmp_path / "model")
    return tmp_path / "model"


def test_shares_add_up_to_what_the_search_answers(three_class, with_cells, serve, tmp_path):
    data, _, archive = three_class
    server = serve(archive, "--model", with_cells)
    images = [min((data / name).iterdir()).read_bytes() for name in ("COVID", "Normal")]
    explained(server, images)
    # By a learned metric, too.
    learned = tmp_path / "archive"
    shutil.copytree(archive, learned)
    shutil.copy(f"{archive}.secret", f"{learned}.secret")
    medsearch("fit", "--archive", learned, "--force")
    server = serve(learned, "--model", with_cells)
    assert all(answer["metric"] for answer in explained(server, images))


def explained(server, images):
    answers = []
    for image in images:
        _, found = server.post_image("/v1/search", image, k=3, exclude="pixels")
        for neighbor in found["neighbors"]:
            fields = {"neighbor": neighbor["id"], "space": found["space"]}
            status, answer = server.post_image("/v1/explanations", image, **fields)
            assert status == 200, answer
            assert answer["method"] == "cells"
            assert answer["similarity"] == pytest.approx(neighbor["similarity"], abs=1e-5)
            for shares in (answer["query"], answer["neighbor_map"]):
                cells = np.array(shares["cells"])
                assert cells.shape == (shares["rows"], shares["columns"]) == (7, 7)
                assert shares["area"] == [0, 0, 1, 1]
                assert cells.sum() == pytest.approx(shares["sum"])
                # The neighbor's picture is kept without loss: it is what was embedded.
                assert shares["sum"] == pytest.approx(neighbor["similarity"], abs=1e-3)
                assert cells.std() > 1e-4
            assert answer["query"]["sum"] == pytest.approx(neighbor["similarity"], abs=1e-4)
            assert answer["neighbor_map"]["from_thumbnail"] is False
            answers.append(answer)
    return answers


def test_maps_beat_random_ones(three_class, with_cells, tmp_path):
    data, embeddings, _ = three_class
    where = ("--embeddings", embeddings, "--data", data, "--model", with_cells)
    few = ("--seeds", 1, "--resamples", 200, "--explain", 15)
    medsearch("evaluate", *where, *few, "--json", tmp_path / "e.json", "--html", tmp_path / "e.html")
    figures = json.loads((tmp_path / "e.json").read_text())["explanations"]
    assert (figures["method"], figures["images"]) == ("cells", 15)
    maps = {row["name"]: row for row in figures["maps"]}
    print("insertion, deletion", {name: (row["insertion"], row["deletion"]) for name, row in maps.items()})
    assert list(maps) == ["explanation", "random", "uniform, faded", "uniform, by rows", "uniform, dotted"]
    assert maps["explanation"]["insertion_below_explanation"] is None
    assert maps["random"]["insertion_below_explanation"]["low"] > 0
    # Of so few images the interval of a small lead may reach below nothing: scripts/soak explanations asks all.
    assert maps["random"]["deletion_above_explanation"]["value"] > 0
    # Two uniform ones change what kind of image it is: fading spares in deletion, dots spoil insertion.
    assert maps["uniform, faded"]["deletion_above_explanation"]["low"] > 0
    assert maps["uniform, dotted"]["insertion_below_explanation"]["low"] > 0
    assert maps["uniform, by rows"]["deletion_above_explanation"]["low"] > 0
    assert "Heat maps" in (tmp_path / "e.html").read_text()


def test_without_larger_pictures_there_is_nothing_to_explain(three_class, with_cells, tmp_path):
    data, embeddings, _ = three_class
    archive = tmp_path / "small"
    medsearch(
        *("index", "--embeddings", embeddings, "--data", data, "--model", with_cells, "--archive", archive),
        *("--retention", "thumbnail"),
    )
    few = ("--seeds", 1, "--resamples", 20, "--explain", 3, "--json", tmp_path / "e.json")
    medsearch("evaluate", "--archive", archive, *few)
    figures = json.loads((tmp_path / "e.json").read_text())["explanations"]
    assert "no pictures are kept but thumbnails" in figures["not_available"]
