"""Explainer of a transposed convolution: facts, an interactive page and pictures."""

from __future__ import annotations

import os
import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from tconv.errors import ParameterError
from tconv.explainer.channel_drawing import draw_channels
from tconv.explainer.channels import channel_facts
from tconv.explainer.drawing import Figure, draw
from tconv.explainer.facts import facts_of
from tconv.explainer.html_page import frame_of, page_of
from tconv.explainer.picture_drawing import draw_picture
from tconv.explainer.raster import write_gif, write_png
from tconv.explainer.scene import Scene
from tconv.explainer.svg import svg_of
from tconv.explainer.view import View, steps_of
from tconv.geometry.axis import Axis
from tconv.messages import show
from tconv.signatures import readable
from tconv.system.files import suffix_of, whole_file
from tconv.system.public_pickles import reduce_by_public_name

__all__ = ["SUFFIXES", "Explainer", "explain"]

SUFFIXES = (".html", ".svg", ".png", ".gif")
_MOST_FRAMES = 256


@readable
def explain(
    x: ArrayLike | None = None,
    w: ArrayLike | None = None,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    output_padding: Any = 0,
    lens: str | None = None,
    step: int | None = None,
    cell: Any = None,
) -> Explainer:
    """Explain a small transposed convolution cell by cell, on an interactive page.

    The default is the worked example, ``x = [[37, 47], [67, 77]]`` and
    ``w = [[1, 2], [3, 4]]``.

    Parameters
    ----------
    x : array (H, W) or (W,) of real numbers, the input: at most 8 cells along an axis. Its numbers
        are shown exactly; sums are of float64. With channels it is (C, H, W) or (C, W).
    w : array of as many axes, the kernel: at most 7 taps along an axis. Of a layer's weight pass
        one channel pair, ``weight[c, m]``; or up to 3 by 3 channels, ``weight[:3, :3]``, with x of
        as many input channels.
    stride : int or one int per axis, at most 5; 1 if not given, and 2 for the lens "picture"
    padding : int, one int per axis, or one (begin, end) pair per axis, from 0 to 6
    dilation : int or one int per axis, at most 4
    output_padding : int or one int per axis
    lens : what the page starts with, and pictures draw. "stamp" adds the kernel, times an input
        cell, step by step; "collect" (if not given) sums the terms of an output cell; "conv" does
        so as a convolution; "channels" (if x or w has them) adds the parts of the input channels;
        "picture" puts a small landscape through w, without w through 3×3 ones.
    step : number of a step of the lens, from 1: the input cell of "stamp", the output cell of
        other lenses; all stamps or the middle cell if not given
    cell : (row, column) of an output cell to pin, with "channels" (row, column, channel)

    Returns
    -------
    Explainer: shows itself in a notebook; `save` writes the page or a picture

    Raises
    ------
    ParameterError : a setting breaks its rule, a size is too large for a drawing, float64 does
        not hold a number exactly, such as 2**53 + 1, there is no such lens, step or cell, or x was
        passed for the lens "picture", which has its own.
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
    >>> print(tconv.explain(lens="channels", cell=(0, 1, 0)))
    y[0,0,1] = (2·37 + 1·47) + (2·1 + 1·3) = 121 + 5 = 126
    2 channels of 2×2 by kernels of 2×2 give 2 channels of 3×3
    """
    settings = {"padding": padding, "dilation": dilation, "output_padding": output_padding}
    if stride is not None:
        settings["stride"] = stride
    if lens == "picture":
        if x is not None:
            raise ParameterError(
                f'x={show(x)} must be None for the lens "picture", whose input is a landscape; '
                "leave it out, or choose another lens."
            )
        scene = Scene.of_picture(w, **settings)
    else:
        scene = Scene.of(x, w, **settings)
    if lens is None and scene.has_channels:
        lens = "channels"
    if lens is None and step is None and cell is None:
        return Explainer(scene)
    return Explainer(scene, View.of(scene, lens or "collect", step, cell))


@dataclass(frozen=True)
class Explainer:
    """One transposed convolution, explained; made by `explain`.

    Parameters
    ----------
    scene : Scene, its numbers and sizes
    view : View, the lens, step and cell that were chosen, or None

    >>> tconv.explain(stride=2, lens="stamp", step=1).url_state()
    '#s=2&lens=stamp&step=1'
    """

    scene: Scene
    view: View | None = None

    __reduce_ex__ = reduce_by_public_name

    def __getstate__(self) -> tuple[Any, ...]:
        scene, view = self.scene, self.view
        more = scene.channels, scene.more_x, scene.more_w, scene.is_picture
        seen = view and (view.lens, view.step, view.cell)
        return scene.x, scene.w, tuple(map(tuple, scene.axes)), more, seen

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        x, w, (first, second), *later = state  # before lenses were chosen, nothing came later
        more, seen = later or ((), None)
        vars(self)["scene"] = Scene(x, w, (Axis._make(first), Axis._make(second)), *more)
        vars(self)["view"] = seen and View(*seen)

    def facts(self) -> dict[str, Any]:
        """Return every number of the page, as plain lists, strings and numbers.

        The lens "channels" adds ``channels``, with x[c], w[c][m], parts[m][c] and y[m].

        >>> facts = tconv.explain().facts()
        >>> facts["matrix"]["shape"], facts["counts"]
        ([9, 4], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
        """
        from copy import deepcopy

        facts = deepcopy(facts_of(self.scene))
        if self._shown.lens == "channels":
            facts["channels"] = channel_facts(self.scene)
        return facts

    def url_state(self) -> str:
        """Return the fragment that makes the address of the example's page show this scene.

        The example's page is that of ``explain()``, and of the documentation.
        """
        parts = self.scene.url_state
        if self.view is not None:
            first = View.of(self.scene, self.view.lens)
            if self.view.lens != "collect":
                parts += f"&lens={self.view.lens}"
            if self.view.step != first.step:
                parts += f"&step={self.view.step}"
            if self.view.cell is not None:
                parts += f"&sel={self.view.selection}"
        return "#" + parts.lstrip("#&") if parts else ""

    @property
    def _shown(self) -> View:
        return self.view or View.of(self.scene, "collect")

    def html(self) -> str:
        """Return the page: one document that loads nothing else and needs no network."""
        still = self._drawn(self._shown, is_whole=False)
        return page_of(self.scene, svg_of(still), self.view)

    def svg(self) -> str:
        """Return a picture of an output cell and the terms of its sum, or of what was chosen."""
        return svg_of(self._drawn(self._shown))

    def _drawn(self, view: View, *, is_whole: bool = True) -> Figure:
        """Draw a view; a page has the matrix, and the numbers of the picture, in its script."""
        o, channel = view.output(self.scene)
        if view.lens == "picture":
            return draw_picture(self.scene, o, with_numbers=is_whole)
        if view.lens == "channels":
            return draw_channels(self.scene, o, channel)
        if view.lens == "stamp" and view.cell is None:
            return draw(self.scene, view.step, with_matrix=is_whole)
        turned = view.lens == "conv"
        return draw(self.scene, output=o, as_convolution=turned, with_matrix=is_whole)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page (.html), a picture (.svg, .png), or all steps one by one (.gif).

        A picture shows the chosen lens, step and cell. Each frame of a .gif is a step of the lens;
        the last one stays longer. If no lens was chosen, each frame adds the stamp of one more
        input cell, and the last one is the finished picture, the same as the .png. PNG and GIF need
        Pillow.

        Raises
        ------
        ParameterError : the name ends in none of these, or its folder does not exist; or a .gif
            would show one step or cell only, or more steps than it has room for.
        ImportError : Pillow is not installed.

        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tconv.explain().save(f"{folder}/page.html")
        ...     Path(folder, "page.html").read_text("utf-8")[:15]
        '<!doctype html>'
        """
        suffix = suffix_of(path, SUFFIXES, "page.html")
        if suffix == ".gif":
            self._check_frames()
        with whole_file(path) as unfinished:
            if suffix in (".html", ".svg"):
                text = self.html() if suffix == ".html" else self.svg()
                unfinished.write_text(text, "utf-8", newline="\n")
            elif suffix == ".gif":
                write_gif(unfinished, self._frames())
            else:
                figure = self._drawn(self._shown)
                sizes = self._frames() if self.view is None else [figure]
                size = max(f.width for f in sizes), max(f.height for f in sizes)
                write_png(unfinished, figure, size)

    def _frames(self) -> list[Figure]:
        """Draw all steps of the lens; if none was chosen, all stamps and the finished output."""
        lens = "stamp" if self.view is None else self.view.lens
        steps = range(1, steps_of(self.scene, lens) + 1)
        frames = [self._drawn(View(lens, step)) for step in steps]
        return [*frames, self._drawn(self._shown)] if self.view is None else frames

    def _check_frames(self) -> None:
        if self.view is None:
            return
        lens, steps = self.view.lens, steps_of(self.scene, self.view.lens)
        if steps > _MOST_FRAMES:
            raise ParameterError(
                f"lens={lens!r} has {steps} steps, must have at most {_MOST_FRAMES} for a .gif; "
                "save a .png of one of them, or a page."
            )
        if self.view != View.of(self.scene, lens):
            raise ParameterError(
                "step and cell must be None for a .gif, which shows all steps; save a .png."
            )

    def show(self) -> Path:
        """Write the page to a temporary file, open it in a browser, and return its path."""
        handle, name = tempfile.mkstemp(prefix="tconv-explain-", suffix=".html")
        os.close(handle)
        self.save(name)
        webbrowser.open(Path(name).as_uri())
        return Path(name)

    def __str__(self) -> str:
        facts = facts_of(self.scene)
        x, w, y = (
            "×".join(map(str, facts[f"{name}_size"][2 - facts["rank"] :]))
            for name in ("input", "kernel", "output")
        )
        o, channel = self._shown.output(self.scene)
        if self._shown.lens == "channels":
            equation = channel_facts(self.scene)["equations"][channel][o]
            ins, outs = (f"{n} channel{'s' if n > 1 else ''}" for n in self.scene.channels)
            return f"{equation}\n{ins} of {x} by kernels of {w} give {outs} of {y}"
        if self._shown.lens == "stamp" and self._shown.cell is None:
            o = self.scene.middle
        return f"{facts['equations'][o]}\n{x} by a kernel of {w} gives {y}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return a notebook's representations: the page in a frame, the picture and the text."""
        svg = self.svg()
        return {
            "text/html": frame_of(self.html(), svg),
            "image/svg+xml": svg,
            "text/plain": str(self),
        }
