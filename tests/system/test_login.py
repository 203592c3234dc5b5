"""Signing in: a real OpenID Connect provider (from npm), a real browser, and a program with a token of its own."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest

from conftest import ROOT, free_port, medsearch, png
from issuer import Issuer, sign_in_at

CHROMIUM = os.environ.get("MEDSEARCH_CHROMIUM") or shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def archive(synthetic, tmp_path_factory):
    """An archive in thumbnail space that nobody writes to."""
    folder = tmp_path_factory.mktemp("login")
    medsearch("embed", "--data", synthetic, "--out", folder / "embeddings", "--model", "thumbnail")
    where = ("--embeddings", folder / "embeddings", "--data", synthetic, "--model", "thumbnail")
    medsearch("index", *where, "--archive", folder / "archive", "--synthetic")
    return folder / "archive"


@pytest.fixture
def signed(archive, serve, tmp_path):
    """(server, issuer, log) of a server that takes an issuer's word."""
    port = free_port()
    issuer = Issuer(f"http://127.0.0.1:{port}")
    try:
        log = tmp_path / "server.log"
        server = serve(archive, *issuer.options(tmp_path), "--audit-dir", tmp_path / "audit", port=port, log=log)
        yield server, issuer, log
    finally:
        issuer.stop()


def status(server, method, path, token=None, **headers):
    """The status of a request without a body."""
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(server.url + path, method=method, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as problem:
        return problem.code


def test_a_program_asks_with_a_token_of_its_own(signed):
    server, issuer, log = signed
    token = issuer.token()
    assert server.post_image("/v1/search", png(1), headers={"Authorization": f"Bearer {token}"})[0] == 200
    assert status(server, "GET", "/v1/feedback", token) == 403
    assert status(server, "GET", "/v1/archive") == 401
    assert status(server, "GET", "/v1/archive", token[:-8] + "AAAAAAAA") == 401
    lines = log.read_text()
    assert '"key":"oidc:' in lines
    assert token not in lines and token.split(".")[1] not in lines


def test_people_sign_in_search_and_sign_out(signed, tmp_path):
    if not CHROMIUM:
        pytest.skip("no chromium found; set MEDSEARCH_CHROMIUM")
    sync_api = pytest.importorskip("playwright.sync_api")
    server, issuer, log = signed
    issuer = issuer.url
    image = tmp_path / "query.png"
    image.write_bytes(png(7))
    with sync_api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context()
        # The provider's own pages fetch a font; and a page of another site sends a form here.
        evil = f"<form method=post action={server.url}/v1/images></form><script>document.forms[0].submit()</script>"
        context.route(lambda url: not url.startswith((server.url, issuer)), lambda route: route.abort())
        context.route("http://evil.example/", lambda route: route.fulfill(body=evil, content_type="text/html"))
        page = context.new_page()
        addresses = []
        page.on("request", lambda request: addresses.append(request.url))

        page.goto(server.url)
        page.wait_for_selector("#key[open]")
        assert page.inner_text("#key-title") == "Sign in to search"
        page.click("#key-login-link")
        sign_in_at(page, issuer, "ada.lovelace")
        page.wait_for_selector("#archive-line span", state="attached")
        assert page.url == f"{server.url}/"
        assert page.inner_text("#account-name") == "Dr. ada.lovelace" and page.is_hidden("#sign-in")
        page.set_input_files("#file", image)
        page.wait_for_selector("#neighbors .tile")
        page.wait_for_function("() => [...document.querySelectorAll('#neighbors img')].some((img) => img.naturalWidth)")
        assert page.evaluate("document.cookie") == "", "no script reads it"
        [session] = [cookie for cookie in context.cookies(server.url) if cookie["name"].startswith("medsearch")]
        assert session["httpOnly"] and session["sameSite"] == "Strict" and len(session["value"]) < 1000

        # The cookie alone is not enough: another page's request does not carry it, and would not be answered.
        cookie = f"medsearch={session['value']}"
        own = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
        assert status(server, "GET", "/v1/archive", **own) == 200
        assert status(server, "GET", "/v1/archive", **{**own, "Sec-Fetch-Site": "cross-site"}) == 403
        with page.expect_response(f"{server.url}/v1/images") as answer:
            page.goto("http://evil.example/")
        assert answer.value.status == 403 and "cookie" not in answer.value.request.all_headers()

        page.goto(server.url)
        page.click("#sign-out")
        page.wait_for_url(f"{issuer}/session/end*")
        page.goto(server.url)
        page.wait_for_selector("#key[open]")
        assert page.is_visible("#sign-in") or page.locator("#key-login").is_visible()

        # Somebody whom the issuer knows, and who has no role here.
        context.clear_cookies()
        page.goto(f"{server.url}/login")
        sign_in_at(page, issuer, "bob.builder")
        page.wait_for_selector("[data-problem=sign-in-no-role]")
        browser.close()
    lines = log.read_text()
    assert '"message":"signed in"' in lines and '"message":"not signed in"' in lines
    noted = [
        json.loads(line) for file in (tmp_path / "audit").rglob("*.jsonl") for line in file.read_text().splitlines()
    ]
    noted = [
        (line["what"], (line.get("who") or "")[:5])
        for line in noted
        if line["what"] in ("signIn", "signOut", "refused")
    ]
    assert ("signIn", "oidc:") in noted and ("signOut", "oidc:") in noted and ("refused", "") in noted, noted
    codes = {
        query["code"][0]
        for url in addresses
        if "code" in (query := urllib.parse.parse_qs(urllib.parse.urlsplit(url).query))
    }
    assert codes
    for secret in ["ada.lovelace", "bob.builder", "hospital.example", session["value"], *codes]:
        assert f'"{secret}' not in lines and (len(secret) < 8 or secret not in lines), secret


def test_every_page_works_for_whoever_has_signed_in(made, synthetic, serve, tmp_path):
    """Tests of each page from tests/browser, with a session, at a server that turns away who has none."""
    if not CHROMIUM:
        pytest.skip("no chromium found; set MEDSEARCH_CHROMIUM")
    sync_api = pytest.importorskip("playwright.sync_api")
    # With samples, which pages show.
    where = ("--embeddings", made / "embeddings", "--data", synthetic, "--model", "thumbnail")
    medsearch("index", *where, "--archive", tmp_path / "archive", "--synthetic", "--demo")
    port, session = free_port(), tmp_path / "session.json"
    issuer = Issuer(f"http://127.0.0.1:{port}")
    try:
        server = serve(
            tmp_path / "archive", *issuer.options(tmp_path, readers="admin"), port=port, log=tmp_path / "server.log"
        )
        with sync_api.sync_playwright() as running:
            browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            context = browser.new_context()
            context.route(lambda url: not url.startswith((server.url, issuer.url)), lambda route: route.abort())
            page = context.new_page()
            page.goto(f"{server.url}/login")
            sign_in_at(page, issuer.url, "ada.lovelace")
            page.wait_for_selector("#archive-line span", state="attached")
            context.storage_state(path=session)
            browser.close()
        assert status(server, "GET", "/v1/archive") == 401
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", "signed_in", ROOT / "tests/browser"],
            env=os.environ
            | {"MEDSEARCH_URL": server.url, "MEDSEARCH_SESSION": str(session), "MEDSEARCH_KEY": issuer.token()},
            capture_output=True,
            text=True,
            check=False,
        )
        said = ran.stdout[-6000:] + ran.stderr[-2000:]
        assert ran.returncode == 0 and " passed" in ran.stdout and " skipped" not in ran.stdout, said
    finally:
        issuer.stop()


def test_what_does_not_fit_together_does_not_start(archive):
    good = ["--oidc-issuer", "https://issuer.example", "--oidc-audience", "x", "--oidc-role", "a=search"]
    for wrong, why in [
        (good[:2], "--oidc-audience"),
        (good[:4], "--oidc-role"),
        (["--oidc-issuer", "http://issuer.example", *good[2:]], "https://"),
        ([*good[:5], "a=everything"], "a scope is one of"),
        ([*good, "--oidc-client-id", "page"], "--public-url"),
        ([*good, "--oidc-client-id", "page", "--public-url", "http://search.example"], "https://"),
        ([*good, "--oidc-ca-file", "no-such-file"], "no-such-file"),
        ([*good, "--oidc-ca-file", __file__], "certificates"),
    ]:
        run = medsearch("serve", "--archive", archive, "--listen", "127.0.0.1:0", *wrong, check=False, timeout=30)
        assert run.returncode != 0 and why in run.stderr, (wrong, run.stderr)
