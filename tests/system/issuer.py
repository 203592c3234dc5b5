"""A real OpenID Connect provider, from npm, and people and programs that it vouches for."""

import base64
import json
import subprocess
import urllib.parse
import urllib.request

import pytest

from conftest import ROOT, free_port, have

AUDIENCE = "urn:medsearch:api"


class Issuer:
    """One on a free port, for a server whose page is at `public`."""

    def __init__(self, public: str):
        have("node")
        found = subprocess.run([ROOT / "scripts/lib/oidc"], capture_output=True, text=True, check=False)
        if found.returncode == 77:
            pytest.skip("Node.js and npm are not installed")
        assert found.returncode == 0, found.stderr
        port = free_port()
        # Another site than the server for a browser, as in a hospital.
        self.url = f"http://localhost:{port}"
        self.process = subprocess.Popen(
            ["node", ROOT / "tests/system/oidc_provider.mjs", found.stdout.strip(), str(port), public],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout.readline().strip() == "listening"
        self.public = public

    def options(self, folder, *, readers="search"):
        """What a server is started with to take this issuer's word; `readers`: the scopes of its role."""
        secret = folder / "client.secret"
        secret.write_text("a secret of the page\n")
        secret.chmod(0o600)
        return [
            *("--oidc-issuer", self.url, "--oidc-audience", AUDIENCE, "--oidc-scope-claim", "roles"),
            *("--oidc-role", f"readers={readers}", "--oidc-client-id", "page", "--oidc-client-secret-file", secret),
            *("--public-url", self.public),
        ]

    def token(self) -> str:
        """A program's own, by the client credentials grant."""
        form = {"grant_type": "client_credentials", "resource": AUDIENCE, "scope": "search"}
        request = urllib.request.Request(f"{self.url}/token", data=urllib.parse.urlencode(form).encode())
        basic = base64.b64encode(b"program:" + urllib.parse.quote_plus("a secret of the program").encode()).decode()
        request.add_header("Authorization", f"Basic {basic}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["access_token"]

    def stop(self):
        """SIGTERM and wait."""
        self.process.terminate()
        self.process.wait(10)


def sign_in_at(page, issuer: str, name: str):
    """The provider's own pages: who, and that it may tell. `ada.lovelace` is a reader."""
    page.wait_for_url(f"{issuer}/interaction/*")
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", "any")
    page.click("button[type=submit]")
    page.wait_for_selector("text=Authorize")
    page.click("button[type=submit]")
