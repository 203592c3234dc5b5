"""Of a deleted image nothing is left in the bucket, in caches or in temporary files, and `erased` says so."""

import dataclasses
import hashlib
import json
import os
import time
import urllib.request
from pathlib import Path

import numpy as np

from conftest import in_bucket, png

# Small classes have graphs here.
GRAPHS = ("--exact-rows-max", "5")
AT_ONCE = ("--offline", "--manifest-seconds", "0", "--object-seconds", "0")
LEFT = 3
CACHE_WITHIN_S = 10
HALF = 2e-3
"""How far a number in half precision lies from the number, at most."""


def test_nothing_of_a_deleted_image_is_left_anywhere(bucket, synthetic, tmp_path):
    cache, temporary = tmp_path / "cache", tmp_path / "temporary"
    temporary.mkdir()
    place = dataclasses.replace(
        in_bucket(bucket, synthetic, tmp_path, *GRAPHS),
        environment=lambda number: bucket.environment(number) | {"TMPDIR": str(temporary)},
    )
    objects = bucket.objects("hospital/x-rays")
    server = place.serve(0, "--cache", cache, *GRAPHS)
    files = [png(seed) for seed in (1, 2)]
    ids = [server.post_image("/v1/images", file, **{"class": "COVID"})[1]["id"] for file in files]
    pictures = [fetch(f"{server.url}/v1/images/{image}/thumbnail") for image in ids]
    server.stop()
    # Both are in a graph then, and in a cache.
    place.run("compact", *GRAPHS, *AT_ONCE)
    server = place.serve(0, "--cache", cache, *GRAPHS)
    vectors = exported_vectors(place, tmp_path / "exported", files)
    deleted, kept = (
        {
            "id": image.encode(),
            "vector": vector.astype("<f4").tobytes(),
            "vector in a graph": vector / np.linalg.norm(vector),
            "picture": picture,
        }
        for image, vector, picture in zip(ids, vectors, pictures, strict=True)
    )
    for traces in (deleted, kept):
        there = {name: files_with(objects, trace) for name, trace in traces.items()}
        assert all(there.values()), there
        for name in ("id", "vector", "vector in a graph"):
            assert files_with(cache, traces[name]), f"{name} is in the cache"
    living = place.run("erased", "--id", ids[0], check=False)
    assert living.returncode == LEFT and f"not deleted: image {ids[0]}" in living.stdout

    request = urllib.request.Request(f"{server.url}/v1/images/{ids[0]}", method="DELETE")
    assert urllib.request.urlopen(request, timeout=30).status in (200, 204)
    server.stop()
    left = place.run("erased", "--id", ids[0], check=False)
    assert left.returncode == LEFT and f"left: image {ids[0]} in rows/" in left.stdout

    place.run("compact", *GRAPHS, *AT_ONCE)
    proof = place.run("erased", "--id", ids[0])
    assert "0 rows and 0 bytes of pictures of deleted images left" in proof.stdout
    server = place.serve(0, "--cache", cache, *GRAPHS)
    try:
        end = time.monotonic() + CACHE_WITHIN_S
        while any(files_with(cache, trace) for trace in deleted.values()):
            assert time.monotonic() < end, {name: files_with(cache, trace) for name, trace in deleted.items()}
            time.sleep(0.2)
        for folder in (objects, cache, temporary):
            assert {name: files_with(folder, trace) for name, trace in deleted.items()} == {
                name: [] for name in deleted
            }
        assert all(files_with(objects, trace) for trace in kept.values())
        assert files_with(cache, kept["vector"])
    finally:
        server.stop()


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def exported_vectors(place, out: Path, files: list[bytes]) -> list[np.ndarray]:
    """Those of images that were these files, as they are given back."""
    place.run("export", "--out", out)
    found = {}
    for described in out.glob("[!_]*.json"):
        table = np.load(described.with_suffix(".npy"))
        records = json.loads(described.read_text())["records"]
        found |= {record["sha256"]: table[row] for row, record in enumerate(records)}
    return [found[hashlib.sha256(file).hexdigest()] for file in files]


def files_with(folder: Path, trace: bytes | np.ndarray) -> list[str]:
    """The files below a folder that hold these bytes, or this vector in half precision."""
    holds = bytes.__contains__ if isinstance(trace, bytes) else holds_halves
    paths = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
    return [str(path.relative_to(folder)) for path in paths if holds(path.read_bytes(), trace)]


def holds_halves(content: bytes, vector: np.ndarray) -> bool:
    """Whether all of a vector's components are there in a row, however they were rounded."""
    for odd in (0, 1):
        table = np.frombuffer(content[odd : odd + (len(content) - odd) // 2 * 2], "<f2")
        with np.errstate(all="ignore"):
            begins = np.isclose(table[: len(table) - len(vector) + 1], vector[0], rtol=HALF, atol=0)
            if any(np.allclose(table[at : at + len(vector)], vector, HALF, HALF) for at in np.flatnonzero(begins)):
                return True
    return False
