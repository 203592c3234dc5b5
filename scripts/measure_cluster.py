#!/usr/bin/env python3
"""Three replicas under load while one is killed, cut off, slowed, and all are rolled; two of three gone; healing.

    scripts/measure_cluster.py --work .local/soak/cluster --seconds 300 --json bench/results/cluster.json

An archive of drawn vectors in eight shards, each held twice, memory for six of eight in each replica. What they can do
is measured first. The load is 60 % of it, by schedule: searches, and images handed in, through a proxy that tries
another replica once where a connection fails; and a tenth of it at the replicas directly, where nothing is tried again,
reported apart. Needs haproxy. Exit code 1 when a bound is not kept.

--previous BINARY rolls from an earlier program too, say that of the commit before:

    git worktree add ../previous HEAD~1 && (cd ../previous && scripts/setup)
    scripts/measure_cluster.py … --previous ../previous/target/release/medsearch

or from what an image of that commit runs: `MEDSEARCH_PREVIOUS=medsearch:previous scripts/soak cluster` takes it out.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medsearch_py.cluster import ROOT, Cluster
from medsearch_py.drawn import drawn_archive, room_for
from medsearch_py.faults import (
    SLOW_BY_MS,
    Outcome,
    Rate,
    Trial,
    capacity,
    cut_off,
    heals,
    killed,
    rolled,
    slowed,
    two_gone,
)

PROGRAM = ROOT / "target/release/medsearch"
REPLICAS, SHARDS, SHARDS_FIT = 3, 8, 6.5
"""Shards are not all of one size: half a shard more than the six that shall fit."""
HEALING_REPLICAS, HEALING_SHARDS_FIT = 4, 5.5
"""Two of four hold all of it. Of three, one that has room for everything holds everything from the start."""
LOAD_SHARE, DIRECT_SHARE = 0.6, 0.1
INGESTS_PER_S = 1.0
SLOWER_MAX = 2.0
SETTLES_S, JUDGED_S = 5.0, 60.0
GONE_MAX_S = 60.0


@dataclass
class Findings:
    """Figures, and the bounds they are held to."""

    figures: dict = field(default_factory=dict)
    bounds: list[dict] = field(default_factory=list)

    def bound(self, text: str, passed: bool, figure: object) -> None:
        """Says whether one is kept."""
        self.bounds.append({"bound": text, "figure": figure, "passed": passed})
        print(f"{'passed' if passed else 'FAILED'}: {text}: {figure}", flush=True)

    def judge(self, trial: Trial, outcome: Outcome) -> None:
        """What holds whatever happens to one replica."""
        figures = outcome.figures()
        self.figures[outcome.name] = figures
        print(f"---- {outcome.name}: {json.dumps(figures, ensure_ascii=False)}", flush=True)
        figures["whole_after_s"] = round(trial.cluster.wait_whole(), 1)
        lost = trial.lost(outcome.acknowledged)
        figures["ingests"]["lost"] = len(lost)
        proxied = figures["searches_through_the_proxy"]
        self.bound(f"{outcome.name}: failed searches of {proxied['sent']}", outcome.failed == 0, outcome.failed)
        self.bound(f"{outcome.name}: survivors seen unready", outcome.unready == 0, outcome.unready)
        acknowledged = len(outcome.acknowledged)
        self.bound(
            f"{outcome.name}: lost of {acknowledged} acknowledged images", not lost and acknowledged > 0, len(lost)
        )


def faults(findings: Findings, cluster: Cluster, args: argparse.Namespace) -> None:
    """Capacity, then one thing after the other."""
    cluster.wait_whole()
    found = capacity(cluster, INGESTS_PER_S, max(2.0, min(10.0, args.seconds / 10)))
    findings.figures["capacity"] = found
    print(f"---- capacity: {json.dumps(found)}", flush=True)
    load = LOAD_SHARE * found["searches_per_s"]
    rate = Rate(proxied=load * (1 - DIRECT_SHARE), direct=load * DIRECT_SHARE, ingests=INGESTS_PER_S)
    findings.figures["load"] = {name: round(value, 1) for name, value in rate.__dict__.items()}
    trial = Trial(cluster, rate)

    def trying(name: str, fault: Callable[[Cluster, float], dict] | None = None) -> Outcome:
        return trial.run(name, args.seconds, fault)

    healthy = trying("healthy")
    findings.judge(trial, healthy)
    findings.judge(trial, trying("killed", killed))
    findings.judge(trial, trying("cut off", cut_off))
    slow = trying("slow", slowed)
    cluster.do("heal", 1)
    since = slow.notes.pop("since") + SETTLES_S
    findings.judge(trial, slow)
    p99 = slow.p99_ms(since, since + JUDGED_S)
    healthy_p99 = healthy.figures()["searches_through_the_proxy"]["p99_ms"]
    text = (
        f"slow by {SLOW_BY_MS} ms: p99 in ms, in the {JUDGED_S:.0f} s after the first {SETTLES_S:.0f},"
        f" at most {SLOWER_MAX:g} times {healthy_p99}"
    )
    # Not a number where none was answered: no bound is kept by that.
    findings.bound(text, p99 <= SLOWER_MAX * healthy_p99, None if math.isnan(p99) else round(p99, 1))
    findings.judge(trial, trying("rolled", rolled(None)))
    if args.previous:
        for number in range(cluster.count):
            cluster.restart(number, args.previous)
        cluster.wait_whole()
        findings.figures["previous"] = described(args.previous) | {"image": args.previous_image}
        findings.judge(trial, trying("rolled from the previous program", rolled(PROGRAM)))
    else:
        findings.bound("rolled from the previous program: one is named (--previous)", False, None)
    gone = two_gone(cluster, min(args.seconds, GONE_MAX_S))
    back = [cluster.restart(number) for number in range(1, cluster.count)]
    gone |= {
        "back_ready_after_s": [round(seconds, 1) for seconds in back],
        "whole_after_s": round(cluster.wait_whole(), 1),
    }
    findings.figures["two of three gone"] = gone
    text = (
        "two of three gone: 503 that names exactly the missing shards, 200 with their coverage where allowed; otherwise"
    )
    findings.bound(text, gone["asked"] > 0 and bool(gone["missing"]) and not gone["wrong"], len(gone["wrong"]))


def healing(findings: Findings, cluster: Cluster) -> None:
    """Two of four gone, with room for all in the others."""
    cluster.wait_whole()
    found = heals(cluster)
    findings.figures["heals"] = found
    text = (
        f"two of {cluster.count} gone, with room: seconds from a refusal until the others answer in full by themselves"
    )
    healed = found["seconds"] is not None and found["missing"] and found["refused"]
    findings.bound(text, bool(healed), found["seconds"])


def described(program: Path) -> dict:
    """Which program that was."""
    version = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {"version": version, "sha256": hashlib.sha256(program.read_bytes()).hexdigest()}


def main() -> int:
    args = arguments()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    images = args.work / "images"
    make = [
        sys.executable,
        str(ROOT / "scripts/make_synthetic_xrays.py"),
        "--out",
        str(images),
        "--count",
        "40",
        "--seed",
        "5",
    ]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    archive = drawn_archive(PROGRAM, images, args.work, args.rows, SHARDS)
    findings = Findings({"rows": args.rows, "shards": SHARDS, "replicas": REPLICAS, "seconds_a_fault": args.seconds})
    try:
        room = ("--index-bytes-max", room_for(SHARDS_FIT, SHARDS, args.rows))
        with Cluster(REPLICAS, archive, args.work / "three", "--relays", *room) as cluster:
            faults(findings, cluster, args)
        room = ("--index-bytes-max", room_for(HEALING_SHARDS_FIT, SHARDS, args.rows))
        with Cluster(HEALING_REPLICAS, archive, args.work / "four", *room) as cluster:
            healing(findings, cluster)
    except RuntimeError as error:
        findings.bound("it ran to its end", False, str(error))
    failed = [each["bound"] for each in findings.bounds if not each["passed"]]
    if args.json:
        args.json.write_text(
            json.dumps(findings.figures | {"bounds": findings.bounds}, indent=1, ensure_ascii=False) + "\n"
        )
    print(f"{len(findings.bounds) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the archive and logs; emptied first")
    seconds = float(os.environ.get("MEDSEARCH_FAULT_SECONDS", "300"))
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="of each fault (MEDSEARCH_FAULT_SECONDS, or 300)"
    )
    parser.add_argument("--rows", type=int, default=16_000, help="vectors of the archive, default %(default)s")
    parser.add_argument("--previous", type=Path, metavar="BINARY", help="an earlier medsearch, to roll from")
    parser.add_argument("--previous-image", metavar="TAG", help="the image that it was taken out of")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
