"""The page in a real Chromium, against a running server.

    pip install -r tests/browser/requirements.txt        # and a Chromium: apt-get install chromium
    MEDSEARCH_URL=http://127.0.0.1:8000 pytest tests/browser

MEDSEARCH_URL       the server; without it every test is skipped by name
MEDSEARCH_CHROMIUM  the browser, by default the `chromium` on the path
MEDSEARCH_SHOTS     a folder for screenshots; without it none are taken
MEDSEARCH_SESSION   where the server asks who is there: a browser's storage (Playwright) of somebody who has signed in
MEDSEARCH_KEY       and a key that may do everything, for what tests ask beside the page

Every page opened here is watched: a message on the console, an error in a script, a breach of the content security
policy or a request to another host fails the test.
"""

import json
import os
import shutil
import urllib.request
from urllib.parse import urlsplit

import pytest

from files import gradient_png

URL = os.environ.get("MEDSEARCH_URL", "").rstrip("/")
CHROMIUM = os.environ.get("MEDSEARCH_CHROMIUM") or shutil.which("chromium")
SESSION = os.environ.get("MEDSEARCH_SESSION")
KEY = os.environ.get("MEDSEARCH_KEY")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def pytest_configure(config):
    config.addinivalue_line("markers", "signed_in: one for each page; also run with a session (system/test_login.py)")
    config.addinivalue_line("markers", "may_fail: requests of this test are meant to be refused")


def pytest_collection_modifyitems(items):
    missing = None
    if not URL:
        missing = "MEDSEARCH_URL names no running server"
    elif not CHROMIUM:
        missing = "no chromium found; set MEDSEARCH_CHROMIUM"
    if missing:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def url():
    return URL


@pytest.fixture(scope="session")
def playwright():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def launch(playwright):
    """Starts a browser with further arguments; all are closed at the end."""
    started = []

    def start(*more):
        started.append(playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *more]))
        return started[-1]

    yield start
    for browser in started:
        browser.close()


@pytest.fixture(scope="session")
def browser(launch):
    return launch()


@pytest.fixture
def new_context(browser):
    """Makes browser contexts, of somebody who has signed in where that is needed; all are closed at the end."""
    made = []

    def make(**options):
        made.append(browser.new_context(storage_state=SESSION, **options))
        return made[-1]

    yield make
    for context in made:
        context.close()


@pytest.fixture
def open_page(new_context, request):
    """Opens the start page in a fresh context, and checks at the end what each page did."""
    opened = []

    def start(width=1440, height=900, **options):
        context = new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        watched = Watched(page)
        opened.append((context, watched))
        page.goto(URL)
        page.wait_for_selector("#archive-line span", state="attached")
        return page

    yield start
    may_fail = request.node.get_closest_marker("may_fail") is not None
    for context, watched in opened:
        context.close()
        watched.check(may_fail)


@pytest.fixture
def page(open_page):
    return open_page()


class Watched:
    """What a page said on the console and asked of other hosts."""

    def __init__(self, page):
        self.said, self.foreign = [], []
        page.on("console", lambda message: message.type in ("error", "warning") and self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request):
        parts = urlsplit(request.url)
        if parts.scheme not in ("blob", "data") and f"{parts.scheme}://{parts.netloc}" != URL:
            self.foreign.append(request.url)

    def check(self, may_fail):
        said = [text for text in self.said if not (may_fail and text.startswith("Failed to load resource"))]
        assert not said, f"the console is not empty: {said}"
        assert not self.foreign, f"requests to other hosts: {self.foreign}"


def ask(path, method="GET"):
    """The bytes that the server answers with, to somebody who may do everything."""
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    with urllib.request.urlopen(urllib.request.Request(URL + path, headers=headers, method=method)) as answer:
        return answer.read()


def get_json(path):
    return json.loads(ask(path))


@pytest.fixture(scope="session")
def archive():
    return get_json("/v1/archive")


@pytest.fixture(scope="session")
def image_bytes(archive):
    """A PNG to search with: a case of the demo archive, else a drawn one."""
    for sample in archive["samples"]:
        return ask(sample["rendered"])
    return gradient_png(200, 180)


@pytest.fixture(scope="session")
def image_path(image_bytes, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "query.png"
    path.write_bytes(image_bytes)
    return path


@pytest.fixture
def case(page, image_path, archive):
    """The id of a case of the archive."""
    if archive["samples"]:
        return archive["samples"][0]["id"]
    page.set_input_files("#file", image_path)
    page.wait_for_selector("#neighbors .tile")
    found = page.get_attribute("#neighbors .tile", "data-id")
    page.click("#home")
    return found
