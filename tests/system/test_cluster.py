"""`scripts/cluster`: real replicas over one archive, one of them killed and another frozen while they are asked."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from conftest import ROOT, free_port, medsearch

ROWS, DIMENSION, SHARDS = 2000, 1024, 8
CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
# Memory for six of eight shards: rows only, of so few there are no graphs.
INDEX_BYTES_MAX = ROWS * DIMENSION * 4 * 13 // 16
STARTED_WITHIN_S = 60
SECONDS_ALIKE, SECONDS_KILLED, SECONDS_FROZEN = 3, 6, 4


@pytest.fixture
def archive(synthetic, tmp_path):
    """An archive of eight shards: records as `embed` writes them, vectors drawn."""
    rng = np.random.default_rng(0)
    embeddings = tmp_path / "embeddings"
    medsearch("embed", "--data", synthetic, "--out", embeddings, "--model", "thumbnail")
    for number, name in enumerate(CLASSES):
        described = embeddings / f"{name}.json"
        form = json.loads(described.read_text())
        form.pop("vectors_sha256", None)
        record = form["records"][0]
        of_class = []
        for row in range(ROWS // len(CLASSES)):
            digest = f"{number:032x}{row:032x}"
            of_class.append(record | {"id": f"{name}/{row}", "file": f"{name}/{row}.png", "sha256": digest})
            of_class[-1].pop("pixels_sha256", None)
        drawn = rng.random((len(of_class), DIMENSION), dtype=np.float32) + (np.arange(DIMENSION) % 4 == number)
        np.save(embeddings / f"{name}.npy", drawn.astype(np.float32))
        described.write_text(json.dumps(form | {"records": of_class}))
    out = tmp_path / "archive"
    where = ("--embeddings", embeddings, "--model", "thumbnail", "--archive", out)
    medsearch("index", *where, "--shards", SHARDS, "--synthetic")
    return out


def ports_of(count):
    """A port from which on there are free ones for the replicas and for what they say to each other."""
    for _ in range(50):
        port = free_port()
        if port < 64000 and all(is_free(port + at) and is_free(port + 100 + at) for at in range(count)):
            return port
    raise AssertionError(f"no room for {count} replicas")


def is_free(port):
    """Whether nobody listens there."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


class Replicas:
    """Three replicas, started as a person would."""

    def __init__(self, archive):
        self.port = ports_of(3)
        command = [ROOT / "scripts/cluster", "3", "--archive", archive, "--port", self.port]
        command += ["--index-bytes-max", INDEX_BYTES_MAX]
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("ready"):
                break
        else:
            raise AssertionError("".join(said))

    def pid(self, number):
        """Process of a replica."""
        return int((ROOT / f".local/cluster/replica-{number}.pid").read_text())

    def ask(self, number, body, timeout=10):
        """(status, answer) of a search at a replica."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port + number}/v1/search/by-id",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as problem:
            return problem.code, json.load(problem)

    def series(self, number, name):
        """Sum of a series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port + number}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def stop(self):
        """As Ctrl-C does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)


class Load:
    """Clients that ask all replicas in turn and, as a proxy does, another one once when a connection fails."""

    def __init__(self, replicas, ids, clients=2):
        self.replicas, self.ids = replicas, ids
        self.failed, self.took, self.avoid = [], [], set()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(at,)) for at in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, at):
        """Asks until it is told to stop."""
        for number in itertools.count(at):
            if self.ended.is_set():
                return
            body = {"ids": [self.ids[number % len(self.ids)]], "exact": number % 2 == 0, "k": 10}
            began = time.monotonic()
            places = [place for place in (number % 3, (number + 1) % 3, (number + 2) % 3) if place not in self.avoid]
            self.once_more(places, body)
            # What was under way at the frozen one waits for its end.
            if places[0] != 2:
                self.took.append(time.monotonic() - began)

    def once_more(self, places, body):
        """A search at the first place, or the second where a connection fails."""
        for place in places[:2]:
            try:
                status, answer = self.replicas.ask(place, body)
            except OSError as error:
                failure = str(error)
                continue
            if status != 200 or answer["coverage"]["missing"]:
                self.failed.append(f"{status}: {answer.get('detail')}")
            return
        self.failed.append(f"two connections failed: {failure}")

    def stop(self):
        """Waits for the clients."""
        self.ended.set()
        for thread in self.threads:
            thread.join()


def test_no_search_fails_when_a_replica_is_killed_or_frozen(archive):
    """Each of eight shards is held twice by three replicas, so that one of them may go."""
    replicas = Replicas(archive)
    try:
        ids = some_ids(replicas)
        load = Load(replicas, ids)
        time.sleep(SECONDS_ALIKE)
        assert sum(replicas.series(at, 'medsearch_shard_requests_total{outcome="answered"') for at in range(3)) > 0
        os.kill(replicas.pid(2), signal.SIGSTOP)
        load.avoid = {2}
        time.sleep(SECONDS_FROZEN)
        os.kill(replicas.pid(2), signal.SIGKILL)
        load.avoid = set()
        time.sleep(SECONDS_KILLED)
        load.stop()
        assert not load.failed, (len(load.failed), load.failed[:3])
        waits = sorted(load.took)
        print(f"{len(waits)} searches, p50 {waits[len(waits) // 2]:.3f} s, p99 {waits[len(waits) * 99 // 100]:.3f} s")
        assert len(waits) > 50
        # Those under way when it freezes may wait until a call is overdue; without hedges and another choice many do.
        assert waits[len(waits) * 95 // 100] < 1.5
        help_came = [
            replicas.series(at, "medsearch_hedges_total") + replicas.series(at, "medsearch_retries_total")
            for at in (0, 1)
        ]
        assert sum(help_came) > 0
        for at in (0, 1):
            with urllib.request.urlopen(f"http://127.0.0.1:{replicas.port + at}/readyz", timeout=5) as answer:
                assert answer.status == 200
    finally:
        with contextlib.suppress(ProcessLookupError, OSError):
            os.kill(replicas.pid(2), signal.SIGCONT)
        replicas.stop()


def some_ids(replicas):
    """Ids of images, by searching with a vector."""
    with urllib.request.urlopen(f"http://127.0.0.1:{replicas.port}/v1/archive", timeout=10) as answer:
        space = json.load(answer)["space"]["id"]
    request = urllib.request.Request(
        f"http://127.0.0.1:{replicas.port}/v1/search/by-vector",
        data=json.dumps({"vector": [1.0] * DIMENSION, "space": space, "k": 100}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return [neighbor["id"] for neighbor in json.load(answer)["neighbors"]]
