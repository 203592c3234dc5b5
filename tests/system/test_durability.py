"""A write that was answered is there: after fsync, after kill -9, beside a full disk."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import re
import subprocess
import time
import urllib.error

import pytest

from conftest import Server, have, medsearch, note, png

# In a folder; in a bucket a quarter of it.
ROUNDS = int(os.environ.get("MEDSEARCH_KILL_ROUNDS", "20"))


def test_data_manifest_and_folders_are_synced_before_the_answer(small_archive, tmp_path):
    """Reads the system calls of one upload: files and folders of the archive are fsynced before the 2xx."""
    strace = have("strace")
    trace = tmp_path / "trace"
    calls = "trace=openat,fsync,fdatasync,link,linkat,rename,renameat,renameat2,sendto,write,writev,sendmsg"
    server = Server(
        small_archive, "--model", "thumbnail", wrapper=(strace, "-f", "-yy", "-s", "64", "-o", trace, "-e", calls)
    )
    try:
        before = trace.stat().st_size
        status, receipt = server.post_image("/v1/images", png(1), **{"class": "COVID"})
        assert status == 201, receipt
        time.sleep(0.5)
        lines = trace.read_text(errors="replace")[before:].splitlines()
    finally:
        subprocess.run(["pkill", "-P", str(server.process.pid)], check=False)
        server.process.wait(20)
    answered = next(i for i, line in enumerate(lines) if "HTTP/1.1 201" in line)
    synced = [re.search(r"f(?:data)?sync\(\d+<([^>]*)>", line) for line in lines[:answered]]
    synced = [match.group(1) for match in synced if match]
    root = str(small_archive)
    for folder in ("rows", "manifest"):
        assert any(path.startswith(f"{root}/{folder}/") for path in synced), (
            f"no fsync of a file under {folder}/: {synced}"
        )
        assert any(path.rstrip("/") == f"{root}/{folder}" for path in synced), (
            f"no fsync of the folder {folder}: {synced}"
        )
    last_data = max(i for i, line in enumerate(lines[:answered]) if "sync(" in line and f"{root}/rows" in line)
    manifest = min(i for i, line in enumerate(lines[:answered]) if "sync(" in line and f"{root}/manifest" in line)
    assert last_data < manifest, "the manifest must not be durable before what it names"


def test_kill_9_loses_nothing_and_doubles_nothing(place, tmp_path):
    """Two servers write, some images to both at once; one is killed, and comes back while the other goes on."""
    in_folder = not str(place.archive).startswith("s3:")
    rounds = ROUNDS if in_folder else max(1, ROUNDS // 4)
    writers = Writers(place, tmp_path)
    try:
        base = writers.servers[0].get("/v1/archive")["images"]
        for _ in range(rounds):
            writers.round()
        writers.send_again()
        for server in writers.servers:
            wait_for(server, base + writers.sent)
            for identity in writers.acknowledged.values():
                server.get(f"/v1/images/{identity}")
        figures = writers.figures | {"kills": rounds, "uploads": writers.sent, "lost": 0, "twice": 0}
        assert figures["acknowledged_before_a_kill"] > rounds and figures["told_by_both"] > 0
        assert writers.sent + base == len(exported(place, tmp_path))
        note(f"archive_in_a_{'folder' if in_folder else 'bucket'}", figures)
    finally:
        writers.stop()
    place.run("verify")


class Writers:
    """Two servers of one archive, and who sends images to them."""

    def __init__(self, place, tmp_path):
        self.place, self.tmp_path = place, tmp_path
        self.chance = random.Random(7)
        self.servers = [self.start(0), self.start(1)]
        self.acknowledged: dict[int, str] = {}
        self.sent = 0
        self.figures = {"acknowledged_before_a_kill": 0, "unanswered": 0, "told_by_both": 0}

    def start(self, number):
        """The server of that number, until it is ready."""
        return self.place.serve(number, log=self.tmp_path / f"log-{number}")

    def round(self):
        """Sends until a random moment, kills a writer, sends to the other until that is back, looks for the images."""
        victim, end = self.chance.randrange(2), time.monotonic() + self.chance.uniform(0.05, 0.6)
        pending: list[tuple[int, concurrent.futures.Future]] = []
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            while time.monotonic() < end:
                self.send(pool, pending, self.servers)
            self.servers[victim].kill()
            again = pool.submit(self.start, victim)
            while not again.done():
                self.send(pool, pending, [self.servers[1 - victim]])
            self.servers[victim] = again.result()
            self.note(pending)
        for number in {number for number, _ in pending} & self.acknowledged.keys():
            for server in self.servers:
                wait_for_image(server, self.acknowledged[number])

    def send(self, pool, pending, servers):
        """One more image, to one of these servers or now and then to all of them at once."""
        if sum(not future.done() for _, future in pending) >= 16:
            time.sleep(0.005)
            return
        number, to = self.sent, servers if self.sent % 4 == 0 else [self.chance.choice(servers)]
        self.sent += 1
        fields = {"class": "COVID"}
        for server in to:
            pending.append((number, pool.submit(server.post_image, "/v1/images", png(1000 + number), 30, **fields)))
        time.sleep(0.004)

    def note(self, pending):
        """What was answered: an image is new once and has one name, whoever was asked."""
        told: dict[int, list[int]] = {}
        for number, future in pending:
            try:
                status, receipt = future.result()
            except (OSError, ValueError, http.client.HTTPException):
                self.figures["unanswered"] += 1
                continue
            if status not in (200, 201):
                assert status == 503, receipt
                continue
            assert self.acknowledged.setdefault(number, receipt["id"]) == receipt["id"]
            told.setdefault(number, []).append(status)
        self.figures["acknowledged_before_a_kill"] += len(told)
        for number, statuses in told.items():
            assert statuses.count(201) <= 1, f"image {number} is new twice"
            self.figures["told_by_both"] += len(statuses) > 1

    def send_again(self):
        """What was never answered, and some of the rest: it is either new or known, never there twice."""
        known = self.chance.sample(sorted(self.acknowledged), min(50, len(self.acknowledged)))
        for number in [number for number in range(self.sent) if number not in self.acknowledged] + known:
            server = self.chance.choice(self.servers)
            status, receipt = server.post_image("/v1/images", png(1000 + number), **{"class": "COVID"})
            assert status in ((200,) if number in known else (200, 201)), receipt
            assert receipt["id"] == self.acknowledged.setdefault(number, receipt["id"])

    def stop(self):
        """SIGTERM, where one still runs."""
        for server in self.servers:
            if server.process.poll() is None:
                server.stop()


def exported(place, tmp_path):
    """Every image as it is given back, each once."""
    out = tmp_path / "exported"
    place.run("export", "--out", out)
    files = [json.loads(path.read_text()) for path in out.glob("*.json") if not path.name.startswith("_")]
    digests = [record["sha256"] for file in files for record in file["records"]]
    assert len(digests) == len(set(digests)), "an image is there twice"
    return digests


def wait_for_image(server, identity, seconds=5):
    """Until a server shows an image: what another one wrote is there within two seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            server.get(f"/v1/images/{identity}")
            return
        except urllib.error.HTTPError as problem:
            assert problem.code == 404 and time.monotonic() < end, f"image {identity}: {problem.code}"
        time.sleep(0.05)


def wait_for(server, images, seconds=5):
    end = time.monotonic() + seconds
    while server.get("/v1/archive")["images"] != images:
        assert time.monotonic() < end, (server.get("/v1/archive")["images"], images)
        time.sleep(0.1)


def test_full_disk_refuses_and_loses_nothing(synthetic, tmp_path):
    """A refused write leaves no trace on a full disk, and writing goes on once there is room."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", mount], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip("a tmpfs can't be mounted here (needs root)")
    try:
        medsearch("embed", "--data", synthetic, "--out", tmp_path / "embeddings", "--model", "thumbnail")
        archive = mount / "archive"
        medsearch(
            "index",
            "--embeddings",
            tmp_path / "embeddings",
            "--model",
            "thumbnail",
            "--archive",
            archive,
            "--secret-file",
            tmp_path / "secret",
        )
        server = Server(archive, "--model", "thumbnail", "--secret-file", tmp_path / "secret")
        try:
            fill_and_write(server, mount)
        finally:
            server.stop()
    finally:
        subprocess.run(["umount", "-l", mount], check=False)


def fill(mount, but):
    """Leaves so many bytes free; all of them for none."""
    ballast = mount / "ballast"
    ballast.unlink(missing_ok=True)
    if but is not None:
        room = os.statvfs(mount)
        # A server that is embedding may be quicker, and the disk full before: that is what is wanted.
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            file.write(b"\0" * max(0, room.f_bavail * room.f_frsize - but))


def fill_and_write(server, mount):
    base = server.get("/v1/archive")["images"]
    stored, refused = [], 0
    # Free space from nothing upwards: each of an upload's writes (packs, rows, manifest) meets the full disk in turn.
    for step in range(40):
        fill(mount, but=step * 4096)
        status, receipt = server.post_image("/v1/images", png(9000 + step), **{"class": "Normal"})
        if status == 201:
            stored.append(receipt["id"])
        else:
            refused += 1
            assert status in (503, 507), receipt
            assert receipt["type"].endswith(("/storage-full", "/unavailable")), receipt
        assert server.post_image("/v1/search", png(1))[0] == 200, "searches go on"
    fill(mount, but=None)
    assert refused > 0
    status, receipt = server.post_image("/v1/images", png(9999), **{"class": "Normal"})
    assert status == 201, receipt
    stored.append(receipt["id"])
    wait_for(server, base + len(stored))
    for identity in stored:
        server.get(f"/v1/images/{identity}")
    print(f"{refused} writes refused on a full disk, {len(stored)} stored, none lost")
