#!/usr/bin/env python3
"""Ask replicas that share an archive and one machine that holds all of it the same questions, and compare the answers.

    scripts/measure_containers.py --replicas http://A:8000 http://B:8000 http://C:8000 --whole http://D:8000 \\
        --inner http://A:8001 http://B:8001 http://C:8001 --inner-key-file inner.key

First images are deleted and relabelled through the replicas. Then each query goes to one of them and to the whole
machine: by id and by vector, with filters, exclusions, ties and copies. Every answer has to be the same to the byte,
and where graphs are walked 99 % of the ten nearest have to be found. What each replica holds is read before and
after: nobody holds too much, and each shard has to have been answered by another replica than the one that was asked.
"""

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from medsearch_py.client import Answer, Client
from medsearch_py.provenance import provenance, write_figures

CLASSES_MAX = 2
RECALL_LEAST = 0.99
IDS_WANTED = 3000
# A version that one machine sees a moment before the other.
TRIES_MAX, TRY_EVERY_S = 40, 0.25
SEEN_WITHIN_S = 60.0
COUNTED = re.compile(
    r"medsearch_(peers|shard_requests|hedges|retries|ejections|coverage_missing)(?:_total)?"
    r'(?:\{(?:outcome|state)="(\w+)"\})? (\S+)'
)


@dataclass
class Compared:
    """What came of the queries."""

    asked: Counter = field(default_factory=Counter)
    asked_again: int = 0
    different: list[dict] = field(default_factory=list)
    walked: int = 0
    recalls: list[float] = field(default_factory=list)
    remote: Counter = field(default_factory=Counter)
    replica_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)


def main() -> int:
    args = arguments()
    before = provenance()
    key = args.api_key_file.read_text().strip() if args.api_key_file else None
    replicas, whole = [Client(url, key) for url in args.replicas], Client(args.whole, key)
    archive = whole.ask("GET", "/v1/archive").expect(200)
    wait_for_all(replicas, archive)
    ids = some_ids(whole, archive, args.seed)
    gone, version = write(replicas, archive, ids, args.deleted, args.relabelled)
    known = [each for each in ids if each not in gone]
    held = placement(args)
    counted = [metrics(client) for client in replicas]

    compared = Compared()
    for number in range(args.queries):
        at = number % len(replicas)
        query = Query.drawn(number, args.seed, known, archive, version)
        compare(query, replicas[at], whole, compared, gone)
        compared.remote.update(shard for shard in held["shards"] if shard not in held["replicas"][at])

    problems = judge(args, compared, held, placement(args))
    growth = [metrics(client) - earlier for client, earlier in zip(replicas, counted, strict=True)]
    problems += [
        f"replica {at} asked no other one" for at, count in enumerate(growth) if not count["shard_requests answered"]
    ]
    for at, client in enumerate(replicas):
        if metrics(client)["peers alive"] != len(replicas) - 1:
            problems.append(f"replica {at} does not know all others")
    if missing := sum(count["coverage_missing"] for count in growth):
        problems.append(f"{missing:.0f} searches lacked a shard")
    figures = {
        "as": args.run_as,
        "images": archive["images"],
        "classes": len(archive["classes"]),
        "shards": len(held["shards"]),
        "held_by_replicas": [len(shards) for shards in held["replicas"]],
        "deleted": len(gone),
        "relabelled": args.relabelled,
        "queries": args.queries,
        "queries_by_kind": dict(sorted(compared.asked.items())),
        "same_bytes": args.queries - len(compared.different),
        "same_bytes_exact": compared.asked["exact"] - sum(each["query"]["exact"] for each in compared.different),
        "different": compared.different[:5],
        "asked_again_for_a_version": compared.asked_again,
        "graphs_walked_by": compared.walked,
        "recall_at_10_where_graphs_are_walked": round(statistics.mean(compared.recalls), 5),
        "answered_by_another_replica": {str(shard): compared.remote[shard] for shard in held["shards"]},
        "replicas": [dict(sorted(count.items())) for count in growth],
        "median_ms": {
            "replicas": round(statistics.median(compared.replica_ms), 2),
            "whole": round(statistics.median(compared.whole_ms), 2),
        },
        "problems": problems,
    }
    print(json.dumps(figures, indent=1))
    print(f"{args.queries - len(compared.different)} passed, {len(problems)} failed")
    if args.json:
        write_figures(args.json, before, figures)
    return 1 if problems else 0


def wait_for_all(replicas: list[Client], archive: dict) -> None:
    """Until every replica answers with all shards."""
    body = {"vector": [1.0] * archive["space"]["dimension"], "space": archive["space"]["id"], "exact": True}
    end = time.monotonic() + SEEN_WITHIN_S
    for client in replicas:
        while (answer := client.ask_json("POST", "/v1/search/by-vector", body)).status != 200:
            if time.monotonic() > end:
                answer.expect(200)
            time.sleep(TRY_EVERY_S)


def some_ids(whole: Client, archive: dict, seed: int) -> list[str]:
    """Ids of images, copies among them: what is near to random vectors."""
    dice = random.Random(seed)
    ids: dict[str, None] = {}
    space, names = archive["space"], [entry["name"] for entry in archive["classes"]]
    for _ in range(20 * IDS_WANTED // 100):
        if len(ids) >= min(IDS_WANTED, archive["images"] // 2):
            break
        body = {
            "vector": [dice.random() for _ in range(space["dimension"])],
            "space": space["id"],
            "k": 100,
            "classes": [dice.choice(names)],
            "near_identical": dice.choice(["keep", "collapse"]),
            "exact": True,
        }
        answer = whole.ask_json("POST", "/v1/search/by-vector", body).expect(200)
        ids |= dict.fromkeys(neighbor["id"] for neighbor in answer["neighbors"])
    return list(ids)


def write(replicas: list[Client], archive: dict, ids: list[str], deleted: int, relabelled: int) -> tuple[set[str], int]:
    """Delete and relabel images, through one replica after another: (what is gone, the version without it)."""
    names = [entry["name"] for entry in archive["classes"]]
    version = archive["version"]
    # Far apart in the order in which they were found.
    chosen = ids[:: max(1, len(ids) // (deleted + relabelled))][: deleted + relabelled]
    for number, image in enumerate(chosen):
        client = replicas[number % len(replicas)]
        if number < deleted:
            answer = client.ask("DELETE", f"/v1/images/{image}")
        else:
            answer = client.ask_json("PATCH", f"/v1/images/{image}", {"class": names[number % len(names)]})
        version = max(version, answer.expect(200)["version"])
    return set(chosen[:deleted]), version


@dataclass(frozen=True)
class Query:
    """A question, and the kinds of questions that it is counted as."""

    path: str
    body: dict
    kinds: tuple[str, ...]

    @staticmethod
    def drawn(number: int, seed: int, ids: list[str], archive: dict, version: int) -> "Query":
        """The same number is the same question."""
        dice = random.Random(f"{seed} {number}")
        names = [entry["name"] for entry in archive["classes"]]
        exact = number % 3 != 0
        body: dict = {
            "k": dice.randint(1, 30) if exact else 10,
            "exact": exact,
            "vote": dice.choice(["majority", "distance", "prior"]),
            "near_identical": dice.choice(["collapse", "keep"]),
            "min_version": version,
        }
        kinds = ["exact" if exact else "graphs"]
        if number % 5 == 4:
            path = "/v1/search/by-vector"
            body |= {"vector": [dice.random() for _ in range(archive["space"]["dimension"])]}
            body |= {"space": archive["space"]["id"]}
            kinds.append("vector")
        else:
            path = "/v1/search/by-id"
            body["ids"] = dice.sample(ids, dice.choice([1, 1, 1, 2, 5]))
            kinds.append("id")
        if dice.random() < 0.3:
            body["classes"] = dice.sample(names, dice.randint(1, CLASSES_MAX))
            kinds.append("classes")
        if dice.random() < 0.3 and archive["sources"]:
            body[dice.choice(["sources", "exclude_source"])] = [dice.choice(source_names(archive))]
            kinds.append("sources")
        if dice.random() < 0.4:
            body["exclude"] = dice.choice([["patient"], ["study"], ["pixels"], ["patient", "study"], ["none"]])
            kinds.append("exclude")
        if dice.random() < 0.2:
            body[dice.choice(["liked", "disliked"])] = dice.sample(ids, 2)
            kinds.append("liked")
        return Query(path, body, tuple(kinds))


def source_names(archive: dict) -> list[str]:
    """Names of the sources, however the archive lists them."""
    return [entry["name"] if isinstance(entry, dict) else entry for entry in archive["sources"]]


def compare(query: Query, replica: Client, whole: Client, compared: Compared, gone: set[str]) -> None:
    """One query, there and here."""
    for _ in range(TRIES_MAX):
        found, took = timed(replica, query.path, query.body)
        wanted, whole_took = timed(whole, query.path, query.body)
        if found.status != 200 or found.json()["archive"]["version"] == wanted.json()["archive"]["version"]:
            break
        # A merge has made a new version, which not everyone serves yet.
        compared.asked_again += 1
        time.sleep(TRY_EVERY_S)
    compared.asked.update(query.kinds)
    compared.replica_ms.append(took)
    compared.whole_ms.append(whole_took)
    question = {key: value for key, value in query.body.items() if key != "vector"}
    if found.status != 200 or said(found) != said(wanted):
        compared.different.append({"status": found.status, "query": question})
        return
    answer = found.json()
    if answer["coverage"]["missing"] or gone & {neighbor["id"] for neighbor in answer["neighbors"]}:
        compared.different.append({"why": "a shard is missing, or a deleted image is there", "query": question})
    if not query.body["exact"]:
        compared.walked += "hnsw" in answer["path"].values()
        nearest = timed(whole, query.path, query.body | {"exact": True})[0].expect(200)["neighbors"]
        if nearest:
            here = {neighbor["id"] for neighbor in answer["neighbors"]}
            compared.recalls.append(sum(neighbor["id"] in here for neighbor in nearest) / len(nearest))


def timed(client: Client, path: str, body: dict) -> tuple[Answer, float]:
    """An answer and the milliseconds that it took."""
    began = time.monotonic()
    answer = client.ask_json("POST", path, body)
    return answer, (time.monotonic() - began) * 1000


def said(answer: Answer) -> bytes:
    """The bytes of an answer, but for the times that it took."""
    return re.sub(rb'"timings_ms":\{[^{}]*\}', b"", answer.body)


def placement(args: argparse.Namespace) -> dict:
    """The shards that each replica holds of the version that all of them have."""
    key = args.inner_key_file.read_text().strip()
    held = []
    for url in args.inner:
        status = Client(url, key).ask("GET", "/inner/v1/status").expect(200)
        held.append({entry["version"]: sorted(entry["shards"]) for entry in status["held"]})
    newest = max(set.intersection(*(set(versions) for versions in held)))
    replicas = [versions[newest] for versions in held]
    return {"version": newest, "replicas": replicas, "shards": sorted(set().union(*replicas))}


def metrics(client: Client) -> Counter:
    """What a replica has counted of asking others, and how many it knows."""
    counts: Counter = Counter()
    for line in client.ask("GET", "/metrics").body.decode().splitlines():
        if match := COUNTED.match(line):
            counts[" ".join(filter(None, match.group(1, 2)))] += float(match[3])
    return counts


def judge(args: argparse.Namespace, compared: Compared, before: dict, after: dict) -> list[str]:
    """What is not as promised."""
    problems = [f"{len(compared.different)} answers differ"] if compared.different else []
    if before["replicas"] != after["replicas"]:
        problems.append(f"shards moved while it was measured: {before['replicas']} became {after['replicas']}")
    for at, shards in enumerate(before["replicas"]):
        if not 0 < len(shards) <= args.held_max:
            problems.append(f"replica {at} holds {len(shards)} shards, not 1 to {args.held_max}")
    never = [shard for shard in before["shards"] if not compared.remote[shard]]
    if never:
        problems.append(f"shards {never} were never answered by another replica")
    if not compared.walked:
        problems.append("no query walked a graph: index and serve with --exact-rows-max")
    recall = statistics.mean(compared.recalls)
    if recall < RECALL_LEAST:
        problems.append(f"recall at 10 is {recall:.4f}, less than {RECALL_LEAST}")
    return problems


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", required=True, nargs="+", metavar="URL", help="where each replica is asked")
    parser.add_argument("--inner", required=True, nargs="+", metavar="URL", help="where each replica asks another one")
    parser.add_argument("--whole", required=True, metavar="URL", help="a machine that holds all of the same archive")
    parser.add_argument("--api-key-file", type=Path, help="the servers' API key")
    parser.add_argument("--inner-key-file", type=Path, required=True, help="the replicas' own credential")
    parser.add_argument("--held-max", type=int, default=6, help="shards of one replica at most, default %(default)s")
    parser.add_argument("--queries", type=int, default=1600, help="default %(default)s")
    parser.add_argument("--deleted", type=int, default=30, help="images deleted first, default %(default)s")
    parser.add_argument("--relabelled", type=int, default=9, help="images relabelled first, default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--run-as", default="servers", help="what they run as, for the figures")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    args = parser.parse_args()
    if len(args.inner) != len(args.replicas):
        parser.error("--inner and --replicas name the same machines")
    if args.queries < 10:
        parser.error("--queries must be at least 10")
    return args


if __name__ == "__main__":
    sys.exit(main())
