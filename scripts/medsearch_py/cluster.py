"""A cluster that `scripts/cluster` started: what its replicas hold, count and say, and what is done to them."""

import contextlib
import json
import random
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from .client import Answer, Client
from .replicas import HOST, REPLICAS_MAX, Description, is_ready, url_of

ROOT = Path(__file__).resolve().parents[2]
STARTED_MAX_S = 180.0
WHOLE_MAX_S = 120.0
EVERY_S = 0.1
PORTS = (12_000, 31_000)
"""Where a cluster's first port may lie."""
Counters = dict[str, float]


class Cluster:
    """Replicas over one archive, from start to end (a context manager)."""

    def __init__(self, count: int, archive: Path, place: Path, *options: object) -> None:
        # scripts/cluster runs in the root of the checkout.
        place = place.resolve()
        self.count, self.place = count, place
        self.away: set[int] = set()
        """Replicas that something was done to, so that they need not be ready."""
        place.mkdir(parents=True, exist_ok=True)
        self.log = place / "cluster.log"
        command = [ROOT / "scripts/cluster", count, "--archive", archive.resolve(), "--place", place, *options]
        if "--port" not in options:
            command += ["--port", free_first_port(count)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, start_new_session=True)
        try:
            self.wait_started()
            self.description = Description.read(place)
        except BaseException:
            self.stop()
            raise
        self.ports = self.description.ports
        self.key = (place / "inner.key").read_text().strip()

    def wait_started(self) -> None:
        """Until it says that it is ready."""
        until = time.monotonic() + STARTED_MAX_S
        while not any(line.startswith("ready") for line in self.log.read_text().splitlines()):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the cluster did not start: {self.log.read_text()[-2000:]}")
            time.sleep(EVERY_S)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """As Ctrl-C does."""
        self.process.terminate()
        self.process.wait()

    # ---- where it is ----

    @property
    def proxied(self) -> list[str]:
        """The address of its proxy."""
        if not self.description.proxy:
            raise RuntimeError("this needs a proxy: haproxy is not installed")
        return [url_of(self.ports.proxy)]

    @property
    def direct(self) -> list[str]:
        """The address of each replica."""
        return [url_of(self.ports.public(number)) for number in range(self.count)]

    @property
    def here(self) -> list[int]:
        """Replicas that nothing was done to."""
        return [number for number in range(self.count) if number not in self.away]

    # ---- what is done to a replica ----

    def do(self, action: str, number: int, *more: object) -> None:
        """As `scripts/cluster ACTION NUMBER` does."""
        command = [ROOT / "scripts/cluster", action, number, *more, "--place", self.place]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{action} {number}: {done.stderr.strip()}")

    def kill(self, *numbers: int) -> None:
        """kill -9."""
        self.away.update(numbers)
        for number in numbers:
            self.do("kill", number)

    def restart(self, number: int, program: Path | None = None) -> float:
        """SIGTERM where it runs, and again as it was, or as another program; the seconds until it is ready."""
        began = time.monotonic()
        self.away.add(number)
        with contextlib.suppress(RuntimeError):
            self.do("stop", number)
        self.do("start", number, *(("--program", program.resolve()) if program else ()))
        self.away.discard(number)
        return time.monotonic() - began

    # ---- what it says ----

    def ask(self, url: str, path: str, body: dict, timeout_s: float = 30.0) -> Answer:
        """A search with a JSON body."""
        client = Client(url, timeout_s=timeout_s)
        try:
            return client.ask_json("POST", path, body)
        finally:
            client.close()

    def is_ready(self, number: int) -> bool:
        """Whether a replica says that it may be asked."""
        return is_ready(self.direct[number])

    def held(self, number: int) -> set[int]:
        """Shards of the newest version that a replica tells the others it holds."""
        request = urllib.request.Request(
            f"{url_of(self.ports.inner(number))}/inner/v1/status", headers={"Authorization": f"Bearer {self.key}"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            held = json.load(answer)["held"]
        return set(held[0]["shards"]) if held else set()

    def counters(self, number: int) -> Counters:
        """Every series at a replica's /metrics, by its name and labels as they stand there."""
        return series_at(f"{self.direct[number]}/metrics")

    def counters_of_all(self) -> dict[int, Counters]:
        """Those of the replicas that answer."""
        found = {}
        for number in range(self.count):
            with contextlib.suppress(OSError):
                found[number] = self.counters(number)
        return found

    def proxy_counters(self) -> Counters:
        """Those of the proxy."""
        return series_at(f"{url_of(self.ports.proxy_metrics)}/metrics")

    def is_whole(self) -> bool:
        """Whether every replica is there, knows the others, holds what it should, and every shard is held twice."""
        try:
            if not all(self.is_ready(number) for number in range(self.count)):
                return False
            held = [self.held(number) for number in range(self.count)]
            counters = [self.counters(number) for number in range(self.count)]
        except OSError:
            return False
        knows_all = all(each['medsearch_peers{state="alive"}'] == self.count - 1 for each in counters)
        missing = sum(each['medsearch_shards{state="missing"}'] for each in counters)
        settled = all(
            each['medsearch_shards{state="held"}'] >= each['medsearch_shards{state="assigned"}'] for each in counters
        )
        twice = all(sum(shard in each for each in held) >= 2 for shard in set().union(*held))
        return knows_all and missing == 0 and settled and twice

    def wait_whole(self, seconds: float = WHOLE_MAX_S) -> float:
        """Until it is whole again; the seconds that took."""
        began = time.monotonic()
        while not self.is_whole():
            if time.monotonic() > began + seconds:
                raise RuntimeError(f"the cluster is not whole after {seconds:.0f} s; see {self.place}")
            time.sleep(EVERY_S)
        return time.monotonic() - began


def series_at(url: str) -> Counters:
    """What is said in the text format of Prometheus."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def total(counters: Counters, name: str) -> float:
    """All series of a name together, or of a name and the labels that it begins with."""
    further = (f"{name}{{", f"{name},", f"{name}}}")
    return sum(value for series, value in counters.items() if series == name or series.startswith(further))


def increase(before: dict[int, Counters], after: dict[int, Counters], name: str) -> float:
    """By how much a counter of all replicas went up; one that was started again counts from nothing."""
    started = "process_start_time_seconds"
    grown = 0.0
    for number, counters in after.items():
        earlier = before.get(number, {})
        is_same = earlier.get(started) == counters[started]
        grown += total(counters, name) - (total(earlier, name) if is_same else 0.0)
    return grown


def free_first_port(count: int) -> int:
    """A port from which on nobody listens where a cluster would.

    Below those that the system gives to outgoing connections: one of these could have the port of a replica that is
    started again.
    """
    for _ in range(100):
        first = random.randrange(*PORTS)
        apart = (0, 90, 91, *(start + at for start in (1, 101, 180) for at in range(count)))
        between = range(200, 200 + REPLICAS_MAX * count)
        if all(is_free(first + offset) for offset in (*apart, *between)):
            return first
    raise RuntimeError(f"no room for the ports of {count} replicas")


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind((HOST, port))
        return True
    return False
