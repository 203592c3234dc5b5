"""The replicas that `scripts/cluster` runs: their ports, how each is started, and how it is found again later."""

import contextlib
import hashlib
import http.client
import json
import os
import resource
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

REPLICAS_MAX = 16
HOST = "127.0.0.1"
READY_MAX_S = 120.0
STOPPED_MAX_S = 60.0
CREATED_MAX_S = 60.0
PROCESSES_MAX = 4096
"""Of a container: a server has threads for each processor, and for requests that wait for a disk."""
EVERY_S = 0.05


@dataclass(frozen=True)
class Ports:
    """Where everything listens, from the first port on."""

    first: int

    @property
    def proxy(self) -> int:
        """The cluster, through its proxy."""
        return self.first

    @property
    def prometheus(self) -> int:
        """Prometheus."""
        return self.first + 90

    @property
    def proxy_metrics(self) -> int:
        """What the proxy says of itself."""
        return self.first + 91

    def public(self, number: int) -> int:
        """A replica's API."""
        return self.first + 1 + number

    def inner(self, number: int) -> int:
        """What a replica answers other replicas at."""
        return self.first + 101 + number

    def public_relay(self, number: int) -> int:
        """The relay between the proxy and a replica."""
        return self.first + 180 + number

    def inner_relay(self, asks: int, answers: int) -> int:
        """The relay between two replicas, for what the first asks of the second."""
        return self.first + 200 + REPLICAS_MAX * asks + answers


def url_of(port: int) -> str:
    """Address of a port of this machine."""
    return f"http://{HOST}:{port}"


class Replicas(Protocol):
    """A way to run replicas. What runs lives on when this program ends: another one finds it by the same folder."""

    def start(self, number: int, program: str, arguments: Sequence[str]) -> None:
        """Starts one, with the words of its command line."""

    def signal(self, number: int, which: signal.Signals) -> bool:
        """Sends it a signal. False: it is gone."""

    def lives(self, number: int) -> bool:
        """Whether it is there, if only frozen."""

    def log(self, number: int) -> Path:
        """What it wrote."""

    def forget(self, number: int) -> None:
        """Makes sure that nothing of it is left."""


class Processes:
    """Replicas as processes of this machine."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int, program: str, arguments: Sequence[str]) -> None:
        """Starts one. It lives on when this program ends: it is stopped by signals."""
        with self.log(number).open("ab") as log:
            process = subprocess.Popen(
                [program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.children[number] = process
        self.pid_file(number).write_text(f"{process.pid}\n")

    def signal(self, number: int, which: signal.Signals) -> bool:
        """Sends it a signal. False: it is gone."""
        process = self.process(number)
        if process is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, which)
        return True

    def lives(self, number: int) -> bool:
        """Whether it is there, if only frozen."""
        return self.process(number) is not None

    def log(self, number: int) -> Path:
        """What it wrote."""
        return self.place / f"replica-{number}.log"

    def forget(self, number: int) -> None:
        """Makes sure that nothing of it is left."""
        self.signal(number, signal.SIGKILL)

    def pid_file(self, number: int) -> Path:
        """Where its process id is written down."""
        return self.place / f"replica-{number}.pid"

    def process(self, number: int) -> int | None:
        """Its process id, if that process is still this replica: ids are used again."""
        if child := self.children.get(number):
            child.poll()
        with contextlib.suppress(OSError, ValueError):
            process = int(self.pid_file(number).read_text())
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            if b"--replica" in words and name_of(number).encode() in words:
                return process
        return None


class Containers:
    """Replicas as containers of an image, in this machine's network: they listen where processes would."""

    def __init__(self, place: Path, engine: Sequence[str], mounts: Sequence[str] = ()) -> None:
        """The first of `mounts` may be written to."""
        self.place, self.engine, self.mounts = place, engine, mounts
        self.tellers: dict[int, subprocess.Popen[bytes]] = {}
        # One name for each place, so that two clusters are not in each other's way.
        self.prefix = "medsearch-" + hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:12]

    def start(self, number: int, program: str, arguments: Sequence[str]) -> None:
        """Starts one of the image `program`, as whoever starts it, with rights to nothing but what it was given."""
        if not self.has(program):
            raise RuntimeError(f"there is no image {program} here: scripts/image builds one")
        self.forget(number)
        options = ["--rm", "--pull", "never", "--name", self.name(number), "--network", "host"]
        options += ["--user", f"{os.getuid()}:{os.getgid()}", "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges"]
        options += ["--read-only", "--tmpfs", "/tmp:size=64m"]  # noqa: S108 (the container's own)
        if self.is_podman:
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            options += ["--ulimit", f"nofile={files}:{files}", "--ulimit", f"nproc={PROCESSES_MAX}:{PROCESSES_MAX}"]
            options += ["--userns", "keep-id"] if os.getuid() else []
        for at, mount in enumerate(self.mounts):
            options += ["--mount", f"type=bind,src={mount},dst={mount}{',readonly' if at else ''}"]
        # As a process has them.
        for name in sorted(os.environ):
            options += ["--env", name] if name.startswith("MEDSEARCH_") else []
        with self.log(number).open("ab") as log:
            # It says what the container says, for as long as that runs.
            teller = self.tellers[number] = subprocess.Popen(
                [*self.engine, "run", *options, program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + CREATED_MAX_S
        while not self.lives(number) and teller.poll() is None and time.monotonic() < until:
            time.sleep(EVERY_S)

    def signal(self, number: int, which: signal.Signals) -> bool:
        """Sends it a signal. False: it is gone."""
        return self.run("kill", "--signal", which.name, self.name(number)).returncode == 0

    def lives(self, number: int) -> bool:
        """Whether it is there, if only frozen."""
        return self.state(number) in ("running", "paused", "stopping")

    def log(self, number: int) -> Path:
        """What it wrote."""
        return self.place / f"replica-{number}.log"

    def forget(self, number: int) -> None:
        """Makes sure that nothing of it is left, nor of one that is about to be."""
        if teller := self.tellers.pop(number, None):
            teller.terminate()
            teller.wait()
        until = time.monotonic() + CREATED_MAX_S
        while self.state(number):
            self.run("rm", "--force", self.name(number))
            if time.monotonic() > until:
                raise RuntimeError(f"the container {self.name(number)} does not go")

    def has(self, image: str) -> bool:
        """Whether the image is on this machine."""
        return self.run("image", "inspect", image).returncode == 0

    def name(self, number: int) -> str:
        """Of the container."""
        return f"{self.prefix}-{number}"

    def state(self, number: int) -> str:
        """As the engine calls it; empty where there is none."""
        return self.run("container", "inspect", "--format", "{{.State.Status}}", self.name(number)).stdout.strip()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the engine."""
        return subprocess.run([*self.engine, *words], capture_output=True, text=True, check=False)

    @property
    def is_podman(self) -> bool:
        """By itself it asks for more open files and processes than some machines allow."""
        return Path(self.engine[0]).name == "podman"


def engine() -> list[str] | None:
    """podman or docker, whichever answers first."""
    for name in ("podman", "docker"):
        if not (found := shutil.which(name)):
            continue
        # crun, which podman takes first, does not run on every machine that mixes both versions of cgroups; runc does.
        runc = shutil.which("runc") if name == "podman" else None
        words = [found, *(["--runtime", runc] if runc else [])]
        if subprocess.run([*words, "info"], capture_output=True, check=False).returncode == 0:
            return words
    return None


def name_of(number: int) -> str:
    """A replica's name in placement."""
    return f"replica-{number}"


def wait_ready(replicas: Replicas, number: int, port: int, seconds: float = READY_MAX_S) -> float:
    """Waits until a replica that was just started is ready; the seconds that took. A RuntimeError where it ends."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        if is_ready(url_of(port)):
            return time.monotonic() - began
        if not replicas.lives(number):
            break
        time.sleep(EVERY_S)
    said = replicas.log(number).read_text(errors="replace").splitlines()[-3:]
    raise RuntimeError(f"replica {number} did not start: {' / '.join(said)}")


def wait_gone(replicas: Replicas, number: int, seconds: float = STOPPED_MAX_S) -> bool:
    """Waits until a replica is gone. False: it is still there."""
    until = time.monotonic() + seconds
    while replicas.lives(number):
        if time.monotonic() > until:
            return False
        time.sleep(EVERY_S)
    return True


def is_ready(url: str, timeout_s: float = 2.0) -> bool:
    """Whether /readyz answers 200."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=timeout_s) as answer:
            return answer.status == 200
    except (OSError, http.client.HTTPException):
        return False


@dataclass(frozen=True)
class Description:
    """A running cluster, for whoever does something to one of its replicas."""

    first_port: int
    program: str
    """A file, or an image."""
    relays: bool
    proxy: bool
    prometheus: bool
    arguments: list[list[str]]
    """Of each replica."""
    engine: list[str] | None = None
    """What runs containers of the image; absent: it is a file, and replicas are processes."""
    mounts: list[str] = field(default_factory=list)
    """What containers see of this machine: the archive, and what they only read."""

    @property
    def ports(self) -> Ports:
        """Where everything listens."""
        return Ports(self.first_port)

    def replicas(self, place: Path) -> Replicas:
        """How they are run."""
        return Containers(place, self.engine, self.mounts) if self.engine else Processes(place)

    def write(self, place: Path) -> None:
        """Writes it down beside the logs."""
        file_of(place).write_text(json.dumps(self.__dict__, indent=1) + "\n")

    @classmethod
    def read(cls, place: Path) -> "Description":
        """The cluster whose files are there. A FileNotFoundError where there is none."""
        return cls(**json.loads(file_of(place).read_text()))


def file_of(place: Path) -> Path:
    """Where a cluster is described."""
    return place / "cluster.json"


def weather_file(place: Path, number: int) -> Path:
    """What the relays do to a replica: `cut`, `slow MILLISECONDS`, or nothing, where there is no such file."""
    return place / f"relay-{number}"
