"""A real Orthanc asks: its DICOMweb client searches here, and takes back what it had pushed."""

import io
import json

import pydicom
import pytest

from conftest import Server
from pacs import Orthanc, dicom, file_of
from test_inbox import until_there


@pytest.fixture
def pair(small_archive, tmp_path):
    """medsearch and an Orthanc that knows it."""
    server = Server(small_archive, "--model", "thumbnail", log=tmp_path / "log")
    front = Orthanc(tmp_path / "orthanc", medsearch_url=server.url)
    yield server, front
    front.stop()
    server.stop()


def test_orthanc_searches_here_and_takes_a_study_back(pair):
    """Orthanc's DICOMweb client finds the study that it pushed, reads its metadata, and stores its instances again."""
    server, front = pair
    client = "/dicom-web/servers/medsearch"
    base = server.get("/v1/archive")["images"]
    study, series = "1.2.826.0.77.9", "1.2.826.0.77.9.1"
    sent = [dicom(700 + number, patient="P9", study=study, series=series, number=number) for number in (1, 2)]
    stored = [front.store(file_of(data)) for data in sent]
    front.ask(f"{client}/stow", json.dumps({"Resources": stored, "Synchronous": True}).encode(), timeout=60)
    until_there(server, base + len(sent))
    for one in stored:
        front.ask(f"/instances/{one}", method="DELETE")
    assert front.ask("/instances") == []

    def ask(way, **what):
        return front.ask(f"{client}/{way}", json.dumps(what).encode())

    for level, arguments, count in [
        ("/studies", {"PatientID": "P9"}, 1),
        (f"/studies/{study}/series", {"Modality": "DX"}, 1),
        ("/instances", {"StudyInstanceUID": study}, 2),
        ("/studies", {"PatientID": "nobody"}, 0),
    ]:
        found = ask("qido", Uri=level, Arguments=arguments)
        assert len(found) == count, (level, arguments)
        assert all(one["0020000D"]["Value"] == study for one in found)
    metadata = ask("get", Uri=f"/studies/{study}/metadata", HttpHeaders={"Accept": "application/dicom+json"})
    assert {one["00080018"]["Value"][0] for one in metadata} == {data.SOPInstanceUID for data in sent}

    one = {"Study": study, "Series": series, "Instance": sent[0].SOPInstanceUID}
    for resource, count in [(one, 1), ({"Study": study}, 2)]:
        ask("retrieve", Resources=[resource], Synchronous=True)
        assert len(front.ask("/instances")) == count
    pixels = {data.SOPInstanceUID: data.PixelData for data in sent}
    for one in front.ask("/instances"):
        back = pydicom.dcmread(io.BytesIO(front.read(f"/instances/{one}/file")))
        assert back.PixelData == pixels[back.SOPInstanceUID]
        assert (back.StudyInstanceUID, back.SeriesInstanceUID, back.PatientID) == (study, series, "P9")
