"""An Orthanc is followed by its changes: every image is in the archive once, whoever was killed or restarted."""

import re
import time
import urllib.request

import pytest

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
