"""A patient's marks, sent in every way and wrongly: afterwards they are nowhere in the clear."""

import contextlib
import functools
import http.client
import io
import itertools
import json
import threading
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pydicom
import pytest

from collector import DIRECT, Collector
from conftest import fixed_secret, medsearch
from hostile.forms import END, FORM, part, text, with_object
from medsearch_py.golden import dicom_files
from pacs import ENTRY, Orthanc

ROOT_UID = "1.2.826.0.1.3680043.9.4711.20470815"
# Each is found nowhere else, and none is a part of another word.
PATIENT, ISSUER, ACCESSION = "PHIMARK-4711", "PHIISSUER-9", "PHIACC-99"
NAME, BIRTH_DATE, FILE, FREE_TEXT = "PHINAME^DOE", "19470816", "PHIFILE-doe-john", "PHITEXT of a ward"
STUDY, SERIES = f"{ROOT_UID}.1", f"{ROOT_UID}.2"
MARKS = (PATIENT, ISSUER, ACCESSION, "PHINAME", BIRTH_DATE, "PHIFILE", "PHITEXT", ROOT_UID)
SCOPES = ("search", "ingest", "vectors", "metrics", "admin", "link")
# Instances that `store_it` leaves.
STORED = 3
PATIENCE_S = 60


@functools.cache
def golden() -> dict[str, bytes]:
    """Files without marks."""
    return dicom_files.files()


def marked(number: int) -> bytes:
    """A DICOM file of the patient, with other pixels for each number."""
    dataset = pydicom.dcmread(io.BytesIO(golden()["mono2-8.dcm"]))
    dataset.PatientID, dataset.IssuerOfPatientID, dataset.PatientName = PATIENT, ISSUER, NAME
    dataset.PatientBirthDate, dataset.AccessionNumber = BIRTH_DATE, ACCESSION
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{ROOT_UID}.3.{number}"
    dataset.StudyDescription = dataset.PatientComments = FREE_TEXT
    dataset.PatientAge, dataset.ReferringPhysicianName = "077Y", NAME
    dataset.add_new(0x00091001, "LO", f"private {PATIENT}")
    values = np.random.default_rng(number).integers(0, 256, (dataset.Rows, dataset.Columns), dtype=np.uint8)
    dataset.PixelData = values.tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


class Client:
    """Asks with keys, and keeps all that comes back."""

    def __init__(self, server, keys):
        self.port, self.keys, self.answers = server.port, keys, []

    def ask(self, method, path, scope="admin", body=None, echo=False, **headers):
        """(status, JSON). `echo`: the answer may repeat what this very request said."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        key = {"X-Api-Key": self.keys[scope]} if scope else {}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            body, headers = json.dumps(body), headers | {"Content-Type": "application/json"}
        connection.request(method, path, body, key | headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if not echo:
            self.answers.append((f"{method} {path}", str(response.getheaders()).encode() + content))
        return response.status, json.loads(content) if content[:1] in b"{[" and content else None

    def form(self, path, scope, image, echo=False, **fields):
        """A form with a file whose name is marked."""
        body = b"".join(text(name, value.encode()) for name, value in fields.items())
        head = f'Content-Disposition: form-data; name="image"; filename="{FILE}.dcm"\r\nContent-Type: application/dicom'
        body += part(image, head) + END
        return self.ask("POST", path, scope, body, echo, Content_Type=FORM)


@pytest.fixture(params=["linked", "anonymous"])
def stage(request, synthetic, tmp_path, serve):
    """A server that writes, with keys, traces and a temporary folder of its own."""
    embeddings, archive = tmp_path / "embeddings", fixed_secret(tmp_path / "archive")
    medsearch("embed", "--data", synthetic, "--out", embeddings, "--model", "thumbnail")
    where = ("--embeddings", embeddings, "--data", synthetic, "--model", "thumbnail", "--archive", archive)
    medsearch("index", *where, "--identity", request.param, "--retention", "original")
    keys = {
        scope: medsearch("key", "new", "--file", tmp_path / "keys.json", "--name", scope, *of).stdout.strip()
        # Links are told to whoever may search, too.
        for scope, of in {
            **{scope: ("--scope", scope) for scope in SCOPES},
            "link": ("--scope", "link", "--scope", "search"),
        }.items()
    }
    temporary = Temporary(tmp_path / "temporary")
    collector = Collector()
    front = orthanc(tmp_path)
    environment = {**DIRECT, "TMPDIR": str(temporary.folder), "MEDSEARCH_LOG": "debug,medsearch=trace"}
    options = (
        "--keys-file",
        tmp_path / "keys.json",
        "--otlp-endpoint",
        collector.url,
        "--audit-dir",
        tmp_path / "audit",
        *(("--pacs-file", tmp_path / "pacs.toml") if front else ()),
    )
    server = serve(archive, *options, environment=environment, log=tmp_path / "log")
    yield request.param, server, Client(server, keys), collector, archive, temporary, front
    temporary.stop()
    collector.stop()
    if front:
        front.stop()


def orthanc(folder: Path) -> Orthanc | None:
    """One that is followed and asked for images, where it is installed."""
    try:
        front = Orthanc(folder / "orthanc")
    except pytest.skip.Exception:
        return None
    (folder / "basic").write_text(f"medsearch:{ENTRY}\n")
    of = f'name = "front"\nbasic_file = "basic"\nurl = "{front.url}'
    (folder / "pacs.toml").write_text(f'[[orthanc]]\n{of}"\nfollow = true\n[[pacs]]\n{of}/dicom-web"\n')
    return front


class Temporary:
    """A folder for temporary files, and all that was ever seen in one."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder, self.found, self.over = folder, {}, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self):
        while not self.over.wait(0.02):
            self.look()

    def look(self):
        """Reads what is there, and its name."""
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                content = path.read_bytes() if path.is_file() else b""
                self.found.setdefault((str(path), content), None)

    def stop(self):
        """Looks no more."""
        self.over.set()
        self.thread.join()

    def contents(self) -> list[tuple[str, bytes]]:
        """Names and bytes."""
        self.stop()
        self.look()
        return [("a temporary file", name.encode() + b" " + content) for name, content in self.found]


def test_whose_images_these_are_is_nowhere_in_the_clear(stage, tmp_path):
    """In no line of log and audit, metric, trace, answer, temporary file, nor byte of the archive."""
    mode, server, client, collector, archive, temporary, front = stage
    use_it_well(client)
    store_it(client)
    # What waits to be embedded is there, too.
    for_all = in_archive(archive)
    if front:
        pull_it(client, front)
    look_at_it(client, linked=mode == "linked")
    use_it_wrongly(client)
    assert client.ask("GET", "/metrics", "metrics")[0] == 200
    # Nothing of it is kept in memory for the next one either.
    assert client.ask("GET", "/v1/archive", "search")[0] == 200

    for_all += [("an answer", content) for _, content in client.answers]
    for_all += temporary.contents()
    server.stop()
    spans = str([span for _, span in collector.spans])
    assert "POST /v1/images" in spans
    log = (tmp_path / "log").read_bytes()
    assert log.count(b"answered") > 30
    routes = ["/dicom-web/studies/{study}/metadata", "/dicom-web/instances", "/instances"]
    routes += ["/v1/search/by-reference"] if front else []
    assert not [route for route in routes if f'"route":"{route}"'.encode() not in log]
    for_all += [("a trace", spans.encode()), ("the log", log)]
    for_all += in_archive(archive)
    audit = in_archive(tmp_path / "audit")
    assert any(b'"what"' in content for _, content in audit)
    for_all += audit
    found = [(where, mark, context(content, mark)) for where, content in for_all for mark in seen(content)]
    assert not found, found[:10]


def in_archive(archive: Path) -> list[tuple[str, bytes]]:
    """Names and bytes of its objects. One that has gone meanwhile has none."""
    found = []
    for path in archive.rglob("*"):
        found += [("the name of an object", str(path.relative_to(archive)).encode())]
        with contextlib.suppress(FileNotFoundError):
            found += [("an object", path.read_bytes())] if path.is_file() else []
    return found


def store_it(client: Client):
    """What a PACS sends. The answer names the objects to whoever sent them."""
    for number, path in enumerate(("/dicom-web/studies", f"/dicom-web/studies/{STUDY}", "/dicom-web/studies/1.2.3")):
        content_type, body = with_object(marked(10 + number))
        status, _ = client.ask("POST", path, "ingest", body, echo=True, Content_Type=content_type)
        assert status == (409 if path.endswith("1.2.3") else 200)
    assert client.ask("POST", "/instances", "ingest", marked(20), echo=True)[0] == 200
    content_type, body = with_object(marked(30)[:3000])
    assert client.ask("POST", "/dicom-web/studies", "ingest", body, echo=True, Content_Type=content_type)[0] == 409


def found_by(client: Client, query: str, scope="search", echo=False) -> list[dict]:
    """What QIDO-RS answers."""
    status, found = client.ask("GET", f"/dicom-web/{query}", scope, echo=echo)
    return found if status == 200 else []


def pull_it(client: Client, front: Orthanc):
    """What is fetched from a PACS: each new instance, and one that is searched for."""
    before = len(found_by(client, "instances"))
    front.store(marked(40))
    end = time.monotonic() + PATIENCE_S
    while len(found_by(client, "instances")) < max(before, STORED) + 1:
        assert time.monotonic() < end, "it is not followed"
        time.sleep(0.2)
    uids = {"pacs": "front", "study_uid": STUDY}
    for more in ({}, {"series_uid": SERIES}, {"series_uid": SERIES, "instance_uid": f"{ROOT_UID}.3.40"}):
        assert client.ask("POST", "/v1/search/by-reference", "search", uids | more)[0] == 200
    for wrong in ({"instance_uid": f"{ROOT_UID}.9"}, {"pacs": PATIENT}, {"study_uid": f"{STUDY}.{PATIENT}"}):
        assert client.ask("POST", "/v1/search/by-reference", "search", uids | wrong, echo=True)[0] in (400, 404)
    for url in (f"{front.url}/dicom-web/studies/{STUDY}.8", f"http://{PATIENT}.example/studies/{STUDY}"):
        client.ask("POST", "/v1/search/by-reference", "search", {"retrieve_url": url}, echo=True)


def look_at_it(client: Client, linked: bool):
    """What a viewer asks for: by the names that it is told, and by those that the hospital has."""
    end = time.monotonic() + PATIENCE_S
    while len(found_by(client, "instances")) < STORED:
        assert time.monotonic() < end, "what was stored does not appear"
        time.sleep(0.2)
    for level in ("studies", "series", "instances"):
        every = found_by(client, f"{level}?includefield=all")
        assert every
        # Whoever has the scope is told, where the archive knows it.
        told = json.dumps(found_by(client, level, "link", echo=True))
        assert (PATIENT in told) == (STUDY in told) == linked, level
        for name in (f"PatientID={PATIENT}", f"StudyInstanceUID={STUDY}", f"00100020={PATIENT}"):
            assert found_by(client, f"{level}?{name}", echo=True), (level, name)
    study, series, sop = (every[0][tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    original = f"{ROOT_UID}.3.20"
    for names, echo in (((study, series, sop), False), ((STUDY, SERIES, original), True)):
        places = [f"/dicom-web/studies/{names[0]}", f"/dicom-web/studies/{names[0]}/series/{names[1]}"]
        places += [f"{places[1]}/instances/{names[2]}"]
        ways = [place + end for place in places for end in ("", "/metadata", "/thumbnail")]
        ways += [places[2] + end for end in ("/rendered", "/frames/1", "/frames/1/rendered")]
        for way in ways:
            assert client.ask("GET", way, "search", echo=echo)[0] == 200, way
    ids = [hit["id"] for hit in client.form("/v1/search", "search", marked(20), exclude="none", k="5")[1]["neighbors"]]
    for scope in ("search", "link"):
        shown = [client.ask("GET", f"/v1/images/{image}", scope, echo=scope == "link")[1] for image in ids]
        assert (PATIENT in json.dumps(shown)) == (linked and scope == "link")


def use_it_well(client: Client):
    """Everything that a department does with a patient's images."""
    by_patient = {"patient_id": PATIENT, "study_uid": STUDY}
    added = [client.form("/v1/images", "ingest", marked(number), **{"class": "Normal"}) for number in range(3)]
    assert [status for status, _ in added] == [201] * 3, added
    ids, version = [written["id"] for _, written in added], added[-1][1]["version"]
    wait = {"min_version": str(version)}
    assert client.form("/v1/images", "ingest", marked(0), **{"class": "Normal"})[0] == 200
    assert client.form("/v1/images", "ingest", golden()["mono2-16.dcm"], **by_patient)[0] == 201
    status, found = client.form("/v1/search", "search", marked(1), k="20", **wait)
    assert status == 200 and not {hit["id"] for hit in found["neighbors"]} & set(ids), "the patient's own are left out"
    status, found = client.form("/v1/search", "search", marked(1), k="20", exclude="none", **wait)
    assert status == 200 and ids[1] in {hit["id"] for hit in found["neighbors"]}
    status, found = client.form("/v1/search", "search", golden()["mono2-8-rle.dcm"], **by_patient)
    assert status == 200
    assert client.form("/v1/embeddings", "vectors", marked(2))[0] == 200
    assert client.form("/v1/explanations", "search", marked(2), neighbor=ids[0])[0] == 200
    assert client.ask("POST", "/v1/search/by-id", "search", {"ids": ids[:1], "exclude": ["none"]})[0] == 200
    for end in ("", "/thumbnail", "/rendered"):
        assert client.ask("GET", f"/v1/images/{ids[0]}{end}", "search")[0] == 200
    assert client.ask("PATCH", f"/v1/images/{ids[0]}", "ingest", {"class": None})[0] == 200
    told = {"image": ids[0], "suggested": None, "reason": f"{NAME} {PATIENT} has {FREE_TEXT}"}
    assert client.ask("POST", "/v1/feedback", "search", told)[0] < 300
    # Whoever has the scope for it reads what was written.
    assert PATIENT in json.dumps(client.ask("GET", "/v1/feedback", "admin", echo=True)[1])
    assert client.ask("GET", "/v1/feedback", "search")[0] == 403
    for path in ("/v1/archive", "/v1/classes", "/v1/archive/datasheet", "/v1/archive/datasheet.md", "/v1/model"):
        assert client.ask("GET", path, "search")[0] == 200
    assert client.ask("DELETE", f"/v1/images/{ids[1]}", "ingest")[0] == 200
    status, gone = client.ask("POST", "/v1/patients/delete", "ingest", {"patient_id": PATIENT, "issuer": ISSUER})
    assert status == 200 and gone["deleted"] >= 2


def use_it_wrongly(client: Client):
    """What comes with marks where none belong. The answer may repeat them to whoever sent them; nothing else may."""
    quoted = urllib.parse.quote(f"{NAME} {PATIENT}")
    paths = ("/v1/search", "/v1/archive", "/metrics", "/", "/openapi.json", "/readyz", f"/v1/images/{quoted}")
    paths += tuple(f"/dicom-web/{path}" for path in (f"studies/{STUDY}.9", f"studies/{PATIENT}", "instances", "series"))
    for path, method in itertools.product((*paths, f"/{quoted}", f"/v1/{PATIENT}/{STUDY}"), ("GET", "POST", "DELETE")):
        client.ask(method, f"{path}?PatientID={PATIENT}&StudyInstanceUID={STUDY}&{quoted}", echo=True)
    client.ask(f"{PATIENT}", "/v1/archive", echo=True)
    for scope in ("admin", None):
        client.ask(
            "GET",
            "/v1/archive",
            scope,
            echo=True,
            **{
                "User_Agent": NAME,
                "Referer": f"http://127.0.0.1/?{PATIENT}",
                "X_Patient": PATIENT,
                "Cookie": f"p={PATIENT}",
            },
            **{"Traceparent": f"00-{PATIENT}-{PATIENT}-01", "Baggage": f"patient={PATIENT}", "From": FILE},
        )
    client.ask("GET", "/v1/archive", None, echo=True, Authorization=f"Bearer {PATIENT}{STUDY}")
    client.ask("GET", "/v1/archive", None, echo=True, Authorization=f"Basic {PATIENT}")
    client.ask("POST", "/v1/search", "search", b"", echo=True, Origin=f"http://{PATIENT}.example")
    good = golden()["mono2-8.dcm"]
    for name in ("k", "vote", "classes", "exclude", "liked", "min_version", "patient", PATIENT, NAME):
        client.form("/v1/search", "search", good, echo=True, **{name: f"{NAME} {PATIENT}"})
    for name in ("class", "label_source", "study", ACCESSION):
        client.form("/v1/images", "ingest", good, echo=True, **{name: f"{NAME}\n{PATIENT}"})
    for broken in (marked(4)[:2000], marked(4)[:-5000], marked(4)[128:], FREE_TEXT.encode(), b""):
        for path, scope in (("/v1/search", "search"), ("/v1/images", "ingest"), ("/v1/embeddings", "vectors")):
            client.form(path, scope, broken)
    client.ask(
        "POST", "/v1/search", "search", part(good) + END, echo=True, Content_Type=f"multipart/form-data; x={PATIENT}"
    )
    client.ask("POST", "/v1/search", "search", marked(5), echo=True, Content_Type=f"application/{PATIENT}")
    for path in ("/v1/search/by-id", "/v1/search/by-vector", "/v1/feedback", "/v1/patients/delete"):
        for body in (
            {PATIENT: NAME},
            {"ids": [PATIENT]},
            {"patient_id": [PATIENT]},
            {"reason": FREE_TEXT, "image": PATIENT},
        ):
            client.ask("POST", path, body=body, echo=True)
        client.ask("POST", path, body=f'{{"patient_id": "{PATIENT}" {NAME}', echo=True, Content_Type="application/json")
    client.ask("POST", "/v1/patients/delete", body={"patient_id": f"{PATIENT}-other", "issuer": ISSUER}, echo=True)


def seen(content: bytes) -> list[str]:
    """The marks in it, as text, in UTF-16 or written for a URL."""
    return [
        mark
        for mark in MARKS
        if any(form in content for form in (mark.encode(), mark.encode("utf-16-le"), urllib.parse.quote(mark).encode()))
    ]


def context(content: bytes, mark: str) -> bytes:
    """What stands around it."""
    at = max(content.find(mark.encode()), 0)
    return content[max(0, at - 200) : at + 100]


def test_a_mark_would_be_found():
    """The search for marks is none that finds nothing."""
    assert set(seen(marked(0))) == set(MARKS) - {"PHIFILE"}
    assert seen(f"x {PATIENT}".encode("utf-16-le")) == [PATIENT]
