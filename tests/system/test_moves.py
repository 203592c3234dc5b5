"""An archive moves to another model while it is searched and written to."""

import json
import threading
import time

from conftest import Server, medsearch, png

LOADED_WITHIN_S = 60


class Clients:
    """One that searches with images and one that adds some, until they are told to stop."""

    def __init__(self, server):
        self.server = server
        self.ended = threading.Event()
        self.searches, self.added, self.problems = [], {}, []
        self.threads = [threading.Thread(target=work) for work in (self.search, self.add)]
        for thread in self.threads:
            thread.start()

    def search(self):
        """The space of every answer, in turn."""
        number = 0
        while not self.ended.is_set():
            status, answer = self.server.post_image("/v1/search", png(number % 7), k=5)
            if status != 200 or len(answer["neighbors"]) != 5:
                self.problems.append((status, answer))
            else:
                self.searches.append(answer["space"])
            number += 1

    def add(self):
        """Sends again what was refused for the time being, as a client of a PACS does."""
        number = 1000
        while not self.ended.is_set():
            status, answer = self.server.post_image("/v1/images", png(number), **{"class": "COVID"})
            if status == 503:
                time.sleep(0.2)
                continue
            if status != 201:
                self.problems.append((status, answer))
            self.added[answer["id"]] = number
            number += 1
            time.sleep(0.05)

    def stop(self):
        """Waits for both."""
        self.ended.set()
        for thread in self.threads:
            thread.join()


def until(holds, what):
    """Waits for something."""
    end = time.monotonic() + LOADED_WITHIN_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def neighbors(server, number):
    """What a search says about which images are similar, and how much."""
    status, answer = server.post_image("/v1/search", png(number), k=10)
    assert status == 200, answer
    return answer["space"], [(neighbor["id"], neighbor["similarity"]) for neighbor in answer["neighbors"]]


def test_an_archive_moves_to_another_model_while_it_is_used(small_archive, model, serve):
    # Told which model: it goes on with the one that the archive holds.
    server = serve(small_archive, "--model", "thumbnail")
    before = server.get("/v1/archive")
    clients = Clients(server)
    try:
        until(lambda: len(clients.searches) > 5 and len(clients.added) > 2, "no searches and writes")
        run = medsearch("reembed", "--archive", small_archive, "--model", model)
        assert "images embedded" in run.stdout
        until(lambda: clients.searches[-1] != before["space"]["id"], "the new model does not answer")
        known = len(clients.added)
        until(lambda: len(clients.added) > known + 2, "no writes by the new model")
    finally:
        clients.stop()
    assert not clients.problems, clients.problems[:3]
    # One space after the other, never back.
    assert len(set(clients.searches)) == 2
    assert clients.searches == sorted(clients.searches, key=lambda space: space != before["space"]["id"])
    after = server.get("/v1/archive")
    assert after["space"]["id"] == clients.searches[-1] == json.loads((model / "model.json").read_text())["space"]
    assert after["images"] == before["images"] + len(clients.added)
    # What a server that starts now finds is the same, and every image that was taken is there.
    fresh = Server(small_archive)
    try:
        for number in (1, 2, 1000):
            assert neighbors(fresh, number) == neighbors(server, number)
        for image in clients.added:
            assert fresh.get(f"/v1/images/{image}")["class"] == "COVID"
    finally:
        fresh.stop()
    assert "0 damaged" in medsearch("verify", "--archive", small_archive).stdout
    again = medsearch("reembed", "--archive", small_archive, "--model", model)
    assert "0 images embedded" in again.stdout


def test_images_without_pictures_are_named_before_anything_is_done(synthetic, model, tmp_path):
    medsearch("embed", "--data", synthetic, "--out", tmp_path / "vectors", "--model", "thumbnail")
    bare = tmp_path / "bare"
    where = ("--embeddings", tmp_path / "vectors", "--model", "thumbnail", "--archive", bare)
    medsearch("index", *where, "--synthetic")
    refused = medsearch("reembed", "--archive", bare, "--model", model, check=False)
    assert refused.returncode == 1
    assert "not kept" in refused.stderr and "--data" in refused.stderr, refused.stderr
    # With the files it goes, and gives the vectors that embedding them gives.
    medsearch("reembed", "--archive", bare, "--model", model, "--data", synthetic)
    medsearch("embed", "--data", synthetic, "--out", tmp_path / "wanted", "--model", model)
    medsearch("export", "--archive", bare, "--out", tmp_path / "got")
    assert vectors(tmp_path / "got").keys() == vectors(tmp_path / "wanted").keys()
    wanted = vectors(tmp_path / "wanted")
    for file, vector in vectors(tmp_path / "got").items():
        cosine = vector @ wanted[file] / (sum(vector**2) * sum(wanted[file] ** 2)) ** 0.5
        assert cosine > 0.9999, file


def vectors(folder):
    """Vectors of a folder in the interchange form, by file."""
    import numpy as np

    rows = {}
    for described in folder.glob("*.json"):
        stored = np.load(described.with_suffix(".npy"))
        records = json.loads(described.read_text())["records"]
        rows |= {record["file"]: vector for record, vector in zip(records, stored, strict=True)}
    return rows
