"""Every problem is said in clear words, and the next search works."""

import pytest

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


def test_truncated_image(page, image_bytes):
    send_files(page, "drop", ("cut.png", image_bytes[: len(image_bytes) // 2]))
    assert problem(page) == "invalid-image"


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
