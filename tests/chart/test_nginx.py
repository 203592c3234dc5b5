"""What the annotations for nginx do: nginx itself before a replica that answers and one that dies over requests."""

import contextlib
import hashlib
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from chart import nginx_annotations, rendered

HOST = "127.0.0.1"
REQUESTS = 8
BODY_BYTES = 300_000
"""More than nginx keeps in memory by itself (16 KiB)."""
STARTED_MAX_S = 10
# Annotations whose directive is called otherwise, or that the controller itself follows; of the others `-` becomes `_`.
DIRECTIVES = {"proxy-body-size": "client_max_body_size", "load-balance": None}
CONFIGURATION = """\
daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {place}/bodies;
    proxy_temp_path {place}/answers;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    upstream replicas {{
{servers}
    }}
    server {{
        listen {host}:{port};
{locations}
    }}
}}
"""


class Replica(ThreadingHTTPServer):
    """Keeps the digest of each body; answers with it, or closes the connection once it has all of it."""

    daemon_threads = True

    def __init__(self, *, dies: bool) -> None:
        self.dies, self.digests = dies, []
        super().__init__((HOST, 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Connections are refused from now on."""
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Replica

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        digest = hashlib.sha256(body).hexdigest()
        self.server.digests.append(digest)
        if self.server.dies:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(digest)))
        self.end_headers()
        self.wfile.write(digest.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def location(path: str, annotations: dict[str, str]) -> str:
    """What nginx makes of the annotations that there are."""
    named = {DIRECTIVES.get(name, name.replace("-", "_")): value for name, value in annotations.items()}
    lines = [f"{name} {value};" for name, value in named.items() if name]
    inner = "\n".join(
        f"            {line}" for line in (*lines, "proxy_http_version 1.1;", "proxy_pass http://replicas;")
    )
    return f"        location {path} {{\n{inner}\n        }}"


@contextlib.contextmanager
def nginx(place: Path, replicas: list[Replica]) -> Iterator[str]:
    """The address of an nginx with the chart's annotations before these replicas, asked in turn whatever they do."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    ingresses = [each for each in rendered("ingress") if each["kind"] == "Ingress"]
    of = {each["spec"]["rules"][0]["http"]["paths"][0]["path"]: nginx_annotations(each) for each in ingresses}
    servers = "\n".join(f"        server {HOST}:{each.server_address[1]} max_fails=0;" for each in replicas)
    locations = "\n".join(location(path, annotations) for path, annotations in of.items())
    file = place / "nginx.conf"
    file.write_text(CONFIGURATION.format(place=place, host=HOST, port=port, servers=servers, locations=locations))
    process = subprocess.Popen(["nginx", "-p", place, "-c", file], stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + STARTED_MAX_S
        while socket.socket().connect_ex((HOST, port)):
            assert process.poll() is None and time.monotonic() < until, process.communicate()[1].decode()
            time.sleep(0.05)
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(10)


def ask(url: str, number: int) -> int:
    """The status of a request with a body of its own; a success must be about just this body."""
    body = number.to_bytes(1) * BODY_BYTES
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
            assert answer.read().decode() == hashlib.sha256(body).hexdigest()
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_a_search_is_asked_again_a_write_only_where_nothing_was_sent(tmp_path: Path) -> None:
    lives, dies = Replica(dies=False), Replica(dies=True)
    with nginx(tmp_path, [lives, dies]) as url:
        searches = [ask(f"{url}/v1/search/by-vector", number) for number in range(REQUESTS)]
        assert searches == [200] * REQUESTS and dies.digests, "a search that dies with a replica is another's"
        assert set(dies.digests) <= set(lives.digests)
        for replica in (lives, dies):
            replica.digests.clear()
        writes = [ask(f"{url}/v1/images", number) for number in range(REQUESTS)]
        assert writes.count(200) == len(lives.digests) and writes.count(502) == len(dies.digests) > 0
        assert not set(lives.digests) & set(dies.digests), "a write was sent twice"
        dies.stop()
        for path in ("/v1/search", "/v1/images"):
            assert [ask(url + path, number) for number in range(REQUESTS)] == [200] * REQUESTS, "refused connections"
    lives.stop()
    assert "temporary file" not in (tmp_path / "error.log").read_text(), "a picture on a disk"
