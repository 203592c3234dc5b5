"""Another domain than chests, end to end: MR slices by plane. And what belongs in neither archive."""

import json
import re
import shutil

import pytest

from conftest import ROOT, fixed_secret, medsearch, script

PLANES = ["axial", "coronal", "sagittal"]
# What no rule, message or word of the page may know. A class or data set may be called so, in examples of the API.
CHEST_WORDS = re.compile(r"chest|covid|lungs?\b|lung_|thora|pneumon|radiograph", re.IGNORECASE)
EXAMPLES = {"src/http/wire/answer.rs": 'example = "7 of 10 labelled COVID"'}
UNREACHABLE = 4


def made(name, *arguments):
    """Runs a script that needs packages with pictures, or skips the test by name."""
    run = script(name, *arguments, check=False)
    if run.returncode == UNREACHABLE:
        pytest.skip(f"the packages with pictures can't be fetched: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    return run


@pytest.fixture(scope="session")
def mr(tmp_path_factory, model):
    """(data, embeddings, archive) of 138 slices of four heads."""
    folder = tmp_path_factory.mktemp("mr")
    made("make_mr_archive.py", "--out", folder / "data")
    medsearch("embed", "--data", folder / "data", "--out", folder / "embeddings", "--model", model)
    where = ("--embeddings", folder / "embeddings", "--data", folder / "data", "--model", model)
    medsearch("index", *where, "--archive", fixed_secret(folder / "archive"))
    return folder / "data", folder / "embeddings", folder / "archive"


def fitted(archive, folder):
    """A calibrated copy."""
    shutil.copytree(archive, folder)
    shutil.copy(f"{archive}.secret", f"{folder}.secret")
    print(medsearch("fit", "--archive", folder, "--no-metric").stdout)
    return folder


def test_mr_slices_are_an_archive_like_any_other(mr, serve, tmp_path):
    data, embeddings, archive = mr
    server = serve(archive)
    about = server.get("/v1/archive")
    assert [each["name"] for each in server.get("/v1/classes")["classes"]] == PLANES
    assert about["images"] == len(list(data.glob("*/*.png"))) == 138

    for plane in PLANES:
        image = min((data / plane).glob("mni152-*")).read_bytes()
        status, answer = server.post_image("/v1/search", image, exclude="none", k=5)
        nearest = answer["neighbors"][0]
        assert status == 200 and nearest["class"] == plane and nearest["similarity"] > 0.999
        assert {each["class"] for each in answer["nearest_per_class"]} == set(PLANES)
        assert answer["suggestion"]["class"] in [*PLANES, None] and answer["suggestion"]["reason"]
        # A volume is a patient: without exclusion it comes back once.
        assert len({neighbor["patient"] for neighbor in answer["neighbors"]}) == len(answer["neighbors"]) <= 4

    report = tmp_path / "e.json"
    where = ("--embeddings", embeddings, "--data", data, "--model", ROOT / "models/efficientnet_lite0")
    print(medsearch("evaluate", *where, "--controls", "-k", 3, "--resamples", 100, "--json", report).stdout)
    evaluation = json.loads(report.read_text())
    assert [each["class"] for each in evaluation["protocol"]["classes"]] == PLANES
    assert evaluation["protocol"]["groups"] == 4
    assert evaluation["decisions"]["balanced_accuracy"]["value"] > 0.5
    whole, *blacked_out = evaluation["controls"]["rows"]
    assert whole["remains"] == 1 and len(blacked_out) == 2
    assert evaluation["controls"]["queries"] == 138


def test_slices_by_region_are_found_in_other_heads(model, tmp_path):
    """The most similar slices of other heads show the same part of the head, more often than by chance.

    A shoulder and an abdomen are one DICOM image each: no other shows them. A search of all finds them.
    """
    data, report = tmp_path / "data", tmp_path / "e.json"
    made("make_mr_archive.py", "--out", data, "--by", "region", "--count", 24)
    medsearch("embed", "--data", data, "--out", tmp_path / "e", "--model", model)
    few = ("-k", 5, "--vote", "majority", "--seeds", 1, "--resamples", 50, "--json", report)
    print(medsearch("evaluate", "--embeddings", tmp_path / "e", "--data", data, *few).stdout)
    evaluation = json.loads(report.read_text())
    classes = {each["class"]: each["images"] for each in evaluation["protocol"]["classes"]}
    assert list(classes) == ["abdomen", "base", "middle", "shoulder", "vertex"]
    assert classes["abdomen"] == classes["shoulder"] == 1 and evaluation["protocol"]["groups"] == 6
    found = {each["class"]: each["sensitivity"]["value"] for each in evaluation["decisions"]["per_class"]}
    assert sum(found[part] for part in ("base", "middle", "vertex")) / 3 > 0.45, found
    archive = tmp_path / "archive"
    medsearch("index", "--embeddings", tmp_path / "e", "--data", data, "--model", model, "--archive", archive)
    (shoulder,) = (data / "shoulder").iterdir()
    answer = json.loads(medsearch("search", "--archive", archive, shoulder, "--json", "--include-same").stdout)
    assert answer["neighbors"][0]["class"] == "shoulder" and answer["neighbors"][0]["similarity"] > 0.999


def test_the_page_shows_the_archives_own_classes(mr, serve):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    _, _, archive = mr
    server = serve(archive)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(server.url)
        for plane in PLANES:
            page.get_by_text(plane, exact=False).first.wait_for(state="attached", timeout=10_000)
        assert not CHEST_WORDS.search(page.inner_text("body"))
        browser.close()


def without_tests(text):
    """Rust without comments and without the tests at the end of a file."""
    return re.sub(
        r"^\s*//.*$", "", re.split(r"#\[cfg\(test\)\]\n(?:pub(?:\(\w+\))? )?mod \w+ \{", text)[0], flags=re.MULTILINE
    )


def test_nothing_in_the_program_knows_a_chest():
    files = [
        path
        for path in (ROOT / "src").rglob("*.rs")
        if not {"tests", "testing", "fake"} & {path.stem, *path.relative_to(ROOT / "src").parts}
    ]
    files += [path for path in (ROOT / "frontend").rglob("*") if path.suffix in {".js", ".html", ".css", ".svg"}]
    assert len(files) > 100
    found = []
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        text = without_tests(path.read_text()) if path.suffix == ".rs" else path.read_text()
        if name in EXAMPLES:
            assert EXAMPLES[name] in text
            text = text.replace(EXAMPLES[name], "")
        found += [f"{name}: {line.strip()}" for line in text.splitlines() if CHEST_WORDS.search(line)]
    assert not found, "\n".join(found)


def unlike(server, pictures):
    """The share that is out of distribution; every one of them gets neighbors."""
    answers = [server.post_image("/v1/search", path.read_bytes())[1] for path in pictures]
    assert all(answer["neighbors"] for answer in answers)
    return sum(answer["suggestion"]["status"] == "out_of_distribution" for answer in answers) / len(answers)


def test_a_slice_does_not_belong_among_films(mr, three_class, serve, tmp_path):
    data, _, _ = mr
    _, _, chests = three_class
    slices = [path for plane in PLANES for path in sorted((data / plane).glob("*.png"))[::6]]
    share = unlike(serve(fitted(chests, tmp_path / "chests")), slices)
    print(f"{share:.2f} of {len(slices)} slices are unlike the films")
    assert share >= 0.9


def test_a_film_does_not_belong_among_slices(mr, three_class, model, serve, tmp_path):
    """Four patients are too few to calibrate on: here each slice stands for a patient of its own."""
    data, _, _ = mr
    films, _, _ = three_class
    for plane in PLANES:
        shutil.copytree(data / plane, tmp_path / "data" / plane)
    medsearch("embed", "--data", tmp_path / "data", "--out", tmp_path / "e", "--model", model)
    where = ("--embeddings", tmp_path / "e", "--data", tmp_path / "data", "--model", model)
    medsearch("index", *where, "--archive", fixed_secret(tmp_path / "each"))
    pictures = sorted(films.glob("*/*.*"))[::10]
    share = unlike(serve(fitted(tmp_path / "each", tmp_path / "fitted")), pictures)
    print(f"{share:.2f} of {len(pictures)} films are unlike the slices")
    assert share >= 0.9


def test_families_are_the_same_for_one_seed_and_say_what_is_independent(synthetic, tmp_path):
    for folder in ("one", "two"):
        made("make_other_images.py", "--out", tmp_path / folder, "--count", 6, "--chest", synthetic)
    counts = json.loads((tmp_path / "one.families.json").read_text())
    assert set(counts) >= {"photographs", "text", "noise", "ct", "mr", "other-medical", "chest-inverted"}
    for family, count in counts.items():
        images = sorted((tmp_path / "one" / family).iterdir())
        assert len(images) == count["images"] == 6 and 1 <= count["independent"] <= 6
        assert len({path.read_bytes() for path in images}) == 6
        for path in images:
            assert path.read_bytes() == (tmp_path / "two" / family / path.name).read_bytes()
