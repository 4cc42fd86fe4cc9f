"""Draws docs/pictures/report.png: the prompt switch in the report on the model of `duplus example`.

Needs Chromium on the PATH and playwright (in the extra `dev`).

  python docs/pictures/make_report.py
"""

import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FILE = Path(__file__).with_name("report.png")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZE = {"width": 1100, "height": 900}
COLOURS = 256


def find_browser() -> str:
    """Find Chromium by its usual names."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"No browser is on the PATH: looked for {', '.join(BROWSERS)}. Install Chromium.")
    return found


def write_report(folder: Path) -> Path:
    """Write the report on the example by the commands of the how-to page."""
    example, report = folder / "example", folder / "report.html"
    images = ("--images", example / "images", "--labels", example / "labels", "--context", example / "contexts.json")
    for words in (("example", "-o", example), ("report", example / "model", "-o", report, *images)):
        subprocess.run(["duplus", *map(str, words)], check=True)
    return report


def photograph(report: Path) -> bytes:
    """Return a picture of the section with the prompt switch, as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(report.as_uri())
        page.locator("html[data-ready=yes]").wait_for(state="attached")
        picture = page.locator("#section-prompt-switch").screenshot()
        browser.close()
    return picture


def main() -> None:
    """Write the picture, with few colours, so that it is small."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Image.open(BytesIO(photograph(write_report(Path(folder)))))
    picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        FILE, optimize=True
    )
    print(f"{FILE}: {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
