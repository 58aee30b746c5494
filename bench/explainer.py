"""Latency of the explainer's page at its size limit, in Chromium. ``python -m bench.explainer``.

A change is timed from its event until style and layout are done: what the page's script computes
and writes, and the positions of all elements. Cell labels are not part of it; the page writes them
in the task after that. Each kind of change is made fifty times on each of several pages. The pages
take turns, because the machine's speed changes within seconds, and p95 is the median of theirs.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import median, quantiles

from playwright.sync_api import Page, sync_playwright

import tconv
from bench.machine import processor

__all__ = ["CHANGES", "measure"]

TIMES, PAGES = 50, 5
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
LARGEST = {
    "x": [[(8 * r + c) % 10 for c in range(8)] for r in range(8)],
    "w": [[(7 * r + c) % 5 - 2 for c in range(7)] for r in range(7)],
    "stride": 4, "padding": 2, "output_padding": 1,
}  # fmt: skip
"""8×8 inputs and 7×7 taps give 32×32 of 35×35 outputs, the most that the page draws."""

CHANGES = {
    "a step": "n => { const slider = document.getElementById('step'); slider.value = 7*n + 1;"
    " slider.dispatchEvent(new Event('input', {bubbles: true})); }",
    "a cell pointed at": "n => document.querySelectorAll('#grid-y .cell')[23*n]"
    ".dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))",
    "a cell pinned": "n => document.querySelectorAll('#grid-x .cell')[n].click()",
    "a number": "n => { const {x} = tconv.state(); x[0][0] = n + 1;"
    " tconv.set(tconv.hash().replace(/&?x=[^&]*/, '') + '&x=' + x.map(String).join(';')); }",
    "a setting": "n => { const select = document.querySelector('[data-control=begin1]');"
    " select.value = 2 + n % 3; select.dispatchEvent(new Event('change', {bubbles: true})); }",
    "the lens": "n => document.querySelectorAll('#lenses input')[n % 5].click()",
}
"""JavaScript functions that do what a reader does, for the nth time."""

CHANGES["all of these in turn"] = f"n => [{', '.join(CHANGES.values())}][n % {len(CHANGES)}](n)"
CHANGES["a cell of a channel"] = (
    "n => document.querySelectorAll('#grid-y0 .cell')[2*n % 144]"
    ".dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))"
)
CHANGES["a pixel"] = "n => tconv.set('#lens=picture&sel=o' + (n + 7) + ',' + (n + 9))"
BEGINS = {"a cell of a channel": "#c=3x3&lens=channels", "a pixel": "#lens=picture"}
"""The states of the pages in which these changes are made."""

TIME = """times => [...Array(times).keys()].map(n => {
    const start = performance.now(); (ACT)(n); document.body.offsetHeight;
    return performance.now() - start; })"""


def measure(page: Page, change: str) -> list[float]:
    """Return the milliseconds of each change of a kind, after a few that are not counted."""
    timed = TIME.replace("ACT", CHANGES[change])
    page.evaluate(timed, 5)
    found: list[float] = page.evaluate(timed, TIMES)
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    chromium = shutil.which("chromium")
    if not chromium:
        raise SystemExit("chromium is missing: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "page.html")
        tconv.explain(**LARGEST).save(path)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        found: dict[str, list[list[float]]] = {change: [] for change in CHANGES}
        for _ in range(PAGES):
            for change in CHANGES:
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.goto(path.as_uri() + BEGINS.get(change, ""))
                found[change].append(measure(page, change))
                page.close()
        titles = ("median", "p95", "least p95", "most p95")
        print(f"{'milliseconds':20}", *(f"{title:>9}" for title in titles))
        for change, pages in found.items():
            p95 = [quantiles(times, n=20)[-1] for times in pages]
            figures = (median(map(median, pages)), median(p95), min(p95), max(p95))
            print(f"{change:20}", *(f"{figure:9.1f}" for figure in figures))
        print(f"\nChromium {browser.version}, {processor()}, {tconv.explain(**LARGEST)}")
        browser.close()


if __name__ == "__main__":
    main()
