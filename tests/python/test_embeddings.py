"""calculate_embeddings.py: layouts, metadata, broken images, batches, and a kill in the middle."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from openpyxl import Workbook

from conftest import SCRIPTS, script
from medsearch_py import model, pixels
from medsearch_py.card import CardError
from medsearch_py.dataset import Dataset, DatasetError, class_root
from medsearch_py.metadata import XLSX_BYTES_MAX, Metadata

CLASSES = ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"]


def embed(data, out, model_folder="thumbnail", expect=0, **options):
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return script("calculate_embeddings", "--data", data, "--out", out, "--model", model_folder, *flags, expect=expect)


def read(out, name):
    described = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    vectors = np.load(out / f"{name}.npy")
    assert vectors.dtype == np.float32
    assert len(vectors) == len(described["records"])
    return vectors, described


def test_interchange_form(synthetic, lite0, tmp_path):
    embed(synthetic, tmp_path / "out", lite0, batch=5)
    card = json.loads((lite0 / "model.json").read_text())
    rows = {row["file"]: row for row in csv.DictReader((synthetic / "metadata.csv").open())}
    seen = []
    for name in CLASSES:
        vectors, described = read(tmp_path / "out", name)
        assert list(described) == ["format", "space", "provenance", "class", "vectors_sha256", "records"]
        assert described["class"] == name
        assert described["space"]["id"] == card["space"]
        assert described["provenance"]["model"] == "efficientnet_lite0"
        files = [record["file"] for record in described["records"]]
        assert files == sorted(files, key=str.encode)
        seen += files
        for record in described["records"]:
            assert record["id"] == record["sha256"][:32]
            assert record["label_source"] == "folder"
            for field in ("patient_id", "sex", "age", "view", "source"):
                assert record[field] == rows[record["file"]][field]
        loaded = model.load_model(str(lite0), "cpu")
        for vector, record in zip(vectors, described["records"], strict=True):
            size = card["input"]["width"]
            image = pixels.prepare((synthetic / record["file"]).read_bytes(), size, size).input
            single = loaded.embed([image])[0]
            assert single @ vector / np.linalg.norm(single) / np.linalg.norm(vector) >= 0.99999
    assert sorted(seen) == sorted(rows)
    assert not (tmp_path / "out" / ".partial").exists()


def test_kaggle_outer_inner_and_zip_are_the_same(synthetic, tmp_path):
    tree, archive = tmp_path / "tree", tmp_path / "tree.zip"
    script("make_kaggle_tree", "--from", synthetic, "--out", tree, "--images", 24, "--zip", archive)
    inner = tree / "COVID-19_Radiography_Dataset"
    results = []
    for data in (tree, inner, archive):
        out = tmp_path / f"out-{len(results)}"
        done = embed(data, out)
        assert "rows name no image" not in done.stderr
        results.append([(read(out, name)[0].tobytes(), read(out, name)[1]) for name in CLASSES])
    assert results[0] == results[1] == results[2]
    _, described = read(tmp_path / "out-0", "Normal")
    assert described["records"][0]["file"] == "Normal/images/Normal-1.png"
    assert all(record["source"].startswith("https://") for record in described["records"])


def test_unmatched_rows_are_counted(synthetic, tmp_path):
    tree = tmp_path / "tree"
    script("make_kaggle_tree", "--from", synthetic, "--out", tree, "--images", 24)
    (tree / "COVID-19_Radiography_Dataset" / "Normal" / "images" / "Normal-2.png").unlink()
    assert "Normal.metadata.xlsx: 1 rows name no image" in embed(tree, tmp_path / "out").stderr


def test_a_cell_far_out_and_an_endless_sheet_cost_nothing(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "A-1.png").write_bytes(b"")
    document = tmp_path / "A.metadata.xlsx"
    book = Workbook()
    book.active.append(["FILE NAME", "URL"])
    book.active.append(["A-1", "https://example.org"])
    book.active.cell(1_048_576, 16_384, "far out")
    book.save(document)
    assert Metadata(Dataset(tmp_path)).sources == {"A/A-1.png": "https://example.org"}
    with zipfile.ZipFile(document, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("xl/sharedStrings.xml", b" " * (XLSX_BYTES_MAX + 1))
    with pytest.raises(DatasetError, match=r"A.metadata.xlsx.*inflates"):
        Metadata(Dataset(tmp_path))


def test_class_root():
    assert class_root(["A/1.png", "B/2.png"]) == ""
    assert class_root(["A/images/1.png", "A/masks/1.png"]) == ""
    assert class_root(["A/1.png"]) == ""
    assert class_root(["outer/A/1.png", "outer/B/images/2.png", "outer/README.md.txt"]) == "outer/"
    assert class_root(["archive/outer/A/images/1.png", "archive/outer/B/images/1.png"]) == "archive/outer/"
    assert class_root(["outer/A/1.png", "loose.png"]) == ""


def test_metadata_wins_and_unlabelled_stay_so(tmp_path, golden):
    data = tmp_path / "data"
    (data / "A b").mkdir(parents=True)
    for name in ("grey-8.png", "mono2-12.dcm", "rgb-444.jpg"):
        shutil.copy(golden / name, data / "A b" / name)
    shutil.copy(golden / "rgb-8.png", data / "loose.png")
    for ignored in (".hidden.png", "Thumbs.db", "notes.txt", "README"):
        (data / "A b" / ignored).write_text("x")
    (data / "metadata.csv").write_text(
        "file,class,projection,split,scanner,patient_id,age\n"
        "A b/mono2-12.dcm,,AP,test,X1,p7,\n"
        "A b/grey-8.png,Other,,,,,61\n"
        "missing.png,Other,,,,,\n",
        encoding="utf-8-sig",
    )
    done = embed(data, tmp_path / "out")
    assert "metadata.csv: 1 rows name no image" in done.stderr
    _, plain = read(tmp_path / "out", "A b")
    by_file = {record["file"]: record for record in plain["records"]}
    assert sorted(by_file) == ["A b/mono2-12.dcm", "A b/rgb-444.jpg"]
    record = by_file["A b/mono2-12.dcm"]
    assert record["view"] == "AP"
    assert record["patient_id"] == "p7"
    assert record["issuer"] == "TEST"
    assert record["age"] == "45"
    assert record["tags"] == {"modality": "DX", "body_part": "CHEST", "split": "test", "scanner": "X1"}
    _, other = read(tmp_path / "out", "Other")
    assert other["records"][0]["age"] == "61"
    assert "label_source" not in other["records"][0]
    _, unlabelled = read(tmp_path / "out", "_unlabelled")
    assert unlabelled["class"] is None
    assert unlabelled["records"][0]["file"] == "loose.png"


def test_broken_images_are_named_and_skipped(tmp_path, golden):
    data = tmp_path / "data" / "A"
    data.mkdir(parents=True)
    for name in ("grey-8.png", "truncated.png", "constant.png", "words.png", "grey.jpg"):
        shutil.copy(golden / name, data / name)
    done = embed(tmp_path / "data", tmp_path / "out", expect=3)
    broken = json.loads((tmp_path / "out" / "_broken.json").read_text())
    assert {item["file"]: item["type"] for item in broken} == {
        "A/constant.png": "constant-image",
        "A/truncated.png": "invalid-image",
        "A/words.png": "unsupported-media",
    }
    for item in broken:
        assert item["file"] in done.stderr
    assert len(read(tmp_path / "out", "A")[0]) == 2
    for item in broken:
        (tmp_path / "data" / item["file"]).unlink()
    embed(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out" / "_broken.json").exists()


def test_frames_become_images(tmp_path, golden):
    """Each is a record of its own, named by file and frame; the first goes without saying."""
    data = tmp_path / "data" / "A"
    data.mkdir(parents=True)
    for name in ("bits-frames.dcm", "mono2-12.dcm", "grey-8.png"):
        shutil.copy(golden / name, data / name)
    found = {}
    for frames in pixels.FRAMES:
        embed(tmp_path / "data", tmp_path / frames, frames=frames)
        vectors, described = read(tmp_path / frames, "A")
        records = described["records"]
        assert len({record["id"] for record in records}) == len(records)
        found[frames] = [(record["file"], record.get("frame")) for record in records]
        for vector, record in zip(vectors, records, strict=True):
            content = (tmp_path / "data" / record["file"]).read_bytes()
            image = pixels.prepare(content, 32, 32, frame=record.get("frame", 1)).input
            assert np.array_equal(model.load_model("thumbnail", "cpu").embed([image])[0], vector)
            assert record["sha256"] == hashlib.sha256(content).hexdigest()
    others = [("A/grey-8.png", None), ("A/mono2-12.dcm", None)]
    assert found["first"] == [("A/bits-frames.dcm", None), *others]
    assert found["middle"] == [("A/bits-frames.dcm", 2), *others]
    assert found["all"] == [*(("A/bits-frames.dcm", frame) for frame in (None, 2, 3)), *others]


def test_goes_on_after_a_kill(synthetic, tmp_path):
    """kill -9 in the middle: the second run embeds only what no part holds, and the result is the same."""
    tree = tmp_path / "tree"
    script("make_kaggle_tree", "--from", synthetic, "--out", tree, "--images", 1500)
    embed(tree, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [
        sys.executable,
        SCRIPTS / "calculate_embeddings.py",
        "--data",
        tree,
        "--out",
        out,
        "--model",
        "thumbnail",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob(".partial/*/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    parts = list(out.glob(".partial/*/*.json"))
    assert 2 <= len(parts) < 6
    assert not list(out.glob("*.npy"))
    done = embed(tree, out)
    assert f"{256 * len(parts)} of 1500 images are embedded already" in done.stderr
    for name in CLASSES:
        ours, theirs = read(out, name), read(tmp_path / "whole", name)
        assert ours[0].tobytes() == theirs[0].tobytes()
        assert ours[1] == theirs[1]


def test_changed_files_are_embedded_again(tmp_path):
    """A part holds a file by path, size and time."""
    from medsearch_py.dataset import Entry
    from medsearch_py.parts import Parts

    parts = Parts(tmp_path, "space")
    entry = Entry("A/1.png", "A", 10, 20)
    parts.add([entry], [{"sha256": "x", "facts": {}}], np.ones((1, 3)))
    again = Parts(tmp_path, "space")
    assert again.holds(entry)
    assert not again.holds(replace(entry, frame=2))
    again.add([replace(entry, frame=2)], [{"sha256": "x", "facts": {}}], np.zeros((1, 3)))
    both = Parts(tmp_path, "space")
    assert [vector[0] for vector in both.vectors([entry, replace(entry, frame=2)])] == [1, 0]
    assert not again.holds(Entry("A/1.png", "A", 10, 21))
    assert not Parts(tmp_path, "another space").holds(entry)


def test_usage_errors(synthetic, tmp_path):
    assert "neither a folder nor a zip" in embed(tmp_path / "none", tmp_path / "out", expect=1).stderr
    (tmp_path / "empty").mkdir()
    assert "no images" in embed(tmp_path / "empty", tmp_path / "out", expect=1).stderr
    assert "no model card" in embed(synthetic, tmp_path / "out", tmp_path, expect=1).stderr
    with pytest.raises(CardError):
        model.load_model(str(tmp_path))


def test_documents_are_read_before_the_first_image(synthetic, tmp_path):
    """What an archive would not take is refused before anything is embedded."""
    data = tmp_path / "data"
    shutil.copytree(synthetic, data)
    file = next(data.rglob("*.png")).relative_to(data).as_posix()
    (data / "metadata.csv").write_text(f"file,label_source\n{file},histology\n")
    assert "label_source `histology` is none of" in embed(data, tmp_path / "out", expect=1).stderr
    (data / "metadata.csv").write_text(f"file,label_source\n{file},pcr\n")
    embed(data, tmp_path / "out", limit=1)
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0


def test_vectors_and_records_name_each_other(synthetic, tmp_path):
    embed(synthetic, tmp_path / "out", limit=3)
    vectors, described = read(tmp_path / "out", "COVID")
    assert described["format"] == 1
    assert described["vectors_sha256"] == hashlib.sha256(vectors.tobytes()).hexdigest()


def test_limit_and_damaged_zip(synthetic, tmp_path):
    embed(synthetic, tmp_path / "out", limit=3)
    assert len(read(tmp_path / "out", "COVID")[0]) == 3
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(synthetic.rglob("*.png")):
            archive.write(file, file.relative_to(synthetic).as_posix())
        victim = archive.infolist()[0]
    data = bytearray(path.read_bytes())
    data[victim.header_offset + 200] ^= 0xFF
    path.write_bytes(data)
    embed(path, tmp_path / "zipped", expect=3)
    broken = json.loads((tmp_path / "zipped" / "_broken.json").read_text())
    assert [item["file"] for item in broken] == [victim.filename]
