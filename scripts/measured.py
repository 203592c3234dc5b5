#!/usr/bin/env python3
"""Run a program that writes its figures as JSON, and keep them with what they were measured with.

    scripts/measured.py --out bench/results/hnsw.json -- cargo bench --bench hnsw -- --json @FIGURES@

`@FIGURES@` in the command becomes the file that the program shall write to. Exit code: the program's. Figures of a run
that failed are kept too, with its exit code, in a file beside (`NAME.failed.json`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medsearch_py.provenance import provenance, write_figures

PLACE = "@FIGURES@"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("command", nargs="+", help=f"the program and its arguments, after --; {PLACE} among them")
    args = parser.parse_args()
    if not any(PLACE in word for word in args.command):
        parser.error(f"the command doesn't say where its {PLACE} go")
    before, began = provenance(args.command), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [word.replace(PLACE, str(file)) for word in args.command]
        status = subprocess.run(command, check=False).returncode
        if not file.exists():
            print(f"measured: no figures were written, exit code {status}", file=sys.stderr)
            return status or 1
        before |= {"seconds": round(time.monotonic() - began, 1), "exit_code": status}
        out = args.out if status == 0 else args.out.with_suffix(".failed.json")
        write_figures(out, before, json.loads(file.read_text()))
    print(f"written to {out}")
    return status


if __name__ == "__main__":
    sys.exit(main())
