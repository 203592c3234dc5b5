"""What a cluster has to bear: load by schedule while replicas are killed, cut off, slowed and rolled."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .client import Client
from .cluster import EVERY_S, Cluster, increase, total
from .load import ClosedLoop, Done, Ingests, OpenLoop, Searches, figures_of, percentile

LOOK_EVERY_S = 0.5
CLIENTS = (1, 2, 4, 8, 16, 32)
GAIN_MIN = 1.05
"""More clients that bring less than this are the last."""
HEAL_MAX_S = 180.0
SEEN_MAX_S = 10.0
"""Each replica has a new version within 2 s; a busy machine gets more time. What is lost does not come at all."""
SLOW_BY_MS = 500
COUNTED = {
    "hedges": "medsearch_hedges_total",
    "retries": "medsearch_retries_total",
    "ejections": "medsearch_ejections_total",
    "calls_answered": 'medsearch_shard_requests_total{outcome="answered"',
    "calls_failed": 'medsearch_shard_requests_total{outcome="failed"',
    "calls_late": 'medsearch_shard_requests_total{outcome="late"',
    "searches_lacking_a_shard": "medsearch_coverage_missing_total",
}
NAMED = re.compile(r"no replica answered for [0-9]+ of [0-9]+ shards: ([0-9, ]+);")


@dataclass(frozen=True)
class Rate:
    """Requests a second: searches through the proxy, searches at the replicas, images handed in through the proxy."""

    proxied: float
    direct: float
    ingests: float


@dataclass
class Outcome:
    """What came of one fault."""

    name: str
    seconds: float
    proxied: list[Done]
    direct: list[Done]
    ingested: list[Done]
    acknowledged: list[str]
    unready: int
    counted: dict[str, int]
    notes: dict = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Searches through the proxy that were not answered as they should be."""
        return sum(each.problem is not None for each in self.proxied)

    def p99_ms(self, since: float, until: float) -> float:
        """Of the searches through the proxy that were due in that time (monotonic clock)."""
        return percentile([each.latency_ms for each in self.proxied if since <= each.due < until], 0.99)

    def figures(self) -> dict:
        """For the file of figures, and for a person."""
        by_kind = {kind: figures_of([each for each in self.proxied if each.kind == kind]) for kind in Searches.KINDS}
        return {
            "seconds": round(self.seconds, 1),
            "searches_through_the_proxy": figures_of(self.proxied) | {"by_kind": by_kind},
            "searches_at_the_replicas": figures_of(self.direct),
            "ingests": figures_of(self.ingested) | {"acknowledged": len(self.acknowledged)},
            "survivors_seen_unready": self.unready,
            "counted": self.counted,
            **self.notes,
        }


class Watch(threading.Thread):
    """Asks the replicas that nothing was done to whether they are ready."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.cluster, self.unready = cluster, 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Until it is stopped."""
        while not self.ended.wait(LOOK_EVERY_S):
            for number in self.cluster.here:
                # One that something is done to meanwhile does not count.
                if not self.cluster.is_ready(number) and number in self.cluster.here:
                    self.unready += 1

    def stop(self) -> int:
        """How often one was not."""
        self.ended.set()
        self.join()
        return self.unready


class Trial:
    """A cluster under load, to which something happens."""

    def __init__(self, cluster: Cluster, rate: Rate) -> None:
        self.cluster, self.rate = cluster, rate
        self.searches = Searches(cluster.proxied[0])
        self.ingests = Ingests(self.searches.classes)

    def run(self, name: str, seconds: float, fault: Callable[[Cluster, float], dict] | None = None) -> Outcome:
        """Load for so many seconds; `fault` is called when it begins, takes at most as long, and returns notes."""
        cluster, before = self.cluster, self.cluster.counters_of_all()
        proxy_before = cluster.proxy_counters()
        known = len(self.ingests.acknowledged)
        loads = [
            OpenLoop(work, urls, per_s)
            for work, urls, per_s in (
                (self.searches, cluster.proxied, self.rate.proxied),
                (self.searches, cluster.direct, self.rate.direct),
                (self.ingests, cluster.proxied, self.rate.ingests),
            )
        ]
        # Each load counts from 0: no picture twice.
        self.ingests.first = time.time_ns()
        watch, began = Watch(cluster), time.monotonic()
        for thread in (*loads, watch):
            thread.start()
        try:
            notes = fault(cluster, seconds) if fault else {}
            time.sleep(max(0.0, began + seconds - time.monotonic()))
        finally:
            took = time.monotonic() - began
            proxied, direct, ingested = (load.stop() for load in loads)
            unready = watch.stop()
        after = cluster.counters_of_all()
        counted = {word: round(increase(before, after, name)) for word, name in COUNTED.items()}
        redispatched = "haproxy_backend_redispatch_warnings_total"
        counted["sent_again_by_the_proxy"] = round(
            total(cluster.proxy_counters(), redispatched) - total(proxy_before, redispatched)
        )
        acknowledged = self.ingests.acknowledged[known:]
        return Outcome(name, took, proxied, direct, ingested, acknowledged, unready, counted, notes)

    def lost(self, acknowledged: Sequence[str]) -> list[str]:
        """Images that were acknowledged and that a replica does not find soon. Asked of the replicas in turn."""
        clients = [Client(url) for url in self.cluster.direct]
        until = time.monotonic() + SEEN_MAX_S

        def is_found(at: int, image: str) -> bool:
            client = clients[at % len(clients)]
            while client.ask("GET", f"/v1/images/{image}").status != 200:
                if time.monotonic() > until:
                    return False
                time.sleep(EVERY_S)
            return True

        lost = [image for at, image in enumerate(acknowledged) if not is_found(at, image)]
        for client in clients:
            client.close()
        return lost


def capacity(cluster: Cluster, ingests_per_s: float, seconds: float) -> dict:
    """Most searches a second through the proxy: more and more clients that ask again at once, while images come in."""
    searches = Searches(cluster.proxied[0])
    ingest = OpenLoop(Ingests(searches.classes), cluster.proxied, ingests_per_s)
    ingest.start()
    levels, best = [], 0.0
    try:
        for count in CLIENTS:
            load = ClosedLoop(searches, cluster.proxied, count)
            load.start()
            time.sleep(seconds)
            done = load.stop()
            per_s = len([each for each in done if not each.problem]) / (time.monotonic() - load.began)
            levels.append({"clients": count, "searches_per_s": round(per_s, 1)} | figures_of(done))
            if per_s < best * GAIN_MIN:
                break
            best = per_s
    finally:
        ingest.stop()
    best = max(level["searches_per_s"] for level in levels)
    return {"searches_per_s": best, "ingests_per_s": ingests_per_s, "levels": levels}


# ---- what happens: each waits a moment first, and is over when it returns ----


def killed(cluster: Cluster, seconds: float) -> dict:
    """The last replica is killed, and started again at half time."""
    number, began = cluster.count - 1, time.monotonic()
    time.sleep(seconds * 0.1)
    cluster.kill(number)
    time.sleep(max(0.0, began + seconds * 0.5 - time.monotonic()))
    return {"replica": number, "ready_after_s": round(cluster.restart(number), 1)}


def cut_off(cluster: Cluster, seconds: float) -> dict:
    """Nothing passes between the second replica and the others, or the proxy, for half of the time."""
    time.sleep(seconds * 0.1)
    cluster.do("cut", 1)
    time.sleep(seconds * 0.5)
    cluster.do("heal", 1)
    return {"replica": 1, "cut_off_s": round(seconds * 0.5, 1)}


def slowed(cluster: Cluster, seconds: float) -> dict:
    """What the second replica is asked by the others comes half a second later, to the end: then `heal`."""
    time.sleep(seconds * 0.1)
    cluster.do("slow", 1, SLOW_BY_MS)
    return {"replica": 1, "by_ms": SLOW_BY_MS, "since": time.monotonic()}


def rolled(program: Path | None) -> Callable[[Cluster, float], dict]:
    """Each replica is stopped with SIGTERM and started again, as another program where one is named.

    One by one, each once the one before is ready.
    """

    def roll(cluster: Cluster, seconds: float) -> dict:
        began, took = time.monotonic(), []
        for number in range(cluster.count):
            due = began + seconds * (number + 0.2) / (cluster.count + 0.5)
            time.sleep(max(0.0, due - time.monotonic()))
            took.append(round(cluster.restart(number, program), 1))
        return {"away_s": took}

    return roll


def two_gone(cluster: Cluster, seconds: float) -> dict:
    """All but the first are killed: its answers, strict and with `allow_partial`, against what it says it holds."""
    everything = set().union(*(cluster.held(number) for number in range(cluster.count)))
    search = Searches(cluster.direct[0]).vectors[0]
    cluster.kill(*range(1, cluster.count))
    until, asked, wrong, missing = time.monotonic() + seconds, 0, [], set()
    while time.monotonic() < until:
        held = cluster.held(0)
        strict = cluster.ask(cluster.direct[0], "/v1/search/by-vector", search)
        partial = cluster.ask(cluster.direct[0], "/v1/search/by-vector", search | {"allow_partial": True})
        if cluster.held(0) != held:
            # It has just taken over another shard.
            continue
        asked, missing = asked + 1, everything - held
        refusal, answer = strict.json(), partial.json()
        named = NAMED.search(refusal.get("detail", ""))
        if strict.status != 503 or refusal.get("type") != "/problems/shards-missing":
            wrong.append(f"{strict.status} {refusal.get('type')}")
        elif named is None or set(map(int, named[1].split(","))) != missing:
            wrong.append(f"{refusal['detail']}, and missing are {sorted(missing)}")
        if partial.status != 200:
            wrong.append(f"{partial.status} though an answer without them was allowed")
        elif set(answer["coverage"]["missing"]) != missing or answer["suggestion"]["confidence"] is not None:
            wrong.append(f"{answer['coverage']}, and missing are {sorted(missing)}")
    return {"asked": asked, "missing": sorted(missing), "shards": len(everything), "wrong": wrong}


def heals(cluster: Cluster) -> dict:
    """Two replicas that alone hold some shard are killed; the seconds until the others answer in full again."""
    held = [cluster.held(number) for number in range(cluster.count)]
    pairs = [(a, b) for b in range(cluster.count) for a in range(b)]

    def missing_without(pair: tuple[int, int]) -> set[int]:
        rest = (held[number] for number in range(cluster.count) if number not in pair)
        return set().union(*held) - set().union(*rest)

    gone = max(pairs, key=lambda pair: len(missing_without(pair)))
    asked = next(number for number in range(cluster.count) if number not in gone)
    search = Searches(cluster.direct[asked]).vectors[0]
    cluster.kill(*gone)
    began, refused = time.monotonic(), 0
    while time.monotonic() < began + HEAL_MAX_S:
        answer = cluster.ask(cluster.direct[asked], "/v1/search/by-vector", search)
        if answer.status == 200:
            break
        refused += 1
        time.sleep(LOOK_EVERY_S)
    seconds = round(time.monotonic() - began, 1) if answer.status == 200 else None
    return {
        "replicas": cluster.count,
        "gone": gone,
        "missing": sorted(missing_without(gone)),
        "refused": refused,
        "seconds": seconds,
    }
