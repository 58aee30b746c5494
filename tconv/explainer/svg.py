"""HOW A PICTURE BECOMES SVG: text that browsers and editors show, with nothing outside it."""

from collections.abc import Iterable
from html import escape
from itertools import groupby
from operator import itemgetter
from statistics import mode

from tconv.explainer.drawing import INK, LINE, PAPER, Box, Figure, Label

__all__ = ["svg_of"]


def svg_of(figure: Figure) -> str:
    """Return a figure as the text of an SVG document: all boxes, and above them all labels.

    >>> print(svg_of(Figure(9, 9, "a cell", (Box(1, 1, 7, 7),))))
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" width="9" height="9" role="img" \
font-family="system-ui,'DejaVu Sans',sans-serif"><title>Transposed convolution</title>\
<desc>a cell</desc><g fill="#ffffff"><path d="M0 0h9v9H0z"/><g stroke="#878f99">\
<path d="M1 1h7v7h-7z"/></g></g><g fill="#16191d" font-size="15" text-anchor="middle"></g></svg>
    """
    w, h = figure.width, figure.height
    labels = [shape for shape in figure.shapes if isinstance(shape, Label) and shape.text]
    boxes = [shape for shape in figure.shapes if isinstance(shape, Box)]
    paths = _grouped((line, _paths(alike)) for line, alike in groupby(boxes, _outline))
    usual = mode([label.size for label in labels] or [Label.size])
    styled = ((_style(label, usual), _text(label)) for label in labels)
    texts = _grouped(sorted(styled, key=itemgetter(0)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
        'role="img" font-family="system-ui,\'DejaVu Sans\',sans-serif">'
        f"<title>Transposed convolution</title><desc>{escape(figure.description)}</desc>"
        f'<g fill="{PAPER}"><path d="M0 0h{w}v{h}H0z"/><g stroke="{LINE}">{paths}</g></g>'
        f'<g fill="{INK}" font-size="{usual}" text-anchor="middle">{texts}</g></svg>'
    )


def _grouped(styled: Iterable[tuple[str, str]]) -> str:
    """Join shapes, each after its style; neighbours of one style share it."""
    runs = (
        (style, "".join(shape for _, shape in run)) for style, run in groupby(styled, itemgetter(0))
    )
    return "".join(f"<g{style}>{shapes}</g>" if style else shapes for style, shapes in runs)


def _outline(box: Box) -> str:
    """Write what differs from a thin line."""
    stroke = "" if box.stroke == LINE else f' stroke="{box.stroke}"'
    thick = "" if box.thickness == 1 else f' stroke-width="{box.thickness}"'
    dash = f' stroke-dasharray="{box.dash[0]} {box.dash[1]}"' if box.dash else ""
    return stroke + thick + dash


def _paths(boxes: Iterable[Box]) -> str:
    """Write boxes, neighbours of one fill as one path; say what differs from paper."""
    paths = ""
    for fill, alike in groupby(boxes, lambda box: box.fill):
        ways = "".join(f"M{b.x} {b.y}h{b.width}v{b.height}h-{b.width}z" for b in alike)
        paths += f'<path d="{ways}"' + ("/>" if fill == PAPER else f' fill="{fill or "none"}"/>')
    return paths


def _style(label: Label, usual: int) -> str:
    """Write what differs from a label of the usual size, in ink, told by its middle."""
    color = "" if label.color == INK else f' fill="{label.color}"'
    size = "" if label.size == usual else f' font-size="{label.size}"'
    anchor = "" if label.middle else ' text-anchor="start"'
    bold = ' font-weight="700"' if label.bold else ""
    return f"{color}{size}{anchor}{bold}"


def _text(label: Label) -> str:
    """Write a label told by its middle or its start."""
    # The middle of capitals and digits lies about a third of the size above the base line.
    place = f'x="{label.x}" y="{label.y + round(label.size * 0.36)}"'
    return f"<text {place}>{escape(label.text, quote=False)}</text>"
