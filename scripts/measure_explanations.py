#!/usr/bin/env python3
"""Whether heat maps point at what makes X-rays alike, by `medsearch evaluate --explain`.

Images of all classes, each with its nearest of another patient, are revealed and covered in the order of the map, of
random maps, and of a uniform map, which has no order and is followed in three ways (`src/quality/explained.rs`). Ends
with 1 when the map is not ahead, in insertion and in deletion, by more than the 95 % interval, of random maps and of a
uniform one whose places are sorted as the map's own are. The other ways are reported as they are.
"""

import argparse
import json
import sys
from pathlib import Path

from medsearch_py.provenance import ROOT, provenance, write_figures
from medsearch_py.spaces import RECIPES, embed, export, run

# Fading and dots follow no order: the one spares what the network knows, the other destroys it, whatever is explained.
BEATEN = ("random", "uniform, by rows")
LEADS = {"insertion": "insertion_below_explanation", "deletion": "deletion_above_explanation"}


def main() -> int:
    """Measures, prints a table for each set and recipe, and keeps the figures."""
    args = arguments()
    before = provenance()
    figures, behind = {}, []
    for recipe in args.recipes:
        model = export(recipe, args.work)
        for data in args.data:
            folder = embed(args.program, data, model, args.work / f"{data.name}-{recipe}")
            title = f"{data.name}, {recipe}"
            figures[title] = measure(folder, data, model, args)
            behind += show(title, figures[title])
    if args.json:
        write_figures(args.json, before, figures)
    print("\n".join(behind) or f"ahead in insertion and in deletion of: {'; '.join(BEATEN)}")
    return int(bool(behind))


def measure(folder: Path, data: Path, model: Path, args: argparse.Namespace) -> dict:
    """The figures of the program."""
    report = args.work / f"{folder.name}.json"
    run(
        args.program, "evaluate", "--embeddings", folder, "--data", data, "--model", model,
        "--seeds", 1, "--explain", args.images, "--json", report,
    )  # fmt: skip
    return json.loads(report.read_text())["explanations"]


def show(title: str, figures: dict) -> list[str]:
    """Prints a table, and gives where the map is not ahead, in words."""
    print(f"\n{title}: {figures['images']} images, {figures['method']}")
    print(f"{'':18}  insertion  ahead by                 deletion  ahead by")
    behind = []
    for row in figures["maps"]:
        cells = []
        for measure, lead in LEADS.items():
            ahead = row[lead]
            words = f"{ahead['value']:+.3f} ({ahead['low']:+.3f} to {ahead['high']:+.3f})" if ahead else ""
            cells.append(f"{row[measure]['value']:9.3f}  {words:25}")
            if row["name"] in BEATEN and not ahead["low"] > 0:
                behind.append(f"{title}: not ahead of {row['name']} in {measure}: {words}")
        print(f"{row['name']:18}  {''.join(cells).rstrip()}")
    return behind


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of labelled images")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in, kept: models, vectors, reports")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["head"], help="recipes (default head)")
    parser.add_argument("--images", type=int, default=10_000, help="images of each set to explain (default: all)")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch", help="the program")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
