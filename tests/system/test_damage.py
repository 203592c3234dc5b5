"""A flipped byte in any object is caught when it is loaded, named in the log, counted, and healed from elsewhere."""

import json
import shutil
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from conftest import Server, fixed_secret, in_bucket, medsearch, png

# Small classes have graphs here.
GRAPHS = ("--exact-rows-max", "5")


@pytest.fixture(scope="module")
def made(synthetic, model, tmp_path_factory):
    """A folder with an archive that has an object of every kind, and its backup."""
    folder = tmp_path_factory.mktemp("damage")
    embeddings, archive = folder / "embeddings", fixed_secret(folder / "archive")
    medsearch("embed", "--data", synthetic, "--out", embeddings, "--model", model)
    medsearch("index", "--embeddings", embeddings, "--data", synthetic, "--model", model, "--archive", archive, *GRAPHS)
    medsearch("fit", "--archive", archive, "--components", 16, "--force", *GRAPHS)
    medsearch("evaluate", "--archive", archive, "--resamples", 50, "--keep")
    medsearch("backup", "--archive", archive, "--to", folder / "backup")
    return folder


@pytest.fixture
def archive(made, tmp_path):
    """A copy of it, to be spoilt."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "archive"


def newest(archive: Path) -> Path:
    """The manifest of the newest version."""
    return max((archive / "manifest").iterdir())


def one_of_each_kind(archive: Path) -> dict[str, Path]:
    """A file of every kind of object that the newest version has."""
    manifest = json.loads(newest(archive).read_text())
    names = [entry["object"] for kind in ("rows", "graphs", "packs") for entry in manifest[kind]]
    names += [manifest[kind]["object"] for kind in ("metric", "calibration", "evaluation")]
    kinds = {name.split("/")[0]: archive / name for name in names}
    kinds["models"] = archive / f"models/{manifest['model']['digest']}/model.pt"
    kinds["manifest"] = newest(archive)
    assert len(kinds) == 9, kinds
    return kinds


def flip(path: Path) -> bytes:
    """Changes one bit in the middle, in place, for who has the file open too, and gives back what it was."""
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(whole) // 2)
        file.write(bytes([whole[len(whole) // 2] ^ 1]))
    return whole


def series(server, name) -> float:
    """Sum of a series."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def damage(server) -> float:
    """Objects of the storage that were found damaged."""
    return series(server, 'medsearch_storage_damage_total{place="storage"}')


def answers(server):
    """What some searches are answered, without what differs from one time to the next."""
    found = []
    for seed in range(5):
        _, answer = server.post_image("/v1/search", png(seed), exclude="none")
        found.append({key: answer[key] for key in ("neighbors", "nearest_per_class", "suggestion", "metric")})
    return found


def test_a_flipped_byte_is_caught_named_and_counted(archive, tmp_path):
    """Of each kind: a server that can't go without does not start, any other starts, says so, and answers."""
    ids = None
    for kind, path in one_of_each_kind(archive).items():
        name = str(path.relative_to(archive))
        whole = flip(path)
        verified = medsearch("verify", "--archive", archive, check=False)
        assert verified.returncode != 0 and name in verified.stdout + verified.stderr, (kind, verified)
        if kind in ("rows", "metrics", "models", "manifest"):
            command = ("serve", "--archive", archive, "--listen", "127.0.0.1:0")
            refused = medsearch(*command, check=False, timeout=60)
            assert refused.returncode == 1 and name in refused.stderr, (kind, refused.stderr)
        else:
            log = tmp_path / f"log-{kind}"
            server = Server(archive, *GRAPHS, log=log)
            try:
                _, answer = server.post_image("/v1/search", png(1), k=100)
                ids = ids or [neighbor["id"] for neighbor in answer["neighbors"]]
                assert [neighbor["id"] for neighbor in answer["neighbors"]] == ids, kind
                look_at(server, kind, ids)
                assert damage(server) >= 1, kind
                named = [line for line in log.read_text().splitlines() if name in line]
                assert any('"ERROR"' in line or '"WARN"' in line for line in named), (kind, named)
                if kind == "graphs":
                    assert series(server, "medsearch_archive_lost_graphs") == 1
                if kind == "calibrations":
                    assert "can't be read" in answer["suggestion"]["calibration"]["why_not"]
            finally:
                server.stop()
        path.write_bytes(whole)
    assert "0 damaged" in medsearch("verify", "--archive", archive).stdout


def look_at(server, kind, ids):
    """What is fetched when somebody asks is found damaged then."""
    paths = {"thumbnails": "/v1/images/{}/thumbnail", "pixels": "/v1/images/{}/rendered"}
    statuses = []
    for identity in ids if kind in paths else ():
        try:
            with urllib.request.urlopen(server.url + paths[kind].format(identity), timeout=10) as answer:
                statuses.append(answer.status)
        except urllib.error.HTTPError as problem:
            assert json.load(problem)["type"] == "/problems/internal"
            statuses.append(problem.code)
    # One picture of the pack, which need not be among these.
    assert set(statuses) <= {200, 500}
    if kind in paths and 500 not in statuses:
        pytest.fail(f"the flipped byte in {kind} is in no picture that was looked at")
    if kind == "evaluations":
        server.get("/v1/model/card")


def test_a_damaged_graph_is_built_again(archive, tmp_path):
    """A graph is a cache: its rows are there."""
    graph = one_of_each_kind(archive)["graphs"]
    flip(graph)
    server = Server(archive, *GRAPHS, log=tmp_path / "log")
    try:
        before = answers(server)
        assert series(server, "medsearch_archive_lost_graphs") == 1
        said = medsearch("compact", "--archive", archive, *GRAPHS).stdout
        end = time.monotonic() + 5
        while series(server, "medsearch_archive_lost_graphs") != 0:
            assert time.monotonic() < end, said
            time.sleep(0.1)
        assert answers(server) == before
    finally:
        server.stop()
    assert "0 damaged" in medsearch("verify", "--archive", archive).stdout
    names = [entry["object"] for entry in json.loads(newest(archive).read_text())["graphs"]]
    assert names and f"graphs/{graph.name}" not in names


def test_a_running_server_outlives_what_is_spoilt_under_it(archive, tmp_path):
    """Its newest manifest is spoilt: nothing else opens the archive, until the server has written the next version."""
    server = Server(archive, *GRAPHS, log=tmp_path / "log")
    try:
        before = answers(server)
        flip(newest(archive))
        refused = medsearch("verify", "--archive", archive, check=False)
        assert refused.returncode == 1 and "checksum" in refused.stderr, refused.stderr
        assert answers(server) == before
        status, receipt = server.post_image("/v1/images", png(77), **{"class": "Normal"})
        assert status == 201, receipt
        assert "0 damaged" in medsearch("verify", "--archive", archive).stdout
        server.get(f"/v1/images/{receipt['id']}")
    finally:
        server.stop()


def test_a_reader_that_meets_a_damaged_version_answers_in_the_one_before(archive, tmp_path):
    """It says which object it is, counts it, and goes on by itself once the object is whole again."""
    writer, log = Server(archive, *GRAPHS), tmp_path / "log"
    reader = Server(archive, *GRAPHS, "--read-only", log=log)
    try:
        before = answers(reader)
        images = reader.get("/v1/archive")["images"]
        reader.process.send_signal(signal.SIGSTOP)
        known = rows_of(archive)
        assert writer.post_image("/v1/images", png(78), **{"class": "Normal"})[0] == 201
        (name,) = rows_of(archive) - known
        whole = flip(archive / name)
        reader.process.send_signal(signal.SIGCONT)
        end = time.monotonic() + 10
        while damage(reader) == 0:
            assert time.monotonic() < end, "it has not met the damage"
            time.sleep(0.1)
        assert answers(reader) == before
        named = [line for line in log.read_text().splitlines() if name in line]
        assert any('"ERROR"' in line or '"WARN"' in line for line in named), log.read_text()[-2000:]
        (archive / name).write_bytes(whole)
        end = time.monotonic() + 30
        while reader.get("/v1/archive")["images"] == images:
            assert time.monotonic() < end, "it does not take up the version that is whole again"
            time.sleep(0.1)
    finally:
        reader.process.send_signal(signal.SIGCONT)
        reader.stop()
        writer.stop()


def rows_of(archive: Path) -> set[str]:
    """Names of the objects with rows of the newest version."""
    return {entry["object"] for entry in json.loads(newest(archive).read_text())["rows"]}


def test_what_nothing_else_heals_comes_back_from_the_backup(archive, tmp_path):
    """Every object of the archive is spoilt, and the restored one answers as it did."""
    server = Server(archive, *GRAPHS)
    before = answers(server)
    server.stop()
    for path in one_of_each_kind(archive).values():
        flip(path)
    restored = tmp_path / "restored"
    medsearch("restore", "--from", tmp_path / "backup", "--archive", restored)
    Path(f"{restored}.secret").write_bytes(Path(f"{archive}.secret").read_bytes())
    Path(f"{restored}.secret").chmod(0o600)
    assert "0 damaged" in medsearch("verify", "--archive", restored).stdout
    server = Server(restored, *GRAPHS)
    try:
        assert answers(server) == before
    finally:
        server.stop()


def test_what_a_bucket_lost_is_healed_from_its_backup_beside_a_server(bucket, synthetic, tmp_path):
    """The server goes on with what it has loaded; afterwards one without a cache starts, and answers the same."""
    place = in_bucket(bucket, synthetic, tmp_path)
    bucket.run("backup", "--archive", place.archive, "--to", tmp_path / "backup")
    server = place.serve()
    before = answers(server)
    names = [name for name in bucket.objects("hospital/x-rays").rglob("*") if name.is_file()]
    spoilt = [path for path in names if path.parent.name in ("rows", "thumbnails", "pixels")]
    assert len(spoilt) >= 3
    for path in spoilt:
        flip(path)
    assert answers(server) == before
    refused = place.run("serve", "--listen", "127.0.0.1:0", "--model", "thumbnail", check=False)
    assert refused.returncode == 1 and any(path.name in refused.stderr for path in spoilt)
    healed = bucket.run("heal", "--archive", place.archive, "--from", tmp_path / "backup").stdout
    assert all(f"healed: `{path.parent.name}/{path.name}`" in healed for path in spoilt), healed
    assert f"{len(spoilt)} healed, 0 damaged" in healed
    assert "0 damaged" in place.run("verify").stdout
    assert answers(server) == before
    server.stop()
    server = place.serve()
    assert answers(server) == before
    server.stop()


def test_a_bucket_is_deleted_and_restored_with_the_same_answers(bucket, synthetic, tmp_path):
    """Nothing of it is needed but its backup and the secret."""
    place = in_bucket(bucket, synthetic, tmp_path)
    server = place.serve()
    for seed in range(100, 105):
        assert server.post_image("/v1/images", png(seed), **{"class": "Normal"})[0] == 201
    before = answers(server)
    server.stop()
    bucket.run("backup", "--archive", place.archive, "--to", tmp_path / "backup")
    bucket.run("backup", "--archive", place.archive, "--to", "s3://bucket/backup")
    for backup in (tmp_path / "backup", "s3://bucket/backup"):
        for path in sorted(bucket.objects("hospital").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        assert place.run("verify", check=False).returncode == 1
        bucket.run("restore", "--from", backup, "--archive", place.archive)
        assert "0 damaged" in place.run("verify").stdout
        server = place.serve()
        assert answers(server) == before, backup
        assert server.post_image("/v1/images", png(200), **{"class": "Normal"})[0] in (200, 201)
        server.stop()


def test_a_damaged_object_in_a_bucket_is_served_from_the_cache(bucket, synthetic, tmp_path):
    """And a damaged file of the cache is fetched again."""
    place = in_bucket(bucket, synthetic, tmp_path)
    cache = ("--cache", tmp_path / "cache")
    server = place.serve(0, *cache)
    before = answers(server)
    server.stop()
    (kept,) = [path for path in (tmp_path / "cache").iterdir() if path.name.startswith("rows-")]
    whole = flip(kept)
    server = place.serve(0, *cache, log=tmp_path / "log")
    assert answers(server) == before
    assert series(server, 'medsearch_storage_damage_total{place="cache"}') == 1 and damage(server) == 0
    assert kept.name.replace("-", "/", 1) in (tmp_path / "log").read_text()
    server.stop()
    assert kept.read_bytes() == whole

    # Now the bucket's own: whoever has the cache answers, `verify` names it, whoever has none does not start.
    rows = bucket.objects("hospital/x-rays") / kept.name.replace("-", "/", 1)
    flip(rows)
    server = place.serve(0, *cache)
    assert answers(server) == before
    server.stop()
    assert rows.name in place.run("verify", check=False).stdout
    refused = place.run("serve", "--listen", "127.0.0.1:0", "--model", "thumbnail", check=False)
    assert refused.returncode == 1 and rows.name in refused.stderr
