"""The viewer in JupyterLab, in a real browser: what a reader runs, types and sees, and what goes over the network."""

import io
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from duplus_nnunet.reporting.colours import colour

from .conftest import read_environment

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLAYWRIGHT = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
# Draws WebGL2 without a graphics card.
GRAPHICS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "ask.ipynb"
# Cells of code up to and with the one that shows the viewer.
CELLS = 2
PATIENCE = 240.0


def wait_until(what: str, look: Callable[[], Any], rest: Callable[[], Any] = lambda: time.sleep(0.3)) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not happen within {PATIENCE:.0f} s"
        rest()
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve JupyterLab on a port of this machine, with a copy of the notebook; give its address."""
    for name in ("jupyterlab", "ipyniivue"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra notebook)")
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    shutil.copy(NOTEBOOK, folder / "notebooks")
    own = {f"JUPYTER_{part}_DIR": str(folder / part.lower()) for part in ("CONFIG", "DATA", "RUNTIME")}
    # Its question about news would lie over the canvas.
    settings = folder / "config" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    token, log = secrets.token_hex(), folder / "log.txt"
    words = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'notebooks'}",
        # Nothing is asked of other machines, by the server neither.
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    environment = {**read_environment(), **own, "IPYTHONDIR": str(folder / "ipython")}
    with log.open("w") as output:
        server = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        address = re.compile(r"http://127\.0\.0\.1:\d+/")
        # Port 0, which the first lines may name, is none.
        found = wait_until("the start of JupyterLab", lambda: address.search(log.read_text().replace(":0/", "/")))
        yield f"{found[0]}lab/tree/{NOTEBOOK.name}?token={token}"
    finally:
        server.terminate()
        server.wait(timeout=60)


@dataclass
class Opened:
    """The notebook in the browser.

    Attributes:
        page: The page.
        errors: What the console of the browser has of errors.
        requests: Addresses that were asked for.
        uploaded: Bytes that went from the browser to the notebook.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    uploaded: list[int] = field(default_factory=list)

    def listen(self) -> None:
        """Note errors and traffic."""
        on = self.page.on
        on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        on("pageerror", lambda error: self.errors.append(str(error)))
        on("request", lambda request: self.requests.append(request.url))
        on("websocket", lambda socket: socket.on("framesent", lambda data: self.uploaded.append(len(data))))

    def run_cell(self, number: int) -> None:
        """Run a cell of code, counted from 0 (-1: the last one), and wait until it has run."""
        cells = self.page.locator(".jp-Notebook .jp-CodeCell")
        cell = cells.nth(number % self.wait_for("the cells", cells.count))
        # JupyterLab may make the elements of a cell again, and a key that is pressed meanwhile is lost.
        prompt = cell.locator(".jp-InputPrompt")
        started = False

        def has_run() -> Any:
            nonlocal started
            if not started or "[ ]" in prompt.inner_text():
                cell.locator(".jp-InputArea-editor").click()
                self.page.keyboard.press("Shift+Enter")
                self.page.wait_for_timeout(2000)
                started = True
            return re.search(r"\[\d+\]", prompt.inner_text())

        self.wait_for("the end of a cell", has_run)

    def rest(self) -> None:
        """Let the browser work on."""
        self.page.wait_for_timeout(300)

    def wait_for(self, what: str, look: Callable[[], Any]) -> Any:
        """Wait for something in the browser."""
        return wait_until(what, look, self.rest)

    def look(self) -> Any:
        """Return the pixels of the canvas, (H, W, 3)."""
        png = self.page.locator("canvas").screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def read(self) -> str:
        """Return the message of the viewer."""
        return str(self.page.locator(".duplus-message").inner_text())

    def keep(self, name: str) -> None:
        """Keep a picture of the page, where a person wants to see it."""
        if folder := os.environ.get("DUPLUS_TEST_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder, f"{name}.png"))


@pytest.fixture(scope="module")
def opened(lab: str) -> Iterator[Opened]:
    """Give the notebook, run up to the viewer."""
    browser_file = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser_file is None:
        pytest.skip(f"no browser is on the PATH: looked for {', '.join(BROWSERS)}")
    with PLAYWRIGHT.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_file, args=["--no-sandbox", *GRAPHICS])
        own = Opened(browser.new_page(viewport={"width": 1400, "height": 1000}))
        own.page.set_default_timeout(PATIENCE * 1000)
        own.listen()
        own.page.goto(lab)
        own.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(state="attached")
        for number in range(CELLS):
            own.run_cell(number)
        try:
            own.page.locator("canvas").wait_for()
        finally:
            own.keep("opened")
        own.wait_for("the picture of the image", lambda: own.look().max() > 150 and count_grey(own.look()) > 5000)
        yield own
        browser.close()


def count_grey(pixels: Any) -> int:
    """Count the pixels that show tissue."""
    return int(((pixels.max(2) > 40) & (np.ptp(pixels, axis=2) < 15)).sum())


def count_coloured(pixels: Any, value: int) -> int:
    """Count the pixels that have the hue of a label value, however dark."""
    hue = np.array([int(colour(value)[start : start + 2], 16) for start in (1, 3, 5)], float)
    bare = pixels - pixels.min(2, keepdims=True)
    length = np.linalg.norm(bare, axis=2)
    likeness = (bare @ (hue - hue.min())) / np.maximum(length * np.linalg.norm(hue - hue.min()), 1e-9)
    return int(((length > 40) & (likeness > 0.97)).sum())


def type_line(opened: Opened, text: str) -> str:
    """Type a text into the viewer, press enter, and return what it says then."""
    before = opened.read()
    line = opened.page.locator(".duplus-line input")
    line.fill(text)
    line.press("Enter")
    return str(
        opened.wait_for(f"an answer to {text}", lambda: (new := opened.read()) not in {before, "...", ""} and new)
    )


def test_a_word_that_is_no_target_is_answered_by_the_nearest(opened: Opened) -> None:
    assert count_coloured(opened.look(), 1) == 0
    assert "'liver'" in type_line(opened, "livr")
    assert opened.page.get_by_role("button", name="Use as free text").is_visible()
    opened.keep("unknown")


def test_a_typed_target_is_shown_in_its_colour(opened: Opened) -> None:
    assert re.fullmatch(r"liver: \d+\.\d\d ml, .* s", type_line(opened, "liver"))
    opened.wait_for("the mask", lambda: count_coloured(opened.look(), 1) > 1000)
    assert opened.page.get_by_role("checkbox", name="liver").is_checked()
    opened.keep("liver")
    # Since the notebook was opened; ipyniivue would send the voxels back: 51200 of the image, in two bytes each.
    assert 1000 < sum(opened.uploaded) < 80000


def test_boxes_show_and_hide(opened: Opened) -> None:
    opened.page.get_by_role("checkbox", name="left kidney").click()
    opened.wait_for("the other mask", lambda: count_coloured(opened.look(), 3) > 300)
    opened.keep("two")
    opened.page.get_by_role("checkbox", name="liver").click()
    opened.wait_for("the mask to be hidden", lambda: count_coloured(opened.look(), 1) < 50)
    assert count_coloured(opened.look(), 3) > 300


def test_another_context_has_no_masks_yet(opened: Opened) -> None:
    opened.page.locator(".jp-OutputArea select").first.select_option("phantom_mr")
    opened.wait_for("the other context", lambda: opened.read().startswith("context phantom_mr"))
    opened.wait_for("the masks to go", lambda: count_coloured(opened.look(), 3) < 50)
    assert count_grey(opened.look()) > 5000
    # The image is a CT.
    assert "warning" in opened.page.locator(".duplus-warnings").inner_text()
    opened.keep("context")


def test_closing_the_image_empties_the_canvas(opened: Opened) -> None:
    opened.run_cell(-1)
    opened.wait_for("the end of the view", lambda: "closed" in opened.read())
    opened.page.locator("canvas").scroll_into_view_if_needed()
    opened.keep("closed")
    opened.wait_for("the canvas to be empty", lambda: count_grey(opened.look()[3:-3, 3:-3]) < 50)
    assert opened.page.locator(".duplus-line input").is_disabled()


def test_nothing_went_wrong_and_nothing_was_asked_of_other_machines(opened: Opened, lab: str) -> None:
    assert opened.errors == []
    here = lab.partition("/lab/")[0]
    assert [url for url in opened.requests if not url.startswith((here, "data:", "blob:"))] == []
    assert len(opened.requests) > 10
