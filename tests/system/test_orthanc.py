"""A real Orthanc pushes: by DICOMweb job, as a peer, and what a modality sends by C-STORE. Everything arrives once."""

import json
import os
import subprocess
import time
import urllib.error

import pydicom
import pytest
from pydicom.data import get_testdata_file

from conftest import Server, have
from pacs import Orthanc, dicom, file_of
from test_inbox import until_empty, until_there

# Small files of pydicom's own test set, in many syntaxes: native, big endian, deflated, RLE, JPEG, JPEG-LS, JPEG 2000.
MIXED = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "image_dfl.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
]
PATIENCE_S = 60


def mixed(seed):
    """Each file as an instance of its own: no two have one SOP Instance UID or the same pixels."""
    files = []
    for number, name in enumerate(MIXED):
        path = get_testdata_file(name, download=False)
        if path is None:
            continue
        data = pydicom.dcmread(path)
        uid = f"1.2.826.0.77.{seed}.{number}"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
        data.StudyInstanceUID, data.SeriesInstanceUID = f"1.2.826.0.77.{seed}", f"1.2.826.0.77.{seed}.1000"
        data.PatientID = f"P{seed}-{number}"
        data.StudyID, data.SeriesNumber = "1", 1
        files.append(file_of(data))
    return files


@pytest.fixture
def pair(small_archive, tmp_path):
    """medsearch and an Orthanc that knows it."""
    server = Server(small_archive, "--model", "thumbnail", log=tmp_path / "log")
    front = Orthanc(tmp_path / "orthanc", medsearch_url=server.url)
    yield server, front
    front.stop()
    server.stop()


def job(front, path, resources):
    """Starts a job and waits for its end."""
    started = front.ask(path, json.dumps({"Resources": resources, "Synchronous": False, "Asynchronous": True}).encode())
    end = time.monotonic() + PATIENCE_S
    while True:
        state = front.ask(f"/jobs/{started['ID']}")
        if state["State"] in ("Success", "Failure"):
            return state
        assert time.monotonic() < end, state
        time.sleep(0.2)


def test_mixed_syntaxes_by_job_by_peer_and_by_c_store(pair, small_archive, tmp_path):
    """Three ways in, each twice: no way makes a second image of what another has brought."""
    server, front = pair
    base = server.get("/v1/archive")["images"]
    by_job = [front.store(file) for file in mixed(1)]
    assert job(front, "/dicom-web/servers/medsearch/stow", by_job)["State"] == "Success"
    by_peer = [front.store(file) for file in mixed(2)]
    assert job(front, "/peers/medsearch/store", by_peer)["State"] == "Success"

    folder = tmp_path / "send"
    folder.mkdir()
    for number in range(1, 4):
        (folder / f"{number}.dcm").write_bytes(file_of(dicom(500 + number, series="1.2.826.0.88.1", number=number)))
    known = set(front.ask("/instances"))
    subprocess.run(
        [
            have("storescu"),
            "-aet",
            "STORESCU",
            "-aec",
            "ORTHANC",
            "127.0.0.1",
            str(front.dicom_port),
            "--scan-directories",
            folder,
        ],
        check=True,
        capture_output=True,
        timeout=60,
        env=os.environ,
    )
    by_c_store = sorted(set(front.ask("/instances")) - known)
    assert len(by_c_store) == 3
    assert job(front, "/dicom-web/servers/medsearch/stow", by_c_store)["State"] == "Success"

    everything = by_job + by_peer + by_c_store
    # Constant or otherwise unusable pixels are none of these: each is an image of its own.
    until_there(server, base + len(everything), PATIENCE_S)
    for path in ("/dicom-web/servers/medsearch/stow", "/peers/medsearch/store"):
        assert job(front, path, everything)["State"] == "Success"
    until_empty(small_archive)
    until_there(server, base + len(everything))


def test_an_outage_on_either_side_costs_a_second_try(pair, small_archive, tmp_path):
    """medsearch is killed while it is pushed to: the job fails, its second run succeeds, nothing is there twice."""
    server, front = pair
    base = server.get("/v1/archive")["images"]
    files = [file_of(dicom(600 + number, series="1.2.826.0.99.1", number=number)) for number in range(1, 41)]
    stored = [front.store(file) for file in files]
    assert job(front, "/dicom-web/servers/medsearch/stow", stored[:20])["State"] == "Success"
    server.kill()
    assert job(front, "/dicom-web/servers/medsearch/stow", stored)["State"] == "Failure"
    back = Server(small_archive, "--model", "thumbnail", port=server.port, log=tmp_path / "log")
    try:
        front.stop()
        front.start()
        assert job(front, "/dicom-web/servers/medsearch/stow", stored)["State"] == "Success"
        until_there(back, base + len(stored))
        until_empty(small_archive)
    except urllib.error.URLError as error:
        raise AssertionError("Orthanc is gone") from error
    finally:
        back.stop()
