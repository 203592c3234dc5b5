#!/usr/bin/env python3
"""What a source alone tells: three sets of X-rays in one archive, each a source, asked about by `medsearch evaluate`.

Classes that only one hospital has are told by the hospital: this is what the shortcut battery is there to show, and no
evidence of how well a disease is told. Prints, and keeps, the source oracle beside the accuracy, how well sources are
told from each other, the robustness index, tasks within one source, each source left out, and what remains of the
accuracy with the middle of each picture blacked out. Ends with 1 when one of them is not there.
"""

import argparse
import csv
import json
import shutil
import sys
from pathlib import Path

from medsearch_py.provenance import ROOT, provenance, write_figures
from medsearch_py.spaces import embed, export, run

KEPT = ("leakage", "shortcuts", "controls")


def main() -> int:
    """Measures, prints one JSON object, and keeps it."""
    args = arguments()
    before = provenance()
    data = args.work / "data"
    shutil.rmtree(data, ignore_errors=True)
    mixed(args.data, data)
    model = export("head", args.work)
    folder = embed(args.program, data, model, args.work / "embeddings")
    report = args.work / "report.json"
    run(
        args.program, "evaluate", "--embeddings", folder, "--data", data, "--model", model, "--controls",
        "-k", 10, "--vote", "majority", "--seeds", 1, "--json", report, "--html", args.work / "report.html",
    )  # fmt: skip
    report = json.loads(report.read_text())
    floors = {floor["name"]: floor["figures"].get("balanced_accuracy") for floor in report["floors"]}
    figures = {
        "balanced_accuracy": report["decisions"]["balanced_accuracy"],
        "floors": floors,
        "classes": report["protocol"]["classes"],
        "sources": report["protocol"]["sources"],
    } | {name: report[name] for name in KEPT}
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    if args.json:
        write_figures(args.json, before, figures)
    missing = [name for name in KEPT if not report[name] or "not_available" in report[name]]
    missing += [] if floors["source oracle"] else ["source oracle"]
    print(f"not there: {', '.join(missing)}" if missing else "the whole battery is there")
    return int(bool(missing))


def mixed(folders: list[Path], out: Path) -> None:
    """One labelled folder of all; a set is a source, and its patients are its own."""
    rows = []
    for folder in folders:
        with (folder / "metadata.csv").open(newline="") as table:
            for row in csv.DictReader(table):
                file = f"{row['class']}/{folder.name}-{Path(row['file']).name}"
                (out / row["class"]).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / row["file"], out / file)
                patient = f"{folder.name}:{row['patient_id']}" if row.get("patient_id") else ""
                rows.append({"file": file, "class": row["class"], "patient_id": patient, "source": folder.name})
    with (out / "metadata.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["file"]))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="labelled folders with a metadata.csv")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in, kept: pictures, vectors, the page")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch", help="the program")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
