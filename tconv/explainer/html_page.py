"""HOW THE PAGE IS MADE: one file with style, script and numbers inside, that loads nothing."""

import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from tconv.explainer.scene import Scene

__all__ = ["SCRIPTS", "filled", "frame_of", "page_of", "source"]

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
    start = json.dumps(scene.state, separators=(",", ":"))
    return filled(
        "explainer.html",
        {
            "/*{style}*/": source("explainer.css"),
            "/*{script}*/": "\n".join(map(source, SCRIPTS)),
            "<!--{svg}-->": svg,
            "{start}": start,
        },
    )


def filled(name: str, parts: Mapping[str, str]) -> str:
    """Return a template that lies beside this file with its gaps filled, each of them once."""
    gaps = re.compile("|".join(map(re.escape, parts)))
    page, count = gaps.subn(lambda gap: parts[gap[0]], source(name))
    if count != len(parts):
        raise ValueError(f"{name} must hold every one of {', '.join(parts)} once")
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


_SCRIPT = re.compile(
    r"""
    ( "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*'                                # strings,
    | `(?:[^`\\$]|\\.|\$(?!{)|\${(?:[^`{}]|`[^`]*`|{[^{}]*})*})*`           # templates,
    | (?:(?<=[(,:?=|]\ )|(?<=[(,]))/(?:[^/\\\[\n]|\\.|\[[^\]]*\])+/ )      # patterns
    | \ ?([!=]==|[<>]=|=>|&&|\|\||[,=*?:<>{}])\ ?                            # and signs
    """,
    re.VERBOSE,
)
"""What stays as it is in a script, and signs, which need no gaps."""


def _folder(name: str) -> Any:
    own = files("tconv.deconvnet") if name.startswith("gallery.") else files("tconv.explainer")
    return own if name.startswith("gallery.") else own.joinpath("page")


@cache
def source(name: str) -> str:
    """Read a file beside this one, without indentation, comments and gaps."""
    lines = _folder(name).joinpath(name).read_text("utf-8").splitlines()
    if name.endswith(".js"):
        lines = [re.sub(r"(^|\s)// .*", "", line) for line in lines]
    text = "\n".join(filter(None, map(str.strip, lines)))
    if name.endswith(".js"):
        # A line never ends by itself after these; after a brace that closes it may.
        text = re.sub(r"(?<=[{;,(\[])\n", "", text)
        return _SCRIPT.sub(lambda found: found[1] or found[2], text)
    if name.endswith(".css"):
        text = re.sub(r"/\*.*?\*/", "", text)
        return re.sub(r"\s*([{};,])\s*|(?<=:)\s", r"\1", text).replace(";}", "}")
    return text
