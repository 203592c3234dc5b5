"""Thousands of hostile and broken requests: the server lives, stays small, and answers good ones beside them."""

import contextlib
import errno
import http.client
import json
import math
import multiprocessing
import os
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import hostile
from conftest import medsearch, note, png

SEED = 5
TARGETS = ("/v1/search", "/v1/images", "/v1/embeddings", "/dicom-web/studies", "/instances")
CORPUS_MIN = 2000
# What an operator of such a small server would set. Bombs are below before they are unpacked.
LIMITS = ("--pixels-max", 16 << 20, "--upload-bytes-max", 16 << 20, "--worker-memory-bytes-max", 512 << 20)
# The server and its decoding processes together, resident, at any moment. Idle they take a fifth of it; the largest
# picture that is read (16 bytes a pixel while it is decoded) a quarter.
MEMORY_MAX = 1 << 30
SAMPLE_S = 0.02
# Hostile requests at a time and a second: the server shall read them, not refuse them, and have time for others. They
# are sent for so many seconds, then good ones are alone for some.
SENDERS, PER_SECOND, BESIDE_S, ALONE_S = 2, 50, 4, 2
GOOD_EVERY_S = 0.04
# Good requests may take twice as long beside hostile ones, and what is lost where senders, server and other programs
# share two processors. scripts/soak, on a quiet machine, does without that: what the server itself adds.
SLOWER_MAX, SLACK_S = 2, 0.0 if os.environ.get("MEDSEARCH_HOSTILE_STRICT") == "1" else 0.5
PATIENCE_S = 60
OVERLOADED = {429, 503}
# What may be wrong with a request. Nothing is wrong with the server.
PROBLEMS = {
    *("invalid-request", "missing-image", "several-images", "unknown-class", "unknown-source", "invalid-image"),
    *(
        "constant-image",
        "burned-in-annotation",
        "out-of-scope",
        "unsupported-media",
        "too-large",
        "too-many-pixels",
        "not-found",
        "conflict",
        "version-ahead",
    ),
    *("method-not-allowed", "not-acceptable", "forbidden-origin", "overloaded"),
}


@pytest.mark.alone
def test_nothing_hostile_brings_the_server_down(small_archive, serve, tmp_path, capsys):
    """It does not end, is not at fault, stays below its bound of memory, and good requests hardly wait."""
    log = tmp_path / "log"
    server = serve(small_archive, *LIMITS, log=log)
    assert server.post_image("/v1/search", png(1))[0] == 200
    corpus = hostile.corpus(SEED)
    assert len({each.name for each in corpus}) == len(corpus) >= CORPUS_MIN
    senders = Senders(server.port, corpus)
    with Memory(server.process.pid) as memory, Good(server.port) as good:
        beside = senders.send_by_and_by()
    latencies = good.latencies()
    for name, sent in hostile.wire_corpus():
        senders.count(name, exchange(server.port, sent))

    assert server.process.poll() is None and server.get("/v1/archive")
    assert server.post_image("/v1/search", png(2))[0] == 200
    within = [took for at, took in latencies if any(begin <= at < end for begin, end in beside)]
    alone = [took for at, took in latencies if not any(begin - 0.2 <= at < end + 0.2 for begin, end in beside)]
    normal, slower = p99(alone), p99(within)
    figures = {"hostile_requests": len(corpus), "statuses": {str(key): n for key, n in senders.statuses.items()}}
    figures |= {"memory_mib": {"most": memory.most >> 20, "bound": MEMORY_MAX >> 20}}
    figures |= {"good_requests": {"alone": len(alone), "beside": len(within)}}
    figures |= {"p99_ms": {"alone": round(normal * 1000), "beside": round(slower * 1000)}}
    figures |= {"times_as_long": round(slower / normal, 2), "wrong_answers": len(senders.wrong)}
    with capsys.disabled():
        note("hostile", figures)
    assert not senders.wrong, senders.wrong[:20]
    assert sum(senders.statuses.values()) >= len(corpus)
    # Most were read to where they are broken, and some are none.
    assert senders.refused <= len(corpus) // 100
    assert 0 < memory.most < MEMORY_MAX
    assert slower < SLOWER_MAX * normal + SLACK_S

    server.stop()
    assert server.process.returncode == 0
    # What is no HTTP is an error to the parser of HTTP.
    faults = [line for line in log.read_text().splitlines() if '"level":"ERROR"' in line or "panicked" in line]
    assert not [line for line in faults if '"target":"actix_http::h1::dispatcher"' not in line]
    # What was taken of it is an archive.
    medsearch("verify", "--archive", small_archive)


class Senders:
    """Sends the corpus, from several threads, and says what is wrong with answers."""

    def __init__(self, port: int, corpus: list):
        self.port = port
        self.left = list(enumerate(corpus))[::-1]
        self.statuses, self.refused, self.wrong = Counter(), 0, []
        self.lock = threading.Lock()

    def send_by_and_by(self) -> list[tuple[float, float]]:
        """All of it, with pauses. When it was sent."""
        times = []
        while self.left:
            time.sleep(ALONE_S)
            begin = time.monotonic()
            threads = [threading.Thread(target=self._until, args=(begin + BESIDE_S,)) for _ in range(SENDERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            times.append((begin, time.monotonic()))
        return times

    def _until(self, end: float):
        due = time.monotonic()
        while (due := due + SENDERS / PER_SECOND) < end:
            time.sleep(max(0, due - time.monotonic()))
            with self.lock:
                if not self.left:
                    return
                number, each = self.left.pop()
            target = TARGETS[number % len(TARGETS)]
            try:
                answer = post(self.port, target, each)
            except (OSError, http.client.HTTPException) as error:
                with self.lock:
                    self.wrong.append((each.name, target, repr(error)))
                continue
            self.count(f"{each.name} to {target}", answer)

    def count(self, name: str, answer: tuple | None):
        """Notes one answer; none is only for what is no request."""
        with self.lock:
            if answer is None:
                self.statuses["no answer"] += 1
                return
            status, headers, body = answer
            self.statuses[status] += 1
            self.refused += status in OVERLOADED
            if said := what_is_wrong(status, headers, body):
                self.wrong.append((name, status, said))


def what_is_wrong(status: int, headers: dict, body: bytes) -> str | None:
    """With an answer."""
    if 200 <= status < 300:
        return None
    if status in OVERLOADED and "retry-after" not in headers:
        return "it does not say when to come back"
    if not (400 <= status < 500 or status == 503):
        return "it is a fault of the server"
    if not body and status in (400, 431):
        # The parser of HTTP found no request to answer.
        return None if "x-request-id" not in headers else "it does not say what is wrong"
    if status == 409 and headers.get("content-type") == "application/dicom+json":
        # What STOW-RS says when it stores nothing: which objects failed, or why what is none did (PS3.18, 10.5.3).
        return None if {"00081198", "0008119A"} & set(json.loads(body)) else "it does not say what failed"
    if headers.get("content-type") != "application/problem+json":
        return "it is no problem"
    slug = json.loads(body)["type"].removeprefix("/problems/")
    return None if slug in PROBLEMS else f"{slug} is none of the client's"


def post(port: int, target: str, each) -> tuple[int, dict, bytes]:
    """One body, on a connection of its own. The server may answer before it has read all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            content_type, body = each.to(target)
            connection.request("POST", target, body, {"Content-Type": content_type.encode("latin-1")})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def exchange(port: int, sent: bytes) -> tuple[int, dict, bytes] | None:
    """Bytes, and the first answer to them, if there is one before the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except ConnectionError:
            return None
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            return None
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), headers, rest[: int(headers.get("content-length", 0))]


class Memory:
    """The most that a process and its children had resident, by what /proc says."""

    def __init__(self, pid: int):
        self.pid, self.most, self.stop = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def _watch(self):
        while not self.stop.wait(SAMPLE_S):
            self.most = max(self.most, resident(self.pid))


def resident(pid: int) -> int:
    """Bytes of a process and its children. What ends meanwhile has none."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        children = [child for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return 0
    return pages * 4096 + sum(resident(int(child)) for child in children)


class Good:
    """A process that searches with good pictures all the time: threads of this one would wait for each other."""

    def __init__(self, port: int):
        context = multiprocessing.get_context("fork")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=search_on, args=(port, theirs))

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.ours.send("stop")
        self.answered = self.ours.recv() if self.ours.poll(PATIENCE_S) else None
        self.process.join(PATIENCE_S)

    def latencies(self) -> list[tuple[float, float]]:
        """When each was due and how long it took from then."""
        assert self.answered, "the good client has ended"
        assert {status for _, _, status in self.answered} == {200}
        return [(due, took) for due, took, _ in self.answered]


def search_on(port: int, pipe):
    """One search every moment, until told to stop."""
    pictures = [hostile.Hostile("good", *hostile.forms.with_file(png(number))) for number in range(20)]
    answered, due = [], time.monotonic()
    while not pipe.poll(max(0, due - time.monotonic())):
        status = post(port, "/v1/search", pictures[len(answered) % len(pictures)])[0]
        answered.append((due, time.monotonic() - due, status))
        due = max(due + GOOD_EVERY_S, time.monotonic())
    pipe.send(answered)


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    assert len(values) >= 100
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def test_a_seed_makes_the_same_corpus():
    """So that what is found can be found again."""
    first, again = hostile.corpus(SEED), hostile.corpus(SEED)
    assert [(each.name, each.body) for each in first] == [(each.name, each.body) for each in again]
