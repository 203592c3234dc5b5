"""A real Orthanc, started as scripts/orthanc says."""

import contextlib
import io
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from conftest import ROOT, free_port, have

PLUGINS = Path(os.environ.get("ORTHANC_PLUGINS", "/usr/share/orthanc/plugins"))
# What Orthanc wants of its user.
ENTRY = "of-this-orthanc-only"
PATIENCE_S = 30
DX = "1.2.840.10008.5.1.4.1.1.1.1"


def need_orthanc():
    """Skips the test by name where Orthanc or its plugin is not installed."""
    have("Orthanc")
    if not (PLUGINS / "libOrthancDicomWeb.so").exists():
        pytest.skip("orthanc-dicomweb is not installed")


class Orthanc:
    """One on free ports, with a folder that outlives it."""

    def __init__(self, folder: Path, medsearch_url="http://127.0.0.1:9", push="none"):
        need_orthanc()
        self.folder, self.port, self.dicom_port = folder, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "MEDSEARCH_URL": medsearch_url,
            "MEDSEARCH_KEY": "a-key-for-tests-only",
            "MEDSEARCH_PUSH": push,
            "ORTHANC_PASSWORD": ENTRY,
            "ORTHANC_HTTP_PORT": str(self.port),
            "ORTHANC_DICOM_PORT": str(self.dicom_port),
            "ORTHANC_STABLE_AGE": "2",
            "MODALITY_AET": "STORESCU",
        }
        self.start()

    def start(self):
        """Until it answers."""
        self.process = subprocess.Popen(
            [ROOT / "scripts/orthanc/start", self.folder],
            env=os.environ | self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                return self.ask("/system")
            assert self.process.poll() is None, "Orthanc ended"
            time.sleep(0.1)
        raise AssertionError("Orthanc does not answer")

    def stop(self):
        """SIGTERM: it takes its time, and its ports are free only then."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def ask(self, path, body=None, method=None, timeout=10):
        """JSON of a request."""
        return json.loads(self.read(path, body, method, timeout))

    def read(self, path, body=None, method=None, timeout=10):
        """Bytes of an answer."""
        credential = b64encode(f"medsearch:{ENTRY}".encode()).decode()
        request = urllib.request.Request(
            self.url + path, data=body, headers={"Authorization": f"Basic {credential}"}, method=method
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.read()

    def store(self, file: bytes) -> str:
        """Stores a file and gives Orthanc's id of it."""
        return self.ask("/instances", file)["ID"]


def dicom(seed: int, *, patient="P1", study="1.2.826.0.1.1", series="1.2.826.0.1.1.1", number=1) -> pydicom.FileDataset:
    """A small grey picture with its identity."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DX
    meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.PatientName = patient, "Doe^Jane"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.StudyID, data.SeriesNumber, data.InstanceNumber, data.Modality = "1", 1, number, "DX"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = 96
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng(seed).integers(0, 4096, (96, 96), dtype=np.uint16)
    data.PixelData = pixels.tobytes()
    return data


def file_of(data: Dataset) -> bytes:
    """As it lies in a file."""
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()
