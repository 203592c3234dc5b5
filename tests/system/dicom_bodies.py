"""Bodies of DICOM for schemathesis, which knows none: good files, spoilt ones, and what is no file at all."""

import sys
from pathlib import Path

import schemathesis
from hypothesis import strategies

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]

from hostile.dicom_files import by_hand  # noqa: E402 (its folder is none of schemathesis')
from pacs import dicom, file_of  # noqa: E402

BOUNDARY = "0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"
GOOD = [file_of(dicom(number, patient=f"P{number}", number=number)) for number in range(1, 9)]
# Those that are small: what they are made to break has tests of its own.
BROKEN = [content for _, content in by_hand(GOOD[0]) if len(content) < 1 << 16]


@strategies.composite
def spoilt(draw) -> bytes:
    """A good file with another byte somewhere, or without its end."""
    file = draw(strategies.sampled_from(GOOD))
    at = draw(strategies.integers(0, len(file) - 1))
    if draw(strategies.booleans()):
        return file[:at]
    return file[:at] + bytes([draw(strategies.integers(0, 255))]) + file[at + 1 :]


FILES = strategies.one_of(
    strategies.sampled_from(GOOD), spoilt(), strategies.sampled_from(BROKEN), strategies.binary(max_size=300)
)


@strategies.composite
def related(draw) -> bytes:
    """Some of them as parts, or what is no multipart."""
    if draw(strategies.integers(0, 9)) == 0:
        return draw(strategies.binary(max_size=300))
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = [head + file + b"\r\n" for file in draw(strategies.lists(FILES, max_size=4))]
    return b"".join(parts) + f"--{BOUNDARY}--".encode()


schemathesis.openapi.media_type("application/dicom", FILES)
schemathesis.openapi.media_type("multipart/related", related())


@schemathesis.hook
def before_call(context, case, kwargs):  # noqa: ARG001 (schemathesis gives them)
    """Adds where parts end to a header that says no more than that there are some."""
    headers = case.headers or {}
    if case.media_type == "multipart/related" and headers.get("Content-Type", case.media_type) == case.media_type:
        headers["Content-Type"] = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
        case.headers = headers
