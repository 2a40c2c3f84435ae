"""The study's page in headless Chromium, opened from disk and driven by Selenium."""

import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from nin_jax.study import figures

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="needs chromium and chromedriver on the PATH"
    ),
]

WIDE, NARROW = 1280, 390
# Relative luminance by WCAG 2.
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
def url(whole_page) -> str:
    return whole_page.as_uri()


def show(browser, url, width=WIDE, dark=False):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(url)
    loaded = "return document.readyState === 'complete'"
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(loaded))


def test_the_browser_logs_no_error(browser, url):
    show(browser, url)
    assert browser.get_log("browser") == []
    assert "six questions" in browser.title


def test_every_picture_is_decoded(browser, url):
    show(browser, url)
    widths = browser.execute_script(
        "return [...document.images].map(image => image.complete && image.naturalWidth)"
    )
    assert len(widths) == 5  # accuracy over time, curves of two recipes, ablation, gallery
    assert all(width and width > 100 for width in widths)


def cells(table, index):
    found = table.find_elements(By.CSS_SELECTOR, f"td:nth-child({index + 1})")
    return [cell.get_attribute("data-value") for cell in found]


@pytest.mark.parametrize("heading", ["variant", "accuracy", "parameters", "epochs to 0.80"])
def test_the_tables_sort_both_ways(browser, url, heading):
    show(browser, url)
    tables = browser.find_elements(By.CSS_SELECTOR, ".sortable")
    headings = [
        [button.text for button in table.find_elements(By.TAG_NAME, "button")] for table in tables
    ]
    place = next(i for i, found in enumerate(headings) if heading in found)
    table, index = tables[place], headings[place].index(heading)
    button = table.find_elements(By.TAG_NAME, "button")[index]
    before = cells(table, index)
    for sort in ("ascending", "descending"):
        button.click()
        known = [value for value in cells(table, index) if value]
        numbers = heading != "variant"
        expected = sorted(known, key=float if numbers else str, reverse=sort == "descending")
        assert known == expected
        assert sorted(cells(table, index)) == sorted(before)
        head = table.find_elements(By.TAG_NAME, "th")[index]
        assert head.get_attribute("aria-sort") == sort


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_fits_and_is_readable(browser, url, width, dark):
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
    # Wide pages show whole tables and figures; on narrow pages they scroll within their box.
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.wide')].map(e => [e.clientWidth, e.scrollWidth])"
    )
    assert all(shown <= width for shown, _ in boxes)
    if width == WIDE:
        assert all(shown == whole for shown, whole in boxes)
    lines = browser.execute_script(
        "return [...document.querySelectorAll('td, th')].map(e => e.clientHeight)"
    )
    assert max(lines) < 2 * min(size for size in lines if size)  # no label is wrapped


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_labels_of_figures_are_no_smaller_than_the_text(browser, url, width):
    show(browser, url, width)
    body = browser.find_element(By.TAG_NAME, "body")
    text = float(body.value_of_css_property("font-size").removesuffix("px"))
    scales = browser.execute_script(
        "return [...document.querySelectorAll('.drawn')].map(e => e.width / e.naturalWidth)"
    )
    assert min(scales) * figures.FONT * 96 / 72 >= 0.99 * text  # an SVG's inch has 96 pixels
