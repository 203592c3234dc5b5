"""Replicas that share an archive answer as one machine does: `scripts/soak containers`, small and as processes.

`tests/api/cluster.rs` shows it for servers in one process; here they find each other over the network.
"""

import json
import subprocess
import sys

from conftest import PROGRAM, ROOT, script

IMAGES, QUERIES, SHARDS = 2000, 150, 8
# So few that every class of every shard has a graph.
EXACT_ROWS_MAX = 30


def test_three_processes_answer_as_one_machine(tmp_path):
    """Each has memory for six of eight shards, and each shard is answered by another one than was asked."""
    maker = ("--out", tmp_path, "--images", IMAGES, "--shards", SHARDS, "--exact-rows-max", EXACT_ROWS_MAX)
    script("make_cluster_archive.py", *maker, "--program", PROGRAM)
    index_bytes_max = int((tmp_path / "index-bytes").read_text()) * 13 // 16
    figures = tmp_path / "figures.json"
    command = [ROOT / "scripts/containers", 3, "--processes", "--archive", tmp_path / "archive"]
    command += ["--index-bytes-max", index_bytes_max, "--exact-rows-max", EXACT_ROWS_MAX, "--"]
    command += [sys.executable, ROOT / "scripts/measure_containers.py", "--replicas", "@REPLICAS@"]
    command += ["--inner", "@INNER@", "--whole", "@WHOLE@", "--api-key-file", "@API_KEY@"]
    command += ["--inner-key-file", "@INNER_KEY@", "--run-as", "@AS@", "--queries", QUERIES, "--json", figures]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    measured = json.loads(figures.read_text())["figures"]
    assert measured["as"] == "processes" and measured["images"] == IMAGES
    assert measured["same_bytes"] == QUERIES
    assert measured["graphs_walked_by"] > 20 and measured["recall_at_10_where_graphs_are_walked"] >= 0.99
    assert all(answered > 0 for answered in measured["answered_by_another_replica"].values())
