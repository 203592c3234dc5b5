#!/usr/bin/env python3
"""Ask a served archive once, as a person would, and look at the answer: page, description, search, thumbnail."""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

from medsearch_py.client import Client


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="address of the server")
    parser.add_argument("--image", required=True, type=Path, help="an image to search for")
    args = parser.parse_args()
    client = Client(args.url)
    archive = client.ask("GET", "/v1/archive").expect(200)
    answer = client.search(args.image, k=10)
    neighbors, suggestion = answer["neighbors"], answer["suggestion"]
    checks = {
        "the page is HTML": b"<html" in client.ask("GET", "/").body[:1000].lower(),
        "the page says research use only": b"research use only" in client.ask("GET", "/").body.lower(),
        "the API is described": "/v1/search" in client.ask("GET", "/openapi.json").expect(200)["paths"],
        "ten neighbors come back": len(neighbors) == 10,
        "the nearest comes first": all(a["similarity"] >= b["similarity"] for a, b in pairwise(neighbors)),
        "each class has its nearest case": len(answer["nearest_per_class"]) == len(archive["classes"]),
        "the vote adds up": sum(suggestion["votes"].values()) == len(suggestion["voters"]),
        "the answer says what it is for": answer["intended_use"] == "research use only, not for diagnosis",
        "a neighbor has a picture": client.ask("GET", neighbors[0]["thumbnail"]).body.startswith(b"\x89PNG"),
        "samples are offered": len(archive["samples"]) == 6,
        "metrics are served": client.ask("GET", "/metrics").status == 200,
    }
    for name, held in checks.items():
        print(f"{'ok    ' if held else 'FAILED'} {name}")
    print(f"{archive['name']}: {archive['images']} images; suggestion: {suggestion['reason']}")
    failed = sum(not held for held in checks.values())
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
