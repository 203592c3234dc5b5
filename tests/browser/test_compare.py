"""Side by side, and on from there."""

import pytest

from steps import TILES, change_answer, images_painted, refuse, search_case, upload

SLIDES = "[...document.querySelectorAll('.slide')].map((slide) => slide.style.{})"


def open_first(page):
    page.focus(f"{TILES} .open")
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare[open]")
    images_painted(page, "#compare")


def test_keys_step_zoom_and_close(page, image_path):
    upload(page, image_path)
    open_first(page)
    assert page.inner_text("#compare-title").startswith("Case 1 of")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#compare-title").startswith("Case 2 of")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#compare-title").startswith(f"Case {page.locator(TILES).count()} of")

    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowLeft")
    query, found = page.evaluate(SLIDES.format("transform"))
    assert query == found and "scale(1.25)" in query and not query.startswith("translate(0%")
    page.keyboard.press("0")
    assert page.evaluate(SLIDES.format("transform"))[0].endswith("scale(1)")

    page.keyboard.press("Escape")
    page.wait_for_selector("#compare", state="hidden")
    last = str(page.locator(TILES).count())
    focused = "document.activeElement.closest('.tile')?.querySelector('.rank').textContent"
    page.wait_for_function(f"last => ({focused} ?? '').endsWith(last)", arg=last)


def test_filter_holds_in_the_comparison(page, case, archive):
    def part(answer):
        for i, hit in enumerate(answer["neighbors"]):
            hit["class"] = archive["classes"][i % 3 == 2]["name"]

    change_answer(page, part)
    search_case(page, case)
    total = page.locator(TILES).count()
    chip = page.locator(".chip").last
    kept = int(chip.inner_text().split()[-1])
    assert 0 < kept < total
    chip.click()
    ids = [tile.get_attribute("data-id") for tile in page.locator(TILES).all()]
    open_first(page)
    rank = page.locator(TILES).first.locator(".rank").inner_text().split()[-1]
    assert page.inner_text("#compare-title") == f"Case {rank} of {total} (1 of {kept} shown)"
    for _ in ids[1:]:
        page.keyboard.press("ArrowRight")
    assert page.inner_text("#compare-title").endswith(f"({kept} of {kept} shown)")
    page.keyboard.press("Escape")
    page.wait_for_function("id => document.activeElement.closest('.tile')?.dataset.id === id", arg=ids[-1])


def test_light_is_the_same_for_both(page, image_path):
    upload(page, image_path)
    open_first(page)
    page.get_by_label("Brightness").fill("180")
    page.get_by_label("Contrast").fill("140")
    page.get_by_role("button", name="Invert").click()
    query, found = page.evaluate(SLIDES.format("filter"))
    assert query == found == "brightness(180%) contrast(140%) invert(1)"


def test_wheel_and_drag_move_both(page, image_path):
    upload(page, image_path)
    open_first(page)
    box = page.locator(".stage").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.wheel(0, -400)
    page.wait_for_function("() => document.querySelector('.zoom output').textContent !== '100 %'")
    page.mouse.down()
    page.mouse.move(x + 60, y + 20, steps=3)
    page.mouse.up()
    query, found = page.evaluate(SLIDES.format("transform"))
    assert query == found and not query.startswith("translate(0%")


def test_search_again_then_back_and_forward(page, image_path):
    upload(page, image_path)
    first = page.get_attribute(TILES, "data-id")
    title = page.inner_text("#verdict-title")
    open_first(page)
    page.click("#search-again")
    page.wait_for_function(
        "() => document.querySelector('.query figcaption').textContent.includes('Case from the archive')"
    )
    assert page.locator(f'{TILES}[data-id="{first}"]').count() == 0
    page.go_back()
    page.wait_for_selector(f'{TILES}[data-id="{first}"]')
    assert page.inner_text("#verdict-title") == title
    images_painted(page, ".query")
    page.go_forward()
    page.wait_for_selector(f'{TILES}[data-id="{first}"]', state="detached")
    page.go_back()
    page.go_back()
    page.wait_for_selector("#start", state="visible")


def test_back_closes_the_comparison(page, image_path):
    upload(page, image_path)
    open_first(page)
    page.go_back()
    page.wait_for_selector("#compare", state="hidden")
    assert page.locator(TILES).count() > 0


def test_reload_keeps_an_answer_from_the_archive(page, case):
    search_case(page, case)
    first = page.get_attribute(TILES, "data-id")
    page.reload()
    page.wait_for_selector("#neighbors .tile")
    assert page.get_attribute(TILES, "data-id") == first


HEATS = "#compare .heat canvas"


@pytest.mark.signed_in
def test_heat_maps_on_demand(page, image_path):
    upload(page, image_path)
    asked = []
    page.on("request", lambda request: request.url.endswith("/v1/explanations") and asked.append(request))
    open_first(page)
    button = page.get_by_role("button", name="Where do they look alike?")
    assert button.get_attribute("aria-pressed") == "false" and not asked
    button.click()
    page.wait_for_function(f"() => document.querySelectorAll('{HEATS}').length === 2")
    assert len(asked) == 1
    for canvas, name in zip(page.locator(HEATS).all(), ("Heat map of the query", "Heat map of the case"), strict=True):
        assert canvas.get_attribute("role") == "img"
        assert canvas.get_attribute("aria-label").startswith(f"{name}: most alike ")
    painted = """canvases => canvases.map((canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const alphas = data.filter((_, at) => at % 4 === 3);
        return [Math.min(...alphas.slice(0, 1000)), Math.max(...alphas.slice(0, 100000))];
    })"""
    assert all(high > 0 for _, high in page.eval_on_selector_all(HEATS, painted))
    legend = page.locator(".heat-legend")
    assert "blue: differs" in legend.inner_text() and "which need not be a finding" in legend.inner_text()

    # They lie over the images wherever these go, and keep their colours.
    page.keyboard.press("+")
    page.get_by_role("button", name="Invert").click()
    moved = "[...document.querySelectorAll('#compare .slide, #compare .heat')].map((layer) => layer.style.transform)"
    assert len(set(page.evaluate(moved))) == 1
    assert page.evaluate("document.querySelector('#compare .heat').style.filter") == ""

    # The next case has maps of its own; pressed again they are gone.
    before = page.get_attribute(f"{HEATS} >> nth=1", "aria-label")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => document.querySelectorAll('{HEATS}').length === 2")
    assert len(asked) == 2 and before
    button.click()
    assert page.locator(HEATS).count() == 0 and page.locator(".heat-legend").count() == 0


@pytest.mark.signed_in
def test_heat_maps_of_a_case_of_the_archive(page, case):
    search_case(page, case)
    open_first(page)
    page.get_by_role("button", name="Where do they look alike?").click()
    page.wait_for_function(f"() => document.querySelectorAll('{HEATS}').length === 2")


@pytest.mark.may_fail
def test_no_heat_maps_say_why(page, image_path):
    upload(page, image_path)
    refuse(page, "overloaded", 429, "**/v1/explanations")
    open_first(page)
    button = page.get_by_role("button", name="Where do they look alike?")
    button.click()
    page.wait_for_selector(".heat-note [role=alert]")
    assert "The model is busy" in page.inner_text(".heat-note")
    assert button.get_attribute("aria-pressed") == "false"
