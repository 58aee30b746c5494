"""Palette: each colour stands once, and the page and the pictures have the same."""

import re
from pathlib import Path

import pytest

import tconv
from tconv.deconvnet.crops import GREY
from tconv.explainer import drawing

PACKAGE = Path(tconv.__file__).parent
COLOUR = re.compile(r"#(?:[0-9a-fA-F]{3}){1,2}\b|\brgba?\(|\bhsl\(|\b(?:white|black)\b(?!-)")
STYLES = ("explainer/page/explainer.css", "deconvnet/gallery.css")
IMAGE = re.compile(r'url\("data:[^"]*"\)')  # which knows no variables of the page


def blocks(name):
    """The bodies of :root in a style, the light one first, and all that lies outside of them."""
    style = (PACKAGE / name).read_text("utf-8")
    found = re.findall(r":root \{(.*?)\}", style, re.S)
    return found, re.sub(r":root \{.*?\}", "", style, flags=re.S)


def variables(body):
    return dict(re.findall(r"--([\w-]+): ([^;]+);", body))


@pytest.mark.parametrize("name", STYLES)
def test_colours_of_a_page_are_variables(name):
    (light, dark), others = blocks(name)
    assert set(variables(dark)) <= set(variables(light))
    assert COLOUR.findall(IMAGE.sub("", others)) == []


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "explainer").rglob("*.py")), ids=lambda f: f.name
)
def test_colours_of_pictures_stand_in_the_palette(file):
    source = re.sub(r">>>.*?\"\"\"", "", file.read_text("utf-8"), flags=re.S)
    if file.name == "drawing.py":
        source = source.partition("# ---- sizes")[2]
        assert source
    assert re.findall(r'"#[0-9a-f]{6}"|"white"|"black"', source) == []


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.js")), ids=lambda f: f.name)
def test_scripts_have_no_colours(file):
    assert re.findall(r'"#[0-9a-f]{3,6}"|"white"|"black"', file.read_text("utf-8")) == []


def test_pictures_have_the_light_colours_of_the_page():
    (light, _), _ = blocks(STYLES[0])
    page = variables(light)
    hues = [page[f"tap-{n}"] for n in range(len(drawing.TAPS))]
    assert tuple(hues) == drawing.TAPS
    assert f"tap-{len(hues)}" not in page
    for name in ("PAPER", "GROUND", "INK", "SOFT", "LINE"):
        assert page[name.lower()] == getattr(drawing, name)
    shares = [float(page[name].rstrip("%")) / 100 for name in ("share", "lit-share")]
    assert shares == [drawing.SHARE, drawing.LIT_SHARE]


def test_mid_grey_is_that_of_projections():
    (light, _), _ = blocks(STYLES[1])
    assert variables(light)["grey"] == f"#{GREY:02x}{GREY:02x}{GREY:02x}"
