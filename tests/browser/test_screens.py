"""Screenshots to look at: start, answer and comparison on a phone and a desktop, light and dark."""

import os
from pathlib import Path

import pytest

from steps import TILES, images_painted, upload

SHOTS = os.environ.get("MEDSEARCH_SHOTS")


@pytest.mark.skipif(not SHOTS, reason="MEDSEARCH_SHOTS names no folder")
@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("name, width, height", [("phone", 390, 844), ("desktop", 1440, 900)])
def test_screens(open_page, archive, image_path, name, width, height, theme):
    folder = Path(SHOTS)
    folder.mkdir(parents=True, exist_ok=True)
    page = open_page(width, height, color_scheme=theme)

    def shoot(what, **options):
        page.wait_for_timeout(600)  # the larger images come in after the thumbnails
        page.screenshot(path=folder / f"{name}-{theme}-{what}.png", **options)

    if archive["demo"]:
        images_painted(page, "#samples")
    shoot("start")
    if archive["demo"]:
        page.click("#sample-list li:nth-child(2) button")
        page.wait_for_selector("#neighbors .tile")
    else:
        upload(page, image_path)
    images_painted(page, "#answer")
    page.mouse.move(0, 0)
    shoot("answer")
    page.click(".explain summary")
    page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    shoot("whole", full_page=True)
    page.click(f"{TILES} .open")
    images_painted(page, "#compare")
    shoot("compare")
