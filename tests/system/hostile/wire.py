"""Bytes that are hardly HTTP: what a connection may bring before there is a request."""

from collections.abc import Iterator

from hostile import forms

LINE = b"POST /v1/search HTTP/1.1\r\n"


def by_hand(good: bytes) -> Iterator[tuple[str, bytes]]:
    """What is wrong, and all that is sent. The connection is closed to further bytes afterwards."""
    body = forms.part(good) + forms.END
    host = b"Host: 127.0.0.1\r\n"
    form = host + f"Content-Type: {forms.FORM}\r\n".encode()
    length = b"Content-Length: %d\r\n" % len(body)
    chunks = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    coded = b"Transfer-Encoding: chunked\r\n"
    for name, sent in (
        ("nothing", b""),
        ("zeros", bytes(5000)),
        ("a tls hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        ("http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50)),
        ("http/0.9", b"GET /\r\n"),
        ("http/9.9", b"GET / HTTP/9.9\r\n" + host + b"\r\n"),
        ("no method", b" / HTTP/1.1\r\n" + host + b"\r\n"),
        ("a method of bytes", b"\xff\xfe / HTTP/1.1\r\n" + host + b"\r\n"),
        ("a path of bytes", b"GET /\xff\xfe HTTP/1.1\r\n" + host + b"\r\n"),
        ("a path with zeros", b"GET /v1/%00 HTTP/1.1\r\n" + host + b"\r\n"),
        ("a path of dots", b"GET /assets/../../../etc/passwd HTTP/1.1\r\n" + host + b"\r\n"),
        ("a path of coded dots", b"GET /assets/%2e%2e%2f%2e%2e%2fetc%2fpasswd HTTP/1.1\r\n" + host + b"\r\n"),
        ("a long path", b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + host + b"\r\n"),
        ("a long query", b"GET /v1/archive?" + b"a=b&" * 20_000 + b" HTTP/1.1\r\n" + host + b"\r\n"),
        ("many heads", LINE + host + b"".join(b"X-%d: x\r\n" % at for at in range(5_000)) + b"\r\n"),
        ("a long head", LINE + host + b"X: " + b"x" * 900_000 + b"\r\n\r\n"),
        ("a head without end", LINE + host + b"X: " + b"x" * 60_000),
        ("two hosts", LINE + host * 2 + b"\r\n"),
        ("a folded head", LINE + host + b"X: a\r\n b\r\n\r\n"),
        ("a length of letters", LINE + form + b"Content-Length: abc\r\n\r\n" + body),
        ("a length below zero", LINE + form + b"Content-Length: -5\r\n\r\n" + body),
        ("a length with a sign", LINE + form + b"Content-Length: +5\r\n\r\n" + body),
        ("a length of 20 digits", LINE + form + b"Content-Length: 99999999999999999999\r\n\r\n" + body),
        ("two lengths", LINE + form + length + b"Content-Length: 5\r\n\r\n" + body),
        ("a length too short", LINE + form + b"Content-Length: 100\r\n\r\n" + body),
        ("a length too long", LINE + form + b"Content-Length: %d\r\n\r\n" % (len(body) + 100) + body),
        ("length and chunks", LINE + form + length + coded + b"\r\n" + chunks),
        ("chunks twice", LINE + form + coded * 2 + b"\r\n" + chunks),
        ("chunks that are not last", LINE + form + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + chunks),
        ("chunks of an unknown coding", LINE + form + b"Transfer-Encoding: xchunked\r\n\r\n" + chunks),
        ("a chunk of letters", LINE + form + coded + b"\r\nxyz\r\n" + body),
        ("a chunk of 20 digits", LINE + form + coded + b"\r\nffffffffffffffffffff\r\n" + body),
        ("a chunk with long words", LINE + form + coded + b"\r\n5;" + b"x" * 100_000 + b"\r\nabcde\r\n0\r\n\r\n"),
        ("many small chunks", LINE + form + coded + b"\r\n" + b"1\r\n-\r\n" * 100_000 + b"0\r\n\r\n"),
        ("chunks without end", LINE + form + coded + b"\r\n5\r\nabcde\r\n"),
        ("trailers", LINE + form + coded + b"\r\n" + chunks[:-2] + b"X: y\r\n" * 1_000 + b"\r\n"),
        ("a compressed body", LINE + form + length + b"Content-Encoding: gzip\r\n\r\n" + body),
        ("a thousand requests", (b"GET /livez HTTP/1.1\r\n" + host + b"\r\n") * 1_000),
        ("a target elsewhere", b"GET http://evil.example/v1/archive HTTP/1.1\r\n" + host + b"\r\n"),
        ("connect", b"CONNECT evil.example:443 HTTP/1.1\r\n" + host + b"\r\n"),
        ("upgrade", b"GET / HTTP/1.1\r\n" + host + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ):
        yield f"wire {name}", sent
