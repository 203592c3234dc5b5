"""A write that was answered is there: after fsync, after kill -9, beside a full disk."""

import concurrent.futures
import json
import os
import random
import re
import subprocess
import time
import urllib.error
from pathlib import Path

import pytest

from conftest import Server, have, medsearch, png

ROUNDS = int(os.environ.get("MEDSEARCH_KILL_ROUNDS", "8"))
# Where scripts/soak wants the figures of the kills.
FIGURES = os.environ.get("MEDSEARCH_KILL_FIGURES")


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


def test_kill_9_loses_nothing_and_doubles_nothing(small_archive, tmp_path):
    chance = random.Random(7)
    base = None
    acknowledged: dict[int, str] = {}
    sent = 0
    for _ in range(ROUNDS):
        server = Server(small_archive, "--model", "thumbnail", log=tmp_path / "log")
        if base is None:
            base = server.get("/v1/archive")["images"]
        else:
            check(server, base, acknowledged)
        deadline = time.monotonic() + chance.uniform(0.05, 0.8)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            pending = {}

            def submit(number, server=server, pool=pool, pending=pending):
                pending[number] = pool.submit(server.post_image, "/v1/images", png(number), 30, **{"class": "COVID"})

            while time.monotonic() < deadline:
                if len(pending) < 200:
                    submit(1000 + sent)
                    sent += 1
                time.sleep(0.005)
            server.kill()
            for number, future in pending.items():
                try:
                    status, receipt = future.result()
                except (OSError, ValueError, urllib.error.URLError):
                    continue
                if status in (200, 201):
                    acknowledged[number] = receipt["id"]
    server = Server(small_archive, "--model", "thumbnail", log=tmp_path / "log")
    try:
        check(server, base, acknowledged)
        # What was never answered is sent again: it is either new or known, never there twice.
        for number in range(1000, 1000 + sent):
            status, receipt = server.post_image("/v1/images", png(number), **{"class": "COVID"})
            assert status in (200, 201)
            assert receipt["id"] == acknowledged.get(number, receipt["id"])
        wait_for(server, base + sent)
        print(f"{ROUNDS} kills, {sent} uploads, {len(acknowledged)} acknowledged before a kill, all found once")
        if FIGURES:
            figures = {"kills": ROUNDS, "uploads": sent, "acknowledged_before_a_kill": len(acknowledged), "lost": 0}
            Path(FIGURES).write_text(json.dumps(figures))
        assert len(acknowledged) > ROUNDS
    finally:
        server.stop()
    medsearch("verify", "--archive", small_archive)


def check(server, base, acknowledged):
    for identity in acknowledged.values():
        server.get(f"/v1/images/{identity}")
    assert server.get("/v1/archive")["images"] >= base + len(acknowledged)


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


def fill_and_write(server, mount):
    base = server.get("/v1/archive")["images"]
    stored, refused = [], 0
    ballast = mount / "ballast"
    # Free space from nothing upwards: each of an upload's writes (packs, rows, manifest) meets the full disk in turn.
    for step in range(40):
        room = os.statvfs(mount)
        ballast.write_bytes(b"")
        free = os.statvfs(mount).f_bavail * room.f_frsize
        ballast.write_bytes(b"\0" * max(0, free - step * 4096))
        status, receipt = server.post_image("/v1/images", png(9000 + step), **{"class": "Normal"})
        if status == 201:
            stored.append(receipt["id"])
        else:
            refused += 1
            assert status in (503, 507), receipt
            assert receipt["type"].endswith(("/storage-full", "/unavailable")), receipt
        assert server.post_image("/v1/search", png(1))[0] == 200, "searches go on"
    ballast.unlink()
    assert refused > 0
    status, receipt = server.post_image("/v1/images", png(9999), **{"class": "Normal"})
    assert status == 201, receipt
    stored.append(receipt["id"])
    wait_for(server, base + len(stored))
    for identity in stored:
        server.get(f"/v1/images/{identity}")
    print(f"{refused} writes refused on a full disk, {len(stored)} stored, none lost")
