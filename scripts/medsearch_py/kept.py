"""What a killed `medsearch embed` left on disk: the rows of its parts, read as the next run will read them."""

import hashlib
import json
from pathlib import Path

MAGIC = b"MSPART1\n"
DIGEST_BYTES = 32


def kept_parts(out: Path) -> list[int]:
    """Rows of each whole part below `out/.partial` (the format is described in src/ingest/parts.rs)."""
    return [rows_of(path.read_bytes(), path.name) for path in sorted(out.glob(".partial/*/*.part"))]


def rows_of(content: bytes, name: str) -> int:
    """Rows of one part. A part has its name only when it is whole, so a damaged one is an error."""
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    assert body.startswith(MAGIC) and hashlib.sha256(body).digest() == digest, f"{name} is damaged"
    begin = len(MAGIC) + 4
    length = int.from_bytes(body[len(MAGIC) : begin], "little")
    return len(json.loads(body[begin : begin + length])["rows"])
