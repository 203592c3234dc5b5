"""The replicas that `scripts/cluster` runs: their ports, how each is started, and how it is found again later."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPLICAS_MAX = 16
HOST = "127.0.0.1"
READY_MAX_S = 120.0
STOPPED_MAX_S = 60.0
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


class Processes:
    """Replicas as processes of this machine. Another way to run them (containers) is a class with these methods."""

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


def name_of(number: int) -> str:
    """A replica's name in placement."""
    return f"replica-{number}"


def wait_ready(replicas: Processes, number: int, port: int, seconds: float = READY_MAX_S) -> float:
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


def wait_gone(replicas: Processes, number: int, seconds: float = STOPPED_MAX_S) -> bool:
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
    relays: bool
    proxy: bool
    prometheus: bool
    arguments: list[list[str]]
    """Of each replica."""

    @property
    def ports(self) -> Ports:
        """Where everything listens."""
        return Ports(self.first_port)

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
