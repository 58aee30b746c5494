"""Layout of a picture of the picture lens: all pixels, and the numbers of a few."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.explainer.drawing import (
    INK,
    PAPER,
    SOFT,
    Box,
    Cell,
    Figure,
    Label,
    Panel,
    Pixels,
    Shape,
    brief,
    figure_of,
    in_rows,
    sentence_of,
)
from tconv.explainer.facts import equation_of, facts_of
from tconv.explainer.scene import Scene

__all__ = ["draw_picture"]

_MARGIN, _GAP, _HEAD, _FOOT = 16, 30, 26, 30
_SIDE = 38  # pixels of a cell with a number
_ZOOM = 7  # cells along a side of the enlarged parts, at most
_SMALL, _LARGE = 240, 400  # pixels that input and output may take

Image = NDArray[np.float64]


class _Part(NamedTuple):
    """The enlarged cells of an image: the top left one, and how many there are."""

    row: int
    column: int
    rows: int
    columns: int


def draw_picture(scene: Scene, o: int, *, with_numbers: bool = True) -> Figure:
    """Lay out the picture before and behind the kernel, with the numbers around output o.

    >>> draw_picture(Scene.of_picture(), 0).description
    'y[0,0] = 1·27 = 27'
    """
    facts = facts_of(scene)
    x, y = (np.array(facts[name], np.float64) for name in "xy")
    pairs = dict(facts["contributions"][o])
    read, zoomed = _parts(scene, o)
    shapes: list[Shape] = []
    left, small = _add_image(shapes, _MARGIN, "Input x", x, read, _SMALL)
    left, bottom = _add_image(shapes, left, "Output y", y, zoomed, _LARGE)
    kernel = _kernel(facts, set(pairs.values()))
    bottom = max(bottom, small + kernel.add_to(shapes, _MARGIN, small)[1])
    if with_numbers:
        width, height = _output(facts, zoomed, o).add_to(shapes, left, _MARGIN)
        told = "4× is an overlap count: 4 taps reach the pixel."
        shapes.append(Label(left, _MARGIN + height + 14, told, 12, SOFT))
        bottom = max(bottom, _MARGIN + height + _FOOT)
        left += max(width, 290) + _GAP
        width, height = _input(x, read, pairs).add_to(shapes, left, _MARGIN)
        bottom = max(bottom, _MARGIN + height)
        left += width + _GAP
    sentence = sentence_of(lambda write: equation_of(facts, o, write))
    return figure_of(shapes, left - _GAP + _MARGIN, bottom, sentence, facts)


def _parts(scene: Scene, o: int) -> tuple[_Part, _Part]:
    """Return the part of the input around the pixels that output o sums, and that around o."""
    read, zoomed = [], []
    for axis, at in zip(scene.axes, divmod(o, scene.axes[1].output), strict=True):
        size = min(axis.output, _ZOOM)
        zoomed.append((_around(at, size, axis.output), size))
        size = min(axis.input, max(4, min(_ZOOM, -(-axis.reach // axis.stride))))
        middle = (at + axis.begin - (axis.reach - 1) / 2) / axis.stride
        read.append((_around(middle, size, axis.input), size))
    return tuple(  # type: ignore[return-value]
        _Part(rows[0], columns[0], rows[1], columns[1]) for rows, columns in (read, zoomed)
    )


def _around(middle: float, size: int, most: int) -> int:
    """Return the first of `size` cells around a middle, within `most` cells."""
    return min(max(int(np.floor(middle - (size - 1) / 2 + 0.5)), 0), most - size)


def _add_image(
    shapes: list[Shape], left: int, name: str, image: Image, part: _Part, room: int
) -> tuple[int, int]:
    """Add an image and a frame around a part of it; return where its neighbours begin."""
    rows, columns = image.shape
    side, top = max(1, room // max(rows, columns)), _MARGIN + _HEAD
    shapes.append(Label(left, _MARGIN + 8, f"{name} ({rows}×{columns})", 15, bold=True))
    shapes.append(Pixels(left, top, side, tuple(map(bytes, _greys(image)))))
    corner = left + part.column * side, top + part.row * side
    for color, thickness in ((PAPER, 4), (INK, 2)):
        size = part.columns * side, part.rows * side
        shapes.append(Box(*corner, *size, None, color, thickness))
    low, high = _range(image)
    scale = f"{brief(low, 99)} (black) to {brief(high, 99)} (white)"
    shapes.append(Label(left, top + rows * side + 14, scale, 12, SOFT))
    width = max(columns * side, 8 * len(scale))
    return left + width + _GAP, top + rows * side + _FOOT


def _range(image: Image) -> tuple[float, float]:
    """Return the numbers that are black and white: the least, at most 0, and the greatest."""
    finite = image[np.isfinite(image)]
    return float(finite.min(initial=0)), float(finite.max(initial=0))


def _greys(image: Image) -> NDArray[np.uint8]:
    """Return the greys of numbers, 0 to 255; what is not finite is black."""
    low, high = _range(image)
    finite = np.where(np.isfinite(image), image, low)
    greys: Image = np.rint(255 * ((finite - low) / (high - low if high > low else 1)))
    return greys.astype(np.uint8)


def _kernel(facts: dict[str, Any], lit: set[int]) -> Panel:
    rows, columns = facts["kernel_size"]
    values = [value for row in facts["w"] for value in row]
    cells = [Cell(brief(v, _SIDE), k, True, k in lit) for k, v in enumerate(values)]
    return Panel(f"Kernel w ({rows}×{columns})", in_rows(cells, columns), _SIDE)


def _output(facts: dict[str, Any], part: _Part, o: int) -> Panel:
    y = np.array(facts["y"], np.float64)
    greys = _greys(y)

    def cell(r: int, c: int) -> Cell:
        note, is_lit = f"{facts['counts'][r][c]}×", r * y.shape[1] + c == o
        return Cell(brief(y[r, c], _SIDE), lit=is_lit, grey=int(greys[r, c]), note=note)

    return _enlarged("Its pixels", part, cell)


def _input(x: Image, part: _Part, pairs: dict[int, int]) -> Panel:
    greys = _greys(x)

    def cell(r: int, c: int) -> Cell:
        i = r * x.shape[1] + c
        grey = None if i in pairs else int(greys[r, c])
        return Cell(brief(x[r, c], _SIDE), pairs.get(i), True, i in pairs, grey=grey)

    return _enlarged("Input", part, cell)


def _enlarged(name: str, part: _Part, cell: Any) -> Panel:
    top, left, height, width = part
    heading = f"{name} {top},{left} to {top + height - 1},{left + width - 1}"
    rows = [[cell(top + u, left + v) for v in range(width)] for u in range(height)]
    return Panel(heading, tuple(map(tuple, rows)), _SIDE)
