"""Signing in: a real OpenID Connect provider (from npm), a real browser, and a program with a token of its own."""

import base64
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest

from conftest import ROOT, free_port, have, medsearch, png

CHROMIUM = os.environ.get("MEDSEARCH_CHROMIUM") or shutil.which("chromium")
AUDIENCE = "urn:medsearch:api"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def modules():
    """A folder with the provider's packages."""
    have("node")
    found = subprocess.run([ROOT / "scripts/lib/oidc"], capture_output=True, text=True)
    if found.returncode == 77:
        pytest.skip("Node.js and npm are not installed")
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.fixture(scope="module")
def archive(synthetic, tmp_path_factory):
    """An archive in thumbnail space that nobody writes to."""
    folder = tmp_path_factory.mktemp("login")
    medsearch("embed", "--data", synthetic, "--out", folder / "embeddings", "--model", "thumbnail")
    where = ("--embeddings", folder / "embeddings", "--data", synthetic, "--model", "thumbnail")
    medsearch("index", *where, "--archive", folder / "archive", "--synthetic")
    return folder / "archive"


@pytest.fixture
def signed(modules, archive, serve, tmp_path):
    """(server, issuer, log) of a server that takes an issuer's word."""
    issuer_port, port = free_port(), free_port()
    # Another site than the server for a browser, as in a hospital.
    issuer, public = f"http://localhost:{issuer_port}", f"http://127.0.0.1:{port}"
    provider = subprocess.Popen(
        ["node", ROOT / "tests/system/oidc_provider.mjs", modules, str(issuer_port), public],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert provider.stdout.readline().strip() == "listening"
        secret, log = tmp_path / "client.secret", tmp_path / "server.log"
        secret.write_text("a secret of the page\n")
        secret.chmod(0o600)
        server = serve(
            archive,
            *("--oidc-issuer", issuer, "--oidc-audience", AUDIENCE, "--oidc-scope-claim", "roles"),
            *("--oidc-role", "readers=search", "--oidc-client-id", "page", "--oidc-client-secret-file", secret),
            *("--public-url", public, "--audit-dir", tmp_path / "audit"),
            port=port,
            log=log,
        )
        yield server, issuer, log
    finally:
        provider.terminate()
        provider.wait(10)


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
    form = {"grant_type": "client_credentials", "resource": AUDIENCE, "scope": "search"}
    request = urllib.request.Request(f"{issuer}/token", data=urllib.parse.urlencode(form).encode())
    basic = base64.b64encode(b"program:" + urllib.parse.quote_plus("a secret of the program").encode()).decode()
    request.add_header("Authorization", f"Basic {basic}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        token = json.load(answer)["access_token"]
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


def sign_in_at(page, issuer, name):
    """The provider's own pages: who, and that it may tell."""
    page.wait_for_url(f"{issuer}/interaction/*")
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", "any")
    page.click("button[type=submit]")
    page.wait_for_selector("text=Authorize")
    page.click("button[type=submit]")


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
