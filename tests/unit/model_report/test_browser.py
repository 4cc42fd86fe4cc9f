"""The page in a real browser: what a reader clicks, sees, prints, and what the browser asks for."""

import base64
import io
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from duplus_nnunet.model_report.page import write_page

from .reports import NASTY, make_case, make_report, make_viewer

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLAYWRIGHT = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def chromium():
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is on the PATH: looked for {', '.join(NAMES)}")
    with PLAYWRIGHT.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page, with what the browser said and asked for."""

    def __init__(self, browser, file, **context):
        self.messages, self.requests = [], []
        self.page = browser.new_context(**context).new_page()
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        started = time.monotonic()
        self.page.goto(file.as_uri())
        if context.get("java_script_enabled", True):
            self.page.locator("html[data-ready=yes]").wait_for(state="attached")
        print(f"opened in {time.monotonic() - started:.2f} s")

    def look(self, number=0):
        """Return the pixels of a canvas, (H, W, 3)."""
        url = self.page.locator("canvas").nth(number).evaluate("canvas => canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).astype(int)

    def read_slice(self, number=0):
        return self.page.locator("output").nth(number).inner_text()


@pytest.fixture
def opened(chromium, tmp_path):
    """Give what opens a report, in a window of a size."""
    pages = []

    def open_report(report, **context):
        write_page(tmp_path / "report.html", report)
        pages.append(Opened(chromium, tmp_path / "report.html", **context))
        return pages[-1]

    yield open_report
    for each in pages:
        each.page.context.close()


def wait_until(view, check):
    """Wait up to ten seconds; the policy of the page forbids the browser to do so by a text."""
    for _ in range(100):
        if check():
            return
        view.page.wait_for_timeout(100)
    raise AssertionError("it did not happen within ten seconds")


def count_coloured(pixels):
    """Count the pixels that are not grey."""
    return int((np.ptp(pixels, axis=2) > 30).sum())


def test_choosing_a_target_draws_its_mask_and_nothing_else_happens(opened):
    view = opened(make_report())
    view.page.get_by_role("button", name="None", exact=True).click()
    assert count_coloured(view.look()) == 0
    view.page.get_by_role("checkbox", name="spleen").check()
    drawn = view.look()
    assert view.read_slice() == "6 of 8" or view.read_slice() == "5 of 8"
    rows, columns = np.nonzero(np.ptp(drawn, axis=2) > 30)
    height, width = drawn.shape[:2]
    assert np.median(rows) / height == pytest.approx(6.5 / 10, abs=0.05)
    assert np.median(columns) / width == pytest.approx(8.5 / 12, abs=0.05)
    assert view.messages == []
    assert [url for url in view.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in view.requests if url.startswith("file:")]) == 1


def test_outlines_of_prediction_and_truth_can_be_hidden(opened):
    view = opened(make_report())
    both = view.look()
    view.page.get_by_role("checkbox", name="Truth: not filled").uncheck()
    assert not np.array_equal(view.look(), both)
    view.page.get_by_role("checkbox", name="Prediction: filled").uncheck()
    assert count_coloured(view.look()) == 0


def test_slices_are_scrolled_by_slider_arrow_keys_and_wheel(opened):
    view = opened(make_report())
    slider = view.page.get_by_role("slider", name="Slice")
    slider.focus()
    slider.press("Home")
    assert view.read_slice() == "1 of 8"
    first = view.look()
    slider.press("ArrowRight")
    assert view.read_slice() == "2 of 8"
    assert not np.array_equal(view.look(), first)
    canvas = view.page.locator("canvas")
    canvas.click()
    canvas.press("ArrowUp")
    assert view.read_slice() == "3 of 8"
    canvas.hover()
    view.page.mouse.wheel(0, -100)
    PLAYWRIGHT.expect(view.page.locator("output")).to_have_text("4 of 8")
    assert slider.get_attribute("aria-valuetext") == "slice 4 of 8"


def test_the_wheel_scrolls_the_page_where_no_image_was_clicked(opened):
    view = opened(make_report(), viewport={"width": 800, "height": 500})
    before = view.read_slice()
    view.page.locator("canvas").hover()
    at = view.page.evaluate("scrollY")
    view.page.mouse.wheel(0, -100)
    wait_until(view, lambda: view.page.evaluate("scrollY") < at)
    assert view.read_slice() == before


def test_a_case_shows_the_prompts_of_the_chosen_targets(opened):
    view = opened(make_report())
    view.page.get_by_role("checkbox", name="liver").uncheck()
    text = view.page.locator(".case").inner_text()
    assert "A computed tomography of abdomen" in text
    assert "A computed tomography of spleen" in text
    assert "A computed tomography of liver" not in text


def test_names_that_are_markup_do_nothing(opened):
    view = opened(make_report(make_viewer(make_case(title=NASTY, targets=(NASTY, "spleen")))))
    assert view.page.evaluate("window.broken") is None
    view.page.get_by_role("checkbox", name="window.broken").uncheck()
    assert NASTY in view.page.locator(".case h4").inner_text()
    assert view.messages == []


def test_four_hundred_targets_can_be_searched(opened):
    view = opened(make_report(make_viewer(make_case(targets=tuple(f"target {number}" for number in range(400))))))
    view.page.get_by_role("searchbox").fill("target 39")
    shown = view.page.locator(".targets li:visible").all_inner_texts()
    assert [text.strip() for text in shown] == ["target 39", *(f"target {number}" for number in range(390, 400))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_scrolling_sideways(opened, scheme):
    view = opened(make_report(), viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert view.page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_page_prints_with_all_rows_and_the_chosen_slice(opened):
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    view = opened(make_report())
    pdf = pypdf.PdfReader(io.BytesIO(view.page.pdf(format="A4")))
    text = " ".join(" ".join(page.extract_text() for page in pdf.pages).split())
    assert len(pdf.pages) > 0
    assert "Report on Phantom" in text
    assert "case 0" in text
    assert "case 29" in text
    assert f"Slice {view.read_slice()}" in text
    assert any(page.images for page in pdf.pages)


def test_without_javascript_a_picture_stands_in_for_the_viewer(opened):
    view = opened(make_report(), java_script_enabled=False)
    picture = view.page.locator("figure.viewer img")
    assert picture.is_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    assert not view.page.locator("canvas").is_visible()
