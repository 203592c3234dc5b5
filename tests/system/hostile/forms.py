"""Forms (`multipart/form-data`) that lie about their boundaries, names, lengths and types."""

from collections.abc import Iterator

BOUNDARY = "hostile-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
RELATED = 'multipart/related; type="application/dicom"'
# More than any server should take.
MANY = 20_000


def part(content: bytes, head: str = 'Content-Disposition: form-data; name="image"; filename="x"') -> bytes:
    """A part with its boundary before it."""
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode("utf-8", "surrogateescape") + content + b"\r\n"


def text(name: str, value: bytes) -> bytes:
    """A text field."""
    return part(value, f'Content-Disposition: form-data; name="{name}"')


END = f"--{BOUNDARY}--\r\n".encode()


def with_file(content: bytes) -> tuple[str, bytes]:
    """A good form with this file."""
    return FORM, part(content) + END


def with_object(content: bytes) -> tuple[str, bytes]:
    """A good body of STOW-RS with this object (PS3.18, 10.5.1)."""
    return f"{RELATED}; boundary={BOUNDARY}", part(content, "Content-Type: application/dicom") + END


def by_hand(good: bytes) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """What is wrong, and the content type and body."""
    for name, form in (*boundaries(good), *types(good), *parts(good), *fields(good)):
        yield f"form {name}", form


def boundaries(good: bytes) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Boundaries that are missing, doubled, elsewhere."""
    whole = part(good) + END
    yield "no end", (FORM, part(good))
    yield "end without dashes", (FORM, part(good) + f"--{BOUNDARY}\r\n".encode())
    yield "end at once", (FORM, END)
    yield "end twice", (FORM, whole + END)
    yield "end, then a part", (FORM, END + whole)
    yield "nothing", (FORM, b"")
    yield "only line ends", (FORM, b"\r\n" * 50_000)
    yield "only dashes", (FORM, b"-" * 300_000)
    yield "only the start of a boundary", (FORM, f"--{BOUNDARY[:-1]}".encode() * 10_000)
    yield "a long preamble", (FORM, b"x" * 900_000 + b"\r\n" + whole)
    yield "a preamble of lines", (FORM, b"x\r\n" * 300_000 + whole)
    yield "a long epilogue", (FORM, whole + b"x" * 900_000)
    yield "line feeds alone", (FORM, whole.replace(b"\r\n", b"\n"))
    yield "carriage returns alone", (FORM, whole.replace(b"\r\n", b"\r"))
    yield "spaces after the boundary", (FORM, whole.replace(f"--{BOUNDARY}\r".encode(), f"--{BOUNDARY}   \r".encode()))
    yield "a boundary inside", (FORM, part(good[:500] + f"\r\n--{BOUNDARY}\r\n".encode() + good[500:]) + END)
    yield "an end inside", (FORM, part(good[:500] + f"\r\n--{BOUNDARY}--\r\n".encode() + good[500:]) + END)
    yield "nearly a boundary inside", (FORM, part(f"\r\n--{BOUNDARY}".encode() * 5_000) + END)
    yield (
        "a nested form",
        (FORM, part(whole, f"Content-Type: {FORM}\r\nContent-Disposition: form-data; name=image") + END),
    )
    for at in range(1, 120, 7):
        yield f"cut in the head {at}", (FORM, whole[:at])
        yield f"cut in the end {at}", (FORM, whole[:-at])
        yield f"begins in the middle {at}", (FORM, whole[at:])


def types(good: bytes) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Content types that are none, or another's."""
    whole = part(good) + END
    for number, content_type in enumerate(
        (
            "",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            'multipart/form-data; boundary=""',
            f'multipart/form-data; boundary="{BOUNDARY}',
            f"multipart/form-data; boundary={BOUNDARY}; boundary=other",
            f"multipart/form-data; boundary=other; boundary={BOUNDARY}",
            f"multipart/form-data; boundary={'b' * 70}",
            f"multipart/form-data; boundary={'b' * 6000}",
            "multipart/form-data; boundary=\xff\xfe",
            "multipart/form-data; boundary=a b",
            "multipart/form-data; boundary=--",
            f"multipart/form-data; charset=utf-7; boundary={BOUNDARY}",
            f"MULTIPART/FORM-DATA; BOUNDARY={BOUNDARY}",
            f"multipart/mixed; boundary={BOUNDARY}",
            f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
            f"multipart/byteranges; boundary={BOUNDARY}",
            f"multipart/form-data, multipart/form-data; boundary={BOUNDARY}",
            "application/x-www-form-urlencoded",
            "application/json",
            "application/dicom",
            "image/png",
            "text/plain; charset=nonsense",
            "*/*",
            ";;;;",
            "/",
            "x" * 6000,
        )
    ):
        yield f"type {number}", (content_type, whole)
    yield "a picture as it is", ("image/jpeg", good)
    yield "json", ("application/json", b'{"image": ' + b"[" * 100_000)
    yield "a body of another boundary", ("multipart/form-data; boundary=another", whole)


def parts(good: bytes) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Heads of parts."""
    disposition = 'Content-Disposition: form-data; name="image"'
    for name, head in (
        ("no head", ""),
        ("no disposition", "Content-Type: image/png"),
        ("disposition empty", "Content-Disposition:"),
        ("disposition of a mail", 'Content-Disposition: attachment; filename="image"'),
        ("no name", "Content-Disposition: form-data"),
        ("name empty", 'Content-Disposition: form-data; name=""'),
        ("name open", 'Content-Disposition: form-data; name="image'),
        ("name twice", 'Content-Disposition: form-data; name="image"; name="k"'),
        ("disposition twice", f'{disposition}\r\nContent-Disposition: form-data; name="k"'),
        ("name starred", "Content-Disposition: form-data; name*=UTF-8''image"),
        ("name with zeros", 'Content-Disposition: form-data; name="image\0"'),
        ("name of a path", 'Content-Disposition: form-data; name="../../etc/passwd"'),
        ("name not utf-8", 'Content-Disposition: form-data; name="\udcff\udcfe"'),
        ("name long", f'Content-Disposition: form-data; name="{"n" * 8_000}"'),
        ("file name of a path", f'{disposition}; filename="../../../../etc/passwd"'),
        ("file name long", f'{disposition}; filename="{"f" * 500_000}"'),
        ("file name not utf-8", f'{disposition}; filename="\udcff\udcfe.png"'),
        ("file name starred", f"{disposition}; filename*=UTF-8''%00%ff%0d%0a"),
        ("file name with line ends", f'{disposition}; filename="a\rb\nc"'),
        ("type nonsense", f"{disposition}\r\nContent-Type: ////"),
        ("type of a form", f"{disposition}\r\nContent-Type: multipart/mixed; boundary={BOUNDARY}"),
        ("length too small", f"{disposition}\r\nContent-Length: 1"),
        ("length too large", f"{disposition}\r\nContent-Length: 99999999999999999999"),
        ("length negative", f"{disposition}\r\nContent-Length: -1"),
        ("coded", f"{disposition}\r\nContent-Transfer-Encoding: base64"),
        ("compressed", f"{disposition}\r\nContent-Encoding: gzip"),
        ("a head without a name", f"{disposition}\r\n: value"),
        ("a head without a colon", f"{disposition}\r\nnonsense"),
        ("a folded head", f"{disposition};\r\n filename=x"),
        ("heads of bytes", f"{disposition}\r\nX: \udc80\udcff\0"),
        ("a huge head", f"{disposition}\r\nX-Long: {'h' * 900_000}"),
        ("many heads", disposition + "".join(f"\r\nX-{number}: x" for number in range(MANY))),
    ):
        yield name, (FORM, part(good, head) + END)
    yield "no empty line", (FORM, f"--{BOUNDARY}\r\n{disposition}\r\n".encode() + good + b"\r\n" + END)
    yield "many files", (FORM, part(b"x") * MANY + END)
    yield "many empty files", (FORM, part(b"") * MANY + END)
    yield "seventeen pictures", (FORM, part(good) * 17 + END)
    yield "two pictures", (FORM, part(good) * 2 + END)
    yield "many empty parts", (FORM, f"--{BOUNDARY}\r\n\r\n\r\n".encode() * MANY + END)
    yield "an empty file", (FORM, part(b"") + END)


def fields(good: bytes) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Text fields beside a good picture."""
    rows = (
        (
            "k",
            (b"0", b"-1", b"101", b"1e9", b"18446744073709551616", b"NaN", b"\xff", b"1\0", b"9" * 4000, b"9" * 5000),
        ),
        ("vote", (b"nobody", b"majority\n", b"\xf0\x28\x8c\x28")),
        ("classes", (b"," * 4000, b"../..", b"%00", "\u202e".encode(), b"a" * 4097)),
        ("exclude", (b"everything", b"patient,patient,none")),
        ("exact", (b"yes", b"2")),
        ("region", (b"0,0,0,0", b"-1,-1,2,2", b"nan,nan,nan,nan", b"1e308,1e308,1e308,1e308", b"0.5", b"a,b,c,d")),
        ("liked", (b"0" * 36, b"x", b"0" * 36 + b"," + b"0" * 36)),
        ("min_version", (b"-1", b"99999999999999999999")),
        ("patient_id", (b"\0", b"p" * 5000, b"\xff\xfe", b"a\\b")),
        ("study_uid", (b"1..2", b"x" * 4000)),
        ("class", (b"", b"..", b"a/b", b"\xe2\x80\xae", b"c" * 4000)),
        ("label_source", (b"nobody",)),
        ("source", (b"s" * 4000, b"\x7f")),
        ("constructor", (b"1",)),
        ("__proto__", (b"1",)),
    )
    for name, values in rows:
        for number, value in enumerate(values):
            yield f"field {name} {number}", (FORM, text(name, value) + part(good) + END)
    yield "fields twice", (FORM, text("k", b"5") * 2 + part(good) + END)
    yield "fields often", (FORM, text("classes", b"Normal") * 129 + part(good) + END)
    yield "fields far too often", (FORM, text("classes", b"Normal") * 8_000 + part(good) + END)
    yield "fields after the picture", (FORM, part(good) + text("k", b"0") + END)
    yield (
        "a field as a file",
        (FORM, part(b"5", 'Content-Disposition: form-data; name="k"; filename="k"') + part(good) + END),
    )
