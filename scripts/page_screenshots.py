"""Photograph the web page: `python scripts/page_screenshots.py RUN` writes docs/images/page_*.png.

Starts `warmline serve RUN`, drives Chromium through a few conversations and ends the server. Every reply in a picture is the model's own:
the page asks as it always does, with a seed and a limit on length added so that the same run gives the same words. Needs the `dev` extra
and a chromium on PATH. The page names fonts of many systems; ours came from Debian's fonts-inter and fonts-sil-charis.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SEED, MOST_TOKENS = 7, 60
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
DESK = {"viewport": {"width": 1120, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@contextmanager
def serving(run: str) -> Iterator[str]:
    """The address of `warmline serve` on a run folder."""
    command = [sys.executable, "-m", "warmline", "serve", run, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command line
    try:
        found = re.search(r"http://\S+", server.stdout.readline() if server.stdout else "")
        if found is None:
            sys.exit(f"warmline serve {run} did not start; its words are above")
        yield found.group()
    finally:
        server.terminate()
        server.wait()


class Photographer:
    """Opens the page, talks, takes pictures.

    Args:
        browser: Chromium.
        address: Of the server.
    """

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser, self._address = browser, address

    def open(self, scheme: str = "light", **options: Any) -> Page:
        """A fresh page with nothing said yet."""
        page = self._browser.new_context(color_scheme=scheme, reduced_motion="reduce", **options).new_page()
        page.route("**/v1/chat/completions", _with_seed)
        page.goto(self._address)
        page.wait_for_selector("#welcome:visible")
        return page

    def say(self, page: Page, *messages: str) -> None:
        """Say something and wait for the reply."""
        for text in messages:
            before = page.locator(".exchange").count()
            page.fill("#message", text)
            page.click("#send")
            page.wait_for_selector(f"body:not(.busy) .exchange:nth-child({before + 1}) :is(.again, .crisis)", timeout=120_000)

    def take(self, page: Page, name: str) -> None:
        """Write the picture."""
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)
        path = IMAGES / f"page_{name}.png"
        page.screenshot(path=path)
        page.context.close()
        print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")


def _with_seed(route: Route) -> None:
    asked = {**route.request.post_data_json, "seed": SEED, "max_tokens": MOST_TOKENS}
    route.continue_(post_data=json.dumps(asked))


def photograph(by: Photographer) -> None:
    by.take(by.open(**DESK), "welcome")

    page = by.open(viewport={"width": 1120, "height": 900})
    by.say(page, "I moved here three weeks ago and I still eat lunch alone every day.", "Today somebody waved at me in the corridor!")
    page.locator(".exchange").last.locator(".user .pill").click()
    page.locator("#message").focus()
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    by.take(page, "conversation")

    page = by.open("dark", **DESK)
    by.say(page, "My grandmother died on Sunday.", "I keep wanting to call her and tell her about my day.")
    by.take(page, "dark")

    page = by.open(**DESK)
    page.click("#compare")
    by.say(page, "I have my first job interview tomorrow and I can't sit still.")
    page.locator(".reply .pill").click()
    by.take(page, "side_by_side")

    page = by.open(**DESK)
    page.select_option("#country", "GB")
    by.say(page, "I can't do this any more. I want to kill myself.")
    by.take(page, "crisis")

    page = by.open(**PHONE)
    by.say(page, "I passed my exam and I have nobody to tell.")
    by.take(page, "phone")


def main() -> None:
    chromium = shutil.which("chromium")
    if len(sys.argv) != 2 or chromium is None:
        sys.exit("usage: python scripts/page_screenshots.py RUN, with chromium on PATH")
    with serving(sys.argv[1]) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        photograph(Photographer(browser, address))
        browser.close()


if __name__ == "__main__":
    main()
