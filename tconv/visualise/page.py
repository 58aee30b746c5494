"""HOW THE PAGE IS MADE: one file with style, script and facts inside, that loads nothing."""

import json
import re
from functools import cache
from html import escape
from importlib.resources import files

from tconv.visualise.scene import Scene

__all__ = ["SCRIPTS", "frame_of", "page_of"]

SCRIPTS = tuple(
    f"{name}.js"
    for name in (
        *("scene", "snippets", "facts", "selection", "grids", "figure", "matrix"),
        *("sums", "settings", "details", "export", "explainer"),
    )
)
"""In reading order: all share one scope, and a file uses at once only what stands above it."""


def page_of(scene: Scene, svg: str) -> str:
    """Return the page of a scene; the picture is shown where scripts are not run.

    >>> page_of(Scene.of(), "<svg/>").splitlines()[0]
    '<!doctype html>'
    """
    start = json.dumps({"hash": scene.url_state}).replace("<", "\\u003c")
    page = _source("explainer.html")
    for name, text in (
        ("/*{style}*/", re.sub(r"\s*([{};,])\s*|(?<=:)\s", r"\1", _source("explainer.css"))),
        ("/*{script}*/", "\n".join(map(_source, SCRIPTS))),
        ("<!--{svg}-->", svg),
        ("{start}", start),
    ):
        before, after = page.split(name)
        page = before + text + after
    return page


def frame_of(page: str, svg: str) -> str:
    """Return the page in a frame of its own for a notebook, and the picture for where it is cut.

    A notebook that is not trusted, and sites that show notebooks, drop the frame.
    """
    return (
        f'<iframe title="Transposed convolution, cell by cell" srcdoc="{escape(page)}" '
        'sandbox="allow-scripts allow-downloads" style="width:100%;height:780px;border:0">'
        f"</iframe><details><summary>as a picture</summary>{svg}</details>"
    )


@cache
def _source(name: str) -> str:
    """Read a file that lies beside this one, without its indentation and whole-line comments."""
    lines = files("tconv.visualise").joinpath(name).read_text("utf-8").splitlines()
    return "\n".join(kept for line in lines if (kept := line.strip()) and kept[:3] != "// ")
