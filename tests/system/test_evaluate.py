"""`medsearch evaluate` on real X-rays, held against numpy on the same vectors."""

import json
import re

import numpy as np
import pytest

from conftest import medsearch

K = 10
# As `by_numpy` asks.
BY_NUMPY = ("-k", K, "--vote", "majority")


def unit_rows(folder):
    """Every image once, with class and patient: equal pictures have equal vectors and are one image in the archive."""
    vectors, classes, patients, seen = [], [], [], set()
    for description in sorted(folder.glob("[!_]*.json")):
        records = json.loads(description.read_text())["records"]
        for record, row in zip(records, np.load(folder / f"{description.stem}.npy").astype(np.float64), strict=True):
            if row.tobytes() in seen:
                continue
            seen.add(row.tobytes())
            vectors.append(row / np.linalg.norm(row))
            classes.append(description.stem)
            patients.append(record.get("patient_id") or f"unknown {len(patients)}")
    return np.array(vectors), np.array(classes), np.array(patients)


def by_numpy(vectors, classes, patients, *, exclude_patient=True):
    """Leave one patient out: votes of the nearest ten patients, and the whole ranking of each query."""
    names = sorted(set(classes))
    suggested, first, full = [], [], []
    for query, similarity in enumerate(vectors @ vectors.T):
        order = [at for at in np.argsort(-similarity, kind="stable") if at != query]
        if exclude_patient:
            order = [at for at in order if patients[at] != patients[query]]
        seen, one_each = set(), []
        for at in order:
            if patients[at] not in seen:
                seen.add(patients[at])
                one_each.append(at)
        voters = one_each[:K]
        tally = {
            name: (
                sum(classes[at] == name for at in voters),
                sum(similarity[at] for at in voters if classes[at] == name),
            )
            for name in names
        }
        suggested.append(max(names, key=lambda name: tally[name]))
        first.append(classes[voters[0]] == classes[query])
        relevant = np.array([classes[at] == classes[query] for at in one_each])
        precision = np.cumsum(relevant) / np.arange(1, len(relevant) + 1)
        full.append(precision[relevant].mean())
    right = np.array(suggested) == classes
    balanced = np.mean([right[classes == name].mean() for name in names])
    return {"balanced_accuracy": balanced, "accuracy": right.mean(), "P@1": np.mean(first), "mAP": np.mean(full)}


def evaluate(tmp_path, *arguments):
    run = medsearch("evaluate", "--json", tmp_path / "e.json", "--html", tmp_path / "e.html", *arguments)
    return json.loads((tmp_path / "e.json").read_text()), (tmp_path / "e.html").read_text(), run.stdout


def micro(evaluation, name):
    return next(figure["micro"]["value"] for figure in evaluation["retrieval"] if figure["name"] == name)


def test_equals_numpy(three_class, tmp_path):
    _, embeddings, archive = three_class
    # Without pictures nothing is near another: exactly what numpy does.
    evaluation, _, _ = evaluate(tmp_path, "--embeddings", embeddings, *BY_NUMPY)
    expected = by_numpy(*unit_rows(embeddings))
    decisions = evaluation["decisions"]
    assert "no pictures" in evaluation["protocol"]["near_duplicates"]["not_available"]
    for figure in ("balanced_accuracy", "accuracy"):
        interval = decisions[figure]
        assert interval["value"] == pytest.approx(expected[figure], abs=1e-9)
        assert interval["low"] < interval["value"] < interval["high"]
    assert micro(evaluation, "P@1") == pytest.approx(expected["P@1"], abs=1e-9)
    assert micro(evaluation, "mAP") == pytest.approx(expected["mAP"], abs=1e-6)

    evaluation, page, text = evaluate(tmp_path, "--archive", archive, *BY_NUMPY)
    print(text)
    protocol, decisions = evaluation["protocol"], evaluation["decisions"]
    copies = protocol["near_duplicates"]
    assert 2 <= copies["images"] <= 6 and copies["not_compared"] == 0 and protocol["groups"] < protocol["images"]
    assert decisions["accuracy"]["value"] == pytest.approx(expected["accuracy"], abs=0.02)
    assert np.sum(decisions["confusion"]) == pytest.approx(evaluation["protocol"]["queries"])
    floors = {floor["name"]: floor["figures"] for floor in evaluation["floors"]}
    assert floors["majority class"]["balanced_accuracy"]["value"] == pytest.approx(1 / 3)
    assert 0.2 < floors["random neighbors"]["balanced_accuracy"]["value"] < 0.45
    assert floors["32×32 grey thumbnail"]["accuracy"]["value"] > floors["majority class"]["accuracy"]["value"]
    assert "one source" in floors["source oracle"]["not_available"]
    assert evaluation["index"]["recall_at_10"] == 1.0
    # Everything that the page shows is in it.
    assert "Research use only" in page and "data:image/png;base64," in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page) and "@import" not in page


def test_patients_are_kept_apart(shared, model, tmp_path):
    data = shared / "nih-normal-pneumonia"
    medsearch("embed", "--data", data, "--out", tmp_path / "embeddings", "--model", model)
    evaluation, _, text = evaluate(tmp_path, "--embeddings", tmp_path / "embeddings", *BY_NUMPY)
    print(text)
    rows = unit_rows(tmp_path / "embeddings")
    apart, together = by_numpy(*rows), by_numpy(*rows, exclude_patient=False)
    assert evaluation["decisions"]["balanced_accuracy"]["value"] == pytest.approx(apart["balanced_accuracy"], abs=1e-9)
    guarded, with_patients = evaluation["leakage"][:2]
    assert guarded["balanced_accuracy"]["value"] == pytest.approx(apart["balanced_accuracy"], abs=1e-9)
    assert with_patients["balanced_accuracy"]["value"] == pytest.approx(together["balanced_accuracy"], abs=1e-9)
    assert with_patients["precision_at_1"]["value"] == pytest.approx(together["P@1"], abs=1e-9)
    protocol = evaluation["protocol"]
    assert protocol["groups"] < protocol["images"] == protocol["images_with_patient"]
    for level in evaluation["prediction_sets"]:
        assert level["level"] - 0.05 < level["mean_class_coverage"] < 1.0

    folds, _, _ = evaluate(
        tmp_path, "--embeddings", tmp_path / "embeddings", "--folds", 5, "--seeds", 3, "--resamples", 200, *BY_NUMPY
    )
    assert folds["protocol"]["seeds"] == [0, 1, 2]
    assert abs(folds["decisions"]["balanced_accuracy"]["value"] - apart["balanced_accuracy"]) < 0.05
    halves, _, _ = evaluate(
        tmp_path, "--embeddings", tmp_path / "embeddings", "--folds", 2, "--seeds", 2, "--resamples", 100, *BY_NUMPY
    )
    for level in halves["prediction_sets"]:
        assert level["level"] - 0.06 < level["mean_class_coverage"] < 1.0
    assert "no pictures" in next(f for f in folds["floors"] if f["name"].startswith("32"))["figures"]["not_available"]


def test_a_metric_learned_from_others_is_better_than_none(three_class, tmp_path):
    _, embeddings, _ = three_class
    arguments = (
        "--embeddings",
        embeddings,
        "--folds",
        5,
        "--seeds",
        2,
        "--resamples",
        100,
        "-k",
        15,
        "--vote",
        "prior",
    )
    evaluation, page, text = evaluate(tmp_path, *arguments, "--learn")
    print(text)
    raw, _, _ = evaluate(tmp_path, *arguments)
    name = f"{embeddings.name}, nothing learned"
    beside = next(less["figures"] for less in evaluation["less_learned"] if less["name"] == name)
    assert beside["balanced_accuracy"] == raw["decisions"]["balanced_accuracy"]
    gain = evaluation["decisions"]["balanced_accuracy"]["value"] - beside["balanced_accuracy"]["value"]
    assert 0.02 < gain < 0.12, gain
    chosen = evaluation["protocol"]["metric"]["chosen"]
    assert sum(choice["training_sets"] for choice in chosen) == 10
    assert {choice["space"] for choice in chosen} == {embeddings.name}
    assert "within-class whitening" in page

    # The same vectors again can't be better, and other images are no space of these.
    again = tmp_path / "again"
    again.symlink_to(embeddings)
    twice, _, _ = evaluate(tmp_path, *arguments, "--learn", "--candidate", again)
    assert twice["decisions"]["balanced_accuracy"] == evaluation["decisions"]["balanced_accuracy"]
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for description in sorted(embeddings.glob("[!_]*.json")):
        whole = json.loads(description.read_text())
        whole["records"] = whole["records"][1:]
        whole.pop("vectors_sha256", None)
        (fewer / description.name).write_text(json.dumps(whole))
        np.save(fewer / f"{description.stem}.npy", np.load(embeddings / f"{description.stem}.npy")[1:])
    run = medsearch("evaluate", *arguments, "--learn", "--candidate", fewer, check=False)
    assert run.returncode == 1 and "lacks some of the images" in run.stderr


def test_queries_and_strangers_of_their_own(three_class, synthetic, model, tmp_path):
    _, embeddings, archive = three_class
    queries, strangers = tmp_path / "queries", tmp_path / "strangers"
    medsearch("embed", "--data", synthetic, "--out", strangers, "--model", model)
    queries.mkdir()
    for description in sorted(embeddings.glob("[!_]*.json")):
        whole = json.loads(description.read_text())
        whole["records"] = whole["records"][::7]
        whole.pop("vectors_sha256", None)
        (queries / description.name).write_text(json.dumps(whole))
        np.save(queries / f"{description.stem}.npy", np.load(embeddings / f"{description.stem}.npy")[::7])
    evaluation, _, _ = evaluate(
        tmp_path, "--archive", archive, "--queries", queries, "--outside", strangers, "--resamples", 100
    )
    # The queries are in the archive, known there by pixels and here by files: none finds itself.
    assert micro(evaluation, "P@1") < 0.95
    assert any("no picture to compare" in note for note in evaluation["notes"])
    protocol = evaluation["protocol"]
    assert protocol["queries"] < 45 and protocol["images"] > 240 and "separate set" in protocol["split"]
    families = evaluation["outside"]
    assert families and all(family["auroc"] > 0.9 for family in families), families


def test_what_can_not_be_evaluated_is_said(synthetic, tmp_path):
    run = medsearch("evaluate", "--embeddings", tmp_path / "none", check=False)
    assert run.returncode == 1 and "none" in run.stderr
    run = medsearch("evaluate", check=False)
    assert run.returncode == 2 and "--archive" in run.stderr
    run = medsearch("evaluate", "--embeddings", tmp_path, "--html", tmp_path / "none/e.html", check=False)
    assert run.returncode == 1 and "no such folder" in run.stderr
    one = tmp_path / "one"
    (one / "COVID").mkdir(parents=True)
    for image in sorted((synthetic / "COVID").iterdir())[:3]:
        (one / "COVID" / image.name).write_bytes(image.read_bytes())
    medsearch("embed", "--data", one, "--out", tmp_path / "vectors", "--model", "thumbnail")
    run = medsearch("evaluate", "--embeddings", tmp_path / "vectors", check=False)
    assert run.returncode == 1 and "two classes" in run.stderr
