"""A chest X-ray archive is sent CT and MR studies: they are answered, counted, and change nothing that it says."""

import json
import os
import urllib.request

import numpy as np
import pytest
from pydicom import uid

from conftest import Server, medsearch, note
from pacs import Orthanc, dicom, file_of
from test_inbox import referenced, stow

# scripts/soak sends the number of slices that a study has.
FULL = int(os.environ.get("MEDSEARCH_PACS_IMAGES", "0")) >= 500
STUDIES = {"CT": 500, "MR": 100} if FULL else {"CT": 20, "MR": 10}
STORAGE = {"CT": uid.CTImageStorage, "MR": uid.MRImageStorage}
# Of each study as one request of STOW-RS before Orthanc sends all of it.
DIRECT = 10
NOT_KEPT = 0xB006


def slices(modality: str) -> list[bytes]:
    """A study of the same body part and patient as an X-ray that the archive has."""
    study = f"1.2.826.0.66.{len(modality)}{ord(modality[0])}"
    files = []
    for number in range(1, STUDIES[modality] + 1):
        data = dicom(number, patient="P1", study=study, series=f"{study}.1", number=number)
        data.Modality, data.BodyPartExamined = modality, "CHEST"
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = STORAGE[modality]
        data.SliceThickness, data.ImagePositionPatient = "1", [0, 0, number]
        files.append(file_of(data))
    return files


def answers(server, queries: list[bytes]) -> list[bytes]:
    """Votes and neighbors (ids, similarities, order) of every query, as bytes."""
    told = []
    for query in queries:
        for options in ({"k": 20}, {"k": 20, "exact": "true", "exclude": "none"}):
            status, answer = server.post_image("/v1/search", query, **options)
            assert status == 200, answer
            assert answer["neighbors"]
            # All but how long it took.
            told.append(json.dumps({key: value for key, value in answer.items() if key != "timings_ms"}).encode())
    return told


def received(server) -> dict[str, int]:
    """What became of what was sent."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as metrics:
        lines = metrics.read().decode().splitlines()
    found = (line.split('medsearch_received_total{outcome="', 1) for line in lines)
    return {parts[1].split('"')[0]: int(float(parts[1].split()[-1])) for parts in found if len(parts) == 2}


@pytest.fixture
def pair(small_archive, tmp_path):
    """A server of chest X-rays, and an Orthanc that pushes to it."""
    chest = ("--modality", "DX", "--modality", "CR", "--body-part", "CHEST", "--body-part", "UNSTATED")
    medsearch("scope", "--archive", small_archive, *chest)
    server = Server(small_archive, "--model", "thumbnail", log=tmp_path / "log")
    front = Orthanc(tmp_path / "orthanc", medsearch_url=server.url)
    yield server, front
    front.stop()
    server.stop()


def test_ct_and_mr_studies_leave_votes_and_neighbors_unchanged(pair, synthetic):
    server, front = pair
    xrays = [file_of(dicom(900 + number, number=number, patient=f"P{number}")) for number in range(1, 9)]
    for number, xray in enumerate(xrays[:4]):
        labelled = {"class": "COVID"} if number % 2 else {}
        assert server.post_image("/v1/images", xray, **labelled)[0] == 201
    pictures = [path.read_bytes() for path in sorted(synthetic.rglob("*.png"))[::5]]
    assert len(pictures) >= 8
    studies = {modality: slices(modality) for modality in STUDIES}
    # A slice is a query, too: what is nearest to it is asked of an archive that has none.
    queries = [*xrays, *pictures, *(files[len(files) // 2] for files in studies.values())]
    before, archive = answers(server, queries), server.get("/v1/archive")

    for files in studies.values():
        status, answer = stow(server, files[:DIRECT])
        assert status == 202 and len(referenced(answer)) == DIRECT and "00081198" not in answer
        warnings = [item["00081196"]["Value"] for item in answer["00081199"]["Value"]]
        assert warnings == [[NOT_KEPT]] * DIRECT
    for modality, files in studies.items():
        ids = [front.store(file) for file in files]
        for path in ("/dicom-web/servers/medsearch/stow", "/peers/medsearch/store"):
            # Orthanc waits for the end, and fails where one instance does.
            body = json.dumps({"Resources": ids, "Synchronous": True}).encode()
            done = front.ask(path, body, timeout=600)
            assert "HttpStatus" not in done, (modality, done)
    sent = sum(2 * len(files) + DIRECT for files in studies.values())
    assert received(server) == {"outside_modality": sent} | {
        outcome: 0 for outcome in received(server) if outcome != "outside_modality"
    }
    after = answers(server, queries)
    assert after == before
    now = server.get("/v1/archive")
    assert {key: archive[key] for key in ("images", "version")} == {key: now[key] for key in ("images", "version")}
    # Nothing waits that would change it later.
    assert medsearch("inbox", "--archive", server.archive).stdout.startswith("0 files wait; 0 ")
    told = [json.loads(answer) for answer in after]
    assert any(answer["suggestion"]["votes"] for answer in told)
    assert len({answer["neighbors"][0]["id"] for answer in told}) > 4
    similarities = np.array([hit["similarity"] for answer in told for hit in answer["neighbors"]])
    figures = {"slices": {name: len(files) for name, files in studies.items()}, "objects_sent": sent}
    figures |= {"warned_and_not_kept": sent, "answers_compared": len(after), "answers_that_differ": 0}
    note("ct_and_mr_to_a_chest_archive", figures | {"neighbors_compared": len(similarities)})
