"""DICOM by hand: nesting, lengths, frames, syntaxes and codestreams that lie, and little that becomes much."""

import io
import struct
import zlib
from collections.abc import Iterator

import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate

UNDEFINED = 0xFFFFFFFF
EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
# VRs with two reserved bytes and a length of four (PS3.5, table 7.1-1).
LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UC", b"UN", b"UR", b"UT"}
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
ROWS, COLUMNS = 16, 16
MEGABYTE = 1 << 20


def by_hand(small: bytes) -> Iterator[tuple[str, bytes]]:
    """What is wrong, and the file. `small` is one that is good."""
    groups = (heads(small), nesting(), lengths(), geometry(), looks(), syntaxes(small), frames(), bombs())
    for group in groups:
        for name, content in group:
            yield f"dicom {name}", content


def element(tag: tuple[int, int], vr: bytes, value: bytes, length=None, explicit=True) -> bytes:
    """An element, true unless told otherwise."""
    length = len(value) if length is None else length
    if not explicit or tag[0] == 0xFFFE:
        return struct.pack("<HHI", *tag, length) + value
    if vr in LONG:
        return struct.pack("<HH2sHI", *tag, vr, 0, length) + value
    return struct.pack("<HH2sH", *tag, vr, length & 0xFFFF) + value


def even(text: str) -> bytes:
    """Text of even length."""
    data = text.encode()
    return data + b" " * (len(data) % 2)


def meta(syntax: str) -> bytes:
    """Everything before the data set."""
    written = element((2, 0x10), b"UI", syntax.encode() + b"\0" * (len(syntax) % 2))
    written = element((2, 2), b"UI", b"1.2.840.10008.5.1.4.1.1.1\0") + element((2, 3), b"UI", b"1.2.3.4\0") + written
    return bytes(128) + b"DICM" + element((2, 0), b"UL", struct.pack("<I", len(written))) + written


def number(tag: tuple[int, int], value: int) -> bytes:
    """An unsigned short."""
    return element(tag, b"US", struct.pack("<H", value))


PIXELS = bytes((x * 11 + y * 5) & 255 for y in range(ROWS) for x in range(COLUMNS))
# Group and element to bytes, in order; `picture` changes some.
PICTURE = {
    (0x08, 0x16): element((0x08, 0x16), b"UI", b"1.2.840.10008.5.1.4.1.1.1\0"),
    (0x08, 0x60): element((0x08, 0x60), b"CS", b"DX"),
    (0x10, 0x20): element((0x10, 0x20), b"LO", b"HOSTILE1"),
    (0x28, 0x02): number((0x28, 0x02), 1),
    (0x28, 0x04): element((0x28, 0x04), b"CS", b"MONOCHROME2 "),
    (0x28, 0x10): number((0x28, 0x10), ROWS),
    (0x28, 0x11): number((0x28, 0x11), COLUMNS),
    (0x28, 0x100): number((0x28, 0x100), 8),
    (0x28, 0x101): number((0x28, 0x101), 8),
    (0x28, 0x102): number((0x28, 0x102), 7),
    (0x28, 0x103): number((0x28, 0x103), 0),
    (0x7FE0, 0x10): element((0x7FE0, 0x10), b"OB", PIXELS),
}


def picture(changed: dict | None = None, syntax: str = EXPLICIT) -> bytes:
    """A small picture, with some elements replaced (or, with none, left out)."""
    elements = PICTURE | (changed or {})
    return meta(syntax) + b"".join(elements[tag] or b"" for tag in sorted(elements))


def pixel_data(fragments: bytes) -> bytes:
    """Pixel data of undefined length."""
    return element((0x7FE0, 0x10), b"OB", fragments, UNDEFINED)


# A table of offsets, an empty fragment, and the end.
NO_FRAGMENTS = element(ITEM, b"", b"") * 2 + element(SEQUENCE_END, b"", b"")


def heads(small: bytes) -> Iterator[tuple[str, bytes]]:
    """What comes before the data set."""
    yield "preamble alone", bytes(128)
    yield "prefix alone", bytes(128) + b"DICM"
    yield "without preamble", small[128:]
    yield "prefix in small letters", small[:128] + b"dicm" + small[132:]
    yield "a png in the preamble", b"\x89PNG\r\n\x1a\n" + small[8:]
    yield "a jpeg in the preamble", b"\xff\xd8\xff\xe0" + small[4:]
    for length in (0, 1, 0x7FFFFFFF, UNDEFINED, len(small)):
        yield f"meta length {length}", small[:140] + struct.pack("<I", length) + small[144:]
    for syntax in ("", "1", "1.2.840.10008.1.2.1.", "x" * 64, "9" * 60_000, "1.2.840.10008.1.20", "\0\0", "é"):
        yield f"syntax {syntax[:20]!r}", picture(syntax=syntax)
    yield "two metas", meta(EXPLICIT) + picture()[132:]
    yield "nothing after the meta", meta(EXPLICIT)
    yield "no syntax", bytes(128) + b"DICM" + b"".join(PICTURE.values())
    yield "implicit that says explicit", meta(EXPLICIT) + element((8, 0x60), b"", b"DX", explicit=False) * 50
    yield "explicit that says implicit", picture(syntax=IMPLICIT)
    yield "little endian that says big", picture(syntax=uid.ExplicitVRBigEndian)


def nesting() -> Iterator[tuple[str, bytes]]:
    """Sequences in sequences."""
    tag = (0x0008, 0x1140)
    for depth in (2, 31, 32, 33, 200, 5_000, 60_000):
        for explicit in (True, False):
            start = element(tag, b"SQ", b"", UNDEFINED, explicit) + element(ITEM, b"", b"", UNDEFINED)
            end = element(ITEM_END, b"", b"") + element(SEQUENCE_END, b"", b"")
            before = meta(EXPLICIT if explicit else IMPLICIT)
            yield f"nested {depth} {explicit}", before + start * depth + end * depth + picture()[len(meta(EXPLICIT)) :]
            yield f"nested and never closed {depth} {explicit}", before + start * depth
        inner = b""
        for _ in range(min(depth, 2_000)):
            item = element(ITEM, b"", inner)
            inner = element(tag, b"SQ", item)
            if len(inner) > 60_000:
                break
        yield f"nested by length {depth}", picture({tag: inner})
    unknown = element(tag, b"UN", b"", UNDEFINED) + element(ITEM, b"", b"", UNDEFINED)
    yield "nested in unknown", meta(EXPLICIT) + unknown * 1_000
    yield "items outside a sequence", meta(EXPLICIT) + element(ITEM, b"", b"", UNDEFINED) * 10_000
    yield "ends of nothing", meta(EXPLICIT) + element(SEQUENCE_END, b"", b"") * 10_000
    yield "a sequence of nothing but items", picture({tag: element(tag, b"SQ", element(ITEM, b"", b"") * 100_000)})
    yield "an item longer than its sequence", picture({tag: element(tag, b"SQ", element(ITEM, b"", b"x" * 8, 1 << 30))})


def lengths() -> Iterator[tuple[str, bytes]]:
    """Lengths of elements."""
    for length in (1, 3, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, UNDEFINED, len(PIXELS) - 1, len(PIXELS) + 2, 0):
        yield f"pixel length {length}", picture({(0x7FE0, 0x10): element((0x7FE0, 0x10), b"OB", PIXELS, length)})
        yield f"text length {length}", picture({(0x10, 0x4000): element((0x10, 0x4000), b"UT", b"ab", length)})
        yield f"private length {length}", picture({(0x11, 0x1001): element((0x11, 0x1001), b"UN", b"ab", length)})
    for vr in (b"\0\0", b"XX", b"ox", b"\xff\xff", b"AT", b"SV"):
        yield f"vr {vr!r}", picture({(0x28, 0x10): element((0x28, 0x10), vr, b"\x10\0")})
    for tag in ((0x28, 0x10), (0x28, 0x11), (0x28, 0x100)):
        for value in (b"", b"\x10", b"\x10\0\x10\0", b"\x10\0" * 30_000, b"16"):
            yield f"{tag} of {len(value)} bytes {value[:2]!r}", picture({tag: element(tag, b"US", value)})
        yield f"{tag} missing", picture({tag: None})
    filler = element((0x09, 0x1001), b"LO", b"")
    yield "many elements", meta(EXPLICIT) + filler * 1_000_001 + picture()[len(meta(EXPLICIT)) :]
    yield "elements twice", picture() + picture()[len(meta(EXPLICIT)) :]
    backwards = b"".join(PICTURE[tag] for tag in sorted(PICTURE, reverse=True))
    yield "elements backwards", meta(EXPLICIT) + backwards
    yield "a group length that lies", picture({(0x28, 0): element((0x28, 0), b"UL", struct.pack("<I", 0xFFFFFFF0))})
    yield "a megabyte of name", picture({(0x10, 0x10): element((0x10, 0x10), b"UN", b"N^" * (MEGABYTE // 2))})
    yield "a character set of nonsense", picture({(8, 5): element((8, 5), b"CS", b"ISO_IR 999\\\\\\X ")})
    yield "zeros after the pixels", picture() + bytes(100_000)
    yield "tags after the pixels", picture() + element((0xFFFC, 0xFFFC), b"OB", b"x" * 10) * 1_000


def geometry() -> Iterator[tuple[str, bytes]]:
    """Sizes, depths and frames."""
    for rows, columns in (
        (0, 16),
        (16, 0),
        (65535, 65535),
        (1, 65535),
        (65535, 1),
        (32767, 32767),
        (8000, 8000),
        (17, 16),
    ):
        yield (
            f"of {rows}x{columns}",
            picture({(0x28, 0x10): number((0x28, 0x10), rows), (0x28, 0x11): number((0x28, 0x11), columns)}),
        )
    for samples in (0, 2, 3, 4, 255, 65535):
        yield f"samples {samples}", picture({(0x28, 2): number((0x28, 2), samples)})
    for allocated, stored, high in (
        (0, 0, 0),
        (1, 1, 0),
        (1, 8, 7),
        (7, 7, 6),
        (8, 0, 7),
        (8, 9, 8),
        (8, 8, 15),
        (8, 65535, 65535),
        (12, 12, 11),
        (16, 8, 7),
        (24, 24, 23),
        (32, 32, 31),
        (64, 64, 63),
        (65535, 8, 7),
    ):
        changed = {(0x28, 0x100): allocated, (0x28, 0x101): stored, (0x28, 0x102): high}
        yield f"bits {allocated} {stored} {high}", picture({tag: number(tag, value) for tag, value in changed.items()})
    for sign in (1, 2, 65535):
        yield f"sign {sign}", picture({(0x28, 0x103): number((0x28, 0x103), sign)})
    for planar in (1, 2, 65535):
        yield f"planes {planar}", picture({(0x28, 2): number((0x28, 2), 3), (0x28, 6): number((0x28, 6), planar)})
    for text in (
        "0",
        "-1",
        "2",
        "2147483647",
        "99999999999999999999",
        "1e3",
        "abc",
        "1\\2",
        "1.5",
        "",
        " ",
        "0x10",
        "10001",
    ):
        yield f"frames {text!r}", picture({(0x28, 8): element((0x28, 8), b"IS", even(text))})


def looks() -> Iterator[tuple[str, bytes]]:
    """What is done to values before they are shown."""
    for name in (
        "",
        "MONOCHROME3",
        "PALETTE COLOR",
        "RGB",
        "YBR_FULL",
        "YBR_FULL_422",
        "YBR_ICT",
        "CMYK",
        "\xff",
        "M" * 200,
    ):
        yield f"photometric {name[:20]!r}", picture({(0x28, 4): element((0x28, 4), b"CS", even(name))})
    words = ("0", "-1", "nan", "inf", "-inf", "1e308", "1e-320", "1e400", "", "abc", "1\\2\\3", "--1", "9" * 300)
    for keyword, tag in (("slope", 0x1053), ("intercept", 0x1052), ("width", 0x1051), ("center", 0x1050)):
        other = {0x1053: 0x1052, 0x1052: 0x1053, 0x1051: 0x1050, 0x1050: 0x1051}[tag]
        for word in words:
            changed = {
                (0x28, tag): element((0x28, tag), b"DS", even(word)),
                (0x28, other): element((0x28, other), b"DS", b"1 "),
            }
            yield f"{keyword} {word[:12]!r}", picture(changed)
    for entries, first, bits in ((0, 0, 16), (1, 0, 0), (65535, 65535, 16), (256, 0, 8), (256, 0, 32), (3, 0, 16)):
        descriptor = element((0x28, 0x3002), b"US", struct.pack("<HHH", entries, first, bits))
        data = element((0x28, 0x3006), b"OW", b"\1\2" * 100)
        table = element(ITEM, b"", descriptor + data)
        yield (
            f"modality table {entries} {first} {bits}",
            picture({(0x28, 0x3000): element((0x28, 0x3000), b"SQ", table)}),
        )
        yield f"window table {entries} {first} {bits}", picture({(0x28, 0x3010): element((0x28, 0x3010), b"SQ", table)})
        palette = {(0x28, 4): element((0x28, 4), b"CS", b"PALETTE COLOR ")}
        for at in (1, 2, 3):
            tag = (0x28, 0x1100 + at)
            palette[tag] = element(tag, b"US", struct.pack("<HHH", entries, first, bits))
            palette[0x28, 0x1200 + at] = element((0x28, 0x1200 + at), b"OW", b"\1\2" * 100)
        yield f"palette {entries} {first} {bits}", picture(palette)
    yield (
        "a table of many items",
        picture({(0x28, 0x3000): element((0x28, 0x3000), b"SQ", element(ITEM, b"", b"") * 10_000)}),
    )
    padding = element((0x28, 0x120), b"US", b"\xff\xff\0\0\1\0")
    yield "padding of three values", picture({(0x28, 0x120): padding})


def syntaxes(small: bytes) -> Iterator[tuple[str, bytes]]:
    """A good picture under every transfer syntax that there is, and codestreams of nonsense."""
    jpeg_2000 = (
        b"\xff\x4f\xff\x51" + struct.pack(">HHIIIIIIIIH", 41, 0, 65535, 65535, 0, 0, 65535, 65535, 0, 0, 1) + b"\7\1\1"
    )
    many_components = (
        b"\xff\x4f\xff\x51"
        + struct.pack(">HHIIIIIIIIH", 38 + 3 * 8000, 0, 16, 16, 0, 0, 16, 16, 0, 0, 8000)
        + b"\7\1\1" * 8000
    )
    tiny_tiles = b"\xff\x4f\xff\x51" + struct.pack(">HHIIIIIIIIH", 41, 0, 60000, 60000, 0, 0, 1, 1, 0, 0, 1) + b"\7\1\1"
    jpeg_ls = (
        b"\xff\xd8\xff\xf7"
        + struct.pack(">HBHHB", 11, 8, 65535, 65535, 1)
        + b"\1\x11\0\xff\xda\0\x08\1\1\0\0\0\0"
        + bytes(300)
    )
    streams = {
        "nothing": b"",
        "one byte": b"\xff",
        "zeros": bytes(600),
        "ones": b"\xff" * 600,
        "text": b"no codestream " * 40,
        "start of image": b"\xff\xd8\xff\xd9",
        "a huge j2k": jpeg_2000 + bytes(200),
        "components of j2k": many_components,
        "tiles of j2k": tiny_tiles + bytes(200),
        "a huge jpeg-ls": jpeg_ls,
        "a png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }
    known = sorted(name for name in uid.UID_dictionary if uid.UID_dictionary[name][1] == "Transfer Syntax")
    for syntax in known:
        yield f"under {syntax}", picture(syntax=syntax)
        chosen = streams if syntax in SEVERAL else {name: streams[name] for name in ("nothing", "ones")}
        for name, stream in chosen.items():
            content = encapsulate([stream + b"\0" * (len(stream) % 2)]) if stream else NO_FRAGMENTS
            yield f"under {syntax} with {name}", picture({(0x7FE0, 0x10): pixel_data(content)}, syntax)
    dataset = pydicom.dcmread(io.BytesIO(small))
    yield "sealed without a codestream", picture({(0x7FE0, 0x10): pixel_data(dataset.PixelData[:500])})


SEVERAL = {
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.RLELossless,
}


def frames() -> Iterator[tuple[str, bytes]]:
    """Fragments and their offsets; RLE."""

    def sealed(fragments: bytes, syntax=uid.JPEGBaseline8Bit) -> bytes:
        return picture({(0x7FE0, 0x10): pixel_data(fragments)}, syntax)

    table, end = element(ITEM, b"", b""), element(SEQUENCE_END, b"", b"")
    yield "no fragments", sealed(table + end)
    yield "no table", sealed(end)
    yield "no end of fragments", sealed(table + element(ITEM, b"", b"\xff\xd8"))
    yield "many empty fragments", sealed(table + element(ITEM, b"", b"") * 100_000 + end)
    yield (
        "offsets beyond",
        sealed(element(ITEM, b"", struct.pack("<II", UNDEFINED - 1, 5)) + element(ITEM, b"", b"\xff\xd8") + end),
    )
    yield "many offsets", sealed(element(ITEM, b"", bytes(800_000)) + element(ITEM, b"", b"\xff\xd8") + end)
    yield "offsets of odd length", sealed(element(ITEM, b"", b"\0\0\0") + element(ITEM, b"", b"\xff\xd8") + end)
    for length in (UNDEFINED, 0x7FFFFFFF, 3):
        yield f"fragment length {length}", sealed(table + element(ITEM, b"", b"\xff\xd8\xff\xd9", length) + end)
    yield "another tag among fragments", sealed(table + element((8, 8), b"", b"ab", explicit=False) + end)
    size = ROWS * COLUMNS
    for name, segments, offsets in (
        ("no", 0, []),
        ("sixteen", 16, [64] * 15),
        ("many", 0xFFFFFFFF, [64]),
        ("two", 2, [64, 64]),
        ("far", 1, [1 << 30]),
        ("early", 1, [0]),
        ("backwards", 3, [200, 100, 64]),
    ):
        head = struct.pack("<I", segments) + b"".join(struct.pack("<I", at) for at in offsets)
        stream = head.ljust(64, b"\0") + b"\x81\7" * 4
        yield f"rle {name} segments", sealed(table + element(ITEM, b"", stream) + end, uid.RLELossless)
    head = struct.pack("<II", 1, 64).ljust(64, b"\0")
    for name, coded in (
        ("too long", b"\x81\7" * 4_000),
        ("too short", b"\x81\7"),
        ("literal cut", b"\x7fab"),
        ("only no-ops", b"\x80" * 60_000),
        ("fits", b"\x81\7" * (size // 128)),
    ):
        yield (
            f"rle {name}",
            sealed(table + element(ITEM, b"", head + coded + b"\0" * (len(coded) % 2)) + end, uid.RLELossless),
        )


def bombs() -> Iterator[tuple[str, bytes]]:
    """Kilobytes that become megabytes, and would become gigabytes."""

    def deflated(data: bytes, times: int = 1) -> bytes:
        squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
        return meta(DEFLATED) + b"".join(squeeze.compress(data) for _ in range(times)) + squeeze.flush()

    body = picture()[len(meta(EXPLICIT)) :]
    yield "deflated zeros", deflated(bytes(MEGABYTE), 128)
    yield "deflated private zeros", deflated(element((0x11, 0x1001), b"UN", bytes(32 * MEGABYTE)) + body)
    yield "deflated elements", deflated(element((0x09, 0x1001), b"LO", b"") * 131_072, 8)
    nested = element((8, 0x1140), b"SQ", b"", UNDEFINED) + element(ITEM, b"", b"", UNDEFINED)
    yield "deflated nesting", deflated(nested * 50_000, 10)
    yield "deflated, cut", deflated(body)[:-10]
    yield "deflated nonsense", meta(DEFLATED) + b"\xff" * 500
    yield "deflated stored blocks of nothing", meta(DEFLATED) + b"\0\0\0\xff\xff" * 100_000
    sides = {(0x28, 0x10): number((0x28, 0x10), 8000), (0x28, 0x11): number((0x28, 0x11), 8000)}
    head = struct.pack("<II", 1, 64).ljust(64, b"\0")
    rle = element(ITEM, b"", b"") + element(ITEM, b"", head + b"\x81\7" * 500_000) + element(SEQUENCE_END, b"", b"")
    yield "rle of a large picture", picture(sides | {(0x7FE0, 0x10): pixel_data(rle)}, uid.RLELossless)
    many = {(0x28, 8): element((0x28, 8), b"IS", b"10000 ")}
    yield "ten thousand frames of one", picture(many)
    large = element((0x7FE0, 0x10), b"OB", bytes(8000 * 8000))
    deep = picture(sides | {(0x7FE0, 0x10): large})[len(meta(EXPLICIT)) :]
    yield "deflated large picture", deflated(deep)
    allowed = {(0x28, 0x10): number((0x28, 0x10), 3900), (0x28, 0x11): number((0x28, 0x11), 3900)}
    large = element((0x7FE0, 0x10), b"OB", PIXELS * (3900 * 3900 // len(PIXELS) + 1))
    whole = picture(allowed | {(0x7FE0, 0x10): large})[len(meta(EXPLICIT)) :]
    yield "deflated picture of all pixels that are read", deflated(whole)
