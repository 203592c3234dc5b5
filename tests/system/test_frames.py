"""Frames of DICOM files: each an image of its own, from the file into the archive, to another model, and out again."""

import json
import shutil

from conftest import medsearch, script

FRAMES = {"bits-frames.dcm": 3, "mono2-12-frames-deflated.dcm": 2, "mono2-8-frames.dcm": 3}


def test_frames_go_in_are_found_and_come_out(tmp_path, model):
    golden, data, embeddings, archive = (tmp_path / name for name in ("golden", "data", "embeddings", "archive"))
    script("make_golden.py", "--out", golden)
    (data / "A").mkdir(parents=True)
    for name in FRAMES:
        shutil.copy(golden / name, data / "A" / name)
    medsearch("embed", "--data", data, "--out", embeddings, "--model", "thumbnail", "--frames", "all")
    records = json.loads((embeddings / "A.json").read_text())["records"]
    images = [(f"A/{name}", frame) for name in sorted(FRAMES) for frame in range(1, FRAMES[name] + 1)]
    assert [(record["file"], record.get("frame", 1)) for record in records] == images

    # Thumbnails alone are kept: another model needs the files, and every frame in them.
    keep = ("--retention", "thumbnail", "--show-file-names")
    medsearch("index", "--embeddings", embeddings, "--data", data, "--archive", archive, "--model", "thumbnail", *keep)

    def check():
        for file, frame in images:
            asked = ("--archive", archive, data / file, "--frame", frame, "--include-same", "--json")
            nearest = json.loads(medsearch("search", *asked).stdout)["neighbors"][0]
            assert (nearest["record"]["file"], nearest["record"].get("frame", 1)) == (file, frame)
            assert nearest["similarity"] > 0.9999

    check()
    medsearch("export", "--archive", archive, "--out", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "A.json").read_text())["records"] == records
    moved = medsearch("reembed", "--archive", archive, "--model", model, "--data", data)
    assert f"{len(images)} images embedded" in moved.stdout
    check()
