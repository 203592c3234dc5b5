"""Every problem is said in clear words, and the next search works."""

import pytest

from files import gradient_dicom
from steps import TILES, refuse, send_files, upload

pytestmark = pytest.mark.may_fail

SLUGS = [
    "invalid-request",
    "invalid-image",
    "unsupported-media",
    "constant-image",
    "too-large",
    "too-many-pixels",
    "missing-image",
    "several-images",
    "unknown-class",
    "not-found",
    "pixels-not-kept",
    "space-mismatch",
    "wrong-dimension",
    "forbidden-origin",
    "method-not-allowed",
    "overloaded",
    "storage-full",
    "unavailable",
    "deadline",
    "version-ahead",
    "internal",
]


def problem(page):
    page.wait_for_selector(".problem")
    return page.get_attribute(".problem", "data-problem")


def test_not_an_image(page, tmp_path, image_path):
    path = tmp_path / "notes.txt"
    path.write_text("no pixels here\n" * 50)
    page.set_input_files("#file", path)
    assert problem(page) == "unsupported-media"
    assert page.evaluate("document.activeElement.className") == "problem"
    upload(page, image_path)
    assert page.locator(".problem").count() == 0


def test_earlier_answer_is_not_taken_for_the_new_images(page, tmp_path, image_path):
    upload(page, image_path)
    title, verdict = page.title(), page.inner_text("#verdict-title")
    path = tmp_path / "notes.txt"
    path.write_text("no pixels here\n" * 50)
    page.set_input_files("#file", path)
    problem(page)
    assert "belongs to the earlier image" in page.inner_text(".problem")
    assert page.locator("#earlier").is_visible()
    assert verdict not in page.title() and page.title().startswith("This is not an image")
    assert page.evaluate("document.getElementById('answer').inert")
    page.wait_for_function("() => getComputedStyle(document.getElementById('answer')).opacity < 0.4")

    page.get_by_role("button", name="Back to the earlier answer").click()
    assert page.title() == title
    assert page.locator("#earlier").is_hidden()
    assert page.evaluate("document.activeElement.id") == "verdict-title"
    send_files(page, "drop", ("a.txt", b"a"), ("b.txt", b"b"))
    assert problem(page) == "several-images"
    assert page.locator("#earlier").is_visible(), "so it is when the new images never got to the server"
    upload(page, image_path)
    page.wait_for_selector("#earlier", state="hidden")
    assert not page.evaluate("document.getElementById('answer').inert")


def test_same_image_that_fails_again_keeps_its_answer(page, image_path):
    upload(page, image_path)
    title = page.title()
    refuse(page, "overloaded", 429)
    page.click("#options summary")
    page.click("#apply")
    assert problem(page) == "overloaded"
    assert page.locator("#earlier").is_hidden() and page.title() == title


def test_truncated_image(page, image_bytes):
    send_files(page, "drop", ("cut.png", image_bytes[: len(image_bytes) // 2]))
    assert problem(page) == "invalid-image"


@pytest.mark.parametrize(
    "detail, words",
    [
        (
            "the transfer syntax `1.2.840.10008.1.2.4.110` (JPEG XL Lossless) is not read",
            ["compressed in a way", "1.2.840.10008.1.2.4.110 (JPEG XL Lossless) is not read", "uncompressed"],
        ),
        ("the photometric interpretation is unknown", ["DICOM", "The photometric interpretation is unknown."]),
    ],
)
def test_dicom_that_is_not_read_is_called_dicom(page, tmp_path, detail, words):
    refuse(page, "unsupported-media", 415, detail=detail)
    path = tmp_path / "IM0001"
    path.write_bytes(gradient_dicom(96, 64))
    page.set_input_files("#file", path)
    assert problem(page) == "unsupported-media"
    said = page.inner_text(".problem")
    assert all(each in said for each in words) and "not an image" not in said


def test_too_large(page, archive, tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(archive["limits"]["upload_bytes_max"] + 1)
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.set_input_files("#file", path)
    assert problem(page) == "too-large"
    assert not any("/v1/search" in url for url in sent), "a file above the limit is not sent at all"


def test_two_images(page, image_bytes):
    send_files(page, "drop", ("a.png", image_bytes), ("b.png", image_bytes))
    assert problem(page) == "several-images"


def test_busy_then_again(page, image_path):
    refuse(page, "overloaded", 429, **{"retry-after": "3"})
    page.set_input_files("#file", image_path)
    assert problem(page) == "overloaded"
    assert "3 s" in page.inner_text(".problem")
    page.unroute("**/v1/search*")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(TILES)


def test_no_connection(page, image_path):
    page.route("**/v1/search*", lambda route: route.abort())
    page.set_input_files("#file", image_path)
    assert problem(page) == "network"
    assert "can't be reached" in page.inner_text(".problem")


def test_no_options_before_the_archive_is_known(page):
    page.route("**/v1/archive", lambda route: route.abort())
    page.reload()
    assert problem(page) == "network"
    assert page.locator("#options").is_hidden()
    page.unroute("**/v1/archive")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("#options", state="visible")


@pytest.mark.parametrize("slug", SLUGS)
def test_each_problem_has_its_words(page, image_path, slug):
    refuse(page, slug, 500 if slug == "internal" else 400)
    page.set_input_files("#file", image_path)
    assert problem(page) == slug
    heading = page.inner_text(".problem h2")
    assert heading and (slug == "internal") == (heading == "Something went wrong on the server")
    assert "r-1" in page.inner_text(".problem")


def test_a_gateways_own_error_page(page, image_path):
    page.route(
        "**/v1/search*", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")
    )
    page.set_input_files("#file", image_path)
    assert problem(page) == "unavailable"
