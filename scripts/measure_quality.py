#!/usr/bin/env python3
"""What recipe and learned metric bring on labelled X-rays, by `medsearch evaluate`, each figure beside its bound.

Each set is embedded twice, by the last layer at the network's own input size and by recipe `layers`. Then, for folds
of whole patients, a metric is learned from the other patients; which space and which shrinkage are used is decided
within what is learned from. Ends with 1 when a figure is beyond its bound.
"""

import argparse
import json
import sys
from pathlib import Path

from medsearch_py.provenance import ROOT, provenance, write_figures
from medsearch_py.spaces import embed, export, run

# Set -> the least balanced accuracy, and the most classes in a set at 90 %.
BOUNDS = {"cxr-three-class": (0.92, 1.6), "nih-normal-pneumonia": (0.81, 1.7)}
COVERAGE_BELOW, COVERAGE_ABOVE = 0.02, 0.04
ABSTAINED_MAX = 0.2


def main() -> int:
    """Measures, prints one line a figure, and keeps them."""
    args = arguments()
    before = provenance()
    spaces = {"last layer": export("head", args.work), "four layers": export("layers", args.work)}
    figures = {}
    for data in args.data:
        work = args.work / data.name
        folders = {name: embed(args.program, data, model, work / model.name) for name, model in spaces.items()}
        figures[data.name] = judge(evaluate(data, folders, args), *BOUNDS[data.name])
    for name, of_set in figures.items():
        print(f"{name}\n{json.dumps(of_set['reached'], indent=1, ensure_ascii=False)}")
        for check in of_set["checks"]:
            print(
                f"  {'holds' if check['holds'] else 'DOES NOT HOLD'}: {check['what']}: {check['is']} ({check['bound']})"
            )
    if args.json:
        write_figures(args.json, before, figures)
    return int(not all(check["holds"] for of_set in figures.values() for check in of_set["checks"]))


def evaluate(data: Path, folders: dict[str, Path], args: argparse.Namespace) -> dict:
    """Every figure of the program."""
    first, *others = folders.values()
    candidates = [word for other in others for word in ("--candidate", other)]
    report = args.work / f"{data.name}.json"
    run(
        args.program, "evaluate", "--embeddings", first, "--data", data, *candidates,
        "--learn", "--folds", 5, "--seeds", args.seeds, "-k", 15, "--vote", "prior",
        "--json", report, "--html", args.work / f"{data.name}.html",
    )  # fmt: skip
    return json.loads(report.read_text())


def judge(report: dict, balanced_min: float, set_size_max: float) -> dict:
    """What was reached, and whether each bound holds."""
    reached = {"neighbors and their vote": report["decisions"]["balanced_accuracy"]}
    floors = {floor["name"]: floor["figures"] for floor in report["floors"] + report["less_learned"]}
    for name, figures in floors.items():
        reached[name] = figures.get("balanced_accuracy", figures)
    # By how much each is behind what was reached, group by group: what recipe and metric bring apart, and the floors.
    behind = {name: figures["below_ours"] for name, figures in floors.items() if figures.get("below_ours")}
    raw, calibrated = report["confidence"]["raw"], report["confidence"]["calibrated"]
    sets = next(level for level in report["prediction_sets"] if level["level"] == 0.9)
    abstained = sets["empty"] + sets["too_large"]
    above = floors["32×32 grey thumbnail"].get("below_ours") or {"low": None}
    checks = [
        at_least("balanced accuracy", reached["neighbors and their vote"]["value"], balanced_min),
        at_least("above the thumbnail floor, low end of the interval", above["low"], 0.0),
        at_most("calibration error, by its 95th percentile by chance", calibrated["ece"], calibrated["ece_by_chance"]),
        at_most("Brier score, by that of the raw vote", calibrated["brier"], raw["brier"]),
        at_most("classes in a set at 90 %", sets["mean_size"], set_size_max),
        at_most("share without an answer at 90 %: an empty set, or all classes or three", abstained, ABSTAINED_MAX),
    ]
    for level in report["prediction_sets"]:
        promised, is_ = level["level"], level["mean_class_coverage"]
        checks.append(at_least(f"coverage at {promised:.0%}", is_, promised - COVERAGE_BELOW))
        checks.append(at_most(f"coverage at {promised:.0%}", is_, promised + COVERAGE_ABOVE))
    return {
        "reached": reached,
        "behind": behind,
        "checks": checks,
        "chosen": report["protocol"]["metric"]["chosen"],
        "tried": report["protocol"]["metric"]["tried"],
        "leakage": report["leakage"],
        "prediction_sets": report["prediction_sets"],
    }


def at_least(what: str, value: float | None, bound: float) -> dict:
    """One check; what is not there does not hold."""
    holds = value is not None and value >= bound
    return {"what": what, "is": value, "bound": f"at least {bound:.4g}", "holds": holds}


def at_most(what: str, value: float | None, bound: float) -> dict:
    """One check; what is not there does not hold."""
    holds = value is not None and value <= bound
    return {"what": what, "is": value, "bound": f"at most {bound:.4g}", "holds": holds}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help=f"folders of {', '.join(BOUNDS)}")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in, kept: models, vectors, pages")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the folds (default 20)")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/medsearch", help="the program")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    args = parser.parse_args()
    for data in args.data:
        if data.name not in BOUNDS:
            parser.error(f"`{data}` has no bounds: {', '.join(BOUNDS)} have")
    return args


if __name__ == "__main__":
    sys.exit(main())
