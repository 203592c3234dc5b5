"""An Orthanc is followed by its changes: every image is in the archive once, whoever was killed or restarted."""

import json
import re
import time
import urllib.request

import pytest

from conftest import medsearch
from pacs import ENTRY, Orthanc, dicom, file_of

PATIENCE_S = 60
PATIENT, UID = "PAT-4711-DOE", "1.2.826.0.4711"


@pytest.fixture
def orthanc(tmp_path):
    """One that is stopped after the test."""
    server = Orthanc(tmp_path / "orthanc")
    yield server
    if server.process.poll() is None:
        server.stop()


def series(server, name):
    """Values of a series at /metrics, by its labels."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as metrics:
        lines = metrics.read().decode().splitlines()
    found = (re.fullmatch(rf"{name}{{(.*)}} (\S+)", line) for line in lines)
    return {match[1]: float(match[2]) for match in found if match}


def eventually(check, what):
    """Waits until it holds."""
    end = time.monotonic() + PATIENCE_S
    while not (found := check()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return found


def test_every_image_is_there_once_across_kills_and_restarts(orthanc, small_archive, serve, tmp_path):
    (tmp_path / "basic").write_text(f"medsearch:{ENTRY}\n")
    (tmp_path / "pacs.toml").write_text(
        f'[[orthanc]]\nname = "front"\nurl = "{orthanc.url}"\nbasic_file = "basic"\nfollow = true\n'
    )
    log = tmp_path / "log"

    def start():
        return serve(small_archive, "--model", "thumbnail", "--pacs-file", tmp_path / "pacs.toml", log=log)

    files = [
        file_of(dicom(seed, patient=f"{PATIENT}-{seed}", study=f"{UID}.{seed}", series=f"{UID}.{seed}.1"))
        for seed in range(40)
    ]
    first = start()
    before = first.get("/v1/archive")["images"]
    for file in files[:15]:
        orthanc.store(file)
    # Something that has come: it was followed this far, or is about to be.
    eventually(lambda: first.get("/v1/archive")["images"] > before, "nothing comes")
    first.kill()
    for file in files[15:25]:
        orthanc.store(file)
    # What was deleted before it was fetched does not stop what comes after it.
    gone = orthanc.store(file_of(dicom(99, patient="gone", study=f"{UID}.99", series=f"{UID}.99.1")))
    orthanc.ask(f"/instances/{gone}", method="DELETE")
    second = start()
    third = start()
    for file in files[25:30]:
        orthanc.store(file)
    eventually(lambda: images(second) == before + 30, "it is not followed after a kill")
    followed = [series(server, "medsearch_orthanc_followed") for server in (second, third)]
    assert sorted(sum(values.values()) for values in followed) == [0, 1], "one of two follows"

    orthanc.stop()
    time.sleep(3)
    orthanc.start()
    for file in [*files[30:], *files[:3]]:
        orthanc.store(file)
    eventually(lambda: images(second) == before + 40, "it is not followed after a restart")
    # Whoever follows stops, and says so: the other goes on at once.
    active = second if sum(series(second, "medsearch_orthanc_followed").values()) else third
    other = third if active is second else second
    active.stop()
    started = time.monotonic()
    orthanc.store(file_of(dicom(77, patient="late", study=f"{UID}.77", series=f"{UID}.77.1")))
    eventually(lambda: images(other) == before + 41, "the other does not go on")
    assert time.monotonic() - started < 15, "it waited for the bookmark to stand still"
    eventually(lambda: list(series(other, "medsearch_orthanc_lag").values()) == [0], "the lag does not end")
    # Each of them is known by its file: sent again it is no new image.
    for seed in (0, 14, 15, 24, 29, 39):
        status, answer = other.post_image("/v1/images", files[seed])
        assert (status, answer["outcome"]) == (200, "duplicate"), answer
    told = log.read_text()
    assert not [secret for secret in (PATIENT, UID, ENTRY) if secret in told]


def images(server):
    """Images of the archive, as this server serves it."""
    return server.get("/v1/archive")["images"]


def found(server, uid):
    """How many instances of this UID are found."""
    query = f"/dicom-web/instances?SOPInstanceUID={uid}"
    request = urllib.request.Request(server.url + query, headers={"Accept": "application/dicom+json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
    return len(json.loads(body)) if body else 0


def sweeps(server, outcome):
    """Sweeps that ended so."""
    return series(server, "medsearch_orthanc_sweeps_total").get(f'orthanc="front",outcome="{outcome}"', 0)


def another_sweep(server, outcome="done"):
    """Waits for two that ended so: the first may have begun before."""
    before = sweeps(server, outcome)
    eventually(lambda: sweeps(server, outcome) >= before + 2, f"no sweep is {outcome}")


def test_what_orthanc_deletes_is_deleted_and_an_orthanc_without_its_disk_deletes_nothing(
    orthanc, small_archive, serve, tmp_path
):
    (tmp_path / "basic").write_text(f"medsearch:{ENTRY}\n")
    # A study is a quarter of what there is.
    (tmp_path / "pacs.toml").write_text(
        f'[[orthanc]]\nname = "front"\nurl = "{orthanc.url}"\nbasic_file = "basic"\nfollow = true\n'
        "follow_deletions = true\ndeletions_every_seconds = 1\ndeletions_percent_max = 60\n"
    )
    log = tmp_path / "log"
    audit = tmp_path / "audit"
    options = ("--model", "thumbnail", "--pacs-file", tmp_path / "pacs.toml", "--audit-dir", audit)
    server = serve(small_archive, *options, log=log)
    before = images(server)
    names = {}

    def store(seed, study, number, patient="P"):
        file = dicom(
            seed, patient=f"{PATIENT}-{patient}", study=f"{UID}.{study}", series=f"{UID}.{study}.1", number=number
        )
        uid = str(file.SOPInstanceUID)
        names[uid] = orthanc.store(file_of(file))
        return uid

    def delete(path):
        orthanc.ask(path, method="DELETE")

    # Four studies of three; the pixels of one instance are of another, too.
    uids = [store(study * 10 + number, study, number) for study in range(4) for number in range(1, 4)]
    twin = store(1, 7, 1)
    eventually(lambda: images(server) == before + 12, "they are not taken over")
    eventually(lambda: found(server, twin) == 1, "the twin is no file of the image")

    # An instance, and a study.
    delete(f"/instances/{names[uids[-1]]}")
    eventually(lambda: found(server, uids[-1]) == 0 and images(server) == before + 11, "a deleted instance is found")
    study = orthanc.ask(f"/instances/{names[uids[5]]}/study")["ID"]
    delete(f"/studies/{study}")
    eventually(lambda: images(server) == before + 8, "a deleted study is found")
    assert [found(server, uid) for uid in uids[3:6]] == [0, 0, 0]
    # The image has another file: only this one goes.
    delete(f"/instances/{names[uids[0]]}")
    eventually(lambda: found(server, uids[0]) == 0, "a deleted file is found")
    assert (found(server, twin), images(server)) == (1, before + 8)
    # Sent again it is meant.
    back = store(39, 3, 3)
    assert back == uids[-1]
    eventually(lambda: found(server, back) == 1 and images(server) == before + 9, "it does not come back")

    # Killed after the deletion, before the sweep: the next server sees it.
    server.kill()
    delete(f"/instances/{names[uids[1]]}")
    server = serve(small_archive, *options, log=log)
    eventually(lambda: found(server, uids[1]) == 0 and images(server) == before + 8, "a deletion is forgotten")

    # Orthanc away.
    orthanc.stop()
    time.sleep(4)
    assert images(server) == before + 8
    orthanc.start()
    another_sweep(server)
    assert images(server) == before + 8

    # Orthanc without its disk: nothing goes, somebody is told, and it ends when the disk is back.
    orthanc.stop()
    (tmp_path / "orthanc").rename(tmp_path / "unmounted")
    orthanc.start()
    another_sweep(server, "refused")
    assert images(server) == before + 8
    assert series(server, "medsearch_orthanc_deletions_refused") == {'orthanc="front"': 8}
    said = medsearch("deletions", "--archive", small_archive).stdout
    assert "front: the instances of 8 of 8 images" in said and "--confirm front --images 8" in said, said
    orthanc.stop()
    (tmp_path / "orthanc").rename(tmp_path / "empty")
    (tmp_path / "unmounted").rename(tmp_path / "orthanc")
    orthanc.start()
    another_sweep(server)
    assert images(server) == before + 8
    assert series(server, "medsearch_orthanc_deletions_refused") == {'orthanc="front"': 0}
    assert "no deletions wait" in medsearch("deletions", "--archive", small_archive).stdout
    early = medsearch("deletions", "--archive", small_archive, "--confirm", "front", "--images", 8, check=False)
    assert early.returncode == 1 and "no deletions of `front` wait" in early.stderr

    # Emptied on purpose: it goes when somebody says so, and as much as was said.
    for study in orthanc.ask("/studies"):
        delete(f"/studies/{study}")
    another_sweep(server, "refused")
    few = medsearch("deletions", "--archive", small_archive, "--confirm", "front", "--images", 7, check=False)
    assert few.returncode == 1 and "nothing is confirmed" in few.stderr, few.stderr
    another_sweep(server, "refused")
    assert images(server) == before + 8
    medsearch("deletions", "--archive", small_archive, "--confirm", "front", "--images", 8)
    eventually(lambda: images(server) == before, "what was confirmed does not go")
    assert series(server, "medsearch_orthanc_deleted_images_total") == {'orthanc="front"': 9}
    server.stop()
    record = "".join(path.read_text() for path in audit.rglob("*") if path.is_file())
    lines = [json.loads(line) for line in record.splitlines() if "followDeletions" in line]
    # Each image that went; one of them twice, since it lost a file before.
    assert len({image for line in lines for image in line["images"]}) == 13
    assert {(line["who"], line["action"]) for line in lines} == {("server", "D")}
    told = log.read_text() + record
    assert not [secret for secret in (PATIENT, UID, ENTRY, *names.values()) if secret in told]
    kept = b"".join(path.read_bytes() for path in (small_archive / "origins").rglob("*") if path.is_file())
    for name in (*names.values(), *names):
        raw = bytes.fromhex(name.replace("-", "")) if "-" in name else name.encode()
        assert raw not in kept and name.encode() not in kept


def test_what_was_there_before_deletions_were_followed_is_learned(orthanc, small_archive, serve, tmp_path):
    (tmp_path / "basic").write_text(f"medsearch:{ENTRY}\n")
    entry = f'[[orthanc]]\nname = "front"\nurl = "{orthanc.url}"\nbasic_file = "basic"\nfollow = true\n'
    (tmp_path / "pacs.toml").write_text(entry)
    options = ("--model", "thumbnail", "--pacs-file", tmp_path / "pacs.toml")
    server = serve(small_archive, *options)
    before = images(server)
    names = [orthanc.store(file_of(dicom(seed, patient=f"P-{seed}", number=seed + 1))) for seed in range(4)]
    eventually(lambda: images(server) == before + 4, "they are not taken over")
    # Nobody asked for deletions to be followed.
    orthanc.ask(f"/instances/{names[0]}", method="DELETE")
    time.sleep(3)
    assert images(server) == before + 4 and not (small_archive / "origins").exists()
    server.stop()
    (tmp_path / "pacs.toml").write_text(
        entry + "follow_deletions = true\ndeletions_every_seconds = 1\ndeletions_percent_max = 50\n"
    )
    server = serve(small_archive, *options)
    another_sweep(server)
    # What went before is not known to have been there; what goes now is.
    assert images(server) == before + 4
    orthanc.ask(f"/instances/{names[1]}", method="DELETE")
    eventually(lambda: images(server) == before + 3, "what was learned of is not deleted")
