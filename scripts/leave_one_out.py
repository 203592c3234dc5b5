#!/usr/bin/env python3
"""Leave-one-out over HTTP against numpy: the server's vote for every embedded image and the one computed here.

The archive leaves out the query's own pixels, so that asking for each of its images in turn is leave-one-out.
"""

import argparse
import hashlib
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from medsearch_py.client import Client


def main() -> int:
    args = arguments()
    vectors, records, labels = load(args.embeddings)
    pixels = [pixel_digest(args.data / record["file"]) for record in records]
    client = Client(args.url)
    began, wrong, guesses = time.monotonic(), [], []
    for i, record in enumerate(records):
        guess, votes = expected(i, vectors, labels, pixels, args.k)
        guesses.append(guess)
        suggestion = client.search(args.data / record["file"], k=args.k)["suggestion"]
        if (suggestion["class"], suggestion["votes"]) != (guess, votes):
            wrong.append(f"{record['file']}: server {suggestion['class']} {suggestion['votes']}, numpy {guess} {votes}")
    took = time.monotonic() - began
    recalls = [np.mean([g == c for g, c in zip(guesses, labels, strict=True) if c == name]) for name in set(labels)]
    print(f"{len(records)} images, k = {args.k}, {len(records) / took:.1f} searches/s one after the other")
    print(f"balanced accuracy {np.mean(recalls):.3f} ({', '.join(sorted(set(labels)))})")
    print("\n".join(wrong))
    print(f"{len(records) - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


def load(folder: Path) -> tuple[np.ndarray, list[dict], list[str]]:
    """Unit vectors, their records and classes, over all classes."""
    vectors, records, labels = [], [], []
    for path in sorted(folder.glob("*.npy")):
        described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        vectors.append(np.load(path).astype(np.float64))
        records += described["records"]
        labels += [described["class"]] * len(described["records"])
    joined = np.concatenate(vectors)
    return joined / np.linalg.norm(joined, axis=1, keepdims=True), records, labels


def pixel_digest(path: Path) -> str:
    """Equal for two files that show the same pixels."""
    with Image.open(path) as image:
        return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


def expected(i: int, vectors: np.ndarray, labels: list[str], pixels: list[str], k: int) -> tuple[str, dict[str, int]]:
    """The majority of the k nearest others; ties by summed similarity, then by the nearest."""
    similarity = vectors @ vectors[i]
    others = [j for j in np.argsort(-similarity, kind="stable") if pixels[j] != pixels[i]][:k]
    votes: dict[str, int] = defaultdict(int)
    weights: dict[str, float] = defaultdict(float)
    first: dict[str, int] = {}
    for place, j in enumerate(others):
        votes[labels[j]] += 1
        weights[labels[j]] += similarity[j]
        first.setdefault(labels[j], place)
    return max(votes, key=lambda name: (votes[name], weights[name], -first[name])), dict(votes)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="address of the server")
    parser.add_argument("--embeddings", required=True, type=Path, help="folder of <CLASS>.npy and <CLASS>.json")
    parser.add_argument("--data", required=True, type=Path, help="folder of the images")
    parser.add_argument("-k", type=int, default=10, help="neighbors, default %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
