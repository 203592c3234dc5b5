"""dicomweb-client against the real program: searches, metadata, pictures, frames, files, in both identity modes."""

import io
import subprocess
import time
from pathlib import Path

import numpy
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from conftest import Server, medsearch

STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.1.1"
PATIENT, NAME = "PAT-4711-ORIGINAL", "Mueller^Hans"
INSTANCES = [f"{SERIES}.{number}" for number in (1, 2, 3)]


def instance(sop: str) -> tuple[bytes, numpy.ndarray]:
    """A CT slice and its stored values."""
    at = numpy.arange(40 * 60).reshape(40, 60)
    seed = int(sop.rsplit(".", 1)[1])
    pixels = ((at * (seed + 6)) % 2000 - 1000).astype("<i2")
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, sop
    file.StudyInstanceUID, file.SeriesInstanceUID = STUDY, SERIES
    file.PatientID, file.PatientName, file.PatientSex, file.PatientAge = PATIENT, NAME, "F", "055Y"
    file.Modality, file.BodyPartExamined = "CT", "CHEST"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.PixelData = pixels.tobytes()
    written = io.BytesIO()
    file.save_as(written, enforce_file_format=True)
    return written.getvalue(), pixels


def empty_archive(folder: Path, identity: str) -> Path:
    """An archive that takes images, of one picture that is no DICOM."""
    (folder / "data/other").mkdir(parents=True)
    noise = numpy.random.default_rng(1).integers(0, 255, (64, 64), dtype="uint8")
    Image.fromarray(noise).save(folder / "data/other/1.png")
    common = ["--data", folder / "data", "--model", "thumbnail"]
    medsearch("embed", *common, "--out", folder / "embeddings")
    archive = folder / "archive"
    medsearch("index", *common, "--embeddings", folder / "embeddings", "--archive", archive, "--identity", identity)
    return archive


@pytest.fixture(scope="module", params=["anonymous", "linked"])
def hospital(request, tmp_path_factory):
    """A server with three slices of a study, its log, and a client for each of two keys."""
    folder = tmp_path_factory.mktemp(request.param)
    archive = empty_archive(folder, request.param)
    keys = folder / "keys.json"
    made = {
        name: medsearch("key", "new", "--name", name, *scopes, "--file", keys).stdout.strip()
        for name, scopes in {
            "pacs": ["--scope", "ingest"],
            "viewer": ["--scope", "search"],
            "doctor": ["--scope", "search", "--scope", "link"],
        }.items()
    }
    server = Server(archive, "--keys-file", keys, "--log", "debug", log=folder / "log")
    for sop in INSTANCES:
        status, _ = server.post_image("/v1/images", instance(sop)[0], headers={"X-API-Key": made["pacs"]})
        assert status == 201
    clients = {
        name: DICOMwebClient(f"{server.url}/dicom-web", headers={"X-API-Key": made[name]})
        for name in ("viewer", "doctor")
    }
    # What is stored is searched within two seconds.
    end = time.monotonic() + 10
    while len(clients["viewer"].search_for_instances()) < len(INSTANCES):
        assert time.monotonic() < end, "not all instances appeared"
        time.sleep(0.05)
    yield request.param, clients, folder
    server.stop()


def value(data_set, tag):
    return data_set[tag]["Value"][0]


def test_a_viewer_finds_its_way_by_what_it_is_told(hospital):
    _, clients, _ = hospital
    client = clients["viewer"]
    [study] = client.search_for_studies()
    uid = value(study, "0020000D")
    assert uid.startswith("2.25.") and value(study, "00100020").startswith("p_")
    [series] = client.search_for_series(uid)
    found = client.search_for_instances(uid, value(series, "0020000E"))
    assert len(found) == len(INSTANCES) == value(study, "00201208")
    for one in found:
        check(client, uid, value(series, "0020000E"), value(one, "00080018"))
    assert len(client.retrieve_study_metadata(uid)) == len(INSTANCES)
    assert len(client.retrieve_series(uid, value(series, "0020000E"))) == len(INSTANCES)
    assert len(client.search_for_instances(limit=2, get_remaining=True)) == len(INSTANCES)


def check(client, study, series, sop):
    """Everything of one instance, against the values that were sent."""
    [metadata] = [Dataset.from_json(one) for one in [client.retrieve_instance_metadata(study, series, sop)]]
    assert (metadata.Rows, metadata.Columns, metadata.PixelRepresentation) == (40, 60, 1)
    [frame] = client.retrieve_instance_frames(study, series, sop, [1])
    stored = numpy.frombuffer(frame, "<i2").reshape(metadata.Rows, metadata.Columns)
    assert any((stored == instance(known)[1]).all() for known in INSTANCES)
    file = client.retrieve_instance(study, series, sop)
    assert (file.pixel_array == stored).all() and sop == file.SOPInstanceUID
    assert file.file_meta.MediaStorageSOPInstanceUID == sop and file.PatientSex == "F" and file.PatientAge == "055Y"
    for media, form in (("image/png", "PNG"), ("image/jpeg", "JPEG")):
        picture = client.retrieve_instance_rendered(
            study, series, sop, media_types=(media,), params={"window": "0,500,linear", "viewport": "30,30"}
        )
        shown = Image.open(io.BytesIO(picture))
        assert (shown.format, shown.size) == (form, (30, 20))
    assert client.retrieve_instance_frames_rendered(study, series, sop, [1], media_types=("image/png",))


def test_originals_are_asked_for_by_everyone_and_told_to_some(hospital):
    mode, clients, _ = hospital
    for name, client in clients.items():
        sees = name == "doctor" and mode == "linked"
        [study] = client.search_for_studies(search_filters={"PatientID": PATIENT})
        assert value(study, "00100020") == PATIENT
        assert (value(study, "0020000D") == STUDY) == sees
        [everything] = client.search_for_studies()
        assert (value(everything, "00100020") == PATIENT) == sees
        assert client.search_for_studies(search_filters={"PatientID": "PAT-4711"}) == []
        found = client.search_for_instances(STUDY, SERIES)
        assert len(found) == len(INSTANCES)
        assert (INSTANCES[0] in [value(one, "00080018") for one in found]) == sees
        check(client, STUDY, SERIES, INSTANCES[0])
        # What was asked for by originals repeats them, whoever asks: it says that identities are in it.
        file = client.retrieve_instance(STUDY, SERIES, INSTANCES[0])
        assert file.PatientIdentityRemoved == "NO"
        assert (file.PatientID == PATIENT) == sees


def test_nothing_of_it_is_in_the_log_or_in_the_open(hospital):
    _, _, folder = hospital
    for sought in [PATIENT, NAME, STUDY]:
        found = subprocess.run(
            ["grep", "-rlaF", sought, folder / "archive", folder / "log"], capture_output=True, text=True
        )
        assert found.stdout == "", sought
    assert "/dicom-web/studies/{study}" in (folder / "log").read_text()


def test_a_file_from_it_is_one_for_pydicom(hospital):
    _, clients, _ = hospital
    client = clients["viewer"]
    [named, *_] = client.search_for_instances(limit=1)
    written = io.BytesIO()
    client.retrieve_instance(*[value(named, uid) for uid in ("0020000D", "0020000E", "00080018")]).save_as(written)
    again = pydicom.dcmread(io.BytesIO(written.getvalue()))
    assert again.PatientIdentityRemoved == "YES"
    assert again.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert "PatientName" in again and str(again.PatientName) == ""
