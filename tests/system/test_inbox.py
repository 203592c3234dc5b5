"""What was answered as stored appears, once: after kill -9, beside a full disk, sent by dicomweb-client."""

import http.client
import io
import json
import os
import subprocess
import time
import urllib.error
import urllib.request

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from conftest import Server, medsearch, note
from pacs import dicom, file_of
from test_durability import fill

# The full number is scripts/soak's.
KILLS = int(os.environ.get("MEDSEARCH_INBOX_KILLS", "4"))
AT_ONCE = 6
BOUNDARY = "0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1-0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"
SERIES = "1.2.826.0.1.1.1"


def stow(server, files):
    """(status, data set) of STOW-RS as Orthanc sends it."""
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\nContent-Length: {len(file)}\r\n\r\n".encode()
        + file
        + b"\r\n"
        for file in files
    )
    request = urllib.request.Request(
        f"{server.url}/dicom-web/studies",
        body + f"--{BOUNDARY}--".encode(),
        {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def referenced(answer):
    """Instances that the sender may forget."""
    items = answer.get("00081199", {}).get("Value", [])
    return [item["00081155"]["Value"][0] for item in items]


def picture(number):
    """An instance and its file; no two are alike."""
    data = dicom(number, patient=f"P{number}", number=number)
    return data.SOPInstanceUID, file_of(data)


def until_there(server, count, seconds=60):
    """Waits for so many images, and that none comes on top."""
    end = time.monotonic() + seconds
    while (images := server.get("/v1/archive")["images"]) != count:
        assert images < count, f"{images} images, {count} were stored"
        assert time.monotonic() < end, f"{images} of {count} images after {seconds} s"
        time.sleep(0.1)


def until_empty(archive, seconds=30):
    """Nothing waits and nothing failed."""
    end = time.monotonic() + seconds
    while True:
        said = medsearch("inbox", "--archive", archive).stdout
        if said.startswith("0 files wait; 0 "):
            return
        assert time.monotonic() < end, said
        time.sleep(0.2)


def test_kill_9_between_the_answer_and_the_embedding_loses_nothing(small_archive, tmp_path):
    """The server is killed in the moment of its answer, again and again; what it said it has is there in the end."""
    start = lambda: Server(small_archive, "--model", "thumbnail", log=tmp_path / "log")  # noqa: E731
    server = start()
    base, said, number, waited = server.get("/v1/archive")["images"], set(), 0, 0
    for _ in range(KILLS):
        files = []
        for _ in range(AT_ONCE):
            number += 1
            files.append(picture(number))
        status, answer = stow(server, [file for _, file in files])
        server.kill()
        assert status == 200, answer
        said.update(referenced(answer))
        waited += len([entry for entry in (small_archive / "inbox").iterdir() if entry.is_file()])
        server = start()
    try:
        assert len(said) == KILLS * AT_ONCE
        assert waited > KILLS, "it was killed before it had embedded much"
        until_there(server, base + len(said))
        # Sent once more: all are known.
        status, answer = stow(server, [picture(each)[1] for each in range(1, number + 1)])
        assert status == 202 and len(referenced(answer)) == len(said)
        until_empty(small_archive)
        until_there(server, base + len(said))
        figures = {"kills": KILLS, "files_that_waited_in_them": waited, "stored": len(said), "lost": 0, "twice": 0}
        note("kill_9_between_answer_and_embedding", figures)
    finally:
        server.stop()
    medsearch("verify", "--archive", small_archive)
    log = (tmp_path / "log").read_text()
    assert SERIES not in log and "Doe" not in log


def test_dicomweb_client_stores_without_special_cases(small_archive, serve):
    """As a data scientist sends a few files: a large body is chunked, a small one is not."""
    server = serve(small_archive, "--model", "thumbnail")
    base = server.get("/v1/archive")["images"]
    client = DICOMwebClient(url=f"{server.url}/dicom-web")
    files = [pydicom.dcmread(io.BytesIO(picture(number)[1])) for number in range(1, 81)]
    for part in (files[:2], files[2:]):
        answer = client.store_instances(part)
        assert len(answer.ReferencedSOPSequence) == len(part) and "FailedSOPSequence" not in answer
    again = client.store_instances(files[:1], study_instance_uid=files[0].StudyInstanceUID)
    assert again.ReferencedSOPSequence[0].WarningReason == 0xB006
    until_there(server, base + len(files))


def test_a_full_disk_refuses_and_loses_nothing(synthetic, tmp_path):
    """What a full disk does not take is said not to be stored; what it took is there once there is room."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", mount]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs can't be mounted here (needs root)")
    try:
        medsearch("embed", "--data", synthetic, "--out", tmp_path / "embeddings", "--model", "thumbnail")
        archive, secret = mount / "archive", tmp_path / "secret"
        place = ("--archive", archive, "--secret-file", secret)
        medsearch("index", "--embeddings", tmp_path / "embeddings", "--model", "thumbnail", *place)
        server = Server(archive, "--model", "thumbnail", "--secret-file", secret)
        try:
            base, said, refused = server.get("/v1/archive")["images"], set(), 0
            for step in range(24):
                fill(mount, but=step * 4096)
                status, answer = stow(server, [picture(step + 1)[1]])
                if status == 200:
                    said.update(referenced(answer))
                else:
                    refused += 1
                    assert status == 507 and answer["type"].endswith("/storage-full"), answer
            assert refused > 0
            fill(mount, but=None)
            status, answer = stow(server, [picture(100)[1]])
            said.update(referenced(answer))
            until_there(server, base + len(said), seconds=120)
            figures = {"refused_with_507": refused, "stored": len(said), "lost": 0}
            note("full_disk", figures)
        finally:
            server.stop()
    finally:
        subprocess.run(["umount", "-l", mount], check=False)


def test_a_body_that_breaks_off_says_nothing_wrong(small_archive, serve):
    """A sender that dies in the middle: what came whole may be there, what did not is not, and the server goes on."""
    server = serve(small_archive, "--model", "thumbnail")
    base = server.get("/v1/archive")["images"]
    file = picture(1)[1]
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/dicom-web/studies")
    connection.putheader("Content-Type", f"multipart/related; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(10 * len(file)))
    connection.endheaders()
    connection.send(head + file + b"\r\n" + head + file[: len(file) // 2])
    time.sleep(0.3)
    connection.close()
    until_there(server, base + 1)
    assert stow(server, [file])[0] == 202
