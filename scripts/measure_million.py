#!/usr/bin/env python3
"""Up to a million vectors of 1280 components in four classes on one machine: build, start, memory, rate, recall.

    scripts/measure_million.py --work .local/soak/million --json bench/results/million.json

Vectors are drawn as in `cargo bench --bench hnsw`: 64 components on a random 32-dimensional subspace, 10 % noise, 4
classes that overlap by 20 %. For each size `medsearch index` writes an archive, the file cache is emptied, `medsearch
serve` starts, and searches by vectors that it has not seen are answered, exactly and by graph. Each figure stands
beside what limits it on this machine, measured in the same run. Clients share the processors with the server.
"""

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medsearch_py.provenance import ROOT, provenance, write_figures
from medsearch_py.watched import Watched

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
SUBSPACE, COMPONENTS, NOISE, OVERLAP, WITHIN, SEED = 32, 64, 0.1, 0.2, 0.5, 7
CHUNK = 10_000
K, RECALL_MIN = 10, 0.98
QUERIES, WARM_UP, SECONDS_OF_LOAD, CLIENTS = 1000, 50, 20, (1, 2, 4, 8)
READY_WITHIN_S = 1800


class Mixture:
    """Rows of an endless table."""

    def __init__(self, dimension: int, seed: int = SEED) -> None:
        self.random = np.random.default_rng(seed)
        basis = np.random.default_rng(SEED).standard_normal((SUBSPACE, dimension), np.float32)
        self.basis = basis / np.sqrt(dimension)
        self.centers = np.random.default_rng(SEED + 1).standard_normal((COMPONENTS, SUBSPACE), np.float32)
        signal = SUBSPACE * (1 + WITHIN**2)
        self.noise = np.float32(np.sqrt(signal * NOISE / (1 - NOISE) / dimension))

    def rows(self, count: int, number: int | None = None) -> np.ndarray:
        """The next rows, of a class where one is given: mostly of its own components."""
        component = self.random.integers(0, COMPONENTS, count)
        if number is not None:
            own = self.random.random(count) >= OVERLAP
            component[own] = component[own] // len(CLASSES) * len(CLASSES) + number
        latent = self.centers[component] + WITHIN * self.random.standard_normal((count, SUBSPACE), np.float32)
        noise = self.random.standard_normal((count, self.basis.shape[1]), np.float32) * self.noise
        return (latent @ self.basis + noise).astype(np.float32)


def main() -> int:
    """Measures every size, prints one JSON object, ends with 1 when a bound does not hold."""
    args = arguments()
    before = provenance()
    card = json.loads((args.model / "model.json").read_text())
    args.work.mkdir(parents=True, exist_ok=True)
    limit = limits(args)
    sizes = [measured(args, size, card, limit) for size in args.rows]
    recall = min(size["graph"]["recall_at_10"] for size in sizes)
    cold = all(size["start"]["cache_was_cold"] for size in sizes)
    figures = {
        "data": f"{COMPONENTS} components on {SUBSPACE} of {card['dimension']} dimensions, noise {NOISE}, "
        f"classes overlapping by {OVERLAP}, seed {SEED}",
        "limits": limit,
        "sizes": sizes,
        "recall_min": RECALL_MIN,
        "passed": recall >= RECALL_MIN and cold,
    }
    print(json.dumps(before | {"figures": figures}, indent=1))
    if args.json:
        write_figures(args.json, before, figures)
    return 0 if figures["passed"] else 1


def measured(args: argparse.Namespace, rows: int, card: dict, limit: dict) -> dict:
    """One size, from vectors to answers."""
    work = args.work / str(rows)
    shutil.rmtree(work, ignore_errors=True)
    write_embeddings(args, work / "embeddings", rows, card)
    archive = work / "archive"
    command = [args.program, "index", "--embeddings", work / "embeddings", "--archive", archive, "--synthetic"]
    processors = children_seconds()
    indexed = Watched([*command, "--model", args.model]).run().must_succeed()
    processors = (children_seconds() - processors) / indexed.seconds
    shutil.rmtree(work / "embeddings")
    graph_bytes = (
        sum(file.stat().st_size for file in (archive / "graphs").glob("*")) if (archive / "graphs").exists() else 0
    )
    archive_bytes = sum(file.stat().st_size for file in archive.rglob("*") if file.is_file())
    cold = drop_cache(archive)
    vectors_bytes = rows * card["dimension"] * 4
    with served(args, archive) as (port, process, ready_s):
        memory, space = status(process), Client(port).space()
        queries = [json.dumps({"space": space, "k": K, "vector": row}) for row in queries_of(card["dimension"])]
        answer = {
            "rows": rows,
            "build_s": round(indexed.seconds, 1),
            "build_rows_per_s": round(rows / indexed.seconds, 1),
            "build_processors_busy": round(processors, 2),
            "build_peak_mib": indexed.peak_kib // 1024,
            "archive_mib": archive_bytes >> 20,
            "graphs_mib": graph_bytes >> 20,
            "start": {
                "cache_was_cold": cold,
                "ready_s": round(ready_s, 2),
                "at_least_s_to_read_it": round((archive_bytes >> 20) / limit["file_read_mib_per_s"], 2),
                "mib_per_s": round((archive_bytes >> 20) / ready_s),
            },
            "memory": {
                "resident_mib": memory["VmRSS"] >> 10,
                "peak_mib": memory["VmHWM"] >> 10,
                "vectors_and_graphs_mib": (vectors_bytes + graph_bytes) >> 20,
            },
            **answered(port, process, queries),
        }
    # All rows, read once by all processors.
    answer["exact"]["at_least_ms_to_read_the_rows"] = round(
        (vectors_bytes >> 20) / limit["memory_read_mib_per_s"] * 1e3, 2
    )
    shutil.rmtree(work)
    print(json.dumps(answer), flush=True)
    return answer


def write_embeddings(args: argparse.Namespace, folder: Path, rows: int, card: dict) -> None:
    """The interchange form, a class at a time; records as `embed` writes them."""
    mixture = Mixture(card["dimension"])
    source = args.work / "one"
    script = [sys.executable, ROOT / "scripts/make_synthetic_xrays.py", "--out", source / "data", "--count", 4]
    if not source.exists():
        subprocess.run(list(map(str, script)), check=True, stdout=subprocess.DEVNULL)
        embed = [
            args.program,
            "embed",
            "--data",
            source / "data",
            "--out",
            source / "embeddings",
            "--model",
            args.model,
        ]
        subprocess.run(list(map(str, embed)), check=True, stderr=subprocess.DEVNULL)
    form = json.loads(next((source / "embeddings").glob("*.json")).read_text())
    form.pop("vectors_sha256", None)
    folder.mkdir(parents=True)
    for number, name in enumerate(CLASSES):
        count = rows // len(CLASSES)
        shape = (count, card["dimension"])
        table = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, count, CHUNK):
            table[start : start + CHUNK] = mixture.rows(min(CHUNK, count - start), number)
        table.flush()
        del table
        records = [
            {"id": f"{name}/{row}", "file": f"{name}/{row}.png", "sha256": f"{number:032x}{row:032x}"}
            for row in range(count)
        ]
        (folder / f"{name}.json").write_text(json.dumps(form | {"class": name, "records": records}))


def queries_of(dimension: int) -> list[list[float]]:
    """Vectors that no archive holds."""
    return Mixture(dimension, SEED + 1000).rows(QUERIES).astype(float).round(6).tolist()


def drop_cache(folder: Path) -> bool:
    """Empties the system's cache, or asks for each file where that is not permitted. Whether all of it is gone."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return False


@contextlib.contextmanager
def served(args: argparse.Namespace, archive: Path) -> Iterator[tuple[int, subprocess.Popen, float]]:
    """(port, process, seconds until it was ready) of a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    command = [
        args.program,
        "serve",
        "--archive",
        archive,
        "--listen",
        f"127.0.0.1:{port}",
        "--read-only",
        "--sample-share",
        0,
    ]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() - began < READY_WITHIN_S, "the server did not become ready"
            time.sleep(0.02)
        yield port, process, time.monotonic() - began
    finally:
        process.terminate()
        process.wait(60)


def children_seconds() -> float:
    """Processor time of the programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def status(process: subprocess.Popen) -> dict[str, int]:
    """Memory of a process in KiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}


def cpu_seconds(process: subprocess.Popen) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client:
    """A connection that stays open."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def space(self) -> str:
        """Which vectors it takes."""
        self.connection.request("GET", "/v1/archive")
        return json.load(self.connection.getresponse())["space"]["id"]

    def search(self, body: str) -> dict:
        """The answer of a search by vector, which must be one."""
        self.connection.request("POST", "/v1/search/by-vector", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:500]
        return json.loads(content)


def answered(port: int, process: subprocess.Popen, queries: list[str]) -> dict:
    """Exact and by graph, alone and several at a time; recall of the second against the first."""
    client = Client(port)
    for query in queries[:WARM_UP]:
        client.search(query)
    exact_of = [query.replace('"k"', '"exact": true, "k"', 1) for query in queries[: QUERIES // 5]]
    exact = timed(client, process, exact_of)
    graph = timed(client, process, queries)
    pairs = zip(exact.pop("answers"), graph.pop("answers"), strict=False)
    same = [len({n["id"] for n in a["neighbors"]} & {n["id"] for n in b["neighbors"]}) / K for a, b in pairs]
    path = client.search(queries[0])["path"]
    return {
        "exact": exact,
        "graph": graph | {"recall_at_10": round(float(np.mean(same)), 4), "path": path},
        "load": [loaded(port, process, queries, clients) for clients in CLIENTS],
    }


def timed(client: Client, process: subprocess.Popen, queries: list[str]) -> dict:
    """One search after the other: milliseconds, and the server's processor time for each."""
    times, answers, cpu = [], [], cpu_seconds(process)
    for query in queries:
        began = time.perf_counter()
        answers.append(client.search(query))
        times.append((time.perf_counter() - began) * 1e3)
    spent = (cpu_seconds(process) - cpu) / len(queries)
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "cpu_ms": round(spent * 1e3, 2), "answers": answers}


def loaded(port: int, process: subprocess.Popen, queries: list[str], clients: int) -> dict:
    """So many clients, each asking as soon as it was answered."""
    cpu, began = cpu_seconds(process), time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(clients) as pool:
        of_each = pool.map(asked, [(port, queries[at::clients]) for at in range(clients)])
        times = [took for of_one in of_each for took in of_one]
    seconds = time.monotonic() - began
    spent = cpu_seconds(process) - cpu
    p50, p99 = np.percentile(times, [50, 99])
    processors = len(os.sched_getaffinity(0))
    return {
        "clients": clients,
        "searches_per_s": round(len(times) / seconds, 1),
        "at_most_by_processor_time": round(processors / (spent / len(times)), 1),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
    }


def asked(what: tuple[int, list[str]]) -> list[float]:
    """Milliseconds of each search of one client."""
    port, queries = what
    client, times, end = Client(port), [], time.monotonic() + SECONDS_OF_LOAD
    while time.monotonic() < end:
        query = queries[len(times) % len(queries)]
        began = time.perf_counter()
        client.search(query)
        times.append((time.perf_counter() - began) * 1e3)
    return times


def limits(args: argparse.Namespace) -> dict:
    """What this machine can do: memory read and file read, in MiB a second."""
    table = np.ones(256 << 20, np.float32)
    best = min(timed_read(table) for _ in range(3))
    file = args.work / "limit"
    block = os.urandom(1 << 20)
    with file.open("wb") as opened:
        for _ in range(2048):
            opened.write(block)
        opened.flush()
        os.fsync(opened.fileno())
    drop_cache(args.work)
    began = time.monotonic()
    with file.open("rb", buffering=0) as opened:
        while opened.read(8 << 20):
            pass
    read_s = time.monotonic() - began
    file.unlink()
    return {"memory_read_mib_per_s": round(1024 / best), "file_read_mib_per_s": round(2048 / read_s)}


def timed_read(table: np.ndarray) -> float:
    """Seconds to read a table once, a part of it on each processor."""
    parts = np.array_split(table, len(os.sched_getaffinity(0)))
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        began = time.perf_counter()
        list(pool.map(lambda part: np.dot(part, part), parts))
        return time.perf_counter() - began


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, with 15 KB of room for each vector")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="default %(default)s")
    parser.add_argument(
        "--model", type=Path, default=ROOT / "models/efficientnet_lite0", help="whose space it is, default %(default)s"
    )
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
