"""Interactive page of a scene: one HTML file that holds its style, scripts and data."""

import json
from html import escape

from tconv.explainer.picture import landscape, picture_text
from tconv.explainer.scene import Scene
from tconv.explainer.view import View
from tconv.page_templates import fill_template, page_source

__all__ = ["SCRIPTS", "frame_of", "page_of"]

_PACKAGE = "tconv.explainer"

SCRIPTS = tuple(
    f"{name}.js"
    for name in (
        *("scene", "snippets", "facts", "selection", "grids", "layout", "figure", "matrix"),
        *("sums", "settings", "details", "channels", "picture", "export", "explainer"),
    )
)
"""In reading order: all share one scope; top-level code of a file uses only files above it."""


def page_of(scene: Scene, svg: str, view: View | None = None) -> str:
    """Return the page of a scene and a view; browsers without scripts show the picture.

    >>> page_of(Scene.of(), "<svg/>").splitlines()[0]
    '<!doctype html>'
    """
    state = scene.state | (view.state() if view else {})
    start = json.dumps(state, separators=(",", ":"))
    return fill_template(
        _PACKAGE,
        "page/explainer.html",
        {
            "/*{style}*/": page_source(_PACKAGE, "page/explainer.css"),
            "/*{script}*/": "\n".join(page_source(_PACKAGE, f"page/{name}") for name in SCRIPTS),
            "<!--{svg}-->": svg,
            "{start}": start,
            "{photo}": picture_text(landscape()),
        },
    )


def frame_of(page: str, svg: str) -> str:
    """Return the page in a frame for a notebook, and below it the picture.

    Untrusted notebooks, and sites that show notebooks, remove the frame.
    """
    return (
        f'<iframe title="Transposed convolution, cell by cell" srcdoc="{escape(page)}" '
        'sandbox="allow-scripts allow-downloads" style="width:100%;height:780px;border:0">'
        f"</iframe><details><summary>as a picture</summary>{svg}</details>"
    )
