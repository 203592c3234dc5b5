#!/usr/bin/env python3
"""Does `medsearch duplicates` find changed copies, and nothing else? Recall and precision, on halves of the patients.

Copies of some pictures, each changed in 28 ways, are put beside all pictures of labelled folders, embedded, indexed and
looked for. Recall: of the changed copies, the share found to be their own original. Precision: of all pairs found in
which at least one picture is unchanged, the share that are of one picture. Both for each half of the patients, at
several bounds: whoever chooses a bound on one half reads what it gives on the other. Ends with 1 when either half
falls short of what is wanted at the program's own bound.
"""

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from PIL import Image

from medsearch_py.changed_copies import CHANGES
from medsearch_py.provenance import ROOT, provenance, write_figures

BOUNDS = [0.7, 0.74, 0.77, 0.8, 0.82, 0.85]
# The one in use (`NEAR_DUPLICATE` in src/imaging), and what is wanted of it.
IN_USE, RECALL_MIN, PRECISION_MIN = 0.8, 0.98, 0.99
# Pictures of the public sets that were looked at side by side and are one (equal files, but for the last), or may be.
ONE_PICTURE = [
    ("cxr-three-class/Normal/019.jpg", "cxr-three-class/Normal/020.jpg"),
    ("cxr-three-class/Normal/093.jpg", "cxr-three-class/Normal/094.jpg"),
    ("cxr-three-class/Viral Pneumonia/019.jpg", "cxr-three-class/Viral Pneumonia/020.jpg"),
    ("nih-normal-pneumonia/Normal/00002658_001.jpg", "nih-normal-pneumonia/Normal/00002658_002.jpg"),
    ("cxr-three-class/COVID/COVID-00033.jpg", "cxr-three-class/COVID/COVID-00037.jpg"),
]
UNDECIDED = [("cxr-three-class/COVID/057.jpg", "cxr-three-class/COVID/078.jpg")]


def main() -> int:
    """Measures and prints one JSON object."""
    args = arguments()
    before = provenance()
    originals = read_originals(args.data)
    picked = random.Random(20).sample(sorted(originals), min(args.count, len(originals)))
    data = args.work / "data"
    shutil.rmtree(args.work, ignore_errors=True)
    families = write_data(data, args.data, originals, picked)
    found = look_for(args, data)
    figures = judge(originals, picked, families, pairs_of(found))
    figures["images"] = found["images"]
    figures["further_files"] = found["further_files"]
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    if args.json:
        write_figures(args.json, before, figures)
    in_use = [row for half in ("one_half", "other_half") for row in figures[half] if row["bound"] == IN_USE]
    short = [row for row in in_use if row["recall"] < RECALL_MIN or row["precision"] < PRECISION_MIN]
    print(
        "\n".join(f"short of {RECALL_MIN} and {PRECISION_MIN}: {row}" for row in short) or "both halves are as wanted"
    )
    return int(bool(short))


def read_originals(folders: list[Path]) -> dict[str, str]:
    """Patient by `<set>/<file>`; a picture of an unknown patient is its own."""
    patients = {}
    for folder in folders:
        with (folder / "metadata.csv").open(newline="") as table:
            for row in csv.DictReader(table):
                name = f"{folder.name}/{row['file']}"
                patients[name] = f"{folder.name}:{row['patient_id']}" if row.get("patient_id") else name
    return patients


def write_data(data: Path, folders: list[Path], originals: dict[str, str], picked: list[str]) -> dict[str, str]:
    """All pictures and the changed copies, in one class; gives the family by file of a copy."""
    (data / "picture").mkdir(parents=True)
    where = {folder.name: folder for folder in folders}
    families = {}
    for number, name in enumerate(originals):
        source = where[name.split("/", 1)[0]] / name.split("/", 1)[1]
        shutil.copyfile(source, data / "picture" / f"{number}{source.suffix}")
        if name in set(picked):
            picture = Image.open(source).convert("L")
            for at, (family, change) in enumerate(CHANGES):
                copy = f"{number}-{at}.png"
                change(picture).save(data / "picture" / copy)
                families[copy] = family
    return families


def look_for(args: argparse.Namespace, data: Path) -> dict:
    """The JSON of `medsearch duplicates`, down to the lowest bound."""
    embeddings, archive = args.work / "embeddings", args.work / "archive"
    model = ["--model", args.model]
    index = ["--data", data, *model, "--archive", archive, "--show-file-names", "--retention", "thumbnail"]
    report = args.work / "duplicates.json"
    for command in (
        ["embed", "--data", data, "--out", embeddings, *model],
        ["index", "--embeddings", embeddings, *index],
        ["duplicates", "--archive", archive, "--similarity-min", min(BOUNDS), "--json", report],
    ):
        run = subprocess.run([args.program, *map(str, command)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(report.read_text())


def pairs_of(found: dict) -> list[tuple[str, str, float]]:
    """File, file, similarity."""
    pairs = []
    for cluster in found["clusters"]:
        files = [Path(image["file"]).name for image in cluster["images"]]
        pairs += [(files[one], files[other], similarity) for one, other, similarity in cluster["pairs"]]
    return pairs


def judge(originals: dict[str, str], picked: list[str], families: dict[str, str], pairs: list) -> dict:
    """Recall and precision of each half at each bound, and what was found among unchanged pictures."""
    names = list(originals)
    patients = sorted(set(originals.values()))
    random.Random(5).shuffle(patients)
    half_of = {patient: at % 2 for at, patient in enumerate(patients)}
    half = [half_of[originals[name]] for name in names]
    number = {name: at for at, name in enumerate(names)}
    same = {frozenset((number[a], number[b])) for a, b in ONE_PICTURE if a in number and b in number}
    neither = {frozenset((number[a], number[b])) for a, b in UNDECIDED if a in number and b in number}

    # Equal files are one image in the archive, under the name of either.
    first = {max(pair): min(pair) for pair in same}

    def origin(file: str) -> int:
        at = int(file.split(".")[0].split("-")[0])
        return first.get(at, at)

    own, false, unchanged = {}, [], []
    for one, other, similarity in pairs:
        origins = frozenset((origin(one), origin(other)))
        copies = [file for file in (one, other) if file in families]
        if len(copies) == 2:
            continue
        if copies and len(origins) == 1:
            own[copies[0]] = max(similarity, own.get(copies[0], 0.0))
        elif len(origins) == 2 and origins not in neither:
            # A pair across the halves counts in both.
            false += [(side, similarity) for side in {half[at] for at in origins}]
        if not copies:
            verdict = "one picture" if len(origins) == 1 else "undecided" if origins in neither else "other pictures"
            pair = [names[int(Path(file).stem)] for file in (one, other)]
            unchanged.append({"pair": pair, "similarity": round(similarity, 3), "verdict": verdict})

    def at_bound(bound: float, side: int) -> dict:
        asked = [copy for copy in families if half[origin(copy)] == side]
        hits = {copy for copy in asked if own.get(copy, 0.0) >= bound}
        by_family = defaultdict(list)
        for copy in asked:
            by_family[families[copy]].append(copy in hits)
        wrong = sum(of == side and similarity >= bound for of, similarity in false)
        return {
            "bound": bound,
            "copies": len(asked),
            "recall": round(len(hits) / max(len(asked), 1), 4),
            "precision": round(len(hits) / max(len(hits) + wrong, 1), 4),
            "false_pairs": wrong,
            "recall_by_family": {family: round(sum(found) / len(found), 4) for family, found in by_family.items()},
        }

    return {
        "originals": len(names),
        "changed": len(picked),
        "changes": len(CHANGES),
        "one_half": [at_bound(bound, 0) for bound in BOUNDS],
        "other_half": [at_bound(bound, 1) for bound in BOUNDS],
        "among_unchanged": sorted(unchanged, key=lambda pair: -pair["similarity"]),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="labelled folders with a metadata.csv")
    parser.add_argument("--count", type=int, default=300, help="pictures to change (default 300)")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in; emptied first")
    parser.add_argument("--model", default=str(ROOT / "models/efficientnet_lite0"), help="folder of the model")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch", help="the program")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
