#!/usr/bin/env python3
"""Run the examples of a Markdown file as printed: the fenced blocks that open with ```sh run or ```python run.

Each block runs from the root of the checkout against a server with a demo archive and has to succeed and to print
something. The variables that the text tells a reader to set are set here: MEDSEARCH_URL, IMAGE, EMBEDDINGS. What a
shell block exports stays for the blocks after it, as in a reader's terminal.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w+)[ \t]*([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 120


@dataclass(frozen=True)
class Example:
    """One block to run."""

    line: int
    language: str
    code: str


def examples(text: str) -> list[Example]:
    """The blocks marked `run`, in order."""
    found = []
    for match in FENCE.finditer(text):
        language, words, code = match.groups()
        if "run" in words.split():
            if language not in ("sh", "python"):
                raise SystemExit(f"line {text.count(chr(10), 0, match.start()) + 1}: `{language}` cannot be run")
            found.append(Example(text.count("\n", 0, match.start()) + 1, language, code))
    return found


def run(example: Example, environment: dict[str, str], state: Path) -> tuple[bool, str]:
    """Whether it went well, and what it printed. `state` holds what shell blocks have exported."""
    if example.language == "python":
        command = [sys.executable, "-c", example.code]
    else:
        script = f'. "{state}"\n{example.code}\nexport -p > "{state}"\n'
        command = ["bash", "-euo", "pipefail", "-c", script]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"no end after {TIMEOUT_S} s"
    if done.returncode:
        return False, f"{done.stdout}{done.stderr}status {done.returncode}"
    if not done.stdout.strip():
        return False, f"{done.stderr}it printed nothing"
    return True, done.stdout


def main() -> int:
    args = arguments()
    found = examples(args.file.read_text(encoding="utf-8"))
    if not found:
        print(f"{args.file} has no block marked `run`")
        return 1
    environment = os.environ | {
        # A reader's python3 is here the one with numpy and requests.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "MEDSEARCH_URL": args.url,
        "IMAGE": str(args.image),
        "EMBEDDINGS": str(args.embeddings),
    }
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "exported"
        state.touch()
        for example in found:
            began = time.monotonic()
            well, output = run(example, environment, state)
            failed += not well
            name = f"{args.file}:{example.line} ({example.language})"
            print(f"{'ok    ' if well else 'FAILED'} {name}, {time.monotonic() - began:.1f} s")
            if not well or args.verbose:
                print(f"{example.code}---- printed:\n{output}\n----")
    print(f"{len(found) - failed} passed, {failed} failed")
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the Markdown file")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the server, default %(default)s")
    parser.add_argument("--image", required=True, type=Path, help="an image to search for")
    parser.add_argument("--embeddings", required=True, type=Path, help="folder of <CLASS>.npy and <CLASS>.json")
    parser.add_argument("--verbose", action="store_true", help="show what each example prints")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
