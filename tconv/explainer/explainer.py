"""Explainer of a transposed convolution: facts, an interactive page and pictures."""

from __future__ import annotations

import os
import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from tconv.explainer.drawing import draw
from tconv.explainer.facts import facts_of
from tconv.explainer.html_page import frame_of, page_of
from tconv.explainer.raster import write_gif, write_png
from tconv.explainer.scene import Scene
from tconv.explainer.svg import svg_of
from tconv.geometry.axis import Axis
from tconv.signatures import readable
from tconv.system.files import suffix_of, whole_file
from tconv.system.public_pickles import reduce_by_public_name

__all__ = ["SUFFIXES", "Explainer", "explain"]

SUFFIXES = (".html", ".svg", ".png", ".gif")


@readable
def explain(
    x: ArrayLike | None = None,
    w: ArrayLike | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    output_padding: Any = 0,
) -> Explainer:
    """Explain a small transposed convolution cell by cell, on an interactive page.

    The default is the worked example, ``x = [[37, 47], [67, 77]]`` and
    ``w = [[1, 2], [3, 4]]``.

    Parameters
    ----------
    x : array (H, W) or (W,) of real numbers, the input: at most 8 cells along an axis. Its numbers
        are shown exactly; sums are of float64.
    w : array of as many axes, the kernel: at most 7 taps along an axis. Of a layer's weight pass
        one channel pair, ``weight[c, m]``.
    stride : int or one int per axis, at most 5
    padding : int, one int per axis, or one (begin, end) pair per axis, from 0 to 6
    dilation : int or one int per axis, at most 4
    output_padding : int or one int per axis

    Returns
    -------
    Explainer: shows itself in a notebook; `save` writes the page or a picture

    Raises
    ------
    ParameterError : a setting breaks its rule, a size is too large for a picture, or float64 does
        not hold a number exactly, such as 2**53 + 1.
    ShapeError : sizes do not fit each other, or an array does not have one or two axes.
    DTypeError : an array does not hold real numbers, or is masked.

    References
    ----------
    Dumoulin & Visin 2016, arXiv:1603.07285; its drawings show cells without numbers.

    >>> print(tconv.explain())
    y[1,1] = 4·37 + 3·47 + 2·67 + 1·77 = 500
    2×2 by a kernel of 2×2 gives 3×3
    >>> tconv.explain([1, 2, 3], [1, 1, 1], stride=2).facts()["y"]
    [[1, 1, 3, 2, 5, 3, 3]]
    """
    settings = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "output_padding": output_padding,
    }
    return Explainer(Scene.of(x, w, **settings))


@dataclass(frozen=True)
class Explainer:
    """One transposed convolution, explained; made by `explain`.

    Parameters
    ----------
    scene : Scene, its numbers and sizes

    >>> tconv.explain(stride=2).url_state()
    '#s=2'
    """

    scene: Scene

    __reduce_ex__ = reduce_by_public_name

    def __getstate__(self) -> tuple[Any, ...]:
        return self.scene.x, self.scene.w, tuple(map(tuple, self.scene.axes))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        x, w, (first, second) = state
        vars(self)["scene"] = Scene(x, w, (Axis._make(first), Axis._make(second)))

    def facts(self) -> dict[str, Any]:
        """Return every number of the page, as plain lists, strings and numbers.

        >>> facts = tconv.explain().facts()
        >>> facts["matrix"]["shape"], facts["counts"]
        ([9, 4], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
        """
        from copy import deepcopy

        return deepcopy(facts_of(self.scene))

    def url_state(self) -> str:
        """Return the fragment that makes the address of the example's page show this scene.

        The example's page is that of ``explain()``, and of the documentation.
        """
        return self.scene.url_state

    def html(self) -> str:
        """Return the page: one document that loads nothing else and needs no network."""
        return page_of(self.scene, svg_of(draw(self.scene, with_matrix=False)))

    def svg(self) -> str:
        """Return a picture of the middle output cell and the terms of its sum."""
        return svg_of(draw(self.scene))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page (.html), a picture (.svg, .png), or all stamps one by one (.gif).

        Each frame of a .gif adds the stamp of one more input cell; the last one is the finished
        picture, the same as the .png. PNG and GIF need Pillow.

        Raises
        ------
        ParameterError : the name ends in none of these, or its folder does not exist.
        ImportError : Pillow is not installed.

        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tconv.explain().save(f"{folder}/page.html")
        ...     Path(folder, "page.html").read_text("utf-8")[:15]
        '<!doctype html>'
        """
        suffix = suffix_of(path, SUFFIXES, "page.html")
        with whole_file(path) as unfinished:
            if suffix in (".html", ".svg"):
                text = self.html() if suffix == ".html" else self.svg()
                unfinished.write_text(text, "utf-8", newline="\n")
            else:
                cells = len(self.scene.x) * len(self.scene.x[0])
                last = draw(self.scene)
                stamps = [draw(self.scene, n + 1) for n in range(cells)]
                figures = [*stamps, last]
                if suffix == ".gif":
                    write_gif(unfinished, figures)
                else:
                    size = max(f.width for f in figures), max(f.height for f in figures)
                    write_png(unfinished, last, size)

    def show(self) -> Path:
        """Write the page to a temporary file, open it in a browser, and return its path."""
        handle, name = tempfile.mkstemp(prefix="tconv-explain-", suffix=".html")
        os.close(handle)
        self.save(name)
        webbrowser.open(Path(name).as_uri())
        return Path(name)

    def __str__(self) -> str:
        facts = facts_of(self.scene)
        sizes = (
            "×".join(map(str, facts[f"{name}_size"][2 - facts["rank"] :]))
            for name in ("input", "kernel", "output")
        )
        equation = facts["equations"][self.scene.middle]
        return "{}\n{} by a kernel of {} gives {}".format(equation, *sizes)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return a notebook's representations: the page in a frame, the picture and the text."""
        svg = self.svg()
        return {
            "text/html": frame_of(self.html(), svg),
            "image/svg+xml": svg,
            "text/plain": str(self),
        }
