"""A small HTTP client for checks: one connection, multipart uploads, JSON answers. Standard library only."""

import http.client
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

Fields = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict:
        """The body as an object."""
        return json.loads(self.body)

    def expect(self, *statuses: int) -> dict:
        """The body as an object if the status is one of these, else an error that shows the answer."""
        if self.status not in statuses:
            raise UnexpectedStatusError(self.status, self.body[:500].decode(errors="replace"))
        return self.json()


class UnexpectedStatusError(Exception):
    """The server answered with another status than the caller can use."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"status {status}: {text}")
        self.status = status


class Client:
    """One keep-alive connection; a thread needs a client of its own."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 60.0) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, method: str, path: str, body: bytes | None = None, content_type: str | None = None) -> Answer:
        """Send one request and read its answer whole."""
        headers = self.headers | ({"Content-Type": content_type} if content_type else {})
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except (http.client.HTTPException, OSError):
            # The next request opens a new connection; this one may or may not have been carried out.
            self.connection.close()
            raise

    def close(self) -> None:
        """Close the connection; another request opens a new one."""
        self.connection.close()

    def ask_json(self, method: str, path: str, value: object) -> Answer:
        """Send a JSON body."""
        return self.ask(method, path, json.dumps(value).encode(), "application/json")

    def ask_form(self, path: str, image: bytes, name: str = "image", fields: Fields = ()) -> Answer:
        """Send an image and fields as multipart/form-data."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="image"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode()
            + image
            + f"\r\n--{boundary}--\r\n".encode()
        )
        return self.ask("POST", path, b"".join(parts), f"multipart/form-data; boundary={boundary}")

    def search(self, image: Path | bytes, **options: object) -> dict:
        """The answer of POST /v1/search."""
        content = image.read_bytes() if isinstance(image, Path) else image
        fields = [(key, str(value)) for key, value in options.items()]
        return self.ask_form("/v1/search", content, fields=fields).expect(200)
