"""Frame of the page in the documentation: it follows the site's switch between light and dark."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("scheme", ["default", "slate"])
def test_the_frame_has_the_scheme_of_the_site_not_of_the_system(browser, address, tmp_path, scheme):
    style = (ROOT / "docs/style.css").read_text()
    site = tmp_path / "site.html"
    site.write_text(
        f'<!doctype html><style>{style}</style><body data-md-color-scheme="default">'
        f'<iframe class="explainer" src="{address}"></iframe>'
    )
    with browser.new_context(color_scheme="null") as context:  # else a scheme is forced on frames
        page = context.new_page()
        page.goto(site.as_uri())
        page.evaluate(f"document.body.dataset.mdColorScheme = '{scheme}'")
        (frame,) = page.frames[1:]
        frame.wait_for_selector("#grid-x svg, #grid-x [data-sel]")
        is_dark = (scheme == "slate",)
        frame.wait_for_function(
            "([dark]) => matchMedia('(prefers-color-scheme: dark)').matches == dark", arg=is_dark
        )
        frame.wait_for_function(
            "([dark]) => getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g)"
            ".every(level => level < 99) == dark", arg=is_dark,
        )  # fmt: skip
