"""SIGTERM, as an orchestrator sends it: first it says so, then it stops, and answers until then."""

import time
import urllib.error
import urllib.request

from conftest import png

DRAIN_S = 6


def test_a_server_says_that_it_will_stop_and_answers_meanwhile(small_archive, serve):
    server = serve(small_archive, "--drain-seconds", DRAIN_S)
    assert server.post_image("/v1/search", png(1))[0] == 200
    server.process.terminate()
    ends = time.monotonic() + DRAIN_S
    while (problem := unready(server)) is None:
        assert time.monotonic() < ends, "it says that it is ready to the end"
        time.sleep(0.05)
    assert problem.code == 503 and problem.headers["Retry-After"]
    assert server.process.poll() is None
    # Whoever has not heard of it yet is answered.
    for seed in range(3):
        assert server.post_image("/v1/search", png(seed))[0] == 200
    assert urllib.request.urlopen(f"{server.url}/livez", timeout=2).status == 200
    assert unready(server), "it does not change its mind"
    assert server.process.wait(20) == 0
    assert time.monotonic() >= ends - 0.5, "it did not wait"


def unready(server) -> urllib.error.HTTPError | None:
    """What /readyz says where it says no."""
    try:
        urllib.request.urlopen(f"{server.url}/readyz", timeout=2)
    except urllib.error.HTTPError as problem:
        return problem
    return None
