"""Layout of a picture: a scene as boxes and labels, which `svg` and `raster` draw.

The picture shows the panels of the page: input, kernel, output and, while its numbers are legible,
the matrix. A tap has a colour *and* a letter. The picture highlights either one output cell with
all terms of its sum, or one input cell whose stamp, its multiple of the kernel, was added last.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tconv.explainer.facts import equation_of, facts_of, stamped, tap_letter
from tconv.explainer.scene import Scene, number_text, short_text

__all__ = [
    "DEEP",
    "GROUND",
    "INK",
    "LINE",
    "LIT_SHARE",
    "PAPER",
    "SHARE",
    "SOFT",
    "TAPS",
    "Box",
    "Cell",
    "Figure",
    "Label",
    "Panel",
    "Pixels",
    "Shape",
    "brief",
    "draw",
    "figure_of",
    "in_rows",
    "sentence_of",
    "side_of",
]

# ---- palette: the light one of page/explainer.css, and a test compares both ----------------------

PAPER, GROUND = "#ffffff", "#f4f5f7"  # of a cell; of a cell that is zero or cropped
DEEP = "#000000"  # of numbers on light pixels; those on dark ones have PAPER
INK, SOFT, LINE = "#16191d", "#4d555f", "#878f99"  # of numbers; of secondary text; of outlines
# Okabe & Ito 2008: hues that colour-blind readers tell apart.
TAPS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
SHARE, LIT_SHARE = 0.24, 0.5  # of a tap's hue on paper, in a cell and in a highlighted one

# ---- sizes ---------------------------------------------------------------------------------------

_MARGIN, _GAP, _HEAD = 16, 36, 26  # pixels around, between panels, and for a panel's heading
_LARGEST_CELL = 48
_MATRIX_CELL = 28
_MOST_NUMBERS = 16  # rows and columns of the largest matrix that is drawn
_LEAST_FONT, _EASY_FONT = 6, 8  # pixels: with all digits; with rounded ones
_FONT_SHARE = 1.45  # of a cell's side, divided by the number of characters (2/3 as wide as high)
_MIDDLE_GREY = 118  # on which black and white are read equally well
_LONGEST_SUM = 240  # characters of a sum with all its digits


@dataclass(frozen=True)
class Box:
    """A rectangle: top left corner and size in pixels, colours as #rrggbb."""

    x: int
    y: int
    width: int
    height: int
    fill: str | None = PAPER
    stroke: str = LINE
    thickness: int = 1
    dash: tuple[int, int] | None = None


@dataclass(frozen=True)
class Label:
    """A line of text: x is its start or, if `middle`, its middle; y its middle; size in pixels."""

    x: int
    y: int
    text: str
    size: int = 15
    color: str = INK
    middle: bool = False
    bold: bool = False


@dataclass(frozen=True)
class Pixels:
    """Grey pixels, 0 (black) to 255 (white), each a square of `side` pixels of the figure."""

    x: int
    y: int
    side: int
    rows: tuple[bytes, ...]


Shape = Box | Label | Pixels


@dataclass(frozen=True)
class Figure:
    """A picture: its size in pixels, its description in words, and its shapes, lowest first."""

    width: int
    height: int
    description: str
    shapes: tuple[Shape, ...]


def draw(
    scene: Scene,
    stamps: int | None = None,
    *,
    output: int | None = None,
    as_convolution: bool = False,
    with_matrix: bool = True,
) -> Figure:
    """Lay out a scene: the finished output, or the sums after the first `stamps` input cells.

    The finished output has the terms of one cell highlighted, of the middle one if `output` is
    None. `as_convolution` spreads the input by the stride, turns the kernel around and frames the
    window that the cell's sum reads.

    >>> draw(Scene.of()).description
    'y[1,1] = 4·37 + 3·47 + 2·67 + 1·77 = 500'
    """
    facts = facts_of(scene)
    if stamps is not None:
        highlight = _stamp_highlight(scene, facts, stamps)
    else:
        output = scene.middle if output is None else output
        highlight = _output_highlight(facts, output)
    shapes: list[Shape] = []
    x, bottom = _MARGIN, 0
    for panel in _panels(facts, highlight, with_matrix, output if as_convolution else None):
        width, height = panel.add_to(shapes, x, _MARGIN)
        x, bottom = x + width + _GAP, max(bottom, _MARGIN + height)
    return figure_of(shapes, x - _GAP + _MARGIN, bottom, highlight.sentence, facts)


def figure_of(
    shapes: list[Shape], width: int, bottom: int, sentence: str, facts: Mapping[str, Any]
) -> Figure:
    """Add a sentence and the size formulas below the shapes of a figure."""
    width, y = max(width, 560), bottom + 26
    for line in _wrapped(sentence, (width - 2 * _MARGIN) // 11):
        shapes.append(Label(_MARGIN, y, line, 19))
        y += 26
    for n, formula in enumerate(dict.fromkeys(facts["size_formulas"])):
        axis = "W" if facts["rank"] == 1 else "HW"[n]
        shapes.append(Label(_MARGIN, y, f"size: {axis} = {formula}", 14, SOFT))
        y += 20
    return Figure(width, y, sentence, tuple(shapes))


def sentence_of(tell: Callable[[Callable[[float], str]], str]) -> str:
    """Tell a sum with all digits, or with few if it is long; a function writes the numbers."""
    whole = tell(number_text)
    return tell(short_text) if len(whole) > _LONGEST_SUM else whole


@dataclass(frozen=True)
class _Highlight:
    """Highlighted cells: flat indices, each with its tap or None; and the sentence about them."""

    inputs: Mapping[int, int | None]
    taps: frozenset[int]
    outputs: Mapping[int, int | None]
    entries: frozenset[tuple[int, int]]
    canvas: Any
    sentence: str


def _output_highlight(facts: dict[str, Any], o: int) -> _Highlight:
    """Highlight an output cell and the terms of its sum."""
    pairs = facts["contributions"][o]
    sentence = sentence_of(lambda write: equation_of(facts, o, write))
    return _Highlight(
        dict(pairs),
        frozenset(k for _, k in pairs),
        {o: None},
        frozenset((o, i) for i, _ in pairs),
        facts["canvas"],
        sentence,
    )


def _stamp_highlight(scene: Scene, facts: dict[str, Any], stamps: int) -> _Highlight:
    """Highlight the input cell whose stamp was added last, and the cells of the stamp."""
    x, i = _flat(facts["x"]), stamps - 1
    places = {o: k for o, of_i, k in facts["matrix"]["nonzeros"] if of_i == i}
    return _Highlight(
        {i: None},
        frozenset(places.values()),
        places,
        frozenset((o, i) for o in places),
        stamped(scene, stamps).tolist(),
        f"stamp {stamps} of {len(x)}: {number_text(float(x[i]))} times the kernel",
    )


# ---- panels --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A cell of a panel: its number, and how it is marked."""

    text: str
    tap: int | None = None
    letter: bool = False
    lit: bool = False
    kind: str = ""
    """A plain cell "", or "zero", "head", "crop", "border" or "extra"."""
    grey: int | None = None
    """Of a pixel, 0 to 255; its number is in black or white then."""
    note: str = ""
    """Small text in the corner, in place of a letter."""


@dataclass(frozen=True)
class Panel:
    """A heading and below it rows of cells, with an optional frame over some of them."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]
    side: int
    frame: tuple[int, int, int, int] | None = None  # top, left, height, width in cells

    def add_to(self, shapes: list[Shape], left: int, top: int) -> tuple[int, int]:
        """Add the panel and return its width and height."""
        shapes.append(Label(left, top + 8, self.heading, 15, bold=True))
        size = self._size()
        lit: list[Shape] = []
        for r, row in enumerate(self.rows):
            for c, cell in enumerate(row):
                x, y = left + c * self.side, top + _HEAD + r * self.side
                (lit if cell.lit else shapes).extend(self._cell_shapes(cell, x, y, size))
        shapes += lit  # above their neighbours, whose outlines would overlap theirs
        if self.frame:
            r, c, height, width = (n * self.side for n in self.frame)
            shapes.append(Box(left + c, top + _HEAD + r, width, height, None, INK, 3))
        width = max(len(self.rows[0]) * self.side, 9 * len(self.heading) + 4)
        return width, _HEAD + len(self.rows) * self.side

    def _size(self) -> int:
        longest = max(len(cell.text) for row in self.rows for cell in row)
        return max(
            _LEAST_FONT, int(min(self.side * 0.4, self.side * _FONT_SHARE / max(longest, 1)))
        )

    def _cell_shapes(self, cell: Cell, x: int, y: int, size: int) -> Iterator[Shape]:
        side = self.side
        if cell.kind != "head":
            hue = None if cell.tap is None else TAPS[cell.tap % len(TAPS)]
            ground = GROUND if cell.kind in ("zero", "crop", "border") else PAPER
            if cell.grey is not None:
                ground = f"#{cell.grey:02x}{cell.grey:02x}{cell.grey:02x}"
            fill = _tint(hue, LIT_SHARE if cell.lit else SHARE) if hue else ground
            thick = 3 if cell.lit else 2 if cell.kind == "extra" else 1
            stroke = INK if cell.lit or cell.kind == "extra" else LINE
            dash = {"crop": (4, 3), "border": (4, 3), "extra": (2, 2)}.get(cell.kind)
            yield Box(x, y, side, side, fill, stroke, thick, None if cell.lit else dash)
        soft = cell.kind in ("zero", "crop", "border", "head") and not cell.lit
        color = SOFT if soft else INK
        if cell.grey is not None:
            color = PAPER if cell.grey < _MIDDLE_GREY else DEEP
        yield Label(x + side // 2, y + side // 2, cell.text, size, color, True, cell.lit)
        if cell.letter and cell.tap is not None:
            yield Label(x + 4, y + 7, tap_letter(cell.tap), 10)
        elif cell.note:
            yield Label(x + 4, y + 7, cell.note, 10, color)
        if cell.kind == "extra":
            yield Label(x + side - 8, y + side - 6, "op", 9, middle=True)


def _panels(
    facts: dict[str, Any], highlight: _Highlight, with_matrix: bool, window: int | None
) -> Iterator[Panel]:
    """Yield the panels; with a window, those of the convolution that makes output `window`."""
    if window is None:
        rows, columns = facts["input_size"]
        side = side_of(rows, columns)
        cells = [_input_cell(facts, highlight, i, side) for i in range(rows * columns)]
        yield Panel(f"Input x ({rows}×{columns})", in_rows(cells, columns), side)
    else:
        yield _dilated_input(facts, highlight, window)
    rows, columns = facts["kernel_size"]
    side = side_of(rows, columns)
    cells = [
        Cell(brief(v, side), k, True, k in highlight.taps) for k, v in enumerate(_flat(facts["w"]))
    ]
    flipped = "" if window is None else ", flipped 180°"
    cells = cells if window is None else cells[::-1]
    yield Panel(f"Kernel w ({rows}×{columns}){flipped}", in_rows(cells, columns), side)
    yield _output(facts, highlight)
    outputs, inputs = facts["matrix"]["shape"]
    if with_matrix and max(outputs, inputs) <= _MOST_NUMBERS:
        yield _matrix(facts, highlight)


def _input_cell(facts: dict[str, Any], highlight: _Highlight, i: int, side: int) -> Cell:
    value = facts["x"][i // facts["input_size"][1]][i % facts["input_size"][1]]
    return Cell(brief(value, side), highlight.inputs.get(i), True, i in highlight.inputs)


def _dilated_input(facts: dict[str, Any], highlight: _Highlight, window: int) -> Panel:
    """Spread the input by the stride, in a border of zeros; a negative border crops cells."""
    size, border = (facts["as_convolution"][name] for name in ("stretched_size", "border"))
    before = [max(begin, 0) for begin, _ in border]
    height, width = (before[n] + size[n] + max(border[n][1], 0) for n in (0, 1))
    side = side_of(height, width)

    def cell(r: int, c: int) -> Cell:
        at = r - before[0], c - before[1]
        if not all(0 <= at[n] < size[n] for n in (0, 1)):
            return Cell("0", kind="border")
        if any(at[n] % facts["stride"][n] for n in (0, 1)):
            return Cell("0", kind="zero")
        i, j = (at[n] // facts["stride"][n] for n in (0, 1))
        found = _input_cell(facts, highlight, i * facts["input_size"][1] + j, side)
        cut = any(at[n] < -border[n][0] or at[n] >= size[n] + border[n][1] for n in (0, 1))
        return replace(found, kind="crop") if cut else found

    rows = tuple(tuple(cell(r, c) for c in range(width)) for r in range(height))
    top, left = (
        o - min(border[n][0], 0) for n, o in enumerate(divmod(window, facts["output_size"][1]))
    )
    reach = [
        step * (taps - 1) + 1
        for step, taps in zip(facts["dilation"], facts["kernel_size"], strict=True)
    ]
    heading = f"Input x, spread by the stride ({height}×{width})"
    return Panel(heading, rows, side, (top, left, reach[0], reach[1]))


def _output(facts: dict[str, Any], highlight: _Highlight) -> Panel:
    (top, _), (left, _) = facts["padding"]
    height, width = facts["output_size"]
    extra, side = facts["output_padding"], side_of(len(highlight.canvas), len(highlight.canvas[0]))
    rows = []
    for u, values in enumerate(highlight.canvas):
        row = []
        for v, value in enumerate(values):
            r, c = u - top, v - left
            if not (0 <= r < height and 0 <= c < width):
                row.append(Cell(brief(value, side), kind="crop"))
                continue
            kind = "extra" if r >= height - extra[0] or c >= width - extra[1] else ""
            o = r * width + c
            lit = o in highlight.outputs
            row.append(Cell(brief(value, side), highlight.outputs.get(o), True, lit, kind))
        rows.append(tuple(row))
    whole = (len(rows), len(rows[0])) == (height, width)
    frame = None if whole else (top, left, height, width)
    return Panel(f"Output y ({height}×{width})", tuple(rows), side, frame)


def _matrix(facts: dict[str, Any], highlight: _Highlight) -> Panel:
    outputs, inputs = facts["matrix"]["shape"]
    taps = {(o, i): k for o, i, k in facts["matrix"]["nonzeros"]}
    w, x, y = (_flat(facts[name]) for name in "wxy")
    side = _MATRIX_CELL
    head = (Cell("", kind="head"), *(Cell(brief(v, side), kind="head") for v in x))
    rows = [head]
    for o in range(outputs):
        row = [Cell(brief(y[o], side), kind="head", lit=o in highlight.outputs)]
        for i in range(inputs):
            k = taps.get((o, i))
            text, kind = ("0", "zero") if k is None else (brief(w[k], side), "")
            row.append(Cell(text, k, True, (o, i) in highlight.entries, kind))
        rows.append(tuple(row))
    return Panel(f"W* transposed ({outputs}×{inputs})", tuple(rows), side)


def _flat(rows: list[list[float]]) -> list[float]:
    return [value for row in rows for value in row]


def in_rows(cells: list[Cell], columns: int) -> tuple[tuple[Cell, ...], ...]:
    """Part cells into rows."""
    return tuple(tuple(cells[n : n + columns]) for n in range(0, len(cells), columns))


def side_of(rows: int, columns: int, room: int = 400) -> int:
    """Return the pixels along a side of a cell, of which so many rows and columns fit a room."""
    return max(20, min(_LARGEST_CELL, room // max(rows, columns)))


def brief(value: float, side: int) -> str:
    """Write a number with as many digits as fit a cell of so many pixels."""
    whole, rounded = (min(8, int(side * _FONT_SHARE / font)) for font in (_LEAST_FONT, _EASY_FONT))
    return short_text(float(value), whole, rounded)


def _tint(hue: str, share: float) -> str:
    """Return a mixture of a share of a hue with white."""
    parts = (int(hue[n : n + 2], 16) for n in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (part - 255) * share):02x}" for part in parts)


def _wrapped(sentence: str, most: int) -> Iterator[str]:
    """Break a sum before plus signs into lines of about `most` characters."""
    line = ""
    for n, term in enumerate(sentence.split(" + ")):
        joined = f"{line} + {term}" if n else term
        if n and len(joined) > most:
            yield line
            joined = f"    + {term}"
        line = joined
    yield line
