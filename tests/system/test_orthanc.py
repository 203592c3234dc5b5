"""A real Orthanc hands on what it is sent, by every way there is, across kills: each image arrives once, as it was."""

import json
import os
import random
import re
import subprocess
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

import mixed
from conftest import ROOT, Server, have, medsearch, note
from mixed import LOSSY, LOSSY_LEVELS_MAX, SCOPE, Sent
from pacs import ENTRY, Orthanc
from test_inbox import until_empty

# scripts/soak's are 500, for each way; of six images one more object that is no image or not wanted.
IMAGES = int(os.environ.get("MEDSEARCH_PACS_IMAGES", "24"))
OTHERS = IMAGES // 6
# How often the server is killed on each way, and between which of these kills Orthanc is restarted.
KILLS = max(1, IMAGES // 100)
FULL = IMAGES >= 500
PATIENCE_S = 600 if FULL else 120
# By what Orthanc is sent files. storescu can't propose the first of the two lossless JPEGs.
PROPOSED = {
    uid.ImplicitVRLittleEndian: "-xi",
    uid.ExplicitVRLittleEndian: "-xe",
    uid.ExplicitVRBigEndian: "-xb",
    uid.DeflatedExplicitVRLittleEndian: "-xd",
    uid.RLELossless: "-xr",
    uid.JPEGBaseline8Bit: "-xy",
    uid.JPEGExtended12Bit: "-xx",
    uid.JPEGLosslessSV1: "-xs",
    uid.JPEGLSLossless: "-xt",
    uid.JPEGLSNearLossless: "-xu",
    uid.JPEG2000Lossless: "-xv",
    uid.JPEG2000: "-xw",
}
# What Orthanc does of itself (MEDSEARCH_PUSH of scripts/orthanc), and where a person hands on.
WAYS = {
    "dicomweb-job": ("none", "/dicom-web/servers/medsearch/stow"),
    "peer": ("none", "/peers/medsearch/store"),
    "lua-dicomweb": ("dicomweb", None),
    "lua-peer": ("peer", None),
    # What Lua sends file by file is lost while nobody takes it: README.md says to follow beside it.
    "lua-file": ("file", None),
    "followed": ("none", None),
}
FOLLOWED = ("lua-file", "followed")
TRIED = WAYS if FULL else ("dicomweb-job", "lua-peer", "lua-file")


@pytest.fixture(scope="module")
def studies():
    """The same for every way."""
    have("dcmsend")
    return mixed.studies(IMAGES, OTHERS, of=22 if FULL else (IMAGES + OTHERS) // 2)


@dataclass
class Delivery:
    """A way, an archive, and an Orthanc between."""

    way: str
    archive: Path
    folder: Path
    figures: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.chance = random.Random(self.way)
        push, self.path = WAYS[self.way]
        (self.folder / "basic").write_text(f"medsearch:{ENTRY}\n")
        self.server, self.port = None, None
        # Orthanc has to know where the server is before that runs.
        self.options = ["--model", "thumbnail"]
        self.start()
        self.front = Orthanc(self.folder / "orthanc", medsearch_url=self.server.url, push=push)
        if self.way in FOLLOWED:
            (self.folder / "pacs.toml").write_text(
                f'[[orthanc]]\nname = "front"\nurl = "{self.front.url}"\nbasic_file = "basic"\nfollow = true\n'
            )
            self.options += ["--pacs-file", self.folder / "pacs.toml"]
            self.server.stop()
            self.start()

    def start(self):
        """The server, where it was."""
        self.server = Server(self.archive, *self.options, port=self.port, log=self.folder / "log")
        self.port = self.server.port

    def stop(self):
        """Both."""
        self.front.stop()
        if self.server.process.poll() is None:
            self.server.stop()

    def send(self, studies: list[list[Sent]]):
        """A third by storescu, a third by dcmsend, a third by REST, and on by whoever does that."""
        known = set(self.front.ask("/studies"))
        by_scu, by_send = {}, []
        for each in mixed.of(studies):
            number = int(each.instance.rsplit(".", 1)[1]) % 3
            if number == 0 and each.syntax in PROPOSED:
                by_scu.setdefault(each.syntax, []).append(each)
            elif number < 2:
                by_send.append(each)
            else:
                self.front.store(each.file)
                self.figures["sent_by_rest"] += 1
        for syntax, files in by_scu.items():
            self.scu("storescu", files, "-aec", "ORTHANC", "-R", PROPOSED[syntax], "--scan-directories")
        if by_send:
            self.scu("dcmsend", by_send, "-aec", "ORTHANC", "--decompress-never", "--scan-directories")
        if self.path:
            # One job a study, as `push.lua` does it.
            for study in sorted(set(self.front.ask("/studies")) - known):
                self.push(study)

    def push(self, study: str):
        """Starts a job."""
        body = {"Resources": [study], "Synchronous": False, "Asynchronous": True}
        self.front.ask(self.path, json.dumps(body).encode())

    def scu(self, program: str, files: list[Sent], *options):
        """A C-STORE client sends a folder."""
        folder = self.folder / f"send-{program}"
        folder.mkdir()
        for number, each in enumerate(files):
            (folder / f"{number}.dcm").write_bytes(each.file)
        address = ("127.0.0.1", str(self.front.dicom_port))
        # The folder is the last of storescu's and of dcmsend's arguments, the options come first.
        command = [have(program), "-aet", "STORESCU", *options[:-1], *address, options[-1], folder]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, f"{program}: {run.stderr[-2000:]}{run.stdout[-2000:]}"
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        self.figures[f"sent_by_{program}"] += len(files)

    def outage(self, during: list[list[Sent]], restart_orthanc: bool):
        """The server is killed in the middle of its work, and sent to while it is away."""
        time.sleep(self.chance.uniform(0.2, 1.5))
        self.server.kill()
        self.figures["kills"] += 1
        self.send(during)
        if restart_orthanc:
            self.front.stop()
            self.front.start()
            self.figures["orthanc_restarts"] += 1
        time.sleep(self.chance.uniform(0.5, 2))
        self.start()

    def settle(self, images: int):
        """Until all are there, with what scripts/orthanc/README.md tells an operator to do after an outage."""
        end = time.monotonic() + PATIENCE_S
        while len(found(self.server)) < images or self.unfinished():
            assert time.monotonic() < end, (self.way, len(found(self.server)), images, self.jobs())
            if self.way not in FOLLOWED and not self.unfinished():
                if failed := self.jobs()["Failure"]:
                    operator(self.front, "jobs?expand")
                    self.figures["jobs_sent_again"] += failed
                elif self.all_handed_on():
                    operator(self.front, "studies?expand")
                    self.figures["studies_sent_again"] += len(self.front.ask("/studies"))
            time.sleep(2)

    def all_handed_on(self) -> bool:
        """Nothing is to come any more, and the inbox is empty."""
        every = self.front.ask("/studies?expand")
        return all(study["IsStable"] for study in every) and "0 files wait" in inbox(self.archive)

    def jobs(self) -> Counter:
        """How many of Orthanc's are in each state."""
        return Counter(job["State"] for job in self.front.ask("/jobs?expand"))

    def unfinished(self) -> bool:
        """Some of them have not ended."""
        return bool(self.jobs().keys() - {"Success", "Failure"})


def operator(front: Orthanc, mark: str):
    """Runs the example of scripts/orthanc/README.md that has a mark in it, as printed but for the port."""
    blocks = re.findall(r"```sh(?: run)?\n(.*?)```", (ROOT / "scripts/orthanc/README.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if mark in block]
    block = block.replace("http://127.0.0.1:8042", front.url)
    environment = os.environ | {"ORTHANC_PASSWORD": ENTRY, "SINCE": "20000101T000000"}
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], check=True, env=environment, stdout=subprocess.DEVNULL, timeout=60
    )


def inbox(archive: Path) -> str:
    """What waits in it."""
    return medsearch("inbox", "--archive", archive).stdout


def found(server: Server) -> list[dict]:
    """All instances that QIDO-RS tells of, of the studies that were sent."""
    every, page = [], None
    while page is None or len(page) == 1000:
        page = server.get(f"/dicom-web/instances?limit=1000&offset={len(every)}&includefield=all")
        every += page
    return every


def check(server: Server, studies: list[list[Sent]]) -> dict:
    """Each admitted image is there once, nothing else is, and all samples are pydicom's."""
    place = "{url}/dicom-web/studies/{study}/series/{series}/instances/{instance}"
    compared, apart_max, shown_max = Counter(), Counter(), 0.0
    admitted = [each for each in mixed.of(studies) if each.admitted]
    for each in mixed.of(studies):
        where = place.format(url=server.url, study=each.study, series=each.series, instance=each.instance)
        hits = server.get(f"/dicom-web/instances?StudyInstanceUID={each.study}&SOPInstanceUID={each.instance}")
        assert len(hits) == int(each.admitted), (each.kind, each.syntax, len(hits))
        if not each.admitted:
            continue
        [said] = server.get(where[len(server.url) :] + "/metadata")
        for number in range(1, said.get("00280008", {"Value": [1]})["Value"][0] + 1):
            apart = np.abs(stored(where, number, said) - each.frame(number).astype(int)).max()
            apart_max[each.syntax] = max(apart_max[each.syntax], int(apart))
            assert apart <= LOSSY_LEVELS_MAX.get(each.syntax, 0), (each.kind, each.syntax, number, apart)
            compared["frames"] += 1
        center, width = each.window
        png = fetch(f"{where}/rendered?window={center},{width},linear", "image/png")
        apart = np.abs(mixed.picture(png) - each.shown()).max()
        # Rounded to 8 bit, and what a lossy sample is away before that, through a window that stretches it.
        apart_may = 1 + LOSSY_LEVELS_MAX.get(each.syntax, 0) * max(1, 255 / (width - 1))
        assert apart <= apart_may, (each.kind, each.syntax, apart)
        shown_max = max(shown_max, float(apart))
        compared["rendered"] += 1
    lossy = {uid.UID(syntax).name: apart for syntax, apart in sorted(apart_max.items()) if syntax in LOSSY}
    assert compared["rendered"] == len(admitted)
    return {
        "frames_compared": compared["frames"],
        "lossless_apart_max": max((apart for syntax, apart in apart_max.items() if syntax not in LOSSY), default=0),
        "lossy_apart_max": lossy,
        "rendered_compared": compared["rendered"],
        "rendered_apart_max": round(shown_max, 2),
    }


def stored(where: str, number: int, said: dict) -> np.ndarray:
    """A frame as WADO-RS gives it, by what its metadata says."""
    rows, columns, samples, bits, signed = (
        said[tag]["Value"][0] for tag in ("00280010", "00280011", "00280002", "00280100", "00280103")
    )
    data = fetch(f"{where}/frames/{number}", "application/octet-stream")
    values = np.frombuffer(data, f"<{'i' if signed else 'u'}{bits // 8}").astype(int)
    return values.reshape((rows, columns) if samples == 1 else (rows, columns, samples))


def fetch(url: str, accept: str) -> bytes:
    """The bytes of one thing."""
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=30) as answer:
        return answer.read()


@pytest.mark.parametrize("way", TRIED)
def test_each_image_arrives_once_as_it_was(way, studies, synthetic, tmp_path):
    """The server is killed again and again and Orthanc restarted; in the end nothing is missing, twice or changed."""
    began = time.monotonic()
    archive = archive_for(synthetic, tmp_path, retention="view" if way == "peer" else "original")
    delivery = Delivery(way, archive, tmp_path)
    base = delivery.server.get("/v1/archive")["images"]
    try:
        # Two parts for each kill: one that is being taken over then, and one that comes meanwhile.
        parts = [studies[number :: 2 * KILLS] for number in range(2 * KILLS)]
        for number in range(KILLS):
            delivery.send(parts[2 * number])
            delivery.outage(parts[2 * number + 1], restart_orthanc=number == KILLS // 2)
        images = sum(each.admitted for each in mixed.of(studies))
        delivery.settle(images)
        until_empty(archive, PATIENCE_S)
        pixels = check(delivery.server, studies)
        assert len(found(delivery.server)) == images
        assert delivery.server.get("/v1/archive")["images"] == base + images
    finally:
        delivery.stop()
    assert pushed(archive, tmp_path) == images
    medsearch("verify", "--archive", archive)
    told = (tmp_path / "log").read_text()
    assert not [mark for mark in ("MIX-", "Doe", mixed.ROOT_UID, ENTRY) if mark in told]
    figures = dict(sorted(delivery.figures.items())) | mixed.counted(studies) | pixels
    figures |= {"images_there": images, "lost": 0, "twice": 0, "seconds": round(time.monotonic() - began)}
    note(f"way_{way}", figures)


def pushed(archive: Path, folder: Path) -> int:
    """How many unlabelled images come out of it: those that were pushed. None is there twice."""
    medsearch("export", "--archive", archive, "--out", folder / "exported")
    records = json.loads((folder / "exported/_unlabelled.json").read_text())["records"]
    assert len({record["sha256"] for record in records}) == len(records)
    return len(records)


def archive_for(synthetic, folder: Path, retention: str) -> Path:
    """A small archive in thumbnail space that takes what SCOPE says and keeps its pixels."""
    archive = folder / "archive"
    where = ("--embeddings", folder / "embeddings", "--data", synthetic, "--model", "thumbnail", "--archive", archive)
    medsearch("embed", "--data", synthetic, "--out", folder / "embeddings", "--model", "thumbnail")
    medsearch("index", *where, "--synthetic", "--retention", retention)
    medsearch("scope", "--archive", archive, *(word for name in SCOPE for word in ("--modality", name)))
    return archive
