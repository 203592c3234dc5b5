"""Search by reference at a real Orthanc: what it fetches there gives the answer of the same file uploaded."""

import json
import urllib.error
import urllib.request

import pytest

from pacs import ENTRY, Orthanc, dicom, file_of

PATIENT = "PAT-4711-DOE"
STUDY, SERIES = "1.2.826.0.4711.1", "1.2.826.0.4711.1.2"


@pytest.fixture
def orthanc(tmp_path):
    """One that is stopped after the test."""
    server = Orthanc(tmp_path / "orthanc")
    yield server
    if server.process.poll() is None:
        server.stop()


def ask(server, body):
    """(status, JSON) of a search by reference."""
    request = urllib.request.Request(
        f"{server.url}/v1/search/by-reference", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as problem:
        return problem.code, json.load(problem)


def comparable(answer):
    """Without what differs from one search to the next."""
    query = {name: value for name, value in answer["query"].items() if name != "reference"}
    return {**answer, "query": query, "timings_ms": None}


def test_a_search_by_reference_is_that_of_the_same_file(orthanc, small_archive, serve, tmp_path):
    (tmp_path / "basic").write_text(f"medsearch:{ENTRY}\n")
    (tmp_path / "pacs.toml").write_text(
        f'[[pacs]]\nname = "front"\nurl = "{orthanc.url}/dicom-web"\nbasic_file = "basic"\n'
    )
    log = tmp_path / "log"
    server = serve(small_archive, "--model", "thumbnail", "--pacs-file", tmp_path / "pacs.toml", log=log)
    files = {
        number: file_of(dicom(number, patient=PATIENT, study=STUDY, series=SERIES, number=number))
        for number in range(1, 6)
    }
    for number in (4, 1, 5, 2, 3):
        orthanc.store(files[number])
    # Another image of the same patient is in the archive, and is left out by what the file says.
    status, added = server.post_image(
        "/v1/images", file_of(dicom(9, patient=PATIENT, study="1.2.826.0.9", series="1.2.826.0.9.1"))
    )
    assert status == 201
    options = {"k": 20, "min_version": added["version"]}

    middle = server.post_image("/v1/search", files[3], **options)[1]
    assert added["id"] not in {neighbor["id"] for neighbor in middle["neighbors"]}
    assert added["id"] in {
        neighbor["id"]
        for neighbor in server.post_image("/v1/search", files[3], exclude="none", **options)[1]["neighbors"]
    }
    uids = {"study_uid": STUDY, "series_uid": SERIES}
    place = {"pacs": "front", **options}
    whole = f"{orthanc.url}/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.3"
    chosen = {"instance_number": 3, "position": 3, "images": 5}
    for body, expected in [
        ({**place, **uids, "instance_uid": f"{SERIES}.3"}, None),
        ({**place, "study_uid": STUDY, "instance_uid": f"{SERIES}.3"}, None),
        ({**options, "retrieve_url": whole}, None),
        ({**place, **uids}, chosen | {"series_number": None}),
        ({**place, "study_uid": STUDY}, chosen | {"series_number": 1}),
    ]:
        status, answer = ask(server, body)
        assert status == 200, answer
        assert comparable(answer) == comparable(middle)
        assert answer["query"]["reference"]["chosen"] == expected

    for body in (
        {"study_uid": "1.2.3"},
        {**uids, "instance_uid": "1.2.3"},
        {"study_uid": STUDY, "series_uid": "1.2.3"},
    ):
        status, problem = ask(server, {**place, **body})
        assert (status, problem["type"]) == (404, "/problems/not-found"), problem
    # What Orthanc itself would answer is out of reach: nothing but studies can be named.
    status, problem = ask(server, {"retrieve_url": f"{orthanc.url}/instances"})
    assert (status, problem["type"]) == (404, "/problems/unknown-pacs")

    orthanc.stop()
    status, problem = ask(server, {**place, **uids})
    assert (status, problem["type"]) == (502, "/problems/pacs-failed")
    orthanc.start()
    assert ask(server, {**place, **uids})[0] == 200

    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as metrics:
        told = metrics.read().decode()
    assert 'medsearch_pacs_pulls_total{outcome="pulled",pacs="front"} 6' in told
    server.stop()
    told += log.read_text()
    assert not [secret for secret in (PATIENT, STUDY, SERIES, ENTRY) if secret in told]
