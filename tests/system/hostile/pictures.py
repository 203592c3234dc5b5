"""PNG and JPEG by hand: dimensions, chunks and segments that lie, and little that becomes much. And what is neither."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

MAGIC = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SIZE = 24


def by_hand() -> Iterator[tuple[str, bytes]]:
    """What is wrong, and the file."""
    for name, content in png():
        yield f"png {name}", content
    for name, content in jpeg():
        yield f"jpeg {name}", content
    for name, content in others():
        yield f"other {name}", content


def chunk(kind: bytes, data: bytes, length=None, crc=None) -> bytes:
    """A chunk of a PNG, true unless told otherwise."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", crc)


def ihdr(width=SIZE, height=SIZE, depth=8, colour=GREY, compression=0, filters=0, interlace=0) -> bytes:
    """The first chunk."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, compression, filters, interlace))


def rows(width=SIZE, height=SIZE, kind=0) -> bytes:
    """Grey rows that are no constant image."""
    return b"".join(bytes([kind]) + bytes((x * 7 + y * 13) & 255 for x in range(width)) for y in range(height))


def png() -> Iterator[tuple[str, bytes]]:
    """Files that begin as PNG."""
    idat, end = chunk(b"IDAT", zlib.compress(rows())), chunk(b"IEND", b"")
    good = MAGIC + ihdr() + idat + end
    for width, height in ((0, 1), (1, 0), (1 << 31, 1), (0xFFFFFFFF, 0xFFFFFFFF), (65535, 65535), (1 << 20, 1 << 20)):
        yield f"of {width}x{height}", MAGIC + ihdr(width, height) + idat + end
    for depth in (0, 1, 3, 16, 32, 255):
        for colour in (GREY, 1, RGB, PALETTE, GREY_ALPHA, 5, RGBA, 255):
            yield f"depth {depth} colour {colour}", MAGIC + ihdr(depth=depth, colour=colour) + idat + end
    for name, head in (
        ("compression", ihdr(compression=1)),
        ("filter", ihdr(filters=1)),
        ("interlace", ihdr(interlace=2)),
    ):
        yield f"unknown {name}", MAGIC + head + idat + end
    for kind in (5, 255):
        yield f"row filter {kind}", MAGIC + ihdr() + chunk(b"IDAT", zlib.compress(rows(kind=kind))) + end
    yield "interlaced in name only", MAGIC + ihdr(interlace=1) + idat + end
    yield "no end", MAGIC + ihdr() + idat
    yield "no data", MAGIC + ihdr() + end
    yield "no header", MAGIC + idat + end
    yield "two headers", MAGIC + ihdr() + ihdr(4000, 4000) + idat + end
    yield "header last", MAGIC + idat + ihdr() + end
    yield "a short header", MAGIC + chunk(b"IHDR", b"\0\0") + idat + end
    yield "magic alone", MAGIC
    yield "data after the end", good + b"\xff" * 10_000
    for length in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1 << 24):
        yield f"chunk length {length}", MAGIC + ihdr() + chunk(b"IDAT", b"x" * 50, length=length) + end
        yield f"text length {length}", MAGIC + ihdr() + chunk(b"tEXt", b"a\0b", length=length) + idat + end
    yield "wrong checksums", MAGIC + ihdr() + chunk(b"IDAT", zlib.compress(rows()), crc=0) + end
    yield "data that is no deflate", MAGIC + ihdr() + chunk(b"IDAT", b"\x78\x9c" + b"\xff" * 500) + end
    yield "data with a wrong sum", MAGIC + ihdr() + chunk(b"IDAT", zlib.compress(rows())[:-4] + b"\0\0\0\0") + end
    yield "a dictionary", MAGIC + ihdr() + chunk(b"IDAT", b"\x78\xbb\0\0\0\0" + zlib.compress(rows())[2:]) + end
    yield "too many rows", MAGIC + ihdr() + chunk(b"IDAT", zlib.compress(rows(height=4000))) + end
    yield "too few rows", MAGIC + ihdr() + chunk(b"IDAT", zlib.compress(rows(height=3))) + end
    yield (
        "many tiny chunks",
        MAGIC + ihdr() + b"".join(chunk(b"IDAT", bytes([b])) for b in zlib.compress(rows(900, 900))[:60_000]) + end,
    )
    yield "many empty chunks", MAGIC + ihdr() + chunk(b"IDAT", b"") * 5_000 + idat + end
    yield "many unknown chunks", MAGIC + ihdr() + chunk(b"teSt", b"") * 60_000 + idat + end
    yield "unknown critical chunk", MAGIC + ihdr() + chunk(b"TEST", b"x") + idat + end
    yield "palette missing", MAGIC + ihdr(colour=PALETTE) + idat + end
    for entries in (0, 1, 100, 257, 10_000):
        yield f"palette of {entries}", MAGIC + ihdr(colour=PALETTE) + chunk(b"PLTE", b"\1\2\3" * entries) + idat + end
    yield "palette of odd length", MAGIC + ihdr(colour=PALETTE) + chunk(b"PLTE", b"\1\2") + idat + end
    yield "two palettes", MAGIC + ihdr(colour=PALETTE) + chunk(b"PLTE", b"\1\2\3") * 2 + idat + end
    yield "transparency too long", MAGIC + ihdr() + chunk(b"tRNS", b"\1" * 5000) + idat + end
    yield "gamma of nothing", MAGIC + ihdr() + chunk(b"gAMA", b"\0\0\0\0") + idat + end
    much = zlib.compress(bytes(64 << 20), 9)
    for kind, head in ((b"zTXt", b"key\0\0"), (b"iTXt", b"key\0\1\0\0\0"), (b"iCCP", b"profile\0\0")):
        yield f"{kind.decode()} bomb", MAGIC + ihdr() + chunk(kind, head + much) + idat + end
    yield "bomb of its true size", MAGIC + ihdr(8000, 8000) + chunk(b"IDAT", zlib.compress(bytes(8001 * 8000), 9)) + end
    rgba = b"".join(b"\0" + b"\1\2\3\4\5\6\xff\xff" * 4000 for _ in range(100)) + bytes(32_001 * 3900)
    yield (
        "of all pixels that are read",
        MAGIC + ihdr(4000, 4000, 16, RGBA) + chunk(b"IDAT", zlib.compress(rgba, 6)) + end,
    )
    yield "bomb behind a small size", MAGIC + ihdr() + chunk(b"IDAT", much) + end
    yield "bomb of 16-bit colours", MAGIC + ihdr(30_000, 2_000, 16, RGBA) + chunk(b"IDAT", much) + end
    yield "bomb twice deflated", MAGIC + ihdr(30_000, 30_000) + chunk(b"IDAT", zlib.compress(much)) + end
    animation = chunk(b"acTL", struct.pack(">II", 0xFFFFFFFF, 0))
    yield "animation", MAGIC + ihdr() + animation + idat + end
    frames = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 0xFFFF, 0xFFFF, 9, 9, 0, 0, 9, 9))
    yield "animation out of bounds", MAGIC + ihdr() + animation + frames + idat + end
    yield "a jpeg inside", MAGIC + ihdr() + chunk(b"IDAT", saved("JPEG")) + end


def saved(form: str, **options) -> bytes:
    """A picture as Pillow writes it."""
    file = io.BytesIO()
    values = np.frombuffer(rows(48, 48), np.uint8).reshape(48, 49)
    Image.fromarray(np.ascontiguousarray(values)).save(file, form, **options)
    return file.getvalue()


def segment(marker: int, data: bytes, length=None) -> bytes:
    """A segment of a JPEG, true unless told otherwise."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2 if length is None else length) + data


def jpeg() -> Iterator[tuple[str, bytes]]:
    """Files that begin as JPEG."""
    good = saved("JPEG", quality=90)
    at = good.index(b"\xff\xc0")
    scan = good.index(b"\xff\xda")

    def sized(height: int, width: int) -> bytes:
        return good[: at + 5] + struct.pack(">HH", height, width) + good[at + 9 :]

    for height, width in (
        (0, 0),
        (0, 48),
        (48, 0),
        (65535, 65535),
        (65535, 1),
        (1, 65535),
        (8000, 8000),
        (32_767, 32_767),
    ):
        yield f"of {height}x{width}", sized(height, width)
    for frame in range(0xC0, 0xD0):
        yield f"frame {frame:x}", good[: at + 1] + bytes([frame]) + good[at + 2 :]
    for precision in (0, 1, 7, 12, 16, 255):
        yield f"precision {precision}", good[: at + 4] + bytes([precision]) + good[at + 5 :]
    for components in (0, 2, 3, 4, 5, 255):
        yield f"components {components}", good[: at + 9] + bytes([components]) + good[at + 10 :]
    for sampling in (0x00, 0x10, 0x01, 0x41, 0xFF):
        yield f"sampling {sampling:x}", good[: at + 11] + bytes([sampling]) + good[at + 12 :]
    for table in (4, 255):
        yield f"quantisation table {table}", good[: at + 12] + bytes([table]) + good[at + 13 :]
    for marker, name in ((0xDB, "quantisation"), (0xC4, "Huffman")):
        start = good.index(bytes([0xFF, marker]))
        length = struct.unpack(">H", good[start + 2 : start + 4])[0]
        yield f"no {name} table", good[:start] + good[start + 2 + length :]
        yield f"{name} table of zeros", good[: start + 5] + bytes(length - 3) + good[start + 2 + length :]
        yield f"{name} table of ones", good[: start + 5] + b"\xff" * (length - 3) + good[start + 2 + length :]
        for lie in (0, 1, 2, 3, 0xFFFF):
            yield f"{name} table length {lie}", good[: start + 2] + struct.pack(">H", lie) + good[start + 4 :]
    for interval in (1, 7, 65535):
        yield f"restarts every {interval}", good[:scan] + segment(0xDD, struct.pack(">H", interval)) + good[scan:]
    yield "restarts without order", good[:-200] + b"\xff\xd7\xff\xd0" * 20 + good[-160:]
    yield "no scan", good[:scan] + b"\xff\xd9"
    yield "an empty scan", good[: scan + 10] + b"\xff\xd9"
    yield "no end", good[:-2]
    yield "two starts", good[:2] + good
    yield "start alone", b"\xff\xd8\xff"
    yield "a thousand pictures", good * 1000
    yield "height later", sized(0, 48)[:-2] + segment(0xDC, struct.pack(">H", 65535)) + b"\xff\xd9"
    yield "many comments", good[:2] + segment(0xFE, b"c" * 60_000) * 15 + good[2:]
    yield "many empty segments", good[:2] + segment(0xEF, b"") * 100_000 + good[2:]
    yield "fill bytes", good[:2] + b"\xff" * 900_000 + good[2:]
    progressive = saved("JPEG", progressive=True)
    first = progressive.index(b"\xff\xda")
    second = progressive.index(b"\xff\xda", first + 2)
    one = progressive[first:second]
    yield "many scans", progressive[:first] + one * 2_000 + progressive[first:]
    frame = progressive.index(b"\xff\xc2")
    large = progressive[: frame + 5] + struct.pack(">HH", 8000, 8000) + progressive[frame + 9 : first]
    yield "many scans of a large picture", large + one * 90 + b"\xff\xd9"
    yield "lossless frame of a scan that is not", good[: at + 1] + b"\xc3" + good[at + 2 :]
    tiff = b"II*\0" + struct.pack("<I", 8)
    entries = struct.pack("<HHHII", 1, 0x0112, 3, 0xFFFFFFFF, 0xFFFFFFFF) + struct.pack("<I", 8)
    yield "orientation far away", good[:2] + segment(0xE1, b"Exif\0\0" + tiff + entries) + good[2:]
    circle = struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    yield "directories in a circle", good[:2] + segment(0xE1, b"Exif\0\0" + tiff + circle) + good[2:]
    yield (
        "many directory entries",
        good[:2] + segment(0xE1, b"Exif\0\0" + tiff + b"\xff\xff" + b"\1" * 60_000) + good[2:],
    )
    for orientation in (0, 9, 65535):
        wrong = struct.pack("<HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + bytes(4)
        yield f"orientation {orientation}", good[:2] + segment(0xE1, b"Exif\0\0" + tiff + wrong) + good[2:]
    for transform in (2, 255):
        adobe = b"Adobe" + bytes(6) + bytes([transform])
        yield f"colour transform {transform}", good[:2] + segment(0xEE, adobe) + good[2:]


def others() -> Iterator[tuple[str, bytes]]:
    """Other formats, and none."""
    for form in ("GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"):
        yield form, saved(form)
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield "xml entities", b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
    yield "pdf", b"%PDF-1.7\n" + bytes(2000)
    yield "zip", b"PK\3\4" + bytes(2000)
    yield "gzip", b"\x1f\x8b\x08" + bytes(2000)
    yield "an executable", b"\x7fELF" + bytes(2000)
    yield "html", b"<!doctype html><script>alert(1)</script>"
    yield "text", b"no picture\n" * 500
    yield "zeros", bytes(200_000)
    yield "ones", b"\xff" * 200_000
    yield "one byte", b"\x89"
    yield "jpeg 2000 alone", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(500)
    yield "jpeg-ls alone", b"\xff\xd8\xff\xf7" + bytes(500)
    yield "nifti", bytes(344) + b"n+1\0" + bytes(500)
