#!/usr/bin/env python3
"""Run the examples of a Markdown file as printed: the fenced blocks that open with ```sh run or ```python run.

Each block runs from the root of the checkout against a server with a demo archive and has to succeed and to print
something. The variables that the text tells a reader to set are set here: MEDSEARCH_URL, MEDSEARCH_KEY, IMAGE, DICOM,
EMBEDDINGS. What a shell block exports stays for the blocks after it, as in a reader's terminal. With --key the server
has to turn away who brings none, so that the examples are known to bring it.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w+)[ \t]*([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 120


@dataclass(frozen=True)
class Example:
    """One block to run."""

    line: int
    language: str
    code: str


def examples(text: str, marks: Collection[str] = ("run",)) -> list[Example]:
    """The blocks with one of these marks, in order."""
    found = []
    for match in FENCE.finditer(text):
        language, words, code = match.groups()
        if not set(marks).isdisjoint(words.split()):
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


def dicom_of(image: Path, out: Path) -> Path:
    """The picture as a radiograph of the patient whom the text looks for."""
    grey = np.asarray(Image.open(image).convert("L"))
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.PatientID, data.Modality, data.BodyPartExamined, data.InstanceNumber = "4711", "CR", "CHEST", 1
    data.Rows, data.Columns = grey.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = (255 - grey).tobytes() + b"\0" * (grey.size % 2)
    data.save_as(out, enforce_file_format=True)
    return out


def asks_for_a_key(url: str) -> bool:
    """Whether the server turns away who brings none."""
    try:
        urllib.request.urlopen(f"{url}/v1/archive", timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as problem:
        return problem.code == 401
    return False


def main() -> int:
    args = arguments()
    found = examples(args.file.read_text(encoding="utf-8"), args.mark)
    if not found:
        print(f"{args.file} has no block marked {' or '.join(args.mark)}")
        return 1
    if args.key and not asks_for_a_key(args.url):
        print(f"{args.url} answers without a key")
        return 1
    environment = os.environ | {
        # A reader's python3 is here the one with numpy and requests.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "MEDSEARCH_URL": args.url,
        "MEDSEARCH_KEY": args.key or "none",
        "IMAGE": str(args.image),
        "EMBEDDINGS": str(args.embeddings),
    }
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        environment["DICOM"] = str(dicom_of(args.image, Path(folder) / "image.dcm"))
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
    parser.add_argument("--key", help="a key or token that may do everything; default: the server asks for none")
    parser.add_argument("--mark", nargs="+", default=["run"], help="which blocks, default %(default)s")
    parser.add_argument("--image", required=True, type=Path, help="an image to search for")
    parser.add_argument("--embeddings", required=True, type=Path, help="folder of <CLASS>.npy and <CLASS>.json")
    parser.add_argument("--verbose", action="store_true", help="show what each example prints")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
