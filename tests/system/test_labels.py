"""Labels of what is pushed, and frames of it, by the command line: rules, the labels file, kill -9 between frames."""

import time

import numpy as np
import pytest

from conftest import medsearch
from pacs import dicom, file_of
from test_inbox import stow, until_empty, until_there

STUDY = "1.2.826.0.1.77"
FRAMES = 40
RULES = """
[[rule]]
class = "Normal"
label_source = "report"
modality = ["DX"]
study_description = ["*no finding*"]
"""


def pushed(number, study, description):
    """A file of a study of its own."""
    data = dicom(number, patient=f"P{number}", study=study, series=f"{study}.1")
    data.StudyDescription = description
    return file_of(data)


def loop(frames):
    """A file of so many frames; no two are alike."""
    data = dicom(1, patient="P-loop", study=f"{STUDY}.9", series=f"{STUDY}.9.1")
    data.NumberOfFrames = frames
    pixels = np.random.default_rng(7).integers(0, 4096, (frames, 96, 96), dtype=np.uint16)
    data.PixelData = pixels.tobytes()
    return file_of(data)


def classes(server):
    """Images of each class."""
    return {entry["name"]: entry["images"] for entry in server.get("/v1/classes")["classes"]}


def until_classes(server, expected):
    """Waits for so many more of classes."""
    end = time.monotonic() + 20
    while not expected.items() <= classes(server).items():
        assert time.monotonic() < end, classes(server)
        time.sleep(0.1)


def test_labels_by_rules_and_by_file(small_archive, serve, tmp_path):
    rules, labels, log = tmp_path / "rules.toml", tmp_path / "labels.csv", tmp_path / "log"
    rules.write_text(RULES)
    rules.write_text(RULES.replace("Normal", "Normall"))
    mistyped = medsearch("labels", "--archive", small_archive, "--rules", rules).stdout
    assert mistyped == "rules: 1\nnew here: no image has the class `Normall`\n"
    rules.write_text(RULES)
    assert medsearch("labels", "--archive", small_archive, "--rules", rules).stdout == "rules: 1\n"
    labels.write_text(f"study_uid,class,label_source\n{STUDY}.2,COVID,PCR\n")
    labels.chmod(0o600)
    server = serve(small_archive, "--model", "thumbnail", "--labels-file", labels, log=log)
    before, base = classes(server), server.get("/v1/archive")["images"]
    files = [
        pushed(1, f"{STUDY}.1", "Chest: NO FINDING"),
        pushed(2, f"{STUDY}.2", "no finding"),
        pushed(3, f"{STUDY}.3", "chest"),
    ]
    assert stow(server, files)[0] == 200
    until_there(server, base + 3)
    expected = {"Normal": before.get("Normal", 0) + 1, "COVID": before.get("COVID", 0) + 1}
    until_classes(server, expected)

    # The third is named later; a broken file in between changes nothing.
    labels.write_text(f"study_uid,class\n{STUDY}.3,\n")
    end = time.monotonic() + 20
    while "line 2: class name" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.2)
    labels.write_text(f"study_uid,class\n{STUDY}.3,COVID\n{STUDY}.8,COVID\n")
    said = medsearch("labels", "--archive", small_archive, "--apply", labels).stdout
    assert said.startswith("1 images matched: 1 changed, ") and said.endswith("1 of 2 UIDs name nothing here\n"), said
    until_classes(server, {**expected, "COVID": expected["COVID"] + 1})
    server.stop()
    medsearch("verify", "--archive", small_archive)
    kept = b"".join(path.read_bytes() for path in small_archive.rglob("*") if path.is_file()) + log.read_bytes()
    for text in (STUDY, "NO FINDING"):
        assert text.encode() not in kept, text
    # With a broken file it does not start.
    labels.write_text(f"study_uid,class\n{STUDY}.3,\n")
    refused = medsearch("serve", "--archive", small_archive, "--labels-file", labels, check=False)
    assert refused.returncode == 1 and "line 2: class name" in refused.stderr and STUDY not in refused.stderr


def test_kill_9_between_frames_loses_none_and_doubles_none(small_archive, serve):
    """The server is killed again and again while the frames of one file become images."""
    start = lambda: serve(small_archive, "--model", "thumbnail", "--frames", "all")  # noqa: E731
    server = start()
    base = server.get("/v1/archive")["images"]
    file = loop(FRAMES)
    assert stow(server, [file])[0] == 200
    kills, met = 0, set()
    while kills < 8:
        end = time.monotonic() + 20
        while (images := server.get("/v1/archive")["images"] - base) in met and images < FRAMES:
            assert time.monotonic() < end
        met.add(images)
        if images == FRAMES:
            break
        server.kill()
        kills += 1
        server = start()
    assert kills > 1, "it was too fast to be killed between frames"
    until_there(server, base + FRAMES)
    until_empty(small_archive)
    assert stow(server, [file])[0] == 202
    until_there(server, base + FRAMES)
    instance = f"/dicom-web/studies/{STUDY}.9/series/{STUDY}.9.1/instances/{STUDY}.9.1.1"
    (data,) = server.get(f"{instance}/metadata")
    assert data["00280008"]["Value"] == [FRAMES]
    # Each under its number.
    for number in (1, FRAMES // 2, FRAMES):
        status, found = server.post_image("/v1/search", file, frame=number, exclude="none", k=1)
        assert status == 200 and found["neighbors"][0]["record"].get("frame", 1) == number
    medsearch("verify", "--archive", small_archive)
    print(f"{kills} kills between {FRAMES} frames")


@pytest.mark.parametrize("frames, number", [("middle", 2), ("3", 3), ("9", 3)])
def test_one_frame_is_chosen(frames, number, small_archive, serve):
    server = serve(small_archive, "--model", "thumbnail", "--frames", frames)
    base = server.get("/v1/archive")["images"]
    file = loop(3)
    assert stow(server, [file])[0] == 200
    until_there(server, base + 1)
    status, found = server.post_image("/v1/search", file, frame=number, exclude="none", k=1)
    assert status == 200 and found["neighbors"][0]["record"].get("frame", 1) == number
