"""`scripts/cluster` with little time for each fault; `scripts/soak cluster` gives it minutes, and measures."""

import json
import os
import time

import pytest

from conftest import PROGRAM, have, medsearch
from medsearch_py.cluster import Cluster, increase
from medsearch_py.drawn import drawn_archive, room_for
from medsearch_py.faults import (
    SLOW_BY_MS,
    Outcome,
    Rate,
    Trial,
    cut_off,
    heals,
    killed,
    rolled,
    slowed,
    two_gone,
)
from medsearch_py.load import OpenLoop, percentile
from medsearch_py.replicas import engine

ROWS, SHARDS, SHARDS_AFTER = 2000, 8, 12
# Half a shard more than six: shards are not all of one size.
ROOM = room_for(6.5, SHARDS, ROWS)
RATE = Rate(proxied=20.0, direct=4.0, ingests=1.0)
SECONDS_KILLED, SECONDS_CUT_OFF, SECONDS_SLOW, SECONDS_ROLLED, SECONDS_FROZEN, SECONDS_GONE = 10, 10, 10, 12, 4, 6
SECONDS_RESHARDED, RESHARDED_MAX_S = 6, 60
# Two late statuses in a row tell, on a busy machine too.
NOTICED_MAX_S = 10.0
# Of four replicas any two can hold all of it.
HEALING_SHARDS_FIT = 5.5


@pytest.fixture(scope="module")
def archive(synthetic, tmp_path_factory):
    """Eight shards of drawn vectors."""
    return drawn_archive(PROGRAM, synthetic, tmp_path_factory.mktemp("drawn"), ROWS, SHARDS)


@pytest.fixture(scope="module")
def trial(archive, tmp_path_factory):
    """Three replicas with memory for six of eight shards, relays between them, and a proxy."""
    have("haproxy")
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(3, archive, folder / "run", "--relays", "--program", PROGRAM, "--index-bytes-max", ROOM) as cluster:
        cluster.wait_whole()
        yield Trial(cluster, RATE)


def check(trial: Trial, outcome: Outcome) -> None:
    """What holds whatever happens to one replica."""
    figures = outcome.figures()
    print(json.dumps(figures, indent=1))
    assert outcome.failed == 0, figures
    assert len(outcome.proxied) > RATE.proxied * outcome.seconds * 0.9
    assert outcome.unready == 0
    trial.cluster.wait_whole()
    assert outcome.acknowledged and trial.lost(outcome.acknowledged) == []


def test_no_search_fails_when_a_replica_is_killed_and_comes_back(trial):
    """Each of eight shards is held twice, so that one replica may go."""
    outcome = trial.run("killed", SECONDS_KILLED, killed)
    assert outcome.counted["calls_answered"] > 0
    assert outcome.counted["sent_again_by_the_proxy"] > 0
    check(trial, outcome)


def test_no_search_fails_when_a_replica_is_cut_off(trial):
    """It hears nobody, and nobody hears it."""
    outcome = trial.run("cut off", SECONDS_CUT_OFF, cut_off)
    assert outcome.counted["retries"] + outcome.counted["hedges"] > 0
    check(trial, outcome)


def test_a_slow_replica_does_not_slow_the_others(trial):
    """Others are asked instead of one that takes half a second longer."""
    outcome = trial.run("slow", SECONDS_SLOW, slowed)
    trial.cluster.do("heal", 1)
    # Until two statuses in a row were late it is asked; how much more the rest may take, scripts/soak measures.
    since = outcome.notes.pop("since") + 3.0
    took = [each.latency_ms for each in outcome.proxied if each.due >= since]
    assert len(took) > 50
    assert percentile(took, 0.95) < SLOW_BY_MS
    check(trial, outcome)


def test_no_search_fails_while_replicas_are_rolled(trial):
    """Each is stopped with SIGTERM and started again, one after the other."""
    outcome = trial.run("rolled", SECONDS_ROLLED, rolled(None))
    assert len(outcome.notes["away_s"]) == trial.cluster.count
    check(trial, outcome)


def test_a_frozen_replica_is_asked_no_more(trial):
    """It takes connections and says nothing; its own searches wait, those of the others need not."""
    cluster = trial.cluster
    load = OpenLoop(trial.searches, cluster.direct[:2], RATE.proxied)
    load.start()
    try:
        cluster.do("freeze", 2)
        began = time.monotonic()
        while not all(knows_a_slow_one(cluster.counters(number)) for number in (0, 1)):
            assert time.monotonic() < began + NOTICED_MAX_S, "the others do not notice"
            time.sleep(0.1)
        noticed = time.monotonic()
        time.sleep(SECONDS_FROZEN)
    finally:
        done = load.stop()
        cluster.do("thaw", 2)
    assert [each.problem for each in done if each.problem] == []
    # Those under way when it freezes may wait until a call is overdue; of all of them, a twentieth.
    assert percentile([each.latency_ms for each in done], 0.95) < 1500
    took = [each.latency_ms for each in done if each.due >= noticed]
    assert len(took) > 50
    assert percentile(took, 0.95) < SLOW_BY_MS
    assert cluster.is_ready(0) and cluster.is_ready(1)
    cluster.wait_whole()


def knows_a_slow_one(counters: dict[str, float]) -> bool:
    """Whether a replica asks another one last."""
    return counters['medsearch_peers{state="slow"}'] > 0


def test_two_of_three_gone_are_said_to_be_missing(trial):
    """The last one names exactly the shards that it does not hold, or leaves them out where that is allowed."""
    found = two_gone(trial.cluster, SECONDS_GONE)
    assert found["asked"] > 0 and found["missing"] and found["wrong"] == [], found
    assert trial.cluster.is_ready(0)


def test_what_is_left_takes_over_what_nobody_holds_any_more(archive, tmp_path):
    """Two of four are gone, and the others have room for all of it."""
    room = room_for(HEALING_SHARDS_FIT, SHARDS, ROWS)
    with Cluster(4, archive, tmp_path / "run", "--program", PROGRAM, "--index-bytes-max", room) as cluster:
        cluster.wait_whole()
        found = heals(cluster)
        assert found["missing"] and found["refused"] and found["seconds"] is not None, found


def test_no_search_fails_when_the_archive_is_cut_into_other_shards(trial, archive):
    """Replicas answer by the shards that they have until they hold the new ones together."""

    def resharded(cluster, _):
        medsearch("reshard", "--archive", archive, "--shards", SHARDS_AFTER)
        began, search = time.monotonic(), trial.searches.vectors[0]
        for url in cluster.direct:
            while (shards := cluster.ask(url, "/v1/search/by-vector", search).json()["coverage"]["shards"]) == SHARDS:
                assert time.monotonic() < began + RESHARDED_MAX_S, "it does not answer by the new shards"
                time.sleep(0.1)
            assert shards == SHARDS_AFTER
        return {"new_shards_answer_after_s": round(time.monotonic() - began, 1)}

    for number in range(1, 3):
        trial.cluster.restart(number)
    trial.cluster.wait_whole()
    outcome = trial.run("resharded", SECONDS_RESHARDED, resharded)
    check(trial, outcome)


def test_replicas_may_be_containers(archive, tmp_path):
    """`--image`: they find each other, one is killed, goes missing, and is started again."""
    image = os.environ.get("MEDSEARCH_IMAGE") or pytest.skip("MEDSEARCH_IMAGE names no image that scripts/image built")
    run = engine() or pytest.skip("neither podman nor docker answers here")
    with Cluster(3, archive, tmp_path / "run", "--image", image, "--index-bytes-max", ROOM) as cluster:
        assert cluster.description.engine == run
        replicas = cluster.description.replicas(cluster.place)
        assert all(replicas.state(number) == "running" for number in range(3))
        cluster.wait_whole()
        before = cluster.counters_of_all()
        trial = Trial(cluster, RATE)
        check(trial, trial.run("killed", SECONDS_KILLED, killed))
        assert increase(before, cluster.counters_of_all(), "medsearch_shard_requests_total") > 0
        cluster.do("freeze", 2)
        assert not cluster.is_ready(2)
        cluster.do("thaw", 2)
        cluster.wait_whole()
        cluster.do("stop", 2)
        with pytest.raises(RuntimeError, match="there is no image"):
            cluster.do("start", 2, "--program", "localhost/medsearch-there-is-none")
        cluster.do("start", 2, "--program", image)
    assert [replicas.state(number) for number in range(3)] == [""] * 3, "nothing is left when the cluster has ended"
