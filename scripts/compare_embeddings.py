#!/usr/bin/env python3
"""Two embedding folders of the same files, held against each other: cosine per file and leave-one-out top-10 lists.

Exit code 1 when a file is missing on one side, a cosine is below the bound or a list differs by more than ties under
1e-4.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from leave_one_out import TIE, load


def top(matrix, index: int, k: int):
    """The k most similar other rows and the similarity of each row to this one."""
    similarities = matrix @ matrix[index]
    similarities[index] = -np.inf
    return np.argsort(-similarities, kind="stable")[:k], similarities


def same_but_for_ties(one, other, similarities) -> bool:
    """Every place where the lists differ is a tie: the two rows are equally similar to within TIE."""
    return all(abs(similarities[a] - similarities[b]) < TIE for a, b in zip(one, other, strict=True) if a != b)


def name(record: dict) -> str:
    """The file, and which frame of it unless that is the first."""
    return f"{record['file']}, frame {record['frame']}" if "frame" in record else record["file"]


def main() -> int:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--cosine", type=float, default=0.9999)
    parser.add_argument("-k", type=int, default=10)
    arguments = parser.parse_args()
    sides = [load(arguments.one), load(arguments.other)]
    orders = [{name(record): row for row, record in enumerate(side[2])} for side in sides]
    missing = orders[0].keys() ^ orders[1].keys()
    files = sorted(orders[0].keys() & orders[1].keys())
    one, other = (side[0][[order[file] for file in files]] for side, order in zip(sides, orders, strict=True))
    records = [[side[2][order[file]] for file in files] for side, order in zip(sides, orders, strict=True)]
    cosines = np.sum(one * other, axis=1)
    k = min(arguments.k, len(files) - 1)
    differing = []
    for row, file in enumerate(files):
        (mine, similarities), (theirs, _) = top(one, row, k), top(other, row, k)
        if not same_but_for_ties(mine, theirs, similarities):
            differing.append(file)
    unequal = [file for file, a, b in zip(files, *records, strict=True) if a != b]
    low = [file for file, cosine in zip(files, cosines, strict=True) if cosine < arguments.cosine]
    print(
        json.dumps(
            {
                "files": len(files),
                "missing_on_one_side": sorted(missing),
                "cosine_min": float(f"{cosines.min():.7f}"),
                "cosine_below_bound": low,
                f"top_{k}_lists_that_differ": differing,
                "records_that_differ": unequal,
            },
            indent=1,
        )
    )
    return 1 if missing or low or differing or unequal else 0


if __name__ == "__main__":
    sys.exit(main())
