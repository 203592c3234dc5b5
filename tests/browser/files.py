"""Small files made by hand, so that the tests need no library for images."""

import struct
import zlib


def gradient_png(width, height):
    """An 8-bit grey PNG that brightens to the lower right."""
    rows = b"".join(b"\0" + bytes((x + y) * 255 // (width + height) for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def gradient_dicom(width, height, frames=1):
    """A secondary capture with 8-bit grey pixels, explicit VR little endian; every other frame is the negative."""

    def element(group, number, vr, value):
        value += (b"\0" if vr in ("UI", "OB", "OW") else b" ") * (len(value) % 2)
        length = struct.pack("<HI", 0, len(value)) if vr in ("OB", "OW") else struct.pack("<H", len(value))
        return struct.pack("<HH", group, number) + vr.encode() + length + value

    def short(number, value):
        return element(0x0028, number, "US", struct.pack("<H", value))

    sop_class, sop_uid = b"1.2.840.10008.5.1.4.1.1.7", b"2.25.1234567890"
    meta = (
        element(0x0002, 0x0001, "OB", b"\0\1")
        + element(0x0002, 0x0002, "UI", sop_class)
        + element(0x0002, 0x0003, "UI", sop_uid)
        + element(0x0002, 0x0010, "UI", b"1.2.840.10008.1.2.1")
        + element(0x0002, 0x0012, "UI", b"2.25.1")
    )
    brightening = bytes((x + y) * 255 // (width + height) for y in range(height) for x in range(width))
    darkening = bytes(255 - value for value in brightening)
    pixels = b"".join((brightening, darkening)[frame % 2] for frame in range(frames))
    body = (
        element(0x0008, 0x0016, "UI", sop_class)
        + element(0x0008, 0x0018, "UI", sop_uid)
        + element(0x0008, 0x0060, "CS", b"OT")
        + element(0x0020, 0x000D, "UI", b"2.25.2")
        + element(0x0020, 0x000E, "UI", b"2.25.3")
        + short(0x0002, 1)
        + element(0x0028, 0x0004, "CS", b"MONOCHROME2")
        + element(0x0028, 0x0008, "IS", str(frames).encode())
        + short(0x0010, height)
        + short(0x0011, width)
        + short(0x0100, 8)
        + short(0x0101, 8)
        + short(0x0102, 7)
        + short(0x0103, 0)
        + element(0x7FE0, 0x0010, "OW", pixels)
    )
    return b"\0" * 128 + b"DICM" + element(0x0002, 0x0000, "UL", struct.pack("<I", len(meta))) + meta + body
