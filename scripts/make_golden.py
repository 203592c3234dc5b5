#!/usr/bin/env python3
"""Write small hard files and what the pixel pipeline must make of them: OUT/* and OUT/expected.json.

    scripts/make_golden.py --out tests/golden

Of a file of several frames it is the first.
For a file that decodes the same everywhere (`lossless`), `raster8_sha256` and `samples_digest` are exact;
for the others `grid8` (8x8 RGB after the resize) says what to expect within a few levels.
`ruled` is the window by the table in OUT/windows.json, `ruled8_sha256` what it gives, where it is another one.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from medsearch_py import pixels
from medsearch_py.files import write_json
from medsearch_py.golden import dicom_files, jpeg_files, png_files
from medsearch_py.golden.windows import TABLE
from medsearch_py.problems import ImageProblem
from medsearch_py.raster import Raster, file_digest
from medsearch_py.windows import parse

SIDE = 224
# Colour conversion rounds differently from decoder to decoder.
LOSSY_DICOM = ("jpeg.dcm", "ybr-full.dcm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, help="folder for the files and expected.json")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    files = {**png_files.files(), **jpeg_files.files(), **dicom_files.files()}
    files["words.png"] = b"not an image\n"
    files["empty.png"] = b""
    for name, data in files.items():
        (out / name).write_bytes(data)
    write_json(out / "windows.json", TABLE)
    write_json(out / "expected.json", {name: expected(name, files[name]) for name in sorted(files)})
    print(f"{len(files)} files in {out}")
    return 0


def expected(name: str, data: bytes) -> dict:
    """What every implementation must find."""
    found: dict = {"sha256": file_digest(data)}
    try:
        raster = pixels.decode(data)
        grey_or_rgb, window = pixels.to_8_bit(raster)
        if (frames := pixels.frames(data)) > 1:
            found["frames"] = frames
        found |= {"format": raster.format, "width": raster.width, "height": raster.height}
        found |= {"channels": raster.channels, "bits": raster.bits, "window": window, "lossless": _lossless(name)}
        if raster.facts:
            found["facts"] = raster.facts
        pixels.refuse_constant(grey_or_rgb)
        ruled8, ruled = pixels.to_8_bit(raster, parse(TABLE))
        if ruled != window:
            found |= {"ruled": ruled, "ruled8_sha256": hashlib.sha256(ruled8.tobytes()).hexdigest()}
    except ImageProblem as problem:
        return {**found, "error": problem.kind}
    model_input = pixels.as_rgb(pixels.fit_and_resize(grey_or_rgb, SIDE, SIDE))
    if found["lossless"]:
        found["samples_digest"] = samples_digest(raster)
        found["raster8_sha256"] = hashlib.sha256(grey_or_rgb.tobytes()).hexdigest()
        found["input224_sha256"] = hashlib.sha256(model_input.tobytes()).hexdigest()
    found["grid8"] = pixels.as_rgb(pixels.fit_and_resize(grey_or_rgb, 8, 8)).reshape(-1).tolist()
    return found


def samples_digest(raster: Raster) -> str:
    """sha256 of the decoded samples, so that files of the same picture can be told."""
    little_endian = raster.samples.astype(raster.samples.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(repr(raster.samples.shape).encode() + little_endian.tobytes()).hexdigest()


def _lossless(name: str) -> bool:
    return not (name.endswith(".jpg") and name != "named-wrongly.jpg") and not name.endswith(LOSSY_DICOM)


if __name__ == "__main__":
    sys.exit(main())
