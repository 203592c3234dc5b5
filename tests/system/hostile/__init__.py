"""Hostile and broken requests, the same for the same seed: pictures, DICOM files, and the forms around them.

What is known to be good comes from the golden files and from pydicom's; everything else is made of it, or by hand.
"""

import random
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

from hostile import dicom_files, forms, pictures, wire
from medsearch_py.golden import dicom_files as golden_dicom
from medsearch_py.golden import jpeg_files as golden_jpeg
from medsearch_py.golden import png_files as golden_png

# Files are cut off after every so many bytes.
CUT_EVERY = 64
# Copies with flipped bits of one file.
FLIPPED_COPIES = 3
# What is flipped is half of the time in the head, where the structure is.
HEAD_BYTES = 1024
# Larger ones of pydicom's files say nothing more and take longer.
FILE_BYTES_MAX = 64 << 10
# One for each way of writing pixels, as small as there is.
CUT = (
    "grey-4.png",
    "narrow-range-16.png",
    "thin-16-adam7.png",
    "grey.jpg",
    "grey-progressive.jpg",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_jp2klossless.dcm",
    "image_dfl.dcm",
    "mono2-8-jpeg.dcm",
    "mono2-12-jpeg-12.dcm",
)


@dataclass(frozen=True)
class Hostile:
    """One body."""

    # What is wrong with it; the first word is its kind.
    name: str
    content_type: str
    body: bytes
    # The file in it, where the form around it is a good one.
    file: bytes | None = None

    def to(self, target: str) -> tuple[str, bytes]:
        """Content type and body as a target takes them: STOW-RS has another kind of form, a peer of Orthanc none."""
        if target == "/instances":
            return "application/dicom", self.body if self.file is None else self.file
        if target == "/dicom-web/studies":
            related = self.content_type.replace("multipart/form-data", forms.RELATED)
            return (related, self.body) if self.file is None else forms.with_object(self.file)
        return self.content_type, self.body


def corpus(seed: int) -> list[Hostile]:
    """All of it, kinds mixed so that no moment of a run is like another."""
    rng = random.Random(seed)
    files = good_files()
    kinds = [
        [(f"cut {name} {at}", files[name][:at]) for name in CUT for at in range(0, len(files[name]), CUT_EVERY)],
        list(flipped(files, rng)),
        list(dicom_files.by_hand(files["MR_small.dcm"])),
        list(pictures.by_hand()),
    ]
    for kind in kinds:
        rng.shuffle(kind)
    made = [Hostile(name, *forms.with_file(content), content) for name, content in mixed(kinds)]
    around = [Hostile(name, *form) for name, form in forms.by_hand(files["grey.jpg"])]
    rng.shuffle(around)
    return list(mixed([made, around]))


def wire_corpus() -> list[tuple[str, bytes]]:
    """What is hardly HTTP: a name, and the bytes on a connection."""
    return list(wire.by_hand(golden_jpeg.files()["grey.jpg"]))


def good_files() -> dict[str, bytes]:
    """By name; nothing is wrong with most of them."""
    files = golden_png.files() | golden_jpeg.files()
    files |= {name: undated(content) for name, content in golden_dicom.files().items()}
    folder = Path(pydicom.__file__).parent / "data/test_files"
    files |= {path.name: path.read_bytes() for path in sorted(folder.rglob("*.dcm"))}
    return {name: content for name, content in files.items() if len(content) <= FILE_BYTES_MAX}


def undated(dicom: bytes) -> bytes:
    """Without the day and time at which GDCM recoded it."""
    dicom = re.sub(rb"(\x08\x00[\x20-\x23]\x00DA\x08\x00)\d{8}", rb"\g<1>20260101", dicom)
    return re.sub(rb"(\x08\x00[\x30-\x33]\x00TM\x0e\x00)[\d.]{13} ", rb"\g<1>000000.000000 ", dicom)


def flipped(files: dict[str, bytes], rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Copies of every file with a few bits flipped."""
    for name, content in sorted(files.items()):
        for copy in range(FLIPPED_COPIES):
            broken = bytearray(content)
            for _ in range(rng.choice((1, 1, 2, 8, 64))):
                end = min(len(broken), HEAD_BYTES) if rng.random() < 0.5 else len(broken)
                broken[rng.randrange(end)] ^= 1 << rng.randrange(8)
            yield f"flipped {name} {copy}", bytes(broken)


def mixed(kinds: list[list]) -> Iterator:
    """Each in its order, the shorter ones spread over the longest."""
    longest = max(map(len, kinds))

    def share(kind: list, at: int) -> list:
        return kind[at * len(kind) // longest : (at + 1) * len(kind) // longest]

    for at in range(longest):
        for kind in kinds:
            yield from share(kind, at)


warnings.filterwarnings("ignore", module="pydicom")
