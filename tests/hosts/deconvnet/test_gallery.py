"""The page of `see` in a browser: offline, by keyboard, accessible, and sorted.

Needs Debian's Chromium and Playwright (`make test-hosts` brings both), and fails without them.
"""

from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

import tconv
from networks import proto_of
from strategies import integers_like

OUT = Path(__file__).parents[3] / "out"
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 600, "height": 900}
NODES = [("Conv", "image a", "c", {"pads": [1] * 4}), ("Relu", "c", "<b>&r", {})]
STORED = {"a": integers_like((6, 3, 5, 5), "float32", 1, largest=3)}


@pytest.fixture(scope="module")
def seen():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 24, 32), np.uint8)
    model = proto_of(NODES, STORED, (1, 3, 24, 32))
    return tconv.see(model, list(images), top=3, sanity=True)


@pytest.fixture(scope="module")
def address(seen, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "seen.html"
    seen.save(path)
    return path.as_uri()


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_the_page(browser, address, seen, size, scheme):
    with browser.new_context(viewport=size, color_scheme=scheme) as context:
        page, said, requests = context.new_page(), [], []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        assert [url for url in requests if not url.startswith("data:")] == [address]

        tiles = page.locator("button.tile")
        # Photos, projections and overlays, real and shuffled.
        assert tiles.count() == 6 * len(seen.tiles)
        assert page.evaluate("[...document.images].every(i => !i.src || i.naturalWidth > 0)")

        # A tile shows where it is: the box lies on the image as the tile says.
        tiles.nth(1).hover()
        where = page.locator("#where").inner_text()
        tile = seen.tiles[1]
        name = seen.photos[tile.image].name
        assert where.startswith(f"{name}: unit {','.join(map(str, tile.unit))}, activation ")
        drawn = page.evaluate(
            """() => { const [a, b] = ['box', 'whole'].map(
            id => document.getElementById(id).getBoundingClientRect());
            return [(a.top - b.top) / b.height * 24, (a.left - b.left) / b.width * 32,
                    a.height / b.height * 24, a.width / b.width * 32]; }"""
        )
        (top, bottom), (left, right) = tile.field
        expected = [top, left, bottom - top + 1, right - left + 1]
        np.testing.assert_allclose(drawn, expected, atol=0.05)

        # The same by keyboard.
        tiles.nth(0).focus()
        page.keyboard.press("Tab")
        assert page.locator("#where").inner_text() == where

        page.locator("th button", has_text="activation").click()
        values = page.locator("#table tbody tr td:nth-child(4)").all_inner_texts()
        numbers = [float(text) for text in values]
        assert numbers == sorted(numbers, reverse=True)
        page.locator("th button", has_text="activation").click()
        values = page.locator("#table tbody tr td:nth-child(4)").all_inner_texts()
        assert [float(text) for text in values] == sorted(numbers)

        fits = "document.documentElement.scrollWidth <= window.innerWidth"
        assert page.evaluate(fits)
        found = Axe().run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
        OUT.mkdir(exist_ok=True)
        page.screenshot(path=OUT / f"see_{size['width']}_{scheme}.png")
        assert not said
