"""The study's page in a real browser, opened from disk: Chromium, headless, driven by Selenium."""

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from nin_jax import create_model
from nin_jax.explanation import explain_images
from nin_jax.plotting import plot_class_maps
from nin_study import content, page
from tests.test_study import everything, summary

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver on the PATH"
)

WIDE, NARROW = 1280, 390
# Relative luminance, as WCAG 2 defines it for contrast.
LUMINANCE = """
const [r, g, b] = getComputedStyle(arguments[0])[arguments[1]].match(/[\\d.]+/g).map(
  level => level / 255 <= 0.04045 ? level / 3294.6 : ((level / 255 + 0.055) / 1.055) ** 2.4);
return 0.2126 * r + 0.7152 * g + 0.0722 * b;
"""
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-quic"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.binary_location = BROWSER or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    """A page with every section, from made-up results."""
    folder = tmp_path_factory.mktemp("page")
    rows = everything()
    names = ["T-shirt", "trousers", "bag"]
    model = create_model("nin_one_1x1", num_classes=3, image_size=131)
    (found,) = explain_images(model, np.zeros((1, 28, 28, 1), np.uint8))
    plot_class_maps(found, names, "a picture", folder / "maps.png")
    gallery = [content.Picture((folder / "maps.png").read_bytes(), "a picture, taken for a bag")]
    study = content.Study(rows, summary(rows), names, ["python", "scripts/study.py"], gallery)
    (folder / "index.html").write_text(page.as_html(study), encoding="utf-8")
    return (folder / "index.html").as_uri()


def show(browser, url, width=WIDE, dark=False):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(url)


def test_the_browser_has_nothing_to_complain_about(browser, url):
    show(browser, url)
    assert browser.get_log("browser") == []
    assert "six questions" in browser.title


def test_every_picture_is_decoded(browser, url):
    show(browser, url)
    widths = browser.execute_script(
        "return [...document.images].map(image => image.complete && image.naturalWidth)"
    )
    assert len(widths) == 6  # curves and costs of two recipes, the ablation, the gallery
    assert all(width and width > 100 for width in widths)


def column(browser, index):
    cells = browser.find_elements(By.CSS_SELECTOR, f".sortable td:nth-child({index + 1})")
    return [cell.get_attribute("data-value") for cell in cells]


@pytest.mark.parametrize("heading", ["variant", "accuracy", "parameters", "epochs to 0.80"])
def test_the_table_sorts_both_ways(browser, url, heading):
    show(browser, url)
    buttons = browser.find_elements(By.CSS_SELECTOR, ".sortable th button")
    index = [button.text for button in buttons].index(heading)
    before = column(browser, index)
    for sort in ("ascending", "descending"):
        buttons[index].click()
        known = [value for value in column(browser, index) if value]
        numbers = heading != "variant"
        expected = sorted(known, key=float if numbers else str, reverse=sort == "descending")
        assert known == expected
        assert sorted(column(browser, index)) == sorted(before)
        head = browser.find_elements(By.CSS_SELECTOR, ".sortable th")[index]
        assert head.get_attribute("aria-sort") == sort


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_fits_and_can_be_read(browser, url, width, dark):
    show(browser, url, width, dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    body = browser.find_element(By.TAG_NAME, "body")
    ink, paper = (
        browser.execute_script(LUMINANCE, body, name) for name in ("color", "backgroundColor")
    )
    assert (paper < ink) == dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7  # WCAG's AAA
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('p, td, th')].map("
        "e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12
    # What is wider than the page scrolls within its own box.
    for box in browser.find_elements(By.CSS_SELECTOR, ".wide"):
        assert box.size["width"] <= width
