"""Load for a server or a cluster: requests by schedule, or one after the other. Standard library, numpy and Pillow.

By schedule (an open loop) a request is due at its time whatever became of those before it, and its latency counts from
then: what waits because others are slow is slow too. Clients that wait for an answer before they ask again (a closed
loop) leave out just these, which is called coordinated omission; they only serve to find out how much a server can do.
"""

import http.client
import io
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from .client import Answer, Client

TIMEOUT_S = 40.0
"""Longest wait for an answer: longer than a server's bound for a request, and a proxy's."""
IN_FLIGHT_MAX = 64
"""Requests at a time; further ones wait, and their wait counts."""
LATE_MAX_S = 10.0
"""What is not sent so long after the end is not sent any more, and has failed."""
NEIGHBORS = 10
DRAWN = 16
"""Vectors and pictures that are asked with, in turn."""


@dataclass(frozen=True)
class Done:
    """One request and what became of it. Times in seconds of the monotonic clock."""

    kind: str
    due: float
    ended: float
    problem: str | None

    @property
    def latency_ms(self) -> float:
        """From when it was due."""
        return (self.ended - self.due) * 1000


class Work(Protocol):
    """What is asked, by number, and which answers are as they should be."""

    def kind(self, number: int) -> str:
        """A word for the figures."""

    def ask(self, number: int, client: Client) -> Answer:
        """Sends it."""

    def problem(self, answer: Answer) -> str | None:
        """Why the answer is not as it should be."""


class Searches:
    """By id through the graph and exactly, by vector, and by picture, in turn. Whole coverage is demanded."""

    KINDS = ("by-id", "by-id-exact", "by-vector", "image")

    def __init__(self, url: str) -> None:
        client = Client(url, timeout_s=TIMEOUT_S)
        archive = client.ask("GET", "/v1/archive").expect(200)
        self.classes = [each["name"] for each in archive["classes"]]
        random = np.random.default_rng(0)
        vectors = random.random((DRAWN, archive["space"]["dimension"])).round(4).tolist()
        self.vectors = [{"vector": vector, "space": archive["space"]["id"], "k": NEIGHBORS} for vector in vectors]
        self.pictures = [picture(seed) for seed in range(DRAWN)]
        answer = client.ask_json("POST", "/v1/search/by-vector", self.vectors[0] | {"k": 100}).expect(200)
        self.ids = [neighbor["id"] for neighbor in answer["neighbors"]]
        client.close()

    def kind(self, number: int) -> str:
        """Four kinds in turn."""
        return self.KINDS[number % len(self.KINDS)]

    def ask(self, number: int, client: Client) -> Answer:
        """Sends the search of this number."""
        kind, at = self.kind(number), number // len(self.KINDS)
        if kind == "image":
            return client.ask_form("/v1/search", self.pictures[at % DRAWN], fields=[("k", str(NEIGHBORS))])
        if kind == "by-vector":
            return client.ask_json("POST", "/v1/search/by-vector", self.vectors[at % DRAWN])
        body = {"ids": [self.ids[at % len(self.ids)]], "exact": kind == "by-id-exact", "k": NEIGHBORS}
        return client.ask_json("POST", "/v1/search/by-id", body)

    def problem(self, answer: Answer) -> str | None:
        """A status other than 200, a shard that is missing, or nothing found."""
        if answer.status != 200:
            return f"{answer.status}: {detail(answer)}"
        found = answer.json()
        if found["coverage"]["missing"]:
            return "a shard is missing"
        return None if found["neighbors"] else "no neighbors"


class Ingests:
    """Pictures that nobody has seen, into the archive's classes in turn; remembers what was acknowledged."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.first = time.time_ns()
        self.acknowledged: list[str] = []

    def kind(self, _number: int) -> str:
        """There is one."""
        return "ingest"

    def ask(self, number: int, client: Client) -> Answer:
        """Hands in the picture of this number."""
        label = self.classes[number % len(self.classes)]
        answer = client.ask_form("/v1/images", picture(self.first + number), fields=[("class", label)])
        if answer.status in (200, 201):
            self.acknowledged.append(answer.json()["id"])
        return answer

    def problem(self, answer: Answer) -> str | None:
        """It was not acknowledged."""
        return None if answer.status in (200, 201) else f"{answer.status}: {detail(answer)}"


def detail(answer: Answer) -> str:
    """What a refusal says: a proxy's own has no JSON."""
    try:
        return str(json.loads(answer.body)["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.body[:100].decode(errors="replace")


def picture(seed: int, side: int = 64) -> bytes:
    """A small grey PNG that no other seed gives."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


class Clients:
    """Threads that send work to addresses in turn; each request has a connection of its own."""

    def __init__(self, work: Work, urls: Sequence[str], count: int) -> None:
        self.work, self.urls = work, list(urls)
        self.lock = threading.Lock()
        self.done: list[Done] = []
        self.next = 0
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(count)]

    def start(self) -> None:
        """From now on requests are sent."""
        self.began = time.monotonic()
        self.until = math.inf
        self.ended = threading.Event()
        for thread in self.threads:
            thread.start()

    def stop(self) -> list[Done]:
        """Sends no more, waits for what is under way, and returns what is over."""
        self.until = time.monotonic()
        self.ended.set()
        for thread in self.threads:
            thread.join()
        return self.taken()

    def taken(self) -> list[Done]:
        """Those that are over, each given once."""
        with self.lock:
            done, self.done = self.done, []
            return done

    def take(self) -> int:
        """The next number."""
        with self.lock:
            self.next += 1
            return self.next - 1

    def note(self, done: Done) -> None:
        """One is over."""
        with self.lock:
            self.done.append(done)

    def send(self, number: int, due: float) -> None:
        """Sends one and notes what came of it."""
        url, number = self.urls[number % len(self.urls)], number // len(self.urls)
        client = Client(url, timeout_s=TIMEOUT_S)
        try:
            problem = self.work.problem(self.work.ask(number, client))
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            client.close()
        self.note(Done(self.work.kind(number), due, time.monotonic(), problem))

    def run(self) -> None:
        """What each thread does."""
        raise NotImplementedError


class OpenLoop(Clients):
    """So many requests a second, by schedule, however long they take."""

    def __init__(self, work: Work, urls: Sequence[str], per_s: float, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        super().__init__(work, urls, min(in_flight_max, max(4, math.ceil(per_s * 2))))
        self.per_s = per_s

    def run(self) -> None:
        """Takes the next request, waits for its time, sends it."""
        while True:
            number = self.take()
            due = self.began + number / self.per_s
            self.ended.wait(max(0.0, due - time.monotonic()))
            # What was due before the end is sent after it, if need be.
            if due >= self.until:
                return
            now = time.monotonic()
            if now > self.until + LATE_MAX_S:
                problem = "not sent: all clients were waiting for answers"
                self.note(Done(self.work.kind(number // len(self.urls)), due, now, problem))
            else:
                self.send(number, due)


class ClosedLoop(Clients):
    """So many clients, each of which asks again as soon as it has an answer."""

    def run(self) -> None:
        """One after the other."""
        while time.monotonic() < self.until:
            self.send(self.take(), time.monotonic())


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed (nearest rank); not a number of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def figures_of(done: Sequence[Done]) -> dict:
    """How many, how many of them failed and why, and how long the others took, in milliseconds."""
    took = [each.latency_ms for each in done if not each.problem]
    problems = Counter(each.problem for each in done if each.problem)
    figures: dict = {"sent": len(done), "failed": sum(problems.values())}
    if took:
        figures |= {f"p{round(share * 100)}_ms": round(percentile(took, share), 1) for share in (0.5, 0.95, 0.99)}
        figures["max_ms"] = round(max(took), 1)
    if problems:
        figures["problems"] = dict(problems.most_common(5))
    return figures
