"""The client of `scripts/kind` at a real server: it understands what the API says."""

import subprocess

from conftest import ROOT

CLIENT = ROOT / "tests/kubernetes/client"


def test_the_client_searches_a_real_server(serve, small_archive, tmp_path):
    """Its searches by vector are answered whole, and it reads metrics."""
    key = tmp_path / "key"
    key.write_text("a-key-of-sixteen-characters")
    key.chmod(0o600)
    server = serve(small_archive, "--api-key-file", key)
    place = {"SERVER_HOST": "127.0.0.1", "SERVER_PORT": str(server.port), "KEY_FILE": str(key), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(["bash", CLIENT, "trickle", "0.01"], env=place, stdout=subprocess.PIPE, text=True)
    statuses = [process.stdout.readline().split()[1] for _ in range(5)]
    process.terminate()
    process.wait(10)
    assert statuses == ["200"] * 5
    metrics = subprocess.run(["bash", CLIENT, "ask", "GET", "/metrics"], env=place, capture_output=True, text=True)
    assert metrics.stdout.startswith("HTTP/1.1 200") and "\nmedsearch_http_requests_total{" in metrics.stdout
