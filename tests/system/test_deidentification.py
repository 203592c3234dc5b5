"""Every attribute of the dictionary, with text of its own: none of it reaches the archive, the log or metrics."""

import io
import json
import time
import urllib.request
from pathlib import Path

import numpy
import pytest
from pydicom import dcmwrite
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from conftest import Server, medsearch
from test_dicomweb_client import empty_archive
from test_inbox import stow, until_empty

# What becomes of the others is looked at one by one: they decide how the file is read, or what it is.
READ = {0x00080005, 0x00080016, 0x00080008, 0x00080060, 0x00080064, 0x00280301}
LONG_TEXT = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
MARK = "SENTINEL"
UID = "1.2.826.0.1.3680043.8.498.77"


def full_file() -> tuple[bytes, list[str]]:
    """A small CT whose every attribute of text, number of a person or UID says which it is, and those texts."""
    file, texts = Dataset(), []
    for tag, (vr, *_) in DicomDictionary.items():
        if tag in READ or tag >> 16 in (0x0000, 0x0002, 0x0028, 0x7FE0, 0xFFFA, 0xFFFC, 0xFFFE):
            continue
        if vr in LONG_TEXT:
            text = f"{MARK}{tag:08X}"
        elif vr == "UI":
            text = f"{UID}.{tag}"
        elif vr in ("DA", "TM", "DT", "AE", "CS"):
            text = {"DA": "19171103", "TM": "113217.117733", "DT": "19171103113217.117733"}.get(
                vr, f"{MARK[:7]}{tag:08X}"
            )
        else:
            continue
        file.add_new(tag, vr, text)
        texts.append(text)
    item = Dataset()
    item.PatientName = f"{MARK}WITHIN^A^SEQUENCE"
    file.ReferencedStudySequence = [item]
    block = file.private_block(0x0009, f"{MARK}PRIVATE", create=True)
    block.add_new(1, "LO", f"{MARK}PRIVATEVALUE")
    file.SOPClassUID, file.Modality, file.PatientSex, file.PatientAge = CTImageStorage, "CT", "M", "101Y"
    pixels = (numpy.arange(32 * 32).reshape(32, 32) * 7 % 1000).astype("<u2")
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.PixelData = pixels.tobytes()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.SourceApplicationEntityTitle = f"{MARK}AE"
    written = io.BytesIO()
    dcmwrite(written, file, enforce_file_format=True)
    return written.getvalue(), texts


@pytest.mark.parametrize("identity", ["anonymous", "linked"])
def test_nothing_that_is_not_on_the_list_is_kept(identity, tmp_path):
    body, texts = full_file()
    assert len(texts) > 1500
    archive = empty_archive(tmp_path, identity)
    # Rules that look at free text, and find it.
    rules = tmp_path / "rules.toml"
    looked_at = {0x00081030: "study_description", 0x0008103E: "series_description", 0x00181030: "protocol_name"}
    conditions = [f'{name} = ["*{tag:08x}"]' for tag, name in looked_at.items()]
    rules.write_text("\n".join(["[[rule]]", 'class = "Seen"', *conditions, 'image_comments = ["*"]']))
    medsearch("labels", "--archive", archive, "--rules", rules)
    server = Server(archive, "--log", "debug", log=tmp_path / "log")
    try:
        # Pushed, and then sent by the other way, to which it is known.
        assert stow(server, [body])[0] == 200
        until_empty(archive)
        status, added = server.post_image("/v1/images", body)
        assert (status, added["outcome"]) == (200, "duplicate"), added
        # A version is served a moment after it is durable.
        until = time.monotonic() + 5
        while server.get("/v1/archive")["version"] < added["version"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        shown = server.get(f"/v1/images/{added['id']}")
        assert (shown["class"], shown["labelled_by"]) == ("Seen", "tags")
        with urllib.request.urlopen(f"{server.url}/metrics") as answer:
            metrics = answer.read().decode()
    finally:
        server.stop()
    # BodyPartExamined and ViewPosition are codes, and these are some; SENTINE… stands for what a device calls them.
    allowed = {"SENTINE00180015", "SENTINE00185101"}
    kept = b"".join(path.read_bytes() for path in Path(archive).rglob("*") if path.is_file())
    kept += (tmp_path / "log").read_bytes() + metrics.encode()
    for text in [*texts, f"{MARK}WITHIN", f"{MARK}PRIVATE", f"{MARK}AE"]:
        assert text in allowed or text.encode() not in kept, text
    record = shown["record"]
    assert (record["sex"], record["age"]) == ("M", "90+")
    assert {name: record["tags"].get(name) for name in ("modality", "body_part")} == {
        "modality": "CT",
        "body_part": "SENTINE00180015",
    }
    if identity == "anonymous":
        assert shown["link"] is None and MARK not in json.dumps(shown).replace("SENTINE0", "")
    else:
        assert shown["link"] == {
            "patient_id": f"{MARK}00100020",
            "issuer": f"{MARK}00100021",
            "study_uid": f"{UID}.{0x0020000D}",
            "series_uid": f"{UID}.{0x0020000E}",
            "sop_uid": f"{UID}.{0x00080018}",
        }
    # What export gives back of a linked archive is what was on the list, and nothing else.
    medsearch("export", "--archive", archive, "--out", tmp_path / "out")
    exported = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.json"))
    on_list = allowed | {f"{MARK}00100020", f"{MARK}00100021"}
    for text in texts:
        assert text in on_list or text.startswith(UID) or text.encode() not in exported, text
