#!/usr/bin/env python3
"""Load a local server with a mix of requests for some minutes; watch memory, open files and every answer.

Fails on an answer that should not be, on an acknowledged write that is gone or came twice, and on memory or open
files that keep growing.
"""

import argparse
import io
import random
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from medsearch_py.client import Answer, Client
from medsearch_py.provenance import provenance, write_figures

SAMPLE_EVERY_S = 5.0
GROWTH_MAX_SHARE = 0.15
GROWTH_MAX_MB = 64
OPEN_FILES_GROWTH_MAX = 16
# How often each kind of request comes, in shares. As many images go as come: what grows then is not the archive.
MIX = {"search": 76, "add": 9, "relabel": 3, "delete": 9, "nonsense": 3}


@dataclass
class Shared:
    """What the threads know together."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    added: dict[str, str | None] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def problem(self, text: str) -> None:
        """Note that something is not as promised."""
        with self.lock:
            self.problems.append(text)


class User(threading.Thread):
    """One client that asks one thing after another until the time is over."""

    def __init__(self, url: str, images: list[bytes], classes: list[str], until: float, shared: Shared, seed: int):
        super().__init__(daemon=True)
        self.client = Client(url)
        self.images, self.classes, self.until, self.shared = images, classes, until, shared
        self.random = random.Random(seed)
        self.own: list[str] = []

    def run(self) -> None:
        while time.monotonic() < self.until:
            kind = self.random.choices(list(MIX), MIX.values())[0]
            began = time.monotonic()
            try:
                answer = getattr(self, kind)()
            except Exception as error:
                self.shared.problem(f"{kind}: {type(error).__name__}: {error}")
                continue
            with self.shared.lock:
                self.shared.counts[f"{kind} {answer.status if answer else '-'}"] += 1
                if kind == "search":
                    self.shared.latencies_ms.append((time.monotonic() - began) * 1000)
            if answer and answer.status in (429, 503):
                time.sleep(min(float(answer.headers.get("retry-after", 1)), 2))

    def expect(self, answer: Answer, *statuses: int) -> Answer:
        # Busy is an honest answer; anything else has to be what was asked for.
        if answer.status not in (*statuses, 429, 503):
            self.shared.problem(f"status {answer.status} instead of {statuses}: {answer.body[:200]!r}")
        return answer

    def search(self) -> Answer:
        answer = self.expect(self.client.ask_form("/v1/search", self.random.choice(self.images)), 200)
        if answer.status == 200:
            neighbors = answer.json()["neighbors"]
            if not neighbors or any(a["similarity"] < b["similarity"] for a, b in pairwise(neighbors)):
                self.shared.problem("neighbors are missing or out of order")
        return answer

    def add(self) -> Answer:
        label = self.random.choice(self.classes)
        image = picture(self.random.randrange(1 << 62))
        answer = self.expect(self.client.ask_form("/v1/images", image, fields=[("class", label)]), 201)
        if answer.status == 201:
            self.own.append(answer.json()["id"])
            with self.shared.lock:
                self.shared.added[self.own[-1]] = label
        return answer

    def relabel(self) -> Answer | None:
        if not self.own:
            return None
        image, label = self.random.choice(self.own), self.random.choice(self.classes)
        change = {"class": label, "label_source": "reader"}
        answer = self.expect(self.client.ask_json("PATCH", f"/v1/images/{image}", change), 200)
        if answer.status == 200:
            with self.shared.lock:
                self.shared.added[image] = label
        return answer

    def delete(self) -> Answer | None:
        if not self.own:
            return None
        image = self.own.pop(self.random.randrange(len(self.own)))
        answer = self.expect(self.client.ask("DELETE", f"/v1/images/{image}"), 200)
        if answer.status == 200:
            with self.shared.lock:
                self.shared.deleted.add(image)
                del self.shared.added[image]
        else:
            self.own.append(image)
        return answer

    def nonsense(self) -> Answer:
        whole = self.random.choice(self.images)
        body = self.random.choice([b"", b"no image", whole[: len(whole) // 2], bytes(1000)])
        answer = self.client.ask_form("/v1/search", body)
        if not 400 <= answer.status < 500:
            self.shared.problem(f"status {answer.status} for nonsense")
        return answer


def picture(seed: int) -> bytes:
    """A picture that no other seed gives."""
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((256, 256)).save(file, "PNG")
    return file.getvalue()


def state_of(process: int) -> tuple[float, int]:
    """Resident megabytes and open files of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    resident_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return resident_kb / 1024, len(list(Path(f"/proc/{process}/fd").iterdir()))


def check_writes(client: Client, shared: Shared) -> None:
    """Everything acknowledged is there as last written; everything deleted is not."""
    for image, label in shared.added.items():
        answer = client.ask("GET", f"/v1/images/{image}")
        if answer.status != 200 or answer.json()["class"] != label:
            shared.problem(f"an acknowledged image answers {answer.status}, or has another class than it was given")
    for image in shared.deleted:
        if (status := client.ask("GET", f"/v1/images/{image}").status) != 404:
            shared.problem(f"a deleted image answers {status}")


@dataclass(frozen=True)
class Sample:
    """The server and its answers at one moment."""

    minute: float
    requests: int
    p50_ms: float
    p99_ms: float
    memory_mb: float
    open_files: int
    problems: int


def sample(process: int, minute: float, shared: Shared) -> Sample:
    """The latencies are those of the last thousand searches."""
    memory, files = state_of(process)
    with shared.lock:
        recent = sorted(shared.latencies_ms[-1000:]) or [0.0]
        p50, p99 = statistics.median(recent), recent[int(len(recent) * 0.99)]
        return Sample(minute, sum(shared.counts.values()), p50, p99, memory, files, len(shared.problems))


def watch(users: list[User], args: argparse.Namespace, began: float, shared: Shared) -> list[Sample]:
    """One line every few seconds until the last user has gone."""
    samples = []
    print("minute  requests  p50 ms  p99 ms  memory MB  open files  problems")
    while any(user.is_alive() for user in users):
        time.sleep(SAMPLE_EVERY_S)
        now = sample(args.process, (time.monotonic() - began) / 60, shared)
        samples.append(now)
        print(
            f"{now.minute:6.1f}  {now.requests:8}  {now.p50_ms:6.0f}  {now.p99_ms:6.0f}  {now.memory_mb:9.0f}"
            f"  {now.open_files:10}  {now.problems:8}",
            flush=True,
        )
    return samples


def settled_and_end(samples: list[Sample]) -> tuple[Sample, Sample]:
    """After the first quarter and in the last tenth. Medians: a single moment may be in the middle of a merge."""
    tenth = max(1, len(samples) // 10)
    quarter = len(samples) // 4

    def usual(part: list[Sample]) -> Sample:
        return replace(
            part[-1],
            memory_mb=statistics.median(sample.memory_mb for sample in part),
            open_files=round(statistics.median(sample.open_files for sample in part)),
        )

    return usual(samples[quarter : quarter + tenth]), usual(samples[-tenth:])


def check_growth(samples: list[Sample], shared: Shared) -> None:
    """The first quarter warms caches up; from then on nothing may keep growing."""
    settled, end = settled_and_end(samples)
    if end.memory_mb > settled.memory_mb * (1 + GROWTH_MAX_SHARE) + GROWTH_MAX_MB:
        shared.problem(f"memory went from {settled.memory_mb:.0f} to {end.memory_mb:.0f} MB")
    if end.open_files > settled.open_files + OPEN_FILES_GROWTH_MAX:
        shared.problem(f"open files went from {settled.open_files} to {end.open_files}")


def figures_of(args: argparse.Namespace, images: tuple[int, int], samples: list[Sample], shared: Shared) -> dict:
    """What the run came to."""
    times = sorted(shared.latencies_ms) or [0.0]
    settled, end = settled_and_end(samples)
    return {
        "minutes": args.minutes,
        "threads": args.threads,
        "images": {"before": images[0], "after": images[1]},
        "requests": dict(sorted(shared.counts.items())),
        "requests_per_s": round(sum(shared.counts.values()) / (args.minutes * 60), 1),
        "search_ms": {"p50": round(statistics.median(times), 1), "p99": round(times[int(len(times) * 0.99)], 1)},
        "memory_mb": {"after_a_quarter": round(settled.memory_mb), "at_the_end": round(end.memory_mb)},
        "open_files": {"after_a_quarter": settled.open_files, "at_the_end": end.open_files},
        "acknowledged_writes_checked": len(shared.added) + len(shared.deleted),
        "problems": shared.problems,
    }


def main() -> int:
    args = arguments()
    provenance_before = provenance()
    images = [path.read_bytes() for path in sorted(args.images.rglob("*.png"))[:: max(1, args.every)]]
    client, shared = Client(args.url), Shared()
    before = client.ask("GET", "/v1/archive").expect(200)
    classes = [entry["name"] for entry in before["classes"]]
    began = time.monotonic()
    until = began + args.minutes * 60
    users = [User(args.url, images, classes, until, shared, seed) for seed in range(args.threads)]
    for user in users:
        user.start()
    samples = watch(users, args, began, shared)
    client = Client(args.url)  # the server has long closed a connection that asked nothing
    check_writes(client, shared)
    after = client.ask("GET", "/v1/archive").expect(200)
    if after["images"] != before["images"] + len(shared.added):
        shared.problem(f"{after['images']} images instead of {before['images'] + len(shared.added)}")
    check_growth(samples, shared)
    print("\n".join(f"{count:8} {kind}" for kind, count in sorted(shared.counts.items())))
    print("\n".join(f"problem: {text}" for text in shared.problems[:20]))
    print(f"{sum(shared.counts.values())} passed, {len(shared.problems)} failed")
    if args.json:
        held = before["images"], after["images"]
        write_figures(args.json, provenance_before, figures_of(args, held, samples, shared))
    return 1 if shared.problems else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="address of the server, on this machine")
    parser.add_argument("--process", required=True, type=int, help="process id of the server")
    parser.add_argument("--images", required=True, type=Path, help="folder of PNG images to search for")
    parser.add_argument("--every", type=int, default=4, help="use every Nth image, default %(default)s")
    parser.add_argument("--minutes", type=float, default=10.0, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=4, help="clients at a time, default %(default)s")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
