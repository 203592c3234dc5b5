"""`medsearch duplicates`: the same picture twice, however it was changed in between."""

import json
import shutil

from conftest import medsearch, script


def duplicates(tmp_path, archive, *arguments):
    run = medsearch(
        "duplicates", "--archive", archive, "--json", tmp_path / "d.json", "--html", tmp_path / "d.html", *arguments
    )
    return json.loads((tmp_path / "d.json").read_text()), (tmp_path / "d.html").read_text(), run.stdout


def test_those_of_the_real_set_are_found(three_class, tmp_path):
    _, _, archive = three_class
    found, page, text = duplicates(tmp_path, archive)
    print(text)
    # Three pairs of equal files are one image each since they were indexed.
    assert found["further_files"] == 3 and found["without_picture"] == 0
    files = [sorted(image["file"] for image in cluster["images"]) for cluster in found["clusters"]]
    assert ["COVID/COVID-00033.jpg", "COVID/COVID-00037.jpg"] in files
    assert len(files) <= 3 and not any(cluster["label_conflict"] for cluster in found["clusters"])
    assert page.count("<article") == len(files) and "data:image/png;base64," in page


def test_a_copy_under_another_class_is_named_first(synthetic, tmp_path):
    from PIL import Image

    data = tmp_path / "data"
    shutil.copytree(synthetic, data)
    original = sorted((data / "COVID").iterdir())[0]
    small = Image.open(original)
    small.resize((small.width * 2 // 3, small.height * 2 // 3)).save(data / "Normal" / "copy.jpg", quality=70)
    where = ("--embeddings", tmp_path / "vectors", "--data", data, "--model", "thumbnail")
    medsearch("embed", "--data", data, "--out", tmp_path / "vectors", "--model", "thumbnail")
    medsearch("index", *where, "--archive", tmp_path / "archive", "--show-file-names")
    found, _, text = duplicates(tmp_path, tmp_path / "archive")
    # Drawn films are alike: others may be taken for copies too.
    conflicts = [cluster["label_conflict"] for cluster in found["clusters"]]
    assert conflicts == sorted(conflicts, reverse=True) and conflicts[0]
    images = next(c["images"] for c in found["clusters"] if "Normal/copy.jpg" in [i["file"] for i in c["images"]])
    assert f"COVID/{original.name}" in [image["file"] for image in images]
    assert text.startswith("DIFFERENT CLASSES: ")

    # What `index` remembers is what is found among all, and what `--collapse` makes of an archive indexed without.
    def remembered(archive):
        text = b"".join(path.read_bytes() for path in (archive / "rows").iterdir())
        return text.count(b'"near_identical_to"')

    links = sum(len(cluster["images"]) - 1 for cluster in found["clusters"])
    assert remembered(tmp_path / "archive") == links > 0
    later = tmp_path / "later"
    medsearch("index", *where, "--archive", later, "--show-file-names", "--no-near-identical")
    assert remembered(later) == 0
    _, _, text = duplicates(tmp_path, later, "--collapse")
    assert "version 3 of the archive remembers" in text and remembered(later) == links
    _, _, text = duplicates(tmp_path, later, "--collapse")
    assert "version 3 of the archive" in text, "nothing new"

    medsearch("index", *where[:2], "--model", "thumbnail", "--archive", tmp_path / "blind")
    found, _, _ = duplicates(tmp_path, tmp_path / "blind")
    assert found["clusters"] == [] and found["without_picture"] == found["images"]
    run = medsearch("duplicates", "--archive", tmp_path / "blind", "--similarity-min", "2", check=False)
    assert run.returncode == 1 and "from 0 to 1" in run.stderr


def test_changed_copies_of_real_films_are_found(shared, tmp_path):
    data = shared / "cxr-three-class"
    script(
        "measure_duplicates.py", "--data", data, "--count", 12, "--model", "thumbnail", "--work", tmp_path / "work",
        "--json", tmp_path / "figures.json",
    )  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    for half in ("one_half", "other_half"):
        at_default = next(at for at in figures[half] if at["bound"] == 0.8)
        print(half, at_default)
        assert at_default["recall"] >= 0.95 and at_default["precision"] >= 0.95
