"""The page in a real headless Chromium: what it asks for, how it filters and sorts, who can use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

TABLE = "#helped table >> nth=0"


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, freshly opened; fails on anything said on the console and on any request but for the file."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened, said, asked = context.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((report / "index.html").as_uri())
    yield opened
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def field(page: Page, label: str) -> Locator:
    return page.locator("#filter").get_by_label(label, exact=True)


def visible(page: Page, selector: str) -> int:
    return page.locator(f"{selector}:visible").count()


def test_gallery_filters_by_product_type_method_intensity_and_signal(page: Page) -> None:
    everything = visible(page, ".kind .card")
    field(page, "Product").select_option("fabric")
    field(page, "Anomaly type").select_option("hole")
    sections = page.locator(".kind:visible")
    assert sections.count() == 1
    assert sections.get_attribute("data-product") == "fabric"
    assert sections.get_attribute("data-type") == "hole"
    field(page, "Method").select_option("cadiff")
    ours = visible(page, ".kind .card")
    assert 0 < ours < everything
    field(page, "from").fill("1.0")
    strong = visible(page, ".kind .card")
    assert 0 < strong < ours
    weights = page.locator(".kind .card:visible").evaluate_all("cards => cards.map(card => Number(card.dataset.w))")
    assert min(weights) >= 1
    assert page.locator("#count").inner_text() == f"{strong} of {everything} pictures"
    assert page.evaluate("location.hash") == "#show:product=fabric&type=hole&source=cadiff&from=1.0"
    field(page, "from").fill("0.5")
    field(page, "Signal").select_option("likely copy")
    copies = page.locator(".kind .card:visible")
    assert 0 < copies.count() < ours
    assert all("likely copy" in text for text in copies.locator("figcaption").all_inner_texts())


def test_a_view_can_be_sent_on(page: Page, report: Path) -> None:
    page.goto(f"{(report / 'index.html').as_uri()}#show:product=metal_plate&source=real")
    page.reload()
    assert field(page, "Product").input_value() == "metal_plate"
    assert set(page.locator(".group:visible").evaluate_all("all => all.map(g => g.dataset.source)")) == {"real"}


def test_tables_sort_by_number_and_by_name(page: Page) -> None:
    head = page.locator(TABLE).get_by_role("button", name="Pixel AUROC")
    names = page.locator(f"{TABLE} >> tbody th")
    before = names.all_inner_texts()
    assert [name.split(" ")[0] for name in before] == ["both", "cadiff", "exemplars", "perlin"]
    head.press("Enter")
    sorted_column = page.locator(f"{TABLE} >> th[aria-sort]")
    assert sorted_column.get_attribute("aria-sort") == "descending"
    assert names.all_inner_texts() == before
    head.press("Enter")
    assert sorted_column.get_attribute("aria-sort") == "ascending"
    assert names.all_inner_texts() == before[::-1]
    page.locator(TABLE).get_by_role("button", name="The detector was trained on").click()
    assert names.all_inner_texts() == sorted(before)
    assert page.locator(f"{TABLE} >> th[aria-sort]").count() == 1


def test_keyboard_reaches_a_pictures_provenance_and_comes_back(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    picture = page.locator(".kind .card[data-w^='1'] .open").first
    picture.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Provenance")
    assert dialog.is_visible()
    shown = dialog.inner_text()
    for name in ("prompt", "seed", "intensity", "generator_digest", "image_sha256", "exemplar_distance", "mask_area"):
        assert name in shown
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert picture.evaluate("button => document.activeElement === button")


def test_a_press_shows_a_picture_as_large_as_the_page_has_it_with_its_aspect(page: Page) -> None:
    card = page.locator(".kind .card .open").nth(1)
    small = card.locator("img").bounding_box()
    card.click()
    image = page.locator("#provenance .shown img")
    shown, natural = image.bounding_box(), image.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert small is not None
    assert shown is not None
    assert shown["width"] >= max(natural[0], 288) > small["width"]
    assert shown["height"] / shown["width"] == pytest.approx(natural[1] / natural[0], rel=0.02)
    outline = page.locator("#provenance .shown svg").bounding_box()
    assert outline is not None
    for side in ("x", "y", "width", "height"):
        assert outline[side] == pytest.approx(shown[side], abs=1)  # type: ignore[literal-required]


def test_phone_has_no_sideways_overflow(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_print_shows_what_is_folded_and_hides_what_is_pressed(page: Page) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("#filter").is_visible()
    assert not page.locator("nav").is_visible()
    ink, paper = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert (ink, paper) == ("rgb(29, 28, 26)", "rgb(252, 251, 249)"), "paper is light, also for a reader in the dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_that_axe_knows_of(page: Page, scheme: str) -> None:
    """axe-core's rules for WCAG 2 A and AA: names, roles, labels, contrast, order of headings."""
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}
    response = Axe().run(page, options=rules).response
    assert {"color-contrast", "image-alt", "label", "heading-order"} <= {each["id"] for each in response["passes"]}
    found = response["violations"]
    assert [(each["id"], each["help"], [node["html"][:160] for node in each["nodes"][:3]]) for each in found] == []
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"


def test_button_turns_the_page_dark_and_back(page: Page) -> None:
    button = page.locator("#theme")
    assert button.inner_text() == "Dark page"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    button.click()
    assert button.inner_text() == "Light page"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    assert button.inner_text() == "Light page", "the choice is kept"
    button.click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light
