"""A page of another origin can neither write nor read, nor pass as ours by a name that resolves here."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from conftest import get_json


@pytest.fixture(scope="module")
def foreign_port():
    """A second server, with an empty page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><body></body>")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


# 127.0.0.1 with another port is the same site, localhost is another site: browsers send different headers.
@pytest.fixture(params=["127.0.0.1", "localhost"])
def foreign(request, new_context, foreign_port):
    page = new_context().new_page()
    page.goto(f"http://{request.param}:{foreign_port}/")
    return page


class Wire:
    """The statuses of a server's answers as they came over the wire, those included that the browser then hides."""

    def __init__(self, page, url):
        self.page, self.url, self.asked, self.answered = page, url, {}, {}
        network = page.context.new_cdp_session(page)
        network.send("Network.enable")
        network.on("Network.requestWillBeSent", lambda e: self.asked.update({e["requestId"]: e["request"]["url"]}))
        network.on(
            "Network.responseReceivedExtraInfo", lambda e: self.answered.update({e["requestId"]: e["statusCode"]})
        )

    def statuses(self, count):
        """In the order of the requests, once there are `count`: these events come after the script's end."""
        for _ in range(50):
            found = [
                self.answered[i] for i, url in self.asked.items() if url.startswith(self.url) and i in self.answered
            ]
            if len(found) >= count:
                break
            self.page.wait_for_timeout(100)
        return found


def case_path(archive):
    return archive["samples"][0]["thumbnail"] if archive["samples"] else "/v1/archive"


@pytest.mark.signed_in
@pytest.mark.parametrize("path", ["/v1/archive", "/", "/metrics"])
def test_cannot_read(foreign, url, path):
    read = foreign.evaluate("u => fetch(u).then((r) => r.text()).catch((e) => e.name)", url + path)
    assert read == "TypeError"


@pytest.mark.signed_in
def test_cannot_read_pixels(foreign, url, archive):
    if not archive["samples"]:
        pytest.skip("no case to look at")
    outcome = foreign.evaluate(
        """u => new Promise((done) => {
            const img = new Image();
            img.onerror = () => done("blocked");
            img.onload = () => done("shown");
            img.src = u;
        })""",
        url + case_path(archive),
    )
    assert outcome == "blocked", "Cross-Origin-Resource-Policy: same-origin keeps images out of other pages"


def test_cannot_frame(foreign, url):
    foreign.evaluate(
        """u => new Promise((done) => {
            const frame = document.createElement("iframe");
            Object.assign(frame, { src: u, onload: done });
            document.body.append(frame);
        })""",
        url,
    )
    assert not any(frame.url.startswith(url) for frame in foreign.frames[1:])


@pytest.mark.signed_in
def test_cannot_write_by_fetch(foreign, url):
    before = get_json("/v1/archive")
    wire = Wire(foreign, url)
    foreign.evaluate(
        """async ([url, body]) => {
            const form = new FormData();
            form.append("image", new Blob([new Uint8Array(100)]), "image");
            const tries = [
                ["/v1/images", { method: "POST", mode: "no-cors", body: form }],
                ["/v1/search/by-id", { method: "POST", mode: "no-cors", body }],
                ["/v1/patients/delete", { method: "POST", mode: "no-cors", body: '{"patient_id":"1"}' }],
                ["/v1/images/0", { method: "DELETE" }],
            ];
            for (const [path, init] of tries) await fetch(url + path, init).catch(() => {});
        }""",
        [url, json.dumps({"ids": ["0"]})],
    )
    statuses = wire.statuses(4)
    assert statuses[:3] == [403, 403, 403], statuses
    assert all(status >= 400 for status in statuses[3:]), "the question whether DELETE is allowed is answered with no"
    assert get_json("/v1/archive")["version"] == before["version"]


@pytest.mark.signed_in
def test_cannot_write_by_form(foreign, url, image_path):
    before = get_json("/v1/archive")
    foreign.evaluate(
        """u => {
            const form = document.createElement("form");
            Object.assign(form, { method: "post", enctype: "multipart/form-data", action: u });
            const input = Object.assign(document.createElement("input"), { type: "file", name: "image", id: "file" });
            form.append(input);
            document.body.append(form);
        }""",
        f"{url}/v1/images",
    )
    foreign.set_input_files("#file", image_path)
    with foreign.expect_navigation() as went:
        foreign.evaluate("document.forms[0].submit()")
    assert went.value.status == 403
    assert went.value.json()["type"] == "/problems/forbidden-origin"
    assert get_json("/v1/archive")["version"] == before["version"]


def test_cannot_rebind_a_name(launch, url):
    parts = urlsplit(url)
    browser = launch(f"--host-resolver-rules=MAP evil.test {parts.hostname}")
    page = browser.new_page()
    for path in ("/", "/v1/archive"):
        answer = page.goto(f"http://evil.test:{parts.port}{path}")
        assert answer.status == 403
        assert answer.json()["type"] == "/problems/forbidden-origin"
    browser.close()
