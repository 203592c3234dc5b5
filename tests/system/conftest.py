"""The real program, started as a user would: archives made by `embed` and `index`, servers on free ports."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("MEDSEARCH_PROGRAM", ROOT / "target/release/medsearch"))
MODEL = ROOT / "models/efficientnet_lite0"
SHARED = Path(os.environ.get("MEDSEARCH_SHARED", ROOT.parent / "shared"))
# A file for what tests measure.
FIGURES = os.environ.get("MEDSEARCH_FIGURES")
sys.path.insert(0, str(ROOT / "scripts"))


def medsearch(*arguments, check=True, **options):
    """Runs one command of the program and returns what it printed."""
    run = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, **options)
    assert not check or run.returncode == 0, (
        f"medsearch {arguments[0]} ended with {run.returncode}: {run.stderr[-2000:]}"
    )
    return run


def script(name, *arguments, check=True, **options):
    """Runs one of the project's Python scripts."""
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *map(str, arguments)], capture_output=True, text=True, **options
    )
    assert not check or run.returncode == 0, (
        f"{name} ended with {run.returncode}: {run.stderr[-2000:]}{run.stdout[-2000:]}"
    )
    return run


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running `medsearch serve`."""

    def __init__(self, archive: Path, *arguments, wrapper=(), environment=None, log=None, port=None):
        self.archive, self.port = archive, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = Path(log).open("ab") if log else subprocess.DEVNULL  # noqa: SIM115 (closed with the process)
        command = [*wrapper, PROGRAM, "serve", "--archive", archive, "--listen", f"127.0.0.1:{self.port}", *arguments]
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self.log, stderr=self.log, env={**os.environ, **(environment or {})}
        )
        self.wait()

    def wait(self, seconds=60):
        """Until /readyz says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"{self.url}/readyz", timeout=2).status == 200:
                    return
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}")
            time.sleep(0.05)
        raise AssertionError("the server did not become ready")

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM and wait."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def get(self, path):
        """JSON of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def post_image(self, path, image: bytes, timeout=60, headers=None, **fields):
        """(status, JSON) of a multipart POST with one image."""
        boundary = uuid.uuid4().hex
        body = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        )
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'.encode()
        body += image + f"\r\n--{boundary}--\r\n".encode()
        form = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = urllib.request.Request(self.url + path, data=body, headers=form | (headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as problem:
            return problem.code, json.load(problem)


def note(name: str, figures: dict):
    """Prints figures, and keeps them beside those of the other tests where scripts/soak asks for that."""
    print(f"\n{name}: {json.dumps(figures, indent=1)}")
    if FIGURES:
        file = Path(FIGURES)
        known = json.loads(file.read_text()) if file.exists() and file.stat().st_size else {}
        file.write_text(json.dumps(known | {name: figures}))


def fixed_secret(archive: Path) -> Path:
    """Gives an archive that is about to be made the secret of every run.

    It orders the images, and so draws who is left out where something is learned.
    """
    Path(f"{archive}.secret").write_text("5e" * 32)
    Path(f"{archive}.secret").chmod(0o600)
    return archive


@pytest.fixture(scope="session")
def model():
    """The default model, exported."""
    if not (MODEL / "model.json").exists():
        script("export_model.py", "--model", "efficientnet_lite0", "--out", MODEL)
    return MODEL


@pytest.fixture(scope="session")
def shared():
    """Labelled chest X-rays that are no part of the project."""
    if not (SHARED / "data/README.md").exists():
        pytest.skip("the labelled X-rays of ../shared are not here")
    return SHARED / "data"


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """A small folder of synthetic radiographs."""
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    script("make_synthetic_xrays.py", "--out", folder, "--count", 40, "--seed", 5)
    return folder


@pytest.fixture(scope="session")
def three_class(shared, model, tmp_path_factory):
    """(data, embeddings of the Rust way, archive) of the 251 real images."""
    folder = tmp_path_factory.mktemp("three-class")
    data = shared / "cxr-three-class"
    medsearch("embed", "--data", data, "--out", folder / "embeddings", "--model", model)
    archive = fixed_secret(folder / "archive")
    where = ("--embeddings", folder / "embeddings", "--data", data, "--model", model, "--archive", archive)
    medsearch("index", *where, "--show-file-names")
    return data, folder / "embeddings", archive


@pytest.fixture(scope="session")
def made(synthetic, tmp_path_factory):
    """A folder with `embeddings` and an `archive` of the synthetic radiographs in thumbnail space, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    where = ("--data", synthetic, "--model", "thumbnail")
    medsearch("embed", *where, "--out", folder / "embeddings")
    medsearch("index", *where, "--embeddings", folder / "embeddings", "--archive", folder / "archive", "--synthetic")
    return folder


@pytest.fixture
def small_archive(made, tmp_path):
    """A fresh archive in thumbnail space: no model, starts at once."""
    for name in ("embeddings", "archive"):
        shutil.copytree(made / name, tmp_path / name)
    shutil.copy2(made / "archive.secret", tmp_path)
    return tmp_path / "archive"


@pytest.fixture
def bucket(tmp_path):
    """A bucket on this machine, empty."""
    from bucket import Bucket

    server = Bucket(tmp_path / "s3")
    yield server
    server.stop()


@dataclass(frozen=True)
class Place:
    """Where an archive is, and how programs come there."""

    archive: object
    # Beside `--archive`, for every command.
    options: tuple = ()
    # Variables for the client with a number.
    environment: Callable[[int], dict] = lambda number: {}  # noqa: ARG005 (a folder needs none)

    def serve(self, number=0, *arguments, log=None):
        """A server of it."""
        where = ("--model", "thumbnail", *self.options, *arguments)
        return Server(self.archive, *where, environment=self.environment(number), log=log)

    def run(self, command, *arguments, check=True):
        """One command about it."""
        environment = {**os.environ, **self.environment(0)}
        return medsearch(command, "--archive", self.archive, *self.options, *arguments, check=check, env=environment)


def in_bucket(bucket, synthetic, tmp_path, *arguments):
    """A fresh archive in thumbnail space in a bucket."""
    embeddings, secret = tmp_path / "embeddings", tmp_path / "secret"
    medsearch("embed", "--data", synthetic, "--out", embeddings, "--model", "thumbnail")
    place = Place("s3://bucket/hospital/x-rays", ("--secret-file", secret), bucket.environment)
    where = ("--embeddings", embeddings, "--data", synthetic, "--model", "thumbnail")
    place.run("index", *where, "--synthetic", *arguments)
    return place


@pytest.fixture(params=["folder", "bucket"])
def place(request, synthetic, tmp_path):
    """A fresh archive in thumbnail space, in a folder and in a bucket."""
    if request.param == "folder":
        return Place(request.getfixturevalue("small_archive"))
    return in_bucket(request.getfixturevalue("bucket"), synthetic, tmp_path)


@pytest.fixture
def serve():
    """Starts servers and stops them after the test."""
    servers = []

    def start(archive, *arguments, **options):
        servers.append(Server(archive, *arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


def png(seed: int, size=96) -> bytes:
    """A distinct small grey PNG."""
    import io

    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def have(program: str) -> str:
    """The path of a Debian program, or the test is skipped by name. Some lie where only root looks."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if not path:
        pytest.skip(f"{program} is not installed")
    return path
