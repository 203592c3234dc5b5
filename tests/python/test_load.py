"""Load by schedule: what waits because others are slow is slow too."""

import math
import threading
import time

import pytest

from medsearch_py import load
from medsearch_py.client import Answer
from medsearch_py.load import ClosedLoop, Done, OpenLoop, figures_of, percentile

TAKES_S = 0.1
NOWHERE = ["http://127.0.0.1:1", "http://127.0.0.1:2"]


class Slow:
    """Each request takes as long, and every third has the wrong status."""

    def __init__(self) -> None:
        self.lock, self.asked = threading.Lock(), []

    def kind(self, _number: int) -> str:
        return "slow"

    def ask(self, number: int, client) -> Answer:
        time.sleep(TAKES_S)
        with self.lock:
            self.asked.append((client.connection.port, number))
        return Answer(500 if number % 3 == 2 else 200, {}, b"")

    def problem(self, answer: Answer) -> str | None:
        return None if answer.status == 200 else str(answer.status)


def test_a_request_takes_what_passed_since_it_was_due():
    work = Slow()
    clients = OpenLoop(work, NOWHERE, per_s=50, in_flight_max=1)
    clients.start()
    time.sleep(0.5)
    done = clients.stop()
    # All that were due, though each came late.
    assert 20 <= len(done) <= 26
    took = sorted(each.latency_ms for each in done)
    assert took[0] < 2 * TAKES_S * 1000
    # The last waits for all before it, 0.1 s each, of which 0.02 s pass until it is due.
    assert took[-1] > (len(done) - 1) * (TAKES_S - 1 / 50) * 1000 * 0.9
    assert [port for port, _ in work.asked[:4]] == [1, 2, 1, 2]
    assert [number for _, number in work.asked[:6]] == [0, 0, 1, 1, 2, 2]
    assert clients.taken() == []


def test_clients_that_wait_for_their_answers_do_not_see_that():
    clients = ClosedLoop(Slow(), NOWHERE, 1)
    clients.start()
    time.sleep(0.5)
    took = [each.latency_ms for each in clients.stop()]
    assert 3 <= len(took) <= 6 and max(took) < 2 * TAKES_S * 1000


def test_what_can_not_be_sent_has_failed(monkeypatch):
    monkeypatch.setattr(load, "LATE_MAX_S", 0.2)
    clients = OpenLoop(Slow(), NOWHERE, per_s=50, in_flight_max=1)
    clients.start()
    time.sleep(0.4)
    done = clients.stop()
    unsent = [each for each in done if each.problem and each.problem.startswith("not sent")]
    assert len(unsent) > 5 and len(done) > 15


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentiles_are_values_that_there_are(share, expected):
    assert percentile(range(1, 101), share) == expected


def test_figures_are_of_those_that_were_answered():
    done = [Done("x", 0.0, 0.01 * (at + 1), None) for at in range(100)] + [Done("x", 0.0, 9.0, "503: busy")]
    figures = figures_of(done)
    assert (figures["sent"], figures["failed"], figures["problems"]) == (101, 1, {"503: busy": 1})
    assert (figures["p50_ms"], figures["p99_ms"], figures["max_ms"]) == (500.0, 990.0, 1000.0)
    assert math.isnan(percentile([], 0.5)) and figures_of([]) == {"sent": 0, "failed": 0}
