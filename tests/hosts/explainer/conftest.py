"""Fixtures: the page of the worked example, in a window of its own."""

import pytest

import tconv


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    tconv.explain().save(path)
    return path.as_uri()


@pytest.fixture
def page(browser):
    """A page whose errors fail the test."""
    wide = {"width": 1280, "height": 800}
    with browser.new_context(viewport=wide, accept_downloads=True) as context:
        opened, errors = context.new_page(), []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("console", lambda said: errors.append(said.text))
        yield opened
        assert not errors
