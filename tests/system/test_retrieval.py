"""Real X-rays through the whole system, held against numpy and against the Python way."""

import json

from conftest import medsearch, script


def test_leave_one_out_equals_numpy(three_class, serve, tmp_path):
    data, embeddings, archive = three_class
    server = serve(archive)
    for exact in ([], ["--exact", "--near-identical", "keep"]):
        run = script(
            "leave_one_out.py",
            "--url",
            server.url,
            "--data",
            data,
            "--embeddings",
            embeddings,
            "--json",
            tmp_path / "f",
            *exact,
        )
        figures = json.loads((tmp_path / "f").read_text())["figures"]
        print("leave-one-out", exact, figures)
        assert figures["images"] == 251 and figures["lists_that_differ"] == figures["votes_that_differ"] == 0, (
            run.stderr
        )
        assert figures["balanced_accuracy"] > 0.8


def test_graph_finds_what_the_scan_finds(three_class, serve, tmp_path):
    """With the exact threshold at 0 every class is searched by its graph; on the real set recall is 1."""
    data, embeddings, _ = three_class
    archive = tmp_path / "archive"
    medsearch("index", "--embeddings", embeddings, "--archive", archive, "--exact-rows-max", 0, "--show-file-names")
    server = serve(archive, "--exact-rows-max", 0, "--model", three_class_model(archive))
    run = script(
        "leave_one_out.py", "--url", server.url, "--data", data, "--embeddings", embeddings, "--json", tmp_path / "f"
    )
    figures = json.loads((tmp_path / "f").read_text())["figures"]
    assert figures["lists_that_differ"] == 0, run.stderr
    image = next((data / "COVID").iterdir()).read_bytes()
    _, answer = server.post_image("/v1/search", image)
    assert set(answer["path"].values()) == {"hnsw"}
    _, answer = server.post_image("/v1/search", image, exact="true")
    assert set(answer["path"].values()) == {"exact"}


def three_class_model(_archive):
    """The model the embeddings were made with: this archive holds none, so it is given."""
    from conftest import MODEL

    return MODEL


def test_python_and_rust_embed_alike(three_class, model, tmp_path):
    data, embeddings, _ = three_class
    script("calculate_embeddings.py", "--data", data, "--out", tmp_path / "python", "--model", model)
    print(script("compare_embeddings.py", tmp_path / "python", embeddings).stdout)


def test_hard_files_embed_alike(model, tmp_path):
    """16-bit, palette, alpha, interlaced PNG; CMYK, progressive, rotated JPEG; both polarities and frames of DICOM."""
    data = tmp_path / "golden"
    script("make_golden.py", "--out", data)
    expected = json.loads((data / "expected.json").read_text())
    (data / "expected.json").unlink()
    all_frames = sum(file.get("frames", 1) for file in expected.values())
    assert all_frames > len(expected)
    for frames, images in (("first", len(expected)), ("middle", len(expected)), ("all", all_frames)):
        rust, python = tmp_path / f"rust-{frames}", tmp_path / f"python-{frames}"
        options = ("--data", data, "--model", model, "--frames", frames, "--out")
        medsearch("embed", *options, rust, check=False)
        script("calculate_embeddings.py", *options, python, check=False)
        print(frames, script("compare_embeddings.py", python, rust).stdout)
        broken = [json.loads((side / "_broken.json").read_text()) for side in (rust, python)]
        kinds = [{(image["file"], image.get("frame", 1), image["type"]) for image in side} for side in broken]
        assert kinds[0] == kinds[1]
        embedded = json.loads((rust / "_unlabelled.json").read_text())["records"]
        assert len(embedded) + len(broken[0]) == images
        # One file is there twice, under a wrong name too.
        content = {(record["sha256"], record.get("frame", 1)) for record in embedded}
        assert len({record["id"] for record in embedded}) == len(content) == len(embedded) - 1


def test_export_gives_back_what_went_in(three_class, tmp_path):
    import numpy as np

    _, embeddings, archive = three_class
    medsearch("export", "--archive", archive, "--out", tmp_path / "back")
    for description in sorted(embeddings.glob("*.json")):
        if description.name == "_broken.json":
            continue
        before, after = (
            json.loads((folder / description.name).read_text()) for folder in (embeddings, tmp_path / "back")
        )
        assert before["records"] == after["records"]
        assert before["space"] == after["space"]
        one, other = (np.load(folder / f"{description.stem}.npy") for folder in (embeddings, tmp_path / "back"))
        assert one.dtype == other.dtype == np.float32 and np.array_equal(one, other)
